"""Categorical analysis (section 3.3, Fig. 5): rooms turned into other rooms, and what their objects turn into.

``walk`` moves codes from category to category; ``map_objects`` compares segmentations of the same pictures before and
after, pixel by pixel: an `ObjectMapping` counts for every sample which class every pixel had and has, and everything
else is computed from these counts, with intervals over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from higan.blame import blamed
from higan.editing import apply
from higan.errors import ScorerError
from higan.population import Progress, render, sample, sample_seeds, score
from higan.recipes import Instruction, check_consistent
from higan.statistics import students_t
from higan.types import Edit, SegmentClass, Segmenter
from higan.workbench import Workbench, approach, layers_of, promising

__all__ = [
    "Flow",
    "Journey",
    "Kept",
    "ObjectMapping",
    "flows",
    "kept",
    "map_objects",
    "mapping_shares",
    "segment",
    "travel",
    "walk",
]

_IMAGES_AT_ONCE = 32
_NEARLY = 0.8
_TRIED = 16


def walk(codes: Float[Tensor, "n L D"], legs: Sequence[Edit], *, steps: int = 2) -> Float[Tensor, "n T L D"]:
    """Codes on the way from where they are to each edit in turn: T = 1 + steps · len(legs) stations.

    The first leg grows the first edit from nothing; every further leg takes the edit before it back while it grows its
    own, so that the stations 0, steps, 2 · steps … are the sample itself and the sample in every category alone.

    Args:
        codes: samples of the category to start from.
        legs: one edit per category, along its boundary at the object layers.
        steps: stations per leg.

    Raises:
        ValueError: no legs, steps below 1, or bad edits (`higan.editing.apply`).
    """
    if not legs or steps < 1:
        raise ValueError(f"a walk needs at least one leg and one step; got {len(legs)} and {steps}")
    offsets = [torch.zeros_like(codes[:1])]
    offsets += [apply(torch.zeros_like(codes[:1]), [leg]) for leg in legs]
    stations = [codes]
    for before, after in pairwise(offsets):
        stations += [codes + torch.lerp(before, after, k / steps) for k in range(1, steps + 1)]
    return torch.stack(stations, 1)


def segment(segmenter: Segmenter, images: UInt8[Tensor, "n 3 H W"], *, batch_size: int = 32) -> UInt8[Tensor, "n H W"]:
    """Class of every pixel, on the CPU, checked.

    Raises:
        ScorerError: the segmenter raised something, returned another shape or type, or a class that it does not name.
    """
    parts = []
    for batch in images.split(batch_size):
        with torch.inference_mode(), blamed(f"segmenter {segmenter.name!r}", ScorerError):
            mask = segmenter.segment(batch)
        expected = (len(batch), *batch.shape[2:])
        if not isinstance(mask, Tensor) or tuple(mask.shape) != expected or mask.dtype != torch.uint8:
            got = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ScorerError(f"segmenter {segmenter.name!r} must return uint8 masks of shape {expected}; got {got}")
        if mask.numel() and int(mask.max()) >= len(segmenter.classes):
            raise ScorerError(f"segmenter {segmenter.name!r} names {len(segmenter.classes)} classes; got {mask.max()}")
        parts.append(mask.cpu().clone())
    return torch.cat(parts)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMapping:
    """For every sample how many pixels of each class (first axis) became each class (second axis).

    Pixels are counted by class, not by object, as in the paper.
    """

    classes: tuple[SegmentClass, ...]
    counts: Int64[Tensor, "n S S"]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def things(self) -> list[int]:
        """Classes that can be counted."""
        return [k for k, c in enumerate(self.classes) if c.kind == "thing"]

    @property
    def stuff(self) -> list[int]:
        """Classes of background."""
        return [k for k, c in enumerate(self.classes) if c.kind == "stuff"]


def map_objects(
    classes: Sequence[SegmentClass], before: UInt8[Tensor, "n H W"], after: UInt8[Tensor, "m h w"]
) -> ObjectMapping:
    """Count the object mapping of n samples.

    Raises:
        ValueError: no samples, masks of different shapes, or a class that is not among ``classes``.
    """
    if before.shape != after.shape or before.ndim != 3 or not len(before):
        raise ValueError(
            f"masks before and after must have one shape (n, H, W); got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    S = len(classes)
    if max(int(before.max()), int(after.max())) >= S:
        raise ValueError(f"masks hold class {max(int(before.max()), int(after.max()))}, but only {S} classes are named")
    pairs = before.flatten(1).long() * S + after.flatten(1).long()
    counts = torch.zeros(len(before), S * S, dtype=torch.int64, device=before.device)
    counts.scatter_add_(1, pairs, torch.ones_like(pairs))
    return ObjectMapping(tuple(classes), counts.reshape(-1, S, S).cpu())


def mapping_shares(mapping: ObjectMapping) -> Float[Tensor, "S S"]:
    """Share of every class's pixels that became each class; rows of classes that never appear are zero."""
    return _shares(mapping.counts.sum(0).double()).nan_to_num(0.0).float()


