"""StyleGAN2 and StyleGAN2-ADA out of NVIDIA's pickles (TensorFlow, torch), genforce ``.pth`` and rosinality ``.pt``.

Canonical names: ``mapping.0.weight`` (out, in), ``mapping.label.weight`` (width, classes), ``const``, ``layers.0.conv``
(out, in, 3, 3), odd layers as torch's transposed convolution uses them, ``layers.0.style.weight`` (in, D),
``layers.0.style.bias`` with its initial one, ``rgb.0.conv`` and ``shortcut.1.conv`` by level …
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from higan.checkpoints.types import Network
from higan.errors import CorruptFileError, UnknownFormatError
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
from higan.generators.stylegan2 import Architecture, StyleGAN2Config, StyleGAN2Network

__all__ = ["from_genforce", "from_nvidia_tf", "from_nvidia_torch", "from_rosinality"]

_GAIN = math.sqrt(2)
_PUBLISHED_TAPS = (1.0, 3.0, 3.0, 1.0)
_WIDEST = 4096


def _plus_one(x: Tensor) -> Tensor:
    return x + 1


def _unbatch(x: Tensor) -> Tensor:
    return x[0]


_TF: tuple[Rule, ...] = (
    (r"dlatent_avg", "mean_code"),
    (r"lod|synthesis/lod", None),
    (r"mapping/Dense(\d+)/weight", "mapping.{0}.weight", transpose),
    (r"mapping/Dense(\d+)/bias", "mapping.{0}.bias"),
    (r"mapping/LabelConcat/weight", "mapping.concat"),
    (r"mapping/LabelEmbed/weight", "mapping.label.weight", transpose),
    (r"mapping/LabelEmbed/bias", "mapping.label.bias"),
    (r"synthesis/noise(\d+)", "layers.{0}.noise"),
    (r"synthesis/4x4/Const/const", "const"),
    (r"synthesis/(\d+)x\d+/Conv0_up/weight", "{0}.0.conv", from_hwio, flip),
    (r"synthesis/(\d+)x\d+/Conv0_up/mod_weight", "{0}.0.style.weight", transpose),
    (r"synthesis/(\d+)x\d+/Conv0_up/mod_bias", "{0}.0.style.bias", _plus_one),
    (r"synthesis/(\d+)x\d+/Conv0_up/(bias|noise_strength)", "{0}.0.{1}"),
    (r"synthesis/(\d+)x\d+/Conv1?/weight", "{0}.1.conv", from_hwio),
    (r"synthesis/(\d+)x\d+/Conv1?/mod_weight", "{0}.1.style.weight", transpose),
    (r"synthesis/(\d+)x\d+/Conv1?/mod_bias", "{0}.1.style.bias", _plus_one),
    (r"synthesis/(\d+)x\d+/Conv1?/(bias|noise_strength)", "{0}.1.{1}"),
    (r"synthesis/(\d+)x\d+/Skip/weight", "{0}.shortcut.conv", from_hwio),
    (r"synthesis/(\d+)x\d+/ToRGB/weight", "{0}.rgb.conv", from_hwio),
    (r"synthesis/(\d+)x\d+/ToRGB/mod_weight", "{0}.rgb.style.weight", transpose),
    (r"synthesis/(\d+)x\d+/ToRGB/mod_bias", "{0}.rgb.style.bias", _plus_one),
    (r"synthesis/(\d+)x\d+/ToRGB/bias", "{0}.rgb.bias"),
)

_TORCH: tuple[Rule, ...] = (
    (r"mapping\.w_avg", "mean_code"),
    (r"mapping\.fc(\d+)\.(weight|bias)", "mapping.{0}.{1}"),
    (r"mapping\.embed\.(weight|bias)", "mapping.label.{0}"),
    (r".*\.resample_filter", None),
    (r"synthesis\.b4\.const", "const"),
    (r"synthesis\.b(\d+)\.conv(\d)\.weight", "{0}.{1}.conv"),
    (r"synthesis\.b(\d+)\.conv(\d)\.noise_const", "{0}.{1}.noise"),
    (r"synthesis\.b(\d+)\.conv(\d)\.affine\.(weight|bias)", "{0}.{1}.style.{2}"),
    (r"synthesis\.b(\d+)\.conv(\d)\.(bias|noise_strength)", "{0}.{1}.{2}"),
    (r"synthesis\.b(\d+)\.skip\.weight", "{0}.shortcut.conv"),
    (r"synthesis\.b(\d+)\.torgb\.weight", "{0}.rgb.conv"),
    (r"synthesis\.b(\d+)\.torgb\.bias", "{0}.rgb.bias"),
    (r"synthesis\.b(\d+)\.torgb\.affine\.(weight|bias)", "{0}.rgb.style.{1}"),
)

_HIGAN: tuple[Rule, ...] = (
    (r"mapping\.dense(\d+)\.fc\.weight", "mapping.{0}.weight"),
    (r"mapping\.dense(\d+)\.bias", "mapping.{0}.bias"),
    (r"truncation\.w_avg", "mean_code"),
    (r"truncation\.truncation", None),
    (r"synthesis\.early_layer\.const", "const"),
    (r"synthesis\.layer(\d*[13579])\.weight", "layers.{0}.conv", from_hwio, flip),
    (r"synthesis\.layer(\d*[02468])\.weight", "layers.{0}.conv", from_hwio),
    (r"synthesis\.layer(\d+)\.style\.fc\.weight", "layers.{0}.style.weight"),
    (r"synthesis\.layer(\d+)\.style\.bias", "layers.{0}.style.bias", _plus_one),
    (r"synthesis\.layer(\d+)\.(bias|noise|noise_strength)", "layers.{0}.{1}"),
    (r"synthesis\.output(\d+)\.weight", "rgb.{0}.conv", from_hwio),
    (r"synthesis\.output(\d+)\.style\.fc\.weight", "rgb.{0}.style.weight"),
    (r"synthesis\.output(\d+)\.style\.bias", "rgb.{0}.style.bias", _plus_one),
    (r"synthesis\.output(\d+)\.bias", "rgb.{0}.bias"),
    (r"synthesis\.skip_layer(\d+)\.weight", "skip.{0}.conv", from_hwio, flip),
    (r"synthesis\..*\.kernel", None),
)

_GENFORCE: tuple[Rule, ...] = (
    (r"mapping\.dense(\d+)\.(weight|bias)", "mapping.{0}.{1}"),
    (r"mapping\.label_weight", "mapping.concat"),
    (r"mapping\.LabelEmbed\.(weight|bias)", "mapping.label.{0}"),
    (r"truncation\.w_avg", "mean_code"),
    (r"synthesis\.early_layer\.const", "const"),
    (r"synthesis\.layer(\d*[13579])\.weight", "layers.{0}.conv", flip),
    (r"synthesis\.layer(\d*[02468])\.weight", "layers.{0}.conv"),
    (r"synthesis\.layer(\d+)\.style\.weight", "layers.{0}.style.weight"),
    (r"synthesis\.layer(\d+)\.style\.bias", "layers.{0}.style.bias", _plus_one),
    (r"synthesis\.layer(\d+)\.(bias|noise|noise_strength)", "layers.{0}.{1}"),
    (r"synthesis\.output(\d+)\.weight", "rgb.{0}.conv"),
    (r"synthesis\.output(\d+)\.style\.weight", "rgb.{0}.style.weight"),
    (r"synthesis\.output(\d+)\.style\.bias", "rgb.{0}.style.bias", _plus_one),
    (r"synthesis\.output(\d+)\.bias", "rgb.{0}.bias"),
    (r"synthesis\..*\.kernel", None),
)

_ROSINALITY: tuple[Rule, ...] = (
    (r"latent_avg", "mean_code"),
    (r"style\.(\d+)\.(weight|bias)", "style.{0}.{1}"),
    (r"input\.input", "const"),
    (r"noises\.noise_(\d+)", "layers.{0}.noise"),
    (r"conv1\.conv\.weight", "layers.0.conv", _unbatch),
    (r"conv1\.conv\.modulation\.(weight|bias)", "layers.0.style.{0}"),
    (r"conv1\.noise\.weight", "layers.0.noise_strength"),
    (r"conv1\.activate\.bias", "layers.0.bias"),
    (r"convs\.(\d+)\.conv\.weight", "convs.{0}.conv", _unbatch),
    (r"convs\.(\d+)\.conv\.modulation\.(weight|bias)", "convs.{0}.style.{1}"),
    (r"convs\.(\d+)\.noise\.weight", "convs.{0}.noise_strength"),
    (r"convs\.(\d+)\.activate\.bias", "convs.{0}.bias"),
    (r"to_rgb1\.conv\.weight", "rgb.0.conv", _unbatch),
    (r"to_rgb1\.conv\.modulation\.(weight|bias)", "rgb.0.style.{0}"),
    (r"to_rgb1\.bias", "rgb.0.bias"),
    (r"to_rgbs\.(\d+)\.conv\.weight", "to_rgbs.{0}.conv", _unbatch),
    (r"to_rgbs\.(\d+)\.conv\.modulation\.(weight|bias)", "to_rgbs.{0}.style.{1}"),
    (r"to_rgbs\.(\d+)\.bias", "to_rgbs.{0}.bias"),
    (r".*\.kernel", None),
)

_TF_OPTIONS: Mapping[str, object] = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
}
"""Options of the training code that change the network, and the values that published models have."""


@dataclass(frozen=True, slots=True)
class _Training:
    """How a file's weights were parameterised: what has to be absorbed into them, and what shapes do not tell."""

    scaled: bool
    """Whether convolutions are multiplied by He's constant before demodulation."""
    mapping_lr: float = 0.01
    clamp: float | None = None
    taps: tuple[float, ...] = _PUBLISHED_TAPS


