"""Weights and pictures by rule, the same in the fixture's maker, the tests and the benchmark."""

import re
from pathlib import Path

import torch
from records import fill

import higan.scorers
from higan.scorers.places import PlacesNetwork

LISTS = Path(higan.scorers.__file__).parent / "names"
FIXTURE = Path(__file__).parents[1] / "data" / "places" / "wideresnet18.npz"


def by_rule(shapes, seed):
    """Tensors for {name: shape}; convolutions scaled by their fan-in, so that nothing grows with depth."""
    scales = [
        (f"^{re.escape(name)}$", (2 / shape[1:].numel()) ** 0.5) for name, shape in shapes.items() if len(shape) > 1
    ]
    return fill(shapes, seed, [*scales, (r"bn\d\.weight|downsample\.1\.weight", 0.5)])


def shapes_of(network):
    return {k: v.shape for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}


TENSORS = by_rule(shapes_of(PlacesNetwork("wideresnet18")), 7)
MATRIX = torch.randn(102, 512, generator=torch.Generator().manual_seed(8))
IMAGES = (
    torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    .repeat_interleave(8, 2)
    .repeat_interleave(8, 3)
)
