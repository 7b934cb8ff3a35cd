"""Opening, saving and inspecting weight files, and the pieces converters are made of."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapters import FAMILIES
from hypothesis import given
from hypothesis import strategies as st

from higan.checkpoints import native
from higan.checkpoints.types import Checkpoint, Network
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.generators import inspect_file, load_generator, save_generator
from higan.generators.biggan import BigGANConfig
from higan.generators.conversion import convert
from higan.generators.conversion.raw import Raw, rename
from higan.generators.layers import affine_instance_norm, faded_levels, fold_upsampling
from higan.generators.pretrained import wrap
from higan.generators.stylegan2 import StyleGAN2Network


@pytest.fixture
def saved(tmp_path):
    generator = wrap(FAMILIES["stylegan2 skip"](), "small", provenance={"origin": "a test"})
    path = tmp_path / "small.safetensors"
    save_generator(generator, path)
    return generator, path


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_survives_its_own_file(name, tmp_path):
    generator = wrap(FAMILIES[name](), "small")
    path = tmp_path / "small.safetensors"
    save_generator(generator, path)
    opened = load_generator(path)
    assert opened.network.config == generator.network.config
    labels = 1 if generator.num_classes else None
    z = generator.latents([0])
    assert torch.equal(opened.latents([0]), z)
    codes = generator.map(z, labels)
    assert torch.equal(opened.map(z, labels), codes)
    assert torch.equal(opened.synthesize(codes), generator.synthesize(codes))
    again = tmp_path / "again.safetensors"
    save_generator(generator, again)
    assert again.read_bytes() == path.read_bytes()


def test_options_reach_the_generator(saved):
    generator, path = saved
    opened = load_generator(path, truncation_psi=0.25, truncation_layers=2, noise="none")
    assert opened.truncation.tolist() == [0.25, 0.25, 1, 1, 1, 1]
    assert opened.noise == "none"
    assert opened.name == "small"
    assert opened.provenance["origin"] == "a test"
    assert len(opened.provenance["sha256"]) == 64
    with pytest.raises(ValueError, match="truncation_layers must lie in 0–6"):
        load_generator(path, truncation_layers=7)
    assert generator.truncation.tolist() == [0.5] * 6


def test_inspection_says_what_the_file_holds(saved):
    generator, path = saved
    found = inspect_file(path)
    assert (found.family, found.format, found.resolution) == ("stylegan2", "safetensors", 16)
    assert (found.num_layers, found.code_dim, found.latent_dim, found.num_classes) == (6, 8, 6, 0)
    assert found.layer_resolutions == (4, 8, 8, 16, 16, 16)
    assert found.layer_widths == (8,) * 6
    assert found.parameters == sum(p.numel() for p in generator.network.parameters())
    assert found.size == path.stat().st_size


def test_names_need_no_file_and_take_no_truncation():
    assert load_generator("toy").name == "toy"
    with pytest.raises(ValueError, match="truncation"):
        load_generator("toy", truncation_psi=0.5)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"nowhere\.pkl.*rooms"):
        load_generator(tmp_path / "nowhere.pkl")


def test_a_biggan_has_no_truncated_layers(tmp_path):
    path = tmp_path / "b.safetensors"
    save_generator(wrap(FAMILIES["biggan deep"](), "b"), path)
    assert load_generator(path, truncation_psi=0.3).latents(range(50)).abs().max() <= 0.6
    with pytest.raises(ValueError, match="prior"):
        load_generator(path, truncation_layers=1)


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 2**40},
        {"channels": [8, 8, 10**9]},
        {"channels": []},
        {"channels": "many"},
        {"mapping": []},
        {"latent_dim": -1},
        {"architecture": "resnet"},
        {"num_classes": 3, "label_dim": 6},
        {"filter_taps": [1.0]},
        {"filter_taps": [0.0, 0.0, 0.0, 0.0, 0.0]},
        {"filter_taps": [1.0, -1.0, 1.0, -1.0]},
        {"colour": "red"},
        {"architecture": "gothic"},
        {"num_classes": None},
        {"joint_norm": 1},
        {"channels": {"a": 1}},
        {"clamp": 1e300},
        {"clamp": 1e6},
        {"clamp": -1.0},
        {"image_channels": 4},
        {"resolution": 2 << 18, "channels": [1] * 18},
    ],
)
def test_a_damaged_configuration_is_refused(saved, tmp_path, change):
    generator, _ = saved
    path = tmp_path / "damaged.safetensors"
    native.write(path, "stylegan2", vars_of(generator) | change, generator.network.state_dict())
    with pytest.raises(CorruptFileError):
        load_generator(path)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("stylegan3 t", {"first_cutoff": 0.0}),
        ("stylegan3 t", {"first_cutoff": -2.0}),
        ("stylegan3 t", {"first_stopband": 1e-300}),
        ("stylegan3 t", {"last_stopband_rel": 0.0}),
        ("stylegan3 t", {"channels": {"a": 1}}),
        ("stylegan3 t", {"filter_size": 0}),
        ("stylegan3 t", {"kernel": 0}),
        ("stylegan3 t", {"lrelu_upsampling": 1024}),
        ("stylegan3 t", {"resolution": 1 << 20}),
        ("stylegan3 t", {"clamp": 1e300}),
        ("stylegan", {"lod": None}),
        ("pggan", {"channels": {"a": 1, "b": 1, "c": 1}}),
        ("biggan deep", {"widths": {"a": 1, "b": 1, "c": 1}}),
        ("biggan deep", {"widths": [16, 8, 8, 8]}),
        ("biggan deep", {"num_classes": None}),
        ("biggan deep", {"resolution": 17}),
        ("biggan deep", {"resolution": 1 << 32}),
        ("biggan deep", {"truncation": 2}),
        ("biggan deep", {"truncation": 0.0}),
        ("biggan deep", {"epsilon": -1.0}),
        ("biggan deep", {"conditioning": "strictly"}),
    ],
)
def test_a_damaged_configuration_of_any_family_is_refused(tmp_path, family, change):
    generator = wrap(FAMILIES[family](), "x")
    path = tmp_path / "damaged.safetensors"
    native.write(path, generator.family, vars_of(generator) | change, generator.network.state_dict())
    for use in (load_generator, inspect_file):
        with pytest.raises(CorruptFileError, match=r"damaged\.safetensors: "):
            use(path)


def test_a_biggan_deep_that_grows_is_refused():
    with pytest.raises(ValueError, match=r"never grow; got \(8, 16\)"):
        BigGANConfig(8, (8, 16), (True,))


def test_a_file_without_noise_maps_has_none_in_memory_either(tmp_path):
    loud = FAMILIES["stylegan2 skip"]()
    network = StyleGAN2Network(dataclasses.replace(loud.config, noise=False))
    network.load_state_dict({k: t for k, t in loud.state_dict().items() if "noise" not in k})
    path = tmp_path / "x.safetensors"
    save_generator(wrap(network, "x"), path)
    opened = load_generator(path)
    assert not [name for name in opened.network.state_dict() if "noise" in name]
    codes = opened.map(opened.latents([0, 1]))
    assert torch.equal(opened.synthesize(codes), wrap(loud, "x", noise="none").synthesize(codes))
    lowered = load_generator(path, precision="bfloat16").synthesize(codes)
    assert torch.allclose(lowered, opened.synthesize(codes), atol=0.1)


def test_the_truncation_of_a_biggan_is_the_file_s_again_once_saved(tmp_path):
    path, again = tmp_path / "b.safetensors", tmp_path / "again.safetensors"
    save_generator(wrap(FAMILIES["biggan deep"](), "b"), path)
    opened = load_generator(path, truncation_psi=0.9)
    assert opened.network.config.truncation == 0.9
    save_generator(opened, again)
    assert load_generator(again).network.config.truncation == 0.6


def vars_of(generator):
    config = generator.network.config
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_a_missing_weight_is_named(saved, tmp_path):
    generator, _ = saved
    state = generator.network.state_dict()
    del state["layers.1.bias"]
    path = tmp_path / "damaged.safetensors"
    native.write(path, "stylegan2", vars_of(generator), state)
    with pytest.raises(CorruptFileError, match=r"layers\.1\.bias"):
        load_generator(path)


def test_an_unknown_family_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    native.write(path, "stylegan9", {}, {"a": torch.zeros(1)})
    with pytest.raises(UnknownFormatError, match="stylegan9"):
        load_generator(path)


def test_a_state_dict_of_nothing_known_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match="module"):
        load_generator(path)


# ---- pieces ---------------------------------------------------------------------------------------------------------


def test_a_tensor_without_a_place_is_an_error():
    with pytest.raises(UnknownFormatError, match="surprise"):
        rename({"surprise": torch.zeros(1)}, ((r"a\d", "b"),))
    with pytest.raises(CorruptFileError, match="lost"):
        Raw()["lost"]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), st.integers(0, 10))
def test_folded_kernel_equals_upsampling_then_convolving(inputs, outputs, size, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, inputs, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    found = F.conv_transpose2d(x, fold_upsampling(weight), stride=2, padding=1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
def test_adain_by_hand(gradients):
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]], [[[0.0, 0.0], [2.0, 2.0]]]])
    scale, shift = torch.tensor([[2.0], [1.0]]), torch.tensor([[10.0], [0.0]])
    with torch.set_grad_enabled(gradients):
        found = affine_instance_norm(x, scale, shift)
    deviation = 5.0**0.5
    first = torch.tensor([[-3.0, -1.0], [1.0, 3.0]]) * 2 / deviation + 10
    torch.testing.assert_close(found[0, 0], first)
    torch.testing.assert_close(found[1, 0], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


@pytest.mark.parametrize(("lod", "levels"), [(0.0, (3,)), (0.5, (2, 3)), (1.0, (2,)), (2.25, (0, 1)), (3.0, (0,))])
def test_levels_that_are_faded_in(lod, levels):
    assert faded_levels(4, lod) == levels


@pytest.mark.parametrize("lod", [-0.1, 3.1])
def test_levels_beyond_the_network_are_refused(lod):
    with pytest.raises(ValueError, match="lod"):
        faded_levels(4, lod)


def test_fused_kernels_of_tensorflow_s_pggan_are_height_width_out_in():
    # Oracle: TensorFlow's transposed convolution written out as a sum over input pixels, (h, w, out, in) kernels padded
    # and averaged over the four shifts, stride 2, one row and column cut off on each side.
    rng = np.random.default_rng(0)
    channels, dim, res = (3, 2), 4, 4
    tensors = {
        "lod": np.float32(0),
        "4x4/Dense/weight": rng.normal(size=(dim, 16 * channels[0])),
        "4x4/Dense/bias": rng.normal(size=channels[0]),
        "4x4/Conv/weight": rng.normal(size=(3, 3, channels[0], channels[0])),
        "4x4/Conv/bias": rng.normal(size=channels[0]),
        "8x8/Conv0_up/weight": rng.normal(size=(3, 3, channels[1], channels[0])),
        "8x8/Conv0_up/bias": rng.normal(size=channels[1]),
        "8x8/Conv1/weight": rng.normal(size=(3, 3, channels[1], channels[1])),
        "8x8/Conv1/bias": rng.normal(size=channels[1]),
    }
    for lod, width in enumerate(reversed(channels)):
        tensors |= {f"ToRGB_lod{lod}/weight": rng.normal(size=(1, 1, width, 3)), f"ToRGB_lod{lod}/bias": np.zeros(3)}
    network = Network(
        "Gs", "networks.G_paper", {}, {k: torch.tensor(np.asarray(v)).float() for k, v in tensors.items()}
    )
    layer = convert(Checkpoint(Path("x"), "nvidia-tf", {"Gs": network}, {}, "", 0)).layers[1]

    x = rng.normal(size=(channels[0], res, res))
    kernel = tensors["8x8/Conv0_up/weight"] * np.sqrt(2 / (9 * channels[0]))
    padded = np.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    kernel = padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
    full = np.zeros((channels[1], 2 * res + 2, 2 * res + 2))
    for i in range(res):
        for j in range(res):
            full[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("hwoc,c->ohw", kernel, x[:, i, j])
    features = full[:, 1:-1, 1:-1] + tensors["8x8/Conv0_up/bias"][:, None, None]
    active = np.where(features > 0, features, 0.2 * features)
    expected = active / np.sqrt((active**2).mean(0, keepdims=True) + 1e-8)
    found = layer(torch.tensor(x).float()[None])[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
