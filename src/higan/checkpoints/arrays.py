"""What the NumPy and plain-Python names in a pickle stand for, as data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from higan.checkpoints.pickles import RECORD, Data, Global, Instance, Machine, Named, Table, describe
from higan.errors import CorruptFileError

__all__ = ["PLAIN", "WITH_OBJECT_ARRAYS", "ObjectArray", "array"]

Array = NDArray[np.generic]
_NUMBER = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")
_TEXT = re.compile(r"[<>|=]?(U[1-9]\d{0,8})")
_ORDERS: dict[str, Literal["<", ">"]] = {"<": "<", ">": ">"}
_OBJECT = re.compile(r"\|?O8?")


@dataclass(slots=True, eq=False)
class ObjectArray:
    """An array of Python objects, as the plain list it is stored as; it never becomes a NumPy object array."""

    shape: tuple[int, ...]
    items_inside: list[Data]


@dataclass(slots=True, eq=False)
class _PendingDtype:
    """``numpy.dtype(code)``, before the byte order arrives."""

    dtype: np.dtype[np.generic] | None
    memo_keys: list[int] = field(default_factory=list)

    def build(self, machine: Machine, state: Data) -> Data:
        _, order, *fields = _tuple(state)[:5]
        if any(part is not None for part in fields):
            machine.refuse("a structured NumPy type")
        if self.dtype is None:
            return OBJECTS
        return self.dtype.newbyteorder(_ORDERS.get(_text(order), "="))


@dataclass(slots=True, eq=False)
class _PendingArray:
    """``numpy.ndarray``, before its shape, type and bytes arrive."""

    memo_keys: list[int] = field(default_factory=list)

    def build(self, machine: Machine, state: Data) -> Data:
        version, shape, dtype, fortran, content = _tuple(state)
        if version != 1:
            raise CorruptFileError(f"has an array of unknown version {describe(version)}")
        if dtype is OBJECTS:
            if not isinstance(content, list) or len(content) != math.prod(_shape(shape)):
                raise CorruptFileError("has an object array whose items do not fit its shape")
            return ObjectArray(_shape(shape), content)
        return array(machine, content, dtype, shape, "F" if fortran is True else "C")


OBJECTS = object()
"""Stands for the dtype of Python objects."""


def array(machine: Machine, content: Data, dtype: Data, shape: Data, order: Data) -> Array:
    """A read-only array over bytes of the stream; its size must be exactly what type and shape ask for."""
    kind, extents, raw = _dtype(machine, dtype), _shape(shape), _bytes(machine, content)
    count = math.prod(extents)
    if count * kind.itemsize != len(raw):
        raise CorruptFileError(f"has an array of shape {extents} and type {kind} in {len(raw):,} bytes")
    machine.budget.take(len(raw))
    if kind.kind == "U":
        raw.decode("utf-32-be" if kind.str[0] == ">" else "utf-32-le")  # NumPy itself would accept anything
    if kind.kind == "b" and raw.strip(b"\0\1"):
        raise CorruptFileError("has truth values that are neither 0 nor 1")
    if count == 0:
        return np.zeros(extents, kind)
    return np.frombuffer(raw, kind).reshape(extents, order="F" if order == "F" else "C")


# ---- reading arguments --------------------------------------------------------------------------------------------


def _tuple(value: Data) -> tuple[Data, ...]:
    if not isinstance(value, tuple):
        raise CorruptFileError(f"has {describe(value)} where a tuple belongs")
    return value


def _text(value: Data) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii")
    if not isinstance(value, str):
        raise CorruptFileError(f"has {describe(value)} where text belongs")
    return value


def _shape(value: Data) -> tuple[int, ...]:
    extents = _tuple(value)
    if len(extents) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in extents):
        raise CorruptFileError("has an array of impossible shape")
    return extents


def _bytes(machine: Machine, value: Data) -> bytes:
    if isinstance(value, str):  # written by Python 2, read as Latin-1
        machine.budget.take(len(value))
        value = value.encode("latin-1")
    if not isinstance(value, bytes):
        raise CorruptFileError(f"has {describe(value)} where bytes belong")
    return value


def _dtype(machine: Machine, value: Data) -> np.dtype[np.generic]:
    if isinstance(value, _PendingDtype) and value.dtype is not None:
        value = value.dtype
    if not isinstance(value, np.dtype):
        machine.refuse("an array of Python objects")
    return value


# ---- what the names stand for -------------------------------------------------------------------------------------


def _numpy_dtype(machine: Machine, args: tuple[Data, ...]) -> Data:
    code = _text(args[0])
    if not (_NUMBER.fullmatch(code) or _TEXT.fullmatch(code)):
        machine.refuse(f"the NumPy type {describe(code)}")
    return _PendingDtype(np.dtype(code))


def _numpy_dtype_or_object(machine: Machine, args: tuple[Data, ...]) -> Data:
    return _PendingDtype(None) if _OBJECT.fullmatch(_text(args[0])) else _numpy_dtype(machine, args)


def _reconstruct(machine: Machine, args: tuple[Data, ...]) -> Data:
    cls, shape, _ = args
    if not (isinstance(cls, Global) and str(cls) == "numpy.ndarray" and shape == (0,)):
        machine.refuse(f"an array of class {describe(cls)}")
    return _PendingArray()


def _scalar(machine: Machine, args: tuple[Data, ...]) -> Data:
    dtype, content = args
    return array(machine, content, dtype, (), "C")[()]


def _frombuffer(machine: Machine, args: tuple[Data, ...]) -> Data:
    content, dtype, shape, order = args
    return array(machine, content, dtype, shape, order)


def _encode(machine: Machine, args: tuple[Data, ...]) -> Data:
    """How protocol 2 spells bytes."""
    text, encoding = args
    if encoding not in ("latin1", "latin-1"):
        machine.refuse(f"the codec {describe(encoding)}")
    return _bytes(machine, _text(text))


def _empty_bytes(machine: Machine, args: tuple[Data, ...]) -> Data:
    """How protocol 2 spells ``b""``."""
    if args:
        machine.refuse("a call of 'bytes' with arguments")
    return b""


def _dict(machine: Machine, args: tuple[Data, ...]) -> Data:
    if not args:
        return {}
    if len(args) > 1:
        raise CorruptFileError("builds a dict from more than one argument")
    made: dict[Data, Data] = {}
    machine.fill(made, _flat(machine, args[0]))
    return made


def _flat(machine: Machine, value: Data) -> list[Data]:
    if not isinstance(value, dict | list):
        raise CorruptFileError(f"builds a dict from {describe(value)}")
    machine.budget.take(128 * len(value))
    pairs: Iterable[Data] = value.items() if isinstance(value, dict) else value
    flat: list[Data] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise CorruptFileError("builds a dict from something that is not a list of pairs")
        flat += pair
    return flat


def _default_dict(machine: Machine, args: tuple[Data, ...]) -> Data:
    return _dict(machine, args[1:])


def _set(machine: Machine, args: tuple[Data, ...]) -> Data:
    made: dict[Data, Data] = {}
    for items in args:
        if not isinstance(items, list | tuple):
            raise CorruptFileError("builds a set from something that is not a list")
        machine.budget.take(128 * len(items))
        machine.fill(made, [part for item in items for part in (item, None)])
    return set(made)


def _reconstructor(machine: Machine, args: tuple[Data, ...]) -> Data:
    """How protocols 0 and 1 spell an object without arguments."""
    cls, base, state = args
    if isinstance(base, Named) and base.rebuild is _dict:
        return _dict(machine, (state,))
    if isinstance(cls, Global) and isinstance(base, Global) and base.name == "object" and state is None:
        return Instance(cls)
    return machine.refuse(f"an object of class {describe(cls)}")


PLAIN: Table = {
    "numpy ndarray": RECORD,
    "numpy dtype": _numpy_dtype,
    **{
        f"numpy.{core}.{name}": rebuild
        for core in ("core", "_core")
        for name, rebuild in {
            "multiarray _reconstruct": _reconstruct,
            "multiarray scalar": _scalar,
            "numeric _frombuffer": _frombuffer,
        }.items()
    },
    "_codecs encode": _encode,
    "collections OrderedDict": _dict,
    "collections Counter": _dict,
    "collections defaultdict": _default_dict,
    "argparse Namespace": RECORD,
    **{
        f"{module} {kind}": Global("pathlib", kind)
        for module in ("pathlib", "pathlib._local")  # As Python 3.13 spells it.
        for kind in ("PosixPath", "WindowsPath")
    },
    **{
        f"{builtins} {name}": meaning
        for builtins in ("builtins", "__builtin__")
        for name, meaning in {
            "object": RECORD,
            "int": RECORD,
            "float": RECORD,
            "list": RECORD,
            "bytes": _empty_bytes,
            "dict": _dict,
            "set": _set,
            "frozenset": _set,
        }.items()
    },
    "dnnlib.util EasyDict": _dict,
    "easydict EasyDict": _dict,
    "copyreg _reconstructor": _reconstructor,
    "copy_reg _reconstructor": _reconstructor,
}
"""Arrays and plain Python data. Names of classes appear as inert records where a stream only mentions them."""

WITH_OBJECT_ARRAYS: Table = {**PLAIN, "numpy dtype": _numpy_dtype_or_object}
"""The same, and arrays of Python objects as :class:`ObjectArray`: what ``numpy.save`` makes of a dict."""
