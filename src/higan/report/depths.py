"""Levels of several runs over depth, one under the other."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from higan.hierarchy import Profile
from higan.report.charts import svg, tag, text
from higan.report.words import LEVEL_NAMES, percent
from higan.types import LEVELS, Level

__all__ = ["depth_chart", "why_missing"]

_LEFT, _PLOT, _NAMES = 112.0, 400.0, 190.0
_BARS, _ROW, _GAP = 30.0, 50.0, 18.0
_LETTERS = 26


def depth_chart(profiles: Mapping[str, Profile]) -> str:
    """The share profile of every level in each run, from the first layer to the last, the mean layer as a diamond.

    A layer takes its part of the depth, and the area of its bar is its share, so that runs of other numbers of layers
    can be compared; bars of one level have one scale.
    """
    parts, spoken, y = [], [], 6.0
    for level in LEVELS:
        found = {name: profile for name, profile in profiles.items() if level in profile.levels}
        top = max((_density(profile, level) for profile in found.values()), default=1.0)
        rows = [text(0, y + len(profiles) * _ROW / 2, LEVEL_NAMES[level], class_="name")]
        for name, profile in profiles.items():
            base = y + _BARS + 6
            rows.append(tag("line", x1=_LEFT, x2=_LEFT + _PLOT, y1=base, y2=base, class_="axis"))
            # Names of runs often differ at their ends alone.
            label = name if len(name) <= _LETTERS else f"{name[: _LETTERS // 2]}…{name[-_LETTERS // 2 :]}"
            rows.append(tag("text", escape(label), tag("title", escape(name)), x=_LEFT + _PLOT + 12, y=base - 8))
            if name in found:
                rows += _bars(profile, level, base, _BARS / top)
                rows += _centre(name, profile, level, base + 8)
                spoken.append(f"{LEVEL_NAMES[level]} in {name} at {_depths(profile, level)[1]:.2f}")
            else:
                middle = _LEFT + _PLOT / 2
                rows.append(text(middle, base - 8, why_missing(profile, level), anchor="middle", class_="soft"))
            y += _ROW
        parts.append(tag("g", *rows, class_=f"level-{level}"))
        y += _GAP
    foot = y + 2
    parts.append(text(_LEFT, foot, "first layer", class_="soft"))
    parts.append(text(_LEFT + _PLOT, foot, "last layer", anchor="end", class_="soft"))
    words = "Share of each level's effect over depth. Mean relative depth: " + ("; ".join(spoken) or "none verified")
    return svg(_LEFT + _PLOT + _NAMES, foot + 10, words, *parts, class_="chart modes")


def why_missing(profile: Profile, level: Level) -> str:
    """What to write where a level that the profile lacks would stand."""
    if level in profile.untried:
        return "none tried"
    return "moved by no single layer" if level in profile.unplaced else "none verified"


def _density(profile: Profile, level: Level) -> float:
    """The largest share, with its interval, per unit of depth."""
    high = profile.by_layer.high[profile.levels.index(level)]
    return max(float(high.max()) * len(high), 1e-9)


def _bars(profile: Profile, level: Level, base: float, scale: float) -> list[str]:
    v, num_layers = profile.levels.index(level), len(profile.by_layer.names)
    slot, scale = _PLOT / num_layers, scale * num_layers
    shares = profile.by_layer
    parts = []
    for layer, (mean, low, high) in enumerate(
        zip(shares.mean[v].tolist(), shares.low[v].tolist(), shares.high[v].tolist(), strict=True)
    ):
        x = _LEFT + (layer + 0.5) * slot
        tip = f"layer {layer}: {percent(mean)} of the effect ({percent(low)} to {percent(high)})"
        parts.append(
            tag(
                "rect", tag("title", escape(tip)), x=x - slot * 0.42, y=base - mean * scale, width=slot * 0.84,
                height=mean * scale, class_="bar",
            )
        )  # fmt: skip
        parts.append(tag("line", x1=x, x2=x, y1=base - low * scale, y2=base - high * scale, class_="whisker"))
    return parts


def _centre(name: str, profile: Profile, level: Level, y: float) -> list[str]:
    num_layers, v = len(profile.by_layer.names), profile.levels.index(level)
    ends = [float(part[v]) for part in (profile.centre_low, profile.centre, profile.centre_high)]
    a, m, b = (_LEFT + (end + 0.5) * _PLOT / num_layers for end in ends)
    low, depth, high = _depths(profile, level)
    tip = f"{LEVEL_NAMES[level]}, {name}: mean relative depth {depth:.2f} ({low:.2f} to {high:.2f})"
    return [
        tag("line", x1=a, x2=b, y1=y, y2=y, class_="reach"),
        tag("path", tag("title", escape(tip)), d=f"M{m:.1f} {y - 5}l5 5-5 5-5-5z", class_="diamond"),
    ]


def _depths(profile: Profile, level: Level) -> tuple[float, float, float]:
    """Lower end, mean and upper end as relative depth."""
    v, last = profile.levels.index(level), max(len(profile.by_layer.names) - 1, 1)
    low, mean, high = (float(part[v]) / last for part in (profile.centre_low, profile.centre, profile.centre_high))
    return low, mean, high
