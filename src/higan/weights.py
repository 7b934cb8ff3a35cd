"""Our own weight files: safetensors with a JSON header under the key ``higan``; read whole, written whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.files import write_whole

__all__ = ["digest_of", "filled", "misfit", "read_weights", "write_weights"]


Network = TypeVar("Network", bound=nn.Module)


def write_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON header so that the file appears whole or not at all."""
    write_whole(path, safetensors.torch.save(dict(tensors), {"higan": json.dumps(header)}))


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file that ``write_weights`` wrote.

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: the file is not safetensors, or lacks the header.
        CorruptFileError: the file is truncated or its header is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeightsError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("higan")
            # Copies: safetensors maps the file, which Windows then lets nobody replace or remove.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        if _starts_like_safetensors(path):
            raise CorruptFileError(f"{path} is truncated or damaged: {error}; fetch or train it again") from error
        raise UnknownFormatError(f"{path} is not a safetensors file: {error}") from error
    if text is None:
        raise UnknownFormatError(f"{path} was not written by higan: its header lacks the entry 'higan'")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} has a damaged header: {error}") from error
    if not isinstance(header, dict):
        raise CorruptFileError(f"{path} has a damaged header: expected a JSON object, got {type(header).__name__}")
    return tensors, header


def misfit(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the weights of a network, or None if every one is there and fits.

    The network is built without memory for its weights, so that a damaged file cannot ask for more than it fills.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, has = expected.get(name, "none"), found.get(name, "none")
            return f"{name} should have shape {wanted}, but has {has}"
        if 0 in found[name]:
            return f"{name} has shape {found[name]} and holds no numbers"
    return None


def filled(build: Callable[[], Network], tensors: Mapping[str, Tensor]) -> Network:
    """A network with these weights, in float32; shapes are compared before anything is allocated.

    Raises:
        ValueError: a weight is missing, superfluous or of another shape.
    """
    wrong = misfit(build, tensors)
    if wrong:
        raise ValueError(wrong)
    network = build()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return network


def _starts_like_safetensors(path: Path) -> bool:
    """Whether what is there of the first nine bytes is a length and the brace that opens the header."""
    with path.open("rb") as file:
        return file.read(9)[8:] in (b"", b"{")


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
