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
from collections.abc import Callable, Sequence
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

__all__ = [
    "CodeSpace",
    "Features",
    "Inversion",
    "code_space",
    "invert",
    "load_inversion",
    "pictures_at_once",
    "save_inversion",
]

_FORMAT = "higan-inversion-1"

_PIXELS_CPU = 2**17
_PIXELS = 2**21
"""On a GPU, where every map is kept for the gradient: some 8 KiB a pixel make 16 GiB."""

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
    x = codes.cpu().double()  # which not every device has
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


def pictures_at_once(generator: Generator) -> int:
    """Pictures that are best inverted in one call of `invert`; more take much memory."""
    pixels = _PIXELS_CPU if generator.device.type == "cpu" else _PIXELS
    return max(1, pixels // generator.resolution**2)


def invert(
    generator: Generator,
    pictures: UInt8[Tensor, "P 3 H W"],
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
) -> tuple[Inversion, ...]:
    """Find layer-wise codes for pictures, each for itself, but all in one call of the generator.

    The loss is the mean square difference of pixels, the same over pictures averaged down by 2, 4, 8 … (what is roughly
    right counts before what is exactly right), the mean square difference of ``features`` relative to the picture's
    own, and ``regularise`` times the squared Mahalanobis distance, that between layers included. The start is the mean
    code or, where one of ``candidates`` samples looks more alike, that sample.

    Args:
        generator: any whose ``synthesize`` is differentiable.
        pictures: at the generator's resolution; `higan.photographs.open_photograph` makes them so. What others there
            are changes how a picture's losses are rounded, no more; but optimisation amplifies that, up to three grey
            levels of ``error`` after 240 steps. See `pictures_at_once` for how many to give at a time.
        space: from `code_space`, to be shared by several calls.
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
        ValueError: the pictures are not uint8 or have another size, or a count, weight or rate is negative or not
            finite.
        GeneratorError: no gradient reaches the codes.
    """
    _check_pictures(generator, pictures)
    counts = {"shared_steps": shared_steps, "layer_steps": layer_steps, "candidates": candidates}
    for name, value in {**counts, "regularise": regularise, "perceptual": perceptual}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more, and finite; got {value}")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be above 0, and finite; got {rate}")
    space = code_space(generator) if space is None else space
    target = pictures.to(generator.device).float() / 127.5 - 1
    loss = _Loss(target, features, perceptual)
    v, start_errors = _start(generator, space, loss, candidates, seed)
    total = (shared_steps if generator.shared_code else 0) + layer_steps
    losses: list[Tensor] = []

    def advance(v: Tensor, steps: int) -> Tensor:
        return _descend(generator, space, loss, v, steps, regularise, rate, losses, progress, total)

    if generator.shared_code:
        v = advance(v, shared_steps).expand(-1, generator.num_layers, -1)
    v = advance(v, layer_steps)
    with torch.no_grad():
        code = _full(generator, space, v)
        image = generator.synthesize(code)
        distance = space.distance(code)
        square = (v - v.mean(1, keepdim=True)).square().sum(2) / space.rank.clamp(min=1)
        spread = square.mean(1).sqrt() if generator.shared_code else torch.zeros(len(v))
        parts = zip(
            code.cpu(),
            to_uint8(image).cpu(),
            _grey_levels(image, target).tolist(),
            start_errors.tolist(),
            distance.tolist(),
            space.percentile(distance).tolist(),
            spread.tolist(),
            map(tuple, torch.stack(losses, 1).tolist() if losses else [[] for _ in v]),
            strict=True,
        )
        return tuple(Inversion(*these) for these in parts)


