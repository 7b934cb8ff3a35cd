"""How the program starts: what is loaded when, and who hears of Ctrl-C meanwhile."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import higan

SOURCE = Path(higan.__file__).parents[1]
SLOW = "import pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(60)\n"
TOLD = "import signal, sys\nprint(signal.getsignal(signal.SIGINT).name)\nsys.exit()\n"


def hear():
    """What a shell starts in the background, and so perhaps these tests, does not hear of Ctrl-C otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def deaf():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def start(tmp_path):
    """Starts Python in a folder whose torch.py, if there is one, is taken for torch."""

    def begin(*words, torch=None, **options):
        if torch is not None:
            (tmp_path / "torch.py").write_text(torch)
        outlets = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        return subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment, **outlets, **options)

    return begin


def test_every_name_is_what_its_module_holds():
    for name in higan.__all__:
        home = importlib.import_module(f"higan.{higan._HOMES.get(name, 'types')}")
        assert name == "__version__" or getattr(higan, name) is getattr(home, name)
    assert set(higan.__all__) <= set(dir(higan))
    assert higan.boundaries is importlib.import_module("higan.boundaries")
    for name in ("load_generatr", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'higan' has no attribute '{name}'"):
            getattr(higan, name)
    with pytest.raises(ImportError, match="cannot import name 'load_generatr'"):
        exec("from higan import load_generatr")


def test_the_package_loads_nothing_before_it_is_asked_for(start):
    looked = start("-c", "import higan; print(higan.__version__)", torch="raise RuntimeError('loaded')")
    assert looked.communicate() == (f"{higan.__version__}\n", "")
    used = start("-c", "import higan; higan.load_generator")
    assert "RuntimeError: loaded" in used.communicate()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="nobody sends Ctrl-C to one process there")
def test_ctrl_c_while_the_program_loads_is_not_answered_with_a_traceback(start, tmp_path):
    with start("-m", "higan", torch=SLOW, preexec_fn=hear) as loading:
        deadline = time.monotonic() + 60
        while not (tmp_path / "loading").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        loading.send_signal(signal.SIGINT)
        assert loading.communicate(timeout=60) == ("", "")
        assert loading.returncode == -signal.SIGINT


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is inherited there")
def test_ctrl_c_is_not_heard_where_it_was_not_before(start):
    for prepare, told in ((hear, "SIG_DFL\n"), (deaf, "SIG_IGN\n")):
        assert start("-m", "higan", torch=TOLD, preexec_fn=prepare).communicate() == (told, "")


def test_ctrl_c_between_loading_and_working_is_a_status(monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr("higan.cli.main", stopped)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("higan.__main__").main()
    assert ended.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_the_package_is_a_program(start):
    started = start("-m", "higan", "--version")
    assert started.communicate() == (f"higan {higan.__version__}\n", "")
    assert started.returncode == 0
