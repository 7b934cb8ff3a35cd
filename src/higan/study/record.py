"""Which steps of a run are done, with what settings: ``steps.json``. A step whose record is gone is done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from higan import store
from higan.errors import RunError
from higan.types import Boundary

__all__ = ["digest", "forget", "is_done", "load_whole", "record", "steps_of"]

_STEPS = "steps.json"

T = TypeVar("T")


def steps_of(run: store.Run) -> dict[str, dict[str, Any]]:
    """Settings and seconds of every finished step. Where the record is damaged, no step counts as finished."""
    path = run.path / _STEPS
    try:
        steps = json.loads(path.read_text("utf-8", "replace"))
        return {name: step for name, step in steps.items() if isinstance(step, dict)}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def is_done(run: store.Run, step: str, settings: Mapping[str, Any]) -> bool:
    """Whether a step is done with just these settings."""
    return steps_of(run).get(step, {}).get("settings") == settings


def record(
    run: store.Run,
    step: str,
    settings: Mapping[str, Any],
    seconds: float,
    outcome: Mapping[str, Any] | None = None,
) -> None:
    """Notes that a step is done, and what came of it."""
    done = {"settings": dict(settings), "seconds": round(seconds, 1)}
    _write_steps(run, steps_of(run) | {step: done if outcome is None else done | {"outcome": dict(outcome)}})


def forget(run: store.Run, step: str) -> None:
    """What follows from an older result is stale."""
    steps = steps_of(run)
    if steps.pop(step, None) is not None:
        _write_steps(run, steps)


def _write_steps(run: store.Run, steps: Mapping[str, Any]) -> None:
    store.write_json(run.path / _STEPS, steps)


def load_whole(load: Callable[[store.Run], T], run: store.Run) -> T | None:
    """A result that is there whole; None where it is absent or damaged, so that it is made again."""
    try:
        return load(run)
    except RunError:
        return None


def digest(boundaries: Sequence[Boundary]) -> str:
    """Names boundaries by what an edit along them depends on, so that a re-scoring of others is known to be stale."""
    content = hashlib.sha256()
    for boundary in boundaries:
        content.update(f"{boundary.concept.name} {tuple(boundary.normal.shape)} ".encode())
        content.update(boundary.normal.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
