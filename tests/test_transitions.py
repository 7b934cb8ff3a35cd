"""The object mapping on planted swaps, on rooms furnished in two ways, and against counts by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from higan import population, transitions
from higan.errors import ScorerError
from higan.generators.toy import ToyGenerator
from higan.rescoring import rescore
from higan.rooms.classes import CLASSES, class_index
from higan.rooms.render import render
from higan.rooms.scene import sample_scenes
from higan.scorers.toy import ToyScorer
from higan.segmenters.toy import ToySegmenter
from higan.transitions import ObjectMapping, flows, kept, map_objects, mapping_shares, segment, travel, walk
from higan.types import Boundary, Concept, Edit, SegmentClass, Segmenter
from higan.workbench import Workbench, approach, calibrate

G, SEG = ToyGenerator(4, 8, psi=0.7, psi_layers=2), ToySegmenter(4)
AB = (
    SegmentClass("wall", "stuff", (0, 0, 0)), SegmentClass("bed", "thing", (1, 0, 0)),
    SegmentClass("sofa", "thing", (2, 0, 0)),
)  # fmt: skip


def leg(layer, strength):
    return Edit(
        Boundary(Concept(f"c{layer}", "object"), G.directions[layer], torch.tensor(0.0), 1.0), strength, (layer,)
    )


def test_walk_by_hand():
    codes = population.sample(G, range(3))
    stations = walk(codes, [leg(1, 2.0), leg(2, -3.0)], steps=2)
    assert stations.shape == (3, 5, 4, 8)
    along = torch.stack([(stations - codes[:, None])[:, :, k] @ G.directions[k] for k in (1, 2)], -1)
    expected = torch.tensor([[0.0, 0], [1, 0], [2, 0], [1, -1.5], [0, -3]])
    torch.testing.assert_close(along, expected.expand(3, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(stations[:, :, [0, 3]], codes[:, None, [0, 3]].expand(-1, 5, -1, -1))
    with pytest.raises(ValueError, match="at least one leg and one step; got 0 and 2"):
        walk(codes, [])


def test_planted_swaps_are_recovered():
    codes = population.sample(G, range(150))
    edited = walk(codes, [leg(1, 2.0)], steps=1)[:, 1]
    before, after = (segment(SEG, population.render(G, c)) for c in (codes, edited))
    mapping = map_objects(SEG.classes, before, after)
    along = (codes * G.directions[:-1]).sum(-1) * G.truncation
    moved = along.clone()
    moved[:, 1] += 1.4
    # Strips are of 10 or 11 pixels; no sample lies so near the threshold that rounding to bytes decides.
    assert float(torch.stack([along.abs(), moved.abs()]).min()) > 0.003
    strips = torch.bincount(torch.arange(64) * 6 // 64).tolist()
    for k in range(4):
        own = mapping.counts[:, 2 * k + 1 : 2 * k + 3, 2 * k + 1 : 2 * k + 3]
        expected = torch.zeros(150, 2, 2, dtype=torch.int64)
        expected[torch.arange(150), (along[:, k] >= 0).long(), (moved[:, k] >= 0).long()] = strips[k]
        assert torch.equal(own, expected)
    assert int(mapping.counts.sum()) == 150 * 64
    stays = {row.name: row.share for row in kept(mapping)}
    assert stays["stuff"] == 1
    assert stays["bright 1"] == 1
    swapped = float(((along[:, 1] < 0) & (moved[:, 1] >= 0)).sum() / (along[:, 1] < 0).sum())
    assert stays["dark 1"] == pytest.approx(1 - swapped)
    (row,) = [f for f in flows(mapping) if (f.source.name, f.target.name) == ("dark 1", "bright 1")]
    assert row.share == pytest.approx(swapped)
    assert row.low < swapped < row.high


def test_counts_agree_with_numpy():
    generator = np.random.default_rng(0)
    before, after = generator.integers(0, 3, (2, 5, 7, 7)).astype(np.uint8)
    mapping = map_objects(AB, torch.from_numpy(before), torch.from_numpy(after))
    for k in range(5):
        table, _, _ = np.histogram2d(before[k].ravel(), after[k].ravel(), bins=(3, 3), range=((0, 3), (0, 3)))
        assert np.array_equal(mapping.counts[k].numpy(), table)
    total = mapping.counts.sum(0).double()
    torch.testing.assert_close(mapping_shares(mapping).double(), total / total.sum(1, keepdim=True), atol=1e-6, rtol=0)


def test_intervals_are_over_samples_not_pixels():
    # Half of the samples turn every bed into a sofa, half turn none: ±1.96 · ½ / √n however many pixels there are.
    n = 400
    before = torch.full((n, 8, 8), 1, dtype=torch.uint8)
    after = before.clone()
    after[: n // 2] = 2
    (stay, swap) = sorted(flows(map_objects(AB, before, after)), key=lambda f: f.target.name)
    for row in (stay, swap):
        assert row.share == 0.5
        assert row.high - row.low == pytest.approx(2 * 1.96 * 0.5 / n**0.5, rel=0.02)
    assert (stay.target.name, swap.target.name) == ("bed", "sofa")
    assert stay.pixels == 32


def test_intervals_are_over_the_samples_that_hold_the_class():
    """Three of 24 samples have a bed of four pixels, of which they keep one, two and three."""
    before = torch.zeros(24, 4, 4, dtype=torch.uint8)
    before[:3, :2, :2] = 1
    after = before.clone()
    for k, lost in enumerate((1, 2, 3)):
        after[k, 0, 0] = 2
        after[k, 0, 1] = 2 if lost > 1 else 1
        after[k, 1, 0] = 2 if lost > 2 else 1
    mapping = map_objects(AB, before, after)
    half = scipy.stats.t.ppf(0.975, 2) * np.std([0.25, 0.5, 0.75], ddof=1) / 3**0.5
    rows = [next(row for row in kept(mapping) if row.name == "bed")]
    rows += [f for f in flows(mapping) if f.source.name == "bed"]
    assert len(rows) == 3
    for row in rows:
        assert row.share == 0.5
        assert (row.low, row.high) == pytest.approx((max(0.5 - half, 0), min(0.5 + half, 1)))
    assert mapping_shares(mapping)[2].tolist() == [0, 0, 0]
    # Of a single one nothing is known.
    alone = map_objects(AB, before[2:], after[2:])
    (bed,) = [row for row in kept(alone) if row.name == "bed"]
    assert (bed.share, bed.low, bed.high) == (0.25, 0, 1)


def test_intervals_by_their_definition():
    """Cochran 1977, section 6.3, in NumPy: of the samples that hold the class, a ratio of means and Student's t."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 9, (12, 3, 3), generator=draw)
    counts[:, 1] += 10 * torch.eye(3, dtype=torch.int64)[1]
    counts[:5, 1] = 0
    mapping = ObjectMapping(AB, counts)
    held = counts[5:, 1].double().numpy()
    wholes = held.sum(1)
    for flow in (row for row in flows(mapping, confidence=0.9) if row.source.name == "bed"):
        parts = held[:, AB.index(flow.target)]
        share = parts.sum() / wholes.sum()
        error = np.std(parts - share * wholes, ddof=1) / len(held) ** 0.5 / wholes.mean()
        half = scipy.stats.t.ppf(0.95, len(held) - 1) * error
        assert 0 < share - half < share + half < 1
        assert (flow.share, flow.low, flow.high) == pytest.approx((share, share - half, share + half))
        assert flow.pixels == pytest.approx(parts.sum() / 12)
        if flow.target.name == "bed":
            (bed,) = (row for row in kept(mapping, confidence=0.9) if row.name == "bed")
            assert (bed.share, bed.low, bed.high) == pytest.approx((flow.share, flow.low, flow.high))


