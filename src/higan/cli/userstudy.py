"""``higan user-study``: build a study from a run, serve it, collect answers, analyse them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from higan import store
from higan.cli.app import Device, Group, app, console, minutes, progress_bars
from higan.cli.outputs import check_folder, prepare, room_for
from higan.cli.runs import models_of
from higan.userstudy import Answers, open_study

user_study = typer.Typer(
    cls=Group, help="Ask people what every stage of a generator changes (Fig. 3b).", no_args_is_help=True
)
app.add_typer(user_study, name="user-study")

_TIMED = 8
"""Pictures after which it is known how long the others will take."""

Folder = Annotated[Path, typer.Argument(help="Folder of a study.", metavar="STUDY")]


@user_study.command()
def build(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the study, new.")],
    along: Annotated[
        Literal["concepts", "random"], typer.Option(help="Edits: along verified concepts, or random directions.")
    ] = "concepts",
    repeats: Annotated[
        int | None, typer.Option(help="Trials of a rater per stage and level (default 2); random: per stage (8).")
    ] = None,
    catches: Annotated[int, typer.Option(help="Trials of a rater whose answer is known.")] = 6,
    overlap: Annotated[int, typer.Option(help="Raters in a row who see the same trials.")] = 2,
    step: Annotated[float | None, typer.Option(help="Length of an edit; default: that of the re-scoring.")] = None,
    seed: Annotated[int | None, typer.Option(help="Chooses pictures and order; default: drawn, kept secret.")] = None,
    title: Annotated[str, typer.Option(help="What raters read at the top.")] = "What changed in the picture?",
    device: Device = "cpu",
) -> None:
    """Draws the pictures of a study once, and lays out who shall see which."""
    from higan.userstudy.build import build as build_study

    check_folder(out)
    opened = store.load_run(run)
    generator, _, _ = models_of(opened, device)
    with progress_bars() as bars:
        began = [0.0]

        def report(done: int, total: int) -> None:
            if done == 1:
                began[0] = time.monotonic()
            if done == _TIMED + 1:
                seconds = (time.monotonic() - began[0]) / _TIMED * total
                console.print(f"{total} pictures, about {minutes(seconds)} on this machine", highlight=False)
            bars("Drawing pictures", done, total)

        study = build_study(
            opened,
            generator,
            out,
            directions=along,
            repeats=repeats,
            num_catches=catches,
            overlap=overlap,
            step=step,
            seed=seed,
            title=title,
            made={"digests": opened.settings.get("digests", {}), "scorer": opened.settings.get("scorer", "")},
            progress=report,
        )
    design = study.design
    console.print(
        f"{out}: {design.num_trials} trials a rater ({design.num_units} edits, {len(design.catches)} catch trials); "
        f"{len(design.stages) * overlap} raters see every edit {overlap} times",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Next: higan user-study serve {out}", highlight=False, soft_wrap=True)


@user_study.command()
def serve(
    folder: Folder,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8010,
    token: Annotated[str | None, typer.Option(help="Asked of everybody; drawn where it is needed and missing.")] = None,
    name: Annotated[list[str] | None, typer.Option("--host-name", help="Of a proxy in front; may be repeated.")] = None,
) -> None:
    """Serves a study to many raters at a time, until interrupted; the same line goes on."""
    from higan.userstudy.folder import verify
    from higan.userstudy.keys import keys_of
    from higan.userstudy.server import create_app
    from higan.web.guards import is_loopback
    from higan.web.serve import serve as serve_app

    study = open_study(folder)
    verify(study)
    keys = keys_of(study.path)
    if token is None and not is_loopback(host):
        token = keys.token

    def ready(address: str) -> None:
        base, question, query = address.partition("?")
        console.print(f"Raters:    {address}", highlight=False, soft_wrap=True)
        console.print(
            f"Organiser: {base}progress{question}{query}#key={keys.organiser}", highlight=False, soft_wrap=True
        )
        console.print("Answers are on the disk as soon as they are given. Stop with Ctrl+C.", highlight=False)

    with Answers(study) as answers:
        application = create_app(answers, organiser=keys.organiser, host=host, names=tuple(name or ()), token=token)
        serve_app(application, host=host, port=port, token=token, ready=ready)


@user_study.command()
def progress(folder: Folder) -> None:
    """Says how far every rater has got."""
    from rich.table import Table

    study = open_study(folder)
    with Answers(study) as answers:
        raters = answers.raters()
    table = Table("rater", "nickname", "from", "answered")
    for rater in raters:
        done = f"{rater.answered} of {study.design.num_trials}"
        table.add_row(str(rater.number + 1), rater.nickname, rater.origin, done)
    console.print(table)


@user_study.command()
def forget(folder: Folder, rater: Annotated[int, typer.Argument(help="Number, as `progress` shows it.")]) -> None:
    """Removes a rater with all answers."""
    with Answers(open_study(folder)) as answers:
        answers.forget(rater - 1)
    console.print(f"Rater {rater} is forgotten.")


@user_study.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="A folder, or a .zip.")],
    blocks: Annotated[int, typer.Option(help="How many blocks of trials the page knows.")] = 48,
) -> None:
    """Writes a study that needs no server: put it on any host of files; raters send a file back."""
    from higan.userstudy.static import export as export_study

    path = export_study(open_study(folder), out, num_blocks=blocks)
    console.print(
        f"{path}; open index.html, or index.html#block=1, 2, 3 … so that blocks are shared evenly",
        highlight=False,
        soft_wrap=True,
    )


@user_study.command("import")
def import_(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(help="Files of answers that raters sent back.")],
) -> None:
    """Takes over answer files; what is there already stays as it is."""
    from higan.userstudy.files import import_file

    with Answers(open_study(folder)) as answers:
        for path in files:
            done = import_file(answers, path)
            console.print(
                f"{path}: {done.new} new answers of {done.rater.nickname}, {done.known} known already",
                highlight=False,
                soft_wrap=True,
            )


@user_study.command()
def simulate(
    folder: Folder,
    raters: Annotated[int, typer.Option(help="How many.")] = 12,
    lapse: Annotated[float, typer.Option(help="Share of trials at which a rater presses any key.")] = 0.1,
    careless: Annotated[float, typer.Option(help="Share of raters who always press any key.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of their answers.")] = 0,
) -> None:
    """Adds simulated raters, who see what the re-scoring sees; they are marked and never mixed with people."""
    from higan.userstudy.raters import simulate as simulate_raters

    with Answers(open_study(folder)) as answers:
        added = simulate_raters(answers, raters, lapse=lapse, careless=careless, seed=seed)
    console.print(f"{len(added)} SIMULATED raters added to {folder}", highlight=False, soft_wrap=True)


@user_study.command()
def analyse(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; default: analysis.html in the study.")] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Look at simulated raters, not at people.")] = False,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 2000,
) -> None:
    """Writes the analysis: one HTML page, and two tables beside it (answers.csv, estimates.csv; PAGE-answers.csv …)."""
    from higan.userstudy.analysis import analyse as analyse_answers
    from higan.userstudy.page import headline, write_analysis

    study = open_study(folder)
    out = out or folder / ("analysis-simulated.html" if simulated else "analysis.html")
    prepare(out, ".html")
    with Answers(study) as answers:
        found = analyse_answers(answers, simulated=simulated, num_resamples=resamples)
        paths = write_analysis(found, answers, room_for(out))
    if simulated:
        console.print("SIMULATED raters: no person took part.", style="bold")
    console.print(headline(found), highlight=False, soft_wrap=True)
    console.print(", ".join(map(str, paths)), highlight=False, soft_wrap=True)
