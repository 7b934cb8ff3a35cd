"""Files made to do harm, by name. Run as a script, reads them all in little memory and says what became of each."""

from __future__ import annotations

import codecs
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save

from checkpoint_files import call, persistent_pickle, proto, state_dict, text, tf_pickle, torch_file
from higan.errors import CheckpointError

CANARY = "HIGAN_CANARY"
"""An environment variable that every file with a payload tries to set."""
PAYLOAD = f"__import__('os').environ.__setitem__('{CANARY}', 'dead')"

NETWORK = b"cdnnlib.tflib.network\nNetwork\n)\x81"
PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
NOTHING = b"J\xff\xff\xff\xff"


class Evil:
    """Pickles as a call."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def binary(size: int, content: bytes = b"") -> bytes:
    """BINBYTES8 that announces ``size`` bytes."""
    return b"\x8e" + struct.pack("<Q", size) + content


def dtype(code: str, flags: bytes = b"K\x00") -> bytes:
    return (
        call("numpy", "dtype", text(code), b"K\x00K\x01") + b"(K\x03" + text("<") + b"NNN" + NOTHING * 2 + flags + b"tb"
    )


def array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    head = call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"(K\x00t", b"C\x01b")
    return head + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


def long(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def legacy(obj: bytes, keys: bytes = b"\x80\x02].", rest: bytes = b"") -> bytes:
    """A torch file of the older form around a pickle stream."""
    start = torch_file({}, zipped=False)
    head = start[: start.rindex(b"\x80\x02}q\x00.")]
    return head + b"\x80\x02" + obj + b"." + keys + rest


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + long(count) + b"NtQ"


def tensor(store: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def tuple_(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(long, values)) + b"t"

    hooks = call("collections", "OrderedDict")
    return call("torch._utils", "_rebuild_tensor_v2", store, long(offset), tuple_(size), tuple_(stride), b"\x89", hooks)


def in_zip(stream: bytes, **storages: bytes) -> bytes:
    return zip_of({"a/data.pkl": stream, **{f"a/data/{key}": value for key, value in storages.items()}})


def zip_of(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def zip_with_name(name: bytes) -> bytes:
    """Python's own writer would tidy some of these names up."""
    content = zip_of({"a/data.pkl": proto(b"}"), "X" * len(name): b"x"})
    return content.replace(b"X" * len(name), name)


def zip_duplicates() -> bytes:
    content = zip_of({"a/data.pkl": proto(b"}"), "a/data.pkx": proto(b"]")})
    return content.replace(b"a/data.pkx", b"a/data.pkl")


def zip_overlap() -> bytes:
    """Every directory entry points at the same bytes: quadratic in what it unpacks to."""
    body = b"\0" * 4096
    local = (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), 8, 0) + b"a/data/0"
    )
    directory = b""
    for index in range(1000):
        name = b"a/data.pkl" if index == 0 else f"a/data/{index:04}".encode()
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), len(name), 0, 0, 0, 0, 0, 0) + name  # fmt: skip
    start = len(local) + len(body)
    return local + body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(directory), start, 0)


