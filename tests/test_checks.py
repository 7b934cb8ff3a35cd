"""Shapes are checked in every test, in its first calls."""

import pytest
import torch
from jaxtyping import TypeCheckError

from checks import FIRST, again
from higan.population import to_uint8

FITS, TOO_FLAT = torch.zeros(1, 3, 4, 4), torch.zeros(3, 4)


@pytest.mark.parametrize("name", ["one test", "and the next"])
def test_what_does_not_fit_is_refused_until_a_function_has_been_called_often(name):
    for _ in range(2):
        for _ in range(FIRST):
            to_uint8(FITS)
        with pytest.raises(TypeCheckError):
            to_uint8(TOO_FLAT)
        to_uint8(FITS)
        to_uint8(TOO_FLAT)
        again()
