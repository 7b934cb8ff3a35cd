"""How far to go: steps for an amount in standard deviations, or until a score is reached."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from higan.boundaries import code_spread
from higan.editing import apply
from higan.layers import check_layers
from higan.population import render, sample, sample_seeds, score
from higan.recipes import format_layers
from higan.statistics import signed, standardise
from higan.types import Boundary, Edit, Generator, Rescoring
from higan.workbench.bench import Workbench

__all__ = ["FURTHER", "REACH", "Reached", "ShortError", "approach", "calibrate", "reach", "response", "spread"]

REACH = 6.0
"""Standard deviations of the codes along a normal, as far as codes are found."""
_CALIBRATION = 24
_PIXELS = 2**24
"""Of pictures that are drawn together on a GPU."""
_STEPS = 14
_CLOSE = 0.05
"""Share of an amount that it may be missed by."""
_DOUBLINGS = range(-3, 5)
FURTHER = 2.0 ** max(_DOUBLINGS)
"""Times as far as codes are found that single layers may take."""
_NEARLY = 0.8
_NOTICED = 0.1
"""Standard deviations below which a gain may be chance."""


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
    limit = REACH * spread(bench.generator, boundary, layers)
    first, longest = (limit / 16, limit) if guess is None else (min(abs(guess), limit), limit * FURTHER)
    looks = itertools.count(1)
    most = 2 + math.ceil(math.log2(longest / first)) + _STEPS

    def gain(steps: float) -> float:
        gained = sign * float(change(sign * steps).mean())
        _tell(bench, f"{boundary.concept.name} {sigmas:+g} σ", next(looks), most)
        return gained

    steps, gained = _sought(gain, wanted, first, longest)
    _tell(bench, f"{boundary.concept.name} {sigmas:+g} σ", most, most)
    if gained < _NEARLY * wanted:
        raise ShortError(
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

    unit = REACH * spread(bench.generator, boundary, layers)
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


class ShortError(ValueError):
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
    longest = REACH * spread(bench.generator, boundary, layers) if limit is None else limit
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


def spread(generator: Generator, boundary: Boundary, layers: Sequence[int], *, num: int = 512) -> float:
    """How far sampled codes vary along a boundary's normal, see `higan.boundaries.code_spread`; 1 if not at all."""
    codes = sample(generator, sample_seeds(num))
    return code_spread(boundary, codes[:, :1] if generator.shared_code else codes, layers) or 1.0


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
    several = len(codes)
    if bench.generator.device.type != "cpu":
        several = max(1, _PIXELS // bench.generator.resolution**2)
    parts = [score(bench.scorer, render(bench.generator, part))[:, column].cpu() for part in codes.split(several)]
    return torch.cat(parts)


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
