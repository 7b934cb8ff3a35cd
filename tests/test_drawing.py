"""Pictures drawn from the first edited layer on are those that are drawn from the start."""

import math

import pytest
import torch

from higan import effects, load_generator, stepping
from higan.boundaries import random_directions
from higan.drawing import start_at
from higan.editing import apply, offset
from higan.generators.toy import ToyGenerator
from higan.population import render, sample, sample_seeds, score
from higan.scorers.colour import ColourScorer
from higan.types import Boundary, Concept, Edit, Placement, RepeatedGenerator, StagedGenerator

GENERATOR = load_generator("rooms-32-s0")
DIRECTIONS = [
    Boundary(Concept(f"random {k}", "object"), row, torch.tensor(0.0), math.nan)
    for k, row in enumerate(random_directions(3, GENERATOR.code_dim, seed=1))
]


class Single:
    """A generator that goes on from a layer, one edit at a time."""

    def __init__(self, generator):
        for name in dir(generator):
            if not name.startswith("_") and name != "repeat":
                setattr(self, name, getattr(generator, name))


def moved(codes, first):
    steps = torch.full((GENERATOR.num_layers,), 2.0)
    layers = tuple(range(first, GENERATOR.num_layers))
    return torch.cat([codes + offset(direction, steps, layers, codes.shape[2]) for direction in DIRECTIONS])


@pytest.mark.parametrize("first", [0, 1, 5])
def test_pictures_are_those_drawn_from_the_start(first):
    codes = sample(GENERATOR, range(4))
    wanted = render(GENERATOR, moved(codes, first)).int()
    begun = start_at(GENERATOR, codes, first)
    assert begun.several
    assert int((begun.draw(moved(codes, first)).int() - wanted).abs().max()) <= 1
    one = start_at(Single(GENERATOR), codes, first)
    assert one.several == (first == 0)
    parts = [one.draw(part) for part in moved(codes, first).split(4)]
    assert int((torch.cat(parts).int() - wanted).abs().max()) <= 1


def test_what_the_generators_can():
    assert isinstance(GENERATOR, StagedGenerator)
    assert isinstance(GENERATOR, RepeatedGenerator)
    assert not isinstance(Single(GENERATOR), RepeatedGenerator)
    assert isinstance(Single(GENERATOR), StagedGenerator)
    toy = ToyGenerator(4, 8)
    assert start_at(toy, sample(toy, range(2)), 3).finish == toy.synthesize


@pytest.mark.parametrize(("resolution", "images"), [(64, 512), (256, 256), (1024, 16)])
def test_calls_on_a_gpu_are_bounded_by_pixels(resolution, images):
    toy = ToyGenerator(4, 8)
    begun = start_at(toy, sample(toy, range(2)), 0)
    toy.device, toy.resolution = torch.device("cuda"), resolution
    assert len(next(begun.calls(range(300), 2))) == min(images // 2, 300)


def test_edits_are_drawn_in_calls_that_hold_each_once():
    codes = sample(GENERATOR, range(4))
    begun, one = start_at(GENERATOR, codes, 1), start_at(Single(GENERATOR), codes, 1)
    assert [*begun.calls("abcde", 4, 8)] == ["ab", "cd", "e"]
    assert [*begun.calls("abc", 4, 3)] == ["a", "b", "c"]  # a call draws all samples of an edit at the least
    assert [*begun.calls("abcdefghij", 4)] == ["abcdefgh", "ij"]  # 32 images on a processor
    assert [*one.calls("abc", 4, 100)] == ["a", "b", "c"]


def test_changes_of_pictures_against_whole_drawing():
    places = [
        Placement("late", (6, 7)),
        Placement("layer 2", (2,)),
        Placement("all", tuple(range(8))),
        Placement("2", (2,)),
    ]
    steps = torch.full((4, 8), 2.0)
    codes = sample(GENERATOR, sample_seeds(8, seed=0, purpose="verify", first=2**23))
    before, wanted = render(GENERATOR, codes), []
    for place, row in zip(places, steps, strict=True):
        after = [render(GENERATOR, codes + offset(d, row, place.layers, codes.shape[2])) for d in DIRECTIONS]
        wanted.append(torch.stack([stepping.pixel_change(before, images).mean() for images in after]).mean())
    for generator in (GENERATOR, Single(GENERATOR)):
        found = stepping.image_changes(generator, places, steps, DIRECTIONS)
        torch.testing.assert_close(found, torch.stack(wanted), atol=0.02, rtol=0)


def test_changes_of_scores_against_whole_drawing_in_the_order_of_the_edits():
    scorer = ColourScorer()
    edits = [Edit(DIRECTIONS[0], 3.0, (7,)), Edit(DIRECTIONS[1], 2.0, (0, 1)), Edit(DIRECTIONS[2], 2.0, (4,))]
    std = torch.ones(len(scorer.concepts))
    found = effects.measure_changes(GENERATOR, scorer, edits, std=std, num=6, batch_size=4)
    codes = sample(GENERATOR, sample_seeds(6, seed=0, purpose="verify", first=2**21))
    before = score(scorer, render(GENERATOR, codes))
    for edit, changes in zip(edits, found, strict=True):
        wanted = score(scorer, render(GENERATOR, apply(codes, [edit]))) - before
        torch.testing.assert_close(changes.mT, wanted, atol=0.05, rtol=0)
