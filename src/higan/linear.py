"""Many linear classifiers at once, in the primal: what `higan.boundaries` fits concepts with.

Newton's method, whose steps are solved in one of two ways. Where few samples count, or codes are narrow, by a Cholesky
factor over samples (Woodbury's identity) or over dimensions, whichever are fewer. Else by conjugate gradients,
preconditioned with the second moments of all codes: whatever the concept, its Hessian is close to a multiple of them.
Work is done in the precision of the data; the last residuals are taken in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Loss", "Metric", "logistic", "metric_of", "solve", "squared_hinge"]

Loss = Literal["squared_hinge", "logistic"]

_SEARCH_STEPS = 30
_FORCING = 0.1
"""How far conjugate gradients reduce a residual: Newton steps need not be exact until the last."""
_NARROW = 192
"""Up to this width a factor is found faster than conjugate gradients converge."""
_COLUMN_BY_COLUMN = 2**16
"""From this size on, CPUs multiply matrix by vector faster one by one than in a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """Second moments of codes as eigenvalues and eigenvectors, the preconditioner of all problems."""

    values: Float[Tensor, " E"]
    vectors: Float[Tensor, "E E"]


def metric_of(x: Float[Tensor, "m E"]) -> Metric:
    """Eigenvalues and eigenvectors of xᵀx / m."""
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    return Metric(values.clamp(min=0).to(x.dtype), vectors.to(x.dtype))


