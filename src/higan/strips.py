"""Rows of edited pictures with captions: sweeps, both ways (Fig. 4a), joint edits (Fig. 4b), layers (Fig. 3c)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.editing import apply
from higan.layers import placements
from higan.population import sample, score
from higan.recipes import Instruction, format_layers
from higan.types import Edit
from higan.workbench import Workbench, draw, plan

__all__ = ["Strip", "folded", "grid_strip", "joint_strip", "parse_sweep", "starts", "sweep_strip"]


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Pictures row by row, one row per sample; ``columns`` names the columns, ``captions`` tells every picture.

    ``codes`` are those of the pictures, in the same order.
    """

    images: UInt8[Tensor, "n 3 H W"]
    codes: Float[Tensor, "n L D"]
    columns: tuple[str, ...]
    captions: tuple[str, ...]


def parse_sweep(text: str) -> tuple[float, ...]:
    """``-3:3:7`` as seven factors from -3 to 3, evenly spaced.

    Raises:
        ValueError: the text has another form, a number is not finite, or there are fewer than two factors.
    """
    parts = text.split(":")
    try:
        ends, count = [float(part) for part in parts[:2]], int(parts[2])
    except (ValueError, IndexError):
        ends, count = [], 0
    if len(parts) != 3 or not 2 <= count <= 1000 or not all(map(math.isfinite, ends)):
        raise ValueError(f"a sweep is written first:last:number, as in -3:3:7, with 2 to 1000 pictures; got {text!r}")
    # In fractions of what is written: rounded on the way, -0.7:0.7:7 would miss the original, which 0 is, and its end.
    first, last = (Fraction(str(end)) for end in ends)
    return tuple(float(first + (last - first) * k / (count - 1)) for k in range(count))


def starts(bench: Workbench, seeds: Sequence[int]) -> Float[Tensor, "n L D"]:
    """Codes of samples, one after the other, so that none depends on the others."""
    return torch.cat([sample(bench.generator, [seed]) for seed in seeds])


def sweep_strip(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    codes: Float[Tensor, "n L D"],
    factors: Sequence[float],
    *,
    conditions: Sequence[str] = (),
) -> Strip:
    """All edits together, each time with another factor: 0 is the original, -1 the opposite of what was asked.

    Raises:
        ValueError: no factors, no edits, or as for `higan.workbench.plan`.
    """
    if not factors or not edits:
        raise ValueError(f"a sweep needs factors and edits; got {len(factors)} and {len(edits)}")
    plans = plan(bench, edits, codes, conditions=conditions)
    variants = [[[_scaled(edit, factor) for edit in edits_] for factor in factors] for edits_ in plans]
    return _strip(bench, codes, variants, [f"{factor:+.3g}" if factor else "0" for factor in factors])


def joint_strip(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    codes: Float[Tensor, "n L D"],
    *,
    conditions: Sequence[str] = (),
) -> Strip:
    """The original, every edit alone, then all together.

    Raises:
        ValueError: fewer than two edits, or as for `higan.workbench.plan`.
    """
    if len(edits) < 2:
        raise ValueError(f"joint edits are two or more; got {len(edits)}")
    plans = plan(bench, edits, codes, conditions=conditions)
    variants = [[[], *([edit] for edit in edits_), list(edits_)] for edits_ in plans]
    names = Counter(edit.boundary.concept.name for edit in plans[0])
    columns = [_column(edit, alone=names[edit.boundary.concept.name] == 1) for edit in plans[0]]
    return _strip(bench, codes, variants, ["original", *columns, "together"])


def grid_strip(
    bench: Workbench,
    edit: str | Instruction,
    codes: Float[Tensor, "n L D"],
    *,
    conditions: Sequence[str] = (),
) -> Strip:
    """The same edit at all layers, at every single layer and at every stage, in steps that do not depend on where.

    The strength is found for the layers that the edit names, or those recommended, and kept for all places.

    Raises:
        ValueError: as for `higan.workbench.plan`.
    """
    places = placements(bench.generator.num_layers)
    plans = plan(bench, [edit], codes, conditions=conditions)
    variants = [[[], *([replace(edits[0], layers=place.layers)] for place in places)] for edits in plans]
    return _strip(bench, codes, variants, ["original", *(_place(p.name, p.layers) for p in places)])


