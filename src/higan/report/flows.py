"""Drawings of edits and transitions as pages of their own: who became whom, and what else an edit changed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from higan.effects import Effects, distinguishable, effect_interval, mean_effects
from higan.report.charts import HeatRow, heat_map, tag
from higan.report.words import number, percent, readable
from higan.transitions import Flow, ObjectMapping, flows, kept

__all__ = ["effects_chart", "flow_table", "kept_table", "page", "sankey", "scrolling"]

_HEIGHT, _COLUMN, _BAR, _GAP, _TOP = 420.0, 300.0, 16.0, 7.0, 34.0


def sankey(mappings: Sequence[ObjectMapping], stations: Sequence[str], *, least: float = 0.004) -> str:
    """Fig. 5, bottom: a column per station, a band for every class that became another, as inline SVG.

    Args:
        mappings: one per leg, over the same samples.
        stations: names of the columns, one more than there are legs.
        least: flows of less than this share of all pixels are not drawn.

    Raises:
        ValueError: no legs, another number of names, or legs that do not fit each other.
    """
    if not mappings or len(stations) != len(mappings) + 1:
        raise ValueError(f"{len(mappings)} legs have {len(mappings) + 1} stations; got {len(stations)} names")
    if any(m.classes != mappings[0].classes or len(m) != len(mappings[0]) for m in mappings):
        raise ValueError("all legs must be over the same samples and classes")
    classes = mappings[0].classes
    totals = [m.counts.sum(0).double() for m in mappings]
    pixels = float(totals[0].sum())
    sizes = [(total.sum(1) / pixels).tolist() for total in totals] + [(totals[-1].sum(0) / pixels).tolist()]
    shown = [k for k in range(len(classes)) if max(size[k] for size in sizes) >= least]
    scale = _HEIGHT - _GAP * max(len(shown) - 1, 0)
    tops = [_stack([size[k] * scale for k in shown]) for size in sizes]
    parts = []
    for leg, total in enumerate(totals):
        left, right = dict(zip(shown, tops[leg], strict=True)), dict(zip(shown, tops[leg + 1], strict=True))
        x0, x1 = leg * _COLUMN + _BAR, (leg + 1) * _COLUMN
        for a in shown:
            for b in shown:
                share = float(total[a, b]) / pixels
                thick = share * scale
                if share >= least:
                    words = f"{readable(classes[a].name)} → {readable(classes[b].name)}: {percent(share)} of all pixels"
                    parts.append(_band(x0, left[a], x1, right[b], thick, classes[a].colour, words))
                left[a] += thick
                right[b] += thick
    for s, size in enumerate(sizes):
        for k, top in zip(shown, tops[s], strict=True):
            parts.append(_bar(s * _COLUMN, top, size[k] * scale, classes[k].colour, classes[k].name, size[k]))
        x = s * _COLUMN + _BAR / 2
        parts.append(tag("text", escape(readable(stations[s])), x=x, y=20, text_anchor="middle", class_="strong"))
    label = "What became of the objects: " + "; ".join(_spoken(m, s) for m, s in zip(mappings, stations, strict=False))
    width = len(mappings) * _COLUMN + _BAR
    return tag(
        "svg", *parts, class_="chart sankey", role="img", aria_label=label,
        viewBox=f"-120 0 {width + 240:g} {_TOP + _HEIGHT + 10:g}", style=f"--w:{width + 240:g}px",
    )  # fmt: skip


def _stack(heights: Sequence[float]) -> list[float]:
    tops, y = [], _TOP
    for height in heights:
        tops.append(y)
        y += height + _GAP
    return tops


def _rgb(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]},{colour[1]},{colour[2]})"


def _band(x0: float, y0: float, x1: float, y1: float, thick: float, colour: tuple[int, int, int], words: str) -> str:
    middle = (x0 + x1) / 2
    path = (
        f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}v{thick:.1f}"
        f"C{middle:.1f} {y1 + thick:.1f} {middle:.1f} {y0 + thick:.1f} {x0:.1f} {y0 + thick:.1f}z"
    )
    return tag("path", tag("title", escape(words)), d=path, fill=_rgb(colour), fill_opacity=".45")


def _bar(x: float, y: float, height: float, colour: tuple[int, int, int], name: str, share: float) -> str:
    words = f"{readable(name)}: {percent(share)} of all pixels"
    parts = [
        tag(
            "rect", tag("title", escape(words)), x=x, y=y, width=_BAR, height=max(height, 1), fill=_rgb(colour),
            stroke="currentColor", stroke_opacity=".35", stroke_width=".6",
        )
    ]  # fmt: skip
    left = x == 0
    if height >= 4:
        at = x - 6 if left else x + _BAR + 6
        anchor = "end" if left else "start"
        parts.append(tag("text", escape(readable(name)), x=at, y=y + height / 2 + 4, text_anchor=anchor, class_="tick"))
    return "".join(parts)


def _spoken(mapping: ObjectMapping, station: str) -> str:
    stays = {row.name: row.share for row in kept(mapping)}
    told = [f"{percent(stays[name])} of {name}" for name in ("stuff", "things") if name in stays]
    return f"from {readable(station)}, {' and '.join(told)} keep their class"


def flow_table(mapping: ObjectMapping, *, least: float = 0.002) -> str:
    """Who became whom, as an HTML table with 95 % intervals over samples."""
    rows = [_flow_row(flow) for flow in flows(mapping, least=least)]
    head = "<tr><th>was</th><th class='left'>became</th><th>pixels per picture</th><th>share</th><th>95 %</th></tr>"
    return scrolling(f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>", "Who became whom")


def _flow_row(flow: Flow) -> str:
    source, target = escape(readable(flow.source.name)), escape(readable(flow.target.name))
    same = ' class="out"' if flow.source == flow.target else ""
    return (
        f"<tr{same}><th>{source} <small>{flow.source.kind}</small></th><td class='left'>{target}</td>"
        f"<td>{number(flow.pixels)}</td><td>{percent(flow.share)}</td>"
        f"<td class='interval'>{percent(flow.low)} – {percent(flow.high)}</td></tr>"
    )


def kept_table(mapping: ObjectMapping) -> str:
    """What stayed in its class, as an HTML table with 95 % intervals over samples."""
    rows = [
        f"<tr><th>{escape(readable(row.name))}</th><td>{percent(row.share)}</td>"
        f"<td class='interval'>{percent(row.low)} – {percent(row.high)}</td></tr>"
        for row in kept(mapping)
    ]
    head = "<tr><th>class</th><th>kept</th><th>95 %</th></tr>"
    return scrolling(f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>", "What stayed in its class")


def effects_chart(effects: Effects, label: str) -> str:
    """The side-effect matrix as a heat map: rows are edits, columns concepts; faded where it may be chance."""
    mean = mean_effects(effects)
    found = distinguishable(effect_interval(effects))
    rows = [
        HeatRow(
            readable(name),
            effects.concepts[effects.own[e]].level,
            tuple(mean[e].tolist()),
            tuple(found[e].tolist()),
            own=effects.own[e],
        )
        for e, name in enumerate(effects.names)
    ]
    return heat_map(rows, [readable(c.name) for c in effects.concepts], label, diverging=True)


def scrolling(markup: str, label: str, *, wide: bool = False) -> str:
    """What may be wider than the page in a box that scrolls by itself: by keys too, and with a name to be read out."""
    names = "wide scroll" if wide else "scroll"
    return f'<div class="{names}" tabindex="0" role="group" aria-label="{escape(label)}">{markup}</div>'


def page(title: str, *sections: tuple[str, str]) -> str:
    """Headings with markup as one HTML file that needs nothing else, in the report's style."""
    style = files("higan.report").joinpath("style.css").read_text("utf-8")
    body = "".join(f"<section><h2>{escape(head)}</h2>{markup}</section>" for head, markup in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )
