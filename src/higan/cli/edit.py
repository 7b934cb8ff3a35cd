"""The verb edit: pictures, strips, grids, animations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from higan.cli.app import Device, app, console, progress_bars
from higan.cli.codes import Codes, DonorCodes, Seeds, codes_for
from higan.cli.outputs import prepare, room_for, save_movement
from higan.cli.runs import Run, bench_of
from higan.export import contact_sheet, load_codes, load_directions, read_recipe, save_picture, save_sheet, save_slider
from higan.recipes import Instruction, format_layers
from higan.report.words import layer_span, readable
from higan.strips import Strip, folded, grid_strip, joint_strip, parse_sweep, starts, sweep_strip
from higan.workbench import Edited, Workbench, digest_of_codes, draw, edit, repeat, with_directions

Sets = Annotated[list[str] | None, typer.Option("--set", help="wood=+2 · view_yaw=-1.5@0-1 · wood=+1.5s · 'wood=>2.3'")]
Conditions = Annotated[
    list[str] | None, typer.Option("--condition", help="Concept to be left alone (projected out); may be repeated.")
]
Directions = Annotated[
    list[Path] | None,
    typer.Option(
        "--directions", help="More to --set, of `higan discover` or other tools: safetensors, npy or a folder."
    ),
]
Picture = Annotated[Path, typer.Option("--out", help="png · gif · webp · mp4 · html (with a slider).")]


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
    donor_codes: DonorCodes = None,
    directions: Directions = None,
    device: Device = "cpu",
) -> None:
    """Edits samples or inverted photographs: pictures, strips, grids, animations."""
    prepare(out, ".png", *(() if again is not None else (".gif", ".webp", ".mp4", ".html")))
    bench = bench_of(run, device)
    for path in directions or ():
        bench = with_directions(bench, *load_directions(path))
    if again is not None:
        if changes or seed or condition or sweep or grid or joint:
            raise ValueError("--from repeats a picture as it is; leave the other options out (--codes may be needed)")
        _repeat(bench, again, out, codes, donor_codes)
        return
    if donor_codes is not None:
        raise ValueError("--donor-codes goes with --from, for a picture made by `higan mix`")
    chosen, conditions = changes or [], condition or []
    if sum((sweep is not None, grid, joint)) > 1:
        raise ValueError("choose one of --sweep, --grid and --joint")
    if grid and len(chosen) != 1:
        raise ValueError(f"--grid shows one edit at every layer; got {len(chosen)}")
    if codes is not None and seed:
        raise ValueError("start from --seed or from --codes, not from both")
    numbers = [] if codes is not None else seed or [0]
    begin = codes_for(bench, codes) if codes is not None else starts(bench, numbers)
    names = [f"seed {number}" for number in numbers] or [f"code {k}" for k in range(len(begin))]
    _check_shown(out, len(begin), chosen, conditions, strip=sweep is not None or grid or joint)
    if not chosen and len(begin) > 1:
        save_sheet(room_for(out), contact_sheet(draw(bench.generator, begin), min(len(begin), 8), captions=names))
        console.print(f"{len(begin)} pictures in {out}", highlight=False, soft_wrap=True)
        return
    kind = "sweep" if sweep is not None else "grid" if grid else "joint" if joint else "picture"
    with progress_bars(resumes=False) as bars:
        bench = replace(bench, progress=bars)
        if kind == "picture" and len(begin) == 1 and out.suffix == ".png":
            made: Edited | Strip = _single(bench, chosen, begin, numbers, conditions)
        else:
            made = _many(bench, kind, chosen, begin, conditions, (0.0, 1.0) if sweep is None else parse_sweep(sweep))
    if isinstance(made, Edited):
        save_picture(room_for(out), made.image, made.recipe)
        _say_edits(made)
        console.print(f"{out}", highlight=False, soft_wrap=True)
        return
    _save_strip(bench, out, made, names, chosen, "Shown:" if grid or joint else "Strength ×")
    console.print(f"{len(made.images)} pictures in {out}", highlight=False, soft_wrap=True)


def _check_shown(out: Path, num: int, chosen: list[str], conditions: list[str], *, strip: bool) -> None:
    """Before the work: whether there is something to show, and room for it."""
    if conditions and not chosen:
        raise ValueError("--condition says what edits leave alone; give at least one edit with --set")
    if not chosen and (strip or out.suffix != ".png"):
        raise ValueError("a strip or an animation shows edits; give at least one with --set")
    if num > 1 and out.suffix != ".png":
        raise ValueError(f"{out.suffix} shows one sample; got {num}: write a .png")


def _repeat(bench: Workbench, again: Path, out: Path, codes: Path | None, donor_codes: Path | None) -> None:
    """The picture of a recipe; of a file of codes, the one that the recipe names."""
    recipe = read_recipe(again)
    code = None
    if codes is not None:
        found = load_codes(codes)
        code = next((c for c in found if digest_of_codes(c) == recipe.codes), found[0])
    donors = () if donor_codes is None else tuple(load_codes(donor_codes))
    made = repeat(bench, recipe, code=code, donors=donors)
    save_picture(room_for(out), made.image, made.recipe)
    console.print(f"{out}, repeated from {again}", highlight=False, soft_wrap=True)


def _single(bench: Workbench, chosen: list[str], begin: Tensor, numbers: list[int], conditions: list[str]) -> Edited:
    if numbers:
        return edit(bench, chosen, seed=numbers[0], conditions=conditions)
    return edit(bench, chosen, code=begin[0], conditions=conditions)


def _many(
    bench: Workbench, kind: str, chosen: list[str], begin: Tensor, conditions: list[str], factors: Sequence[float]
) -> Strip:
    if kind == "grid":
        return grid_strip(bench, chosen[0], begin, conditions=conditions)
    if kind == "joint":
        return joint_strip(bench, chosen, begin, conditions=conditions)
    return sweep_strip(bench, chosen, begin, factors, conditions=conditions)


def _say_edits(made: Edited) -> None:
    for move in made.recipe.moves:
        where = format_layers(move.layers)
        console.print(f"{move.concept}: {move.strength:+.3g} steps at layers {where}", highlight=False)


def _save_strip(bench: Workbench, out: Path, strip: Strip, rows: list[str], chosen: list[str], what: str) -> None:
    if out.suffix == ".png":
        lines, names = folded(strip, rows)
        save_sheet(room_for(out), contact_sheet(lines.images, len(lines.columns), captions=lines.captions, rows=names))
        return
    if out.suffix == ".html":
        labels = [_typeset(caption) for caption in strip.captions]
        title = ", ".join(_in_words(instruction) for instruction in bench.instructions(chosen))
        save_slider(room_for(out), strip.images, labels, title=title, what=what)
    else:
        save_movement(out, strip.images)


def _typeset(caption: str) -> str:
    """A caption on one line; hyphens of names and of layers stay what they are."""
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", caption.replace("\n", " · ").replace(" sd", " σ"))


def _in_words(asked: Instruction) -> str:
    amount = {
        "steps": f"{asked.amount:+g} steps",
        "sigmas": f"{asked.amount:+g} σ",
        "at least": f"to {asked.amount:g} or more",
        "at most": f"to {asked.amount:g} or less",
    }[asked.unit]
    where = "" if asked.layers is None else f" at {layer_span(asked.layers)}"
    return f"{readable(asked.concept)} {amount}{where}"
