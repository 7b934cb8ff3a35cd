"""What is said of a study: its cost before, its results after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from higan import store, study
from higan.cli.app import console, errors, minutes
from higan.engines import Engine, InProcess
from higan.statistics import rank
from higan.types import Boundary


def amount(cost: study.Cost, *, most: bool = False, engine: Engine | None = None) -> str:
    """What is left to do, as it is announced. What it takes was measured in this process, whatever the engine."""
    at_most = "at most " if most else ""
    where = "on this machine" if engine is None or isinstance(engine, InProcess) else "for this process alone"
    return f"{at_most}{cost.images:,} images, {at_most}about {minutes(cost.seconds)} {where}"


def say_scanty(num_random: int, num_permuted: int) -> None:
    """That too few directions leave little to verify, before anything is drawn."""
    for sentence in study.scanty(num_random=num_random, num_permuted=num_permuted):
        errors.print(Text("Too few directions.", "yellow"), sentence, highlight=False)


def say_doubts(sentences: Iterable[str]) -> None:
    """What makes numbers mean little; nothing where there is no such thing."""
    for sentence in sentences:
        errors.print(Text("Mind:", "yellow"), sentence, highlight=False)


def say_constant(boundaries: Sequence[Boundary]) -> None:
    """Which scores are the same for all pictures: their rows mean nothing, wherever they come."""
    if still := [b.concept.name for b in boundaries if b.stability == 0]:
        told = ", ".join(still[:10]) + (f" and {len(still) - 10} more" if len(still) > 10 else "")
        errors.print(
            Text("Scores that never vary:", "yellow"), f"{told}. All pictures have the same: no direction changes "
            "them, and what is said of their boundaries is chance", highlight=False,
        )  # fmt: skip


def known(value: float, digits: int) -> str:
    """A number, or a dash where it is not known: of imported boundaries, of halves of a handful of samples."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


_COLUMNS = ("level", "Δs", "95 % interval", "null", "effect σ", "q", "accuracy", "cosine", "verified")
_LEFT = ("level", "verified")
_WIDE = 110
_NARROW_LACKS = ("level", "null", "accuracy", "cosine")


def ranking(folder: store.Run) -> Table:
    """Concepts by the effect of their edit on all layers."""
    caption = (
        "null: mean of random directions. q: false-discovery rate over all concepts and sets of layers, against both "
        "nulls. cosine: between the boundaries found from either half of the samples."
    )
    table = Table(
        title="Concepts by effect of the edit on all layers", title_justify="left", caption=caption,
        caption_justify="left",
    )  # fmt: skip
    # Only names give way, and where there is little room whole columns do: no number is ever cut.
    table.add_column("concept", overflow="fold", min_width=10)
    columns = [name for name in _COLUMNS if console.width >= _WIDE or name not in _NARROW_LACKS]
    for name in columns:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    boundaries = {b.concept.name: b for b in store.load_boundaries(folder)}
    for row in rank(store.load_rescoring(folder)):
        cells = {
            "level": row.concept.level,
            "Δs": f"{row.delta:.3g}",
            "95 % interval": f"{row.low:.3g} – {row.high:.3g}",
            "null": f"{row.null:.3g}",
            "effect σ": f"{row.effect:.2f}",
            "q": "< 0.001" if row.q < 0.001 else f"{row.q:.3f}",
            "accuracy": known(boundaries[row.concept.name].holdout_accuracy, 2),
            "cosine": known(boundaries[row.concept.name].stability, 2),
            "verified": "yes" if row.verified else Text("no", "dim"),
        }
        table.add_row(row.concept.name, *(cells[name] for name in columns))
    return table


def say_settled(opened: store.Run) -> None:
    """What an adaptive re-scoring settled; nothing after a fixed one."""
    outcome = study.steps_of(opened).get("rescore", {}).get("outcome")
    if outcome is None:
        return
    top, peaks = outcome["top"], {c: layer for c, layer in outcome["peaks"].items() if layer is not None}
    sure = sum(outcome["peaks_decided"][concept] for concept in peaks)
    images, budget = outcome["images"], outcome["budget"]
    console.print(
        f"Settled with {images:,} of {budget:,} images ({images / budget:.0%}). "
        f"Strongest {len(top)}: {'settled' if outcome['top_decided'] else 'not all settled before the last sample'}. "
        f"Strongest layer: settled for {sure} of {len(peaks)} concepts that may differ from the null.",
        highlight=False,
    )


def responses(found: study.Comparison) -> Table:
    """Mean changes at every step, both ways."""
    curves = found.responses
    table = Table(title="Mean change / σ against the step λ", title_justify="left")
    for name in ("concept", "at"):
        table.add_column(name, no_wrap=True)
    for step in curves.steps.tolist():
        table.add_column(f"{step:+g}", justify="right")
    for concept, place, means in zip(curves.concepts, curves.placements, curves.mean.tolist(), strict=True):
        table.add_row(concept.name, place.name, *(f"{mean:+.2f}" for mean in means))
    return table
