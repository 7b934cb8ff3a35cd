"""The benchmark: metrics against other people's code, truths against each other, every method on a world made easy."""

import csv
import json
import math
import re
import runpy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from higan.benchmark.methods import METHODS, Answer, Lab, _suiting, usable
from higan.benchmark.page import Plate, headline, table, write_benchmark
from higan.benchmark.run import Budget, Setting, World, _cell, estimate, run_benchmark, unfinished
from higan.benchmark.tasks import TASKS, Record, area, calls, grade, purity, rank_correlation, spread
from higan.benchmark.truth import Truth, estimate_truth, exact_truth
from higan.cli.benchmark import _exact, _left
from higan.errors import RunMismatchError
from higan.generators.toy import ToyGenerator
from higan.generators.transparent import FACTORS, TransparentGenerator
from higan.layers import groups
from higan.scorers.combined import ChosenScorer, CombinedScorer
from higan.scorers.loading import load_scorer
from higan.scorers.nulls import NullScorer
from higan.scorers.toy import ToyScorer
from higan.types import LEVELS, Boundary, Concept, Edit

F = len(FACTORS)


def world(entanglement, seed=0, **options):
    scorer = CombinedScorer([load_scorer("transparent"), NullScorer(3)])
    return World(TransparentGenerator(entanglement, seed=seed, **options), scorer)


@pytest.fixture(scope="module")
def easy():
    made = world(0.0)
    lab = Lab(made.generator, made.scorer, num=400, verify=8, num_random=5)
    return made, lab, exact_truth(made.generator, made.scorer.concepts)


def towards(normal, layers=range(10)):
    return Edit(Boundary(Concept("x", "layout"), normal, torch.zeros(()), math.nan), 1.0, tuple(layers))


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_rank_correlation_is_spearmans():
    dice = torch.Generator().manual_seed(0)
    for ties in (100, 3):
        a, b = (torch.randint(ties, (30,), generator=dice).double().tolist() for _ in range(2))
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0


def test_area_is_that_of_scikit_learn():
    dice = torch.Generator().manual_seed(1)
    evidence = torch.randint(6, (20, 5), generator=dice).double().numpy()
    causes = torch.randint(-1, 2, (20, 5), generator=dice).double().numpy()
    known = causes >= 0
    assert area(evidence, causes) == pytest.approx(roc_auc_score(causes[known], evidence[known]))
    assert area(evidence, causes * 0) == 0.5


def test_purity_is_one_for_the_true_direction_and_known_for_a_mixture(easy):
    made, _, truth = easy
    d = made.generator.directions
    assert purity(towards(d[0], [0]), 0, truth) == pytest.approx(1, abs=1e-4)
    # At layer 1 view yaw is not to be had; backwards it falls.
    assert purity(towards(d[0], [1]), 0, truth) == 0
    assert purity(towards(-d[0], [0]), 0, truth) == 0
    # Yaw (gain 0.6, spread 1.45) and lighting live apart: an edit at all layers changes both, each by its own slope.
    both = torch.nn.functional.normalize(d[0] + d[8], dim=0)
    alone = purity(towards(both, [0]), 0, truth)
    mixed = purity(towards(both), 0, truth)
    assert alone == pytest.approx(1, abs=1e-4)
    assert 0.5 < mixed < 0.8


def test_grade_of_the_truth_is_perfect(easy):
    made, _, truth = easy
    edits = [towards(d, groups(10)["bottom"] if not d.any() else range(10)) for d in truth.directions]
    perfect = Answer(truth.directions, truth.strength, truth.effects, truth.effects, None, tuple(edits))
    record = grade(perfect, truth, made.scorer.concepts)
    every = torch.arange(F + 3).numpy()
    assert [task.measure(record, every) for task in TASKS.values()] == pytest.approx([1] * 5, abs=1e-4)
    assert calls(record) is None
    assert Record(**json.loads(json.dumps(record.as_json()))).real == [True] * F + [False] * 3
    point, low, high = spread([record, record], TASKS["layers"].measure)
    assert (point, low, high) == pytest.approx((1, 1, 1), abs=1e-4)


def a_record(overlap, real):
    none = [0.0] * len(overlap)
    return Record(list(real), list(overlap), none, none, none, none, [[0.0]] * len(real), [[0]] * len(real), None)


