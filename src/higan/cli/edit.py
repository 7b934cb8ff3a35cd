"""Verbs that make pictures: edit, mix, transition, invert, discover."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table
from torch import Tensor

from higan import load_generator, load_scorer, load_segmenter, store
from higan.cli.app import Device, Report, app, console, progress_bars
from higan.cli.models import weights_digest
from higan.cli.study import _models_of
from higan.directions import Method, discover
from higan.effects import matched, measure_effects, projected
from higan.errors import RunMismatchError
from higan.export import (
    contact_sheet,
    load_codes,
    read_recipe,
    save_animation,
    save_codes,
    save_directions,
    save_picture,
    save_sheet,
    save_slider,
    save_video,
)
from higan.inversion import Features, invert
from higan.layers import groups, parse_layers
from higan.mixing import mixing_grid
from higan.photographs import open_photograph
from higan.recipes import Loan, format_layers
from higan.report.flows import effects_chart, flow_table, kept_table, page, sankey
from higan.report.pictures import mask_uri, picture_uri
from higan.report.words import percent
from higan.scorers.combined import CombinedScorer
from higan.scorers.rooms import SIZE, RoomsScorer
from higan.strips import Strip, grid_strip, joint_strip, parse_sweep, starts, sweep_strip
from higan.transitions import Journey, flows, kept, travel
from higan.types import Concept, Edit, Scorer
from higan.workbench import Edited, Workbench, draw, edit, open_workbench, recommend, repeat

Run = Annotated[Path, typer.Option("--run", help="Folder of a finished run: generator, scorer, boundaries, layers.")]
Picture = Annotated[Path, typer.Option("--out", help="png · gif · webp · mp4 · html (with a slider).")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Sample; may be repeated.")]
Codes = Annotated[Path | None, typer.Option("--codes", help="Start from codes (safetensors, npy), not from seeds.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="wood=+2 · view_yaw=-1.5@0-1 · wood=+1.5s · wood=>2.3")]
Conditions = Annotated[
    list[str] | None, typer.Option("--condition", help="Concept to be left alone (projected out); may be repeated.")
]


def _progress(bars: Report, step: str) -> Callable[[int, int], None]:
    return lambda done, total: bars(step, done, total)


@app.command("edit")
def edit_(
    run: Run,
    out: Picture,
    seed: Seeds = None,
    codes: Codes = None,
    changes: Sets = None,
    condition: Conditions = None,
    sweep: Annotated[str | None, typer.Option(help="first:last:number; factors of all edits, as in -3:3:7.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="One edit at every layer and stage.")] = False,
    joint: Annotated[bool, typer.Option("--joint", help="Each edit alone, then all together.")] = False,
    again: Annotated[Path | None, typer.Option("--from", help="Repeat the recipe of this picture.")] = None,
    device: Device = "cpu",
) -> None:
    """Edits samples or inverted photographs: pictures, strips, grids, animations."""
    bench = _workbench(run, device)
    if again is not None:
        if changes or seed or condition or sweep or grid or joint:
            raise ValueError("--from repeats a picture as it is; leave the other options out (--codes may be needed)")
        made = repeat(bench, read_recipe(again), code=None if codes is None else load_codes(codes)[0])
        save_picture(out, made.image, made.recipe)
        console.print(f"{out}, repeated from {again}", highlight=False, soft_wrap=True)
        return
    chosen, conditions = changes or [], condition or []
    if sum((sweep is not None, grid, joint)) > 1:
        raise ValueError("choose one of --sweep, --grid and --joint")
    if codes is not None and seed:
        raise ValueError("start from --seed or from --codes, not from both")
    numbers = [] if codes is not None else seed or [0]
    begin = load_codes(codes).to(bench.generator.device) if codes is not None else starts(bench, numbers)
    if sweep is not None:
        strip = sweep_strip(bench, chosen, begin, parse_sweep(sweep), conditions=conditions)
    elif grid:
        if len(chosen) != 1:
            raise ValueError(f"--grid shows one edit at every layer; got {len(chosen)}")
        strip = grid_strip(bench, chosen[0], begin, conditions=conditions)
    elif joint:
        strip = joint_strip(bench, chosen, begin, conditions=conditions)
    elif len(begin) == 1 and out.suffix == ".png":
        made = _single(bench, chosen, begin, numbers, conditions)
        save_picture(out, made.image, made.recipe)
        _say_edits(made)
        console.print(f"{out}", highlight=False, soft_wrap=True)
        return
    else:
        strip = sweep_strip(bench, chosen, begin, (0.0, 1.0), conditions=conditions)
    names = [f"seed {number}" for number in numbers] or [f"code {k}" for k in range(len(begin))]
    _save_strip(out, strip, names, chosen)
    console.print(f"{len(strip.images)} pictures in {out}", highlight=False, soft_wrap=True)


def _single(bench: Workbench, chosen: list[str], begin: Tensor, numbers: list[int], conditions: list[str]) -> Edited:
    if numbers:
        return edit(bench, chosen, seed=numbers[0], conditions=conditions)
    return edit(bench, chosen, code=begin[0], conditions=conditions)


def _say_edits(made: Edited) -> None:
    for move in made.recipe.moves:
        where = format_layers(move.layers)
        console.print(f"{move.concept}: {move.strength:+.3g} steps at layers {where}", highlight=False)


def _save_strip(out: Path, strip: Strip, rows: list[str], chosen: list[str]) -> None:
    if out.suffix == ".png":
        sheet = contact_sheet(strip.images, len(strip.columns), captions=strip.captions, rows=rows)
        save_sheet(out, sheet)
        return
    if len(rows) > 1:
        raise ValueError(f"{out.suffix or 'this ending'} shows one sample; got {len(rows)}: write a .png")
    scale = max(1, 256 // strip.images.shape[-1])
    if out.suffix == ".html":
        save_slider(out, strip.images, [c.replace("\n", " · ") for c in strip.captions], title=" ".join(chosen))
    elif out.suffix == ".mp4":
        save_video(out, strip.images, scale=scale)
    else:
        save_animation(out, strip.images, scale=scale)


def _workbench(run: Path, device: str) -> Workbench:
    opened = store.load_run(run)
    generator, scorer, _ = _models_of(opened, device)
    name = opened.provenance["generator"]
    made, here = opened.settings.get("digests", {}).get(f"generator {name}", ""), weights_digest("generators", name)
    if made and here != made:
        raise RunMismatchError(f"{name} is no longer the file that {run} was made with: its SHA-256 has changed")
    return open_workbench(opened, generator, scorer)


@app.command("side-effects")
def side_effects(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="HTML file.")],
    concept: Annotated[list[str] | None, typer.Option("--concept", help="Only these; may be repeated.")] = None,
    target: Annotated[float, typer.Option(help="Every edit moves its own score by so many standard deviations.")] = 1.0,
    num: Annotated[int, typer.Option(help="Samples.")] = 48,
    device: Device = "cpu",
) -> None:
    """Measures what else every edit changes, before and after projecting the others out; draws two heat maps."""
    bench = _workbench(run, device)
    if bench.scorer is None or bench.rescoring is None:
        raise ValueError("side effects are measured with a scorer and a re-scoring")
    edits = {}
    for name in concept or list(bench.boundaries):
        if name not in bench.boundaries:
            raise ValueError(f"unknown concept {name!r}; there are boundaries for: {', '.join(bench.boundaries)}")
        layers = recommend(bench.rescoring, name).layers
        edits[name] = Edit(bench.boundaries[name], 2.0, layers)
    sections = []
    for title, variant in (("As fitted", edits), ("Others projected out", projected(edits))):
        with progress_bars() as bars:
            found = matched(bench.generator, bench.scorer, variant, target=target)
            missing = sorted(set(edits) - set(found))
            effects = measure_effects(bench.generator, bench.scorer, found, num=num, progress=_progress(bars, title))
        label = f"Change of every score under every edit, in standard deviations: {title.lower()}"
        note = f"<p>Out of reach: {', '.join(missing)}.</p>" if missing else ""
        sections.append((title, f'<div class="scroll">{effects_chart(effects, label)}</div>{note}'))
    out.write_text(page("What else an edit changes", *sections), encoding="utf-8")
    console.print(f"{out}", highlight=False, soft_wrap=True)


@app.command()
def mix(
    seed: Annotated[list[int], typer.Option("--seed", help="Sample that receives layers; may be repeated.")],
    donor: Annotated[list[int], typer.Option("--donor", help="Sample that lends them; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file.")],
    layers: Annotated[str, typer.Option(help="As 0,3-5, or bottom, lower, upper, top (the palette).")] = "top",
    generator: Annotated[str, typer.Option("--generator", help="Name (rooms, toy) or weight file.")] = "rooms",
    device: Device = "cpu",
) -> None:
    """Style mixing: layers of one sample in another; the last ones carry the palette."""
    bench = Workbench(load_generator(generator, device), {}, weights=weights_digest("generators", generator))
    stages = groups(bench.generator.num_layers)
    where = parse_layers(layers, num_layers=bench.generator.num_layers, names=stages)
    if len(seed) == len(donor) == 1:
        made = edit(bench, [], seed=seed[0], loans=[Loan(donor[0], where)])
        save_picture(out, made.image, made.recipe)
    else:
        codes, donors = starts(bench, seed), starts(bench, donor)
        mixed = mixing_grid(codes, donors, where)
        rows = [torch.cat([codes[k : k + 1], mixed[k]]) for k in range(len(codes))]
        grid = torch.cat([donors[:1], donors, *rows])
        images = draw(bench.generator, grid)
        images[0] = 255
        captions = ["", *(f"donor {k}" for k in donor)] + [""] * (len(grid) - len(donor) - 1)
        names = [f"layers {format_layers(where)}", *(f"seed {k}" for k in seed)]
        save_sheet(out, contact_sheet(images, len(donor) + 1, captions=captions, rows=names))
    console.print(f"{out}", highlight=False, soft_wrap=True)


@app.command()
def transition(
    categories: Annotated[list[str], typer.Argument(help="Two or more concepts, from the first to the last.")],
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Folder for transition.html and transition.json.")],
    segmenter: Annotated[str, typer.Option("--segmenter", help="Name (rooms) or weight file.")] = "rooms",
    num: Annotated[int, typer.Option(help="Samples.")] = 48,
    steps: Annotated[int, typer.Option(help="Pictures per leg.")] = 2,
    strength: Annotated[float | None, typer.Option(help="Steps λ per leg; by default worth 2 σ.")] = None,
    layers: Annotated[str | None, typer.Option(help="Where; by default what the re-scoring recommends.")] = None,
    shown: Annotated[int, typer.Option(help="Samples to show.")] = 6,
    device: Device = "cpu",
) -> None:
    """Turns one kind of scene into others and counts what became of the objects (Fig. 5)."""
    bench = _workbench(run, device)
    L = bench.generator.num_layers
    where = None if layers is None else parse_layers(layers, num_layers=L, names=groups(L))
    journey = travel(
        bench, load_segmenter(segmenter, device), categories, num=num, steps=steps, strength=strength, layers=where
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "transition.html").write_text(_transition_page(journey, shown), encoding="utf-8")
    (out / "transition.json").write_text(_transition_json(journey), encoding="utf-8")
    for k, mapping in enumerate(journey.mappings):
        stays = {row.name: row for row in kept(mapping)}
        told = ", ".join(f"{percent(stays[n].share)} of {n}" for n in ("stuff", "things") if n in stays)
        console.print(f"{categories[k]} → {categories[k + 1]}: {told} keep their class", highlight=False)
    console.print(f"{out / 'transition.html'}", highlight=False, soft_wrap=True)


def _transition_page(journey: Journey, shown: int) -> str:
    mapping = journey.mappings[0]
    rows = []
    for k in range(min(shown, len(journey.seeds))):
        cells = []
        for images in (journey.images[k], None):
            for station in range(journey.images.shape[1]):
                uri = (
                    mask_uri(journey.masks[k, station], mapping.classes)
                    if images is None
                    else picture_uri(images[station])
                )
                what = "object classes" if images is None else f"sample {int(journey.seeds[k])}"
                cells.append(f'<div class="picture"><img src="{uri}" alt="{what}, station {station}"></div>')
        half = len(cells) // 2
        style = f'style="--n:{half}"'
        rows.append(
            f'<div class="pictures" {style}>{"".join(cells[:half])}</div>'
            f'<div class="pictures" {style}>{"".join(cells[half:])}</div>'
        )
    sections = [
        ("On the way", f'<div class="strips pixelated">{"".join(f"<div>{row}</div>" for row in rows)}</div>'),
        ("What became of the objects", sankey(journey.mappings, journey.categories)),
    ]
    for k, leg in enumerate(journey.mappings):
        title = f"{journey.categories[k]} to {journey.categories[k + 1]}".replace("_", " ")
        sections.append((title, f'<div class="charts"><div>{kept_table(leg)}</div><div>{flow_table(leg)}</div></div>'))
    return page(" to ".join(name.replace("_", " ") for name in journey.categories), *sections)


def _transition_json(journey: Journey) -> str:
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
    return json.dumps({"seeds": journey.seeds.tolist(), "legs": legs}, indent=1)


@app.command("invert")
def invert_(
    photographs: Annotated[list[Path], typer.Argument(help="PNG, JPEG, WebP, BMP, TIFF or GIF; any size.")],
    out: Annotated[Path, typer.Option("--out", help="Codes: safetensors or npy; pictures are put beside them.")],
    generator: Annotated[str, typer.Option("--generator", help="Name (rooms, toy) or weight file.")] = "rooms",
    scorer: Annotated[str | None, typer.Option("--scorer", help="Whose features to compare; none by default.")] = None,
    steps: Annotated[int, typer.Option(help="Of optimisation, in all.")] = 400,
    regularise: Annotated[float, typer.Option(help="Larger stays nearer to what the generator samples.")] = 0.005,
    device: Device = "cpu",
) -> None:
    """Projects photographs into the generator's codes, to be edited with `higan edit --codes`."""
    model = load_generator(generator, device)
    features = None if scorer is None else _features(load_scorer(scorer, device))
    if out.suffix not in (".safetensors", ".npy"):
        raise ValueError(f"--out must end in .safetensors or .npy; got {out}")
    pictures = [open_photograph(path, model.resolution) for path in photographs]
    table = Table("photograph", "error / grey levels", "of mean code", "distance", "nearer samples", "layer spread")
    found = []
    with progress_bars() as bars:
        for path, picture in zip(photographs, pictures, strict=True):
            result = invert(
                model, picture, features=features, shared_steps=steps * 3 // 8, layer_steps=steps - steps * 3 // 8,
                regularise=regularise, progress=_progress(bars, path.name),
            )  # fmt: skip
            found.append(result)
            table.add_row(
                path.name, f"{result.error:.1f}", f"{result.start_error:.1f}", f"{result.distance:.2f}",
                f"{result.percentile:.0f} %", f"{result.layer_spread:.2f}",
            )  # fmt: skip
    about = {"generator": model.name, "photographs": [path.name for path in photographs]}
    save_codes(out, torch.stack([result.code for result in found]), about)
    pairs = torch.stack([image for p, r in zip(pictures, found, strict=True) for image in (p, r.image)])
    sheet = out.with_suffix(".png")
    save_sheet(sheet, contact_sheet(pairs, 2, rows=[path.name[:24] for path in photographs]))
    console.print(table)
    console.print(f"Codes: {out}, pictures: {sheet}", highlight=False, soft_wrap=True)


