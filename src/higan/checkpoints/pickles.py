"""A pickle reader that runs nothing: the opcode stream is interpreted here, and names in it are looked up in a table.

Unpickling the usual way imports whatever a file names and calls it with whatever the file says. This reader has no
access to imports at all. A name in the stream (``GLOBAL``, ``STACK_GLOBAL``, ``INST``) is looked up in the table that
the caller passes; a name that is not there is refused on sight, whether or not the stream goes on to call it.
What the table gives back is one of three things:

- a *rebuilder*, a function of this package that turns plain arguments into plain data (an array, a tensor, a dict);
- :data:`RECORD`, which makes the name an inert :class:`Global`, and anything "constructed" from it an inert
  :class:`Instance`;
- a plain value the name stands for, such as a torch dtype.

Work is bounded by a :class:`Budget`: so many opcodes, so many bytes, so much nesting. Protocols 0 to 5 are read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from types import FunctionType
from typing import Any, ClassVar, NoReturn

from higan.errors import CorruptFileError, UnsafePickleError

__all__ = [
    "RECORD",
    "UNFORTUNATE",
    "Budget",
    "Data",
    "Global",
    "Instance",
    "Machine",
    "Named",
    "Rebuilder",
    "Table",
    "describe",
]

Data = Any
"""Whatever a stream can describe: plain Python data, arrays, tensors, inert records."""

MAX_DEPTH = 200
"""Containers within containers; a torch module tree takes about five per level."""
MAX_MARKS = 2 * MAX_DEPTH
MAX_INTEGER_BYTES = 64
MAX_KEY = 2**60
"""Larger integers are refused as keys: they can be chosen so that they all fall into one slot of a dict."""
_PROTOCOLS = range(6)
UNFORTUNATE = (ArithmeticError, IndexError, KeyError, TypeError, ValueError, RuntimeError, struct.error)
"""What Python, NumPy and torch raise when a damaged stream makes no sense; reported as a corrupt file."""


Rebuilder = Callable[..., Any]
"""``(machine, args) -> data``: turns the plain arguments of a call found in the stream into plain data.

May raise ``ValueError`` and its like, reported as a corrupt file, or any ``CheckpointError``.
"""


class _Record:
    """The type of :data:`RECORD`."""


RECORD = _Record()
"""Table entry for a name that may appear but stands for nothing: it stays an inert record."""

Table = Mapping[str, Data]
"""Names that may appear in a stream, as ``"module name"``, and what each of them stands for."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name found in the stream. It was looked up in a table, never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Instance:
    """What the stream calls an object: the name of its class, its arguments and its state, all plain data."""

    cls: Global
    args: tuple[Data, ...] = ()
    state: Data = None


@dataclass(slots=True)
class Budget:
    """What reading one file may cost, in opcodes and in bytes; nested files draw on the same budget."""

    opcodes: int
    bytes: int

    @classmethod
    def for_file(cls, size: int) -> Budget:
        """Ample for every file an honest writer makes of that many bytes."""
        return cls(opcodes=500_000, bytes=6 * size + (16 << 20))

    def take(self, count: int) -> None:
        """Pay for ``count`` bytes before allocating them."""
        self.bytes -= count
        if self.bytes < 0:
            raise CorruptFileError("asks for far more memory than a file of its size has reason to")


