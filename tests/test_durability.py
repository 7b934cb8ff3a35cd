"""What may happen to a run folder: a full disk, no power, two programs at once. It always goes on to the same end."""

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from higan import population, store, study
from higan.cli.models import Models
from higan.engines import Processes
from higan.errors import CorruptRunError, RunBusyError, RunError, RunMismatchError, RunWriteError
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer

GENERATOR, SCORER = ToyGenerator(4, 8), ToyScorer(4)


class PowerOff(Exception):
    pass


def go(path, until=None):
    """The same steps on the same folder, whatever it holds; ``until`` says when the power fails."""

    def report(step, done, total):
        if until is not None and until(step, done, total):
            raise PowerOff

    run = study.open_study(path, GENERATOR, SCORER, num=300, shard_size=100)
    study.sample_step(run, GENERATOR, SCORER, report=report)
    study.fit_step(run, num_permuted=3, report=report)
    study.rescore_step(run, GENERATOR, SCORER, num=24, num_random=3, batch_size=8, report=report)
    return run


def contents(path):
    """Every file, but for the seconds that steps took."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    steps = json.loads(found.pop("steps.json"))
    return {
        **{name: hashlib.sha256(data).hexdigest() for name, data in found.items()},
        "steps": {step: record["settings"] for step, record in steps.items()},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return contents(go(tmp_path_factory.mktemp("durability") / "whole").path)


# --- no power ---------------------------------------------------------------------------------------------------------

MOMENTS = {
    "first shard": lambda step, done, total: step == "sample" and done > 100,
    "last shard": lambda step, done, total: step == "fit",
    "fit": lambda step, done, total: step == "rescore",
    "units": lambda step, done, total: step == "rescore" and done > total * 2 // 3,
    "end": None,
}


@pytest.mark.parametrize("length", [0, 0.5, -1])
@pytest.mark.parametrize("moment", MOMENTS)
def test_newest_files_cut_off(tmp_path, whole, moment, length):
    """The newest one, two or four files lose their end, as after a power failure on a disk that promised too much."""
    for newest in (1, 2, 4):
        path = tmp_path / str(newest)
        with contextlib.suppress(PowerOff):
            go(path, MOMENTS[moment])
        files = sorted((file for file in path.rglob("*") if file.is_file() and file.stat().st_size), key=age)
        # With the manifest and every shard cut off nothing would say whose folder it is.
        for file in files[max(1, len(files) - newest) :]:
            size = file.stat().st_size
            os.truncate(file, int(size * length) if length >= 0 else size - 1)
        assert contents(go(path).path) == whole


def age(file):
    return file.stat().st_mtime_ns


@pytest.mark.parametrize("name", ["manifest.json", "steps.json", "boundaries.safetensors", "permuted.safetensors"])
@pytest.mark.parametrize("length", [0, 0.5])
def test_any_one_file_cut_off(tmp_path, whole, name, length):
    run = go(tmp_path / "run")
    file = run.path / name
    os.truncate(file, int(file.stat().st_size * length))
    assert contents(go(run.path).path) == whole


def test_a_result_that_is_lost_is_made_again_and_the_rest_kept(tmp_path, whole):
    run = go(tmp_path / "run")
    kept = {file: age(file) for file in run.path.rglob("*.parquet")} | {
        run.path / "rescoring.safetensors": age(run.path / "rescoring.safetensors")
    }
    (run.path / "boundaries.safetensors").unlink()
    go(run.path)
    assert contents(run.path) == whole
    assert kept == {file: age(file) for file in kept}


def test_a_manifest_is_not_written_over_somebody_elses_shards(tmp_path):
    run = go(tmp_path / "run")
    os.truncate(run.path / "manifest.json", 10)
    with pytest.raises(CorruptRunError, match="damaged"):
        study.open_study(run.path, GENERATOR, SCORER, num=300, shard_size=100, seed=1)
    with pytest.raises(CorruptRunError, match="damaged"):
        store.load_run(run.path)
    study.open_study(run.path, GENERATOR, SCORER, num=300, shard_size=100)
    with pytest.raises(RunMismatchError, match="seed is 0 there, 1 here"):
        study.open_study(run.path, GENERATOR, SCORER, num=300, shard_size=100, seed=1)


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk(tmp_path, whole):
    """A file system of 40 kilobytes that is enlarged in the middle of the run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes privileges; the test below fills what needs none")
    try:
        with pytest.raises(RunWriteError, match=r"shard-.* cannot be written \(No space left on device\): what was "):
            go(disk / "run")
        done = [file for file in (disk / "run").rglob("*") if file.is_file()]
        assert not [file for file in done if file.name.endswith(".tmp")]
        with pytest.raises(RunWriteError, match="the same call goes on"):
            go(disk / "run")
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert contents(go(disk / "run").path) == whole
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow(tmp_path, whole):
    """The system itself cuts a write off in the middle: half of the bytes are on the disk when the error comes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(RunWriteError, match=r"shard-00000.parquet cannot be written \(File too large\)"):
            go(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(file.name for file in (tmp_path / "run").rglob("*")) == [".lock", "manifest.json", "population"]
    assert contents(go(tmp_path / "run").path) == whole


def test_a_fit_that_is_half_written_is_not_rescored(tmp_path):
    """New boundaries find no room where a new null did: the old ones must not be tested against it."""
    run = go(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run.path / "boundaries.safetensors").stat().st_size - 1, hard))
    try:
        with pytest.raises(RunWriteError, match=r"boundaries.safetensors cannot be written \(File too large\)"):
            study.fit_step(run, mode="all", num_permuted=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run.path / "permuted.safetensors").exists()
    with pytest.raises(RunError, match=r"boundaries.safetensors is not there"):
        study.rescore_step(run, GENERATOR, SCORER, num=24, num_random=3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_whatever_the_disk_says_is_passed_on(tmp_path):
    (tmp_path / ".one.safetensors.tmp").symlink_to("/dev/full")
    run = go(tmp_path / "run")
    with pytest.raises(RunWriteError, match="No space left on device"):
        store.save_boundary(tmp_path / "one.safetensors", store.load_boundaries(run)[0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


# --- two at once ------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from higan import store
with store.writing(store.load_run(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_one_program_writes_at_a_time(tmp_path, whole):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=300, shard_size=100)
    line = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"holding\n"
        words = f"is being written by process {other.pid} on .*; wait until it is done, or choose another folder"
        with pytest.raises(RunBusyError, match=words):
            go(run.path)
        with pytest.raises(RunBusyError, match=words):
            population.distribute(run, Models("toy", "toy"), Processes(1))
        assert store.missing_shards(run) == [0, 1, 2]
        # Reading needs no leave, and a writer that is killed leaves nothing locked.
        assert store.load_run(run.path) == run
        other.kill()
        other.communicate()
    assert contents(go(run.path).path) == whole


def test_shards_that_another_program_made_before_the_folder_was_free_are_kept(tmp_path, whole, monkeypatch):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=300, shard_size=100)
    writing = store.writing

    def late(of):
        monkeypatch.setattr(population, "writing", writing)
        assert population.fill(of, GENERATOR, SCORER) == 3
        return writing(of)

    monkeypatch.setattr(population, "writing", late)
    assert population.fill(run, GENERATOR, SCORER) == 0
    assert contents(go(run.path).path) == whole


BEGINNER = """
import sys
from higan import store
from higan.errors import RunBusyError
print("ready", flush=True)
sys.stdin.readline()
settings = {"num_samples": 10, "shard_size": 5, "seed": 0, "concepts": ["x" * 1000] * 300}
for k in range(40):
    try:
        store.open_run(f"{sys.argv[1]}/{k}", settings)
    except RunBusyError:
        print("busy")
"""


def test_programs_that_begin_a_folder_at_once(tmp_path):
    """One of them writes the manifest; the others find it whole, or are told that it is being written."""
    line = [sys.executable, "-c", BEGINNER, str(tmp_path)]
    programs = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.stdin.write("go\n")
        program.stdin.flush()
    for program in programs:
        _, errors = program.communicate(timeout=300)
        assert program.returncode == 0, errors
    for k in range(40):
        assert store.load_run(tmp_path / str(k)).settings["seed"] == 0
        assert not (tmp_path / str(k) / ".manifest.json.tmp").exists()
