import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from higan import population as pop
from higan import store
from higan.boundaries import fit
from higan.errors import CorruptRunError, RunError, RunMismatchError, RunWriteError
from higan.generators.toy import ToyGenerator
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.store.files import load_tensors, save_tensors
from higan.types import Concept
from higan.weights import read_weights, write_weights

SETTINGS = {"generator": "toy", "scorer": "toy", "num_samples": 25, "shard_size": 10, "seed": 3}


def filled(path, shared=True, **changes):
    run = store.open_run(path, {**SETTINGS, **changes})
    pop.fill(run, ToyGenerator(shared_code=shared), ToyScorer(), batch_size=4)
    return run


def contents(path):
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_what_was_read_is_no_longer_the_file(tmp_path):
    """Windows neither replaces nor removes a file that is mapped; and whatever becomes of it must not change a result."""
    ours, weights = tmp_path / "ours.safetensors", tmp_path / "weights.safetensors"
    save_tensors(ours, {"x": torch.arange(5000.0)}, {"kind": "unit"})
    write_weights(weights, {"x": torch.arange(5000.0)}, {})
    found = (load_tensors(ours, "unit")[0]["x"], read_weights(weights)[0]["x"])
    for path in (ours, weights):
        path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(x, torch.arange(5000.0)) for x in found)


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_written_is_read(tmp_path, shared):
    run = filled(tmp_path / "run", shared)
    found = store.read_population(run)
    seeds = pop.sample_seeds(25, seed=3)
    expected = pop.measure(ToyGenerator(shared_code=shared), ToyScorer(), seeds)
    assert torch.equal(found.seeds, seeds)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scores, expected.scores)
    assert found.concepts == expected.concepts
    assert found.num_layers == 6
    assert found.codes.shape[1] == (1 if shared else 6)


def test_columns_can_be_read_alone(tmp_path):
    run = filled(tmp_path / "run")
    whole, part = store.read_population(run), store.read_population(run, ["noise", "planted 3"])
    assert [concept.name for concept in part.concepts] == ["noise", "planted 3"]
    assert torch.equal(part.scores, whole.scores[:, [6, 3]])
    with pytest.raises(ValueError, match="unknown concept 'sofa'; this run was scored for: planted 0"):
        store.read_population(run, ["sofa"])


def test_other_programs_read_it(tmp_path):
    run = filled(tmp_path / "run")
    expected = store.read_population(run)
    rows = duckdb.sql(
        f"""SELECT seed, "score_planted 2", codes FROM '{run.path}/population/*.parquet' ORDER BY seed"""
    ).fetchnumpy()
    assert rows["seed"].tolist() == expected.seeds.tolist()
    np.testing.assert_array_equal(rows["score_planted 2"], expected.scores[:, 2].numpy())
    np.testing.assert_array_equal(np.stack(rows["codes"]), expected.codes[:, 0].numpy())


def test_nothing_is_done_twice(tmp_path):
    run = filled(tmp_path / "run")
    times = {file: file.stat().st_mtime_ns for file in run.path.rglob("*.parquet")}
    assert len(times) == 3
    calls = []
    pop.fill(run, ToyGenerator(), ToyScorer(), progress=lambda *c: calls.append(c))
    assert calls == []
    assert times == {file: file.stat().st_mtime_ns for file in run.path.rglob("*.parquet")}


def test_progress_counts_what_is_there(tmp_path):
    run = filled(tmp_path / "run")
    (run.path / "population" / "shard-00001.parquet").unlink()
    calls = []
    pop.fill(run, ToyGenerator(shared_code=True), ToyScorer(), batch_size=5, progress=lambda *c: calls.append(c))
    assert calls == [(20, 25), (25, 25)]


