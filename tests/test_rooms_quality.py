"""Figures of merit against closed forms and an independent implementation."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch

from higan.rooms.quality import (
    covered,
    fine_detail,
    frechet_distance,
    jackknife,
    measure_quality,
    quarters,
)
from higan.rooms.shares import Share, share_of
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
    precision, recall = covered(real, fake, neighbours=2), covered(fake, real, neighbours=2)
    assert precision == 1
    assert recall == pytest.approx(0.6)
    assert covered(real, real + 100, neighbours=2) == covered(real + 100, real, neighbours=2) == 0


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
            covered(*sides)
    assert covered(points[:4], points[:4]) == 1


def test_distances_do_not_depend_on_where_the_features_lie():
    a, b = torch.randn(2, 200, 6, generator=torch.Generator().manual_seed(0))
    expected = covered(a, b)
    assert 0.5 < expected < 1
    for unit, offset in ((1, 1000.0), (1e-3, 5.0)):
        assert covered(unit * a.double() + offset, unit * b.double() + offset) == expected
        assert covered((unit * a + offset).float(), (unit * b + offset).float()) == pytest.approx(expected, abs=0.03)


def test_the_frechet_distance_of_a_single_feature():
    a, b = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = float((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_what_is_not_seen_is_not_known_to_be_missing():
    share = share_of(torch.zeros(5000, dtype=torch.bool), torch.arange(5000) < 10)
    assert share.excess == -1
    assert 0.02 < share.error < 0.3


def test_the_jackknife_of_a_difference_of_means_is_its_textbook_error():
    """Blocks of one sample: the variance of each mean is s² / n, and there is no bias."""
    a, b = torch.tensor([[1.0], [2.0], [4.0], [9.0]]), torch.tensor([[0.0], [3.0], [3.0], [6.0]])
    found = jackknife(lambda x, y: float((x.mean() - y.mean()).double()), a.repeat(2, 1), b.repeat(2, 1), blocks=4)
    assert (found.value, found.unlimited) == (1, pytest.approx(1))
    d = (a - b).double()
    assert found.error == pytest.approx(float(d.std() / 2))


def test_the_jackknife_takes_the_whole_bias_of_a_plain_variance():
    """The variance by n is short by one part in n on average; with a sample a block, the correction is exact."""
    a = torch.tensor([[1.0], [2.0], [4.0], [9.0], [11.0], [20.0]]).double().repeat(2, 1)
    pairs = a.reshape(2, 6).T.reshape(12, 1)  # both copies of a sample in neighbouring rows
    found = jackknife(lambda x, _: float(x.var(correction=0)), pairs[::2].repeat(2, 1), pairs, blocks=6)
    assert found.unlimited == pytest.approx(float(a[:6].var()))


def test_a_frechet_distance_loses_its_bias_and_its_error_is_that_of_repetitions():
    """Gaussians whose distance is known: 1 along the mean, (2 - 1)² along one axis of five."""
    truth, repetitions = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        a, b, c = torch.randn(3, 400, 5, generator=generator, dtype=torch.float64)
        b[:, 0] = 2 * b[:, 0]
        b[:, 1] += 1
        repetitions.append(jackknife(frechet_distance, a, b))
        truth.append(jackknife(frechet_distance, a, c))
    values, unlimited, errors = torch.tensor([(r.value, r.unlimited, r.error) for r in repetitions]).T
    alike = torch.tensor([(r.value, r.unlimited) for r in truth])
    assert unlimited.mean() == pytest.approx(2, abs=3 * float(unlimited.std()) / 40**0.5)
    assert values.mean() > unlimited.mean()
    assert 0.75 < float(errors.square().mean().sqrt() / unlimited.std()) < 1.33
    assert alike[:, 0].min() > 0
    assert alike[:, 1].mean() == pytest.approx(0, abs=3 * float(alike[:, 1].std()) / 40**0.5)
    assert alike[:, 0].mean() > 10 * alike[:, 1].mean().abs()
    with pytest.raises(ValueError, match="2 samples a side for each; got 20 blocks, 39 and 400 samples"):
        jackknife(frechet_distance, a[:39], b)


def test_quarters_by_hand():
    reference = torch.arange(9.0)  # bounds at 2, 4 and 6
    assert quarters(reference, torch.tensor([-5.0, 1.0, 3.0, 3.5, 3.7, 5.0, 5.5, 100.0])) == (0.25, 0.375, 0.25, 0.125)
    assert quarters(reference, torch.tensor([7.0, 8.0])) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="at least 4 reference values and a value; got 9 and 0"):
        quarters(reference, reference[:0])


@pytest.mark.parametrize("num", [-1, 0, 1, 39])
def test_too_few_samples_are_refused_before_any_is_drawn(higan, num):
    def never(start, stop):
        raise AssertionError((start, stop))

    scorer = RoomsScorer(RoomsScorerNetwork(1), (Output("a", "object", "category"),))
    with pytest.raises(ValueError, match=f"at least 40 samples a side; got {num}"):
        measure_quality(scorer, never, never, num=num)
    code, printed = higan("rooms", "quality", "--num", num)
    assert code == 2
    assert printed.startswith("Error: the quality of a generator needs at least 40 samples a side; got")


def test_what_is_no_generator_of_rooms_is_told_which_there_are(higan):
    code, printed = higan("rooms", "quality", "--generator", "toy")
    assert code == 1
    assert "toy: no such file; expected a generator of rooms, one of rooms, rooms-128" in " ".join(printed.split())


def test_quality_of_renders_against_themselves_is_the_floor():
    kinds = {"a": "category", "b": "category", "c": "binary", "d": "scale"}
    outputs = tuple(Output(n, "object", k) for n, k in kinds.items())
    torch.manual_seed(0)
    scorer = RoomsScorer(RoomsScorerNetwork(4), outputs)

    def pictures(start, stop):
        rows = [torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(k)) for k in range(start, stop)]
        return torch.stack(rows).to(torch.uint8)

    same = measure_quality(scorer, pictures, pictures, num=40)
    assert same.objects == {}
    assert same.frechet.value == pytest.approx(0, abs=1e-4)
    assert (same.precision.value, same.recall.value) == (1, 1)
    assert same.frechet_renders.value > 0
    assert same.detail == 1
    assert same.detail_renders == pytest.approx(1, abs=0.05)
    assert same.shares["a"].generated + same.shares["b"].generated == pytest.approx(1)
    assert same.quarters["d"] == pytest.approx([0.25] * 4, abs=0.15)
    assert same.brightness == pytest.approx([0.25] * 4, abs=0.15)


def test_shares_and_quarters_of_a_generator_that_draws_every_second_kind_of_room():
    """The scorer's first category is there in the renders by halves and always in the generated pictures."""

    class Brightness(RoomsScorer):
        def predict(self, images):
            light = images.float().mean((1, 2, 3))
            return torch.stack([light - 127.5, 127.5 - light, light - 300, light], 1)

    outputs = tuple(
        Output(n, "object", k)
        for n, k in (("bright", "category"), ("dark", "category"), ("sun", "binary"), ("light", "scale"))
    )
    scorer = Brightness(RoomsScorerNetwork(4), outputs)

    def flat(levels):
        return levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64)

    found = measure_quality(
        scorer, lambda start, stop: flat(torch.full((stop - start,), 200.0)),
        lambda start, stop: flat(torch.arange(start, stop) % 2 * 200), num=40,
    )  # fmt: skip
    bright, dark = found.shares["bright"], found.shares["dark"]
    assert (bright.generated, bright.rendered, bright.excess) == (1, 0.5, 1)
    assert (dark.generated, dark.excess) == (0, -1)
    for share, a in ((bright, 40.5 / 41), (dark, 0.5 / 41)):
        assert share.error == pytest.approx((a * (1 - a) / 40 + (a / 0.5) ** 2 * 0.25 / 80) ** 0.5 / 0.5)
    never = found.shares["sun"]
    assert isinstance(never, Share)
    assert np.isnan(never.excess)
    # Grey levels are 0 and 200 by halves, so that the bounds of the quarters are 0, 100 and 200.
    assert found.quarters["light"] == found.brightness == (0, 0, 1, 0)
    assert (found.precision.value, found.recall.value) == (1, 0.5)


