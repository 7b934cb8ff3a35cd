"""How good generated rooms are: Fréchet distance, precision and recall in the rooms scorer's features; shares; detail.

The features are those of our own small network, not of Inception: figures compare with each other and with the same
figures for two disjoint sets of renders, not with published FIDs. A Fréchet distance grows as samples become fewer, so
that its ratio to the renders' own depends on how many there are; ``unlimited`` is what no number of samples changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from higan.rooms.objects import Clarity, Sightings, clarities, sightings_of, together
from higan.rooms.shares import Share, share_of
from higan.scorers.rooms import RoomsScorer
from higan.segmenters.rooms import RoomsSegmenter

__all__ = [
    "Estimate",
    "Looks",
    "Quality",
    "covered",
    "fine_detail",
    "frechet_distance",
    "jackknife",
    "looks_of",
    "measure_quality",
    "quarters",
]

_LIGHT = ("natural_light", "indoor_lighting")

_NEIGHBOURS = 3
_BLOCKS = 20
_FEWEST = 2 * _BLOCKS


def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets (Heusel et al. 2017).

    Raises:
        ValueError: fewer than two samples on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the Fréchet distance needs at least 2 samples a side; got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.cov(x.T).reshape(2 * x.shape[1:]) for x in (a, b))
    # trace √(AB) = sum of the square roots of the eigenvalues of the symmetric √A B √A
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def covered(manifold: Float[Tensor, "n f"], points: Float[Tensor, "m f"], neighbours: int = _NEIGHBOURS) -> float:
    """Share of points within the manifold of other samples (Kynkäänniemi et al. 2019).

    Improved precision is that of generated samples within the manifold of real ones, recall the other way round. A
    manifold reaches from every sample to its last neighbour, and no sample is its own.

    Raises:
        ValueError: no more samples on a side than neighbours.
    """
    num = min(len(manifold), len(points))
    if num <= neighbours:
        raise ValueError(
            f"precision and recall by {neighbours} neighbours need at least {neighbours + 1} samples a side; got {num}"
        )
    # About their own middle: distances come from products of matrices.
    middle = manifold.mean(0)
    manifold, points = manifold - middle, points - middle
    within = torch.cdist(manifold, manifold)
    radius = within.kthvalue(neighbours + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radius).any(1).float().mean())


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of two sets of samples, with what leaving samples out says about it."""

    value: float
    """Of all samples."""
    unlimited: float
    """Where it goes as samples grow without limit: the value less a bias that falls as one over their number."""
    error: float
    """Standard error of ``unlimited`` and, nearly, of ``value``; too large where both sets are alike.

    Of precision and recall, whose manifolds change with what is left out, it lies between the two: half as large again
    as that of ``value``.
    """


def jackknife(
    statistic: Callable[[Tensor, Tensor], float],
    a: Float[Tensor, "n f"],
    b: Float[Tensor, "m f"],
    blocks: int = _BLOCKS,
) -> Estimate:
    """A statistic of two sets, with its bias and standard error by leaving out blocks of both (Tukey 1958).

    Every ``blocks``-th sample of a set is in the same block. For a Fréchet distance the value without bias is that of
    Chong & Forsyth 2020, who extrapolate over one over the number of samples too.

    Raises:
        ValueError: fewer than two blocks, or fewer than two samples of a set for each.
    """
    if blocks < 2 or min(len(a), len(b)) < 2 * blocks:
        raise ValueError(
            "the jackknife needs at least 2 blocks, and 2 samples a side for each; "
            f"got {blocks} blocks, {len(a)} and {len(b)} samples"
        )
    rows, columns = torch.arange(len(a)) % blocks, torch.arange(len(b)) % blocks
    left_out = torch.tensor([statistic(a[rows != k], b[columns != k]) for k in range(blocks)], dtype=torch.float64)
    value = statistic(a, b)
    unlimited = blocks * value - (blocks - 1) * float(left_out.mean())
    error = math.sqrt((blocks - 1) * float(left_out.var(correction=0)))
    return Estimate(value, unlimited, error)


def quarters(reference: Float[Tensor, " n"], values: Float[Tensor, " m"]) -> tuple[float, float, float, float]:
    """Shares of values in the quarters of a reference, from its least to its greatest; four times 0.25 where alike.

    Raises:
        ValueError: fewer than four reference values, or no value.
    """
    if len(reference) < 4 or not len(values):
        raise ValueError(f"expected at least 4 reference values and a value; got {len(reference)} and {len(values)}")
    bounds = torch.quantile(reference, torch.tensor([0.25, 0.5, 0.75], dtype=reference.dtype))
    counts = torch.bucketize(values.contiguous(), bounds).bincount(minlength=4)
    first, second, third, fourth = (counts / len(values)).tolist()
    return first, second, third, fourth


