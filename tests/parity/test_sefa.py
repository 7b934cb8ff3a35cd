"""Directions in closed form agree with the reference implementation of SeFa on random weights."""

import numpy as np
import pytest
import torch
from records import Fixture
from sefa import CASES, FIXTURE, NUM

from higan.directions import sefa
from higan.generators.conversion import convert
from higan.generators.pretrained import wrap
from higan.layers import parse_layers
from higan.types import StyledGenerator


@pytest.mark.parametrize(("name", "layers"), [(name, layers) for name, case in CASES.items() for layers in case.layers])
def test_agrees_with_the_reference(name, layers):
    generator = wrap(convert(Fixture(CASES[name].weights).checkpoint()), name)
    assert isinstance(generator, StyledGenerator)
    with np.load(FIXTURE) as arrays:
        where, vectors, values = (torch.from_numpy(arrays[f"{name}/{layers}/{k}"]) for k in
                                  ("layers", "vectors", "values"))  # fmt: skip
    assert tuple(where.tolist()) == (tuple(range(generator.num_layers)) if layers == "all" else parse_layers(layers))
    found = sefa(generator, tuple(where.tolist()), NUM)
    torch.testing.assert_close(torch.tensor([c.value for c in found]), values, rtol=1e-4, atol=1e-4)
    for candidate, vector in zip(found, vectors, strict=True):
        # Eigenvectors have no sign of their own.
        assert abs(float(candidate.normal @ vector)) == pytest.approx(1, abs=1e-4)
    gaps = -values.diff() / values[:-1]
    assert gaps.min() > 1e-3, "eigenvalues so close together would leave the directions undetermined"
