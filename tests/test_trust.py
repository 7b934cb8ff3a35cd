"""Edits of inverted pictures beside edits of samples: on a generator whose pictures tell their codes exactly."""

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from higan import population
from higan.generators.toy import ToyGenerator
from higan.inversion import invert
from higan.scorers.toy import ToyScorer
from higan.trust import Trust, compare, successes
from higan.types import Boundary, Concept, Edit

G, S = ToyGenerator(num_layers=3), ToyScorer(num_layers=3)


def planted(layer, strength):
    concept = next(c for c in S.concepts if c.name == f"planted {layer}")
    return Edit(Boundary(concept, G.directions[layer].clone(), torch.zeros(()), 1.0), strength, (layer,))


EDITS = {"first": planted(0, 1.0), "second": planted(1, -0.5)}


@pytest.fixture(scope="module")
def trust():
    pictures = population.render(G, population.sample(G, population.sample_seeds(3, purpose="verify", first=99)))
    return compare(G, S, EDITS, pictures, num=40, steps=60)


def test_what_the_generator_made_is_edited_as_samples_are(trust):
    for row in successes(trust):
        assert row.inverted == pytest.approx(row.sampled, abs=0.15), row
        assert row.ratio_low <= row.ratio <= row.ratio_high
        assert row.low <= row.inverted <= row.high
    assert [row.name for row in successes(trust)] == ["first", "second"]
    # A step is worth its number in score, here in units of the score's standard deviation over the 40 samples.
    first, second = successes(trust)
    assert first.sampled > 0 > second.sampled
    assert trust.images.shape[:2] == (3, 3)
    assert len(trust.inversions) == 3


def test_scores_of_unknown_deviation_are_in_units_of_the_samples(trust):
    """A concept that the run did not fit may be moved by an edit all the same."""
    pictures = population.render(G, population.sample(G, range(2)))
    own = [concept.name for concept in S.concepts].index("planted 0")
    std = torch.full((len(S.concepts),), math.nan)
    tilted = Edit(replace(EDITS["second"].boundary, normal=G.directions[:2].sum(0)), 0.5, (0, 1))
    edits = {"first": EDITS["first"], "second": tilted}
    default, unknown = (compare(G, S, edits, pictures, num=40, steps=8, std=s) for s in (None, std))
    torch.testing.assert_close(unknown.sampled, default.sampled)
    assert successes(unknown)[1].off_sampled == successes(default)[1].off_sampled > 0
    std[own] = 2.0
    known = compare(G, S, edits, pictures, num=40, steps=8, std=std)
    other = [k for k in range(len(S.concepts)) if k != own]
    torch.testing.assert_close(known.sampled[:, other], default.sampled[:, other])
    assert float(known.sampled[0, own].mean()) == pytest.approx(0.5, abs=0.02)


def test_ratios_by_hand():
    concepts = tuple(Concept(n, "object") for n in "ab")
    sampled = torch.tensor([[[2.0, 2, 2, 2], [1, 1, 1, 1]]])
    inverted = torch.tensor([[[1.0, 1], [2, 2]]])
    row = successes(Trust(("a",), concepts, (0,), sampled, inverted, (), torch.zeros(2, 2, 3, 1, 1, dtype=torch.uint8)))
    (row,) = row
    assert (row.sampled, row.inverted, row.ratio) == (2, 1, 0.5)
    assert (row.ratio_low, row.ratio_high) == pytest.approx((0.5, 0.5))
    assert (row.off_sampled, row.off_inverted) == (1, 2)


def drawn(pictures, *, scatter=1.0, samples=48, seed=0):
    """Changes of 1 on average: of samples next to exactly so, of pictures with a scatter."""
    generator = torch.Generator().manual_seed(seed)
    sampled = 1 + 0.01 * torch.randn(1, 1, samples, generator=generator)
    inverted = 1 + scatter * torch.randn(1, 1, pictures, generator=generator)
    images = torch.zeros(pictures, 2, 3, 1, 1, dtype=torch.uint8)
    return Trust(("a",), (Concept("a", "object"),), (0,), sampled, inverted, (), images)


