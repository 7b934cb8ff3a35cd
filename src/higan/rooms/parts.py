"""What furniture is made of: boxes collected slot by slot for a whole batch of scenes, and the dice that place them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from higan.rooms.classes import class_index

__all__ = [
    "CEILING",
    "CHECKS",
    "DOORS",
    "FOLDS",
    "PICTURE",
    "PLAIN",
    "SCREEN",
    "STRIPES",
    "WINDOW",
    "WOOD",
    "Dice",
    "Parts",
]

PLAIN, WOOD, STRIPES, CHECKS, FOLDS, PICTURE, WINDOW, SCREEN, DOORS = range(9)
"""Textures."""

NUM_UNIFORMS = 256
FAR = -100.0  # where parts of absent objects are parked: below every ray
CEILING = 2.6


class Dice:
    """Hands out the uniform numbers of every scene in a fixed order."""

    def __init__(self, seeds: Sequence[int]) -> None:
        rows = [torch.rand(NUM_UNIFORMS, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        self._table = torch.stack(rows)
        self._next = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """The next number of every scene, (n,)."""
        column = self._table[:, self._next]
        self._next += 1
        return low + (high - low) * column

    def chance(self, probability: float) -> Tensor:
        """True with this probability."""
        return self.uniform() < probability

    def choice(self, n: int) -> Tensor:
        """One of 0 … n − 1."""
        return (self.uniform() * n).long().clamp(max=n - 1)


class Parts:
    """Collects the boxes of a batch of scenes; each entry is one slot for all of them."""

    def __init__(self, width: Tensor, depth: Tensor) -> None:
        self.width, self.depth = width, depth
        self.slots: list[tuple[Tensor, ...]] = []

    def add(
        self,
        name: str,
        bounds: tuple[Tensor, ...],
        colour: Tensor,
        present: Tensor | None = None,
        texture: Tensor | int = PLAIN,
        colour2: Tensor | None = None,
        frequency: Tensor | float = 3.0,
        glow: Tensor | float = 0.0,
    ) -> None:
        """One box (or the box around an ellipsoid): ``bounds`` is x0, x1, y0, y1, z0, z1."""
        n = len(self.width)
        corners = torch.stack([torch.as_tensor(b, dtype=torch.float32).expand(n) for b in bounds], -1)
        if present is not None:
            corners = torch.where(present[:, None], corners, torch.full_like(corners, FAR))
        self.slots.append(
            (
                corners[:, 0::2],
                corners[:, 1::2],
                torch.full((n,), class_index(name)),
                colour,
                colour if colour2 is None else colour2,
                torch.as_tensor(texture).expand(n),
                torch.as_tensor(frequency, dtype=torch.float32).expand(n),
                torch.as_tensor(glow, dtype=torch.float32).expand(n),
            )
        )

    def against(self, wall: Tensor, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Bounds x0, x1, z0, z1 of a footprint along (a) and out from (b) a wall: 0 left, 1 right, 2 back."""
        half = self.width / 2
        x0 = torch.where(wall == 0, -half + b[0], torch.where(wall == 1, half - b[1], a[0]))
        x1 = torch.where(wall == 0, -half + b[1], torch.where(wall == 1, half - b[0], a[1]))
        z0 = torch.where(wall == 2, self.depth - b[1], a[0])
        z1 = torch.where(wall == 2, self.depth - b[0], a[1])
        return x0, x1, z0, z1

    def add_against(
        self,
        name: str,
        wall: Tensor,
        a: tuple[Tensor, Tensor],
        b: tuple[Tensor, Tensor],
        y: tuple[Tensor | float, Tensor | float],
        colour: Tensor,
        **look: Any,
    ) -> None:
        """One box that stands against a wall; see ``against`` and ``add``."""
        x0, x1, z0, z1 = self.against(wall, a, b)
        lo, hi = (torch.as_tensor(v, dtype=torch.float32) for v in y)
        self.add(name, (x0, x1, lo, hi, z0, z1), colour, **look)

    def stacked(self, slots: int) -> list[Tensor]:
        """Every field as (n, slots, …), empty slots parked."""
        missing = slots - len(self.slots)
        if missing < 0:
            raise RuntimeError(f"{len(self.slots)} parts do not fit {slots} slots")
        stacked = [torch.stack(column, 1) for column in zip(*self.slots, strict=True)]
        if missing == 0:
            return stacked
        padded = []
        for field, value in enumerate(stacked):
            empty = torch.full_like(value[:, :1], FAR if field < 2 else 0)
            padded.append(torch.cat([value, empty.expand(-1, missing, *value.shape[2:])], 1))
        return padded
