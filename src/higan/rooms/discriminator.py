"""The discriminator that teaches the rooms generator: residual, as wide as the generator, grown with it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.generators.rooms_parts import EqualisedConv, EqualisedLinear, RoomsConfig

__all__ = ["Discriminator", "minibatch_std"]

_SLOPE = 0.2
_UNSHUFFLED_FROM = 64
"""From this resolution on pictures enter as blocks of 2×2 pixels: half the resolution, four times the channels."""


class ResidualBlock(nn.Module):
    """Halve the resolution: two convolutions, the second of stride two, beside an average-pooled skip."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        gain = math.sqrt(2)
        self.first = EqualisedConv(inputs, inputs, 3, generator, gain=gain)
        self.second = EqualisedConv(inputs, outputs, 3, generator, stride=2, gain=gain)
        self.skip = EqualisedConv(inputs, outputs, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h/2, w/2)."""
        y = F.leaky_relu(self.first(x), _SLOPE)
        y = F.leaky_relu(self.second(y), _SLOPE)
        return (y + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class Entry(nn.Module):
    """From RGB of one resolution to features."""

    def __init__(self, resolution: int, config: RoomsConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.unshuffle = resolution >= _UNSHUFFLED_FROM
        self.output_resolution = resolution // 2 if self.unshuffle else resolution
        outputs = config.channels_at(self.output_resolution)
        inputs, kernel = (12, 3) if self.unshuffle else (3, 1)
        self.conv = EqualisedConv(inputs, outputs, kernel, generator, gain=math.sqrt(2))

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, 3, H, W) to features at ``output_resolution``."""
        x = F.pixel_unshuffle(images, 2) if self.unshuffle else images
        return F.leaky_relu(self.conv(x.contiguous(memory_format=torch.channels_last)), _SLOPE)


def minibatch_std(x: Float[Tensor, "n c h w"], group: int) -> Float[Tensor, "n 1 h w"]:
    """Standard deviation over groups of consecutive samples, averaged over channels and pixels (Karras et al. 2018).

    Raises:
        ValueError: the batch does not divide into groups of that size.
    """
    n, c, h, w = x.shape
    if n % group:
        raise ValueError(f"a batch of {n} does not divide into groups of {group} for the minibatch standard deviation")
    grouped = x.float().reshape(n // group, group, c * h * w)
    centred = grouped - grouped.mean(1, keepdim=True)
    std = (centred.square().mean(1) + 1e-8).sqrt().mean(1)
    return std.repeat_interleave(group).to(x.dtype)[:, None, None, None].expand(n, 1, h, w)


class Discriminator(nn.Module):
    """Logits of being real; higher means more real.

    ``entries`` holds one entry per resolution from 8 pixels up: the last takes the pictures in, the one before takes
    part while the last resolution is faded in.
    """

    def __init__(self, config: RoomsConfig, *, group: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.group = group
        generator = torch.Generator().manual_seed(seed)
        self.blocks = nn.ModuleDict()
        self.entries = nn.ModuleDict()
        resolution = 8
        while resolution <= config.resolution:
            self.entries[str(resolution)] = entry = Entry(resolution, config, generator)
            finest = entry.output_resolution
            if str(finest) not in self.blocks:
                widths = config.channels_at(finest), config.channels_at(finest // 2)
                self.blocks[str(finest)] = ResidualBlock(*widths, generator)
            resolution *= 2
        width = config.channels_at(4)
        self.last = EqualisedConv(width + 1, width, 3, generator, gain=math.sqrt(2))
        self.hidden = EqualisedLinear(width * 16, width, generator, gain=math.sqrt(2))
        self.logit = EqualisedLinear(width, 1, generator)

    def forward(self, images: Float[Tensor, "n 3 H W"], fade: float = 1.0) -> Float[Tensor, " n"]:
        """Logits in float32, computed in the dtype of the images; ``fade`` as in the generator."""
        resolution = self.config.resolution
        x = self._entry(resolution)(images)
        if fade < 1:
            coarse = self._entry(resolution // 2)(F.avg_pool2d(images, 2))
            x = self._descend(x, coarse.shape[2])
            x = torch.lerp(coarse, x, fade)
        x = self._descend(x, 4)
        x = torch.cat([x, minibatch_std(x, min(self.group, x.shape[0]))], dim=1)
        x = F.leaky_relu(self.last(x.contiguous(memory_format=torch.channels_last)), _SLOPE)
        x = F.leaky_relu(self.hidden(x.flatten(1)), _SLOPE)
        return self.logit(x.float())[:, 0]

    def _entry(self, resolution: int) -> nn.Module:
        return self.entries[str(resolution)]

    def _descend(self, x: Tensor, resolution: int) -> Tensor:
        while x.shape[2] > resolution:
            x = self.blocks[str(x.shape[2])](x)
        return x
