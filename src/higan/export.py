"""Pictures, sheets and animations to keep, each with its recipe; codes and directions for other tools."""

from __future__ import annotations

import base64
import io
import json
import os
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from higan.checkpoints import npy, official
from higan.errors import CorruptFileError, MissingExtraError, MissingWeightsError, UnknownFormatError
from higan.files import replacing, write_whole
from higan.layers import parse_layers
from higan.photographs import MOST_PIXELS
from higan.recipes import Recipe, format_layers
from higan.types import Boundary, Concept
from higan.weights import read_weights, write_weights

__all__ = [
    "about_codes",
    "contact_sheet",
    "load_codes",
    "load_directions",
    "read_picture",
    "read_recipe",
    "save_animation",
    "save_codes",
    "save_directions",
    "save_picture",
    "save_sheet",
    "save_slider",
    "save_video",
]

_KEY = "higan"
_CODES = "higan-codes-1"
_DIRECTIONS = "higan-directions-1"
_LONGEST_TEXT = 1 << 20
_LETTERS = frozenset([*map(chr, range(32, 127)), *"°±·©«»‹›‘’“”…™"])
_INK, _PAPER = (28, 29, 33), (255, 255, 255)


# --- single pictures --------------------------------------------------------------------------------------------------


def save_picture(path: str | os.PathLike[str], image: UInt8[Tensor, "3 H W"], recipe: Recipe | None = None) -> None:
    """A PNG that carries its recipe, whole or not at all.

    Raises:
        ValueError: the name does not end in ``.png``: other formats do not keep every bit.
    """
    path = Path(path)
    _check_suffix(path, ".png")
    text = PngInfo()
    if recipe is not None:
        text.add_itxt(_KEY, recipe.to_json())
    buffer = io.BytesIO()
    _picture(image).save(buffer, "PNG", pnginfo=text)
    write_whole(path, buffer.getvalue())


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe that `save_picture` put into a PNG.

    Raises:
        FileNotFoundError, UnknownFormatError, CorruptFileError: as for `read_picture`.
    """
    return read_picture(path)[1]


def read_picture(path: str | os.PathLike[str]) -> tuple[UInt8[Tensor, "3 H W"], Recipe]:
    """A picture and the recipe that `save_picture` put into its PNG.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownFormatError: the file is no PNG, or carries no recipe.
        CorruptFileError: the file or its recipe is damaged, or the picture larger than photographs may be.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            picture = Image.open(path, formats=["PNG"])
        with picture:
            # The header alone has been read so far: nothing is decoded before its size is known.
            size = picture.width * picture.height
            if size > MOST_PIXELS:
                raise CorruptFileError(f"{path} has {size:,} pixels; pictures of up to {MOST_PIXELS:,} are opened")
            picture.load()
            text = picture.info.get(_KEY)
            image = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    except UnidentifiedImageError as error:
        raise UnknownFormatError(f"{path} is not a PNG") from error
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from error
    if not isinstance(text, str):
        raise UnknownFormatError(
            f"{path} carries no recipe: it is no single picture that `higan edit` made, or was saved again since"
        )
    if len(text) > _LONGEST_TEXT:
        raise CorruptFileError(f"{path} carries a recipe of {len(text):,} characters")
    return image, Recipe.from_json(text)


# --- sheets -----------------------------------------------------------------------------------------------------------


