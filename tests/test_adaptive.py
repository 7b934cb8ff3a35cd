"""Adaptive verification: its intervals against simulation and quadrature, its answers against the fixed run's."""

import dataclasses
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import nct, norm
from scipy.stats import t as student

from higan import adaptive, statistics, store, study
from higan import population as pop
from higan import rescoring as rs
from higan.boundaries import fit, random_directions
from higan.generators.toy import ToyGenerator
from higan.hierarchy import profile
from higan.layers import placements
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Placement, Rescoring


@pytest.mark.parametrize(("n", "num"), [(16, 256), (96, 1000), (60, 64)])
def test_width_is_where_the_mixture_of_t_statistics_reaches_its_bound(n, num):
    """Lai: the likelihood ratio of t, averaged over effects ~ N(0, 1/ρ), is 1/α on the boundary (Ville's inequality)."""
    alpha = 1e-3
    time = n / (1 - n / num)
    strictness = 2 * math.log(1 / alpha)
    rho = (num / 7) / (strictness + math.log1p(strictness))
    t = float(adaptive.half_width(torch.tensor(1.0, dtype=torch.float64), n, num, alpha)) * math.sqrt(time)

    def integrand(effect):
        ratio = nct.pdf(t, n - 1, effect * math.sqrt(time)) / student.pdf(t, n - 1)
        return ratio * norm.pdf(effect, scale=rho**-0.5)

    likely, reach = t * math.sqrt(time) / (time + rho), 12 / math.sqrt(time)
    assert quad(integrand, likely - reach, likely + reach, epsrel=1e-5)[0] == pytest.approx(1 / alpha, rel=1e-3)


