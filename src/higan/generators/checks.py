"""What every adapter and every configuration refuses."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

__all__ = ["check_clamp", "check_codes", "check_config", "check_latents", "check_picture"]

_MOST_PIXELS = 4096
_LARGEST = torch.finfo(torch.float32).max
_LARGEST_CLAMP = torch.finfo(torch.float16).max


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


def check_config(config: Any) -> None:
    """Refuse a configuration whose values are not what its fields say: a header may hold anything.

    Raises:
        ValueError: a whole number is negative, another one not finite in float32, or a value of another kind.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _is_a(value, kind):
            shown = kind.__name__ if isinstance(kind, type) else kind
            raise ValueError(
                f"{name} must be {shown}, whole numbers from 0 on and others within float32; got {value!r:.60}"
            )


def _is_a(value: object, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(part, inner[0]) for part in value)
    if origin is types.UnionType:
        return any(_is_a(value, one) for one in inner)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return isinstance(value, kind)


def check_picture(resolution: int, channels: int = 3) -> None:
    """Refuse pictures larger than any network draws, which a header asks for in a few bytes, or of other colours.

    Raises:
        ValueError: there are more than 4096 pixels a side, or neither 1 nor 3 channels.
    """
    if resolution > _MOST_PIXELS or channels not in (1, 3):
        raise ValueError(
            f"pictures have at most {_MOST_PIXELS} pixels a side, and 1 or 3 channels; got {resolution} and {channels}"
        )


def check_clamp(clamp: float | None) -> None:
    """Refuse bounds of activations that are none, or that half precision, which they are for, cannot hold.

    Raises:
        ValueError: the bound is not in (0, 65504].
    """
    if clamp is not None and not 0 < clamp <= _LARGEST_CLAMP:
        raise ValueError(f"clamp must lie in (0, {_LARGEST_CLAMP:.0f}], or be none; got {clamp}")


def _check_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values.detach()).all()):
        raise ValueError(f"{what} must be finite; got NaN or infinity")
