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
from higan.types import Boundary, Concept, Population

__all__ = ["permuted", "stabilities"]

_FEWEST = 8


def permuted(
    population: Population,
    num: int,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
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
        C: see `fit`.
        seed: chooses the permutations.

    Raises:
        ValueError: a negative number, or as for `fit`.
    """
    if num < 0:
        raise ValueError(f"the number of permuted fits must be at least 0; got {num}")
    if num == 0:
        return ()
    columns = list(range(len(population.concepts))) if concepts is None else [population.index(c) for c in concepts]
    varied = [c for c in columns if bool((population.scores[:, c] != population.scores[0, c]).any())] or columns
    generator = torch.Generator().manual_seed(seed)
    deals = [torch.randperm(len(population), generator=generator) for _ in range(num)]
    scores = [population.scores[deal, varied[m % len(varied)]] for m, deal in enumerate(deals)]
    names = tuple(Concept(f"permuted {m}", "attribute") for m in range(num))
    shuffled = Population(population.seeds, population.codes, torch.stack(scores, 1), names, population.num_layers)
    return fit(shuffled, mode=mode, num_extreme=num_extreme, C=C, seed=seed)


def stabilities(
    population: Population,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    C: float = 1.0,
    seed: int = 0,
) -> Float[Tensor, " C"]:
    """Cosine between the normals of two fits, each to one half of the samples and half as many extreme ones.

    1 where the halves agree to the letter, about 0 where a boundary is made of noise. Where layers have normals of
    their own, the mean over layers. NaN with fewer than 8 samples.

    Raises:
        ValueError: as for `higan.boundaries.fit`.
    """
    num_concepts = len(population.concepts) if concepts is None else len(concepts)
    if len(population) < _FEWEST:
        return torch.full((num_concepts,), torch.nan)
    share = num_extreme if num_extreme <= 1 else max(2, min(int(num_extreme), len(population) // 2) // 2)
    halves = torch.randperm(len(population), generator=torch.Generator().manual_seed(seed)).chunk(2)
    one, other = (
        torch.stack([b.normal for b in fit(_part(population, half), concepts, mode=mode, num_extreme=share, C=C)])
        for half in halves
    )
    cosine = (one.double() * other.double()).sum(-1)
    return cosine.reshape(num_concepts, -1).mean(1).float()


def _part(population: Population, rows: Tensor) -> Population:
    rows = rows.sort().values.to(population.codes.device)
    return Population(
        population.seeds[rows], population.codes[rows], population.scores[rows], population.concepts,
        population.num_layers,
    )  # fmt: skip
