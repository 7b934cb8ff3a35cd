"""The layout of a room from its lines and vanishing points: no weights, any picture of a room with straight walls.

Rooms are boxes, so their edges run along three directions (Coughlan and Yuille 1999). The view is the one whose three
vanishing points explain the directions of most edges in the picture; the back wall is the rectangle, seen from there,
whose borders and the four edges that lead away from its corners have most evidence (Hedau et al. 2009,
without learning).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, interpolate, pad

from higan.scorers.outline import axes, depth_edges, vanishing_point
from higan.scorers.rooms import check_images
from higan.types import Concept

__all__ = ["LinesScorer", "View"]

_SIZE = 96
_POINTS = 1000
_SIGMA = 0.07  # radians by which the direction of an edge may be off
_STEPS = 20
_SAMPLES = 24
_CONCEPTS = ("view_yaw", "view_pitch", "camera_side", "distance_to_height")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What `LinesScorer` finds; angles in radians."""

    yaw: Float[Tensor, " n"]
    pitch: Float[Tensor, " n"]
    wall: Float[Tensor, "n 4"]
    """Left, right, bottom and top of the back wall: across and up from the viewer's eye, in units of its distance."""
    corners: Float[Tensor, "n 4 2"]
    """The same in the picture, in the order of `higan.scorers.outline.CORNERS`."""


