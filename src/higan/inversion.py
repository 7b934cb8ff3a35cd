"""Real photographs: the layer-wise codes whose image looks most like a picture.

Optimisation in two phases, as in "Image2StyleGAN++" (Abdal et al. 2020) and "Designing an encoder for StyleGAN image
manipulation" (Tov et al. 2021, on why codes should stay near the sampled ones): first one code for all layers, from the
mean code, then one per layer. Codes are sought in whitened coordinates, in which the sampled population is round and of
unit size in every direction; the square of the distance from its mean (Mahalanobis) is part of the loss, since edits
are measured on sampled codes and need not work far from them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from higan.errors import CorruptFileError, GeneratorError, UnknownFormatError
from higan.population import Progress, sample, sample_seeds, to_uint8
from higan.types import Generator
from higan.weights import read_weights, write_weights

__all__ = ["CodeSpace", "Features", "Inversion", "code_space", "invert", "load_inversion", "save_inversion"]

_FORMAT = "higan-inversion-1"

Features = Callable[[Float[Tensor, "n 3 H W"]], Float[Tensor, "n f"]]
"""Images in [-1, 1] to features of a predictor, differentiable: the perceptual part of the loss."""


@dataclass(frozen=True, slots=True, eq=False)
class CodeSpace:
    """Mean and spread of the sampled codes; l = 1 where all layers share their code, else L.

    ``basis`` turns whitened coordinates into codes, ``code = mean + v @ basis``; directions in which codes do not vary
    have rows of zeros. ``size`` is the mean square of the whitened coordinates of a fresh sample, somewhat more than
    the ``rank`` of their space, which it is for the samples that mean and spread come from. ``sampled`` are the
    distances of samples that these do not come from, sorted.
    """

    mean: Float[Tensor, "l D"]
    basis: Float[Tensor, "l D D"]
    whiten: Float[Tensor, "l D D"]
    rank: Float[Tensor, " l"]
    size: Float[Tensor, " l"]
    sampled: Float[Tensor, " m"]

    def codes(self, v: Float[Tensor, "n k D"]) -> Float[Tensor, "n k D"]:
        """Codes of whitened coordinates, of all layers or of the one that all share."""
        return self.mean + torch.einsum("nkd,kde->nke", v, self.basis.expand(v.shape[1], -1, -1))

    def distance(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, " n"]:
        """Mahalanobis distance per dimension, root mean square over the layers that vary: about 1 for samples."""
        v = torch.einsum("nld,lde->nle", codes - self.mean, self.whiten.expand(codes.shape[1], -1, -1))
        varies = (self.rank > 0).expand(codes.shape[1])
        square = v.square().sum(2) / self.size.clamp(min=1)
        return (square[:, varies].sum(1) / varies.sum().clamp(min=1)).sqrt()

    def percentile(self, distance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Share of sampled codes that lie nearer to the mean, in percent."""
        return 100 * torch.searchsorted(self.sampled, distance.contiguous()).float() / len(self.sampled)


def code_space(generator: Generator, *, num: int = 4096, seed: int = 0) -> CodeSpace:
    """Mean and covariance of the codes of ``num`` samples, and the distances of as many others; nothing is drawn.

    Raises:
        ValueError: no more samples than the codes have dimensions, and two.
    """
    if num < 2:
        raise ValueError(f"a code space is estimated from at least 2 samples; got {num}")
    seeds = sample_seeds(2 * num, seed=seed)
    codes, others = (_codes(generator, half) for half in seeds.split(num))
    x = codes.double().cpu()
    mean = x.mean(0)
    covariance = torch.einsum("nld,nle->lde", x - mean, x - mean) / (num - 1)
    values, vectors = torch.linalg.eigh(covariance)
    alive = values > 1e-6 * values.amax(1, keepdim=True)
    std = torch.where(alive, values, 0.0).sqrt()
    # Symmetric square roots: the axes of v stay those of the code.
    basis = torch.einsum("lde,le,lfe->ldf", vectors, std, vectors)
    inverse = torch.where(alive, 1 / std.clamp(min=1e-30), 0.0)
    whiten = torch.einsum("lde,le,lfe->ldf", vectors, inverse, vectors)
    # Exact zeros in the padding of narrow layers: rounding must not touch what no code may touch.
    used = (covariance.diagonal(dim1=1, dim2=2) > 0).double()
    square = used[:, :, None] * used[:, None]
    rank = alive.sum(1)
    if int(rank.max()) + 2 >= num:
        raise ValueError(f"{num} samples are too few for codes of {int(rank.max())} dimensions: take a few thousand")
    # Of Gaussian codes, where the covariance is estimated from others: the mean of an inverse Wishart distribution.
    size = rank * ((num - 1) / (num - 2 - rank))
    parts = (mean, basis * square, whiten * square, rank, size, torch.zeros(1))
    bare = CodeSpace(*(part.float().to(generator.device) for part in parts))
    return replace(bare, sampled=bare.distance(others.float()).sort().values)


