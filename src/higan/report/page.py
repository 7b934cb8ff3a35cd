"""The report: a run folder as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from torch import Tensor

from higan.files import write_whole
from higan.population import sample_seeds
from higan.report import figures, words
from higan.report.cells import cells_csv, samples_taken
from higan.report.charts import HeatRow, effect_bar, heat_map, profile_chart, stage_chart
from higan.report.curves import MODE_NAMES, mode_chart, response_chart
from higan.report.pictures import Easel
from higan.report.study import LIMIT, TARGET, Entry, Study, study
from higan.store import Run
from higan.study import mostly_ties, steps_of
from higan.trial import check_same
from higan.types import LEVELS, Generator, Level, Scorer, Segmenter

__all__ = ["Progress", "write_report"]

Progress = Callable[[int, int], None]
"""Called with figures done and figures in total."""

_STOCK = 24
_MOST_SIDE_EFFECTS = 12
_SMALL = 48
_MOST_ROWS = 60
"""Longer tables scroll by themselves, so that what follows is not screens away."""


def write_report(
    run: Run,
    generator: Generator,
    scorer: Scorer,
    path: Path | None = None,
    *,
    segmenter: Segmenter | None = None,
    photographs: UInt8[Tensor, "P 3 H W"] | None = None,
    seeds: Sequence[int] | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Draw the report of a finished run; the same run and models give the same bytes.

    Some 160 images are drawn, with a segmenter 200 more, and scored for its pictures.

    Args:
        run: holds population, boundaries and re-scoring.
        generator: the run's generator, for the pictures.
        scorer: the run's scorer; every edited picture is scored again.
        path: where to; ``report.html`` in the run folder by default. Written whole or not at all, and beside it, as
            ``.csv``, every cell of the re-scoring (`higan.report.cells`).
        segmenter: adds masks of a category transition, if the scorer knows bedrooms, living and dining rooms.
        photographs: pictures of the generator's resolution, to be inverted and edited beside samples; takes minutes
            where the generator is large.
        seeds: samples to draw pictures from, at least one; by default 24 that neither probing nor re-scoring used.
        minutes: how long the study took, to be told.
        progress: called after every figure.

    Raises:
        RunError: a step of the study has not been done, or a file is damaged.
        RunMismatchError: generator or scorer draw or score the run's first sample otherwise.
        ValueError: the generator has other layers than the run's, or no seeds.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    path = run.path / "report.html" if path is None else Path(path)
    found = study(run)
    _check_generator(found, generator)
    check_same(run, generator, scorer)
    origin = "fresh" if seeds is None else "chosen"
    if seeds is None:
        used = {int(seed) for seed in found.rescoring.seeds}
        fresh = sample_seeds(len(used) + _STOCK, seed=run.seed, purpose="verify")
        seeds = [int(seed) for seed in fresh if int(seed) not in used][:_STOCK]
    easel = Easel(generator, scorer, found.rescoring.concepts, found.rescoring.score_std, seeds)
    plans: dict[str, Callable[[], Any]] = {
        "lead": lambda: figures.lead(found, easel),
        "stage_grid": lambda: figures.stage_grid(found, easel),
        "both_ways": lambda: figures.both_ways(found, easel),
        "joint": lambda: figures.joint(found, easel),
        "palette": lambda: figures.palette(found, easel),
        "mixing": lambda: figures.mixing(found, easel),
        "transition": lambda: figures.transition(found, easel, segmenter) if segmenter else None,
        "photographs": lambda: figures.photographs(found, easel, photographs) if photographs is not None else None,
    }
    drawn: dict[str, Any] = {}
    for done, (name, draw) in enumerate(plans.items(), 1):
        drawn[name] = draw()
        if progress is not None:
            progress(done, len(plans))
    drawn |= {"minutes": minutes, "stock": len(seeds), "origin": origin}
    # The table first: a page that is there has what it names beside it.
    write_whole(path.with_suffix(".csv"), cells_csv(found.rescoring, found.table).encode())
    write_whole(path, _render(found, generator, scorer, drawn).encode())
    return path


def _check_generator(found: Study, generator: Generator) -> None:
    width = found.entries[0].boundary.normal.shape[-1]
    if (generator.num_layers, generator.code_dim) != (found.num_layers, width):
        raise ValueError(
            f"the run was made with a generator of {found.num_layers} layers and codes of width {width}; "
            f"{generator.name!r} has {generator.num_layers} and {generator.code_dim}"
        )


# --- what the template is given ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the ranked table."""

    entry: Entry
    bar: Markup