def squared_hinge(
    x: Float[Tensor, "B m D"],
    y: Float[Tensor, "B m"],
    *,
    C: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Float[Tensor, "B D+1"]:
    """Weights, the bias last, of B linear SVMs at once: min ½|w|² + C Σ max(0, 1 - y (w · x))², with y = ±1.

    The primal problem that scikit-learn's ``LinearSVC(dual=False)`` solves, its penalised bias included. A problem is
    done once Newton would move its weights by less than ``tolerance`` of their length.
    """
    return _solve_plain("squared_hinge", x, y, C, tolerance, max_iterations)


def logistic(
    x: Float[Tensor, "B m D"],
    y: Float[Tensor, "B m"],
    *,
    C: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Float[Tensor, "B D+1"]:
    """Weights, the bias last, of B logistic regressions at once: min ½|w|² + C Σ log(1 + exp(-y (w · x))), y = ±1.

    What scikit-learn's ``LogisticRegression(solver="liblinear")`` solves, its penalised bias included.
    """
    return _solve_plain("logistic", x, y, C, tolerance, max_iterations)


def _solve_plain(loss: Loss, x: Tensor, y: Tensor, C: float, tolerance: float, max_iterations: int) -> Tensor:
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    metric = metric_of(x.flatten(0, 1))
    return solve(loss, x, y, metric, C=C, tolerance=tolerance, max_iterations=max_iterations)


def solve(
    loss: Loss,
    x: Float[Tensor, "B m E"],
    y: Float[Tensor, "B m"],
    metric: Metric,
    *,
    C: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Float[Tensor, "B E"]:
    """Weights, in double precision, of B problems whose samples already hold a constant for the bias."""
    problems = _Problems(x, x, y.double(), C, _LOSSES[loss], metric)
    start = torch.zeros(x.shape[0], x.shape[2], dtype=torch.float64, device=x.device)
    w = _descend(problems, start, tolerance, max_iterations)
    if x.dtype == torch.float64:
        return w
    return _descend(replace(problems, exact=x.double()), w, tolerance, max_iterations)


# --- losses: their downward slope and their curvature at margins y (w · x) --------------------------------------------


def _hinge_parts(margin: Tensor) -> tuple[Tensor, Tensor]:
    short = (1 - margin).clamp(min=0)
    return 2 * short, 2 * (short > 0).to(margin)


def _logistic_parts(margin: Tensor) -> tuple[Tensor, Tensor]:
    wrong = torch.sigmoid(-margin)
    return wrong, wrong * (1 - wrong)


_LOSSES: dict[Loss, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "squared_hinge": _hinge_parts,
    "logistic": _logistic_parts,
}


# --- Newton -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Problems:
    """B problems; all vectors are in double precision, ``x`` and the metric in that of the data.

    ``exact`` is what margins and gradients are computed with: ``x``, or the same in double precision.
    """

    x: Tensor
    exact: Tensor
    y: Tensor
    C: float
    parts: Callable[[Tensor], tuple[Tensor, Tensor]]
    metric: Metric

    def of(self, chosen: Bool[Tensor, " B"]) -> _Problems:
        """Some of them; no copy where it is all."""
        if bool(chosen.all()):
            return self
        return replace(self, x=self.x[chosen], exact=self.exact[chosen], y=self.y[chosen])


def _descend(problems: _Problems, w: Tensor, tolerance: float, max_iterations: int) -> Float[Tensor, "B E"]:
    """Newton from ``w`` on."""
    result = w.clone()
    place = torch.arange(len(w), device=w.device)
    margin = problems.y * _times(problems.exact, w) if bool(w.any()) else torch.zeros_like(problems.y)
    for _ in range(max_iterations):
        slope, curvature = problems.parts(margin)
        gradient = w - problems.C * _times(problems.exact.mT, problems.y * slope)
        direction = _newton_direction(problems, gradient, curvature)
        rise = problems.y * _times(problems.x, direction)
        step = _line_search(problems, w, direction, margin, rise)[:, None]
        w = w + step * direction
        margin = margin + step * rise
        result[place] = w
        going = direction.norm(dim=1) > tolerance * w.norm(dim=1)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            place, w, margin, problems = place[going], w[going], margin[going], problems.of(going)
    return result


def _newton_direction(problems: _Problems, gradient: Tensor, curvature: Tensor) -> Tensor:
    """-H⁻¹g with H = I + C Xᵀ diag(curvature) X, each problem by the way that suits it."""
    counting = (curvature > 1e-6 * curvature.amax(1, keepdim=True)).sum(1)
    width = problems.x.shape[2]
    few = counting <= width
    direction = torch.empty_like(gradient)
    many = _by_factor if width <= _NARROW else _by_conjugate_gradients
    for chosen, method in ((few, _by_factor), (~few, many)):
        if bool(chosen.any()):
            most = int(counting[chosen].max())
            direction[chosen] = method(problems.of(chosen), gradient[chosen], curvature[chosen], most)
    return direction


def _by_factor(problems: _Problems, gradient: Tensor, curvature: Tensor, most: int) -> Tensor:
    """By a Cholesky factor, in double precision where there is none in that of the data."""
    rows, weight = _heaviest(problems.x, curvature, most)
    a = rows * (problems.C * weight).sqrt()[..., None].to(rows)
    direction, failed = _factorised(a, gradient.to(a))
    return _factorised(a.double(), gradient)[0] if failed else direction.double()


def _factorised(a: Float[Tensor, "B k E"], g: Float[Tensor, "B E"]) -> tuple[Float[Tensor, "B E"], bool]:
    """-(I + aᵀa)⁻¹ g, and whether that failed; with few rows as aᵀ (I + a aᵀ)⁻¹ a g - g."""
    few = a.shape[1] <= a.shape[2]
    hessian = torch.bmm(a, a.mT) if few else torch.bmm(a.mT, a)
    hessian.diagonal(dim1=1, dim2=2).add_(1)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    right = _product(a, g) if few else -g
    solution = torch.cholesky_solve(right[..., None], factor)[..., 0]
    return _product(a.mT, solution) - g if few else solution, bool(failed.any())


def _by_conjugate_gradients(problems: _Problems, gradient: Tensor, curvature: Tensor, most: int) -> Tensor:
    x, weight = problems.x, curvature
    if most < 0.7 * x.shape[1]:
        x, weight = _heaviest(x, curvature, most)
    values, vectors = problems.metric.values, problems.metric.vectors
    weight = problems.C * weight.to(x)
    scale = 1 + weight.sum(1, keepdim=True) * values

    def precondition(r: Tensor) -> Tensor:
        return ((r @ vectors) / scale) @ vectors.T

    direction = torch.zeros_like(gradient, dtype=x.dtype)
    residual = -gradient.to(x)
    z = precondition(residual)
    ahead = z
    energy = (residual * z).sum(1, keepdim=True)
    goal = _FORCING**2 * energy
    for _ in range(x.shape[2]):
        curved = ahead + _product(x.mT, weight * _product(x, ahead))
        # A problem that is done stands still while others go on.
        step = torch.where(energy > goal, energy / (ahead * curved).sum(1, keepdim=True), 0.0)
        direction = direction + step * ahead
        residual = residual - step * curved
        z = precondition(residual)
        before, energy = energy, (residual * z).sum(1, keepdim=True)
        if not bool((energy > goal).any()):
            break
        ahead = z + (energy / before.clamp(min=torch.finfo(x.dtype).tiny)) * ahead
    return direction.double()


def _heaviest(x: Tensor, curvature: Tensor, most: int) -> tuple[Float[Tensor, "B k E"], Float[Tensor, "B k"]]:
    """The ``most`` samples of every problem that count most, with their curvature."""
    weight, rows = curvature.topk(most, dim=1, sorted=False)
    if len(x) == 1:
        return x[0].index_select(0, rows[0])[None], weight
    return x[torch.arange(len(x), device=x.device)[:, None], rows], weight


def _line_search(problems: _Problems, w: Tensor, direction: Tensor, margin: Tensor, rise: Tensor) -> Tensor:
    """Step to the minimum along a direction, by Newton within a bracket: the derivative grows along it."""
    linear, square = (w * direction).sum(1), direction.square().sum(1)
    step = torch.ones_like(linear)
    low, high = torch.zeros_like(step), torch.full_like(step, math.inf)
    for _ in range(_SEARCH_STEPS):
        slope, curvature = problems.parts(margin + step[:, None] * rise)
        first = linear + step * square - problems.C * (rise * slope).sum(1)
        second = square + problems.C * (rise.square() * curvature).sum(1)
        low, high = torch.where(first < 0, step, low), torch.where(first >= 0, step, high)
        newton = step - first / second.clamp(min=torch.finfo(step.dtype).tiny)
        middle = torch.where(torch.isinf(high), 2 * step, (low + high) / 2)
        following = torch.where((newton > low) & (newton < high), newton, middle)
        if torch.allclose(following, step, rtol=1e-3, atol=0):
            return following
        step = following
    return step


def _times(a: Float[Tensor, "B p q"], v: Float[Tensor, "B q"]) -> Float[Tensor, "B p"]:
    """Matrix times vector, problem by problem, in the matrix's precision; the result in double."""
    return _product(a, v.to(a.dtype)).double()


def _product(a: Float[Tensor, "B p q"], v: Float[Tensor, "B q"]) -> Float[Tensor, "B p"]:
    if a.device.type == "cpu" and a.shape[1] * a.shape[2] >= _COLUMN_BY_COLUMN:
        return torch.stack([matrix.mv(vector) for matrix, vector in zip(a, v, strict=True)])
    return torch.bmm(a, v[..., None])[..., 0]
