"""Files of a run: whole or not at all, still there after the power fails, and checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from higan.checkpoints.native import is_safetensors
from higan.errors import CorruptRunError, RunError, RunWriteError
from higan.files import write_whole

__all__ = [
    "CONTENT",
    "is_ours",
    "load_tensors",
    "make_folder",
    "save_tensors",
    "temporary",
    "unwritable",
    "write_file",
    "write_json",
]

CONTENT = "higan.content"
"""Key of the metadata that say what a file holds."""

_DIGEST = "higan.sha256"


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all, and still there after the power fails; folders on the way are made.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    try:
        make_folder(path.parent)
        write_whole(path, data, temporary(path))
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As `write_file`, for people to read.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    write_file(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def make_folder(path: Path) -> None:
    """A folder and those on the way to it, still there after the power fails."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """What a folder lists is still there after the power fails; Windows, which opens no folders, sees to it itself."""
    if sys.platform != "win32":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary(path: Path) -> Path:
    """The name that a file has until it is whole.

    Always the same one, so that what a killed process left behind is overwritten and not collected.
    """
    return path.with_name(f".{path.name}.tmp")


def unwritable(path: Path, error: OSError) -> RunWriteError:
    """What to tell of a disk that is full or refuses."""
    return RunWriteError(
        f"{path} cannot be written ({error.strerror or error}): what was finished is kept; make room or give leave, "
        "and the same call goes on"
    )


def save_tensors(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Tensors, what they are (``content["kind"]``) and a digest of both; the same ones give the same bytes.

    Raises:
        RunWriteError: the disk is full or refuses.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(content)
    write_file(path, _settled(to_safetensors(plain, {CONTENT: text, _DIGEST: _digest(plain, text)})))


def _settled(data: bytes) -> bytes:
    """The same file with its metadata in order: safetensors writes them in another order every time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


_VERBS = {"boundaries": "fit", "permuted": "fit", "rescoring": "rescore", "responses": "steps"}
"""What makes the files of these names."""


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` kept.

    Raises:
        RunError: there is no such file.
        CorruptRunError: it is damaged, of another kind, or not ours.
    """
    if not path.is_file():
        verb = _VERBS.get(path.stem)
        remedy = f"; do it with `higan {verb} {path.parent}`" if verb else ""
        raise RunError(f"{path} is not there: this step of the study has not been done{remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: safetensors maps the file, which Windows then lets nobody replace or remove.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CorruptRunError(f"{path} is damaged: {error}; do this step again to replace it") from error
    text = metadata.get(CONTENT, "")
    if metadata.get(_DIGEST) != _digest(tensors, text):
        raise CorruptRunError(f"{path} is damaged or was not written by this program; do this step again to replace it")
    content = json.loads(text)
    if content["kind"] != kind:
        raise CorruptRunError(f"{path} holds {content['kind']}, not {kind}")
    return tensors, content


def is_ours(path: Path) -> bool:
    """Whether a file was written here, as far as its head tells: it may be damaged."""
    with path.open("rb") as file:
        if not is_safetensors(file.read(9), path.stat().st_size):
            return path.suffix == ".safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return _DIGEST in (file.metadata() or {})
    except SafetensorError:
        return True


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, since NumPy knows fewer types than torch: a file may hold any of them.
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
