"""The whole study on any generator and scorer: sample, fit, re-score (sections 2 and 3.1), into one run folder.

Every step can be called alone, is skipped when the folder already holds its result for the same settings, and goes on
where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor

from higan import store
from higan.adaptive import check_goal, rescore_adaptively
from higan.boundaries import Mode, check_fit, fit
from higan.editing import StepMode
from higan.engines import Engine, InProcess
from higan.errors import CorruptRunError, RunError, RunMismatchError
from higan.layers import placements
from higan.linear import Loss
from higan.population import OpenModels, Progress, check_seed, distribute, fill, render, sample, score
from higan.refits import check_permuted, permuted, stabilities
from higan.rescoring import check_counts, cost, key_of, meaningless_directions, plan_of, rescore
from higan.responses import chosen, respond, responses_cost
from higan.samples import OnDisk
from higan.spread import spread
from higan.statistics import rank
from higan.trial import check_contract, check_same
from higan.types import (
    Boundary,
    Concept,
    Generator,
    Placement,
    RaggedGenerator,
    Rescoring,
    Responses,
    Scorer,
    StagedGenerator,
)

__all__ = [
    "Comparison",
    "Cost",
    "Goal",
    "Report",
    "check",
    "compare_cost",
    "compare_step",
    "comparison",
    "estimate",
    "fit_step",
    "is_fitted",
    "open_study",
    "rescore_step",
    "sample_step",
    "scanty",
    "steps_of",
    "unsampled",
    "unscored",
    "was_fitted",
]

Report = Callable[[str, int, int], None]
"""Called with the name of a step, what is done and what there is to do."""

_STEPS = "steps.json"
_NO_MODELS = "workers of an engine open the models themselves: pass open_models="
_SLOW = 0.1
"""Seconds per image from which on an estimate looks at single images."""

_LONG = 1.0
"""Seconds after which an estimate does not try again."""

_ENOUGH = 20
"""Directions of a null against which a single effect of a table can have a q-value of 0.05: the inverse."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study will take, measured on a few images of the generator and scorer in hand."""

    images: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How much the step matters: response curves, and verified concepts re-scored under other step modes, by mode."""

    responses: Responses
    modes: Mapping[str, Rescoring]


def estimate(
    generator: Generator,
    scorer: Scorer,
    *,
    num: int,
    verify: int,
    num_random: int,
    num_permuted: int = 0,
    batch_size: int = 64,
    num_concepts: int | None = None,
) -> Cost:
    """Images of a study and the seconds they will take, from timed batches, whole and from every layer on.

    Raises:
        ValueError: a count that is too small.
        GeneratorError, ScorerError: generator or scorer break their contract, found out before work starts.
    """
    for name, value, least in (("num", num, 0), ("verify", verify, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    if num == verify == 0:
        return Cost(0, 0.0)
    size = min(batch_size, 32)
    codes = sample(generator, range(size))
    score(scorer, render(generator, codes))  # the first batch pays for set-up
    images, drawing = _timed(lambda: render(generator, codes))
    _, scoring = _timed(lambda: score(scorer, images))
    whole, judged = drawing / size, scoring / size
    concepts = len(scorer.concepts) if num_concepts is None else num_concepts
    places = placements(generator.num_layers)
    total = num + cost(concepts, places, num=verify, num_random=num_random, num_permuted=num_permuted)
    if not verify:
        return Cost(total, num * (whole + judged))
    starts = [min(layers) for layers in {place.layers for place in places}]
    shares = _drawing_from(generator, codes[:1] if whole > _SLOW else codes, set(starts), whole)
    edits = verify * (concepts + num_random + num_permuted)
    seconds = (num + verify) * (whole + judged) + edits * sum(shares[start] + judged for start in starts)
    return Cost(total, seconds)


def check(
    *,
    num: int,
    verify: int,
    num_random: int,
    num_permuted: int = 0,
    step: float = 2.0,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
) -> None:
    """Refuses before sampling what a later step of the study would refuse.

    Raises:
        ValueError: see `higan.boundaries.fit`, `higan.refits.permuted` and `higan.rescoring.rescore`.
    """
    check_fit(num, mode=mode, num_extreme=num_extreme, loss=loss, C=C)
    check_permuted(num_permuted)
    if verify < 2:
        raise ValueError(f"verify must be at least 2; got {verify}")
    check_counts(num=verify, step=step, num_random=num_random)


def scanty(*, num_random: int, num_permuted: int) -> tuple[str, ...]:
    """What to say of nulls with too few directions to verify a single effect at a false-discovery rate of 5 %.

    Pooled over the cells of a table, R directions give p-values from about 1 / (R · cells) on, and q-values of k
    effects that beat all of them from 1 / (R · k) on. Fewer than three are not pooled: no q-value is below a third
    then. See `higan.statistics.p_values`.
    """
    said = []
    for kind, option, R in (("random", "--random", num_random), ("permuted", "--permuted", num_permuted)):
        if 0 < R < _ENOUGH:
            together = math.ceil(_ENOUGH / R)
            unless = "" if R < 3 else f", unless {together} cells of the table beat all of that null together"
            said.append(
                f"With {R} {kind} direction{'' if R == 1 else 's'} nothing can be verified at q = 0.05{unless}; give "
                f"{option} {_ENOUGH} or more."
            )
    return tuple(said)


def unsampled(run: store.Run) -> int:
    """Samples that `sample_step` has still to make."""
    return sum(len(store.shard_indices(run, shard)) for shard in store.missing_shards(run))


def _drawing_from(generator: Generator, codes: Tensor, starts: set[int], whole: float) -> dict[int, float]:
    """Seconds that an image takes from each of these layers on, where a generator can start there."""
    if not isinstance(generator, StagedGenerator):
        return dict.fromkeys(starts, whole)
    seconds = {0: whole}
    with torch.inference_mode():
        for layer in starts - {0}:
            state = generator.prepare(codes, layer)
            _, taken = _timed(partial(generator.resume, state, codes, layer))
            seconds[layer] = taken / len(codes)
    return seconds


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the seconds it took: the best of three tries, of one where it takes long."""
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
        if best > _LONG:
            break
    return result, best


