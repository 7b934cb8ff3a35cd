"""One small generator of every kind that the package can open, with weights by rule."""

import math

import torch
from torch import nn

from higan.generators.biggan import BigGANConfig, BigGANNetwork
from higan.generators.module import ModuleGenerator, from_module
from higan.generators.pggan import PGGANConfig, PGGANNetwork
from higan.generators.pretrained import wrap
from higan.generators.rooms import RoomsConfig, RoomsGenerator, build_network
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.generators.stylegan3 import StyleGAN3Config, StyleGAN3Network
from higan.generators.toy import ToyGenerator
from higan.generators.transparent import TransparentGenerator

NARROW = {"latent_dim": 6, "mapping": (8, 8)}


def filled(network, seed=0):
    """The network with weights of He's size, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.state_dict().items():
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
        value = torch.randn(tensor.shape, generator=generator) * (math.sqrt(2 / fan_in) if tensor.ndim > 1 else 0.3)
        positive = name.endswith(("var", "input_gain"))
        state[name] = 0.5 + value.abs() if positive else value
        if name.endswith(("constant", "noise", "transform")):
            state[name] = torch.randn(tensor.shape, generator=generator)
        if name.endswith("_filter"):
            window = torch.ones(()) * 2 if name.endswith("up_filter") else torch.ones(())
            for taps in tensor.shape:
                hann = torch.hann_window(taps, periodic=False) + 0.1
                window = window[..., None] * hann / hann.sum()
            state[name] = window
        if name.startswith("rgb") or ".rgb." in name:
            state[name] *= 0.1
    network.load_state_dict(state)
    return network


def biggan(**settings):
    return BigGANConfig(resolution=16, widths=(16, 8, 8), up=(True, True), latent_dim=6, num_classes=3, **settings)


FAMILIES = {
    "pggan": lambda: filled(PGGANNetwork(PGGANConfig(16, (8, 8, 4), latent_dim=6))),
    "pggan conditional": lambda: filled(PGGANNetwork(PGGANConfig(16, (8, 8, 4), latent_dim=6, num_classes=3))),
    "stylegan": lambda: filled(StyleGANNetwork(StyleGANConfig(32, (8, 8, 4, 4), **NARROW))),
    "stylegan conditional": lambda: filled(
        StyleGANNetwork(StyleGANConfig(16, (8, 8, 4), num_classes=3, label_dim=6, **NARROW))
    ),
    "stylegan unfinished": lambda: filled(StyleGANNetwork(StyleGANConfig(32, (8, 8, 4, 4), lod=1.5, **NARROW))),
    "stylegan2 skip": lambda: filled(StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), clamp=4.0, **NARROW))),
    "stylegan2 resnet": lambda: filled(
        StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), architecture="resnet", **NARROW))
    ),
    "stylegan2 plain, grey": lambda: filled(
        StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), architecture="orig", image_channels=1, **NARROW))
    ),
    "stylegan3 t": lambda: filled(StyleGAN3Network(StyleGAN3Config(16, (6, 6, 6, 6, 6, 3), margin=4, **NARROW))),
    "stylegan3 r": lambda: filled(
        StyleGAN3Network(StyleGAN3Config(16, (6, 6, 6, 6, 6, 3), margin=4, kernel=1, radial=True, **NARROW))
    ),
    "biggan deep": lambda: filled(BigGANNetwork(biggan(label_dim=4, attention=(1,), statistics=5, truncation=0.6))),
    "biggan chunked": lambda: filled(BigGANNetwork(biggan(label_dim=4, deep=False, conditioning="chunked"))),
}
"""Networks of every family; ``conditional`` ones and BigGANs need labels."""


def family(name):
    generator = wrap(FAMILIES[name](), name)
    return generator.with_label(1) if generator.num_classes else generator


def declared():
    weight = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(0))

    def synthesize(codes):
        rows = torch.einsum("nld,pld->np", codes, weight[:, :, : codes.shape[2]]) / 8
        return torch.tanh(rows).reshape(-1, 3, 2, 2)

    def codes(z):
        wide = torch.stack([z, z.roll(1, 1), z.square()], 1)
        return wide * torch.tensor([[1.0] * 5, [1.0] * 4 + [0.0], [1.0] * 2 + [0.0] * 3])

    return ModuleGenerator(
        synthesize, latent_dim=5, layer_widths=(5, 4, 2), resolution=2, map=codes, mean_code=torch.zeros(5),
        truncation=[0.5, 1.0, 1.0], name="declared",
    )  # fmt: skip


def hooked():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 8 * 16), nn.Unflatten(1, (8, 4, 4)), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip
    return from_module(network, 5, name="hooked")


def rooms(architecture="adain"):
    config = RoomsConfig(16, latent_dim=6, code_dim=8, mapping_layers=2, channels=(8, 8, 4), architecture=architecture)
    return RoomsGenerator(build_network(config, seed=1), torch.zeros(8))


ADAPTERS = {
    **{name: lambda name=name: family(name) for name in FAMILIES},
    "module, layers declared": declared,
    "module, layers by hooks": hooked,
    "toy": ToyGenerator,
    "transparent": TransparentGenerator,
    "transparent, entangled": lambda: TransparentGenerator(0.7, arrangement="shuffled", resolution=16, psi=0.7),
    "rooms": rooms,
    "rooms skip": lambda: rooms("skip"),
}
