"""Directions in closed form against eigen-decompositions done another way, and names against what was planted."""

import numpy as np
import pytest
import torch

from higan import directions, population
from higan.boundaries import random_directions
from higan.directions import discover, pca, sefa
from higan.errors import GeneratorError
from higan.generators.module import ModuleGenerator
from higan.generators.pretrained import wrap
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork
from higan.generators.stylegan import StyleGANConfig, StyleGANNetwork
from higan.generators.stylegan2 import StyleGAN2Config, StyleGAN2Network
from higan.generators.toy import ToyGenerator
from higan.scorers.nulls import NullScorer
from higan.scorers.toy import ToyScorer
from higan.statistics import resample_weights
from higan.types import Boundary, Concept, Edit, StyledGenerator


def filled(network):
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return wrap(network, "filled")


def styled():
    config = RoomsConfig(resolution=16, latent_dim=6, code_dim=8, mapping_layers=2, channels=(8, 8, 4))
    sizes = {"latent_dim": 6, "mapping": (8, 8)}
    return {
        "rooms": RoomsGenerator(RoomsNetwork(config, seed=1), torch.zeros(8)),
        "stylegan": filled(StyleGANNetwork(StyleGANConfig(16, (8, 8, 4), **sizes))),
        "stylegan2": filled(StyleGAN2Network(StyleGAN2Config(16, (8, 8, 4), **sizes))),
    }


def weights_by_name(generator, layer):
    """The matrix as it lies in the network's state."""
    state = generator.network.state_dict()
    if "layers.0.style.weight" in state:
        return state[f"layers.{layer}.style.weight"]
    if layer == generator.num_layers - 1 and "rgb.2.style_weight" in state:
        return state["rgb.2.style_weight"]
    return state[f"layers.{layer}.style_weight"]


@pytest.mark.parametrize("name", ["rooms", "stylegan", "stylegan2"])
@pytest.mark.parametrize("layers", [(0,), (1, 3), tuple(range(6))])
def test_sefa_is_the_singular_value_decomposition(name, layers):
    generator = styled()[name]
    assert isinstance(generator, StyledGenerator)
    layers = tuple(layer for layer in layers if layer < generator.num_layers)
    found = sefa(generator, layers, 4)
    stacked = np.concatenate([weights_by_name(generator, layer).double().numpy() for layer in layers])
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    _, singular, right = np.linalg.svd(stacked)
    for k, candidate in enumerate(found):
        assert candidate.value == pytest.approx(singular[k] ** 2, rel=1e-4)
        assert abs(float(candidate.normal.double() @ torch.from_numpy(right[k].copy()))) == pytest.approx(1, abs=1e-4)
        assert float(candidate.normal[candidate.normal.abs().argmax()]) > 0
    assert [c.value for c in found] == sorted((c.value for c in found), reverse=True)


@pytest.mark.parametrize("name", ["rooms", "stylegan"])
def test_style_weights_are_what_the_styles_are_made_with(name):
    """Styles are affine in the code: their change under a small move is the matrix times the move."""
    generator = styled()[name]
    layer = generator.network.layers[2]
    code, move = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    if name == "rooms":
        change = layer.style((code + move)[None]) - layer.style(code[None])
    else:
        change = torch.nn.functional.linear((code + move)[None], layer.style_weight, layer.style_bias)
        change = change - torch.nn.functional.linear(code[None], layer.style_weight, layer.style_bias)
    torch.testing.assert_close(generator.style_weights(2) @ move, change[0], atol=1e-4, rtol=1e-4)


def test_pca_finds_planted_variances():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    shared = (torch.randn(4000, 6, generator=generator) * torch.tensor([5.0, 3, 1, 1, 1, 1])) @ axes.T
    found = pca(shared[:, None].expand(-1, 3, -1), [0, 2], 2)
    for k, std in enumerate((5.0, 3.0)):
        assert abs(float(found[k].normal @ axes[:, k])) > 0.995
        assert found[k].value == pytest.approx(std**2, rel=0.1)
        assert found[k].value == pytest.approx(np.var((shared @ found[k].normal).double().numpy(), ddof=1), rel=1e-5)
    layered = torch.randn(4000, 3, 6, generator=generator)
    layered[:, 1] += 4 * torch.randn(4000, 1, generator=generator) * axes[:, 4]
    (own,) = pca(layered, [1, 2], 1)
    assert own.normal.shape == (3, 6)
    assert abs(float(own.normal[1] @ axes[:, 4])) > 0.99
    assert not bool(own.normal[0].any())


