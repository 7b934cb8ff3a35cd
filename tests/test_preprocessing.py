"""Scaling gives Pillow's bytes; the steps of a predictor are read from its file and match transformers' own."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from higan.errors import CorruptFileError, UnknownFormatError
from higan.preprocessing import Preprocessing, resize

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def pillow(images, height, width, name):
    scaled = [
        np.asarray(Image.fromarray(i.permute(1, 2, 0).numpy()).resize((width, height), FILTERS[name])) for i in images
    ]
    return torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2)


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(1, 90),
    target=st.integers(1, 90),
    name=st.sampled_from(sorted(FILTERS)),
    seed=st.integers(0, 99),
)
def test_square_pictures_come_out_as_from_pillow(side, target, name, seed):
    images = noise(2, 3, side, side, seed=seed)
    assert torch.equal(resize(images, target, target, name), pillow(images, target, target, name))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("side", [64, 128, 256, 512])
def test_the_sizes_of_generators_come_out_as_from_pillow(side, name):
    images = noise(1, 3, side, side)
    assert torch.equal(resize(images, 224, 224, name), pillow(images, 224, 224, name))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(41, 90), st.sampled_from(sorted(FILTERS)))
def test_wide_pictures_come_out_as_from_pillow(height, width, name):
    images = noise(1, 3, height, width)
    assert torch.equal(resize(images, 41, 40, name), pillow(images, 41, 40, name))


def test_rows_do_not_know_of_each_other():
    images = noise(5, 3, 40, 30)
    assert torch.equal(resize(images, 24, 28)[3:4], resize(images[3:4], 24, 28))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="1 × 1"):
        resize(noise(1, 3, 4, 4), 0, 3)
    with pytest.raises(ValueError, match="3 numbers"):
        Preprocessing(mean=(0.0,), std=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="above 0"):
        Preprocessing(std=(1.0, 0.0, 1.0))


def test_normalises_after_scaling():
    steps = Preprocessing(size=(5, 7), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    images = noise(2, 3, 9, 14)
    expected = pillow(images, 5, 7, "bilinear").float() / 255
    expected = (expected - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 0.2])[:, None, None]
    torch.testing.assert_close(steps(images), expected, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 61), (61, 40), (20, 28)])
def test_shorter_side_then_middle(height, width):
    steps = Preprocessing(size=20, crop=(16, 18), mean=(0.0,) * 3, std=(1.0,) * 3)
    long = int(20 * max(height, width) / min(height, width))
    size = (20, long) if height <= width else (long, 20)
    images = noise(1, 3, height, width)
    scaled = resize(images, *size)
    top, left = (size[0] - 16) // 2, (size[1] - 18) // 2
    expected = scaled[:, :, top : top + 16, left : left + 18].float() / 255
    torch.testing.assert_close(steps(images), expected)


def test_small_pictures_are_padded():
    steps = Preprocessing(size=None, crop=(6, 6), scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = steps(torch.full((1, 3, 2, 4), 9, dtype=torch.uint8))
    assert out.shape == (1, 3, 6, 6)
    assert out.sum() == 3 * 2 * 4 * 9
    assert out[0, 0, 2, 1] == 9


CONFIGS = {
    "old CLIP": (
        {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3},
        {"size": 224, "crop": (224, 224), "filter": "bicubic"},
    ),
    "new CLIP": (
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 200, "width": 210}, "do_center_crop": True},
        {"size": 224, "crop": (200, 210)},
    ),
    "old square": ({"size": 512, "do_center_crop": False}, {"size": (512, 512), "crop": None}),
    "pair": ({"size": [3, 4]}, {"size": (3, 4)}),
    "no scaling": ({"do_resize": False}, {"size": None}),
    "no rescaling": ({"do_rescale": False}, {"scale": 1.0}),
    "no normalisation": ({"do_normalize": False, "image_mean": [9, 9, 9]}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_form_of_the_file_is_understood(name):
    config, expected = CONFIGS[name]
    found = Preprocessing.from_config(config)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    "config", [{"size": {"depth": 3}}, {"size": "big"}, {"image_mean": [1]}, {"resample": 0}, {"image_std": [0, 1, 1]}]
)
def test_damaged_files_are_told(config):
    with pytest.raises(CorruptFileError, match=r"preprocessor_config\.json"):
        Preprocessing.from_config(config)


HALVES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
KINDS = {
    "clip CLIP": {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "resample": 3,
    },
    "convnext ConvNext": {"size": {"shortest_edge": 28}, "crop_pct": 0.875, "resample": 3},
    "convnext ConvNext of old files": {"size": 28, "crop_pct": 0.8, "resample": 2},
    "convnext ConvNext unsaid": {"size": {"shortest_edge": 28}},
    "convnext ConvNext unscaled": {"do_resize": False, "crop_pct": 0.875},
    "convnext ConvNext of 384": {"size": {"shortest_edge": 384}, "crop_pct": 1.0, "resample": 3},
    "poolformer PoolFormer": {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 28}},
    "poolformer PoolFormer of old files": {"size": 224, "crop_pct": 0.95, "do_resize_and_center_crop": True},
    "poolformer PoolFormer square": {"size": {"height": 30, "width": 30}, "crop_size": 30},
    "poolformer PoolFormer plain": {"size": {"height": 30, "width": 20}, "crop_pct": None, "crop_size": 20},
    "levit Levit": {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
    "levit Levit of old files": {"size": 224, "do_center_crop": True, "resample": 3},
    "levit Levit plain": {"size": {"height": 30, "width": 20}, "do_center_crop": False},
    "mobilevit MobileViT": {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 30}},
    "mobilevit MobileViT of old files": {"size": 288, "crop_size": 256, "do_flip_channel_order": True, "resample": 2},
    "mobilevit MobileViT unflipped": {"size": 30, "crop_size": 28, "do_flip_channel_order": False},
    "efficientnet EfficientNet": {"size": {"height": 30, "width": 20}, "include_top": False, "resample": 3},
}


def processor(kind):
    """The class of transformers, such as of ``clip CLIP``."""
    module, name = kind.split()[:2]
    found = pytest.importorskip(
        f"transformers.models.{module}.image_processing_pil_{module}",
        reason="transformers' Pillow processor is the oracle",
    )
    return getattr(found, f"{name}ImageProcessorPil")


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_transformers_own_steps(kind):
    said = KINDS[kind] | HALVES
    oracle = processor(kind)(**said)
    images = noise(3, 3, 48, 60)
    expected = oracle([i.permute(1, 2, 0).numpy() for i in images], return_tensors="pt")["pixel_values"]
    saved = json.loads(oracle.to_json_string())
    name = {"image_processor_type": f"{kind.split()[1]}ImageProcessor"}
    for config in (saved | name, said | name):
        torch.testing.assert_close(Preprocessing.from_config(config)(images), expected, atol=3e-6, rtol=0)


def test_a_share_tells_the_processor_of_files_that_do_not_name_theirs():
    config = {"crop_pct": 0.875, "size": 28, "resample": 3}
    assert Preprocessing.from_config(config) == Preprocessing(32, "bicubic", (28, 28))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"image_processor_type": "EfficientNetImageProcessor"}, "include_top"),
        ({"include_top": True}, "include_top"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"image_processor_type": "PerceiverImageProcessorFast"}, "Perceiver, which crops before"),
        ({"feature_extractor_type": "PerceiverFeatureExtractor"}, "Perceiver, which crops before"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2, which cuts pictures"),
        ({"crop_pct": 0.9, "do_center_crop": True}, "both crop_pct and do_center_crop"),
    ],
)
def test_steps_that_are_not_known_are_refused(config, said):
    with pytest.raises(UnknownFormatError, match=f"{said}.*callable of your own"):
        Preprocessing.from_config(config)
