"""Re-scorings side by side: differences that are known, how often their intervals hold them, and what is refused."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from higan import load_generator, load_scorer, study
from higan.comparison import agreement, are_comparable, binning, compare, halves, locate, reach, share_samples
from higan.comparison.differences import depth_difference, effect_differences
from higan.comparison.samples import padded
from higan.errors import RunMismatchError
from higan.layers import placements
from higan.report.comparepage import compare_page
from higan.report.depths import depth_chart
from higan.types import Concept, Rescoring

LEVELS = {"view": "layout", "bed": "object", "wood": "attribute", "red": "colour"}
TABLE = [[3.0, 1, 0, 0], [0, 3, 1, 0], [0, 0, 3, 1], [0, 0, 0, 4.0]]


def record(table=TABLE, names=tuple(LEVELS), *, num=40, first=0, noise=0.0, draw=0, std=1.0, together=None):
    """Concepts whose Δs at single layers is ``table``, in units of ``std``; larger sets of layers add them up.

    ``together`` is noise that all concepts and places share, sample by sample.
    """
    table = std * torch.tensor(table)
    places = placements(table.shape[1])
    means = torch.stack([table[:, list(place.layers)].sum(1) for place in places], 1)
    chance = torch.Generator().manual_seed(draw)
    scatter = noise * std * torch.randn(len(table), len(places), num, generator=chance)
    null = 0.01 * torch.rand(40, len(places), len(table), generator=torch.Generator().manual_seed(1))
    return Rescoring(
        concepts=tuple(Concept(name, LEVELS[name]) for name in names),
        placements=places,
        step=2.0,
        seeds=first + torch.arange(num),
        originals=torch.zeros(num, len(table)),
        changes=means[..., None] + scatter + (0.0 if together is None else together),
        effects=torch.zeros(len(table), len(places), len(table)),
        null=null,
        score_std=torch.full((len(table),), std),
    )


def cut_short():
    """The first concept has fewer samples than the others, as adaptive verification leaves it."""
    found = record()
    found.changes[0, :, 25:] = torch.nan
    return found


def skewed(chance, num, mean, ties=None):
    """One concept at two layers whose changes have a long tail, with this mean at all layers; `ties` are added."""
    places = placements(2)
    drawn = torch.empty(len(places), num).exponential_(generator=chance) * mean
    if ties is not None:
        drawn = drawn + ties
    return replace(
        record([[1.0, 1.0]], ["bed"], num=num),
        changes=drawn[None],
        seeds=torch.arange(num) + (0 if ties is not None else int(torch.randint(10**9, (1,), generator=chance))),
    )


# --- known differences ------------------------------------------------------------------------------------------------


def test_known_effects_depths_and_differences():
    one = record(noise=0.05)
    moved = [[0.0, 3, 1, 0], [0, 0, 3, 1], [0, 0, 0, 4], [0, 0, 0, 3.0]]
    other = record(moved, first=1000, noise=0.05, draw=1, std=10.0)
    found = compare({"one": one, "other": other})
    assert found.together == (False,)
    assert [row.name for row in found.concepts] == list(LEVELS)
    for row, difference in zip(found.concepts, [0, 0, 0, -1], strict=True):
        assert row.verified == (True, True)
        assert row.effects[0].value == pytest.approx(4, abs=0.05)
        # A null of 0.005 on average, in units of a tenth as much.
        assert row.nulls == pytest.approx((0.005, 0.0005), rel=0.3)
        assert row.differences[0].value == pytest.approx(difference, abs=0.05)
        assert row.differences[0].value == pytest.approx(row.effects[1].value - row.effects[0].value, abs=1e-4)
        assert row.differences[0].low < row.differences[0].value < row.differences[0].high
    depths = [(0.25 / 3, 1.25 / 3), (1.25 / 3, 2.25 / 3), (2.25 / 3, 1), (1, 1)]
    for row, (before, after) in zip(found.levels, depths, strict=True):
        assert [depth.value for depth in row.depths] == pytest.approx([before, after], abs=0.02)
        assert row.differences[0].value == pytest.approx(after - before, abs=0.02)


def test_generators_of_different_depth_are_compared_over_relative_depth():
    deep = [[a for a in row for _ in range(2)] for row in TABLE]
    found = compare({"shallow": record(noise=0.05), "deep": record(deep, first=99, noise=0.05)})
    colour = found.levels[-1]
    assert [depth.value for depth in colour.depths] == pytest.approx([1, 6.5 / 7], abs=0.02)
    assert found.pairs[0].agreement.profiles.value > 0.95
    torch.testing.assert_close(binning(12).sum(1), torch.ones(12))


def test_samples_of_one_run_are_resampled_in_pairs():
    """What both runs' samples share cancels: an independent bootstrap would not see it."""
    luck = torch.randn(100, generator=torch.Generator().manual_seed(0))
    one = record(num=100, noise=0.1, together=luck)
    other = record(num=100, noise=0.1, draw=1, together=luck)
    paired = effect_differences(one, other, ["red"])[0]
    single = effect_differences(one, replace(other, seeds=other.seeds + 1000), ["red"])[0]
    assert paired.value == pytest.approx(single.value, abs=1e-5)
    assert 5 * (paired.high - paired.low) < single.high - single.low
    # … also where one of them took fewer.
    some = replace(one, changes=one.changes[..., :90], seeds=one.seeds[:90], originals=one.originals[:90])
    assert share_samples(some, other)
    longer = padded(some, other)
    assert longer.changes.shape == other.changes.shape
    assert bool(longer.changes[..., 90:].isnan().all())
    fewer = effect_differences(some, other, ["red"])[0]
    expected = float(other.changes[3, 0].mean() - some.changes[3, 0].mean())
    assert fewer.value == pytest.approx(expected, abs=1e-4)
    assert fewer.high - fewer.low < single.high - single.low


