"""Files written by ``torch.save``, zip archives and the older form alike, read without unpickling.

Both hold a pickle stream that describes the structure and names storages by persistent ids, and the storages' bytes
apart from it. Tensors are views into storages; every view is checked against the bytes that are really there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from mmap import mmap

import torch
from torch import Tensor

from higan.checkpoints import archive
from higan.checkpoints.arrays import PLAIN
from higan.checkpoints.pickles import RECORD, Budget, Data, Global, Machine, Named, Table, describe
from higan.errors import CorruptFileError, UnknownFormatError

__all__ = ["TORCH", "is_legacy", "read_legacy", "read_zip"]

MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_STARTS = tuple(
    b"\x80" + bytes([protocol]) + frame + b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
    for protocol, frame in ((2, b""), (3, b""), (4, b"\x95" + (13).to_bytes(8, "little")))
)
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


@dataclass(slots=True, eq=False)
class _Storage:
    """A storage: one-dimensional data of one type, filled now or (in the older form) at the end of the file."""

    data: Tensor


def is_legacy(start: bytes) -> bool:
    """Whether a file with these first bytes is in the form that ``torch.save`` wrote before version 1.6."""
    return start.startswith(_LEGACY_STARTS)


def read_zip(data: bytes | mmap, budget: Budget) -> tuple[Data, dict[str, str]]:
    """The object in a zip archive written by ``torch.save``, and what the archive says of itself.

    Raises:
        UnknownFormatError: the archive was not written by ``torch.save``.
        UnsafePickleError: its pickle stream asks for something that only running code could give.
        CorruptFileError: the archive or the stream is truncated, damaged or contradicts itself.
    """
    entries = archive.entries(data)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UnknownFormatError(
            "is a zip archive, but not one that torch.save wrote (it has no data.pkl); expected a weight file"
        )
    records = {name.removeprefix(f"{roots[0]}/"): entry for name, entry in entries.items()}
    storages = _ZipStorages(data, records, budget)
    order, version = storages.text("byteorder"), storages.text("version")
    if order not in ("", sys.byteorder):
        raise UnknownFormatError(
            f"was written in {order}-endian order; save it again on a {sys.byteorder}-endian machine"
        )
    stream = archive.content(data, records["data.pkl"], budget)
    machine = Machine(stream, TORCH, budget, persistent=storages)
    value = machine.run()
    return value, {"archive version": version, "pickle protocol": str(machine.protocol)}


def read_legacy(data: bytes | mmap, budget: Budget, *, nested: bool = False) -> tuple[Data, dict[str, str]]:
    """The object in a file of the form that ``torch.save`` wrote before version 1.6 (and still writes on request).

    Raises:
        UnsafePickleError: one of its pickle streams asks for something that only running code could give.
        CorruptFileError: the file is truncated, damaged or contradicts itself.
    """
    head, pos = [], 0
    for _ in range(3):
        machine = Machine(data, PLAIN, budget, pos=pos, nested=nested)
        head.append(machine.run())
        pos = machine.pos
    magic, version, info = head
    if magic != MAGIC or version != 1001 or not isinstance(info, dict):
        raise UnknownFormatError(f"is a torch file of unknown version {describe(version)}; expected 1001")
    if info.get("little_endian") is not (sys.byteorder == "little"):
        raise UnknownFormatError(
            f"was written in another byte order; save it again on a {sys.byteorder}-endian machine"
        )
    storages = _LegacyStorages(budget, room=len(data) - pos)
    machine = Machine(data, TORCH, budget, pos=pos, persistent=storages, nested=nested)
    value = machine.run()
    machine = Machine(data, PLAIN, budget, pos=machine.pos, nested=nested)
    storages.fill(machine.run(), data, machine.pos)
    return value, {"pickle protocol": "legacy torch"}


@dataclass(slots=True)
class _ZipStorages:
    """Gives the storage behind a persistent id, from the archive's entries."""

    data: bytes | mmap
    records: Mapping[str, archive.Entry]
    budget: Budget
    found: dict[str, _Storage] = field(default_factory=dict)

    def __call__(self, key: Data) -> _Storage:
        dtype, name, count, view = _parse_id(key)
        record = self.records.get(f"data/{name}")
        if view is not None or record is None:
            raise CorruptFileError(f"refers to a storage {name[:50]!r} that is not in the archive")
        if name not in self.found:
            self.found[name] = _Storage(_tensor(archive.content(self.data, record, self.budget), dtype))
        storage = self.found[name]
        if storage.data.dtype != dtype:
            storage = _Storage(_tensor(archive.content(self.data, record, self.budget), dtype))
        if len(storage.data) < count:
            raise CorruptFileError(f"announces {count:,} numbers in storage {name[:50]!r}, which has fewer")
        return storage

    def text(self, name: str) -> str:
        """A short record about the archive itself; empty where there is none."""
        raw = archive.content(self.data, self.records[name], self.budget) if name in self.records else b""
        return raw[:100].decode("ascii", "replace").strip()


