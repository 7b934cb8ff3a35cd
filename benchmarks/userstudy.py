"""How well a user study finds a planted answer, how honest its intervals are, and how fast answers are kept.

    python benchmarks/userstudy.py [--studies 40] [--raters 3 8 16 32]

All raters are simulated; no person takes part. Prints two tables.

1. Studies of simulated raters who, at every stage, name one level in 60 % of trials, a second one in 20 % and nothing
   in 20 %, and slip in a tenth of all trials; a fifth of the raters press any key. How often the planted level comes
   out in front, how often the 95 % intervals hold the true share, how wide those of the planted levels are, and what
   `analyse` foretold from studies of eight raters (of the least sure level, and of the same pictures).
2. A server on loopback, raters answering at the same time without a pause: answers a second, and the time until one is
   acknowledged, beside requests that write nothing.
"""

import argparse
import logging
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from higan.types import LEVELS
from higan.userstudy.analysis import analyse
from higan.userstudy.answers import Answers
from higan.userstudy.design import CHOICES, Unit, lay_out
from higan.userstudy.folder import Expected, UserStudy, write_study
from higan.userstudy.raters import simulate
from higan.userstudy.server import create_app
from higan.web.serve import running

STAGES = {"bottom": (0, 1), "lower": (2, 3), "upper": (4, 5, 6, 7), "top": (8, 9)}
PLANTED = {
    stage: {LEVELS[k]: 0.6, LEVELS[(k + 1) % 4]: 0.2, "nothing": 0.2} for k, stage in enumerate(STAGES)
}  # fmt: skip
LAPSE, CARELESS = 0.1, 0.2
FORETOLD_FROM = 8


def study_at(path: Path, seed: int) -> UserStudy:
    units = {level: [Unit(level, f"{level} {k % 2}", 2.0, k) for k in range(8)] for level in LEVELS}
    catches = [(kind, Unit("catch", kind, 0.0, 0)) for kind in ("same", "mirror", "tint") * 2]
    design = lay_out(STAGES, units, catches, seed=seed)
    even = tuple((0.25,) * 4 for _ in LEVELS)
    names = {name for trial in design.trials.values() for name in (trial.before, trial.after)}
    expected = Expected(LEVELS, tuple(STAGES), even, even, even)
    pictures = dict.fromkeys(names, bytes)
    return write_study(path, design, expected, pictures, title="Benchmark", made={"generator": "none"})


def recovery(folder: Path, sizes: list[int], studies: int) -> None:
    truth = np.array([[(1 - LAPSE) * PLANTED[s].get(c, 0) + LAPSE / 5 for c in CHOICES] for s in STAGES])
    rows, foretold = {size: [] for size in sizes}, []
    for size in sizes:
        for k in range(studies):
            with Answers(study_at(folder / f"{size}-{k}", seed=k)) as answers:
                simulate(answers, size, PLANTED, lapse=LAPSE, careless=CARELESS, seed=k)
                try:
                    found = analyse(answers, simulated=True, num_resamples=400, sizes=sizes, seed=k)
                except ValueError:
                    rows[size].append((np.nan,) * 5)
                    continue
            front = np.mean([a == b for a, b in zip(found.comparison.people, LEVELS, strict=True)])
            covers = np.mean((found.shares.low <= truth + 1e-9) & (truth <= found.shares.high + 1e-9))
            lead = range(4), range(4)
            half = np.mean(found.shares.high[lead] - found.shares.low[lead]) / 2
            rows[size].append((front, front == 1, covers, half, found.screening.kept.sum()))
            if size == FORETOLD_FROM and found.needed:
                foretold.append([n.half_width for n in found.needed])
    means = np.nanmean(foretold, 0) if foretold else [np.nan] * len(sizes)
    print(f"Simulated studies, {studies} of each size\n")
    print("| raters | counted | level in front | at all stages | intervals hold | ± leading share | foretold from 8 |")
    print("|---|---|---|---|---|---|---|")
    for size, told in zip(sizes, means, strict=True):
        front, every, covers, half, kept = np.nanmean(rows[size], 0)
        cells = f"{kept:.1f} | {front:.0%} | {every:.0%} | {covers:.1%} | {100 * half:.1f} points"
        print(f"| {size} | {cells} | {100 * told:.1f} points |")


def load(folder: Path, raters: int) -> None:
    with (
        Answers(study_at(folder / "served", seed=0)) as answers,
        running(create_app(answers, organiser="x")) as address,
    ):
        writes, reads = [], []
        together = threading.Barrier(raters + 1)

        def rate(k: int) -> None:
            with httpx.Client(base_url=address, timeout=120) as client:
                me = {"x-rater": client.post("/api/join", json={}).json()["rater"]}
                trials = client.get("/api/trials", headers=me).json()["trials"]
                together.wait()
                for trial in trials:
                    start = time.perf_counter()
                    body = {"trial": trial["id"], "choice": CHOICES[k % 5]}
                    client.post("/api/answers", headers=me, json=body).raise_for_status()
                    middle = time.perf_counter()
                    client.get("/api/about").raise_for_status()
                    writes.append(middle - start)
                    reads.append(time.perf_counter() - middle)

        threads = [threading.Thread(target=rate, args=(k,), daemon=True) for k in range(raters)]
        for thread in threads:
            thread.start()
        together.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        kept = len(answers.all())
    cut = statistics.quantiles(writes, n=20)
    print(
        f"| {raters} | {kept} of {len(writes)} | {kept / seconds:.0f} | {1000 * statistics.median(writes):.0f} ms | "
        f"{1000 * cut[-1]:.0f} ms | {statistics.median(writes) / statistics.median(reads):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--raters", type=int, nargs="+", default=[3, 8, 16, 32])
    options = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        if options.studies:
            recovery(Path(name), options.raters, options.studies)
        print("\nAnswers kept while raters answer at the same time\n")
        print("| raters | kept | a second | median | 95 % | median beside a request that writes nothing |")
        print("|---|---|---|---|---|---|")
        for raters in (1, 10, 50):
            load(Path(name) / f"load-{raters}", raters)


if __name__ == "__main__":
    main()
