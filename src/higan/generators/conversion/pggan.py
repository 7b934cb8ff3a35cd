"""PGGAN out of NVIDIA's TensorFlow pickles and all kinds of genforce ``.pth``.

Canonical names: ``dense`` (out, in, 4, 4) as a convolution of the padded latent, ``layers.1.conv`` (out, in, 3, 3) as
used after nearest up-sampling, ``layers.1.bias``, ``rgb.0.weight`` by level …
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from higan.checkpoints.types import Network
from higan.generators.conversion.raw import (
    Raw,
    Rule,
    check_levels,
    colours,
    count,
    flip,
    from_hwio,
    load,
    rename,
    require,
)
from higan.generators.layers import faded_levels, fold_upsampling
from higan.generators.pggan import PGGANConfig, PGGANNetwork

__all__ = ["from_genforce", "from_nvidia_tf"]

_GAIN = math.sqrt(2)


def _unroll(x: Tensor) -> Tensor:
    """Dense weights (in, 16 · out) to the kernel that makes the same 4×4 map of a padded latent."""
    return x.reshape(x.shape[0], -1, 4, 4).transpose(0, 1).flip(2, 3)


def _from_hwoi(x: Tensor) -> Tensor:
    return x.permute(2, 3, 0, 1)


_TF: tuple[Rule, ...] = (
    (r"lod", "lod"),
    (r"4x4/Dense/weight", "dense", _unroll),
    (r"4x4/Dense/bias", "dense_bias"),
    (r"(\d+)x\d+/Conv0_up/weight", "{0}.0.conv", _from_hwoi, flip),
    (r"(\d+)x\d+/Conv0(?:_up)?/bias", "{0}.0.bias"),
    (r"(\d+)x\d+/Conv0/weight", "{0}.0.conv", from_hwio),
    (r"(\d+)x\d+/Conv1?/weight", "{0}.1.conv", from_hwio),
    (r"(\d+)x\d+/Conv1?/bias", "{0}.1.bias"),
    (r"ToRGB_lod(\d+)/weight", "lod{0}.weight", from_hwio),
    (r"ToRGB_lod(\d+)/bias", "lod{0}.bias"),
)

_GENFORCE: tuple[Rule, ...] = (
    (r"lod", "lod"),
    (r"layer0(?:\.conv)?\.weight", "dense"),
    (r"layer0(?:\.wscale)?\.bias", "dense_bias"),
    (r"layer(\d+)\.conv\.weight", "layers.{0}.conv"),
    (r"layer(\d+)(?:\.wscale)?\.bias", "layers.{0}.bias"),
    (r"output(\d+)(?:\.conv)?\.weight", "rgb.{0}.weight"),
    (r"output(\d+)(?:\.wscale)?\.bias", "rgb.{0}.bias"),
)

_HIGAN: tuple[Rule, ...] = ((r"layer([1-9]\d*)\.weight", "layers.{0}.conv", from_hwio, flip), *_GENFORCE)
_LATER: tuple[Rule, ...] = ((r"layer([1-9]\d*)\.weight", "layers.{0}.conv"), *_GENFORCE)

_INTERFACEGAN: tuple[Rule, ...] = (
    (r"layer1\.conv\.weight", "dense"),
    (r"layer1\.wscale\.bias", "dense_bias"),
    (r"layer(\d+)\.conv\.weight", "{0}.conv"),
    (r"layer(\d+)\.wscale\.bias", "{0}.bias"),
    (r"output_\d+x\d+\.conv\.weight", "rgb.weight"),
    (r"output_\d+x\d+\.wscale\.bias", "rgb.bias"),
)

_TF_OPTIONS = {
    "use_wscale": True,
    "use_pixelnorm": True,
    "use_leakyrelu": True,
    "normalize_latents": True,
    "tanh_at_end": None,
}


def from_nvidia_tf(source: Network) -> PGGANNetwork:
    """The ``Gs`` of a pickle that NVIDIA's PGGAN code wrote.

    Raises:
        UnknownFormatError: it uses options that no published model uses.
        CorruptFileError: tensors are missing or contradict each other.
    """
    options = require(source, _TF_OPTIONS)
    flat = rename(source.tensors, _TF)
    levels = sum(name.startswith("lod") and name.endswith(".weight") for name in flat)
    raw = Raw()
    for name, tensor in flat.items():
        head, _, rest = name.partition(".")
        if head.isdigit():
            part, _, leaf = rest.partition(".")
            raw[f"layers.{2 * (int(head).bit_length() - 3) + int(part)}.{leaf}"] = tensor
        elif head.startswith("lod") and rest:
            raw[f"rgb.{levels - 1 - int(head[3:])}.{rest}"] = tensor
        else:
            raw[name] = tensor
    return _build(raw, num_classes=int(options.get("label_size") or 0))


def from_genforce(source: Network) -> PGGANNetwork:
    """The state dict of HiGAN's own models, of InterFaceGAN's, or of the later genforce repository.

    The last does not tell how many of the inputs are classes; all are taken for the latent's.

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    if "layer0.conv.weight" not in source.tensors and "layer1.wscale.bias" in source.tensors:
        return _build(_from_one(rename(source.tensors, _INTERFACEGAN)))
    if "layer0.conv.weight" in source.tensors:
        return _build(rename(source.tensors, _HIGAN))
    raw = rename(source.tensors, _LATER)
    up = range(2, 2 * count(raw, "rgb.{}.weight"), 2)
    # Fused layers keep their kernels as (in, out, 3, 3); nothing else in the file tells.
    if any(raw[f"layers.{k}.conv"].shape[0] != raw[f"layers.{k}.bias"].shape[0] for k in up):
        raw.update({f"layers.{k}.conv": flip(raw[f"layers.{k}.conv"].transpose(0, 1)) for k in up})
    return _build(raw)


