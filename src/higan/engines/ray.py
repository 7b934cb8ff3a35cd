"""A cluster, through Ray: the same units, made wherever there is room."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
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

    Ray replaces workers that die and gives their unit to another; of Ray itself nothing but that scheduling is used.
    Its usage reports are switched off unless the environment says otherwise.

    Args:
        workers: how many; each takes one core, and one GPU where ``device`` is ``cuda``.
        address: of a running cluster, as in ``ray://head:10001`` or ``auto``; None starts one here, on the loopback.
        device: ``cpu`` or ``cuda``; Ray shows every worker its own GPU.
        threads: of torch in each worker.
        attempts: how often a unit is tried again after its worker died.
    """

    workers: int
    address: str | None = None
    device: str = "cpu"
    threads: int = 1
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads), ("attempts", self.attempts)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
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
        ray, todo = self.ray, deque(units)
        under_way: dict[Any, tuple[Any, U]] = {}
        self._hire(len(todo))
        try:
            for worker in self.workers[: len(todo)]:
                unit = todo.popleft()
                under_way[worker.make.remote(unit)] = worker, unit
            while under_way:
                (ready,), _ = ray.wait(list(under_way), num_returns=1)
                worker, unit = under_way[ready]
                data = self._fetch(ready, unit)
                del under_way[ready]
                if todo:
                    following = todo.popleft()
                    under_way[worker.make.remote(following)] = worker, following
                yield unit, data
        finally:
            # What they are busy with now nobody waits for.
            self.dismiss([worker for worker, _ in under_way.values() if worker in self.workers])

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
            _connect(self.ray, self.engine.address, self.engine.workers)
            self.ours = True
        device = self.engine.device
        options = {"num_cpus": 1, "num_gpus": int(device == "cuda"), "max_restarts": -1}
        hire = self.ray.remote(_Worker).options(**options, max_task_retries=self.engine.attempts)
        self.workers += [hire.remote(self.open_job, device, self.engine.threads) for _ in range(count)]

    def _fetch(self, made: Any, unit: U) -> bytes:
        exceptions = self.ray.exceptions
        try:
            return bytes(self.ray.get(made))
        except exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else EngineError(_first_line(error)) from error
        except exceptions.RayError as error:
            raise EngineError(
                f"workers of the cluster died over unit {unit} ({_first_line(error)}): too little memory? "
                "What was finished is kept"
            ) from error


def _connect(ray: Any, address: str | None, workers: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # Never a cluster that happens to be there: only one that was named.
        options |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
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
