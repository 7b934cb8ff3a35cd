"""PGGAN: Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation" (2018).

There is a single code: the latent itself, normalised, followed by the class as a one-hot vector where there are
classes. It enters the network at the bottom only, so L = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from higan.generators.checks import check_config, check_picture
from higan.generators.convolution import convolve
from higan.generators.family import FamilyNetwork
from higan.generators.layers import SLOPE, check_resolution, faded_levels, keep_layout, parameter, pixel_norm, round_to

__all__ = ["PGGANConfig", "PGGANNetwork"]


@dataclass(frozen=True, slots=True)
class PGGANConfig:
    """Everything that fixes the shape of a `PGGANNetwork`.

    ``channels`` lists the widths at 4, 8, 16, … pixels. ``lod`` is the level of detail at which training stood: 0 when
    it is finished, 1 when only half the resolution has been reached; fractions blend two resolutions.
    """

    resolution: int
    channels: tuple[int, ...]
    latent_dim: int = 512
    num_classes: int = 0
    lod: float = 0.0
    image_channels: int = 3

    def __post_init__(self) -> None:
        check_config(self)
        check_picture(self.resolution, self.image_channels)
        check_resolution(self.resolution, len(self.channels))


class NormalisedLayer(nn.Module):
    """Convolution, leaky ReLU, pixel norm."""

    def __init__(self, inputs: int, outputs: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.weight = parameter(inputs, outputs, 4, 4) if up else parameter(outputs, inputs, 3, 3)
        self.bias = parameter(outputs)

    def lower(self, dtype: torch.dtype) -> None:
        """Keep the weights in another precision."""
        round_to(dtype, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features of this layer."""
        if self.up:
            x = F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)
        else:
            x = convolve(x, self.weight, self.bias, padding=1)
        return pixel_norm(F.leaky_relu_(x, SLOPE))


@FamilyNetwork.register
class PGGANNetwork(nn.Module):
    """Layers and RGB, with effective weights; no checks."""

    family: ClassVar[str] = "pggan"
    default_truncation: ClassVar[tuple[float, int | None]] = (1.0, None)
    shared_code: ClassVar[bool] = True

    def __init__(self, config: PGGANConfig) -> None:
        super().__init__()
        self.config = config
        code_dim = config.latent_dim + config.num_classes
        self.mean_code = parameter(code_dim)
        self.dense_weight = parameter(config.channels[0] * 16, code_dim)
        self.dense_bias = parameter(config.channels[0], 1, 1)
        self.layers = nn.ModuleList()
        self.rgb_weights = nn.ParameterDict()
        self.rgb_biases = nn.ParameterDict()
        inputs = config.channels[0]
        for level, width in enumerate(config.channels):
            for up in (True, False) if level else (False,):
                self.layers.append(NormalisedLayer(inputs, width, up=up))
                inputs = width
        for level in faded_levels(len(config.channels), config.lod):
            self.rgb_weights[str(4 << level)] = parameter(config.image_channels, config.channels[level], 1, 1)
            self.rgb_biases[str(4 << level)] = parameter(config.image_channels)

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of the only layer."""
        return (self.config.latent_dim + self.config.num_classes,)

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what it makes."""
        return (4,)

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision; the code and what it makes at 4 pixels in float32 as before."""
        for layer in self.layers:
            cast(NormalisedLayer, layer).lower(dtype)
        round_to(dtype, *self.rgb_weights.values(), *self.rgb_biases.values())

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code into the first 4 × 4 features; there is no other."""
        del layer
        return self.dense_weight

    def draw(self, generator: torch.Generator) -> Float[Tensor, " Dz"]:
        """A standard normal latent."""
        return torch.randn(self.config.latent_dim, generator=generator)

    def map(self, z: Float[Tensor, "n Dz"], labels: Int64[Tensor, " n"] | None) -> Float[Tensor, "n L D"]:
        """Latents scaled to norm √Dz, and the class."""
        code = z * (math.sqrt(z.shape[1]) / z.norm(dim=1, keepdim=True).clamp_min(1e-12))
        if labels is not None:
            code = torch.cat([code, F.one_hot(labels, self.config.num_classes).to(code.dtype)], dim=1)
        return code[:, None]

    def synthesize(self, codes: Float[Tensor, "n L D"], *, noise: bool) -> Float[Tensor, "n C H W"]:
        """Images, unbounded. There is no noise in this family."""
        del noise
        lod = self.config.lod
        x = F.linear(pixel_norm(codes[:, 0]), self.dense_weight).reshape(codes.shape[0], -1, 4, 4) + self.dense_bias
        x = pixel_norm(F.leaky_relu(keep_layout(x), SLOPE)).to(next(iter(self.rgb_weights.values())).dtype)
        image: Tensor | None = None
        for level in range(faded_levels(len(self.config.channels), lod)[-1] + 1):
            for k in (2 * level - 1, 2 * level) if level else (0,):
                x = cast(NormalisedLayer, self.layers[k])(x)
            key = str(4 << level)
            if key in self.rgb_weights:
                rgb = F.conv2d(x, self.rgb_weights[key], self.rgb_biases[key])
                image = rgb if image is None else torch.lerp(rgb, F.interpolate(image, scale_factor=2.0), lod % 1)
        finished = cast(Tensor, image)
        return F.interpolate(finished, scale_factor=2.0 ** math.floor(lod)) if lod >= 1 else finished
