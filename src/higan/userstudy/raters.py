"""Simulated raters with a planted mapping: no people, but an answer known beforehand to test a study with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from higan.errors import UserStudyError
from higan.userstudy.answers import MOST_RATERS, Answers, Rater
from higan.userstudy.design import CHOICES, Choice
from higan.userstudy.folder import Expected

__all__ = ["Planted", "planted", "simulate"]

Planted = Mapping[str, Mapping[Choice, float]]
"""Per stage the probability of every answer that an attentive rater gives; what is missing is zero."""

_NOTHING = 0.15


def planted(expected: Expected) -> Planted:
    """A mapping from the re-scoring's profile: people who see what the predictors see.

    At every stage "nothing" has probability 0.15; the levels share the rest as the stage's shares of their effects do.
    """
    mapping: dict[str, dict[Choice, float]] = {}
    for s, stage in enumerate(expected.stages):
        weights = {level: row[s] for level, row in zip(expected.levels, expected.mean, strict=True)}
        total = sum(weights.values())
        seen: dict[Choice, float] = {"nothing": _NOTHING if total > 0 else 1.0}
        for level, weight in weights.items():
            seen[level] = (1 - _NOTHING) * weight / total if total > 0 else 0.0
        mapping[stage] = seen
    return mapping


def simulate(
    answers: Answers,
    num: int,
    mapping: Planted | None = None,
    *,
    lapse: float = 0.1,
    careless: float = 0.0,
    complete: float = 1.0,
    seed: int = 0,
) -> tuple[Rater, ...]:
    """Adds simulated raters to a study, marked as such for ever.

    Args:
        answers: of the study.
        num: how many raters.
        mapping: what attentive raters answer; by default `planted` from the run's profile.
        lapse: share of trials at which an attentive rater presses any key.
        careless: share of raters who press any key at every trial.
        complete: share of their trials that raters answer before they leave.
        seed: of their answers.

    Raises:
        ValueError: counts, shares or a mapping that make no sense.
        UserStudyError: the study would have more than `MOST_RATERS` raters; none is added.
    """
    study = answers.study
    if num < 1 or not all(0 <= share <= 1 for share in (lapse, careless, complete)):
        raise ValueError(
            f"num must be at least 1, and lapse, careless and complete shares between 0 and 1; got {num}, {lapse}, "
            f"{careless}, {complete}"
        )
    mapping = planted(study.expected) if mapping is None else mapping
    chances = {stage: _chances(stage, mapping) for stage in study.design.stages}
    there = answers.raters()
    if len(there) + num > MOST_RATERS:
        raise UserStudyError(
            f"a study has at most {MOST_RATERS:,} raters, and this one has {len(there):,}; {num:,} more were asked "
            "for, and none was added"
        )
    before = sum(rater.origin == "simulated" for rater in there)
    # Those who are there already are not simulated again, whatever the seed.
    rng = np.random.default_rng([seed, before])
    added = []
    for k in range(before, before + num):
        rater, _ = answers.join(f"simulated {k + 1}", origin="simulated", block=k)
        inattentive = 1.0 if rng.random() < careless else lapse
        trials = study.block(rater.block)
        given: dict[str, tuple[str, float | None]] = {}
        for trial in trials[: round(complete * len(trials))]:
            if rng.random() < inattentive:
                choice = CHOICES[rng.integers(len(CHOICES))]
            elif trial.stage is None:
                choice = trial.accepted[0]
            else:
                choice = CHOICES[rng.choice(len(CHOICES), p=chances[trial.stage])]
            given[trial.id] = (choice, None)
        answers.record_all(rater, given)
        added.append(rater)
    return tuple(added)


def _chances(stage: str, mapping: Planted) -> Float[np.ndarray, " A"]:
    row = np.array([float(mapping.get(stage, {}).get(choice, 0.0)) for choice in CHOICES])
    if (row < 0).any() or not row.sum() > 0 or set(mapping.get(stage, {})) - set(CHOICES):
        raise ValueError(
            f"the planted mapping needs probabilities of {', '.join(CHOICES)} at stage {stage!r}; "
            f"got {dict(mapping.get(stage, {}))}"
        )
    return row / row.sum()
