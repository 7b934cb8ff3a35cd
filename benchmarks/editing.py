"""How little an edit changes besides what was asked, how well photographs are inverted, whether object maps are right.

    python benchmarks/editing.py RUN [--out FILE.json]

RUN is a finished run of the embedded generator, such as `higan demo` makes. Prints five tables; takes minutes.

1. Off-target change at matched on-target change. Every edit is scaled until it moves its own score by one standard
   deviation on average; what it does to all other scores (root mean square of their mean changes, in standard
   deviations) is compared between fitted and projected directions, and between recommended layers, the stage that the
   paper names for the concept's level, and all layers.
2. Inversion of rendered rooms that nothing was trained on, and of samples of the generator: error in grey levels and
   distance from the sampled codes; then how far edits that move samples by one standard deviation move the inverted
   codes.
3. Object mapping on rooms furnished in two ways: counted on the renderer's own masks, and on what the segmenter sees.
4. The transition bedroom → living room → dining room of the generator.
"""

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

from higan import load_generator, load_scorer, load_segmenter, store
from higan.effects import (
    distinguishable,
    effect_interval,
    matched,
    mean_effects,
    measure_effects,
    off_target,
    projected,
)
from higan.errors import HiganError
from higan.layers import groups
from higan.memory import keep_memory
from higan.population import render, sample, sample_seeds, score
from higan.recipes import format_layers
from higan.rooms.classes import CATEGORIES, CLASSES
from higan.rooms.render import render as render_rooms
from higan.rooms.scene import sample_scenes
from higan.statistics import rank
from higan.transitions import flows, kept, map_objects, mapping_shares, segment, travel
from higan.trust import compare, successes
from higan.types import LEVELS, Edit
from higan.workbench import open_workbench, recommend

HELD_OUT = 20_000_000
_LEAST = 0.1
"""Change of the edited score, in σ of a wanted one, below which an edit counts as out of reach."""


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def chosen_concepts(bench, each):
    """The strongest verified concepts of every level; of a small run that verifies none, those that rise at all."""
    ranked = rank(bench.rescoring, pooled=bench.rescoring.null.shape[0] >= 3)
    rows = [row for row in ranked if row.verified] or [row for row in ranked if row.signed > 0]
    return [row.concept for level in LEVELS for row in [r for r in rows if r.concept.level == level][:each]]


