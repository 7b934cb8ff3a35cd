"""The run folder itself: its manifest, and who may write it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from higan.errors import CorruptRunError, RunBusyError, RunError
from higan.files import lock
from higan.store.files import make_folder, unwritable, write_json

__all__ = [
    "FORMAT",
    "LOCK",
    "MANIFEST",
    "UNFINISHED",
    "Run",
    "complete",
    "identity",
    "is_run",
    "load_run",
    "writing",
    "wrong_setting",
]

FORMAT = "higan-run-1"
MANIFEST = "manifest.json"
LOCK = ".lock"
UNFINISHED = ".unfinished.json"
"""What steps under way have taken so far."""


@dataclass(frozen=True, slots=True)
class Run:
    """An open run folder. ``settings`` identify the run; ``provenance`` (versions, dates) is for the reader alone."""

    path: Path
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def num_samples(self) -> int:
        """N, the population's size."""
        return int(self.settings["num_samples"])

    @property
    def shard_size(self) -> int:
        """Samples per shard; the last one may hold fewer."""
        return int(self.settings["shard_size"])

    @property
    def seed(self) -> int:
        """Chooses the population's samples."""
        return int(self.settings["seed"])

    @property
    def num_shards(self) -> int:
        """How many shards make the population."""
        return -(-self.num_samples // self.shard_size)


def load_run(path: str | Path) -> Run:
    """Open a run folder that exists.

    Raises:
        RunError: there is none.
        CorruptRunError: the manifest cannot be read.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except NotADirectoryError:
        raise RunError(f"{path} is a file; expected the folder of a run, as --out names it") from None
    except FileNotFoundError:
        raise RunError(f"{path} is no run folder: it has no {MANIFEST}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged_manifest(path, error) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CorruptRunError(f"{path / MANIFEST} is not a manifest of format {FORMAT}")
    settings, provenance = manifest.get("settings"), manifest.get("provenance")
    if not isinstance(settings, dict) or not isinstance(provenance, dict):
        raise _damaged_manifest(path, "it lacks settings or provenance")
    if wrong := wrong_setting(settings):
        raise _damaged_manifest(path, wrong)
    return Run(path, settings, provenance)


def is_run(path: str | Path) -> bool:
    """Whether a run has been begun there."""
    return (Path(path) / MANIFEST).is_file()


def wrong_setting(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the numbers that every run has, or None."""
    for name, least in (("num_samples", 1), ("shard_size", 1), ("seed", 0)):
        value = settings.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"the setting {name} must be a whole number of at least {least}; got {value!r:.60}"
    return None


def _damaged_manifest(path: Path, problem: object) -> CorruptRunError:
    return CorruptRunError(f"{path / MANIFEST} is damaged ({problem}); restore it or start in another folder")


def complete(run: Run, provenance: Mapping[str, Any]) -> Run:
    """Add what nobody said when the run was begun; what was said stays.

    Raises:
        RunBusyError, RunWriteError: see `writing`.
    """
    added = {key: value for key, value in provenance.items() if value and not run.provenance.get(key)}
    if not added:
        return run
    with writing(run):
        content = {
            "format": FORMAT,
            "settings": run.settings,
            "provenance": {**load_run(run.path).provenance, **added},
        }
        write_json(run.path / MANIFEST, content)
    return load_run(run.path)


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Keeps other processes from writing the run folder meanwhile; the system lifts the lock if this one is killed.

    Where the file system knows no locks there is none: files are whole or not at all even then.

    Raises:
        RunBusyError: another process is writing it.
        RunWriteError: the folder cannot be written.
    """
    path = run.path / LOCK
    try:
        make_folder(run.path)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            lock(file)
        except BlockingIOError:
            owner = ""
            with contextlib.suppress(OSError):  # Windows lets nobody read what is locked.
                owner = os.read(file, 200).decode(errors="replace").strip()
            owner = owner or "another process"
            raise RunBusyError(
                f"{run.path} is being written by {owner}; wait until it is done, or choose another folder"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: then without a name in it
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
        try:
            yield
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def identity(settings: Mapping[str, Any]) -> str:
    """A digest of settings, by which shards tell whose they are."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
