"""Discovery without labels: candidate directions from the weights or the codes alone, named by re-scoring.

``sefa`` (Shen & Zhou, "Closed-form factorization of latent semantics in GANs", 2021) asks which directions of the code
change the styles of some layers most; ``pca`` (Härkönen et al., "GANSpace", 2020) along which the sampled codes vary
most. Neither knows what it has found: ``discover`` moves samples along every candidate and reads the change of every
score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from higan.effects import measure_changes
from higan.layers import check_layers, groups
from higan.population import Progress, sample, sample_seeds
from higan.rescoring import meaningless_directions
from higan.statistics import resample_weights, resampled_t
from higan.types import Boundary, Concept, Edit, Generator, RaggedGenerator, Scorer, StyledGenerator

__all__ = ["Candidate", "Discovery", "Method", "discover", "pca", "sefa"]

Method = Literal["sefa", "pca"]

_ROUNDING = 1e-12
"""Share of the largest eigenvalue below which there is nothing: squares of what float32 leaves of a zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A direction without a name; ``value`` is its eigenvalue, by which candidates of one set are sorted."""

    normal: Float[Tensor, "*l D"]
    value: float
    layers: tuple[int, ...]


def sefa(generator: Generator, layers: Sequence[int], num: int = 5) -> tuple[Candidate, ...]:
    """Eigenvectors of AᵀA, largest eigenvalue first, A being the style weights of the layers one below the other.

    Rows of A are scaled to unit length first, as the reference implementation does; rows of zeros are left out. Of the
    two opposite directions of an eigenvector, the one whose largest component is positive is given. Where layers differ
    in width, each has its part of the direction, (L, D), the longest of unit length. There are fewer than ``num`` where
    the weights read fewer dimensions of the code.

    Raises:
        ValueError: the generator has no style weights, bad layers, or more directions than dimensions.
    """
    if not isinstance(generator, StyledGenerator):
        raise ValueError(  # noqa: TRY004 - wrong arguments raise ValueError throughout
            f"{generator.name!r} does not tell its style weights; use PCA (--method pca), which needs codes alone, or "
            "give it a method style_weights(layer) that returns the (o, D) matrix by which a layer reads its code"
        )
    check_layers(layers, generator.num_layers)
    _check_num(num, generator.code_dim)
    rows = torch.cat([generator.style_weights(layer).detach().cpu().double() for layer in sorted(set(layers))])
    length = rows.norm(dim=1, keepdim=True)
    rows = (rows / length.clamp(min=torch.finfo(rows.dtype).tiny))[length[:, 0] > 0]
    found = _candidates(rows.T @ rows, layers, num)
    if not isinstance(generator, RaggedGenerator) or min(generator.layer_widths) == generator.code_dim:
        return found
    return tuple(_within(candidate, generator.layer_widths) for candidate in found)


def _within(candidate: Candidate, widths: Sequence[int]) -> Candidate:
    """The same direction at every one of its layers, (L, D), as far as that layer's width goes."""
    normal = torch.zeros(len(widths), len(candidate.normal))
    for layer in candidate.layers:
        normal[layer, : widths[layer]] = candidate.normal[: widths[layer]]
    return Candidate(normal / normal.norm(dim=1).max().clamp(min=1e-12), candidate.value, candidate.layers)


