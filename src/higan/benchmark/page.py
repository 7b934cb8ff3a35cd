"""What a benchmark leaves behind: one page that needs nothing else, its figures as JSON and CSV, its picture as SVG."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from higan.benchmark.picture import MARK_STYLE, family, legend, panel, picture
from higan.benchmark.run import Results, Setting
from higan.benchmark.tasks import TASKS
from higan.report.charts import tag
from higan.report.words import count, listing

__all__ = ["Plate", "headline", "table", "write_benchmark"]


@dataclass(frozen=True, slots=True, eq=False)
class Plate:
    """A row of pictures with what is to be said about it."""

    caption: str
    images: UInt8[Tensor, "n 3 H W"]


def write_benchmark(
    out: str | Path, results: Results, *, plates: Sequence[Plate] = (), provenance: Mapping[str, Any] | None = None
) -> Path:
    """Write ``benchmark`` as ``.html``, ``.json``, ``.csv``, ``.md`` and ``.svg``, each whole or not at all.

    Returns the path of the page.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    made = dict(provenance or {})
    record = {
        "rows": [asdict(row) for row in results.rows],
        "alarms": [
            {"setting": s, "method": m, "false alarms": round(a, 4), "hits": round(h, 4)}
            for (s, m), (a, h) in results.alarms.items()
        ],
        "settings": [
            {"name": s.name, "title": s.title, "exact": s.exact, "seeds": s.seeds, "budget": asdict(s.budget)}
            for s in results.settings
        ],
        "provenance": made,
    }
    _write(folder / "benchmark.json", json.dumps(record, indent=1))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "method", "task", "value", "low", "high"])
    writer.writerows(
        [r.setting, r.method, r.task, f"{r.value:.4f}", f"{r.low:.4f}", f"{r.high:.4f}"] for r in results.rows
    )
    _write(folder / "benchmark.csv", text.getvalue())
    _write(folder / "benchmark.svg", picture(results))
    _write(folder / "benchmark.md", _markdown(results))
    path = folder / "benchmark.html"
    _write(path, _page(results, plates, made))
    return path


def headline(results: Results) -> tuple[tuple[str, str], ...]:
    """Pairs of tasks and winners, over the settings with exact truth; over all if there is none."""
    settings = [s for s in results.settings if s.exact] or list(results.settings)
    won: dict[str, list[str]] = {}
    for task in TASKS.values():
        means = {m: _mean(results, settings, m, task.name) for m in results.methods}
        best = max(value for value in means.values())
        winners = [m for m, value in means.items() if round(value, 2) == round(best, 2)]
        won.setdefault(_gathered(winners, results.methods), []).append(task.name)
    return tuple((listing(tasks), winner) for winner, tasks in won.items())


def _gathered(names: Sequence[str], among: Sequence[str]) -> str:
    """Names in words; variants of one method, written as ``name (variant)``, are gathered."""
    words = []
    for base in dict.fromkeys(name.partition(" (")[0] for name in names):
        mine, every = ([n for n in some if n.partition(" (")[0] == base] for some in (names, among))
        if len(mine) == 1:
            words.append(mine[0])
        elif len(mine) == len(every):
            words.append(f"{base} ({'both' if len(mine) == 2 else f'all {len(mine)}'})")
        else:
            words.append(f"{base} ({listing([n.partition(' (')[2].rstrip(')') or 'plain' for n in mine])})")
    return listing(words)


def _mean(results: Results, settings: Sequence[Setting], method: str, task: str) -> float:
    found = [results.figure(s.name, method, task) for s in settings]
    values = [row.value for row in found if row is not None]
    return sum(values) / len(values) if len(values) == len(settings) else float("-inf")


@dataclass(frozen=True, slots=True)
class _Cell:
    value: str
    interval: str
    best: bool


@dataclass(frozen=True, slots=True)
class _Line:
    method: str
    family: str
    cells: tuple[_Cell, ...]
    alarms: str


def table(results: Results, setting: Setting) -> tuple[_Line, ...]:
    """A line per method: every task's figure with its interval; the best of a task, and what rounds to it, marked."""
    best = {}
    for task in TASKS:
        found = [r.value for r in results.rows if r.setting == setting.name and r.task == task]
        best[task] = round(max(found), 2) if found else 0.0
    lines = []
    for method in results.methods:
        cells = []
        for task in TASKS:
            row = results.figure(setting.name, method, task)
            if row is not None:
                interval = f"({_two(row.low)}–{_two(row.high)})"
                cells.append(_Cell(_two(row.value), interval, round(row.value, 2) == best[task]))
        pair = results.alarms.get((setting.name, method))
        told = "" if pair is None else f"{100 * pair[0]:.1f} % / {100 * pair[1]:.0f} %"
        if cells:
            lines.append(_Line(method, family(method), tuple(cells), told))
    return tuple(lines)


def _markdown(results: Results) -> str:
    head = ["method", *TASKS, "false alarms / hits"]
    parts = []
    for setting in results.settings:
        seeds = count(len(setting.seeds), "seed")
        known = "" if setting.exact else ", estimated truth"
        rows = [head, ["---"] * len(head)]
        for line in table(results, setting):
            figures = [f"{f'**{c.value}**' if c.best else c.value} {c.interval}" for c in line.cells]
            rows.append([line.method, *figures, line.alarms])
        body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        parts.append(f"{setting.title[0].upper()}{setting.title[1:]}, {seeds}{known}\n\n{body}\n")
    return "\n".join(parts)


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _page(results: Results, plates: Sequence[Plate], provenance: Mapping[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("higan.benchmark") / "template.html").read_text("utf-8"))
    key = legend(results.settings)
    shape = {"class_": "chart", "viewBox": f"0 0 440 {60 + 20 * len(results.settings)}", "style": "--w:440px"}
    told = f"Settings, a mark for each: {', '.join(setting.title for setting in results.settings)}"
    return template.render(
        headline=headline(results),
        counts=f"{len(results.methods)} ways to find directions, {len(TASKS)} tasks, known answers",
        style=Markup((files("higan.report") / "style.css").read_text("utf-8") + MARK_STYLE),
        plates=[{"caption": p.caption, "uris": [_uri(image) for image in p.images]} for p in plates],
        panels=[Markup(panel(results, task)) for task in TASKS.values()],
        legend=Markup(tag("svg", key, **shape, role="img", aria_label=told)),
        settings=results.settings,
        tables={s.name: table(results, s) for s in results.settings},
        tasks=list(TASKS.values()),
        provenance=provenance,
    )


def _uri(image: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
