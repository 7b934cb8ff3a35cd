"""Does the hierarchy come back in another generator? Siblings of the embedded one, studied alike and compared.

    python benchmarks/replication.py [GENERATOR …] [--out DIR] [--figure docs/images/replication.svg]

GENERATOR is a name or a weight file; by default the embedded generator and the siblings that come with the package.
Each goes through the same study: sample, fit, re-score with a null. Studies are kept in the folder; the same line goes
on. Prints four tables:

1. Quality at 32 × 32: Fréchet distance, precision and recall beside renders, in the features of the rooms scorer.
2. Where each level lives: mean layer as relative depth (0 the first layer, 1 the last), and whether the order of the
   paper appears. Intervals are 95 % bootstrap over the re-scored samples: they tell nothing of another training.
3. Agreement of pairs: correlation of the level profiles over eighths of depth; correlation and mean difference of the
   concepts' mean depths. A generator's own two halves of the samples are the ceiling; the floor of the first is the
   same profiles with the levels' names exchanged in all other ways. Pairs that share no verified concept are left out.
4. Where lighting lives.

Generators are compared at the same step in standard deviations of their codes along the boundaries' normals, since
the scale of a code space is an accident of training; ``--step`` sets one length in code space instead.
"""

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from statistics import fmean

import torch

from higan import load_generator, load_scorer, store, study
from higan.comparison import BINS, agreement, are_comparable, binning, halves, locate, reach
from higan.generators.loading import SIBLINGS, WEIGHTS
from higan.generators.rooms import RoomsGenerator
from higan.hierarchy import profile
from higan.memory import keep_memory
from higan.population import render, sample
from higan.rooms.dataset import write_data
from higan.rooms.quality import measure_quality
from higan.rooms.sources import shrink
from higan.scorers.loading import WEIGHTS as SCORERS
from higan.scorers.rooms import RoomsScorer
from higan.types import LEVELS, Rescoring
from higan.weights import digest_of

HELD_OUT = 10_000_000
LIGHTING = ("indoor_lighting", "natural_light")
NAMES = {"layout": "layout", "object": "objects", "attribute": "attributes", "colour": "colour scheme"}


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


# --- one generator ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sibling:
    """A studied generator: its re-scoring, and where it comes from."""

    name: str
    layers: int
    step: float
    sigma: float
    """Standard deviation of codes along a boundary's normal, mean over concepts."""
    rescoring: Rescoring

    @cached_property
    def profile(self):
        return profile(self.rescoring)

    @cached_property
    def located(self):
        """Every verified concept over layers: as measured, then in each resample."""
        return locate(self.rescoring)


def study_one(name, out, args):
    """The study of a generator, in a folder of its own."""
    generator, scorer = load_generator(name), load_scorer("rooms")
    digests = {"generator": digest_of(weights_of(name))}
    run = study.open_study(out / Path(name).stem, generator, scorer, num=args.num, digests=digests, seed=args.seed)
    study.sample_step(run, generator, scorer)
    boundaries = study.fit_step(run)
    codes = store.read_population(run).codes[:, 0]
    sigma = float(torch.stack([(codes @ b.normal.flatten()).std() for b in boundaries]).mean())
    step = args.step or round(args.sigmas * sigma, 3)
    rescoring = study.rescore_step(run, generator, scorer, num=args.verify, num_random=args.random, step=step)
    return Sibling(generator.name, generator.num_layers, step, sigma, rescoring)


def weights_of(name):
    embedded = WEIGHTS / f"{name}.safetensors"
    return embedded if embedded.is_file() else Path(name)


def quality_of(name, held_out, num):
    """At 32 pixels, untruncated, whatever the generator's own size."""
    generator = RoomsGenerator.load(weights_of(name), truncation=1.0)
    judge = RoomsScorer.load(SCORERS / "rooms.safetensors")
    return measure_quality(
        judge,
        lambda start, stop: shrink(render(generator, sample(generator, range(start, stop))), 32),
        lambda start, stop: shrink(torch.from_numpy(held_out.images[start:stop].copy()), 32),
        num,
    )


