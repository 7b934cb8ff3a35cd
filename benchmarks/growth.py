"""Time and memory of every step against the number of samples N, of concepts C, of layers L and of verified samples K.

    python benchmarks/growth.py [--picture docs/images/growth.svg]     curves, on the toy generator
    python benchmarks/growth.py --large 500000 --dim 512 --scores 467  one large run: sample, fit, verify

Each measurement is a process of its own, so that its peak of memory (VmHWM) is its own. Time is processor time of the
step without the start of the process; the generator is the toy, which costs next to nothing: what is seen is the
machinery. The exponent is the slope of the logarithms: 1 is linear, less is better.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

import torch

from higan import store, study
from higan.boundaries import random_directions
from higan.engines import InProcess
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.rescoring import cost, rescore
from higan.types import Boundary, Concept

BASE = {"num": 8000, "concepts": 16, "layers": 6, "dim": 64, "verify": 128, "random": 4}
CURVES = {
    "N": ("num", (8000, 16000, 32000, 64000), ("sample", "fit", "fit all", "verify")),
    "C": ("concepts", (16, 32, 64, 128), ("sample", "fit", "fit all", "rescore")),
    "L": ("layers", (4, 8, 16, 32), ("sample", "rescore")),
    "K": ("verify", (128, 256, 512, 1024), ("rescore",)),
}


class Mixtures:
    """A scorer of any number of concepts: fixed mixtures of what an image of the toy shows."""

    name = "mixtures"

    def __init__(self, num_concepts):
        self.concepts = tuple(Concept(f"mixture {k}", "attribute") for k in range(num_concepts))
        self.weights = torch.randn(64, num_concepts, generator=torch.Generator().manual_seed(0)) / 64

    def score(self, images):
        return images[:, 0].flatten(1).float() @ self.weights


def models(given):
    return ToyGenerator(given["layers"], given["dim"], shared_code=True), Mixtures(given["concepts"])


def measure(step, given):
    """Seconds of the processor and peak of memory in MiB; runs in a process of its own."""
    torch.set_num_threads(1)
    generator, scorer = models(given)
    folder = Path(given["folder"])
    run = study.open_study(folder, generator, scorer, num=given["num"])
    start = time.process_time()
    if step == "sample":
        study.sample_step(run, generator, scorer, engine=InProcess())
    elif step.startswith("fit"):
        concepts = [concept.name for concept in scorer.concepts][: given.get("fitted")]
        mode = "all" if step == "fit all" else "extreme"
        study.fit_step(run, concepts, mode=mode, num_permuted=given["random"])
    elif step == "verify":
        store.verify(folder)
    else:
        normals = random_directions(given["concepts"], given["dim"])
        boundaries = [Boundary(c, n, torch.tensor(0.0), 1.0) for c, n in zip(scorer.concepts, normals, strict=True)]
        rescore(generator, scorer, boundaries, num=given["verify"], num_random=given["random"])
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "MiB": peak}))


def in_process(step, given):
    line = [sys.executable, __file__, "--step", step, "--given", json.dumps(given)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(xs, ys):
    """Slope of a straight line through the logarithms."""
    u, v = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    return sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / sum((a - mean_u) ** 2 for a in u)


def curves():
    """{letter: {step: [(x, seconds, MiB), …]}}"""
    found = {}
    for letter, (name, values, steps) in CURVES.items():
        found[letter] = {step: [] for step in steps}
        for value in values:
            with tempfile.TemporaryDirectory() as folder:
                given = {**BASE, name: value, "folder": str(Path(folder) / "run")}
                if letter == "N":
                    in_process("sample", given)  # the first process reads what the system has not cached yet
                    shutil.rmtree(given["folder"])
                for step in dict.fromkeys(("sample", *steps)) if set(steps) != {"rescore"} else steps:
                    result = in_process(step, given)
                    if step in steps:
                        found[letter][step].append((value, result["seconds"], result["MiB"]))
    return found


def table(found):
    print("| against | step | " + "values | seconds | exponent | peak / MiB | exponent |")
    print("|---|---|---|---|---|---|---|")
    for letter, steps in found.items():
        for step, points in steps.items():
            xs, seconds, peaks = zip(*points, strict=True)
            print(
                f"| {letter} | {step} | {', '.join(f'{x:,}' for x in xs)} | {', '.join(f'{s:.2f}' for s in seconds)} | "
                f"{exponent(xs, seconds):.2f} | {', '.join(f'{p:.0f}' for p in peaks)} | {exponent(xs, peaks):.2f} |"
            )
    counts = [images({**BASE, "layers": layers}) for layers, _, _ in found["L"]["rescore"]]
    each = [seconds / count for count, (_, seconds, _) in zip(counts, found["L"]["rescore"], strict=True)]
    layers = [layers for layers, _, _ in found["L"]["rescore"]]
    print(
        f"Re-scoring against L: {', '.join(f'{count:,}' for count in counts)} images, exponent "
        f"{exponent(layers, counts):.2f}; {', '.join(f'{1e6 * t:.1f}' for t in each)} µs per image, exponent "
        f"{exponent(layers, each):.2f}: deeper images are dearer images."
    )


def images(given):
    return cost(given["concepts"], placements(given["layers"]), num=given["verify"], num_random=given["random"])


COLOURS = {"sample": "#3b6fb6", "fit": "#c8553d", "fit all": "#e0a13b", "rescore": "#4c956c", "verify": "#7d5ba6"}


def picture(found):
    """Time above, memory below, one column per letter; both axes logarithmic; the dashed line is linear growth."""
    wide, high, gap = 190, 150, 56
    parts = []
    for column, (letter, steps) in enumerate(found.items()):
        for row, what in enumerate(("seconds", "peak / MiB")):
            left, top = 52 + column * (wide + gap), 28 + row * (high + gap)
            points = [(x, y[row]) for values in steps.values() for x, *y in values]
            first, last = min(x for x, _ in points), max(x for x, _ in points)
            low, above = (0.02, 20.0) if row == 0 else (100.0, 1000.0)

            def place(x, y, left=left, top=top, first=first, last=last, low=low, above=above):
                u = math.log(x / first) / math.log(last / first)
                v = math.log(y / low) / math.log(above / low)
                return f"{left + 8 + u * (wide - 16):.1f},{top + high - v * high:.1f}"

            parts.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" class="frame"/>')
            parts.append(f'<text x="{left}" y="{top - 8}">{what} against {letter}</text>')
            for value in sorted({x for x, _ in points}):
                x = place(value, low).split(",")[0]
                parts.append(f'<text x="{x}" y="{top + high + 14}" class="tick">{value:,}</text>')
            for y in (0.1, 1, 10) if row == 0 else (100, 200, 500, 1000):
                at = float(place(first, y).split(",")[1])
                parts.append(f'<text x="{left - 5}" y="{at + 3}" class="side">{y}</text>')
                parts.append(f'<path d="M{left} {at}h{wide}" class="rule"/>')
            if row == 0:
                start = min(y for x, y in points if x == first) * 0.8
                end = start * last / first
                parts.append(f'<polyline points="{place(first, start)} {place(last, end)}" class="linear"/>')
            for step, values in steps.items():
                line = " ".join(place(x, max(y[row], low)) for x, *y in values)
                parts.append(f'<polyline points="{line}" stroke="{COLOURS[step]}"/>')
    for k, (step, colour) in enumerate({**COLOURS, "linear": "#999"}.items()):
        x, y = 52 + k * 110, 28 + 2 * (high + gap) - 10
        parts.append(f'<rect x="{x}" y="{y - 6}" width="16" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 22}" y="{y}">{escape(step)}</text>')
    style = (
        "text{font:11px system-ui,sans-serif;fill:#444}.tick{text-anchor:middle;font-size:9px}"
        ".side{text-anchor:end;font-size:9px}.frame{fill:none;stroke:#ccc}.rule{stroke:#eee}"
        "polyline{fill:none;stroke-width:2}.linear{stroke:#999;stroke-width:1;stroke-dasharray:3 3}"
    )
    width, height = 52 + 4 * (wide + gap) - gap + 14, 28 + 2 * (high + gap) + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def large(num, dim, scores, fitted, modes):
    """One run of that size, every step in a process of its own."""
    print(f"{num:,} samples, D = {dim}, {scores} scores, {fitted or scores} fitted")
    print("| step | processor / s | peak / MiB |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        given = {**BASE, "num": num, "dim": dim, "concepts": scores, "random": 20, "fitted": fitted}
        given["folder"] = str(Path(folder) / "run")
        for step in ("sample", *modes, "verify"):
            found = in_process(step, given)
            print(f"| {step} | {found['seconds']:.0f} | {found['MiB']:.0f} |", flush=True)
        size = sum(file.stat().st_size for file in Path(given["folder"]).rglob("*") if file.is_file())
        print(f"run folder: {size / 1e9:.2f} GB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--large", type=int)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--scores", type=int, default=467)
    parser.add_argument("--fitted", type=int, help="Fit so many of the scores; all by default.")
    parser.add_argument("--modes", nargs="*", default=["fit"])
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--given", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        measure(args.step, args.given)
    elif args.large:
        large(args.large, args.dim, args.scores, args.fitted, args.modes)
    else:
        found = curves()
        table(found)
        if args.picture:
            args.picture.write_text(picture(found))


if __name__ == "__main__":
    main()