def _codes(generator: Generator, seeds: Int64[Tensor, " n"]) -> Float[Tensor, "n l D"]:
    codes = torch.cat([sample(generator, some) for some in seeds.split(1024)])
    return codes[:, :1] if generator.shared_code else codes


@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """What became of a picture.

    ``error`` is the root mean square difference of pixels, in grey levels (of 255); ``start_error`` that of the mean
    code's image. ``distance`` is the Mahalanobis distance per dimension from the sampled population, about 1 for
    samples, and ``percentile`` the share of samples that are nearer; at 100 every sample is, and edits should not be
    trusted without a look. ``layer_spread`` tells how far the layers' codes are from each other in the same unit: 0 for
    samples of generators whose layers share a code.
    """

    code: Float[Tensor, "L D"]
    image: UInt8[Tensor, "3 H W"]
    error: float
    start_error: float
    distance: float
    percentile: float
    layer_spread: float
    losses: tuple[float, ...]


def invert(
    generator: Generator,
    picture: UInt8[Tensor, "3 H W"],
    *,
    space: CodeSpace | None = None,
    features: Features | None = None,
    shared_steps: int = 150,
    layer_steps: int = 250,
    candidates: int = 64,
    regularise: float = 0.005,
    perceptual: float = 1.0,
    rate: float = 0.08,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inversion:
    """Find layer-wise codes for a picture.

    The loss is the mean square difference of pixels, the same over pictures averaged down by 2, 4, 8 … (what is roughly
    right counts before what is exactly right), the mean square difference of ``features`` relative to the picture's
    own, and ``regularise`` times the squared Mahalanobis distance, that between layers included. The start is the mean
    code or, where one of ``candidates`` samples looks more alike, that sample.

    Args:
        generator: any whose ``synthesize`` is differentiable.
        picture: at the generator's resolution; `higan.photographs.open_photograph` makes it so.
        space: from `code_space`, to be shared by several inversions.
        features: perceptual features; none by default.
        shared_steps: of the first phase, one code for all layers; skipped where layers never share one.
        layer_steps: of the second phase.
        candidates: samples to choose a start from; 0 starts from the mean code.
        regularise: larger stays nearer to the samples and reproduces less exactly.
        perceptual: weight of the features.
        rate: first learning rate of Adam in whitened coordinates; it falls to zero along half a cosine.
        seed: chooses the candidates.
        progress: called after every step.

    Raises:
        ValueError: the picture is not uint8 or has another size, or a count or weight is negative.
        GeneratorError: no gradient reaches the codes.
    """
    _check_picture(generator, picture)
    if min(shared_steps, layer_steps, candidates) < 0 or min(regularise, perceptual) < 0 or not rate > 0:
        raise ValueError("steps, candidates and weights must be 0 or more, and rate above 0")
    space = code_space(generator) if space is None else space
    target = picture.to(generator.device).float()[None] / 127.5 - 1
    loss = _Loss(target, features, perceptual)
    v, start_error = _start(generator, space, loss, candidates, seed)
    total = (shared_steps if generator.shared_code else 0) + layer_steps
    losses: list[float] = []

    def advance(v: Tensor, steps: int) -> Tensor:
        return _descend(generator, space, loss, v, steps, regularise, rate, losses, progress, total)

    if generator.shared_code:
        v = advance(v, shared_steps).expand(-1, generator.num_layers, -1)
    v = advance(v, layer_steps)
    with torch.no_grad():
        code = _full(generator, space, v)
        image = generator.synthesize(code)
        distance = space.distance(code)
        spread = (v - v.mean(1, keepdim=True)).square().sum(2) / space.rank.clamp(min=1)
    return Inversion(
        code=code[0].detach().cpu(),
        image=to_uint8(image.detach())[0].cpu(),
        error=_grey_levels(image, target),
        start_error=start_error,
        distance=float(distance),
        percentile=float(space.percentile(distance)),
        layer_spread=float(spread.mean().sqrt()) if generator.shared_code else 0.0,
        losses=tuple(losses),
    )


def _check_picture(generator: Generator, picture: object) -> None:
    side = generator.resolution
    if not isinstance(picture, Tensor) or picture.dtype != torch.uint8:
        got = picture.dtype if isinstance(picture, Tensor) else type(picture).__name__
        raise ValueError(
            f"the picture must be a tensor of uint8, 0 … 255; got {got}: higan.population.to_uint8 converts images in "
            "[-1, 1], torch.from_numpy an array"
        )
    if tuple(picture.shape) != (3, side, side):
        raise ValueError(
            f"{generator.name!r} draws pictures of {side} x {side} pixels; got {tuple(picture.shape)}: open the file "
            "with higan.photographs.open_photograph"
        )


def save_inversion(path: str | os.PathLike[str], inversion: Inversion) -> None:
    """Writes an inversion, whole or not at all."""
    tensors = {"code": inversion.code.contiguous(), "image": inversion.image.contiguous()}
    told = {f.name: getattr(inversion, f.name) for f in fields(inversion) if f.name not in tensors}
    write_weights(path, tensors, {"format": _FORMAT, "told": told})


def load_inversion(path: str | os.PathLike[str]) -> Inversion:
    """What `save_inversion` wrote.

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: it holds something else.
        CorruptFileError: it is damaged.
    """
    tensors, header = read_weights(path)
    if header.get("format") != _FORMAT:
        raise UnknownFormatError(f"{path} holds no inversion: expected {_FORMAT!r}, got {header.get('format')!r}")
    try:
        told: dict[str, Any] = {**header["told"], "losses": tuple(header["told"]["losses"])}
        return Inversion(code=tensors["code"], image=tensors["image"], **told)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} contradicts itself: {error}; invert the picture again") from error


