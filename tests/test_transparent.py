"""The transparent generator's truth: known by hand without entanglement, held against autograd and samples with it."""

import math

import pytest
import torch

from higan.directions import pca, sefa
from higan.errors import CorruptFileError, UnknownFormatError
from higan.generators.loading import load_generator
from higan.generators.transparent import FACTORS, TransparentGenerator, draw
from higan.population import render, sample, score
from higan.scorers.loading import load_scorer
from higan.scorers.nulls import NullScorer
from higan.scorers.transparent import TransparentScorer, TransparentScorerNetwork
from higan.types import Concept, StyledGenerator
from higan.weights import write_weights

F = len(FACTORS)


def codes_of(generator, num=3, double=False):
    """Codes whose layers differ, so that nothing holds for shared codes alone."""
    shape = (num, generator.num_layers, generator.code_dim)
    codes = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return codes if double else codes.float()


# ---- without entanglement everything is known by hand ----------------------------------------------------------------


def test_every_factor_is_read_from_one_direction_of_its_own_layers():
    generator = TransparentGenerator(0.0)
    torch.testing.assert_close(generator.directions @ generator.directions.T, torch.eye(F), atol=1e-6, rtol=0)
    assert torch.equal(generator.mixing, torch.eye(F))
    zero = torch.zeros(1, 10, 48)
    assert torch.equal(generator.values(zero), torch.zeros(1, F))
    for f, factor in enumerate(FACTORS):
        for layer in range(10):
            moved = zero.clone()
            moved[:, layer] = 2 * generator.directions[f]
            expected = torch.zeros(1, F)
            if layer in factor.owners:
                # One of as many owners as there are moves by two steps, in units of the codes' own spread.
                expected[0, f] = math.tanh(factor.gain * 2 / factor.spread / len(factor.owners))
            torch.testing.assert_close(generator.values(moved), expected, atol=1e-6, rtol=0)


def test_codes_are_uncorrelated_along_the_factors_with_the_stated_spread():
    generator = TransparentGenerator(0.0, seed=4)
    spread = torch.tensor([f.spread for f in FACTORS])
    exact = generator.directions @ generator.covariance @ generator.directions.T
    torch.testing.assert_close(exact, torch.diag(spread.square()), atol=1e-5, rtol=0)
    seen = sample(generator, range(3000))[:, 0] @ generator.directions.T
    torch.testing.assert_close(seen.std(0), spread, rtol=0.06, atol=0)


def test_sefa_and_pca_find_the_known_directions_in_the_known_order():
    generator = TransparentGenerator(0.0)
    # Layer 1 holds the horizon in six channels and the room's width in five.
    first, second = sefa(generator, [1], 2)
    assert [first.value, second.value] == pytest.approx([6, 5], abs=1e-5)
    assert abs(float(first.normal @ generator.directions[1])) == pytest.approx(1, abs=1e-5)
    assert abs(float(second.normal @ generator.directions[2])) == pytest.approx(1, abs=1e-5)
    # View yaw varies most; 8,000 codes are enough to part it from the next.
    (axis,) = pca(sample(generator, range(8000)), [0], 1)
    assert abs(float(axis.normal @ generator.directions[0])) > 0.9


def test_shuffling_moves_layers_and_nothing_else():
    plain, shuffled = (TransparentGenerator(0.0, arrangement=a, seed=5) for a in ("paper", "shuffled"))
    assert torch.equal(plain.directions, shuffled.directions)
    assert not torch.equal(plain.layer_weights, shuffled.layer_weights)
    assert sorted(plain.layer_weights.T.tolist()) == sorted(shuffled.layer_weights.T.tolist())


# ---- with it, against independent ways to the same numbers -----------------------------------------------------------


@pytest.mark.parametrize("entanglement", [0.0, 0.4, 1.0])
def test_jacobian_is_that_of_autograd(entanglement):
    generator = TransparentGenerator(entanglement, seed=1, psi=0.7)
    codes = codes_of(generator, double=True)
    (expected,) = [torch.autograd.functional.jacobian(lambda c: generator.values(c).sum(0), codes)]
    torch.testing.assert_close(generator.jacobian(codes), expected.movedim(1, 0), atol=1e-9, rtol=1e-6)


def test_style_weights_are_what_is_read():
    generator = TransparentGenerator(0.6, seed=2)
    assert isinstance(generator, StyledGenerator)
    codes = codes_of(generator)
    styles = [codes[:, layer] @ generator.style_weights(layer).T for layer in range(10)]
    read, start = [], 0
    for factor in FACTORS:
        read.append(sum(style[:, start : start + factor.channels].mean(1) for style in styles))
        start += factor.channels
    curves = torch.stack([sum(style[:, start + f] for style in styles) for f in range(F)], 1)
    bend = 0.6 * torch.tensor([f.bend for f in FACTORS])
    scale = (generator.directions @ generator.covariance * generator.directions).sum(1).sqrt()
    level = (1 - bend**2).sqrt() * torch.stack(read, 1) / scale + bend * math.sqrt(2) * torch.cos(2 * curves)
    expected = torch.tanh(torch.tensor([f.gain for f in FACTORS]) * level)
    torch.testing.assert_close(generator.values(codes), expected, atol=1e-5, rtol=0)


