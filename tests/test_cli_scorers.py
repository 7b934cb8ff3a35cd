"""Any predictor on the command line: several at once, options of each, and the whole study on them."""

import sys

import pytest

import higan as package
import hub_folders
from higan import store
from higan.cli import steps
from higan.cli.models import digests_of
from higan.cli.scorers import _MEANINGS, open_scorer
from higan.errors import MissingWeightsError
from higan.scorers import loading
from higan.types import SegmentClass
from higan.weights import digest_of


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


@pytest.mark.parametrize("value", ["no", "0", "off", "yes"])
@pytest.mark.parametrize("option", ["official_compat", "places365.compiled"])
def test_nothing_but_true_and_false_is_a_truth_value(higan, option, value):
    code, printed = higan("check-scorer", "places365", "--scorer-option", f"{option}={value}")
    assert code == 2
    assert f"--scorer-option {option} is true or false; got '{value}'" in printed


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("preprocessing=true", "--scorer-option preprocessing is imagenet or a file; got 'true'"),
        ("classes=true", "--scorer-option classes is names parted by commas; got 'true'"),
        ("segments.segmenter=False", "--scorer-option segments.segmenter is a file, a folder or a name; got 'false'"),
        ("weights=true", "--scorer-option weights is a file, a folder or a name; got 'true'"),
        ("field_of_view=wide", "--scorer-option field_of_view is a number; got 'wide'"),
        ("field_of_view=true", "--scorer-option field_of_view is a number; got 'true'"),
        ("num=1e3", "--scorer-option num is a whole number; got '1e3'"),
        ("nothing=true", "segments does not take the option nothing; it takes: classes, segmenter"),
    ],
)
def test_options_are_checked_by_kind(higan, option, expected):
    code, printed = higan("check-scorer", "segments", "--scorer-option", option)
    assert code == 2
    assert expected in printed


def test_every_option_of_a_scorer_has_a_kind():
    loaders = {*loading.LOADERS.values(), *loading._SUFFIXES.values(), loading._file_classifier, loading._imported}
    assert {option for loader in loaders for option in loading._options(loader)} == set(_MEANINGS)


def test_embedded_weights_are_noted_under_whatever_name_they_are_read(tmp_path, monkeypatch):
    folders = [package.scorers.loading.WEIGHTS, package.segmenters.loading.WEIGHTS]
    scorers, segmenters = ({path.name: digest_of(path) for path in folder.glob("*.safetensors")} for folder in folders)
    assert digests_of("toy", "layout+colour") == {"scorer layout": scorers["rooms.safetensors"]}
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"weights")
    assert digests_of("toy", "layout", {"weights": str(mine)}) == {"scorer option weights": digest_of(mine)}
    for name in ("rooms", "rooms-128"):
        found = digests_of("toy", "scheme+segments", {"segments.segmenter": name})
        assert found == {"scorer option segments.segmenter": segmenters[f"{name}.safetensors"]}
    assert digests_of("toy", "nothing") == digests_of("toy", "segments", {"segmenter": "ade20k"}) == {}
    # None is forgotten: without them, exactly these cannot be opened.
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path / "empty")
    lacking = set()
    for name in loading.LOADERS:
        try:
            package.load_scorer(name)
        except (MissingWeightsError, ValueError) as error:
            lacking |= {name} if "empty" in str(error) else set()
    assert lacking == set(loading.EMBEDDED)


def test_a_run_that_noted_fewer_files_goes_on(higan, tmp_path, monkeypatch):
    line = ["sample", "--generator", "rooms", "--scorer", "layout+scheme", "--scorer-option", "segmenter=rooms"]
    line += ["--scorer-option", "classes=wall", "--num", 8, "--shard-size", 4, "--out", tmp_path / "run"]
    with monkeypatch.context() as earlier:
        earlier.setattr(steps, "digests_of", lambda generator, *_: digests_of(generator, "colour"))
        assert higan(*line)[0] == 0
    kept = (tmp_path / "run/manifest.json").read_bytes()
    assert set(store.load_run(tmp_path / "run").settings["digests"]) == {"generator rooms"}
    shard = tmp_path / "run/population/shard-00001.parquet"
    before = shard.read_bytes()
    shard.unlink()
    code, printed = higan(*line)
    assert code == 0, printed
    assert shard.read_bytes() == before
    assert (tmp_path / "run/manifest.json").read_bytes() == kept
    # What it did note is compared as ever, and a new run notes all.
    assert higan(*line[:-1], tmp_path / "new")[0] == 0
    noted = store.load_run(tmp_path / "new").settings["digests"]
    assert set(noted) == {"generator rooms", "scorer layout", "scorer option segmenter"}
    monkeypatch.setattr(steps, "digests_of", lambda *names: digests_of(*names) | {"generator rooms": "other"})
    code, printed = higan(*line)
    assert code == 1
    assert "the weight file of generator rooms has changed since this run was begun" in printed


def test_a_scorer_whose_source_has_changed_is_named(higan, mine, tmp_path):
    source = tmp_path / "mypredictors.py"
    line = ["sample", "--generator", "toy", "--scorer", "mypredictors:reds", "--num", 60, "--out", tmp_path / "run"]
    assert higan(*line)[0] == 0
    before = source.read_text()
    source.write_text(before + "\n# another word\n")
    for again in (line, ["fit", tmp_path / "run", "--permuted", 0], ["rescore", tmp_path / "run", "--verify", 4]):
        code, printed = higan(*again)
        if again[0] != "fit":  # which opens no models
            assert code == 1
            assert "the source of module mypredictors (mypredictors.py) has changed since this run was begun" in printed
    source.write_text(before)
    assert higan(*line)[0] == 0


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
    assert "has no attribute 'nothing'" in printed


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
