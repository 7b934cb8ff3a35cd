"""A figure and the ends of its interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Reach", "reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """What was measured, and the lower and upper end of its 95 % interval."""

    value: float
    low: float
    high: float


def reach(values: Float[Tensor, " b"]) -> Reach:
    """The first value, which is as measured, and the middle 95 % of the others, which are resamples."""
    low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return Reach(float(values[0]), low, high)
