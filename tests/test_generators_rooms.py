from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork, adain, estimate_mean_code
from higan.types import Generator
from higan.weights import write_weights

CONFIG = RoomsConfig(resolution=16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(8, 6, 5, 4))


def lively_network(config=CONFIG, seed=3):
    """Fresh networks have zero biases; give every parameter something to be wrong about."""
    network = RoomsNetwork(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return network


@pytest.fixture(scope="module")
def rooms():
    network = lively_network()
    return RoomsGenerator(network, estimate_mean_code(network, 512), name="little")


@pytest.fixture(scope="module")
def codes(rooms):
    z = torch.randn(5, rooms.num_layers, 6, generator=torch.Generator().manual_seed(1))
    return torch.stack([rooms.map(row)[:, 0] for row in z])


def reference_images(tensors, codes, resolution):
    """StyleGAN as its paper draws it, from plain functions and the names in the file."""

    def conv(name, x, gain):
        weight = tensors[f"{name}.weight"]
        scale = gain / (weight[0].numel() ** 0.5)
        return F.conv2d(x, weight * scale, tensors[f"{name}.bias"], padding=weight.shape[2] // 2)

    x = tensors["constant"].expand(len(codes), -1, -1, -1)
    for layer in range(codes.shape[1]):
        if layer:
            x = conv(f"layers.{layer}.conv", x, 2**0.5)
        if layer and layer % 2 == 0:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.instance_norm(F.leaky_relu(x, 0.2), eps=1e-5)
        weight, bias = tensors[f"layers.{layer}.style.weight"], tensors[f"layers.{layer}.style.bias"]
        style = codes[:, layer] @ weight.T / weight.shape[1] ** 0.5 + bias
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        x = x * (1 + scale) + shift
    return conv(f"to_rgb.{resolution}", x, 1.0)


class TestConfig:
    def test_two_layers_per_resolution(self):
        assert [RoomsConfig(resolution=r).num_layers for r in (8, 16, 32, 64, 128)] == [4, 6, 8, 10, 12]

    def test_widths_are_those_of_the_resolution(self):
        config = RoomsConfig(resolution=16, channels=(7, 6, 5))
        assert [config.channels_at(r) for r in (4, 8, 16)] == [7, 6, 5]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"resolution": 48}, "power of two"),
            ({"resolution": 4}, "at least 8"),
            ({"resolution": 512}, "8 widths"),
            ({"code_dim": 0}, "code_dim must be at least 1; got 0"),
            ({"channels": (8, 0, 8, 8, 8)}, "channels must be at least 1"),
            ({"mapping_lr": 0.0}, "mapping_lr must be above 0"),
            ({"rgb_kernel": 2}, "rgb_kernel of the adain architecture must be 1 or 3; got 2"),
            ({"rgb_kernel": 3, "architecture": "skip"}, "rgb_kernel of the skip architecture must be 1; got 3"),
        ],
    )
    def test_impossible_shapes_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            RoomsConfig(**values)


