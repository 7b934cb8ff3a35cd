"""Where a re-scoring finds its concepts: shares over layers, and mean depths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from higan.hierarchy import layer_gains, positive_shares
from higan.statistics import rank
from higan.types import LEVELS, Level, Rescoring

__all__ = ["BINS", "Located", "binning", "locate"]

BINS = 8
"""Stretches of depth over which generators with other numbers of layers are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """The verified concepts of a re-scoring over L layers: as measured, then in every resample, b rows in all.

    ``shares`` are Δs above its null divided by its sum over layers, losses not counted.
    """

    num_layers: int
    shares: Mapping[str, Float[Tensor, "b L"]]
    level_of: Mapping[str, Level]

    def depths(self) -> dict[str, Float[Tensor, " b"]]:
        """Mean relative depth of every concept, weighted by its shares: 0 the first layer, 1 the last."""
        at = torch.linspace(0, 1, self.num_layers)
        return {concept: shares @ at for concept, shares in self.shares.items()}

    def level_bins(self) -> dict[Level, Float[Tensor, "b X"]]:
        """Share of every level that has a concept in each of `BINS` stretches of depth, mean over its concepts."""
        spread = binning(self.num_layers)
        found: dict[Level, Tensor] = {}
        for level in LEVELS:
            members = [shares for concept, shares in self.shares.items() if self.level_of[concept] == level]
            if members:
                found[level] = torch.stack(members).mean(0) @ spread
        return found


def locate(rescoring: Rescoring, *, num_resamples: int = 1000, seed: int = 0) -> Located:
    """Where the verified concepts of a re-scoring lie, those of them that a single layer raises.

    Args:
        rescoring: at all layers together and every single layer.
        num_resamples: of the bootstrap over samples.
        seed: of the bootstrap; the same one for two re-scorings of the same samples, which are then resampled in pairs.

    Raises:
        ValueError: the re-scoring lacks placement ``all`` or a single layer.
    """
    verified = {row.concept.name for row in rank(rescoring, num_resamples=2) if row.verified}
    gains = layer_gains(rescoring, num_resamples=num_resamples, seed=seed)
    return Located(
        num_layers=gains[0].shape[1],
        shares={
            concept.name: positive_shares(found)
            for concept, found in zip(rescoring.concepts, gains, strict=True)
            if concept.name in verified and bool((found[0] > 0).any())
        },
        level_of={concept.name: concept.level for concept in rescoring.concepts},
    )


def binning(num_layers: int, num_bins: int = BINS) -> Float[Tensor, "L X"]:
    """How much of each layer's stretch of depth lies in each bin; rows sum to one."""
    edges, cuts = torch.linspace(0, 1, num_layers + 1), torch.linspace(0, 1, num_bins + 1)
    low = torch.maximum(edges[:-1, None], cuts[None, :-1])
    high = torch.minimum(edges[1:, None], cuts[None, 1:])
    return (high - low).clamp(min=0) * num_layers
