import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from higan import statistics
from higan.types import Concept, Placement, Rescoring


def record(changes, null, std=None, permuted=None):
    """A re-scoring of C concepts at P placements from its changes (C, P, K) and nulls (R, P, C) and (M, P, C)."""
    C, P, K = changes.shape
    return Rescoring(
        concepts=tuple(Concept(f"c{k}", "object") for k in range(C)),
        placements=tuple(Placement("all" if p == 0 else f"layer {p - 1}", (p,)) for p in range(P)),
        step=2.0,
        seeds=torch.arange(K),
        originals=torch.zeros(K, C),
        changes=changes.float(),
        effects=torch.zeros(C, P, C),
        null=null.float(),
        score_std=torch.ones(C) if std is None else std,
        permuted=None if permuted is None else permuted.float(),
    )


def test_statistics_by_hand():
    changes = torch.tensor([[[1.0, -3.0, 2.0, 0.0]]])
    null = torch.tensor([0.1, 0.5, 0.9]).reshape(3, 1, 1)
    rescoring = record(changes, null, std=torch.tensor([0.5]))
    assert float(statistics.delta(rescoring)) == 0.75
    assert float(statistics.signed(rescoring)) == 0.0
    assert float(statistics.standardise(rescoring, statistics.delta(rescoring))) == 1.5
    assert float(statistics.null_level(rescoring)) == pytest.approx(0.5)
    assert float(statistics.null_level(rescoring, 1.0)) == pytest.approx(0.9)
    # One of three random directions reaches 0.75.
    assert float(statistics.p_values(rescoring)) == 0.5


@pytest.mark.parametrize("truncated", [True, False])
def test_interval_equals_scipy_bootstrap(truncated):
    changes = torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(0)) + 0.3
    rescoring = record(changes, torch.zeros(1, 3, 2))
    found = statistics.interval(rescoring, num_resamples=20_000, truncated=truncated, method="percentile")
    values = changes.clamp(min=0) if truncated else changes
    for c in range(2):
        for p in range(3):
            oracle = stats.bootstrap(
                (values[c, p].numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
            ).confidence_interval
            width = float(oracle.high - oracle.low)
            assert float(found[c, p, 0]) == pytest.approx(oracle.low, abs=0.03 * width)
            assert float(found[c, p, 1]) == pytest.approx(oracle.high, abs=0.03 * width)


@pytest.mark.parametrize("truncated", [True, False])
def test_studentised_interval_by_its_definition(truncated):
    """Drawn again in NumPy: (m* - m) / s* with a twentieth of s² added to either variance, turned around."""
    changes = torch.randn(1, 2, 60, generator=torch.Generator().manual_seed(0)) - 0.5
    found = statistics.interval(record(changes, torch.zeros(1, 2, 1)), num_resamples=20_000, truncated=truncated)[0]
    draw = np.random.default_rng(0)
    for p in range(2):
        x = changes[0, p].numpy().clip(0 if truncated else -np.inf)
        resampled = x[draw.integers(60, size=(20_000, 60))]
        t = (resampled.mean(1) - x.mean()) / np.sqrt(resampled.var(1) + 0.05 * x.var())
        low, high = x.mean() - np.quantile(t, [0.975, 0.025]) * np.sqrt(1.05 * x.var())
        expected = [max(low, 0) if truncated else low, high]
        np.testing.assert_allclose(found[p], expected, atol=0.04 * (high - low))


@pytest.mark.parametrize("unit", [1e-30, 1e-20, 1e20])
def test_studentised_intervals_are_in_the_unit_of_the_scores(unit):
    values = torch.rand(3, 40, generator=torch.Generator().manual_seed(0))
    weights, ends = statistics.resample_weights(40, 500, 0), torch.tensor([0.025, 0.975])
    found = statistics.studentised(values * unit, weights, ends)
    torch.testing.assert_close(found / unit, statistics.studentised(values, weights, ends))


def test_studentised_intervals_of_cells_that_never_change_are_points():
    found = statistics.interval(record(torch.full((1, 2, 20), 0.25), torch.zeros(1, 2, 1)))
    torch.testing.assert_close(found, torch.full((1, 2, 2), 0.25))
    one = torch.zeros(1, 1, 20)
    one[..., 0] = 1.0
    low, high = statistics.interval(record(one, torch.zeros(1, 1, 1)))[0, 0].tolist()
    # A single sample of twenty changed: how much others would, nobody knows, but the end is finite.
    assert low == 0
    assert 0.1 < high < 0.6


def test_resample_weights_are_multinomial():
    weights = statistics.resample_weights(50, 4000, 0)
    assert weights.shape == (4000, 50)
    torch.testing.assert_close(weights.sum(1), torch.ones(4000))
    counts = weights * 50
    assert torch.equal(counts, counts.round())
    # Multinomial(50, 1/50): mean 1, variance 49/50.
    assert float(counts.mean()) == pytest.approx(1)
    assert float(counts.var()) == pytest.approx(0.98, abs=0.01)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-6, 1)))
