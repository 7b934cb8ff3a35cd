"""Scene categories and attributes: the networks of Places365 with the 102 SUN attributes on their features.

The official HiGAN tool scores with the wide ResNet18 of Zhou et al. (2017), a ResNet18 without max-pooling, so that
its last maps are 14 × 14. Category scores are the softmax over 365 categories; attribute scores are ``features · Wᵀ``
with W (102, 512), unbounded, without bias or sigmoid. Images are squashed to 224 × 224 and normalised with ImageNet's
mean and standard deviation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from higan.checkpoints import npy
from higan.checkpoints.read import read
from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.preprocessing import Preprocessing
from higan.scorers import eight_bit
from higan.scorers.labels import plain_name, read_names
from higan.scorers.rooms import check_images
from higan.types import Concept

__all__ = ["ATTRIBUTE_MATRIX", "PUBLISHED", "Layout", "PlacesNetwork", "PlacesScorer"]

Layout = Literal["wideresnet18", "resnet18", "resnet50"]
Precision = Literal["float32", "bfloat16", "int8"]

_NAMES = Path(__file__).with_name("names")
_HOST = "http://places2.csail.mit.edu/models_places365"
PUBLISHED: Mapping[Layout, str] = {name: f"{_HOST}/{name}_places365.pth.tar" for name in get_args(Layout)}
"""Where the authors published the weights."""
ATTRIBUTE_MATRIX = f"{_HOST}/W_sceneattribute_wideresnet18.npy"
"""Where the authors published W, which fits the features of ``wideresnet18``."""


class _Block(nn.Module):
    """Residual block of He et al. (2016): two 3 × 3 convolutions, or a bottleneck of 1 × 1, 3 × 3, 1 × 1."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False) if bottleneck else _conv3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, stride if bottleneck else 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False) if bottleneck else None
        self.bn3 = nn.BatchNorm2d(outputs) if bottleneck else None
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        if self.conv3 is not None and self.bn3 is not None:
            y = self.bn3(self.conv3(torch.relu_(y)))
        return torch.relu_(y + (x if self.downsample is None else self.downsample(x)))


