"""The charts of the step, read back from their SVG."""

import dataclasses
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch

from higan.hierarchy import Profile, Shares
from higan.report.curves import MODE_NAMES, mode_chart, response_chart
from higan.types import Concept, Placement, Responses


def of_class(svg, name):
    return [element for element in ET.fromstring(svg).iter() if name in (element.get("class") or "").split()]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("text")]


def points(element):
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def a_response(means, level="layout", chance=1.0):
    means = torch.tensor(means)
    null = torch.full_like(means, chance)
    return Responses(
        concepts=tuple(Concept(f"concept_{q}", level) for q in range(len(means))),
        placements=tuple(Placement("bottom", (q,)) for q in range(len(means))),
        steps=torch.tensor([-4.0, -2.0, 2.0, 4.0]),
        mean=means,
        low=means - 0.5,
        high=means + 0.5,
        truncated=means.clamp(min=0),
        null_low=-null,
        null_high=null,
    )


def test_response_curves_go_through_the_origin_and_are_to_scale():
    svg = response_chart(a_response([[-2.0, -1.0, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0]]), "layout")
    one, other = (points(line) for line in of_class(svg, "line"))
    # Five points, the third of them the origin; steps are evenly spaced and a straight answer gives a straight line.
    assert len(one) == 5
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(one)]
    assert slopes == pytest.approx([slopes[0]] * 4, abs=0.02)
    assert slopes[0] < 0
    # The second concept cannot be turned down: flat to the left of zero, on the line of zero.
    assert [y for _, y in other[:3]] == pytest.approx([one[2][1]] * 3)
    assert other[3:] == one[3:]
    # The interval reaches 2.5, so that the scale ends there, which is what the axis says.
    assert {"+2.5", "−2.5", "0", "−4", "+4", "step λ →"} <= set(texts(svg))
    grid = sorted(float(line.get("y1")) for line in of_class(svg, "grid")[:3])
    assert (grid[1] - one[4][1]) / (grid[1] - grid[0]) == pytest.approx(2 / 2.5, abs=0.01)
    assert len(of_class(svg, "spread")) == 2
    assert len(of_class(svg, "chance")) == 2
    assert "dashed" in of_class(svg, "line")[1].get("class")


def test_random_directions_at_the_same_layers_are_drawn_once():
    responses = a_response([[-2.0, -1.0, 1.0, 2.0]] * 2)
    same = dataclasses.replace(responses, placements=(Placement("bottom", (0,)),) * 2)
    assert len(of_class(response_chart(same, "layout"), "chance")) == 1


def test_a_level_without_an_answer_has_no_panel():
    assert response_chart(a_response([[0.0] * 4]), "colour") == ""
    flat = response_chart(a_response([[0.0] * 4], chance=0.0), "layout")
    assert len(of_class(flat, "point")) == 4


def a_profile(centres, levels=("layout", "colour"), num_layers=5):
    centre = torch.tensor(centres)
    shares = torch.full((len(levels), num_layers), 1 / num_layers)
    names = tuple(f"layer {k}" for k in range(num_layers))
    by = Shares(names, tuple((k,) for k in range(num_layers)), shares, shares, shares, shares)
    concepts = tuple(("c",) for _ in levels)
    return Profile(levels, concepts, by, by, centre, centre - 0.5, centre + 0.5, 1.0, torch.ones(len(levels)))


def test_mode_chart_places_every_mean_layer_and_leaves_gaps_where_a_mode_has_none():
    profiles = {"official": a_profile([1.0, 4.0]), "equal_change": a_profile([2.0], ("colour",))}
    svg = mode_chart(profiles)
    ticks = {t.text: float(t.get("x")) for t in ET.fromstring(svg).iter("text") if (t.text or "").isdigit()}
    at = [float(d.get("d").split()[0][1:]) for d in of_class(svg, "diamond")]
    assert at == pytest.approx([ticks["1"], ticks["4"], ticks["2"]], abs=0.1)
    reaches = [(float(line.get("x1")), float(line.get("x2"))) for line in of_class(svg, "reach")]
    half = (ticks["1"] - ticks["0"]) / 2
    assert reaches[0] == pytest.approx((ticks["1"] - half, ticks["1"] + half), abs=0.1)
    assert texts(svg).count(MODE_NAMES["official"]) == 2
    assert {"layout", "colour scheme"} <= set(texts(svg))