def fine_detail(images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, " n"]:
    """Power of the grey picture at more than a quarter of the sampling rate, which half the resolution cannot show.

    Grey levels squared, per pixel; a frequency is the length of its vector (row, column).
    """
    grey = images.float().mean(1)
    height, width = grey.shape[1:]
    rows, columns = torch.fft.fftfreq(height, device=grey.device), torch.fft.fftfreq(width, device=grey.device)
    power = torch.fft.fft2(grey, norm="ortho").abs().square()
    return power[:, rows[:, None].square() + columns.square() > 0.25**2].sum(1) / (height * width)


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What is seen of n pictures: features and predictions of a scorer, `fine_detail`, mean grey level, objects."""

    features: Float[Tensor, "n f"]
    scores: Float[Tensor, "n o"]
    detail: Float[Tensor, " n"]
    brightness: Float[Tensor, " n"]
    objects: Sightings


def looks_of(
    scorer: RoomsScorer,
    images: Callable[[int, int], UInt8[Tensor, "n 3 H W"]],
    num: int,
    segmenter: RoomsSegmenter | None = None,
    batch_size: int = 250,
) -> Looks:
    """Looks at pictures 0 … num − 1, where ``images(start, stop)`` delivers start … stop − 1.

    Without a segmenter there are no classes of objects to look for.
    """
    seen, objects = [], []
    with torch.inference_mode():
        for start in range(0, num, batch_size):
            batch = images(start, min(start + batch_size, num))
            grey = batch.float().mean((1, 2, 3))
            seen.append((scorer.features(batch), scorer.predict(batch), fine_detail(batch), grey))
            if segmenter is not None:
                objects.append(sightings_of(segmenter, batch))
    features, scores, detail, brightness = (
        torch.cat([part.cpu() for part in parts]) for parts in zip(*seen, strict=True)
    )
    nothing = Sightings(torch.empty(num, 0), torch.empty(num, 0))
    return Looks(features, scores, detail, brightness, together(objects) if objects else nothing)


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of a generator beside those of the renderer against itself."""

    samples: int
    frechet: Estimate
    frechet_renders: Estimate
    """The same distance between two disjoint sets of renders: the floor, at so many samples."""
    precision: Estimate
    recall: Estimate
    """Both depend on the number of samples in ways that ``unlimited`` does not follow."""
    sure: float
    """Share of samples whose most likely category has a probability above 0.9."""
    sure_renders: float
    shares: dict[str, Share]
    """Per category and window side, per object that is there or not, and per state of lighting.

    A room is lit by daylight, by its lamp, by both or by neither, where bright is what exceeds the renders' median.
    """
    quarters: dict[str, tuple[float, float, float, float]]
    """Of numbers such as lighting: shares of samples in the quarters of the renders' range, from least to most.

    As predicted: where pictures leave a predictor unsure it says the middle, and the outer quarters seem too rare.
    """
    brightness: tuple[float, float, float, float]
    """The same of mean grey levels, which no predictor has a part in."""
    detail: float
    """Mean `fine_detail`, generated over rendered: 1 is as sharp, less is softer."""
    detail_renders: float
    """The same between the two sets of renders."""
    objects: dict[str, Clarity]
    """Per object class: how often a segmenter sees it, and how surely; empty without a segmenter."""


def measure_quality(
    scorer: RoomsScorer,
    fake: Callable[[int, int], UInt8[Tensor, "n 3 H W"]],
    real: Callable[[int, int], UInt8[Tensor, "n 3 H W"]],
    num: int = 5000,
    segmenter: RoomsSegmenter | None = None,
) -> Quality:
    """Compares ``num`` generated images with ``num`` renders, and those with ``num`` more renders.

    Args:
        scorer: the rooms scorer, whose features and predictions are used.
        fake: gives generated images start … stop − 1.
        real: gives held-out renders start … stop − 1; asked for ``2 · num``.
        num: samples a side, 40 at least.
        segmenter: sees the objects.

    Raises:
        ValueError: too few samples.
    """
    if num < _FEWEST:
        raise ValueError(f"the quality of a generator needs at least {_FEWEST} samples a side; got {num}")
    generated, rendered = looks_of(scorer, fake, num, segmenter), looks_of(scorer, real, 2 * num, segmenter)
    sharp = rendered.detail[:num].mean()
    first, second = rendered.features[:num], rendered.features[num:]
    middle = rendered.scores.median(0).values
    drawn, there = (_present(scorer, looks.scores, middle) for looks in (generated, rendered))
    return Quality(
        samples=num,
        frechet=jackknife(frechet_distance, first, generated.features),
        frechet_renders=jackknife(frechet_distance, first, second),
        precision=jackknife(covered, first, generated.features),
        recall=jackknife(covered, generated.features, first),
        sure=_sure(scorer, generated.scores),
        sure_renders=_sure(scorer, rendered.scores[:num]),
        shares={name: share_of(made, there[name]) for name, made in drawn.items()},
        quarters={
            n: quarters(rendered.scores[:, i], generated.scores[:, i]) for n, i in _columns(scorer, "scale").items()
        },
        brightness=quarters(rendered.brightness, generated.brightness),
        detail=float(generated.detail.mean() / sharp),
        detail_renders=float(rendered.detail[num:].mean() / sharp),
        objects=clarities(segmenter.classes if segmenter else (), generated.objects, rendered.objects),
    )


def _columns(scorer: RoomsScorer, kind: str) -> dict[str, int]:
    return {o.name: i for i, o in enumerate(scorer.outputs) if o.kind == kind}


def _sure(scorer: RoomsScorer, scores: Tensor) -> float:
    log_odds = scores[:, list(_columns(scorer, "category").values())]
    return float((torch.sigmoid(log_odds).amax(1) > 0.9).float().mean())


def _present(
    scorer: RoomsScorer, scores: Float[Tensor, "n o"], middle: Float[Tensor, " o"]
) -> dict[str, Bool[Tensor, " n"]]:
    categories = _columns(scorer, "category")
    winner = scores[:, list(categories.values())].argmax(1)
    found = {name: winner == k for k, name in enumerate(categories)}
    found |= {n: scores[:, i] > 0 for n, i in _columns(scorer, "binary").items()}
    numbers = _columns(scorer, "scale")
    if not numbers.keys() >= set(_LIGHT):
        return found
    day, lamp = (scores[:, numbers[n]] > middle[numbers[n]] for n in _LIGHT)
    return found | {
        "dim light": ~day & ~lamp,
        "lamp light only": ~day & lamp,
        "daylight only": day & ~lamp,
        "daylight and lamp light": day & lamp,
    }
