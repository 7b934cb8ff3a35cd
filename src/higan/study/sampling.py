"""Sampling: codes, pictures and scores of the probing phase (section 2)."""

from __future__ import annotations

from higan import store
from higan.engines import Engine, InProcess
from higan.population import OpenModels, distribute, fill
from higan.study.clock import Clock
from higan.study.opening import check_models
from higan.study.record import record, steps_of
from higan.study.reports import Report, of_step
from higan.trial import check_same
from higan.types import Generator, Scorer

__all__ = ["NO_MODELS", "sample_step"]

NO_MODELS = "workers of an engine open the models themselves: pass open_models="


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
    check_models(run, generator, scorer)
    if store.missing_shards(run):
        check_same(run, generator, scorer)
    clock = Clock(run, "sample", {})
    progress = clock.ticking(of_step(report, "sample"))
    if engine is None or isinstance(engine, InProcess):
        made = fill(run, generator, scorer, batch_size=batch_size, progress=progress)
    elif open_models is None:
        raise ValueError(NO_MODELS)
    else:
        made = distribute(run, open_models, engine, batch_size=batch_size, progress=progress)
    before = steps_of(run).get("sample")
    if made or clock.goes_on or before is None:
        with store.writing(run):
            seconds = clock.stop() + (before or {}).get("seconds", 0.0)  # of shards that were made again, both times
            record(run, "sample", {"batch_size": batch_size}, seconds)
