"""Run the reference implementations with weights made by rule and keep the numbers.

    python tests/parity/make_fixtures.py --references DIR [--only PATTERN] [--dry-run]

DIR holds checkouts of the reference repositories under the names that README.md lists. Each case builds a reference
network, fills it, writes it in the reference's own file format, and runs it; then the file is opened with
`higan.load_generator` and the largest differences are printed. Nothing of the references is stored but numbers and
names of tensors.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import itertools
import json
import logging
import pickle
import re
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import torch.utils.cpp_extension

sys.path.insert(0, str(Path(__file__).parent))

from records import DATA, fill, skeleton

import higan.checkpoints.read
import higan.generators

CASES = {}
STEP = 2.0


def case(function):
    """Register a case; its name is the function's."""
    CASES[function.__name__] = function
    return function


def shapes_of(state, stored=()):
    return {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if tensor.is_floating_point() and not any(re.search(pattern, name) for pattern in stored)
    }


@contextlib.contextmanager
def repository(folder):
    """Import from one reference alone; several of them have modules of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
                del sys.modules[name]


def module(path):
    """A single file of a reference as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Case:
    """What one reference computed, and the file it would have written."""

    def __init__(self, shapes, seed, scales, stored, write, codes, synthesize, z, *, layer, psi=None, layers=None,
                 noise="stored", labels=None, truncation=None, source="", subtract_mean=None):  # fmt: skip
        """``codes(z, labels)`` are untruncated; ``synthesize(wp)`` takes truncated layer-wise codes."""
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})


def z_of(dim, n=2, seed=7):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# ---- StyleGAN -------------------------------------------------------------------------------------------------------

RGB = (
    (r"output\d+\.(conv\.)?weight$|(ToRGB(_lod\d+)?/|torgb\.|to_rgbs?1?\.(\d+\.)?conv\.)weight$", 0.12),
    (r"w_avg|dlatent_avg|latent_avg", 0.02),
)


def higan_stylegan(root, *, seed, psi=0.7, layers=8, layer=3, noise="stored", lod=0.0, **kwargs):
    network = module(root / "higan-official/models/stylegan_generator_network.py").StyleGANGeneratorNet(
        truncation_psi=psi, truncation_layers=layers, **kwargs
    )
    stored = (r"kernel$", r"lod$", r"truncation\.truncation$")
    state = network.eval().state_dict()
    shapes = shapes_of(state, stored)
    state.update(fill(shapes, seed, RGB))
    state["synthesis.lod"] = torch.tensor(lod)
    if noise == "none":
        quiet = {k: torch.zeros_like(v) if k.endswith("apply_noise.weight") else v for k, v in state.items()}
        network.load_state_dict(quiet)
    else:
        network.load_state_dict(state)
    saved = {k: v for k, v in state.items() if k != "truncation.truncation"}
    return Case(
        shapes, seed, RGB, {k: v for k, v in saved.items() if k not in shapes and "kernel" not in k},
        lambda path: torch.save(saved, path),
        lambda z, _: network.mapping(z)[:, None].expand(-1, network.num_layers, -1),
        network.synthesis, z_of(kwargs["z_space_dim"]), layer=layer, psi=psi, layers=layers, noise=noise,
        truncation=network.truncation.truncation.flatten(), subtract_mean=network.truncation.w_avg,
        source="genforce/higan models/stylegan_generator_network.py",
    )  # fmt: skip


@case
def stylegan_higan_32(root):
    return higan_stylegan(root, seed=1, resolution=32, z_space_dim=24, w_space_dim=24, fmaps_base=256, fmaps_max=24)


@case
def stylegan_higan_64_fused(root):
    return higan_stylegan(
        root, seed=2, resolution=64, z_space_dim=16, w_space_dim=16, fmaps_base=256, fmaps_max=16, fused_scale=True,
        psi=0.5, layers=3, layer=2,
    )  # fmt: skip


@case
def stylegan_higan_128_auto(root):
    return higan_stylegan(
        root, seed=3, resolution=128, z_space_dim=16, w_space_dim=16, fmaps_base=512, fmaps_max=16, layer=10
    )


@case
def stylegan_higan_32_no_noise(root):
    return higan_stylegan(
        root, seed=4, resolution=32, z_space_dim=16, w_space_dim=16, fmaps_base=128, fmaps_max=16, noise="none"
    )


@case
def stylegan_higan_32_lod_1(root):
    return higan_stylegan(
        root, seed=5, resolution=32, z_space_dim=16, w_space_dim=16, fmaps_base=128, fmaps_max=16, lod=1.0
    )


