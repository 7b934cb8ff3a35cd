"""Networks for pictures twice as large that begin where the trained ones stood.

Progressive growing (Karras et al. 2018) lets new layers learn from nothing while they are faded in. Where the last
style before the only RGB sets the colours, as in the StyleGAN type, that unlearns all colours: instance norm wipes out
what the old last layer gave. Here three channels of the generator's new layers carry the old picture from the start,
and their styles give back the mean and spread that instance norm takes from it, as linear functions of the code. For
the mean there is one such function, but for the picture's edge under an RGB of 3 × 3 pixels; for the spread it is the
best there is. The discriminator's new block hands on what the old entry saw of the picture averaged down.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from higan.generators.rooms import RoomsNetwork, StyleLayer
from higan.generators.rooms_parts import SLOPE, EqualisedConv, upsample
from higan.rooms.discriminator import Discriminator, Entry, ResidualBlock

__all__ = ["graft", "graft_discriminator"]

_SAMPLES = 2048
_BATCH = 64
_OFFSET = 1.5
"""Lifts a picture above zero, where the leaky ReLU leaves it alone."""


@torch.no_grad()
def graft(grown: RoomsNetwork, trained: RoomsNetwork) -> None:
    """Set the last two layers and the RGB of ``grown`` so that they double the pictures of ``trained``.

    Args:
        grown: has twice the resolution, and the weights of ``trained`` wherever both have them; changed in place, but
            for last layers of fewer than three channels, which no picture fits into.
        trained: the generator that it grew from.
    """
    old, new = (_rgb(network) for network in (trained, grown))
    if new.weight.shape[1] < 3:
        return
    spread, mean = _statistics(trained)
    first, second = (cast(StyleLayer, layer) for layer in grown.layers[-2:])
    _copy_rows(first, old.weight * old.scale, old.bias)
    _copy_rows(second, torch.eye(3, new.weight.shape[1]).to(new.weight)[:, :, None, None], torch.zeros_like(old.bias))
    for layer in (first, second):
        width = layer.style.weight.shape[0] // 2
        for start, (weight, bias) in ((0, spread), (width, mean)):
            layer.style.weight[start : start + 3] = weight / layer.style.scale
            layer.style.bias[start : start + 3] = bias
    new.weight.zero_()
    centre = new.weight.shape[2] // 2
    new.weight[:, :3, centre, centre] = torch.eye(3).to(new.weight) / new.scale
    new.bias.zero_()


@torch.no_grad()
def graft_discriminator(grown: Discriminator, trained: Discriminator) -> None:
    """Set entry and first block of ``grown`` so that it judges pictures as ``trained`` does when averaged down.

    That holds but for what the block's convolutions cannot see at the picture's edge. Values pass leaky ReLUs in pairs,
    v and -v: activated, they differ by (1 + slope) v. Four copies of the averaged picture are shifted by -1 or 2 pixels
    each way, so that the block's strided 3 × 3 taps reach the 6 × 6 pixels of the old entry.

    Args:
        grown: has twice the resolution, and the weights of ``trained`` wherever both have them; changed in place, but
            for entries that are not blocks of 2 × 2 pixels on both sides, or have fewer than 24 channels.
        trained: the discriminator that it grew from.
    """
    entry, old = (cast(Entry, network.entries[str(network.config.resolution)]) for network in (grown, trained))
    block = cast(ResidualBlock, grown.blocks[str(entry.output_resolution)])
    if not (entry.unshuffle and old.unshuffle) or block.first.weight.shape[0] < 24:
        return
    kept = slice(0, 24)
    for conv, rows in ((entry.conv, kept), (block.first, kept), (block.second, slice(None)), (block.skip, slice(None))):
        conv.weight[rows] = 0
        conv.bias[rows] = 0
    weight = old.conv.weight * old.conv.scale * math.sqrt(2)  # The block halves the square of what it adds up.
    block.second.bias[:] = old.conv.bias * math.sqrt(2)
    for copy, (far_y, far_x) in enumerate(itertools.product((False, True), repeat=2)):
        for colour in range(3):
            pair = 6 * copy + 2 * colour
            for sign, channel in ((1, pair), (-1, pair + 1)):
                entry.conv.weight[channel, 4 * colour : 4 * colour + 4, 2 * far_y, 2 * far_x] = sign / 4
                for other, half in ((pair, sign), (pair + 1, -sign)):
                    block.first.weight[channel, other, 1 + far_y, 1 + far_x] = half / (1 + SLOPE)
                for y, x in itertools.product(range(3), repeat=2):
                    # Pixels -2 … 0 are seen by the copy that lies near, 1 … 3 by the far one.
                    row, column = y - 2 + 3 * far_y, x - 2 + 3 * far_x
                    seen = weight[:, 4 * colour + 2 * (row % 2) + column % 2, row // 2 + 1, column // 2 + 1]
                    block.second.weight[:, channel, y, x] = sign * seen / (1 + SLOPE)
    for conv, rows in ((entry.conv, kept), (block.first, kept), (block.second, slice(None))):
        conv.weight[rows] /= conv.scale


def _rgb(network: RoomsNetwork) -> EqualisedConv:
    return cast(EqualisedConv, network.to_rgb[str(network.config.resolution)])


def _copy_rows(layer: StyleLayer, weight: Float[Tensor, "3 c k k"], bias: Float[Tensor, "3"]) -> None:
    """Let the first three channels of a layer's convolution be a 1×1 or 3×3 convolution of what comes in."""
    conv = cast(EqualisedConv, layer.conv)
    margin = (conv.weight.shape[2] - weight.shape[2]) // 2
    conv.weight[:3] = F.pad(weight, [margin] * 4) / conv.scale
    conv.bias[:3] = bias + _OFFSET


def _statistics(network: RoomsNetwork) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Linear functions of the code, as weights (3, D) and biases (3,): spread of the doubled picture less 1, mean."""
    random = torch.Generator().manual_seed(0)
    codes, found = [], []
    for start in range(0, _SAMPLES, _BATCH):
        z = torch.randn(min(_BATCH, _SAMPLES - start), network.config.latent_dim, generator=random)
        code = network.map(z.to(network.constant.device))
        images = upsample(network(code[:, None].expand(-1, len(network.layers), -1)))
        codes.append(code)
        found.append(torch.cat([images.std((2, 3), correction=0) - 1, images.mean((2, 3))], 1))
    x = torch.cat(codes)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1).cpu().double()
    solution = torch.linalg.lstsq(x, torch.cat(found).cpu().double()).solution.T.to(network.constant)
    weight, bias = solution[:, :-1], solution[:, -1]
    return (weight[:3], bias[:3]), (weight[3:], bias[3:])
