"""Scripts under benchmarks/ that need more machine than a test has: that they run, on tiny sizes."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


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
