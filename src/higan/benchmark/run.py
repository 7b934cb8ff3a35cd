"""Runs every method in every setting, one small file per finished cell, so that an interrupted benchmark goes on."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from higan.benchmark.methods import METHODS, Lab, Method, usable
from higan.benchmark.tasks import TASKS, Record, calls, grade, spread
from higan.benchmark.truth import Truth
from higan.errors import CorruptRunError, RunMismatchError
from higan.layers import groups, placements
from higan.population import render, sample, score
from higan.types import Generator, Scorer

__all__ = ["Budget", "Results", "Row", "Setting", "World", "estimate", "run_benchmark", "unfinished"]

Report = Callable[[str, int, int], None]
"""Called with the name of what is under way, cells done and cells in total."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much every method may look at: N samples to probe, K to move, R random directions for a null."""

    num: int = 2000
    verify: int = 32
    num_random: int = 20

    def __post_init__(self) -> None:
        for name, value, least in (
            ("num", self.num, 20),
            ("verify", self.verify, 2),
            ("num_random", self.num_random, 3),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")


@dataclass(frozen=True, slots=True)
class World:
    """What methods see."""

    generator: Generator
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Setting:
    """A world to be tried with several seeds: ``open`` makes it for one seed, ``tell`` says the truth about it.

    ``judged`` is the number of images that the judge draws for the truth and for one edit, zeros where it draws none.
    ``identity`` is what else the numbers depend on, such as digests of weights.
    """

    name: str
    title: str
    exact: bool
    seeds: tuple[int, ...]
    open: Callable[[int], World]
    tell: Callable[[World, int], Truth]
    budget: Budget
    identity: Mapping[str, Any] = field(default_factory=dict)
    judged: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError(f"the setting {self.name!r} needs at least one seed; got none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"the setting {self.name!r} must have different seeds; got {', '.join(map(str, self.seeds))}"
            )
        if not self.name or set(self.name) & set("/\\\0"):
            raise ValueError(f"a setting's name begins those of its files, and takes no slashes; got {self.name!r}")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of the table."""

    setting: str
    method: str
    task: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Results:
    """All figures; ``alarms`` has false alarms and hits at 5 % of the methods that give p-values, per setting."""

    settings: tuple[Setting, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    alarms: Mapping[tuple[str, str], tuple[float, float]]
    seconds: float

    def figure(self, setting: str, method: str, task: str) -> Row | None:
        """One figure, or None where the method cannot be used in the setting."""
        for row in self.rows:
            if (row.setting, row.method, row.task) == (setting, method, task):
                return row
        return None


def run_benchmark(
    out: str | Path,
    settings: Sequence[Setting],
    *,
    methods: Mapping[str, Method] = METHODS,
    report: Report | None = None,
) -> Results:
    """Try every method in every setting and sum up.

    A cell is one method in one setting with one seed. Finished cells are read from ``out/cells``, where their names
    hold digests of budget, weights and versions, and of the method's source; what a method calls is not looked at.
    Killed at any moment and called again, the results are the same.

    Args:
        out: the folder.
        settings: worlds.
        methods: by name.
        report: called when a cell begins and after every cell.

    Raises:
        ValueError: no settings or methods, none that can be used, two settings of one name, a truth without a real
            concept, or a method whose answer does not fit.
        CorruptRunError: a finished cell cannot be read.
        RunMismatchError: the folder is one of a run.
    """
    if not settings or not methods:
        raise ValueError(f"a benchmark needs settings and methods; got {len(settings)} and {len(methods)}")
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise ValueError(f"settings must have different names; got {', '.join(names)}")
    start = time.monotonic()
    if (Path(out) / "manifest.json").exists():
        raise RunMismatchError(f"{out} is the folder of a run; choose another for the benchmark")
    cells = Path(out) / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    records: dict[tuple[str, str], list[Record]] = {}
    for setting, name, record in _records(cells, settings, methods, report):
        if record.real:
            records.setdefault((setting, name), []).append(record)
    if not records:
        raise ValueError(f"none of the methods can be used with the generators of these settings: {', '.join(methods)}")
    rows = [
        Row(setting, method, task.name, *spread(found, task.measure))
        for (setting, method), found in records.items()
        for task in TASKS.values()
    ]
    return Results(tuple(settings), tuple(methods), tuple(rows), _alarms(records), time.monotonic() - start)


def _records(
    cells: Path, settings: Sequence[Setting], methods: Mapping[str, Method], report: Report | None
) -> Iterator[tuple[str, str, Record]]:
    """Setting, method and record of every cell, read where it is finished, else made and written."""
    total = sum(len(setting.seeds) * len(methods) for setting in settings)
    done = 0

    def tell(what: str) -> None:
        if report is not None:
            report(what, done, total)

    for setting in settings:
        for seed in setting.seeds:
            bench = _Bench(setting, seed)
            for name, method in methods.items():
                what = f"{setting.title}, seed {seed}: {name}"
                path = _cell(cells, setting, seed, name, method)
                record = _read(path)
                if record is None:
                    tell(what)
                    record = bench.solve(name, method)
                    _write(path, json.dumps(record.as_json()))
                done += 1
                tell(what)
                yield setting.name, name, record


def _alarms(records: Mapping[tuple[str, str], Sequence[Record]]) -> dict[tuple[str, str], tuple[float, float]]:
    """False alarms and hits, averaged over seeds, where p-values were given."""
    alarms = {}
    for key, found in records.items():
        pairs = [pair for pair in map(calls, found) if pair is not None]
        if pairs:
            alarms[key] = (sum(p[0] for p in pairs) / len(pairs), sum(p[1] for p in pairs) / len(pairs))
    return alarms


class _Bench:
    """One setting with one seed; world and truth are made when the first cell needs them."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.seed = seed

    @cached_property
    def world(self) -> World:
        return self.setting.open(self.seed)

    @cached_property
    def truth(self) -> Truth:
        truth = self.setting.tell(self.world, self.seed)
        if not bool(truth.real.any()):
            names = ", ".join(concept.name for concept in self.world.scorer.concepts)
            raise ValueError(
                f"the truth of the setting {self.setting.name!r} knows a cause of none of its concepts ({names}): "
                "name at least one as the truth does"
            )
        return truth

    @cached_property
    def lab(self) -> Lab:
        return Lab(self.world.generator, self.world.scorer, **asdict(self.setting.budget), seed=self.seed)

    def solve(self, name: str, method: Method) -> Record:
        """An empty record where the method cannot be used with this generator."""
        if name not in usable({name: method}, self.world.generator):
            return Record([], [], [], [], [], [], [], [], None)
        truth = self.truth  # What is wrong with it is told before a method is paid for.
        # As short in memory as in the file, so that a cell says the same when it is read again.
        return grade(method(self.lab), truth, self.world.scorer.concepts).rounded()


def unfinished(out: str | Path, setting: Setting, methods: Mapping[str, Method] = METHODS) -> tuple[int, ...]:
    """Seeds of a setting with which not every method has been tried in this folder."""
    cells = Path(out) / "cells"
    return tuple(
        seed
        for seed in setting.seeds
        if not all(_cell(cells, setting, seed, name, method).exists() for name, method in methods.items())
    )


def estimate(setting: Setting, num_methods: int = len(METHODS)) -> tuple[int, float]:
    """Images that a setting will take with all its seeds, about, and the seconds for them, from one timed batch."""
    world, budget = setting.open(setting.seeds[0]), setting.budget
    generator, scorer = world.generator, world.scorer
    C, L = len(scorer.concepts), generator.num_layers
    score(scorer, render(generator, sample(generator, range(64))))  # the first batch pays for set-up
    start = time.perf_counter()
    score(scorer, render(generator, sample(generator, range(64))))
    per_image = (time.perf_counter() - start) / 64
    studied = 2 * budget.verify * (1 + (C + budget.num_random) * len({p.layers for p in placements(L)}))
    named = 3 * budget.verify * (2 + 16 * (1 + len(groups(L))) + (C + 1) * (L + 1))
    judged = setting.judged[0] + setting.judged[1] * C * num_methods
    images = (budget.num + studied + named + judged) * len(setting.seeds)
    return images, images * per_image


# --- the folder -------------------------------------------------------------------------------------------------------


def _cell(cells: Path, setting: Setting, seed: int, name: str, method: Method) -> Path:
    return cells / f"{setting.name}-{_key(setting)}-{seed}-{_slug(name, method)}.json"


def _key(setting: Setting) -> str:
    """A digest of all that a setting's numbers depend on, so that cells of different ones never mix."""
    parts = {"budget": asdict(setting.budget), "identity": dict(setting.identity), "torch": torch.__version__}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def _slug(name: str, method: Method) -> str:
    """Readable, and another one for every name and for a method that is written otherwise."""
    try:
        written = inspect.getsource(method)
    except (OSError, TypeError):  # typed in, or no function
        written = ""
    digest = hashlib.sha256(f"{name}\n{written}".encode()).hexdigest()[:6]
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{digest}"


def _read(path: Path) -> Record | None:
    if not path.exists():
        return None
    try:
        return Record(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise CorruptRunError(f"{path} is damaged: {error}; delete it and run the same line again") from error


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
