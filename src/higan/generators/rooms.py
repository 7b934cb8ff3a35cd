"""The default generator: a small StyleGAN of rendered rooms with one AdaIN layer per style, and its adapter.

Architecture after Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019),
reduced: a mapping network turns a normalised latent into one code, every layer convolves, is instance-normalised and
then scaled and shifted by an affine function of its code; one convolution makes RGB at the last resolution only.
No noise inputs. Two layers per resolution, so L = 2·log2(resolution) - 2.

`RoomsGenerator` serves the StyleGAN2 type in ``rooms_skip`` as well. All that inference needs is here; the trainer in
``higan.rooms`` imports the networks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.errors import CorruptFileError, UnknownFormatError
from higan.generators.rooms_parts import (
    SLOPE,
    EqualisedConv,
    EqualisedLinear,
    MappingNetwork,
    RoomsConfig,
    config_from_json,
    drawn,
    upsample,
)
from higan.generators.rooms_skip import SkipNetwork, SkipState
from higan.generators.states import repeated
from higan.weights import filled, read_weights, write_weights

__all__ = ["Network", "RoomsConfig", "RoomsGenerator", "RoomsNetwork", "adain", "build_network", "estimate_mean_code"]

_FORMAT = "higan-rooms-generator-1"

_EPSILON = 1e-5

_CACHE = 4 * 2**20
"""Bytes of feature maps that a processor works on at a time: larger ones are fetched from memory in every step of a
layer, which took longer than all convolutions together."""

Adain = Callable[[Tensor, Tensor, Tensor], Tensor]


def adain(
    features: Float[Tensor, "n c h w"], scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"]
) -> Float[Tensor, "n c h w"]:
    """Leaky ReLU, instance normalisation, then the style: (1 + scale) · x + shift, per sample and channel.

    Sums are taken over flat pixels rather than by ``instance_norm``, which is several times slower on channels-last
    memory; and nothing is written to new memory that need not be, for that is what takes the time.
    """
    active = F.leaky_relu(features, SLOPE)
    pixels = active.shape[2] * active.shape[3]
    centred = active.sub_(active.sum((2, 3), keepdim=True) / pixels)
    variance = (centred * centred).sum((2, 3)) / pixels
    gain = (1 + scale) * torch.rsqrt(variance + _EPSILON)
    # Not torch.addcmul: how it rounds depends on how many samples there are.
    return (centred * gain[:, :, None, None]).add_(shift[:, :, None, None])


class StyleLayer(nn.Module):
    """One layer: convolution (none in the first layer), up-sampling where the resolution doubles, then the style."""

    def __init__(
        self, inputs: int | None, outputs: int, code_dim: int, generator: torch.Generator, *, up: bool
    ) -> None:
        super().__init__()
        self.conv = None if inputs is None else EqualisedConv(inputs, outputs, 3, generator, gain=math.sqrt(2))
        self.style = EqualisedLinear(code_dim, 2 * outputs, generator)
        self.up = up

    def convolve(self, x: Tensor) -> Tensor:
        """All that comes before the style."""
        if self.conv is not None:
            x = self.conv(x)
        # Convolving first costs a quarter of convolving the up-sampled map.
        return upsample(x) if self.up else x

    def stylise(self, x: Tensor, code: Tensor, adain: Adain) -> Tensor:
        """Activation, normalisation and style."""
        scale, shift = self.style(code).to(x.dtype).chunk(2, dim=1)
        return adain(x, scale, shift)


class RoomsNetwork(nn.Module):
    """The network alone: mapping, layers and RGB; no truncation, no checks.

    ``to_rgb`` holds one convolution per resolution from 8 pixels up: the last makes the picture, the one before
    takes part while the last resolution is faded in during training.

    ``adain`` may be replaced by a faster function of the same values.
    """

    def __init__(self, config: RoomsConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.adain: Adain = adain
        generator = torch.Generator().manual_seed(seed)
        self.mapping = MappingNetwork(config, generator)
        first = config.channels_at(4)
        self.constant = nn.Parameter(drawn(first, 4, 4, generator=generator))
        self.layers = nn.ModuleList()
        self.to_rgb = nn.ModuleDict()
        inputs: int | None = None
        for k in range(2, config.resolution.bit_length()):
            width = config.channels_at(2**k)
            for up in (k > 2, False):
                self.layers.append(StyleLayer(inputs, width, config.code_dim, generator, up=up))
                inputs = width
            if k > 2:
                self.to_rgb[str(2**k)] = EqualisedConv(width, 3, config.rgb_kernel, generator)

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n D"]:
        """The code that all layers of a sample share."""
        code: Tensor = self.mapping(z)
        return code

    def prepare(
        self, codes: Float[Tensor, "n L D"], layer: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n c h w"]:
        """Activations of everything before the style of ``layer``; they depend on ``codes[:, :layer]`` alone."""
        constant = self.constant.to(dtype)
        x = constant.expand(codes.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return self._advance(x, codes, 0, layer)

    def resume(self, state: Float[Tensor, "n c h w"], codes: Float[Tensor, "n L D"], layer: int) -> Tensor:
        """Finish from the state that ``prepare`` left before the style of ``layer``: RGB (n, 3, H, W), unbounded."""
        return self._advance(state, codes, layer, len(self.layers))

    def forward(self, codes: Float[Tensor, "n L D"], dtype: torch.dtype = torch.float32, fade: float = 1.0) -> Tensor:
        """RGB (n, 3, H, W), unbounded, in ``dtype``.

        ``fade`` below 1 blends the last resolution with the up-sampled one before, as progressive growing does
        (Karras et al. 2018, figure 2).
        """
        if fade >= 1:
            return self.resume(self.prepare(codes, 0, dtype), codes, 0)
        coarse = len(self.layers) - 3
        x = self._stylise(self.prepare(codes, coarse, dtype), codes, coarse)
        blurred = upsample(self.to_rgb[str(self.config.resolution // 2)](x))
        x = self._layer(coarse + 1).convolve(x)
        return torch.lerp(blurred, self.resume(x, codes, coarse + 1), fade)

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        return tuple(4 << k // 2 for k in range(len(self.layers)))

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into its scales and shifts."""
        style = self._layer(layer).style
        return style.weight * style.scale

    def _layer(self, layer: int) -> StyleLayer:
        return cast(StyleLayer, self.layers[layer])

    def _stylise(self, x: Tensor, codes: Tensor, layer: int) -> Tensor:
        return self._layer(layer).stylise(x, codes[:, layer], self.adain)

    def _advance(self, x: Tensor, codes: Tensor, layer: int, stop: int) -> Tensor:
        """From before the style of ``layer`` to before that of ``stop``; beyond the last layer lies the picture.

        Samples part ways where their maps no longer fit the cache together.
        """
        if layer == stop:
            return x
        if len(parts := x.split(_fitting(x))) > 1:
            rows = codes.split(len(parts[0]))
            return torch.cat([self._advance(*both, layer, stop) for both in zip(parts, rows, strict=True)])
        x = self._stylise(x, codes, layer)
        if layer + 1 == len(self.layers):
            return self.to_rgb[str(self.config.resolution)](x)
        return self._advance(self._layer(layer + 1).convolve(x), codes, layer + 1, stop)


