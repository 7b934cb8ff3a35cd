"""Several scorers as one: each image is rendered once, whatever the number of predictors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.types import Concept, Scorer

__all__ = ["ChosenScorer", "CombinedScorer", "parts_of"]


class CombinedScorer:
    """Columns of all scorers, side by side.

    Raises:
        ValueError: no scorer, or two concepts of one name.
    """

    def __init__(self, scorers: Sequence[Scorer], name: str | None = None) -> None:
        if not scorers:
            raise ValueError("CombinedScorer needs at least one scorer; got none")
        concepts = [c for s in scorers for c in s.concepts]
        names = [c.name for c in concepts]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            having = [s.name for s in scorers if {c.name for c in s.concepts} & set(twice)]
            some = ", ".join(dict.fromkeys(having))
            if len(having) == 1:
                mend = f"{some} has them more than once by itself; name its concepts differently"
            else:
                mend = f"take one of {some}" if len(set(having)) > 1 else f"give {some} only once"
            raise ValueError(f"concepts must have different names; there are several of {', '.join(twice)}: {mend}")
        self.scorers = tuple(scorers)
        self.name = name or "+".join(s.name for s in scorers)
        self.concepts: tuple[Concept, ...] = tuple(concepts)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Scores of all scorers in their order."""
        return torch.cat([s.score(images).float() for s in self.scorers], 1)


def parts_of(scorer: Scorer) -> Iterator[Scorer]:
    """The scorers that a combination is made of, however deep; any other scorer alone."""
    if isinstance(scorer, CombinedScorer):
        for part in scorer.scorers:
            yield from parts_of(part)
    else:
        yield scorer


class ChosenScorer:
    """Some of a scorer's columns.

    Raises:
        ValueError: no names, or one that the scorer does not know.
    """

    def __init__(self, scorer: Scorer, names: Sequence[str]) -> None:
        known = [c.name for c in scorer.concepts]
        unknown = [n for n in names if n not in known]
        if unknown or not names:
            raise ValueError(f"choose among {', '.join(known)}; got {', '.join(unknown) or 'nothing'}")
        self.scorer = scorer
        self.name = scorer.name
        self._columns = [known.index(n) for n in names]
        self.concepts: tuple[Concept, ...] = tuple(scorer.concepts[k] for k in self._columns)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Scores of the chosen concepts, in the order in which they were named."""
        return self.scorer.score(images)[:, self._columns]
