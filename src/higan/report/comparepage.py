"""Runs side by side as a page of its own: the picture first, then tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

from higan.comparison import Agreement, Compared, ConceptRow, LevelRow, Pair, Reach
from higan.report.charts import effect_bar
from higan.report.depths import depth_chart, why_missing
from higan.report.flows import page, scrolling
from higan.report.words import LEVEL_NAMES, count, listing, number, readable, signed
from higan.study import Making

__all__ = ["FEWEST_DEPTHS", "compare_page", "made_rows", "pairing"]

FEWEST_DEPTHS = 3
"""Concepts from which on a correlation of their depths says something: two always correlate."""


def compare_page(found: Compared, makings: Mapping[str, Making], cautions: Sequence[str]) -> str:
    """One HTML file that needs nothing else: what differs, the profiles over depth, and every figure in tables.

    Args:
        found: the runs' re-scorings side by side.
        makings: how each was made, by the same names.
        cautions: what keeps them from being compared without more ado, see `higan.study.cautions`.
    """
    return page(
        f"{listing(found.names)} side by side",
        ("Where each level lies", _warnings(cautions) + _differing(makings) + _picture(found)),
        ("Levels", _levels(found)),
        ("Concepts", _concepts(found)),
        ("Agreement", _agreement(found)),
        ("How they were made", _made(makings)),
    )


def _warnings(cautions: Sequence[str]) -> str:
    return "".join(f'<p class="absent">{escape(caution)}</p>' for caution in cautions)


def _differing(makings: Mapping[str, Making]) -> str:
    rows = [(head, cells) for head, cells in made_rows(makings) if len(set(cells)) > 1]
    told = "; ".join(f"{head} ({', '.join(cells)})" for head, cells in rows)
    return f"<p>{escape(f'They differ in {told}.' if told else 'They were made alike.')}</p>"


def made_rows(makings: Mapping[str, Making]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What a comparison hangs on, a line for each, a word for each run."""
    all_of = makings.values()
    nulls = tuple(f"{m.num_random} random, {m.num_permuted} shuffled" for m in all_of)
    return (
        ("generator", _told_apart([m.generator.name for m in all_of], [m.generator.digests for m in all_of])),
        ("layers", tuple(str(m.num_layers) for m in all_of)),
        ("generator's choices", tuple(_truncated(m.generator.choices) for m in all_of)),
        ("scorer", _told_apart([m.scorer.name for m in all_of], [m.scorer.digests for m in all_of])),
        ("step λ", tuple(f"{m.step:g}" for m in all_of)),
        ("λ / σ of codes", tuple("unknown" if m.sigmas != m.sigmas else f"{m.sigmas:.2f}" for m in all_of)),
        ("step mode", tuple(m.step_mode for m in all_of)),
        ("samples probed", tuple(f"{m.probed:,}" for m in all_of)),
        ("samples re-scored", tuple(f"{'up to ' if m.adaptive else ''}{m.rescored:,}" for m in all_of)),
        ("seed", tuple(str(m.seed) for m in all_of)),
        ("null directions", nulls),
        ("fit", tuple(m.fit or "unknown" for m in all_of)),
    )