def genforce(root, which, gan, *, seed, psi, layers, layer=3, labels=None, state=None, **kwargs):
    with repository(root / "genforce"):
        network = importlib.import_module(f"models.{which}").__dict__[gan](**kwargs).eval()
    stored = (r"kernel$", r"lod$")
    full = network.state_dict()
    shapes = shapes_of(full, stored)
    full.update(fill(shapes, seed, RGB))
    full.update(state or {})
    network.load_state_dict(full)
    truncation = torch.ones(network.num_layers)
    truncation[:layers] = psi

    def codes(z, labels):
        hot = None if labels is None else torch.eye(kwargs["label_size"])[labels]
        return network.mapping(z, hot)["w"][:, None].expand(-1, network.num_layers, -1)

    return Case(
        shapes, seed, RGB, {k: v for k, v in full.items() if k not in shapes and "kernel" not in k},
        lambda path: torch.save({"generator_smooth": full, "generator": full}, path),
        codes, lambda wp: network.synthesis(wp)["image"], z_of(kwargs["z_space_dim"]),
        layer=layer, psi=psi, layers=layers, labels=labels, truncation=truncation,
        subtract_mean=network.truncation.w_avg, source=f"genforce/genforce models/{which}.py",
    )  # fmt: skip


@case
def stylegan_genforce_32_conditional(root):
    return genforce(
        root, "stylegan_generator", "StyleGANGenerator", seed=6, psi=0.7, layers=8, labels=[2, 0], resolution=32,
        z_space_dim=16, w_space_dim=20, mapping_fmaps=12, mapping_layers=5, label_size=3, fmaps_base=128, fmaps_max=16,
    )  # fmt: skip


@case
def stylegan_genforce_128_lod_quarter(root):
    return genforce(
        root, "stylegan_generator", "StyleGANGenerator", seed=7, psi=0.7, layers=8, resolution=128, z_space_dim=16,
        w_space_dim=16, mapping_fmaps=16, fmaps_base=256, fmaps_max=16, state={"synthesis.lod": torch.tensor(0.25)},
    )  # fmt: skip


# ---- TensorFlow files: the reference converters are run on stand-ins for what their pickles would load to ------------


class Stub(dict):
    """A dict with attributes."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class TFNetwork:
    """What a TensorFlow pickle holds of a network."""

    def __init__(self, name, variables, static_kwargs, components=None, version=4):
        self.state = {
            "version": version,
            "name": name,
            "static_kwargs": static_kwargs,
            "components": components or {},
            "build_module_src": "",
            "build_func_name": name,
            "variables": [(key, np.array(value)) for key, value in variables.items()],
        }

    def __getstate__(self):
        return self.state

    @property
    def components(self):
        return Stub(self.state["components"])

    @property
    def variables(self):
        return self.state["variables"]

    @property
    def static_kwargs(self):
        return self.state["static_kwargs"]

    @property
    def version(self):
        return self.state["version"]


def write_tf(path, network, old=False):
    """Pickle (G, D, Gs) under the class name that NVIDIA's code has."""
    holder = "tfutil" if old else "dnnlib.tflib.network"
    fakes = {}
    for name in (holder, holder.rpartition(".")[0], holder.split(".", maxsplit=1)[0]):
        if name:
            fakes[name] = types.ModuleType(name)
    kind = type("Network", (TFNetwork,), {"__module__": holder, "__reduce_ex__": object.__reduce_ex__})
    fakes[holder].Network = kind

    def turned(net):
        other = kind.__new__(kind)
        other.state = {**net.state, "components": {k: turned(v) for k, v in net.state["components"].items()}}
        return other

    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        with Path(path).open("wb") as file:
            pickle.dump((turned(network),) * 3, file, protocol=2)
    finally:
        for name, old_module in before.items():
            sys.modules.pop(name)
            if old_module is not None:
                sys.modules[name] = old_module


def higan_tf(root, kind, network, options, pool):
    """Let the official tool's own converter turn TensorFlow variables into its network's weights.

    TensorFlow itself is not needed for that: the converter only reads arrays.
    """
    fake = types.ModuleType("tensorflow")
    silent = types.SimpleNamespace(set_verbosity=lambda *_: None, ERROR=0)
    session = types.SimpleNamespace(close=lambda: None)
    fake.compat = types.SimpleNamespace(v1=types.SimpleNamespace(logging=silent, InteractiveSession=lambda: session))
    fake.test = types.SimpleNamespace(is_built_with_cuda=lambda: False)
    with tempfile.TemporaryDirectory() as folder, repository(root / "higan-official"):
        tf_path, pth_path = Path(folder) / "tf.pkl", Path(folder) / "model.pth"
        tf_path.write_bytes(b"")
        settings = importlib.import_module("models.model_settings")
        settings.MODEL_POOL["case"] = {
            "weight_path": str(pth_path), "tf_weight_path": str(tf_path), "tf_code_path": folder, **pool
        }  # fmt: skip
        adapter = importlib.import_module(f"models.{kind}_generator")
        network_module = importlib.import_module(f"models.{kind}_generator_network")
        net_name = {"stylegan": "StyleGANGeneratorNet", "pggan": "PGGANGeneratorNet"}[kind]
        true_net = getattr(network_module, net_name)
        setattr(adapter, net_name, lambda **kwargs: true_net(**{**kwargs, **options}))
        true_load = pickle.load
        sys.modules["tensorflow"] = fake
        pickle.load = lambda file: (None, None, network)
        try:
            generator = getattr(adapter, net_name.removesuffix("Net"))("case", logging.getLogger("quiet"))
        finally:
            pickle.load = true_load
            sys.modules.pop("tensorflow")
    return generator.net.eval()


