"""Figures of merit against closed forms and an independent implementation."""

import numpy as np
import pytest
import scipy.linalg
import torch

from higan.rooms.quality import fine_detail, frechet_distance, measure_quality, precision_recall
from higan.scorers.rooms import Output, RoomsScorer, RoomsScorerNetwork


def test_frechet_distance_against_scipy():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    b = torch.randn(300, 6, generator=generator) + 0.5
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    cross = scipy.linalg.sqrtm(cov_a @ cov_b).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * cross)
    assert frechet_distance(a, b) == pytest.approx(float(wanted), rel=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 2 samples"):
        frechet_distance(a[:1], b)


def test_precision_and_recall_by_hand():
    """Real samples at 0 … 9, fake ones at 0 … 4 by halves; the last fake reaches its second neighbour, one away: to 5."""
    real = torch.arange(10.0)[:, None]
    fake = torch.arange(0, 4.5, 0.5)[:, None]
    precision, recall = precision_recall(real, fake, neighbours=2)
    assert precision == 1
    assert recall == pytest.approx(0.6)
    far = precision_recall(real, real + 100, neighbours=2)
    assert far == (0, 0)


def test_fine_detail_is_the_power_of_what_half_the_resolution_cannot_show():
    """A wave of amplitude 40 has a mean square of 800; it counts with a period of 3 pixels and not with one of 6."""
    row = torch.arange(48)
    waves = [128 + 40 * torch.cos(2 * torch.pi * row / period) for period in (3, 6)]
    fine, coarse = (wave.expand(3, 24, 48).round().to(torch.uint8) for wave in waves)
    flat = torch.full_like(fine, 200)
    found = fine_detail(torch.stack([fine, fine.roll(1, 2), coarse, flat]))
    torch.testing.assert_close(found, torch.tensor([800.0, 800.0, 0.0, 0.0]), atol=1, rtol=0)
    assert fine_detail(fine.mT[None]) == pytest.approx(800, abs=1)
    checks = 128 + 40 * (-1) ** (row[:24, None] + row)
    assert fine_detail(checks.expand(1, 3, -1, -1).to(torch.uint8)) == pytest.approx(1600)


def test_too_few_samples_for_the_neighbours_are_refused():
    points = torch.arange(10.0)[:, None]
    for sides in ((points[:3], points), (points, points[:3])):
        with pytest.raises(ValueError, match="at least 4 samples a side; got 3"):
            precision_recall(*sides)
    assert precision_recall(points[:4], points[:4]) == (1, 1)


@pytest.mark.parametrize("num", [-1, 0, 1, 3])
def test_too_few_samples_are_refused_before_any_is_drawn(higan, num):
    def never(start, stop):
        raise AssertionError((start, stop))

    scorer = RoomsScorer(RoomsScorerNetwork(1), (Output("a", "object", "category"),))
    with pytest.raises(ValueError, match=f"at least 4 samples a side; got {num}"):
        measure_quality(scorer, never, never, num=num)
    code, printed = higan("rooms", "quality", "--num", num)
    assert code == 2
    assert printed.startswith("Error: precision and recall by 3 neighbours need at least 4 samples a side; got")


def test_quality_of_renders_against_themselves_is_the_floor():
    outputs = tuple(Output(n, "object", k) for n, k in (("a", "category"), ("b", "category"), ("c", "binary")))
    torch.manual_seed(0)
    scorer = RoomsScorer(RoomsScorerNetwork(3), outputs)

    def pictures(start, stop):
        rows = [torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(k)) for k in range(start, stop)]
        return torch.stack(rows).to(torch.uint8)

    same = measure_quality(scorer, pictures, pictures, num=40)
    assert same.frechet == pytest.approx(0, abs=1e-4)
    assert (same.precision, same.recall) == (1, 1)
    assert same.frechet_renders > 0
    assert same.shares == same.shares_renders
    assert same.detail == 1
    assert same.detail_renders == pytest.approx(1, abs=0.05)
    assert same.shares["a"] + same.shares["b"] == pytest.approx(1)
