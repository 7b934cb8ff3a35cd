"""The whole study on the toy pair: steps that are skipped, resumed and forgotten when they should be."""

import dataclasses
import functools
import importlib
import itertools
import json
import math
import re
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import higan
from higan import statistics, store, study
from higan.errors import RunBusyError, RunError, RunMismatchError, ScorerError
from higan.generators.toy import ToyGenerator
from higan.rescoring import meaningless_directions, rescore
from higan.responses import chosen, respond
from higan.scorers.toy import ToyScorer
from higan.statistics import delta, rank, table
from higan.types import Concept, Placement, Population, Rescoring

GENERATOR, SCORER = ToyGenerator(4, 8), ToyScorer(4)


def run_all(folder, report=None, num=120, seed=0):
    run = study.open_study(folder, GENERATOR, SCORER, num=600, shard_size=200, seed=seed)
    study.sample_step(run, GENERATOR, SCORER, report=report)
    study.fit_step(run, report=report)
    study.rescore_step(run, GENERATOR, SCORER, num=num, num_random=40, report=report)
    return run


def test_study_finds_what_was_planted(tmp_path):
    run = run_all(tmp_path / "run")
    rescoring = store.load_rescoring(run)
    for layer in range(4):
        best = rank(rescoring, placement=f"layer {layer}")[0]
        assert best.concept.name == f"planted {layer}"
        assert best.verified
        # the step is 2 along a direction fitted with cosine near 1
        assert best.signed == pytest.approx(2, abs=0.1)
    assert [len(null) for null in (rescoring.null, rescoring.permuted)] == [40, 20]
    never = {row.concept.name for row in rank(rescoring) if not row.verified}
    assert "constant" in never
    assert set(study.steps_of(run)) == {"sample", "fit", "rescore"}


def test_finished_steps_are_not_repeated(tmp_path):
    run = run_all(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    calls = []
    run_all(tmp_path / "run", report=lambda *call: calls.append(call))
    assert calls == []
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()} == before


def test_steps_are_compared_over_two_samples_or_more_and_against_a_direction(tmp_path):
    run = run_all(tmp_path / "run")
    for told, wrong in (
        ("num must be at least 2; got 1", {"num": 1}),
        ("num_random must be at least 1; got 0", {"num_random": 0}),
    ):
        for compare in (study.compare_cost, lambda run, g, **how: study.compare_step(run, g, SCORER, **how)):
            with pytest.raises(ValueError, match=told):
                compare(run, GENERATOR, **wrong)


def test_new_boundaries_make_the_rescoring_stale(tmp_path):
    run = run_all(tmp_path / "run")
    old = store.load_rescoring(run)
    study.compare_step(run, GENERATOR, SCORER, num=4, num_random=2)
    study.fit_step(run, mode="all")
    assert "rescore" not in study.steps_of(run)
    assert sorted(file.name for file in run.path.glob("*.safetensors")) == [
        "boundaries.safetensors",
        "permuted.safetensors",
    ]
    new = study.rescore_step(run, GENERATOR, SCORER, num=120, num_random=20)
    assert not torch.equal(old.changes, new.changes)


def test_interrupted_rescoring_goes_on_with_identical_results(tmp_path):
    whole = store.load_rescoring(run_all(tmp_path / "whole"))
    run = study.open_study(tmp_path / "cut", GENERATOR, SCORER, num=600, shard_size=200)

    def interrupt(step, done, total):
        if step == "rescore" and done > total // 2:
            raise KeyboardInterrupt

    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run)
    with pytest.raises(KeyboardInterrupt):
        study.rescore_step(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=16, report=interrupt)
    saved = len(list(store.Units(run).folder.rglob("*.safetensors")))
    assert 0 < saved < 8
    left = study.unscored(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=16)
    assert left == 120 - 16 * saved
    # Under other settings nothing is done yet.
    assert study.unscored(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=15) == 120
    assert study.unscored(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=16, adaptive=study.Goal()) == 120
    again = study.rescore_step(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=16)
    for name in ("originals", "changes", "seeds"):
        assert torch.equal(getattr(whole, name), getattr(again, name))
    assert study.unscored(run, GENERATOR, SCORER, num=120, num_random=20, batch_size=16) == 0


