"""Convolutions in tiles against the definition, in double precision."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from higan.generators import convolution
from higan.generators.convolution import convolve


def layer(n, inputs, outputs, height, width, *, bias=True, seed=0):
    """A batch and weights whose outputs are of unit size, in channels-last memory as networks hand it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator) if bias else None


def exactly(x, weight, bias, padding):
    return F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=padding)


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.fixture
def in_tiles(monkeypatch):
    """Count what is computed in tiles, the real way."""
    calls = []
    real = convolution._convolve_in_tiles
    monkeypatch.setattr(convolution, "_convolve_in_tiles", lambda *a: calls.append(1) or real(*a))
    return calls


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("sides", [(32, 32), (37, 34), (31, 35)])
def test_it_is_a_convolution_and_rounds_little_more_than_the_direct_sum(sides, padding, in_tiles):
    case = layer(2, 130, 128, *sides)
    with torch.inference_mode():
        found = convolve(*case, padding=padding)
    truth = exactly(*case, padding)
    assert in_tiles
    assert found.shape == truth.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    error, direct = (rms(got.double() - truth) for got in (found, F.conv2d(*case, padding=padding)))
    assert error < 4 * direct
    assert error < 1.5e-6
    assert float((found.double() - truth).abs().max()) < 2e-5


@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (4, 4), (5, 9), (13, 6)])
@pytest.mark.parametrize("padding", [1, 2])
def test_sizes_that_tiles_do_not_fill(sides, padding, monkeypatch):
    monkeypatch.setattr(convolution, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(convolution, "_FEWEST_TILES", 1)
    case = layer(3, 5, 2, *sides, bias=False)
    with torch.no_grad():
        assert convolve(*case, padding=padding).sub(exactly(*case, padding)).abs().max() < 1e-5


def test_how_much_is_worked_on_at_a_time_changes_nothing(monkeypatch):
    case = layer(1, 128, 140, 35, 33)
    with torch.no_grad():
        whole = convolve(*case, padding=1)
        monkeypatch.setattr(convolution, "_CACHE", 3 * 4 * 36 * 9 * 140)
        assert torch.equal(convolve(*case, padding=1), whole)


def test_a_sample_does_not_depend_on_the_others_of_its_batch():
    x, weight, bias = layer(5, 128, 128, 32, 32)
    with torch.no_grad():
        together = convolve(x, weight, bias, padding=1)
        for few in (1, 2):
            assert torch.equal(convolve(x[-few:], weight, bias, padding=1), together[-few:])
        assert convolve(x[:0], weight, bias, padding=1).shape == (0, 128, 32, 32)


def test_what_does_not_pay_or_has_gradients_is_summed_directly(in_tiles):
    x, weight, bias = layer(1, 128, 128, 32, 32)
    narrow = layer(1, 127, 128, 32, 32)
    small = layer(1, 128, 128, 28, 32)
    pointwise = (x, weight[:, :, :1, :1])
    with torch.no_grad():
        for case in (narrow, small, (x.double(), weight.double(), bias.double()), pointwise):
            assert torch.equal(convolve(*case, padding=1), F.conv2d(*case, padding=1))
    found = convolve(x.requires_grad_(), weight, bias, padding=1)
    gradient = torch.autograd.grad(found.sum(), x)[0]
    assert not in_tiles
    assert gradient.shape == x.shape


def test_what_is_compiled_is_summed_directly():
    """In a process of its own: torch's compiler does not follow the checks of shapes that tests switch on."""
    code = """
import torch
import torch.nn.functional as F
from higan.generators import convolution
x, weight = torch.randn(1, 128, 32, 32), torch.randn(128, 128, 3, 3)
direct = F.conv2d(x, weight, padding=1)
with torch.no_grad():
    for function in (convolution.convolve, torch.compile(convolution.convolve, backend="eager")):
        print(torch.equal(function(x, weight, padding=1), direct))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr
