"""Draws looks: codes of samples kept at hand, edits applied, several pictures in one call of the generator."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.editing import apply
from higan.population import check_images, render, sample, score
from higan.studio.encoding import Encoded, encode, encode_mask
from higan.studio.looks import Look
from higan.transitions import segment
from higan.types import Edit, Segmenter, StagedGenerator
from higan.workbench import Workbench

__all__ = ["Desk", "Kept"]

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_PIXELS_AT_ONCE = 1 << 18
_MOST_AT_ONCE = 16
_PIXELS_KEPT = 1 << 19
_MOST_STATES = 8


class Kept(Generic[_K, _V]):
    """At most ``most`` values, the least recently used forgotten first; usable from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[_K, _V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _K) -> _V | None:
        """The value, which then counts as used."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: _K, value: _V) -> None:
        """Keep a value."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def __len__(self) -> int:
        return len(self._values)


class Desk:
    """What draws, and what it has at hand.

    Args:
        bench: generator with boundaries; a scorer and a re-scoring for what needs them.
        segmenter: for overlays and transitions.
        samples: codes of so many samples are kept.
        uploads: codes of so many photographs are kept.
    """

    def __init__(
        self, bench: Workbench, segmenter: Segmenter | None = None, *, samples: int = 1024, uploads: int = 64
    ) -> None:
        self.bench = bench
        self.segmenter = segmenter
        side = bench.generator.resolution
        self.at_once = max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // side**2))
        """Pictures in one call of the generator: as many as memory and patience allow."""
        self._samples: Kept[int, Tensor] = Kept(samples)
        self._uploads: Kept[str, Tensor] = Kept(uploads)
        # At 1024 pixels the state before a late layer has a hundred megabytes.
        self._states: Kept[tuple[Look, int], object] = Kept(max(1, min(_MOST_STATES, _PIXELS_KEPT // side**2)))

    def keep_upload(self, code: Float[Tensor, "L D"]) -> str:
        """A name for an inverted photograph that nobody can guess: whoever knows it may use it."""
        name = secrets.token_hex(16)
        self._uploads.put(name, code)
        return name

    def start(self, look: Look) -> Float[Tensor, "L D"]:
        """The code before loans and edits.

        Raises:
            ValueError: the upload is no longer kept.
        """
        if look.upload is None:
            return self._sample(look.seed or 0)
        code = self._uploads.get(look.upload)
        if code is None:
            raise ValueError("this photograph is no longer kept: upload it again")
        return code.to(self.bench.generator.device)

    def code(self, look: Look) -> Float[Tensor, "L D"]:
        """The code of a look."""
        code = self.start(look)
        for loan in look.loans:
            code = code.clone()
            code[list(loan.layers)] = self._sample(loan.seed or 0)[list(loan.layers)]
        if not look.edits:
            return code
        edits = [Edit(self.bench.boundaries[e.concept], e.amount, e.layers or ()) for e in look.edits]
        return apply(code[None], edits)[0]

    def images(self, looks: Sequence[Look]) -> UInt8[Tensor, "n 3 H W"]:
        """Pictures of looks, drawn together; of one look alone, from the first layer on that its edits touch."""
        codes = torch.stack([self.code(look) for look in looks])
        first = min((layer for edit in looks[0].edits for layer in edit.layers or ()), default=0)
        if len(looks) == 1 and first > 0 and isinstance(self.bench.generator, StagedGenerator):
            return self._resumed(self.bench.generator, looks[0].unedited, codes, first)
        return torch.cat([render(self.bench.generator, part) for part in codes.split(self.at_once)])

    def _resumed(
        self, generator: StagedGenerator, unedited: Look, codes: Float[Tensor, "1 L D"], first: int
    ) -> UInt8[Tensor, "1 3 H W"]:
        """While a slider of late layers is dragged, the early ones have been computed already."""
        key = (unedited, first)
        state = self._states.get(key)
        with torch.inference_mode():
            if state is None:
                state = generator.prepare(self.code(unedited)[None], first)
                self._states.put(key, state)
            return check_images(self.bench.generator, generator.resume(state, codes, first), 1)

    def encoded(self, looks: Sequence[tuple[Look, int | None]]) -> list[Encoded]:
        """Pictures for the screen, each with its largest width."""
        images = self.images([look for look, _ in looks])
        return [encode(image, largest=largest) for image, (_, largest) in zip(images, looks, strict=True)]

    def masks(self, look: Look) -> tuple[Encoded, dict[str, float]]:
        """The segmentation of a look, and the share of pixels of every class in it, largest first.

        Raises:
            ValueError: there is no segmenter.
        """
        if self.segmenter is None:
            raise ValueError("there is no segmenter for this run; open the studio with one")
        mask = segment(self.segmenter, self.images([look]))[0]
        counts = torch.bincount(mask.flatten().long(), minlength=len(self.segmenter.classes))
        order = counts.argsort(descending=True, stable=True).tolist()
        shares = {
            self.segmenter.classes[k].name: float(counts[k]) / mask.numel() for k in order if int(counts[k])
        }  # fmt: skip
        return encode_mask(mask, self.segmenter.classes), shares

    def changes(self, look: Look) -> dict[str, float]:
        """How far every score moved from the sample's own, in standard deviations; concepts that never vary left out.

        Raises:
            ValueError: there is no scorer or no re-scoring.
        """
        bench = self.bench
        if bench.scorer is None or bench.rescoring is None:
            raise ValueError("changes of scores need a scorer and a re-scoring")
        before, after = score(bench.scorer, self.images([look.plain, look])).cpu()
        std = {c.name: float(s) for c, s in zip(bench.rescoring.concepts, bench.rescoring.score_std, strict=True)}
        columns = {name: bench.column(name) for name, value in std.items() if value > 0}
        return {name: float(after[c] - before[c]) / std[name] for name, c in columns.items()}

    def _sample(self, seed: int) -> Float[Tensor, "L D"]:
        code = self._samples.get(seed)
        if code is None:
            code = sample(self.bench.generator, [seed])[0]
            self._samples.put(seed, code)
        return code
