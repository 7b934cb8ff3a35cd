"""The whole study beside the official tool: sample, score, fit, re-score layer by layer for ten concepts.

    python benchmarks/against_official.py --reference PATH_TO_A_CHECKOUT_OF_GENFORCE_HIGAN [--rounds 3] [--share 0.25]

StyleGAN at 256 pixels and the scene predictor, with the same random weights on both sides, one thread each. The study
takes days, so units of its work are timed and multiplied by how many there are: an image sampled and scored, a
boundary, a sample re-scored under ten concepts at all layers and at each of fourteen. The sides live in processes of
their own, the reference as its authors wrote it; they work by turns, and CPU time counts, so that a busy machine
treats them alike. ``exact`` is ours in float32; ``fast`` computes feature maps of the generator in bfloat16 and those
of the predictor in eight bits, or in bfloat16 where the processor lacks them. Pictures of random weights hardly depend
on their codes, so how far scores move is not asked here: see tests/test_speedups.py and docs/scorers.md.

``--share`` is the share of the fixed run's images that adaptive verification draws, as benchmarks/adaptive.py measures
it; ``--enough`` the number of samples with which mode ``all`` finds a direction as well as the official recipe does
with half a million, as benchmarks/boundaries.py measures it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))

SIDES = ("official", "exact", "fast")
CONCEPTS = 10
TIMED = 4
"""Concepts of ours that are timed at once; what all concepts of a sample share is then counted too often."""
IMAGES = 4
OVERLAP = 1.0
"""Noise of the labels in standard deviations of the score; the two classes then overlap."""


def codes_and_scores(mapping):
    """Codes of the random mapping network, and noisy linear scores of them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        codes = torch.cat([mapping(torch.randn(500, 512, generator=generator)) for _ in range(20)])
    scores = codes @ torch.randn(512, CONCEPTS, generator=generator)
    return codes, scores + OVERLAP * scores.std(0) * torch.randn(scores.shape, generator=generator)


class Official:
    """The official tool, through the calls that its own scripts make."""

    def __init__(self, reference, folder, size):
        from make_places_fixtures import official_predictor
        from places import MATRIX, TENSORS

        os.chdir(folder)
        if not hasattr(np, "bool"):  # which NumPy lacked for a while
            np.bool = bool
        self.predictor = official_predictor(reference, TENSORS, MATRIX, folder)
        from models import model_settings
        from models.helper import build_generator
        from utils.boundary_searcher import train_boundary
        from utils.editor import get_layerwise_manipulation_strength, manipulate

        settings = model_settings.MODEL_POOL["stylegan_bedroom"]
        settings.update(weight_path=str(Path(folder) / "generator.pth"), resolution=size)
        quiet = logging.getLogger("quiet")
        quiet.setLevel(logging.ERROR)
        if not Path(settings["weight_path"]).exists():
            torch.manual_seed(0)
            network = build_generator("stylegan_bedroom", logger=quiet).net
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.data.normal_()
            state = {k: v for k, v in network.state_dict().items() if k != "truncation.truncation"}
            torch.save(state, settings["weight_path"])
        self.model = build_generator("stylegan_bedroom", logger=quiet)
        self.train, self.manipulate, self.quiet = train_boundary, manipulate, quiet
        self.strength = get_layerwise_manipulation_strength(
            self.model.num_layers, self.model.truncation_psi, self.model.truncation_layers
        )
        self.data = codes_and_scores(self.model.net.mapping)

    def sample(self):
        z = self.model.easy_sample(num=IMAGES, latent_space_type="z")
        for batch in self.model.get_batch_inputs(z):
            images = self.model.easy_synthesize(latent_codes=batch, latent_space_type="z", generate_style=False)
            self.predictor.easy_predict(images["image"])
        return IMAGES

    def fit(self):
        codes, scores = (part.numpy() for part in self.data)
        self.train(codes, scores=scores[:, :1], chosen_num_or_ratio=2000, logger=self.quiet)
        return 1

    def rescore(self):
        """One sample, one concept: what rescore.py does for it."""
        z = self.model.easy_sample(num=1, latent_space_type="z")
        wp = self.model.easy_synthesize(latent_codes=z, latent_space_type="z", generate_style=False,
                                        generate_image=False)["wp"]  # fmt: skip
        boundary = np.random.default_rng(0).normal(size=(1, 512))
        boundary /= np.linalg.norm(boundary)
        codes = [wp[:, np.newaxis]]
        for layer in range(-1, self.model.num_layers):
            codes.append(
                self.manipulate(
                    wp, boundary, start_distance=2.0, end_distance=2.0, step=1, layerwise_manipulation=True,
                    num_layers=self.model.num_layers, manipulate_layers=None if layer < 0 else layer,
                    is_code_layerwise=True, is_boundary_layerwise=False,
                    layerwise_manipulation_strength=self.strength,
                )
            )  # fmt: skip
        images = self.model.easy_synthesize(latent_codes=np.concatenate(codes, axis=1)[0], latent_space_type="wp",
                                            generate_style=False)["image"]  # fmt: skip
        self.predictor.easy_predict(images)
        return 1 / CONCEPTS


