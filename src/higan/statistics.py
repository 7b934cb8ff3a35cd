"""What a re-scoring says, and what it takes to believe it: pure functions of `higan.types.Rescoring`.

::

    delta, signed          Eq. (1) of section 2, and the same without truncation at zero
    interval               paired bootstrap confidence interval
    null_level, p_values   what meaningless directions of the same length reach, and how often they reach as much
    q_values               Benjamini-Hochberg over a table
    table                  all of it, for every concept at every placement
    rank                   one placement of the table, one row per concept, strongest first

A useless direction does not score zero in Eq. (1): truncation turns its noise into about 0.4 standard deviations of
that noise. Hence the nulls: directions drawn at random, and directions fitted to permuted scores (`higan.refits`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from higan.types import Concept, Rescoring

__all__ = [
    "WORTHWHILE",
    "Null",
    "Table",
    "Verdict",
    "beside",
    "delta",
    "interval",
    "null_level",
    "p_values",
    "q_values",
    "rank",
    "ranking",
    "resample_weights",
    "resampled_means",
    "score_stds",
    "signed",
    "standard_errors",
    "standardise",
    "studentised",
    "students_t",
    "table",
]

Null = Literal["random", "permuted"]
"""Against what: directions drawn at random from the sphere, or directions fitted to permuted scores."""

Method = Literal["studentised", "percentile"]

WORTHWHILE = 0.4
"""Share of the largest change from which on a set of layers is worth editing a concept at."""
_FLOOR = 0.05
_FEWEST_TO_POOL = 3


def delta(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Δs of Eq. (1): mean over samples of the change, cut off below at zero; in units of each score."""
    return rescoring.changes.double().clamp(min=0).nanmean(-1).float()


def delta_beside_null(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """`delta` over those samples that the null was measured on, where that stopped before the concepts.

    All directions gain more from some samples than from others. Over other samples than the null's, Δs would exceed it
    by their luck.
    """
    if rescoring.null_counts is None:
        return delta(rescoring)
    beyond = torch.arange(rescoring.changes.shape[-1]) >= rescoring.null_counts[:, None]
    return rescoring.changes.masked_fill(beyond, torch.nan).clamp(min=0).nanmean(-1)


def signed(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Mean change without truncation; near zero where an edit only scrambles."""
    return rescoring.changes.double().nanmean(-1).float()


def standard_errors(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Of `signed`, over the samples that were taken."""
    changes = rescoring.changes.double()
    taken = (~changes.isnan()).sum(-1)
    spread = (changes - changes.nanmean(-1, keepdim=True)).square().nansum(-1)
    return (spread / (taken - 1).clamp(min=1) / taken.clamp(min=1)).sqrt().float()


def score_stds(rescoring: Rescoring, concepts: Iterable[Concept]) -> Float[Tensor, " C"]:
    """The scores' standard deviations in the order of these concepts; NaN for those that were not re-scored."""
    known = dict(zip((concept.name for concept in rescoring.concepts), rescoring.score_std.tolist(), strict=True))
    return torch.tensor([known.get(concept.name, math.nan) for concept in concepts])


def standardise(rescoring: Rescoring, values: Float[Tensor, "C *rest"]) -> Float[Tensor, "C *rest"]:
    """Values in standard deviations of each score, so that concepts can be compared; 0 where a score never varies."""
    std = rescoring.score_std.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(std > 0, values / std.clamp(min=torch.finfo(std.dtype).tiny), 0.0)


def beside(others: Float[Tensor, "k *s"], num: int) -> Float[Tensor, "*s"]:
    """What else changes: root mean square over k other scores of their mean changes over ``num`` samples.

    Both in standard deviations. Never quite zero, so that what means of so few samples cannot resolve does not decide.
    """
    noise = 1 / math.sqrt(num) / 10
    return (others.square().sum(0) / max(len(others), 1)).sqrt() + noise


def resample_weights(num: int, num_resamples: int, seed: int) -> Float[Tensor, "B K"]:
    """How often each of K samples is drawn in each of B bootstrap resamples, divided by K.

    The same weights for every concept and placement keep the comparison paired.

    Raises:
        ValueError: fewer than 2 resamples.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2; got {num_resamples}")
    draws = torch.randint(num, (num_resamples, num), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(num_resamples, num).scatter_add_(1, draws, torch.ones(1).expand(num_resamples, num))
    return counts / num


def resampled_means(values: Float[Tensor, "*s K"], weights: Float[Tensor, "B K"]) -> Float[Tensor, "*s B"]:
    """Mean of every row in every resample; over those samples that were taken where others are NaN."""
    taken = ~values.isnan()
    if bool(taken.all()):
        return values @ weights.T
    total = values.nan_to_num(0.0) @ weights.T
    return total / (taken.to(weights) @ weights.T).clamp(min=torch.finfo(weights.dtype).tiny)


def interval(
    rescoring: Rescoring,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    truncated: bool = True,
    method: Method = "studentised",
) -> Float[Tensor, "C P 2"]:
    """Bootstrap interval of `delta`, or of `signed` with ``truncated=False``: lower and upper end.

    Truncated changes are skewed, most of them zero in the weak cells, and percentile intervals of a hundred samples
    are too short there. ``studentised`` (Efron & Tibshirani 1993, section 12.5) resamples the mean in units of its own
    standard error instead. A resample that happens to hold hardly any change has next to no variance; a twentieth of
    the measured variance is added on both sides, so that such resamples do not send the upper end to infinity. Coverage
    of both is measured by ``benchmarks/calibration.py``.

    Raises:
        ValueError: confidence not between 0 and 1, fewer than 2 resamples, or an unknown method.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    weights = resample_weights(rescoring.changes.shape[-1], num_resamples, seed)
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail])
    ends_of = studentised if method == "studentised" else _percentile
    rows = [ends_of(changes.clamp(min=0) if truncated else changes, weights, ends) for changes in rescoring.changes]
    found = torch.stack(rows)
    return found.clamp(min=0) if truncated else found


