"""Names of a predictor's outputs: from a list, or from a text file with one per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from higan.errors import CorruptFileError, MissingWeightsError
from higan.types import LEVELS, Concept, Level

__all__ = ["Names", "named", "parse_concept", "plain_name", "read_names", "told_apart"]

Names = str | Path | Sequence[str | Concept]
"""A text file with one name per line, or the names themselves."""

_SPELLINGS: Mapping[str, Level] = {
    **{level: level for level in LEVELS},
    **{f"{level}s": level for level in LEVELS},
    "color": "colour",
    "colors": "colour",
}
"""What people write for a level."""

_CLOSE = 0.83
"""From here on a word counts as misspelt: ``obejct`` is 0.83 of ``object``, ``project`` 0.77."""


def read_names(path: str | Path) -> tuple[str, ...]:
    """The lines of a text file, blank ones left out.

    A number after the name is its position, as in the list of Places365 (``/a/airfield 0``); without numbers the
    lines' order counts. Names that begin with ``/x/`` are made plain, see `plain_name`; all others stay as they are.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptFileError: it is not text, holds no names, or its numbers are not 0, 1, 2 …
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such list of names; expected a text file with one name per line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path} is not a text file: {error}") from error
    parts = [line.rsplit(maxsplit=1) for line in lines]
    if lines and all(len(part) == 2 and part[1].isdecimal() for part in parts):
        order = [int(number) for _, number in parts]
        if sorted(order) != list(range(len(order))):
            raise CorruptFileError(f"{path}: positions must be 0 … {len(order) - 1}, each once")
        lines = [name for _, (name, _) in sorted(zip(order, parts, strict=True))]
    if not lines:
        raise CorruptFileError(f"{path} holds no names")
    return tuple(plain_name(line) if _is_filed(line) else line for line in lines)


def plain_name(name: str) -> str:
    """A name of Places365 or SUN as the official tool has it: no ``/x/``, ``__`` for ``/``, ``_`` for blanks."""
    return (name[3:] if _is_filed(name) else name).replace("/", "__").replace(" ", "_")


def _is_filed(name: str) -> bool:
    """Whether a name begins with its letter, as in the list of Places365: ``/a/airfield``."""
    return len(name) > 3 and name[0] == name[2] == "/"


def parse_concept(text: str, level: Level) -> Concept:
    """``attribute: wooden`` with its level in front, or a bare name, which gets the given level.

    ``color`` is a level as well, and so is the plural of each.

    Raises:
        ValueError: what stands before a colon looks like a level that is misspelt.
    """
    front, colon, rest = text.partition(":")
    word = front.strip().lower()
    if not colon:
        return Concept(text.strip(), level)
    if word in _SPELLINGS:
        return Concept(rest.strip(), _SPELLINGS[word])
    if meant := get_close_matches(word, _SPELLINGS, 1, _CLOSE):
        known = _SPELLINGS[meant[0]]
        raise ValueError(
            f"{text!r}: the level in front is one of {', '.join(LEVELS)}; got {front.strip()!r}. Write "
            f"'{known}: {rest.strip()}', or, where all of it is the name, its level before it, as in "
            f"'{level}: {text.strip()}'"
        )
    return Concept(text.strip(), level)


def named(names: Names, level: Level) -> tuple[Concept, ...]:
    """Concepts of any form of names; those without a level get the given one.

    Raises:
        ValueError: two have the same name, or one a level that is misspelt.
        MissingWeightsError, CorruptFileError: see `read_names`.
    """
    listed = read_names(names) if isinstance(names, str | Path) else names
    concepts = tuple(name if isinstance(name, Concept) else parse_concept(name, level) for name in listed)
    known = [concept.name for concept in concepts]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise ValueError(f"concepts must have different names; given twice: {', '.join(twice)}")
    return concepts


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, their position added where one was there before: ``crane``, the bird, then ``crane (517)``."""
    found: list[str] = []
    for position, name in enumerate(names):
        found.append(name if name not in found else f"{name} ({position})")
    return tuple(found)
