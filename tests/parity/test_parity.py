"""Codes and images agree with the reference implementations, whose outputs were recorded; see README.md."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from records import Fixture, names

from higan.errors import CheckpointError, UnknownFormatError
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


BY_ANOTHER_NAME = ("biggan_original_32_chunked", "stylegan2_rosinality_32", "stylegan2_higan_32", "stylegan_higan_32")


@pytest.mark.parametrize("wrapped", [
    lambda tensors: {"state_dict": tensors},
    lambda tensors: {"netG": tensors, "netD": {"a.weight": torch.ones(2)}, "epoch": 3},
    lambda tensors: {"netG": {f"module.{name}": tensor for name, tensor in tensors.items()}},
])  # fmt: skip
@pytest.mark.parametrize("name", BY_ANOTHER_NAME)
def test_the_only_generator_of_a_file_is_found_by_any_name(name, wrapped, tmp_path):
    fixture = Fixture(name)
    meta, tensors = fixture.meta, fixture.tensors()
    beside = {"latent_avg": tensors.pop("latent_avg")} if "latent_avg" in tensors else {}
    torch.save(wrapped(tensors) | beside, tmp_path / "weights.pth")
    compare(load_generator(tmp_path / "weights.pth", "cpu", meta["psi"], meta["layers"], meta["noise"]), fixture)


def changed(name, **tensors):
    """A fixture's checkpoint with some of its tensors replaced."""
    checkpoint = Fixture(name).checkpoint()
    (key,) = checkpoint.networks
    network = checkpoint.networks[key]
    return replace(checkpoint, networks={key: replace(network, tensors={**network.tensors, **tensors})})


SYMMETRIC = torch.tensor([1.0, 2, 2, 1])
ASYMMETRIC = torch.tensor([1.0, 2, 3, 4])
SKEW = torch.arange(16.0).reshape(4, 4)


KERNELS = {
    "stylegan2_rosinality_32": ("convs.0.conv.blur.kernel", "to_rgbs.0.upsample.kernel"),
    "stylegan2_ada_32_conditional": tuple(f"synthesis.b{size}.conv0.resample_filter" for size in (8, 16, 32)),
    "stylegan_higan_32": ("synthesis.layer2.blur.kernel", "synthesis.layer4.blur.kernel"),
}


def kernels(name, *kernel):
    """A fixture with filters, which are buffers that fixtures have no numbers of."""
    return changed(name, **dict(zip(KERNELS[name], kernel * 3, strict=False)))


@pytest.mark.parametrize(("checkpoint", "words"), [
    (lambda: kernels("stylegan2_rosinality_32", torch.outer(ASYMMETRIC, ASYMMETRIC)), "filter is 1, 2, 3, 4; only sym"),
    (lambda: kernels("stylegan2_ada_32_conditional", torch.outer(ASYMMETRIC, ASYMMETRIC)), "filter is 1, 2, 3, 4; onl"),
    (lambda: kernels("stylegan2_ada_32_conditional", torch.ones(8)), "filter is 1, 1, 1, 1, 1, 1, 1, 1; only symmetric"),
    (lambda: kernels("stylegan2_rosinality_32", SKEW), "not separable"),
    (lambda: kernels("stylegan2_rosinality_32", torch.ones(4, 4), 1 + torch.ones(3, 3)), "not all alike"),
    (lambda: kernels("stylegan_higan_32", torch.outer(SYMMETRIC, SYMMETRIC)), "blurring filter is"),
    (lambda: changed("stylegan2_ada_32_conditional", **{"synthesis.b4.const": torch.ones(16, 8, 4)}), "8 × 4 pixels"),
    (lambda: changed("stylegan3_t_32", **{"mapping.embed.weight": torch.ones(4, 8)}), "StyleGAN-XL"),
])  # fmt: skip
def test_networks_that_are_not_understood_are_not_called_damaged(checkpoint, words):
    with pytest.raises(UnknownFormatError, match=words):
        convert(checkpoint())


def test_the_filter_is_that_of_the_file():
    assert convert(Fixture("stylegan2_rosinality_32").checkpoint()).config.filter_taps == (1, 3, 3, 1)
    other = convert(kernels("stylegan2_rosinality_32", 4 * torch.outer(SYMMETRIC, SYMMETRIC) / 36))
    assert other.config.filter_taps == (1, 2, 2, 1)


@pytest.mark.parametrize("name", ["stylegan2_rosinality_32", "stylegan_higan_32", "pggan_higan_32", "stylegan3_t_32"])
def test_pictures_of_four_channels_are_refused(name):
    checkpoint = Fixture(name).checkpoint()
    (source,) = checkpoint.networks.values()
    channels = Fixture(name)["images"].shape[1]

    def widened(key, tensor):
        if not any(part in key for part in ("to_rgb", "output", "_32_3.")) or "modulation" in key:
            return tensor
        where = [axis for axis, size in enumerate(tensor.shape) if size == channels]
        return tensor if not where else torch.cat([tensor, tensor.narrow(where[0], 0, 1)], where[0])

    tensors = {key: widened(key, tensor) for key, tensor in source.tensors.items()}
    with pytest.raises(UnknownFormatError, match="pictures of 4 channels; only grey ones and RGB"):
        convert(replace(checkpoint, networks={source.name: replace(source, tensors=tensors)}))


def test_a_state_dict_of_nvidia_s_says_how_to_save_the_network():
    checkpoint = replace(Fixture("stylegan2_ada_32_conditional").checkpoint(), format="torch-state-dict")
    with pytest.raises(UnknownFormatError, match="does not say how the network was set up; save the network itself"):
        convert(checkpoint)


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
