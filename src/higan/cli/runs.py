"""Run folders on the command line: begun, opened with their own generator and scorer, and not overwritten unasked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
import typer

from higan import __version__, load_segmenter, store, study
from higan.cli.models import Models, located, names_files, weights_digest
from higan.devices import open_device
from higan.engines import Engine, Processes, RayCluster
from higan.errors import MissingWeightsError, RunError, RunMismatchError
from higan.named import is_reference, lies_in, missing_package
from higan.trial import check_same
from higan.types import Generator, Scorer, Segmenter
from higan.workbench import Workbench, open_workbench

Run = Annotated[Path, typer.Option("--run", help="Folder of a finished run: generator, scorer, boundaries, layers.")]


def open_folder(
    out: Path,
    generator: Generator,
    scorer: Scorer,
    models: Models,
    beside: Mapping[str, Any] = MappingProxyType({}),
    *,
    num: int,
    seed: int,
    shard_size: int = 2000,
    engine: Engine | None = None,
) -> store.Run:
    """The run folder, which says how generator and scorer were opened, and what else there is ``beside`` them."""
    provenance = made_with(models, {**beside, "device": str(generator.device)})
    if isinstance(engine, Processes | RayCluster):
        provenance["threads"] = engine.threads
    run = study.open_study(
        out,
        generator,
        scorer,
        num=num,
        seed=seed,
        shard_size=shard_size,
        digests=models.digests_in(out),
        choices=models.choices,
        provenance=provenance,
    )
    # A run that was begun step by step hears of its segmenter later.
    return store.complete(run, {name: provenance.get(name) for name in ("segmenter", "photographs", "folder")})


def made_with(models: Models, beside: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What a run folder keeps, for those who open it, of the line that began it."""
    made = {
        "higan": __version__,
        "generator": models.generator,
        "scorer": models.scorer,
        "segmenter": None,
        **models.choices,
        **beside,
        "command": shlex.join(["higan", *sys.argv[1:]]),
    }
    typed = [models.generator, models.scorer, beside.get("segmenter"), *beside.get("photographs", ())]
    if any(names_files(str(name)) or is_reference(str(name)) for name in [*typed, *models.options.values()]):
        made["folder"] = str(Path.cwd())
    return made


def models_of(opened: store.Run, device: str) -> tuple[Generator, Scorer, Segmenter | None]:
    """Generator, scorer and segmenter that a run was made with; another scorer draws no other pictures.

    A module's source may have changed, in a comment or beside the generator, as long as the first sample is the same.

    Raises:
        RunMismatchError: the generator's weight file is another one, or its module draws the first sample otherwise.
    """
    recipe = recipe_of(opened)
    generator, scorer = replace(recipe, digests={})(device)
    name = recipe.generator
    made = recipe.digests.get(f"generator {name}", "")
    if made and weights_digest(name) != made:
        if not is_reference(name):
            raise RunMismatchError(
                f"{name} is no longer the file that {opened.path} was made with: its SHA-256 has changed"
            )
        check_same(opened, generator, scorer)
    segmenter = opened.provenance.get("segmenter")
    if not segmenter:
        return generator, scorer, None
    return generator, scorer, load_segmenter(located(segmenter, opened.provenance.get("folder")), device)


def recipe_of(opened: store.Run) -> Models:
    """How to open what a run was made with, and nothing else: with other weights a result belongs to another run."""
    made = opened.provenance
    if "imported from" in made and "generator" not in made:
        raise MissingWeightsError(
            f"{opened.path} holds what the official tool found, which does not say what generator it used: import it "
            "into another folder with --generator and --scorer, or go on in Python, with higan.store.load_boundaries "
            "and higan.rescoring.rescore"
        )
    _refuse_code_of(opened)
    for role in ("generator", "scorer"):
        if role not in made:
            raise MissingWeightsError(
                f"{opened.path} does not say which {role} it was made with, as runs of Python do not. "
                'Go on there, or name both when the run is begun: open_study(…, provenance={"generator": '
                '"module:name", "scorer": "module:name"})'
            )
    options, digests = made.get("scorer_options", {}), dict(opened.settings.get("digests", {}))
    digests.pop("official", None)
    label, generator_options = made.get("label"), made.get("generator_options", {})
    if missing := list(filter(None, map(missing_package, _references(opened)))):
        raise MissingWeightsError(
            f"{opened.path} was made with the module {missing[0]!r}, which cannot be found from here; go to the folder "
            f"where it was made, {made.get('folder', 'which is not known')}, or put that into PYTHONPATH"
        )
    models = Models(made["generator"], made["scorer"], options, label, digests, generator_options)
    return models.begun_in(made.get("folder"))


