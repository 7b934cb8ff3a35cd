"""Tell the family of a checkpoint from its tensors' names, and convert it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from higan.checkpoints.types import Checkpoint, Format, Network
from higan.errors import CheckpointError, CorruptFileError, UnknownFormatError
from higan.generators.conversion import biggan, pggan, stylegan, stylegan2, stylegan3
from higan.generators.family import FamilyNetwork

__all__ = ["convert"]

Converter = Callable[[Network], FamilyNetwork]

_MOST_SHARED = 2
_FEW = 1 << 20
"""How many times over, and how many besides, tensors may have numbers in common: weights that are tied."""

_SMOOTHED = ("Gs", "G_ema", "g_ema", "generator_smooth", "model", "generator", "G", "g")
"""Names of generators, the running averages that people show first."""

_MARKS: tuple[tuple[Format, str, Converter], ...] = (
    ("nvidia-tf", "synthesis/4x4/Const/StyleMod/weight", stylegan.from_nvidia_tf),
    ("nvidia-tf", "synthesis/4x4/Conv/mod_weight", stylegan2.from_nvidia_tf),
    ("nvidia-tf", "4x4/Dense/weight", pggan.from_nvidia_tf),
    ("nvidia-torch", "synthesis.b4.const", stylegan2.from_nvidia_torch),
    ("nvidia-torch", "synthesis.input.freqs", stylegan3.from_nvidia_torch),
    ("genforce-pth", "synthesis.layer0.const", stylegan.from_genforce),
    ("genforce-pth", "synthesis.layer0.first_layer", stylegan.from_genforce),
    ("genforce-pth", "synthesis.early_layer.const", stylegan2.from_genforce),
    ("genforce-pth", "layer0.conv.weight", pggan.from_genforce),
    ("genforce-pth", "layer0.weight", pggan.from_genforce),
    ("genforce-pth", "layer1.wscale.bias", pggan.from_genforce),
    ("biggan-hf", "generator.bn.running_means", biggan.from_hugging_face),
    ("biggan-torch", "blocks.0.0.bn1.gain.weight", biggan.from_original),
    ("torch-state-dict", "blocks.0.0.bn1.gain.weight", biggan.from_original),
    ("rosinality-pt", "conv1.conv.modulation.weight", stylegan2.from_rosinality),
)
"""Formats, a tensor that only one family has in it, and what converts it."""


def convert(checkpoint: Checkpoint) -> FamilyNetwork:
    """The generator of a foreign checkpoint as a network of its family.

    Raises:
        UnknownFormatError: the file holds no generator of a family known here, or one with options that are not.
        CorruptFileError: tensors are missing or contradict each other.
        CheckpointError: the file holds no network by a name that generators have.
    """
    source = _unwrapped(checkpoint.network(*_SMOOTHED))
    _check_shared(source, checkpoint)
    for kind, mark, converter in _MARKS:
        if kind == checkpoint.format and mark in source.tensors:
            return _converted(converter, source, checkpoint)
    some = ", ".join(list(source.tensors)[:5])
    raise UnknownFormatError(
        f"{checkpoint.path}: {source.name} of this {checkpoint.format} file is of no generator family known here (its "
        f"tensors are called {some} …); for a network of your own see higan.generators.module"
    )


def _converted(converter: Converter, source: Network, checkpoint: Checkpoint) -> FamilyNetwork:
    try:
        return converter(source)
    except CheckpointError as error:
        raise type(error)(f"{checkpoint.path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Arithmetic on tensors of impossible shapes, settings of impossible types.
        raise CorruptFileError(f"{checkpoint.path}: the weights of {source.name} are damaged: {error}") from error


def _check_shared(source: Network, checkpoint: Checkpoint) -> None:
    """Refuse files that give the same numbers under many names: converted, every name has its own.

    Raises:
        CorruptFileError: there would be more than twice as many numbers as the file holds.
    """
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() // tensor.element_size()
        for tensor in source.tensors.values()
    }
    held, named = sum(storages.values()), sum(tensor.numel() for tensor in source.tensors.values())
    if named > _MOST_SHARED * held + _FEW:
        raise CorruptFileError(
            f"{checkpoint.path}: the tensors of {source.name} have {named:,} numbers, of which the file holds only "
            f"{held:,}; no network shares so many"
        )


def _unwrapped(source: Network) -> Network:
    """Names without the prefix that data-parallel training adds."""
    if not all(name.startswith("module.") for name in source.tensors):
        return source
    return replace(source, tensors={name.removeprefix("module."): tensor for name, tensor in source.tensors.items()})
