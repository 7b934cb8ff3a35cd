"""What is told of a name that does not exist."""

import pytest
import torch

from higan.boundaries import fit
from higan.spelling import instead
from higan.types import Concept, Population


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("woood", "wood, metal, glass; did you mean wood?"),
        ("Glas", "wood, metal, glass; did you mean glass?"),
        ("marble", "wood, metal, glass"),
    ],
)
def test_few_names_are_all_told(name, told):
    assert instead(name, ("wood", "metal", "glass")) == told


def test_of_hundreds_of_names_the_first_and_the_similar_ones_are_told():
    names = [*(f"place {k}" for k in range(466)), "natural_light"]
    concepts = tuple(Concept(name, "object") for name in names)
    scored = Population(torch.arange(1), torch.zeros(1, 1, 2), torch.zeros(1, 467), concepts, 1)
    with pytest.raises(
        ValueError, match="unknown concept 'natural_ligth'; this population was scored for: place 0,"
    ) as no:
        scored.index("natural_ligth")
    assert str(no.value).endswith("place 29 and 437 more; did you mean natural_light?")
    with pytest.raises(ValueError, match=r"437 more; did you mean natural_light\?$"):
        fit(scored, ["natural_ligth"])
