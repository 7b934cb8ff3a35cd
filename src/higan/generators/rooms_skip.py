"""The rooms generator as a StyleGAN2: modulated convolutions, and the RGB of all resolutions added up.

After Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), sections 2.2 and 4.1, reduced to
the size of the default generator, with which it shares mapping, widths and number of layers, 2·log2(resolution) - 2.
As there, an odd code styles the RGB of the resolution that ends before its convolution, and the last code only the
last RGB. No noise inputs. Scaling activations instead of weights lets one convolution serve the whole batch.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.generators.rooms_parts import SLOPE, EqualisedLinear, MappingNetwork, RoomsConfig, drawn, upsample

__all__ = ["SkipNetwork", "SkipState"]

SkipState = tuple[Tensor, Tensor]
"""Features, and the image so far at the resolution before theirs."""

_EPSILON = 1e-8


class ModulatedConv(nn.Module):
    """Convolution whose inputs the code scales and, if ``demodulate``, whose outputs are brought back to unit size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, code_dim: int, generator: torch.Generator, *, demodulate: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, inputs, kernel, kernel, generator=generator))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = EqualisedLinear(code_dim, inputs, generator)
        self.demodulate = demodulate
        self.scale = 1 / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h, w) in the dtype of ``x``, with the style of a code (n, D)."""
        style = 1 + self.style(code)
        weight = self.weight * self.scale
        kernel = weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(_scaled(x, style), kernel, padding=kernel.shape[2] // 2)
        if self.demodulate:
            energy = style.square() @ weight.square().sum((2, 3)).T.to(style.dtype)
            y = _scaled(y, torch.rsqrt(energy + _EPSILON))
        return y + self.bias.to(y.dtype)[:, None, None]


class SkipLayer(nn.Module):
    """Modulated convolution, up-sampling where the resolution doubles, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, code_dim: int, generator: torch.Generator, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, code_dim, generator, demodulate=True)
        self.up = up

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features with the style of a code (n, D)."""
        x = self.conv(x, code)
        # Convolving first costs a quarter of convolving the up-sampled map.
        return F.leaky_relu(upsample(x) if self.up else x, SLOPE) * math.sqrt(2)


def _scaled(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n c"]) -> Float[Tensor, "n c h w"]:
    """Every channel of every sample times a factor."""
    return x * factor.to(x.dtype)[:, :, None, None]


class SkipNetwork(nn.Module):
    """The network alone, with the methods of `higan.generators.rooms.RoomsNetwork`; no truncation, no checks."""

    def __init__(self, config: RoomsConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.mapping = MappingNetwork(config, generator)
        inputs = config.channels_at(4)
        self.constant = nn.Parameter(drawn(inputs, 4, 4, generator=generator))
        self.layers = nn.ModuleList()
        self.to_rgb = nn.ModuleDict()
        for k in range(2, config.resolution.bit_length()):
            width = config.channels_at(2**k)
            for up in (True, False) if k > 2 else (False,):
                self.layers.append(SkipLayer(inputs, width, config.code_dim, generator, up=up))
                inputs = width
            self.to_rgb[str(2**k)] = ModulatedConv(width, 3, 1, config.code_dim, generator, demodulate=False)

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        last = self.config.resolution
        return tuple(min(4 << (k + 1) // 2, last) for k in range(self.config.num_layers))

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n D"]:
        """The code that all layers of a sample share."""
        code: Tensor = self.mapping(z)
        return code

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int, dtype: torch.dtype = torch.float32) -> SkipState:
        """Everything before the style of ``layer``; it depends on ``codes[:, :layer]`` alone."""
        constant = self.constant.to(dtype)
        x = constant.expand(codes.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return self._advance((x, x.new_zeros(x.shape[0], 3, 2, 2)), codes, 0, layer)

    def resume(self, state: SkipState, codes: Float[Tensor, "n L D"], layer: int) -> Tensor:
        """Finish from the state that ``prepare`` left before the style of ``layer``: RGB (n, 3, H, W), unbounded."""
        return self._finish(self._advance(state, codes, layer, self.config.num_layers - 1), codes)

    def forward(self, codes: Float[Tensor, "n L D"], dtype: torch.dtype = torch.float32, fade: float = 1.0) -> Tensor:
        """RGB (n, 3, H, W), unbounded, in ``dtype``; ``fade`` below 1 weakens what the last resolution adds."""
        return self._finish(self.prepare(codes, self.config.num_layers - 1, dtype), codes, fade)

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into the scales of its RGB, if any, and of its convolution."""
        styles = [part.style for part in (self._rgb(layer), self._conv(layer)) if part is not None]
        return torch.cat([style.weight * style.scale for style in styles])

    def _conv(self, layer: int) -> ModulatedConv | None:
        return cast(SkipLayer, self.layers[layer]).conv if layer < len(self.layers) else None

    def _rgb(self, layer: int) -> ModulatedConv | None:
        return cast(ModulatedConv, self.to_rgb[str(4 << layer // 2)]) if layer % 2 else None

    def _advance(self, state: SkipState, codes: Tensor, start: int, stop: int) -> SkipState:
        """From before the style of layer ``start`` to before that of layer ``stop``."""
        x, image = state
        for layer in range(start, stop):
            rgb = self._rgb(layer)
            if rgb is not None:
                image = upsample(image) + rgb(x, codes[:, layer])
            x = self.layers[layer](x, codes[:, layer])
        return x, image

    def _finish(self, state: SkipState, codes: Tensor, fade: float = 1.0) -> Tensor:
        """All that the last code does: the last RGB."""
        x, image = state
        return upsample(image) + fade * self.to_rgb[str(self.config.resolution)](x, codes[:, -1])