SLOW_SAMPLE = """
import sys, time
from higan import population, store
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.store.files import load_tensors, save_tensors

class Slow(ToyScorer):
    def score(self, images):
        time.sleep(0.01)
        return super().score(images)

run = store.open_run(sys.argv[1], {"num_samples": 300, "shard_size": 10, "seed": 0})
print("open", flush=True)
population.fill(run, ToyGenerator(shared_code=True), Slow(), batch_size=2)
"""


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    settings = {"num_samples": 300, "shard_size": 10, "seed": 0}
    whole = store.open_run(tmp_path / "whole", settings)
    generator, scorer = ToyGenerator(shared_code=True), ToyScorer()
    pop.fill(whole, generator, scorer, batch_size=2)
    path = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for shards, wait in ((0, 0.0), (1, 0.013), (4, 0.031)):
        with subprocess.Popen(
            [sys.executable, "-c", SLOW_SAMPLE, str(path)], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout.readline() == b"open\n"
            while len(list(path.rglob("*.sha256"))) < shards:
                time.sleep(0.001)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
    run = store.open_run(path, settings)
    assert 0 < len(store.missing_shards(run)) < 30
    pop.fill(run, generator, scorer, batch_size=2)
    assert contents(path) == contents(whole.path)
    assert store.verify(path) == store.verify(whole.path)


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_stopped_before_every_step_of_writing_it_ends_the_same(tmp_path, monkeypatch, operation):
    """Manifest, then shard and digest, three times: each is written, synced, renamed and its folder synced."""
    whole = contents(filled(tmp_path / "whole").path)
    owner = os if operation == "fsync" else type(tmp_path)
    real = getattr(owner, operation)
    stops = 0
    for stop in range(100):
        path = tmp_path / f"stopped before {stop}"
        calls = iter(range(1000))

        def stopping(*arguments, stop=stop, calls=calls):
            if next(calls) == stop:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, operation, stopping)
            try:
                filled(path)
                break
            except KeyboardInterrupt:
                stops += 1
        assert contents(filled(path).path) == whole
    # Seven files in two new folders; each file is renamed once, and synced itself and with its folder; so are folders.
    assert stops == {"fsync": 16, "replace": 7}[operation]


