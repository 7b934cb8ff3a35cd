"""Scores of what is not there: they vary from picture to picture and change under every edit; nothing raises them."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.types import Concept

__all__ = ["NullScorer"]

_MODULUS = 1_000_003


class NullScorer:
    """C concepts, ``null 0`` … ``null C-1``, each a hash of the pixels of one part of the picture.

    Two pictures that differ anywhere in that part have unrelated scores, roughly uniform with standard deviation one:
    an edit that touches it scrambles the score, and its expected change is zero. Cut off at zero, the change of every
    such edit is positive: 0.58 on average. Even concepts read the whole picture, odd ones a horizontal third of it,
    which only some layers touch.

    Raises:
        ValueError: no concepts.
    """

    def __init__(self, num: int = 6, seed: int = 0) -> None:
        if num < 1:
            raise ValueError(f"there must be at least one concept; got {num}")
        self.name = "nulls"
        self.seed = seed
        self.concepts = tuple(Concept(f"null {k}", "attribute") for k in range(num))

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Between -√3 and √3; the same picture always has the same score."""
        columns = []
        for k in range(len(self.concepts)):
            part = images
            if k % 2:
                third = images.shape[2] / 3
                start = (k // 2) % 3
                part = images[:, :, round(start * third) : round((start + 1) * third)]
            columns.append(self._hash(part.flatten(1), k))
        return torch.stack(columns, 1)

    def _hash(self, pixels: UInt8[Tensor, "n p"], concept: int) -> Float[Tensor, " n"]:
        """A sum of the pixels times random whole numbers, modulo a prime, squared and again: exact on every device."""
        digest = hashlib.sha256(f"{self.seed}:{concept}".encode()).digest()
        dice = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        factors = torch.randint(1, _MODULUS, (pixels.shape[1],), generator=dice).to(pixels.device)
        mixed = (pixels.long() * factors).sum(1) % _MODULUS
        mixed = (mixed * mixed + 12_345) % _MODULUS
        # Not every device has float64.
        return ((mixed.cpu().double() / _MODULUS * 2 - 1) * 3**0.5).float().to(pixels.device)
