"""Whether an edit of so many standard deviations moves the score by as many.

    python benchmarks/amounts.py [--run RUN] [--amounts 1 -1] [--num 96]

Without RUN, the study that comes with the package. Every verified concept is edited by amounts in σ: at its
recommended layers with the steps that a straight line through the re-scored step gives, and as `higan edit` does, which
looks for steps, and for other layers where the recommended ones do not have the amount (`higan.workbench.plan`). What
either does is measured on samples that neither has seen; brackets hold half of a 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path

from scipy.stats import t as student

from higan import load_generator, load_scorer
from higan.editing import apply
from higan.memory import keep_memory
from higan.population import render, sample, sample_seeds, score
from higan.recipes import format_layers
from higan.statistics import rank
from higan.store import load_run
from higan.studio.shipped import SHIPPED
from higan.types import Edit
from higan.workbench import open_workbench, plan, recommend, response

SHORT = re.compile(r"moves by (\S+) of .* at layers (\S+) after")
"""What `higan edit` says where an amount is not to be had."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=SHIPPED)
    parser.add_argument("--amounts", type=float, nargs="+", default=[1.0, -1.0])
    parser.add_argument("--num", type=int, default=96)
    arguments = parser.parse_args()
    keep_memory()
    run = load_run(arguments.run)
    generator, scorer = load_generator(run.settings["generator"]), load_scorer(run.settings["scorer"])
    bench = open_workbench(run, generator, scorer)
    rescoring = bench.rescoring
    names = [c.name for c in rescoring.concepts]
    codes = sample(generator, sample_seeds(arguments.num, purpose="verify", first=2**19))
    before = score(scorer, render(generator, codes))

    def moved(done):
        name = done.boundary.concept.name
        after = score(scorer, render(generator, apply(codes, [done])))
        changes = (after - before)[:, bench.column(name)] / float(rescoring.score_std[names.index(name)])
        half = student.ppf(0.975, len(changes) - 1) * float(changes.std()) / math.sqrt(len(changes))
        return float(changes.mean()), f"{float(changes.mean()):+.2f} ({half:.2f})"

    print(
        "| concept | asked / σ | straight line: steps | at layers | change | looked for: steps | layers | change | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    missed = {"straight": [], "found": []}
    refused = 0
    for row in rank(rescoring, num_resamples=2):
        name = row.concept.name
        if not row.verified:
            continue
        layers = recommend(rescoring, name).layers
        for amount in arguments.amounts:
            straight = Edit(bench.boundaries[name], amount / response(rescoring, name, layers), layers)
            change, told = moved(straight)
            cells = [name, f"{amount:+g}", f"{straight.strength:+.2f}", format_layers(layers), told]
            start = time.perf_counter()
            try:
                ((found,),) = plan(bench, [f"{name}={amount:+g}s"], codes[:1])
            except ValueError as error:
                refused += 1
                said = SHORT.search(str(error))
                cells += ["refused", said[2], f"at most {said[1]}"] if said else ["refused", "", str(error)]
            else:
                missed["straight"].append(change / amount - 1)
                change, told = moved(found)
                missed["found"].append(change / amount - 1)
                cells += [f"{found.strength:+.2f}", format_layers(found.layers), told]
            cells.append(f"{time.perf_counter() - start:.1f}")
            print("| " + " | ".join(cells) + " |", flush=True)
    off = {how: math.sqrt(sum(m * m for m in ms) / len(ms)) for how, ms in missed.items()}
    print(
        f"\n{refused} refused; of the others the straight line misses by {off['straight']:.0%}, what "
        f"was looked for by {off['found']:.0%} (root mean square)."
    )


if __name__ == "__main__":
    main()
