"""The same edits of many samples, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from higan.recipes import Instruction, Move, Recipe, digest_of_normal
from higan.workbench.bench import Workbench
from higan.workbench.pictures import Edited, begin, carry_out, moves_of
from higan.workbench.plans import Settled, settle

__all__ = ["Series", "in_series"]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Edits whose layers and amounts have been looked for, once for all samples; see `in_series`."""

    bench: Workbench
    instructions: tuple[Instruction, ...]
    conditions: tuple[str, ...]
    settled: Settled

    def edit(self, *, seed: int | None = None, code: Float[Tensor, "L D"] | None = None) -> Edited:
        """One sample, by its seed or its code: bit for bit what `higan.workbench.edit` makes of it.

        Raises:
            OutOfReachError: a ``ValueError``: the score of this sample does not get to where it shall.
            ValueError: neither or both of seed and code, or a code of another shape.
            GeneratorError, ScorerError: see `higan.population.render` and `score`.
        """
        return carry_out(self.bench, self._begun(seed, code), self.settled, code=code)

    def made(self, recipe: Recipe, *, seed: int | None = None, code: Float[Tensor, "L D"] | None = None) -> bool:
        """Whether a recipe is what `edit` gives of this sample; how far a target takes it is believed.

        Raises:
            ValueError: neither or both of seed and code.
        """
        fixed = self.moves
        known, sought = recipe.moves[: len(fixed)], recipe.moves[len(fixed) :]
        return replace(recipe, moves=known) == replace(self._begun(seed, code), moves=fixed) and self._seeks(sought)

    @property
    def moves(self) -> tuple[Move, ...]:
        """Those that all samples share."""
        return moves_of(self.settled.edits)

    def _begun(self, seed: int | None, code: Tensor | None) -> Recipe:
        return begin(self.bench, self.instructions, seed=seed, code=code, conditions=self.conditions)

    def _seeks(self, moves: Sequence[Move]) -> bool:
        sought = [] if self.settled.target is None else [self.settled.target[1]]
        return [(m.concept, m.normal) for m in moves] == [(b.concept.name, digest_of_normal(b)) for b in sought]


def in_series(bench: Workbench, edits: Sequence[str | Instruction], *, conditions: Sequence[str] = ()) -> Series:
    """Edits for any number of samples: layers and amounts in standard deviations are looked for here, and only here.

    Args:
        bench: the generator with its boundaries.
        edits: as text or parsed; none leave samples as they are.
        conditions: concepts to be left alone.

    Raises:
        ValueError: unknown or contradictory edits, or an amount that cannot be reached.
    """
    settled = settle(bench, edits, conditions=conditions)
    return Series(bench, bench.instructions(edits), tuple(conditions), settled)
