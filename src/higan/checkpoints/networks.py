"""From the inert data of a pickle stream to named networks, each a flat dict of tensors with its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from higan.checkpoints.pickles import Data, Global, Instance, Named, describe
from higan.checkpoints.types import Network
from higan.errors import CorruptFileError, UnknownFormatError

__all__ = ["TF_NETWORKS", "Converter", "is_module", "is_persistent", "is_tf_network"]

TF_NETWORKS = ("tfutil.Network", "dnnlib.tflib.network.Network", "dnnlib.tflib.Network")
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
TF_VERSIONS = range(2, 6)
_COST = 10
"""What a network or module counts for, beside its tensors."""
_SETTINGS = (bool, int, float, str, list, tuple)
MAX_TEXT = 1000
"""Characters of a name or a setting."""
MAX_NAMES = 400_000
"""Tensor names over all networks and their parts; shared parts could otherwise be listed without end."""


def is_tf_network(value: Data) -> bool:
    """Whether this is a network of NVIDIA's TensorFlow pickles."""
    return isinstance(value, Instance) and str(value.cls) in TF_NETWORKS


def is_persistent(value: Data) -> bool:
    """Whether this is one of NVIDIA's torch modules, which carry their source code."""
    return isinstance(value, Instance) and str(value.cls) == PERSISTENT


def is_module(value: Data) -> bool:
    """Whether this is a torch module: one of NVIDIA's that carry their source code, or a stock layer."""
    return is_persistent(value) or (isinstance(value, Instance) and value.cls.module.startswith("torch.nn."))


