"""Files that appear whole or not at all, and locks that the system lifts when a process is killed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

__all__ = ["lock", "replacing", "sync", "write_whole"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], partial: Path | None = None) -> Iterator[Path]:
    """A name to write to: what is there when the body ends, synced, takes the place of ``path``.

    If the body fails, what was at ``path`` stays, and the half that was written goes: it would only keep a full disk
    full. What the system says of the half names ``path``.

    Args:
        path: of the finished file.
        partial: the name to write to, on the same file system; by default one beside ``path``, of this process.
    """
    path = Path(path)
    partial = partial or path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if _is_of(error, partial):
            error.filename = str(path)  # The name that people know; a full disk tells none.
        raise


def _is_of(error: BaseException, partial: Path) -> TypeGuard[OSError]:
    """Whether the system says this of the half that was written, or does not say of what."""
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return error.filename in (None, str(partial)) and error.filename2 is None


def write_whole(path: str | os.PathLike[str], data: bytes, partial: Path | None = None) -> None:
    """Write a file as `replacing` does."""
    with replacing(path, partial) as half:
        half.write_bytes(data)


def sync(path: Path) -> None:
    """See to it that what was written to a file is still there after the power fails."""
    with path.open("r+b") as file:  # for writing, since Windows syncs nothing else
        os.fsync(file.fileno())


def lock(file: int) -> None:
    """Taken at once or not at all, until the file is closed; where the file system knows no locks there is none.

    Raises:
        BlockingIOError: somebody else has it.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return
