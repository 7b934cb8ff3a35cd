"""The methods under test: each is one function from a `Lab` to an `Answer`.

A method may draw and score as much as it likes through the lab; it never sees the truth. To add one, write the function
and hand it over: ``run_benchmark(..., methods={**METHODS, "mine": mine})``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from higan.boundaries import Mode, fit, project_out, random_directions
from higan.directions import Candidate, pca, sefa
from higan.effects import measure_changes
from higan.layers import groups, placements
from higan.population import measure, sample, sample_seeds
from higan.rescoring import rescore
from higan.statistics import WORTHWHILE, beside, delta, null_level, p_values, q_values, signed, standardise
from higan.types import (
    LEVELS,
    Boundary,
    Concept,
    Edit,
    Generator,
    Placement,
    Population,
    Rescoring,
    Scorer,
    StyledGenerator,
)
from higan.workbench import recommend

__all__ = ["METHODS", "Answer", "Lab", "Method"]

T = TypeVar("T")

_ALPHA = 0.05
_CANDIDATES = 16


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a method says about the C concepts of a scorer, in its order.

    Args:
        directions: one unit direction per concept, towards more of it.
        effect: how strongly following it raises the concept; concepts are ranked by it.
        profile: how much of the concept each layer holds, in any unit, not below zero.
        evidence: the larger, the surer the method is that the layer causes the concept.
        p: chance of such evidence where there is nothing, if the method gives one.
        edits: how the method would edit each concept; the judge chooses the strength.
    """

    directions: Float[Tensor, "C D"]
    effect: Float[Tensor, " C"]
    profile: Float[Tensor, "C L"]
    evidence: Float[Tensor, "C L"]
    p: Float[Tensor, "C L"] | None
    edits: tuple[Edit, ...]


