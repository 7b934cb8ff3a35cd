"""A generator that tells its truth: soft drawings of a room whose factors are known functions of the layers' codes.

Every layer reads its code through a matrix that is known, every factor is a known function of what was read, and the
picture is a differentiable drawing of the factors. So the layers that own a factor, its direction, and what an edit
really changed are exact, while a method sees no more than it does of any other generator: codes, pictures, scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from higan.generators.checks import check_codes, check_latents
from higan.types import Level

__all__ = ["FACTORS", "Arrangement", "TransparentGenerator", "TrueFactor", "draw"]

Arrangement = Literal["paper", "shuffled"]


@dataclass(frozen=True, slots=True)
class TrueFactor:
    """One thing in the picture.

    ``owners`` are its layers in the paper's arrangement, ``gain`` says how sharply it switches (low: a dial, high: a
    switch), ``spread`` is the standard deviation of codes along its direction, ``channels`` in how many of a layer's
    style channels it is written, and ``bend`` how much of it curves as entanglement grows.
    """

    name: str
    level: Level
    owners: tuple[int, ...]
    gain: float
    spread: float
    channels: int
    bend: float


FACTORS: tuple[TrueFactor, ...] = (
    TrueFactor("view_yaw", "layout", (0,), 0.6, 1.45, 8, 0.2),
    TrueFactor("horizon", "layout", (1,), 0.9, 1.10, 6, 0.6),
    TrueFactor("room_width", "layout", (0, 1), 0.7, 1.30, 5, 0.4),
    TrueFactor("bed", "object", (2, 3), 1.6, 1.40, 7, 0.3),
    TrueFactor("sofa", "object", (2,), 2.4, 1.15, 6, 0.5),
    TrueFactor("table", "object", (3,), 1.2, 0.95, 4, 0.8),
    TrueFactor("plant", "object", (2, 3), 2.0, 0.80, 3, 0.4),
    TrueFactor("window", "object", (3,), 1.0, 1.20, 2, 0.2),
    TrueFactor("lighting", "attribute", (4, 5), 0.5, 1.25, 8, 0.1),
    TrueFactor("wood", "attribute", (5, 6), 1.4, 0.90, 5, 0.6),
    TrueFactor("clutter", "attribute", (6, 7), 1.0, 0.75, 2, 0.9),
    TrueFactor("wall_warmth", "colour", (8,), 0.6, 1.35, 7, 0.2),
    TrueFactor("floor_lightness", "colour", (8, 9), 0.8, 1.05, 4, 0.4),
    TrueFactor("accent_hue", "colour", (9,), 0.7, 0.85, 3, 0.7),
)
"""The F factors, coarse to fine; all take values between -1 and 1."""

_LAYERS = 10
_WIDTH = 48
_SPECTATOR = 0.5
_MIX = 2
_LEAKS = 3
_BEND_FREQUENCY = 2.0


class TransparentGenerator:
    """Ten layers, codes of width 48, pictures of a room; every factor f is, with c_l the code of layer l::

        read      r_f = Σ_l a_fl ψ_l ⟨d_f, c_l⟩ / σ_f          a_f: layer weights, sum 1; d_f: unit direction
        bent      u_f = √(1-ν_f²) r_f + ν_f √2 cos(2 Σ_l a_fl ψ_l ⟨k_f, c_l⟩)
        value     v_f = tanh(g_f u_f)                          what the picture shows, between -1 and 1

    σ_f is the standard deviation of ⟨d_f, c⟩ over samples, so that r_f has unit variance where nothing is truncated.

    With ``entanglement`` e = 0 the d_f are orthonormal, a_f is spread evenly over the factor's own layers, ν_f = 0, and
    codes are Gaussian with independent components along the d_f. As e grows, four things go wrong at once, all of them
    known: every d_f takes on e times two other factors' directions (``mixing``); a share e/2 of a_f leaks into three
    other layers; codes vary along axes turned away from the d_f (``turn``: exp(e S), S skew-symmetric), so that factors
    are correlated; and a part ν_f = e · bend_f of every factor follows its code along a curve that no direction raises.

    Args:
        entanglement: e, from 0 to 1.
        arrangement: ``paper`` puts layout first and colours last; ``shuffled`` permutes the layers.
        resolution: H = W, in pixels.
        psi: truncation of all layers, about the mean code 0.
        seed: chooses directions, mixing, leaks, turn and permutation.
        device: where codes and images live.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        entanglement: float = 0.0,
        *,
        arrangement: Arrangement = "paper",
        resolution: int = 32,
        psi: float = 1.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= entanglement <= 1:
            raise ValueError(f"entanglement must lie between 0 and 1; got {entanglement}")
        if arrangement not in get_args(Arrangement):
            raise ValueError(f"arrangement must be one of {', '.join(get_args(Arrangement))}; got {arrangement!r}")
        if resolution < 16:
            raise ValueError(f"a room needs at least 16 pixels; got {resolution}")
        if not math.isfinite(psi):
            raise ValueError(f"psi must be finite; got {psi}")
        self.name = "transparent"
        self.entanglement = entanglement
        self.arrangement = arrangement
        self.num_layers = _LAYERS
        self.code_dim = self.latent_dim = _WIDTH
        self.resolution = resolution
        self.shared_code = True
        self.seed = seed
        self.device = torch.device(device)
        self.factors = FACTORS
        self.truncation: Tensor = torch.full((_LAYERS,), float(psi), device=self.device)
        F, dice = len(FACTORS), torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(_WIDTH, _WIDTH, generator=dice, dtype=torch.float64)).Q.T
        mixing = torch.eye(F, dtype=torch.float64) + entanglement * _sparse(F, dice)
        directions = torch.nn.functional.normalize(mixing @ basis[:F], dim=1)
        spread = torch.full((_WIDTH,), _SPECTATOR, dtype=torch.float64)
        spread[:F] = torch.tensor([f.spread for f in FACTORS], dtype=torch.float64)
        skew = torch.randn(_WIDTH, _WIDTH, generator=dice, dtype=torch.float64) / math.sqrt(2 * _WIDTH)
        turn = torch.linalg.matrix_exp(entanglement * (skew - skew.T))
        mapping = spread[:, None] * (basis @ turn)
        weights = _layer_weights(entanglement, dice)
        if arrangement == "shuffled":
            weights = weights[:, torch.randperm(_LAYERS, generator=dice)]
        self.mixing: Tensor = mixing.float().to(self.device)
        """What every factor's direction takes of every factor's own, before it is scaled to unit length, (F, F)."""
        self.directions: Tensor = directions.float().to(self.device)
        """d, the true directions, (F, D): unit rows."""
        self.layer_weights: Tensor = weights.float().to(self.device)
        """a, which layers own which factor, (F, L): rows sum to one, zeros are exact."""
        self.covariance: Tensor = (mapping.T @ mapping).float().to(self.device)
        """Of the codes, (D, D); their mean is zero."""
        self._mapping = mapping.float().to(self.device)
        self._curves = basis[F : 2 * F].float().to(self.device)
        self._scale = (directions @ mapping.T).norm(dim=1).float().to(self.device)
        self._gain = torch.tensor([f.gain for f in FACTORS], device=self.device)
        self._bend = entanglement * torch.tensor([f.bend for f in FACTORS], device=self.device)

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """Standard normal, one generator per seed."""
        rows = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(rows).to(self.device) if rows else torch.empty(0, self.latent_dim, device=self.device)

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n L D"]:
        """The latent, stretched and turned; every layer has the same row.

        Raises:
            ValueError: the latents have another shape or are not finite.
        """
        check_latents(z, self.latent_dim)
        # Rows times a matrix one by one: a code must not depend on the others in its batch.
        code = (z[:, :, None] * self._mapping).sum(1)
        return code[:, None].repeat(1, self.num_layers, 1)

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1], differentiable with respect to the codes.

        Raises:
            ValueError: the codes have another shape or are not finite.
        """
        return draw(self.values(codes), self.resolution)

    def style_weights(self, layer: int) -> Float[Tensor, "o D"]:
        """The matrix that reads the code of a layer: every factor's direction once per channel, then its curve.

        Rows are scaled by how much of the factor this layer holds; r_f is the sum over layers of ψ_l times the mean of
        its channels, over σ_f.

        Raises:
            ValueError: there is no such layer.
        """
        if not 0 <= layer < self.num_layers:
            raise ValueError(f"layer must lie in 0 … {self.num_layers - 1}; got {layer}")
        counts = torch.tensor([f.channels for f in FACTORS], device=self.device)
        straight = self.layer_weights[:, layer, None] * self.directions
        bent = (self._bend > 0) * self.layer_weights[:, layer]
        return torch.cat([straight.repeat_interleave(counts, 0), bent[:, None] * self._curves])

    # --- the truth ----------------------------------------------------------------------------------------------------

    def values(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n F"]:
        """v, the exact value of every factor, between -1 and 1; differentiable.

        Raises:
            ValueError: the codes have another shape or are not finite.
        """
        check_codes(codes, [self.code_dim] * self.num_layers)
        straight, curve = self._read(codes)
        bend = self._bend.to(codes)
        level = (1 - bend.square()).sqrt() * straight + bend * math.sqrt(2) * torch.cos(_BEND_FREQUENCY * curve)
        return torch.tanh(self._gain.to(codes) * level)

    def jacobian(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n F L D"]:
        """Derivative of every factor with respect to every layer's code, in closed form.

        Raises:
            ValueError: the codes have another shape or are not finite.
        """
        slope = self._gain.to(codes) * (1 - self.values(codes).square())
        _, curve = self._read(codes)
        bend = self._bend.to(codes)
        along = ((1 - bend.square()).sqrt() / self._scale.to(codes))[:, None] * self.directions.to(codes)
        swing = -bend * math.sqrt(2) * _BEND_FREQUENCY * torch.sin(_BEND_FREQUENCY * curve)
        per_code = along + swing[:, :, None] * self._curves.to(codes)
        held = self.layer_weights.to(codes) * self.truncation.to(codes)
        return slope[:, :, None, None] * held[None, :, :, None] * per_code[:, :, None]

    def _read(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """r and the argument of the curve, each (n, F)."""
        held = (self.layer_weights * self.truncation).to(codes)
        mean = (held[None, :, :, None] * codes[:, None]).sum(2)
        straight = (mean * self.directions.to(codes)).sum(-1) / self._scale.to(codes)
        return straight, (mean * self._curves.to(codes)).sum(-1)


def _sparse(F: int, dice: torch.Generator) -> Float[Tensor, "F F"]:
    """Every row has two entries of ±1/√2 off the diagonal."""
    result = torch.zeros(F, F, dtype=torch.float64)
    for f in range(F):
        others = torch.randperm(F - 1, generator=dice)[:_MIX]
        signs = 2.0 * torch.randint(2, (_MIX,), generator=dice).double() - 1
        result[f, others + (others >= f)] = signs / math.sqrt(_MIX)
    return result


def _layer_weights(entanglement: float, dice: torch.Generator) -> Float[Tensor, "F L"]:
    rows = torch.zeros(len(FACTORS), _LAYERS, dtype=torch.float64)
    for f, factor in enumerate(FACTORS):
        own = list(factor.owners)
        others = torch.tensor([layer for layer in range(_LAYERS) if layer not in own])
        leaks = others[torch.randperm(len(others), generator=dice)[:_LEAKS]]
        shares = 0.25 + torch.rand(_LEAKS, generator=dice, dtype=torch.float64)
        rows[f, own] = (1 - entanglement / 2) / len(own)
        rows[f, leaks] = entanglement / 2 * shares / shares.sum()
    return rows


# --- the drawing ------------------------------------------------------------------------------------------------------


def draw(values: Float[Tensor, "n F"], resolution: int = 32) -> Float[Tensor, "n 3 H W"]:
    """A room from the values of its factors, all between -1 and 1; edges are a pixel or two wide and have gradients.

    Every shape is a product of a profile over x and one over y, so that drawing costs little more than blending.
    """
    v = {factor.name: values[:, f, None] for f, factor in enumerate(FACTORS)}
    easel = _Easel(values, resolution)
    room = _room(easel, v)
    canvas = _furnish(easel, v, room)
    lamp = easel.blob(easel.x, room["centre"], 0.55)[:, None, None] * easel.blob(easel.y, -0.75, 0.6)[:, None, :, None]
    light = 0.42 + 0.17 * (1 + v["lighting"])
    shine = 0.05 + 0.10 * (1 + v["lighting"])
    lit = canvas * (light[:, :, None, None] + shine[:, :, None, None] * lamp)
    return (2.4 * lit - 1).clamp(-1, 1)


class _Easel:
    """Coordinates from -1 to 1, y downwards, and soft profiles along one axis, each (n, resolution)."""

    def __init__(self, like: Tensor, resolution: int) -> None:
        ticks = (torch.arange(resolution, device=like.device, dtype=like.dtype) + 0.5) * (2 / resolution) - 1
        self.x = self.y = ticks[None]
        self.sharpness = 1.1 * resolution

    def above(self, at: Tensor, edge: Tensor | float) -> Tensor:
        """One beyond the edge, zero before it."""
        return torch.sigmoid(self.sharpness * (at - edge))

    def box(self, at: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        """One between two edges."""
        return self.above(at, low) * (1 - self.above(at, high))

    def blob(self, at: Tensor, centre: Tensor | float, size: float) -> Tensor:
        """A bell."""
        return torch.exp(-((at - centre) / size).square())


def _colour(values: Tensor, *channels: Tensor | float) -> Float[Tensor, "n 3 1 1"]:
    rows = [c if isinstance(c, Tensor) else torch.full_like(values[:, :1], c) for c in channels]
    return torch.cat(rows, 1)[:, :, None, None]


def _blend(canvas: Tensor, colour: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The canvas under a colour, as opaque as the product of the two profiles."""
    cover = across[:, None, None] * down[:, None, :, None]
    return canvas + cover * (colour - canvas)


