"""What a study will take, said before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from higan import store
from higan.layers import placements
from higan.population import render, sample, score
from higan.rescoring import cost
from higan.types import Generator, Scorer, StagedGenerator

__all__ = ["Cost", "estimate", "unsampled"]

_SLOW = 0.1
"""Seconds per image from which on an estimate looks at single images."""

_LONG = 1.0
"""Seconds after which an estimate does not try again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study will take, measured on a few images of the generator and scorer in hand."""

    images: int
    seconds: float


def estimate(
    generator: Generator,
    scorer: Scorer,
    *,
    num: int,
    verify: int,
    num_random: int,
    num_permuted: int = 0,
    batch_size: int = 64,
    num_concepts: int | None = None,
) -> Cost:
    """Images of a study and the seconds they will take, from timed batches, whole and from every layer on.

    Raises:
        ValueError: a count that is too small.
        GeneratorError, ScorerError: generator or scorer break their contract, found out before work starts.
    """
    for name, value, least in (("num", num, 0), ("verify", verify, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    if num == verify == 0:
        return Cost(0, 0.0)
    size = min(batch_size, 32)
    codes = sample(generator, range(size))
    score(scorer, render(generator, codes))  # the first batch pays for set-up
    images, drawing = _timed(lambda: render(generator, codes))
    _, scoring = _timed(lambda: score(scorer, images))
    whole, judged = drawing / size, scoring / size
    concepts = len(scorer.concepts) if num_concepts is None else num_concepts
    places = placements(generator.num_layers)
    total = num + cost(concepts, places, num=verify, num_random=num_random, num_permuted=num_permuted)
    if not verify:
        return Cost(total, num * (whole + judged))
    starts = [min(layers) for layers in {place.layers for place in places}]
    shares = _drawing_from(generator, codes[:1] if whole > _SLOW else codes, set(starts), whole)
    edits = verify * (concepts + num_random + num_permuted)
    seconds = (num + verify) * (whole + judged) + edits * sum(shares[start] + judged for start in starts)
    return Cost(total, seconds)


def unsampled(run: store.Run) -> int:
    """Samples that `sample_step` has still to make."""
    return sum(len(store.shard_indices(run, shard)) for shard in store.missing_shards(run))


def _drawing_from(generator: Generator, codes: Tensor, starts: set[int], whole: float) -> dict[int, float]:
    """Seconds that an image takes from each of these layers on, where a generator can start there."""
    if not isinstance(generator, StagedGenerator):
        return dict.fromkeys(starts, whole)
    seconds = {0: whole}
    with torch.inference_mode():
        for layer in starts - {0}:
            state = generator.prepare(codes, layer)
            _, taken = _timed(partial(generator.resume, state, codes, layer))
            seconds[layer] = taken / len(codes)
    return seconds


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the seconds it took: the best of three tries, of one where it takes long."""
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
        if best > _LONG:
            break
    return result, best
