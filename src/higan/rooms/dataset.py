"""Rendered rooms by the thousand: endless batches, data sets on disk, contact sheets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.engines import Job, Processes, Tick
from higan.errors import CorruptRunError, RunMismatchError
from higan.rooms.classes import CLASSES
from higan.rooms.factors import FACTORS, factors
from higan.rooms.render import check_resolution, render
from higan.rooms.scene import sample_scenes
from higan.store.files import unwritable

__all__ = [
    "RoomsBatch",
    "RoomsData",
    "batches",
    "colour_masks",
    "contact_sheet",
    "open_data",
    "sample_rooms",
    "write_data",
]

_BLOCK = 500

# Pixels rendered at once: what fits a processor's cache; what keeps a GPU busy.
_PIXELS_ON_CPU = 1 << 15
_PIXELS_ELSEWHERE = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class RoomsBatch:
    """Rendered rooms with their ground truth; the columns of ``factors`` are ``FACTORS``."""

    images: UInt8[Tensor, "n 3 H W"]
    masks: UInt8[Tensor, "n H W"]
    factors: Float[Tensor, "n F"]


@dataclass(frozen=True, slots=True, eq=False)
class RoomsData:
    """A data set on disk, memory-mapped.

    ``images`` (N, 3, H, W) uint8, ``masks`` (N, H, W) uint8, ``factors`` (N, F) float32.
    """

    images: np.ndarray
    masks: np.ndarray
    factors: np.ndarray

    def __len__(self) -> int:
        return self.images.shape[0]


def sample_rooms(seeds: Sequence[int], resolution: int = 64, device: torch.device | str = "cpu") -> RoomsBatch:
    """Renders one room per seed; room k depends on ``seeds[k]`` alone.

    Raises:
        ValueError: no seeds, or a resolution outside 32 … 256.
    """
    scenes = sample_scenes(seeds)
    at_once = _PIXELS_ON_CPU if torch.device(device).type == "cpu" else _PIXELS_ELSEWHERE
    pictures = render(scenes.to(device), resolution, chunk=max(1, at_once // resolution**2))
    return RoomsBatch(pictures.images, pictures.masks, factors(scenes).to(device))


def batches(
    batch_size: int, resolution: int = 64, first_seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[RoomsBatch]:
    """Endless fresh rooms, seeds counting up from ``first_seed``."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    seed = first_seed
    while True:
        yield sample_rooms(range(seed, seed + batch_size), resolution, device)
        seed += batch_size


def write_data(
    folder: str | Path,
    num: int,
    resolution: int = 64,
    first_seed: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> RoomsData:
    """Writes rooms ``first_seed`` … ``first_seed + num − 1`` to a folder; called again, it goes on where it stopped.

    Args:
        folder: gets ``images.npy``, ``masks.npy``, ``factors.npy`` and ``manifest.json``.
        num: number of rooms.
        resolution: pixels.
        first_seed: seed of the first room.
        processes: renderers side by side; does not change a byte.
        progress: called with the number of rooms finished so far.

    Raises:
        ValueError: num or processes below 1, or a resolution that is not rendered.
        RunMismatchError: the folder holds other rooms.
        RunWriteError: the disk is full or refuses.
        EngineError: renderers die again and again.
    """
    if num < 1 or processes < 1:
        raise ValueError(f"num and processes must be at least 1; got {num} and {processes}")
    check_resolution(resolution)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"num": num, "resolution": resolution, "first_seed": first_seed, "factors": [f.name for f in FACTORS]}
    _claim(folder, settings)
    blocks = [(i, min(i + _BLOCK, num)) for i in range(0, num, _BLOCK)]
    finished = _finished(folder)
    todo = [b for b in blocks if b[0] not in finished]
    done = num - sum(b[1] - b[0] for b in todo)
    with Processes(processes).open(partial(_open_renderer, resolution, first_seed)) as crew:
        for block, content in crew.make(todo):
            _write_block(folder, block, content)
            done += block[1] - block[0]
            if progress is not None:
                progress(done)
    return open_data(folder)


