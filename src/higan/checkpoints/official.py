"""Files of the official HiGAN tool: published directions, boundary lists, latent codes and scores.

========================  ==========================================================================================
``NAME_boundary.npy``     a direction: a bare array (1, D) or (1, L, D), or a pickled dict that adds advice on layers
``boundary_list.txt``     lines ``(name, space): path``
``z.npy``, ``w.npy``      latent codes (n, D), untruncated; ``wp.npy`` (n, L, D), truncated
``attribute.npy``         a pickled dict of scores (n, C) and their names; ``category.npy`` likewise
========================  ==========================================================================================

Nothing is unpickled, and nothing is pickled with objects in it: what is written is the same plain data.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from higan.checkpoints import npy
from higan.checkpoints.pickles import Data
from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.filenames import file_name, named_by_file
from higan.files import write_whole
from higan.types import LEVELS, Boundary, Concept, Level, Population, Scorer

__all__ = [
    "Direction",
    "ListedBoundary",
    "OfficialRun",
    "Scores",
    "Space",
    "export_official",
    "import_official",
    "named_by",
    "read_boundary",
    "read_boundary_list",
    "read_codes",
    "read_scores",
    "write_boundary",
    "write_boundary_list",
    "write_scores",
]

Space = Literal["z", "w", "wp"]

_SUFFIX = "_boundary"
_WRITTEN = ("w.npy", "wp.npy", "z.npy", "attribute.npy", "category.npy", f"*{_SUFFIX}.npy", "boundary_list.txt")
_UNLISTED = ",()"
"""What names in a boundary list must be free of, besides what files must."""
_LINE = re.compile(r"\(\s*(?P<name>[^,()]+?)\s*,\s*(?P<space>\w+)\s*\)\s*:\s*(?P<path>\S.*)")
_LEVEL_FILES: Mapping[str, Level] = {"attribute.npy": "attribute", "category.npy": "object"}


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A direction of the official tool: the boundary, and the layers its authors advise (``"6-11"``), if any.

    The advice is a default that any caller may override. The tool threw the bias of its boundaries away, so it is 0
    here, and did not store the accuracy, so it is NaN.
    """

    boundary: Boundary
    layers: str | None


@dataclass(frozen=True, slots=True)
class ListedBoundary:
    """One line of a boundary list."""

    name: str
    space: Space
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of n samples for C concepts, by the names of the official tool."""

    values: Float[Tensor, "n C"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OfficialRun:
    """What a folder of the official tool holds."""

    population: Population
    directions: tuple[Direction, ...]


# ---- directions ---------------------------------------------------------------------------------------------------


def read_boundary(path: str | Path, concept: Concept | None = None) -> Direction:
    """A direction in either form that the official tool published.

    Args:
        path: the ``.npy`` file.
        concept: what the direction changes; by default named after the file (``wood_boundary.npy``: ``wood``), with
            the level that the file gives, or ``attribute``; see `higan.filenames`.

    Returns:
        The direction, its normal (D,) of unit length, or (L, D) if the file has one per layer, the longest of unit
        length.

    Raises:
        MissingWeightsError: there is no such file.
        CheckpointError: it is not a direction, damaged, or asks for code to be run.
    """
    path = Path(path)
    value: Data = npy.read(path)
    advice: Data = {}
    if isinstance(value, dict):
        advice = value.get("meta_data", {})
        value = value.get("boundary")
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not isinstance(advice, dict):
        raise UnknownFormatError(f"{path} is not a direction; expected an array (1, D) or (1, L, D) of numbers")
    normal = torch.from_numpy(np.array(value, dtype=np.float64))
    if normal.ndim in (2, 3) and normal.shape[0] == 1:
        normal = normal[0]
    if normal.ndim not in (1, 2) or normal.numel() == 0:
        raise UnknownFormatError(f"{path} has shape {value.shape}; a direction has shape (1, D) or (1, L, D)")
    length = normal.norm(dim=-1).max()
    if not torch.isfinite(length) or not length > 0:
        raise CorruptFileError(f"{path} has a direction of length zero or without bound")
    if concept is None:
        level = advice.get("type")
        name = _meant(path.stem.removesuffix(_SUFFIX) or path.stem)
        concept = Concept(name, level if level in LEVELS else "attribute")
    layers = advice.get("manipulate_layers")
    unit = (normal / length).float()  # layers that it says little of stay short, those that it says nothing of zero
    boundary = Boundary(concept, unit, torch.zeros(unit.shape[:-1]), holdout_accuracy=math.nan)
    return Direction(boundary, layers if isinstance(layers, str) and layers else None)


def write_boundary(path: str | Path, boundary: Boundary, layers: str | None = None) -> None:
    """Write a direction for the official tool: with advice on layers the pickled form, else the bare one.

    The tool has no place for the bias and the accuracy; they are not written.
    """
    normal = boundary.normal.detach().cpu().double().numpy()[None]
    if layers is None:
        npy.write(path, normal.astype(np.float32))
    else:
        advice = {"type": boundary.concept.level, "manipulate_layers": layers}
        npy.write_dict(path, {"boundary": normal, "meta_data": advice})


# ---- boundary lists -----------------------------------------------------------------------------------------------


def read_boundary_list(path: str | Path) -> tuple[ListedBoundary, ...]:
    """The boundaries in a list, one per line: ``(name, space): path``, space z, w or wp.

    Lines that start with ``DISABLE`` or ``#`` and blank lines are skipped. A relative path is taken from the working
    directory, as the official tool does, or from the list's own folder if there is no such file.

    Raises:
        MissingWeightsError: there is no such list.
        CorruptFileError: a line has another form.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such boundary list")
    found = []
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith(("#", "DISABLE")):
            continue
        match = _LINE.fullmatch(text)
        space = match["space"].lower() if match else ""
        if match is None or space not in get_args(Space):
            raise CorruptFileError(
                f"{path}, line {number}: expected '(name, space): path' with space z, w or wp; got {text[:100]!r}"
            )
        target = Path(match["path"])
        beside = path.parent / target
        use = beside if not os.path.isfile(target) and os.path.isfile(beside) else target  # noqa: PTH113 - never raises
        found.append(ListedBoundary(match["name"], _space(space), use))
    return tuple(found)


