"""Whether p-values, intervals and false-discovery rates are what they say: tested where the answer is known.

    python benchmarks/calibration.py [--worlds toy rooms] [--parts coverage …] [--scale 1.0] [--out FILE.json]

Three tables per world. ``--scale`` multiplies the sizes of the runs.

1. Coverage. Intervals of 95 % from K samples against the truth: in closed form for the toy, whose changes are made
   normal with a known mean, so that Eq. (1) is the mean of a truncated normal variable; from one very large run, cut
   into pieces of K samples, for the embedded generator.
2. Rejections at 5 % of concepts that are not there. Their boundary is a random direction, or was fitted to permuted
   scores; either is tested against R others of its kind and of the other kind. Nothing is simulated: all directions are
   edited, drawn and scored.
3. False-discovery rate over the whole table, against both nulls, where 0, 10 and 50 % of the concepts have the
   boundary that was fitted to them and the others one that was fitted to permuted scores. A cell of a concept with its
   own boundary is never a false discovery.
4. Tables with a false discovery, fixed and adaptive, of twelve categories over the toy (whatever the worlds) whose
   boundaries and nulls are all random directions. Their probabilities answer to some samples more than to others.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import torch

from higan import load_generator, load_scorer, statistics
from higan.adaptive import rescore_adaptively
from higan.boundaries import fit, random_directions
from higan.generators.toy import ToyGenerator
from higan.memory import keep_memory
from higan.population import measure, sample_seeds
from higan.refits import permuted
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.types import LEVELS, Boundary, Concept, Placement, Rescoring

METHODS = ("percentile", "studentised")


def print_table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


# --- worlds -----------------------------------------------------------------------------------------------------------


class Products:
    """Over the toy: the reading of layer 0 times that of layer 1 plus a constant, one concept per constant.

    A step of λ along direction 0 at layer 0 changes concept m by λ (x + m) with x standard normal, and Eq. (1) is
    λ (m Φ(m) + φ(m)).
    """

    name = "products"

    def __init__(self, constants):
        self.inner = ToyScorer()
        self.constants = torch.tensor(constants)
        self.concepts = tuple(Concept(f"constant {m:+.1f}", "object") for m in constants)

    def score(self, images):
        read = self.inner.score(images)
        return read[:, :1] * (read[:, 1:2] + self.constants)

    def truth(self, step):
        """Eq. (1) and the mean change."""
        normal = torch.distributions.Normal(0.0, 1.0)
        m = self.constants.double()
        return step * (m * normal.cdf(m) + normal.log_prob(m).exp()), step * m


class Tangle:
    """Over the toy: ``num`` concepts, each a random quadratic polynomial of all readings, so that no null is alike."""

    name = "tangle"

    def __init__(self, num=20, seed=0):
        self.inner = ToyScorer()
        draw = torch.Generator().manual_seed(seed)
        self.linear = torch.randn(6, num, generator=draw)
        self.square = torch.randn(6, 6, num, generator=draw) * torch.linspace(0, 0.6, num)
        self.concepts = tuple(Concept(f"tangle {k}", LEVELS[k % 4]) for k in range(num))

    def score(self, images):
        read = self.inner.score(images)[:, :6]
        return read @ self.linear + torch.einsum("ni,nj,ijc->nc", read, read, self.square)


def toy_world():
    return ToyGenerator(shared_code=True), Tangle()


def rooms_world():
    return load_generator("rooms"), load_scorer("rooms")


WORLDS = {"toy": toy_world, "rooms": rooms_world}


# --- coverage ---------------------------------------------------------------------------------------------------------


def coverage(changes, truth, signed_truth, num):
    """Share of pieces of ``num`` samples whose interval holds the truth, by method and cell, from changes (C, P, K)."""
    pieces = changes.shape[-1] // num
    C, P, _ = changes.shape
    hits = {(method, truncated): torch.zeros(C, P) for method in METHODS for truncated in (True, False)}
    for k in range(pieces):
        part = blank(changes[..., k * num : (k + 1) * num])
        for method, truncated in hits:
            ends = statistics.interval(part, method=method, truncated=truncated, seed=k)
            goal = truth if truncated else signed_truth
            hits[method, truncated] += ((ends[..., 0] <= goal) & (goal <= ends[..., 1])).float()
    return {key: count / pieces for key, count in hits.items()}, pieces


def blank(changes, null=None, permuted_null=None):
    """A record with these changes (C, P, K), and nulls (R, P, C)."""
    C, P, K = changes.shape
    return Rescoring(
        concepts=tuple(Concept(f"c{k}", "object") for k in range(C)),
        placements=tuple(Placement(f"p{p}", (p,)) for p in range(P)),
        step=2.0,
        seeds=torch.arange(K),
        originals=torch.zeros(K, C),
        changes=changes.float(),
        effects=torch.zeros(C, P, C),
        null=torch.zeros(1, P, C) if null is None else null.float(),
        score_std=torch.ones(C),
        permuted=None if permuted_null is None else permuted_null.float(),
    )


def toy_changes(num):
    """Changes of normal distribution, with the truth in closed form."""
    generator, scorer = ToyGenerator(), Products([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    normal = generator.directions[0].expand(6, -1)
    boundaries = [Boundary(concept, normal, torch.zeros(6), math.nan) for concept in scorer.concepts]
    # The same samples for all concepts, a batch of their own for each piece: only the originals are shared.
    found = rescore(
        generator, scorer, boundaries, num=num, num_random=1, places=[Placement("layer 0", (0,))], batch_size=1000
    )
    truth, mean = scorer.truth(2.0)
    return found, truth[:, None].float(), mean[:, None].float()


def rooms_changes(num, boundaries):
    """Changes of one concept per level and one more, with the truth from all samples."""
    generator, scorer = rooms_world()
    chosen = [next(b for b in boundaries if b.concept.level == level) for level in LEVELS]
    chosen += [b for b in boundaries if b.concept.level == "object"][1:2]
    places = rooms_places()
    found = rescore(generator, scorer, chosen, num=num, num_random=1, places=places)
    return found, statistics.delta(found), statistics.signed(found)


def rooms_places():
    return [Placement("all", tuple(range(10))), Placement("layer 1", (1,)), Placement("layer 6", (6,))]


def coverage_rows(world, found, truth, mean, sizes):
    rows = []
    for num in sizes:
        shares, pieces = coverage(found.changes, truth, mean, num)
        for method in METHODS:
            row = [world, str(num), str(pieces), method]
            for truncated in (True, False):
                share = shares[method, truncated]
                row += [f"{float(share.mean()):.1%}", f"{float(share.min()):.1%}"]
            rows.append(row)
    return rows


# --- rejections and false discoveries ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bank:
    """Δs of real boundaries (C, P), and of many meaningless directions of two kinds (A, P, C)."""

    real: torch.Tensor
    kinds: dict


def bank(generator, scorer, boundaries, population, *, size, num, places=None):
    useless = permuted(population, size)
    found = rescore(
        generator, scorer, boundaries, num=num, num_random=size, permuted=useless, places=places, batch_size=num
    )
    return Bank(statistics.delta(found), {"random": found.null, "permuted": found.permuted})


def draw_null(values, R, draw):
    """For every concept a direction of its own that plays its boundary (C, P), and R others for all (R, P, C)."""
    order = torch.randperm(len(values), generator=draw)
    others = order[R:]
    chosen = others[torch.randint(len(others), (values.shape[2],), generator=draw)]
    own = values[chosen, :, torch.arange(values.shape[2])]
    return own, values[order[:R]]


def rejections(kinds, own_kind, against, R, *, trials, alpha=0.05, seed=0):
    """Share of rejections of concepts that are not there: a (C, P) share per test."""
    draw = torch.Generator().manual_seed(seed)
    shares = {}
    for k in range(trials):
        own, null = draw_null(kinds[own_kind], R, draw)
        if own_kind != against:
            null = draw_null(kinds[against], R, draw)[1]
        record = blank(own[..., None], null)
        tests = {
            "exact": lambda record=record: statistics.p_values(record),
            "exact, randomised": lambda record=record, k=k: statistics.p_values(record, randomised=k),
            "pooled": lambda record=record: statistics.p_values(record, pooled=True),
        }
        for name, test in tests.items():
            shares[name] = shares.get(name, 0.0) + (test() <= alpha).double() / trials
    return shares


def rejection_rows(world, kinds, sizes, trials):
    rows = []
    for own_kind in kinds:
        for against in kinds:
            for R in sizes if own_kind == against else sizes[:1]:
                shares = rejections(kinds, own_kind, against, R, trials=trials)
                row = [world, own_kind, against, str(R)]
                row += [f"{float(shares[name].mean()):.1%}" for name in ("exact", "exact, randomised", "pooled")]
                pooled = shares["pooled"].flatten()
                low, high = torch.quantile(pooled, torch.tensor([0.1, 0.9], dtype=pooled.dtype)).tolist()
                rows.append([*row, f"{low:.1%} … {high:.1%}"])
    return rows


def discoveries(found, share, R, *, trials, alpha=0.05, seed=0, nulls=("random", "permuted")):
    """Mean false-discovery proportion and mean share of real cells found, over trials."""
    draw = torch.Generator().manual_seed(seed)
    C = found.real.shape[0]
    false, power = [], []
    for _ in range(trials):
        real = torch.randperm(C, generator=draw) < round(share * C)
        own, permuted_null = draw_null(found.kinds["permuted"], R, draw)
        _, null = draw_null(found.kinds["random"], R, draw)
        values = torch.where(real[:, None], found.real, own)
        record = blank(values[..., None], null, permuted_null if "permuted" in nulls else None)
        p = statistics.p_values(record, pooled=True)
        if "permuted" in nulls:
            p = torch.maximum(p, statistics.p_values(record, against="permuted", pooled=True))
        hit = statistics.q_values(p) <= alpha
        false.append(float(hit[~real].sum()) / max(int(hit.sum()), 1))
        power.append(float(hit[real].double().mean()) if bool(real.any()) else math.nan)
    return sum(false) / trials, (torch.tensor(false).std() / math.sqrt(trials)).item(), sum(power) / trials


def discovery_rows(world, found, sizes, trials):
    rows = []
    for R in sizes:
        for share in (0.0, 0.1, 0.5):
            row = [world, str(R), f"{share:.0%}"]
            for nulls in (("random", "permuted"), ("random",)):
                rate, error, power = discoveries(found, share, R, trials=trials, nulls=nulls)
                row += [f"{rate:.1%} ± {error:.1%}", "" if math.isnan(power) else f"{power:.0%}"]
            rows.append(row)
    return rows


# --- adaptive verification --------------------------------------------------------------------------------------------


class Categories:
    """Over the toy: the probabilities of twelve categories, the surer the larger ``sharpness``."""

    name = "categories"
    concepts = tuple(Concept(f"category {k}", "object") for k in range(12))

    def __init__(self, sharpness):
        self.readings = ToyScorer(6)
        self.weights = sharpness * torch.randn(12, 6, generator=torch.Generator().manual_seed(1))

    def score(self, images):
        return (self.readings.score(images)[:, :6] @ self.weights.T).softmax(1)


def adaptive_rows(tables, *, sharpnesses=(1, 3, 6), num=100, R=20):
    """Shares of tables in which anything is verified: fixed, adaptive, and adaptive as if the null had all samples."""
    rows = []
    for sharpness in sharpnesses:
        generator, scorer = ToyGenerator(6, 16), Categories(sharpness)
        hits = []
        for seed in range(tables):
            drawn = random_directions(12 + R, 16, seed=1000 + seed)
            of = [*scorer.concepts, *(Concept(f"permuted {k}", "object") for k in range(R))]
            known = [Boundary(c, d, torch.zeros(()), math.nan) for c, d in zip(of, drawn, strict=True)]
            options = {"num": num, "seed": seed, "num_random": R, "permuted": known[12:], "images_at_once": 512}
            fixed = rescore(generator, scorer, known[:12], **options)
            adaptive = rescore_adaptively(generator, scorer, known[:12], top=6, **options).rescoring
            found = (fixed, adaptive, dataclasses.replace(adaptive, null_counts=None))
            hits.append([bool(statistics.table(one, num_resamples=2).verified.any()) for one in found])
        shares = torch.tensor(hits).double().mean(0).tolist()
        rows.append(["categories", f"{sharpness}", str(num), str(tables), *(f"{share:.0%}" for share in shares)])
    return rows


# --- all of it --------------------------------------------------------------------------------------------------------


def run(worlds, scale, parts=("coverage", "rejections", "discoveries", "adaptive")):
    """All rows, world by world."""
    tables = {part: [] for part in parts}
    if "adaptive" in parts:
        tables["adaptive"] = adaptive_rows(max(int(100 * scale), 10))
    if parts == ["adaptive"]:
        return tables
    for world in worlds:
        start = time.monotonic()
        generator, scorer = WORLDS[world]()
        toy = world == "toy"
        population = measure(generator, scorer, sample_seeds(2000 if toy else 3000))
        boundaries = fit(population)
        trials = max(int(400 * scale), 100)
        if "coverage" in parts:
            num = int(100_000 * scale) if toy else int(6000 * scale)
            changes = toy_changes(num) if toy else rooms_changes(num, boundaries)
            tables["coverage"] += coverage_rows(world, *changes, (50, 100, 200))
        if {"rejections", "discoveries"} & set(parts):
            size, places = (400, None) if toy else (max(int(240 * scale), 100), rooms_places())
            found = bank(generator, scorer, boundaries, population, size=size, num=50 if toy else 32, places=places)
            if "rejections" in parts:
                tables["rejections"] += rejection_rows(world, found.kinds, (19, 20, 39), trials)
            if "discoveries" in parts:
                tables["discoveries"] += discovery_rows(world, found, (20, 40), trials)
        print(f"{world}: {time.monotonic() - start:.0f} seconds", flush=True)
    return tables


HEADS = {
    "coverage": ["world", "K", "pieces", "interval", "Δs covered", "worst cell", "mean change covered", "worst cell"],
    "rejections": [
        "world", "boundary", "against", "R", "exact", "exact, randomised", "pooled", "pooled, 10 … 90 % of cells",
    ],
    "discoveries": [
        "world", "R", "true", "FDR, both nulls", "found", "FDR, random directions alone", "found",
    ],
    "adaptive": ["world", "sharpness", "K", "tables", "fixed", "adaptive", "adaptive, Δs over all of its own samples"],
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=[*WORLDS], default=[*WORLDS])
    parser.add_argument("--parts", nargs="+", choices=[*HEADS], default=[*HEADS])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    keep_memory()
    tables = run(arguments.worlds, arguments.scale, arguments.parts)
    for name, rows in tables.items():
        print(name.capitalize())
        print_table(HEADS[name], rows)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