def folded(strip: Strip, rows: Sequence[str], *, most: int = 8) -> tuple[Strip, tuple[str, ...]]:
    """The same pictures on lines of at most ``most``, equally long and filled up with white; and a name per line.

    Raises:
        ValueError: fewer than one picture per line, or another number of names than rows.
    """
    n, wide = len(strip.images), len(strip.columns)
    if most < 1 or len(rows) * wide != n:
        raise ValueError(f"{n} pictures in rows of {wide} need {n // wide} names; got {len(rows)}, and most {most}")
    lines = -(-wide // most)
    width = -(-wide // lines)
    spare = lines * width - wide
    blank = strip.images.new_full((len(rows), spare, *strip.images.shape[1:]), 255)
    images = torch.cat([strip.images.unflatten(0, (len(rows), wide)), blank], 1).flatten(0, 1)
    zero = strip.codes.new_zeros((len(rows), spare, *strip.codes.shape[1:]))
    codes = torch.cat([strip.codes.unflatten(0, (len(rows), wide)), zero], 1).flatten(0, 1)
    captions = [c for r in range(len(rows)) for c in (*strip.captions[r * wide : (r + 1) * wide], *[""] * spare)]
    names = tuple(name if line == 0 else "" for name in rows for line in range(lines))
    return Strip(images, codes, strip.columns[:width], tuple(captions)), names


def _column(edit: Edit, *, alone: bool) -> str:
    """What an edit is called; with its layers where its concept is edited elsewhere too."""
    name = edit.boundary.concept.name.replace("_", " ")
    return name if alone else f"{name} {format_layers(edit.layers)}"


def _place(name: str, layers: Sequence[int]) -> str:
    return name if name.startswith("layer ") else f"{name} {format_layers(layers)}"


def _scaled(edit: Edit, factor: float) -> Edit:
    return replace(edit, strength=edit.strength * factor)


def _strip(
    bench: Workbench, codes: Tensor, variants: Sequence[Sequence[Sequence[Edit]]], columns: Sequence[str]
) -> Strip:
    """``variants`` per sample and column: the edits of that picture."""
    moved = torch.cat(
        [
            apply(code[None], edits) if edits else code[None]
            for code, row in zip(codes, variants, strict=True)
            for edits in row
        ]
    )
    images = draw(bench.generator, moved)
    captions = list(columns) * len(codes)
    if bench.scorer is not None and bench.rescoring is not None:
        captions = _with_changes(bench, codes, images, variants, captions)
    return Strip(images, moved, tuple(columns), tuple(captions))


def _with_changes(
    bench: Workbench,
    codes: Tensor,
    images: UInt8[Tensor, "n 3 H W"],
    variants: Sequence[Sequence[Sequence[Edit]]],
    captions: list[str],
) -> list[str]:
    """Under every edited picture, how far the scores of its edits moved from the original's, in standard deviations."""
    if bench.scorer is None or bench.rescoring is None:
        return captions
    std = {c.name: float(s) for c, s in zip(bench.rescoring.concepts, bench.rescoring.score_std, strict=True)}
    device = bench.generator.device
    scores = score(bench.scorer, images.to(device)).cpu()
    before = score(bench.scorer, draw(bench.generator, codes).to(device)).cpu()
    told = []
    per_row = len(variants[0])
    for k, caption in enumerate(captions):
        row = k // per_row
        lines = [caption]
        edits = variants[row][k % per_row]
        for name in dict.fromkeys(edit.boundary.concept.name for edit in edits if edit.strength):
            if std.get(name, 0) > 0:
                column = bench.column(name)
                sigma = float(scores[k, column] - before[row, column]) / std[name]
                lines.append(f"{name.replace('_', ' ')} {sigma:+.1f} sd")  # the built-in font has no σ
        # A column called after its one edit need not say its name twice.
        told.append("\n".join(lines[1:] if len(lines) == 2 and lines[1].startswith(f"{caption} ") else lines))
    return told
