"""The outline of a room: the corners of its back wall, and the edges that run from them towards the viewer.

Coordinates of the picture: x to the right, y up, ±1 at its edges (of the shorter side, where it is not square).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CORNERS", "axes", "depth_edges", "vanishing_point"]

CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")
"""Corners of the back wall in the order of its outline."""


def axes(yaw: Float[Tensor, "*n"], pitch: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3 3"]:
    """The room's axes as the camera sees them: rows are width, height and depth, columns right, up and ahead.

    Args:
        yaw: of the camera, in radians, positive looks to the right.
        pitch: of the camera, in radians, positive looks up.
    """
    sin, cos, sp, cp = torch.sin(yaw), torch.cos(yaw), torch.sin(pitch), torch.cos(pitch)
    rows = [
        torch.stack([cos, -sin * sp, sin * cp], -1),
        torch.stack([torch.zeros_like(sin), cp.expand_as(sin), sp.expand_as(sin)], -1),
        torch.stack([-sin, -cos * sp, cos * cp], -1),
    ]
    return torch.stack(rows, -2)


def vanishing_point(
    yaw: Float[Tensor, "*n"], pitch: Float[Tensor, "*n"], field_of_view: float
) -> Float[Tensor, "*n 2"]:
    """Where lines along the room's depth meet in the picture; ``field_of_view`` in radians, over its width."""
    depth = axes(yaw, pitch)[..., 2, :]
    return depth[..., :2] / depth[..., 2:] / torch.tan(torch.tensor(field_of_view / 2))


def depth_edges(
    corners: Float[Tensor, "n 4 2"], vanishing: Float[Tensor, "n 2"], *, height: int = 1, width: int = 1
) -> Float[Tensor, "n 4 2 2"]:
    """Edges between walls, ceiling and floor: from every corner, away from the vanishing point, to the border.

    The second end of an edge whose corner lies outside the picture is the corner itself. Of ``height`` and ``width``
    their ratio counts.
    """
    away = corners - vanishing[:, None]
    # Steps after which x or y reach the border; the nearer one counts.
    border = torch.where(away >= 0, 1.0, -1.0) * (away.new_tensor([width, height]) / min(height, width))
    steps = (border - corners) / torch.where(away.abs() < 1e-6, torch.full_like(away, 1e-6), away)
    reach = torch.where(away.abs() < 1e-6, torch.inf, steps).amin(-1, keepdim=True).clamp(min=0, max=1e4)
    return torch.stack([corners, corners + reach * away], 2)
