"""The five tasks: how an answer is held against the truth, and what sums it up.

``grade`` turns an answer into a `Record` of plain numbers, one entry per concept, so that every figure and interval can
be computed again from what is kept. The metrics below turn records into one number; each is 1 at best.

========== ===================== =================================================================================
task       metric                what it says
========== ===================== =================================================================================
layers     overlap               Σ_l min(profile_l, truth_l), both scaled to sum one; mean over real concepts
ranking    rank correlation      Spearman's, between the method's effects and the true ones, over all concepts
directions cosine                with the true direction; mean over real concepts
editing    purity                change of the concept over the length of all concepts' changes; mean, failures are 0
detection  area under the curve  how often a layer that causes a concept outranks one that does not
========== ===================== =================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from higan.benchmark.methods import Answer
from higan.benchmark.truth import Truth
from higan.editing import apply, offset
from higan.types import Concept, Edit

__all__ = ["TASKS", "Record", "Task", "area", "check_answer", "grade", "purity", "rank_correlation", "spread"]

Array = NDArray[np.float64]

_TARGET = 0.5
"""Standard deviations by which every edit has to raise its own concept before its side effects are compared."""
_LONGEST = 40.0


@dataclass(frozen=True)
class Record:
    """An answer beside the truth: C concepts, of which the real ones have an overlap, a cosine and a purity."""

    real: list[bool]
    overlap: list[float]
    effect: list[float]
    strength: list[float]
    cosine: list[float]
    purity: list[float]
    evidence: list[list[float]]
    causes: list[list[int]]
    called: list[list[bool]] | None
    """Where the method's own p is at most 0.05; None if it gives none."""

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """The same as arrays, made once for all resamples."""
        return {k: np.asarray(v, float) for k, v in asdict(self).items() if v is not None}

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def rounded(self) -> Record:
        """To six decimals."""
        return Record(**{k: _rounded(v) for k, v in asdict(self).items()})


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value


def grade(answer: Answer, truth: Truth, concepts: Sequence[Concept]) -> Record:
    """Hold an answer against the truth.

    Raises:
        ValueError: the answer does not have one finite entry per concept and layer.
    """
    check_answer(answer, truth, concepts)
    real = truth.real
    own = _shares(answer.profile)
    overlap = torch.minimum(own, _shares(truth.effects)).sum(1)
    unit = torch.nn.functional.normalize(answer.directions.cpu().float(), dim=-1)
    cosine = (unit * truth.directions.cpu()).sum(1)
    edits = answer.edits
    pure = [
        purity(edit, c, truth) if is_real else 0.0
        for c, (edit, is_real) in enumerate(zip(edits, real.tolist(), strict=True))
    ]
    return Record(
        real=real.tolist(),
        overlap=overlap.tolist(),
        effect=answer.effect.tolist(),
        strength=truth.strength.tolist(),
        cosine=cosine.tolist(),
        purity=pure,
        evidence=answer.evidence.tolist(),
        causes=truth.causes.int().tolist(),
        called=None if answer.p is None else (answer.p <= 0.05).tolist(),
    )


def check_answer(answer: Answer, truth: Truth, concepts: Sequence[Concept]) -> None:
    """Refuse what a method of one's own got wrong.

    Raises:
        ValueError: a part of the answer has another shape, is not finite, or a profile lies below zero.
    """
    C, L = truth.effects.shape
    wanted = {"directions": tuple(truth.directions.shape), "effect": (C,), "profile": (C, L), "evidence": (C, L)}
    if answer.p is not None:
        wanted["p"] = (C, L)
    for name, shape in wanted.items():
        value: Tensor = getattr(answer, name)
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} of an answer must have shape {shape}; got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} of an answer must be finite; got NaN or infinity")
    if bool((answer.profile < 0).any()):
        raise ValueError("the profile of an answer must not lie below zero")
    if len(answer.edits) != len(concepts):
        raise ValueError(f"an answer needs one edit per concept, {len(concepts)}; got {len(answer.edits)}")


def _shares(profile: Tensor) -> Tensor:
    """Rows that sum to one; a row of zeros says nothing about layers and counts as even."""
    total = profile.cpu().float().sum(1, keepdim=True)
    even = torch.full_like(profile.float(), 1 / profile.shape[1])
    return torch.where(total > 0, profile.float() / total.clamp(min=1e-12), even)


# --- editing ----------------------------------------------------------------------------------------------------------