# --- comparisons ------------------------------------------------------------------------------------------------------


def shown(found, digits=2):
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} – {found.high:.{digits}f})"


def halves_of(sibling):
    """The same generator, each half of the re-scored samples by itself."""
    return [replace(sibling, rescoring=half) for half in halves(sibling.rescoring)]


# --- tables -----------------------------------------------------------------------------------------------------------


def print_quality(names, out, num):
    held_out = write_data(out / "held-out", 2 * num, 64, HELD_OUT, 1)
    cache = out / "quality.json"
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    rows = []
    for name in names:
        key = f"{digest_of(weights_of(name))} {num}"
        if key not in known:
            q = quality_of(name, held_out, num)
            known[key] = [q.frechet.value, q.frechet_renders.value, q.precision.value, q.recall.value, q.sure]
            cache.write_text(json.dumps(known))
        frechet, floor, precision, recall, sure = known[key]
        meta = RoomsGenerator.load(weights_of(name)).metadata
        rows.append([
            Path(name).stem, f"{meta.get('images seen', meta.get('images', 0)):,}", f"{frechet:.1f}", f"{floor:.1f}",
            f"{precision:.2f} / {recall:.2f}", f"{sure:.0%}",
        ])  # fmt: skip
    head = ["generator", "images seen", "Fréchet", "renders against renders", "precision / recall", "sure category"]
    print(f"Quality at 32 × 32, {num} samples a side")
    table(head, rows)


def print_levels(siblings):
    rows = []
    for s in siblings:
        p, last = s.profile, s.layers - 1
        cells = []
        for level in LEVELS:
            if level not in p.levels:
                cells.append("none verified")
                continue
            v = p.levels.index(level)
            centre, low, high = (float(x[v]) / last for x in (p.centre, p.centre_low, p.centre_high))
            cells.append(f"{centre:.2f} ({low:.2f} – {high:.2f})")
        order = " < ".join(NAMES[p.levels[v]].split()[0] for v in p.centre.argsort().tolist())
        in_order = [order, f"{p.in_order:.0%}"] if len(p.levels) > 1 else ["–", "–"]
        verified = f"{len(s.located.shares)} of {len(s.rescoring.concepts)}"
        rows.append([s.name, verified, f"{s.step:g}", *cells, *in_order])
    print("Mean relative depth of each level")
    table(["generator", "verified", "λ", *NAMES.values(), "order found", "paper's order, resamples"], rows)


def print_agreement(siblings):
    pairs = [(f"{s.name}, two halves of its samples", *halves_of(s)) for s in siblings]
    pairs += [(f"{a.name} and {b.name}", a, b) for a, b in itertools.combinations(siblings, 2)]
    cells = []
    for pair, one, other in pairs:
        if not are_comparable(one.located, other.located):
            continue
        found = agreement(one.located, other.located)
        floor = f"{fmean(found.exchanged):.2f}; {max(found.exchanged):.2f}" if found.exchanged else "–"
        cells.append([pair, shown(found.profiles), floor, shown(found.depths), shown(found.gap), str(found.concepts)])
    print("Agreement")
    head = [
        "pair", "level profiles, r", "names exchanged: mean; best", "concepts' depths, r", "mean difference", "concepts"
    ]  # fmt: skip
    table(head, cells)


