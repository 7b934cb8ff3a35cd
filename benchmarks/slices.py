"""What it saves to draw rooms in slices whose feature maps fit the processor's cache.

    python benchmarks/slices.py [--generators rooms rooms-128] [--batch 64] [--threads 1] [--rounds 8]

Images of a batch are drawn whole, and from the middle and the last layers on as re-scoring does, all at once and in
slices by turns, so that whatever else the machine does meets both. Best of the rounds; the share of the peak compares
multiply-adds with those of one large matrix product.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial

import torch

import higan.generators.rooms as rooms
from gpu import multiply_adds, peak
from higan import load_generator
from higan.population import sample


def best(works, rounds):
    """Seconds of each piece of work, by turns."""
    times = [math.inf] * len(works)
    for _ in range(rounds):
        for k, work in enumerate(works):
            start = time.perf_counter()
            work()
            times[k] = min(times[k], time.perf_counter() - start)
    return times


def sliced(work, cache):
    def run():
        before, rooms._CACHE = rooms._CACHE, cache
        try:
            work()
        finally:
            rooms._CACHE = before

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generators", nargs="+", default=["rooms", "rooms-128"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fastest = peak(torch.device("cpu"), "float32", 2048)
    print(f"one matrix product: {fastest:.0f} billion multiply-adds a second\n")
    print("| generator | from layer | at once: ms | in slices: ms | ratio | share of the peak |")
    print(f"|{'---|' * 6}")
    for name in options.generators:
        generator = load_generator(name)
        codes = sample(generator, range(options.batch))
        for layer in (0, generator.num_layers // 2, generator.num_layers - 2):
            with torch.inference_mode():
                state = generator.prepare(codes, layer)
                work = partial(generator.resume, state, codes, layer)
                times = best([sliced(work, 2**62), sliced(work, rooms._CACHE)], options.rounds)
                work_done = multiply_adds(work) / options.batch
            whole, slices = (seconds / options.batch * 1e3 for seconds in times)
            share = f"{work_done / (slices / 1e3) / fastest:.0%}"
            print(f"| {name} | {layer} | {whole:.2f} | {slices:.2f} | {whole / slices:.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
