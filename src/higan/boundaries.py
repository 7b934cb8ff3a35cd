"""Probing, second half: a linear boundary in code space for every concept (section 2, Fig. 2).

All concepts are fitted at once. Two modes::

    extreme   the paper's: the samples with the highest and lowest scores are two classes, a linear SVM parts them
    all       ridge regression on every sample's standardised score; on linear ground truth it finds directions better
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor

from higan.linear import Loss, Metric, metric_of, needs_metric, solve
from higan.samples import Samples, columns_of, samples_of
from higan.types import Boundary, Population

__all__ = ["Mode", "check_fit", "code_spread", "fit", "held_out", "project_out", "random_directions", "told_apart"]

Mode = Literal["extreme", "all"]

_CACHE = 2**23
_GATHER = 2**28
_BLOCK = 2**25
_TERMS = 1024
"""So many products are added in the precision of the codes, which is faster; their sums in double precision."""
_TOLD = 5
"""Names in an error."""


def fit(
    population: Population | Samples,
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
        population: N samples, in memory or wherever a `higan.samples.Samples` has them: score columns are asked for
            some at a time, and codes of extreme samples alone or in blocks, to the same result.
        concepts: names to fit; all if None.
        mode: ``extreme`` or ``all``.
        num_extreme: n, capped at N // 2; a value in (0, 1] is a share of N.
        train_fraction: share of samples that train.
        loss: of mode ``extreme``: ``squared_hinge``, a linear SVM, or ``logistic``.
        C: its penalty, as scikit-learn's ``LinearSVC`` and ``LogisticRegression`` define it.
        ridge: penalty of mode ``all``, relative to the mean variance of a code dimension.
        seed: chooses what is held out, concept by concept.
        memory: bytes that the training samples of one chunk of concepts may take; the solver needs about five times
            that. By default 1 GiB on a GPU; on a CPU so few that they stay in its cache, which is several times faster.

    Raises:
        ValueError: unknown concept, fewer than 4 samples, a share or penalty out of range, non-finite data, or in mode
            ``all`` so few extremes that none is held out.
    """
    samples = samples_of(population)
    columns = columns_of(samples, concepts)
    n = check_fit(
        len(samples),
        mode=mode,
        num_extreme=num_extreme,
        train_fraction=train_fraction,
        loss=loss,
        C=C,
        ridge=ridge,
    )
    if not columns:
        raise ValueError("there must be at least one concept to fit; got none")
    if mode == "all":
        return _fit_all(samples, columns, n, train_fraction=train_fraction, ridge=ridge, seed=seed)
    num_train = _num_train(n, train_fraction)
    spaces = _spaces(samples, 2 * num_train)
    kind = spaces[0].mean
    if memory is None:
        memory = _CACHE if kind.device.type == "cpu" else 2**30
    if not memory > 0:
        raise ValueError(f"memory must be above 0 bytes; got {memory}")
    per_concept = 2 * n * samples.code_shape[1] * kind.dtype.itemsize
    chunk = max(1, memory // per_concept)
    # Codes are fetched for many concepts at once and solved for few, so that a run is not read again for each.
    fetched = max(1, _GATHER // (per_concept * samples.code_shape[0] * chunk)) * chunk
    boundaries: list[Boundary] = []
    for some in _split(columns, fetched):
        scores = _finite(samples.scores(some))
        std = scores.double().std(0)
        order = _shuffled_extremes(scores, [samples.concepts[c].name for c in some], n, seed)
        rows, place = order.unique(return_inverse=True)
        codes = samples.codes(rows)
        for few, where, unit in zip(_split(some, chunk), place.split(chunk), std.split(chunk), strict=True):
            layers = _fit_extreme(codes, where, spaces, num_train=num_train, loss=loss, C=C)
            boundaries += _boundaries(samples, few, layers, 2 * num_train, unit)
    return tuple(boundaries)


def check_fit(
    num_samples: int,
    *,
    mode: Mode = "extreme",
    num_extreme: int | float = 2000,
    train_fraction: float = 0.7,
    loss: Loss = "squared_hinge",
    C: float = 1.0,
    ridge: float = 1e-3,
) -> int:
    """Refuses what `fit` cannot do, before there are samples; how many samples a class will have.

    Raises:
        ValueError: see `fit`.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'extreme' or 'all'; got {mode!r}")
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}; got {loss!r}")
    if mode == "all" and loss != "squared_hinge":
        raise ValueError(f"mode 'all' is a ridge regression, the loss is that of mode 'extreme'; got {loss!r}")
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must lie between 0 and 1; got {train_fraction}")
    if not (0 < C < math.inf and 0 < ridge < math.inf):
        raise ValueError(f"C and ridge must be above 0 and finite; got C={C}, ridge={ridge}")
    return _num_extreme(num_extreme, num_samples)


def held_out(num_samples: int, *, num_extreme: int | float = 2000, train_fraction: float = 0.7) -> int:
    """How many samples will tell a boundary's accuracy: of both classes, in mode ``all`` about as many.

    Raises:
        ValueError: see `fit`.
    """
    n = _num_extreme(num_extreme, num_samples)
    return 2 * (n - _num_train(n, train_fraction))


def told_apart(
    population: Population | Samples, concepts: Sequence[str] | None = None, *, num_extreme: int | float = 2000
) -> dict[str, int]:
    """By concept, how many samples of a class of mode ``extreme`` have a score that none of the other class has.

    Of the class that has more of them. All of it, but where both classes end in samples of one and the same score:
    which of these are in which is chance, and nothing for a boundary to learn.

    Raises:
        ValueError: unknown concept, or as for `fit`.
    """
    samples = samples_of(population)
    n = _num_extreme(num_extreme, len(samples))
    found: dict[str, int] = {}
    for some in _split(columns_of(samples, concepts), max(1, _GATHER // (8 * len(samples)))):
        for column, scores in zip(some, samples.scores(some).unbind(1), strict=True):
            least, most = scores.topk(n).values[-1], scores.topk(n, largest=False).values[-1]
            apart = n if least > most else max(int((scores > most).sum()), int((scores < least).sum()))
            found[samples.concepts[column].name] = apart
    return found


def _split(columns: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(columns), size):
        yield columns[start : start + size]


def _blocks(samples: Samples, rows: Int64[Tensor, " m"]) -> Iterator[tuple[slice, Float[Tensor, "k l D"]]]:
    """Codes of those samples in turn, a few megabytes at a time, and which of the rows they belong to."""
    layers, width = samples.code_shape
    size = max(1, _BLOCK // (4 * layers * width))
    for start in range(0, len(rows), size):
        some = slice(start, start + size)
        yield some, samples.codes(rows[some])


def _finite(tensor: Tensor) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError("codes and scores must be finite; got NaN or infinity")
    return tensor


def _num_extreme(num_extreme: int | float, num_samples: int) -> int:
    if num_samples < 4:
        raise ValueError(f"fitting needs at least 4 samples; got {num_samples}")
    if not 0 < num_extreme < math.inf:
        raise ValueError(f"num_extreme must be above 0 and finite; got {num_extreme}")
    if num_extreme > 1 and num_extreme != int(num_extreme):
        raise ValueError(f"num_extreme is a share of all samples up to 1 and a whole number above; got {num_extreme}")
    n = min(int(num_extreme * num_samples if num_extreme <= 1 else num_extreme), num_samples // 2)
    if n < 2:
        raise ValueError(f"num_extreme={num_extreme} leaves fewer than 2 of {num_samples} samples in a class")
    return n


def _num_train(n: int, train_fraction: float) -> int:
    """How many samples of a class train, of n."""
    return min(max(int(n * train_fraction), 1), n - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """What all concepts share of the codes of one layer."""

    mean: Float[Tensor, " D"]
    metric: Metric | None

    def centred(self, codes: Float[Tensor, "m D"]) -> Float[Tensor, "m E"]:
        """Codes less their mean, and a constant: the solver penalises the bias; here there is little to penalise."""
        x = codes.new_ones(len(codes), codes.shape[1] + 1)
        torch.sub(codes, self.mean, out=x[:, :-1])
        return x


def _spaces(samples: Samples, num_train: int) -> list[_Space]:
    """One per layer, for so many training samples. Second moments of some will do: they only speed the solver up."""
    means = _mean(samples, torch.arange(len(samples)))
    if not needs_metric(num_train, samples.code_shape[1] + 1):
        kind = samples.codes(torch.zeros(1, dtype=torch.int64)).dtype
        return [_Space(mean, None) for mean in means.to(kind)]
    stride = max(1, len(samples) // (16 * samples.code_shape[1]))
    some = samples.codes(torch.arange(0, len(samples), stride))
    return [
        _Space(mean, metric_of(torch.nn.functional.pad(codes - mean, (0, 1), value=1.0)))
        for mean, codes in zip(means.to(some.dtype), some.unbind(1), strict=True)
    ]


def _mean(samples: Samples, rows: Int64[Tensor, " m"]) -> Float[Tensor, "l D"]:
    """Of the codes of those samples, in double precision; a thousand at a time are added in their own."""
    sums = (part.sum(0).double() for _, codes in _blocks(samples, rows) for part in codes.split(_TERMS))
    return _finite(sum(sums, start=torch.zeros(()))) / len(rows)


_Layers = list[tuple[Tensor, Tensor, Tensor]]
"""Normals, biases and held-out accuracies, layer by layer."""


def _fit_extreme(
    codes: Float[Tensor, "m l D"],
    order: Int64[Tensor, "C 2 n"],
    spaces: list[_Space],
    *,
    num_train: int,
    loss: Loss,
    C: float,
) -> _Layers:
    n = order.shape[2]
    label = torch.tensor([1.0, -1.0], dtype=torch.float64, device=codes.device)
    train = order[:, :, :num_train].flatten(1)
    held = order[:, :, num_train:].flatten(1)
    y_train = label.repeat_interleave(num_train).expand(len(order), -1)
    y_held = label.repeat_interleave(n - num_train)
    layers = []
    for number, (space, layer) in enumerate(zip(spaces, codes.unbind(1), strict=True)):
        x = torch.stack([space.centred(layer[rows]) for rows in train])
        weights = solve(loss, x, y_train, space.metric, C=C)
        decision = torch.stack([space.centred(layer[rows]) @ w.to(x) for rows, w in zip(held, weights, strict=True)])
        bias = weights[:, -1] - weights[:, :-1] @ space.mean.double()
        w, b = _unit(weights[:, :-1], bias, number, len(spaces))
        layers.append((w.to(x), b.to(x), (decision.sign() == y_held).double().mean(1)))
    return layers


def _fit_all(
    samples: Samples, columns: list[int], n: int, *, train_fraction: float, ridge: float, seed: int
) -> tuple[Boundary, ...]:
    shuffled = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    num_train = min(max(int(len(samples) * train_fraction), 2), len(samples) - 1)
    train, held = (rows.sort().values for rows in shuffled.tensor_split([num_train]))
    # Scores, targets and labels of the samples are in memory at once, most of them in double precision.
    size = max(1, _GATHER // (4 * len(samples) * torch.float64.itemsize))
    boundaries: list[Boundary] = []
    moments = _moments(samples, train, ridge)
    for some in _split(columns, size):
        layers, std = _ridge(samples, some, n, train, held, moments, seed)
        boundaries += _boundaries(samples, some, layers, num_train, std)
    return tuple(boundaries)


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Mean and penalised second moments of the training codes, and which dimensions are not zero in all of them."""

    mean: Float[Tensor, "l D"]
    gram: Float[Tensor, "l D D"]
    used: Bool[Tensor, "l D"]


def _moments(samples: Samples, train: Tensor, ridge: float) -> _Moments:
    """In two passes over blocks of the training codes."""
    mean = _mean(samples, train)
    gram = torch.zeros(*mean.shape, mean.shape[-1], dtype=mean.dtype, device=mean.device)
    for _, codes in _blocks(samples, train):
        x = _centred(codes, mean)
        gram += _inner(x, x)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    used = (mean != 0) | (diagonal > 0)
    # The relative penalty keeps directions in which codes hardly vary from blowing up.
    mean_variance = diagonal.sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp(min=1)
    diagonal += ridge * mean_variance.clamp(min=torch.finfo(gram.dtype).tiny)
    return _Moments(mean, gram, used)


def _centred(codes: Float[Tensor, "m l D"], mean: Float[Tensor, "l D"]) -> Float[Tensor, "l m D"]:
    return (codes - mean.to(codes.dtype)).transpose(0, 1)


def _inner(x: Float[Tensor, "l m D"], y: Float[Tensor, "#l m E"]) -> Float[Tensor, "l D E"]:
    """xᵀy."""
    parts = zip(x.split(_TERMS, 1), y.split(_TERMS, 1), strict=True)
    return sum(((a.mT @ b).double() for a, b in parts), start=torch.zeros((), device=x.device))


def _ridge(
    samples: Samples,
    columns: list[int],
    n: int,
    train: Tensor,
    held: Tensor,
    moments: _Moments,
    seed: int,
) -> tuple[_Layers, Float[Tensor, " C"]]:
    """Boundaries, and the standard deviation of every score."""
    mean = moments.mean
    scores = _finite(samples.scores(columns))
    target = _standardise(scores[train].double()).to(mean.device)
    moment = torch.zeros((), device=mean.device)
    for some, codes in _blocks(samples, train):
        moment = moment + _inner(_centred(codes, mean), target[None, some].to(codes))
    w = torch.linalg.solve(moments.gram, moment).mT
    # Layers narrower than the code are padded with zeros, which no edit may touch.
    fallback = random_directions(len(columns), w.shape[2], seed=seed).to(w) * moments.used[:, None]
    w = torch.where(w.norm(dim=2, keepdim=True) == 0, fallback, w)
    rows = enumerate(zip(w, mean, strict=True))
    found = [_unit(normals, -normals @ centre, number, len(w)) for number, (normals, centre) in rows]
    normals = torch.stack([w for w, _ in found])
    labels = _extreme_labels(scores, n)[held].to(mean.device)
    hits = torch.zeros(len(found), len(columns), dtype=torch.int64, device=w.device)
    for some, codes in _blocks(samples, held):
        # Boundaries go through the mean.
        decision = _centred(codes, mean) @ normals.mT.to(codes)
        hits += ((decision.sign() == labels[some]) & (labels[some] != 0)).sum(1)
    counted = (labels != 0).sum(0)
    if not counted.all():
        concept = samples.concepts[columns[int(counted.argmin())]]
        raise ValueError(
            f"none of the {2 * n} highest and lowest samples of {concept.name} is held out, so that no accuracy can be "
            "told; take a larger num_extreme or a smaller train_fraction"
        )
    accuracies = hits / counted
    dtype = codes.dtype
    layers = [(w.to(dtype), b.to(dtype), a) for (w, b), a in zip(found, accuracies, strict=True)]
    return layers, scores.double().std(0)


def _boundaries(
    samples: Samples, columns: list[int], layers: _Layers, num_train: int, std: Float[Tensor, " C"]
) -> list[Boundary]:
    normals, biases, accuracies = (torch.stack(parts, 1) for parts in zip(*layers, strict=True))
    shared = normals.shape[1] == 1 and samples.num_layers > 1
    best = accuracies.amax(1).tolist()
    return [
        Boundary(
            concept=samples.concepts[column],
            normal=normals[k, 0] if shared else normals[k],
            bias=biases[k, 0] if shared else biases[k],
            holdout_accuracy=best[k],
            num_train=num_train,
            score_std=float(std[k]),
        )
        for k, column in enumerate(columns)
    ]


def _shuffled_extremes(scores: Float[Tensor, "N C"], names: Sequence[str], n: int, seed: int) -> Int64[Tensor, "C 2 n"]:
    """Indices of the n highest and n lowest scores per concept, each class in an order drawn for that concept."""
    extremes = []
    for column, name in zip(scores.unbind(1), names, strict=True):
        order = torch.argsort(column, stable=True)
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        shuffles = [torch.randperm(n, generator=generator).to(order.device) for _ in range(2)]
        extremes.append(torch.stack([order[-n:][shuffles[0]], order[:n][shuffles[1]]]))
    return torch.stack(extremes)


def _extreme_labels(scores: Float[Tensor, "n C"], num_extreme: int) -> Int8[Tensor, "n C"]:
    """+1 for the highest scores of each column, -1 for the lowest, 0 between; of equal ones, the later are higher."""
    columns = scores.T.contiguous()
    high = _highest(columns, num_extreme)
    low = _highest(-columns.flip(1), num_extreme).flip(1)
    return (high.to(torch.int8) - low.to(torch.int8)).T


def _highest(rows: Float[Tensor, "C n"], number: int) -> Bool[Tensor, "C n"]:
    """The highest of each row; of those that equal the last of them, the later ones."""
    least = rows.topk(number, dim=1, sorted=False).values.amin(1, keepdim=True)
    above, equal = rows > least, rows == least
    wanted = number - above.sum(1, keepdim=True)
    if torch.equal(equal.sum(1, keepdim=True), wanted):
        return above | equal
    from_the_end = equal.flip(1).cumsum(1).flip(1)
    return above | (equal & (from_the_end <= wanted))


def _standardise(scores: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    centred = scores - scores.mean(0)
    std = centred.square().mean(0).sqrt()
    constant = (scores == scores[0]).all(0)
    return torch.where(constant, 0.0, centred / std.clamp(min=torch.finfo(std.dtype).tiny))


def _unit(
    w: Float[Tensor, "C D"], b: Float[Tensor, " C"], layer: int, num_rows: int
) -> tuple[Float[Tensor, "C D"], Float[Tensor, " C"]]:
    norm = w.norm(dim=1)
    if not bool((norm > 0).all()):
        where = f" of layer {layer}" if num_rows > 1 else ""
        raise ValueError(
            f"all codes{where} are alike: there is no direction to find. A layer's code must depend on the seed; leave "
            "out a layer whose code is constant, or mend the generator's latents and map"
        )
    return w / norm[:, None], b / norm


def project_out(boundary: Boundary, conditions: Sequence[Boundary], *, ridge: float = 0.0) -> Boundary:
    """The boundary's direction with every condition's direction removed, so that an edit leaves the conditions alone.

    Any number of conditions, dependent or not; per layer where one of the normals is. The held-out accuracy of
    the result is not known and therefore NaN.

    With a ``ridge`` ρ above zero, less is removed: (ρ I + Σ m mᵀ)⁻¹ n over the conditions' normals m, scaled to unit
    length, which minimises the conditions' change and ρ times the length of the step for the same change along n. Where
    normals overlap so much that little is left of n, removing all of it takes long steps along what is mostly error of
    the fit; ρ = 0.1 keeps most of the gain without that (docs/benchmark.md).

    Raises:
        ValueError: no conditions, other shapes, a negative ridge, or nothing of the direction is left.
    """
    if not 0 <= ridge < math.inf:
        raise ValueError(f"ridge must be 0 or more, and finite; got {ridge}")
    if not conditions:
        raise ValueError("project_out needs at least one condition; got none")
    # A normal that all layers share is every layer's, beside one with a row for each.
    shape = max((b.normal.shape for b in (boundary, *conditions)), key=len)
    for condition in conditions:
        if not {condition.normal.shape, boundary.normal.shape} <= {shape, shape[-1:]}:
            raise ValueError(
                f"all boundaries must come from one space; {boundary.concept.name!r} has a normal of shape "
                f"{tuple(boundary.normal.shape)}, {condition.concept.name!r} one of {tuple(condition.normal.shape)}"
            )
    normal = boundary.normal.double().expand(shape)
    stacked = torch.stack([c.normal.to(normal).expand(shape) for c in conditions], -1)
    # Singular vectors rather than a QR decomposition: conditions that depend on one another must not add directions.
    basis, weight, _ = torch.linalg.svd(stacked, full_matrices=False)
    removed = weight.square() / (weight.square() + ridge) if ridge > 0 else (weight > 1e-6 * weight[..., :1]).to(weight)
    rest = normal - ((basis * removed[..., None, :]) @ (basis.mT @ normal[..., None]))[..., 0]
    # Directions may be longer at some layers than at others, and stay so; rounding of unit length is left as it is.
    own = normal.norm(dim=-1)
    own = torch.where((own - 1).abs() < 1e-5, 1.0, own)
    # Layers that the direction leaves alone have nothing to lose.
    length = torch.where(own == 0, 1.0, rest.norm(dim=-1) / own)
    if not bool((length > 1e-4).all()):
        names = ", ".join(repr(c.concept.name) for c in conditions[:_TOLD])
        more = f" and {len(conditions) - _TOLD} others" if len(conditions) > _TOLD else ""
        raise ValueError(
            f"nothing of the direction of {boundary.concept.name!r} is left without {names}{more}; take fewer concepts "
            "at a time"
        )
    return dataclasses.replace(
        boundary,
        normal=(rest / length[..., None]).to(boundary.normal.dtype),
        bias=(boundary.bias.double().expand(shape[:-1]) / length).to(boundary.bias.dtype),
        holdout_accuracy=math.nan,
        stability=math.nan,
    )


def code_spread(boundary: Boundary, codes: Float[Tensor, "n l D"], layers: Sequence[int] | None = None) -> float:
    """Standard deviation of the codes along a boundary's normal, averaged over layers with codes of their own.

    Of such layers those that are given, or all: some may vary by a hundred times as much as others.
    """
    along = (codes * boundary.normal.to(codes)).sum(-1)
    if layers is not None and codes.shape[1] > 1:
        along = along[:, list(layers)]
    return float(along.std(0, correction=0).mean())


def random_directions(num: int, dim: int, *, seed: int = 0) -> Float[Tensor, "num dim"]:
    """Directions drawn uniformly from the unit sphere, on the CPU: what an edit that means nothing looks like.

    Raises:
        ValueError: ``num`` or ``dim`` is below 1.
    """
    if num < 1 or dim < 1:
        raise ValueError(f"num and dim must be at least 1; got {num} and {dim}")
    rows = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (rows / rows.norm(dim=1, keepdim=True)).float()