@pytest.mark.parametrize("suffix", [".parquet", ".sha256"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_damage_is_noticed_and_mended(tmp_path, suffix, damage):
    run = filled(tmp_path / "run")
    before = contents(run.path)
    file = run.path / "population" / f"shard-00001{suffix}"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        # Low bits only, and inside the digest itself, not in the file name after it.
        data[10 if suffix == ".sha256" else len(data) // 2] ^= 1
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"" if damage == "empty" else data)
    if damage == "remove":
        file.unlink()
    with pytest.raises(CorruptRunError, match="sample again with the same settings"):
        store.read_population(run)
    with pytest.raises(CorruptRunError):
        store.verify(run.path)
    assert store.missing_shards(run) == [1]
    filled(run.path)
    assert contents(run.path) == before


def test_every_flipped_byte_of_a_shard_is_noticed(tmp_path):
    run = filled(tmp_path / "run", num_samples=4, shard_size=4)
    file = run.path / "population" / "shard-00000.parquet"
    data = file.read_bytes()
    for position in range(0, len(data), 97):
        broken = bytearray(data)
        broken[position] ^= 0x10
        file.write_bytes(broken)
        with pytest.raises(CorruptRunError):
            store.read_shard(run, 0)


def test_readers_that_are_not_ours_notice_too(tmp_path):
    """Pages carry checksums: a byte flipped in the middle of the codes fails in pyarrow itself."""
    import pyarrow.parquet as pq

    run = filled(tmp_path / "run", num_samples=4, shard_size=4)
    file = run.path / "population" / "shard-00000.parquet"
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(file, page_checksum_verification=True)


def test_a_foreign_shard_with_a_true_digest_is_refused(tmp_path):
    run = filled(tmp_path / "run")
    file = run.path / "population" / "shard-00001.parquet"
    file.write_bytes(b"PAR1 something else")
    file.with_suffix(".sha256").write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    assert store.missing_shards(run) == [1]
    with pytest.raises(CorruptRunError, match="not a shard"):
        store.read_population(run)


def test_a_shard_of_another_run_is_refused_and_made_again(tmp_path):
    run, other = filled(tmp_path / "run"), filled(tmp_path / "other", seed=4)
    digest = store.verify(run.path)
    for file in (other.path / "population").glob("shard-00001.*"):
        shutil.copy(file, run.path / "population")
    assert store.missing_shards(run) == [1]
    with pytest.raises(CorruptRunError, match="is a shard of another run: sample again"):
        store.verify(run.path)
    assert pop.fill(run, ToyGenerator(shared_code=True), ToyScorer(), batch_size=4) == 1
    assert store.verify(run.path) == digest


def copy_over(run, source, target):
    """One shard in the place of another, with a true digest."""
    first, second = (run.path / "population" / f"shard-0000{k}.parquet" for k in (source, target))
    shutil.copy(first, second)
    sidecar = first.with_suffix(".sha256").read_text().replace(first.name, second.name)
    second.with_suffix(".sha256").write_text(sidecar)


@pytest.mark.parametrize(("source", "target", "held"), [(0, 2, 10), (2, 0, 5)])
def test_a_shard_of_another_length_is_noticed(tmp_path, source, target, held):
    run = filled(tmp_path / "run")
    copy_over(run, source, target)
    with pytest.raises(CorruptRunError, match=f"holds {held} samples; delete it"):
        store.read_columns(run, target, ["seed"])
    with pytest.raises(CorruptRunError, match=f"shard {target} of .* does not go with shard 0"):
        store.read_population(run)
    with pytest.raises(CorruptRunError, match="does not hold 25 different samples"):
        store.verify(run.path)


def test_a_shard_that_is_there_twice_is_noticed(tmp_path):
    run = filled(tmp_path / "run")
    copy_over(run, 0, 1)
    with pytest.raises(CorruptRunError, match="does not hold 25 different samples: a shard is there twice"):
        store.verify(run.path)


@pytest.mark.parametrize("name", ["permuted", "rescoring", "rescoring-equal_change", "responses"])
def test_verify_opens_every_result(tmp_path, name):
    run = filled(tmp_path / "run")
    (run.path / "notes.safetensors").write_bytes(b"somebody else's")
    store.verify(run.path)
    (run.path / f"{name}.safetensors").write_bytes(b"cut off")
    with pytest.raises(CorruptRunError, match=f"{name}.safetensors is damaged"):
        store.verify(run.path)


def test_digest_depends_on_content_alone(tmp_path):
    one, other = filled(tmp_path / "a"), filled(tmp_path / "b", shard_size=7)
    assert store.verify(one.path) == store.verify(other.path)
    assert store.verify(one.path) != store.verify(filled(tmp_path / "c", seed=4).path)
    assert store.verify(one.path) != store.verify(filled(tmp_path / "d", num_samples=24).path)


def test_digest_depends_on_all_of_the_content(tmp_path):
    """Runs of one shard that differ in one thing each."""
    run = filled(tmp_path / "run", num_samples=10)
    part = store.read_shard(run, 0)
    (first, *others), digests = part.concepts, {store.verify(run.path)}
    assert first.level != "object"
    changes = (
        {"seeds": part.seeds + 1},
        {"codes": part.codes + 1},
        {"codes": part.codes.reshape(10, 2, 8), "num_layers": 2},
        {"scores": part.scores + 1},
        {"concepts": (Concept("another", first.level), *others)},
        {"concepts": (Concept(first.name, "object"), *others)},
    )
    for change in changes:
        store.write_shard(run, 0, dataclasses.replace(part, **change))
        digests.add(store.verify(run.path))
    assert len(digests) == 1 + len(changes)


def test_another_run_is_refused(tmp_path):
    store.open_run(tmp_path / "run", {**SETTINGS, "layers": (1, 2)}, provenance={"torch": "one"})
    again = store.open_run(tmp_path / "run", {**SETTINGS, "layers": [1, 2]}, provenance={"torch": "another"})
    assert again.provenance == {"torch": "one"}
    with pytest.raises(
        RunMismatchError,
        match=r"generator is 'toy' there, 'rooms' here; layers is .* there, None here; seed is 3 there",
    ):
        store.open_run(tmp_path / "run", {**SETTINGS, "generator": "rooms", "seed": 4})
    with pytest.raises(RunMismatchError, match=r"holds another run: psi is None there, 0\.5 here;"):
        store.open_run(tmp_path / "run", {**SETTINGS, "layers": [1, 2], "psi": 0.5})


def test_a_name_that_no_result_could_be_read_from_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be text in UTF-8; got .*/caf\\udce9: name another"):
        store.open_run(tmp_path / os.fsdecode(b"caf\xe9"), SETTINGS)
    assert list(tmp_path.iterdir()) == []
    assert store.open_run(tmp_path / "café ✓", SETTINGS).path.is_dir()


def test_folders_that_are_no_run_are_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(RunMismatchError, match=r"holds no run \(there is holiday.jpg\)"):
        store.open_run(tmp_path, SETTINGS)
    with pytest.raises(RunMismatchError, match="is a file"):
        store.open_run(tmp_path / "holiday.jpg", SETTINGS)
    with pytest.raises(RunError, match=r"no run folder: it has no manifest\.json"):
        store.load_run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "some')
    with pytest.raises(CorruptRunError, match="damaged"):
        store.open_run(tmp_path, SETTINGS)
    for text in ('{"format": "other"}', '["format"]'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(CorruptRunError, match="not a manifest"):
            store.load_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": None}, "lacks settings or provenance"),
        ({"settings": [1]}, "lacks settings or provenance"),
        ({"provenance": "me"}, "lacks settings or provenance"),
        ({"settings": {}}, "the setting num_samples must be a whole number of at least 1; got None"),
        ({"settings": SETTINGS | {"shard_size": 0}}, "the setting shard_size must be"),
        ({"settings": SETTINGS | {"seed": "3"}}, "the setting seed must be"),
    ],
)
def test_a_manifest_of_other_types_is_refused(tmp_path, change, words):
    manifest = store.open_run(tmp_path, SETTINGS).path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change) + "\n")
    for use in (store.load_run, store.verify, lambda path: store.open_run(path, SETTINGS)):
        with pytest.raises(CorruptRunError, match=rf"manifest\.json is damaged \(.*{words}"):
            use(tmp_path)


