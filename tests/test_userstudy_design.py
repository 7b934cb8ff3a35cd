"""Balance, order and secrecy of a study's trials; studies built from a toy run."""

import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from higan.errors import RunError, UserStudyError
from higan.population import render, sample
from higan.types import LEVELS
from higan.userstudy.build import build
from higan.userstudy.design import CHOICES, Unit, block, lay_out
from higan.userstudy.folder import open_study, verify
from higan.userstudy.pictures import altered, fitness, png
from userstudies import STAGES, make_design, make_run, make_study

# Designs are made inside the tests: type checks draw random numbers, which strategies must not.
options = st.fixed_dictionaries(
    {
        "stages": st.integers(1, 4).map(lambda n: {name: STAGES[name] for name in list(STAGES)[:n]}),
        "sources": st.sampled_from([LEVELS, LEVELS[:3], ("random",)]),
        "repeats": st.integers(1, 2),
        "num_catches": st.integers(0, 7),
        "overlap": st.integers(1, 3),
        "seed": st.integers(0, 2**62),
    }
)


@given(options, st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_block_shows_every_unit_once_and_every_stage_equally_often_with_every_source(options, number):
    design = make_design(**options)
    trials = block(design, number)
    edits = [trial for trial in trials if trial.stage is not None]
    assert sorted(trial.unit for trial in edits) == list(range(design.num_units))
    cells = Counter((trial.what.source, trial.stage) for trial in edits)
    assert set(cells.values()) == {design.repeats}
    assert len(cells) == len(design.sources) * len(design.stages)
    assert Counter(trial.id for trial in trials if trial.catch) == Counter(trial.id for trial in design.catches)
    assert len(trials) == design.num_trials


@given(options, st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_every_run_of_edits_holds_every_stage_once_and_catches_stand_apart(options, number):
    design = make_design(**options)
    trials = block(design, number)
    edits = [trial.stage for trial in trials if trial.stage is not None]
    for start in range(0, len(edits), len(design.stages)):
        assert sorted(edits[start : start + len(design.stages)]) == sorted(design.stages)
    places = [k for k, trial in enumerate(trials) if trial.catch]
    assert 0 not in places
    if len(places) > 1 and len(edits) >= 2 * len(places):
        gaps = [b - a for a, b in pairwise(places)]
        assert max(gaps) - min(gaps) <= 1


@given(options, st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_over_as_many_blocks_as_stages_every_unit_is_seen_at_every_stage_equally_often(options, turn):
    design = make_design(**options)
    S = len(design.stages)
    first = turn * S * design.overlap
    seen = Counter(
        (trial.unit, trial.stage)
        for number in range(first, first + S * design.overlap)
        for trial in block(design, number)
        if trial.stage is not None
    )
    assert set(seen.values()) == {design.overlap}
    assert len(seen) == design.num_units * S


@given(options)
@settings(max_examples=15, deadline=None)
def test_names_are_opaque_and_used_once(options):
    design = make_design(**options)
    trials = list(design.trials.values())
    names = {trial.before for trial in trials} | {trial.after for trial in trials} | set(design.trials)
    assert all(re.fullmatch("[0-9a-f]{20}", name) for name in names)
    assert len(names) == 2 * len(trials) + design.num_units + len(design.catches)


def test_neighbours_in_an_overlap_see_the_same_trials_in_another_order():
    design = make_design()
    a, b, c = (block(design, number) for number in range(3))
    assert {trial.id for trial in a} == {trial.id for trial in b}
    assert [trial.id for trial in a] != [trial.id for trial in b]
    shared = {t.id for t in a if t.stage} & {t.id for t in c if t.stage}
    assert not shared


def test_the_same_seed_gives_the_same_order_for_ever_and_another_seed_other_names():
    design = make_design(seed=7)
    assert design == make_design(seed=7)
    # Written down once: a change would show raters who come back something else than before.
    assert [trial.id for trial in block(design, 3)][:3] == FROZEN
    assert not set(design.trials) & set(make_design(seed=8).trials)


FROZEN = ["c2ece729efc3719bad71", "c57ff601ef7fd0c7683c", "f7e8a6ae8562c11820c5"]


def test_position_says_nothing_about_the_stage():
    design = make_design(repeats=1, num_catches=0)
    places = {stage: [] for stage in design.stages}
    for number in range(400):
        for k, trial in enumerate(block(design, number)):
            places[trial.stage].append(k)
    means = [np.mean(where) for where in places.values()]
    # Mean position of 1600 trials each: its standard error is 0.12.
    assert max(means) - min(means) < 0.6


UNIT = Unit("layout", "view", 2.0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": {}}, "multiple of the 4 stages; got none"),
        ({"units": {"layout": [UNIT] * 3}}, "got 3 of layout"),
        ({"units": {"layout": [UNIT] * 4, "object": [UNIT] * 8}}, "got 4 of layout, 8 of object"),
        ({"overlap": 0, "units": {"layout": [UNIT] * 4}}, "overlap must be at least 1"),
    ],
)
def test_designs_that_cannot_be_balanced_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        lay_out(STAGES, catches=[], seed=0, **change)
    with pytest.raises(ValueError, match="counted from 0"):
        block(make_design(), -1)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_catch_pictures():
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(altered(image, "same"), image)
    assert torch.equal(altered(image, "mirror"), image.flip(-1))
    symmetric = torch.cat([image, image.flip(-1)], -1)
    assert torch.equal(altered(symmetric, "mirror"), symmetric.flip(-2))
    tinted = altered(image, "tint").double()
    # Shades of one colour: the channels are proportional wherever none is cut off.
    dim = tinted.amax(0) < 255
    assert torch.allclose(tinted[1][dim] / 0.72, tinted[2][dim] / 1.1, atol=1.5)
    assert fitness(image, "tint") > 5
    assert fitness(image, "same") == 0


def test_png_keeps_small_pictures_to_the_pixel_and_shrinks_large_ones():
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    opened = Image.open(io.BytesIO(png(image)))
    assert np.array_equal(np.array(opened), image.permute(1, 2, 0).numpy())
    assert opened.info == {}
    assert Image.open(io.BytesIO(png(torch.zeros(3, 600, 1200, dtype=torch.uint8)))).size == (512, 256)


# --- built from a run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("toy") / "run")


@pytest.fixture(scope="module")
def built(toy, tmp_path_factory):
    return build(*toy, tmp_path_factory.mktemp("study") / "study", seed=11, num_catches=3, repeats=1)


def picture(study, name):
    return torch.from_numpy(np.array(Image.open(study.pictures / f"{name}.png").convert("RGB"))).permute(2, 0, 1)


def test_pictures_show_what_the_truth_says(built, toy):
    from higan import store
    from higan.editing import apply
    from higan.types import Edit

    run, generator = toy
    boundaries = {b.concept.name: b for b in store.load_boundaries(run)}
    for trial in built.design.edits[::7]:
        codes = sample(generator, [trial.what.seed])
        assert torch.equal(picture(built, trial.before), render(generator, codes)[0])
        edit = Edit(boundaries[trial.what.concept], trial.what.strength, built.design.stages[trial.stage])
        assert torch.equal(picture(built, trial.after), render(generator, apply(codes, [edit]))[0])
    for trial in built.design.catches:
        assert torch.equal(picture(built, trial.after), altered(picture(built, trial.before), trial.catch))


def test_concepts_follow_the_verified_ones_both_ways_on_fresh_pictures(built, toy):
    from higan import store

    rescoring = store.load_rescoring(toy[0])
    whats = [trial.what for trial in built.design.edits]
    assert built.design.sources == LEVELS
    assert {w.concept for w in whats} <= {f"planted {k}" for k in range(6)}
    assert Counter(np.sign([w.strength for w in whats])) == {1.0: len(whats) / 2, -1.0: len(whats) / 2}
    assert {abs(w.strength) for w in whats} == {rescoring.step}
    used = {*rescoring.seeds.tolist(), *store.read_population(toy[0]).seeds.tolist()}
    shown = [w.seed for w in whats] + [trial.what.seed for trial in built.design.catches]
    assert not used & set(shown)
    assert len(set(shown)) == built.design.num_units + 3
    assert set(built.design.stages) == {"bottom", "lower", "upper", "top"}


def test_stages_are_moved_as_far_as_the_re_scoring_moved_them(tmp_path):
    from higan import store

    run, generator = make_run(tmp_path / "run")
    rescoring = store.load_rescoring(run)
    times = 1 + torch.arange(rescoring.steps.numel()).reshape(rescoring.steps.shape) / 50
    store.save_rescoring(run, replace(rescoring, steps=2 * times, step_mode="equal_change"))
    study = build(run, generator, tmp_path / "study", num_catches=0, repeats=1, step=3.0)
    boundaries = {b.concept.name: b for b in store.load_boundaries(run)}
    names = [placement.name for placement in rescoring.placements]
    for trial in study.design.edits[::5]:
        codes = sample(generator, [trial.what.seed])
        for layer in study.design.stages[trial.stage]:
            strength = trial.what.strength * float(times[names.index(trial.stage), layer])
            codes[:, layer] += strength * boundaries[trial.what.concept].normal[layer]
        assert abs(trial.what.strength) == 3
        # One grey level for the order of rounding.
        seen = picture(study, trial.after).int() - render(generator, codes)[0].int()
        assert int(seen.abs().max()) <= 1


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_every_stage_is_seen_forwards_as_often_as_backwards(num_layers, tmp_path):
    study = build(*make_run(tmp_path / "run", num_layers=num_layers), tmp_path / "study", num_catches=0)
    assert len(study.design.stages) == num_layers
    for number in range(num_layers):
        # Whatever block a rater has, of every level.
        shown = Counter((t.stage, t.what.source, np.sign(t.what.strength)) for t in study.block(number * 2))
        assert set(shown.values()) == {1}
        assert len(shown) == 2 * num_layers * len(study.design.sources)


def test_the_folder_carries_digests_and_the_run_s_profile_and_opens_again(built):
    again = open_study(built.path)
    assert again == built
    verify(again)
    assert again.expected.levels == LEVELS
    assert np.allclose(np.sum(again.expected.mean, 1), 1)
    names = sorted(entry.name for entry in built.path.iterdir())
    assert names == ["manifest.json", "pictures", "truth.json"]
    truth = json.loads((built.path / "truth.json").read_text())
    assert truth["design"]["seed"] == 11
    assert "/" not in json.dumps(truth)


def test_the_same_seed_builds_the_same_study_and_another_one_other_pictures(built, toy, tmp_path):
    again = build(*toy, tmp_path / "again", seed=11, num_catches=3, repeats=1)
    assert again.id == built.id
    assert dict(again.digests) == dict(built.digests)
    other = build(*toy, tmp_path / "other", num_catches=0, repeats=1)
    assert other.design.seed != 11
    assert not {e.what.seed for e in other.design.edits} & {e.what.seed for e in built.design.edits}


def test_a_run_without_verified_concepts_is_told_of_random_directions(toy, tmp_path):
    from higan import store

    run, *rest = toy
    shutil.copytree(run.path, tmp_path / "run")
    copy = store.load_run(tmp_path / "run")
    found = store.load_rescoring(copy)
    store.save_rescoring(copy, replace(found, changes=torch.zeros_like(found.changes)))
    with pytest.raises(ValueError, match=r"use random directions \(--along random\)"):
        build(copy, *rest, tmp_path / "study")


def test_random_directions_need_no_verified_concept(toy, tmp_path):
    calls = []
    study = build(
        *toy, tmp_path / "random", directions="random", repeats=2, num_catches=0, step=3.0, seed=1,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert study.design.sources == ("random",)
    assert len({trial.what.concept for trial in study.design.edits}) == study.design.num_units
    assert {abs(trial.what.strength) for trial in study.design.edits} == {3.0}
    drawn = len(study.design.edits) + study.design.num_units
    assert calls == [(k, drawn) for k in range(1, drawn + 1)]


def test_interrupted_the_same_call_goes_on_with_what_is_drawn(toy, tmp_path):
    drawn = []

    def stop(done, total):
        drawn.append(done)
        if len(drawn) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(*toy, tmp_path / "study", repeats=1, progress=stop)
    assert [entry.name for entry in tmp_path.iterdir()] == [".study.partial"]
    partial = tmp_path / ".study.partial"
    there = {path.name: path.stat().st_mtime_ns for path in (partial / "pictures").iterdir()}
    assert len(there) == 20
    # The twenty are kept, under the seed that was drawn; a damaged one would be found by its digest later.
    study = build(*toy, tmp_path / "study", repeats=1)
    assert {name: (study.pictures / name).stat().st_mtime_ns for name in there} == there
    assert dict(study.digests) == dict(build(*toy, tmp_path / "whole", repeats=1, seed=study.design.seed).digests)
    # Other settings begin anew.
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        build(*toy, tmp_path / "other", repeats=1, progress=stop)
    other = build(*toy, tmp_path / "other", repeats=1, num_catches=0)
    verify(other)
    assert len(list(other.pictures.iterdir())) == len(other.design.edits) + other.design.num_units
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other", "study", "whole"]


def test_bad_input_is_refused_and_nothing_is_left(toy, tmp_path, built):
    from higan import store
    from higan.generators.toy import ToyGenerator

    for options, message in [
        ({"repeats": 0}, "repeats must be at least 1; got 0"),
        ({"num_catches": -1}, "0 or more; got -1"),
        ({"step": float("nan")}, "above 0; got nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(*toy, tmp_path / "study", **options)
    with pytest.raises(ValueError, match="use the run's own generator"):
        build(toy[0], ToyGenerator(5), tmp_path / "study")

    class Idle(ToyGenerator):
        def synthesize(self, codes):
            raise AssertionError("nothing is drawn for a folder that cannot be written")

    with pytest.raises(UserStudyError, match="exists already"):
        build(toy[0], Idle(), built.path)
    run = store.open_run(tmp_path / "unfinished", {"num_samples": 10, "shard_size": 10, "seed": 0})
    with pytest.raises(RunError):
        build(run, toy[1], tmp_path / "study")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["unfinished"]


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(UserStudyError, match="no study folder"):
        open_study(tmp_path)
    study = make_study(tmp_path / "study")
    name = next(iter(study.pictures.iterdir()))
    name.write_bytes(b"x")
    with pytest.raises(UserStudyError, match=f"{name.name} is missing or damaged"):
        verify(study)
    manifest = study.path / "manifest.json"
    whole = json.loads(manifest.read_text())
    for part, wrong in (("id", None), ("made", "x"), ("digests", [])):
        manifest.write_text(json.dumps({**whole, part: wrong}))
        with pytest.raises(UserStudyError, match=rf"manifest.json is damaged \(no {part}\)"):
            open_study(study.path)
    manifest.write_text(json.dumps(whole))
    truth = study.path / "truth.json"
    truth.write_text(truth.read_text().replace('"bottom"', '"top"', 1))
    with pytest.raises(UserStudyError, match="not the file that the study was built with"):
        open_study(study.path)
    (study.path / "manifest.json").write_text("{")
    with pytest.raises(UserStudyError, match="damaged"):
        open_study(study.path)
    (study.path / "manifest.json").write_text("[]")
    with pytest.raises(UserStudyError, match="not a manifest"):
        open_study(study.path)


def test_answers_and_levels_are_the_same_words():
    assert (*LEVELS, "nothing") == CHOICES
