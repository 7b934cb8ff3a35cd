"""Colour schemes against colours known by name, and against plain loops."""

import colorsys
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import higan
from higan.conformance import check_scorer
from higan.scorers.colour import ColourScorer, srgb_to_lab
from higan.scorers.scheme import HUES, MEASURES, ColourSchemeScorer, dominant_hue, palette, scheme
from higan.types import SegmentClass

NAMED = {
    "red": (220, 20, 20),
    "yellow": (250, 230, 20),
    "green": (30, 160, 40),
    "cyan": (0, 190, 200),
    "blue": (40, 90, 230),
    "purple": (160, 30, 180),
}


def flat(*colours, side=8):
    """One picture per colour."""
    images = torch.tensor(colours, dtype=torch.uint8)
    return images[:, :, None, None].expand(-1, -1, side, side).clone()


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def column(values, measure):
    return values[..., MEASURES.index(measure)]


@pytest.mark.parametrize("name", NAMED)
def test_named_colours_are_called_by_their_names(name):
    values = scheme(flat(NAMED[name]))[0, 0]
    found = {hue: float(column(values, hue)) for hue in HUES}
    assert max(found, key=found.get) == name
    away = abs(float(dominant_hue(flat(NAMED[name]))[0, 0]) - HUES[name])
    assert min(away, 360 - away) < 30


def test_white_grey_and_black_have_lightness_alone():
    values = scheme(flat((255, 255, 255), (119, 119, 119), (0, 0, 0)))[:, 0]
    # 119 is the byte of the mid-grey L* = 50.
    torch.testing.assert_close(column(values, "lightness"), torch.tensor([100.0, 50.0, 0.0]), atol=0.2, rtol=0)
    rest = [k for k, m in enumerate(MEASURES) if m != "lightness"]
    assert values[:, rest].abs().max() < 0.1
    assert (dominant_hue(flat((119, 119, 119))) == 0).all()


def test_contrast_is_the_spread_of_lightness():
    half = flat((0, 0, 0))
    half[..., :4] = 255
    assert float(column(scheme(half), "contrast")) == pytest.approx(50.0, abs=0.01)


def test_large_pictures_and_small_regions_lose_nothing_to_rounding():
    """A bright window in a wall of half a million pixels, against the same in double precision."""
    images = torch.full((1, 3, 768, 768), 203, dtype=torch.uint8)
    images[:, :, 300:400, 300:400] = 250
    images[:, :, ::97] = 180
    weights = torch.full((1, 2, 768, 768), 1e-4)
    weights[:, 0, 280:420, 280:420] = 1
    weights[:, 1] = 0
    weights[:, 1, 310:320, 310:320] = 1e-4
    found = scheme(images, weights)
    lightness = srgb_to_lab(images)[0, 0].double()
    for region in range(2):
        w = weights[0, region].double() / weights[0, region].double().sum()
        mean = float((w * lightness).sum())
        contrast = float((w * (lightness - mean).square()).sum().sqrt())
        assert float(found[0, region, MEASURES.index("lightness")]) == pytest.approx(mean, abs=1e-2)
        assert float(found[0, region, MEASURES.index("contrast")]) == pytest.approx(contrast, abs=1e-2)
    assert float(scheme(images[:, :, 310:320, 310:320])[0, 0, MEASURES.index("contrast")]) < 1e-4


def test_orange_is_warm_and_blue_is_cold():
    values = column(scheme(flat((240, 150, 40), (128, 128, 128), (60, 120, 240)))[:, 0], "warmth")
    assert values[0] > 50 > abs(values[1])
    assert values[2] < -40


def test_agrees_with_the_plain_colour_scorer():
    images = noise(3, 3, 12, 10)
    values, other = scheme(images)[:, 0], ColourScorer().score(images)
    torch.testing.assert_close(column(values, "saturation"), other[:, 2])
    torch.testing.assert_close(column(values, "lightness"), other[:, 3])
    red, yellow = other[:, 1], other[:, 0]
    warm = red * math.cos(math.radians(60)) + yellow * math.sin(math.radians(60))
    torch.testing.assert_close(column(values, "warmth"), warm, atol=1e-3, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_regions_equal_pictures_cut_out(num, regions, seed):
    images = noise(num, 3, 6, 8, seed=seed)
    masks = noise(num, 6, 8, seed=seed + 1) % regions
    masks[:, 0, :regions] = torch.arange(regions, dtype=torch.uint8)  # every region is there
    weights = torch.stack([(masks == k).float() for k in range(regions)], 1)
    found = scheme(images, weights)
    for n in range(num):
        for k in range(regions):
            pixels = images[n][:, masks[n] == k][None, :, None]
            torch.testing.assert_close(found[n, k], scheme(pixels)[0, 0], atol=2e-2, rtol=1e-3)
            one = dominant_hue(images[n : n + 1], weights[n : n + 1, k : k + 1])
            assert torch.equal(one[0, 0], dominant_hue(pixels)[0, 0]) or pixels.shape[-1] < 3


def test_weights_are_checked():
    images = noise(2, 3, 4, 4)
    for weights in (-torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)):
        with pytest.raises(ValueError, match="weights must be 0 or more"):
            scheme(images, weights)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 9))
