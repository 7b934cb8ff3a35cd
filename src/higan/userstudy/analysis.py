"""What the answers say: Fig. 3(b) beside Fig. 3(a), how sure that is, and how many raters it takes.

Intervals come from one bootstrap over raters *and* pictures: both are drawn with replacement, independently, and an
answer counts as often as its rater times its picture were drawn (Owen 2007, "The pigeonhole bootstrap"). It errs on the
wide side, except where an answer was never or always given: no resample then differs. An interval of a share is
therefore never narrower than Wilson's, of as many independent answers. Pictures are drawn within each source, as the
design has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float

from higan.types import LEVELS, Level
from higan.userstudy.agreement import alpha, alpha_interval, flatten, order_test, rank_correlation
from higan.userstudy.answers import Answers
from higan.userstudy.design import CHOICES
from higan.userstudy.folder import Expected
from higan.userstudy.ratings import MISSING, Ratings, Screening, gather, screen

__all__ = [
    "FEWEST",
    "Agreement",
    "Analysis",
    "Comparison",
    "Estimate",
    "Needed",
    "analyse",
    "resample",
    "shares",
    "spreads",
    "wilson",
]

Over = Literal["raters", "pictures"]

FEWEST = 4
"""Raters who must be counted before studies of other sizes are foretold: fewer say too little of how raters differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A table with its bootstrap interval; NaN where there is nothing to estimate from."""

    mean: Float[np.ndarray, "*shape"]
    low: Float[np.ndarray, "*shape"]
    high: Float[np.ndarray, "*shape"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Krippendorff's alpha of the raters kept, over edits and over catch trials.

    None where nothing was rated twice, or where all answers are the same; ``twice`` says whether any edit was.
    """

    edits: float | None
    interval: tuple[float, float] | None
    catches: float | None
    twice: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """People beside the re-scoring.

    Attributes:
        people: per stage the level that is named most, None where no level was named, or several equally often.
        sure: share of resamples in which that level is named most.
        rescoring: per stage the level of which the stage has the largest share in the profile.
        correlation: Spearman's, over level × stage, between the people's spreads and the profile's shares; None where
            one of them does not vary.
        interval: of the correlation, over raters and pictures.
        p: exact, over the orders of the stages.
    """

    people: tuple[Level | None, ...]
    sure: tuple[float, ...]
    rescoring: tuple[Level | None, ...]
    correlation: float | None
    interval: tuple[float, float] | None
    p: float | None

    @property
    def matches(self) -> int:
        """At how many stages the two name the same level."""
        return sum(a is not None and a == b for a, b in zip(self.people, self.rescoring, strict=True))


