"""Our own format: safetensors, with the configuration as JSON in the header under the key ``higan``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from mmap import mmap
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from higan.checkpoints.types import Network
from higan.errors import CorruptFileError, UnknownFormatError
from higan.weights import write_weights

__all__ = ["is_safetensors", "parse", "write"]

MAX_HEADER = 8 << 20


def write(
    path: str | Path,
    family: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write one network. The file appears whole or not at all; equal input gives equal bytes.

    Args:
        path: where to; by convention ``*.safetensors``.
        family: which generator family the tensors belong to.
        config: everything that fixes the network's shape; must be plain JSON data.
        tensors: by state-dict name.
        provenance: where the weights come from, for people.

    Raises:
        ValueError: the configuration is not plain JSON data.
    """
    header = {"family": family, "config": dict(config), "provenance": dict(provenance or {})}
    try:
        json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must be plain JSON data to be written to a header; {error}") from error
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_weights(path, plain, header)


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file with these first bytes and of this size claims to be safetensors."""
    return len(start) > 8 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= size - 8


def parse(data: mmap) -> tuple[Network, dict[str, str]]:
    """The network in a safetensors file, and its provenance.

    A file without our key is read as well: its network then has no configuration.

    Raises:
        CorruptFileError: the header is damaged, or does not describe the bytes that follow.
        UnknownFormatError: the header is larger than that of any network.
    """
    header = _header(data)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise CorruptFileError("has a header whose metadata is not text by name")
    ours = _json(metadata.get("higan", "{}"))
    config, provenance = ours.get("config", {}), ours.get("provenance", ours.get("metadata", {}))
    if not isinstance(config, dict) or not isinstance(provenance, dict):
        raise CorruptFileError("has a damaged entry 'higan' in its header")
    try:
        tensors = safetensors.torch.load(data[:])
    except SafetensorError as error:
        raise CorruptFileError(f"is truncated or damaged ({error}); fetch or copy it again") from error
    family = ours.get("family", ours.get("format", ""))
    return Network("model", str(family), config, tensors), {str(k): str(v) for k, v in provenance.items()}


def _header(data: mmap) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER:
        raise UnknownFormatError(f"has a safetensors header of {size:,} bytes; that of a network is far smaller")
    return _json(data[8 : 8 + size].decode())


def _json(text: str) -> dict[str, Any]:
    value = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise CorruptFileError("has a header that is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CorruptFileError("has a header that names something twice")
    return found
