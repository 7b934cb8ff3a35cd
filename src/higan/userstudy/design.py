"""Which trials a study has, and who sees which of them in what order: pure combinatorics, no pictures.

A *unit* is a picture, a direction and a signed step. It becomes one trial at every stage (bottom, lower, upper, top),
so that stages are compared on the same pictures moved the same way. A rater sees every unit once, at one stage: rater
groups and units form a Latin square, over whose S groups every unit is seen at every one of S stages. Catch trials,
whose answer is known, are seen by all.

Everything follows from the study's seed and the number of the block through SHA-256, never through a random generator,
so that it stays the same on every version and machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from higan.types import LEVELS

__all__ = ["CATCHES", "CHOICES", "Catch", "Choice", "Design", "Trial", "Unit", "block", "lay_out", "stage_of"]

Choice = Literal["layout", "object", "attribute", "colour", "nothing"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
"""What a rater can answer: the four levels, in the order of `higan.types.LEVELS`, or that nothing visible changed."""

if CHOICES[:-1] != LEVELS:
    raise RuntimeError("answers and levels must be the same words in the same order")

Catch = Literal["same", "mirror", "tint"]
CATCHES: Mapping[Catch, tuple[Choice, ...]] = {
    "same": ("nothing",),
    "mirror": ("layout", "object"),
    "tint": ("colour", "attribute"),
}
"""Catch trials and the answers that pass them.

``same`` is a picture twice, ``mirror`` a picture and its mirror image, ``tint`` a picture and the same in shades of one
colour. Where a careful person might defend two answers, both pass.
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A picture and what is done to it: ``source`` is the level of the boundary followed, or ``random``."""

    source: str
    concept: str
    strength: float
    seed: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A pair of pictures and the truth about it.

    ``id``, ``before`` and ``after`` are opaque names, all that a rater is ever sent. ``stage`` is None in a catch
    trial, whose ``catch`` says what it is; ``unit`` counts the units, and the catch trials by themselves.
    """

    id: str
    before: str
    after: str
    unit: int
    what: Unit
    stage: str | None = None
    catch: Catch | None = None

    @property
    def accepted(self) -> tuple[Choice, ...]:
        """Answers that pass a catch trial; none where the answer is the question."""
        return CATCHES[self.catch] if self.catch is not None else ()


@dataclass(frozen=True, slots=True)
class Design:
    """All trials of a study. Edits come unit by unit, stage by stage; catch trials apart.

    ``overlap`` raters in a row share a block, so that their agreement can be measured.
    """

    seed: int
    stages: Mapping[str, tuple[int, ...]]
    sources: tuple[str, ...]
    repeats: int
    overlap: int
    edits: tuple[Trial, ...]
    catches: tuple[Trial, ...]

    @property
    def num_units(self) -> int:
        """U: how many edits a rater sees."""
        return len(self.edits) // len(self.stages)

    @property
    def num_trials(self) -> int:
        """Trials of one rater, catch trials included."""
        return self.num_units + len(self.catches)

    @property
    def trials(self) -> Mapping[str, Trial]:
        """Every trial by its name."""
        return {trial.id: trial for trial in (*self.edits, *self.catches)}


def lay_out(
    stages: Mapping[str, tuple[int, ...]],
    units: Mapping[str, Sequence[Unit]],
    catches: Sequence[tuple[Catch, Unit]],
    *,
    seed: int,
    overlap: int = 2,
) -> Design:
    """Trials from units: every unit at every stage.

    Args:
        stages: layers of each stage, coarse to fine.
        units: per source (a level, or ``random``) the same number of units, a multiple of the number of stages.
        catches: kind and picture of each catch trial.
        seed: chooses names and orders; who knows it can tell what a name stands for.
        overlap: raters in a row that share a block.

    Raises:
        ValueError: no stages or units, sources of different size, a size that is no multiple of the number of stages,
            or an overlap below 1.
    """
    sizes = {len(members) for members in units.values()}
    if not stages or len(sizes) != 1 or not min(sizes) or min(sizes) % len(stages):
        raise ValueError(
            f"every source needs the same number of units, a multiple of the {len(stages)} stages; "
            f"got {', '.join(f'{len(members)} of {source}' for source, members in units.items()) or 'none'}"
        )
    if overlap < 1:
        raise ValueError(f"overlap must be at least 1; got {overlap}")
    flat = [unit for members in units.values() for unit in members]
    edits = [
        Trial(
            id=_name(seed, "trial", u, stage),
            before=_name(seed, "before", u),
            after=_name(seed, "after", u, stage),
            unit=u,
            what=unit,
            stage=stage,
        )
        for u, unit in enumerate(flat)
        for stage in stages
    ]
    caught = [
        Trial(
            id=_name(seed, "catch", k),
            before=_name(seed, "catch before", k),
            after=_name(seed, "catch after", k),
            unit=k,
            what=unit,
            catch=kind,
        )
        for k, (kind, unit) in enumerate(catches)
    ]
    repeats = min(sizes) // len(stages)
    return Design(seed, dict(stages), tuple(units), repeats, overlap, tuple(edits), tuple(caught))


def stage_of(design: Design, unit: int, number: int) -> int:
    """Index of the stage at which block ``number`` shows a unit: the Latin square."""
    per_source = design.repeats * len(design.stages)
    return (unit % per_source + number // design.overlap) % len(design.stages)


def block(design: Design, number: int) -> tuple[Trial, ...]:
    """The trials of block ``number`` in order; rater k of a study gets block k.

    - Every unit occurs once, every stage equally often with every source.
    - Every run of S edits, from the first on, holds each of the S stages once, in random order.
    - Catch trials stand at even distances, the first not before the first edit.

    Raises:
        ValueError: the number is negative.
    """
    if number < 0:
        raise ValueError(f"blocks are counted from 0; got {number}")
    S = len(design.stages)
    by_stage: list[list[Trial]] = [[] for _ in range(S)]
    for unit in range(design.num_units):
        stage = stage_of(design, unit, number)
        by_stage[stage].append(design.edits[unit * S + stage])
    queues = [_shuffled(trials, design.seed, number, "within") for trials in by_stage]
    edits = [
        trial
        for turn, trials in enumerate(zip(*queues, strict=True))
        for trial in _shuffled(trials, design.seed, number, turn)
    ]
    order: list[Trial] = []
    caught = _shuffled(design.catches, design.seed, number, "catches")
    places = [max(1, (k + 1) * len(edits) // (len(caught) + 1)) for k in range(len(caught))]
    for k, trial in enumerate(edits):
        order += [catch for catch, place in zip(caught, places, strict=True) if place == k]
        order.append(trial)
    return (*order, *(catch for catch, place in zip(caught, places, strict=True) if place >= len(edits)))


def _shuffled(trials: Sequence[Trial], *key: object) -> list[Trial]:
    return sorted(trials, key=lambda trial: _name(*key, trial.id))


def _name(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:20]
