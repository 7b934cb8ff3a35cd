"""What the network of every generator family provides."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FamilyNetwork", "StagedNetwork", "StagedStyledNetwork", "StyledNetwork"]


@runtime_checkable
class FamilyNetwork(Protocol):
    """What a family provides: a module with effective weights that knows nothing of seeds, truncation or checks.

    Families register: from Python 3.12 on, ``isinstance`` does not see the parameters of a module by itself.
    """

    family: ClassVar[str]
    default_truncation: ClassVar[tuple[float, int | None]]
    """psi, and the number of layers it applies to (None: all)."""

    @property
    def config(self) -> Any:
        """Frozen dataclass with at least ``resolution``, ``latent_dim`` and ``num_classes``."""
        ...

    @property
    def shared_code(self) -> bool:
        """Whether every layer gets the same code."""
        ...

    @property
    def mean_code(self) -> Tensor:
        """(D,) or (L, D)."""
        ...

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """Code width of every layer; codes are padded with zeros to the widest."""
        ...

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """Pixels of what every layer makes."""
        ...

    def draw(self, generator: torch.Generator) -> Float[Tensor, " Dz"]:
        """One latent from the prior, on the CPU."""
        ...

    def map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Codes (n, L, D) from latents (n, Dz) and class indices (n,)."""
        ...

    def lower(self, dtype: torch.dtype) -> None:
        """Compute feature maps in another precision from now on."""
        ...

    def synthesize(self, codes: Tensor, *, noise: bool) -> Tensor:
        """Images (n, 1 or 3, H, W), unbounded, from truncated codes."""
        ...


class StagedNetwork(FamilyNetwork, Protocol):
    """A family whose network can stop before the style of a layer and go on from there."""

    def prepare(self, codes: Tensor, layer: int, *, noise: bool) -> Any:
        """All that happens before the style of ``layer``."""
        ...

    def resume(self, state: Any, codes: Tensor, layer: int, *, noise: bool) -> Tensor:
        """Images from that state."""
        ...


class StyledNetwork(FamilyNetwork, Protocol):
    """A family whose layers read their codes through a linear map each."""

    def style_weights(self, layer: int) -> Tensor:
        """The matrix of a layer."""
        ...


class StagedStyledNetwork(StagedNetwork, StyledNetwork, Protocol):
    """Both."""
