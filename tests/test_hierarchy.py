import dataclasses
import math

import numpy as np
import pytest
import torch

from higan import hierarchy
from higan import population as pop
from higan.boundaries import fit
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.types import LEVELS, Concept, Rescoring


def record(table, levels, *, noise=0.0, null=0.0, num=200):
    """A re-scoring in which Δs of concept c at single layer l is ``table[c][l]``, and stages add their layers up."""
    table = torch.tensor(table)
    C, L = table.shape
    places = placements(L)
    means = torch.stack([table[:, list(place.layers)].sum(1) for place in places], 1)
    scatter = noise * torch.randn(C, 1, num, generator=torch.Generator().manual_seed(0))
    random = torch.rand(40, len(places), C, generator=torch.Generator().manual_seed(1)) * 0.01 + null
    return Rescoring(
        concepts=tuple(Concept(f"c{k}", level) for k, level in enumerate(levels)),
        placements=places,
        step=2.0,
        seeds=torch.arange(num),
        originals=torch.zeros(num, C),
        changes=means[..., None] + scatter,
        effects=torch.zeros(C, len(places), C),
        null=random,
        score_std=torch.ones(C),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_toy_hierarchy(shared):
    """Levels of the toy: layout at layers 0 and 1, objects at 2, attributes at 3 and 4, colour at 5."""
    generator, scorer = ToyGenerator(shared_code=shared), ToyScorer()
    boundaries = fit(pop.measure(generator, scorer, range(2000), batch_size=500))
    profile = hierarchy.profile(rescore(generator, scorer, boundaries, num=100, num_random=40))
    assert profile.levels == LEVELS
    assert profile.concepts == (("planted 0", "planted 1"), ("planted 2",), ("planted 3", "planted 4"), ("planted 5",))
    expected = torch.tensor(
        [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 1.0, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 1.0]]
    )
    torch.testing.assert_close(profile.by_layer.mean, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(profile.centre, torch.tensor([0.5, 2.0, 3.5, 5.0]), atol=0.05, rtol=0)
    peaks = hierarchy.peaks(profile)
    assert [peak.group for peak in peaks[1:]] == ["lower", "upper", "top"]
    assert [peak.layer for peak in peaks] in ([0, 2, 3, 5], [0, 2, 4, 5], [1, 2, 3, 5], [1, 2, 4, 5])
    assert all(peak.group_confidence == 1 for peak in peaks[1:])
    assert hierarchy.finding(profile) == (
        "From coarse to fine layers the generator holds layout, objects, attributes and colour scheme, in the paper's "
        "order (mean layer of 0-5: layout at 0.5, objects at 2.0, attributes at 3.5, colour scheme at 5.0; "
        "100% of bootstrap resamples agree)."
    )


def test_profile_by_hand():
    """Two concepts of one level, one ten times the scale of the other, count alike."""
    rescoring = record([[3.0, 1.0, 0.0, 0.0], [0.0, 10.0, 30.0, 0.0]], ["object", "object"])
    profile = hierarchy.profile(rescoring)
    assert profile.levels == ("object",)
    # Less the null of about 0.005 at every place: hence the tolerance.
    torch.testing.assert_close(profile.by_layer.mean, torch.tensor([[0.375, 0.25, 0.375, 0.0]]), atol=0.003, rtol=0)
    torch.testing.assert_close(profile.centre, torch.tensor([1.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(profile.by_layer.mean.sum(1), torch.ones(1), atol=0.003, rtol=0)
    assert profile.by_group.names == ("bottom", "lower", "upper", "top")
    # Four layers make four stages of one.
    torch.testing.assert_close(profile.by_group.mean, profile.by_layer.mean, atol=0.003, rtol=0)


def test_the_null_is_taken_off():
    rescoring = record([[1.0, 3.0, 1.0, 1.0]], ["object"], null=1.0)
    mean = hierarchy.profile(rescoring).by_layer.mean
    torch.testing.assert_close(mean, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), atol=0.01, rtol=0)


def test_shares_beyond_none_and_all_are_cut_off():
    """Against a null of 1.2 three layers lose 0.2 each and one gains 1.8 of the 1.2 that all gain together."""
    shares = hierarchy.profile(record([[1.0, 3.0, 1.0, 1.0]], ["object"], null=1.2)).by_layer
    for part in (shares.mean, shares.low, shares.high):
        assert part.tolist() == [[0, 1, 0, 0]]


def test_intervals_hold_the_mean_and_ties_are_uncertain():
    rescoring = record([[1.0, 1.0, 0.2, 0.2]], ["attribute"], num=200)
    jitter = torch.randn(rescoring.changes.shape, generator=torch.Generator().manual_seed(0))
    rescoring = dataclasses.replace(rescoring, changes=rescoring.changes + 0.5 * jitter)
    profile = hierarchy.profile(rescoring)
    shares = profile.by_layer
    assert bool((shares.low <= shares.mean).all() and (shares.mean <= shares.high).all())
    assert bool((profile.centre_low < profile.centre).all() and (profile.centre < profile.centre_high).all())
    torch.testing.assert_close(shares.wins.sum(1), torch.ones(1))
    # Layers 0 and 1 are alike: neither wins every resample, together they do.
    assert float(shares.wins[0, :2].sum()) == 1
    assert 0 < float(shares.wins[0, 0]) < 1
    peak = hierarchy.peaks(profile)[0]
    assert peak.layer_confidence == float(shares.wins[0, peak.layer])


def scrambled(seed, *, effect, scramble, num=100, num_layers=14, num_random=20):
    """A concept at layers 0, 1 and 2 as 4 : 2 : 1; every layer disturbs its score at random, whatever the direction."""
    generator = torch.Generator().manual_seed(seed)
    places = placements(num_layers)
    at = torch.tensor([[float(layer in place.layers) for layer in range(num_layers)] for place in places])
    held = torch.zeros(num_layers, 1)
    held[:3, 0] = effect * torch.tensor([1.0, 0.5, 0.25])
    disturbed = scramble * torch.randn(1 + num_random, num_layers, num, generator=generator)
    return Rescoring(
        concepts=(Concept("c", "layout"),),
        placements=places,
        step=2.0,
        seeds=torch.arange(num),
        originals=torch.zeros(num, 1),
        changes=(at @ (held + disturbed[0]))[None],
        effects=torch.zeros(1, len(places), 1),
        null=(at @ disturbed[1:]).clamp(min=0).mean(-1)[..., None],
        score_std=torch.ones(1),
    )


def true_shares(effect, scramble):
    """What `scrambled` has in expectation: E max(0, e + s z) of a normal z, less that of e = 0."""
    normal = torch.distributions.Normal(0.0, 1.0)
    e = effect * torch.tensor([0.0, 1.0, 0.5, 0.25])
    gain = e * normal.cdf(e / scramble) + scramble * normal.log_prob(e / scramble).exp()
    gain = (gain - gain[0])[1:]
    return gain / gain.sum()


@pytest.mark.parametrize(("effect", "scramble", "num"), [(0.5, 0.1, 100), (0.5, 0.3, 100), (0.5, 0.3, 32)])
def test_intervals_of_mean_layers_and_shares_hold_the_truth(effect, scramble, num):
    shares, repetitions = true_shares(effect, scramble), 60
    truth = float(shares @ torch.arange(3.0))
    held, shares_held = 0, torch.zeros(3)
    for seed in range(repetitions):
        found = hierarchy.profile(
            scrambled(seed, effect=effect, scramble=scramble, num=num), concepts=["c"], num_resamples=300
        )
        held += not found.levels or float(found.centre_low[0]) <= truth <= float(found.centre_high[0])
        low, high = (part[0, :3] if found.levels else shares for part in (found.by_layer.low, found.by_layer.high))
        shares_held += (low <= shares) & (shares <= high)
    assert held >= 0.88 * repetitions  # 53 of 60 or more, where 95 % are meant: by chance less in 3 of 100
    assert float(shares_held.min()) >= 0.8 * repetitions


def test_a_concept_that_single_layers_do_not_surely_move_has_no_mean_layer():
    assert hierarchy.profile(scrambled(0, effect=0.0, scramble=0.3), concepts=["c"]).levels == ()
    assert hierarchy.profile(scrambled(0, effect=0.5, scramble=0.3), concepts=["c"]).levels == ("layout",)


def test_concepts_that_disagree_widen_the_interval_only_when_concepts_are_resampled():
    """Two concepts without noise, at layers 0 and 3: the mean layer of a resample is 0, 1.5 or 3."""
    rescoring = record([[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0], [0.0, 4.0, 0.0, 0.0]], ["object"] * 2 + ["colour"])
    samples, concepts = (hierarchy.profile(rescoring, over_concepts=flag) for flag in (False, True))
    torch.testing.assert_close(samples.centre, concepts.centre)
    torch.testing.assert_close(samples.by_layer.mean, concepts.by_layer.mean)
    assert float(samples.centre_high[0] - samples.centre_low[0]) < 0.01
    assert concepts.centre_low[0] == pytest.approx(0, abs=0.01)
    assert concepts.centre_high[0] == pytest.approx(3, abs=0.01)
    # A single concept tells nothing of others: its interval stays that of the samples.
    assert float(concepts.centre_high[1] - concepts.centre_low[1]) < 0.01
    # Colour at layer 1 comes after objects in the quarter of resamples that draw the first object twice.
    assert samples.in_order == 0
    assert concepts.in_order == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("concepts", [[], ["c0"]])
def test_one_level_or_none_has_no_order(concepts):
    found = hierarchy.profile(record([[4.0, 0.0], [0.0, 4.0]], ["object", "colour"]), concepts=concepts)
    assert len(found.levels) == len(concepts)
    assert math.isnan(found.in_order)
    unverified = "colour scheme" if concepts else "objects and colour scheme"
    assert hierarchy.finding(found) == (
        f"The order of the four levels cannot be judged; no concept of {unverified} could be verified; "
        "no concept of layout and attributes was tried."
    )


def test_one_layer_has_no_order():
    found = hierarchy.profile(record([[4.0], [4.0]], ["object", "colour"]))
    assert found.levels == ("object", "colour")
    assert math.isnan(found.in_order)
    assert hierarchy.finding(found).startswith("The order of the four levels cannot be judged; no concept of layout")


def test_levels_that_share_the_first_layer_are_in_order_by_chance_only():
    """Four levels at layer 0: cut off at zero their centres would tie, and every tie would count as agreement."""
    rescoring = record([[4.0] + [0.0] * 5] * 4, [*LEVELS])
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        scatter = torch.randn(rescoring.changes.shape, generator=draw) * 0.2
        noisy = dataclasses.replace(rescoring, changes=rescoring.changes + scatter, null=rescoring.null + 0.08)
        found.append(hierarchy.profile(noisy, num_resamples=200))
    # Nor may ties count as the opposite, which would leave nothing.
    assert sum(profile.in_order for profile in found) / 40 == pytest.approx(1 / 24, abs=0.02)
    tied = next(p for p in found if p.centre[0] == p.centre[1] == 0)
    assert "objects no later than layout" in hierarchy.finding(tied)


def test_a_null_of_few_samples_widens_what_is_said_against_it():
    """Samples answer to all directions more or less alike; the null was measured on the first 16 of 100 of them."""
    draw = torch.Generator().manual_seed(0)
    base = record([[0.0] * 6], ["object"], num=100)
    P = len(base.placements)
    located = {True: 0, False: 0}
    for _ in range(60):
        scale = torch.randn(100, generator=draw).exp()
        changes = scale * torch.rand(1, P, 100, generator=draw)
        changes[:, 0] += 5
        meaningless = scale * torch.rand(20, P, 100, generator=draw)
        null_changes = meaningless.mean(0)[None].clone()
        null_changes[..., 16:] = math.nan
        early = dataclasses.replace(base, changes=changes, null=meaningless[..., :16].mean(-1)[..., None])
        for told in located:
            found = dataclasses.replace(early, null_changes=null_changes if told else None)
            located[told] += bool(hierarchy.profile(found, concepts=["c0"], num_resamples=200).levels)
    # No single layer does more than the null. With the null taken for certain a tenth or more is said to.
    assert located[True] <= 4
    assert located[False] >= 8


def test_reliability_is_one_without_noise_and_nothing_where_all_is_noise():
    rescoring = record([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], ["object", "colour"])
    assert hierarchy.reliabilities(rescoring).tolist() == pytest.approx([1.0, 0.0])
    assert hierarchy.profile(rescoring).reliability.tolist() == pytest.approx([1.0])
    # A null of 1.6 leaves a gain of 1.4 at the first layer, in every half of the samples.
    against = record([[3.0, 1.0, 0.0, 0.0]], ["object"], null=1.6)
    assert hierarchy.reliabilities(against).tolist() == pytest.approx([1.0])
    scatter = torch.randn(rescoring.changes.shape, generator=torch.Generator().manual_seed(0))
    noise = dataclasses.replace(rescoring, changes=scatter, null=torch.zeros_like(rescoring.null))
    assert float(hierarchy.reliabilities(noise).max()) < 0.9
    # The seed chooses the cuts.
    assert not torch.equal(hierarchy.reliabilities(noise), hierarchy.reliabilities(noise, seed=1))


def test_reliability_of_a_level_is_that_of_the_mean_over_its_concepts():
    """One concept is the same in every sample, the other noisy: NumPy cuts the samples on its own."""
    rescoring = record([[1.2, 1.1, 1.0, 0.9], [1.2, 0.9, 1.1, 0.8]], ["object"] * 2, num=60)
    scatter = torch.randn(rescoring.changes.shape, generator=torch.Generator().manual_seed(0))
    scatter[0] = scatter[:, 0] = 0
    noisy = dataclasses.replace(rescoring, changes=rescoring.changes + 2 * scatter)
    draw, correlations = np.random.default_rng(0), []
    gained = noisy.changes[:, 1:5].clamp(min=0).double().numpy()
    null = noisy.null.mean(0).T[:, 1:5, None].double().numpy()
    for _ in range(400):
        order = draw.permutation(60)
        halves = [(gained[..., some] - null).mean(-1).clip(0) for some in (order[:30], order[30:])]
        one, other = ((half / half.sum(1, keepdims=True)).mean(0) for half in halves)
        correlations.append(np.corrcoef(one, other)[0, 1])
    expected = hierarchy.spearman_brown(float(np.mean(correlations)))
    found = float(hierarchy.profile(noisy, concepts=["c0", "c1"]).reliability[0])
    alone = hierarchy.reliabilities(noisy).tolist()
    assert found == pytest.approx(expected, abs=0.03)
    assert found < alone[0] - 0.05


def test_reliability_predicts_how_well_fresh_samples_agree():
    """Profiles of noisy layers: the reliability of one record against the correlation of two records of that size."""
    draw = torch.Generator().manual_seed(0)
    num, reps = 60, 40
    means = torch.tensor([1.0, 1.3, 0.9, 1.2, 1.1, 0.8])
    base = record([means.tolist()], ["object"], num=num)
    null = torch.zeros_like(base.null)
    wanted, found, profiles = [], [], []
    for _ in range(reps):
        changes = base.changes.clone()
        changes[:, 1:7] += torch.randn(1, 6, num, generator=draw)
        rescoring = dataclasses.replace(base, changes=changes, null=null)
        found.append(float(hierarchy.reliabilities(rescoring)))
        shares = changes[0, 1:7].clamp(min=0).mean(-1)
        profiles.append(shares / shares.sum())
    for one, other in zip(profiles[::2], profiles[1::2], strict=True):
        wanted.append(float(torch.corrcoef(torch.stack([one, other]))[0, 1]))
    assert sum(found) / reps == pytest.approx(sum(wanted) / len(wanted), abs=0.15)
    assert 0.2 < sum(found) / reps < 0.95


def test_shares_and_mean_layers_by_hand():
    gains = torch.tensor([[3.0, -1.0, 1.0], [-1.0, -2.0, -1.0]])
    torch.testing.assert_close(hierarchy.positive_shares(gains), torch.tensor([[0.75, 0.0, 0.25], [1 / 3] * 3]))
    # Where all gain less than nothing together, nothing is anybody's share.
    torch.testing.assert_close(hierarchy._signed_shares(torch.tensor([[1.0, -2.0, 0.0]])), torch.full((1, 3), 1 / 3))
    # Chances cancel only if a resample's mean layer may lie beyond the layers, though not by more than their depth.
    gains = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, -1.0], [-1.0, 0.0, 2.0], [1.0, 0.0, -0.9], [-0.9, 0.0, 1.0]])
    torch.testing.assert_close(hierarchy.mean_layers(gains), torch.tensor([1.0, -0.5, 4.0, -2.0, 4.0]))


