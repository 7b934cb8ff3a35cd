"""From a name or a file to a generator, back to a file, and what a file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from higan.checkpoints import native
from higan.checkpoints.read import read
from higan.checkpoints.types import Checkpoint
from higan.devices import open_device
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.generators.biggan import BigGANConfig, BigGANNetwork
from higan.generators.conversion import convert
from higan.generators.conversion.raw import load
from higan.generators.family import FamilyNetwork
from higan.generators.pggan import PGGANConfig, PGGANNetwork
from higan.generators.pretrained import Noise, Precision, PretrainedGenerator, wrap
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.generators.stylegan3 import StyleGAN3Config, StyleGAN3Network
from higan.named import import_named, is_reference, lacks, made_without_arguments
from higan.types import Generator

__all__ = [
    "FAMILIES",
    "NAMES",
    "ROOMS",
    "SIBLINGS",
    "WEIGHTS",
    "Inspection",
    "inspect_file",
    "load_generator",
    "save_generator",
]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""

SIBLINGS = ("rooms-32-s0", "rooms-32-s1", "rooms-32-nomix-s0", "rooms-32-skip-s0")
"""Small generators of the same rooms that differ in one thing each: seed, style mixing, architecture."""

ROOMS = ("rooms", "rooms-128", *SIBLINGS)
"""All generators of rooms that come with the package; the second is the first grown to 128 pixels."""

FAMILIES: Mapping[str, tuple[type, type]] = {
    "biggan": (BigGANConfig, BigGANNetwork),
    "pggan": (PGGANConfig, PGGANNetwork),
    "stylegan": (StyleGANConfig, StyleGANNetwork),
    "stylegan2": (StyleGAN2Config, StyleGAN2Network),
    "stylegan3": (StyleGAN3Config, StyleGAN3Network),
}
"""Configuration and network of every family that our own files hold."""

_ROOMS = "higan-rooms-generator"
"""What files of the embedded generator call themselves."""


def _load_rooms(device: torch.device, path: Path | None = None) -> Generator:
    from higan.generators.rooms import RoomsGenerator

    path = path or WEIGHTS / "rooms.safetensors"
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: the weights of the embedded generator are missing; reinstall the package, or train them with "
            "`higan rooms train-generator`"
        )
    return RoomsGenerator.load(path, device=device)


def _load_toy(device: torch.device) -> Generator:
    from higan.generators.toy import ToyGenerator

    return ToyGenerator(device=device)


def _load_transparent(device: torch.device) -> Generator:
    from higan.generators.transparent import TransparentGenerator

    return TransparentGenerator(0.3, device=device)


_EMBEDDED: Mapping[str, Callable[[torch.device], Generator]] = {
    **{name: partial(_load_rooms, path=WEIGHTS / f"{name}.safetensors") for name in ROOMS},
    "toy": _load_toy,
    "transparent": _load_transparent,
}


NAMES = tuple(_EMBEDDED)
"""All generators that come with the package."""


def load_generator(
    path_or_name: str | Path,
    device: str | torch.device = "cpu",
    truncation_psi: float | None = None,
    truncation_layers: int | None = None,
    noise: Noise = "stored",
    precision: Precision = "float32",
    *,
    compiled: bool = False,
) -> Generator:
    """Open a generator by its name (`ROOMS`, ``toy``, ``transparent``), from a weight file of any kind, or your own.

    Family, resolution, widths and number of classes are read off the file. No code stored in it is run.

    Args:
        path_or_name: a name; a file (a folder for the Hugging Face layout of BigGAN); or ``module:name``, where your
            module holds a generator, or a class or function without arguments that makes one. Importing a module runs
            it, and nothing below but ``device`` applies.
        device: where codes and images live.
        truncation_psi: factor by which codes are drawn towards the mean code inside ``synthesize``; by default that
            of the family (StyleGAN 0.7, StyleGAN2 0.5, otherwise 1). For BigGAN, the truncation of the prior.
        truncation_layers: how many layers, from the coarsest, are truncated; by default that of the family
            (StyleGAN 8, otherwise all).
        noise: ``stored`` adds the constant noise maps kept in the file, ``none`` switches them off.
        precision: of feature maps, of all that come from files and of the generators of rooms; see
            `PretrainedGenerator`.
        compiled: whether layers are compiled by ``torch.compile``, of all that come from files.

    Raises:
        MissingWeightsError: there is no such file or module, or the embedded weights are not installed.
        CheckpointError: the file cannot be used; the subclass says why.
        BrokenModuleError: the module of ``module:name`` fails.
        ValueError: an argument is out of range, or means nothing to this generator; or ``module:name`` is no generator.
    """
    if not isinstance(path_or_name, str | Path):
        raise ValueError(  # noqa: TRY004 - wrong arguments raise ValueError throughout
            f"expected the name or file of a generator; got {type(path_or_name).__name__}. A generator that is open is "
            "passed as it is; a network becomes one by higan.generators.module.from_module(network, latent_dim)"
        )
    where = open_device(device)
    name = str(path_or_name)
    plain = (truncation_psi, truncation_layers, noise) == (None, None, "stored")
    if name in _EMBEDDED:
        _refuse_compiling(name, compiled=compiled)
        return _lowered(_embedded(name, where, plain=plain), precision)
    if is_reference(name) and not Path(name).exists():
        if not plain or compiled or precision != "float32":
            raise ValueError(
                f"{name} is made by your own code; leave truncation_*, noise, precision and compiled out, and set them "
                "there"
            )
        return _imported(name, where)
    checkpoint = _read(path_or_name)
    if _is_rooms(checkpoint):
        _refuse_options(name, plain=plain)
        _refuse_compiling(name, compiled=compiled)
        return _lowered(_load_rooms(where, checkpoint.path), precision)
    network = network_of(checkpoint)
    if isinstance(network, BigGANNetwork):
        if truncation_layers is not None:
            raise ValueError("a BigGAN truncates its prior, not layers; leave truncation_layers out")
        if truncation_psi is not None:
            network.truncate(truncation_psi)
        truncation_psi = None
    return wrap(
        network,
        Path(path_or_name).stem,
        where,
        truncation_psi,
        truncation_layers,
        noise,
        {**checkpoint.provenance, "read from": checkpoint.format, "sha256": checkpoint.digest},
        precision,
        compiled=compiled,
    )


def _lowered(generator: Generator, precision: Precision) -> Generator:
    from higan.generators.rooms import RoomsGenerator

    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
    if isinstance(generator, RoomsGenerator):
        generator.dtype = getattr(torch, precision)
    elif precision != "float32":
        raise ValueError(f"{generator.name!r} computes in float32 only; got precision {precision!r}")
    return generator


def _embedded(name: str, device: torch.device, *, plain: bool) -> Generator:
    _refuse_options(name, plain=plain)
    return _EMBEDDED[name](device)


def _imported(reference: str, device: torch.device) -> Generator:
    found = made_without_arguments(reference, import_named(reference))
    if missing := lacks(found, Generator):
        wrap_it = " or higan.generators.module.from_module(network, latent_dim)" if isinstance(found, nn.Module) else ""
        raise ValueError(
            f"{reference} is {type(found).__name__}, which has no {', '.join(missing)}; expected a generator as "
            f"higan.Generator describes it{wrap_it}, or a function without arguments that makes one"
        )
    if torch.device(found.device).type != device.type:
        raise ValueError(
            f"{reference} lives on {found.device}, and was asked for on {device}; make it there, or choose "
            f"{found.device}"
        )
    return found


def _refuse_options(name: str, *, plain: bool) -> None:
    if not plain:
        raise ValueError(f"{name!r} has a truncation of its own and no noise; leave truncation_* and noise out")


def _refuse_compiling(name: str, *, compiled: bool) -> None:
    if compiled:
        raise ValueError(f"{name!r} is not worth compiling; leave compiled out")


def _read(path_or_name: str | Path) -> Checkpoint:
    try:
        return read(path_or_name)
    except MissingWeightsError as error:
        raise MissingWeightsError(
            f"{path_or_name}: no such file; expected a weight file, module:name, or one of the names "
            f"{', '.join(_EMBEDDED)}"
        ) from error


def _is_rooms(checkpoint: Checkpoint) -> bool:
    return checkpoint.format == "safetensors" and checkpoint.network("model").class_name.startswith(_ROOMS)


def network_of(checkpoint: Checkpoint) -> FamilyNetwork:
    """The network in a file of ours, or of anyone else's.

    Raises:
        CheckpointError: as `load_generator`.
    """
    if checkpoint.format != "safetensors":
        return convert(checkpoint)
    source = checkpoint.network("model")
    if source.class_name not in FAMILIES:
        raise UnknownFormatError(
            f"{checkpoint.path}: safetensors of {source.class_name or 'an unnamed family'}; expected one of "
            f"{', '.join(FAMILIES)} as `higan convert` writes them"
        )
    config_type, network_type = FAMILIES[source.class_name]
    try:
        config = config_type(**{name: _tuples(value) for name, value in source.config.items()})
        return load(network_type, config, source.tensors)
    except CheckpointError as error:
        raise type(error)(f"{checkpoint.path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{checkpoint.path}: the configuration in the header is damaged: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save_generator(generator: PretrainedGenerator, path: str | Path) -> None:
    """Write a generator as safetensors with its configuration in the header.

    Truncation, noise and label are the caller's choice at loading time and are not kept.

    Raises:
        ValueError: the generator is not one of the families that files can hold, or was opened in a lower precision.
    """
    network = generator.network
    if not isinstance(network, nn.Module) or network.family not in FAMILIES:
        raise ValueError(f"expected one of the families {', '.join(FAMILIES)}; got {network.family}")
    if generator.precision != "float32":
        raise ValueError(f"the weights were rounded to {generator.precision}; load them in float32 to save them")
    provenance = {"name": generator.name, **generator.provenance, "written by": f"higan {version('higan')}"}
    config = network.original if isinstance(network, BigGANNetwork) else network.config
    native.write(path, network.family, asdict(config), network.state_dict(), provenance)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a weight file holds."""

    path: Path
    family: str
    format: str
    resolution: int
    num_layers: int
    code_dim: int
    latent_dim: int
    num_classes: int
    layer_resolutions: tuple[int, ...]
    """Pixels of what each layer makes."""
    layer_widths: tuple[int, ...]
    """Code width of each layer."""
    parameters: int
    size: int
    """In bytes."""
    digest: str
    """SHA-256, in hexadecimal."""
    provenance: Mapping[str, str]


