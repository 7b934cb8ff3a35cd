"""Answers as arrays, and which raters can be relied on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from higan.userstudy.answers import Given, Origin, Rater
from higan.userstudy.design import CHOICES, Design

__all__ = ["MISSING", "Ratings", "Screening", "gather", "screen"]

MISSING = -1
_PASS = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Ratings:
    """Answers of R raters to U units at S stages and to K catch trials: an index into `CHOICES`, or `MISSING`."""

    design: Design
    raters: tuple[Rater, ...]
    edits: Int[np.ndarray, "R U S"]
    catches: Int[np.ndarray, "R K"]

    def __len__(self) -> int:
        return len(self.raters)

    def of(self, chosen: Bool[np.ndarray, " R"]) -> Ratings:
        """The ratings of some raters."""
        raters = tuple(rater for rater, kept in zip(self.raters, chosen, strict=True) if kept)
        return replace(self, raters=raters, edits=self.edits[chosen], catches=self.catches[chosen])


def gather(design: Design, raters: Sequence[Rater], answers: Sequence[Given], origins: Collection[Origin]) -> Ratings:
    """Answers of the raters from these origins; raters who have answered nothing are left out."""
    chosen = tuple(rater for rater in raters if rater.origin in origins and rater.answered)
    row = {rater.number: r for r, rater in enumerate(chosen)}
    stages = list(design.stages)
    edits = np.full((len(chosen), design.num_units, len(stages)), MISSING)
    catches = np.full((len(chosen), len(design.catches)), MISSING)
    trials = design.trials
    for given in answers:
        if given.rater not in row:
            continue
        trial, choice = trials[given.trial], CHOICES.index(given.choice)
        if trial.stage is None:
            catches[row[given.rater], trial.unit] = choice
        else:
            edits[row[given.rater], trial.unit, stages.index(trial.stage)] = choice
    return Ratings(design, chosen, edits, catches)


@dataclass(frozen=True, slots=True, eq=False)
class Screening:
    """How raters did in the catch trials.

    ``kept`` are those who passed at least ``least`` of all catch trials of the study; a rater who has not got so far is
    not judged, and not kept. ``chance`` is the probability that somebody who answers at random is kept.
    """

    passed: Int[np.ndarray, " R"]
    seen: Int[np.ndarray, " R"]
    total: int
    least: int
    kept: Bool[np.ndarray, " R"]
    chance: float


def screen(ratings: Ratings, *, share: float = _PASS) -> Screening:
    """Judge raters by their catch trials: at least ``share`` of all of them must be passed.

    A study without catch trials keeps everybody.

    Raises:
        ValueError: the share does not lie between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    accepted = [[CHOICES.index(choice) for choice in trial.accepted] for trial in ratings.design.catches]
    right = np.zeros_like(ratings.catches, dtype=bool)
    for k, choices in enumerate(accepted):
        right[:, k] = np.isin(ratings.catches[:, k], choices)
    passed, seen = right.sum(1), (ratings.catches != MISSING).sum(1)
    total = len(accepted)
    least = int(np.ceil(share * total - 1e-9))
    lucky = _at_least(np.array([len(choices) / len(CHOICES) for choices in accepted]), least)
    return Screening(passed, seen, total, least, passed >= least, lucky)


def _at_least(chances: Float[np.ndarray, " K"], least: int) -> float:
    """Probability of at least so many successes in independent trials of these chances."""
    counts = np.ones(1)
    for chance in chances:
        counts = np.convolve(counts, [1 - chance, chance])
    return float(counts[least:].sum())
