"""Real files, written by pickle, torch and safetensors, come back as the tensors and settings that went in."""

import hashlib
import json
import pickle
import struct
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_save

from checkpoint_files import (
    SOURCE,
    EasyDict,
    Generator,
    call,
    persistent_pickle,
    proto,
    real_names,
    state_dict,
    text,
    tf_pickle,
    torch_file,
    write,
)
from higan.checkpoints import native
from higan.checkpoints.arrays import PLAIN
from higan.checkpoints.pickles import Budget, Machine
from higan.checkpoints.read import read
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError


def same(found, expected) -> bool:
    return (
        set(found) == set(expected)
        and all(found[k].dtype == expected[k].dtype for k in found)
        and all(torch.equal(found[k], expected[k]) for k in found)
    )


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    ("version", "module"), [(2, "tfutil"), (3, "dnnlib.tflib.network"), (4, "dnnlib.tflib.network")]
)
def test_tensorflow_pickles(tmp_path, protocol, version, module):
    content, flat = tf_pickle(protocol, version, module)
    checkpoint = read(write(tmp_path, content))
    assert (checkpoint.format, list(checkpoint.networks)) == ("nvidia-tf", ["G", "D", "Gs"])
    network = checkpoint.network("Gs")
    assert network.class_name == "G_style"
    assert network.config == {
        "num_channels": 3,
        "resolution": 16,
        "fused_scale": "auto",
        "label_size": 0,
        "lod_in": 0.0,
    }
    assert same(network.tensors, {key: torch.from_numpy(np.array(value)) for key, value in flat.items()})
    assert network.tensors["lod"].shape == ()
    if version > 2:
        component = network.components["synthesis"]
        assert component.tensors["4x4/Conv/weight"] is network.tensors["synthesis/4x4/Conv/weight"]
    assert checkpoint.provenance["source of Gs"] == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert (checkpoint.digest, checkpoint.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_python_2_pickle_with_byte_strings(tmp_path):
    values = np.array([[1.5, -2.0]], np.float32)
    raw = values.tobytes()
    dtype = (
        call("numpy", "dtype", b"U\x02f4", b"K\x00K\x01") + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"(K\x00t", b"U\x01b")
    array += b"(K\x01(K\x01K\x02t" + dtype + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    path = write(tmp_path, proto(b"}" + b"U\x01w" + array + b"s", 2))
    assert torch.equal(read(path).network("model").tensors["w"], torch.from_numpy(values))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_persistent_torch_pickles(tmp_path, protocol):
    content, network = persistent_pickle(protocol)
    checkpoint = read(write(tmp_path, content))
    found = checkpoint.network("G_ema")
    assert (checkpoint.format, set(checkpoint.networks), found.class_name) == (
        "nvidia-torch",
        {"G", "G_ema"},
        "Generator",
    )
    assert same(found.tensors, network.state_dict())
    assert found.config == {
        "training": True,
        "z_dim": 8,
        "img_resolution": 16,
        "mapping_kwargs": {"num_layers": 2},
    }
    layer = found.components["synthesis"].components["1"]
    assert layer.class_name == "Layer"
    assert layer.config["activation"] == "linear"
    assert layer.config["_init_args"] == [4]
    assert checkpoint.provenance["augment_p"] == "0.25"


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, zipped):
    expected = state_dict()
    content = torch_file(expected, zipped=zipped)
    checkpoint = read(write(tmp_path, content))
    assert checkpoint.format == "torch-state-dict"
    assert same(checkpoint.network("model").tensors, expected)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_tensors_and_arrays(tmp_path, protocol):
    expected = {"a": torch.randn(2, 3), "b": torch.arange(4)}
    path = write(tmp_path, pickle.dumps({"net": OrderedDict(expected), "step": 3}, protocol=protocol))
    assert same(read(path).network("net").tensors, expected)
    arrays = {
        "c": np.arange(6.0).reshape(2, 3).T,
        "f": np.asfortranarray(np.ones((2, 3))),
        "g": np.arange(3, dtype=">i4"),
    }
    path = write(tmp_path, pickle.dumps(arrays, protocol=protocol))
    found = read(path).network("model").tensors
    assert all(np.array_equal(found[key].numpy(), value) for key, value in arrays.items())


def test_tensors_can_be_written_to(tmp_path):
    for content in (torch_file({"a": torch.ones(2)}), torch_file({"a": torch.ones(2)}, zipped=False), tf_pickle()[0]):
        network = next(iter(read(write(tmp_path, content)).networks.values()))
        for tensor in network.tensors.values():
            tensor.add_(1)


ROSINALITY = {
    "conv1.conv.modulation.weight": torch.ones(1, 2),
    "style.1.weight": torch.ones(2),
    "input.input": torch.ones(1),
}


