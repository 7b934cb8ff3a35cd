"""The verb compare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from higan import store, study
from higan.cli.app import app, console, link
from higan.cli.outputs import prepare, room_for
from higan.cli.telling import say_doubts
from higan.comparison import Compared, Reach
from higan.comparison import compare as side_by_side
from higan.files import write_whole
from higan.report.comparepage import FEWEST_DEPTHS, compare_page, pairing
from higan.report.depths import why_missing
from higan.report.words import LEVEL_NAMES, listing, signed


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of two or more finished runs.", metavar="RUN RUN …")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file, with the picture and all tables.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Sets runs side by side: of two generators, two checkpoints of one, or one at two steps."""
    if out is not None:
        prepare(out, ".html")
    runs = _opened(folders)
    rescorings = {name: store.load_rescoring(run) for name, run in runs.items()}
    makings = {name: study.making_of(run, rescorings[name]) for name, run in runs.items()}
    little = [f"{name}: {said}" for name, making in makings.items() for said in study.few_verified(making.rescored)]
    cautions = (*study.cautions(makings, rescorings), *little)
    say_doubts(cautions)
    found = side_by_side(rescorings)
    if out is not None:
        write_whole(room_for(out), compare_page(found, makings, cautions).encode())
    if as_json:
        console.print_json(json.dumps(_without_nan(_record(found, makings, cautions))))
        return
    for table in (_levels(found), _concepts(found), _agreement(found)):
        console.print(table)
    for concept, lacking in found.missing.items():
        console.print(f"{concept}: not in {listing(lacking)}", highlight=False)
    if out is not None:
        console.print("Page:", link(out), highlight=False, soft_wrap=True)


def _opened(folders: Sequence[Path]) -> dict[str, store.Run]:
    """Runs by the name of their folder, or by the whole path where that would name two."""
    if len(folders) < 2:
        raise ValueError(f"compare takes two or more runs; got {', '.join(map(str, folders))} alone")
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for k, folder in enumerate(folders) if places[k] in places[:k]]:
        raise ValueError(f"{twice[0]} is given twice; name every run once")
    names = [place.name for place in places]
    unique = len(set(names)) == len(names)
    return {
        name if unique else str(folder): store.load_run(folder) for name, folder in zip(names, folders, strict=True)
    }


def _record(found: Compared, makings: Mapping[str, study.Making], cautions: Sequence[str]) -> dict[str, Any]:
    return {
        "runs": {name: asdict(making) for name, making in makings.items()},
        "cautions": list(cautions),
        "together": list(found.together),
        "concepts": [asdict(row) for row in found.concepts],
        "missing": {concept: list(lacking) for concept, lacking in found.missing.items()},
        "levels": [asdict(row) for row in found.levels],
        "agreement": [asdict(pair) for pair in found.pairs],
    }


def _without_nan(value: Any) -> Any:
    """What is not known is null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(title: str, caption: str, found: Compared, *heads: str) -> Table:
    """With a column per run, and one per difference from the first."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    first, *later = found.names
    for name in (*found.names, *(f"{name} less {first}" for name in later)):
        table.add_column(name, justify="right")
    return table


def _shown(reach: Reach) -> str:
    if math.isnan(reach.value):
        return "–"
    return f"{reach.value:.2f} ({reach.low:.2f} – {reach.high:.2f})"


def _difference(reach: Reach | None) -> Text:
    """Bold where the interval leaves zero out."""
    if reach is None:
        return Text("–")
    words = f"{signed(reach.value, 2)} ({signed(reach.low, 2)} … {signed(reach.high, 2)})"
    return Text(words, "bold" if reach.low > 0 or reach.high < 0 else "")


def _levels(found: Compared) -> Table:
    caption = (
        "0 the first layer, 1 the last, over the concepts verified there, with 95 % intervals; differences over those "
        f"verified in both. {pairing(found)}."
    )
    table = _table("Mean relative depth of each level", caption, found, "level")
    for row in found.levels:
        depths = [
            why_missing(found.profiles[name], row.level) if depth is None else _shown(depth)
            for name, depth in zip(found.names, row.depths, strict=True)
        ]
        table.add_row(LEVEL_NAMES[row.level], *depths, *map(_difference, row.differences))
    return table


def _concepts(found: Compared) -> Table:
    caption = "In standard deviations of each run's score, with 95 % intervals; *: verified in that run."
    table = _table("Effect of the edit on all layers", caption, found, "concept", "level")
    for row in found.concepts:
        effects = [
            Text(f"{_shown(effect)} *") if verified else Text(f"{_shown(effect)}  ", "dim")
            for effect, verified in zip(row.effects, row.verified, strict=True)
        ]
        table.add_row(row.name, row.level, *effects, *map(_difference, row.differences))
    return table


def _agreement(found: Compared) -> Table:
    table = Table(title="Agreement", title_justify="left")
    table.add_column("pair", overflow="fold")
    for head in ("level profiles, r", "concepts' depths, r", "mean gap of depths", "concepts"):
        table.add_column(head, justify="right")
    for pair in found.pairs:
        name = f"two halves of {pair.one}" if pair.one == pair.other else f"{pair.one} and {pair.other}"
        if pair.agreement is None:
            table.add_row(name, "–", "–", "–", "0")
            continue
        agreed = pair.agreement
        depths = _shown(agreed.depths) if agreed.concepts >= FEWEST_DEPTHS else "–"
        table.add_row(name, _shown(agreed.profiles), depths, _shown(agreed.gap), str(agreed.concepts))
    return table