def test_there_are_as_many_candidates_as_dimensions_that_are_read_or_vary():
    """Not as many as dimensions: eigenvectors of rounding errors would be directions of nothing."""

    dice = torch.Generator().manual_seed(0)
    mixed = torch.randn(3, 8, generator=dice)

    class Narrow(ToyGenerator):
        def style_weights(self, layer):
            return torch.randn(9, 3, generator=dice) @ mixed

    assert len(sefa(Narrow(4, 8), [0], 6)) == 3
    varying = (torch.randn(200, 3, generator=dice) @ mixed)[:, None]
    assert len(pca(varying.expand(-1, 4, -1), [0], 6)) == 3
    assert len(pca(torch.cat([varying, 2 * varying], 1), [0, 1], 6)) == 3
    assert len(pca(torch.randn(3, 2, 8, generator=dice), [1], 6)) == 2


def test_candidates_get_the_names_that_were_planted():
    """Codes of layer l vary four times as much along direction l, so that PCA of each layer finds it."""
    toy = ToyGenerator(4, 8)

    class Stretched(ToyGenerator):
        def map(self, z):
            codes = super().map(z)
            along = (codes * self.directions[:-1]).sum(-1, keepdim=True)
            return codes + along * self.directions[:-1]

    generator = Stretched(4, 8)
    assert torch.equal(generator.directions, toy.directions)
    stages = {f"layer {k}": (k,) for k in range(4)}
    found = discover(generator, ToyScorer(4), method="pca", stages=stages, num=1, step=1.0, num_samples=300)
    for k, discovery in enumerate(found):
        assert discovery.boundary.concept.name == f"planted {k}"
        assert discovery.named
        assert discovery.confidence == 1.0
        assert float(discovery.boundary.normal[k] @ toy.directions[k]) > 0.98
        # One standard deviation of the codes along the direction is one of the planted score.
        assert discovery.effect == pytest.approx(1, abs=0.15)
        assert discovery.low <= discovery.effect <= discovery.high
        assert len(discovery.runners_up) == 2


def test_the_interval_of_the_largest_of_many_changes_holds_the_truth():
    """Of 25 scores that nothing changes, one seems to change most: what that is depends on chance alone."""
    generator, scorer = ToyGenerator(4), NullScorer(25)
    candidate = pca(torch.randn(50, 1, generator.code_dim), (0,), 1)[0]
    trial = Edit(Boundary(scorer.concepts[0], candidate.normal, torch.zeros(()), 0.5), 1.0, (0,))
    weights, held, named = resample_weights(32, 400, 0), [], 0
    for seed in range(200):
        moved = torch.randn(2, 25, 32, generator=torch.Generator().manual_seed(seed))
        found = directions._named(candidate, trial, moved, scorer, weights)
        held.append(found.low <= 0 <= found.high)
        assert found.low < found.effect < found.high
        assert found.chance == pytest.approx(float(moved[1].mean(-1).abs().max()))
        named += found.named
    assert np.mean(held) > 0.92
    # No better than the random direction, it moves a score further than that in every second case.
    assert named <= 0.05 * 200


def test_candidates_move_samples_that_neither_probing_nor_rescoring_has_used():
    seen = []

    class Watched(ToyGenerator):
        def latents(self, seeds):
            seen.extend(seeds)
            return super().latents(seeds)

    discover(Watched(4, 8), ToyScorer(4), num_samples=12, method="pca")
    probed = set(population.sample_seeds(1024).tolist())
    kept = set(population.sample_seeds(12, purpose="verify", first=2**22 + 2**21).tolist())
    rescored = set(population.sample_seeds(4096, purpose="verify").tolist())
    assert set(seen) == probed | kept
    assert not kept & (probed | rescored)


def test_what_changes_nothing_is_not_named():
    generator = ToyGenerator(4, 8)
    # Of five directions that no layer reads, only the noise strip makes anything of one.
    found = discover(generator, ToyScorer(4), method="pca", stages={"a": (0,)}, num=8, step=1.0, num_samples=24)
    assert len(found) == 8
    assert sum(d.named for d in found) < 8


def test_nothing_wins_where_nothing_changes():
    """Of two layers the picture shows the first."""
    generator = ModuleGenerator(
        lambda codes: codes[:, :1, :1, None].expand(-1, 3, 4, 4) / 5, latent_dim=2, layer_widths=(1, 1), resolution=4,
        map=lambda z: z[..., None], shared_code=False,
    )  # fmt: skip
    how = {"method": "pca", "num": 1, "num_samples": 8, "std": torch.ones(2)}
    seen, unseen = discover(generator, Grey(), stages={"seen": (0,), "unseen": (1,)}, **how)
    assert (seen.effect > 0.3, seen.confidence) == (True, 1)
    assert (unseen.effect, unseen.confidence, unseen.named) == (0, 0, False)


