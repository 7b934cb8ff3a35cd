"""Drawings of transitions and side effects: every number in them is one that was counted."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from higan.effects import Effects
from higan.report.flows import effects_chart, flow_table, kept_table, page, sankey
from higan.report.words import percent
from higan.transitions import map_objects
from higan.types import Concept, SegmentClass

CLASSES = (
    SegmentClass("wall", "stuff", (1, 2, 3)), SegmentClass("bed", "thing", (200, 0, 0)),
    SegmentClass("dining_table", "thing", (0, 200, 0)),
)  # fmt: skip


def masks(*rows):
    """One sample of 10 × 10 pixels, 10 per letter: w, b or d."""
    return torch.tensor([["wbd".index(letter) for letter in "".join(letter * 10 for letter in row)] for row in rows],
                        dtype=torch.uint8).reshape(-1, 10, 10)  # fmt: skip


BEFORE, BETWEEN, AFTER = masks("wwwwwwwwbb"), masks("wwwwwwwwwd"), masks("wwwwwwwddd")
LEGS = (map_objects(CLASSES, BEFORE, BETWEEN), map_objects(CLASSES, BETWEEN, AFTER))


def test_bands_are_as_thick_as_their_share():
    svg = ET.fromstring(sankey(LEGS, ("bedroom", "a", "dining_room")))
    thick = {}
    for path in svg.iter("path"):
        (title,) = path
        thick.setdefault(title.text, []).append(float(re.search(r"v(-?[\d.]+)", path.get("d"))[1]))
    scale = 420 - 2 * 7
    assert thick[f"wall → wall: {percent(0.8)} of all pixels"] == [pytest.approx(0.8 * scale, abs=0.1)]
    assert thick[f"bed → dining table: {percent(0.1)} of all pixels"] == [pytest.approx(0.1 * scale, abs=0.1)]
    assert thick[f"wall → dining table: {percent(0.2)} of all pixels"] == [pytest.approx(0.2 * scale, abs=0.1)]
    assert len(list(svg.iter("path"))) == 6
    assert f"{percent(1)} of stuff and {percent(0)} of things keep their class" in svg.get("aria-label")
    assert [t.text for t in svg.iter("text") if t.get("class") == "strong"] == ["bedroom", "a", "dining room"]


def test_small_flows_are_left_out_of_the_drawing():
    assert len(list(ET.fromstring(sankey(LEGS[:1], ("a", "b"), least=0.15)).iter("path"))) == 1


@pytest.mark.parametrize(("legs", "names", "words"), [
    ((), ("a",), "0 legs have 1 stations"), (LEGS, ("a", "b"), "2 legs have 3 stations; got 2"),
    ((LEGS[0], map_objects(CLASSES[:2], BEFORE, BEFORE)), ("a", "b", "c"), "same samples and classes"),
])  # fmt: skip
def test_bad_sankeys(legs, names, words):
    with pytest.raises(ValueError, match=words):
        sankey(legs, names)


def test_tables_say_the_shares():
    table = ET.fromstring(flow_table(LEGS[0]))
    rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")][1:]
    assert [row[:4] for row in rows] == [
        ["wall stuff", "wall", "80.0", percent(1)],
        ["bed thing", "wall", "10.0", percent(0.5)],
        ["bed thing", "dining table", "10.0", percent(0.5)],
    ]
    assert f"<td>{percent(0)}</td>" in kept_table(LEGS[0])


def test_the_side_effect_map_fades_what_may_be_chance():
    changes = torch.zeros(1, 2, 50)
    changes[0, 0] = 1.5
    changes[0, 1] = torch.linspace(-1, 1, 50)
    effects = Effects(("more_wood",), (Concept("wood", "attribute"), Concept("rug", "object")), (0,), changes)
    svg = ET.fromstring(effects_chart(effects, "what else changed"))
    tips = [title.text for title in svg.iter("title")]
    assert any(tip.startswith("more wood, wood: +1.50") and "chance" not in tip for tip in tips)
    assert any(tip.startswith("more wood, rug: 0.00") and "chance" in tip for tip in tips)


def test_pages_need_nothing_else():
    text = page("A <title>", ("Head & all", sankey(LEGS, ("a", "b", "c"))))
    assert "A &lt;title&gt;" in text
    assert "Head &amp; all" in text
    assert not re.search(r"(src|href)=|url\(|@import", text)
