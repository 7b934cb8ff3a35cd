"""What all verbs share: the program, its options by name, printing, progress."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.style import Style
from rich.text import Text
from typer.core import TyperGroup

from higan import __version__
from higan.blame import lacks_memory
from higan.boundaries import Mode
from higan.devices import open_device
from higan.editing import StepMode
from higan.engines import EngineName
from higan.errors import HiganError
from higan.linear import Loss
from higan.memory import keep_memory
from higan.study import Report

VERBS = {
    "The study": ("demo", "run", "sample", "fit", "rescore", "steps", "report", "compare", "verify"),
    "Editing": ("edit", "mix", "transition", "discover", "side-effects", "invert", "draw"),
    "In the browser": ("studio", "user-study"),
    "Models": (
        "models", "pull", "inspect", "convert", "check-generator", "check-scorer", "import-official", "export-official",
    ),
    "The embedded world": ("rooms", "benchmark"),
}  # fmt: skip
"""All verbs, as the help groups and orders them."""


RESUMED = frozenset((
    "demo", "run", "sample", "rescore", "invert", "pull", "benchmark", "rooms write", "rooms train-generator",
    "user-study build", "user-study serve",
))  # fmt: skip
"""Verbs whose same line goes on where it stopped, at whatever moment that was."""

_GOES_ON = "The same command goes on where it stopped."


class Group(TyperGroup):
    """Verbs that say so when they are interrupted, be it while models are loaded or checked."""

    def invoke(self, ctx: Any) -> Any:
        """As any group does, but that Ctrl-C is one line and status 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            verb = ctx.invoked_subcommand if ctx.parent is None else f"{ctx.info_name} {ctx.invoked_subcommand}"
            _interrupted(_GOES_ON if verb in RESUMED else "")


def _interrupted(told: str) -> NoReturn:
    errors.print(Text.assemble(("Interrupted.", "yellow"), f" {told}" if told else ""))
    raise typer.Exit(130) from None


