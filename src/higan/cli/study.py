"""The whole study in one line: demo, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.text import Text

from higan import load_segmenter, study
from higan.boundaries import Mode
from higan.cli.app import (
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
    SegmenterName,
    ShardSize,
    Step,
    StepModeName,
    Threads,
    Top,
    Verify,
    Workers,
    app,
    console,
    link,
    progress_bars,
)
from higan.cli.models import GeneratorOptions, Label, Models, digests_of
from higan.cli.models import generator_options as generator_options_of
from higan.cli.reports import RENDERED, PhotographFiles, draw_report, open_pictures
from higan.cli.runs import device_here, keep_longer, keep_rescoring, open_folder, upwards
from higan.cli.scorers import Against, Concepts, Options, say_guesses, scorer_options
from higan.cli.telling import amount, ranking, say_constant, say_doubts, say_scanty, say_settled
from higan.editing import StepMode, edit_step
from higan.engines import Engine, cores, open_engine
from higan.hierarchy import finding, profile

# Of the demo: so many processes are fed by its samples, in units small enough to end together.
_MOST_WORKERS = 8
_DEMO_SHARD = 500


@app.command()
def demo(
    out: Out = Path("demo"),
    num: Num = 8_000,
    verify: Verify = 48,
    adaptive: Annotated[
        bool, typer.Option("--adaptive/--fixed", help="Stop measuring what is settled; --verify is then the most.")
    ] = True,
    num_random: NumRandom = 20,
    num_permuted: NumPermuted = 20,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes of one thread; by default one for each core, 8 at most.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """The whole study on the embedded world; ends with a report."""
    # Threads of one process wait for each other at every layer, ever longer where the machine has other work.
    if workers is None and device == "cpu":
        workers = min(cores(), _MOST_WORKERS)
    _study(
        EMBEDDED, EMBEDDED, EMBEDDED, out, num=num, verify=verify, goal=study.Goal() if adaptive else None,
        num_random=num_random, num_permuted=num_permuted, device=device, photographs=[RENDERED],
        engine=open_engine(workers=workers, devices=[device]), shard_size=_DEMO_SHARD,
    )  # fmt: skip


@app.command()
def run(
    generator: GeneratorName,
    scorer: ScorerName,
    out: Out,
    segmenter: SegmenterName = None,
    num: Num = 10_000,
    verify: Verify = 200,
    adaptive: Adaptively = False,
    top: Top = None,
    confidence: Confidence = None,
    step: Step = 2.0,
    num_random: NumRandom = 20,
    num_permuted: NumPermuted = 20,
    step_mode: StepModeName = "official",
    fit: Fit = "extreme",
    num_extreme: NumExtreme = 2000,
    loss: LossName = "squared_hinge",
    penalty: Penalty = None,
    batch_size: BatchSize = 64,
    images_at_once: ImagesAtOnce = None,
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
    photograph: PhotographFiles = None,
) -> None:
    """The whole study on your generator and scorer; ends with a report."""
    _study(
        generator,
        scorer,
        segmenter,
        out,
        num=num,
        verify=verify,
        goal=goal_of(adaptive, top, confidence),
        step=step,
        num_random=num_random,
        num_permuted=num_permuted,
        step_mode=step_mode,
        fit={"mode": fit, "num_extreme": num_extreme, "loss": loss, "C": penalty_of(fit, penalty)},
        batch_size=batch_size,
        images_at_once=images_at_once,
        seed=seed,
        device=device,
        options=scorer_options(concept, against, option),
        generator_options=generator_options_of(generator_option),
        label=label,
        engine=open_engine(engine, workers=workers, devices=device.split(","), address=address, threads=threads),
        shard_size=shard_size,
        photographs=photograph or (),
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
    num_permuted: int,
    device: str,
    goal: study.Goal | None = None,
    step: float = 2.0,
    step_mode: StepMode = "official",
    fit: Mapping[str, Any] = MappingProxyType({}),
    batch_size: int = 64,
    images_at_once: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
    generator_options: Mapping[str, str | bool] = MappingProxyType({}),
    label: int | None = None,
    engine: Engine | None = None,
    shard_size: int = 2000,
    photographs: Sequence[str] = (),
) -> None:
    upwards(step)
    study.check(num=num, verify=verify, num_random=num_random, num_permuted=num_permuted, step=step, **fit)
    say_doubts([*study.few_probed(num, num_extreme=fit.get("num_extreme", 2000)), *study.few_verified(verify)])
    say_scanty(num_random, num_permuted)
    here = device_here(device, engine)
    digests = digests_of(generator_name, scorer_name, options)
    models = Models(generator_name, scorer_name, dict(options), label, digests, dict(generator_options))
    generator, scorer = models(here)
    if step_mode == "equal_step":
        edit_step(generator.truncation, step, step_mode)  # refused now, not after sampling
    segmenter = None if segmenter_name is None else load_segmenter(segmenter_name, here)
    pictures = open_pictures(photographs, generator)
    beside = {"segmenter": segmenter_name, "photographs": list(photographs)}
    folder = open_folder(
        out, generator, scorer, models, beside, num=num, seed=seed, shard_size=shard_size, engine=engine
    )
    say_guesses(scorer)
    rescoring: dict[str, Any] = {
        "num": verify,
        "step": step,
        "num_random": num_random,
        "step_mode": step_mode,
        "batch_size": batch_size,
        "images_at_once": images_at_once,
        "adaptive": goal,
    }
    fitting = {**fit, "num_permuted": num_permuted}
    fitted = study.is_fitted(folder, **fitting)
    if not study.was_fitted(folder, **fitting):
        keep_rescoring(folder, "repeat the settings of its fit, choose another --out, or first say higan fit --discard")
    again = "--verify {num}" if goal is None else "--verify {num}, without --adaptive"
    keep_longer(folder, verify, goal, f"repeat the line with {again}, or first say higan rescore {out} --discard")
    left = study.unscored(folder, generator, scorer, **rescoring) if fitted else verify
    cost = study.estimate(
        generator, scorer, num=study.unsampled(folder), verify=left, num_random=num_random, num_permuted=num_permuted,
        batch_size=batch_size,
    )  # fmt: skip
    console.print(
        Text(generator.name, "bold"),
        f"({generator.num_layers} layers, {generator.resolution} pixels) scored by",
        Text(scorer.name, "bold"),
        f"({len(scorer.concepts)} concepts): "
        f"{amount(cost, most=goal is not None, engine=engine)}; comparing steps and drawing the report come on top",
    )
    with progress_bars() as bars:
        study.sample_step(
            folder, generator, scorer, batch_size=batch_size, engine=engine, open_models=models, report=bars
        )
        boundaries = study.fit_step(folder, **fitting, report=bars)
    # Between bars, and before the hours that it may save.
    say_doubts([*study.mostly_ties(folder), *study.far_or_short(folder, step, step_mode)])
    with progress_bars() as bars:
        found = study.rescore_step(
            folder, generator, scorer, **rescoring, engine=engine, open_models=models, report=bars
        )
        if study.comparison(folder) is None:
            study.compare_step(
                folder, generator, scorer, batch_size=batch_size, images_at_once=images_at_once, report=bars
            )
        path = draw_report(folder, generator, scorer, segmenter, bars, pictures)
    say_constant(boundaries)
    console.print(ranking(folder))
    say_settled(folder)
    console.print(f"\n{finding(profile(found))}\n", style="bold", highlight=False)
    console.print("Report:", link(path), highlight=False, soft_wrap=True)


def goal_of(adaptive: bool, top: int | None, confidence: float | None) -> study.Goal | None:
    """What --adaptive has to settle; None without it, which then has no use for the others."""
    asked: dict[str, Any] = {"top": top, "confidence": confidence}
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked and not adaptive:
        raise ValueError(f"only --adaptive has a use for --{' and --'.join(asked)}; give it too, or leave the rest out")
    return study.Goal(**asked) if adaptive else None


def penalty_of(mode: Mode, penalty: float | None) -> float:
    """--C as it is or is left out."""
    if mode == "all" and penalty is not None:
        raise ValueError(f"--C is the penalty of --fit extreme, and --fit all has none; leave it out (got {penalty:g})")
    return 1.0 if penalty is None else penalty