def _percentile(
    values: Float[Tensor, "P K"], weights: Float[Tensor, "B K"], ends: Float[Tensor, "2"]
) -> Float[Tensor, "P 2"]:
    return torch.quantile(resampled_means(values, weights), ends, dim=-1).T


def studentised(
    values: Float[Tensor, "P K"], weights: Float[Tensor, "B K"], ends: Float[Tensor, "2"]
) -> Float[Tensor, "P 2"]:
    """Studentised bootstrap intervals of the mean of every row; see `interval`.

    ``weights`` are those of `resample_weights`, ``ends`` the probabilities of being below the lower and upper end.
    """
    t, error = resampled_t(values, weights)
    high, low = torch.quantile(t, ends, dim=-1)
    mean = values.nanmean(1)
    return torch.stack([mean - low * error, mean - high * error], -1)


def resampled_t(
    values: Float[Tensor, "P K"], weights: Float[Tensor, "B K"]
) -> tuple[Float[Tensor, "P B"], Float[Tensor, " P"]]:
    """How far the mean of every row moves in each resample, in units of that resample's own error; and the row's error.

    A twentieth of the measured variance is added to both, see `interval`; errors are the bootstrap's, of variance by K.
    """
    # In units of their largest, so that squares of tiny or huge scores stay within float32.
    unit = values.nan_to_num(0.0).abs().amax(1, keepdim=True)
    values = values / torch.where(unit > 0, unit, 1.0)
    # About the mean, so that the variance of a resample does not drown in rounding.
    centred = values - values.nanmean(1, keepdim=True)
    variance = centred.square().nanmean(1, keepdim=True)
    shift = resampled_means(centred, weights)
    spread = (resampled_means(centred.square(), weights) - shift.square()).clamp(min=0) + _FLOOR * variance
    t = torch.where(variance > 0, shift / spread.clamp(min=torch.finfo(spread.dtype).tiny).sqrt(), 0.0)
    return t, ((variance * (1 + _FLOOR)).sqrt() * unit)[:, 0]