def tf_stylegan_shapes(channels, dim, depth, rgb=3):
    shapes = {"dlatent_avg": (dim,)}
    for i in range(depth):
        shapes |= {f"mapping/Dense{i}/weight": (dim, dim), f"mapping/Dense{i}/bias": (dim,)}
    before = None
    last = len(channels) - 1
    for level, width in enumerate(channels):
        res = 4 << level
        for k, name in enumerate(("Const", "Conv") if level == 0 else ("Conv0_up", "Conv1")):
            block = f"synthesis/{res}x{res}/{name}"
            if name == "Const":
                shapes[f"{block}/const"] = (1, width, 4, 4)
            else:
                shapes[f"{block}/weight"] = (3, 3, before, width)
            shapes |= {
                f"{block}/bias": (width,),
                f"{block}/Noise/weight": (width,),
                f"{block}/StyleMod/weight": (dim, 2 * width),
                f"{block}/StyleMod/bias": (2 * width,),
                f"synthesis/noise{2 * level + k}": (1, 1, res, res),
            }
            before = width
        shapes[f"synthesis/ToRGB_lod{last - level}/weight"] = (1, 1, width, rgb)
        shapes[f"synthesis/ToRGB_lod{last - level}/bias"] = (rgb,)
    return shapes


@case
def stylegan_tf_128(root):
    channels, dim, seed = [16, 16, 16, 16, 8, 4], 16, 8
    shapes = tf_stylegan_shapes(channels, dim, 8)
    values = fill(shapes, seed, RGB)
    own = {"dlatent_avg": values["dlatent_avg"]}
    parts = {
        p: {k.removeprefix(p + "/"): v for k, v in values.items() if k.startswith(p)} for p in ("mapping", "synthesis")
    }
    lod = np.float32(0.0)
    network = TFNetwork(
        "G_style", own, {"resolution": 128, "num_channels": 3}, version=3,
        components={
            "mapping": TFNetwork("G_mapping", parts["mapping"], {}, version=3),
            "synthesis": TFNetwork("G_synthesis", {"lod": lod, **parts["synthesis"]}, {}, version=3),
        },
    )  # fmt: skip
    options = {"z_space_dim": dim, "w_space_dim": dim, "fmaps_base": 512, "fmaps_max": 16}
    pool = {"gan_type": "stylegan", "z_space_dim": dim, "w_space_dim": dim, "resolution": 128, "fused_scale": "auto"}
    net = higan_tf(root, "stylegan", network, options, pool)
    return Case(
        shapes, seed, RGB, {"synthesis/lod": torch.tensor(0.0)}, lambda path: write_tf(path, network),
        lambda z, _: net.mapping(z)[:, None].expand(-1, net.num_layers, -1), net.synthesis, z_of(dim), layer=9,
        psi=0.7, layers=8, truncation=net.truncation.truncation.flatten(), subtract_mean=net.truncation.w_avg,
        source="genforce/higan models/stylegan_generator.py, convert_tf_weights",
    )  # fmt: skip


# ---- StyleGAN2 ------------------------------------------------------------------------------------------------------


def higan_like(network, z_dim, seed, layer, psi, layers, source, scales=RGB):
    """A case out of a network of the official tool."""
    state = network.state_dict()
    shapes = shapes_of(state, (r"kernel$", r"lod$", r"truncation\.truncation$"))
    state.update(fill(shapes, seed, scales))
    network.load_state_dict(state)
    saved = {k: v for k, v in state.items() if k != "truncation.truncation"}
    return Case(
        shapes, seed, scales, {k: v for k, v in saved.items() if k not in shapes and "kernel" not in k},
        lambda path: torch.save(saved, path),
        lambda z, _: network.mapping(z)[:, None].expand(-1, network.num_layers, -1),
        network.synthesis, z_of(z_dim), layer=layer, psi=psi, layers=layers,
        truncation=network.truncation.truncation.flatten(), subtract_mean=network.truncation.w_avg, source=source,
    )  # fmt: skip


@case
def stylegan2_higan_32(root):
    path = "higan-official/models/stylegan2_generator_network.py"
    network = module(root / path).StyleGAN2GeneratorNet(
        resolution=32, z_space_dim=20, w_space_dim=16, num_mapping_layers=4, fmaps_base=256, fmaps_max=24
    )
    return higan_like(network.eval(), 20, 20, layer=3, psi=0.5, layers=8, source=path)


