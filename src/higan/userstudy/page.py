"""The analysis as one HTML file that fetches nothing, and as tables for other programs."""

from __future__ import annotations

import csv
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from higan.files import write_whole
from higan.hierarchy import Shares
from higan.report import words
from higan.report.charts import share_chart
from higan.types import LEVELS
from higan.userstudy.analysis import FEWEST, Analysis, Estimate
from higan.userstudy.answers import Answers
from higan.userstudy.charts import CHOICE_NAMES, answer_chart, needed_chart
from higan.userstudy.design import CHOICES, Design
from higan.userstudy.folder import Expected
from higan.userstudy.table import to_csv

__all__ = ["estimates_csv", "headline", "write_analysis"]

_NARROW, _SURE = 0.1, 0.8


def headline(found: Analysis) -> str:
    """One sentence: what people say changes at each stage, and whether the re-scoring says the same."""
    who = "Simulated raters" if found.simulated else "People"
    where = {
        level: [stage for stage, named in zip(found.stages, found.comparison.people, strict=True) if named == level]
        for level in dict.fromkeys(found.comparison.people)
        if level is not None
    }
    seen = [f"{words.LEVEL_NAMES[level]} at {words.listing(stages)}" for level, stages in where.items()]
    if not seen:
        named = float(found.shares.mean[:, : len(LEVELS)].sum()) > 0
        return (
            f"{who} "
            + ("name no single level most often" if named else "see no change of any level")
            + " at any stage."
        )
    known = [level for level in found.comparison.rescoring if level is not None]
    beside = (
        f"; the re-scoring says the same at {found.comparison.matches} of {words.count(len(known), 'stage')}"
        if known
        else ""
    )
    return f"{who} most often name {words.listing(seen)}{beside}."


def write_analysis(found: Analysis, answers: Answers, path: str | Path) -> tuple[Path, Path, Path]:
    """Write the page, and beside it every answer and every estimate as CSV.

    Tables of simulated raters have ``simulated`` in their names; those of a page that is not called ``analysis.html``
    begin with its name, so that pages of several studies may lie side by side.

    Returns:
        Paths of the page, of the answers and of the estimates.
    """
    path = Path(path)
    suffix = "-simulated" if found.simulated else ""
    own = path.stem.removesuffix("-simulated")
    prefix = "" if own == "analysis" else f"{own}-"
    tables = path.with_name(f"{prefix}answers{suffix}.csv"), path.with_name(f"{prefix}estimates{suffix}.csv")
    counted = {rater.number: bool(kept) for rater, kept in zip(found.ratings.raters, found.screening.kept, strict=True)}
    write_whole(path, _render(found, answers).encode())
    # A byte-order mark, by which spreadsheets know that the text is UTF-8.
    write_whole(tables[0], ("\ufeff" + to_csv(answers, counted)).encode())
    write_whole(tables[1], ("\ufeff" + estimates_csv(found, answers.study.design)).encode())
    return path, *tables


def estimates_csv(found: Analysis, design: Design) -> str:
    """Every estimate of the page: table, row, column, value and the ends of its interval.

    ``raters`` says ``simulated`` or ``people`` in every row.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(["raters", "table", "row", "column", "value", "low", "high"])
    who = "simulated" if found.simulated else "people"

    def table(name: str, rows: tuple[str, ...], columns: tuple[str, ...], estimate: Estimate) -> None:
        shape = (len(rows), len(columns))
        parts = [part.reshape(shape) for part in (estimate.mean, estimate.low, estimate.high)]
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                values = [float(part[r, c]) for part in parts]
                writer.writerow([who, name, row, column, *("" if np.isnan(v) else f"{v:.6g}" for v in values)])

    table("share of answers", found.stages, CHOICES, found.shares)
    table("spread over stages", LEVELS, found.stages, found.spreads)
    table("mean stage", LEVELS, ("all",), found.centre)
    if found.named is not None:
        table("names the level followed", design.sources, found.stages, found.named)
    agreement, compared = found.agreement, found.comparison
    single = [
        ("alpha of edits", agreement.edits, agreement.interval),
        ("alpha of catch trials", agreement.catches, None),
        ("rank correlation with the re-scoring", compared.correlation, compared.interval),
        ("p of the rank correlation", compared.p, None),
        ("chance of a random rater to be kept", found.screening.chance, None),
    ]
    for name, value, interval in single:
        ends = interval or ("", "")
        writer.writerow([who, name, "", "", "" if value is None else f"{value:.6g}", *ends])
    for needed in found.needed:
        writer.writerow([who, "half width", needed.raters, "raters", f"{needed.half_width:.6g}", "", ""])
        writer.writerow([who, "same levels in front", needed.raters, "raters", f"{needed.same:.6g}", "", ""])
    return file.getvalue()


def _render(found: Analysis, answers: Answers) -> str:
    study, folder = answers.study, files("higan.userstudy")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=_percent, count=words.count, number=_number, span=words.layer_span)
    template = environment.from_string(folder.joinpath("analysis.html").read_text("utf-8"))
    screening = found.screening
    raters = list(zip(found.ratings.raters, screening.passed, screening.seen, screening.kept, strict=True))
    return template.render(
        style=Markup(files("higan.report").joinpath("style.css").read_text("utf-8")),
        study=study,
        found=found,
        headline=headline(found),
        choices=CHOICES,
        choice_names=CHOICE_NAMES,
        level_names=words.LEVEL_NAMES,
        levels=LEVELS,
        people_chart=Markup(_people_chart(found)),
        rescoring_chart=Markup(_rescoring_chart(study.expected, study.design)),
        answer_chart=Markup(answer_chart(found)),
        needed_chart=Markup(needed_chart(found.needed, int(screening.kept.sum()))) if found.needed else "",
        fewest=FEWEST,
        raters=raters,
        kept=int(screening.kept.sum()),
        narrow=next((n.raters for n in found.needed if n.half_width <= _NARROW), None),
        sure=next((n.raters for n in found.needed if n.same >= _SURE), None),
    )


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else words.percent(float(share))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _people_chart(found: Analysis) -> str:
    rows = [v for v in range(len(LEVELS)) if np.isfinite(found.spreads.mean[v]).all()]
    parts = [
        torch.from_numpy(np.ascontiguousarray(p[rows]))
        for p in (found.spreads.mean, found.spreads.low, found.spreads.high)
    ]
    layers = tuple(found.ratings.design.stages.values())
    shares = Shares(found.stages, layers, parts[0], parts[1], parts[2], torch.full_like(parts[0], torch.nan))
    who = "simulated raters" if found.simulated else "people"
    return share_chart([LEVELS[v] for v in rows], shares, f"Where {who} name each level: share over stages")


def _rescoring_chart(expected: Expected, design: Design) -> str:
    shape = (len(expected.levels), len(expected.stages))
    mean, low, high = (
        torch.tensor(part, dtype=torch.float64).reshape(shape) for part in (expected.mean, expected.low, expected.high)
    )
    layers = tuple(design.stages[stage] for stage in expected.stages)
    shares = Shares(expected.stages, layers, mean, low, high, torch.full_like(mean, torch.nan))
    return share_chart(expected.levels, shares)
