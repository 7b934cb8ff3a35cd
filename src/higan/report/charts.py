"""Charts as SVG, drawn by hand: pure functions from numbers to text.

Colours come from the page's style sheet (``--c`` is the level's colour), so that one drawing serves light, dark and
print. Sizes are chosen so that a chart at its natural width has text of about 12 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from unicodedata import east_asian_width

from higan.hierarchy import Peak, Profile, Shares, peaks
from higan.report.words import LEVEL_NAMES, depth, number, percent, signed
from higan.types import LEVELS, Level

__all__ = ["HeatRow", "effect_bar", "heat_map", "profile_chart", "share_chart", "stage_chart"]


_Number = float | int


def tag(name: str, *children: str, **attributes: str | _Number | None) -> str:
    """One element. ``class_`` means class, ``text_anchor`` text-anchor; children are markup already."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        shown = value if isinstance(value, str) else format(round(value, 1), "g")
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    return f"<{name}{''.join(parts)}>{''.join(children)}</{name}>"


def text(x: _Number, y: _Number, words: str, *, anchor: str = "start", class_: str | None = None) -> str:
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def svg(width: _Number, height: _Number, label: str, *children: str, class_: str = "chart") -> str:
    return tag(
        "svg", *children, class_=class_, role="img", aria_label=label, viewBox=f"0 0 {width:g} {height:g}",
        style=f"--w:{width:g}px",
    )  # fmt: skip


# --- over single layers -----------------------------------------------------------------------------------------------

_LEFT, _PLOT, _ROW, _BARS = 112.0, 336.0, 96.0, 50.0
_TOP, _BOTTOM = 30.0, 40.0


def profile_chart(profile: Profile, stages: Mapping[str, Sequence[int]], missing: Mapping[Level, str]) -> str:
    """Fig. 3(a) over single layers: one row per level, a bar per layer with its interval, the mean layer as a diamond.

    ``missing`` says for every level that is not in the profile what to write in its row.
    """
    num_layers = len(profile.by_layer.names)
    slot = _PLOT / num_layers
    width, height = _LEFT + _PLOT + 12, _TOP + len(LEVELS) * _ROW + _BOTTOM
    top = max(float(profile.by_layer.high.max()), 1e-9) if profile.levels else 1.0
    found = {peak.level: peak for peak in peaks(profile)}
    parts = [_stage_bands(stages, slot, height)]
    for k, level in enumerate(LEVELS):
        base = _TOP + k * _ROW + 20 + _BARS
        if level in found:
            parts.append(_level_row(profile, found[level], base, slot, top))
        else:
            words = [
                text(0, base - 26, LEVEL_NAMES[level], class_="name"),
                tag("line", x1=_LEFT, x2=_LEFT + _PLOT, y1=base, y2=base, class_="axis"),
                text(_LEFT + _PLOT / 2, base - 20, missing.get(level, ""), anchor="middle", class_="soft"),
            ]
            parts.append(tag("g", *words, class_=f"level-{level}"))
    every = max(1, math.ceil(num_layers / 20))
    foot = height - _BOTTOM + 12
    parts += [
        text(_LEFT + (layer + 0.5) * slot, foot, str(layer), anchor="middle", class_="tick")
        for layer in range(0, num_layers, every)
    ]
    parts.append(text(_LEFT, foot + 20, "coarse ←", class_="soft"))
    parts.append(text(_LEFT + _PLOT / 2, foot + 20, "layer", anchor="middle", class_="soft"))
    parts.append(text(_LEFT + _PLOT, foot + 20, "→ fine", anchor="end", class_="soft"))
    return svg(width, height, _spoken(profile, list(found.values())), *parts)


def _stage_bands(stages: Mapping[str, Sequence[int]], slot: _Number, height: _Number) -> str:
    parts = []
    for k, (name, layers) in enumerate(stages.items()):
        x, wide = _LEFT + min(layers) * slot, len(layers) * slot
        if k % 2 == 0:
            parts.append(tag("rect", x=x, y=8, width=wide, height=height - _BOTTOM - 8, class_="band"))
        parts.append(text(x + wide / 2, 22, name, anchor="middle", class_="tick"))
    return tag("g", *parts)


