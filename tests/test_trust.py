"""Edits of inverted pictures beside edits of samples: on a generator whose pictures tell their codes exactly."""

import pytest
import torch

from higan import population
from higan.generators.toy import ToyGenerator
from higan.scorers.toy import ToyScorer
from higan.trust import Trust, compare, successes
from higan.types import Boundary, Concept, Edit

G, S = ToyGenerator(num_layers=3), ToyScorer(num_layers=3)


def planted(layer, strength):
    concept = next(c for c in S.concepts if c.name == f"planted {layer}")
    return Edit(Boundary(concept, G.directions[layer].clone(), torch.zeros(()), 1.0), strength, (layer,))


EDITS = {"first": planted(0, 1.0), "second": planted(1, -0.5)}


@pytest.fixture(scope="module")
def trust():
    pictures = population.render(G, population.sample(G, population.sample_seeds(3, purpose="verify", first=99)))
    return compare(G, S, EDITS, pictures, num=40, steps=60)


def test_what_the_generator_made_is_edited_as_samples_are(trust):
    for row in successes(trust):
        assert row.inverted == pytest.approx(row.sampled, abs=0.15), row
        assert row.ratio_low <= row.ratio <= row.ratio_high
        assert row.low <= row.inverted <= row.high
    assert [row.name for row in successes(trust)] == ["first", "second"]
    # A step is worth its number in score, here in units of the score's standard deviation over the 40 samples.
    first, second = successes(trust)
    assert first.sampled > 0 > second.sampled
    assert trust.images.shape[:2] == (3, 3)
    assert len(trust.inversions) == 3


def test_ratios_by_hand():
    concepts = tuple(Concept(n, "object") for n in "ab")
    sampled = torch.tensor([[[2.0, 2, 2, 2], [1, 1, 1, 1]]])
    inverted = torch.tensor([[[1.0, 1], [2, 2]]])
    row = successes(Trust(("a",), concepts, (0,), sampled, inverted, (), torch.zeros(2, 2, 3, 1, 1, dtype=torch.uint8)))
    (row,) = row
    assert (row.sampled, row.inverted, row.ratio) == (2, 1, 0.5)
    assert (row.ratio_low, row.ratio_high) == pytest.approx((0.5, 0.5))
    assert (row.off_sampled, row.off_inverted) == (1, 2)


def test_few_pictures_give_wide_intervals():
    concepts = (Concept("a", "object"),)
    torch.manual_seed(0)
    sampled, inverted = 1 + 0.1 * torch.randn(1, 1, 60), 1 + 0.5 * torch.randn(1, 1, 4)
    images = torch.zeros(4, 2, 3, 1, 1, dtype=torch.uint8)
    (row,) = successes(Trust(("a",), concepts, (0,), sampled, inverted, (), images))
    assert row.ratio_high - row.ratio_low > 0.2


def test_bad_comparisons():
    pictures = torch.zeros(1, 3, G.resolution, G.resolution, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got 0 edits"):
        compare(G, S, {}, pictures)
    with pytest.raises(ValueError, match="0 pictures"):
        compare(G, S, EDITS, pictures[:0])
    other = Edit(Boundary(Concept("x", "object"), G.directions[0].clone(), torch.zeros(()), 1.0), 1.0, (0,))
    with pytest.raises(ValueError, match="unknown concepts: x"):
        compare(G, S, {"x": other}, pictures)
