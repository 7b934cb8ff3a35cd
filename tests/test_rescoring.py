import dataclasses
import math

import numpy as np
import pytest
import torch

from higan import population as pop
from higan import rescoring as rs
from higan import statistics
from higan.boundaries import fit, random_directions
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Placement, Rescoring, StagedGenerator


def probe(generator, scorer):
    return fit(pop.measure(generator, scorer, range(3000), batch_size=500))


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "layerwise"])
def study(request):
    generator, scorer = ToyGenerator(shared_code=request.param, psi=0.7, psi_layers=3), ToyScorer()
    boundaries = probe(generator, scorer)
    return generator, scorer, boundaries, rs.rescore(generator, scorer, boundaries, num=300, num_random=40)


PSI = torch.tensor([0.7, 0.7, 0.7, 1.0, 1.0, 1.0])


def test_table_is_diagonal(study):
    """A step of 2 along direction l changes score l by 2 ψ_l at layer l, and nothing anywhere else."""
    *_, rescoring = study
    table = statistics.delta(rescoring)
    layers = table[:6, 1:7]
    torch.testing.assert_close(layers, torch.diag(2 * PSI), atol=0.01, rtol=0)
    torch.testing.assert_close(table[:6, 0], 2 * PSI, atol=0.01, rtol=0)
    torch.testing.assert_close(statistics.signed(rescoring)[:6, 1:7], torch.diag(2 * PSI), atol=0.01, rtol=0)
    # One standard deviation of a score is ψ: the effect is two standard deviations for each.
    effect = statistics.standardise(rescoring, table)[:6, 0]
    torch.testing.assert_close(effect, torch.full((6,), 2.0), atol=0.2, rtol=0)


def test_off_diagonal_is_not_distinguishable_from_the_null(study):
    *_, rescoring = study
    diagonal = torch.zeros(8, 6, dtype=torch.bool)
    diagonal[range(6), range(6)] = True
    for pooled in (False, True):
        p = statistics.p_values(rescoring, pooled=pooled)[:, 1:7]
        q = statistics.q_values(p)
        assert bool((p[diagonal] < 0.05).all())
        assert bool((q[~diagonal] > 0.05).all())
    assert bool((statistics.q_values(statistics.p_values(rescoring, pooled=True))[:, 1:7][diagonal] < 0.05).all())


def test_ranking_separates_planted_from_nothing(study):
    *_, rescoring = study
    rows = statistics.rank(rescoring)
    assert [row.verified for row in rows] == [True] * 6 + [False] * 2
    assert {row.concept.name for row in rows[6:]} == {"noise", "constant"}
    assert [row.effect for row in rows] == sorted((row.effect for row in rows), reverse=True)
    for row in rows:
        assert row.low <= row.delta <= row.high
        assert all(math.isfinite(value) for value in (row.effect, row.p, row.q, row.null))
    noise, constant = rows[6:] if rows[6].concept.name == "noise" else reversed(rows[6:])
    # Truncation lifts pure noise above zero; without it, nothing is left.
    assert noise.delta > 3 * abs(noise.signed)
    assert (constant.delta, constant.effect, constant.p, constant.q) == (0, 0, 1, 1)
    with pytest.raises(ValueError, match="unknown placement 'layer 6'; this re-scoring holds all, layer 0"):
        statistics.rank(rescoring, placement="layer 6")


def test_codes_are_fresh(study):
    *_, rescoring = study
    assert not set(rescoring.seeds.tolist()) & set(range(3000))


