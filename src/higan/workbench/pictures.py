"""One edited picture with its recipe, and the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.boundaries import project_out
from higan.editing import apply
from higan.errors import RunMismatchError
from higan.layers import check_layers
from higan.population import Progress, render, sample
from higan.recipes import Instruction, Loan, Move, Recipe, check_consistent, digest_of_normal, format_layers
from higan.types import Edit, Generator
from higan.workbench.bench import Workbench
from higan.workbench.plans import Settled, of_samples, settle

__all__ = ["Edited", "begin", "carry_out", "digest_of_codes", "draw", "edit", "moves_of", "repeat"]


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    """One edited picture with its code, what was done, and how to do it again."""

    image: UInt8[Tensor, "3 H W"]
    code: Float[Tensor, "L D"]
    edits: tuple[Edit, ...]
    recipe: Recipe


def edit(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    *,
    seed: int | None = None,
    code: Float[Tensor, "L D"] | None = None,
    loans: Sequence[Loan] = (),
    donors: Sequence[Float[Tensor, "L D"]] = (),
    conditions: Sequence[str] = (),
) -> Edited:
    """One sample, by its seed or its code, edited and drawn.

    ``donors`` are the codes that loans name by their digests (`digest_of_codes`).

    Raises:
        ValueError: neither or both of seed and code, a loan without its donor, or as for `plan`.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    recipe = begin(bench, edits, seed=seed, code=code, loans=loans, conditions=conditions)
    start = _start(bench, recipe, code, donors)
    return _made(bench, recipe, start, settle(bench, edits, conditions=conditions))


def begin(
    bench: Workbench,
    edits: Sequence[str | Instruction],
    *,
    seed: int | None = None,
    code: Float[Tensor, "L D"] | None = None,
    loans: Sequence[Loan] = (),
    conditions: Sequence[str] = (),
) -> Recipe:
    """The recipe of what `edit` is asked for, before it is known which moves that takes.

    Raises:
        ValueError: neither or both of seed and code, or an edit that cannot be read.
    """
    return Recipe(
        generator=bench.generator.name,
        weights=bench.weights,
        truncation=tuple(float(t) for t in bench.generator.truncation),
        seed=seed,
        codes=None if code is None else digest_of_codes(code),
        loans=tuple(loans),
        conditions=tuple(conditions),
        asked=tuple(sorted(str(i) for i in bench.instructions(edits))),
        opened=_opened(bench.generator),
    )


def carry_out(
    bench: Workbench, recipe: Recipe, settled: Settled, *, code: Float[Tensor, "L D"] | None = None
) -> Edited:
    """The picture of a recipe that `begin` made without loans, by edits that are settled.

    Raises:
        OutOfReachError: see `higan.workbench.plan`.
        ValueError: a code of another shape.
        GeneratorError, ScorerError: see `higan.population.render` and `score`.
    """
    return _made(bench, recipe, _start(bench, recipe, code, ()), settled)


def moves_of(edits: Sequence[Edit]) -> tuple[Move, ...]:
    """Edits as a recipe keeps them."""
    return tuple(
        Move(e.boundary.concept.name, float(e.strength), e.layers, digest_of_normal(e.boundary)) for e in edits
    )


def _made(bench: Workbench, recipe: Recipe, start: Tensor, settled: Settled) -> Edited:
    chosen = of_samples(bench, settled, start[None])[0]
    moved = apply(start[None], chosen)
    return Edited(draw(bench.generator, moved)[0], moved[0], chosen, replace(recipe, moves=moves_of(chosen)))