def from_nvidia_tf(source: Network) -> StyleGAN2Network:
    """The ``Gs`` of a pickle that the TensorFlow code of StyleGAN2 or StyleGAN2-ADA wrote.

    Raises:
        UnknownFormatError: it uses options that no published model uses.
        CorruptFileError: tensors are missing or contradict each other.
    """
    options = require(source, _TF_OPTIONS)
    lr, taps = options.get("mapping_lrmul"), options.get("resample_kernel")
    training = _Training(
        scaled=True,
        mapping_lr=0.01 if lr is None else float(lr),
        clamp=_optional_float(options.get("conv_clamp")),
        taps=_PUBLISHED_TAPS if taps is None else tuple(map(float, taps)),
    )
    return _build(_by_level(rename(source.tensors, _TF)), training)


def from_nvidia_torch(source: Network) -> StyleGAN2Network:
    """The ``G_ema`` of a pickle that the torch code of StyleGAN2-ADA, or of StyleGAN3, wrote.

    Raises:
        UnknownFormatError: it uses options that no published model uses.
        CorruptFileError: tensors are missing or contradict each other.
    """
    settings = _settings(source)
    if settings.get("activation", "lrelu") != "lrelu":
        raise UnknownFormatError(f"{source.name} was trained with activation={settings['activation']!r}; not 'lrelu'")
    training = _Training(
        scaled=False,
        mapping_lr=float(settings.get("lr_multiplier", 0.01)),
        clamp=_optional_float(settings.get("conv_clamp")),
        taps=taps_of(source.tensors, r".*conv0\.resample_filter") or _PUBLISHED_TAPS,
    )
    return _build(_by_level(rename(source.tensors, _TORCH)), training)