def purity(edit: Edit, concept: int, truth: Truth) -> float:
    """Of everything an edit changes, how much is what was asked for.

    The strength is chosen so that the concept's true value rises by half a standard deviation on average. With that
    rise m and the mean squares q_k of all other concepts' changes, purity is m / √(m² + Σ q_k): 1 if nothing else
    changes, about 1/√C if all change alike. An edit that does not get there within 40 steps has 0.
    """
    L, D = truth.codes.shape[1:]
    offset(edit.boundary, torch.ones(L), edit.layers, D)  # refuses what does not fit
    num, halvings = truth.search
    search = truth.codes[:num]
    before = truth.start[:num]

    def rise(strength: float) -> float:
        return float((truth.values(_moved(search, edit, strength)) - before)[:, concept].mean())

    low, high = 0.0, 1.0
    while rise(high) < _TARGET:
        if high >= _LONGEST:
            return 0.0
        low, high = high, min(2 * high, _LONGEST)
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if rise(middle) >= _TARGET else (middle, high)
    change = (truth.values(_moved(truth.codes, edit, high)) - truth.start).double()
    own = float(change[:, concept].mean())
    others = float(change.square().mean(0).sum() - change[:, concept].square().mean())
    return max(own, 0.0) / max((own**2 + others) ** 0.5, 1e-12)


def _moved(codes: Tensor, edit: Edit, strength: float) -> Tensor:
    return apply(codes, [Edit(edit.boundary, strength, edit.layers)])


# --- metrics ----------------------------------------------------------------------------------------------------------


def rank_correlation(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    """Spearman's, ties at their mean rank; 0 where one side is all ties."""
    x, y = _ranks(np.asarray(a, float)), _ranks(np.asarray(b, float))
    x, y = x - x.mean(), y - y.mean()
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else 0.0


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], float)


def area(evidence: Array, causes: Array) -> float:
    """Area under the receiver operating characteristic, ties counted half, where ``causes`` is 0 or 1."""
    scores, labels = evidence[causes >= 0], causes[causes >= 0]
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    if not positive or not negative:
        return 0.5
    ranks = _ranks(scores)
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


Rows = NDArray[np.int64]
"""Concepts drawn by a resample; every concept once for the plain figure."""


def _mean_of(name: str) -> Callable[[Record, Rows], float]:
    def metric(record: Record, rows: Rows) -> float:
        real = rows[record.arrays["real"][rows] > 0]
        return float(record.arrays[name][real].mean()) if len(real) else math.nan

    return metric


def _ranking(record: Record, rows: Rows) -> float:
    return rank_correlation(record.arrays["effect"][rows], record.arrays["strength"][rows])


def _detection(record: Record, rows: Rows) -> float:
    causes = record.arrays["causes"]
    if _both(causes) and not _both(causes[rows]):
        return math.nan  # A resample without one of the sides says nothing of telling them apart.
    return area(record.arrays["evidence"][rows], causes[rows])


def _both(causes: Array) -> bool:
    return bool((causes == 0).any() and (causes == 1).any())


@dataclass(frozen=True, slots=True)
class Task:
    """A question, and the metric that says how well it was answered."""

    name: str
    question: str
    metric: str
    measure: Callable[[Record, Rows], float]


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("layers", "Which layers own which concept?", "overlap of profiles", _mean_of("overlap")),
        Task("ranking", "Which concepts can be changed most?", "rank correlation", _ranking),
        Task("directions", "In which direction does a concept lie?", "cosine", _mean_of("cosine")),
        Task("editing", "What else does an edit change?", "purity", _mean_of("purity")),
        Task("detection", "What is not there?", "area under the curve", _detection),
    )
}
"""In the order of the table."""


def calls(record: Record) -> tuple[float, float] | None:
    """False alarms and hits at the method's own 5 %: shares of cells without and with a cause that it calls."""
    if record.called is None:
        return None
    called, causes = np.asarray(record.called), np.asarray(record.causes)
    return tuple(float(called[causes == label].mean()) if (causes == label).any() else 0.0 for label in (0, 1))  # type: ignore[return-value]


def spread(
    records: Sequence[Record], measure: Callable[[Record, Rows], float], *, num_resamples: int = 300, seed: int = 0
) -> tuple[float, float, float]:
    """A metric's mean over records (seeds of one world), with its 95 % bootstrap interval over seeds and concepts.

    Seeds and concepts are drawn independently (Owen 2007, "The pigeonhole bootstrap"): the same concepts stand behind
    all seeds. Resamples that hold no real concept, where a metric needs one, or nothing to tell apart are left out.
    """
    every = np.arange(len(records[0].real))
    point = float(np.mean([measure(record, every) for record in records]))
    dice = np.random.default_rng(seed)
    resampled = []
    for _ in range(num_resamples):
        chosen, concepts = (dice.integers(num, size=num) for num in (len(records), len(every)))
        resampled.append(np.mean([measure(records[r], concepts) for r in chosen]))
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return point, float(low), float(high)
