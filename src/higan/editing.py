"""Moving codes along boundaries, on chosen layers (section 3.2, Fig. 3c and 4)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from higan.layers import check_layers, parse_layers
from higan.types import Boundary, Edit

__all__ = ["StepMode", "apply", "edit_step", "offset", "parse_layers", "sweep"]

StepMode = Literal["official", "equal_step", "equal_change"]


def apply(codes: Float[Tensor, "n L D"], edits: Sequence[Edit]) -> Float[Tensor, "n L D"]:
    """Codes after all edits; the order of edits does not matter.

    Raises:
        ValueError: empty or out-of-range layers, a boundary of another width or depth, non-finite codes or strength.
    """
    _check_codes(codes)
    _, num_layers, dim = codes.shape
    # Summed in double precision, so that rounding does not depend on the order either; on the CPU, because some
    # devices have no doubles.
    total = torch.zeros(num_layers, dim, dtype=torch.float64)
    for edit in edits:
        steps = torch.full((num_layers,), _finite(edit.strength), dtype=torch.float64)
        total += offset(edit.boundary, steps, edit.layers, dim)
    return codes + total.to(codes)


def sweep(
    codes: Float[Tensor, "n L D"], boundary: Boundary, strengths: Sequence[float], layers: Collection[int]
) -> Float[Tensor, "n S L D"]:
    """Every code at every one of S strengths along one boundary.

    Raises:
        ValueError: no strengths, or as for `apply`.
    """
    if not strengths:
        raise ValueError("a sweep needs at least one strength; got none")
    return torch.stack([apply(codes, [Edit(boundary, strength, tuple(layers))]) for strength in strengths], 1)


def edit_step(truncation: Float[Tensor, " L"], step: float, mode: StepMode = "official") -> Float[Tensor, " L"]:
    """Strength per layer for a nominal ``step``.

    Codes are edited before truncation, which shrinks the step on truncated layers.

    - ``official`` takes the same step in code space everywhere; what the image sees is truncation · step.
    - ``equal_step`` divides by the truncation, so that the image sees the same step at every layer.
    - ``equal_change`` is measured, placement by placement: `higan.stepping.placement_steps`.

    Raises:
        ValueError: unknown mode, non-finite step, or an equal step where the truncation is not above zero.
    """
    if mode == "equal_change":
        raise ValueError("equal changes are measured on a generator's pictures; use higan.stepping.placement_steps")
    if mode not in get_args(StepMode):
        raise ValueError(f"step mode must be one of {', '.join(get_args(StepMode))}; got {mode!r}")
    steps = torch.full_like(truncation, _finite(step))
    if mode == "official":
        return steps
    if not bool((truncation > 0).all()):
        raise ValueError("equal steps need a truncation above 0 on every layer; use the official step mode")
    return steps / truncation


def offset(
    boundary: Boundary, steps: Float[Tensor, " L"], layers: Collection[int], code_dim: int
) -> Float[Tensor, "L D"]:
    """What an edit adds to every code: ``steps[l]`` times the normal on the chosen layers, zero elsewhere.

    Raises:
        ValueError: empty or out-of-range layers, or a boundary of another width or depth.
    """
    num_layers = len(steps)
    check_layers(layers, num_layers)
    normal = boundary.normal.to(steps)
    per_layer = (num_layers, code_dim)
    if tuple(normal.shape) not in ((code_dim,), per_layer) or not bool(torch.isfinite(normal).all()):
        raise ValueError(
            f"the normal of {boundary.concept.name!r} must be finite and of shape ({code_dim},) or {per_layer} "
            f"for these codes; got {tuple(normal.shape)}"
        )
    chosen = torch.zeros_like(steps)
    chosen[list(layers)] = 1
    return (chosen * steps)[:, None] * normal.expand(per_layer)


def _check_codes(codes: Tensor) -> None:
    if codes.ndim != 3:
        raise ValueError(f"codes must have shape (n, L, D); got {tuple(codes.shape)}")
    if not bool(torch.isfinite(codes).all()):
        raise ValueError("codes must be finite; got NaN or infinity")


def _finite(strength: float) -> float:
    if not math.isfinite(strength):
        raise ValueError(f"an edit's strength must be finite; got {strength}")
    return float(strength)
