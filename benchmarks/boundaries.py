"""Boundaries beside the official tool's: CPU time per concept, accuracy, and what every sample is worth.

    python benchmarks/boundaries.py [--concepts 100] [--official 2]
    python benchmarks/boundaries.py --run RUN
    python benchmarks/boundaries.py --truth

The first table fits at the official settings: 2000 samples with the highest and 2000 with the lowest scores, 70 % of
them train, codes of width 512. Codes are Gaussian, or have the decaying spectrum and the bent shape that a mapping
network gives them. Scores are a linear function of the codes plus noise in standard deviations of it: the more noise,
the more the two classes overlap, and the slower scikit-learn's ``SVC(kernel="linear")``, which the official tool calls.
It fits the first few concepts, ours all of them, by turns; accuracy and distance are over the same few. Mode ``all``
holds out samples of its own, and is judged by those of them that are among the 2000 highest or lowest. ``--run`` takes
codes and scores of a run, such as `higan demo` leaves, and fits all of its concepts with both.

``--truth`` looks for a known direction with both modes and more and more samples: the angle to it in degrees.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from sklearn.svm import SVC, LinearSVC

from higan.boundaries import _shuffled_extremes, fit
from higan.memory import keep_memory
from higan.store import load_run, read_population
from higan.types import Concept, Population

WIDTH = 512


def codes_of(kind, num, generator):
    codes = torch.randn(num, WIDTH, generator=generator)
    if kind == "gaussian":
        return codes
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return torch.nn.functional.leaky_relu(codes * torch.logspace(0, -1.5, WIDTH) @ basis, 0.2)


def world(kind, num, concepts, noise):
    """Codes, noisy linear scores of them, and the directions these follow."""
    generator = torch.Generator().manual_seed(0)
    codes = codes_of(kind, num, generator)
    directions = torch.nn.functional.normalize(torch.randn(concepts, WIDTH, generator=generator), dim=1)
    scores = codes @ directions.T
    scores += noise * scores.std(0) * torch.randn(num, concepts, generator=generator)
    named = tuple(Concept(f"concept {k}", "attribute") for k in range(concepts))
    return Population(torch.arange(num), codes[:, None], scores, named, 14), directions


def spent(work):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def extremes(population, column):
    """The official tool's split, shuffled extremes of either class, 70 % of them to train; dealt out as `fit` does."""
    classes = _shuffled_extremes(population.scores[:, [column]], [population.concepts[column].name], 2000, 0)[0]
    train, held = (torch.cat([rows[part] for rows in classes]) for part in (slice(1400), slice(1400, None)))
    labels = [torch.tensor([1, -1]).repeat_interleave(n) for n in (1400, 600)]
    # Less their mean, as ours: LinearSVC penalises the bias.
    codes = (population.codes - population.codes.mean(0))[:, 0].numpy()
    return codes[train], labels[0].numpy(), codes[held], labels[1].numpy()


def compare(kind, noise, population, official):
    concepts = len(population.concepts)
    theirs, primal, accuracy, cosine = [], [], [], []
    ours, boundaries = spent(lambda: fit(population, num_extreme=2000))
    every, unsorted = spent(lambda: fit(population, mode="all", num_extreme=2000))
    for column in range(official):
        train, y, held, y_held = extremes(population, column)
        seconds, machine = spent(lambda train=train, y=y: SVC(kernel="linear").fit(train, y))
        theirs.append(seconds)
        seconds, _ = spent(lambda train=train, y=y: LinearSVC(dual=False).fit(train, y))
        primal.append(seconds)
        # It is timed at its own tolerance, where it may stop early; what is compared is the solution.
        linear = LinearSVC(dual=False, tol=1e-6, max_iter=10_000).fit(train, y)
        accuracy.append(
            (machine.score(held, y_held), boundaries[column].holdout_accuracy, unsorted[column].holdout_accuracy)
        )
        cosine.append(
            float(torch.nn.functional.cosine_similarity(
                boundaries[column].normal, torch.from_numpy(linear.coef_[0]).float(), dim=0
            ))
        )  # fmt: skip
    reference, liblinear = statistics.mean(theirs), statistics.mean(primal)
    mine, all_samples = ours / concepts, every / concepts
    means = [statistics.mean(column) for column in zip(*accuracy, strict=True)]
    print(
        f"| {kind} | {noise} | {reference:.2f} | {liblinear:.3f} | {mine:.4f} | {reference / mine:.0f} | "
        f"{liblinear / mine:.1f} | {all_samples:.4f} | {reference / all_samples:.0f} | {means[0]:.3f} | "
        f"{means[1]:.3f} | {means[2]:.3f} | {min(cosine):.6f} |",
        flush=True,
    )


def truth(sizes, concepts, noise):
    for num in sizes:
        population, directions = world("gaussian", num, concepts, noise)
        angles = []
        for mode in ("extreme", "all"):
            found = fit(population, num_extreme=2000, mode=mode)
            cosines = torch.stack([b.normal @ directions[k] for k, b in enumerate(found)])
            angles.append(float(torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).mean()))
        print(f"| {num:,} | {angles[0]:.1f} | {angles[1]:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=10_000, help="samples, of which the 2000 + 2000 are the extremes")
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--official", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="*", default=[0, 0.5, 1, 2, 3])
    parser.add_argument("--kind", nargs="*", default=["gaussian", "mapped"])
    parser.add_argument("--run", type=Path, help="of a generator whose layers share a code")
    parser.add_argument("--truth", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="*", default=[5000, 10_000, 20_000, 40_000, 100_000, 500_000])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    if options.truth:
        for noise in options.noise:
            print(f"\nNoise of {noise:g} standard deviations of the score; mean angle to the truth in degrees\n")
            print("| samples | 2000 highest and lowest | every sample |\n|---|---|---|")
            truth(options.sizes, min(options.concepts, 10), noise)
        return
    print(
        "| codes | noise | SVC / s | LinearSVC / s | ours / s | SVC : ours | LinearSVC : ours | every sample / s | "
        "SVC : every sample | held out, SVC | held out, ours | held out, every sample | cosine to LinearSVC |\n"
        f"|{'---|' * 13}"
    )
    if options.run:
        population = read_population(load_run(options.run))
        compare(options.run.name, "", population, len(population.concepts))
        return
    for kind in options.kind:
        for noise in options.noise:
            compare(kind, noise, world(kind, options.num, options.concepts, noise)[0], options.official)


if __name__ == "__main__":
    main()
