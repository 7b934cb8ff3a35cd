"""How far two re-scorings differ, with intervals: effects of concepts, mean depths of levels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from higan.comparison.reach import Reach, reach
from higan.comparison.samples import padded, share_samples
from higan.hierarchy import layer_gains, mean_layers
from higan.statistics import resample_weights, standardise, studentised
from higan.types import Rescoring

__all__ = ["depth_difference", "effect_differences"]


def effect_differences(
    first: Rescoring,
    second: Rescoring,
    concepts: Sequence[str],
    *,
    placement: str = "all",
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Reach, ...]:
    """Δs of the second less that of the first, in standard deviations of each one's score, for every concept.

    The studentised bootstrap of `higan.statistics.interval`. Samples that both took are resampled in pairs, others in
    either by themselves. A difference of two means is the mean of what every sample adds to it (its influence), so that
    either is an interval of one mean.

    Raises:
        ValueError: see `share_samples`; a concept or the placement is not in both.
    """
    together = share_samples(first, second)
    if together:
        first, second = padded(first, second), padded(second, first)
    a, b = (_standard_changes(rescoring, concepts, placement) for rescoring in (first, second))
    if together:
        added = _influences(a, b)
        weights = resample_weights(a.shape[1], num_resamples, seed)
    else:
        added = _influences(_beside(a, b.shape[1], after=True), _beside(b, a.shape[1], after=False))
        each = [resample_weights(x.shape[1], num_resamples, seed + k) * x.shape[1] for k, x in enumerate((a, b))]
        weights = torch.cat(each, 1) / (a.shape[1] + b.shape[1])
    ends = studentised(added, weights, torch.tensor([0.025, 0.975]))
    return tuple(
        Reach(value, low, high) for value, (low, high) in zip(added.nanmean(1).tolist(), ends.tolist(), strict=True)
    )


def _standard_changes(rescoring: Rescoring, concepts: Sequence[str], placement: str) -> Float[Tensor, "c K"]:
    """Changes cut off at zero, in standard deviations of the score."""
    places = [candidate.name for candidate in rescoring.placements]
    known = [concept.name for concept in rescoring.concepts]
    for kind, name, there in [("placement", placement, places), *(("concept", name, known) for name in concepts)]:
        if name not in there:
            raise ValueError(f"unknown {kind} {name!r}; a re-scoring holds {', '.join(there)}")
    changes = standardise(rescoring, rescoring.changes[:, places.index(placement)].clamp(min=0))
    return changes[[known.index(name) for name in concepts]]


def _beside(values: Float[Tensor, "c K"], num: int, *, after: bool) -> Float[Tensor, "c N"]:
    """With ``num`` samples of another re-scoring, not taken, after or before those that were."""
    return torch.nn.functional.pad(values, (0, num) if after else (num, 0), value=torch.nan)


def _influences(a: Float[Tensor, "c N"], b: Float[Tensor, "c N"]) -> Float[Tensor, "c N"]:
    """Values whose mean is the difference of the means of ``b`` and ``a``, and varies as it does; NaN: not taken.

    Where both have all samples they are the differences, sample by sample.
    """
    taken = ~(a.isnan() & b.isnan())
    num = taken.sum(1, keepdim=True)
    parts = [
        (x - x.nanmean(1, keepdim=True)).nan_to_num(0.0) * num / (~x.isnan()).sum(1, keepdim=True).clamp(min=1)
        for x in (a, b)
    ]
    shift = (b.nanmean(1, keepdim=True) - a.nanmean(1, keepdim=True)).nan_to_num(0.0)
    return torch.where(taken, shift + parts[1] - parts[0], torch.nan)


def depth_difference(
    first: Rescoring, second: Rescoring, concepts: Collection[str], *, num_resamples: int = 1000, seed: int = 0
) -> Reach:
    """Mean relative depth of these concepts in the second less that in the first; 1 is all the way through the layers.

    Depth is the mean layer of `higan.hierarchy.profile`, and so is the bootstrap, with samples that both took resampled
    in pairs.

    Raises:
        ValueError: see `share_samples`; no concepts, or a re-scoring lacks a single layer.
    """
    if not concepts:
        raise ValueError("a difference in depth is that of at least one concept; got none")
    together = share_samples(first, second)
    if together:
        first, second = padded(first, second), padded(second, first)
    a, b = (
        _depth(rescoring, concepts, num_resamples, seed + k * (not together))
        for k, rescoring in enumerate((first, second))
    )
    return reach(b - a)


def _depth(rescoring: Rescoring, concepts: Collection[str], num_resamples: int, seed: int) -> Float[Tensor, " b"]:
    """Mean over concepts, as measured and in every resample; no further out than the first and last layer."""
    gains = layer_gains(rescoring, num_resamples=num_resamples, seed=seed)
    found = [
        mean_layers(gain) / max(gain.shape[1] - 1, 1)
        for concept, gain in zip(rescoring.concepts, gains, strict=True)
        if concept.name in concepts
    ]
    return torch.stack(found).mean(0).clamp(0, 1)
