import math

import pytest
import torch

from higan import population as pop
from higan import rescoring as rs
from higan import statistics, stepping
from higan.boundaries import random_directions
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Placement

SINGLE = [Placement(f"layer {layer}", (layer,)) for layer in range(4)]


class Uneven(ToyGenerator):
    """Layer l answers 2^l times as strongly as layer 0, in wide uniform strips without noise."""

    def synthesize(self, codes):
        scale = 2.0 ** torch.arange(self.num_layers)
        grey = (codes * scale[:, None] * self.directions[:-1]).sum(-1) / 64
        return grey.repeat_interleave(4, 1).reshape(-1, 1, 4, 4).expand(-1, 3, -1, -1).clamp(-1, 1)


def boundary(normal):
    return Boundary(Concept("any", "object"), normal, torch.tensor(0.0), math.nan)


@pytest.fixture(scope="module")
def uneven():
    generator = Uneven(4, 8, 4, shared_code=True)
    # The same component along every layer's own direction: a step changes strip l by the same share of its scale.
    return generator, [boundary(generator.directions[:-1].sum(0) / 2)]


def test_pixel_change_by_hand():
    before = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    after = before.clone()
    after[1, 0] = 30
    assert stepping.pixel_change(before, after).tolist() == [0, 10]
    # Bytes do not wrap around.
    assert stepping.pixel_change(after, before).tolist() == [0, 10]


def test_image_changes_double_from_layer_to_layer(uneven):
    generator, directions = uneven
    changes = stepping.image_changes(generator, SINGLE, torch.full((4, 4), 4.0), directions)
    # A step of 4 moves strip l by 4 · ½ · 2^l / 64 of the range of 255 / 2 on either side, a quarter of all pixels.
    expected = torch.tensor([4 * 0.5 * 2.0**layer / 64 * 127.5 / 4 for layer in range(4)])
    torch.testing.assert_close(changes, expected, atol=0.26, rtol=0)


def test_image_changes_are_means_over_directions(uneven):
    """Half as much where one of two directions leads nowhere."""
    generator, directions = uneven
    nowhere = boundary(generator.directions[-1])
    one, two = (
        stepping.image_changes(generator, SINGLE, torch.full((4, 4), 4.0), some)
        for some in (directions, [*directions, nowhere])
    )
    torch.testing.assert_close(two, one / 2)


def test_a_step_is_stretched_sixteen_times_at_the_most():
    """Layer 0 answers 128 times as weakly as the others: to be equal it would have to go 128^¾ = 38 times as far."""
    dither = ((torch.arange(16) + 0.5) / 16 - 0.5) / 127.5

    class Weak(ToyGenerator):
        def synthesize(self, codes):
            scale = torch.tensor([0.25, 32.0, 32.0, 32.0])
            grey = (codes * scale[:, None] * self.directions[:-1]).sum(-1) / 64
            return (grey.repeat_interleave(4, 1)[:, None, :, None] + dither).expand(-1, 3, -1, -1).clamp(-1, 1)

    generator = Weak(4, 8, 16, shared_code=True)
    directions = [boundary(generator.directions[:-1].sum(0) / 2)]
    steps = stepping.placement_steps(generator, SINGLE, 1.0, "equal_change", directions=directions)
    assert steps[:, 0].tolist() == pytest.approx([16, 128**-0.25, 128**-0.25, 128**-0.25], rel=0.1)
    assert float(steps[0, 0]) == 16


def test_equal_change_undoes_what_layers_differ_by(uneven):
    generator, directions = uneven
    steps = stepping.placement_steps(generator, SINGLE, 4.0, "equal_change", directions=directions)
    assert bool((steps == steps[:, :1]).all())
    # Against the geometric mean: factors 2^1.5, 2^0.5, 2^-0.5, 2^-1.5.
    torch.testing.assert_close(steps[:, 0] / 4, 2.0 ** (1.5 - torch.arange(4)), rtol=0.1, atol=0)
    changes = stepping.image_changes(generator, SINGLE, steps, directions)
    assert float(changes.max() / changes.min()) < 1.15


def test_a_stage_of_one_layer_is_that_layer():
    places = [*SINGLE, Placement("bottom", (0,)), Placement("all", (0, 1, 2, 3))]
    change = torch.tensor([1.0, 2.0, 4.0, 8.0, 1.0, 15.0])
    assert stepping._typical(change, places) == pytest.approx(2**1.5)
    assert stepping._typical(change[4:], [Placement("a", (0, 1)), Placement("b", (2, 3))]) == pytest.approx(15**0.5)


