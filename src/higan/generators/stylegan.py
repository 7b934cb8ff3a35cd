"""StyleGAN: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019).

Both kinds of up-sampling of the original (nearest up-sampling then convolution, and the fused transposed
convolution) are one transposed convolution with 4×4 taps here; the converters fold the weights accordingly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from higan.generators.checks import check_config, check_picture
from higan.generators.convolution import convolve
from higan.generators.family import FamilyNetwork
from higan.generators.layers import (
    SLOPE,
    Mapping,
    affine_instance_norm,
    check_resolution,
    depthwise,
    faded_levels,
    keep_layout,
    parameter,
    round_to,
)

__all__ = ["StyleGANConfig", "StyleGANNetwork"]

State = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class StyleGANConfig:
    """Everything that fixes the shape of a `StyleGANNetwork`.

    ``channels`` lists the widths at 4, 8, 16, … pixels. ``lod`` is the level of detail at which training stood: 0 when
    it is finished, 1 when only half the resolution has been reached; fractions blend two resolutions.
    """

    resolution: int
    channels: tuple[int, ...]
    latent_dim: int = 512
    mapping: tuple[int, ...] = (512,) * 8
    num_classes: int = 0
    label_dim: int = 0
    lod: float = 0.0
    image_channels: int = 3

    def __post_init__(self) -> None:
        check_config(self)
        check_picture(self.resolution, self.image_channels)
        check_resolution(self.resolution, len(self.channels))

    @property
    def num_layers(self) -> int:
        """L, two per resolution from 4 pixels up."""
        return 2 * len(self.channels)

    @property
    def code_dim(self) -> int:
        """D."""
        return self.mapping[-1]


class StyleLayer(nn.Module):
    """Convolution (none in the first layer), noise, leaky ReLU; then normalisation and style."""

    def __init__(self, inputs: int | None, outputs: int, resolution: int, code_dim: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        if inputs is None:
            self.weight = parameter(1, outputs, 4, 4)
        else:
            self.weight = parameter(inputs, outputs, 4, 4) if up else parameter(outputs, inputs, 3, 3)
        self.first = inputs is None
        self.bias = parameter(outputs)
        self.noise = parameter(1, 1, resolution, resolution)
        self.noise_strength = parameter(1, outputs, 1, 1)
        self.style_weight = parameter(2 * outputs, code_dim)
        self.style_bias = parameter(2 * outputs)
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", torch.outer(taps, taps), persistent=False)
        self.blur: Tensor

    def lower(self, dtype: torch.dtype) -> None:
        """Keep all but the style in another precision."""
        round_to(dtype, self.weight, self.bias, self.noise, self.noise_strength, self.blur)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Both halves; see `torch.nn.Module.compile`."""
        for half in ("activate", "stylise"):
            setattr(self, half, torch.compile(getattr(self, half), *args, **kwargs))

    def activate(self, x: Tensor, *, noise: bool) -> Tensor:
        """All that comes before normalisation and style; the first layer's input is only a batch of any content."""
        if self.first:
            x = keep_layout((self.weight + self.bias[:, None, None]).repeat(x.shape[0], 1, 1, 1))
        elif self.up:
            x = F.conv_transpose2d(x, self.weight, stride=2, padding=1)
            x = depthwise(x, self.blur, self.bias, padding=1)
        else:
            x = convolve(x, self.weight, self.bias, padding=1)
        if noise:
            x = x.addcmul_(self.noise, self.noise_strength)
        return F.leaky_relu_(x, SLOPE)

    def stylise(self, x: Tensor, code: Tensor) -> Tensor:
        """AdaIN with the style of a code (n, D)."""
        scale, shift = F.linear(code, self.style_weight, self.style_bias).chunk(2, dim=1)
        return affine_instance_norm(x, scale, shift)


