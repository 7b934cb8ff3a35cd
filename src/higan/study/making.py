"""How runs were made, and which comparisons of them mean something."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from higan import store
from higan.boundaries import code_spread
from higan.errors import RunError, RunMismatchError
from higan.study.record import steps_of
from higan.types import Rescoring

__all__ = ["Identity", "Making", "cautions", "in_sigmas", "making_of"]

_SAME_STEP = 1.1
"""Steps of different generators that differ by less count as the same length."""

_MORE_SAMPLES = 1.5
"""So many times the samples make boundaries that are noticeably better."""

_DEPTHS = "Where along the layers concepts lie need not change with it."


@dataclass(frozen=True, slots=True)
class Identity:
    """Which generator or scorer a run was made with, as far as its manifest tells."""

    name: str
    choices: tuple[str, ...]
    digests: tuple[str, ...]

    def is_same(self, other: Identity) -> bool:
        """Whether they are the same; where one has no digest of its weights, as far as names go."""
        known = bool(self.digests and other.digests)
        return (self.name, self.choices) == (other.name, other.choices) and (not known or self.digests == other.digests)


@dataclass(frozen=True, slots=True)
class Making:
    """What a comparison of two runs hangs on.

    ``step`` is λ in code space, ``sigmas`` the same in standard deviations of the codes along the boundaries' normals,
    mean over concepts; NaN where the run's samples are not there. ``probed`` and ``rescored`` are numbers of samples,
    with an ``adaptive`` re-scoring the most of any concept.
    """

    generator: Identity
    scorer: Identity
    num_layers: int
    step: float
    sigmas: float
    step_mode: str
    probed: int
    rescored: int
    seed: int
    adaptive: bool
    num_random: int
    num_permuted: int
    fit: str


def making_of(run: store.Run, rescoring: Rescoring) -> Making:
    """How a run and its re-scoring were made.

    Raises:
        RunError: boundaries have not been fitted, or their file is damaged.
    """
    made, steps = run.settings, steps_of(run)
    taken = steps.get("rescore", {}).get("settings", {})
    fitted = steps.get("fit", {}).get("settings", {})
    return Making(
        generator=_identity(made, "generator", ("num_layers", "truncation", "generator_options", "label")),
        scorer=_identity(made, "scorer", ("scorer_options",)),
        num_layers=1 + max(layer for placement in rescoring.placements for layer in placement.layers),
        step=rescoring.step,
        sigmas=in_sigmas(run, rescoring.step, rescoring.step_mode),
        step_mode=rescoring.step_mode,
        probed=run.num_samples,
        rescored=len(rescoring.seeds),
        seed=int(taken.get("seed", run.seed)),
        adaptive="adaptive" in taken,
        num_random=len(rescoring.null),
        num_permuted=0 if rescoring.permuted is None else len(rescoring.permuted),
        fit=", ".join(f"{name} {fitted[name]}" for name in ("mode", "num_extreme", "loss", "C") if name in fitted),
    )


def _identity(settings: Mapping[str, Any], role: str, choices: tuple[str, ...]) -> Identity:
    digests = settings.get("digests") or {}
    told = {name: settings[name] for name in choices if settings.get(name)}
    if isinstance(options := told.get("scorer_options"), Mapping):
        # Which concepts were asked for makes no other scorer: those that both have are matched by name.
        told["scorer_options"] = {name: value for name, value in options.items() if name != "concepts"}
    if len(set(told.get("truncation", ()))) == 1:
        told["truncation"] = told["truncation"][0]
    return Identity(
        name=str(settings.get(role)),
        choices=tuple(f"{name} {value}" for name, value in told.items() if value),
        # Without the names, which may be paths; of options, files are told by their digests.
        digests=tuple(sorted(str(digest) for name, digest in digests.items() if _role(name) == role)),
    )


def _role(name: str) -> str:
    """``generator runs/a.safetensors``, ``scorer-data b.onnx`` → whose digest it is."""
    return name.partition(" ")[0].partition("-")[0]


def in_sigmas(run: store.Run, step: float, mode: str = "official") -> float:
    """A step in standard deviations of the codes along the boundaries' normals, mean over concepts.

    Equal steps are longer where layers are truncated, since codes are edited before: that of the mean layer is told.
    Over the samples of the first shard; NaN where that is not there, or codes do not vary.

    Raises:
        RunError: boundaries have not been fitted, or their file is damaged.
    """
    boundaries = store.load_boundaries(run)
    with suppress(RunError):
        codes = store.read_shard(run, 0, []).codes
        spread = fmean(code_spread(boundary, codes) for boundary in boundaries)
        truncation = (run.settings.get("truncation") or ()) if mode == "equal_step" else ()
        longer = fmean([1 / psi for psi in truncation if psi > 0] or [1.0])
        return step * longer / spread if spread > 0 else math.nan
    return math.nan


def cautions(makings: Mapping[str, Making], rescorings: Mapping[str, Rescoring]) -> tuple[str, ...]:
    """What keeps every later run from being compared with the first without more ado, one sentence or two each.

    Raises:
        RunMismatchError: both generator and scorer are others, so that no difference is either's.
    """
    first, *later = makings
    pairs = [_between(first, makings[first], name, makings[name]) for name in later]
    return (*itertools.chain.from_iterable(pairs), *_levels(rescorings))


def _between(one: str, a: Making, other: str, b: Making) -> list[str]:
    same_generator, same_scorer = a.generator.is_same(b.generator), a.scorer.is_same(b.scorer)
    if not (same_generator or same_scorer):
        raise RunMismatchError(
            f"{one} is {a.generator.name} in the eyes of {a.scorer.name}, {other} is {b.generator.name} in those of "
            f"{b.scorer.name}: where generator and scorer are others, no difference is the one's or the other's. Study "
            "both with one scorer (higan run --scorer)"
        )
    told = []
    if not same_scorer:
        told.append(
            f"{one} and {other} were judged by different scorers: concepts of one name may mean different things, and "
            "effects are in standard deviations of different scores. What differs is what the scorers see."
        )
    if a.step_mode != b.step_mode:
        told.append(
            f"{one} was moved by steps of mode {a.step_mode}, {other} by {b.step_mode}: layers took other steps, and "
            "depths, shares and effects may differ by that alone."
        )
    told += _of_steps(one, a, other, b, same_generator=same_generator)
    if a.fit != b.fit:
        told.append(f"Boundaries were fitted otherwise ({one}: {a.fit or 'unknown'}; {other}: {b.fit or 'unknown'}).")
    if max(a.probed, b.probed) > _MORE_SAMPLES * min(a.probed, b.probed):
        told.append(
            f"Boundaries come from {a.probed:,} samples in {one} and {b.probed:,} in {other}: fewer give worse ones, "
            "and weaker effects."
        )
    return told


def _of_steps(one: str, a: Making, other: str, b: Making, *, same_generator: bool) -> list[str]:
    """Of one generator λ itself is compared; of two, what it is beside their codes, whose scales are accidents."""
    if same_generator:
        if math.isclose(a.step, b.step):
            return []
        return [f"λ is {a.step:g} in {one} and {b.step:g} in {other}: effects differ by that. {_DEPTHS}"]
    if math.isnan(a.sigmas + b.sigmas):
        return [
            f"How long a step is beside the codes is not known of both {one} and {other}, whose code spaces have "
            f"scales of their own: effects may differ by that alone. {_DEPTHS}"
        ]
    ratio = a.sigmas / b.sigmas
    if 1 / _SAME_STEP < ratio < _SAME_STEP:
        return []
    return [
        f"λ is {a.sigmas:.1f} standard deviations of the codes in {one} and {b.sigmas:.1f} in {other}, whose code "
        f"spaces have scales of their own: effects differ by that. {_DEPTHS} As long a step as in {one} is --step "
        f"{b.step * ratio:.3g} in {other}."
    ]


def _levels(rescorings: Mapping[str, Rescoring]) -> list[str]:
    told: dict[str, set[str]] = {}
    for concept in itertools.chain.from_iterable(found.concepts for found in rescorings.values()):
        told.setdefault(concept.name, set()).add(concept.level)
    other = [f"{name} ({' and '.join(sorted(levels))})" for name, levels in told.items() if len(levels) > 1]
    return [f"Not of the same level in all runs: {', '.join(other)}."] if other else []
