"""Answer files: what the static export gives back, read with suspicion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from higan.errors import UserStudyError
from higan.userstudy.answers import Answers, Rater

__all__ = ["FORMAT", "Imported", "import_file"]

FORMAT = "higan-user-study-answers-1"
_MOST_BYTES = 4 << 20
_MOST_BLOCKS = 1_000_000
_MOST_SECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an answer file."""

    rater: Rater
    new: int
    known: int


def import_file(answers: Answers, path: str | Path) -> Imported:
    """Take over the answers of one file, all of them or none; those that are there already stay as they are.

    A file that is sent twice, or again when its rater has gone further, adds what is new.

    Raises:
        UserStudyError: the file is not an answer file of this study, is damaged or too large.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.stat().st_size > _MOST_BYTES:
        raise UserStudyError(f"{path} is larger than {_MOST_BYTES >> 20} MiB; an answer file has some kilobytes")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserStudyError(f"{path} is no answer file: it is not JSON ({type(error).__name__})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserStudyError(f"{path} is no answer file of format {FORMAT}")
    if data.get("study") != answers.study.id:
        raise UserStudyError(
            f"{path} belongs to another study ({str(data.get('study'))[:32]!r}; this one is {answers.study.id})"
        )
    key, nickname, block = data.get("rater"), data.get("nickname"), data.get("block")
    if not (isinstance(key, str) and re.fullmatch(r"[0-9a-f]{32}", key) and isinstance(nickname, str)):
        raise UserStudyError(f"{path} is damaged: it does not say which rater it is from")
    if not (isinstance(block, int) and not isinstance(block, bool) and 0 <= block < _MOST_BLOCKS):
        raise UserStudyError(f"{path} is damaged: it does not say which block of trials was shown")
    given = _given(path, data.get("answers"))
    known = answers.find(key)
    if known is not None and known.block != block:
        raise UserStudyError(f"{path} names another block of trials than an earlier file of the same rater")
    try:
        _check_all(answers, block, given)
        rater, _ = answers.join(nickname, origin="file", block=block, token=key)
        new = answers.record_all(rater, given)
    except ValueError as error:
        raise UserStudyError(f"{path}: {error}; nothing was taken over") from error
    return Imported(rater, new, len(given) - new)


def _given(path: Path, rows: Any) -> dict[str, tuple[str, float | None]]:
    if not isinstance(rows, list):
        raise UserStudyError(f"{path} is damaged: it holds no list of answers")
    given: dict[str, tuple[str, float | None]] = {}
    for row in rows:
        trial, choice = (row.get("trial"), row.get("choice")) if isinstance(row, dict) else (None, None)
        if not (isinstance(trial, str) and isinstance(choice, str)):
            raise UserStudyError(f"{path} is damaged: an answer lacks its trial or choice")
        if trial in given:
            raise UserStudyError(f"{path} is damaged: it answers a trial twice")
        seconds = row.get("seconds")
        plain = isinstance(seconds, int | float) and not isinstance(seconds, bool) and abs(seconds) < _MOST_SECONDS
        given[trial] = (choice, float(seconds) if plain else None)
    return given


def _check_all(answers: Answers, block: int, given: dict[str, tuple[str, float | None]]) -> None:
    """Refuse the whole file before its rater joins."""
    probe = Rater(-1, block, "", "file")
    for trial, (choice, _) in given.items():
        answers.check(probe, trial, choice)