def _from_one(flat: Raw) -> Raw:
    """Layers counted from one, of which the last alone makes a picture, to layers from zero that all could."""
    raw = Raw()
    for name, tensor in flat.items():
        head, _, leaf = name.partition(".")
        raw[f"layers.{int(head) - 1}.{leaf}" if head.isdigit() else name] = tensor
    weight, bias = raw.pop("rgb.weight"), raw.pop("rgb.bias")
    levels = check_levels(sum(name.endswith(".conv") for name in raw) // 2 + 1)
    for level in range(levels):
        width = raw[f"layers.{2 * level + 1}.conv"].shape[0]
        last = level == levels - 1
        raw[f"rgb.{level}.weight"] = weight if last else weight.new_zeros(weight.shape[0], width, 1, 1)
        raw[f"rgb.{level}.bias"] = bias if last else torch.zeros_like(bias)
    return raw


def _build(raw: Raw, num_classes: int = 0) -> PGGANNetwork:
    """Absorb He's constants (section 4.1 of the paper) into the weights."""
    levels = check_levels(count(raw, "rgb.{}.weight"))
    dense = raw["dense"]
    config = PGGANConfig(
        resolution=2 << levels,
        channels=tuple(raw[f"rgb.{level}.weight"].shape[1] for level in range(levels)),
        latent_dim=dense.shape[1] - num_classes,
        num_classes=num_classes,
        lod=float(raw["lod"]) if "lod" in raw else 0.0,
        image_channels=colours(raw["rgb.0.weight"]),
    )
    state = {
        "mean_code": torch.zeros(dense.shape[1]),
        "dense_weight": flip(dense).permute(0, 2, 3, 1).reshape(-1, dense.shape[1]) * _he(dense),
        "dense_bias": raw["dense_bias"].reshape(-1, 1, 1),
    }
    for k in range(1, 2 * levels):
        conv = raw[f"layers.{k}.conv"]
        conv = conv * _he(conv)
        state[f"layers.{k - 1}.weight"] = conv if k % 2 else fold_upsampling(conv)
        state[f"layers.{k - 1}.bias"] = raw[f"layers.{k}.bias"]
    for level in faded_levels(levels, config.lod):
        weight = raw[f"rgb.{level}.weight"]
        state[f"rgb_weights.{4 << level}"] = weight / math.sqrt(weight.shape[1])
        state[f"rgb_biases.{4 << level}"] = raw[f"rgb.{level}.bias"]
    return load(PGGANNetwork, config, state)


def _he(conv: Tensor) -> float:
    return _GAIN / math.sqrt(conv[0].numel())
