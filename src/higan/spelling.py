"""Names that somebody misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from itertools import islice

__all__ = ["instead"]

_MOST = 30
"""So many names are told of at a time; scorers know hundreds."""
_CLOSE = 3


def instead(name: str, known: Collection[str]) -> str:
    """What there is instead of a name that is unknown: all names, or the first of very many, and which are like it."""
    told = ", ".join(islice(known, _MOST))
    if len(known) > _MOST:
        told += f" and {len(known) - _MOST:,} more"
    close = difflib.get_close_matches(str(name), known, _CLOSE)
    return told + (f"; did you mean {' or '.join(close)}?" if close else "")
