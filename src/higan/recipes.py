"""Edits as people write them, and the recipe that a picture carries so that it can be made again.

::

    indoor_lighting=+2              two units of length along the boundary's normal, at the recommended layers
    view_yaw=-1.5@0-1               backwards, at layers 0 and 1
    category:living_room=+3@2-5     ``level:`` in front is optional and checked; ``category:`` says object
    wood=+1.5s                      as many steps as raise the score by 1.5 standard deviations on average
    wood=>2.3    clutter=<0         of every sample, until its score reaches the value from below, or from above

Layers are written as in `higan.layers.parse_layers`; the stages ``bottom``, ``lower``, ``upper`` and ``top`` are words
for them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from higan.errors import CorruptFileError
from higan.layers import groups, parse_layers
from higan.spelling import instead
from higan.types import LEVELS, Boundary, Level

__all__ = [
    "Instruction",
    "Loan",
    "Move",
    "Recipe",
    "Unit",
    "check_consistent",
    "digest_of_normal",
    "format_layers",
    "parse",
]

Unit = Literal["steps", "sigmas", "at least", "at most"]
"""Of an amount: length in code space, as λ is; σ of the score; a score to reach from below or above."""

_FORMAT = "higan-recipe-1"
_NUMBER = r"[+\-−]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_EDIT = re.compile(
    r"(?P<name>[^=\s](?:.*?[^=\s])?)\s*=\s*"
    rf"(?P<reach>[<>])?\s*(?P<amount>{_NUMBER})\s*(?P<sigma>s|σ)?\s*(?:@\s*(?P<layers>.+))?"
)
_LEVEL_WORDS: Mapping[str, Level] = {**{level: level for level in LEVELS}, "category": "object", "color": "colour"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One edit as it was asked for; ``layers`` is None where they are to be recommended."""

    concept: str
    amount: float
    unit: Unit = "steps"
    layers: tuple[int, ...] | None = None
    level: Level | None = None

    def __str__(self) -> str:
        level = f"{self.level}:" if self.level else ""
        amount = {
            "steps": f"{self.amount:+g}",
            "sigmas": f"{self.amount:+g}s",
            "at least": f">{self.amount:g}",
            "at most": f"<{self.amount:g}",
        }[self.unit]
        where = "" if self.layers is None else f"@{format_layers(self.layers)}"
        return f"{level}{self.concept}={amount}{where}"


def parse(text: str, num_layers: int) -> Instruction:
    """An edit from text, see the top of this file.

    Raises:
        ValueError: the text does not follow the pattern, or names layers that do not exist.
    """
    match = _EDIT.fullmatch(text.strip())
    if match is None:
        quoted = "; put it in quotes, for shells take > and < to themselves" if text.endswith("=") else ""
        raise ValueError(
            f"an edit is written as wood=+2, view_yaw=-1.5@0-1, wood=+1.5s or 'wood=>2.3'; cannot read {text!r}{quoted}"
        )
    if match["reach"] and match["sigma"]:
        raise ValueError(f"a score to be reached is given in units of the score, without s; got {text!r}")
    amount = float(match["amount"].replace("−", "-"))
    if not math.isfinite(amount):
        raise ValueError(f"an edit's amount must be finite; got {text!r}")
    word, colon, rest = match["name"].partition(":")
    level = _LEVEL_WORDS.get(word.strip()) if colon else None
    unit: Unit = "sigmas" if match["sigma"] else "steps"
    if match["reach"]:
        unit = "at least" if match["reach"] == ">" else "at most"
    layers = match["layers"]
    return Instruction(
        concept=rest.strip() if level else match["name"].strip(),
        amount=amount,
        unit=unit,
        layers=None if layers is None else parse_layers(layers, num_layers=num_layers, names=groups(num_layers)),
        level=level,
    )


