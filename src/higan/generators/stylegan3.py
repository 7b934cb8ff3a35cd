"""StyleGAN3, T and R: Karras et al., "Alias-Free Generative Adversarial Networks" (2021).

Low-pass filters come with the weights; everything else about the layers' geometry follows from a few numbers by the
rules of the paper's appendix C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from higan.generators.checks import check_clamp, check_config, check_picture
from higan.generators.convolution import convolve
from higan.generators.family import FamilyNetwork
from higan.generators.layers import SLOPE, Mapping, keep_layout, parameter, round_to, widened

__all__ = ["Geometry", "StyleGAN3Config", "StyleGAN3Network"]

_EPSILON = 1e-8


_LARGEST_FILTER = 64
"""Of what a header may ask: published models have kernels of 3, filters of 6 taps per sample, up-sampling by 2."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """One layer: sizes in pixels, rates in samples per image, the factors of its non-linearity, the padding of both."""

    size: int
    rate: float
    up: int
    down: int
    padding: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StyleGAN3Config:
    """Everything that fixes the shape of a `StyleGAN3Network`.

    ``channels`` lists the widths of the Fourier features, of every layer and of the image. The settings from
    ``critical`` to ``margin`` are those of the paper's section 3 and appendix C; ``filter_size`` and ``kernel`` those
    of its layers; ``radial`` marks the rotation-equivariant kind (R), whose filters are not separable.
    """

    resolution: int
    channels: tuple[int, ...]
    latent_dim: int = 512
    mapping: tuple[int, ...] = (512,) * 2
    num_classes: int = 0
    label_dim: int = 0
    critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin: int = 10
    kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    radial: bool = False
    clamp: float | None = 256.0
    output_scale: float = 0.25

    def __post_init__(self) -> None:
        check_config(self)
        check_picture(self.resolution, *self.channels[-1:])
        check_clamp(self.clamp)
        sizes = (self.kernel, self.filter_size, self.lrelu_upsampling)
        if min(sizes) < 1 or max(sizes) > _LARGEST_FILTER:
            raise ValueError(f"kernel, filter_size and lrelu_upsampling must lie in 1 … {_LARGEST_FILTER}; got {sizes}")
        bands = (self.first_cutoff, 2 * self.first_stopband, self.resolution * self.last_stopband_rel)
        if not bands[0] > 0 or min(bands[1:]) < 1:
            raise ValueError(
                "first_cutoff must be above 0, and stopbands must leave one sample per image or more; got first_cutoff "
                f"{self.first_cutoff}, first_stopband {self.first_stopband}, last_stopband_rel {self.last_stopband_rel}"
            )

    @property
    def depth(self) -> int:
        """Layers beside the Fourier features and the RGB."""
        return len(self.channels) - 2

    @property
    def num_layers(self) -> int:
        """L: the Fourier features, the layers and the RGB."""
        return self.depth + 2

    @property
    def code_dim(self) -> int:
        """D."""
        return self.mapping[-1]

    def bands(self) -> tuple[tuple[float, float, int], ...]:
        """Cutoff, sampling rate and size of every layer's output; the first is also that of the Fourier features.

        Raises:
            ValueError: there are not more layers than critically sampled ones.
        """
        if not 0 <= self.critical < self.depth or not 8 <= self.resolution <= 4096 or not 0 <= self.margin <= 64:
            raise ValueError(
                f"no StyleGAN3 has {self.depth} layers, {self.critical} of them critically sampled, "
                f"{self.resolution} pixels and a margin of {self.margin}"
            )
        last_cutoff = self.resolution / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        bands = []
        for layer in range(self.depth + 1):
            exponent = min(layer / (self.depth - self.critical), 1)
            cutoff = self.first_cutoff * (last_cutoff / self.first_cutoff) ** exponent
            stopband = self.first_stopband * (last_stopband / self.first_stopband) ** exponent
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, self.resolution)))
            size = self.resolution if layer >= self.depth - 1 else rate + 2 * self.margin
            bands.append((cutoff, float(rate), size))
        return tuple(bands)

    def geometry(self) -> tuple[Geometry, ...]:
        """Of every layer, the RGB last."""
        bands = self.bands()
        layers = []
        for layer, (_, rate, size) in enumerate(bands):
            _, rate_before, size_before = bands[max(layer - 1, 0)]
            rgb = layer == self.depth
            between = max(rate_before, rate) * (1 if rgb else self.lrelu_upsampling)
            up, down = round(between / rate_before), round(between / rate)
            taps_up = self.filter_size * up if up > 1 and not rgb else 1
            taps_down = self.filter_size * down if down > 1 and not rgb else 1
            total = (size - 1) * down + 1 - (size_before + (1 if rgb else self.kernel) - 1) * up
            total += taps_up + taps_down - 2
            low = (total + up) // 2
            layers.append(Geometry(size, rate, up, down, (low, total - low)))
        return tuple(layers)

    def taps(self, layer: int) -> tuple[int, int, bool]:
        """Lengths of the filters before and after the non-linearity (1: none), and whether the latter is 2-D."""
        geometry = self.geometry()[layer]
        if layer == self.depth:
            return 1, 1, False
        radial = self.radial and layer < self.depth - self.critical
        taps_up = self.filter_size * geometry.up if geometry.up > 1 else 1
        taps_down = self.filter_size * geometry.down if geometry.down > 1 else 1
        return taps_up, taps_down, radial and taps_down > 1


class FourierFeatures(nn.Module):
    """Waves of fixed frequencies, rotated and shifted by an affine function of the code (section 3.2)."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        channels = config.channels[0]
        self.bandwidth, self.rate, self.size = config.bands()[0]
        self.weight = parameter(channels, channels)
        self.affine_weight = parameter(4, config.code_dim)
        self.affine_bias = parameter(4)
        self.transform = parameter(3, 3)
        self.frequencies = parameter(channels, 2)
        self.phases = parameter(channels)

    def forward(self, code: Tensor) -> Tensor:
        """Features (n, channels, size, size) of a code (n, D)."""
        t = F.linear(code, self.affine_weight, self.affine_bias)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, x, y = t.unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).reshape(-1, 3, 3)
        transform = rotation @ shift @ self.transform
        phases = self.phases + (self.frequencies @ transform[:, :2, 2:])[..., 0]
        frequencies = self.frequencies @ transform[:, :2, :2]
        # Frequencies that a user's own transform pushes out of the band are damped.
        excess = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        reach = self.size / self.rate / 2
        axis = (torch.arange(self.size, device=code.device, dtype=code.dtype) * 2 + 1) / self.size - 1
        grid = torch.stack(torch.meshgrid(axis * reach, axis * reach, indexing="xy"), dim=-1).reshape(-1, 2)
        waves = torch.sin((grid @ frequencies.transpose(1, 2) + phases[:, None]) * (2 * math.pi)) * amplitudes[:, None]
        features = F.linear(waves, self.weight)
        return keep_layout(features.reshape(-1, self.size, self.size, self.weight.shape[0]).permute(0, 3, 1, 2))


