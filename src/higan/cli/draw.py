"""Samples of a generator by their seeds, before there is a run."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from torch import Tensor

from higan.cli.app import EMBEDDED, Device, GeneratorName, app, console, progress_bars
from higan.cli.codes import check_seeds
from higan.cli.models import GeneratorOptions, Label, generator_options, open_generator, weights_digest
from higan.cli.outputs import prepare, room_for, save_movement
from higan.export import contact_sheet, save_picture, save_sheet
from higan.strips import starts
from higan.workbench import Workbench, edit
from higan.workbench import draw as draw_all

__all__ = ["draw"]

_MOST = 10_000


@app.command()
def draw(
    out: Annotated[
        Path,
        typer.Option("--out", help="png: a sheet; a folder: one each; gif, webp, mp4: from one to the next."),
    ],
    seeds: Annotated[str, typer.Option("--seeds", help="As 0-15 or 3,7,20-29.")] = "0-15",
    generator: GeneratorName = EMBEDDED,
    label: Label = None,
    generator_option: GeneratorOptions = None,
    frames: Annotated[int, typer.Option(help="Of a movement, from one sample to the next.", min=2)] = 24,
    device: Device = "cpu",
) -> None:
    """Draws samples of a generator: a sheet, single pictures with their recipes, or a walk from one to the next."""
    numbers = _parse(seeds)
    if out.suffix:
        prepare(out, ".png", ".gif", ".webp", ".mp4")
    opened = open_generator(generator, device, label, generator_options(generator_option))
    bench = Workbench(opened, {}, weights=weights_digest(generator))
    kept = None if out.suffix else f"What was drawn is in {out}."
    with progress_bars(resumes=False, after=kept) as bars:
        progress = partial(bars, "Drawing")
        if not out.suffix or (out.suffix == ".png" and len(numbers) == 1):
            for k, number in enumerate(numbers, 1):
                made = edit(bench, [], seed=number)
                save_picture(room_for(out if out.suffix else out / f"seed-{number:04d}.png"), made.image, made.recipe)
                progress(k, len(numbers))
        elif out.suffix == ".png":
            images, names = draw_all(opened, starts(bench, numbers), progress), [f"seed {number}" for number in numbers]
            save_sheet(room_for(out), contact_sheet(images, min(len(numbers), 8), captions=names))
        else:
            save_movement(out, draw_all(opened, walk(starts(bench, numbers), frames), progress), there_and_back=False)
    console.print(f"{len(numbers)} samples in {out}", highlight=False, soft_wrap=True)


def walk(codes: Float[Tensor, "n L D"], frames: int) -> Float[Tensor, "m L D"]:
    """Codes on straight lines from each sample to the next and from the last back to the first, evenly in time.

    Raises:
        ValueError: a single sample.
    """
    if len(codes) < 2:
        raise ValueError("a movement goes from one sample to the next; name two seeds or more")
    share = (torch.arange(frames, device=codes.device) / frames)[:, None, None]
    return torch.cat([torch.lerp(a, b, share) for a, b in pairwise([*codes, codes[0]])])


def _parse(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if found is None:
            raise ValueError(f"seeds are written as 0-15 or 3,7,20-29; cannot read {part.strip()!r} in {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < first + _MOST:
            raise ValueError(f"seeds run upwards, at most {_MOST:,} of them at a time; got {part.strip()}")
        numbers += range(first, last + 1)
    check_seeds(numbers)
    return list(dict.fromkeys(numbers))