def _room(easel: _Easel, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Walls, floor and ceiling as a canvas, and the lines that furniture is placed by."""
    centre, half = 0.38 * v["view_yaw"], 0.52 + 0.16 * v["room_width"]
    floor, ceiling = 0.14 - 0.16 * v["horizon"], -0.62 - 0.16 * v["horizon"]
    warm, light = v["wall_warmth"], v["floor_lightness"]
    wall = _colour(warm, 0.60 + 0.20 * warm, 0.56 + 0.02 * warm, 0.60 - 0.20 * warm)
    inside = easel.box(easel.x, centre - half, centre + half)[:, None, None]
    # Beyond the back wall, the lines between wall, floor and ceiling run off to the corners of the picture.
    beyond = torch.relu((easel.x - centre).abs() - half) * 0.8
    is_floor = easel.above(easel.y[:, :, None], (floor + beyond)[:, None])[:, None]
    is_ceiling = 1 - easel.above(easel.y[:, :, None], (ceiling - beyond)[:, None])[:, None]
    canvas = wall * (0.80 + 0.20 * inside)
    planks = 0.5 + 0.5 * torch.sin((easel.x - centre) * 22.0)
    grain = 0.5 * (1 + v["wood"])
    tone = 0.46 + 0.24 * light
    floor_colour = _colour(light, 1.06 * tone, 0.98 * tone, 0.88 * tone)
    striped = floor_colour * (1 - 0.45 * (grain * planks)[:, None, None])
    canvas = canvas + is_floor * (striped - canvas)
    canvas = canvas + is_ceiling * (_colour(light, 0.80, 0.80, 0.80) - canvas)
    return {"canvas": canvas, "centre": centre, "half": half, "floor": floor, "ceiling": ceiling}


def _furnish(easel: _Easel, v: Mapping[str, Tensor], room: Mapping[str, Tensor]) -> Tensor:
    canvas, centre, half, floor = room["canvas"], room["centre"], room["half"], room["floor"]
    there = {name: 0.5 * (1 + v[name]) for name in ("window", "bed", "sofa", "table", "plant", "clutter")}
    hue = v["accent_hue"]
    accent = _colour(hue, 0.52 - 0.22 * hue, 0.46 + 0.24 * hue, 0.52 - 0.22 * hue)
    x, y = easel.x, easel.y

    def put(canvas: Tensor, colour: Tensor, across: Tensor, down: Tensor, opacity: Tensor | float = 1.0) -> Tensor:
        return _blend(canvas, colour, across * opacity, down)

    pane = centre - 0.3 * half
    canvas = put(
        canvas, _colour(hue, 0.80, 0.90, 0.98), easel.box(x, pane - 0.20, pane + 0.20),
        easel.box(y, floor - 0.58, floor - 0.24), there["window"],
    )  # fmt: skip
    canvas = put(canvas, accent, easel.blob(x, centre, 0.62), easel.blob(y, floor + 0.62, 0.16), 0.9)
    left, right = centre - 0.62, centre + 0.62
    canvas = put(
        canvas, _colour(hue, 0.80, 0.78, 0.74), easel.box(x, left - 0.36, left + 0.26),
        easel.box(y, floor + 0.02, floor + 0.40), there["bed"],
    )  # fmt: skip
    canvas = put(
        canvas, accent, easel.box(x, left - 0.36, left + 0.26), easel.box(y, floor + 0.18, floor + 0.40), there["bed"]
    )
    canvas = put(
        canvas, accent * 0.62, easel.box(x, right - 0.30, right + 0.30),
        easel.box(y, floor - 0.10, floor + 0.30), there["sofa"],
    )  # fmt: skip
    dark = _colour(hue, 0.26, 0.17, 0.11)
    top = floor + 0.30
    canvas = put(
        canvas, dark, easel.box(x, centre - 0.26, centre + 0.26), easel.box(y, top, top + 0.10), there["table"]
    )
    for leg in (-0.20, 0.20):
        canvas = put(
            canvas, dark, easel.box(x, centre + leg - 0.04, centre + leg + 0.04),
            easel.box(y, top, top + 0.32), there["table"],
        )  # fmt: skip
    stem = centre + 0.86 * half
    canvas = put(
        canvas, _colour(hue, 0.12, 0.34, 0.13), easel.blob(x, stem, 0.11), easel.blob(y, floor - 0.26, 0.22),
        there["plant"],
    )  # fmt: skip
    for k, (dx, dy) in enumerate(((-0.5, 0.66), (0.34, 0.58), (-0.12, 0.80), (0.62, 0.72), (0.06, -0.30))):
        shade = _colour(hue, *((0.92, 0.84, 0.30), (0.10, 0.12, 0.30))[k % 2])
        canvas = put(canvas, shade, easel.blob(x, centre + dx, 0.07), easel.blob(y, floor + dy, 0.07), there["clutter"])
    return canvas
