"""Weight files and the official tool's files: models, pull, inspect, convert, import-official, export-official."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from higan import conformance, load_generator, store
from higan.checkpoints.official import Direction, named_by
from higan.cli.app import Device, Out, app, console, progress_bars
from higan.cli.models import GeneratorOptions, Label, Models, digests_of, generator_options, open_generator
from higan.cli.runs import made_with
from higan.cli.scorers import Against, Concepts, Options, open_scorer, scorer_options
from higan.conformance import Finding
from higan.errors import RunMismatchError
from higan.trial import check_imported
from higan.types import Boundary, Population

WeightFile = Annotated[Path, typer.Argument(help="Weight file of any format that is understood.")]


@app.command()
def models(
    family: Annotated[
        str | None, typer.Option(help="Only this family: rooms, pggan, stylegan, stylegan2, stylegan3, biggan.")
    ] = None,
) -> None:
    """Lists the embedded generators and the official weight files, with data set, resolution, licence and origin."""
    from higan.checkpoints.zoo import MODELS
    from higan.generators.loading import ROOMS, WEIGHTS, inspect_file

    table = Table()
    table.add_column("name", no_wrap=True)
    for column in ("family", "data set", "pixels", "licence", "to be had", "origin"):
        table.add_column(column, overflow="fold")
    for name in ROOMS if family in (None, "rooms") else ():
        pixels = str(inspect_file(WEIGHTS / f"{name}.safetensors").resolution)
        table.add_row(name, "rooms", "rendered rooms", pixels, "MIT", "embedded", "higan rooms train-generator")
    for model in MODELS:
        if family is None or model.family == family:
            table.add_row(
                model.name,
                model.family,
                model.dataset,
                str(model.resolution),
                model.licence,
                model.status,
                model.origin,
            )
    if not table.row_count:
        known = ", ".join(dict.fromkeys(["rooms", *(model.family for model in MODELS)]))
        raise ValueError(f"no family is called {family!r}; known: {known}")
    console.print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="As `higan models` lists it.")],
    mirror: Annotated[str | None, typer.Option(help="File, folder or address to take it from instead.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder to keep it in; by default $HIGAN_CACHE, or higan among the user's caches."),
    ] = None,
) -> None:
    """Downloads an official weight file, resuming and checking its digest."""
    from higan.checkpoints.download import pull as fetch

    with progress_bars() as bars:
        path = fetch(name, mirror, cache, lambda done, total: bars(name, done, total or done))
    console.print(str(path), highlight=False, soft_wrap=True)


@app.command()
def inspect(file: WeightFile) -> None:
    """Says what a weight file holds, without running anything in it."""
    from higan.generators.loading import inspect_file

    found = inspect_file(file)
    table = Table(show_header=False, box=None)
    table.add_row("family", found.family)
    table.add_row("format", found.format)
    table.add_row("resolution", f"{found.resolution} pixels")
    table.add_row(
        "layers", f"{found.num_layers}, codes of width {found.code_dim} from latents of width {found.latent_dim}"
    )
    table.add_row("pixels per layer", " ".join(map(str, found.layer_resolutions)))
    table.add_row("width per layer", " ".join(map(str, found.layer_widths)))
    table.add_row("classes", str(found.num_classes or "none"))
    table.add_row("parameters", f"{found.parameters:,}")
    table.add_row("size", f"{found.size:,} bytes")
    table.add_row("SHA-256", found.digest)
    for key, value in found.provenance.items():
        table.add_row(key, str(value))
    console.print(table, highlight=False)


@app.command()
def convert(
    file: WeightFile,
    target: Annotated[Path, typer.Argument(help="safetensors file to write.")],
) -> None:
    """Converts a weight file to safetensors with its configuration in the header."""
    from higan.generators.loading import save_generator
    from higan.generators.pretrained import PretrainedGenerator

    if target.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors; got {target}")
    if target.exists() and file.exists() and target.samefile(file):
        raise ValueError(f"{target} is the file to be read and would be overwritten; give another name")
    generator = load_generator(file)
    if not isinstance(generator, PretrainedGenerator):
        raise ValueError(f"{file} is in our own format already")  # noqa: TRY004 - the file is wrong, not a type
    save_generator(generator, target)
    console.print(f"{generator.name}: {generator.resolution} pixels, {generator.num_layers} layers, in {target}")


@app.command("import-official")
def import_official(
    folder: Annotated[Path, typer.Argument(help="Folder that the official tool wrote.")],
    out: Out,
    num_layers: Annotated[int | None, typer.Option("--num-layers", help="L, where the folder has no wp.npy.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="That the codes are of; with it and a scorer, all verbs work on the run.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="That knows the boundaries' concepts by their names.")] = None,
    concept: Concepts = None,
    against: Against = None,
    option: Options = None,
    generator_option: GeneratorOptions = None,
    label: Label = None,
    device: Device = "cpu",
) -> None:
    """Makes a run folder of the official tool's codes, scores and boundaries.

    Without a generator and a scorer it can be fitted; with both it can be re-scored, and then edited and looked at.
    """
    from higan.checkpoints.official import import_official as read

    if (generator is None) != (scorer is None):
        raise ValueError("--generator and --scorer go together; give both, or neither")
    made: dict[str, Any] = {"imported from": folder.name}
    digests: dict[str, str] = {}
    names = {"generator": "official", "scorer": "official"}
    if generator is None or scorer is None:
        found = read(folder, num_layers)
    else:
        options = scorer_options(concept, against, option)
        digests = digests_of(generator, scorer, options)
        models = Models(generator, scorer, options, label, digests, generator_options(generator_option))
        drawing, scoring = models(device)
        found = named_by(scoring, read(folder, num_layers or drawing.num_layers))
        check_imported(found.population, drawing, scoring)
        made |= made_with(models)
        names = {"generator": drawing.name, "scorer": scoring.name}
    population = found.population
    settings = {
        **names,
        "num_layers": population.num_layers,
        "concepts": [concept.name for concept in population.concepts],
        "num_samples": len(population),
        "shard_size": len(population),
        "seed": 0,
        "digests": {"official": _digest_of(population, found.directions), **digests},
    }
    run = store.open_run(out, settings, provenance=made)
    with store.writing(run):
        if store.missing_shards(run):
            store.write_shard(run, 0, population)
        if found.directions and not (run.path / "boundaries.safetensors").exists():
            store.save_boundaries(run, [direction.boundary for direction in found.directions])
    there = store.load_boundaries(run) if (run.path / "boundaries.safetensors").exists() else ()
    if found.directions and not _alike(there, found.directions):
        raise RunMismatchError(
            f"{out} holds the samples of {folder}, but boundaries that were fitted since; choose another folder"
        )
    console.print(f"{len(population):,} samples, {len(there)} boundaries in {out}")


def _alike(boundaries: Sequence[Boundary], directions: Sequence[Direction]) -> bool:
    pairs = zip(boundaries, directions, strict=False)
    return len(boundaries) == len(directions) and all(a.normal.equal(b.boundary.normal) for a, b in pairs)


def _digest_of(population: Population, directions: Sequence[Direction]) -> str:
    """Of all that is imported: another folder's codes are another run."""
    content = hashlib.sha256()
    for tensor in (population.codes, population.scores, *(direction.boundary.normal for direction in directions)):
        content.update(str(tuple(tensor.shape)).encode())
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


