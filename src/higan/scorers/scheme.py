"""The colour scheme of whole pictures and of their parts, such as the colour of the wall: no weights, any picture.

Measured in CIE L*a*b* (see `higan.scorers.colour`), with chroma C = √(a² + b²) and hue angle h = atan2(b, a). All
measures follow from weighted means over pixels, so that any number of regions costs one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.scorers.colour import srgb_to_lab
from higan.scorers.rooms import check_images
from higan.scorers.segments import class_columns, masks_of
from higan.types import Concept, Segmenter

__all__ = ["HUES", "MEASURES", "ColourSchemeScorer", "Palette", "dominant_hue", "palette", "scheme"]

HUES = {"red": 40.0, "yellow": 95.0, "green": 145.0, "cyan": 210.0, "blue": 280.0, "purple": 330.0}
"""Hue angles of CIE L*a*b*, in degrees, that people call by these names."""
MEASURES = ("saturation", "lightness", "warmth", "contrast", *HUES)
_WARM = math.radians(60.0)  # orange; its opposite is a cold blue
_BINS = 16


def scheme(images: UInt8[Tensor, "n 3 H W"], weights: Float[Tensor, "n r H W"] | None = None) -> Float[Tensor, "n r m"]:
    """The measures `MEASURES` of every region.

    - ``saturation``: mean chroma;
    - ``lightness``: mean L*, 0 … 100;
    - ``warmth``: mean of C·cos(h − 60°), orange against blue;
    - ``contrast``: standard deviation of L*;
    - ``red`` … ``purple``: mean of C·max(cos 2(h − h₀), 0)², h within 45° of the name's angle h₀: how much
      of that colour there is.

    Args:
        images: n images.
        weights: how much every pixel counts for every region, 0 or more; by default one region, the whole picture.

    Raises:
        ValueError: the weights are of another size, negative, or zero for a whole region.
    """
    check_images(images)
    lab = srgb_to_lab(images)
    lightness, a, b = lab.unbind(1)
    chroma, hue = torch.hypot(a, b), torch.atan2(b, a)
    columns = [chroma, lightness, chroma * torch.cos(hue - _WARM)]
    named = [chroma * _near(hue, math.radians(angle)) for angle in HUES.values()]
    parts = None if weights is None else _parts(images, weights)

    def mean(values: Float[Tensor, "n #r p"]) -> Float[Tensor, "n r"]:
        return values.mean(2) if parts is None else (parts * values).sum(2)

    means, colours = ([mean(column.flatten(1)[:, None]) for column in some] for some in (columns, named))
    # About the mean: the difference of two large squares would be rounding in float32.
    spread = mean((lightness.flatten(1)[:, None] - means[1][..., None]).square()).sqrt()
    return torch.stack([*means, spread, *colours], -1)


def _parts(images: UInt8[Tensor, "n 3 H W"], weights: Float[Tensor, "n r H W"]) -> Float[Tensor, "n r p"]:
    """Weights that sum to one over each region."""
    if weights.shape[0] != len(images) or weights.shape[2:] != images.shape[2:]:
        raise ValueError(f"weights must be (n, r, H, W) of the images; got {tuple(weights.shape)}")
    flat = weights.flatten(2)
    total = flat.sum(2, keepdim=True)
    if bool((weights < 0).any()) or bool((total <= 0).any()):
        raise ValueError("weights must be 0 or more, and above 0 somewhere in every region")
    return flat / total


def _near(hue: Tensor, centre: float) -> Tensor:
    """1 at the centre, falling to 0 at 45° from it."""
    away = torch.remainder(hue - centre + math.pi, 2 * math.pi) - math.pi
    return torch.where(away.abs() < math.pi / 4, torch.cos(2 * away).square(), 0.0)


def dominant_hue(
    images: UInt8[Tensor, "n 3 H W"], weights: Float[Tensor, "n r H W"] | None = None
) -> Float[Tensor, "n r"]:
    """Hue angle in degrees, 0 … 360, around which most chroma gathers: the peak of a smoothed histogram of 72 bins.

    A grey region has no hue; it gets 0.
    """
    check_images(images)
    _, a, b = srgb_to_lab(images).flatten(2).unbind(1)
    chroma = torch.hypot(a, b)
    bins = 72
    index = (torch.remainder(torch.atan2(b, a), 2 * math.pi) / (2 * math.pi) * bins).long().clamp(max=bins - 1)
    masses = chroma[:, None] if weights is None else chroma[:, None] * weights.flatten(2)
    counts = torch.zeros(*masses.shape[:2], bins, device=images.device)
    counts.scatter_add_(2, index[:, None].expand_as(masses), masses)
    # Whole bytes first: two ways to add the same numbers up should not differ by which bin is the largest.
    smooth = sum(counts.roll(shift, 2) * share for shift, share in ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1)))
    peak = torch.as_tensor(smooth).argmax(2)
    angle = (peak + 0.5) * 360 / bins
    pixels = masses.shape[2] if weights is None else weights.flatten(2).sum(2)
    return torch.where(masses.sum(2) > pixels * 1e-3, angle, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """The k main colours of every image, the most frequent first."""

    colours: UInt8[Tensor, "n k 3"]
    shares: Float[Tensor, "n k"]
    """Share of pixels each stands for; 0 where an image has fewer colours."""


def palette(images: UInt8[Tensor, "n 3 H W"], num: int = 5, steps: int = 8) -> Palette:
    """Main colours: k-means in CIE L*a*b* over a 16 × 16 × 16 histogram of the bytes.

    Deterministic: the first centre is the fullest bin, every further one the bin with the most pixels times squared
    distance to the centres so far; bins are counted and averaged in whole numbers.

    Args:
        images: n images.
        num: k.
        steps: of k-means.

    Raises:
        ValueError: fewer than 1 colour.
    """
    check_images(images)
    if num < 1:
        raise ValueError(f"a palette needs at least 1 colour; got {num}")
    pixels = images.flatten(2).long()
    red, green, blue = (pixels * _BINS // 256).unbind(1)
    index = (red * _BINS + green) * _BINS + blue
    counts = torch.zeros(len(images), _BINS**3, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, index, torch.ones_like(index))
    sums = torch.zeros(len(images), _BINS**3, 3, dtype=torch.long, device=images.device)
    sums.scatter_add_(1, index[..., None].expand(-1, -1, 3), pixels.transpose(1, 2))
    means = (sums / counts.clamp(min=1)[..., None]).round().to(torch.uint8)
    lab = srgb_to_lab(means.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    mass = counts.float()

    rows = torch.arange(len(images), device=images.device)
    centres = lab[rows, counts.argmax(1)][:, None]
    for _ in range(1, num):
        away = torch.cdist(lab, centres).amin(2).square()
        centres = torch.cat([centres, lab[rows, (mass * away).argmax(1)][:, None]], 1)
    member = torch.zeros_like(index[:, :1])
    for _ in range(steps):
        member = torch.nn.functional.one_hot(torch.cdist(lab, centres).argmin(2), num).float() * mass[..., None]
        total = member.sum(1)
        moved = torch.einsum("nbk,nbc->nkc", member, lab) / total.clamp(min=1)[..., None]
        centres = torch.where(total[..., None] > 0, moved, centres)
    total = member.sum(1)
    colours = torch.einsum("nbk,nbc->nkc", member, means.float()) / total.clamp(min=1)[..., None]
    order = torch.sort(total, dim=1, descending=True, stable=True).indices
    shares = total.gather(1, order) / pixels.shape[2]
    return Palette(colours.round().to(torch.uint8).gather(1, order[..., None].expand(-1, -1, 3)), shares)


class ColourSchemeScorer:
    """Concepts of level ``colour``: `MEASURES` of the picture, or of regions of it (``wall warmth``).

    A region that an image lacks gets the figures of the whole picture, and one of a few pixels lies in between: all
    pixels count a ten-thousandth towards every region.

    Args:
        segmenter: of which pixels belong to what; without it, the whole picture is the one region.
        classes: the regions, by their names; by default all that the segmenter knows.
        name: what people type.

    Raises:
        ValueError: classes without a segmenter, or unknown to it.
    """

    def __init__(
        self, segmenter: Segmenter | None = None, classes: Sequence[str] | None = None, *, name: str = "scheme"
    ) -> None:
        if segmenter is None and classes is not None:
            raise ValueError("regions need a segmenter; pass segmenter=higan.load_segmenter('rooms') or another")
        self.name = name
        self.segmenter = segmenter
        self._columns = [] if segmenter is None else class_columns(segmenter, classes)
        regions = [f"{segmenter.classes[k].name} " for k in self._columns] if segmenter else [""]
        self.concepts = tuple(Concept(f"{region}{measure}", "colour") for region in regions for measure in MEASURES)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The measures of every region, in units of CIE L*a*b*.

        Raises:
            ScorerError: see `higan.scorers.segments.masks_of`.
        """
        check_images(images)
        if self.segmenter is None:
            return scheme(images)[:, 0]
        masks = masks_of(self.segmenter, images).to(images.device)
        wanted = torch.tensor(self._columns, device=masks.device)
        weights = (masks[:, None] == wanted[:, None, None]).float() + 1e-4
        return scheme(images, weights).flatten(1)
