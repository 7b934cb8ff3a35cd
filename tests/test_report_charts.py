"""Charts: well-formed, with as many marks as numbers, at heights that follow from the numbers."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from higan.hierarchy import Profile, Shares
from higan.layers import groups
from higan.report import words
from higan.report.charts import HeatRow, effect_bar, heat_map, profile_chart, stage_chart
from higan.types import LEVELS


def of_class(svg, name):
    return [element for element in ET.fromstring(svg).iter() if name in (element.get("class") or "").split()]


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("text")]


def shares(mean, names, layers):
    mean = torch.tensor(mean)
    wins = torch.nn.functional.one_hot(mean.argmax(1), mean.shape[1]).float()
    return Shares(tuple(names), tuple(layers), mean, (mean - 0.1).clamp(min=0), mean + 0.1, wins)


def a_profile(by_layer, by_group, levels=LEVELS):
    num_layers = len(by_layer[0])
    stages = groups(num_layers)
    layer = shares(by_layer, [f"layer {k}" for k in range(num_layers)], [(k,) for k in range(num_layers)])
    centre = layer.mean @ torch.arange(num_layers).float()
    return Profile(
        levels=tuple(levels),
        concepts=tuple(("a concept",) for _ in levels),
        by_layer=layer,
        by_group=shares(by_group, stages, stages.values()),
        centre=centre,
        centre_low=centre - 0.2,
        centre_high=centre + 0.2,
        in_order=1.0,
        reliability=torch.ones(len(levels)),
    )


BY_LAYER = [[0.6, 0.3, 0.1, 0.0, 0.0], [0.1, 0.5, 0.4, 0.0, 0.0], [0.0, 0.1, 0.2, 0.7, 0.0], [0.0, 0.0, 0.1, 0.1, 0.8]]
BY_GROUP = [[0.7, 0.2, 0.1, 0.0], [0.1, 0.6, 0.3, 0.0], [0.0, 0.2, 0.7, 0.1], [0.0, 0.0, 0.1, 0.9]]


def test_profile_chart_has_a_bar_and_a_whisker_per_level_and_layer_as_high_as_its_share():
    svg = profile_chart(a_profile(BY_LAYER, BY_GROUP), groups(5), {})
    bars = of_class(svg, "bar")
    heights = torch.tensor([float(bar.get("height")) for bar in bars]).reshape(4, 5)
    assert len(of_class(svg, "whisker")) == 20
    torch.testing.assert_close(heights / heights.sum(1, keepdim=True), torch.tensor(BY_LAYER), atol=2e-3, rtol=0)
    assert [k for k, bar in enumerate(bars) if "peak" in bar.get("class")] == [0, 6, 13, 19]
    assert [text for text in texts(svg) if " · " in text] == [f"layer {k} · 100%" for k in (0, 1, 3, 4)]


def test_profile_chart_whiskers_are_the_intervals_and_diamonds_the_mean_layers():
    svg = profile_chart(a_profile(BY_LAYER, BY_GROUP), groups(5), {})
    bars, whiskers = of_class(svg, "bar"), of_class(svg, "whisker")
    # The first bar is 0.6 high, its interval 0.5 to 0.7: one sixth of the bar either way.
    top, height = float(bars[0].get("y")), float(bars[0].get("height"))
    assert float(whiskers[0].get("y1")) - top == pytest.approx(height / 6, abs=0.15)
    assert top - float(whiskers[0].get("y2")) == pytest.approx(height / 6, abs=0.15)
    centres = [sum(float(line.get(x)) for x in ("x1", "x2")) / 2 for line in of_class(svg, "reach")]
    slots = [float(bar.get("x")) + float(bar.get("width")) / 2 for bar in bars[:2]]
    per_layer = slots[1] - slots[0]
    expected = [slots[0] + mean * per_layer for mean in (0.5, 1.3, 2.6, 3.7)]
    assert centres == pytest.approx(expected, abs=0.2)


def test_profile_chart_says_what_is_missing():
    svg = profile_chart(a_profile(BY_LAYER[:1], BY_GROUP[:1], ["object"]), groups(5), {"colour": "no concept tried"})
    assert len(of_class(svg, "bar")) == 5
    assert "no concept tried" in texts(svg)
    assert {"layout", "objects", "attributes", "colour scheme"} <= set(texts(svg))


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 6, 14, 18, 40])
def test_profile_charts_for_any_depth(num_layers):
    stages = groups(num_layers)
    profile = a_profile([[1 / num_layers] * num_layers] * 4, [[1 / len(stages)] * len(stages)] * 4)
    assert len(of_class(profile_chart(profile, stages, {}), "bar")) == 4 * num_layers
    assert len(of_class(stage_chart(profile), "point")) == 4 * len(stages)


def test_stage_chart_plots_higher_shares_higher():
    svg = stage_chart(a_profile(BY_LAYER, BY_GROUP))
    at = torch.tensor([float(point.get("cy")) for point in of_class(svg, "point")]).reshape(4, 4)
    slope = (at[0, 0] - at[0, 3]) / 0.7
    torch.testing.assert_close((at - at[0, 3]) / slope, torch.tensor(BY_GROUP), atol=2e-3, rtol=0)
    assert slope < 0
    assert sum("peak" in point.get("class") for point in of_class(svg, "point")) == 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_stage_chart_labels_never_overlap_nor_leave_the_plot(last):
    svg = stage_chart(a_profile(BY_LAYER, [[1 - share, 0, 0, share] for share in last]))
    names = set(words.LEVEL_NAMES.values())
    heights = sorted(float(text.get("y")) for text in ET.fromstring(svg).iter("text") if text.text in names)
    zero = max(float(line.get("y1")) for line in of_class(svg, "grid"))
    assert all(b - a > 14.7 for a, b in pairwise(heights))
    assert heights[-1] <= zero + 4.2


def test_charts_without_any_level():
    empty = torch.empty(0, 4)
    none = Shares(("bottom", "lower", "upper", "top"), ((0,), (1,), (2,), (3,)), empty, empty, empty, empty)
    nowhere = torch.empty(0)
    profile = Profile((), (), none, none, nowhere, nowhere, nowhere, 1.0, nowhere)
    assert "No level could be verified" in profile_chart(profile, groups(4), {})
    assert of_class(stage_chart(profile), "point") == []


def test_mean_layers_from_ten_on_keep_their_tenth():
    deep = a_profile([[0.0] * 10 + [0.1, 0.9]], [[0.0, 0.0, 0.0, 1.0]], ["colour"])
    svg = profile_chart(deep, groups(12), {})
    assert "mean 10.9" in texts(svg)
    assert "mean layer 10.9" in ET.fromstring(svg).get("aria-label")


def test_effect_bar_is_to_scale():
    svg = effect_bar(effect=1.0, low=0.5, high=2.0, null=0.25, longest=2.0)
    (bar,), (whisker,), (null,) = of_class(svg, "bar"), of_class(svg, "whisker"), of_class(svg, "null")
    assert float(bar.get("width")) == 64  # half of what is left of 132 beside a margin of 4
    assert [float(whisker.get(x)) for x in ("x1", "x2")] == [33, 129]
    assert float(null.get("x1")) == 17
    assert float(of_class(effect_bar(0, 0, 0, 0, 0), "bar")[0].get("width")) == 0


def test_heat_map_shades_cells_by_their_share_of_the_row_and_faintly_what_may_be_chance():
    rows = [
        HeatRow("wood", "attribute", (2.0, 1.0), (True, False)),
        HeatRow("yaw", "layout", (0.4, -1.0), (True, True)),
    ]
    svg = heat_map(rows, ["0", "1"], "all of it")
    shaded = [cell for cell in of_class(svg, "cell") if "empty" not in cell.get("class")]
    assert len(of_class(svg, "empty")) == 4
    assert [cell.get("fill-opacity") for cell in shaded] == ["0.95", "0.10", "0.38"]
    assert [text.text for text in of_class(svg, "value")] == ["2.0", "1.0", "0.4"]
    assert [text.get("class") for text in of_class(svg, "value")] == ["value inverse", "value faded", "value"]
    assert ET.fromstring(svg).get("aria-label") == "all of it"


def test_diverging_heat_map_tells_signs_apart_and_outlines_the_own_column():
    rows = [HeatRow("a", "layout", (1.0, -0.5), (True, True), own=0)]
    svg = heat_map(rows, ["a concept", "another"], "", diverging=True)
    assert [text.text for text in of_class(svg, "value")] == ["+1.0", "−0.5"]
    assert len(of_class(svg, "plus")) == len(of_class(svg, "minus")) == len(of_class(svg, "own")) == 1


def test_names_are_escaped():
    row = HeatRow('<b> & "c"', "layout", (1.0,), (True,))
    svg = heat_map([row], ["<i>"], "<&>")
    assert '<b> & "c"' in texts(svg)
    assert ET.fromstring(svg).get("aria-label") == "<&>"


def test_long_names_leave_room_for_the_cells_and_are_told_whole():
    long = "a bright room " * 20
    short, wide = (heat_map([HeatRow(name, "object", (1.0,), (True,))], [name], "") for name in ("bed", long))
    box = [float(ET.fromstring(svg).get("viewBox").split()[2]) for svg in (short, wide)]
    assert box[1] < 500
    assert texts(wide).count("a bright room a bright room a bright…") == 2
    assert wide.count(f"<title>{long}</title>") == 2


def test_ideographs_take_the_room_of_two_letters():
    boxes = [
        ET.fromstring(heat_map([HeatRow(name, "object", (1.0,), (True,))], ["0"], "")).get("viewBox")
        for name in ("沙发和桌子", "abcdefghij")
    ]
    assert boxes[0] == boxes[1]


def test_a_heat_map_of_150_concepts_stays_small():
    rows = [HeatRow(f"concept {k}", "object", (1.0,) * 18, (True,) * 18) for k in range(150)]
    svg = heat_map(rows, [str(k) for k in range(18)], "")
    assert len(of_class(svg, "empty")) == 2700
    assert len(svg) < 1_500_000


def test_in_a_long_heat_map_the_layers_stand_near_every_row_and_nothing_overlaps():
    rows = [HeatRow(f"concept {k}", "object", (1.0,) * 3, (True,) * 3) for k in range(100)]
    svg = ET.fromstring(heat_map(rows, ["0", "1", "2"], ""))
    told = [(float(text.get("y")), text.get("class")) for text in svg.iter("text")]
    heads = sorted({y for y, kind in told if kind == "tick"})
    names = sorted(y for y, kind in told if kind == "name")
    assert len(names) == 100
    assert all(any(0 < y - head < 750 for head in heads) for y in names)
    lines = sorted([*heads, *names])
    assert min(b - a for a, b in pairwise(lines)) > 12
    assert lines[-1] < float(svg.get("viewBox").split()[3])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1234"),
        (12.345, "12.3"),
        (1.2345, "1.23"),
        (0.12345, "0.123"),
        (-0.5, "−0.500"),
        (-0.0001, "0.000"),
        (0, "0.000"),
    ],
)
def test_number(value, text):
    assert words.number(value) == text


def test_words():
    assert [words.signed(x) for x in (1.84, -0.26, 0.04, -0.04)] == ["+1.8", "−0.3", "0.0", "0.0"]
    assert [words.percent(x) for x in (1, 0.997, 0.5, 0.004, 0)] == ["100%", "> 99%", "50%", "< 1%", "0%"]
    assert [words.probability(p) for p in (0.0001, 0.05)] == ["< 0.001", "0.050"]
    assert [words.layer_span(x) for x in ([3], [1, 0], [0, 2, 3, 4])] == ["layer 3", "layers 0–1", "layers 0, 2–4"]
    assert [words.count(1, "layer"), words.count(1200, "layer")] == ["1 layer", "1,200 layers"]
