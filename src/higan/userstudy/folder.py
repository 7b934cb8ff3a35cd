"""The study folder: what is shown to raters, and apart from it what is true.

::

    manifest.json       format, name and title of the study, how it was made, a digest of every other file
    truth.json          trials with stages, concepts, steps and catches; the run's profile. Never served
    pictures/….png      all that is served besides the page
    answers.sqlite      once the study is served (see `higan.userstudy.answers`). Never served
    keys.json           once it is served: what raters and organiser show, for its owner alone. Never served

The folder is written beside its place, under the name ``.<name>.partial``, and renamed, so that it is there whole or
not at all. Nothing in it refers to the place of the run it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from higan.errors import UserStudyError
from higan.types import LEVELS, Level
from higan.userstudy.design import CATCHES, Design, Trial, Unit, block

__all__ = ["ANSWERS", "Expected", "UserStudy", "begun_seed", "check_new", "open_study", "verify", "write_study"]

ANSWERS = "answers.sqlite"
_FORMAT = "higan-user-study-1"
_MANIFEST, _TRUTH, _PICTURES = "manifest.json", "truth.json", "pictures"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the re-scoring says of the stages, Fig. 3(a): per level its share of the effect at every stage.

    ``mean``, ``low`` and ``high`` have a row per level and a column per stage; levels without a verified concept are
    left out, as in `higan.hierarchy.profile`.
    """

    levels: tuple[Level, ...]
    stages: tuple[str, ...]
    mean: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class UserStudy:
    """An open study folder. ``id`` names the study in answer files, ``made`` says how it came about."""

    path: Path
    id: str
    title: str
    design: Design
    expected: Expected
    made: Mapping[str, Any]
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def pictures(self) -> Path:
        """Folder of the pictures, named ``<name>.png``."""
        return self.path / _PICTURES

    def block(self, number: int) -> tuple[Trial, ...]:
        """See `higan.userstudy.design.block`."""
        return block(self.design, number)


def write_study(
    path: Path,
    design: Design,
    expected: Expected,
    pictures: Mapping[str, Callable[[], bytes]],
    *,
    title: str,
    made: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> UserStudy:
    """Draw and write a new study folder, whole or not at all.

    Interrupted, the same call goes on with the pictures that are there. They are drawn in the order of their names, so
    that neither times nor places on the disk follow the design.

    Args:
        path: the folder.
        design: trials.
        expected: the run's profile.
        pictures: how to draw every picture, as PNG, by its name.
        title: of the study.
        made: how it came about, as JSON.
        progress: called with pictures done and pictures in total.

    Raises:
        UserStudyError: there is something at ``path`` already.
    """
    check_new(path)
    partial = _partial(path)
    truth = _to_json({"design": asdict(design), "expected": asdict(expected), "made": dict(made)})
    if not (partial / _TRUTH).is_file() or (partial / _TRUTH).read_bytes() != truth:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / _PICTURES).mkdir(parents=True)
        _write(partial / _TRUTH, truth)
    digests = {_TRUTH: _digest(truth)}
    for done, name in enumerate(sorted(pictures), 1):
        file = partial / _PICTURES / f"{name}.png"
        if not file.is_file():
            _write(file, pictures[name]())
        digests[f"{_PICTURES}/{name}.png"] = _digest(file.read_bytes())
        if progress is not None:
            progress(done, len(pictures))
    manifest = {
        "format": _FORMAT, "id": _digest(truth)[:16], "title": title, "made": dict(made), "digests": digests,
    }  # fmt: skip
    _write(partial / _MANIFEST, _to_json(manifest))
    partial.rename(path)
    return open_study(path)


def check_new(path: Path) -> None:
    """Before the work and after it.

    Raises:
        UserStudyError: there is something at ``path`` already.
    """
    if path.exists():
        raise UserStudyError(f"{path} exists already; nothing was written: choose another folder for the study")


def begun_seed(path: Path) -> int | None:
    """Seed of a study that was begun at ``path`` and not finished."""
    try:
        return int(json.loads((_partial(path) / _TRUTH).read_bytes())["design"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def open_study(path: str | Path) -> UserStudy:
    """Open a study folder.

    Raises:
        UserStudyError: there is none, or manifest or truth are damaged.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        data = (path / _TRUTH).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserStudyError(
            f"{path} is no study folder: it lacks {_MANIFEST} or {_TRUTH}; `higan user-study build` makes one"
        ) from None
    except ValueError as error:
        raise UserStudyError(f"{path / _MANIFEST} is damaged ({error}); build the study again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise UserStudyError(f"{path / _MANIFEST} is not a manifest of format {_FORMAT}")
    kinds = {"id": str, "title": str, "made": dict, "digests": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]:
        raise UserStudyError(f"{path / _MANIFEST} is damaged (no {wrong[0]}); build the study again")
    if _digest(data) != manifest["digests"].get(_TRUTH):
        raise UserStudyError(f"{path / _TRUTH} is not the file that the study was built with; build the study again")
    truth = json.loads(data)
    return UserStudy(
        path=path,
        id=manifest["id"],
        title=manifest["title"],
        design=_design(truth["design"]),
        expected=_expected(truth["expected"]),
        made=manifest["made"],
        digests=manifest["digests"],
    )


def verify(study: UserStudy) -> None:
    """Check every picture against its digest.

    Raises:
        UserStudyError: one is missing or damaged.
    """
    for name, digest in study.digests.items():
        file = study.path / name
        if not file.is_file() or _digest(file.read_bytes()) != digest:
            raise UserStudyError(f"{file} is missing or damaged; build the study again")


def _design(data: Mapping[str, Any]) -> Design:
    def trials(rows: list[dict[str, Any]]) -> tuple[Trial, ...]:
        return tuple(Trial(**(row | {"what": Unit(**row["what"])})) for row in rows)

    stages = {name: tuple(layers) for name, layers in data["stages"].items()}
    design = Design(
        seed=data["seed"],
        stages=stages,
        sources=tuple(data["sources"]),
        repeats=data["repeats"],
        overlap=data["overlap"],
        edits=trials(data["edits"]),
        catches=trials(data["catches"]),
    )
    if any(trial.catch not in CATCHES for trial in design.catches):
        raise UserStudyError("the study has a kind of catch trial that this version does not know")
    return design


def _expected(data: Mapping[str, Any]) -> Expected:
    def rows(name: str) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row) for row in data[name])

    levels = tuple(level for level in LEVELS if level in data["levels"])
    return Expected(levels, tuple(data["stages"]), rows("mean"), rows("low"), rows("high"))


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
