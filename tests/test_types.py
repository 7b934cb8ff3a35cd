"""Protocols are recognised in objects of any make."""

import torch
from torch import nn

from higan import load_scorer, rescoring
from higan.boundaries import fit
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork
from higan.population import measure
from higan.types import Generator, RaggedGenerator, RepeatedGenerator, StagedGenerator, StyledGenerator


@Generator.register  # For the run-time checks of these tests, which do not see buffers either.
class Wrapped(nn.Module):
    """A generator as people write them: a module, whose truncation is a buffer and moves to a device with it."""

    def __init__(self, drawing):
        super().__init__()
        self.drawing = drawing
        self.prepared = []
        self.register_buffer("truncation", drawing.truncation)
        for name in ("name", "num_layers", "code_dim", "latent_dim", "resolution", "device", "shared_code"):
            setattr(self, name, getattr(drawing, name))

    def latents(self, seeds):
        return self.drawing.latents(seeds)

    def map(self, z):
        return self.drawing.map(z)

    def synthesize(self, codes):
        return self.drawing.synthesize(codes)

    def prepare(self, codes, layer):
        self.prepared.append(layer)
        return self.drawing.prepare(codes, layer)

    def resume(self, state, codes, layer):
        return self.drawing.resume(state, codes, layer)


def test_a_module_with_its_truncation_in_a_buffer_is_what_it_can_do():
    config = RoomsConfig(resolution=16, latent_dim=6, code_dim=8, mapping_layers=2, channels=(8, 8, 4))
    drawing = RoomsGenerator(RoomsNetwork(config, seed=1), torch.zeros(8), truncation=0.7)
    generator = Wrapped(drawing)
    assert isinstance(generator, StagedGenerator)
    assert not isinstance(generator, RaggedGenerator | RepeatedGenerator | StyledGenerator)
    generator.layer_widths = (8,) * 6
    assert isinstance(generator, RaggedGenerator)
    # And it is asked for what it can do.
    scorer = load_scorer("colour")
    boundaries = fit(measure(generator, scorer, range(60)))
    found = rescoring.rescore(generator, scorer, boundaries, num=4, num_random=2)
    assert {1, 2, 3, 4, 5} == {*generator.prepared}
    expected = rescoring.rescore(drawing, scorer, boundaries, num=4, num_random=2)
    torch.testing.assert_close(found.changes, expected.changes)
