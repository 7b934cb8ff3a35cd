"""What a segmenter sees, and how surely, with answers known by hand and against the bootstrap."""

import numpy as np
import pytest
import torch

from higan.rooms.objects import Sightings, clarities, sightings_of, together
from higan.segmenters.rooms import RoomsSegmenter, RoomsSegmenterNetwork
from higan.types import SegmentClass

CLASSES = (
    SegmentClass("wall", "stuff", (0, 0, 0)),
    SegmentClass("chair", "thing", (1, 1, 1)),
    SegmentClass("lamp", "thing", (2, 2, 2)),
)


class Red(RoomsSegmenter):
    """Its probability of a chair is how red a pixel is, of a wall all the rest."""

    def __init__(self):
        super().__init__(RoomsSegmenterNetwork(3, (2, 2, 2, 2)), CLASSES)

    def probabilities(self, images):
        red = images[:, 0].float() / 255
        return torch.stack([1 - red, red, 0 * red], 1)


def test_areas_and_probabilities_by_hand():
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    images[7, 0, :2] = 255  # A quarter of the picture is a chair for certain,
    images[7, 0, 2:4] = 51  # and a quarter a wall with four fifths.
    images[39, 0, 0, 0] = 204
    found = sightings_of(Red(), images)
    assert found.area.shape == found.sureness.shape == (40, 3)
    assert found.area[7].tolist() == pytest.approx([0.75, 0.25, 0])
    assert found.sureness[7].tolist() == pytest.approx([0.5 + 0.25 * 0.8, 0.25, 0])
    assert found.area[39].tolist() == pytest.approx([63 / 64, 1 / 64, 0])
    assert found.sureness[39].tolist() == pytest.approx([63 / 64, 0.8 / 64, 0])
    assert found.area[0].tolist() == [1, 0, 0]

    everywhere = Sightings(torch.full((4, 3), 0.5), torch.tensor([[0.1, 0.3, 0.5]] * 4))
    clear = clarities(CLASSES, found, everywhere)
    assert list(clear) == ["chair", "lamp"]
    chair = clear["chair"]
    assert (chair.share.generated, chair.share.rendered) == (2 / 40, 1)
    assert chair.generated == pytest.approx((0.25 + 0.8 / 64) / (0.25 + 1 / 64))
    assert chair.rendered == pytest.approx(0.6)
    assert np.isnan(clear["lamp"].generated)
    assert np.isnan(clear["lamp"].error)
    assert clear["lamp"].rendered == 1


def test_what_covers_less_than_a_256th_is_not_there():
    area = torch.tensor([[0.0, 1 / 256, 0.9 / 256]]).expand(5, -1)
    clear = clarities(CLASSES, Sightings(area, area), Sightings(area, area))
    assert (clear["chair"].share.generated, clear["lamp"].share.generated) == (1, 0)
    assert clear["lamp"].generated == 1


def test_errors_are_those_of_the_bootstrap_over_pictures():
    random = torch.Generator().manual_seed(1)
    sides = []
    for n, sure in ((900, 0.7), (1400, 0.9)):
        area = torch.rand(n, 3, generator=random).square()
        sides.append(Sightings(area, area * (sure - 0.5 * area * torch.rand(n, 3, generator=random))))
    found = clarities(CLASSES, *sides)["chair"]

    draws = np.random.default_rng(2)
    differences = []
    for _ in range(2000):
        means = []
        for side in sides:
            rows = draws.integers(len(side.area), size=len(side.area))
            means.append(float(side.sureness[rows, 1].sum() / side.area[rows, 1].sum()))
        differences.append(means[1] - means[0])
    assert found.rendered - found.generated == pytest.approx(np.mean(differences), abs=5e-4)
    assert found.error == pytest.approx(np.std(differences), rel=0.06)


def test_parts_are_put_together_in_order():
    parts = [Sightings(torch.full((k, 3), float(k)), torch.full((k, 3), -float(k))) for k in (1, 2)]
    whole = together(parts)
    assert whole.area[:, 0].tolist() == [1, 2, 2]
    assert whole.sureness[:, 0].tolist() == [-1, -2, -2]


def test_probabilities_of_the_embedded_segmenter_go_with_its_answers(segmenter):
    images = torch.randint(256, (3, 3, 48, 80), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    probabilities = segmenter.probabilities(images)
    assert probabilities.shape == (3, len(segmenter.classes), 48, 80)
    assert torch.equal(probabilities.argmax(1).to(torch.uint8), segmenter.segment(images))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, 48, 80))


@pytest.fixture(scope="module")
def segmenter():
    from higan.segmenters.loading import WEIGHTS

    return RoomsSegmenter.load(WEIGHTS / "rooms.safetensors")
