"""The furniture of every kind of room, and what all rooms have: window, pictures, rug, lamp, plant, clutter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from higan.rooms.palette import hsl_to_linear
from higan.rooms.parts import CEILING, DOORS, FOLDS, PICTURE, SCREEN, WINDOW, Dice, Parts

__all__ = [
    "Look",
    "add_clutter",
    "add_pictures",
    "add_rug",
    "add_window",
    "bedroom",
    "dining_room",
    "living_room",
    "round_parts",
]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Colours and patterns shared by the furniture of a scene."""

    furniture: Tensor
    furniture_texture: Tensor
    dark: Tensor
    textile: Tensor
    textile2: Tensor
    fabric: Tensor
    repeats: Tensor
    white: Tensor


def add_window(parts: Parts, dice: Dice, natural: Tensor, look: Look) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Window and curtains on one wall; returns the wall and the window's centre and size."""
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


def add_pictures(parts: Parts, dice: Dice, window_wall: Tensor, look: Look) -> None:
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


def add_rug(parts: Parts, dice: Dice, category: Tensor, look: Look) -> Tensor:
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
        (cx - 0.015, cx + 0.015, height, torch.full_like(w, CEILING), cz - 0.015, cz + 0.015),
        look.white * 0.15,
    )
    return torch.stack([cx, height, cz], -1)


def add_clutter(parts: Parts, dice: Dice, clutter: Tensor) -> None:
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


def bedroom(room: Parts, dice: Dice, look: Look, indoor: Tensor) -> Parts:
    """Bed, nightstands with lamps, wardrobe."""
    parts = Parts(room.width, room.depth)
    wall = torch.where(dice.chance(0.5), 2, dice.choice(2))
    length = torch.where(wall == 2, room.width, room.depth)
    middle = torch.where(wall == 2, torch.zeros_like(length), length * 0.64)
    half, long = dice.uniform(0.65, 0.98), dice.uniform(1.9, 2.1)
    slack = (length / 2 - half - 0.6).clamp(min=0) * torch.where(wall == 2, 1.0, 0.25)
    centre = middle + dice.uniform(-1.0, 1.0) * slack
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


def _sofa(parts: Parts, wall: Tensor, centre: Tensor, half: Tensor, look: Look, seats: int) -> None:
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


def _table(parts: Parts, name: str, cx: Tensor, cz: Tensor, hx: Tensor, hz: Tensor, top: Tensor, look: Look) -> None:
    zero = torch.zeros_like(hx)
    wood = {"texture": look.furniture_texture}
    parts.add(name, (cx - hx, cx + hx, top - 0.06, top, cz - hz, cz + hz), look.furniture, **wood)
    for sx in (-1, 1):
        for sz in (-1, 1):
            x, z = cx + sx * (hx - 0.07), cz + sz * (hz - 0.07)
            leg = (x - 0.04, x + 0.04, zero, top - 0.06, z - 0.04, z + 0.04)
            parts.add(name, leg, look.furniture * 0.75)


def living_room(room: Parts, dice: Dice, look: Look, indoor: Tensor) -> Parts:
    """Sofa, coffee table, sideboard with television, floor lamp."""
    parts = Parts(room.width, room.depth)
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


def dining_room(room: Parts, dice: Dice, look: Look) -> Parts:
    """Table with two or four chairs, sideboard."""
    parts = Parts(room.width, room.depth)
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


def round_parts(room: Parts, dice: Dice, category: Tensor, indoor: Tensor, lamp: Tensor) -> list[Tensor]:
    """Ceiling lamp, plant foliage."""
    parts = Parts(room.width, room.depth)
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
