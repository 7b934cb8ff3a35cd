"""What staged networks hold between two layers: tensors with one row per sample, None, and tuples of these."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["repeated"]

S = TypeVar("S")


def repeated(state: S, times: int) -> S:
    """The same samples ``times`` times over, in their order; a memory layout stays what it is.

    Raises:
        TypeError: something that is neither a tensor nor None nor a tuple of these.
    """
    again: object
    match state:
        case Tensor():
            again = torch.cat([state] * times)
        case tuple():
            again = tuple(repeated(part, times) for part in state)
        case None:
            again = None
        case _:
            raise TypeError(f"a state holds tensors, None and tuples; got {type(state).__name__}")
    return again  # type: ignore[return-value]