def test_resamples_without_a_real_concept_say_nothing():
    record = a_record([0.9, 0.0, 0.0, 0.0, 0.0, 0.0], [True] + [False] * 5)
    assert spread([record], TASKS["layers"].measure) == pytest.approx((0.9, 0.9, 0.9))


def test_resamples_with_nothing_to_tell_apart_say_nothing():
    """One concept of five has a cause, which is found without error: no resample may call that a guess."""
    labels = [[1, 0, 0]] + [[0, 0, 0]] * 4
    none = [0.0] * 5
    found = replace(a_record(none, [True] * 5), causes=labels, evidence=[[float(v) for v in row] for row in labels])
    assert spread([found], TASKS["detection"].measure) == (1, 1, 1)
    nothing = replace(found, causes=[[0, 0, 0]] * 5)
    assert spread([nothing], TASKS["detection"].measure) == (0.5, 0.5, 0.5)


def test_a_candidate_is_named_for_what_it_moves_beside_all_else():
    """By hand: the first moves all, the second one concept by half as much, the third that alone but too little."""
    moved = torch.tensor([[1.0, 0.9, 0.8], [-0.5, 0.0, 0.1], [0.3, 0.0, 0.0], [0.1, 0.2, 0.7]])
    assert _suiting(moved, 100).tolist() == [1, 0, 3]
    # Alike but for what K samples cannot tell.
    assert _suiting(torch.tensor([[0.8, 0.001], [1.0, 0.002]]), 32)[0] == 1
    assert _suiting(torch.tensor([[0.8], [-1.0]]), 32).tolist() == [1]


def test_concepts_are_the_same_for_all_seeds():
    """The mean over new seeds and new concepts, where concepts differ more than seeds do."""
    held = []
    for seed in range(100):
        dice = np.random.default_rng(seed)
        values = 0.5 + dice.normal(0, 0.1, 14) + dice.normal(0, 0.02, (3, 1)) + dice.normal(0, 0.03, (3, 14))
        records = [a_record(row.tolist(), [True] * 14) for row in values]
        _, low, high = spread(records, TASKS["layers"].measure, num_resamples=200, seed=seed)
        held.append(low <= 0.5 <= high)
    assert np.mean(held) >= 0.86


def test_false_alarms_and_hits_are_counted_by_hand():
    record = Record(
        real=[True, False], overlap=[1.0, 0.0], effect=[1.0, 0.0], strength=[1.0, 0.0], cosine=[1.0, 0.0], purity=[1.0, 0.0],
        evidence=[[1.0, 0.0], [0.0, 0.0]], causes=[[1, 0], [0, -1]], called=[[True, False], [True, True]],
    )  # fmt: skip
    assert calls(record) == (0.5, 1.0)


# ---- truth -----------------------------------------------------------------------------------------------------------


def test_exact_truth_is_what_moving_codes_does():
    made = world(0.5, seed=2)
    truth = exact_truth(made.generator, made.scorer.concepts, num=1100, seed=1)
    assert truth.exact
    assert len(truth.codes) == 1100
    assert truth.real.tolist() == [True] * F + [False] * 3
    # Differences of values, at one layer, against the closed form; another sample of codes.
    codes = made.generator.map(made.generator.latents(range(2000)))
    values = made.generator.values(codes)
    f, layer = 3, int(made.generator.layer_weights[3].argmax())
    moved = codes.clone()
    moved[:, layer] += 0.01 * made.generator.directions[f]
    size = (made.generator.values(moved) - values)[:, f].abs().mean() / 0.01 / values[:, f].std()
    assert float(truth.effects[f, layer]) == pytest.approx(float(size), rel=0.1)
    stronger = made.generator.values(codes + 2 * made.generator.directions[f])[:, f]
    assert float(truth.strength[f]) == pytest.approx(
        float((stronger - values[:, f]).mean() / values[:, f].std()), rel=0.1
    )
    assert truth.causes[:F].eq(0).equal(made.generator.layer_weights == 0)
    assert not truth.effects[F:].any()