def print_lighting(siblings):
    rows = []
    for s in siblings:
        cells, shares, depths = [], s.located.shares, s.located.depths()
        for concept in LIGHTING:
            if concept in shares:
                early = shares[concept] @ binning(s.layers)[:, : BINS // 2].sum(1)
                cells += [shown(reach(depths[concept])), shown(reach(early)), str(int(shares[concept][0].argmax()))]
            else:
                cells += ["not verified", "", ""]
        rows.append([s.name, *cells])
    head = [f"{c}, {what}" for c in LIGHTING for what in ("mean depth", "share in the first half", "strongest layer")]
    print("Where lighting lives")
    table(["generator", *head], rows)


# --- figure -----------------------------------------------------------------------------------------------------------

INK = {"layout": "#2f6db3", "object": "#3a8f4d", "attribute": "#b3661f", "colour": "#a3357a"}
CELL, ROW, LEFT, GAP, COLUMNS = 26, 24, 108, 46, 2


def text(x, y, words, size=12, anchor="start", fill="#333", weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def panel(sibling, x, y):
    """Heat map of the level profiles over depth, the mean depth as a dot with its interval."""
    wide, p, last = BINS * CELL, sibling.profile, sibling.layers - 1
    parts = [text(x + LEFT, y - 10, sibling.name, 13, weight="bold")]
    bins = sibling.located.level_bins()
    for k, level in enumerate(LEVELS):
        top = y + k * ROW
        parts.append(text(x + LEFT - 8, top + 16, NAMES[level], anchor="end"))
        if level not in p.levels:
            parts.append(text(x + LEFT + wide / 2, top + 16, "none verified", anchor="middle", fill="#888"))
            continue
        for b, share in enumerate(bins[level][0].tolist()):
            parts.append(
                f'<rect x="{x + LEFT + b * CELL}" y="{top}" width="{CELL - 1}" height="{ROW - 2}" fill="{INK[level]}" '
                f'fill-opacity="{min(1, share / 0.6):.3f}"><title>{NAMES[level]}: {share:.0%}</title></rect>'
            )
        v = p.levels.index(level)
        low, at, high = (
            x + LEFT + wide * (float(c[v]) + 0.5) / (last + 1) for c in (p.centre_low, p.centre, p.centre_high)
        )
        parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{top + 11}" y2="{top + 11}" stroke="#000"/>')
        parts.append(f'<circle cx="{at:.1f}" cy="{top + 11}" r="4" fill="#fff" stroke="#000" stroke-width="1.5"/>')
    foot = y + len(LEVELS) * ROW + 12
    parts += [
        f'<rect x="{x + LEFT - 0.5}" y="{y - 0.5}" width="{wide}" height="{len(LEVELS) * ROW - 1}" fill="none" '
        'stroke="#ccc"/>',
        text(x + LEFT, foot, "first layer", 10, fill="#666"),
        text(x + LEFT + wide, foot, "last", 10, anchor="end", fill="#666"),
    ]
    return parts


def draw(siblings, path):
    wide, high = LEFT + BINS * CELL + 24, len(LEVELS) * ROW + GAP + 14
    rows = -(-len(siblings) // COLUMNS)
    parts = []
    for k, sibling in enumerate(siblings):
        parts += panel(sibling, (k % COLUMNS) * wide, 34 + (k // COLUMNS) * high)
    width, height = COLUMNS * wide, rows * high + 4
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip


def main():
    keep_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="*", default=["rooms", *SIBLINGS])
    parser.add_argument("--out", type=Path, default=Path("replication"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--num", type=int, default=3000, help="samples to probe")
    parser.add_argument("--verify", type=int, default=64, help="fresh samples to re-score")
    parser.add_argument("--random", type=int, default=19, help="random directions for the null")
    parser.add_argument("--sigmas", type=float, default=4.0, help="step in standard deviations along the normal")
    parser.add_argument("--step", type=float, help="step in code space instead, the same for all")
    parser.add_argument("--quality", type=int, default=1500, help="samples a side for quality; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if args.quality:
        print_quality(args.generators, args.out, args.quality)
    siblings = [study_one(name, args.out, args) for name in args.generators]
    print_levels(siblings)
    print_agreement(siblings)
    print_lighting(siblings)
    if args.figure:
        draw(siblings, args.figure)


if __name__ == "__main__":
    main()
