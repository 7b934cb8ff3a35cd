"""What is made of a population: boundaries, re-scorings, responses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from higan.checkpoints.official import read_boundary
from higan.errors import CorruptRunError, RunError
from higan.store.files import is_ours, load_tensors, save_tensors
from higan.store.run import Run
from higan.types import Boundary, Concept, Placement, Rescoring, Responses

__all__ = [
    "Units",
    "drop_boundaries",
    "drop_rescoring",
    "load_boundaries",
    "load_boundary",
    "load_permuted",
    "load_rescoring",
    "load_responses",
    "save_boundaries",
    "save_boundary",
    "save_permuted",
    "save_rescoring",
    "save_responses",
]


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


def drop_boundaries(run: Run) -> None:
    """Removes the boundaries of a run, and those fitted to permuted scores, which go with them."""
    for name in ("boundaries", "permuted"):
        (run.path / f"{name}.safetensors").unlink(missing_ok=True)


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
    if path.is_file() and not is_ours(path):
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
    save_tensors(path, tensors, content)


def _load_boundaries(path: Path) -> tuple[Boundary, ...]:
    tensors, content = load_tensors(path, "boundaries")
    concepts, accuracies, counts = content["concepts"], content["holdout_accuracy"], content["num_train"]
    unknown = [math.nan] * len(concepts)
    stabilities, stds = content.get("stability", unknown), content.get("score_std", unknown)
    return tuple(
        Boundary(Concept(*concept), tensors["normals"][k], tensors["biases"][k], *figures)
        for k, (concept, *figures) in enumerate(zip(concepts, accuracies, counts, stabilities, stds, strict=True))
    )


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
    save_tensors(run.path / f"{name}.safetensors", tensors, content)


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
    tensors, content = load_tensors(run.path / f"{name}.safetensors", "rescoring")
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
    save_tensors(run.path / "responses.safetensors", {name: getattr(responses, name) for name in names}, content)


def load_responses(run: Run) -> Responses:
    """How scores answer to the step.

    Raises:
        RunError: it has not been measured.
        CorruptRunError: the file is damaged.
    """
    tensors, content = load_tensors(run.path / "responses.safetensors", "responses")
    return Responses(
        concepts=tuple(Concept(*entry) for entry in content["concepts"]),
        placements=tuple(Placement(name, tuple(layers)) for name, layers in content["placements"]),
        **tensors,
    )


@dataclass(frozen=True, slots=True)
class Units:
    """Finished units of a re-scoring in a run folder: what `higan.rescoring.rescore` takes as ``checkpoint``.

    ``used`` are the keys that were asked for: those of other re-scorings, which may go on, are left alone.
    """

    run: Run
    used: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.run.path / "rescoring.units"

    def load(self, key: str, unit: int) -> Mapping[str, Tensor] | None:
        """A unit that is there whole; None if it is absent or damaged, so that it is made again."""
        try:
            return load_tensors(self._path(key, unit), "unit")[0]
        except RunError:
            return None

    def save(self, key: str, unit: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep a unit, whole or not at all."""
        save_tensors(self._path(key, unit), tensors, {"kind": "unit"})

    def remove(self) -> None:
        """Those of this re-scoring, once what they add up to is kept and written down."""
        for key in self.used:
            shutil.rmtree(self.folder / key, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()  # if it is empty

    def clear(self) -> None:
        """All of them: they are of boundaries that the run has no more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str, unit: int) -> Path:
        self.used.add(key)
        return self.folder / key / f"unit-{unit:05d}.safetensors"
