"""Ground truth of a rendered room, as one documented vector over the paper's four levels.

========== =============================================================================== =======================
level      factor                                                                          unit
========== =============================================================================== =======================
layout     ``yaw``, ``camera_x``, ``field_of_view``, ``room_width``, ``room_depth``        rad, room widths, rad, m
layout     ``corner_{left,right}_{top,bottom}_{x,y}``: corners of the back wall            image, −1 … 1, may leave it
object     ``bedroom``, ``living_room``, ``dining_room``                                   0 or 1
object     ``{class}_present``, and ``{class}_{x,z,width,height,depth}``, 0 when absent    0 or 1, m
attribute  ``indoor_lighting``, ``natural_light``, ``wood``, ``pattern``, ``clutter``      0 … 1
colour     ``{walls,floor,furniture,textiles}_{hue,saturation,lightness}``                 hue in turns, 0 … 1
========== =============================================================================== =======================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from higan.rooms.classes import CATEGORIES, CLASSES, class_index
from higan.rooms.scene import Scenes
from higan.types import Level

__all__ = ["FACTORS", "Factor", "factor_index", "factors"]

_ROOM_PARTS = ("wall", "floor", "ceiling")
OBJECTS = tuple(c.name for c in CLASSES if c.name not in _ROOM_PARTS)
_CORNERS = ("left_top", "left_bottom", "right_top", "right_bottom")
_ATTRIBUTES = ("indoor_lighting", "natural_light", "wood", "pattern", "clutter")
_SURFACES = ("walls", "floor", "furniture", "textiles")


@dataclass(frozen=True, slots=True)
class Factor:
    """One entry of the ground truth."""

    name: str
    level: Level


def _names() -> list[Factor]:
    layout = ["yaw", "camera_x", "field_of_view", "room_width", "room_depth"]
    layout += [f"corner_{corner}_{axis}" for corner in _CORNERS for axis in "xy"]
    objects = list(CATEGORIES)
    for name in OBJECTS:
        objects += [f"{name}_{what}" for what in ("present", "x", "z", "width", "height", "depth")]
    colours = [f"{surface}_{channel}" for surface in _SURFACES for channel in ("hue", "saturation", "lightness")]
    return [
        *(Factor(name, "layout") for name in layout),
        *(Factor(name, "object") for name in objects),
        *(Factor(name, "attribute") for name in _ATTRIBUTES),
        *(Factor(name, "colour") for name in colours),
    ]


FACTORS = tuple(_names())


def factor_index(name: str) -> int:
    """Column of a factor.

    Raises:
        ValueError: no factor has that name.
    """
    for column, factor in enumerate(FACTORS):
        if factor.name == name:
            return column
    raise ValueError(f"unknown factor {name!r}; known: {', '.join(f.name for f in FACTORS)}")


def factors(scenes: Scenes) -> Float[Tensor, "n F"]:
    """The ground truth of every scene, in the order of ``FACTORS``."""
    columns = [scenes.yaw, scenes.camera[:, 0] / scenes.room[:, 0], scenes.fov, scenes.room[:, 0], scenes.room[:, 2]]
    columns += list(_corners(scenes).flatten(1).unbind(1))
    columns += [(scenes.category == k).float() for k in range(len(CATEGORIES))]
    for name in OBJECTS:
        columns += _extent(scenes, class_index(name))
    columns += [scenes.indoor, scenes.natural, scenes.wood, scenes.pattern, scenes.clutter]
    columns += list(scenes.palette.flatten(1).unbind(1))
    return torch.stack(columns, 1).float()


def _corners(scenes: Scenes) -> Float[Tensor, "n 4 2"]:
    """Where the back wall's corners fall in the image: x to the right, y up, ±1 at the edges."""
    width, height, depth = scenes.room.unbind(-1)
    zero = torch.zeros_like(width)
    points = [(-width / 2, height), (-width / 2, zero), (width / 2, height), (width / 2, zero)]
    sin, cos = torch.sin(scenes.yaw), torch.cos(scenes.yaw)
    sp, cp = torch.sin(scenes.pitch), torch.cos(scenes.pitch)
    scale = torch.tan(scenes.fov / 2)
    corners = []
    for x, y in points:
        dx, dy, dz = x - scenes.camera[:, 0], y - scenes.camera[:, 1], depth - scenes.camera[:, 2]
        ahead = dx * sin * cp + dy * sp + dz * cos * cp
        right = dx * cos - dz * sin
        up = -dx * sin * sp + dy * cp - dz * cos * sp
        corners.append(torch.stack([right / (ahead * scale), up / (ahead * scale)], -1))
    return torch.stack(corners, 1)


def _extent(scenes: Scenes, kind: int) -> list[Tensor]:
    """Presence, place and size of all solids of one class together."""
    reachable = scenes.low[:, :, 0].abs() < 10  # parts parked aside do not count
    mine = (scenes.kind == kind) & (scenes.high[:, :, 1] > 0) & reachable
    present = mine.any(1)
    low = torch.where(mine[..., None], scenes.low, torch.inf).amin(1)
    high = torch.where(mine[..., None], scenes.high, -torch.inf).amax(1)
    centre, size = (low + high) / 2, high - low
    values = [centre[:, 0], centre[:, 2], size[:, 0], size[:, 1], size[:, 2]]
    return [present.float(), *(torch.where(present, v, 0.0) for v in values)]
