"""Fits made again to learn what a fit is worth: to permuted scores, and to either half of the population.

A boundary fitted to permuted scores separates nothing, yet it comes out of the same solver and lies in the span of the
same codes as one that does. An isotropic random direction need not: where codes vary in few directions, most of it
points where no sample ever lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from higan.boundaries import Mode, fit
from higan.linear import Loss
from higan.samples import Dealt, Part, Samples, columns_of, samples_of
from higan.types import Boundary, Concept, Population

__all__ = ["check_permuted", "permuted", "stabilities"]

_FEWEST = 8
_FEWEST_PERMUTED = 3  # What `higan.statistics.p_values` can pool; against fewer, no p-value is below a third.
_COLUMNS = 32


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
    memory: int | None = None,
) -> tuple[Boundary, ...]:
    """``num`` boundaries, each fitted to one concept's scores dealt out anew among the samples.

    Concepts take turns; those whose score never varies are passed over, unless there are no others. Everything else is
    as in `higan.boundaries.fit`.

    Args:
        population: N samples.
        num: M, 0 or at least 3.
        concepts: names whose scores are permuted; all if None.
        mode: see `fit`.
        num_extreme: see `fit`.
        loss: see `fit`.
        C: see `fit`.
        seed: chooses the permutations.
        memory: see `fit`.

    Raises:
        ValueError: a number that `check_permuted` refuses, or as for `fit`.
    """
    check_permuted(num)
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
    # In mode "all" extremes say how accurate a boundary is and no more: here nobody asks, and few may not be held out.
    extremes = 0.5 if mode == "all" else num_extreme
    return fit(shuffled, mode=mode, num_extreme=extremes, loss=loss, C=C, seed=seed, memory=memory)


def check_permuted(num: int) -> None:
    """Refuses what `permuted` cannot do.

    Raises:
        ValueError: a negative number, or one or two, against which nothing could ever be verified.
    """
    if num != 0 and num < _FEWEST_PERMUTED:
        raise ValueError(
            f"the number of permuted fits must be 0, for no such null, or at least {_FEWEST_PERMUTED}, better 20, with "
            f"which a single effect can be verified at q = 0.05; got {num}"
        )


def _varied(samples: Samples, columns: list[int], num: int) -> list[int]:
    """The first ``num`` columns whose scores are not all the same; all columns where there are none such."""
    varied = (column for column, varies in zip(columns, _varies(samples, columns), strict=True) if varies)
    return list(islice(varied, num)) or columns


def stabilities(
    population: Population | Samples,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    seed: int = 0,
    memory: int | None = None,
) -> Float[Tensor, " C"]:
    """Cosine between the normals of two fits, each to one half of the samples and half as many extreme ones.

    1 where the halves agree to the letter, about 0 where a boundary is made of noise, 0 where a score never varies.
    Where layers have normals of their own, the mean over layers. NaN with fewer than 8 samples.

    Raises:
        ValueError: as for `higan.boundaries.fit`.
    """
    samples = samples_of(population)
    columns = columns_of(samples, concepts)
    if len(samples) < _FEWEST:
        return torch.full((len(columns),), torch.nan)
    half = len(samples) // 2
    extremes: int | float = max(2, int(num_extreme * half) if num_extreme <= 1 else min(int(num_extreme), half) // 2)
    if mode == "all":
        extremes = 0.5  # They only say how accurate the fit is, which nobody asks here.
    halves = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).chunk(2)
    parts = [Part(samples, half.sort().values) for half in halves]
    one, other = (
        torch.stack(
            [b.normal for b in fit(part, concepts, mode=mode, num_extreme=extremes, loss=loss, C=C, memory=memory)]
        )
        for part in parts
    )
    cosine = (one.double() * other.double()).sum(-1)
    # What stands in for a direction where there is none would be the same in both halves.
    there = torch.tensor(list(_varies(samples, columns)), device=cosine.device)
    return torch.where(there, cosine.reshape(len(columns), -1).mean(1), 0.0).float()


def _varies(samples: Samples, columns: list[int]) -> Iterator[bool]:
    """Whether the scores of each column differ from one another; few columns are read at a time."""
    for start in range(0, len(columns), _COLUMNS):
        scores = samples.scores(columns[start : start + _COLUMNS])
        yield from (scores != scores[0]).any(0).tolist()
