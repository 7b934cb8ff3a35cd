"""A generator whose answers are known by hand: layer l plants direction l."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from higan.generators.checks import check_codes, check_latents

__all__ = ["ToyGenerator"]

_SQUASH = 4.0
_NOISE_FREQUENCY = 40.0


class ToyGenerator:
    """L + 2 horizontal strips of grey: one per layer, one of noise, one that never changes.

    The pixels of a (resolution × resolution) image, read row by row, are cut into L + 2 equal runs. With orthonormal
    ``directions`` d_0 … d_L of width D and the factor ``truncation`` ψ_l:

    - strip l < L shows tanh(ψ_l · code_l · d_l / 4): brighter as the code of layer l moves along d_l, else blind;
    - strip L shows sin(40 · Σ_l ψ_l · code_l · d_L) / 2: every edit scrambles it, none controls it;
    - strip L + 1 is mid-grey for ever.

    Codes are standard normal. `higan.scorers.toy.ToyScorer` reads the strips back, so that a step of λ along d_l at
    layer l raises score l by exactly ψ_l · λ and leaves every other layer's score as it was.

    Args:
        num_layers: L.
        code_dim: D, at least L + 1.
        resolution: H = W; the image needs at least one pixel for each of L + 2 strips.
        shared_code: whether all layers share one code, as in W space.
        psi: truncation of the first ``psi_layers`` layers.
        psi_layers: how many layers are truncated; all of them if None.
        seed: chooses the directions.
        device: where codes and images live.

    Raises:
        ValueError: too few code dimensions or pixels.
    """

    def __init__(
        self,
        num_layers: int = 6,
        code_dim: int = 16,
        resolution: int = 8,
        *,
        shared_code: bool = False,
        psi: float = 1.0,
        psi_layers: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        if code_dim < num_layers + 1:
            raise ValueError(f"code_dim must be at least num_layers + 1 = {num_layers + 1}; got {code_dim}")
        if resolution**2 < num_layers + 2:
            raise ValueError(f"{num_layers + 2} strips need as many pixels; got {resolution}x{resolution}")
        self.name = "toy"
        self.num_layers = num_layers
        self.code_dim = code_dim
        self.latent_dim = code_dim if shared_code else num_layers * code_dim
        self.resolution = resolution
        self.shared_code = shared_code
        self.device = torch.device(device)
        truncated = num_layers if psi_layers is None else psi_layers
        self.truncation: Tensor = torch.where(torch.arange(num_layers) < truncated, psi, 1.0).to(self.device)
        square = torch.randn(code_dim, code_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.directions: Tensor = torch.linalg.qr(square).Q.T[: num_layers + 1].float().to(self.device)
        """Orthonormal rows (L + 1, D): one per layer, then the one the noise depends on."""
        pixels = torch.arange(resolution**2)
        self._strip = (pixels * (num_layers + 2) // resolution**2).to(self.device)
        self._dither = _dither(self._strip)

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """Standard normal, one generator per seed."""
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device) if rows else torch.empty(0, self.latent_dim, device=self.device)

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n L D"]:
        """The latent itself: repeated over layers in a shared space, else cut into one piece per layer.

        Raises:
            ValueError: the latents have another shape or are not finite.
        """
        check_latents(z, self.latent_dim)
        if self.shared_code:
            return z[:, None].expand(-1, self.num_layers, -1).clone()
        return z.reshape(-1, self.num_layers, self.code_dim)

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Grey strips in [-1, 1].

        Raises:
            ValueError: the codes have another shape or are not finite.
        """
        check_codes(codes, [self.code_dim] * self.num_layers)
        truncated = codes * self.truncation[:, None]
        planted = torch.tanh((truncated * self.directions[:-1]).sum(-1) / _SQUASH)
        noise = torch.sin(_NOISE_FREQUENCY * (truncated * self.directions[-1]).sum((1, 2))) / 2
        strips = torch.cat([planted, noise[:, None], torch.zeros_like(noise)[:, None]], 1)
        grey = strips[:, self._strip] + self._dither
        return grey.reshape(-1, 1, self.resolution, self.resolution).expand(-1, 3, -1, -1).clamp(-1, 1)


def _dither(strip: Tensor) -> Tensor:
    """Offsets of less than one grey level, evenly spread within a strip, so that its mean survives 8-bit rounding."""
    count = torch.bincount(strip)[strip]
    first = torch.searchsorted(strip, strip)
    position = torch.arange(strip.numel(), device=strip.device) - first
    return ((position + 0.5) / count - 0.5) / 127.5
