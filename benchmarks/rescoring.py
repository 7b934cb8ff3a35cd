"""Images per second, of the processor on a CPU, when edits of few samples are drawn and scored singly and together.

    python benchmarks/rescoring.py [--world rooms stylegan2-64 stylegan2-256] [--samples 1 4 16] [--rounds 5]

A unit of few samples (the last of a re-scoring, a share of a look of adaptive verification, units for many workers),
moved at the first, the middle and the last layer, along so many directions that there are 32 edited images at each.
StyleGAN2 and the scene predictor have random weights of the published widths; on a CPU the former draws one image at a
time whatever it is asked for, so that only scoring gains. Both ways run by turns; the ratio is that of the medians
(above 1: several are faster).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from gpu import models
from higan import load_generator, load_scorer
from higan.boundaries import random_directions
from higan.memory import keep_memory
from higan.population import sample_seeds
from higan.rescoring import plan_of
from higan.types import Boundary, Placement

IMAGES = 32


def world(name, device):
    if name == "rooms":
        return load_generator("rooms", device=device), load_scorer("rooms", device=device)
    return models(torch.device(device), "float32", int(name.partition("-")[2]))


def plan_for(generator, scorer, directions, images_at_once):
    last = generator.num_layers - 1
    normals = random_directions(directions, generator.code_dim, seed=1)
    edits = [Boundary(scorer.concepts[0], normal, torch.tensor(0.0), 0.5) for normal in normals]
    return plan_of(
        generator, scorer, edits[:1], num=IMAGES, step=2.0, seed=0,
        places=[Placement(f"layer {layer}", (layer,)) for layer in (0, last // 2, last)], num_random=1,
        permuted=edits[1:], step_mode="official", batch_size=IMAGES, images_at_once=images_at_once,
    )  # fmt: skip


def seconds(plan, seeds, wanted, originals):
    clock = time.process_time if plan.generator.device.type == "cpu" else time.perf_counter
    start = clock()
    plan.run(seeds, wanted=wanted, originals=originals)
    return clock() - start


def compare(generator, scorer, samples, rounds, at_once):
    directions = IMAGES // samples
    plans = [plan_for(generator, scorer, directions, images) for images in (1, at_once)]
    seeds = sample_seeds(samples, purpose="verify")
    wanted = torch.ones(len(plans[0].directions), 3, dtype=torch.bool)
    wanted[1] = False  # the one random direction that a plan must have
    originals = plans[0].originals(seeds)
    times = [[seconds(plan, seeds, wanted, originals) for plan in plans] for _ in range(rounds + 1)][1:]
    return [3 * IMAGES / statistics.median(column) for column in zip(*times, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", nargs="*", default=["rooms", "stylegan2-64", "stylegan2-256"])
    parser.add_argument("--samples", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images-at-once", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    print("| generator | samples | one edit at a time | several | ratio |\n|---|---|---|---|---|")
    for name in options.world:
        pair = world(name, options.device)
        for samples in options.samples:
            one, several = compare(*pair, samples, options.rounds, options.images_at_once)
            print(f"| {name} | {samples} | {one:.1f} | {several:.1f} | {several / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
