"""Many linear classifiers at once, in the primal: what `higan.boundaries` fits concepts with.

Newton's method, whose steps are solved in one of two ways. Where few samples count, or codes are narrow, by a Cholesky
factor over samples (Woodbury's identity) or over dimensions, whichever are fewer; products of samples are kept from
step to step. Else by conjugate gradients, preconditioned with the second moments of all codes: whatever the concept,
its Hessian is close to a multiple of them. Work is done in the precision of the data; the last residuals are taken in
double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["Loss", "Metric", "logistic", "metric_of", "needs_metric", "solve", "squared_hinge"]

Loss = Literal["squared_hinge", "logistic"]

_SEARCH_STEPS = 30
_SEARCH = 0.03
"""How near a minimum is found before Newton's last step towards it."""
_RELAXATION = 1.6
"""How far a step goes beyond a minimum along its direction that comes early: samples that stop a step are only just met
there, and a third more steps are needed."""
_ENOUGH = 0.05
"""Share of the descent that a step promises which it must keep if it goes beyond the minimum."""
_FORCING = 0.1
"""How far conjugate gradients reduce a residual: Newton steps need not be exact until the last."""
_CANCELLED = 0.05
"""Share of a direction that may be lost to rounding, by an upper bound, before it is found in double precision."""
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


def needs_metric(num_samples: int, width: int) -> bool:
    """Whether problems of so many samples, as wide as the codes with their constant, may be preconditioned.

    Where it is never asked for, codes of thousands of numbers are spared its eigenvalues, which take longer than a fit.
    """
    return _NARROW < width < num_samples


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
    metric = metric_of(x.flatten(0, 1)) if needs_metric(x.shape[1], x.shape[2]) else None
    return solve(loss, x, y, metric, C=C, tolerance=tolerance, max_iterations=max_iterations)


