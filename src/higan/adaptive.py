"""Verification that stops where nothing is left to learn: Eq. (1) by successive elimination.

The question is what `higan.rescoring.rescore` would say with all K samples: which concepts are the strongest k at
placement ``all``, and at which single layer each verified concept is strongest. All that is open is measured on one
batch of samples after the other, in the order of the fixed run, so that a cell's first m samples are the fixed run's
first m. What is decided is measured no more::

    a concept is in    when it surely beats all but k others            (and out when k others surely beat it)
    a layer is out     when the concept's strongest layer surely beats it
    a concept is left  when its change is surely smaller than those of more than a twentieth of the random directions,
                       or its score never varies
    a stage is left    when it surely changes too little to be recommended, and after 64 samples
    random directions  go on at ``all`` only, and only while a concept could still fall on either side of them

Stages settle neither question: they are measured because edits are made there (`higan.workbench.recommend`).

"Surely" means an interval for the mean of paired differences over the K samples that holds at every moment at once, so
that looking after every batch costs nothing. Sums of n of K samples drawn without replacement are a Brownian bridge in
the limit; divided by 1 - n/K they are a martingale of variance n / (1 - n/K) (Doob's time change). Robbins' normal
mixture bounds it for ever (Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences", eq. 14). The variance is estimated too, from few samples at first, so that the mixture is that of
Student's t, which is exact for independent normal samples (Lai 1976, "On confidence sequences"; Wang & Ramdas 2025,
"Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance") and tends to Robbins' as
samples grow in number. It assumes a first batch large enough for means to be near normal. Comparisons share the error
by Bonferroni's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from higan.editing import StepMode
from higan.engines import Crew, Engine
from higan.population import OpenModels, Progress, sample_seeds
from higan.rescoring import Checkpoint, Plan, cost, key_of, plan_of, together
from higan.spread import Piece, crew_of, gather
from higan.statistics import WORTHWHILE
from higan.types import Boundary, Generator, Placement, Rescoring, Scorer

__all__ = ["Adaptive", "Race", "check_goal", "half_width", "rescore_adaptively"]

_AIM = 1 / 8
"""The share of K at which intervals are tightest."""
_NULL_LEVEL = 0.95
_SMALLEST_BATCH = 16
_LARGE = 512
_STAGE_SAMPLES = 64
"""What tells stages apart well enough to choose where to edit."""
_FEWEST_SAMPLES = 4
_FEWEST_IMAGES = 16
"""In a call, on average: smaller calls take longer for an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Adaptive:
    """An adaptive re-scoring, and what it settled.

    ``rescoring`` holds NaN among its changes where a sample was not taken, and all statistics leave those out; means
    over samples (``effects``, ``null``) are over those of their own cell. ``counts`` says how many that are, and
    ``rescoring.null_counts`` of the null. ``top``
    are the strongest k concepts, strongest first, ``peaks`` the strongest layer of every concept, or None where it was
    left because nothing tells it from the null; ``top_decided`` and ``peaks_decided`` say whether the asked confidence
    was reached before the last sample. ``images`` were drawn, where the fixed run takes ``budget``.
    """

    rescoring: Rescoring
    counts: Int64[Tensor, "C P"]
    top: tuple[str, ...]
    top_decided: bool
    peaks: tuple[int | None, ...]
    peaks_decided: tuple[bool, ...]
    images: int
    budget: int

    def outcome(self) -> dict[str, Any]:
        """What was settled, and what it took, as JSON."""
        names = [concept.name for concept in self.rescoring.concepts]
        return {
            "top": list(self.top),
            "top_decided": self.top_decided,
            "peaks": dict(zip(names, self.peaks, strict=True)),
            "peaks_decided": dict(zip(names, self.peaks_decided, strict=True)),
            "images": self.images,
            "budget": self.budget,
        }


