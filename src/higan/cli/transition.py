"""The verb transition."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from higan import load_segmenter, store
from higan.cli.app import EMBEDDED, Device, SegmenterName, app, console, progress_bars
from higan.cli.codes import sources
from higan.cli.outputs import check_folder
from higan.cli.runs import Run, bench_and_segmenter
from higan.files import write_whole
from higan.generators.rooms import RoomsGenerator
from higan.layers import groups, parse_layers
from higan.report.editpages import transition_page
from higan.report.words import percent
from higan.transitions import Journey, flows, kept, travel
from higan.types import Segmenter


@app.command()
def transition(
    categories: Annotated[list[str], typer.Argument(help="Two or more concepts, from the first to the last.")],
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Folder for transition.html and transition.json.")],
    segmenter: SegmenterName = None,
    num: Annotated[int | None, typer.Option(help="Samples; 48, or as many as there are codes.")] = None,
    steps: Annotated[int, typer.Option(help="Pictures per leg.")] = 2,
    strength: Annotated[
        float | None, typer.Option(help="Length of a leg in code space, as λ is; by default worth 2 σ.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Where; by default, of what raises the category nearly as far as the best, what moves codes least; "
            "with --strength the recommended ones."
        ),
    ] = None,
    shown: Annotated[int, typer.Option(help="Samples to show.", min=0)] = 6,
    codes: Annotated[Path | None, typer.Option("--codes", help="Start from codes, such as inverted pictures.")] = None,
    device: Device = "cpu",
) -> None:
    """Turns one kind of scene into others and counts what became of the objects (Fig. 5)."""
    if codes is not None and num is not None:
        raise ValueError("--num says how many samples to draw, and --codes brings its own; leave one of them out")
    bench, own = bench_and_segmenter(run, device)
    if segmenter is None and own is None and isinstance(bench.generator, RoomsGenerator):
        segmenter = EMBEDDED
    seen = load_segmenter(segmenter, device) if segmenter else own
    if seen is None:
        raise ValueError("this run has no segmenter to count objects with; name one with --segmenter")
    check_folder(out)
    L = bench.generator.num_layers
    where = None if layers is None else parse_layers(layers, num_layers=L, names=groups(L))
    begin = None if codes is None else sources(bench, None, codes, "--seed", "--codes")[0]
    with progress_bars(resumes=False) as bars:
        journey = travel(
            bench, seen, categories, codes=begin, num=48 if num is None else num, steps=steps, strength=strength,
            layers=where, seed=store.load_run(run).seed, progress=partial(bars, "Transition"),
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    page, record = transition_page(journey, seen.name, shown=shown), _transition_json(journey, seen)
    write_whole(out / "transition.html", page.encode())
    write_whole(out / "transition.json", record.encode())
    for k, mapping in enumerate(journey.mappings):
        stays = {row.name: row for row in kept(mapping)}
        told = ", ".join(f"{percent(stays[n].share)} of {n}" for n in ("stuff", "things") if n in stays)
        console.print(f"{categories[k]} → {categories[k + 1]}: {told} keep their class", highlight=False)
    console.print(f"{out / 'transition.html'}", highlight=False, soft_wrap=True)


def _transition_json(journey: Journey, segmenter: Segmenter) -> str:
    legs = [
        {
            "from": journey.categories[k],
            "to": journey.categories[k + 1],
            "strength": journey.legs[k].strength,
            "layers": list(journey.legs[k].layers),
            "kept": [asdict(row) for row in kept(mapping)],
            "flows": [
                {**asdict(flow), "source": flow.source.name, "target": flow.target.name} for flow in flows(mapping)
            ],
        }
        for k, mapping in enumerate(journey.mappings)
    ]
    return json.dumps({"segmenter": segmenter.name, "seeds": journey.seeds.tolist(), "legs": legs}, indent=1)
