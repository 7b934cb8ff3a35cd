"""The StyleGAN2 type of the rooms generator against its paper's formulas, sample by sample and weight by weight."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from higan.errors import CorruptFileError
from higan.generators.loading import inspect_file
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork, build_network, estimate_mean_code
from higan.generators.rooms_skip import SkipNetwork
from higan.types import StagedGenerator, StyledGenerator
from higan.weights import read_weights, write_weights

CONFIG = RoomsConfig(16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(8, 6, 5, 4), architecture="skip")


def lively_network(config=CONFIG, seed=3):
    """Fresh networks have zero biases; give every parameter something to be wrong about."""
    network = build_network(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return network


@pytest.fixture(scope="module")
def codes():
    return torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def little():
    network = lively_network()
    return RoomsGenerator(network, estimate_mean_code(network, 512), name="little")


def reference_image(tensors, codes):
    """One picture of codes (L, D): equations (1) and (3) of the StyleGAN2 paper, the weights of one sample at a time."""

    def conv(name, x, code, *, demodulate):
        weight = tensors[f"{name}.weight"]
        styling = tensors[f"{name}.style.weight"]
        style = 1 + styling @ code / styling.shape[1] ** 0.5 + tensors[f"{name}.style.bias"]
        weight = weight / weight[0].numel() ** 0.5 * style[:, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        return F.conv2d(x, weight, tensors[f"{name}.bias"], padding=weight.shape[2] // 2)

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def layer(x, k, *, up):
        x = conv(f"layers.{k}.conv", x, codes[k], demodulate=True)
        return 2**0.5 * F.leaky_relu(double(x) if up else x, 0.2)

    x = layer(tensors["constant"][None], 0, up=False)
    image = conv("to_rgb.4", x, codes[1], demodulate=False)
    x = layer(layer(x, 1, up=True), 2, up=False)
    image = double(image) + conv("to_rgb.8", x, codes[3], demodulate=False)
    x = layer(layer(x, 3, up=True), 4, up=False)
    return double(image) + conv("to_rgb.16", x, codes[5], demodulate=False)


class TestNetwork:
    def test_the_configuration_chooses_the_network(self):
        assert isinstance(build_network(CONFIG), SkipNetwork)
        assert isinstance(build_network(replace(CONFIG, architecture="adain")), RoomsNetwork)

    def test_matches_plain_functions(self, codes):
        network = lively_network()
        tensors = network.state_dict()
        expected = torch.cat([reference_image(tensors, row) for row in codes])
        torch.testing.assert_close(network(codes), expected, atol=1e-4, rtol=1e-4)

    def test_both_architectures_map_alike(self):
        z = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(build_network(CONFIG).map(z), RoomsNetwork(replace(CONFIG)).map(z))

    def test_the_size_of_a_style_is_divided_out_of_all_but_the_rgb(self):
        network = lively_network()
        doubled = lively_network()
        with torch.no_grad():
            style = doubled.layers[2].conv.style
            style.weight.mul_(2)
            style.bias.mul_(2).add_(1)  # 1 + style, twice as large
        codes = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(doubled(codes), network(codes), atol=1e-4, rtol=1e-4)

    def test_bigger_network_takes_over_all_of_a_smaller_one(self):
        small, big = lively_network(), build_network(replace(CONFIG, resolution=32))
        missing, unexpected = big.load_state_dict(small.state_dict(), strict=False)
        assert not unexpected
        assert {name.split(".conv.")[0].split(".weight")[0] for name in missing if "layers" in name} == {
            "layers.5",
            "layers.6",
        }

    def test_fading_starts_at_the_coarse_picture_and_ends_at_the_fine_one(self, codes):
        small, big = lively_network(), build_network(replace(CONFIG, resolution=32))
        big.load_state_dict(small.state_dict(), strict=False)
        longer = torch.cat([codes, codes[:, :2]], dim=1)
        coarse = F.interpolate(small(codes), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(big(longer, fade=0.0), coarse, atol=1e-4, rtol=1e-4)
        halfway = (coarse + big(longer)) / 2
        torch.testing.assert_close(big(longer, fade=0.5), halfway, atol=1e-4, rtol=1e-4)

    def test_derivatives_agree_with_finite_differences(self, codes):
        network = lively_network(replace(CONFIG, resolution=8)).double()
        start = codes[:1, :4].double().requires_grad_()
        assert torch.autograd.gradcheck(lambda c: network(c, torch.float64), start)

    def test_the_last_code_moves_no_feature(self, codes):
        """It styles the last RGB alone, so that its effect is linear in its style."""
        network = lively_network()
        edited = torch.stack([codes, codes, codes])
        for k in (1, 2):
            edited[k, :, 5] += k
        images = [network(row) for row in edited]
        torch.testing.assert_close(images[2] - images[1], images[1] - images[0], atol=1e-4, rtol=1e-3)


class TestGenerator:
    def test_follows_the_protocols(self, little):
        assert isinstance(little, StagedGenerator)
        assert isinstance(little, StyledGenerator)
        assert little.synthesize(little.map(little.latents([0, 1]))).shape == (2, 3, 16, 16)

    @pytest.mark.parametrize("layer", range(6))
    def test_a_stage_needs_only_the_codes_before_its_layer(self, little, codes, layer):
        edited = codes.clone()
        edited[:, layer:] += 1
        state, same = little.prepare(edited, layer), little.prepare(codes, layer)
        assert all(torch.equal(a, b) for a, b in zip(state, same, strict=True))
        images = little.resume(same, edited, layer)
        torch.testing.assert_close(images, little.synthesize(edited), atol=1e-5, rtol=0)
        assert not torch.allclose(images, little.synthesize(codes), atol=1e-3)

    def test_a_state_of_another_batch_is_refused(self, little, codes):
        with pytest.raises(ValueError, match="got 5 and 2"):
            little.resume(little.prepare(codes, 2), codes[:2], 2)

    @pytest.mark.parametrize("layer", [0, 2, 4, 5])
    def test_codes_act_through_the_style_weights_alone(self, little, codes, layer):
        weights = little.style_weights(layer)
        directions = torch.linalg.svd(weights).Vh
        assert weights.shape[0] < 10  # so there is a direction that the matrix maps to nothing
        change = [(little.synthesize(_moved(codes, layer, d)) - little.synthesize(codes)) for d in directions[[0, -1]]]
        assert change[0].abs().max() > 1e-2
        assert change[1].abs().max() < 1e-5

    @pytest.mark.parametrize("layer", [1, 3])
    def test_an_odd_code_styles_the_picture_so_far_and_the_next_convolution(self, little, layer):
        inputs = little.config.channels[layer // 2]
        assert little.style_weights(layer).shape == (2 * inputs, 10)

    def test_comes_back_as_saved(self, little, tmp_path, codes):
        little.save(tmp_path / "hut.safetensors", {"images": 12})
        loaded = RoomsGenerator.load(tmp_path / "hut.safetensors")
        assert loaded.config == CONFIG
        torch.testing.assert_close(loaded.synthesize(codes), little.synthesize(codes), atol=0.02, rtol=0)
        assert inspect_file(tmp_path / "hut.safetensors").layer_resolutions == (4, 8, 8, 16, 16, 16)

    @pytest.mark.parametrize("architecture", ["adain", "resnet"])
    def test_weights_of_another_architecture_are_refused(self, little, tmp_path, architecture):
        path = tmp_path / "odd.safetensors"
        little.save(path)
        tensors, header = read_weights(path)
        header["config"]["architecture"] = architecture
        write_weights(path, tensors, header)
        with pytest.raises(CorruptFileError, match="contradicts itself"):
            RoomsGenerator.load(path)


def _moved(codes, layer, direction):
    moved = codes.clone()
    moved[:, layer] += direction
    return moved
