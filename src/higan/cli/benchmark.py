"""The benchmark for the field: `higan benchmark`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table
from rich.text import Text

from higan import __version__, load_generator, load_scorer
from higan.benchmark.methods import METHODS
from higan.benchmark.page import Plate, headline, table, write_benchmark
from higan.benchmark.run import Budget, Results, Setting, World, estimate, run_benchmark, unfinished
from higan.benchmark.tasks import TASKS
from higan.benchmark.truth import Truth, estimate_truth, exact_truth
from higan.cli.app import Device, app, console, link, minutes, progress_bars
from higan.generators.loading import WEIGHTS as GENERATORS
from higan.generators.transparent import FACTORS, Arrangement, TransparentGenerator, draw
from higan.population import render, sample, to_uint8
from higan.report.words import count
from higan.scorers.combined import ChosenScorer, CombinedScorer
from higan.scorers.loading import WEIGHTS as SCORERS
from higan.scorers.nulls import NullScorer
from higan.weights import digest_of

_ROOMS_CONCEPTS = (
    "view_yaw", "camera_side", "room_width", "bedroom", "living_room", "window_left", "rug", "indoor_lighting",
    "natural_light", "wood", "warm_colours", "lightness",
)  # fmt: skip
"""Three or more of every level, of the embedded scorer's."""

_DISTURBANCES = 16_000
"""Of the experiment that estimates the truth about the embedded generator."""

_FULL = ((0.0, "paper"), (0.4, "paper"), (0.8, "paper"), (0.4, "shuffled"))
_QUICK = ((0.4, "paper"),)


@app.command()
def benchmark(
    out: Annotated[Path, typer.Option("--out", help="Folder; the same line again resumes.")] = Path("benchmark"),
    quick: Annotated[bool, typer.Option("--quick", help="A minute's worth: fewer samples, no embedded world.")] = False,
    worlds: Annotated[
        int | None, typer.Option("--worlds", help="Transparent generators per setting; 3, or 1 with --quick.")
    ] = None,
    rooms: Annotated[bool, typer.Option("--rooms/--no-rooms", help="The embedded generator besides.")] = True,
    device: Device = "cpu",
) -> None:
    """Five tasks with known answers for every way to find directions; ends with a table, a picture and a page."""
    if worlds is None:
        worlds = 1 if quick else 3
    if worlds < 1:
        raise ValueError(f"--worlds must be at least 1; got {worlds}")
    settings = [_exact(e, a, range(worlds), device, quick=quick) for e, a in (_QUICK if quick else _FULL)]
    if rooms and not quick:
        settings.append(_rooms(device))
    console.print(f"{len(METHODS)} methods in {_left(out, settings)}")
    with progress_bars() as bars:
        results = run_benchmark(out, settings, report=_one_bar(bars))
    provenance = {
        "higan": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": shlex.join(["higan", *sys.argv[1:]]),
    }
    path = write_benchmark(out, results, plates=_plates(settings, device), provenance=provenance)
    for setting in settings:
        console.print(_table(results, setting))
    console.print("Best of each task bold; intervals are on the page. Over the settings with exact truth, first:")
    for what, winner in headline(results):
        console.print(Text(f"{what}:", "bold"), winner, highlight=False)
    console.print("Page:", link(path), highlight=False, soft_wrap=True)


def _left(out: Path, settings: Sequence[Setting]) -> str:
    """What there is to do, and what it costs, apart from what was done before."""
    worlds = sum(len(setting.seeds) for setting in settings)
    told = f"{count(len(settings), 'setting')}, {count(worlds, 'world')}"
    left = [replace(setting, seeds=seeds) for setting in settings if (seeds := unfinished(out, setting))]
    if not left:
        return f"{told}, all done before."
    todo = sum(len(setting.seeds) for setting in left)
    costs = [estimate(setting) for setting in left]
    images, seconds = (sum(cost[k] for cost in costs) for k in (0, 1))
    return (
        f"{told}{f', {todo} to do' if todo < worlds else ''}: about {images:,} images, {minutes(seconds)} on this "
        "machine. The same line again goes on where it stopped."
    )


