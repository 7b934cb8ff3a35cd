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
from higan.generators.stylegan3 import StyleGAN3Config, StyleGAN3Network
from higan.scorers.rooms import RoomsScorer
from higan.segmenters.rooms import RoomsSegmenter
from higan.weights import write_weights

Case = tuple[str, Callable[[Path], None], Callable[[Path], object]]
"""Name, what writes the file, what opens it."""

NOISELESS = "4096 pixels without noise maps"
"""The one file that is opened: no map may be made up for it."""


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


def biggan(**settings: object) -> Callable[[Path], None]:
    config = BigGANConfig(16, (1, 1, 1), (True, True), latent_dim=1, num_classes=1, label_dim=1, deep=False)
    return lambda path: native.write(path, "biggan", asdict(config) | settings, BigGANNetwork(config).state_dict())


def stylegan3(**settings: object) -> Callable[[Path], None]:
    config = StyleGAN3Config(16, (1,) * 6, 1, (1,))
    return lambda path: native.write(
        path, "stylegan3", asdict(config) | settings, StyleGAN3Network(config).state_dict()
    )


def biggan_of_classes(count: int) -> Callable[[Path], None]:
    """Norms with an embedding each, whose classes would be rows of as many numbers."""
    state = {"linear.weight": torch.ones(16, 1), "linear.bias": torch.zeros(16)}
    state |= {"blocks.0.0.bn1.gain.weight": torch.zeros(count, 1), "blocks.0.0.conv1.weight": torch.zeros(1, 1, 3, 3)}
    return lambda path: torch.save(state, path)


def rosinality(levels: int, latent_dim: int = 1, **others: torch.Tensor) -> Callable[[Path], None]:
    """A StyleGAN2 of one channel without noise maps, which leaves them to the network."""
    one = torch.ones(1)
    styled = {"conv.modulation.weight": torch.ones(1, 1), "conv.modulation.bias": one}
    layer = styled | {"conv.weight": torch.ones(1, 1, 1, 3, 3), "noise.weight": one, "activate.bias": one}
    rgb = styled | {"conv.weight": torch.ones(1, 3, 1, 1, 1), "bias": torch.ones(1, 3, 1, 1)}
    state = {"style.1.weight": torch.ones(1, latent_dim), "style.1.bias": one, "input.input": torch.ones(1, 1, 4, 4)}
    names = {"conv1": layer, **{f"convs.{k}": layer for k in range(2 * (levels - 1))}}
    names |= {"to_rgb1": rgb, **{f"to_rgbs.{k}": rgb for k in range(levels - 1)}}
    state |= {f"{name}.{leaf}": tensor.clone() for name, part in names.items() for leaf, tensor in part.items()}
    return lambda path: torch.save({"g_ema": state, **others}, path)


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
    yield "20,000 classes", biggan_of_classes(20_000), load_generator
    yield "latents wider than the file", rosinality(1, 50_000), load_generator
    yield NOISELESS, rosinality(11, latent_avg=torch.zeros(1)), inspect_file
    # The sum of how often the resolution doubles is zero.
    yield "shifts by huge numbers", biggan(resolution=4, up=[10**11, -(10**11)]), inspect_file
    yield "widths in a dict", biggan(widths={"a": 1, "b": 1, "c": 1}), inspect_file
    yield "no number of classes", stylegan3(num_classes=None), inspect_file
    yield "truncation beyond the prior's", biggan(truncation=2), load_generator
    yield "channels in a dict", stylegan3(channels={"a": 1}), inspect_file
    yield "cutoff of zero", stylegan3(first_cutoff=0), inspect_file
    yield "clamp beyond all numbers", stylegan3(clamp=1e300), load_generator
    listed = {"resolution": 4, "channels": [1], "mapping": [1] * 50_000}
    listing = json.dumps({"family": "stylegan2", "config": listed})
    yield "configuration longer than its file", header_alone(listing), load_generator
    yield "endless number", header_alone('{"format":' + "9" * 5000 + "}"), RoomsScorer.load
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