def zip_claims(count: int, size: int) -> bytes:
    return zip_of({"a/data.pkl": proto(b"}")})[:-22] + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, 0, 0
    )


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def nested(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    return proto(opening * depth + closing * depth)


def doubling(depth: int, leaf: bytes = b"]") -> bytes:
    """A value that holds the one before twice, ``depth`` times over: tiny in the file, endless when spelt out."""
    body = leaf + b"\x94"
    for level in range(depth):
        body += b"j" + struct.pack("<I", level) + b"\x86\x94"
    return body


def module_doubling(depth: int) -> bytes:
    """A torch module whose two children are one, which has two children that are one …"""

    def module(children: bytes) -> bytes:
        state = b"}" + text("_parameters") + b"}s" + text("_buffers") + b"}s" + text("_modules") + children + b"s"
        return PERSISTENT + b"(}" + text("class_name") + text("M") + b"s" + text("state") + state + b"stR"

    body = module(b"}") + b"\x940"
    for level in range(depth):
        child = b"j" + struct.pack("<I", level)
        body += module(b"}(" + text("a") + child + text("b") + child + b"u") + b"\x940"
    return b"}" + text("G_ema") + body[:-1] + b"s"


def calls() -> Iterator[tuple[str, bytes]]:
    """Names that would run code, in every way a stream can name them."""
    for protocol in range(6):
        yield f"os.system, protocol {protocol}", pickle.dumps(Evil(os.system, f"export {CANARY}=1"), protocol=protocol)
    yield "builtins.eval", pickle.dumps(Evil(eval, PAYLOAD))
    yield "builtins.exec", pickle.dumps(Evil(exec, PAYLOAD))
    yield "builtins.getattr", pickle.dumps(Evil(getattr, "x", "upper"))
    yield "subprocess.Popen", pickle.dumps(Evil(subprocess.Popen, ["true"]))
    yield "torch.load", pickle.dumps(Evil(torch.load, "x"))
    yield "pickle.loads", pickle.dumps(Evil(pickle.loads, pickle.dumps(Evil(eval, PAYLOAD))))
    for module, name in (
        ("importlib", "import_module"), ("builtins", "__import__"), ("operator", "attrgetter"), ("numpy", "load"),
        ("runpy", "_run_code"), ("webbrowser", "open"), ("torch.hub", "load"), ("ctypes", "CDLL"), ("timeit", "timeit"),
        ("torch.utils.cpp_extension", "load"), ("functools", "partial"), ("types", "FunctionType"), ("numpy.f2py", "compile"),
    ):  # fmt: skip
        yield f"{module}.{name}", proto(call(module, name, text(PAYLOAD)))
    yield "INST os.system", proto(b"(" + text("true") + b"ios\nsystem\n")
    yield "OBJ os.system", proto(b"(cos\nsystem\n" + text("true") + b"o")
    yield "NEWOBJ os.system", proto(b"cos\nsystem\n(" + text("true") + b"t\x81")
    yield "NEWOBJ_EX with keywords", proto(NETWORK[:-2] + b")}" + text("a") + b"Ns\x92")
    yield "dotted STACK_GLOBAL", proto(text("builtins") + text("object.__subclasses__") + b"\x93)R")
    yield (
        "method of an allowed class",
        proto(text("collections") + text("OrderedDict.fromkeys") + b"\x93(" + text("ab") + b"tR"),
    )
    yield "name that is no text", proto(b"K\x01K\x02\x93")
    yield "nested reduce", proto(call("collections", "OrderedDict", call("os", "system", text("true"))))
    yield "payload in a state", proto(NETWORK + b"}" + text("x") + call("builtins", "eval", text(PAYLOAD)) + b"sb")
    yield "named but never called", proto(b"cos\nsystem\n0}")
    yield "payload in a torch zip", in_zip(proto(call("os", "system", text("true")), 2))
    yield "payload in a legacy torch file", legacy(call("os", "system", text("true")))
    inner = legacy(call("os", "system", text("true")))
    yield (
        "payload in a torch file in a pickle",
        proto(call("torch.storage", "_load_from_bytes", binary(len(inner), inner))),
    )
    yield "payload in the key list", legacy(b"}", keys=b"\x80\x02" + call("os", "system", text("true")) + b".")
    yield "torch file in a torch file in a pickle", proto(
        call("torch.storage", "_load_from_bytes", binary(len(twice := legacy(call("torch.storage", "_load_from_bytes", binary(len(inner), inner)))), twice))
    )  # fmt: skip


def tricks() -> Iterator[tuple[str, bytes]]:
    """Opcodes that reach outside the stream, or states for things that must not have any."""
    for code, name in ((b"\x82\x01", "EXT1"), (b"\x83\x01\x00", "EXT2"), (b"\x84\x01\x00\x00\x00", "EXT4")):
        yield f"extension registry {name}", proto(code)
    yield "NEXT_BUFFER", proto(b"\x97")
    yield "READONLY_BUFFER", proto(b"\x97\x98")
    yield "BINPERSID in a plain pickle", proto(text("x") + b"Q")
    yield "PERSID in a plain pickle", proto(b"Px\n")
    yield "state for a list", proto(b"]}b")
    yield "state for a class", proto(b"cnumpy\nndarray\n}" + text("__setstate__") + b"K\x01sb")
    yield "state for a rebuilder", proto(b"ccollections\nOrderedDict\n}" + text("__class__") + b"K\x01sb")
    yield "state twice", proto(NETWORK + b"}b}b")
    yield "__setstate__ as state of a dict", proto(b"}]b")
    yield "items for an object", proto(NETWORK + text("a") + b"K\x01s")
    yield "list items for a dict", proto(b"}K\x01a")
    yield "set items for a list", proto(b"](K\x01\x90")
    yield "object array in a plain pickle", proto(array(b")", call("numpy", "dtype", text("O8"), b"K\x00K\x01"), b"]"))
    yield "structured dtype", proto(call("numpy", "dtype", text("V8"), b"K\x00K\x01"))
    yield (
        "dtype with fields",
        proto(call("numpy", "dtype", text("f4"), b"K\x00K\x01") + b"(K\x03" + text("|") + b"N}}K\x08K\x01K\x10tb"),
    )
    yield (
        "array of another class",
        proto(call("numpy.core.multiarray", "_reconstruct", b"ctorch\nTensor\n", b"(K\x00t", b"C\x01b")),
    )
    yield (
        "array never finished",
        proto(
            b"}"
            + text("w")
            + call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"(K\x00t", b"C\x01b")
            + b"s"
        ),
    )
    yield "codec other than Latin-1", proto(call("_codecs", "encode", text("x"), text("zip")))
    yield "bool array of other bytes", proto(array(b"(K\x01t", dtype("b1"), binary(1, b"\x07")))
    yield "text array of impossible letters", proto(array(b"(K\x01t", dtype("U1"), binary(4, b"\xff\xff\xff\x7f")))
    yield "lone surrogate", proto(b"}V\\ud800\nK\x01s")
    yield "call of data", proto(text("x") + b")R")
    yield "call with arguments in a list", proto(b"ccollections\nOrderedDict\n]R")
    yield "unknown opcode", proto(b"\xff")
    yield "protocol 200", b"\x80\xc8}."
    yield "empty stack", proto(b"0000")
    yield "memo that is not there", proto(b"h\x63")


