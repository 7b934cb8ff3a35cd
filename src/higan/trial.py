"""Whether generator and scorer can be measured, and whether they are those that a run was begun with.

Both are asked before hours go into numbers that nothing would show to be wrong.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from higan.blame import blamed
from higan.conformance import RESCALE, strange_range
from higan.errors import CorruptRunError, GeneratorError, RunMismatchError, ScorerError
from higan.population import check_images, render, sample, sample_seeds, score
from higan.store import Run, read_shard
from higan.types import Generator, Population, Scorer

__all__ = ["check_contract", "check_imported", "check_same"]

_NUM = 3
_GREY_LEVELS = 4.0
"""Half precision and other sizes of a batch round differently, by one or two levels on average."""
_SIGMAS = 0.25
_SAME_SIGMAS = 0.5
"""Another device or precision moves scores by a twentieth of a standard deviation."""


def check_contract(generator: Generator, scorer: Scorer) -> None:
    """Draws and scores three samples together and one by one.

    Raises:
        GeneratorError: pictures are not in [-1, 1], the same codes give other pictures alone, or at another call.
        ScorerError: the same pictures have other scores alone, or at another call.
    """
    seeds = sample_seeds(_NUM)
    codes = sample(generator, seeds)
    with torch.inference_mode(), blamed(f"generator {generator.name!r}", GeneratorError):
        drawn = generator.synthesize(codes)
    images = check_images(generator, drawn, _NUM)
    if flaw := strange_range(drawn):
        raise GeneratorError(f"{generator.name!r} draws pictures in another range: {flaw}. Let it {RESCALE}")
    alone = torch.cat([render(generator, code[None]) for code in codes])
    apart = float((images.float() - alone.float()).abs().mean((1, 2, 3)).max())
    if apart > _GREY_LEVELS:
        raise GeneratorError(
            f"{generator.name!r} draws other pictures of the same codes when they are drawn one by one: {apart:.0f} "
            "grey levels apart on average. Every edit would be measured against that: let no operation look across the "
            "batch (network.eval()), and draw noise once, not at every call"
        )
    scores = score(scorer, images, seeds)
    others = torch.cat([score(scorer, images[k : k + 1], seeds[k : k + 1]) for k in range(_NUM)])
    allowed = _SIGMAS * scores.std(0) + 0.01 * scores.abs().amax(0) + 1e-6
    worst = ((scores - others).abs() / allowed).amax(0)
    if float(worst.max()) > 1:
        name = scorer.concepts[int(worst.argmax())].name
        raise ScorerError(
            f"scorer {scorer.name!r} gives the same pictures other scores when they are scored one by one ({name!r} "
            f"{_listed(scores[:, int(worst.argmax())])}, then {_listed(others[:, int(worst.argmax())])}): let no "
            "operation look across the batch or draw at random (network.eval())"
        )


def check_same(run: Run, generator: Generator, scorer: Scorer | None = None) -> None:
    """Draws a run's first sample again, and scores it, if the run has it.

    Raises:
        RunMismatchError: its code or its scores are others.
    """
    try:
        kept = read_shard(run, 0)
    except CorruptRunError:
        return
    if "imported from" in run.provenance:  # Its samples were not drawn from seeds.
        check_imported(kept, generator, scorer)
        return
    code = sample(generator, kept.seeds[:1])
    there = kept.codes[:1].to(code).expand_as(code) if kept.codes.shape[2:] == code.shape[2:] else None
    spread = kept.codes.std() if len(kept) > 1 else kept.codes.abs().mean()
    if there is None or float((code - there).abs().max()) > 0.05 * float(spread):
        raise RunMismatchError(
            f"{run.path} was begun with another generator than {generator.name!r} is here: the code of its first "
            "sample is another; open the one that it was begun with, or begin a run in another folder"
        )
    if scorer is None or [c.name for c in kept.concepts] != [c.name for c in scorer.concepts] or len(kept) < 2:
        return
    std = kept.scores.std(0)
    gaps = (score(scorer, render(generator, code))[0].cpu() - kept.scores[0]).abs() / std.clamp(min=1e-12)
    gaps = torch.where(std > 0, gaps, 0.0)
    if float(gaps.max()) > _SAME_SIGMAS:
        raise RunMismatchError(
            f"{run.path} was begun with another generator or scorer than {generator.name!r} and {scorer.name!r} are "
            f"here: its first sample's score for {kept.concepts[int(gaps.argmax())].name!r} is {float(gaps.max()):.1f} "
            "standard deviations off; open those that it was begun with, or begin a run in another folder"
        )


def check_imported(population: Population, generator: Generator, scorer: Scorer | None = None) -> None:
    """Draws three samples of another tool from their codes, and scores them, to see whether they are this generator's.

    Raises:
        RunMismatchError: codes have another shape, or scores that the scorer knows are others.
    """
    shape, own = (population.num_layers, population.codes.shape[2]), (generator.num_layers, generator.code_dim)
    if shape != own:
        raise RunMismatchError(
            f"the samples have {shape[0]} layers with codes of width {shape[1]}; {generator.name!r} has {own[0]} of "
            f"width {own[1]}: open the generator that they are of"
        )
    if scorer is None or len(population) < 2:
        return
    codes = population.codes[:_NUM].to(generator.device).expand(-1, generator.num_layers, -1)
    columns = {concept.name: column for column, concept in enumerate(scorer.concepts)}
    drawn = score(scorer, render(generator, codes)).cpu()
    for k, concept in enumerate(population.concepts):
        std = float(population.scores[:, k].std())
        if concept.name not in columns or std == 0:
            continue
        gap = float((drawn[:, columns[concept.name]] - population.scores[: len(drawn), k]).abs().mean()) / std
        if gap > _SAME_SIGMAS:
            raise RunMismatchError(
                f"scores of {concept.name!r} are {gap:.1f} standard deviations off where the samples are drawn and "
                f"scored by {generator.name!r} and {scorer.name!r}: open those that they were made with"
            )


def _listed(values: Float[Tensor, " n"]) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())