def _refuse_code_of(opened: store.Run) -> None:
    """Refuse to import modules because somebody else's folder says so: a run may come from anywhere.

    Raises:
        RunError: a name in the manifest is of a module that lies in the run, or of Python's own.
    """
    for reference in _references(opened):
        package = reference.partition(":")[0].partition(".")[0]
        inside = lies_in(reference, opened.path)
        if inside or package in sys.stdlib_module_names:
            where = "a module that lies in the run itself" if inside else "code of Python"
            raise RunError(
                f"{opened.path} asks for {reference}, {where}, which is not run because a file says so; if it is "
                "yours, move the module to the folder you work in"
            )


def _references(opened: store.Run) -> list[str]:
    """What a run was made with that is written ``module:name``."""
    named = [str(opened.provenance.get(role) or "") for role in ("generator", "scorer", "segmenter")]
    return [part for name in named for part in name.split("+") if is_reference(part)]


def bench_of(run: Path, device: str) -> Workbench:
    """A run with all that editing needs, opened."""
    return bench_and_segmenter(run, device)[0]


def bench_and_segmenter(run: Path, device: str) -> tuple[Workbench, Segmenter | None]:
    """The same, and the run's segmenter where it has one."""
    opened = store.load_run(run)
    generator, scorer, segmenter = models_of(opened, device)
    return open_workbench(opened, generator, scorer), segmenter


def device_here(devices: str, engine: Engine | None) -> str:
    """The first of the devices; where only workers of a cluster have GPUs, this process takes the processor.

    Raises:
        ValueError: one of the devices is not there.
    """
    first, *others = devices.split(",")
    if isinstance(engine, RayCluster) and first.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    for name in (first, *others):
        open_device(name)
    return first


def upwards(step: float) -> None:
    """Refuse to measure edits the other way, of which Eq. (1) counts only what rises."""
    if step < 0:
        raise ValueError(
            f"--step is how far codes go along a boundary, to where there is more of a concept; got {step:g}. Edits "
            "the other way are written as in `higan edit --set wood=-2`"
        )


def keep_rescoring(opened: store.Run, way_out: str) -> None:
    """Refuse to fit other boundaries than those that hours may have gone into."""
    steps = study.steps_of(opened)
    begun = "fit" in steps and store.Units(opened).folder.is_dir()
    if begun or "rescore" in steps:
        held = "a re-scoring" if "rescore" in steps else "a re-scoring under way"
        raise ValueError(f"{opened.path} holds {held} of the boundaries it has, which goes with them; {way_out}")
    if "imported from" in opened.provenance and "fit" not in steps and _has_boundaries(opened):
        raise ValueError(f"{opened.path} holds boundaries that were imported, which would be replaced; {way_out}")


def _has_boundaries(opened: store.Run) -> bool:
    return (opened.path / "boundaries.safetensors").exists()


def keep_longer(opened: store.Run, verify: int, adaptive: object, way_out: str) -> None:
    """Refuse to replace a re-scoring by one of fewer samples; ``way_out`` may name its ``{num}``."""
    kept = (opened.path / "rescoring.safetensors").exists()
    settings = study.steps_of(opened).get("rescore", {}).get("settings", {}) if kept else {}
    num, whole = settings.get("num", 0), settings.get("adaptive") is None
    if num > verify or (num and whole and adaptive is not None):
        other = "an adaptive one, which takes fewer of most edits," if num <= verify else f"one of {verify}"
        raise ValueError(
            f"{opened.path} holds a re-scoring of {num} samples, which {other} would replace; {way_out.format(num=num)}"
        )