@case
def stylegan2_genforce_32_conditional(root):
    return genforce(
        root, "stylegan2_generator", "StyleGAN2Generator", seed=21, psi=0.5, layers=8, labels=[1, 2], resolution=32,
        z_space_dim=16, w_space_dim=20, mapping_fmaps=12, mapping_layers=5, label_size=3, fmaps_base=256, fmaps_max=16,
    )  # fmt: skip


@case
def stylegan2_genforce_ada_32_conditional(root):
    return genforce(
        root, "stylegan2ada_generator", "StyleGAN2ADAGenerator", seed=22, psi=0.5, layers=8, labels=[1, 2],
        resolution=32, z_space_dim=16, w_space_dim=16, mapping_fmaps=16, mapping_layers=2, label_size=3,
        fmaps_base=256, fmaps_max=16,
    )  # fmt: skip


def nvidia(root, repo, where, *, seed, layer=3, psi=0.5, layers=None, labels=None, noise="stored", stored=(), **kwargs):
    with repository(root / repo):
        network = importlib.import_module(where).Generator(**kwargs).eval()
        stored = (r"resample_filter$", r"up_filter$", r"down_filter$", r"transform$", *stored)
        state = network.state_dict()
        shapes = shapes_of(state, stored)
        scales = (*RGB, (r"L\d+_\d+_3\.weight", 0.5), (r"\.freqs$", 2.0), (r"input\.affine\.weight", 1.0))
        state.update(fill(shapes, seed, scales))
        network.load_state_dict(state)
        file = io.BytesIO()
        pickle.dump({"G": network, "D": None, "G_ema": network}, file)
    layers = network.num_ws if layers is None else layers
    truncation = torch.ones(network.num_ws)
    truncation[:layers] = psi

    def codes(z, labels):
        hot = None if labels is None else torch.eye(kwargs["c_dim"])[labels]
        return network.mapping(z, hot)

    mode = "const" if noise == "stored" else "none"
    return Case(
        shapes, seed, scales, {k: v for k, v in state.items() if k not in shapes},
        lambda path: Path(path).write_bytes(file.getvalue()),
        codes, lambda wp: network.synthesis(wp, noise_mode=mode, force_fp32=True), z_of(kwargs["z_dim"]),
        layer=layer, psi=psi, layers=layers, labels=labels, noise=noise, truncation=truncation,
        subtract_mean=network.mapping.w_avg, source=f"{repo} {where}.py",
    )  # fmt: skip


@case
def stylegan2_ada_32_conditional(root):
    return nvidia(
        root, "stylegan2-ada-pytorch", "training.networks", seed=23, labels=[2, 0], z_dim=16, c_dim=3, w_dim=20,
        img_resolution=32, img_channels=3, mapping_kwargs={"num_layers": 2},
        synthesis_kwargs={"channel_base": 512, "channel_max": 24, "num_fp16_res": 2, "conv_clamp": 2.5},
    )  # fmt: skip


@case
def stylegan2_ada_32_resnet(root):
    return nvidia(
        root, "stylegan2-ada-pytorch", "training.networks", seed=24, psi=0.7, layers=5, layer=4, z_dim=16, c_dim=0,
        w_dim=16, img_resolution=32, img_channels=3, mapping_kwargs={"num_layers": 8, "lr_multiplier": 0.02},
        synthesis_kwargs={"channel_base": 512, "channel_max": 24, "architecture": "resnet", "conv_clamp": 2.0},
    )  # fmt: skip


@case
def stylegan2_ada_32_no_noise(root):
    return nvidia(
        root, "stylegan2-ada-pytorch", "training.networks", seed=25, noise="none", layer=7, z_dim=16, c_dim=0,
        w_dim=16, img_resolution=32, img_channels=3, synthesis_kwargs={"channel_base": 512, "channel_max": 24},
    )  # fmt: skip


@case
def stylegan2_ada_16_no_noise_inputs(root):
    return nvidia(
        root, "stylegan2-ada-pytorch", "training.networks", seed=26, layer=0, z_dim=16, c_dim=0, w_dim=16,
        img_resolution=16, img_channels=1, synthesis_kwargs={"channel_base": 256, "channel_max": 12, "use_noise": False},
    )  # fmt: skip


@case
def stylegan2_of_stylegan3_64(root):
    return nvidia(
        root, "stylegan3", "training.networks_stylegan2", seed=27, layer=9, z_dim=16, c_dim=0, w_dim=16,
        img_resolution=64, img_channels=3, channel_base=512, channel_max=16,
    )  # fmt: skip


