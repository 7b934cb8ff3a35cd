"""What a run folder says, gathered once for the report: the ranking, the profile, and where each concept lives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from higan.boundaries import code_spread
from higan.hierarchy import Peak, Profile, finding, groups, peaks, profile, reliabilities
from higan.statistics import Table, Verdict, ranking, standardise, table
from higan.store import Run, load_boundaries, load_rescoring, read_shard
from higan.study import Comparison, comparison
from higan.types import Boundary, Level, Placement, Rescoring

__all__ = ["TARGET", "Entry", "Study", "study"]

TARGET = 2.0
"""How far an edit in a picture shall move its own score, in standard deviations."""

LIMIT = 12.0
"""… but never further than this, in standard deviations of the codes along the boundary's normal, or than the step of
the re-scoring, whichever is larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One concept with all that was measured about it.

    ``by_layer`` and ``by_stage`` are Δs above the mean of the null, in standard deviations of the score;
    ``layer_found`` says at which layers the whole table finds an effect; ``reliability`` is that of the profile over
    layers. ``strengths`` holds for every stage the step that is expected to move the score by `TARGET`, cut off at
    `LIMIT`; ``limited`` says at which stages it was cut.
    """

    verdict: Verdict
    boundary: Boundary
    column: int
    by_layer: tuple[float, ...]
    layer_found: tuple[bool, ...]
    by_stage: tuple[float, ...]
    stages: tuple[Placement, ...]
    strengths: tuple[float, ...]
    limited: tuple[bool, ...]
    reliability: float

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.verdict.concept.name

    @property
    def level(self) -> Level:
        """The concept's level."""
        return self.verdict.concept.level

    @property
    def best(self) -> int:
        """Index of the stage where Δs rises furthest above its null: the most proper layers."""
        return self.by_stage.index(max(self.by_stage))

    @property
    def stage(self) -> Placement:
        """The most proper layers."""
        return self.stages[self.best]

    @property
    def strength(self) -> float:
        """The step for pictures at the most proper layers."""
        return self.strengths[self.best]

    @property
    def layer(self) -> int:
        """The layer where Δs rises furthest above its null."""
        return self.by_layer.index(max(self.by_layer))


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A finished run, read for a reader. ``entries`` are ranked, strongest first.

    ``over_concepts`` is the profile with intervals that resample the concepts of a level too. ``modes`` are the
    profiles of the verified concepts under each step mode, the run's own first; ``comparison`` is what they come from.
    """

    run: Run
    rescoring: Rescoring
    table: Table
    entries: tuple[Entry, ...]
    profile: Profile
    over_concepts: Profile
    comparison: Comparison | None
    modes: Mapping[str, Profile]
    peaks: tuple[Peak, ...]
    sentence: str
    stages: tuple[Placement, ...]
    num_layers: int

    def verified(self, *levels: Level) -> tuple[Entry, ...]:
        """Verified concepts of these levels, or of all; those that move most at their most proper stage first."""
        chosen = [e for e in self.entries if e.verdict.verified and (not levels or e.level in levels)]
        return tuple(sorted(chosen, key=lambda e: -max(e.by_stage)))

    def tried(self, level: Level) -> int:
        """How many concepts of a level there are, verified or not."""
        return sum(entry.level == level for entry in self.entries)

    def effects(self, placement: str) -> Float[Tensor, "C C"]:
        """Mean change of every score (columns) under every concept's edit (rows), in standard deviations."""
        at = [candidate.name for candidate in self.rescoring.placements].index(placement)
        return standardise(self.rescoring, self.rescoring.effects[:, at].T).T


def study(run: Run, *, alpha: float = 0.05) -> Study:
    """Read a run folder and compute everything that is told in words and numbers.

    Raises:
        RunError: a step of the study has not been done, or a file is damaged.
        ValueError: the re-scoring lacks ``all``, a single layer or a stage.
    """
    rescoring = load_rescoring(run)
    boundaries = {boundary.concept.name: boundary for boundary in load_boundaries(run)}
    codes = read_shard(run, 0, []).codes
    levels = profile(rescoring, alpha=alpha)
    num_layers = len(levels.by_layer.names)
    stages = tuple(Placement(name, layers) for name, layers in groups(num_layers).items())
    names = [placement.name for placement in rescoring.placements]
    at_layer = [names.index(f"layer {layer}") for layer in range(num_layers)]
    at_stage = [names.index(stage.name) for stage in stages]
    cells = table(rescoring, alpha=alpha)
    excess = standardise(rescoring, cells.delta - cells.null)
    mean = standardise(rescoring, cells.signed)
    reliable = reliabilities(rescoring).tolist()
    columns = {concept.name: column for column, concept in enumerate(rescoring.concepts)}
    entries = []
    for verdict in ranking(rescoring, cells, "all"):
        c = columns[verdict.concept.name]
        boundary = boundaries[verdict.concept.name]
        reaches = [max(LIMIT * (code_spread(boundary, codes, s.layers) or 1.0), rescoring.step) for s in stages]
        steps = [
            _step(float(mean[c, p]), rescoring.step_at(p) or rescoring.step, reach)
            for p, reach in zip(at_stage, reaches, strict=True)
        ]
        entries.append(
            Entry(
                verdict=verdict,
                boundary=boundary,
                column=c,
                by_layer=tuple(excess[c, at_layer].tolist()),
                layer_found=tuple(cells.verified[c, at_layer].tolist()),
                by_stage=tuple(excess[c, at_stage].tolist()),
                stages=stages,
                strengths=tuple(step for step, _ in steps),
                limited=tuple(limited for _, limited in steps),
                reliability=reliable[c],
            )
        )
    counted = [name for names in levels.concepts for name in names]
    compared = comparison(run)
    others = {mode: profile(result, concepts=counted) for mode, result in (compared.modes if compared else {}).items()}
    return Study(
        run=run,
        rescoring=rescoring,
        table=cells,
        entries=tuple(entries),
        profile=levels,
        over_concepts=profile(rescoring, alpha=alpha, over_concepts=True),
        comparison=compared,
        modes={rescoring.step_mode: levels, **others},
        peaks=peaks(levels),
        sentence=finding(levels),
        stages=stages,
        num_layers=num_layers,
    )


def _step(change: float, step: float, reach: float) -> tuple[float, bool]:
    """Where a score that rises by ``change`` per ``step`` has risen by `TARGET`, and whether that was cut off."""
    wanted = step * TARGET / change if change > 0 else math.inf
    return (reach, True) if wanted > reach else (wanted, False)
