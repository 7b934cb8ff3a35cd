"""How good generated rooms are: Fréchet distance, precision and recall in the rooms scorer's features; fine detail.

The features are those of our own small network, not of Inception: figures compare with each other and with the same
figures for two disjoint sets of renders, not with published FIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.scorers.rooms import RoomsScorer

__all__ = ["Quality", "features_of", "fine_detail", "frechet_distance", "measure_quality", "precision_recall"]

_NEIGHBOURS = 3


def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets (Heusel et al. 2017).

    Raises:
        ValueError: fewer than two samples on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the Fréchet distance needs at least 2 samples a side; got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    # trace √(AB) = sum of the square roots of the eigenvalues of the symmetric √A B √A
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def precision_recall(
    real: Float[Tensor, "n f"], fake: Float[Tensor, "m f"], neighbours: int = _NEIGHBOURS
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019): share of each set within the other's manifold.

    Raises:
        ValueError: no more samples on a side than neighbours.
    """
    _check_samples(min(len(real), len(fake)), neighbours)
    return _covered(real, fake, neighbours), _covered(fake, real, neighbours)


def _covered(manifold: Tensor, points: Tensor, neighbours: int) -> float:
    within = torch.cdist(manifold, manifold)
    radius = within.kthvalue(neighbours + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radius).any(1).float().mean())


def _check_samples(num: int, neighbours: int) -> None:
    """A manifold reaches from every sample to its last neighbour, and no sample is its own."""
    if num <= neighbours:
        raise ValueError(
            f"precision and recall by {neighbours} neighbours need at least {neighbours + 1} samples a side; got {num}"
        )


def fine_detail(images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, " n"]:
    """Power of the grey picture at more than a quarter of the sampling rate, which half the resolution cannot show.

    Grey levels squared, per pixel; a frequency is the length of its vector (row, column).
    """
    grey = images.float().mean(1)
    height, width = grey.shape[1:]
    rows, columns = torch.fft.fftfreq(height, device=grey.device), torch.fft.fftfreq(width, device=grey.device)
    power = torch.fft.fft2(grey, norm="ortho").abs().square()
    return power[:, rows[:, None].square() + columns.square() > 0.25**2].sum(1) / (height * width)


def features_of(
    scorer: RoomsScorer, images: Callable[[int, int], UInt8[Tensor, "n 3 H W"]], num: int, batch_size: int = 250
) -> tuple[Float[Tensor, "n f"], Float[Tensor, "n o"], Float[Tensor, " n"]]:
    """Features, predictions and `fine_detail` of images start … stop − 1 as delivered by ``images(start, stop)``."""
    features, scores, detail = [], [], []
    with torch.inference_mode():
        for start in range(0, num, batch_size):
            batch = images(start, min(start + batch_size, num))
            features.append(scorer.features(batch).cpu())
            scores.append(scorer.predict(batch).cpu())
            detail.append(fine_detail(batch).cpu())
    return torch.cat(features), torch.cat(scores), torch.cat(detail)


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of a generator beside those of the renderer against itself."""

    samples: int
    frechet: float
    frechet_renders: float
    """The same distance between two disjoint sets of renders: the floor."""
    precision: float
    recall: float
    sure: float
    """Share of samples whose most likely category has a probability above 0.9."""
    sure_renders: float
    shares: dict[str, float]
    """Share of samples per category and window side, as the scorer sees them."""
    shares_renders: dict[str, float]
    detail: float
    """Mean `fine_detail`, generated over rendered: 1 is as sharp, less is softer."""
    detail_renders: float
    """The same between the two sets of renders."""


def measure_quality(
    scorer: RoomsScorer,
    fake: Callable[[int, int], UInt8[Tensor, "n 3 H W"]],
    real: Callable[[int, int], UInt8[Tensor, "n 3 H W"]],
    num: int = 5000,
) -> Quality:
    """Compares ``num`` generated images with ``num`` renders, and those with ``num`` more renders.

    Args:
        scorer: the rooms scorer, whose features and predictions are used.
        fake: gives generated images start … stop − 1.
        real: gives held-out renders start … stop − 1; asked for ``2 · num``.
        num: samples a side.

    Raises:
        ValueError: too few samples.
    """
    _check_samples(num, _NEIGHBOURS)
    fake_features, fake_scores, fake_detail = features_of(scorer, fake, num)
    real_features, real_scores, real_detail = features_of(scorer, real, 2 * num)
    sharp = real_detail[:num].mean()
    first, second = real_features[:num], real_features[num:]
    precision, recall = precision_recall(first, fake_features)
    return Quality(
        samples=num,
        frechet=frechet_distance(first, fake_features),
        frechet_renders=frechet_distance(first, second),
        precision=precision,
        recall=recall,
        sure=_sure(scorer, fake_scores),
        sure_renders=_sure(scorer, real_scores[:num]),
        shares=_shares(scorer, fake_scores),
        shares_renders=_shares(scorer, real_scores[:num]),
        detail=float(fake_detail.mean() / sharp),
        detail_renders=float(real_detail[num:].mean() / sharp),
    )


def _columns(scorer: RoomsScorer, kind: str) -> dict[str, int]:
    return {o.name: i for i, o in enumerate(scorer.outputs) if o.kind == kind}


def _sure(scorer: RoomsScorer, scores: Tensor) -> float:
    log_odds = scores[:, list(_columns(scorer, "category").values())]
    return float((torch.sigmoid(log_odds).amax(1) > 0.9).float().mean())


def _shares(scorer: RoomsScorer, scores: Tensor) -> dict[str, float]:
    categories = _columns(scorer, "category")
    winner = scores[:, list(categories.values())].argmax(1)
    shares = {name: float((winner == k).float().mean()) for k, name in enumerate(categories)}
    present = _columns(scorer, "binary")
    return shares | {n: float((scores[:, i] > 0).float().mean()) for n, i in present.items()}
