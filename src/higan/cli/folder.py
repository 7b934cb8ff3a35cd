"""A folder of edited pictures, of the originals under the same names, and a table of what both score."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from higan.cli.outputs import picture_name, room_for
from higan.export import read_picture, read_recipe, save_picture
from higan.files import write_whole
from higan.population import score
from higan.study import Report
from higan.workbench import OutOfReachError, Series, Workbench, in_series

__all__ = ["Folder", "Start", "check_alone", "folder_of", "starts_of"]

# Apart from each other: tools that take a folder for a set of pictures look at all that is in it.
_ORIGINAL, _EDITED = "original", "edited"
_WHEN = {_ORIGINAL: "before", _EDITED: "after"}
_SCORES = "scores.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A sample by its seed or its code, and what its pictures are called."""

    name: str
    seed: int | None = None
    code: Float[Tensor, "L D"] | None = None


def starts_of(seeds: Sequence[int], codes: Float[Tensor, "n L D"] | None = None) -> list[Start]:
    """Samples of seeds, each once, or of the codes of a file, by their places in it."""
    if codes is None:
        return [Start(picture_name("seed", seed), seed=seed) for seed in dict.fromkeys(seeds)]
    return [Start(picture_name("code", k), code=code) for k, code in enumerate(codes)]


def check_alone(path: Path) -> None:
    """Before the work: what is there are pictures and their table, not a run, nor a table of somebody's own.

    Raises:
        ValueError: there is something else.
    """
    there = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} if path.exists() else set()
    others = sorted(there - {*_WHEN, _SCORES}) or sorted(there if there == {_SCORES} else ())
    if others:
        raise ValueError(f"{path} holds {others[0]}, which is no part of a folder of edits; choose another folder")


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """What samples are drawn as, by the names of the folders within; see `folder_of`."""

    path: Path
    bench: Workbench
    versions: dict[str, Series]

    def check(self, starts: Sequence[Start]) -> None:
        """Before the work: what is there is of this very line, so that it can be kept, and told of in the table.

        Raises:
            ValueError: there are pictures of other samples, edits or models.
            UnknownFormatError, CorruptFileError: a picture of this name has no recipe, or is damaged.
        """
        known = {start.name: start for start in starts}
        for version in _WHEN:
            for path in sorted((self.path / version).glob("*.png")):
                start = known.get(path.name)
                if start is None or version not in self.versions:
                    raise ValueError(
                        f"{path} is none of the pictures asked for; name its sample too (what is there is not drawn "
                        "again), or choose another folder"
                    )
                if not self.versions[version].made(read_recipe(path), seed=start.seed, code=start.code):
                    raise ValueError(
                        f"{path} was made from something else, by other edits or with other models; choose another "
                        "folder"
                    )

    def fill(self, starts: Sequence[Start], report: Report) -> dict[str, OutOfReachError]:
        """Pictures that are not there yet, one by one, then the table of all; by name, what leaves samples out.

        A sample's row depends on its own pictures alone: those that are there are scored again, not drawn.

        Raises:
            OutOfReachError: no sample's score gets to where it shall.
            GeneratorError, ScorerError: see `higan.population.render` and `score`.
        """
        rows: list[list[str]] = []
        short: dict[str, OutOfReachError] = {}
        for done, start in enumerate(starts, 1):
            try:
                rows.append(self._row(start))
            except OutOfReachError as error:
                short[start.name] = error
            report("Editing", done, len(starts))
        if not rows:
            raise next(iter(short.values()))
        write_whole(self.path / _SCORES, self._table(rows).encode())
        return short

    def _row(self, start: Start) -> list[str]:
        # What is edited comes first, since it may be out of reach: no original is left alone.
        images = [self._picture(version, start) for version in reversed(self.versions)]
        scores = [_scores(self.bench, image) for image in reversed(images)]
        cells = [f"{value:.9g}" for concept in zip(*scores, strict=True) for value in concept]
        return [start.name, "" if start.seed is None else str(start.seed), *cells]

    def _picture(self, version: str, start: Start) -> UInt8[Tensor, "3 H W"]:
        path = self.path / version / start.name
        if path.exists():
            return read_picture(path)[0]
        made = self.versions[version].edit(seed=start.seed, code=start.code)
        save_picture(room_for(path), made.image, made.recipe)
        return made.image

    def _table(self, rows: Sequence[Sequence[str]]) -> str:
        concepts = () if self.bench.scorer is None else self.bench.scorer.concepts
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [f"{concept.name} {_WHEN[version]}" for concept in concepts for version in self.versions]
        writer.writerow(["name", "seed", *columns])
        writer.writerows(rows)
        return text.getvalue()


def folder_of(path: Path, bench: Workbench, edits: Sequence[str], *, conditions: Sequence[str] = ()) -> Folder:
    """A folder for ``original/`` and ``edited/``, of which there is no second without edits, and ``scores.csv``.

    Amounts are looked for here, once for all samples.

    Raises:
        ValueError: as for `higan.workbench.in_series`.
    """
    edited = {_EDITED: in_series(bench, edits, conditions=conditions)} if edits else {}
    return Folder(path, bench, {_ORIGINAL: in_series(bench, []), **edited})


def _scores(bench: Workbench, image: UInt8[Tensor, "3 H W"]) -> list[float]:
    """Of every concept of the scorer, in its units; none without a scorer."""
    if bench.scorer is None:
        return []
    return score(bench.scorer, image[None].to(bench.generator.device))[0].tolist()
