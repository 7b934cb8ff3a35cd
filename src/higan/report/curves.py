"""Charts of what depends on the step: scores against λ, and where levels lie under other step modes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from higan.hierarchy import Profile
from higan.report.charts import svg, tag, text
from higan.report.words import LEVEL_NAMES, depth, readable, signed
from higan.types import LEVELS, Level, Responses

__all__ = ["MODE_NAMES", "mode_chart", "response_chart"]

MODE_NAMES = {
    "official": "same step in code space",
    "equal_step": "same step after truncation",
    "equal_change": "same change of the picture",
}

_Number = float | int


def response_chart(responses: Responses, level: Level) -> str:
    """Mean change of up to two concepts of a level against the step, both ways, over the range of random directions.

    Empty where no concept of the level answered.
    """
    chosen = [q for q, concept in enumerate(responses.concepts) if concept.level == level]
    if not chosen:
        return ""
    width, height, left, right, top, bottom = 250.0, 196.0, 34.0, 10.0, 10.0, 34.0
    steps = responses.steps.tolist()
    reach = max(map(abs, steps))
    ends = [responses.low[chosen], responses.high[chosen], responses.null_low[chosen], responses.null_high[chosen]]
    most = _round_up(max(float(end.abs().max()) for end in ends))
    across, tall = width - left - right, height - top - bottom

    def x(step: _Number) -> float:
        return left + (step / reach + 1) / 2 * across

    def y(change: _Number) -> float:
        return top + (1 - (change / most + 1) / 2) * tall

    def line(values: Sequence[_Number]) -> list[tuple[float, float]]:
        """Points with the origin, through which every curve goes."""
        ordered = sorted([*zip(steps, values, strict=True), (0.0, 0.0)])
        return [(x(step), y(value)) for step, value in ordered]

    parts = [tag("line", x1=left, x2=width - right, y1=y(v), y2=y(v), class_="grid") for v in (-most, 0, most)]
    parts += [_words(left - 6, y(v) + 4, _tick(v), "end") for v in (-most, 0, most)]
    parts += [_words(x(s), height - bottom + 16, signed(s, 0) if s else "0", "middle") for s in (-reach, 0, reach)]
    parts.append(_words(x(reach / 2), height - bottom + 16, "step λ →", "middle"))
    parts.append(tag("line", x1=x(0), x2=x(0), y1=top, y2=top + tall, class_="grid"))
    drawn: set[tuple[int, ...]] = set()
    for q in chosen:
        if responses.placements[q].layers not in drawn:
            drawn.add(responses.placements[q].layers)
            parts.append(_band(line(responses.null_low[q].tolist()), line(responses.null_high[q].tolist()), "chance"))
    for k, q in enumerate(chosen):
        means = responses.mean[q].tolist()
        parts.append(_band(line(responses.low[q].tolist()), line(responses.high[q].tolist()), "spread"))
        curve = " ".join(f"{a:.1f},{b:.1f}" for a, b in line(means))
        parts.append(tag("polyline", points=curve, class_="line" if k == 0 else "line dashed"))
        for step, mean in zip(steps, means, strict=True):
            tip = f"{readable(responses.concepts[q].name)}, step {signed(step)}: {signed(mean)} σ"
            parts.append(tag("circle", tag("title", escape(tip)), cx=x(step), cy=y(mean), r=2.6, class_="point"))
    spoken = "; ".join(
        f"{readable(responses.concepts[q].name)} at {responses.placements[q].name}: "
        + ", ".join(f"{signed(s)} gives {signed(m)}" for s, m in zip(steps, responses.mean[q].tolist(), strict=True))
        for q in chosen
    )
    return svg(width, height, f"Mean change in standard deviations against the step. {spoken}", tag(
        "g", *parts, class_=f"level-{level}"
    ))  # fmt: skip


def mode_chart(profiles: Mapping[str, Profile]) -> str:
    """The mean layer of every level under each step mode, with its interval; one group of lines per level."""
    num_layers = max(len(profile.by_layer.names) for profile in profiles.values())
    left, plot, row, gap, top = 110.0, 270.0, 19.0, 16.0, 8.0
    label = 160.0
    levels = [level for level in LEVELS if any(level in profile.levels for profile in profiles.values())]
    height = top + len(levels) * (len(profiles) * row + gap) + 30
    slot = plot / num_layers

    def x(layer: _Number) -> float:
        return left + (layer + 0.5) * slot

    parts, spoken, y = [], [], top
    for level in levels:
        lines = [_text_of_level(y + len(profiles) * row / 2 + 4, level)]
        for mode, profile in profiles.items():
            middle = y + row / 2
            lines.append(tag("line", x1=left, x2=left + plot, y1=middle, y2=middle, class_="axis"))
            lines.append(_words(left + plot + 12, middle + 4, MODE_NAMES.get(mode, mode)))
            if level in profile.levels:
                v = profile.levels.index(level)
                low, mean, high = (float(p[v]) for p in (profile.centre_low, profile.centre, profile.centre_high))
                tip = f"{LEVEL_NAMES[level]}, {MODE_NAMES.get(mode, mode)}: {depth(mean)}"
                lines.append(tag("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="reach"))
                diamond = tag("title", escape(f"{tip} ({depth(low, 2)} to {depth(high, 2)})"))
                lines.append(tag("path", diamond, d=f"M{x(mean):.1f} {middle - 5}l5 5-5 5-5-5z", class_="diamond"))
                spoken.append(tip)
            y += row
        parts.append(tag("g", *lines, class_=f"level-{level}"))
        y += gap
    every = max(1, math.ceil(num_layers / 20))
    parts += [_words(x(layer), y + 8, str(layer), "middle") for layer in range(0, num_layers, every)]
    parts.append(_words(left - 8, y + 8, "layer", "end"))
    spoken_all = "Mean layer by step mode. " + "; ".join(spoken)
    return svg(left + plot + label, height, spoken_all, *parts, class_="chart modes")


def _text_of_level(y: _Number, level: Level) -> str:
    return text(0, y, LEVEL_NAMES[level], class_="name")


def _words(x: _Number, y: _Number, words: str, anchor: str = "start") -> str:
    return text(x, y, words, anchor=anchor, class_="tick")


def _band(low: Sequence[tuple[float, float]], high: Sequence[tuple[float, float]], class_: str) -> str:
    return tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in [*high, *reversed(low)]), class_=class_)


def _tick(value: _Number) -> str:
    """As few decimals as tell the value."""
    return signed(value, next((d for d in range(3) if abs(value) * 10**d % 1 < 1e-9), 2))


def _round_up(value: _Number) -> float:
    """The next of a few round numbers times a power of ten."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * lead for lead in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if size * lead >= value * (1 - 1e-9))
