"""Networks exported to a file: TorchScript and ONNX.

Both kinds of file hold a computation that is run; neither is unpickled by Python. TorchScript is a program in a
language of its own that can write files: code that names an operation for it is refused before any of it runs.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.checkpoints.files import opened
from higan.checkpoints.torchfile import is_legacy
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, ScorerError, UnknownFormatError
from higan.extras import optional
from higan.preprocessing import Preprocessing
from higan.scorers.callable import checked
from higan.scorers.labels import Names, named
from higan.scorers.rooms import check_images
from higan.types import Level

__all__ = ["FILE_OPERATIONS", "OnnxScorer", "TorchScriptScorer", "external_data"]

FILE_OPERATIONS = frozenset({"from_file", "read_file", "save", "write_file"})
"""Operations of torch and torchvision that read or write a file by its path."""

_GETATTR = re.compile(r'\bgetattr\([\w.]+, "[\w.-]*"\)', re.ASCII)
"""As torch writes it, for names such as ``0``."""

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])")
"""Key, and length of the value, of an entry that says where a tensor of an ONNX file lies."""


class TorchScriptScorer:
    """A network saved by ``torch.jit.save``: images in, (n, C) scores out.

    Args:
        path: the file.
        concepts: one name per output.
        preprocessing: what the network wants done to images; None hands it the uint8 images.
        level: of concepts that do not say theirs.
        device: where it runs.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptFileError: it is not TorchScript, or damaged.
        UnknownFormatError: it holds weights, and no program that runs them.
        CheckpointError: its code names an operation that reads or writes files.
    """

    def __init__(
        self,
        path: str | Path,
        concepts: Names,
        *,
        preprocessing: Preprocessing | None = None,
        level: Level = "attribute",
        device: torch.device | str = "cpu",
    ) -> None:
        path = _file(path)
        self.name = path.stem
        self.concepts = named(concepts, level)
        self.device = torch.device(device)
        self.preprocessing = preprocessing
        try:
            _check_code(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch recommends another format to those who save
                self._network = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            raise CorruptFileError(f"{path} cannot be read as TorchScript: {str(error)[:200]}") from error

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The network's outputs as they come.

        Raises:
            ScorerError: they are not one number per image and concept, or the network cannot do with the images.
        """
        check_images(images)
        x = images.to(self.device)
        try:
            output = self._network(x if self.preprocessing is None else self.preprocessing(x))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise ScorerError(
                f"scorer {self.name!r} cannot score uint8 images as they are prepared for it ({reason}); say what it "
                "wants done to them, as in preprocessing=imagenet"
            ) from error
        return checked(output, len(images), len(self.concepts), self.name)


