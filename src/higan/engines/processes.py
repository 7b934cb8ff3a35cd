"""Several processes on this machine: one thread each on a CPU, or one process for each GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic

import torch

from higan.engines.types import OpenJob, Ticks, U, Units
from higan.errors import EngineError
from higan.memory import keep_memory

__all__ = ["Processes", "unheard"]

_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes that are started anew, so that they inherit nothing by accident.

    A worker that dies (killed by the system for want of memory, say) is replaced and its unit made again by another.
    A script that uses this engine needs ``if __name__ == "__main__":`` around what it does, as always with processes.

    Args:
        workers: how many.
        devices: which devices they take, in turn.
        threads: of torch in each of them.
        attempts: how many workers may die over one unit before it is given up.
    """

    workers: int
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads), ("attempts", self.attempts)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not self.devices:
            raise ValueError("devices must name at least one; got none")

    @contextmanager
    def open(self, open_job: OpenJob[U]) -> Iterator[_Crew[U]]:
        """See `higan.engines.types.Engine`."""
        crew = _Crew(self, open_job)
        try:
            yield crew
        finally:
            crew.dismiss(list(crew.workers))


@dataclass(slots=True)
class _Crew(Generic[U]):
    """Processes that wait for units."""

    engine: Processes
    open_job: OpenJob[U]
    workers: list[_Worker[U]] = field(default_factory=list)

    def make(self, units: Sequence[U], ticks: Ticks[U] | None = None) -> Units[U]:
        """Units as they are done; at most one per worker waits in memory."""
        todo, deaths = deque(enumerate(units)), Counter[int]()
        for place in range(len(self.workers), min(self.engine.workers, len(todo))):
            self.workers.append(self._hire(place))
        try:
            for worker in self.workers:
                worker.give(todo)
            while busy := {worker.pipe: worker for worker in self.workers if worker.task is not None}:
                ready = wait(list(busy))
                for worker in [worker for pipe, worker in busy.items() if pipe in ready]:
                    task = worker.task
                    assert task is not None
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, OSError):
                        self._bury(worker, task, deaths)
                        todo.appendleft(task)
                        self.workers[self.workers.index(worker)] = replacement = self._hire(worker.place)
                        replacement.give(todo)
                        continue
                    if kind == "tick":
                        if ticks is not None:
                            ticks(task[1], value)
                    elif kind == "error":
                        raise value
                    else:
                        worker.give(todo)
                        yield task[1], value
        finally:
            # What they are busy with now nobody waits for, and it must not be taken for an answer to what comes next.
            self.dismiss([worker for worker in self.workers if worker.task is not None])

    def dismiss(self, workers: Sequence[_Worker[U]]) -> None:
        """Stop these processes."""
        for worker in workers:
            self.workers.remove(worker)
            worker.process.terminate()
        for worker in workers:
            worker.end()

    def _hire(self, place: int) -> _Worker[U]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        devices = self.engine.devices
        arguments = (theirs, self.open_job, devices[place % len(devices)], self.engine.threads)
        process = context.Process(target=_serve, args=arguments, daemon=True, name=f"higan worker {place}")
        with unheard():
            process.start()
        # Closed here, so that the death of the worker ends the pipe.
        theirs.close()
        return _Worker(place, process, ours)

    def _bury(self, worker: _Worker[U], task: tuple[int, U], deaths: Counter[int]) -> None:
        worker.end()
        index, unit = task
        deaths[index] += 1
        if deaths[index] >= self.engine.attempts:
            raise EngineError(
                f"{deaths[index]} workers died over unit {unit}, the last with exit status {worker.process.exitcode}: "
                f"{_guess(worker.process.exitcode)}; what was finished is kept"
            )


@dataclass(slots=True, eq=False)
class _Worker(Generic[U]):
    """A process, and what it is busy with: a unit and its place among those asked for."""

    place: int
    process: SpawnProcess
    pipe: Connection[Any, Any]
    task: tuple[int, U] | None = None

    def give(self, todo: deque[tuple[int, U]]) -> None:
        """The next unit, if there is one. A worker that is dead already is found out when its pipe is read."""
        self.task = todo.popleft() if todo else None
        if self.task is not None:
            with contextlib.suppress(OSError):
                self.pipe.send(self.task[1])

    def end(self) -> None:
        """Wait for the process, a little."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


@contextmanager
def unheard() -> Iterator[None]:
    """Processes that are started meanwhile do not hear of Ctrl-C, not even while they import what they need."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # Starts with the first process otherwise, and lifts the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _guess(status: int | None) -> str:
    """Why a worker may have died: one that is killed has a negative status."""
    if status is None or status < 0:
        return "too little memory? Try fewer workers or a smaller batch size"
    return (
        "it was not killed, but ended: generator, scorer or a library did that, or a script starts workers without "
        '`if __name__ == "__main__":` around what it does'
    )


def _serve(pipe: Connection[Any, Any], open_job: OpenJob[Any], device: str, threads: int) -> None:
    """Life of a worker: opens the job, makes units until nobody asks any more."""
    # Ctrl-C reaches every process of a terminal; the one that hired this one decides. Not all systems have masks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        try:
            job = open_job(device)
            while True:
                pipe.send(("done", job(pipe.recv(), lambda images: pipe.send(("tick", images)))))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:  # whatever it is, it belongs to who asked for the work
            pipe.send(("error", _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the journey, else one that says the same."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass
    return EngineError(f"{type(error).__name__}: {error}")
