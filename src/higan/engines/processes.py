"""Several processes on this machine: one thread each on a CPU, or one process for each GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from higan.engines.types import OpenJob, Ticks, Units
from higan.errors import EngineError
from higan.memory import keep_memory

__all__ = ["Processes"]

_STOP = -1
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

    def run(self, open_job: OpenJob, units: Sequence[int], ticks: Ticks | None = None) -> Units:
        """Units as they are done; see `higan.engines.types.Engine`.

        At most one unit per worker waits in memory.
        """
        todo, deaths = deque(units), Counter[int]()
        crew: list[_Worker] = []
        try:
            for place in range(min(self.workers, len(todo))):
                crew.append(self._hire(open_job, place))
                crew[-1].give(todo)
            while busy := {worker.pipe: worker for worker in crew if worker.unit is not None}:
                ready = wait(list(busy))
                for worker in [worker for pipe, worker in busy.items() if pipe in ready]:
                    unit = worker.unit
                    assert unit is not None
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, OSError):
                        self._bury(worker, unit, deaths)
                        todo.appendleft(unit)
                        crew[crew.index(worker)] = replacement = self._hire(open_job, worker.place)
                        replacement.give(todo)
                        continue
                    if kind == "tick":
                        if ticks is not None:
                            ticks(unit, value)
                    elif kind == "error":
                        raise value
                    else:
                        worker.give(todo)
                        yield unit, value
        finally:
            for worker in crew:
                worker.process.terminate()
            for worker in crew:
                worker.end()

    def _hire(self, open_job: OpenJob, place: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, open_job, self.devices[place % len(self.devices)], self.threads)
        process = context.Process(target=_serve, args=arguments, daemon=True, name=f"higan worker {place}")
        process.start()
        # Closed here, so that the death of the worker ends the pipe.
        theirs.close()
        return _Worker(place, process, ours)

    def _bury(self, worker: _Worker, unit: int, deaths: Counter[int]) -> None:
        worker.end()
        deaths[unit] += 1
        if deaths[unit] >= self.attempts:
            raise EngineError(
                f"{deaths[unit]} workers died over unit {unit}, the last with exit status {worker.process.exitcode}: "
                "too little memory? Try fewer workers or a smaller batch size; what was finished is kept"
            )


@dataclass(slots=True)
class _Worker:
    """A process, and what it is busy with."""

    place: int
    process: SpawnProcess
    pipe: Connection[Any, Any]
    unit: int | None = None

    def give(self, todo: deque[int]) -> None:
        """The next unit, or the word to stop. A worker that is dead already is found out when its pipe is read."""
        self.unit = todo.popleft() if todo else None
        with contextlib.suppress(OSError):
            self.pipe.send(_STOP if self.unit is None else self.unit)

    def end(self) -> None:
        """Wait for the process, a little."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _serve(pipe: Connection[Any, Any], open_job: OpenJob, device: str, threads: int) -> None:
    """Life of a worker: opens the job, makes units until told to stop or until nobody listens any more."""
    # Ctrl-C reaches every process of a terminal; the one that hired this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        try:
            job = open_job(device)
            while (unit := pipe.recv()) != _STOP:
                pipe.send(("done", job(unit, lambda images: pipe.send(("tick", images)))))
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
