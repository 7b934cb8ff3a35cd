"""Scripts under benchmarks/ that need more machine than a test has: that they run, on tiny sizes."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from higan.layers import placements
from higan.rooms.classes import CATEGORIES
from higan.transitions import Journey, map_objects
from higan.types import Boundary, Concept, Edit, Rescoring, SegmentClass

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rates_of_a_gpu_can_be_measured_on_a_cpu(monkeypatch, capsys):
    line = "--device cpu --resolution 16 --batch 1 --rounds 1 --matrix 64 --num 400 --concepts 2"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *line.split()])
    runpy.run_path(str(SCRIPTS / "gpu.py"), run_name="__main__")
    printed = capsys.readouterr().out.replace(",", "")  # 1,500.0 on a fast machine
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in printed.splitlines() if row.startswith("|")]
    rates = {row[0]: float(row[1]) for row in rows if row[0] in ("drawn", "scored")}
    assert set(rates) == {"drawn", "scored"}
    assert min(rates.values()) > 0
    probing, fitting, verifying, together = map(float, rows[-1])
    assert together >= max(probing, fitting, verifying)
    assert verifying > 0


def test_edits_are_timed_singly_and_together(monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "argv", ["rescoring.py", *["--world", "rooms", "--samples", "16", "--rounds", "1"]])
    runpy.run_path(str(SCRIPTS / "rescoring.py"), run_name="__main__")
    name, samples, one, several, ratio = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert (name, samples) == ("rooms", "16")
    assert float(several) / float(one) == pytest.approx(float(ratio), abs=0.1)


def test_slices_are_timed_beside_the_whole(monkeypatch, capsys):
    line = "--generators rooms-32-s0 --batch 2 --rounds 1"
    monkeypatch.syspath_prepend(SCRIPTS)  # As for a script that is started: it imports its neighbour gpu.py.
    monkeypatch.setattr(sys, "argv", ["slices.py", *line.split()])
    runpy.run_path(str(SCRIPTS / "slices.py"), run_name="__main__")
    rows = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[:2] for row in rows] == [["rooms-32-s0", layer] for layer in ("0", "4", "6")]
    for _, _, whole, slices, ratio, share in rows:
        assert float(whole) / float(slices) == pytest.approx(float(ratio), abs=0.06 + 0.02 * float(ratio))
        assert share.removesuffix("%").isdecimal()


def test_more_samples_verify_more_single_layers(monkeypatch, capsys, tmp_path):
    line = f"--generator toy --scorer toy --num 600 --verify 32 --cache {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["layer_power.py", *line.split()])
    runpy.run_path(str(SCRIPTS / "layer_power.py"), run_name="__main__")
    printed = capsys.readouterr().out
    rows = [row.strip("| ").split(" | ") for row in printed.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["16, 2 times", "32, 1 times"]
    # The toy plants six concepts in a layer each: whichever are verified are so there, and nowhere else.
    concepts, at_the_strongest, cells = rows[1][1:]
    assert concepts == at_the_strongest == cells
    assert 4 <= float(concepts.split()[0]) <= 6
    # What is recorded is not recorded again.
    runpy.run_path(str(SCRIPTS / "layer_power.py"), run_name="__main__")
    again = capsys.readouterr().out
    assert "recorded" not in again
    assert again.splitlines()[-2:] == printed.splitlines()[-2:]


def test_transitions_are_counted_in_the_spread_of_all_samples(monkeypatch, capsys):
    """The chosen two differ by 2 in the first score reached, by 4 in the second; all samples by 10 and 5."""
    editing = script("editing")
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[:, :2] = 1
    mapping = map_objects(
        [SegmentClass("wall", "stuff", (0, 0, 0)), SegmentClass("bed", "thing", (1, 1, 1))], masks, masks
    )
    scores = torch.tensor([[[9.0, 0, 0], [0, 20, 0], [0, 0, 14]], [[9.0, 2, 4], [0, 22, 4], [0, 0, 10]]])
    leg = Edit(Boundary(Concept("x", "object"), torch.ones(1), torch.zeros(()), 1.0), 3.0, (0,))
    journey = Journey(
        CATEGORIES, torch.arange(2), (leg, leg), 1, torch.zeros(2, 3, 3, 4, 4, dtype=torch.uint8),
        torch.stack([masks] * 3, 1), scores, (mapping, mapping),
    )  # fmt: skip
    monkeypatch.setattr(editing, "travel", lambda *_, **__: journey)
    concepts = tuple(Concept(name, "object") for name in (CATEGORIES[2], "sofa", *CATEGORIES[:2]))
    rescoring = SimpleNamespace(concepts=concepts, score_std=torch.tensor([5.0, 1.0, 2.0, 10.0]))
    record = editing.transition_table(SimpleNamespace(rescoring=rescoring), None, 2)
    assert [leg["gain"] for leg in record.values()] == pytest.approx([2, 2])
    assert "| 3.0 | +2.0 |" in capsys.readouterr().out


def sibling(replication, name, table, null):
    """Concepts of two levels whose Δs at two layers are ``table``; what lies below ``null`` is not verified."""
    places = placements(2)
    means = torch.stack([torch.tensor(table)[:, list(place.layers)].sum(1) for place in places], 1)
    random = null + 0.01 * torch.rand(40, len(places), 2, generator=torch.Generator().manual_seed(0))
    rescoring = Rescoring(
        concepts=(Concept("bed", "object"), Concept("red", "colour")), placements=places, step=2.0,
        seeds=torch.arange(40), originals=torch.zeros(40, 2), changes=means[..., None].expand(-1, -1, 40).clone(),
        effects=torch.zeros(2, len(places), 2), null=random, score_std=torch.ones(2),
    )  # fmt: skip
    return replication.Sibling(name, 2, 2.0, 1.0, rescoring)


def test_siblings_in_which_nothing_is_verified_have_dashes_and_no_agreement(capsys, tmp_path):
    replication = script("replication")
    both = sibling(replication, "both", [[4.0, 0.0], [0.0, 4.0]], 0.0)
    one = sibling(replication, "one", [[4.0, 0.0], [0.0, 0.0]], 0.0)
    none = sibling(replication, "none", [[0.0, 0.0], [0.0, 0.0]], 1.0)
    replication.print_levels([both, one, none])
    replication.print_agreement([both, one, none])
    replication.print_lighting([none])
    replication.draw([both, one, none], tmp_path / "figure.svg")
    rows = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    levels, agreement = ([row for row in rows if len(row) == width] for width in (9, 6))
    assert [row[-2:] for row in levels[1:]] == [["objects < colour", "100%"], ["–", "–"], ["–", "–"]]
    assert [row[0] for row in agreement[1:]] == [
        "both, two halves of its samples", "one, two halves of its samples", "both and one",
    ]  # fmt: skip
    assert [row[2] for row in agreement[2:]] == ["–", "–"]
    assert (tmp_path / "figure.svg").read_text().count("none verified") == 2 + 3 + 4


def test_one_level_has_no_order_beside_a_wrong_scorer():
    """Both scorers verify one concept, of one level."""
    predictor = script("predictor_error")
    places = placements(2)
    concepts = tuple(Concept(f"{name}@{judge}", "object") for judge in ("reference", "other") for name in "ab")
    means = torch.tensor([4.0, 0.0, 4.0, 0.0])[:, None] * torch.tensor([1.0, 1, 0, 1, 0])
    random = 0.01 * torch.rand(40, len(places), 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    found = Rescoring(
        concepts=concepts, placements=places, step=2.0, seeds=torch.arange(40), originals=torch.zeros(40, 4),
        changes=means[..., None].expand(-1, -1, 40).clone(), effects=torch.ones(4, len(places), 4), null=random,
        score_std=torch.ones(4), permuted=random,
    )  # fmt: skip
    boundaries = [Boundary(concept, torch.ones(1), torch.zeros(()), 1.0) for concept in concepts]
    row = predictor.row("other", found, SimpleNamespace(scores=noise), boundaries)
    assert row["verified"] == 1
    assert row["in order"] is None


def test_curves_that_stay_at_zero_are_drawn_along_the_axis(monkeypatch, tmp_path):
    """R1 is no part of some trainings, whose logs say 0; of others there is no record at all."""
    log, out = tmp_path / "log.jsonl", tmp_path / "curves.svg"
    keys = ("loss_d", "loss_g", "real_logit", "fake_logit", "images_per_second")
    lines = [{"images": 10 * k, "resolution": 16, "r1": 0.0, "seconds": 1.0} | dict.fromkeys(keys, 0.5) for k in (1, 2)]
    log.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(sys, "argv", ["training_curves.py", str(log), "--out", str(out)])
    runpy.run_path(str(SCRIPTS / "training_curves.py"), run_name="__main__")
    curves = script("training_curves")
    top = 40
    zeros = [("one", [{"images": 10, "resolution": 16, "r1": 0.0}])]
    (line,) = [p for p in curves.panel(zeros, "t", (("", "r1"),), top, 10, 1) if p.startswith("<polyline")]
    assert f'points="{curves.LEFT + curves.WIDE:.1f},{top + curves.HIGH:.1f}"' in line
    assert curves.panel(zeros, "t", (("", "nothing"),), top, 10, 1)
