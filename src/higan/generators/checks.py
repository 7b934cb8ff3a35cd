"""What every adapter refuses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_codes", "check_latents"]


def check_latents(z: Tensor, latent_dim: int) -> None:
    """Refuse latents that do not belong to a generator.

    Raises:
        ValueError: the shape does not fit, or a value is not finite.
    """
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise ValueError(f"latents must have shape (n, {latent_dim}); got {tuple(z.shape)}")
    _check_finite(z, "latents")


def check_codes(codes: Tensor, widths: Sequence[int]) -> None:
    """Refuse codes that do not belong to a generator whose layers have these widths.

    Raises:
        ValueError: the shape does not fit, a value is not finite, or the padding of a narrow layer was touched.
    """
    widest = max(widths)
    if codes.ndim != 3 or codes.shape[1:] != (len(widths), widest):
        raise ValueError(f"codes must have shape (n, {len(widths)}, {widest}); got {tuple(codes.shape)}")
    _check_finite(codes, "codes")
    if min(widths) < widest:
        padding = torch.arange(widest, device=codes.device) >= torch.tensor(list(widths), device=codes.device)[:, None]
        touched = (
            (codes.detach() * padding).abs().amax((0, 2)).nonzero().flatten() if codes.shape[0] else codes[:0, 0, 0]
        )
        if len(touched):
            layer = int(touched[0])
            raise ValueError(
                f"codes must be zero beyond each layer's width; layer {layer} has width {widths[layer]} of {widest}"
            )


def _check_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values.detach()).all()):
        raise ValueError(f"{what} must be finite; got NaN or infinity")
