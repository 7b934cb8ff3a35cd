import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import higan.boundaries
from higan import population as pop
from higan.boundaries import _extreme_labels, code_spread, fit, project_out, random_directions, told_apart
from higan.generators.toy import ToyGenerator
from higan.linear import _Known, logistic, squared_hinge
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Population

COSINE = torch.nn.functional.cosine_similarity


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "layerwise"])
def toy(request):
    generator = ToyGenerator(shared_code=request.param)
    return generator, pop.measure(generator, ToyScorer(), range(5000), batch_size=500)


def of_layer(boundary, layer):
    return boundary.normal if boundary.normal.ndim == 1 else boundary.normal[layer]


@pytest.mark.parametrize("how", [{"mode": "extreme"}, {"mode": "all"}, {"loss": "logistic"}])
def test_planted_directions_are_recovered(toy, how):
    generator, population = toy
    for layer, boundary in enumerate(fit(population, **how)[:6]):
        assert float(of_layer(boundary, layer) @ generator.directions[layer]) > 0.99
        assert boundary.holdout_accuracy > 0.98
        assert float(boundary.normal.norm(dim=-1).sub(1).abs().max()) < 1e-5


def test_every_sample_finds_directions_better(toy):
    """The gain of mode ``all`` on ground truth: less than half the squared sine between found and planted direction."""
    generator, population = toy
    noisy = dataclasses.replace(
        population, scores=population.scores + torch.randn(population.scores.shape, generator=torch.manual_seed(0))
    )
    names = [concept.name for concept in population.concepts[:6]]
    missed = {
        mode: sum(
            1 - float(of_layer(boundary, layer) @ generator.directions[layer]) ** 2
            for layer, boundary in enumerate(fit(noisy, names, mode=mode, num_extreme=2000))
        )
        for mode in ("extreme", "all")
    }
    assert missed["all"] < 0.5 * missed["extreme"]


@pytest.mark.parametrize("mode", ["extreme", "all"])
def test_what_nothing_controls_is_at_chance(toy, mode):
    _, population = toy
    noise, constant = fit(population, ["noise", "constant"], mode=mode)
    # 1200 held-out samples: one standard error is 0.015; layer-wise accuracy is the best of six.
    assert abs(noise.holdout_accuracy - 0.5) < 0.06
    assert abs(constant.holdout_accuracy - 0.5) < 0.06
    assert bool(torch.isfinite(constant.normal).all())


def test_boundaries_are_shaped_like_the_codes(toy):
    generator, population = toy
    boundary = fit(population, ["planted 2"])[0]
    assert boundary.normal.shape == ((16,) if generator.shared_code else (6, 16))
    assert boundary.bias.shape == boundary.normal.shape[:-1]
    assert boundary.concept == population.concepts[2]
    assert boundary.num_train == 2800


