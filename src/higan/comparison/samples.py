"""Which samples two re-scorings have in common: it decides whether their difference is paired."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from higan.types import Rescoring

__all__ = ["padded", "share_samples"]


def share_samples(one: Rescoring, other: Rescoring) -> bool:
    """Whether both moved the same samples, as far as the shorter goes; False where they have none in common.

    Whether they are of one generator does not matter: pairs of equal seeds are drawn together and independently of one
    another, so that resampling pairs is right whatever ties the two, which may be nothing.

    Raises:
        ValueError: some samples are the same, but not from the first on.
    """
    num = min(len(one.seeds), len(other.seeds))
    if torch.equal(one.seeds[:num], other.seeds[:num]):
        return True
    if bool(torch.isin(one.seeds, other.seeds).any()):
        raise ValueError(
            "two runs are paired if they re-scored the same samples from the first on, and independent if they have "
            "none in common; these have some. Re-score one of them with a --seed of its own"
        )
    return False


def padded(rescoring: Rescoring, longest: Rescoring) -> Rescoring:
    """The same with as many samples as another that begins alike; those that it lacks were not taken (NaN)."""
    num = len(longest.seeds) - len(rescoring.seeds)
    if num <= 0:
        return rescoring
    null = rescoring.null_changes
    return replace(
        rescoring,
        seeds=longest.seeds,
        originals=_longer(rescoring.originals.T, num).T,
        changes=_longer(rescoring.changes, num),
        null_changes=None if null is None else _longer(null, num),
    )


def _longer(values: Float[Tensor, "*s K"], num: int) -> Float[Tensor, "*s N"]:
    return torch.nn.functional.pad(values, (0, num), value=torch.nan)
