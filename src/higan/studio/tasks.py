"""What the page asks for beside single pictures: strips, category transitions, inverted photographs, files to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from higan.effects import measure_changes
from higan.errors import CheckpointError
from higan.export import contact_sheet, save_animation, save_codes, save_picture, save_sheet
from higan.inversion import CodeSpace, code_space, invert
from higan.photographs import open_photograph
from higan.population import Progress
from higan.recipes import Instruction
from higan.report.flows import sankey
from higan.report.pictures import mask_uri, picture_uri
from higan.report.words import readable
from higan.statistics import score_stds
from higan.strips import Strip, grid_strip, joint_strip, sweep_strip
from higan.studio.desk import Desk
from higan.studio.looks import Look
from higan.transitions import kept, travel
from higan.types import Edit
from higan.workbench import edit

__all__ = [
    "MOST_BYTES",
    "MOST_PIXELS",
    "DownloadKind",
    "Inverter",
    "StripKind",
    "download",
    "response",
    "strip",
    "transition",
]

MOST_BYTES = 16 << 20
MOST_PIXELS = 24_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")

StripKind = Literal["sweep", "joint", "grid"]
DownloadKind = Literal["picture", "recipe", "strip", "gif", "codes"]

_PARTS = (-1.0, -2 / 3, -1 / 3, 1 / 3, 2 / 3, 1.0)
_MOVED = 24
_FACTORS = tuple(k / 2 for k in range(-2, 3))
_FRAMES = tuple(k / 8 for k in range(-8, 9))
_GRID_SIGMAS = 2.0
_ROWS = 4


# --- responses --------------------------------------------------------------------------------------------------------


def response(desk: Desk, concept: str, layers: Sequence[int], limit: float) -> dict[str, list[float]]:
    """How far a concept's score moves on average along its slider, measured both ways on fresh samples.

    Args:
        desk: draws.
        concept: its boundary is followed.
        layers: that are moved.
        limit: the slider's end, in steps.

    Returns:
        ``steps``, 0 among them, and ``sigmas``, mean changes in standard deviations of the score.

    Raises:
        ValueError: there is no scorer or no re-scoring, or the score never varies.
    """
    bench = desk.bench
    if bench.scorer is None or bench.rescoring is None:
        raise ValueError("the response of a score needs a scorer and a re-scoring")
    column = bench.column(concept)
    std = score_stds(bench.rescoring, bench.scorer.concepts)
    if not float(std[column]) > 0:
        raise ValueError(f"the score of {concept!r} never varies, so that it has no standard deviation to count in")
    steps = [limit * part for part in _PARTS]
    edits = [Edit(bench.boundaries[concept], step, tuple(layers)) for step in steps]
    changes = measure_changes(
        bench.generator, bench.scorer, edits, std=std, num=_MOVED, first=2**22 + 2**21 + 2**20, batch_size=desk.at_once
    )
    sigmas = [round(value, 3) for value in changes[:, column].mean(-1).tolist()]
    middle = len(steps) // 2
    return {"steps": [*steps[:middle], 0.0, *steps[middle:]], "sigmas": [*sigmas[:middle], 0.0, *sigmas[middle:]]}


# --- strips -----------------------------------------------------------------------------------------------------------


def strip(desk: Desk, look: Look, kind: StripKind, concept: str | None = None) -> dict[str, Any]:
    """Pictures in a row: all edits with growing strength, each alone then together, or one edit at every place.

    Args:
        desk: draws.
        look: where to start, and the edits.
        kind: see above.
        concept: of a grid; where the look does not edit it, what moves its score by two standard deviations.

    Raises:
        ValueError: too few edits for this kind, or an unknown concept.
    """
    made = _strip(desk, look, kind, concept)
    pictures = [
        {"uri": picture_uri(image), "caption": caption}
        for image, caption in zip(made.images, made.captions, strict=True)
    ]
    return {"kind": kind, "pictures": pictures}


def _strip(desk: Desk, look: Look, kind: StripKind, concept: str | None) -> Strip:
    start = desk.code(look.unedited)[None]
    if kind == "grid":
        return grid_strip(desk.bench, _of_grid(desk, look, concept), start)
    if kind == "joint":
        return joint_strip(desk.bench, look.edits, start)
    return sweep_strip(desk.bench, look.edits, start, _FACTORS)


def _of_grid(desk: Desk, look: Look, concept: str | None) -> Instruction:
    named = [e for e in look.edits if concept in (None, e.concept)]
    if named:
        return named[-1]
    if concept not in desk.bench.boundaries:
        raise ValueError("move a slider first, or choose a concept: a grid shows one edit at every layer")
    return Instruction(str(concept), _GRID_SIGMAS, "sigmas")


# --- files ------------------------------------------------------------------------------------------------------------


def download(desk: Desk, look: Look, kind: DownloadKind) -> tuple[bytes, str, str]:
    """Bytes, media type and file name of something to keep; the picture is drawn by itself, so that its recipe repeats
    it bit for bit.

    Raises:
        ValueError: nothing is edited that could be shown in a strip or an animation.
    """
    code = None if look.seed is not None else desk.start(look)
    stem = f"{desk.bench.generator.name}-{look.seed if look.seed is not None else 'photograph'}"
    if kind in ("picture", "recipe"):
        made = edit(desk.bench, look.edits, seed=look.seed, code=code, loans=look.loans)
        if kind == "recipe":
            return made.recipe.to_json().encode(), "application/json", f"{stem}.json"
        return _bytes(".png", lambda path: save_picture(path, made.image, made.recipe)), "image/png", f"{stem}.png"
    if kind == "codes":
        opened = desk.bench.generator
        about = {"generator": opened.name, "seed": look.seed, "truncation": opened.truncation.tolist()}
        if desk.bench.weights:
            about["weights"] = desk.bench.weights
        codes = desk.start(look)[None]
        data = _bytes(".safetensors", lambda path: save_codes(path, codes, about))
        return data, "application/octet-stream", f"{stem}.safetensors"
    if not look.edits:
        raise ValueError("move a slider first: there is nothing to show in a strip or an animation")
    if kind == "strip":
        found = _strip(desk, look, "sweep" if len(look.edits) == 1 else "joint", None)
        sheet = contact_sheet(found.images, len(found.columns), captions=found.captions)
        return _bytes(".png", lambda path: save_sheet(path, sheet)), "image/png", f"{stem}-strip.png"
    frames = sweep_strip(desk.bench, look.edits, desk.code(look.unedited)[None], _FRAMES).images
    scale = max(1, 256 // desk.bench.generator.resolution)
    return _bytes(".gif", lambda path: save_animation(path, frames, scale=scale)), "image/gif", f"{stem}.gif"


def _bytes(suffix: str, write: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="higan-") as folder:
        path = Path(folder) / f"file{suffix}"
        write(path)
        return path.read_bytes()


# --- transitions ------------------------------------------------------------------------------------------------------


def transition(desk: Desk, categories: Sequence[str], num: int, progress: Progress) -> dict[str, Any]:
    """Samples of the first category turned into the next ones, and what became of their objects (Fig. 5).

    Raises:
        ValueError: there is no segmenter, or as for `higan.transitions.travel`.
    """
    if desk.segmenter is None:
        raise ValueError("there is no segmenter for this run; open the studio with one")
    journey = travel(desk.bench, desk.segmenter, categories, num=num, steps=2, progress=progress)
    # The page's policy allows no style attributes; the size of the drawing is the page's business anyway.
    drawing = sankey(journey.mappings, journey.categories).replace(f' style="--w:{_width(len(categories))}px"', "")
    rows = [
        {
            "seed": int(journey.seeds[k]),
            "pictures": [picture_uri(image) for image in journey.images[k]],
            "masks": [mask_uri(mask, journey.mappings[0].classes) for mask in journey.masks[k]],
        }
        for k in range(min(_ROWS, len(journey.seeds)))
    ]
    legs = [
        {
            "from": readable(categories[k]),
            "to": readable(categories[k + 1]),
            "layers": list(journey.legs[k].layers),
            "kept": [
                {"name": readable(row.name), "share": row.share, "low": row.low, "high": row.high}
                for row in kept(mapping)
            ],
        }
        for k, mapping in enumerate(journey.mappings)
    ]
    return {"categories": list(categories), "drawing": drawing, "rows": rows, "legs": legs, "num": num}


def _width(stations: int) -> str:
    return f"{(stations - 1) * 300.0 + 16.0 + 240:g}"


# --- photographs ------------------------------------------------------------------------------------------------------


class Inverter:
    """Turns photographs into codes. What all share, the shape of the code space, is measured at the first one.

    Args:
        desk: keeps the codes.
        steps: of optimisation, in all.
    """

    def __init__(self, desk: Desk, steps: int = 400) -> None:
        self._desk = desk
        self._shared = steps * 3 // 8
        self._single = steps - self._shared
        self._space: CodeSpace | None = None

    def __call__(self, content: bytes, progress: Progress) -> Mapping[str, Any]:
        """Decode with limits, invert, keep the code; says under which name, and how well it went.

        Raises:
            ValueError: not a PNG, JPEG or WebP picture, damaged, or of too many pixels.
        """
        generator = self._desk.bench.generator
        picture = _decoded(content, generator.resolution)
        progress(0, 1)
        if self._space is None:
            self._space = code_space(generator)
        with torch.enable_grad():
            (found,) = invert(
                generator,
                picture[None],
                space=self._space,
                shared_steps=self._shared,
                layer_steps=self._single,
                progress=progress,
            )
        return {
            "upload": self._desk.keep_upload(found.code),
            "photograph": picture_uri(picture),
            "error": round(found.error, 2),
            "start_error": round(found.start_error, 2),
            "percentile": round(found.percentile, 1),
            "distance": round(found.distance, 2),
        }


def _decoded(content: bytes, resolution: int) -> torch.Tensor:
    with tempfile.TemporaryDirectory(prefix="higan-") as folder:
        path = Path(folder) / "photograph"
        path.write_bytes(content)
        try:
            return open_photograph(path, resolution, most_pixels=MOST_PIXELS, formats=_FORMATS)
        except (ValueError, CheckpointError) as error:
            raise ValueError(str(error).replace(str(path), "this file")) from error