def test_width_tends_to_that_of_a_known_variance():
    """Robbins' normal mixture in closed form (Howard et al. 2021, eq. 14)."""
    n, num, alpha = 50_000, 1_000_000, 1e-3
    time, strictness = n / (1 - n / num), 2 * math.log(1 / alpha)
    rho = (num / 7) / (strictness + math.log1p(strictness))
    expected = math.sqrt((time + rho) * (math.log((time + rho) / rho) + strictness)) / time
    assert float(adaptive.half_width(torch.tensor(1.0), n, num, alpha)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_hold_at_every_look(skewed):
    """In at most a share α of 3000 populations is the mean of all K samples ever outside, with the estimated variance."""
    num, alpha, populations = 480, 0.05, 3000
    values = torch.randn(populations, num, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = values.clamp(min=0) if skewed else values
    truth = values.mean(1)
    missed = torch.zeros(populations, dtype=torch.bool)
    for n in range(32, num + 1, 16):
        seen = values[:, :n]
        missed |= (seen.mean(1) - truth).abs() > adaptive.half_width(seen.var(1), n, num, alpha) + 1e-9
    assert float(missed.double().mean()) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / populations)
    assert bool(missed.any())  # not idle either


def test_width_vanishes_with_the_last_sample():
    widths = [float(adaptive.half_width(torch.tensor(1.0), n, 200, 0.01)) for n in (16, 32, 64, 128, 199, 200)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0


class Counting(ToyScorer):
    """Counts images; stops with an error when told to."""

    def __init__(self, most=math.inf):
        super().__init__(6, saturating=True)
        self.images = 0
        self.most = most

    def score(self, images):
        self.images += len(images)
        if self.images > self.most:
            raise KeyboardInterrupt
        return super().score(images)


GENERATOR, SCORER = ToyGenerator(), ToyScorer(6, saturating=True)
HOW = {"num": 256, "num_random": 30}


@pytest.fixture(scope="module")
def boundaries():
    return fit(pop.measure(GENERATOR, SCORER, range(400), batch_size=400))


@pytest.fixture(scope="module")
def both(boundaries):
    fixed = rs.rescore(GENERATOR, SCORER, boundaries, batch_size=32, **HOW)
    return fixed, adaptive.rescore_adaptively(GENERATOR, SCORER, boundaries, top=4, **HOW)


def test_it_says_what_the_fixed_run_says_with_fewer_images(both):
    fixed, found = both
    assert {row.concept.name for row in statistics.rank(fixed)[:4]} == set(found.top)
    assert found.peaks == (0, 1, 2, 3, 4, 5, None, None)
    assert found.peaks_decided == (True,) * 6 + (False,) * 2
    assert found.images < found.budget / 4
    assert found.budget == rs.cost(8, fixed.placements, **HOW)


def test_samples_are_the_first_of_the_fixed_run(both):
    fixed, found = both
    ragged = found.rescoring
    taken = ~ragged.changes.isnan()
    assert torch.equal(taken.sum(-1), found.counts)
    for c, p in torch.cartesian_prod(torch.arange(8), torch.arange(len(ragged.placements))).tolist():
        m = int(found.counts[c, p])
        assert m >= 16
        assert torch.equal(ragged.changes[c, p, :m], fixed.changes[c, p, :m])
        assert not bool(taken[c, p, m:].any())
    for name in ("seeds", "originals", "score_std", "steps"):
        assert torch.equal(getattr(ragged, name), getattr(fixed, name))


def test_statistics_are_those_of_the_samples_that_were_taken(both):
    """Cell by cell the same as of a re-scoring that stopped there."""
    fixed, found = both
    ragged = found.rescoring
    change, ends = statistics.delta(ragged), statistics.interval(ragged)
    for c, p in ((0, 0), (0, 1), (3, 0), (7, 2)):
        m = int(found.counts[c, p])
        first = {name: getattr(fixed, name)[:m] for name in ("seeds", "originals")}
        short = dataclasses.replace(fixed, changes=fixed.changes[..., :m].contiguous(), **first)
        assert float(change[c, p]) == pytest.approx(float(statistics.delta(short)[c, p]), abs=1e-6)
        # Another bootstrap of the same samples: its ends agree to a fraction of the interval.
        expected = statistics.interval(short)[c, p]
        tolerance = 0.25 * float(expected[1] - expected[0]) + 1e-6
        torch.testing.assert_close(ends[c, p], expected, atol=tolerance, rtol=0)
    for p, m in enumerate(ragged.null_counts.tolist()):
        assert bool(ragged.null_changes[:, p, m:].isnan().all())
        null = ragged.null_changes[:, p, :m].mean(-1)
        torch.testing.assert_close(null, ragged.null.mean(0)[p], atol=1e-5, rtol=0)
    verified = [{row.concept.name for row in statistics.rank(r) if row.verified} for r in (ragged, fixed)]
    assert verified[0] == verified[1] == {f"planted {layer}" for layer in range(6)}
    assert all(math.isfinite(value) for value in profile(ragged, num_resamples=50).centre.tolist())


def test_images_are_counted_and_announced(boundaries, both):
    scorer, calls = Counting(), []
    found = adaptive.rescore_adaptively(
        GENERATOR, scorer, boundaries, top=4, progress=lambda *call: calls.append(call), **HOW
    )
    assert scorer.images == found.images == both[1].images == calls[-1][0]
    assert {total for _, total in calls[:-1]} == {found.budget}
    assert calls[-1] == (found.images, found.images)
    assert found.images < found.budget
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


class Memory:
    """A checkpoint that keeps units in a dictionary."""

    def __init__(self):
        self.units = {}

    def load(self, key, unit):
        return self.units.get((key, unit))

    def save(self, key, unit, tensors):
        self.units[key, unit] = tensors


def test_interrupted_it_goes_on_with_the_same_result(boundaries, both):
    checkpoint, expected = Memory(), both[1]
    with pytest.raises(KeyboardInterrupt):
        adaptive.rescore_adaptively(
            GENERATOR, Counting(expected.images - 200), boundaries, top=4, checkpoint=checkpoint, **HOW
        )
    rest = Counting()
    found = adaptive.rescore_adaptively(GENERATOR, rest, boundaries, top=4, checkpoint=checkpoint, **HOW)
    assert 0 < rest.images < expected.images / 2
    assert found.images == expected.images
    assert (found.top, found.peaks) == (expected.top, expected.peaks)
    torch.testing.assert_close(found.rescoring.changes, expected.rescoring.changes, atol=0, rtol=0, equal_nan=True)
    assert torch.equal(found.rescoring.null, expected.rescoring.null)


def test_what_is_compared_with_the_null_are_the_samples_it_was_measured_on():
    """By hand: Δs of the first two samples is 1, that of all four 2, and the null, of two, holds four of nine above 1."""
    changes = torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])
    null = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 1.6, 1.7, 1.8])[:, None, None]
    record = Rescoring(
        concepts=(Concept("c", "object"),), placements=(Placement("all", (0,)),), step=2.0, seeds=torch.arange(4),
        originals=torch.zeros(4, 1), changes=changes, effects=torch.zeros(1, 1, 1), null=null,
        score_std=torch.ones(1), null_counts=torch.tensor([2]),
    )  # fmt: skip
    assert float(statistics.p_values(record)) == pytest.approx((1 + 4) / 10)
    assert float(statistics.p_values(dataclasses.replace(record, null_counts=None))) == pytest.approx(1 / 10)
    assert float(statistics.delta(record)) == 2


