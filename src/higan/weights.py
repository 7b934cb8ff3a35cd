"""Our own weight files: safetensors with a JSON header under the key ``higan``; read whole, written whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError

__all__ = ["digest_of", "read_weights", "write_weights"]


def write_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON header so that the file appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    content = safetensors.torch.save(dict(tensors), {"higan": json.dumps(header)})
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        if _starts_like_safetensors(path):
            raise CorruptFileError(f"{path} is truncated or damaged: {error}; fetch or train it again") from error
        raise UnknownFormatError(f"{path} is not a safetensors file: {error}") from error
    if text is None:
        raise UnknownFormatError(f"{path} was not written by higan: its header lacks the entry 'higan'")
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptFileError(f"{path} has a damaged header: {error}") from error
    return tensors, header


def _starts_like_safetensors(path: Path) -> bool:
    """Whether what is there of the first nine bytes is a length and the brace that opens the header."""
    with path.open("rb") as file:
        return file.read(9)[8:] in (b"", b"{")


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
