"""Which layers hold which level of abstraction: the paper's Fig. 3(a), with its uncertainty (section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from higan.layers import groups
from higan.statistics import delta, null_level, rank, resample_weights, resampled_means
from higan.types import LEVELS, Level, Rescoring

__all__ = [
    "Peak",
    "Profile",
    "Shares",
    "finding",
    "groups",
    "layer_gains",
    "mean_layers",
    "peaks",
    "positive_shares",
    "profile",
    "reliabilities",
    "spearman_brown",
]

_SPLITS = 100
_SURE = 0.975


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How each level's effect is spread over V levels × X places (layers or stages); every row of ``mean`` sums to
    one but for negative shares, which are cut off.

    ``low`` and ``high`` are the ends of the bootstrap interval, ``wins`` is the share of resamples in which a place is
    the strongest.
    """

    names: tuple[str, ...]
    layers: tuple[tuple[int, ...], ...]
    mean: Float[Tensor, "V X"]
    low: Float[Tensor, "V X"]
    high: Float[Tensor, "V X"]
    wins: Float[Tensor, "V X"]


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The normalised profile of every level that has a verified concept.

    ``centre`` is the mean layer, weighted by what each layer gains above the null, which may be less than nothing;
    ``centre_low`` and ``centre_high`` are its bootstrap interval. ``in_order`` is the share of resamples in which the
    centres rise from level to level as the paper says; NaN where there is one level or one layer, and nothing to order.
    ``reliability`` of the profile over layers is that of `reliabilities`, for a level's mean over its concepts.
    ``over_concepts`` says whether resamples draw the concepts of a level anew as well.
    ``unplaced`` are levels with verified concepts none of which single layers move surely, ``untried`` those of which
    no concept was tried.
    """

    levels: tuple[Level, ...]
    concepts: tuple[tuple[str, ...], ...]
    by_layer: Shares
    by_group: Shares
    centre: Float[Tensor, " V"]
    centre_low: Float[Tensor, " V"]
    centre_high: Float[Tensor, " V"]
    in_order: float
    reliability: Float[Tensor, " V"]
    over_concepts: bool = False
    unplaced: tuple[Level, ...] = ()
    untried: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a level lives: the strongest layer and stage, each with the share of bootstrap resamples that agree."""

    level: Level
    layer: int
    layer_confidence: float
    group: str
    group_confidence: float


