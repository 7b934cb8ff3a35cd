"""How far raters agree, and how far two tables do."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from higan.extras import optional
from higan.userstudy.design import CHOICES
from higan.userstudy.ratings import MISSING

__all__ = ["alpha", "alpha_interval", "flatten", "order_test", "rank_correlation"]


def alpha(ratings: Int[np.ndarray, "R I"]) -> float | None:
    """Krippendorff's alpha for nominal data, computed by NLTK: 1 is perfect agreement, 0 what chance would give.

    Args:
        ratings: what R raters said of I items; below zero where one said nothing.

    Returns:
        None where no item was rated twice, or where all said one and the same.

    Raises:
        MissingExtraError: NLTK is not installed.
    """
    counts = _counts(ratings)
    paired = counts.sum(1) >= 2
    if not paired.any() or (counts[paired].sum(0) > 0).sum() < 2:
        return None
    agreement = optional("nltk.metrics.agreement", "studio")
    rows = [(str(r), str(i), int(ratings[r, i])) for r, i in zip(*np.nonzero(ratings >= 0), strict=True)]
    return float(agreement.AnnotationTask(data=rows).alpha())


def alpha_interval(
    ratings: Int[np.ndarray, "R I"], *, confidence: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap of `alpha` over items.

    Raters are not resampled: one drawn twice would agree with themselves. Resamples without two different answers are
    left out. None where alpha is.
    """
    counts = _counts(ratings)
    counts = counts[counts.sum(1) >= 2]
    if len(counts) == 0:
        return None
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=num_resamples).astype(float)
    values = _weighted_alpha(counts, weights)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _counts(ratings: Int[np.ndarray, "R I"]) -> Float[np.ndarray, "I A"]:
    """How often each answer was given to each item."""
    return np.stack([(ratings == a).sum(0) for a in range(max(len(CHOICES), int(ratings.max(initial=0)) + 1))], 1) * 1.0


def _weighted_alpha(counts: Float[np.ndarray, "I A"], weights: Float[np.ndarray, "B I"]) -> Float[np.ndarray, " B"]:
    """Alpha in closed form (Krippendorff 2004, section 11.3.2), every item counted ``weights`` times."""
    sizes = counts.sum(1)
    agreeing = (counts * (counts - 1)).sum(1) / (sizes - 1)
    total, totals = weights @ sizes, weights @ counts
    expected = total**2 - (totals**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (total - 1) * (total - weights @ agreeing) / expected, np.nan)


def rank_correlation(a: Float[np.ndarray, "b n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " b"]:
    """Spearman's rank correlation of every row with ``b``, ties at their mean rank; NaN where a row never varies."""
    x, y = _ranks(a), _ranks(b[None])
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def _ranks(values: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    return below + (equal + 1) / 2


def order_test(a: Float[np.ndarray, "V S"], b: Float[np.ndarray, "V S"]) -> float:
    """Exact test of `rank_correlation`: in which share of all orders of the stages is it at least as large?

    The order of the stages is exchanged for all levels at once; S stages give S! orders, the true one among them.
    """
    orders = itertools.permutations(range(a.shape[1]))
    found = rank_correlation(np.stack([a[:, list(order)].ravel() for order in orders]), b.ravel())
    return float((found >= found[0] - 1e-12).mean())


def flatten(edits: Int[np.ndarray, "R U S"]) -> Int[np.ndarray, "R I"]:
    """Units at stages as items, without those nobody has rated."""
    items = edits.reshape(len(edits), -1)
    return items[:, (items != MISSING).any(0)]
