"""A re-scoring on several processes is the one in this process, unit for unit."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from higan import store, study
from higan.cli.models import Models
from higan.engines import InProcess, Processes, RayCluster
from higan.errors import RunMismatchError
from higan.generators.toy import ToyGenerator
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.spread import spread

GENERATOR, SCORER = ToyGenerator(), ToyScorer()
ARGUMENTS = {"num": 40, "num_random": 3, "batch_size": 8}
FIELDS = ("seeds", "originals", "changes", "effects", "null", "permuted", "score_std")


@dataclass(frozen=True)
class Fragile:
    """Opens the toys; the first worker to ask dies."""

    mark: Path

    def __call__(self, device):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Models("toy", "toy")(device)


@pytest.fixture
def run(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200, shard_size=100)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run, num_permuted=3)
    return run


def test_processes_make_the_same_units_even_if_one_dies(run, tmp_path):
    expected = rescore(GENERATOR, SCORER, store.load_boundaries(run), permuted=store.load_permuted(run), **ARGUMENTS)
    calls = []
    found = study.rescore_step(
        run,
        GENERATOR,
        SCORER,
        engine=Processes(2),
        open_models=Fragile(tmp_path / "died"),
        report=lambda *call: calls.append(call),
        **ARGUMENTS,
    )
    assert (tmp_path / "died").exists()
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name))
    # 40 originals, and 40 × (8 concepts + 3 random + 3 permuted) × (all + 6 layers + 2 stages that are not single)
    total = 40 + 40 * 14 * 9
    assert calls[-1] == ("rescore", total, total)
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)


@dataclass(frozen=True)
class Noted:
    """Opens the toys, and notes who did."""

    folder: Path

    def __call__(self, device):
        (self.folder / f"{len(list(self.folder.iterdir()))} {os.getpid()}").touch()
        return Models("toy", "toy")(device)


def kill_a_worker():
    mine = psutil.Process().children(recursive=True)
    workers = {process.pid for process in multiprocessing.active_children()}
    workers |= {process.pid for process in mine if any(word.startswith("ray::_Worker") for word in process.cmdline())}
    assert len(workers) == 2
    os.kill(min(workers), signal.SIGKILL)


@pytest.mark.parametrize("engine", [Processes(2), RayCluster(2)], ids=["processes", "ray"])
def test_adaptive_looks_are_the_same_on_workers_even_if_one_dies(run, tmp_path, engine):
    shutil.copytree(run.path, tmp_path / "here")
    here, goal, settings = store.load_run(tmp_path / "here"), study.Goal(top=2), {"num": 128, "num_random": 5}
    study.rescore_step(here, GENERATOR, SCORER, adaptive=goal, **settings)
    opened = tmp_path / "opened"
    opened.mkdir()
    calls = []

    def report(*call):
        # The originals are there, and a piece of the first look.
        if call[1] > 200 and calls[-1][1] <= 200:
            kill_a_worker()
        calls.append(call)

    study.rescore_step(
        run,
        GENERATOR,
        SCORER,
        adaptive=goal,
        engine=engine,
        open_models=Noted(opened) if isinstance(engine, Processes) else Models("toy", "toy"),
        report=report,
        **settings,
    )
    files = [folder.path / "rescoring.safetensors" for folder in (here, run)]
    assert files[0].read_bytes() == files[1].read_bytes()
    outcome = study.steps_of(run)["rescore"]["outcome"]
    assert outcome == study.steps_of(here)["rescore"]["outcome"]
    assert calls[-1][1] == outcome["images"] > 128 + 16 * 15 * 9  # there was a second look
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)
    if isinstance(engine, Processes):
        # Two workers and one in the place of the dead: models stay from look to look.
        assert len(list(opened.iterdir())) == 3


def test_only_missing_units_are_made(run):
    boundaries, units = store.load_boundaries(run), store.Units(run)
    rescore(GENERATOR, SCORER, boundaries, checkpoint=units, **ARGUMENTS)
    files = sorted(units.folder.rglob("*.safetensors"))
    assert len(files) == 5
    before = [file.read_bytes() for file in files]
    files[3].unlink()
    files[1].write_bytes(b"")
    calls = []
    spread(
        GENERATOR,
        SCORER,
        boundaries,
        open_models=lambda device: (GENERATOR, SCORER),
        engine=InProcess(),
        checkpoint=units,
        progress=lambda done, total: calls.append((done, total)),
        **ARGUMENTS,
    )
    assert [file.read_bytes() for file in files] == before
    assert calls[0][0] > 3 * 8 * 100 // 2
    assert calls[-1] == (40 + 40 * 11 * 9, 40 + 40 * 11 * 9)


def test_workers_with_other_models_are_refused(run):
    other = ToyGenerator()
    other.name = "another"
    with pytest.raises(RunMismatchError, match="other models"):
        spread(
            GENERATOR,
            SCORER,
            store.load_boundaries(run),
            open_models=lambda device: (other, SCORER),
            engine=InProcess(),
            checkpoint=store.Units(run),
            **ARGUMENTS,
        )
    with pytest.raises(ValueError, match="pass open_models="):
        study.rescore_step(run, GENERATOR, SCORER, engine=Processes(1), **ARGUMENTS)