def sizes() -> Iterator[tuple[str, bytes]]:
    """Declared sizes that are not there, and small files that ask for a lot."""
    yield "huge BINBYTES8", proto(binary(2**62))
    yield "huge BINUNICODE", proto(b"X\xff\xff\xff\xff")
    yield "huge BYTEARRAY8", proto(b"\x96" + struct.pack("<Q", 2**40))
    yield "huge frame", proto(b"\x95" + struct.pack("<Q", 2**60) + b"}")
    yield "huge LONG4", proto(b"\x8b\xff\xff\xff\x7f")
    yield "long of a megabyte", proto(b"\x8b" + struct.pack("<I", 1 << 20) + b"\x01" * (1 << 20))
    yield "integer of a million digits", proto(b"I" + b"9" * 1_000_000 + b"\n")
    yield "huge array shape", proto(array(b"(" + long(2**40) + long(2**40) + b"t", dtype("f4"), binary(4, b"1234")))
    yield "negative array shape", proto(array(b"(" + long(-1) + long(-1) + b"t", dtype("f4"), binary(4, b"1234")))
    yield "array with 64 axes", proto(array(b"(" + b"K\x01" * 64 + b"t", dtype("f4"), binary(4, b"1234")))
    yield "legacy storage of 2^40 numbers", legacy(storage(2**40))
    yield "legacy storage of negative size", legacy(storage(-1))
    yield (
        "zip storage shorter than announced",
        in_zip(proto(tensor(storage(100), 0, (100,), (1,)), 2), **{"0": b"1234"}),
    )
    yield "storage that is not there", in_zip(proto(tensor(storage(1, "9"), 0, (1,), (1,)), 2))
    for name, view in {
        "tensor past its storage": (0, (5,), (1,)), "tensor at a negative offset": (-1, (1,), (1,)),
        "tensor of negative stride": (3, (2,), (-1,)), "tensor of negative size": (0, (-4,), (1,)),
        "tensor of 2^46 repeated numbers": (0, (2**23, 2**23), (0, 0)), "tensor of huge stride": (0, (2, 2), (2**47, 1)),
    }.items():  # fmt: skip
        yield name, in_zip(proto(b"}" + text("w") + tensor(storage(4), *view) + b"s", 2), **{"0": b"\0" * 16})
    repeated = b"".join(text(f"w{i}") + tensor(storage(4), 0, (2**20,), (0,)) for i in range(100))
    yield "hundred repeated tensors", in_zip(proto(b"}(" + repeated + b"u", 2), **{"0": b"\0" * 16})
    content = binary(1 << 20, b"\0" * (1 << 20)) + b"\x940"
    shape = b"(" + long(1 << 18) + b"t"
    yield "one string, thousand arrays", proto(content + b"(" + array(shape, dtype("f4"), b"h\x00") * 1000 + b"l")
    pairs = b"](" + b"(NNt" * 20_000 + b"e\x940("
    yield "one list, thousand dicts", proto(pairs + call("collections", "OrderedDict", b"h\x00") * 1000 + b"l")
    latin = "é" * 500_000
    yield (
        "one text, thousand encodings",
        proto(text(latin) + b"\x940(" + call("_codecs", "encode", b"h\x00", text("latin1")) * 1000 + b"l"),
    )
    yield "two million opcodes", proto(b"N0" * 1_000_000 + b"}")
    yield "two million dicts", proto(b"}" * 2_000_000)
    yield "a million marks", proto(b"(" * 1_000_000)
    yield "memo flood", proto(b"}" + b"\x94" * 2_000_000)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Recursion, sharing and collisions."""
    yield "100,000 lists deep", nested(b"]", b"a")
    yield "100,000 tuples deep", proto(b"N" + b"\x85" * 100_000)
    yield "50,000 objects deep", proto(NETWORK * 50_000 + b"b" * 49_999)
    yield "list in itself", proto(b"]\x94h\x00a")
    yield "dict in itself", proto(b"}\x94" + text("a") + b"h\x00s")
    yield "tuple that holds itself", proto(b"]\x94h\x00\x85a")
    yield "doubling 150 times", proto(doubling(150))
    yield "doubling 10,000 times", proto(doubling(10_000))
    yield "doubling as a dict key", proto(b"}" + doubling(60, b")") + b"Ns")
    yield "doubling in a set", proto(b"\x8f(" + doubling(60, b")") + b"\x90")
    yield "doubling in an error message", proto(call("numpy", "dtype", doubling(60, b")")))
    yield (
        "doubling as a size",
        in_zip(
            proto(call("torch._utils", "_rebuild_tensor_v2", storage(1), b"K\x00", doubling(60, b")"), b"K\x00"), 2),
            **{"0": b"1234"},
        ),
    )
    yield "doubling as a persistent id", in_zip(proto(doubling(60, b")") + b"Q", 2))
    yield "module that holds a module twice, 35 deep", proto(module_doubling(35))
    yield "doubling as a device", proto(b"(" + call("torch", "device", doubling(60)) + b"l")
    yield (
        "doubling as a class",
        proto(call("numpy.core.multiarray", "_reconstruct", doubling(60), b"(K\x00t", b"C\x01b")),
    )
    many = b"(" + b"N" * 300_000 + b"t\x940"
    yield "one tuple as thousands of persistent ids", in_zip(proto(many + b"(" + b"h\x00Q" * 200_000 + b"l", 2))
    yield (
        "one tuple as the arguments of thousands of objects",
        proto(many + b"ctorch\nTensor\n\x940(" + b"h\x01h\x00R" * 150_000 + b"l"),
    )
    state = b"}(" + b"".join(text(f"{i}") + b"N" for i in range(100_000)) + text("_modules") + b"}u\x940"
    layer = b"ctorch.nn.modules.linear\nLinear\n)\x81h\x00b"
    yield (
        "one state for thousands of modules",
        proto(state + b"}(" + b"".join(text(f"{i}") + layer for i in range(20_000)) + b"u"),
    )
    yield "names without end", proto(module_doubling(1).replace(text("a"), text("n" * 100_000)))
    wide = b"}(" + b"".join(text(f"{i}") + b"h\x00" for i in range(2000)) + b"u"
    yield (
        "wide dicts in wide dicts",
        proto(b"}" + text("x") + b"Ns\x940" + wide + b"\x940" + wide.replace(b"h\x00", b"h\x01")),
    )
    yield (
        "colliding keys",
        proto(
            b"}("
            + b"".join(b"\x8a\x12" + ((2**61 - 1) * i).to_bytes(18, "little") + b"N" for i in range(50_000))
            + b"u"
        ),
    )
    yield "list as a key", proto(b"}]Ns")
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\n\x940ctorch\nTensor\n\x940"
    yield "rebuilder of a rebuilder of a rebuilder", proto(rebuild + _tower(5000))


def _tower(depth: int) -> bytes:
    """``_rebuild_from_type_v2(itself, Tensor, (itself, Tensor, …), None)``."""
    return b"h\x00" + b"(h\x00h\x01" * depth + b")" + b"Nt" * depth + b"R"


def archives() -> Iterator[tuple[str, bytes]]:
    """Zip archives and safetensors headers."""
    yield "compressed entry", zip_of({"a/data.pkl": proto(b"}"), "a/data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    yield "overlapping entries", zip_overlap()
    for name in (
        b"../../etc/passwd",
        b"/etc/passwd",
        b"a/../../x",
        b"C:\\windows\\x",
        b"a\\..\\x",
        b"a//b",
        b"a/\0x",
        b"./a",
    ):
        yield f"entry called {name!r}", zip_with_name(name)
    yield "two entries of one name", zip_duplicates()
    yield "directory of 65,535 entries that are not there", zip_claims(65_535, 65_535 * 46)
    yield "directory larger than the file", zip_claims(1, 2**32 - 2)
    yield (
        "entry of 4 GB that is not there",
        in_zip(proto(b"}")).replace(struct.pack("<2L", 4, 4), struct.pack("<2L", 2**32 - 2, 2**32 - 2)),
    )
    yield "zip without a directory", in_zip(proto(b"}"))[:40]
    yield "zip of something else", zip_of({"word/document.xml": b"<x/>"})
    yield "zip with two pickles", zip_of({"a/data.pkl": proto(b"}"), "b/data.pkl": proto(b"}")})
    yield "safetensors: huge header", struct.pack("<Q", 2**62) + b"{"
    yield "safetensors: deep header", safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    yield (
        "safetensors: one name twice",
        safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', b"1"),
    )
    yield (
        "safetensors: overlapping tensors",
        safetensors(
            json.dumps({k: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for k in "ab"}).encode(), b"1234"
        ),
    )
    yield (
        "safetensors: tensor outside",
        safetensors(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}', b"1234"),
    )
    yield (
        "safetensors: shape and size differ",
        safetensors(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b"1234"),
    )
    yield "safetensors: metadata that is no text", safetensors(b'{"__metadata__":{"higan":{"a":1}}}')
    yield "safetensors: broken configuration", safetensors(b'{"__metadata__":{"higan":"[1"}}')


def damaged() -> Iterator[tuple[str, bytes]]:
    """Good files cut short, and good archives with one bit flipped."""
    good = {
        "TensorFlow pickle": tf_pickle()[0],
        "torch pickle": persistent_pickle()[0],
        "torch zip": torch_file({"w": torch.ones(64, 64)}),
        "legacy torch file": torch_file({"w": torch.ones(64, 64)}, zipped=False),
    }
    for name, content in good.items():
        for part in (0.01, 0.3, 0.7, 0.99):
            yield f"{name}, cut at {part:.0%}", content[: int(len(content) * part)]
    content = bytearray(good["torch zip"])
    content[content.index(struct.pack("<f", 1.0) * 8)] ^= 1
    yield "torch zip, one bit of a weight flipped", bytes(content)


def corpus() -> Iterator[tuple[str, bytes]]:
    """Every hostile file by name."""
    for kind in (calls, tricks, sizes, bombs, archives, damaged):
        yield from kind()


DANGEROUS = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "pickle.", "ctypes.", "shutil.")
"""What the interpreter reports when code is imported or run, or the system is called."""


class Watch:
    """Collects what the interpreter itself reports while it looks."""

    def __init__(self) -> None:
        self.looking = False
        self.events: list[str] = []
        for codec in ("ascii", "latin-1", "utf-8", "utf-32-le", "utf-32-be", "raw-unicode-escape"):
            codecs.lookup(codec)  # Python imports its own codecs when first used
        sys.addaudithook(self._report)

    def _report(self, event: str, args: tuple) -> None:
        if self.looking and event.startswith(DANGEROUS):
            self.events.append(f"{event} {args}"[:200])

    def __enter__(self) -> None:
        self.events.clear()
        self.modules = set(sys.modules)
        self.looking = True

    def __exit__(self, *_: object) -> None:
        self.looking = False
        self.events += sorted(set(sys.modules) - self.modules)


def valid() -> dict[str, bytes]:
    """Good files of every container."""
    return {
        "TensorFlow pickle": tf_pickle()[0],
        "torch pickle": persistent_pickle()[0],
        "torch zip": torch_file(state_dict()),
        "legacy torch file": torch_file({"w": torch.ones(3), "view": torch.ones(4)[1:3]}, zipped=False),
        "safetensors": save({"w": torch.ones(3)}),
    }


def patience() -> float:
    """Seconds of the processor that are as much as one on a recent machine: old ones take three times as long."""
    start, table = time.process_time(), {}
    for i in range(1_000_000):
        table[i & 1023] = i
    return max(1.0, 25 * (time.process_time() - start))


def main() -> None:
    """Read the files in a folder under a memory limit; print one JSON line per file, the last field in time or not."""
    from higan.checkpoints.read import read

    folder, limit = Path(sys.argv[1]), int(sys.argv[2]) << 20
    watch = Watch()
    for content in valid().values():  # what torch and NumPy import late, they import now
        (folder / "good").write_bytes(content)
        read(folder / "good")
    (folder / "good").unlink()
    limit_of_time = patience()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + limit, in_use + limit))
    for path in sorted(folder.iterdir()):
        start = time.process_time()
        error = None
        with watch:
            try:
                read(path)
            except CheckpointError as raised:
                error = raised
        seconds = time.process_time() - start
        told = str(error).removeprefix(f"{path} ") if str(error).startswith(f"{path} ") else f"? {error}"
        canary = [CANARY] if CANARY in os.environ else []
        print(json.dumps([path.name, type(error).__name__, told, watch.events + canary, seconds < limit_of_time]))


if __name__ == "__main__":
    main()
