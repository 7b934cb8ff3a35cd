"""The command line as a person uses it, in process; one check that the installed program starts."""

import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import typer
from adapters import FAMILIES
from PIL import Image
from rich.console import Console

from higan import load_boundary, load_generator, load_scorer, store, study
from higan.boundaries import fit
from higan.checkpoints.official import export_official
from higan.cli import telling
from higan.cli.app import RESUMED, VERBS, app, console, link, minutes, progress_bars
from higan.cli.models import digests_of
from higan.engines import InProcess, Processes
from higan.generators.loading import ROOMS, save_generator
from higan.generators.pretrained import wrap
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.generators.toy import ToyGenerator
from higan.population import measure
from higan.rooms.dataset import open_data, sample_rooms
from higan.statistics import rank
from higan.studio import shipped_study
from higan.weights import read_weights

ROOT = Path(__file__).parents[1]
TOY = ["--generator", "toy", "--scorer", "toy"]
REFUSED = [
    (["--num", "3"], "fitting needs at least 4 samples; got 3"),
    (["--num", "9999999999999"], "a run has at most 2,147,483,648 samples to probe and as many to verify; got 9,999,"),
    (["--verify", "2147483649"], "a run has at most 2,147,483,648 samples to probe and as many to verify; got 2,147,"),
    (["--verify", "1"], "verify must be at least 2; got 1"),
    (["--random", "0"], "num_random must be at least 1; got 0"),
    (["--permuted", "-1"], "the number of permuted fits must be 0, for no such null, or at least 3"),
    (["--permuted", "2"], "with which a single effect can be verified at q = 0.05; got 2"),
    (["--step", "nan"], "step must be finite and other than 0; got nan"),
    (["--step", "-2"], "--step is how far codes go along a boundary, to where there is more of a concept; got -2"),
    (["--step", "0"], "step must be finite and other than 0; got 0"),
    (["--step", "1e300"], "step must be finite and other than 0; got 1e+300"),
    (["--step", "1e-300"], "step must be finite and other than 0; got 1e-300"),
    (["--adaptive", "--top", "0"], "top must be at least 1; got 0"),
    (["--adaptive", "--confidence", "1"], "confidence must lie between 0 and 1; got 1"),
    (["--num-extreme", "1.5"], "a share of all samples up to 1 and a whole number above; got 1.5"),
    (["--C", "0"], "C and ridge must be above 0 and finite; got C=0"),
    (["--workers", "0"], "workers must be at least 1; got 0"),
    (["--device", "cuda:99"], "device cuda:99 is a GPU, and torch"),
]
"""What a whole study refuses before anything is sampled."""
GOES_ON = "The same command goes on where it stopped."


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    line = [sys.executable, "-m", "higan.cli", "run", *TOY, "--out", str(folder), "--num", "600", "--verify", "60"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, " ".join(done.stdout.split())


def test_run_announces_its_cost_and_names_the_report(finished):
    folder, printed = finished
    # 600 probes, 60 originals, 60 × (8 concepts + 20 random + 20 permuted) × (all + 6 layers + 2 stages that are not single layers)
    assert "toy (6 layers, 8 pixels) scored by toy (8 concepts): 26,580 images, about" in printed
    assert "planted 0" in printed
    assert "report.html" in printed
    report = (folder / "report.html").read_text("utf-8")
    # How every step was taken, not only how the run was begun.
    for name, value in (("fit · C", "1.0"), ("fit · loss", "squared_hinge"), ("rescore · num", "60")):
        assert f'<th scope="row">{name}</th><td><code>{value}</code></td>' in report


def test_steps_are_compared_in_words(finished, higan, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    code, kept = higan("steps", folder)
    assert code == 0
    assert "images to score" not in kept
    for word in ("planted 0", "+4", "official:", "equal_change:"):
        assert word in kept
    code, printed = higan("steps", folder, "--verify", 6, "--random", 4)
    assert code == 0
    assert "planted 0" in printed
    code, ranking = higan("rescore", folder, "--verify", 12, "--step-mode", "equal_change", "--images-at-once", 5)
    assert code == 2
    assert "holds a re-scoring of 60 samples, which one of 12 would replace; say --verify 60, or --discard" in ranking
    line = ["--verify", 12, "--step-mode", "equal_change", "--images-at-once", 5, "--discard"]
    code, ranking = higan("rescore", folder, *line)
    assert code == 0
    assert "cosine" in ranking
    # The comparison belonged to the other re-scoring: it costs its images again.
    _, printed = higan("steps", folder, "--verify", 6)
    assert "images to score" in printed or "nothing to compare" in printed


def test_levels_that_are_not_verified_are_not_called_untried(finished, higan, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    chosen = [word for name in ("planted 0", "planted 2", "noise") for word in ("--concept", name)]
    assert higan("fit", folder, *chosen, "--discard")[0] == 0
    assert higan("rescore", folder, "--verify", 24)[0] == 0
    code, printed = higan("steps", folder, "--verify", 8, "--random", 4)
    assert code == 0
    modes = printed[printed.index("official:") :].split("equal_change:")
    assert len(modes) == 2
    for told in modes:
        assert "no concept of attributes could be verified; no concept of colour scheme was tried." in told


def test_what_is_damaged_is_made_again_by_the_same_line(finished, higan, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    whole = (folder / "rescoring.safetensors").read_bytes()
    for name in ("boundaries", "permuted"):
        path = folder / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
        code, printed = higan("run", *TOY, "--out", folder, "--num", 600, "--verify", 60)
        assert code == 0, printed
    assert (folder / "rescoring.safetensors").read_bytes() == whole


def test_a_longer_rescoring_is_not_replaced_by_the_line_that_began_the_run(finished, higan, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    assert higan("rescore", folder, "--verify", 70)[0] == 0
    code, printed = higan("run", *TOY, "--out", folder, "--num", 600, "--verify", 60)
    assert code == 2
    assert (
        "holds a re-scoring of 70 samples, which one of 60 would replace; repeat the line with --verify 70" in printed
    )
    assert study.steps_of(store.load_run(folder))["rescore"]["settings"]["num"] == 70


@pytest.mark.parametrize("line", [["rescore", "FOLDER"], ["run", *TOY, "--num", 600, "--out", "FOLDER"]])
def test_a_whole_rescoring_is_not_replaced_by_an_adaptive_one(finished, higan, tmp_path, line):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    whole = (folder / "rescoring.safetensors").read_bytes()
    line = [folder if word == "FOLDER" else word for word in line]
    for verify in (60, 500):
        code, printed = higan(*line, "--adaptive", "--verify", verify)
        assert code == 2
        assert "holds a re-scoring of 60 samples, which an adaptive one, which takes fewer of most edits," in printed
        assert "--discard" in printed
    assert (folder / "rescoring.safetensors").read_bytes() == whole
    assert higan("rescore", folder, "--adaptive", "--verify", 64, "--discard")[0] == 0
    assert higan("rescore", folder, "--adaptive", "--verify", 64)[0] == 0


def test_a_rescoring_under_way_is_not_lost_to_another_fit(finished, higan, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "rescoring.safetensors").unlink()
    steps = json.loads((folder / "steps.json").read_text())
    (folder / "steps.json").write_text(json.dumps({"fit": steps["fit"]}))
    run = store.load_run(folder)
    store.Units(run).save("key", 0, {"originals": torch.zeros(4, 8)})
    for line in (["fit", folder, "--C", 0.1], ["run", *TOY, "--out", folder, "--num", 600, "--verify", 60, "--C", 0.1]):
        code, printed = higan(*line)
        assert code == 2
        assert "holds a re-scoring under way of the boundaries it has, which goes with them" in printed
        assert "--discard" in printed
    assert store.Units(run).load("key", 0) is not None
    assert higan("fit", folder)[0] == 0
    assert store.Units(run).load("key", 0) is not None
    assert higan("fit", folder, "--C", 0.1, "--discard")[0] == 0
    assert not store.Units(run).folder.exists()


@pytest.mark.parametrize("memory", ["inf", "nan", "0", "-3", "1e306"])
def test_memory_is_a_number_of_megabytes(finished, higan, memory):
    code, printed = higan("fit", finished[0], "--memory", memory)
    assert code == 2
    assert "--memory is a number of MB above 0" in printed


def test_memory_is_none_of_a_ridge_regression(finished, higan):
    code, printed = higan("fit", finished[0], "--fit", "all", "--memory", 8, "--discard")
    assert code == 2
    assert "--memory is that of --fit extreme" in printed
    assert "rescore" in study.steps_of(store.load_run(finished[0]))


def test_same_line_resumes_and_repeats_the_result(finished, higan):
    folder, printed = finished
    code, again = higan("run", *TOY, "--out", folder, "--num", 600, "--verify", 60)
    assert code == 0
    ranking = printed.index("Concepts by effect")
    assert (
        again[again.index("Concepts by effect") : again.index("Report:")] == printed[ranking : printed.index("Report:")]
    )


def test_boundaries_of_a_handful_of_samples_are_told_of(higan, tmp_path, monkeypatch):
    """Six of 200 samples are brighter on average than 148.3: of a class of 100 the other 94 are any."""
    (tmp_path / "rare.py").write_text(
        "import torch\n\ndef look(images):\n    mean = images.float().mean((1, 2, 3))\n"
        "    return torch.stack([mean, (mean - 148.3).clamp(min=0)], 1)\n\nlook.concepts = ['bright', 'glaring']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = "Mind: In classes of 100 samples most have one and the same score"
    line = ["--generator", "toy", "--scorer", "rare:look", "--num", 200, "--random", 2, "--permuted", 3]
    code, printed = higan("run", *line, "--verify", 2, "--out", "run")
    assert code == 0, printed
    assert told in printed
    assert ": glaring (6). Take smaller classes (--num-extreme)" in printed
    assert "bright (" not in printed
    assert told.removeprefix("Mind: ") in (tmp_path / "run" / "report.html").read_text()
    assert told in higan("fit", "run", "--permuted", 3)[1]  # though nothing is fitted again
    code, printed = higan("fit", "run", "--num-extreme", 6, "--discard", "--permuted", 3)
    assert code == 0, printed
    assert "most have one and the same" not in printed
    code, printed = higan("fit", "run", "--num-extreme", 50, "--discard", "--permuted", 3)
    assert told.replace("100", "50") in printed
    assert "most have one and the same" not in higan("fit", "run", "--fit", "all", "--discard", "--permuted", 3)[1]


def test_steps_lead_to_the_same_digest(finished, higan, tmp_path):
    code, _ = higan("sample", *TOY, "--out", tmp_path / "steps", "--num", 600)
    assert code == 0
    _, digest = higan("verify", tmp_path / "steps")
    _, whole = higan("verify", finished[0])
    assert digest == whole
    code, table = higan("fit", tmp_path / "steps", "--concept", "planted 2", "--concept", "constant")
    assert code == 0
    assert "Scores that never vary: constant. All pictures have the same" in table
    code, table = higan("fit", tmp_path / "steps", "--concept", "planted 2")
    assert code == 0
    assert "planted 2" in table
    assert "never vary" not in table
    code, table = higan("rescore", tmp_path / "steps", "--verify", 40)
    assert code == 0
    # 40 originals, 40 × (1 concept + 20 random + 20 permuted) × 9 sets of layers
    assert table.startswith("14,800 images, about")
    code, table = higan("rescore", tmp_path / "steps", "--verify", 64, "--adaptive", "--top", 1, "--discard")
    assert code == 0
    assert table.startswith("at most 23,680 images, at most about")
    assert "of 23,680 images" in table
    assert "Strongest 1: settled. Strongest layer: settled for 1 of 1 concepts" in table
    assert [c.name for c in store.load_rescoring(store.load_run(tmp_path / "steps")).concepts] == ["planted 2"]
    code, printed = higan("report", tmp_path / "steps")
    assert code == 0
    assert "report.html" in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sample", *TOY, "--out", "OUT", "--num", "0"], 2, "Error: num must be at least 1; got 0"),
        (["sample", *TOY, "--out", "OUT", "--shard-size", "0"], 2, "Error: shard_size must be at least 1; got 0"),
        *((["run", *TOY, "--out", "OUT", *words], 2, message) for words, message in REFUSED),
        (
            ["sample", *TOY, "--out", "OUT", "--device", "foo"],
            2,
            "device must be cpu, cuda, cuda:1 … or mps; got 'foo'",
        ),
        (["sample", *TOY, "--out", "OUT", "--device", "cuda:99"], 2, "device cuda:99 is a GPU, and torch"),
        (["sample", *TOY, "--out", "OUT", "--device", "cpu,cuda:99"], 2, "device cuda:99 is a GPU, and torch"),
        (["steps", "OUT", "--device", "cuda:99"], 2, "device cuda:99 is a GPU, and torch"),
        (["run", "--generator", "missing.pkl", "--scorer", "toy", "--out", "OUT"], 1, "missing.pkl: no such file"),
        (["run", "--generator", "toy", "--scorer", "missing.pt", "--out", "OUT"], 1, "missing.pt: no such file"),
        (["run", *TOY, "--out", "OUT", "--top", "3"], 2, "only --adaptive has a use for --top;"),
        (["rescore", "OUT", "--top", "3", "--confidence", "0.9"], 2, "has a use for --top and --confidence;"),
        (["run", *TOY, "--out", "OUT", "--fit", "all", "--C", "3"], 2, "--C is the penalty of --fit extreme"),
        (["fit", "OUT", "--fit", "all", "--C", "3"], 2, "--C is the penalty of --fit extreme"),
        (["rescore", "OUT", "--adaptive", "--batch-size", "8"], 2, "chooses itself how many samples it looks at"),
        (["rescore", "OUT", "--images-at-once", "0"], 2, "Invalid value for '--images-at-once'"),
        (["fit", "OUT"], 1, "OUT"),
        (["report", "OUT"], 1, "OUT"),
        (["rooms", "sample", "--num", "0"], 2, "--num must be at least 1; got 0"),
        (["rooms", "sample", "--out", "OUT/rooms.jpg"], 2, "--out must end in .png, in lower case; got OUT/rooms.jpg"),
        (["invert", "no.png", "--out", "OUT/c.npy"], 1, "Error: no.png: No such file or directory"),
        (["invert", "no.png", "--out", "OUT/c.npy", "--regularise", "nan"], 2, "and finite; got 400 and nan"),
        (["rooms", "sample", "--resolution", "500"], 2, "32 … 256 pixels; got 500"),
        (["run", *TOY, "--out", "OUT", "--bogus"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_clear_line(higan, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    status, printed = higan(*words)
    assert status == code
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "OUT").exists()


def test_only_what_there_is_to_do_is_announced(higan, tmp_path):
    line = [*TOY, "--num", 60, "--shard-size", 20, "--out", tmp_path / "run"]
    assert "60 images, about" in higan("sample", *line)[1]
    assert "images" not in higan("sample", *line)[1]
    for file in (tmp_path / "run" / "population").glob("shard-00001.*"):
        file.unlink()
    assert "20 images, about" in higan("sample", *line)[1]
    study = [*line, "--verify", 12, "--random", 2, "--permuted", 3, "--batch-size", 4]
    # 12 originals, 12 × (8 concepts + 2 random + 3 permuted) × 9 sets of layers.
    assert "1,416 images, about" in higan("run", *study)[1]
    assert ": 0 images, about 0 seconds" in higan("run", *study)[1]
    # 6 originals, 6 × (8 + 20 random + 3 permuted) × 9 sets of layers; then nothing.
    assert higan("rescore", tmp_path / "run", "--verify", 6, "--discard")[1].startswith("1,680 images, about")
    assert "images, about" not in higan("rescore", tmp_path / "run", "--verify", 6)[1]
    code, printed = higan("rescore", tmp_path / "run", "--verify", 1, "--discard")
    assert code == 2
    assert "--verify must be at least 2; got 1" in printed
    assert "images" not in printed


def test_too_few_directions_are_told_of_before_anything_is_drawn(higan, tmp_path):
    few = ["--num", 60, "--verify", 4, "--out", tmp_path / "run"]
    code, printed = higan("run", *TOY, *few, "--random", 5, "--permuted", 4)
    assert code == 0
    unless = "nothing can be verified at q = 0.05, unless"
    assert f"With 5 random directions {unless} 4 cells of the table beat all of that null together" in printed
    assert f"With 4 permuted directions {unless} 5 cells" in printed
    code, printed = higan("rescore", tmp_path / "run", "--verify", 4, "--random", 2)
    assert "With 2 random directions nothing can be verified at q = 0.05; give --random 20 or more." in printed
    assert f"With 4 permuted directions {unless}" in printed
    assert "Too few directions" in higan("fit", tmp_path / "run", "--permuted", 19, "--discard")[1]
    assert "Too few directions" not in higan("fit", tmp_path / "run", "--permuted", 20)[1]
    assert "Too few directions" not in higan("rescore", tmp_path / "run", "--verify", 4)[1]


def test_numbers_that_mean_little_are_told_of(higan, tmp_path, finished):
    run, little = tmp_path / "run", "Held-out accuracy is told by 2 samples of 5"
    code, printed = higan("run", *TOY, "--num", 5, "--verify", 2, "--step", 500, "--out", run)
    assert code == 0
    assert all(words in printed for words in (little, "95 % intervals from 2 re-scored samples", "λ = 500 is"))
    assert little in higan("fit", run)[1]
    code, printed = higan("rescore", run, "--verify", 2, "--step", 100)
    assert "95 % intervals from 2 re-scored samples" in printed
    assert "λ = 100 is" in printed
    assert "λ = 0.001 is" in higan("rescore", run, "--verify", 2, "--step", 0.001)[1]
    assert "nan" not in printed
    assert re.search(r"constant\b.*\b0\.50\b.*–.*no", printed)  # cosine of halves that are too small to fit
    compared = higan("compare", finished[0], run)[1]
    assert f"Mind: {run}: 95 % intervals from 2 re-scored samples" in compared
    assert "from 60 re-scored" not in compared
    assert "Mind:" not in finished[1]
    assert "Mind:" not in higan("rescore", finished[0], "--verify", 60)[1]


def test_the_fit_of_a_whole_study_is_chosen(higan, tmp_path):
    words = ["--num", 60, "--verify", 4, "--random", 1, "--permuted", 3, "--C", 0.5, "--num-extreme", 0.25]
    assert higan("run", *TOY, *words, "--out", tmp_path / "run")[0] == 0
    boundaries = store.load_boundaries(store.load_run(tmp_path / "run"))
    assert {boundary.num_train for boundary in boundaries} == {2 * 10}  # Of 15 in a class 10 train.
    expected = fit(store.read_population(store.load_run(tmp_path / "run")), num_extreme=15, C=0.5)
    assert all(torch.equal(a.normal, b.normal) for a, b in zip(boundaries, expected, strict=True))
    words = ["--num-extreme", 15, "--C", 0.5, "--permuted", 3, "--memory", 0.001]
    before = (tmp_path / "run" / "rescoring.safetensors").read_bytes()
    code, printed = higan("fit", tmp_path / "run", *words)
    assert code == 2
    assert "holds a re-scoring of the boundaries it has, which goes with them; say --discard" in printed
    code, printed = higan("run", *TOY, "--num", 60, "--verify", 4, "--random", 1, "--out", tmp_path / "run")
    assert code == 2
    assert (
        "holds a re-scoring of the boundaries it has, which goes with them; repeat the settings of its fit" in printed
    )
    assert (tmp_path / "run" / "rescoring.safetensors").read_bytes() == before
    assert higan("fit", tmp_path / "run", *words, "--discard")[0] == 0
    again = store.load_boundaries(store.load_run(tmp_path / "run"))
    torch.testing.assert_close(again[0].normal, boundaries[0].normal)


def test_foreign_weight_file_is_refused(higan, tmp_path):
    (tmp_path / "notes.txt").write_text("not weights")
    code, printed = higan("sample", "--generator", tmp_path / "notes.txt", "--scorer", "toy", "--out", tmp_path / "o")
    assert code == 1
    assert "notes.txt" in printed
    assert not (tmp_path / "o").exists()


def test_folder_of_another_run_is_left_alone(finished, higan):
    folder, _ = finished
    code, printed = higan("sample", *TOY, "--out", folder, "--num", 700)
    assert code == 1
    assert "num_samples is 600 there, 700 here" in printed


def test_unknown_concept_is_named(finished, higan):
    code, printed = higan("fit", finished[0], "--concept", "nope", "--discard")
    assert code == 2
    assert "unknown concept 'nope'" in printed
    assert "planted 0" in printed


def test_rooms_contact_sheet(higan, tmp_path):
    code, _ = higan(
        "rooms", "sample", "--num", 3, "--resolution", 32, "--masks", "--columns", 2, "--out", tmp_path / "r.png"
    )
    assert code == 0
    with Image.open(tmp_path / "r.png") as sheet:
        assert sheet.size == (65, 98)
        corner = torch.from_numpy(np.array(sheet.crop((0, 0, 32, 32)))).permute(2, 0, 1)
    assert torch.equal(corner, sample_rooms([0], 32).images[0])


def test_rooms_data_set(higan, tmp_path):
    code, _ = higan("rooms", "write", "--num", 3, "--resolution", 32, "--workers", 1, "--out", tmp_path / "d")
    assert code == 0
    assert len(open_data(tmp_path / "d")) == 3


def test_a_sibling_is_trained_from_the_command_line(higan, tmp_path):
    code, _ = higan("rooms", "write", "--num", 4, "--resolution", 32, "--workers", 1, "--out", tmp_path / "data")
    assert code == 0
    words = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--resolution", 32, "--workers", 1]
    words += ["--stage-images", 16, "--stage-images", 32, "--architecture", "skip", "--mixing", 0, "--seed", 5]
    words += [word for width in (8, 6, 5, 4) for word in ("--channels", width)]
    code, printed = higan("rooms", "train-generator", *words, "--fade-images", 24)
    assert code == 0, printed
    generator = load_generator(tmp_path / "out" / "generator.safetensors")
    assert (generator.resolution, generator.config.architecture) == (32, "skip")
    assert generator.config.channels == (8, 6, 5, 4)
    assert generator.metadata["images"] == 48
    _, header = read_weights(tmp_path / "out" / "checkpoint.safetensors")
    assert (header["settings"]["seed"], header["settings"]["mixing"]) == (5, 0)
    assert [stage["fade_images"] for stage in header["settings"]["stages"]] == [8000, 24]
    code, printed = higan("rooms", "train-generator", *words, "--stage-images", 9)
    assert code == 2
    assert "there are 2 stages up to 32 pixels; got 3 lengths" in printed


def test_a_checkpoint_tells_its_widths(higan, tmp_path):
    code, _ = higan("rooms", "write", "--num", 4, "--resolution", 32, "--workers", 1, "--out", tmp_path / "data")
    assert code == 0
    words = ["rooms", "train-generator", "--data", tmp_path / "data", "--resolution", 32, "--workers", 1]
    first = [word for width in (8, 6, 5, 4) for word in ("--channels", width)]
    wider = [word for width in (8, 8, 7, 6) for word in ("--channels", width)]

    def train(folder, images, *more):
        stages = ["--stage-images", 16, "--stage-images", images]
        code, printed = higan(*words, "--out", tmp_path / folder, *stages, *more)
        assert code == 0, printed
        _, header = read_weights(tmp_path / folder / "checkpoint.safetensors")
        config = header["config"]
        return config["channels"], config["rgb_kernel"], header["discriminator_channels"], header["progress"]["images"]

    start = ["--start-from", tmp_path / "narrow" / "checkpoint.safetensors"]
    assert train("narrow", 16, *first) == ([8, 6, 5, 4], 1, [8, 6, 5, 4], 32)
    assert train("narrow", 32) == ([8, 6, 5, 4], 1, [8, 6, 5, 4], 48)
    assert train("wide", 48, *start, *wider, "--rgb-kernel", 3) == ([8, 8, 7, 6], 3, [8, 6, 5, 4], 64)
    assert train("wide", 64) == ([8, 8, 7, 6], 3, [8, 6, 5, 4], 80)


def test_version_and_help(higan):
    assert higan("--version") == (0, "higan 0.1.0")
    code, printed = higan("--help")
    assert code == 0
    listed = [verb for verbs in VERBS.values() for verb in verbs]
    known = typer.main.get_command(app).commands
    assert sorted(listed) == sorted(known)
    nested = {f"{group} {verb}" for group in ("rooms", "user-study") for verb in known[group].commands}
    assert set(listed) | nested >= RESUMED
    found = [printed.index(f"│ {line} ") for heading, verbs in VERBS.items() for line in verbs]
    assert found == sorted(found)
    assert all(f"─ {heading} ─" in printed for heading in VERBS)


def kind(hint):
    """What an option takes: of ``list[int] | None`` a number, of all choices among words the same."""
    if get_origin(hint) is Literal:
        return "choice"
    inner = [kind(part) for part in get_args(hint) if part is not type(None)]
    return inner[0] if inner else hint


def test_options_of_one_name_take_the_same_kind_of_value():
    taken = {}

    def look(command):
        for inner in getattr(command, "commands", {}).values():
            look(inner)
        hints = {} if hasattr(command, "commands") else get_type_hints(inspect.unwrap(command.callback))
        for parameter in command.params:
            for option in parameter.opts if parameter.name in hints else ():
                taken.setdefault(option, {}).setdefault(kind(hints[parameter.name]), []).append(command.name)

    look(typer.main.get_command(app))
    assert taken["--num"].keys() == {int}
    assert {option: kinds for option, kinds in taken.items() if len(kinds) > 1 and option.startswith("--")} == {}


def test_official_files(finished, higan, tmp_path):
    code, printed = higan("export-official", finished[0], tmp_path / "official")
    assert code == 2  # the toy has one code per layer, which the official tool cannot keep
    assert "codes have 6 rows per sample" in printed
    boundary = ROOT / "tests/data/directions/stylegan_bedroom-wood_boundary.npy"
    loaded = load_boundary(boundary)
    assert loaded.normal.shape == (512,)
    assert float(loaded.normal.norm()) == pytest.approx(1, abs=1e-6)


def test_imported_boundaries_are_not_fitted_over(higan, tmp_path):
    official, out = tmp_path / "official", tmp_path / "run"
    made = ["run", "--generator", "rooms-32-s0", "--scorer", "rooms", "--num", 60, "--verify", 4, "--random", 3]
    assert higan(*made, "--permuted", 0, "--fit", "all", "--out", tmp_path / "made")[0] == 0
    assert higan("export-official", tmp_path / "made", official)[0] == 0
    line = ("import-official", official, "--out", out, "--num-layers", 8)
    assert higan(*line)[0] == 0
    imported = (out / "boundaries.safetensors").read_bytes()
    code, printed = higan("fit", out, "--fit", "all", "--permuted", 0)
    assert code == 2
    assert "holds boundaries that were imported, which would be replaced; say --discard" in printed
    assert higan(*line)[0] == 0
    assert (out / "boundaries.safetensors").read_bytes() == imported
    assert higan("fit", out, "--fit", "all", "--permuted", 0, "--discard")[0] == 0
    assert (out / "boundaries.safetensors").read_bytes() != imported
    code, printed = higan(*line)
    assert code == 1
    assert "but boundaries that were fitted since" in printed


def test_a_run_of_the_official_tool_goes_on_here(higan, tmp_path):
    """Exported with 60 samples and imported with the models that it is of, it is re-scored, edited and looked at."""
    official, out = tmp_path / "official", tmp_path / "run"
    models = ["--generator", "rooms-32-s0", "--scorer", "rooms"]
    made = ["run", *models, "--num", 120, "--verify", 4, "--random", 3, "--permuted", 0, "--fit", "all"]
    assert higan(*made, "--out", tmp_path / "made")[0] == 0
    assert higan("export-official", tmp_path / "made", official)[0] == 0
    line = ["import-official", official, "--out", out, *models]
    assert higan(*line)[0] == 0
    assert higan(*line)[0] == 0
    before, after = (store.load_boundaries(store.load_run(folder)) for folder in (tmp_path / "made", out))
    assert {b.concept for b in after} == {b.concept for b in before}  # by their levels, too
    code, printed = higan("rescore", out, "--verify", 4, "--random", 3)
    assert code == 0, printed
    expected, found = (store.load_rescoring(store.load_run(folder)) for folder in (tmp_path / "made", out))
    rows = [found.concepts.index(concept) for concept in expected.concepts]
    torch.testing.assert_close(found.changes[rows], expected.changes, atol=1e-3, rtol=1e-3)
    picture = tmp_path / "edited.png"
    code, printed = higan("edit", "--run", out, "--seed", 3, "--set", "indoor_lighting=+1", "--out", picture)
    assert code == 0, printed
    assert higan("report", out)[0] == 0
    for words, told in (
        (["--generator", "rooms-32-s1", "--scorer", "rooms"], "standard deviations off where the samples are drawn"),
        (["--generator", "rooms", "--scorer", "rooms", "--num-layers", 8], "the samples have 8 layers with codes of"),
        (["--generator", "rooms-32-s0", "--scorer", "colour"], "scorer 'colour' does not know"),
        (["--generator", "rooms-32-s0"], "--generator and --scorer go together"),
    ):
        code, printed = higan("import-official", official, "--out", tmp_path / "other", *words)
        assert code in (1, 2)
        assert told in printed
        assert not (tmp_path / "other").exists()


def test_models_are_listed(higan):
    code, printed = higan("models", "--family", "biggan")
    assert code == 0
    assert "biggan" in printed
    code, printed = higan("models", "--family", "vqgan")
    assert code == 2
    assert "no family is called 'vqgan'; known: rooms, pggan" in printed


def test_embedded_models_are_listed_and_open_by_name(higan):
    code, printed = higan("models", "--family", "rooms")
    assert code == 0
    assert "biggan" not in printed
    for name in ROOMS:
        (row,) = [line for line in printed.splitlines() if name in line.split()]
        assert str(load_generator(name).resolution) in row


def test_pull_of_an_unknown_name(higan):
    code, printed = higan("pull", "no-such-model")
    assert code == 2
    assert "no model is called 'no-such-model'" in printed


@pytest.mark.parametrize("engine", [(), ("--engine", "processes", "--workers", 1)])
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …')", "CUDA out of memory"),
        (
            "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried …')",
            "this machine has not enough memory",
        ),
    ],
)
def test_a_lack_of_memory_is_one_line(higan, tmp_path, monkeypatch, engine, raised, told):
    module = f"greedy{len(told)}"  # the working folders of tests before stay in the path
    (tmp_path / f"{module}.py").write_text(
        "import torch\n\ndef look(images):\n    if len(images) < 4:\n        return images.float().mean((1, 2, 3))\n"
        f"    raise {raised}\n"
    )
    monkeypatch.chdir(tmp_path)
    line = ["--generator", "toy", "--scorer", f"{module}:look", "--concept", "bright", "--num", 40, *engine]
    code, printed = higan("sample", *line, "--out", tmp_path / "own")
    assert code == 1
    assert f"Error: {told}; take fewer images or samples at a time" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sample", "--scorer", "toy", "--out", "own", "--generator"], " " + GOES_ON),
        (["check-generator"], ""),
        (["rooms", "train-generator", "--out", "own", "--data"], " " + GOES_ON),
        (["rooms", "train-scorers", "--out", "own", "--data"], ""),
    ],
)
def test_ctrl_c_outside_a_bar_is_one_line(higan, tmp_path, monkeypatch, words, told):
    (tmp_path / "stopped.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def stopped(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("higan.rooms.dataset.open_data", stopped)
    code, printed = higan(*words, "stopped:made")
    assert (code, printed) == (130, f"Interrupted.{told}")


def test_scorer_of_ones_own(higan, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def brightness(images):\n    return images.float().mean((1, 2, 3))[:, None]\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = [
        "--generator",
        "toy",
        "--scorer",
        "mine:brightness",
        "--concept",
        "bright",
        "--scorer-option",
        "level=colour",
    ]
    code, printed = higan("sample", *line, "--num", 40, "--out", tmp_path / "own")
    assert code == 0, printed
    population = store.read_population(store.load_run(tmp_path / "own"))
    assert [(c.name, c.level) for c in population.concepts] == [("bright", "colour")]
    code, printed = higan("sample", *TOY, "--scorer-option", "level", "--out", tmp_path / "x")
    assert code == 2
    assert "--scorer-option is written key=value; got 'level'" in printed
    code, printed = higan("sample", *TOY, "--label", 3, "--out", tmp_path / "x")
    assert code == 2
    assert "toy has no classes" in printed


ODD = ("room [/b]", "wood [dark]", "a:smile:b")
"""Concepts that rich would read as markup and emoji."""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Words that open the toy with a scorer of such concepts, from a module of its own."""
    (tmp_path / "odd.py").write_text(
        f"def means(images):\n    return images.float().mean((2, 3))\n\nmeans.concepts = {list(ODD)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield ["--generator", "toy", "--scorer", "odd:means"]
    sys.modules.pop("odd", None)


@pytest.mark.parametrize("folder", ["u[/b]", "br2 [x]", "data[v2]", "a:smile:b"])
def test_names_are_printed_as_they_are(higan, odd, folder):
    few = ["--verify", 4, "--random", 2]
    code, printed = higan("sample", *odd, "--num", 60, "--out", folder)
    assert code == 0, printed
    assert printed.endswith(f"60 samples in {folder}")
    for line in (["fit", folder, "--permuted", 3], ["rescore", folder, *few]):
        code, printed = higan(*line)
        assert code == 0, printed
        for concept in ODD:
            assert f"│ {concept} │" in printed
    code, printed = higan("report", folder)
    assert code == 0, printed
    assert f"Report: {folder}/report.html" in printed
    code, printed = higan("run", *odd, "--num", 60, *few, "--permuted", 3, "--out", folder)
    assert code == 0, printed
    assert f"Report: {folder}/report.html" in printed
    for concept in ODD:
        assert f"│ {concept} │" in printed


@pytest.mark.parametrize("name", ["a:b:c [x].pt", "a:smile:b", "[bold]x[/b]"])
def test_errors_are_printed_as_they_are(higan, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code, printed = higan("sample", "--generator", name, "--scorer", "toy", "--out", "run")
    assert code in (1, 2)
    assert name in printed
    code, printed = higan("fit", name)
    assert code == 1
    assert name in printed
    code, printed = higan("sample", *TOY, "--num", 8, "--device", name, "--out", "run")
    assert code == 2
    assert f"got '{name}'" in printed


def test_progress_and_links_hold_any_name(monkeypatch, capsys):
    monkeypatch.setattr(console, "_force_terminal", True)
    with progress_bars() as bars:
        for name in ODD:
            bars(name, 1, 1)
    path = link(Path("br2 [x]") / "report.html")
    console.print("Report:", path)
    printed = capsys.readouterr().out
    for words in (*ODD, "Report: br2 [x]/report.html"):
        assert words in printed
    assert path.style.link == f"{Path.cwd().as_uri()}/br2%20%5Bx%5D/report.html"


def test_a_terminal_that_draws_no_bars_is_told_of_steps_as_they_begin(monkeypatch, capsys):
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setenv("TERM", "dumb")
    with progress_bars() as bars:
        bars("sample", 1, 9)
        assert capsys.readouterr().out == "Sampling …\n"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_without_a_standard_output_the_work_is_done(tmp_path, closed):
    line = f"{sys.executable} -m higan.cli sample --generator toy --scorer toy --num 8 --out run {closed}"
    assert subprocess.run(line, shell=True, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "run" / "population" / "shard-00000.sha256").is_file()


def test_durations_are_said_in_words_of_their_size():
    told = {0.3: "0 seconds", 1.2: "1 second", 89.0: "89 seconds", 100.0: "2 minutes", 5000.0: "83 minutes"}
    for seconds, words in {**told, 5400.0: "1.5 hours", 442055400.0: "122,793.2 hours"}.items():
        assert minutes(seconds) == words


def test_what_the_generator_is_asked_for_belongs_to_the_run(higan, tmp_path):
    line = ["sample", "--generator", "rooms", "--scorer", "colour", "--num", 8, "--out", tmp_path / "run"]
    low = ["--generator-option", "precision=bfloat16"]
    code, printed = higan(*line, *low)
    assert code == 0, printed
    run = store.load_run(tmp_path / "run")
    assert run.settings["generator_options"] == {"precision": "bfloat16"}
    rounded, exact = load_generator("rooms", precision="bfloat16"), load_generator("rooms")
    scorer = load_scorer("colour")
    expected, other = (measure(g, scorer, store.read_population(run).seeds).scores for g in (rounded, exact))
    torch.testing.assert_close(store.read_population(run).scores, expected, rtol=0, atol=0)
    assert not torch.equal(expected, other)
    code, printed = higan(*line)
    assert code == 1
    assert "holds another run: generator_options is {'precision': 'bfloat16'} there, None here" in printed
    for wrong, message in (
        (
            "psi=0.7",
            "--generator-option takes truncation_psi, truncation_layers, noise, precision, compiled; got 'psi'",
        ),
        ("truncation_psi=much", "--generator-option truncation_psi is a number; got 'much'"),
        ("compiled=1", "--generator-option compiled is true or false; got '1'"),
        ("precision=true", "--generator-option precision is a word; got 'true'"),
        ("compiled=true", "'rooms' is not worth compiling"),
        ("truncation_psi=0.5", "'rooms' has a truncation of its own"),
    ):
        code, printed = higan(*line, "--generator-option", wrong)
        assert code == 2
        assert message in printed


def test_logistic_fits(higan, tmp_path):
    code, printed = higan("sample", *TOY, "--num", 200, "--out", tmp_path / "run")
    assert code == 0, printed
    run = store.load_run(tmp_path / "run")
    population = store.read_population(run)
    for loss in ("squared_hinge", "logistic"):
        code, printed = higan("fit", run.path, "--loss", loss, "--permuted", 3)
        assert code == 0, printed
        expected = fit(population, loss=loss)
        for found, wanted in zip(store.load_boundaries(run), expected, strict=True):
            torch.testing.assert_close(found.normal, wanted.normal)
    assert not torch.allclose(expected[0].normal, fit(population)[0].normal, atol=1e-3)


def test_adapters_are_checked(higan):
    code, printed = higan("check-generator", "toy")
    assert code == 0, printed
    assert "✓" in printed
    code, printed = higan("check-scorer", "colour")
    assert code == 0, printed


def test_weight_files_are_inspected_and_converted(higan, tmp_path):
    network = StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), latent_dim=6, mapping=(8, 8)))
    save_generator(wrap(network, "tiny", "cpu"), tmp_path / "tiny.safetensors")
    code, printed = higan("inspect", tmp_path / "tiny.safetensors")
    assert code == 0, printed
    assert "family stylegan2" in printed
    assert "resolution 16 pixels" in printed
    code, printed = higan("convert", tmp_path / "tiny.safetensors", tmp_path / "again.safetensors")
    assert code == 0, printed
    codes = load_generator(tmp_path / "tiny.safetensors").map(torch.ones(1, 6))
    images = [load_generator(tmp_path / f"{n}.safetensors").synthesize(codes) for n in ("tiny", "again")]
    assert torch.equal(*images)
    code, printed = higan(
        "convert", ROOT / "src/higan/generators/weights/rooms.safetensors", tmp_path / "r.safetensors"
    )
    assert code == 2
    assert "in our own format already" in printed


def test_rescoring_on_workers(higan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert higan("sample", *TOY, "--num", 60, "--out", "run")[0] == 0
    assert higan("fit", "run", "--permuted", 3)[0] == 0
    options = ["run", "--verify", 12, "--random", 2, "--discard"]
    result = tmp_path / "run" / "rescoring.safetensors"
    for kind in (["--batch-size", 4], ["--adaptive", "--top", 2]):
        code, printed = higan("rescore", *options, *kind, "--workers", 2)
        assert code == 0, printed
        assert re.search(r" images, (at most )?about \d+ seconds? for this process alone", printed)
        spread = result.read_bytes()
        result.unlink()
        assert higan("rescore", *options, *kind)[0] == 0
        assert result.read_bytes() == spread
        result.unlink()
        assert higan("rescore", *options, *kind, "--workers", 2, "--threads", torch.get_num_threads())[0] == 0
        assert result.read_bytes() == spread
    assert higan("sample", *TOY, "--num", 8, "--out", "other", "--workers", 2, "--threads", 3)[0] == 0
    assert store.load_run(tmp_path / "other").provenance["threads"] == 3
    assert store.load_run(tmp_path / "run").provenance["threads"] == torch.get_num_threads()


def test_weights_that_have_changed_are_refused(higan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights, folder = tmp_path / "mine.safetensors", ROOT / "src/higan/generators/weights"
    shutil.copy(folder / "rooms-32-s0.safetensors", weights)
    few = ["--num", 60, "--verify", 4, "--random", 2, "--permuted", 3]
    code, printed = higan("run", "--generator", weights, "--scorer", "colour", *few, "--out", "run")
    assert code == 0, printed
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    shutil.copy(folder / "rooms-32-s1.safetensors", weights)
    code, printed = higan("rescore", "run", "--verify", 5)
    assert code == 1
    assert "mine.safetensors has changed since this run was begun" in printed
    lines = [
        ("report", "run"),
        ("steps", "run", "--verify", 5, "--random", 2),
        ("discover", "--run", "run"),
        ("edit", "--run", "run", "--set", "lightness=+1", "--out", "x.png"),
        ("side-effects", "--run", "run", "--out", "x.html"),
        ("user-study", "build", "run", "--out", "study"),
        ("studio", "run"),
    ]
    for line in lines:
        code, printed = higan(*line)
        assert code == 1, line
        assert "mine.safetensors " in printed, line
        assert "has changed" in printed, line
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_weights_in_a_folder_belong_to_the_run(tmp_path):
    names = ("model.safetensors", "pytorch_model.bin", "model-00002-of-00002.safetensors", "config.json")
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "README.md").write_bytes(b"neither weights nor configuration")
        assert digests_of(str(folder), "colour") == {}
        (folder / "preprocessor_config.json").write_bytes(b"{}")
        (folder / name).write_bytes(b"one")
        first = digests_of(str(folder), f"{folder}+colour")
        assert set(first) == {f"generator {folder}", f"scorer {folder}"}
        (folder / name).write_bytes(b"two")
        second = digests_of(str(folder), f"{folder}+colour")
        assert second != first
        (folder / "preprocessor_config.json").write_bytes(b'{"image_mean": [0.5, 0.5, 0.5]}')
        assert digests_of(str(folder), f"{folder}+colour") != second


def test_a_line_that_cannot_work_leaves_room_for_the_mended_one(higan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_generator(wrap(FAMILIES["stylegan conditional"](), "conditional"), "conditional.safetensors")

    class Floats(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 8)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Floats()).save("net.ts")
    conditional = ["--generator", "conditional.safetensors", "--num", 8]
    for verb in ("sample", "run"):
        line = [verb, *conditional, "--scorer", "net.ts", "--concept", "a", "--concept", "b", "--out", verb]
        code, printed = higan(*line)
        assert code == 2
        assert "--label k on the command line" in printed
        code, printed = higan(*line, "--label", 1)
        assert code == 1
        assert "preprocessing=imagenet" in printed
        assert not Path(verb).exists()
    code, printed = higan(
        "sample", *conditional, "--label", 1, "--scorer", "net.ts", "--concept", "a", "--concept", "b",
        "--scorer-option", "preprocessing=imagenet", "--out", "sample",
    )  # fmt: skip
    assert code == 0, printed


def test_a_converted_file_never_replaces_what_it_was_read_from(higan, tmp_path):
    network = StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), latent_dim=6, mapping=(8, 8)))
    source = tmp_path / "tiny.safetensors"
    save_generator(wrap(network, "tiny", "cpu"), source)
    before = source.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(source)
    for target in (source, tmp_path / "link.safetensors"):
        code, printed = higan("convert", source, target)
        assert code == 2
        assert "is the file to be read and would be overwritten" in printed
    code, printed = higan("convert", source, tmp_path / "tiny.pkl")
    assert code == 2
    assert "must end in .safetensors" in printed
    assert source.read_bytes() == before


def test_another_folder_of_the_official_tool_is_another_run(higan, tmp_path):
    for k, name in enumerate(("a", "b")):
        population = measure(ToyGenerator(shared_code=True), load_scorer("toy"), range(100 * k, 100 * k + 60))
        export_official(tmp_path / name, population, fit(population))
    out = tmp_path / "run"
    line = ["--num-layers", 6, "--out", out]
    assert higan("import-official", tmp_path / "a", *line)[0] == 0
    code, printed = higan("fit", out, "--permuted", 3, "--discard")
    assert code == 0, printed
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    code, printed = higan("import-official", tmp_path / "a", *line)
    assert code == 1
    assert "but boundaries that were fitted since" in printed
    code, printed = higan("import-official", tmp_path / "b", *line)
    assert code == 1
    assert "holds another run: digests" in printed
    assert kept == {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_run_is_found_from_another_folder(higan, tmp_path, monkeypatch):
    begun, elsewhere = tmp_path / "begun", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (begun / "rooms").mkdir(parents=True)  # A folder by an embedded scorer's name is not meant by it.
    shutil.copy(ROOT / "src/higan/generators/weights/rooms-32-s0.safetensors", begun / "tiny.safetensors")
    shutil.copy(ROOT / "src/higan/scorers/weights/rooms.safetensors", begun / "mine.safetensors")
    monkeypatch.chdir(begun)
    models = ["--generator", "tiny.safetensors", "--scorer", "mine.safetensors+colour"]
    assert higan("sample", *models, "--num", 60, "--out", "run")[0] == 0
    monkeypatch.chdir(elsewhere)
    for line in (["fit", "--permuted", 3], ["rescore", "--verify", 4, "--random", 2], ["report"]):
        code, printed = higan(line[0], begun / "run", *line[1:])
        assert code == 0, printed
    code, printed = higan(
        "edit", "--run", begun / "run", "--seed", 3, "--set", "indoor_lighting=+1", "--out", "edited.png"
    )
    assert code == 0, printed
    # What is found there is still checked against what the run was begun with.
    shutil.copy(ROOT / "src/higan/generators/weights/rooms-32-s1.safetensors", begun / "tiny.safetensors")
    code, printed = higan("rescore", begun / "run", "--verify", 5)
    assert code == 1
    assert "tiny.safetensors has changed since this run was begun" in printed
    code, printed = higan(
        "edit", "--run", begun / "run", "--seed", 3, "--set", "indoor_lighting=+1", "--out", "again.png"
    )
    assert code == 1
    assert "is no longer the file" in printed


def test_a_run_hears_later_of_its_segmenter_and_photographs(higan, tmp_path):
    out = tmp_path / "run"
    line = ["--generator", "rooms-32-s0", "--scorer", "colour", "--num", 60, "--out", out]
    assert higan("sample", *line)[0] == 0
    assert store.load_run(out).provenance["segmenter"] is None
    more = ["--segmenter", "rooms", "--photograph", "rooms", "--verify", 4, "--random", 2, "--permuted", 3]
    code, printed = higan("run", *line, *more)
    assert code == 0, printed
    begun = store.load_run(out)
    assert (begun.provenance["segmenter"], begun.provenance["photographs"]) == ("rooms", ["rooms"])
    assert begun.provenance["command"].startswith("higan sample")
    # What was said stays.
    assert store.complete(begun, {"segmenter": "ade20k"}).provenance == begun.provenance


def test_runs_of_names_alone_do_not_say_where_they_were_begun(higan, tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert higan("sample", *TOY, "--num", 8, "--out", "run")[0] == 0
    assert "folder" not in store.load_run("run").provenance


def test_a_run_does_not_go_on_with_a_changed_scorer_of_ones_own(higan, tmp_path, monkeypatch):
    source = tmp_path / "brightness_of_mine.py"
    named = 'predict.concepts = ["colour: red", "colour: green", "colour: blue"]\n'
    source.write_text("def predict(images):\n    return images.float().mean((2, 3))\n" + named)
    monkeypatch.syspath_prepend(tmp_path)
    line = ("sample", "--generator", "rooms-32-s0", "--scorer", "brightness_of_mine:predict", "--num", 8)
    code, printed = higan(*line, "--out", tmp_path / "run")
    assert code == 0, printed
    source.write_text("def predict(images):\n    return 255 - images.float().mean((2, 3))\n" + named)
    code, printed = higan(*line, "--out", tmp_path / "run")
    assert code == 1
    assert "another" in printed


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_of_the_ranking_is_cut_on_a_narrow_terminal(width, monkeypatch):
    narrow = Console(width=width, file=io.StringIO(), markup=False)
    monkeypatch.setattr(telling, "console", narrow)
    narrow.print(telling.ranking(shipped_study()))
    lines = narrow.file.getvalue().splitlines()
    assert "…" not in "".join(lines)
    header = next(line for line in lines if "concept" in line and "verified" in line)
    assert "95 % interval" in header
    assert ("accuracy" in header) == (width >= 110)
    assert max(map(len, lines)) <= width
    verified = sum(row.verified for row in rank(store.load_rescoring(shipped_study())))
    assert sum("│" in line and line.rstrip("│ ").endswith("yes") for line in lines) == verified > 10


def test_output_that_cannot_show_every_letter_is_no_error(tmp_path):
    """As where output is redirected on Windows, or the locale is Latin-1: there is a Δ in what `run` says."""
    line = [sys.executable, "-c", "from higan.cli import main; main()", "fit", str(tmp_path / "größe Δ")]
    done = subprocess.run(line, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert done.returncode == 1
    assert "größe ?" in done.stderr.decode("cp1252")


@pytest.mark.parametrize(("words", "cores", "workers"), [((), 2, 2), ((), 1, 1), ((), 64, 8), (("--workers", 3), 2, 3)])
def test_the_demo_takes_the_cores_that_there_are(higan, tmp_path, monkeypatch, words, cores, workers):
    """One thread each; interrupted before anything is drawn."""
    asked = []

    def interrupted(*models, engine, **_):
        asked.append(engine)
        raise KeyboardInterrupt

    monkeypatch.setattr("higan.cli.study.cores", lambda: cores)
    monkeypatch.setattr("higan.cli.study._study", interrupted)
    code, printed = higan("demo", "--out", tmp_path / "demo", *words)
    assert (code, "goes on where it stopped" in printed) == (130, True)
    (engine,) = asked
    assert engine == (InProcess("cpu") if workers == 1 else Processes(workers, ("cpu",), 1))
