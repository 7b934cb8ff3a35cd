"""What the page tells about a study: verified concepts with interval, layers and profile, stages, classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from higan.hierarchy import finding, profile
from higan.layers import groups
from higan.population import sample, sample_seeds
from higan.report.words import LEVEL_NAMES, readable
from higan.statistics import Verdict, delta, null_level, rank, standardise
from higan.types import LEVELS, Boundary, Rescoring
from higan.workbench import Workbench, recommend, response

__all__ = ["REACH", "about"]

REACH = 3.0
"""How far a slider reaches: standard deviations of the concept's score, went it on as it does at the step λ."""

_FARTHEST = 6.0
_SPREAD_OF = 512


@dataclass(frozen=True, slots=True)
class _Places:
    """Δs above the null's mean, in standard deviations, by concept and single layer."""

    columns: Mapping[str, int]
    by_layer: Float[Tensor, "C L"]


def about(bench: Workbench) -> dict[str, Any]:
    """All of it, as JSON can hold it.

    Raises:
        ValueError: the workbench has no re-scoring, or one without single layers and stages.
    """
    rescoring, generator = bench.rescoring, bench.generator
    if rescoring is None:
        raise ValueError("the studio shows what a re-scoring found; this workbench has none")
    verdicts = rank(rescoring)
    shown = [v for v in verdicts if v.verified and v.concept.name in bench.boundaries]
    stages = {name: list(layers) for name, layers in groups(generator.num_layers).items()}
    spreads = _spreads(bench, [bench.boundaries[v.concept.name] for v in shown])
    places = _places(rescoring, generator.num_layers)
    concepts = [_concept(bench, rescoring, v, places, spread) for v, spread in zip(shown, spreads, strict=True)]
    return {
        "generator": {"name": generator.name, "layers": generator.num_layers, "resolution": generator.resolution},
        "weights": bench.weights[:12],
        "stages": stages,
        "levels": [{"name": level, "label": LEVEL_NAMES[level]} for level in LEVELS],
        "concepts": [concept for concept in concepts if concept is not None],
        "all": {c.name: c.level for c in rescoring.concepts},
        "tried": len(verdicts),
        "samples": len(rescoring.seeds),
        "finding": finding(profile(rescoring)),
        "reach": REACH,
    }


def _concept(
    bench: Workbench, rescoring: Rescoring, verdict: Verdict, places: _Places, spread: float
) -> dict[str, Any] | None:
    """One slider; None where no layers raise the concept's score on average."""
    name = verdict.concept.name
    try:
        layers = recommend(rescoring, name).layers
    except ValueError:
        return None
    per_step = response(rescoring, name, layers) or 0.0
    return {
        "name": name,
        "label": readable(name),
        "level": verdict.concept.level,
        "effect": round(verdict.effect, 3),
        "low": round(verdict.effect_low, 3),
        "high": round(verdict.effect_high, 3),
        "layers": list(layers),
        "profile": [round(max(value, 0.0), 3) for value in places.by_layer[places.columns[name]].tolist()],
        "limit": _limit(per_step, spread, rescoring.step),
        "accuracy": _finite(bench.boundaries[name].holdout_accuracy),
    }


def _limit(per_step: float, spread: float, step: float) -> float:
    """Steps at the end of the slider, a round number: worth `REACH`, but never far beyond where codes are found."""
    farthest = max(_FARTHEST * spread, step)
    wanted = min(REACH / per_step if per_step > 0 else math.inf, farthest)
    unit = 10.0 ** math.floor(math.log10(wanted))
    return float(f"{math.ceil(wanted / unit * 2 - 1e-9) / 2 * unit:.6g}")


def _places(rescoring: Rescoring, num_layers: int) -> _Places:
    names = [placement.name for placement in rescoring.placements]
    excess = standardise(rescoring, delta(rescoring) - null_level(rescoring))
    at = [names.index(f"layer {layer}") for layer in range(num_layers)]
    return _Places({concept.name: c for c, concept in enumerate(rescoring.concepts)}, excess[:, at])


def _spreads(bench: Workbench, boundaries: Sequence[Boundary]) -> list[float]:
    """Standard deviation of sampled codes along every normal, all from the same samples."""
    if not boundaries:
        return []
    codes = torch.cat([sample(bench.generator, part) for part in sample_seeds(_SPREAD_OF).split(128)])
    codes = codes[:, :1] if bench.generator.shared_code else codes
    normals = torch.stack([b.normal for b in boundaries]).to(codes).reshape(len(boundaries), -1, codes.shape[2])
    along = (codes[None] * normals[:, None]).sum(-1)
    return [float(value) or 1.0 for value in along.std(1, correction=0).mean(1)]


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