def _conv3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class PlacesNetwork(nn.Module):
    """A residual network with the tensor names of the published files.

    Args:
        layout: ``resnet18`` and ``resnet50`` as He et al. (2016); ``wideresnet18`` is the former without max-pooling.
        num_categories: outputs of the last layer.
    """

    def __init__(self, layout: Layout, num_categories: int = 365) -> None:
        super().__init__()
        deep = layout == "resnet50"
        self.max_pool = layout != "wideresnet18"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3) if deep else (2, 2, 2, 2)):
            width, parts = 64 << stage, []
            for k in range(blocks):
                parts.append(_Block(inputs, width, 2 if stage and not k else 1, bottleneck=deep))
                inputs = width * (4 if deep else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        self.fc = nn.Linear(inputs, num_categories)

    def features(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """Average of the last maps: 512 features, 2048 of ``resnet50``."""
        x = torch.relu_(self.bn1(self.conv1(x)))
        if self.max_pool:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.float().mean((2, 3))

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Logits of the categories."""
        return self.fc(self.features(x))


def _fused(network: PlacesNetwork) -> PlacesNetwork:
    """The same network with every batch normalisation folded into the convolution before it."""
    network.eval()
    for part in network.modules():
        for k in (1, 2, 3):
            norm = getattr(part, f"bn{k}", None)
            if norm is not None:
                setattr(part, f"conv{k}", fuse_conv_bn_eval(getattr(part, f"conv{k}"), norm))
                setattr(part, f"bn{k}", nn.Identity())
        if isinstance(part, _Block) and part.downsample is not None:
            conv, norm = part.downsample
            part.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
    return network


def _in_eight_bits(block: _Block) -> eight_bit.EightBitBlock:
    """A fused block in whole numbers."""
    convs = [conv for conv in (block.conv1, block.conv2, block.conv3) if conv is not None]
    shortcut = None if block.downsample is None else cast(nn.Conv2d, block.downsample[0])
    return eight_bit.EightBitBlock(convs, shortcut)


class PlacesScorer:
    """Adapter of the ``Scorer`` protocol: categories (level ``object``), then attributes (level ``attribute``).

    Names are those of the official tool. The attribute ``ocean`` is called ``ocean_attribute`` because a category of
    that name exists.

    Args:
        network: its weights in float32; taken over, folded and moved to the device.
        attribute_matrix: W, (A, f) with f the network's features; None gives categories only.
        categories: one name per output of the network; by default those of Places365.
        attributes: one name per row of W; by default the 102 SUN attributes.
        official_compat: set the negative weights of the last layer to zero, as the official tool does in place when it
            loads them, which changes category scores. Attributes are not touched by it.
        precision: ``bfloat16`` computes features in half the time on CPUs that support it and on GPUs, ``int8`` in a
            third to a quarter on CPUs with VNNI; see docs/scorers.md for how far scores move.
        compiled: whether the network is compiled by ``torch.compile`` when it is first used.
        name: what people type.
        device: where the network lives.

    Raises:
        ValueError: names or W do not fit the network, or the precision is unknown or cannot be had here.
    """

    def __init__(
        self,
        network: PlacesNetwork,
        attribute_matrix: Float[Tensor, "A f"] | None = None,
        *,
        categories: tuple[str, ...] | None = None,
        attributes: tuple[str, ...] | None = None,
        official_compat: bool = False,
        precision: Precision = "float32",
        compiled: bool = False,
        name: str = "places365",
        device: torch.device | str = "cpu",
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        whole = precision == "int8"
        if whole and (torch.device(device).type != "cpu" or not eight_bit.available()):
            raise ValueError(
                "precision 'int8' needs a CPU with VNNI and a torch with oneDNN; use 'bfloat16', or 'float32'"
            )
        if whole and compiled:
            raise ValueError("precision 'int8' has kernels of its own and is not compiled; leave one of both out")
        categories = categories or _read_names(_NAMES / "places365_categories.txt")
        if len(categories) != network.fc.out_features:
            raise ValueError(
                f"the network has {network.fc.out_features} categories, the list of names {len(categories)}; pass the "
                "list that belongs to these weights as categories="
            )
        self.name = name
        self.device = torch.device(device)
        self.preprocessing = Preprocessing()
        self.concepts = tuple(Concept(category, "object") for category in categories)
        self._matrix: Tensor | None = None
        if attribute_matrix is not None:
            attributes = attributes or _read_names(_NAMES / "sun_attributes.txt")
            _check_matrix(attribute_matrix, len(attributes), network.fc.in_features)
            taken = set(categories)
            named = (f"{a}_attribute" if a in taken else a for a in attributes)
            self.concepts += tuple(Concept(attribute, "attribute") for attribute in named)
            self._matrix = attribute_matrix.detach().to(self.device, torch.float32)
        fused = _fused(network).requires_grad_(False).to(self.device)
        if official_compat:
            fused.fc.weight.clamp_(min=0)
        self._dtype = torch.float32 if whole else getattr(torch, precision)
        self._one_by_one = whole
        head, fused.fc = fused.fc, nn.Linear(1, 1)
        self.network = fused.to(dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.fc = head
        # The first convolution stays as it is: it sees normalised pixels, which may be negative.
        for stage in range(1, 5) if whole else ():
            blocks = getattr(self.network, f"layer{stage}")
            setattr(self.network, f"layer{stage}", nn.Sequential(*map(_in_eight_bits, blocks)))

        self._extract = torch.compile(self.network.features) if compiled else self.network.features

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Probability of every category, then the unbounded score of every attribute."""
        features = self.features(images)
        parts = [torch.softmax(self.network.fc(features), 1)]
        if self._matrix is not None:
            parts.append(features @ self._matrix.T)
        return torch.cat(parts, 1)

    def features(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n f"]:
        """The features that both are read from."""
        check_images(images)
        x = self.preprocessing(images.to(self.device)).to(self._dtype).contiguous(memory_format=torch.channels_last)
        return torch.cat([self._extract(part) for part in (x.split(1) if self._one_by_one else (x,))])

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str],
        attribute_matrix: str | os.PathLike[str] | None = None,
        *,
        layout: Layout | None = None,
        categories: str | os.PathLike[str] | None = None,
        attributes: str | os.PathLike[str] | None = None,
        official_compat: bool = False,
        precision: Precision = "float32",
        compiled: bool = False,
        device: torch.device | str = "cpu",
    ) -> PlacesScorer:
        """Reads the published files, without unpickling them.

        Args:
            weights: ``wideresnet18_places365.pth.tar``, ``resnet18_…`` or ``resnet50_…``, or weights of your own with
                the same tensor names.
            attribute_matrix: ``W_sceneattribute_wideresnet18.npy``.
            layout: needed where the file's name does not begin with it; the two kinds of ResNet18 have like tensors.
            categories: text file of names, needed where there are not 365.
            attributes: text file of names, needed where W has not 102 rows.
            official_compat: see the class.
            precision: see the class.
            compiled: see the class.
            device: where the network lives.

        Raises:
            MissingWeightsError: there is no such file; the message says where it is published.
            CheckpointError: a file is damaged, of another kind, or asks for code to be run.
            ValueError: the layout cannot be told, or names do not fit.
        """
        path = Path(weights)
        if not path.is_file():
            raise MissingWeightsError(
                f"{path}: no such file. Places365 weights are published at {PUBLISHED['wideresnet18']} (the host is "
                "often down; mirrors of that file name serve as well); download it and pass its path as weights="
            )
        tensors = read(path).network("state_dict", "model").tensors
        network = _network(path, {k.removeprefix("module."): v for k, v in tensors.items()}, layout)
        matrix = None if attribute_matrix is None else _read_matrix(Path(attribute_matrix))
        return cls(
            network,
            matrix,
            categories=None if categories is None else _read_names(Path(categories)),
            attributes=None if attributes is None else _read_names(Path(attributes)),
            official_compat=official_compat,
            precision=precision,
            compiled=compiled,
            device=device,
        )


def _read_names(path: Path) -> tuple[str, ...]:
    return tuple(plain_name(name) for name in read_names(path))


def _check_matrix(matrix: Tensor, rows: int, features: int) -> None:
    if tuple(matrix.shape) != (rows, features):
        raise ValueError(
            f"the attribute matrix must have shape ({rows}, {features}): a row per attribute, a column per feature of "
            f"the network; got {tuple(matrix.shape)}. The published W belongs to wideresnet18"
        )


def _network(path: Path, tensors: Mapping[str, Tensor], layout: Layout | None) -> PlacesNetwork:
    if not {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"} <= tensors.keys():
        raise UnknownFormatError(
            f"{path} is not a ResNet of Places365; expected tensors named conv1, layer1.0.conv1 … fc, as in "
            f"{', '.join(Path(address).name for address in PUBLISHED.values())}"
        )
    if not tensors["fc.weight"].numel():
        raise CorruptFileError(f"{path} has a last layer without weights, shape {tuple(tensors['fc.weight'].shape)}")
    network = PlacesNetwork(layout or _guessed_layout(path, tensors), tensors["fc.weight"].shape[0])
    wanted = network.state_dict()
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **tensors})
    except RuntimeError as error:
        raise CorruptFileError(f"{path} does not fit its layout: {str(error)[:300]}") from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise CorruptFileError(f"{path} holds weights that are not finite; fetch it again")
    return network


def _guessed_layout(path: Path, tensors: Mapping[str, Tensor]) -> Layout:
    if "layer1.0.conv3.weight" in tensors:
        return "resnet50"
    for layout in get_args(Layout):
        if path.name.lower().startswith(layout):
            return layout
    raise ValueError(
        f"{path.name} may be wideresnet18 or resnet18, whose tensors are alike; pass layout='wideresnet18' (the "
        "network of the official tool) or layout='resnet18', or keep the published file name"
    )


def _read_matrix(path: Path) -> Tensor:
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: no such file. The attribute matrix is published at {ATTRIBUTE_MATRIX}; download it and pass its "
            "path as attribute_matrix=, or leave it out for categories alone"
        )
    value = npy.read(path)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 2:
        raise UnknownFormatError(f"{path} is not an attribute matrix; expected floats of shape (102, 512)")
    matrix = torch.from_numpy(value.astype(np.float32))
    if not bool(torch.isfinite(matrix).all()):
        raise CorruptFileError(f"{path} holds NaN or infinity; fetch it again")
    return matrix
