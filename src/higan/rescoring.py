"""Verification by re-scoring, Eq. (1) of section 2, with what it takes to believe it.

``rescore`` moves fresh codes along every boundary and keeps how every sample's score changed. The rest of the file
are pure functions of that record::

    delta, signed          Eq. (1), and the same without truncation at zero
    interval               paired bootstrap confidence interval
    null_level, p_values   what random directions of the same length reach, and how often they reach as much
    q_values               Benjamini-Hochberg over a table
    rank                   all of it, one row per concept, strongest first

A useless direction does not score zero in Eq. (1): truncation turns its noise into about 0.4 standard deviations of
that noise. Hence the null.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.boundaries import random_directions
from higan.editing import StepMode, edit_step, offset
from higan.layers import check_layers, placements
from higan.population import Progress, check_concepts, check_images, render, sample, sample_seeds, score
from higan.types import Boundary, Concept, Generator, Placement, RaggedGenerator, Rescoring, Scorer, StagedGenerator

__all__ = [
    "Checkpoint",
    "Verdict",
    "cost",
    "delta",
    "interval",
    "null_level",
    "p_values",
    "q_values",
    "rank",
    "resample_weights",
    "rescore",
    "signed",
    "standardise",
]


@runtime_checkable
class Checkpoint(Protocol):
    """Where finished work units go, so that an interrupted re-scoring goes on; `higan.store.Units` is one."""

    def load(self, key: str, unit: int) -> Mapping[str, Tensor] | None:
        """What was saved, or None."""
        ...

    def save(self, key: str, unit: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a finished unit, whole or not at all."""
        ...


def cost(num_boundaries: int, places: Sequence[Placement], *, num: int, num_random: int) -> int:
    """Images that `rescore` will draw: originals once, then every direction at every distinct set of layers."""
    distinct = len({placement.layers for placement in places})
    return num * (1 + (num_boundaries + num_random) * distinct)


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
    step_mode: StepMode = "official",
    batch_size: int = 64,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Rescoring:
    """Move fresh codes along every boundary and record how every score changes.

    The K = ``num`` samples have seeds that probing never uses (`sample_seeds`). They are taken in units of
    ``batch_size``; a unit is rendered and scored once, then under every edit. Random directions are shared by all
    concepts: each gives the null of every concept at once. A `StagedGenerator` is asked for what comes before the first
    edited layer once per unit.

    Args:
        generator: draws.
        scorer: scores; only the boundaries' concepts are kept.
        boundaries: one per concept.
        num: K, at least 2.
        step: λ, in units of code space.
        seed: chooses samples and random directions.
        places: sets of layers to edit; by default all together, each alone and each stage.
        num_random: R, number of random directions; the smallest exact p-value is 1 / (R + 1).
        step_mode: see `higan.editing.edit_step`.
        batch_size: samples per unit.
        checkpoint: keeps finished units, so that the same call goes on where it was interrupted.
        progress: called after every batch of images.

    Raises:
        ValueError: no boundaries, two for one concept, unknown concept, bad layers, counts or step.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    places = placements(generator.num_layers) if places is None else tuple(places)
    columns = _check(generator, scorer, boundaries, places, num=num, num_random=num_random, batch_size=batch_size)
    steps = edit_step(generator.truncation.to(generator.device), step, step_mode)
    widths = generator.layer_widths if isinstance(generator, RaggedGenerator) else None
    directions = [*boundaries, *_null_boundaries(boundaries[0], num_random, seed, widths)]
    plan = _Plan(generator, scorer, columns, directions, places, steps)
    seeds = sample_seeds(num, seed=seed, purpose="verify")
    key = _key(plan, seed, num, batch_size)
    total = cost(len(boundaries), places, num=num, num_random=num_random)
    units = []
    done = 0
    for index, batch in enumerate(torch.split(seeds, batch_size)):
        images = len(batch) * total // num
        unit = None if checkpoint is None else checkpoint.load(key, index)
        if unit is None:
            unit = plan.run(batch, len(boundaries), _shifted(progress, done, total))
            if checkpoint is not None:
                checkpoint.save(key, index, unit)
        elif progress is not None:
            progress(done + images, total)
        done += images
        units.append(unit)
    originals = torch.cat([unit["originals"] for unit in units])
    return Rescoring(
        concepts=tuple(boundary.concept for boundary in boundaries),
        placements=tuple(places),
        step=step,
        seeds=seeds,
        originals=originals,
        changes=torch.cat([unit["changes"] for unit in units], -1),
        effects=(torch.stack([unit["effects"] for unit in units]).sum(0) / num).float(),
        null=(torch.stack([unit["null"] for unit in units]).sum(0) / num).float(),
        score_std=originals.double().std(0).float(),
    )


def _check(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    places: Sequence[Placement],
    *,
    num: int,
    num_random: int,
    batch_size: int,
) -> list[int]:
    """Refuse what cannot work before work starts; the score column of every boundary."""
    for name, value, least in (("num", num, 2), ("num_random", num_random, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
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


def _null_boundaries(like: Boundary, num_random: int, seed: int, widths: Sequence[int] | None) -> list[Boundary]:
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
class _Plan:
    """Everything a unit of work needs besides its seeds."""

    generator: Generator
    scorer: Scorer
    columns: list[int]
    directions: list[Boundary]
    places: Sequence[Placement]
    steps: Tensor

    def run(self, seeds: Tensor, num_boundaries: int, progress: Progress | None) -> dict[str, Tensor]:
        """Originals and every edit of these samples.

        Sums are kept in double precision, so that adding units up does not depend on how many there are.
        """
        codes = sample(self.generator, seeds)
        originals = self._score(render(self.generator, codes))
        num_places, num_concepts, num_directions = len(self.places), len(self.columns), len(self.directions)
        num_random = num_directions - num_boundaries
        changes = torch.empty(num_boundaries, num_places, len(codes))
        effects = torch.empty(num_boundaries, num_places, num_concepts, dtype=torch.float64)
        null = torch.empty(num_random, num_places, num_concepts, dtype=torch.float64)
        done = len(codes)
        for layers, slots in self._distinct():
            for d, images in enumerate(self._edited(codes, layers)):
                change = self._score(images) - originals
                for p in slots:
                    if d < num_boundaries:
                        changes[d, p] = change[:, d]
                        effects[d, p] = change.double().sum(0)
                    else:
                        null[d - num_boundaries, p] = change.double().clamp(min=0).sum(0)
                done += len(codes)
                if progress is not None:
                    progress(done, 0)
        return {"originals": originals, "changes": changes, "effects": effects, "null": null}

    def _distinct(self) -> list[tuple[tuple[int, ...], list[int]]]:
        """Sets of layers, each once, with the placements that ask for it; ordered by first layer."""
        slots: dict[tuple[int, ...], list[int]] = {}
        for p, placement in enumerate(self.places):
            slots.setdefault(placement.layers, []).append(p)
        return sorted(slots.items(), key=lambda item: (min(item[0]), item[0]))

    def _edited(self, codes: Tensor, layers: tuple[int, ...]) -> Iterator[UInt8[Tensor, "n 3 H W"]]:
        """Images of the codes moved along one direction after the other."""
        first = min(layers)
        staged = self.generator if isinstance(self.generator, StagedGenerator) and first > 0 else None
        with torch.inference_mode():
            state = staged.prepare(codes, first) if staged else None
        for direction in self.directions:
            moved = codes + offset(direction, self.steps, layers, codes.shape[2]).to(codes.dtype)
            with torch.inference_mode():
                images = staged.resume(state, moved, first) if staged else self.generator.synthesize(moved)
                checked = check_images(self.generator, images, len(codes))
            yield checked

    def _score(self, images: Tensor) -> Float[Tensor, "n C"]:
        return score(self.scorer, images)[:, self.columns].cpu()


def _key(plan: _Plan, seed: int, num: int, batch_size: int) -> str:
    """Names a re-scoring by everything its numbers depend on, so that units of different ones never mix."""
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
    }
    digest.update(json.dumps(settings).encode())
    for direction in plan.directions:
        digest.update(direction.normal.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _shifted(progress: Progress | None, offset: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


def delta(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Δs of Eq. (1): mean over samples of the change, cut off below at zero; in units of each score."""
    return rescoring.changes.double().clamp(min=0).mean(-1).float()


