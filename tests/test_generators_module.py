"""A module's blocks become layers in the order in which they run, in units of their spread; what fits nowhere is told."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from higan.errors import GeneratorError
from higan.generators.module import ModuleGenerator, _check_module, from_module


class Backwards(nn.Module):
    """Lists its parts from the image to the latent."""

    def __init__(self):
        super().__init__()
        self.rgb = nn.Conv2d(6, 3, 1)
        self.fine = nn.Conv2d(8, 6, 3, padding=1)
        self.coarse = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Linear(4, 8 * 16)

    def forward(self, z):
        x = torch.relu(self.coarse(self.first(z).view(-1, 8, 4, 4)))
        return torch.tanh(self.rgb(torch.relu(self.fine(nn.functional.interpolate(x, scale_factor=2.0)))))


def sampled(generator):
    """Latents that the units of blocks come from."""
    return generator.latents(range(2**31 - 256, 2**31))


def test_layers_are_ordered_as_they_run():
    torch.manual_seed(0)
    network = Backwards()
    generator = from_module(network, 4)
    assert generator.layer_widths == (4, 8, 6)
    codes = generator.map(generator.latents(range(3)))
    plain = network(codes[:, 0, :4])
    torch.testing.assert_close(generator.synthesize(codes), plain)
    # By hand: the second layer's first channel is the fine convolution's, moved by half its spread.
    moved = codes.clone()
    moved[:, 2, 0] += 0.5
    with torch.no_grad():
        x = torch.relu(network.coarse(network.first(sampled(generator)).view(-1, 8, 4, 4)))
        by = 0.5 * network.fine(nn.functional.interpolate(x, scale_factor=2.0)).mean((2, 3))[:, 0].std()
    expected = from_module(network, 4, ["coarse", "fine"]).synthesize(moved)
    bias = network.fine.bias
    with torch.no_grad():
        bias[0] += by
        by_hand = network(codes[:, 0, :4])
        bias[0] -= by
    assert (by_hand - plain).abs().max() > 1e-3
    torch.testing.assert_close(generator.synthesize(moved), by_hand)
    torch.testing.assert_close(expected, by_hand)


def test_a_module_put_back_into_training_is_left_alone():
    network = nn.Sequential(Backwards(), nn.BatchNorm2d(3))
    generator = from_module(network, 4)
    z, before = generator.latents(range(2)), network[1].running_mean.clone()
    network.train()
    for use in (generator.map, lambda z: generator.synthesize(torch.zeros(2, *generator.truncation.shape, 8))):
        with pytest.raises(GeneratorError, match=r"put back into training mode.*call eval"):
            use(z)
    assert torch.equal(network[1].running_mean, before)
    network.eval()
    assert generator.map(z).shape == (2, 3, 8)


def test_threads_that_draw_at_once_do_not_meet_in_the_module():
    torch.manual_seed(0)
    generator = from_module(Backwards(), 4)
    codes = generator.map(generator.latents(range(40)))
    codes[:, 1] += torch.randn(40, 1)
    alone = [generator.synthesize(code[None]) for code in codes]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda code: generator.synthesize(code[None]), codes.repeat(5, 1, 1)))
    assert all(torch.equal(image, alone[k % 40]) for k, image in enumerate(together))


def test_blocks_named_in_another_order_are_refused():
    with pytest.raises(ValueError, match=r"in which they run: \['coarse', 'fine'\]; got \['fine', 'coarse'\]"):
        from_module(Backwards(), 4, ["fine", "coarse"])


@pytest.mark.parametrize("blocks", [["coarse", "nowhere"], ["first"]])
def test_blocks_that_are_none_are_refused(blocks):
    with pytest.raises(ValueError, match="block"):
        from_module(Backwards(), 4, blocks)


class Styled(nn.Module):
    """From a constant: its first convolution sees no latent, its last one's channels shrink to a hundredth."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.start = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.constant = nn.Conv2d(8, 8, 3, padding=1)
        self.style = nn.Linear(4, 8)
        self.styled = nn.Conv2d(8, 6, 3, padding=1)
        self.rgb = nn.Conv2d(6, 3, 1)

    def forward(self, z):
        x = self.constant(self.start.expand(len(z), -1, -1, -1)) * (1 + self.style(z)[:, :, None, None])
        return torch.tanh(self.rgb(self.styled(x * 0.01)))


