"""What a picture is made of, as the page says it: a sample or an upload, layers lent by other samples, and edits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from higan.layers import check_layers
from higan.recipes import Instruction, Loan
from higan.types import Boundary

__all__ = ["Look", "parse_concept", "parse_look", "parse_seed"]

_MOST_EDITS = 64
_MOST_LOANS = 8
_MOST_STEPS = 10_000.0
_MOST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Look:
    """Exactly one of ``seed`` and ``upload`` is given. Loans come before edits; an edit of no steps is left out."""

    seed: int | None = None
    upload: str | None = None
    loans: tuple[Loan, ...] = ()
    edits: tuple[Instruction, ...] = ()

    @property
    def plain(self) -> Look:
        """The sample itself."""
        return Look(self.seed, self.upload)

    @property
    def unedited(self) -> Look:
        """With its loans, without edits."""
        return replace(self, edits=())


def parse_look(values: Any, boundaries: Mapping[str, Boundary], num_layers: int) -> Look:
    """A look from JSON: ``{"seed": 7, "mix": [{"seed": 5, "layers": [8, 9]}], "edits": [{"concept": "wood",
    "strength": 1.5, "layers": [6, 7]}]}``, with ``"upload": id`` in place of a seed.

    Raises:
        ValueError: anything is missing, of another type, out of range, or given twice.
    """
    values = _mapping(values, "a look")
    seed, upload = values.get("seed"), values.get("upload")
    if (seed is None) == (upload is None):
        raise ValueError("a look starts from either a seed or an upload; got both or neither")
    if upload is not None and not (isinstance(upload, str) and upload.isalnum() and len(upload) <= 64):
        raise ValueError("an upload is named by letters and digits")
    loans = tuple(_loan(entry, num_layers) for entry in _list(values.get("mix", []), "mix", _MOST_LOANS))
    edits = [_edit(entry, boundaries, num_layers) for entry in _list(values.get("edits", []), "edits", _MOST_EDITS)]
    for what, places in (("lent", [loan.layers for loan in loans]), *_by_concept(edits)):
        layers = [layer for place in places for layer in place]
        if len(set(layers)) < len(layers):
            raise ValueError(f"a layer is {what} twice")
    kept = tuple(edit for edit in edits if edit.amount)
    return Look(None if seed is None else parse_seed(seed), upload, loans, kept)


def parse_seed(value: Any) -> int:
    """A sample's number.

    Raises:
        ValueError: not a whole number of 0 … 2³² - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_SEED:
        raise ValueError(f"a seed is a whole number of 0 to {_MOST_SEED}; got {_short(value)}")
    return value


def parse_concept(value: Any, known: Collection[str]) -> str:
    """A concept's name.

    Raises:
        ValueError: not the name of one that is known.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown concept {_short(value)}; api/study names those there are")
    return value


def _loan(entry: Any, num_layers: int) -> Loan:
    values = _mapping(entry, "a loan")
    return Loan(parse_seed(values.get("seed")), _layers(values.get("layers"), num_layers))


def _edit(entry: Any, boundaries: Mapping[str, Boundary], num_layers: int) -> Instruction:
    values = _mapping(entry, "an edit")
    concept, strength = parse_concept(values.get("concept"), boundaries), values.get("strength")
    # Compared before it becomes a float, for which a whole number of JSON may be too large; NaN lies in no bounds.
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not abs(strength) <= _MOST_STEPS:
        raise ValueError(f"a strength is a number of at most {_MOST_STEPS:g} steps either way; got {_short(strength)}")
    return Instruction(concept, float(strength), layers=_layers(values.get("layers"), num_layers))


def _by_concept(edits: Sequence[Instruction]) -> list[tuple[str, list[tuple[int, ...]]]]:
    names = {edit.concept for edit in edits}
    return [(f"edited along {name!r}", [e.layers or () for e in edits if e.concept == name]) for name in sorted(names)]


def _layers(value: Any, num_layers: int) -> tuple[int, ...]:
    found = _list(value, "layers", num_layers)
    if any(isinstance(layer, bool) or not isinstance(layer, int) for layer in found):
        raise ValueError(f"layers are whole numbers; got {_short(value)}")
    check_layers(found, num_layers)
    return tuple(sorted(set(found)))


def _list(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{name} must be a list of at most {most}; got {_short(value)}")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object; got {_short(value)}")  # noqa: TRY004 - of what was sent
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