def test_intervals_of_few_samples_hold_the_truth():
    """Of beds of all sizes every sample keeps a share of its own, half on average."""
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        size = np.exp(rng.normal(5, 0.8, 12)).astype(int) * (rng.random(12) < 0.6)
        if (size > 0).sum() < 2:
            continue
        stays = (size * rng.beta(0.5, 0.5, 12)).round().astype(int)
        counts = torch.zeros(12, 3, 3, dtype=torch.int64)
        counts[:, 1, 1], counts[:, 1, 2] = torch.from_numpy(stays), torch.from_numpy(size - stays)
        (bed,) = [row for row in kept(ObjectMapping(AB, counts)) if row.name == "bed"]
        held.append(bed.low <= 0.5 <= bed.high)
    assert np.mean(held) > 0.85


def test_small_flows_can_be_left_out():
    before = torch.zeros(1, 10, 10, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, :3] = 1
    mapping = map_objects(AB, before, after)
    assert [f.share for f in flows(mapping)] == pytest.approx([0.97, 0.03])
    assert [f.share for f in flows(mapping, least=0.05)] == pytest.approx([0.97])
    assert [row.name for row in kept(mapping)] == ["stuff", "wall"]
    # A share of all pixels, not of the source's own.
    rare = map_objects(AB, after, before)
    assert [(f.source.name, f.share) for f in flows(rare, least=0.05)] == [("wall", 1.0)]
    assert [f.share for f in flows(rare)] == [1.0, 1.0]


def test_rooms_furnished_in_two_ways():
    """The renderer says what is where: a bedroom that becomes a living room keeps its walls and loses its bed."""
    seeds = range(20)
    rooms = [render(sample_scenes(seeds, category=c), 32, chunk=1) for c in (0, 1)]
    mapping = map_objects(CLASSES, rooms[0].masks, rooms[1].masks)
    shares = mapping_shares(mapping)
    stays = {row.name: row for row in kept(mapping)}
    bed, sofa = class_index("bed"), class_index("sofa")
    assert float(shares[bed, bed]) == 0
    assert int(mapping.counts[:, :, bed].sum()) == 0
    assert int(mapping.counts[:, sofa].sum()) == 0
    assert stays["stuff"].share > 0.75 > stays["things"].share
    assert stays["ceiling"].share > 0.98
    assert stays["window"].low > 0.7


def test_a_room_keeps_all_but_its_furniture():
    ours, other = sample_scenes(range(6)), sample_scenes(range(6), category=2)
    assert not torch.equal(ours.category, other.category)
    for name in ("yaw", "room", "camera", "window_centre", "palette", "natural", "indoor"):
        assert torch.equal(getattr(ours, name), getattr(other, name))
    mine = int(ours.category[0])
    assert torch.equal(sample_scenes([0], category=mine).low, sample_scenes([0]).low)
    with pytest.raises(ValueError, match="category must lie in 0 … 2; got 3"):
        sample_scenes([0], category=3)


def test_segmenters_are_checked():
    assert isinstance(SEG, Segmenter)

    class Broken:
        name, classes = "broken", AB

        def __init__(self, mask):
            self.mask = mask

        def segment(self, images):
            return self.mask

    class Failing(Broken):
        def segment(self, images):
            return {}["sofa"]

    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for mask, words in (
        (torch.zeros(2, 4, 5, dtype=torch.uint8), r"masks of shape \(2, 4, 4\); got"),
        (torch.zeros(2, 4, 4), "float32"),
        (torch.full((2, 4, 4), 3, dtype=torch.uint8), "names 3 classes; got 3"),
    ):
        with pytest.raises(ScorerError, match=words):
            segment(Broken(mask), images)
    with pytest.raises(ScorerError, match=r"segmenter 'broken' raised KeyError: 'sofa' \(test_transitions\.py:\d+\)"):
        segment(Failing(None), images)


def test_masks_must_fit():
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="one shape"):
        map_objects(AB, mask, mask[:1])
    with pytest.raises(ValueError, match="hold class 7, but only 3"):
        map_objects(AB, mask, mask + 7)


