"""Small files that ask for huge networks, by name. Run as a script, opens them all and says what became of each."""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from higan.checkpoints import native
from higan.errors import CheckpointError
from higan.generators.biggan import BigGANConfig, BigGANNetwork
from higan.generators.loading import inspect_file, load_generator
from higan.generators.rooms import RoomsConfig
from higan.scorers.rooms import RoomsScorer
from higan.segmenters.rooms import RoomsSegmenter
from higan.weights import write_weights

Case = tuple[str, Callable[[Path], None], Callable[[Path], object]]
"""Name, what writes the file, what opens it."""


def rooms_generator(**settings: int) -> Callable[[Path], None]:
    config = asdict(RoomsConfig(resolution=8, code_dim=8, channels=(1, 1))) | settings
    header = {"format": "higan-rooms-generator-1", "psi": [1.0] * 4, "metadata": {}, "config": config}
    tensors = {name: torch.zeros(8) for name in ("mean_code", "a", "b", "c", "d")}
    return lambda path: write_weights(path, tensors, header)


def without_numbers(prefix: str, shape: tuple[int, ...], **header: object) -> Callable[[Path], None]:
    """Wide layers that fill no byte of the file."""
    tensors = {f"{prefix}.{k}.0{'.0' * (prefix == 'down')}.weight": torch.zeros(shape) for k in range(3)}
    tensors["project.weight"] = torch.zeros(4, 0)
    return lambda path: write_weights(path, tensors, {"metadata": {}, **header})


def stylegan_sharing(depth: int, width: int) -> Callable[[Path], None]:
    """A state dict of genforce whose mapping layers are all one tensor."""
    weight, bias, channels = torch.randn(width, width), torch.zeros(width), 8
    state = {f"mapping.dense{i}.weight": weight for i in range(depth)}
    state |= {f"mapping.dense{i}.bias": bias for i in range(depth)}
    state |= {"truncation.w_avg": bias, "synthesis.layer0.const": torch.randn(1, channels, 4, 4)}
    for layer in range(4):
        name = f"synthesis.layer{layer}"
        if layer:
            state[f"{name}.weight"] = torch.randn(channels, channels, 3, 3)
        state[f"{name}.bias"] = torch.zeros(channels)
        state[f"{name}.apply_noise.weight"] = torch.zeros(channels)
        state[f"{name}.apply_noise.noise"] = torch.zeros(1, 1, 4 << layer // 2, 4 << layer // 2)
        state[f"{name}.style.weight"] = torch.zeros(2 * channels, width)
        state[f"{name}.style.bias"] = torch.zeros(2 * channels)
    for level in range(2):
        state[f"synthesis.output{level}.weight"] = torch.randn(3, channels, 1, 1)
        state[f"synthesis.output{level}.bias"] = torch.zeros(3)
    return lambda path: torch.save(state, path)


def biggan_of_attention(count: int) -> Callable[[Path], None]:
    one = torch.zeros(1)
    state = {f"generator.layers.{i}.gamma": one for i in range(count)}
    state |= {"generator.gen_z.weight": one, "generator.bn.running_means": one}
    return lambda path: torch.save(state, path)


def biggan_shifting(path: Path) -> None:
    """Doubles the resolution as often as two numbers in the header say, the sum of which is zero."""
    config = BigGANConfig(16, (1, 1, 1), (True, True), latent_dim=1, num_classes=1, label_dim=1, deep=False)
    shifts = asdict(config) | {"resolution": 4, "up": [10**11, -(10**11)]}
    native.write(path, "biggan", shifts, BigGANNetwork(config).state_dict())


def header_alone(text: str) -> Callable[[Path], None]:
    content = json.dumps({"__metadata__": {"higan": text}}).encode()
    content += b" " * (-len(content) % 8)
    return lambda path: path.write_bytes(struct.pack("<Q", len(content)) + content)


def corpus() -> Iterator[Case]:
    """Every file."""
    wide = {"latent_dim": 60_000, "mapping_dim": 6_000, "mapping_layers": 2}
    yield "generator wider than its file", rooms_generator(**wide), load_generator
    yield "generator deeper than its file", rooms_generator(mapping_layers=10**6), load_generator
    scorer = {"format": "higan-rooms-scorer-1", "outputs": [{"name": "a", "level": "layout", "kind": "scale"}]}
    yield "scorer of empty weights", without_numbers("trunk", (6000, 0, 3, 3), **scorer), RoomsScorer.load
    yield "scorer without convolutions", without_numbers("trunk", (6000, 0), **scorer), RoomsScorer.load
    segmenter = {"format": "higan-rooms-segmenter-1", "classes": [["a", "thing", [0, 0, 0]]]}
    yield "segmenter of empty weights", without_numbers("down", (6000, 0, 3, 3), **segmenter), RoomsSegmenter.load
    yield "one tensor for 50 layers", stylegan_sharing(50, 1024), load_generator
    yield "one tensor for 20,000 layers", stylegan_sharing(20_000, 1), load_generator
    yield "20,000 attention layers", biggan_of_attention(20_000), load_generator
    yield "shifts by huge numbers", biggan_shifting, inspect_file
    listed = {"resolution": 4, "channels": [1], "mapping": [1] * 50_000}
    listing = json.dumps({"family": "stylegan2", "config": listed})
    yield "configuration longer than its file", header_alone(listing), load_generator
    yield "header in a list", header_alone('["x"]'), RoomsScorer.load
    yield "deep header", header_alone("[" * 100_000 + "]" * 100_000), RoomsScorer.load


def main() -> None:
    """For every file a line: error, whether it was told in time, and MB of memory taken at its peak."""
    folder = Path(sys.argv[1])
    load_generator("rooms")  # imports and first uses
    for name, write, read in corpus():
        path = folder / f"{name}.safetensors"
        write(path)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            read(path)
            told = "none"
        except CheckpointError as error:
            told = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        print(json.dumps([name, told, seconds, taken]), flush=True)


if __name__ == "__main__":
    main()
