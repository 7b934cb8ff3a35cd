"""Hostile files are refused: at once, in little memory, with nothing imported, called or written."""

import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from checkpoint_files import call, proto, text, write
from higan.checkpoints.read import read
from higan.errors import CheckpointError, CorruptFileError, UnknownFormatError, UnsafePickleError
from hostile_files import NETWORK, Watch, calls, corpus, doubling, valid

CORPUS = dict(corpus())
CALLS = dict(calls())
VALID = list(valid().values())
WATCH = Watch()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every file, read in a process that may take 300 MB more than it starts with.

    In a process of its own also because the checks of types under pytest cost more than the reading itself.
    """
    folder = tmp_path_factory.mktemp("hostile")
    for index, content in enumerate(CORPUS.values()):
        (folder / f"{index:03}").write_bytes(content)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, here / "hostile_files.py", folder, "300"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=here, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(folder.iterdir())) == len(CORPUS)
    return dict(zip(CORPUS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CORPUS)
def test_refused(outcomes, name):
    _, error, told, events, in_time = outcomes[name]
    assert error in ("UnsafePickleError", "CorruptFileError", "UnknownFormatError")
    if name in CALLS and name != "name that is no text":
        assert error == "UnsafePickleError"
    assert not told.startswith("?")  # the message starts with the file's path
    assert len(told) < 500
    assert events == []
    assert in_time


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "torch.hub.load", "builtins.object.__subclasses__"])
def test_the_offending_name_is_given(tmp_path, name):
    module, attribute = ("builtins", "object.__subclasses__") if "__" in name else name.rsplit(".", 1)
    with pytest.raises(UnsafePickleError, match=name.replace(".", r"\.")):
        read(write(tmp_path, proto(text(module) + text(attribute) + b"\x93)R")))


def test_endless_configuration_is_cut_short(tmp_path):
    """A configuration that doubles forty times over is read, but not spelt out."""
    state = b"}(" + text("version") + b"K\x04" + text("build_func_name") + text("G") + text("variables") + b"]"
    state += text("static_kwargs") + b"}" + text("a") + doubling(40) + b"su"
    network = read(write(tmp_path, proto(NETWORK + state + b"b\x85"))).network("Gs")
    assert len(json.dumps(network.config)) < 10_000


def test_unknown_and_corrupt_are_different_errors(tmp_path):
    with pytest.raises(UnknownFormatError):
        read(write(tmp_path, proto(b"}")))
    with pytest.raises(CorruptFileError):
        read(write(tmp_path, proto(b"}")[:-1]))


# ---- fuzzing ------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(bytes([code]) for code in range(256)),
    *(b"h" + bytes([index]) for index in range(4)),
    b"q\x00", b"q\x01", b"K\x00", b"K\x05", b"I1\n", b"C\x01b", b"(K\x00t", b"(K\x02t", b"}", b"]", b"(", b")", b"N",
    text("a"), text("f4"), text("O8"), text("<"), text("latin1"), text("version"), text("storage"),
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n",
    b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n", b"cdnnlib.tflib.network\nNetwork\n", b"cbuiltins\nset\n", b"ccopyreg\n_reconstructor\n",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n", call("numpy", "dtype", text("f4"), b"K\x00K\x01"),
    call("collections", "OrderedDict"),
]  # fmt: skip

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(folder: Path, content: bytes) -> None:
    """Reading either gives data or raises a CheckpointError, and does nothing else."""
    path = write(folder, content)
    checkpoint = None
    with WATCH, suppress(CheckpointError):
        checkpoint = read(path)
    assert WATCH.events == []
    if checkpoint is None:
        return
    for network in checkpoint.networks.values():
        json.dumps(network.config)
        for tensor in network.tensors.values():
            tensor.clone()


@FUZZ
@given(content=st.binary(max_size=200))
def test_fuzz_arbitrary_bytes(tmp_path, content):
    survives(tmp_path, content)


@FUZZ
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=40), protocol=st.integers(0, 5))
def test_fuzz_opcodes(tmp_path, fragments, protocol):
    survives(tmp_path, b"\x80" + bytes([protocol]) + b"".join(fragments) + b".")


@FUZZ
@given(data=st.data(), base=st.sampled_from(VALID))
def test_fuzz_mutations_of_good_files(tmp_path, data, base):
    content = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        kind = data.draw(st.sampled_from(["flip", "set", "cut", "drop", "double", "insert"]))
        length = data.draw(st.integers(1, 40))
        if not content:
            break
        if kind == "flip":
            content[at] ^= 1 << (length % 8)
        elif kind == "set":
            content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, ord("R"), ord("b"), ord("."), ord("c")]))
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        else:
            content[at:at] = data.draw(st.binary(max_size=20))
    survives(tmp_path, bytes(content))


@FUZZ
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_fuzz_streams_in_torch_files(tmp_path, fragments):
    stream = b"\x80\x02" + b"".join(fragments) + b"."
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", stream)
        archive.writestr("a/data/0", b"12345678")
    survives(tmp_path, path.read_bytes())
