"""Studies for tests: of the toy generator, whose answers are known by hand, and without pictures where none are needed."""

from higan import boundaries, population, rescoring, store
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.types import LEVELS
from higan.userstudy.design import CATCHES, Unit, lay_out
from higan.userstudy.folder import Expected, write_study

STAGES = {"bottom": (0, 1), "lower": (2, 3), "upper": (4, 5, 6, 7), "top": (8, 9)}
DIAGONAL = Expected(
    LEVELS,
    tuple(STAGES),
    *(tuple(tuple(d if v == s else o for s in range(4)) for v in range(4)) for d, o in ((0.7, 0.1), (0.6, 0.0), (0.8, 0.2))),
)  # fmt: skip


def make_design(stages=None, sources=LEVELS, repeats=2, num_catches=6, overlap=2, seed=7):
    stages = STAGES if stages is None else stages
    units = {
        source: [Unit(source, f"{source} {i % 3}", 2.0, 100 * v + i) for i in range(repeats * len(stages))]
        for v, source in enumerate(sources)
    }
    kinds = [list(CATCHES)[k % len(CATCHES)] for k in range(num_catches)]
    return lay_out(stages, units, [(k, Unit("catch", k, 0.0, 5)) for k in kinds], seed=seed, overlap=overlap)


def make_study(path, expected=DIAGONAL, **options):
    """A study whose pictures are one grey pixel."""
    design = make_design(**options)
    names = {name for trial in design.trials.values() for name in (trial.before, trial.after)}
    return write_study(
        path, design, expected, dict.fromkeys(names, lambda: PIXEL), title="Test", made={"generator": "toy"}
    )


def make_run(path, *, num=400, K=24, R=30, num_layers=6, scorer=None):
    generator, scorer = ToyGenerator(num_layers), scorer or ToyScorer(num_layers)
    settings = {"num_samples": num, "shard_size": 500, "seed": 0, "generator": generator.name, "scorer": scorer.name}
    run = store.open_run(path, settings, provenance={"generator": "toy", "scorer": "toy", "segmenter": None})
    population.fill(run, generator, scorer)
    found = boundaries.fit(store.read_population(run), mode="all")
    store.save_boundaries(run, found)
    store.save_rescoring(run, rescoring.rescore(generator, scorer, found, num=K, num_random=R))
    return run, generator


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
