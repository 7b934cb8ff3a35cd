"""How much adaptive verification saves, and how often it says what the fixed run says.

    python benchmarks/adaptive.py [--world rooms toy] [--record 1024] [--num 1024] [--repetitions 200] [--cache DIR]

Some samples are recorded once, under every edit. As often as asked, K samples are drawn from the record with
replacement: the fixed run ranks them all, adaptive verification takes them one batch after the other and stops where
it stops. Compared are the strongest ten concepts and the strongest layer of every concept that the fixed run verifies.
Where concepts tie, fixed runs do not agree with each other either: the last columns say how often two of them do,
of samples drawn independently.
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
    """Every sample at all layers, at each and at every stage; random directions at all layers. Goes on where it was."""
    C, N, P = len(plan.columns), len(plan.directions), len(plan.places)
    wanted = torch.zeros(N, P, dtype=torch.bool)
    wanted[:C] = True
    wanted[:, 0] = True
    units = []
    for k, batch in enumerate(torch.split(sample_seeds(num, purpose="verify"), BLOCK)):
        path = folder / f"unit-{k:04d}.safetensors"
        if not path.exists():
            unit = plan.run(batch, wanted=plan.aligned(wanted))
            save_file({name: unit[name].contiguous() for name in ("originals", "changes", "null_rises")}, path)
        units.append(load_file(path))
        if k % 8 == 7:
            print(f"recorded {(k + 1) * BLOCK} of {num} samples", flush=True)
    axes = {"originals": 0, "changes": -1, "null_rises": -1}
    return tuple(torch.cat([unit[name] for unit in units], axis) for name, axis in axes.items())


def replay(plan, originals, changes, null, batch):
    """The allocation on these samples in this order; images are those of the default placements."""
    C, num = len(plan.columns), len(originals)
    race = Race(plan.places, C, num, plan.generator.num_layers, TOP)
    changes = changes.clone()
    wanted = torch.ones(len(plan.directions), len(plan.places), dtype=torch.bool)
    images, n, m = num, 0, 0
    while n < num and bool(wanted.any()):
        size = min(batch, num - n)
        images += size * plan.num_edits(wanted)
        changes[..., n:][~wanted[:C]] = torch.nan
        n += size
        if bool(wanted[C:, 0].any()):
            m = n
        race.update(changes[..., :n], plan.score_std(originals), [null[..., :m]])
        cells, more = race.wanted()
        wanted = plan.aligned(torch.cat([cells, more.expand(NUM_RANDOM, -1)]))
        changes[..., n:][~wanted[:C]] = torch.nan
    top, peaks = race.verdict(changes, plan.score_std(originals))
    return images, set(top), peaks


def fixed(plan, originals, changes, null):
    """Strongest concepts, the strongest layer of every concept, and which are verified."""
    C = len(plan.columns)
    single = [next(p for p, q in enumerate(plan.places) if q.layers == (x,)) for x in range(plan.generator.num_layers)]
    rise = changes.double().clamp(min=0).mean(-1)
    std = plan.score_std(originals)
    effect = torch.where(std > 0, rise[:, 0] / std.clamp(min=1e-300), 0.0)
    concepts = tuple(plan.scorer.concepts[c] for c in plan.columns)
    rescoring = Rescoring(
        concepts=concepts, placements=plan.places[:1], step=2.0, seeds=torch.arange(len(originals)),
        originals=originals, changes=changes[:, :1].contiguous(), effects=torch.zeros(C, 1, C),
        null=null.mean(-1)[:, None], score_std=std.float(),
    )  # fmt: skip
    sure = {row.concept.name for row in rank(rescoring, num_resamples=2) if row.verified}
    verified = [c for c, concept in enumerate(concepts) if concept.name in sure]
    return (
        set(effect.argsort(descending=True, stable=True)[:TOP].tolist()),
        rise[:, single].argmax(1).tolist(),
        verified,
    )


def agreement(name, plan, data, num, repetitions, batch):
    record = len(data[0])
    places = placements(plan.generator.num_layers)
    budget = cost(len(plan.columns), places, num=num, num_random=NUM_RANDOM)
    generator = torch.Generator().manual_seed(0)

    def draw():
        rows = torch.randint(record, (num,), generator=generator)
        return data[0][rows], data[1][..., rows], data[2][..., rows]

    seen, overlap, verifies = [], 0, 0
    same = {"top": 0, "peaks": 0, "both": 0, "top twice": 0, "peaks twice": 0}
    for _ in range(repetitions):
        drawn = draw()
        top, peaks, verified = fixed(plan, *drawn)
        images, found, layers = replay(plan, *drawn, batch)
        other_top, other_peaks, _ = fixed(plan, *draw())
        seen.append(images / budget)
        equal = [all(candidate[c] == peaks[c] for c in verified) for candidate in (layers, other_peaks)]
        same["top"] += found == top
        same["peaks"] += equal[0]
        same["both"] += found == top and equal[0]
        same["top twice"] += other_top == top
        same["peaks twice"] += equal[1]
        overlap += len(found & top)
        verifies += len(verified)
    share = torch.tensor(seen)
    row = [
        name, record, num, batch, len(plan.columns), f"{verifies / repetitions:.1f}", f"{budget:,}",
        f"{share.mean():.1%} ({share.quantile(0.05):.1%} – {share.quantile(0.95):.1%})",
        *(f"{same[kind] / repetitions:.1%}" for kind in ("top", "peaks", "both")), f"{overlap / repetitions:.2f}",
        *(f"{same[kind] / repetitions:.1%}" for kind in ("top twice", "peaks twice")),
    ]  # fmt: skip
    print("| " + " | ".join(map(str, row)) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", nargs="*", default=["toy", "rooms"], choices=list(WORLDS))
    parser.add_argument("--record", type=int, default=1024)
    parser.add_argument("--num", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="*", default=[16, 32])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path("adaptive-record"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    data = {}
    for name in options.world:
        plan = plan_for(*WORLDS[name](), options.record)
        folder = options.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        data[name] = plan, record(plan, options.record, folder)
    columns = (
        "world", "recorded", "K", "batch", "concepts", "verified", "images of the fixed run",
        "share of them drawn (5 – 95 %)",
        "same top 10", "same peaks", "both", "of 10 in common", "two fixed runs: same top 10", "same peaks",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, (plan, recorded) in data.items():
        for batch in options.batch:
            agreement(name, plan, recorded, options.num, options.repetitions, batch)


if __name__ == "__main__":
    main()
