"""Pieces that several families share. Weights here are effective: learning-rate factors and gains are folded in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

__all__ = [
    "SLOPE",
    "Mapping",
    "affine_instance_norm",
    "check_resolution",
    "depthwise",
    "faded_levels",
    "fold_upsampling",
    "keep_layout",
    "parameter",
    "pixel_norm",
    "round_to",
    "widened",
]

SLOPE = 0.2
"""Of every leaky ReLU in the PGGAN and StyleGAN families."""

_EPSILON = 1e-8


def parameter(*shape: int) -> nn.Parameter:
    """A weight of that shape, to be filled from a file; inference never trains it."""
    return nn.Parameter(torch.zeros(shape), requires_grad=False)


def round_to(dtype: torch.dtype, *tensors: Tensor | None) -> None:
    """Round weights to another precision, in place; what is None is passed over."""
    for tensor in tensors:
        if tensor is not None:
            tensor.data = tensor.data.to(dtype)


def widened(x: Tensor) -> Tensor:
    """The same in float32 at the least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_resolution(resolution: int, levels: int) -> None:
    """Networks that start at 4 pixels double the resolution from level to level.

    Raises:
        ValueError: the two contradict each other.
    """
    if levels < 1 or resolution != 2 << levels:
        raise ValueError(f"{levels} levels make {2 << max(levels, 0)} pixels; the configuration says {resolution}")


def keep_layout(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Channels last on the CPU, where convolutions, depthwise ones above all, are several times faster that way."""
    return x.contiguous(memory_format=torch.channels_last if x.device.type == "cpu" else torch.contiguous_format)


def pixel_norm(x: Float[Tensor, "n c *hw"]) -> Float[Tensor, "n c *hw"]:
    """Scale every pixel's feature vector to unit root mean square (Karras et al. 2018, section 4.2).

    Squares are taken in float32 at the least: in float16 they overflow from 256 on.
    """
    return x * torch.rsqrt(widened(x).square().mean(1, keepdim=True) + _EPSILON).to(x.dtype)


def affine_instance_norm(
    x: Float[Tensor, "n c h w"], scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"]
) -> Float[Tensor, "n c h w"]:
    """AdaIN: every channel of every sample to zero mean and unit variance, then ``scale · x + shift``.

    Batch normalisation of a single image whose channels are those of all samples is the same thing, fused into one
    pass. Its gradients are wrong, though, on CPUs, where they arrive in another memory layout than the image has; so
    they are left to the formula.
    """
    n, c, h, w = x.shape
    if torch.is_grad_enabled():
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        gain = scale[:, :, None, None] * torch.rsqrt(variance + _EPSILON)
        return ((x - mean) * gain + shift[:, :, None, None]).to(x.dtype)
    flat = x.reshape(1, n * c, h, w)
    return F.batch_norm(flat, None, None, scale.flatten(), shift.flatten(), True, 0.0, _EPSILON).reshape(n, c, h, w)


def depthwise(
    x: Float[Tensor, "n c h w"],
    kernel: Float[Tensor, "kh kw"],
    bias: Float[Tensor, " c"] | None = None,
    padding: int = 0,
) -> Float[Tensor, "n c h2 w2"]:
    """Correlate every channel with one small kernel."""
    channels = x.shape[1]
    weight = kernel.expand(channels, 1, *kernel.shape).contiguous()
    return F.conv2d(x, weight, bias, padding=padding, groups=channels)


def faded_levels(levels: int, lod: float) -> tuple[int, ...]:
    """Levels (0 at 4 pixels) whose RGB takes part in the image: one, or two while one is being faded in.

    Args:
        levels: how many resolutions the network has.
        lod: level of detail at which training stood; 0 when finished (Karras et al. 2018, figure 2).

    Raises:
        ValueError: no level is as coarse as that.
    """
    if not 0 <= lod <= levels - 1:
        raise ValueError(f"lod must lie in 0–{levels - 1}; got {lod}")
    finest = levels - 1 - math.floor(lod)
    return (finest,) if lod == math.floor(lod) else (finest - 1, finest)


def fold_upsampling(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "i o 4 4"]:
    """Kernel of the stride-2 transposed convolution that equals nearest up-sampling by two, then this convolution.

    Repeating a pixel is a transposed convolution with a 2×2 kernel of ones; composing the two gives 4×4 taps and 16
    instead of 36 multiplications per input pixel.
    """
    padded = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


class Mapping(nn.Module):
    """From latents and labels to codes: normalise, then leaky dense layers.

    Args:
        latent_dim: Dz.
        widths: output width of every layer; the last is D.
        num_classes: 0 where the generator is unconditional.
        label_dim: width of the embedding of a class.
        joint: whether latent and embedding are normalised as one vector (StyleGAN, StyleGAN2) or each by itself
            (StyleGAN2-ADA, StyleGAN3).
    """

    def __init__(
        self, latent_dim: int, widths: Sequence[int], num_classes: int = 0, label_dim: int = 0, *, joint: bool = True
    ) -> None:
        super().__init__()
        self.joint = joint
        self.embedding = parameter(num_classes, label_dim) if num_classes else None
        inputs = [latent_dim + (label_dim if num_classes else 0), *widths]
        self.weights = nn.ParameterList(parameter(o, i) for i, o in itertools.pairwise(inputs))
        self.biases = nn.ParameterList(parameter(o) for o in widths)

    def forward(self, z: Float[Tensor, "n Dz"], labels: Int64[Tensor, " n"] | None) -> Float[Tensor, "n D"]:
        """Codes shared by all layers."""
        x = z if self.joint else pixel_norm(z)
        if self.embedding is not None:
            embedded = self.embedding[labels]
            x = torch.cat([x, embedded if self.joint else pixel_norm(embedded)], dim=1)
        if self.joint:
            x = pixel_norm(x)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), SLOPE)
        return x