def test_q_values_equal_scipy(p):
    found = statistics.q_values(torch.from_numpy(p.copy()))
    np.testing.assert_allclose(found.numpy(), stats.false_discovery_control(p, method="bh"), atol=1e-9)


@pytest.mark.parametrize("pooled", [False, True])
def test_p_values_are_uniform_where_nothing_is_there(pooled):
    """Δs drawn like its null: 5 % of p-values lie below 5 %. Exponential nulls, of another scale in each cell."""
    generator = torch.Generator().manual_seed(0)
    C, P, R = 100, 20, 39
    values = torch.empty(C, P, R + 1).exponential_(generator=generator) * torch.logspace(-3, 3, C)[:, None, None]
    rescoring = record(values[..., :1], values[..., 1:].permute(2, 1, 0))
    p = statistics.p_values(rescoring, pooled=pooled).flatten()
    # 2000 cells: one standard error of a share of 0.05 is 0.005.
    assert float((p <= 0.05).double().mean()) == pytest.approx(0.05, abs=0.015)
    assert float((p <= 0.5).double().mean()) == pytest.approx(0.5, abs=0.035)


def test_studentised_interval_of_given_resamples():
    """Its definition in float64 on the very same resamples, so that a slip of a few per cent shows."""
    changes = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(0)).exp()
    found = statistics.interval(record(changes, torch.zeros(1, 1, 1)), num_resamples=500, seed=3)[0, 0]
    x, weights = changes[0, 0].double().numpy(), statistics.resample_weights(40, 500, 3).double().numpy()
    mean = weights @ x
    t = (mean - x.mean()) / np.sqrt(weights @ x**2 - mean**2 + 0.05 * x.var())
    np.testing.assert_allclose(found, x.mean() - np.quantile(t, [0.975, 0.025]) * np.sqrt(1.05 * x.var()), rtol=1e-4)


def test_standard_errors_by_hand():
    changes = torch.tensor([[[0.0, 3.0, 6.0, torch.nan], [2.0, 2.0, 2.0, 2.0]]])
    # Three samples of variance 9: √(9 / 3).
    found = statistics.standard_errors(record(changes, torch.zeros(1, 2, 1)))
    torch.testing.assert_close(found, torch.tensor([[3**0.5, 0.0]]))


def test_pooled_p_values_by_their_definition():
    """Each direction against the others of its cell, Δs against all of them, both as a new draw: √(1 + 1 / n)."""
    draw = torch.Generator().manual_seed(0)
    null, changes = torch.rand(4, 3, 5, generator=draw), 1.5 * torch.rand(5, 3, 1, generator=draw)

    def new(value, others):
        return (value - others.mean()) / (others.std(ddof=1) * np.sqrt(1 + 1 / len(others)))

    cells = [null[:, p, c].double().numpy() for c in range(5) for p in range(3)]
    pool = np.array([new(cell[r], np.delete(cell, r)) for cell in cells for r in range(4)])
    observed = changes.flatten().double().numpy()
    wanted = [(1 + (pool >= new(x, cell)).sum()) / (len(pool) + 1) for x, cell in zip(observed, cells, strict=True)]
    np.testing.assert_allclose(statistics.p_values(record(changes, null), pooled=True).flatten(), wanted, rtol=1e-6)


def test_pooled_directions_that_gain_just_as_much_count_as_reached():
    """Of 0, 1, 2, 3 and 4 the third is the mean of the others, and Δs that of all: both are 0 when studentised."""
    null = torch.arange(5.0)[:, None, None]
    assert float(statistics.p_values(record(torch.full((1, 1, 2), 2.0), null), pooled=True)) == pytest.approx(4 / 6)


def test_pooling_finds_in_a_large_table_what_single_cells_cannot():
    generator = torch.Generator().manual_seed(0)
    changes = torch.rand(20, 20, 1, generator=generator)
    changes[0, 0] = 50
    rescoring = record(changes, torch.rand(39, 20, 20, generator=generator))
    assert float(statistics.q_values(statistics.p_values(rescoring))[0, 0]) > 0.05
    assert float(statistics.q_values(statistics.p_values(rescoring, pooled=True))[0, 0]) < 0.05
    with pytest.raises(ValueError, match="at least 3 random directions; got 2"):
        statistics.p_values(record(changes, torch.rand(2, 20, 20)), pooled=True)


def with_spikes(concepts, *, times):
    """Twelve ordinary concepts, one of which rises enormously, and some that hardly any direction makes appear."""
    draw = torch.Generator().manual_seed(0)
    ordinary = (torch.randn(2, 20, 5, 12, generator=draw) * 0.1 + 1).abs()
    changes = torch.randn(12, 5, 32, generator=draw) * 2.4
    changes[0] = 1000
    spikes = torch.zeros(2, 20, 5, concepts)
    spikes[:, :times] = torch.rand(2, times, 5, concepts, generator=draw) * 1e-3
    random, permuted = torch.cat([ordinary, spikes], -1)
    return record(torch.cat([changes, torch.zeros(concepts, 5, 32)]), random, permuted=permuted)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_scores_that_hardly_any_direction_moves_do_not_silence_the_others(times):
    """Studentised by nineteen zeros, a single gain is beyond anything; by exact tests no such cell is found."""
    alone, beside = (statistics.table(with_spikes(n, times=times), num_resamples=2) for n in (0, 8))
    assert bool(alone.verified[0].all())
    assert bool(beside.verified[0].all())
    torch.testing.assert_close(beside.p[:12], alone.p[:12])
    assert not bool(beside.verified[12:].any())


def test_what_is_zero_under_half_of_the_directions_is_pooled():
    """Directions that lower a score everywhere gain nothing, which is half of them where changes are alike."""
    draw = torch.Generator().manual_seed(0)
    null = torch.randn(20, 5, 12, generator=draw).clamp(min=0)
    changes = torch.randn(12, 5, 1, generator=draw)
    changes[0, 0] = 50
    p = statistics.p_values(record(changes, null), pooled=True)
    assert float(p[0, 0]) < 1 / 1000


def test_scores_that_never_vary_are_no_hypotheses():
    spikes = with_spikes(8, times=20)
    std = torch.cat([torch.ones(12), torch.zeros(8)])
    found = statistics.table(dataclasses.replace(spikes, score_std=std), num_resamples=2)
    alone = statistics.table(with_spikes(0, times=20), num_resamples=2)
    torch.testing.assert_close(found.q[:12], alone.q)
    assert bool((found.q[12:] == 1).all())
    assert not bool(found.verified[12:].any())


@pytest.mark.parametrize("unit", [1e-12, 1e12])
@pytest.mark.parametrize("pooled", [False, True])
def test_p_values_are_the_same_in_any_unit_of_the_scores(unit, pooled):
    draw = torch.Generator().manual_seed(0)
    changes, null = torch.rand(4, 3, 1, generator=draw), torch.rand(9, 3, 4, generator=draw)
    found = statistics.p_values(record(changes * unit, null * unit), pooled=pooled)
    torch.testing.assert_close(found, statistics.p_values(record(changes, null), pooled=pooled))


def test_of_three_directions_two_that_gain_the_same_are_no_scale():
    """Three quarters of three are two, and not all three: such a cell keeps its exact p-value and lends nothing."""
    draw = torch.Generator().manual_seed(0)
    changes, null = torch.rand(9, 4, 1, generator=draw), torch.rand(3, 4, 9, generator=draw)
    null[:2, :, 8] = 0.0
    alone, beside = record(changes[:8], null[..., :8]), record(changes, null)
    p = statistics.p_values(beside, pooled=True)
    torch.testing.assert_close(p[:8], statistics.p_values(alone, pooled=True))
    assert torch.equal(p[8], statistics.p_values(beside)[8])


