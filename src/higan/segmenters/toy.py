"""A segmenter whose answers are known by hand: it tells the toy generator's dark strips from its bright ones."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from higan.types import SegmentClass

__all__ = ["ToySegmenter"]


class ToySegmenter:
    """Classes of the strips of `higan.generators.toy.ToyGenerator`.

    Class 0 is ``ground``, stuff: the noisy strip and the one that never changes. Strip l < L is a thing of its own:
    class 2l + 1, ``dark l``, where it is darker than mid-grey, class 2l + 2, ``bright l``, where it is not. An edit
    along direction l at layer l therefore swaps one thing for the other in exactly the samples whose ψ_l · code_l · d_l
    changes its sign, and leaves every other pixel's class alone.

    Raises:
        ValueError: the image has fewer pixels than strips.
    """

    def __init__(self, num_layers: int = 6, resolution: int = 8) -> None:
        if resolution**2 < num_layers + 2:
            raise ValueError(f"{num_layers + 2} strips need as many pixels; got {resolution}x{resolution}")
        self.name = "toy"
        self.num_layers = num_layers
        shades = [220 * k // max(num_layers - 1, 1) for k in range(num_layers)]
        pairs = [
            (SegmentClass(f"dark {k}", "thing", (s, 40, 160)), SegmentClass(f"bright {k}", "thing", (s, 200, 90)))
            for k, s in enumerate(shades)
        ]
        ground = SegmentClass("ground", "stuff", (128, 128, 128))
        self.classes = (ground, *(one for pair in pairs for one in pair))
        self._strip = torch.arange(resolution**2) * (num_layers + 2) // resolution**2

    def segment(self, images: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W"]:
        """One class per strip."""
        # Not every device has float64.
        grey = images.cpu().double().mean(1).flatten(1) - 127.5
        member = torch.nn.functional.one_hot(self._strip).T.double()
        bright = (grey[:, None] * member).sum(-1) >= 0
        index = torch.arange(self.num_layers)
        of_strip = torch.zeros(len(images), len(member), dtype=torch.long)
        of_strip[:, : self.num_layers] = 1 + 2 * index + bright[:, : self.num_layers].long()
        classes = of_strip[:, self._strip].reshape(len(images), *images.shape[2:])
        return classes.to(images.device, torch.uint8)
