"""Samples of a generator by their seeds, before there is a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from torch import Tensor

from higan.cli.app import EMBEDDED, Device, GeneratorName, app, console, progress_bars
from higan.cli.codes import parse_seeds
from higan.cli.models import GeneratorOptions, Label, generator_options, open_generator, weights_digest
from higan.cli.outputs import check_folder, is_folder, picture_name, prepare, room_for, save_movement
from higan.export import contact_sheet, read_recipe, save_picture, save_sheet
from higan.strips import starts
from higan.workbench import Workbench, edit, in_series
from higan.workbench import draw as draw_all

__all__ = ["draw"]


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
    numbers = parse_seeds(seeds)
    folder = is_folder(out)
    if folder:
        check_folder(out)
    else:
        prepare(out, ".png", ".gif", ".webp", ".mp4")
    opened = open_generator(generator, device, label, generator_options(generator_option))
    bench = Workbench(opened, {}, weights=weights_digest(generator))
    if folder:
        _check_own(bench, out, numbers)
    kept = f"What was drawn is in {out}." if folder else None
    with progress_bars(resumes=False, after=kept) as bars:
        progress = partial(bars, "Drawing")
        if folder or (out.suffix == ".png" and len(numbers) == 1):
            for k, number in enumerate(numbers, 1):
                made = edit(bench, [], seed=number)
                save_picture(room_for(out / picture_name("seed", number) if folder else out), made.image, made.recipe)
                progress(k, len(numbers))
        elif out.suffix == ".png":
            images, names = draw_all(opened, starts(bench, numbers), progress), [f"seed {number}" for number in numbers]
            save_sheet(room_for(out), contact_sheet(images, min(len(numbers), 8), captions=names))
        else:
            save_movement(out, draw_all(opened, walk(starts(bench, numbers), frames), progress), there_and_back=False)
    console.print(f"{len(numbers)} samples in {out}", highlight=False, soft_wrap=True)


def _check_own(bench: Workbench, out: Path, numbers: Sequence[int]) -> None:
    """Before the work: pictures of these names that are there are those that would be drawn."""
    series = in_series(bench, [])
    for number in numbers:
        path = out / picture_name("seed", number)
        if path.exists() and not series.made(read_recipe(path), seed=number):
            raise ValueError(f"{path} was drawn by another generator, or edited; choose another folder")


def walk(codes: Float[Tensor, "n L D"], frames: int) -> Float[Tensor, "m L D"]:
    """Codes on straight lines from each sample to the next and from the last back to the first, evenly in time.

    Raises:
        ValueError: a single sample.
    """
    if len(codes) < 2:
        raise ValueError("a movement goes from one sample to the next; name two seeds or more")
    share = (torch.arange(frames, device=codes.device) / frames)[:, None, None]
    return torch.cat([torch.lerp(a, b, share) for a, b in pairwise([*codes, codes[0]])])
