"""Writes weight files the way their real writers do: with pickle, from classes that go by the real names."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch


class TfNetwork:
    """Pickles like ``Network`` of NVIDIA's TensorFlow code."""

    def __init__(self, state: dict) -> None:
        self.state = state

    def __getstate__(self) -> dict:
        return self.state

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("somebody unpickled a network")


class EasyDict(dict):
    """Pickles like ``dnnlib.util.EasyDict``."""

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("somebody unpickled a persistent object")


SOURCE = "raise SystemExit('module source was executed')\n"


class Persistent(torch.nn.Module):
    """Pickles like a class under ``torch_utils.persistence.persistent_class``."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        self._init_args = args
        self._init_kwargs = EasyDict(kwargs)

    def __reduce__(self) -> tuple:
        state = super().__reduce__()[2]
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": type(self).__name__,
            "state": state,
        }
        return _reconstruct_persistent_obj, (meta,)


class Layer(Persistent):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__(width, activation=activation)
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn(width, 3))
        self.bias = None
        self.register_parameter("gain", None)
        self.register_buffer("noise", torch.randn(4, 4).half())
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


class Generator(Persistent):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.z_dim = 8
        self.mapping = Layer(5, activation="lrelu")
        self.synthesis = torch.nn.ModuleList([torch.nn.Conv2d(2, 3, 3), Layer(4, activation="linear")])


@contextlib.contextmanager
def real_names(tf_module: str = "dnnlib.tflib.network") -> Iterator[None]:
    """Let the classes above be pickled under the names that the real ones have."""
    names = {
        tf_module: {"Network": TfNetwork},
        "dnnlib.util": {"EasyDict": EasyDict},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    }
    before = {}
    added = set()
    try:
        for module, members in names.items():
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                if name not in sys.modules:
                    sys.modules[name] = types.ModuleType(name)
                    added.add(name)
            for name, member in members.items():
                setattr(sys.modules[module], name, member)
                before[member] = (member.__module__, member.__qualname__)
                member.__module__, member.__qualname__ = module, name
        yield
    finally:
        for member, (module, qualname) in before.items():
            member.__module__, member.__qualname__ = module, qualname
        for name in added:
            del sys.modules[name]


def tf_variables(seed: int, *names: str) -> list[tuple[str, object]]:
    """Arrays by name, and ``lod`` as the NumPy scalar it really is."""
    rng = np.random.default_rng(seed)
    arrays = [(name, rng.normal(size=(3, 3, 2, 4)).astype(np.float32)) for name in names]
    return [("lod", np.float32(0.5)), *arrays]


def tf_state(version: int, name: str, variables: list, components: dict | None = None) -> dict:
    state = {
        "version": version,
        "name": name,
        "static_kwargs": EasyDict(
            num_channels=3, resolution=16, fused_scale="auto", label_size=0, lod_in=np.float64(0)
        ),
        "build_module_src": SOURCE,
        "build_func_name": "G_style",
        "variables": variables,
    }
    return state if components is None else state | {"components": components}


def tf_pickle(protocol: int = 4, version: int = 4, tf_module: str = "dnnlib.tflib.network") -> tuple[bytes, dict]:
    """A pickle (G, D, Gs) and the variables of Gs by flat name."""
    flat: dict[str, object] = {}
    networks = []
    for seed, name in enumerate(("G", "D", "Gs")):
        own = tf_variables(seed, "dlatent_avg")
        mapping = tf_variables(10 + seed, "Dense0/weight")
        synthesis = tf_variables(20 + seed, "4x4/Conv/weight", "4x4/Conv/bias")
        flat = dict(own)
        if version == 2:
            networks.append(TfNetwork(tf_state(version, name, own)))
            continue
        flat |= {f"mapping/{key}": value for key, value in mapping}
        flat |= {f"synthesis/{key}": value for key, value in synthesis}
        components = EasyDict(
            mapping=TfNetwork(tf_state(version, "G_mapping", mapping, {})),
            synthesis=TfNetwork(tf_state(version, "G_synthesis", synthesis, {})),
        )
        networks.append(TfNetwork(tf_state(version, name, own, components)))
    with real_names(tf_module):
        return pickle.dumps(tuple(networks), protocol=protocol), flat


def persistent_pickle(protocol: int = 4) -> tuple[bytes, Generator]:
    """A pickle {G, D, G_ema, training_set_kwargs} and its G_ema."""
    torch.manual_seed(0)
    made = {
        name: Generator(z_dim=8, img_resolution=16, mapping_kwargs=EasyDict(num_layers=2)) for name in ("G", "G_ema")
    }
    content = {**made, "D": None, "training_set_kwargs": EasyDict(path="data.zip", resolution=16), "augment_p": 0.25}
    with real_names():
        return pickle.dumps(content, protocol=protocol), made["G_ema"]


def state_dict() -> dict[str, torch.Tensor]:
    """A state dict with every type that weights come in, views and shared storage included."""
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    plain = {
        "whole": base,
        "view": base[1:3],
        "transposed": base.t(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    dtypes = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    typed = {str(dtype): torch.arange(5).to(dtype) for dtype in dtypes}
    return {**net.state_dict(), **plain, **typed, "bool": torch.tensor([True, False]), "complex": torch.ones(2) * 1j}


def torch_file(value: object, *, zipped: bool = True) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def write(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# ---- pickle opcodes, spelt by hand --------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(module: str, name: str, *args: bytes) -> bytes:
    """GLOBAL, arguments, REDUCE."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR"


def proto(body: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."
