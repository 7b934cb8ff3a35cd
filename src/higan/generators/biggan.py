"""BigGAN: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (2019).

Two kinds: BigGAN-deep, where every block is conditioned on the whole latent and the class, and the original, where each
block gets a chunk of the latent of its own. The code of a layer is its part of the latent followed by the embedding of
the class; layer 0 makes the 4×4 map, layer k is block k - 1.

Truncation belongs to the prior here: latents are drawn from a truncated normal and scaled, and statistics of the batch
normalisation that were measured under the same truncation are used where the file has them. Codes are not shrunk again.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from higan.generators.checks import check_config, check_picture
from higan.generators.convolution import convolve
from higan.generators.family import FamilyNetwork
from higan.generators.layers import keep_layout, parameter, round_to, widened

__all__ = ["BigGANConfig", "BigGANNetwork", "Conditioning"]

Conditioning = Literal["joint", "chunked", "class"]
"""What a block's code holds: the whole latent and the class; a chunk and the class; the class alone."""


@dataclass(frozen=True, slots=True)
class BigGANConfig:
    """Everything that fixes the shape of a `BigGANNetwork`.

    Block i turns ``widths[i]`` into ``widths[i + 1]`` channels and doubles the resolution where ``up[i]``; there is
    self-attention before the blocks listed in ``attention`` (the number of blocks means after the last). ``statistics``
    is the number of truncations for which batch statistics are kept, evenly spaced from 0 to 1, or 1. ``truncation`` of
    None draws latents from the full normal distribution.
    """

    resolution: int
    widths: tuple[int, ...]
    up: tuple[bool, ...]
    latent_dim: int = 128
    num_classes: int = 1000
    label_dim: int = 128
    conditioning: Conditioning = "joint"
    deep: bool = True
    attention: tuple[int, ...] = ()
    statistics: int = 1
    epsilon: float = 1e-5
    truncation: float | None = None

    def __post_init__(self) -> None:
        check_config(self)
        check_picture(self.resolution)
        if len(self.widths) != len(self.up) + 1 or not self.up:
            raise ValueError(f"{len(self.up)} blocks have {len(self.up) + 1} widths; got {len(self.widths)}")
        if self.deep and any(after > before for before, after in itertools.pairwise(self.widths)):
            raise ValueError(f"widths of a BigGAN-deep never grow; got {self.widths}")
        if self.resolution < 1 or self.bottom << sum(self.up) != self.resolution:
            raise ValueError(f"{self.resolution} pixels cannot be halved {sum(self.up)} times")
        if self.statistics < 1 or not self.epsilon > 0:
            raise ValueError(f"statistics and epsilon must be above 0; got {self.statistics} and {self.epsilon}")
        if self.truncation is not None and not 0 < self.truncation <= 1:
            raise ValueError(f"truncation must lie in (0, 1], or be none; got {self.truncation}")

    @property
    def chunk(self) -> int:
        """How much of the latent layer 0 gets."""
        return self.latent_dim // (len(self.up) + 1) if self.conditioning == "chunked" else self.latent_dim

    @property
    def bottom(self) -> int:
        """Pixels of the map that layer 0 makes."""
        return self.resolution >> sum(self.up)


class Statistics(nn.Module):
    """Mean and variance of every channel, as measured at one or more truncations."""

    def __init__(self, channels: int, config: BigGANConfig) -> None:
        super().__init__()
        self.mean = parameter(config.statistics, channels)
        self.var = parameter(config.statistics, channels)
        self.truncation = config.truncation
        self.epsilon = config.epsilon

    def forward(self) -> tuple[Tensor, Tensor]:
        """Mean, and reciprocal standard deviation.

        Between two truncations the published implementation weighs each by its own distance instead of the other's;
        published models are shown that way, so it is kept.
        """
        mean, var = self._at(self.mean), self._at(self.var)
        return mean, torch.rsqrt(var + self.epsilon)

    def _at(self, table: Tensor) -> Tensor:
        if table.shape[0] == 1:
            return table[0]
        step = 1.0 / (table.shape[0] - 1)
        weight, index = math.modf((1.0 if self.truncation is None else self.truncation) / step)
        low = table[int(index)]
        return low * weight + table[int(index) + 1] * (1 - weight) if weight else low