class AliasFreeLayer(nn.Module):
    """Modulated convolution; leaky ReLU between an up- and a down-sampling filter (section 3.2, appendix C)."""

    def __init__(self, config: StyleGAN3Config, layer: int) -> None:
        super().__init__()
        self.rgb = layer == config.depth
        self.geometry = config.geometry()[layer]
        self.clamp = config.clamp
        self.kernel = 1 if self.rgb else config.kernel
        inputs, outputs = config.channels[layer], config.channels[layer + 1]
        self.weight = parameter(outputs, inputs, self.kernel, self.kernel)
        self.bias = parameter(outputs)
        self.style_weight = parameter(inputs, config.code_dim)
        self.style_bias = parameter(inputs)
        self.input_gain = parameter()
        taps_up, taps_down, square = config.taps(layer)
        self.up_filter = parameter(taps_up) if taps_up > 1 else None
        self.down_filter = parameter(*(taps_down,) * (1 + square)) if taps_down > 1 else None
        self.register_buffer("energy", torch.zeros(inputs, outputs), persistent=False)
        self.energy: Tensor
        self.register_load_state_dict_post_hook(_measure_energy)  # type: ignore[no-untyped-call]

    def lower(self, dtype: torch.dtype) -> None:
        """Keep all but the style in another precision."""
        round_to(dtype, self.weight, self.bias, self.up_filter, self.down_filter)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features of this layer with the style of a code (n, D)."""
        style = F.linear(code, self.style_weight, self.style_bias)
        gain: Tensor = self.input_gain
        if not self.rgb:
            style = style * torch.rsqrt(style.square().mean(1, keepdim=True))
            gain = gain * torch.rsqrt(style.square() @ self.energy + _EPSILON)[:, :, None, None]
        x = x.to(self.weight.dtype)
        x = convolve(x * style[:, :, None, None].to(x.dtype), self.weight, padding=self.kernel - 1)
        x = torch.addcmul(self.bias[:, None, None], x, gain.to(x.dtype))
        x = self._resampled_up(x)
        if not self.rgb:
            x = F.leaky_relu_(x, SLOPE)
        if self.clamp is not None:
            x = x.clamp(-self.clamp, self.clamp) if torch.is_grad_enabled() else x.clamp_(-self.clamp, self.clamp)
        return self._resampled_down(x)

    def _resampled_up(self, x: Tensor) -> Tensor:
        """Insert zeros and filter along each axis, then pad or crop; the filter holds the activation's gain."""
        low, high = self.geometry.padding
        if self.up_filter is None:
            return F.pad(x, (low, high, low, high))
        channels, taps, up = x.shape[1], self.up_filter.shape[0], self.geometry.up
        kernel = self.up_filter.expand(channels, 1, 1, taps).contiguous()
        x = F.conv_transpose2d(x, kernel, stride=(1, up), groups=channels)
        x = F.conv_transpose2d(x, kernel.transpose(2, 3), stride=(up, 1), groups=channels)
        # The transposed convolution is longer by the filter on either side than zero-insertion without padding.
        before, after = low - taps + 1, high - taps + up
        return F.pad(x, (before, after, before, after))

    def _resampled_down(self, x: Tensor) -> Tensor:
        if self.down_filter is None:
            return x
        channels, down = x.shape[1], self.geometry.down
        if self.down_filter.ndim == 2:
            kernel = self.down_filter.expand(channels, 1, *self.down_filter.shape).contiguous()
            return F.conv2d(x, kernel, stride=down, groups=channels)
        kernel = self.down_filter.expand(channels, 1, 1, -1).contiguous()
        x = F.conv2d(x, kernel, stride=(1, down), groups=channels)
        return F.conv2d(x, kernel.transpose(2, 3), stride=(down, 1), groups=channels)


