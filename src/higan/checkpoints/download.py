"""Fetching a model by name: resumable, checked, and clear about what to do when an address is dead."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from higan.checkpoints.read import kind_of
from higan.checkpoints.zoo import Model, find
from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.files import lock, sync, write_whole
from higan.weights import digest_of

__all__ = ["Progress", "default_cache", "pull"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if the server says."""

_CHUNK = 1 << 20
_LARGEST = 8 << 30
"""Where a server does not say how much it will send, more than this is not a model."""
_PATIENCE = 0.2
"""Seconds between two looks at whether another call is done."""
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


@runtime_checkable
class Reply(Protocol):
    """What a download needs of an HTTP response."""

    status: int
    headers: http.client.HTTPMessage

    def read(self, amount: int, /) -> bytes:
        """Up to that many bytes; none at the end."""
        ...


def default_cache() -> Path:
    """Folder for downloaded models: ``$HIGAN_CACHE``, else ``higan`` in the user's cache folder.

    Raises:
        MissingWeightsError: neither the environment nor the system knows of such a folder.
    """
    if found := os.environ.get("HIGAN_CACHE"):
        return Path(found)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "higan"
    except RuntimeError as error:  # as in a container, of a user without a name
        raise MissingWeightsError(
            "there is no home folder to keep downloads in; name a folder with HIGAN_CACHE, or --cache"
        ) from error


def pull(
    name: str,
    mirror: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    *,
    attempts: int = 3,
    timeout: float = 30.0,
) -> Path:
    """Fetch an official model into the cache, or take it from there.

    An interrupted download goes on where it stopped, now or at the next call. The file is checked against the
    published SHA-256; where there is none, the digest is recorded beside the file (``FILE.sha256``, as ``sha256sum
    -c`` reads it) and every later use is checked against that. Of several calls for one model at once, one fetches it
    and the others wait.

    Args:
        name: as in :data:`higan.checkpoints.zoo.MODELS`.
        mirror: where to take it from instead: a file, a folder that holds it, or the address of either.
        cache_dir: by default :func:`default_cache`.
        progress: told about every megabyte of a download.
        attempts: how often an interrupted transfer is taken up again.
        timeout: seconds without a byte before a transfer counts as interrupted.

    Returns:
        The file in the cache.

    Raises:
        ValueError: no model has that name.
        MissingWeightsError: it cannot be had from there; the message says where else to look.
        CheckpointError: what arrived is not the model.
    """
    model = find(name)
    folder = Path(cache_dir) if cache_dir is not None else default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    for filename, origin in ((model.filename, model.origin), *model.companions):
        target = folder / filename
        if not target.is_file():
            source = _source(model, filename, origin, mirror)
            with _alone(folder / f".{filename}.lock"):
                # Another call may have fetched it while this one waited.
                if not target.is_file():
                    _obtain(model, source, target, progress, attempts, timeout)
                    continue
        _check_digest(model, target, target)
    return folder / model.filename


