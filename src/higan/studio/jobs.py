"""What takes seconds: one job at a time in a thread of low priority, with progress, to be cancelled, soon forgotten."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from higan.errors import HiganError
from higan.population import Progress
from higan.studio.lines import BusyError, TooManyError

__all__ = ["Job", "Jobs", "Work"]

Work = Callable[[Progress], Mapping[str, Any]]
"""Does the job, calling its argument as it goes; returns what JSON can hold."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class _CancelledError(Exception):
    """Raised inside a job through its progress."""


@dataclass(slots=True, eq=False)
class Job:
    """One job. ``result`` is there once it is done, ``error`` once it has failed."""

    client: str
    name: str = field(default_factory=lambda: secrets.token_hex(16))
    state: State = "waiting"
    done: int = 0
    total: int = 0
    result: Mapping[str, Any] | None = None
    error: str = ""
    wanted: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)

    def told(self) -> dict[str, Any]:
        """What the page is told."""
        rest: dict[str, Any] = {} if self.result is None else {"result": dict(self.result)}
        rest |= {"error": self.error} if self.error else {}
        return {"job": self.name, "state": self.state, "done": self.done, "total": self.total, **rest}


class Jobs:
    """Jobs of many clients, one after the other, one waiting or running for each.

    Args:
        waiting: most jobs that may wait or run in all.
        kept: most jobs that are remembered.
        patience: seconds after which a job that nobody asks about is cancelled.
    """

    def __init__(self, *, waiting: int = 8, kept: int = 32, patience: float = 60.0) -> None:
        self._waiting = waiting
        self._kept = max(kept, waiting)
        self._patience = patience
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._line: OrderedDict[str, tuple[Job, Work]] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs", initializer=_stand_back)

    def submit(self, client: str, work: Work) -> Job:
        """Put a job in line.

        Raises:
            TooManyError: the client has one already.
            BusyError: too many wait.
        """
        with self._lock:
            self._clear_line()
            alive = [job for job in self._jobs.values() if job.state in ("waiting", "running")]
            if any(job.client == client for job in alive):
                raise TooManyError
            if len(alive) >= self._waiting:
                raise BusyError
            job = Job(client)
            self._jobs[job.name] = job
            self._line[job.name] = job, work
            for name in [n for n, j in self._jobs.items() if j not in alive and j is not job]:
                if len(self._jobs) > self._kept:
                    del self._jobs[name]
        self._thread.submit(self._run_next)
        return job

    def find(self, name: str) -> Job | None:
        """A job by its name, which nobody can guess; asking keeps it alive."""
        with self._lock:
            job = self._jobs.get(name)
        if job is not None:
            job.wanted = time.monotonic()
        return job

    def cancel(self, name: str) -> None:
        """Stop a job: at once where it waits, at its next progress where it runs."""
        with self._lock:
            if name in self._jobs:
                self._jobs[name].cancel.set()
            self._clear_line()

    def stop(self) -> None:
        """Cancel everything."""
        with self._lock:
            for job in self._jobs.values():
                job.cancel.set()
            self._clear_line()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _given_up(self, job: Job) -> bool:
        return job.cancel.is_set() or time.monotonic() - job.wanted > self._patience

    def _clear_line(self) -> None:
        """Who has given up neither waits nor takes the place of somebody who would."""
        for job, _ in list(self._line.values()):
            if self._given_up(job):
                del self._line[job.name]
                job.state = "cancelled"

    def _run_next(self) -> None:
        with self._lock:
            self._clear_line()
            if not self._line:
                return
            _, (job, work) = self._line.popitem(last=False)
            job.state = "running"
        self._run(job, work)

    def _run(self, job: Job, work: Work) -> None:
        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            if self._given_up(job):
                raise _CancelledError

        try:
            result = work(progress)
            progress(job.total, job.total)
            job.result, job.state = result, "done"
        except _CancelledError:
            job.state = "cancelled"
        except (ValueError, HiganError) as error:
            job.error, job.state = str(error), "failed"
        except Exception as error:  # a thread has nobody to raise to
            job.error, job.state = f"{type(error).__name__}: {error}", "failed"


def _stand_back() -> None:
    """On Linux a thread can have a priority of its own: pictures under a moving hand come before jobs."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
