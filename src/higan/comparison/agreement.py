"""How far two re-scorings agree about where concepts and levels lie."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from higan.comparison.located import Located
from higan.comparison.reach import Reach, reach
from higan.types import LEVELS, Rescoring

__all__ = ["Agreement", "agreement", "are_comparable", "halves"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two re-scorings, over the levels and concepts that are verified in both.

    ``profiles`` is the correlation of the level profiles over stretches of depth; ``exchanged`` what it is with the
    levels' names exchanged in all other ways, its floor, empty where one level alone is shared. ``depths`` is the
    correlation of the mean relative depths of so many ``concepts``, ``gap`` their mean absolute difference. A
    correlation is NaN where there is nothing to correlate: of one concept's depth, or of profiles over a single layer.
    """

    profiles: Reach
    exchanged: tuple[float, ...]
    depths: Reach
    gap: Reach
    concepts: int


def agreement(one: Located, other: Located) -> Agreement:
    """How far two agree, with percentile intervals over resamples.

    Every resample carries the noise of the samples once more, so that correlations near one lie near the upper end of
    their interval.

    Raises:
        ValueError: they share no level or no concept, see `are_comparable`.
    """
    if not are_comparable(one, other):
        raise ValueError("agreement is over what is verified in both; these two share no verified concept")
    bins, others = one.level_bins(), other.level_bins()
    levels = [level for level in LEVELS if level in bins and level in others]
    a, b = (torch.stack([found[level] for level in levels], 1) for found in (bins, others))
    orders = [list(order) for order in itertools.permutations(range(len(levels)))][1:]
    depths, other_depths = one.depths(), other.depths()
    concepts = [concept for concept in depths if concept in other_depths]
    da, db = (torch.stack([found[concept] for concept in concepts], 1) for found in (depths, other_depths))
    return Agreement(
        profiles=_correlated(a.flatten(1), b.flatten(1)),
        exchanged=tuple(float(_correlation(a[0].flatten(), b[0, order].flatten())) for order in orders),
        depths=_correlated(da, db),
        gap=reach((da - db).abs().mean(1)),
        concepts=len(concepts),
    )


def are_comparable(one: Located, other: Located) -> bool:
    """Whether a concept is verified in both, and a level has one in both."""
    levels, others = ({found.level_of[concept] for concept in found.shares} for found in (one, other))
    return bool(levels & others) and any(concept in other.shares for concept in one.shares)


def halves(rescoring: Rescoring) -> tuple[Rescoring, Rescoring]:
    """Every second sample by itself, and the others: how far they agree is the most that two re-scorings can."""
    first, second = (_every_second(rescoring, start) for start in (0, 1))
    return first, second


def _every_second(rescoring: Rescoring, start: int) -> Rescoring:
    null, counts = rescoring.null_changes, rescoring.null_counts
    return replace(
        rescoring,
        changes=rescoring.changes[..., start::2],
        seeds=rescoring.seeds[start::2],
        originals=rescoring.originals[start::2],
        null_changes=None if null is None else null[..., start::2],
        null_counts=None if counts is None else (counts + 1 - start) // 2,
    )


def _correlated(a: Float[Tensor, "b X"], b: Float[Tensor, "b X"]) -> Reach:
    """Correlation as measured and over resamples; NaN where one side does not vary at all."""
    if bool((a == a[:, :1]).all()) or bool((b == b[:, :1]).all()):
        return Reach(math.nan, math.nan, math.nan)
    return reach(_correlation(a, b))


def _correlation(a: Float[Tensor, "*s X"], b: Float[Tensor, "*s X"]) -> Float[Tensor, "*s"]:
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=1e-12)