def test_saturating_toy_matches_the_integral():
    """With brightness as score, Eq. (1) is an integral over a normal variable, here by quadrature."""
    generator, scorer = ToyGenerator(), ToyScorer(saturating=True)
    boundaries = [
        Boundary(scorer.concepts[k], generator.directions[k].expand(6, -1), torch.zeros(6), 1.0) for k in range(6)
    ]
    rescoring = rs.rescore(
        generator, scorer, boundaries, num=2000, num_random=1, places=[Placement("all", (0, 1, 2, 3, 4, 5))]
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = float((np.tanh((nodes + 2) / 4) - np.tanh(nodes / 4)) @ weights / math.sqrt(2 * math.pi))
    ends = statistics.interval(rescoring, confidence=0.999)[:, 0]
    assert bool((ends[:, 0] <= truth).all() and (truth <= ends[:, 1]).all())
    assert float(statistics.delta(rescoring).sub(truth).abs().max()) < 0.01


def test_equal_steps_undo_the_truncation(study):
    generator, scorer, boundaries, _ = study
    rescoring = rs.rescore(generator, scorer, boundaries[:6], num=50, num_random=1, step_mode="equal_step")
    torch.testing.assert_close(statistics.delta(rescoring)[:, 1:7], 2 * torch.eye(6), atol=0.01, rtol=0)


def test_permuted_directions_are_a_null_of_their_own(study):
    """The planted directions, passed off as a null: each moves its own score at its own layer, and nothing else."""
    generator, scorer, boundaries, rescoring = study
    arguments = {"num": 30, "num_random": 2, "batch_size": 8}
    found = rs.rescore(generator, scorer, boundaries, permuted=boundaries[:3], **arguments)
    plain = rs.rescore(generator, scorer, boundaries, **arguments)
    assert plain.permuted is None
    torch.testing.assert_close(found.null, plain.null, atol=0, rtol=0)
    torch.testing.assert_close(found.changes, plain.changes, atol=0, rtol=0)
    own = found.permuted[range(3), :, range(3)]
    torch.testing.assert_close(own, statistics.delta(found)[:3], atol=1e-6, rtol=0)
    cost = rs.cost(8, rescoring.placements, num=30, num_random=2, num_permuted=3)
    calls = []
    rs.rescore(generator, scorer, boundaries, permuted=boundaries[:3], progress=lambda *c: calls.append(c), **arguments)
    assert calls[-1] == (cost, cost)
    wide = dataclasses.replace(boundaries[0], normal=torch.ones(15), bias=torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"got \(15,\)"):
        rs.rescore(generator, scorer, boundaries, permuted=[wide])


def test_the_steps_taken_are_told(study):
    generator, scorer, boundaries, rescoring = study
    torch.testing.assert_close(rescoring.steps, torch.full((len(rescoring.placements), 6), 2.0))
    found = rs.rescore(generator, scorer, boundaries[:1], num=4, num_random=1, step_mode="equal_step")
    assert found.step_mode == "equal_step"
    torch.testing.assert_close(found.steps, (2 / PSI).expand(len(found.placements), 6))


def test_effects_on_other_scores_are_kept(study):
    *_, rescoring = study
    own = rescoring.effects[torch.arange(8), :, torch.arange(8)]
    torch.testing.assert_close(own, statistics.signed(rescoring), atol=1e-5, rtol=0)
    # A planted edit at its own layer changes no other planted score.
    at_home = rescoring.effects[torch.arange(6), 1 + torch.arange(6), :6]
    torch.testing.assert_close(at_home, torch.diag(2 * PSI), atol=0.01, rtol=0)


def assert_same(a, b):
    for field in dataclasses.fields(Rescoring):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, atol=0, rtol=0)
        else:
            assert x == y


@pytest.mark.parametrize("batch_size", [1, 7, 300, 1000])
def test_batch_size_never_matters(study, batch_size):
    generator, scorer, boundaries, _ = study
    arguments = {"num": 20, "num_random": 3}
    one = rs.rescore(generator, scorer, boundaries[4:], batch_size=20, **arguments)
    assert_same(one, rs.rescore(generator, scorer, boundaries[4:], batch_size=batch_size, **arguments))


class Counting(ToyScorer):
    """Counts images; stops with an error when told to."""

    def __init__(self, most=math.inf):
        super().__init__()
        self.images = 0
        self.most = most

    def score(self, images):
        self.images += len(images)
        if self.images > self.most:
            raise KeyboardInterrupt
        return super().score(images)


def test_cost_is_what_is_drawn(study):
    """Placements of the same layers (here stages of one layer) are drawn once."""
    generator, _, boundaries, rescoring = study
    scorer, calls = Counting(), []
    rs.rescore(generator, scorer, boundaries, num=10, num_random=3, batch_size=4, progress=lambda *c: calls.append(c))
    cost = rs.cost(8, rescoring.placements, num=10, num_random=3)
    assert scorer.images == cost == 10 * (1 + 11 * 9)
    assert calls[-1] == (cost, cost)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


class Memory:
    """A checkpoint that keeps units in a dictionary."""

    def __init__(self):
        self.units = {}

    def load(self, key, unit):
        return self.units.get((key, unit))

    def save(self, key, unit, tensors):
        self.units[key, unit] = tensors


