"""The layout of a room by a network trained on rendered rooms whose wall corners are known."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.scorers.outline import CORNERS, depth_edges, vanishing_point
from higan.scorers.rooms import RoomsScorer
from higan.types import Concept

__all__ = ["LayoutScorer"]

_VIEW = ("view_yaw", "camera_side", "room_width", "room_depth")
_SHAPE = ("back_wall_width", "back_wall_height", "floor_line", "ceiling_line")
_FIELD_OF_VIEW = 1.2  # radians: the middle of what the network was trained on
_PITCH = -0.13


class LayoutScorer:
    """Concepts of level ``layout``, and the outline itself.

    - ``view_yaw`` in radians, positive looks to the right; ``camera_side`` in room widths, positive stands on the
      right; ``room_width`` and ``room_depth`` in metres;
    - ``back_wall_width`` and ``back_wall_height`` as shares of the picture, 1 fills it; ``floor_line`` and
      ``ceiling_line``: height in the picture at which the back wall meets floor and ceiling, −1 … 1 upwards.

    Args:
        network: the embedded scorer; its outputs must include the view and the corners of the back wall.
        name: what people type.

    Raises:
        ValueError: it lacks one of them.
    """

    def __init__(self, network: RoomsScorer, *, name: str = "layout") -> None:
        columns = {output.name: k for k, output in enumerate(network.outputs)}
        corners = [f"corner_{corner}_{axis}" for corner in CORNERS for axis in "xy"]
        missing = [output for output in (*_VIEW, *corners) if output not in columns]
        if missing:
            raise ValueError(
                f"the scorer {network.name!r} does not predict {', '.join(missing)}; use the one that comes with the "
                "package, or train it with `higan rooms train-scorers`"
            )
        self.name = name
        self.concepts = tuple(Concept(concept, "layout") for concept in (*_VIEW, *_SHAPE))
        self._network = network
        self._view = [columns[output] for output in _VIEW]
        self._corners = [columns[output] for output in corners]

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """View and shape of the back wall."""
        predicted = self._network.predict(images)
        left_top, right_top, right_bottom, left_bottom = predicted[:, self._corners].unflatten(1, (4, 2)).unbind(1)
        top, bottom = (left_top + right_top) / 2, (left_bottom + right_bottom) / 2
        width = ((right_top - left_top) + (right_bottom - left_bottom))[:, 0] / 4
        shape = [width, (top - bottom)[:, 1] / 2, bottom[:, 1], top[:, 1]]
        return torch.cat([predicted[:, self._view], torch.stack(shape, 1)], 1)

    def outline(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 4 2"]:
        """Corners of the back wall, in the order of `higan.scorers.outline.CORNERS`; maybe outside the picture."""
        return self._network.predict(images)[:, self._corners].unflatten(1, (4, 2))

    def edges(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 4 2 2"]:
        """The edges from those corners towards the viewer, both ends of each.

        Their direction follows from the yaw, and from the average field of view and pitch of the training rooms.
        """
        predicted = self._network.predict(images)
        yaw = predicted[:, self._view[0]]
        vanishing = vanishing_point(yaw, torch.full_like(yaw, _PITCH), _FIELD_OF_VIEW)
        return depth_edges(predicted[:, self._corners].unflatten(1, (4, 2)), vanishing)
