"""Side effects on the toy pair, where every entry of the matrix is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from higan import population
from higan.boundaries import project_out, random_directions
from higan.editing import apply
from higan.effects import (
    Effects,
    distinguishable,
    effect_interval,
    matched,
    mean_effects,
    measure_changes,
    measure_effects,
    off_target,
    projected,
    scaled,
)
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Edit, StagedGenerator

G, S = ToyGenerator(4, 8, shared_code=True), ToyScorer(4)
EVERYWHERE = (0, 1, 2, 3)
# A boundary that leans towards its neighbour: 0.8 of its own direction, 0.6 of the next.
LEANING = 0.8 * G.directions[0] + 0.6 * G.directions[1]


def edit(column, normal, strength=1.0, layers=EVERYWHERE):
    return Edit(Boundary(S.concepts[column], normal, torch.tensor(0.0), 1.0), strength, layers)


EDITS = {"leaning": edit(0, LEANING), "clean": edit(1, G.directions[1])}
ONES = torch.ones(6)


@pytest.fixture(scope="module")
def effects():
    return measure_effects(G, S, EDITS, std=ONES, num=24, batch_size=7)


def test_the_matrix_is_what_was_planted(effects):
    expected = torch.tensor([[0.8, 0.6, 0, 0], [0, 1.0, 0, 0]])
    torch.testing.assert_close(mean_effects(effects)[:, :4], expected, atol=0.02, rtol=0)
    assert effects.own == (0, 1)
    assert effects.changes.shape == (2, 6, 24)
    # Root mean square over the five other concepts: .6 and noise that averages out.
    noise = mean_effects(effects)[:, 4]
    expected = ((torch.tensor([0.36, 0.0]) + noise.square()) / 5).sqrt()
    torch.testing.assert_close(off_target(effects), expected, atol=0.01, rtol=0)


def test_units_are_standard_deviations(effects):
    own = measure_effects(G, S, EDITS, num=24)
    doubled = measure_effects(G, S, EDITS, std=2 * ONES, num=24)
    torch.testing.assert_close(doubled.changes * 2, effects.changes)
    assert not bool(own.changes[:, 5].any())
    assert bool(torch.isfinite(own.changes).all())


def test_by_default_the_unit_is_the_deviation_of_samples_that_nothing_else_has_used(effects):
    seeds = population.sample_seeds(24, purpose="verify", first=2**21)
    scores = population.score(S, population.render(G, population.sample(G, seeds)))
    own = measure_effects(G, S, EDITS, num=24)
    torch.testing.assert_close(own.changes * scores.std(0)[:, None], effects.changes * (scores.std(0) > 0)[:, None])


class Means:
    """Brightness of every colour."""

    name = "means"
    concepts = (Concept("red", "colour"), Concept("green", "colour"), Concept("blue", "colour"))

    def score(self, images):
        return images.float().mean((2, 3))


def test_pictures_are_drawn_again_from_the_first_layer_that_an_edit_touches():
    network = RoomsNetwork(RoomsConfig(resolution=16, latent_dim=8, code_dim=12, channels=(8, 8, 8)), seed=0)
    generator = RoomsGenerator(network, torch.zeros(12))
    assert isinstance(generator, StagedGenerator)
    chosen = [(4, 1), (0,), (2, 3), (5, 0), (1,)]
    edits = [
        Edit(Boundary(Means.concepts[0], d, torch.tensor(0.0), 1.0), 3.0, layers)
        for d, layers in zip(random_directions(len(chosen), 12), chosen, strict=True)
    ]
    found = measure_changes(generator, Means(), edits, std=torch.ones(3), num=4)
    codes = population.sample(generator, population.sample_seeds(4, purpose="verify", first=2**21))
    before, *after = (
        Means().score(population.render(generator, apply(codes, some))) for some in ([], *([e] for e in edits))
    )
    expected = torch.stack([(scores - before).T for scores in after])
    assert float(expected.abs().amax((1, 2)).min()) > 0.1
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_projection_takes_the_side_effect_away(effects):
    after = measure_effects(G, S, projected(EDITS), std=ONES, num=24)
    mean = mean_effects(after)
    # Only the direction that is the edit's own is left: the leaning one becomes direction 0; the clean one, freed of
    # the leaning one, 0.8 of itself less 0.6 of direction 0.
    torch.testing.assert_close(mean[:, :2], torch.tensor([[1.0, 0.0], [-0.6, 0.8]]), atol=0.02, rtol=0)
    between = effect_interval(after, minus=effects)
    assert bool(distinguishable(between)[0, 1])
    assert between[0, 1].tolist() == pytest.approx([-0.6, -0.6], abs=0.02)
    # In pairs every sample changes alike, so that the interval is as narrow as rounding to bytes allows.
    assert float(between[0, 1, 1] - between[0, 1, 0]) < 0.01
    assert not bool(distinguishable(between)[:, 2:4].all())


def test_every_other_direction_is_projected_out():
    """Of three that lean towards one another, by least squares in NumPy: what no sum of the others explains."""
    normals = torch.nn.functional.normalize(G.directions[:3] + 0.5 * G.directions[[1, 2, 0]], dim=1)
    found = projected({f"e{k}": edit(k, normals[k]) for k in range(3)})
    for k in range(3):
        others = np.delete(normals.double().numpy(), k, 0).T
        rest = normals[k].double().numpy() - others @ np.linalg.lstsq(others, normals[k].double().numpy())[0]
        np.testing.assert_allclose(found[f"e{k}"].boundary.normal, rest / np.linalg.norm(rest), atol=1e-5)


def test_where_a_unit_is_unknown_it_is_that_of_the_samples(effects):
    std = torch.tensor([2.0, math.nan, 2.0, 2.0, 2.0, 2.0])
    found, own = (measure_effects(G, S, EDITS, std=unit, num=24) for unit in (std, None))
    torch.testing.assert_close(found.changes[:, 1], own.changes[:, 1])
    torch.testing.assert_close(found.changes[:, 0] * 2, effects.changes[:, 0])


def test_what_else_changes_by_hand():
    """The second edit's own score is the first of three: root mean squares of (3, 4) and of (0, 5)."""
    changes = torch.tensor([[3.0, 4.0, 12.0], [13.0, 0.0, 5.0]])[..., None] + torch.tensor([-1.0, 1.0])
    told = Effects(("a", "b"), tuple(Concept(name, "object") for name in "xyz"), (2, 0), changes)
    torch.testing.assert_close(off_target(told), torch.tensor([12.5, 12.5]).sqrt())


