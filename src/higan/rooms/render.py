"""A batched ray caster for scenes: direct light from a window and a lamp, soft shadows, ambient occlusion, textures.

Rays of one image start at one point (the camera, or a point on a light), so a box costs a few multiply-adds per ray;
only rays of tiles that can meet it are looked at (`higan.rooms.tiles`). Lights are sampled at a different point for
every sub-pixel sample, which makes shadows soft at no extra cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from higan.rooms.classes import class_index
from higan.rooms.parts import CHECKS, DOORS, FAR, FOLDS, PICTURE, SCREEN, STRIPES, WINDOW, WOOD
from higan.rooms.scene import Scenes
from higan.rooms.tiles import Vector, distances, from_tiles, num_tiles, rows_of, some, spans, to_tiles

__all__ = ["Pictures", "render"]

_SUPERSAMPLE = 2
_LIGHT_RADIUS = 0.16


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Rendered images with the object class of every pixel."""

    images: UInt8[Tensor, "n 3 H W"]
    masks: UInt8[Tensor, "n H W"]


def check_resolution(resolution: int) -> None:
    """Refuses sizes that are not rendered.

    Raises:
        ValueError: outside 32 … 256 pixels.
    """
    if not 32 <= resolution <= 256:
        raise ValueError(f"resolution must lie in 32 … 256 pixels; got {resolution}")


def render(scenes: Scenes, resolution: int = 64, chunk: int = 4) -> Pictures:
    """Renders scenes.

    Args:
        scenes: n scenes, on any device.
        resolution: H = W, 32 … 256 pixels.
        chunk: scenes rendered together; changes speed and memory, never the pictures.

    Raises:
        ValueError: the resolution is outside 32 … 256.
    """
    check_resolution(resolution)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}")
    with torch.inference_mode():
        done = [_render(scenes.slice(i, i + chunk), resolution) for i in range(0, len(scenes), chunk)]
    return Pictures(torch.cat([d.images for d in done]), torch.cat([d.masks for d in done]))


def _render(scenes: Scenes, resolution: int) -> Pictures:
    side = resolution * _SUPERSAMPLE
    rays = _camera_rays(scenes, side)
    origin = _columns(scenes.camera)
    scenes = _visible_slots(scenes)
    t, index = _nearest(scenes, origin, rays)
    surface = _surface(scenes, origin, rays, t, index)
    albedo, emission = _materials(scenes, surface, index)
    light = _light(scenes, surface, side)
    colour = [a * s + e for a, s, e in zip(albedo, light, emission, strict=True)]
    rgb = torch.stack([1 - torch.exp(-1.35 * c) for c in colour], 1)  # soft shoulder instead of clipping
    rgb = rgb.clamp(0, 1) ** (1 / 2.2)
    rgb = torch.nn.functional.avg_pool2d(from_tiles(rgb, side), _SUPERSAMPLE)
    return Pictures(
        (rgb * 255).round().to(torch.uint8),
        _majority(from_tiles(surface.kind, side)),
    )


def _columns(points: Tensor) -> Vector:
    """(n, 3) → three (n, 1)."""
    x, y, z = points[:, :, None].unbind(1)
    return x, y, z


def _camera_rays(scenes: Scenes, side: int) -> Vector:
    """Directions through the centre of every sub-pixel, tile by tile; three (n, side²)."""
    steps = (torch.arange(side, device=scenes.room.device) + 0.5) / side * 2 - 1
    py, px = torch.meshgrid(-steps, steps, indexing="ij")
    px, py = to_tiles(px)[None], to_tiles(py)[None]
    scale = torch.tan(scenes.fov / 2)[:, None]
    sin, cos = torch.sin(scenes.yaw)[:, None], torch.cos(scenes.yaw)[:, None]
    sp, cp = torch.sin(scenes.pitch)[:, None], torch.cos(scenes.pitch)[:, None]
    right, up = px * scale, py * scale
    x = sin * cp + cos * right - sin * sp * up
    y = sp + cp * up
    z = cos * cp - sin * right - cos * sp * up
    return x, y, z