def students_t(shares: Float[Tensor, " n"], freedom: int) -> Float[Tensor, " n"]:
    """Quantiles of Student's t for whole degrees of freedom ν, by bisection.

    Its distribution is a finite sum in the angle atan(t / √ν) (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = torch.full_like(shares, -math.pi / 2), torch.full_like(shares, math.pi / 2)
    for _ in range(60):
        angle = (low + high) / 2
        term = angle.cos() ** (freedom % 2)
        total = torch.zeros_like(angle)
        for power in range(freedom % 2, freedom - 1, 2):
            total += term
            term = term * angle.cos().square() * (power + 1) / (power + 2)
        within = (angle + angle.sin() * total) * 2 / math.pi if freedom % 2 else angle.sin() * total
        below = (1 + within) / 2 < shares
        low, high = torch.where(below, angle, low), torch.where(below, high, angle)
    return math.sqrt(freedom) * ((low + high) / 2).tan()


def null_level(
    rescoring: Rescoring, quantile: float | None = None, *, against: Null = "random"
) -> Float[Tensor, "C P"]:
    """What Eq. (1) gives for meaningless directions of the same length: their mean, or a quantile over directions.

    Raises:
        ValueError: there are no permuted directions.
    """
    null = _null(rescoring, against)
    return null.mean(-1).float() if quantile is None else torch.quantile(null, quantile, dim=-1).float()


def _null(rescoring: Rescoring, against: Null) -> Float[Tensor, "C P R"]:
    if against not in get_args(Null):
        raise ValueError(f"against must be one of {', '.join(get_args(Null))}; got {against!r}")
    found = rescoring.null if against == "random" else rescoring.permuted
    if found is None:
        raise ValueError("this re-scoring has no permuted directions; fit again with num_permuted above 0")
    return found.permute(2, 1, 0).double()


def p_values(
    rescoring: Rescoring, *, against: Null = "random", pooled: bool = False, randomised: int | None = None
) -> Float[Tensor, "C P"]:
    """How probable a meaningless direction is to reach Δs, over the samples that both were measured on.

    By default the exact rank test of each cell by itself, (1 + number of directions that reach Δs) / (R + 1): valid
    whatever the null's shape, but never below 1 / (R + 1), which leaves nothing to find in a large table.

    ``pooled=True`` assumes that the null has the same shape in every cell up to location and scale (as significance
    analysis of microarrays does: Tusher, Tibshirani & Chu 2001). Every value is studentised by the other directions of
    its cell, and Δs is ranked among all cells' directions: never below 1 / (R · cells + 1), so that the only true
    effect of a table is found at a false-discovery rate of α if R ≥ 1/α. On average over a table it keeps its level. A
    single cell whose null is more skewed than the others' is rejected more often, one less skewed more seldom; and far
    out in the tail R directions that all cells share are fewer than they look, so that q-values from one null alone are
    optimistic where nothing at all is there. `table` therefore asks for both nulls where it has them, which more than
    makes up for it (``benchmarks/calibration.py`` has the figures). Placements of the same layers are pooled once. A
    cell in which three quarters of the directions gain the same, say nothing, has no scale to pool by: it keeps its
    exact p-value, can hardly be verified, and lends nothing to the others, whose p-values its single outliers would
    raise. Nor does a score that never varies.

    The exact test rejects less often than α unless α (R + 1) is whole, and where directions tie. ``randomised``, the
    seed of a draw, breaks both: the p-value is then uniform where nothing is there. It is meant for calibration, since
    nobody should cite a draw.

    A score that never varies has p = 1 unless randomised.

    Raises:
        ValueError: fewer than 3 directions to pool, none that are permuted, or a pooled test is to be randomised.
    """
    observed = delta_beside_null(rescoring).double()
    null = _null(rescoring, against)
    R = null.shape[-1]
    if not pooled:
        if randomised is None:
            return ((1 + (null >= observed[..., None]).sum(-1)) / (R + 1)).float()
        draw = torch.rand(observed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(randomised))
        above, level = ((compare(null, observed[..., None])).sum(-1) for compare in (torch.gt, torch.eq))
        return ((above + draw * (1 + level)) / (R + 1)).float()
    if randomised is not None:
        raise ValueError("only the exact test can be randomised; leave pooled or randomised out")
    if R < _FEWEST_TO_POOL:
        raise ValueError(f"pooling needs at least {_FEWEST_TO_POOL} random directions; got {R}")
    flat, once = _hardly_varies(null), _distinct(rescoring)
    lending = ~flat & (rescoring.score_std > 0)[:, None]
    others = _studentise_left_out(null)[:, once][lending[:, once]].flatten().sort().values
    std = null.std(-1).clamp(min=torch.finfo(torch.float64).tiny)
    z = (observed - null.mean(-1)) / (std * math.sqrt(1 + 1 / R))
    reached = len(others) - torch.searchsorted(others, z.contiguous())
    p = (1 + reached) / (len(others) + 1)
    rank_p = p_values(rescoring, against=against)
    return torch.where(flat, rank_p.double(), p).float()


def _hardly_varies(null: Float[Tensor, "C P R"]) -> Bool[Tensor, "C P"]:
    """Whether the shortest interval that holds three quarters of a cell's directions has no length.

    Not half of them: half of all directions lower a score wherever they are applied, and gain nothing by Eq. (1).
    """
    ordered = null.sort(-1).values
    R = ordered.shape[-1]
    most = min(math.ceil(0.75 * R), R - 1)
    lengths = ordered[..., most - 1 :] - ordered[..., : R - most + 1]
    return lengths.amin(-1) <= 1e-9 * null.abs().amax(-1)


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


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What happened to every concept at every placement, and what it takes to believe it.

    ``delta``, ``signed``, their intervals and the nulls' means are in units of each score, ``effect`` and its interval
    are ``delta`` in the score's standard deviations. ``p`` is the larger of the p-values against either null, so that a
    cell counts only if neither explains it; ``q`` controls the false-discovery rate over all cells. ``verified`` means
    that q ≤ alpha and that the score rises on average.
    """

    delta: Float[Tensor, "C P"]
    low: Float[Tensor, "C P"]
    high: Float[Tensor, "C P"]
    signed: Float[Tensor, "C P"]
    signed_low: Float[Tensor, "C P"]
    signed_high: Float[Tensor, "C P"]
    effect: Float[Tensor, "C P"]
    effect_low: Float[Tensor, "C P"]
    effect_high: Float[Tensor, "C P"]
    null: Float[Tensor, "C P"]
    null_permuted: Float[Tensor, "C P"] | None
    p_random: Float[Tensor, "C P"]
    p_permuted: Float[Tensor, "C P"] | None
    p: Float[Tensor, "C P"]
    q: Float[Tensor, "C P"]
    verified: Bool[Tensor, "C P"]