def test_a_journey_starts_where_it_should_and_maps_what_was_planted():
    scorer = ToyScorer(4)
    concepts = scorer.concepts[:3]
    boundaries = {c.name: Boundary(c, G.directions[k], torch.tensor(0.0), 1.0) for k, c in enumerate(concepts)}
    bench = Workbench(G, boundaries, scorer)
    names = [c.name for c in concepts]
    told = []
    journey = travel(
        bench, SEG, names, num=20, steps=2, strength=4.0, layers=[0, 1, 2], progress=lambda *at: told.append(at)
    )
    # 80 candidates and 20 samples at 1 + 2 · 2 stations, 32 at a time.
    assert told == [(k, 7) for k in range(1, 8)]
    assert journey.images.shape == (20, 5, 3, 8, 8)
    assert [leg.strength for leg in journey.legs] == [4.0, 4.0]
    assert len(journey.seeds.unique()) == 20
    # Chosen from 80 samples for what they are: more of the first than of the others.
    assert bool((journey.scores[:, 0, 0] > journey.scores[:, 0, 1:].amax(1)).double().mean() > 0.9)
    gain = journey.scores - journey.scores[:, :1]
    expected = torch.tensor([[0.0, 0, 0], [0, 1.4, 0], [0, 2.8, 0], [0, 1.4, 2.0], [0, 0, 4.0]])
    torch.testing.assert_close(gain, expected.expand(20, -1, -1), atol=0.25, rtol=0)
    assert len(journey.mappings) == 2
    for k, mapping in enumerate(journey.mappings):
        assert torch.equal(
            mapping.counts, map_objects(SEG.classes, journey.masks[:, 2 * k], journey.masks[:, 2 * k + 2]).counts
        )
    (row,) = [f for f in flows(journey.mappings[0]) if (f.source.name, f.target.name) == ("dark 1", "bright 1")]
    assert row.share > 0.8


class Scaled(ToyScorer):
    """The same scores in other units, from other zeros."""

    def score(self, images):
        scores = super().score(images)
        return scores * torch.logspace(-2, 2, scores.shape[1]) + 100 * torch.arange(scores.shape[1])


def test_journeys_start_from_the_same_samples_in_any_unit_of_the_scores():
    concepts = ToyScorer(4).concepts[:3]
    boundaries = {c.name: Boundary(c, G.directions[k], torch.tensor(0.0), 1.0) for k, c in enumerate(concepts)}
    one, other = (
        travel(Workbench(G, boundaries, scorer), SEG, [*boundaries], num=8, steps=1, strength=1.0, layers=[1])
        for scorer in (ToyScorer(4), Scaled(4))
    )
    assert torch.equal(one.seeds, other.seeds)
    # Nothing was verified, nor any effect measured, on these.
    assert int(one.seeds.min()) >= int(population.sample_seeds(1, purpose="verify", first=2**22))


class TurningScorer(ToyScorer):
    """Of a planted value v it tells 4v - v², which rises up to v = 2: pictures that fall apart, by hand."""

    def score(self, images):
        planted = super().score(images)
        return 4 * planted - planted**2


def bench_of(scorer, num=3):
    planted = scorer.concepts[:num]
    boundaries = tuple(Boundary(c, G.directions[k], torch.tensor(0.0), 1.0) for k, c in enumerate(planted))
    found = rescore(G, scorer, boundaries, num=64, step=0.5, num_random=3)
    return Workbench(G, {b.concept.name: b for b in boundaries}, scorer, found)


def test_what_can_be_reached_is_approached_and_no_more():
    bench = bench_of(ToyScorer(4))
    boundary = bench.boundaries["planted 1"]
    codes = population.sample(G, range(24))
    steps, gained = approach(bench, boundary, (1,), 1.5, codes)
    assert gained == pytest.approx(1.5, abs=0.02)
    assert steps == pytest.approx(calibrate(bench, boundary, (1,), 1.5), abs=0.02)
    assert approach(bench, boundary, (0, 2), 1.5, codes)[1] < 0.05


