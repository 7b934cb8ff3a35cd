"""What a segmenter sees, as concepts: the share of pixels that are bed, lamp, curtain …"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from higan.errors import ScorerError
from higan.scorers.rooms import check_images
from higan.types import Concept, Segmenter

__all__ = ["SegmentsScorer", "class_columns", "masks_of"]


def class_columns(segmenter: Segmenter, classes: Sequence[str] | None) -> list[int]:
    """Mask values of these classes; of all where none are given.

    Raises:
        ValueError: the segmenter does not know a class.
    """
    known = [c.name for c in segmenter.classes]
    wanted = known if classes is None else list(classes)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(
            f"{segmenter.name} does not tell {', '.join(map(repr, unknown))} apart; known: {', '.join(known)}"
        )
    return [known.index(name) for name in wanted]


def masks_of(segmenter: Segmenter, images: UInt8[Tensor, "n 3 H W"]) -> Integer[Tensor, "n H W"]:
    """Class of every pixel, which must be one that the segmenter names: pixels of others would count for some picture.

    Raises:
        ScorerError: it is not, or the masks have another shape.
    """
    masks = segmenter.segment(images)
    expected = (len(images), *images.shape[2:])
    if tuple(masks.shape) != expected:
        raise ScorerError(
            f"segmenter {segmenter.name!r} must return masks of shape {expected}; got {tuple(masks.shape)}"
        )
    low, high = (int(end) for end in masks.aminmax()) if masks.numel() else (0, 0)
    if low < 0 or high >= len(segmenter.classes):
        raise ScorerError(
            f"segmenter {segmenter.name!r} names {len(segmenter.classes)} classes, 0 … {len(segmenter.classes) - 1}; "
            f"got {low if low < 0 else high} in a mask. Name a class for pixels that are none"
        )
    return masks


class SegmentsScorer:
    """Concepts ``share of bed`` …, of level ``object``: shares of an image's pixels, 0 … 1.

    Args:
        segmenter: of which pixels belong to what.
        classes: some of its classes; by default all.
        name: what people type.

    Raises:
        ValueError: the segmenter does not know a class.
    """

    def __init__(self, segmenter: Segmenter, classes: Sequence[str] | None = None, *, name: str = "segments") -> None:
        self.name = name
        self.segmenter = segmenter
        self._columns = class_columns(segmenter, classes)
        self.concepts = tuple(Concept(f"share of {segmenter.classes[k].name}", "object") for k in self._columns)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Share of pixels of every class.

        Raises:
            ScorerError: see `masks_of`.
        """
        check_images(images)
        masks = masks_of(self.segmenter, images)
        columns = torch.tensor(self._columns, device=masks.device)
        count = len(self.segmenter.classes)
        # One histogram for the whole batch: image k counts into bins of its own.
        bins = masks.flatten(1).long() + count * torch.arange(len(masks), device=masks.device)[:, None]
        counts = torch.bincount(bins.flatten(), minlength=count * len(masks)).view(len(masks), count)
        return counts[:, columns].float() / masks[0].numel()
