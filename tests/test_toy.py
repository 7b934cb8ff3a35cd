"""The public toy pair does what its docstrings say, so that every other test may lean on it."""

import pytest
import torch

from higan import population
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import Generator, Scorer, StagedGenerator


@pytest.fixture(params=[True, False], ids=["shared", "layerwise"])
def generator(request):
    return ToyGenerator(shared_code=request.param, psi=0.7, psi_layers=3)


def test_pair_fits_the_protocols(generator):
    assert isinstance(generator, Generator)
    assert not isinstance(generator, StagedGenerator)
    assert isinstance(ToyScorer(), Scorer)


def test_directions_are_orthonormal(generator):
    torch.testing.assert_close(generator.directions @ generator.directions.T, torch.eye(7), atol=1e-6, rtol=0)


def test_scores_are_the_truncated_projections(generator):
    codes = population.sample(generator, range(200))
    scores = population.score(ToyScorer(), population.render(generator, codes))
    expected = (codes * generator.directions[:-1]).sum(-1) * generator.truncation
    # One grey level is worth 0.03; dithering over a strip's eight pixels leaves a fraction of that.
    torch.testing.assert_close(scores[:, :6], expected, atol=0.005, rtol=0)
    assert scores[:, 6].std() > 0.3
    assert scores[:, 7].std() == 0


def test_a_step_moves_one_score_by_psi_lambda(generator):
    codes = population.sample(generator, range(50))
    before = population.score(ToyScorer(), population.render(generator, codes))
    for layer in range(6):
        moved = codes.clone()
        moved[:, layer] += 2.0 * generator.directions[layer]
        change = population.score(ToyScorer(), population.render(generator, moved)) - before
        expected = torch.zeros(6)
        expected[layer] = 2.0 * generator.truncation[layer]
        torch.testing.assert_close(change[:, :6], expected.expand(50, -1), atol=0.01, rtol=0)


def test_saturating_scores_are_brightness():
    generator = ToyGenerator()
    codes = population.sample(generator, range(50))
    scores = population.score(ToyScorer(saturating=True), population.render(generator, codes))
    expected = torch.tanh((codes * generator.directions[:-1]).sum(-1) / 4)
    torch.testing.assert_close(scores[:, :6], expected, atol=0.001, rtol=0)


def test_images_have_gradients(generator):
    codes = population.sample(generator, [0]).requires_grad_()
    generator.synthesize(codes).mean().backward()
    assert codes.grad is not None
    assert bool((codes.grad.norm(dim=-1) > 0).all())


def test_layers_share_a_code_only_if_asked(generator):
    codes = population.sample(generator, range(3))
    assert bool((codes == codes[:, :1]).all()) == generator.shared_code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_layers": 0}, "num_layers"),
        ({"num_layers": 16, "code_dim": 16}, "at least num_layers \\+ 1 = 17"),
        ({"resolution": 2}, "8 strips"),
    ],
)
def test_bad_sizes_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ToyGenerator(**arguments)
