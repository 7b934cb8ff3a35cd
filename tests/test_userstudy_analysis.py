"""The analysis against answers known by hand, a published example, and scipy."""

import numpy as np
import pytest
import scipy.stats

from higan.types import LEVELS
from higan.userstudy import analysis
from higan.userstudy.agreement import _counts, _weighted_alpha, alpha, alpha_interval, order_test, rank_correlation
from higan.userstudy.analysis import analyse, resample, shares, spreads, wilson
from higan.userstudy.answers import Answers, Rater
from higan.userstudy.design import CHOICES
from higan.userstudy.folder import Expected
from higan.userstudy.page import headline
from higan.userstudy.raters import planted, simulate
from higan.userstudy.ratings import MISSING, Ratings, gather, screen
from userstudies import DIAGONAL, STAGES, make_design, make_study

IDENTITY = {stage: {level: 1.0} for stage, level in zip(STAGES, LEVELS, strict=True)}

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units.
PUBLISHED = (
    np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    - 1
)


def synthetic(R=9, seed=0, repeats=1, fill=None):
    """Ratings of R raters who each see every unit once."""
    rng = np.random.default_rng(seed)
    design = make_design(repeats=repeats)
    edits = np.full((R, design.num_units, 4), MISSING)
    for r in range(R):
        for u in range(design.num_units):
            s = (u + r) % 4
            edits[r, u, s] = rng.choice(5, p=rng.dirichlet(np.ones(5))) if fill is None else fill(r, u, s)
    raters = tuple(Rater(r, r, f"r{r}", "server", 1) for r in range(R))
    return Ratings(design, raters, edits, np.full((R, 6), 4))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_alpha_of_the_published_example():
    assert alpha(PUBLISHED) == pytest.approx(0.743, abs=5e-4)
    counts = _counts(PUBLISHED)
    counts = counts[counts.sum(1) >= 2]
    assert _weighted_alpha(counts, np.ones((1, len(counts))))[0] == pytest.approx(alpha(PUBLISHED), abs=1e-12)


def test_alpha_by_hand():
    assert alpha(np.array([[0, 1, 2], [0, 1, 2]])) == 1
    # Two raters, two items, always opposite: Do = 1, De = 2·2·2 / (4·3) = 2/3, alpha = 1 - 3/2.
    assert alpha(np.array([[0, 1], [1, 0]])) == pytest.approx(-0.5)
    assert alpha(np.array([[0, -1], [-1, 1]])) is None
    assert alpha(np.array([[3, 3], [3, 3]])) is None
    assert alpha(np.empty((0, 0), dtype=int)) is None
    assert alpha_interval(np.array([[0, -1], [-1, 1]])) is None
    assert alpha_interval(np.array([[3, 3], [3, 3]])) is None


def test_the_closed_form_of_the_bootstrap_is_the_library_s_alpha_of_repeated_items():
    rng = np.random.default_rng(1)
    ratings = rng.integers(-1, 5, (6, 20))
    counts = _counts(ratings)
    kept = counts.sum(1) >= 2
    weights = rng.multinomial(kept.sum(), np.full(kept.sum(), 1 / kept.sum()), size=5)
    for row, value in zip(weights, _weighted_alpha(counts[kept], weights.astype(float)), strict=True):
        assert alpha(np.repeat(ratings[:, kept], row, axis=1)) == pytest.approx(value, abs=1e-12)
    low, high = alpha_interval(ratings)
    assert low < alpha(ratings) < high


def test_rank_correlation_is_scipy_s():
    rng = np.random.default_rng(2)
    rows, other = rng.integers(0, 5, (7, 16)) / 4, rng.normal(size=16)
    expected = [scipy.stats.spearmanr(row, other).statistic for row in rows]
    assert rank_correlation(rows, other) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(rank_correlation(np.ones((1, 16)), other)[0])


def test_order_test_counts_orders():
    assert order_test(np.eye(4), np.eye(4)) == 1 / 24
    assert order_test(np.eye(4)[::-1], np.eye(4)) > 1 / 24
    assert order_test(np.ones((2, 3)) * [1, 2, 2], np.ones((2, 3)) * [1, 2, 3]) == 2 / 6


# --- screening --------------------------------------------------------------------------------------------------------


