"""Colour schemes: hue, saturation and lightness of walls, floor, furniture and textiles."""

from __future__ import annotations

import torch
from torch import Tensor

from higan.rooms.parts import Dice

__all__ = ["hsl_to_linear", "sample_palette"]


def hsl_to_linear(hsl: Tensor) -> Tensor:
    """Hue (turns), saturation, lightness → linear RGB; (…, 3) → (…, 3)."""
    hue, saturation, lightness = hsl.unbind(-1)
    amplitude = saturation * torch.minimum(lightness, 1 - lightness)
    channels = []
    for shift in (0.0, 8.0, 4.0):
        k = (shift + hue * 12) % 12
        channels.append(lightness - amplitude * torch.minimum(k - 3, 9 - k).clamp(-1, 1))
    return torch.stack(channels, -1).clamp(0, 1) ** 2.2


def sample_palette(dice: Dice, wood_floor: Tensor, wood_furniture: Tensor) -> Tensor:
    """Walls, floor, furniture, textiles as hue, saturation, lightness; (n, 4, 3)."""
    walls = torch.stack([dice.uniform(), dice.uniform(0.08, 0.5), dice.uniform(0.5, 0.88)], -1)
    plank = torch.stack([dice.uniform(0.055, 0.1), dice.uniform(0.35, 0.6), dice.uniform(0.28, 0.55)], -1)
    carpet = torch.stack([dice.uniform(), dice.uniform(0.03, 0.3), dice.uniform(0.35, 0.75)], -1)
    timber = torch.stack([dice.uniform(0.05, 0.095), dice.uniform(0.4, 0.65), dice.uniform(0.22, 0.5)], -1)
    paint = torch.stack([dice.uniform(), dice.uniform(0.0, 0.35), dice.uniform(0.3, 0.92)], -1)
    textile = torch.stack([dice.uniform(), dice.uniform(0.25, 0.7), dice.uniform(0.3, 0.68)], -1)
    floor = torch.where(wood_floor[:, None], plank, carpet)
    furniture = torch.where(wood_furniture[:, None], timber, paint)
    return torch.stack([walls, floor, furniture, textile], 1)