def _level_row(profile: Profile, peak: Peak, base: _Number, slot: _Number, top: _Number) -> str:
    v = profile.levels.index(peak.level)
    mean, low, high = (
        part[v].tolist() for part in (profile.by_layer.mean, profile.by_layer.low, profile.by_layer.high)
    )
    scale = _BARS / top
    parts = [tag("line", x1=_LEFT, x2=_LEFT + _PLOT, y1=base, y2=base, class_="axis")]
    for layer, (m, lo, hi) in enumerate(zip(mean, low, high, strict=True)):
        x = _LEFT + (layer + 0.5) * slot
        words = f"layer {layer}: {percent(m)} of the effect ({percent(lo)} to {percent(hi)})"
        strongest = " peak" if layer == peak.layer else ""
        parts.append(
            tag(
                "rect", tag("title", escape(words)), x=x - slot * 0.36, y=base - m * scale, width=slot * 0.72,
                height=m * scale, class_=f"bar{strongest}",
            )
        )  # fmt: skip
        parts.append(tag("line", x1=x, x2=x, y1=base - lo * scale, y2=base - hi * scale, class_="whisker"))
    at = _LEFT + (peak.layer + 0.5) * slot
    label = f"layer {peak.layer} · {percent(peak.layer_confidence)}"
    half = 3.7 * len(label)
    at = min(max(at, _LEFT + half), _LEFT + _PLOT - half)
    parts.append(text(at, base - high[peak.layer] * scale - 5, label, anchor="middle", class_="label"))
    ends = [float(part[v]) for part in (profile.centre_low, profile.centre, profile.centre_high)]
    a, m, b = (_LEFT + (end + 0.5) * slot for end in ends)
    y = base + 9
    parts.append(tag("line", x1=a, x2=b, y1=y, y2=y, class_="reach"))
    parts.append(tag("path", d=f"M{m:.1f} {y - 5}l5 5-5 5-5-5z", class_="diamond"))
    parts.append(text(0, base - 26, LEVEL_NAMES[peak.level], class_="name"))
    parts.append(text(0, base - 10, _concepts(len(profile.concepts[v])), class_="tick"))
    parts.append(text(0, base + 5, f"mean {depth(ends[1])}", class_="tick"))
    return tag("g", *parts, class_=f"level-{peak.level}")


def _concepts(num: int) -> str:
    return f"{num} concept" + ("" if num == 1 else "s")


def _spoken(profile: Profile, found: Sequence[Peak]) -> str:
    lines = [
        f"{LEVEL_NAMES[peak.level]}: strongest at layer {peak.layer}, in {percent(peak.layer_confidence)} of "
        f"resamples; mean layer {depth(centre)}"
        for peak, centre in zip(found, profile.centre.tolist(), strict=True)
    ]
    return "Share of each level's effect over single layers. " + (". ".join(lines) or "No level could be verified")


# --- over stages ------------------------------------------------------------------------------------------------------


def stage_chart(profile: Profile) -> str:
    """Fig. 3(a) as the paper draws it: the share of every level's effect at each stage, one line per level."""
    return share_chart(profile.levels, profile.by_group)


def share_chart(levels: Sequence[Level], shares: Shares, what: str = "Share of each level's effect over stages") -> str:
    """Shares of V levels at X stages with their intervals, one line per level; ``what`` is said to who cannot see it.

    ``wins`` that are not numbers are not told.
    """
    left, right, top, bottom, width, height = 44.0, 114.0, 24.0, 52.0, 420.0, 340.0
    step = (width - left - right) / max(len(shares.names) - 1, 1)
    xs = [left + 14 + k * (step - 14 / max(len(shares.names) - 1, 1)) for k in range(len(shares.names))]
    most = float(shares.high.max()) if levels else 1.0
    limit = max(0.25, math.ceil(most * 4 - 1e-9) / 4)

    def y(share: _Number) -> _Number:
        return top + (1 - share / limit) * (height - top - bottom)

    parts = []
    for k in range(round(limit * 4) + 1):
        share = k / 4
        parts.append(tag("line", x1=left, x2=width - right, y1=y(share), y2=y(share), class_="grid"))
        parts.append(text(left - 8, y(share) + 4, f"{share * 100:.0f}%", anchor="end", class_="tick"))
    for x, name, layers in zip(xs, shares.names, shares.layers, strict=True):
        span = str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"
        parts.append(text(x, height - bottom + 20, name, anchor="middle", class_="tick strong"))
        parts.append(text(x, height - bottom + 36, span, anchor="middle", class_="tick"))
    parts.append(text(left - 8, height - bottom + 36, "layers", anchor="end", class_="tick"))
    ends = _apart([y(float(mean[-1])) for mean in shares.mean], 15, lowest=y(0))
    for v, level in enumerate(levels):
        parts.append(_stage_line(shares, v, level, xs, y))
        parts.append(
            tag("g", text(width - right + 10, ends[v] + 4, LEVEL_NAMES[level], class_="name"), class_=f"level-{level}")
        )
    spoken = [
        f"{LEVEL_NAMES[level]}: "
        + ", ".join(f"{name} {percent(float(m))}" for name, m in zip(shares.names, shares.mean[v], strict=True))
        for v, level in enumerate(levels)
    ]
    label = f"{what}. " + ("; ".join(spoken) or "No level could be verified")
    return svg(width, height, label, *parts)


