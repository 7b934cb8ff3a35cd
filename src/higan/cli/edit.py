"""The verb edit: pictures one by one, strips, grids, animations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from torch import Tensor

from higan.cli.app import Device, app, console, errors, progress_bars
from higan.cli.codes import Codes, DonorCodes, Range, Seeds, codes_for, named_seeds
from higan.cli.folder import Start, check_alone, folder_of, starts_of
from higan.cli.outputs import check_folder, is_folder, prepare, room_for, save_movement
from higan.cli.runs import Run, bench_of
from higan.export import contact_sheet, load_directions, read_recipe, save_picture, save_sheet, save_slider
from higan.recipes import Instruction, Move, format_layers
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
Picture = Annotated[Path, typer.Option("--out", help="png; a folder: one each; gif, webp, mp4; html (with a slider).")]


@app.command("edit")
def edit_(
    run: Run,
    out: Picture,
    seed: Seeds = None,
    seeds: Range = None,
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
    """Edits samples or inverted photographs: pictures, strips, grids, animations, or a folder of pictures.

    Of a folder, interrupted, the same line draws what is missing.
    """
    seed, chosen, conditions = named_seeds(seed, seeds), changes or [], condition or []
    kind = _kind(chosen, sweep=sweep is not None, grid=grid, joint=joint)
    folder = again is None and is_folder(out)
    if folder:
        _check_apart(out, kind)
    else:
        prepare(out, ".png", *(() if again is not None else (".gif", ".webp", ".mp4", ".html")))
    if again is not None and (chosen or seed or conditions or kind != "picture"):
        raise ValueError("--from repeats a picture as it is; leave the other options out (--codes may be needed)")
    if again is None and donor_codes is not None:
        raise ValueError("--donor-codes goes with --from, for a picture made by `higan mix`")
    if codes is not None and seed:
        raise ValueError("start from --seed or --seeds, or from --codes, not from both")
    if conditions and not chosen:
        raise ValueError("--condition says what edits leave alone; give at least one edit with --set")
    bench = bench_of(run, device)
    for path in directions or ():
        bench = with_directions(bench, *load_directions(path))
    numbers = [] if codes is not None else seed or [0]
    if again is not None:
        _repeat(bench, again, out, codes, donor_codes)
    elif folder:
        _each(bench, out, chosen, conditions, starts_of(numbers, None if codes is None else codes_for(bench, codes)))
    else:
        begin = starts(bench, numbers) if codes is None else codes_for(bench, codes)
        _together(bench, out, kind, chosen, begin, numbers, conditions, sweep)


def _kind(chosen: list[str], *, sweep: bool, grid: bool, joint: bool) -> str:
    if sum((sweep, grid, joint)) > 1:
        raise ValueError("choose one of --sweep, --grid and --joint")
    if grid and len(chosen) != 1:
        raise ValueError(f"--grid shows one edit at every layer; got {len(chosen)}")
    return "sweep" if sweep else "grid" if grid else "joint" if joint else "picture"


def _check_apart(out: Path, kind: str) -> None:
    """Before the work: whether there can be a folder, and pictures that stand alone."""
    if kind != "picture":
        raise ValueError(
            f"a folder holds every sample edited once; --{kind} shows pictures side by side or in turn: leave it out, "
            f"or write a file, as {out}.png"
        )
    check_folder(out)
    check_alone(out)


def _check_shown(out: Path, num: int, chosen: list[str], kind: str) -> None:
    """Before the work: whether there is something to show, and room for it."""
    if not chosen and (kind != "picture" or out.suffix != ".png"):
        raise ValueError("a strip or an animation shows edits; give at least one with --set")
    if num > 1 and out.suffix != ".png":
        raise ValueError(f"{out.suffix} shows one sample; got {num}: write a .png, or a folder with a picture of each")


def _each(bench: Workbench, out: Path, chosen: list[str], conditions: list[str], begin: list[Start]) -> None:
    """A folder: every sample by itself."""
    with progress_bars() as bars:
        folder = folder_of(out, replace(bench, progress=bars), chosen, conditions=conditions)
        folder.check(begin)
        short = folder.fill(begin, bars)
    _say_edits([move for version in folder.versions.values() for move in version.moves])
    if short:
        _say_left_out(short)
    console.print(f"{len(begin) - len(short)} samples in {out}", highlight=False, soft_wrap=True)


def _say_left_out(short: Mapping[str, ValueError]) -> None:
    """Which samples do not get to where they shall, and how far the first of them gets."""
    names = [Path(name).stem for name in short]
    told = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    why = next(iter(short.values()))
    errors.print(Text("Left out:", "yellow"), f"{told}. The first: {why}", highlight=False, soft_wrap=True)


def _together(
    bench: Workbench,
    out: Path,
    kind: str,
    chosen: list[str],
    begin: Tensor,
    numbers: list[int],
    conditions: list[str],
    sweep: str | None,
) -> None:
    """One file: a picture, a sheet or a movement."""
    names = [f"seed {number}" for number in numbers] or [f"code {k}" for k in range(len(begin))]
    _check_shown(out, len(begin), chosen, kind)
    if not chosen and len(begin) > 1:
        save_sheet(room_for(out), contact_sheet(draw(bench.generator, begin), min(len(begin), 8), captions=names))
        console.print(f"{len(begin)} pictures in {out}", highlight=False, soft_wrap=True)
        return
    with progress_bars(resumes=False) as bars:
        bench = replace(bench, progress=bars)
        if kind == "picture" and len(begin) == 1 and out.suffix == ".png":
            made: Edited | Strip = _single(bench, chosen, begin, numbers, conditions)
        else:
            made = _many(bench, kind, chosen, begin, conditions, (0.0, 1.0) if sweep is None else parse_sweep(sweep))
    if isinstance(made, Edited):
        save_picture(room_for(out), made.image, made.recipe)
        _say_edits(made.recipe.moves)
        console.print(f"{out}", highlight=False, soft_wrap=True)
        return
    _save_strip(bench, out, made, names, chosen, "Shown:" if kind in ("grid", "joint") else "Strength ×")
    console.print(f"{len(made.images)} pictures in {out}", highlight=False, soft_wrap=True)


def _repeat(bench: Workbench, again: Path, out: Path, codes: Path | None, donor_codes: Path | None) -> None:
    """The picture of a recipe; of a file of codes, the one that the recipe names."""
    recipe = read_recipe(again)
    code = None
    if codes is not None:
        found = codes_for(bench, codes)
        code = next((c for c in found if digest_of_codes(c) == recipe.codes), found[0])
    donors = () if donor_codes is None else tuple(codes_for(bench, donor_codes))
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


def _say_edits(moves: Sequence[Move]) -> None:
    for move in moves:
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
