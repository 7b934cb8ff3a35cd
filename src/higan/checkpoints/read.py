"""Open any weight file, by its content, without running anything in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from higan.checkpoints import native
from higan.checkpoints.files import digest, opened
from higan.checkpoints.networks import TF_NETWORKS, Converter, is_module, is_persistent, is_tf_network
from higan.checkpoints.pickles import RECORD, Budget, Data, Instance, Machine, Table
from higan.checkpoints.torchfile import TORCH, is_legacy, read_legacy, read_zip
from higan.checkpoints.types import Checkpoint, Format, Network, printable
from higan.errors import CorruptFileError, UnknownFormatError

__all__ = ["kind_of", "read"]

NVIDIA: Table = {
    **TORCH,
    **{f"{module} {name}": RECORD for module, _, name in (path.rpartition(".") for path in TF_NETWORKS)},
}
"""What NVIDIA's pickles name beyond that: the classes of their TensorFlow networks, which stay inert records."""

_FOREIGN = {
    b"\x93NUMPY": "is a NumPy file, not a network; directions are read by `higan.load_boundary`, the other files of "
    "the official tool by `higan import-official`",
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"\x89HDF": "is an HDF5 (Keras) file; expected a PyTorch, TensorFlow-pickle or safetensors file",
    b"version https://git-lfs": "is a Git LFS pointer, not the weights; run `git lfs pull` where it came from",
}
_WEB_PAGE = (
    "is a web page, not a weight file: the download was refused (quota, sign-in or a dead link). Open the address in a "
    "browser, save the file itself, and pass its path"
)


def read(path: str | Path) -> Checkpoint:
    """Read a weight file of any format known here; a folder for the Hugging Face layout of BigGAN.

    The format is told from the content, never from the name. Nothing in the file is run.

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: no reader here knows the layout.
        UnsafePickleError: reading it would mean running code that it carries.
        CorruptFileError: it is truncated, damaged or contradicts itself.
    """
    path = Path(path)
    weights = _weights_in(path) if path.is_dir() else path
    with opened(weights) as data:
        kind, networks, provenance = _parse(data)
        checkpoint = Checkpoint(weights, kind, networks, provenance, digest(data), len(data))
    return _with_hub_config(checkpoint) if kind == "biggan-hf" else checkpoint


Kind = Literal["torch zip", "legacy torch", "safetensors", "pickle"]


def kind_of(start: bytes, size: int) -> Kind:
    """The container of a file, from its first bytes (4096 are enough) and its size.

    Raises:
        UnknownFormatError: no weight file starts like that.
    """
    if start.startswith(b"PK\3\4"):
        return "torch zip"
    if is_legacy(start):
        return "legacy torch"
    if native.is_safetensors(start, size):
        return "safetensors"
    if start[:1] in (b"\x80", b"(", b"c", b"]", b"}", b")"):
        return "pickle"
    raise UnknownFormatError(_foreign(start))


def _foreign(start: bytes) -> str:
    for signature, what in _FOREIGN.items():
        if start.startswith(signature):
            return what
    if start.lstrip()[:1] == b"<":
        return _WEB_PAGE
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it, or save it again with a torch of version 0.4 or later"
    return (
        f"starts with {start[:8]!r}, which no known weight file does; expected a PyTorch, NVIDIA pickle or safetensors "
        "file"
    )


def _parse(data: mmap) -> tuple[Format, dict[str, Network], dict[str, str]]:
    kind, budget = kind_of(data[:4096], len(data)), Budget.for_file(len(data))
    if kind == "torch zip":
        return _networks(*read_zip(data, budget))
    if kind == "legacy torch":
        return _networks(*read_legacy(data, budget))
    if kind == "safetensors":
        network, provenance = native.parse(data)
        hub = not network.class_name and _guess([network]) == "biggan-hf"
        return "biggan-hf" if hub else "safetensors", {network.name: network}, provenance
    machine = Machine(data, NVIDIA, budget)
    return _networks(machine.run(), {"pickle protocol": str(machine.protocol)})


