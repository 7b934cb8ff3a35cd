"""Where foreign code raised: what its author wants to read first."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import torch

__all__ = ["blame"]

_OURS = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, torch.__file__))
"""Folders of what calls foreign code, and of what it calls."""


def blame(error: Exception) -> str:
    """``ValueError: invalid literal … (mymodels.py:41)``: what was raised, and the innermost line of the foreign file.

    That file is the first that the call went through outside of this package and torch; where there is none, the
    operation itself raised, and no line is named.
    """
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame.filename for frame in frames if not frame.filename.startswith(_OURS)]
    lines = [frame.lineno for frame in frames if files and frame.filename == files[0]]
    what = ": ".join(part for part in (type(error).__name__, " ".join(str(error).split())[:300]) if part)
    return f"{what} ({Path(files[0]).name}:{lines[-1]})" if files else what