def test_conditions_can_be_chosen():
    result = projected(EDITS, {"leaning": [EDITS["clean"]]})
    assert torch.equal(
        result["leaning"].boundary.normal, project_out(EDITS["leaning"].boundary, [EDITS["clean"].boundary]).normal
    )
    assert result["clean"] is not None
    assert torch.equal(result["clean"].boundary.normal, G.directions[1])


def test_intervals_cover_the_mean():
    # Changes drawn around 0.3 with σ = 1: 95 % intervals hold 0.3 about 95 times in 100.
    changes = 0.3 + torch.randn(20, 10, 100, generator=torch.Generator().manual_seed(0))
    drawn = Effects(("e",) * 20, (Concept("c", "object"),) * 10, (0,) * 20, changes)
    interval = effect_interval(drawn, num_resamples=600)
    held = ((interval[..., 0] <= 0.3) & (interval[..., 1] >= 0.3)).double().mean()
    assert 0.9 < float(held) < 0.98
    width = (interval[..., 1] - interval[..., 0]).mean()
    assert float(width) == pytest.approx(2 * 1.96 / math.sqrt(100), rel=0.06)
    with pytest.raises(ValueError, match="between 0 and 1"):
        effect_interval(drawn, confidence=1.0)
    with pytest.raises(ValueError, match="compared edit by edit"):
        effect_interval(drawn, minus=dataclasses.replace(drawn, changes=changes[:3]))


def test_intervals_of_a_dozen_skewed_changes_hold_their_mean():
    # Percentiles of a bootstrap hold it in 87 % of the cases.
    changes = -torch.rand(20, 100, 12, generator=torch.Generator().manual_seed(0)).log()
    skewed = Effects(("e",) * 20, (Concept("c", "object"),) * 100, (0,) * 20, changes)
    low, high = effect_interval(skewed, num_resamples=1000).unbind(-1)
    assert 0.92 < float(((low <= 1) & (high >= 1)).double().mean()) < 0.97


def test_matched_edits_move_their_own_score_alike():
    found = matched(
        G, S, {**EDITS, "useless": edit(3, G.directions[2]), "weak": edit(2, G.directions[2], 0.1)}, std=ONES
    )
    # 1 / 0.8 steps for the leaning one; an edit that does not move its score at all is left out.
    assert set(found) == {"leaning", "clean", "weak"}
    for name, steps in (("leaning", 1.25), ("clean", 1.0), ("weak", 1.0)):
        assert found[name].strength == pytest.approx(steps, abs=0.03)


def test_steps_backwards_along_a_normal_that_points_back_are_steps_forwards():
    (found,) = matched(G, S, {"back": edit(1, -G.directions[1], -0.5)}, std=ONES).values()
    assert found.strength == pytest.approx(-1.0, abs=0.03)