@dataclass(slots=True)
class Machine:
    """Interprets one pickle stream.

    Args:
        data: the file.
        table: the names that may appear.
        budget: what reading may cost.
        pos: offset of the stream in ``data``.
        persistent: gives the data behind a persistent id; without it such ids are refused.
        nested: the stream lies inside another one.
    """

    data: bytes | mmap
    table: Table
    budget: Budget
    pos: int = 0
    persistent: Callable[[Data], Data] | None = None
    nested: bool = False
    protocol: int = 0
    _stack: list[Data] = field(default_factory=list)
    _marks: list[list[Data]] = field(default_factory=list)
    _memo: dict[int, Data] = field(default_factory=dict)

    OPCODES: ClassVar[dict[int, Callable[[Machine], None]]] = {}

    def run(self) -> Data:
        """The value that the stream describes; ``pos`` is then just behind the stream.

        Raises:
            UnsafePickleError: the stream asks for something that only running code could give.
            CorruptFileError: the stream is truncated, damaged, or asks for more than it could need.
        """
        try:
            data, size, budget, steps = self.data, len(self.data), self.budget, self.OPCODES
            while True:
                if self.pos >= size:
                    self._corrupt("ends early")
                opcode = data[self.pos]
                self.pos += 1
                budget.opcodes -= 1
                if budget.opcodes < 0:
                    self._corrupt("has more opcodes than any weight file needs")
                if opcode == _STOP:
                    break
                step = steps.get(opcode)
                if step is None:
                    self._corrupt(f"has an unknown opcode {opcode:#04x}")
                step(self)
            if len(self._stack) != 1 or self._marks:
                self._corrupt("does not end with one value")
            value = self._stack.pop()
            check_nesting(value)
        except UNFORTUNATE as error:
            raise CorruptFileError(
                f"makes no sense as a pickle at byte {self.pos} ({error}); the file is damaged: fetch or copy it again"
            ) from error
        return value

    # ---- for rebuilders -------------------------------------------------------------------------------------------

    def refuse(self, what: str) -> NoReturn:
        """Stop because only running code could give what the stream asks for."""
        raise UnsafePickleError(
            f"asks for {what}; no weight file needs that, so it is refused, and nothing in the file was run. If you "
            "trust its maker, ask for a plain state dict or a safetensors file"
        )

    def _corrupt(self, what: str) -> NoReturn:
        raise CorruptFileError(f"{what} (at byte {self.pos}); the file is damaged or was made to do harm")

    # ---- bytes ----------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.pos + count
        if end > len(self.data):
            self._corrupt(f"ends early: {count:,} more bytes were announced, {len(self.data) - self.pos:,} are left")
        chunk = self.data[self.pos : end]
        self.pos = end
        return chunk

    def _payload(self, width: int) -> bytes:
        """A string of bytes whose length is written in front of it."""
        count = int.from_bytes(self._take(width), "little")
        if count > len(self.data) - self.pos:
            self._corrupt(f"announces {count:,} bytes where {len(self.data) - self.pos:,} are left")
        self.budget.take(count)
        return self._take(count)

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            self._corrupt("ends early, in the middle of a line")
        self.budget.take(end - self.pos)
        line = self._take(end - self.pos)
        self.pos += 1
        return line

    # ---- stack ----------------------------------------------------------------------------------------------------

    def push(self, value: Data) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Data:
        """Take the top of the stack."""
        return self._stack.pop()

    def to_mark(self) -> list[Data]:
        """Take everything above the last mark."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def remember(self, key: int) -> None:
        """Store the top of the stack in the memo."""
        value = self._stack[-1]
        self._memo[key] = value
        keys = getattr(value, "memo_keys", None)
        if keys is not None:
            keys.append(key)

    # ---- names and objects ----------------------------------------------------------------------------------------

    def look_up(self, module: Data, name: Data) -> Data:
        """What the table says of a name."""
        if not isinstance(module, str) or not isinstance(name, str):
            self._corrupt("has a name that is not text")
        meaning = self.table.get(f"{module} {name}", _ABSENT)
        if meaning is _ABSENT:
            self.refuse(repr(f"{module}.{name}"[:200]))
        if meaning is RECORD:
            return Global(module, name)
        if isinstance(meaning, FunctionType):
            return Named(Global(module, name), meaning)
        return meaning

    def construct(self, cls: Data, args: Data) -> Data:
        """Stand in for a call: rebuild plain data, or keep an inert record."""
        if not isinstance(args, tuple):
            self._corrupt("calls something with arguments that are not a tuple")
        if isinstance(cls, Named):
            return cls.rebuild(self, args)
        if isinstance(cls, Global):
            return Instance(cls, args)
        return self.refuse(f"a call of {type(cls).__name__!r} data")

    def build(self) -> None:
        """Give the object on top of the stack its state.

        Arrays and dtypes arrive in two steps, a call and a state. Until the second, an object with ``memo_keys`` and
        ``build(machine, state)`` stands for them; it is replaced here, in the memo as well.
        """
        state = self.pop()
        target = self._stack[-1]
        keys = getattr(target, "memo_keys", None)
        if keys is not None:
            value = self._stack[-1] = target.build(self, state)
            for key in keys:
                self._memo[key] = value
            keys.clear()
        elif isinstance(target, Instance):
            if target.state is not None:
                self._corrupt("gives an object its state twice")
            target.state = state
        elif isinstance(target, dict):
            # State dicts carry a `_metadata` attribute, and dict subclasses their own: nothing a network needs.
            if not isinstance(state, dict):
                self._corrupt("gives a dict a state that is not a dict")
        else:
            self.refuse(f"a state for {type(target).__name__!r} data")

    def fill(self, target: Data, items: list[Data]) -> None:
        """Put alternating keys and values into a dict."""
        if type(target) is not dict:
            self.refuse(f"items for {type(target).__name__!r} data")
        if len(items) % 2:
            self._corrupt("has a key without a value")
        keys = items[0::2]
        for key in keys:
            check_key(key)
        target.update(zip(keys, items[1::2], strict=True))

    def extend(self, target: Data, items: list[Data]) -> None:
        """Put items at the end of a list."""
        if type(target) is not list:
            self.refuse(f"list items for {type(target).__name__!r} data")
        target.extend(items)


@dataclass(frozen=True, slots=True)
class Named:
    """A name in the stream together with the rebuilder that answers for it."""

    cls: Global
    rebuild: Rebuilder


_ABSENT = object()
_STOP = ord(".")


def describe(value: Data) -> str:
    """A value in a few words, for messages. Containers are not spelled out: they may be larger than they look."""
    if value is None or isinstance(value, str | bytes | int | float):
        return repr(value if isinstance(value, int | float | None) else value[:60])
    return str(value)[:100] if isinstance(value, Global) else f"{type(value).__name__!r} data"


def check_key(key: Data) -> None:
    """Allow only keys whose hash cannot be made slow or to collide.

    Raises:
        CorruptFileError: the key is a container, an object or a huge number.
    """
    if key is None or isinstance(key, str | bytes | bool | float):
        return
    if isinstance(key, int) and abs(key) < MAX_KEY:
        return
    raise CorruptFileError(f"uses {describe(key)} as a key; expected text or a number of ordinary size")


def children(value: Data) -> list[Data] | tuple[Data, ...]:
    """The values directly inside a container or record."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Instance):
        return [value.args, value.state]
    inside = getattr(value, "items_inside", None)
    return inside if inside is not None else ()


