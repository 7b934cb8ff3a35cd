"""StyleGAN3 out of NVIDIA's torch pickles.

Canonical names: ``mapping.0.weight``, ``mapping.label.weight`` (width, classes), ``input.freqs``, ``layers.0.weight`` …
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from higan.checkpoints.types import Network
from higan.errors import CorruptFileError, UnknownFormatError
from higan.generators.conversion.raw import Raw, Rule, check_depth, colours, count, load, rename
from higan.generators.stylegan3 import StyleGAN3Config, StyleGAN3Network

__all__ = ["from_nvidia_torch"]

_GAIN = math.sqrt(2)

_RULES: tuple[Rule, ...] = (
    (r"mapping\.w_avg", "mean_code"),
    (r"mapping\.fc(\d+)\.(weight|bias)", "mapping.{0}.{1}"),
    (r"mapping\.embed\.(weight|bias)", "mapping.label.{0}"),
    (r"synthesis\.input\.affine\.(weight|bias)", "input.affine.{0}"),
    (r"synthesis\.input\.(weight|transform|freqs|phases)", "input.{0}"),
    (r"synthesis\.L(\d+)_\d+_\d+\.affine\.(weight|bias)", "layers.{0}.style.{1}"),
    (r"synthesis\.L(\d+)_\d+_\d+\.(weight|bias|magnitude_ema|up_filter|down_filter)", "layers.{0}.{1}"),
)

_SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "num_critical": ("critical", int),
    "first_cutoff": ("first_cutoff", float),
    "first_stopband": ("first_stopband", float),
    "last_stopband_rel": ("last_stopband_rel", float),
    "margin_size": ("margin", int),
    "filter_size": ("filter_size", int),
    "lrelu_upsampling": ("lrelu_upsampling", int),
    "conv_clamp": ("clamp", lambda clamp: None if clamp is None else float(clamp)),
    "output_scale": ("output_scale", float),
}
"""Keyword arguments of the training code that shapes do not tell: the names they have here, and their types."""


def from_nvidia_torch(source: Network) -> StyleGAN3Network:
    """The ``G_ema`` of a pickle that the code of StyleGAN3 wrote, T or R.

    Raises:
        UnknownFormatError: a tensor has no place in the network, or the file does not say how it is set up.
        CorruptFileError: tensors are missing or contradict each other.
    """
    given: dict[str, Any] = {**source.config, **(source.config.get("synthesis_kwargs") or {})}
    if "img_resolution" not in given:
        raise UnknownFormatError(f"{source.name} does not say at which resolution it was set up (img_resolution)")
    raw = rename(source.tensors, _RULES)
    layers = count(raw, "layers.{}.weight")
    if not 2 <= layers <= 64:
        raise CorruptFileError(f"the file has {layers} layers; no StyleGAN3 has")
    colours(raw[f"layers.{layers - 1}.weight"])
    if "mapping.label.weight" in raw and "mapping.label.bias" not in raw:
        raise UnknownFormatError("this is a StyleGAN-XL, whose classes have learned embeddings; it is not understood")
    if given.get("lrelu_upsampling") == 1:
        raise UnknownFormatError("a StyleGAN3 trained with lrelu_upsampling=1 is not understood; expected 2")
    depth = check_depth(count(raw, "mapping.{}.weight"))
    embedding = _embedding(raw)
    label_dim = 0 if embedding is None else embedding.shape[1]
    config = StyleGAN3Config(
        resolution=int(given["img_resolution"]),
        channels=(raw["input.freqs"].shape[0], *(raw[f"layers.{k}.weight"].shape[0] for k in range(layers))),
        latent_dim=raw["mapping.0.weight"].shape[1] - label_dim,
        mapping=tuple(raw[f"mapping.{i}.weight"].shape[0] for i in range(depth)),
        num_classes=0 if embedding is None else embedding.shape[0],
        label_dim=label_dim,
        kernel=raw["layers.0.weight"].shape[2],
        radial=any(raw[f"layers.{k}.down_filter"].ndim == 2 for k in range(layers - 1)),
        **{ours: number(given[theirs]) for theirs, (ours, number) in _SETTINGS.items() if theirs in given},
    )
    state: dict[str, Tensor] = {"mean_code": raw["mean_code"]}
    if embedding is not None:
        state["mapping.embedding"] = embedding
    lr = _mapping_lr(source)
    for i in range(depth):
        weight = raw[f"mapping.{i}.weight"]
        state[f"mapping.weights.{i}"] = weight * (lr * _GAIN / math.sqrt(weight.shape[1]))
        state[f"mapping.biases.{i}"] = raw[f"mapping.{i}.bias"] * (lr * _GAIN)
    state |= {f"input.{name}": tensor for name, tensor in _input(raw).items()}
    try:
        for k in range(layers):
            state |= {f"layers.{k}.{name}": t for name, t in _layer(raw, k, rgb=k == layers - 1, config=config).items()}
        return load(StyleGAN3Network, config, state)
    except (ValueError, ArithmeticError) as error:
        raise CorruptFileError(f"the settings in the file do not make a StyleGAN3: {error}") from error


def _mapping_lr(source: Network) -> float:
    mapping = source.components.get("mapping")
    first = mapping.components.get("fc0") if mapping else None
    kwargs = source.config.get("mapping_kwargs") or {}
    return float((first.config if first else {}).get("bias_gain", kwargs.get("lr_multiplier", 0.01)))


def _embedding(raw: Raw) -> Tensor | None:
    """One row per class."""
    if "mapping.label.weight" not in raw:
        return None
    weight = raw["mapping.label.weight"]
    return weight.t() / math.sqrt(weight.shape[1]) + raw["mapping.label.bias"]


def _input(raw: Raw) -> dict[str, Tensor]:
    weight, affine = raw["input.weight"], raw["input.affine.weight"]
    return {
        "weight": weight / math.sqrt(weight.shape[1]),
        "affine_weight": affine / math.sqrt(affine.shape[1]),
        "affine_bias": raw["input.affine.bias"],
        "transform": raw.get("input.transform", torch.eye(3)),
        "frequencies": raw["input.freqs"],
        "phases": raw["input.phases"],
    }


def _layer(raw: Raw, k: int, *, rgb: bool, config: StyleGAN3Config) -> dict[str, Tensor]:
    weight, style = raw[f"layers.{k}.weight"], raw[f"layers.{k}.style.weight"]
    if rgb:
        weight = weight / math.sqrt(weight[0].numel())
    else:
        weight = weight * torch.rsqrt(weight.square().mean((1, 2, 3), keepdim=True))
    state = {
        "weight": weight,
        "bias": raw[f"layers.{k}.bias"],
        "style_weight": style / math.sqrt(style.shape[1]),
        "style_bias": raw[f"layers.{k}.style.bias"],
        "input_gain": raw[f"layers.{k}.magnitude_ema"].rsqrt(),
    }
    if not rgb:
        # Zero-insertion along an axis costs a factor of `up`; the non-linearity's own gain is shared by the two axes.
        state["up_filter"] = raw[f"layers.{k}.up_filter"] * (config.geometry()[k].up * 2**0.25)
        state["down_filter"] = raw[f"layers.{k}.down_filter"]
    return state
