"""Answers, kept: an SQLite file in the study folder. What is acknowledged is on the disk.

Write-ahead log and ``synchronous=FULL``: an answer is returned from `Answers.record` after its commit was synced, and
a process that is killed at any moment loses none that it has acknowledged. A rater and a trial together are a key, so
that an answer sent twice is kept once. Stored about a person: the nickname they chose, their answers, and how long
each took. No address, no date, no browser; the personal link only as a digest.

The file must lie on a local disk: SQLite's locks cannot be trusted on network shares.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from higan.errors import UserStudyError
from higan.userstudy.design import CHOICES, Choice
from higan.userstudy.folder import ANSWERS, UserStudy

__all__ = ["MOST_RATERS", "Answers", "Given", "Origin", "Rater", "nickname_of"]

Origin = Literal["server", "file", "simulated"]
"""Where a rater came from; those that are ``simulated`` are no people and are never mixed with them."""

MOST_RATERS = 10_000
_MOST_LETTERS = 40
_MOST_SECONDS = 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
  number INTEGER PRIMARY KEY,
  block INTEGER NOT NULL,
  token TEXT NOT NULL UNIQUE,
  nickname TEXT NOT NULL,
  origin TEXT NOT NULL CHECK (origin IN ('server', 'file', 'simulated'))
);
CREATE TABLE IF NOT EXISTS forgotten (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS answers (
  rater INTEGER NOT NULL REFERENCES raters (number),
  trial TEXT NOT NULL,
  choice TEXT NOT NULL,
  seconds REAL,
  PRIMARY KEY (rater, trial)
) WITHOUT ROWID;
"""


# A number is never given again: to forget somebody twice by mistake would remove whoever had it next.
_NEXT = """
SELECT coalesce(max(number) + 1, 0) FROM (SELECT number FROM raters UNION ALL SELECT number FROM forgotten)
"""


@dataclass(frozen=True, slots=True)
class Rater:
    """Somebody who answers. ``answered`` counts their answers."""

    number: int
    block: int
    nickname: str
    origin: Origin
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """One answer."""

    rater: int
    trial: str
    choice: Choice
    seconds: float | None


