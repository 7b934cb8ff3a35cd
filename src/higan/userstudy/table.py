"""Answers as a table for other programs: CSV that no spreadsheet can be made to execute."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from higan.userstudy.answers import Answers

__all__ = ["to_csv"]

COLUMNS = (
    "rater", "nickname", "origin", "trial", "kind", "stage", "layers", "source", "concept", "strength", "seed",
    "choice", "passed", "seconds", "counted",
)  # fmt: skip
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def to_csv(answers: Answers, counted: Mapping[int, bool] | None = None) -> str:
    """One row per answer with the truth about its trial; ``passed`` is 1 or 0 in catch trials, else empty.

    Of the raters whose numbers ``counted`` holds: ``counted`` is 1 where an analysis counts them, 0 where it leaves
    them out. Of all raters if None; it is empty then.

    ``origin`` says ``simulated`` in every row that no person gave. Words that a spreadsheet might take for a formula
    get an apostrophe in front.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    design = answers.study.design
    trials = design.trials
    known = {rater.number: rater for rater in answers.raters() if counted is None or rater.number in counted}
    for given in answers.all():
        if given.rater not in known:
            continue
        rater, trial = known[given.rater], trials[given.trial]
        stage = trial.stage or ""
        writer.writerow(
            [
                rater.number + 1, _harmless(rater.nickname), rater.origin, trial.id, trial.catch or "edit", stage,
                " ".join(map(str, design.stages.get(stage, ()))), trial.what.source, _harmless(trial.what.concept),
                trial.what.strength, trial.what.seed, given.choice,
                "" if trial.catch is None else int(given.choice in trial.accepted),
                "" if given.seconds is None else given.seconds,
                "" if counted is None else int(counted[given.rater]),
            ]
        )  # fmt: skip
    return file.getvalue()


def _harmless(words: str) -> str:
    return f"'{words}" if words.lstrip().startswith(_RISKY) else words