def test_dominant_hue_follows_the_hue_of_the_picture(hue, seed):
    """A picture of one hue among grey noise: the hue found is that of the one colour."""
    colour = [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.8, 0.9)]
    images = noise(1, 1, 16, 16, seed=seed).expand(1, 3, 16, 16).clone()
    images[:, :, :6] = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None]
    _, a, b = srgb_to_lab(flat(colour))[0, :, 0, 0].tolist()
    away = abs(float(dominant_hue(images)[0, 0]) - math.degrees(math.atan2(b, a)) % 360)
    assert min(away, 360 - away) <= 5


def test_a_hue_does_not_depend_on_the_unit_of_the_weights():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, 0, :1, :3] = 255
    weights = torch.zeros(1, 1, 8, 8)
    weights[..., :1, :3] = 1
    expected = dominant_hue(image, weights)
    assert float(expected) > 30
    assert torch.equal(dominant_hue(image, 1e-6 * weights), expected)


def test_palette_finds_the_colours_and_their_shares():
    image = flat((250, 10, 10), side=10)
    image[..., :3] = torch.tensor((20, 40, 240), dtype=torch.uint8)[:, None, None]
    image[..., :1] = 255
    found = palette(image, 4)
    assert found.colours[0, :3].tolist() == [[250, 10, 10], [20, 40, 240], [255, 255, 255]]
    torch.testing.assert_close(found.shares[0], torch.tensor([0.7, 0.2, 0.1, 0.0]))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(0, 99))
def test_palettes_cover_the_picture_whatever_the_order_of_pixels(num, seed):
    images = noise(2, 3, 9, 9, seed=seed)
    found = palette(images, num)
    torch.testing.assert_close(found.shares.sum(1), torch.ones(2))
    assert (found.shares.diff(dim=1) <= 0).all()
    order = torch.randperm(81, generator=torch.Generator().manual_seed(seed))
    shuffled = palette(images.flatten(2)[..., order].view_as(images), num)
    assert torch.equal(shuffled.colours, found.colours)
    assert torch.equal(palette(images[1:], num).colours[0], found.colours[1])


def test_more_colours_leave_less_unexplained():
    images = noise(1, 3, 32, 32)
    pixels = srgb_to_lab(images).flatten(2)[0].T
    left = []
    for num in (1, 3, 9):
        colours = srgb_to_lab(palette(images, num).colours[0].T[None, :, :, None])[0, :, :, 0].T
        left.append(float(torch.cdist(pixels, colours).amin(1).square().mean()))
    assert left[0] > 1.3 * left[1] > 1.3 * left[2]
    with pytest.raises(ValueError, match="at least 1 colour"):
        palette(images, 0)


class Halves:
    """The left half is wall, the rest floor; nothing is sky."""

    name = "halves"
    classes = tuple(SegmentClass(n, "stuff", (0, 0, k)) for k, n in enumerate(("wall", "floor", "sky")))

    def segment(self, images):
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8)
        mask[..., images.shape[3] // 2 :] = 1
        return mask


def test_the_colour_of_the_wall():
    image = flat(NAMED["blue"])
    image[..., 4:] = torch.tensor(NAMED["red"], dtype=torch.uint8)[:, None, None]
    scorer = higan.load_scorer("scheme", segmenter=Halves(), classes=["wall", "sky"])
    assert {c.level for c in scorer.concepts} == {"colour"}
    scores = dict(zip((c.name for c in scorer.concepts), scorer.score(image)[0].tolist(), strict=True))
    assert scores["wall blue"] == pytest.approx(float(column(scheme(flat(NAMED["blue"])), "blue")), rel=1e-3)
    assert scores["wall red"] < 0.1
    # What is not there gets the figures of the whole picture.
    assert scores["sky lightness"] == pytest.approx(float(column(scheme(image), "lightness")), rel=1e-4)


def test_keeps_the_contract():
    assert not [f for f in check_scorer(ColourSchemeScorer(Halves(), ["wall"])) if not f.ok]
    with pytest.raises(ValueError, match="regions need a segmenter"):
        ColourSchemeScorer(classes=["wall"])
    with pytest.raises(ValueError, match="does not tell 'lamp' apart"):
        ColourSchemeScorer(Halves(), ["lamp"])