def format_layers(layers: Sequence[int]) -> str:
    """Layers as `higan.layers.parse_layers` reads them: ``0,3-5``."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def check_consistent(
    instructions: Sequence[Instruction], boundaries: Mapping[str, Boundary], conditions: Sequence[str] = ()
) -> None:
    """Refuse edits that cannot be what somebody wants, whatever their order.

    Raises:
        ValueError: an unknown concept or condition, one of another level than written, a concept edited twice on one
            layer, twice at recommended layers, more than one score to be reached, or a concept that is edited and is
            to be left alone.
    """
    for name in (*(i.concept for i in instructions), *conditions):
        if name not in boundaries:
            raise ValueError(f"unknown concept {name!r}; there are boundaries for: {instead(name, boundaries)}")
    for instruction in instructions:
        level = boundaries[instruction.concept].concept.level
        if instruction.level not in (None, level):
            raise ValueError(f"{instruction.concept!r} is of level {level}, not {instruction.level}")
        if instruction.concept in conditions:
            raise ValueError(f"{instruction.concept!r} cannot be edited and left alone; remove one of the two")
    for name, count in Counter(i.concept for i in instructions).items():
        mine = [i for i in instructions if i.concept == name]
        if count > 1 and any(i.layers is None for i in mine):
            raise ValueError(f"{name!r} is edited {count} times; say which layers each edit is for, with @")
        twice = sorted(k for k, n in Counter(k for i in mine for k in set(i.layers or ())).items() if n > 1)
        if twice:
            raise ValueError(f"{name!r} is edited twice at layer {format_layers(twice)}; write one edit for it")
    targets = sorted(i.concept for i in instructions if i.unit in ("at least", "at most"))
    if len(targets) > 1:
        raise ValueError(f"one score at a time can be made to reach a value; got {', '.join(targets)}")


@dataclass(frozen=True, slots=True)
class Move:
    """One edit as it was carried out: ``strength`` steps along the normal with this digest, on these layers."""

    concept: str
    strength: float
    layers: tuple[int, ...]
    normal: str


@dataclass(frozen=True, slots=True)
class Loan:
    """Layers whose code comes from elsewhere (style mixing): the sample of a seed, or a code that has this digest."""

    seed: int | None
    layers: tuple[int, ...]
    codes: str | None = None

    def __post_init__(self) -> None:
        if (self.seed is None) == (self.codes is None):
            raise ValueError("layers are lent by either a seed or a code; got both or neither")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that it takes to make a picture again, bit for bit, with the same weights, boundaries and torch.

    Exactly one of ``seed`` and ``codes`` is given; ``codes`` is the SHA-256 of the code's bytes (float32, L × D), kept
    in a file of their own. Loans come before moves. ``opened`` tells how the generator was opened: its ``label``
    (class), ``noise``, ``precision`` and ``prior``, without what it has no choice of, and what nobody wrote down.
    """

    generator: str
    weights: str
    truncation: tuple[float, ...]
    seed: int | None = None
    codes: str | None = None
    loans: tuple[Loan, ...] = ()
    moves: tuple[Move, ...] = ()
    conditions: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    opened: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if (self.seed is None) == (self.codes is None):
            raise ValueError("a recipe starts from either a seed or a file of codes; got both or neither")

    def to_json(self) -> str:
        """As text; numbers survive exactly."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` wrote.

        Raises:
            CorruptFileError: the text is something else.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != _FORMAT:
                raise CorruptFileError(f"expected a recipe of format {_FORMAT}")
            return cls._from_values(values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptFileError(f"this is not a recipe, or it is damaged: {error}") from error

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> Recipe:
        """Every value is converted to its type, so that a forged file cannot smuggle in anything else."""
        return cls(
            generator=str(values["generator"]),
            weights=str(values["weights"]),
            truncation=tuple(_finite(t) for t in values["truncation"]),
            seed=None if values["seed"] is None else int(values["seed"]),
            codes=None if values["codes"] is None else str(values["codes"]),
            loans=tuple(_loan(loan) for loan in values["loans"]),
            moves=tuple(
                Move(str(m["concept"]), _finite(m["strength"]), _layers(m), str(m["normal"])) for m in values["moves"]
            ),
            conditions=tuple(map(str, values["conditions"])),
            asked=tuple(map(str, values["asked"])),
            # The first recipes do not tell.
            opened={str(choice): str(value) for choice, value in values.get("opened", {}).items()},
        )


def _loan(values: Mapping[str, Any]) -> Loan:
    seed, codes = values["seed"], values.get("codes")
    return Loan(None if seed is None else int(seed), _layers(values), None if codes is None else str(codes))


def _layers(values: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(layer) for layer in values["layers"])


def _finite(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(f"expected a finite number; got {value}")
    return float(value)


def digest_of_normal(boundary: Boundary) -> str:
    """SHA-256 of a boundary's normal in float32, by which a recipe recognises it."""
    return hashlib.sha256(boundary.normal.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
