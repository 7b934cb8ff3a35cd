"""What the rooms generator is built of, whichever its architecture: configuration, mapping, equalised layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "SLOPE",
    "Architecture",
    "EqualisedConv",
    "EqualisedLinear",
    "MappingNetwork",
    "RoomsConfig",
    "config_from_json",
    "drawn",
    "upsample",
]

Architecture = Literal["adain", "skip"]

SLOPE = 0.2
"""Of every leaky ReLU."""


@dataclass(frozen=True, slots=True)
class RoomsConfig:
    """Everything that fixes the shape of a `RoomsNetwork`.

    ``channels`` lists the widths at 4, 8, 16, … pixels; it may be longer than ``resolution`` needs, so that a network
    grows by ``dataclasses.replace(config, resolution=2 * config.resolution)``. ``mapping_lr`` is the factor by which
    the mapping network learns slower than the rest, ``mapping_dim`` the width of its hidden layers, by default that of
    the codes. ``architecture`` is ``adain`` for the StyleGAN type, with instance
    norm and one RGB, or ``skip`` for the StyleGAN2 type, with demodulation and the RGB of all resolutions added up.
    ``rgb_kernel`` is the side of the convolution that makes the RGB, 1 or 3; under ``skip`` it is 1.
    """

    resolution: int = 64
    latent_dim: int = 64
    code_dim: int = 128
    mapping_layers: int = 4
    mapping_lr: float = 0.1
    mapping_dim: int | None = None
    channels: tuple[int, ...] = (128, 128, 64, 48, 24, 16)
    architecture: Architecture = "adain"
    rgb_kernel: int = 1

    def __post_init__(self) -> None:
        resolution = self.resolution
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"resolution must be a power of two of at least 8; got {resolution}")
        if len(self.channels) < self.num_layers // 2:
            raise ValueError(
                f"channels must list {self.num_layers // 2} widths, one for each resolution from 4 to {resolution}; "
                f"got {len(self.channels)}"
            )
        if self.architecture not in get_args(Architecture):
            raise ValueError(
                f"architecture must be one of {', '.join(get_args(Architecture))}; got {self.architecture!r}"
            )
        kernels = (1,) if self.architecture == "skip" else (1, 3)
        if self.rgb_kernel not in kernels:
            raise ValueError(
                f"rgb_kernel of the {self.architecture} architecture must be {' or '.join(map(str, kernels))}; "
                f"got {self.rgb_kernel}"
            )
        sizes = {
            "latent_dim": self.latent_dim,
            "code_dim": self.code_dim,
            "mapping_layers": self.mapping_layers,
            "mapping_dim": self.mapping_width,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}")
        if min(self.channels) < 1:
            raise ValueError(f"channels must be at least 1; got {self.channels}")
        if not self.mapping_lr > 0:
            raise ValueError(f"mapping_lr must be above 0; got {self.mapping_lr}")

    @property
    def num_layers(self) -> int:
        """L, two per resolution from 4 pixels up."""
        return 2 * (self.resolution.bit_length() - 1) - 2

    @property
    def mapping_width(self) -> int:
        """Width of the mapping network's hidden layers."""
        return self.code_dim if self.mapping_dim is None else self.mapping_dim

    def channels_at(self, resolution: int) -> int:
        """Width of the feature maps of that many pixels."""
        return self.channels[resolution.bit_length() - 3]


def config_from_json(values: Mapping[str, Any]) -> RoomsConfig:
    """The configuration that ``asdict`` and JSON made of a `RoomsConfig`."""
    return RoomsConfig(**{**values, "channels": tuple(values["channels"])})


def drawn(*shape: int, generator: torch.Generator) -> Tensor:
    """What ``torch.randn`` draws; on the meta device, where it would take a second at first, nothing but the shape."""
    values = torch.empty(shape)
    return values if values.is_meta else values.normal_(generator=generator)


class EqualisedLinear(nn.Module):
    """Linear layer whose weights have unit variance and are scaled by He's constant when used.

    ``lr`` slows learning down: parameters are stored 1/lr times as large (Karras et al. 2018, section 4.1).
    """

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, *, lr: float = 1.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        weight = drawn(outputs, inputs, generator=generator)
        self.weight = nn.Parameter(weight if weight.is_meta else weight / lr)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.lr = lr
        self.scale = gain * lr / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs) to (n, outputs) in the dtype of ``x``."""
        return F.linear(x, (self.weight * self.scale).to(x.dtype), (self.bias * self.lr).to(x.dtype))


class EqualisedConv(nn.Module):
    """Convolution whose weights have unit variance and are scaled by He's constant when used."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, generator: torch.Generator, *, stride: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, inputs, kernel, kernel, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.stride = stride
        self.padding = kernel // 2
        self.scale = gain / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride) in the dtype of ``x``."""
        weight = (self.weight * self.scale).to(x.dtype).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias.to(x.dtype), self.stride, self.padding)


class MappingNetwork(nn.ModuleList):
    """From latents to the code that all layers of a sample share (Karras et al. 2019, figure 1b)."""

    def __init__(self, config: RoomsConfig, generator: torch.Generator) -> None:
        hidden = [config.mapping_width] * (config.mapping_layers - 1)
        widths = [config.latent_dim, *hidden, config.code_dim]
        super().__init__(
            EqualisedLinear(i, o, generator, lr=config.mapping_lr, gain=math.sqrt(2)) for i, o in pairwise(widths)
        )

    def forward(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n D"]:
        """Latents are brought to unit root mean square first."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Bilinear up-sampling by two."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
