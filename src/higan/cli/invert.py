"""The verb invert."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from higan import load_scorer
from higan.cli.app import EMBEDDED, Device, GeneratorName, app, console, progress_bars
from higan.cli.models import GeneratorOptions, Label, digests_of, generator_options, open_generator, weights_digest
from higan.cli.outputs import prepare, room_for
from higan.errors import HiganError
from higan.export import contact_sheet, save_codes, save_sheet
from higan.inversion import Features, Inversion, code_space, invert, load_inversion, pictures_at_once, save_inversion
from higan.photographs import open_photograph
from higan.scorers.combined import parts_of
from higan.scorers.rooms import RoomsScorer
from higan.study.reports import of_step
from higan.types import Scorer


@app.command("invert")
def invert_(
    photographs: Annotated[list[Path], typer.Argument(help="PNG, JPEG, WebP, BMP, TIFF or GIF; any size.")],
    out: Annotated[Path, typer.Option("--out", help="Codes: safetensors or npy; NAME-inverted.png is put beside.")],
    generator: GeneratorName = EMBEDDED,
    label: Label = None,
    generator_option: GeneratorOptions = None,
    scorer: Annotated[str | None, typer.Option("--scorer", help="Whose features to compare; none by default.")] = None,
    steps: Annotated[int, typer.Option(help="Of optimisation, in all.")] = 400,
    regularise: Annotated[float, typer.Option(help="Larger stays nearer to what the generator samples.")] = 0.005,
    device: Device = "cpu",
) -> None:
    """Projects photographs into the generator's codes, to be edited with `higan edit --codes`.

    Interrupted, what is finished is kept in OUT-unfinished, beside the codes, until the same line has done the rest.
    """
    prepare(out, ".safetensors", ".npy")
    if steps < 0 or not 0 <= regularise < math.inf:
        raise ValueError(f"--steps and --regularise must be 0 or more, and finite; got {steps} and {regularise:g}")
    sheet = out.with_name(f"{out.stem}-inverted.png")
    _spare(photographs, out, sheet)
    options = generator_options(generator_option)
    model = open_generator(generator, device, label, options)
    features = None if scorer is None else _features(load_scorer(scorer, device))
    pictures = [open_photograph(path, model.resolution) for path in photographs]
    weights = weights_digest(generator)
    about = {
        "generator": model.name,
        "weights": weights,
        "truncation": model.truncation.tolist(),
        "photographs": [path.name for path in photographs],
    }
    eyes = None if scorer is None else (scorer, digests_of(generator, scorer))
    how = [generator, weights, sorted(options.items()), label, about["truncation"], eyes, steps, regularise]
    kept = out.with_name(f"{out.name}-unfinished")
    table = Table("photograph", "error / grey levels", "of mean code", "distance", "nearer samples", "layer spread")
    space = code_space(model)
    found: list[Inversion] = []
    files: list[Path] = []
    with progress_bars() as bars:
        for some in torch.stack(pictures).split(pictures_at_once(model)):
            key = _key(how, some)
            names = [path.name for path in photographs[len(found) : len(found) + len(some)]]
            those = [kept / f"{key}-{k}.safetensors" for k in range(len(some))]
            make = partial(
                invert, model, some, space=space, features=features, shared_steps=steps * 3 // 8,
                layer_steps=steps - steps * 3 // 8, regularise=regularise, progress=of_step(bars, _told(names)),
            )  # fmt: skip
            found += _kept_or_made(those, make)
            files += those
    for path, result in zip(photographs, found, strict=True):
        table.add_row(
            path.name, f"{result.error:.1f}", f"{result.start_error:.1f}", f"{result.distance:.2f}",
            f"{result.percentile:.0f} %", f"{result.layer_spread:.2f}",
        )  # fmt: skip
    save_codes(room_for(out), torch.stack([result.code for result in found]), about)
    pairs = torch.stack([image for p, r in zip(pictures, found, strict=True) for image in (p, r.image)])
    captions = [text for r in found for text in ("photograph", f"its code, {r.error:.0f} levels off")]
    save_sheet(sheet, contact_sheet(pairs, 2, captions=captions, rows=[path.name[:24] for path in photographs]))
    _forget(files)
    console.print(table)
    console.print(f"Codes: {out}, pictures: {sheet}", highlight=False, soft_wrap=True)


def _key(how: Sequence[Any], pictures: Tensor) -> str:
    """Names an inversion by everything that it depends on; of the other pictures of its call the rounding does."""
    return hashlib.sha256(json.dumps(how).encode() + pictures.contiguous().numpy().tobytes()).hexdigest()[:16]


def _told(names: Sequence[str]) -> str:
    """What is under way."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _kept_or_made(files: Sequence[Path], make: Callable[[], Sequence[Inversion]]) -> Sequence[Inversion]:
    """What an interrupted line had finished; made, and kept, where it had not or where some of it is damaged."""
    with suppress(HiganError):
        return [load_inversion(file) for file in files]
    made = make()
    for file, inversion in zip(files, made, strict=True):
        save_inversion(room_for(file), inversion)
    return made


def _forget(kept: Sequence[Path]) -> None:
    """Removes what is no longer needed, and its folder unless lines with other settings have left something there."""
    for file in kept:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        kept[0].parent.rmdir()


def _spare(photographs: list[Path], *written: Path) -> None:
    """Refuse to write over what is read."""
    for path in written:
        if path.exists() and any(photo.exists() and path.samefile(photo) for photo in photographs):
            raise ValueError(f"{path} is one of the photographs and would be overwritten; give --out another name")


def _features(scorer: Scorer) -> Features:
    """Features of the embedded scorer's network, differentiable.

    Raises:
        ValueError: the scorer has none.
    """
    for part in parts_of(scorer):
        if isinstance(part, RoomsScorer):
            network, size = part.network, part.network.size
            return lambda images: network.features(
                torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
                if images.shape[-1] != size
                else images
            )
    raise ValueError(f"scorer {scorer.name!r} has no features that gradients pass through; leave --scorer out")