def profile(
    rescoring: Rescoring,
    *,
    alpha: float = 0.05,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    over_concepts: bool = False,
    concepts: Collection[str] | None = None,
    seed: int = 0,
) -> Profile:
    """Normalised Δs per level, over single layers and over stages.

    For each concept verified at placement ``all``, Δs above the mean of its null is divided by its sum over layers, so
    that every concept counts alike whatever its score's scale; the same over stages. A level's profile is the mean over
    its concepts. Intervals come from resampling the K samples, the same way for all concepts.
    Levels without a verified concept, or whose concepts single layers do not move surely, are left out.

    A gain may be negative by chance. Were it cut off at zero sample by sample or resample by resample, layers that do
    nothing would seem to do a little, and intervals of shares and mean layers would lie beside the truth. So chances
    cancel, and only a level's share and its ends are cut off at zero and one, where no true share lies beyond.

    Args:
        rescoring: at all layers together, every single layer and every stage.
        alpha: false-discovery rate at which a concept is verified.
        confidence: of the intervals.
        num_resamples: of the bootstrap.
        over_concepts: draw the concepts of each level anew as well, so that intervals speak of other concepts of the
            level too, as far as those that were tried are a sample of them. One concept alone tells nothing of others.
        concepts: names that count, where they are known beforehand; those verified at all layers if None.
        seed: of the bootstrap.

    Raises:
        ValueError: the re-scoring lacks placement ``all``, single layers or stages.
    """
    if concepts is None:
        ranked = rank(rescoring, alpha=alpha, num_resamples=2, seed=seed)
        concepts = {row.concept.name for row in ranked if row.verified}
    num_layers = 1 + max(layer for placement in rescoring.placements for layer in placement.layers)
    stages = groups(num_layers)
    gains = _GainsAt(
        rescoring,
        delta(rescoring) - null_level(rescoring),
        _columns(rescoring, [f"layer {layer}" for layer in range(num_layers)]),
        _columns(rescoring, list(stages)),
    )
    weights = resample_weights(rescoring.changes.shape[-1], num_resamples, seed)
    halves = _halves(rescoring.changes.shape[-1], seed)
    chance = torch.Generator().manual_seed(seed + 1) if over_concepts else None
    found: list[_LevelProfile] = []
    unplaced: list[Level] = []
    for level in LEVELS:
        members = [c for c, one in enumerate(rescoring.concepts) if one.level == level and one.name in concepts]
        located = gains.located(members, weights)
        if located:
            found.append(_level_profile(level, located, gains, weights, halves, chance))
        elif members:
            unplaced.append(level)
    centre = _stacked([one.centre for one in found], 1 + num_resamples)
    # Before they are cut off, which would make ties of what lies at the first or last layer.
    rising = (centre[1:, 1:] > centre[:-1, 1:]).all(0)
    centre = centre.clamp(0, num_layers - 1)
    low, high = _ends(centre[:, 1:], confidence)
    single = {f"layer {layer}": (layer,) for layer in range(num_layers)}
    over_layers = _stacked([one.by_layer for one in found], 1 + num_resamples, num_layers)
    over_groups = _stacked([one.by_group for one in found], 1 + num_resamples, len(stages))
    return Profile(
        levels=tuple(one.level for one in found),
        concepts=tuple(one.concepts for one in found),
        by_layer=_summary(over_layers, single, confidence),
        by_group=_summary(over_groups, stages, confidence),
        centre=centre[:, 0],
        centre_low=low,
        centre_high=high,
        in_order=float(rising.double().mean()) if len(found) > 1 and num_layers > 1 else math.nan,
        reliability=torch.tensor([one.reliability for one in found]),
        over_concepts=over_concepts,
        unplaced=tuple(unplaced),
        untried=tuple(level for level in LEVELS if level not in {concept.level for concept in rescoring.concepts}),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _GainsAt:
    """Δs above the mean of the null, at single layers and at stages; ``point`` as measured, the rest on demand."""

    rescoring: Rescoring
    point: Float[Tensor, "C P"]
    layers: list[int]
    stages: list[int]

    def at_layers(self, concept: int, weights: Float[Tensor, "B K"]) -> Float[Tensor, "b L"]:
        """As measured, then in every resample."""
        return _gains(self.rescoring, concept, self.layers, self.point, weights)

    def at_stages(self, concept: int, weights: Float[Tensor, "B K"]) -> Float[Tensor, "b S"]:
        """As measured, then in every resample."""
        return _gains(self.rescoring, concept, self.stages, self.point, weights)

    def located(self, concepts: Iterable[int], weights: Float[Tensor, "B K"]) -> dict[int, Float[Tensor, "b L"]]:
        """Gains at single layers of the concepts that some stage and single layers move.

        A concept that moves only when all layers move together says nothing about where it lives.
        """
        moved = [c for c in concepts if bool((self.point[c, self.stages] > 0).any())]
        gains = {c: self.at_layers(c, weights) for c in moved}
        return {c: found for c, found in gains.items() if _is_located(found)}


@dataclass(frozen=True, slots=True, eq=False)
class _LevelProfile:
    """One level of a `Profile`: as measured, then in every resample."""

    level: Level
    concepts: tuple[str, ...]
    by_layer: Float[Tensor, "b L"]
    by_group: Float[Tensor, "b S"]
    centre: Float[Tensor, " b"]
    reliability: float


def _level_profile(
    level: Level,
    located: dict[int, Float[Tensor, "b L"]],
    gains: _GainsAt,
    weights: Float[Tensor, "B K"],
    halves: Float[Tensor, "H K"],
    chance: torch.Generator | None,
) -> _LevelProfile:
    """Mean over a level's located concepts; with ``chance``, each resample draws them anew."""
    shape = (len(weights), len(located))
    draws = None if chance is None else torch.randint(len(located), shape, generator=chance)
    layers = torch.stack([*map(_signed_shares, located.values())])
    stages = torch.stack([_signed_shares(gains.at_stages(c, weights)) for c in located])
    centres = torch.stack([*map(mean_layers, located.values())])
    in_halves = torch.stack([positive_shares(gains.at_layers(c, halves))[1:] for c in located])
    return _LevelProfile(
        level=level,
        concepts=tuple(gains.rescoring.concepts[c].name for c in located),
        by_layer=_mean_shares(layers, draws),
        by_group=_mean_shares(stages, draws),
        centre=_mean_shares(centres[..., None], draws)[:, 0],
        reliability=_reliability(in_halves.mean(0)),
    )


def _stacked(parts: Sequence[Tensor], *shape: int) -> Tensor:
    """One row per level, also of none."""
    return torch.stack([*parts]) if parts else torch.empty(0, *shape)


def layer_gains(rescoring: Rescoring, *, num_resamples: int = 1000, seed: int = 0) -> tuple[Float[Tensor, "b L"], ...]:
    """What every concept gains above the mean of its null at each single layer, in units of its score.

    One table per concept, in the order of the re-scoring: first as measured, then in each bootstrap resample of the
    samples, the same ones for all concepts. `profile` is made of these.

    Raises:
        ValueError: the re-scoring lacks a single layer, or there are fewer than 2 resamples.
    """
    num_layers = 1 + max(layer for placement in rescoring.placements for layer in placement.layers)
    columns = _columns(rescoring, [f"layer {layer}" for layer in range(num_layers)])
    weights = resample_weights(rescoring.changes.shape[-1], num_resamples, seed)
    point = delta(rescoring) - null_level(rescoring)
    return tuple(_gains(rescoring, c, columns, point, weights) for c in range(len(rescoring.concepts)))


def reliabilities(rescoring: Rescoring, *, seed: int = 0) -> Float[Tensor, " C"]:
    """Split-half reliability of every concept's profile over single layers.

    The K samples are cut into two halves at random, the shares of `profile` are computed from each, correlated over
    layers, and the mean correlation of 100 cuts is stepped up to the full number of samples (Spearman 1910, Brown
    1910). 1 says that fresh samples would give the same profile, 0 that they would give any. A half in which nothing
    rises above the null counts as uncorrelated. NaN where there is a single layer.

    Raises:
        ValueError: the re-scoring lacks a single layer.
    """
    num_layers = 1 + max(layer for placement in rescoring.placements for layer in placement.layers)
    at = _columns(rescoring, [f"layer {layer}" for layer in range(num_layers)])
    halves = _halves(rescoring.changes.shape[-1], seed)
    point = delta(rescoring) - null_level(rescoring)
    gains = (_gains(rescoring, c, at, point, halves) for c in range(len(rescoring.concepts)))
    return torch.tensor([_reliability(positive_shares(found)[1:]) for found in gains])


def spearman_brown(correlation: float) -> float:
    """Reliability of a whole whose halves correlate so: 2r / (1 + r), and 0 where they do not correlate."""
    return 2 * correlation / (1 + correlation) if correlation > 0 else 0.0


def _halves(num: int, seed: int) -> Float[Tensor, "b K"]:
    """Weights of the mean over one half of the samples, cut by cut, then over the other half, in the same order."""
    order = torch.stack(
        [torch.randperm(num, generator=torch.Generator().manual_seed(seed * _SPLITS + k)) for k in range(_SPLITS)]
    )
    size = num // 2
    first, second = (
        torch.zeros(_SPLITS, num).scatter_(1, order[:, start : start + size], 1 / size) for start in (0, size)
    )
    return torch.cat([first, second])


def _reliability(shares: Float[Tensor, "b X"]) -> float:
    if shares.shape[1] < 2:
        return math.nan
    one, other = (half - half.mean(1, keepdim=True) for half in shares.double().chunk(2))
    size = (one.square().sum(1) * other.square().sum(1)).sqrt()
    correlation = torch.where(size > 1e-12, (one * other).sum(1) / size.clamp(min=1e-12), 0.0)
    return spearman_brown(float(correlation.mean()))


def _mean_shares(shares: Float[Tensor, "m b X"], draws: Tensor | None) -> Float[Tensor, "b X"]:
    """Mean over concepts; in every resample over those drawn for it, if any are."""
    if draws is None:
        return shares.mean(0)
    rows = torch.arange(1, shares.shape[1])[:, None]
    return torch.cat([shares[:, :1].mean(0), shares[draws, rows].mean(1)])


def _columns(rescoring: Rescoring, wanted: list[str]) -> list[int]:
    names = [placement.name for placement in rescoring.placements]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"a profile needs every layer and stage re-scored; missing: {', '.join(missing)}")
    return [names.index(name) for name in wanted]


