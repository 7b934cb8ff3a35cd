"""Networks exported to a file: TorchScript and ONNX.

Both kinds of file hold a computation that is run, as weights of a network are; neither is unpickled by Python.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.errors import CorruptFileError, MissingWeightsError, ScorerError
from higan.extras import optional
from higan.preprocessing import Preprocessing
from higan.scorers.callable import checked
from higan.scorers.labels import Names, named
from higan.scorers.rooms import check_images
from higan.types import Level

__all__ = ["OnnxScorer", "TorchScriptScorer"]


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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch recommends another format to those who save
                self._network = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            raise CorruptFileError(f"{path} cannot be read as TorchScript: {str(error)[:200]}") from error

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The network's outputs as they come.

        Raises:
            ScorerError: they are not one finite number per image and concept, or the network cannot do with the images.
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
    normalised with ImageNet's figures, unless ``preprocessing`` says otherwise. Where the file fixes the batch at 1,
    images go through one by one. Names may lie in the file, as a JSON list in its metadata under ``concepts``.

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
        ValueError: names are nowhere given, or the input is neither uint8 nor float.
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
        source = self._session.get_inputs()[0]
        self._input, shape = source.name, source.shape
        if source.type not in ("tensor(uint8)", "tensor(float)"):
            raise ValueError(f"{path}: the input must be uint8 or float images (n, 3, H, W); got {source.type}")
        if source.type == "tensor(float)" and preprocessing is None:
            fixed = all(isinstance(side, int) for side in shape[2:])
            preprocessing = Preprocessing(size=(shape[2], shape[3]) if fixed else None)
        self.preprocessing = preprocessing
        self._one_by_one = shape[0] == 1

    def _names_inside(self, path: Path) -> list[str]:
        inside = self._session.get_modelmeta().custom_metadata_map.get("concepts")
        if inside is None:
            raise ValueError(f"{path} does not name its outputs; pass concepts=[…] or a text file of names")
        try:
            return [str(name) for name in json.loads(inside)]
        except (ValueError, TypeError) as error:
            raise CorruptFileError(f"{path}: the entry 'concepts' is not a JSON list: {error}") from error

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The network's first output as it comes.

        Raises:
            ScorerError: it is not one finite number per image and concept.
        """
        check_images(images)
        x = images if self.preprocessing is None else self.preprocessing(images)
        batches = x.split(1) if self._one_by_one else [x]
        outputs = [torch.from_numpy(self._session.run(None, {self._input: b.cpu().numpy()})[0]) for b in batches]
        return checked(torch.cat(outputs), len(images), len(self.concepts), self.name).to(images.device)


def _file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise MissingWeightsError(f"{path}: no such file; pass the path of the exported network")
    return Path(path)
