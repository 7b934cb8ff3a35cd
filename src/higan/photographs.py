"""Pictures from files, whatever people have: any size, orientation, transparency, grey or indexed colours."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from higan.errors import CorruptFileError, UnknownFormatError

__all__ = ["MOST_PIXELS", "open_photograph"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MOST_PIXELS = 60_000_000
"""Larger pictures are refused before they are decoded."""
_MOST_BYTES = 200 << 20
_WIDE_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def open_photograph(
    path: str | os.PathLike[str],
    resolution: int,
    *,
    most_pixels: int = MOST_PIXELS,
    formats: Sequence[str] = _FORMATS,
) -> UInt8[Tensor, "3 H W"]:
    """A picture as a generator of that resolution would draw it.

    In this order: the EXIF rotation is applied; transparency is composited over white; grey, indexed and CMYK colours
    become RGB (16-bit grey is scaled down; floating-point grey is of 1, 255 or 65,535, the first of these that its
    brightest pixel is at most twice as large as); the largest centred square is cut out and resampled (Lanczos) to
    resolution × resolution. Of an animation, the first picture.

    Args:
        path: PNG, JPEG, WebP, BMP, TIFF or GIF of at most 200 MiB.
        resolution: H = W.
        most_pixels: larger pictures are refused before they are decoded.
        formats: as Pillow calls them; no other decoder is tried.

    Raises:
        ValueError: the resolution is below 1, the path is a folder, or the picture is larger than that, or has no
            pixels or some that are not finite.
        UnknownFormatError: the file is not a picture of these formats.
        CorruptFileError: the picture is truncated or damaged.
        FileNotFoundError: there is no such file.
    """
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1; got {resolution}")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the pictures in it, as in {path}/*.jpg")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(f"{path} has {size >> 20} MiB; pictures of up to {_MOST_BYTES >> 20} MiB are opened")
    try:
        with warnings.catch_warnings():
            # Pillow warns of very large pictures and of odd metadata; the first is refused below, the second harmless.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=tuple(formats)) as picture:
                return _prepared(picture, path, resolution, most_pixels)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise UnknownFormatError(f"{path} is not a picture; expected one of {', '.join(formats)}") from error
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise CorruptFileError(f"{path} is truncated or damaged: {error}") from error


def _prepared(picture: Image.Image, path: Path, resolution: int, most_pixels: int) -> UInt8[Tensor, "3 H W"]:
    # The header alone has been read so far: nothing is decoded before its size is known.
    if not 0 < picture.width * picture.height <= most_pixels:
        raise ValueError(
            f"{path} has {picture.width} x {picture.height} pixels; pictures of 1 to {most_pixels:,} are opened"
        )
    upright = ImageOps.exif_transpose(picture)
    square = ImageOps.fit(_rgb(upright, path), (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _rgb(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode in _WIDE_GREY:
        grey = np.asarray(picture, dtype=np.float64)
        # 32-bit pictures that stay within 16 bits are 16-bit pictures that were opened as wider ones.
        if not np.isfinite(grey).all():
            raise ValueError(f"{path} holds pixels that are no finite numbers; fill them in first")
        most = grey.max(initial=0.0)
        top = 65535.0 if most > 255 or picture.mode.startswith("I;16") else 255.0
        if picture.mode == "F":
            # Fractions are of one, as scientific tools write them; sharpening and resampling reach beyond the top.
            top = next((top for top in (1.0, 255.0) if most <= 2 * top), 65535.0)
        return Image.fromarray(np.round(np.clip(grey / top, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, seen).convert("RGB")