def test_seconds_are_those_of_all_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(study.clock, "_EVERY", 0.1)
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=300, shard_size=100)
    notes, how = run.path / ".unfinished.json", {"num": 8, "num_random": 2}

    def stopped():
        """Progress that takes its time once, and ends the third time."""
        calls = itertools.count(1)

        def report(step, done, total):
            match next(calls):
                case 1:
                    time.sleep(0.2)
                case 3:
                    raise KeyboardInterrupt

        return report

    def noted(step):
        return json.loads(notes.read_text())[step]["seconds"]

    def seconds(step):
        return study.steps_of(run)[step]["seconds"]

    with pytest.raises(KeyboardInterrupt):
        study.sample_step(run, GENERATOR, SCORER, report=stopped())
    assert noted("sample") >= 0.2
    notes.write_text(notes.read_text().replace(f"{noted('sample')}", "1000.0"))
    study.sample_step(run, GENERATOR, SCORER)
    assert not notes.exists()
    assert 1000 <= seconds("sample") < 1060
    study.sample_step(run, GENERATOR, SCORER)
    assert 1000 <= seconds("sample") < 1060
    (run.path / "population" / "shard-00002.sha256").unlink()  # to be made again
    study.sample_step(run, GENERATOR, SCORER, report=lambda *_: time.sleep(0.05))
    assert 1000.1 <= seconds("sample") < 1060

    study.fit_step(run, num_permuted=0)
    for step in (1.5, 2.0):
        with pytest.raises(KeyboardInterrupt):
            study.rescore_step(run, GENERATOR, SCORER, step=step, report=stopped(), **how)
        assert 0.2 <= noted("rescore") < 60  # Of other steps no time is taken over.
        notes.write_text(notes.read_text().replace(f"{noted('rescore')}", "1000.0"))
    study.rescore_step(run, GENERATOR, SCORER, step=2.0, **how)
    assert not notes.exists()
    assert 1000 <= seconds("rescore") < 1060

    notes.write_text('{"sample": 3}')  # damaged: counts for nothing, and is in nobody's way
    (run.path / "population" / "shard-00002.sha256").unlink()
    study.sample_step(run, GENERATOR, SCORER)
    assert not notes.exists()
    assert 1000 <= seconds("sample") < 1060


def test_another_run_is_not_overwritten(tmp_path):
    study.open_study(tmp_path / "run", GENERATOR, SCORER, num=600)
    # Of shards that hold all samples the size is one and the same.
    assert study.open_study(tmp_path / "run", GENERATOR, SCORER, num=600, shard_size=600).shard_size == 600
    with pytest.raises(RunMismatchError, match="num_samples is 600 there, 700 here"):
        study.open_study(tmp_path / "run", GENERATOR, SCORER, num=700)
    with pytest.raises(RunMismatchError, match="digests"):
        study.open_study(tmp_path / "run", GENERATOR, SCORER, num=600, digests={"generator": "other"})


def test_steps_refuse_the_generator_and_scorer_of_another_run(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=400, shard_size=200)

    def interrupt(step, done, total):
        if done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.sample_step(run, GENERATOR, SCORER, batch_size=100, report=interrupt)
    left = study.unsampled(run)
    assert left == 200
    truncated = ToyGenerator(4, 8, psi=0.5)
    with pytest.raises(
        RunMismatchError, match=r"truncation is \[1.0, 1.0, 1.0, 1.0\] there, \[0.5, .*in another folder"
    ):
        study.sample_step(run, truncated, SCORER)
    with pytest.raises(RunMismatchError, match="num_layers is 4 there, 5 here"):
        study.sample_step(run, ToyGenerator(5, 8), SCORER)
    assert study.unsampled(run) == left
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run)
    how = {"num": 20, "num_random": 3}
    study.rescore_step(run, GENERATOR, SCORER, **how)
    # Finished steps are no other model's results either.
    for step, more in ((study.rescore_step, how), (study.compare_step, {})):
        with pytest.raises(RunMismatchError, match="concepts is"):
            step(run, GENERATOR, ToyScorer(3), **more)
        with pytest.raises(RunMismatchError, match="truncation is"):
            step(run, truncated, SCORER, **more)


def test_runs_that_say_less_of_their_models_go_on(tmp_path):
    run = store.open_run(tmp_path / "run", {"num_samples": 200, "shard_size": 200, "seed": 0})
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run)
    study.rescore_step(run, GENERATOR, SCORER, num=20, num_random=3)
    assert set(study.steps_of(run)) == {"sample", "fit", "rescore"}


