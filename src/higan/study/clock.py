"""How long a step takes, over all calls where it goes on from one to the next."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from higan import store
from higan.errors import RunWriteError
from higan.population import Progress

__all__ = ["Clock"]

_EVERY = 5.0
"""Seconds between two notes: so many are not counted where a call is killed."""


class Clock:
    """Runs from when it is made, on top of what earlier calls noted that did not finish the step.

    Notes are a file of their own (`higan.store.UNFINISHED`), so that nothing that counts is written again and again;
    once all steps are done there is none.

    Args:
        run: the folder; who notes or stops is its writer.
        step: its name.
        settings: what the step's result depends on: time that went into another one does not count.
    """

    def __init__(self, run: store.Run, step: str, settings: Mapping[str, Any]) -> None:
        self._run, self._step, self._settings = run, step, dict(settings)
        noted = self._noted().get(step, {})
        self._before = float(noted["seconds"]) if noted.get("settings") == self._settings else 0.0
        self._start = self._last = time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether an earlier call left notes."""
        return self._before > 0

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._start

    def ticking(self, progress: Progress | None) -> Progress:
        """Progress that takes a note now and then."""

        def tell(done: int, total: int) -> None:
            if time.monotonic() - self._last >= _EVERY:
                self._last = time.monotonic()
                with suppress(RunWriteError):  # A full disk is told of by what must find room.
                    self._note({"settings": self._settings, "seconds": round(self.seconds, 1)})
            if progress is not None:
                progress(done, total)

        return tell

    def stop(self) -> float:
        """Seconds in all; the notes go."""
        self._note(None)
        return self.seconds

    def _note(self, note: dict[str, Any] | None) -> None:
        steps = {name: step for name, step in self._noted().items() if name != self._step}
        if note is not None:
            steps[self._step] = note
        path = self._run.path / store.UNFINISHED
        if steps:
            store.write_json(path, steps)
        else:
            path.unlink(missing_ok=True)

    def _noted(self) -> dict[str, dict[str, Any]]:
        """Nothing where the file is damaged, or not ours."""
        with suppress(OSError, ValueError, AttributeError, TypeError):
            steps = json.loads((self._run.path / store.UNFINISHED).read_text("utf-8"))
            return {name: step for name, step in steps.items() if isinstance(step["seconds"], int | float)}
        return {}