def _stage_line(shares: Shares, v: int, level: Level, xs: Sequence[_Number], y: Callable[[_Number], _Number]) -> str:
    mean, low, high = (part[v].tolist() for part in (shares.mean, shares.low, shares.high))
    edge = [*zip(xs, high, strict=True), *reversed([*zip(xs, low, strict=True)])]
    parts = [
        tag("polygon", points=" ".join(f"{x:.1f},{y(s):.1f}" for x, s in edge), class_="spread"),
        tag("polyline", points=" ".join(f"{x:.1f},{y(s):.1f}" for x, s in zip(xs, mean, strict=True)), class_="line"),
    ]
    best = mean.index(max(mean))
    for k, (x, share, name) in enumerate(zip(xs, mean, shares.names, strict=True)):
        words = f"{LEVEL_NAMES[level]}, {name}: {percent(share)} ({percent(low[k])} to {percent(high[k])})"
        if not math.isnan(float(shares.wins[v, k])):
            words += f"; strongest in {percent(float(shares.wins[v, k]))} of resamples"
        parts.append(
            tag(
                "circle", tag("title", escape(words)), cx=x, cy=y(share), r=6 if k == best else 3,
                class_="point peak" if k == best else "point",
            )
        )  # fmt: skip
    return tag("g", *parts, class_=f"level-{level}")


def _apart(ys: Sequence[_Number], gap: _Number, *, lowest: _Number) -> list[_Number]:
    """The same heights, moved a little so that labels do not overlap and none lies below ``lowest``."""
    order = sorted(range(len(ys)), key=lambda k: ys[k])
    placed = list(ys)
    for _ in range(20 * len(ys)):
        for a, b in pairwise(order):
            short = gap - (placed[b] - placed[a])
            if short > 1e-6:
                placed[a] -= short / 2
                placed[b] += short / 2
    below = lowest
    for k in reversed(order):
        placed[k] = min(placed[k], below)
        below = placed[k] - gap
    return placed


# --- one concept ------------------------------------------------------------------------------------------------------


def effect_bar(effect: _Number, low: _Number, high: _Number, null: _Number, longest: _Number) -> str:
    """A bar with its interval and a tick where random directions end; ``longest`` is the value at full width."""
    width, height = 132.0, 20.0
    scale = (width - 4) / longest if longest > 0 else 0.0
    label = f"{number(effect, 2)} standard deviations, {number(low, 2)} to {number(high, 2)}; null {number(null, 2)}"
    middle = height / 2
    return svg(
        width, height, label,
        tag("rect", x=1, y=4, width=effect * scale, height=12, class_="bar"),
        tag("line", x1=1 + low * scale, x2=1 + high * scale, y1=middle, y2=middle, class_="whisker"),
        tag("line", x1=1 + null * scale, x2=1 + null * scale, y1=1, y2=height - 1, class_="null"),
        class_="spark",
    )  # fmt: skip


# --- tables of numbers ------------------------------------------------------------------------------------------------


_LETTERS = 36
"""Of a name in a heat map: as many as the longest of Places365 and SUN have, and a few more."""
_BLOCK = 30
"""Rows after which short column names stand again: of hundreds of rows, the first ones are out of sight."""
_FAINT = 0.2
_FULL = 0.92
"""Above that shade the colour is dark enough, in the dark bright enough, for numbers in the colour of the paper."""


@dataclass(frozen=True, slots=True)
class HeatRow:
    """A row of a heat map; ``found`` says which values are distinguishable from chance, the others are faint.

    ``own`` marks the column that the row itself stands for, if any.
    """

    label: str
    level: Level
    values: tuple[_Number, ...]
    found: tuple[bool, ...]
    own: int | None = None