def _features(scorer: Scorer) -> Features:
    """Features of the embedded scorer's network, differentiable.

    Raises:
        ValueError: the scorer has none.
    """
    parts = scorer.scorers if isinstance(scorer, CombinedScorer) else (scorer,)
    for part in parts:
        if isinstance(part, RoomsScorer):
            network = part.network
            return lambda images: network.features(
                torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
                if images.shape[-1] != SIZE
                else images
            )
    raise ValueError(f"scorer {scorer.name!r} has no features that gradients pass through; leave --scorer out")


@app.command("discover")
def discover_(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", help="safetensors file, or a folder for .npy.")] = None,
    method: Annotated[Method, typer.Option(help="sefa: from the weights; pca: from the codes.")] = "sefa",
    num: Annotated[int, typer.Option(help="Directions per stage.")] = 3,
    samples: Annotated[int, typer.Option(help="Samples moved along each.")] = 32,
    device: Device = "cpu",
) -> None:
    """Finds directions without labels and names each by what it changes."""
    opened = store.load_run(run)
    generator, scorer, _ = _models_of(opened, device)
    with progress_bars() as bars:
        found = discover(
            generator, scorer, method=method, num=num, num_samples=samples, progress=_progress(bars, "Moving")
        )
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
            "named" if d.named else "[dim]may be chance[/]",
        )
    console.print(table)
    if out is not None:
        named = [
            replace(d.boundary, concept=Concept(f"{method} {k} {d.boundary.concept.name}", d.boundary.concept.level))
            for k, d in enumerate(found)
        ]
        advice = {b.concept.name: d.candidate.layers for b, d in zip(named, found, strict=True)}
        written = save_directions(out, named, advice)
        console.print(f"{len(found)} directions in {out} ({len(written)} files)", highlight=False, soft_wrap=True)
