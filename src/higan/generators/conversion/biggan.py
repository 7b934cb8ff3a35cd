"""BigGAN in the Hugging Face layout (BigGAN-deep) and in that of the original PyTorch code (both kinds).

Canonical names: ``embedding`` (classes, width), ``dense.weight``, ``blocks.0.convs.0.weight``,
``blocks.0.norms.0.gain``, ``attention.4.query.weight``, ``statistics.mean``, ``rgb.weight`` … as in our own network;
codes are (latent, class), the original's are (class, latent).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from higan.checkpoints.types import Network
from higan.errors import CorruptFileError
from higan.generators.biggan import BigGANConfig, BigGANNetwork, Conditioning
from higan.generators.conversion.raw import Raw, Rule, count, load, rename

__all__ = ["from_hugging_face", "from_original"]


_FEW = 1 << 20
"""How many numbers rows of classes may have besides those of the file."""


def _plain(x: Tensor) -> Tensor:
    return x.reshape(1) if x.ndim == 0 else x


_ATTENTION = {
    "snconv1x1_theta": "query",
    "snconv1x1_phi": "key",
    "snconv1x1_g": "value",
    "snconv1x1_o_conv": "out",
    "theta": "query",
    "phi": "key",
    "g": "value",
    "o": "out",
}

_HF: tuple[Rule, ...] = (
    (r"embeddings\.weight", "embedding", torch.t),
    (r"generator\.gen_z\.(weight|bias)", "dense.{0}"),
    (r"generator\.layers\.(\d+)\.bn_(\d)\.running_means", "layers.{0}.norms.{1}.statistics.mean"),
    (r"generator\.layers\.(\d+)\.bn_(\d)\.running_vars", "layers.{0}.norms.{1}.statistics.var"),
    (r"generator\.layers\.(\d+)\.bn_(\d)\.scale\.weight", "layers.{0}.norms.{1}.gain"),
    (r"generator\.layers\.(\d+)\.bn_(\d)\.offset\.weight", "layers.{0}.norms.{1}.offset"),
    (r"generator\.layers\.(\d+)\.conv_(\d)\.(weight|bias)", "layers.{0}.convs.{1}.{2}"),
    (r"generator\.layers\.(\d+)\.(snconv1x1_\w+)\.weight", "layers.{0}.{1}.weight"),
    (r"generator\.layers\.(\d+)\.gamma", "layers.{0}.gamma", _plain),
    (r"generator\.bn\.running_means", "statistics.mean"),
    (r"generator\.bn\.running_vars", "statistics.var"),
    (r"generator\.bn\.weight", "gain"),
    (r"generator\.bn\.bias", "offset"),
    (r"generator\.conv_to_rgb\.(weight|bias)", "rgb.{0}"),
)


def _row(x: Tensor) -> Tensor:
    return x[None]


_ORIGINAL: tuple[Rule, ...] = (
    (r"shared\.weight", "embedding"),
    (r"linear\.(weight|bias)", "dense.{0}"),
    (r"blocks\.(\d+)\.0\.bn(\d)\.(?:bn\.)?(?:stored|running)_(mean|var)", "bn.{0}.{1}.{2}", _row),
    (r"blocks\.(\d+)\.0\.bn(\d)\.(gain|bias)\.weight", "bn.{0}.{1}.{2}"),
    (r"blocks\.(\d+)\.0\.conv(\d)\.(weight|bias)", "conv.{0}.{1}.{2}"),
    (r"blocks\.(\d+)\.0\.conv_sc\.(weight|bias)", "blocks.{0}.shortcut.{1}"),
    (r"blocks\.(\d+)\.1\.(theta|phi|g|o)\.weight", "attend.{0}.{1}.weight"),
    (r"blocks\.(\d+)\.1\.gamma", "attend.{0}.gamma", _plain),
    (r"output_layer\.0\.(?:bn\.)?(?:stored|running)_(mean|var)", "statistics.{0}", _row),
    (r"output_layer\.0\.gain", "gain"),
    (r"output_layer\.0\.bias", "offset"),
    (r"output_layer\.2\.(weight|bias)", "rgb.{0}"),
    (r".*\.(accumulation_counter|num_batches_tracked)", None),
)


def from_hugging_face(source: Network) -> BigGANNetwork:
    """BigGAN-deep as ``pytorch_model.bin`` with ``config.json``.

    Without the latter, every second block doubles the resolution, as in the three published models.

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    flat = rename(_without_spectral_norm(source.tensors), _HF)
    raw, attention = _numbered_blocks(flat)
    blocks = count(raw, "blocks.{}.convs.0.weight")
    listed = source.config.get("layers") or []
    up = tuple(bool(layer[0]) for layer in listed) or tuple(i % 2 == 1 for i in range(blocks))
    dense = raw["dense.weight"]
    first = raw["blocks.0.convs.0.weight"].shape[1]
    bottom = round((dense.shape[0] / first) ** 0.5)
    # The map comes out with channels last there.
    raw["dense.weight"] = dense.reshape(bottom, bottom, first, -1).permute(2, 0, 1, 3).reshape(dense.shape)
    raw["dense.bias"] = raw["dense.bias"].reshape(bottom, bottom, first).permute(2, 0, 1).flatten()
    raw["rgb.weight"], raw["rgb.bias"] = raw["rgb.weight"][:3], raw["rgb.bias"][:3]
    label_dim = raw["embedding"].shape[1]
    return _build(
        raw,
        up,
        attention,
        bottom=bottom,
        latent_dim=dense.shape[1] - label_dim,
        statistics=raw["statistics.mean"].shape[0],
        epsilon=float(source.config.get("eps", 1e-4)),
        truncation=0.4,
    )