def test_strengths_are_found_on_samples_of_their_own():
    seen = []

    class Watched(ToyGenerator):
        def latents(self, seeds):
            seen.extend(seeds)
            return super().latents(seeds)

    watched = Watched(4, 8, shared_code=True)
    measure_effects(watched, S, EDITS, num=24)
    measured = set(seen)
    seen.clear()
    matched(watched, S, EDITS, std=ONES)
    assert len(measured) == 24
    assert not measured & set(seen)


class Bending(ToyScorer):
    """Of a planted value v it tells v³, so that one proportion of a step does not lead to where it should."""

    def score(self, images):
        return super().score(images) ** 3


def test_what_is_near_enough_is_a_share_of_the_target():
    """One proportion misses 40 by 6, which is more than a fifth and less than a fifth of 40."""
    how, edits = {"std": ONES, "num": 32}, {"clean": edit(1, G.directions[1], 3.1)}
    scorer = Bending(4)

    def moved(edits):
        return float(mean_effects(measure_effects(G, scorer, edits, first=2**22, **how))[0, 1])

    once = {"clean": scaled(edits["clean"], 40 / moved(edits))}
    assert 1 < abs(moved(once) - 40) < 7
    (found,) = matched(G, scorer, edits, target=40.0, rounds=1, **how).values()
    assert found.strength == pytest.approx(once["clean"].strength)


class Saturating(ToyScorer):
    """Scores that, like probabilities, come to an end: tanh of the toy's."""

    def score(self, images):
        return super().score(images).tanh()


def test_what_saturates_before_the_target_is_left_out():
    scorer = Saturating(4)
    for target, reached in ((0.5, {"clean", "leaning"}), (1.8, set())):
        found = matched(G, scorer, EDITS, std=ONES, target=target)
        assert set(found) == reached
    moved = mean_effects(measure_effects(G, scorer, matched(G, scorer, EDITS, std=ONES, target=0.5), std=ONES, num=64))
    assert [float(moved[e, own]) for e, own in enumerate((0, 1))] == pytest.approx([0.5, 0.5], abs=0.2)


class FallingApart(ToyScorer):
    """Scores that rise at first and fall where codes go far: x - x² / 6."""

    def score(self, images):
        scores = super().score(images)
        return scores - scores.square() / 6


class DeafAtFirst(ToyScorer):
    """Scores that hardly answer where they are, and follow far from there."""

    def score(self, images):
        scores = super().score(images)
        return torch.where(scores.abs() < 6, scores / 64, scores)


def test_no_single_proportion_leads_astray():
    """A step of 1 gains a sixty-fourth, and 768 of them would be too many; four times as far, twice, shows that 12 do."""
    (found,) = matched(G, DeafAtFirst(4), {"clean": edit(1, G.directions[1])}, std=ONES, target=12.0).values()
    assert found.strength == pytest.approx(12.0, rel=0.1)


@pytest.mark.parametrize(("scorer", "start"), [(Saturating(4), 40.0), (Saturating(4), 2000.0), (FallingApart(4), 12.0)])
def test_what_starts_far_too_strong_is_shortened(scorer, start):
    edits = {
        "leaning": edit(0, LEANING, start),
        "clean": edit(1, G.directions[1], 0.5),
        "back": edit(1, -G.directions[1]),
    }
    found = matched(G, scorer, edits, std=ONES, target=0.4)
    assert list(found) == ["leaning", "clean"]
    moved = mean_effects(measure_effects(G, scorer, found, std=ONES, num=64))
    assert [float(moved[e, own]) for e, own in enumerate((0, 1))] == pytest.approx([0.4, 0.4], abs=0.15)
    # Those that need no shortening are what they were, whatever is beside them.
    alone = matched(G, scorer, {"clean": edits["clean"]}, std=ONES, target=0.4)
    assert found["clean"].strength == alone["clean"].strength


@pytest.mark.parametrize(
    ("edits", "num", "words"),
    [({}, 8, "0 edits"), (EDITS, 1, "1 samples"), ({"x": edit(0, LEANING)}, 0, "0 samples")],
)
def test_bad_measurements(edits, num, words):
    with pytest.raises(ValueError, match=words):
        measure_effects(G, S, edits, num=num)


def test_unknown_concepts_are_named():
    stray = Edit(Boundary(Concept("stray", "object"), LEANING, torch.tensor(0.0), 1.0), 1.0, (0,))
    with pytest.raises(ValueError, match="has no concept stray"):
        measure_effects(G, S, {"s": stray})
