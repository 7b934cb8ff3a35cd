"""Pictures of edited codes, drawn from the first layer on that an edit touches: what comes before is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.blame import blamed
from higan.errors import GeneratorError
from higan.population import check_images
from higan.types import Generator, RepeatedGenerator, StagedGenerator

__all__ = ["Start", "most_images", "start_at"]

_CPU_IMAGES = 32
"""From here on an image takes no less time in a larger call (`benchmarks/rescoring.py`)."""

Edited = TypeVar("Edited")

_MOST_IMAGES = 512
_PIXELS = 2**24
"""On a GPU: about 1 KiB a pixel, four maps of 64 channels in float32 at the finest layer, makes 16 GiB."""


def most_images(generator: Generator) -> int:
    """Images in one call, where nobody says how many."""
    if generator.device.type == "cpu":
        return _CPU_IMAGES
    return min(_MOST_IMAGES, _PIXELS // generator.resolution**2)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """n samples, drawn as far as edits leave them alone; see `start_at`."""

    generator: Generator
    finish: Callable[[Tensor], Tensor]
    several: bool
    """Whether several edits of the samples can be drawn in one call."""

    def calls(self, edits: Sequence[Edited], num: int, most: int | None = None) -> Iterator[Sequence[Edited]]:
        """The edits of ``num`` samples in groups of which `draw` takes each at once; ``most`` is `most_images`."""
        size = max(1, (most_images(self.generator) if most is None else most) // num) if self.several else 1
        return (edits[start : start + size] for start in range(0, len(edits), size))

    def draw(self, moved: Float[Tensor, "m L D"]) -> UInt8[Tensor, "m 3 H W"]:
        """Images of edited codes: of all n samples moved the first way, then, where ``several``, the second …

        Raises:
            GeneratorError: see `higan.population.render`.
        """
        with torch.inference_mode():
            with blamed(f"generator {self.generator.name!r}", GeneratorError):
                drawn = self.finish(moved)
            return check_images(self.generator, drawn, len(moved))


def start_at(generator: Generator, codes: Float[Tensor, "n L D"], first: int) -> Start:
    """Draws samples up to layer ``first``, before which no edit changes them; a generator without stages waits.

    Raises:
        GeneratorError: see `higan.population.render`.
    """
    if first == 0 or not isinstance(generator, StagedGenerator):
        return Start(generator, generator.synthesize, several=True)
    with torch.inference_mode(), blamed(f"generator {generator.name!r}", GeneratorError):
        state = generator.prepare(codes, first)
    if not isinstance(generator, RepeatedGenerator):
        return Start(generator, lambda moved: generator.resume(state, moved, first), several=False)
    # The last one is kept: all calls of a queue but its last ask for the same.
    repeated = lru_cache(maxsize=1)(partial(generator.repeat, state))
    return Start(
        generator, lambda moved: generator.resume(repeated(len(moved) // len(codes)), moved, first), several=True
    )