@pytest.mark.parametrize("R", [1, 2, 3, 5, 7, 10, 19, 20])
def test_what_is_said_of_few_directions_is_what_a_table_of_them_can_verify(R):
    """Of 20 concepts at 5 layers, k cells change a million times as much as any of R meaningless directions does."""
    C, P = 20, 5
    null = torch.rand(R, P, C, generator=torch.Generator().manual_seed(0))

    def verified(k):
        changes = torch.zeros(C * P, 1)
        changes[:k] = 1e6
        record = Rescoring(
            concepts=tuple(Concept(f"c{c}", "object") for c in range(C)),
            placements=tuple(Placement(f"layer {p}", (p,)) for p in range(P)),
            step=2.0,
            seeds=torch.arange(2),
            originals=torch.zeros(2, C),
            changes=changes.reshape(C, P, 1).expand(C, P, 2),
            effects=torch.zeros(C, P, C),
            null=null,
            score_std=torch.ones(C),
        )
        return int(table(record, num_resamples=2).verified.sum())

    said = study.scanty(num_random=R, num_permuted=0)
    assert study.scanty(num_random=20, num_permuted=R) == tuple(s.replace("random", "permuted") for s in said)
    if R == 20:
        assert said == ()
        assert verified(1) == 1
        return
    assert said[0].startswith(f"With {R} random direction")
    assert said[0].endswith("; give --random 20 or more.")
    if R < 3:
        assert "unless" not in said[0]
        assert verified(C * P) == 0
        return
    together = int(re.search(r"unless (\d+) cells", said[0])[1])
    assert verified(together - 1) == 0
    assert verified(together) == together


def test_cost_counts_every_image():
    cost = study.estimate(GENERATOR, SCORER, num=100, verify=10, num_random=3)
    # 100 probes, 10 originals, and 10 samples × (6 concepts + 3 random) × (all + 4 layers; stages are layers here)
    assert cost.images == 100 + 10 + 10 * 9 * 5
    assert cost.seconds > 0
    for name, value, least in (("num", -1, 0), ("verify", -1, 0), ("batch_size", 0, 1)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}; got {value}"):
            study.estimate(GENERATOR, SCORER, **{"num": 100, "verify": 10, "num_random": 3, name: value})