def _check_pictures(generator: Generator, pictures: object) -> None:
    side = generator.resolution
    if not isinstance(pictures, Tensor) or pictures.dtype != torch.uint8:
        got = pictures.dtype if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ValueError(
            f"pictures must be a tensor of uint8, 0 … 255; got {got}: higan.population.to_uint8 converts images in "
            "[-1, 1], torch.from_numpy an array"
        )
    if tuple(pictures.shape[1:]) != (3, side, side) or not len(pictures):
        remedy = "open files with higan.photographs.open_photograph"
        if tuple(pictures.shape) == (3, side, side):
            remedy = "picture[None] makes a batch of one"
        raise ValueError(
            f"{generator.name!r} draws pictures of {side} x {side} pixels, so that P of them are (P, 3, {side}, "
            f"{side}); got {tuple(pictures.shape)}: {remedy}"
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
    """How unlike P pictures images are."""

    def __init__(self, target: Tensor, features: Features | None, weight: float) -> None:
        self.target = target
        self._weight = weight
        self._features = features
        with torch.no_grad():
            self._wanted = self._seen(target)

    def __call__(self, images: Float[Tensor, "P 3 H W"]) -> Float[Tensor, " P"]:
        """Of every image from its own picture."""
        return self._unlike(self._seen(images), self._wanted)

    def each(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "P n"]:
        """Of every image from every picture."""
        seen = self._seen(images)
        one_by_one = zip(*(part.split(1) for part in self._wanted), strict=True)
        return torch.stack([self._unlike(seen, wanted) for wanted in one_by_one])

    def _seen(self, images: Tensor) -> list[Tensor]:
        """The pyramid, and the features if there are any."""
        return [*_pyramid(images), *([] if self._features is None else [self._features(images)])]

    def _unlike(self, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        pixels = [(a - b).square().mean((1, 2, 3)) for a, b in zip(seen, wanted, strict=True) if a.ndim == 4]
        total = pixels[0] + torch.stack(pixels).mean(0)
        if self._features is not None:
            scale = wanted[-1].square().mean(1).clamp(min=1e-12)
            total = total + self._weight * (seen[-1] - wanted[-1]).square().mean(1) / scale
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
) -> tuple[Float[Tensor, "P k D"], Float[Tensor, " P"]]:
    """Whitened coordinates to start from, and the errors of the mean code's image."""
    best = torch.zeros(len(loss.target), *space.mean.shape, device=generator.device)
    with torch.no_grad():
        image = generator.synthesize(_full(generator, space, best[:1]))
        least = loss.each(image)[:, 0]
        start_errors = _grey_levels(image, loss.target)
        if candidates:
            seeds = sample_seeds(candidates, seed=seed, purpose="verify", first=2**23)
            for batch in seeds.split(16):
                codes = sample(generator, batch)
                found = loss.each(generator.synthesize(codes)).min(1)
                kept = codes[found.indices, : len(space.mean)]
                near = torch.einsum("nld,lde->nle", kept - space.mean, space.whiten)
                best, least = _better(found.values, least, near, best)
    return best, start_errors


def _better(found: Tensor, least: Tensor, v: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates of the lower loss, picture by picture, and that loss."""
    lower = found < least
    return torch.where(lower[:, None, None], v, best), torch.where(lower, found, least)


def _descend(
    generator: Generator,
    space: CodeSpace,
    loss: _Loss,
    start: Tensor,
    steps: int,
    regularise: float,
    rate: float,
    losses: list[Tensor],
    progress: Progress | None,
    total: int,
) -> Tensor:
    v = start.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([v], lr=rate)
    best, least = v.detach().clone(), torch.full((len(v),), math.inf, device=v.device)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        far = v.square().sum((1, 2))
        if generator.shared_code:
            far = far + (v - v.mean(1, keepdim=True)).square().sum((1, 2))
        far = far / (space.rank.mean().clamp(min=1) * v.shape[1])
        images = generator.synthesize(_full(generator, space, v))
        if not images.requires_grad:
            raise GeneratorError(f"no gradient reaches the codes of {generator.name!r}: it cannot invert pictures")
        value = loss(images) + regularise * far
        best, least = _better(value.detach(), least, v.detach(), best)
        value.sum().backward()
        optimiser.step()
        losses.append(value.detach().cpu())
        if progress is not None:
            progress(len(losses), total)
    return best


def _grey_levels(images: Tensor, target: Tensor) -> Float[Tensor, " P"]:
    """Root mean square error of the pictures that are made of images, which are cut off at -1 and 1."""
    return (images.clamp(-1, 1) - target).square().mean((1, 2, 3)).sqrt() * 127.5
