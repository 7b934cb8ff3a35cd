"""The embedded scorer: a small network trained on rendered rooms, one output per concept.

It reads 64 × 64 or 128 × 128 pixels, as it was trained; larger pictures are averaged down, smaller ones enlarged. Its
penultimate features serve as the feature space of the Fréchet distances reported for the embedded generators.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from higan.errors import CorruptFileError, UnknownFormatError
from higan.types import Concept, Level
from higan.weights import filled, read_weights, write_weights

__all__ = ["Output", "RoomsScorer", "RoomsScorerNetwork", "fit_size"]

FORMAT = "higan-rooms-scorer-1"
_SIDE = 4  # of the last feature maps
Kind = Literal["scale", "binary", "category"]


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the network.

    ``scale`` predicts a number (``offset`` + ``spread`` × output), ``binary`` the log-odds of presence; ``category``
    outputs compete in one softmax, their score is the log-odds of the class.
    """

    name: str
    level: Level
    kind: Kind
    offset: float = 0.0
    spread: float = 1.0
    shown: bool = True
    """Whether it is offered as a concept; outputs that are not reliable enough only help the training."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}; got {self.kind!r}")


def fit_size(images: UInt8[Tensor, "n 3 H W"], size: int) -> Float[Tensor, "n 3 size size"]:
    """Images in [-1, 1] at the network's size, averaged down or enlarged bilinearly."""
    scaled = images.float() / 127.5 - 1
    height, width = scaled.shape[-2:]
    if (height, width) == (size, size):
        return scaled
    if height % size == 0 and width % size == 0:
        return nn.functional.avg_pool2d(scaled, (height // size, width // size))
    return nn.functional.interpolate(scaled, (size, size), mode="bilinear", antialias=True, align_corners=False)


def check_images(images: object) -> None:
    """The one image contract: uint8 RGB, (n, 3, H, W).

    Raises:
        ValueError: anything else; the message says how to convert it.
    """
    if not isinstance(images, Tensor):
        convert = "torch.from_numpy makes a tensor of an array, torch.stack one of a list of tensors"
        raise ValueError(  # noqa: TRY004 - one error for whatever is no picture
            f"images must be a tensor, uint8 of shape (n, 3, H, W); got {type(images).__name__}. {convert}"
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images must be uint8 of shape (n, 3, H, W); got {images.dtype} of shape {tuple(images.shape)}. "
            f"{'; '.join(_conversions(images))}"
        )


def _conversions(images: Tensor) -> list[str]:
    """What makes uint8 (n, 3, H, W) of them, as far as one can tell."""
    steps = []
    if images.ndim == 3:
        steps.append("images[None] makes a batch of one image")
    if images.ndim in (3, 4) and images.shape[-1] == 3 != images.shape[-3]:
        steps.append("images.permute(0, 3, 1, 2) puts the channels of a batch first")
    elif images.ndim in (3, 4) and images.shape[-3] == 1:
        steps.append("images.expand(-1, 3, -1, -1) makes a batch of grey images RGB")
    if images.is_floating_point() and images.numel():
        low, high = float(images.min()), float(images.max())
        if low < 0:
            steps.append("higan.population.to_uint8 converts images in [-1, 1]")
        elif high <= 1:
            steps.append("(images * 255).round().to(torch.uint8) converts images in [0, 1]")
        else:
            steps.append("images.round().clamp(0, 255).to(torch.uint8) converts images in [0, 255]")
    elif images.dtype != torch.uint8:
        steps.append("images.to(torch.uint8) converts whole numbers in 0 … 255")
    return steps or ["Give RGB pictures with the channels second"]


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class RoomsScorerNetwork(nn.Module):
    """Convolutions down to 4 × 4, then two linear layers: (n, 3, size, size) → (n, O) raw outputs.

    Each of ``widths`` halves the picture, so that their number says the ``size`` it takes: 64 pixels for four.
    """

    def __init__(self, num_outputs: int, widths: tuple[int, ...] = (32, 64, 96, 128), features: int = 192) -> None:
        super().__init__()
        blocks = []
        inputs = 3
        for index, width in enumerate(widths):
            blocks.append(_block(inputs, width, 2))
            if index:
                blocks.append(_block(width, width, 1))
            inputs = width
        self.size = _SIDE << len(widths)
        self.trunk = nn.Sequential(*blocks, nn.Flatten())
        self.project = nn.Linear(inputs * _SIDE * _SIDE, features)
        self.head = nn.Linear(features, num_outputs)

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """The layer before the outputs."""
        return torch.relu(self.project(self.trunk(images)))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n o"]:
        """Raw outputs: standardised numbers and logits."""
        return self.head(self.features(images))


class RoomsScorer:
    """Adapter of the ``Scorer`` protocol around a trained network.

    Args:
        network: trained for ``outputs``; put into evaluation mode.
        outputs: one per column of the network.
        name: what people type.
        device: where the network lives; images are expected there.
        metadata: what the weight file says about its making: data, quality per concept.
    """

    def __init__(
        self,
        network: RoomsScorerNetwork,
        outputs: tuple[Output, ...],
        *,
        name: str = "rooms",
        device: torch.device | str = "cpu",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if network.head.out_features != len(outputs):
            raise ValueError(f"the network has {network.head.out_features} outputs; got {len(outputs)} descriptions")
        self.name = name
        self.outputs = outputs
        self.concepts = tuple(Concept(o.name, o.level) for o in outputs if o.shown)
        self.metadata = dict(metadata or {})
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._shown = torch.tensor([o.shown for o in outputs], device=self.device)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Numbers in the units of the ground truth, log-odds for presence and category."""
        return self.predict(images)[:, self._shown]

    def predict(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n o"]:
        """All outputs, shown as concepts or not."""
        check_images(images)
        return decode(self.network(self._prepared(images)), self.outputs)

    def features(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n f"]:
        """Penultimate features, the space of the reported Fréchet distances."""
        check_images(images)
        return self.network.features(self._prepared(images))

    def _prepared(self, images: Tensor) -> Tensor:
        return fit_size(images.to(self.device), self.network.size).contiguous(memory_format=torch.channels_last)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes float16 weights with the description of every output in the header."""
        tensors = {k: _half(v) for k, v in self.network.state_dict().items()}
        header = {"format": FORMAT, "outputs": [asdict(o) for o in self.outputs], "metadata": self.metadata}
        write_weights(path, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> RoomsScorer:
        """Reads what ``save`` wrote.

        Raises:
            MissingWeightsError: there is no such file.
            UnknownFormatError: the file is not a rooms scorer.
            CorruptFileError: the file is truncated, or its weights do not fit its header.
        """
        tensors, header = read_weights(path)
        if header.get("format") != FORMAT:
            raise UnknownFormatError(f"{path} is not a rooms scorer: expected {FORMAT!r}, got {header.get('format')!r}")
        try:
            outputs = tuple(Output(**o) for o in header["outputs"])
            widths = _widths(tensors)
            build = partial(RoomsScorerNetwork, len(outputs), widths, tensors["project.weight"].shape[0])
            network = filled(build, tensors)
            metadata = dict(header["metadata"])
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error
        return cls(network, outputs, name=Path(path).stem, device=device, metadata=metadata)


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor.cpu()


def _widths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Widths of the trunk, read off its convolutions: one for the first block, then pairs."""
    outputs = [v.shape[0] for k, v in sorted(tensors.items(), key=_block_number) if v.ndim == 4]
    if not outputs:
        raise ValueError("it has no convolutions")
    return (outputs[0], *outputs[1::2])


def _block_number(item: tuple[str, Tensor]) -> int:
    parts = item[0].split(".")
    return int(parts[1]) if parts[0] == "trunk" else 1_000


def decode(raw: Float[Tensor, "n o"], outputs: tuple[Output, ...]) -> Float[Tensor, "n o"]:
    """Raw outputs of the network as scores."""
    categories = [i for i, o in enumerate(outputs) if o.kind == "category"]
    scale = torch.tensor([o.spread if o.kind == "scale" else 1.0 for o in outputs], device=raw.device)
    offset = torch.tensor([o.offset if o.kind == "scale" else 0.0 for o in outputs], device=raw.device)
    scores = raw * scale + offset
    for i in categories:
        others = [j for j in categories if j != i]
        scores[:, i] = raw[:, i] - torch.logsumexp(raw[:, others], 1)
    return scores