@case
def stylegan2_rosinality_32(root):
    # The published class has fixed widths; narrow ones keep the fixture's run short.
    # Its compiled operations are only needed on a GPU.
    torch.utils.cpp_extension.load = lambda *_, **__: None
    with repository(root / "stylegan2-pytorch"):
        model = importlib.import_module("model")
        network = narrow_rosinality(model, size=32, style_dim=16, n_mlp=4, widths=[24, 20, 16, 12]).eval()
    state = network.state_dict()
    shapes = shapes_of(state, (r"kernel$",)) | {"latent_avg": (16,)}
    values = fill(shapes, 28, RGB)
    mean = values.pop("latent_avg")
    state.update(values)
    network.load_state_dict(state)
    truncation = torch.full((network.n_latent,), 0.5)
    return Case(
        shapes, 28, RGB, {}, lambda path: torch.save({"g_ema": state, "latent_avg": mean}, path),
        lambda z, _: network.style(z)[:, None].expand(-1, network.n_latent, -1),
        lambda wp: network([wp], input_is_latent=True, randomize_noise=False)[0], z_of(16), layer=5, psi=0.5,
        layers=network.n_latent, truncation=truncation, subtract_mean=mean, source="stylegan2-pytorch model.py",
    )  # fmt: skip


def narrow_rosinality(model, size, style_dim, n_mlp, widths):
    """The generator with other widths than the published table's, by handing its layers other sizes."""
    network = model.Generator(size, style_dim, n_mlp)
    network.input = model.ConstantInput(widths[0])
    network.conv1 = model.StyledConv(widths[0], widths[0], 3, style_dim)
    network.to_rgb1 = model.ToRGB(widths[0], style_dim, upsample=False)
    network.convs, network.to_rgbs = torch.nn.ModuleList(), torch.nn.ModuleList()
    for before, after in itertools.pairwise(widths):
        network.convs.append(model.StyledConv(before, after, 3, style_dim, upsample=True))
        network.convs.append(model.StyledConv(after, after, 3, style_dim))
        network.to_rgbs.append(model.ToRGB(after, style_dim))
    return network


def tf_stylegan2_shapes(channels, z_dim, dim, depth, classes, architecture):
    shapes = {"dlatent_avg": (dim,), "mapping/LabelEmbed/weight": (classes, dim), "mapping/LabelEmbed/bias": (dim,)}
    for i in range(depth):
        inputs = z_dim + dim if i == 0 else dim
        shapes |= {f"mapping/Dense{i}/weight": (inputs, dim), f"mapping/Dense{i}/bias": (dim,)}
    shapes["synthesis/4x4/Const/const"] = (1, channels[0], 4, 4)
    before = channels[0]
    for level, width in enumerate(channels):
        res = 4 << level
        for k, name in enumerate(("Conv",) if level == 0 else ("Conv0_up", "Conv1")):
            block = f"synthesis/{res}x{res}/{name}"
            shapes |= {
                f"{block}/weight": (3, 3, before, width), f"{block}/bias": (width,),
                f"{block}/mod_weight": (dim, before), f"{block}/mod_bias": (before,), f"{block}/noise_strength": (),
                f"synthesis/noise{max(0, 2 * level - 1 + k)}": (1, 1, res, res),
            }  # fmt: skip
            before = width
        if level and architecture == "resnet":
            shapes[f"synthesis/{res}x{res}/Skip/weight"] = (1, 1, channels[level - 1], width)
        if architecture == "skip" or level == len(channels) - 1:
            block = f"synthesis/{res}x{res}/ToRGB"
            shapes |= {
                f"{block}/weight": (1, 1, width, 3), f"{block}/bias": (3,),
                f"{block}/mod_weight": (dim, width), f"{block}/mod_bias": (width,),
            }  # fmt: skip
    return shapes


def tf_stylegan2(root, architecture, seed):
    channels, z_dim, dim, classes = [24, 24, 16, 8], 12, 16, 3
    shapes = tf_stylegan2_shapes(channels, z_dim, dim, 4, classes, architecture)
    values = fill(shapes, seed, RGB)
    kwargs = {
        "latent_size": z_dim, "label_size": classes, "dlatent_size": dim, "resolution": 32, "mapping_layers": 4,
        "mapping_fmaps": dim, "mapping_lrmul": 0.02, "fmap_base": 128, "fmap_max": 24, "architecture": architecture,
        "conv_clamp": 3.0,
    }  # fmt: skip
    parts = {
        p: {k.removeprefix(p + "/"): v for k, v in values.items() if k.startswith(p)} for p in ("mapping", "synthesis")
    }
    network = TFNetwork(
        "G_main", {"dlatent_avg": values["dlatent_avg"]}, kwargs,
        components={p: TFNetwork(p, v, kwargs) for p, v in parts.items()},
    )  # fmt: skip
    with repository(root / "stylegan2-ada-pytorch"):
        reference = importlib.import_module("legacy").convert_tf_generator(network)
    truncation = torch.full((reference.num_ws,), 0.5)
    return Case(
        shapes, seed, RGB, {}, lambda path: write_tf(path, network),
        lambda z, labels: reference.mapping(z, torch.eye(classes)[labels]),
        lambda wp: reference.synthesis(wp, noise_mode="const"), z_of(z_dim), layer=4, psi=0.5, layers=reference.num_ws,
        labels=[1, 0], truncation=truncation, subtract_mean=reference.mapping.w_avg,
        source="stylegan2-ada-pytorch legacy.py, convert_tf_generator",
    )  # fmt: skip


