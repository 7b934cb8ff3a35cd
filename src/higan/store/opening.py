"""Beginning a run, or going on with the one that is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from higan.errors import RunMismatchError
from higan.store.files import temporary, write_json
from higan.store.run import FORMAT, LOCK, MANIFEST, UNFINISHED, Run, load_run, writing, wrong_setting
from higan.store.shards import is_whole

__all__ = ["open_run"]


def open_run(path: str | Path, settings: Mapping[str, Any], *, provenance: Mapping[str, Any] | None = None) -> Run:
    """Create a run folder, or go on with the one that is there if its settings are the same.

    ``settings`` is whatever decides the result, as JSON: generator and scorer with digests of their weights, and at
    least ``num_samples``, ``shard_size`` and ``seed``. ``provenance`` is kept as first written and never compared.
    A manifest that was cut off is written anew, provided that every shard there says that it belongs to these settings.

    Raises:
        ValueError: a setting is missing or not positive, or the folder's name is no text.
        RunMismatchError: the folder holds another run, or something that is no run.
        RunWriteError: the folder cannot be written.
        CorruptRunError: the manifest cannot be read, and what else is there does not show that the run is this one.
    """
    if wrong := wrong_setting(settings):
        raise ValueError(wrong)
    path = Path(path)
    _check_name(path)
    wanted = json.loads(json.dumps(dict(settings)))
    manifest = {"format": FORMAT, "settings": wanted, "provenance": dict(provenance or {})}
    if not (path / MANIFEST).exists():
        if path.exists() and not path.is_dir():
            raise RunMismatchError(f"{path} is a file, and a run is a folder (--out); name another")
        foreign = _beside_manifest(path) if path.exists() else []
        # Another program may have begun the run meanwhile.
        if foreign and not (path / MANIFEST).exists():
            raise RunMismatchError(
                f"{path} is not empty and holds no run (there is {foreign[0]}); choose another folder"
            )
    if _lacks_manifest(path, wanted):
        # Of two programs that begin a folder at once, one does, and the other finds the run begun.
        with writing(Run(path, wanted, {})):
            if _lacks_manifest(path, wanted):
                write_json(path / MANIFEST, manifest)
    run = load_run(path)
    differing = sorted(k for k in {*wanted, *run.settings} if wanted.get(k) != run.settings.get(k))
    if differing:
        details = "; ".join(f"{k} is {run.settings.get(k)!r} there, {wanted.get(k)!r} here" for k in differing)
        raise RunMismatchError(f"{path} holds another run: {details}; use these settings or choose another folder")
    return run


def _check_name(path: Path) -> None:
    """Refuses now what safetensors and the report would refuse after all samples are made."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        told = str(path).encode(errors="backslashreplace").decode()
        raise ValueError(
            f"the name of a run's folder must be text in UTF-8; got {told}: name another, or, if it is one, choose a "
            "locale that knows UTF-8 (LC_ALL=C.UTF-8)"
        ) from None


def _beside_manifest(path: Path) -> list[str]:
    """What lies in a folder besides a manifest, finished or not, the lock and the clock."""
    ours = {LOCK, *(name for file in (MANIFEST, UNFINISHED) for name in (file, temporary(path / file).name))}
    return sorted(entry.name for entry in path.iterdir() if entry.name not in ours)


def _lacks_manifest(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings is to be begun here, or its manifest written again."""
    manifest = path / MANIFEST
    return not manifest.exists() or (_is_cut_off(manifest) and _belongs(path, settings))


def _is_cut_off(manifest: Path) -> bool:
    """Without its end an object is no JSON."""
    try:
        json.loads(manifest.read_bytes())
    except (ValueError, RecursionError):
        return True
    return False


def _belongs(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether what lies in a folder without a manifest can only be the run with these settings."""
    run = Run(path, settings, {})
    shards = len(list((path / "population").glob("*.parquet")))
    if not shards:
        return not [name for name in _beside_manifest(path) if name != "population"]
    # The last shard may have been cut off together with the manifest; it will be made again.
    return sum(is_whole(run, shard) for shard in range(run.num_shards)) >= max(1, shards - 1)