class ConditionalNorm(nn.Module):
    """Batch normalisation with fixed statistics, scale and shift linear in the code; then ReLU."""

    def __init__(self, channels: int, code_dim: int, config: BigGANConfig) -> None:
        super().__init__()
        self.statistics = Statistics(channels, config)
        self.gain = parameter(channels, code_dim)
        self.offset = parameter(channels, code_dim)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Activations (n, c, h, w) under a code (n, d)."""
        mean, reciprocal = self.statistics()
        scale = (1 + F.linear(code, self.gain)) * reciprocal
        shift = F.linear(code, self.offset) - mean * scale
        return F.relu_(torch.addcmul(shift[:, :, None, None].to(x.dtype), x, scale[:, :, None, None].to(x.dtype)))


class Convolution(nn.Module):
    """Convolution that keeps the resolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = parameter(outputs, inputs, kernel, kernel)
        self.bias = parameter(outputs) if bias else None

    def lower(self, dtype: torch.dtype) -> None:
        """Keep the weights in another precision."""
        round_to(dtype, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, h, w)."""
        return convolve(x, self.weight, self.bias, padding=self.weight.shape[2] // 2)


class Block(nn.Module):
    """Residual block of the original: two convolutions, and a third on the way past them."""

    def __init__(self, inputs: int, outputs: int, code_dim: int, config: BigGANConfig, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.norms = nn.ModuleList(ConditionalNorm(width, code_dim, config) for width in (inputs, outputs))
        self.convs = nn.ModuleList([Convolution(inputs, outputs, 3), Convolution(outputs, outputs, 3)])
        self.shortcut = Convolution(inputs, outputs, 1) if up or inputs != outputs else None

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features of this block under a code (n, d)."""
        h = self.convs[0](_enlarge(self.norms[0](x, code), up=self.up))
        h = self.convs[1](self.norms[1](h, code))
        # A 1×1 convolution commutes with repeating pixels.
        past = x if self.shortcut is None else self.shortcut(x)
        return h + _enlarge(past, up=self.up)


