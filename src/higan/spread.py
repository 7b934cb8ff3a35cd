"""A re-scoring of fixed size on the workers of an engine: its units are made there and kept here.

`higan.rescoring.rescore`, called with the same arguments and the same checkpoint, then finds every unit done.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import safetensors.torch
import torch

from higan.editing import StepMode
from higan.engines import Engine, Job, Tick
from higan.errors import RunMismatchError
from higan.population import OpenModels, Progress, sample_seeds
from higan.rescoring import Checkpoint, Plan, cost, key_of, plan_of
from higan.types import Boundary, Concept, Generator, Scorer

__all__ = ["spread"]


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
    """Makes the units that are missing. Engine and number of workers change no bit, provided that workers are alike.

    Args:
        generator: what workers open, too; here it draws nothing.
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
    job = _OpenUnits(
        open_models, tuple(map(_Sent.of, boundaries)), tuple(map(_Sent.of, permuted)), num, step, seed, num_random,
        step_mode, batch_size, images_at_once, "",
    )  # fmt: skip
    plan = job.plan(generator, scorer)
    key = job.key(plan)
    todo = [unit for unit in range(-(-num // batch_size)) if checkpoint.load(key, unit) is None]
    per_sample = cost(len(boundaries), plan.places, num=1, num_random=num_random, num_permuted=len(permuted))
    done = {unit: len(job.seeds(unit)) * per_sample for unit in range(-(-num // batch_size)) if unit not in todo}

    def tick(unit: int, images: int) -> None:
        if progress is not None and done.get(unit) != images:
            done[unit] = images
            progress(sum(done.values()), num * per_sample)

    with closing(engine.run(replace(job, expected=key), todo, tick)) as units:
        for unit, data in units:
            checkpoint.save(key, unit, safetensors.torch.load(data))
            tick(unit, len(job.seeds(unit)) * per_sample)


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A boundary on its way: an array instead of a tensor, which would travel through shared memory."""

    concept: Concept
    normal: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, boundary: Boundary) -> _Sent:
        return cls(boundary.concept, boundary.normal.cpu().numpy(), boundary.bias.cpu().numpy())

    def opened(self) -> Boundary:
        return Boundary(self.concept, torch.tensor(self.normal), torch.tensor(self.bias), float("nan"))


@dataclass(frozen=True, slots=True, eq=False)
class _OpenUnits:
    """A job whose units are those of a re-scoring."""

    open_models: OpenModels
    boundaries: tuple[_Sent, ...]
    permuted: tuple[_Sent, ...]
    num: int
    step: float
    seed: int
    num_random: int
    step_mode: StepMode
    batch_size: int
    images_at_once: int | None
    expected: str

    def __call__(self, device: str) -> Job:
        plan = self.plan(*self.open_models(device))
        if self.key(plan) != self.expected:
            raise RunMismatchError("a worker opens other models than the re-scoring was begun with")

        def unit(number: int, tick: Tick) -> bytes:
            made = plan.run(self.seeds(number), progress=lambda images, _: tick(images))
            return safetensors.torch.save({name: tensor.contiguous() for name, tensor in made.items()})

        return unit

    def plan(self, generator: Generator, scorer: Scorer) -> Plan:
        """What a unit does, as `rescore` plans it."""
        return plan_of(
            generator,
            scorer,
            [sent.opened() for sent in self.boundaries],
            num=self.num,
            step=self.step,
            seed=self.seed,
            places=None,
            num_random=self.num_random,
            permuted=[sent.opened() for sent in self.permuted],
            step_mode=self.step_mode,
            batch_size=self.batch_size,
            images_at_once=self.images_at_once,
        )

    def key(self, plan: Plan) -> str:
        """What `rescore` calls its units."""
        return key_of(plan, self.seed, self.num, self.batch_size)

    def seeds(self, unit: int) -> torch.Tensor:
        """Of the samples of a unit."""
        return torch.split(sample_seeds(self.num, seed=self.seed, purpose="verify"), self.batch_size)[unit]
