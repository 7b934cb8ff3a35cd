"""A cluster, through Ray: the same units, made wherever there is room."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

import torch

from higan.engines.types import Job, OpenJob, Ticks, U, Units
from higan.errors import EngineError
from higan.extras import optional
from higan.memory import keep_memory

__all__ = ["RayCluster"]


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Workers of a Ray cluster, or of one started on this machine for the occasion.

    A worker that dies is replaced and its unit made again; of Ray itself nothing but its scheduling is used.
    Its usage reports are switched off unless the environment says otherwise.

    Args:
        workers: how many; each takes a core a thread, and one GPU where ``device`` is ``cuda``.
        address: of a running cluster, as in ``ray://head:10001`` or ``auto``; None starts one here, on the loopback.
        device: ``cpu`` or ``cuda``; Ray shows every worker its own GPU.
        threads: of torch in each worker.
        attempts: how many workers may die over one unit before it is given up.
        patience: how many seconds longer than three times the longest unit so far a unit may be under way before an
            idle worker makes it again: where a machine is gone for good, Ray waits for room for its workers, which may
            never come. Units are the same whoever makes them.
    """

    workers: int
    address: str | None = None
    device: str = "cpu"
    threads: int = 1
    attempts: int = 3
    patience: float = 30.0

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads), ("attempts", self.attempts)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not self.patience >= 0:
            raise ValueError(f"patience must not be negative; got {self.patience}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"with Ray, device is cpu or cuda, and Ray chooses which; got {self.device!r}")

    @contextmanager
    def open(self, open_job: OpenJob[U]) -> Iterator[_Crew[U]]:
        """See `higan.engines.types.Engine`. Ticks are not sent over the network.

        Raises:
            MissingExtraError: Ray is not installed.
            EngineError: the cluster cannot be reached.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = optional("ray", "ray")
        crew = _Crew(self, open_job, ray)
        try:
            yield crew
        finally:
            crew.dismiss(list(crew.workers))
            if crew.ours:
                ray.shutdown()


@dataclass(slots=True)
class _Crew(Generic[U]):
    """Actors that wait for units. The cluster is called when there is something to do."""

    engine: RayCluster
    open_job: OpenJob[U]
    ray: Any
    workers: list[Any] = field(default_factory=list)
    ours: bool = False

    def make(self, units: Sequence[U], ticks: Ticks[U] | None = None) -> Units[U]:
        """Units as they are done, one per worker at a time."""
        todo, missing, deaths = deque(units), set(units), Counter[U]()
        self._hire(len(todo))
        # The last is asked first: those who have worked before, then those who may still wait for room.
        idle, under_way, longest = self.workers[::-1], dict[Any, _Task[U]](), 0.0
        try:
            while missing:
                while todo and idle:
                    _start(under_way, idle.pop(), todo.popleft())
                waiting = None
                if idle:
                    late, since = _late(under_way, missing)
                    waiting = max(0.0, since + self.engine.patience + 3 * longest - time.monotonic())
                ready, _ = self.ray.wait(list(under_way), num_returns=1, timeout=waiting)
                if not ready:
                    _start(under_way, idle.pop(), late)
                    continue
                task = under_way.pop(ready[0])
                try:
                    data = self._fetch(ready[0])
                except self.ray.exceptions.RayError as error:
                    deaths[task.unit] += 1
                    if task.unit in missing and deaths[task.unit] >= self.engine.attempts:
                        raise EngineError(
                            f"{deaths[task.unit]} workers of the cluster died over unit {task.unit}, the last by "
                            f"{_first_line(error)}: too little memory? What was finished is kept"
                        ) from error
                    idle.insert(0, self._replace(task.worker))
                    if task.unit in missing:
                        todo.append(task.unit)
                    continue
                longest = max(longest, time.monotonic() - task.start)
                idle.append(task.worker)
                if task.unit in missing:
                    missing.remove(task.unit)
                    yield task.unit, data
        finally:
            # What they are busy with now nobody waits for.
            self.dismiss([task.worker for task in under_way.values()])

    def dismiss(self, workers: Sequence[Any]) -> None:
        """Stop these actors."""
        for worker in workers:
            self.workers.remove(worker)
            self.ray.kill(worker)

    def _hire(self, units: int) -> None:
        """As many as there is work for."""
        count = min(self.engine.workers, units) - len(self.workers)
        if count <= 0:
            return
        if not self.ray.is_initialized():
            _connect(self.ray, self.engine.address, self.engine.workers * self.engine.threads)
            self.ours = True
        self.workers += [self._worker() for _ in range(count)]

    def _worker(self) -> Any:
        """One more, once there is room."""
        device = self.engine.device
        hire = self.ray.remote(_Worker).options(num_cpus=self.engine.threads, num_gpus=int(device == "cuda"))
        return hire.remote(self.open_job, device, self.engine.threads)

    def _replace(self, worker: Any) -> Any:
        """Another one for a worker that died or whose machine is gone."""
        self.dismiss([worker])
        self.workers.append(self._worker())
        return self.workers[-1]

    def _fetch(self, made: Any) -> bytes:
        """What was made; where making it failed, the error itself.

        Raises:
            RayError: the worker died.
        """
        try:
            return bytes(self.ray.get(made))
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else EngineError(_first_line(error)) from error


@dataclass(frozen=True, slots=True)
class _Task(Generic[U]):
    """A unit that a worker is busy with."""

    worker: Any
    unit: U
    start: float


def _start(under_way: dict[Any, _Task[U]], worker: Any, unit: U) -> None:
    under_way[worker.make.remote(unit)] = _Task(worker, unit, time.monotonic())


def _late(under_way: Mapping[Any, _Task[U]], missing: Collection[U]) -> tuple[U, float]:
    """Of the missing units that fewest workers are busy with, the one that was begun first, and when it was last."""
    tasks = [task for task in under_way.values() if task.unit in missing]
    busy = Counter(task.unit for task in tasks)
    unit = min(busy, key=busy.__getitem__)
    return unit, max(task.start for task in tasks if task.unit == unit)


def _connect(ray: Any, address: str | None, cores: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # Never a cluster that happens to be there: only one that was named.
        options |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1"}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise EngineError(f"Ray cannot be reached {where}: {_first_line(error)}") from error


class _Worker:
    """What Ray keeps alive: the opened job."""

    def __init__(self, open_job: OpenJob[Any], device: str, threads: int) -> None:
        keep_memory()
        torch.set_num_threads(threads)
        self._open = open_job
        self._device = device
        self._job: Job[Any] | None = None

    def make(self, unit: Any) -> bytes:
        """The job is opened with the first unit, where an error can be told from a death."""
        if self._job is None:
            self._job = self._open(self._device)
        return self._job(unit, lambda _: None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