def test_estimated_truth_comes_near_the_exact_one():
    made = world(0.4, seed=1)
    nulls = [c.name for c in made.scorer.concepts if c.name.startswith("null")]
    exact = exact_truth(made.generator, made.scorer.concepts)
    seen = []
    found = estimate_truth(
        made.generator, made.scorer, nulls=nulls, disturbances=3000, num=8, progress=lambda d, t: seen.append((d, t))
    )
    assert not found.exact
    assert seen[-1] == (3750, 3750)
    assert found.real.equal(exact.real)
    assert (found.directions * exact.directions).sum(1)[:F].min() > 0.85
    shares = [t.effects[:F] / t.effects[:F].sum(1, keepdim=True) for t in (found, exact)]
    assert torch.minimum(*shares).sum(1).mean() > 0.85
    assert found.causes[:F].max() == 1
    assert not found.causes[F:].any()
    torch.testing.assert_close(found.strength, exact.strength, atol=0.35, rtol=0)


def test_truth_needs_enough_disturbances_and_one_code():
    made = world(0.0)
    with pytest.raises(ValueError, match="more than 720 disturbances; got 700"):
        estimate_truth(made.generator, made.scorer, disturbances=700)
    with pytest.raises(ValueError, match="codes of their own"):
        estimate_truth(ToyGenerator(), ToyScorer(), disturbances=200)


# ---- methods on a world whose answers are known by hand --------------------------------------------------------------


LEAST = {
    "ours": (0.98, 0.6, 0.9, 0.98, 0.97),
    "ours (every sample)": (0.98, 0.6, 0.95, 0.98, 0.97),
    "ours (conditional)": (0.98, 0.6, 0.95, 0.98, 0.97),
    "ours (softly conditional)": (0.98, 0.6, 0.95, 0.98, 0.97),
    "official code": (0.5, -1, 0.9, 0.95, 0.7),
    "InterFaceGAN": (0.1, 0.1, 0.9, 0.95, 0.5),
    "InterFaceGAN (conditional)": (0.1, 0.1, 0.9, 0.95, 0.5),
    "SeFa": (0.98, 0.7, 0.85, 0.8, 0.97),
    "PCA (GANSpace)": (0.95, 0.4, 0.6, 0.7, 0.9),
    "random directions": (0.9, -1, 0.2, 0.3, 0.7),
}
"""What each method must reach without entanglement, task by task."""


@pytest.mark.parametrize("name", METHODS)
def test_method_finds_the_known_answer(easy, name):
    made, lab, truth = easy
    answer = METHODS[name](lab)
    record = grade(answer, truth, made.scorer.concepts)
    every = torch.arange(F + 3).numpy()
    for task, least in zip(TASKS.values(), LEAST[name], strict=True):
        assert task.measure(record, every) >= least, task.name
    if name == "random directions":
        assert TASKS["directions"].measure(record, every) < 0.5
    if name == "official code":
        stages = [*groups(10).values()]
        for concept, edit in zip(made.scorer.concepts, answer.edits, strict=True):
            assert edit.layers == stages[LEVELS.index(concept.level)]
    if name == "ours":
        false_alarms, hits = calls(record)
        assert false_alarms < 0.08
        assert hits > 0.9
        assert (answer.effect[F:] > 0).sum() <= 1  # of three that are not there


def test_conditional_edits_are_purer_where_directions_mix():
    made = world(0.6, seed=3)
    lab = Lab(made.generator, made.scorer, num=600, verify=4, num_random=3)
    truth = exact_truth(made.generator, made.scorer.concepts)
    every = torch.arange(F + 3).numpy()

    def mean_purity(name):
        return TASKS["editing"].measure(grade(METHODS[name](lab), truth, made.scorer.concepts), every)

    assert mean_purity("InterFaceGAN (conditional)") > mean_purity("InterFaceGAN") + 0.03