def _optional_float(value: int | float | None) -> float | None:
    return None if value is None else float(value)


def _settings(source: Network) -> dict[str, Any]:
    """Keyword arguments of a torch network, those of its mapping and synthesis included, innermost last."""
    settings = dict(source.config)
    for nested in ("mapping_kwargs", "synthesis_kwargs"):
        settings.update(source.config.get(nested) or {})
    layer: Network | None = source
    for name in ("synthesis", "b4", "conv1"):
        layer = layer.components.get(name) if layer else None
        # A layer's own attributes also show defaults that nobody passed.
        settings.update({k: v for k, v in (layer.config if layer else {}).items() if k in ("conv_clamp", "activation")})
    mapping = source.components.get("mapping")
    first = mapping.components.get("fc0") if mapping else None
    if first and "bias_gain" in first.config:
        settings["lr_multiplier"] = first.config["bias_gain"]
    return settings


def from_genforce(source: Network) -> StyleGAN2Network:
    """The state dict of HiGAN's own models, or of the later genforce repository.

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    higan = "mapping.dense0.fc.weight" in source.tensors
    raw = rename(source.tensors, _HIGAN if higan else _GENFORCE)
    moved = {re.sub(r"^skip\.(\d+)", lambda m: f"shortcut.{int(m[1]) + 1}", name): t for name, t in raw.items()}
    return _build(Raw(moved), _Training(scaled=True, taps=_kernels(source)))


def from_rosinality(source: Network) -> StyleGAN2Network:
    """The ``g_ema`` of a rosinality-style ``.pt``.

    Where the file has no ``latent_avg`` the mean code is estimated from 16,384 latents of a fixed seed.

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    shifts = {"style": ("mapping", -1), "convs": ("layers", 1), "to_rgbs": ("rgb", 1)}
    raw = Raw()
    for name, tensor in rename(source.tensors, _ROSINALITY).items():
        head, _, rest = name.partition(".")
        number, _, leaf = rest.partition(".")
        target, shift = shifts.get(head, (head, 0))
        raw[f"{target}.{int(number) + shift}.{leaf}" if head in shifts else name] = tensor
    known = "mean_code" in raw
    if not known:
        raw["mean_code"] = torch.zeros(raw["layers.0.style.weight"].shape[1])
    network = _build(raw, _Training(scaled=True, taps=_kernels(source)))
    if not known:
        network.mean_code.copy_(_mean_code(network))
    return network


