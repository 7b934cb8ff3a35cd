"""Predictor of the transparent generator's factors from its pictures: a small network, right but not exact.

A method that reads scores faces what it faces everywhere else, a predictor with errors; the exact values are the
generator's own to tell, and only a judge asks it for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from higan.errors import CorruptFileError, UnknownFormatError
from higan.types import Concept
from higan.weights import read_weights, write_weights

__all__ = ["TransparentScorer", "TransparentScorerNetwork"]

FORMAT = "higan-transparent-scorer-1"
_SIZE = 32


class TransparentScorerNetwork(nn.Module):
    """Four convolutions down to 4 × 4, then two linear layers: (n, 3, 32, 32) in [-1, 1] → (n, C)."""

    def __init__(self, num_outputs: int, widths: Sequence[int] = (16, 24, 32, 48), features: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 3
        for width, stride in zip(widths, (1, 2, 2, 2), strict=True):
            blocks += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.trunk = nn.Sequential(*blocks, nn.Flatten())
        self.project = nn.Linear(inputs * 16, features)
        self.head = nn.Linear(features, num_outputs)

    def forward(self, images: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n C"]:
        """Values of the factors, between -1 and 1 up to the network's error."""
        return self.head(torch.relu(self.project(self.trunk(images))))


class TransparentScorer:
    """Adapter of the ``Scorer`` protocol: one score per factor, in the generator's own unit, -1 to 1.

    Args:
        network: trained for ``concepts``; put into evaluation mode.
        concepts: one per output.
        device: where the network lives; images are expected there.
        metadata: what the weight file says about its making: data, correlation with the truth per factor.
    """

    def __init__(
        self,
        network: TransparentScorerNetwork,
        concepts: Sequence[Concept],
        *,
        device: torch.device | str = "cpu",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if network.head.out_features != len(concepts):
            raise ValueError(f"the network has {network.head.out_features} outputs; got {len(concepts)} concepts")
        self.name = "transparent"
        self.concepts = tuple(concepts)
        self.metadata = dict(metadata or {})
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Estimated values; pictures of other sizes are averaged down or enlarged to 32 × 32."""
        scaled = images.to(self.device).float() / 127.5 - 1
        if scaled.shape[-1] != _SIZE or scaled.shape[-2] != _SIZE:
            scaled = nn.functional.interpolate(scaled, (_SIZE, _SIZE), mode="bilinear", antialias=True)
        return self.network(scaled)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes float16 weights with the concepts in the header."""
        tensors = {k: v.detach().cpu() for k, v in self.network.state_dict().items()}
        tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
        header = {"format": FORMAT, "concepts": [asdict(c) for c in self.concepts], "metadata": self.metadata}
        write_weights(path, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> TransparentScorer:
        """Reads what ``save`` wrote.

        Raises:
            MissingWeightsError: there is no such file.
            UnknownFormatError: the file is not a scorer of the transparent generator.
            CorruptFileError: the file is truncated, or its weights do not fit its header.
        """
        tensors, header = read_weights(path)
        if header.get("format") != FORMAT:
            raise UnknownFormatError(f"{path}: expected {FORMAT!r}, got {header.get('format')!r}")
        try:
            concepts = [Concept(**c) for c in header["concepts"]]
            network = TransparentScorerNetwork(len(concepts))
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error
        return cls(network, concepts, device=device, metadata=header["metadata"])