def test_depths_of_one_run_are_resampled_in_pairs_and_those_of_two_are_not():
    """The same gains twice as large lie as deep in every resample, unless either draws samples of its own."""
    one = record(noise=1.0, num=60)
    twice = replace(one, changes=2 * one.changes, null=2 * one.null)
    apart = replace(twice, seeds=one.seeds + 1000)
    paired, single = (depth_difference(one, other, list(LEVELS)) for other in (twice, apart))
    assert (paired.value, paired.low, paired.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert single.value == pytest.approx(0, abs=1e-6)
    assert single.low < -0.01 < 0.01 < single.high
    gaps = [compare({"one": one, "other": other}).pairs[0].agreement.gap for other in (twice, apart)]
    assert gaps[0].high == pytest.approx(0, abs=1e-6)
    assert gaps[1].low > 0.003


def test_differences_are_of_what_is_told_of_each():
    """Of Δs, which leaves out what falls, and of depths that end at the first and last layer, whatever chance says."""
    one, other = record(noise=4.0), record(noise=8.0, draw=1, first=1000)
    for row in compare({"one": one, "other": other}).concepts:
        assert row.differences[0].value == pytest.approx(row.effects[1].value - row.effects[0].value, abs=1e-4)
    # Other layers lose 0.5, so that the mean layers would be -1.5 and 4.5 of 0 … 3.
    ends = [record([row], ["bed"], first=k) for k, row in ((0, [4.0, 0, 0, 0]), (99, [0, 0, 0, 4.0]))]
    ends = [replace(end, null=end.null + 0.5) for end in ends]
    assert depth_difference(*ends, ["bed"]).value == pytest.approx(1)
    assert [depth.value for depth in compare(dict(zip("ab", ends, strict=True))).levels[1].depths] == [0, 1]


def test_eight_samples_have_halves_and_seven_do_not():
    for num, halved in ((8, 2), (7, 0)):
        pairs = compare({"a": record(num=num, noise=0.1), "b": record(num=num, noise=0.1, first=99)}).pairs
        assert sum(pair.one == pair.other for pair in pairs) == halved


def test_where_samples_were_not_taken_the_null_was_not_measured():
    short, long = (replace(record(num=num), null_changes=torch.rand(4, 9, num)) for num in (20, 30))
    longer = padded(short, long)
    assert longer.null_changes.shape == (4, 9, 30)
    assert torch.equal(longer.null_changes[..., :20], short.null_changes)
    assert bool(longer.null_changes[..., 20:].isnan().all())
    assert padded(long, short) is long


def test_depths_by_hand():
    depths = {concept: float(depth[0]) for concept, depth in locate(record()).depths().items()}
    assert depths == pytest.approx({"view": 0.25 / 3, "bed": 1.25 / 3, "wood": 2.25 / 3, "red": 1}, abs=0.01)


def test_the_gap_is_a_mean_of_distances_whatever_their_signs():
    """Two concepts change places, a third of all layers apart: on average they are no deeper, and a third apart."""
    swapped = [TABLE[0], TABLE[2], TABLE[1], TABLE[3]]
    found = agreement(locate(record()), locate(record(swapped, first=99)))
    assert found.gap.value == pytest.approx((1 / 3 + 1 / 3) / 4, abs=0.01)


def test_pairing_goes_by_samples():
    one = record()
    assert share_samples(one, record(num=30))
    assert not share_samples(one, record(first=40))
    with pytest.raises(ValueError, match=r"some\. Re-score one of them with a --seed of its own"):
        share_samples(one, record(first=20))


@pytest.mark.parametrize("design", ["independent", "paired", "same seeds, nothing shared", "unequal"])
def test_intervals_of_a_difference_hold_it(design):
    """Skewed changes with means 1 and 1.5 standard deviations: the truth is 0.5 in 95 % of repetitions."""
    chance = torch.Generator().manual_seed(3)
    held, repetitions = 0, 300
    for _ in range(repetitions):
        ties = torch.zeros(5, 40) if design == "same seeds, nothing shared" else None
        if design == "paired":
            ties = torch.empty(5, 40).exponential_(generator=chance)
        one = skewed(chance, 40, 1.0, ties)
        other = skewed(chance, 80 if design == "unequal" else 40, 1.5, ties)
        found = effect_differences(one, other, ["bed"], num_resamples=400)[0]
        held += found.low <= 0.5 <= found.high
    assert 0.925 <= held / repetitions <= 0.985


def test_intervals_of_a_difference_in_depth_hold_it():
    """Two layers as 3 : 1 and 1 : 1, every sample with its own luck at every layer; stages and all do not matter."""
    chance = torch.Generator().manual_seed(5)
    held, repetitions = 0, 200
    for k in range(repetitions):
        pair = []
        for first, means in ((0, (3.0, 1.0)), (1000, (2.0, 2.0))):
            gains = torch.tensor(means)[:, None] * torch.empty(2, 60).exponential_(generator=chance)
            base = record([[1.0, 1.0]], ["bed"], num=60, first=first, draw=k)
            rows = torch.stack([gains[list(place.layers)].sum(0) for place in base.placements])
            pair.append(replace(base, changes=rows[None], null=torch.zeros_like(base.null)))
        found = depth_difference(*pair, ["bed"], num_resamples=300)
        held += found.low <= 0.25 <= found.high
    assert 0.9 <= held / repetitions <= 0.985


def test_adaptive_records_lack_samples():
    """Samples that were not taken (NaN) count nowhere."""
    one, other = record(noise=0.3, num=60), record(noise=0.3, num=60, first=500, draw=1)
    cut = other.changes.clone()
    cut[0, :, 25:] = torch.nan
    found = compare({"one": one, "other": replace(other, changes=cut)})
    row = next(row for row in found.concepts if row.name == "view")
    expected = float(cut[0, 0, :25].mean() - one.changes[0, 0].mean())
    assert row.differences[0].value == pytest.approx(expected, abs=1e-4)
    assert row.differences[0].high - row.differences[0].low < 1


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_of_what_is_alike_and_of_what_is_not():
    one = locate(record(noise=0.05), num_resamples=50)
    alike = agreement(one, locate(record(noise=0.05, draw=1), num_resamples=50))
    assert alike.concepts == 4
    assert alike.profiles.value > 0.99
    assert alike.depths.value > 0.99
    assert max(alike.exchanged) < 0.8
    assert alike.gap.value < 0.02
    upside_down = agreement(one, locate(record([row[::-1] for row in TABLE], noise=0.05), num_resamples=50))
    assert upside_down.depths.value < -0.99
    assert upside_down.profiles.value < 0.3


def test_where_there_is_nothing_to_correlate_there_is_no_correlation():
    """One concept has one depth, and a single layer one share; zero would say that two generators disagree."""
    lone = [locate(record([[3.0, 1, 0, 0]], ["view"], noise=0.05, draw=k), num_resamples=20) for k in range(2)]
    found = agreement(*lone)
    assert found.profiles.value > 0.99
    assert [math.isnan(end) for end in (found.depths.value, found.depths.low, found.depths.high)] == [True] * 3
    flat = {name: record([[3.0], [2.0]], ["view", "bed"], noise=0.1, draw=k) for k, name in enumerate(("one", "other"))}
    found = agreement(*(locate(one, num_resamples=20) for one in flat.values()))
    assert math.isnan(found.profiles.value)
    assert math.isnan(found.depths.value)
    assert found.gap.value == 0
    compared = compare(flat)
    assert "nan" not in compare_page(compared, makings(), ())


def test_nothing_in_common_has_no_agreement():
    one, other = locate(record(), num_resamples=10), locate(record([[0.0] * 4] * 4), num_resamples=10)
    assert not other.shares
    assert not are_comparable(one, other)
    with pytest.raises(ValueError, match="share no verified concept"):
        agreement(one, other)


def test_halves_are_of_different_samples():
    null = torch.rand(4, len(placements(4)), 41)
    whole = replace(record(num=41), null_changes=null, null_counts=torch.full((len(placements(4)),), 9))
    first, second = halves(whole)
    assert not share_samples(first, second)
    assert (len(first.seeds), len(second.seeds)) == (21, 20)
    assert (int(first.null_counts[0]), int(second.null_counts[0])) == (5, 4)
    torch.testing.assert_close(second.null_changes, null[..., 1::2])


def test_reach_is_what_was_measured_and_the_middle_of_the_resamples():
    found = reach(torch.cat([torch.tensor([7.0]), torch.linspace(0, 40, 41)]))
    assert (found.value, found.low, found.high) == (7, 1, 39)


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_what_not_all_have_is_listed():
    part = record(TABLE[:2], ["view", "bed"], first=100, noise=0.1)
    found = compare({"one": record(noise=0.1), "part": part, "more": record(first=300, noise=0.1)})
    assert [row.name for row in found.concepts] == ["view", "bed"]
    assert found.missing == {"wood": ("part",), "red": ("part",)}
    assert [len(row.differences) for row in found.levels] == [2, 2, 2, 2]
    assert found.levels[-1].differences[0] is None
    assert [(pair.one, pair.other) for pair in found.pairs[:3]] == [("one", "part"), ("one", "more"), ("part", "more")]


@pytest.mark.parametrize(
    ("rescorings", "message"),
    [
        ({"one": record()}, "a comparison is of two or more; got 1"),
        ({"one": record(), "copy": record()}, "one and copy hold the same results"),
        ({"one": cut_short(), "copy": cut_short()}, "one and copy hold the same results"),
        (
            {"a": record([[1.0, 1]], ["bed"]), "b": record([[1.0, 1]], ["red"], first=99)},
            "there is none that all have: a has bed; b has red",
        ),
    ],
)
def test_comparisons_that_are_refused(rescorings, message):
    with pytest.raises(ValueError, match=message):
        compare(rescorings)


@pytest.mark.parametrize("wrong", [{"concepts": ["door"]}, {"concepts": ["bed"], "placement": "layer 9"}])
def test_differences_of_what_is_not_there_are_refused(wrong):
    with pytest.raises(ValueError, match=r"unknown (concept 'door'|placement 'layer 9'); a re-scoring holds"):
        effect_differences(record(), record(first=99), **wrong)
    with pytest.raises(ValueError, match="at least one concept; got none"):
        depth_difference(record(), record(first=99), [])


def test_the_page_needs_nothing_else_and_shows_every_level():
    one, other = record(noise=0.1), record(TABLE[:3], list(LEVELS)[:3], first=99, noise=0.1)
    found = compare({"one": one, "<other>": other})
    chart = depth_chart(found.profiles)
    assert chart.count("none tried") == 1
    assert chart.count('class="diamond"') == 7
    identity = study.making.Identity
    made = study.Making(
        identity("g", (), ()), identity("s", (), ()), 4, 2.0, 4.0, "official", 9, 40, 0, False, 4, 0, ""
    )
    page = compare_page(found, {"one": made, "<other>": replace(made, step=3.0)}, ["Mind <this>."])
    assert "<other>" not in page
    assert "Mind &lt;this&gt;." in page
    assert "They differ in step λ (2, 3)." in page
    assert "red: not in &lt;other&gt;" in page
    assert not re.search(r'(src|href)="', page)
    assert page.index("<svg") < page.index("<table")
    assert page.count('scroll"') == page.count('scroll" tabindex="0" role="group" aria-label="') == 5


def test_runs_whose_long_names_differ_at_the_end_are_told_apart_in_the_picture():
    names = [f"a-folder-of-some-generator-seed-{seed}" for seed in (1, 2)]
    found = compare({name: record(first=99 * k) for k, name in enumerate(names)})
    shown = set(re.findall(r">(a-fold[^<]*)<title>", depth_chart(found.profiles)))
    assert len(shown) == 2
    assert max(map(len, shown)) < min(map(len, names))


def test_the_page_marks_where_random_directions_end_in_each_run():
    one, other = record([[1.0, 1]], ["bed"]), record([[1.0, 1]], ["bed"], first=99)
    found = compare({"one": one, "other": replace(other, null=other.null + 0.5)})
    page = compare_page(found, makings(), [])
    told = [f"null {null:.2f}" for null in found.concepts[0].nulls]
    assert float(told[1].split()[1]) > float(told[0].split()[1])
    assert re.findall(r'class="spark" role="img" aria-label="[^"]*(null [^"]*)"', page) == told


# --- how runs were made -----------------------------------------------------------------------------------------------


def makings(**changes):
    identity = study.making.Identity
    made = study.Making(
        identity("g", (), ("1",)), identity("s", (), ("5",)), 4, 2.0, 4.0, "official", 1000, 40, 0, False, 20, 20, "svm"
    )
    return {"one": made, "other": replace(made, **changes)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"rescored": 400, "seed": 3, "num_random": 40}, None),
        ({"generator": study.making.Identity("g", (), ("2",)), "step": 1.0}, None),
        ({"step": 3.0}, "λ is 2 in one and 3 in other: effects differ by that"),
        ({"step_mode": "equal_change"}, "steps of mode official, other by equal_change: layers took other steps"),
        ({"scorer": study.making.Identity("s", (), ("6",))}, "judged by different scorers"),
        ({"scorer": study.making.Identity("t", (), ())}, "What differs is what the scorers see"),
        (
            {"generator": study.making.Identity("h", (), ()), "sigmas": 2.0},
            "λ is 4.0 standard deviations of the codes in one and 2.0 in other, .* is --step 4 in other",
        ),
        (
            {"generator": study.making.Identity("h", (), ()), "sigmas": 8.0},
            "λ is 4.0 standard deviations of the codes in one and 8.0 in other, .* is --step 1 in other",
        ),
        ({"generator": study.making.Identity("h", (), ()), "sigmas": float("nan")}, "is not known of both"),
        ({"fit": "ridge"}, r"fitted otherwise \(one: svm; other: ridge\)"),
        ({"probed": 9000}, "from 1,000 samples in one and 9,000 in other"),
        ({"probed": 100}, "from 1,000 samples in one and 100 in other"),
    ],
)
def test_what_is_said_of_runs_that_were_made_otherwise(changes, told):
    found = study.cautions(makings(**changes), {"one": record(), "other": record(first=99)})
    assert len(found) == (told is not None)
    if told:
        assert re.search(told, found[0])


