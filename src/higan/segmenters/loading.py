"""From a name or a file to a segmenter."""

from __future__ import annotations

from pathlib import Path

import torch

from higan.errors import MissingWeightsError
from higan.types import Segmenter

__all__ = ["WEIGHTS", "load_segmenter"]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""


def load_segmenter(name_or_path: str | Path, device: str | torch.device = "cpu") -> Segmenter:
    """Opens a segmenter by its name (``rooms``) or from a file written by ``RoomsSegmenter.save``.

    Raises:
        MissingWeightsError: there is no such file, or the embedded weights are not installed.
        CheckpointError: the file cannot be used; the subclass says why.
    """
    from higan.segmenters.rooms import RoomsSegmenter

    path = WEIGHTS / "rooms.safetensors" if str(name_or_path) == "rooms" else Path(name_or_path)
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: no such file; expected a weight file or the name rooms, "
            "whose weights come with the package or from `higan rooms train-scorers`"
        )
    return RoomsSegmenter.load(path, device)