def test_a_manifest_of_endless_lists_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(CorruptRunError, match="is damaged"):
        store.load_run(tmp_path)


def test_a_manifest_cut_off_by_a_kill_does_not_block_the_folder(tmp_path):
    (tmp_path / ".manifest.json.tmp").write_text("{")
    assert filled(tmp_path).num_shards == 3
    assert sorted(json.loads((tmp_path / "manifest.json").read_text())) == ["format", "provenance", "settings"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", 0),
        ("num_samples", -3),
        ("shard_size", 0),
        ("seed", -1),
        ("seed", 1.5),
        ("num_samples", None),
        ("seed", True),
    ],
)
def test_bad_settings_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"the setting {name} must be a whole number"):
        store.open_run(tmp_path / "run", {**SETTINGS, name: value})
    assert not (tmp_path / "run").exists()


def test_bad_shards_are_refused(tmp_path):
    run = filled(tmp_path / "run")
    for shard in (-1, 3):
        with pytest.raises(ValueError, match=f"shards 0 to 2; got {shard}"):
            store.read_shard(run, shard)
    with pytest.raises(ValueError, match="shard 2 holds 5 samples; got 25"):
        store.write_shard(run, 2, store.read_population(run))
    part = store.read_shard(run, 2)
    doubled = dataclasses.replace(part, concepts=(part.concepts[0],) * len(part.concepts))
    with pytest.raises(ValueError, match=f"given twice: {part.concepts[0].name}"):
        store.write_shard(run, 2, doubled)


@pytest.mark.parametrize("shared", [True, False])
def test_boundaries_and_rescoring_come_back(tmp_path, shared):
    generator, scorer = ToyGenerator(shared_code=shared), ToyScorer()
    run = filled(tmp_path / "run", shared)
    with pytest.raises(RunError, match=r"has not been done; do it with `higan fit .*run`"):
        store.load_boundaries(run)
    with pytest.raises(RunError, match=r"has not been done; do it with `higan rescore .*run`"):
        store.load_rescoring(run)
    boundaries = tuple(dataclasses.replace(b, stability=k / 10) for k, b in enumerate(fit(store.read_population(run))))
    store.save_boundaries(run, boundaries)
    for saved, loaded in zip(boundaries, store.load_boundaries(run), strict=True):
        for field in dataclasses.fields(saved):
            x, y = getattr(saved, field.name), getattr(loaded, field.name)
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    assert store.load_permuted(run) == ()
    store.save_permuted(run, boundaries[:2])
    normals = [boundary.normal for boundary in store.load_permuted(run)]
    assert all(torch.equal(normal, b.normal) for normal, b in zip(normals, boundaries[:2], strict=True))
    rescoring = rescore(
        generator, scorer, boundaries, num=4, num_random=2, permuted=boundaries[:3], batch_size=2,
        checkpoint=store.Units(run),
    )  # fmt: skip
    assert rescoring.permuted.shape[0] == 3
    assert len(list(store.Units(run).folder.rglob("*.safetensors"))) == 2
    store.save_rescoring(run, rescoring)
    other = store.Units(run)
    other.save("other", 0, {"x": torch.zeros(1)})
    other.remove()
    assert len(list(store.Units(run).folder.rglob("*.safetensors"))) == 2
    store.Units(run).clear()
    assert not store.Units(run).folder.exists()
    loaded = store.load_rescoring(run)
    for field in dataclasses.fields(rescoring):
        x, y = getattr(rescoring, field.name), getattr(loaded, field.name)
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    store.verify(run.path)
    store.save_permuted(run, ())
    assert store.load_permuted(run) == ()


