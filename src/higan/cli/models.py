"""How workers open generator and scorer: by name, as the line that people typed says."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

import higan
from higan import load_generator, store
from higan.cli.scorers import as_kind, key_values, open_scorer
from higan.errors import HiganError, RunError, RunMismatchError
from higan.generators.pretrained import PretrainedGenerator
from higan.named import is_reference, source_of
from higan.scorers.exported import external_data
from higan.scorers.loading import sources
from higan.segmenters.loading import ROOMS
from higan.segmenters.loading import WEIGHTS as SEGMENTERS
from higan.types import Generator, Scorer
from higan.weights import digest_of

__all__ = [
    "GeneratorOptions",
    "Label",
    "Models",
    "digests_of",
    "generator_options",
    "located",
    "names_files",
    "open_generator",
    "weights_digest",
]

GeneratorOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--generator-option",
        help="key=value of truncation_psi, truncation_layers, noise, precision or compiled; may be repeated.",
    ),
]

Label = Annotated[int | None, typer.Option("--label", help="Class of a conditional generator.")]


_LATER = re.compile(r"scorer-data .+|scorer layout|scorer option (.+\.)?segmenter|scorer .*\+.*")
"""What runs did not note at first: weights beside an ONNX file, embedded ones under another name, files with a +."""


@dataclass(frozen=True, slots=True)
class Models:
    """A recipe that travels to other processes and machines: names and paths, no networks.

    ``digests`` are those of the weight files here; a worker that finds other files under the same names refuses.
    """

    generator: str
    scorer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    generator_options: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def choices(self) -> dict[str, Any]:
        """What else than names and weights decides what is drawn and scored, as a run folder keeps it."""
        return {
            "generator_options": dict(self.generator_options),
            "scorer_options": dict(self.options),
            "label": self.label,
        }

    def digests_in(self, out: Path) -> dict[str, str]:
        """The digests that a run folder is compared with: one that was begun when fewer were noted goes on.

        Raises:
            RunMismatchError: a file is another one than the run was begun with.
        """
        try:
            noted = store.load_run(out).settings.get("digests", {})
        except RunError:  # a new one
            return dict(self.digests)
        _refuse_others({role: digest for role, digest in noted.items() if role in self.digests}, self.digests)
        return {role: digest for role, digest in self.digests.items() if role in noted or not _LATER.fullmatch(role)}

    def begun_in(self, folder: str | None) -> Models:
        """The same for somebody in another folder than that where the names were typed; see `located`."""
        digests = {}
        for role, digest in self.digests.items():
            kind, name = role.split(" ", 1)
            # Options are called by their keys, not by the files that they name.
            digests[role if role.startswith("scorer option ") else f"{kind} {located(name, folder)}"] = digest
        options = {k: located(v, folder) if isinstance(v, str) else v for k, v in self.options.items()}
        return replace(
            self,
            generator=located(self.generator, folder),
            scorer=located(self.scorer, folder),
            options=options,
            digests=digests,
        )

    def __call__(self, device: str) -> tuple[Generator, Scorer]:
        """Opens both on a device.

        Raises:
            RunMismatchError: the weight files are not those that the run was begun with.
            HiganError: see `higan.load_generator` and `higan.load_scorer`.
        """
        _refuse_others(self.digests, digests_of(self.generator, self.scorer, self.options))
        generator = open_generator(self.generator, device, self.label, self.generator_options)
        return generator, open_scorer(self.scorer, device, self.options)


def _refuse_others(begun: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuses files, by their digests, that are not those which a run was begun with."""
    # Generator and scorer may come from one module.
    changed = list(dict.fromkeys(_file_of(r) for r, digest in sorted(begun.items()) if found.get(r, digest) != digest))
    missing = list(dict.fromkeys(_file_of(role) for role in sorted(begun) if role not in found))
    told = []
    if changed:
        told.append(
            f"{' and '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since this run was begun"
        )
    if missing:
        told.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if told:
        raise RunMismatchError(f"{'; '.join(told)}; bring back what there was, or choose another folder")


def _file_of(role: str) -> str:
    """What people call the file behind a digest."""
    kind, name = role.split(" ", 1)
    source = source_of(name)
    if source is None and is_reference(name):
        return f"module {name.partition(':')[0]}, looked for in the working folder and where Python finds modules,"
    if source is not None:
        return f"the source of module {name.partition(':')[0]} ({source.name})"
    return f"the file of weights beside {name}" if kind == "scorer-data" else f"the weight file of {role}"


def generator_options(options: list[str] | None) -> dict[str, str | bool]:
    """Options of a generator as a run folder keeps them, from ``--generator-option key=value``.

    Raises:
        ValueError: not written like that, an unknown key, or a value of another kind.
    """
    chosen = key_values("--generator-option", options)
    for key, value in chosen.items():
        _meant(key, value)
    return chosen


