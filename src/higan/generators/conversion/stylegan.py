"""StyleGAN out of NVIDIA's TensorFlow pickles and all kinds of genforce ``.pth``.

Canonical names: ``mapping.0.weight`` (out, in), ``mapping.label`` (classes, width), ``const``, ``layers.0.conv``
(out, in, 3, 3) as used after nearest up-sampling, ``layers.0.style.weight`` (2 c, D), ``rgb.0.weight`` by level …
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from higan.checkpoints.types import Network
from higan.errors import UnknownFormatError
from higan.generators.conversion.raw import (
    Raw,
    Rule,
    check_depth,
    check_levels,
    colours,
    count,
    flip,
    from_hwio,
    load,
    rename,
    require,
    taps_of,
    transpose,
)
from higan.generators.layers import faded_levels, fold_upsampling
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork

__all__ = ["from_genforce", "from_nvidia_tf"]

_FUSED_FROM = 128
"""Resolution from which ``fused_scale="auto"`` uses the transposed convolution."""

_GAIN = math.sqrt(2)


_TF: tuple[Rule, ...] = (
    (r"dlatent_avg", "mean_code"),
    (r"lod|synthesis/lod", "lod"),
    (r"mapping/Dense(\d+)/weight", "mapping.{0}.weight", transpose),
    (r"mapping/Dense(\d+)/bias", "mapping.{0}.bias"),
    (r"mapping/LabelConcat/weight", "mapping.label"),
    (r"synthesis/noise(\d+)", "layers.{0}.noise"),
    (r"synthesis/4x4/Const/const", "const"),
    (r"synthesis/(\d+)x\d+/(\w+)/weight", "{0}.{1}.conv", from_hwio),
    (r"synthesis/(\d+)x\d+/(\w+)/bias", "{0}.{1}.bias"),
    (r"synthesis/(\d+)x\d+/(\w+)/Noise/weight", "{0}.{1}.noise_strength"),
    (r"synthesis/(\d+)x\d+/(\w+)/StyleMod/weight", "{0}.{1}.style.weight", transpose),
    (r"synthesis/(\d+)x\d+/(\w+)/StyleMod/bias", "{0}.{1}.style.bias"),
    (r"synthesis/ToRGB_lod(\d+)/weight", "lod{0}.weight", from_hwio),
    (r"synthesis/ToRGB_lod(\d+)/bias", "lod{0}.bias"),
)

_HIGAN: tuple[Rule, ...] = (
    (r"mapping\.dense(\d+)\.(?:fc|linear)\.weight", "mapping.{0}.weight"),
    (r"mapping\.dense(\d+)\.wscale\.bias", "mapping.{0}.bias"),
    (r"truncation\.w_avg", "mean_code"),
    (r"truncation\.truncation", None),
    (r"synthesis\.lod", "lod"),
    (r"synthesis\.layer0\.(?:const|first_layer)", "const"),
    (r"synthesis\.layer(\d+)\.conv\.weight", "layers.{0}.conv"),
    (r"synthesis\.layer(\d+)\.weight", "layers.{0}.conv", from_hwio, flip),
    (r"synthesis\.layer(\d+)\.epilogue\.bias", "layers.{0}.bias"),
    (r"synthesis\.layer(\d+)\.epilogue\.apply_noise\.weight", "layers.{0}.noise_strength"),
    (r"synthesis\.layer(\d+)\.epilogue\.apply_noise\.noise", "layers.{0}.noise"),
    (r"synthesis\.layer(\d+)\.epilogue\.style_mod\.dense\.(?:fc|linear)\.weight", "layers.{0}.style.weight"),
    (r"synthesis\.layer(\d+)\.epilogue\.style_mod\.dense\.wscale\.bias", "layers.{0}.style.bias"),
    (r"synthesis\.layer\d+\.blur\.kernel", None),
    (r"synthesis\.output(\d+)\.conv\.weight", "rgb.{0}.weight"),
    (r"synthesis\.output(\d+)\.bias", "rgb.{0}.bias"),
)

_GENFORCE: tuple[Rule, ...] = (
    (r"mapping\.dense(\d+)\.weight", "mapping.{0}.weight"),
    (r"mapping\.dense(\d+)\.bias", "mapping.{0}.bias"),
    (r"mapping\.label_weight", "mapping.label"),
    (r"truncation\.w_avg", "mean_code"),
    (r"synthesis\.lod", "lod"),
    (r"synthesis\.layer0\.const", "const"),
    (r"synthesis\.layer(\d+)\.weight", "layers.{0}.conv"),
    (r"synthesis\.layer(\d+)\.bias", "layers.{0}.bias"),
    (r"synthesis\.layer(\d+)\.apply_noise\.weight", "layers.{0}.noise_strength"),
    (r"synthesis\.layer(\d+)\.apply_noise\.noise", "layers.{0}.noise"),
    (r"synthesis\.layer(\d+)\.style\.weight", "layers.{0}.style.weight"),
    (r"synthesis\.layer(\d+)\.style\.bias", "layers.{0}.style.bias"),
    (r"synthesis\.layer\d+\.blur\.kernel", None),
    (r"synthesis\.output(\d+)\.weight", "rgb.{0}.weight"),
    (r"synthesis\.output(\d+)\.bias", "rgb.{0}.bias"),
)

_TF_OPTIONS: Mapping[str, object] = {
    "use_wscale": True,
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "use_pixel_norm": False,
    "use_instance_norm": True,
    "use_styles": True,
    "use_noise": True,
    "const_input_layer": True,
    "normalize_latents": True,
    "blur_filter": [1, 2, 1],
}
"""Options of the training code that change the network, and the values that published models have."""


def from_nvidia_tf(source: Network) -> StyleGANNetwork:
    """The ``Gs`` of a pickle that NVIDIA's StyleGAN code wrote.

    Raises:
        UnknownFormatError: it uses options that no published model uses.
        CorruptFileError: tensors are missing or contradict each other.
    """
    options = require(source, _TF_OPTIONS)
    flat = rename(source.tensors, _TF)
    raw = Raw()
    levels = sum(name.startswith("lod") and name.endswith(".weight") for name in flat)
    for name, tensor in flat.items():
        head, _, rest = name.partition(".")
        if head.isdigit():
            block, _, leaf = rest.partition(".")
            level = int(head).bit_length() - 3
            raw[f"layers.{2 * level + (block in ('Conv', 'Conv1'))}.{leaf}"] = tensor
        elif head.startswith("lod") and rest:
            raw[f"rgb.{levels - 1 - int(head[3:])}.{rest}"] = tensor
        else:
            raw[name] = tensor
    fused = options.get("fused_scale", "auto")
    return _build(_unfuse(raw, fused), lr=float(options.get("mapping_lrmul", 0.01)))


def from_genforce(source: Network) -> StyleGANNetwork:
    """The state dict of HiGAN's own models, of InterFaceGAN's, or of the later genforce repository.

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    blur = taps_of(source.tensors, r".*\.blur\.kernel")
    if blur not in (None, (1, 2, 1)):
        raise UnknownFormatError(f"the blurring filter is {blur}; only (1, 2, 1) is understood")
    if {"mapping.dense0.fc.weight", "mapping.dense0.linear.weight"} & source.tensors.keys():
        return _build(rename(source.tensors, _HIGAN))
    return _build(_unfuse(rename(source.tensors, _GENFORCE), "auto"))