@app.command("export-official")
def export_official(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    target: Annotated[Path, typer.Argument(help="Folder for the official tool.")],
) -> None:
    """Writes codes, scores and boundaries of a run as the official tool reads them."""
    from higan.checkpoints.official import export_official as write

    run = store.load_run(folder)
    boundaries = store.load_boundaries(run) if (run.path / "boundaries.safetensors").exists() else ()
    for path in write(target, store.read_population(run), boundaries):
        console.print(str(path), highlight=False, soft_wrap=True)


@app.command("check-scorer")
def check_scorer(
    scorer: Annotated[str, typer.Argument(help="As for --scorer.")],
    device: Device = "cpu",
    concept: Concepts = None,
    against: Against = None,
    option: Options = None,
) -> None:
    """Tells what is wrong with a scorer of your own, and how to mend it."""
    opened = open_scorer(scorer, device, scorer_options(concept, against, option))
    _say_findings(conformance.check_scorer(opened, conformance.trial_images(device=device)))


@app.command("check-generator")
def check_generator(
    generator: Annotated[str, typer.Argument(help="As for --generator.")],
    label: Label = None,
    generator_option: GeneratorOptions = None,
    device: Device = "cpu",
) -> None:
    """Tells what is wrong with a generator, and how to mend it."""
    opened = open_generator(generator, device, label, generator_options(generator_option))
    _say_findings(conformance.check_generator(opened))


def _say_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        mark = Text("✗", "red") if finding.problem else Text("✓", "green")
        console.print(mark, finding.check)
        if finding.problem:
            console.print(f"  {finding.problem}\n  {finding.remedy}")
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)
