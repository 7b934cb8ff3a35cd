"""From edits as people write them to edits that can be carried out: layers and steps for every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from higan.boundaries import project_out
from higan.editing import apply
from higan.layers import check_layers
from higan.recipes import Instruction, check_consistent, format_layers
from higan.types import Boundary, Edit
from higan.workbench.amounts import FURTHER, REACH, ShortError, calibrate, reach, response, spread
from higan.workbench.bench import Workbench
from higan.workbench.where import recommend, recommendations

__all__ = ["OutOfReachError", "Settled", "layers_of", "of_samples", "plan", "settle"]


class OutOfReachError(ValueError):
    """A sample's score does not get to where it shall; another sample's may."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What edits are for all samples alike; the score of ``target`` is to be reached, by each in steps of its own."""

    edits: tuple[Edit, ...]
    target: tuple[Instruction, Boundary] | None = None


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
    return of_samples(bench, settle(bench, edits, conditions=conditions), codes)


def settle(bench: Workbench, edits: Sequence[str | Instruction], *, conditions: Sequence[str] = ()) -> Settled:
    """The part of `plan` that no sample changes, and that takes longest where amounts are looked for.

    Raises:
        ValueError: unknown or contradictory edits, or an amount that cannot be reached.
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
    return Settled(tuple(fixed), next(iter(targets), None))


def of_samples(bench: Workbench, settled: Settled, codes: Float[Tensor, "n L D"]) -> tuple[tuple[Edit, ...], ...]:
    """For every sample the edits to be carried out, those that are settled and what takes its score to the target.

    Raises:
        OutOfReachError: a sample's score does not get there.
    """
    if settled.target is None:
        return (settled.edits,) * len(codes)
    reaching = _reaching(bench, *settled.target, apply(codes, settled.edits))
    return tuple((*settled.edits, last) for last in reaching)


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
    short: list[ShortError] = []
    if instruction.unit != "steps" and bench.scorer is not None:
        bench.column(instruction.concept)
    for layers in _places(bench, instruction):
        try:
            return Edit(boundary, _steps(bench, instruction, boundary, layers), layers)
        except ShortError as error:
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
    limit = REACH * spread(bench.generator, boundary, layers)
    far = f"{instruction.concept!r} would take {steps:+.3g} steps at layers {format_layers(layers)}; codes are found "
    if bench.scorer is None:
        if abs(steps) > limit:
            raise ValueError(
                f"{far}within {limit:.1f}, and there is no scorer to look with; ask for less, or choose other layers"
            )
        return steps
    # A response that is a rise by chance would give millions of steps.
    if abs(steps) > limit * FURTHER:
        raise ValueError(
            f"{far}within {limit:.1f}: that it rises there was chance; ask for less, or choose other layers"
        )
    return calibrate(bench, boundary, layers, instruction.amount, guess=steps)


def _reaching(
    bench: Workbench, instruction: Instruction, boundary: Boundary, start: Float[Tensor, "n L D"]
) -> list[Edit]:
    """For every sample, whatever its company, the edit at the first layers where its score gets there.

    Raises:
        OutOfReachError: a sample's does nowhere; the place where it came nearest is told.
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
            raise OutOfReachError(
                f"{instruction.concept!r} cannot reach {instruction.amount:g}: sample {k} of {len(start)} ends at "
                f"{end:.3g} after {nearest.strength:+.1f} steps at layers {format_layers(nearest.layers)}; ask for "
                "less, choose other layers, or start from another sample"
            )
    return [edits[k] for k in range(len(start))]