def _unfuse(raw: Raw, fused: object) -> Raw:
    """Turn the kernels of fused layers into those of the equal up-sampling and convolution."""
    for layer in range(2, 2 * count(raw, "rgb.{}.weight"), 2):
        if fused is True or (fused == "auto" and (4 << layer // 2) >= _FUSED_FROM):
            raw[f"layers.{layer}.conv"] = flip(raw[f"layers.{layer}.conv"])
    return raw


def _build(raw: Raw, lr: float = 0.01) -> StyleGANNetwork:
    """Absorb learning-rate factors and He's constants (Karras et al. 2018, section 4.1) into the weights."""
    levels = check_levels(count(raw, "rgb.{}.weight"))
    depth = check_depth(count(raw, "mapping.{}.weight"))
    label = raw.get("mapping.label")
    label_dim = 0 if label is None else label.shape[1]
    config = StyleGANConfig(
        resolution=2 << levels,
        channels=tuple(raw[f"rgb.{level}.weight"].shape[1] for level in range(levels)),
        latent_dim=raw["mapping.0.weight"].shape[1] - label_dim,
        mapping=tuple(raw[f"mapping.{i}.weight"].shape[0] for i in range(depth)),
        num_classes=0 if label is None else label.shape[0],
        label_dim=label_dim,
        lod=float(raw["lod"]) if "lod" in raw else 0.0,
        image_channels=colours(raw["rgb.0.weight"]),
    )
    state: dict[str, Tensor] = {"mean_code": raw["mean_code"].reshape(-1)}
    for i in range(depth):
        weight = raw[f"mapping.{i}.weight"]
        state[f"mapping.weights.{i}"] = weight * (lr * _GAIN / math.sqrt(weight.shape[1]))
        state[f"mapping.biases.{i}"] = raw[f"mapping.{i}.bias"] * lr
    if label is not None:
        state["mapping.embedding"] = label
    for k in range(2 * levels):
        state |= {f"layers.{k}.{name}": tensor for name, tensor in _layer(raw, k).items()}
    for level in faded_levels(levels, config.lod):
        weight = raw[f"rgb.{level}.weight"]
        state[f"rgb_weights.{4 << level}"] = weight / math.sqrt(weight.shape[1])
        state[f"rgb_biases.{4 << level}"] = raw[f"rgb.{level}.bias"]
    return load(StyleGANNetwork, config, state)


def _layer(raw: Raw, k: int) -> dict[str, Tensor]:
    if k == 0:
        weight = raw["const"]
    else:
        conv = raw[f"layers.{k}.conv"]
        conv = conv * (_GAIN / math.sqrt(conv[0].numel()))
        weight = fold_upsampling(conv) if k % 2 == 0 else conv
    style = raw[f"layers.{k}.style.weight"]
    shift = raw[f"layers.{k}.style.bias"].clone()
    shift[: shift.shape[0] // 2] += 1
    return {
        "weight": weight,
        "bias": raw[f"layers.{k}.bias"],
        "noise": raw[f"layers.{k}.noise"],
        "noise_strength": raw[f"layers.{k}.noise_strength"].reshape(1, -1, 1, 1),
        "style_weight": style / math.sqrt(style.shape[1]),
        "style_bias": shift,
    }
