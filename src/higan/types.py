"""Read first: the letters, the protocols and the data that flow through the package.

Letters, the same in code, docstrings and docs::

    n samples · L layers (coarse → fine) · D code width · C concepts · H, W image size · Dz input-latent width
    K re-scored samples · P placements (sets of layers an edit is applied to) · R random directions
    M directions fitted to permuted scores

The flow::

    seeds → codes (n, L, D) → images (n, 3, H, W) uint8 → scores (n, C)            Population
    Population → one unit normal per concept                                      Boundary
    Population + boundaries → change of every score under every edit              Rescoring
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable
from unicodedata import category

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from higan.spelling import instead

__all__ = [
    "LEVELS",
    "Boundary",
    "Concept",
    "Edit",
    "Generator",
    "Level",
    "Placement",
    "Population",
    "RaggedGenerator",
    "RepeatedGenerator",
    "Rescoring",
    "Responses",
    "Scorer",
    "SegmentClass",
    "Segmenter",
    "StagedGenerator",
    "StyledGenerator",
]

Level = Literal["layout", "object", "attribute", "colour"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The paper's four abstraction levels, in the order in which a person draws a scene."""


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing a scorer can see: a name and the level of abstraction it belongs to."""

    name: str
    level: Level

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a concept needs a name; got an empty string")
        if any(category(letter) == "Cc" for letter in self.name):
            # A line break cannot be typed after --set, and a file's names must not steer the terminal that shows them.
            raise ValueError(f"a concept's name is one line without control characters; got {self.name!r}")
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {self.level!r} for {self.name!r}")


@runtime_checkable
class Generator(Protocol):
    """A generator of images from layer-wise latent codes.

    Sample k depends on seed k alone: never on the batch it is computed in, nor on global random state.
    Truncation lives inside ``synthesize``; codes are always untruncated.
    """

    @property
    def name(self) -> str:
        """What people type, or the file's stem."""
        ...

    @property
    def num_layers(self) -> int:
        """L."""
        ...

    @property
    def code_dim(self) -> int:
        """D, the width of the widest layer; narrower layers are padded with zeros."""
        ...

    @property
    def latent_dim(self) -> int:
        """Dz."""
        ...

    @property
    def resolution(self) -> int:
        """H = W, in pixels."""
        ...

    @property
    def device(self) -> torch.device:
        """Where codes and images live."""
        ...

    @property
    def shared_code(self) -> bool:
        """Whether ``map`` gives every layer the same row (W space), so that one direction serves all layers."""
        ...

    @property
    def truncation(self) -> Float[Tensor, " L"]:
        """Factor by which ``synthesize`` shrinks a step taken at each layer; ones where nothing is truncated."""
        ...

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """One independent draw per seed."""
        ...

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n L D"]:
        """Layer-wise codes, untruncated."""
        ...

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1], differentiable with respect to the codes."""
        ...


# What a generator may be besides. These name nothing that every generator has: from Python 3.12 on, `isinstance` does
# not see buffers of a module, such as its truncation, and would take a generator that is one for less than it is.


@runtime_checkable
class RaggedGenerator(Protocol):
    """A generator whose layers differ in width; what lies beyond a layer's width is padding that no edit may touch."""

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer, at most D."""
        ...


@runtime_checkable
class StagedGenerator(Protocol):
    """A generator that can stop before a layer and go on from there, so that edits of late layers skip the early ones.

    ``resume(prepare(codes, l), edited, l)`` equals ``synthesize(edited)`` for codes that agree on all layers before l.
    """

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int) -> object:
        """Everything that layers before ``layer`` (0 … L-1) contribute, for ``resume`` alone to read."""
        ...

    def resume(self, state: Any, codes: Float[Tensor, "n L D"], layer: int) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1] of codes that differ from the prepared ones in ``layer`` and later layers only."""
        ...


@runtime_checkable
class RepeatedGenerator(StagedGenerator, Protocol):
    """A staged generator that draws several edits of the same samples in one call, from one preparation."""

    def repeat(self, state: Any, times: int) -> object:
        """The state of all samples, ``times`` times over: what ``prepare`` leaves of codes that are so repeated."""
        ...


