"""Small files that ask for huge networks are refused before these are built."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile_networks import NOISELESS, corpus

NAMES = [name for name, _, _ in corpus() if name != NOISELESS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every file, in a process of its own, whose memory is nobody else's."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, here / "hostile_networks.py", tmp_path_factory.mktemp("hostile")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=here, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", NAMES)
def test_refused(outcomes, name):
    told, seconds, megabytes = outcomes[name]
    assert told.startswith("CorruptFileError")
    assert f"{name}.safetensors" in told
    assert len(told) < 500
    assert seconds < 3
    assert megabytes < 100


def test_maps_that_are_not_there_take_no_memory(outcomes):
    told, _, megabytes = outcomes[NOISELESS]
    assert told == "none"
    assert megabytes < 100