def test_states_of_lighting_are_shares_of_halves_by_daylight_and_lamp():
    """Red is daylight and green is lamp light: renders have all four states alike, generated rooms lack the lamp by day."""

    class Colours(RoomsScorer):
        def predict(self, images):
            red, green, _ = images.float().mean((2, 3)).unbind(1)
            return torch.stack([red + 1, red, green], 1)

    kinds = {"a": "category", "natural_light": "scale", "indoor_lighting": "scale"}
    outputs = tuple(Output(n, "attribute", k) for n, k in kinds.items())
    scorer = Colours(RoomsScorerNetwork(3), outputs)

    def rooms(states):
        light = torch.stack([states % 2, states // 2 % 2, 0 * states], 1)
        return (light * 200).to(torch.uint8)[:, :, None, None].expand(-1, -1, 64, 64)

    found = measure_quality(
        scorer, lambda start, stop: rooms(torch.arange(start, stop) % 3),
        lambda start, stop: rooms(torch.arange(start, stop) % 4), num=60,
    )  # fmt: skip
    shares = {name: share.generated for name, share in found.shares.items() if name != "a"}
    third = pytest.approx(1 / 3)
    assert shares == {
        "dim light": third, "daylight only": third, "lamp light only": third, "daylight and lamp light": 0,
    }  # fmt: skip
    assert found.shares["dim light"].excess == third
    assert all(found.shares[name].rendered == 0.25 for name in shares)


def test_the_command_prints_tables_or_json(higan):
    code, printed = higan("rooms", "quality", "--generator", "rooms-32-s0", "--num", 40)
    assert code == 0
    assert printed.startswith("Comparing …")
    assert "Fréchet distance" in printed
    assert "natural_light" in printed
    assert "nightstand" in printed
    code, printed = higan("rooms", "quality", "--generator", "rooms-32-s0", "--num", 40, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["samples"] == 40
    assert found["frechet"]["value"] > found["frechet_renders"]["value"]
    lit = [
        found["shares"][name]["generated"]
        for name in ("dim light", "lamp light only", "daylight only", "daylight and lamp light")
    ]
    assert sum(lit) == pytest.approx(1)
    assert set(found["shares"]["bedroom"]) == {"generated", "rendered", "excess", "error"}
    assert found["objects"]["chair"]["rendered"] > found["objects"]["chair"]["generated"] > 0.3
    assert "wall" not in found["objects"]
