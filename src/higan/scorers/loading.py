"""From a name or a file to a scorer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from higan.devices import open_device
from higan.errors import MissingWeightsError, UnknownFormatError
from higan.named import is_reference
from higan.scorers.labels import Names
from higan.types import Level, Scorer, Segmenter

__all__ = ["EMBEDDED", "LOADERS", "WEIGHTS", "load_scorer", "sources"]

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that come with the package."""


def _rooms_weights(name: str = "rooms") -> Path:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: the weights of the embedded scorer are missing; reinstall the package, or train them with "
            "`higan rooms train-scorers`"
        )
    return path


def _load_rooms(device: torch.device, name: str = "rooms") -> Scorer:
    from higan.scorers.colour import ColourScorer
    from higan.scorers.combined import CombinedScorer
    from higan.scorers.rooms import RoomsScorer

    return CombinedScorer([RoomsScorer.load(_rooms_weights(name), device), ColourScorer()], name=name)


def _load_rooms_128(device: torch.device) -> Scorer:
    return _load_rooms(device, "rooms-128")


def _load_colour(_: torch.device) -> Scorer:
    from higan.scorers.colour import ColourScorer

    return ColourScorer()


def _load_scheme(
    _: torch.device, *, segmenter: Segmenter | None = None, classes: Sequence[str] | None = None
) -> Scorer:
    from higan.scorers.scheme import ColourSchemeScorer

    return ColourSchemeScorer(segmenter, classes)


def _load_layout(device: torch.device, *, weights: str | Path | None = None) -> Scorer:
    from higan.scorers.layout import LayoutScorer
    from higan.scorers.rooms import RoomsScorer

    return LayoutScorer(RoomsScorer.load(weights or _rooms_weights(), device))


def _load_lines(_: torch.device, *, field_of_view: float | None = None) -> Scorer:
    from higan.scorers.lines import LinesScorer

    return LinesScorer() if field_of_view is None else LinesScorer(field_of_view)


def _load_segments(
    _: torch.device, *, segmenter: Segmenter | None = None, classes: Sequence[str] | None = None
) -> Scorer:
    from higan.scorers.segments import SegmentsScorer

    if segmenter is None:
        raise ValueError("the scorer 'segments' needs segmenter=, such as higan.load_segmenter('rooms') or 'ade20k'")
    return SegmentsScorer(segmenter, classes)


def _load_places(
    device: torch.device,
    *,
    weights: str | Path | None = None,
    attribute_matrix: str | Path | None = None,
    layout: Any = None,
    categories: str | Path | None = None,
    attributes: str | Path | None = None,
    official_compat: bool = False,
    precision: Any = "float32",
    compiled: bool = False,
) -> Scorer:
    from higan.scorers.places import ATTRIBUTE_MATRIX, PUBLISHED, PlacesScorer

    if weights is None:
        raise MissingWeightsError(
            f"the scorer 'places365' needs weights=PATH, a copy of {PUBLISHED['wideresnet18']}, and for the attributes "
            f"attribute_matrix=PATH, a copy of {ATTRIBUTE_MATRIX}"
        )
    return PlacesScorer.load(
        weights,
        attribute_matrix,
        layout=layout,
        categories=categories,
        attributes=attributes,
        official_compat=official_compat,
        precision=precision,
        compiled=compiled,
        device=device,
    )


def _load_clip(
    device: torch.device,
    *,
    weights: str | Path | None = None,
    concepts: Names | None = None,
    against: str | Sequence[str] | None = None,
) -> Scorer:
    from higan.scorers.clip import DEFAULT_MODEL, ClipScorer

    if concepts is None:
        raise ValueError(
            "the scorer 'clip' needs concepts=[…]: the phrases to look for (--concept on the command line)"
        )
    return ClipScorer(weights or DEFAULT_MODEL, concepts, against, device=device)


def _load_toy(_: torch.device) -> Scorer:
    from higan.scorers.toy import ToyScorer

    return ToyScorer()


def _load_transparent(device: torch.device) -> Scorer:
    from higan.scorers.transparent import TransparentScorer

    path = WEIGHTS / "transparent.safetensors"
    if not path.is_file():
        raise MissingWeightsError(f"{path}: the weights of the scorer are missing; reinstall the package")
    return TransparentScorer.load(path, device)


def _load_nulls(_: torch.device, *, num: int = 6, seed: int = 0) -> Scorer:
    from higan.scorers.nulls import NullScorer

    return NullScorer(int(num), int(seed))


