"""Convolutions in whole numbers of eight bits, for processors that multiply those fastest (VNNI).

Weights are rounded once, each output channel to 255 steps of its own. What comes in is rounded picture by picture to
255 steps between zero and its largest value, so that nothing has to be calibrated and no picture depends on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

__all__ = ["EightBitBlock", "EightBitConv", "Rounded", "available", "rounded"]


def available() -> bool:
    """Whether torch and the processor have what it takes; without VNNI sums of products would overflow."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    fast = bool(found.get("avx512_vnni") or found.get("avx_vnni"))
    return fast and torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Numbers of 0 or more in 255 steps of ``scale``."""

    steps: UInt8[Tensor, "1 c h w"]
    scale: float


def rounded(x: Float[Tensor, "1 c h w"]) -> Rounded:
    """One picture's features, to the nearest step."""
    scale = max(float(x.amax()), 1e-12) / 255
    # By way of int32, to which processors convert four times as fast as to bytes.
    return Rounded(torch.add(_HALF, x, alpha=1 / scale).to(torch.int32).to(torch.uint8), scale)


_HALF = torch.tensor(0.5)


class EightBitConv(nn.Module):
    """A convolution of one picture's rounded features.

    Args:
        conv: in float32, without dilation or groups.
        relu: whether negative results become zero.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        weight = conv.weight.detach()
        step = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        whole = (weight / step[:, None, None, None]).round().to(torch.int8)
        self._where = (list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups)
        self._step, self._zero = step, torch.zeros(len(step), dtype=torch.int32)
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._packed = torch.ops.onednn.qconv_prepack(whole, step, 1.0, 0, *self._where)
        self._after = "relu" if relu else "none"

    def forward(self, x: Rounded) -> Float[Tensor, "1 d i j"]:
        """What the convolution gives, to within the rounding."""
        found: Tensor = torch.ops.onednn.qconv2d_pointwise(
            x.steps, x.scale, 0, self._packed, self._step, self._zero, self._bias, *self._where,
            1.0, 0, torch.float32, self._after, [], "",
        )  # fmt: skip
        return found


class EightBitBlock(nn.Module):
    """A residual block: convolutions with a ReLU after each, the last one's after the shortcut is added.

    Args:
        convs: one after the other.
        shortcut: of the block's input; None adds the input itself.
    """

    def __init__(self, convs: Sequence[nn.Conv2d], shortcut: nn.Conv2d | None) -> None:
        super().__init__()
        last = len(convs) - 1
        self.convs = nn.ModuleList(EightBitConv(conv, relu=k < last) for k, conv in enumerate(convs))
        self.shortcut = None if shortcut is None else EightBitConv(shortcut)

    def forward(self, x: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 d i j"]:
        """What the block gives, to within the rounding."""
        given = rounded(x)
        y = self.convs[0](given)
        for conv in self.convs[1:]:
            y = conv(rounded(y))
        return torch.relu_(y.add_(x if self.shortcut is None else self.shortcut(given)))