def test_screening_keeps_who_passes_and_knows_what_chance_would():
    design = make_design()
    kinds = [trial.catch for trial in design.catches]
    assert kinds == ["same", "mirror", "tint"] * 2
    right = [CHOICES.index(trial.accepted[0]) for trial in design.catches]
    rows = np.array([right, [*right[:5], MISSING], right[:4] + [MISSING] * 2, [4] * 6, [MISSING] * 6])
    raters = tuple(Rater(r, r, "", "server", 1) for r in range(5))
    found = screen(Ratings(design, raters, np.full((5, 32, 4), MISSING), rows))
    assert (found.total, found.least) == (6, 5)
    assert found.passed.tolist() == [6, 5, 4, 2, 0]
    assert found.seen.tolist() == [6, 5, 4, 6, 0]
    assert found.kept.tolist() == [True, True, False, False, False]
    rng = np.random.default_rng(0)
    clicks = rng.integers(0, 5, (200_000, 6))
    lucky = np.stack(
        [np.isin(clicks[:, k], [CHOICES.index(c) for c in t.accepted]) for k, t in enumerate(design.catches)]
    )
    assert found.chance == pytest.approx((lucky.sum(0) >= 5).mean(), abs=1e-3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        screen(synthetic(), share=1.5)
    nobody = make_design(num_catches=0)
    free = Ratings(nobody, raters[:1], np.full((1, 32, 4), MISSING), np.empty((1, 0), dtype=int))
    assert screen(free).kept.tolist() == [True]


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_are_counted():
    ratings = synthetic(fill=lambda r, u, s: s if r < 6 else 4)
    found = shares(resample(ratings, num_resamples=2))[0]
    assert found == pytest.approx(np.hstack([np.eye(4) * 6 / 9, np.full((4, 1), 3 / 9)]), abs=0.15)
    exact = [[np.mean(ratings.edits[:, :, s][ratings.edits[:, :, s] >= 0] == a) for a in range(5)] for s in range(4)]
    assert found == pytest.approx(np.array(exact))
    assert spreads(resample(ratings, num_resamples=2))[0] == pytest.approx(np.eye(4))


def test_the_interval_over_raters_is_scipy_s_bootstrap():
    ratings = synthetic(R=24, repeats=2)
    counts = resample(ratings, num_resamples=8000, over=("raters",), seed=1)
    low, high = np.quantile(shares(counts)[1:, 1, 2], [0.025, 0.975])

    def share(rows, axis=-1):
        edits = ratings.edits[rows.astype(int)][..., 1]
        return ((edits == 2).sum((-2, -1))) / (edits >= 0).sum((-2, -1))

    found = scipy.stats.bootstrap(
        (np.arange(24),), share, n_resamples=8000, method="percentile", vectorized=True, rng=np.random.default_rng(3)
    ).confidence_interval
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.012)


def test_drawing_pictures_too_makes_intervals_no_narrower_where_pictures_differ():
    # What is seen depends on the picture alone: drawing raters says that nothing is unsure, drawing pictures knows better.
    ratings = synthetic(R=16, fill=lambda r, u, s: u // 4 % 2)

    def width(over):
        found = shares(resample(ratings, num_resamples=500, over=over))[1:, 0, 0]
        return np.ptp(np.quantile(found, [0.025, 0.975]))

    assert width(("raters",)) < 0.05
    assert width(("raters", "pictures")) > 0.2


def test_intervals_cover_the_truth_about_as_often_as_they_say(tmp_path):
    truth = np.full(5, 0.1) + np.eye(5)[1] * 0.5
    hits = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ratings = synthetic(R=8, fill=lambda r, u, s: rng.choice(5, p=truth))  # noqa: B023
        found = shares(resample(ratings, num_resamples=300, seed=seed))[1:, 2, 1]
        low, high = np.quantile(found, [0.025, 0.975])
        hits.append(low <= 0.6 <= high)
    # Both raters and pictures are drawn, which errs on the wide side: at least 95 % less three standard errors.
    assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)


def test_the_interval_of_the_correlation_holds_what_many_raters_would_give():
    """Noise of few answers lowers the correlation, and once more that of resamples."""
    answers = np.array([[45, 15, 10, 10, 20], [25, 35, 15, 10, 15], [10, 20, 35, 20, 15], [10, 10, 25, 40, 15]]) / 100
    spread = answers[:, :4].T / answers[:, :4].T.sum(1, keepdims=True)
    expected = Expected(LEVELS, tuple(STAGES), *(tuple(map(tuple, spread)) for _ in range(3)))
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ratings = synthetic(R=8, fill=lambda r, u, s: rng.choice(5, p=answers[s]))  # noqa: B023
        comparison = analysis._compare(resample(ratings, num_resamples=200, seed=seed), expected, (0.025, 0.975))
        found.append((*comparison.interval, comparison.correlation))
    low, high, correlation = np.array(found).T
    assert (low <= correlation).all()
    assert (correlation <= high).all()
    assert correlation.mean() < 0.97
    assert np.mean((low <= 1) & (high >= 1 - 1e-9)) >= 0.85


