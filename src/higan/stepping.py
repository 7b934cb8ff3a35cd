"""How long a step is at every placement: as the official tool takes it, or so that layers can be compared.

The same step in code space does not change the picture alike at every layer. Which layers seem to matter therefore
depends on what is held equal: the step in code space, the step that the network sees, or the change of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.drawing import start_at
from higan.editing import StepMode, edit_step, offset
from higan.population import render, sample, sample_seeds
from higan.types import Boundary, Generator, Placement

__all__ = ["image_changes", "pixel_change", "placement_steps"]

_FIRST = 2**23
_ROUNDS = 4
_LONGEST = 16.0
_ALIKE = 0.02
"""Changes that differ by less than this share of them are equal."""


def placement_steps(
    generator: Generator,
    places: Sequence[Placement],
    step: float,
    mode: StepMode = "official",
    *,
    directions: Sequence[Boundary] = (),
    num: int = 8,
    seed: int = 0,
) -> Float[Tensor, "P L"]:
    """The step that an edit takes at each layer, for every placement.

    - ``official`` and ``equal_step`` are the same at every placement, see `higan.editing.edit_step`.
    - ``equal_change`` stretches the official step by one factor per placement, so that meaningless ``directions``
      change the picture (`pixel_change`) alike at all of them: as much as the official step does at single layers,
      in the geometric mean. The factors are found by repeated proportion, until changes are within 2 % or for four
      rounds, and stay within 16 either way; where the picture hardly answers, the change stays smaller, and
      `image_changes` says so.

    One factor for all directions keeps a concept's edit and its null at the same length.

    Args:
        generator: draws, for ``equal_change`` only.
        places: P sets of layers.
        step: λ, in units of code space.
        mode: what is held equal.
        directions: what pictures are moved along, for ``equal_change`` only.
        num: samples that are moved along every direction.
        seed: chooses the samples; neither probing nor re-scoring uses them.

    Raises:
        ValueError: an unknown mode, a step that is not finite, or equal changes without directions or of a step of 0.
        GeneratorError: see `higan.population.render`.
    """
    if mode != "equal_change":
        return edit_step(generator.truncation.to(generator.device), step, mode).expand(len(places), -1)
    if not directions or step == 0:
        raise ValueError("equal changes are measured along directions, with a step other than 0; got none")
    plain = edit_step(generator.truncation.to(generator.device), step, "official").expand(len(places), -1)
    factors = torch.ones(len(places), dtype=torch.float64)
    target, unequal = 0.0, list(range(len(places)))
    for turn in range(_ROUNDS):
        steps = plain * factors.to(plain)[:, None]
        asked = [places[p] for p in unequal]
        change = image_changes(generator, asked, steps[unequal], directions, num=num, seed=seed).double()
        if turn == 0:
            target = _typical(change, places)
        # A placement that does not answer has no right step: it keeps the official one.
        ratio = torch.where(change > 0, target / change.clamp(min=1e-12), 1.0).clamp(1 / 4, 4)
        settled = (ratio - 1).abs() < _ALIKE
        better = (factors[unequal] * ratio).clamp(1 / _LONGEST, _LONGEST)
        factors[unequal] = torch.where(settled, factors[unequal], better)
        unequal = [p for p, done in zip(unequal, settled.tolist(), strict=True) if not done]
        if not unequal:
            break
    return plain * factors.to(plain)[:, None]


def image_changes(
    generator: Generator,
    places: Sequence[Placement],
    steps: Float[Tensor, "P L"],
    directions: Sequence[Boundary],
    *,
    num: int = 8,
    seed: int = 0,
) -> Float[Tensor, " P"]:
    """Mean `pixel_change` of ``num`` samples moved along each direction, for every placement; in grey levels.

    Raises:
        ValueError: no directions or samples, or directions of another width.
        GeneratorError: see `higan.population.render`.
    """
    if not directions:
        raise ValueError("changes of the picture are measured along directions; got none")
    codes = sample(generator, sample_seeds(num, seed=seed, purpose="verify", first=_FIRST))
    before = render(generator, codes)
    wanted = {placement.layers: row for placement, row in zip(places, steps, strict=True)}
    found = {}
    for first, sets in groupby(sorted(wanted, key=min), min):
        begun = start_at(generator, codes, first)
        for layers in sets:
            moved = [codes + offset(d, wanted[layers], layers, codes.shape[2]).to(codes.dtype) for d in directions]
            drawn = (begun.draw(torch.cat([*some])) for some in begun.calls(moved, num))
            changes = [
                float(pixel_change(before, after).cpu().double().mean()) for some in drawn for after in some.split(num)
            ]
            found[layers] = sum(changes) / len(changes)
    return torch.tensor([found[placement.layers] for placement in places])


def pixel_change(before: UInt8[Tensor, "n 3 H W"], after: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, " n"]:
    """Mean absolute difference over pixels and colours, in grey levels of 0 … 255."""
    return (before.float() - after.float()).abs().mean((1, 2, 3))


def _typical(change: Float[Tensor, " P"], places: Sequence[Placement]) -> float:
    """Geometric mean over single layers; over all placements where there are none, or where none answers."""
    by_layers = {place.layers: float(c) for c, place in zip(change, places, strict=True) if float(c) > 0}
    values = [c for layers, c in by_layers.items() if len(layers) == 1] or [*by_layers.values()]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 0.0
