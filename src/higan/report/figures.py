"""The paper's figures, drawn again with measured concepts: which codes are edited how, and what stands under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from higan.editing import apply
from higan.report.flows import sankey
from higan.report.pictures import Change, Drawn, Easel, Picture, Strip, difference_uri, mask_uri, picture_uri
from higan.report.study import Entry, Study
from higan.report.words import layer_span, readable, signed
from higan.transitions import travel
from higan.trust import Success, compare, successes
from higan.types import LEVELS, Edit, Placement, SegmentClass, Segmenter
from higan.workbench import open_workbench

__all__ = [
    "CATEGORIES",
    "Photographs",
    "Transition",
    "both_ways",
    "joint",
    "lead",
    "mixing",
    "palette",
    "photographs",
    "stage_grid",
    "transition",
]

CATEGORIES = ("bedroom", "living_room", "dining_room")
"""Names under which scorers know the rooms that Fig. 5 turns into one another."""


def lead(study: Study, easel: Easel, num: int = 5) -> tuple[Strip, ...]:
    """Fig. 1: of every level the strongest verified concept, at its most proper layers, with growing step.

    Shown on the sample of the stock that responds most like the stock does on average.
    """
    strips = []
    for entry in _strongest(study):
        k = _responsive(easel, entry)
        steps = [entry.strength * j / (num - 1) for j in range(num)]
        drawn = _draw(easel, k, [[Edit(entry.boundary, step, entry.stage.layers)] for step in steps])
        labels = ["original", *[""] * (num - 1)]
        pictures = _pictures(easel, drawn, [entry] * num, labels, source=0)
        strips.append(Strip(readable(entry.name), entry.level, _where(entry, easel, k), pictures))
    return tuple(strips)


def stage_grid(study: Study, easel: Easel) -> tuple[Strip, ...]:
    """Fig. 3(c): the same step at every stage in turn and at all layers together; the most proper stage is framed."""
    places = [*study.stages, Placement("all", tuple(range(study.num_layers)))]
    strips = []
    for entry in _strongest(study):
        k = _responsive(easel, entry)
        edits = [[Edit(entry.boundary, entry.strength, place.layers)] for place in places]
        drawn = _draw(easel, k, [[], *edits])
        labels = ["original", *(f"{place.name}, {layer_span(place.layers)}" for place in places)]
        pictures = _pictures(
            easel, drawn, [entry] * len(labels), labels, source=0, framed=1 + entry.best, differences=True
        )
        note = f"{_step(entry)} everywhere · sample {easel.seeds[k]}"
        strips.append(Strip(readable(entry.name), entry.level, note, pictures))
    return tuple(strips)


def both_ways(study: Study, easel: Easel, *, each: int = 3, samples: int = 2) -> tuple[Strip, ...]:
    """Fig. 4(a): attributes and objects, less and more of each, at its most proper layers."""
    strips = []
    for entry in (*study.verified("attribute")[:each], *study.verified("object")[:each]):
        rows = []
        for k in easel.typical([entry.column], samples):
            steps = (-entry.strength, 0.0, entry.strength)
            drawn = _draw(easel, k, [[Edit(entry.boundary, step, entry.stage.layers)] for step in steps])
            rows.append(_pictures(easel, drawn, [entry] * 3, ["less", "original", "more"], source=1))
        strips.append(
            Strip(readable(entry.name), entry.level, _where(entry, easel, None), rows[0], rest=tuple(rows[1:]))
        )
    return tuple(strips)


def joint(study: Study, easel: Easel, *, samples: int = 4) -> tuple[Strip, ...]:
    """Fig. 4(b): layout, objects and attribute, each alone at its most proper layers, then all at once.

    Empty unless at least two of the three levels have a verified concept.
    """
    entries = [found[0] for level in LEVELS[:3] if (found := study.verified(level))]
    if len(entries) < 2:
        return ()
    edits = [Edit(entry.boundary, entry.strength, entry.stage.layers) for entry in entries]
    labels = ["original", *(readable(entry.name) for entry in entries), "together"]
    strips = []
    for k in easel.typical([entry.column for entry in entries], samples):
        drawn = _draw(easel, k, [[], *([edit] for edit in edits), edits])
        pictures = []
        for j, label in enumerate(labels):
            changes = [easel.change(entry.column, drawn.scores[0], drawn.scores[j]) for entry in entries]
            pictures.append(_picture(drawn, j, label, changes if j else []))
        strips.append(Strip("", None, f"sample {easel.seeds[k]}", tuple(pictures)))
    return tuple(strips)


def palette(study: Study, easel: Easel, *, concepts: int = 3, num: int = 5) -> tuple[Strip, ...]:
    """Colour concepts at the last stage, from less to more."""
    last = len(study.stages) - 1
    strips = []
    for entry in study.verified("colour")[:concepts]:
        k = easel.typical([entry.column], 1)[0]
        steps = [entry.strengths[last] * (2 * j / (num - 1) - 1) for j in range(num)]
        drawn = _draw(easel, k, [[Edit(entry.boundary, step, study.stages[last].layers)] for step in steps])
        labels = ["less", *[""] * (num - 2), "more"]
        labels[num // 2] = "original"
        pictures = _pictures(easel, drawn, [entry] * num, labels, source=num // 2)
        note = f"{layer_span(study.stages[last].layers)} · {_step(entry, last)} either way · sample {easel.seeds[k]}"
        strips.append(Strip(readable(entry.name), entry.level, note, pictures))
    return tuple(strips)


def mixing(study: Study, easel: Easel, *, sources: int = 3, donors: int = 4) -> tuple[Strip, ...]:
    """Samples whose last stage follows the code of another sample: style mixing (Karras et al. 2019, Fig. 3).

    Empty where the last stage is the only one. The first row shows the donors.
    """
    donors = min(donors, len(easel.seeds) - 1)
    if len(study.stages) < 2 or donors < 1:
        return ()
    layers = list(study.stages[-1].layers)
    codes = easel.codes[:donors]
    blank = Picture("", "", "original ↓ · colours →")
    stock = easel.stock.images
    lent = [f"sample {easel.seeds[j]}, which lends its code" for j in range(donors)]
    head = tuple(Picture(picture_uri(stock[j]), alt) for j, alt in enumerate(lent))
    rows = [(blank, *head)]
    for k in range(donors, min(donors + sources, len(easel.seeds))):
        mixed = easel.codes[k : k + 1].repeat(donors, 1, 1)
        mixed[:, layers] = codes[:, layers]
        images = easel.draw(mixed).images
        source = Picture(picture_uri(stock[k]), f"sample {easel.seeds[k]}")
        alts = [f"sample {easel.seeds[k]} with the last layers of sample {easel.seeds[j]}" for j in range(donors)]
        rows.append((source, *(Picture(picture_uri(image), alt) for image, alt in zip(images, alts, strict=True))))
    return (Strip("", "colour", layer_span(layers), rows[0], rest=tuple(rows[1:])),)


@dataclass(frozen=True, slots=True)
class Transition:
    """Fig. 5: samples on their way through the categories, their masks, and what became of the objects.

    ``flow`` is the diagram as inline SVG, counted over ``num`` samples; ``legs`` says where and how far each leg goes.
    """

    strips: tuple[Strip, ...]
    classes: tuple[SegmentClass, ...]
    flow: str
    legs: tuple[str, ...]
    num: int


def transition(
    study: Study, easel: Easel, segmenter: Segmenter, *, num: int = 24, samples: int = 2
) -> Transition | None:
    """Fig. 5: rooms that the scorer is surest of, turned into the next category and the one after.

    The same journey as `higan.transitions.travel` takes by default; the ``samples`` that scored highest to begin with
    are shown. None unless two categories are verified and the re-scoring finds layers to edit each at.
    """
    verified = {entry.name: entry for entry in study.verified("object")}
    entries = [verified[name] for name in CATEGORIES if name in verified]
    if len(entries) < 2:
        return None
    bench = open_workbench(study.run, easel.generator, easel.scorer)
    journey = travel(bench, segmenter, [entry.name for entry in entries], num=num, seed=study.run.seed)
    std = easel.std[[entry.column for entry in entries]]
    sigma = (journey.scores - journey.scores[:, :1]) / torch.where(std > 0, std, 1.0)
    names = [readable(entry.name) for entry in entries]
    strips = []
    for k in journey.scores[:, 0, 0].argsort(descending=True, stable=True)[:samples].tolist():
        pictures, masks = [], []
        for t in range(journey.images.shape[1]):
            label = names[t // journey.steps] if t % journey.steps == 0 else ""
            changes = [Change(e.name, e.level, float(sigma[k, t, c])) for c, e in enumerate(entries)] if t else []
            pictures.append(_captioned(journey.images[k, t], label, changes))
            uri = mask_uri(journey.masks[k, t], segmenter.classes)
            masks.append(Picture(uri, f"object classes of picture {t + 1} above"))
        strips.append(Strip("", "object", f"sample {int(journey.seeds[k])}", tuple(pictures), rest=(tuple(masks),)))
    return Transition(
        strips=tuple(strips),
        classes=tuple(segmenter.classes[index] for index in journey.masks.unique().tolist()),
        flow=sankey(journey.mappings, journey.categories),
        legs=tuple(
            f"to {name}: step {leg.strength:.1f} at {layer_span(leg.layers)}"
            for name, leg in zip(names[1:], journey.legs, strict=True)
        ),
        num=len(journey.seeds),
    )


@dataclass(frozen=True, slots=True)
class Photographs:
    """Pictures that the generator did not make, as codes and edited, beside the same edits of samples.

    ``errors`` are in grey levels, ``percentiles`` the share of samples whose code lies nearer to the mean.
    """

    strips: tuple[Strip, ...]
    rows: tuple[tuple[Entry, Success], ...]
    steps: int
    num_samples: int
    errors: tuple[float, ...]
    start_errors: tuple[float, ...]
    percentiles: tuple[float, ...]


def photographs(
    study: Study, easel: Easel, pictures: UInt8[Tensor, "P 3 H W"], *, each: int = 2, steps: int = 240, num: int = 48
) -> Photographs | None:
    """Edit success on inverted pictures beside that on samples; None where nothing is verified.

    The ``each`` strongest concepts of every level, at their most proper layers; the strongest of a level is shown.
    """
    entries = [entry for level in LEVELS for entry in study.verified(level)[:each]]
    if not entries:
        return None
    edits = {entry.name: Edit(entry.boundary, entry.strength, entry.stage.layers) for entry in entries}
    known = [concept.name for concept in easel.scorer.concepts]
    std = torch.full((len(known),), math.nan)  # Edits also move the scores of concepts that were not fitted.
    for column, concept in enumerate(easel.concepts):
        std[known.index(concept.name)] = easel.std[column]
    found = compare(easel.generator, easel.scorer, edits, pictures, std=std, num=num, steps=steps, seed=study.run.seed)
    shown = [k for k, entry in enumerate(entries) if entry.level not in [e.level for e in entries[:k]]]
    strips = []
    for p, inversion in enumerate(found.inversions):
        row = [Picture(picture_uri(pictures[p]), f"photograph {p + 1}", "photograph")]
        row.append(_captioned(found.images[p, 0], "its code", []))
        for e in shown:
            change = Change(entries[e].name, entries[e].level, float(found.inverted[e, found.own[e], p]))
            row.append(_captioned(found.images[p, 1 + e], readable(entries[e].name), [change]))
        strips.append(Strip("", None, f"{inversion.error:.0f} grey levels off", tuple(row)))
    return Photographs(
        strips=tuple(strips),
        rows=tuple(zip(entries, successes(found), strict=True)),
        steps=steps,
        num_samples=num,
        errors=tuple(i.error for i in found.inversions),
        start_errors=tuple(i.start_error for i in found.inversions),
        percentiles=tuple(i.percentile for i in found.inversions),
    )


def _strongest(study: Study) -> list[Entry]:
    return [found[0] for level in LEVELS if (found := study.verified(level))]


def _responsive(easel: Easel, entry: Entry) -> int:
    """The sample of the stock whose score an edit at the most proper layers moves most like it does on average."""
    moved = easel.draw(apply(easel.codes, [Edit(entry.boundary, entry.strength, entry.stage.layers)]))
    change = (moved.scores - easel.stock.scores)[:, entry.column]
    return int((change - change.mean()).abs().argmin())


def _draw(easel: Easel, k: int, variants: Sequence[Sequence[Edit]]) -> Drawn:
    code = easel.codes[k : k + 1]
    return easel.draw(torch.cat([apply(code, edits) if edits else code for edits in variants]))


def _pictures(
    easel: Easel,
    drawn: Drawn,
    entries: Sequence[Entry],
    labels: Sequence[str],
    *,
    source: int,
    framed: int | None = None,
    differences: bool = False,
) -> tuple[Picture, ...]:
    """Every image with the change of its entry's score against the one at ``source``."""
    pictures = []
    for j, (entry, label) in enumerate(zip(entries, labels, strict=True)):
        change = easel.change(entry.column, drawn.scores[source], drawn.scores[j])
        difference = difference_uri(drawn.images[source], drawn.images[j]) if differences and j != source else ""
        pictures.append(
            _picture(drawn, j, label, [change] if j != source else [], framed=j == framed, difference=difference)
        )
    return tuple(pictures)


def _picture(
    drawn: Drawn, j: int, label: str, changes: Sequence[Change], *, framed: bool = False, difference: str = ""
) -> Picture:
    return replace(_captioned(drawn.images[j], label, changes), framed=framed, difference=difference)


def _captioned(image: UInt8[Tensor, "3 H W"], label: str, changes: Sequence[Change]) -> Picture:
    moved = ", ".join(f"{readable(change.name)} {signed(change.sigma)} σ" for change in changes)
    alt = ": ".join(part for part in (label, moved) if part) or "original"
    return Picture(picture_uri(image), alt, label, tuple(changes))


def _step(entry: Entry, stage: int | None = None) -> str:
    at = entry.best if stage is None else stage
    return f"step {entry.strengths[at]:.1f}" + (" (at its limit)" if entry.limited[at] else "")


def _where(entry: Entry, easel: Easel, k: int | None) -> str:
    sample = "" if k is None else f" · sample {easel.seeds[k]}"
    return f"{entry.stage.name}, {layer_span(entry.stage.layers)} · {_step(entry)}{sample}"