@dataclass(frozen=True, slots=True)
class Needed:
    """What a number of raters like these, shown the same pictures, would give.

    ``half_width`` is half the width of the interval of the share of answers that is least sure among those named most;
    ``same`` the probability that two such studies find the same levels in front at every stage; where two levels are
    nearly as frequent it is less than this says, since one of them happened to be in front here.
    """

    raters: int
    half_width: float
    same: float


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything that is said of a study.

    Attributes:
        simulated: whether the raters are simulated and not people.
        ratings: of all raters; `screening` says which of them count.
        stages: names of the S stages.
        answers: number of answers counted per stage.
        shares: share of every answer at every stage, (S, A): rows sum to one.
        spreads: how the answers that name a level spread over stages, (4, S): rows sum to one, as in Fig. 3(a).
        named: where concepts were followed, share of answers that name the concept's own level, (sources, S).
        centre: mean stage, counted from 0, of every level's spread, (4,).
        needed: one per size; none where fewer than `FEWEST` raters are counted.
    """

    simulated: bool
    ratings: Ratings
    screening: Screening
    stages: tuple[str, ...]
    answers: tuple[int, ...]
    shares: Estimate
    spreads: Estimate
    named: Estimate | None
    centre: Estimate
    agreement: Agreement
    comparison: Comparison
    needed: tuple[Needed, ...]


def analyse(
    answers: Answers,
    *,
    simulated: bool = False,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    sizes: Sequence[int] = (4, 8, 12, 16, 24, 32, 48, 64),
    seed: int = 0,
) -> Analysis:
    """Analyse the answers of people, or those of simulated raters; never both together.

    Args:
        answers: of an open study.
        simulated: look at the simulated raters, not at people.
        confidence: of all intervals.
        num_resamples: of the bootstrap.
        sizes: numbers of raters to be tried out.
        seed: of the bootstrap.

    Raises:
        ValueError: a bad setting, or no rater whose catch trials allow their answers to be counted.
        MissingExtraError: NLTK is not installed.
    """
    if not 0 < confidence < 1 or num_resamples < 2 or min(sizes, default=1) < 1:
        raise ValueError(
            "confidence must lie between 0 and 1, resamples be 2 or more and numbers of raters 1 or more; "
            f"got {confidence}, {num_resamples}, {list(sizes)}"
        )
    study = answers.study
    ratings = gather(study.design, answers.raters(), answers.all(), {"simulated"} if simulated else {"server", "file"})
    screening = screen(ratings)
    kept = ratings.of(screening.kept)
    if len(kept) == 0:
        kind = "simulated raters" if simulated else "people"
        raise ValueError(
            f"no answers of {kind} can be counted: {len(ratings)} have answered, none of them passed "
            f"{screening.least} of {screening.total} catch trials; collect more answers"
        )
    counts = resample(kept, num_resamples=num_resamples, seed=seed)
    tail = (1 - confidence) / 2

    def estimate(values: Float[np.ndarray, "b *shape"], num: Float[np.ndarray, "*n"] | None = None) -> Estimate:
        low, high = _quantiles(values[1:], (tail, 1 - tail))
        if num is not None:
            least, most = wilson(values[0], num, confidence)
            low, high = np.fmin(low, least), np.fmax(high, most)
        return Estimate(values[0], low, high)

    items = flatten(kept.edits)
    spread = spreads(counts)
    own = [LEVELS.index(level) for level in LEVELS if level in study.design.sources]
    at_stage, naming = counts[0].sum((1, 2)), counts[0][..., : len(LEVELS)].sum((0, 1))
    return Analysis(
        simulated=simulated,
        ratings=ratings,
        screening=screening,
        stages=tuple(study.design.stages),
        answers=tuple(int(n) for n in at_stage),
        shares=estimate(shares(counts), at_stage[:, None]),
        spreads=estimate(spread, naming[:, None]),
        named=estimate(_named(counts, own), counts[0].sum(2).T) if own else None,
        centre=estimate(spread @ np.arange(len(study.design.stages))),
        agreement=Agreement(
            alpha(items),
            alpha_interval(items, confidence=confidence, seed=seed),
            alpha(kept.catches),
            bool(((items != MISSING).sum(0) > 1).any()),
        ),
        comparison=_compare(counts, study.expected, (tail, 1 - tail)),
        needed=tuple(
            _need(kept, size, confidence, num_resamples, seed) for size in (sizes if len(kept) >= FEWEST else ())
        ),
    )


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def resample(
    ratings: Ratings,
    *,
    num_resamples: int = 2000,
    num_raters: int | None = None,
    over: Sequence[Over] = ("raters", "pictures"),
    seed: int = 0,
) -> Float[np.ndarray, "b S V A"]:
    """How often each of A answers was given at each of S stages, where each of V sources was followed.

    The first table is what was counted, the others are resamples.

    Args:
        ratings: of at least one rater.
        num_resamples: how many.
        num_raters: raters per resample; by default as many as there are.
        over: what is drawn with replacement.
        seed: of the draws.
    """
    design = ratings.design
    R, U, S = ratings.edits.shape
    V = len(design.sources)
    given = (ratings.edits[..., None] == np.arange(len(CHOICES))).astype(float)
    rng = np.random.default_rng(seed)
    raters = np.ones((1 + num_resamples, R))
    if "raters" in over:
        raters[1:] = rng.multinomial(num_raters or R, np.full(R, 1 / R), size=num_resamples)
    pictures = np.ones((1 + num_resamples, V, U // V))
    if "pictures" in over:
        pictures[1:] = rng.multinomial(U // V, np.full(U // V, V / U), size=(num_resamples, V))
    by_unit = raters @ given.reshape(R, -1)
    tables = by_unit.reshape(1 + num_resamples, V, U // V, S, len(CHOICES))
    return np.einsum("bvu,bvusa->bsva", pictures, tables)


def shares(counts: Float[np.ndarray, "b S V A"]) -> Float[np.ndarray, "b S A"]:
    """Share of every answer at every stage, all sources together."""
    return _divide(counts.sum(2), counts.sum((2, 3))[..., None])


def spreads(counts: Float[np.ndarray, "b S V A"]) -> Float[np.ndarray, "b 4 S"]:
    """How the answers that name a level spread over the stages, were all stages shown equally often."""
    levels = shares(counts)[..., : len(LEVELS)].swapaxes(1, 2)
    return _divide(levels, levels.sum(-1, keepdims=True))


def _named(counts: Float[np.ndarray, "b S V A"], own: Sequence[int]) -> Float[np.ndarray, "b V S"]:
    """Share of answers that name the level whose boundary was followed; ``own`` is each source's answer."""
    told = np.stack([counts[:, :, v, a] for v, a in enumerate(own)], 1)
    return _divide(told, counts.sum(3).swapaxes(1, 2))