def test_a_score_that_turns_is_not_followed_beyond_the_turn():
    bench = bench_of(TurningScorer(4))
    boundary = bench.boundaries["planted 1"]
    std = float(bench.rescoring.score_std[1])
    codes = population.sample(G, range(24))
    rest = 2 - 0.7 * float((codes[:, 1] @ G.directions[1]).mean())
    # Truncated by 0.7, a step λ changes the mean of 4v - v² by 2 · rest · 0.7 λ - 0.49 λ²: at most by rest².
    steps, gained = approach(bench, boundary, (1,), 100.0, codes)
    assert 0.6 * rest / 0.7 < steps < 1.05 * rest / 0.7
    assert 0.85 * rest**2 < gained * std < 1.02 * rest**2
    steps, gained = approach(bench, boundary, (1,), 1 / std, codes)
    assert gained * std == pytest.approx(1, abs=0.05)
    assert steps == pytest.approx((rest - math.sqrt(rest**2 - 1)) / 0.7, abs=0.03)


class DippingScorer(ToyScorer):
    """v² - v falls before it rises."""

    def score(self, images):
        planted = super().score(images)
        return planted**2 - planted


def test_a_score_that_falls_at_first_is_followed_to_where_it_rises():
    bench = bench_of(DippingScorer(4))
    codes = population.sample(G, range(24))
    steps, gained = approach(bench, bench.boundaries["planted 1"], (1,), 1.0, codes)
    assert gained == pytest.approx(1, abs=0.02)
    assert steps > 1 / 0.7


def test_legs_go_as_far_as_asked_or_as_far_as_it_leads():
    names = ["planted 0", "planted 1", "planted 2"]
    told = []
    journey = travel(bench_of(ToyScorer(4)), SEG, names, num=4, sigmas=1.0, progress=lambda *at: told.append(at))
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))
    # One standard deviation is psi, and so is what one step changes, at the planted layer and wherever that is among.
    assert [leg.layers for leg in journey.legs] == [(1,), (2,)]
    assert [leg.strength for leg in journey.legs] == pytest.approx([1.0, 1.0], abs=0.25)
    far = travel(bench_of(TurningScorer(4)), SEG, names, num=4, sigmas=50.0)
    assert [leg.layers for leg in far.legs] == [(1,), (2,)]
    assert all(leg.strength < 2 / 0.7 * 1.5 for leg in far.legs)
    held = travel(bench_of(ToyScorer(4)), SEG, names[:2], num=4, sigmas=1.0, layers=[0, 1])
    assert held.legs[0].layers == (0, 1)
    with pytest.raises(ValueError, match="'planted 1' rises at none of the layers tried"):
        travel(bench_of(TurningScorer(4)), SEG, names[:2], num=4, layers=[3])


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        ([((1,), 3.0, 0.81)], (1,)),
        ([((1,), 3.0, 0.79)], (0, 1, 2, 3)),
        ([((1,), 8.1, 0.9)], (0, 1, 2, 3)),  # One layer moves the code by 8.1, four by 4 each move it by 8.
        ([((1,), 3.0, 0.9), ((2,), 2.0, 0.85), ((3,), 1.0, 0.5)], (2,)),
    ],
)
def test_of_places_that_gain_nearly_as_much_the_one_is_taken_that_moves_the_code_least(others, taken):
    assert transitions._gentlest([((0, 1, 2, 3), 4.0, 1.0), *others])[0] == taken


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a"], {}, "two or more different categories; got a"),
        (["planted 0", "planted 0"], {}, "two or more different"),
        (["planted 0", "nope"], {}, "no concept 'nope'"),
        (["planted 0", "noise"], {}, "unknown concept 'noise'; there are boundaries for: planted 0"),
        (["planted 0", "planted 1"], {"num": 0}, "at least 1; got 0"),
        (["planted 0", "planted 1"], {"sigmas": -1.0}, "above 0; got -1"),
    ],
)
def test_bad_journeys(names, options, words):
    scorer = ToyScorer(4)
    boundaries = {
        c.name: Boundary(c, G.directions[k], torch.tensor(0.0), 1.0) for k, c in enumerate(scorer.concepts[:2])
    }
    with pytest.raises(ValueError, match=words):
        travel(Workbench(G, boundaries, scorer), SEG, names, strength=1.0, layers=[0], **options)
