"""Generators, scorers and segmenters of one's own by ``module:name``, and what is said of names that lead nowhere."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import higan as package
from higan import store
from higan.errors import BrokenModuleError, MissingWeightsError
from higan.named import import_named, source_of

SOURCE = '''
import torch
from torch import nn
from higan import Concept
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.segmenters.toy import ToySegmenter
from higan.generators.module import ModuleGenerator

net = nn.Linear(4, 4)
number = 3
gen = ToyGenerator()
seg = ToySegmenter()

def make():
    return ToyGenerator()

def broken():
    raise KeyError("no weights")

def predict(images):
    return images.float().mean((2, 3))

predict.concepts = ["colour: red", "colour: green", "colour: blue"]

class Reds:
    concepts = ["colour: red"]

    def __call__(self, images):
        return images[:, 0].float().mean((1, 2))

class Ready:
    name = "ready"
    concepts = (Concept("red", "colour"),)

    def score(self, images):
        return images[:, :1].float().mean((2, 3))

class Sized(Ready):
    def __init__(self, size):
        self.size = size

class Buffered(nn.Module):
    """Truncation as a buffer, which `isinstance` does not see."""

    name, num_layers, code_dim, latent_dim, resolution, shared_code = "buffered", 1, 4, 4, 2, True
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.register_buffer("truncation", torch.ones(1))

    def latents(self, seeds):
        return torch.ones(len(seeds), 4)

    def map(self, z):
        return z[:, None]

    def synthesize(self, codes):
        return codes[:, 0, :3, None, None].expand(-1, -1, 2, 2)
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with modules in it that is not on Python's path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    (tmp_path / "of_mine.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["gen", "make", "ToyGenerator"])
def test_a_generator_is_named_made_or_of_a_class(here, name):
    found = package.load_generator(f"of_mine:{name}")
    assert found.synthesize(found.map(found.latents([0]))).shape == (1, 3, found.resolution, found.resolution)


def test_a_generator_whose_truncation_is_a_buffer_is_one(here):
    """As users meet it: under pytest, from Python 3.12 on, annotations see no buffers."""
    code = (
        "import higan; from higan.population import measure; "
        "print(measure(higan.load_generator('of_mine:Buffered'), higan.load_scorer('of_mine:Ready'), range(3)).scores)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[255.]") == 3


@pytest.mark.parametrize("name", ["seg", "ToySegmenter"])
def test_a_segmenter_is_named_or_of_a_class(here, name):
    assert package.load_segmenter(f"of_mine:{name}").segment(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).ndim == 3


def test_what_is_no_generator_is_refused(here):
    with pytest.raises(ValueError, match=r"of_mine:net is Linear, which has no name, num_layers.*from_module"):
        package.load_generator("of_mine:net")
    with pytest.raises(ValueError, match=r"of_mine:number is int, which has no name"):
        package.load_generator("of_mine:number")
    with pytest.raises(MissingWeightsError, match="no attribute 'gone'"):
        package.load_generator("of_mine:gone")
    with pytest.raises(BrokenModuleError, match=r"of_mine:broken\(\) failed at .*of_mine.py, line 19: KeyError"):
        package.load_generator("of_mine:broken")
    with pytest.raises(ValueError, match=r"of_mine:gen is ToyGenerator, which has no classes, segment"):
        package.load_segmenter("of_mine:gen")


@pytest.mark.parametrize("option", [{"truncation_psi": 0.5}, {"precision": "float16"}, {"compiled": True}])
def test_options_of_a_generator_of_ones_own_are_refused(here, option):
    with pytest.raises(ValueError, match="made by your own code; leave truncation_"):
        package.load_generator("of_mine:gen", **option)


def test_a_generator_elsewhere_than_asked_for_is_refused(here, monkeypatch):
    found = package.load_generator("of_mine:gen")
    monkeypatch.setattr(type(found), "device", torch.device("meta"), raising=False)
    found.__dict__.pop("device", None)
    with pytest.raises(ValueError, match="of_mine:gen lives on meta, and was asked for on cpu"):
        package.load_generator("of_mine:gen")


def test_a_class_of_scorers_is_made(here):
    images = torch.full((2, 3, 8, 8), 7, dtype=torch.uint8)
    assert package.load_scorer("of_mine:Reds").score(images).tolist() == [[7.0], [7.0]]
    assert package.load_scorer("of_mine:Ready").name == "ready"
    with pytest.raises(ValueError, match=r"is a class that takes arguments \(size\); name an instance"):
        package.load_scorer("of_mine:Sized")


@pytest.mark.parametrize("option", [{"concepts": ["a"]}, {"level": "layout"}])
def test_a_scorer_with_concepts_of_its_own_takes_no_others(here, option):
    with pytest.raises(ValueError, match="concepts of its own; leave concepts and level out"):
        package.load_scorer("of_mine:Ready", **option)


@pytest.mark.parametrize(
    ("source", "kind", "told"),
    [
        ("import torchfoo", BrokenModuleError, r"import inside the module failed at .*bad.py, line 1: No module named"),
        ("from of_mine import Gone", BrokenModuleError, r"failed at .*bad.py, line 1: cannot import name 'Gone'"),
        ("x = 1\ndef f(x) pass", BrokenModuleError, r"bad.py, line 2, is not Python: expected ':'"),
        ("import other", BrokenModuleError, r"other.py, line 1, is not Python"),
        ("x = 1\n1 / 0", BrokenModuleError, r"running the module failed at .*bad.py, line 2: ZeroDivisionError"),
    ],
)
def test_a_module_that_fails_says_where(here, source, kind, told):
    Path("bad.py").write_text(source)
    Path("other.py").write_text("def")
    with pytest.raises(kind, match=told) as caught:
        import_named("bad:x")
    assert "\n" not in str(caught.value)


def test_no_such_module_is_told_apart(here):
    for reference, missing in (("nowhere_at_all:x", "nowhere_at_all"), ("of_mine.deeper:x", "of_mine.deeper")):
        with pytest.raises(MissingWeightsError, match=f"there is no module '{missing}'"):
            import_named(reference)
    assert source_of("nowhere_at_all:x") is None
    assert source_of("of_mine:x") == here / "of_mine.py"


def test_a_study_of_a_generator_of_ones_own(higan, here):
    """From sampling to the report, an edit and a resumption, segmenter included."""
    line = ["run", "--generator", "of_mine:gen", "--scorer", "of_mine:predict", "--segmenter", "of_mine:seg"]
    line += ["--out", "r", "--num", 120, "--verify", 8, "--random", 3, "--permuted", 0]
    code, printed = higan(*line)
    assert code == 0, printed
    assert store.load_run("r").settings["digests"].keys() == {"generator of_mine:gen", "scorer of_mine:predict"}
    for again in (
        line,
        ["rescore", "r", "--verify", 9, "--random", 3],
        ["report", "r"],
        ["edit", "--run", "r", "--seed", 3, "--set", "red=+1", "--out", "red.png"],
    ):
        code, printed = higan(*again)
        assert code == 0, printed
    code, printed = higan(*line, "--generator-option", "precision=float16")
    assert code == 2
    assert "made by your own code" in printed
    Path("of_mine.py").write_text(SOURCE + "\n# another\n")
    code, printed = higan(*line)
    assert code == 1
    assert "another" in printed
    assert printed.count("of_mine.py") == 1
    # To look at what was made, it is enough that the same is drawn.
    edited = ["edit", "--run", "r", "--seed", 3, "--set", "red=+1", "--out", "red.png"]
    assert higan(*edited)[0] == 0
    assert higan("report", "r")[0] == 0
    sys.modules.pop("of_mine")
    other = "class Other(ToyGenerator):\n    def map(self, z):\n        return 2 * super().map(z)\n\ngen = Other()"
    Path("of_mine.py").write_text(SOURCE.replace("gen = ToyGenerator()", other))
    for line in (edited, ["report", "r"]):
        code, printed = higan(*line)
        assert code == 1, printed
        assert "first sample" in printed


def test_a_run_of_a_module_says_where_it_was_made(higan, here, monkeypatch):
    made = ("sample", "--generator", "of_mine:gen", "--scorer", "of_mine:predict", "--num", 20, "--out", "r")
    assert higan(*made)[0] == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(here)])
    sys.modules.pop("of_mine")
    code, printed = higan("report", here / "r")
    assert code == 1
    assert "made with the module 'of_mine', which cannot be found from here" in printed
    assert f"go to the folder where it was made, {here}" in printed


@pytest.mark.parametrize(("reference", "told"), [
    ("theirs:gen", "a module that lies in the run itself"),
    ("package_of_theirs.inner:gen", "a module that lies in the run itself"),
    ("code:interact", "code of Python"),
])  # fmt: skip
@pytest.mark.parametrize("role", ["generator", "scorer"])
def test_a_run_of_somebody_else_runs_no_code_that_came_with_it(higan, here, monkeypatch, reference, told, role):
    made = ("sample", "--generator", "of_mine:gen", "--scorer", "of_mine:predict", "--num", 20, "--out", "r")
    assert higan(*made)[0] == 0
    run = here / "r"
    (run / "package_of_theirs").mkdir()  # A package without an __init__ of its own.
    for file in ("theirs.py", "package_of_theirs/inner.py"):
        (run / file).write_text(f'{SOURCE}\nraise SystemExit("ran what came with the run")\n')
    manifest = run / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace(f"of_mine:{'gen' if role == 'generator' else 'predict'}", reference)
    )
    monkeypatch.chdir(run)
    for line in (
        ["fit", "."],
        ["report", "."],
        ["edit", "--run", ".", "--seed", 3, "--set", "red=+1", "--out", "a.png"],
    ):
        code, printed = higan(*line)
        assert "ran what came" not in printed
        if line[0] != "fit":  # which needs neither
            assert code == 1
            assert reference in printed
            assert told in printed


def test_the_installed_command_and_its_workers_find_modules_of_the_working_folder(here):
    command = Path(sys.executable).with_name("higan")
    line = "sample --generator of_mine:gen --scorer of_mine:predict --num 16 --shard-size 8 --workers 2 --out r"
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, command, *line.split()], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, textwrap.shorten(done.stdout + done.stderr, 3000)
    assert len(store.read_population(store.load_run("r"))) == 16