def _kernels(source: Network) -> tuple[float, ...]:
    return taps_of(source.tensors, r".*\.kernel") or _PUBLISHED_TAPS


def _mean_code(network: StyleGAN2Network) -> Tensor:
    """Mean of the codes of 16,384 latents of a fixed seed, part by part.

    Raises:
        CorruptFileError: the mapping network is wider than any; the latents alone would take more memory than the file.
    """
    widest = max(network.config.latent_dim, *network.config.mapping)
    if widest > _WIDEST:
        raise CorruptFileError(f"a mapping layer takes or makes {widest:,} numbers; expected at most {_WIDEST:,}")
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(1024, network.config.latent_dim, generator=generator) for _ in range(16))
    return torch.stack([network.mapping(z, None).mean(0) for z in parts]).mean(0)


def _by_level(flat: Raw) -> Raw:
    """Names by resolution (``64.0.bias``) to names by layer and level."""
    raw = Raw()
    for name, tensor in flat.items():
        head, _, rest = name.partition(".")
        if not head.isdigit():
            raw[name] = tensor
            continue
        level = int(head).bit_length() - 3
        part, _, leaf = rest.partition(".")
        raw[f"layers.{2 * level - 1 + int(part)}.{leaf}" if part.isdigit() else f"{part}.{level}.{leaf}"] = tensor
    return raw


def _build(raw: Raw, training: _Training) -> StyleGAN2Network:
    """Absorb learning-rate factors, He's constants and the gain of activations into the weights."""
    config = _config(raw, training)
    state = {"mean_code": raw["mean_code"].reshape(-1), "constant": raw["const"].reshape(1, -1, 4, 4)}
    state |= _mapping(raw, len(config.mapping), training.mapping_lr)
    levels = len(config.channels)
    for k in range(2 * levels - 1):
        gain = 1.0 if config.architecture == "resnet" and k > 0 and k % 2 == 0 else _GAIN
        state |= {f"layers.{k}.{name}": t for name, t in _layer(raw, k, gain, scaled=training.scaled).items()}
        if config.noise:
            state[f"layers.{k}.noise"] = _noise(raw, k) * gain
    for level in range(levels) if config.architecture == "skip" else (levels - 1,):
        state |= {f"rgb.{level}.{name}": t for name, t in _rgb(raw, level).items()}
    for level in range(1, levels) if config.architecture == "resnet" else ():
        weight = raw[f"shortcut.{level}.conv"]
        state[f"shortcuts.{level}"] = weight / math.sqrt(2 * weight.shape[1])
    return load(StyleGAN2Network, config, state)


