"""Pictures of a study: edits drawn, catch trials made, both as PNG that tells nothing but its pixels."""

from __future__ import annotations

import io

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from higan.editing import apply
from higan.population import render, sample
from higan.types import Boundary, Edit, Generator
from higan.userstudy.design import Catch

__all__ = ["LARGEST", "altered", "edited", "fitness", "png"]

LARGEST = 512
"""Pictures are shrunk to at most that many pixels a side: what fits a screen twice."""

_TINT = (1.25, 0.72, 1.1)
_LUMINANCE = (0.299, 0.587, 0.114)
_VISIBLE = 12.0


def edited(
    generator: Generator, seed: int, boundary: Boundary | None, strength: float, layers: tuple[int, ...]
) -> UInt8[Tensor, "3 H W"]:
    """A sample, moved along a boundary's normal at some layers; as it is where there is no boundary.

    One picture at a time, so that none depends on the others it is drawn with.
    """
    codes = sample(generator, [seed])
    if boundary is not None:
        codes = apply(codes, [Edit(boundary, strength, layers)])
    return render(generator, codes)[0].cpu()


def altered(image: UInt8[Tensor, "3 H W"], catch: Catch) -> UInt8[Tensor, "3 H W"]:
    """The second picture of a catch trial.

    A mirror image that can hardly be told from its original (a symmetric picture) is turned upside down instead.
    """
    if catch == "same":
        return image.clone()
    if catch == "mirror":
        mirror = image.flip(-1)
        return mirror if _difference(image, mirror) >= _VISIBLE else image.flip(-2)
    grey = (image.double() * torch.tensor(_LUMINANCE, dtype=torch.float64)[:, None, None]).sum(0)
    tinted = grey * torch.tensor(_TINT, dtype=torch.float64)[:, None, None]
    return tinted.round().clamp(0, 255).to(torch.uint8)


def fitness(image: UInt8[Tensor, "3 H W"], catch: Catch) -> float:
    """How clearly a picture shows a catch: the mean difference in grey levels; any picture serves twice the same."""
    return 0.0 if catch == "same" else _difference(image, altered(image, catch))


def _difference(a: Tensor, b: Tensor) -> float:
    difference: Float[Tensor, "3 H W"] = (a.double() - b.double()).abs()
    return float(difference.mean())


def png(image: UInt8[Tensor, "3 H W"]) -> bytes:
    """The picture as PNG without metadata, at most `LARGEST` pixels a side."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if max(picture.size) > LARGEST:
        scale = LARGEST / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
