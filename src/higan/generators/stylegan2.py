"""StyleGAN2 and StyleGAN2-ADA: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020).

Modulation scales the activations rather than the weights, so that one convolution serves the whole batch: multiplying
the weights per sample and demodulating them (section 2.2) is the same sum in another order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from higan.generators.checks import check_clamp, check_config, check_picture
from higan.generators.convolution import convolve
from higan.generators.family import FamilyNetwork
from higan.generators.layers import SLOPE, Mapping, check_resolution, depthwise, keep_layout, parameter, round_to

__all__ = ["Architecture", "StyleGAN2Config", "StyleGAN2Network"]

Architecture = Literal["skip", "resnet", "orig"]
State = tuple[Tensor, Tensor | None, Tensor | None]
"""Features; the image so far (skip); the residual branch of the block being computed (resnet)."""

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class StyleGAN2Config:
    """Everything that fixes the shape of a `StyleGAN2Network`.

    ``channels`` lists the widths at 4, 8, 16, … pixels. ``skip`` adds up the RGB of all resolutions, ``resnet`` has
    residual blocks, ``orig`` neither. ``clamp`` bounds activations where the network was trained in half precision.
    ``joint_norm`` tells whether latent and class embedding are normalised as one vector, ``noise`` whether layers have
    noise maps: where a file has none, none take up memory.
    """

    resolution: int
    channels: tuple[int, ...]
    latent_dim: int = 512
    mapping: tuple[int, ...] = (512,) * 8
    num_classes: int = 0
    label_dim: int = 0
    joint_norm: bool = True
    architecture: Architecture = "skip"
    clamp: float | None = None
    filter_taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    image_channels: int = 3
    noise: bool = True

    def __post_init__(self) -> None:
        check_config(self)
        check_picture(self.resolution, self.image_channels)
        check_clamp(self.clamp)
        check_resolution(self.resolution, len(self.channels))
        if len(self.filter_taps) != 4 or not 0 < abs(sum(self.filter_taps)) < math.inf:
            raise ValueError(f"filter_taps must be four numbers whose sum is not 0; got {self.filter_taps}")

    @property
    def num_layers(self) -> int:
        """L, two per resolution from 4 pixels up."""
        return 2 * len(self.channels)

    @property
    def code_dim(self) -> int:
        """D."""
        return self.mapping[-1]


class ModulatedLayer(nn.Module):
    """Modulate, convolve, demodulate; noise, bias, leaky ReLU. Bias and noise map hold the activation's gain."""

    def __init__(
        self, inputs: int, outputs: int, resolution: int, config: StyleGAN2Config, *, up: bool, gain: float
    ) -> None:
        super().__init__()
        self.up = up
        self.gain = gain
        self.clamp = None if config.clamp is None else config.clamp * (gain / math.sqrt(2))
        self.weight = parameter(inputs, outputs, 3, 3) if up else parameter(outputs, inputs, 3, 3)
        self.bias = parameter(outputs)
        self.noise = parameter(1, 1, resolution, resolution) if config.noise else None
        self.style_weight = parameter(inputs, config.code_dim)
        self.style_bias = parameter(inputs)
        self.register_buffer("fir", _filter(config.filter_taps), persistent=False)
        self.register_buffer("energy", torch.zeros(inputs, outputs), persistent=False)
        self.fir: Tensor
        self.energy: Tensor
        self.register_load_state_dict_post_hook(_measure_energy)  # type: ignore[no-untyped-call]

    def lower(self, dtype: torch.dtype) -> None:
        """Keep all but the style in another precision."""
        round_to(dtype, self.weight, self.bias, self.noise, self.fir)

    def forward(self, x: Tensor, code: Tensor, *, noise: bool) -> Tensor:
        """Features of this layer with the style of a code (n, D)."""
        style = F.linear(code, self.style_weight, self.style_bias)
        demodulation = torch.rsqrt(style.square() @ self.energy + _EPSILON) * self.gain
        if x.dtype == torch.float16:
            # Whatever the style, modulated features then stay within what float16 can hold.
            largest = style.abs().amax(1, keepdim=True).clamp(min=_EPSILON)
            style, demodulation = style / largest, demodulation * largest
        demodulation = demodulation.to(x.dtype)
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = depthwise(F.conv_transpose2d(x, self.weight, stride=2), self.fir, padding=1)
        else:
            x = convolve(x, self.weight, padding=1)
        x = _in_place_without_graph(x, demodulation[:, :, None, None]).add_(self.bias[:, None, None])
        if noise and self.noise is not None:
            x = x.add_(self.noise)
        x = F.leaky_relu_(x, SLOPE)
        if self.clamp is None:
            return x
        return x.clamp(-self.clamp, self.clamp) if torch.is_grad_enabled() else x.clamp_(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution without demodulation."""

    def __init__(self, inputs: int, config: StyleGAN2Config) -> None:
        super().__init__()
        self.clamp = config.clamp
        self.weight = parameter(config.image_channels, inputs)
        self.bias = parameter(config.image_channels, 1)
        self.style_weight = parameter(inputs, config.code_dim)
        self.style_bias = parameter(inputs)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """RGB of features (n, c, h, w) with the style of a code (n, D)."""
        style = F.linear(code, self.style_weight, self.style_bias)
        rgb = torch.matmul((self.weight * style[:, None]).to(x.dtype), x.flatten(2)).to(self.bias.dtype) + self.bias
        rgb = rgb.reshape(x.shape[0], -1, *x.shape[2:])
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


@FamilyNetwork.register
class StyleGAN2Network(nn.Module):
    """Mapping, layers and RGB, with effective weights; no truncation, no checks.

    Layer k is the k-th modulated convolution; an odd code also styles the RGB of the resolution that ends before it,
    and the last code only the last RGB.
    """

    family: ClassVar[str] = "stylegan2"
    default_truncation: ClassVar[tuple[float, int | None]] = (0.5, None)
    shared_code: ClassVar[bool] = True

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(
            config.latent_dim, config.mapping, config.num_classes, config.label_dim, joint=config.joint_norm
        )
        self.mean_code = parameter(config.code_dim)
        self.constant = parameter(1, config.channels[0], 4, 4)
        self.layers = nn.ModuleList()
        self.rgb = nn.ModuleDict()
        self.shortcuts = nn.ParameterDict()
        inputs = config.channels[0]
        last = len(config.channels) - 1
        for level, width in enumerate(config.channels):
            residual = config.architecture == "resnet" and level > 0
            if residual:
                self.shortcuts[str(level)] = parameter(width, inputs, 1, 1)
            if level > 0:
                self.layers.append(ModulatedLayer(inputs, width, 4 << level, config, up=True, gain=math.sqrt(2)))
            gain = 1.0 if residual else math.sqrt(2)
            self.layers.append(ModulatedLayer(width, width, 4 << level, config, up=False, gain=gain))
            if level == last or config.architecture == "skip":
                self.rgb[str(level)] = ToRGB(width, config)
            inputs = width
        self.register_buffer("fir", _filter(config.filter_taps), persistent=False)
        self.fir: Tensor

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer."""
        return (self.config.code_dim,) * self.config.num_layers

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        return tuple(min(4 << (k + 1) // 2, self.config.resolution) for k in range(self.config.num_layers))

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision; codes, styles and the sum of RGB in float32 as before."""
        for layer in self.layers:
            cast(ModulatedLayer, layer).lower(dtype)
        round_to(dtype, self.constant, *self.shortcuts.values())

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
        state: State = (keep_layout(self.constant.repeat(codes.shape[0], 1, 1, 1)), None, None)
        for k in range(layer):
            state = self._step(state, codes[:, k], k, noise=noise)
        return state

    def resume(self, state: State, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor:
        """Images from the state that ``prepare`` left before the style of ``layer``."""
        for k in range(layer, self.config.num_layers):
            state = self._step(state, codes[:, k], k, noise=noise)
        image = state[1]
        if image is None:
            raise ValueError(f"there is no layer {layer}")
        return image

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into the scales of its convolution; of the last, of its RGB."""
        last = layer == self.config.num_layers - 1
        part = self.rgb[str(len(self.config.channels) - 1)] if last else self.layers[layer]
        return cast(Tensor, part.style_weight)

    def _step(self, state: State, code: Tensor, k: int, *, noise: bool) -> State:
        """Everything that the code of layer ``k`` styles."""
        x, image, residual = state
        if k % 2 == 0:
            x = self.layers[k](x, code, noise=noise)
            return (x if residual is None else x + residual), image, None
        level = str(k // 2)
        if level in self.rgb:
            rgb = self.rgb[level](x, code)
            image = rgb if image is None else rgb + self._upsample(image)
        if k == self.config.num_layers - 1:
            return x, image, None
        above = str(k // 2 + 1)
        if above in self.shortcuts:
            residual = self._upsample(F.conv2d(x, self.shortcuts[above]))
        return self.layers[k](x, code, noise=noise), image, residual

    def _upsample(self, x: Tensor) -> Tensor:
        """Insert zeros and filter."""
        channels = x.shape[1]
        kernel = self.fir.to(x.dtype).expand(channels, 1, 4, 4).contiguous()
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def _filter(taps: tuple[float, ...]) -> Float[Tensor, "4 4"]:
    """Separable low-pass filter whose gain makes up for the zeros inserted by up-sampling."""
    kernel = torch.tensor(taps)
    return torch.outer(kernel, kernel) * (4 / kernel.sum().square())


def _measure_energy(layer: nn.Module, _: object) -> None:
    """Squared weights summed over taps: all that demodulation needs to know of them."""
    if not isinstance(layer, ModulatedLayer):
        return
    squares = layer.weight.square().sum((2, 3))
    layer.energy.copy_(squares if layer.up else squares.T)


def _in_place_without_graph(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply, re-using memory where no gradient needs the factor's input."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)
