"""The study step by step: sample, fit, rescore, steps, report, verify."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from higan import store, study
from higan.cli.app import (
    ANEW,
    EMBEDDED,
    Adaptively,
    Address,
    BatchSize,
    Confidence,
    Device,
    Devices,
    EngineChoice,
    Fit,
    GeneratorName,
    ImagesAtOnce,
    LossName,
    Num,
    NumExtreme,
    NumPermuted,
    NumRandom,
    Out,
    Penalty,
    ScorerName,
    Seed,
    ShardSize,
    Step,
    StepModeName,
    Threads,
    Top,
    Verify,
    Workers,
    app,
    console,
    progress_bars,
)
from higan.cli.models import GeneratorOptions, Label, Models, digests_of, located
from higan.cli.models import generator_options as generator_options_of
from higan.cli.reports import PhotographFiles, draw_report, open_pictures
from higan.cli.runs import device_here, keep_longer, keep_rescoring, models_of, open_folder, recipe_of, upwards
from higan.cli.scorers import Against, Concepts, Options, say_guesses, scorer_options
from higan.cli.study import goal_of, penalty_of
from higan.cli.telling import amount, known, ranking, responses, say_constant, say_doubts, say_scanty, say_settled
from higan.engines import open_engine
from higan.hierarchy import finding, profile
from higan.statistics import rank


@app.command()
def sample(
    out: Out,
    generator: GeneratorName = EMBEDDED,
    scorer: ScorerName = EMBEDDED,
    num: Num = 10_000,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Devices = "cpu",
    concept: Concepts = None,
    against: Against = None,
    option: Options = None,
    generator_option: GeneratorOptions = None,
    label: Label = None,
    engine: EngineChoice = None,
    workers: Workers = None,
    threads: Threads = None,
    address: Address = None,
    shard_size: ShardSize = 2000,
) -> None:
    """Samples codes, renders and scores them into a run folder."""
    options = scorer_options(concept, against, option)
    workforce = open_engine(engine, workers=workers, devices=device.split(","), address=address, threads=threads)
    digests = digests_of(generator, scorer, options)
    models = Models(generator, scorer, options, label, digests, generator_options_of(generator_option))
    loaded, predictor = models(device_here(device, workforce))
    folder = open_folder(out, loaded, predictor, models, num=num, seed=seed, shard_size=shard_size, engine=workforce)
    say_guesses(predictor)
    left = study.unsampled(folder)
    if left:
        cost = study.estimate(loaded, predictor, num=left, verify=0, num_random=0, batch_size=batch_size)
        console.print(amount(cost, engine=workforce))
    with progress_bars() as bars:
        study.sample_step(
            folder, loaded, predictor, batch_size=batch_size, engine=workforce, open_models=models, report=bars
        )
    console.print(f"{num:,} samples in {out}")


@app.command("fit")
def fit_(
    folder: Annotated[Path, typer.Argument(help="Folder of a sampled run.")],
    concept: Annotated[list[str] | None, typer.Option("--concept", help="Only these; may be repeated.")] = None,
    mode: Fit = "extreme",
    num_extreme: NumExtreme = 2000,
    loss: LossName = "squared_hinge",
    penalty: Penalty = None,
    num_permuted: NumPermuted = 20,
    device: Device = "cpu",
    memory: Annotated[
        float | None, typer.Option(help="MB of training samples fitted together; by default 8, on a GPU 1,074.")
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Replace boundaries that were imported or re-scored, refused otherwise.")
    ] = False,
) -> None:
    """Fits one boundary per concept to the samples of a run."""
    settings: dict[str, Any] = {
        "mode": mode, "num_extreme": num_extreme, "loss": loss, "C": penalty_of(mode, penalty),
        "num_permuted": num_permuted,
    }  # fmt: skip
    opened = store.load_run(folder)
    if not discard and not study.was_fitted(opened, concept, **settings):
        keep_rescoring(opened, "say --discard to fit anew all the same, or fit in a copy of the folder")
    if memory is not None and mode == "all":
        raise ValueError(f"--memory is that of --fit extreme; leave it out (got {memory:g})")
    say_doubts(study.few_probed(opened.num_samples, num_extreme=num_extreme))
    say_scanty(0, num_permuted)
    with progress_bars(after=ANEW) as bars:
        boundaries = study.fit_step(
            opened,
            concept,
            **settings,
            device=device,
            memory=_bytes(memory),
            report=bars,
        )
    table = Table("concept", "level", "held-out accuracy", "cosine between halves")
    for b in boundaries:
        table.add_row(b.concept.name, b.concept.level, known(b.holdout_accuracy, 3), known(b.stability, 3))
    console.print(table)
    say_constant(boundaries)
    say_doubts(study.mostly_ties(opened))


def _bytes(megabytes: float | None) -> int | None:
    if megabytes is None:
        return None
    if not 0 < megabytes * 1e6 < math.inf:
        raise ValueError(f"--memory is a number of MB above 0; got {megabytes:g}")
    return round(megabytes * 1e6)


@app.command()
def rescore(
    folder: Annotated[Path, typer.Argument(help="Folder of a run with boundaries.")],
    verify: Verify = 200,
    adaptive: Adaptively = False,
    top: Top = None,
    confidence: Confidence = None,
    step: Step = 2.0,
    num_random: NumRandom = 20,
    step_mode: StepModeName = "official",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images drawn and scored at once; 64, or what --adaptive looks at.")
    ] = None,
    images_at_once: ImagesAtOnce = None,
    device: Devices = "cpu",
    engine: EngineChoice = None,
    workers: Workers = None,
    threads: Threads = None,
    address: Address = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Replace a re-scoring of more samples, which is refused otherwise.")
    ] = False,
) -> None:
    """Moves fresh codes along every boundary and measures what changes, Eq. (1)."""
    if adaptive and batch_size is not None:
        raise ValueError("--adaptive chooses itself how many samples it looks at; leave --batch-size out")
    if verify < 2:
        raise ValueError(f"--verify must be at least 2; got {verify}")
    batch_size = batch_size or 64
    workforce = open_engine(engine, workers=workers, devices=device.split(","), address=address, threads=threads)
    upwards(step)
    rescoring: dict[str, Any] = {
        "num": verify,
        "step": step,
        "num_random": num_random,
        "step_mode": step_mode,
        "batch_size": batch_size,
        "images_at_once": images_at_once,
        "adaptive": goal_of(adaptive, top, confidence),
    }
    opened = store.load_run(folder)
    if not discard:
        goal = rescoring["adaptive"]
        again = "--verify {num}" if goal is None else "--verify {num} without --adaptive"
        keep_longer(opened, verify, goal, f"say {again}, or --discard to replace it all the same")
    models = recipe_of(opened)
    generator, scorer = models(device_here(device, workforce))
    boundaries, permuted = store.load_boundaries(opened), store.load_permuted(opened)
    left = study.unscored(opened, generator, scorer, **rescoring)
    say_doubts([*study.few_verified(verify), *study.far_or_short(opened, step, step_mode)])
    say_scanty(num_random, len(permuted))
    if left:
        cost = study.estimate(
            generator, scorer, num=0, verify=left, num_random=num_random, num_permuted=len(permuted),
            batch_size=batch_size, num_concepts=len(boundaries),
        )  # fmt: skip
        console.print(amount(cost, most=adaptive, engine=workforce))
    with progress_bars() as bars:
        study.rescore_step(opened, generator, scorer, **rescoring, engine=workforce, open_models=models, report=bars)
    console.print(ranking(opened))
    say_settled(opened)


@app.command()
def steps(
    folder: Annotated[Path, typer.Argument(help="Folder of a re-scored run.")],
    verify: Verify = 8,
    num_random: NumRandom = 8,
    batch_size: BatchSize = 64,
    images_at_once: ImagesAtOnce = None,
    device: Device = "cpu",
) -> None:
    """Compares steps: Δs against λ both ways, and which layers hold what under every step mode."""
    opened = store.load_run(folder)
    generator, scorer = recipe_of(opened)(device)
    if study.comparison(opened) is None:
        images = study.compare_cost(opened, generator, num=verify, num_random=num_random)
        if images:
            console.print(f"{images:,} images to score")
    with progress_bars(after=ANEW) as bars:
        found = study.compare_step(
            opened,
            generator,
            scorer,
            num=verify,
            num_random=num_random,
            batch_size=batch_size,
            images_at_once=images_at_once,
            report=bars,
        )
    if found is None:
        console.print("No concept is verified: there is nothing to compare.")
        return
    console.print(responses(found))
    rescoring = store.load_rescoring(opened)
    counted = {row.concept.name for row in rank(rescoring) if row.verified}
    own = profile(rescoring, concepts=counted)
    for mode, result in {rescoring.step_mode: rescoring, **found.modes}.items():
        # Other modes are tried with what the run's own has verified.
        levels = replace(profile(result, concepts=counted), untried=own.untried)
        console.print(Text(f"{mode}:", "bold"), finding(levels), highlight=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    photograph: PhotographFiles = None,
    device: Device = "cpu",
) -> None:
    """Draws the report of a finished run again."""
    opened = store.load_run(folder)
    generator, scorer, segmenter = models_of(opened, device)
    made = opened.provenance
    pictures = open_pictures(
        photograph or [located(name, made.get("folder")) for name in made.get("photographs") or ()], generator
    )
    with progress_bars(after=ANEW) as bars:
        path = draw_report(opened, generator, scorer, segmenter, bars, pictures)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Checks samples and results of a run and prints one digest of its codes and scores."""
    console.print(store.verify(folder), highlight=False)