def test_one_layer_is_a_generator_too(tmp_path):
    """Codes of 8 numbers, fewer than a method chooses candidates from, and one direction that was planted."""

    def tell(world, seed):
        return estimate_truth(
            world.generator, world.scorer, nulls=("noise", "constant"), disturbances=80, num=4, seed=seed
        )

    def opened(seed):
        return World(ToyGenerator(1, 8, shared_code=True), ToyScorer(1))

    single = Setting("single", "one layer", False, (0,), opened, tell, Budget(200, 6, 3), {})
    names = ("ours", "ours (conditional)", "official code", "InterFaceGAN", "PCA (GANSpace)", "random directions")
    methods = {name: METHODS[name] for name in names}
    found = run_benchmark(tmp_path, [single], methods=methods)
    value = {(row.method, row.task): row.value for row in found.rows}
    assert {method for method, _ in value} == {*methods}
    for name in names[:4]:
        assert value[name, "directions"] > 0.95
    assert value["ours", "layers"] == 1
    assert write_benchmark(tmp_path, found).is_file()


def test_layers_with_codes_of_their_own_are_refused():
    with pytest.raises(ValueError, match="the layers of 'toy' have codes of their own; methods are compared where all"):
        Lab(ToyGenerator(), ToyScorer())


def test_sefa_sits_out_where_weights_are_not_told(tmp_path):
    assert "SeFa" not in usable(METHODS, ToyGenerator(shared_code=True))
    assert usable(METHODS, TransparentGenerator()).keys() == METHODS.keys()
    blind = replace(setting(), open=lambda seed: World(ToyGenerator(shared_code=True), ToyScorer()))
    with pytest.raises(ValueError, match=r"none of the methods can be used .*: SeFa"):
        run_benchmark(tmp_path, [blind], methods={"SeFa": METHODS["SeFa"]})


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("directions", torch.zeros(2, 48), "directions of an answer must have shape"),
        ("effect", torch.full((F + 3,), math.nan), "effect of an answer must be finite"),
        ("profile", -torch.ones(F + 3, 10), "must not lie below zero"),
        ("p", torch.zeros(F + 3, 9), "p of an answer"),
        ("edits", (), "one edit per concept"),
    ],
)
def test_wrong_answers_are_refused(easy, part, value, words):
    made, _, truth = easy
    answer = Answer(truth.directions, truth.strength, truth.effects, truth.effects, None, ())
    object.__setattr__(answer, part, value)  # past the checks of shapes that only tests have
    with pytest.raises(ValueError, match=words):
        grade(answer, truth, made.scorer.concepts)


# ---- the whole -------------------------------------------------------------------------------------------------------


def setting(name="tiny", seeds=(0,), tell=None):
    def exact(opened, seed) -> Truth:
        return exact_truth(opened.generator, opened.scorer.concepts, num=32, seed=seed)

    return Setting(name, name, True, seeds, lambda seed: world(0.3, seed), tell or exact, Budget(60, 4, 3), {})


def guess(lab):
    d = torch.nn.functional.normalize(torch.ones(len(lab.concepts), lab.generator.code_dim), dim=1)
    even = torch.ones(len(lab.concepts), lab.generator.num_layers)
    edits = tuple(
        Edit(Boundary(c, row, torch.zeros(()), math.nan), 1.0, (0,)) for c, row in zip(lab.concepts, d, strict=True)
    )
    return Answer(d, even[:, 0], even, even, None, edits)


def test_a_method_of_ones_own_is_one_function(tmp_path):
    heard = []
    results = run_benchmark(
        tmp_path, [setting(seeds=(0, 1))], methods={"guess": guess}, report=lambda *a: heard.append(a)
    )
    assert heard[-1][1:] == (2, 2)
    assert results.figure("tiny", "guess", "detection").value == 0.5
    assert results.figure("tiny", "guess", "ranking").value == 0
    assert results.figure("tiny", "nobody", "ranking") is None
    assert not results.alarms
    page = write_benchmark(tmp_path, results, plates=[Plate("x", torch.zeros(2, 3, 8, 8, dtype=torch.uint8))])
    assert "guess" in page.read_text()
    drawings = re.findall(r"<svg[^>]*>", page.read_text())
    assert len(drawings) == 6
    assert all('role="img" aria-label="' in drawing for drawing in drawings)
    assert not re.search(r">-\d", page.read_text())
    assert dict(headline(results))
    assert [line.method for line in table(results, results.settings[0])] == ["guess"]
    # What the headline is over does not hang on which setting comes first.
    mixed = replace(results, settings=(replace(setting("guessed"), exact=False), *results.settings))
    assert "Over the settings with exact truth, first" in write_benchmark(tmp_path, mixed).read_text()


