"""Devices by name, and what they compute in."""

import re
from pathlib import Path

import pytest
import torch

from higan.devices import activation_dtype, open_device

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="device"):
        open_device(name)


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux says here what the processor can do")
def test_a_processor_trains_in_bfloat16_if_the_system_says_that_it_multiplies_in_it():
    fast = re.search(r"\b(avx512_bf16|amx_bf16|amx_tile)\b", CPUINFO.read_text())
    assert activation_dtype("cpu") == (torch.bfloat16 if fast else torch.float32)