def test_peaks_are_as_measured_and_resamples_agree_or_not():
    found = hierarchy.profile(record([[4.0, 3.0, 0.0, 0.0]], ["object"]))
    wins = torch.tensor([[0.25, 0.75, 0.0, 0.0]])
    told = dataclasses.replace(
        found,
        by_layer=dataclasses.replace(found.by_layer, wins=wins),
        by_group=dataclasses.replace(found.by_group, wins=wins),
    )
    assert hierarchy.peaks(told) == (hierarchy.Peak("object", 0, 0.25, "bottom", 0.25),)


def test_spearman_brown():
    assert hierarchy.spearman_brown(0.5) == pytest.approx(2 / 3)
    assert hierarchy.spearman_brown(-0.2) == 0


def test_a_reversed_hierarchy_is_reported_as_such():
    rescoring = record([[0.0, 0.0, 0.0, 5.0], [5.0, 0.0, 0.0, 0.0]], ["layout", "colour"])
    assert hierarchy.finding(hierarchy.profile(rescoring)) == (
        "The levels do not come in the paper's order: colour scheme before layout (mean layer of 0-3: "
        "layout at 3.0, colour scheme at 0.0; the paper's order appears in 0% of bootstrap resamples); "
        "no concept of objects and attributes was tried."
    )