def test_what_grows_with_entanglement():
    calm, wild = TransparentGenerator(0.2, seed=3), TransparentGenerator(0.8, seed=3)
    for generator in (calm, wild):
        torch.testing.assert_close(generator.layer_weights.sum(1), torch.ones(F))
        torch.testing.assert_close(generator.directions.norm(dim=1), torch.ones(F))
        own = [generator.layer_weights[f, list(factor.owners)].sum() for f, factor in enumerate(FACTORS)]
        assert torch.stack(own).tolist() == pytest.approx([1 - generator.entanglement / 2] * F)

    def mixed(generator):
        return (generator.directions @ generator.directions.T - torch.eye(F)).abs().mean()

    def correlated(generator):
        along = generator.directions @ generator.covariance @ generator.directions.T
        return torch.corrcoef(torch.linalg.cholesky(along.double())).abs().mean()

    assert mixed(wild) > 2 * mixed(calm) > 0
    assert correlated(wild) > correlated(calm)


def test_sampled_codes_have_the_stated_covariance():
    generator = TransparentGenerator(0.7, seed=6)
    codes = sample(generator, range(6000))[:, 0]
    seen = codes.T @ codes / len(codes)
    assert (seen - generator.covariance).norm() < 0.12 * generator.covariance.norm()


def test_drawing_shows_every_factor_and_has_gradients():
    values = torch.zeros(1, F, requires_grad=True)
    for f in range(F):
        low, high = values.detach().clone(), values.detach().clone()
        low[0, f], high[0, f] = -0.9, 0.9
        assert (draw(high) - draw(low)).abs().max() > 0.2, FACTORS[f].name
    picture = draw(values, 24)
    assert picture.shape == (1, 3, 24, 24)
    (gradient,) = torch.autograd.grad((picture * torch.randn(picture.shape)).sum(), values)
    assert (gradient.abs() > 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"entanglement": 1.2}, "between 0 and 1"),
        ({"resolution": 8}, "16 pixels"),
        ({"psi": math.nan}, "finite"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TransparentGenerator(**options)


def test_bad_layers_are_refused():
    with pytest.raises(ValueError, match="0 … 9"):
        load_generator("transparent").style_weights(10)


# ---- scorers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entanglement", "resolution"), [(0.0, 32), (0.8, 32), (0.4, 64)])
def test_the_scorer_reads_the_exact_values_back(entanglement, resolution):
    generator, scorer = TransparentGenerator(entanglement, seed=9, resolution=resolution), load_scorer("transparent")
    assert [c.name for c in scorer.concepts] == [f.name for f in FACTORS]
    codes = sample(generator, range(200))
    seen, truth = score(scorer, render(generator, codes)), generator.values(codes)
    for f, factor in enumerate(FACTORS):
        least = 0.98 if resolution == 32 else 0.9
        assert torch.corrcoef(torch.stack([seen[:, f], truth[:, f]]))[0, 1] > least, factor.name


def test_scorer_survives_a_file(tmp_path):
    torch.manual_seed(0)
    scorer = TransparentScorer(TransparentScorerNetwork(2), [Concept("a", "layout"), Concept("b", "object")])
    scorer.save(tmp_path / "s.safetensors")
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    again = TransparentScorer.load(tmp_path / "s.safetensors")
    assert again.concepts == scorer.concepts
    torch.testing.assert_close(again.score(images), scorer.score(images), atol=1e-2, rtol=0)


def test_files_that_are_no_scorer_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_weights(path, {"a": torch.zeros(1)}, {"format": "other"})
    with pytest.raises(UnknownFormatError, match="transparent"):
        TransparentScorer.load(path)
    header = {"format": "higan-transparent-scorer-1", "concepts": [{"name": "a", "level": "layout"}], "metadata": {}}
    write_weights(path, {"a": torch.zeros(1)}, header)
    with pytest.raises(CorruptFileError, match="contradicts"):
        TransparentScorer.load(path)
    with pytest.raises(ValueError, match="2 outputs; got 1"):
        TransparentScorer(TransparentScorerNetwork(2), [Concept("a", "layout")])


def test_nulls_vary_but_follow_nothing():
    scorer = NullScorer(4)
    images = torch.randint(256, (600, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = scorer.score(images)
    assert torch.equal(scores[:5], scorer.score(images[:5]))
    assert scores.mean(0).abs().max() < 0.15
    torch.testing.assert_close(scores.std(0), torch.ones(4), atol=0.1, rtol=0)
    brighter = images.clone()
    brighter[:, 0, 3, 3] = (brighter[:, 0, 3, 3].int() + 1).clamp(max=255).to(torch.uint8)
    change = scorer.score(brighter) - scores
    assert change.mean(0).abs().max() < 0.15
    assert change[:, 0].clamp(min=0).mean() == pytest.approx(3**0.5 / 3, abs=0.1)  # E[max(U - V, 0)] of uniforms
    assert torch.equal(change[:, 3], torch.zeros(600))  # it reads the middle third
    with pytest.raises(ValueError, match="at least one"):
        NullScorer(0)
