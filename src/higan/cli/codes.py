"""Codes that an edit starts from: of samples, or from files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from jaxtyping import Float
from torch import Tensor

from higan.errors import RunMismatchError
from higan.export import about_codes, load_codes
from higan.strips import starts
from higan.workbench import Workbench


def check_seeds(seeds: list[int] | None) -> list[int] | None:
    """Seeds of samples, as the callback of an option.

    Raises:
        ValueError: one of them is no seed of a sample.
    """
    for seed in seeds or ():
        # Beyond, torch's CPU generator draws another seed's sample.
        if not 0 <= seed < 2**32:
            raise ValueError(f"a sample's seed is a whole number of 0 to {2**32 - 1}; got {seed}")
    return seeds


_MOST = 10_000


def parse_seeds(text: str) -> list[int]:
    """Seeds of samples as ``0-15`` or ``3,7,20-29``, each once.

    Raises:
        ValueError: the text has another form, runs downwards or too far, or one of them is no seed of a sample.
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if found is None:
            raise ValueError(f"seeds are written as 0-15 or 3,7,20-29; cannot read {part.strip()!r} in {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < first + _MOST:
            raise ValueError(f"seeds run upwards, at most {_MOST:,} of them at a time; got {part.strip()}")
        numbers += range(first, last + 1)
    check_seeds(numbers)
    return list(dict.fromkeys(numbers))


def named_seeds(seed: list[int] | None, seeds: str | None) -> list[int] | None:
    """Samples as one of the two options names them.

    Raises:
        ValueError: both do, or as for `parse_seeds`.
    """
    if seeds is None:
        return seed
    if seed:
        raise ValueError("name samples by --seed or by --seeds, not by both")
    return parse_seeds(seeds)


Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Sample, by default 0; may be repeated.", callback=check_seeds)
]
Codes = Annotated[Path | None, typer.Option("--codes", help="Start from codes (safetensors, npy), not from seeds.")]
Range = Annotated[str | None, typer.Option("--seeds", help="Samples, as 0-15 or 3,7,20-29.")]
DonorCodes = Annotated[
    Path | None, typer.Option("--donor-codes", help="Codes that lend layers, such as inverted pictures.")
]


def sources(
    bench: Workbench, seeds: list[int] | None, codes: Path | None, by_seed: str, by_codes: str
) -> tuple[Tensor, list[str]]:
    """Codes of samples or from a file, and what to call them."""
    if (not seeds) == (codes is None):
        raise ValueError(f"give {by_seed} or {by_codes}, and not both")
    if codes is None:
        return starts(bench, seeds or []), [f"seed {k}" for k in seeds or []]
    found = codes_for(bench, codes)
    return found, [f"code {k}" for k in range(len(found))]


def codes_for(bench: Workbench, path: Path) -> Float[Tensor, "n L D"]:
    """Codes from a file, as far as the file tells those of this very generator.

    Raises:
        ValueError: they have another shape.
        RunMismatchError: they were found with other weights, or with another truncation.
    """
    generator, found, about = bench.generator, load_codes(path), about_codes(path)
    expected = (generator.num_layers, generator.code_dim)
    n, rows, width = found.shape
    if generator.shared_code and rows != expected[0] and width == expected[1] and 1 in (n, rows):
        # Codes that all layers share, (n, D) or (n, 1, D) of other tools; the first look like one code of n layers.
        found = found.flatten(0, 1)[:, None].expand(-1, *expected)
    if tuple(found.shape[1:]) != expected:
        raise ValueError(f"codes of {generator.name!r} have shape {expected}; {path} has {tuple(found.shape[1:])}")
    if bench.weights and about.get("weights", bench.weights) != bench.weights:
        raise RunMismatchError(
            f"{path} holds codes of {about.get('generator')!r}, a generator of other weights than {generator.name!r} "
            "here: pictures would be of nothing; invert the photographs with this one"
        )
    here = generator.truncation.tolist()
    if about.get("truncation", here) != here:
        raise RunMismatchError(
            f"{path} was found under truncation {about['truncation']}; here it is {here}: open the generator as it "
            "was, or invert the photographs again"
        )
    return found.to(generator.device)