class DeepBlock(nn.Module):
    """Residual block of BigGAN-deep: a bottleneck, and superfluous channels dropped on the way past it."""

    def __init__(self, inputs: int, outputs: int, code_dim: int, config: BigGANConfig, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.outputs = outputs
        inner = inputs // 4
        self.norms = nn.ModuleList(ConditionalNorm(width, code_dim, config) for width in (inputs, inner, inner, inner))
        shapes = ((inputs, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, outputs, 1))
        self.convs = nn.ModuleList(Convolution(*shape) for shape in shapes)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features of this block under a code (n, d)."""
        h = x
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = norm(h, code)
            h = conv(_enlarge(h, up=self.up) if number == 1 else h)
        return h + _enlarge(x[:, : self.outputs], up=self.up)


class Attention(nn.Module):
    """Self-attention over pixels, keys and values at half the resolution (Zhang et al. 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = Convolution(channels, channels // 8, 1, bias=False)
        self.key = Convolution(channels, channels // 8, 1, bias=False)
        self.value = Convolution(channels, channels // 2, 1, bias=False)
        self.out = Convolution(channels // 2, channels, 1, bias=False)
        self.gamma = parameter(1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        query = self.query(x).flatten(2).transpose(1, 2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weights = torch.softmax(widened(query) @ widened(key), dim=-1).to(x.dtype)
        attended = (value @ weights.transpose(1, 2)).reshape(x.shape[0], -1, *x.shape[2:])
        return x + self.gamma.to(x.dtype) * self.out(attended)


@FamilyNetwork.register
class BigGANNetwork(nn.Module):
    """Embedding, blocks and RGB, with spectral normalisation already applied to the weights; no checks."""

    family: ClassVar[str] = "biggan"
    default_truncation: ClassVar[tuple[float, int | None]] = (1.0, None)

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        self.config = config
        self.original = config
        """The configuration before `truncate` changed it."""
        self.embedding = parameter(config.num_classes, config.label_dim)
        widths = self.layer_widths
        self.dense_weight = parameter(config.widths[0] * config.bottom**2, widths[0])
        self.dense_bias = parameter(config.widths[0] * config.bottom**2)
        kind = DeepBlock if config.deep else Block
        self.blocks = nn.ModuleList(
            kind(config.widths[i], config.widths[i + 1], widths[i + 1], config, up=up) for i, up in enumerate(config.up)
        )
        self.attention = nn.ModuleDict({str(i): Attention(config.widths[i]) for i in config.attention})
        self.statistics = Statistics(config.widths[-1], config)
        self.gain = parameter(config.widths[-1])
        self.offset = parameter(config.widths[-1])
        self.rgb = Convolution(config.widths[-1], 3, 3)

    @property
    def shared_code(self) -> bool:
        """Whether every layer gets the same code."""
        return self.config.conditioning == "joint"

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer."""
        chunk, label, blocks = self.config.chunk, self.config.label_dim, len(self.config.up)
        if self.config.conditioning == "joint":
            return (chunk + label,) * (blocks + 1)
        return (chunk, *(chunk * (self.config.conditioning == "chunked") + label for _ in range(blocks)))

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        sizes = [self.config.bottom]
        for up in self.config.up:
            sizes.append(sizes[-1] << up)
        return tuple(sizes)

    @property
    def mean_code(self) -> Tensor:
        """The mean latent, zero, with the mean embedding of the classes: (L, D)."""
        return self._codes(self.embedding.new_zeros(1, self.config.latent_dim), self.embedding.mean(0, keepdim=True))[0]

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision; codes, normalisation and attention in float32 as before."""
        for module in self.modules():
            if isinstance(module, Convolution):
                module.lower(dtype)

    def draw(self, generator: torch.Generator) -> Float[Tensor, " Dz"]:
        """A latent from the normal distribution, cut off at two and scaled where there is a truncation."""
        if self.config.truncation is None:
            return torch.randn(self.config.latent_dim, generator=generator)
        uniform = torch.rand(self.config.latent_dim, generator=generator, dtype=torch.float64)
        inside = math.erf(math.sqrt(2))
        return (torch.erfinv((2 * uniform - 1) * inside) * (math.sqrt(2) * self.config.truncation)).float()

    def truncate(self, truncation: float) -> None:
        """Draw latents, and pick batch statistics, under another truncation.

        Raises:
            ValueError: it is not in (0, 1].
        """
        if not 0 < truncation <= 1:
            raise ValueError(f"truncation_psi of a BigGAN must lie in (0, 1]; got {truncation}")
        self.config = replace(self.config, truncation=truncation)
        for module in self.modules():
            if isinstance(module, Statistics):
                module.truncation = truncation

    def map(self, z: Float[Tensor, "n Dz"], labels: Int64[Tensor, " n"] | None) -> Float[Tensor, "n L D"]:
        """Every layer's part of the latent, and the embedding of the class."""
        return self._codes(z, self.embedding[labels])

    def _codes(self, z: Tensor, label: Tensor) -> Tensor:
        chunk = self.config.chunk
        rows = []
        for layer, width in enumerate(self.layer_widths):
            start = layer * chunk if self.config.conditioning == "chunked" else 0
            latent = z[:, start : start + chunk]
            if self.config.conditioning == "joint":
                row = torch.cat([latent, label], dim=1)
            elif layer == 0:
                row = latent
            else:
                row = torch.cat([latent, label], dim=1)[:, -width:]
            rows.append(F.pad(row, (0, max(self.layer_widths) - width)))
        return torch.stack(rows, dim=1)

    def synthesize(self, codes: Float[Tensor, "n L D"], *, noise: bool) -> Float[Tensor, "n 3 H W"]:
        """Images in (-1, 1). There is no noise in this family."""
        return self.resume(self.prepare(codes, 0, noise=noise), codes, 0, noise=noise)

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor | None:
        """All that happens before the code of ``layer`` comes in; depends on ``codes[:, :layer]`` alone."""
        del noise
        return self._advance(None, codes, 0, layer)

    def resume(self, state: Tensor | None, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor:
        """Images from the state that ``prepare`` left before ``layer``."""
        del noise
        x = cast(Tensor, self._advance(state, codes, layer, len(self.layer_widths)))
        mean, reciprocal = self.statistics()
        scale = self.gain * reciprocal
        shift = self.offset - mean * scale
        x = F.relu_(torch.addcmul(shift[:, None, None].to(x.dtype), x, scale[:, None, None].to(x.dtype)))
        return torch.tanh(widened(self.rgb(x)))

    def _advance(self, x: Tensor | None, codes: Tensor, start: int, stop: int) -> Tensor | None:
        """Layers ``start`` … ``stop - 1``, each with the attention that follows it."""
        for layer in range(start, stop):
            row = codes[:, layer, : self.layer_widths[layer]]
            if layer == 0:
                bottom = self.config.bottom
                flat = F.linear(row, self.dense_weight, self.dense_bias)
                x = keep_layout(flat.reshape(codes.shape[0], -1, bottom, bottom)).to(self.rgb.weight.dtype)
            else:
                x = self.blocks[layer - 1](x, row)
            if str(layer) in self.attention:
                x = self.attention[str(layer)](x)
        return x


def _enlarge(x: Tensor, *, up: bool) -> Tensor:
    """Repeat every pixel where the block doubles the resolution."""
    return F.interpolate(x, scale_factor=2.0) if up else x