def test_interrupted_rescoring_goes_on(study):
    generator, scorer, boundaries, _ = study
    arguments = {"num": 20, "num_random": 2, "batch_size": 4}
    checkpoint, calls = Memory(), []
    with pytest.raises(KeyboardInterrupt):
        rs.rescore(generator, Counting(most=800), boundaries[:3], checkpoint=checkpoint, **arguments)
    assert 0 < len(checkpoint.units) < 5
    rest = Counting()
    resumed = rs.rescore(
        generator, rest, boundaries[:3], checkpoint=checkpoint, progress=lambda *c: calls.append(c), **arguments
    )
    total = rs.cost(3, resumed.placements, num=20, num_random=2)
    assert rest.images < total
    assert calls[-1] == (total, total)
    assert_same(resumed, rs.rescore(generator, scorer, boundaries[:3], **arguments))


def test_units_of_another_rescoring_are_not_used(study):
    generator, scorer, boundaries, _ = study
    checkpoint = Memory()
    arguments = {"num": 4, "num_random": 1, "checkpoint": checkpoint}
    rs.rescore(generator, scorer, boundaries[:1], **arguments)
    for change in (
        {"step": 1.0}, {"seed": 1}, {"num": 5}, {"num_random": 2}, {"step_mode": "equal_step"}, {"images_at_once": 9},
    ):  # fmt: skip
        before = len(checkpoint.units)
        rs.rescore(generator, scorer, boundaries[:1], **{**arguments, **change})
        assert len(checkpoint.units) == before + 1, change
    rs.rescore(generator, scorer, boundaries[1:2], **arguments)
    assert len({key for key, _ in checkpoint.units}) == 8


class Staged(RoomsGenerator):
    """The default generator with random weights; notes where it was asked to stop."""

    def __init__(self):
        network = RoomsNetwork(RoomsConfig(resolution=16, latent_dim=8, code_dim=12, channels=(8, 8, 8)), seed=0)
        super().__init__(network, torch.zeros(12))
        self.prepared = []
        self.resumed = []

    def prepare(self, codes, layer):
        self.prepared.append(layer)
        return super().prepare(codes, layer)

    def resume(self, state, codes, layer):
        self.resumed.append((len(codes), layer))
        return super().resume(state, codes, layer)


class Unstaged:
    """The same without ``prepare`` and ``resume``."""

    def __init__(self):
        self.inner = Staged()
        for name in (*PROPERTIES, "latents", "map", "synthesize"):
            setattr(self, name, getattr(self.inner, name))


class Unrepeatable(Unstaged):
    """The same with them, but without ``repeat``."""

    def prepare(self, codes, layer):
        return self.inner.prepare(codes, layer)

    def resume(self, state, codes, layer):
        return self.inner.resume(state, codes, layer)


PROPERTIES = (
    "name", "num_layers", "code_dim", "latent_dim", "resolution", "device", "shared_code", "truncation"
)  # fmt: skip


class Brightness:
    name = "brightness"
    concepts = (Concept("red", "colour"), Concept("green", "colour"), Concept("blue", "colour"))

    def score(self, images):
        return images.float().mean((2, 3))


def test_staged_synthesis_changes_nothing():
    plain, staged = Unstaged(), Staged()
    assert isinstance(staged, StagedGenerator)
    assert not isinstance(plain, StagedGenerator)
    directions = random_directions(3, 12, seed=1)
    boundaries = [Boundary(c, directions[k], torch.tensor(0.0), 0.5) for k, c in enumerate(Brightness.concepts)]
    arguments = {"num": 6, "num_random": 2, "batch_size": 3}
    expected = rs.rescore(plain, Brightness(), boundaries, **arguments)
    found = rs.rescore(staged, Brightness(), boundaries, **arguments)
    assert float(statistics.delta(expected).min()) > 0
    # Brightness in 0 … 255: a rounding step of one pixel in 256 moves the mean by 0.004.
    torch.testing.assert_close(found.changes, expected.changes, atol=0.02, rtol=0)
    # Once per unit and first edited layer beyond 0: stages share it with single layers.
    assert sorted(layer for layer in staged.prepared if layer > 0) == sorted(2 * [1, 2, 3, 4, 5])


class Watched(ToyGenerator):
    """Notes how many images it is asked for."""

    def __init__(self):
        super().__init__(shared_code=True, psi=0.7, psi_layers=3)
        self.calls = []

    def synthesize(self, codes):
        self.calls.append(len(codes))
        return super().synthesize(codes)


