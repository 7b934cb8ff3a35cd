"""Which objects can be told in generated rooms, and how surely, in the eyes of a segmenter that learned from renders.

What it takes for a chair may be a smear, so that being seen is not enough: of a smear it is less sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.rooms.shares import Share, share_of
from higan.segmenters.rooms import RoomsSegmenter
from higan.types import SegmentClass

__all__ = ["Clarity", "Sightings", "clarities", "sightings_of", "together"]

_SMALLEST = 1 / 256
"""Of a picture: what covers less does not count as being there."""
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """Of every class in n pictures: the share of its pixels, and the segmenter's probabilities of it on these.

    Both are over the pixels of the whole picture, so that ``sureness`` over ``area`` is the mean probability.
    """

    area: Float[Tensor, "n S"]
    sureness: Float[Tensor, "n S"]


@dataclass(frozen=True, slots=True)
class Clarity:
    """How often a class covers at least a 256th of a picture, and how sure the segmenter is of its pixels."""

    share: Share
    generated: float
    """Mean probability of the class over all pixels that are taken for it; NaN if there are none."""
    rendered: float
    error: float
    """Standard error of the difference of the two."""


def sightings_of(segmenter: RoomsSegmenter, images: UInt8[Tensor, "n 3 H W"]) -> Sightings:
    """What the segmenter sees, on the CPU."""
    return together([_sightings_of(segmenter, part) for part in images.split(_AT_ONCE)])


def together(parts: Sequence[Sightings]) -> Sightings:
    """Those of all pictures."""
    return Sightings(torch.cat([part.area for part in parts]), torch.cat([part.sureness for part in parts]))


def _sightings_of(segmenter: RoomsSegmenter, images: Tensor) -> Sightings:
    probabilities = segmenter.probabilities(images)
    best, winner = probabilities.max(1)
    at = torch.nn.functional.one_hot(winner, probabilities.shape[1]).to(best.dtype)
    return Sightings(at.mean((1, 2)).cpu(), (at * best[..., None]).mean((1, 2)).cpu())


def clarities(classes: Sequence[SegmentClass], fake: Sightings, real: Sightings) -> dict[str, Clarity]:
    """Of the classes that are things, by name."""
    found = {}
    for k, name in ((k, c.name) for k, c in enumerate(classes) if c.kind == "thing"):
        share = share_of(fake.area[:, k] >= _SMALLEST, real.area[:, k] >= _SMALLEST)
        made, made_error = _ratio(fake.sureness[:, k].double(), fake.area[:, k].double())
        there, there_error = _ratio(real.sureness[:, k].double(), real.area[:, k].double())
        found[name] = Clarity(share, made, there, math.hypot(made_error, there_error))
    return found


def _ratio(part: Float[Tensor, " n"], whole: Float[Tensor, " n"]) -> tuple[float, float]:
    """Ratio of two means over pictures, with its standard error to first order (Cochran 1977, section 2.11)."""
    total, n = float(whole.sum()), len(whole)
    if total == 0 or n < 2:
        return math.nan, math.nan
    ratio = float(part.sum()) / total
    error = (part - ratio * whole).square().sum().mul(n / (n - 1)).sqrt()
    return ratio, float(error) / total
