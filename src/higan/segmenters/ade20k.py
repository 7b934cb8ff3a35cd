"""Segmenters of transformers, first of all those trained on the 150 classes of ADE20K (Zhou et al. 2017).

Segformer, UperNet and every other model that gives one map per class; Mask2Former and MaskFormer, whose queries are
added up to such maps. The paper uses UperNet (Xiao et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from higan.extras import open_config, open_pretrained, read_steps
from higan.preprocessing import Preprocessing
from higan.types import SegmentClass

__all__ = ["STUFF", "TransformersSegmenter", "described"]

_STUFF_NAMES = (
    "wall, building, sky, floor, tree, ceiling, road, grass, sidewalk, earth, mountain, plant, water, house, sea, rug, "
    "field, rock, base, sand, skyscraper, grandstand, path, runway, stairway, river, bridge, blind, hill, bar, hovel, "
    "tower, land, escalator, buffet, poster, stage, canopy, pool, swimming pool, falls, waterfall, tent, cradle, tank, "
    "lake, blanket, pier, shower, dirt track, conveyer belt, crt screen"
)
STUFF = frozenset(_STUFF_NAMES.split(", "))
"""The 50 classes of ADE20K-150 that its panoptic challenge counts as stuff, by the first of their names; the other 100
are things. Two have a second spelling in files of transformers: ``pool`` and ``swimming pool``, ``falls`` and
``waterfall``."""


def described(labels: Iterable[str]) -> tuple[SegmentClass, ...]:
    """Classes by their labels: the first synonym is the name, `STUFF` tells the kind, the position the colour."""
    names: list[str] = []
    for label in labels:
        name = label.replace(";", ",").split(",")[0].strip()
        names.append(name if name not in names else label.strip())
    return tuple(
        SegmentClass(name, "stuff" if name.lower() in STUFF else "thing", _colour(k)) for k, name in enumerate(names)
    )


def _colour(index: int) -> tuple[int, int, int]:
    """Colours far apart for numbers close together: the number's bits, dealt to red, green and blue in turn."""
    value = index + 1
    red, green, blue = (sum((value >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for channel in range(3))
    return red, green, blue


class TransformersSegmenter:
    """Adapter of the ``Segmenter`` protocol.

    Args:
        name_or_path: folder with ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``, or a name on
            the hub, such as ``nvidia/segformer-b0-finetuned-ade-512-512``, ``openmmlab/upernet-convnext-tiny`` or
            ``facebook/mask2former-swin-tiny-ade-semantic``.
        device: where it runs.

    Raises:
        MissingExtraError, MissingWeightsError, CheckpointError: see `higan.extras.open_pretrained`.
        ValueError: it has more classes than a mask of bytes can hold.
    """

    def __init__(self, name_or_path: str | Path, *, device: torch.device | str = "cpu") -> None:
        config = open_config(name_or_path)
        if config.num_labels > 256:
            raise ValueError(f"masks tell 256 classes apart; {name_or_path} has {config.num_labels}")
        self.name = Path(name_or_path).name
        self.classes = described(config.id2label[k] for k in range(config.num_labels))
        self.device = torch.device(device)
        self.preprocessing = Preprocessing.from_config(read_steps(name_or_path))
        self._queries = config.model_type in ("mask2former", "maskformer")
        kind = "AutoModelForUniversalSegmentation" if self._queries else "AutoModelForSemanticSegmentation"
        self._model = open_pretrained(kind, name_or_path).to(self.device)

    def segment(self, images: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W"]:
        """Index into ``classes`` of every pixel."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 of shape (n, 3, H, W); got {images.dtype} of shape {tuple(images.shape)}"
            )
        maps = self.maps(images)
        height, width = images.shape[2:]
        return interpolate(maps, (height, width), mode="bilinear", align_corners=False).argmax(1).to(torch.uint8)

    def maps(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n S h w"]:
        """One map per class, at the network's own size."""
        output = self._model(pixel_values=self.preprocessing(images.to(self.device)))
        if not self._queries:
            return output.logits.float()
        # Every query votes for its classes wherever its mask lies; the last class means "nothing" (Cheng et al. 2022).
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]
        masks = output.masks_queries_logits.float().sigmoid()
        return torch.einsum("nqs,nqhw->nshw", classes, masks)
