"""Colour scheme, computed from pixels: no weights, any picture.

Averages over the picture in CIE L*a*b* (D65), where equal steps look equally large.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.scorers.rooms import check_images
from higan.types import Concept

__all__ = ["ColourScorer", "srgb_to_lab"]

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def srgb_to_lab(images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """sRGB bytes → CIE L*a*b*: L* in 0 … 100, a* green to red, b* blue to yellow."""
    levels = torch.arange(256, device=images.device, dtype=torch.float32) / 255
    linear = torch.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    rgb = linear[images.long()]
    matrix = torch.tensor(_TO_XYZ, device=images.device) / torch.tensor(_WHITE, device=images.device)[:, None]
    xyz = torch.einsum("ij,njhw->nihw", matrix, rgb)
    delta = 6 / 29
    f = torch.where(xyz > delta**3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


class ColourScorer:
    """The colour scheme of whole pictures: ``warm_colours``, ``red_colours``, ``colourfulness``, ``lightness``.

    ``warm_colours`` is the mean of b* (blue → yellow), ``red_colours`` of a* (green → red), ``colourfulness`` of the
    chroma, ``lightness`` of L*.
    """

    name = "colour"
    concepts = tuple(Concept(name, "colour") for name in ("warm_colours", "red_colours", "colourfulness", "lightness"))

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Scores in units of CIE L*a*b*, on the images' device."""
        check_images(images)
        lab = srgb_to_lab(images)
        lightness, red, yellow = lab.mean((2, 3)).unbind(1)
        chroma = (lab[:, 1] ** 2 + lab[:, 2] ** 2).sqrt().mean((1, 2))
        return torch.stack([yellow, red, chroma, lightness], 1)