def test_codes_of_blocks_have_mean_zero_and_spread_one():
    for network in (Backwards(), Styled()):
        generator = from_module(network, 4)
        codes = generator.map(sampled(generator))
        for layer, width in enumerate(generator.layer_widths[1:], 1):
            torch.testing.assert_close(codes[:, layer, :width].std(0), torch.ones(width), rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(codes[:, layer, :width].mean(0), torch.zeros(width), rtol=0, atol=1e-3)
        again = from_module(network, 4)
        assert torch.equal(again.map(sampled(again)), codes)


def test_a_block_that_no_latent_reaches_has_no_code():
    generator = from_module(Styled(), 4)
    assert generator.layer_widths == (4, 6)
    with pytest.raises(ValueError, match="channel means of constant do not depend on the latent"):
        from_module(Styled(), 4, ["constant", "styled"])


def test_a_channel_that_no_latent_reaches_is_not_moved():
    network = Styled()
    with torch.no_grad():
        network.styled.weight[2] = 0
    generator = from_module(network, 4)
    codes = generator.map(generator.latents(range(3)))
    assert not codes[:, 1, 2].any()
    moved = codes.clone()
    moved[:, 1, 2] += 3
    assert torch.equal(generator.synthesize(moved), generator.synthesize(codes))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_modules_of_other_precision_give_float32(dtype):
    generator = from_module(Backwards().to(dtype), 4)
    codes = generator.map(generator.latents(range(2)))
    moved = codes.clone()
    moved[:, 1, :8] += 2
    assert codes.dtype == generator.synthesize(codes).dtype == torch.float32
    assert (generator.synthesize(moved) - generator.synthesize(codes)).abs().max() > 0.01


class Around(nn.Module):
    """A network whose latents go in, or images come out, in another way."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.network = Backwards()
        self.before, self.after = before, after

    def forward(self, z):
        image = self.network(self.before(z) if self.before else z)
        return self.after(image) if self.after else image


class Conditional(Backwards):
    def forward(self, z, label):
        return super().forward(z)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Around(after=lambda x: (x, None)), "got tuple: wrap it in a module whose forward returns the images alone"),
        (Around(after=lambda x: {"sample": x}), "got dict: wrap it"),
        (Around(after=lambda x: x[:, :1]), r"square RGB images \(n, 3, H, H\); got \(2, 1, 8, 8\)"),
        (Around(after=lambda x: x[:, :, :4]), r"got \(2, 3, 4, 8\)"),
        (Around(after=lambda x: (x * 9).byte()), "floating-point images in .*; got torch.uint8"),
        (
            Around(before=lambda z: z[:, :, 0, 0]),
            r"It takes \(n, 4, 1, 1\): put nn.Unflatten\(1, \(4, 1, 1\)\) before it",
        ),
        (
            Around(before=lambda z: z @ torch.ones(7, 4)),
            r"latents of shape \(2, 4\).*RuntimeError.*Is latent_dim right",
        ),
        (Conditional(), "forward takes z, label: wrap it in a module that passes one label for all"),
    ],
)
def test_modules_of_another_form_are_told_what_to_mend(module, told):
    with pytest.raises(GeneratorError, match=told):
        from_module(module, 4)


def test_latents_of_another_width_are_told():
    with pytest.raises(GeneratorError, match=r"a row of latent_dim = 4 numbers per seed; got \(256, 7\)"):
        from_module(Backwards(), 4, latents=lambda seeds: torch.zeros(len(seeds), 7))


def test_what_has_no_blocks_is_told_what_to_mend():
    with pytest.raises(ValueError, match=r"no convolution .* declare layers of another kind with ModuleGenerator"):
        from_module(nn.Sequential(nn.Linear(4, 3 * 64), nn.Unflatten(1, (3, 8, 8))), 4)
    with pytest.raises(ValueError, match=r"takes a torch\.nn\.Module; got function"):
        _check_module(lambda z: z)


def declared(**given):
    chosen = {"latent_dim": 4, "layer_widths": [4, 4], "resolution": 2, "name": "mine", **given}
    return ModuleGenerator(lambda codes: codes[:, 0, :3, None, None].expand(-1, -1, 2, 2), **chosen)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"truncation": 0.7, "mean_code": torch.zeros(4)},
            r"truncation must have shape \(2,\); got \(\); give one factor",
        ),
        ({"truncation": [0.7] * 3, "mean_code": torch.zeros(4)}, r"truncation must have shape \(2,\); got \(3,\)"),
        ({"truncation": ["a", "b"], "mean_code": torch.zeros(4)}, "truncation must be numbers"),
        ({"truncation": [0.7] * 2}, "truncation needs a mean_code"),
        ({"mean_code": torch.zeros(5)}, r"mean_code must have shape \(4,\) or \(2, 4\); got \(5,\)"),
    ],
)
def test_what_does_not_fit_the_layers_is_refused_at_once(given, told):
    with pytest.raises(ValueError, match=told):
        declared(**given)


def test_arrays_are_taken_for_tensors():
    generator = declared(
        mean_code=np.zeros(4), truncation=np.full(2, 0.5), latents=lambda seeds: np.ones((len(seeds), 4))
    )
    z = generator.latents([1, 2])
    assert z.dtype == generator.mean_code.dtype == generator.truncation.dtype == torch.float32
    assert (generator.synthesize(generator.map(z)) == 0.5).all()


def test_what_functions_return_is_told_with_its_type():
    generator = declared(map=lambda z: z[:, None].expand(-1, 2, -1).long())
    with pytest.raises(GeneratorError, match=r"map of mine must return .* got int64 of shape \(1, 2, 4\)"):
        generator.map(generator.latents([0]))
    generator = declared(latents=lambda seeds: "seven")
    with pytest.raises(GeneratorError, match=r"latents of mine must return .* got str"):
        generator.latents([0])
