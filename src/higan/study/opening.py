"""The run folder of a study, and whether generator and scorer are those that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from higan import store
from higan.boundaries import Mode, check_fit
from higan.errors import RunMismatchError
from higan.linear import Loss
from higan.population import check_num, check_seed
from higan.refits import check_permuted
from higan.rescoring import check_counts
from higan.trial import check_contract
from higan.types import Generator, Scorer

__all__ = ["check", "check_models", "open_study"]


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
        ValueError: counts that are not positive or too large, or a seed that `higan.population.sample_seeds` refuses.
        GeneratorError, ScorerError: of a new study, see `higan.trial.check_contract`.
        RunMismatchError: the folder holds another run.
    """
    check_seed(seed)
    for name, value in (("num", num), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    check_num(num)
    settings = {
        **_models_settings(generator, scorer),
        "num_samples": num,
        "shard_size": min(shard_size, num),
        "seed": seed,
        "digests": dict(digests or {}),
        **{name: value for name, value in (choices or {}).items() if value not in (None, {}, [])},
    }
    made = {"torch": torch.__version__, "threads": torch.get_num_threads(), **(provenance or {})}
    if not store.is_run(out):
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


def check_models(run: store.Run, generator: Generator, scorer: Scorer) -> None:
    """Refuses a generator or scorer that is not the run's, as far as its settings say; `check_same` asks them.

    Raises:
        RunMismatchError: one of them is another.
    """
    here = _models_settings(generator, scorer)
    if "imported from" in run.provenance:
        here.pop("concepts")  # Another tool scored its samples for what it knew.
    differing = [name for name in here if name in run.settings and run.settings[name] != here[name]]
    if differing:
        details = "; ".join(f"{name} is {run.settings[name]!r} there, {here[name]!r} here" for name in differing)
        raise RunMismatchError(
            f"{run.path} was begun with another generator or scorer: {details}; pass those that it was begun with, or "
            "open a study in another folder"
        )
