"""Work of a re-scoring on the crew of an engine: pieces of it are made there and kept here.

Of a re-scoring of fixed size all units are known beforehand: `spread` makes them, and `higan.rescoring.rescore`, called
with the same arguments and the same checkpoint, then finds every unit done. What `higan.adaptive` wants next it knows
after every look; it gives its pieces to a crew that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from higan.editing import StepMode
from higan.engines import Crew, Engine, InProcess, Job, Tick
from higan.errors import RunMismatchError
from higan.population import OpenModels, Progress, sample_seeds
from higan.rescoring import Checkpoint, Plan, cost, key_of, plan_of
from higan.types import Boundary, Concept, Generator, Placement, Scorer

__all__ = ["Piece", "crew_of", "gather", "spread"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Samples, and what is wanted of them: all there is, or some edits of samples whose original scores are known.

    Where no edit is wanted, it is the original scores. Arrays instead of tensors, which would travel through shared
    memory.
    """

    seeds: np.ndarray
    wanted: np.ndarray | None = None
    originals: np.ndarray | None = None

    @classmethod
    def of(cls, seeds: Tensor, wanted: Tensor | None = None, originals: Tensor | None = None) -> Piece:
        """From tensors."""
        return cls(seeds.numpy(), *(None if given is None else given.numpy() for given in (wanted, originals)))

    def __str__(self) -> str:
        return f"of samples {self.seeds.min()} … {self.seeds.max()}"

    def images(self, plan: Plan) -> int:
        """How many are drawn."""
        every = torch.ones(len(plan.directions), len(plan.places), dtype=torch.bool)
        edits = plan.num_edits(every if self.wanted is None else torch.from_numpy(self.wanted))
        return len(self.seeds) * (edits + (self.originals is None))


