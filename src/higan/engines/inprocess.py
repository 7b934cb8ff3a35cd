"""The engine that is no engine: one unit after the other, here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic

from higan.engines.types import Job, OpenJob, Ticks, U, Units

__all__ = ["InProcess"]


@dataclass(frozen=True, slots=True)
class InProcess:
    """Runs in the calling process."""

    device: str = "cpu"

    @contextmanager
    def open(self, open_job: OpenJob[U]) -> Iterator[_Alone[U]]:
        """See `higan.engines.types.Engine`."""
        yield _Alone(open_job, self.device)


@dataclass(slots=True)
class _Alone(Generic[U]):
    """A crew of one."""

    open_job: OpenJob[U]
    device: str
    job: Job[U] | None = None

    def make(self, units: Sequence[U], ticks: Ticks[U] | None = None) -> Units[U]:
        """Units in the order given."""
        for unit in units:
            if self.job is None:
                self.job = self.open_job(self.device)
            yield unit, self.job(unit, _silent if ticks is None else partial(ticks, unit))


def _silent(images: int) -> None:
    """Nobody asked."""