def test_files_of_earlier_versions_open(tmp_path):
    """They know neither stability nor permuted scores nor steps."""
    generator, scorer = ToyGenerator(shared_code=True), ToyScorer()
    run = filled(tmp_path / "run")
    boundaries = fit(store.read_population(run), ["planted 1"])
    rescoring = rescore(generator, scorer, boundaries, num=4, num_random=2)
    store.save_boundaries(run, boundaries)
    store.save_rescoring(run, rescoring)
    for name, fewer, lacking in (
        ("boundaries", (), ("stability", "score_std")),
        ("rescoring", ("steps",), ("step_mode",)),
    ):
        path = run.path / f"{name}.safetensors"
        tensors, content = load_tensors(path, name)
        for gone in lacking:
            del content[gone]
        save_tensors(path, {k: v for k, v in tensors.items() if k not in fewer}, content)
    (found,) = store.load_boundaries(run)
    assert math.isnan(found.stability)
    assert math.isnan(found.score_std)
    loaded = store.load_rescoring(run)
    assert (loaded.permuted, loaded.steps, loaded.step_mode) == (None, None, "official")
    assert torch.equal(loaded.changes, rescoring.changes)


def test_units_survive_interruption_and_damage(tmp_path):
    """Damaged units are made again, to the same end."""
    generator, scorer = ToyGenerator(shared_code=True), ToyScorer()
    run = filled(tmp_path / "run")
    boundaries = fit(store.read_population(run), ["planted 1"])
    arguments = {"num": 6, "num_random": 1, "batch_size": 2}
    expected = rescore(generator, scorer, boundaries, **arguments)
    rescore(generator, scorer, boundaries, checkpoint=store.Units(run), **arguments)
    first, second, third = sorted(store.Units(run).folder.rglob("*.safetensors"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:100])
    untouched = third.stat().st_mtime_ns
    found = rescore(generator, scorer, boundaries, checkpoint=store.Units(run), **arguments)
    assert torch.equal(found.changes, expected.changes)
    assert torch.equal(found.null, expected.null)
    assert third.stat().st_mtime_ns == untouched


@pytest.mark.parametrize("position", [5, 60, 200, -1])
def test_damaged_boundaries_are_noticed(tmp_path, position):
    run = filled(tmp_path / "run")
    store.save_boundaries(run, fit(store.read_population(run)))
    file = run.path / "boundaries.safetensors"
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptRunError, match="damaged"):
        store.load_boundaries(run)
    with pytest.raises(CorruptRunError):
        store.verify(run.path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float32])
def test_a_foreign_file_of_tensors_is_refused_whatever_its_type(tmp_path, dtype):
    run = filled(tmp_path / "run")
    file = run.path / "boundaries.safetensors"
    save_file({"a": torch.zeros(3).to(dtype), "b": torch.zeros(()).to(dtype)}, file)
    for use in (lambda: store.load_boundaries(run), lambda: store.load_boundary(file), lambda: store.verify(run.path)):
        with pytest.raises(CorruptRunError, match="was not written by this program"):
            use()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[2,3]', b'"shape":[3,2]'),
        (b'"dtype":"F32"', b'"dtype":"I32"'),
        (b'"a":{', b'"b":{'),
        (b"2.5", b"3.5"),
    ],
)
def test_what_a_file_says_of_its_numbers_is_part_of_its_digest(tmp_path, old, new):
    """Other names, types, shapes and settings over the same bytes."""
    path = tmp_path / "unit.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).reshape(2, 3)}, {"kind": "unit", "step": 2.5})
    assert load_tensors(path, "unit")[1]["step"] == 2.5
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(CorruptRunError, match="damaged"):
        load_tensors(path, "unit")


