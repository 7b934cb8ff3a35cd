import math

import pytest
import torch

from higan import rescoring as rs
from higan import responses
from higan.effects import measure_changes
from higan.generators.toy import ToyGenerator
from higan.layers import placements
from higan.scorers.toy import ToyScorer
from higan.types import Boundary, Concept, Edit, Placement, Rescoring

GENERATOR, SCORER = ToyGenerator(4, 8), ToyScorer(4)
BOUNDARIES = [
    Boundary(SCORER.concepts[k], GENERATOR.directions[k].expand(4, -1), torch.zeros(4), math.nan) for k in range(4)
]
PLACES = [Placement(name, (layer,)) for layer, name in enumerate(("bottom", "lower", "upper", "top"))]


def test_planted_concepts_answer_in_a_straight_line_both_ways_at_their_layer_alone():
    pairs = [(SCORER.concepts[0], PLACES[0]), (SCORER.concepts[1], PLACES[3])]
    random = rs.meaningless_directions(BOUNDARIES[0], 5, 0)
    std = {concept.name: 2.0 for concept in SCORER.concepts}
    calls = []
    found = responses.respond(
        GENERATOR, SCORER, BOUNDARIES, pairs, step=2.0, std=std, directions=random, num=16,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    expected = torch.tensor([2 * factor for factor in responses.GRID])
    torch.testing.assert_close(found.steps, expected)
    # A step of λ raises the score by λ; in units of 2.
    torch.testing.assert_close(found.mean[0], expected / 2, atol=0.01, rtol=0)
    torch.testing.assert_close(found.truncated[0], expected.clamp(min=0) / 2, atol=0.01, rtol=0)
    torch.testing.assert_close(found.mean[1], torch.zeros(8), atol=0.01, rtol=0)
    assert bool((found.low <= found.mean + 1e-4).all() and (found.mean <= found.high + 1e-4).all())
    # Meaningless directions: what they share with direction 0, at most the whole step.
    along = torch.stack([d.normal[0] for d in random]) @ GENERATOR.directions[0]
    torch.testing.assert_close(found.null_high[0], (along[:, None] * expected).amax(0) / 2, atol=0.02, rtol=0)
    torch.testing.assert_close(found.null_low[0], (along[:, None] * expected).amin(0) / 2, atol=0.02, rtol=0)
    assert calls[-1] == (responses.responses_cost(pairs, num=16, num_random=5),) * 2


class Squares(ToyScorer):
    """Of a planted value v it tells v², which a step λ changes by 2λv + λ²: up for some samples, down for others."""

    def score(self, images):
        return super().score(images) ** 2


def test_responses_by_their_definition():
    """On samples that nothing else has used; each concept beside directions at its own placement."""
    scorer, pairs = Squares(4), [(SCORER.concepts[0], PLACES[0]), (SCORER.concepts[1], PLACES[1])]
    random = rs.meaningless_directions(BOUNDARIES[0], 3, 0)
    how = {"num": 12, "seed": 3}
    std = {"planted 0": 1.0, "planted 1": 2.0}
    found = responses.respond(GENERATOR, scorer, BOUNDARIES, pairs, step=1.0, std=std, directions=random, **how)
    for q, (concept, place) in enumerate(pairs):
        edits = [Edit(d, step, place.layers) for d in (BOUNDARIES[q], *random) for step in responses.GRID]
        changes = measure_changes(GENERATOR, scorer, edits, std=torch.ones(6), first=2**22 + 2**21, **how)[:, q]
        own, *null = (changes / std[concept.name]).split(len(responses.GRID))
        assert bool(((own > 0).any(1) & (own < 0).any(1)).any())
        torch.testing.assert_close(found.mean[q], own.mean(1))
        torch.testing.assert_close(found.truncated[q], own.clamp(min=0).mean(1))
        along = torch.stack(null).mean(-1)
        torch.testing.assert_close(found.null_low[q], along.amin(0))
        torch.testing.assert_close(found.null_high[q], along.amax(0))


def test_intervals_of_a_dozen_skewed_changes_hold_their_mean(monkeypatch):
    """Changes of 1 on average at every step; percentiles of a bootstrap hold it in 87 % of the cases."""

    def drawn(generator, scorer, edits, *, num, seed, **_):
        uniform = torch.rand(len(edits), len(scorer.concepts), num, generator=torch.Generator().manual_seed(seed))
        return -uniform.log()

    monkeypatch.setattr(responses, "measure_changes", drawn)
    pairs = [(SCORER.concepts[k], PLACES[k]) for k in range(4)]
    held = []
    for seed in range(50):
        found = responses.respond(
            GENERATOR, SCORER, BOUNDARIES, pairs, step=2.0, std={}, directions=BOUNDARIES[:1], num=12, seed=seed
        )
        held.append((found.low <= 1) & (found.high >= 1))
    assert 0.92 < float(torch.stack(held).double().mean()) < 0.97


def test_the_strongest_verified_concepts_of_each_level_are_chosen_at_their_stage():
    rescoring = rs.rescore(GENERATOR, SCORER, BOUNDARIES, num=40, num_random=40)
    assert responses.chosen(rescoring) == tuple(zip(SCORER.concepts[:4], PLACES, strict=True))
    few = rs.rescore(GENERATOR, SCORER, BOUNDARIES, num=4, num_random=3, places=[PLACES[0], PLACES[3]])
    with pytest.raises(ValueError, match="missing: lower, upper"):
        responses.chosen(few)


def test_what_is_chosen_moves_most_beyond_what_meaningless_directions_do():
    """Three concepts of one level at four stages: the first gains 9 at a stage where random directions gain 8.5."""
    gains = torch.tensor([[9.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    null = torch.tensor([[8.5, 0.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4])
    places = placements(4)
    at = torch.tensor([[float(layer in place.layers) for layer in range(4)] for place in places])
    record = Rescoring(
        concepts=tuple(Concept(f"c{k}", "object") for k in range(3)),
        placements=places,
        step=2.0,
        seeds=torch.arange(8),
        originals=torch.zeros(8, 3),
        changes=(gains @ at.T)[..., None].repeat(1, 1, 8),
        effects=torch.zeros(3, len(places), 3),
        null=(null @ at.T).T + 0.01 * torch.rand(40, len(places), 3, generator=torch.Generator().manual_seed(0)),
        score_std=torch.ones(3),
    )
    one, two, three = ((record.concepts[c], PLACES[p]) for c, p in ((1, 1), (2, 2), (0, 1)))
    assert responses.chosen(record) == (one, two)
    assert responses.chosen(record, each=3) == (one, two, three)


def test_nothing_to_answer_is_refused():
    with pytest.raises(ValueError, match="got 0 and 0"):
        responses.respond(GENERATOR, SCORER, BOUNDARIES, [], step=2.0, std={}, directions=[])
    assert responses.responses_cost([], num=10, num_random=3) == 0
