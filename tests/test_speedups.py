"""Half precision and compilation: close to the plain network, the same in stages, refused where not to be had."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from higan import load_generator, load_scorer
from higan.boundaries import random_directions
from higan.generators.biggan import BigGANConfig, BigGANNetwork
from higan.generators.loading import save_generator
from higan.generators.pggan import PGGANConfig, PGGANNetwork
from higan.generators.pretrained import StagedGenerator, wrap
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.generators.stylegan3 import StyleGAN3Config, StyleGAN3Network
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
        if name.endswith("var"):
            state[name] = state[name].abs() + 0.5
        if name.endswith("_filter"):
            state[name] = torch.full(value.shape, 2.0 / value.numel())
    network.load_state_dict(state)
    return network


NETWORKS = {
    "stylegan": filled(StyleGANNetwork(StyleGANConfig(32, CHANNELS, 12, (12, 12)))),
    "skip": filled(StyleGAN2Network(StyleGAN2Config(32, CHANNELS, 12, (12, 12)))),
    "pggan": filled(PGGANNetwork(PGGANConfig(32, CHANNELS, 12))),
    "stylegan3": filled(StyleGAN3Network(StyleGAN3Config(32, (12, 12, 10, 8, 3), 12, (12, 12), critical=1))),
    "biggan": filled(BigGANNetwork(BigGANConfig(16, (32, 16, 16), (True, True), 12, 4, 6, attention=(1,)))),
    "resnet": filled(StyleGAN2Network(StyleGAN2Config(32, CHANNELS, 12, (12, 12), architecture="resnet", clamp=256.0))),
}


def codes_of(generator, num=4):
    labels = [k % generator.num_classes for k in range(num)] if generator.num_classes else None
    return generator.map(generator.latents(range(num)), labels)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_images_are_close_and_stages_add_up(name, precision):
    exact = wrap(copy.deepcopy(NETWORKS[name]), name)
    close = wrap(copy.deepcopy(NETWORKS[name]), name, precision=precision)
    codes = codes_of(exact)
    assert torch.equal(codes, codes_of(close))
    images, rounded = exact.synthesize(codes), close.synthesize(codes)
    assert rounded.dtype == torch.float32
    assert float(images.std()) > 0.02
    error = float((images - rounded).abs().mean() / images.std())
    # Seven and ten bits of mantissa, rounded at every layer.
    assert 0 < error < (0.06 if precision == "bfloat16" else 0.01)
    for layer in range(exact.num_layers) if isinstance(close, StagedGenerator) else ():
        state = close.prepare(codes, layer)
        torch.testing.assert_close(close.resume(state, codes, layer), rounded, atol=0, rtol=0)


def test_float16_survives_styles_beyond_its_range():
    """Modulation by numbers that float16 does not hold, and demodulation that brings them back."""
    exact, close = (wrap(copy.deepcopy(NETWORKS["resnet"]), "x", precision=p) for p in ("float32", "float16"))
    codes = codes_of(exact).clone()
    codes[:, :-1] *= 1e6
    images, rounded = exact.synthesize(codes), close.synthesize(codes)
    assert bool(torch.isfinite(rounded).all())
    assert float((images - rounded).abs().mean()) < 0.02 * float(images.std())


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
    with pytest.raises(ValueError, match="'toy' computes in float32 only"):
        load_generator("toy", precision="bfloat16")
    close = wrap(copy.deepcopy(NETWORKS["skip"]), "x", precision="bfloat16")
    with pytest.raises(ValueError, match="rounded to bfloat16"):
        save_generator(close, tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "name",
    ["stylegan", *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name != "stylegan")],
)
def test_compiled_layers_draw_the_same(name):
    """In a process of its own: torch's compiler does not follow the checks of shapes that tests switch on."""
    command = [sys.executable, "-c", f"import test_speedups; test_speedups.compare_compiled({name!r})"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2


def compare_compiled(name):
    """Draw with both, compare, and print how many graphs were compiled on the way."""
    network = filled(StyleGANNetwork(StyleGANConfig(8, (4, 4), 8, (8,)))) if name == "stylegan" else NETWORKS[name]
    plain, compiled = wrap(network, "x"), wrap(copy.deepcopy(network), "x", compiled=True)
    codes = codes_of(plain, 2)
    expected = plain.synthesize(codes)
    torch.testing.assert_close(compiled.synthesize(codes), expected, atol=1e-4, rtol=0)
    if isinstance(compiled, StagedGenerator):
        state = compiled.prepare(codes, 1)
        torch.testing.assert_close(compiled.resume(state, codes, 1), expected, atol=1e-4, rtol=0)
    print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
