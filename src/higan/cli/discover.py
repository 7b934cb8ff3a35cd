"""The verb discover."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from rich.table import Table
from rich.text import Text
from torch import Tensor

from higan import store
from higan.cli.app import Device, app, console, progress_bars
from higan.cli.outputs import check_folder, prepare, room_for
from higan.cli.runs import Run, models_of
from higan.directions import Method, discover
from higan.errors import HiganError
from higan.export import save_directions
from higan.recipes import format_layers
from higan.report.words import percent
from higan.samples import OnDisk
from higan.statistics import score_stds
from higan.study.reports import of_step
from higan.types import Concept, Scorer


@app.command("discover")
def discover_(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", help="safetensors file, or a folder for .npy.")] = None,
    method: Annotated[Method, typer.Option(help="sefa: from the weights; pca: from the codes.")] = "sefa",
    per_stage: Annotated[int, typer.Option(help="Directions per stage.")] = 3,
    num: Annotated[int, typer.Option(help="Samples moved along each.")] = 32,
    device: Device = "cpu",
) -> None:
    """Finds directions without labels and names each by what it changes."""
    if out is not None and out.suffix:
        prepare(out, ".safetensors")
    elif out is not None:
        check_folder(out)
        if there := [path.name for path in sorted(out.glob(f"{method}_*"))]:
            raise ValueError(f"{out} holds directions of an earlier search ({there[0]} …); choose another folder")
    opened = store.load_run(run)
    generator, scorer, _ = models_of(opened, device)
    std = _spreads(opened, scorer)
    with progress_bars(resumes=False) as bars:
        found = discover(
            generator, scorer, method=method, num=per_stage, num_samples=num, std=std, progress=of_step(bars, "Moving")
        )
    told = None
    if out is not None:
        named = [
            replace(d.boundary, concept=Concept(f"{method} {k} {d.boundary.concept.name}", d.boundary.concept.level))
            for k, d in enumerate(found)
        ]
        advice = {b.concept.name: d.candidate.layers for b, d in zip(named, found, strict=True)}
        written = save_directions(room_for(out), named, advice)
        told = f"{len(found)} directions in {out} ({len(written)} files)"
    table = Table("layers", "eigenvalue", "changes most", "by / σ", "95 % interval", "first in", "chance / σ", "")
    for d in found:
        table.add_row(
            format_layers(d.candidate.layers),
            f"{d.candidate.value:.3g}",
            d.boundary.concept.name,
            f"{d.effect:+.2f}",
            f"{d.low:.2f} … {d.high:.2f}",
            percent(d.confidence),
            f"{d.chance:.2f}",
            "named" if d.named else Text("may be chance", "dim"),
        )
    console.print(table)
    if told is not None:
        console.print(told, highlight=False, soft_wrap=True)


_COLUMNS = 32
"""Scores read at a time."""


def _spreads(run: store.Run, scorer: Scorer) -> Float[Tensor, " C"] | None:
    """Standard deviations of the run's scores; None where neither its samples nor a re-scoring is there to tell."""
    with suppress(HiganError):
        return score_stds(store.load_rescoring(run), scorer.concepts)
    with suppress(HiganError):
        samples = OnDisk.open(run)
        columns = torch.arange(len(samples.concepts)).split(_COLUMNS)
        return torch.cat([samples.scores(some.tolist()).double().std(0) for some in columns]).float()
    return None