@dataclass(frozen=True, slots=True)
class Goal:
    """What an adaptive re-scoring has to settle; see `higan.adaptive.rescore_adaptively`."""

    top: int = 10
    order: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_goal(self.top, self.confidence)


def open_study(
    out: str | Path,
    generator: Generator,
    scorer: Scorer,
    *,
    num: int = 10_000,
    seed: int = 0,
    shard_size: int = 2000,
    digests: Mapping[str, str] | None = None,
    choices: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> store.Run:
    """Opens the run folder of a study, new or half done.

    Args:
        out: the folder.
        generator: to be studied.
        scorer: the predictors.
        num: N, samples to probe.
        seed: chooses the samples.
        shard_size: samples per file.
        digests: of the weight files, by name; another file under the same name is then another run.
        choices: what else decides what is drawn and scored, as JSON: class, precision, options of the scorer. Empty
            ones do not count.
        provenance: what else to write down, beside torch's version and number of threads in this process.

    Raises:
        ValueError: counts that are not positive, or a seed that `higan.population.sample_seeds` refuses.
        GeneratorError, ScorerError: of a new study, see `higan.trial.check_contract`.
        RunMismatchError: the folder holds another run.
    """
    check_seed(seed)
    settings = {
        **_models_settings(generator, scorer),
        "num_samples": num,
        "shard_size": min(shard_size, num) if num > 0 else shard_size,
        "seed": seed,
        "digests": dict(digests or {}),
        **{name: value for name, value in (choices or {}).items() if value not in (None, {}, [])},
    }
    made = {"torch": torch.__version__, "threads": torch.get_num_threads(), **(provenance or {})}
    if num > 0 and not store.is_run(out):
        check_contract(generator, scorer)
    return store.open_run(out, settings, provenance=made)


def _models_settings(generator: Generator, scorer: Scorer) -> dict[str, Any]:
    """What a run says of generator and scorer themselves, whoever opened them."""
    return {
        "generator": generator.name,
        "num_layers": generator.num_layers,
        "truncation": [round(float(t), 6) for t in generator.truncation],
        "scorer": scorer.name,
        "concepts": [c.name for c in scorer.concepts],
    }


def _check_models(run: store.Run, generator: Generator, scorer: Scorer) -> None:
    """Refuses a generator or scorer that is not the run's, as far as its settings say; `check_same` asks them.

    Raises:
        RunMismatchError: one of them is another.
    """
    here = _models_settings(generator, scorer)
    differing = [name for name in here if name in run.settings and run.settings[name] != here[name]]
    if differing:
        details = "; ".join(f"{name} is {run.settings[name]!r} there, {here[name]!r} here" for name in differing)
        raise RunMismatchError(
            f"{run.path} was begun with another generator or scorer: {details}; pass those that it was begun with, or "
            "open a study in another folder"
        )


def sample_step(
    run: store.Run,
    generator: Generator,
    scorer: Scorer,
    *,
    batch_size: int = 64,
    engine: Engine | None = None,
    open_models: OpenModels | None = None,
    report: Report | None = None,
) -> None:
    """Samples, renders and scores what is missing (the probing phase's data).

    Args:
        run: the folder.
        generator: used where the work is done in this process.
        scorer: likewise.
        batch_size: images at a time.
        engine: where the work is done; None is this process.
        open_models: how workers of the engine open generator and scorer, see `higan.population.OpenModels`.
        report: progress.

    Raises:
        ValueError: an engine without a way to open the models.
        RunMismatchError: the run was begun with another generator or scorer.
        HiganError: see `higan.population.distribute`.
    """
    _check_models(run, generator, scorer)
    if store.missing_shards(run):
        check_same(run, generator, scorer)
    start = time.monotonic()
    progress = _named(report, "sample")
    if engine is None or isinstance(engine, InProcess):
        made = fill(run, generator, scorer, batch_size=batch_size, progress=progress)
    elif open_models is None:
        raise ValueError(_NO_MODELS)
    else:
        made = distribute(run, open_models, engine, batch_size=batch_size, progress=progress)
    if made or "sample" not in steps_of(run):
        with store.writing(run):
            _record(run, "sample", {"batch_size": batch_size}, time.monotonic() - start)


def fit_step(
    run: store.Run,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    num_permuted: int = 20,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    memory: int | None = None,
    report: Report | None = None,
) -> tuple[Boundary, ...]:
    """Fits a boundary per concept and keeps it in the run folder; see `higan.boundaries.fit`.

    Beside them it keeps how stable each is, and ``num_permuted`` boundaries fitted to permuted scores (`higan.refits`).
    A re-scoring of other boundaries goes with them. ``device`` and ``memory`` change results by rounding at most, so
    that a finished fit stands whatever they are. ``seed`` is the run's where it is left out.
    """
    seed = run.seed if seed is None else seed
    settings = _fit_settings(
        concepts=concepts, mode=mode, num_extreme=num_extreme, loss=loss, C=C, num_permuted=num_permuted, seed=seed
    )
    if _is_done(run, "fit", settings) and (kept := _kept(_load_fit, run)) is not None:
        return kept
    check_fit(run.num_samples, mode=mode, num_extreme=num_extreme, loss=loss, C=C)
    check_permuted(num_permuted)
    start = time.monotonic()
    tell = _named(report, "fit") or (lambda done, total: None)
    tell(0, 3)
    how: dict[str, Any] = {
        "mode": mode, "num_extreme": num_extreme, "loss": loss, "C": C, "seed": seed, "memory": memory,
    }  # fmt: skip
    with store.writing(run):
        population = OnDisk.open(run, device)
        fitted = fit(population, concepts, **how)
        tell(1, 3)
        stable = stabilities(population, concepts, **how)
        boundaries = tuple(replace(b, stability=s) for b, s in zip(fitted, stable.tolist(), strict=True))
        tell(2, 3)
        null = permuted(population, num_permuted, concepts, **how)
        if steps_of(run).get("rescore", {}).get("settings", {}).get("boundaries") != digest([*boundaries, *null]):
            _forget(run, "rescore")
            store.drop_rescoring(run)
            store.Units(run).clear()
        _forget(run, "fit")
        store.save_permuted(run, null)
        store.save_boundaries(run, boundaries)
        _record(run, "fit", settings, time.monotonic() - start)
    tell(3, 3)
    return boundaries


def is_fitted(run: store.Run, concepts: Sequence[str] | None = None, **settings: Any) -> bool:
    """Whether `fit_step` has been done with these settings, and its files are whole."""
    return was_fitted(run, concepts, **settings) and _kept(_load_fit, run) is not None


def was_fitted(run: store.Run, concepts: Sequence[str] | None = None, **settings: Any) -> bool:
    """Whether `fit_step` has been done with these settings, whatever became of its files."""
    return _is_done(run, "fit", _fit_settings(concepts=concepts, **{"seed": run.seed, **settings}))


def _fit_settings(
    *,
    concepts: Sequence[str] | None = None,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    num_permuted: int = 20,
    seed: int,
) -> dict[str, Any]:
    """What a fit depends on besides the samples."""
    return {
        "concepts": None if concepts is None else list(concepts),
        "mode": mode,
        "num_extreme": int(num_extreme) if num_extreme > 1 and float(num_extreme).is_integer() else num_extreme,
        "loss": loss,
        "C": C,
        "num_permuted": num_permuted,
        "seed": seed,
    }


def rescore_step(
    run: store.Run,
    generator: Generator,
    scorer: Scorer,
    *,
    num: int = 200,
    step: float = 2.0,
    num_random: int = 20,
    step_mode: StepMode = "official",
    seed: int | None = None,
    batch_size: int = 64,
    images_at_once: int | None = None,
    adaptive: Goal | None = None,
    engine: Engine | None = None,
    open_models: OpenModels | None = None,
    report: Report | None = None,
) -> Rescoring:
    """Re-scores the boundaries of the run, Eq. (1), and keeps the result; see `higan.rescoring.rescore`.

    With a goal it measures only until that is settled (`higan.adaptive`), ``num`` samples at the most, and writes down
    under ``outcome`` of this step what was settled; looks have a batch size of their own. Workers of an ``engine``
    take part either way, see `sample_step`. ``seed`` is the run's where it is left out.

    Raises:
        RunMismatchError: the run was begun with another generator or scorer.
        RunError, ValueError: there are no boundaries; an engine without a way to open the models, or as for `rescore`.
    """
    _check_models(run, generator, scorer)
    seed = run.seed if seed is None else seed
    fitted = [*store.load_boundaries(run), *store.load_permuted(run)]
    settings = _rescore_settings(fitted, num, step, num_random, step_mode, seed, adaptive)
    if _is_done(run, "rescore", settings) and (kept := _kept(store.load_rescoring, run)) is not None:
        return kept
    check_same(run, generator, scorer)
    start = time.monotonic()
    here = engine is None or isinstance(engine, InProcess)
    workforce: dict[str, Any] = {} if here else {"engine": engine, "open_models": open_models}
    if workforce and open_models is None:
        raise ValueError(_NO_MODELS)
    with store.writing(run):
        # Again, for another process may have fitted before the folder was this one's.
        boundaries, null = store.load_boundaries(run), store.load_permuted(run)
        settings = _rescore_settings([*boundaries, *null], num, step, num_random, step_mode, seed, adaptive)
        how: dict[str, Any] = {
            "num": num,
            "step": step,
            "num_random": num_random,
            "permuted": null,
            "step_mode": step_mode,
            "seed": seed,
            "images_at_once": images_at_once,
            "checkpoint": store.Units(run),
            "progress": _named(report, "rescore"),
        }
        if adaptive is not None:
            found = rescore_adaptively(generator, scorer, boundaries, **asdict(adaptive), **how, **workforce)
            rescoring, outcome = found.rescoring, found.outcome()
        else:
            if workforce:
                spread(generator, scorer, boundaries, batch_size=batch_size, **how, **workforce)
                how["progress"] = None  # every unit has been told of
            rescoring, outcome = rescore(generator, scorer, boundaries, batch_size=batch_size, **how), None
        _forget(run, "rescore")
        store.save_rescoring(run, rescoring)
        _record(run, "rescore", settings, time.monotonic() - start, outcome)
        how["checkpoint"].remove()
    return rescoring


def unscored(
    run: store.Run,
    generator: Generator,
    scorer: Scorer,
    *,
    num: int = 200,
    step: float = 2.0,
    num_random: int = 20,
    step_mode: StepMode = "official",
    seed: int | None = None,
    batch_size: int = 64,
    images_at_once: int | None = None,
    adaptive: Goal | None = None,
) -> int:
    """Samples that `rescore_step` with these arguments has still to re-score; all where boundaries are not fitted.

    An adaptive re-scoring under way counts as not begun, since what it will still look at is not known.

    Raises:
        ValueError: counts or a step that `rescore_step` refuses.
    """
    check_counts(num=num, step=step, num_random=num_random, batch_size=batch_size)
    seed = run.seed if seed is None else seed
    boundaries, null = _kept(store.load_boundaries, run), _kept(store.load_permuted, run)
    if boundaries is None or null is None:
        return num
    wanted = _rescore_settings([*boundaries, *null], num, step, num_random, step_mode, seed, adaptive)
    if _is_done(run, "rescore", wanted) and _kept(store.load_rescoring, run) is not None:
        return 0
    units = store.Units(run)
    if adaptive is not None or not units.folder.is_dir():
        return num
    plan = plan_of(
        generator, scorer, boundaries, num=num, step=step, seed=seed, places=None, num_random=num_random,
        permuted=null, step_mode=step_mode, batch_size=batch_size, images_at_once=images_at_once,
    )  # fmt: skip
    key = key_of(plan, seed, num, batch_size)
    starts = enumerate(range(0, num, batch_size))
    return sum(min(batch_size, num - start) for unit, start in starts if units.load(key, unit) is None)


def _rescore_settings(
    directions: Sequence[Boundary],
    num: int,
    step: float,
    num_random: int,
    step_mode: StepMode,
    seed: int,
    adaptive: Goal | None,
) -> dict[str, Any]:
    """What a re-scoring depends on besides generator and scorer; ``directions`` are boundaries and permuted fits."""
    settings = {
        "num": num,
        "step": step,
        "num_random": num_random,
        "step_mode": step_mode,
        "seed": seed,
        "boundaries": digest(directions),
    }
    return settings if adaptive is None else settings | {"adaptive": asdict(adaptive)}


def compare_step(
    run: store.Run,
    generator: Generator,
    scorer: Scorer,
    *,
    num: int = 12,
    num_random: int = 8,
    batch_size: int = 64,
    images_at_once: int | None = None,
    report: Report | None = None,
) -> Comparison | None:
    """How much the step matters: response curves both ways, and verified concepts re-scored under other step modes.

    The run's own mode is left out; and where all layers are truncated alike one of ``official`` and ``equal_step``,
    which then differ in the length of the step alone.

    Args:
        run: with boundaries and a re-scoring.
        generator: the run's.
        scorer: the run's.
        num: samples.
        num_random: random directions beside the concepts.
        batch_size: images at a time.
        images_at_once: of the re-scorings; see `higan.rescoring.rescore`.
        report: called after every batch.

    Returns:
        The comparison; None where no concept is verified, so that there is nothing to compare.

    Raises:
        RunError: the run has not been re-scored.
        RunMismatchError: it was begun with another generator or scorer.
        ValueError: fewer than 2 samples, or no random directions.
    """
    _check_models(run, generator, scorer)
    settings = {"num": num, "num_random": num_random, "rescore": steps_of(run).get("rescore", {}).get("settings")}
    done = steps_of(run).get("steps", {}).get("settings", {})
    if settings.items() <= done.items() and (kept := comparison(run)) is not None:
        return kept
    plan = _comparison_plan(run, generator, num=num, num_random=num_random)
    if not plan.pairs:
        return None
    check_same(run, generator, scorer)
    start = time.monotonic()
    rescoring, boundaries, others = plan.rescoring, plan.boundaries, plan.modes
    widths = generator.layer_widths if isinstance(generator, RaggedGenerator) else None
    total = plan.curves + plan.each * len(others)
    tell = _named(report, "steps")
    with store.writing(run):
        responses = respond(
            generator,
            scorer,
            boundaries,
            plan.pairs,
            step=rescoring.step,
            std=dict(zip((c.name for c in rescoring.concepts), rescoring.score_std.tolist(), strict=True)),
            directions=meaningless_directions(boundaries[0], num_random, run.seed, widths),
            num=num,
            seed=run.seed,
            batch_size=batch_size,
            progress=_within(tell, 0, total),
        )
        found = {
            mode: rescore(
                generator,
                scorer,
                boundaries,
                num=num,
                step=rescoring.step,
                num_random=num_random,
                places=rescoring.placements,
                step_mode=mode,
                seed=run.seed,
                batch_size=batch_size,
                images_at_once=images_at_once,
                progress=_within(tell, plan.curves + k * plan.each, total),
            )
            for k, mode in enumerate(others)
        }
        _forget(run, "steps")  # Until all of it is there, what an earlier comparison left does not count.
        store.save_responses(run, responses)
        for mode, other in found.items():
            store.save_rescoring(run, other, f"rescoring-{mode}")
        _record(run, "steps", settings | {"modes": others}, time.monotonic() - start)
    return comparison(run)


def compare_cost(run: store.Run, generator: Generator, *, num: int = 12, num_random: int = 8) -> int:
    """Images that `compare_step` will score, if it has not been done.

    Raises:
        RunError: the run has not been re-scored.
    """
    plan = _comparison_plan(run, generator, num=num, num_random=num_random)
    return plan.curves + plan.each * len(plan.modes)


@dataclass(frozen=True, slots=True)
class _ComparisonPlan:
    """What is compared, and what it costs: images of the curves, and of each step mode."""

    rescoring: Rescoring
    pairs: tuple[tuple[Concept, Placement], ...]
    boundaries: list[Boundary]
    modes: list[StepMode]
    curves: int
    each: int


def _comparison_plan(run: store.Run, generator: Generator, *, num: int, num_random: int) -> _ComparisonPlan:
    rescoring = store.load_rescoring(run)
    pairs = chosen(rescoring)
    own = rescoring.step_mode
    left_out = {own}
    if bool((generator.truncation == generator.truncation[0]).all()):
        left_out |= {"equal_step"} if own == "equal_change" else {"official", "equal_step"}
    if not bool((generator.truncation > 0).all()):
        left_out |= {"equal_step"}  # which such a generator has not
    verified = {row.concept.name for row in rank(rescoring, num_resamples=2) if row.verified}
    boundaries = [b for b in store.load_boundaries(run) if b.concept.name in verified]
    return _ComparisonPlan(
        rescoring=rescoring,
        pairs=pairs,
        boundaries=boundaries,
        modes=[m for m in get_args(StepMode) if m not in left_out] if pairs else [],
        curves=responses_cost(pairs, num=num, num_random=num_random),
        each=cost(len(boundaries), rescoring.placements, num=num, num_random=num_random) if boundaries else 0,
    )


def comparison(run: store.Run) -> Comparison | None:
    """What `compare_step` left in a run; None where it has not been done for the run's present re-scoring."""
    steps = steps_of(run)
    settings = steps.get("steps", {}).get("settings", {})
    if not settings or settings.get("rescore") != steps.get("rescore", {}).get("settings"):
        return None
    try:
        modes = {mode: store.load_rescoring(run, f"rescoring-{mode}") for mode in settings["modes"]}
        return Comparison(store.load_responses(run), modes)
    except RunError:
        return None


def digest(boundaries: Sequence[Boundary]) -> str:
    """Names boundaries by what an edit along them depends on, so that a re-scoring of others is known to be stale."""
    content = hashlib.sha256()
    for boundary in boundaries:
        content.update(f"{boundary.concept.name} {tuple(boundary.normal.shape)} ".encode())
        content.update(boundary.normal.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def steps_of(run: store.Run) -> dict[str, dict[str, Any]]:
    """Settings and seconds of every finished step. Where the record is damaged, no step counts as finished."""
    path = run.path / _STEPS
    try:
        steps = json.loads(path.read_text("utf-8", "replace"))
        return {name: step for name, step in steps.items() if isinstance(step, dict)}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def _load_fit(run: store.Run) -> tuple[Boundary, ...]:
    expected, found = steps_of(run)["fit"]["settings"]["num_permuted"], len(store.load_permuted(run))
    if found != expected:
        raise CorruptRunError(f"{run.path} holds {found} of {expected} permuted fits")
    return store.load_boundaries(run)


def _kept(load: Callable[[store.Run], T], run: store.Run) -> T | None:
    """A result that is there whole; None where it is absent or damaged, so that it is made again."""
    try:
        return load(run)
    except RunError:
        return None


def _is_done(run: store.Run, step: str, settings: Mapping[str, Any]) -> bool:
    return steps_of(run).get(step, {}).get("settings") == settings


def _within(progress: Progress | None, offset: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)


def _record(
    run: store.Run,
    step: str,
    settings: Mapping[str, Any],
    seconds: float,
    outcome: Mapping[str, Any] | None = None,
) -> None:
    done = {"settings": dict(settings), "seconds": round(seconds, 1)}
    _write_steps(run, steps_of(run) | {step: done if outcome is None else done | {"outcome": dict(outcome)}})


def _forget(run: store.Run, step: str) -> None:
    """What follows from an older result is stale."""
    steps = steps_of(run)
    if steps.pop(step, None) is not None:
        _write_steps(run, steps)


def _write_steps(run: store.Run, steps: Mapping[str, Any]) -> None:
    store.write_json(run.path / _STEPS, steps)


def _named(report: Report | None, step: str) -> Progress | None:
    if report is None:
        return None
    return lambda done, total: report(step, done, total)
