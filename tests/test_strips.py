"""Strips on the toy pair: every picture is where it belongs, and says what was measured."""

import pytest
import torch

from higan import population
from higan.generators.toy import ToyGenerator
from higan.rescoring import rescore
from higan.scorers.toy import ToyScorer
from higan.strips import grid_strip, joint_strip, parse_sweep, starts, sweep_strip
from higan.types import Boundary
from higan.workbench import Workbench, draw

G, S = ToyGenerator(4, 8), ToyScorer(4)
BOUNDARIES = {c.name: Boundary(c, G.directions[k], torch.tensor(0.0), 1.0) for k, c in enumerate(S.concepts[:4])}


@pytest.fixture(scope="module")
def bench():
    return Workbench(G, BOUNDARIES, S, rescore(G, S, list(BOUNDARIES.values()), num=20, num_random=1))


def planted(strip):
    return (strip.codes * G.directions[:-1]).sum(-1)


def test_sweeps_read_as_they_are_written():
    assert parse_sweep("-3:3:7") == (-3, -2, -1, 0, 1, 2, 3)
    assert parse_sweep("0:1:3") == (0, 0.5, 1)
    for end in (0.1, 0.7, 3.3):
        # Symmetric and not, the original is among them, and ends are as written.
        for number in (7, 25):
            found = parse_sweep(f"-{end}:{end}:{number}")
            assert (found[0], found[number // 2], found[-1]) == (-end, 0, end)
            assert parse_sweep(f"-{end}:{2 * end}:{number}")[(number - 1) // 3] == 0
    for text in ("", "1:2", "1:2:1", "1:2:x", "nan:1:3", "0:inf:3", "1:2:3:4", "0:1:100000"):
        with pytest.raises(ValueError, match="first:last:number"):
            parse_sweep(text)


def test_a_sweep_scales_all_edits_together(bench):
    codes = starts(bench, [3, 4])
    strip = sweep_strip(bench, ["planted 1=+2@1", "planted 2=-1@2"], codes, [-1.0, 0.0, 0.5])
    assert strip.columns == ("-1", "0", "+0.5")
    moved = planted(strip).reshape(2, 3, 4) - (codes * G.directions[:-1]).sum(-1)[:, None]
    expected = torch.tensor([[0.0, -2, 1, 0], [0, 0, 0, 0], [0, 1, -0.5, 0]])
    torch.testing.assert_close(moved, expected.expand(2, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(strip.images[1], draw(G, codes)[0])
    assert torch.equal(strip.images, draw(G, strip.codes))
    assert strip.captions[1] == "0"
    # Steps are worth their number in score, and captions count in the score's standard deviation over 20 samples.
    std = dict(zip((c.name for c in bench.rescoring.concepts), bench.rescoring.score_std.tolist(), strict=True))
    head, first, second = strip.captions[3].split("\n")
    assert head == "-1"
    assert float(first.split()[-2]) == pytest.approx(-2 / std["planted 1"], abs=0.08)
    assert float(second.split()[-2]) == pytest.approx(1 / std["planted 2"], abs=0.08)


def test_a_concept_edited_at_two_places_is_told_once_and_apart(bench):
    strip = joint_strip(bench, ["planted 1=+2@1", "planted 1=+1@0", "planted 2=+1@2"], starts(bench, [0]))
    assert strip.columns == ("original", "planted 1 0", "planted 1 1", "planted 2", "together")
    told = [caption.rsplit(" ", 2)[0] for caption in strip.captions[-1].split("\n")[1:]]
    assert told == ["planted 1", "planted 2"]


def test_joint_edits_are_the_sum_of_the_single_ones(bench):
    codes = starts(bench, [0])
    strip = joint_strip(bench, ["planted 0=+1@0", "planted 3=+2@3"], codes)
    assert strip.columns == ("original", "planted 0", "planted 3", "together")
    original, first, second, together = strip.codes
    torch.testing.assert_close(together - original, (first - original) + (second - original))
    with pytest.raises(ValueError, match="two or more; got 1"):
        joint_strip(bench, ["planted 0=+1@0"], codes)


def test_a_grid_shows_the_same_step_at_every_place(bench):
    strip = grid_strip(bench, "planted 2=+1.5@2", starts(bench, [1]))
    assert strip.columns == ("original", "all 0-3", *(f"layer {k}" for k in range(4)),
                             "bottom 0", "lower 1", "upper 2", "top 3")  # fmt: skip
    moved = (strip.codes - strip.codes[:1]).norm(dim=-1)
    torch.testing.assert_close(moved[1], torch.full((4,), 1.5))
    for layer in range(4):
        for row in (2 + layer, 6 + layer):
            expected = torch.zeros(4)
            expected[layer] = 1.5
            torch.testing.assert_close(moved[row], expected)


def test_without_a_rescoring_captions_name_columns_only():
    bare = Workbench(G, BOUNDARIES)
    strip = sweep_strip(bare, ["planted 1=+2@1"], population.sample(G, [0]), [0.0, 1.0])
    assert strip.captions == strip.columns == ("0", "+1")
    with pytest.raises(ValueError, match="needs factors and edits; got 0 and 1"):
        sweep_strip(bare, ["planted 1=+2@1"], population.sample(G, [0]), [])
