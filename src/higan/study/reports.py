"""How steps tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

from higan.population import Progress

__all__ = ["Report", "of_step", "within"]

Report = Callable[[str, int, int], None]
"""Called with the name of a step, what is done and what there is to do."""


def of_step(report: Report | None, step: str) -> Progress | None:
    """What a step tells its progress to; None where nobody listens."""
    if report is None:
        return None
    return lambda done, total: report(step, done, total)


def within(progress: Progress | None, offset: int, total: int) -> Progress | None:
    """Progress of a part of a step, which begins at ``offset`` of ``total``."""
    if progress is None:
        return None
    return lambda done, _: progress(offset + done, total)