def _visible_slots(scenes: Scenes) -> Scenes:
    """Drops the slots that are parked in every scene of the chunk."""
    used = (scenes.high[:, :, 1] > 0).any(0)
    boxes = int(used[: scenes.num_boxes].sum())
    keep = used.nonzero()[:, 0]
    columns = ("low", "high", "kind", "colour", "colour2", "texture", "frequency", "glow")
    values = {name: getattr(scenes, name) for name in Scenes.__slots__}
    values.update({name: values[name][:, keep] for name in columns}, num_boxes=boxes)
    return Scenes(**values)


def _inverse(rays: Vector) -> Vector:
    x, y, z = (1 / torch.where(r.abs() < 1e-7, torch.full_like(r, 1e-7), r) for r in rays)
    return x, y, z


def _box_span(lo: Vector, hi: Vector, inverse: Vector) -> tuple[Tensor, Tensor]:
    """Entry and exit of rays through one box whose bounds are given relative to the rays' origin."""
    near = far = torch.zeros(())
    for axis in range(3):
        a, b = lo[axis] * inverse[axis], hi[axis] * inverse[axis]
        small, large = torch.minimum(a, b), torch.maximum(a, b)
        near = small if axis == 0 else torch.maximum(near, small)
        far = large if axis == 0 else torch.minimum(far, large)
    return near, far


def _ball_entry(lo: Vector, hi: Vector, rays: Vector) -> tuple[Tensor, Tensor]:
    """Entry of rays into the ellipsoid that fills a box, and whether they meet it."""
    a = b = c = torch.zeros(())
    for axis in range(3):
        radius = (hi[axis] - lo[axis]) / 2
        centre = (hi[axis] + lo[axis]) / 2 / radius
        ray = rays[axis] / radius
        a, b, c = a + ray * ray, b + ray * centre, c + centre * centre
    root = b * b - a * (c - 1)
    return (b - root.clamp(min=0).sqrt()) / a, root > 0


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Rays or points of scenes in rows of a tile each, R × S, and the solids of the scene that a row belongs to."""

    scenes: Scenes
    scene: Tensor  # R
    low: Tensor  # R s 3
    high: Tensor

    @classmethod
    def of(cls, scenes: Scenes, samples: int) -> _Tiles:
        scene = torch.arange(len(scenes), device=scenes.low.device).repeat_interleave(num_tiles(samples))
        return cls(scenes, scene, scenes.low[scene], scenes.high[scene])

    def rows(self, vector: Vector) -> Vector:
        return rows_of(vector, len(self.scene) // len(self.scenes))

    def around(self) -> tuple[Tensor, Tensor]:
        """Boxes with room to spare around ellipsoids, whose entries are not computed as those of boxes are."""
        spare = 0.01 * (self.high - self.low) + 1e-3
        spare[:, : self.scenes.num_boxes] = 0
        return self.low - spare, self.high + spare

    def slot(self, slot: int, rows: Tensor, origin: Vector) -> tuple[Vector, Vector]:
        """Bounds of one solid relative to where rays of some rows begin."""
        low, high = self.low[rows, slot, :, None], self.high[rows, slot, :, None]
        x, y, z = some(origin, rows)
        return (low[:, 0] - x, low[:, 1] - y, low[:, 2] - z), (high[:, 0] - x, high[:, 1] - y, high[:, 2] - z)


def _closer_box(
    best: Tensor, index: Tensor, lo: Vector, hi: Vector, inverse: Vector, slot: Tensor
) -> tuple[Tensor, Tensor]:
    near, far = _box_span(lo, hi, inverse)
    hit = (near < far) & (near > 1e-3) & (near < best)
    return torch.where(hit, near, best), torch.where(hit, slot, index)


def _closer_ball(
    best: Tensor, index: Tensor, lo: Vector, hi: Vector, rays: Vector, slot: Tensor
) -> tuple[Tensor, Tensor]:
    t, meets = _ball_entry(lo, hi, rays)
    hit = meets & (t > 1e-3) & (t < best)
    return torch.where(hit, t, best), torch.where(hit, slot, index)


def _room_bounds(scenes: Scenes, origin: Vector) -> tuple[Vector, Vector]:
    width, height, depth = _columns(scenes.room)
    lo = (-width / 2 - origin[0], -origin[1], -origin[2])
    hi = (width / 2 - origin[0], height - origin[1], depth - origin[2])
    return lo, hi


def _nearest(scenes: Scenes, origin: Vector, rays: Vector) -> tuple[Tensor, Tensor]:
    """Distance to and index of what each ray meets first: solids, then the room itself (index −1)."""
    inverse = _inverse(rays)
    _, walls = _box_span(*_room_bounds(scenes, origin), inverse)
    tiles = _Tiles.of(scenes, walls.shape[1])
    start, rays, inverse = tiles.rows(origin), tiles.rows(rays), tiles.rows(inverse)
    t = walls.reshape(len(tiles.scene), -1)
    index = torch.full_like(t, -1, dtype=torch.int32)
    entry, exit_ = spans(*tiles.around(), start, inverse)
    meets = (entry <= exit_) & (exit_ > 1e-3) & (entry < t.amax(1, keepdim=True))
    slots = torch.arange(meets.shape[1], dtype=torch.int32, device=t.device)
    for slot in range(meets.shape[1]):
        rows = meets[:, slot].nonzero()[:, 0]
        lo, hi = tiles.slot(slot, rows, start)
        if slot < scenes.num_boxes:
            found = _closer_box(t[rows], index[rows], lo, hi, some(inverse, rows), slots[slot])
        else:
            found = _closer_ball(t[rows], index[rows], lo, hi, some(rays, rows), slots[slot])
        t[rows], index[rows] = found
    return t.view_as(walls), index.view_as(walls)


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    point: Vector
    normal: Vector
    local: Vector  # −1 … 1 within the solid
    low: Tensor  # n P 3
    high: Tensor
    kind: Tensor
    wall: Tensor  # index into room_colour where the room itself was met


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows of an (n, s, …) table by an (n, P) index."""
    flat = index.clamp(min=0).long()
    if table.ndim == 2:
        return torch.gather(table, 1, flat)
    return torch.gather(table, 1, flat[:, :, None].expand(-1, -1, table.shape[2]))


