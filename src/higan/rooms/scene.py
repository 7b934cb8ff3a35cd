"""Scenes of the rendered world: bedrooms, living rooms and dining rooms, as data.

A scene is a box-shaped room seen from inside, furnished with axis-aligned boxes and ellipsoids. Metres; x to the
right, y up, z into the room; the floor is y = 0, the back wall z = depth, the camera looks towards +z from near z = 0.
Everything about scene k follows from seed k alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from higan.rooms import furniture
from higan.rooms.classes import CATEGORIES
from higan.rooms.furniture import Look
from higan.rooms.palette import hsl_to_linear, sample_palette
from higan.rooms.parts import CEILING, CHECKS, PLAIN, STRIPES, WOOD, Dice, Parts

__all__ = ["Scenes", "sample_scenes"]


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """n scenes; b box slots, e ellipsoid slots. Solids are stored boxes first, then ellipsoids.

    Absent parts are parked far below the floor. ``room`` is (width, height, depth).
    """

    room: Tensor  # n 3
    camera: Tensor  # n 3
    yaw: Tensor  # n, radians, positive looks to the right
    pitch: Tensor  # n, radians, negative looks down
    fov: Tensor  # n, radians, full angle over the image's width
    low: Tensor  # n b+e 3
    high: Tensor  # n b+e 3
    kind: Tensor  # n b+e, index into CLASSES
    colour: Tensor  # n b+e 3, linear RGB
    colour2: Tensor  # n b+e 3, second colour of a pattern
    texture: Tensor  # n b+e
    frequency: Tensor  # n b+e, pattern repeats per metre
    glow: Tensor  # n b+e, emitted light
    room_colour: Tensor  # n 5 3: left, right, floor, ceiling, back
    floor_texture: Tensor  # n
    window_centre: Tensor  # n 3
    window_size: Tensor  # n 2: along the wall, height
    window_wall: Tensor  # n: 0 left, 1 right, 2 back
    lamp: Tensor  # n 3
    natural: Tensor  # n, 0 … 1
    indoor: Tensor  # n, 0 … 1
    category: Tensor  # n
    wood: Tensor  # n, 0, ½ or 1: floor and furniture
    pattern: Tensor  # n, contrast of the fabric pattern, 0 when plain
    clutter: Tensor  # n, small things lying about, 0 … 1
    palette: Tensor  # n 4 3: walls, floor, furniture, textiles as hue (turns), saturation, lightness
    num_boxes: int

    def __len__(self) -> int:
        return self.room.shape[0]

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes on another device."""
        return Scenes(**{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})

    def slice(self, start: int, stop: int) -> Scenes:
        """Scenes start … stop − 1."""
        return Scenes(**{f.name: _cut(getattr(self, f.name), start, stop) for f in fields(self)})


