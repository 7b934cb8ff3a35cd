"""The population of a run, shard by shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from higan.errors import CorruptRunError
from higan.spelling import instead
from higan.store.files import CONTENT, write_file
from higan.store.run import Run, identity
from higan.types import Concept, Population

__all__ = [
    "encode_shard",
    "is_whole",
    "keep_shard",
    "kind_of",
    "missing_shards",
    "read_columns",
    "read_population",
    "read_shard",
    "shard_indices",
    "write_shard",
]


def shard_indices(run: Run, shard: int) -> range:
    """Which samples a shard holds.

    Raises:
        ValueError: there is no such shard.
    """
    if not 0 <= shard < run.num_shards:
        raise ValueError(f"this run has shards 0 to {run.num_shards - 1}; got {shard}")
    start = shard * run.shard_size
    return range(start, min(start + run.shard_size, run.num_samples))


def missing_shards(run: Run) -> list[int]:
    """Shards that are not there whole: absent, cut off or damaged."""
    return [shard for shard in range(run.num_shards) if not is_whole(run, shard)]


def write_shard(run: Run, shard: int, population: Population) -> None:
    """Keep one shard's samples, whole or not at all.

    Raises:
        ValueError: the number of samples is not this shard's, or two concepts have the same name.
        RunWriteError: the disk is full or refuses.
    """
    keep_shard(run, shard, encode_shard(run, shard, population))


def encode_shard(run: Run, shard: int, population: Population) -> bytes:
    """The file of one shard; the same samples give the same bytes.

    Raises:
        ValueError: the number of samples is not this shard's, or two concepts have the same name.
    """
    names = [concept.name for concept in population.concepts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"concepts must have different names, which tell their scores; given twice: {', '.join(twice)}"
        )
    expected = len(shard_indices(run, shard))
    if len(population) != expected:
        raise ValueError(f"shard {shard} holds {expected} samples; got {len(population)}")
    codes = population.codes.float().cpu().contiguous().numpy()
    values = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), codes.shape[1] * codes.shape[2])
    scores = population.scores.float().cpu().numpy()
    columns = {f"score_{concept.name}": pa.array(scores[:, c]) for c, concept in enumerate(population.concepts)}
    table = pa.table({"seed": pa.array(population.seeds.cpu().numpy()), "codes": values, **columns})
    content = {
        "concepts": [[concept.name, concept.level] for concept in population.concepts],
        "code_shape": list(codes.shape[1:]),
        "num_layers": population.num_layers,
        "settings": identity(run.settings),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({CONTENT: json.dumps(content)}),
        sink,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def keep_shard(run: Run, shard: int, data: bytes) -> None:
    """Keep the file that `encode_shard` made, whole or not at all.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    target, sidecar = _shard_paths(run, shard)
    # A digest left from a shard that is being replaced would call the new bytes damaged.
    sidecar.unlink(missing_ok=True)
    write_file(target, data)
    write_file(sidecar, _sidecar(hashlib.sha256(data).hexdigest(), target))