def linear():
    """One layer; the picture's grey is a sum of the code's dimensions, of which the first varies ten times as much."""
    # 64 pixels hold grey between two levels.
    dither = (((torch.arange(64) + 0.5) / 64 - 0.5) / 127.5).reshape(8, 8)
    return ModuleGenerator(
        lambda codes: (codes.sum((1, 2))[:, None, None, None] / 200 + dither).expand(-1, 3, -1, -1),
        latent_dim=8, layer_widths=(8,), resolution=8, map=lambda z: (z * torch.tensor([10.0, *[1] * 7]))[:, None],
    )  # fmt: skip


class Grey:
    name, concepts = "grey", (Concept("grey", "colour"), Concept("constant", "attribute"))

    def score(self, images):
        grey = (images.double().mean((1, 2, 3)) / 127.5 - 1).float()
        return torch.stack([grey, torch.zeros_like(grey)], 1)


def test_chance_is_what_random_directions_do_at_the_length_of_each_candidate():
    """A step of λ along r changes the grey by λ Σ r / 200; along the first dimension no more than along another."""
    found = discover(linear(), Grey(), method="pca", stages={"all": (0,)}, num=3, num_samples=40, std=torch.ones(2))
    largest = float(random_directions(5, 8, seed=0).sum(1).abs().max())
    for discovery in found:
        assert discovery.chance == pytest.approx(discovery.step * largest / 200, abs=1e-3)
    assert found[0].step == pytest.approx(30, rel=0.1)
    assert found[1].step == pytest.approx(3, rel=0.2)
    assert not found[0].named


def test_progress_counts_every_image_and_candidates_do_not_depend_on_one_another():
    told = []
    how = {"method": "pca", "stages": {"all": (0,)}, "num": 2, "num_samples": 40}
    found = discover(linear(), Grey(), **how, progress=lambda *counts: told.append(counts))
    # Samples as they are, and moved along two candidates and five random directions for each.
    assert told[-1] == (40 * (1 + 2 * 6), 40 * (1 + 2 * 6))
    alone = discover(linear(), Grey(), **how | {"num": 1})
    assert (alone[0].effect, alone[0].chance) == (found[0].effect, found[0].chance)


def test_layers_of_unlike_width_keep_their_padding():
    """Layers of 4 and 2: each row of a random direction is of unit length within its layer, or grey would say less."""

    def draw(codes):
        grey = codes.sum((1, 2)) / 50
        return grey[:, None, None, None].expand(-1, 3, 4, 4)

    generator = ModuleGenerator(
        draw, latent_dim=4, layer_widths=(4, 2), resolution=4, name="narrow",
        map=lambda z: torch.stack([z, z * torch.tensor([1.0, 1, 0, 0])], 1),
    )  # fmt: skip
    (found,) = discover(generator, Grey(), method="pca", stages={"second": (1,)}, num=1, std=torch.ones(2))
    inside = random_directions(10, 4, seed=0).reshape(5, 2, 4)[:, 1, :2]
    largest = float((inside / inside.norm(dim=1, keepdim=True)).sum(1).abs().max())
    assert found.chance == pytest.approx(found.step * largest / 50, abs=0.01)


def test_sefa_of_a_network_of_ones_own():
    """By its affine layers' weights, which are told where the generator is made."""
    torch.manual_seed(0)
    affine = [torch.nn.Linear(6, 10) for _ in range(3)]
    made = {
        "synthesize": lambda codes: codes[:, :, :3].sum(1)[:, :, None, None].expand(-1, -1, 4, 4),
        "latent_dim": 6, "layer_widths": (6,) * 3, "resolution": 4,
    }  # fmt: skip
    generator = ModuleGenerator(**made, style_weights=lambda layer: affine[layer].weight)
    found = sefa(generator, (0, 2), 2)
    rows = torch.cat([affine[0].weight, affine[2].weight]).detach().double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    right = torch.linalg.svd(rows).Vh[:2]
    for candidate, expected in zip(found, right, strict=True):
        assert float((candidate.normal.double() @ expected).abs()) == pytest.approx(1, abs=1e-5)
    assert not hasattr(ModuleGenerator(**made), "style_weights")
    with pytest.raises(ValueError, match=r"give it a method style_weights\(layer\)"):
        sefa(ModuleGenerator(**made), (0,), 1)
    with pytest.raises(GeneratorError, match=r"must return a matrix \(o, 6\); got \(10, 5\)"):
        sefa(ModuleGenerator(**made, style_weights=lambda layer: affine[layer].weight[:, :5]), (0,), 1)