def _numbered_blocks(flat: Raw) -> tuple[Raw, tuple[int, ...]]:
    """Number blocks without the attention layers between them."""
    attention = sorted(int(n[1]) for n in (re.fullmatch(r"layers\.(\d+)\.gamma", name) for name in flat) if n)
    if len(attention) > 64:
        raise CorruptFileError(f"the file has {len(attention):,} attention layers; no BigGAN has")
    raw = Raw()
    for name, tensor in flat.items():
        match = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
        if match is None:
            raw[name] = tensor
            continue
        number, rest = int(match[1]), match[2]
        block = number - bisect_left(attention, number)
        head, dot, leaf = rest.partition(".")
        own = f"attention.{block}.{_ATTENTION.get(head, head)}" if number in attention else f"blocks.{block}.{head}"
        raw[own + dot + leaf] = tensor
    return raw, tuple(position - rank for rank, position in enumerate(attention))


def from_original(source: Network) -> BigGANNetwork:
    """The state dict of the original PyTorch code: chunked latents, shared or separate embeddings, or BigGAN-deep.

    The file does not hold the epsilon of batch normalisation (1e-5 assumed, the default), nor where BigGAN-deep doubles
    the resolution (every second block assumed, the default).

    Raises:
        UnknownFormatError: a tensor has no place in the network.
        CorruptFileError: tensors are missing or contradict each other.
    """
    tensors = _averaged(_without_power_iteration(source.tensors))
    flat = rename(tensors, _ORIGINAL)
    raw = Raw()
    for name, tensor in flat.items():
        head, _, rest = name.partition(".")
        parts = rest.split(".")
        if head == "bn":
            leaf = {"gain": "gain", "bias": "offset"}.get(parts[2], f"statistics.{parts[2]}")
            raw[f"blocks.{parts[0]}.norms.{int(parts[1]) - 1}.{leaf}"] = tensor
        elif head == "conv":
            raw[f"blocks.{parts[0]}.convs.{int(parts[1]) - 1}.{parts[2]}"] = tensor
        elif head == "attend":
            raw[".".join(["attention", str(int(parts[0]) + 1), _ATTENTION.get(parts[1], parts[1]), *parts[2:]])] = (
                tensor
            )
        else:
            raw[name] = tensor
    attention = tuple(sorted(int(name.split(".")[1]) for name in raw if re.fullmatch(r"attention\.\d+\.gamma", name)))
    blocks = count(raw, "blocks.{}.convs.0.weight")
    deep = "blocks.0.convs.3.weight" in raw
    dense = raw["dense.weight"]
    conditioning: Conditioning = "joint" if deep else "chunked"
    latent_dim = dense.shape[1]
    if "embedding" not in raw:
        # Embeddings of every norm by itself: linear in the class as a one-hot vector.
        for name in [name for name in raw if re.fullmatch(r"blocks\.\d+\.norms\.\d+\.(gain|offset)", name)]:
            raw[name] = raw[name].t()
        raw["embedding"] = _one_hot(raw)
    label_dim = raw["embedding"].shape[1]
    if deep:
        latent_dim -= label_dim
        raw["dense.weight"] = dense.roll(-label_dim, dims=1)
    elif raw["blocks.0.norms.0.gain"].shape[1] == label_dim:
        conditioning = "class"
    else:
        latent_dim *= blocks + 1
    for name in [name for name in raw if re.fullmatch(r"blocks\.\d+\.norms\.\d+\.(gain|offset)", name)]:
        raw[name] = raw[name].roll(-label_dim, dims=1)
    first = raw["blocks.0.convs.0.weight"].shape[1]
    return _build(
        raw,
        tuple(not deep or i % 2 == 1 for i in range(blocks)),
        attention,
        bottom=round((dense.shape[0] / first) ** 0.5),
        latent_dim=latent_dim,
        conditioning=conditioning,
        deep=deep,
    )


