"""How much adaptive verification saves, and how often it says what the fixed run says.

    python benchmarks/adaptive.py [--world rooms toy] [--num 1024] [--repetitions 200] [--cache DIR]

A fixed run of K samples is recorded once. Then the allocation is replayed on K samples in an order drawn anew, 16 at a
time, as often as asked: the images it would have drawn, its strongest concepts and the strongest layer of every
concept that the fixed run verifies are compared with the fixed run's. Where concepts tie, the fixed run does not agree
with itself either: the last columns say how often two fixed runs of K samples, drawn from the record with
replacement, agree with each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from higan import load_generator, load_scorer
from higan.adaptive import Race
from higan.boundaries import fit
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.memory import keep_memory
from higan.population import measure, sample_seeds
from higan.rescoring import cost, plan_of
from higan.scorers.toy import ToyScorer
from higan.statistics import rank
from higan.types import Rescoring

BLOCK = 16
NUM_RANDOM = 20
TOP = 10


def toy():
    """Fourteen layers, boundaries fitted to few samples, so that no two concepts are equally strong."""
    generator, scorer = ToyGenerator(14, 24, 16), ToyScorer(14, 16, saturating=True)
    return generator, scorer, fit(measure(generator, scorer, range(600), batch_size=200))


def rooms():
    """The embedded generator."""
    generator, scorer = load_generator("rooms"), load_scorer("rooms")
    return generator, scorer, fit(measure(generator, scorer, range(6000)))


WORLDS = {"toy": toy, "rooms": rooms}


def plan_for(generator, scorer, boundaries, num):
    return plan_of(
        generator, scorer, boundaries, num=num, step=2.0, seed=0, places=None, num_random=NUM_RANDOM, permuted=(),
        step_mode="official", batch_size=BLOCK,
    )  # fmt: skip


def record(plan, num, folder):
    """Every sample at all layers and at each; random directions, in blocks, at all layers. Goes on where it was."""
    C, N, P = len(plan.columns), len(plan.directions), len(plan.places)
    single = [p for p, place in enumerate(plan.places) if len(place.layers) == 1]
    wanted = torch.zeros(N, P, dtype=torch.bool)
    wanted[:C, single] = True
    wanted[:, 0] = True
    units = []
    for k, batch in enumerate(torch.split(sample_seeds(num, purpose="verify"), BLOCK)):
        path = folder / f"unit-{k:04d}.safetensors"
        if not path.exists():
            unit = plan.run(batch, wanted=plan.aligned(wanted))
            save_file({name: unit[name].contiguous() for name in ("originals", "changes", "null")}, path)
        units.append(load_file(path))
        if k % 8 == 7:
            print(f"recorded {(k + 1) * BLOCK} of {num} samples", flush=True)
    originals, changes = (torch.cat([u[name] for u in units], d) for name, d in (("originals", 0), ("changes", -1)))
    return originals, changes, torch.stack([u["null"][:, 0] for u in units]) / BLOCK


def replay(plan, originals, changes, null, batch):
    """The allocation on these samples in this order; images are those of the default placements."""
    C, num = len(plan.columns), len(originals)
    race = Race(plan.places, C, num, TOP)
    changes = changes.clone()
    wanted = torch.ones(len(plan.directions), len(plan.places), dtype=torch.bool)
    images, n, blocks = num, 0, 0
    while n < num and bool(wanted.any()):
        size = min(batch, num - n)
        images += size * plan.num_edits(wanted)
        changes[..., n:][~wanted[:C]] = torch.nan
        n += size
        if bool(wanted[C:, 0].any()):
            blocks = n // BLOCK
        race.update(changes[..., :n], originals, [null[:blocks].mean(0)])
        cells, more = race.wanted()
        wanted = plan.aligned(torch.cat([cells, more.expand(NUM_RANDOM, -1)]))
        changes[..., n:][~wanted[:C]] = torch.nan
    top, peaks = race.verdict(changes, originals)
    return images, set(top), peaks


def fixed(plan, originals, changes, null):
    """Strongest concepts, the strongest layer of every concept, and which are verified."""
    C = len(plan.columns)
    single = [next(p for p, q in enumerate(plan.places) if q.layers == (x,)) for x in range(plan.generator.num_layers)]
    rise = changes.double().clamp(min=0).mean(-1)
    std = originals.double().std(0)
    effect = torch.where(std > 0, rise[:, 0] / std.clamp(min=1e-300), 0.0)
    concepts = tuple(plan.scorer.concepts[c] for c in plan.columns)
    rescoring = Rescoring(
        concepts=concepts, placements=plan.places[:1], step=2.0, seeds=torch.arange(len(originals)),
        originals=originals, changes=changes[:, :1].contiguous(), effects=torch.zeros(C, 1, C),
        null=null.mean(0)[:, None].float(), score_std=std.float(),
    )  # fmt: skip
    sure = {row.concept.name for row in rank(rescoring, num_resamples=2) if row.verified}
    verified = [c for c, concept in enumerate(concepts) if concept.name in sure]
    return (
        set(effect.argsort(descending=True, stable=True)[:TOP].tolist()),
        rise[:, single].argmax(1).tolist(),
        verified,
    )


def agreement(name, plan, data, repetitions, batch):
    originals, changes, null = data
    num = len(originals)
    top, peaks, verified = fixed(plan, *data)
    places = placements(plan.generator.num_layers)
    budget = cost(len(plan.columns), places, num=num, num_random=NUM_RANDOM)
    seen, same_top, same_peaks, same_both, overlap, twice = [], 0, 0, 0, 0, [0, 0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(repetitions):
        order = torch.randperm(num // BLOCK, generator=generator)
        rows = (order[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        images, found, layers = replay(plan, originals[rows], changes[..., rows], null[order], batch)
        seen.append(images / budget)
        agree = [found == top, all(layers[c] == peaks[c] for c in verified)]
        same_top, same_peaks, same_both = same_top + agree[0], same_peaks + agree[1], same_both + all(agree)
        overlap += len(found & top)
        pair = []
        for _ in range(2):
            order = torch.randint(num // BLOCK, (num // BLOCK,), generator=generator)
            rows = (order[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
            pair.append(fixed(plan, originals[rows], changes[..., rows], null[order]))
        twice[0] += pair[0][0] == pair[1][0]
        twice[1] += all(pair[0][1][c] == pair[1][1][c] for c in verified)
    share = torch.tensor(seen)
    row = [
        name, num, batch, len(plan.columns), len(verified), f"{budget:,}",
        f"{share.mean():.1%} ({share.quantile(0.05):.1%} – {share.quantile(0.95):.1%})",
        f"{same_top / repetitions:.1%}", f"{same_peaks / repetitions:.1%}", f"{same_both / repetitions:.1%}",
        f"{overlap / repetitions:.2f}", *(f"{count / repetitions:.1%}" for count in twice),
    ]  # fmt: skip
    print("| " + " | ".join(map(str, row)) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", nargs="*", default=["toy", "rooms"], choices=list(WORLDS))
    parser.add_argument("--num", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="*", default=[32])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path("adaptive-record"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    data = {}
    for name in options.world:
        plan = plan_for(*WORLDS[name](), options.num)
        folder = options.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        data[name] = plan, record(plan, options.num, folder)
    columns = (
        "world", "K", "batch", "concepts", "verified", "images of the fixed run", "share of them drawn (5 – 95 %)",
        "same top 10", "same peaks", "both", "of 10 in common", "two fixed runs: same top 10", "same peaks",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, (plan, recorded) in data.items():
        for batch in options.batch:
            agreement(name, plan, recorded, options.repetitions, batch)


if __name__ == "__main__":
    main()
