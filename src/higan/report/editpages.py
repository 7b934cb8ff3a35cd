"""Pages of the verbs that edit: what became of a room on its way to another, and what else an edit changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import torch

from higan.effects import Effects, mean_effects, off_target
from higan.recipes import format_layers
from higan.report.flows import effects_chart, flow_table, kept_table, page, sankey, scrolling
from higan.report.pictures import mask_uri, picture_uri
from higan.report.words import layer_span, listing, number, percent, readable, signed
from higan.transitions import Journey, ObjectMapping, flows, kept
from higan.types import Edit, SegmentClass

__all__ = ["side_effects_page", "transition_page"]

_FIRST = 12


def transition_page(journey: Journey, segmenter: str, *, shown: int = 6) -> str:
    """Fig. 5 of one journey: pictures with their masks, the flow diagram, and tables with intervals."""
    num = min(shown, len(journey.seeds))
    way = f'<div class="strips pixelated">{"".join(_sample(journey, k) for k in range(num))}</div>'
    legend = _legend(journey.mappings[0].classes, torch.unique(journey.masks[:num]).tolist())
    sections = [
        ("On the way", f"<p>{_lead(journey)}</p>{way}{legend}"),
        (
            "What became of the objects",
            f"<p>Every pixel of {len(journey.seeds)} samples, by the class it had and the class it has, in the eyes of "
            f"the segmenter {escape(segmenter)}. Pixels are counted by class, not by object.</p>"
            f"{sankey(journey.mappings, journey.categories)}",
        ),
    ]
    for k, mapping in enumerate(journey.mappings):
        a, b = journey.categories[k], journey.categories[k + 1]
        sections.append((f"{readable(a)} to {readable(b)}", _leg(mapping)))
    return page(" to ".join(map(readable, journey.categories)), *sections)


def _lead(journey: Journey) -> str:
    legs = []
    for k, leg in enumerate(journey.legs):
        stays = {row.name: row for row in kept(journey.mappings[k])}
        told = listing(
            [
                f"{percent(stays[n].share)} ({percent(stays[n].low)} – {percent(stays[n].high)}) of {n}"
                for n in ("stuff", "things")
                if n in stays
            ]
        )
        target, where = readable(journey.categories[k + 1]), layer_span(leg.layers)
        legs.append(f"On the way to the {target} ({signed(leg.strength)} steps at {where}) {told} keep their class.")
    return escape(" ".join(legs))


def _sample(journey: Journey, k: int) -> str:
    classes = journey.mappings[0].classes
    stations = journey.images.shape[1]
    pictures, masks = [], []
    for t in range(stations):
        leg, rest = divmod(t, journey.steps)
        name = readable(journey.categories[leg]) if rest == 0 else "…"
        what = name if rest == 0 else f"after {readable(journey.categories[leg])}"
        pictures.append(
            f'<div class="picture"><img src="{picture_uri(journey.images[k, t])}" '
            f'alt="sample {int(journey.seeds[k])}, {escape(what)}"><span>{escape(name)}</span></div>'
        )
        masks.append(
            f'<div class="picture"><img src="{mask_uri(journey.masks[k, t], classes)}" '
            f'alt="its object classes, {escape(what)}"></div>'
        )
    style = f'style="--n:{stations}"'
    rows = (f'<div class="pictures" {style}>{"".join(row)}</div>' for row in (pictures, masks))
    return f"<div>{''.join(rows)}</div>"


def _legend(classes: Sequence[SegmentClass], present: Sequence[int]) -> str:
    items = (
        f'<li><i style="background:rgb{classes[k].colour}"></i>{escape(readable(classes[k].name))}</li>'
        for k in present
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _leg(mapping: ObjectMapping) -> str:
    changed = sorted((f for f in flows(mapping) if f.source != f.target), key=lambda f: -f.pixels)[:_FIRST]
    head = "<tr><th>was</th><th class='left'>became</th><th>pixels</th><th>share</th><th>95 %</th></tr>"
    rows = "".join(
        f"<tr><th>{escape(readable(f.source.name))}</th><td class='left'>{escape(readable(f.target.name))}</td>"
        f"<td>{number(f.pixels)}</td><td>{percent(f.share)}</td>"
        f"<td class='interval'>{percent(f.low)} – {percent(f.high)}</td></tr>"
        for f in changed
    )
    largest = scrolling(f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>", "The largest changes")
    return (
        f'<div class="charts halves"><div><h3>What stayed in its class</h3>{kept_table(mapping)}</div>'
        f"<div><h3>The largest changes</h3>{largest}</div></div>"
        f"<details><summary>Every flow of at least 0.2 % of a picture</summary>{flow_table(mapping)}</details>"
    )


def side_effects_page(
    variants: Mapping[str, tuple[Effects, Mapping[str, Edit]]], missing: Mapping[str, Sequence[str]], target: float
) -> str:
    """Heat maps of every score under every edit, one per variant, and how little else changes in a table.

    Args:
        variants: by title, effects and the edits behind them; the first two are compared.
        missing: by title, the edits that could not move their own score that far.
        target: by how many standard deviations every edit was to move its own score.
    """
    sections = [("How little else changes", _summary(variants, target))]
    for title, (effects, _) in variants.items():
        label = f"Change of every score under every edit, in standard deviations: {title.lower()}"
        left = missing.get(title, ())
        note = f"<p>Out of reach: {escape(listing([readable(n) for n in left]))}.</p>" if left else ""
        sections.append((title, scrolling(effects_chart(effects, label), title) + note))
    return page("What else an edit changes", *sections)


def _summary(variants: Mapping[str, tuple[Effects, Mapping[str, Edit]]], target: float) -> str:
    cells: dict[str, dict[str, tuple[float, float, Edit]]] = {}
    for title, (effects, edits) in variants.items():
        mean, off = mean_effects(effects), off_target(effects)
        for e, name in enumerate(effects.names):
            cells.setdefault(name, {})[title] = (float(mean[e, effects.own[e]]), float(off[e]), edits[name])
    head = "".join(f"<th>{escape(title.lower())}</th>" for title in variants)
    rows = []
    for name, found in cells.items():
        steps = next(iter(found.values()))[2]
        layers = format_layers(steps.layers)
        shares = "".join(
            f"<td>{number(found[t][1] / found[t][0])}</td>" if t in found and found[t][0] > 0 else "<td>–</td>"
            for t in variants
        )
        rows.append(
            f"<tr><th>{escape(readable(name))}</th><td class='left'>{layers}</td><td>{signed(steps.strength)}</td>"
            f"{shares}</tr>"
        )
    table = (
        "<table><thead><tr><th>edit</th><th class='left'>layers</th><th>steps</th>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        f"<p>Every edit moves its own score by {target:g} standard deviations on average. The last columns are "
        "how far it moves the others (root mean square of their mean changes) for every standard deviation of its own. "
        "In the maps below, rows are edits and columns are scores; numbers are standard deviations, outlined cells are "
        "the edit’s own score, and what is faded may be chance: its 95% interval over samples holds zero.</p>"
        + scrolling(table, "How little else changes")
    )
