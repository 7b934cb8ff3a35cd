"""The command line: the only place that prints, parses and exits."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from higan import __version__, load_generator, load_scorer, load_segmenter, store, study
from higan.errors import HiganError, MissingWeightsError
from higan.hierarchy import finding, profile
from higan.memory import keep_memory
from higan.rescoring import rank
from higan.types import Generator, Scorer, Segmenter
from higan.weights import digest_of

app = typer.Typer(
    help="What each layer of an image generator has learned, measured and edited.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
rooms = typer.Typer(help="The embedded world: rendered rooms with known ground truth.", no_args_is_help=True)
app.add_typer(rooms, name="rooms")

console = Console()
errors = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same line again resumes.")]
GeneratorName = Annotated[str, typer.Option("--generator", help="Name (rooms, toy) or weight file.")]
ScorerName = Annotated[str, typer.Option("--scorer", help="Name (rooms, colour, toy), weight file, or several with +.")]
SegmenterName = Annotated[str | None, typer.Option("--segmenter", help="Name (rooms) or weight file.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 …")]
Num = Annotated[int, typer.Option("--num", help="Samples to probe.")]
Verify = Annotated[int, typer.Option("--verify", help="Fresh samples to re-score.")]
Step = Annotated[float, typer.Option("--step", help="λ, the length of an edit in code space.")]
NumRandom = Annotated[int, typer.Option("--random", help="Random directions for the null.")]
StepModeName = Annotated[
    Literal["official", "equal_step"], typer.Option("--step-mode", help="Step on truncated layers.")
]
Fit = Annotated[Literal["extreme", "all"], typer.Option("--fit", help="extreme: the paper's SVM; all: ridge on all.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images at a time.")]
Seed = Annotated[int, typer.Option("--seed", help="Chooses the samples.")]


def main() -> None:
    """Entry point: runs a verb, turns expected errors into one line and an exit status."""
    keep_memory()
    try:
        app()
    except (HiganError, ValueError, OSError) as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ValueError) else 1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False) -> None:
    if version:
        console.print(f"higan {__version__}")
        raise typer.Exit


# --- the main job ----------------------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Out = Path("demo"),
    num: Num = 10_000,
    verify: Verify = 128,
    num_random: NumRandom = 12,
    device: Device = "cpu",
) -> None:
    """The whole study on the embedded world; ends with a report."""
    _study("rooms", "rooms", "rooms", out, num=num, verify=verify, num_random=num_random, device=device)


@app.command()
def run(
    generator: GeneratorName,
    scorer: ScorerName,
    out: Out,
    segmenter: SegmenterName = None,
    num: Num = 10_000,
    verify: Verify = 200,
    step: Step = 2.0,
    num_random: NumRandom = 12,
    step_mode: StepModeName = "official",
    fit: Fit = "extreme",
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """The whole study on your generator and scorer; ends with a report."""
    _study(
        generator,
        scorer,
        segmenter,
        out,
        num=num,
        verify=verify,
        step=step,
        num_random=num_random,
        step_mode=step_mode,
        fit=fit,
        batch_size=batch_size,
        seed=seed,
        device=device,
    )


def _study(
    generator_name: str,
    scorer_name: str,
    segmenter_name: str | None,
    out: Path,
    *,
    num: int,
    verify: int,
    num_random: int,
    device: str,
    step: float = 2.0,
    step_mode: Literal["official", "equal_step"] = "official",
    fit: Literal["extreme", "all"] = "extreme",
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    generator, scorer = load_generator(generator_name, device), load_scorer(scorer_name, device)
    segmenter = None if segmenter_name is None else load_segmenter(segmenter_name, device)
    folder = _open(out, generator_name, scorer_name, generator, scorer, segmenter_name, num=num, seed=seed)
    cost = study.estimate(generator, scorer, num=num, verify=verify, num_random=num_random, batch_size=batch_size)
    console.print(
        f"[bold]{generator.name}[/] ({generator.num_layers} layers, {generator.resolution} pixels) "
        f"scored by [bold]{scorer.name}[/] ({len(scorer.concepts)} concepts): "
        f"{cost.images:,} images, about {_minutes(cost.seconds)} on this machine"
    )
    with _progress() as bars:
        study.sample_step(folder, generator, scorer, batch_size=batch_size, report=bars)
        study.fit_step(folder, mode=fit, report=bars)
        rescoring = study.rescore_step(
            folder,
            generator,
            scorer,
            num=verify,
            step=step,
            num_random=num_random,
            step_mode=step_mode,
            batch_size=batch_size,
            report=bars,
        )
        path = _write_report(folder, generator, scorer, segmenter, bars)
    console.print(_ranking(folder))
    console.print(f"\n[bold]{finding(profile(rescoring))}[/]\n", highlight=False)
    console.print(f"Report: [link=file://{path.resolve()}]{path}[/]", highlight=False, soft_wrap=True)


def _open(
    out: Path,
    generator_name: str,
    scorer_name: str,
    generator: Generator,
    scorer: Scorer,
    segmenter_name: str | None,
    *,
    num: int,
    seed: int,
) -> store.Run:
    digests = {f"generator {generator_name}": _digest("generators", generator_name)}
    digests |= {f"scorer {part}": _digest("scorers", part) for part in scorer_name.split("+")}
    provenance = {
        "higan": __version__,
        "generator": generator_name,
        "scorer": scorer_name,
        "segmenter": segmenter_name,
        "device": str(generator.device),
    }
    known = {k: v for k, v in digests.items() if v}
    return study.open_study(out, generator, scorer, num=num, seed=seed, digests=known, provenance=provenance)


def _digest(kind: Literal["generators", "scorers"], name: str) -> str:
    """SHA-256 of the weight file behind a name; empty where there is none."""
    embedded = Path(__file__).parent / kind / "weights" / f"{name}.safetensors"
    path = embedded if embedded.is_file() else Path(name)
    return digest_of(path) if path.is_file() else ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


_STEP_NAMES = {
    "sample": "Sampling",
    "fit": "Fitting boundaries",
    "rescore": "Re-scoring",
    "report": "Drawing the report",
}


@contextmanager
def _progress() -> Iterator[study.Report]:
    """One bar per step on a terminal; one line per step elsewhere."""
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        tasks = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(_STEP_NAMES.get(step, step), total=total)
                if not console.is_terminal:
                    console.print(f"{_STEP_NAMES.get(step, step)} …")
            progress.update(tasks[step], completed=done, total=total)

        try:
            yield report
        except KeyboardInterrupt:
            progress.stop()
            errors.print("[yellow]Interrupted.[/] The same command goes on where it stopped.")
            raise typer.Exit(130) from None


def _ranking(folder: store.Run) -> Table:
    table = Table(title="Concepts by effect of the edit on all layers", title_justify="left")
    for name in ("concept", "level"):
        table.add_column(name)
    for name in ("Δs", "95 % interval", "null", "effect / σ", "held-out acc."):
        table.add_column(name, justify="right")
    table.add_column("")
    accuracy = {b.concept.name: b.holdout_accuracy for b in store.load_boundaries(folder)}
    for row in rank(store.load_rescoring(folder)):
        table.add_row(
            row.concept.name,
            row.concept.level,
            f"{row.delta:.3g}",
            f"{row.low:.3g} … {row.high:.3g}",
            f"{row.null:.3g}",
            f"{row.effect:.2f}",
            f"{accuracy[row.concept.name]:.2f}",
            "verified" if row.verified else "[dim]not verified[/]",
        )
    return table


def _write_report(
    folder: store.Run, generator: Generator, scorer: Scorer, segmenter: Segmenter | None, bars: study.Report
) -> Path:
    from higan.report import write_report

    return write_report(
        folder, generator, scorer, segmenter=segmenter, progress=lambda done, total: bars("report", done, total)
    )


# --- step by step ----------------------------------------------------------------------------------------------------


@app.command()
def sample(
    out: Out,
    generator: GeneratorName = "rooms",
    scorer: ScorerName = "rooms",
    num: Num = 10_000,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Samples codes, renders and scores them into a run folder."""
    loaded, predictor = load_generator(generator, device), load_scorer(scorer, device)
    folder = _open(out, generator, scorer, loaded, predictor, None, num=num, seed=seed)
    with _progress() as bars:
        study.sample_step(folder, loaded, predictor, batch_size=batch_size, report=bars)
    console.print(f"{num:,} samples in {out}")