def half_width(variance: Float[Tensor, "*s"], n: int, num: int, alpha: float) -> Float[Tensor, "*s"]:
    """Half the width, after n of ``num`` samples, of the interval that holds at every n with probability 1 - alpha.

    Of the mean over all ``num`` samples, from the mean over n, given the variance of those n; zero at the end, and
    infinite where n are too few to say anything.
    """
    if n >= num:
        return torch.zeros_like(variance)
    time, aim = n / (1 - n / num), _AIM * num / (1 - _AIM)
    strictness = 2 * math.log(1 / alpha)
    rho = aim / (strictness + math.log1p(strictness))
    # The likelihood ratio of t, averaged over effects of variance 1 / rho, is 1 / alpha where t² = u (n - 1); see
    # Gönen et al. 2005, "The Bayesian two-sample t test".
    gain = (time + rho) / rho
    ratio = math.exp((math.log(gain) + strictness) / n)
    if ratio >= gain:
        return torch.full_like(variance, torch.inf)
    u = (ratio - 1) / (1 - ratio / gain)
    return (variance * (u * (n - 1) / time)).sqrt()


def check_goal(top: int, confidence: float) -> None:
    """Refuses what cannot be settled.

    Raises:
        ValueError: ``top`` is below 1, or ``confidence`` not between 0 and 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1; got {top}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")


@dataclass(slots=True, eq=False)
class Race:
    """Who is still in the running; knows nothing of images.

    Args:
        places: must hold ``all``, of all layers, and every single layer.
        num_concepts: C.
        num: K.
        num_layers: of the generator.
        top: k.
        order: also settle the order among the strongest k.
        confidence: with which all decisions together are those of the fixed run.
    """

    places: tuple[Placement, ...]
    num_concepts: int
    num: int
    num_layers: int
    top: int = 10
    order: bool = False
    confidence: float = 0.95
    inside: Tensor = field(init=False)
    outside: Tensor = field(init=False)
    settled: Tensor = field(init=False)
    candidates: Tensor = field(init=False)
    left: Tensor = field(init=False)
    clear: Tensor = field(init=False)
    everything: int = field(init=False)
    layers: list[int] = field(init=False)
    stages: list[int] = field(init=False)
    worthwhile: Tensor = field(init=False)
    seen: int = field(init=False, default=0)
    top_decided: bool = field(init=False, default=False)
    peaks_decided: Tensor = field(init=False)

    def __post_init__(self) -> None:
        sets = [place.layers for place in self.places]
        needed = [tuple(range(self.num_layers)), *((layer,) for layer in range(self.num_layers))]
        missing = [layers for layers in needed if layers not in sets]
        if missing:
            raise ValueError(f"adaptive verification needs all layers together and each alone; missing: {missing}")
        check_goal(self.top, self.confidence)
        self.everything, *self.layers = (sets.index(layers) for layers in needed)
        self.stages = [p for p, layers in enumerate(sets) if layers not in needed]
        C = self.num_concepts
        self.worthwhile = torch.ones(C, len(self.stages), dtype=torch.bool)
        self.inside, self.outside, self.left, self.clear = (torch.zeros(C, dtype=torch.bool) for _ in range(4))
        self.peaks_decided = torch.zeros(C, dtype=torch.bool)
        self.settled = torch.eye(C, dtype=torch.bool)
        self.candidates = torch.ones(C, self.num_layers, dtype=torch.bool)
        if self.top >= C:
            self.inside[:] = True

    def wanted(self) -> tuple[Bool[Tensor, "C P"], Bool[Tensor, " P"]]:
        """Cells to go on with: of concepts, and of the random directions."""
        cells = torch.zeros(self.num_concepts, len(self.places), dtype=torch.bool)
        undecided = ~(self.left | self.clear)
        pool = ~(self.inside | self.outside)
        unordered = self.inside & (~self.settled[:, ~self.outside]).any(1) & self.order
        cells[:, self.everything] = undecided | pool | unordered
        open_ = ~self.left & (self.candidates.sum(1) > 1)
        cells[:, self.layers] |= self.candidates & open_[:, None]
        if self.seen < _STAGE_SAMPLES:
            cells[:, self.stages] = self.worthwhile & ~self.left[:, None]
        null = torch.zeros(len(self.places), dtype=torch.bool)
        null[self.everything] = bool(undecided.any())
        return cells, null

    def update(
        self,
        changes: Float[Tensor, "C P n"],
        std: Float[Tensor, " C"],
        nulls: Sequence[Tensor],
    ) -> None:
        """Decide what the first n samples decide.

        Args:
            changes: NaN in cells that are no longer wanted.
            std: standard deviation of every score, the unit between concepts.
            nulls: what every concept's score gains under the meaningless directions at ``all``, (R, C, n) of each kind;
                of fewer samples once no more are wanted.
        """
        n = changes.shape[-1]
        rise = changes.double().clamp(min=0)
        error = (1 - self.confidence) / 3
        self.left |= std == 0  # Never verified, whatever it gains.
        self._compare_with_null(rise[:, self.everything], nulls, n, error)
        unit = torch.where(std > 0, std.double(), torch.inf)
        self._rank(rise[:, self.everything] / unit[:, None], n, error)
        self._compare_layers(rise[:, self.layers], n, error)
        self._compare_stages(changes.double(), n)
        self.seen = n
        if n < self.num:
            self.top_decided = bool((self.inside | self.outside).all())
            self.peaks_decided = (self.candidates.sum(1) == 1) & ~self.left

    def verdict(self, changes: Float[Tensor, "C P K"], std: Float[Tensor, " C"]) -> tuple[list[int], list[int]]:
        """The strongest k concepts, strongest first, and the strongest layer of every concept, -1 of those left."""
        mean = changes.double().clamp(min=0).nanmean(-1)
        effect = torch.where(std > 0, mean[:, self.everything] / std.double().clamp(min=1e-300), 0.0)
        # What is in comes before what is open, whatever the means of cells that stopped early.
        standing = effect + self.inside * 1e6 - self.outside * 1e6
        chosen = standing.argsort(descending=True, stable=True)[: self.top]
        top = chosen[effect[chosen].argsort(descending=True, stable=True)]
        peaks = torch.where(self.candidates, mean[:, self.layers], -torch.inf).argmax(1)
        return top.tolist(), torch.where(self.left, -1, peaks).tolist()

    def _compare_with_null(self, rise: Float[Tensor, "C n"], nulls: Sequence[Tensor], n: int, error: float) -> None:
        comparisons = self.num_concepts * sum(len(null) for null in nulls)
        for c in (~(self.left | self.clear)).nonzero()[:, 0].tolist():
            clear = []
            for null in nulls:
                more = rise[c] - null[:, c].double()
                half = half_width(more.var(1), n, self.num, error / comparisons)
                allowed = len(null) - math.floor(_NULL_LEVEL * (len(null) - 1))
                self.left[c] |= int((more.mean(1) < -half).sum()) >= allowed
                clear.append(int((more.mean(1) > half).sum()) > len(null) - allowed)
            self.clear[c] = all(clear) and not self.left[c]
        if n >= self.num:
            self.clear |= ~self.left

    def _rank(self, effects: Float[Tensor, "C n"], n: int, error: float) -> None:
        k = self.top
        pairs = k * max(self.num_concepts - k, 0) + self.order * k * (k - 1) // 2
        surely = _surely_above(effects, n, self.num, error / max(pairs, 1))
        self.settled |= surely | surely.T
        while True:
            pool = ~(self.inside | self.outside)
            free = k - int(self.inside.sum())
            beats = surely & pool & pool[:, None]
            newly_in = pool & (beats.sum(1) >= int(pool.sum()) - free)
            newly_out = pool & (beats.sum(0) >= free) & ~newly_in
            if not bool((newly_in | newly_out).any()):
                return
            self.inside |= newly_in
            self.outside |= newly_out

    def _compare_layers(self, rise: Float[Tensor, "C L n"], n: int, error: float) -> None:
        comparisons = self.num_concepts * max(rise.shape[1] - 1, 1)
        for c in range(self.num_concepts):
            rows = self.candidates[c].nonzero()[:, 0]
            if bool(self.left[c]) or len(rows) < 2:
                continue
            surely = _surely_above(rise[c, rows], n, self.num, error / comparisons)
            self.candidates[c, rows[surely.any(0)]] = False

    def _compare_stages(self, changes: Float[Tensor, "C P n"], n: int) -> None:
        """An error of its own: no answer depends on it."""
        if not self.stages:
            return
        short = WORTHWHILE * changes[:, [self.everything]] - changes[:, self.stages]
        half = half_width(short.var(-1), n, self.num, (1 - self.confidence) / self.worthwhile.numel())
        self.worthwhile &= ~(short.mean(-1) > half)  # Open where either is no longer measured.


def _surely_above(values: Float[Tensor, "a n"], n: int, num: int, alpha: float) -> Bool[Tensor, "a a"]:
    """Whether the mean of row i over all ``num`` samples surely exceeds that of row j; never where a row has NaN."""
    mean = values.mean(1)
    centred = values - mean[:, None]
    moments = centred @ centred.T / max(n - 1, 1)
    spread = moments.diagonal()
    variance = (spread[:, None] + spread - 2 * moments).clamp(min=0)
    return mean[:, None] - mean > half_width(variance, n, num, alpha)


def rescore_adaptively(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    *,
    num: int = 1000,
    top: int = 10,
    order: bool = False,
    confidence: float = 0.95,
    step: float = 2.0,
    seed: int = 0,
    places: Sequence[Placement] | None = None,
    num_random: int = 20,
    permuted: Sequence[Boundary] = (),
    step_mode: StepMode = "official",
    batch_size: int | None = None,
    images_at_once: int | None = None,
    engine: Engine | None = None,
    open_models: OpenModels | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Adaptive:
    """`higan.rescoring.rescore`, measuring only what is still open.

    Originals of all ``num`` samples are scored first, because every comparison between concepts needs their standard
    deviations. Every cell gets at least one batch.

    Args:
        generator: draws.
        scorer: scores.
        boundaries: one per concept.
        num: K, the most samples any cell gets.
        top: k, how many strongest concepts to settle.
        order: also settle the order among them.
        confidence: with which everything settled is what all K samples would say.
        step: λ.
        seed: chooses samples and random directions.
        places: sets of layers; all together and each alone must be among them.
        num_random: R, number of random directions.
        permuted: directions fitted to permuted scores.
        step_mode: see `higan.editing.edit_step`.
        batch_size: samples between two looks; at least 16. By default 32, or 16 where K is below 512: the first look
            measures everything, which would be an eighth of the work already.
        images_at_once: see `higan.rescoring.rescore`.
        engine: where edits are drawn and scored; None is this process. Every look is decided here, but workers and
            their models stay from look to look. Engine and number of workers change no bit, provided that workers are
            alike and draw with as many threads.
        open_models: how workers of an engine open generator and scorer.
        checkpoint: keeps finished batches.
        progress: called with images done and the most there can be; at the end with what was drawn, twice.

    Raises:
        ValueError: as `rescore`, or a batch too small to judge from, or places that lack what is to be settled,
            or an engine without a way to open the models.
        EngineError, RunMismatchError: see `higan.spread.spread`.
    """
    if batch_size is None:
        batch_size = _SMALLEST_BATCH if num < _LARGE else 2 * _SMALLEST_BATCH
    if batch_size < _SMALLEST_BATCH:
        raise ValueError(f"batch_size must be at least {_SMALLEST_BATCH} to judge a variance from; got {batch_size}")
    plan = plan_of(
        generator,
        scorer,
        boundaries,
        num=num,
        step=step,
        seed=seed,
        places=places,
        num_random=num_random,
        permuted=permuted,
        step_mode=step_mode,
        batch_size=batch_size,
        images_at_once=images_at_once,
    )
    race = Race(plan.places, len(boundaries), num, generator.num_layers, top, order, confidence)
    budget = cost(len(boundaries), plan.places, num=num, num_random=num_random, num_permuted=len(permuted))
    seeds = sample_seeds(num, seed=seed, purpose="verify")
    key = f"adaptively-{key_of(plan, seed, num, batch_size)}"
    ledger = _Ledger.empty(plan, num)
    done = 0

    def tell(images: int, most: int = budget) -> None:
        if progress is not None:
            progress(done + images, most)

    batches = torch.split(seeds, batch_size)
    wanted = torch.ones(len(plan.directions), len(plan.places), dtype=torch.bool)
    with crew_of(plan, engine, open_models) as crew:
        ledger.originals[:] = _originals(crew, plan, batches, checkpoint, f"{key}-originals", tell)
        done = num
        std = plan.score_std(ledger.originals)
        for index, batch in enumerate(batches):
            start = index * batch_size
            n = start + len(batch)
            unit = _load(checkpoint, key, index)
            if unit is None or not torch.equal(unit["wanted"], wanted):
                unit = _look(crew, plan, batch, ledger.originals[start:n], wanted, tell) | {"wanted": wanted}
                _save(checkpoint, key, index, unit)
            done += len(batch) * plan.num_edits(wanted)
            tell(0)
            ledger.add(unit, wanted, start, len(batch))
            race.update(ledger.changes[..., :n], std, ledger.nulls(race.everything, num_random))
            cells, null = race.wanted()
            wanted = plan.aligned(torch.cat([cells, null.expand(len(plan.directions) - len(boundaries), -1)]))
            if not bool(wanted.any()):
                break
    tell(0, done)  # No more is needed, whatever there could have been.
    return _summary(
        plan,
        race,
        ledger,
        std,
        seeds,
        num_random,
        step=step,
        step_mode=step_mode,
        seed=seed,
        images=done,
        budget=budget,
    )


def _originals(
    crew: Crew[Piece],
    plan: Plan,
    batches: Sequence[Tensor],
    checkpoint: Checkpoint | None,
    key: str,
    tell: Callable[[int], None],
) -> Float[Tensor, "K C"]:
    """Scores of all samples as they are; batches that the checkpoint knows are not drawn again."""
    units = {index: unit for index in range(len(batches)) if (unit := _load(checkpoint, key, index)) is not None}
    kept = sum(len(batches[index]) for index in units)
    nothing = torch.zeros(len(plan.directions), len(plan.places), dtype=torch.bool)
    todo = {Piece.of(batch, nothing): index for index, batch in enumerate(batches) if index not in units}
    for piece, made in gather(crew, plan, list(todo), lambda images: tell(kept + images)):
        _save(checkpoint, key, todo[piece], made)
        units[todo[piece]] = made
    return torch.cat([units[index]["originals"] for index in range(len(batches))])


def _look(
    crew: Crew[Piece], plan: Plan, seeds: Tensor, originals: Tensor, wanted: Tensor, tell: Callable[[int], None]
) -> dict[str, Tensor]:
    """What is wanted of these samples, made in pieces of few samples, so that what comes before an edit is drawn once.

    Their size depends on how much is wanted, never on who makes them: pieces of other sizes round otherwise.
    """
    size, edits, calls = _FEWEST_SAMPLES, plan.num_edits(wanted), len(plan.queues(wanted))
    while size < len(seeds) and size * edits < _FEWEST_IMAGES * calls:
        size *= 2
    parts = zip(seeds.split(size), originals.split(size), strict=True)
    pieces = [Piece.of(some, wanted, scores) for some, scores in parts]
    made = dict(gather(crew, plan, pieces, tell))
    return together([made[piece] for piece in pieces])


def _load(checkpoint: Checkpoint | None, key: str, index: int) -> dict[str, Tensor] | None:
    found = None if checkpoint is None else checkpoint.load(key, index)
    return None if found is None else dict(found)


def _save(checkpoint: Checkpoint | None, key: str, index: int, unit: dict[str, Tensor]) -> None:
    if checkpoint is not None:
        checkpoint.save(key, index, unit)


@dataclass(slots=True, eq=False)
class _Ledger:
    """What was measured so far: changes sample by sample, the rest as sums with their counts."""

    originals: Tensor
    changes: Tensor
    effects: Tensor
    null: Tensor
    null_changes: Tensor
    null_rises: Tensor
    counts: Tensor
    null_counts: Tensor

    @classmethod
    def empty(cls, plan: Plan, num: int) -> _Ledger:
        C, P, N = len(plan.columns), len(plan.places), len(plan.directions)
        return cls(
            originals=torch.empty(num, C),
            changes=torch.full((C, P, num), math.nan),
            effects=torch.zeros(C, P, C, dtype=torch.float64),
            null=torch.zeros(N - C, P, C, dtype=torch.float64),
            null_changes=torch.full((C, P, num), math.nan),
            null_rises=torch.full((N - C, C, num), math.nan),
            counts=torch.zeros(C, P, dtype=torch.int64),
            null_counts=torch.zeros(P, dtype=torch.int64),
        )

    def add(self, unit: dict[str, Tensor], wanted: Bool[Tensor, "N P"], start: int, size: int) -> None:
        """One batch."""
        C = len(self.counts)
        measured = ~unit["changes"].isnan()
        self.changes[..., start : start + size] = unit["changes"]
        self.effects += unit["effects"]
        self.null += unit["null"]
        self.null_changes[..., start : start + size] = unit["null_changes"]
        self.null_rises[..., start : start + unit["null_rises"].shape[-1]] = unit["null_rises"]
        self.counts += measured.sum(-1)
        self.null_counts += size * wanted[C:].any(0)

    def nulls(self, everything: int, num_random: int) -> list[Tensor]:
        """What scores gained under random directions at all layers, and under permuted ones if there are any."""
        rises = self.null_rises[..., : int(self.null_counts[everything])]
        return [part for part in (rises[:num_random], rises[num_random:]) if len(part)]


def _summary(
    plan: Plan,
    race: Race,
    ledger: _Ledger,
    std: Tensor,
    seeds: Tensor,
    num_random: int,
    *,
    step: float,
    step_mode: StepMode,
    seed: int,
    images: int,
    budget: int,
) -> Adaptive:
    concepts = tuple(plan.scorer.concepts[column] for column in plan.columns)
    null = (ledger.null / ledger.null_counts[:, None]).float()
    rescoring = Rescoring(
        concepts=concepts,
        placements=plan.places,
        step=step,
        seeds=seeds,
        originals=ledger.originals,
        changes=ledger.changes,
        effects=(ledger.effects / ledger.counts[..., None]).float(),
        null=null[:num_random],
        score_std=std.float(),
        permuted=null[num_random:] if len(null) > num_random else None,
        steps=plan.steps.cpu().float().contiguous(),
        step_mode=step_mode,
        image_changes=plan.image_changes(seed) if step_mode == "equal_change" else None,
        null_counts=ledger.null_counts,
        null_changes=ledger.null_changes,
    )
    top, peaks = race.verdict(ledger.changes, std)
    return Adaptive(
        rescoring=rescoring,
        counts=ledger.counts,
        top=tuple(concepts[c].name for c in top),
        top_decided=race.top_decided,
        peaks=tuple(None if layer < 0 else layer for layer in peaks),
        peaks_decided=tuple(race.peaks_decided.tolist()),
        images=images,
        budget=budget,
    )