LOADERS: Mapping[str, Callable[..., Scorer]] = {
    "rooms": _load_rooms,
    "rooms-128": _load_rooms_128,
    "colour": _load_colour,
    "scheme": _load_scheme,
    "layout": _load_layout,
    "lines": _load_lines,
    "segments": _load_segments,
    "places365": _load_places,
    "clip": _load_clip,
    "toy": _load_toy,
    "transparent": _load_transparent,
    "nulls": _load_nulls,
}
"""By name; the keywords of each are the options that it takes."""

EMBEDDED: Mapping[str, str] = {
    "rooms": "rooms", "rooms-128": "rooms-128", "layout": "rooms", "transparent": "transparent",
}  # fmt: skip
"""Which of the weights in `WEIGHTS` the scorer of a name reads, where it is given no others."""


def _file_places(device: torch.device, *, path: Path, **options: Any) -> Scorer:
    return _load_places(device, weights=path, **options)


def _file_rooms(device: torch.device, *, path: Path) -> Scorer:
    from higan.scorers.rooms import RoomsScorer

    return RoomsScorer.load(path, device)


def _file_torchscript(
    device: torch.device,
    *,
    path: Path,
    concepts: Names | None = None,
    preprocessing: Any = None,
    level: Level = "attribute",
) -> Scorer:
    from higan.scorers.exported import TorchScriptScorer

    if concepts is None:
        raise ValueError(
            f"{path} does not name its outputs; pass concepts=[…] (--concept, once for each, on the command line) or a "
            "text file of names"
        )
    return TorchScriptScorer(path, concepts, preprocessing=preprocessing, level=level, device=device)


def _file_onnx(
    device: torch.device,
    *,
    path: Path,
    concepts: Names | None = None,
    preprocessing: Any = None,
    level: Level = "attribute",
) -> Scorer:
    from higan.scorers.exported import OnnxScorer

    return OnnxScorer(path, concepts, preprocessing=preprocessing, level=level, device=device)


def _file_classifier(
    device: torch.device, *, path: Path, concepts: Names | None = None, level: Level = "object"
) -> Scorer:
    from higan.scorers.classifier import ClassifierScorer

    return ClassifierScorer(path, concepts, level=level, device=device)


def _imported(_: torch.device, *, path: str, concepts: Names | None = None, level: Level | None = None) -> Scorer:
    from higan.scorers.callable import import_scorer

    return import_scorer(path, concepts, level)


_SUFFIXES: Mapping[str, Callable[..., Scorer]] = {
    ".safetensors": _file_rooms,
    ".tar": _file_places,
    ".pth": _file_places,
    ".ts": _file_torchscript,
    ".torchscript": _file_torchscript,
    ".pt": _file_torchscript,
    ".onnx": _file_onnx,
}


_READ_AS_PLACES = (
    "A file that ends in .pth or .tar is read as weights of Places365; a network of your own is a TorchScript file "
    "(.ts, .pt), an ONNX file, or module:callable"
)


def load_scorer(name_or_path: str | Path, device: str | torch.device = "cpu", **options: Any) -> Scorer:
    """Opens a scorer.

    Args:
        name_or_path: a name: ``rooms``, ``rooms-128``, ``colour``, ``scheme``, ``layout``, ``lines``, ``segments``,
            ``places365``, ``clip``, ``toy``, ``transparent``, ``nulls``; a file: our own ``.safetensors``, Places365's
            ``.pth.tar``, TorchScript (``.ts``, ``.torchscript``, ``.pt``), ONNX (``.onnx``); a folder with an image
            classifier of transformers; or your own ``module:callable``. Several at once, joined with ``+``:
            ``rooms+clip``.
        device: where it runs; images are expected there.
        options: keywords of the scorer, see docs/scorers.md; of several scorers, each gets those that it takes. Where
            two would take the same ``weights`` or ``concepts``, say whose they are: ``"clip.weights"``. ``concepts``
            alone are the phrases of ``clip`` where that is among them.

            - ``weights``, ``attribute_matrix``, ``layout``, ``categories``, ``attributes``, ``official_compat``,
              ``precision``, ``compiled``: of ``places365``, see `higan.scorers.places.PlacesScorer.load`;
            - ``concepts``: phrases of ``clip``, names of the outputs of files and callables; a list, or a text file;
            - ``against``: of ``clip``; ``weights``: its folder or hub name;
            - ``level``: of concepts that do not say theirs;
            - ``preprocessing``: a `higan.preprocessing.Preprocessing` for TorchScript and ONNX;
            - ``segmenter``, ``classes``: of ``segments`` and ``scheme``;
            - ``num``, ``seed``: of ``nulls``;
            - ``weights``: of ``layout``, a scorer's file; ``field_of_view``: of ``lines``, in radians.

    Raises:
        MissingWeightsError: weights are not there; the message says where they are published.
        BrokenModuleError: the module of ``module:callable`` fails.
        MissingExtraError: an optional dependency is not installed; the message names the extra.
        CheckpointError: a file cannot be used; the subclass says why.
        ValueError: an option is unknown to the scorer, needed and not given, or out of range.
    """
    if not isinstance(name_or_path, str | Path):
        raise ValueError(  # noqa: TRY004 - wrong arguments raise ValueError throughout
            f"expected the name or file of a scorer; got {type(name_or_path).__name__}. A scorer that is open is "
            "passed as it is; a function becomes one by higan.scorers.callable.CallableScorer(function, concepts)"
        )
    where = open_device(device)
    parts = _parts(name_or_path)
    chosen = _dealt(name_or_path, parts, options)
    scorers = [part.loader(where, **part.path, **mine) for part, mine in zip(parts, chosen, strict=True)]
    if len(scorers) == 1:
        return scorers[0]
    from higan.scorers.combined import CombinedScorer

    return CombinedScorer(scorers)


