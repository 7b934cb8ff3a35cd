"""NumPy's ``.npy`` files, those that hold a pickled dict included, read and written without pickle."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from mmap import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from higan.checkpoints.arrays import WITH_OBJECT_ARRAYS, ObjectArray
from higan.checkpoints.files import opened
from higan.checkpoints.pickles import Budget, Data, Machine
from higan.errors import CorruptFileError, UnknownFormatError
from higan.files import replacing, write_whole

__all__ = ["read", "write", "write_dict"]

Array = NDArray[np.generic]
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']{1,16})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\dL, ]{0,400})\),? ?\}\s*"
)
_NUMBER = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
_MAX_HEADER = 1 << 16


def read(path: str | Path) -> Array | dict[Data, Data]:
    """The array in an ``.npy`` file; or the dict, where somebody saved one (a pickled 0-d object array).

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: it is no ``.npy`` file, or one of a kind that is not read here.
        UnsafePickleError: it asks for something that only running code could give.
        CorruptFileError: it is truncated, damaged or contradicts itself.
    """
    with opened(Path(path)) as data:
        return _read(data)


def _read(data: mmap) -> Array | dict[Data, Data]:
    if data[:6] != b"\x93NUMPY" or data[6] not in (1, 2, 3):
        raise UnknownFormatError("is not an .npy file of NumPy")
    width = 2 if data[6] == 1 else 4
    size = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + size
    header = data[8 + width : start].decode("latin-1") if size <= _MAX_HEADER else ""
    match = _HEADER.fullmatch(header)
    if match is None:
        raise CorruptFileError("has a damaged .npy header")
    shape = tuple(int(part.strip().removesuffix("L")) for part in match["shape"].split(",") if part.strip())
    if match["descr"] in ("|O", "O"):
        return _object(data, start)
    if not _NUMBER.fullmatch(match["descr"]):
        raise UnknownFormatError(f"is an .npy file of type {match['descr']!r}; expected numbers or a dict")
    kind = np.dtype(match["descr"])
    if math.prod(shape) * kind.itemsize != len(data) - start:
        raise CorruptFileError(f"is truncated or damaged: its header announces shape {shape} of type {kind}")
    flat = np.frombuffer(bytearray(data[start:]), kind) if len(data) > start else np.zeros(0, kind)
    return flat.reshape(shape, order="F" if match["fortran"] == "True" else "C")


def _object(data: mmap, start: int) -> dict[Data, Data]:
    value = Machine(data, WITH_OBJECT_ARRAYS, Budget.for_file(len(data)), pos=start).run()
    if isinstance(value, ObjectArray) and value.shape == () and isinstance(value.items_inside[0], dict):
        return value.items_inside[0]
    raise UnknownFormatError("is an .npy file of Python objects other than one dict")


def write(path: str | Path, array: Array) -> None:
    """Write an array of numbers; the file appears whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def write_dict(path: str | Path, content: Mapping[str, Data]) -> None:
    """Write a dict of text, numbers, dicts and arrays as ``numpy.save`` would, for readers as old as NumPy 1.14.

    The stream is spelt out here: ``numpy.save`` of NumPy 2 names a module that NumPy before 1.26 does not have.

    Raises:
        ValueError: the dict holds something else.
    """
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    padded = header + b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    body = _array_opcodes((), "O8", "|", 63, b"](" + _opcodes(content) + b"e")
    write_whole(path, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + b"\x80\x03" + body + b".")


def _opcodes(value: Data) -> bytes:
    """Pickle opcodes (protocol 3) for plain data."""
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if type(value) is int and -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(inner) for key, inner in value.items()) + b"u"
    if isinstance(value, np.ndarray) and _NUMBER.fullmatch(value.dtype.str):
        raw = np.ascontiguousarray(value).tobytes()
        if len(raw) >= 2**32:
            raise ValueError(f"an array of {len(raw):,} bytes is too large for such a file; write it as plain .npy")
        content = b"B" + struct.pack("<I", len(raw)) + raw
        return _array_opcodes(value.shape, value.dtype.str[1:], value.dtype.str[0], 0, content)
    raise ValueError(f"expected text, numbers, dicts and arrays of numbers; got {type(value).__name__!r}")


def _array_opcodes(shape: tuple[int, ...], code: str, order: str, flags: int, content: bytes) -> bytes:
    extents = b"(" + b"".join(map(_opcodes, shape)) + b"t"
    nothing = b"J" + struct.pack("<i", -1)
    state = b"(K\x03" + _opcodes(order) + b"NNN" + 2 * nothing + b"K" + bytes([flags]) + b"t"
    dtype = b"cnumpy\ndtype\n" + _opcodes(code) + b"K\x00K\x01\x87R" + state + b"b"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return made + b"(K\x01" + extents + dtype + b"\x89" + content + b"tb"