class Answers:
    """The answers of a study; several threads may use it at a time. A context manager.

    Raises:
        UserStudyError: the file is no answer file, damaged, of another study, or cannot be written.
    """

    def __init__(self, study: UserStudy) -> None:
        self.study = study
        self.path: Path = study.path / ANSWERS
        self._lock = threading.RLock()
        self._blocks: dict[int, frozenset[str]] = {}
        try:
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            with self._writing() as db:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                if db.execute("SELECT count(*) FROM study").fetchone()[0] == 0:
                    db.execute("INSERT INTO study VALUES (?)", (study.id,))
                stored = db.execute("SELECT id FROM study").fetchone()[0]
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        if stored != study.id:
            self.close()
            raise UserStudyError(f"{self.path} holds answers of another study ({stored}, here {study.id})")

    def _unusable(self, error: sqlite3.Error) -> UserStudyError:
        return UserStudyError(
            f"{self.path} cannot be used ({error}); it must be this study's answer file on a local disk that can be "
            "written"
        )

    def close(self) -> None:
        """Close the file; whatever was acknowledged is in it."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- raters -------------------------------------------------------------------------------------------------------

    def join(
        self, nickname: str = "", *, origin: Origin = "server", block: int | None = None, token: str | None = None
    ) -> tuple[Rater, str]:
        """A new rater and the token of their personal link, which only they hold.

        Args:
            nickname: as they typed it; control characters are dropped, 40 letters kept.
            origin: where they come from.
            block: which block they see; by default the first that no rater of that origin has.
            token: the token where one was drawn elsewhere; a rater who has it already is returned as they are.

        Raises:
            UserStudyError: the study has `MOST_RATERS` raters.
        """
        token = secrets.token_urlsafe(16) if token is None else token
        with self._writing() as db:
            if (known := self.find(token)) is not None:
                return known, token
            if db.execute("SELECT count(*) FROM raters").fetchone()[0] >= MOST_RATERS:
                raise UserStudyError(f"the study is full: it has {MOST_RATERS:,} raters")
            number = int(db.execute(_NEXT).fetchone()[0])
            shown = nickname_of(nickname) or f"rater {number + 1}"
            if block is None:
                # The first that none of their like has: simulated raters leave no gap in the blocks of people, and
                # who was forgotten is replaced.
                taken = {row[0] for row in db.execute("SELECT block FROM raters WHERE origin = ?", (origin,))}
                block = next(k for k in range(len(taken) + 1) if k not in taken)
            db.execute("INSERT INTO raters VALUES (?, ?, ?, ?, ?)", (number, block, _digest(token), shown, origin))
        return Rater(number, block, shown, origin), token

    def find(self, token: str) -> Rater | None:
        """The rater whose personal link this is."""
        return next(iter(self._raters("WHERE token = ?", _digest(token))), None)

    def forget(self, number: int) -> None:
        """Remove a rater with all answers, and overwrite the place where they stood; only their number is kept.

        Raises:
            ValueError: there is no such rater.
        """
        with self._writing() as db:
            db.execute("DELETE FROM answers WHERE rater = ?", (number,))
            if db.execute("DELETE FROM raters WHERE number = ?", (number,)).rowcount == 0:
                raise ValueError(f"there is no rater {number + 1}")
            db.execute("INSERT INTO forgotten VALUES (?)", (number,))
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def raters(self) -> tuple[Rater, ...]:
        """All raters in the order in which they joined."""
        return tuple(self._raters(""))

    def _raters(self, where: str, *values: str) -> Iterator[Rater]:
        query = (
            "SELECT number, block, nickname, origin, (SELECT count(*) FROM answers WHERE rater = number) "
            f"FROM raters {where} ORDER BY number"
        )
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        return (Rater(*row) for row in rows)

    # --- answers ------------------------------------------------------------------------------------------------------

    def record(self, rater: Rater, trial: str, choice: str, seconds: float | None = None) -> Choice:
        """Keep an answer; what is returned is on the disk.

        The first answer to a trial stays: sent again, whatever it says, the stored one is returned.

        Args:
            rater: from `join` or `find`.
            trial: name of a trial of the rater's block.
            choice: one of `CHOICES`.
            seconds: how long they looked; None where that is unknown.

        Raises:
            ValueError: the trial is not the rater's, or the choice is none.
        """
        self.check(rater, trial, choice)
        with self._writing() as db:
            return self._insert(db, rater, trial, choice, seconds)

    def record_all(self, rater: Rater, answers: Mapping[str, tuple[str, float | None]]) -> int:
        """Keep many answers of one rater, all or none; returns how many were new.

        Raises:
            ValueError: as for `record`; then none is kept.
        """
        for trial, (choice, _) in answers.items():
            self.check(rater, trial, choice)
        with self._writing() as db:
            before = db.total_changes
            for trial, (choice, seconds) in answers.items():
                self._insert(db, rater, trial, choice, seconds)
            return db.total_changes - before

    def of(self, rater: Rater) -> dict[str, Choice]:
        """What a rater has answered so far, by trial."""
        with self._lock:
            return dict(self._db.execute("SELECT trial, choice FROM answers WHERE rater = ?", (rater.number,)))

    def all(self) -> tuple[Given, ...]:
        """Every answer, rater by rater."""
        with self._lock:
            rows = self._db.execute("SELECT rater, trial, choice, seconds FROM answers ORDER BY rater, trial")
            return tuple(Given(*row) for row in rows)

    def check(self, rater: Rater, trial: str, choice: str) -> None:
        """Refuse what is no answer.

        Raises:
            ValueError: the trial is not the rater's, or the choice is none.
        """
        if choice not in CHOICES:
            raise ValueError(f"an answer is one of {', '.join(CHOICES)}; got {choice!r:.60}")
        if rater.block not in self._blocks:
            self._blocks[rater.block] = frozenset(t.id for t in self.study.block(rater.block))
        if trial not in self._blocks[rater.block]:
            raise ValueError(f"trial {trial!r:.60} is not among those of this rater")

    def _insert(self, db: sqlite3.Connection, rater: Rater, trial: str, choice: str, seconds: float | None) -> Choice:
        if seconds is not None:
            seconds = round(seconds, 3) if 0 <= seconds <= _MOST_SECONDS else None
        db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", (rater.number, trial, choice, seconds))
        key = (rater.number, trial)
        stored: Choice = db.execute("SELECT choice FROM answers WHERE rater = ? AND trial = ?", key).fetchone()[0]
        return stored

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, synced to the disk when it ends; undone where anything fails."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def nickname_of(typed: str) -> str:
    """A nickname as it is kept: no control, format or private characters, single spaces, at most 40 letters."""
    kept = "".join(" " if c.isspace() else c for c in typed if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(kept.split())[:_MOST_LETTERS].strip()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