def _moved(value: Any, device: torch.device | str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _cut(value: Any, start: int, stop: int) -> Any:
    return value[start:stop] if isinstance(value, Tensor) else value


def sample_scenes(seeds: Sequence[int], category: int | None = None) -> Scenes:
    """Draws one scene per seed.

    Args:
        seeds: any non-negative integers; scene k depends on ``seeds[k]`` alone.
        category: index into `CATEGORIES` that all scenes get instead of their own; everything else stays what the seed
            makes it, so that the same room can be furnished in three ways.

    Raises:
        ValueError: no seeds were given, or there is no such category.
    """
    if len(seeds) == 0:
        raise ValueError("sample_scenes needs at least one seed; got none")
    if category is not None and not 0 <= category < len(CATEGORIES):
        raise ValueError(f"category must lie in 0 … {len(CATEGORIES) - 1}; got {category}")
    dice = Dice(seeds)
    drawn = dice.choice(len(CATEGORIES))
    chosen = drawn if category is None else torch.full_like(drawn, category)
    return _scenes(dice, chosen)


def _scenes(dice: Dice, category: Tensor) -> Scenes:
    width, depth = dice.uniform(3.1, 4.6), dice.uniform(3.3, 4.7)
    room = torch.stack([width, torch.full_like(width, CEILING), depth], -1)
    yaw = dice.uniform(-0.4, 0.4)
    camera_side = dice.uniform(-0.24, 0.24)
    camera = torch.stack([camera_side * width, dice.uniform(1.35, 1.65), torch.full_like(width, 0.1)], -1)
    fov = dice.uniform(math.radians(62), math.radians(76))
    pitch = dice.uniform(-0.17, -0.09)

    natural, indoor = dice.uniform(0.05, 1.0), dice.uniform(0.0, 1.0)
    wood_floor, wood_furniture = dice.chance(0.5), dice.chance(0.5)
    patterned = dice.chance(0.5)
    pattern = patterned * dice.uniform(0.6, 1.0)
    clutter = dice.choice(7) / 6.0
    palette = sample_palette(dice, wood_floor, wood_furniture)
    look = _look(dice, palette, wood_furniture, pattern)

    parts = Parts(width, depth)
    window_wall, window = furniture.add_window(parts, dice, natural, look)
    furniture.add_pictures(parts, dice, window_wall, look)
    lamp = furniture.add_rug(parts, dice, category, look)
    furniture.add_clutter(parts, dice, clutter)
    boxes = _choose(
        [
            furniture.bedroom(parts, dice, look, indoor),
            furniture.living_room(parts, dice, look, indoor),
            furniture.dining_room(parts, dice, look),
        ],
        category,
    )
    shared = parts.stacked(len(parts.slots))
    balls = furniture.round_parts(parts, dice, category, indoor, lamp)
    solids = [torch.cat([s, b, e], 1) for s, b, e in zip(shared, boxes, balls, strict=True)]
    num_boxes = shared[0].shape[1] + boxes[0].shape[1]

    walls = hsl_to_linear(palette[:, 0])
    floor = hsl_to_linear(palette[:, 1])
    ceiling = (0.72 + 0.2 * walls).clamp(max=0.95)
    return Scenes(
        room=room,
        camera=camera,
        yaw=yaw,
        pitch=pitch,
        fov=fov,
        low=solids[0],
        high=solids[1],
        kind=solids[2],
        colour=solids[3],
        colour2=solids[4],
        texture=solids[5],
        frequency=solids[6],
        glow=solids[7],
        room_colour=torch.stack([walls, walls, floor, ceiling, walls], 1),
        floor_texture=torch.where(wood_floor, WOOD, PLAIN),
        window_centre=window[0],
        window_size=window[1],
        window_wall=window_wall,
        lamp=lamp,
        natural=natural,
        indoor=indoor,
        category=category,
        wood=(wood_floor.float() + wood_furniture.float()) / 2,
        pattern=pattern,
        clutter=clutter,
        palette=palette,
        num_boxes=num_boxes,
    )


def _look(dice: Dice, palette: Tensor, wood_furniture: Tensor, pattern: Tensor) -> Look:
    furniture, textile = hsl_to_linear(palette[:, 2]), hsl_to_linear(palette[:, 3])
    far = palette[:, 3].clone()
    far[:, 2] = torch.where(far[:, 2] > 0.5, far[:, 2] - 0.42, far[:, 2] + 0.42)
    second = textile + (hsl_to_linear(far) - textile) * pattern[:, None]
    stripes = dice.chance(0.5)
    fabric = torch.where(pattern > 0, torch.where(stripes, STRIPES, CHECKS), PLAIN)
    return Look(
        furniture=furniture,
        furniture_texture=torch.where(wood_furniture, WOOD, PLAIN),
        dark=furniture * 0.45,
        textile=textile,
        textile2=second,
        fabric=fabric,
        repeats=dice.uniform(1.6, 2.6),
        white=torch.full_like(textile, 0.8),
    )


def _choose(rooms: list[Parts], category: Tensor) -> list[Tensor]:
    """Of every scene, the furniture of its category."""
    slots = max(len(r.slots) for r in rooms)
    fields_by_room = [r.stacked(slots) for r in rooms]
    chosen = []
    for values in zip(*fields_by_room, strict=True):
        options = torch.stack(list(values))
        chosen.append(options[category, torch.arange(len(category))])
    return chosen
