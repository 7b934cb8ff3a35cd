"""What the reference implementation of SeFa is asked, the same in the fixture's maker and in the test."""

from dataclasses import dataclass
from pathlib import Path

FIXTURE = Path(__file__).parents[1] / "data" / "sefa" / "directions.npz"
NUM = 4


@dataclass(frozen=True)
class Case:
    """``weights`` names the fixture whose weights are factorised; ``reference`` builds the network they go into."""

    weights: str
    reference: dict
    layers: tuple[str, ...]


_SMALL = {"resolution": 32, "fmaps_max": 16}
_STYLED = {**_SMALL, "z_space_dim": 20, "w_space_dim": 20}
_RANGES = ("all", "0-1", "2,5-7")
CASES = {
    "stylegan": Case(
        "stylegan_genforce_32_conditional", {"gan_type": "stylegan", "fmaps_base": 128, **_STYLED}, _RANGES
    ),
    "stylegan2": Case(
        "stylegan2_genforce_32_conditional", {"gan_type": "stylegan2", "fmaps_base": 256, **_STYLED}, _RANGES
    ),
    "pggan": Case(
        "pggan_genforce_32_fused_lod",
        {"gan_type": "pggan", "fmaps_base": 128, "z_space_dim": 16, **_SMALL},
        ("all",),
    ),
}
