"""A module's blocks become layers in the order in which they run, however the module lists them."""

import pytest
import torch
from torch import nn

from higan.generators.module import from_module


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


def test_layers_are_ordered_as_they_run():
    torch.manual_seed(0)
    network = Backwards()
    generator = from_module(network, 4)
    assert generator.layer_widths == (4, 8, 6)
    codes = generator.map(generator.latents(range(3)))
    plain = network(codes[:, 0, :4])
    torch.testing.assert_close(generator.synthesize(codes), plain)
    # By hand: the second layer's first channel is the fine convolution's.
    moved = codes.clone()
    moved[:, 2, 0] += 0.5
    expected = from_module(network, 4, ["coarse", "fine"]).synthesize(moved)
    bias = network.fine.bias
    with torch.no_grad():
        bias[0] += 0.5
        by_hand = network(codes[:, 0, :4])
        bias[0] -= 0.5
    assert (by_hand - plain).abs().max() > 1e-3
    torch.testing.assert_close(generator.synthesize(moved), by_hand)
    torch.testing.assert_close(expected, by_hand)


def test_blocks_named_in_another_order_are_refused():
    with pytest.raises(ValueError, match=r"in which they run: \['coarse', 'fine'\]; got \['fine', 'coarse'\]"):
        from_module(Backwards(), 4, ["fine", "coarse"])


@pytest.mark.parametrize("blocks", [["coarse", "nowhere"], ["first"]])
def test_blocks_that_are_none_are_refused(blocks):
    with pytest.raises(ValueError, match="block"):
        from_module(Backwards(), 4, blocks)