def test_bias_puts_the_boundary_between_the_classes():
    """Scores are the projection plus 3, and the top and bottom fifth are balanced: the boundary passes at the median."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(4000, 1, 8, generator=generator) + 3
    population = Population(torch.arange(4000), codes, codes[:, 0, :1].clone(), (Concept("first", "object"),), 4)
    for mode in ("extreme", "all"):
        boundary = fit(population, mode=mode, num_extreme=0.2)[0]
        assert abs(float(boundary.bias) + 3) < 0.3, mode


def linear_svc(x, y, C, tolerance=1e-8):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        oracle = LinearSVC(dual=False, C=C, tol=tolerance, max_iter=10_000).fit(x.double().numpy(), y.numpy())
    if caught:  # it gave up; what it returns is not the answer
        return None
    return torch.from_numpy(np.append(oracle.coef_[0], oracle.intercept_[0]))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 24), st.integers(10, 120), st.sampled_from([0.1, 1.0, 10.0]), st.floats(0, 3), st.integers(0, 2**31)
)
def test_solver_equals_linear_svc(dim, half, C, overlap, seed):
    """Correlated codes with an offset, classes from separable to useless, several problems at once."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator)
    y = torch.cat([torch.ones(half), -torch.ones(half)]).expand(3, -1)
    shift = torch.randn(3, 1, dim, generator=generator)
    x = torch.randn(3, 2 * half, dim, generator=generator) * (0.1 + overlap) + y[..., None] * shift
    x = x @ mix + 1
    found = squared_hinge(x, y, C=C)
    for b in range(3):
        expected = linear_svc(x[b], y[b], C)
        if expected is None:
            continue
        assert float(COSINE(found[b], expected, dim=0)) >= 0.9999
        assert float(found[b].norm() / expected.norm()) == pytest.approx(1, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 24), st.integers(10, 120), st.sampled_from([0.1, 1.0, 10.0]), st.floats(0, 3), st.integers(0, 2**31)
)
def test_logistic_equals_scikit_learn(dim, half, C, overlap, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.ones(half), -torch.ones(half)])
    shift = torch.randn(dim, generator=generator)
    x = torch.randn(2 * half, dim, generator=generator) * (0.1 + overlap) + y[:, None] * shift
    found = logistic(x[None], y[None], C=C)[0]
    # liblinear stops early; its own problem without a free intercept, solved to the end, is the oracle.
    wide = torch.cat([x, torch.ones(2 * half, 1)], 1).double().numpy()
    oracle = LogisticRegression(C=C, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(wide, y.numpy())
    expected = torch.from_numpy(oracle.coef_[0])
    assert float(COSINE(found, expected, dim=0)) >= 0.9999
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_solver_at_the_official_shape(noise):
    """2800 samples of width 512, from separable (few of them count) to heavily overlapping (most do)."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(512, 512, generator=generator)).Q * torch.logspace(0, -1.5, 512)
    codes = torch.randn(2800, 512, generator=generator) @ basis
    score = codes @ torch.randn(512, generator=generator)
    y = (score + noise * score.std() * torch.randn(2800, generator=generator)).sign()
    found = squared_hinge(codes[None], y[None])[0]
    expected = linear_svc(codes, y, 1.0, tolerance=1e-5)
    assert float(COSINE(found, expected, dim=0)) >= 0.9999


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_separable_white_codes_at_the_official_shape(noise):
    """The slowest kind: about as many samples count as there are dimensions, and which of them is found late."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randn(5000, 512, generator=generator)
    score = codes @ torch.nn.functional.normalize(torch.randn(512, generator=generator), dim=0)
    order = (score + noise * torch.randn(5000, generator=generator)).argsort()
    codes, y = codes[torch.cat([order[-1400:], order[:1400]])], torch.tensor([1.0, -1.0]).repeat_interleave(1400)
    found, other = squared_hinge(codes.expand(2, -1, -1), torch.stack([y, y]))
    expected = linear_svc(codes, y, 1.0, tolerance=1e-5)
    assert float((y.double() * (codes.double() @ expected[:-1] + expected[-1])).min()) > 0
    assert float(COSINE(found, expected, dim=0)) >= 0.9999
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(found, other, atol=1e-6, rtol=0)


def test_a_hessian_beyond_single_precision():
    """Codes so large, and a penalty so small, that a factor in single precision does not exist."""
    generator = torch.Generator().manual_seed(0)
    codes = 1e3 * torch.randn(60, 80, generator=generator) @ torch.diag(torch.logspace(0, -3, 80))
    codes = torch.cat([codes, codes + 1e-3])
    y = torch.randn(60, generator=generator).sign().repeat(2)
    found = squared_hinge(codes[None], y[None], C=100.0)[0]
    expected = linear_svc(codes, y, 100.0)
    short = [(1 - y.double() * (codes.double() @ w[:-1] + w[-1])).clamp(min=0) for w in (found, expected)]
    objectives = [
        0.5 * w.square().sum() + 100 * s.square().sum() for w, s in zip((found, expected), short, strict=True)
    ]
    assert float(objectives[0]) <= 1.001 * float(objectives[1])


@pytest.mark.parametrize("loss", ["squared_hinge", "logistic"])
@pytest.mark.parametrize(("samples", "width", "C"), [(40, 100, 1e5), (200, 500, 1e4), (300, 100, 1e4), (50, 200, 1e9)])
def test_large_penalties_in_single_precision(samples, width, C, loss):
    """Where a direction is the small difference of large vectors, rounding in single precision would leave none of it.

    The oracle is scipy's, of the same problem in double precision.
    """
    draw = np.random.default_rng(0)
    x = draw.normal(size=(samples, width)).astype(np.float32).astype(float)
    y = np.sign(x @ draw.normal(size=width))
    wide = np.append(x, np.ones((samples, 1)), 1)

    def objective(w):
        margin = y * (wide @ w)
        if loss == "squared_hinge":
            short = np.maximum(0, 1 - margin)
            value, slope = (short**2).sum(), 2 * short
        else:
            value, slope = np.logaddexp(0, -margin).sum(), expit(-margin)
        return w @ w / 2 + C * value, w - C * wide.T @ (y * slope)

    start = np.linalg.lstsq(wide, y, rcond=None)[0]
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-7}
    expected = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).fun
    solve = {"squared_hinge": squared_hinge, "logistic": logistic}[loss]
    found = solve(torch.from_numpy(x).float()[None], torch.from_numpy(y).float()[None], C=C)[0]
    assert objective(found.double().numpy())[0] <= 1.001 * expected