@FamilyNetwork.register
class StyleGANNetwork(nn.Module):
    """Mapping, layers and RGB, with effective weights; no truncation, no checks."""

    family: ClassVar[str] = "stylegan"
    default_truncation: ClassVar[tuple[float, int | None]] = (0.7, 8)
    shared_code: ClassVar[bool] = True

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config.latent_dim, config.mapping, config.num_classes, config.label_dim)
        self.mean_code = parameter(config.code_dim)
        self.layers = nn.ModuleList()
        self.rgb_weights = nn.ParameterDict()
        self.rgb_biases = nn.ParameterDict()
        inputs: int | None = None
        for level, width in enumerate(config.channels):
            for up in (level > 0, False):
                self.layers.append(StyleLayer(inputs, width, 4 << level, config.code_dim, up=up))
                inputs = width
        for level in faded_levels(len(config.channels), config.lod):
            self.rgb_weights[str(4 << level)] = parameter(config.image_channels, config.channels[level], 1, 1)
            self.rgb_biases[str(4 << level)] = parameter(config.image_channels)

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer."""
        return (self.config.code_dim,) * self.config.num_layers

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        return tuple(4 << k // 2 for k in range(self.config.num_layers))

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision, codes and styles in float32 as before."""
        for layer in self.layers:
            cast(StyleLayer, layer).lower(dtype)
        round_to(dtype, *self.rgb_weights.values(), *self.rgb_biases.values())

    def draw(self, generator: torch.Generator) -> Float[Tensor, " Dz"]:
        """A standard normal latent."""
        return torch.randn(self.config.latent_dim, generator=generator)

    def map(self, z: Float[Tensor, "n Dz"], labels: Int64[Tensor, " n"] | None) -> Float[Tensor, "n L D"]:
        """One code per sample, shared by all layers."""
        return self.mapping(z, labels)[:, None].expand(-1, self.config.num_layers, -1)

    def synthesize(self, codes: Float[Tensor, "n L D"], *, noise: bool) -> Float[Tensor, "n C H W"]:
        """Images, unbounded, from truncated codes."""
        return self.resume(self.prepare(codes, 0, noise=noise), codes, 0, noise=noise)

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> State:
        """All that happens before the style of ``layer``; depends on ``codes[:, :layer]`` alone."""
        x = self._layer(0).activate(codes, noise=noise)
        return self._advance((x, None), codes, 0, layer, noise=noise)

    def resume(self, state: State, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor:
        """Images from the state that ``prepare`` left before the style of ``layer``."""
        last = 2 * faded_levels(len(self.config.channels), self.config.lod)[-1] + 1
        if layer <= last:
            x, image = self._advance(state, codes, layer, last, noise=noise)
            image = self._fade_in(self._layer(last).stylise(x, codes[:, last]), image, last)
        else:
            _, image = state
        if image is None:
            raise ValueError(f"this state was prepared for a layer before {layer}")
        return F.interpolate(image, scale_factor=2.0 ** math.floor(self.config.lod)) if self.config.lod >= 1 else image

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into its scales and shifts."""
        return self._layer(layer).style_weight

    def _layer(self, k: int) -> StyleLayer:
        return cast(StyleLayer, self.layers[k])

    def _advance(self, state: State, codes: Tensor, start: int, stop: int, *, noise: bool) -> State:
        """From before the style of layer ``start`` to before that of layer ``stop``."""
        x, image = state
        finest = 2 * faded_levels(len(self.config.channels), self.config.lod)[-1] + 1
        for layer in range(start, stop):
            if layer > finest:
                break
            x = self._layer(layer).stylise(x, codes[:, layer])
            image = self._fade_in(x, image, layer)
            if layer < finest:
                x = self._layer(layer + 1).activate(x, noise=noise)
        return x, image

    def _fade_in(self, x: Tensor, image: Tensor | None, layer: int) -> Tensor | None:
        """The image so far, where ``layer`` ends a resolution whose RGB takes part in it."""
        key = str(4 << (layer // 2))
        if layer % 2 == 0 or key not in self.rgb_weights:
            return image
        rgb = F.conv2d(x, self.rgb_weights[key], self.rgb_biases[key])
        if image is None:
            return rgb
        coarse = F.interpolate(image, scale_factor=2.0)
        return torch.lerp(rgb, coarse, self.config.lod % 1)
