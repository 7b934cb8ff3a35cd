"""How often something is there in generated rooms, beside rendered ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

__all__ = ["Share", "share_of"]


@dataclass(frozen=True, slots=True)
class Share:
    """How often something is there, in the eyes of a predictor."""

    generated: float
    rendered: float
    excess: float
    """Generated over rendered, less one: -0.2 is a fifth too rare."""
    error: float
    """Standard error of the excess."""


def share_of(fake: Bool[Tensor, " n"], real: Bool[Tensor, " m"]) -> Share:
    """From whether it is there, room by room; of what no render has the excess is NaN.

    The ratio's variance is that of two independent binomial shares, to first order, with half a sample more on either
    side, so that what was not seen is not held for certain.
    """
    generated, rendered = float(fake.double().mean()), float(real.double().mean())
    if rendered == 0:
        return Share(generated, rendered, math.nan, math.nan)
    ratio = generated / rendered
    made, there = ((share * n + 0.5) / (n + 1) for share, n in ((generated, len(fake)), (rendered, len(real))))
    spread = made * (1 - made) / len(fake) + (made / there) ** 2 * there * (1 - there) / len(real)
    return Share(generated, rendered, ratio - 1, math.sqrt(spread) / there)