@pytest.mark.parametrize("each", [2**-6, 0.5])
@pytest.mark.parametrize("staged", [True, False])
def test_cost_is_the_time_of_images_from_where_each_is_drawn(monkeypatch, each, staged):
    """On a clock that drawing and scoring alone move: ``each`` seconds to draw, as many to score; a quarter a layer."""
    now, drawn = [0.0], []

    def take(seconds, images):
        # The first batch is slower, and so is every fourth after it: of three tries the best counts.
        drawn.append(images)
        now[0] += seconds * images * (2 if len(drawn) % 4 == 1 else 1)

    class Drawing(ToyGenerator):
        def synthesize(self, codes):
            take(each, len(codes))
            return super().synthesize(codes)

    class Staged(Drawing):
        def prepare(self, codes, layer):
            return layer

        def resume(self, state, codes, layer):
            take(each * (4 - state) / 4, len(codes))
            return ToyGenerator.synthesize(self, codes)

    class Scoring(ToyScorer):
        def score(self, images):
            now[0] += each * len(images)
            return super().score(images)

    monkeypatch.setattr(study.cost, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def estimate(**counts):
        drawn.clear()
        return study.estimate((Staged if staged else Drawing)(4, 8), Scoring(4), **counts)

    counts = {"num_random": 3, "num_permuted": 2, "batch_size": 16}
    cost = estimate(num=100, verify=10, **counts)
    # Anew for all layers and for the first, then from the second, third and fourth on; 6 concepts of the scorer.
    drawing = 1 + 1 + (0.75 + 0.5 + 0.25 if staged else 3)
    assert cost.images == 110 + 10 * 11 * 5
    assert cost.seconds == pytest.approx(each * (110 * 2 + 10 * 11 * (drawing + 5)))
    # What is slow is not drawn three times over, and from layers on one image of it.
    assert drawn == ([16, 16, *[1] * 9 * staged] if each > 0.1 else [16] * (4 + 9 * staged))
    fewer = estimate(num=0, verify=10, num_concepts=1, **counts)
    assert fewer.images == 10 + 10 * 6 * 5
    assert fewer.seconds == pytest.approx(each * (10 * 2 + 10 * 6 * (drawing + 5)))
    assert estimate(num=100, verify=0, **counts) == study.Cost(100, each * 100 * 2)
    assert estimate(num=0, verify=0, **counts) == study.Cost(0, 0.0)
    assert drawn == []


def test_a_broken_scorer_is_found_out_before_work_starts():
    class Broken:
        name = "broken"
        concepts = SCORER.concepts

        def score(self, images):
            return torch.full((len(images), len(self.concepts)), torch.nan)

    with pytest.raises(ScorerError, match="'broken' returned NaN or infinity for 'planted 0'"):
        study.estimate(GENERATOR, Broken(), num=10, verify=10, num_random=1)


def test_steps_are_compared_once_and_again_when_the_rescoring_changes(tmp_path):
    generator = ToyGenerator(4, 8, psi=0.5, psi_layers=2)
    run = study.open_study(tmp_path / "run", generator, SCORER, num=600, shard_size=600)
    study.sample_step(run, generator, SCORER)
    study.fit_step(run)
    assert study.comparison(run) is None
    study.rescore_step(run, generator, SCORER, num=60, num_random=40)
    calls = []
    found = study.compare_step(run, generator, SCORER, num=10, report=lambda *call: calls.append(call))
    assert calls[-1][0] == "steps"
    assert calls[-1][2] == study.compare_cost(run, generator, num=10)
    assert calls[-1][1] == calls[-1][2]
    assert set(found.modes) == {"equal_step", "equal_change"}
    names = [concept.name for concept in found.responses.concepts]
    assert names == [f"planted {k}" for k in range(4)]
    # Truncation halves the official step at layer 0; an equal step undoes it. In σ: halved scores vary half as much.
    official, equal = store.load_rescoring(run), found.modes["equal_step"]
    own = equal.concepts.index(SCORER.concepts[0])
    assert float(delta(equal)[own, 1]) == pytest.approx(2 * float(delta(official)[0, 1]), rel=0.1)
    calls.clear()
    again = study.compare_step(run, generator, SCORER, num=10, report=lambda *call: calls.append(call))
    assert calls == []
    assert torch.equal(again.responses.mean, found.responses.mean)
    assert torch.equal(again.modes["equal_change"].steps, found.modes["equal_change"].steps)
    study.rescore_step(run, generator, SCORER, num=70, num_random=40)
    assert study.comparison(run) is None
    study.compare_step(run, generator, SCORER, num=10)
    assert study.comparison(run) is not None


@pytest.mark.parametrize(
    ("mode", "others"),
    [("official", {"equal_change"}), ("equal_step", {"equal_change"}), ("equal_change", {"official"})],
)
def test_steps_that_differ_in_length_alone_are_not_compared(tmp_path, mode, others):
    generator = ToyGenerator(4, 8, psi=0.5, psi_layers=4)
    run = study.open_study(tmp_path / "run", generator, SCORER, num=400)
    study.sample_step(run, generator, SCORER)
    study.fit_step(run)
    study.rescore_step(run, generator, SCORER, num=40, num_random=20, step_mode=mode)
    assert set(study.compare_step(run, generator, SCORER, num=4, num_random=2).modes) == others


def test_where_nothing_is_verified_there_is_nothing_to_compare(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=100)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run, ["constant"])
    study.rescore_step(run, GENERATOR, SCORER, num=4, num_random=3)
    assert study.compare_step(run, GENERATOR, SCORER) is None
    assert "steps" not in study.steps_of(run)


def test_the_seed_of_a_run_chooses_all_that_is_drawn(tmp_path):
    """Runs with other seeds are replications: they share neither probed nor verified samples."""
    runs = [study.open_study(tmp_path / str(seed), GENERATOR, SCORER, num=200, seed=seed) for seed in (0, 1, 128)]
    seeds = []
    for run in runs:
        study.sample_step(run, GENERATOR, SCORER)
        study.fit_step(run, num_permuted=3)
        assert study.is_fitted(run, num_permuted=3)
        rescoring = study.rescore_step(run, GENERATOR, SCORER, num=20, num_random=2)
        assert study.unscored(run, GENERATOR, SCORER, num=20, num_random=2) == 0
        seeds += [set(store.read_population(run).seeds.tolist()), set(rescoring.seeds.tolist())]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 3 * 220
    assert not torch.equal(store.load_permuted(runs[0])[0].normal, store.load_permuted(runs[1])[0].normal)


