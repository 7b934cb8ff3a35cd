"""The study and its steps: demo, run, sample, fit, rescore, report, verify."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import torch
import typer
from jaxtyping import UInt8
from rich.table import Table
from rich.text import Text
from torch import Tensor

from higan import __version__, load_segmenter, store, study
from higan.boundaries import Mode
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
    Report,
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
    errors,
    link,
    minutes,
    progress_bars,
)
from higan.cli.models import GeneratorOptions, Label, Models, digests_of, located, names_files, weights_digest
from higan.cli.models import generator_options as generator_options_of
from higan.cli.scorers import Against, Concepts, Options, say_guesses, scorer_options
from higan.devices import open_device
from higan.editing import StepMode, edit_step
from higan.engines import Engine, Processes, RayCluster, open_engine
from higan.errors import MissingWeightsError, RunMismatchError
from higan.hierarchy import finding, profile
from higan.named import is_reference
from higan.photographs import open_photograph
from higan.rooms.dataset import sample_rooms
from higan.statistics import rank
from higan.types import Boundary, Generator, Scorer, Segmenter

RENDERED = "rooms"
"""Instead of the name of a photograph: three rendered rooms that nothing was trained on."""
_HELD_OUT = 20_000_000
PhotographFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--photograph", help="Picture to invert and edit beside samples, or rooms for rendered ones; may be repeated."
    ),
]


@app.command()
def demo(
    out: Out = Path("demo"),
    num: Num = 8_000,
    verify: Verify = 64,
    adaptive: Annotated[
        bool, typer.Option("--adaptive/--fixed", help="Stop measuring what is settled; --verify is then the most.")
    ] = True,
    num_random: NumRandom = 20,
    num_permuted: NumPermuted = 20,
    device: Device = "cpu",
) -> None:
    """The whole study on the embedded world; ends with a report."""
    _study(
        EMBEDDED, EMBEDDED, EMBEDDED, out, num=num, verify=verify, goal=study.Goal() if adaptive else None,
        num_random=num_random, num_permuted=num_permuted, device=device, photographs=[RENDERED],
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
        goal=_goal(adaptive, top, confidence),
        step=step,
        num_random=num_random,
        num_permuted=num_permuted,
        step_mode=step_mode,
        fit={"mode": fit, "num_extreme": num_extreme, "loss": loss, "C": _penalty(fit, penalty)},
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


def _goal(adaptive: bool, top: int | None, confidence: float | None) -> study.Goal | None:
    asked: dict[str, Any] = {"top": top, "confidence": confidence}
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked and not adaptive:
        raise ValueError(f"only --adaptive has a use for --{' and --'.join(asked)}; give it too, or leave the rest out")
    return study.Goal(**asked) if adaptive else None


def _penalty(mode: Mode, penalty: float | None) -> float:
    if mode == "all" and penalty is not None:
        raise ValueError(f"--C is the penalty of --fit extreme, and --fit all has none; leave it out (got {penalty:g})")
    return 1.0 if penalty is None else penalty


def _bytes(megabytes: float | None) -> int | None:
    if megabytes is None:
        return None
    if not 0 < megabytes * 1e6 < math.inf:
        raise ValueError(f"--memory is a number of MB above 0; got {megabytes:g}")
    return round(megabytes * 1e6)


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
    study.check(num=num, verify=verify, num_random=num_random, num_permuted=num_permuted, step=step, **fit)
    _say_scanty(num_random, num_permuted)
    here = _device_here(device, engine)
    digests = digests_of(generator_name, scorer_name, options)
    models = Models(generator_name, scorer_name, dict(options), label, digests, dict(generator_options))
    generator, scorer = models(here)
    if step_mode == "equal_step":
        edit_step(generator.truncation, step, step_mode)  # refused now, not after sampling
    segmenter = None if segmenter_name is None else load_segmenter(segmenter_name, here)
    pictures = _opened(photographs, generator)
    beside = {"segmenter": segmenter_name, "photographs": list(photographs)}
    folder = _open(out, generator, scorer, models, beside, num=num, seed=seed, shard_size=shard_size, engine=engine)
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
        _keep_rescoring(
            folder, "repeat the settings of its fit, choose another --out, or first say higan fit --discard"
        )
    _keep_longer(folder, verify, f"repeat the line with --verify {{num}}, or first say higan rescore {out} --discard")
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
        f"{_amount(cost, most=goal is not None)}; comparing steps and drawing the report come on top",
    )
    with progress_bars() as bars:
        study.sample_step(
            folder, generator, scorer, batch_size=batch_size, engine=engine, open_models=models, report=bars
        )
        boundaries = study.fit_step(folder, **fitting, report=bars)
        found = study.rescore_step(
            folder, generator, scorer, **rescoring, engine=engine, open_models=models, report=bars
        )
        if study.comparison(folder) is None:
            study.compare_step(
                folder, generator, scorer, batch_size=batch_size, images_at_once=images_at_once, report=bars
            )
        path = _write_report(folder, generator, scorer, segmenter, bars, pictures)
    _say_constant(boundaries)
    console.print(_ranking(folder))
    _say_settled(folder)
    console.print(f"\n{finding(profile(found))}\n", style="bold", highlight=False)
    console.print("Report:", link(path), highlight=False, soft_wrap=True)


def _open(
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
    provenance = {
        "higan": __version__,
        "generator": models.generator,
        "scorer": models.scorer,
        "segmenter": None,
        **models.choices,
        **beside,
        "device": str(generator.device),
        "command": shlex.join(["higan", *sys.argv[1:]]),
    }
    if isinstance(engine, Processes | RayCluster):
        provenance["threads"] = engine.threads
    typed = [models.generator, models.scorer, beside.get("segmenter"), *beside.get("photographs", ())]
    if any(names_files(str(name)) or is_reference(str(name)) for name in [*typed, *models.options.values()]):
        provenance["folder"] = str(Path.cwd())
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


def _amount(cost: study.Cost, *, most: bool = False) -> str:
    """What is left to do, as it is announced."""
    at_most = "at most " if most else ""
    return f"{at_most}{cost.images:,} images, {at_most}about {minutes(cost.seconds)} on this machine"


def _device_here(devices: str, engine: Engine | None) -> str:
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


_COLUMNS = ("level", "Δs", "95 % interval", "null", "effect σ", "q", "accuracy", "cosine", "verified")
_LEFT = ("level", "verified")
_WIDE = 110
_NARROW_LACKS = ("level", "null", "accuracy", "cosine")


def _ranking(folder: store.Run) -> Table:
    caption = (
        "null: mean of random directions. q: false-discovery rate over all concepts and sets of layers, against both "
        "nulls. cosine: between the boundaries found from either half of the samples."
    )
    table = Table(
        title="Concepts by effect of the edit on all layers", title_justify="left", caption=caption,
        caption_justify="left",
    )  # fmt: skip
    # Only names give way, and where there is little room whole columns do: no number is ever cut.
    table.add_column("concept", overflow="fold", min_width=10)
    columns = [name for name in _COLUMNS if console.width >= _WIDE or name not in _NARROW_LACKS]
    for name in columns:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    boundaries = {b.concept.name: b for b in store.load_boundaries(folder)}
    for row in rank(store.load_rescoring(folder)):
        cells = {
            "level": row.concept.level,
            "Δs": f"{row.delta:.3g}",
            "95 % interval": f"{row.low:.3g} – {row.high:.3g}",
            "null": f"{row.null:.3g}",
            "effect σ": f"{row.effect:.2f}",
            "q": "< 0.001" if row.q < 0.001 else f"{row.q:.3f}",
            "accuracy": f"{boundaries[row.concept.name].holdout_accuracy:.2f}",
            "cosine": f"{boundaries[row.concept.name].stability:.2f}",
            "verified": "yes" if row.verified else Text("no", "dim"),
        }
        table.add_row(row.concept.name, *(cells[name] for name in columns))
    return table


def _opened(photographs: Sequence[str], generator: Generator) -> UInt8[Tensor, "P 3 H W"] | None:
    """Pictures for the report, by file; `RENDERED` stands for rooms that nothing was trained on."""
    pictures = []
    for name in photographs:
        if name == RENDERED:
            pictures += [*sample_rooms(range(_HELD_OUT, _HELD_OUT + 3), generator.resolution).images]
        else:
            pictures.append(open_photograph(name, generator.resolution))
    return torch.stack(pictures) if pictures else None


def _write_report(
    folder: store.Run,
    generator: Generator,
    scorer: Scorer,
    segmenter: Segmenter | None,
    bars: Report,
    photographs: UInt8[Tensor, "P 3 H W"] | None = None,
) -> Path:
    from higan.report import write_report

    return write_report(
        folder,
        generator,
        scorer,
        segmenter=segmenter,
        photographs=photographs,
        minutes=sum(step["seconds"] for step in study.steps_of(folder).values()) / 60,
        progress=lambda done, total: bars("report", done, total),
    )


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
    loaded, predictor = models(_device_here(device, workforce))
    folder = _open(out, loaded, predictor, models, num=num, seed=seed, shard_size=shard_size, engine=workforce)
    say_guesses(predictor)
    left = study.unsampled(folder)
    if left:
        cost = study.estimate(loaded, predictor, num=left, verify=0, num_random=0, batch_size=batch_size)
        console.print(_amount(cost))
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
        bool, typer.Option("--discard", help="Remove a re-scoring of other boundaries, which is refused otherwise.")
    ] = False,
) -> None:
    """Fits one boundary per concept to the samples of a run."""
    settings: dict[str, Any] = {
        "mode": mode, "num_extreme": num_extreme, "loss": loss, "C": _penalty(mode, penalty),
        "num_permuted": num_permuted,
    }  # fmt: skip
    opened = store.load_run(folder)
    if not discard and not study.was_fitted(opened, concept, **settings):
        _keep_rescoring(opened, "say --discard to fit anew all the same, or fit in a copy of the folder")
    if memory is not None and mode == "all":
        raise ValueError(f"--memory is that of --fit extreme; leave it out (got {memory:g})")
    _say_scanty(0, num_permuted)
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
        table.add_row(b.concept.name, b.concept.level, f"{b.holdout_accuracy:.3f}", f"{b.stability:.3f}")
    console.print(table)
    _say_constant(boundaries)


def _say_constant(boundaries: Sequence[Boundary]) -> None:
    """Which scores are the same for all pictures: their rows mean nothing, wherever they come."""
    if still := [b.concept.name for b in boundaries if b.stability == 0]:
        told = ", ".join(still[:10]) + (f" and {len(still) - 10} more" if len(still) > 10 else "")
        errors.print(
            Text("Scores that never vary:", "yellow"), f"{told}. All pictures have the same: no direction changes "
            "them, and what is said of their boundaries is chance", highlight=False,
        )  # fmt: skip


def _keep_rescoring(opened: store.Run, way_out: str) -> None:
    """Refuse to fit other boundaries than those that hours may have gone into."""
    if "rescore" in study.steps_of(opened):
        raise ValueError(f"{opened.path} holds a re-scoring of the boundaries it has, which goes with them; {way_out}")


def _keep_longer(opened: store.Run, verify: int, way_out: str) -> None:
    """Refuse to replace a re-scoring by one of fewer samples; ``way_out`` may name its ``{num}``."""
    num = study.steps_of(opened).get("rescore", {}).get("settings", {}).get("num", 0)
    if num > verify:
        raise ValueError(
            f"{opened.path} holds a re-scoring of {num} samples, which one of {verify} would replace; "
            f"{way_out.format(num=num)}"
        )


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
    batch_size = batch_size or 64
    workforce = open_engine(engine, workers=workers, devices=device.split(","), address=address, threads=threads)
    rescoring: dict[str, Any] = {
        "num": verify,
        "step": step,
        "num_random": num_random,
        "step_mode": step_mode,
        "batch_size": batch_size,
        "images_at_once": images_at_once,
        "adaptive": _goal(adaptive, top, confidence),
    }
    opened = store.load_run(folder)
    if not discard:
        _keep_longer(opened, verify, "say --verify {num}, or --discard to replace it all the same")
    models = _recipe_of(opened)
    generator, scorer = models(_device_here(device, workforce))
    boundaries, permuted = store.load_boundaries(opened), store.load_permuted(opened)
    left = study.unscored(opened, generator, scorer, **rescoring)
    _say_scanty(num_random, len(permuted))
    if left:
        cost = study.estimate(
            generator, scorer, num=0, verify=left, num_random=num_random, num_permuted=len(permuted),
            batch_size=batch_size, num_concepts=len(boundaries),
        )  # fmt: skip
        console.print(_amount(cost, most=adaptive))
    with progress_bars() as bars:
        study.rescore_step(opened, generator, scorer, **rescoring, engine=workforce, open_models=models, report=bars)
    console.print(_ranking(opened))
    _say_settled(opened)


def _say_scanty(num_random: int, num_permuted: int) -> None:
    """That too few directions leave little to verify, before anything is drawn."""
    for sentence in study.scanty(num_random=num_random, num_permuted=num_permuted):
        errors.print(Text("Too few directions.", "yellow"), sentence, highlight=False)


def _say_settled(opened: store.Run) -> None:
    """What an adaptive re-scoring settled; nothing after a fixed one."""
    outcome = study.steps_of(opened).get("rescore", {}).get("outcome")
    if outcome is None:
        return
    top, peaks = outcome["top"], {c: layer for c, layer in outcome["peaks"].items() if layer is not None}
    sure = sum(outcome["peaks_decided"][concept] for concept in peaks)
    images, budget = outcome["images"], outcome["budget"]
    console.print(
        f"Settled with {images:,} of {budget:,} images ({images / budget:.0%}). "
        f"Strongest {len(top)}: {'settled' if outcome['top_decided'] else 'not all settled before the last sample'}. "
        f"Strongest layer: settled for {sure} of {len(peaks)} concepts that may differ from the null.",
        highlight=False,
    )


@app.command()
def steps(
    folder: Annotated[Path, typer.Argument(help="Folder of a re-scored run.")],
    verify: Verify = 12,
    num_random: NumRandom = 8,
    batch_size: BatchSize = 64,
    images_at_once: ImagesAtOnce = None,
    device: Device = "cpu",
) -> None:
    """Compares steps: Δs against λ both ways, and which layers hold what under every step mode."""
    opened = store.load_run(folder)
    generator, scorer = _recipe_of(opened)(device)
    if study.comparison(opened) is None:
        images = study.compare_cost(opened, generator, num=verify, num_random=num_random)
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
    console.print(_responses(found))
    rescoring = store.load_rescoring(opened)
    counted = {row.concept.name for row in rank(rescoring) if row.verified}
    own = profile(rescoring, concepts=counted)
    for mode, result in {rescoring.step_mode: rescoring, **found.modes}.items():
        # Other modes are tried with what the run's own has verified.
        levels = replace(profile(result, concepts=counted), untried=own.untried)
        console.print(Text(f"{mode}:", "bold"), finding(levels), highlight=False)


def _responses(found: study.Comparison) -> Table:
    curves = found.responses
    table = Table(title="Mean change / σ against the step λ", title_justify="left")
    for name in ("concept", "at"):
        table.add_column(name, no_wrap=True)
    for step in curves.steps.tolist():
        table.add_column(f"{step:+g}", justify="right")
    for concept, place, means in zip(curves.concepts, curves.placements, curves.mean.tolist(), strict=True):
        table.add_row(concept.name, place.name, *(f"{mean:+.2f}" for mean in means))
    return table


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    photograph: PhotographFiles = None,
    device: Device = "cpu",
) -> None:
    """Draws the report of a finished run again."""
    opened = store.load_run(folder)
    generator, scorer, segmenter = _models_of(opened, device)
    made = opened.provenance
    pictures = _opened(
        photograph or [located(name, made.get("folder")) for name in made.get("photographs") or ()], generator
    )
    with progress_bars(after=ANEW) as bars:
        path = _write_report(opened, generator, scorer, segmenter, bars, pictures)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Checks samples and results of a run and prints one digest of its codes and scores."""
    console.print(store.verify(folder), highlight=False)


