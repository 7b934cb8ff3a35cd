"""From codes to pictures on a page: drawn, scored, and packed as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from higan.population import render, sample, score
from higan.types import Concept, Generator, Level, Scorer, SegmentClass

__all__ = ["Change", "Drawn", "Easel", "Picture", "Strip", "difference_uri", "mask_uri", "picture_uri"]

LOSSLESS = 64
LARGEST = 192
_BATCH = 8
_CHANGED = (213, 94, 0)


@dataclass(frozen=True, slots=True)
class Change:
    """How far one score moved from the original's, in standard deviations."""

    name: str
    level: Level
    sigma: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with what stands under it. ``framed`` marks the most proper layers."""

    uri: str
    alt: str
    label: str = ""
    changes: tuple[Change, ...] = ()
    framed: bool = False
    difference: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures in a row under one heading; ``rest`` are further rows of the same columns."""

    title: str
    level: Level | None
    note: str
    pictures: tuple[Picture, ...]
    rest: tuple[tuple[Picture, ...], ...] = ()

    @property
    def rows(self) -> tuple[tuple[Picture, ...], ...]:
        """All rows."""
        return (self.pictures, *self.rest)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Images with their scores, one column per concept of the run."""

    images: UInt8[Tensor, "n 3 H W"]
    scores: Float[Tensor, "n C"]


class Easel:
    """Draws and scores codes; keeps a stock of fresh samples to draw from.

    Args:
        generator: draws.
        scorer: scores.
        concepts: the run's concepts: the columns of all scores here.
        std: standard deviation of every score, (C,).
        seeds: the stock: samples that neither probing nor re-scoring has used.

    Raises:
        ValueError: the scorer lacks a concept.
    """

    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        concepts: Sequence[Concept],
        std: Float[Tensor, " C"],
        seeds: Sequence[int],
    ) -> None:
        known = [concept.name for concept in scorer.concepts]
        unknown = [concept.name for concept in concepts if concept.name not in known]
        if unknown:
            raise ValueError(
                f"the run was made with another scorer: {scorer.name!r} does not know {', '.join(unknown)}"
            )
        self.generator = generator
        self.scorer = scorer
        self.concepts = tuple(concepts)
        self.std = std
        self.seeds = tuple(seeds)
        self._columns = [known.index(concept.name) for concept in concepts]
        self.codes = sample(generator, self.seeds)
        self.stock = self.draw(self.codes)

    def draw(self, codes: Float[Tensor, "n L D"]) -> Drawn:
        """Images and scores, on the CPU."""
        images, scores = [], []
        for batch in codes.split(_BATCH):
            drawn = render(self.generator, batch)
            scores.append(score(self.scorer, drawn)[:, self._columns].cpu())
            images.append(drawn.cpu())
        return Drawn(torch.cat(images), torch.cat(scores))

    def typical(self, columns: Sequence[int], num: int) -> list[int]:
        """The ``num`` samples of the stock whose scores lie nearest its medians, so that edits can go both ways."""
        scores = self.stock.scores[:, list(columns)]
        std = self.std[list(columns)]
        away = ((scores - scores.median(0).values).abs() / torch.where(std > 0, std, 1.0)).sum(1)
        return away.argsort(stable=True)[:num].tolist()

    def highest(self, column: int, num: int) -> list[int]:
        """The ``num`` samples of the stock that score highest."""
        return self.stock.scores[:, column].argsort(descending=True, stable=True)[:num].tolist()

    def change(self, column: int, before: Float[Tensor, " C"], after: Float[Tensor, " C"]) -> Change:
        """How far a score moved."""
        std = float(self.std[column])
        concept = self.concepts[column]
        sigma = float(after[column] - before[column]) / std if std > 0 else 0.0
        return Change(concept.name, concept.level, sigma)


def picture_uri(image: UInt8[Tensor, "3 H W"]) -> str:
    """A picture of at most 192 pixels: PNG, pixel by pixel, up to 64 of them, else JPEG to keep the page small."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    if picture.width <= LOSSLESS:
        return _uri(picture, "PNG", optimize=True)
    if picture.width > LARGEST:
        picture = picture.resize((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return _uri(picture, "JPEG", quality=82, optimize=True)


def difference_uri(before: UInt8[Tensor, "3 H W"], after: UInt8[Tensor, "3 H W"]) -> str:
    """Where two pictures differ: one colour, the more opaque the larger the mean difference of a pixel's channels.

    A difference of a quarter of the range is fully opaque; sixteen steps keep the file small.
    """
    far = (after.float() - before.float()).abs().mean(0)
    opacity = (far / 64 * 15).round().clamp(0, 15) * 17
    alpha = Image.fromarray(opacity.to(torch.uint8).cpu().numpy())
    if alpha.width > LARGEST:
        alpha = alpha.resize((LARGEST, LARGEST), Image.Resampling.BOX)
    picture = Image.new("RGBA", alpha.size, (*_CHANGED, 0))
    picture.putalpha(alpha)
    return _uri(picture, "PNG", optimize=True)


def mask_uri(mask: UInt8[Tensor, "H W"], classes: Sequence[SegmentClass]) -> str:
    """A segmentation in the classes' colours."""
    picture = Image.fromarray(np.ascontiguousarray(mask.cpu().numpy()))
    picture.putpalette([value for segment_class in classes for value in segment_class.colour])
    if picture.width > LARGEST:
        picture = picture.resize((LARGEST, LARGEST), Image.Resampling.NEAREST)
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: Image.Image, form: str, **options: bool | int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