def read_shard(run: Run, shard: int, concepts: Sequence[str] | None = None) -> Population:
    """One shard, checked; with ``concepts`` only these score columns.

    Raises:
        ValueError: there is no such shard, or unknown concept.
        CorruptRunError: the shard is missing, cut off or damaged.
    """
    shard_indices(run, shard)
    target, sidecar = _shard_paths(run, shard)
    try:
        data, digest = target.read_bytes(), sidecar.read_bytes()[:64].decode("ascii", "replace")
    except FileNotFoundError:
        raise CorruptRunError(
            f"shard {shard} of {run.num_shards} is missing from {run.path}: sample again with the same settings"
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptRunError(f"{target} is damaged: sample again with the same settings to replace it")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        content = json.loads(file.schema_arrow.metadata[CONTENT.encode()])
        known = [Concept(*entry) for entry in content["concepts"]]
        chosen = known if concepts is None else [_named(known, name) for name in concepts]
        made_with = content.get("settings")
        table = file.read(["seed", "codes", *(f"score_{concept.name}" for concept in chosen)])
        codes = table["codes"].combine_chunks().flatten().to_numpy().reshape(-1, *content["code_shape"])
        scores = np.empty((table.num_rows, len(chosen)), np.float32)
        for c, concept in enumerate(chosen):
            scores[:, c] = table[f"score_{concept.name}"].to_numpy()
        seeds = table["seed"].to_numpy()
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise CorruptRunError(f"{target} is not a shard of this program: {error}") from error
    if made_with != identity(run.settings):
        raise CorruptRunError(f"{target} is a shard of another run: sample again with the same settings to replace it")
    return Population(
        torch.from_numpy(seeds.copy()), torch.from_numpy(codes.copy()), torch.from_numpy(scores), tuple(chosen),
        content["num_layers"],
    )  # fmt: skip


def kind_of(run: Run) -> tuple[tuple[Concept, ...], int, tuple[int, int]]:
    """Concepts, L and the shape (l, D) of the codes, as every shard tells them.

    Raises:
        CorruptRunError: a shard is none of this program, or of another kind than the first.
    """
    kind = _shard_kind(run, 0)
    for shard in range(1, run.num_shards):
        if _shard_kind(run, shard) != kind:
            raise _unlike(run, shard)
    return kind


def _unlike(run: Run, shard: int) -> CorruptRunError:
    return CorruptRunError(f"shard {shard} of {run.path} does not go with shard 0; delete it and sample again")


def _shard_kind(run: Run, shard: int) -> tuple[tuple[Concept, ...], int, tuple[int, int]]:
    target, _ = _shard_paths(run, shard)
    try:
        content = json.loads(pq.read_schema(target).metadata[CONTENT.encode()])
        rows, width = content["code_shape"]
        return tuple(Concept(*entry) for entry in content["concepts"]), content["num_layers"], (rows, width)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorruptRunError(f"{target} is not a shard of this program: {error}") from error


def read_columns(run: Run, shard: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Some columns of a shard, flat; of the file only these are read, and only their pages are checked.

    Raises:
        CorruptRunError: the shard is missing, damaged, or has no such columns.
    """
    target, _ = _shard_paths(run, shard)
    try:
        with pq.ParquetFile(target, page_checksum_verification=True) as file:
            table = file.read(list(columns))
        if table.num_rows != len(shard_indices(run, shard)):
            raise CorruptRunError(f"{target} holds {table.num_rows} samples; delete it and sample again")
        return {name: _flat(table[name].combine_chunks()) for name in columns}
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CorruptRunError(f"{target} is damaged or lacks a column: {error}; sample again to replace it") from error


def _flat(array: pa.Array) -> np.ndarray:
    """Copied, since what the file reader hands out may not be written to."""
    return np.array(array.flatten() if pa.types.is_fixed_size_list(array.type) else array)


def read_population(run: Run, concepts: Sequence[str] | None = None) -> Population:
    """All shards as one population; with ``concepts`` only these score columns.

    Shards are read one after the other into place: memory is that of the result and one shard.

    Raises:
        ValueError: unknown concept.
        CorruptRunError: a shard is missing, cut off, damaged or of another kind than the first.
    """
    first = read_shard(run, 0, concepts)
    total = run.num_samples
    seeds = torch.empty(total, dtype=torch.int64)
    codes = torch.empty(total, *first.codes.shape[1:])
    scores = torch.empty(total, len(first.concepts))
    for shard in range(run.num_shards):
        part = first if shard == 0 else read_shard(run, shard, concepts)
        at = slice(shard_indices(run, shard).start, shard_indices(run, shard).stop)
        if (
            part.concepts != first.concepts
            or part.num_layers != first.num_layers
            or part.codes.shape[1:] != codes.shape[1:]
            or len(part) != at.stop - at.start
        ):
            raise _unlike(run, shard)
        seeds[at], codes[at], scores[at] = part.seeds, part.codes, part.scores
    return Population(seeds, codes, scores, first.concepts, first.num_layers)


def _shard_paths(run: Run, shard: int) -> tuple[Path, Path]:
    stem = run.path / "population" / f"shard-{shard:05d}"
    return stem.with_suffix(".parquet"), stem.with_suffix(".sha256")


def is_whole(run: Run, shard: int) -> bool:
    """Whether a shard is there, undamaged, and of this run."""
    target, sidecar = _shard_paths(run, shard)
    try:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _sidecar(digest, target) == sidecar.read_bytes() and _settings_of(run, shard) == identity(run.settings)
    except (FileNotFoundError, pa.ArrowException):
        return False


def _settings_of(run: Run, shard: int) -> str | None:
    """What a shard says of the settings it was made with."""
    metadata = pq.read_schema(_shard_paths(run, shard)[0]).metadata or {}
    return json.loads(metadata.get(CONTENT.encode(), b"{}")).get("settings")


def _sidecar(digest: str, target: Path) -> bytes:
    """As ``sha256sum --check`` reads it."""
    return f"{digest}  {target.name}\n".encode()


def _named(concepts: Sequence[Concept], name: str) -> Concept:
    for concept in concepts:
        if concept.name == name:
            return concept
    raise ValueError(f"unknown concept {name!r}; this run was scored for: {instead(name, [c.name for c in concepts])}")