_LEAVES = frozenset((type(None), bool, int, float, str, bytes))


def check_nesting(root: Data) -> None:
    """Refuse values that contain themselves, that are nested too deeply, or that were never finished.

    Walks without recursion and visits shared values once, so that its cost is that of the stream.

    Raises:
        CorruptFileError: the value cannot be walked by an ordinary recursive function.
    """
    heights: dict[int, int] = {}
    stack: list[tuple[Data, bool]] = [(root, False)]
    open_values: set[int] = set()
    while stack:
        value, leaving = stack.pop()
        key = id(value)
        if leaving:
            open_values.discard(key)
            heights[key] = height = 1 + max((heights.get(id(child), 0) for child in children(value)), default=0)
            if height > MAX_DEPTH:
                raise CorruptFileError(f"nests more than {MAX_DEPTH} containers in one another")
            continue
        if key in heights:
            continue
        if key in open_values:
            raise CorruptFileError("describes a container that contains itself")
        if hasattr(value, "memo_keys"):
            raise CorruptFileError("leaves an array unfinished")
        inside = [child for child in children(value) if type(child) not in _LEAVES]
        if inside:
            open_values.add(key)
            stack.append((value, True))
            stack.extend((child, False) for child in inside)
        else:
            heights[key] = 1


# ---- the opcodes -------------------------------------------------------------------------------------------------

Step = Callable[[Machine], None]


