"""Read first: a job is cut into units, any worker makes any unit, and a unit is bytes.

Workers return what a unit's file will hold and never touch the run folder: one process writes, the one that asked.
Nothing need be shared between machines, a full disk is met in one place, and a folder has one writer, which locks it.
Units depend on what they are alone, so that neither order nor number of workers changes a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Crew", "Engine", "Job", "OpenJob", "Tick", "Ticks", "Units"]

U = TypeVar("U")
"""What names a unit: a number, or all that its maker has to know. To reach other processes it must be picklable."""

Tick = Callable[[int], None]
"""Called by a job with the images of its unit done so far."""

Ticks = Callable[[U, int], None]
"""Called by an engine with a unit and the images of it done so far, as far as the engine hears of them."""

Job = Callable[[U, Tick], bytes]
"""Makes a unit."""

OpenJob = Callable[[str], Job[U]]
"""Opens the job on a device, once in every worker. To reach other processes it must be picklable: a function at the
top of a module, a partial of one, or a frozen dataclass; names and paths in it, not networks."""

Units = Generator[tuple[U, bytes], None, None]
"""Finished units, in whatever order they are done."""


@runtime_checkable
class Crew(Protocol[U]):
    """Workers with the job open, who stay for the next units when some are made."""

    def make(self, units: Sequence[U], ticks: Ticks[U] | None = None) -> Units[U]:
        """Makes these units; what is still under way when it is closed is thrown away.

        Raises:
            EngineError: workers die again and again, or cannot be reached.
            Exception: whatever the job raises, as it is.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Makes units somewhere."""

    def open(self, open_job: OpenJob[U]) -> AbstractContextManager[Crew[U]]:
        """A crew for this job, hired as there are units for it, dismissed at the end, whatever happens."""
        ...