def test_steps_are_compared_on_samples_of_the_run(tmp_path):
    run = run_all(tmp_path / "run", seed=5)
    rescoring = study.rescore_step(run, GENERATOR, SCORER, num=60, num_random=40, step=1.5)
    found = study.compare_step(run, GENERATOR, SCORER, num=4, num_random=2)
    for result in found.modes.values():
        assert torch.equal(result.seeds, rescoring.seeds[:4])
        assert result.step == 1.5
    boundaries = store.load_boundaries(run)
    std = dict(zip((c.name for c in rescoring.concepts), rescoring.score_std.tolist(), strict=True))
    random = meaningless_directions(boundaries[0], 2, 5)
    expected = respond(
        GENERATOR, SCORER, boundaries, chosen(rescoring), step=1.5, std=std, directions=random, num=4, seed=5
    )
    torch.testing.assert_close(found.responses.mean, expected.mean)
    torch.testing.assert_close(found.responses.null_high, expected.null_high)


def test_an_interrupted_comparison_is_not_mixed_with_the_one_before(tmp_path, monkeypatch):
    run = run_all(tmp_path / "run")
    first = study.compare_step(run, GENERATOR, SCORER, num=4, num_random=2)
    with monkeypatch.context() as cut:
        cut.setattr(study.comparing, "rescore", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.compare_step(run, GENERATOR, SCORER, num=8, num_random=2)
    assert torch.equal(study.comparison(run).responses.mean, first.responses.mean)
    again = study.compare_step(run, GENERATOR, SCORER, num=4, num_random=2)
    assert torch.equal(again.responses.mean, first.responses.mean)
    # Cut off between its files, the new one has curves already and the old step modes still.
    with monkeypatch.context() as cut:
        cut.setattr(store, "save_rescoring", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.compare_step(run, GENERATOR, SCORER, num=8, num_random=2)
    assert study.comparison(run) is None


def test_a_rescoring_that_was_not_written_down_is_not_made_again(tmp_path, monkeypatch):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run)
    how = {"num": 20, "num_random": 2, "batch_size": 4}
    with monkeypatch.context() as cut:
        cut.setattr(study.rescoring, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.rescore_step(run, GENERATOR, SCORER, **how)
    assert study.unscored(run, GENERATOR, SCORER, **how) == 0
    study.rescore_step(run, GENERATOR, SCORER, **how)
    assert not store.Units(run).folder.exists()


def test_effects_are_in_units_of_the_probed_samples(tmp_path):
    run = run_all(tmp_path / "run")
    expected = store.read_population(run).scores.double().std(0).float()
    found = store.load_rescoring(run)
    columns = [SCORER.concepts.index(concept) for concept in found.concepts]
    torch.testing.assert_close(found.score_std, expected[columns])


def test_what_decides_a_run_is_compared_and_what_says_nothing_is_not(tmp_path):
    open_study = functools.partial(study.open_study, tmp_path / "run", GENERATOR, SCORER, num=200)
    begun = open_study(choices={"klass": 3}, provenance={"command": "by hand"})
    assert begun.settings["klass"] == 3
    assert begun.provenance == {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": "by hand",
    }
    # Empty choices are those of a run that was begun before there was a choice.
    assert open_study(choices={"klass": 3, "precision": None, "options": {}, "names": []}) == begun
    with pytest.raises(RunMismatchError, match="klass is 3 there, None here"):
        open_study()


def test_a_study_that_cannot_be_fitted_is_refused_before_it_is_sampled():
    study.check(num=4, verify=2, num_random=1)
    for wrong, words in (
        ({"num": 3}, "at least 4 samples; got 3"),
        ({"num_extreme": 1.5}, "a share of all samples up to 1"),
        ({"loss": "logistic", "mode": "all"}, "mode 'all' is a ridge regression"),
        ({"C": 0.0}, "above 0"),
        ({"verify": 1}, "verify must be at least 2; got 1"),
        ({"num_permuted": 2}, "at least 3"),
        ({"num_random": 0}, "num_random must be at least 1"),
        ({"step": 0.0}, "step must be finite and other than 0"),
    ):
        with pytest.raises(ValueError, match=words):
            study.check(**{"num": 100, "verify": 10, "num_random": 20, **wrong})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seed": 10**20}, "seed must lie in"),
        ({"num": 0}, "num must be at least 1; got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1; got 0"),
        ({"num": 2**31 + 1}, "at most 2,147,483,648 samples"),
    ],
)
def test_no_folder_is_left_of_what_is_refused(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        study.open_study(tmp_path / "run", GENERATOR, SCORER, **{"num": 200, **wrong})
    assert not (tmp_path / "run").exists()


def test_an_interrupted_fit_is_not_taken_for_the_one_before(tmp_path, monkeypatch):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200)
    study.sample_step(run, GENERATOR, SCORER)
    first = study.fit_step(run, num_permuted=0, C=1.0)
    with monkeypatch.context() as cut:
        cut.setattr(study.fitting, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            study.fit_step(run, num_permuted=0, C=1e-4)
    again = study.fit_step(run, num_permuted=0, C=1.0)
    assert all(torch.equal(a.normal, b.normal) for a, b in zip(first, again, strict=True))


def interrupted(run):
    """A re-scoring stopped half way: how it was asked for, and how many samples are left."""

    def interrupt(step, done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    how = {"num": 128, "num_random": 2, "batch_size": 16}
    with pytest.raises(KeyboardInterrupt):
        study.rescore_step(run, GENERATOR, SCORER, report=interrupt, **how)
    left = study.unscored(run, GENERATOR, SCORER, **how)
    assert 0 < left < 128
    return how, left


@pytest.mark.parametrize("lost", ["steps.json", "boundaries.safetensors", "permuted.safetensors"])
def test_the_same_fit_again_keeps_an_interrupted_rescoring(tmp_path, lost):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run, num_permuted=3)
    how, left = interrupted(run)
    (run.path / lost).write_text("{")
    study.fit_step(run, num_permuted=3)
    assert study.unscored(run, GENERATOR, SCORER, **how) == left
    study.fit_step(run, num_permuted=3, C=1e-4)
    assert not store.Units(run).folder.exists()


def test_the_same_fit_again_keeps_a_rescoring_whose_record_is_lost(tmp_path):
    run = run_all(tmp_path / "run")
    kept = (run.path / "rescoring.safetensors").read_bytes()
    (run.path / "steps.json").unlink()
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=600, shard_size=200)
    study.fit_step(run)
    assert (run.path / "rescoring.safetensors").read_bytes() == kept
    (run.path / "steps.json").unlink()
    study.fit_step(run, C=1e-4)
    assert not (run.path / "rescoring.safetensors").exists()