def test_what_raises_some_samples_and_lowers_others_more_is_not_verified():
    """Half of them by 1, the other half by -2: Δs is 1/2, far beyond its null, and the mean change -1/2."""
    changes = torch.tensor([1.0, -2.0]).repeat(10).expand(2, 1, 20).clone()
    changes[1] = changes[1].abs()
    table = statistics.table(record(changes, 0.01 * torch.rand(40, 1, 2)), num_resamples=2)
    assert bool((table.q < 0.05).all())
    assert table.verified[:, 0].tolist() == [False, True]


def test_the_ranking_is_by_effects_in_standard_deviations():
    """Half the change of a score that varies a quarter as much is twice the effect."""
    changes = torch.tensor([1.0, 0.5])[:, None, None].expand(2, 1, 8)
    rows = statistics.rank(record(changes, torch.zeros(5, 1, 2), std=torch.tensor([4.0, 1.0])), num_resamples=2)
    assert [(row.concept.name, row.effect) for row in rows] == [("c1", 0.5), ("c0", 0.25)]


def test_placements_of_the_same_layers_are_pooled_once():
    """A stage of one layer says nothing new, and no more directions than there are can be beaten."""
    draw = torch.Generator().manual_seed(0)
    changes, null = torch.rand(10, 5, 1, generator=draw), torch.rand(15, 5, 10, generator=draw)
    changes[0, 0] = 50
    once = record(changes, null)
    again = [0, 1, 2, 3, 4, 1, 2, 3]
    twice = record(changes[:, again], null[:, again])
    twice = dataclasses.replace(twice, placements=tuple(once.placements[p] for p in again))
    p = statistics.p_values(once, pooled=True)
    torch.testing.assert_close(statistics.p_values(twice, pooled=True), p[:, again])
    torch.testing.assert_close(
        statistics.table(twice, num_resamples=2).q, statistics.table(once, num_resamples=2).q[:, again]
    )