def table(
    rescoring: Rescoring,
    *,
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    pooled: bool | None = None,
) -> Table:
    """Every statistic of every cell, and false-discovery control over all of them together.

    Placements of the same layers (a stage of one layer) are one hypothesis and count once; a score that never varies is
    none.

    Args:
        rescoring: C concepts at P placements.
        alpha: false-discovery rate.
        confidence: of the intervals.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        pooled: see `p_values`; by default wherever there are enough directions to pool.

    Raises:
        ValueError: as for `interval` and `p_values`.
    """
    change, mean = delta(rescoring), signed(rescoring)
    ends, mean_ends = (
        interval(rescoring, confidence=confidence, num_resamples=num_resamples, seed=seed, truncated=truncated)
        for truncated in (True, False)
    )
    effect, effect_ends = standardise(rescoring, change), standardise(rescoring, ends)
    p_random = _p(rescoring, "random", pooled)
    p_permuted = None if rescoring.permuted is None else _p(rescoring, "permuted", pooled)
    p = p_random if p_permuted is None else torch.maximum(p_random, p_permuted)
    q = _q_by_layers(rescoring, p)
    return Table(
        delta=change,
        low=ends[..., 0],
        high=ends[..., 1],
        signed=mean,
        signed_low=mean_ends[..., 0],
        signed_high=mean_ends[..., 1],
        effect=effect,
        effect_low=effect_ends[..., 0],
        effect_high=effect_ends[..., 1],
        null=null_level(rescoring),
        null_permuted=None if rescoring.permuted is None else null_level(rescoring, against="permuted"),
        p_random=p_random,
        p_permuted=p_permuted,
        p=p,
        q=q,
        verified=(q <= alpha) & (mean > 0) & (rescoring.score_std > 0)[:, None],
    )