@pytest.mark.parametrize("loss", [squared_hinge, logistic])
def test_a_minimum_is_found_or_the_lack_of_one_is_said(loss):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 200, 500, generator=generator) * torch.logspace(-3, 3, 500)
    y = torch.randn(3, 200, generator=generator).sign()
    constant = torch.cat([x, torch.ones_like(x[..., :1])], -1).double()
    slope = {squared_hinge: lambda m: 2 * (1 - m).clamp(min=0), logistic: lambda m: torch.sigmoid(-m)}[loss]
    for C in (1.0, 1e3):
        w = loss(x, y, C=C)
        margin = y.double() * (constant @ w[..., None])[..., 0]
        pull, first = (C * (constant.mT @ (y * slope(m))[..., None])[..., 0] for m in (margin, 0 * margin))
        assert ((w - pull).norm(dim=1) < 1e-6 * first.norm(dim=1)).all()
    with pytest.raises(ValueError, match=r"no minimum was found for \d of 3 boundaries in 100 steps with C = 1e\+10"):
        loss(x, y, C=1e10)


def test_products_that_are_kept_are_right_and_take_no_more_memory_than_the_samples():
    generator = torch.Generator().manual_seed(0)
    problems, samples, width = 3, 90, 10
    x = torch.randn(problems, samples, width, generator=generator)
    known, forgotten = _Known.nothing(x), 0
    for _ in range(40):
        margin = torch.rand(problems, samples, generator=generator)
        wanted = margin <= margin.kthvalue(width, dim=1, keepdim=True).values
        before = known.which.shape[1]
        known.grow(x, wanted, margin)
        forgotten += known.which.shape[1] < before
        which = wanted.nonzero()[:, 1].reshape(problems, -1)
        rows = x.gather(1, which[..., None].expand(-1, -1, width))
        torch.testing.assert_close(known.among(which), rows @ rows.mT)
        assert known.products[0].numel() <= x[0].numel()
        assert all(len(set(row)) == len(row) for row in known.which.tolist())
    assert forgotten > 3


def test_solver_on_wide_correlated_codes():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(96, 96, generator=generator)).Q * torch.logspace(0, -2, 96)
    codes = torch.randn(1000, 96, generator=generator) @ basis * 10
    y = (codes @ torch.randn(96, generator=generator) + torch.randn(1000, generator=generator)).sign()
    found = squared_hinge(codes[None], y[None])[0]
    assert float(COSINE(found[:-1], linear_svc(codes, y, 1.0)[:-1], dim=0)) >= 0.9999


