"""Probing, first half: sample codes, draw and score their images (section 2, Fig. 2 left).

Everything that goes from seeds to scores passes through here, and what generators and scorers return is checked here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from higan.blame import blamed
from higan.engines import Engine, InProcess, Job, Tick
from higan.errors import GeneratorError, ScorerError
from higan.store import Run, encode_shard, keep_shard, missing_shards, shard_indices, writing
from higan.types import Generator, Population, Scorer

__all__ = [
    "OpenModels",
    "Progress",
    "check_num",
    "check_seed",
    "distribute",
    "fill",
    "measure",
    "render",
    "sample",
    "sample_seeds",
    "score",
    "stream",
    "to_uint8",
]

Progress = Callable[[int, int], None]
"""Called with images done and images in total."""

OpenModels = Callable[[str], tuple[Generator, Scorer]]
"""Opens generator and scorer on a device: how they reach a worker. See `higan.engines.types.OpenJob` for its form."""

_HALF = 2**31
_BLOCK = 2**24
_SHIFT = 2**17
_SEEDS = 2**14
_TOLD = 5
"""So many names or seeds are told of in an error."""


def sample_seeds(
    num: int, *, seed: int = 0, purpose: Literal["probe", "verify"] = "probe", first: int = 0
) -> Int64[Tensor, " n"]:
    """Seeds of samples ``first`` … ``first + num - 1`` of a run.

    Seeds for probing lie below 2³¹, those for verification above, so that the two never share a sample; all stay
    below 2³² because torch's CPU generator looks at 32 bits only. Samples 0, 1, 2 … of the default run have the seeds
    0, 1, 2 …; runs with other ``seed`` start 2²⁴ further on, and again 2¹⁷ after every 128 of them. So no two runs
    share a sample of their first 131,072, nor of their first 16,777,216 if their ``seed`` is below 128.

    Raises:
        ValueError: ``num`` is not positive, or a number is negative or beyond 2³¹ samples or 2¹⁴ runs.
    """
    if num < 1:
        raise ValueError(f"the number of samples must be at least 1; got {num}")
    start = check_seed(seed)
    if first < 0 or first + num > _HALF:
        raise ValueError(f"samples must be 0 or more, and end at 2^31; got {num} from {first} on")
    index = torch.arange(first, first + num, dtype=torch.int64)
    return (start + index) % _HALF + (_HALF if purpose == "verify" else 0)


def check_num(num: int) -> None:
    """Refuses more samples than a run has seeds for.

    Raises:
        ValueError: there are too many.
    """
    if num > _HALF:
        raise ValueError(f"a run has at most {_HALF:,} samples to probe and as many to verify; got {num:,}")


def check_seed(seed: int) -> int:
    """Where a run's samples start.

    Raises:
        ValueError: no run has that seed.
    """
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"seed must lie in 0 … {_SEEDS - 1:,}; got {seed}")
    return seed * _BLOCK + seed * _BLOCK // _HALF * _SHIFT


def sample(generator: Generator, seeds: Sequence[int] | Int64[Tensor, " n"]) -> Float[Tensor, "n L D"]:
    """Untruncated codes of these seeds, on the generator's device.

    Raises:
        ValueError: no seeds, no sequence of them, or one that is no whole number of 0 to 2³² - 1: generators look at 32
            bits only.
        GeneratorError: the generator raises something of its own, or the codes have a wrong shape or type, are not
            finite, or differ between layers that are said to share one.
    """
    numbers = _numbers(seeds)
    with torch.no_grad(), blamed(f"generator {generator.name!r}", GeneratorError):
        codes = generator.map(generator.latents(numbers))
    _check_codes(generator, codes, len(numbers))
    return codes


def to_uint8(images: Float[Tensor, "*n 3 H W"]) -> UInt8[Tensor, "*n 3 H W"]:
    """Images in [-1, 1] as bytes: (x + 1) · 127.5, rounded to the nearest, cut off at 0 and 255.

    Raises:
        ValueError: they are not floating point, and so not in [-1, 1]: bytes already, say.
    """
    if not images.is_floating_point():
        raise ValueError(
            f"to_uint8 takes floating-point images in [-1, 1]; got {images.dtype}: leave bytes as they are"
        )
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def render(
    generator: Generator, codes: Float[Tensor, "n L D"], seeds: Int64[Tensor, " n"] | None = None
) -> UInt8[Tensor, "n 3 H W"]:
    """Images of codes, without gradients, on the generator's device.

    Args:
        generator: draws.
        codes: of its layers.
        seeds: of the samples that have these codes, so that an error can name some.

    Raises:
        ValueError: the codes do not fit the generator or are not finite.
        GeneratorError: the generator raises something of its own, or the images have a wrong shape or type, or are not
            finite.
    """
    expected = (generator.num_layers, generator.code_dim)
    if tuple(codes.shape[1:]) != expected:
        raise ValueError(
            f"{generator.name} takes codes of shape (n, {expected[0]}, {expected[1]}); got {_shape(codes)}"
        )
    if not bool(torch.isfinite(codes).all()):
        raise ValueError("codes must be finite; got NaN or infinity")
    with torch.inference_mode(), blamed(f"generator {generator.name!r}", GeneratorError):
        drawn = generator.synthesize(codes.to(generator.device))
    with torch.inference_mode():
        images = check_images(generator, drawn, len(codes), seeds)
    # A copy made outside inference mode is an ordinary tensor that callers may change in place.
    return images.clone()


def score(
    scorer: Scorer, images: UInt8[Tensor, "n 3 H W"], seeds: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, "n C"]:
    """Scores of images in float32, without gradients.

    Args:
        scorer: scores.
        images: on its device.
        seeds: of the samples that the images show, so that an error can name some.

    Raises:
        ScorerError: the scorer raises something of its own, or the scores have a wrong shape or type, or are not
            finite.
    """
    with torch.inference_mode(), blamed(f"scorer {scorer.name!r}", ScorerError):
        scores = scorer.score(images)
    expected = (len(images), len(scorer.concepts))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected or not scores.is_floating_point():
        raise ScorerError(
            f"scorer {scorer.name!r} must return floating-point scores of shape {expected}, one column per concept; "
            f"got {_describe(scores)}"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ScorerError(_not_finite(scorer, ~torch.isfinite(scores).cpu(), seeds))
    return scores.float().clone()


def _not_finite(scorer: Scorer, bad: Bool[Tensor, "n C"], seeds: Int64[Tensor, " n"] | None) -> str:
    """What to say of scores that are NaN or infinite, and where to look for them."""
    rows, columns = bad.any(1), bad.any(0).nonzero().flatten().tolist()
    names = [repr(scorer.concepts[column].name) for column in columns]
    told = f"{', '.join(names[:_TOLD])}{f' and {len(names) - _TOLD} others' if len(names) > _TOLD else ''}"
    return (
        f"scorer {scorer.name!r} returned NaN or infinity for {told} in {_which(rows, seeds)}; guard its logarithms "
        "and divisions, or leave the concept out"
    )


def _which(rows: Bool[Tensor, " n"], seeds: Int64[Tensor, " n"] | None) -> str:
    """How many pictures, and of what seeds where that is known."""
    told = f"{int(rows.sum())} of {len(rows)} pictures"
    if seeds is None:
        return told
    found = seeds.cpu()[rows].tolist()
    more = " …" if len(found) > _TOLD else ""
    return f"{told} (seed{'s' * (len(found) > 1)} {', '.join(map(str, found[:_TOLD]))}{more})"


def stream(
    generator: Generator, scorer: Scorer, seeds: Sequence[int] | Int64[Tensor, " n"], *, batch_size: int = 64
) -> Iterator[Population]:
    """Sample, draw and score in batches: one `Population` on the CPU after the other, never all in memory.

    Raises:
        ValueError: no generator or scorer, seeds that `sample` refuses, or a batch size below 1.
        GeneratorError, ScorerError: see `render` and `score`.
    """
    check_models(generator, scorer)
    numbers = torch.tensor(_numbers(seeds))
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    check_concepts(scorer)
    for batch in torch.split(numbers, batch_size):
        codes = sample(generator, batch)
        scores = score(scorer, render(generator, codes, batch), batch)
        stored = codes[:, :1] if generator.shared_code else codes
        yield Population(batch.clone(), stored.float().cpu(), scores.cpu(), scorer.concepts, generator.num_layers)


def measure(
    generator: Generator,
    scorer: Scorer,
    seeds: Sequence[int] | Int64[Tensor, " n"],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Population:
    """Sample codes by seed, draw and score their images; see `sample_seeds` for the seeds of a run.

    Codes of a generator whose layers share one are kept once, as (n, 1, D).

    Raises:
        ValueError: see `stream`.
        GeneratorError, ScorerError: see `render` and `score`.
    """
    parts: list[Population] = []
    done = 0
    for part in stream(generator, scorer, seeds, batch_size=batch_size):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done, len(seeds))
    return Population(
        torch.cat([part.seeds for part in parts]),
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scores for part in parts]),
        parts[0].concepts,
        parts[0].num_layers,
    )


def fill(
    run: Run, generator: Generator, scorer: Scorer, *, batch_size: int = 64, progress: Progress | None = None
) -> int:
    """Measure every shard of a run that is not there yet, in this process; damaged shards are measured again.

    Killed at any moment and called again, it ends with the same bytes, given the same batch size, device and number of
    torch's threads. Returns how many shards were missing.

    Raises:
        ValueError: a batch size below 1.
        RunBusyError: another process is writing the folder.
        RunWriteError: the disk is full or refuses.
        GeneratorError, ScorerError: see `render` and `score`.
    """
    return distribute(run, lambda _: (generator, scorer), InProcess(), batch_size=batch_size, progress=progress)


def distribute(
    run: Run, open_models: OpenModels, engine: Engine, *, batch_size: int = 64, progress: Progress | None = None
) -> int:
    """As `fill`, by the workers of an engine: each measures whole shards, this process writes them.

    Engine and number of workers change no byte, provided that all workers have the same kind of device, the same
    library and the same number of torch's threads: convolutions round differently with another. `Processes` and
    `RayCluster` have one thread unless told otherwise, `InProcess` those of this process.

    Raises:
        ValueError: a batch size below 1.
        RunBusyError: another process is writing the folder.
        RunWriteError: the disk is full or refuses.
        EngineError: workers die again and again, or cannot be reached.
        GeneratorError, ScorerError: see `render` and `score`.
    """
    if not missing_shards(run):
        return 0
    under_way: dict[int, int] = {}

    def tick(shard: int, images: int) -> None:
        if progress is not None and under_way.get(shard) != images:
            under_way[shard] = images
            progress(kept + sum(under_way.values()), run.num_samples)

    with writing(run), engine.open(_OpenShards(run, open_models, batch_size)) as crew:
        todo = missing_shards(run)  # Again, for another process may have made some before the folder was this one's.
        kept = run.num_samples - sum(len(shard_indices(run, shard)) for shard in todo)
        for shard, data in crew.make(todo, tick):
            keep_shard(run, shard, data)
            tick(shard, len(shard_indices(run, shard)))
    return len(todo)


@dataclass(frozen=True, slots=True)
class _OpenShards:
    """A job whose units are the shards of a run."""

    run: Run
    open_models: OpenModels
    batch_size: int

    def __call__(self, device: str) -> Job[int]:
        return partial(_shard, self.run, *self.open_models(device), self.batch_size)


def _shard(run: Run, generator: Generator, scorer: Scorer, batch_size: int, shard: int, tick: Tick) -> bytes:
    indices = shard_indices(run, shard)
    seeds = sample_seeds(len(indices), seed=run.seed, first=indices.start)
    population = measure(generator, scorer, seeds, batch_size=batch_size, progress=lambda images, _: tick(images))
    return encode_shard(run, shard, population)


def check_images(
    generator: Generator, images: object, num: int, seeds: Int64[Tensor, " n"] | None = None
) -> UInt8[Tensor, "n 3 H W"]:
    """What ``synthesize`` or ``resume`` returned, as bytes; ``seeds`` are those of the samples, where they are known.

    Raises:
        GeneratorError: the images have a wrong shape or type, or are not finite.
    """
    expected = (num, 3, generator.resolution, generator.resolution)
    if not isinstance(images, Tensor) or tuple(images.shape) != expected or not images.is_floating_point():
        raise GeneratorError(
            f"generator {generator.name!r} must return floating-point images of shape {expected}; "
            f"got {_describe(images)}"
        )
    finite = torch.isfinite(images)
    if not bool(finite.all()):
        bad = ~finite.flatten(1).all(1).cpu()
        raise GeneratorError(f"generator {generator.name!r} drew images with NaN or infinity: {_which(bad, seeds)}")
    return to_uint8(images)


def check_models(generator: object, scorer: object) -> None:
    """Refuse what has no method of a generator or of a scorer: a network or a function has yet to become one.

    Raises:
        ValueError: one of them is something else; the message says what makes it one.
    """
    for value, what, method, mend in (
        (generator, "generator", "synthesize", "higan.generators.module.from_module(network, latent_dim)"),
        (scorer, "scorer", "score", "higan.scorers.callable.CallableScorer(function, concepts)"),
    ):
        if isinstance(value, type) or not hasattr(value, method):
            got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise ValueError(
                f"expected a {what}, as higan.load_{what} gives; got {got}. To make one of your own: {mend}"
            )


def _numbers(seeds: Sequence[int] | Int64[Tensor, " n"]) -> list[int]:
    """Seeds as they are, if all of them can be told apart.

    Raises:
        ValueError: see `sample`.
    """
    try:
        numbers = [operator.index(seed) for seed in (seeds.tolist() if isinstance(seeds, Tensor) else seeds)]
    except TypeError:
        raise ValueError(f"seeds must be a sequence of whole numbers, such as range(100); got {seeds!r:.60}") from None
    if not numbers:
        raise ValueError("the number of samples must be at least 1; got no seeds")
    for seed in (min(numbers), max(numbers)):
        if not 0 <= seed < 2 * _HALF:
            raise ValueError(f"a sample's seed is a whole number of 0 to {2 * _HALF - 1}; got {seed}")
    return numbers


def check_concepts(scorer: Scorer) -> None:
    """Refuse a scorer that names nothing or one thing twice.

    Raises:
        ScorerError: no concepts, or a name appears twice.
    """
    names = [concept.name for concept in scorer.concepts]
    if not names:
        raise ScorerError(f"scorer {scorer.name!r} has no concepts")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ScorerError(f"scorer {scorer.name!r} names a concept twice: {', '.join(twice)}")


def _check_codes(generator: Generator, codes: object, num: int) -> None:
    expected = (num, generator.num_layers, generator.code_dim)
    if not isinstance(codes, Tensor) or tuple(codes.shape) != expected or not codes.is_floating_point():
        raise GeneratorError(
            f"generator {generator.name!r} must map to floating-point codes of shape {expected}; got {_describe(codes)}"
        )
    if not bool(torch.isfinite(codes).all()):
        raise GeneratorError(f"generator {generator.name!r} mapped to codes with NaN or infinity")
    if generator.shared_code and not torch.equal(codes, codes[:, :1].expand_as(codes)):
        raise GeneratorError(
            f"generator {generator.name!r} says shared_code=True, but its map gives layers different codes; set "
            "shared_code=False, or give every layer the same row"
        )


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {_shape(value)}"
    return type(value).__name__