def pca(codes: Float[Tensor, "n L D"], layers: Sequence[int], num: int = 5) -> tuple[Candidate, ...]:
    """Principal axes of the codes at some layers, largest variance first.

    Where all layers share their code, the axes are those of that one code, (D,). Otherwise they are those of the codes
    of the chosen layers taken together, (L, D): each layer has its part of an axis, the longest part is of unit length,
    and other layers' rows are zero. There are fewer than ``num`` where fewer dimensions of the codes vary.

    Raises:
        ValueError: fewer than two codes, bad layers, or more directions than dimensions.
    """
    n, L, D = codes.shape
    check_layers(layers, L)
    if n < 2:
        raise ValueError(f"principal axes need at least 2 codes; got {n}")
    x = codes.cpu().double()
    if bool((codes == codes[:, :1]).all()):
        _check_num(num, D)
        centred = x[:, 0] - x[:, 0].mean(0)
        return _candidates(centred.T @ centred / (n - 1), layers, num)
    chosen = sorted(set(layers))
    _check_num(num, len(chosen) * D)
    flat = (x - x.mean(0))[:, chosen].flatten(1)
    found = []
    for candidate in _candidates(flat.T @ flat / (n - 1), layers, num):
        normal = torch.zeros(L, D)
        part = candidate.normal.reshape(len(chosen), D)
        normal[chosen] = part / part.norm(dim=1).max()
        found.append(Candidate(normal, candidate.value, candidate.layers))
    return tuple(found)


def _check_num(num: int, most: int) -> None:
    if not 1 <= num <= most:
        raise ValueError(f"there are 1 to {most} directions to be had; got {num}")


