"""What becomes of Δs, ranking and profile when the scorer is wrong.

    python benchmarks/predictor_error.py [--rooms 3000] [--num 4000] [--verify 40] [--random 20] [--out FILE.json]

The embedded scorer is the reference. Beside it stand scorers that are worse in one way each: trained on fewer rooms, a
narrower network besides, trained on rooms of which three in ten carry another room's labels, or the reference with
noise added to its scores. Noise is a function of the picture, so that a scorer still gives one score per picture.

All of them see the same pictures: one population, one boundary per concept and scorer, one re-scoring, in which every
edit is judged by every scorer. For each scorer the table says

- how its scores correlate with the reference's, over samples;
- the cosine between its boundaries and the reference's;
- the effect of its edits as it sees it itself, and as the reference sees it, each as a ratio to the effect of the
  reference's own edits (median over concepts);
- the rank correlation of its ranking with the reference's;
- how many of its concepts are verified, the mean layers of the four levels, and the share of resamples in which those
  that there are come in the paper's order; dashes where there is none, or nothing to order.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from higan import load_generator, load_scorer
from higan.boundaries import fit
from higan.hierarchy import profile
from higan.memory import keep_memory
from higan.population import measure, sample_seeds
from higan.refits import permuted
from higan.rescoring import rescore
from higan.rooms import supervised
from higan.rooms.dataset import RoomsData, sample_rooms
from higan.scorers.combined import ChosenScorer, CombinedScorer
from higan.scorers.rooms import RoomsScorer
from higan.statistics import standardise, table
from higan.types import LEVELS, Concept

CONCEPTS = (
    "view_yaw", "camera_side", "bedroom", "dining_room", "plant", "window_right", "natural_light", "indoor_lighting",
    "wood", "warm_colours", "red_colours", "lightness",
)  # fmt: skip
HELD_OUT = 30_000_000


class Renamed:
    """A scorer whose concepts carry a suffix, so that several of a kind can be judged side by side."""

    def __init__(self, scorer, suffix):
        self.scorer, self.name = scorer, suffix
        self.concepts = tuple(Concept(f"{c.name}@{suffix}", c.level) for c in scorer.concepts)

    def score(self, images):
        return self.scorer.score(images)


class Noisy:
    """A scorer with normal noise of ``scale`` standard deviations on every score, drawn from the picture itself."""

    def __init__(self, scorer, std, scale):
        self.scorer, self.scale, self.name, self.concepts = scorer, std * scale, "noisy", scorer.concepts
        self.waves = torch.randn(3 * 64 * 64, len(scorer.concepts), generator=torch.Generator().manual_seed(0)) * 40

    def score(self, images):
        # Sines of a projection so steep that neighbouring pictures have nothing to do with one another; arcsine of
        # their values is uniform in phase, and two of them make a normal variable (Box and Muller 1958).
        phase = torch.frac(images.float().flatten(1) / 255 @ self.waves)
        other = torch.frac(images.float().flatten(1) / 255 @ self.waves.roll(1, 0))
        normal = (-2 * phase.abs().clamp(min=1e-6).log()).sqrt() * (2 * torch.pi * other).cos()
        return self.scorer.score(images) + normal * self.scale


def rooms(num, first=HELD_OUT):
    """Rendered rooms with their ground truth, in memory."""
    batch = sample_rooms(range(first, first + num))
    return RoomsData(batch.images.numpy(), batch.masks.numpy(), batch.factors.numpy())


def mislabelled(data, share, seed=0):
    """The same rooms, a share of which carry another room's masks and factors."""
    draw = np.random.default_rng(seed)
    wrong = draw.permutation(len(data))[: round(share * len(data))]
    order = np.arange(len(data))
    order[wrong] = np.roll(wrong, 1)
    return dataclasses.replace(data, masks=data.masks[order], factors=data.factors[order])


def trained(data, epochs, **size):
    """A scorer trained as the embedded one was, offering all it knows, however well."""
    found = supervised.train_scorer(data, epochs=epochs, **size)
    offered = tuple(dataclasses.replace(o, shown=True) for o in found.outputs)
    return RoomsScorer(found.network, offered, metadata=found.metadata)