def _surface(scenes: Scenes, origin: Vector, rays: Vector, t: Tensor, index: Tensor) -> _Surface:
    point = tuple(o + r * t for o, r in zip(origin, rays, strict=True))
    inside = index < 0
    width, height, depth = scenes.room[:, None, :].unbind(-1)
    zero = torch.zeros_like(width)
    room_low = torch.stack([-width / 2, zero, zero], -1)
    room_high = torch.stack([width / 2, height, depth], -1)
    low = torch.where(inside[..., None], room_low, _gather(scenes.low, index))
    high = torch.where(inside[..., None], room_high, _gather(scenes.high, index))
    half, centre = (high - low) / 2, (high + low) / 2
    local = tuple((p - c) / h for p, c, h in zip(point, centre.unbind(-1), half.unbind(-1), strict=True))

    size = torch.stack([v.abs() for v in local], -1)
    axis = size.argmax(-1)
    outward = torch.where(inside, -1.0, 1.0)
    flat = [torch.where(axis == a, torch.sign(local[a]) * outward, torch.zeros_like(t)) for a in range(3)]
    round_ = [v / h for v, h in zip(local, half.unbind(-1), strict=True)]
    length = (round_[0] ** 2 + round_[1] ** 2 + round_[2] ** 2).sqrt().clamp(min=1e-6)
    is_ball = index >= scenes.num_boxes
    normal = tuple(torch.where(is_ball, r / length, f) for r, f in zip(round_, flat, strict=True))

    positive = [v > 0 for v in local]
    wall = torch.where(
        axis == 0, torch.where(positive[0], 1, 0), torch.where(axis == 1, torch.where(positive[1], 3, 2), 4)
    )
    stuff = torch.tensor([class_index(name) for name in ("wall", "wall", "floor", "ceiling", "wall")], device=t.device)
    kind = torch.where(inside, stuff[wall], _gather(scenes.kind, index))
    return _Surface(point, normal, local, low, high, kind, wall)  # type: ignore[arg-type]


