"""How many samples it takes to verify single layers.

    python benchmarks/layer_power.py [--generator NAME] [--scorer NAME] [--num 10000] [--verify 96] [--cache DIR]

Fresh samples are re-scored once under every boundary and both nulls, in blocks of 16. Of 16, 32, 48 … of them that
follow one another, as often as they fit without overlap, the table says: concepts verified at all layers, how many of
those are verified at the layer where they are strongest, and verified cells of single layers. The first line is what
adaptive verification has there (`higan demo`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from higan import load_generator, load_scorer
from higan.boundaries import fit
from higan.memory import keep_memory
from higan.population import measure, sample_seeds
from higan.refits import permuted
from higan.rescoring import plan_of, together
from higan.statistics import table
from higan.types import Rescoring

BLOCK = 16
NUM_RANDOM = NUM_PERMUTED = 20


def record(plan, num, folder):
    """Blocks of samples under every edit; goes on where it was."""
    units = []
    for k, batch in enumerate(torch.split(sample_seeds(num, purpose="verify"), BLOCK)):
        path = folder / f"unit-{k:04d}.safetensors"
        if not path.exists():
            save_file({name: t.contiguous() for name, t in plan.run(batch).items()}, path)
            print(f"recorded {(k + 1) * BLOCK} of {num} samples", flush=True)
        units.append(load_file(path))
    return units


def rescored(plan, units):
    """What a re-scoring of these blocks alone would have kept."""
    whole = together(units)
    num = len(whole["originals"])
    null = (whole["null"] / num).float()
    return Rescoring(
        concepts=tuple(plan.scorer.concepts[c] for c in plan.columns), placements=plan.places, step=2.0,
        seeds=torch.arange(num), originals=whole["originals"], changes=whole["changes"],
        effects=(whole["effects"] / num).float(), null=null[:NUM_RANDOM],
        score_std=plan.score_std(whole["originals"]).float(), permuted=null[NUM_RANDOM:],
    )  # fmt: skip


def verified(rescoring):
    """Concepts at all layers, those of them that are verified at their strongest layer, cells of single layers."""
    places = [placement.layers for placement in rescoring.placements]
    L = 1 + max(max(layers) for layers in places)
    single = [places.index((layer,)) for layer in range(L)]
    found = table(rescoring, num_resamples=2)
    concept = found.verified[:, places.index(tuple(range(L)))]
    peak = found.delta[:, single].argmax(1)
    at_peak = found.verified[:, single].gather(1, peak[:, None])[:, 0]
    return int(concept.sum()), int((concept & at_peak).sum()), int(found.verified[:, single].sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="rooms-128")
    parser.add_argument("--scorer", default="rooms-128")
    parser.add_argument("--num", type=int, default=10_000, help="samples that boundaries are fitted to")
    parser.add_argument("--verify", type=int, default=96, help=f"samples re-scored, a multiple of {BLOCK}")
    parser.add_argument("--cache", type=Path, help="where finished blocks are kept")
    chosen = parser.parse_args()
    if chosen.verify < BLOCK or chosen.verify % BLOCK:
        parser.error(f"--verify must be a multiple of {BLOCK}; got {chosen.verify}")
    keep_memory()
    generator, scorer = load_generator(chosen.generator), load_scorer(chosen.scorer)
    population = measure(generator, scorer, sample_seeds(chosen.num))
    plan = plan_of(
        generator, scorer, fit(population), num=chosen.verify, step=2.0, seed=0, places=None, num_random=NUM_RANDOM,
        permuted=permuted(population, NUM_PERMUTED), step_mode="official", batch_size=BLOCK,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.cache or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        units = record(plan, chosen.verify, folder)
    print("\n| samples | concepts verified | of those at their strongest layer | cells of single layers |")
    print("|---|---|---|---|")
    for size in range(1, len(units) + 1):
        parts = [units[k : k + size] for k in range(0, len(units) - size + 1, size)]
        counts = torch.tensor([verified(rescored(plan, part)) for part in parts], dtype=torch.float64)
        cells = (f"{mean:.1f} ({low:.0f} – {high:.0f})" for mean, low, high in zip(
            counts.mean(0), counts.amin(0), counts.amax(0), strict=True))  # fmt: skip
        print(f"| {size * BLOCK}, {len(parts)} times | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