@case
def stylegan2_tf_32_skip(root):
    return tf_stylegan2(root, "skip", 29)


@case
def stylegan2_tf_32_resnet(root):
    return tf_stylegan2(root, "resnet", 30)


# ---- PGGAN ----------------------------------------------------------------------------------------------------------


def normalised(z):
    """What the official tool does to latents first."""
    return z / z.norm(dim=1, keepdim=True) * z.shape[1] ** 0.5


def pggan(network, z_dim, seed, source, classes=0, labels=None, wrap=lambda state: state):
    state = network.eval().state_dict()
    shapes = shapes_of(state, (r"kernel$", r"lod$"))
    scales = ((r"output\d+\.(conv\.)?weight$", 0.5),)
    state.update(fill(shapes, seed, scales))
    network.load_state_dict(state)

    def picture(wp):
        image = network(wp[:, 0, :z_dim], wp[:, 0, z_dim:]) if classes else network(wp[:, 0])
        return image["image"] if isinstance(image, dict) else image

    return Case(
        shapes, seed, scales, {k: v for k, v in state.items() if k not in shapes},
        lambda path: torch.save(wrap(state), path),
        lambda z, _: normalised(z)[:, None], picture, z_of(z_dim), layer=0, psi=1.0, layers=1,
        truncation=torch.ones(1), subtract_mean=torch.zeros(z_dim), source=source,
    )  # fmt: skip


@case
def pggan_higan_32(root):
    path = "higan-official/models/pggan_generator_network.py"
    network = module(root / path).PGGANGeneratorNet(resolution=32, z_space_dim=20, fmaps_base=256, fmaps_max=24)
    return pggan(network, 20, 40, path)


@case
def pggan_higan_32_fused(root):
    path = "higan-official/models/pggan_generator_network.py"
    network = module(root / path).PGGANGeneratorNet(
        resolution=32, z_space_dim=16, fmaps_base=128, fmaps_max=16, fused_scale=True
    )
    return pggan(network, 16, 41, path)


@case
def pggan_genforce_32_fused_lod(root):
    with repository(root / "genforce"):
        network = importlib.import_module("models.pggan_generator").PGGANGenerator(
            resolution=32, z_space_dim=16, fmaps_base=128, fmaps_max=16, fused_scale=True
        )
    network.lod.fill_(0.25)
    return pggan(network, 16, 42, "genforce/genforce models/pggan_generator.py", wrap=lambda s: {"generator_smooth": s})


@case
def pggan_tf_32(root):
    channels, dim, seed = [24, 16, 8, 4], 16, 43  # 128 // resolution, at most 24
    shapes = {"4x4/Dense/weight": (dim, 16 * channels[0]), "4x4/Dense/bias": (channels[0],)}
    before = channels[0]
    for level, width in enumerate(channels):
        res = 4 << level
        for name in ("Conv",) if level == 0 else ("Conv0", "Conv1"):
            shapes |= {f"{res}x{res}/{name}/weight": (3, 3, before, width), f"{res}x{res}/{name}/bias": (width,)}
            before = width
        shapes |= {f"ToRGB_lod{3 - level}/weight": (1, 1, width, 3), f"ToRGB_lod{3 - level}/bias": (3,)}
    scales = ((r"ToRGB_lod\d+/weight$", 0.5),)
    values = fill(shapes, seed, scales)
    network = TFNetwork(
        "networks.G_paper", {"lod": np.float32(0.0), **values},
        {"num_channels": 3, "resolution": 32, "label_size": 0, "fmap_base": 128, "fused_scale": False}, version=2,
    )  # fmt: skip
    options = {"z_space_dim": dim, "fmaps_base": 128, "fmaps_max": 24}
    pool = {"gan_type": "pggan", "z_space_dim": dim, "resolution": 32, "fused_scale": False}
    net = higan_tf(root, "pggan", network, options, pool)
    return Case(
        shapes, seed, scales, {"lod": torch.tensor(0.0)}, lambda path: write_tf(path, network, old=True),
        lambda z, _: normalised(z)[:, None], lambda wp: net(wp[:, 0]), z_of(dim), layer=0, psi=1.0, layers=1,
        truncation=torch.ones(1), subtract_mean=torch.zeros(dim),
        source="genforce/higan models/pggan_generator.py, convert_tf_weights",
    )  # fmt: skip


# ---- BigGAN ---------------------------------------------------------------------------------------------------------


class Steered:
    """Runs a reference whose blocks share a code, with a code of its own for each: hooks swap the argument."""

    def __init__(self, dense, blocks, run):
        self.codes, self.run = None, run
        dense.register_forward_pre_hook(lambda _, args: (self.codes[0],))
        for k, block in enumerate(blocks, 1):
            block.register_forward_pre_hook(lambda _, args, k=k: (args[0], self.codes[k], *args[2:]))

    def __call__(self, codes):
        self.codes = codes
        return self.run()