def test_cells_that_are_read_again_say_the_same(tmp_path):
    def guess(lab):
        C, L = len(lab.concepts), lab.generator.num_layers
        random = partial(torch.rand, generator=torch.Generator().manual_seed(0))
        directions = torch.nn.functional.normalize(random(C, lab.generator.code_dim), dim=1)
        edits = tuple(towards(row, (0,)) for row in directions)
        return Answer(directions, random(C), random(C, L), random(C, L), None, edits)

    first, again = (run_benchmark(tmp_path, [setting()], methods={"guess": guess}) for _ in range(2))
    assert any(row.value not in (0, round(row.value, 3)) for row in first.rows)
    assert first.rows == again.rows


def test_methods_whose_names_look_alike_have_cells_of_their_own(tmp_path):
    def saying(evidence):
        def method(lab):
            C, L = len(lab.concepts), lab.generator.num_layers
            directions = torch.nn.functional.normalize(torch.ones(C, lab.generator.code_dim), dim=1)
            edits = tuple(towards(row, (0,)) for row in directions)
            return Answer(directions, torch.arange(C) * evidence, torch.ones(C, L), torch.ones(C, L), None, edits)

        return method

    methods = {"mine (a)": saying(1.0), "mine a": saying(-1.0), "我": saying(1.0), "你": saying(-1.0)}
    results = run_benchmark(tmp_path, [setting()], methods=methods)
    found = [results.figure("tiny", name, "ranking").value for name in methods]
    assert found[0] == found[2] == -found[1] == -found[3] != 0


WRITTEN = """
import torch
from higan.benchmark import Answer
from higan.types import Boundary, Edit

def method(lab):
    C, L = len(lab.concepts), lab.generator.num_layers
    rows = torch.nn.functional.normalize(torch.ones(C, lab.generator.code_dim), dim=1)
    edits = tuple(Edit(Boundary(c, row, torch.zeros(()), float("nan")), 1.0, (0,)) for c, row in zip(lab.concepts, rows))
    return Answer(rows, torch.arange(C) * SIGN, torch.ones(C, L), torch.ones(C, L), None, edits)
"""


def test_a_method_that_is_written_otherwise_is_tried_again(tmp_path):
    found = []
    for sign in ("1.0", "1.0", "-1.0"):
        (tmp_path / "own.py").write_text(WRITTEN.replace("SIGN", sign))
        names = runpy.run_path(str(tmp_path / "own.py"))
        found.append(run_benchmark(tmp_path / "out", [setting()], methods={"mine": names["method"]}))
    first, again, other = (results.figure("tiny", "mine", "ranking").value for results in found)
    assert first == again == -other != 0
    assert len([*(tmp_path / "out" / "cells").iterdir()]) == 2


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="needs settings and methods"):
        run_benchmark(tmp_path, [])
    with pytest.raises(ValueError, match="different names; got tiny, tiny"):
        run_benchmark(tmp_path, [setting(), setting()])
    with pytest.raises(ValueError, match="at least one seed"):
        setting(seeds=())
    with pytest.raises(ValueError, match="different seeds; got 0, 0"):
        setting(seeds=(0, 0))
    with pytest.raises(ValueError, match="takes no slashes; got 'a/b'"):
        replace(setting(), name="a/b")
    barren = replace(setting(), open=lambda seed: World(TransparentGenerator(0.0, seed=seed), NullScorer(2)))
    with pytest.raises(ValueError, match=r"a cause of none of its concepts \(null 0, null 1\)"):
        run_benchmark(tmp_path, [barren], methods={"mine": lambda lab: pytest.fail("asked before the truth")})
    with pytest.raises(ValueError, match="num must be at least 20; got 3"):
        Budget(num=3)
    with pytest.raises(ValueError, match=r"choose among .*; got sky"):
        ChosenScorer(load_scorer("transparent"), ["sky"])


def test_cost_is_counted_before_it_is_paid():
    images, seconds = estimate(setting(seeds=(0, 1)))
    # Per seed: 60 probes, twice 4 × (1 + (17 concepts + 3 random) × 15 places), thrice 4 × (2 + 80 + 18 × 11).
    assert images == 2 * (60 + 2 * 4 * (1 + 20 * 15) + 3 * 4 * (2 + 80 + 18 * 11))
    assert seconds > 0