def write_boundary_list(path: str | Path, entries: Iterable[ListedBoundary]) -> None:
    """Write a list that the official tool reads.

    Raises:
        ValueError: a name or path holds a character that its parser cannot take.
    """
    lines = []
    for entry in entries:
        target = entry.path.as_posix()
        if re.search(r"[,():\n\r]", entry.name) or re.search(r"[:\n\r]", target):
            raise ValueError(
                f"the official tool cannot read the line for {entry.name!r}, {target!r}: names must be free of ',():', "
                "paths of ':' (write the list from within the folder, with relative paths)"
            )
        lines.append(f"({entry.name}, {entry.space}): {target}\n")
    write_whole(path, "".join(lines).encode())


def _space(text: str) -> Space:
    for space in get_args(Space):
        if text == space:
            return space
    raise ValueError(f"space must be z, w or wp; got {text!r}")


# ---- codes and scores ---------------------------------------------------------------------------------------------


def read_codes(path: str | Path) -> Float[Tensor, "n *l D"]:
    """Latent codes: (n, D) from ``z.npy`` and ``w.npy``, (n, L, D) from ``wp.npy`` (truncated codes).

    Raises:
        MissingWeightsError: there is no such file.
        CheckpointError: it does not hold codes.
    """
    value = npy.read(path)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim not in (2, 3):
        raise UnknownFormatError(f"{path} does not hold codes; expected an array (n, D) or (n, L, D)")
    return torch.from_numpy(np.array(value, dtype=np.float32))


