"""A study from a run: which pictures are moved along which directions, drawn once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from higan.boundaries import random_directions
from higan.hierarchy import groups, profile
from higan.population import sample_seeds
from higan.statistics import rank
from higan.store import Run, load_boundaries, load_rescoring
from higan.types import LEVELS, Boundary, Concept, Generator, RaggedGenerator, Rescoring
from higan.userstudy.design import CATCHES, Catch, Design, Trial, Unit, lay_out
from higan.userstudy.folder import Expected, UserStudy, begun_seed, check_new, write_study
from higan.userstudy.pictures import altered, edited, fitness, png

__all__ = ["Directions", "build"]

Directions = Literal["concepts", "random"]
Progress = Callable[[int, int], None]
"""Called with pictures done and pictures in total."""

_CANDIDATES = 4
_RANDOM = "random"


def build(
    run: Run,
    generator: Generator,
    out: str | Path,
    *,
    directions: Directions = "concepts",
    repeats: int | None = None,
    num_catches: int = 6,
    overlap: int = 2,
    step: float | None = None,
    seed: int | None = None,
    title: str = "What changed in the picture?",
    made: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> UserStudy:
    """A study of what the stages of a run's generator change (section 3.1, Fig. 3b).

    Interrupted, the same call goes on with the pictures that are drawn.

    The paper says that its users judged images manipulated "towards the semantic boundaries at different layers", and
    no more. Here: fresh samples are moved along the boundaries of verified concepts, forwards and backwards, by the
    step of the re-scoring, at one stage. Concepts of every level are moved at every stage equally often, so that what
    people see at a stage is not a matter of which concepts were moved there. ``random`` moves along random directions
    of the same length instead, where no predictor has a say.

    Args:
        run: a finished run.
        generator: the run's generator.
        out: folder of the study, new.
        directions: ``concepts`` or ``random``.
        repeats: trials of a rater per stage and level; for random directions, per stage. By default 2 and 8.
        num_catches: catch trials of a rater, in turn none, mirrored, tinted.
        overlap: raters in a row that share a block.
        step: length of an edit in code space, λ; by default that of the re-scoring. Layers are moved by as many λ as
            the re-scoring's step mode moved them at each stage.
        seed: chooses pictures, names and orders; by default drawn, so that nobody can tell what a name stands for.
        title: what raters read at the top.
        made: how it came about, to be told.
        progress: called after every picture.

    Raises:
        ValueError: counts or a step that make no sense, a generator that is not the run's, or no verified concepts.
        UserStudyError: the folder exists.
        RunError: the run is not finished or damaged.
    """
    out = Path(out)
    check_new(out)
    rescoring, boundaries = load_rescoring(run), load_boundaries(run)
    _check(generator, boundaries, directions, repeats, num_catches, step)
    if seed is None:
        seed = begun_seed(out)
    seed = secrets.randbelow(2**62) if seed is None else seed
    step = rescoring.step if step is None else step
    stages = groups(generator.num_layers)
    repeats = repeats or (2 if directions == "concepts" else 8)
    per_source = repeats * len(stages)
    if directions == "concepts":
        followed = _verified(rescoring, boundaries)
    else:
        followed = {_RANDOM: _random(generator, boundaries[0], per_source, seed)}
    wanted = len(followed) * per_source + num_catches * _CANDIDATES
    used = {int(s) for s in rescoring.seeds}
    fresh = sample_seeds(len(used) + wanted, seed=run.seed, purpose="verify", first=_first(seed))
    seeds = [int(s) for s in fresh if int(s) not in used][:wanted]

    units = {
        source: _units(source, found, seeds[v * per_source : (v + 1) * per_source], len(stages), step)
        for v, (source, found) in enumerate(followed.items())
    }
    catches = _catches(generator, seeds[len(followed) * per_source :], num_catches)
    design = lay_out(stages, units, catches, seed=seed, overlap=overlap)
    by_name = {boundary.concept.name: boundary for found in followed.values() for boundary in found}
    told = {"generator": generator.name, "step": step, "directions": directions, **(made or {})}
    return write_study(
        out,
        design,
        _expected(rescoring),
        _pictures(generator, design, by_name, _stretches(rescoring)),
        title=title,
        made=told,
        progress=progress,
    )


def _check(
    generator: Generator,
    boundaries: Sequence[Boundary],
    directions: str,
    repeats: int | None,
    num_catches: int,
    step: float | None,
) -> None:
    if directions not in get_args(Directions):
        raise ValueError(f"directions must be one of {', '.join(get_args(Directions))}; got {directions!r}")
    if repeats is not None and repeats < 1:
        raise ValueError(f"repeats must be at least 1; got {repeats}")
    if num_catches < 0:
        raise ValueError(f"num_catches must be 0 or more; got {num_catches}")
    if step is not None and not 0 < step < float("inf"):
        raise ValueError(f"step must be a number above 0; got {step}")
    shape = tuple(boundaries[0].normal.shape)
    if shape not in ((generator.code_dim,), (generator.num_layers, generator.code_dim)):
        raise ValueError(
            f"the run's boundaries have shape {shape}; {generator.name!r} has {generator.num_layers} layers and codes "
            f"of width {generator.code_dim}: use the run's own generator"
        )


def _first(seed: int) -> int:
    """Where this study's samples start among the run's fresh ones: other studies show other pictures."""
    return seed % 1000 * 10_000


def _verified(rescoring: Rescoring, boundaries: Sequence[Boundary]) -> dict[str, list[Boundary]]:
    """Boundaries of verified concepts by level, strongest first."""
    by_name = {boundary.concept.name: boundary for boundary in boundaries}
    names = [row.concept for row in rank(rescoring) if row.verified]
    found = {level: [by_name[c.name] for c in names if c.level == level] for level in LEVELS}
    found = {level: members for level, members in found.items() if members}
    if not found:
        raise ValueError(
            "no concept of this run is verified, so that there is none to follow; use random directions "
            "(--along random)"
        )
    return {str(level): members for level, members in found.items()}


def _random(generator: Generator, like: Boundary, num: int, seed: int) -> list[Boundary]:
    """Random directions of the boundaries' shape, each with a name of its own; padding stays untouched."""
    *rows, dim = like.normal.shape
    normals = random_directions(num * max([1, *rows]), dim, seed=seed % 2**32).reshape(num, *rows, dim)
    if rows and isinstance(generator, RaggedGenerator):
        inside = torch.arange(dim) < torch.tensor(list(generator.layer_widths))[:, None]
        normals = torch.nn.functional.normalize(normals * inside, dim=-1)
    return [
        Boundary(Concept(f"random {k}", "attribute"), normal, torch.zeros(rows), float("nan"))
        for k, normal in enumerate(normals)
    ]