@case
def biggan_hf_32(root):
    for name in ("boto3", "botocore", "botocore.exceptions"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["botocore.exceptions"].ClientError = Exception
    with repository(root / "pytorch-pretrained-BigGAN"):
        package = importlib.import_module("pytorch_pretrained_biggan")
    layers = [(False, 16, 16), (True, 16, 8), (True, 8, 4), (True, 4, 2), (False, 2, 1)]
    config = package.BigGANConfig(
        output_dim=32, z_dim=8, class_embed_dim=8, channel_width=4, num_classes=5, layers=layers,
        attention_layer_position=3, n_stats=11,
    )  # fmt: skip
    network = package.BigGAN(config).eval()
    state = network.state_dict()
    shapes = shapes_of(state, (r"weight_[uv]$",))
    state.update(fill(shapes, 50))
    noise = torch.Generator().manual_seed(0)
    for name in [name for name in state if name.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(state[name].flatten(1), full_matrices=False)
        for kind, vector in (("u", left[:, 0]), ("v", right[0])):
            rough = vector + 0.05 * torch.randn(vector.shape, generator=noise)
            state[name.replace("orig", kind)] = rough / rough.norm()
    network.load_state_dict(state)
    blocks = [layer for layer in network.generator.layers if type(layer).__name__ == "GenBlock"]
    psi = 0.43
    steered = Steered(network.generator.gen_z, blocks, lambda: network.generator(torch.zeros(2, 16), psi))

    def codes(z, labels):
        both = torch.cat([z, network.embeddings(torch.eye(5)[labels])], dim=1)
        return both[:, None].expand(-1, 1 + len(blocks), -1)

    def write(path):
        path.unlink(missing_ok=True)
        path.mkdir()
        torch.save(state, path / "pytorch_model.bin")
        (path / "config.json").write_text(config.to_json_string())

    return Case(
        shapes, 50, (), {k: v for k, v in state.items() if k not in shapes}, write, codes,
        lambda wp: steered(wp.unbind(1)), z_of(8), layer=2, psi=psi, layers=None, labels=[4, 1],
        truncation=torch.ones(1 + len(blocks)), subtract_mean=torch.zeros(16),
        source="pytorch-pretrained-BigGAN pytorch_pretrained_biggan/model.py",
    )  # fmt: skip


def biggan_original(root, which, seed, layer, labels=(2, 0), **kwargs):
    with repository(root / "BigGAN-PyTorch"):
        network = importlib.import_module(which).Generator(no_optim=True, n_classes=4, **kwargs).eval()
    deep, hier, shared = which == "BigGANdeep", kwargs.get("hier", False), kwargs.get("G_shared", True)
    state = network.state_dict()
    shapes = shapes_of(state)
    scales = ((r"sv\d$", 1.0), (r"\.gamma$", 0.5))
    state.update(fill(shapes, seed, scales))
    network.load_state_dict(state)
    blocks = [inner[0] for inner in network.blocks]
    y = torch.tensor(labels)
    steered = Steered(network.linear, blocks, lambda: network(torch.zeros(2, network.dim_z), network.shared(y)))

    def codes(z, labels):
        label = network.shared(labels) if shared else torch.eye(4)[labels]
        if deep:
            return torch.cat([z, label], 1)[:, None].expand(-1, 1 + len(blocks), -1)
        if not hier:
            rows = [z, *[label] * len(blocks)]
        else:
            chunks = z.split(network.z_chunk_size, 1)
            rows = [chunks[0], *(torch.cat([chunk, label], 1) for chunk in chunks[1:])]
        widest = max(row.shape[1] for row in rows)
        return torch.stack([torch.nn.functional.pad(row, (0, widest - row.shape[1])) for row in rows], 1)

    width = network.shared_dim if shared else 4

    def picture(wp):
        first, rest = wp[:, 0], wp[:, 1:].unbind(1)
        if deep:
            return steered([first.roll(width, 1), *(row.roll(width, 1) for row in rest)])
        if hier:
            return steered([first[:, : network.z_chunk_size], *(row.roll(width, 1) for row in rest)])
        return steered([first[:, : network.dim_z], *([row[:, :width] for row in rest] if shared else [y] * len(rest))])

    return Case(
        shapes, seed, scales, {k: v for k, v in state.items() if k not in shapes}, lambda path: torch.save(state, path),
        codes, picture, z_of(network.dim_z), layer=layer, psi=None, layers=None, labels=list(labels),
        truncation=torch.ones(1 + len(blocks)), subtract_mean=torch.tensor(0.0), source=f"BigGAN-PyTorch {which}.py",
    )  # fmt: skip


@case
def biggan_original_32_chunked(root):
    return biggan_original(
        root, "BigGAN", 51, layer=2, resolution=32, G_ch=6, dim_z=22, shared_dim=7, hier=True, G_attn="16"
    )


@case
def biggan_original_32_not_chunked(root):
    return biggan_original(root, "BigGAN", 52, layer=0, resolution=32, G_ch=4, dim_z=9, shared_dim=5, G_attn="0")


@case
def biggan_original_32_separate_embeddings(root):
    return biggan_original(root, "BigGAN", 53, layer=0, resolution=32, G_ch=4, dim_z=9, G_shared=False, G_attn="0")


@case
def biggan_original_64_deep(root):
    return biggan_original(
        root, "BigGANdeep", 54, layer=3, resolution=64, G_ch=2, dim_z=9, shared_dim=5, hier=True, G_attn="16"
    )


# ---- StyleGAN3 ------------------------------------------------------------------------------------------------------


@case
def stylegan3_t_32(root):
    return nvidia(
        root, "stylegan3", "training.networks_stylegan3", seed=60, psi=0.7, layers=4, z_dim=16, c_dim=0, w_dim=16,
        img_resolution=32, img_channels=3, channel_base=256, channel_max=12, num_layers=6, margin_size=4,
    )  # fmt: skip


@case
def stylegan3_t_64_conditional(root):
    return nvidia(
        root, "stylegan3", "training.networks_stylegan3", seed=61, psi=1.0, layer=5, labels=[0, 2], z_dim=16, c_dim=3,
        w_dim=20, img_resolution=64, img_channels=3, channel_base=256, channel_max=16, mapping_kwargs={"num_layers": 3},
    )  # fmt: skip


@case
def stylegan3_r_32(root):
    return nvidia(
        root, "stylegan3", "training.networks_stylegan3", seed=62, layer=0, z_dim=16, c_dim=0, w_dim=16,
        img_resolution=32, img_channels=3, channel_base=256, channel_max=12, num_layers=6, margin_size=4,
        conv_kernel=1, use_radial_filters=True, conv_clamp=3.0,
    )  # fmt: skip


# ---- running --------------------------------------------------------------------------------------------------------


def outputs(made):
    """Codes, images, and images of an edit at one layer, the official way: truncate, then edit by a scaled step."""
    with torch.no_grad():
        labels = None if made.labels is None else torch.tensor(made.labels)
        codes = made.codes(made.z, labels).clone()
        mean = made.subtract_mean
        truncated = mean + (codes - mean) * made.truncation[:, None]
        direction = torch.nn.functional.normalize(
            torch.randn(codes.shape[2], generator=torch.Generator().manual_seed(3)), dim=0
        )
        edited = truncated.clone()
        edited[:, made.layer] += STEP * made.truncation[made.layer] * direction
        return codes, direction, made.synthesize(truncated), made.synthesize(edited)


def run(name, root, dry):
    with contextlib.redirect_stdout(io.StringIO()):
        made = CASES[name](root)
        codes, direction, images, edited = outputs(made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.bin"
        made.write(path)
        checkpoint = higan.checkpoints.read.read(path)
        generator = higan.generators.load_generator(
            path, truncation_psi=made.psi, truncation_layers=made.layers, noise=made.noise
        )
    ours = generator.map(made.z, made.labels)
    moved = ours.clone()
    moved[:, made.layer, : len(direction)] += STEP * direction
    gaps = [
        (ours - codes).abs().max(), (raw(generator, ours) - images).abs().max(),
        (raw(generator, moved) - edited).abs().max(),
    ]  # fmt: skip
    print(f"{name:40} codes {gaps[0]:.1e}  images {gaps[1]:.1e}  edited {gaps[2]:.1e}  "
          f"largest pixel {images.abs().max():.2f}  edit moves {(edited - images).abs().max():.2f}")  # fmt: skip
    source = next(
        n for key in ("Gs", "G_ema", "g_ema", "generator_smooth", "model") if (n := checkpoint.networks.get(key))
    )
    stride = max(1, images.shape[-1] // 32)
    meta = {
        "source": made.source, "format": checkpoint.format, "network": skeleton(source), "seed": made.seed,
        "shapes": made.shapes, "scales": made.scales, "layer": made.layer, "step": STEP, "psi": made.psi,
        "layers": made.layers, "noise": made.noise, "labels": made.labels, "stride": stride,
    }  # fmt: skip
    arrays = {f"stored/{key}": value for key, value in made.stored.items()}
    arrays |= {"z": made.z, "codes": codes[:, :1] if generator.shared_code else codes, "direction": direction,
               "images": images[..., :: stride, :: stride], "edited": edited[..., :: stride, :: stride]}  # fmt: skip
    if not dry:
        np.savez_compressed(
            DATA / f"{name}.npz", meta=json.dumps(meta), **{k: v.detach().numpy() for k, v in arrays.items()}
        )


def raw(generator, codes):
    """Images before they are brought into [-1, 1]."""
    truncated = generator.truncate(codes)
    noisy = generator.noise == "stored"
    with torch.no_grad():
        return torch.cat([generator.network.synthesize(row[None], noise=noisy) for row in truncated])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in CASES:
        if re.search(options.only, name):
            run(name, options.references, options.dry_run)


if __name__ == "__main__":
    main()
