"""Sets of layers and their names: ``0,3-5``, the paper's four stages, the placements an edit is tried at."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from higan.types import Placement

__all__ = ["check_layers", "groups", "parse_layers", "placements"]

_STAGES: Mapping[int, tuple[str, ...]] = {1: ("bottom",), 2: ("bottom", "top"), 3: ("bottom", "lower", "top")}
_FOUR_STAGES = ("bottom", "lower", "upper", "top")
_STAGE_STARTS = (0, 2 / 14, 6 / 14, 12 / 14)
_MOST_LAYERS = 10_000


def groups(num_layers: int) -> dict[str, tuple[int, ...]]:
    """The paper's four stages (section 3.1, Fig. 3c) as layers, coarse to fine.

    With 14 layers they are 0-1, 2-5, 6-11 and 12-13. Other depths are cut at the same fractions, 1/7, 3/7 and 6/7,
    rounded to whole resolutions (pairs of layers) where there are at least four of them, else to whole layers; no stage
    is empty. One, two or three layers make as many stages.

    Raises:
        ValueError: there is no layer.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1; got {num_layers}")
    if num_layers < 4:
        return {name: (layer,) for layer, name in enumerate(_STAGES[num_layers])}
    unit = 2 if num_layers % 2 == 0 and num_layers >= 8 else 1
    total = num_layers // unit
    # From four on these are four different ones.
    starts = [int(fraction * total + 0.5) for fraction in _STAGE_STARTS]
    ends = [*starts[1:], total]
    return {
        name: tuple(range(start * unit, end * unit))
        for name, start, end in zip(_FOUR_STAGES, starts, ends, strict=True)
    }


def placements(num_layers: int) -> tuple[Placement, ...]:
    """All layers together, every single layer, every stage: ``all``, ``layer 0`` …, ``bottom`` …"""
    everywhere = Placement("all", tuple(range(num_layers)))
    single = (Placement(f"layer {layer}", (layer,)) for layer in range(num_layers))
    stages = (Placement(name, layers) for name, layers in groups(num_layers).items())
    return (everywhere, *single, *stages)


def check_layers(layers: Collection[int], num_layers: int) -> None:
    """Refuse an empty set of layers and layers that do not exist.

    Raises:
        ValueError: ``layers`` is empty or goes beyond 0 … L-1.
    """
    if not layers:
        raise ValueError(f"an edit needs at least one layer of 0-{num_layers - 1}; got none")
    wrong = sorted({layer for layer in layers if not 0 <= layer < num_layers})
    if wrong:
        raise ValueError(f"layers go from 0 to {num_layers - 1}; got {', '.join(map(str, wrong))}")


def parse_layers(
    text: str, *, num_layers: int | None = None, names: Mapping[str, Collection[int]] | None = None
) -> tuple[int, ...]:
    """Layers written as ``0,3-5``: comma-separated, ranges inclusive; sorted, each once.

    ``names`` may give words that stand for layers, such as `groups`. With ``num_layers`` the result is checked.

    Raises:
        ValueError: the text is empty or malformed, a range runs backwards, a layer does not exist.
    """
    names = names or {}
    last = _MOST_LAYERS - 1 if num_layers is None else num_layers - 1
    found: set[int] = set()
    for part in (piece.strip() for piece in text.split(",")):
        if part in names:
            found.update(names[part])
            continue
        match = re.fullmatch(r"([0-9]+)(?:\s*-\s*([0-9]+))?", part)
        if match is None:
            known = f", or one of {', '.join(names)}" if names else ""
            raise ValueError(f"layers are written as 0,3-5{known}; cannot read {part!r} in {text!r}")
        first, stop = int(match[1]), int(match[2] or match[1])
        if stop < first:
            raise ValueError(f"a range of layers goes upwards; got {part!r}, did you mean {stop}-{first}?")
        if stop > last:
            raise ValueError(f"layers go from 0 to {last}; got {part!r}")
        found.update(range(first, stop + 1))
    if num_layers is not None:
        check_layers(found, num_layers)
    return tuple(sorted(found))
