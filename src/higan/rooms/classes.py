"""What a mask can show: the object classes of the rendered world, and the three kinds of room."""

from __future__ import annotations

from higan.types import SegmentClass

__all__ = ["CATEGORIES", "CLASSES", "class_index"]

CATEGORIES = ("bedroom", "living_room", "dining_room")

CLASSES = (
    SegmentClass("wall", "stuff", (120, 120, 180)),
    SegmentClass("floor", "stuff", (80, 50, 50)),
    SegmentClass("ceiling", "stuff", (200, 200, 200)),
    SegmentClass("window", "stuff", (120, 220, 255)),
    SegmentClass("curtain", "stuff", (255, 51, 130)),
    SegmentClass("rug", "stuff", (255, 160, 90)),
    SegmentClass("bed", "thing", (204, 5, 255)),
    SegmentClass("sofa", "thing", (11, 102, 255)),
    SegmentClass("dining_table", "thing", (255, 6, 82)),
    SegmentClass("chair", "thing", (255, 220, 60)),
    SegmentClass("coffee_table", "thing", (0, 255, 112)),
    SegmentClass("wardrobe", "thing", (7, 180, 140)),
    SegmentClass("sideboard", "thing", (140, 110, 20)),
    SegmentClass("nightstand", "thing", (146, 111, 194)),
    SegmentClass("television", "thing", (0, 40, 90)),
    SegmentClass("lamp", "thing", (255, 255, 150)),
    SegmentClass("picture", "thing", (255, 120, 30)),
    SegmentClass("plant", "thing", (10, 160, 10)),
    SegmentClass("clutter", "thing", (220, 220, 220)),
)
"""Object classes of the masks; stuff first."""


def class_index(name: str) -> int:
    """Value of an object class in a mask.

    Raises:
        ValueError: no class has that name.
    """
    for index, candidate in enumerate(CLASSES):
        if candidate.name == name:
            return index
    raise ValueError(f"unknown object class {name!r}; known: {', '.join(c.name for c in CLASSES)}")
