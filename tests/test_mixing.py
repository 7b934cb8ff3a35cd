"""Layers of one sample in another, checked element by element and through the toy pair's scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from higan import population
from higan.generators.toy import ToyGenerator
from higan.mixing import mix, mixing_grid, transfer_palette
from higan.scorers.toy import ToyScorer

G = ToyGenerator(6, 8, shared_code=True)
CODES = population.sample(G, range(4))


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 5), min_size=1))
def test_layers_come_from_the_donor_and_only_those(layers):
    mixed = mix(CODES, CODES[1:2], layers)
    for layer in range(6):
        assert torch.equal(mixed[:, layer], (CODES[1:2].expand(4, -1, -1) if layer in layers else CODES)[:, layer])


def test_mixing_twice_gives_everything_back():
    rest = [0, 2, 5]
    mixed = mix(CODES[:2], CODES[2:], [1, 3, 4])
    assert torch.equal(mix(mixed, CODES[2:], rest), CODES[2:])
    assert torch.equal(mix(mixed, CODES[:2], [1, 3, 4]), CODES[:2])


def test_the_palette_is_the_last_stage():
    scores = population.score(ToyScorer(6), population.render(G, transfer_palette(CODES, CODES[3:])))
    before = population.score(ToyScorer(6), population.render(G, CODES))
    # Six layers are cut into the stages 0, 1-2, 3-4 and 5, so that only planted 5 follows the donor.
    torch.testing.assert_close(scores[:, :5], before[:, :5], atol=0.01, rtol=0)
    torch.testing.assert_close(scores[:, 5], before[3:, 5].expand(4), atol=0.01, rtol=0)


def test_a_grid_is_every_pair():
    grid = mixing_grid(CODES[:3], CODES[2:], [0])
    assert grid.shape == (3, 2, 6, 8)
    for a in range(3):
        for b in range(2):
            assert torch.equal(grid[a, b], mix(CODES[a : a + 1], CODES[2 + b : 3 + b], [0])[0])
    with pytest.raises(ValueError, match="at least one donor; got none"):
        mixing_grid(CODES, CODES[:0], [0])


@pytest.mark.parametrize(
    ("donors", "layers", "words"),
    [
        (CODES[:1], [], "at least one layer"),
        (CODES[:1], [6], "layers go from 0 to 5; got 6"),
        (CODES[:3], [0], "one for each of 4 codes; got 3"),
        (CODES[:, :5], [0], "must both have shape"),
    ],
)
def test_bad_mixtures(donors, layers, words):
    with pytest.raises(ValueError, match=words):
        mix(CODES, donors, layers)


def test_one_layer_has_no_palette():
    with pytest.raises(ValueError, match="at least two stages"):
        transfer_palette(CODES[:, :1], CODES[:, :1])
