"""The calibration benchmark on the toy, smaller: what is told of p-values, intervals and false discoveries holds."""

import importlib.util
from pathlib import Path

import pytest
import torch

from higan.boundaries import fit
from higan.population import measure, sample_seeds

FILE = Path(__file__).parents[1] / "benchmarks" / "calibration.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("calibration", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(calibration):
    generator, scorer = calibration.toy_world()
    population = measure(generator, scorer, sample_seeds(2000))
    return calibration.bank(generator, scorer, fit(population), population, size=240, num=50)


def test_the_toys_changes_have_the_mean_of_a_truncated_normal_variable(calibration):
    record, truth, mean = calibration.toy_changes(20_000)
    changes = record.changes
    error = changes.std(-1) / 20_000**0.5
    assert bool(((changes.mean(-1) - mean).abs() < 4 * error).all())
    assert bool(((changes.clamp(min=0).mean(-1) - truth).abs() < 4 * error).all())


def test_intervals_cover_the_truth(calibration):
    record, truth, mean = calibration.toy_changes(40_000)
    shares, pieces = calibration.coverage(record.changes, truth, mean, 50)
    assert pieces == 800
    # All constants share their samples: one standard error of a share of 0.95 among 800 pieces is 0.008.
    for truncated in (True, False):
        assert float(shares["studentised", truncated].mean()) == pytest.approx(0.95, abs=0.02)
    # Why intervals are studentised: where most changes are cut off, percentiles fall short.
    assert float(shares["percentile", True].min()) < 0.92
    assert float(shares["studentised", True].min()) > 0.93


@pytest.mark.parametrize("kind", ["random", "permuted"])
def test_rejections_of_concepts_that_are_not_there_come_at_their_rate(calibration, found, kind):
    shares = calibration.rejections(found.kinds, kind, kind, 19, trials=300)
    for name in ("exact", "exact, randomised", "pooled"):
        assert float(shares[name].mean()) == pytest.approx(0.05, abs=0.01), name
    # With R = 20 the exact test cannot reach 5 %: it stops at 1 in 21, and randomising makes up for it.
    shares = calibration.rejections(found.kinds, kind, kind, 20, trials=300)
    assert float(shares["exact"].mean()) <= 0.052
    assert float(shares["exact, randomised"].mean()) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_false_discoveries_stay_at_their_level_against_both_nulls(calibration, found, share):
    rate, error, power = calibration.discoveries(found, share, 40, trials=200)
    assert rate <= 0.05 + 2 * error
    if share == 0.5:
        assert power > 0.05


def test_a_bank_of_more_real_boundaries_is_found_more_often(calibration, found):
    """The benchmark itself can tell: real boundaries tripled in strength are nearly all found."""
    strong = calibration.Bank(found.real * 3 + 5, found.kinds)
    _, _, power = calibration.discoveries(strong, 0.5, 40, trials=30)
    _, _, weaker = calibration.discoveries(found, 0.5, 40, trials=30)
    assert power > weaker
    assert torch.isfinite(torch.tensor(power))


def test_adaptive_verification_finds_nothing_where_nothing_is(calibration):
    """The null is measured on fewer samples than the concepts: over these alone may the two be compared."""
    (row,) = calibration.adaptive_rows(10, sharpnesses=(3,))
    fixed, adaptive, over_its_own = (int(share.removesuffix("%")) for share in row[-3:])
    assert max(fixed, adaptive) <= 10
    assert over_its_own >= 30