def sources(name_or_path: str | Path, options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Path | str]:
    """What each of several scorers is read from, by its name: a file, a folder, or ``module:callable``.

    Those that are arithmetic, or read nothing but what their options name, are left out.

    Raises:
        HiganError, ValueError: no such scorer, or an option that none of them takes; see `load_scorer`.
    """
    parts = _parts(name_or_path)
    found: dict[str, Path | str] = {}
    for part, mine in zip(parts, _dealt(name_or_path, parts, options), strict=True):
        if part.path:
            found[part.name] = part.path["path"]
        elif part.name in EMBEDDED and "weights" not in mine:
            found[part.name] = WEIGHTS / f"{EMBEDDED[part.name]}.safetensors"
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """One of several scorers: as it was written, what opens it, and the file if there is one."""

    name: str
    loader: Callable[..., Scorer]
    path: dict[str, Any]


def _parts(name_or_path: str | Path) -> list[_Part]:
    name, path = str(name_or_path), Path(name_or_path)
    if name in LOADERS:
        return [_Part(name, LOADERS[name], {})]
    if path.is_dir():
        return [_Part(name, _file_classifier, {"path": path})]
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise UnknownFormatError(f"{path}: expected a file that ends in {', '.join(_SUFFIXES)}")
        return [_Part(name, _SUFFIXES[path.suffix.lower()], {"path": path})]
    if "+" in name:
        return [part for piece in name.split("+") for part in _parts(piece)]
    if is_reference(name):
        return [_Part(name, _imported, {"path": name})]
    raise MissingWeightsError(
        f"{name}: no such file; expected one of the names {', '.join(LOADERS)}, a file ({', '.join(_SUFFIXES)}), a "
        "folder of transformers, or module:callable"
    )


def _dealt(whole: str | Path, parts: Sequence[_Part], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which of the options each part gets."""
    names = [part.name for part in parts]
    takes = [set(_options(part.loader)) for part in parts]
    chosen: list[dict[str, Any]] = [{} for _ in parts]
    for written, value in options.items():
        owner, _, option = written.rpartition(".")
        mine = [k for k, known in enumerate(takes) if option in known and owner in ("", names[k])]
        if not mine:
            known = ", ".join(sorted(set().union(*takes))) or "none"
            places = f". {_READ_AS_PLACES}" if any(part.loader is _file_places for part in parts) else ""
            raise ValueError(f"{whole} does not take the option {written}; it takes: {known}{places}")
        if len(mine) > 1 and option == "concepts" and "clip" in names:
            mine = [names.index("clip")]
        if len(mine) > 1 and option in ("weights", "concepts"):
            say = " or ".join(f"{names[k]}.{option}" for k in mine)
            raise ValueError(f"several scorers of {whole} take {option}; say whose they are: {say}")
        for k in mine:
            chosen[k][option] = value
    return chosen


def _options(loader: Callable[..., Scorer]) -> list[str]:
    """Keywords that a loader takes."""
    if loader is _file_places:
        return [option for option in _options(_load_places) if option != "weights"]
    parameters = inspect.signature(loader).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "path"]
