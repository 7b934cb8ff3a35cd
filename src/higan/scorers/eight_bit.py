"""Convolutions in whole numbers of eight bits, for processors that multiply those fastest (VNNI).

Weights are rounded once, each output channel to 255 steps of its own. What comes in is rounded picture by picture to
255 steps between zero and its largest value, so that nothing has to be calibrated and no picture depends on the others.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["EightBitConv", "available", "in_eight_bits"]


def available() -> bool:
    """Whether torch and the processor have what it takes; without VNNI sums of products would overflow."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    fast = bool(found.get("avx512_vnni") or found.get("avx_vnni"))
    return fast and torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class EightBitConv(nn.Module):
    """A convolution of inputs that are never negative, one picture at a time.

    Args:
        conv: in float32, without dilation or groups.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()
        step = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        whole = (weight / step[:, None, None, None]).round().to(torch.int8)
        self._where = (list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups)
        self._step, self._zero = step, torch.zeros(len(step), dtype=torch.int32)
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._packed = torch.ops.onednn.qconv_prepack(whole, step, 1.0, 0, *self._where)

    def forward(self, x: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 d i j"]:
        """What the convolution gives, to within the rounding."""
        scale = max(float(x.amax()), 1e-12) / 255
        whole = x.mul(1 / scale).add_(0.5).to(torch.uint8)
        found: Tensor = torch.ops.onednn.qconv2d_pointwise(
            whole, scale, 0, self._packed, self._step, self._zero, self._bias, *self._where,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return found


def in_eight_bits(module: nn.Module) -> None:
    """Replace every convolution in a module, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, EightBitConv(child))
        else:
            in_eight_bits(child)