def spread(
    generator: Generator,
    scorer: Scorer,
    boundaries: Sequence[Boundary],
    *,
    open_models: OpenModels,
    engine: Engine,
    checkpoint: Checkpoint,
    num: int = 1000,
    step: float = 2.0,
    seed: int = 0,
    num_random: int = 20,
    permuted: Sequence[Boundary] = (),
    step_mode: StepMode = "official",
    batch_size: int = 64,
    images_at_once: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Makes the units that are missing.

    Engine and number of workers change no bit, provided that workers are alike, down to the number of torch's threads.

    Args:
        generator: what workers open, too; here it draws nothing, unless step lengths have to be measured.
        scorer: likewise.
        boundaries: see `higan.rescoring.rescore`, as all that follows.
        open_models: how workers open generator and scorer.
        engine: where they work.
        checkpoint: keeps finished units.
        num: K.
        step: λ.
        seed: chooses samples and random directions.
        num_random: R.
        permuted: the second null.
        step_mode: see `higan.editing.edit_step`.
        batch_size: samples per unit; with many workers, few enough that there are several units for each.
        images_at_once: of one worker; see `higan.rescoring.rescore`.
        progress: called with images done and images in total.

    Raises:
        ValueError: see `rescore`.
        EngineError: workers die again and again, or cannot be reached.
        RunMismatchError: a worker opens other models than these.
    """
    plan = plan_of(
        generator,
        scorer,
        boundaries,
        num=num,
        step=step,
        seed=seed,
        places=None,
        num_random=num_random,
        permuted=permuted,
        step_mode=step_mode,
        batch_size=batch_size,
        images_at_once=images_at_once,
    )
    key = key_of(plan, seed, num, batch_size)
    batches = torch.split(sample_seeds(num, seed=seed, purpose="verify"), batch_size)
    todo = {Piece.of(batch): unit for unit, batch in enumerate(batches) if checkpoint.load(key, unit) is None}
    total = cost(len(boundaries), plan.places, num=num, num_random=num_random, num_permuted=len(permuted))
    kept = total - sum(piece.images(plan) for piece in todo)

    def tell(images: int) -> None:
        if progress is not None:
            progress(kept + images, total)

    with crew_of(plan, engine, open_models) as crew:
        for piece, made in gather(crew, plan, list(todo), tell):
            checkpoint.save(key, todo[piece], made)


def crew_of(
    plan: Plan, engine: Engine | None = None, open_models: OpenModels | None = None
) -> AbstractContextManager[Crew[Piece]]:
    """Makers of pieces: workers who open the plan's models themselves, or, without an engine, the plan as it is.

    Raises:
        ValueError: an engine without a way to open the models.
    """
    if engine is None:
        return InProcess().open(lambda _: partial(_make, plan))
    if open_models is None:
        raise ValueError("workers of an engine open the models themselves: pass open_models=")
    return engine.open(_OpenPlan.of(plan, open_models))


def gather(
    crew: Crew[Piece], plan: Plan, pieces: Sequence[Piece], tell: Callable[[int], None]
) -> Iterator[tuple[Piece, dict[str, Tensor]]]:
    """Pieces as they are done, as `Plan.run` returns them; ``tell`` hears of the images of all of them."""
    done = dict.fromkeys(pieces, 0)

    def tick(piece: Piece, images: int) -> None:
        # Where a worker died, its piece begins anew.
        if images > done[piece]:
            done[piece] = images
            tell(sum(done.values()))

    for piece, data in crew.make(pieces, tick):
        yield piece, safetensors.torch.load(data)
        tick(piece, piece.images(plan))


def _make(plan: Plan, piece: Piece, tick: Tick) -> bytes:
    # Copies: what came over a network may be read-only.
    seeds = torch.tensor(piece.seeds)
    wanted, originals = (None if x is None else torch.tensor(x) for x in (piece.wanted, piece.originals))
    if wanted is not None and not bool(wanted.any()):
        made = {"originals": plan.originals(seeds)}
    else:
        made = plan.run(seeds, wanted=wanted, originals=originals, progress=lambda images, _: tick(images))
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in made.items()})


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A direction on its way."""

    concept: Concept
    normal: np.ndarray

    @classmethod
    def of(cls, boundary: Boundary) -> _Sent:
        return cls(boundary.concept, boundary.normal.cpu().numpy())

    def opened(self) -> Boundary:
        normal = torch.tensor(self.normal)
        return Boundary(self.concept, normal, torch.zeros(normal.shape[:-1]), float("nan"))


@dataclass(frozen=True, slots=True, eq=False)
class _OpenPlan:
    """A job whose units are pieces: the plan on its way, with names of the models instead of the models."""

    open_models: OpenModels
    expected: tuple[str, ...]
    columns: tuple[int, ...]
    directions: tuple[_Sent, ...]
    num_random: int
    places: tuple[Placement, ...]
    steps: np.ndarray
    images_at_once: int | None

    @classmethod
    def of(cls, plan: Plan, open_models: OpenModels) -> _OpenPlan:
        return cls(
            open_models, _names(plan.generator, plan.scorer), tuple(plan.columns),
            tuple(map(_Sent.of, plan.directions)), plan.num_random, plan.places, plan.steps.cpu().numpy(),
            plan.images_at_once,
        )  # fmt: skip

    def __call__(self, device: str) -> Job[Piece]:
        generator, scorer = self.open_models(device)
        if _names(generator, scorer) != self.expected:
            raise RunMismatchError("a worker opens other models than the re-scoring was begun with")
        directions = [sent.opened() for sent in self.directions]
        steps = torch.tensor(self.steps, device=generator.device)
        columns = list(self.columns)
        plan = Plan(generator, scorer, columns, directions, self.num_random, self.places, steps, self.images_at_once)
        return partial(_make, plan)


def _names(generator: Generator, scorer: Scorer) -> tuple[str, ...]:
    return (generator.name, scorer.name, *(concept.name for concept in scorer.concepts))