def _told_apart(names: Sequence[str], digests: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """With the beginning of their digests, where one name stands for several files."""
    if len(set(names)) == len(set(digests)) or not all(digests):
        return tuple(names)
    return tuple(f"{name} {' '.join(part[:8] for part in of)}" for name, of in zip(names, digests, strict=True))


def _truncated(choices: Sequence[str]) -> str:
    return "; ".join(choice for choice in choices if not choice.startswith("num_layers")) or "–"


def pairing(found: Compared) -> str:
    """Whose differences are paired, in words."""
    first, *later = found.names
    paired = [name for name, together in zip(later, found.together, strict=True) if together]
    single = [name for name in later if name not in paired]
    parts = []
    if paired:
        parts.append(f"{listing(paired)} moved the samples of {first}, which are drawn again in pairs")
    if single:
        parts.append(f"{listing(single)} moved others than {first}, drawn again independently")
    return "; ".join(parts)


def _picture(found: Compared) -> str:
    return (
        f'<figure class="wide">{scrolling(depth_chart(found.profiles), "Share of effect over the layers")}'
        "<figcaption>Share of each level’s effect over the layers; areas are shares, whiskers 95 % intervals. The "
        "diamond is the mean layer with its interval.</figcaption></figure>"
    )


def _table(label: str, heads: Sequence[str], rows: Sequence[str], left: int = 1) -> str:
    head = "".join(f"<th{' class=left' if k < left else ''}>{escape(words)}</th>" for k, words in enumerate(heads))
    table = f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return scrolling(table, label, wide=True)


def _interval(reach: Reach, decimals: int = 2) -> str:
    if math.isnan(reach.value):
        return "–"
    return f"{reach.value:.{decimals}f} <small>({reach.low:.{decimals}f} – {reach.high:.{decimals}f})</small>"


def _difference(reach: Reach | None, over: str = "") -> str:
    if reach is None:
        return "<td>–</td>"
    sure = reach.low > 0 or reach.high < 0
    value = f"<b>{signed(reach.value, 2)}</b>" if sure else signed(reach.value, 2)
    return f"<td>{value} <small>({signed(reach.low, 2)} … {signed(reach.high, 2)}){over}</small></td>"


def _heads(found: Compared) -> list[str]:
    first, *later = found.names
    return [*found.names, *(f"{name} less {first}" for name in later)]


def _levels(found: Compared) -> str:
    return (
        "<p>Mean relative depth of each level: 0 the first layer, 1 the last, over the concepts verified in that run. "
        f"A difference is over the concepts verified in both; {escape(pairing(found))}. Differences whose 95 % "
        "interval leaves zero out are bold.</p>"
        + _table("Levels", ["level", *_heads(found)], [_level(row, found) for row in found.levels])
    )


def _level(row: LevelRow, found: Compared) -> str:
    depths = "".join(
        f"<td>{why_missing(found.profiles[name], row.level)}</td>"
        if depth is None
        else f"<td>{_interval(depth)} <small>{escape(count(len(concepts), 'concept'))}</small></td>"
        for name, depth, concepts in zip(found.names, row.depths, row.concepts, strict=True)
    )
    differences = "".join(
        _difference(reach, f" {count(len(shared), 'concept')}")
        for reach, shared in zip(row.differences, row.shared, strict=True)
    )
    return (
        f'<tr><th><span class="level level-{row.level}">{LEVEL_NAMES[row.level]}</span></th>{depths}{differences}</tr>'
    )


def _concepts(found: Compared) -> str:
    longest = max(max(effect.high, effect.value) for row in found.concepts for effect in row.effects)
    missing = "".join(
        f"<li>{escape(readable(name))}: not in {escape(listing(lacking))}</li>"
        for name, lacking in found.missing.items()
    )
    left_out = f"<h3>Not in all runs</h3><ul>{missing}</ul>" if missing else ""
    return (
        "<p>Effect of the edit at all layers, in standard deviations of the score in that run, with its 95 % interval; "
        "dashed where random directions end on average, faint where it is not verified. Intervals are each for one "
        "concept chosen beforehand: of many differences one in twenty leaves zero out by chance.</p>"
        + _table(
            "Concepts", ["concept", "level", *_heads(found)], [_concept(row, longest) for row in found.concepts], 2
        )
        + left_out
    )


def _concept(row: ConceptRow, longest: float) -> str:
    effects = "".join(
        f"<td{'' if verified else ' class=soft'}>{effect_bar(effect.value, effect.low, effect.high, null, longest)}"
        f"{_interval(effect)}{'' if verified else ' <small>not verified</small>'}</td>"
        for effect, null, verified in zip(row.effects, row.nulls, row.verified, strict=True)
    )
    differences = "".join(_difference(reach) for reach in row.differences)
    return (
        f'<tr class="level-{row.level}{"" if any(row.verified) else " out"}"><th>{escape(readable(row.name))}</th>'
        f'<td class="left level">{LEVEL_NAMES[row.level]}</td>{effects}{differences}</tr>'
    )


def _agreement(found: Compared) -> str:
    heads = ["pair", "level profiles, r", "names exchanged: mean; best", "concepts’ depths, r", "mean gap", "concepts"]
    return (
        "<p>Correlation of the level profiles over eighths of depth, and of the mean depths of the concepts that both "
        "have verified. Two halves of the samples of one run are the most that two runs can agree; profiles with the "
        "names of the levels exchanged are the least.</p>"
        + _table("Agreement", heads, [_pair(pair) for pair in found.pairs])
    )


def _pair(pair: Pair) -> str:
    name = f"two halves of {pair.one}" if pair.one == pair.other else f"{pair.one} and {pair.other}"
    cells = ["–"] * 4 + ["0"] if pair.agreement is None else _agreement_cells(pair.agreement)
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _agreement_cells(found: Agreement) -> list[str]:
    floor = f"{number(fmean(found.exchanged), 2)}; {number(max(found.exchanged), 2)}" if found.exchanged else "–"
    depths = _interval(found.depths) if found.concepts >= FEWEST_DEPTHS else "–"
    return [_interval(found.profiles), floor, depths, _interval(found.gap), str(found.concepts)]


def _made(makings: Mapping[str, Making]) -> str:
    rows = [
        f"<tr><th>{escape(head)}</th>{''.join(f'<td class=told>{escape(cell)}</td>' for cell in cells)}</tr>"
        for head, cells in made_rows(makings)
    ]
    return _table("How they were made", ["", *makings], rows)