def _signed_shares(gains: Float[Tensor, "b X"]) -> Float[Tensor, "b X"]:
    """Of every place in what all of them gain together, losses counted; equal where that is nothing."""
    total = gains.sum(1, keepdim=True)
    uniform = torch.full_like(gains, 1 / gains.shape[1])
    return torch.where(total > 0, gains / total.clamp(min=torch.finfo(total.dtype).tiny), uniform)


def positive_shares(gains: Float[Tensor, "b X"]) -> Float[Tensor, "b X"]:
    """Of every place in what all of them gain together, losses not counted; equal where nothing is gained.

    For few samples, where gains less losses may be nothing. Places that do nothing gain a little by chance, so that the
    shares of the others are drawn towards them.
    """
    return _signed_shares(gains.clamp(min=0))


def _gains(
    rescoring: Rescoring, concept: int, columns: list[int], point: Float[Tensor, "C P"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "b X"]:
    """Δs above the mean of the null at each place: as measured (``point``), then in every bootstrap resample.

    Where the null stopped early, a resample draws its samples too: few of them say little about it. Where it has all
    samples, it counts as known, which makes intervals a little too wide: samples that answer more to one direction do
    so to the others.
    """
    resampled = resampled_means(rescoring.changes[concept, columns].clamp(min=0), weights)
    null = null_level(rescoring)[concept, columns, None]
    if rescoring.null_changes is not None:
        null = resampled_means(rescoring.null_changes[concept, columns], weights)
    return torch.cat([point[concept, columns, None], resampled - null], 1).T


def _is_located(gains: Float[Tensor, "b L"]) -> bool:
    """Whether single layers gain something in all, in 39 of 40 resamples: else their mean layer is a ratio to zero."""
    total = gains.sum(1)
    return bool(total[0] > 0) and float((total[1:] > 0).double().mean()) >= _SURE


def mean_layers(gains: Float[Tensor, "b L"]) -> Float[Tensor, " b"]:
    """The layer, weighted by gains that may be negative; no further out than once the layers' depth."""
    last = gains.shape[1] - 1
    total = gains.sum(1).clamp(min=torch.finfo(gains.dtype).tiny)
    return ((gains @ torch.arange(last + 1, dtype=gains.dtype)) / total).clamp(-last, 2 * last)


def _summary(shares: Float[Tensor, "V b X"], places: Mapping[str, tuple[int, ...]], confidence: float) -> Shares:
    low, high = _ends(shares[:, 1:].movedim(1, -1), confidence)
    winner = torch.nn.functional.one_hot(shares[:, 1:].argmax(-1), len(places))
    mean, low, high = (part.clamp(0, 1) for part in (shares[:, 0], low, high))
    return Shares(tuple(places), tuple(places.values()), mean, low, high, winner.to(shares).mean(1))


def _ends(values: Float[Tensor, "*shape B"], confidence: float) -> tuple[Tensor, Tensor]:
    tail = (1 - confidence) / 2
    if values.numel() == 0:
        return values[..., 0], values[..., 0]
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype), dim=-1)
    return low, high