@dataclass(frozen=True, eq=False)
class Lab:
    """What a method works with: a generator, a scorer, and how much it may look at.

    Args:
        generator: all of its layers share their code, or there is one.
        scorer: predicts the concepts.
        num: N, samples to probe.
        verify: K, samples to move.
        num_random: R, random directions for a null.
        step: λ.
        seed: chooses all samples and random directions.

    Raises:
        ValueError: layers have codes of their own.
    """

    generator: Generator
    scorer: Scorer
    num: int = 2000
    verify: int = 32
    num_random: int = 20
    step: float = 2.0
    seed: int = 0
    _kept: dict[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not (self.generator.shared_code or self.generator.num_layers == 1):
            raise ValueError(
                f"the layers of {self.generator.name!r} have codes of their own; methods are compared where all layers "
                "share one: take such a generator"
            )

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The scorer's."""
        return self.scorer.concepts

    @property
    def everywhere(self) -> tuple[int, ...]:
        """All layers."""
        return tuple(range(self.generator.num_layers))

    def population(self) -> Population:
        """N scored samples; measured once."""
        return self._once("population", lambda: measure(self.generator, self.scorer, self._seeds()))

    @property
    def candidates(self) -> int:
        """How many directions a method without labels chooses from at every range of layers."""
        return min(_CANDIDATES, self.generator.code_dim)

    def boundaries(self, mode: Mode = "extreme") -> tuple[Boundary, ...]:
        """A boundary per concept, `higan.boundaries.fit`, its normal (D,); fitted once."""
        return self._once(f"fit {mode}", lambda: self._fit(mode))

    def _fit(self, mode: Mode) -> tuple[Boundary, ...]:
        found = fit(self.population(), mode=mode, seed=self.seed)
        # Of a single layer the fit does not know that it shares its code with all: they are it.
        D = self.generator.code_dim
        return tuple(dataclasses.replace(b, normal=b.normal.reshape(D), bias=b.bias.reshape(())) for b in found)

    def rescored(
        self,
        boundaries: Sequence[Boundary],
        *,
        places: Sequence[Placement] | None = None,
        num_random: int | None = None,
    ) -> Rescoring:
        """`higan.rescoring.rescore` of these boundaries, at all placements by default; the same ones once only."""
        key = repr([places, num_random, *(b.normal.numpy().tobytes() for b in boundaries)])
        return self._once(
            f"rescoring {key}",
            lambda: self._rescore(boundaries, places, self.num_random if num_random is None else num_random),
        )

    def _rescore(
        self, boundaries: Sequence[Boundary], places: Sequence[Placement] | None, num_random: int
    ) -> Rescoring:
        found = rescore(
            self.generator,
            self.scorer,
            boundaries,
            num=self.verify,
            step=self.step,
            seed=self.seed,
            places=places,
            num_random=num_random,
        )
        # The N samples tell the scores' standard deviations better than the K that were moved.
        return dataclasses.replace(found, score_std=self.population().scores.std(0))

    def _seeds(self) -> Tensor:
        return sample_seeds(self.num, seed=self.seed)

    def _once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return cast(T, self._kept[key])


Method = Callable[[Lab], Answer]
"""One signature for all."""


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(lab: Lab) -> Answer:
    """Boundaries of extreme samples, re-scored against random directions, edited where recommended.

    The second null of ``higan run``, of permuted scores, is left out: peers pay for neither.
    """
    return _study(lab, lab.boundaries("extreme"))


def ours_every_sample(lab: Lab) -> Answer:
    """The same with ``--fit all``: ridge regression on every sample's score."""
    return _study(lab, lab.boundaries("all"))


def ours_conditional(lab: Lab) -> Answer:
    """The second, and from every edit the directions of all other verified concepts are projected out."""
    boundaries = lab.boundaries("all")
    answer = _study(lab, boundaries)
    verified = [b for b, effect in zip(boundaries, answer.effect.tolist(), strict=True) if effect > 0]
    return dataclasses.replace(answer, edits=_conditional(answer.edits, verified))


def ours_softly_conditional(lab: Lab) -> Answer:
    """As conditional, but less is projected out where directions overlap: ``project_out(ridge=0.1)``."""
    boundaries = lab.boundaries("all")
    answer = _study(lab, boundaries)
    verified = [b for b, effect in zip(boundaries, answer.effect.tolist(), strict=True) if effect > 0]
    return dataclasses.replace(answer, edits=_conditional(answer.edits, verified, ridge=0.1))


def _study(lab: Lab, boundaries: Sequence[Boundary]) -> Answer:
    rescoring = lab.rescored(boundaries)
    at = _columns(rescoring, lab)
    change, level = delta(rescoring), null_level(rescoring)
    p = p_values(rescoring, pooled=True)
    excess = standardise(rescoring, change - level).clamp(min=0)
    verified = (q_values(p[:, 0]) <= _ALPHA) & (signed(rescoring)[:, 0] > 0)
    spread = rescoring.null.permute(2, 1, 0).std(-1)
    evidence = torch.where(spread > 0, (change - level) / spread.clamp(min=1e-12), 0.0)
    return Answer(
        directions=torch.stack([b.normal for b in boundaries]),
        effect=standardise(rescoring, change)[:, 0] * verified,
        profile=excess[:, at],
        evidence=evidence[:, at],
        p=p[:, at],
        edits=tuple(Edit(b, lab.step, _recommended(rescoring, b, lab)) for b in boundaries),
    )


def _columns(rescoring: Rescoring, lab: Lab) -> list[int]:
    names = [placement.name for placement in rescoring.placements]
    return [names.index(f"layer {layer}") for layer in lab.everywhere]


def _recommended(rescoring: Rescoring, boundary: Boundary, lab: Lab) -> tuple[int, ...]:
    try:
        return recommend(rescoring, boundary.concept.name).layers
    except ValueError:  # no layers raise it
        return lab.everywhere


def _conditional(edits: Sequence[Edit], conditions: Sequence[Boundary], *, ridge: float = 0.0) -> tuple[Edit, ...]:
    result = []
    for edit in edits:
        others = [b for b in conditions if b.concept.name != edit.boundary.concept.name]
        try:
            boundary = project_out(edit.boundary, others, ridge=ridge) if others else edit.boundary
        except ValueError:  # nothing is left of it
            boundary = edit.boundary
        result.append(dataclasses.replace(edit, boundary=boundary))
    return tuple(result)


# --- supervised peers -------------------------------------------------------------------------------------------------


def official(lab: Lab) -> Answer:
    """As the official code does it: the same boundaries, no null, ranked by raw Δs, layers fixed by level."""
    boundaries = lab.boundaries("extreme")
    rescoring = lab.rescored(boundaries)
    change = delta(rescoring)
    stages = [*groups(lab.generator.num_layers).values()]
    layers = [stages[LEVELS.index(b.concept.level) * len(stages) // len(LEVELS)] for b in boundaries]
    profile = torch.zeros(len(boundaries), lab.generator.num_layers)
    for c, own in enumerate(layers):
        profile[c, list(own)] = 1
    return Answer(
        directions=torch.stack([b.normal for b in boundaries]),
        effect=change[:, 0],
        profile=profile,
        evidence=change[:, _columns(rescoring, lab)],
        p=None,
        edits=tuple(Edit(b, lab.step, own) for b, own in zip(boundaries, layers, strict=True)),
    )


def interfacegan(lab: Lab) -> Answer:
    """InterFaceGAN (Shen et al. 2020): boundaries alone, told apart by held-out accuracy, edited at all layers."""
    boundaries = lab.boundaries("extreme")
    accuracy = torch.tensor([b.holdout_accuracy for b in boundaries]) - 0.5
    even = torch.ones(len(boundaries), lab.generator.num_layers)
    return Answer(
        directions=torch.stack([b.normal for b in boundaries]),
        effect=accuracy,
        profile=even,
        evidence=even * accuracy[:, None],
        p=None,
        edits=tuple(Edit(b, lab.step, lab.everywhere) for b in boundaries),
    )


def interfacegan_conditional(lab: Lab) -> Answer:
    """The same, and from every edit the directions of all other concepts are projected out (their section 3.3)."""
    answer = interfacegan(lab)
    return dataclasses.replace(answer, edits=_conditional(answer.edits, lab.boundaries("extreme")))


# --- unsupervised peers -----------------------------------------------------------------------------------------------


def sefa_named(lab: Lab) -> Answer:
    """SeFa (Shen & Zhou 2021): eigenvectors of the style weights, stage by stage and overall, named by effect."""
    found = [c for layers in _ranges(lab) for c in sefa(lab.generator, layers, lab.candidates)]
    return _named(lab, found)


def pca_named(lab: Lab) -> Answer:
    """GANSpace (Härkönen et al. 2020): principal axes of the codes, stage by stage and overall, named by effect."""
    codes = lab.population().codes.expand(-1, lab.generator.num_layers, -1)
    return _named(lab, [c for layers in _ranges(lab) for c in pca(codes, layers, lab.candidates)])


def random_named(lab: Lab) -> Answer:
    """As many random directions as SeFa and PCA have candidates, named by effect as they are: what luck gives."""
    rows = random_directions(lab.candidates, lab.generator.code_dim, seed=lab.seed + 1)
    return _named(lab, [Candidate(row, 0.0, tuple(layers)) for layers in _ranges(lab) for row in rows])


def _ranges(lab: Lab) -> list[tuple[int, ...]]:
    return [*groups(lab.generator.num_layers).values(), lab.everywhere]


def _named(lab: Lab, candidates: Sequence[Candidate]) -> Answer:
    """Every concept gets the candidate that suits it best, then a look at every layer."""
    nameless = Concept("nameless", "attribute")
    codes = sample(lab.generator, sample_seeds(512, seed=lab.seed))[:, 0]
    trials = []
    for candidate in candidates:
        spread = float((codes @ candidate.normal.to(codes)).std())
        boundary = Boundary(nameless, candidate.normal, torch.zeros(()), float("nan"))
        trials.append(Edit(boundary, lab.step * spread, candidate.layers))
    std = lab.population().scores.std(0)
    moved = measure_changes(
        lab.generator, lab.scorer, trials, std=std, num=lab.verify, seed=lab.seed, first=2**22
    ).mean(-1)
    best = _suiting(moved, lab.verify)
    boundaries = []
    for c, (concept, k) in enumerate(zip(lab.concepts, best.tolist(), strict=True)):
        sign = -1.0 if float(moved[k, c]) < 0 else 1.0
        boundaries.append(Boundary(concept, sign * candidates[k].normal, torch.zeros(()), float("nan")))
    single = [p for p in placements(lab.generator.num_layers) if p.name == "all" or p.name.startswith("layer ")]
    rescoring = lab.rescored(boundaries, places=single, num_random=1)
    size = standardise(rescoring, signed(rescoring))
    return Answer(
        directions=torch.stack([b.normal for b in boundaries]),
        effect=size[:, 0],
        profile=size[:, 1:].clamp(min=0),
        evidence=size[:, 1:].abs(),
        p=None,
        edits=tuple(Edit(b, lab.step, candidates[k].layers) for b, k in zip(boundaries, best.tolist(), strict=True)),
    )


def _suiting(moved: Float[Tensor, "n C"], num: int) -> Int64[Tensor, " C"]:
    """The candidate of every concept, by the rule by which our own edits get their layers (`recommend`).

    Of those that move its score by two fifths of the most, the one that moves it most beside all others. By the most
    alone long axes at all layers win, which change everything.

    Args:
        moved: mean changes under every candidate, over ``num`` samples, in standard deviations.
        num: K.
    """
    rows = torch.arange(moved.shape[1])
    others = torch.stack([beside(moved[:, rows != c].T, num) for c in rows], 1)
    return torch.where(moved.abs() >= WORTHWHILE * moved.abs().amax(0), moved.abs() / others, -1.0).argmax(0)


METHODS: Mapping[str, Method] = {
    "ours": ours,
    "ours (every sample)": ours_every_sample,
    "ours (conditional)": ours_conditional,
    "ours (softly conditional)": ours_softly_conditional,
    "official code": official,
    "InterFaceGAN": interfacegan,
    "InterFaceGAN (conditional)": interfacegan_conditional,
    "SeFa": sefa_named,
    "PCA (GANSpace)": pca_named,
    "random directions": random_named,
}
"""By the name they have in the table."""


def usable(methods: Mapping[str, Method], generator: Generator) -> dict[str, Method]:
    """Without SeFa where a generator does not tell its style weights."""
    styled = isinstance(generator, StyledGenerator)
    return {name: method for name, method in methods.items() if styled or method is not sefa_named}
