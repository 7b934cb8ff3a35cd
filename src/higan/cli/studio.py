"""The studio in the browser."""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

from higan import load_segmenter, store, study
from higan.cli.app import EMBEDDED, Device, app, console, minutes, progress_bars
from higan.cli.models import GeneratorOptions, Label, Models, digests_of, generator_options
from higan.cli.runs import models_of, open_folder
from higan.errors import MissingWeightsError, RunMismatchError
from higan.extras import optional
from higan.generators.loading import NAMES
from higan.named import is_reference
from higan.types import Generator, Scorer, Segmenter

_PROBED, _VERIFIED, _RANDOM = 1000, 32, 20
_SMALL = 128

_Opened = tuple[store.Run, Generator, Scorer, Segmenter | None]


@app.command()
def studio(
    what: Annotated[
        Path | None,
        typer.Argument(help="Folder of a finished run, or a generator; the embedded one by default."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(help="Asked for; made up where other machines can reach it.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--host-name", help="Further name to answer for, as of a proxy; may be repeated."),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Of a generator: what it is studied with first; colour by default.")
    ] = None,
    segmenter: Annotated[str | None, typer.Option(help="For overlays and transitions; by default the run's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Of a generator: folder of its study, studio-NAME by default.")
    ] = None,
    label: Label = None,
    generator_option: GeneratorOptions = None,
    show: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    device: Device = "cpu",
) -> None:
    """Opens a page to look at samples, move concepts and see at once what they do."""
    optional("fastapi", "studio")
    optional("uvicorn", "studio")
    from higan.studio import create_app
    from higan.web.guards import check_access, is_loopback
    from higan.web.serve import listen, serve

    key = secrets.token_urlsafe(24) if token is None and not is_loopback(host) else token
    # What cannot be served is said before a study that may take hours, not after it.
    check_access(host, key, tuple(name or ()))
    listen(host, port).close()
    chosen = None if segmenter is None else load_segmenter(segmenter, device)
    run, generator, predictor, own = _opened(what, scorer, out, device, label, generator_options(generator_option))
    if generator.resolution <= _SMALL:
        # Pictures so small gain nothing from several threads, and a core stays free for the browser.
        torch.set_num_threads(1)
    page = create_app(
        run,
        generator,
        predictor,
        segmenter=own if chosen is None else chosen,
        host=host,
        names=tuple(name or ()),
        token=key,
    )

    def ready(address: str) -> None:
        console.print(f"Studio: {address}  (stop with Ctrl C)", highlight=False, soft_wrap=True)
        if show:
            webbrowser.open(address)

    serve(page, host=host, port=port, token=key, ready=ready)


def _opened(
    what: Path | None,
    scorer: str | None,
    out: Path | None,
    device: str,
    label: int | None,
    options: Mapping[str, str | bool],
) -> _Opened:
    if what is not None and not what.is_dir():
        name = str(what)
        if not (what.is_file() or is_reference(name) or name in NAMES):
            raise MissingWeightsError(
                f"{what}: neither a folder of a run, nor a weight file, nor module:name, nor one of {', '.join(NAMES)}"
            )
        predictor = scorer or "colour"
        models = Models(name, predictor, {}, label, digests_of(name, predictor), options)
        stem = what.stem if what.is_file() else name.replace(":", "-")
        return _of_weights(models, out or Path(f"studio-{stem}"), device)
    if label is not None or options or out is not None or scorer is not None:
        raise ValueError(
            "--label, --generator-option, --scorer and --out go with a generator; a run keeps those it was made with"
        )
    return _embedded(device) if what is None else _of_run(store.load_run(what), device)


def _embedded(device: str) -> _Opened:
    from higan.studio import shipped_study

    try:
        run, generator, scorer, segmenter = _of_run(shipped_study(), device)
    except RunMismatchError:
        console.print("The embedded generator was exchanged since it was studied: studying it anew.")
        run, generator, scorer, segmenter = _of_weights(
            Models(EMBEDDED, EMBEDDED, digests=digests_of(EMBEDDED, EMBEDDED)), Path(f"studio-{EMBEDDED}"), device
        )
    return run, generator, scorer, segmenter or load_segmenter(EMBEDDED, device)


def _of_run(run: store.Run, device: str) -> _Opened:
    return run, *models_of(run, device)


def _of_weights(models: Models, out: Path, device: str) -> _Opened:
    """A short study first: sliders need boundaries, and boundaries need to be verified."""
    generator, scorer = models(device)
    run = open_folder(out, generator, scorer, models, num=_PROBED, seed=0)
    if not (run.path / "rescoring.safetensors").exists():
        cost = study.estimate(generator, scorer, num=_PROBED, verify=_VERIFIED, num_random=_RANDOM)
        console.print(
            f"{generator.name} is studied with {scorer.name} first, into {out}: {cost.images:,} images, about "
            f"{minutes(cost.seconds)}. `higan run` makes better studies; the same line goes on where it stopped."
        )
    with progress_bars() as bars:
        study.sample_step(run, generator, scorer, report=bars)
        if "rescore" not in study.steps_of(run):  # a better one that was made since is as good
            study.fit_step(run, report=bars)
            study.rescore_step(run, generator, scorer, num=_VERIFIED, num_random=_RANDOM, report=bars)
    return run, generator, scorer, None