def test_placements_that_are_equal_already_are_not_drawn_again(uneven):
    rows = []

    class Watched(Uneven):
        def synthesize(self, codes):
            rows.append(len(codes))
            return super().synthesize(codes)

    _, directions = uneven
    generator = Watched(4, 8, 4, shared_code=True)
    stepping.image_changes(generator, SINGLE[:1], torch.full((1, 4), 4.0), directions)
    once = sum(rows) // 2  # as they are, and moved
    rows.clear()
    alone = stepping.placement_steps(generator, SINGLE[:1], 4.0, "equal_change", directions=directions)
    assert sum(rows) == 2 * once
    assert float(alone[0, 0]) == 4
    rows.clear()
    stepping.placement_steps(generator, SINGLE[2:], 4.0, "equal_change", directions=directions)
    assert sum(rows) < 4 * 3 * once


def test_a_placement_that_never_answers_keeps_the_official_step_within_the_limit(uneven):
    class Deaf(Uneven):
        def synthesize(self, codes):
            codes = codes.clone()
            codes[:, 0] = 0
            return super().synthesize(codes)

    _, directions = uneven
    steps = stepping.placement_steps(
        Deaf(4, 8, 4, shared_code=True), SINGLE, 4.0, "equal_change", directions=directions
    )
    assert float(steps[0, 0]) == 4
    assert not torch.allclose(steps[1], steps[3])


def test_other_modes_are_the_same_at_every_placement():
    generator = ToyGenerator(4, 8, psi=0.5, psi_layers=2)
    torch.testing.assert_close(stepping.placement_steps(generator, SINGLE, 2.0), torch.full((4, 4), 2.0))
    equal = stepping.placement_steps(generator, SINGLE, 2.0, "equal_step")
    torch.testing.assert_close(equal, torch.tensor([4.0, 4.0, 2.0, 2.0]).expand(4, -1))
    with pytest.raises(ValueError, match="measured along directions"):
        stepping.placement_steps(generator, SINGLE, 2.0, "equal_change")
    with pytest.raises(ValueError, match="along directions; got none"):
        stepping.image_changes(generator, SINGLE, torch.ones(4, 4), [])


def test_rescoring_records_the_steps_it_matched():
    """The toy's layers answer alike, so that equal changes are nearly official steps; nothing else differs."""
    generator, scorer = ToyGenerator(4, 8, shared_code=True), ToyScorer(4)
    boundaries = [Boundary(scorer.concepts[k], generator.directions[k], torch.tensor(0.0), math.nan) for k in range(4)]
    found = rs.rescore(generator, scorer, boundaries, num=20, num_random=6, step_mode="equal_change", places=SINGLE)
    assert found.step_mode == "equal_change"
    assert found.image_changes.shape == (4,)
    # Δs of a planted concept at its own layer is the step taken there.
    own = statistics.delta(found)[range(4), range(4)]
    torch.testing.assert_close(own, found.steps[:, 0], atol=0.02, rtol=0)
    assert bool(((found.steps / 2 > 0.4) & (found.steps / 2 < 2.5)).all())


def test_changes_of_the_picture_are_told_along_the_directions_that_steps_were_matched_with():
    generator, scorer = ToyGenerator(4, 8, shared_code=True), ToyScorer(4)
    boundaries = [Boundary(scorer.concepts[k], generator.directions[k], torch.tensor(0.0), math.nan) for k in range(4)]
    how = {"num": 4, "num_random": 2, "step_mode": "equal_change", "places": SINGLE}
    alone, beside = (rs.rescore(generator, scorer, boundaries, permuted=more, **how) for more in ((), boundaries))
    assert torch.equal(alone.steps, beside.steps)
    assert torch.equal(alone.image_changes, beside.image_changes)


def test_calibration_takes_samples_that_nothing_else_does():
    seen = []

    class Watched(ToyGenerator):
        def latents(self, seeds):
            seen.extend(int(seed) for seed in seeds)
            return super().latents(seeds)

    directions = [boundary(d) for d in random_directions(2, 8)]
    stepping.placement_steps(Watched(4, 8, shared_code=True), SINGLE, 2.0, "equal_change", directions=directions)
    assert seen
    assert not set(seen) & set(pop.sample_seeds(2**20, purpose="verify").tolist())