def opcode(code: str | int) -> Callable[[Step], Step]:
    """Register what an opcode does."""

    def register(step: Step) -> Step:
        Machine.OPCODES[ord(code) if isinstance(code, str) else code] = step
        return step

    return register


def _simple(code: str | int, value: Callable[[Machine], Data]) -> None:
    opcode(code)(lambda m: m.push(value(m)))


def _number(m: Machine, layout: str) -> Data:
    return struct.unpack(layout, m._take(struct.calcsize(layout)))[0]


def _integer(m: Machine, width: int) -> int:
    count = int.from_bytes(m._take(width), "little")
    if count > MAX_INTEGER_BYTES:
        m._corrupt(f"has an integer of {count:,} bytes")
    return int.from_bytes(m._take(count), "little", signed=True)


def _decimal(m: Machine) -> int | bool:
    line = m._line()
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 2 * MAX_INTEGER_BYTES:
        m._corrupt(f"has an integer of {len(line):,} digits")
    return int(line.removesuffix(b"L"))


def _float_line(m: Machine) -> float:
    return float(m._line())


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)
_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _quoted(m: Machine) -> str:
    """A string as Python 2 printed it; its bytes are taken for Latin-1, as every reader of these files does."""
    line = m._line()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        m._corrupt("has a string without quotes")

    return _ESCAPE.sub(_unescape, line[1:-1]).decode("latin-1")


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    return bytes([int(escape[1:], 16)]) if len(escape) > 1 else _ESCAPES[escape]


def _raw_unicode(m: Machine) -> str:
    text = m._line().decode("raw-unicode-escape")
    text.encode()  # a lone surrogate would fail later, where nobody expects it
    return text


_simple("N", lambda m: None)
_simple("\x88", lambda m: True)
_simple("\x89", lambda m: False)
_simple("I", _decimal)
_simple("L", _decimal)
_simple("J", lambda m: _number(m, "<i"))
_simple("K", lambda m: _number(m, "<B"))
_simple("M", lambda m: _number(m, "<H"))
_simple("\x8a", lambda m: _integer(m, 1))
_simple("\x8b", lambda m: _integer(m, 4))
_simple("F", _float_line)
_simple("G", lambda m: _number(m, ">d"))
_simple("S", _quoted)
_simple("T", lambda m: m._payload(4).decode("latin-1"))
_simple("U", lambda m: m._payload(1).decode("latin-1"))
_simple("B", lambda m: m._payload(4))
_simple("C", lambda m: m._payload(1))
_simple("\x8e", lambda m: m._payload(8))
_simple("\x96", lambda m: m._payload(8))
_simple("V", _raw_unicode)
_simple("X", lambda m: m._payload(4).decode())
_simple("\x8c", lambda m: m._payload(1).decode())
_simple("\x8d", lambda m: m._payload(8).decode())
_simple(")", lambda m: ())
_simple("]", lambda m: [])
_simple("}", lambda m: {})
_simple("\x8f", lambda m: set())
_simple("t", lambda m: tuple(m.to_mark()))
_simple("l", lambda m: m.to_mark())
_simple("\x85", lambda m: (m.pop(),))
_simple("\x86", lambda m: (m.pop(), m.pop())[::-1])
_simple("\x87", lambda m: (m.pop(), m.pop(), m.pop())[::-1])
_simple("g", lambda m: m._memo[_decimal(m)])
_simple("h", lambda m: m._memo[_number(m, "<B")])
_simple("j", lambda m: m._memo[_number(m, "<I")])
_simple("2", lambda m: m._stack[-1])


@opcode("\x80")
def _proto(m: Machine) -> None:
    m.protocol = m._take(1)[0]
    if m.protocol not in _PROTOCOLS:
        m._corrupt(f"claims pickle protocol {m.protocol}; 0 to {_PROTOCOLS[-1]} exist")


@opcode("\x95")
def _frame(m: Machine) -> None:
    size = int.from_bytes(m._take(8), "little")
    if size > len(m.data) - m.pos:
        m._corrupt(f"announces a frame of {size:,} bytes where {len(m.data) - m.pos:,} are left")


