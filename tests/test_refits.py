import math

import pytest
import torch

from higan import refits
from higan.boundaries import fit
from higan.types import Concept, Population

MODES = pytest.mark.parametrize("mode", ["extreme", "all"])


def a_population(num=2000, dim=12, layers=1, *, noise=0.1, seed=0):
    """Scores: the first code dimension, pure noise, a constant. Codes vary 100 times less in the last dimension."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(num, layers, dim, generator=generator)
    codes[..., -1] /= 100
    scatter = torch.randn(num, 2, generator=generator)
    scores = torch.stack([codes[:, 0, 0] + noise * scatter[:, 0], scatter[:, 1], torch.ones(num)], 1)
    names = tuple(Concept(name, "object") for name in ("first", "noise", "constant"))
    return Population(torch.arange(num), codes, scores, names, max(layers, 2))


@MODES
def test_permuted_fits_separate_nothing_and_point_nowhere_in_particular(mode):
    found = refits.permuted(a_population(), 24, mode=mode)
    accuracy = torch.tensor([b.holdout_accuracy for b in found], dtype=torch.float64)
    # 600 held-out samples each: one standard error of the mean of 24 is 0.004.
    assert float(accuracy.mean()) == pytest.approx(0.5, abs=0.02)
    normals = torch.stack([b.normal for b in found])
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(24))
    assert float((normals[:, 0].abs() > 0.9).double().mean()) == 0
    assert len({tuple(normal.tolist()) for normal in normals}) == 24


def test_permuted_scores_are_the_scores_of_the_concepts_that_vary_dealt_out_anew(monkeypatch):
    seen = []
    monkeypatch.setattr(refits, "fit", lambda population, **_: seen.append(population) or ())
    population = a_population(num=50)
    refits.permuted(population, 5)
    (shuffled,) = seen
    for m in range(5):
        column = population.scores[:, m % 2]
        assert torch.equal(shuffled.scores([m])[:, 0].sort().values, column.sort().values)
        assert not torch.equal(shuffled.scores([m])[:, 0], column)
    assert torch.equal(shuffled.codes(torch.arange(50)), population.codes)


def test_permuted_fits_repeat_and_are_counted():
    population = a_population(num=200)
    one, again = refits.permuted(population, 3), refits.permuted(population, 3)
    assert all(torch.equal(a.normal, b.normal) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0].normal, refits.permuted(population, 3, seed=1)[0].normal)
    assert refits.permuted(population, 0) == ()
    assert len(refits.permuted(population, 3, ["constant"])) == 3
    # One or two are a null that nothing could ever beat.
    for num in (-1, 1, 2):
        with pytest.raises(ValueError, match=f"must be 0, .* or at least 3, .*; got {num}"):
            refits.permuted(population, num)


@MODES
def test_a_boundary_of_signal_is_stable_and_one_of_noise_is_not(mode):
    first, noise, _ = refits.stabilities(a_population(dim=64), mode=mode).tolist()
    assert first > 0.85
    assert abs(noise) < 0.5


@pytest.mark.parametrize(("num_extreme", "of_half"), [(2000, 25), (20, 10), (0.2, 10), (30, 15)])
def test_stability_is_the_cosine_between_fits_to_the_halves(num_extreme, of_half):
    """Each to half the samples, and to half as many extreme ones, or the same share."""
    population = a_population(num=100, noise=1.0)
    halves = torch.randperm(100, generator=torch.Generator().manual_seed(3)).chunk(2)
    normals = []
    for half in halves:
        rows = half.sort().values
        part = Population(rows, population.codes[rows], population.scores[rows], population.concepts, 2)
        normals.append(fit(part, ["first"], num_extreme=of_half)[0].normal)
    found = refits.stabilities(population, ["first"], num_extreme=num_extreme, seed=3)
    assert float(found) == pytest.approx(float(normals[0] @ normals[1]), abs=1e-6)


def test_few_extremes_are_enough_for_the_null_and_for_the_halves():
    """Where the fit itself works: extremes that are not held out, and a share that leaves one in half the samples."""
    population = a_population(num=1000)
    for seed in range(3):
        assert len(refits.permuted(population, 20, mode="all", num_extreme=5, seed=seed)) == 20
        assert refits.stabilities(population, mode="all", num_extreme=4, seed=seed).isfinite().all()
    assert refits.stabilities(a_population(num=20), num_extreme=0.1).isfinite().all()


def test_stability_of_layerwise_normals_is_their_mean():
    found = refits.stabilities(a_population(layers=2), ["first"])
    # The second layer's codes have nothing to do with the score: its cosine is near zero, the first's near one.
    assert 0.3 < float(found) < 0.75


@pytest.mark.parametrize("mode", ["extreme", "all"])
def test_a_score_that_never_varies_is_not_stable(mode):
    population = a_population()
    population.scores[:, 1] = 0.25
    stable = refits.stabilities(population, mode=mode)
    assert stable[1] == 0
    assert stable[0] > 0.9
    assert torch.equal(refits.stabilities(population, [population.concepts[1].name], mode=mode), stable[1:2])


def test_too_few_samples_have_no_halves():
    assert all(math.isnan(value) for value in refits.stabilities(a_population(num=7)).tolist())