@dataclass(slots=True)
class _LegacyStorages:
    """Gives empty storages for persistent ids; their bytes come at the end of the file.

    Classes of modules have such ids as well, with their source code, which is dropped.
    """

    budget: Budget
    room: int
    found: dict[str, _Storage] = field(default_factory=dict)

    def __call__(self, key: Data) -> Data:
        if isinstance(key, tuple) and len(key) == 4 and key[0] == "module" and isinstance(key[1], Named | Global):
            return key[1]
        dtype, name, count, view = _parse_id(key)
        if name not in self.found:
            size = count * dtype.itemsize
            self.room -= size
            if self.room < 0:
                raise CorruptFileError(f"announces a storage of {size:,} bytes, more than are left in the file")
            self.budget.take(size)
            self.found[name] = _Storage(torch.zeros(count, dtype=dtype))
        storage = self.found[name]
        if storage.data.dtype != dtype or len(storage.data) != count:
            raise CorruptFileError(f"describes storage {name[:50]!r} in two ways")
        return storage if view is None else _view(storage, view)

    def fill(self, names: Data, data: bytes | mmap, pos: int) -> None:
        """Read the bytes of the storages in the order of ``names``."""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CorruptFileError("has no list of storages")
        if set(names) != set(self.found) or len(names) != len(self.found):
            raise CorruptFileError("lists other storages than its tensors refer to")
        for name in names:
            target = self.found[name].data
            count, pos = int.from_bytes(data[pos : pos + 8], "little"), pos + 8
            if count != len(target) or pos + target.nbytes > len(data):
                raise CorruptFileError(f"ends early or contradicts itself in storage {name[:50]!r}")
            if count:
                target.copy_(_tensor(data[pos : pos + target.nbytes], target.dtype))
            pos += target.nbytes


# ---- storages and tensors -----------------------------------------------------------------------------------------


def _parse_id(key: Data) -> tuple[torch.dtype, str, int, Data]:
    """Type, name, number of elements and view of the storage that a persistent id names."""
    if isinstance(key, tuple) and len(key) in (5, 6):
        kind, cls, name, _location, count, *view = key
        known = isinstance(cls, _StorageClass) and kind == "storage" and isinstance(name, str)
        if known and type(count) is int and 0 <= count < 2**48:
            return cls.dtype, name, count, view[0] if view else None
    raise CorruptFileError("has a persistent id that no torch file has")


@dataclass(frozen=True, slots=True)
class _StorageClass:
    """Stands for ``torch.FloatStorage`` and the like."""

    dtype: torch.dtype


def _tensor(content: bytes, dtype: torch.dtype) -> Tensor:
    """A fresh one-dimensional tensor of these bytes."""
    if len(content) % dtype.itemsize:
        raise CorruptFileError(f"has a storage of {len(content):,} bytes, not a whole number of {dtype}")
    if not content:
        return torch.zeros(0, dtype=dtype)
    raw = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return raw != 0 if dtype == torch.bool else raw.view(dtype)


def _view(storage: _Storage, view: Data) -> _Storage:
    _, offset, count = view
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count <= len(storage.data):
        raise CorruptFileError("has a view that reaches outside its storage")
    return _Storage(storage.data[offset : offset + count])


