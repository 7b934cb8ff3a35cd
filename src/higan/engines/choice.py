"""From what people type to an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, get_args

from higan.engines.inprocess import InProcess
from higan.engines.processes import Processes
from higan.engines.ray import RayCluster
from higan.engines.types import Engine

__all__ = ["EngineName", "cores", "open_engine"]

EngineName = Literal["local", "processes", "ray"]


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(
    name: str | None = None,
    *,
    workers: int | None = None,
    devices: Sequence[str] = ("cpu",),
    address: str | None = None,
    threads: int | None = None,
) -> Engine:
    """An engine by name.

    Args:
        name: ``local``, ``processes`` or ``ray``. If None: Ray where there is an address, processes where there is
            more than one worker or device, else this process.
        workers: by default one for each device, and on a CPU one for each core, or for as many as it has threads.
        devices: such as ``cuda:0, cuda:1``.
        address: of a Ray cluster.
        threads: of torch in each worker, by default one.

    Raises:
        ValueError: an unknown name, or options that this engine has no use for.
    """
    for option, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1; got {value}")
    if name is None:
        several = (workers or 1) > 1 or len(devices) > 1
        name = "ray" if address is not None else "processes" if several else "local"
    if name not in get_args(EngineName):
        raise ValueError(f"engine must be one of {', '.join(get_args(EngineName))}; got {name!r}")
    if address is not None and name != "ray":
        raise ValueError(f"an address is of a Ray cluster; the engine is {name!r}")
    if name == "local":
        if len(devices) != 1 or workers not in (None, 1):
            raise ValueError("the engine 'local' is one worker on one device; take 'processes' for several")
        if threads is not None:
            raise ValueError("threads are those of each worker; for this process set OMP_NUM_THREADS instead")
        return InProcess(devices[0])
    each = threads or 1
    count = workers if workers is not None else max(1, cores() // each) if list(devices) == ["cpu"] else len(devices)
    if name == "processes":
        return Processes(count, tuple(devices), each)
    kinds = {device.partition(":")[0] for device in devices}
    if len(kinds) != 1:
        raise ValueError(f"Ray workers are of one kind; got {', '.join(devices)}")
    return RayCluster(count, address, kinds.pop(), each)
