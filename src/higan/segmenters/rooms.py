"""The embedded segmenter: a small encoder-decoder trained on rendered rooms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from higan.errors import CorruptFileError, UnknownFormatError
from higan.types import SegmentClass
from higan.weights import filled, read_weights, write_weights

__all__ = ["RoomsSegmenter", "RoomsSegmenterNetwork"]

FORMAT = "higan-rooms-segmenter-1"
_SIDE = 4  # of the smallest feature maps


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class RoomsSegmenterNetwork(nn.Module):
    """Down to 4 × 4 and back up with skip connections; (n, 3, size, size) → (n, S, size, size) class logits.

    Each of ``widths`` halves the picture, so that their number says the ``size``: 64 pixels for four.
    """

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.size = _SIDE << len(widths)
        self.down = nn.ModuleList()
        inputs = 3
        for width in widths:
            self.down.append(nn.Sequential(_block(inputs, width, 2), _block(width, width)))
            inputs = width
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(_block(inputs + width, width))
            inputs = width
        self.head = nn.Conv2d(inputs, num_classes * 4, 1)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s h w"]:
        """Class logits of every pixel."""
        x, skips = images, []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2, mode="nearest"), skip], 1))
        # Four logits per half-size pixel, one for each of its quarters: thin legs survive at half the cost.
        return nn.functional.pixel_shuffle(self.head(x), 2)


class RoomsSegmenter:
    """Adapter of the ``Segmenter`` protocol around a trained network."""

    def __init__(
        self,
        network: RoomsSegmenterNetwork,
        classes: tuple[SegmentClass, ...],
        *,
        name: str = "rooms",
        device: torch.device | str = "cpu",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if network.num_classes != len(classes):
            raise ValueError(f"the network tells {network.num_classes} classes apart; got {len(classes)} descriptions")
        self.name = name
        self.classes = classes
        self.metadata = dict(metadata or {})
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)

    def segment(self, images: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W"]:
        """Index into ``classes`` of every pixel."""
        return self._logits(images).argmax(1).to(torch.uint8)

    def probabilities(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n S H W"]:
        """Of every class at every pixel."""
        return self._logits(images).softmax(1)

    def _logits(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 of shape (n, 3, H, W); got {images.dtype} of shape {tuple(images.shape)}"
            )
        x = images.to(self.device).float() / 127.5 - 1
        height, width = x.shape[-2:]
        size = (self.network.size, self.network.size)
        resized = (height, width) != size
        if resized:
            x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        if resized:
            logits = nn.functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return logits

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes float16 weights with the classes in the header."""
        tensors = {
            k: v.detach().cpu().half().contiguous() if v.is_floating_point() else v.cpu()
            for k, v in self.network.state_dict().items()
        }
        classes = [[c.name, c.kind, list(c.colour)] for c in self.classes]
        write_weights(path, tensors, {"format": FORMAT, "classes": classes, "metadata": self.metadata})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> RoomsSegmenter:
        """Reads what ``save`` wrote.

        Raises:
            MissingWeightsError: there is no such file.
            UnknownFormatError: the file is not a rooms segmenter.
            CorruptFileError: the file is truncated, or its weights do not fit its header.
        """
        tensors, header = read_weights(path)
        if header.get("format") != FORMAT:
            raise UnknownFormatError(
                f"{path} is not a rooms segmenter: expected {FORMAT!r}, got {header.get('format')!r}"
            )
        try:
            classes = tuple(SegmentClass(n, k, (c[0], c[1], c[2])) for n, k, c in header["classes"])
            down = sorted(k for k in tensors if k.startswith("down.") and k.endswith(".0.0.weight"))
            build = partial(RoomsSegmenterNetwork, len(classes), tuple(tensors[k].shape[0] for k in down))
            network = filled(build, tensors)
            metadata = dict(header["metadata"])
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error
        return cls(network, classes, name=Path(path).stem, device=device, metadata=metadata)
