"""Where the generator's trainer gets its pictures from: a file of rendered rooms, or a renderer that never repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from higan.errors import CorruptFileError

__all__ = ["PoolSource", "RenderedSource", "Source"]


@runtime_checkable
class Source(Protocol):
    """Pictures and nothing else: no ground truth passes through here."""

    def __call__(self, count: int, resolution: int, generator: torch.Generator) -> UInt8[Tensor, "n 3 H W"]:
        """Draw ``count`` pictures; the same generator state gives the same pictures."""
        ...


class PoolSource:
    """Pictures drawn with replacement from one or more memory-mapped ``.npy`` files of shape (N, 3, H, W), uint8.

    Coarser resolutions are area averages.

    Args:
        path: a file, or a folder whose ``.npy`` files are joined in the order of their names.

    Raises:
        ValueError: no file is there, or a file holds something else.
        CorruptFileError: a file is truncated.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        paths = sorted(self.path.glob("*.npy")) if self.path.is_dir() else [self.path]
        if not paths or not all(p.is_file() for p in paths):
            raise ValueError(f"expected a .npy file of pictures, or a folder of them, at {self.path}")
        self._shards = [_open_shard(p) for p in paths]
        self._ends = torch.tensor([len(shard) for shard in self._shards]).cumsum(0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes as a path, not as pictures."""
        return PoolSource, (self.path,)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __call__(self, count: int, resolution: int, generator: torch.Generator) -> UInt8[Tensor, "n 3 H W"]:
        """Draw pictures with replacement."""
        indices = torch.randint(len(self), (count,), generator=generator)
        shards = torch.searchsorted(self._ends, indices, right=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), self._ends])[shards]
        pairs = zip(shards.tolist(), (indices - starts).tolist(), strict=True)
        images = torch.from_numpy(np.stack([self._shards[shard][row] for shard, row in pairs]))
        return shrink(images, resolution)


class RenderedSource:
    """Pictures rendered when they are needed, never the same twice.

    Args:
        render: from seeds and a resolution to pictures (n, 3, resolution, resolution), uint8, on any device.
        resolution: rendered at; coarser pictures are area averages of these, as those of a pool are.
    """

    def __init__(self, render: Callable[[Sequence[int], int], Tensor], resolution: int) -> None:
        self._render = render
        self._resolution = resolution

    def __call__(self, count: int, resolution: int, generator: torch.Generator) -> UInt8[Tensor, "n 3 H W"]:
        """Render fresh pictures."""
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        return shrink(self._render(seeds, self._resolution), resolution)


def shrink(images: UInt8[Tensor, "n 3 H W"], resolution: int) -> UInt8[Tensor, "n 3 h w"]:
    """Area average down to a resolution that divides the present one.

    Raises:
        ValueError: it does not.
    """
    height, width = images.shape[2:]
    if height != width or height % resolution:
        raise ValueError(f"cannot average pictures of {height}×{width} pixels down to {resolution}×{resolution}")
    if height == resolution:
        return images
    return F.avg_pool2d(images.float(), height // resolution).round().to(torch.uint8)


def _open_shard(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CorruptFileError(f"{path} is not a whole .npy file: {error}") from error
    if shard.dtype != np.uint8 or shard.ndim != 4 or shard.shape[1] != 3 or len(shard) == 0:
        raise ValueError(f"{path} must hold uint8 pictures (N, 3, H, W); got {shard.dtype} {shard.shape}")
    return shard
