"""Two or more re-scorings side by side."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from higan.comparison.agreement import Agreement, agreement, are_comparable, halves
from higan.comparison.differences import depth_difference, effect_differences
from higan.comparison.located import locate
from higan.comparison.reach import Reach
from higan.comparison.samples import padded, share_samples
from higan.hierarchy import Profile, profile
from higan.statistics import null_level, rank, standardise
from higan.types import LEVELS, Level, Rescoring

__all__ = ["Compared", "ConceptRow", "LevelRow", "Pair", "compare"]

_FEWEST = 8
"""Samples from which on halves of them say something."""


@dataclass(frozen=True, slots=True)
class ConceptRow:
    """A concept that all have: its effect at all layers in each, in standard deviations of that one's score.

    ``nulls`` are the mean effects of random directions of the same length.
    ``differences`` are those of every later re-scoring less the first. ``level`` is the first one's.
    """

    name: str
    level: Level
    effects: tuple[Reach, ...]
    nulls: tuple[float, ...]
    verified: tuple[bool, ...]
    differences: tuple[Reach, ...]


@dataclass(frozen=True, slots=True)
class LevelRow:
    """A level's mean relative depth in each, over its verified concepts there; None where it has none.

    ``differences`` are those of every later re-scoring less the first, over the ``shared`` concepts, verified in both:
    what other concepts would make of it is no difference of generators. None where there are none.
    """

    level: Level
    depths: tuple[Reach | None, ...]
    concepts: tuple[tuple[str, ...], ...]
    differences: tuple[Reach | None, ...]
    shared: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """How far two agree; twice the same name are the two halves of its samples. None: nothing is verified in both."""

    one: str
    other: str
    agreement: Agreement | None


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Re-scorings by name, side by side; every interval is of 95 %, for one figure chosen beforehand.

    ``together`` says of every later one whether it moved the samples of the first, so that differences are paired.
    ``missing`` are the concepts that not all have, with the names of those that lack them.
    """

    names: tuple[str, ...]
    together: tuple[bool, ...]
    concepts: tuple[ConceptRow, ...]
    missing: Mapping[str, tuple[str, ...]]
    levels: tuple[LevelRow, ...]
    pairs: tuple[Pair, ...]
    profiles: Mapping[str, Profile]


def compare(rescorings: Mapping[str, Rescoring]) -> Compared:
    """Effects, depths and agreement of two or more re-scorings, concepts matched by name.

    Args:
        rescorings: by the name to be told by, each at all layers together, every single layer and every stage. The
            first is what the others are held against.

    Raises:
        ValueError: fewer than two, two that are the same, no concept that all have, or see `share_samples`.
    """
    if len(rescorings) < 2:
        raise ValueError(f"a comparison is of two or more; got {len(rescorings)}")
    for (one, a), (other, b) in itertools.combinations(rescorings.items(), 2):
        if torch.equal(a.seeds, b.seeds) and _alike(a.changes, b.changes):
            raise ValueError(f"{one} and {other} hold the same results: there is nothing to compare")
    known = {name: [concept.name for concept in found.concepts] for name, found in rescorings.items()}
    union = dict.fromkeys(itertools.chain.from_iterable(known.values()))
    missing = {concept: lacking for concept in union if (lacking := tuple(n for n in known if concept not in known[n]))}
    if len(missing) == len(union):
        told = "; ".join(f"{name} has {', '.join(concepts)}" for name, concepts in known.items())
        raise ValueError(f"concepts are matched by name, and there is none that all have: {told}")
    profiles = {name: profile(found) for name, found in rescorings.items()}
    first, *later = rescorings.values()
    return Compared(
        names=tuple(rescorings),
        together=tuple(share_samples(first, other) for other in later),
        concepts=_concept_rows(rescorings, [concept for concept in union if concept not in missing]),
        missing=missing,
        levels=tuple(_level_row(level, rescorings, profiles) for level in LEVELS),
        pairs=_pairs(rescorings),
        profiles=profiles,
    )


def _alike(one: Float[Tensor, "c p k"], other: Float[Tensor, "d q m"]) -> bool:
    """Whether they hold the same; samples that adaptive verification did not take (NaN) are the same too."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _concept_rows(rescorings: Mapping[str, Rescoring], names: list[str]) -> tuple[ConceptRow, ...]:
    """By level, the first one's strongest first."""
    first, *later = rescorings.values()
    ranked = [{row.concept.name: row for row in rank(found)} for found in rescorings.values()]
    nulls = [_nulls(found) for found in rescorings.values()]
    differences = [effect_differences(first, other, names) for other in later]
    rows = [
        ConceptRow(
            name=name,
            level=ranked[0][name].concept.level,
            effects=tuple(Reach(at[name].effect, at[name].effect_low, at[name].effect_high) for at in ranked),
            nulls=tuple(at[name] for at in nulls),
            verified=tuple(at[name].verified for at in ranked),
            differences=tuple(found[k] for found in differences),
        )
        for k, name in enumerate(names)
    ]
    return tuple(sorted(rows, key=lambda row: (LEVELS.index(row.level), -row.effects[0].value)))


def _nulls(rescoring: Rescoring) -> dict[str, float]:
    """What random directions do at all layers, in standard deviations of each score."""
    at = [placement.name for placement in rescoring.placements].index("all")
    found = standardise(rescoring, null_level(rescoring))[:, at].tolist()
    return {concept.name: null for concept, null in zip(rescoring.concepts, found, strict=True)}


def _level_row(level: Level, rescorings: Mapping[str, Rescoring], profiles: Mapping[str, Profile]) -> LevelRow:
    concepts = [
        found.concepts[found.levels.index(level)] if level in found.levels else () for found in profiles.values()
    ]
    first, *later = rescorings.values()
    shared = [tuple(name for name in concepts[0] if name in others) for others in concepts[1:]]
    return LevelRow(
        level=level,
        depths=tuple(_depth(found, level) for found in profiles.values()),
        concepts=tuple(concepts),
        differences=tuple(
            depth_difference(first, other, names) if names else None for other, names in zip(later, shared, strict=True)
        ),
        shared=tuple(shared),
    )


def _depth(found: Profile, level: Level) -> Reach | None:
    if level not in found.levels:
        return None
    v, last = found.levels.index(level), max(len(found.by_layer.names) - 1, 1)
    return Reach(*(float(part[v]) / last for part in (found.centre, found.centre_low, found.centre_high)))


def _pairs(rescorings: Mapping[str, Rescoring]) -> tuple[Pair, ...]:
    """Every two, then the two halves of each."""
    pairs = [
        Pair(one, other, _agreement(rescorings[one], rescorings[other]))
        for one, other in itertools.combinations(rescorings, 2)
    ]
    own = [
        Pair(name, name, _agreement(*halves(found)))
        for name, found in rescorings.items()
        if len(found.seeds) >= _FEWEST
    ]
    return (*pairs, *own)


def _agreement(one: Rescoring, other: Rescoring) -> Agreement | None:
    together = share_samples(one, other)
    if together:
        one, other = padded(one, other), padded(other, one)
    a, b = locate(one), locate(other, seed=0 if together else 1)
    return agreement(a, b) if are_comparable(a, b) else None
