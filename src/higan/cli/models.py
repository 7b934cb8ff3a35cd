"""How workers open generator and scorer: by name, as the line that people typed says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import higan
from higan import load_generator
from higan.cli.scorers import open_scorer
from higan.errors import RunMismatchError
from higan.generators.pretrained import PretrainedGenerator
from higan.types import Generator, Scorer
from higan.weights import digest_of

__all__ = ["Models", "digests_of", "open_generator", "weights_digest"]


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

    def __call__(self, device: str) -> tuple[Generator, Scorer]:
        """Opens both on a device.

        Raises:
            RunMismatchError: the weight files are not those that the run was begun with.
            HiganError: see `higan.load_generator` and `higan.load_scorer`.
        """
        found = digests_of(self.generator, self.scorer, self.options)
        other = sorted(name for name, digest in self.digests.items() if found.get(name) != digest)
        if other:
            raise RunMismatchError(
                f"the weight file of {', '.join(other)} is missing or another one than the run was begun with; bring "
                "the file back, or choose another folder"
            )
        return open_generator(self.generator, device, self.label), open_scorer(self.scorer, device, self.options)


def open_generator(name: str, device: str, label: int | None) -> Generator:
    """A generator; of a conditional one, the class it shall draw.

    Raises:
        ValueError: a class for a generator that has none.
        HiganError: see `higan.load_generator`.
    """
    generator = load_generator(name, device)
    if label is None:
        return generator
    if not isinstance(generator, PretrainedGenerator):
        raise ValueError(f"--label chooses the class of a conditional generator; {name} has no classes")  # noqa: TRY004
    return generator.with_label(label)


def digests_of(generator: str, scorer: str, options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
    """SHA-256 of every weight file behind the names, embedded ones too, and behind the options of the scorer."""
    digests = {f"generator {generator}": weights_digest("generators", generator)}
    digests |= {f"scorer {part}": weights_digest("scorers", part) for part in scorer.split("+")}
    for option, value in options.items():
        if isinstance(value, str):
            digests[f"scorer option {option}"] = _option_digest(Path(value))
    return {name: digest for name, digest in digests.items() if digest}


def _option_digest(path: Path) -> str:
    """Of a file, or of the weights in a folder of transformers; empty where an option is neither."""
    inside = ("model.safetensors", "pytorch_model.bin") if path.is_dir() else ()
    for candidate in (path, *(path / name for name in inside)):
        if candidate.is_file():
            return digest_of(candidate)
    return ""


def weights_digest(kind: Literal["generators", "scorers"], name: str) -> str:
    """SHA-256 of the weight file behind a name; empty where there is none."""
    embedded = Path(higan.__file__).parent / kind / "weights" / f"{name}.safetensors"
    path = embedded if embedded.is_file() else Path(name)
    return digest_of(path) if path.is_file() else ""
