"""Trains the predictor of the transparent generator's factors, three minutes on one core, and says how good it is.

    python benchmarks/transparent_scorer.py [--out FILE.safetensors] [--steps 4000]

Pictures are drawn afresh from independent values, half of them as the generator spreads them and half evenly, so that
no mixing, leak or turn of any generator is known to the predictor. Quality is the correlation with the exact values on
samples of generators at several entanglements.
"""

import argparse
from pathlib import Path

import torch

from higan.generators.transparent import FACTORS, TransparentGenerator, draw
from higan.memory import keep_memory
from higan.population import to_uint8
from higan.scorers.loading import WEIGHTS
from higan.scorers.transparent import TransparentScorer, TransparentScorerNetwork
from higan.types import Concept


def sample_values(num, dice):
    gain = torch.tensor([f.gain for f in FACTORS])
    spread = torch.tanh(gain * 1.2 * torch.randn(num, len(FACTORS), generator=dice))
    even = 2 * torch.rand(num, len(FACTORS), generator=dice) - 1
    return torch.where(torch.rand(num, 1, generator=dice) < 0.5, spread, even)


def train(steps, batch, seed=0):
    dice = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = TransparentScorerNetwork(len(FACTORS)).train()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        values = sample_values(batch, dice)
        with torch.no_grad():
            images = to_uint8(draw(values)).float() / 127.5 - 1
        loss = (network(images) - values).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"step {step}: error {loss.item() ** 0.5:.3f}", flush=True)
    return network


def quality(scorer, entanglement, num=2000):
    generator = TransparentGenerator(entanglement, seed=7)
    codes = generator.map(generator.latents(range(num)))
    truth = generator.values(codes)
    found = torch.cat([scorer.score(to_uint8(generator.synthesize(part))) for part in codes.split(64)])
    both = [torch.corrcoef(torch.stack([truth[:, f], found[:, f]]))[0, 1] for f in range(len(FACTORS))]
    return {factor.name: round(float(r), 4) for factor, r in zip(FACTORS, both, strict=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS / "transparent.safetensors")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    keep_memory()
    network = train(options.steps, options.batch)
    concepts = [Concept(f.name, f.level) for f in FACTORS]
    scorer = TransparentScorer(network, concepts, metadata={"images": options.steps * options.batch})
    results = {str(e): quality(scorer, e) for e in (0.0, 0.5, 1.0)}
    scorer.metadata["quality"] = results["0.5"]
    scorer.save(options.out)
    print("\n| factor | " + " | ".join(f"entanglement {e}" for e in results) + " |\n|---|" + "---|" * len(results))
    for factor in FACTORS:
        print(f"| {factor.name} | " + " | ".join(f"{r[factor.name]:.3f}" for r in results.values()) + " |")


if __name__ == "__main__":
    main()