class LinesScorer:
    """Concepts of level ``layout`` from lines alone.

    - ``view_yaw``, ``view_pitch``: where the camera looks, in radians, right and up positive; yaw within ±45°, beyond
      which another wall is the back wall;
    - ``camera_side``: how far the camera stands to the right of the room's middle, in room widths;
    - ``distance_to_height``: from the camera to the back wall, in heights of the room.

    How far each can be trusted is measured in docs/scorers.md; the yaw far more than the back wall.

    Args:
        field_of_view: over the picture's shorter side, in radians. It cannot be told from a picture of a room reliably;
            a wrong one scales the angles.
        name: what people type.

    Raises:
        ValueError: the field of view is not between 0 and π.
    """

    def __init__(self, field_of_view: float = 1.2, *, name: str = "lines") -> None:
        if not 0 < field_of_view < math.pi:
            raise ValueError(f"field_of_view must lie between 0 and π radians; got {field_of_view}")
        self.name = name
        self.field_of_view = field_of_view
        self.concepts = tuple(Concept(concept, "layout") for concept in _CONCEPTS)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """The concepts, of every image by itself."""
        view = self.view(images)
        left, right, bottom, top = view.wall.unbind(1)
        side = -(left + right) / 2 / (right - left)
        return torch.stack([view.yaw, view.pitch, side, 1 / (top - bottom)], 1)

    def outline(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 4 2"]:
        """Corners of the back wall, in the order of `higan.scorers.outline.CORNERS`."""
        return self.view(images).corners

    def edges(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 4 2 2"]:
        """The edges from those corners towards the viewer, both ends of each."""
        view = self.view(images)
        vanishing = vanishing_point(view.yaw, view.pitch, self.field_of_view)
        return depth_edges(view.corners, vanishing, height=images.shape[2], width=images.shape[3])

    def view(self, images: UInt8[Tensor, "n 3 H W"]) -> View:
        """Angles and back wall of every image."""
        check_images(images)
        scale = math.tan(self.field_of_view / 2)
        found = [_view(image[None], scale) for image in images]
        return View(*(torch.cat([getattr(one, name) for one in found]) for name in View.__slots__))


def _view(image: Tensor, scale: float) -> View:
    strength, normal, place = _edges(image, scale)
    yaw, pitch = _angles(strength, normal, place)
    frame = axes(yaw, pitch)
    wall = _back_wall(_evidence(strength, normal, place, frame), frame, scale)
    left, right, bottom, top = wall.unbind(1)
    points = torch.stack([left, top, right, top, right, bottom, left, bottom], 1).view(-1, 4, 2)
    return View(yaw, pitch, wall, _project(points, frame, scale))


def _edges(image: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Per pixel: how much of an edge it is (h, w), the edge's normal, and its place in rays of the camera (h, w, 2)."""
    grey = image.float().mean(1, keepdim=True)
    short = min(grey.shape[2:])
    height, width = (round(side * _SIZE / short) for side in grey.shape[2:])
    grey = interpolate(grey, (height, width), mode="bilinear", antialias=True, align_corners=False)
    kernel = torch.tensor([[-3.0, 0.0, 3.0], [-10.0, 0.0, 10.0], [-3.0, 0.0, 3.0]], device=image.device) / 32
    gradient = conv2d(pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, -kernel.T])[:, None])
    gx, gy = gradient[0]
    # Averaging products instead of gradients keeps both sides of a thin line from cancelling.
    xx, xy, yy = avg_pool2d(torch.stack([gx * gx, gx * gy, gy * gy])[None], 3, 1, 1)[0]
    coherent = torch.sqrt((xx - yy) ** 2 + 4 * xy**2)
    angle = torch.atan2(2 * xy, xx - yy) / 2
    share = coherent / (xx + yy + 1e-6)
    strength = torch.sqrt(coherent).clamp(max=12.0) * share**2
    strength[..., (0, -1)] = 0
    strength[(0, -1), :] = 0
    x = (torch.arange(width, device=image.device) + 0.5) * 2 / _SIZE - width / _SIZE
    y = height / _SIZE - (torch.arange(height, device=image.device) + 0.5) * 2 / _SIZE
    place = torch.stack(torch.meshgrid(x * scale, y * scale, indexing="xy"), -1)
    return strength, torch.stack([torch.cos(angle), torch.sin(angle)], -1), place


def _misfit(normal: Tensor, place: Tensor, direction: Tensor) -> Tensor:
    """Sine of the angle between an edge and the line to where ``direction`` vanishes: (p, 2), (v, 3) → (v, p)."""
    towards = direction[:, None, :2] - direction[:, None, 2:] * place
    along = (towards * normal).sum(-1).abs()
    return along / towards.norm(dim=-1).clamp(min=1e-6)


def _angles(strength: Tensor, normal: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch that explain most edges: a coarse grid, then finer ones around its best point."""
    values, index = strength.flatten().topk(min(_POINTS, strength.numel()))
    normal, place = normal.flatten(0, 1)[index], place.flatten(0, 1)[index]
    yaw = pitch = torch.zeros(1, device=strength.device)
    for reach, steps in ((0.78, 27), (0.06, 7), (0.02, 7)):
        offset = torch.linspace(-1, 1, steps, device=strength.device) * reach
        tilt = offset if reach < 0.1 else torch.linspace(-0.4, 0.4, 15, device=strength.device)
        a, b = (grid.flatten() for grid in torch.meshgrid(yaw + offset, pitch + tilt, indexing="ij"))
        frame = axes(a, b)
        fit = torch.stack([torch.exp(-((_misfit(normal, place, frame[:, k]) / _SIGMA) ** 2) / 2) for k in range(3)])
        # A picture without lines looks straight ahead.
        total = (fit.amax(0) * values).sum(1) - 1e-3 * (values.sum() + 1) * (a.abs() + b.abs())
        best = total.argmax()
        yaw, pitch = a[best][None], b[best][None]
    return yaw, pitch


def _evidence(strength: Tensor, normal: Tensor, place: Tensor, frame: Tensor) -> Tensor:
    """Maps (3, h, w) of edges along the room's width, height and depth, each less its mean."""
    flat = normal.flatten(0, 1), place.flatten(0, 1)
    fit = torch.stack([torch.exp(-((_misfit(*flat, frame[:, k])[0] / _SIGMA) ** 2) / 2) for k in range(3)])
    maps = fit.view(3, *strength.shape) * strength
    maps = avg_pool2d(maps[None], 3, 1, 1)[0]
    return maps - maps.mean((1, 2), keepdim=True)


def _project(points: Tensor, frame: Tensor, scale: float) -> Tensor:
    """Points of the back wall's plane, (…, 2) in units of its distance, into the picture."""
    rays = points[..., :1] * frame[0, 0] + points[..., 1:] * frame[0, 1] + frame[0, 2]
    return rays[..., :2] / rays[..., 2:].clamp(min=0.05) / scale


def _back_wall(maps: Tensor, frame: Tensor, scale: float) -> Tensor:
    """Left, right, bottom, top (1, 4) of the rectangle with most evidence, of all on a grid."""
    device = maps.device
    across = torch.linspace(0.08, 1.45, _STEPS, device=device)
    up = torch.linspace(0.08, 0.8, _STEPS, device=device)
    left, right, bottom, top = -across, across, -up, up
    vertical = [_along(maps[1], frame, scale, side, bottom, top, upright=True) for side in (left, right)]
    level = [_along(maps[0], frame, scale, side, left, right, upright=False) for side in (bottom, top)]
    corner = [[_outwards(maps[2], frame, scale, x, y) for y in (bottom, top)] for x in (left, right)]
    total = (
        vertical[0][:, None]  # left, ·, bottom, top
        + vertical[1][None]
        + level[0].permute(1, 2, 0)[..., None]  # left, right, bottom, ·
        + level[1].permute(1, 2, 0)[:, :, None]
        + corner[0][0][:, None, :, None]
        + corner[0][1][:, None, None, :]
        + corner[1][0][None, :, :, None]
        + corner[1][1][None, :, None, :]
    )
    index = total.flatten().argmax()
    picks = torch.unravel_index(index, total.shape)
    return torch.stack([side[pick] for side, pick in zip((left, right, bottom, top), picks, strict=True)])[None]


def _along(
    evidence: Tensor, frame: Tensor, scale: float, places: Tensor, starts: Tensor, ends: Tensor, *, upright: bool
) -> Tensor:
    """Evidence (place, start, end) on lines at ``places`` between ``starts`` and ``ends``."""
    share = (torch.arange(_SAMPLES, device=evidence.device) + 0.5) / _SAMPLES
    along = starts[:, None, None] + share * (ends[None, :, None] - starts[:, None, None])
    shape = (len(places), *along.shape)
    fixed = places[:, None, None, None].expand(shape)
    along = along[None].expand(shape)
    points = torch.stack([fixed, along] if upright else [along, fixed], -1)
    return _summed(evidence, _project(points, frame, scale))


def _outwards(evidence: Tensor, frame: Tensor, scale: float, x: Tensor, y: Tensor) -> Tensor:
    """Evidence (x, y) on the edges that lead from corners (x, y) towards the viewer."""
    reach = 1 + 3 * ((torch.arange(_SAMPLES, device=evidence.device) + 0.5) / _SAMPLES) ** 2
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)[:, :, None] * reach[:, None]
    return _summed(evidence, _project(points, frame, scale))


def _summed(evidence: Tensor, points: Tensor) -> Tensor:
    """Sum over the pieces of polylines (…, s, 2) of evidence times length; nothing counts outside the picture."""
    height, width = evidence.shape
    grid = points.reshape(1, -1, points.shape[-2], 2) * torch.tensor(
        [_SIZE / width, -_SIZE / height], device=evidence.device
    )
    values = grid_sample(evidence[None, None], grid, align_corners=False)[0, 0]
    length = (points[..., 1:, :] - points[..., :-1, :]).norm(dim=-1)
    length = torch.cat([length, length[..., -1:]], -1).reshape(values.shape)
    inside = (grid.abs() < 1).all(-1)[0]
    return (values * length * inside).sum(-1).view(points.shape[:-2])
