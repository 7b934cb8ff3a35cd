"""A generator with everything that editing needs at hand; from edits as people write them to edited codes.

One line edits a picture::

    picture = edit(open_workbench(run, generator, scorer), ["indoor_lighting=+2", "view_yaw=-1.5@0-1"], seed=7)
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from higan.boundaries import project_out
from higan.editing import apply
from higan.errors import RunMismatchError
from higan.layers import check_layers
from higan.population import Progress, render, sample, sample_seeds, score
from higan.recipes import Instruction, Loan, Move, Recipe, check_consistent, digest_of_normal, format_layers, parse
from higan.statistics import WORTHWHILE, signed, standard_errors, standardise
from higan.store import Run, load_boundaries, load_rescoring
from higan.trial import check_same
from higan.types import Boundary, Edit, Generator, Placement, Rescoring, Scorer

__all__ = [
    "Edited",
    "Reached",
    "Workbench",
    "approach",
    "calibrate",
    "digest_of_codes",
    "draw",
    "edit",
    "layers_of",
    "open_workbench",
    "plan",
    "promising",
    "reach",
    "recommend",
    "recommendations",
    "repeat",
    "response",
    "with_directions",
]

_REACH = 6.0
_CALIBRATION = 24
_STEPS = 14
_CLOSE = 0.05
"""Share of an amount that it may be missed by."""
_DOUBLINGS = range(-3, 5)
_FURTHER = 2.0 ** max(_DOUBLINGS)
"""Times as far as codes are found that single layers may take."""
_NEARLY = 0.8
_NOTICED = 0.1
"""Standard deviations below which a gain may be chance."""


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What edits are made with.

    ``scorer`` is needed to reach scores, ``rescoring`` to recommend layers and for amounts in standard deviations.
    ``weights`` is the digest of the generator's weight file, written into recipes. ``progress`` is told what is being
    looked for, and how many of at most how many looks have been taken. ``advice`` are the layers of directions that no
    re-scoring has seen, where an edit names none.
    """

    generator: Generator
    boundaries: Mapping[str, Boundary]
    scorer: Scorer | None = None
    rescoring: Rescoring | None = None
    weights: str = ""
    progress: Callable[[str, int, int], None] | None = None
    advice: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def instructions(self, edits: Sequence[str | Instruction]) -> tuple[Instruction, ...]:
        """Edits from text."""
        return tuple(e if isinstance(e, Instruction) else parse(e, self.generator.num_layers) for e in edits)

    def column(self, concept: str) -> int:
        """The scorer's column of a concept.

        Raises:
            ValueError: there is no scorer, or it does not know the concept.
        """
        if self.scorer is None:
            raise ValueError(f"a scorer is needed to tell how much there is of {concept!r}; none was given")
        names = [c.name for c in self.scorer.concepts]
        if concept not in names:
            raise ValueError(f"scorer {self.scorer.name!r} has no concept {concept!r}; it knows {', '.join(names)}")
        return names.index(concept)


def open_workbench(run: Run, generator: Generator, scorer: Scorer | None = None) -> Workbench:
    """The workbench of a finished run.

    Raises:
        RunError: boundaries or re-scoring are missing.
        ValueError: the run was made with a generator of another shape.
        RunMismatchError: generator or scorer draw or score its first sample otherwise.
    """
    boundaries = load_boundaries(run)
    shape = tuple(boundaries[0].normal.shape)
    if shape not in ((generator.code_dim,), (generator.num_layers, generator.code_dim)):
        raise ValueError(
            f"the run's boundaries have shape {shape}; {generator.name!r} has {generator.num_layers} layers and codes "
            f"of width {generator.code_dim}: open the run with its own generator"
        )
    check_same(run, generator, scorer)
    digests = run.settings.get("digests", {})
    weights = next((digest for name, digest in digests.items() if name.startswith("generator ")), "")
    by_name = {boundary.concept.name: boundary for boundary in boundaries}
    return Workbench(generator, by_name, scorer, load_rescoring(run), weights)