@pytest.mark.parametrize(("width", "num_extreme", "asked"), [(600, 200, 0), (600, 500, 1), (100, 500, 0)])
def test_second_moments_are_found_only_where_the_solver_asks_for_them(monkeypatch, width, num_extreme, asked):
    """Wide codes spend half their time on the eigenvalues otherwise; the same boundaries come out."""
    random = torch.manual_seed(0)
    codes, scores = torch.randn(1200, 1, width, generator=random), torch.randn(1200, 1, generator=random)
    population = Population(torch.arange(1200), codes, scores, (Concept("any", "object"),), 4)
    found = []
    eigh = torch.linalg.eigh
    with monkeypatch.context() as counted:
        counted.setattr(torch.linalg, "eigh", lambda x: found.append(x.shape) or eigh(x))
        (boundary,) = fit(population, num_extreme=num_extreme)
    assert found == asked * [(width + 1, width + 1)]
    monkeypatch.setattr(higan.boundaries, "needs_metric", lambda *_: True)
    (whole,) = fit(population, num_extreme=num_extreme)
    assert torch.equal(boundary.normal, whole.normal)
    assert torch.equal(boundary.bias, whole.bias)


def test_chunks_and_company_do_not_matter(toy):
    _, population = toy
    together = fit(population, num_extreme=300)
    alone = [fit(population, [concept.name], num_extreme=300)[0] for concept in population.concepts]
    chunked = fit(population, num_extreme=300, memory=1)
    for a, b, c in zip(together, alone, chunked, strict=True):
        torch.testing.assert_close(a.normal, b.normal, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.normal, c.normal, atol=1e-5, rtol=0)
        assert a.holdout_accuracy == b.holdout_accuracy == c.holdout_accuracy


def test_blocks_of_codes_do_not_matter(toy, monkeypatch):
    """Of a few dozen samples instead of all at once; each block has scores and labels of its own."""
    _, population = toy
    whole = fit(population, mode="all")
    monkeypatch.setattr(higan.boundaries, "_BLOCK", 2**14)
    for one, other in zip(fit(population, mode="all"), whole, strict=True):
        torch.testing.assert_close(one.normal, other.normal, atol=1e-4, rtol=0)
        assert one.holdout_accuracy == pytest.approx(other.holdout_accuracy, abs=0.002)


def test_seed_chooses_what_is_held_out(toy):
    _, population = toy
    first, again, other = (fit(population, ["planted 0"], num_extreme=100, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first.normal, again.normal)
    assert not torch.equal(first.normal, other.normal)


@pytest.mark.parametrize(("num_extreme", "expected"), [(2000, 2000), (9999, 2500), (0.1, 500), (1, 2500), (30, 30)])
def test_number_of_extremes(num_extreme, expected):
    """The official rule: a value in (0, 1] is a share of N; never more than half of N."""
    population = pop.measure(ToyGenerator(shared_code=True), ToyScorer(), range(5000), batch_size=500)
    boundary = fit(population, ["planted 0"], num_extreme=num_extreme)[0]
    assert boundary.num_train == 2 * int(0.7 * expected)


@pytest.mark.parametrize("mode", ["extreme", "all"])
def test_boundaries_tell_the_spread_of_their_scores(mode):
    population = pop.measure(ToyGenerator(shared_code=True), ToyScorer(), range(400), batch_size=400)
    for memory in (None, 1):
        found = fit(population, mode=mode, num_extreme=100, memory=memory)
        expected = population.scores.double().std(0).tolist()
        assert [boundary.score_std for boundary in found] == pytest.approx(expected, rel=1e-6)


def test_an_accuracy_of_no_sample_is_none():
    population = pop.measure(ToyGenerator(shared_code=True), ToyScorer(), range(400), batch_size=400)
    with pytest.raises(ValueError, match=r"none of the 4 highest and lowest samples of .* is held out"):
        fit(population, mode="all", num_extreme=2, train_fraction=0.99)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"concepts": ["planted 9"]}, "unknown concept 'planted 9'"),
        ({"concepts": []}, "at least one concept"),
        ({"num_extreme": 0}, "num_extreme must be above 0"),
        ({"num_extreme": -5}, "num_extreme must be above 0"),
        ({"num_extreme": 1e-4}, "fewer than 2"),
        ({"train_fraction": 1.0}, "train_fraction"),
        ({"num_extreme": math.inf}, "num_extreme must be above 0 and finite"),
        ({"C": 0.0}, "above 0"),
        ({"C": math.inf}, "above 0 and finite"),
        ({"memory": 0}, "memory must be above 0"),
    ],
)
def test_bad_arguments_are_refused(toy, arguments, words):
    with pytest.raises(ValueError, match=words):
        fit(toy[1], **arguments)