def _candidates(gram: Float[Tensor, "d d"], layers: Sequence[int], num: int) -> tuple[Candidate, ...]:
    # What lies beyond a narrow layer's width is nothing, and no direction may lead there.
    used = gram.diagonal() > 0
    values, within = torch.linalg.eigh(gram[used][:, used])
    vectors = torch.zeros(len(gram), len(values), dtype=gram.dtype)
    vectors[used] = within
    # Nor is there an order, or a meaning, among directions of eigenvalues that rounding alone keeps from zero.
    num = min(num, int((values > _ROUNDING * values[-1:]).sum()))
    values, vectors = values.flip(0)[:num], vectors.flip(1)[:, :num].T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * largest.sign()
    where = tuple(sorted(set(layers)))
    return tuple(Candidate(v.float(), float(value), where) for v, value in zip(vectors, values, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Discovery:
    """A candidate and what it turned out to change most.

    ``effect`` is the mean change of that concept's score, in standard deviations, when the code moves ``step`` along
    the direction; the boundary's normal points to where the score rises. ``confidence`` is the share of resamples of
    the samples in which the same concept comes first, ``chance`` the largest change of any score that random directions
    bring about which are followed as far, ``step``, at the same layers. The interval (95 %) is that of the largest of
    all concepts' changes: it holds for all of them at once. ``named`` says that even its nearer end is beyond chance.
    """

    candidate: Candidate
    boundary: Boundary
    step: float
    effect: float
    low: float
    high: float
    confidence: float
    chance: float
    runners_up: tuple[tuple[str, float], ...]

    @property
    def named(self) -> bool:
        """Whether the name is more than what chance gives.

        Of one candidate by itself: a direction that is no better than R random ones is named in at most 1 / (R + 1) of
        the cases, and more seldom the fewer samples there are.
        """
        return self.low > self.chance


def discover(
    generator: Generator,
    scorer: Scorer,
    *,
    method: Method = "sefa",
    stages: Mapping[str, Sequence[int]] | None = None,
    num: int = 3,
    step: float = 3.0,
    num_samples: int = 32,
    num_random: int = 5,
    std: Float[Tensor, " C"] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Discovery, ...]:
    """Candidates for every range of layers, each named by the score that it moves most, with uncertainty.

    Args:
        generator: draws; with style weights for SeFa.
        scorer: names.
        method: ``sefa`` or ``pca``.
        stages: ranges of layers by name; the paper's four stages by default.
        num: candidates per range, or as many as there are.
        step: how far codes are moved, in standard deviations of the sampled codes along each direction.
        num_samples: samples moved along every candidate.
        num_random: random directions per range, each followed as far as every candidate, for what chance gives.
        std: standard deviation of every score; by default that of the samples.
        num_resamples: for intervals and confidence.
        seed: chooses samples and random directions.
        progress: called after every batch of images.

    Raises:
        ValueError: unknown method, counts below 1, fewer than 3 samples, bad layers, no style weights for SeFa, or no
            directions at all.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    if num_random < 1 or not step > 0:
        raise ValueError(f"step must be above 0, and there must be a random direction; got {step} and {num_random}")
    if num_samples < 3:
        raise ValueError(f"what an interval is told of takes 3 samples or more; got {num_samples}")
    codes = sample(generator, sample_seeds(1024, seed=seed)).float()
    stages = groups(generator.num_layers) if stages is None else stages
    trials: list[tuple[Candidate, list[Edit]]] = []
    for layers in stages.values():
        found = pca(codes, layers, num) if method == "pca" else sefa(generator, layers, num)
        trials += [(candidate, _trials(generator, candidate, codes, step, num_random, seed)) for candidate in found]
    if not trials:
        raise ValueError(
            f"there is no direction to follow at these layers: {generator.name!r} reads nothing of its code there "
            "(sefa), or its codes do not vary (pca)"
        )
    edits = [edit for _, some in trials for edit in some]
    changes = measure_changes(
        generator, scorer, edits, std=std, num=num_samples, seed=seed, first=2**22 + 2**21, progress=progress
    )
    weights = resample_weights(num_samples, num_resamples, seed)
    return tuple(
        _named(candidate, own, moved, scorer, weights)
        for (candidate, (own, *_)), moved in zip(trials, changes.split(1 + num_random), strict=True)
    )


def _trials(
    generator: Generator, candidate: Candidate, codes: Float[Tensor, "n L D"], step: float, num_random: int, seed: int
) -> list[Edit]:
    """The candidate, then random directions as far as it goes: any direction changes scores if only it is followed far.

    Codes vary most along principal axes, which therefore go several times as far as a random direction would for as
    many of its own standard deviations.
    """
    normal, at = candidate.normal, list(candidate.layers)
    parts = normal.to(codes).expand(codes.shape[1], -1)[at]
    # The coordinate along all layers' parts together, of which the step is so many standard deviations.
    along = (codes[:, at] * parts).sum((1, 2)) / parts.square().sum()
    length = step * (float(along.std(correction=0)) or 1.0)
    nameless = Boundary(Concept("nameless", "attribute"), normal, torch.zeros(normal.shape[:-1]), float("nan"))
    widths = generator.layer_widths if isinstance(generator, RaggedGenerator) else None
    random = meaningless_directions(nameless, num_random, seed, widths)
    if normal.ndim == 2:
        # As far at every layer as the candidate.
        random = [replace(r, normal=r.normal * normal.norm(dim=1, keepdim=True)) for r in random]
    return [Edit(direction, length, candidate.layers) for direction in (nameless, *random)]


def _named(
    candidate: Candidate,
    trial: Edit,
    moved: Float[Tensor, "E C K"],
    scorer: Scorer,
    weights: Float[Tensor, "B K"],
) -> Discovery:
    """What the candidate's changes, those of the first edit, are called beside those of random directions."""
    changes = moved[0]
    mean = changes.mean(-1)
    order = mean.abs().argsort(descending=True, stable=True).tolist()
    best = order[0]
    sign = -1.0 if float(mean[best]) < 0 else 1.0
    most = (changes @ weights.T).abs().max(0)
    # Where nothing changes the first of all is no winner.
    wins = ((most.indices == best) & (most.values > 0)).double().mean()
    # The largest of many changes: an interval that holds for all of them at once holds for whichever it is.
    t, error = resampled_t(changes, weights)
    half = float(torch.quantile(t.abs().amax(0), 0.95) * error[best])
    effect = float(sign * mean[best])
    normal = sign * candidate.normal
    return Discovery(
        candidate=candidate,
        boundary=Boundary(scorer.concepts[best], normal, torch.zeros(normal.shape[:-1]), float("nan")),
        step=float(trial.strength),
        effect=effect,
        low=effect - half,
        high=effect + half,
        confidence=float(wins),
        chance=float(moved[1:].mean(-1).abs().max()),
        runners_up=tuple((scorer.concepts[c].name, float(sign * mean[c])) for c in order[1:3]),
    )
