"""The weights that come with the package: what their cards say, checked on rooms nobody trained on."""

import json
from pathlib import Path

import pytest
import torch

import higan
from higan import hierarchy, population, store, study
from higan.generators.loading import SIBLINGS
from higan.generators.loading import WEIGHTS as GENERATORS
from higan.rooms.dataset import sample_rooms
from higan.rooms.supervised import MIN_AUC, MIN_CORRELATION, area_under_curve, targets
from higan.scorers.loading import WEIGHTS as SCORERS
from higan.scorers.rooms import RoomsScorer
from higan.segmenters.loading import WEIGHTS as SEGMENTERS
from higan.types import LEVELS, Generator, Scorer, Segmenter, StagedGenerator

FRESH = 20_000_000  # far beyond the seeds of every training set


WORLDS = {"rooms": 64, "rooms-128": 128}


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    """Name of generator, scorer and segmenter, and rooms rendered at their size."""
    return request.param, sample_rooms(range(FRESH, FRESH + 300), WORLDS[request.param])


@pytest.mark.parametrize("folder", [GENERATORS, SCORERS, SEGMENTERS], ids=lambda f: f.parent.name)
@pytest.mark.parametrize("name", WORLDS)
def test_weights_are_small_and_say_how_they_were_made(folder, name):
    path = folder / f"{name}.safetensors"
    assert path.stat().st_size < 16 * 2**20
    start = path.read_bytes()
    header = json.loads(start[8 : 8 + int.from_bytes(start[:8], "little")])
    assert json.loads(header["__metadata__"]["higan"])["metadata"]
    assert all(entry["dtype"] in ("F16", "I64") for name, entry in header.items() if name != "__metadata__")


@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_differ_from_the_first_in_one_thing(name):
    first, sibling = higan.load_generator(SIBLINGS[0]), higan.load_generator(name)
    told = ("seed", "mixing", "architecture", "images seen")
    assert sum(first.metadata[key] != sibling.metadata[key] for key in told) == (name != SIBLINGS[0])
    assert sibling.config.architecture == sibling.metadata["architecture"]
    images = population.render(sibling, population.sample(sibling, range(8)))
    assert images.shape == (8, 3, 32, 32)
    assert images.float().std(0).mean() > 10  # grey levels: samples are not one picture


@pytest.mark.parametrize(("name", "resolution"), WORLDS.items())
def test_generator_is_found_by_name(name, resolution):
    generator = higan.load_generator(name)
    assert isinstance(generator, Generator)
    assert isinstance(generator, StagedGenerator)
    assert generator.resolution == resolution
    images = population.render(generator, population.sample(generator, [5, 6]))
    assert images.shape == (2, 3, generator.resolution, generator.resolution)
    alone = population.render(generator, population.sample(generator, [6]))
    assert (images[1].int() - alone[0].int()).abs().max() <= 1


def test_samples_vary_as_renders_do(world):
    name, rooms = world
    generator = higan.load_generator(name)
    fake = population.render(generator, population.sample(generator, range(96)))
    small = [torch.nn.functional.adaptive_avg_pool2d(x.float(), 8).flatten(1) for x in (fake, rooms.images[:96])]
    spread = [torch.pdist(x).mean() for x in small]
    assert spread[0] > 0.5 * spread[1]


def test_scorer_sees_what_is_there(world):
    name, rooms = world
    scorer = RoomsScorer.load(SCORERS / f"{name}.safetensors")
    assert scorer.network.size == WORLDS[name]
    with torch.inference_mode():
        scores = scorer.predict(rooms.images)
    truth = targets(rooms.factors, rooms.masks)
    for column, output in enumerate(scorer.outputs):
        s, t = scores[:, column], truth[:, column]
        if output.kind == "scale":
            quality, least = float(torch.corrcoef(torch.stack([s, t]))[0, 1]), MIN_CORRELATION
        else:
            quality, least = area_under_curve(s, t > 0.5), MIN_AUC
        claimed = scorer.metadata["quality"][output.name]
        assert quality == pytest.approx(claimed, abs=0.05), output.name
        assert not output.shown or quality > least - 0.04, output.name


@pytest.mark.parametrize("name", WORLDS)
def test_every_level_has_concepts(name):
    scorer = higan.load_scorer(name)
    assert isinstance(scorer, Scorer)
    assert scorer.name == name
    assert {concept.level for concept in scorer.concepts} == set(LEVELS)


def test_segmenter_sees_what_is_there(world):
    name, rooms = world
    segmenter = higan.load_segmenter(name)
    assert isinstance(segmenter, Segmenter)
    with torch.inference_mode():
        found = segmenter.segment(rooms.images)
    assert (found == rooms.masks).float().mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_layout_lies_before_attributes_and_colours(tmp_path: Path, name):
    """The paper's claim, on the embedded pairs, at a third of the demo's size."""
    generator, scorer = higan.load_generator(name), higan.load_scorer(name)
    run = study.open_study(tmp_path / "run", generator, scorer, num=4000)
    study.sample_step(run, generator, scorer)
    study.fit_step(run)
    study.rescore_step(run, generator, scorer, num=64, num_random=20)
    profile = hierarchy.profile(store.load_rescoring(run))
    centre = dict(zip(profile.levels, profile.centre.tolist(), strict=True))
    assert centre["layout"] < centre["attribute"]
    assert centre["layout"] < centre["colour"]
