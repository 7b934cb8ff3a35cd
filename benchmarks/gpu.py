"""Images per second on a GPU in half precision, and the minutes that the paper's study would take at these rates.

    python benchmarks/gpu.py [--device cuda] [--batch 64] [--precision bfloat16] [--compiled]

StyleGAN2 at 256 pixels and the scene predictor, both with random weights of the published widths. The study: 500,000
samples drawn and scored, boundaries of 100 concepts, and 100 concepts verified at all layers and each of fourteen with
K = 1000, each image drawn from its first edited layer on. Runs on a CPU as well, with ``--resolution 32 --batch 2``.
"""

from __future__ import annotations

import argparse
import time

import torch

from higan.boundaries import fit
from higan.generators.pretrained import wrap
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.population import to_uint8
from higan.scorers.places import PlacesNetwork, PlacesScorer
from higan.types import Concept, Population

CHANNELS = (512, 512, 512, 512, 256, 128, 64)


def models(device, precision, resolution, *, compiled=False):
    torch.manual_seed(0)
    channels = CHANNELS[: resolution.bit_length() - 2]
    network = StyleGAN2Network(StyleGAN2Config(resolution, channels))
    state = {name: torch.randn_like(value) * 0.1 for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    generator = wrap(network, "stylegan2", device, precision=precision, compiled=compiled)
    places = PlacesNetwork("wideresnet18")
    scorer = PlacesScorer(places, torch.randn(102, 512), precision=precision, compiled=compiled, device=device)
    return generator, scorer


def rate(device, images, work, rounds):
    """Images per second, the first call not counted."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return rounds * images / (time.perf_counter() - start)


def peak(device, precision, size):
    """Billions of multiply-adds a second of a matrix product."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, precision))
    return rate(device, 1, lambda: a @ a, 10) * size**3 / 1e9


def multiply_adds(work):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2e9


def seconds_of_fits(device, concepts, num, width=512):
    codes = torch.randn(num, 1, width, device=device)
    scores = codes[:, 0] @ torch.randn(width, concepts, device=device)
    scores = scores + scores.std(0) * torch.randn_like(scores)
    named = tuple(Concept(f"concept {k}", "attribute") for k in range(concepts))
    population = Population(torch.arange(num), codes, scores, named, 14)
    return 1 / rate(device, 1, lambda: fit(population), 1)


@torch.inference_mode()
def measure(options):
    device = torch.device(options.device)
    generator, scorer = models(device, options.precision, options.resolution, compiled=options.compiled)
    depth = generator.num_layers
    codes = generator.map(generator.latents(range(options.batch)))
    images = to_uint8(generator.synthesize(codes))
    rates = {"drawn": rate(device, options.batch, lambda: generator.synthesize(codes), options.rounds)}
    rates["scored"] = rate(device, options.batch, lambda: scorer.score(images), options.rounds)
    resumed = []
    for layer in range(depth):
        state = generator.prepare(codes, layer)
        resumed.append(
            rate(device, options.batch, lambda s=state, k=layer: generator.resume(s, codes, k), options.rounds)
        )
    # Compiled code cannot be counted.
    generator, scorer = models(device, options.precision, options.resolution)
    single = {"drawn": lambda: generator.synthesize(codes[:1]), "scored": lambda: scorer.score(images[:1])}
    work = {name: multiply_adds(call) for name, call in single.items()}
    return rates, resumed, work, peak(device, options.precision, options.matrix)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--compiled", action="store_true", help="by torch.compile")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--matrix", type=int, default=4096)
    parser.add_argument("--num", type=int, default=500_000)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--verify", type=int, default=1000)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    rates, resumed, work, most = measure(options)
    how = f"{options.precision}, compiled" if options.compiled else options.precision
    print(f"{name}, {how}, {options.resolution} pixels, batches of {options.batch}")
    print("| part | images a second | billions of multiply-adds an image | share of the measured peak |")
    print("|---|---|---|---|")
    for part, value in rates.items():
        print(f"| {part} | {value:,.1f} | {work[part]:.1f} | {value * work[part] / most:.0%} |")
    fits = seconds_of_fits(torch.device(options.device), options.concepts, min(options.num, 10_000))
    probing = options.num * (1 / rates["drawn"] + 1 / rates["scored"])
    sets = [rates["drawn"], *resumed]
    verifying = options.verify * options.concepts * sum(1 / drawn + 1 / rates["scored"] for drawn in sets)
    print(f"\nmeasured peak of a matrix product: {most:,.0f} billion multiply-adds a second")
    print("\nThe paper's study at these rates, in minutes")
    print("| probing | fitting | verifying | together |\n|---|---|---|---|")
    parts = [probing / 60, fits / 60, verifying / 60]
    print(f"| {' | '.join(f'{minutes:,.1f}' for minutes in (*parts, sum(parts)))} |")


if __name__ == "__main__":
    main()