def test_randomised_exact_tests_are_uniform_where_others_tie():
    """Half of all values are zero, as after truncation, and R + 1 = 21 is no multiple of 20."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(200, 20, 21, generator=draw).clamp(min=0)
    rescoring = record(values[..., :1], values[..., 1:].permute(2, 1, 0))
    exact = statistics.p_values(rescoring).flatten()
    randomised = statistics.p_values(rescoring, randomised=0).flatten()
    assert stats.kstest(randomised.numpy(), "uniform").pvalue > 0.01
    assert float((randomised <= 0.05).double().mean()) == pytest.approx(0.05, abs=0.01)
    # The exact test may err on the safe side only.
    assert float((exact <= 0.05).double().mean()) < 0.055
    assert bool((randomised <= exact + 1e-6).all())
    with pytest.raises(ValueError, match="only the exact test"):
        statistics.p_values(rescoring, pooled=True, randomised=0)


@pytest.mark.parametrize("pooled", [False, True])
def test_either_null_can_explain_an_effect_away(pooled):
    draw = torch.Generator().manual_seed(0)
    changes = torch.rand(4, 5, 30, generator=draw)
    changes[0] += 5
    low = torch.rand(100, 5, 4, generator=draw) * 0.1
    high = low + 6
    for null, permuted, found in ((low, low, True), (low, high, False), (high, low, False), (low, None, True)):
        table = statistics.table(record(changes, null, permuted=permuted), pooled=pooled)
        assert bool(table.verified[0].all()) == found
        expected = table.p_random if permuted is None else torch.maximum(table.p_random, table.p_permuted)
        assert torch.equal(table.p, expected)
        assert (table.null_permuted is None) == (permuted is None)
    against = record(changes, low, permuted=high)
    torch.testing.assert_close(statistics.null_level(against, against="permuted"), high.mean(0).T)
    with pytest.raises(ValueError, match="no permuted directions"):
        statistics.p_values(record(changes, low), against="permuted")


def test_q_values_are_over_the_whole_table_and_the_same_layers_count_once():
    draw = torch.Generator().manual_seed(0)
    changes = torch.rand(3, 4, 25, generator=draw)
    rescoring = record(changes, torch.rand(50, 4, 3, generator=draw))
    table = statistics.table(rescoring)
    oracle = stats.false_discovery_control(table.p.numpy().astype(float).ravel(), method="bh").reshape(3, 4)
    np.testing.assert_allclose(table.q, oracle, atol=1e-6)
    row = {verdict.concept.name: verdict for verdict in statistics.rank(rescoring, placement="layer 1")}
    assert [row[f"c{k}"].q for k in range(3)] == table.q[:, 2].tolist()
    twice = dataclasses.replace(
        rescoring,
        placements=(*rescoring.placements, Placement("bottom", (1,))),
        changes=torch.cat([changes, changes[:, 1:2]], 1),
        effects=torch.zeros(3, 5, 3),
        null=torch.cat([rescoring.null, rescoring.null[:, 1:2]], 1),
    )
    q = statistics.table(twice, pooled=False).q
    torch.testing.assert_close(q[:, :4], statistics.table(rescoring, pooled=False).q)
    assert torch.equal(q[:, 4], q[:, 1])


def test_the_table_says_what_its_parts_say():
    draw = torch.Generator().manual_seed(0)
    rescoring = record(
        torch.randn(3, 4, 25, generator=draw), torch.rand(50, 4, 3, generator=draw), torch.tensor([1.0, 2.0, 0.0])
    )
    table = statistics.table(rescoring)
    assert torch.equal(table.delta, statistics.delta(rescoring))
    assert torch.equal(table.signed, statistics.signed(rescoring))
    assert torch.equal(torch.stack([table.low, table.high], -1), statistics.interval(rescoring))
    signed = statistics.interval(rescoring, truncated=False)
    assert torch.equal(torch.stack([table.signed_low, table.signed_high], -1), signed)
    torch.testing.assert_close(table.effect, table.delta * torch.tensor([[1.0], [0.5], [0.0]]))
    assert not bool(table.verified[2].any())


def test_rows_of_the_ranking_are_cells_of_the_table():
    draw = torch.Generator().manual_seed(0)
    changes, null = torch.randn(3, 4, 25, generator=draw), torch.rand(20, 4, 3, generator=draw)
    permuted = torch.tensor([3.0, 0.2, 1.0]) * torch.rand(20, 4, 3, generator=draw)
    rescoring = record(changes, null, torch.tensor([1.0, 2.0, 4.0]), permuted=permuted)
    table = statistics.table(rescoring, num_resamples=50)
    rows = statistics.ranking(rescoring, table, "layer 1")
    assert [row.effect for row in rows] == table.effect[:, 2].sort(descending=True).values.tolist()
    for row in rows:
        assert row.placement == "layer 1"
        for name in {field.name for field in dataclasses.fields(row)} - {"concept", "placement"}:
            cell = getattr(table, name)[rescoring.concepts.index(row.concept), 2]
            assert getattr(row, name) == cell.item(), name
    # No two of them are the same here, so that none can stand for another.
    told = [part[:, 2] for part in (table.p, table.p_random, table.p_permuted, table.null, table.signed, table.delta)]
    assert not any(torch.equal(one, other) for k, one in enumerate(told) for other in told[:k])


def test_a_score_that_never_varies_is_not_verified():
    rescoring = record(torch.zeros(2, 1, 10), torch.zeros(20, 1, 2), std=torch.zeros(2))
    for row in statistics.rank(rescoring):
        assert (row.effect, row.p, row.q, row.verified) == (0, 1, 1, False)


def test_what_else_changes_by_hand():
    """Root mean square of 3 and 4, and a tenth of the error of a mean over 25 samples of variance 1."""
    found = statistics.beside(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), 25)
    torch.testing.assert_close(found, torch.tensor([12.5**0.5 + 0.02, 0.02]))
    assert statistics.beside(torch.zeros(0, 1), 100).tolist() == pytest.approx([0.01])


def test_bad_statistics_are_refused():
    rescoring = record(torch.zeros(1, 1, 10), torch.zeros(20, 1, 1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.interval(rescoring, confidence=1.0)
    with pytest.raises(ValueError, match="at least 2"):
        statistics.interval(rescoring, num_resamples=1)
