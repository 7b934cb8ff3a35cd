"""Scorers as people name them on the command line: options as text, and what it stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from higan import load_scorer, load_segmenter
from higan.cli.app import console
from higan.errors import MissingWeightsError
from higan.extras import read_json
from higan.preprocessing import Preprocessing
from higan.scorers.combined import parts_of
from higan.types import Scorer

Concepts = Annotated[
    list[str] | None, typer.Option("--concept", help="Phrase for clip, or name of an output; may be repeated.")
]
Against = Annotated[str | None, typer.Option("--against", help="What clip compares the phrases with.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--scorer-option", help="key=value, as in weights=FILE or clip.weights=FOLDER; may be repeated."),
]


def scorer_options(
    concepts: list[str] | None, against: str | None, options: list[str] | None
) -> dict[str, str | bool | list[str]]:
    """Options as a run folder keeps them, from ``--concept``, ``--against`` and ``--scorer-option key=value``."""
    chosen: dict[str, str | bool | list[str]] = {**key_values("--scorer-option", options)}
    if concepts:
        chosen["concepts"] = concepts
    if against is not None:
        chosen["against"] = against
    return chosen


def key_values(flag: str, options: list[str] | None) -> dict[str, str | bool]:
    """Options written key=value, as a run folder keeps them; true and false stand for themselves."""
    chosen: dict[str, str | bool] = {}
    for option in options or ():
        key, equals, value = option.partition("=")
        if not (key and equals):
            raise ValueError(f"{flag} is written key=value; got {option!r}")
        chosen[key.replace("-", "_")] = {"true": True, "false": False}.get(value.lower(), value)
    return chosen


def as_kind(flag: str, key: str, value: str | bool, kind: type, expected: str) -> Any:
    """The value of an option as what it stands for: nothing but true and false is a truth value, and neither is a word.

    Raises:
        ValueError: it is of another kind.
    """
    if isinstance(value, bool) == (kind is bool):
        with contextlib.suppress(ValueError):
            return kind(value)
    raise ValueError(f"{flag} {key} is {expected}; got {str(value).lower()!r}")


def open_scorer(name: str, device: str, options: Mapping[str, Any]) -> Scorer:
    """A scorer with options as `scorer_options` gives them.

    ``segmenter`` is a name or file of a segmenter, ``classes`` are parted by commas, ``official_compat`` and
    ``compiled`` are true or false, ``field_of_view``, ``num`` and ``seed`` are numbers, and ``preprocessing`` is
    ``imagenet`` or a ``preprocessor_config.json``.

    Raises:
        ValueError: a value of another kind; see also `higan.load_scorer`.
        HiganError: see `higan.load_scorer`.
    """
    return load_scorer(name, device, **{key: _meant(key, value, device) for key, value in options.items()})


def say_guesses(scorer: Scorer) -> None:
    """Which levels were guessed from the words of a phrase, so that they can be set right."""
    guessed = {name for part in parts_of(scorer) for name in getattr(part, "guessed", ())}
    told = [f"{concept.name} → {concept.level}" for concept in scorer.concepts if concept.name in guessed]
    if told:
        console.print(
            f"Levels guessed: {'; '.join(told)}. To say one yourself, put it in front: --concept 'layout: …'",
            highlight=False,
        )


_MEANINGS: Mapping[str, tuple[type, str]] = {
    "official_compat": (bool, "true or false"),
    "compiled": (bool, "true or false"),
    "field_of_view": (float, "a number"),
    "num": (int, "a whole number"),
    "seed": (int, "a whole number"),
    "concepts": (str, "a text file"),
    "weights": (str, "a file, a folder or a name"),
    "segmenter": (str, "a file, a folder or a name"),
    "preprocessing": (str, "imagenet or a file"),
    "classes": (str, "names parted by commas"),
    "against": (str, "a phrase"),
    **dict.fromkeys(("attribute_matrix", "categories", "attributes"), (str, "a file")),
    **dict.fromkeys(("layout", "precision", "level"), (str, "a word")),
}


def _meant(key: str, value: Any, device: str) -> Any:
    option = key.rpartition(".")[2]
    if not isinstance(value, str | bool) or option not in _MEANINGS:
        return value  # several concepts; or what no scorer takes, which is told where it is opened
    value = as_kind("--scorer-option", key, value, *_MEANINGS[option])
    if option == "segmenter":
        return load_segmenter(value, device)
    if option == "classes":
        return [name.strip() for name in value.split(",")]
    if option == "preprocessing":
        return _preprocessing(value)
    return value


def _preprocessing(value: str) -> Preprocessing:
    path = Path(value)
    if value == "imagenet":
        return Preprocessing()
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such file; preprocessing is imagenet, or a preprocessor_config.json")
    return Preprocessing.from_config(read_json(path.parent, path.name))
