"""What the judge knows and no method sees: which layers cause a concept, along which direction, and by how much.

For a generator that tells its factors it is exact. For any other it is estimated by a randomised experiment: the codes
of many samples are disturbed at random, every layer on its own, and each score's change is regressed on the
disturbance. No method under test searches for directions that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from higan.population import Progress, render, sample, sample_seeds, score
from higan.types import Concept, Generator, Scorer

__all__ = ["STEP", "TellsTruth", "Truth", "estimate_truth", "exact_truth"]

STEP = 2.0
"""λ, the step by which strengths are defined."""

_STRENGTH = 96
"""Samples that strengths are measured on where pictures have to be drawn."""
_FIRST = 2**23
"""Index of the judge's first sample: beyond all that methods use."""


@runtime_checkable
class TellsTruth(Generator, Protocol):
    """A generator whose factors are known functions of its codes; `higan.generators.transparent` is one."""

    @property
    def factors(self) -> Sequence[Named]:
        """F factors, named as the scorer's concepts are."""
        ...

    @property
    def directions(self) -> Float[Tensor, "F D"]:
        """The true direction of every factor, of unit length."""
        ...

    @property
    def layer_weights(self) -> Float[Tensor, "F L"]:
        """How much of every factor each layer causes; zeros are exact."""
        ...

    def values(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n F"]:
        """Exact values."""
        ...

    def jacobian(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n F L D"]:
        """Their exact derivatives."""
        ...


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """As the scorer calls it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The answers, for the C concepts of a scorer in its order.

    ``effects`` is the mean size of the change per unit step along the true direction at one layer, in standard
    deviations of the value; a row of zeros is a concept that nothing causes. ``causes`` is 1 where a layer causes a
    concept, 0 where it certainly does not, and -1 where that is not known or too little to count. ``strength`` is the
    mean change under a step of λ = 2 along the true direction at all layers. ``values`` gives the value of every
    concept in standard deviations; columns of concepts that nothing causes are zero.
    """

    exact: bool
    effects: Float[Tensor, "C L"]
    causes: Float[Tensor, "C L"]
    directions: Float[Tensor, "C D"]
    strength: Float[Tensor, " C"]
    codes: Float[Tensor, "n L D"]
    """Samples of the judge, on which edits are tried."""
    start: Float[Tensor, "n C"]
    """Their values."""
    values: Callable[[Tensor], Tensor]
    search: tuple[int, int] = (16, 6)
    """Samples, and halvings of a bracket, by which the strength of an edit is found."""

    @property
    def real(self) -> Bool[Tensor, " C"]:
        """Which concepts anything causes."""
        return self.effects.sum(1) > 0


def exact_truth(
    generator: TellsTruth, concepts: Sequence[Concept], *, num: int = 256, seed: int = 0, least: float = 0.02
) -> Truth:
    """The truth of a generator that tells it; concepts that are none of its factors are caused by nothing.

    Args:
        generator: tells.
        concepts: the scorer's, in its order.
        num: samples on which edits will be tried.
        seed: chooses them.
        least: share of a factor that a layer must hold to count as one of its causes.
    """
    names = [factor.name for factor in generator.factors]
    columns = [names.index(c.name) if c.name in names else -1 for c in concepts]
    known = torch.tensor([column >= 0 for column in columns])
    at = torch.tensor([max(column, 0) for column in columns])
    # Here, and so is all that is reckoned with; only the generator's own functions are called where it is.
    codes = sample(generator, sample_seeds(max(num, 1024), seed=seed, purpose="verify", first=_FIRST)).cpu()

    def there(compute: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
        return compute(codes.to(generator.device)).cpu()

    values = there(generator.values, codes)
    mean, std = values.mean(0), values.std(0)

    def standardised(codes: Tensor) -> Tensor:
        found = (there(generator.values, codes) - mean) / std
        return torch.where(known, found[:, at], 0.0)

    directions = generator.directions.cpu()
    slopes = (there(generator.jacobian, row) for row in codes.split(64))
    per_layer = torch.cat([(slope * directions[None, :, None]).sum(-1) for slope in slopes])
    effects = per_layer.abs().mean(0) / std[:, None]
    moved = torch.stack(
        [(there(generator.values, codes + STEP * d) - values)[:, f].mean() for f, d in enumerate(directions)]
    )
    weights = generator.layer_weights.cpu()
    causes = torch.where(weights > least, 1.0, torch.where(weights == 0, 0.0, -1.0))
    return Truth(
        exact=True,
        effects=torch.where(known[:, None], effects[at], 0.0),
        causes=torch.where(known[:, None], causes[at], 0.0),
        directions=torch.where(known[:, None], directions[at], 0.0),
        strength=torch.where(known, (moved / std)[at], 0.0),
        codes=codes[:num],
        start=standardised(codes[:num]),
        values=standardised,
    )


def estimate_truth(
    generator: Generator,
    scorer: Scorer,
    *,
    nulls: Sequence[str] = (),
    num: int = 24,
    disturbances: int = 16_000,
    scale: float = 0.5,
    seed: int = 0,
    batch_size: int = 64,
    least: float = 0.1,
    progress: Progress | None = None,
) -> Truth:
    """The truth of any generator of shared codes, as far as a scorer can tell it, by a randomised experiment.

    Every layer's code gets its own Gaussian disturbance; ordinary least squares of each score's change on all of them
    gives the mean gradient at every layer at once, whatever correlations the sampled codes have. The size of a layer's
    effect is the gradient's length less what noise alone gives it.

    Args:
        generator: draws; all layers share their code.
        scorer: the judge is no better than it.
        nulls: its concepts that nothing causes.
        num: samples on which edits will be tried.
        disturbances: more than L · D, or nothing can be regressed.
        scale: length of a layer's disturbance, in lengths of a centred code.
        seed: chooses the samples and disturbances.
        batch_size: images at a time.
        least: share of a concept that a layer must hold to count as one of its causes.
        progress: called after every batch of images.

    Raises:
        ValueError: too few disturbances, or layers with codes of their own.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    L, D = generator.num_layers, generator.code_dim
    if disturbances <= 1.5 * L * D:
        raise ValueError(f"{L} layers of width {D} take more than {1.5 * L * D:.0f} disturbances; got {disturbances}")
    if not generator.shared_code:
        raise ValueError(f"the layers of {generator.name!r} have codes of their own; the truth is estimated in W space")
    originals = max(min(disturbances // 4, 1000), num)
    seeds = sample_seeds(originals, seed=seed, purpose="verify", first=_FIRST)
    # As above; drawing moves them.
    codes = torch.cat([sample(generator, part).cpu() for part in seeds.split(batch_size)])
    before = _scores(generator, scorer, codes, batch_size)
    mean, std = before.mean(0), before.std(0).clamp(min=1e-9)
    size = scale * float((codes[:, 0] - codes[:, 0].mean(0)).norm(dim=1).median()) / D**0.5
    dice = torch.Generator().manual_seed(seed)
    disturbed, changes = [], []
    for start in range(0, disturbances, batch_size):
        at = torch.arange(start, min(start + batch_size, disturbances)) % originals
        push = size * torch.randn(len(at), L, D, generator=dice)
        after = _scores(generator, scorer, codes[at] + push, batch_size)
        disturbed.append(push.flatten(1).double())
        changes.append((after - before[at]) / std)
        if progress is not None:
            progress(originals + start + len(at), originals + disturbances)
    gradient, noise = _regress(torch.cat(disturbed), torch.cat(changes))
    gradient = gradient.reshape(-1, L, D)
    lengths = (gradient.square().sum(-1) - noise[:, None] * D).clamp(min=0).sqrt()
    real = torch.tensor([c.name not in nulls for c in scorer.concepts])
    lengths = torch.where(real[:, None], lengths, 0.0)
    shares = lengths / lengths.sum(1, keepdim=True).clamp(min=1e-12)
    directions = torch.nn.functional.normalize(gradient.sum(1), dim=-1).float() * real[:, None]

    def values(codes: Tensor) -> Tensor:
        found = _scores(generator, scorer, codes, batch_size)
        return torch.where(real, (found - mean) / std, 0.0)

    tried = codes[:num]
    many = codes[:_STRENGTH]
    origin = values(many)
    moved = [
        float((values(many + STEP * d) - origin)[:, c].mean()) if real[c] else 0.0 for c, d in enumerate(directions)
    ]
    return Truth(
        exact=False,
        effects=lengths.float(),
        causes=torch.where(real[:, None], torch.where(shares > least, 1.0, -1.0), 0.0),
        directions=directions,
        strength=torch.tensor(moved),
        codes=tried,
        start=values(tried),
        values=values,
        search=(min(12, num), 3),
    )


def _scores(
    generator: Generator, scorer: Scorer, codes: Float[Tensor, "n L D"], batch_size: int
) -> Float64[Tensor, "n C"]:
    return torch.cat([score(scorer, render(generator, part)).cpu() for part in codes.split(batch_size)]).double()


def _regress(x: Float[Tensor, "m p"], y: Float[Tensor, "m C"]) -> tuple[Float[Tensor, "C p"], Float[Tensor, " C"]]:
    """Least squares through the mean: coefficients, and the variance of one coefficient's error."""
    x, y = x - x.mean(0), y - y.mean(0)
    gram = x.T @ x
    found = torch.linalg.solve(gram, x.T @ y)
    residual = (y - x @ found).square().sum(0) / (len(x) - x.shape[1] - 1)
    return found.T, residual * torch.linalg.inv(gram).diagonal().mean()