def _rebuild_tensor(machine: Machine, args: tuple[Data, ...]) -> Data:
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, _Storage):
        raise CorruptFileError(f"has a tensor over {describe(storage)}; expected a storage")
    if not (type(offset) is int and isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
        raise CorruptFileError("has a tensor without a proper size and stride")
    if len(size) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise CorruptFileError("has a tensor of impossible size")
    count = 1
    for extent in size:
        count *= extent
    if count == 0:
        return torch.zeros(size, dtype=storage.data.dtype)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if last >= len(storage.data):
        raise CorruptFileError(f"has a tensor that reaches to element {last:,} of {len(storage.data):,}")
    machine.budget.take(count * storage.data.itemsize)  # what copying it costs: strides of 0 make it larger than life
    return storage.data.as_strided(size, stride, offset)


def _rebuild_parameter(machine: Machine, args: tuple[Data, ...]) -> Data:
    if not isinstance(args[0], Tensor):
        raise CorruptFileError(f"has a parameter of {describe(args[0])}; expected a tensor")
    return args[0]


def _rebuild_from_type(machine: Machine, args: tuple[Data, ...]) -> Data:
    """A tensor or parameter that carries Python attributes, which are dropped."""
    rebuild, cls, inner, _attributes = args
    if isinstance(rebuild, Named) and isinstance(cls, Global) and isinstance(inner, tuple):
        return rebuild.rebuild(machine, inner)
    raise CorruptFileError("has a tensor of unknown class")


def _load_from_bytes(machine: Machine, args: tuple[Data, ...]) -> Data:
    """A storage (or tensor) as a torch file within the stream."""
    (content,) = args
    if machine.nested:
        machine.refuse("a torch file within a torch file within a pickle")
    if not isinstance(content, bytes) or not is_legacy(content):
        raise CorruptFileError("has something else where a torch file was announced")
    return read_legacy(content, machine.budget, nested=True)[0]


def _size(machine: Machine, args: tuple[Data, ...]) -> Data:
    (extents,) = args
    if not isinstance(extents, tuple | list) or len(extents) > 32:
        raise CorruptFileError("has a torch.Size that is not a short tuple")
    return tuple(extents)


def _device(machine: Machine, args: tuple[Data, ...]) -> Data:
    return ":".join(describe(part) for part in args[:2])


_MODULES = {
    "activation": "ReLU LeakyReLU PReLU ELU GELU SiLU Sigmoid Tanh Softmax Softplus Hardswish",
    "batchnorm": "BatchNorm1d BatchNorm2d SyncBatchNorm",
    "container": "Sequential ModuleList ModuleDict ParameterList ParameterDict",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d",
    "dropout": "Dropout Dropout2d",
    "flatten": "Flatten Unflatten",
    "instancenorm": "InstanceNorm1d InstanceNorm2d",
    "linear": "Identity Linear",
    "normalization": "GroupNorm LayerNorm",
    "padding": "ReflectionPad2d ReplicationPad2d ZeroPad2d ConstantPad2d",
    "pixelshuffle": "PixelShuffle PixelUnshuffle",
    "pooling": "AvgPool2d MaxPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d",
    "sparse": "Embedding",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}

TORCH: Table = {
    **PLAIN,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch._utils _rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor _rebuild_from_type_v2": _rebuild_from_type,
    "torch.storage _load_from_bytes": _load_from_bytes,
    "torch Size": _size,
    "torch device": _device,
    "torch Tensor": RECORD,
    "torch.nn.parameter Parameter": RECORD,
    **{f"torch {name}": _StorageClass(dtype) for name, dtype in _DTYPES.items()},
    "torch.storage UntypedStorage": _StorageClass(torch.uint8),
    **{f"torch {str(dtype).removeprefix('torch.')}": dtype for dtype in _DTYPES.values()},
    **{f"torch.nn.modules.{file} {name}": RECORD for file, names in _MODULES.items() for name in names.split()},
    "torch_utils.persistence _reconstruct_persistent_obj": RECORD,
}
"""Plain data, tensors, and what whole modules are made of, as inert records: stock layers and NVIDIA's networks."""