def solve(
    loss: Loss,
    x: Float[Tensor, "B m E"],
    y: Float[Tensor, "B m"],
    metric: Metric | None,
    *,
    C: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Float[Tensor, "B E"]:
    """Weights, in double precision, of B problems whose samples already hold a constant for the bias.

    Problems that are too hard for the precision of the data are solved in double precision. The metric may be None
    unless `needs_metric`.

    Raises:
        ValueError: no minimum is found even so, C being too large for samples like these.
    """
    problems = _Problems(x, x, y.double(), C, _LOSSES[loss], metric, _Known.nothing(x))
    start = torch.zeros(x.shape[0], x.shape[2], dtype=torch.float64, device=x.device)
    w, found = _descend(problems, start, tolerance, max_iterations)
    if x.dtype != torch.float64:
        w, found = _descend(replace(problems, exact=x.double()), w, tolerance, max_iterations)
        if not bool(found.all()):
            hard = problems.in_double().of(~found)
            w[~found], found = _descend(hard, w[~found], tolerance, max_iterations)
    if not bool(found.all()):
        raise ValueError(
            f"no minimum was found for {int((~found).sum())} of {len(x)} boundaries in {max_iterations} steps with "
            f"C = {C:g}: take a smaller C, or scale the codes"
        )
    return w


# --- losses: their value, downward slope and curvature at margins y (w · x) -------------------------------------------


_Parts = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _hinge_parts(margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    short = (1 - margin).clamp(min=0)
    return short.square(), 2 * short, 2 * (short > 0).to(margin)


def _logistic_parts(margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wrong = torch.sigmoid(-margin)
    return torch.nn.functional.softplus(-margin), wrong, wrong * (1 - wrong)


_LOSSES: dict[Loss, _Parts] = {"squared_hinge": _hinge_parts, "logistic": _logistic_parts}


# --- Newton -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Problems:
    """B problems; all vectors are in double precision, ``x`` and the metric in that of the data.

    ``exact`` is what margins and gradients are computed with: ``x``, or the same in double precision. ``known``
    only saves work: it may know less than it did.
    """

    x: Tensor
    exact: Tensor
    y: Tensor
    C: float
    parts: _Parts
    metric: Metric | None
    known: _Known

    def in_double(self) -> _Problems:
        """All of it in double precision."""
        x, metric = self.x.double(), self.metric
        if metric is not None:
            metric = Metric(metric.values.double(), metric.vectors.double())
        return replace(self, x=x, exact=x, metric=metric, known=_Known.nothing(x))

    def of(self, chosen: Bool[Tensor, " B"]) -> _Problems:
        """Some of them; no copy where it is all."""
        if bool(chosen.all()):
            return self
        known = self.known.of(chosen)
        return replace(self, x=self.x[chosen], exact=self.exact[chosen], y=self.y[chosen], known=known)


@dataclass(slots=True, eq=False)
class _Known:
    """Products of samples with one another: which samples, their place among them (-1: none). Grown in place.

    They never take more memory than the samples: before they would, all are forgotten.
    """

    which: Int64[Tensor, "B s"]
    place: Int64[Tensor, "B m"]
    products: Float[Tensor, "B s s"]

    @classmethod
    def nothing(cls, x: Float[Tensor, "B m E"]) -> _Known:
        place = torch.full(x.shape[:2], -1, device=x.device)
        return cls(place[:, :0], place, x[:, :0, :0])

    def of(self, chosen: Bool[Tensor, " B"]) -> _Known:
        return _Known(self.which[chosen], self.place[chosen], self.products[chosen])

    def grow(self, x: Float[Tensor, "B m E"], wanted: Bool[Tensor, "B m"], margin: Float[Tensor, "B m"]) -> None:
        """Takes in what is wanted, and some that may be soon, those of low margin."""
        unknown = self.place < 0
        missing = int((wanted & unknown).sum(1).max())
        if missing == 0:
            return
        # What is wanted fits: it is neither more than there are samples nor more than there are dimensions.
        most = math.isqrt(x.shape[1] * x.shape[2])
        if self.which.shape[1] + missing > most:
            nothing = _Known.nothing(x)
            self.which, self.place, self.products = nothing.which, nothing.place, nothing.products
            unknown, missing = self.place < 0, int(wanted.sum(1).max())
        number = min(max(missing, x.shape[2] // 8), most - self.which.shape[1], x.shape[1] - self.which.shape[1])
        urgent = torch.where(unknown, torch.where(wanted, math.inf, -margin), -math.inf)
        which = urgent.topk(number, dim=1, sorted=False).indices
        rows = _rows(x, which)
        across, within = torch.bmm(rows, _rows(x, self.which).mT), torch.bmm(rows, rows.mT)
        upper, lower = torch.cat([self.products, across.mT], 2), torch.cat([across, within], 2)
        self.products = torch.cat([upper, lower], 1)
        places = torch.arange(self.which.shape[1], self.which.shape[1] + number, device=x.device)
        self.place = self.place.scatter(1, which, places.expand_as(which))
        self.which = torch.cat([self.which, which], 1)

    def among(self, which: Int64[Tensor, "B k"]) -> Float[Tensor, "B k k"]:
        places = self.place.gather(1, which)
        rows = _rows(self.products, places)
        if len(rows) == 1:
            return rows[0].index_select(1, places[0])[None]
        return rows.gather(2, places[:, None].expand(-1, which.shape[1], -1))


def _descend(
    problems: _Problems, w: Tensor, tolerance: float, max_iterations: int
) -> tuple[Float[Tensor, "B E"], Bool[Tensor, " B"]]:
    """Newton from ``w`` on, and which problems it solved."""
    result = w.clone()
    found = torch.ones(len(w), dtype=torch.bool, device=w.device)
    place = torch.arange(len(w), device=w.device)
    margin = problems.y * _times(problems.exact, w) if bool(w.any()) else torch.zeros_like(problems.y)
    for _ in range(max_iterations):
        _, slope, curvature = problems.parts(margin)
        gradient = w - problems.C * _times(problems.exact.mT, problems.y * slope)
        direction = _newton_direction(problems, gradient, curvature, margin)
        rise = problems.y * _times(problems.x, direction)
        linear, square = (w * direction).sum(1), direction.square().sum(1)
        step = _line_search(problems, linear, square, margin, rise)
        w = w + step * direction
        margin = margin + step * rise
        result[place] = w
        going = direction.norm(dim=1) > tolerance * w.norm(dim=1)
        if not bool(going.any()):
            return result, found
        if not bool(going.all()):
            place, w, margin, problems = place[going], w[going], margin[going], problems.of(going)
    found[place] = False
    return result, found


def _newton_direction(problems: _Problems, gradient: Tensor, curvature: Tensor, margin: Tensor) -> Tensor:
    """-H⁻¹g with H = I + C Xᵀ diag(curvature) X, each problem by the way that suits it."""
    counts = curvature > 1e-6 * curvature.amax(1, keepdim=True)
    counting = counts.sum(1)
    width = problems.x.shape[2]
    few = counting <= width
    direction = torch.empty_like(gradient)
    if bool(few.any()):
        some = problems.of(few)
        some.known.grow(some.x, counts[few], margin[few])
        direction[few] = _over_samples(some, gradient[few], curvature[few], int(counting[few].max()))
    many = ~few
    if bool(many.any()):
        method = _over_dimensions if width <= _NARROW else _by_conjugate_gradients
        direction[many] = method(problems.of(many), gradient[many], curvature[many], int(counting[many].max()))
    return direction


def _over_samples(problems: _Problems, gradient: Tensor, curvature: Tensor, most: int) -> Tensor:
    """aᵀ (I + a aᵀ)⁻¹ a g - g, a being the samples that count times the root of their curvature."""
    places = curvature.gather(1, problems.known.which).topk(most, dim=1, sorted=False).indices
    which = problems.known.which.gather(1, places)
    scale = (problems.C * curvature.gather(1, which)).sqrt().to(problems.x)
    a = _rows(problems.x, which) * scale[..., None]
    products = problems.known.among(which) * scale[:, :, None] * scale[:, None, :]
    # The result is a difference of vectors that are as much longer as the matrix is larger than the identity.
    lost = float(torch.linalg.matrix_norm(products).max()) * torch.finfo(a.dtype).eps
    failed = lost > _CANCELLED
    if not failed:
        solution, failed = _solved(products, _product(a, gradient.to(a)))
    if failed:
        a = a.double()
        solution, _ = _solved(torch.bmm(a, a.mT), _product(a, gradient))
    return _product(a.mT, solution).double() - gradient


def _over_dimensions(problems: _Problems, gradient: Tensor, curvature: Tensor, most: int) -> Tensor:
    rows, weight = _heaviest(problems.x, curvature, most)
    a = rows * (problems.C * weight).sqrt()[..., None].to(rows)
    direction, failed = _solved(torch.bmm(a.mT, a), -gradient.to(a))
    if failed:
        a = a.double()
        direction, _ = _solved(torch.bmm(a.mT, a), -gradient)
    return direction.double()


def _solved(matrix: Float[Tensor, "B k k"], right: Float[Tensor, "B k"]) -> tuple[Float[Tensor, "B k"], bool]:
    """(I + matrix)⁻¹ right, and whether there was no factor for some."""
    matrix.diagonal(dim1=1, dim2=2).add_(1)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right[..., None], factor)[..., 0], bool(failed.any())


def _rows(x: Float[Tensor, "B m E"], which: Int64[Tensor, "B k"]) -> Float[Tensor, "B k E"]:
    if len(x) == 1:
        return x[0].index_select(0, which[0])[None]
    return x[torch.arange(len(x), device=x.device)[:, None], which]


def _by_conjugate_gradients(problems: _Problems, gradient: Tensor, curvature: Tensor, most: int) -> Tensor:
    x, weight = problems.x, curvature
    if most < 0.7 * x.shape[1]:
        x, weight = _heaviest(x, curvature, most)
    metric = problems.metric or metric_of(problems.x.flatten(0, 1))
    values, vectors = metric.values, metric.vectors
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
    weight, which = curvature.topk(most, dim=1, sorted=False)
    return _rows(x, which), weight


def _line_search(
    problems: _Problems, linear: Tensor, square: Tensor, margin: Tensor, rise: Tensor
) -> Float[Tensor, "B 1"]:
    """Step to the minimum along a direction d; beyond it, though not beyond 1, where the objective is lower there too.

    ``linear`` is w · d, ``square`` d · d.
    """
    step = _minimum(problems, linear, square, margin, rise)
    further = torch.where(step < 1, (_RELAXATION * step).clamp(max=1), step)
    if torch.equal(further, step):
        return step[:, None]
    before, slope, _ = problems.parts(margin)
    after, _, _ = problems.parts(margin + further[:, None] * rise)
    change = further * linear + further.square() / 2 * square + problems.C * (after - before).sum(1)
    descent = linear - problems.C * (rise * slope).sum(1)
    return torch.where(change < _ENOUGH * further * descent, further, step)[:, None]


def _minimum(problems: _Problems, linear: Tensor, square: Tensor, margin: Tensor, rise: Tensor) -> Float[Tensor, " B"]:
    """By Newton within a bracket: the derivative grows along a direction."""
    step = torch.ones_like(linear)
    low, high = torch.zeros_like(step), torch.full_like(step, math.inf)
    for _ in range(_SEARCH_STEPS):
        _, slope, curvature = problems.parts(margin + step[:, None] * rise)
        first = linear + step * square - problems.C * (rise * slope).sum(1)
        second = square + problems.C * (rise.square() * curvature).sum(1)
        low, high = torch.where(first < 0, step, low), torch.where(first >= 0, step, high)
        newton = step - first / second.clamp(min=torch.finfo(step.dtype).tiny)
        middle = torch.where(torch.isinf(high), 2 * step, (low + high) / 2)
        following = torch.where((newton > low) & (newton < high), newton, middle)
        if bool(((following - step).abs() <= _SEARCH * step).all()):
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
