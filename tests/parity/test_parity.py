"""Codes and images agree with the reference implementations, whose outputs were recorded; see README.md."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from records import Fixture, names

from higan.errors import CheckpointError
from higan.generators import load_generator
from higan.generators.conversion import convert
from higan.generators.pretrained import wrap

TOLERANCE = 1e-4
WRITTEN_BY_TORCH_SAVE = {
    "genforce-pth": lambda tensors, name: tensors if name == "model" else {name: tensors},
    "rosinality-pt": lambda tensors, name: {
        name: {k: t for k, t in tensors.items() if k != "latent_avg"},
        "latent_avg": tensors["latent_avg"],
    },
    "biggan-torch": lambda tensors, name: tensors,
    "torch-state-dict": lambda tensors, name: tensors,
}


def synthesize(generator, codes):
    """Images before they are brought into [-1, 1]."""
    noisy = generator.noise == "stored"
    return torch.cat([generator.network.synthesize(row[None], noise=noisy) for row in generator.truncate(codes)])


def compare(generator, fixture):
    meta = fixture.meta
    codes = generator.map(fixture["z"], meta["labels"])
    torch.testing.assert_close(codes, fixture["codes"].expand_as(codes), atol=TOLERANCE, rtol=0)
    stride = meta["stride"]
    images = synthesize(generator, codes)
    torch.testing.assert_close(images[..., ::stride, ::stride], fixture["images"], atol=TOLERANCE, rtol=0)
    edited = codes.clone()
    edited[:, meta["layer"]] += meta["step"] * fixture["direction"]
    moved = synthesize(generator, edited)
    torch.testing.assert_close(moved[..., ::stride, ::stride], fixture["edited"], atol=TOLERANCE, rtol=0)
    # The fixture says something about edits only if they move the picture by far more than the tolerance.
    assert (fixture["edited"] - fixture["images"]).abs().max() > 50 * TOLERANCE


@pytest.mark.parametrize("name", names())
def test_agrees_with_the_reference(name):
    fixture = Fixture(name)
    meta = fixture.meta
    network = convert(fixture.checkpoint())
    layers = meta["layers"]
    if network.family == "biggan":
        if meta["psi"] is not None:
            network.truncate(meta["psi"])
        compare(wrap(network, name, noise=meta["noise"]), fixture)
    else:
        compare(wrap(network, name, "cpu", meta["psi"], layers, meta["noise"]), fixture)


@pytest.mark.parametrize("name", [n for n in names() if Fixture(n).meta["format"] in WRITTEN_BY_TORCH_SAVE])
def test_agrees_when_read_from_a_file(name, tmp_path):
    fixture = Fixture(name)
    meta = fixture.meta
    path = tmp_path / "weights.pth"
    torch.save(WRITTEN_BY_TORCH_SAVE[meta["format"]](fixture.tensors(), meta["network"]["name"]), path)
    compare(load_generator(path, "cpu", meta["psi"], meta["layers"], meta["noise"]), fixture)


def in_interfacegan(tensors, resolution):
    """HiGAN's models under the names of InterFaceGAN, from whose code it took them; PGGANs have one output there."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("layer"):
            number, _, leaf = name.removeprefix("layer").partition(".")
            renamed[f"layer{int(number) + 1}.{leaf}"] = tensor
        elif name.startswith(f"output{resolution.bit_length() - 3}."):
            renamed[f"output_{resolution}x{resolution}.{name.partition('.')[2]}"] = tensor
        elif "." in name and not name.startswith("output"):
            renamed[name.replace(".fc.", ".linear.").replace("layer0.const", "layer0.first_layer")] = tensor
    return renamed


@pytest.mark.parametrize("name", ["stylegan_higan_32", "stylegan_higan_128_auto", "pggan_higan_32"])
def test_files_of_interfacegan_are_those_of_higan_by_other_names(name, tmp_path):
    fixture = Fixture(name)
    meta = fixture.meta
    tensors = in_interfacegan(fixture.tensors(), int(name.split("_")[2]))
    torch.save(tensors, tmp_path / "weights.pth")
    compare(load_generator(tmp_path / "weights.pth", "cpu", meta["psi"], meta["layers"], meta["noise"]), fixture)


@pytest.mark.parametrize("family", ["stylegan", "stylegan2", "stylegan3", "pggan", "biggan"])
def test_every_family_has_fixtures(family):
    assert any(name.startswith(family + "_") for name in names())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(names()), st.data())
def test_damaged_tensors_are_an_error_of_the_file(name, data):
    fixture = Fixture(name)
    tensors = fixture.tensors()
    victim = data.draw(st.sampled_from(sorted(tensors)))
    damage = data.draw(st.sampled_from(["drop", "scalar", "extra axis", "cut", "widen", "empty"]))
    tensor = tensors[victim]
    if damage == "drop":
        del tensors[victim]
    else:
        tensors[victim] = {
            "scalar": lambda: torch.tensor(1.5),
            "extra axis": lambda: tensor[None],
            "cut": lambda: tensor[:1],
            "widen": lambda: torch.cat([tensor, tensor]),
            "empty": lambda: torch.zeros(0),
        }[damage if tensor.ndim else "scalar"]()
    checkpoint = fixture.checkpoint()
    (key,) = checkpoint.networks
    broken = replace(checkpoint, networks={key: replace(checkpoint.networks[key], tensors=tensors)})
    # Some damage cannot be told from an intended network; whatever opens must work, everything else is named.
    try:
        network = convert(broken)
    except CheckpointError:
        return
    z = torch.zeros(1, network.config.latent_dim)
    codes = network.map(z, torch.tensor([0]) if network.config.num_classes else None)
    assert network.synthesize(codes, noise=True).shape[-1] == network.config.resolution


def test_another_weight_would_be_noticed():
    fixture = Fixture("stylegan_higan_32")
    checkpoint = fixture.checkpoint()
    checkpoint.network("model").tensors["synthesis.layer5.epilogue.bias"][0] += 0.1
    generator = wrap(convert(checkpoint), "x", "cpu", fixture.meta["psi"], fixture.meta["layers"])
    with pytest.raises(AssertionError):
        compare(generator, fixture)