def test_bad_populations_are_refused(toy):
    _, population = toy
    few = Population(
        population.seeds[:3], population.codes[:3], population.scores[:3], population.concepts, population.num_layers
    )
    with pytest.raises(ValueError, match="at least 4 samples; got 3"):
        fit(few)
    broken = dataclasses.replace(population, scores=population.scores.clone().fill_(math.nan))
    with pytest.raises(ValueError, match="finite"):
        fit(broken)
    flat = dataclasses.replace(population, codes=torch.zeros_like(population.codes))
    with pytest.raises(ValueError, match=r"all codes( of layer 0)? are alike"):
        fit(flat)


@pytest.mark.parametrize("mode", ["extreme", "all"])
def test_a_layer_whose_codes_are_alike_is_named(mode):
    population = pop.measure(ToyGenerator(shared_code=False), ToyScorer(), range(200), batch_size=200)
    codes = population.codes.clone()
    codes[:, 2] = 0
    with pytest.raises(
        ValueError, match=r"all codes of layer 2 are alike: .* leave out a layer whose code is constant"
    ):
        fit(dataclasses.replace(population, codes=codes), mode=mode)


def boundary(normal, name="x"):
    normal = torch.as_tensor(normal, dtype=torch.float32)
    return Boundary(Concept(name, "object"), normal, torch.ones(normal.shape[:-1]), 0.9, 10)


@settings(max_examples=50, deadline=None)
@given(st.integers(4, 32), st.integers(1, 3), st.booleans(), st.integers(0, 2**31))
def test_projection_leaves_conditions_alone(dim, num, layered, seed):
    rows = random_directions(2 * (num + 1), dim, seed=seed).reshape(2, num + 1, dim)
    normals = rows if layered else rows[:1]
    main, *conditions = (boundary(normals[:, k] if layered else normals[0, k]) for k in range(num + 1))
    # A condition given twice, or a combination of others, adds nothing.
    result = project_out(main, [*conditions, conditions[0]])
    for condition in conditions:
        assert float((result.normal * condition.normal).sum(-1).abs().max()) < 1e-4
    assert float(result.normal.norm(dim=-1).sub(1).abs().max()) < 1e-5
    assert math.isnan(result.holdout_accuracy)
    once = project_out(main, conditions)
    torch.testing.assert_close(result.normal, once.normal, atol=1e-4, rtol=0)


