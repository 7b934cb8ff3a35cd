"""Style mixing and palette transfer: layers that follow another sample's code (Karras et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from higan.layers import check_layers, groups

__all__ = ["mix", "mixing_grid", "transfer_palette"]


def mix(
    codes: Float[Tensor, "n L D"], donors: Float[Tensor, "m l d"], layers: Collection[int]
) -> Float[Tensor, "n L D"]:
    """Codes whose given layers come from the donors: one for each, or one donor for all.

    Raises:
        ValueError: empty or out-of-range layers, other shapes, or neither one donor nor one for each code.
    """
    _check(codes, donors)
    check_layers(layers, codes.shape[1])
    if len(donors) not in (1, len(codes)):
        raise ValueError(f"mixing takes one donor, or one for each of {len(codes)} codes; got {len(donors)}")
    chosen = torch.zeros(codes.shape[1], 1, dtype=torch.bool, device=codes.device)
    chosen[sorted(set(layers))] = True
    return torch.where(chosen, donors.to(codes), codes)


def mixing_grid(
    codes: Float[Tensor, "n L D"], donors: Float[Tensor, "m l d"], layers: Collection[int]
) -> Float[Tensor, "n m L D"]:
    """Every code with the given layers of every donor.

    Raises:
        ValueError: as for `mix`, or no donors.
    """
    if not len(donors):
        raise ValueError("a grid needs at least one donor; got none")
    return torch.stack([mix(codes, donor[None], layers) for donor in donors], 1)


def transfer_palette(codes: Float[Tensor, "n L D"], donors: Float[Tensor, "m l d"]) -> Float[Tensor, "n L D"]:
    """Codes in the colours of the donors: the last stage's layers exchanged (`higan.layers.groups`).

    Raises:
        ValueError: as for `mix`, or there is only one stage.
    """
    stages = groups(codes.shape[1])
    if len(stages) < 2:
        raise ValueError("a palette can only be exchanged where there are at least two stages of layers; got one layer")
    return mix(codes, donors, list(stages.values())[-1])


def _check(codes: Tensor, donors: Tensor) -> None:
    if codes.ndim != 3 or donors.ndim != 3 or codes.shape[1:] != donors.shape[1:]:
        raise ValueError(
            f"codes and donors must both have shape (n, L, D); got {tuple(codes.shape)} and {tuple(donors.shape)}"
        )
