import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from higan import editing
from higan.boundaries import random_directions
from higan.types import Boundary, Concept, Edit

L, D = 5, 8


def boundary(seed, layered=False):
    normals = random_directions(L, D, seed=seed)
    normal = normals if layered else normals[0]
    return Boundary(Concept(f"concept {seed}", "object"), normal, torch.zeros(normal.shape[:-1]), 0.9)


moves = st.tuples(st.integers(0, 50), st.booleans(), st.floats(-10, 10), st.sets(st.integers(0, L - 1), min_size=1))


def edits(chosen):
    return [Edit(boundary(seed, layered), strength, tuple(layers)) for seed, layered, strength, layers in chosen]


def codes(n=3):
    return torch.randn(n, L, D, generator=torch.Generator().manual_seed(1))


@settings(deadline=None)
@given(st.lists(moves, max_size=5), st.randoms(use_true_random=False))
def test_order_does_not_matter(drawn, random):
    chosen = edits(drawn)
    shuffled = chosen[:]
    random.shuffle(shuffled)
    torch.testing.assert_close(editing.apply(codes(), chosen), editing.apply(codes(), shuffled), atol=1e-6, rtol=0)


@settings(deadline=None)
@given(st.lists(moves, max_size=4), st.lists(moves, max_size=4))
def test_edits_add_up(drawn_first, drawn_second):
    first, second = edits(drawn_first), edits(drawn_second)
    once = editing.apply(codes(), [*first, *second])
    torch.testing.assert_close(once, editing.apply(editing.apply(codes(), first), second), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(moves)
def test_an_edit_moves_its_layers_only(drawn):
    edit = edits([drawn])[0]
    before = codes()
    after = editing.apply(before, [edit])
    untouched = [layer for layer in range(L) if layer not in edit.layers]
    assert torch.equal(after[:, untouched], before[:, untouched])
    moved = (after - before)[:, list(edit.layers)].norm(dim=-1)
    torch.testing.assert_close(moved, torch.full_like(moved, abs(edit.strength)), atol=1e-4, rtol=0)


def test_by_hand():
    normal = torch.zeros(D)
    normal[2] = 1.0
    edit = Edit(Boundary(Concept("x", "object"), normal, torch.tensor(0.0), 1.0), -1.5, (1, 3))
    change = editing.apply(torch.zeros(1, L, D), [edit])[0]
    expected = torch.zeros(L, D)
    expected[1, 2] = expected[3, 2] = -1.5
    assert torch.equal(change, expected)


def test_a_step_is_as_long_as_the_normal_at_each_layer():
    """Directions with a part at every layer are longer at some than at others, and nothing at a few."""
    lengths = torch.tensor([1.0, 0.5, 0.25, 0.0, 1.0])
    normal = random_directions(L, D) * lengths[:, None]
    edit = Edit(Boundary(Concept("x", "object"), normal, torch.zeros(L), 1.0), 2.0, (0, 1, 2, 3))
    change = editing.apply(codes(), [edit]) - codes()
    torch.testing.assert_close(change, 2 * (normal * torch.tensor([1.0, 1, 1, 1, 0])[:, None]).expand(3, -1, -1))


def test_steps_may_differ_from_layer_to_layer():
    found = editing.offset(boundary(0), torch.arange(1.0, L + 1), (1, 3), D)
    expected = torch.tensor([0.0, 2.0, 0.0, 4.0, 0.0])[:, None] * boundary(0).normal
    torch.testing.assert_close(found, expected)


def test_sweep_is_apply_at_every_strength():
    found = editing.sweep(codes(), boundary(0), [-1.0, 0.0, 2.0], [0, 4])
    assert found.shape == (3, 3, L, D)
    assert torch.equal(found[:, 1], codes())
    assert torch.equal(found[:, 2], editing.apply(codes(), [Edit(boundary(0), 2.0, (0, 4))]))
    with pytest.raises(ValueError, match="at least one strength"):
        editing.sweep(codes(), boundary(0), [], [0])


@pytest.mark.parametrize(
    ("strength", "layers", "words"),
    [
        (1.0, (), "at least one layer of 0-4; got none"),
        (1.0, (0, 5), "layers go from 0 to 4; got 5"),
        (1.0, (-1,), "got -1"),
        (math.nan, (0,), "strength must be finite"),
        (math.inf, (0,), "strength must be finite"),
    ],
)
def test_bad_edits_are_refused(strength, layers, words):
    with pytest.raises(ValueError, match=words):
        editing.apply(codes(), [Edit(boundary(0), strength, layers)])


def test_bad_codes_are_refused():
    edit = Edit(boundary(0), 1.0, (0,))
    with pytest.raises(ValueError, match="codes must be finite"):
        editing.apply(codes() * math.inf, [edit])
    with pytest.raises(ValueError, match=r"'concept 0' must be finite and of shape \(9,\) or \(5, 9\) .* got \(8,\)"):
        editing.apply(torch.zeros(2, L, 9), [edit])
    with pytest.raises(ValueError, match=r"got \(5, 8\)"):
        editing.apply(torch.zeros(2, 4, D), [Edit(boundary(0, layered=True), 1.0, (0,))])


def test_step_modes():
    truncation = torch.tensor([0.7, 0.5, 1.0])
    assert torch.equal(editing.edit_step(truncation, 2.0), torch.tensor([2.0, 2.0, 2.0]))
    equal = editing.edit_step(truncation, 2.0, "equal_step")
    # What the image sees is truncation · step.
    torch.testing.assert_close(equal * truncation, torch.tensor([2.0, 2.0, 2.0]))
    with pytest.raises(ValueError, match="truncation above 0"):
        editing.edit_step(torch.tensor([0.0, 1.0]), 2.0, "equal_step")
    with pytest.raises(ValueError, match="finite"):
        editing.edit_step(truncation, math.nan)