def _one_bar(bars: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    return lambda _, done, total: bars("Benchmark", done, total)


def _exact(entanglement: float, arrangement: str, seeds: range, device: str, *, quick: bool) -> Setting:
    words = f"entanglement {entanglement:g}" + ("" if arrangement == "paper" else ", shuffled layers")
    kind: Arrangement = "paper" if arrangement == "paper" else "shuffled"

    def open_world(seed: int) -> World:
        generator = TransparentGenerator(entanglement, arrangement=kind, seed=seed, device=device)
        return World(generator, CombinedScorer([load_scorer("transparent", device), NullScorer(6)]))

    def tell(world: World, seed: int) -> Truth:
        assert isinstance(world.generator, TransparentGenerator)
        return exact_truth(world.generator, world.scorer.concepts, seed=seed)

    return Setting(
        name=f"e{entanglement * 100:.0f}-{arrangement}",
        title=words,
        exact=True,
        seeds=tuple(seeds),
        open=open_world,
        tell=tell,
        budget=Budget(300, 8, 8) if quick else Budget(2000, 32, 20),
        identity={"higan": __version__, "scorer": digest_of(SCORERS / "transparent.safetensors")},
    )


def _rooms(device: str) -> Setting:
    def open_world(_: int) -> World:
        nulls = NullScorer(4)
        chosen = ChosenScorer(load_scorer("rooms", device), _ROOMS_CONCEPTS)
        return World(load_generator("rooms", device), CombinedScorer([chosen, nulls], name="rooms+nulls"))

    def tell(world: World, seed: int) -> Truth:
        nulls = [c.name for c in world.scorer.concepts if c.name.startswith("null ")]
        return estimate_truth(world.generator, world.scorer, nulls=nulls, disturbances=_DISTURBANCES, seed=seed)

    return Setting(
        name="rooms",
        title="embedded generator",
        exact=False,
        seeds=(0,),
        open=open_world,
        tell=tell,
        budget=Budget(1500, 12, 8),
        identity={
            "higan": __version__,
            "generator": digest_of(GENERATORS / "rooms.safetensors"),
            "scorer": digest_of(SCORERS / "rooms.safetensors"),
            "disturbances": _DISTURBANCES,
        },
        judged=(1000 + _DISTURBANCES + 1200, 75),
    )


def _plates(settings: list[Setting], device: str) -> list[Plate]:
    """What the worlds look like: samples, and four factors from little to much."""
    generator = TransparentGenerator(0.4, device=device, resolution=96)
    codes = sample(generator, range(8))
    values = torch.zeros(8, len(FACTORS), device=device)
    names = [factor.name for factor in FACTORS]
    for k, name in enumerate(("view_yaw", "sofa", "lighting", "wall_warmth")):
        values[2 * k : 2 * k + 2, names.index(name)] = torch.tensor([-0.9, 0.9], device=device)
    plates = [
        Plate("Eight samples of a transparent generator; methods see them at 32 pixels.", render(generator, codes)),
        Plate(
            "The same room with little and much of four of its factors: view yaw, sofa, lighting, wall warmth.",
            to_uint8(draw(values, 96)),
        ),
    ]
    if not settings[-1].exact:
        embedded = settings[-1].open(0).generator
        plates.append(Plate("Eight samples of the embedded generator.", render(embedded, sample(embedded, range(8)))))
    return plates


def _table(results: Results, setting: Setting) -> Table:
    words = setting.title + ("" if setting.exact else " (estimated truth)")
    shown = Table(title=words, title_justify="left")
    shown.add_column("method", no_wrap=True)
    for task in TASKS:
        shown.add_column(task, justify="right")
    shown.add_column("false alarms / hits", justify="right")
    for line in table(results, setting):
        cells = [Text(cell.value, "bold" if cell.best else "") for cell in line.cells]
        shown.add_row(line.method, *cells, line.alarms)
    return shown
