"""Verification by re-scoring, Eq. (1) of section 2: move fresh codes, keep how every sample's score changed.

What follows from that record, and how sure it is, lies in `higan.statistics`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from higan.boundaries import random_directions
from higan.drawing import start_at
from higan.editing import StepMode, offset
from higan.layers import check_layers, placements
from higan.population import Progress, check_concepts, check_models, check_num, render, sample, sample_seeds, score
from higan.stepping import image_changes, placement_steps
from higan.types import (
    Boundary,
    Concept,
    Generator,
    Placement,
    RaggedGenerator,
    Rescoring,
    Scorer,
)

__all__ = [
    "Checkpoint",
    "Move",
    "Plan",
    "check_counts",
    "cost",
    "key_of",
    "meaningless_directions",
    "plan_of",
    "rescore",
    "together",
]

_MEASURED = 8
"""Random directions along which equal changes of the picture are measured."""


@runtime_checkable
class Checkpoint(Protocol):
    """Where finished work units go, so that an interrupted re-scoring goes on; `higan.store.Units` is one."""

    def load(self, key: str, unit: int) -> Mapping[str, Tensor] | None:
        """What was saved, or None."""
        ...

    def save(self, key: str, unit: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a finished unit, whole or not at all."""
        ...


def cost(num_boundaries: int, places: Sequence[Placement], *, num: int, num_random: int, num_permuted: int = 0) -> int:
    """Images that `rescore` will draw: originals once, then every direction at every distinct set of layers."""
    distinct = len({placement.layers for placement in places})
    return num * (1 + (num_boundaries + num_random + num_permuted) * distinct)