def test_files_of_another_kind_are_no_damaged_boundaries(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    save_file({"a": torch.zeros(3)}, tmp_path / "net.safetensors")
    for name in ("x.png", "net.safetensors"):
        with pytest.raises(CorruptRunError, match="is no file of boundaries") as told:
            store.load_boundary(tmp_path / name)
        assert "this step" not in str(told.value)
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:20])
    with pytest.raises(CorruptRunError, match="is damaged"):
        store.load_boundary(tmp_path / "half.safetensors")


def test_a_manifest_is_not_written_over_the_only_shard_of_another_run(tmp_path):
    run = filled(tmp_path / "run", num_samples=10)
    os.truncate(run.path / "manifest.json", 10)
    with pytest.raises(CorruptRunError, match="damaged"):
        store.open_run(run.path, {**run.settings, "seed": 4})
    assert store.open_run(run.path, run.settings).settings == run.settings


def test_a_manifest_cut_off_before_the_first_shard_is_there_is_written_again(tmp_path):
    """What a step under way has taken so far may be noted already."""
    run = store.open_run(tmp_path / "run", SETTINGS)
    (run.path / ".unfinished.json").write_text("{}")
    os.truncate(run.path / "manifest.json", 10)
    assert store.open_run(run.path, SETTINGS).settings == SETTINGS


def test_a_manifest_cut_off_together_with_the_last_shard_is_written_again(tmp_path):
    run = filled(tmp_path / "run")
    before = contents(run.path)
    for name in ("manifest.json", "population/shard-00002.parquet"):
        os.truncate(run.path / name, 10)
    assert contents(filled(run.path).path) == before


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "ph.png").write_bytes(b"picture")
    with pytest.raises(RunError, match=r"ph\.png is a file; expected the folder of a run"):
        store.load_run(tmp_path / "ph.png")


def test_single_boundary_files(tmp_path):
    run = filled(tmp_path / "run")
    boundaries = fit(store.read_population(run))
    store.save_boundary(tmp_path / "one.safetensors", boundaries[2])
    loaded = store.load_boundary(tmp_path / "one.safetensors")
    assert loaded.concept == boundaries[2].concept
    assert torch.equal(loaded.normal, boundaries[2].normal)
    store.save_boundaries(run, boundaries)
    several = run.path / "boundaries.safetensors"
    assert store.load_boundary(several, "noise").concept.name == "noise"
    with pytest.raises(ValueError, match=r"holds boundaries for planted 0, .*; got None"):
        store.load_boundary(several)
    with pytest.raises(RunError, match="is not there"):
        store.load_boundary(tmp_path / "two.safetensors")
    several.rename(run.path / "rescoring.safetensors")
    with pytest.raises(CorruptRunError, match="holds boundaries, not rescoring"):
        store.load_rescoring(run)
    with pytest.raises(ValueError, match=r"holds boundaries for planted 2; got 'noise'"):
        store.load_boundary(tmp_path / "one.safetensors", "noise")
    per_layer = dataclasses.replace(boundaries[0], normal=torch.ones(6, 16), bias=torch.zeros(6))
    for several in ([], [boundaries[1], per_layer]):
        with pytest.raises(ValueError, match="one space"):
            store.save_boundaries(run, several)


def test_folders_are_not_opened_where_the_system_opens_none(tmp_path, monkeypatch):
    real = os.open

    def windows(path, *how, **more):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *how, **more)

    monkeypatch.setattr(os, "open", windows)
    with pytest.raises(RunWriteError, match="Permission denied"):
        store.write_file(tmp_path / "a" / "b", b"1")
    monkeypatch.setattr(sys, "platform", "win32")
    store.write_file(tmp_path / "c" / "d", b"2")
    assert (tmp_path / "c" / "d").read_bytes() == b"2"