class _Grouped(Group):
    """Lists verbs in the order of `VERBS`, under its headings."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = [verb for verbs in VERBS.values() for verb in verbs]
        return sorted(self.commands, key=lambda verb: known.index(verb) if verb in known else len(known))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            heading = next((heading for heading, verbs in VERBS.items() if cmd_name in verbs), None)
            cast(Any, command).rich_help_panel = heading  # where typer looks for it
        return command


app = typer.Typer(
    cls=_Grouped,
    help="What each layer of an image generator has learned, measured and edited.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
rooms = typer.Typer(cls=Group, help="The embedded world: rendered rooms with known ground truth.", no_args_is_help=True)
app.add_typer(rooms, name="rooms")

# Names and paths may hold [b] or :smile:, and are printed as they are; what shall stand out is a Text or has a style.
# Without a standard output, as services and programs without a console have none, nothing is printed.
console = Console(width=None if sys.stdout and sys.stdout.isatty() else 120, markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same line again resumes.")]
EMBEDDED = "rooms-128"
"""Generator, scorer and segmenter that come with the package, taken where no other is named."""
GeneratorName = Annotated[
    str, typer.Option("--generator", help="Name (rooms, rooms-128, toy), weight file, or module:name.")
]
ScorerName = Annotated[
    str,
    typer.Option(
        "--scorer",
        help="Name (rooms-128, places365, clip, colour …), file, folder, module:callable, or several with +.",
    ),
]
SegmenterName = Annotated[
    str | None,
    typer.Option(
        "--segmenter", help="Name (rooms, rooms-128, ade20k), weight file, folder, name of the hub, module:name."
    ),
]


def _there(device: str) -> str:
    open_device(device)
    return device


Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 …", callback=_there)]
Devices = Annotated[str, typer.Option("--device", help="cpu, cuda; several for processes: cuda:0,cuda:1.")]
EngineChoice = Annotated[
    EngineName | None, typer.Option("--engine", help="Where samples are made: local, processes or ray.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Processes; by default one, with --engine or several devices one for each device or core."
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", help="Of each worker, by default one.")]
Address = Annotated[str | None, typer.Option("--address", help="Of a Ray cluster; without it Ray starts one here.")]
ShardSize = Annotated[int, typer.Option("--shard-size", help="Samples per file, the unit of work.")]
Num = Annotated[int, typer.Option("--num", help="Samples to probe.")]
Verify = Annotated[int, typer.Option("--verify", help="Fresh samples to re-score.")]
Adaptively = Annotated[
    bool, typer.Option("--adaptive", help="Stop measuring what is settled; --verify is then the most.")
]
Top = Annotated[
    int | None, typer.Option("--top", help="How many strongest concepts --adaptive settles, by default 10.")
]
Confidence = Annotated[
    float | None, typer.Option("--confidence", help="With which --adaptive settles, by default 0.95.")
]
Step = Annotated[float, typer.Option("--step", help="λ, the length of an edit in code space.")]
NumRandom = Annotated[int, typer.Option("--random", help="Random directions for the null.")]
NumPermuted = Annotated[
    int, typer.Option("--permuted", help="Directions fitted to permuted scores, a second null; 0 for none.")
]
StepModeName = Annotated[
    StepMode, typer.Option("--step-mode", help="What is held equal over layers: step in code space, step, or picture.")
]
Fit = Annotated[Mode, typer.Option("--fit", help="extreme: the paper's SVM; all: ridge on all.")]
NumExtreme = Annotated[float, typer.Option("--num-extreme", help="Samples per class; up to 1, a share of all.")]
Penalty = Annotated[float | None, typer.Option("--C", help="Penalty of --fit extreme; by default 1.")]
LossName = Annotated[
    Loss, typer.Option("--loss", help="Of --fit extreme: squared_hinge, a linear SVM, or logistic regression.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images at a time; samples per unit where all are re-scored.")
]
ImagesAtOnce = Annotated[
    int | None,
    typer.Option(min=1, help="Edited images in one call while re-scoring; by default 32, on a GPU several hundred."),
]
Seed = Annotated[int, typer.Option("--seed", help="Chooses all that is drawn: a run with another is a replication.")]


def main() -> None:
    """Entry point: runs a verb, turns expected errors into one line and an exit status."""
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or file that cannot show a Δ or σ gets a question mark, not an error after hours of work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _stops_like_ctrl_c():
            _program()()
    except (HiganError, ValueError, OSError) as error:
        _fail(_told(error), 2 if isinstance(error, ValueError) else 1)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        gpu = isinstance(error, torch.OutOfMemoryError)
        # What follows the first sentence is about torch's allocator.
        told = str(error).partition(". ")[0] if gpu else "this machine has not enough memory"
        _fail(
            f"{told}; take fewer images or samples at a time (--batch-size, --images-at-once, --num, where the command "
            "has them), fewer workers, or another --device"
        )


@cache
def _program() -> Callable[[], Any]:
    """All verbs with their options, which take a tenth of a second to put together; once for all lines of a process."""
    return typer.main.get_command(app)


def _told(error: Exception) -> str:
    """What went wrong; what the system says of a file without its number, which tells people nothing."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(told: str, status: int = 1) -> NoReturn:
    errors.print(Text("Error:", "bold red"), told, highlight=False, soft_wrap=True)
    sys.exit(status)


@contextmanager
def _stops_like_ctrl_c() -> Iterator[None]:
    """What batch systems send before they kill ends a run as Ctrl-C does: workers stop, finished work is kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False) -> None:
    if version:
        console.print(f"higan {__version__}")
        raise typer.Exit


_STEP_NAMES = {
    "sample": "Sampling",
    "fit": "Fitting boundaries",
    "rescore": "Re-scoring",
    "steps": "Comparing steps",
    "report": "Drawing the report",
}


ANEW = "The same command begins this step anew; what was there before is as it was."
"""What to say of a step that is done in one piece."""

_NOTHING = "Nothing was written."


@contextmanager
def progress_bars(*, resumes: bool = True, after: str | None = None) -> Iterator[Report]:
    """One bar per step on a terminal that can draw one; one line per step elsewhere.

    ``resumes``: what is done is kept if interrupted, and goes on; ``after`` says it where neither that nor its contrary
    is true.
    """
    words = TextColumn("{task.description:<20}", markup=False)
    columns = (words, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    drawn = console.is_terminal and not console.is_dumb_terminal
    with Progress(*columns, console=console, disable=not drawn) as progress:
        tasks = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(_STEP_NAMES.get(step, step), total=total)
                if not drawn:
                    console.print(f"{_STEP_NAMES.get(step, step)} …")
            progress.update(tasks[step], completed=done, total=total)

        try:
            yield report
        except KeyboardInterrupt:
            progress.stop()
            _interrupted(after or (_GOES_ON if resumes else _NOTHING))


def link(path: Path) -> Text:
    """A path that a click opens, on a terminal that can."""
    return Text(str(path), Style(link=path.resolve().as_uri()))


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} hours"
