"""Charts of the answers, drawn like those of the report."""

from __future__ import annotations

import math

from higan.report.charts import tag
from higan.report.words import percent
from higan.userstudy.analysis import Analysis, Needed
from higan.userstudy.design import CHOICES

__all__ = ["CHOICE_NAMES", "answer_chart", "needed_chart"]

CHOICE_NAMES = {
    "layout": "layout",
    "object": "objects",
    "attribute": "attributes",
    "colour": "colour scheme",
    "nothing": "nothing visible",
}

_Number = float | int


def _words(x: _Number, y: _Number, words: str, anchor: str = "start", class_: str = "tick") -> str:
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def answer_chart(found: Analysis) -> str:
    """Shares of all five answers at every stage, one bar per stage."""
    left, wide, row, top = 64.0, 640.0, 46.0, 26.0
    parts, spoken = [], []
    legend = left
    for choice in CHOICES:
        name = CHOICE_NAMES[choice]
        parts.append(tag("g", tag("rect", x=legend, y=2, width=11, height=11, class_="cell"), class_=_class(choice)))
        parts.append(_words(legend + 16, 12, name))
        legend += 36 + 6.4 * len(name)
    for s, stage in enumerate(found.stages):
        y, x = top + s * row, left
        parts.append(_words(left - 10, y + 21, stage, "end", "strong"))
        said = []
        for a, choice in enumerate(CHOICES):
            share = float(found.shares.mean[s, a])
            if not share > 0:
                continue
            low, high = float(found.shares.low[s, a]), float(found.shares.high[s, a])
            words = f"{CHOICE_NAMES[choice]} {percent(share)} ({percent(low)} to {percent(high)})"
            said.append(words)
            bar = tag("rect", tag("title", f"{stage}: {words}"), x=x, y=y, width=wide * share, height=32, class_="cell")
            label = _words(x + wide * share / 2, y + 20, percent(share), "middle", "value inverse")
            parts.append(tag("g", bar, label if share > 0.05 else "", class_=_class(choice)))
            x += wide * share
        spoken.append(f"{stage}: {', '.join(said) or 'no answers'}")
    height = top + row * len(found.stages)
    return _svg(left + wide + 8, height, "Share of every answer at every stage. " + "; ".join(spoken), parts)


def needed_chart(needed: tuple[Needed, ...], raters: int) -> str:
    """Half the width of the interval of a share against the number of raters, on logarithmic steps of that number."""
    left, right, top, bottom, width, height = 44.0, 20.0, 16.0, 44.0, 420.0, 240.0
    sizes = [n.raters for n in needed]
    span = math.log(sizes[-1] / sizes[0]) or 1.0
    most = max(0.1, math.ceil(max(n.half_width for n in needed) * 10) / 10)

    def x(size: _Number) -> _Number:
        return left + (width - left - right) * math.log(size / sizes[0]) / span

    def y(value: _Number) -> _Number:
        return top + (height - top - bottom) * (1 - value / most)

    parts = []
    for k in range(round(most * 10) + 1):
        parts.append(tag("line", x1=left, x2=width - right, y1=y(k / 10), y2=y(k / 10), class_="grid"))
        parts.append(_words(left - 8, y(k / 10) + 4, f"±{k * 10}%", "end"))
    points = " ".join(f"{x(n.raters):.1f},{y(n.half_width):.1f}" for n in needed)
    line = [tag("polyline", points=points, class_="line")]
    for n in needed:
        words = f"{n.raters} raters: ±{n.half_width * 100:.0f} points; same levels in front {percent(n.same)}"
        line.append(tag("circle", tag("title", words), cx=x(n.raters), cy=y(n.half_width), r=3.5, class_="point"))
        parts.append(_words(x(n.raters), height - bottom + 20, str(n.raters), "middle"))
    parts.append(tag("g", *line, class_="level-layout"))
    if sizes[0] <= raters <= sizes[-1]:
        parts.append(tag("line", x1=x(raters), x2=x(raters), y1=top, y2=height - bottom, class_="null"))
    parts.append(_words((left + width - right) / 2, height - 6, "raters", "middle", "soft"))
    label = "Half the width of the interval against the number of raters. " + "; ".join(
        f"{n.raters}: {n.half_width * 100:.0f} points" for n in needed
    )
    return _svg(width, height, label, parts)


def _class(choice: str) -> str:
    return f"level-{choice}"


def _svg(width: _Number, height: _Number, label: str, parts: list[str]) -> str:
    return tag(
        "svg", *parts, class_="chart", role="img", aria_label=label, viewBox=f"0 0 {width:g} {height:g}",
        style=f"--w:{width:g}px",
    )  # fmt: skip