def _models_of(opened: store.Run, device: str) -> tuple[Generator, Scorer, Segmenter | None]:
    """Generator, scorer and segmenter that a run was made with; another scorer draws no other pictures.

    Raises:
        RunMismatchError: the generator's weight file is another one.
    """
    recipe = _recipe_of(opened)
    generator, scorer = replace(recipe, digests={})(device)
    name = recipe.generator
    made = recipe.digests.get(f"generator {name}", "")
    if made and weights_digest(name) != made:
        raise RunMismatchError(
            f"{name} is no longer the file that {opened.path} was made with: its SHA-256 has changed"
        )
    segmenter = opened.provenance.get("segmenter")
    if not segmenter:
        return generator, scorer, None
    return generator, scorer, load_segmenter(located(segmenter, opened.provenance.get("folder")), device)


def _recipe_of(opened: store.Run) -> Models:
    """How to open what a run was made with, and nothing else: with other weights a result belongs to another run."""
    made = opened.provenance
    if "imported from" in made:
        raise MissingWeightsError(
            f"{opened.path} holds what the official tool found, which does not say what generator it used: go on in "
            "Python, with higan.store.load_boundaries, and higan.rescoring.rescore on your generator and scorer"
        )
    for role in ("generator", "scorer"):
        if role not in made:
            raise MissingWeightsError(
                f"{opened.path} does not say which {role} it was made with, as runs of Python do not. "
                'Go on there, or name both when the run is begun: open_study(…, provenance={"generator": '
                '"module:name", "scorer": "module:name"})'
            )
    options, digests = made.get("scorer_options", {}), opened.settings.get("digests", {})
    label, generator_options = made.get("label"), made.get("generator_options", {})
    models = Models(made["generator"], made["scorer"], options, label, digests, generator_options)
    return models.begun_in(made.get("folder"))
