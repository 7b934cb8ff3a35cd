"""Zip archives as ``torch.save`` writes them: stored, never compressed, and strictly checked.

Only what such archives need is read: one volume, uncompressed entries, no encryption, no overlap. Nothing is ever
written to disk, and still names that would climb out of a folder are refused: an honest writer makes none.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from higan.checkpoints.pickles import Budget
from higan.errors import CorruptFileError, UnknownFormatError, UnsafePickleError

__all__ = ["Entry", "content", "entries"]

MAX_ENTRIES = 100_000
MAX_NAME = 512
_SMALL_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_PATH_TRICK = re.compile(r"(^|/)\.\.?(/|$)|^/|//|\\|^[A-Za-z]:|[\x00-\x1f\x7f]")
_PROGRAM = re.compile(r"^[^/]+/code/.*\.py$")
"""What only TorchScript has."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the bytes of one entry lie in the archive."""

    name: str
    header: int
    size: int
    crc: int


def entries(data: bytes | mmap) -> dict[str, Entry]:
    """Every entry by name.

    Raises:
        CorruptFileError: the archive is truncated, damaged or contradicts itself.
        UnknownFormatError: the archive is TorchScript.
        UnsafePickleError: the archive has compressed, encrypted or overlapping entries or names that climb.
    """
    try:
        return _entries(data)
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptFileError(f"is a damaged zip archive ({error}); fetch or copy it again") from error


def _entries(data: bytes | mmap) -> dict[str, Entry]:
    count, size, start = _directory(data)
    if count > MAX_ENTRIES or size > count * (_CENTRAL.size + 2 * MAX_NAME) or start + size > len(data):
        raise CorruptFileError(f"is a zip archive that claims {count:,} entries in a directory of {size:,} bytes")
    found: dict[str, Entry] = {}
    pos = start
    for _ in range(count):
        entry, pos = _central(data, pos)
        if entry.name in found:
            raise UnsafePickleError(f"has two zip entries called {entry.name!r}; a weight file has one of each")
        if not entry.name.endswith("/"):
            found[entry.name] = entry
    if pos != start + size:
        raise CorruptFileError("is a zip archive whose directory has another size than it says")
    end = 0
    for entry in sorted(found.values(), key=lambda entry: entry.header):
        if entry.header < end:
            raise UnsafePickleError(f"has a zip entry {entry.name!r} that overlaps another: a zip bomb")
        end = _data_start(data, entry) + entry.size
        if end > start:
            raise CorruptFileError(f"ends early: zip entry {entry.name!r} reaches beyond the archive's content")
    return found


def content(data: bytes | mmap, entry: Entry, budget: Budget) -> bytes:
    """The bytes of an entry.

    Raises:
        CorruptFileError: they do not have the checksum that the archive gives.
    """
    budget.take(entry.size)
    start = _data_start(data, entry)
    found = data[start : start + entry.size]
    if zlib.crc32(found) != entry.crc:
        raise CorruptFileError(f"is damaged: zip entry {entry.name!r} has another checksum; fetch or copy it again")
    return found


def _directory(data: bytes | mmap) -> tuple[int, int, int]:
    """Number of entries, size and offset of the central directory."""
    end = data.rfind(b"PK\5\6", max(0, len(data) - _SMALL_END.size - 0xFFFF))
    if end < 0:
        raise CorruptFileError("is a zip archive without an end: it is truncated; fetch or copy it again")
    _, disk, first, here, count, size, start, _ = _SMALL_END.unpack_from(data, end)
    locator = end - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        _, _, large, _ = _LOCATOR.unpack_from(data, locator)
        if large > locator:
            raise CorruptFileError("is a zip archive whose end points outside of it")
        magic, _, _, _, disk, first, here, count, size, start = _LARGE_END.unpack_from(data, large)
        if magic != b"PK\6\6":
            raise CorruptFileError("is a zip archive whose end is damaged")
    if disk or first or here != count:
        raise CorruptFileError("is one volume of several zip volumes; expected a single file")
    return count, size, start


def _central(data: bytes | mmap, pos: int) -> tuple[Entry, int]:
    """One entry of the central directory, and where the next one starts."""
    fields = _CENTRAL.unpack_from(data, pos)
    magic, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, _, _, _, header = fields
    if magic != b"PK\1\2":
        raise CorruptFileError("is a zip archive whose directory is damaged")
    pos += _CENTRAL.size
    if n_name > MAX_NAME:
        raise UnsafePickleError(f"has a zip entry with a name of {n_name:,} bytes")
    name = data[pos : pos + n_name].decode()
    extra = data[pos + n_name : pos + n_name + n_extra]
    if _PATH_TRICK.search(name):
        raise UnsafePickleError(f"has a zip entry called {name!r}, a name that climbs out of its folder; refused")
    if _PROGRAM.search(name):
        raise UnknownFormatError(
            "is TorchScript, a program, which is not run to open a generator. Of a family known here, save the weights "
            "alone: torch.save(net.state_dict(), FILE); wrap any other network in Python: "
            "higan.generators.module.from_module"
        )
    wide = _wide(extra)
    size, packed, header = (next(wide, -1) if value == 0xFFFFFFFF else value for value in (size, packed, header))
    if flags & 1 or method or packed != size:
        raise UnsafePickleError(
            f"has a compressed or encrypted zip entry {name!r}; torch.save never makes one, and it may be a zip bomb"
        )
    if min(size, header) < 0 or header + size > len(data):
        raise CorruptFileError(f"ends early: zip entry {name!r} lies outside the file")
    return Entry(name, header, size, crc), pos + n_name + n_extra + n_comment


def _wide(extra: bytes) -> Iterator[int]:
    """The 64-bit values of an entry whose ordinary fields were too narrow."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        if kind == 1:
            return iter(struct.unpack_from(f"<{size // 8}Q", extra, 4))
        extra = extra[4 + size :]
    return iter(())


def _data_start(data: bytes | mmap, entry: Entry) -> int:
    magic, *_, n_name, n_extra = _LOCAL.unpack_from(data, entry.header)
    if magic != b"PK\3\4":
        raise CorruptFileError(f"is a damaged zip archive at entry {entry.name!r}")
    return entry.header + _LOCAL.size + n_name + n_extra