def scorers(reference, std, num_rooms):
    """Scorers by name, worse in one way each; colours come from the pixels, and are the same in all but noise."""
    names = [c.name for c in reference.concepts if c.level != "colour"]
    colours = [c.name for c in reference.concepts if c.level == "colour"]

    def with_colours(network):
        return CombinedScorer([ChosenScorer(network, names), ChosenScorer(reference, colours)])

    data = rooms(num_rooms)
    few = RoomsData(*(part[: max(num_rooms // 5, 300)] for part in (data.images, data.masks, data.factors)))
    yield "reference", reference
    yield f"{num_rooms:,} rooms", with_colours(trained(data, 6))
    yield f"{len(few):,} rooms, narrow", with_colours(trained(few, 6, widths=(8, 12, 16, 24), features=48))
    yield f"{num_rooms:,} rooms, 30 % mislabelled", with_colours(trained(mislabelled(data, 0.3), 6))
    yield "noise of ½ σ", Noisy(reference, std, 0.5)
    yield "noise of 1 σ", Noisy(reference, std, 1.0)


def compare(generator, reference, *, num, verify, num_rooms, num_random=20):
    """One row per scorer."""
    std = measure(generator, reference, sample_seeds(256, first=2**20)).scores.std(0)
    named = dict(scorers(reference, std, num_rooms))
    judges = CombinedScorer([Renamed(scorer, name) for name, scorer in named.items()])
    population = measure(generator, judges, sample_seeds(num))
    boundaries = fit(population)
    found = rescore(
        generator, judges, boundaries, num=verify, num_random=num_random, permuted=permuted(population, num_random)
    )
    return [row(name, found, population, boundaries) for name in named]


def row(name, found, population, boundaries):
    """What one scorer says, beside the reference."""
    at = [k for k, c in enumerate(found.concepts) if c.name.endswith(f"@{name}")]
    concepts = [found.concepts[k].name.split("@")[0] for k in at]
    reference = [[c.name for c in found.concepts].index(f"{concept}@reference") for concept in concepts]
    scores = population.scores.double()
    correlation = [float(torch.corrcoef(scores[:, [a, b]].T)[0, 1]) for a, b in zip(at, reference, strict=True)]
    cosine = [float(boundaries[a].normal @ boundaries[b].normal) for a, b in zip(at, reference, strict=True)]
    whole = table(found, num_resamples=2)
    effect = whole.effect[:, 0]
    # effects: mean change of every score (last) under every edit (first), in units of the score that changes
    seen = standardise(found, found.effects[:, 0].T).T
    own_view = [float(seen[a, a] / seen[b, b]) for a, b in zip(at, reference, strict=True)]
    true_view = [float(seen[a, b] / seen[b, b]) for a, b in zip(at, reference, strict=True)]
    part = dataclasses.replace(
        found,
        concepts=tuple(found.concepts[k] for k in at),
        originals=found.originals[:, at],
        changes=found.changes[at],
        effects=found.effects[at][..., at],
        null=found.null[..., at],
        score_std=found.score_std[at],
        permuted=found.permuted[..., at],
    )
    counted = [found.concepts[a].name for a, b in zip(at, reference, strict=True) if bool(whole.verified[b, 0])]
    levels = profile(part, concepts=counted)
    centre = dict(zip(levels.levels, levels.centre.tolist(), strict=True))
    return {
        "scorer": name,
        "correlation": np.median(correlation).item(),
        "cosine": np.median(cosine).item(),
        "own view": np.median(own_view).item(),
        "reference's view": np.median(true_view).item(),
        "rank": float(spearmanr(effect[at], effect[reference]).statistic),
        "verified": int(table(part, num_resamples=2).verified[:, 0].sum()),
        "of": len(at),
        **{level: centre.get(level) for level in LEVELS},
        "in order": None if math.isnan(levels.in_order) else levels.in_order,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=3000)
    parser.add_argument("--num", type=int, default=4000)
    parser.add_argument("--verify", type=int, default=40)
    parser.add_argument("--random", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_memory()
    start = time.monotonic()
    generator, reference = load_generator("rooms"), ChosenScorer(load_scorer("rooms"), CONCEPTS)
    rows = compare(
        generator,
        reference,
        num=arguments.num,
        verify=arguments.verify,
        num_rooms=arguments.rooms,
        num_random=arguments.random,
    )
    head = [*rows[0]]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for found in rows:
        print(
            "| "
            + " | ".join("–" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in found.values())
            + " |"
        )
    print(f"\n{time.monotonic() - start:.0f} seconds")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
