"""Convolutions of 3 × 3 with a quarter of the multiplications, on processors and where that is faster.

Tiles of 4 × 4 outputs are computed from patches of 6 × 6 inputs as polynomials are multiplied: evaluate both at six
points, multiply, interpolate (Lavin & Gray: "Fast Algorithms for Convolutional Neural Networks", 2016). Rounding errors
with points 0, ±2/3, ±3/2 are a millionth of what comes out, one to three times those of the direct sum, and half of
those with the usual 0, ±1, ±2.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["convolve"]

_POINTS = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""Where polynomials are evaluated, and at infinity."""

_TILE = 4
_PATCH = 6

_FEWEST_CHANNELS = 128
_FEWEST_TILES = 64
"""With fewer of either, to and fro takes as long as the multiplications that are saved, with AVX2 and with AVX-512.

Both are a matter of the layer alone: how many samples there are changes no result.
"""

_CACHE = 16 * 2**20
"""Bytes of evaluated patches to work on at a time."""


def convolve(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i kh kw"],
    bias: Float[Tensor, " o"] | None = None,
    padding: int = 0,
) -> Float[Tensor, "n o h2 w2"]:
    """What ``conv2d`` computes; where it is computed in tiles, in channels-last memory."""
    if _pays(x, weight, padding):
        return _convolve_in_tiles(x, weight, bias, padding)
    return F.conv2d(x, weight, bias, padding=padding)


def _pays(x: Tensor, weight: Tensor, padding: int) -> bool:
    rows, columns = (_tiles(size + 2 * padding - 2) for size in x.shape[2:])
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and rows * columns >= _FEWEST_TILES
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # Bands of tiles, all in one graph, would take a minute to compile.
    )


def _tiles(size: int) -> int:
    """How many tiles hold that many outputs side by side."""
    return -(-size // _TILE)


def _convolve_in_tiles(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Sample by sample, a few rows of tiles at a time, so that a sample's result does not depend on the others."""
    outputs, inputs = weight.shape[:2]
    height, width = (size + 2 * padding - 2 for size in x.shape[2:])
    rows, columns = _tiles(height), _tiles(width)
    below, right = _TILE * rows - height, _TILE * columns - width
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding + right, padding, padding + below))
    kernel = (_ON_KERNEL @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(_PATCH**2, inputs, outputs)
    found = x.new_empty(len(x), _TILE * rows, _TILE * columns, outputs)
    at_once = max(1, _CACHE // (x.element_size() * _PATCH**2 * columns * max(inputs, outputs)))
    for source, target in zip(padded, found, strict=True):
        patches = source.unfold(0, _PATCH, _TILE).unfold(1, _PATCH, _TILE)
        bands = target.view(rows, _TILE, columns, _TILE, outputs)
        for patch, band in zip(patches.split(at_once), bands.split(at_once), strict=True):
            evaluated = _ON_PATCH @ patch.permute(3, 4, 0, 1, 2).reshape(_PATCH**2, -1)
            product = torch.bmm(evaluated.view(_PATCH**2, -1, inputs), kernel)
            tiles = (_ON_PRODUCT @ product.view(_PATCH**2, -1)).view(_TILE, _TILE, -1, columns, outputs)
            band.copy_(tiles.permute(2, 0, 3, 1, 4))
    if bias is not None:
        found += bias
    return found[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """What evaluates flattened patches and kernels at all pairs of points, and what makes flattened tiles of products.

    A correlation is the transpose of a product of polynomials (Toom and Cook): interpolation goes to the patch, with
    Lagrange's denominators left to the kernel, and evaluation to the tile.
    """
    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    denominators = np.array([[np.prod([p - q for q in rest])] for p, rest in zip(_POINTS, others, strict=True)])
    powers = np.vander(_POINTS, _TILE, increasing=True)
    on_patch = np.array([*([*np.poly(rest)[::-1], 0.0] for rest in others), np.poly(_POINTS)[::-1]])
    on_kernel = np.vstack([powers[:, :3] / denominators, [0, 0, 1]])
    on_product = np.vstack([powers, [0, 0, 0, 1]]).T
    return _both_ways(on_patch), _both_ways(on_kernel), _both_ways(on_product)


def _both_ways(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    """The matrix that does to flattened squares what this one does to rows and to columns."""
    return torch.tensor(np.kron(matrix, matrix), dtype=torch.float32)


_ON_PATCH, _ON_KERNEL, _ON_PRODUCT = _transforms()
