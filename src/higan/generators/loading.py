"""From a name or a file to a generator, and back to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from higan.errors import MissingWeightsError, UnknownFormatError
from higan.types import Generator

__all__ = ["WEIGHTS", "load_generator"]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""

Noise = Literal["stored", "none"]


def _load_rooms(device: torch.device) -> Generator:
    from higan.generators.rooms import RoomsGenerator

    path = WEIGHTS / "rooms.safetensors"
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: the weights of the embedded generator are missing; reinstall the package, or train them with "
            "`higan rooms train-generator`"
        )
    return RoomsGenerator.load(path, device=device)


def _load_toy(device: torch.device) -> Generator:
    from higan.generators.toy import ToyGenerator

    return ToyGenerator(device=device)


_EMBEDDED: Mapping[str, Callable[[torch.device], Generator]] = {"rooms": _load_rooms, "toy": _load_toy}


def load_generator(
    path_or_name: str | Path,
    device: str | torch.device = "cpu",
    truncation_psi: float | None = None,
    truncation_layers: int | None = None,
    noise: Noise = "stored",
) -> Generator:
    """Open a generator by its name (``rooms``, ``toy``) or from any weight file that is understood here.

    Family, resolution, widths and number of classes are read off the file. No code stored in it is run.

    Args:
        path_or_name: a name, or a file (a folder for the Hugging Face layout of BigGAN).
        device: where codes and images live.
        truncation_psi: factor by which codes are drawn towards the mean code inside ``synthesize``; by default that
            of the family (StyleGAN 0.7, StyleGAN2 0.5, StyleGAN3 1). For BigGAN, the truncation of the prior.
        truncation_layers: how many layers, from the coarsest, are truncated; by default that of the family
            (StyleGAN 8, otherwise all).
        noise: ``stored`` adds the constant noise maps kept in the file, ``none`` switches them off.

    Raises:
        MissingWeightsError: there is no such file, or the embedded weights are not installed.
        CheckpointError: the file cannot be used; the subclass says why.
        ValueError: an argument is out of range, or means nothing to this generator.
    """
    where = torch.device(device)
    name = str(path_or_name)
    if name in _EMBEDDED:
        if (truncation_psi, truncation_layers, noise) != (None, None, "stored"):
            raise ValueError(f"{name!r} has neither truncation nor noise; leave truncation_* and noise out")
        return _EMBEDDED[name](where)
    path = Path(path_or_name)
    if not path.exists():
        raise MissingWeightsError(
            f"{path}: no such file; expected a weight file or one of the names {', '.join(_EMBEDDED)}"
        )
    raise UnknownFormatError(f"{path}: no reader knows this file")
