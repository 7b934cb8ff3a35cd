"""Devices by name, and what they compute in."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

import higan
import hub_folders
from higan.conformance import check_scorer
from higan.devices import activation_dtype, open_device
from higan.segmenters.toy import ToySegmenter

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99", "meta", "hip", "lazy", "mtia"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="device"):
        open_device(name)


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux says here what the processor can do")
def test_a_processor_trains_in_bfloat16_if_the_system_says_that_it_multiplies_in_it():
    fast = re.search(r"\b(avx512_bf16|amx_bf16|amx_tile)\b", CPUINFO.read_text())
    assert activation_dtype("cpu") == (torch.bfloat16 if fast else torch.float32)


class OnMps(torch.Tensor):
    """A tensor on Apple's processors, as far as they refuse anything: there is no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs)
        if func is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if any(isinstance(t, OnMps) and t.dtype == torch.float64 for t in tree_leaves(found)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return found


def test_what_plays_apple_s_processors_refuses_float64():
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8).as_subclass(OnMps)
    with pytest.raises(TypeError, match="float64"):
        images.double()
    with pytest.raises(TypeError, match="float64"):
        torch.mul(images, torch.ones(2, dtype=torch.float64))
    assert type(images.cpu().double()) is torch.Tensor


@pytest.mark.parametrize("name", ["nulls", "toy", "rooms", "scheme", "lines", "colour", "layout", "classifier"])
def test_scorers_do_without_float64(name, tmp_path):
    scorer = higan.load_scorer(hub_folders.classifier(tmp_path / "model") if name == "classifier" else name)
    side = 8 if name == "toy" else 64
    images = torch.randint(256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = scorer.score(images.as_subclass(OnMps)).as_subclass(torch.Tensor)
    assert torch.equal(found, scorer.score(images))


def test_segmenters_do_without_float64():
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = ToySegmenter().segment(images.as_subclass(OnMps)).as_subclass(torch.Tensor)
    assert torch.equal(found, ToySegmenter().segment(images))


def test_scorers_are_checked_without_float64():
    class There:
        name = "there"
        concepts = higan.load_scorer("colour").concepts

        def score(self, images):
            return higan.load_scorer("colour").score(images).as_subclass(OnMps)

    assert not [finding for finding in check_scorer(There()) if not finding.ok]


def test_null_scores_are_the_same_numbers_as_ever():
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
    found = higan.load_scorer("nulls").score(images)
    expected = [
        [
            0.303345263004303,
            -0.4398755133152008,
            0.4442402422428131,
            -0.8801164627075195,
            0.5185865759849548,
            1.4010637998580933,
        ],
        [
            1.4269474744796753,
            -1.4221912622451782,
            0.2737342119216919,
            0.8865354061126709,
            -1.1046346426010132,
            -1.5831849575042725,
        ],
    ]
    assert torch.equal(found, torch.tensor(expected))