def test_codes_spread_as_far_as_those_of_the_layers_asked_for():
    codes = torch.randn(4000, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([[5.0], [0.1]])
    layered = boundary([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    found = [code_spread(layered, codes, layers) for layers in ([0], [1], [0, 1], None)]
    assert found == pytest.approx([5, 0.1, 2.55, 2.55], rel=0.05)
    along = codes[:5, 0] @ torch.tensor([0.6, 0.8, 0.0])
    assert code_spread(layered, codes[:5], [0]) == pytest.approx(np.std(along.numpy()), rel=1e-5)
    # Layers that share their codes have one spread, however many are edited.
    assert code_spread(boundary([0.6, 0.8, 0.0]), codes[:, :1], [0, 1]) == pytest.approx(5, rel=0.05)


def test_projection_by_hand():
    result = project_out(boundary([0.6, 0.8, 0.0]), [boundary([1.0, 0.0, 0.0])])
    torch.testing.assert_close(result.normal, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(result.bias, torch.tensor(1.25))
    # Per layer, a direction that takes one less far than another goes on to do so.
    layers = project_out(boundary([[0.6, 0.8], [0.06, 0.08]]), [boundary([[1.0, 0.0], [1.0, 0.0]])])
    torch.testing.assert_close(layers.normal, torch.tensor([[0.0, 1.0], [0.0, 0.1]]))


def test_projection_where_one_has_a_normal_per_layer_and_the_other_does_not():
    """As directions of other tools do beside fitted boundaries: the shared one is that of every layer."""
    layered = boundary([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    shared = boundary([1.0, 0.0, 0.0])
    twice = boundary([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    for one, other, same in (
        (layered, shared, project_out(layered, [twice])),
        (shared, layered, project_out(twice, [layered])),
        (shared, boundary([[0.0, 0.6, 0.8]] * 2), twice),
    ):
        found = project_out(one, [other])
        torch.testing.assert_close(found.normal, same.normal)
        torch.testing.assert_close(found.bias, same.bias)
    with pytest.raises(ValueError, match="one space"):
        project_out(layered, [shared, boundary([[1.0, 0.0, 0.0]] * 3)])


@pytest.mark.parametrize("ridge", [1e-9, 0.1, 1e9])
def test_gentle_projection_is_the_ridge_solution(ridge):
    rows = random_directions(4, 6, seed=3)
    main, *conditions = (boundary(row) for row in rows)
    m = rows[1:].double()
    expected = torch.linalg.solve(ridge * torch.eye(6, dtype=torch.float64) + m.T @ m, rows[0].double())
    found = project_out(main, conditions, ridge=ridge).normal
    torch.testing.assert_close(found, (expected / expected.norm()).float(), atol=1e-5, rtol=0)
    if ridge > 1:
        torch.testing.assert_close(found, rows[0], atol=1e-5, rtol=0)
    if ridge < 0.1:
        torch.testing.assert_close(found, project_out(main, conditions).normal, atol=1e-5, rtol=0)


def test_projection_refuses():
    with pytest.raises(ValueError, match=r"ridge must be 0 or more, and finite; got -0\.1"):
        project_out(boundary([1.0, 0.0]), [boundary([0.0, 1.0])], ridge=-0.1)
    with pytest.raises(ValueError, match="nothing of the direction of 'a' is left without 'b', 'c'"):
        project_out(boundary([0.6, 0.8], "a"), [boundary([1.0, 0.0], "b"), boundary([0.0, 1.0], "c")])
    with pytest.raises(ValueError, match="at least one condition"):
        project_out(boundary([1.0, 0.0]), [])
    with pytest.raises(ValueError, match="one space"):
        project_out(boundary([1.0, 0.0]), [boundary([1.0, 0.0, 0.0])])


def test_layers_that_a_direction_leaves_alone_stay_so():
    main = boundary([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]])
    found = project_out(main, [boundary([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])])
    torch.testing.assert_close(found.normal, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="nothing of the direction"):
        project_out(main, [boundary([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]])])


def test_random_directions():
    directions = random_directions(2000, 16, seed=3)
    assert float(directions.norm(dim=1).sub(1).abs().max()) < 1e-6
    # Uniform on the sphere: mean zero, covariance I / 16.
    assert float(directions.mean(0).abs().max()) < 0.03
    torch.testing.assert_close(directions.T @ directions / 2000, torch.eye(16) / 16, atol=0.01, rtol=0)
    assert torch.equal(directions, random_directions(2000, 16, seed=3))
    with pytest.raises(ValueError, match="at least 1"):
        random_directions(0, 16)


def test_the_penalty_of_a_narrow_layer_does_not_know_of_its_padding():
    random = torch.Generator().manual_seed(0)
    codes = torch.randn(60, 1, 4, generator=random) * torch.tensor([3.0, 1.0, 0.1, 0.03])
    scores = codes[:, 0].sum(1, keepdim=True) + torch.randn(60, 1, generator=random)
    concept = (Concept("only", "attribute"),)
    narrow, padded = (
        fit(Population(torch.arange(60), x, scores, concept, 1), mode="all", ridge=0.5)[0].normal.flatten()
        for x in (codes, torch.nn.functional.pad(codes, (0, 60)))
    )
    torch.testing.assert_close(padded[:4], narrow)
    assert not padded[4:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layers", [1, 3])
def test_mode_all_is_ridge_regression_on_codes_far_from_zero_and_of_unlike_spread(dtype, layers):
    """Against the normal equations, solved in double precision on the samples that train."""
    random = torch.Generator().manual_seed(layers)
    codes = torch.randn(3000, layers, 24, generator=random, dtype=torch.float64)
    codes = (20 + codes * torch.logspace(0, -3, 24, dtype=torch.float64)).to(dtype)
    scores = (codes[:, 0] - 20) @ torch.logspace(0, 3, 24, dtype=dtype) + torch.randn(3000, generator=random)
    concept = Concept("only", "attribute")
    found = fit(Population(torch.arange(3000), codes, scores[:, None], (concept,), layers), mode="all", seed=5)[0]

    rows = torch.randperm(3000, generator=torch.Generator().manual_seed(5))
    train, held = rows[:2100], rows[2100:]
    x, y = codes.double().numpy(), scores.double().numpy()
    order = np.argsort(y, kind="stable")
    label = np.zeros(3000)
    label[order[:1500]], label[order[1500:]] = -1, 1
    accuracies = []
    for layer in range(layers):
        centre = x[train, layer].mean(0)
        a = x[train, layer] - centre
        gram = a.T @ a
        penalty = 1e-3 * np.diag(gram).mean()
        w = np.linalg.solve(gram + penalty * np.eye(24), a.T @ (y[train] - y[train].mean()))
        normal = torch.from_numpy(w / np.linalg.norm(w))
        assert float(normal @ of_layer(found, layer).double()) > 1 - 1e-6
        accuracies.append(float(np.mean(np.sign((x[held, layer] - centre) @ w) == label[held])))
    assert found.holdout_accuracy == pytest.approx(max(accuracies), abs=2 / 900)


@given(
    st.lists(st.integers(0, 6), min_size=4, max_size=40).flatmap(
        lambda scores: st.tuples(st.just(scores), st.integers(1, len(scores) // 2))
    )
)
def test_extreme_labels_are_those_of_a_stable_order_whatever_is_equal(case):
    scores, n = case
    order = np.argsort(scores, kind="stable")
    expected = np.zeros(len(scores))
    expected[order[:n]], expected[order[-n:]] = -1, 1
    column = torch.tensor(scores, dtype=torch.float32)[:, None]
    assert _extreme_labels(column, n)[:, 0].tolist() == expected.tolist()


def test_what_cannot_be_meant_is_refused(toy):
    _, population = toy
    with pytest.raises(ValueError, match="each concept is named once; got 'noise' twice"):
        fit(population, ["noise", "constant", "noise"])
    with pytest.raises(ValueError, match="mode 'all' is a ridge regression"):
        fit(population, mode="all", loss="logistic")


def test_samples_that_are_told_apart_are_counted():
    ordered = torch.arange(20.0)
    scores = {
        "ordered": ordered,  # a class of 8 and one of 8
        "three above": (ordered - 16).clamp(min=0),
        "four below": (ordered - 4).clamp(max=0),
        "five above, three below": (ordered - 14).clamp(min=0) - (3 - ordered).clamp(min=0),
        "two values, alike": ordered % 2,
        "constant": torch.zeros(20),
    }
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    concepts = tuple(Concept(name, "object") for name in scores)
    population = Population(
        torch.arange(20), torch.randn(20, 1, 4), torch.stack([*scores.values()], 1)[shuffled], concepts, num_layers=2
    )
    expected = dict(zip(scores, (8, 3, 4, 5, 8, 0), strict=True))
    assert told_apart(population, num_extreme=8) == expected
    assert told_apart(population, ["constant", "three above"], num_extreme=0.4) == {"constant": 0, "three above": 3}
    assert told_apart(population, ["three above"], num_extreme=3) == {"three above": 3}