def signed(rescoring: Rescoring) -> Float[Tensor, "C P"]:
    """Mean change without truncation; near zero where an edit only scrambles."""
    return rescoring.changes.double().mean(-1).float()


def standardise(rescoring: Rescoring, values: Float[Tensor, "C *rest"]) -> Float[Tensor, "C *rest"]:
    """Values in standard deviations of each score, so that concepts can be compared; 0 where a score never varies."""
    std = rescoring.score_std.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(std > 0, values / std.clamp(min=torch.finfo(std.dtype).tiny), 0.0)


def resample_weights(num: int, num_resamples: int, seed: int) -> Float[Tensor, "B K"]:
    """How often each of K samples is drawn in each of B bootstrap resamples, divided by K.

    The same weights for every concept and placement keep the comparison paired.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples must be at least 2; got {num_resamples}")
    draws = torch.randint(num, (num_resamples, num), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(num_resamples, num).scatter_add_(1, draws, torch.ones(1).expand(num_resamples, num))
    return counts / num


def interval(
    rescoring: Rescoring,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    truncated: bool = True,
) -> Float[Tensor, "C P 2"]:
    """Percentile bootstrap interval of `delta`, or of `signed` with ``truncated=False``: lower and upper end.

    Raises:
        ValueError: confidence not between 0 and 1, or fewer than 2 resamples.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    weights = resample_weights(rescoring.changes.shape[-1], num_resamples, seed)
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail])
    rows = []
    for changes in rescoring.changes:
        values = changes.clamp(min=0) if truncated else changes
        rows.append(torch.quantile(values @ weights.T, ends, dim=-1).movedim(0, -1))
    return torch.stack(rows)


def null_level(rescoring: Rescoring, quantile: float | None = None) -> Float[Tensor, "C P"]:
    """What Eq. (1) gives for random directions of the same length: their mean, or a quantile over directions."""
    null = rescoring.null.permute(2, 1, 0)
    return null.double().mean(-1).float() if quantile is None else torch.quantile(null, quantile, dim=-1)


