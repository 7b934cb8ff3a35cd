"""Engines with jobs whose answers are known by hand, and whole runs on them that are killed where it hurts."""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from higan import population, store, study
from higan.cli.models import Models
from higan.engines import InProcess, Processes, RayCluster, open_engine
from higan.engines import ray as ray_engine
from higan.errors import EngineError, MissingExtraError


@dataclass(frozen=True)
class Squares:
    """Unit k is k squared. What happens besides is told by the unit in which it happens."""

    folder: Path
    dies_once: int = -1
    dies_always: int = -1
    raises: int = -1
    ends: int = -1

    def __call__(self, device):
        return lambda unit, tick: self.make(unit, tick, device)

    def make(self, unit, tick, device):
        (self.folder / f"{unit} {os.getpid()} {device}").touch()
        tick(unit)
        if unit == self.dies_always or (unit == self.dies_once and len(list(self.folder.glob(f"{unit} *"))) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == self.ends:
            os._exit(3)
        if unit == self.raises:
            raise UnicodeDecodeError("utf-8", b"abc", 0, 1, "no such unit")
        return f"{unit**2}".encode()


@dataclass(frozen=True)
class Opened(Squares):
    """Notes who opens it."""

    log: Path = Path()

    def __call__(self, device):
        (self.log / f"{len(list(self.log.iterdir()))} {os.getpid()}").touch()
        return super().__call__(device)


def make(engine, open_job, units, ticks=None):
    """Units of a crew that is hired for nothing else."""
    with engine.open(open_job) as crew:
        yield from crew.make(units, ticks)


EXPECTED = {unit: f"{unit**2}".encode() for unit in (7, 1, 4, 0, 9)}


def test_in_process(tmp_path):
    ticks = []
    found = list(make(InProcess("meta"), Squares(tmp_path), list(EXPECTED), lambda *tick: ticks.append(tick)))
    assert found == list(EXPECTED.items())
    assert ticks == [(unit, unit) for unit in EXPECTED]
    assert {file.name for file in tmp_path.iterdir()} == {f"{unit} {os.getpid()} meta" for unit in EXPECTED}
    assert list(make(InProcess(), Squares(tmp_path), [])) == []


def test_processes_make_every_unit_once_and_replace_the_dead(tmp_path):
    ticks = []
    engine = Processes(2, ("cpu", "meta"))
    found = list(make(engine, Squares(tmp_path, dies_once=4), list(EXPECTED), lambda *tick: ticks.append(tick)))
    assert dict(found) == EXPECTED
    assert len(found) == len(EXPECTED)
    assert set(ticks) == {(unit, unit) for unit in EXPECTED}
    made = [file.name.split() for file in tmp_path.iterdir()]
    assert sorted(int(unit) for unit, _, _ in made) == [0, 1, 4, 4, 7, 9]
    workers = {pid for _, pid, _ in made}
    assert len(workers) == 3
    assert str(os.getpid()) not in workers
    assert {device for _, _, device in made} == {"cpu", "meta"}
    assert not multiprocessing.active_children()


def test_who_replaces_a_dead_worker_has_its_device(tmp_path):
    """The second of two workers begins with the second unit."""
    found = dict(make(Processes(2, ("cpu", "meta")), Squares(tmp_path, dies_once=1), list(EXPECTED)))
    assert found == EXPECTED
    assert [file.name.split()[2] for file in tmp_path.glob("1 *")] == ["meta", "meta"]


def test_a_unit_that_kills_every_worker_is_given_up(tmp_path):
    with pytest.raises(
        EngineError, match="2 workers died over unit 1, the last with exit status -9: too little memory"
    ):
        dict(make(Processes(1, attempts=2), Squares(tmp_path, dies_always=1), [0, 1, 2]))
    assert not multiprocessing.active_children()


def test_a_unit_that_ends_every_worker_is_not_called_too_large(tmp_path):
    with pytest.raises(EngineError, match="the last with exit status 3: it was not killed, but ended: generator, "):
        dict(make(Processes(1, attempts=1), Squares(tmp_path, ends=0), [0]))


LATE = """
import multiprocessing, os, pathlib, time
if multiprocessing.current_process().name != "MainProcess":
    pathlib.Path(f"importing-{os.getpid()}").touch()
    time.sleep(1)
def open_job(device):
    return lambda unit, tick: b""
"""
CTRL_C = """
import late
from higan.engines import Processes
if __name__ == "__main__":
    with Processes(1).open(late.open_job) as crew:
        print(dict(crew.make([0])))
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no masks here")
def test_workers_hear_nothing_of_ctrl_c_while_they_start(tmp_path):
    """All processes of a terminal hear of it; here the worker alone, who would die of it and tell how."""
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "main.py").write_text(CTRL_C)
    outlets = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, **outlets) as process:
        deadline = time.monotonic() + 60
        while not (started := list(tmp_path.glob("importing-*"))) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(int(started[0].name.partition("-")[2]), signal.SIGINT)
        assert process.communicate(timeout=60) == (b"{0: b''}\n", b"")


def test_errors_of_a_job_come_through_as_they_are(tmp_path):
    with pytest.raises(UnicodeDecodeError, match="no such unit"):
        dict(make(Processes(1), Squares(tmp_path, raises=0), [0, 1]))


class OpenFails:
    def __call__(self, device):
        class Strange(Exception):
            pass

        raise Strange("of its own")


def test_errors_that_cannot_travel_say_the_same(tmp_path):
    with pytest.raises(EngineError, match=r"^Strange: of its own$"):
        dict(make(Processes(1), OpenFails(), [0]))


def test_closing_stops_the_workers(tmp_path):
    units = make(Processes(1), Squares(tmp_path), range(1000))
    next(units)
    assert multiprocessing.active_children()
    units.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("engine", [InProcess(), Processes(2)], ids=["here", "processes"])
def test_a_crew_stays_for_more_units_and_opens_the_job_once(tmp_path, engine):
    opened = tmp_path / "opened"
    opened.mkdir()
    with engine.open(Opened(tmp_path, log=opened)) as crew:
        assert list(crew.make([])) == []
        assert not list(opened.iterdir())  # nobody is hired before there is something to do
        assert list(crew.make([5])) == [(5, b"25")]
        first = {file.name for file in opened.iterdir()}
        assert len(first) == 1
        assert dict(crew.make(range(6))) == {unit: f"{unit**2}".encode() for unit in range(6)}
        workers = {file.name for file in opened.iterdir()}
        assert dict(crew.make(list(EXPECTED))) == EXPECTED
        assert first < workers or engine == InProcess()
        assert {file.name for file in opened.iterdir()} == workers
        assert len(multiprocessing.active_children()) == (0 if engine == InProcess() else 2)
    assert not multiprocessing.active_children()


def test_a_worker_killed_while_it_waits_is_replaced(tmp_path):
    with Processes(2).open(Squares(tmp_path)) as crew:
        assert dict(crew.make(list(EXPECTED))) == EXPECTED
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert dict(crew.make(list(EXPECTED))) == EXPECTED
        assert len(multiprocessing.active_children()) == 2
        assert victim.pid not in {process.pid for process in multiprocessing.active_children()}


def test_units_that_nobody_waits_for_are_no_answer_to_later_ones(tmp_path):
    with Processes(2).open(Squares(tmp_path, raises=3)) as crew:
        units = crew.make(range(100, 200))
        next(units)
        units.close()
        assert dict(crew.make([0, 1, 2])) == {0: b"0", 1: b"1", 2: b"4"}
        with pytest.raises(UnicodeDecodeError, match="no such unit"):
            dict(crew.make([1, 2, 3, 4]))
        assert dict(crew.make([4, 5])) == {4: b"16", 5: b"25"}


def test_engines_by_name():
    cores = len(os.sched_getaffinity(0))
    assert open_engine() == InProcess()
    assert open_engine(devices=["cuda:1"]) == InProcess("cuda:1")
    assert open_engine(workers=3) == Processes(3)
    assert open_engine("processes") == Processes(cores)
    assert open_engine(devices=["cuda:0", "cuda:1"]) == Processes(2, ("cuda:0", "cuda:1"))
    assert open_engine(address="ray://head:10001", devices=["cuda"], workers=64) == RayCluster(
        64, "ray://head:10001", "cuda"
    )
    assert open_engine("ray", workers=2) == RayCluster(2)
    assert open_engine("processes", threads=cores) == Processes(1, threads=cores)
    assert open_engine(workers=3, threads=2) == Processes(3, threads=2)
    assert open_engine("ray", workers=2, threads=5) == RayCluster(2, threads=5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "slurm"}, "engine must be one of local, processes, ray; got 'slurm'"),
        ({"name": "local", "workers": 2}, "'local' is one worker on one device"),
        ({"name": "processes", "address": "auto"}, "an address is of a Ray cluster; the engine is 'processes'"),
        ({"name": "processes", "workers": 0}, "workers must be at least 1; got 0"),
        ({"workers": 2, "threads": 0}, "threads must be at least 1; got 0"),
        ({"threads": 4}, "for this process set OMP_NUM_THREADS"),
        ({"name": "ray", "workers": -1}, "workers must be at least 1; got -1"),
        ({"name": "ray", "devices": ["cpu", "cuda"]}, "of one kind"),
        ({"name": "ray", "devices": ["mps"]}, "device is cpu or cuda, and Ray chooses which; got 'mps'"),
    ],
)
def test_engines_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        open_engine(**arguments)


def test_ray_is_asked_for_when_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"install it with `pip install 'higan\[ray\]'`"):
        next(make(RayCluster(1), Squares(tmp_path), [0]))


def test_engines_end_with_the_same_bytes_on_the_same_number_of_threads(tmp_path):
    """Of a generator and a scorer that are made of convolutions, which round differently on other numbers of threads."""
    models, before = Models("rooms", "rooms"), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        digests = []
        for name, engine in (("here", InProcess()), ("processes", Processes(1, threads=2))):
            run = study.open_study(tmp_path / name, *models("cpu"), num=16, shard_size=8)
            assert run.provenance["threads"] == 2
            population.distribute(run, models, engine, batch_size=8)
            digests.append(store.verify(run.path))
        assert digests[0] == digests[1]
    finally:
        torch.set_num_threads(before)


# --- whole runs -------------------------------------------------------------------------------------------------------

SLOW = """
import os, time

def bright(images):
    with open(os.environ["PIDS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return images.float().mean((1, 2, 3))[:, None]
"""
LINE = ["sample", "--generator", "toy", "--scorer", "slow:bright", "--concept", "bright"]
LINE += ["--num", "400", "--shard-size", "20", "--batch-size", "10", "--out", "run"]


class Place:
    """A folder in which the same command line is given again and again."""

    def __init__(self, path):
        self.path = path
        self.run = path / "run"
        path.mkdir()
        (path / "slow.py").write_text(SLOW)
        (path / "pids").touch()
        self.started = set()

    def start(self, *options, pause=0.2):
        paths = [str(self.path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PIDS": str(self.path / "pids"), "PAUSE": str(pause), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        line = [sys.executable, "-m", "higan.cli", *LINE, *options]
        process = subprocess.Popen(
            line, cwd=self.path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.started.add(process.pid)
        return process

    def finish(self, *options):
        process = self.start(*options, pause=0)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed

    def workers(self):
        """Who scored pictures, call by call; not the program itself, which does so to announce what a run will take."""
        return [pid for pid in map(int, (self.path / "pids").read_text().split()) if pid not in self.started]

    def shards(self):
        return len(list(self.run.rglob("*.sha256")))

    def wait(self, process, shards, workers):
        """Until that many shards are there, and so many workers have been at work since the beginning."""
        until = time.monotonic() + 300
        while self.shards() < shards or len(set(self.workers())) < workers:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.005)

    def contents(self):
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (self.run / "population").iterdir()
        }


def alive(pids, patience=60):
    """Which of these processes still run after a while; a zombie that nobody has buried yet does not."""
    until = time.monotonic() + patience
    while True:
        running = []
        for pid in set(pids):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    running.append(pid)
        if not running or time.monotonic() > until:
            return running
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing disturbs leaves."""
    place = Place(tmp_path_factory.mktemp("engines") / "whole")
    place.finish()
    assert len(place.contents()) == 40
    return place


def test_processes_stopped_killed_and_resumed_leave_the_same_bytes(tmp_path, whole):
    place = Place(tmp_path / "processes")
    stopped = place.start("--engine", "processes", "--workers", "2")
    place.wait(stopped, 2, 2)
    stopped.send_signal(signal.SIGTERM)
    printed, _ = stopped.communicate(timeout=100)
    assert stopped.returncode == 130, printed
    assert "Interrupted. The same command goes on where it stopped." in printed
    assert "Traceback" not in printed
    first = set(place.workers())
    assert len(first) == 2
    assert not alive(first)

    before = place.shards()
    killed = place.start("--workers", "2")
    place.wait(killed, before + 2, 4)
    killed.kill()
    killed.communicate()
    # Orphans notice that nobody listens, and write nothing.
    assert not alive(place.workers())
    assert before + 2 <= place.shards() < 20

    place.finish()
    assert place.contents() == whole.contents()
    assert store.verify(place.run) == store.verify(whole.run)


def test_a_ray_worker_killed_in_the_middle_changes_nothing(tmp_path, whole):
    """A real cluster on this machine: scheduler, object store, two workers; one is killed while it makes a shard."""
    place = Place(tmp_path / "ray")
    process = place.start("--engine", "ray", "--workers", "2")
    place.wait(process, 2, 2)
    victim = place.workers()[-1]
    assert "ray::" in " ".join(psutil.Process(victim).cmdline())
    assert psutil.Process(victim).pid != process.pid
    os.kill(victim, signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    workers = place.workers()
    assert len(set(workers)) == 3
    assert workers[-1] != victim
    # Two batches of each of 20 shards, and of one shard again from its start.
    assert 40 <= len(workers) <= 42
    assert place.contents() == whole.contents()
    assert not alive(workers)


REACHABLE = os.pathsep.join([str(Path(__file__).parent), *sys.path])
"""Where workers find the jobs of this file."""


class Slow:
    """Squares that take their time; says who makes which."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, device):
        def job(unit, tick):
            (self.folder / f"{unit} {os.getpid()}").touch()
            time.sleep(0.5)
            return f"{unit**2}".encode()

        return job


@pytest.mark.slow
def test_a_machine_of_the_cluster_that_is_gone_for_good_changes_nothing(tmp_path):
    """Two machines with room for one worker each; Ray would wait for ever for room for the second worker.

    In a process of its own: the machines share no token, and Ray remembers for as long as a process lives whether it has one.
    """
    command = [sys.executable, "-c", f"import test_engines; test_engines.lose_a_machine({str(tmp_path)!r})"]
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": REACHABLE}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def lose_a_machine(folder):
    """Make units on two machines of which one is taken away, and say what is not as it should be."""
    from ray.cluster_utils import Cluster

    place = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=place)
    try:
        lost = cluster.add_node(**place)
        engine = RayCluster(2, cluster.address, patience=1.0)
        with engine.open(Slow(Path(folder))) as crew:
            found = {}
            for unit, data in crew.make(list(range(12))):
                found[unit] = data
                makers = {name.name.split()[1] for name in Path(folder).iterdir()}
                if lost is not None and len(found) >= 3 and len(makers) == 2:
                    cluster.remove_node(lost, allow_graceful=False)
                    lost = None
            # The crew goes on with whom it has left.
            again = dict(crew.make([20, 21]))
    finally:
        cluster.shutdown()
    assert lost is None
    assert found == {unit: f"{unit**2}".encode() for unit in range(12)}
    assert again == {20: b"400", 21: b"441"}


def test_a_unit_that_kills_every_worker_of_the_cluster_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", REACHABLE)
    with pytest.raises(EngineError, match="2 workers of the cluster died over unit 1, the last by "):
        dict(make(RayCluster(1, attempts=2), Squares(tmp_path, dies_always=1), [0, 1, 2]))
    assert len(list(tmp_path.glob("1 *"))) == 2


def test_late_is_what_fewest_are_busy_with_since_it_was_last_begun():
    begun = [("a", 5, 1.0), ("b", 6, 2.0), ("c", 7, 2.5), ("d", 5, 9.0), ("e", 4, 0.0)]
    under_way = {worker: ray_engine._Task(worker, unit, start) for worker, unit, start in begun}
    assert ray_engine._late(under_way, {5, 6, 7}) == (6, 2.0)
    assert ray_engine._late(under_way, {5}) == (5, 9.0)


@pytest.mark.slow
def test_more_workers_than_the_cluster_has_room_for(tmp_path, monkeypatch):
    """Those who never get a core hold up neither the first units nor the following ones."""
    monkeypatch.setenv("PYTHONPATH", REACHABLE)
    monkeypatch.setattr("higan.engines.ray._connect", partial(_connect_with_one_core, connect=ray_engine._connect))
    with RayCluster(4, patience=1.0).open(Slow(tmp_path)) as crew:
        assert dict(crew.make([0, 1, 2, 3, 4])) == {k: f"{k**2}".encode() for k in range(5)}
        assert dict(crew.make([5, 6])) == {5: b"25", 6: b"36"}


def _connect_with_one_core(ray, address, workers, connect):
    connect(ray, address, 1)