def read_scores(path: str | Path) -> Scores:
    """Scores as in ``attribute.npy`` and ``category.npy``.

    Raises:
        MissingWeightsError: there is no such file.
        CheckpointError: it does not hold scores with their names.
    """
    value = npy.read(path)
    if not isinstance(value, dict) or not isinstance(value.get("score"), np.ndarray):
        raise UnknownFormatError(f"{path} does not hold scores; expected a dict with 'score' and 'idx_to_name'")
    scores, names = value["score"], value.get("idx_to_name")
    if isinstance(names, dict):
        names = [names.get(index) for index in range(len(names))]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise CorruptFileError(f"{path} does not name its scores one by one in 'idx_to_name'")
    if scores.dtype.kind != "f" or scores.ndim != 2 or scores.shape[1] != len(names):
        raise CorruptFileError(f"{path} has scores of shape {scores.shape} and {len(names)} names")
    return Scores(torch.from_numpy(np.array(scores, dtype=np.float32)), tuple(names))


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write scores in the form of ``attribute.npy`` and ``category.npy``."""
    index = {name: position for position, name in enumerate(scores.names)}
    values = scores.values.detach().cpu().float().numpy()
    names = dict(enumerate(scores.names))
    npy.write_dict(path, {"score": values, "name_to_idx": index, "idx_to_name": names})


# ---- whole folders ------------------------------------------------------------------------------------------------


def import_official(folder: str | Path, num_layers: int | None = None) -> OfficialRun:
    """What the official ``synthesize.py`` and ``train_boundary.py`` left in a folder.

    Codes are taken from ``w.npy``, or ``z.npy`` if there is none; ``wp.npy`` holds truncated codes and only tells the
    number of layers. Attributes come first among the concepts (level ``attribute``), then categories (``object``). An
    attribute that is a category as well, ``ocean``, is called ``ocean_attribute``, as by `PlacesScorer`; a bare
    direction of that name is the attribute's.
    The tool did not seed its samples: ``seeds`` are row numbers, good for telling samples apart, not for drawing them
    again.

    Args:
        folder: must hold codes, and ``attribute.npy`` or ``category.npy`` or both.
        num_layers: L, needed where the folder has no ``wp.npy``.

    Raises:
        ValueError: L is neither given nor to be found, or contradicts ``wp.npy``.
        MissingWeightsError: codes or scores are missing.
        CheckpointError: a file is damaged, or its samples are not those of the others.
    """
    folder = Path(folder)
    code_files = [folder / name for name in ("w.npy", "z.npy") if (folder / name).is_file()]
    score_files = [folder / name for name in _LEVEL_FILES if (folder / name).is_file()]
    if not code_files or not score_files:
        raise MissingWeightsError(f"{folder}: expected w.npy or z.npy, and attribute.npy or category.npy")
    codes = read_codes(code_files[0])
    if codes.ndim != 2:
        raise CorruptFileError(f"{code_files[0]} has shape {tuple(codes.shape)}; expected (n, D)")
    scores, listed = [], []
    for path in score_files:
        part = read_scores(path)
        if len(part.values) != len(codes):
            raise CorruptFileError(f"{path} scores {len(part.values):,} samples, {code_files[0]} has {len(codes):,}")
        scores.append(part.values)
        listed += [Concept(_meant(name), _LEVEL_FILES[path.name]) for name in part.names]
    concepts = _told_apart(listed)
    population = Population(
        seeds=torch.arange(len(codes)),
        codes=codes[:, None],
        scores=torch.cat(scores, dim=1),
        concepts=concepts,
        num_layers=_num_layers(folder, num_layers),
    )
    paths = sorted(folder.glob(f"*{_SUFFIX}.npy"))
    return OfficialRun(population, tuple(_direction(path, listed, concepts) for path in paths))


def named_by(scorer: Scorer, found: OfficialRun) -> OfficialRun:
    """The same with the concepts as a scorer knows them, where only blanks and slashes differ, or the level.

    Raises:
        ValueError: there is a boundary of a concept that the scorer does not know, so that it cannot be re-scored.
    """
    known = {official_name(concept.name): concept for concept in scorer.concepts}

    def own(concept: Concept) -> Concept:
        return known.get(official_name(concept.name), concept)

    unknown = [d.boundary.concept.name for d in found.directions if own(d.boundary.concept) not in scorer.concepts]
    if unknown:
        raise ValueError(
            f"scorer {scorer.name!r} does not know {', '.join(unknown[:5])}, of which there are boundaries; it knows "
            f"{', '.join(list(known)[:10])} …"
        )
    population = found.population
    return OfficialRun(
        replace(population, concepts=tuple(map(own, population.concepts))),
        tuple(replace(d, boundary=replace(d.boundary, concept=own(d.boundary.concept))) for d in found.directions),
    )


def _told_apart(listed: Sequence[Concept]) -> tuple[Concept, ...]:
    """The concepts, an attribute called otherwise where a category has its name: names tell the scores of a run."""
    categories = {concept.name for concept in listed if concept.level == "object"}
    return tuple(
        Concept(f"{concept.name}_attribute", concept.level)
        if concept.level == "attribute" and concept.name in categories
        else concept
        for concept in listed
    )


def _direction(path: Path, listed: Sequence[Concept], concepts: Sequence[Concept]) -> Direction:
    """A direction of one of the concepts, found by its ``listed`` name, and by its level where two have that name."""
    found = read_boundary(path)
    own = found.boundary.concept
    same = [k for k, concept in enumerate(listed) if concept.name == own.name]
    if not same:
        return found
    chosen = next((k for k in same if listed[k].level == own.level), same[0])
    return replace(found, boundary=replace(found.boundary, concept=concepts[chosen]))


def export_official(
    folder: str | Path,
    population: Population,
    boundaries: Sequence[Boundary] = (),
    layers: Mapping[str, str] | None = None,
    space: Space = "w",
) -> tuple[Path, ...]:
    """Write a population and boundaries so that the official tool can go on with them.

    Concepts of level ``object`` go to ``category.npy``, all others to ``attribute.npy``: its re-scoring accepts those
    only. Blanks and slashes in names become underscores, as in the tool's own names; other characters that no file can
    have on some systems, nor its lists anywhere, are coded, and decoded by `import_official`.

    Args:
        folder: made if it does not exist; if the disk fills up, nothing is left in it.
        population: its codes must be shared by all layers; the tool keeps layer-wise codes truncated.
        boundaries: written as ``NAME_boundary.npy`` and listed in ``boundary_list.txt``.
        layers: advice on layers, by concept name, in the syntax ``0,3-5``.
        space: what to call the codes' space.

    Returns:
        The files written.

    Raises:
        ValueError: codes differ between layers, two concepts get the same name, or the folder holds such files already:
            those that are not written over would be of another run.
    """
    folder = Path(folder)
    there = sorted(p.name for pattern in _WRITTEN for p in folder.glob(pattern))
    if there:
        raise ValueError(f"{folder} holds {', '.join(there[:3])} already; choose another folder, or delete it first")
    if population.codes.shape[1] != 1:
        raise ValueError(
            f"codes have {population.codes.shape[1]} rows per sample; the official tool takes untruncated codes only "
            "where all layers share one"
        )
    check_names(boundary.concept.name for boundary in boundaries)
    tables = {file: _scores_for(file, population) for file in _LEVEL_FILES}
    written = [f"{space}.npy"]
    with _filling(folder) as partial:
        npy.write(partial / written[0], population.codes[:, 0].detach().cpu().float().numpy())
        for file, table in tables.items():
            if table.names:
                write_scores(partial / file, table)
                written.append(file)
        listed = []
        for boundary in boundaries:
            name = official_name(boundary.concept.name)
            written.append(f"{name}{_SUFFIX}.npy")
            write_boundary(partial / written[-1], boundary, (layers or {}).get(boundary.concept.name))
            listed.append(ListedBoundary(name, "wp" if boundary.normal.ndim == 2 else space, Path(written[-1])))
        if listed:
            write_boundary_list(partial / "boundary_list.txt", listed)
            written.append("boundary_list.txt")
    return tuple(folder / name for name in written)


@contextlib.contextmanager
def _filling(folder: Path) -> Iterator[Path]:
    """A folder to write to; its files are put into ``folder`` when the body ends, and go if it fails.

    Half an export would be in the way of the next.
    """
    there, name = folder.exists(), f".{folder.name}.{os.getpid()}.partial"
    partial = folder / name if there else folder.with_name(name)
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if there:
            for file in partial.iterdir():
                file.replace(folder / file.name)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _scores_for(file: str, population: Population) -> Scores:
    """The columns that go to one file; none where no concept has its level.

    Raises:
        ValueError: two concepts get the same name.
    """
    columns = [i for i, concept in enumerate(population.concepts) if _file_of(concept) == file]
    names = tuple(official_name(population.concepts[column].name) for column in columns)
    if len(set(names)) < len(names):
        raise ValueError(f"two concepts get the same name in {file}: {', '.join(sorted(names))}")
    return Scores(population.scores[:, columns], names)


def _file_of(concept: Concept) -> str:
    return "category.npy" if concept.level == "object" else "attribute.npy"


def official_name(name: str) -> str:
    """A concept's name as it stands in the tool's files and in their names."""
    return file_name(name.replace("/", "__").replace(" ", "_"), also=_UNLISTED)


def _meant(official: str) -> str:
    """The name that `official_name` coded; its blanks and slashes are not to be known again."""
    return named_by_file(official, also=_UNLISTED)


def check_names(names: Iterable[str]) -> None:
    """Refuse concepts whose directions would be written over one another.

    Raises:
        ValueError: two have the same name, or get the same in the tool's files, on systems too that take a for A.
    """
    called: dict[str, list[str]] = {}
    for name in names:
        called.setdefault(official_name(name).casefold(), []).append(name)
    if twice := [" and ".join(map(repr, several)) for several in called.values() if len(several) > 1]:
        raise ValueError(f"directions need names that differ as names of files do; alike are {'; '.join(twice)}")


def _num_layers(folder: Path, given: int | None) -> int:
    if given is not None and given < 1:
        raise ValueError(f"the number of layers must be at least 1; got {given}")
    path = folder / "wp.npy"
    found = read_codes(path).shape[1] if path.is_file() else given
    if found is None:
        raise ValueError(
            f"{folder} has no wp.npy to tell the number of layers; give it, as num_layers or with --num-layers (14 at "
            "256 pixels)"
        )
    if given is not None and given != found:
        raise ValueError(f"the number of layers is given as {given}, but {path} has {found}")
    return found
