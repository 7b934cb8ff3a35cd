"""At which layers to edit a concept, by what the re-scoring measured."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from higan.spelling import instead
from higan.statistics import WORTHWHILE, beside, signed, standard_errors, standardise
from higan.types import Placement, Rescoring

__all__ = ["promising", "recommend", "recommendations"]


def recommend(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> Placement:
    """The layers at which an edit changes most of what is wanted for what is not.

    For every placement of the re-scoring, wanted is the mean change of the concept's own score, less 1.64 standard
    errors (the lower end of a one-sided 95 % interval) unless that leaves nothing anywhere; unwanted is the root mean
    square over all other scores of their mean changes (`Rescoring.effects`); both in standard deviations. Among the
    placements whose mean change reaches at least the share ``least`` of the largest, the one with the largest ratio of
    the two is taken: a placement that does next to nothing would need steps far outside the codes. Of ratios that
    differ by less than a tenth, which is about what some hundred samples can tell, the one with the fewest layers.

    Raises:
        ValueError: unknown concept, or its score rises at no placement.
    """
    return recommendations(rescoring, concept, least=least)[0]


def recommendations(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> tuple[Placement, ...]:
    """What `recommend` gives, then the other placements that reach the share ``least``, by their ratios.

    Raises:
        ValueError: as for `recommend`.
    """
    c, wanted, strong = _strong(rescoring, concept, least)
    sure = wanted - 1.64 * standardise(rescoring, standard_errors(rescoring))[c]
    gain = sure if bool((sure[strong] > 0).any()) else wanted
    ratio = torch.where(strong, gain / _unwanted(rescoring, c), -torch.inf)
    best = [p for p, r in enumerate(ratio.tolist()) if r >= 0.9 * float(ratio.max())]
    first = min(best, key=lambda p: len(rescoring.placements[p].layers))
    others = [p for p in ratio.argsort(descending=True).tolist() if bool(strong[p]) and p != first]
    return tuple(rescoring.placements[p] for p in (first, *others))


def promising(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> tuple[Placement, ...]:
    """The placements whose mean change of the concept's own score reaches the share ``least`` of the largest.

    Raises:
        ValueError: as for `recommend`.
    """
    _, _, strong = _strong(rescoring, concept, least)
    return tuple(placement for placement, s in zip(rescoring.placements, strong.tolist(), strict=True) if s)


def _strong(rescoring: Rescoring, concept: str, least: float) -> tuple[int, Float[Tensor, " P"], Bool[Tensor, " P"]]:
    """A concept's row, the mean changes of its own score in standard deviations, and where they are large enough."""
    names = [c.name for c in rescoring.concepts]
    if concept not in names:
        raise ValueError(f"unknown concept {concept!r}; this re-scoring holds {instead(concept, names)}")
    c = names.index(concept)
    wanted = standardise(rescoring, signed(rescoring))[c]
    if not float(wanted.max()) > 0:
        raise ValueError(f"no layers raise {concept!r}: say which to edit it at all the same")
    return c, wanted, wanted >= least * wanted.max()


def _unwanted(rescoring: Rescoring, c: int) -> Float[Tensor, " P"]:
    """Root mean square change of all other scores that vary, in standard deviations; never quite zero."""
    others = torch.tensor([k != c and float(rescoring.score_std[k]) > 0 for k in range(len(rescoring.concepts))])
    changes = standardise(rescoring, rescoring.effects[c].T)[others]
    return beside(changes, len(rescoring.seeds))
