"""A scorer whose answers are known by hand: it reads back what the toy generator planted."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.errors import ScorerError
from higan.types import LEVELS, Concept

__all__ = ["ToyScorer"]

_SQUASH = 4.0


class ToyScorer:
    """Reads the L + 2 strips of `higan.generators.toy.ToyGenerator` from its 8-bit images.

    Concepts are ``planted 0`` … ``planted L-1``, in the four levels from coarse to fine, then ``noise`` and
    ``constant``, which nothing controls. With b the mean brightness of a strip in [-1, 1], the score is

    - 4 · atanh(b), that is ψ_l · code_l · d_l, for a planted concept: standard deviation ψ_l, and an edit of λ along
      d_l at layer l changes it by ψ_l · λ for every sample;
    - b itself with ``saturating=True``: the change then differs from sample to sample, with mean
      E[tanh(ψ (p + λ) / 4) - tanh(ψ p / 4)] over p ~ N(0, 1);
    - b for ``noise`` and ``constant``: the change of the first is zero on average, yet above zero once truncated,
      whatever the edit; the second has no variance at all.

    Raises:
        ValueError: the image has fewer pixels than strips.
    """

    def __init__(self, num_layers: int = 6, resolution: int = 8, *, saturating: bool = False) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        if resolution**2 < num_layers + 2:
            raise ValueError(f"{num_layers + 2} strips need as many pixels; got {resolution}x{resolution}")
        self.name = "toy"
        planted = (Concept(f"planted {k}", LEVELS[k * len(LEVELS) // num_layers]) for k in range(num_layers))
        self.concepts = (*planted, Concept("noise", "attribute"), Concept("constant", "attribute"))
        self.resolution = resolution
        self.saturating = saturating
        strip = torch.arange(resolution**2) * (num_layers + 2) // resolution**2
        member = torch.nn.functional.one_hot(strip).T.double()
        self._weights = member / member.sum(1, keepdim=True)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """One number per strip."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ScorerError(
                f"the toy scorer reads {self.resolution}x{self.resolution} pixels, as the toy generator draws them; "
                f"got {images.shape[-2]}x{images.shape[-1]}"
            )
        # Not every device has float64.
        grey = images.cpu().double().mean(1).flatten(1) / 127.5 - 1
        # Rows times a mask, not a matrix product: the sum of one image must not depend on the others in the batch.
        brightness = (grey[:, None] * self._weights).sum(-1)
        if not self.saturating:
            decoded = _SQUASH * torch.atanh(brightness[:, :-2].clamp(-0.999, 0.999))
            brightness = torch.cat([decoded, brightness[:, -2:]], 1)
        return brightness.float().to(images.device)