class TestNetwork:
    @pytest.mark.parametrize("rgb_kernel", [1, 3])
    def test_matches_plain_functions(self, codes, rgb_kernel):
        network = lively_network(replace(CONFIG, rgb_kernel=rgb_kernel))
        expected = reference_images(network.state_dict(), codes, 16)
        torch.testing.assert_close(network(codes), expected, atol=1e-4, rtol=1e-4)

    def test_adain_is_instance_norm_then_style(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(3, 5, 8, 8, generator=generator, dtype=torch.float64)
        scale, shift = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
        normed = F.instance_norm(F.leaky_relu(x, 0.2), eps=1e-5)
        expected = normed * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        torch.testing.assert_close(adain(x, scale, shift), expected)

    def test_latents_are_normalised_before_mapping(self):
        network = lively_network()
        z = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(network.map(z), network.map(10 * z), atol=1e-5, rtol=1e-5)

    def test_mapping_learns_slower_but_computes_the_same(self):
        slow, fast = RoomsNetwork(CONFIG), RoomsNetwork(replace(CONFIG, mapping_lr=1.0))
        z = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(slow.map(z), fast.map(z))
        for network in (slow, fast):
            network.map(z).sum().backward()
        # The stored weight is 10 times larger and its gradient 10 times smaller: a relative step of a hundredth.
        gradients = [network.mapping[0].weight.grad for network in (slow, fast)]
        torch.testing.assert_close(10 * gradients[0], gradients[1])

    def test_bigger_network_takes_over_all_of_a_smaller_one(self):
        small, big = lively_network(), RoomsNetwork(replace(CONFIG, resolution=32))
        missing, unexpected = big.load_state_dict(small.state_dict(), strict=False)
        assert not unexpected
        assert {name.rsplit(".", 2)[0] for name in missing if "conv" in name} == {"layers.6", "layers.7"}
        assert "to_rgb.32.weight" in missing

    def test_fading_starts_at_the_coarse_picture_and_ends_at_the_fine_one(self, codes):
        small, big = lively_network(), RoomsNetwork(replace(CONFIG, resolution=32))
        big.load_state_dict(small.state_dict(), strict=False)
        longer = torch.cat([codes, codes[:, :2]], dim=1)
        coarse = F.interpolate(small(codes), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(big(longer, fade=0.0), coarse, atol=1e-4, rtol=1e-4)
        halfway = (coarse + big(longer)) / 2
        torch.testing.assert_close(big(longer, fade=0.5), halfway, atol=1e-4, rtol=1e-4)

    def test_seed_decides_the_weights(self):
        one, same, other = (RoomsNetwork(CONFIG, seed=s).state_dict() for s in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["constant"], other["constant"])


class TestGenerator:
    def test_follows_the_protocol(self, rooms):
        assert isinstance(rooms, Generator)
        assert (rooms.name, rooms.num_layers, rooms.code_dim, rooms.latent_dim, rooms.resolution) == (
            "little",
            6,
            10,
            6,
            16,
        )
        assert rooms.shared_code
        images = rooms.synthesize(rooms.map(rooms.latents([0, 1])))
        assert images.shape == (2, 3, 16, 16)
        assert images.abs().max() <= 1

    def test_all_layers_share_the_code(self, rooms):
        shared = rooms.map(rooms.latents([4, 5]))
        assert (shared == shared[:, :1]).all()

    @settings(max_examples=10, deadline=None)
    @given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=6))
    def test_a_sample_depends_on_its_seed_alone(self, rooms, seeds):
        together = rooms.latents(seeds)
        assert torch.equal(together, torch.cat([rooms.latents([seed]) for seed in seeds]))
        images = rooms.synthesize(rooms.map(together))
        alone = torch.cat([rooms.synthesize(rooms.map(rooms.latents([seed]))) for seed in seeds])
        torch.testing.assert_close(images, alone, atol=1e-4, rtol=0)

    def test_no_seeds_no_images(self, rooms):
        assert rooms.synthesize(rooms.map(rooms.latents([]))).shape == (0, 3, 16, 16)

    def test_truncation_happens_inside(self, rooms, codes):
        psi = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        truncated = RoomsGenerator(rooms.network, rooms.mean_code, truncation=psi)
        plain = RoomsGenerator(rooms.network, rooms.mean_code, truncation=1.0)
        by_hand = rooms.mean_code + torch.tensor(psi)[:, None] * (codes - rooms.mean_code)
        torch.testing.assert_close(truncated.synthesize(codes), plain.synthesize(by_hand), atol=1e-5, rtol=0)
        assert truncated.truncation.tolist() == psi

    def test_the_mean_code_is_the_mean(self, rooms):
        z = torch.randn(4096, 6, generator=torch.Generator().manual_seed(0))
        expected = rooms.network.map(z).mean(0)
        torch.testing.assert_close(estimate_mean_code(rooms.network, 4096), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("layer", range(6))
    def test_staged_synthesis_equals_the_whole(self, rooms, codes, layer):
        state = rooms.prepare(codes, layer)
        torch.testing.assert_close(rooms.resume(state, codes, layer), rooms.synthesize(codes), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("layer", range(6))
    def test_a_stage_needs_only_the_codes_before_its_layer(self, rooms, codes, layer):
        edited = codes.clone()
        edited[:, layer:] += 1
        assert torch.equal(rooms.prepare(edited, layer), rooms.prepare(codes, layer))
        images = rooms.resume(rooms.prepare(codes, layer), edited, layer)
        torch.testing.assert_close(images, rooms.synthesize(edited), atol=1e-5, rtol=0)
        assert not torch.allclose(images, rooms.synthesize(codes), atol=1e-3)

    @pytest.mark.parametrize("layer", range(6))
    @pytest.mark.parametrize(("budget", "together"), [(1, {1}), (12_000, {1, 2}), (60_000, {5})])
    def test_maps_that_outgrow_the_cache_part_ways_and_meet_again(
        self, rooms, codes, layer, budget, together, monkeypatch
    ):
        whole = rooms.prepare(codes, layer)
        images = rooms.synthesize(codes)
        monkeypatch.setattr("higan.generators.rooms._CACHE", budget)
        worked_on = []
        handles = [
            module.register_forward_pre_hook(lambda _, inputs: worked_on.append(inputs[0]))
            for name, module in rooms.network.named_modules()
            if name.endswith("conv") or name.startswith("to_rgb.")
        ]
        state = rooms.prepare(codes, layer)
        found = rooms.resume(state, codes, layer)
        for handle in handles:
            handle.remove()
        assert {len(x) for x in worked_on if x.shape[2] == 16} == together  # 5 KiB each.
        torch.testing.assert_close(state, whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(found, images, atol=1e-5, rtol=0)

    def test_derivatives_agree_with_finite_differences(self, codes):
        network = lively_network(replace(CONFIG, resolution=8)).double()
        start = codes[:1, :4].double().requires_grad_()
        assert torch.autograd.gradcheck(lambda c: network(c, torch.float64), start)

    def test_gradients_reach_the_codes_of_every_layer_that_is_not_truncated_away(self, rooms, codes):
        generator = RoomsGenerator(rooms.network, rooms.mean_code, truncation=[1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
        start = codes.clone().requires_grad_()
        generator.synthesize(start).square().sum().backward()
        assert (start.grad.abs().sum((0, 2)) > 0).tolist() == [True, True, False, True, True, True]

    def test_bfloat16_is_close(self, rooms, codes):
        rough = RoomsGenerator(rooms.network, rooms.mean_code, dtype=torch.bfloat16)
        difference = (rough.synthesize(codes) - rooms.synthesize(codes)).abs()
        assert 0 < difference.mean() < 0.03

    @pytest.mark.parametrize("shape", [(2, 5, 10), (2, 6, 9)])
    def test_codes_of_another_shape_are_refused(self, rooms, shape):
        with pytest.raises(ValueError, match=r"codes must have shape \(n, 6, 10\)"):
            rooms.synthesize(torch.zeros(shape))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_codes_must_be_finite(self, rooms, codes, value):
        broken = codes.clone()
        broken[1, 2, 3] = value
        with pytest.raises(ValueError, match="codes must be finite"):
            rooms.synthesize(broken)

    def test_latents_of_another_width_are_refused(self, rooms):
        with pytest.raises(ValueError, match=r"z must have shape \(n, 6\); got \(2, 7\)"):
            rooms.map(torch.zeros(2, 7))

    @pytest.mark.parametrize("layer", [-1, 6])
    def test_layers_out_of_range_are_refused(self, rooms, codes, layer):
        with pytest.raises(ValueError, match="layer must lie in 0 … 5"):
            rooms.prepare(codes, layer)

    def test_a_state_of_another_batch_is_refused(self, rooms, codes):
        with pytest.raises(ValueError, match="got 5 and 2"):
            rooms.resume(rooms.prepare(codes, 2), codes[:2], 2)

    def test_truncation_for_another_number_of_layers_is_refused(self, rooms):
        with pytest.raises(ValueError, match="one for each of 6 layers"):
            RoomsGenerator(rooms.network, rooms.mean_code, truncation=[0.7, 0.7])


@pytest.fixture(scope="module")
def path(rooms, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "cottage.safetensors"
    generator = RoomsGenerator(rooms.network, rooms.mean_code, truncation=[0.5] * 5 + [1.0])
    generator.save(path, {"images": 12})
    return path


class TestFile:
    def test_comes_back_as_saved(self, rooms, path, codes):
        loaded = RoomsGenerator.load(path)
        assert loaded.name == "cottage"
        assert loaded.metadata == {"images": 12}
        assert loaded.truncation.tolist() == [0.5] * 5 + [1.0]
        for name, tensor in rooms.network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[name], tensor.half().float())
        assert loaded.synthesize(codes).dtype == torch.float32
        assert not list(path.parent.glob("*.partial"))

    def test_options_win_over_what_was_saved(self, path):
        loaded = RoomsGenerator.load(path, truncation=1.0, name="house")
        assert loaded.name == "house"
        assert loaded.truncation.tolist() == [1.0] * 6

    def test_missing_file(self, tmp_path):
        with pytest.raises(MissingWeightsError, match="nowhere"):
            RoomsGenerator.load(tmp_path / "nowhere.safetensors")

    def test_foreign_file(self, tmp_path):
        path = tmp_path / "other.safetensors"
        write_weights(path, {"w": torch.zeros(2)}, {"format": "something else"})
        with pytest.raises(UnknownFormatError, match="is no rooms generator"):
            RoomsGenerator.load(path)
        path.write_bytes(b"GIF89a, certainly no weights")
        with pytest.raises(UnknownFormatError):
            RoomsGenerator.load(path)

    @settings(max_examples=15, deadline=None)
    @given(share=st.floats(0, 0.999))
    def test_a_file_cut_anywhere_is_an_error(self, path, tmp_path_factory, share):
        content = path.read_bytes()
        cut = tmp_path_factory.mktemp("cut") / "cut.safetensors"
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            RoomsGenerator.load(cut)

    def test_a_truncated_file_is_called_so(self, path, tmp_path):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CorruptFileError, match="truncated"):
            RoomsGenerator.load(cut)

    def test_weights_that_do_not_fit_their_configuration(self, rooms, tmp_path):
        path = tmp_path / "odd.safetensors"
        tensors = {**rooms.network.state_dict(), "mean_code": rooms.mean_code}
        config = {"resolution": 16, "channels": [8, 6, 7]}
        header = {"format": "higan-rooms-generator-1", "config": config, "psi": [1.0] * 6, "metadata": {}}
        write_weights(path, tensors, header)
        with pytest.raises(CorruptFileError, match="contradicts itself"):
            RoomsGenerator.load(path)
