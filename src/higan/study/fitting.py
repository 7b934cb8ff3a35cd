"""Fitting: a boundary per concept, how stable each is, and what is fitted where there is nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from higan import store
from higan.boundaries import Mode, check_fit, fit, told_apart
from higan.errors import CorruptRunError
from higan.linear import Loss
from higan.refits import check_permuted, permuted, stabilities
from higan.samples import OnDisk
from higan.study.record import digest, forget, is_done, load_whole, record, steps_of
from higan.study.reports import Report, of_step
from higan.types import Boundary

__all__ = ["fit_step", "is_fitted", "was_fitted"]


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

    Raises:
        ValueError: as for `higan.boundaries.fit` and `higan.refits.permuted`.
        CorruptRunError: samples are missing or damaged.
        RunBusyError, RunWriteError: another process is writing the folder, or it cannot be written.
    """
    seed = run.seed if seed is None else seed
    settings = _fit_settings(
        concepts=concepts, mode=mode, num_extreme=num_extreme, loss=loss, C=C, num_permuted=num_permuted, seed=seed
    )
    if is_done(run, "fit", settings) and (kept := load_whole(_load_fit, run)) is not None:
        return kept
    n = check_fit(run.num_samples, mode=mode, num_extreme=num_extreme, loss=loss, C=C)
    check_permuted(num_permuted)
    start = time.monotonic()
    tell = of_step(report, "fit") or (lambda done, total: None)
    tell(0, 3)
    how: dict[str, Any] = {
        "mode": mode, "num_extreme": num_extreme, "loss": loss, "C": C, "seed": seed, "memory": memory,
    }  # fmt: skip
    with store.writing(run):
        population = OnDisk.open(run, device)
        fitted = fit(population, concepts, **how)
        apart = told_apart(population, concepts, num_extreme=n) if mode == "extreme" else {}
        tell(1, 3)
        stable = stabilities(population, concepts, **how)
        boundaries = tuple(replace(b, stability=s) for b, s in zip(fitted, stable.tolist(), strict=True))
        tell(2, 3)
        null = permuted(population, num_permuted, concepts, **how)
        before = _rescored(run)
        if before != digest([*boundaries, *null]):
            forget(run, "rescore")
            store.drop_rescoring(run)
            if before is not None:  # Else units may be of these boundaries; their key tells.
                store.Units(run).clear()
        forget(run, "fit")
        store.drop_boundaries(run)  # Should only one of the two find room, an old one would be taken for its partner.
        store.save_permuted(run, null)
        store.save_boundaries(run, boundaries)
        mixed = {name: count for name, count in apart.items() if 0 < 2 * count < n}
        outcome = {"class": n, "mixed": mixed} if mixed else None
        record(run, "fit", settings, time.monotonic() - start, outcome)
    tell(3, 3)
    return boundaries


def is_fitted(run: store.Run, concepts: Sequence[str] | None = None, **settings: Any) -> bool:
    """Whether `fit_step` has been done with these settings, and its files are whole."""
    return was_fitted(run, concepts, **settings) and load_whole(_load_fit, run) is not None


def was_fitted(run: store.Run, concepts: Sequence[str] | None = None, **settings: Any) -> bool:
    """Whether `fit_step` has been done with these settings, whatever became of its files."""
    return is_done(run, "fit", _fit_settings(concepts=concepts, **{"seed": run.seed, **settings}))


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


def _rescored(run: store.Run) -> str | None:
    """Digest of the boundaries that a re-scoring, finished or under way, is of; None where nothing tells any more."""
    told = steps_of(run).get("rescore", {}).get("settings", {}).get("boundaries")
    if told is not None:
        return str(told)
    kept = load_whole(lambda run: [*store.load_boundaries(run), *store.load_permuted(run)], run)
    return None if kept is None else digest(kept)


def _load_fit(run: store.Run) -> tuple[Boundary, ...]:
    expected, found = steps_of(run)["fit"]["settings"]["num_permuted"], len(store.load_permuted(run))
    if found != expected:
        raise CorruptRunError(f"{run.path} holds {found} of {expected} permuted fits")
    return store.load_boundaries(run)
