"""How fast images are synthesised, side by side with the official tool and the other reference implementations.

    python benchmarks/synthesis.py --references DIR [--family NAME …] [--resolution 256] [--batch 4] [--threads 1]

DIR holds checkouts of the reference repositories under the names that tests/parity/README.md lists; weights are random,
of the published widths (StyleGAN3: an eighth of them, its reference being very slow on a CPU). Ours and theirs run by
turns on the same codes, and the processor's time counts, so that whatever else the machine does meets both; the ratio
is that of the medians (above 1: ours is faster). For StyleGAN, StyleGAN2 and PGGAN the reference is the official tool's
own network, batches of four, without gradients.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))

from make_fixtures import module, repository

from higan.generators import load_generator


def saved(state):
    """A generator out of a state dict in its own format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        return load_generator(path)


def randomise(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_()
    return network.eval().requires_grad_(False)


def official(file, kind, resolution):
    def build(root):
        network = randomise(getattr(module(root / "higan-official/models" / file), kind)(resolution=resolution))
        state = {k: v for k, v in network.state_dict().items() if k != "truncation.truncation"}
        synthesis = getattr(network, "synthesis", None)
        return saved(state), synthesis or (lambda codes: network(codes[:, 0]))

    return build


def nvidia(folder, where, resolution, **kwargs):
    def build(root):
        with repository(root / folder):
            network = importlib.import_module(where).Generator(512, 0, 512, resolution, 3, **kwargs)
            network = randomise(network)
            file = io.BytesIO()
            import pickle

            pickle.dump({"G_ema": network}, file)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "network.pkl"
            path.write_bytes(file.getvalue())
            ours = load_generator(path)
        return ours, lambda codes: network.synthesis(codes, noise_mode="const", force_fp32=True)

    return build


def biggan(root):
    with repository(root / "BigGAN-PyTorch"):
        network = importlib.import_module("BigGAN").Generator(
            G_ch=64, dim_z=120, resolution=128, shared_dim=128, hier=True, no_optim=True, G_attn="64", skip_init=True
        )
    network = randomise(network)
    ours = saved(network.state_dict()).with_label(0)
    chunk, width = network.z_chunk_size, network.shared_dim

    def theirs(codes):
        z = torch.cat([row[:, :chunk] for row in codes.unbind(1)], 1)
        return network(z, codes[:, 1, chunk : chunk + width])

    return ours, theirs


def families(resolution):
    return {
        "stylegan": official("stylegan_generator_network.py", "StyleGANGeneratorNet", resolution),
        "stylegan2": official("stylegan2_generator_network.py", "StyleGAN2GeneratorNet", resolution),
        "stylegan2-ada": nvidia("stylegan2-ada-pytorch", "training.networks", resolution),
        "stylegan3-t": nvidia(
            "stylegan3", "training.networks_stylegan3", resolution, channel_max=64, channel_base=8192
        ),
        "pggan": official("pggan_generator_network.py", "PGGANGeneratorNet", resolution),
        "biggan (128 px)": biggan,
    }


def seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


@torch.inference_mode()
def compare(build, root, batch, rounds):
    with contextlib.redirect_stdout(io.StringIO()):
        ours, theirs = build(root)
    codes = ours.map(ours.latents(range(batch)))
    truncated = ours.truncate(codes)
    expected = picture(theirs(truncated))
    found = torch.cat([ours.network.synthesize(row[None], noise=ours.noise == "stored") for row in truncated])
    difference = float((found - expected).abs().max() / expected.std())
    times = [(seconds(theirs, truncated), seconds(ours.synthesize, codes)) for _ in range(rounds)]
    reference, own = (statistics.median(column) for column in zip(*times, strict=True))
    return reference, own, difference


def picture(found):
    """What the official tool's networks hand over among other things."""
    return found["image"] if isinstance(found, dict) else found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--family", nargs="*")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), batch {options.batch}, {options.resolution} px, {options.rounds} rounds")
    print("seconds per batch; largest difference between pictures, in their standard deviations")
    print(f"{'family':18}{'reference':>12}{'ours':>10}{'ratio':>8}{'difference':>14}")
    for name, build in families(options.resolution).items():
        if options.family and not any(name.startswith(wanted) for wanted in options.family):
            continue
        reference, own, difference = compare(build, options.references, options.batch, options.rounds)
        print(f"{name:18}{reference:12.2f}{own:10.2f}{reference / own:8.2f}{difference:14.1e}", flush=True)


if __name__ == "__main__":
    main()
