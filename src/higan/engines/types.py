"""Read first: a job is cut into units, any worker makes any unit, and a unit is bytes.

Workers return what a unit's file will hold and never touch the run folder: one process writes, the one that asked.
Nothing need be shared between machines, a full disk is met in one place, and a folder has one writer, which locks it.
Units depend on their number alone, so that neither order nor number of workers changes a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Engine", "Job", "OpenJob", "Tick", "Ticks", "Units"]

Tick = Callable[[int], None]
"""Called by a job with the images of its unit done so far."""

Ticks = Callable[[int, int], None]
"""Called by an engine with a unit and the images of it done so far, as far as the engine hears of them."""

Job = Callable[[int, Tick], bytes]
"""Makes the unit of this number."""

OpenJob = Callable[[str], Job]
"""Opens the job on a device, once in every worker. To reach other processes it must be picklable: a function at the
top of a module, a partial of one, or a frozen dataclass; names and paths in it, not networks."""

Units = Generator[tuple[int, bytes], None, None]
"""Finished units, in whatever order they are done; closing it stops the workers."""


@runtime_checkable
class Engine(Protocol):
    """Makes units somewhere."""

    def run(self, open_job: OpenJob, units: Sequence[int], ticks: Ticks | None = None) -> Units:
        """Makes these units.

        Raises:
            EngineError: workers die again and again, or cannot be reached.
            Exception: whatever the job raises, as it is.
        """
        ...