def _units(source: str, found: Sequence[Boundary], seeds: Sequence[int], num_stages: int, step: float) -> list[Unit]:
    """Units of one source: within every rater's block, concepts and signs are spread evenly over the stages."""
    each = [b for b in islice(cycle(found), len(seeds) // num_stages) for _ in range(num_stages)]
    if source == _RANDOM:
        each = list(found)
    # By row and column of the Latin square apart: by k alone every row of an odd square would have the same signs.
    signs = [1 if (k // num_stages + k % num_stages) % 2 == 0 else -1 for k in range(len(seeds))]
    return [
        Unit(source, boundary.concept.name, sign * step, seed)
        for boundary, sign, seed in zip(each, signs, seeds, strict=True)
    ]


def _catches(generator: Generator, seeds: Sequence[int], num: int) -> list[tuple[Catch, Unit]]:
    """Catch trials, each with the picture that shows it best among a few: a known edit must be plain to see."""
    chosen: list[tuple[Catch, Unit]] = []
    for k, kind in enumerate(islice(cycle(CATCHES), num)):
        candidates = seeds[k * _CANDIDATES : (k + 1) * _CANDIDATES]
        best = max(candidates, key=lambda seed: fitness(edited(generator, seed, None, 0.0, ()), kind))
        chosen.append((kind, Unit("catch", kind, 0.0, best)))
    return chosen


def _stretches(rescoring: Rescoring) -> Mapping[str, torch.Tensor]:
    """How many λ the re-scoring moved each layer by at every placement, (L,); nothing where that is one throughout."""
    if rescoring.steps is None or rescoring.step_mode == "official":
        return {}
    return {p.name: steps / rescoring.step for p, steps in zip(rescoring.placements, rescoring.steps, strict=True)}


def _pictures(
    generator: Generator, design: Design, boundaries: Mapping[str, Boundary], stretches: Mapping[str, torch.Tensor]
) -> Mapping[str, Callable[[], bytes]]:
    """How to draw every picture of a design, each by itself."""

    def before(trial: Trial) -> bytes:
        return png(edited(generator, trial.what.seed, None, 0.0, ()))

    def after(trial: Trial) -> bytes:
        what = trial.what
        if trial.catch is not None:
            return png(altered(edited(generator, what.seed, None, 0.0, ()), trial.catch))
        stage, boundary = trial.stage or "", boundaries[what.concept]
        if stage in stretches:
            times = stretches[stage].to(boundary.normal)
            boundary = replace(boundary, normal=times[:, None] * boundary.normal)
        return png(edited(generator, what.seed, boundary, what.strength, design.stages[stage]))

    trials = design.trials.values()
    return {t.before: partial(before, t) for t in trials} | {t.after: partial(after, t) for t in trials}


def _expected(rescoring: Rescoring) -> Expected:
    found = profile(rescoring)

    def rows(values: torch.Tensor) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row) for row in values.double().tolist())

    shares = found.by_group
    return Expected(found.levels, shares.names, rows(shares.mean), rows(shares.low), rows(shares.high))
