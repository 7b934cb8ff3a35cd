"""How far edits of photographs can be trusted: the same edits on sampled codes and on the codes of inverted pictures.

Boundaries are fitted to sampled codes, and edits are verified on them. A picture that the generator did not make gets a
code that optimisation has found (`higan.inversion`); nothing says that a step along a boundary does there what it does
elsewhere. ``compare`` takes the step in both places and reads the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.editing import apply
from higan.inversion import Features, Inversion, code_space, invert, pictures_at_once
from higan.population import Progress, check_concepts, render, sample, sample_seeds, score
from higan.statistics import resample_weights, students_t
from higan.types import Concept, Edit, Generator, Scorer

__all__ = ["Success", "Trust", "compare", "successes"]

_AT_ONCE = 16
_NOTHING = 1e-9
"""Standard deviations below which samples do not move, and nothing can be said in ratio to them."""


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """Changes of C scores under E edits, in standard deviations: of K sampled codes, and of P inverted pictures.

    ``own`` is each edit's own column. ``images`` are those of the inverted codes, as they are and under every edit.
    """

    names: tuple[str, ...]
    concepts: tuple[Concept, ...]
    own: tuple[int, ...]
    sampled: Float[Tensor, "E C K"]
    inverted: Float[Tensor, "E C P"]
    inversions: tuple[Inversion, ...]
    images: UInt8[Tensor, "P 1+E 3 H W"]


@dataclass(frozen=True, slots=True)
class Success:
    """One edit: how far its own score moves on samples and on inverted pictures, with 95 % intervals over the latter.

    Where there is one picture, nothing says how others differ from it, and the ends of the intervals are NaN.
    ``ratio`` is the second by the first, 1 where a photograph is edited as well as a sample; it and its ends are NaN
    where samples do not move. ``off_sampled`` and ``off_inverted`` are the root mean squares of all other scores' mean
    changes.
    """

    name: str
    sampled: float
    inverted: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    off_sampled: float
    off_inverted: float


def compare(
    generator: Generator,
    scorer: Scorer,
    edits: Mapping[str, Edit],
    pictures: UInt8[Tensor, "P 3 H W"],
    *,
    std: Float[Tensor, " C"] | None = None,
    num: int = 48,
    steps: int = 240,
    features: Features | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trust:
    """Invert pictures, edit their codes and fresh samples alike, and record every score's change.

    Args:
        generator: differentiable.
        scorer: its concepts are the columns.
        edits: by name; each one's concept must be the scorer's.
        pictures: at the generator's resolution.
        std: standard deviation of every score, in the scorer's order; by default, and where it is NaN, that of
            the samples.
        num: K, at least 2.
        steps: of every inversion, three eighths of them on one code for all layers.
        features: of a predictor, compared beside the pixels (`higan.inversion.invert`).
        seed: chooses the samples; neither probing nor re-scoring has used them.
        progress: called with the pictures that have been inverted, several at a time.

    Raises:
        ValueError: no edits or pictures, fewer than two samples, an edit of a concept that the scorer does not know.
        GeneratorError: no gradient reaches the codes.
    """
    check_concepts(scorer)
    names = [concept.name for concept in scorer.concepts]
    unknown = sorted({edit.boundary.concept.name for edit in edits.values()} - set(names))
    if unknown or not edits or not len(pictures) or num < 2:
        raise ValueError(
            f"comparing takes edits of concepts that the scorer knows, a picture and two samples; got {len(edits)} "
            f"edits, {len(pictures)} pictures, {num} samples, and unknown concepts: {', '.join(unknown) or 'none'}"
        )
    space = code_space(generator)
    inversions: list[Inversion] = []
    first = steps * 3 // 8
    for some in pictures.split(pictures_at_once(generator)):
        inversions += invert(
            generator, some, space=space, features=features, shared_steps=first, layer_steps=steps - first, seed=seed
        )
        if progress is not None:
            progress(len(inversions), len(pictures))
    chosen = list(edits.values())
    seeds = sample_seeds(num, seed=seed, purpose="verify", first=2**23 + 2**21)
    codes = torch.stack([found.code for found in inversions]).to(generator.device)
    before, sampled, _ = _moved(generator, scorer, sample(generator, seeds), chosen)
    _, inverted, images = _moved(generator, scorer, codes, chosen)
    own = before.std(0).float()
    unit = (own if std is None else torch.where(std.cpu().isnan(), own, std.cpu().float()))[None, :, None]
    safe = unit.clamp(min=torch.finfo(unit.dtype).tiny)
    return Trust(
        names=tuple(edits),
        concepts=scorer.concepts,
        own=tuple(names.index(edit.boundary.concept.name) for edit in chosen),
        sampled=torch.where(unit > 0, sampled / safe, 0.0),
        inverted=torch.where(unit > 0, inverted / safe, 0.0),
        inversions=tuple(inversions),
        images=images,
    )


def _moved(
    generator: Generator, scorer: Scorer, codes: Float[Tensor, "n L D"], edits: Sequence[Edit]
) -> tuple[Float[Tensor, "n C"], Float[Tensor, "E C n"], UInt8[Tensor, "n 1+E 3 H W"]]:
    """Scores as they are, their changes under every edit, and the pictures of both."""

    def drawn(these: Tensor) -> tuple[Tensor, Tensor]:
        images = [render(generator, part) for part in these.split(_AT_ONCE)]
        return torch.cat([i.cpu() for i in images]), torch.cat([score(scorer, i).cpu() for i in images])

    image, before = drawn(codes)
    pictures, changes = [image], []
    for edit in edits:
        image, after = drawn(apply(codes, [edit]))
        pictures.append(image)
        changes.append((after - before).T)
    return before, torch.stack(changes), torch.stack(pictures, 1)


def successes(trust: Trust, *, num_resamples: int = 2000, seed: int = 0) -> tuple[Success, ...]:
    """One row per edit. Intervals over inverted pictures, which are few, are Student's t; NaN where there is only one.

    The ratio's are percentiles of such numerators over denominators that a bootstrap over the samples gives.
    """
    P = trust.inverted.shape[-1]
    weights = resample_weights(trust.sampled.shape[-1], num_resamples, seed).double()
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    # In the middles of equal shares: as many numerators as denominators, and those are in no order.
    middles = (torch.arange(num_resamples, dtype=torch.float64) + 0.5) / num_resamples
    rows = []
    for e, name in enumerate(trust.names):
        own = trust.own[e]
        parts = [part[e].double() for part in (trust.sampled, trust.inverted)]
        means = [part.mean(1) for part in parts]
        others = [k for k in range(len(trust.concepts)) if k != own]
        off = [float(mean[others].square().mean().sqrt()) if others else 0.0 for mean in means]
        low = high = ratio = ratio_low = ratio_high = float("nan")
        sampled, inverted = float(means[0][own]), float(means[1][own])
        if P > 1:
            error = parts[1][own].std() / P**0.5
            low, high = (means[1][own] + error * students_t(ends, P - 1)).tolist()
        if abs(sampled) > _NOTHING:
            ratio = inverted / sampled
        if P > 1 and abs(sampled) > _NOTHING:
            below = weights @ parts[0][own]
            below = torch.where(below.abs() > _NOTHING, below, _NOTHING)
            ratios = (means[1][own] + error * students_t(middles, P - 1)) / below
            ratio_low, ratio_high = torch.quantile(ratios, ends).tolist()
        rows.append(Success(name, sampled, inverted, low, high, ratio, ratio_low, ratio_high, *off))
    return tuple(rows)
