"""The verb side-effects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from higan import store
from higan.cli.app import Device, app, console, progress_bars
from higan.cli.outputs import prepare, room_for
from higan.cli.runs import Run, bench_of
from higan.effects import matched, measure_effects, off_target, projected
from higan.files import write_whole
from higan.report.editpages import side_effects_page
from higan.spelling import instead
from higan.statistics import score_stds
from higan.study.reports import of_step
from higan.types import Edit, Rescoring
from higan.workbench import Workbench, recommend

_FURTHEST = 20.0
"""Times the step of the re-scoring, beyond which an edit is out of reach."""


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
    bench = bench_of(run, device)
    if bench.scorer is None or bench.rescoring is None:
        raise ValueError("side effects are measured with a scorer and a re-scoring")
    std = score_stds(bench.rescoring, bench.scorer.concepts)
    edits, flat = _rising(bench, bench.rescoring, concept)
    variants, missing = {}, {}
    longest, seed = _FURTHEST * bench.rescoring.step, store.load_run(run).seed
    for title, variant in (("As fitted", edits), ("Others projected out", projected(edits))):
        with progress_bars(resumes=False) as bars:
            found = matched(bench.generator, bench.scorer, variant, target=target, std=std, longest=longest, seed=seed)
            if not found:
                raise ValueError(f"no edit moves its own score by {target:g} standard deviations; ask for less")
            effects = measure_effects(
                bench.generator, bench.scorer, found, std=std, num=num, seed=seed, progress=of_step(bars, title)
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
            raise ValueError(f"unknown concept {name!r}; there are boundaries for: {instead(name, bench.boundaries)}")
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