def test_layers_that_the_places_lack_are_told():
    generator, scorer = ToyGenerator(6, 16), ToyScorer(6)
    drawn = random_directions(1, 16)
    boundaries = [Boundary(scorer.concepts[0], drawn[0], torch.zeros(()), math.nan)]
    with pytest.raises(ValueError, match="needs all layers together and each alone; missing"):
        adaptive.rescore_adaptively(generator, scorer, boundaries, num=64, places=placements(4), num_random=4)


def test_what_cannot_be_told_apart_takes_every_sample():
    """Two concepts that are one and the same: the last place among the strongest is open to the end."""
    places = placements(2)
    race = adaptive.Race(places, 3, 64, 2, top=2)
    generator = torch.Generator().manual_seed(0)
    same = torch.rand(1, len(places), 64, generator=generator)
    changes = torch.cat([same + 1, same, same])
    std = torch.randn(64, 1, generator=generator).expand(-1, 3).std(0)
    for n in range(16, 65, 16):
        race.update(changes[..., :n], std, [torch.zeros(4, 3, n)])
        assert race.inside.tolist() == [True, False, False]
        assert not race.top_decided
        cells, null = race.wanted()
        assert cells[:, 0].tolist() == [False, True, True]
        assert not bool(null.any())  # everything is far above zero
    assert len(race.verdict(changes, std)[0]) == 2


def test_stages_are_measured_while_edits_may_be_recommended_there():
    """Of what all layers change, `bottom` changes a half, the other stages a tenth and less; all are noisy alike."""
    places = placements(8)
    names = [place.name for place in places]
    share = {"all": 1.0, "bottom": 0.5, "lower": 0.1, "upper": -0.1, "top": 0.0}
    race = adaptive.Race(places, 2, 256, 8, top=1)
    assert [names[p] for p in race.stages] == ["bottom", "lower", "upper", "top"]
    noise = 0.3 * torch.randn(2, len(places), 256, generator=torch.Generator().manual_seed(0))
    changes = torch.tensor([share.get(name, 0.05) for name in names])[:, None] + noise
    changes[1] = 0.01 * noise[1]  # A concept that nothing moves; its null does.
    nulls, measured = [torch.full((20, 2, 256), 0.1)], []
    for n in range(16, 257, 16):
        race.update(changes[..., :n], torch.ones(2), [part[..., :n] for part in nulls])
        cells, _ = race.wanted()
        measured.append([names[p] for p in race.stages if cells[0, p]])
        assert bool(race.left[1])
        assert not bool(cells[1, race.stages].any())
    assert measured[:2] == [["bottom"]] * 2
    assert measured[-13:] == [[]] * 13  # Sixty-four samples are enough.
    assert measured[2] == ["bottom"]


def test_a_concept_at_the_level_of_the_null_is_seldom_left():
    """It gains just more than all 20 random directions, so that to leave it is wrong; their gains are noisy as well."""
    places, num, confidence, populations = placements(1), 256, 0.8, 60
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for _ in range(populations):
        null = torch.empty(20, 1, num).exponential_(generator=generator)
        gains = torch.empty(num).exponential_(generator=generator)
        gains += null.mean(-1).max() - gains.mean() + 1e-3
        race = adaptive.Race(places, 1, num, 1, top=1, confidence=confidence)
        changes = gains.expand(1, len(places), num)
        for n in range(16, num, 16):
            race.update(changes[..., :n], torch.randn(num, 1, generator=generator).std(0), [null[..., :n]])
        wrong += bool(race.left[0])
    assert wrong <= (1 - confidence) / 3 * populations


def test_a_concept_that_has_not_risen_yet_goes_on():
    """One sample in twenty rises, none of the first sixteen; no meaningless direction ever makes one rise."""
    places = placements(2)
    changes = torch.zeros(2, len(places), 1000)
    changes[0, :, 20::20] = 5.0
    nulls = [torch.zeros(20, 2, 1000)]
    race = adaptive.Race(places, 2, 1000, 2, top=1)
    for n in (16, 32):
        race.update(changes[..., :n], torch.tensor([1.0, 0.0]), [null[..., :n] for null in nulls])
        assert race.left.tolist() == [False, True]  # The other score never varies.
        assert bool(race.wanted()[0][0, : 1 + race.num_layers].all())


N, K, CONFIDENCE = 40, 200, 0.9
NOISE, SHARED = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NOISE = (NOISE - NOISE.mean()) / NOISE.std()
"""Of mean 0 and variance 1: with it a change differs from another by a mean and a variance that are known."""
BASE = 20 + 3 * SHARED
"""What all gain from a sample alike, which is no difference."""