def test_comparing_steps_keeps_an_interrupted_rescoring(tmp_path):
    run = run_all(tmp_path / "run")
    how, left = interrupted(run)
    study.compare_step(run, GENERATOR, SCORER, num=4, num_random=2)
    assert study.unscored(run, GENERATOR, SCORER, **how) == left


def test_a_shorter_rescoring_keeps_the_units_of_a_longer_one(tmp_path):
    run = run_all(tmp_path / "run", num=16)
    how, left = interrupted(run)
    study.rescore_step(run, GENERATOR, SCORER, num=32, num_random=2, batch_size=16)
    assert study.unscored(run, GENERATOR, SCORER, **how) == left
    study.rescore_step(run, GENERATOR, SCORER, **how)
    assert not store.Units(run).folder.exists()


def test_layers_without_codes_have_no_equal_step(tmp_path):
    generator = ToyGenerator(4, 8, psi=0.0, psi_layers=1)
    run = study.open_study(tmp_path / "run", generator, SCORER, num=600, shard_size=200)
    study.sample_step(run, generator, SCORER)
    study.fit_step(run, num_permuted=100)
    study.rescore_step(run, generator, SCORER, num=60, num_random=100)
    assert list(study.compare_step(run, generator, SCORER, num=4, num_random=2).modes) == ["equal_change"]


def test_adaptive_equal_changes_keep_what_they_measured(tmp_path):
    run = run_all(tmp_path / "run", num=32)
    how = {"num": 32, "num_random": 4, "step_mode": "equal_change"}
    fixed = study.rescore_step(run, GENERATOR, SCORER, **how)
    found = study.rescore_step(run, GENERATOR, SCORER, adaptive=study.Goal(top=2), **how)
    assert found.image_changes is not None
    torch.testing.assert_close(found.image_changes, fixed.image_changes)


