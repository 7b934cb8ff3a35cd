"""How scores answer to the step: the mean change against λ, both ways, and the profile under other step modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from higan.effects import measure_changes
from higan.layers import groups
from higan.population import Progress
from higan.statistics import delta, null_level, rank, resample_weights, standardise, studentised
from higan.types import LEVELS, Boundary, Concept, Edit, Generator, Placement, Rescoring, Responses, Scorer

__all__ = ["GRID", "chosen", "respond", "responses_cost"]

GRID = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""Steps of a response curve, in multiples of the step of the re-scoring."""


def chosen(rescoring: Rescoring, *, each: int = 2) -> tuple[tuple[Concept, Placement], ...]:
    """Up to ``each`` verified concepts per level with their most proper stage; those that move most there come first.

    Raises:
        ValueError: the re-scoring lacks a stage.
    """
    num_layers = 1 + max(layer for placement in rescoring.placements for layer in placement.layers)
    stages = [Placement(name, layers) for name, layers in groups(num_layers).items()]
    names = [placement.name for placement in rescoring.placements]
    missing = [stage.name for stage in stages if stage.name not in names]
    if missing:
        raise ValueError(f"every stage must have been re-scored; missing: {', '.join(missing)}")
    excess = standardise(rescoring, delta(rescoring) - null_level(rescoring))
    excess = excess[:, [names.index(stage.name) for stage in stages]]
    columns = {concept: c for c, concept in enumerate(rescoring.concepts)}
    verified = [row.concept for row in rank(rescoring, num_resamples=2) if row.verified]
    found = []
    for level in LEVELS:
        members = sorted((c for c in verified if c.level == level), key=lambda c: -float(excess[columns[c]].max()))
        found += [(concept, stages[int(excess[columns[concept]].argmax())]) for concept in members[:each]]
    return tuple(found)


def responses_cost(pairs: Sequence[tuple[Concept, Placement]], *, num: int, num_random: int) -> int:
    """Images that `respond` will draw."""
    places = len({placement.layers for _, placement in pairs})
    return num * (1 + len(GRID) * (len(pairs) + num_random * places)) if pairs else 0


def respond(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    pairs: Sequence[tuple[Concept, Placement]],
    *,
    step: float,
    std: Mapping[str, float],
    directions: Sequence[Boundary],
    num: int = 32,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Responses:
    """Move fresh codes by steps of many lengths, both ways, at one placement per concept.

    Args:
        generator: draws.
        scorer: scores.
        boundaries: hold one for every concept of ``pairs``.
        pairs: Q concepts, each with the placement it is edited at.
        step: what `GRID` is multiplied with, in units of code space.
        std: unit of the score of each of these concepts, by name.
        directions: what meaningless edits of the same lengths follow.
        num: samples.
        confidence: of the intervals, which are studentised (`higan.statistics.studentised`).
        seed: chooses samples and resamples.
        batch_size: images at a time.
        progress: called after every batch.

    Raises:
        ValueError: no pairs, directions or boundary for a concept, or as for `higan.effects.measure_changes`.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    if not pairs or not directions:
        raise ValueError(f"responses need concepts and directions; got {len(pairs)} and {len(directions)}")
    normals = {boundary.concept.name: boundary for boundary in boundaries}
    column = {concept.name: c for c, concept in enumerate(scorer.concepts)}
    lengths = [step * factor for factor in GRID]
    own = [Edit(normals[concept.name], length, place.layers) for concept, place in pairs for length in lengths]
    places = list(dict.fromkeys(place.layers for _, place in pairs))
    null = [Edit(d, length, layers) for layers in places for d in directions for length in lengths]
    unit = torch.tensor([std.get(concept.name, 0.0) for concept in scorer.concepts])
    changes = measure_changes(
        generator, scorer, [*own, *null], std=unit, num=num, seed=seed, first=2**22 + 2**21, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    Q, S = len(pairs), len(lengths)
    kept = torch.stack([changes[q * S : (q + 1) * S, column[concept.name]] for q, (concept, _) in enumerate(pairs)])
    meaningless = changes[Q * S :].mean(-1).reshape(len(places), len(directions), S, -1)
    rows = [meaningless[places.index(place.layers), :, :, column[concept.name]] for concept, place in pairs]
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail])
    weights = resample_weights(num, 1000, seed)
    low, high = torch.stack([studentised(curve, weights, ends) for curve in kept]).unbind(-1)
    null_low, null_high = torch.stack([torch.stack([row.amin(0), row.amax(0)]) for row in rows], 1)
    return Responses(
        concepts=tuple(concept for concept, _ in pairs),
        placements=tuple(place for _, place in pairs),
        steps=torch.tensor(lengths),
        mean=kept.mean(-1),
        low=low,
        high=high,
        truncated=kept.clamp(min=0).mean(-1),
        null_low=null_low,
        null_high=null_high,
    )
