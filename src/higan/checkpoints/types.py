"""What any weight file becomes: a few named networks, each a flat dict of tensors with its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from higan.errors import CheckpointError

__all__ = ["FORMATS", "Checkpoint", "Format", "Network", "printable"]

Format = Literal[
    "nvidia-tf",
    "nvidia-torch",
    "genforce-pth",
    "rosinality-pt",
    "biggan-hf",
    "biggan-torch",
    "torch-state-dict",
    "safetensors",
]
FORMATS: tuple[Format, ...] = get_args(Format)


def printable(text: str, most: int = 100) -> str:
    """Text of a file as a terminal may show it: no control sequences, and not without end."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return shown[:most] + "…" if len(shown) > most else shown


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One network of a file, as plain data.

    ``tensors`` holds every tensor of the network under the file's own names, sub-networks included. Names of
    TensorFlow files are joined with ``/`` (``synthesis/4x4/Conv/weight``), those of torch files with ``.``.
    ``components`` are the sub-networks that carry a configuration of their own; their tensors are the very same
    tensors under the names local to them.
    """

    name: str
    """What the file calls it: ``Gs``, ``G_ema``, ``g_ema``, ``generator_smooth``; ``model`` for a bare state dict."""
    class_name: str
    """The class or build function named in the file (safetensors: the family); empty where the file names none."""
    config: Mapping[str, Any]
    """Static arguments kept in the file, as plain Python values; empty where the file has none."""
    tensors: Mapping[str, Tensor]
    components: Mapping[str, Network] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A weight file that has been read without running anything in it."""

    path: Path
    format: Format
    networks: Mapping[str, Network]
    provenance: Mapping[str, str]
    """What the file says about its origin: pickle protocol, writer, digest of embedded source, iteration …"""
    digest: str
    """SHA-256 of the file (of the weights file, where a folder was given), in hexadecimal."""
    size: int
    """In bytes."""

    def network(self, *names: str) -> Network:
        """The first of these networks that the file has.

        Raises:
            CheckpointError: it has none of them.
        """
        for name in names:
            if name in self.networks:
                return self.networks[name]
        raise CheckpointError(
            f"{self.path}: expected a network named {' or '.join(names)}; this {self.format} file holds "
            f"{', '.join(map(printable, self.networks)) or 'none'}"
        )