@pytest.mark.parametrize("study", [True], indirect=True, ids=["shared"])
@pytest.mark.parametrize(("images_at_once", "largest"), [(1, 8), (8, 8), (30, 28), (None, 32), (1000, 176)])
def test_several_edits_in_one_call_change_nothing(study, images_at_once, largest):
    generator, scorer, boundaries, _ = study
    arguments = {"num": 20, "num_random": 3, "batch_size": 8}
    one = rs.rescore(generator, scorer, boundaries, images_at_once=1, **arguments)
    watched, calls = Watched(), []
    found = rs.rescore(
        watched, scorer, boundaries, images_at_once=images_at_once, progress=lambda *c: calls.append(c), **arguments
    )
    assert_same(one, found)
    # Units of 8, 8 and 4 samples; 11 directions at two sets of layers that begin with the first are the longest queue.
    assert max(watched.calls) == largest
    assert sum(watched.calls) == rs.cost(8, found.placements, num=20, num_random=3) == calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_what_the_null_gains_is_told_sample_by_sample(study):
    """With all layers moved, of what is wanted; pieces put together are the whole."""
    generator, scorer, boundaries, rescoring = study
    plan = rs.plan_of(
        generator, scorer, boundaries, num=2, step=2.0, seed=0, places=None, num_random=40, permuted=(),
        step_mode="official", batch_size=2,
    )  # fmt: skip
    wanted = torch.ones(len(plan.directions), len(plan.places), dtype=torch.bool)
    made = rs.together([plan.run(seeds, wanted=wanted) for seeds in rescoring.seeds.split(100)])
    assert made["null_rises"].shape == (40, 8, 300)
    torch.testing.assert_close(made["null_rises"].mean(-1), rescoring.null[:, 0])
    wanted[8:, 0] = False
    assert plan.run(rescoring.seeds[:2], wanted=wanted)["null_rises"].shape == (40, 8, 0)
    assert "null_rises" not in plan.run(rescoring.seeds[:2])
    torch.testing.assert_close(made["null_changes"].mean(-1), rescoring.null.mean(0).T)
    # The mean is over random directions, not over those that were fitted to permuted scores.
    plan = dataclasses.replace(plan, directions=[*plan.directions[:13], *boundaries[:2]], num_random=5)
    made = plan.run(rescoring.seeds[:6], wanted=torch.ones(15, len(plan.places), dtype=torch.bool))
    torch.testing.assert_close(made["null_changes"].double().mean(-1), made["null"][:5].mean(0).T / 6)


def test_where_a_boundary_tells_no_deviation_it_is_that_of_the_samples(study):
    generator, scorer, boundaries, _ = study
    untold = [dataclasses.replace(boundaries[0], score_std=math.nan), boundaries[1]]
    found = rs.rescore(generator, scorer, untold, num=4, num_random=1, places=[Placement("layer 0", (0,))])
    expected = [np.std(found.originals[:, 0].numpy(), ddof=1), boundaries[1].score_std]
    assert found.score_std.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_null_is_what_meaningless_directions_gain(study):
    """Mean over samples of max(change, 0) along each, drawn again by hand at all layers and at single ones."""
    generator, scorer, boundaries, rescoring = study
    plan = rs.plan_of(
        generator, scorer, boundaries, num=2, step=2.0, seed=0, places=None, num_random=40, permuted=(),
        step_mode="official", batch_size=2,
    )  # fmt: skip
    codes = pop.sample(generator, rescoring.seeds)
    before = scorer.score(pop.render(generator, codes))
    for p in range(0, len(plan.places), 3):
        layers = list(plan.places[p].layers)
        for r in (0, 7):
            moved = codes.clone()
            moved[:, layers] += 2.0 * plan.directions[len(boundaries) + r].normal.expand(codes.shape[1:])[layers]
            change = scorer.score(pop.render(generator, moved)) - before
            assert bool((change < 0).any())
            torch.testing.assert_close(rescoring.null[r, p], change.clamp(min=0).mean(0), atol=1e-4, rtol=1e-4)


