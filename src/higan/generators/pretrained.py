"""The adapter that makes a generator of any family's network: seeds, labels, truncation, checks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from higan.generators.checks import check_codes, check_latents
from higan.generators.family import FamilyNetwork, StagedNetwork, StagedStyledNetwork, StyledNetwork
from higan.generators.states import repeated

__all__ = ["Noise", "Precision", "PretrainedGenerator", "Staged", "StagedGenerator", "wrap"]

Noise = Literal["stored", "none"]
Precision = Literal["float32", "bfloat16", "float16"]
"""Of feature maps; codes and styles are always float32."""


_KINDS_OF_LAYERS = 64


class PretrainedGenerator:
    """A generator of images from layer-wise latent codes; see `higan.types.Generator` for the contract.

    On the CPU images are computed one at a time: the memory of one image's activations is recycled by the allocator
    where that of a batch is returned to the system, which makes a batch slower per image, and image k cannot depend on
    the batch it is in, not even by rounding.

    Args:
        network: of any family, weights loaded.
        name: what people type, or the file's stem.
        device: where codes and images live.
        truncation_psi: factor by which codes are drawn towards the mean code, in [0, 1]; None for the family's.
        truncation_layers: how many layers, from the coarsest, are truncated; None for the family's.
        noise: ``stored`` adds the constant noise maps of the file, ``none`` switches them off.
        provenance: what is known about the origin of the weights; becomes part of a saved file.
        precision: of feature maps. ``bfloat16`` is several times faster on processors that have it and on GPUs, and
            off by one or two grey levels on average; ``float16``, for GPUs, by a seventh of that.
        compiled: whether layers are compiled by ``torch.compile`` when first used: half a minute or more.

    Raises:
        ValueError: truncation, noise or precision is out of range.
    """

    def __init__(
        self,
        network: FamilyNetwork,
        name: str,
        device: str | torch.device = "cpu",
        truncation_psi: float | None = None,
        truncation_layers: int | None = None,
        noise: Noise = "stored",
        provenance: Mapping[str, str] | None = None,
        precision: Precision = "float32",
        *,
        compiled: bool = False,
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        if precision != "float32":
            network.lower(getattr(torch, precision))
        if noise not in get_args(Noise):
            raise ValueError(f"noise must be 'stored' or 'none'; got {noise!r}")
        self._device = torch.device(device)
        # On the CPU, convolutions and depthwise filters are several times faster when channels lie next to each other.
        layout = torch.channels_last if self._device.type == "cpu" else torch.contiguous_format
        self._network = network
        cast(nn.Module, network).to(device=self._device, memory_format=layout)  # type: ignore[call-overload]
        if compiled:
            _compile(cast(nn.Module, network))
        self._name = name
        self.label: int | None = None
        """The class that `with_label` chose."""
        self.noise: Noise = noise
        self.precision: Precision = precision
        self.provenance: Mapping[str, str] = dict(provenance or {})
        self._truncation = self._layer_truncation(truncation_psi, truncation_layers)

    def _layer_truncation(self, psi: float | None, layers: int | None) -> Float[Tensor, " L"]:
        default_psi, default_layers = self._network.default_truncation
        psi = default_psi if psi is None else psi
        if layers is None:
            layers = self.num_layers if default_layers is None else min(default_layers, self.num_layers)
        if not 0 <= psi <= 1:
            raise ValueError(f"truncation_psi must lie in [0, 1]; got {psi}")
        if psi != 1 and self.family == "pggan":
            raise ValueError(f"a PGGAN sets the length of every code and cannot be truncated; got truncation_psi {psi}")
        if not 0 <= layers <= self.num_layers:
            raise ValueError(f"truncation_layers must lie in 0–{self.num_layers}, the number of layers; got {layers}")
        truncation = torch.ones(self.num_layers, device=self._device)
        truncation[:layers] = psi
        return truncation

    @property
    def name(self) -> str:
        """What people type, or the file's stem."""
        return self._name

    @property
    def family(self) -> str:
        """pggan, stylegan, stylegan2, stylegan3 or biggan."""
        return self._network.family

    @property
    def network(self) -> FamilyNetwork:
        """The bare network."""
        return self._network

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self._network.layer_widths)

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer; beyond it codes must be zero."""
        return self._network.layer_widths

    @property
    def code_dim(self) -> int:
        """D, the width of the widest layer."""
        return max(self._network.layer_widths)

    @property
    def latent_dim(self) -> int:
        """Dz."""
        return int(self._network.config.latent_dim)

    @property
    def resolution(self) -> int:
        """H = W, in pixels."""
        return int(self._network.config.resolution)

    @property
    def num_classes(self) -> int:
        """0 where the generator is unconditional."""
        return int(self._network.config.num_classes)

    @property
    def device(self) -> torch.device:
        """Where codes and images live."""
        return self._device

    @property
    def shared_code(self) -> bool:
        """Whether ``map`` gives every layer the same row."""
        return self._network.shared_code

    @property
    def truncation(self) -> Float[Tensor, " L"]:
        """Factor by which ``synthesize`` shrinks a step taken at each layer."""
        return self._truncation

    @property
    def mean_code(self) -> Float[Tensor, "*L D"]:
        """The code towards which truncation draws: one for all layers, (D,), or one per layer, (L, D)."""
        return self._network.mean_code

    def with_label(self, label: int) -> PretrainedGenerator:
        """The same generator with ``label`` as the class of every sample that is mapped without one.

        Raises:
            ValueError: there is no such class.
        """
        self._check_labels(torch.tensor([label]))
        other = copy.copy(self)
        other.label = label
        return other

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """One independent draw per seed, the same on every device."""
        draws = [self._network.draw(torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return (torch.stack(draws) if draws else torch.empty(0, self.latent_dim)).to(self._device)

    def map(
        self, z: Float[Tensor, "n Dz"], labels: int | Sequence[int] | Integer[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n L D"]:
        """Layer-wise codes, untruncated.

        Args:
            z: latents.
            labels: class of every sample, or one for all; needed where the generator is class-conditional.

        Raises:
            ValueError: the shape of ``z`` does not fit, a value is not finite, or labels are missing, out of range or
                given to an unconditional generator.
        """
        check_latents(z, self.latent_dim)
        with _gradients(z):
            return self._network.map(z.float(), self._labels(labels, z.shape[0]))

    def _labels(self, labels: int | Sequence[int] | Tensor | None, n: int) -> Tensor | None:
        if labels is None:
            labels = self.label
        if self.num_classes == 0:
            if labels is not None:
                raise ValueError(f"{self._name} is not class-conditional; leave labels out")
            return None
        if labels is None:
            raise ValueError(
                f"{self._name} is conditional on {self.num_classes} classes; pass labels, or fix one class with "
                "with_label(k), or --label k on the command line"
            )
        indices = torch.as_tensor(labels, device=self._device)
        indices = indices.expand(n) if indices.ndim == 0 else indices
        if indices.shape != (n,):
            raise ValueError(f"labels must be one class or one per sample, {n}; got shape {tuple(indices.shape)}")
        self._check_labels(indices)
        return indices.long()  # bytes and truth values would pick rows as a mask

    def _check_labels(self, labels: Tensor) -> None:
        if self.num_classes == 0:
            raise ValueError(f"{self._name} is not class-conditional")
        if labels.is_floating_point() or not bool(((labels >= 0) & (labels < self.num_classes)).all()):
            raise ValueError(f"labels must be integers in 0–{self.num_classes - 1}; got {labels.tolist()}")

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1], truncation applied; differentiable with respect to the codes.

        Raises:
            ValueError: the shape does not fit, a value is not finite, or the padding of a narrow layer was touched.
        """
        self.check(codes)
        with _gradients(codes):
            images = (self._network.synthesize(part, noise=self._noisy) for part in self._parts(codes))
            return _album(images, self.resolution, codes)

    def _parts(self, codes: Tensor) -> Sequence[Tensor]:
        """Truncated codes of as many samples as are computed together.

        Copies, because the last bits of a matrix product may depend on where in memory its factors start.
        """
        truncated = self.truncate(codes)
        size = 1 if self._one_by_one else max(1, codes.shape[0])
        return [truncated[start : start + size].clone() for start in range(0, codes.shape[0], size)]

    @property
    def _one_by_one(self) -> bool:
        return self._device.type == "cpu"

    @property
    def _noisy(self) -> bool:
        return self.noise == "stored"

    def truncate(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n L D"]:
        """What ``synthesize`` feeds its layers: mean + truncation · (codes - mean), in float32."""
        mean = self._network.mean_code
        return mean + self._truncation[:, None] * (codes.float() - mean)

    def check(self, codes: Float[Tensor, "n L D"]) -> None:
        """Refuse codes that do not belong to this generator.

        Raises:
            ValueError: the shape does not fit, a value is not finite, or the padding of a narrow layer was touched.
        """
        check_codes(codes, self.layer_widths)


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """Activations of some samples before the style of a layer; opaque to callers."""

    layer: int
    count: int
    parts: tuple[Any, ...]


class StagedGenerator(PretrainedGenerator):
    """A generator that can stop before the style of a layer and go on from there, for edits of single layers."""

    _network: StagedNetwork

    def prepare(self, codes: Float[Tensor, "n L D"], layer: int) -> Staged:
        """All that happens before the style of ``layer``; depends on ``codes[:, :layer]`` alone.

        Raises:
            ValueError: the codes do not fit, or there is no such layer.
        """
        self.check(codes)
        self._check_layer(layer)
        with _gradients(codes):
            parts = (self._network.prepare(part, layer, noise=self._noisy) for part in self._parts(codes))
            return Staged(layer, codes.shape[0], tuple(parts))

    def resume(self, state: Staged, codes: Float[Tensor, "n L D"], layer: int) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1] from the state that ``prepare`` left before the style of the same layer.

        Equals ``synthesize(codes)`` where ``codes[:, :layer]`` are those the state was prepared from.

        Raises:
            ValueError: the codes do not fit, there is no such layer, or the state belongs to another layer or number
                of samples.
        """
        self.check(codes)
        self._check_layer(layer)
        if (state.layer, state.count) != (layer, codes.shape[0]):
            raise ValueError(
                f"the state holds {state.count} samples before layer {state.layer}; asked to resume {codes.shape[0]} "
                f"before layer {layer}"
            )
        pairs = zip(state.parts, self._parts(codes), strict=True)
        with _gradients(codes):
            images = (self._network.resume(part, rows, layer, noise=self._noisy) for part, rows in pairs)
            return _album(images, self.resolution, codes)

    def repeat(self, state: Staged, times: int) -> Staged:
        """The state of the same samples, ``times`` times over."""
        # Where samples are computed one by one, nothing need be copied.
        parts = state.parts * times if self._one_by_one else tuple(repeated(part, times) for part in state.parts)
        return Staged(state.layer, times * state.count, parts)

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.num_layers:
            raise ValueError(f"layer must lie in 0–{self.num_layers - 1}; got {layer}")


class StyledGenerator(PretrainedGenerator):
    """A generator whose layers read their codes through a linear map each; see `higan.types.StyledGenerator`."""

    _network: StyledNetwork

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that turns the code of a layer into its scales and shifts.

        Raises:
            ValueError: there is no such layer.
        """
        if not 0 <= layer < self.num_layers:
            raise ValueError(f"layer must lie in 0–{self.num_layers - 1}; got {layer}")
        return self._network.style_weights(layer).detach()


