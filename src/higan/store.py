"""The run folder: what a study leaves on disk. Parquet, safetensors and JSON; never pickle.

::

    manifest.json                     settings that identify the run, and its provenance
    steps.json                        settings and seconds of the steps that are done, see `higan.study`
    population/shard-00000.parquet    seed, codes, one score column per concept
    population/shard-00000.sha256     digest of the shard, written after it: a shard without one does not count
    boundaries.safetensors
    permuted.safetensors              boundaries fitted to permuted scores: what a fit finds where there is nothing
    rescoring.safetensors
    rescoring-equal_change.safetensors   … and other step modes, for comparison
    responses.safetensors             mean change of scores against the step, both ways
    rescoring.units/…                 finished units of a re-scoring under way

Every file is written under a temporary name, synced and renamed, so that it is there whole or not at all. Everything
that is read is checked against a SHA-256; Parquet pages carry checksums besides, for readers that are not ours.
Shard k holds samples k · shard_size onwards, whoever computes it and whenever. One process writes a folder at a time
(`writing`); reading needs no leave.

Scores are columns named ``score_<concept>``; codes are lists of l · D float32, layer by layer, with l = 1 where layers
share their code. Any Parquet reader understands them: ``SELECT seed, "score_wood" FROM 'run/population/*.parquet'``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from higan.checkpoints.native import is_safetensors
from higan.checkpoints.official import read_boundary
from higan.errors import CorruptRunError, RunBusyError, RunError, RunMismatchError, RunWriteError
from higan.files import lock, write_whole
from higan.types import Boundary, Concept, Placement, Population, Rescoring, Responses

__all__ = [
    "Run",
    "Units",
    "drop_rescoring",
    "encode_shard",
    "keep_shard",
    "load_boundaries",
    "load_boundary",
    "load_permuted",
    "load_rescoring",
    "load_responses",
    "load_run",
    "missing_shards",
    "open_run",
    "read_columns",
    "read_population",
    "read_shard",
    "save_boundaries",
    "save_boundary",
    "save_permuted",
    "save_rescoring",
    "save_responses",
    "shard_indices",
    "shard_kind",
    "verify",
    "write_file",
    "write_json",
    "write_shard",
    "writing",
]

_FORMAT = "higan-run-1"
_MANIFEST = "manifest.json"
_LOCK = ".lock"
_DIGEST = "higan.sha256"
_CONTENT = "higan.content"


@dataclass(frozen=True, slots=True)
class Run:
    """An open run folder. ``settings`` identify the run; ``provenance`` (versions, dates) is for the reader alone."""

    path: Path
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def num_samples(self) -> int:
        """N, the population's size."""
        return int(self.settings["num_samples"])

    @property
    def shard_size(self) -> int:
        """Samples per shard; the last one may hold fewer."""
        return int(self.settings["shard_size"])

    @property
    def seed(self) -> int:
        """Chooses the population's samples."""
        return int(self.settings["seed"])

    @property
    def num_shards(self) -> int:
        """How many shards make the population."""
        return -(-self.num_samples // self.shard_size)


def open_run(path: str | Path, settings: Mapping[str, Any], *, provenance: Mapping[str, Any] | None = None) -> Run:
    """Create a run folder, or go on with the one that is there if its settings are the same.

    ``settings`` is whatever decides the result, as JSON: generator and scorer with digests of their weights, and at
    least ``num_samples``, ``shard_size`` and ``seed``. ``provenance`` is kept as first written and never compared.
    A manifest that was cut off is written anew, provided that every shard there says that it belongs to these settings.

    Raises:
        ValueError: a setting is missing or not positive.
        RunMismatchError: the folder holds another run, or something that is no run.
        RunWriteError: the folder cannot be written.
        CorruptRunError: the manifest cannot be read, and what else is there does not show that the run is this one.
    """
    if wrong := _wrong_setting(settings):
        raise ValueError(wrong)
    path = Path(path)
    wanted = json.loads(json.dumps(dict(settings)))
    manifest = {"format": _FORMAT, "settings": wanted, "provenance": dict(provenance or {})}
    if not (path / _MANIFEST).exists():
        if path.exists() and not path.is_dir():
            raise RunMismatchError(f"{path} is a file, and a run is a folder (--out); name another")
        foreign = _beside_manifest(path) if path.exists() else []
        # Another program may have begun the run meanwhile.
        if foreign and not (path / _MANIFEST).exists():
            raise RunMismatchError(
                f"{path} is not empty and holds no run (there is {foreign[0]}); choose another folder"
            )
    if _lacks_manifest(path, wanted):
        # Of two programs that begin a folder at once, one does, and the other finds the run begun.
        with writing(Run(path, wanted, {})):
            if _lacks_manifest(path, wanted):
                write_json(path / _MANIFEST, manifest)
    run = load_run(path)
    differing = sorted(k for k in {*wanted, *run.settings} if wanted.get(k) != run.settings.get(k))
    if differing:
        details = "; ".join(f"{k} is {run.settings.get(k)!r} there, {wanted.get(k)!r} here" for k in differing)
        raise RunMismatchError(f"{path} holds another run: {details}; use these settings or choose another folder")
    return run


def _wrong_setting(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the numbers that every run has, or None."""
    for name, least in (("num_samples", 1), ("shard_size", 1), ("seed", 0)):
        value = settings.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"the setting {name} must be a whole number of at least {least}; got {value!r:.60}"
    return None


def load_run(path: str | Path) -> Run:
    """Open a run folder that exists.

    Raises:
        RunError: there is none.
        CorruptRunError: the manifest cannot be read.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
    except NotADirectoryError:
        raise RunError(f"{path} is a file; expected the folder of a run, as --out names it") from None
    except FileNotFoundError:
        raise RunError(f"{path} is no run folder: it has no {_MANIFEST}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged_manifest(path, error) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CorruptRunError(f"{path / _MANIFEST} is not a manifest of format {_FORMAT}")
    settings, provenance = manifest.get("settings"), manifest.get("provenance")
    if not isinstance(settings, dict) or not isinstance(provenance, dict):
        raise _damaged_manifest(path, "it lacks settings or provenance")
    if wrong := _wrong_setting(settings):
        raise _damaged_manifest(path, wrong)
    return Run(path, settings, provenance)


def _damaged_manifest(path: Path, problem: object) -> CorruptRunError:
    return CorruptRunError(f"{path / _MANIFEST} is damaged ({problem}); restore it or start in another folder")


def complete(run: Run, provenance: Mapping[str, Any]) -> Run:
    """Add what nobody said when the run was begun; what was said stays.

    Raises:
        RunBusyError, RunWriteError: see `writing`.
    """
    added = {key: value for key, value in provenance.items() if value and not run.provenance.get(key)}
    if not added:
        return run
    with writing(run):
        content = {
            "format": _FORMAT,
            "settings": run.settings,
            "provenance": {**load_run(run.path).provenance, **added},
        }
        write_json(run.path / _MANIFEST, content)
    return load_run(run.path)


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Keeps other processes from writing the run folder meanwhile; the system lifts the lock if this one is killed.

    Where the file system knows no locks there is none: files are whole or not at all even then.

    Raises:
        RunBusyError: another process is writing it.
        RunWriteError: the folder cannot be written.
    """
    path = run.path / _LOCK
    try:
        _make_folder(run.path)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            lock(file)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
            raise RunBusyError(
                f"{run.path} is being written by {owner}; wait until it is done, or choose another folder"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: then without a name in it
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
        try:
            yield
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def _beside_manifest(path: Path) -> list[str]:
    """What lies in a folder besides a manifest, finished or not, and the lock."""
    ours = {_MANIFEST, _temporary(path / _MANIFEST).name, _LOCK}
    return sorted(entry.name for entry in path.iterdir() if entry.name not in ours)


def _lacks_manifest(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings is to be begun here, or its manifest written again."""
    manifest = path / _MANIFEST
    return not manifest.exists() or (_is_cut_off(manifest) and _belongs(path, settings))


def _is_cut_off(manifest: Path) -> bool:
    data = manifest.read_bytes()
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return True
    return not data.endswith(b"\n")


def _belongs(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether what lies in a folder without a manifest can only be the run with these settings."""
    run = Run(path, settings, {})
    whole = [shard for shard in range(run.num_shards) if _is_whole(run, shard)]
    identity = _identity(settings)
    shards = len(list((path / "population").glob("*.parquet")))
    if not shards:
        return not [name for name in _beside_manifest(path) if name != "population"]
    # The last shard may have been cut off together with the manifest; it will be made again.
    return len(whole) >= max(1, shards - 1) and all(_settings_of(run, shard) == identity for shard in whole)


def _identity(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _settings_of(run: Run, shard: int) -> str | None:
    """What a shard says of the settings it was made with."""
    metadata = pq.read_schema(_shard_paths(run, shard)[0]).metadata or {}
    return json.loads(metadata.get(_CONTENT.encode(), b"{}")).get("settings")


# --- population -------------------------------------------------------------------------------------------------------


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
    return [shard for shard in range(run.num_shards) if not _is_whole(run, shard)]


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
        "settings": _identity(run.settings),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({_CONTENT: json.dumps(content)}),
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
        content = json.loads(file.schema_arrow.metadata[_CONTENT.encode()])
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
    if made_with != _identity(run.settings):
        raise CorruptRunError(f"{target} is a shard of another run: sample again with the same settings to replace it")
    return Population(
        torch.from_numpy(seeds.copy()), torch.from_numpy(codes.copy()), torch.from_numpy(scores), tuple(chosen),
        content["num_layers"],
    )  # fmt: skip


def shard_kind(run: Run, shard: int) -> tuple[tuple[Concept, ...], int, tuple[int, int]]:
    """Concepts, L and the shape (l, D) of the codes of a shard.

    Raises:
        CorruptRunError: it is no shard of this program.
    """
    target, _ = _shard_paths(run, shard)
    try:
        content = json.loads(pq.read_schema(target).metadata[_CONTENT.encode()])
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
            or part.codes.shape[1:] != codes.shape[1:]
            or len(part) != at.stop - at.start
        ):
            raise CorruptRunError(f"shard {shard} of {run.path} does not go with shard 0; delete it and sample again")
        seeds[at], codes[at], scores[at] = part.seeds, part.codes, part.scores
    return Population(seeds, codes, scores, first.concepts, first.num_layers)


def verify(path: str | Path) -> str:
    """Check the samples and results of a run; a digest of seeds, codes and scores that depends on content alone.

    Pages and notes beside them are not looked at. Shard size, compression and the program's version do not matter to
    it.

    Raises:
        RunError: there is no run.
        CorruptRunError: something is missing or damaged.
    """
    run = load_run(path)
    streams = [hashlib.sha256() for _ in range(3)]
    seeds: list[Tensor] = []
    for shard in range(run.num_shards):
        part = read_shard(run, shard)
        seeds.append(part.seeds)
        for digest, tensor in zip(streams, (part.seeds, part.codes, part.scores), strict=True):
            digest.update(tensor.contiguous().numpy().data)
        if shard == 0:
            header = [[concept.name, concept.level] for concept in part.concepts], list(part.codes.shape[1:])
    if len(torch.cat(seeds).unique()) != run.num_samples:
        raise CorruptRunError(
            f"{run.path} does not hold {run.num_samples} different samples: a shard is there twice, or has too few; "
            "delete what was copied there and sample again with the same settings"
        )
    for kind, pattern in _RESULTS:
        for file in sorted(run.path.glob(pattern)):
            _load_tensors(file, kind)
    total = hashlib.sha256(json.dumps(header).encode())
    for digest in streams:
        total.update(digest.digest())
    return total.hexdigest()


_RESULTS = (
    ("boundaries", "boundaries.safetensors"),
    ("boundaries", "permuted.safetensors"),
    ("rescoring", "rescoring*.safetensors"),
    ("responses", "responses.safetensors"),
)
"""What files of a run hold, besides its samples."""


def _shard_paths(run: Run, shard: int) -> tuple[Path, Path]:
    stem = run.path / "population" / f"shard-{shard:05d}"
    return stem.with_suffix(".parquet"), stem.with_suffix(".sha256")


def _is_whole(run: Run, shard: int) -> bool:
    target, sidecar = _shard_paths(run, shard)
    try:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _sidecar(digest, target) == sidecar.read_bytes() and _settings_of(run, shard) == _identity(run.settings)
    except (FileNotFoundError, pa.ArrowException):
        return False


def _sidecar(digest: str, target: Path) -> bytes:
    """As ``sha256sum --check`` reads it."""
    return f"{digest}  {target.name}\n".encode()


def _named(concepts: Sequence[Concept], name: str) -> Concept:
    for concept in concepts:
        if concept.name == name:
            return concept
    raise ValueError(f"unknown concept {name!r}; this run was scored for: {', '.join(c.name for c in concepts)}")


# --- boundaries -------------------------------------------------------------------------------------------------------


def save_boundaries(run: Run, boundaries: Sequence[Boundary]) -> None:
    """Keep the boundaries of a run, whole or not at all.

    Raises:
        ValueError: there are none, or they come from different spaces.
    """
    _save_boundaries(run.path / "boundaries.safetensors", boundaries)


def load_boundaries(run: Run) -> tuple[Boundary, ...]:
    """The boundaries of a run.

    Raises:
        RunError: they have not been fitted.
        CorruptRunError: the file is damaged.
    """
    return _load_boundaries(run.path / "boundaries.safetensors")


def save_permuted(run: Run, boundaries: Sequence[Boundary]) -> None:
    """Keep boundaries fitted to permuted scores beside those of the run; none of them removes what was there."""
    path = run.path / "permuted.safetensors"
    if boundaries:
        _save_boundaries(path, boundaries)
    else:
        path.unlink(missing_ok=True)


def load_permuted(run: Run) -> tuple[Boundary, ...]:
    """Boundaries fitted to permuted scores; none where the run has none.

    Raises:
        CorruptRunError: the file is damaged.
    """
    path = run.path / "permuted.safetensors"
    return _load_boundaries(path) if path.exists() else ()


def save_boundary(path: str | Path, boundary: Boundary) -> None:
    """Keep one boundary in a file of its own, to be opened by `load_boundary`."""
    _save_boundaries(Path(path), [boundary])


def load_boundary(path: str | Path, concept: str | None = None) -> Boundary:
    """A boundary from a file of ours, or a direction (``.npy``) of the official tool.

    Where the file holds several, ``concept`` says which.

    Raises:
        ValueError: the file holds several and none is named, or not the one named.
        HiganError: there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return read_boundary(path).boundary
    if path.is_file() and not _is_ours(path):
        raise CorruptRunError(
            f"{path} is no file of boundaries, it was not written by this program; expected a .safetensors of a run or "
            "of `higan.store.save_boundary`, or a direction of the official tool, .npy"
        )
    found = {boundary.concept.name: boundary for boundary in _load_boundaries(path)}
    if concept is None and len(found) == 1:
        return next(iter(found.values()))
    if concept not in found:
        raise ValueError(f"{path} holds boundaries for {', '.join(found)}; got {concept!r}")
    return found[concept]


def _save_boundaries(path: Path, boundaries: Sequence[Boundary]) -> None:
    shapes = {tuple(boundary.normal.shape) for boundary in boundaries}
    if len(shapes) != 1:
        raise ValueError(f"boundaries of one space are kept together; got normals of shapes {sorted(shapes)}")
    content = {
        "kind": "boundaries",
        "concepts": [[b.concept.name, b.concept.level] for b in boundaries],
        "holdout_accuracy": [b.holdout_accuracy for b in boundaries],
        "num_train": [b.num_train for b in boundaries],
        "stability": [b.stability for b in boundaries],
        "score_std": [b.score_std for b in boundaries],
    }
    tensors = {
        "normals": torch.stack([b.normal.cpu() for b in boundaries]),
        "biases": torch.stack([b.bias.cpu() for b in boundaries]),
    }
    _save_tensors(path, tensors, content)


def _load_boundaries(path: Path) -> tuple[Boundary, ...]:
    tensors, content = _load_tensors(path, "boundaries")
    concepts, accuracies, counts = content["concepts"], content["holdout_accuracy"], content["num_train"]
    unknown = [math.nan] * len(concepts)
    stabilities, stds = content.get("stability", unknown), content.get("score_std", unknown)
    return tuple(
        Boundary(Concept(*concept), tensors["normals"][k], tensors["biases"][k], *figures)
        for k, (concept, *figures) in enumerate(zip(concepts, accuracies, counts, stabilities, stds, strict=True))
    )


# --- re-scoring -------------------------------------------------------------------------------------------------------


def save_rescoring(run: Run, rescoring: Rescoring, name: str = "rescoring") -> None:
    """Keep a re-scoring of a run, whole or not at all."""
    content = {
        "kind": "rescoring",
        "concepts": [[c.name, c.level] for c in rescoring.concepts],
        "placements": [[p.name, list(p.layers)] for p in rescoring.placements],
        "step": rescoring.step,
        "step_mode": rescoring.step_mode,
    }
    names = (
        "seeds", "originals", "changes", "effects", "null", "score_std", "permuted", "steps", "image_changes",
        "null_counts", "null_changes",
    )  # fmt: skip
    tensors = {name: tensor for name in names if (tensor := getattr(rescoring, name)) is not None}
    _save_tensors(run.path / f"{name}.safetensors", tensors, content)


def drop_rescoring(run: Run) -> None:
    """Removes a re-scoring and what was compared with it: they are of boundaries that the run has no more."""
    for path in (*run.path.glob("rescoring*.safetensors"), run.path / "responses.safetensors"):
        path.unlink(missing_ok=True)


def load_rescoring(run: Run, name: str = "rescoring") -> Rescoring:
    """The re-scoring of a run.

    Raises:
        RunError: there is none yet.
        CorruptRunError: the file is damaged.
    """
    tensors, content = _load_tensors(run.path / f"{name}.safetensors", "rescoring")
    return Rescoring(
        concepts=tuple(Concept(*entry) for entry in content["concepts"]),
        placements=tuple(Placement(name, tuple(layers)) for name, layers in content["placements"]),
        step=content["step"],
        step_mode=content.get("step_mode", "official"),
        **tensors,
    )


def save_responses(run: Run, responses: Responses) -> None:
    """Keep how scores answer to the step, whole or not at all."""
    content = {
        "kind": "responses",
        "concepts": [[c.name, c.level] for c in responses.concepts],
        "placements": [[p.name, list(p.layers)] for p in responses.placements],
    }
    names = ("steps", "mean", "low", "high", "truncated", "null_low", "null_high")
    _save_tensors(run.path / "responses.safetensors", {name: getattr(responses, name) for name in names}, content)


def load_responses(run: Run) -> Responses:
    """How scores answer to the step.

    Raises:
        RunError: it has not been measured.
        CorruptRunError: the file is damaged.
    """
    tensors, content = _load_tensors(run.path / "responses.safetensors", "responses")
    return Responses(
        concepts=tuple(Concept(*entry) for entry in content["concepts"]),
        placements=tuple(Placement(name, tuple(layers)) for name, layers in content["placements"]),
        **tensors,
    )


@dataclass(frozen=True, slots=True)
class Units:
    """Finished units of a re-scoring in a run folder: what `higan.rescoring.rescore` takes as ``checkpoint``."""

    run: Run

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.run.path / "rescoring.units"

    def load(self, key: str, unit: int) -> Mapping[str, Tensor] | None:
        """A unit that is there whole; None if it is absent or damaged, so that it is made again."""
        try:
            return _load_tensors(self._path(key, unit), "unit")[0]
        except RunError:
            return None

    def save(self, key: str, unit: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a unit, whole or not at all."""
        _save_tensors(self._path(key, unit), tensors, {"kind": "unit"})

    def remove(self) -> None:
        """All of them, once the re-scoring that they add up to is kept and written down."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str, unit: int) -> Path:
        return self.folder / key / f"unit-{unit:05d}.safetensors"


# --- files ------------------------------------------------------------------------------------------------------------


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(content)
    write_file(path, _settled(to_safetensors(plain, {_CONTENT: text, _DIGEST: _digest(plain, text)})))


def _settled(data: bytes) -> bytes:
    """The same file with its metadata in order: safetensors writes them in another order every time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def _load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise RunError(f"{path} is not there: this step of the study has not been done")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CorruptRunError(f"{path} is damaged: {error}; do this step again to replace it") from error
    text = metadata.get(_CONTENT, "")
    if metadata.get(_DIGEST) != _digest(tensors, text):
        raise CorruptRunError(f"{path} is damaged or was not written by this program; do this step again to replace it")
    content = json.loads(text)
    if content["kind"] != kind:
        raise CorruptRunError(f"{path} holds {content['kind']}, not {kind}")
    return tensors, content


def _is_ours(path: Path) -> bool:
    """Whether a file was written here, as far as its head tells: it may be damaged."""
    with path.open("rb") as file:
        if not is_safetensors(file.read(9), path.stat().st_size):
            return path.suffix == ".safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return _DIGEST in (file.metadata() or {})
    except SafetensorError:
        return True


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, since NumPy knows fewer types than torch: a file may hold any of them.
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all, and still there after the power fails; folders on the way are made.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    try:
        _make_folder(path.parent)
        write_whole(path, data, _temporary(path))
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(path: Path, error: OSError) -> RunWriteError:
    return RunWriteError(
        f"{path} cannot be written ({error.strerror or error}): what was finished is kept; make room or give leave, "
        "and the same call goes on"
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As `write_file`, for people to read.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    write_file(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _temporary(path: Path) -> Path:
    # Always the same name, so that what a killed process left behind is overwritten and not collected.
    return path.with_name(f".{path.name}.tmp")
