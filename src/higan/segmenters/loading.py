"""From a name or a file to a segmenter."""

from __future__ import annotations

from pathlib import Path

import torch

from higan.devices import open_device
from higan.errors import MissingWeightsError
from higan.named import import_named, is_reference, lacks, made_without_arguments
from higan.types import Segmenter

__all__ = ["DEFAULT_ADE20K", "ROOMS", "WEIGHTS", "load_segmenter"]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""

ROOMS = ("rooms", "rooms-128")
"""Those that come with the package, by the pixels they read: 64 and 128."""

DEFAULT_ADE20K = "nvidia/segformer-b0-finetuned-ade-512-512"


def load_segmenter(
    name_or_path: str | Path, device: str | torch.device = "cpu", *, weights: str | Path | None = None
) -> Segmenter:
    """Opens a segmenter.

    Args:
        name_or_path: ``rooms``; ``rooms-128``; ``ade20k``; a file written by ``RoomsSegmenter.save``; a folder of
            transformers, or the name ``owner/model`` of one on the Hugging Face hub; your own ``module:name``, a
            segmenter, or a class or function without arguments that makes one.
        device: where it runs.
        weights: for ``ade20k``, the folder or hub name of the model; by default `DEFAULT_ADE20K`.

    Raises:
        MissingExtraError: transformers is needed and not installed.
        MissingWeightsError: there is no such file, or the embedded weights are not installed.
        CheckpointError: the file cannot be used; the subclass says why.
        BrokenModuleError: the module of ``module:name`` fails.
        ValueError: ``weights`` was given with a name that has weights of its own, ``module:name`` is no segmenter, or
            there is no such device.
    """
    device, name = open_device(device), str(name_or_path)
    if name == "ade20k":
        return _of_transformers(weights or DEFAULT_ADE20K, device)
    if weights is not None:
        raise ValueError(f"weights= goes with the name ade20k; {name!r} already says which weights to use")
    path = WEIGHTS / f"{name}.safetensors" if name in ROOMS else Path(name_or_path)
    if path.is_file():
        from higan.segmenters.rooms import RoomsSegmenter

        return RoomsSegmenter.load(path, device)
    if name not in ROOMS and (path.is_dir() or _is_hub_name(name)):
        return _of_transformers(name, device)
    if is_reference(name):
        return _imported(name)
    raise MissingWeightsError(
        f"{path}: no such file; expected a weight file, a folder of transformers, a name owner/model on the Hugging "
        f"Face hub, module:name, or one of the names {', '.join(ROOMS)}, ade20k (the weights of rooms come with the "
        "package, or from `higan rooms train-scorers`)"
    )


def _is_hub_name(name: str) -> bool:
    owner, slash, model = name.partition("/")
    looks_like_a_path = "/" in model or "\\" in name or bool(Path(name).suffix)
    return bool(owner.strip(".~") and slash and model) and not looks_like_a_path


def _of_transformers(name: str | Path, device: str | torch.device) -> Segmenter:
    from higan.segmenters.ade20k import TransformersSegmenter

    return TransformersSegmenter(name, device=device)


def _imported(reference: str) -> Segmenter:
    found = made_without_arguments(reference, import_named(reference))
    if missing := lacks(found, Segmenter):
        raise ValueError(
            f"{reference} is {type(found).__name__}, which has no {', '.join(missing)}; expected a segmenter as "
            "higan.Segmenter describes it, or a function without arguments that makes one"
        )
    return found