def _p(rescoring: Rescoring, against: Null, pooled: bool | None) -> Float[Tensor, "C P"]:
    enough = _null(rescoring, against).shape[-1] >= _FEWEST_TO_POOL
    return p_values(rescoring, against=against, pooled=enough if pooled is None else pooled)


def _q_by_layers(rescoring: Rescoring, p: Float[Tensor, "C P"]) -> Float[Tensor, "C P"]:
    kept = _distinct(rescoring)
    layers = [rescoring.placements[column].layers for column in kept]
    back = [layers.index(placement.layers) for placement in rescoring.placements]
    q, varies = torch.ones_like(p), rescoring.score_std > 0
    q[varies] = q_values(p[varies][:, kept])[:, back]
    return q


def _distinct(rescoring: Rescoring) -> list[int]:
    """The first placement of every set of layers: a stage of one layer is that layer."""
    first: dict[tuple[int, ...], int] = {}
    for column, placement in enumerate(rescoring.placements):
        first.setdefault(placement.layers, column)
    return [*first.values()]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the ranking: what happened to one concept at one placement; see `Table`.

    ``p_permuted`` is NaN where there are no permuted directions.
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
    p_random: float
    p_permuted: float


def rank(
    rescoring: Rescoring,
    *,
    placement: str = "all",
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    pooled: bool | None = None,
) -> tuple[Verdict, ...]:
    """Concepts at one placement, strongest effect in standard deviations first (the paper's ranking by Δs).

    q-values control the false-discovery rate over the whole table, all placements included; see `table`.

    Raises:
        ValueError: unknown placement.
    """
    names = [candidate.name for candidate in rescoring.placements]
    if placement not in names:
        raise ValueError(f"unknown placement {placement!r}; this re-scoring holds {', '.join(names)}")
    found = table(rescoring, alpha=alpha, confidence=confidence, num_resamples=num_resamples, seed=seed, pooled=pooled)
    return ranking(rescoring, found, placement)


def ranking(rescoring: Rescoring, found: Table, placement: str) -> tuple[Verdict, ...]:
    """The rows of one placement of a table that is there already, strongest effect first; see `rank`."""
    P = [candidate.name for candidate in rescoring.placements].index(placement)
    rows = [
        Verdict(
            concept=concept,
            placement=placement,
            delta=float(found.delta[c, P]),
            low=float(found.low[c, P]),
            high=float(found.high[c, P]),
            signed=float(found.signed[c, P]),
            null=float(found.null[c, P]),
            effect=float(found.effect[c, P]),
            effect_low=float(found.effect_low[c, P]),
            effect_high=float(found.effect_high[c, P]),
            p=float(found.p[c, P]),
            q=float(found.q[c, P]),
            verified=bool(found.verified[c, P]),
            p_random=float(found.p_random[c, P]),
            p_permuted=math.nan if found.p_permuted is None else float(found.p_permuted[c, P]),
        )
        for c, concept in enumerate(rescoring.concepts)
    ]
    return tuple(sorted(rows, key=lambda row: -row.effect))