def raced(changes, nulls, num_layers, **how):
    """A race after one look at ``changes``, where concept, place → values; as everywhere elsewhere."""
    C = nulls[0].shape[1]
    places = placements(num_layers)
    race = adaptive.Race(places, C, K, num_layers, confidence=CONFIDENCE, **how)
    record = BASE.repeat(C, len(places), 1)
    for (c, p), values in changes.items():
        record[c, p] = values
    race.update(record, torch.ones(C), nulls)
    return race


def bound(comparisons, *, questions=3):
    """What a difference of variance 1 must exceed where the error is shared by three questions, and theirs by each."""
    alpha = (1 - CONFIDENCE) / questions / comparisons
    return float(adaptive.half_width(torch.ones((), dtype=torch.float64), N, K, alpha))


def silent(C, R=20):
    """Directions that no concept gains by."""
    return torch.zeros(R, C, N, dtype=torch.float64)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("times", [0.99, 1.01])
def test_ranks_are_decided_where_all_pairs_together_keep_their_third_of_the_error(order, times):
    """Two of five: the strongest against three others, the second against the same; in order, against each other."""
    second = BASE + times * bound(7 if order else 6) + NOISE
    race = raced({(0, 0): BASE + 10, (1, 0): second}, [silent(5)], 1, top=2, order=order)
    assert race.inside.tolist() == [True, times > 1, False, False, False]
    assert race.outside.tolist() == [False, False] + 3 * [times > 1]
    assert race.top_decided == (times > 1)


@pytest.mark.parametrize("times", [0.99, 1.01])
def test_layers_are_decided_where_all_comparisons_together_keep_their_third_of_the_error(times):
    """The strongest of four layers against three others, for each of two concepts."""
    race = raced({(1, 2): BASE + times * bound(2 * 3) + NOISE}, [silent(2)], 4, top=2)
    assert race.candidates.tolist() == [4 * [True], [times < 1, True, times < 1, times < 1]]
    assert race.peaks_decided.tolist() == [False, times > 1]


@pytest.mark.parametrize("times", [0.99, 1.01])
def test_concepts_are_left_where_all_directions_together_keep_their_third_of_the_error(times):
    """Two of twenty directions are more than a twentieth, one is not; concept 1 gains more than all but one."""
    random, permuted = silent(2), silent(2, 5)
    edge = times * bound(2 * (20 + 5))
    random[:2, 0], random[2:, 1], random[:1, 1] = BASE + edge, BASE - edge, BASE + 20
    race = raced({(0, 0): BASE + NOISE, (1, 0): BASE + NOISE}, [random, permuted], 1, top=2)
    assert race.left.tolist() == [times > 1, False]
    assert race.clear.tolist() == [False, times > 1]
    assert race.wanted()[0][:, 0].tolist() == [times < 1, times < 1]


def test_a_concept_is_clear_of_the_null_only_if_it_is_of_both():
    permuted = silent(2, 5)
    permuted[:, 1] = BASE
    race = raced({(0, 0): BASE + NOISE, (1, 0): BASE + NOISE}, [silent(2), permuted], 1, top=2)
    assert race.clear.tolist() == [True, False]
    assert race.left.tolist() == [False, False]


@pytest.mark.parametrize("times", [0.99, 1.01])
def test_stages_are_left_where_all_of_them_together_keep_an_error_of_their_own(times):
    """Two concepts at four stages of eight layers; `upper` of concept 0 falls short of what is worthwhile."""
    short = BASE - times * bound(2 * 4, questions=1) + NOISE
    race = raced({(0, 0): BASE / statistics.WORTHWHILE, (0, 11): short}, [silent(2)], 8, top=2)
    assert [race.places[p].name for p in race.stages] == ["bottom", "lower", "upper", "top"]
    assert race.worthwhile.tolist() == [[True, True, times < 1, True], 4 * [True]]


def test_concepts_are_ranked_in_standard_deviations_of_their_scores():
    """The second changes less, but its score varies by a tenth."""
    places = placements(1)
    changes = torch.tensor([5.0, 1.0])[:, None, None] + 0.01 * NOISE.float().expand(2, len(places), N)
    race = adaptive.Race(places, 2, K, 1, top=1)
    race.update(changes, torch.tensor([1.0, 0.1]), [silent(2)])
    assert race.inside.tolist() == [False, True]
    assert race.verdict(changes, torch.tensor([1.0, 0.1]))[0] == [1]