def test_boundaries_fitted_before_the_folder_was_free_count(tmp_path, monkeypatch):
    """Another process may fit anew between a look at the boundaries and the lock."""
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200)
    study.sample_step(run, GENERATOR, SCORER)
    study.fit_step(run, num_permuted=0)
    writing = store.writing

    def late(of):
        monkeypatch.setattr(store, "writing", writing)
        study.fit_step(of, num_permuted=0, C=1e-4)
        return writing(of)

    monkeypatch.setattr(store, "writing", late)
    rescoring = study.rescore_step(run, GENERATOR, SCORER, num=8, num_random=2)
    expected = rescore(GENERATOR, SCORER, store.load_boundaries(run), num=8, num_random=2)
    torch.testing.assert_close(rescoring.changes, expected.changes)
    told = study.steps_of(run)["rescore"]["settings"]["boundaries"]
    assert told == study.record.digest(store.load_boundaries(run))


def test_a_fit_is_refused_before_it_is_made(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=200)
    study.sample_step(run, GENERATOR, SCORER)
    told = []
    with store.writing(run), pytest.raises(RunBusyError):
        study.fit_step(run, report=lambda *call: told.append(call))
    assert told == [("fit", 0, 3)]


@pytest.mark.parametrize("text", ['{"fit": null}', "[]", "3"])
def test_a_damaged_record_of_steps_counts_for_nothing(tmp_path, text):
    run = run_all(tmp_path / "run")
    (run.path / "steps.json").write_text(text)
    assert study.steps_of(run) == {}
    assert len(study.fit_step(run)) == len(SCORER.concepts)


@pytest.mark.parametrize(("K", "enough"), [(2, False), (5, False), (6, True)])
def test_few_rescored_samples_are_told_of_where_intervals_are_too_short(K, enough):
    changes = torch.randn(1, 800, K, generator=torch.Generator().manual_seed(0)).clamp(min=0)
    weights = statistics.resample_weights(K, 400, 0)
    found = statistics.studentised(changes[0], weights, torch.tensor([0.025, 0.975]))
    truth = 1 / math.sqrt(2 * math.pi)  # mean of a normal number cut off below at zero
    held = float(((found[:, 0] <= truth) & (truth <= found[:, 1])).float().mean())
    assert (held > 0.9) == enough
    assert (study.few_verified(K) == ()) == enough
    if K == 2:
        assert held == pytest.approx(2 / 3, abs=0.05)
        assert "95 % intervals from 2 re-scored samples are too short, and may hold" in study.few_verified(K)[0]


def test_few_probed_samples_are_told_of_where_chance_is_right_about_all(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=5)
    study.sample_step(run, GENERATOR, SCORER)
    accuracy = {b.concept.name: b.holdout_accuracy for b in study.fit_step(run, num_permuted=0)}
    assert accuracy["noise"] == 1  # of what no direction tells
    assert study.few_probed(5)[0].startswith("Held-out accuracy is told by 2 samples of 5: one in 4 boundaries")
    assert study.few_probed(10_000, num_extreme=5)[0].startswith(
        "Held-out accuracy is told by 4 samples of 10000: one in 16 "
    )
    # Of 26 samples 4 of either class are held out, of 28 five: one in 256, and in 1024.
    assert study.few_probed(26)[0].startswith("Held-out accuracy is told by 8 samples of 26: one in 256 boundaries")
    assert study.few_probed(28) == ()
    assert study.few_probed(600) == study.few_probed(60) == study.few_probed(600, num_extreme=0.1) == ()


def test_concepts_are_noted_of_which_fewer_than_half_a_class_is_told_apart(tmp_path):
    ordered = torch.arange(20.0)
    scores = {
        "ordered": ordered,
        "three above": (ordered - 16).clamp(min=0),
        "four above": (ordered - 15).clamp(min=0),
        "five above": (ordered - 14).clamp(min=0),
        "constant": torch.zeros(20),
    }
    concepts = tuple(Concept(name, "object") for name in scores)
    run = store.open_run(tmp_path / "run", {"num_samples": 20, "shard_size": 20, "seed": 0})
    codes = torch.randn(20, 1, 4, generator=torch.Generator().manual_seed(0))
    store.write_shard(run, 0, Population(torch.arange(20), codes, torch.stack([*scores.values()], 1), concepts, 2))
    study.fit_step(run, num_extreme=8, num_permuted=0)
    assert study.steps_of(run)["fit"]["outcome"] == {"class": 8, "mixed": {"three above": 3}}


