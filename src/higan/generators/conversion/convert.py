"""Tell the family of a checkpoint from its tensors' names, and convert it."""

from __future__ import annotations

from collections.abc import Callable

from higan.checkpoints.types import Checkpoint, Format, Network, printable
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
    source = _generator_in(checkpoint)
    _check_shared(source, checkpoint)
    if (converter := _converter_of(source, checkpoint.format)) is not None:
        return _converted(converter, source, checkpoint)
    if checkpoint.format == "torch-state-dict" and _converter_of(source, "nvidia-torch") is not None:
        raise UnknownFormatError(
            f"{checkpoint.path}: {source.name} is the state dict of one of NVIDIA's networks, which does not say how "
            'the network was set up; save the network itself, as training does: torch.save({"G_ema": network}, …)'
        )
    some = ", ".join(map(printable, list(source.tensors)[:5]))
    raise UnknownFormatError(
        f"{checkpoint.path}: {printable(source.name)} of this {checkpoint.format} file is of no generator family known "
        f"here (its tensors are called {some} …); for a network of your own see higan.generators.module"
    )


def _generator_in(checkpoint: Checkpoint) -> Network:
    """The network that is called like a generator, or else the only one that is made like one."""
    alike = [source for source in checkpoint.networks.values() if _converter_of(source, checkpoint.format) is not None]
    if len(alike) == 1 and not checkpoint.networks.keys() & set(_SMOOTHED):
        return alike[0]
    return checkpoint.network(*_SMOOTHED)


def _converter_of(source: Network, kind: Format) -> Converter | None:
    return next((converter for known, mark, converter in _MARKS if known == kind and mark in source.tensors), None)


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
