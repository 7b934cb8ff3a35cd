"""Scenes of the rendered world: bedrooms, living rooms and dining rooms, as data.

A scene is a box-shaped room seen from inside, furnished with axis-aligned boxes and ellipsoids. Metres; x to the
right, y up, z into the room; the floor is y = 0, the back wall z = depth, the camera looks towards +z from near z = 0.
Everything about scene k follows from seed k alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from higan.types import SegmentClass

__all__ = ["CATEGORIES", "CLASSES", "Scenes", "class_index", "sample_scenes"]

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

PLAIN, WOOD, STRIPES, CHECKS, FOLDS, PICTURE, WINDOW, SCREEN, DOORS = range(9)
"""Textures."""

_NUM_UNIFORMS = 256
_FAR = -100.0  # where parts of absent objects are parked: below every ray
_CEILING = 2.6


def class_index(name: str) -> int:
    """Value of an object class in a mask.

    Raises:
        ValueError: no class has that name.
    """
    for index, candidate in enumerate(CLASSES):
        if candidate.name == name:
            return index
    raise ValueError(f"unknown object class {name!r}; known: {', '.join(c.name for c in CLASSES)}")


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


def _moved(value: Tensor | int, device: torch.device | str) -> Tensor | int:
    return value.to(device) if isinstance(value, Tensor) else value


def _cut(value: Tensor | int, start: int, stop: int) -> Tensor | int:
    return value[start:stop] if isinstance(value, Tensor) else value


class _Dice:
    """Hands out the uniform numbers of every scene in a fixed order."""

    def __init__(self, seeds: Sequence[int]) -> None:
        rows = [torch.rand(_NUM_UNIFORMS, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        self._table = torch.stack(rows)
        self._next = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        column = self._table[:, self._next]
        self._next += 1
        return low + (high - low) * column

    def chance(self, probability: float) -> Tensor:
        return self.uniform() < probability

    def choice(self, n: int) -> Tensor:
        return (self.uniform() * n).long().clamp(max=n - 1)


def hsl_to_linear(hsl: Tensor) -> Tensor:
    """Hue (turns), saturation, lightness → linear RGB; (…, 3) → (…, 3)."""
    hue, saturation, lightness = hsl.unbind(-1)
    amplitude = saturation * torch.minimum(lightness, 1 - lightness)
    channels = []
    for shift in (0.0, 8.0, 4.0):
        k = (shift + hue * 12) % 12
        channels.append(lightness - amplitude * torch.minimum(k - 3, 9 - k).clamp(-1, 1))
    return torch.stack(channels, -1).clamp(0, 1) ** 2.2


class _Parts:
    """Collects the boxes of a batch of scenes; each entry is one slot for all of them."""

    def __init__(self, width: Tensor, depth: Tensor) -> None:
        self.width, self.depth = width, depth
        self.slots: list[tuple[Tensor, ...]] = []

    def add(
        self,
        name: str,
        bounds: tuple[Tensor, ...],
        colour: Tensor,
        present: Tensor | None = None,
        texture: Tensor | int = PLAIN,
        colour2: Tensor | None = None,
        frequency: Tensor | float = 3.0,
        glow: Tensor | float = 0.0,
    ) -> None:
        """One box (or the box around an ellipsoid): ``bounds`` is x0, x1, y0, y1, z0, z1."""
        n = len(self.width)
        corners = torch.stack([torch.as_tensor(b, dtype=torch.float32).expand(n) for b in bounds], -1)
        if present is not None:
            corners = torch.where(present[:, None], corners, torch.full_like(corners, _FAR))
        self.slots.append(
            (
                corners[:, 0::2],
                corners[:, 1::2],
                torch.full((n,), class_index(name)),
                colour,
                colour if colour2 is None else colour2,
                torch.as_tensor(texture).expand(n),
                torch.as_tensor(frequency, dtype=torch.float32).expand(n),
                torch.as_tensor(glow, dtype=torch.float32).expand(n),
            )
        )

    def against(self, wall: Tensor, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Bounds x0, x1, z0, z1 of a footprint along (a) and out from (b) a wall: 0 left, 1 right, 2 back."""
        half = self.width / 2
        x0 = torch.where(wall == 0, -half + b[0], torch.where(wall == 1, half - b[1], a[0]))
        x1 = torch.where(wall == 0, -half + b[1], torch.where(wall == 1, half - b[0], a[1]))
        z0 = torch.where(wall == 2, self.depth - b[1], a[0])
        z1 = torch.where(wall == 2, self.depth - b[0], a[1])
        return x0, x1, z0, z1

    def add_against(
        self,
        name: str,
        wall: Tensor,
        a: tuple[Tensor, Tensor],
        b: tuple[Tensor, Tensor],
        y: tuple[Tensor | float, Tensor | float],
        colour: Tensor,
        **look: object,
    ) -> None:
        x0, x1, z0, z1 = self.against(wall, a, b)
        lo, hi = (torch.as_tensor(v, dtype=torch.float32) for v in y)
        self.add(name, (x0, x1, lo, hi, z0, z1), colour, **look)

    def stacked(self, slots: int) -> list[Tensor]:
        """Every field as (n, slots, …), empty slots parked."""
        missing = slots - len(self.slots)
        if missing < 0:
            raise RuntimeError(f"{len(self.slots)} parts do not fit {slots} slots")
        stacked = [torch.stack(column, 1) for column in zip(*self.slots, strict=True)]
        if missing == 0:
            return stacked
        padded = []
        for field, value in enumerate(stacked):
            empty = torch.full_like(value[:, :1], _FAR if field < 2 else 0)
            padded.append(torch.cat([value, empty.expand(-1, missing, *value.shape[2:])], 1))
        return padded


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Colours and patterns shared by the furniture of a scene."""

    furniture: Tensor
    furniture_texture: Tensor
    dark: Tensor
    textile: Tensor
    textile2: Tensor
    fabric: Tensor
    repeats: Tensor
    white: Tensor


def sample_scenes(seeds: Sequence[int]) -> Scenes:
    """Draws one scene per seed.

    Args:
        seeds: any non-negative integers; scene k depends on ``seeds[k]`` alone.

    Raises:
        ValueError: no seeds were given.
    """
    if len(seeds) == 0:
        raise ValueError("sample_scenes needs at least one seed; got none")
    dice = _Dice(seeds)
    category = dice.choice(3)
    width, depth = dice.uniform(3.1, 4.6), dice.uniform(3.3, 4.7)
    room = torch.stack([width, torch.full_like(width, _CEILING), depth], -1)
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
    palette = _palette(dice, wood_floor, wood_furniture)
    look = _look(dice, palette, wood_furniture, pattern)

    parts = _Parts(width, depth)
    window_wall, window = _add_window(parts, dice, natural, look)
    _add_pictures(parts, dice, window_wall, look)
    lamp = _add_rug(parts, dice, category, look)
    _add_clutter_boxes(parts, dice, clutter)
    boxes = _choose(
        [_bedroom(parts, dice, look, indoor), _living(parts, dice, look, indoor), _dining(parts, dice, look)],
        category,
    )
    shared = parts.stacked(len(parts.slots))
    balls = _ellipsoids(parts, dice, category, indoor, lamp)
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


def _palette(dice: _Dice, wood_floor: Tensor, wood_furniture: Tensor) -> Tensor:
    """Walls, floor, furniture, textiles as hue, saturation, lightness; (n, 4, 3)."""
    walls = torch.stack([dice.uniform(), dice.uniform(0.08, 0.5), dice.uniform(0.5, 0.88)], -1)
    plank = torch.stack([dice.uniform(0.055, 0.1), dice.uniform(0.35, 0.6), dice.uniform(0.28, 0.55)], -1)
    carpet = torch.stack([dice.uniform(), dice.uniform(0.03, 0.3), dice.uniform(0.35, 0.75)], -1)
    timber = torch.stack([dice.uniform(0.05, 0.095), dice.uniform(0.4, 0.65), dice.uniform(0.22, 0.5)], -1)
    paint = torch.stack([dice.uniform(), dice.uniform(0.0, 0.35), dice.uniform(0.3, 0.92)], -1)
    textile = torch.stack([dice.uniform(), dice.uniform(0.25, 0.7), dice.uniform(0.3, 0.68)], -1)
    floor = torch.where(wood_floor[:, None], plank, carpet)
    furniture = torch.where(wood_furniture[:, None], timber, paint)
    return torch.stack([walls, floor, furniture, textile], 1)


def _look(dice: _Dice, palette: Tensor, wood_furniture: Tensor, pattern: Tensor) -> _Look:
    furniture, textile = hsl_to_linear(palette[:, 2]), hsl_to_linear(palette[:, 3])
    far = palette[:, 3].clone()
    far[:, 2] = torch.where(far[:, 2] > 0.5, far[:, 2] - 0.42, far[:, 2] + 0.42)
    second = textile + (hsl_to_linear(far) - textile) * pattern[:, None]
    stripes = dice.chance(0.5)
    fabric = torch.where(pattern > 0, torch.where(stripes, STRIPES, CHECKS), PLAIN)
    return _Look(
        furniture=furniture,
        furniture_texture=torch.where(wood_furniture, WOOD, PLAIN),
        dark=furniture * 0.45,
        textile=textile,
        textile2=second,
        fabric=fabric,
        repeats=dice.uniform(1.6, 2.6),
        white=torch.full_like(textile, 0.8),
    )


def _add_window(parts: _Parts, dice: _Dice, natural: Tensor, look: _Look) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    wall = dice.choice(3)
    length = torch.where(wall == 2, parts.width, parts.depth)
    size, height = dice.uniform(1.1, 1.9), dice.uniform(1.0, 1.4)
    start = torch.where(wall == 2, -length / 2, torch.full_like(length, 1.2))
    room_left = (torch.where(wall == 2, length, length - 1.2) - size - 0.8).clamp(min=0)
    centre = start + 0.4 + size / 2 + room_left * dice.uniform()
    low = dice.uniform(0.85, 1.05)
    a = (centre - size / 2, centre + size / 2)
    thin = (torch.zeros_like(size), torch.full_like(size, 0.03))
    sky = torch.tensor([0.55, 0.75, 1.0]).expand(len(size), 3)
    parts.add_against(
        "window", wall, a, thin, (low, low + height), look.white, texture=WINDOW, colour2=sky, glow=natural
    )
    curtains = dice.chance(0.7)
    fold = (torch.full_like(size, 0.04), torch.full_like(size, 0.14))
    tall = torch.where(dice.chance(0.5), torch.full_like(low, 0.05), low - 0.15)
    for side in (-1, 1):
        edge = centre + side * size / 2
        span = (edge - 0.2, edge + 0.2)
        parts.add_against(
            "curtain", wall, span, fold, (tall, low + height + 0.15), look.textile, present=curtains, texture=FOLDS
        )
    x0, x1, z0, z1 = parts.against(wall, a, thin)
    middle = torch.stack([(x0 + x1) / 2, low + height / 2, (z0 + z1) / 2], -1)
    return wall, (middle, torch.stack([size, height], -1))


def _add_pictures(parts: _Parts, dice: _Dice, window_wall: Tensor, look: _Look) -> None:
    """One or two framed pictures on a wall that has no window."""
    for offset in (1, 2):
        wall = (window_wall + offset) % 3
        length = torch.where(wall == 2, parts.width, parts.depth)
        middle = torch.where(wall == 2, torch.zeros_like(length), length * 0.62)
        centre = middle + (dice.uniform() - 0.5) * length * 0.3
        w, h = dice.uniform(0.25, 0.5), dice.uniform(0.2, 0.38)
        y = dice.uniform(1.55, 1.8)
        first = hsl_to_linear(torch.stack([dice.uniform(), dice.uniform(0.4, 0.9), dice.uniform(0.4, 0.75)], -1))
        second = hsl_to_linear(torch.stack([dice.uniform(), dice.uniform(0.3, 0.8), dice.uniform(0.2, 0.7)], -1))
        parts.add_against(
            "picture",
            wall,
            (centre - w, centre + w),
            (torch.zeros_like(w), torch.full_like(w, 0.04)),
            (y - h, y + h),
            first,
            present=dice.chance(0.6),
            texture=PICTURE,
            colour2=second,
        )


def _add_rug(parts: _Parts, dice: _Dice, category: Tensor, look: _Look) -> Tensor:
    """A rug in the middle of the floor; returns where the ceiling lamp hangs."""
    cx, cz = dice.uniform(-0.3, 0.3), parts.depth * dice.uniform(0.48, 0.6)
    w, d = dice.uniform(0.8, 1.3), dice.uniform(0.6, 0.95)
    parts.add(
        "rug",
        (cx - w, cx + w, torch.zeros_like(w), torch.full_like(w, 0.02), cz - d, cz + d),
        look.textile,
        present=dice.chance(0.6),
        texture=look.fabric,
        colour2=look.textile2,
        frequency=look.repeats,
    )
    height = torch.where(category == 2, dice.uniform(1.75, 1.95), dice.uniform(2.15, 2.35))
    parts.add(
        "lamp",
        (cx - 0.015, cx + 0.015, height, torch.full_like(w, _CEILING), cz - 0.015, cz + 0.015),
        look.white * 0.15,
    )
    return torch.stack([cx, height, cz], -1)


def _add_clutter_boxes(parts: _Parts, dice: _Dice, clutter: Tensor) -> None:
    """Up to six toys, books and boxes lying on the open floor in front."""
    for item in range(6):
        size = dice.uniform(0.11, 0.17)
        x = (dice.uniform() - 0.5) * (parts.width - 0.6)
        z = parts.depth * dice.uniform(0.32, 0.62)
        colour = hsl_to_linear(torch.stack([dice.uniform(), dice.uniform(0.55, 0.85), dice.uniform(0.4, 0.62)], -1))
        flat = dice.uniform(0.6, 1.4)
        parts.add(
            "clutter",
            (x - size, x + size, torch.zeros_like(x), size * flat * 1.3, z - size * 0.8, z + size * 0.8),
            colour,
            present=clutter * 6 > item + 0.5,
        )


def _bedroom(room: _Parts, dice: _Dice, look: _Look, indoor: Tensor) -> _Parts:
    parts = _Parts(room.width, room.depth)
    wall = torch.where(dice.chance(0.5), 2, dice.choice(2))
    length = torch.where(wall == 2, room.width, room.depth)
    middle = torch.where(wall == 2, torch.zeros_like(length), length * 0.64)
    half, long = dice.uniform(0.65, 0.98), dice.uniform(1.9, 2.1)
    slack = (length / 2 - half - 0.6).clamp(min=0) * torch.where(wall == 2, 1.0, 0.25)
    centre = middle + dice.uniform(-1, 1) * slack
    a = (centre - half, centre + half)
    zero = torch.zeros_like(half)
    wood = {"texture": look.furniture_texture}
    cloth = {"texture": look.fabric, "colour2": look.textile2, "frequency": look.repeats}
    headboard = dice.uniform(0.85, 1.2)
    parts.add_against("bed", wall, a, (zero, zero + 0.08), (0.0, headboard), look.furniture, **wood)
    parts.add_against("bed", wall, a, (zero, long), (0.08, 0.3), look.dark, **wood)
    inset = (a[0] + 0.03, a[1] - 0.03)
    parts.add_against("bed", wall, inset, (zero + 0.08, long - 0.03), (0.3, 0.5), look.white)
    edge = dice.uniform(0.6, 0.95)
    parts.add_against("bed", wall, a, (edge, long + 0.02), (0.25, 0.56), look.textile, **cloth)
    for side in (-1, 1):
        p = centre + side * half * 0.48
        span = (p - half * 0.4, p + half * 0.4)
        parts.add_against("bed", wall, span, (zero + 0.12, zero + 0.5), (0.5, 0.64), look.white * 1.05)
    glow = 0.15 + 0.9 * indoor
    shade = torch.tensor([0.95, 0.82, 0.6]).expand(len(half), 3)
    for side, probability in ((-1, 0.85), (1, 0.6)):
        here = dice.chance(probability)
        p = centre + side * (half + 0.32)
        parts.add_against(
            "nightstand",
            wall,
            (p - 0.22, p + 0.22),
            (zero, zero + 0.4),
            (0.0, 0.5),
            look.furniture,
            present=here,
            **wood,
        )
        lit = here & dice.chance(0.7)
        parts.add_against(
            "lamp", wall, (p - 0.03, p + 0.03), (zero + 0.17, zero + 0.23), (0.5, 0.72), look.dark, present=lit
        )
        parts.add_against(
            "lamp", wall, (p - 0.14, p + 0.14), (zero + 0.06, zero + 0.34), (0.7, 0.95), shade, present=lit, glow=glow
        )
    other = torch.where(wall == 2, dice.choice(2), 1 - wall.clamp(max=1))
    w, far = dice.uniform(0.5, 0.8), room.depth - 0.1
    tall = dice.uniform(1.8, 2.2)
    parts.add_against(
        "wardrobe", other, (far - 2 * w, far), (zero, zero + 0.58), (0.0, tall), look.furniture,
        present=dice.chance(0.65), texture=DOORS, colour2=look.dark,
    )  # fmt: skip
    return parts


def _sofa(parts: _Parts, wall: Tensor, centre: Tensor, half: Tensor, look: _Look, seats: int) -> None:
    zero = torch.zeros_like(half)
    cloth = {"texture": look.fabric, "colour2": look.textile2, "frequency": look.repeats}
    a = (centre - half, centre + half)
    parts.add_against("sofa", wall, a, (zero + 0.05, zero + 0.9), (0.06, 0.28), look.textile * 0.75)
    parts.add_against("sofa", wall, a, (zero + 0.05, zero + 0.3), (0.1, 0.86), look.textile, **cloth)
    for side in (-1, 1):
        edge = centre + side * (half - 0.09)
        parts.add_against("sofa", wall, (edge - 0.1, edge + 0.1), (zero + 0.05, zero + 0.92), (0.06, 0.6), look.textile)
    span = (half - 0.2) * 2 / seats
    for seat in range(seats):
        p = centre - half + 0.2 + span * (seat + 0.5)
        cushion = (p - span / 2 + 0.012, p + span / 2 - 0.012)
        parts.add_against("sofa", wall, cushion, (zero + 0.28, zero + 0.94), (0.28, 0.44), look.textile * 1.1, **cloth)


def _table(parts: _Parts, name: str, cx: Tensor, cz: Tensor, hx: Tensor, hz: Tensor, top: Tensor, look: _Look) -> None:
    zero = torch.zeros_like(hx)
    wood = {"texture": look.furniture_texture}
    parts.add(name, (cx - hx, cx + hx, top - 0.06, top, cz - hz, cz + hz), look.furniture, **wood)
    for sx in (-1, 1):
        for sz in (-1, 1):
            x, z = cx + sx * (hx - 0.07), cz + sz * (hz - 0.07)
            leg = (x - 0.04, x + 0.04, zero, top - 0.06, z - 0.04, z + 0.04)
            parts.add(name, leg, look.furniture * 0.75)


def _living(room: _Parts, dice: _Dice, look: _Look, indoor: Tensor) -> _Parts:
    parts = _Parts(room.width, room.depth)
    wall = torch.where(dice.chance(0.5), 2, dice.choice(2))
    length = torch.where(wall == 2, room.width, room.depth)
    middle = torch.where(wall == 2, torch.zeros_like(length), length * 0.62)
    half = dice.uniform(0.85, 1.2)
    slack = (length / 2 - half - 0.2).clamp(min=0) * torch.where(wall == 2, 1.0, 0.35)
    centre = middle + dice.uniform(-0.8, 0.8) * slack
    _sofa(parts, wall, centre, half, look, seats=2)
    out = dice.uniform(1.35, 1.65)
    x0, x1, z0, z1 = parts.against(wall, (centre, centre), (out, out))
    hx = torch.where(wall == 2, dice.uniform(0.4, 0.6), dice.uniform(0.25, 0.34))
    hz = torch.where(wall == 2, dice.uniform(0.25, 0.34), dice.uniform(0.4, 0.6))
    here = dice.chance(0.8)
    cx = torch.where(here, (x0 + x1) / 2, torch.full_like(x0, 50.0))
    _table(parts, "coffee_table", cx, (z0 + z1) / 2, hx, hz, torch.full_like(hx, 0.42), look)
    zero = torch.zeros_like(half)
    other = torch.where(wall == 2, dice.choice(2), 2)
    span = torch.where(other == 2, room.width, room.depth)
    at = torch.where(other == 2, dice.uniform(-0.15, 0.15) * span, span * dice.uniform(0.55, 0.7))
    w = dice.uniform(0.6, 0.85)
    unit = dice.chance(0.85)
    parts.add_against(
        "sideboard", other, (at - w, at + w), (zero, zero + 0.42), (0.0, 0.5), look.furniture,
        present=unit, texture=look.furniture_texture,
    )  # fmt: skip
    screen = unit & dice.chance(0.8)
    v = dice.uniform(0.45, 0.58)
    black = torch.full_like(look.white, 0.012)
    parts.add_against(
        "television", other, (at - v, at + v), (zero + 0.16, zero + 0.22), (0.54, 0.54 + v * 1.15), black,
        present=screen, texture=SCREEN,
    )  # fmt: skip
    stands = dice.chance(0.5)
    edge = centre + (half + 0.28)
    shade = torch.tensor([0.95, 0.82, 0.6]).expand(len(half), 3)
    parts.add_against(
        "lamp", wall, (edge - 0.025, edge + 0.025), (zero + 0.3, zero + 0.35), (0.0, 1.4), look.dark, present=stands
    )
    parts.add_against(
        "lamp", wall, (edge - 0.18, edge + 0.18), (zero + 0.14, zero + 0.5), (1.36, 1.68), shade,
        present=stands, glow=0.15 + 0.9 * indoor,
    )  # fmt: skip
    return parts


def _dining(room: _Parts, dice: _Dice, look: _Look) -> _Parts:
    parts = _Parts(room.width, room.depth)
    cx = dice.uniform(-0.3, 0.3)
    cz = room.depth * dice.uniform(0.52, 0.62)
    across = dice.chance(0.5)
    long, short = dice.uniform(0.7, 0.98), dice.uniform(0.4, 0.52)
    hx, hz = torch.where(across, long, short), torch.where(across, short, long)
    _table(parts, "dining_table", cx, cz, hx, hz, torch.full_like(hx, 0.75), look)
    zero = torch.zeros_like(hx)
    wood = {"texture": look.furniture_texture}
    s = 0.2
    seats = dice.chance(0.5)  # upholstered with the textile, or bare
    seat_colour = torch.where(seats[:, None], look.textile, look.furniture)
    four = dice.chance(0.75)
    for index, (along, side) in enumerate(((-0.45, -1), (0.45, -1), (-0.45, 1), (0.45, 1))):
        gap = dice.uniform(0.05, 0.25)
        out = short + gap
        x = cx + torch.where(across, along * long, side * out)
        z = cz + torch.where(across, side * out, along * long)
        if index in (0, 3):
            x = torch.where(four, x, torch.full_like(x, 50.0))
        parts.add("chair", (x - s, x + s, zero + 0.4, zero + 0.46, z - s, z + s), seat_colour)
        bx0 = torch.where(across, x - s, x + side * s - 0.03)
        bx1 = torch.where(across, x + s, x + side * s + 0.03)
        bz0 = torch.where(across, z + side * s - 0.03, z - s)
        bz1 = torch.where(across, z + side * s + 0.03, z + s)
        parts.add("chair", (bx0, bx1, zero + 0.5, zero + 0.95, bz0, bz1), look.furniture, **wood)
        for dx in (-1, 1):
            for dz in (-1, 1):
                lx, lz = x + dx * (s - 0.025), z + dz * (s - 0.025)
                is_back = torch.where(across, torch.tensor(dz == side), torch.tensor(dx == side))
                top = torch.where(is_back, zero + 0.52, zero + 0.4)
                parts.add("chair", (lx - 0.025, lx + 0.025, zero, top, lz - 0.025, lz + 0.025), look.furniture * 0.7)
    other = torch.where(dice.chance(0.5), 2, dice.choice(2))
    span = torch.where(other == 2, room.width, room.depth)
    at = torch.where(other == 2, dice.uniform(-0.2, 0.2) * span, span * dice.uniform(0.6, 0.72))
    w, tall = dice.uniform(0.5, 0.85), dice.uniform(0.8, 1.0)
    parts.add_against(
        "sideboard", other, (at - w, at + w), (zero, zero + 0.4), (zero, tall), look.furniture,
        present=dice.chance(0.7), texture=DOORS, colour2=look.dark,
    )  # fmt: skip
    return parts


def _ellipsoids(room: _Parts, dice: _Dice, category: Tensor, indoor: Tensor, lamp: Tensor) -> list[Tensor]:
    """Ceiling lamp, plant foliage."""
    parts = _Parts(room.width, room.depth)
    x, y, z = lamp.unbind(-1)
    r = torch.where(category == 2, 0.22, 0.19)
    shade = torch.tensor([1.0, 0.88, 0.66]).expand(len(x), 3)
    parts.add("lamp", (x - r, x + r, y - r * 0.8, y + r * 0.8, z - r, z + r), shade, glow=0.1 + 1.3 * indoor)
    here, left = dice.chance(0.45), dice.chance(0.5)
    px = torch.where(left, -room.width / 2 + 0.38, room.width / 2 - 0.38)
    pz = room.depth - 0.4 - dice.uniform(0.0, 0.5)
    size = dice.uniform(0.26, 0.36)
    green = torch.tensor([0.07, 0.24, 0.05]).expand(len(x), 3)
    clay = torch.tensor([0.4, 0.16, 0.08]).expand(len(x), 3)
    parts.add("plant", (px - 0.17, px + 0.17, x * 0 - 0.1, x * 0 + 0.42, pz - 0.17, pz + 0.17), clay, present=here)
    for dx, dy, scale in ((-0.5, 0.0, 0.8), (0.5, 0.15, 0.85), (0.0, 0.75, 1.0)):
        bx, by, b = px + dx * size * 0.7, 0.68 + dy * size, size * scale
        tint = green * (0.8 + 0.4 * dy)
        parts.add("plant", (bx - b, bx + b, by - b, by + b * 1.15, pz - b, pz + b), tint, present=here)
    return parts.stacked(len(parts.slots))


def _choose(rooms: list[_Parts], category: Tensor) -> list[Tensor]:
    """Of every scene, the furniture of its category."""
    slots = max(len(r.slots) for r in rooms)
    fields_by_room = [r.stacked(slots) for r in rooms]
    chosen = []
    for values in zip(*fields_by_room, strict=True):
        options = torch.stack(list(values))
        chosen.append(options[category, torch.arange(len(category))])
    return chosen