def test_seeds_are_done_when_every_method_was_tried(tmp_path):
    few = {"one": guess, "other": guess}
    tried = setting(seeds=(3, 4, 5))
    assert unfinished(tmp_path, tried, few) == (3, 4, 5)
    run_benchmark(tmp_path, [setting(seeds=(3, 4))], methods=few)
    assert unfinished(tmp_path, tried, few) == (5,)
    next((tmp_path / "cells").glob("*-4-*")).unlink()
    assert unfinished(tmp_path, tried, few) == (4, 5)
    assert unfinished(tmp_path, tried) == (3, 4, 5)


def test_the_command_tells_the_cost_of_what_is_left(tmp_path):
    (tmp_path / "cells").mkdir()
    first, both = (_exact(0.4, "paper", range(k), "cpu", quick=True) for k in (1, 2))
    for name, method in METHODS.items():
        _cell(tmp_path / "cells", first, 0, name, method).write_text("{}")
    assert _left(tmp_path, [first]) == "1 setting, 1 world, all done before."
    images, _ = estimate(first)
    assert f"1 setting, 2 worlds, 1 to do: about {images:,} images, " in _left(tmp_path, [both])
    assert f"1 setting, 2 worlds: about {2 * images:,} images, " in _left(tmp_path / "other", [both])


def test_a_benchmark_is_not_put_into_a_run(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    setting = Setting("toy", "toy", True, (0,), world, lambda world, seed: None, Budget())
    with pytest.raises(RunMismatchError, match="is the folder of a run; choose another"):
        run_benchmark(tmp_path, [setting])
    assert not (tmp_path / "cells").exists()


def test_quick_benchmark_from_the_command_line_and_again(higan, tmp_path):
    out = tmp_path / "b"
    code, printed = higan("benchmark", "--quick", "--out", out)
    assert code == 0, printed
    assert "10 methods in 1 setting, 1 world: about" in printed
    assert "ours (conditional)" in printed
    page = (out / "benchmark.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 6
    assert (out / "benchmark.svg").read_text().startswith("<svg xmlns=")
    rows = list(csv.DictReader((out / "benchmark.csv").read_text().splitlines()))
    assert len(rows) == 10 * 5
    # Short as it is, it verifies concepts, so that there is a ranking to judge.
    ranking = {r["method"]: float(r["value"]) for r in rows if r["task"] == "ranking"}
    assert ranking["ours"] > 0.5
    assert all(
        float(r["low"]) <= float(r["value"]) + 1e-6 and float(r["value"]) <= float(r["high"]) + 1e-6
        for r in rows
        if r["task"] in ("layers", "directions")
    )
    assert json.loads((out / "benchmark.json").read_text())["rows"][0]["task"] == "layers"

    before = (out / "benchmark.csv").read_bytes()
    cells = sorted((out / "cells").iterdir())
    assert len(cells) == 10
    cells[4].unlink()
    kept = cells[5].stat().st_mtime_ns
    code, _ = higan("benchmark", "--quick", "--out", out)
    assert code == 0
    assert (out / "benchmark.csv").read_bytes() == before
    assert cells[5].stat().st_mtime_ns == kept

    cells[0].write_text("{")
    code, printed = higan("benchmark", "--quick", "--out", out)
    assert code == 1
    assert "10 methods in 1 setting, 1 world, all done before." in printed
    assert "is damaged" in printed
    assert "run the same line again" in printed


def test_command_refuses_no_worlds(higan, tmp_path):
    code, printed = higan("benchmark", "--worlds", 0, "--out", tmp_path / "b")
    assert code == 2
    assert "--worlds must be at least 1; got 0" in printed


@pytest.mark.parametrize(("words", "worlds"), [(["--quick"], "1 world"), (["--quick", "--worlds", 2], "2 worlds")])
def test_a_quick_benchmark_has_as_many_worlds_as_are_asked_for(higan, tmp_path, words, worlds):
    """Told before the work, of which there is none in the folder of a run."""
    (tmp_path / "manifest.json").write_text("{}")
    code, printed = higan("benchmark", *words, "--out", tmp_path)
    assert (code, f"10 methods in 1 setting, {worlds}: about" in printed) == (1, True), printed