def _obtain(
    model: Model, source: str | Path, target: Path, progress: Progress | None, attempts: int, timeout: float
) -> None:
    """Put one file into the cache, once it is whole and checked."""
    _expected_digest(model, target)  # a damaged record is told before anything is fetched
    partial = target.with_name(f"{target.name}.partial")
    if isinstance(source, Path):
        shutil.copyfile(source, partial)
    else:
        _fetch(model, source, partial, progress, attempts, timeout)
    if target.name == model.filename:
        _check_kind(model, partial, source)
    _check_digest(model, partial, target)
    sync(partial)
    partial.replace(target)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other call, of whatever process, holds the lock at ``path``; then holds it."""
    while True:
        with path.open("ab") as file:
            if _holds(file.fileno(), path):
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):  # Windows removes no open file; there it stays.
                        path.unlink()
                return
        time.sleep(_PATIENCE)


def _holds(file: int, path: Path) -> bool:
    """Whether a file could be locked, and is still at its path: whoever held the lock before has removed it."""
    try:
        lock(file)
        return os.path.samestat(os.fstat(file), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


# ---- where from ---------------------------------------------------------------------------------------------------


def _source(model: Model, filename: str, origin: str, mirror: str | Path | None) -> str | Path:
    """A local file or an http(s) address."""
    if mirror is None:
        if model.status != "open":
            raise MissingWeightsError(_advice(model, "cannot be fetched from its origin by a program"))
        drive = origin.partition("drive.google.com/uc?id=")[2]
        return _DRIVE + drive if drive else origin
    text = str(mirror)
    if text.startswith(("http://", "https://")):
        is_file = urllib.parse.urlsplit(text).path.rpartition("/")[2] == model.filename
        return urllib.parse.urljoin(text, filename) if is_file else f"{text.rstrip('/')}/{filename}"
    path = Path(mirror)
    if path.is_file() and filename != model.filename:
        path = path.parent
    found = path / filename if path.is_dir() else path
    if not found.is_file():
        raise MissingWeightsError(f"{found}: no such file; expected {filename} or a folder that holds it")
    return found


def _advice(model: Model, problem: str) -> str:
    where = {
        "open": f"Its origin is {model.origin}",
        "browser": f"Open {model.origin} in a browser",
        "gone": f"Its host has shut the account; {model.origin} describes the file: search the web for its name",
    }[model.status]
    return (
        f"{model.name} ({model.filename}) {problem}. {where}. Once you have the file, pass its path, or put it in the "
        f"cache with `higan pull {model.name} --mirror PATH_OR_ADDRESS`"
    )


# ---- transfer -----------------------------------------------------------------------------------------------------


def _fetch(model: Model, url: str, partial: Path, progress: Progress | None, attempts: int, timeout: float) -> None:
    problem = ""
    for _ in range(attempts):
        try:
            if _transfer(url, partial, progress, timeout):
                partial.with_name(f"{partial.name}.json").unlink(missing_ok=True)
                return
            problem = "the connection closed early"
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server said {error.code} {error.reason}"
            if error.code in (400, 401, 403, 404, 410):
                break
            if error.code == 416:  # our part does not fit what is there now
                partial.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
    kept = f"; {partial.stat().st_size:,} bytes are kept, the next call goes on from there" if partial.is_file() else ""
    raise MissingWeightsError(_advice(model, f"could not be fetched from {url} ({problem}{kept})"))


def _transfer(url: str, partial: Path, progress: Progress | None, timeout: float) -> bool:
    """Fetch what is missing; whether the file is now whole."""
    notes = partial.with_name(f"{partial.name}.json")
    have, headers = 0, {"User-Agent": "higan", "Accept-Encoding": "identity"}
    known = _notes(notes)
    if partial.is_file() and known.get("url") == url and known.get("validator"):
        have = partial.stat().st_size
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        have, total = _extent(reply, have)
        validator = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
        if validator.startswith("W/"):  # a weak validator does not promise equal bytes
            validator = ""
        notes.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
        with partial.open("r+b" if partial.is_file() else "w+b") as file:
            file.seek(have)
            if not have:
                file.truncate()
            while chunk := reply.read(_CHUNK if total is None else min(_CHUNK, total - have)):
                file.write(chunk)
                have += len(chunk)
                if have > _LARGEST:
                    raise CorruptFileError(f"{url} sends more than {_LARGEST:,} bytes; that is not a model")
                if progress:
                    progress(have, total)
    return total is None or have == total


def _extent(reply: Reply, have: int) -> tuple[int, int | None]:
    """Where the reply's bytes start, and the length of the whole file."""
    if reply.status == 206:
        span, _, whole = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] == str(have) and whole.isdigit():
            return have, int(whole)
        raise http.client.HTTPException(f"a part was sent that nobody asked for: {span!r}")
    length = reply.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _notes(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()) else {}


# ---- checks -------------------------------------------------------------------------------------------------------


def _check_kind(model: Model, partial: Path, source: str | Path) -> None:
    """Refuse web pages and the like before they are remembered as the model."""
    with partial.open("rb") as file:
        start = file.read(4096)
    try:
        kind_of(start, partial.stat().st_size)
    except UnknownFormatError as error:
        partial.unlink()
        raise UnknownFormatError(_advice(model, f"did not come from {source}: what arrived {error}")) from None


def _check_digest(model: Model, path: Path, target: Path) -> None:
    """Compare with the published digest, else with the one recorded on first use, else record it."""
    expected, origin = _expected_digest(model, target)
    found = digest_of(path)
    if expected and found != expected:
        if path != target:
            path.unlink()
        raise CorruptFileError(
            f"{target} has SHA-256 {found}, expected {expected} ({origin}); it is damaged or another file. Delete it "
            "and pull again"
        )
    record = _record_of(target)
    if not record.is_file():
        write_whole(record, f"{found}  {target.name}\n".encode())


def _expected_digest(model: Model, target: Path) -> tuple[str, str]:
    """The digest that a file must have, none where it is not known yet, and who says so.

    Raises:
        CorruptFileError: the record of it is damaged.
    """
    record = _record_of(target)
    if model.sha256 and target.name == model.filename:
        return model.sha256, "published"
    if not record.is_file():
        return "", ""
    digest = record.read_text(encoding="utf-8", errors="replace").partition(" ")[0].strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise CorruptFileError(
            f"{record} is damaged: it should start with the 64 digits of a SHA-256; delete it, and {target.name} too "
            "unless you know that it is whole, and pull again"
        )
    return digest, f"recorded in {record}; delete that too if the change is meant"


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")
