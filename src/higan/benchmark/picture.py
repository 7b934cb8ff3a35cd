"""The benchmark in one picture: a panel per task, a row per method, a mark with its interval per setting."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from higan.benchmark.run import Results, Row, Setting
from higan.benchmark.tasks import TASKS, Task
from higan.report.charts import tag

__all__ = ["family", "panel", "picture"]

_Number = float | int

_LEFT, _PLOT, _LINE, _TOP, _BOTTOM = 178.0, 250.0, 7.0, 34.0, 26.0

_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c1d21; }
.tick, .soft { fill: #5d616b; font-size: 11px; } .title { font-weight: 650; font-size: 13px; }
.grid { stroke: #e2e3e7; } .band { fill: #f5f5f3; } .paper { fill: #fff; }
.ours { --c: #0435b1; } .supervised { --c: #b05200; } .unsupervised { --c: #14805a; } .luck { --c: #5d616b; }
"""

_MARKS = """
.mark { fill: var(--c); } .hollow { fill: var(--paper, #fff); stroke: var(--c); stroke-width: 1.6; }
.reach { stroke: var(--c); stroke-width: 1.6; opacity: .45; fill: none; }
"""

MARK_STYLE = (
    _MARKS
    + """
.ours { --c: var(--layout); } .supervised { --c: var(--object); } .unsupervised { --c: var(--attribute); }
.luck { --c: var(--soft); } svg .title { font-weight: 650; font-size: 13px; }
"""
)
"""For the page, whose style sheet has the colours."""


def family(method: str) -> str:
    """What kind of method a name belongs to, which is its colour: ours, supervised, unsupervised or luck."""
    if method.startswith("ours"):
        return "ours"
    if method.startswith("random"):
        return "luck"
    return "unsupervised" if method.startswith(("SeFa", "PCA")) else "supervised"


def panel(results: Results, task: Task) -> str:
    """One task as an SVG."""
    body, width, height = _panel(results, task)
    return tag(
        "svg", body, class_="chart", role="img", aria_label=_spoken(results, task), viewBox=f"0 0 {width:g} {height:g}",
        style=f"--w:{width:g}px",
    )  # fmt: skip


def picture(results: Results) -> str:
    """All tasks and the legend as one SVG file with its own style, for pages that have none."""
    panels = [_panel(results, task) for task in TASKS.values()]
    _, width, height = panels[0]
    columns, gap = 2, 26.0
    rows = -(-(len(panels) + 1) // columns)
    total = (columns * width + gap + 24, rows * (height + gap) + 12)
    parts = [tag("rect", width=total[0], height=total[1], class_="paper")]
    for k in range(len(panels) + 1):
        x, y = 12 + (k % columns) * (width + gap), 12 + (k // columns) * (height + gap)
        inner = panels[k][0] if k < len(panels) else legend(results.settings)
        parts.append(f'<g transform="translate({x:g} {y:g})">{inner}</g>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]:g} {total[1]:g}" width="{total[0]:g}">'
    return f"{head}<style>{_STYLE}{_MARKS}</style>{''.join(parts)}</svg>\n"


def legend(settings: Sequence[Setting]) -> str:
    """Which mark is which setting."""
    parts = [_text(0, 12, "Settings", class_="title")]
    for k, setting in enumerate(settings):
        y = 34.0 + 20 * k
        words = setting.title + ("" if setting.exact else " (estimated truth)")
        parts += [tag("g", _mark(k, settings, 8, y - 4), class_="luck"), _text(22, y, words)]
    y = 34.0 + 20 * len(settings) + 8
    parts.append(_text(0, y + 4, "Bars are 95 % intervals over seeds and concepts.", class_="soft"))
    return tag("g", *parts)


def _panel(results: Results, task: Task) -> tuple[str, float, float]:
    lines = len(results.settings)
    row = _LINE * lines + 12
    width, height = _LEFT + _PLOT + 16, _TOP + row * len(results.methods) + _BOTTOM
    found = [r for r in results.rows if r.task == task.name]
    lowest = min(0.0, *(r.low for r in found))
    bottom = -1.0 if lowest < -0.5 else -0.5 if lowest < 0 else 0.0

    def x(value: float) -> float:
        return _LEFT + (max(value, bottom) - bottom) / (1 - bottom) * _PLOT

    parts = [_text(0, 12, task.question, class_="title"), _text(_LEFT + _PLOT, 26, task.metric, "end", "tick")]
    for k in range(0, len(results.methods), 2):
        parts.append(tag("rect", x=0, y=_TOP + k * row, width=width, height=row, class_="band"))
    ticks = [bottom + k * 0.25 for k in range(round((1 - bottom) * 4) + 1)]
    end = _TOP + row * len(results.methods)
    for value in ticks:
        parts.append(tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=end, class_="grid"))
        parts.append(_text(x(value), end + 15, f"{value:g}".replace("-", "\N{MINUS SIGN}"), "middle", "tick"))
    for m, method in enumerate(results.methods):
        y = _TOP + m * row
        marks = [_text(4, y + row / 2 + 4, method)]
        for k, setting in enumerate(results.settings):
            figure = results.figure(setting.name, method, task.name)
            if figure is not None:
                marks.append(_whisker(figure, setting, x, y + 6 + _LINE * (k + 0.5), k, results.settings))
        parts.append(tag("g", *marks, class_=family(method)))
    return "".join(parts), width, height


def _whisker(row: Row, setting: Setting, x: object, y: float, k: int, settings: Sequence[Setting]) -> str:
    assert callable(x)
    tip = f"{row.method}, {setting.title}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
    line = tag("line", x1=x(row.low), x2=x(row.high), y1=y, y2=y, class_="reach")
    return tag("g", tag("title", escape(tip)), line, _mark(k, settings, x(row.value), y))


def _mark(k: int, settings: Sequence[Setting], x: _Number, y: _Number) -> str:
    """Circles that grow with the order of exact settings, a square where the truth is estimated, hollow if shuffled."""
    setting = settings[k]
    kind = "mark hollow" if "shuffled" in setting.name else "mark"
    if not setting.exact:
        return tag("rect", x=x - 3.4, y=y - 3.4, width=6.8, height=6.8, class_=kind)
    return tag("circle", cx=x, cy=y, r=2.2 + 0.6 * min(k, 3), class_=kind)


def _text(x: _Number, y: _Number, words: str, anchor: str = "start", class_: str | None = None) -> str:
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_)


def _spoken(results: Results, task: Task) -> str:
    parts = []
    for method in results.methods:
        values = [results.figure(s.name, method, task.name) for s in results.settings]
        told = ", ".join(
            f"{s.title} {v.value:.2f}" for s, v in zip(results.settings, values, strict=True) if v is not None
        )
        parts.append(f"{method}: {told}")
    return f"{task.question} {task.metric}. " + "; ".join(parts)
