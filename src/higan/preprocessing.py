"""From 8-bit images to what a predictor wants: scaled, cropped, normalised, in batches and on the images' device.

Predictors were trained on pictures scaled by Pillow. `resize` gives the same bytes, because it does the same integer
arithmetic: shares of 22 bits, first along the rows, then down the columns, each time rounded to a byte. Floating-point
interpolation would differ by up to 2 levels of 255 in every tenth pixel, because halves are frequent at ratios such as
8 : 7. (Pillow 13 goes down the columns first for some shapes; a square that becomes a square comes out the same.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.errors import CorruptFileError, UnknownFormatError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Filter", "Preprocessing", "resize"]

Filter = Literal["bilinear", "bicubic"]
_FILTERS: Mapping[int, Filter] = {2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers, which the files of predictors use."""
_BITS = 22

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(
    images: UInt8[Tensor, "n 3 H W"],
    height: int,
    width: int,
    filter: Filter = "bilinear",  # noqa: A002 - its name in Pillow
) -> UInt8[Tensor, "n 3 height width"]:
    """Images at another size, the very bytes that Pillow's ``Image.resize`` gives where squares become squares.

    Of other shapes Pillow 13 may round in another order: by a level or two in pictures, in noise by twenty (bicubic).

    Raises:
        ValueError: a size below 1.
    """
    if min(height, width) < 1:
        raise ValueError(f"a picture has at least 1 × 1 pixels; got {height} × {width}")
    across = _scaled(images.transpose(2, 3), width, filter).transpose(2, 3)
    return _scaled(across, height, filter).contiguous()


def _scaled(images: UInt8[Tensor, "n c H W"], height: int, filter: Filter) -> UInt8[Tensor, "n c h W"]:  # noqa: A002
    """One pass, down the columns."""
    if images.shape[2] == height:
        return images
    rows, weights = _taps(images.shape[2], height, filter)
    x = images.int().contiguous()
    rows, weights = rows.to(x.device), weights.to(x.device)
    total = torch.full_like(x[:, :, :1], 1 << (_BITS - 1)).expand(-1, -1, height, -1).contiguous()
    for tap in range(len(rows)):
        total.addcmul_(x.index_select(2, rows[tap]), weights[tap][:, None])
    return (total >> _BITS).clamp_(0, 255).to(torch.uint8)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = −1/2."""
    x = x.abs()
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0.0))


@cache
def _taps(size: int, target: int, filter: Filter) -> tuple[Tensor, Tensor]:  # noqa: A002
    """Which pixels make up a new one, and their shares in units of 2⁻²²; both (taps, target)."""
    kernel, reach = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}[filter]
    scale = size / target
    stretch = max(scale, 1.0)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    first = (centre - reach * stretch + 0.5).long().clamp(min=0)
    last = (centre + reach * stretch + 0.5).long().clamp(max=size)
    rows = first + torch.arange(int((last - first).max()))[:, None]
    shares = torch.where(rows < last, kernel((rows - centre + 0.5) / stretch), 0.0)
    shares = shares / shares.sum(0)
    # Pillow rounds halves away from zero.
    whole = (shares * (1 << _BITS)).abs().add(0.5).floor() * shares.sign()
    return rows.clamp(max=size - 1), whole.int()


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to an image before a network sees it.

    ``size`` is (height, width), or one number for the shorter side, the other following; None keeps the size.
    ``crop`` is the (height, width) cut from the middle afterwards, padded with black where the picture is smaller.
    ``channels`` is the order in which the network takes colours, to which ``mean`` and ``std`` belong.
    """

    size: tuple[int, int] | int | None = (224, 224)
    filter: Filter = "bilinear"
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need 3 numbers, those of std above 0; got {self.mean} and {self.std}")

    def __call__(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 h w"]:
        """The network's input."""
        x = resize(images, *self._target(images.shape[2], images.shape[3]), self.filter).float()
        if self.crop is not None:
            x = _crop(x, *self.crop)
        if self.channels == "BGR":
            x = x.flip(1)
        factor = torch.tensor(self.std, device=x.device).reciprocal() * self.scale
        shift = -torch.tensor(self.mean, device=x.device) / torch.tensor(self.std, device=x.device)
        return torch.addcmul(shift[:, None, None], x, factor[:, None, None])

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        if isinstance(self.size, tuple):
            return self.size
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From a ``preprocessor_config.json`` of transformers.

        Raises:
            UnknownFormatError: it asks for steps that are not known here.
            CorruptFileError: an entry has an unexpected form.
        """
        try:
            config = _plain_steps(config)
            size = _size(config.get("size", 224)) if config.get("do_resize", True) else None
            crop = None
            if config.get("do_center_crop", False):
                both = _size(config.get("crop_size", 224))
                crop = both if isinstance(both, tuple) else (both, both)
            elif isinstance(size, int) and not isinstance(config.get("size"), Mapping):
                size = (size, size)  # old files: one number means a square, unless something is cut from it
            normal = config.get("do_normalize", True)
            return cls(
                size=size,
                filter=_FILTERS[int(config.get("resample", 2))],
                crop=crop,
                scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
                mean=_three(config.get("image_mean") or IMAGENET_MEAN) if normal else (0.0, 0.0, 0.0),
                std=_three(config.get("image_std") or IMAGENET_STD) if normal else (1.0, 1.0, 1.0),
                channels="BGR" if config.get("do_flip_channel_order") else "RGB",
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"preprocessor_config.json has an unexpected form: {error!r}") from error


_REFUSED = {"Perceiver": "crops before it scales", "Siglip2": "cuts pictures of any shape into patches"}
"""Processors of transformers that need what `Preprocessing` cannot say, and what that is."""


def _plain_steps(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file with what some processors of transformers do unsaid, or say in words of their own, in common words.

    Raises:
        UnknownFormatError: it cannot be said so.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    if kind in _REFUSED:
        raise _unsupported(f"the processor {kind}, which {_REFUSED[kind]}")
    for name, default in (("include_top", kind == "EfficientNet"), ("rescale_offset", False)):
        if config.get(name, default):
            raise _unsupported(f"{name}, a second normalisation as of EfficientNet")
    if kind == "MobileViT" or "do_flip_channel_order" in config:
        return _as_mobilevit(config)
    if kind == "Levit":
        return _as_levit(config)
    if kind == "PoolFormer" or "do_resize_and_center_crop" in config:
        return _as_poolformer(config)
    if kind == "ConvNext" or config.get("crop_pct") is not None:
        return _as_convnext(config)
    return config


def _shorter_side(size: Any) -> dict[str, int]:
    return dict(size) if isinstance(size, Mapping) else {"shortest_edge": int(size)}


def _as_mobilevit(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Colours the other way round and never normalised, whatever the file says of that."""
    usual = {"do_flip_channel_order": True, "do_center_crop": True, "crop_size": 256, "resample": 3}
    return {**usual, **config, "size": _shorter_side(config.get("size", 224)), "do_normalize": False}


def _as_levit(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The shorter side is scaled to 256 where the file says 224."""
    size = _shorter_side(config.get("size", 224))
    if "shortest_edge" in size:
        size["shortest_edge"] = int((256 / 224) * size["shortest_edge"])
    return {"do_center_crop": True, "crop_size": 224, "resample": 3, **config, "size": size}


def _as_poolformer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Scaled to the size divided by ``crop_pct``, both sides alike by the shorter one."""
    share = config.get("crop_pct", 0.9) or 1.0
    size = {edge: int(length / share) for edge, length in _shorter_side(config.get("size", 224)).items()}
    if config.get("crop_pct", 0.9) and len(set(size.values())) == 1:
        size = {"shortest_edge": next(iter(size.values()))}
    return {"do_center_crop": True, "crop_size": 224, "resample": 3, **config, "size": size}


def _as_convnext(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """ConvNeXT, ResNet, RegNet, CvT: a square, cut from something larger below 384 pixels, warped above."""
    config = {"resample": 3, **config}
    if not config.get("do_resize", True):
        return config
    if config.get("do_center_crop"):
        raise _unsupported("both crop_pct and do_center_crop")
    side = int(_shorter_side(config.get("size", 384))["shortest_edge"])
    if side >= 384:
        return {**config, "size": {"height": side, "width": side}}
    share = float(config.get("crop_pct") or 224 / 256)
    return {**config, "size": {"shortest_edge": int(side / share)}, "do_center_crop": True, "crop_size": side}


def _unsupported(what: str) -> UnknownFormatError:
    return UnknownFormatError(
        f"preprocessor_config.json asks for {what}; this is not supported. Wrap the model in a "
        "callable of your own, which prepares its images itself"
    )


def _three(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _size(value: Any) -> tuple[int, int] | int:
    """Every form of a size that such files have."""
    if isinstance(value, Mapping):
        if "height" in value:
            return int(value["height"]), int(value["width"])
        return int(value["shortest_edge"])
    if isinstance(value, Sequence):
        return int(value[0]), int(value[1])
    return int(value)


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    short = max(height - x.shape[2], 0), max(width - x.shape[3], 0)
    if any(short):
        top, left = short[0] // 2, short[1] // 2
        x = torch.nn.functional.pad(x, (left, short[1] - left, top, short[0] - top))
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