def test_wilson_intervals_are_scipy_s():
    for successes, num in [(0, 7), (3, 7), (7, 7), (40, 400)]:
        low, high = wilson(np.array([successes / num]), np.array([float(num)]), 0.9)
        expected = scipy.stats.binomtest(successes, num).proportion_ci(0.9, method="wilson")
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert np.isnan(wilson(np.array([np.nan]), np.array([0.0]), 0.95)[0]).all()


# --- the whole --------------------------------------------------------------------------------------------------------


def test_simulated_raters_with_a_planted_mapping_recover_it(tmp_path):
    with Answers(make_study(tmp_path / "study")) as answers:
        simulate(answers, 16, IDENTITY, lapse=0.2, careless=0.25, seed=3)
        found = analyse(answers, simulated=True, num_resamples=500)
    assert found.simulated
    assert found.stages == tuple(STAGES)
    assert found.comparison.people == LEVELS
    assert found.comparison.rescoring == LEVELS
    assert found.comparison.matches == 4
    assert min(found.comparison.sure) > 0.99
    # An attentive rater names the planted level in 0.8 + 0.2/5 of trials.
    diagonal = found.shares.mean[range(4), range(4)]
    assert diagonal == pytest.approx([0.84] * 4, abs=0.1)
    assert (found.shares.low <= found.shares.mean).all()
    assert (found.shares.mean <= found.shares.high).all()
    assert found.centre.mean.argsort().tolist() == [0, 1, 2, 3]
    assert found.comparison.correlation > 0.7
    assert found.comparison.p == 1 / 24
    assert 0.5 < found.agreement.edits < 0.9
    assert found.agreement.interval[0] < found.agreement.edits < found.agreement.interval[1]
    careless = [rater for rater, kept in zip(found.ratings.raters, found.screening.kept, strict=True) if not kept]
    assert 1 <= len(careless) <= 8
    assert sum(found.answers) == found.screening.kept.sum() * 32


def test_other_mappings_are_recovered_too_and_disagree_with_the_rescoring(tmp_path):
    upside_down = dict(zip(STAGES, list(IDENTITY.values())[::-1], strict=True))
    with Answers(make_study(tmp_path / "study")) as answers:
        simulate(answers, 8, upside_down, lapse=0.1)
        found = analyse(answers, simulated=True, num_resamples=200)
    assert found.comparison.people == LEVELS[::-1]
    assert found.comparison.matches == 0
    assert found.comparison.correlation < 0
    assert found.comparison.p > 0.5


def test_people_who_see_only_the_boundary_s_own_level_are_told_apart(tmp_path):
    with Answers(make_study(tmp_path / "study")) as answers:
        study = answers.study
        for k in range(8):
            rater, _ = answers.join(block=k)
            answers.record_all(
                rater, {t.id: (t.what.source if t.stage else t.accepted[0], None) for t in study.block(k)}
            )
        found = analyse(answers, num_resamples=50)
    assert not found.simulated
    assert found.named.mean == pytest.approx(np.ones((4, 4)))
    assert found.shares.mean[:, :4] == pytest.approx(np.full((4, 4), 0.25))
    assert found.agreement.edits == 1
    # All levels are named equally often: none is in front, and none agrees with the re-scoring by coming first.
    assert found.comparison.people == (None,) * 4
    assert found.comparison.matches == 0
    assert headline(found) == "People name no single level most often at any stage."


def test_simulated_raters_and_people_are_never_mixed(tmp_path):
    with Answers(make_study(tmp_path / "study")) as answers:
        simulate(answers, 4, IDENTITY, lapse=0.0)
        with pytest.raises(ValueError, match="no answers of people can be counted: 0 have answered"):
            analyse(answers)
        rater, _ = answers.join("Ada", block=0)
        given = {t.id: ("nothing" if t.stage else t.accepted[0], 1.0) for t in answers.study.block(0)}
        answers.record_all(rater, given)
        people = analyse(answers, num_resamples=20)
        assert [r.nickname for r in people.ratings.raters] == ["Ada"]
        assert people.shares.mean[:, 4] == pytest.approx(np.ones(4))
        # All eight answers at a stage were the same: no resample differs, but eight answers are not certainty.
        assert people.shares.low[:, 4] == pytest.approx([0.676] * 4, abs=1e-3)
        assert people.shares.high[:, 0] == pytest.approx([0.324] * 4, abs=1e-3)
        assert people.comparison.people == (None,) * 4
        assert people.comparison.correlation is None
        assert people.agreement.edits is None
        assert not people.agreement.twice
        assert np.isnan(people.spreads.mean).all()
        machines = analyse(answers, simulated=True, num_resamples=20)
        assert {r.origin for r in machines.ratings.raters} == {"simulated"}