def _fraction(x: Tensor) -> Tensor:
    return x - x.floor()


def _soft_square(phase: Tensor) -> Tensor:
    """A wave of period 1 that is mostly 0 or 1, with soft edges against aliasing."""
    return (0.5 + 2.5 * torch.sin(2 * math.pi * phase)).clamp(0, 1)


def _materials(scenes: Scenes, surface: _Surface, index: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Albedo and emitted light of every sample; three (n, P) each."""
    inside = index < 0
    colour = torch.where(inside[..., None], _gather(scenes.room_colour, surface.wall), _gather(scenes.colour, index))
    colour2 = torch.where(inside[..., None], colour, _gather(scenes.colour2, index))
    is_floor = inside & (surface.wall == 2)
    texture = torch.where(inside, 0, _gather(scenes.texture, index))
    texture = torch.where(is_floor, scenes.floor_texture[:, None], texture)
    frequency = torch.where(inside, 2.0, _gather(scenes.frequency, index))
    glow = torch.where(inside, 0.0, _gather(scenes.glow, index))

    x, y, z = surface.point
    sideways = surface.normal[0].abs() > 0.7  # faces seen along x run in z and y
    level = surface.normal[1].abs() > 0.7
    along = torch.where(sideways, z, x)
    across = torch.where(level, z, y)
    u = torch.where(sideways, surface.local[2], surface.local[0])  # −1 … 1
    v = surface.local[1]

    plank = torch.floor(x * 3.3)
    tint = _fraction(torch.sin(plank * 12.9898) * 43758.5453)
    seam = (_fraction(x * 3.3) - 0.5).abs() > 0.44
    floor_grain = (0.8 + 0.4 * tint) * torch.where(seam, 0.62, 1.0)
    floor_grain = floor_grain * (1 + 0.12 * torch.sin(38 * x + 2.5 * torch.sin(3.1 * z + plank)))
    grain = 0.86 + 0.22 * torch.sin(26 * across + 3.0 * torch.sin(2.3 * along + 1.3 * across))
    shade = torch.where(texture == WOOD, torch.where(is_floor, floor_grain, grain), torch.ones_like(x))
    folds = 0.78 + 0.25 * torch.sin(34 * along)
    shade = torch.where(texture == FOLDS, folds, shade)
    groove = (u.abs() < 0.035) | ((u.abs() - 0.14).abs() < 0.03) & (v.abs() < 0.12)
    shade = torch.where((texture == DOORS) & ~level & groove, 0.35, shade)
    shade = torch.where((texture == SCREEN) & (u + v > 0.5) & (u + v < 1.0), 4.0, shade)

    stripe = _soft_square(along * frequency)
    check = stripe + _soft_square(across * frequency) * (1 - 2 * stripe)
    mix = torch.where(texture == STRIPES, stripe, torch.where(texture == CHECKS, check, torch.zeros_like(x)))
    picture = (v < -0.15 + 0.35 * torch.sin(2.2 * u + 9 * surface.low[..., 1])).float()
    mix = torch.where(texture == PICTURE, picture, mix)
    frame = (texture == PICTURE) & ((u.abs() > 0.86) | (v.abs() > 0.84))

    pane = texture == WINDOW
    bar = (u.abs() > 0.93) | (v.abs() > 0.92) | (u.abs() < 0.04)
    sky = [0.75, 0.88, 1.05]
    ground = [0.35, 0.5, 0.25]
    horizon = torch.sigmoid((v + 0.45) * 9)
    albedo, emission = [], []
    for channel in range(3):
        base = torch.lerp(colour[..., channel], colour2[..., channel], mix) * shade
        base = torch.where(frame, 0.05, base)
        base = torch.where(pane, torch.where(bar, 0.75, 0.02), base)
        view = (ground[channel] * (1 - horizon) + sky[channel] * horizon) * (0.06 + 1.5 * glow)
        own = colour[..., channel] * glow * 1.2
        albedo.append(base)
        emission.append(torch.where(pane, torch.where(bar, torch.zeros_like(x), view), own))
    return albedo, emission


def _light(scenes: Scenes, surface: _Surface, side: int) -> list[Tensor]:
    """Light that falls on every sample: sky and bounce, window, lamp; three (n, P)."""
    openness = _openness(scenes, surface)
    offset_u, offset_v = _light_offsets(side, scenes.room.device)
    on_back = (scenes.window_wall == 2)[:, None]
    facing = torch.where(scenes.window_wall == 0, 1.0, -1.0)[:, None]
    cx, cy, cz = _columns(scenes.window_centre)
    along = offset_u * scenes.window_size[:, :1] * 0.42
    window = (
        cx + torch.where(on_back, along, facing * 0.05),
        cy + offset_v * scenes.window_size[:, 1:] * 0.42,
        cz + torch.where(on_back, torch.full_like(along, -0.05), along),
    )
    inward = (torch.where(on_back, 0.0, facing), torch.where(on_back, -1.0, 0.0))
    day = _from_window(scenes, surface, window, inward, (cx, cy, cz))
    lx, ly, lz = _columns(scenes.lamp)
    lamp = (lx + offset_u * _LIGHT_RADIUS, ly - 0.24 + 0 * offset_u, lz + offset_v * _LIGHT_RADIUS)
    evening = _from_lamp(scenes, surface, lamp)

    natural, indoor = scenes.natural[:, None], scenes.indoor[:, None]
    area = scenes.window_size.prod(-1, keepdim=True)
    up = 0.8 + 0.2 * surface.normal[1]
    result = []
    for sky, warm in zip((0.86, 0.98, 1.16), (1.22, 0.93, 0.56), strict=True):
        ambient = openness * up * (0.03 + 0.3 * natural * sky + 0.27 * indoor * warm)
        result.append(ambient + 2.4 * natural * area * sky * day + 2.6 * indoor * warm * evening)
    return result


def _light_offsets(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where on a light each sub-pixel sample aims, −1 … 1; (1, side²). The same in every pixel: no speckle."""
    rows = torch.arange(side, device=device) % _SUPERSAMPLE
    i, j = (to_tiles(g)[None].float() for g in torch.meshgrid(rows, rows, indexing="ij"))
    return (i + 2 * j) / 1.5 - 1, (j - 2 * i + 2) / 1.5 - 1  # a rotated grid: four distinct values on either axis


def _shadowed(near: Tensor, far: Tensor) -> Tensor:
    """Whether a solid lies between light (t = 0) and surface (t = 1)."""
    return (near < far) & (near < 0.995) & (far > 0.005) & (near > 1e-4)


def _casting(scenes: Scenes) -> Scenes:
    """The scenes with all that casts no shadow (panes, shades, flat things) parked far below."""
    thin = torch.tensor([class_index(name) for name in ("window", "lamp", "picture", "rug")], device=scenes.kind.device)
    aside = torch.isin(scenes.kind, thin)[..., None]
    values = {name: getattr(scenes, name) for name in Scenes.__slots__}
    low, high = torch.where(aside, FAR - 1, scenes.low), torch.where(aside, FAR, scenes.high)
    return Scenes(**(values | {"low": low, "high": high}))


def _visible(scenes: Scenes, light: Vector, surface: _Surface, facing: Tensor) -> Tensor:
    """1 where nothing stands between the light and the surface, else 0; the panes and shades cast no shadow.

    Tiles that face the light nowhere are not looked at: nothing falls on them either way.
    """
    x, y, z = (p + 0.004 * n - s for p, n, s in zip(surface.point, surface.normal, light, strict=True))
    tiles = _Tiles.of(_casting(scenes), x.shape[1])
    light, rays, inverse = tiles.rows(light), tiles.rows((x, y, z)), tiles.rows(_inverse((x, y, z)))
    dark = torch.zeros_like(rays[0], dtype=torch.bool)
    entry, exit_ = spans(*tiles.around(), light, inverse)
    meets = (entry <= exit_) & (entry < 0.995) & (exit_ > 1e-3)
    meets &= facing.view_as(dark).amax(1, keepdim=True) > 0
    for slot in range(meets.shape[1]):
        rows = meets[:, slot].nonzero()[:, 0]
        lo, hi = tiles.slot(slot, rows, light)
        if slot < scenes.num_boxes:
            dark[rows] |= _shadowed(*_box_span(lo, hi, some(inverse, rows)))
        else:
            t, hit = _ball_entry(lo, hi, some(rays, rows))
            dark[rows] |= hit & (t > 1e-3) & (t < 0.99)
    return (~dark).float().view_as(x)


def _from_window(
    scenes: Scenes, surface: _Surface, window: Vector, inward: tuple[Tensor, Tensor], centre: Vector
) -> Tensor:
    to = tuple(c - p for c, p in zip(window, surface.point, strict=True))
    squared = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    length = squared.sqrt().clamp(min=1e-3)
    normal = surface.normal
    facing = (normal[0] * to[0] + normal[1] * to[1] + normal[2] * to[2]).clamp(min=0) / length
    leaving = -(inward[0] * to[0] + inward[1] * to[2]) / length
    return _visible(scenes, window, surface, facing) * facing * leaving.clamp(min=0) / (squared + 0.6)


def _from_lamp(scenes: Scenes, surface: _Surface, lamp: Vector) -> Tensor:
    to = tuple(c - p for c, p in zip(lamp, surface.point, strict=True))
    squared = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    length = squared.sqrt().clamp(min=1e-3)
    normal = surface.normal
    facing = (normal[0] * to[0] + normal[1] * to[1] + normal[2] * to[2]).clamp(min=0) / length
    return _visible(scenes, lamp, surface, facing) * facing / (squared + 0.7)


def _box_distance(lo: Vector, hi: Vector, point: Vector) -> Tensor:
    squared = torch.zeros(())
    for axis in range(3):
        outside = torch.maximum(lo[axis] - point[axis], point[axis] - hi[axis]).clamp(min=0)
        squared = squared + outside * outside
    return squared


def _openness(scenes: Scenes, surface: _Surface) -> Tensor:
    """Ambient occlusion from how close the nearest solids and walls are, one probe above the surface; (n, P)."""
    reach = 0.28
    x, y, z = (p + reach * n for p, n in zip(surface.point, surface.normal, strict=True))
    probe = x, y, z
    width, height, depth = _columns(scenes.room)
    nearest = torch.full_like(probe[0], reach * reach)
    for distance in (probe[0] + width / 2, width / 2 - probe[0], probe[1], height - probe[1], depth - probe[2]):
        nearest = torch.minimum(nearest, distance.clamp(min=0) ** 2)
    tiles = _Tiles.of(scenes, nearest.shape[1])
    points, least = tiles.rows(probe), nearest.view(len(tiles.scene), -1)
    near = distances(tiles.low, tiles.high, points) < least.amax(1, keepdim=True)
    zero = (torch.zeros(1, 1, device=least.device).expand(len(least), 1),) * 3
    for slot in range(scenes.num_boxes):
        rows = near[:, slot].nonzero()[:, 0]
        lo, hi = tiles.slot(slot, rows, zero)
        least[rows] = torch.minimum(least[rows], _box_distance(lo, hi, some(points, rows)))
    return 0.3 + 0.7 * (nearest.sqrt() / reach)


def _majority(kinds: Tensor) -> UInt8[Tensor, "n H W"]:
    """Class of every pixel: the most frequent among its samples, the smallest index on a tie."""
    s = _SUPERSAMPLE
    n, side, _ = kinds.shape
    blocks = kinds.view(n, side // s, s, side // s, s).permute(0, 1, 3, 2, 4).reshape(n, side // s, side // s, s * s)
    return blocks.mode(-1).values.to(torch.uint8)