class _Loss:
    """How unlike a picture images are, one number per image."""

    def __init__(self, target: Tensor, features: Features | None, weight: float) -> None:
        self.target = target
        self._pyramid = _pyramid(target)
        self._weight = weight
        self._features = features
        if features is not None:
            with torch.no_grad():
                self._wanted = features(target)
            self._scale = self._wanted.square().mean().clamp(min=1e-12)

    def __call__(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, " n"]:
        levels = zip(_pyramid(images), self._pyramid, strict=True)
        parts = [(a - b).square().mean((1, 2, 3)) for a, b in levels]
        total = parts[0] + torch.stack(parts).mean(0)
        if self._features is not None:
            total = total + self._weight * (self._features(images) - self._wanted).square().mean(1) / self._scale
        return total


def _pyramid(images: Tensor) -> list[Tensor]:
    levels = [images]
    while levels[-1].shape[-1] >= 8 and levels[-1].shape[-1] % 2 == 0:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _full(generator: Generator, space: CodeSpace, v: Tensor) -> Float[Tensor, "n L D"]:
    return space.codes(v).expand(-1, generator.num_layers, -1)


def _start(
    generator: Generator, space: CodeSpace, loss: _Loss, candidates: int, seed: int
) -> tuple[Float[Tensor, "1 k D"], float]:
    """Whitened coordinates to start from, and the error of the mean code's image."""
    mean = torch.zeros(1, *space.mean.shape, device=generator.device)
    with torch.no_grad():
        image = generator.synthesize(_full(generator, space, mean))
        best, least = mean, float(loss(image))
        start_error = _grey_levels(image, loss.target)
        if candidates:
            seeds = sample_seeds(candidates, seed=seed, purpose="verify", first=2**23)
            for batch in seeds.split(16):
                codes = sample(generator, batch)
                found = loss(generator.synthesize(codes))
                k = int(found.argmin())
                if float(found[k]) < least:
                    kept = codes[k : k + 1, : len(space.mean)]
                    best = torch.einsum("nld,lde->nle", kept - space.mean, space.whiten)
                    least = float(found[k])
    return best, start_error


def _descend(
    generator: Generator,
    space: CodeSpace,
    loss: _Loss,
    start: Tensor,
    steps: int,
    regularise: float,
    rate: float,
    losses: list[float],
    progress: Progress | None,
    total: int,
) -> Tensor:
    v = start.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([v], lr=rate)
    best, least = v.detach().clone(), math.inf
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        apart = (v - v.mean(1, keepdim=True)).square().sum() if generator.shared_code else v.new_zeros(())
        far = (v.square().sum() + apart) / (space.rank.mean().clamp(min=1) * v.shape[1])
        images = generator.synthesize(_full(generator, space, v))
        if not images.requires_grad:
            raise GeneratorError(f"no gradient reaches the codes of {generator.name!r}: it cannot invert pictures")
        value = loss(images).sum() + regularise * far
        if float(value.detach()) < least:
            best, least = v.detach().clone(), float(value.detach())
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
        if progress is not None:
            progress(len(losses), total)
    return best


def _grey_levels(image: Tensor, target: Tensor) -> float:
    return float((image - target).square().mean().sqrt()) * 127.5