def _render(found: Study, generator: Generator, scorer: Scorer, drawn: Mapping[str, Any]) -> str:
    """``drawn`` holds the figures and what else the template names that the run does not say."""
    folder = files("higan.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=words.number,
        depth=words.depth,
        signed=words.signed,
        percent=words.percent,
        probability=words.probability,
        readable=words.readable,
        share=words.share,
        between=words.between,
        sortable=words.sortable,
        span=words.layer_span,
        count=words.count,
    )
    taken = samples_taken(found.rescoring)
    template = environment.from_string(folder.joinpath("template.html").read_text("utf-8"))
    return template.render(
        style=Markup(folder.joinpath("style.css").read_text("utf-8")),
        script=Markup(folder.joinpath("sort.js").read_text("utf-8")),
        study=found,
        headline=_headline(found.sentence),
        rescoring=found.rescoring,
        levels=LEVELS,
        level_names=words.LEVEL_NAMES,
        missing=_missing(found),
        generator=generator,
        scorer=scorer,
        target=TARGET,
        most_rows=_MOST_ROWS,
        limit=LIMIT,
        pixelated=generator.resolution < _SMALL,
        profile_chart=Markup(profile_chart(found.profile, {s.name: s.layers for s in found.stages}, _missing(found))),
        stage_chart=Markup(stage_chart(found.profile)),
        layer_map=Markup(_layer_map(found)),
        rows=_rows(found),
        doubts=mostly_ties(found.run),
        side_effects_shown=_MOST_SIDE_EFFECTS,
        side_effects=[Markup(chart) for chart in _side_effects(found)],
        curves=_curves(found),
        mode_chart=Markup(mode_chart(found.modes)) if len(found.modes) > 1 and found.profile.levels else None,
        mode_rows=_mode_rows(found),
        cells=_cells(found),
        fewest=int(taken.min()),
        early=float((taken < len(found.rescoring.seeds)).float().mean()),
        permuted=found.rescoring.permuted is not None,
        num_permuted=0 if found.rescoring.permuted is None else len(found.rescoring.permuted),
        mode_name=MODE_NAMES.get(found.rescoring.step_mode, found.rescoring.step_mode),
        settings=_flat({**found.run.settings, **_settings_of_steps(found.run)}),
        provenance=_flat(found.run.provenance),
        command=found.run.provenance.get("command"),
        **drawn,
    )


def _settings_of_steps(run: Run) -> dict[str, Any]:
    """With what every step was last taken, but for what it repeats of the steps before it."""
    steps = steps_of(run)
    return {
        name: {key: value for key, value in step.get("settings", {}).items() if key not in steps}
        for name, step in steps.items()
    }


def _headline(sentence: str) -> Markup:
    """The finding with the levels in their colours, and what stands in brackets set smaller."""
    main, bracket, rest = sentence.partition(" (")
    text = str(escape(main))
    for level, name in words.LEVEL_NAMES.items():
        text = text.replace(name, f'<span class="level-{level} level">{name}</span>')
    return Markup(text + (f" <small>({escape(rest)}</small>" if bracket else ""))


def _missing(found: Study) -> dict[Level, str]:
    """What to say of the levels that are not in the profile."""
    said: dict[Level, str] = {}
    for level in LEVELS:
        if level in found.profile.levels:
            continue
        tried = found.tried(level)
        if found.verified(level):
            said[level] = "verified, but no single layer moves it"
        elif tried:
            said[level] = f"none of {words.count(tried, 'concept')} verified"
        else:
            said[level] = "no concept tried"
    return said


