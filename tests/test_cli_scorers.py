"""Any predictor on the command line: several at once, options of each, and the whole study on them."""

import sys

import pytest

import higan as package
import hub_folders
from higan import store
from higan.cli.scorers import open_scorer
from higan.types import SegmentClass


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mypredictors.py").write_text(
        "def reds(images):\n    return images[:, :2].float().mean((2, 3))\n\nreds.concepts = ['colour: red', 'green']\n"
        "def broken(images):\n    return images.float()\n\nbroken.concepts = ['all']\n"
        "def nan(images):\n    return images.float().mean((1, 2, 3)) * float('nan')\n\nnan.concepts = ['nan']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mypredictors", None)


def test_the_whole_study_on_phrases_and_a_function(higan, mine, tmp_path):
    """Embedded generator × CLIP with random weights × a callable, from sampling to the report, then an edit."""
    folder = hub_folders.clip(tmp_path / "clip")
    out = tmp_path / "run"
    line = ["run", "--generator", "rooms", "--scorer", "clip+mypredictors:reds", "--out", out]
    line += ["--concept", "a room with wooden furniture", "--concept", "layout: a wide room", "--against", "a room"]
    line += ["--scorer-option", f"weights={folder}", "--num", 60, "--verify", 3, "--random", 3, "--permuted", 0]
    code, printed = higan(*line)
    assert code == 0, printed
    assert "Levels guessed: a room with wooden furniture → attribute." in printed
    run = store.load_run(out)
    population = store.read_population(run)
    assert [(c.name, c.level) for c in population.concepts] == [
        ("a room with wooden furniture", "attribute"),
        ("a wide room", "layout"),
        ("red", "colour"),
        ("green", "attribute"),
    ]
    assert (population.scores.std(0) > 0).all()
    rescoring = store.load_rescoring(run)
    assert rescoring.effects.shape[::2] == (4, 4)
    assert (out / "report.html").stat().st_size > 10_000
    assert "scorer option weights" in run.settings["digests"]
    # The run folder knows how to open them again.
    code, printed = higan("edit", "--run", out, "--seed", 3, "--set", "red=+1@9", "--out", tmp_path / "red.png")
    assert code == 0, printed


def test_options_of_several_scorers(higan, mine, tmp_path):
    folder = hub_folders.clip(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"say whose they are: clip\.weights or layout\.weights"):
        package.load_scorer("clip+layout", weights=folder, concepts=["a bed"])
    scorer = package.load_scorer("clip+layout+mypredictors:reds", concepts=["a bed"], **{"clip.weights": folder})
    assert [c.name for c in scorer.concepts][::9] == ["a bed", "red"]
    renamed = package.load_scorer("mypredictors:reds+colour", **{"mypredictors:reds.concepts": ["warm", "cold"]})
    assert [c.name for c in renamed.concepts][:2] == ["warm", "cold"]
    with pytest.raises(ValueError, match=r"does not take the option layout\.colour"):
        package.load_scorer("layout", **{"layout.colour": 3})


def test_regions_and_shares_by_a_segmenter(higan, tmp_path):
    line = ["sample", "--generator", "rooms", "--num", 8, "--scorer", "scheme+segments", "--out", tmp_path / "walls"]
    line += ["--scorer-option", "segmenter=rooms", "--scorer-option", "classes=wall, bed"]
    code, printed = higan(*line)
    assert code == 0, printed
    names = [c.name for c in store.read_population(store.load_run(tmp_path / "walls")).concepts]
    assert {"wall warmth", "bed blue", "share of wall", "share of bed"} <= set(names)
    code, printed = higan(*line[:-1], "classes=wall,sky")
    assert code == 2
    assert "does not tell 'sky' apart" in printed


def test_ade20k_from_a_local_folder(higan, tmp_path):
    folder = hub_folders.segformer(tmp_path / "segformer")
    line = ["sample", "--generator", "rooms", "--num", 4, "--scorer", "segments", "--out", tmp_path / "shares"]
    code, printed = higan(*line, "--scorer-option", f"segmenter={folder}")
    assert code == 0, printed
    population = store.read_population(store.load_run(tmp_path / "shares"))
    assert [c.name for c in population.concepts][:2] == ["share of wall", "share of bed"]
    assert all(isinstance(c, SegmentClass) for c in package.load_segmenter(folder).classes)
    assert population.scores.sum(1).tolist() == pytest.approx([1] * 4, abs=1e-5)


def test_numbers_and_steps_are_read(higan, tmp_path):
    assert open_scorer("lines", "cpu", {"field_of_view": "1.1"}).field_of_view == 1.1
    code, printed = higan("check-scorer", "lines", "--scorer-option", "field_of_view=4")
    assert code == 2
    assert "between 0 and π" in printed
    code, printed = higan("check-scorer", "lines", "--scorer-option", "preprocessing=nowhere.json")
    assert code == 1
    assert "preprocessing is imagenet, or a preprocessor_config.json" in printed


def test_a_scorer_of_ones_own_is_checked(higan, mine):
    assert higan("check-scorer", "mypredictors:reds")[0] == 0
    code, printed = higan("check-scorer", "mypredictors:broken")
    assert code == 1
    assert "one column per concept" in printed
    code, printed = higan("check-scorer", "mypredictors:nan")
    assert code == 1
    assert "NaN" in printed
    assert higan("check-scorer", "mypredictors:reds", "--concept", "a", "--concept", "b")[0] == 0
    code, printed = higan("check-scorer", "mypredictors:nothing")
    assert code == 1
    assert "must be importable from here" in printed


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("places365", "wideresnet18_places365.pth.tar"),
        ("clip", "needs concepts="),
        ("segments", "needs segmenter="),
        ("nothing", "expected one of the names"),
    ],
)
def test_what_is_missing_is_one_line(higan, name, told):
    code, printed = higan("check-scorer", name)
    assert code in (1, 2)
    assert told in printed
    assert "Traceback" not in printed