def test_other_generators_in_the_eyes_of_other_scorers_are_refused():
    identity = study.making.Identity
    both = makings(generator=identity("h", (), ()), scorer=identity("t", (), ()))
    with pytest.raises(RunMismatchError, match="Study both with one scorer"):
        study.cautions(both, {})


def test_concepts_of_other_levels_are_told():
    other = record(first=99)
    renamed = (Concept("view", "object"), *other.concepts[1:])
    found = study.cautions(makings(), {"one": record(), "other": replace(other, concepts=renamed)})
    assert found == ("Not of the same level in all runs: view (layout and object).",)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def siblings(tmp_path_factory):
    """Two small runs of the siblings, taken step by step; nothing is drawn."""
    folder = tmp_path_factory.mktemp("compare")
    scorer = load_scorer("rooms")
    for name in ("rooms-32-s0", "rooms-32-s1"):
        generator = load_generator(name)
        run = study.open_study(folder / name, generator, scorer, num=60)
        study.sample_step(run, generator, scorer)
        study.fit_step(run, ["view_yaw", "bedroom", "indoor_lighting", "warm_colours"], num_permuted=3)
        study.rescore_step(run, generator, scorer, num=10, num_random=8)
    return folder


def test_two_runs_from_the_command_line(siblings, higan, tmp_path):
    runs = [siblings / "rooms-32-s0", siblings / "rooms-32-s1"]
    page = tmp_path / "pages" / "compare.html"
    code, printed = higan("compare", *runs, "--out", page)
    assert code == 0, printed
    for word in ("rooms-32-s1 less rooms-32-s0", "indoor_lighting", "in pairs", "two halves of rooms-32-s1", "Page:"):
        assert word in printed
    written = page.read_text("utf-8")
    assert "They differ in generator (rooms-32-s0, rooms-32-s1)" in written
    assert "http" not in written
    code, printed = higan("compare", *runs, "--json")
    assert code == 0
    told, end = json.JSONDecoder().raw_decode(printed)
    assert printed[end:].startswith(" Mind: λ is")
    assert [row["name"] for row in told["concepts"]][-1] == "warm_colours"
    assert set(told["runs"]) == {"rooms-32-s0", "rooms-32-s1"}
    assert set(told["concepts"][0]["differences"][0]) == {"value", "low", "high"}


def test_runs_that_cannot_be_compared(siblings, higan, tmp_path):
    one, other = siblings / "rooms-32-s0", siblings / "rooms-32-s1"
    code, printed = higan("compare", one)
    assert (code, "compare takes two or more runs" in printed) == (2, True)
    code, printed = higan("compare", one, other, siblings / "." / "rooms-32-s0")
    assert (code, "is given twice" in printed) == (2, True)
    code, printed = higan("compare", one, tmp_path / "nowhere")
    assert (code, "is no run folder" in printed) == (1, True)
    code, printed = higan("compare", one, other, "--out", tmp_path / "compare.png")
    assert (code, "--out must end in .html" in printed) == (2, True)
    assert higan("sample", "--generator", "toy", "--scorer", "toy", "--num", 20, "--out", tmp_path / "begun")[0] == 0
    code, printed = higan("compare", one, tmp_path / "begun")
    assert (code, "this step of the study has not been done" in printed) == (1, True)