@pytest.mark.parametrize("pictures", [2, 3, 4, 9, 40])
def test_intervals_over_pictures_are_student_s_t(pictures):
    trust = drawn(pictures, scatter=0.2)
    (row,) = successes(trust, num_resamples=20_000)
    values = trust.inverted[0, 0].double().numpy()
    expected = stats.t.interval(0.95, pictures - 1, loc=values.mean(), scale=stats.sem(values))
    assert (row.low, row.high) == pytest.approx(expected)
    # Over samples that all answer with 1 the ratio is the numerator.
    assert (row.ratio_low, row.ratio_high) == pytest.approx(expected, abs=0.01)


def test_ratios_vary_with_the_samples_too():
    """Pictures that all answer with 1: the ends are those of SciPy's bootstrap of the samples' mean, turned around."""
    sampled = 2 + torch.randn(1, 1, 48, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(3, 2, 3, 1, 1, dtype=torch.uint8)
    trust = Trust(("a",), (Concept("a", "object"),), (0,), sampled, torch.ones(1, 1, 3), (), images)
    (row,) = successes(trust, num_resamples=20_000)
    values = sampled[0, 0].double().numpy()
    mean = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    low, high = mean.confidence_interval
    assert (row.ratio_low, row.ratio_high) == pytest.approx((1 / high, 1 / low), abs=0.005)
    assert (row.low, row.high) == (1, 1)


def test_samples_are_such_as_nothing_else_has_used():
    seen = set()

    class Watched(ToyGenerator):
        def latents(self, seeds):
            seen.update(seeds)
            return super().latents(seeds)

    compare(Watched(num_layers=3), S, EDITS, population.render(G, population.sample(G, [1])), num=4, steps=2)
    first, used = (int(population.sample_seeds(1, purpose="verify", first=k)) for k in (0, 2**23))
    assert any(seed >= used for seed in seen)
    assert not any(first <= seed < used for seed in seen)


def test_three_eighths_of_the_steps_are_for_one_code(monkeypatch):
    """The real inversion, listened to."""
    taken = []

    def watched(*args, **options):
        taken.append((options["shared_steps"], options["layer_steps"]))
        return invert(*args, **options)

    monkeypatch.setattr("higan.trust.invert", watched)
    compare(G, S, EDITS, population.render(G, population.sample(G, [1])), num=4, steps=17)
    assert taken == [(6, 11)]


@pytest.mark.parametrize("pictures", [2, 3])
def test_intervals_of_few_pictures_hold_the_truth(pictures):
    rows = [successes(drawn(pictures, seed=seed), num_resamples=400)[0] for seed in range(300)]
    # 300 tries at 95 %: two standard errors are 2.5 %.
    assert sum(row.low <= 1 <= row.high for row in rows) >= 0.92 * 300
    assert sum(row.ratio_low <= 1 <= row.ratio_high for row in rows) >= 0.92 * 300


def test_one_picture_says_nothing_about_others():
    (row,) = successes(drawn(1))
    assert math.isfinite(row.inverted)
    assert math.isfinite(row.ratio)
    assert all(math.isnan(end) for end in (row.low, row.high, row.ratio_low, row.ratio_high))


def test_nothing_is_in_ratio_to_samples_that_do_not_move():
    trust = drawn(3)
    (row,) = successes(dataclasses.replace(trust, sampled=torch.zeros_like(trust.sampled)))
    assert row.low < row.inverted < row.high
    assert all(math.isnan(value) for value in (row.ratio, row.ratio_low, row.ratio_high))


def test_bad_comparisons():
    pictures = torch.zeros(1, 3, G.resolution, G.resolution, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got 0 edits"):
        compare(G, S, {}, pictures)
    with pytest.raises(ValueError, match="0 pictures"):
        compare(G, S, EDITS, pictures[:0])
    other = Edit(Boundary(Concept("x", "object"), G.directions[0].clone(), torch.zeros(()), 1.0), 1.0, (0,))
    with pytest.raises(ValueError, match="unknown concepts: x"):
        compare(G, S, {"x": other}, pictures)