def test_of_many_concepts_whose_samples_are_mostly_alike_ten_are_named(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=5)
    study.record.record(run, "fit", {}, 1.0, {"class": 4000, "mixed": {f"c{k:02}": 1000 + k for k in range(12)}})
    (said,) = study.mostly_ties(run)
    named = ", ".join(f"c{k:02} (1,00{k})" for k in range(10))
    assert said.startswith("In classes of 4,000 samples most have one and the same score")
    assert f"from the others alone: {named} and 2 more. Take smaller classes" in said


def test_a_step_beyond_the_codes_is_told_of(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=400)
    study.sample_step(run, GENERATOR, SCORER)
    with pytest.raises(RunError, match="has not been done"):
        study.far_or_short(run, 2.0)
    boundaries = study.fit_step(run, num_permuted=0)
    codes = store.read_population(run).codes.numpy()
    spread = np.mean([np.einsum("nld,ld->nl", codes, b.normal.numpy()).std(0).mean() for b in boundaries])
    assert study.far_or_short(run, 2.0) == study.far_or_short(run, float(19.5 * spread)) == ()
    assert "is 500 standard deviations" in study.far_or_short(run, float(-500 * spread))[0]
    assert "is 20 standard deviations" in study.far_or_short(run, float(20.4 * spread))[0]
    (said,) = study.far_or_short(run, float(500 * spread))
    assert "is 500 standard deviations of the codes along the boundaries' normals" in said
    assert float(re.search(r"--step ([\d.]+)\.$", said)[1]) == pytest.approx(3 * spread, rel=0.05)


def test_a_step_within_the_codes_is_told_of(tmp_path):
    run = study.open_study(tmp_path / "run", GENERATOR, SCORER, num=400)
    study.sample_step(run, GENERATOR, SCORER)
    boundaries = study.fit_step(run, num_permuted=0)
    codes = store.read_population(run).codes.numpy()
    spread = np.mean([np.einsum("nld,ld->nl", codes, b.normal.numpy()).std(0).mean() for b in boundaries])
    assert study.far_or_short(run, 2.0) == study.far_or_short(run, float(0.26 * spread)) == ()
    assert "is 0.24 standard deviations" in study.far_or_short(run, float(0.24 * spread))[0]
    (said,) = study.far_or_short(run, float(0.024 * spread))
    assert "is 0.024 standard deviations of the codes along the boundaries' normals" in said
    assert float(re.search(r"--step ([\d.]+)\.$", said)[1]) == pytest.approx(3 * spread, rel=0.05)


def test_equal_steps_are_told_of_as_long_as_they_are(tmp_path):
    # A quarter of the step reaches the pictures of half the layers, so that codes go four times as far there.
    generator = ToyGenerator(num_layers=4, code_dim=8, psi=0.25, psi_layers=2)
    run = study.open_study(tmp_path / "run", generator, ToyScorer(4), num=400)
    study.sample_step(run, generator, ToyScorer(4))
    study.fit_step(run, num_permuted=0)
    assert study.far_or_short(run, 12.0) == study.far_or_short(run, 0.5, "equal_step") == ()
    assert re.search(r"λ = 12 is (29|30|31) standard deviations", study.far_or_short(run, 12.0, "equal_step")[0])
    rescoring = study.rescore_step(run, generator, ToyScorer(4), num=4, num_random=3, step=12.0, step_mode="equal_step")
    official = study.making_of(run, dataclasses.replace(rescoring, step_mode="official"))
    assert study.making_of(run, rescoring).sigmas == pytest.approx(official.sigmas * 2.5)


def test_the_package_tells_how_to_do_a_study(capsys):
    words = higan.__doc__
    code = words[words.index("    from higan import") : words.index("`higan.study`")]
    found = {}
    exec(textwrap.dedent(code).replace('"rooms"', '"toy"'), found)
    assert next(row for row in found["ranking"] if row.concept.name == "planted 0").verified
    assert capsys.readouterr().out.startswith("From coarse to fine layers")
    for module in re.findall(r"`higan\.(\w+)`", words):
        assert importlib.import_module(f"higan.{module}").__doc__