def contact_sheet(
    images: UInt8[Tensor, "n 3 H W"],
    columns: int,
    *,
    captions: Sequence[str] = (),
    rows: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """Pictures in a grid, row by row, with a caption under each and a name before each row.

    Args:
        images: n pictures; the last row may be shorter.
        columns: pictures per row.
        captions: one per picture, or none. A line feed begins a new line.
        rows: one name per row, or none.
        scale: whole factor of enlargement without smoothing; by default up to about 128 pixels.

    Raises:
        ValueError: no pictures or columns, or another number of captions or names.
    """
    n = len(images)
    if n < 1 or columns < 1:
        raise ValueError(f"a sheet needs at least one picture and one column; got {n} and {columns}")
    num_rows = -(-n // columns)
    if len(captions) not in (0, n) or len(rows) not in (0, num_rows):
        raise ValueError(
            f"a sheet takes a caption for each of {n} pictures and a name for each of {num_rows} rows, or none; got "
            f"{len(captions)} and {len(rows)}"
        )
    side = images.shape[-1]
    scale = max(1, 128 // side) if scale is None else scale
    if scale < 1:
        raise ValueError(f"scale must be at least 1; got {scale}")
    wide, tall, gap = side * scale, images.shape[-2] * scale, 6
    font = ImageFont.load_default(12)
    captions, rows = [_spelt(caption) for caption in captions], [_spelt(name) for name in rows]
    head = max((font.getlength(name) for name in rows), default=-float(gap)) + gap
    foot = 15 * max((caption.count("\n") + 1 for caption in captions), default=0) + (4 if captions else 0)
    size = (round(head) + gap + columns * (wide + gap), gap + num_rows * (tall + foot + gap))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, image in enumerate(images):
        row, column = divmod(k, columns)
        x, y = round(head) + gap + column * (wide + gap), gap + row * (tall + foot + gap)
        sheet.paste(_picture(image).resize((wide, tall), Image.Resampling.NEAREST), (x, y))
        if captions:
            pen.multiline_text((x, y + tall + 2), _cut(captions[k], font, wide), _INK, font, spacing=2)
    for row, name in enumerate(rows):
        pen.text((gap, gap + row * (tall + foot + gap) + tall / 2 - 7), name, _INK, font)
    return sheet


def save_sheet(path: str | os.PathLike[str], sheet: Image.Image, recipe: Recipe | None = None) -> None:
    """A contact sheet as PNG, with the recipe that its pictures have in common.

    Raises:
        ValueError: the name does not end in ``.png``.
    """
    save_picture(path, torch.from_numpy(np.array(sheet)).permute(2, 0, 1), recipe)


def _spelt(text: str) -> str:
    """In the letters that Pillow's own font has: accents left off, a question mark for what is not to be had."""
    return "".join(map(_letter, unicodedata.normalize("NFC", text)))


def _letter(letter: str) -> str:
    if letter in _LETTERS or letter == "\n":
        return letter
    if unicodedata.category(letter) == "Pd" or letter == "\N{MINUS SIGN}":
        return "-"
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    lines = []
    for line in text.split("\n"):
        shown = line
        while shown and font.getlength(shown) > width:
            shown = shown[:-2] + "…" if len(shown) > 2 else ""
        lines.append(shown)
    return "\n".join(lines)


# --- movement ---------------------------------------------------------------------------------------------------------


def save_animation(
    path: str | os.PathLike[str],
    images: UInt8[Tensor, "n 3 H W"],
    *,
    milliseconds: int = 80,
    there_and_back: bool = True,
    scale: int = 1,
) -> None:
    """An endless animation: ``.gif`` (256 colours a picture) or ``.webp`` (lossless).

    Raises:
        ValueError: no pictures, times or scale below 1, or another ending.
    """
    path = Path(path)
    _check_suffix(path, ".gif", ".webp")
    frames = _frames(images, there_and_back=there_and_back, scale=scale)
    if milliseconds < 1:
        raise ValueError(f"milliseconds must be at least 1; got {milliseconds}")
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    buffer = io.BytesIO()
    if path.suffix == ".gif":
        frames[0].save(buffer, "GIF", disposal=1, **options)
    else:
        frames[0].save(buffer, "WEBP", lossless=True, **options)
    write_whole(path, buffer.getvalue())


def save_video(
    path: str | os.PathLike[str],
    images: UInt8[Tensor, "n 3 H W"],
    *,
    frames_per_second: int = 12,
    there_and_back: bool = True,
    scale: int = 1,
) -> None:
    """An H.264 ``.mp4`` that browsers play; odd sizes lose their last row or column.

    Raises:
        ValueError: no pictures, numbers below 1, or another ending.
        MissingExtraError: PyAV is not installed.
    """
    path = Path(path)
    _check_suffix(path, ".mp4")
    frames = _frames(images, there_and_back=there_and_back, scale=scale)
    if frames_per_second < 1:
        raise ValueError(f"frames_per_second must be at least 1; got {frames_per_second}")
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("mp4 needs PyAV: pip install 'higan[video]'; or write .gif or .webp") from error
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=frames_per_second)
        stream.width, stream.height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            even = frame.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(even)))
        container.mux(stream.encode())


