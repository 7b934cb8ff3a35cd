"""Fits made again to learn what a fit is worth: to permuted scores, and to either half of the population.

A boundary fitted to permuted scores separates nothing, yet it comes out of the same solver and lies in the span of the
same codes as one that does. An isotropic random direction need not: where codes vary in few directions, most of it
points where no sample ever lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from higan.boundaries import Mode, fit
from higan.linear import Loss
from higan.samples import Dealt, Part, Samples, columns_of, samples_of
from higan.types import Boundary, Concept, Population

__all__ = ["permuted", "stabilities"]

_FEWEST = 8


def permuted(
    population: Population | Samples,
    num: int,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    seed: int = 0,
) -> tuple[Boundary, ...]:
    """``num`` boundaries, each fitted to one concept's scores dealt out anew among the samples.

    Concepts take turns; those whose score never varies are passed over, unless there are no others. Everything else is
    as in `higan.boundaries.fit`.

    Args:
        population: N samples.
        num: M, at least 0.
        concepts: names whose scores are permuted; all if None.
        mode: see `fit`.
        num_extreme: see `fit`.
        loss: see `fit`.
        C: see `fit`.
        seed: chooses the permutations.

    Raises:
        ValueError: a negative number, or as for `fit`.
    """
    if num < 0:
        raise ValueError(f"the number of permuted fits must be at least 0; got {num}")
    if num == 0:
        return ()
    samples = samples_of(population)
    varied = _varied(samples, columns_of(samples, concepts), num)
    generator = torch.Generator().manual_seed(seed)
    shuffled = Dealt(
        samples,
        tuple(Concept(f"permuted {m}", "attribute") for m in range(num)),
        tuple(varied[m % len(varied)] for m in range(num)),
        tuple(torch.randperm(len(samples), generator=generator) for _ in range(num)),
    )
    return fit(shuffled, mode=mode, num_extreme=num_extreme, loss=loss, C=C, seed=seed)


def _varied(samples: Samples, columns: list[int], num: int) -> list[int]:
    """The first ``num`` columns whose scores are not all the same; all columns where there are none such."""
    varied: list[int] = []
    for start in range(0, len(columns), num):
        some = columns[start : start + num]
        scores = samples.scores(some)
        varied += [
            column for column, differs in zip(some, (scores != scores[0]).any(0).tolist(), strict=True) if differs
        ]
        if len(varied) >= num:
            break
    return varied or columns


def stabilities(
    population: Population | Samples,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    seed: int = 0,
) -> Float[Tensor, " C"]:
    """Cosine between the normals of two fits, each to one half of the samples and half as many extreme ones.

    1 where the halves agree to the letter, about 0 where a boundary is made of noise. Where layers have normals of
    their own, the mean over layers. NaN with fewer than 8 samples.

    Raises:
        ValueError: as for `higan.boundaries.fit`.
    """
    samples = samples_of(population)
    num_concepts = len(samples.concepts) if concepts is None else len(concepts)
    if len(samples) < _FEWEST:
        return torch.full((num_concepts,), torch.nan)
    share = num_extreme if num_extreme <= 1 else max(2, min(int(num_extreme), len(samples) // 2) // 2)
    halves = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).chunk(2)
    parts = [Part(samples, half.sort().values) for half in halves]
    one, other = (
        torch.stack([b.normal for b in fit(part, concepts, mode=mode, num_extreme=share, loss=loss, C=C)])
        for part in parts
    )
    cosine = (one.double() * other.double()).sum(-1)
    return cosine.reshape(num_concepts, -1).mean(1).float()
