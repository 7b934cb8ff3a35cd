"""What a re-scoring says, and what it takes to believe it: pure functions of `higan.types.Rescoring`.

::

    delta, signed          Eq. (1) of section 2, and the same without truncation at zero
    interval               paired bootstrap confidence interval
    null_level, p_values   what random directions of the same length reach, and how often they reach as much
    q_values               Benjamini-Hochberg over a table
    rank                   all of it, one row per concept, strongest first

A useless direction does not score zero in Eq. (1): truncation turns its noise into about 0.4 standard deviations of
that noise. Hence the null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from higan.types import Concept, Rescoring

__all__ = [
    "Verdict",
    "delta",
    "interval",
    "null_level",
    "p_values",
    "q_values",
    "rank",
    "resample_weights",
    "signed",
    "standardise",
]


def delta(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Δs of Eq. (1): mean over samples of the change, cut off below at zero; in units of each score."""
    return rescoring.changes.double().clamp(min=0).mean(-1).float()


def signed(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Mean change without truncation; near zero where an edit only scrambles."""
    return rescoring.changes.double().mean(-1).float()


def standardise(rescoring: Rescoring, values: Float[Tensor, "C *rest"]) -> Float[Tensor, "C *rest"]:
    """Values in standard deviations of each score, so that concepts can be compared; 0 where a score never varies."""
    std = rescoring.score_std.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(std > 0, values / std.clamp(min=torch.finfo(std.dtype).tiny), 0.0)


def resample_weights(num: int, num_resamples: int, seed: int) -> Float[Tensor, "B K"]:
    """How often each of K samples is drawn in each of B bootstrap resamples, divided by K.

    The same weights for every concept and placement keep the comparison paired.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2; got {num_resamples}")
    draws = torch.randint(num, (num_resamples, num), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(num_resamples, num).scatter_add_(1, draws, torch.ones(1).expand(num_resamples, num))
    return counts / num


def interval(
    rescoring: Rescoring,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    truncated: bool = True,
) -> Float[Tensor, "C P 2"]:
    """Percentile bootstrap interval of `delta`, or of `signed` with ``truncated=False``: lower and upper end.

    Raises:
        ValueError: confidence not between 0 and 1, or fewer than 2 resamples.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    weights = resample_weights(rescoring.changes.shape[-1], num_resamples, seed)
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail])
    rows = []
    for changes in rescoring.changes:
        values = changes.clamp(min=0) if truncated else changes
        rows.append(torch.quantile(values @ weights.T, ends, dim=-1).movedim(0, -1))
    return torch.stack(rows)


def null_level(rescoring: Rescoring, quantile: float | None = None) -> Float[Tensor, "C P"]:
    """What Eq. (1) gives for random directions of the same length: their mean, or a quantile over directions."""
    null = rescoring.null.permute(2, 1, 0)
    return null.double().mean(-1).float() if quantile is None else torch.quantile(null, quantile, dim=-1)


def p_values(rescoring: Rescoring, *, pooled: bool = False) -> Float[Tensor, "C P"]:
    """How probable a random direction is to reach Δs.

    By default the exact rank test of each cell by itself, (1 + number of random directions that reach Δs) / (R + 1):
    valid whatever the null's shape, but never below 1 / (R + 1), which leaves nothing to find in a large table.

    ``pooled=True`` assumes that the null has the same shape in every cell up to location and scale (as significance
    analysis of microarrays does: Tusher, Tibshirani & Chu 2001). Every value is studentised by the other random
    directions of its cell, and Δs is ranked among all cells' random directions: never below 1 / (R · cells + 1), so
    that the only true effect of a table is found at a false-discovery rate of α if R ≥ 1/α. It errs on the safe
    side where R is small and the null skewed.

    A score that never varies has p = 1 either way.

    Raises:
        ValueError: fewer than 3 random directions to pool.
    """
    observed = delta(rescoring).double()
    null = rescoring.null.permute(2, 1, 0).double()
    R = null.shape[-1]
    if not pooled:
        return ((1 + (null >= observed[..., None]).sum(-1)) / (R + 1)).float()
    if R < 3:
        raise ValueError(f"pooling needs at least 3 random directions; got {R}")
    flat = null.amax(-1) - null.amin(-1) <= 1e-9 * null.abs().amax(-1)
    others = _studentise_left_out(null)[~flat].flatten().sort().values
    std = null.std(-1).clamp(min=torch.finfo(torch.float64).tiny)
    z = (observed - null.mean(-1)) / (std * math.sqrt(1 + 1 / R))
    reached = len(others) - torch.searchsorted(others, z.contiguous())
    p = (1 + reached) / (len(others) + 1)
    rank_p = p_values(rescoring)
    return torch.where(flat, rank_p.double(), p).float()


def _studentise_left_out(null: Float[Tensor, "C P R"]) -> Float[Tensor, "C P R"]:
    """Each value less the mean of the others of its cell, in units of their standard deviation."""
    R = null.shape[-1]
    total, squares = null.sum(-1, keepdim=True), null.square().sum(-1, keepdim=True)
    mean = (total - null) / (R - 1)
    variance = ((squares - null.square()) - (R - 1) * mean.square()) / (R - 2)
    return (null - mean) / (variance.clamp(min=1e-300) * (1 + 1 / (R - 1))).sqrt()


def q_values(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Benjamini-Hochberg over the whole table: the smallest false-discovery rate at which a cell counts as found."""
    flat = p.flatten().double()
    order = flat.argsort(descending=True)
    ranks = torch.arange(len(flat), 0, -1, device=p.device)
    adjusted = (flat[order] * len(flat) / ranks).cummin(0).values.clamp(max=1)
    return torch.empty_like(flat).scatter_(0, order, adjusted).reshape(p.shape).to(p.dtype)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the ranking: what happened to one concept at one placement.

    ``delta``, ``low``, ``high``, ``signed`` and ``null`` are in units of the score, ``effect`` and its ends in the
    score's standard deviations. ``verified`` means that q ≤ alpha and that the score rises on average.
    """

    concept: Concept
    placement: str
    delta: float
    low: float
    high: float
    signed: float
    null: float
    effect: float
    effect_low: float
    effect_high: float
    p: float
    q: float
    verified: bool


def rank(
    rescoring: Rescoring,
    *,
    placement: str = "all",
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    pooled: bool = True,
) -> tuple[Verdict, ...]:
    """Concepts at one placement, strongest effect in standard deviations first (the paper's ranking by Δs).

    q-values control the false-discovery rate over the concepts at this placement.

    Raises:
        ValueError: unknown placement.
    """
    names = [candidate.name for candidate in rescoring.placements]
    if placement not in names:
        raise ValueError(f"unknown placement {placement!r}; this re-scoring holds {', '.join(names)}")
    P = names.index(placement)
    change = delta(rescoring)
    ends = interval(rescoring, confidence=confidence, num_resamples=num_resamples, seed=seed)
    effect, effect_ends = standardise(rescoring, change), standardise(rescoring, ends)
    mean, null = signed(rescoring), null_level(rescoring)
    p = p_values(rescoring, pooled=pooled)[:, P]
    q = q_values(p)
    rows = [
        Verdict(
            concept=concept,
            placement=placement,
            delta=float(change[c, P]),
            low=float(ends[c, P, 0]),
            high=float(ends[c, P, 1]),
            signed=float(mean[c, P]),
            null=float(null[c, P]),
            effect=float(effect[c, P]),
            effect_low=float(effect_ends[c, P, 0]),
            effect_high=float(effect_ends[c, P, 1]),
            p=float(p[c]),
            q=float(q[c]),
            verified=bool(q[c] <= alpha and mean[c, P] > 0 and rescoring.score_std[c] > 0),
        )
        for c, concept in enumerate(rescoring.concepts)
    ]
    return tuple(sorted(rows, key=lambda row: -row.effect))