def save_slider(
    path: str | os.PathLike[str],
    images: UInt8[Tensor, "n 3 H W"],
    labels: Sequence[str],
    *,
    title: str = "higan",
    what: str = "Strength",
    start: int | None = None,
) -> None:
    """One HTML file with a slider over the pictures; needs nothing else, works by keyboard.

    Args:
        path: ends in ``.html``.
        images: from one end to the other.
        labels: one per picture.
        title: heading.
        what: the labels tell; stands before them.
        start: picture to begin with; the middle one by default.

    Raises:
        ValueError: no pictures, another number of labels, or no such picture to start from.
    """
    path = Path(path)
    _check_suffix(path, ".html")
    n = len(images)
    start = n // 2 if start is None else start
    if n < 1 or len(labels) != n or not 0 <= start < n:
        raise ValueError(
            f"a slider needs pictures, as many labels, and a start among them; got {n}, {len(labels)}, {start}"
        )
    # "<" is the one character that could end the script element early.
    data = json.dumps({"images": [_data_uri(image) for image in images], "labels": list(labels)}).replace(
        "<", "\\u003c"
    )
    page = _SLIDER.format(title=escape(title), what=escape(what), data=data, last=n - 1, start=start)
    write_whole(path, page.encode())


_SLIDER = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>
:root{{color-scheme:light dark}}
body{{font:17px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem}}
img{{width:100%;aspect-ratio:1;image-rendering:pixelated;border-radius:4px}}input{{width:100%}}
output{{font-variant-numeric:tabular-nums}}</style></head><body><h1>{title}</h1>
<img id="picture" alt=""><label>{what} <output id="label" for="at"></output>
<input id="at" type="range" min="0" max="{last}" value="{start}"></label><script>
const strip={data},at=document.getElementById("at"),show=()=>{{
const k=+at.value,image=document.getElementById("picture");image.src=strip.images[k];image.alt=strip.labels[k];
document.getElementById("label").textContent=strip.labels[k]}};at.addEventListener("input",show);show()
</script></body></html>
"""


def _frames(images: Tensor, *, there_and_back: bool, scale: int) -> list[Image.Image]:
    if len(images) < 1 or scale < 1:
        raise ValueError(
            f"an animation needs at least one picture, and a scale of 1 or more; got {len(images)}, {scale}"
        )
    size = (images.shape[-1] * scale, images.shape[-2] * scale)
    frames = [_picture(image).resize(size, Image.Resampling.NEAREST) for image in images]
    return frames + frames[-2:0:-1] if there_and_back else frames


# --- codes and directions ---------------------------------------------------------------------------------------------


def save_codes(
    path: str | os.PathLike[str], codes: Float[Tensor, "n L D"], about: Mapping[str, Any] | None = None
) -> None:
    """Untruncated codes as ``.safetensors`` with what they are in the header, or as a bare ``.npy`` array.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    _check_suffix(path, ".safetensors", ".npy")
    plain = codes.detach().cpu().float().contiguous()
    if path.suffix == ".npy":
        npy.write(path, plain.numpy())
    else:
        write_weights(path, {"codes": plain}, {"format": _CODES, "about": dict(about or {})})


def load_codes(path: str | os.PathLike[str]) -> Float[Tensor, "n L D"]:
    """What `save_codes` wrote; from ``.npy`` also (L, D) or (n, L, D) of other tools, taken as untruncated.

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: it does not hold codes.
        CorruptFileError: it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeightsError(f"no codes at {path}")
    if path.suffix == ".npy":
        found = official.read_codes(path)
    elif path.suffix != ".safetensors":
        raise UnknownFormatError(_no_codes(path))
    else:
        try:
            tensors, header = read_weights(path)
        except UnknownFormatError as error:
            raise UnknownFormatError(_no_codes(path)) from error
        if header.get("format") != _CODES or "codes" not in tensors:
            raise UnknownFormatError(f"{path} does not hold codes: expected {_CODES!r}, got {header.get('format')!r}")
        found = tensors["codes"]
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or not found.numel() or not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        raise CorruptFileError(f"{path} must hold finite codes of shape (n, L, D); got {tuple(found.shape)}")
    return found.float()


def _no_codes(path: Path) -> str:
    return (
        f"{path} does not hold codes: expected .safetensors or .npy, such as `higan invert` writes of photographs; of "
        "another tool's .npz or .pt save the array, as in numpy.save('codes.npy', numpy.load('projected_w.npz')['w'])"
    )


def about_codes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_codes` was told about codes that `load_codes` opens; nothing in an ``.npy`` file."""
    if Path(path).suffix == ".npy":
        return {}
    return dict(read_weights(path)[1].get("about", {}))