def peaks(profile: Profile) -> tuple[Peak, ...]:
    """The strongest layer and stage of every level in the profile, coarse levels first."""
    found = []
    for v, level in enumerate(profile.levels):
        layer, group = int(profile.by_layer.mean[v].argmax()), int(profile.by_group.mean[v].argmax())
        found.append(
            Peak(
                level=level,
                layer=layer,
                layer_confidence=float(profile.by_layer.wins[v, layer]),
                group=profile.by_group.names[group],
                group_confidence=float(profile.by_group.wins[v, group]),
            )
        )
    return tuple(found)


_PLURAL: dict[Level, str] = {
    "layout": "layout",
    "object": "objects",
    "attribute": "attributes",
    "colour": "colour scheme",
}


def finding(profile: Profile) -> str:
    """One sentence: whether the levels come in the paper's order, judged by their mean layers, and how sure that is."""
    unseen = _unseen(profile)
    centres = [
        f"{_PLURAL[level]} at {centre:.1f}"
        for level, centre in zip(profile.levels, profile.centre.tolist(), strict=True)
    ]
    if math.isnan(profile.in_order):
        return f"The order of the four levels cannot be judged{unseen}."
    last = profile.by_layer.layers[-1][0]
    where = f"mean layer of 0-{last}: {', '.join(centres)}"
    wrong = [
        f"{_PLURAL[later]} {'before' if b < a else 'no later than'} {_PLURAL[earlier]}"
        for earlier, later, a, b in zip(
            profile.levels, profile.levels[1:], profile.centre[:-1], profile.centre[1:], strict=False
        )
        if b <= a
    ]
    if not wrong:
        return (
            f"From coarse to fine layers the generator holds {_join([_PLURAL[level] for level in profile.levels])}, "
            f"in the paper's order ({where}; {profile.in_order:.0%} of bootstrap resamples agree){unseen}."
        )
    return (
        f"The levels do not come in the paper's order: {_join(wrong)} ({where}; the paper's order appears in "
        f"{profile.in_order:.0%} of bootstrap resamples){unseen}."
    )


def _unseen(profile: Profile) -> str:
    """What to add of the levels that are not in the profile."""
    missing = [level for level in LEVELS if level not in (*profile.levels, *profile.unplaced, *profile.untried)]
    said = (
        ("{} verified, but not moved surely by any single layer", profile.unplaced),
        ("no concept of {} could be verified", missing),
        ("no concept of {} was tried", profile.untried),
    )
    return "".join("; " + text.format(_join([_PLURAL[level] for level in levels])) for text, levels in said if levels)


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
