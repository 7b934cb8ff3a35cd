"""Scripts under benchmarks/ that need more machine than a test has: that they run, on tiny sizes."""

import importlib.util
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from higan.rooms.classes import CATEGORIES
from higan.transitions import Journey, map_objects
from higan.types import Boundary, Concept, Edit, SegmentClass

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
    printed = capsys.readouterr().out
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