class Ours:
    """The same work, in the precision asked for."""

    def __init__(self, side, folder):
        from higan import load_generator
        from higan.memory import keep_memory
        from higan.scorers.eight_bit import available
        from higan.scorers.places import PlacesScorer

        keep_memory()
        fast = side == "fast"
        precision = ("int8" if available() else "bfloat16") if fast else "float32"
        self.generator = load_generator(Path(folder) / "generator.pth", precision="bfloat16" if fast else "float32")
        self.scorer = PlacesScorer.load(
            Path(folder) / "weights.pth.tar", Path(folder) / "W.npy", layout="wideresnet18", precision=precision
        )
        self.what = f"generator in {self.generator.precision}, predictor in {precision}"
        self.codes, self.scores = codes_and_scores(lambda z: self.generator.map(z)[:, 0])

    def sample(self):
        from higan.population import measure

        measure(self.generator, self.scorer, range(IMAGES), batch_size=IMAGES)
        return IMAGES

    def _fit(self, mode):
        from higan.boundaries import fit
        from higan.types import Population

        population = Population(
            torch.arange(len(self.codes)), self.codes[:, None], self.scores, self.scorer.concepts[-CONCEPTS:], 14
        )
        return fit(population, num_extreme=2000, mode=mode)

    def fit(self):
        return len(self._fit("extreme"))

    def fit_all(self):
        return len(self._fit("all"))

    def rescore(self):
        """One sample, some concepts, all layers and each."""
        from higan.rescoring import plan_of
        from higan.types import Placement

        depth = self.generator.num_layers
        places = [Placement("all", tuple(range(depth))), *(Placement(f"layer {k}", (k,)) for k in range(depth))]
        plan = plan_of(
            self.generator, self.scorer, self._boundaries(), num=2, step=2.0, seed=0, places=places, num_random=1,
            permuted=(), step_mode="official", batch_size=1,
        )  # fmt: skip
        wanted = torch.ones(len(plan.directions), len(places), dtype=torch.bool)
        wanted[TIMED:] = False
        plan.run(torch.tensor([2**31]), wanted=wanted)
        return TIMED / CONCEPTS

    def _boundaries(self):
        from higan.boundaries import random_directions
        from higan.types import Boundary

        rows = random_directions(CONCEPTS, 512)
        return [Boundary(c, rows[k], torch.tensor(0.0), 1.0) for k, c in enumerate(self.scorer.concepts[-CONCEPTS:])]

    def peak(self):
        """Billions of multiply-adds a second of a large matrix product or convolution, in float32 and bfloat16."""
        self.rates = []
        for dtype in (torch.float32, torch.bfloat16):
            a = torch.randn(2048, 2048, dtype=dtype)
            x = torch.randn(1, 256, 64, 64, dtype=dtype).contiguous(memory_format=torch.channels_last)
            kernel = torch.randn(256, 256, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            trials = (
                (2048**3, lambda a=a: a @ a),
                (256 * 256 * 9 * 64 * 64, lambda x=x, k=kernel: torch.conv2d(x, k, padding=1)),
            )
            best = 0.0
            for multiply_adds, work in trials:
                work()
                for _ in range(5):
                    start = time.process_time()
                    work()
                    best = max(best, multiply_adds / (time.process_time() - start) / 1e9)
            self.rates.append(best)
        return 1

    def count(self):
        """Billions of multiply-adds of one image: drawn, and scored."""
        from torch.utils.flop_counter import FlopCounterMode

        found = []
        codes = self.generator.map(self.generator.latents([0]))
        for work in (
            lambda: self.generator.synthesize(codes),
            lambda: self.scorer.score(torch.zeros(1, 3, *[self.generator.resolution] * 2, dtype=torch.uint8)),
        ):
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                work()
            found.append(counter.get_total_flops() / 2e9)
        self.macs = found
        return 1


def serve(side, reference, folder, size, pipe):
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        mine = Official(reference, folder, size) if side == "official" else Ours(side, folder)
        while (task := pipe.recv()) is not None:
            start = time.process_time()
            units = getattr(mine, task)()
            spent = (time.process_time() - start) / units
            kept = {name: getattr(mine, name, None) for name in ("what", "rates", "macs")}
            pipe.send((spent, kept))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--num", type=int, default=500_000, help="samples of the official recipe")
    parser.add_argument("--verify", type=int, default=2000, help="K, as the official tool has it")
    parser.add_argument("--share", type=float, default=None, help="of images that adaptive verification draws")
    parser.add_argument("--enough", type=int, default=None, help="samples that mode 'all' needs")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes, spent, kept = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:

        def ask(side, task):
            pipes[side].send(task)
            seconds, kept[side] = pipes[side].recv()
            spent.setdefault((side, task), []).append(seconds)

        for side in SIDES:  # the reference first: it writes the weight files
            pipes[side], theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(side, args.reference.resolve(), folder, args.size, theirs), daemon=True
            )
            process.start()
            theirs.close()  # so that a side that fails is noticed
            ask(side, "sample")
        spent.clear()
        ask("exact", "count")
        macs = kept["exact"]["macs"]
        for turn in range(args.rounds):
            for task in ("sample", "rescore", "fit", "fit_all", "peak"):
                for side in SIDES:
                    if side == "official" and task in ("fit_all", "peak"):
                        continue
                    ask(side, task)
            print(f"round {turn + 1} of {args.rounds}", flush=True)
            medians = {key: statistics.median(values) for key, values in spent.items()}
        report(args, medians, kept, macs)
        for pipe in pipes.values():
            pipe.send(None)


