"""Samples as a fit sees them: scores by column, codes by row, from memory or from a run folder of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from higan import store
from higan.devices import open_device
from higan.errors import CorruptRunError
from higan.spelling import instead
from higan.types import Concept, Population

__all__ = ["Dealt", "InMemory", "OnDisk", "Part", "Samples", "columns_of", "samples_of"]


@runtime_checkable
class Samples(Protocol):
    """What fitting asks of N samples. Whoever answers decides what is in memory."""

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The C concepts, in the order of the score columns."""
        ...

    @property
    def num_layers(self) -> int:
        """L."""
        ...

    @property
    def code_shape(self) -> tuple[int, int]:
        """(l, D), with l = 1 where all layers share a code."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def scores(self, columns: Sequence[int]) -> Float[Tensor, "n c"]:
        """Scores of all samples for some concepts."""
        ...

    def codes(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m l D"]:
        """Codes of some samples, in the order asked for."""
        ...


def samples_of(source: Population | Samples) -> Samples:
    """A population as samples; samples as they are."""
    return InMemory(source) if isinstance(source, Population) else source


def columns_of(samples: Samples, concepts: Sequence[str] | None) -> list[int]:
    """Columns of the concepts of these names; all if None.

    Raises:
        ValueError: no concept has that name, one is named twice, or there is one text instead of several names.
    """
    names = [concept.name for concept in samples.concepts]
    if concepts is None:
        return list(range(len(names)))
    if isinstance(concepts, str):
        raise ValueError(f"concepts must be a sequence of names; got one text: write [{concepts!r}]")  # noqa: TRY004
    unknown = [concept for concept in concepts if concept not in names]
    if unknown:
        raise ValueError(
            f"unknown concept {unknown[0]!r}; this population was scored for: {instead(unknown[0], names)}"
        )
    twice = [concept for k, concept in enumerate(concepts) if concept in concepts[:k]]
    if twice:
        raise ValueError(f"each concept is named once; got {twice[0]!r} twice")
    return [names.index(concept) for concept in concepts]


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """The samples of a population."""

    population: Population

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """See `Samples`."""
        return self.population.concepts

    @property
    def num_layers(self) -> int:
        """See `Samples`."""
        return self.population.num_layers

    @property
    def code_shape(self) -> tuple[int, int]:
        """See `Samples`."""
        return self.population.codes.shape[1], self.population.codes.shape[2]

    def __len__(self) -> int:
        return len(self.population)

    def scores(self, columns: Sequence[int]) -> Float[Tensor, "n c"]:
        """See `Samples`."""
        return self.population.scores[:, list(columns)]

    def codes(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m l D"]:
        """See `Samples`."""
        return self.population.codes[rows.to(self.population.codes.device)]


@dataclass(frozen=True, slots=True, eq=False)
class OnDisk:
    """The samples of a run folder. Memory is that of the answer and one shard, however many samples there are.

    Every shard is checked against its digest once, by `open`; after that pages are checked as they are read.
    """

    run: store.Run
    concepts: tuple[Concept, ...]
    num_layers: int
    code_shape: tuple[int, int]
    device: torch.device

    @classmethod
    def open(cls, run: store.Run, device: str | torch.device = "cpu") -> OnDisk:
        """Samples of a run; scores and codes are answered on ``device``.

        Raises:
            CorruptRunError: a shard is missing, cut off, damaged or of another kind than the first.
            ValueError: there is no such device.
        """
        where = open_device(device)
        missing = store.missing_shards(run)
        if missing:
            raise CorruptRunError(
                f"shard {missing[0]} of {run.num_shards} is missing from {run.path} or damaged: sample again with the "
                "same settings"
            )
        return cls(run, *store.kind_of(run), where)

    def __len__(self) -> int:
        return self.run.num_samples

    def scores(self, columns: Sequence[int]) -> Float[Tensor, "n c"]:
        """See `Samples`."""
        result = torch.empty(len(self), len(columns))
        names = [f"score_{self.concepts[column].name}" for column in columns]
        for shard in range(self.run.num_shards):
            at = store.shard_indices(self.run, shard)
            table = store.read_columns(self.run, shard, names)
            for c, name in enumerate(names):
                result[at.start : at.stop, c] = torch.from_numpy(table[name])
        return result.to(self.device)

    def codes(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m l D"]:
        """See `Samples`."""
        result = torch.empty(len(rows), *self.code_shape)
        ordered, place = rows.cpu().sort()
        shards = ordered // self.run.shard_size
        for shard in shards.unique_consecutive().tolist():
            here = shards == shard
            codes = torch.from_numpy(store.read_columns(self.run, shard, ["codes"])["codes"])
            result[place[here]] = codes.reshape(-1, *self.code_shape)[ordered[here] % self.run.shard_size]
        return result.to(self.device)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the samples, in the order of ``rows``."""

    whole: Samples
    rows: Int64[Tensor, " n"]

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """See `Samples`."""
        return self.whole.concepts

    @property
    def num_layers(self) -> int:
        """See `Samples`."""
        return self.whole.num_layers

    @property
    def code_shape(self) -> tuple[int, int]:
        """See `Samples`."""
        return self.whole.code_shape

    def __len__(self) -> int:
        return len(self.rows)

    def scores(self, columns: Sequence[int]) -> Float[Tensor, "n c"]:
        """See `Samples`."""
        scores = self.whole.scores(columns)
        return scores[self.rows.to(scores.device)]

    def codes(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m l D"]:
        """See `Samples`."""
        return self.whole.codes(self.rows[rows.to(self.rows.device)])


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """The same codes with other scores: concept k is column ``columns[k]``, dealt out anew by ``deals[k]``."""

    whole: Samples
    concepts: tuple[Concept, ...]
    columns: tuple[int, ...]
    deals: tuple[Tensor, ...]

    @property
    def num_layers(self) -> int:
        """See `Samples`."""
        return self.whole.num_layers

    @property
    def code_shape(self) -> tuple[int, int]:
        """See `Samples`."""
        return self.whole.code_shape

    def __len__(self) -> int:
        return len(self.whole)

    def scores(self, columns: Sequence[int]) -> Float[Tensor, "n c"]:
        """See `Samples`."""
        scores = self.whole.scores([self.columns[column] for column in columns])
        dealt = [scores[self.deals[column].to(scores.device), k] for k, column in enumerate(columns)]
        return torch.stack(dealt, 1)

    def codes(self, rows: Int64[Tensor, " m"]) -> Float[Tensor, "m l D"]:
        """See `Samples`."""
        return self.whole.codes(rows)
