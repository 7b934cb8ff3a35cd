"""How much the step matters: curves of Δs against λ, and other step modes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from higan import store
from higan.editing import StepMode
from higan.errors import RunError
from higan.rescoring import check_counts, cost, meaningless_directions, rescore
from higan.responses import chosen, respond, responses_cost
from higan.statistics import rank
from higan.study.opening import check_models
from higan.study.record import forget, record, steps_of
from higan.study.reports import Report, of_step, within
from higan.trial import check_same
from higan.types import Boundary, Concept, Generator, Placement, RaggedGenerator, Rescoring, Responses, Scorer

__all__ = ["Comparison", "compare_cost", "compare_step", "comparison"]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How much the step matters: response curves, and verified concepts re-scored under other step modes, by mode."""

    responses: Responses
    modes: Mapping[str, Rescoring]


def compare_step(
    run: store.Run,
    generator: Generator,
    scorer: Scorer,
    *,
    num: int = 8,
    num_random: int = 8,
    batch_size: int = 64,
    images_at_once: int | None = None,
    report: Report | None = None,
) -> Comparison | None:
    """How much the step matters: response curves both ways, and verified concepts re-scored under other step modes.

    The run's own mode is left out; and where all layers are truncated alike one of ``official`` and ``equal_step``,
    which then differ in the length of the step alone.

    Args:
        run: with boundaries and a re-scoring.
        generator: the run's.
        scorer: the run's.
        num: samples.
        num_random: random directions beside the concepts.
        batch_size: images at a time.
        images_at_once: of the re-scorings; see `higan.rescoring.rescore`.
        report: called after every batch.

    Returns:
        The comparison; None where no concept is verified, so that there is nothing to compare.

    Raises:
        RunError: the run has not been re-scored.
        RunMismatchError: it was begun with another generator or scorer.
        ValueError: fewer than 2 samples, or no random directions.
    """
    check_models(run, generator, scorer)
    settings = {"num": num, "num_random": num_random, "rescore": steps_of(run).get("rescore", {}).get("settings")}
    done = steps_of(run).get("steps", {}).get("settings", {})
    if settings.items() <= done.items() and (kept := comparison(run)) is not None:
        return kept
    plan = _comparison_plan(run, generator, num=num, num_random=num_random)
    if not plan.pairs:
        return None
    check_same(run, generator, scorer)
    start = time.monotonic()
    rescoring, boundaries, others = plan.rescoring, plan.boundaries, plan.modes
    widths = generator.layer_widths if isinstance(generator, RaggedGenerator) else None
    total = plan.curves + plan.each * len(others)
    tell = of_step(report, "steps")
    with store.writing(run):
        responses = respond(
            generator,
            scorer,
            boundaries,
            plan.pairs,
            step=rescoring.step,
            std=dict(zip((c.name for c in rescoring.concepts), rescoring.score_std.tolist(), strict=True)),
            directions=meaningless_directions(boundaries[0], num_random, run.seed, widths),
            num=num,
            seed=run.seed,
            batch_size=batch_size,
            progress=within(tell, 0, total),
        )
        found = {
            mode: rescore(
                generator,
                scorer,
                boundaries,
                num=num,
                step=rescoring.step,
                num_random=num_random,
                places=rescoring.placements,
                step_mode=mode,
                seed=run.seed,
                batch_size=batch_size,
                images_at_once=images_at_once,
                progress=within(tell, plan.curves + k * plan.each, total),
            )
            for k, mode in enumerate(others)
        }
        forget(run, "steps")  # Until all of it is there, what an earlier comparison left does not count.
        store.save_responses(run, responses)
        for mode, other in found.items():
            store.save_rescoring(run, other, f"rescoring-{mode}")
        record(run, "steps", settings | {"modes": others}, time.monotonic() - start)
    return comparison(run)


def compare_cost(run: store.Run, generator: Generator, *, num: int = 8, num_random: int = 8) -> int:
    """Images that `compare_step` will score, if it has not been done.

    Raises:
        RunError: the run has not been re-scored.
        ValueError: fewer than 2 samples, or no random directions.
    """
    plan = _comparison_plan(run, generator, num=num, num_random=num_random)
    return plan.curves + plan.each * len(plan.modes)


@dataclass(frozen=True, slots=True)
class _ComparisonPlan:
    """What is compared, and what it costs: images of the curves, and of each step mode."""

    rescoring: Rescoring
    pairs: tuple[tuple[Concept, Placement], ...]
    boundaries: list[Boundary]
    modes: list[StepMode]
    curves: int
    each: int


def _comparison_plan(run: store.Run, generator: Generator, *, num: int, num_random: int) -> _ComparisonPlan:
    check_counts(num=num, num_random=num_random)
    rescoring = store.load_rescoring(run)
    pairs = chosen(rescoring)
    own = rescoring.step_mode
    left_out = {own}
    if bool((generator.truncation == generator.truncation[0]).all()):
        left_out |= {"equal_step"} if own == "equal_change" else {"official", "equal_step"}
    if not bool((generator.truncation > 0).all()):
        left_out |= {"equal_step"}  # which such a generator has not
    verified = {row.concept.name for row in rank(rescoring, num_resamples=2) if row.verified}
    boundaries = [b for b in store.load_boundaries(run) if b.concept.name in verified]
    return _ComparisonPlan(
        rescoring=rescoring,
        pairs=pairs,
        boundaries=boundaries,
        modes=[m for m in get_args(StepMode) if m not in left_out] if pairs else [],
        curves=responses_cost(pairs, num=num, num_random=num_random),
        each=cost(len(boundaries), rescoring.placements, num=num, num_random=num_random) if boundaries else 0,
    )


def comparison(run: store.Run) -> Comparison | None:
    """What `compare_step` left in a run; None where it has not been done for the run's present re-scoring."""
    steps = steps_of(run)
    settings = steps.get("steps", {}).get("settings", {})
    if not settings or settings.get("rescore") != steps.get("rescore", {}).get("settings"):
        return None
    try:
        modes = {mode: store.load_rescoring(run, f"rescoring-{mode}") for mode in settings["modes"]}
        return Comparison(store.load_responses(run), modes)
    except RunError:
        return None