_MEANINGS: Mapping[str, tuple[type, str]] = {
    "truncation_psi": (float, "a number"),
    "truncation_layers": (int, "a whole number"),
    "noise": (str, "a word"),
    "precision": (str, "a word"),
    "compiled": (bool, "true or false"),
}


def _meant(key: str, value: str | bool) -> Any:
    if key not in _MEANINGS:
        raise ValueError(f"--generator-option takes {', '.join(_MEANINGS)}; got {key!r}")
    return as_kind("--generator-option", key, value, *_MEANINGS[key])


def open_generator(
    name: str, device: str, label: int | None, options: Mapping[str, str | bool] = MappingProxyType({})
) -> Generator:
    """A generator, with options as `generator_options` gives them; of a conditional one, the class it shall draw.

    Raises:
        ValueError: a class for a generator that has none, or an option that means nothing to it.
        HiganError: see `higan.load_generator`.
    """
    generator = load_generator(name, device, **{key: _meant(key, value) for key, value in options.items()})
    if label is None:
        return generator
    if not isinstance(generator, PretrainedGenerator):
        raise ValueError(f"--label chooses the class of a conditional generator; {name} has no classes")  # noqa: TRY004
    return generator.with_label(label)


def digests_of(generator: str, scorer: str, options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
    """SHA-256 of every weight file behind the names, embedded ones too, of the source of callables (``module:name``),
    of what is behind the options of the scorer, and of weights that lie beside an ONNX file (``scorer-data``).
    """
    digests = {f"generator {generator}": weights_digest(generator)}
    with contextlib.suppress(HiganError):  # whoever opens the scorer is told what is wrong with it
        for part, source in sources(scorer, options).items():
            digests[f"scorer {part}"] = _digest_in(source if isinstance(source, Path) else source_of(source))
            if isinstance(source, Path) and source.suffix.lower() == ".onnx":
                digests[f"scorer-data {part}"] = _digest_of_all(external_data(source))
    for option, value in options.items():
        if isinstance(value, str):
            embedded = value in ROOMS and option.rpartition(".")[2] == "segmenter"
            digests[f"scorer option {option}"] = _digest_in(
                SEGMENTERS / f"{value}.safetensors" if embedded else source_of(value) or Path(value)
            )
    return {name: digest for name, digest in digests.items() if digest}


_IN_A_FOLDER = (
    "config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors", "pytorch_model.bin",
    "model.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip
"""What decides the answers of a model of the Hugging Face hub, beside the parts that an index names."""


def _digest_in(path: Path | None) -> str:
    """Of a file, or of weights and configuration in a folder of the Hugging Face hub; empty where there is neither."""
    if path is None or not _is_there(path):
        return ""
    if path.is_file():
        return digest_of(path)
    return _digest_of_all(
        {*(path / name for name in _IN_A_FOLDER), *path.glob("model-*-of-*"), *path.glob("pytorch_model-*")}
    )


def _digest_of_all(files: Iterable[Path]) -> str:
    """One for those that are there; empty where none is."""
    lines = [f"{file.name} {digest_of(file)}" for file in sorted(files) if _is_there(file) and file.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def names_files(name: str) -> bool:
    """Whether a name, or one of several joined with +, is a path from here to something that exists."""
    return any(_is_path(part) and _is_there(Path(part)) and not Path(part).is_absolute() for part in _joined(name))


def located(name: str, folder: str | None) -> str:
    """A file that is not here, but in that folder, with the folder before it; other names as they are.

    A run remembers where its line was typed, so that a report can be asked for from elsewhere.
    """
    if folder is None:
        return name
    parts = []
    for part in _joined(name, folder):
        there = Path(folder) / part
        parts.append(str(there) if _is_path(part) and not _is_there(Path(part)) and _is_there(there) else part)
    return "+".join(parts)


def _joined(name: str, folder: str = "") -> list[str]:
    """Names joined with +, unless all of it is the name of something here or in a folder."""
    return [name] if _is_there(Path(name)) or _is_there(Path(folder, name)) else name.split("+")


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a phrase may be too long for a path
        return path.exists()
    return False


def _is_path(name: str) -> bool:
    """Names of what comes with the package have neither folders nor endings."""
    return "/" in name or "\\" in name or bool(Path(name).suffix)


def weights_digest(name: str) -> str:
    """SHA-256 of the weight file behind a generator's name, or in its folder; empty where there is none."""
    embedded = Path(higan.__file__).parent / "generators" / "weights" / f"{name}.safetensors"
    return _digest_in(embedded if embedded.is_file() else source_of(name) or Path(name))