def heat_map(rows: Sequence[HeatRow], columns: Sequence[str], label: str, *, diverging: bool = False) -> str:
    """Rows × columns of numbers as shades, each with its number; ``label`` is what a screen reader says.

    Shades are of the row's level, compare the cells of that row and leave out what is below zero; where ``diverging``,
    they are of two colours for the two signs and compare all cells. Names too long for a chart are cut off; the whole
    one is told where the pointer rests.
    """
    long = max((_wide(name) for name in columns), default=0) > 3
    cell, tall = (28.0 if long or len(columns) > 8 else 34.0), 24.0
    left = 12 + 6.7 * max((_wide(_short(row.label)) for row in rows), default=0)
    head = 14 + (5.4 * max(_wide(_short(name)) for name in columns) if long else 8)
    overhang = 3.6 * _wide(_short(columns[-1])) if long and columns else 4
    block = len(rows) if long else _BLOCK
    heads = max(math.ceil(len(rows) / max(block, 1)), 1)
    width, height = left + cell * len(columns) + overhang, head * heads + tall * len(rows) + 4
    largest = [max((abs(value) for value in row.values), default=0.0) for row in rows]
    parts = [
        _column_name(name, left + (k + 0.5) * cell, h * (head + block * tall) + head, slanted=long)
        for h in range(heads)
        for k, name in enumerate(columns)
    ]
    for r, row in enumerate(rows):
        y, most = head * (1 + r // block) + r * tall, max(largest) if diverging else largest[r]
        cells = [_name(row.label, x=left - 8, y=y + tall / 2 + 4, text_anchor="end", class_="name")]
        for c, (value, found) in enumerate(zip(row.values, row.found, strict=True)):
            tip = f"{row.label}, {columns[c]}: {signed(value, 2)}" + ("" if found else ", may be chance")
            box, strength = (left + c * cell, y, cell, tall), value / most if most > 0 else 0.0
            cells.append(_cell(box, value, strength, tip, found=found, own=row.own == c, signs=diverging))
        parts.append(tag("g", *cells, class_=f"level-{row.level}"))
    return svg(width, height, label, *parts, class_="chart heat")


def _column_name(name: str, x: _Number, head: _Number, *, slanted: bool) -> str:
    if not slanted:
        return text(x, head - 7, name, anchor="middle", class_="tick")
    turn = f"rotate(-52 {x:.1f} {head - 6:.1f})"
    return _name(name, x=x, y=head - 6, transform=turn, class_="tick")


def _name(name: str, **attributes: str | _Number) -> str:
    """As text, cut off where it is too long, with all of it for whoever points at it."""
    short = _short(name)
    whole = () if short == name else (tag("title", escape(name)),)
    return tag("text", escape(short), *whole, **attributes)


def _short(name: str) -> str:
    wide, kept = 0, ""
    for letter in name:
        wide += _wide(letter)
        if wide > _LETTERS:
            return f"{kept.rstrip()}…"
        kept += letter
    return name


def _wide(name: str) -> int:
    """Room that it takes, in letters; ideographs and emoji take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in name)


def _cell(
    box: tuple[_Number, _Number, _Number, _Number],
    value: _Number,
    strength: _Number,
    tip: str,
    *,
    found: bool,
    own: bool,
    signs: bool,
) -> str:
    x, y, wide, tall = box
    shown = "" if (abs(value) if signs else value) < 0.05 else signed(value) if signs else f"{value:.1f}"
    sign = ("cell minus" if value < 0 else "cell plus") if signs else "cell"
    parts = [tag("title", escape(tip))]
    inner = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": tall - 2}
    parts.append(tag("rect", class_="cell empty", **inner))
    shade = (abs(strength) if signs else max(strength, 0.0)) * (0.95 if found else _FAINT)
    if shade > 0:
        parts.append(tag("rect", class_=sign, fill_opacity=f"{shade:.2f}", **inner))
    if own:
        parts.append(tag("rect", class_="own", **inner))
    tone = "value" + (" inverse" if shade > _FULL else "") + ("" if found else " faded")
    if shown:
        parts.append(text(x + wide / 2, y + tall / 2 + 3.5, shown, anchor="middle", class_=tone))
    return tag("g", *parts)
