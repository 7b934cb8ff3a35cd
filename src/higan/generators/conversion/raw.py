"""Raw tensors: a family's weights as they were trained, under canonical names, whatever file they come from.

Every format is a table of rules from its own names to canonical ones; the family then absorbs learning-rate factors and
gains into effective weights. A rule names what it drops, so that nothing in a file is overlooked silently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from higan.checkpoints.types import Network, printable
from higan.errors import CorruptFileError, UnknownFormatError
from higan.weights import misfit

__all__ = [
    "Raw",
    "Rule",
    "check_depth",
    "check_levels",
    "colours",
    "count",
    "flip",
    "from_hwio",
    "load",
    "rename",
    "require",
    "taps_of",
    "transpose",
]

Family = TypeVar("Family", bound=nn.Module)
Config = TypeVar("Config")
Rule = tuple[str, str | None, *tuple[Callable[[Tensor], Tensor], ...]]
"""Pattern of the full name, canonical name with ``{0}`` … for its groups (None drops the tensor), changes of layout."""


class Raw(dict[str, Tensor]):
    """Tensors under canonical names; a missing one is an error of the file."""

    def __missing__(self, name: str) -> Tensor:
        raise CorruptFileError(
            f"the file lacks the tensor known here as {name!r}; it is incomplete or of another family"
        )


def rename(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Raw:
    """Apply the first rule whose pattern matches, to every tensor.

    Raises:
        UnknownFormatError: no rule matches a tensor's name.
    """
    raw = Raw()
    for name, tensor in tensors.items():
        for pattern, target, *change in rules:
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            if target is not None:
                value = tensor.detach().float()
                for function in change:
                    value = function(value)
                raw[target.format(*match.groups())] = value
            break
        else:
            shape = tuple(tensor.shape)
            raise UnknownFormatError(f"the tensor {printable(name)!r}, shape {shape}, has no place in this family")
    return raw


def require(source: Network, expected: Mapping[str, object]) -> dict[str, Any]:
    """The options that a network and its components were trained with.

    Raises:
        UnknownFormatError: an option has another value than the one that is understood.
    """
    options = dict(source.config)
    for component in source.components.values():
        options.update(component.config)
    for option, value in expected.items():
        if options.get(option) not in (None, value):
            raise UnknownFormatError(
                f"{source.name} was trained with {option}={options[option]!r}; only {value!r} is understood"
            )
    return options


def taps_of(tensors: Mapping[str, Tensor], pattern: str) -> tuple[float, ...] | None:
    """The filter whose products with itself are the kernels of these names, so scaled that its ends are 1.

    None where there are no such kernels.

    Raises:
        UnknownFormatError: kernels differ, or are no products of a filter with itself.
    """
    found = {tuple(_taps(kernel)) for name, kernel in tensors.items() if re.fullmatch(pattern, name)}
    if len(found) > 1 or (found and not all(map(math.isfinite, *found))):
        raise UnknownFormatError("the resampling filters of the layers are not all alike, or not separable")
    return next(iter(found), None)


def _taps(kernel: Tensor) -> list[float]:
    """Rounded, since kernels are scaled by what their resolution needs; NaN where they are no filter's square."""
    plane = kernel.detach().double()
    if plane.ndim > 1:
        plane = plane.reshape(-1, *plane.shape[-2:])[0]
        taps = plane.sum(0)
        if not torch.allclose(torch.outer(taps, taps), plane * plane.sum(), rtol=1e-4, atol=1e-6):
            return [math.nan]
    else:
        taps = plane
    return [round(tap, 5) for tap in (taps / taps[0]).tolist()] if len(taps) else [math.nan]


def transpose(x: Tensor) -> Tensor:
    """TensorFlow's dense weights (in, out) to (out, in), and back."""
    return x.t()


def from_hwio(x: Tensor) -> Tensor:
    """TensorFlow's kernels (h, w, in, out) to (out, in, h, w)."""
    return x.permute(3, 2, 0, 1)


def flip(x: Tensor) -> Tensor:
    """Turn a kernel by half a revolution: correlation to convolution, and back."""
    return x.flip(2, 3)


def count(raw: Mapping[str, Tensor], template: str) -> int:
    """How many of ``template.format(0)``, ``template.format(1)``, … are there."""
    number = 0
    while template.format(number) in raw:
        number += 1
    return number


def load(family: Callable[[Config], Family], config: Config, state: Mapping[str, Tensor]) -> Family:
    """Build a network and fill it; every weight must be there and fit.

    Shapes are compared before anything is allocated, so that a damaged file cannot ask for more memory than it fills.

    Raises:
        CorruptFileError: a weight is missing, superfluous or of another shape.
    """
    for name in getattr(config, "__dataclass_fields__", ()):
        value = getattr(config, name)
        if isinstance(value, tuple) and len(value) > len(state):
            raise CorruptFileError(f"the configuration lists {len(value):,} {name} for {len(state):,} tensors")
    wrong = misfit(lambda: family(config), state)
    if wrong:
        raise CorruptFileError(f"the tensors contradict each other: {wrong}")
    network = family(config)
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return network


def check_depth(depth: int) -> int:
    """Refuse files whose mapping network has more layers than any has.

    Raises:
        CorruptFileError: there are more than 64.
    """
    if depth > 64:
        raise CorruptFileError(f"the file has weights for {depth:,} mapping layers; expected at most 64")
    return depth


def colours(rgb: Tensor) -> int:
    """Channels of the picture that these weights make: grey or RGB.

    Raises:
        UnknownFormatError: there are neither one nor three.
    """
    if rgb.shape[0] not in (1, 3):
        raise UnknownFormatError(
            f"the network draws pictures of {rgb.shape[0]} channels; only grey ones and RGB are understood"
        )
    return rgb.shape[0]


def check_levels(levels: int) -> int:
    """Refuse files whose number of resolutions no network has.

    Raises:
        CorruptFileError: there are none, or more than up to 4096 pixels.
    """
    if not 1 <= levels <= 11:
        raise CorruptFileError(f"the file has weights for {levels} resolutions; expected 1–11, from 4 to 4096 pixels")
    return levels