def test_meaningless_directions_are_drawn_anew_for_every_seed(study):
    *_, boundaries, _ = study
    first, again, other = (
        torch.stack([d.normal for d in rs.meaningless_directions(boundaries[0], 5, seed)]).flatten(0, -2)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert float((first @ other.T).abs().max()) < 0.999


def test_units_of_other_concepts_are_not_taken(study):
    """The same directions under each other's names move the same pictures, but keep other scores."""
    generator, scorer, boundaries, _ = study
    one, two = boundaries[:2]
    crossed = [dataclasses.replace(b, concept=c.concept) for b, c in ((one, two), (two, one))]
    keys = {
        rs.key_of(
            rs.plan_of(
                generator, scorer, some, num=2, step=2.0, seed=0, places=None, num_random=3, permuted=(),
                step_mode="official", batch_size=2,
            ), 0, 2, 2,
        )
        for some in ([one, two], crossed)
    }  # fmt: skip
    assert len(keys) == 2


def test_units_of_another_truncation_are_not_taken(study):
    generator, scorer, boundaries, _ = study
    keys = {
        rs.key_of(
            rs.plan_of(
                ToyGenerator(shared_code=generator.shared_code, psi=psi), scorer, boundaries, num=2, step=2.0, seed=0,
                places=None, num_random=3, permuted=(), step_mode="official", batch_size=2,
            ), 0, 2, 2,
        )
        for psi in (1.0, 0.5)
    }  # fmt: skip
    assert len(keys) == 2


def test_several_edits_share_one_preparation():
    directions = random_directions(3, 12, seed=1)
    boundaries = [Boundary(c, directions[k], torch.tensor(0.0), 0.5) for k, c in enumerate(Brightness.concepts)]
    arguments = {"num": 5, "num_random": 4, "batch_size": 3}
    one, several = Staged(), Staged()
    expected = rs.rescore(one, Brightness(), boundaries, images_at_once=1, **arguments)
    found = rs.rescore(several, Brightness(), boundaries, images_at_once=13, **arguments)
    torch.testing.assert_close(found.changes, expected.changes, atol=0.02, rtol=0)
    torch.testing.assert_close(found.null, expected.null, atol=0.02, rtol=0)
    # Layer 0 is prepared with every drawing of whole images.
    assert [[layer for layer in g.prepared if layer > 0] for g in (one, several)] == [2 * [1, 2, 3, 4, 5]] * 2
    # Four edits of three samples, or six of two; never where a generator cannot repeat what it prepared.
    single = Unrepeatable()
    assert isinstance(single, StagedGenerator)
    torch.testing.assert_close(
        rs.rescore(single, Brightness(), boundaries, images_at_once=13, **arguments).changes,
        expected.changes, atol=0.02, rtol=0,
    )  # fmt: skip
    largest = [max(count for count, layer in g.resumed if layer > 0) for g in (one, several, single.inner)]
    assert largest == [3, 12, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num": 1}, "num must be at least 2; got 1"),
        ({"num": -1}, "num must be at least 2"),
        ({"num_random": 0}, "num_random must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"images_at_once": 0}, "images_at_once must be at least 1"),
        ({"places": []}, "at least one set of layers"),
        ({"places": [Placement("none", ())]}, "at least one layer"),
        ({"places": [Placement("far", (6,))]}, "layers go from 0 to 5; got 6"),
        ({"step": math.inf}, "finite"),
        ({"boundaries": []}, "at least one boundary"),
    ],
)
def test_bad_arguments_are_refused_before_work_starts(study, change, words):
    generator, _, boundaries, _ = study
    scorer = Counting()
    arguments = {"boundaries": boundaries, "num": 4, **change}
    with pytest.raises(ValueError, match=words):
        rs.rescore(generator, scorer, **arguments)
    assert scorer.images == 0


def test_bad_boundaries_are_refused(study):
    generator, scorer, boundaries, _ = study
    with pytest.raises(ValueError, match="several for planted 0"):
        rs.rescore(generator, scorer, [boundaries[0], boundaries[0]])
    stranger = dataclasses.replace(boundaries[0], concept=Concept("sofa", "object"))
    with pytest.raises(ValueError, match="no concept sofa; it knows planted 0, planted 1"):
        rs.rescore(generator, scorer, [stranger])
    wide = dataclasses.replace(boundaries[0], normal=torch.ones(15), bias=torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"got \(15,\)"):
        rs.rescore(generator, scorer, [wide])


class Ragged(ToyGenerator):
    """A toy whose first layer is narrower than the code and whose padding must stay zero."""

    layer_widths = (12, 16, 16)

    def map(self, z):
        codes = super().map(z)
        codes[:, 0, 12:] = 0
        return codes

    def synthesize(self, codes):
        if bool(codes[:, 0, 12:].any()):
            raise ValueError("padding was touched")
        return super().synthesize(codes)


@pytest.mark.parametrize("mode", ["extreme", "all"])
def test_directions_that_mean_nothing_leave_padding_alone(mode):
    """Neither random ones nor that of the score that never varies."""
    generator, scorer = Ragged(3, 16), ToyScorer(3)
    boundaries = fit(pop.measure(generator, scorer, pop.sample_seeds(300)), mode=mode)
    assert not any(bool(boundary.normal[0, 12:].any()) for boundary in boundaries)
    for boundary in boundaries:
        torch.testing.assert_close(boundary.normal.norm(dim=1), torch.ones(3))
    result = rs.rescore(generator, scorer, boundaries, num=20, num_random=4)
    assert bool(torch.isfinite(result.null).all())