def save_directions(
    path: str | os.PathLike[str],
    boundaries: Sequence[Boundary],
    layers: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Path, ...]:
    """Directions as one ``.safetensors``; or, to a folder, as the official tool's ``NAME_boundary.npy`` with advice.

    Args:
        path: a name that ends in ``.safetensors``, or a folder.
        boundaries: what to write.
        layers: advice on layers by concept name.

    Returns:
        The files written.

    Raises:
        ValueError: no boundaries, two of one name, normals of several shapes, or another ending.
    """
    path, advice = Path(path), layers or {}
    names = [boundary.concept.name for boundary in boundaries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"directions must have different names; several are called {', '.join(twice)}")
    shapes = {tuple(b.normal.shape) for b in boundaries}
    if len(shapes) != 1:
        raise ValueError(f"directions of one space are written together; got shapes {sorted(shapes)}")
    if path.suffix != ".safetensors":
        if path.suffix:
            raise ValueError(f"directions are written to a .safetensors file or a folder; got {path}")
        official.check_names(names)
        path.mkdir(parents=True, exist_ok=True)
        written = []
        for boundary in boundaries:
            name = boundary.concept.name
            target = path / f"{official.official_name(name)}_boundary.npy"
            official.write_boundary(target, boundary, format_layers(advice[name]) if name in advice else None)
            written.append(target)
        return tuple(written)
    header = {
        "format": _DIRECTIONS,
        "concepts": [[b.concept.name, b.concept.level] for b in boundaries],
        "layers": {name: list(chosen) for name, chosen in advice.items()},
    }
    tensors = {
        "normals": torch.stack([b.normal.detach().cpu().float() for b in boundaries]),
        "biases": torch.stack([b.bias.detach().cpu().float() for b in boundaries]),
    }
    write_weights(path, tensors, header)
    return (path,)


def load_directions(path: str | os.PathLike[str]) -> tuple[tuple[Boundary, ...], dict[str, tuple[int, ...]]]:
    """What `save_directions` wrote, or other tools, with the advice on layers; the accuracy is not kept, NaN.

    Args:
        path: a ``.safetensors`` file, one direction as ``.npy`` (as the official tool and InterFaceGAN keep them), or a
            folder of ``NAME_boundary.npy``.

    Raises:
        MissingWeightsError: there is no such file, or none in the folder.
        UnknownFormatError: it does not hold directions.
        CorruptFileError: it is damaged.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".npy":
        return _published(sorted(path.glob("*_boundary.npy")) if path.is_dir() else [path], path)
    tensors, header = read_weights(path)
    if header.get("format") != _DIRECTIONS:
        raise UnknownFormatError(
            f"{path} does not hold directions: expected {_DIRECTIONS!r}, got {header.get('format')!r}"
        )
    try:
        rows = zip(header["concepts"], tensors["normals"], tensors["biases"], strict=True)
        boundaries = tuple(Boundary(Concept(*concept), normal, bias, float("nan")) for concept, normal, bias in rows)
        return boundaries, {str(name): tuple(map(int, chosen)) for name, chosen in header["layers"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} contradicts itself: {error}") from error


def _published(files: Sequence[Path], where: Path) -> tuple[tuple[Boundary, ...], dict[str, tuple[int, ...]]]:
    if not files:
        raise MissingWeightsError(f"no NAME_boundary.npy in {where}")
    found = [official.read_boundary(file) for file in files]
    advice = {d.boundary.concept.name: parse_layers(d.layers) for d in found if d.layers is not None}
    return tuple(direction.boundary for direction in found), advice


# --- files ------------------------------------------------------------------------------------------------------------


def _picture(image: UInt8[Tensor, "3 H W"]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))


def _data_uri(image: Tensor) -> str:
    buffer = io.BytesIO()
    _picture(image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _check_suffix(path: Path, *endings: str) -> None:
    if path.suffix not in endings:
        raise ValueError(f"the name must end in {' or '.join(endings)}; got {path}")