def with_directions(
    bench: Workbench, directions: Sequence[Boundary], advice: Mapping[str, tuple[int, ...]]
) -> Workbench:
    """The same with directions of other origin, such as discovered or published ones, under their own names.

    Args:
        bench: what there is already.
        directions: normals (D,) or (L, D) in the generator's code space.
        advice: layers by name.

    Raises:
        ValueError: a name that is there already, a normal of another shape, or layers that do not exist.
    """
    generator, names = bench.generator, [direction.concept.name for direction in directions]
    if taken := [name for k, name in enumerate(names) if name in bench.boundaries or name in names[:k]]:
        raise ValueError(f"directions need names that are not taken; give other names to {', '.join(taken)}")
    shapes = (generator.code_dim,), (generator.num_layers, generator.code_dim)
    for direction in directions:
        if tuple(direction.normal.shape) not in shapes:
            raise ValueError(
                f"{direction.concept.name!r} has shape {tuple(direction.normal.shape)}; directions of "
                f"{generator.name!r} have {' or '.join(map(str, shapes))}"
            )
        check_layers(advice.get(direction.concept.name, (0,)), generator.num_layers)
    more = {direction.concept.name: direction for direction in directions}
    return replace(bench, boundaries={**bench.boundaries, **more}, advice={**bench.advice, **advice})


# --- where ------------------------------------------------------------------------------------------------------------