def off_target_table(bench, concepts, std, num):
    stages = dict(zip(LEVELS, groups(bench.generator.num_layers).values(), strict=True))
    everywhere = tuple(range(bench.generator.num_layers))
    places = {
        "recommended": lambda c: recommend(bench.rescoring, c.name).layers,
        "paper's stage": lambda c: stages[c.level],
        "all layers": lambda c: everywhere,
    }
    found = {}
    for place, where in places.items():
        edits = {c.name: Edit(bench.boundaries[c.name], 2.0, where(c)) for c in concepts}
        for kind, variant in (("as fitted", edits), ("projected", projected(edits))):
            ready = matched(bench.generator, bench.scorer, variant, std=std, num=num // 2)
            if ready:
                effects = measure_effects(bench.generator, bench.scorer, ready, std=std, num=num)
                mean = mean_effects(effects)
                significant = distinguishable(effect_interval(effects))
                for e, name in enumerate(effects.names):
                    own = effects.own[e]
                    if mean[e, own] < _LEAST:  # Nothing to be a share of: what moved half as many samples is lost.
                        continue
                    others = significant[e].clone()
                    others[own] = False
                    found[place, kind, name] = {
                        "own": float(mean[e, own]),
                        "off": float(off_target(effects)[e]) / float(mean[e, own]),
                        "others": int(others.sum()),
                        "strength": ready[name].strength,
                    }
    columns = [(place, kind) for place in places for kind in ("as fitted", "projected")]
    rows = []
    for c in concepts:
        cells = [found.get((*column, c.name)) for column in columns]
        rows.append(
            [c.name, c.level, *("out of reach" if r is None else f"{r['off']:.3f} ({r['others']})" for r in cells)]
        )
    shared = [c.name for c in concepts if all((*column, c.name) in found for column in columns)]
    means = {
        f"{place}, {kind}": sum(found[place, kind, name]["off"] for name in shared) / max(len(shared), 1)
        for place, kind in columns
    }
    rows.append([f"mean of {len(shared)}", "", *(f"{m:.3f}" for m in means.values())])
    print("Off-target change per σ of on-target change; in brackets, other scores whose interval does not hold zero")
    table(["concept", "level", *(f"{place}, {kind}" for place, kind in columns)], rows)
    return {"mean": means, "shared": shared, "each": {" / ".join(k): v for k, v in found.items()}}


def inversion_table(bench, concepts, std, num, steps):
    generator = bench.generator
    rooms = render_rooms(sample_scenes(range(HELD_OUT, HELD_OUT + num)), generator.resolution, chunk=1).images
    fresh = sample_seeds(num, purpose="verify", first=2**23 + 2**20)
    own = render(generator, sample(generator, fresh))
    edits = {c.name: Edit(bench.boundaries[c.name], 2.0, recommend(bench.rescoring, c.name).layers) for c in concepts}
    ready = matched(generator, bench.scorer, edits, std=std, num=16)
    found = {
        kind: compare(generator, bench.scorer, ready, pictures, std=std, steps=steps)
        for kind, pictures in (("rendered rooms", rooms), ("own samples", own))
    }
    rows, record = [], {}
    for kind, trust in found.items():
        parts = ("error", "start_error", "distance", "percentile", "layer_spread")
        values = {part: [getattr(i, part) for i in trust.inversions] for part in parts}
        mean = {part: sum(v) / num for part, v in values.items()}
        record[kind] = {**values, "edits": {s.name: asdict(s) for s in successes(trust)}}
        rows.append([kind, f"{mean['error']:.1f}", f"{mean['start_error']:.1f}", f"{mean['distance']:.2f}",
                     f"{mean['percentile']:.0f}", f"{mean['layer_spread']:.2f}"])  # fmt: skip
    print(f"Inversion of {num} pictures each, {steps} steps")
    table(["pictures", "error / grey levels", "mean code", "distance", "percentile", "layer spread"], rows)

    rows = []
    for room, sampled in zip(*(successes(trust) for trust in found.values()), strict=True):
        layers = format_layers(ready[room.name].layers)
        cells = [f"{s.inverted:+.2f} ({_interval(s.ratio_low, s.ratio_high)})" for s in (room, sampled)]
        rows.append([room.name, layers, f"{room.sampled:+.2f}", *cells, f"{room.ratio:.2f}", f"{sampled.ratio:.2f}",
                     f"{room.off_sampled:.2f} / {room.off_inverted:.2f}"])  # fmt: skip
    ratios = [[s.ratio for s in successes(trust)] for trust in found.values()]
    rows.append([f"mean of {len(ready)}", *[""] * 4, *(f"{sum(r) / len(r):.2f}" for r in ratios), ""])
    print(
        "Edit success on inverted codes: change of the edited score / σ, interval of its ratio to samples in brackets"
    )
    table(["edit", "layers", "samples", "inverted rooms", "inverted own samples", "ratio, rooms", "ratio, own samples",
           "others: samples / rooms"], rows)  # fmt: skip
    return record


def _interval(low, high):
    """Not known of a single picture."""
    return "–" if math.isnan(low) else f"{low:.2f} – {high:.2f}"


def mapping_table(segmenter, num, resolution):
    rows, record = [], {}
    for a, b in ((0, 1), (1, 2)):
        rooms = [
            render_rooms(sample_scenes(range(HELD_OUT, HELD_OUT + num), category=c), resolution, chunk=1)
            for c in (a, b)
        ]
        truth = map_objects(CLASSES, *(r.masks for r in rooms))
        seen = map_objects(CLASSES, *(segment(segmenter, r.images) for r in rooms))
        weight = truth.counts.sum(0).double() / truth.counts.sum()
        large = weight >= 0.002
        gap = (mapping_shares(truth) - mapping_shares(seen)).abs()[large]
        best = [(f.source.name, f.target.name) for f in flows(truth) if f.pixels >= 8]
        guess = {f.source.name: f.target.name for f in reversed(flows(seen))}
        tops = {}
        for source, target in best:
            tops.setdefault(source, target)
        hits = sum(guess.get(s) == t for s, t in tops.items())
        stays = [{row.name: row.share for row in kept(m)} for m in (truth, seen)]
        name = f"{CATEGORIES[a]} → {CATEGORIES[b]}"
        record[name] = {
            "mean gap": float(gap.mean()),
            "largest gap": float(gap.max()),
            "first target": [hits, len(tops)],
        }
        rows.append([name, str(int(large.sum())), f"{100 * gap.mean():.1f}", f"{100 * gap.max():.1f}",
                     f"{hits} of {len(tops)}",
                     f"{stays[0]['stuff']:.3f} / {stays[1]['stuff']:.3f}",
                     f"{stays[0]['things']:.3f} / {stays[1]['things']:.3f}"])  # fmt: skip
    print(f"Object mapping of {num} rooms furnished in two ways: renderer's masks against the segmenter's")
    head = ["leg", "flows", "mean gap / points", "largest gap", "first target right", "stuff kept", "things kept"]
    table(head, rows)
    return record


def transition_table(bench, segmenter, num):
    journey = travel(bench, segmenter, CATEGORIES, num=num)
    # Of all samples: those chosen are of one category, and differ less in its score.
    names = [concept.name for concept in bench.rescoring.concepts]
    scores, std = journey.scores, bench.rescoring.score_std[[names.index(name) for name in CATEGORIES]]
    rows, record = [], {}
    for k, mapping in enumerate(journey.mappings):
        at = (k + 1) * journey.steps
        stays = {row.name: row for row in kept(mapping)}
        arrived = float((scores[:, at].argmax(1) == k + 1).double().mean())
        gain = float((scores[:, at, k + 1] - scores[:, 0, k + 1]).mean() / std[k + 1])
        name = f"{CATEGORIES[k]} → {CATEGORIES[k + 1]}"
        record[name] = {
            "arrived": arrived,
            "gain": gain,
            "strength": journey.legs[k].strength,
            "layers": journey.legs[k].layers,
            **{n: stays[n].share for n in ("stuff", "things")},
        }
        told = [f"{stays[n].share:.2f} ({stays[n].low:.2f} – {stays[n].high:.2f})" for n in ("stuff", "things")]
        layers = ",".join(map(str, journey.legs[k].layers))
        rows.append([name, layers, f"{journey.legs[k].strength:.1f}", f"{gain:+.1f}", f"{100 * arrived:.0f} %", *told])
    print(f"Transition of {num} samples")
    table(["leg", "layers", "steps", "score / σ", "now foremost", "stuff kept", "things kept"], rows)
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--segmenter", help="by default the run's")
    parser.add_argument("--each", type=int, default=2, help="concepts per level")
    parser.add_argument("--num", type=int, default=32, help="samples per measurement")
    parser.add_argument("--steps", type=int, default=400, help="of an inversion")
    parser.add_argument("--pictures", type=int, default=6, help="to invert, of either kind")
    options = parser.parse_args()
    keep_memory()
    start = time.monotonic()
    run = store.load_run(options.run)
    generator, scorer = load_generator(run.provenance["generator"]), load_scorer(run.provenance["scorer"])
    bench = open_workbench(run, generator, scorer)
    concepts = chosen_concepts(bench, options.each)
    scores = score(scorer, render(generator, sample(generator, sample_seeds(200))))
    std = scores.std(0)
    record = {"off target": off_target_table(bench, concepts, std, options.num)}
    record["inversion"] = inversion_table(bench, concepts, std, options.pictures, options.steps)
    try:
        segmenter = load_segmenter(options.segmenter or run.provenance["segmenter"])
    except HiganError as error:
        print(f"No segmenter, no object mapping: {error}")
    else:
        record["mapping"] = mapping_table(segmenter, options.num, generator.resolution)
        if all(name in bench.boundaries for name in CATEGORIES):
            record["transition"] = transition_table(bench, segmenter, options.num)
    record["seconds"] = round(time.monotonic() - start, 1)
    print(f"{record['seconds']} seconds")
    if options.out:
        options.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
