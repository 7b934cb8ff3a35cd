"""Verbs that make pictures: edit, mix, transition, invert, discover."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Float, UInt8
from rich.table import Table
from rich.text import Text
from torch import Tensor

from higan import load_scorer, load_segmenter, store
from higan.cli.app import EMBEDDED, Device, GeneratorName, Report, SegmenterName, app, console, progress_bars
from higan.cli.models import GeneratorOptions, Label, digests_of, generator_options, open_generator, weights_digest
from higan.cli.study import _models_of
from higan.directions import Method, discover
from higan.effects import matched, measure_effects, off_target, projected
from higan.errors import HiganError, RunMismatchError
from higan.export import (
    about_codes,
    contact_sheet,
    load_codes,
    load_directions,
    read_recipe,
    save_animation,
    save_codes,
    save_directions,
    save_picture,
    save_sheet,
    save_slider,
    save_video,
)
from higan.extras import optional
from higan.files import write_whole
from higan.generators.rooms import RoomsGenerator
from higan.inversion import Features, Inversion, code_space, invert, load_inversion, save_inversion
from higan.layers import groups, parse_layers
from higan.mixing import mixing_grid
from higan.photographs import open_photograph
from higan.recipes import Instruction, Loan, format_layers
from higan.report.editpages import side_effects_page, transition_page
from higan.report.words import layer_span, percent, readable
from higan.samples import OnDisk
from higan.scorers.combined import parts_of
from higan.scorers.rooms import RoomsScorer
from higan.statistics import score_stds
from higan.strips import Strip, folded, grid_strip, joint_strip, parse_sweep, starts, sweep_strip
from higan.transitions import Journey, flows, kept, travel
from higan.types import Concept, Edit, Rescoring, Scorer, Segmenter
from higan.workbench import (
    Edited,
    Workbench,
    digest_of_codes,
    draw,
    edit,
    open_workbench,
    recommend,
    repeat,
    with_directions,
)

_FURTHEST = 20.0
"""Times the step of the re-scoring, beyond which an edit is out of reach."""
_COLUMNS = 32
"""Scores read at a time."""

Run = Annotated[Path, typer.Option("--run", help="Folder of a finished run: generator, scorer, boundaries, layers.")]


def check_seeds(seeds: list[int] | None) -> list[int] | None:
    """The same, as an option's callback.

    Raises:
        ValueError: one of them is no seed of a sample.
    """
    for seed in seeds or ():
        # Beyond, torch's CPU generator draws another seed's sample.
        if not 0 <= seed < 2**32:
            raise ValueError(f"a sample's seed is a whole number of 0 to {2**32 - 1}; got {seed}")
    return seeds


Picture = Annotated[Path, typer.Option("--out", help="png · gif · webp · mp4 · html (with a slider).")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Sample; may be repeated.", callback=check_seeds)]
Codes = Annotated[Path | None, typer.Option("--codes", help="Start from codes (safetensors, npy), not from seeds.")]
DonorCodes = Annotated[
    Path | None, typer.Option("--donor-codes", help="Codes that lend layers, such as inverted pictures.")
]
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
    donor_codes: DonorCodes = None,
    directions: Directions = None,
    device: Device = "cpu",
) -> None:
    """Edits samples or inverted photographs: pictures, strips, grids, animations."""
    prepare(out, ".png", *(() if again is not None else (".gif", ".webp", ".mp4", ".html")))
    bench = _workbench(run, device)
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
    begin = _codes_for(bench, codes) if codes is not None else starts(bench, numbers)
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


def prepare(out: Path, *endings: str) -> None:
    """Before the work: a name that means something, and somewhere to write to."""
    if out.suffix not in endings:
        raise ValueError(f"--out must end in {' or '.join(endings)}, in lower case; got {out}")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{out} cannot be written: {there} is a file, no folder")
    if out.suffix == ".mp4":
        optional("av", "video")


def room_for(out: Path) -> Path:
    """The same, its folder made: after the work, so that a line that fails leaves nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _check_folder(out: Path) -> None:
    """Before the work: no folder can be made where there is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is a folder; {out} is a file")


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


def save_movement(out: Path, images: UInt8[Tensor, "n 3 H W"], *, there_and_back: bool = True) -> None:
    """Pictures one after the other, as the ending of the name says, enlarged to some 256 pixels."""
    scale = max(1, 256 // images.shape[-1])
    if out.suffix == ".mp4":
        save_video(room_for(out), images, there_and_back=there_and_back, scale=scale)
    else:
        save_animation(room_for(out), images, there_and_back=there_and_back, scale=scale)


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


def _workbench(run: Path, device: str) -> Workbench:
    return _workbench_and_segmenter(run, device)[0]


def _workbench_and_segmenter(run: Path, device: str) -> tuple[Workbench, Segmenter | None]:
    opened = store.load_run(run)
    generator, scorer, segmenter = _models_of(opened, device)
    return open_workbench(opened, generator, scorer), segmenter


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
    if num < 2 or not 0 < target < math.inf:
        raise ValueError(
            f"--num takes 2 samples or more, --target a finite number of standard deviations above 0; got {num} and "
            f"{target:g}"
        )
    prepare(out, ".html")
    bench = _workbench(run, device)
    if bench.scorer is None or bench.rescoring is None:
        raise ValueError("side effects are measured with a scorer and a re-scoring")
    std = score_stds(bench.rescoring, bench.scorer.concepts)
    edits, flat = _rising(bench, bench.rescoring, concept)
    variants, missing = {}, {}
    longest = _FURTHEST * bench.rescoring.step
    for title, variant in (("As fitted", edits), ("Others projected out", projected(edits))):
        with progress_bars(resumes=False) as bars:
            found = matched(bench.generator, bench.scorer, variant, target=target, std=std, longest=longest)
            if not found:
                raise ValueError(f"no edit moves its own score by {target:g} standard deviations; ask for less")
            effects = measure_effects(
                bench.generator, bench.scorer, found, std=std, num=num, progress=_progress(bars, title)
            )
        variants[title], missing[title] = (effects, found), sorted({*flat, *edits} - {*found})
    write_whole(room_for(out), side_effects_page(variants, missing, target).encode())
    if flat:
        console.print(f"Left out, since no layers raise them: {', '.join(flat)}", highlight=False)
    for title, names in missing.items():
        if short := [name for name in names if name not in flat]:
            console.print(f"{title}, out of reach of {target:g} σ: {', '.join(short)}", highlight=False)
    for title, (effects, _) in variants.items():
        told = ", ".join(f"{n} {float(o):.2f}" for n, o in zip(effects.names, off_target(effects), strict=True))
        console.print(f"{title}, other scores move (in σ) by: {told}", highlight=False)
    console.print(f"{out}", highlight=False, soft_wrap=True)


def _rising(bench: Workbench, measured: Rescoring, named: list[str] | None) -> tuple[dict[str, Edit], list[str]]:
    """Edits at the recommended layers, and which concepts have none because no layers raise them.

    Raises:
        ValueError: a concept that was named is unknown or does not rise, or none rises.
    """
    edits, flat = {}, []
    for name in named or bench.boundaries:
        if name not in bench.boundaries:
            raise ValueError(f"unknown concept {name!r}; there are boundaries for: {', '.join(bench.boundaries)}")
        try:
            edits[name] = Edit(bench.boundaries[name], measured.step, recommend(measured, name).layers)
        except ValueError as error:
            if named:
                raise ValueError(
                    f"no layers raise {name!r}, so that there is no edit to measure; leave --concept {name!r} out"
                ) from error
            flat.append(name)
    if not edits:
        raise ValueError(f"no layers raise any concept of this run: {', '.join(flat)}")
    return edits, flat


@app.command()
def mix(
    out: Annotated[Path, typer.Option("--out", help="PNG file.")],
    seed: Annotated[
        list[int] | None,
        typer.Option("--seed", help="Sample that receives layers; may be repeated.", callback=check_seeds),
    ] = None,
    donor: Annotated[
        list[int] | None,
        typer.Option("--donor", help="Sample that lends them; may be repeated.", callback=check_seeds),
    ] = None,
    codes: Annotated[
        Path | None, typer.Option("--codes", help="Codes that receive, such as inverted pictures.")
    ] = None,
    donor_codes: DonorCodes = None,
    layers: Annotated[
        str | None,
        typer.Option(help="As 0,3-5, or bottom, lower, upper, top; by default the last stage: the palette."),
    ] = None,
    generator: GeneratorName = EMBEDDED,
    label: Label = None,
    generator_option: GeneratorOptions = None,
    device: Device = "cpu",
) -> None:
    """Style mixing: layers of one sample or picture in another; the last ones carry the palette."""
    prepare(out, ".png")
    opened = open_generator(generator, device, label, generator_options(generator_option))
    bench = Workbench(opened, {}, weights=weights_digest(generator))
    stages = groups(bench.generator.num_layers)
    where = parse_layers(layers or [*stages][-1], num_layers=bench.generator.num_layers, names=stages)
    takers, names = _sources(bench, seed, codes, "--seed", "--codes")
    donors, lenders = _sources(bench, donor, donor_codes, "--donor", "--donor-codes")
    if len(takers) == len(donors) == 1:
        loan = Loan(donor[0], where) if donor else Loan(None, where, digest_of_codes(donors[0]))
        given = {"seed": seed[0]} if seed else {"code": takers[0]}
        made = edit(bench, [], loans=[loan], donors=list(donors), **given)
        save_picture(room_for(out), made.image, made.recipe)
    else:
        mixed = mixing_grid(takers, donors, where)
        rows = [torch.cat([takers[k : k + 1], mixed[k]]) for k in range(len(takers))]
        images = draw(bench.generator, torch.cat([donors[:1], donors, *rows]))
        images[0] = 255
        lent = f"layers {format_layers(where)} of"
        captions = ["", *lenders]
        for name in names:
            captions += [name, *(f"{lent} {lender}" for lender in lenders)]
        save_sheet(room_for(out), contact_sheet(images, len(donors) + 1, captions=captions))
    console.print(f"{out}", highlight=False, soft_wrap=True)


def _sources(
    bench: Workbench, seeds: list[int] | None, codes: Path | None, by_seed: str, by_codes: str
) -> tuple[Tensor, list[str]]:
    """Codes of samples or from a file, and what to call them."""
    if (not seeds) == (codes is None):
        raise ValueError(f"give {by_seed} or {by_codes}, and not both")
    if codes is None:
        return starts(bench, seeds or []), [f"seed {k}" for k in seeds or []]
    found = _codes_for(bench, codes)
    return found, [f"code {k}" for k in range(len(found))]


def _codes_for(bench: Workbench, path: Path) -> Float[Tensor, "n L D"]:
    """Codes from a file, as far as the file tells those of this very generator.

    Raises:
        ValueError: they have another shape.
        RunMismatchError: they were found with other weights, or with another truncation.
    """
    generator, found, about = bench.generator, load_codes(path), about_codes(path)
    expected = (generator.num_layers, generator.code_dim)
    if (
        generator.shared_code
        and found.shape[0] == 1
        and found.shape[1] != expected[0]
        and found.shape[2] == expected[1]
    ):
        # Codes (n, D) of other tools, which all layers share, look like one of n layers.
        found = found[0][:, None].expand(-1, *expected)
    if tuple(found.shape[1:]) != expected:
        raise ValueError(f"codes of {generator.name!r} have shape {expected}; {path} has {tuple(found.shape[1:])}")
    if bench.weights and about.get("weights", bench.weights) != bench.weights:
        raise RunMismatchError(
            f"{path} holds codes of {about.get('generator')!r}, a generator of other weights than {generator.name!r} "
            "here: pictures would be of nothing; invert the photographs with this one"
        )
    here = generator.truncation.tolist()
    if about.get("truncation", here) != here:
        raise RunMismatchError(
            f"{path} was found under truncation {about['truncation']}; here it is {here}: open the generator as it "
            "was, or invert the photographs again"
        )
    return found.to(generator.device)


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
    bench, own = _workbench_and_segmenter(run, device)
    if segmenter is None and own is None and isinstance(bench.generator, RoomsGenerator):
        segmenter = EMBEDDED
    seen = load_segmenter(segmenter, device) if segmenter else own
    if seen is None:
        raise ValueError("this run has no segmenter to count objects with; name one with --segmenter")
    _check_folder(out)
    L = bench.generator.num_layers
    where = None if layers is None else parse_layers(layers, num_layers=L, names=groups(L))
    begin = None if codes is None else _sources(bench, None, codes, "--seed", "--codes")[0]
    journey = travel(
        bench, seen, categories, codes=begin, num=48 if num is None else num, steps=steps, strength=strength,
        layers=where,
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
    kept = [out.with_name(f"{out.name}-unfinished") / f"{_key(how, picture)}.safetensors" for picture in pictures]
    table = Table("photograph", "error / grey levels", "of mean code", "distance", "nearer samples", "layer spread")
    space, found = code_space(model), []
    with progress_bars() as bars:
        for path, picture, file in zip(photographs, pictures, kept, strict=True):
            make = partial(
                invert, model, picture, space=space, features=features, shared_steps=steps * 3 // 8,
                layer_steps=steps - steps * 3 // 8, regularise=regularise, progress=_progress(bars, path.name),
            )  # fmt: skip
            result = _kept_or_made(file, make)
            found.append(result)
            table.add_row(
                path.name, f"{result.error:.1f}", f"{result.start_error:.1f}", f"{result.distance:.2f}",
                f"{result.percentile:.0f} %", f"{result.layer_spread:.2f}",
            )  # fmt: skip
    save_codes(room_for(out), torch.stack([result.code for result in found]), about)
    pairs = torch.stack([image for p, r in zip(pictures, found, strict=True) for image in (p, r.image)])
    captions = [text for r in found for text in ("photograph", f"its code, {r.error:.0f} levels off")]
    save_sheet(sheet, contact_sheet(pairs, 2, captions=captions, rows=[path.name[:24] for path in photographs]))
    _forget(kept)
    console.print(table)
    console.print(f"Codes: {out}, pictures: {sheet}", highlight=False, soft_wrap=True)


def _key(how: Sequence[Any], picture: Tensor) -> str:
    """Names an inversion by everything that it depends on."""
    return hashlib.sha256(json.dumps(how).encode() + picture.contiguous().numpy().tobytes()).hexdigest()[:16]


def _kept_or_made(file: Path, make: Callable[[], Inversion]) -> Inversion:
    """What an interrupted line had finished; made, and kept, where it had not or where that is damaged."""
    with suppress(HiganError):
        return load_inversion(file)
    made = make()
    save_inversion(room_for(file), made)
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
    if out is not None and out.suffix:
        prepare(out, ".safetensors")
    elif out is not None:
        _check_folder(out)
        if there := [path.name for path in sorted(out.glob(f"{method}_*"))]:
            raise ValueError(f"{out} holds directions of an earlier search ({there[0]} …); choose another folder")
    opened = store.load_run(run)
    generator, scorer, _ = _models_of(opened, device)
    std = _spreads(opened, scorer)
    with progress_bars(resumes=False) as bars:
        found = discover(
            generator, scorer, method=method, num=num, num_samples=samples, std=std, progress=_progress(bars, "Moving")
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


def _spreads(run: store.Run, scorer: Scorer) -> Float[Tensor, " C"] | None:
    """Standard deviations of the run's scores; None where neither its samples nor a re-scoring is there to tell."""
    with suppress(HiganError):
        return score_stds(store.load_rescoring(run), scorer.concepts)
    with suppress(HiganError):
        samples = OnDisk.open(run)
        columns = torch.arange(len(samples.concepts)).split(_COLUMNS)
        return torch.cat([samples.scores(some.tolist()).double().std(0) for some in columns]).float()
    return None
