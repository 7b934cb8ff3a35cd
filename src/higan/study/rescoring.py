"""Re-scoring: Eq. (1) on the boundaries of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from higan import store
from higan.adaptive import check_goal, rescore_adaptively
from higan.editing import StepMode
from higan.engines import Engine, InProcess
from higan.population import OpenModels
from higan.rescoring import check_counts, key_of, plan_of, rescore
from higan.spread import spread
from higan.study.clock import Clock
from higan.study.opening import check_models
from higan.study.record import digest, forget, is_done, load_whole, record
from higan.study.reports import Report, of_step
from higan.study.sampling import NO_MODELS
from higan.trial import check_same
from higan.types import Boundary, Generator, Rescoring, Scorer

__all__ = ["Goal", "rescore_step", "scanty", "unscored"]

_ENOUGH = 20
"""Directions of a null against which a single effect of a table can have a q-value of 0.05: the inverse."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What an adaptive re-scoring has to settle; see `higan.adaptive.rescore_adaptively`."""

    top: int = 10
    order: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_goal(self.top, self.confidence)


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
    check_models(run, generator, scorer)
    seed = run.seed if seed is None else seed
    fitted = [*store.load_boundaries(run), *store.load_permuted(run)]
    settings = _rescore_settings(fitted, num, step, num_random, step_mode, seed, adaptive)
    if is_done(run, "rescore", settings) and (kept := load_whole(store.load_rescoring, run)) is not None:
        return kept
    check_same(run, generator, scorer)
    here = engine is None or isinstance(engine, InProcess)
    workforce: dict[str, Any] = {} if here else {"engine": engine, "open_models": open_models}
    if workforce and open_models is None:
        raise ValueError(NO_MODELS)
    with store.writing(run):
        # Again, for another process may have fitted before the folder was this one's.
        boundaries, null = store.load_boundaries(run), store.load_permuted(run)
        settings = _rescore_settings([*boundaries, *null], num, step, num_random, step_mode, seed, adaptive)
        clock = Clock(run, "rescore", settings)
        how: dict[str, Any] = {
            "num": num,
            "step": step,
            "num_random": num_random,
            "permuted": null,
            "step_mode": step_mode,
            "seed": seed,
            "images_at_once": images_at_once,
            "checkpoint": store.Units(run),
            "progress": clock.ticking(of_step(report, "rescore")),
        }
        if adaptive is not None:
            found = rescore_adaptively(generator, scorer, boundaries, **asdict(adaptive), **how, **workforce)
            rescoring, outcome = found.rescoring, found.outcome()
        else:
            if workforce:
                spread(generator, scorer, boundaries, batch_size=batch_size, **how, **workforce)
                how["progress"] = None  # every unit has been told of
            rescoring, outcome = rescore(generator, scorer, boundaries, batch_size=batch_size, **how), None
        forget(run, "rescore")
        store.save_rescoring(run, rescoring)
        record(run, "rescore", settings, clock.stop(), outcome)
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
    boundaries, null = load_whole(store.load_boundaries, run), load_whole(store.load_permuted, run)
    if boundaries is None or null is None:
        return num
    wanted = _rescore_settings([*boundaries, *null], num, step, num_random, step_mode, seed, adaptive)
    if is_done(run, "rescore", wanted) and load_whole(store.load_rescoring, run) is not None:
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