class OnnxScorer:
    """A network in an ONNX file, run by onnxruntime: images in, the first output is (n, C).

    An input of type uint8 gets the images as they are. One of type float gets them scaled to the size in the file and
    normalised with ImageNet's figures, unless ``preprocessing`` says otherwise. Where the file fixes the batch, images
    go through so many at a time. Names may lie in the file, as a JSON list in its metadata under ``concepts``.

    Args:
        path: the file.
        concepts: one name per output.
        preprocessing: what the network wants done to images.
        level: of concepts that do not say theirs.
        device: ``cpu``, or ``cuda`` with onnxruntime-gpu; scores come back to the images' device.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        MissingWeightsError: there is no such file.
        CorruptFileError: it is not ONNX, or damaged.
        ValueError: names are nowhere given, or the input is not (n, 3, H, W) of uint8 or float.
    """

    def __init__(
        self,
        path: str | Path,
        concepts: Names | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        level: Level = "attribute",
        device: torch.device | str = "cpu",
    ) -> None:
        path = _file(path)
        runtime = optional("onnxruntime", "onnx")
        cuda = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session: Any = runtime.InferenceSession(str(path), settings, [*cuda, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class but this one
            raise CorruptFileError(f"{path} cannot be read as ONNX: {str(error)[:200]}") from error
        self.name = path.stem
        self.concepts = named(concepts if concepts is not None else self._names_inside(path), level)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or not _takes_images(inputs[0]):
            found = " and ".join(f"{source.type} {source.shape}" for source in inputs) or "none"
            raise ValueError(f"{path}: the one input must be uint8 or float images (n, 3, H, W); got {found}")
        self._input, (batch, _, *size) = inputs[0].name, inputs[0].shape or [None] * 4
        if inputs[0].type == "tensor(float)" and preprocessing is None:
            fixed = all(isinstance(side, int) for side in size)
            preprocessing = Preprocessing(size=(size[0], size[1]) if fixed else None)
        self.preprocessing = preprocessing
        self._batch: int | None = batch if isinstance(batch, int) else None

    def _names_inside(self, path: Path) -> list[str]:
        inside = self._session.get_modelmeta().custom_metadata_map.get("concepts")
        if inside is None:
            raise ValueError(
                f"{path} does not name its outputs; pass concepts=[…] (--concept, once for each, on the command line) "
                "or a text file of names"
            )
        try:
            return [str(name) for name in json.loads(inside)]
        except (ValueError, TypeError) as error:
            raise CorruptFileError(f"{path}: the entry 'concepts' is not a JSON list: {error}") from error

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The network's first output as it comes.

        Raises:
            ScorerError: it is not one number per image and concept, or the network cannot do with the images.
        """
        check_images(images)
        x = images if self.preprocessing is None else self.preprocessing(images)
        batches = x.split(self._batch) if self._batch else [x]
        return torch.cat([self._scores(batch) for batch in batches]).to(images.device)

    def _scores(self, batch: Tensor) -> Float[Tensor, "n C"]:
        """Of as many pictures as go through at once; where there are fewer, empty ones make up the number."""
        size = self._batch or len(batch)
        whole = torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])
        try:
            output = self._session.run(None, {self._input: whole.cpu().numpy()})[0]
        except Exception as error:  # onnxruntime's errors have no common class but this one
            reason = " ".join(str(error).split())[:300]
            raise ScorerError(
                f"scorer {self.name!r} cannot score {whole.dtype} images of shape {tuple(whole.shape)} ({reason}); say "
                "what it wants done to them, as in preprocessing=imagenet, or export it for uint8 images of any size"
            ) from error
        return checked(output, size, len(self.concepts), self.name)[: len(batch)]


def _takes_images(source: Any) -> bool:
    """Whether an input can be images; a file need not say a shape, and sides it leaves open are None or have a name."""
    shape = source.shape or [None] * 4
    colours = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
    return colours and source.type in ("tensor(uint8)", "tensor(float)")


def _check_code(path: Path) -> None:
    """Refuses TorchScript that could read or write files, before any of it runs: loading runs its ``__setstate__``.

    torch itself takes the archive apart, so that nothing is looked at other than what it will run. An operation has to
    be named in the code as it stands, but for ``getattr``, which takes text; that is let pass only as torch writes it.

    Raises:
        UnknownFormatError: there is no code.
        CheckpointError: its code names such an operation.
        RuntimeError: it is no archive of torch's.
    """
    with path.open("rb") as file:
        if is_legacy(file.read(64)):
            raise _without_program(path)
    archive = torch._C.PyTorchFileReader(str(path))
    records = set(archive.get_all_records())
    if "data.pkl" in records and "constants.pkl" not in records:
        raise _without_program(path)
    for entry in records:
        if entry == "model.json":
            raise CorruptFileError(f"{path} is TorchScript from before torch 1.0; save it again with a newer torch")
        if not entry.lower().endswith(".py"):
            continue
        code = archive.get_record(entry).decode("latin-1")
        asked = _words(code) & FILE_OPERATIONS
        count = 1
        while count:
            code, count = _GETATTR.subn("_", code)
        asked |= _words(code) & {"getattr"}
        if asked:
            raise CheckpointError(
                f"{path}: its code asks for {', '.join(sorted(asked))}, which can reach files; no scorer needs that. "
                "If the file is yours, call nothing by such a name and save it again, or export the network to ONNX"
            )


def _without_program(path: Path) -> UnknownFormatError:
    return UnknownFormatError(
        f"{path} holds weights without the program that runs them, as torch.save writes them; a scorer needs both. "
        f"Save the network itself, torch.jit.script(net).save({path.name!r}), or export it to ONNX; or write a "
        "function that opens it, and name that: module:function"
    )


def _words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code, re.ASCII))


def external_data(path: Path) -> set[Path]:
    """Files that an ONNX file says hold weights of it; whether they are there is not looked at.

    Raises:
        CorruptFileError: the file is empty.
    """
    with opened(path) as data:
        places = [(found.end(), found[1]) for found in _LOCATION.finditer(data)]
        names = {data[start : start + _number(length)].decode("utf-8", "replace") for start, length in places}
    return {path.parent / name for name in names}


def _number(length: bytes) -> int:
    """Protobuf's numbers: seven bits a byte, the lowest first."""
    return sum((byte & 0x7F) << 7 * k for k, byte in enumerate(length))


def _file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise MissingWeightsError(f"{path}: no such file; pass the path of the exported network")
    return Path(path)