@pytest.mark.parametrize(
    ("value", "kind", "names"),
    [
        ({"g_ema": ROSINALITY, "d": ROSINALITY, "g_optim": {"state": {0: torch.ones(2)}, "param_groups": []}, "latent_avg": torch.ones(3)},
         "rosinality-pt", {"g_ema", "d"}),
        ({"layer0.weight": torch.ones(2), "lod": torch.tensor(0.0)}, "genforce-pth", {"model"}),
        ({"mapping.dense0.fc.weight": torch.ones(2)}, "genforce-pth", {"model"}),
        ({"models": {"generator_smooth": {"mapping.dense0.weight": torch.ones(2)}, "discriminator": {"w": torch.ones(1)}},
          "optimizers": {"generator": {"state": {}, "param_groups": [torch.ones(1)]}}, "running_metadata": {"iter": 4}},
         "genforce-pth", {"generator_smooth", "discriminator"}),
        ({"generator.gen_z.weight_orig": torch.ones(2)}, "biggan-hf", {"model"}),
        ({"shared.weight": torch.ones(2), "linear.weight": torch.ones(1), "linear.u0": torch.ones(1)}, "biggan-torch", {"model"}),
        ({"module.shared.weight": torch.ones(2), "module.linear.weight": torch.ones(1)}, "biggan-torch", {"model"}),
        ({"state_dict": {"module.conv1.weight": torch.ones(2)}, "epoch": 90, "arch": "wideresnet18"}, "torch-state-dict", {"state_dict"}),
    ],
)  # fmt: skip
def test_layouts_are_told_apart(tmp_path, value, kind, names):
    checkpoint = read(write(tmp_path, torch_file(value)))
    assert (checkpoint.format, set(checkpoint.networks)) == (kind, names)


def test_extras_of_rosinality_files(tmp_path):
    args = Namespace(size=256, latent=512, n_mlp=8, lr=0.002, out=Path("x"), stats=np.float64(0.5))
    value = {
        "g_ema": ROSINALITY,
        "d": {"a": torch.ones(1)},
        "latent_avg": torch.arange(3.0),
        "args": args,
        "ada_aug_p": 0.5,
    }
    checkpoint = read(write(tmp_path, torch_file(value)))
    network = checkpoint.network("g_ema")
    assert network.config == {
        "size": 256,
        "latent": 512,
        "n_mlp": 8,
        "lr": 0.002,
        "out": "pathlib.PosixPath",
        "stats": 0.5,
    }
    assert torch.equal(network.tensors["latent_avg"], torch.arange(3.0))
    assert "latent_avg" not in checkpoint.network("d").tensors
    assert checkpoint.provenance["ada_aug_p"] == "0.5"


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_of_every_version_of_python_are_records(module):
    stream = pickle.dumps(PurePosixPath("x"), protocol=2)
    own = b"c" + type(PurePosixPath("x")).__module__.encode() + b"\nPurePosixPath\n"
    assert own in stream
    stream = stream.replace(own, f"c{module}\nPosixPath\n".encode())
    found = Machine(stream, PLAIN, Budget.for_file(len(stream))).run()
    assert (found.cls.module, found.cls.name) == ("pathlib", "PosixPath")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_networks_of_nvidia_saved_by_torch(tmp_path, zipped, alone):
    """Forks keep ``torch.save(G_ema)`` in files that end in .pt."""
    torch.manual_seed(0)
    network = Generator(z_dim=8, img_resolution=16, mapping_kwargs=EasyDict(num_layers=2))
    with real_names():
        content = torch_file(network if alone else {"G_ema": network, "step": 3}, zipped=zipped)
    checkpoint = read(write(tmp_path, content))
    found = checkpoint.network("G_ema")
    assert (checkpoint.format, found.class_name, found.config["z_dim"]) == ("nvidia-torch", "Generator", 8)
    assert same(found.tensors, network.state_dict())


def test_text_of_a_file_cannot_steer_the_terminal(tmp_path):
    value = {"net": {"a\x1b[2J": torch.ones(2)}, "note": "\x1b]0;owned\x07fine", "long": "é" * 500}
    checkpoint = read(write(tmp_path, torch_file(value)))
    assert checkpoint.provenance["note"] == r"\x1b]0;owned\x07fine"
    assert checkpoint.provenance["long"] == "é" * 100 + "…"
    with pytest.raises(CheckpointError, match="holds net") as told:
        checkpoint.network("G_ema")
    assert str(told.value).isprintable()


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules(tmp_path, zipped):
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LeakyReLU(0.2))
    checkpoint = read(write(tmp_path, torch_file(network, zipped=zipped)))
    assert same(checkpoint.network("model").tensors, network.state_dict())
    assert checkpoint.network("model").components["1"].config["negative_slope"] == 0.2


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_hugging_face_folder(tmp_path, name):
    tensors = {"generator.gen_z.weight_orig": torch.ones(2), "embeddings.weight": torch.ones(3)}
    write(tmp_path, torch_file(tensors) if name.endswith("bin") else safetensors_save(tensors), name)
    write(tmp_path, json.dumps({"output_dim": 128, "layers": [[False, 16, 16]]}).encode(), "config.json")
    for path in (tmp_path, tmp_path / name):
        checkpoint = read(path)
        assert checkpoint.format == "biggan-hf"
        assert checkpoint.network("model").config == {"output_dim": 128, "layers": [[False, 16, 16]]}


