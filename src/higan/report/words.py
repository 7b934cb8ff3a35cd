"""Numbers and names as a reader wants them: few digits, true minus signs, spans of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from higan.types import Level

__all__ = [
    "LEVEL_NAMES", "between", "count", "depth", "layer_span", "listing", "number", "percent", "probability", "readable",
    "share", "signed", "sortable",
]  # fmt: skip

LEVEL_NAMES: dict[Level, str] = {
    "layout": "layout",
    "object": "objects",
    "attribute": "attributes",
    "colour": "colour scheme",
}

_MINUS = "\N{MINUS SIGN}"


def number(value: float | int, digits: int = 3) -> str:
    """``digits`` significant digits, never an exponent, at most that many decimals: 1234.5 → 1234, 0.01234 → 0.012."""
    size = abs(value)
    decimals = next((d for d in range(digits) if size >= 10 ** (digits - 1 - d)), digits)
    text = f"{size:.{decimals}f}"
    return _MINUS + text if value < 0 and float(text) != 0 else text


def depth(layer: float | int, decimals: int = 1) -> str:
    """A mean layer. Significant digits would tell whole layers of deep generators, and tenths of the first ten."""
    return f"{layer:.{decimals}f}"


def signed(value: float | int, decimals: int = 1) -> str:
    """With its sign, zero without: +1.8, −0.3, 0.0."""
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else _MINUS) + text


def percent(share: float | int) -> str:
    """A share as whole percent; never 100% or 0% for what is only close to it."""
    if 0.995 <= share < 1:
        return "> 99%"
    if 0 < share < 0.005:
        return "< 1%"
    return f"{share * 100:.0f}%"


def probability(value: float | int) -> str:
    """Three decimals, or that it is smaller."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def share(value: float | int) -> str:
    """Two decimals of a cosine or reliability, a dash where it is not known."""
    return "–" if math.isnan(value) else signed(value, 2).removeprefix("+")


def between(low: float | int, high: float | int) -> str:
    """An interval with signs, two decimals at either end; a dash where it is not known."""
    return "–" if math.isnan(low) or math.isnan(high) else f"{signed(low, 2)} – {signed(high, 2)}"


def sortable(value: float | int) -> float:
    """The value, or less than any where it is not known."""
    return -2.0 if math.isnan(value) else float(value)


def count(num: int, noun: str, plural: str = "") -> str:
    """``1 concept``, ``12,000 samples``."""
    return f"{num:,} {noun if num == 1 else plural or noun + 's'}"


def layer_span(layers: Sequence[int]) -> str:
    """Layers in words: ``layer 3``, ``layers 0–1``, ``layers 0, 2–4``."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    spans = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
    return f"layer{'' if len(layers) == 1 else 's'} {spans}"


def readable(name: str) -> str:
    """A concept's name without underscores."""
    return name.replace("_", " ")


def listing(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
