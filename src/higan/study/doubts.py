"""What makes the numbers of a study mean little, in sentences: too few samples, a step that is too long or too short.

Too few directions are told of by `higan.study.scanty`.
"""

from __future__ import annotations

from higan import store
from higan.boundaries import held_out
from higan.editing import StepMode
from higan.study.making import in_sigmas
from higan.study.record import steps_of

__all__ = ["far_or_short", "few_probed", "few_verified", "mostly_ties"]

_TOLD = 10
"""Names in a sentence."""

_HELD_OUT = 10
"""Samples held out from which on hardly a boundary of mere chance, one in 2^10, is right about all of them."""

_VERIFIED = 6
"""Samples from which on 95 % intervals hold the truth in more than nine cases of ten: with 2 it is two in three."""

_FAR = 20.0
"""Standard deviations of the codes: λ = 2 is some six in the embedded generator, a sample's codes lie within three."""

_SHORT = 0.25
"""Of the codes too: the score of a perfect boundary then moves by as many of its own, others by a tenth of that."""


def few_probed(num: int, *, num_extreme: int | float = 2000) -> tuple[str, ...]:
    """What to say of N samples to probe that tell next to nothing about a boundary; mostly nothing.

    Raises:
        ValueError: fewer than can be fitted to, or as for `higan.boundaries.fit`.
    """
    told = held_out(num, num_extreme=num_extreme)
    if told >= _HELD_OUT:
        return ()
    return (
        f"Held-out accuracy is told by {told} samples of {num}: one in {2**told} boundaries of mere chance is right "
        "about all of them. Probe hundreds at the least, better thousands (--num).",
    )


def few_verified(num: int) -> tuple[str, ...]:
    """What to say of K samples to re-score whose 95 % intervals are too short; mostly nothing."""
    if num >= _VERIFIED:
        return ()
    return (
        f"95 % intervals from {num} re-scored samples are too short, and may hold the truth in two cases of three "
        f"only; give --verify {_VERIFIED} or more, better {10 * _VERIFIED}.",
    )


def mostly_ties(run: store.Run) -> tuple[str, ...]:
    """What to say of boundaries for which most of either class was chosen among equal scores; mostly nothing.

    With so few samples that have any of a concept the classes differ by less than half, and even who knew the scores
    would be wrong about a quarter of their samples. Classes of those samples alone give better directions.
    """
    outcome = steps_of(run).get("fit", {}).get("outcome") or {}
    mixed = outcome.get("mixed") or {}
    if not mixed:
        return ()
    names = ", ".join(f"{name} ({count:,})" for name, count in list(mixed.items())[:_TOLD])
    more = f" and {len(mixed) - _TOLD} more" if len(mixed) > _TOLD else ""
    return (
        f"In classes of {outcome['class']:,} samples most have one and the same score, so that it is chance which are "
        f"in which, and boundaries learn from the others alone: {names}{more}. Take smaller classes (--num-extreme), "
        "or probe more samples (--num).",
    )


def far_or_short(run: store.Run, step: float, mode: StepMode = "official") -> tuple[str, ...]:
    """What to say of a λ that takes codes to where no sample lies, or hardly from where they are; mostly nothing.

    Raises:
        RunError: boundaries have not been fitted, or their file is damaged.
    """
    sigmas = abs(in_sigmas(run, step, mode))
    if sigmas > _FAR:
        meaning = "no sample lies there, and pictures need not mean anything"
    elif sigmas < _SHORT:
        meaning = "a score that follows its boundary to the letter hardly moves, and effects may pass for chance"
    else:
        return ()
    size = f"{sigmas:,.0f}" if sigmas >= 1 else f"{sigmas:.2g}"
    return (
        f"λ = {step:g} is {size} standard deviations of the codes along the boundaries' normals, mean over concepts: "
        f"{meaning}. Three standard deviations are --step {3 * step / sigmas:.2g}.",
    )