def open_data(folder: str | Path) -> RoomsData:
    """Memory-maps a finished data set.

    Raises:
        CorruptRunError: the data set is missing, damaged or not finished.
        RunMismatchError: its ground truth has other columns than ``FACTORS``.
    """
    folder = Path(folder)
    settings = _manifest(folder)
    if settings is None:
        raise CorruptRunError(f"{folder} holds no rooms: no manifest.json; write them with `higan rooms write`")
    num = settings.get("num")
    if not isinstance(num, int):
        raise CorruptRunError(f"{folder} holds something else than rooms; write them with `higan rooms write`")
    known = [f.name for f in FACTORS]
    if settings.get("factors", known) != known:
        raise RunMismatchError(f"{folder} tells other factors of its rooms than this version; write them again")
    missing = len(range(0, num, _BLOCK)) - len(_finished(folder))
    if missing:
        raise CorruptRunError(f"{folder} is not finished: {missing} blocks of {_BLOCK} rooms missing; write it again")
    try:
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks", "factors")]
    except (OSError, ValueError, EOFError) as error:
        raise CorruptRunError(f"{folder} is damaged ({error}); delete it and write it again") from error
    return RoomsData(*arrays)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What a folder of rooms says of itself; None where it says nothing.

    Raises:
        CorruptRunError: it cannot be read.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return None
    try:
        found = json.loads(manifest.read_text())
    except ValueError as error:
        raise CorruptRunError(f"{manifest} is damaged ({error}); delete the folder and write it again") from error
    return found if isinstance(found, dict) else {}


def _claim(folder: Path, settings: dict[str, object]) -> None:
    manifest = folder / "manifest.json"
    there = _manifest(folder)
    if there is not None:
        if there != settings:
            differing = ", ".join(k for k in settings if there.get(k) != settings[k])
            raise RunMismatchError(f"{folder} holds other rooms (differing: {differing}); choose another folder")
        return
    num, r = int(str(settings["num"])), int(str(settings["resolution"]))
    shapes: dict[str, tuple[int, ...]]
    shapes = {"images": (num, 3, r, r), "masks": (num, r, r), "factors": (num, len(FACTORS))}
    for name, shape in shapes.items():
        kind = np.float32 if name == "factors" else np.uint8
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape).flush()
    temporary = folder / "manifest.json.part"
    temporary.write_text(json.dumps(settings, indent=1))
    temporary.replace(manifest)


def _finished(folder: Path) -> set[int]:
    log = folder / "blocks.txt"
    return {int(line) for line in log.read_text().split("\n")[:-1]} if log.exists() else set()


def _open_renderer(resolution: int, first_seed: int, device: str) -> Job[tuple[int, int]]:
    return partial(_render_block, resolution, first_seed, device)


def _render_block(resolution: int, first_seed: int, device: str, block: tuple[int, int], tick: Tick) -> bytes:
    start, stop = block
    batch = sample_rooms(range(first_seed + start, first_seed + stop), resolution, device)
    return b"".join(array.numpy().tobytes() for array in (batch.images, batch.masks, batch.factors))


def _write_block(folder: Path, block: tuple[int, int], content: bytes) -> None:
    """To its place in each of the files: not through memory that is mapped, where a full disk kills the process.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    start, stop = block
    begin = 0
    for path in (folder / f"{name}.npy" for name in ("images", "masks", "factors")):
        array = np.load(path, mmap_mode="r")
        size = array[:1].nbytes
        end = begin + (stop - start) * size
        try:
            with path.open("r+b") as file:
                file.seek(array.offset + start * size)
                file.write(content[begin:end])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(path, error) from error
        begin = end
    with (folder / "blocks.txt").open("a") as log:
        log.write(f"{start}\n")
        log.flush()
        os.fsync(log.fileno())


def colour_masks(masks: UInt8[Tensor, "n H W"]) -> UInt8[Tensor, "n 3 H W"]:
    """Masks in the colours of their classes."""
    table = torch.tensor([c.colour for c in CLASSES], dtype=torch.uint8, device=masks.device)
    return table[masks.long()].permute(0, 3, 1, 2)


def contact_sheet(images: UInt8[Tensor, "n 3 H W"], columns: int = 8) -> UInt8[Tensor, "3 h w"]:
    """Images in rows of ``columns``, one pixel of white between them; the last row is filled with white."""
    if columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns}")
    n, _, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + 1) - 1, columns * (width + 1) - 1), 255, dtype=torch.uint8)
    for k, image in enumerate(images.cpu()):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    return sheet