def test_sefa_has_each_layer_s_part_where_layers_differ_in_width():
    class Narrow(ModuleGenerator):
        def style_weights(self, layer):
            return torch.tensor([[[3.0, 0, 0, 4.0]], [[1.0, 0, 0, 0]]][layer])

    generator = Narrow(
        lambda codes: codes.sum((1, 2))[:, None, None, None].expand(-1, 3, 4, 4) / 50, latent_dim=4,
        layer_widths=(4, 2), resolution=4, map=lambda z: torch.stack([z, z * torch.tensor([1.0, 1, 0, 0])], 1),
    )  # fmt: skip
    (candidate,) = sefa(generator, (0, 1), 1)
    # Rows of unit length, by hand: (0.6, 0, 0, 0.8) and (1, 0, 0, 0), whose first axis bisects them.
    by_hand = torch.tensor([1.6, 0, 0, 0.8]) / 3.2**0.5
    torch.testing.assert_close(candidate.normal, torch.stack([by_hand, by_hand * torch.tensor([1.0, 1, 0, 0])]))
    (found,) = discover(generator, Grey(), stages={"both": (0, 1)}, num=1, std=torch.ones(2))
    assert found.boundary.normal.shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sefa"}, r"does not tell its style weights; use PCA \(--method pca\)"),
        ({"method": "pca", "num": 0}, "1 to 8 directions"),
        ({"method": "pca", "num_random": 0}, "there must be a random direction"),
        # Of two, the interval would hold the truth in 60 % of the cases.
        ({"method": "pca", "num_samples": 2}, "takes 3 samples or more; got 2"),
        ({"method": "pca", "stages": {"x": (9,)}}, "layers go from 0 to 3"),
    ],
)
def test_bad_requests(options, words):
    with pytest.raises(ValueError, match=words):
        discover(ToyGenerator(4, 8), ToyScorer(4), **options)
    deaf = ToyGenerator(4, 8)
    deaf.style_weights = lambda layer: torch.zeros(5, 8)
    with pytest.raises(
        ValueError, match="no direction to follow at these layers: 'toy' reads nothing of its code there"
    ):
        discover(deaf, ToyScorer(4), method="sefa")
    with pytest.raises(ValueError, match="at least 2 codes"):
        pca(population.sample(ToyGenerator(), [1]), [0], 1)


SCALES = torch.tensor([10.0, 1.0, 0.01])


def uneven():
    """Three layers of widths 4, 8 and 6, whose codes vary by 10, 1 and 0.01."""
    inside = torch.arange(8) < torch.tensor([4, 8, 6])[:, None]

    def spread(z):
        return z.reshape(-1, 3, 8) * SCALES[:, None] * inside

    return ModuleGenerator(
        lambda codes: codes[:, :1, 0, None, None].expand(-1, 3, 4, 4) / 50, latent_dim=24, layer_widths=(4, 8, 6),
        resolution=4, map=spread, shared_code=False, style_weights=lambda layer: torch.eye(8) * inside[layer],
    )  # fmt: skip


def test_an_axis_of_several_layers_moves_each_as_far_as_the_codes_vary_along_it():
    """Against numpy's decomposition; no layer may be taken hundreds of its own standard deviations away."""
    generator = uneven()
    codes = population.sample(generator, population.sample_seeds(1024))
    (found,) = pca(codes, [0, 1, 2], 1)
    flat = codes.double().flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    assert found.value == pytest.approx(values[-1], rel=1e-6)
    axis = torch.from_numpy(vectors[:, -1].reshape(3, 8).copy()).float()
    torch.testing.assert_close(found.normal, axis * (found.normal[0, 0] / axis[0, 0]), atol=1e-6, rtol=1e-3)
    assert float(found.normal.norm(dim=1).max()) == pytest.approx(1, abs=1e-6)
    own, *random = directions._trials(generator, found, codes, 3.0, 2, 0)
    moved = own.strength * own.boundary.normal
    assert float(moved.norm()) == pytest.approx(3 * values[-1] ** 0.5, rel=1e-3)
    for other in random:
        torch.testing.assert_close((other.strength * other.boundary.normal).norm(dim=1), moved.norm(dim=1))
    assert bool((moved.norm(dim=1) <= 3.2 * SCALES).all())


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_is_so_many_standard_deviations_of_the_codes_whatever_the_layers(shared):
    """Along the direction as a whole, of whose length each of three layers has a part."""
    generator = ToyGenerator(4, 8, shared_code=shared)
    codes = population.sample(generator, range(200))
    (found,) = pca(codes, [0, 1, 3], 1)
    own, *_ = directions._trials(generator, found, codes, 3.0, 1, 0)
    one = codes[:, 0] if shared else codes.flatten(1)
    unit = found.normal.flatten() / found.normal.norm()
    assert float(own.strength * found.normal.norm()) == pytest.approx(3 * np.std((one @ unit).numpy()), rel=1e-4)


def test_a_layer_has_no_more_directions_than_it_is_wide():
    generator = uneven()
    for method in ("pca", "sefa"):
        found = discover(generator, Grey(), method=method, num=6, num_samples=4, num_random=1)
        assert [d.candidate.layers[0] for d in found] == [0] * 4 + [1] * 6 + [2] * 6
        assert all(d.candidate.value > 0 for d in found)
