"""From a name or a file to a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from higan.errors import MissingWeightsError
from higan.types import Scorer

__all__ = ["WEIGHTS", "load_scorer"]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""


def _load_rooms(device: torch.device) -> Scorer:
    from higan.scorers.colour import ColourScorer
    from higan.scorers.combined import CombinedScorer
    from higan.scorers.rooms import RoomsScorer

    path = WEIGHTS / "rooms.safetensors"
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: the weights of the embedded scorer are missing; reinstall the package, or train them with "
            "`higan rooms train-scorers`"
        )
    return CombinedScorer([RoomsScorer.load(path, device), ColourScorer()], name="rooms")


def _load_colour(_: torch.device) -> Scorer:
    from higan.scorers.colour import ColourScorer

    return ColourScorer()


def _load_toy(_: torch.device) -> Scorer:
    from higan.scorers.toy import ToyScorer

    return ToyScorer()


_EMBEDDED: Mapping[str, Callable[[torch.device], Scorer]] = {
    "rooms": _load_rooms,
    "colour": _load_colour,
    "toy": _load_toy,
}


def load_scorer(name_or_path: str | Path, device: str | torch.device = "cpu") -> Scorer:
    """Opens a scorer by its name (``rooms``, ``colour``, ``toy``) or from a file written by ``RoomsScorer.save``.

    Several scorers at once: join names with ``+``, as in ``rooms+toy``.

    Raises:
        MissingWeightsError: there is no such file, or the embedded weights are not installed.
        CheckpointError: the file cannot be used; the subclass says why.
    """
    from higan.scorers.combined import CombinedScorer
    from higan.scorers.rooms import RoomsScorer

    where = torch.device(device)
    name = str(name_or_path)
    if name in _EMBEDDED:
        return _EMBEDDED[name](where)
    path = Path(name_or_path)
    if not path.exists() and "+" in name:
        return CombinedScorer([load_scorer(part, where) for part in name.split("+")])
    if not path.exists():
        raise MissingWeightsError(
            f"{path}: no such file; expected a weight file or one of the names {', '.join(_EMBEDDED)}"
        )
    return RoomsScorer.load(path, where)
