"""Probing, second half: a linear boundary in code space for every concept (section 2, Fig. 2).

All concepts are fitted at once. Two modes::

    extreme   the paper's: the samples with the highest and lowest scores are two classes, a linear SVM parts them
    all       ridge regression on every sample's standardised score; on linear ground truth it finds directions better
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from higan.linear import Loss, Metric, metric_of, solve
from higan.types import Boundary, Population

__all__ = ["Mode", "fit", "project_out", "random_directions"]

Mode = Literal["extreme", "all"]

_CACHE = 2**24


def fit(
    population: Population,
    concepts: Sequence[str] | None = None,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    train_fraction: float = 0.7,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    ridge: float = 1e-3,
    seed: int = 0,
    memory: int | None = None,
) -> tuple[Boundary, ...]:
    """One boundary per concept: unit normal, bias, and accuracy on samples that took no part in the fit.

    For each concept the n highest-scored samples are positive and the n lowest-scored negative. In mode ``extreme`` a
    share ``train_fraction`` of either class trains a linear SVM (`higan.linear`, codes less their mean), the rest is
    held out. In mode ``all`` the same share of all samples trains a ridge regression, and accuracy is measured on the
    extreme samples among the others. Populations with one code per layer get one normal per layer, each fitted on its
    own, and the accuracy is that of the most telling layer. A concept whose score never varies has no direction: its
    normal is as good as random and its accuracy near chance.

    Args:
        population: N samples.
        concepts: names to fit; all if None.
        mode: ``extreme`` or ``all``.
        num_extreme: n, capped at N // 2; a value in (0, 1] is a share of N.
        train_fraction: share of samples that train.
        loss: of mode ``extreme``: ``squared_hinge``, a linear SVM, or ``logistic``.
        C: its penalty, as scikit-learn's ``LinearSVC`` and ``LogisticRegression`` define it.
        ridge: penalty of mode ``all``, relative to the mean variance of a code dimension.
        seed: chooses what is held out, concept by concept.
        memory: bytes that the training samples of one chunk of concepts may take; the solver needs about four times
            that. By default 1 GiB on a GPU; on a CPU so few that they stay in its cache, which is several times faster.

    Raises:
        ValueError: unknown concept, fewer than 4 samples, a share or penalty out of range, non-finite data.
    """
    columns = list(range(len(population.concepts))) if concepts is None else [population.index(c) for c in concepts]
    n = _num_extreme(num_extreme, len(population))
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must lie between 0 and 1; got {train_fraction}")
    if not (C > 0 and ridge > 0):
        raise ValueError(f"C and ridge must be above 0; got C={C}, ridge={ridge}")
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}; got {loss!r}")
    if not columns:
        raise ValueError("there must be at least one concept to fit; got none")
    if not bool(torch.isfinite(population.codes).all() and torch.isfinite(population.scores[:, columns]).all()):
        raise ValueError("codes and scores must be finite; got NaN or infinity")
    if mode == "all":
        return _fit_all(population, columns, n, train_fraction=train_fraction, ridge=ridge, seed=seed)
    if mode != "extreme":
        raise ValueError(f"mode must be 'extreme' or 'all'; got {mode!r}")
    if memory is None:
        memory = _CACHE if population.codes.device.type == "cpu" else 2**30
    if not memory > 0:
        raise ValueError(f"memory must be above 0 bytes; got {memory}")
    per_concept = 2 * n * population.codes.shape[2] * population.codes.dtype.itemsize
    chunk = max(1, memory // per_concept)
    spaces = [_Space.of(codes) for codes in population.codes.unbind(1)]
    return tuple(
        boundary
        for start in range(0, len(columns), chunk)
        for boundary in _fit_extreme(
            population,
            columns[start : start + chunk],
            n,
            spaces,
            train_fraction=train_fraction,
            loss=loss,
            C=C,
            seed=seed,
        )
    )


def _num_extreme(num_extreme: int | float, num_samples: int) -> int:
    if num_samples < 4:
        raise ValueError(f"fitting needs at least 4 samples; got {num_samples}")
    if not num_extreme > 0:
        raise ValueError(f"num_extreme must be above 0; got {num_extreme}")
    n = min(int(num_extreme * num_samples if num_extreme <= 1 else num_extreme), num_samples // 2)
    if n < 2:
        raise ValueError(f"num_extreme={num_extreme} leaves fewer than 2 of {num_samples} samples in a class")
    return n


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """The codes of one layer, what all concepts share of them."""

    codes: Float[Tensor, "n D"]
    mean: Float[Tensor, " D"]
    metric: Metric

    @classmethod
    def of(cls, codes: Float[Tensor, "n D"]) -> _Space:
        """Second moments need no more than some samples: they only speed the solver up."""
        mean = codes.double().mean(0).to(codes.dtype)
        stride = max(1, len(codes) // (16 * codes.shape[1]))
        some = torch.nn.functional.pad(codes[::stride] - mean, (0, 1), value=1.0)
        return cls(codes, mean, metric_of(some))

    def centred(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m E"]:
        """Codes less their mean, and a constant: the solver penalises the bias; here there is little to penalise."""
        x = self.codes.new_ones(len(rows), self.codes.shape[1] + 1)
        torch.sub(self.codes.index_select(0, rows), self.mean, out=x[:, :-1])
        return x


def _fit_extreme(
    population: Population,
    columns: list[int],
    n: int,
    spaces: list[_Space],
    *,
    train_fraction: float,
    loss: Loss,
    C: float,
    seed: int,
) -> list[Boundary]:
    order = _shuffled_extremes(population, columns, n, seed)
    num_train = min(max(int(n * train_fraction), 1), n - 1)
    label = torch.tensor([1.0, -1.0], dtype=torch.float64, device=population.codes.device)
    train = order[:, :, :num_train].flatten(1)
    held = order[:, :, num_train:].flatten(1)
    y_train = label.repeat_interleave(num_train).expand(len(columns), -1)
    y_held = label.repeat_interleave(n - num_train)
    layers = []
    for space in spaces:
        x = torch.stack([space.centred(rows) for rows in train])
        weights = solve(loss, x, y_train, space.metric, C=C)
        decision = torch.stack([space.centred(rows) @ w.to(x) for rows, w in zip(held, weights, strict=True)])
        w, b = _unit(weights[:, :-1], weights[:, -1] - weights[:, :-1] @ space.mean.double())
        layers.append((w.to(x), b.to(x), (decision.sign() == y_held).double().mean(1)))
    return _boundaries(population, columns, layers, 2 * num_train)


def _fit_all(
    population: Population, columns: list[int], n: int, *, train_fraction: float, ridge: float, seed: int
) -> tuple[Boundary, ...]:
    device = population.codes.device
    shuffled = torch.randperm(len(population), generator=torch.Generator().manual_seed(seed)).to(device)
    num_train = min(max(int(len(population) * train_fraction), 2), len(population) - 1)
    train = shuffled[:num_train]
    held = torch.zeros(len(population), dtype=torch.bool, device=device)
    held[shuffled[num_train:]] = True
    scores = population.scores[:, columns].double()
    target = _standardise(scores[train])
    label = _extreme_labels(scores, n)
    layers = []
    for codes in population.codes.unbind(1):
        x = codes[train].double()
        mean = x.mean(0)
        x = x - mean
        gram = x.T @ x
        # The relative penalty keeps directions in which codes hardly vary from blowing up.
        gram.diagonal().add_(ridge * gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny))
        w = torch.linalg.solve(gram, x.T @ target).T
        flat = w.norm(dim=1) == 0
        fallback = random_directions(len(columns), w.shape[1], seed=seed).to(w)
        w = torch.where(flat[:, None], fallback, w)
        w, b = _unit(w, -w @ mean)
        decision = codes[held].double() @ w.T + b
        extreme = label[held]
        hits = ((decision.sign() == extreme) & (extreme != 0)).sum(0)
        layers.append((w.to(codes.dtype), b.to(codes.dtype), hits / (extreme != 0).sum(0)))
    return tuple(_boundaries(population, columns, layers, num_train))


def _boundaries(
    population: Population, columns: list[int], layers: list[tuple[Tensor, Tensor, Tensor]], num_train: int
) -> list[Boundary]:
    normals, biases, accuracies = (torch.stack(parts, 1) for parts in zip(*layers, strict=True))
    shared = normals.shape[1] == 1 and population.num_layers > 1
    best = accuracies.amax(1).tolist()
    return [
        Boundary(
            concept=population.concepts[column],
            normal=normals[k, 0] if shared else normals[k],
            bias=biases[k, 0] if shared else biases[k],
            holdout_accuracy=best[k],
            num_train=num_train,
        )
        for k, column in enumerate(columns)
    ]


def _shuffled_extremes(population: Population, columns: list[int], n: int, seed: int) -> Int64[Tensor, "C 2 n"]:
    """Indices of the n highest and n lowest scores per concept, each class in an order drawn for that concept."""
    extremes = []
    for column in columns:
        order = torch.argsort(population.scores[:, column], stable=True)
        name = population.concepts[column].name
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        shuffles = [torch.randperm(n, generator=generator).to(order.device) for _ in range(2)]
        extremes.append(torch.stack([order[-n:][shuffles[0]], order[:n][shuffles[1]]]))
    return torch.stack(extremes)


def _extreme_labels(scores: Float[Tensor, "n C"], num_extreme: int) -> Float[Tensor, "n C"]:
    """+1 for the highest scores of each column, -1 for the lowest, 0 between."""
    order = torch.argsort(scores, dim=0, stable=True)
    labels = torch.zeros_like(scores)
    labels.scatter_(0, order[:num_extreme], -1.0)
    return labels.scatter_(0, order[-num_extreme:], 1.0)


def _standardise(scores: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    centred = scores - scores.mean(0)
    std = centred.square().mean(0).sqrt()
    constant = (scores == scores[0]).all(0)
    return torch.where(constant, 0.0, centred / std.clamp(min=torch.finfo(std.dtype).tiny))


def _unit(w: Float[Tensor, "C D"], b: Float[Tensor, " C"]) -> tuple[Float[Tensor, "C D"], Float[Tensor, " C"]]:
    norm = w.norm(dim=1)
    if not bool((norm > 0).all()):
        raise ValueError("all codes are alike: there is no direction to find; sample more, or another generator")
    return w / norm[:, None], b / norm


def project_out(boundary: Boundary, conditions: Sequence[Boundary]) -> Boundary:
    """The boundary's direction with every condition's direction removed, so that an edit leaves the conditions alone.

    Any number of conditions, dependent or not; per layer where normals are. The held-out accuracy of
    the result is not known and therefore NaN.

    Raises:
        ValueError: no conditions, other shapes, or nothing of the direction is left.
    """
    if not conditions:
        raise ValueError("project_out needs at least one condition; got none")
    for condition in conditions:
        if condition.normal.shape != boundary.normal.shape:
            raise ValueError(
                f"all boundaries must come from one space; {boundary.concept.name!r} has a normal of shape "
                f"{tuple(boundary.normal.shape)}, {condition.concept.name!r} one of {tuple(condition.normal.shape)}"
            )
    normal = boundary.normal.double()
    stacked = torch.stack([c.normal.to(normal) for c in conditions], -1)
    # Singular vectors rather than a QR decomposition: conditions that depend on one another must not add directions.
    basis, weight, _ = torch.linalg.svd(stacked, full_matrices=False)
    basis = basis * (weight > 1e-6 * weight[..., :1]).to(basis.dtype)[..., None, :]
    rest = normal - (basis @ (basis.mT @ normal[..., None]))[..., 0]
    length = rest.norm(dim=-1)
    if not bool((length > 1e-4).all()):
        names = ", ".join(repr(c.concept.name) for c in conditions)
        raise ValueError(f"nothing of the direction of {boundary.concept.name!r} is left without {names}")
    return dataclasses.replace(
        boundary,
        normal=(rest / length[..., None]).to(boundary.normal.dtype),
        bias=(boundary.bias.double() / length).to(boundary.bias.dtype),
        holdout_accuracy=math.nan,
        stability=math.nan,
    )


def random_directions(num: int, dim: int, *, seed: int = 0) -> Float[Tensor, "num dim"]:
    """Directions drawn uniformly from the unit sphere, on the CPU: what an edit that means nothing looks like.

    Raises:
        ValueError: ``num`` or ``dim`` is below 1.
    """
    if num < 1 or dim < 1:
        raise ValueError(f"num and dim must be at least 1; got {num} and {dim}")
    rows = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (rows / rows.norm(dim=1, keepdim=True)).float()