def _config(raw: Raw, training: _Training) -> StyleGAN2Config:
    """What the shapes and names of the tensors say."""
    levels = check_levels((count(raw, "layers.{}.conv") + 1) // 2)
    depth = check_depth(count(raw, "mapping.{}.weight"))
    embedding = _embedding(raw)
    num_classes, label_dim = (0, 0) if embedding is None else embedding.shape
    if len(training.taps) != 4 or training.taps != training.taps[::-1]:
        shown = ", ".join(f"{tap:.3g}" for tap in training.taps[:12])
        raise UnknownFormatError(f"the resampling filter is {shown}; only symmetric ones of 4 taps are understood")
    if raw["const"].shape[-2:] != (4, 4):
        raise UnknownFormatError(
            f"the network starts at {' × '.join(map(str, raw['const'].shape[-2:]))} pixels; only 4 × 4 is understood"
        )
    return StyleGAN2Config(
        resolution=2 << levels,
        channels=tuple(raw[f"layers.{2 * level}.conv"].shape[0] for level in range(levels)),
        latent_dim=raw["mapping.0.weight"].shape[1] - label_dim,
        mapping=tuple(raw[f"mapping.{i}.weight"].shape[0] for i in range(depth)),
        num_classes=num_classes,
        label_dim=label_dim,
        joint_norm="mapping.label.weight" not in raw,
        architecture=_architecture(raw, levels),
        clamp=training.clamp,
        filter_taps=training.taps,
        image_channels=colours(raw[f"rgb.{levels - 1}.conv"]),
        noise=any(_is_noisy(raw, k) for k in range(2 * levels - 1)),
    )


def _architecture(raw: Raw, levels: int) -> Architecture:
    """One RGB per resolution is ``skip``; of one alone, shortcuts tell."""
    if "rgb.0.conv" in raw or levels == 1:
        return "skip"
    return "resnet" if "shortcut.1.conv" in raw else "orig"


def _mapping(raw: Raw, depth: int, lr: float) -> dict[str, Tensor]:
    embedding = _embedding(raw)
    state = {} if embedding is None else {"mapping.embedding": embedding}
    for i in range(depth):
        weight = raw[f"mapping.{i}.weight"]
        state[f"mapping.weights.{i}"] = weight * (lr * _GAIN / math.sqrt(weight.shape[1]))
        state[f"mapping.biases.{i}"] = raw[f"mapping.{i}.bias"] * (lr * _GAIN)
    return state


def _embedding(raw: Raw) -> Tensor | None:
    """One row per class."""
    if "mapping.label.weight" in raw:
        weight = raw["mapping.label.weight"]
        return weight.t() / math.sqrt(weight.shape[1]) + raw["mapping.label.bias"]
    return raw.get("mapping.concat")


def _layer(raw: Raw, k: int, gain: float, *, scaled: bool) -> dict[str, Tensor]:
    conv = raw[f"layers.{k}.conv"]
    if scaled:
        conv = conv / math.sqrt(conv[0].numel())
    style = raw[f"layers.{k}.style.weight"]
    return {
        "weight": conv.transpose(0, 1) if k % 2 else conv,
        "bias": raw[f"layers.{k}.bias"] * gain,
        "style_weight": style / math.sqrt(style.shape[1]),
        "style_bias": raw[f"layers.{k}.style.bias"],
    }


def _is_noisy(raw: Raw, k: int) -> bool:
    return f"layers.{k}.noise" in raw and f"layers.{k}.noise_strength" in raw


def _noise(raw: Raw, k: int) -> Tensor:
    resolution = 4 << (k + 1) // 2
    noise = raw[f"layers.{k}.noise"].reshape(1, 1, resolution, resolution)
    return noise * raw[f"layers.{k}.noise_strength"].reshape(())


def _rgb(raw: Raw, level: int) -> dict[str, Tensor]:
    weight, style = raw[f"rgb.{level}.conv"].flatten(1), raw[f"rgb.{level}.style.weight"]
    return {
        "weight": weight / math.sqrt(weight.shape[1]),
        "bias": raw[f"rgb.{level}.bias"].reshape(-1, 1),
        "style_weight": style / math.sqrt(style.shape[1]),
        "style_bias": raw[f"rgb.{level}.style.bias"],
    }