def report(args, cost, kept, macs):
    """Tables: a unit of each part, whole studies, and what the processor could do."""
    names = {"sample": "sample and score an image", "fit": "fit a boundary", "rescore": "re-score a sample"}
    print(f"fast: {kept['fast']['what']}\n")
    print("| CPU seconds | official | exact | ratio | fast | ratio |\n|---|---|---|---|---|---|")
    for task, name in names.items():
        theirs, exact, fast = (cost[side, task] for side in SIDES)
        print(f"| {name} | {theirs:.3f} | {exact:.3f} | {theirs / exact:.1f} | {fast:.3f} | {theirs / fast:.1f} |")
    theirs, every = cost["official", "fit"], cost["exact", "fit_all"]
    print(f"| fit a boundary to every sample |  | {every:.3f} | {theirs / every:.1f} |  |  |")

    def hours(side, num, share=1.0, mode="fit"):
        rescoring = args.verify * (cost[side, "rescore"] * share)
        return (num * cost[side, "sample"] + CONCEPTS * cost[side, mode] + rescoring) / 3600

    official = hours("official", args.num)
    rows = [("the official recipe", args.num, 1.0, "fit")]
    rows += [("adaptive", args.num, args.share, "fit")] if args.share else []
    rows += [("every sample used", args.enough, 1.0, "fit_all")] if args.enough else []
    rows += [("every sample used, adaptive", args.enough, args.share, "fit_all")] if args.share and args.enough else []
    print(f"\n| whole study, CPU hours (official: {official:.0f}) | samples | exact | ratio | fast | ratio |")
    print("|---|---|---|---|---|---|")
    for name, num, share, mode in rows:
        cells = [(hours(side, num, share, mode), official / hours(side, num, share, mode)) for side in SIDES[1:]]
        print(f"| {name} | {num:,} | " + " | ".join(f"{h:.1f} | {r:.1f}" for h, r in cells) + " |")
    per_image = sum(macs)
    rates = kept["fast"]["rates"]
    print(f"\nMultiply-adds of an image: {macs[0]:.1f} billion drawn, {macs[1]:.1f} billion scored.")
    print(f"Best rate of one large operation: {rates[0]:.0f} billion a second in float32, {rates[1]:.0f} in bfloat16.")
    for side, peak in (("official", rates[0]), ("exact", rates[0]), ("fast", rates[1])):
        rate = per_image / cost[side, "sample"]
        print(f"{side}: {rate:.0f} billion a second, {rate / peak:.0%} of that")


if __name__ == "__main__":
    main()