def _shares(counts: Float[Tensor, "*b S S"]) -> Float[Tensor, "*b S S"]:
    """Rows of classes that do not appear are NaN: nothing, divided by nothing."""
    return counts / counts.sum(-1, keepdim=True)


@dataclass(frozen=True, slots=True)
class Flow:
    """One row of the table: of all pixels of ``source``, the share that became ``target``, with its interval.

    ``pixels`` is the mean number per sample.
    """

    source: SegmentClass
    target: SegmentClass
    pixels: float
    share: float
    low: float
    high: float


def flows(
    mapping: ObjectMapping,
    *,
    least: float = 0.0,
    confidence: float = 0.95,
) -> tuple[Flow, ...]:
    """Who became whom, largest flow first within each source; sources in the order of the classes.

    Intervals speak of samples that hold the source: Student's t of a ratio of means, over as many samples as hold it.
    Of fewer than twenty they hold the truth somewhat less often than they say, in 88 to 90 % of the cases; of a single
    one nothing is known, and where all say the same the interval has no width.

    Args:
        mapping: counts of n samples.
        least: rows whose share of all pixels is smaller are left out.
        confidence: of the intervals over samples.

    Raises:
        ValueError: a confidence that does not lie between 0 and 1.
    """
    counts = mapping.counts.double()
    total = counts.sum(0)
    shares = _shares(total)
    low, high = _interval(counts.flatten(1), counts.sum(2).repeat_interleave(len(mapping.classes), 1), confidence)
    S = len(mapping.classes)
    rows = []
    for a in range(S):
        for b in total[a].argsort(descending=True, stable=True).tolist():
            if total[a, b] > 0 and total[a, b] >= least * total.sum():
                cell = a * S + b
                pixels = float(total[a, b]) / len(mapping)
                share = float(shares[a, b])
                ends = float(low[cell]), float(high[cell])
                rows.append(Flow(mapping.classes[a], mapping.classes[b], pixels, share, *ends))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Kept:
    """Share of the pixels of some classes that stayed in their class, with its interval over samples."""

    name: str
    share: float
    low: float
    high: float


def kept(mapping: ObjectMapping, *, confidence: float = 0.95) -> tuple[Kept, ...]:
    """What stayed: all stuff, all things, then every class that appears (shared objects have large shares).

    Intervals are those of `flows`.

    Raises:
        ValueError: as for `flows`.
    """
    counts = mapping.counts.double()
    total = counts.sum(0)
    present = [k for k in range(len(mapping.classes)) if float(total[k].sum()) > 0]
    sets = {"stuff": mapping.stuff, "things": mapping.things} | {mapping.classes[k].name: [k] for k in present}
    sets = {name: ks for name, ks in sets.items() if float(total[ks].sum()) > 0}

    own, rows = counts.diagonal(dim1=1, dim2=2), counts.sum(2)
    parts, wholes = (torch.stack([of[:, ks].sum(1) for ks in sets.values()], 1) for of in (own, rows))
    found = parts.sum(0) / wholes.sum(0)
    low, high = _interval(parts, wholes, confidence)
    return tuple(Kept(name, float(s), float(a), float(b)) for name, s, a, b in zip(sets, found, low, high, strict=True))