def test_more_raters_are_surer(tmp_path):
    with Answers(make_study(tmp_path / "study", DIAGONAL)) as answers:
        simulate(answers, 12, planted(DIAGONAL), lapse=0.3)
        found = analyse(answers, simulated=True, num_resamples=500, sizes=(3, 12, 48))
    widths = [needed.half_width for needed in found.needed]
    assert widths[0] > widths[1] > widths[2]
    # Without pictures drawn, the width falls with the square root of the number of raters.
    assert widths[0] / widths[2] == pytest.approx(4, rel=0.2)
    assert found.needed[0].same <= found.needed[2].same <= 1


def test_two_levels_that_are_nearly_as_frequent_come_out_the_same_in_half_of_pairs_of_studies():
    """At one stage two levels are named by half of the raters each: two studies agree in one pair of two."""
    ratings = synthetic(R=8, fill=lambda r, u, s: (0 if r % 2 else 1) if s == 0 else s)
    assert 0.4 < analysis._need(ratings, 33, 0.95, 2000, 0).same < 0.6


def test_how_many_raters_are_needed_is_not_told_from_too_few(tmp_path):
    with Answers(make_study(tmp_path / "study", DIAGONAL)) as answers:
        for _ in range(3):
            simulate(answers, 1, planted(DIAGONAL), lapse=0.0)
            assert analyse(answers, simulated=True, num_resamples=50).needed == ()
        simulate(answers, 1, planted(DIAGONAL), lapse=0.0)
        assert len(analyse(answers, simulated=True, num_resamples=50).needed) == 8


def test_raters_who_all_say_the_same_are_not_taken_for_certainty(tmp_path):
    with Answers(make_study(tmp_path / "study", DIAGONAL)) as answers:
        simulate(answers, 4, IDENTITY, lapse=0.0)
        found = analyse(answers, simulated=True, num_resamples=50, sizes=(4, 16))
    # Eight answers of every rater at a stage.
    for needed in found.needed:
        low, high = wilson(np.ones(1), np.array([8.0 * needed.raters]), 0.95)
        assert needed.half_width == pytest.approx(float(high[0] - low[0]) / 2)


def test_widths_allow_for_how_much_less_drawn_raters_vary_than_new_ones(tmp_path):
    """Of raters who each say one thing throughout, far more unlike each other than single answers are."""
    with Answers(make_study(tmp_path / "study", DIAGONAL)) as answers:
        for k in range(4):
            rater, _ = answers.join()
            mine = answers.study.block(rater.block)
            answers.record_all(rater, {t.id: (LEVELS[k % 2] if t.stage else t.accepted[0], None) for t in mine})
        found = analyse(answers, num_resamples=4000, sizes=(100,), seed=1)
    # Half of them each way: a new rater varies by sqrt(1/4 * 4/3), the mean of a hundred by a tenth of that.
    assert found.needed[0].half_width == pytest.approx(1.96 * 0.5 * (4 / 3) ** 0.5 / 10, rel=0.04)


def test_a_run_without_levels_and_bad_settings(tmp_path):
    empty = Expected((), tuple(STAGES), (), (), ())
    with Answers(make_study(tmp_path / "study", empty, sources=("random",), repeats=3)) as answers:
        assert planted(empty)["top"] == {"nothing": 1.0}
        simulate(answers, 4, IDENTITY)
        found = analyse(answers, simulated=True, num_resamples=50)
        assert found.named is None
        assert found.comparison.correlation is None
        assert found.comparison.rescoring == (None,) * 4
        for options in ({"confidence": 1.0}, {"num_resamples": 1}, {"sizes": (0,)}):
            with pytest.raises(ValueError, match="confidence must lie"):
                analyse(answers, simulated=True, **options)


def test_gathering_leaves_out_who_has_not_answered(tmp_path):
    with Answers(make_study(tmp_path / "study")) as answers:
        answers.join("idle")
        rater, _ = answers.join("busy")
        trial = answers.study.block(rater.block)[0]
        answers.record(rater, trial.id, "object")
        found = gather(answers.study.design, answers.raters(), answers.all(), {"server"})
    assert [r.nickname for r in found.raters] == ["busy"]
    assert found.edits[0, trial.unit, list(STAGES).index(trial.stage)] == 1
    assert (found.edits != MISSING).sum() == 1
