"""A generator that grows goes on from the pictures it made."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from higan.generators.rooms import RoomsConfig, build_network
from higan.generators.rooms_parts import upsample
from higan.rooms.discriminator import Discriminator
from higan.rooms.growing import graft, graft_discriminator
from higan.rooms.trainer import Settings, Stage, Trainer

SMALL = RoomsConfig(resolution=16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(8, 6, 5, 4))
LARGE = replace(SMALL, resolution=32)


def networks(large=LARGE):
    """A generator whose pictures stay within bounds, and what grows from it; both with weights of their own."""
    small, grown = build_network(replace(SMALL, rgb_kernel=large.rgb_kernel), seed=1), build_network(large, seed=2)
    with torch.no_grad():
        small.to_rgb["16"].weight *= 0.05
        for layer in small.layers:
            layer.style.bias.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(3))
    grown.load_state_dict(small.state_dict(), strict=False)
    return small, grown


def pictures(network, count=40):
    z = torch.randn(count, 6, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return network(network.map(z)[:, None].expand(-1, len(network.layers), -1))


# A kernel of three pixels meets the picture's edge, where its mean is not quite linear in the code.
@pytest.mark.parametrize(("rgb_kernel", "tolerance"), [(1, 1e-4), (3, 0.01)])
def test_pictures_are_doubled_up_to_their_contrast(rgb_kernel, tolerance):
    small, grown = networks(replace(LARGE, rgb_kernel=rgb_kernel))
    graft(grown, small)
    expected, found = upsample(pictures(small)), pictures(grown)
    assert_close(found.mean((2, 3)), expected.mean((2, 3)), atol=tolerance, rtol=0)
    contrast = expected.std((2, 3), keepdim=True), found.std((2, 3), keepdim=True)
    shapes = [(x - x.mean((2, 3), keepdim=True)) / s for x, s in zip((expected, found), contrast, strict=True)]
    assert_close(shapes[1], shapes[0], atol=0.02, rtol=0)
    assert float((contrast[1] / contrast[0]).log().abs().mean()) < 0.2


def test_where_only_colours_vary_pictures_are_the_same():
    small, grown = networks()
    with torch.no_grad():
        for layer in small.layers:
            half = 0 if layer is not small.layers[-1] else len(layer.style.weight) // 2
            layer.style.weight[: half or None] = 0
    grown.load_state_dict(small.state_dict(), strict=False)
    graft(grown, small)
    expected = upsample(pictures(small))
    assert float(expected.mean((2, 3)).std(0).min()) > 0.01
    assert_close(pictures(grown), expected, atol=2e-3, rtol=0)


def test_other_channels_are_not_listened_to_but_may_be_learned():
    small, grown = networks()
    graft(grown, small)
    before = pictures(grown)
    with torch.no_grad():
        grown.layers[-1].conv.weight[3:] += 1
    assert torch.equal(pictures(grown), before)
    codes = torch.randn(2, len(grown.layers), 10)
    grown(codes).square().sum().backward()
    assert float(grown.to_rgb["32"].weight.grad[:, 3].abs().min()) > 0


def test_layers_too_narrow_for_a_picture_are_left_alone():
    small, grown = networks(replace(LARGE, channels=(8, 6, 5, 2)))
    before = {name: t.clone() for name, t in grown.state_dict().items()}
    graft(grown, small)
    assert all(torch.equal(t, before[name]) for name, t in grown.state_dict().items())


@pytest.mark.parametrize("fade", [0.0, 1.0])
def test_a_training_grows_without_changing_pictures(fade):
    stages = (Stage(16, images=4, batch=4), Stage(32, images=8, batch=4, fade_images=8))
    trainer = Trainer(Settings(stages=stages, network=SMALL), lambda *_: torch.empty(0), dtype=torch.float32)
    trainer.generator.load_state_dict(networks()[0].state_dict())
    expected = upsample(pictures(trainer.generator))
    trainer.advance_stage()
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        codes = trainer.generator.map(z)[:, None].expand(-1, 8, -1)
        found = trainer.generator(codes, fade=fade)
    assert_close(found.mean((2, 3)), expected.mean((2, 3)), atol=1e-4, rtol=0)
    assert float((found - expected).square().mean().sqrt()) < 0.1 * float(expected.std())


JUDGE = RoomsConfig(resolution=64, channels=(6, 5, 4, 7, 26, 3))


def judges(config=JUDGE):
    """A discriminator with a bias everywhere, and what grows from it."""
    small, grown = Discriminator(config, seed=1), Discriminator(replace(config, resolution=128), seed=2)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=random)
    grown.load_state_dict(small.state_dict(), strict=False)
    return small, grown


def test_a_discriminator_judges_what_it_judged_before():
    small, grown = judges()
    graft_discriminator(grown, small)
    images = torch.zeros(8, 3, 128, 128)
    images[:, :, 4:-4, 4:-4] = torch.rand(8, 3, 120, 120, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.inference_mode():
        expected = small(F.avg_pool2d(images, 2))
        assert_close(grown(images), expected, atol=1e-4, rtol=1e-4)
        assert_close(grown(images, fade=0.5), expected, atol=1e-4, rtol=1e-4)
        # At the very edge it sees a little less.
        full = torch.rand(8, 3, 128, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1
        expected = small(F.avg_pool2d(full, 2))
        assert float((grown(full) - expected).abs().max()) < 0.2 * float(expected.std() + expected.abs().mean())


@pytest.mark.parametrize("config", [replace(JUDGE, channels=(6, 5, 4, 7, 23, 3)), replace(JUDGE, resolution=32)])
def test_a_discriminator_that_cannot_is_left_alone(config):
    small = Discriminator(config, seed=1)
    grown = Discriminator(replace(config, resolution=2 * config.resolution), seed=2)
    before = {name: t.clone() for name, t in grown.state_dict().items()}
    graft_discriminator(grown, small)
    assert all(torch.equal(t, before[name]) for name, t in grown.state_dict().items())