def test_hugging_face_files_under_their_published_names(tmp_path):
    path = write(tmp_path, torch_file({"generator.gen_z.weight": torch.ones(2)}), "biggan-deep-128-pytorch_model.bin")
    assert read(path).network("model").config == {}
    write(tmp_path, b'{"output_dim": 128}', "biggan-deep-128-config.json")
    assert read(path).network("model").config == {"output_dim": 128}
    write(tmp_path, b'{"output_dim": ', "biggan-deep-128-config.json")
    with pytest.raises(CorruptFileError, match=r"config\.json"):
        read(path)


def test_own_format_round_trip(tmp_path):
    shared = torch.randn(3, 2)
    tensors = {"a": shared, "b": shared, "c": shared.t()}
    path = tmp_path / "x.safetensors"
    native.write(path, "stylegan2", {"resolution": 32, "widths": [8, 4]}, tensors, {"origin": "test"})
    first = path.read_bytes()
    native.write(path, "stylegan2", {"resolution": 32, "widths": [8, 4]}, tensors, {"origin": "test"})
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]
    checkpoint = read(path)
    network = checkpoint.network("model")
    assert (checkpoint.format, network.class_name) == ("safetensors", "stylegan2")
    assert network.config == {"resolution": 32, "widths": [8, 4]}
    assert checkpoint.provenance == {"origin": "test"}
    assert same(network.tensors, tensors)


def test_own_format_takes_json_only(tmp_path):
    for config in ({"a": torch.ones(1)}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="JSON"):
            native.write(tmp_path / "x", "stylegan", config, {"a": torch.ones(1)})
    assert not list(tmp_path.iterdir())


def test_foreign_safetensors(tmp_path):
    checkpoint = read(write(tmp_path, safetensors_save({"w": torch.ones(2)})))
    assert (checkpoint.format, checkpoint.network("model").config) == ("safetensors", {})


@pytest.mark.parametrize(
    ("content", "error", "hint"),
    [
        (b"", CorruptFileError, "empty"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", UnknownFormatError, "web page"),
        (b"\n <html>", UnknownFormatError, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", UnknownFormatError, "git lfs pull"),
        (b"\x93NUMPY\x01\x00v\x00{}", UnknownFormatError, "load_boundary"),
        (b"\x1f\x8b\x08\x00", UnknownFormatError, "gzip"),
        (b"\x89HDF\r\n\x1a\n", UnknownFormatError, "HDF5"),
        (b"\0" * 257 + b"ustar", UnknownFormatError, "tar"),
        (b"hello", UnknownFormatError, "hello"),
        (pickle.dumps({"iteration": 3}), UnknownFormatError, "no state dict"),
    ],
)
def test_other_files_are_named(tmp_path, content, error, hint):
    path = write(tmp_path, content, "model.pkl")
    with pytest.raises(error, match=hint) as info:
        read(path)
    assert str(info.value).startswith(str(path))


def test_missing_files(tmp_path):
    with pytest.raises(MissingWeightsError, match="no such file"):
        read(tmp_path / "nothing.pkl")
    with pytest.raises(UnknownFormatError, match=r"pytorch_model\.bin"):
        read(tmp_path)


def test_unknown_network_lists_those_there_are(tmp_path):
    checkpoint = read(write(tmp_path, tf_pickle()[0]))
    assert checkpoint.network("G_ema", "Gs").name == "Gs"
    with pytest.raises(CheckpointError, match="G, D, Gs"):
        checkpoint.network("G_ema")


def test_future_tensorflow_network(tmp_path):
    content, _ = tf_pickle(protocol=2, version=3)
    changed = content.replace(text("version") + b"q\x06K\x03", text("version") + b"q\x06K\x63")
    if changed == content:  # memo numbers moved
        index = content.index(text("version")) + len(text("version"))
        at = content.index(b"K\x03", index)
        changed = content[: at + 1] + struct.pack("B", 99) + content[at + 2 :]
    with pytest.raises(UnknownFormatError, match="version"):
        read(write(tmp_path, changed))


def test_nothing_of_the_repository_is_needed_to_read(tmp_path: Path):
    """The fake modules that wrote the file are gone again when it is read."""
    import sys

    content, _ = tf_pickle()
    assert not {"dnnlib", "tfutil", "torch_utils"} & set(sys.modules)
    read(write(tmp_path, content))
    assert not {"dnnlib", "tfutil", "torch_utils"} & set(sys.modules)