@app.command("fit")
def fit_(
    folder: Annotated[Path, typer.Argument(help="Folder of a sampled run.")],
    concept: Annotated[list[str] | None, typer.Option("--concept", help="Only these; may be repeated.")] = None,
    mode: Fit = "extreme",
    num_extreme: Annotated[float, typer.Option(help="Samples per class; up to 1, a share of all.")] = 2000,
    penalty: Annotated[float, typer.Option("--C", help="SVM penalty.")] = 1.0,
) -> None:
    """Fits one boundary per concept to the samples of a run."""
    count = int(num_extreme) if num_extreme > 1 else num_extreme
    boundaries = study.fit_step(store.load_run(folder), concept, mode=mode, num_extreme=count, C=penalty)
    table = Table("concept", "level", "held-out accuracy")
    for boundary in boundaries:
        table.add_row(boundary.concept.name, boundary.concept.level, f"{boundary.holdout_accuracy:.3f}")
    console.print(table)


@app.command()
def rescore(
    folder: Annotated[Path, typer.Argument(help="Folder of a run with boundaries.")],
    verify: Verify = 200,
    step: Step = 2.0,
    num_random: NumRandom = 12,
    step_mode: StepModeName = "official",
    batch_size: BatchSize = 64,
    device: Device = "cpu",
) -> None:
    """Moves fresh codes along every boundary and measures what changes, Eq. (1)."""
    opened = store.load_run(folder)
    generator, scorer, _ = _models_of(opened, device)
    with _progress() as bars:
        study.rescore_step(
            opened,
            generator,
            scorer,
            num=verify,
            step=step,
            num_random=num_random,
            step_mode=step_mode,
            batch_size=batch_size,
            report=bars,
        )
    console.print(_ranking(opened))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")], device: Device = "cpu") -> None:
    """Draws the report of a finished run again."""
    opened = store.load_run(folder)
    generator, scorer, segmenter = _models_of(opened, device)
    with _progress() as bars:
        path = _write_report(opened, generator, scorer, segmenter, bars)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Checks every file of a run and prints one digest of its codes and scores."""
    console.print(store.verify(folder), highlight=False)


def _models_of(opened: store.Run, device: str) -> tuple[Generator, Scorer, Segmenter | None]:
    """Generator, scorer and segmenter that a run was made with."""
    made = opened.provenance
    for role in ("generator", "scorer"):
        if role not in made:
            raise MissingWeightsError(f"{opened.path} does not say which {role} it was made with; use the Python calls")
    generator, scorer = load_generator(made["generator"], device), load_scorer(made["scorer"], device)
    segmenter = load_segmenter(made["segmenter"], device) if made.get("segmenter") else None
    return generator, scorer, segmenter


# --- the embedded world ----------------------------------------------------------------------------------------------


@rooms.command("sample")
def rooms_sample(
    num: Annotated[int, typer.Option(help="How many.")] = 64,
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("rooms.png"),
    resolution: Annotated[int, typer.Option(help="Pixels, 32 … 256.")] = 64,
    masks: Annotated[bool, typer.Option("--masks", help="Object classes beside every room.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the first room.")] = 0,
    columns: Annotated[int, typer.Option(help="Pictures per row.")] = 8,
) -> None:
    """Draws a contact sheet of rendered rooms."""
    from PIL import Image

    from higan.rooms.dataset import colour_masks, contact_sheet, sample_rooms

    if num < 1:
        raise ValueError(f"--num must be at least 1; got {num}")
    batch = sample_rooms(range(seed, seed + num), resolution)
    images = batch.images
    if masks:
        images = torch.stack([images, colour_masks(batch.masks)], 1).flatten(0, 1)
    sheet = contact_sheet(images, columns)
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(out)
    console.print(f"{num} rooms in {out}")


@rooms.command("write")
def rooms_write(
    out: Annotated[Path, typer.Option(help="Folder of the data set; the same line again resumes.")],
    num: Annotated[int, typer.Option(help="How many rooms.")] = 40_000,
    resolution: Annotated[int, typer.Option(help="Pixels, 32 … 256.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first room.")] = 0,
    processes: Annotated[int, typer.Option(help="Renderers side by side.")] = 2,
) -> None:
    """Writes rendered rooms with masks and ground truth to a folder."""
    from higan.rooms.dataset import write_data

    with _progress() as bars:
        write_data(out, num, resolution, seed, processes, lambda done: bars("Rendering", done, num))
    console.print(f"{num:,} rooms in {out}")


@rooms.command("train-generator")
def rooms_train_generator(
    out: Annotated[Path, typer.Option(help="Folder of the training; the same line again goes on.")],
    data: Annotated[Path | None, typer.Option(help="Rooms from `higan rooms write`; rendered first if absent.")] = None,
    processes: Annotated[int, typer.Option(help="Training processes on a CPU.")] = 2,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; otherwise train to the end.")] = None,
    stage_minutes: Annotated[
        list[float] | None, typer.Option(help="Minutes at 16, 32, … pixels; give it once per stage.")
    ] = None,
    resolution: Annotated[int, typer.Option(help="Of the finished generator: 32, 64 or 128.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Lower it for the last part of a training.")] = 2e-3,
    ema_half_life: Annotated[float, typer.Option(help="Of the averaged generator, in images.")] = 4000.0,
    start_from: Annotated[Path | None, typer.Option(help="Checkpoint to go on from when the folder is new.")] = None,
    device: Device = "cpu",
) -> None:
    """Trains a generator on rendered rooms from pictures alone, coarse to fine."""
    from higan.rooms.adversarial import CHECKPOINT, train_generator
    from higan.rooms.dataset import open_data, write_data
    from higan.rooms.trainer import default_settings

    settings = default_settings(resolution, stage_minutes or (), learning_rate=learning_rate)
    settings = replace(settings, ema_half_life=ema_half_life)
    folder = data or out / "data"
    if data is None:
        with _progress() as bars:
            write_data(folder, 40_000, resolution, processes=processes, progress=lambda d: bars("Rendering", d, 40_000))
    open_data(folder)
    if start_from is not None and not (out / CHECKPOINT).exists():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(start_from, out / CHECKPOINT)

    def say(record: Mapping[str, object]) -> None:
        console.print(" ".join(f"{k}={v}" for k, v in record.items()), highlight=False, soft_wrap=True)

    path = train_generator(
        folder / "images.npy",
        out,
        settings,
        processes=processes if device == "cpu" else 1,
        minutes=minutes,
        device=device,
        report=say,
    )
    console.print(f"Generator: {path}", highlight=False, soft_wrap=True)


@rooms.command("train-scorers")
def rooms_train_scorers(
    data: Annotated[Path, typer.Option(help="Rooms from `higan rooms write`.")],
    out: Annotated[Path, typer.Option(help="Folder for scorer.safetensors and segmenter.safetensors.")],
    epochs: Annotated[int, typer.Option(help="Of the scorer.")] = 8,
    segmenter_epochs: Annotated[int, typer.Option(help="Of the segmenter.")] = 5,
    device: Device = "cpu",
) -> None:
    """Trains scorer and segmenter on rendered rooms and says how good they are on held-out ones."""
    from higan.rooms.dataset import open_data
    from higan.rooms.supervised import train_scorer, train_segmenter

    rendered = open_data(data)
    out.mkdir(parents=True, exist_ok=True)
    with _progress() as bars:
        scorer = train_scorer(rendered, epochs=epochs, device=device, progress=lambda k, n, _: bars("Scorer", k, n))
        scorer.save(out / "scorer.safetensors")
        segmenter = train_segmenter(
            rendered, epochs=segmenter_epochs, device=device, progress=lambda k, n, _: bars("Segmenter", k, n)
        )
        segmenter.save(out / "segmenter.safetensors")
    table = Table("output", "held-out quality")
    for name, value in (scorer.metadata["quality"] | segmenter.metadata["quality"]).items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)


@rooms.command("quality")
def rooms_quality(
    generator: GeneratorName = "rooms",
    num: Annotated[int, typer.Option(help="Samples a side.")] = 5000,
    psi: Annotated[float, typer.Option(help="Truncation while sampling; 1 is none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the first held-out room.")] = 10_000_000,
    device: Device = "cpu",
) -> None:
    """Compares generated rooms with rendered ones: Fréchet distance, precision, recall, shares."""
    from higan.generators.loading import WEIGHTS as GENERATORS
    from higan.generators.rooms import RoomsGenerator
    from higan.population import render
    from higan.population import sample as sample_codes
    from higan.rooms.dataset import sample_rooms
    from higan.rooms.quality import measure_quality
    from higan.scorers.loading import WEIGHTS as SCORERS
    from higan.scorers.rooms import RoomsScorer

    path = GENERATORS / "rooms.safetensors" if generator == "rooms" else Path(generator)
    model = RoomsGenerator.load(path, device=device, truncation=psi)
    judge = RoomsScorer.load(SCORERS / "rooms.safetensors", device)
    quality = measure_quality(
        judge,
        lambda start, stop: render(model, sample_codes(model, range(start, stop))),
        lambda start, stop: sample_rooms(range(seed + start, seed + stop), model.resolution, device).images,
        num,
    )
    console.print_json(json.dumps(asdict(quality)))


if __name__ == "__main__":
    main()
