"""Side effects: how every concept changes under every edit, with intervals, and how little else an edit changes.

``measure_effects`` moves fresh samples by every edit and keeps every score's change, sample by sample; the rest are
pure functions of that record. All edits see the same samples, so that two edits are compared in pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from higan.boundaries import project_out
from higan.drawing import start_at
from higan.editing import apply
from higan.population import Progress, check_concepts, render, sample, sample_seeds, score
from higan.statistics import resample_weights, studentised
from higan.types import Concept, Edit, Generator, Scorer

__all__ = [
    "Effects",
    "distinguishable",
    "effect_interval",
    "matched",
    "mean_effects",
    "measure_changes",
    "measure_effects",
    "off_target",
    "projected",
    "scaled",
]

_NEAR = 0.2
"""How far from the change that was asked for, as a share of it, the measured one may lie."""
_MOST = 4.0
"""Times as long, or short, that one measurement may make an edit."""
_SHORTENED = 3
"""Times that an edit may turn out to be far too strong."""


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Changes of C scores of K samples under E edits, in standard deviations of each score.

    A score that never varies has changes of zero. ``own`` is each edit's own column.
    """

    names: tuple[str, ...]
    concepts: tuple[Concept, ...]
    own: tuple[int, ...]
    changes: Float[Tensor, "E C K"]