def recommend(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> Placement:
    """The layers at which an edit changes most of what is wanted for what is not.

    For every placement of the re-scoring, wanted is the mean change of the concept's own score, less 1.64 standard
    errors (the lower end of a one-sided 95 % interval) unless that leaves nothing anywhere; unwanted is the root mean
    square over all other scores of their mean changes (`Rescoring.effects`); both in standard deviations. Among the
    placements whose mean change reaches at least the share ``least`` of the largest, the one with the largest ratio of
    the two is taken: a placement that does next to nothing would need steps far outside the codes. Of ratios that
    differ by less than a tenth, which is about what some hundred samples can tell, the one with the fewest layers.

    Raises:
        ValueError: unknown concept, or its score rises at no placement.
    """
    return recommendations(rescoring, concept, least=least)[0]


def recommendations(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> tuple[Placement, ...]:
    """What `recommend` gives, then the other placements that reach the share ``least``, by their ratios.

    Raises:
        ValueError: as for `recommend`.
    """
    c, wanted, strong = _strong(rescoring, concept, least)
    sure = wanted - 1.64 * standardise(rescoring, standard_errors(rescoring))[c]
    gain = sure if bool((sure[strong] > 0).any()) else wanted
    ratio = torch.where(strong, gain / _unwanted(rescoring, c), -torch.inf)
    best = [p for p, r in enumerate(ratio.tolist()) if r >= 0.9 * float(ratio.max())]
    first = min(best, key=lambda p: len(rescoring.placements[p].layers))
    others = [p for p in ratio.argsort(descending=True).tolist() if bool(strong[p]) and p != first]
    return tuple(rescoring.placements[p] for p in (first, *others))


def promising(rescoring: Rescoring, concept: str, *, least: float = WORTHWHILE) -> tuple[Placement, ...]:
    """The placements whose mean change of the concept's own score reaches the share ``least`` of the largest.

    Raises:
        ValueError: as for `recommend`.
    """
    _, _, strong = _strong(rescoring, concept, least)
    return tuple(placement for placement, s in zip(rescoring.placements, strong.tolist(), strict=True) if s)


def _strong(rescoring: Rescoring, concept: str, least: float) -> tuple[int, Float[Tensor, " P"], Bool[Tensor, " P"]]:
    """A concept's row, the mean changes of its own score in standard deviations, and where they are large enough."""
    names = [c.name for c in rescoring.concepts]
    if concept not in names:
        raise ValueError(f"unknown concept {concept!r}; this re-scoring holds {', '.join(names)}")
    c = names.index(concept)
    wanted = standardise(rescoring, signed(rescoring))[c]
    if not float(wanted.max()) > 0:
        raise ValueError(f"no layers raise {concept!r}: say which to edit it at all the same")
    return c, wanted, wanted >= least * wanted.max()


def _unwanted(rescoring: Rescoring, c: int) -> Float[Tensor, " P"]:
    """Root mean square change of all other scores, in standard deviations; never quite zero."""
    others = torch.tensor([k != c and float(rescoring.score_std[k]) > 0 for k in range(len(rescoring.concepts))])
    changes = standardise(rescoring, rescoring.effects[c].T)[others]
    # What the means of K samples cannot resolve must not decide.
    noise = 1 / math.sqrt(len(rescoring.seeds)) / 10
    return (changes.square().sum(0) / max(int(others.sum()), 1)).sqrt() + noise


# --- how far ----------------------------------------------------------------------------------------------------------


def response(rescoring: Rescoring, concept: str, layers: Sequence[int]) -> float | None:
    """Standard deviations by which the score rises per step at these layers; None where that was not measured.

    Nor was it where the re-scoring moved some of the layers further than others (step mode ``equal_step``).
    """
    names = [c.name for c in rescoring.concepts]
    for p, placement in enumerate(rescoring.placements):
        step = rescoring.step_at(p)
        if set(placement.layers) == set(layers) and concept in names and step is not None:
            change = standardise(rescoring, signed(rescoring))[names.index(concept), p]
            return float(change) / step
    return None


def calibrate(
    bench: Workbench, boundary: Boundary, layers: Sequence[int], sigmas: float, *, guess: float | None = None
) -> float:
    """Steps that change the boundary's own score by ``sigmas`` standard deviations on average over samples.

    A score seldom follows the step evenly, and backwards hardly ever as it does forwards. Samples that probing never
    used are moved: 24 by the guess, which is taken if the amount lies within two standard errors and a fifth of their
    mean change; else 96 further and further and then in between, until their mean change is within a twentieth of the
    amount. Four fifths of it are taken where twice as many steps do not get there.

    Args:
        bench: with a scorer that knows the boundary's concept.
        boundary: its normal is followed, backwards where ``sigmas`` is below zero.
        layers: to be edited.
        sigmas: not zero.
        guess: steps to try first, by what was measured; then a step may be longer than codes are found, which single
            layers often need, as long as samples go along.

    Raises:
        ValueError: not to be had within six standard deviations of the codes along the normal, or with a guess within
            sixteen times as many.
    """
    sign = math.copysign(1.0, sigmas)
    wanted = abs(sigmas)
    if guess is not None:
        changes = sign * _changes(bench, boundary, layers, _fresh(bench, _CALIBRATION))(guess)
        error = float(changes.std()) / math.sqrt(len(changes))
        if abs(float(changes.mean()) - wanted) <= max(_CLOSE * wanted, min(2 * error, (1 - _NEARLY) * wanted)):
            return guess
    change = _changes(bench, boundary, layers, _fresh(bench, 4 * _CALIBRATION))
    limit = _REACH * spread(bench.generator, boundary)
    first, longest = (limit / 16, limit) if guess is None else (min(abs(guess), limit), limit * _FURTHER)
    looks = itertools.count(1)
    most = 2 + math.ceil(math.log2(longest / first)) + _STEPS

    def gain(steps: float) -> float:
        gained = sign * float(change(sign * steps).mean())
        _tell(bench, f"{boundary.concept.name} {sigmas:+g} σ", next(looks), most)
        return gained

    steps, gained = _sought(gain, wanted, first, longest)
    _tell(bench, f"{boundary.concept.name} {sigmas:+g} σ", most, most)
    if gained < _NEARLY * wanted:
        raise _ShortError(
            f"{boundary.concept.name!r} moves by {sign * gained:+.2f} of {sigmas:+g} standard deviations at layers "
            f"{format_layers(layers)} after {sign * steps:+.3g} steps; ask for less, or choose other layers",
            share=gained / wanted,
        )
    return sign * steps


def _tell(bench: Workbench, what: str, done: int, total: int) -> None:
    if bench.progress is not None:
        bench.progress(what, done, total)


def _sought(gain: Callable[[float], float], wanted: float, first: float, longest: float) -> tuple[float, float]:
    """Steps whose gain is what is wanted, to within a twentieth, and that gain; else those that gain most.

    Steps double until they gain enough, or have lost half of what they had gained; what is nearly there gets one more
    doubling: pictures would pay for the rest.
    """
    least, most = (1 - _CLOSE) * wanted, (1 + _CLOSE) * wanted
    tries = [(gain(first), first)]
    while tries[-1][0] < least:
        gained, steps = tries[-1]
        best = max(tries)
        turned = best[0] > _NOTICED and gained < best[0] / 2
        if steps >= longest or turned or any(g >= _NEARLY * wanted for g, _ in tries[:-1]):
            return best[1], best[0]
        steps = min(2 * steps, longest)
        tries.append((gain(steps), steps))
    low, high = tries[-2] if len(tries) > 1 else (0.0, 0.0), tries[-1]
    for _ in range(_STEPS):
        if high[0] <= most:
            break
        # Where the line between the two would be there; never so near to one of them that nothing is learnt.
        share = min(max((wanted - low[0]) / (high[0] - low[0]), 0.1), 0.9)
        steps = low[1] + share * (high[1] - low[1])
        gained = gain(steps)
        low, high = ((gained, steps), high) if gained < least else (low, (gained, steps))
    return high[1], high[0]


def approach(
    bench: Workbench, boundary: Boundary, layers: Sequence[int], sigmas: float, codes: Float[Tensor, "n L D"]
) -> tuple[float, float]:
    """The shortest steps found that raise the boundary's own score by ``sigmas``, or by four fifths of what can be had.

    A score rises with the step until pictures fall apart, and then it turns, so that the response per step does not
    tell how far to go. Steps double until the score is there, or has lost half of what it had gained. Single layers
    take more than all together: the last try is 96 standard deviations of the codes.

    Args:
        bench: with a scorer that knows the boundary's concept.
        boundary: its normal is followed.
        layers: to be edited.
        sigmas: above zero, on average over the samples.
        codes: of the samples to be moved.

    Returns:
        Steps, and the standard deviations that they gain; both zero where nothing is gained.
    """
    changes = _changes(bench, boundary, layers, codes)

    def change(steps: float) -> float:
        return float(changes(steps).mean())

    unit = _REACH * spread(bench.generator, boundary)
    tries = [(0.0, 0.0)]
    for doubling in _DOUBLINGS:
        steps = unit * 2.0**doubling
        gain = change(steps)
        if gain >= sigmas:
            steps = _shortest(lambda step: change(step) >= sigmas, tries[-1][0], steps)
            return steps, change(steps)
        most = max(gained for _, gained in tries)
        if most > _NOTICED and gain < most / 2:
            break
        tries.append((steps, gain))
    best = max(tries, key=lambda t: t[1])
    between = [best[0] * factor for factor in (math.sqrt(0.5), math.sqrt(2))] if best[0] else []
    tries += [(steps, change(steps)) for steps in between]
    most = max(gained for _, gained in tries)
    return min(t for t in tries if t[1] >= _NEARLY * most)


def _shortest(enough: Callable[[float], bool], low: float, high: float) -> float:
    """The end of the bisected interval at which it is enough."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _fresh(bench: Workbench, num: int) -> Float[Tensor, "n L D"]:
    """Codes that probing and re-scoring never used."""
    return sample(bench.generator, sample_seeds(num, purpose="verify", first=2**20))


def _changes(
    bench: Workbench, boundary: Boundary, layers: Sequence[int], codes: Float[Tensor, "n L D"]
) -> Callable[[float], Float[Tensor, " n"]]:
    """How a boundary's own score changes when samples are moved so many steps, in standard deviations."""
    column = bench.column(boundary.concept.name)
    before = _score_together(bench, codes, column)
    std = _std(bench, boundary.concept.name)

    def change(step: float) -> Float[Tensor, " n"]:
        moved = apply(codes, [Edit(boundary, step, tuple(layers))])
        return (_score_together(bench, moved, column) - before) / std

    return change


class _ShortError(ValueError):
    """An amount is not to be had; how much of it is."""

    def __init__(self, message: str, *, share: float) -> None:
        super().__init__(message)
        self.share = share


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """Per sample the shortest edit found that takes its score to the target; the last try where ``reached`` is false.

    The score moves with the strength, but not evenly: scores end at or beyond the target, seldom exactly on it.
    """

    strengths: Float[Tensor, " n"]
    scores: Float[Tensor, " n"]
    reached: Bool[Tensor, " n"]


def reach(
    bench: Workbench,
    codes: Float[Tensor, "n L D"],
    boundary: Boundary,
    layers: Sequence[int],
    target: float,
    *,
    below: bool = False,
    limit: float | None = None,
) -> Reached:
    """How far each sample must move for its own score to reach ``target``: bisection, sample by sample.

    Samples that are there already stay. The search goes outwards in growing steps until the target is passed, then
    halves the last interval.

    Args:
        bench: with a scorer that knows the boundary's concept.
        codes: where to start.
        boundary: its normal is followed, backwards where ``below``.
        layers: to be edited.
        target: in units of the score.
        below: whether scores shall fall to the target instead of rising to it.
        limit: the longest edit; by default six standard deviations of the codes along the normal.

    Raises:
        ValueError: no scorer, bad layers, or a limit or target that is not finite.
    """
    check_layers(layers, bench.generator.num_layers)
    column = bench.column(boundary.concept.name)
    longest = _REACH * spread(bench.generator, boundary) if limit is None else limit
    if not (math.isfinite(target) and math.isfinite(longest) and longest > 0):
        raise ValueError(f"target and limit must be finite, the limit above 0; got {target} and {limit}")
    sign = -1.0 if below else 1.0
    n = len(codes)
    low, high = torch.zeros(n), torch.zeros(n)
    scores = _score(bench, codes, column)
    done = sign * scores >= sign * target
    for fraction in (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0):
        if bool(done.all()):
            break
        low, high = torch.where(done, low, high), torch.where(done, high, fraction * longest)
        scores[~done] = _moved_score(bench, codes, boundary, layers, sign * high, column, ~done)
        done = sign * scores >= sign * target
    search = done & (high > 0)
    for _ in range(_STEPS if bool(search.any()) else 0):
        middle = (low + high) / 2
        tried = scores.clone()
        tried[search] = _moved_score(bench, codes, boundary, layers, sign * middle, column, search)
        there = search & (sign * tried >= sign * target)
        low, high = torch.where(there | ~search, low, middle), torch.where(there, middle, high)
        scores = torch.where(there, tried, scores)
    return Reached(sign * high, scores, done)


def spread(generator: Generator, boundary: Boundary, *, num: int = 512) -> float:
    """Standard deviation of sampled codes along a boundary's normal, averaged over layers with their own normals."""
    codes = sample(generator, sample_seeds(num))
    along = (codes * boundary.normal.to(codes)).sum(-1)
    return float(along.std(0, correction=0).mean()) or 1.0


def _moved_score(
    bench: Workbench,
    codes: Tensor,
    boundary: Boundary,
    layers: Sequence[int],
    strengths: Tensor,
    column: int,
    chosen: Tensor,
) -> Float[Tensor, " m"]:
    moved = [
        apply(codes[k : k + 1], [Edit(boundary, float(strengths[k]), tuple(layers))])
        for k in chosen.nonzero().flatten().tolist()
    ]
    return _score(bench, torch.cat(moved), column)


def _score(bench: Workbench, codes: Tensor, column: int) -> Float[Tensor, " n"]:
    scorer = bench.scorer
    if scorer is None:
        raise ValueError("a scorer is needed; none was given")
    # One picture at a time, so that no strength depends on the company it was searched in.
    return torch.cat([score(scorer, render(bench.generator, code[None]))[:, column].cpu() for code in codes])


def _score_together(bench: Workbench, codes: Tensor, column: int) -> Float[Tensor, " n"]:
    """Of many pictures drawn together."""
    if bench.scorer is None:
        raise ValueError("a scorer is needed; none was given")
    return score(bench.scorer, render(bench.generator, codes))[:, column].cpu()


def _std(bench: Workbench, concept: str) -> float:
    """Standard deviation of a score: as the re-scoring found it, else over 200 samples."""
    if bench.rescoring is not None:
        for c, known in enumerate(bench.rescoring.concepts):
            if known.name == concept and float(bench.rescoring.score_std[c]) > 0:
                return float(bench.rescoring.score_std[c])
    codes = sample(bench.generator, sample_seeds(200))
    std = float(_score(bench, codes, bench.column(concept)).std())
    if not std > 0:
        raise ValueError(f"the score of {concept!r} never varies, so that it has no standard deviation to count in")
    return std


# --- what -------------------------------------------------------------------------------------------------------------


def plan(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    codes: Float[Tensor, "n L D"],
    *,
    conditions: Sequence[str] = (),
) -> tuple[tuple[Edit, ...], ...]:
    """For every sample the edits to be carried out, with strengths and layers; the order of edits does not matter.

    Layers that are not given are recommended by the re-scoring (`recommend`); for an amount in standard deviations or a
    score to be reached, they are the first of the `recommendations` at which it is to be had. Amounts in standard
    deviations become steps by `calibrate`, which starts from the response that the re-scoring measured; without a
    scorer, by that response alone. A score to be reached is sought after all other edits have been made.

    Args:
        bench: the generator with its boundaries.
        edits: as text or parsed.
        codes: of the samples to be edited.
        conditions: concepts to be left alone: their directions are projected out of every edit's.

    Raises:
        ValueError: unknown or contradictory edits, or an amount or a score that cannot be reached.
    """
    instructions = bench.instructions(edits)
    check_consistent(instructions, bench.boundaries, conditions)
    others = [bench.boundaries[name] for name in conditions]
    fixed: list[Edit] = []
    targets: list[tuple[Instruction, Boundary]] = []
    for instruction in sorted(instructions, key=str):
        boundary = bench.boundaries[instruction.concept]
        boundary = project_out(boundary, others) if others else boundary
        if instruction.unit in ("at least", "at most"):
            targets.append((instruction, boundary))
        else:
            fixed.append(_measured(bench, instruction, boundary))
    plans = [tuple(fixed)] * len(codes)
    for instruction, boundary in targets:
        reaching = _reaching(bench, instruction, boundary, apply(codes, fixed))
        plans = [(*before, last) for before, last in zip(plans, reaching, strict=True)]
    return tuple(plans)


def layers_of(bench: Workbench, instruction: Instruction) -> tuple[int, ...]:
    """The layers that an edit names, or that the re-scoring recommends for it.

    Raises:
        ValueError: layers that do not exist, none without a re-scoring, or as for `recommend`.
    """
    if instruction.layers is not None:
        check_layers(instruction.layers, bench.generator.num_layers)
        return instruction.layers
    if instruction.concept in bench.advice:
        return bench.advice[instruction.concept]
    if bench.rescoring is None:
        raise ValueError(f"no re-scoring to recommend layers for {instruction.concept!r} by; give them, as in @0-3")
    measured = {concept.name for concept in bench.rescoring.concepts}
    if instruction.concept in bench.boundaries and instruction.concept not in measured:
        raise ValueError(f"nothing says at which layers {instruction.concept!r} belongs; give them, as in @0-3")
    return recommend(bench.rescoring, instruction.concept).layers


def _places(bench: Workbench, instruction: Instruction) -> list[tuple[int, ...]]:
    """The layers that an edit names; else all that are recommended, where it can be seen which of them have it."""
    named = instruction.layers is not None or instruction.concept in bench.advice
    open_to_others = not named and instruction.unit != "steps" and bench.scorer is not None
    if open_to_others and bench.rescoring is not None:
        return [placement.layers for placement in recommendations(bench.rescoring, instruction.concept)]
    return [layers_of(bench, instruction)]


def _measured(bench: Workbench, instruction: Instruction, boundary: Boundary) -> Edit:
    """The edit at the layers that are asked for, or at the first recommended ones where it reaches its amount.

    Raises:
        ValueError: it does so nowhere; of several places the one that came nearest is told.
    """
    short: list[_ShortError] = []
    for layers in _places(bench, instruction):
        try:
            return Edit(boundary, _steps(bench, instruction, boundary, layers), layers)
        except _ShortError as error:
            short.append(error)
    raise max(short, key=lambda error: error.share)


def _steps(bench: Workbench, instruction: Instruction, boundary: Boundary, layers: tuple[int, ...]) -> float:
    if instruction.unit == "steps" or instruction.amount == 0:
        return instruction.amount
    untouched = boundary is bench.boundaries[instruction.concept]
    per_step = None
    if bench.rescoring is not None and (untouched or bench.scorer is not None):
        per_step = response(bench.rescoring, instruction.concept, layers)
    # What others are projected out of answers in its own way; the response of the whole is a first try.
    if per_step is None or (per_step <= 0 and not untouched):
        return calibrate(bench, boundary, layers, instruction.amount)
    if per_step <= 0:
        raise ValueError(f"{instruction.concept!r} does not rise at layers {format_layers(layers)}")
    steps = instruction.amount / per_step
    limit = _REACH * spread(bench.generator, boundary)
    far = f"{instruction.concept!r} would take {steps:+.3g} steps at layers {format_layers(layers)}; codes are found "
    if bench.scorer is None:
        if abs(steps) > limit:
            raise ValueError(
                f"{far}within {limit:.1f}, and there is no scorer to look with; ask for less, or choose other layers"
            )
        return steps
    # A response that is a rise by chance would give millions of steps.
    if abs(steps) > limit * _FURTHER:
        raise ValueError(
            f"{far}within {limit:.1f}: that it rises there was chance; ask for less, or choose other layers"
        )
    return calibrate(bench, boundary, layers, instruction.amount, guess=steps)


def _reaching(
    bench: Workbench, instruction: Instruction, boundary: Boundary, start: Float[Tensor, "n L D"]
) -> list[Edit]:
    """For every sample, whatever its company, the edit at the first layers where its score gets there.

    Raises:
        ValueError: a sample's does nowhere; the place where it came nearest is told.
    """
    below = instruction.unit == "at most"
    edits: dict[int, Edit] = {}
    ends: dict[int, tuple[float, Edit]] = {}
    for layers in _places(bench, instruction):
        todo = [k for k in range(len(start)) if k not in edits]
        if not todo:
            break
        found = reach(bench, start[todo], boundary, layers, instruction.amount, below=below)
        told = zip(todo, found.reached.tolist(), found.scores.tolist(), found.strengths.tolist(), strict=True)
        for k, there, end, strength in told:
            done = Edit(boundary, strength, layers)
            if there:
                edits[k] = done
            elif k not in ends or (end < ends[k][0]) == below:
                ends[k] = (end, done)
    for k in range(len(start)):
        if k not in edits:
            end, nearest = ends[k]
            raise ValueError(
                f"{instruction.concept!r} cannot reach {instruction.amount:g}: sample {k} of {len(start)} ends at "
                f"{end:.3g} after {nearest.strength:+.1f} steps at layers {format_layers(nearest.layers)}; ask for "
                "less, choose other layers, or start from another sample"
            )
    return [edits[k] for k in range(len(start))]


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    """One edited picture with its code, what was done, and how to do it again."""

    image: UInt8[Tensor, "3 H W"]
    code: Float[Tensor, "L D"]
    edits: tuple[Edit, ...]
    recipe: Recipe


def edit(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    *,
    seed: int | None = None,
    code: Float[Tensor, "L D"] | None = None,
    loans: Sequence[Loan] = (),
    donors: Sequence[Float[Tensor, "L D"]] = (),
    conditions: Sequence[str] = (),
) -> Edited:
    """One sample, by its seed or its code, edited and drawn.

    ``donors`` are the codes that loans name by their digests (`digest_of_codes`).

    Raises:
        ValueError: neither or both of seed and code, a loan without its donor, or as for `plan`.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    recipe = Recipe(
        generator=bench.generator.name,
        weights=bench.weights,
        truncation=tuple(float(t) for t in bench.generator.truncation),
        seed=seed,
        codes=None if code is None else digest_of_codes(code),
        loans=tuple(loans),
        conditions=tuple(conditions),
        asked=tuple(sorted(str(i) for i in bench.instructions(edits))),
        opened=_opened(bench.generator),
    )
    start = _start(bench, recipe, code, donors)
    chosen = plan(bench, edits, start[None], conditions=conditions)[0]
    moves = [Move(e.boundary.concept.name, float(e.strength), e.layers, digest_of_normal(e.boundary)) for e in chosen]
    recipe = replace(recipe, moves=tuple(moves))
    moved = apply(start[None], chosen)
    return Edited(draw(bench.generator, moved)[0], moved[0], chosen, recipe)


def repeat(
    bench: Workbench,
    recipe: Recipe,
    *,
    code: Float[Tensor, "L D"] | None = None,
    donors: Sequence[Float[Tensor, "L D"]] = (),
) -> Edited:
    """The picture of a recipe again, bit for bit on the same device and version of torch.

    Args:
        bench: with the generator and the boundaries that the recipe was made with.
        recipe: from `Edited` or a picture's metadata.
        code: the starting code of a recipe that does not start from a seed.
        donors: codes among which those are that lend layers in the recipe.

    Raises:
        ValueError: the recipe needs a code and none is given, or does not and one is.
        RunMismatchError: generator, how it was opened, code or boundaries are not those of the recipe.
    """
    generator = bench.generator
    truncation = tuple(float(t) for t in generator.truncation)
    made, here = (recipe.weights or recipe.generator, recipe.truncation), (bench.weights or generator.name, truncation)
    if made != here:
        raise RunMismatchError(
            f"this picture was made by {recipe.generator!r} (weights {recipe.weights[:12] or 'unknown'}, truncation "
            f"{recipe.truncation}); here is {generator.name!r} (weights {bench.weights[:12] or 'unknown'}, truncation "
            f"{truncation})"
        )
    _check_opened(recipe, generator)
    if (code is None) != (recipe.codes is None):
        raise ValueError(
            "this picture starts from a seed; leave the code out"
            if code is not None
            else "this picture starts from a code of its own; give the file of codes it was made from"
        )
    if code is not None and digest_of_codes(code) != recipe.codes:
        raise RunMismatchError("the code is not the one that this picture was made from")
    check_consistent([Instruction(m.concept, m.strength, layers=m.layers) for m in recipe.moves], bench.boundaries)
    others = [bench.boundaries[name] for name in recipe.conditions if name in bench.boundaries]
    chosen = []
    for move in recipe.moves:
        boundary = bench.boundaries[move.concept]
        boundary = project_out(boundary, others) if others else boundary
        if digest_of_normal(boundary) != move.normal:
            raise RunMismatchError(f"the boundary of {move.concept!r} is not the one that this picture was made with")
        chosen.append(Edit(boundary, move.strength, move.layers))
    moved = apply(_start(bench, recipe, code, donors)[None], chosen)
    return Edited(draw(generator, moved)[0], moved[0], tuple(chosen), recipe)


def _opened(generator: Generator) -> dict[str, str]:
    """What else than weights and truncation decides what a generator draws; no part of the protocol."""
    config: Any = getattr(getattr(generator, "network", None), "config", None)
    choices = {
        "label": getattr(generator, "label", None),
        "noise": getattr(generator, "noise", None),
        "precision": getattr(generator, "precision", getattr(generator, "dtype", None)),
        # A BigGAN truncates where its latents come from, and no layers.
        "prior": f"truncation {config.truncation}" if hasattr(config, "truncation") else None,
    }
    # Of any other kind they are somebody's own: modules, functions.
    kinds = (str, int, torch.dtype)
    return {name: str(v).removeprefix("torch.") for name, v in choices.items() if isinstance(v, kinds)}


def _check_opened(recipe: Recipe, generator: Generator) -> None:
    here = _opened(generator)
    for choice, made in recipe.opened.items():
        if here.get(choice) != made:
            raise RunMismatchError(
                f"this picture was made with {choice} {made}; here is {here.get(choice, 'none')}: repeat it with the "
                "run that it was made with, or open the generator as it was"
            )


def _start(bench: Workbench, recipe: Recipe, code: Tensor | None, donors: Sequence[Tensor]) -> Float[Tensor, "L D"]:
    """The code before any move: that of the seed or the file, with the layers lent by others."""
    start = (_own(bench, code) if code is not None else sample(bench.generator, [recipe.seed or 0])[0]).clone()
    known = {digest_of_codes(donor): _own(bench, donor) for donor in donors}
    lent: set[int] = set()
    for loan in recipe.loans:
        check_layers(loan.layers, bench.generator.num_layers)
        if lent & set(loan.layers):
            raise ValueError(f"layer {min(lent & set(loan.layers))} is lent by two samples; choose one of them")
        lent |= set(loan.layers)
        if loan.codes is not None and loan.codes not in known:
            raise ValueError(
                f"layers {format_layers(loan.layers)} are lent by a code that is not among the donors given"
            )
        lender = known[loan.codes] if loan.codes is not None else sample(bench.generator, [loan.seed or 0])[0]
        start[list(loan.layers)] = lender[list(loan.layers)]
    return start


def _own(bench: Workbench, code: Tensor) -> Float[Tensor, "L D"]:
    """A code on the generator's device, checked."""
    expected = (bench.generator.num_layers, bench.generator.code_dim)
    if tuple(code.shape) != expected:
        raise ValueError(f"a code of {bench.generator.name!r} has shape {expected}; got {tuple(code.shape)}")
    return code.to(bench.generator.device).float()


def draw(
    generator: Generator, codes: Float[Tensor, "n L D"], progress: Progress | None = None
) -> UInt8[Tensor, "n 3 H W"]:
    """Images of codes, one after the other: the same bits whatever else is drawn with them."""
    images = []
    for done, code in enumerate(codes, 1):
        images.append(render(generator, code[None]).cpu())
        if progress is not None:
            progress(done, len(codes))
    return torch.cat(images)


def digest_of_codes(code: Float[Tensor, "L D"]) -> str:
    """SHA-256 of a code in float32, by which a recipe recognises it."""
    return hashlib.sha256(code.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