@runtime_checkable
class StyledGenerator(Protocol):
    """A generator whose layers each read their code through a linear map, whose matrix it tells."""

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into its o scales and shifts; zero columns for padding."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """An off-the-shelf predictor F: images in, one score per concept out; a higher score means more of it."""

    @property
    def name(self) -> str:
        """What people type, or the file's stem."""
        ...

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The C concepts, in the order of the score columns."""
        ...

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Scores on the images' device."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentClass:
    """One class of a segmenter: a countable thing or background stuff, and the colour masks are drawn in."""

    name: str
    kind: Literal["thing", "stuff"]
    colour: tuple[int, int, int]


@runtime_checkable
class Segmenter(Protocol):
    """A predictor of the class of every pixel."""

    @property
    def name(self) -> str:
        """What people type, or the file's stem."""
        ...

    @property
    def classes(self) -> tuple[SegmentClass, ...]:
        """Classes in the order of the mask's values."""
        ...

    def segment(self, images: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W"]:
        """Index into ``classes`` of every pixel."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Sampled codes with their scores: what probing works on.

    ``codes`` has one row per sample where all layers share their code (l = 1), else one per layer (l = L).
    """

    seeds: Int64[Tensor, " n"]
    codes: Float[Tensor, "n l D"]
    scores: Float[Tensor, "n C"]
    concepts: tuple[Concept, ...]
    num_layers: int

    def __len__(self) -> int:
        return self.codes.shape[0]

    def index(self, concept: str) -> int:
        """Column of a concept.

        Raises:
            ValueError: no concept has that name.
        """
        for column, candidate in enumerate(self.concepts):
            if candidate.name == concept:
                return column
        known = instead(concept, [c.name for c in self.concepts])
        raise ValueError(f"unknown concept {concept!r}; this population was scored for: {known}")


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """A linear boundary in code space, ``normal · code + bias = 0``, scores above it on the normal's side.

    ``normal`` is (D,) where all layers share a code, else (l, D) with one row per layer; every row has unit length. Of
    a direction that takes layers unlike far, such as a principal axis of theirs, the longest row has.
    ``holdout_accuracy`` is measured on samples that took no part in the fit (the paper's 30 %). ``stability`` is the
    cosine between the normals found from either half of the population alone; NaN where nobody looked. ``score_std`` is
    the standard deviation of the concept's score over the population, the unit of its effects; NaN where nobody told.
    """

    concept: Concept
    normal: Float[Tensor, "*l D"]
    bias: Float[Tensor, "*l"]
    holdout_accuracy: float
    num_train: int = 0
    stability: float = math.nan
    score_std: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A move of ``strength`` unit steps along a boundary's normal, on the given layers only."""

    boundary: Boundary
    strength: float
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """A named set of layers that an edit is applied to: ``all``, ``layer 3``, ``bottom`` …"""

    name: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rescoring:
    """What happened to the scores when fresh codes were moved along each boundary: the data of Eq. (1).

    Changes are signed and kept per sample, so that every statistic can be recomputed from them.
    """

    concepts: tuple[Concept, ...]
    placements: tuple[Placement, ...]
    step: float
    seeds: Int64[Tensor, " K"]
    originals: Float[Tensor, "K C"]
    changes: Float[Tensor, "C P K"]
    """Change of a concept's own score when its boundary's normal is followed; NaN for samples that were not taken."""
    effects: Float[Tensor, "C P C"]
    """Mean change of every score (last axis) under every concept's edit (first axis)."""
    null: Float[Tensor, "R P C"]
    """Mean zero-truncated change of every score under R random directions of the same length."""
    score_std: Float[Tensor, " C"]
    """Standard deviation of every score, the unit in which concepts can be compared: over the samples that boundaries
    were fitted to, or over the K of this record where boundaries do not tell."""
    permuted: Float[Tensor, "M P C"] | None = None
    """The same as ``null`` under M directions fitted to permuted scores (`higan.refits`); None where there are none."""
    steps: Float[Tensor, "P L"] | None = None
    """The step that each layer would take at each placement, before truncation; None in files that do not say."""
    step_mode: str = "official"
    """How ``steps`` came about; see `higan.editing.edit_step`."""
    image_changes: Float[Tensor, " P"] | None = None
    """Mean change of the picture under meaningless directions, in grey levels, where steps were fitted to it."""
    null_counts: Int64[Tensor, " P"] | None = None
    """Over how many of the first samples ``null`` and ``permuted`` are means at each placement; over all K if None."""
    null_changes: Float[Tensor, "C P K"] | None = None
    """Where ``null`` stopped early, its samples one by one: the zero-truncated change of a concept's own score, a mean
    over the R random directions; NaN for samples that were not taken."""

    def step_at(self, placement: int) -> float | None:
        """The step that all layers of that placement took; None where some took a longer one than others."""
        if self.steps is None:
            return self.step
        taken = self.steps[placement, list(self.placements[placement].layers)]
        return float(taken[0]) if bool((taken == taken[0]).all()) else None


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """How Q scores answer to S steps of different length and either sign, each at one placement; in score σ.

    ``mean`` is the signed mean change with its interval, ``truncated`` is Δs of Eq. (1). ``null_low`` and ``null_high``
    are the smallest and largest mean change among meaningless directions of the same length at the same layers.
    """

    concepts: tuple[Concept, ...]
    placements: tuple[Placement, ...]
    steps: Float[Tensor, " S"]
    mean: Float[Tensor, "Q S"]
    low: Float[Tensor, "Q S"]
    high: Float[Tensor, "Q S"]
    truncated: Float[Tensor, "Q S"]
    null_low: Float[Tensor, "Q S"]
    null_high: Float[Tensor, "Q S"]