def measure_effects(
    generator: Generator,
    scorer: Scorer,
    edits: Mapping[str, Edit],
    *,
    std: Float[Tensor, " C"] | None = None,
    num: int = 64,
    seed: int = 0,
    first: int = 2**21,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Effects:
    """Move fresh samples by every edit alone and record the change of every score.

    Args:
        generator: draws.
        scorer: scores; all its concepts are columns.
        edits: by name; each one's concept must be the scorer's.
        std: standard deviation of every score, in the scorer's order; by default, and where it is NaN, that of the
            samples as they are.
        num: K, at least 2.
        seed: chooses the samples, together with ``first``: neither probing nor re-scoring has used them.
        first: index of the first sample, see `higan.population.sample_seeds`.
        batch_size: samples at a time.
        progress: called after every call of generator and scorer.

    Raises:
        ValueError: an edit of a concept that the scorer does not know, or as for `measure_changes`.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    check_concepts(scorer)
    names = [concept.name for concept in scorer.concepts]
    unknown = sorted({edit.boundary.concept.name for edit in edits.values()} - set(names))
    if unknown:
        raise ValueError(f"scorer {scorer.name!r} has no concept {', '.join(unknown)}; it knows {', '.join(names)}")
    changes = measure_changes(
        generator, scorer, [*edits.values()], std=std, num=num, seed=seed, first=first, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    columns = tuple(names.index(edit.boundary.concept.name) for edit in edits.values())
    return Effects(tuple(edits), scorer.concepts, columns, changes)


def measure_changes(
    generator: Generator,
    scorer: Scorer,
    edits: Sequence[Edit],
    *,
    std: Float[Tensor, " C"] | None = None,
    num: int = 64,
    seed: int = 0,
    first: int = 2**21,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Float[Tensor, "E C K"]:
    """The changes alone, of edits that need not be along any concept's boundary; see `measure_effects`.

    Raises:
        ValueError: no edits, fewer than two samples, or an empty batch.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    check_concepts(scorer)
    if not edits or num < 2 or batch_size < 1:
        raise ValueError(
            f"effects take at least one edit and two samples, in batches of one or more; got {len(edits)} edits, "
            f"{num} samples, batches of {batch_size}"
        )
    total = num * (1 + len(edits))
    starts = [min(edit.layers, default=0) for edit in edits]
    originals, changes, done = [], [], 0
    for batch in sample_seeds(num, seed=seed, purpose="verify", first=first).split(batch_size):
        codes = sample(generator, batch)
        before = score(scorer, render(generator, codes)).cpu()
        done += len(batch)
        after = {}
        for touched, some in groupby(sorted(range(len(edits)), key=starts.__getitem__), starts.__getitem__):
            begun = start_at(generator, codes, touched)
            for together in begun.calls([*some], len(batch)):
                images = begun.draw(torch.cat([apply(codes, [edits[e]]) for e in together]))
                for e, scores in zip(together, score(scorer, images).cpu().split(len(batch)), strict=True):
                    after[e] = scores - before
                done += len(images)
                if progress is not None:
                    progress(done, total)
        originals.append(before)
        changes.append(torch.stack([after[e] for e in range(len(edits))]).movedim(1, 2))
    unit = torch.cat(originals).double().std(0).float()
    if std is not None:
        unit = torch.where(std.cpu().isnan(), unit, std.cpu().float())
    found = torch.cat(changes, -1)
    return torch.where(unit[:, None] > 0, found / unit.clamp(min=torch.finfo(unit.dtype).tiny)[:, None], 0.0)


def projected(edits: Mapping[str, Edit], conditions: Mapping[str, Sequence[Edit]] | None = None) -> dict[str, Edit]:
    """The same edits with other edits' directions projected out: by default those of all others.

    Raises:
        ValueError: nothing of a direction is left.
    """
    result = {}
    for name, edit in edits.items():
        others = edits.values() if conditions is None else conditions.get(name, ())
        boundaries = [o.boundary for o in others if o.boundary.concept.name != edit.boundary.concept.name]
        boundary = project_out(edit.boundary, boundaries) if boundaries else edit.boundary
        result[name] = dataclasses.replace(edit, boundary=boundary)
    return result


def mean_effects(effects: Effects) -> Float[Tensor, "E C"]:
    """Mean change of every score under every edit: the side-effect matrix, in standard deviations."""
    return effects.changes.double().mean(-1).float()


def effect_interval(
    effects: Effects,
    *,
    minus: Effects | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Float[Tensor, "E C 2"]:
    """Studentised bootstrap interval of `mean_effects` over samples, or of its difference from another's, in pairs.

    Raises:
        ValueError: a confidence that does not lie between 0 and 1, or effects of other shapes.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    changes = effects.changes
    if minus is not None:
        if minus.changes.shape != changes.shape:
            raise ValueError(
                "effects are compared edit by edit, concept by concept and sample by sample; got shapes "
                f"{tuple(changes.shape)} and {tuple(minus.changes.shape)}"
            )
        changes = changes - minus.changes
    weights = resample_weights(changes.shape[-1], num_resamples, seed).to(changes)
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=changes.dtype)
    return torch.stack([studentised(rows, weights, ends) for rows in changes])


def distinguishable(interval: Float[Tensor, "E C 2"]) -> Bool[Tensor, "E C"]:
    """Which intervals do not hold zero."""
    return (interval[..., 0] > 0) | (interval[..., 1] < 0)


def off_target(effects: Effects) -> Float[Tensor, " E"]:
    """How much else every edit changes: root mean square over all other concepts of their mean changes.

    Scores that never change under any edit count too: leaving them alone is part of the task.
    """
    mean = mean_effects(effects).double()
    others = torch.ones_like(mean)
    for e, own in enumerate(effects.own):
        others[e, own] = 0
    return ((mean.square() * others).sum(1) / others.sum(1).clamp(min=1)).sqrt().float()


def scaled(edit: Edit, factor: float) -> Edit:
    """The same edit, ``factor`` times as strong."""
    return dataclasses.replace(edit, strength=edit.strength * factor)


def matched(
    generator: Generator,
    scorer: Scorer,
    edits: Mapping[str, Edit],
    *,
    target: float = 1.0,
    std: Float[Tensor, " C"] | None = None,
    rounds: int = 3,
    longest: float = 40.0,
    num: int = 32,
    seed: int = 0,
) -> dict[str, Edit]:
    """The edits with strengths at which each moves its own score by ``target`` standard deviations on average.

    Only then can side effects be compared: an edit that does nothing has none. Strengths are found by repeated
    proportion on samples of their own. What is still too strong after that, or moves its score backwards, and was never
    seen to move it by less than the target, is tried again from a quarter on: a score that saturates, or pictures that
    fall apart, tell nothing of how far to go. Left out of the result is an edit that would need more than ``longest``
    steps, moves its score backwards, or is still further than a fifth of ``target`` from it after the last round, as
    where a score saturates before.

    Raises:
        ValueError: as for `measure_effects`, or fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}")

    def own_changes(edits: Mapping[str, Edit]) -> dict[str, float]:
        effects = measure_effects(generator, scorer, edits, std=std, num=num, seed=seed, first=2**22)
        moved = mean_effects(effects)
        return {name: float(moved[e, effects.own[e]]) for e, name in enumerate(edits)}

    found: dict[str, Edit] = {}
    current = {
        name: scaled(edit, longest / abs(edit.strength)) if abs(edit.strength) > longest else edit
        for name, edit in edits.items()
    }
    for _ in range(1 + _SHORTENED):
        ready, strong = _in_proportion(own_changes, current, target, rounds, longest)
        found |= ready
        current = {name: scaled(edit, 1 / _MOST) for name, edit in strong.items()}
        if not current:
            break
    return {name: found[name] for name in edits if name in found}


def _in_proportion(
    own_changes: Callable[[Mapping[str, Edit]], dict[str, float]],
    edits: Mapping[str, Edit],
    target: float,
    rounds: int,
    longest: float,
) -> tuple[dict[str, Edit], dict[str, Edit]]:
    """Edits that move their own score by about the target, and those that were never seen to be too weak for it."""
    current, strong, weak = dict(edits), dict[str, Edit](), set[str]()
    for _ in range(rounds):
        following = {}
        for name, own in own_changes(current).items():
            # Saturating scores answer less the further they are pushed: no single proportion may go astray.
            factor = min(max(target / own, 1 / _MOST), _MOST) if own > 0 else 0.0
            weak |= {name} if 0 < own < target else set()
            if 0 < abs(current[name].strength * factor) <= longest:
                following[name] = scaled(current[name], factor)
            elif own <= 0 and name not in weak:
                strong[name] = current[name]
        current = following
        if not current:
            return {}, strong
    reached = own_changes(current)
    ready = {name: edit for name, edit in current.items() if abs(reached[name] - target) <= _NEAR * target}
    for name, own in reached.items():
        if name not in weak and not 0 < own <= (1 + _NEAR) * target:
            strong[name] = current[name]
    return ready, strong