def rescore(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    *,
    num: int = 1000,
    step: float = 2.0,
    seed: int = 0,
    places: Sequence[Placement] | None = None,
    num_random: int = 20,
    permuted: Sequence[Boundary] = (),
    step_mode: StepMode = "official",
    batch_size: int = 64,
    images_at_once: int | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Rescoring:
    """Move fresh codes along every boundary and record how every score changes.

    The K = ``num`` samples have seeds that probing never uses (`sample_seeds`). They are taken in units of
    ``batch_size``; a unit is rendered and scored once, then under every edit. Random and permuted directions are shared
    by all concepts: each gives the null of every concept at once. A `StagedGenerator` is asked for what comes before
    each first edited layer once per unit. All edits of a unit that start at the same layer are one queue, drawn and
    scored ``images_at_once`` at a time, which matters where a unit has few samples.

    Args:
        generator: draws.
        scorer: scores; only the boundaries' concepts are kept.
        boundaries: one per concept.
        num: K, at least 2.
        step: λ, in units of code space.
        seed: chooses samples and random directions.
        places: sets of layers to edit; by default all together, each alone and each stage.
        num_random: R, number of random directions; the smallest exact p-value is 1 / (R + 1).
        permuted: M directions fitted to permuted scores, a second null; see `higan.refits.permuted`.
        step_mode: see `higan.stepping.placement_steps`.
        batch_size: samples per unit.
        images_at_once: images in one call of generator and scorer; an edit of a whole unit at the least. None is 32 on
            a CPU, and on other devices 2^24 pixels, 512 images at the most (16 GiB of activations at 256 pixels). It
            changes results by rounding alone.
        checkpoint: keeps finished units, so that the same call goes on where it was interrupted.
        progress: called after every batch of images.

    Raises:
        ValueError: no generator, no scorer, no sequence of boundaries or an empty one, two for one concept, unknown
            concept, bad layers, counts or step.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    plan = plan_of(
        generator,
        scorer,
        boundaries,
        num=num,
        step=step,
        seed=seed,
        places=places,
        num_random=num_random,
        permuted=permuted,
        step_mode=step_mode,
        batch_size=batch_size,
        images_at_once=images_at_once,
    )
    seeds = sample_seeds(num, seed=seed, purpose="verify")
    key = key_of(plan, seed, num, batch_size)
    total = cost(len(boundaries), plan.places, num=num, num_random=num_random, num_permuted=len(permuted))

    def units() -> Iterator[Mapping[str, Tensor]]:
        done = 0
        for index, batch in enumerate(torch.split(seeds, batch_size)):
            images = len(batch) * total // num
            unit = None if checkpoint is None else checkpoint.load(key, index)
            if unit is None:
                unit = plan.run(batch, progress=_shifted(progress, done, total))
                if checkpoint is not None:
                    checkpoint.save(key, index, unit)
            elif progress is not None:
                progress(done + images, total)
            done += images
            yield unit

    whole = together(units())
    null = (whole["null"] / num).float()
    return Rescoring(
        concepts=tuple(boundary.concept for boundary in boundaries),
        placements=plan.places,
        step=step,
        seeds=seeds,
        originals=whole["originals"],
        changes=whole["changes"],
        effects=(whole["effects"] / num).float(),
        null=null[:num_random],
        score_std=plan.score_std(whole["originals"]).float(),
        permuted=null[num_random:] if permuted else None,
        steps=plan.steps.cpu().float().contiguous(),
        step_mode=step_mode,
        image_changes=plan.image_changes(seed) if step_mode == "equal_change" else None,
    )


_SAMPLES_ALONG = {"originals": 0, "changes": -1, "null_changes": -1, "null_rises": -1}


def together(units: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Units of samples that follow each other as one: samples side by side, sums added up; see `Plan.run`.

    Sums are large where there are many concepts, and are not kept unit by unit.
    """
    sums: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {}
    for unit in units:
        for name, tensor in unit.items():
            if name in _SAMPLES_ALONG:
                parts.setdefault(name, []).append(tensor)
            else:
                sums[name] = sums[name] + tensor if name in sums else tensor
    return sums | {name: torch.cat(some, _SAMPLES_ALONG[name]) for name, some in parts.items()}


def plan_of(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    *,
    num: int,
    step: float,
    seed: int,
    places: Sequence[Placement] | None,
    num_random: int,
    permuted: Sequence[Boundary],
    step_mode: StepMode,
    batch_size: int,
    images_at_once: int | None = None,
) -> Plan:
    """What `rescore` will do, checked before it starts.

    Raises:
        ValueError: see `rescore`.
    """
    check_models(generator, scorer)
    if isinstance(boundaries, Boundary):
        raise ValueError(  # noqa: TRY004 - wrong arguments raise ValueError throughout
            f"boundaries must be a sequence; got the one of {boundaries.concept.name!r} alone: write [boundary]"
        )
    places = placements(generator.num_layers) if places is None else tuple(places)
    columns = _check(
        generator,
        scorer,
        boundaries,
        places,
        num=num,
        step=step,
        num_random=num_random,
        batch_size=batch_size,
        images_at_once=1 if images_at_once is None else images_at_once,
    )
    for direction in permuted:
        offset(direction, torch.ones(generator.num_layers), places[0].layers, generator.code_dim)
    widths = generator.layer_widths if isinstance(generator, RaggedGenerator) else None
    random = meaningless_directions(boundaries[0], num_random, seed, widths)
    steps = placement_steps(generator, places, step, step_mode, directions=random[:_MEASURED], seed=seed)
    directions = [*boundaries, *random, *permuted]
    return Plan(generator, scorer, columns, directions, num_random, places, steps, images_at_once)


def check_counts(*, num: int, step: float = 2.0, **counts: int) -> None:
    """Refuses what `rescore` cannot do, before there are boundaries.

    Raises:
        ValueError: fewer than 2 samples or more than there are seeds for, another count below 1, or a step that is 0 or
            not finite in float32.
    """
    for name, value in {"num": num, **counts}.items():
        least = 2 if name == "num" else 1
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    check_num(num)
    held = torch.finfo(torch.float32)
    if not held.tiny <= abs(step) <= held.max:
        raise ValueError(f"step must be finite and other than 0; got {step} (steps are kept in float32)")


def _check(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    places: Sequence[Placement],
    *,
    num: int,
    step: float,
    **counts: int,
) -> list[int]:
    """Refuse what cannot work before work starts; the score column of every boundary."""
    check_counts(num=num, step=step, **counts)
    if not boundaries:
        raise ValueError("re-scoring needs at least one boundary; got none")
    if not places:
        raise ValueError("re-scoring needs at least one set of layers; got none")
    for placement in places:
        check_layers(placement.layers, generator.num_layers)
    check_concepts(scorer)
    known = [concept.name for concept in scorer.concepts]
    names = [boundary.concept.name for boundary in boundaries]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"scorer {scorer.name!r} has no concept {', '.join(unknown)}; it knows {', '.join(known)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"re-scoring takes one boundary per concept; got several for {', '.join(twice)}")
    for boundary in boundaries:
        offset(boundary, torch.ones(generator.num_layers), places[0].layers, generator.code_dim)
    return [known.index(name) for name in names]


def meaningless_directions(
    like: Boundary, num_random: int, seed: int, widths: Sequence[int] | None = None
) -> list[Boundary]:
    """Random directions of the boundaries' shape: one row per layer where boundaries have one row per layer.

    The padding of layers narrower than the code stays untouched.
    """
    *rows, dim = like.normal.shape
    normals = random_directions(num_random * math.prod(rows), dim, seed=seed).reshape(num_random, *rows, dim)
    if widths is not None and rows:
        inside = torch.arange(dim) < torch.tensor(list(widths))[:, None]
        normals = torch.nn.functional.normalize(normals * inside, dim=-1)
    concept = Concept("random direction", "attribute")
    return [Boundary(concept, normal, torch.zeros(rows), math.nan) for normal in normals]


@dataclass(frozen=True, slots=True)
class Move:
    """A direction, followed at a set of layers: one image of every sample, for all ``slots``, placements of these."""

    direction: int
    layers: tuple[int, ...]
    slots: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a unit of work needs besides its seeds.

    The first directions are the boundaries, one for each of ``columns``; the others make the null: ``num_random``
    random ones, then those fitted to permuted scores.
    """

    generator: Generator
    scorer: Scorer
    columns: list[int]
    directions: list[Boundary]
    num_random: int
    places: tuple[Placement, ...]
    steps: Float[Tensor, "P L"]
    images_at_once: int | None = None

    @property
    def everything(self) -> int | None:
        """Index of the placement of all layers."""
        every = tuple(range(self.generator.num_layers))
        return next((p for p, placement in enumerate(self.places) if placement.layers == every), None)

    def originals(self, seeds: Int64[Tensor, " n"]) -> Float[Tensor, "n C"]:
        """Scores of the unedited samples."""
        return self._score(render(self.generator, sample(self.generator, seeds), seeds), seeds)

    def score_std(self, originals: Float[Tensor, "K C"]) -> Float64[Tensor, " C"]:
        """Of the samples that each boundary was fitted to; where it does not tell, of these, few as they are."""
        told = torch.tensor([boundary.score_std for boundary in self.directions[: len(self.columns)]]).double()
        return torch.where(told.isnan(), originals.double().std(0), told)

    def image_changes(self, seed: int) -> Float[Tensor, " P"]:
        """How much the steps change pictures along the directions that equal changes are measured with."""
        null = self.directions[len(self.columns) :][: self.num_random]
        return image_changes(self.generator, self.places, self.steps, null[:_MEASURED], seed=seed)

    def run(
        self,
        seeds: Int64[Tensor, " n"],
        *,
        wanted: Bool[Tensor, "N P"] | None = None,
        originals: Float[Tensor, "n C"] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Originals and every edit of these samples, or those edits only that are ``wanted`` of N directions.

        What is not wanted has changes of NaN, and sums of zero. Sums are kept in double precision, so that adding units
        up does not depend on how many there are. Where something is ``wanted``, what all scores gain under meaningless
        directions is told sample by sample: in ``null_changes`` the mean over random ones at every placement,
        (C, P, n), in ``null_rises`` every one at all layers, (N - C, C, n); of no samples if that is not wanted.
        """
        codes = sample(self.generator, seeds)
        done = 0
        if originals is None:
            originals = self._score(render(self.generator, codes, seeds), seeds)
            done = len(codes)
        num_places, num_concepts, num_directions = len(self.places), len(self.columns), len(self.directions)
        changes = torch.full((num_concepts, num_places, len(codes)), math.nan)
        effects = torch.zeros(num_concepts, num_places, num_concepts, dtype=torch.float64)
        null = torch.zeros(num_directions - num_concepts, num_places, num_concepts, dtype=torch.float64)
        by_chance = torch.full_like(changes, math.nan)
        everything = self.everything
        single = wanted is not None and everything is not None and bool(wanted[num_concepts:, everything].any())
        rises = torch.full((num_directions - num_concepts, num_concepts, len(codes) if single else 0), math.nan)
        for moves, images in self._drawn(codes, wanted):
            scores = self._score(images)
            for move, edited in zip(moves, scores.split(len(codes)), strict=True):
                d, change = move.direction, edited - originals
                for p in move.slots:
                    if d < num_concepts:
                        changes[d, p] = change[:, d]
                        effects[d, p] = change.double().sum(0)
                        continue
                    gained = change.clamp(min=0)
                    null[d - num_concepts, p] = gained.double().sum(0)
                    if wanted is not None and d < num_concepts + self.num_random:
                        by_chance[:, p] = by_chance[:, p].nan_to_num(0.0) + gained.T / self.num_random
                    if single and p == everything:
                        rises[d - num_concepts] = gained.T
            done += len(scores)
            if progress is not None:
                progress(done, 0)
        made = {"originals": originals, "changes": changes, "effects": effects, "null": null}
        return made if wanted is None else made | {"null_changes": by_chance, "null_rises": rises}

    def distinct(self) -> list[tuple[tuple[int, ...], list[int]]]:
        """Sets of layers, each once, with the placements that ask for it; ordered by first layer."""
        slots: dict[tuple[int, ...], list[int]] = {}
        for p, placement in enumerate(self.places):
            slots.setdefault(placement.layers, []).append(p)
        return sorted(slots.items(), key=lambda item: (min(item[0]), item[0]))

    def aligned(self, wanted: Bool[Tensor, "N P"]) -> Bool[Tensor, "N P"]:
        """The same for placements of the same layers, which are drawn together."""
        wanted = wanted.clone()
        for _, slots in self.distinct():
            wanted[:, slots] = wanted[:, slots].any(1, keepdim=True)
        return wanted

    def num_edits(self, wanted: Bool[Tensor, "N P"]) -> int:
        """Images per sample, the original not counted."""
        return sum(int(wanted[:, slots].any(1).sum()) for _, slots in self.distinct())

    def queues(self, wanted: Bool[Tensor, "N P"] | None) -> dict[int, list[Move]]:
        """What is to be drawn, by the first layer it edits: what comes before is the same for a whole queue."""
        queues: dict[int, list[Move]] = {}
        for layers, slots in self.distinct():
            for d in range(len(self.directions)):
                if wanted is None or bool(wanted[d, slots].any()):
                    queues.setdefault(min(layers), []).append(Move(d, layers, slots))
        return queues

    def _drawn(
        self, codes: Float[Tensor, "n L D"], wanted: Tensor | None
    ) -> Iterator[tuple[Sequence[Move], UInt8[Tensor, "m 3 H W"]]]:
        """Moves with their images: of all samples moved the first way, then the second …"""
        for first, moves in self.queues(wanted).items():
            begun = start_at(self.generator, codes, first)
            for some in begun.calls(moves, len(codes), self.images_at_once):
                yield some, begun.draw(torch.cat([codes + self._offset(move, codes) for move in some]))

    def _offset(self, move: Move, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "L D"]:
        direction, steps = self.directions[move.direction], self.steps[move.slots[0]]
        return offset(direction, steps, move.layers, codes.shape[2]).to(codes.dtype)

    def _score(self, images: Tensor, seeds: Int64[Tensor, " n"] | None = None) -> Float[Tensor, "n C"]:
        return score(self.scorer, images, seeds)[:, self.columns].cpu()


def key_of(plan: Plan, seed: int, num: int, batch_size: int) -> str:
    """Names a re-scoring by all that its numbers depend on but the models' weights, so that units never mix."""
    digest = hashlib.sha256()
    settings = {
        "generator": plan.generator.name,
        "scorer": plan.scorer.name,
        "concepts": [plan.scorer.concepts[c].name for c in plan.columns],
        "places": [[placement.name, placement.layers] for placement in plan.places],
        "steps": plan.steps.tolist(),
        "seed": seed,
        "num": num,
        "batch_size": batch_size,
        "images_at_once": plan.images_at_once,
        "truncation": plan.generator.truncation.tolist(),
    }
    digest.update(json.dumps(settings).encode())
    for direction in plan.directions:
        digest.update(direction.normal.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _shifted(progress: Progress | None, offset: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)
