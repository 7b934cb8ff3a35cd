"""`higan.generators.rooms.adain` with a backward pass written by hand: the training step's most expensive small part.

Autograd would keep five feature maps per layer and pass over them a dozen times; this keeps one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["fused_adain"]

_SLOPE = 0.2
_EPSILON = 1e-5


class _FusedAdain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        active = F.leaky_relu(_to_rows(features), _SLOPE)
        mean = _pixel_mean(active, scale)
        # Of the deviations: a mean of squares less the mean's square is all rounding where there is little contrast.
        variance = _pixel_mean((active - _spread(mean, active)).square_(), scale)
        rate = torch.rsqrt(variance + _EPSILON)
        gain = (1 + scale).to(rate.dtype) * rate
        ctx.save_for_backward(active, mean, rate, gain)
        out = active * _spread(gain, active)
        return _from_rows(out.add_(_spread(shift - mean * gain, active)), features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        active, mean, rate, gain = ctx.saved_tensors
        grad = _to_rows(grad_output)
        grad_mean = _pixel_mean(grad, mean)
        # Mean over pixels of gradient × normalised activation.
        correlation = (_pixel_mean(grad * active, mean) - grad_mean * mean) * rate
        slope = -gain * rate * correlation
        offset = -gain * grad_mean - slope * mean
        out = grad * _spread(gain, grad)
        out.add_(active * _spread(slope, grad)).add_(_spread(offset, grad))
        # The sign of the activation is the sign of its input, so the input need not be kept.
        out = torch.ops.aten.leaky_relu_backward(out, active, _SLOPE, True)
        pixels = grad_output.shape[2] * grad_output.shape[3]
        sums = (correlation * pixels).to(grad.dtype), (grad_mean * pixels).to(grad.dtype)
        return _from_rows(out, grad_output), *sums


def _to_rows(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, h, w·c): on channels-last memory a view, on which broadcasting is ten times faster."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)


def _from_rows(rows: Tensor, like: Tensor) -> Tensor:
    n, c, h, w = like.shape
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)


def _pixel_mean(rows: Tensor, like: Tensor) -> Tensor:
    """(n, c) as ``like``, at least in float32.

    Columns are summed in their own dtype (with a wide accumulator inside), their sums in float32: converting the whole
    map first would cost more than the sum, and the columns' rounding errors average out.
    """
    columns = rows.sum(1).view(rows.shape[0], -1, like.shape[1])
    wide = columns.to(torch.promote_types(rows.dtype, torch.float32))
    return wide.sum(1) / (rows.shape[1] * columns.shape[1])


def _spread(values: Tensor, rows: Tensor) -> Tensor:
    """(n, c) repeated to the width of the rows, (n, 1, w·c)."""
    return values.to(rows.dtype).repeat(1, rows.shape[2] // values.shape[1])[:, None]


def fused_adain(
    features: Float[Tensor, "n c h w"], scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"]
) -> Float[Tensor, "n c h w"]:
    """Same values and first derivatives as ``adain``; second derivatives raise an error."""
    out: Tensor = _FusedAdain.apply(features, scale, shift)  # type: ignore[no-untyped-call]
    return out