def _divide(a: Float[np.ndarray, "*b"], b: Float[np.ndarray, "*c"]) -> Float[np.ndarray, "*d"]:
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)


def _quantiles(values: Float[np.ndarray, "b *shape"], ends: tuple[float, float]) -> Float[np.ndarray, "2 *shape"]:
    """Over the resamples in which there is a value; NaN where there is none in any."""
    masked = np.isfinite(values)
    filled = np.where(masked.any(0), values, 0.0)
    found: Float[np.ndarray, "2 *shape"] = np.nanquantile(filled, ends, axis=0)
    return np.where(masked.any(0), found, np.nan)


def wilson(
    shares: Float[np.ndarray, "*shape"], num: Float[np.ndarray, "*n"], confidence: float
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Wilson's score interval of shares of ``num`` independent answers (Wilson 1927); NaN where there are none."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (shares + z**2 / (2 * num)) / (1 + z**2 / num)
        half = z * np.sqrt(shares * (1 - shares) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
    return middle - half, middle + half


# --- beside the re-scoring --------------------------------------------------------------------------------------------


def _front(levels: Float[np.ndarray, "b S 4"]) -> Float[np.ndarray, "b S"]:
    """Index of the level that is named most, -1 where none is, or several are named equally often."""
    ranked = np.sort(np.nan_to_num(levels, nan=0.0), -1)
    alone = ranked[..., -1] > ranked[..., -2] + 1e-9
    return np.where(alone, np.nan_to_num(levels, nan=-1.0).argmax(-1), -1.0)


def _about(correlation: float, resampled: Float[np.ndarray, " b"], ends: tuple[float, float]) -> tuple[float, float]:
    """Interval of a correlation, from where its resamples lie.

    Noise in the answers makes the correlation smaller than it is, and once more that of a resample: their quantiles
    would lie below the truth. The interval therefore reaches as far above the correlation as they lie below it, and
    the other way round.
    """
    low, high = (float(end) for end in np.nanquantile(resampled, ends))
    return max(-1.0, min(low, 2 * correlation - high)), min(1.0, max(high, 2 * correlation - low))


def _compare(counts: Float[np.ndarray, "b S V A"], expected: Expected, ends: tuple[float, float]) -> Comparison:
    front = _front(shares(counts)[..., : len(LEVELS)])
    profile = np.array(expected.mean).reshape(len(expected.levels), len(expected.stages))
    rows = [LEVELS.index(level) for level in expected.levels]
    people = spreads(counts)[:, rows]
    seen = np.isfinite(people[0]).all(-1)
    correlation, interval, p = None, None, None
    if seen.any():
        found = np.nan_to_num(people[:, seen], nan=1 / people.shape[-1])
        rho = rank_correlation(found.reshape(len(found), -1), profile[seen].ravel())
        if np.isfinite(rho[0]):
            correlation = float(rho[0])
            interval, p = _about(correlation, rho[1:], ends), order_test(found[0], profile[seen])
    return Comparison(
        people=tuple(LEVELS[int(v)] if v >= 0 else None for v in front[0]),
        sure=tuple(float(v) for v in (front[1:] == front[0]).mean(0)),
        rescoring=tuple(
            expected.levels[int(column.argmax())] if len(column) and column.max() > 0 else None for column in profile.T
        ),
        correlation=correlation,
        interval=interval,
        p=p,
    )


# --- how many raters --------------------------------------------------------------------------------------------------


def _need(ratings: Ratings, size: int, confidence: float, num_resamples: int, seed: int) -> Needed:
    """Studies of ``size`` raters, drawn with replacement from those there are; the pictures stay the same.

    Pictures are not drawn: with few raters the noise of single answers would pass for a difference between pictures,
    and no number of raters would then seem enough. Raters drawn from R vary less than new ones would, by (R − 1) / R in
    variance. As elsewhere, a share is never known better than from as many independent answers.
    """
    counts = resample(ratings, num_resamples=num_resamples, num_raters=size, over=("raters",), seed=seed)
    found = shares(counts)
    levels = found[..., : len(LEVELS)]
    front = _front(levels)
    R, tail = len(ratings), (1 - confidence) / 2
    drawn = _quantiles(found[1:], (tail, 1 - tail))
    independent = wilson(found[0], counts[0].sum((1, 2))[:, None] * size / R, confidence)
    widths = np.fmax((drawn[1] - drawn[0]) * np.sqrt(R / (R - 1)), independent[1] - independent[0])
    most = np.nan_to_num(found[0], nan=-1.0).argmax(-1)
    same = (front[1:] == np.roll(front[1:], 1, 0)).all(-1).mean()
    return Needed(size, float(np.nanmax(widths[np.arange(len(most)), most]) / 2), float(same))