def repeat(
    bench: Workbench,
    recipe: Recipe,
    *,
    code: Float[Tensor, "L D"] | None = None,
    donors: Sequence[Float[Tensor, "L D"]] = (),
) -> Edited:
    """The picture of a recipe again, bit for bit on the same device and version of torch.

    Args:
        bench: with the generator and the boundaries that the recipe was made with.
        recipe: from `Edited` or a picture's metadata.
        code: the starting code of a recipe that does not start from a seed.
        donors: codes among which those are that lend layers in the recipe.

    Raises:
        ValueError: the recipe needs a code and none is given, or does not and one is.
        RunMismatchError: generator, how it was opened, code or boundaries are not those of the recipe.
    """
    generator = bench.generator
    truncation = tuple(float(t) for t in generator.truncation)
    made, here = (recipe.weights or recipe.generator, recipe.truncation), (bench.weights or generator.name, truncation)
    if made != here:
        raise RunMismatchError(
            f"this picture was made by {recipe.generator!r} (weights {recipe.weights[:12] or 'unknown'}, truncation "
            f"{recipe.truncation}); here is {generator.name!r} (weights {bench.weights[:12] or 'unknown'}, truncation "
            f"{truncation})"
        )
    _check_opened(recipe, generator)
    if (code is None) != (recipe.codes is None):
        raise ValueError(
            "this picture starts from a seed; leave the code out"
            if code is not None
            else "this picture starts from a code of its own; give the file of codes it was made from"
        )
    if code is not None and digest_of_codes(code) != recipe.codes:
        raise RunMismatchError("the code is not the one that this picture was made from")
    check_consistent([Instruction(m.concept, m.strength, layers=m.layers) for m in recipe.moves], bench.boundaries)
    others = [bench.boundaries[name] for name in recipe.conditions if name in bench.boundaries]
    chosen = []
    for move in recipe.moves:
        boundary = bench.boundaries[move.concept]
        boundary = project_out(boundary, others) if others else boundary
        if digest_of_normal(boundary) != move.normal:
            raise RunMismatchError(f"the boundary of {move.concept!r} is not the one that this picture was made with")
        chosen.append(Edit(boundary, move.strength, move.layers))
    moved = apply(_start(bench, recipe, code, donors)[None], chosen)
    return Edited(draw(generator, moved)[0], moved[0], tuple(chosen), recipe)


def _opened(generator: Generator) -> dict[str, str]:
    """What else than weights and truncation decides what a generator draws; no part of the protocol."""
    config: Any = getattr(getattr(generator, "network", None), "config", None)
    choices = {
        "label": getattr(generator, "label", None),
        "noise": getattr(generator, "noise", None),
        "precision": getattr(generator, "precision", getattr(generator, "dtype", None)),
        # A BigGAN truncates where its latents come from, and no layers.
        "prior": f"truncation {config.truncation}" if hasattr(config, "truncation") else None,
    }
    # Of any other kind they are somebody's own: modules, functions.
    kinds = (str, int, torch.dtype)
    return {name: str(v).removeprefix("torch.") for name, v in choices.items() if isinstance(v, kinds)}


def _check_opened(recipe: Recipe, generator: Generator) -> None:
    here = _opened(generator)
    for choice, made in recipe.opened.items():
        if here.get(choice) != made:
            raise RunMismatchError(
                f"this picture was made with {choice} {made}; here is {here.get(choice, 'none')}: repeat it with the "
                "run that it was made with, or open the generator as it was"
            )


def _start(bench: Workbench, recipe: Recipe, code: Tensor | None, donors: Sequence[Tensor]) -> Float[Tensor, "L D"]:
    """The code before any move: that of the seed or the file, with the layers lent by others."""
    start = (_own(bench, code) if code is not None else sample(bench.generator, [recipe.seed or 0])[0]).clone()
    known = {digest_of_codes(donor): _own(bench, donor) for donor in donors}
    lent: set[int] = set()
    for loan in recipe.loans:
        check_layers(loan.layers, bench.generator.num_layers)
        if lent & set(loan.layers):
            raise ValueError(f"layer {min(lent & set(loan.layers))} is lent by two samples; choose one of them")
        lent |= set(loan.layers)
        if loan.codes is not None and loan.codes not in known:
            raise ValueError(
                f"layers {format_layers(loan.layers)} are lent by a code that is not among the donors given"
            )
        lender = known[loan.codes] if loan.codes is not None else sample(bench.generator, [loan.seed or 0])[0]
        start[list(loan.layers)] = lender[list(loan.layers)]
    return start


def _own(bench: Workbench, code: Tensor) -> Float[Tensor, "L D"]:
    """A code on the generator's device, checked."""
    expected = (bench.generator.num_layers, bench.generator.code_dim)
    if tuple(code.shape) != expected:
        raise ValueError(f"a code of {bench.generator.name!r} has shape {expected}; got {tuple(code.shape)}")
    return code.to(bench.generator.device).float()


def draw(
    generator: Generator, codes: Float[Tensor, "n L D"], progress: Progress | None = None
) -> UInt8[Tensor, "n 3 H W"]:
    """Images of codes, one after the other: the same bits whatever else is drawn with them."""
    images = []
    for done, code in enumerate(codes, 1):
        images.append(render(generator, code[None]).cpu())
        if progress is not None:
            progress(done, len(codes))
    return torch.cat(images)


def digest_of_codes(code: Float[Tensor, "L D"]) -> str:
    """SHA-256 of a code in float32, by which a recipe recognises it."""
    return hashlib.sha256(code.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