class StagedStyledGenerator(StagedGenerator, StyledGenerator):
    """Both."""

    _network: StagedStyledNetwork


def wrap(
    network: FamilyNetwork | StagedNetwork,
    name: str,
    device: str | torch.device = "cpu",
    truncation_psi: float | None = None,
    truncation_layers: int | None = None,
    noise: Noise = "stored",
    provenance: Mapping[str, str] | None = None,
    precision: Precision = "float32",
    *,
    compiled: bool = False,
) -> PretrainedGenerator:
    """The adapter that suits a network: staged where it can stop and go on, styled where it has style matrices."""
    adapters: dict[tuple[bool, bool], type[PretrainedGenerator]] = {
        (False, False): PretrainedGenerator,
        (True, False): StagedGenerator,
        (False, True): StyledGenerator,
        (True, True): StagedStyledGenerator,
    }
    adapter = adapters[hasattr(network, "prepare"), hasattr(network, "style_weights")]
    return adapter(
        network, name, device, truncation_psi, truncation_layers, noise, provenance, precision, compiled=compiled
    )


def _compile(network: nn.Module) -> None:
    """Layer by layer, so that stages need no compilation of their own."""
    import torch._dynamo.config as dynamo

    # All layers of a network share one function, which is compiled for every width and resolution.
    limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"  # The name in torch 2.5.
    setattr(dynamo, limit, max(getattr(dynamo, limit), _KINDS_OF_LAYERS))
    for layers in network.children():
        for layer in layers if isinstance(layers, nn.ModuleList) else ():
            layer.compile()


def _gradients(inputs: Tensor) -> torch.set_grad_enabled:
    """Record a graph only where someone asked for gradients with respect to the inputs."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and inputs.requires_grad)


def _album(images: Iterable[Tensor], resolution: int, codes: Tensor) -> Tensor:
    """Three channels in [-1, 1], one after the other."""
    pictures = [image.float().expand(-1, 3, -1, -1).clamp(-1, 1).contiguous() for image in images]
    return torch.cat(pictures) if pictures else codes.new_empty(0, 3, resolution, resolution)