def inspect_file(path: str | Path) -> Inspection:
    """Family, size and origin of a weight file.

    Raises:
        MissingWeightsError: there is no such file.
        CheckpointError: the file cannot be used; the subclass says why.
    """
    checkpoint = _read(path)
    if _is_rooms(checkpoint):
        network: Any = _load_rooms(torch.device("cpu"), checkpoint.path)
        return _inspection(checkpoint, network.network, network, "rooms")
    network = network_of(checkpoint)
    return _inspection(checkpoint, network, wrap(network, "", "cpu"), network.family)


def _inspection(checkpoint: Checkpoint, network: nn.Module, generator: Any, family: str) -> Inspection:
    rooms = family == "rooms"
    layers = range(generator.num_layers)
    return Inspection(
        path=checkpoint.path,
        family=family,
        format=checkpoint.format,
        resolution=generator.resolution,
        num_layers=generator.num_layers,
        code_dim=generator.code_dim,
        latent_dim=generator.latent_dim,
        num_classes=0 if rooms else generator.num_classes,
        layer_resolutions=generator.network.layer_resolutions,
        layer_widths=(generator.code_dim,) * len(layers) if rooms else generator.layer_widths,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        size=checkpoint.size,
        digest=checkpoint.digest,
        provenance=checkpoint.provenance,
    )
