"""Where foreign code raised: what its author wants to read first."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import torch

from higan.errors import HiganError

__all__ = ["blame", "blamed", "is_foreign", "lacks_memory"]

_OURS = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, jaxtyping.__file__, torch.__file__))
"""Folders of what calls foreign code, of what may check shapes between the two, and of what is called."""


def blame(error: Exception) -> str:
    """``ValueError: invalid literal … (mymodels.py:41)``: what was raised, and the innermost line of the foreign file.

    That file is the first that the call went through outside of this package and torch; where there is none, the
    operation itself raised, and no line is named.
    """
    frames = _foreign(error)
    lines = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    what = ": ".join(part for part in (type(error).__name__, " ".join(str(error).split())[:300]) if part)
    return f"{what} ({Path(frames[0].filename).name}:{lines[-1]})" if frames else what


@contextmanager
def blamed(what: str, kind: type[HiganError]) -> Iterator[None]:
    """Foreign code is called within: what it raises becomes an error of that kind, which begins with ``what``.

    What this package raised itself, or torch alone, passes as it is; so does a lack of memory, which is nobody's slip.
    """
    try:
        yield
    except HiganError:
        raise
    except Exception as error:  # whatever foreign code raises
        if lacks_memory(error) or not is_foreign(error):
            raise
        raise kind(f"{what} raised {blame(error)}") from error


def is_foreign(error: BaseException) -> bool:
    """Whether code outside of this package and torch had a part in raising it."""
    return bool(_foreign(error))


def lacks_memory(error: BaseException) -> bool:
    """Whether a device, or this machine, has not enough memory, for which torch has no exception of its own here."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def _foreign(error: BaseException) -> list[traceback.FrameSummary]:
    """What the call went through outside of this package and torch."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(_OURS)]
