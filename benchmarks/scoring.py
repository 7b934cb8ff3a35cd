"""Scene scores per second, beside the official predictor's batch-of-four PIL path on the same cores.

    python benchmarks/scoring.py --reference PATH_TO_A_CHECKOUT_OF_GENFORCE_HIGAN [--threads 1]

Both sides get the same images, the same random weights and the same number of threads. Each lives in a process of
its own, the reference as its authors wrote it, ours with the memory setting that the command line makes; they take
turns, so that a busy machine slows both, and the best of several rounds counts. Where torchvision cannot be imported,
the three steps that the reference takes from it are replaced by the same three in Pillow and torch.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))

SIDES = ("official", "float32", "bfloat16", "int8")


def scorer_of(side, reference, folder, images):
    """A call that scores all images, and the attributes it gives."""
    from make_places_fixtures import official_predictor
    from places import MATRIX, TENSORS

    from higan.memory import keep_memory
    from higan.scorers.places import PlacesScorer

    if side == "official":
        os.chdir(folder)
        predictor = official_predictor(reference, TENSORS, MATRIX, folder)
        pictures = images.permute(0, 2, 3, 1).contiguous().numpy()
        return lambda: torch.from_numpy(predictor.easy_predict(pictures)["attribute"])
    keep_memory()
    files = Path(folder) / "weights.pth.tar", Path(folder) / "W.npy"
    scorer = PlacesScorer.load(*files, layout="wideresnet18", official_compat=True, precision=side)

    def score():
        with torch.inference_mode():
            return scorer.score(images)[:, 365:].clone()

    return score


def work(side, args, folder, pipe):
    """Score whenever told to, and say what it took."""
    torch.set_num_threads(args.threads)
    shape = (args.images, 3, args.resolution, args.resolution)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    score = scorer_of(side, args.reference.resolve(), folder, images)
    pipe.send(score().numpy())
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        score()
        pipe.send(((time.perf_counter() - wall) / args.images, (time.process_time() - cpu) / args.images))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes, given, times = {}, {}, {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:  # the reference first: it writes the weight files
            pipes[side], theirs = context.Pipe()
            context.Process(target=work, args=(side, args, folder, theirs), daemon=True).start()
            given[side] = torch.from_numpy(pipes[side].recv())
        for _ in range(args.rounds):
            for side in SIDES:
                pipes[side].send(True)
                times[side].append(pipes[side].recv())
        for side in SIDES:
            pipes[side].send(False)
    best = {side: [min(column) for column in zip(*values, strict=True)] for side, values in times.items()}
    print(
        f"{args.threads} threads, {args.images} images of {args.resolution} x {args.resolution}, on {torch.__version__}"
    )
    for side, (wall, cpu) in best.items():
        off = (given[side] - given["official"]).abs().max() / given["official"].std()
        report = {
            "images per second": round(1 / wall, 2),
            "processor ms per image": round(1000 * cpu, 1),
            "times the official": round(best["official"][0] / wall, 2),
            "in processor time": round(best["official"][1] / cpu, 2),
            "largest difference in spreads": float(f"{off:.2g}"),
        }
        print(f"{side:9}", json.dumps(report))


if __name__ == "__main__":
    main()
