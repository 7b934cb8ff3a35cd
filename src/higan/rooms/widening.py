"""A checkpoint whose generator grows wider and makes the very same pictures, for training to go on from.

After Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer" (2016), with new channels that nothing
listens to at first instead of copies: what is new starts random, and the old channels give it no weight until
training does. The discriminator stays as it is.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from higan.errors import RunMismatchError
from higan.generators.rooms import RoomsConfig, build_network
from higan.generators.rooms_parts import config_from_json
from higan.rooms.trainer import read_checkpoint, widths_of
from higan.weights import write_weights

__all__ = ["widen_checkpoint", "widened"]


def widen_checkpoint(path: Path, target: Path, channels: Sequence[int], *, seed: int = 0) -> None:
    """Copy a checkpoint of the ``adain`` architecture with the generator and its average widened.

    The generator's optimiser starts anew; if nothing is wider, the file is copied as it is. Train on with
    ``Settings.discriminator_channels`` as the checkpoint has them: the widths that the generator had before.

    Args:
        path: the checkpoint.
        target: where to write.
        channels: widths at 4, 8, 16, … pixels; none below the checkpoint's.
        seed: of what is new.

    Raises:
        RunMismatchError: a width would shrink, or the generator is of another architecture.
        Otherwise as `Trainer.load`.
    """
    tensors, header = read_checkpoint(path)
    narrow = config_from_json(header["config"])
    wide = replace(narrow, channels=tuple(channels))
    if wide == narrow:
        shutil.copyfile(path, target)
        return
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(("discriminator.", "optimiser_d."))}
    for module in ("generator", "average"):
        state = {n.removeprefix(f"{module}."): t.float() for n, t in tensors.items() if n.startswith(f"{module}.")}
        kept |= {f"{module}.{name}": tensor for name, tensor in widened(state, narrow, wide, seed=seed).items()}
    header["discriminator_channels"] = widths_of(header)[1]
    header["config"]["channels"] = list(wide.channels)
    write_weights(target, kept, header)


def widened(state: Mapping[str, Tensor], narrow: RoomsConfig, wide: RoomsConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a wider generator that makes the same pictures, up to rounding.

    Args:
        state: the generator's ``state_dict``, float32.
        narrow: its configuration.
        wide: the one asked for; it may differ in ``channels`` alone.
        seed: of the new channels.

    Raises:
        RunMismatchError: a width would shrink, or the generator is of another architecture.
    """
    if narrow.architecture != "adain":
        raise RunMismatchError(f"only generators of the adain architecture are widened; got {narrow.architecture!r}")
    used = narrow.num_layers // 2
    if any(new < old for new, old in zip(wide.channels[:used], narrow.channels[:used], strict=True)):
        raise RunMismatchError(f"channels must be at least {narrow.channels[:used]}; got {wide.channels}")
    fresh = build_network(wide, seed=seed).state_dict()
    return {name: _embed(name, state[name], tensor.clone()) for name, tensor in fresh.items()}


@torch.no_grad()
def _embed(name: str, old: Tensor, new: Tensor) -> Tensor:
    """Put what was learned in front of what is new."""
    if ".style." in name:  # Scales, then shifts: each half grows.
        new.unflatten(0, (2, -1))[:, : len(old) // 2] = old.unflatten(0, (2, -1))
    elif old.ndim == 4:
        inputs = old.shape[1]
        new[: len(old)] = 0  # Old channels do not listen to new ones yet.
        # Equalised weights are divided by the root of their number of inputs when used.
        new[: len(old), :inputs] = old * math.sqrt(new.shape[1] / inputs)
    else:
        new[: len(old)] = old
    return new