@opcode("(")
def _mark(m: Machine) -> None:
    if len(m._marks) > MAX_MARKS:
        m._corrupt("opens more containers than it closes")
    m._marks.append(m._stack)
    m._stack = []


@opcode("0")
def _pop(m: Machine) -> None:
    if m._stack:
        m.pop()
    else:
        m.to_mark()


@opcode("1")
def _pop_mark(m: Machine) -> None:
    m.to_mark()


@opcode("p")
def _put(m: Machine) -> None:
    m.remember(_decimal(m))


@opcode("q")
def _binput(m: Machine) -> None:
    m.remember(_number(m, "<B"))


@opcode("r")
def _long_binput(m: Machine) -> None:
    m.remember(_number(m, "<I"))


@opcode("\x94")
def _memoize(m: Machine) -> None:
    m.remember(len(m._memo))


@opcode("d")
def _dict(m: Machine) -> None:
    items = m.to_mark()
    m.push({})
    m.fill(m._stack[-1], items)


@opcode("a")
def _append(m: Machine) -> None:
    item = m.pop()
    m.extend(m._stack[-1], [item])


@opcode("e")
def _appends(m: Machine) -> None:
    items = m.to_mark()
    m.extend(m._stack[-1], items)


@opcode("s")
def _setitem(m: Machine) -> None:
    value = m.pop()
    key = m.pop()
    m.fill(m._stack[-1], [key, value])


@opcode("u")
def _setitems(m: Machine) -> None:
    items = m.to_mark()
    m.fill(m._stack[-1], items)


def _hashable(items: list[Data]) -> list[Data]:
    for item in items:
        check_key(item)
    return items


@opcode("\x90")
def _additems(m: Machine) -> None:
    items = _hashable(m.to_mark())
    target = m._stack[-1]
    if type(target) is not set:
        m.refuse(f"set items for {type(target).__name__!r} data")
    target.update(items)


@opcode("\x91")
def _frozenset(m: Machine) -> None:
    m.push(frozenset(_hashable(m.to_mark())))


@opcode("c")
def _global(m: Machine) -> None:
    module, name = m._line().decode(), m._line().decode()
    m.push(m.look_up(module, name))


@opcode("\x93")
def _stack_global(m: Machine) -> None:
    name = m.pop()
    m.push(m.look_up(m.pop(), name))


@opcode("R")
def _reduce(m: Machine) -> None:
    args = m.pop()
    m.push(m.construct(m.pop(), args))


@opcode("\x81")
def _newobj(m: Machine) -> None:
    args = m.pop()
    m.push(m.construct(m.pop(), args))


@opcode("\x92")
def _newobj_ex(m: Machine) -> None:
    kwargs = m.pop()
    if type(kwargs) is not dict or kwargs:
        m.refuse("keyword arguments in a call")
    _newobj(m)


@opcode("i")
def _inst(m: Machine) -> None:
    module, name = m._line().decode(), m._line().decode()
    args = tuple(m.to_mark())
    m.push(m.construct(m.look_up(module, name), args))


@opcode("o")
def _obj(m: Machine) -> None:
    cls, *args = m.to_mark()
    m.push(m.construct(cls, tuple(args)))


@opcode("b")
def _build(m: Machine) -> None:
    m.build()


def _persistent(m: Machine, key: Data) -> None:
    if m.persistent is None:
        m.refuse("data stored outside the pickle (a persistent id)")
    m.push(m.persistent(key))


@opcode("P")
def _persid(m: Machine) -> None:
    _persistent(m, m._line().decode())


@opcode("Q")
def _binpersid(m: Machine) -> None:
    _persistent(m, m.pop())


def _refused(code: str, what: str) -> None:
    opcode(code)(lambda m: m.refuse(what))


_refused("\x82", "a name from the extension registry (EXT1)")
_refused("\x83", "a name from the extension registry (EXT2)")
_refused("\x84", "a name from the extension registry (EXT4)")
_refused("\x97", "an out-of-band buffer (NEXT_BUFFER)")
_refused("\x98", "an out-of-band buffer (READONLY_BUFFER)")
