"""A checkpoint whose networks grow wider and answer the very same, for training to go on from.

After Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer" (2016), with new channels that nothing
listens to at first instead of copies: what is new starts random, and the old channels give it no weight until
training does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from higan.errors import RunMismatchError
from higan.generators.rooms import RoomsConfig, build_network
from higan.rooms.discriminator import Discriminator
from higan.rooms.trainer import networks_of, read_checkpoint
from higan.weights import write_weights

__all__ = ["widen_checkpoint", "widened", "widened_discriminator"]


def widen_checkpoint(
    path: Path,
    target: Path,
    channels: Sequence[int],
    discriminator_channels: Sequence[int],
    *,
    mapping_dim: int | None = None,
    rgb_kernel: int | None = None,
    seed: int = 0,
) -> None:
    """Copy a checkpoint with the generator and its average, the discriminator, or all of them widened.

    The optimiser of what is widened starts anew. The copy does not tell how it was trained, so that a training with
    another seed, style mixing or loss may go on from it.

    Args:
        path: the checkpoint.
        target: where to write.
        channels: the generator's widths at 4, 8, 16, … pixels; none below the checkpoint's.
        discriminator_channels: the discriminator's; none below the checkpoint's, and as there at 4 pixels.
        mapping_dim: width of the mapping network's hidden layers; the checkpoint's if None.
        rgb_kernel: side of the generator's RGB convolution; the checkpoint's if None.
        seed: of what is new.

    Raises:
        RunMismatchError: `widened` or `widened_discriminator` cannot do it.
        Otherwise as `Trainer.load`.
    """
    tensors, header = read_checkpoint(path)
    narrow, narrow_judge = networks_of(header)
    mapping = narrow.mapping_dim if mapping_dim is None else mapping_dim
    kernel = narrow.rgb_kernel if rgb_kernel is None else rgb_kernel
    wide = replace(narrow, channels=tuple(channels), mapping_dim=mapping, rgb_kernel=kernel)
    wide_judge = replace(narrow_judge, channels=tuple(discriminator_channels))
    if wide != narrow:
        for module in ("generator", "average"):
            state = _taken(tensors, f"{module}.")
            tensors |= {f"{module}.{name}": t for name, t in widened(state, narrow, wide, seed=seed).items()}
        _taken(tensors, "optimiser_g.")
    if wide_judge != narrow_judge:
        state = widened_discriminator(_taken(tensors, "discriminator."), narrow_judge, wide_judge, seed=seed)
        tensors |= {f"discriminator.{name}": t for name, t in state.items()}
        _taken(tensors, "optimiser_d.")
    header.pop("settings", None)
    header["config"] = asdict(wide)
    header["discriminator_channels"] = wide_judge.channels
    write_weights(target, tensors, header)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What has that prefix, without it and in float32, taken out."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name).float() for name in names}


def widened(state: Mapping[str, Tensor], narrow: RoomsConfig, wide: RoomsConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a wider generator that makes the same pictures, up to rounding.

    Args:
        state: the generator's ``state_dict``, float32.
        narrow: its configuration.
        wide: the one asked for; it may differ in ``channels``, ``mapping_dim`` and ``rgb_kernel`` alone.
        seed: of the new channels.

    Raises:
        RunMismatchError: a width or the kernel would shrink, or the generator is of another architecture.
    """
    if narrow.architecture != "adain":
        raise RunMismatchError(f"only generators of the adain architecture are widened; got {narrow.architecture!r}")
    _check_wider(narrow, wide)
    return _grown(state, build_network(wide, seed=seed).state_dict())


def widened_discriminator(
    state: Mapping[str, Tensor], narrow: RoomsConfig, wide: RoomsConfig, *, seed: int = 0
) -> dict[str, Tensor]:
    """The weights of a wider discriminator that judges the same, up to rounding.

    Args:
        state: the discriminator's ``state_dict``, float32.
        narrow: its configuration.
        wide: the one asked for; it may differ in ``channels`` alone.
        seed: of the new channels.

    Raises:
        RunMismatchError: a width would shrink, or grow at 4 pixels, where the deviation over the batch is an average
            over all channels.
    """
    _check_wider(narrow, wide)
    if wide.channels[0] != narrow.channels[0]:
        raise RunMismatchError(
            f"the discriminator's width at 4 pixels must stay at {narrow.channels[0]}; got {wide.channels[0]}"
        )
    return _grown(state, Discriminator(wide, seed=seed).state_dict())


def _check_wider(narrow: RoomsConfig, wide: RoomsConfig) -> None:
    used = narrow.num_layers // 2
    if any(new < old for new, old in zip(wide.channels[:used], narrow.channels[:used], strict=True)):
        raise RunMismatchError(f"channels must be at least {narrow.channels[:used]}; got {wide.channels}")
    if wide.mapping_width < narrow.mapping_width:
        raise RunMismatchError(f"mapping_dim must be at least {narrow.mapping_width}; got {wide.mapping_width}")
    if wide.rgb_kernel < narrow.rgb_kernel:
        raise RunMismatchError(f"rgb_kernel must be at least {narrow.rgb_kernel}; got {wide.rgb_kernel}")


def _grown(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _embed(name, state[name], tensor.clone()) for name, tensor in fresh.items()}


@torch.no_grad()
def _embed(name: str, old: Tensor, new: Tensor) -> Tensor:
    """Put what was learned in front of what is new."""
    if ".style." in name:  # Scales, then shifts: each half grows.
        new.unflatten(0, (2, -1))[:, : len(old) // 2] = old.unflatten(0, (2, -1))
    elif old.ndim == 4 or (name.startswith("mapping.") and old.ndim == 2):
        # Old channels do not listen to new ones yet, nor to pixels that their kernel did not reach.
        margins = [(new.shape[2] - old.shape[2]) // 2] * 4 if old.ndim == 4 else []
        padded = F.pad(old, [*margins, 0, new.shape[1] - old.shape[1]])
        # Equalised weights are divided by the root of their number of inputs when used.
        new[: len(old)] = padded * math.sqrt(new[0].numel() / old[0].numel())
    else:
        new[: len(old)] = old
    return new