def _interval(parts: Float[Tensor, "n m"], wholes: Float[Tensor, "n m"], confidence: float) -> Float[Tensor, "2 m"]:
    """Of shares ``parts / wholes`` of all samples together, over the samples whose whole is not nothing.

    The share's error is to first order the mean of parts less the share of their wholes (Cochran 1977, section 6.3).
    What fewer than two samples tell may be all from 0 to 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    total, holders = wholes.sum(0), (wholes > 0).sum(0)
    share = parts.sum(0) / total
    square = (parts - share * wholes).square().sum(0) * holders / (holders - 1).clamp(min=1)
    numbers, of = holders.unique(return_inverse=True)
    end = torch.tensor([(1 + confidence) / 2], dtype=share.dtype)
    t = torch.cat([students_t(end, max(int(n) - 1, 1)) for n in numbers])[of]
    half = t * square.sqrt() / total
    told = (holders > 1) & (total > 0)
    return torch.stack([torch.where(told, share - half, 0.0), torch.where(told, share + half, 1.0)]).clamp(0, 1)


# --- the whole figure -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """Samples of one category turned into others: everything that Fig. 5 shows.

    ``mappings`` has one entry per leg, from the category before to the one after; stations between are in ``images``
    and ``masks`` alone. ``scores`` are of the categories, at every station.
    """

    categories: tuple[str, ...]
    seeds: Int64[Tensor, " n"]
    legs: tuple[Edit, ...]
    steps: int
    images: UInt8[Tensor, "n T 3 H W"]
    masks: UInt8[Tensor, "n T H W"]
    scores: Float[Tensor, "n T k"]
    mappings: tuple[ObjectMapping, ...]


def travel(
    bench: Workbench,
    segmenter: Segmenter,
    categories: Sequence[str],
    *,
    codes: Float[Tensor, "n L D"] | None = None,
    num: int = 48,
    steps: int = 2,
    strength: float | None = None,
    layers: Sequence[int] | None = None,
    sigmas: float = 2.0,
    candidates: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Journey:
    """Turn samples of the first category into the second, then into the third ….

    Of ``candidates`` · num fresh samples those are taken that the scorer is surest of: whose score for the first
    category is furthest above that for the others, each in its own standard deviations. Codes of one's own, such as
    inverted photographs, are taken as they are.

    Args:
        bench: with scorer and boundaries of all categories.
        segmenter: tells what is where.
        categories: two or more concepts.
        codes: to start from instead of samples; their numbers stand for seeds in the result.
        num: samples.
        steps: stations per leg.
        strength: length of every leg in code space, as λ is; by default what raises the category's score by
            ``sigmas``, or as far as it can be raised (`higan.workbench.approach`).
        layers: where to edit; by default, of the placements that raise a category at least four fifths as far as the
            best one, the one that moves the whole code least.
        sigmas: of the score, on average.
        candidates: how many times ``num`` samples to choose from.
        seed: chooses the samples.
        progress: called after every batch and after every placement that was tried; may raise to stop.

    Raises:
        ValueError: fewer than two categories or one twice, unknown ones, counts below 1, bad layers, or layers at which
            a category does not rise.
        GeneratorError, ScorerError: generator, scorer or segmenter break their contract.
    """
    if len(categories) < 2 or len(set(categories)) < len(categories):
        raise ValueError(f"a transition needs two or more different categories; got {', '.join(categories) or 'none'}")
    if num < 1 or candidates < 1:
        raise ValueError(f"num and candidates must be at least 1; got {num} and {candidates}")
    if steps < 1 or (strength is not None and not math.isfinite(strength)):
        raise ValueError(f"steps must be at least 1, and a strength finite; got {steps} and {strength}")
    if not sigmas > 0:
        raise ValueError(f"sigmas must be above 0; got {sigmas}")
    columns = [bench.column(name) for name in categories]
    where = None if layers is None else tuple(layers)
    asked = [Instruction(name, sigmas if strength is None else strength, layers=where) for name in categories[1:]]
    check_consistent(asked, bench.boundaries)
    places = [_places(bench, leg, measured=strength is None) for leg in asked]
    stops = (num if codes is None else len(codes)) * (1 + steps * len(asked))
    batches = math.ceil(stops / _IMAGES_AT_ONCE) + (
        math.ceil(num * candidates / _IMAGES_AT_ONCE) if codes is None else 0
    )
    tick = _ticker(batches + (sum(map(len, places)) if strength is None else 0), progress)
    if codes is None:
        seeds, codes = _surest(bench, columns, num, candidates, seed, tick)
    else:
        seeds = torch.arange(len(codes))
    tried = codes[:_TRIED] if strength is None else None
    legs = tuple(_leg(bench, leg, where, tried, tick) for leg, where in zip(asked, places, strict=True))
    stations = walk(codes, legs, steps=steps)
    n, T = stations.shape[:2]
    flat = stations.flatten(0, 1)
    drawn = []
    for part in flat.split(_IMAGES_AT_ONCE):
        drawn.append(render(bench.generator, part))
        tick()
    images = torch.cat(drawn)
    masks = segment(segmenter, images).unflatten(0, (n, T))
    scores = torch.cat([_scores(bench, part)[:, columns].cpu() for part in images.split(_IMAGES_AT_ONCE)])
    ends = range(0, T, steps)
    mappings = tuple(map_objects(segmenter.classes, masks[:, a], masks[:, b]) for a, b in pairwise(ends))
    return Journey(
        tuple(categories), seeds, legs, steps, images.cpu().unflatten(0, (n, T)), masks, scores.unflatten(0, (n, T)),
        mappings,
    )  # fmt: skip


def _ticker(total: int, progress: Progress | None) -> Callable[[], None]:
    """Tells that one more of ``total`` pieces is done."""
    done = count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done), total)

    return tick


def _places(bench: Workbench, asked: Instruction, *, measured: bool) -> list[tuple[int, ...]]:
    """Where a leg may be edited: where the re-scoring promises most if the rise is measured, else in one place."""
    if measured and asked.layers is None and bench.rescoring is not None:
        return [placement.layers for placement in promising(bench.rescoring, asked.concept)]
    return [layers_of(bench, asked)]


def _leg(
    bench: Workbench,
    asked: Instruction,
    places: Sequence[tuple[int, ...]],
    tried: Float[Tensor, "n L D"] | None,
    tick: Callable[[], None],
) -> Edit:
    """Edit towards a category: of so many steps, or of so many standard deviations of the samples ``tried``."""
    boundary = bench.boundaries[asked.concept]
    if tried is None:
        return Edit(boundary, asked.amount, places[0])
    found = []
    for layers in places:
        found.append((layers, *approach(bench, boundary, layers, asked.amount, tried)))
        tick()
    if max(gained for _, _, gained in found) <= 0:
        raise ValueError(f"{asked.concept!r} rises at none of the layers tried; give other layers, or a strength")
    layers, steps, _ = _gentlest(found)
    return Edit(boundary, steps, layers)


def _gentlest(found: Sequence[tuple[tuple[int, ...], float, float]]) -> tuple[tuple[int, ...], float, float]:
    """Of layers, steps and what they gain: what gains nearly the most and moves the whole code least.

    Scores can be had by taking pictures apart as well: what moves the whole code least is least likely to do so.
    """
    most = max(gained for _, _, gained in found)
    near = (leg for leg in found if leg[2] >= _NEARLY * most)
    return min(near, key=lambda leg: leg[1] * math.sqrt(len(leg[0])))


def _surest(
    bench: Workbench, columns: Sequence[int], num: int, candidates: int, seed: int, tick: Callable[[], None]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "n L D"]]:
    """Seeds and codes of the samples that are most like the first category and least like the others."""
    seeds = sample_seeds(num * candidates, seed=seed, purpose="verify", first=2**22 + 2**20)
    codes = torch.cat([sample(bench.generator, part) for part in seeds.split(_IMAGES_AT_ONCE)])
    parts = []
    for part in codes.split(_IMAGES_AT_ONCE):
        parts.append(_scores(bench, render(bench.generator, part))[:, list(columns)].cpu())
        tick()
    scores = torch.cat(parts).double()
    spread = scores.std(0, correction=0)
    sigma = (scores - scores.mean(0)) / torch.where(spread > 0, spread, 1.0)
    margin = sigma[:, 0] - sigma[:, 1:].amax(1)
    chosen = margin.argsort(descending=True, stable=True)[:num].sort().values
    return seeds[chosen], codes[chosen.to(codes.device)]


def _scores(bench: Workbench, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
    if bench.scorer is None:
        raise ValueError("a scorer is needed to tell categories apart; none was given")
    return score(bench.scorer, images)
