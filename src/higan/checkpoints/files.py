"""Opening a weight file: mapped into memory, with its name put in front of whatever goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

from higan.checkpoints.pickles import UNFORTUNATE
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError

__all__ = ["digest", "opened"]


@contextmanager
def opened(path: Path) -> Iterator[mmap]:
    """The content of a file.

    Raises:
        MissingWeightsError: there is no such file.
        CheckpointError: whatever the body raised, with the path in front; damage that surfaces as one of Python's own
            errors comes as ``CorruptFileError``.
    """
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such file; check the path, or `higan pull` the weights by name")
    with path.open("rb") as file:
        try:
            if not path.stat().st_size:
                raise CorruptFileError("is empty; fetch or copy it again")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                yield data
        except CheckpointError as error:
            raise type(error)(f"{path} {error}") from error.__cause__
        except UNFORTUNATE as error:
            raise CorruptFileError(f"{path} contradicts itself ({error}); fetch or copy it again") from error


def digest(data: bytes | mmap) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