def test_concepts_that_are_not_verified_take_no_part():
    rescoring = record([[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.001]], ["layout", "layout"])
    assert hierarchy.profile(rescoring).concepts == (("c0",),)


def test_nothing_verified_is_said_and_not_an_error():
    rescoring = record([[0.0] * 4] * 2, ["layout", "colour"])
    profile = hierarchy.profile(rescoring)
    assert profile.levels == ()
    assert profile.by_layer.mean.shape == (0, 4)
    assert hierarchy.peaks(profile) == ()
    assert hierarchy.finding(profile) == (
        "The order of the four levels cannot be judged; "
        "no concept of layout and colour scheme could be verified; no concept of objects and attributes was tried."
    )


def test_what_no_single_layer_moves_is_not_said_to_be_unverified():
    rescoring = record([[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0], [0.0] * 4], ["layout", "colour", "object"])
    changes = rescoring.changes.clone()
    changes[2, 0] = 4.0
    profile = hierarchy.profile(dataclasses.replace(rescoring, changes=changes))
    assert profile.unplaced == ("object",)
    assert hierarchy.finding(profile).endswith(
        "; objects verified, but not moved surely by any single layer; no concept of attributes was tried."
    )


def test_missing_layers_are_refused():
    rescoring = record([[4.0, 0.0, 0.0, 0.0]], ["layout"])
    few = dataclasses.replace(
        rescoring, placements=rescoring.placements[:3], changes=rescoring.changes[:, :3],
        effects=rescoring.effects[:, :3], null=rescoring.null[:, :3],
    )  # fmt: skip
    with pytest.raises(ValueError, match="missing: layer 2, layer 3"):
        hierarchy.profile(few)