class Converter:
    """Turns the networks of one file into plain ones; keeps count, so that no file can make it work without end."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        """SHA-256 of the source code that a network carries, by the network's name. The code is not run."""
        self._names_left = MAX_NAMES
        self._tensors: dict[int, tuple[Data, Tensor]] = {}
        self._digests: dict[int, str] = {}

    # ---- TensorFlow -----------------------------------------------------------------------------------------------

    def tf_network(self, name: str, value: Instance) -> Network:
        """A network of NVIDIA's TensorFlow pickles, with its components.

        Raises:
            UnknownFormatError: the network is of a version that is not known here.
            CorruptFileError: the network lacks a part.
        """
        self._count(_COST)
        state = self._dict(value.state, f"network {name}")
        if state.get("version") not in TF_VERSIONS:
            raise UnknownFormatError(f"holds a TensorFlow network of unknown version; expected {list(TF_VERSIONS)}")
        self._note_source(name, state.get("build_module_src"))
        components = {
            str(key): self.tf_network(f"{name}/{key}", part)
            for key, part in self._dict(state.get("components", {}), "components").items()
            if is_tf_network(part)
        }
        tensors = self._listed(components, "/")
        for variable in self._list(state.get("variables"), f"the variables of network {name}"):
            key, content = variable
            tensors[_text(key)] = self.tensor(content)
        config = self.plain(self._dict(state.get("static_kwargs"), "static_kwargs"))
        return Network(name, _text(state.get("build_func_name")), config, tensors, components)

    # ---- torch ----------------------------------------------------------------------------------------------------

    def module(self, name: str, value: Instance) -> Network:
        """A torch module with its sub-modules, its tensors named as in a state dict.

        The configuration is made of the plain attributes of the module and, above them, of the keyword arguments it
        was constructed with; positional ones come as ``_init_args``.

        Raises:
            CorruptFileError: the module lacks a part.
        """
        self._count(_COST)
        class_name, state = str(value.cls), value.state
        if class_name == PERSISTENT:
            meta = self._dict(value.args[0], "a module's description")
            class_name, state = _text(meta.get("class_name")), meta.get("state")
            self._note_source(name, meta.get("module_src"))
        state = self._dict(state, f"the state of module {name}")
        parts = {
            _text(key): self.module(f"{name}.{key}", part)
            for key, part in self._dict(state.get("_modules", {}), "_modules").items()
            if is_module(part)
        }
        unsaved = state.get("_non_persistent_buffers_set")
        transient = unsaved if isinstance(unsaved, set) else set()
        tensors = {}
        for kind in ("_parameters", "_buffers"):
            for key, content in self._dict(state.get(kind, {}), kind).items():
                if content is not None and not (kind == "_buffers" and key in transient):
                    tensors[_text(key)] = self.tensor(content)
        tensors |= self._listed(parts, ".")
        return Network(name, class_name, self._module_config(state), tensors, parts)

    def state_dicts(self, value: Data, name: str = "model", depth: int = 3) -> Iterator[Network]:
        """Every state dict in nested dicts; those of optimisers are left out."""
        if is_module(value):
            yield self.module(name, value)
        if not isinstance(value, dict) or "optim" in name or "param_groups" in value:
            return
        self._count(len(value))
        found = False
        for key, inner in value.items() if depth else ():
            if isinstance(key, str) and (isinstance(inner, dict) or is_module(inner)):
                for network in self.state_dicts(inner, key, depth - 1):
                    found = True
                    yield network
        tensors = {
            key: self.tensor(inner)
            for key, inner in value.items()
            if isinstance(key, str) and isinstance(inner, Tensor | np.ndarray)
        }
        if tensors and not found:
            yield Network(name, "", {}, tensors)

    # ---- parts ----------------------------------------------------------------------------------------------------

    def tensor(self, value: Data) -> Tensor:
        """A writable tensor of the file's own type; the same tensor for the same array.

        Raises:
            CorruptFileError: the value is not an array of numbers.
        """
        if isinstance(value, Tensor):
            return value
        if id(value) not in self._tensors:
            if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
                made = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
            elif type(value) in (bool, int, float):
                made = torch.tensor(float(value))
            else:
                raise CorruptFileError(f"holds {describe(value)} where an array of numbers belongs")
            self._tensors[id(value)] = (value, made)  # keeps the value, so that its id stays its own
        return self._tensors[id(value)][1]

    def plain(self, value: Data, depth: int = 8) -> Any:
        """Configuration as JSON could hold it: arrays become lists, names and objects become text."""
        self._count(1)
        if depth and isinstance(value, dict):
            return {str(key)[:MAX_TEXT]: self.plain(inner, depth - 1) for key, inner in value.items()}
        if depth and isinstance(value, list | tuple):
            return [self.plain(inner, depth - 1) for inner in value]
        if isinstance(value, np.ndarray | np.generic) and value.size <= 1024:
            self._count(value.size)
            return value.tolist()
        if isinstance(value, set | frozenset):
            return sorted(str(key)[:MAX_TEXT] for key in self._list(tuple(value), "a set"))
        return value if value is None or isinstance(value, bool | int | float) else _in_words(value)

    def _module_config(self, state: Mapping[Data, Data]) -> dict[str, Any]:
        attributes = {
            key: inner
            for key, inner in state.items()
            if isinstance(key, str)
            and not key.startswith("_")
            and isinstance(inner, bool | int | float | str | list | tuple)
        }
        kwargs = self._dict(state.get("_init_kwargs", {}), "_init_kwargs")
        args = {"_init_args": state["_init_args"]} if state.get("_init_args") else {}
        config: dict[str, Any] = self.plain(attributes | args | kwargs)
        return config

    def _listed(self, parts: Mapping[str, Network], separator: str) -> dict[str, Tensor]:
        self._count(sum(len(part.tensors) for part in parts.values()))
        return {f"{name}{separator}{key}": t for name, part in parts.items() for key, t in part.tensors.items()}

    def _note_source(self, name: str, source: Data) -> None:
        if isinstance(source, str):
            if id(source) not in self._digests:
                self._digests[id(source)] = hashlib.sha256(source.encode()).hexdigest()
            self.sources[name] = self._digests[id(source)]

    def _dict(self, value: Data, what: str) -> dict[Data, Data]:
        """A dict that is about to be walked; the walk counts."""
        if not isinstance(value, dict):
            raise CorruptFileError(f"holds {describe(value)} for {what}; expected a dict")
        self._count(len(value))
        return value

    def _list(self, value: Data, what: str) -> list[Data] | tuple[Data, ...]:
        """A list that is about to be walked; the walk counts."""
        if not isinstance(value, list | tuple):
            raise CorruptFileError(f"holds {describe(value)} for {what}; expected a list")
        self._count(len(value))
        return value

    def _count(self, names: int) -> None:
        self._names_left -= 1 + names
        if self._names_left < 0:
            raise CorruptFileError("lists more tensors and settings than any network has; it was made to do harm")


def _in_words(value: Data) -> str:
    if isinstance(value, Named | Instance):
        value = value.cls
    return str(value)[:MAX_TEXT] if isinstance(value, str | Global | torch.dtype) else f"<{type(value).__name__}>"


def _text(value: Data) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise CorruptFileError(f"holds {describe(value)} where a name belongs")
    return value