def _one_hot(raw: Raw) -> Tensor:
    """One row per class of the gains (width, classes).

    Raises:
        CorruptFileError: the rows would have more numbers than the file.
    """
    classes, held = raw["blocks.0.norms.0.gain"].shape[1], sum(tensor.numel() for tensor in raw.values())
    if classes**2 > held + _FEW:
        raise CorruptFileError(f"the file has {held:,} numbers for {classes:,} classes; no BigGAN has so few")
    return torch.eye(classes)


def _build(
    raw: Raw, up: tuple[bool, ...], attention: tuple[int, ...], *, bottom: int, **settings: Any
) -> BigGANNetwork:
    blocks = count(raw, "blocks.{}.convs.0.weight")
    if not 1 <= blocks <= 64 or len(up) != blocks or sum(up) > 10 or not 1 <= bottom <= 64:
        raise CorruptFileError(
            f"{blocks} blocks, {sum(up)} of {len(up)} listed ones doubling the resolution from {bottom} pixels: no "
            "BigGAN is like that"
        )
    last = "convs.3" if "blocks.0.convs.3.weight" in raw else "convs.1"
    config = BigGANConfig(
        resolution=bottom << sum(up),
        widths=(
            raw["blocks.0.convs.0.weight"].shape[1],
            *(raw[f"blocks.{i}.{last}.weight"].shape[0] for i in range(blocks)),
        ),
        up=up,
        num_classes=raw["embedding"].shape[0],
        label_dim=raw["embedding"].shape[1],
        attention=attention,
        **settings,
    )
    raw["dense_weight"], raw["dense_bias"] = raw.pop("dense.weight"), raw.pop("dense.bias")
    return load(BigGANNetwork, config, raw)


def _without_spectral_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide by the largest singular value as the stored singular vectors give it."""
    plain = {name: t for name, t in tensors.items() if not re.search(r"weight_(orig|u|v)$", name)}
    for name, weight in tensors.items():
        if name.endswith("weight_orig"):
            stem = name.removesuffix("_orig")
            if f"{stem}_u" not in tensors or f"{stem}_v" not in tensors:
                raise CorruptFileError(f"the file lacks the singular vectors of {stem}")
            sigma = tensors[f"{stem}_u"] @ (weight.flatten(1) @ tensors[f"{stem}_v"])
            plain[stem] = weight / sigma
    return plain


def _without_power_iteration(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide by the largest singular value after one more power iteration, which that code does when it evaluates."""
    plain = {}
    for name, weight in tensors.items():
        if re.search(r"\.(u|sv)\d+$", name):
            continue
        start = tensors.get(f"{name.removesuffix('.weight')}.u0") if name.endswith(".weight") else None
        if start is None:
            plain[name] = weight
            continue
        matrix = weight.flatten(1)
        v = F.normalize(start @ matrix, eps=1e-12)
        u = F.normalize(v @ matrix.t(), eps=1e-12)
        plain[name] = weight / (v @ matrix.t() @ u.t()).squeeze()
    return plain


def _averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Standing statistics are kept as sums where they were accumulated last."""
    averaged = dict(tensors)
    for name, counter in tensors.items():
        if name.endswith("accumulation_counter") and float(counter) > 0:
            stem = name.removesuffix("accumulation_counter")
            for kind in ("stored_mean", "stored_var"):
                averaged[stem + kind] = tensors[stem + kind] / counter
    return averaged