def p_values(rescoring: Rescoring, *, pooled: bool = False) -> Float[Tensor, "C P"]:
    """How probable a random direction is to reach Δs.

    By default the exact rank test of each cell by itself, (1 + number of random directions that reach Δs) / (R + 1):
    valid whatever the null's shape, but never below 1 / (R + 1), which leaves nothing to find in a large table.

    ``pooled=True`` assumes that the null has the same shape in every cell up to location and scale (as significance
    analysis of microarrays does: Tusher, Tibshirani & Chu 2001). Every value is studentised by the other random
    directions of its cell, and Δs is ranked among all cells' random directions: never below 1 / (R · cells + 1), so
    that the only true effect of a table is found at a false-discovery rate of α if R ≥ 1/α. It errs on the safe
    side where R is small and the null skewed.

    A score that never varies has p = 1 either way.

    Raises:
        ValueError: fewer than 3 random directions to pool.
    """
    observed = delta(rescoring).double()
    null = rescoring.null.permute(2, 1, 0).double()
    R = null.shape[-1]
    if not pooled:
        return ((1 + (null >= observed[..., None]).sum(-1)) / (R + 1)).float()
    if R < 3:
        raise ValueError(f"pooling needs at least 3 random directions; got {R}")
    flat = null.amax(-1) - null.amin(-1) <= 1e-9 * null.abs().amax(-1)
    others = _studentise_left_out(null)[~flat].flatten().sort().values
    std = null.std(-1).clamp(min=torch.finfo(torch.float64).tiny)
    z = (observed - null.mean(-1)) / (std * math.sqrt(1 + 1 / R))
    reached = len(others) - torch.searchsorted(others, z.contiguous())
    p = (1 + reached) / (len(others) + 1)
    rank_p = p_values(rescoring)
    return torch.where(flat, rank_p.double(), p).float()


def _studentise_left_out(null: Float[Tensor, "C P R"]) -> Float[Tensor, "C P R"]:
    """Each value less the mean of the others of its cell, in units of their standard deviation."""
    R = null.shape[-1]
    total, squares = null.sum(-1, keepdim=True), null.square().sum(-1, keepdim=True)
    mean = (total - null) / (R - 1)
    variance = ((squares - null.square()) - (R - 1) * mean.square()) / (R - 2)
    return (null - mean) / (variance.clamp(min=1e-300) * (1 + 1 / (R - 1))).sqrt()


def q_values(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Benjamini-Hochberg over the whole table: the smallest false-discovery rate at which a cell counts as found."""
    flat = p.flatten().double()
    order = flat.argsort(descending=True)
    ranks = torch.arange(len(flat), 0, -1, device=p.device)
    adjusted = (flat[order] * len(flat) / ranks).cummin(0).values.clamp(max=1)
    return torch.empty_like(flat).scatter_(0, order, adjusted).reshape(p.shape).to(p.dtype)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the ranking: what happened to one concept at one placement.

    ``delta``, ``low``, ``high``, ``signed`` and ``null`` are in units of the score, ``effect`` and its ends in the
    score's standard deviations. ``verified`` means that q ≤ alpha and that the score rises on average.
    """

    concept: Concept
    placement: str
    delta: float
    low: float
    high: float
    signed: float
    null: float
    effect: float
    effect_low: float
    effect_high: float
    p: float
    q: float
    verified: bool


def rank(
    rescoring: Rescoring,
    *,
    placement: str = "all",
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    pooled: bool = True,
) -> tuple[Verdict, ...]:
    """Concepts at one placement, strongest effect in standard deviations first (the paper's ranking by Δs).

    q-values control the false-discovery rate over the concepts at this placement.

    Raises:
        ValueError: unknown placement.
    """
    names = [candidate.name for candidate in rescoring.placements]
    if placement not in names:
        raise ValueError(f"unknown placement {placement!r}; this re-scoring holds {', '.join(names)}")
    P = names.index(placement)
    change = delta(rescoring)
    ends = interval(rescoring, confidence=confidence, num_resamples=num_resamples, seed=seed)
    effect, effect_ends = standardise(rescoring, change), standardise(rescoring, ends)
    mean, null = signed(rescoring), null_level(rescoring)
    p = p_values(rescoring, pooled=pooled)[:, P]
    q = q_values(p)
    rows = [
        Verdict(
            concept=concept,
            placement=placement,
            delta=float(change[c, P]),
            low=float(ends[c, P, 0]),
            high=float(ends[c, P, 1]),
            signed=float(mean[c, P]),
            null=float(null[c, P]),
            effect=float(effect[c, P]),
            effect_low=float(effect_ends[c, P, 0]),
            effect_high=float(effect_ends[c, P, 1]),
            p=float(p[c]),
            q=float(q[c]),
            verified=bool(q[c] <= alpha and mean[c, P] > 0 and rescoring.score_std[c] > 0),
        )
        for c, concept in enumerate(rescoring.concepts)
    ]
    return tuple(sorted(rows, key=lambda row: -row.effect))