def _fitting(x: Tensor) -> int:
    """How many samples to work on at a time; all of them on a GPU, and where gradients keep every map anyway."""
    if x.device.type != "cpu" or x.requires_grad or not len(x):
        return max(1, len(x))
    return max(1, _CACHE // (x[0].numel() * x.element_size()))


Network = RoomsNetwork | SkipNetwork
State = Tensor | SkipState


def build_network(config: RoomsConfig, *, seed: int = 0) -> Network:
    """A fresh network of the architecture that the configuration names."""
    return (SkipNetwork if config.architecture == "skip" else RoomsNetwork)(config, seed=seed)


class RoomsGenerator:
    """Adapter of the `Generator` protocol around a network of either architecture.

    Args:
        network: the trained network; it is put into evaluation mode on ``device``.
        mean_code: where truncation shrinks codes to, (D,).
        name: what people type, or the file's stem.
        truncation: psi (Karras et al. 2019, appendix B), one for all layers or one for each; 1 truncates nothing.
        device: where codes and images live.
        dtype: of the feature maps. ``torch.bfloat16`` is faster, and off by half a grey level on average.
        metadata: what the file said about its own making.

    Raises:
        ValueError: ``mean_code`` has another width than the network's codes, or ``truncation`` another length.
    """

    def __init__(
        self,
        network: Network,
        mean_code: Float[Tensor, " D"],
        *,
        name: str = "rooms",
        truncation: float | Sequence[float] = 0.7,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        config = network.config
        if mean_code.shape != (config.code_dim,):
            raise ValueError(f"mean_code must have shape ({config.code_dim},); got {tuple(mean_code.shape)}")
        psi = [truncation] * config.num_layers if isinstance(truncation, int | float) else list(truncation)
        if len(psi) != config.num_layers or not all(map(math.isfinite, psi)):
            raise ValueError(
                f"truncation must be one finite number, or one for each of {config.num_layers} layers; got {psi}"
            )
        self.config = config
        self.name = name
        self.num_layers = config.num_layers
        self.code_dim = config.code_dim
        self.latent_dim = config.latent_dim
        self.resolution = config.resolution
        self.shared_code = True
        self.device = torch.device(device)
        self.dtype = dtype
        self.metadata = dict(metadata or {})
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.mean_code = mean_code.detach().to(self.device, torch.float32)
        self.truncation = torch.tensor(psi, dtype=torch.float32, device=self.device)

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """One standard normal draw per seed, the same on every device."""
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(rows).to(self.device) if rows else torch.empty(0, self.latent_dim, device=self.device)

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n L D"]:
        """Untruncated codes; every layer has the same row.

        Raises:
            ValueError: ``z`` has another width.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (n, {self.latent_dim}); got {tuple(z.shape)}")
        return self.network.map(z)[:, None].repeat(1, self.num_layers, 1)

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1], differentiable with respect to the codes.

        In float32, row k equals the row computed alone to within 1e-4, an eightieth of a grey level: convolution
        kernels add up in another order for other batch sizes.

        Raises:
            ValueError: the codes have another shape or hold NaN or infinity.
        """
        return self.resume(self.prepare(codes, 0), codes, 0)

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int) -> State:
        """What the network holds before the style of ``layer``, which depends on ``codes[:, :layer]`` alone.

        Edits at ``layer`` and above can share it; under ``adain`` the convolution of ``layer`` lies before its style.

        Raises:
            ValueError: as ``synthesize``, or the layer is out of range.
        """
        _check_layer(layer, self.num_layers)
        return self.network.prepare(self._truncate(codes), layer, self.dtype)

    def resume(self, state: Any, codes: Float[Tensor, "n L D"], layer: int) -> Float[Tensor, "n 3 H W"]:
        """Images from the state that ``prepare`` returned for the same layer.

        Raises:
            ValueError: as ``synthesize``, or the layer is out of range, or the state has another batch size.
        """
        _check_layer(layer, self.num_layers)
        count = (state if isinstance(state, Tensor) else state[0]).shape[0]
        if count != codes.shape[0]:
            raise ValueError(f"state and codes must agree in batch size; got {count} and {codes.shape[0]}")
        images = self.network.resume(state, self._truncate(codes), layer)
        return images.float().contiguous().clamp(-1, 1)

    def repeat(self, state: State, times: int) -> State:
        """The state of the same samples, ``times`` times over."""
        return repeated(state, times)

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into its scales and, under ``adain``, shifts.

        Raises:
            ValueError: there is no such layer.
        """
        _check_layer(layer, self.num_layers)
        return self.network.style_weights(layer)

    def _truncate(self, codes: Tensor) -> Tensor:
        if codes.ndim != 3 or codes.shape[1:] != (self.num_layers, self.code_dim):
            raise ValueError(f"codes must have shape (n, {self.num_layers}, {self.code_dim}); got {tuple(codes.shape)}")
        if not torch.isfinite(codes).all():
            raise ValueError("codes must be finite; got NaN or infinity")
        mean = self.mean_code.to(codes.dtype)
        return mean + self.truncation.to(codes.dtype)[:, None] * (codes - mean)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write float16 weights, with the configuration and ``metadata`` as JSON in the header, under key ``higan``.

        The file appears whole or not at all.
        """
        tensors = {name: t.detach().cpu().half().contiguous() for name, t in self.network.state_dict().items()}
        tensors["mean_code"] = self.mean_code.cpu().half()
        header = {
            "format": _FORMAT,
            "config": asdict(self.config),
            "psi": self.truncation.tolist(),
            "metadata": dict(self.metadata if metadata is None else metadata),
        }
        write_weights(path, tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu", **options: Any) -> RoomsGenerator:
        """Read what ``save`` wrote; ``options`` as in the constructor, by default as saved.

        Raises:
            MissingWeightsError: there is no such file.
            UnknownFormatError: the file is not a rooms generator.
            CorruptFileError: the file is truncated, or its weights do not fit its configuration.
        """
        tensors, header = read_weights(path)
        if header.get("format") != _FORMAT:
            raise UnknownFormatError(
                f"{path} is no rooms generator: expected {_FORMAT!r}, got {header.get('format')!r}"
            )
        try:
            config = config_from_json(header["config"])
            mean_code = tensors.pop("mean_code").float()
            _check_depth(config, len(tensors))
            network = filled(lambda: build_network(config), tensors)
            saved = {"name": Path(path).stem, "metadata": header["metadata"], "truncation": header["psi"]}
            return cls(network, mean_code, device=device, **{**saved, **options})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error


def _check_depth(config: RoomsConfig, num_tensors: int) -> None:
    """Refuse headers that ask for more layers than there are weights, before they are built.

    Raises:
        ValueError: there are too few weights.
    """
    if max(config.mapping_layers, config.num_layers) > num_tensors:
        raise ValueError(
            f"{config.mapping_layers:,} mapping and {config.num_layers:,} other layers, {num_tensors} weights"
        )


def estimate_mean_code(network: Network, samples: int = 65536) -> Float[Tensor, " D"]:
    """Mean of the codes of that many latents, drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    device = network.constant.device
    total = torch.zeros(network.config.code_dim, dtype=torch.float64)  # which not every device has
    with torch.inference_mode():
        for start in range(0, samples, 4096):
            z = torch.randn(min(4096, samples - start), network.config.latent_dim, generator=generator)
            total += network.map(z.to(device)).cpu().double().sum(0)
    return (total / samples).float().clone().to(device)


def _check_layer(layer: int, num_layers: int) -> None:
    if not 0 <= layer < num_layers:
        raise ValueError(f"layer must lie in 0 … {num_layers - 1}; got {layer}")