def _rows(found: Study) -> list[_Row]:
    longest = max(max(e.verdict.effect_high, e.verdict.effect) for e in found.entries)
    std = found.rescoring.score_std.tolist()
    rows = []
    for entry in found.entries:
        v = entry.verdict
        null = v.null / std[entry.column] if std[entry.column] > 0 else 0.0
        rows.append(_Row(entry, Markup(effect_bar(v.effect, v.effect_low, v.effect_high, null, longest))))
    return rows


@dataclass(frozen=True, slots=True)
class _Curve:
    """A panel of the response curves: its level, chart and the concepts in the order of their lines."""

    level: Level
    chart: Markup
    names: tuple[str, ...]


def _curves(found: Study) -> list[_Curve]:
    if found.comparison is None:
        return []
    responses = found.comparison.responses
    panels = []
    for level in LEVELS:
        names = tuple(
            f"{words.readable(concept.name)}, {place.name}"
            for concept, place in zip(responses.concepts, responses.placements, strict=True)
            if concept.level == level
        )
        if names:
            panels.append(_Curve(level, Markup(response_chart(responses, level)), names))
    return panels


def _mode_rows(found: Study) -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """Of every mode that was matched to the picture: the step at each single layer and the change it made there."""
    if found.comparison is None:
        return []
    rows = []
    for mode, result in found.comparison.modes.items():
        if result.steps is None or result.image_changes is None:
            continue
        names = [placement.name for placement in result.placements]
        at = [names.index(f"layer {layer}") for layer in range(found.num_layers)]
        steps = tuple(float(result.steps[p, layer]) for layer, p in enumerate(at))
        rows.append((MODE_NAMES.get(mode, mode), steps, tuple(result.image_changes[at].tolist())))
    return rows


def _cells(found: Study) -> list[tuple[Entry, tuple[tuple[float, bool], ...]]]:
    """Of every concept q at every placement, and whether it is verified there."""
    q, verified = found.table.q.tolist(), found.table.verified.tolist()
    return [(e, tuple(zip(q[e.column], verified[e.column], strict=True))) for e in found.entries]


def _layer_map(found: Study) -> str:
    rows = [
        HeatRow(words.readable(entry.name), entry.level, entry.by_layer, entry.layer_found)
        for level in LEVELS
        for entry in found.entries
        if entry.level == level
    ]
    columns = [str(layer) for layer in range(found.num_layers)]
    best = "; ".join(
        f"{words.readable(entry.name)}: layer {entry.layer}" for entry in found.entries if entry.verdict.verified
    )
    label = f"Effect of every concept's edit at every single layer, in standard deviations. Strongest layers: {best}"
    return heat_map(rows, columns, label)


def _side_effects(found: Study) -> list[str]:
    """Two maps, concept edited × score that moved: all layers at once, and every edit at its most proper layers."""
    shown = sorted(found.verified()[:_MOST_SIDE_EFFECTS], key=lambda entry: LEVELS.index(entry.level))
    if len(shown) < 2:
        return []
    names = [words.readable(entry.name) for entry in shown]
    columns = [entry.column for entry in shown]
    always = (True,) * len(shown)
    by_place = {place: found.effects(place) for place in {"all", *(entry.stage.name for entry in shown)}}
    maps = []
    for places in (["all"] * len(shown), [entry.stage.name for entry in shown]):
        rows = [
            HeatRow(name, entry.level, tuple(by_place[place][entry.column, columns].tolist()), always, own=k)
            for k, (name, entry, place) in enumerate(zip(names, shown, places, strict=True))
        ]
        where = "at all layers" if places[0] == "all" and len(set(places)) == 1 else "at its most proper layers"
        label = f"Mean change of every score (columns) when a concept (rows) is edited {where}, in standard deviations"
        maps.append(heat_map(rows, names, label, diverging=True))
    return maps


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as name and value, one line each."""
    lines: list[tuple[str, str]] = []
    for key, value in sorted(mapping.items()):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name} · ")
        elif isinstance(value, list | tuple):
            lines.append((name, ", ".join(map(str, value))))
        else:
            lines.append((name, "–" if value is None else str(value)))
    return lines