@FamilyNetwork.register
class StyleGAN3Network(nn.Module):
    """Mapping, Fourier features, layers and RGB, with effective weights; no truncation, no checks."""

    family: ClassVar[str] = "stylegan3"
    default_truncation: ClassVar[tuple[float, int | None]] = (1.0, None)
    shared_code: ClassVar[bool] = True

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config.latent_dim, config.mapping, config.num_classes, config.label_dim, joint=False)
        self.mean_code = parameter(config.code_dim)
        self.input = FourierFeatures(config)
        self.layers = nn.ModuleList(AliasFreeLayer(config, layer) for layer in range(config.depth + 1))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer."""
        return (self.config.code_dim,) * self.config.num_layers

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes, margins included."""
        return (self.config.bands()[0][2], *(geometry.size for geometry in self.config.geometry()))

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision; codes, styles and Fourier features in float32 as before."""
        for layer in self.layers:
            cast(AliasFreeLayer, layer).lower(dtype)

    def draw(self, generator: torch.Generator) -> Float[Tensor, " Dz"]:
        """A standard normal latent."""
        return torch.randn(self.config.latent_dim, generator=generator)

    def map(self, z: Float[Tensor, "n Dz"], labels: Int64[Tensor, " n"] | None) -> Float[Tensor, "n L D"]:
        """One code per sample, shared by all layers."""
        return self.mapping(z, labels)[:, None].expand(-1, self.config.num_layers, -1)

    def synthesize(self, codes: Float[Tensor, "n L D"], *, noise: bool) -> Float[Tensor, "n C H W"]:
        """Images, unbounded, from truncated codes. There is no noise in this family."""
        return self.resume(self.prepare(codes, 0, noise=noise), codes, 0, noise=noise)

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor | None:
        """All that happens before the style of ``layer``; depends on ``codes[:, :layer]`` alone."""
        del noise
        return self._advance(None, codes, 0, layer)

    def resume(self, state: Tensor | None, codes: Float[Tensor, "n L D"], layer: int, *, noise: bool) -> Tensor:
        """Images from the state that ``prepare`` left before the style of ``layer``."""
        del noise
        image = cast(Tensor, self._advance(state, codes, layer, self.config.num_layers))
        return widened(image) * self.config.output_scale

    def _advance(self, x: Tensor | None, codes: Tensor, start: int, stop: int) -> Tensor | None:
        for k in range(start, stop):
            x = self.input(codes[:, 0]) if k == 0 else self.layers[k - 1](x, codes[:, k])
        return x


def _measure_energy(layer: nn.Module, _: object) -> None:
    """Squared weights summed over taps: all that demodulation needs to know of them."""
    if isinstance(layer, AliasFreeLayer):
        layer.energy.copy_(layer.weight.square().sum((2, 3)).T)