def _networks(value: Data, provenance: dict[str, str]) -> tuple[Format, dict[str, Network], dict[str, str]]:
    """NVIDIA's own, a tuple (G, D, Gs) of TensorFlow networks or a dict of torch modules, wherever they are kept."""
    convert = Converter()
    kind: Format
    if is_tf_network(value):
        value = (value,)
    if isinstance(value, tuple | list) and any(map(is_tf_network, value)):
        names = ("G", "D", "Gs") if len(value) >= 3 else ("Gs",) if len(value) == 1 else ("G", "Gs")
        named = [(name, part) for name, part in zip(names, value, strict=False) if is_tf_network(part)]
        kind, networks = "nvidia-tf", {name: convert.tf_network(name, part) for name, part in named}
    elif is_persistent(value):
        kind, networks = "nvidia-torch", {"G_ema": convert.module("G_ema", value)}
    elif isinstance(value, dict) and any(map(is_persistent, value.values())):
        kind = "nvidia-torch"
        networks = {str(key): convert.module(str(key), part) for key, part in value.items() if is_module(part)}
    else:
        return _torch(value, provenance)
    sources = {f"source of {name}": code for name, code in convert.sources.items() if name in networks}
    return kind, networks, provenance | _scalars(value) | sources


def _torch(value: Data, provenance: dict[str, str]) -> tuple[Format, dict[str, Network], dict[str, str]]:
    """One state dict, or several in nested dicts."""
    networks: dict[str, Network] = {}
    for network in map(_unwrapped, Converter().state_dicts(value)):
        name = network.name if network.name not in networks else f"{network.name} {len(networks)}"
        networks[name] = replace(network, name=name)
    if not networks:
        raise UnknownFormatError("holds no state dict: there are no named tensors in it")
    if isinstance(value, dict):
        networks = _with_extras(networks, value)
    return _guess(networks.values()), networks, provenance | _scalars(value)


def _unwrapped(source: Network) -> Network:
    """Names without the prefix that data-parallel training adds."""
    if not all(name.startswith("module.") for name in source.tensors):
        return source
    return replace(source, tensors={name.removeprefix("module."): tensor for name, tensor in source.tensors.items()})


def _with_extras(networks: Mapping[str, Network], value: dict[Data, Data]) -> dict[str, Network]:
    """What some writers put beside their state dicts: the mean code of a generator, the arguments of the training."""
    args = value.get("args")
    given = args.state if isinstance(args, Instance) else args
    config = Converter().plain(given) if isinstance(given, dict) else {}
    mean_code = value.get("latent_avg")
    extra = {"latent_avg": mean_code} if isinstance(mean_code, Tensor) else {}
    return {
        name: replace(
            network,
            config={**config, **network.config},
            tensors={**network.tensors, **(extra if _ROSINALITY in network.tensors else {})},
        )
        for name, network in networks.items()
    }


_ROSINALITY = "conv1.conv.modulation.weight"


_GENFORCE = frozenset(f"mapping.dense0.{weight}" for weight in ("weight", "fc.weight", "linear.weight")) | {
    "layer0.weight",
    "layer0.conv.weight",
    "layer1.wscale.bias",
}
"""Tensors by which that project's files are known, earlier ones and later."""


def _guess(networks: Iterable[Network]) -> Format:
    """Which project's names these are."""
    networks = list(networks)
    names = {name for network in networks for name in network.tensors}
    if _ROSINALITY in names:
        return "rosinality-pt"
    if {"generator.gen_z.weight", "generator.gen_z.weight_orig"} & names:
        return "biggan-hf"
    if "shared.weight" in names and "linear.weight" in names:
        return "biggan-torch"
    if _GENFORCE & names:
        return "genforce-pth"
    return "torch-state-dict"


def _scalars(value: Data) -> dict[str, str]:
    """Numbers and short texts beside the networks: iteration, epoch …"""
    if not isinstance(value, dict):
        return {}
    found = [(k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, bool | int | float | str)]
    return {printable(key): printable(str(content)) for key, content in found[:20]}


# ---- the Hugging Face layout ---------------------------------------------------------------------------------------


def _weights_in(folder: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UnknownFormatError(f"{folder} is a folder without {' or '.join(names)}; pass a weight file, or such a folder")


def _with_hub_config(checkpoint: Checkpoint) -> Checkpoint:
    """Take the configuration from ``config.json`` beside the weights.

    The files' own addresses call them ``X-pytorch_model.bin`` and ``X-config.json``; that is understood as well.
    """
    weights = checkpoint.path
    prefix, found, _ = weights.name.rpartition("pytorch_model.bin")
    path = weights.with_name(f"{prefix if found else ''}config.json")
    if not path.is_file():
        return checkpoint
    config = _json_object(path)
    networks = {name: replace(network, config=config) for name, network in checkpoint.networks.items()}
    return replace(checkpoint, networks=networks)


def _json_object(path: Path) -> dict[str, Any]:
    with opened(path) as data:
        if len(data) > 1 << 20:
            raise CorruptFileError("is far larger than a configuration")
        value = json.loads(data[:])
        if not isinstance(value, dict):
            raise CorruptFileError("is not a JSON object")
        return value