def test_what_lowers_most_samples_is_as_strong_as_what_it_gains():
    """Eq. (1) counts gains alone: 2 in one sample of four and -9 in the others is a half, more than a fifth in all."""
    places = placements(2)
    gains = torch.tensor([2.0, -9.0, -9.0, -9.0]).repeat(N // 4)
    changes = torch.stack([gains, torch.full((N,), 0.2)])[:, None].repeat(1, len(places), 1)
    changes[:, 2] = torch.stack([torch.full((N,), 0.4), gains])
    race = adaptive.Race(places, 2, N, 2, top=1)
    assert race.verdict(changes, torch.ones(2)) == ([0], [0, 1])
    race.update(changes, torch.ones(2), [silent(2)])
    assert race.inside.tolist() == [True, False]
    assert race.candidates.tolist() == [[True, False], [False, True]]
    # The last sample settles everything, but not before the last sample.
    assert (race.top_decided, race.peaks_decided.tolist()) == (False, [False, False])


def test_what_is_decided_comes_first_whatever_the_means_of_cells_that_stopped_early():
    """By hand: of effects 1, 2, 3 and 4, all layers alike, the first is in and the last is out."""
    places = placements(2)
    changes = torch.arange(1.0, 5.0)[:, None, None].repeat(1, len(places), N)
    race = adaptive.Race(places, 4, K, 2, top=2)
    assert race.verdict(changes, torch.ones(4))[0] == [3, 2]
    race.inside[0], race.outside[3], race.candidates[1, 0], race.left[2] = True, True, False, True
    assert race.verdict(changes, torch.ones(4)) == ([2, 0], [0, 1, -1, 0])
    # Where a concept is left, its layer no longer matters.
    race.candidates[2, 0] = False
    race.update(changes, torch.ones(4), [silent(4)])
    assert race.peaks_decided.tolist() == [False, True, False, False]


def test_of_what_is_in_only_the_order_among_the_strongest_stays_open():
    race = adaptive.Race(placements(1), 3, K, 1, top=2, order=True)
    race.inside[:2], race.outside[2], race.clear[:] = True, True, True
    assert race.wanted()[0][:, 0].tolist() == [True, True, False]
    race.settled[0, 1] = race.settled[1, 0] = True
    assert not bool(race.wanted()[0].any())


def test_order_takes_more_samples():
    """Set and order: the second question keeps the strongest two in the race."""
    generator = torch.Generator().manual_seed(0)
    places = placements(1)
    changes = torch.rand(4, len(places), 512, generator=generator) + torch.tensor([1.0, 1.05, 0.3, 0.0])[:, None, None]
    std = torch.randn(512, 1, generator=generator).expand(-1, 4).std(0)

    def looks(order):
        race = adaptive.Race(places, 4, 512, 1, top=2, order=order)
        for n in range(16, 513, 16):
            race.update(changes[..., :n], std, [torch.zeros(4, 4, n)])
            if not bool(race.wanted()[0].any()):
                return n
        return math.inf

    assert looks(order=False) < looks(order=True) < 512


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 8}, "batch_size must be at least 16"),
        ({"top": 0}, "top must be at least 1"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"places": [Placement("all", (0, 1, 2, 3, 4, 5))]}, "all layers together and each alone"),
        ({"num": 1}, "num must be at least 2"),
    ],
)
def test_bad_arguments_are_refused_before_work_starts(boundaries, change, words):
    scorer = Counting()
    with pytest.raises(ValueError, match=words):
        adaptive.rescore_adaptively(GENERATOR, scorer, boundaries, **{**HOW, **change})
    assert scorer.images == 0


def test_a_study_keeps_what_was_settled(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=400)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run, num_permuted=3)
    goal = study.Goal(top=4)
    rescoring = study.rescore_step(run, GENERATOR, SCORER, adaptive=goal, **HOW)
    outcome = study.steps_of(run)["rescore"]["outcome"]
    assert outcome["images"] < outcome["budget"] / 4
    assert outcome["peaks"]["planted 3"] == 3
    loaded = store.load_rescoring(run)
    assert isinstance(loaded, Rescoring)
    torch.testing.assert_close(loaded.changes, rescoring.changes, atol=0, rtol=0, equal_nan=True)
    assert loaded.concepts[0] == Concept("planted 0", "layout")
    again = study.rescore_step(run, GENERATOR, Counting(0), adaptive=goal, **HOW)
    torch.testing.assert_close(again.changes, rescoring.changes, atol=0, rtol=0, equal_nan=True)
    with pytest.raises(KeyboardInterrupt):
        study.rescore_step(run, GENERATOR, Counting(0), **HOW)
