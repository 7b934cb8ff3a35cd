"""Weights by rule, and networks out of what a fixture tells of them.

A fixture names every tensor with its shape; `fill` makes the same values from that in the fixture's maker and in the
tests, so that no weight has to be stored.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch

from higan.checkpoints.types import Checkpoint, Network

DATA = Path(__file__).parent / "data"


def fill(shapes, seed, scales=()):
    """Tensors for {name: shape}, in the order of their names: standard normal; those of variances positive.

    ``scales`` are pairs of a pattern and a factor for the names that contain it; the last that fits counts.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in sorted(shapes):
        value = torch.randn(tuple(shapes[name]), generator=generator)
        if re.search(r"(^|[._])(var|vars|stored_var|running_var|running_vars|magnitude_ema)$", name):
            value = 0.5 + value.abs()
        factor = 1.0
        for pattern, scale in scales:
            factor = scale if re.search(pattern, name) else factor
        tensors[name] = value * factor
    return tensors


def skeleton(network):
    """A network without its tensors, as JSON could hold it."""
    return {
        "name": network.name,
        "class_name": network.class_name,
        "config": dict(network.config),
        "components": {key: skeleton(part) for key, part in network.components.items()},
    }


def revive(bones, tensors):
    """The network of a skeleton with these tensors."""
    components = {key: revive(part, {}) for key, part in bones["components"].items()}
    return Network(bones["name"], bones["class_name"], bones["config"], tensors, components)


class Fixture:
    """Numbers of one case: meta data, inputs, outputs of the reference."""

    def __init__(self, name):
        with np.load(DATA / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "meta"}
            self.meta = json.loads(str(arrays["meta"]))

    def __getitem__(self, key):
        return self.arrays[key]

    def tensors(self):
        """The weights the reference was run with, under the names of its file."""
        filled = fill(self.meta["shapes"], self.meta["seed"], self.meta["scales"])
        return filled | {key.removeprefix("stored/"): t for key, t in self.arrays.items() if key.startswith("stored/")}

    def checkpoint(self):
        """What the reader makes of the reference's file."""
        network = revive(self.meta["network"], self.tensors())
        return Checkpoint(Path("fixture"), self.meta["format"], {network.name: network}, {}, "", 0)


def names():
    """All fixtures."""
    return sorted(path.stem for path in DATA.glob("*.npz"))
