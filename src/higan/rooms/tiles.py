"""Rays in tiles of neighbours, with bounds of what a tile can meet: most solids need no look from most of them.

Bounds are computed as the rays themselves are, by operations that rounding leaves monotonic, so that they hold to the
last bit: what is left out would have changed nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Vector", "distances", "from_tiles", "num_tiles", "rows_of", "some", "spans", "to_tiles"]

_SIDE = 16

Vector = tuple[Tensor, Tensor, Tensor]


def tile_side(side: int) -> int:
    """The divisor of a picture's side that is nearest to 16 by ratio."""
    return min((d for d in range(1, side + 1) if side % d == 0), key=lambda d: abs(math.log(d / _SIDE)))


def num_tiles(samples: int) -> int:
    """Tiles of a square picture of so many samples."""
    return samples // tile_side(math.isqrt(samples)) ** 2


def to_tiles(picture: Tensor) -> Tensor:
    """(…, side, side) → (…, side²), tile by tile."""
    *more, side, _ = picture.shape
    tile = tile_side(side)
    return picture.unflatten(-2, (-1, tile)).unflatten(-1, (-1, tile)).transpose(-3, -2).reshape(*more, side * side)


def from_tiles(samples: Tensor, side: int) -> Tensor:
    """(…, side²), tile by tile → (…, side, side)."""
    *more, _ = samples.shape
    tile = tile_side(side)
    parts = samples.unflatten(-1, (side // tile, side // tile, tile, tile)).transpose(-3, -2)
    return parts.reshape(*more, side, side)


def rows_of(vector: Vector, tiles: int) -> Vector:
    """(n, P) → (n · tiles, P / tiles); (n, 1) → (n · tiles, 1)."""
    x, y, z = (v.repeat_interleave(tiles, 0) if v.shape[1] == 1 else v.reshape(len(v) * tiles, -1) for v in vector)
    return x, y, z


def some(vector: Vector, rows: Tensor) -> Vector:
    """These rows."""
    x, y, z = vector
    return x[rows], y[rows], z[rows]


def spans(low: Tensor, high: Tensor, start: Vector, inverse: Vector) -> tuple[Tensor, Tensor]:
    """No ray of a tile enters a box before the first of these, nor leaves it after the second; both (R, s).

    Args:
        low: least corners of s boxes for every tile, (R, s, 3).
        high: their largest corners.
        start: where rays begin, (R, S) or (R, 1) each.
        inverse: one over their directions, (R, S) each.
    """
    entries, exits = [], []
    for axis in range(3):
        a = low[..., axis] - start[axis].amax(1, keepdim=True)
        b = high[..., axis] - start[axis].amin(1, keepdim=True)
        least, most = inverse[axis].aminmax(dim=1, keepdim=True)
        ends = torch.stack([a * least, a * most, b * least, b * most])
        entries.append(ends.amin(0))
        exits.append(ends.amax(0))
    return torch.stack(entries).amax(0), torch.stack(exits).amin(0)


def distances(low: Tensor, high: Tensor, points: Vector) -> Tensor:
    """No point of a tile is nearer to a box than this, squared; (R, s). Arguments as in `spans`."""
    squared = torch.zeros(())
    for axis in range(3):
        least, most = points[axis].aminmax(dim=1, keepdim=True)
        outside = torch.maximum(low[..., axis] - most, least - high[..., axis]).clamp(min=0)
        squared = squared + outside * outside
    return squared
