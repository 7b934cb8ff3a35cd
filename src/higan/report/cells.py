"""Every cell of a re-scoring as a line of text, for whoever computes on: one concept at one set of layers."""

from __future__ import annotations

import csv
import io
from dataclasses import fields

from jaxtyping import Int64
from torch import Tensor

from higan.recipes import format_layers
from higan.statistics import Table
from higan.types import Rescoring

__all__ = ["cells_csv", "samples_taken"]


def cells_csv(rescoring: Rescoring, table: Table) -> str:
    """A header and C · P lines, concept by concept: names, layers, samples that were taken, and all of `Table`.

    ``effect`` and its interval are in standard deviations of the score, ``score_std``; ``delta``, ``signed`` and the
    nulls' means in units of the score. What there is not, as a second null, is empty.
    """
    columns = [f.name for f in fields(table)]
    taken = samples_taken(rescoring)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["concept", "level", "placement", "layers", "samples", "score_std", *columns])
    for c, concept in enumerate(rescoring.concepts):
        for p, placement in enumerate(rescoring.placements):
            values = [_cell(getattr(table, name), c, p) for name in columns]
            where = [concept.name, concept.level, placement.name, format_layers(placement.layers)]
            writer.writerow([*where, int(taken[c, p]), f"{float(rescoring.score_std[c]):.9g}", *values])
    return text.getvalue()


def samples_taken(rescoring: Rescoring) -> Int64[Tensor, "C P"]:
    """How many samples every concept was moved on at each placement; fewer than all where measuring stopped early."""
    return (~rescoring.changes.isnan()).sum(-1)


def _cell(values: Tensor | None, concept: int, placement: int) -> str:
    if values is None:
        return ""
    value = values[concept, placement].item()
    return str(value).lower() if isinstance(value, bool) else f"{value:.9g}"
