"""Fits to a run folder and to a population in memory are the same fit."""

import dataclasses
import os

import pytest
import torch

from higan import boundaries, population, refits, store
from higan.boundaries import fit
from higan.errors import CorruptRunError
from higan.generators.toy import ToyGenerator
from higan.samples import Dealt, InMemory, OnDisk, Part, Samples, columns_of, samples_of
from higan.scorers.toy import ToyScorer
from higan.types import Concept


@pytest.fixture(scope="module", params=[True, False], ids=["shared code", "code per layer"])
def run(request, tmp_path_factory):
    run = store.open_run(tmp_path_factory.mktemp("samples") / "run", {"num_samples": 230, "shard_size": 50, "seed": 0})
    population.fill(run, ToyGenerator(shared_code=request.param), ToyScorer())
    return run


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.normal, b.normal)
        assert torch.equal(a.bias, b.bias)
        assert (a.concept, a.holdout_accuracy, a.num_train) == (b.concept, b.holdout_accuracy, b.num_train)


def test_columns_are_those_of_the_names_in_their_order(run):
    samples = samples_of(store.read_population(run))
    names = [concept.name for concept in samples.concepts]
    assert columns_of(samples, None) == list(range(len(names)))
    assert columns_of(samples, [names[2], names[0]]) == [2, 0]
    with pytest.raises(ValueError, match="each concept is named once; got 'planted 1' twice"):
        columns_of(samples, ["planted 0", "planted 1", "planted 1"])
    with pytest.raises(ValueError, match=r"got one text: write \['planted 0'\]"):
        columns_of(samples, "planted 0")


@pytest.mark.parametrize("mode", ["extreme", "all"])
@pytest.mark.parametrize("memory", [None, 1000])
def test_fits_are_the_same_to_the_last_bit(run, mode, memory, monkeypatch):
    # Small enough for several fetches of several blocks.
    monkeypatch.setattr(boundaries, "_GATHER", 2**14)
    monkeypatch.setattr(boundaries, "_BLOCK", 2**12)
    whole, disk = store.read_population(run), OnDisk.open(run)
    arguments = {"mode": mode, "num_extreme": 40}
    same(fit(whole, memory=memory, **arguments), fit(disk, memory=memory, **arguments))
    same(fit(whole, ["noise", "planted 2"], **arguments), fit(disk, ["noise", "planted 2"], **arguments))
    same(refits.permuted(whole, 3, **arguments), refits.permuted(disk, 3, **arguments))
    assert torch.equal(refits.stabilities(whole, **arguments), refits.stabilities(disk, **arguments))


def test_what_is_asked_for_is_what_lies_there(run):
    whole, disk = store.read_population(run), OnDisk.open(run)
    assert isinstance(disk, Samples)
    assert isinstance(samples_of(whole), InMemory)
    assert samples_of(disk) is disk
    assert (len(disk), disk.num_layers, disk.code_shape) == (230, 6, tuple(whole.codes.shape[1:]))
    assert disk.concepts == whole.concepts
    rows = torch.tensor([229, 0, 49, 50, 51, 0, 120])
    assert torch.equal(disk.codes(rows), whole.codes[rows])
    assert torch.equal(disk.scores([5, 0]), whole.scores[:, [5, 0]])
    part = Part(disk, torch.tensor([7, 200, 3]))
    assert torch.equal(part.codes(torch.tensor([2, 1])), whole.codes[[3, 200]])
    assert torch.equal(part.scores([1]), whole.scores[[7, 200, 3]][:, [1]])
    deals = tuple(torch.randperm(230, generator=torch.Generator().manual_seed(k)) for k in range(2))
    dealt = Dealt(disk, (Concept("a", "object"), Concept("b", "object")), (4, 2), deals)
    assert torch.equal(dealt.scores([1, 0]), torch.stack([whole.scores[deals[1], 2], whole.scores[deals[0], 4]], 1))
    assert torch.equal(dealt.codes(rows), whole.codes[rows])


def test_no_more_is_read_than_the_extremes_or_a_block(run, monkeypatch):
    """Memory does not grow with the number of samples: rows asked for at once stay within what a fetch may hold."""
    asked = []
    real = OnDisk.codes
    monkeypatch.setattr(OnDisk, "codes", lambda self, rows: asked.append(len(rows)) or real(self, rows))
    monkeypatch.setattr(boundaries, "_BLOCK", 2**11)
    monkeypatch.setattr(boundaries, "_GATHER", 2**11)
    disk = OnDisk.open(run)
    fit(disk, num_extreme=5, memory=1)
    size = disk.code_shape[0] * disk.code_shape[1] * 4
    fetched = [rows for rows in asked if rows <= 2**11 // size * 2]
    # All but the samples that second moments are taken from, 16 D of them at most.
    assert len(asked) - len(fetched) <= 1
    assert max(asked) <= min(len(disk), 32 * disk.code_shape[1])


def test_a_shard_of_another_kind_is_noticed(tmp_path):
    """Codes of six layers among those that all layers share; another order of concepts; another number of layers."""
    run = store.open_run(tmp_path / "run", {"num_samples": 20, "shard_size": 10, "seed": 0})
    population.fill(run, ToyGenerator(shared_code=True), ToyScorer())
    whole = store.read_shard(run, 1)
    for change in (
        {"codes": whole.codes.expand(-1, 6, -1)},
        {"concepts": whole.concepts[::-1], "scores": whole.scores.flip(1)},
        {"num_layers": 5},
    ):
        store.write_shard(run, 1, dataclasses.replace(whole, **change))
        for use in (OnDisk.open, lambda run: store.verify(run.path), store.read_population):
            with pytest.raises(CorruptRunError, match=r"shard 1 of .* does not go with shard 0"):
                use(run)


def test_damage_is_noticed_before_and_while_reading(tmp_path):
    run = store.open_run(tmp_path / "run", {"num_samples": 20, "shard_size": 10, "seed": 0})
    population.fill(run, ToyGenerator(), ToyScorer())
    disk = OnDisk.open(run)
    file = run.path / "population" / "shard-00001.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptRunError, match="damaged"):
        disk.codes(torch.arange(20))
    with pytest.raises(CorruptRunError, match=r"shard 1 of 2 is missing from .* or damaged: sample again"):
        OnDisk.open(run)
    os.truncate(file, 100)
    with pytest.raises(CorruptRunError, match="damaged"):
        disk.scores([0])
