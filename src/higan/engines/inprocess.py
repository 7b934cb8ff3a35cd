"""The engine that is no engine: one unit after the other, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from higan.engines.types import OpenJob, Ticks, Units

__all__ = ["InProcess"]


@dataclass(frozen=True, slots=True)
class InProcess:
    """Runs in the calling process."""

    device: str = "cpu"

    def run(self, open_job: OpenJob, units: Sequence[int], ticks: Ticks | None = None) -> Units:
        """Units in the order given; see `higan.engines.types.Engine`."""
        if not units:
            return
        job = open_job(self.device)
        for unit in units:

            def tick(images: int, unit: int = unit) -> None:
                if ticks is not None:
                    ticks(unit, images)

            yield unit, job(unit, tick)
