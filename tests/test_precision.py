"""Half precision: close to float32, the same in stages, refused where it is not to be had."""

import copy

import pytest
import torch

from higan import load_generator, load_scorer
from higan.boundaries import random_directions
from higan.generators.loading import save_generator
from higan.generators.pggan import PGGANConfig, PGGANNetwork
from higan.generators.pretrained import wrap
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.layers import groups
from higan.population import render, sample, score
from higan.rescoring import rescore
from higan.statistics import delta, standardise
from higan.types import Boundary, Placement

CHANNELS = (16, 16, 8, 8)


def filled(network):
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and name != "mean_code" and "fir" not in name and "energy" not in name:
            fan = max(value[0].numel() if value.ndim > 1 else 1, 1)
            state[name] = torch.randn(value.shape, generator=generator) / fan**0.5
    network.load_state_dict(state)
    return network


NETWORKS = {
    "stylegan": filled(StyleGANNetwork(StyleGANConfig(32, CHANNELS, 12, (12, 12)))),
    "skip": filled(StyleGAN2Network(StyleGAN2Config(32, CHANNELS, 12, (12, 12)))),
    "resnet": filled(StyleGAN2Network(StyleGAN2Config(32, CHANNELS, 12, (12, 12), architecture="resnet", clamp=256.0))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_images_are_close_and_stages_add_up(name):
    exact = wrap(copy.deepcopy(NETWORKS[name]), name)
    close = wrap(copy.deepcopy(NETWORKS[name]), name, precision="bfloat16")
    codes = exact.map(exact.latents(range(4)))
    assert torch.equal(codes, close.map(close.latents(range(4))))
    images, rounded = exact.synthesize(codes), close.synthesize(codes)
    assert rounded.dtype == torch.float32
    assert float(images.std()) > 0.05
    error = (images - rounded).abs()
    assert 0 < float(error.mean()) < 0.02 * float(images.std()) + 0.01
    for layer in range(exact.num_layers):
        state = close.prepare(codes, layer)
        torch.testing.assert_close(close.resume(state, codes, layer), rounded, atol=0, rtol=0)


def test_gradients_reach_the_codes():
    close = wrap(copy.deepcopy(NETWORKS["stylegan"]), "x", precision="bfloat16")
    codes = close.map(close.latents(range(2))).requires_grad_()
    close.synthesize(codes).square().sum().backward()
    assert bool(torch.isfinite(codes.grad).all())
    assert float(codes.grad.abs().max()) > 0


def test_the_embedded_generator_says_nearly_the_same():
    """Stated tolerance: Δs within 0.05 standard deviations of every score."""
    exact, close = load_generator("rooms"), load_generator("rooms", precision="bfloat16")
    scorer = load_scorer("rooms")
    assert not torch.equal(render(exact, sample(exact, range(2))), render(close, sample(close, range(2))))
    rows = random_directions(2, exact.code_dim)
    boundaries = [Boundary(scorer.concepts[k], rows[k], torch.tensor(0.0), 1.0) for k in range(2)]
    places = [Placement(name, layers) for name, layers in groups(exact.num_layers).items()]
    one, other = (rescore(g, scorer, boundaries, num=48, num_random=1, places=places) for g in (exact, close))
    gap = (standardise(one, delta(one)) - standardise(one, delta(other))).abs()
    assert float(gap.max()) < 0.05
    assert float(score(scorer, render(close, sample(close, range(2)))).std()) > 0


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a pggan computes in float32 only"):
        wrap(PGGANNetwork(PGGANConfig(16, (8, 8, 8), 8)), "x", precision="bfloat16")
    with pytest.raises(ValueError, match="'toy' computes in float32 only"):
        load_generator("toy", precision="bfloat16")
    close = wrap(copy.deepcopy(NETWORKS["skip"]), "x", precision="bfloat16")
    with pytest.raises(ValueError, match="rounded to bfloat16"):
        save_generator(close, tmp_path / "x.safetensors")
