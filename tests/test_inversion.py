"""Pictures back into codes: on the toy, whose best code is known, and on a small network with random weights."""

import inspect
import math

import pytest
import torch

from higan import population
from higan.errors import CorruptFileError, GeneratorError, UnknownFormatError
from higan.generators.module import ModuleGenerator
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork, estimate_mean_code
from higan.generators.toy import ToyGenerator
from higan.inversion import _grey_levels, code_space, invert, load_inversion, save_inversion
from higan.weights import read_weights, write_weights


def rooms():
    network = RoomsNetwork(
        RoomsConfig(resolution=16, latent_dim=6, code_dim=8, mapping_layers=2, channels=(8, 8, 4)), seed=1
    )
    return RoomsGenerator(network, estimate_mean_code(network, 4096))


@pytest.fixture(scope="module")
def toy():
    generator = ToyGenerator(3, 6)
    return generator, code_space(generator)


def test_the_space_is_round_and_of_unit_size(toy):
    generator, space = toy
    # Codes are standard normal: mean 0, covariance the identity, distances about 1.
    torch.testing.assert_close(space.mean, torch.zeros(3, 6), atol=0.08, rtol=0)
    torch.testing.assert_close(space.basis, torch.eye(6).expand(3, -1, -1), atol=0.08, rtol=0)
    fresh = population.sample(generator, range(10**6, 10**6 + 500))
    expected = fresh.square().mean((1, 2)).sqrt()
    torch.testing.assert_close(space.distance(fresh), expected, atol=0.1, rtol=0)
    share = space.percentile(space.distance(fresh))
    assert float((share < 30).double().mean()) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("width", [8, 256])
def test_fresh_samples_are_as_far_out_as_samples(width):
    """Also where there are few samples for so many dimensions, and codes of one layer never vary."""
    generator = ModuleGenerator(
        lambda codes: torch.zeros(len(codes), 3, 4, 4), latent_dim=2 * width, layer_widths=(width, width, width),
        map=lambda z: torch.cat([z, torch.ones(len(z), width)], 1).unflatten(1, (3, width)), resolution=4, shared_code=False, name="wide",
    )  # fmt: skip
    space = code_space(generator, num=1000)
    fresh = space.distance(population.sample(generator, range(10**6, 10**6 + 400)))
    assert float(fresh.square().mean().sqrt()) == pytest.approx(1, abs=0.03)
    assert 45 < float(space.percentile(fresh).mean()) < 55
    with pytest.raises(ValueError, match=f"{width} samples are too few for codes of"):
        code_space(generator, num=width)


def test_coordinates_and_codes_are_inverse():
    space = code_space(rooms())
    v = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    codes = space.codes(v)
    torch.testing.assert_close(space.distance(codes), v.square().mean((1, 2)).sqrt(), atol=1e-2, rtol=0)


def test_the_one_code_of_a_picture_is_found():
    """Twelve numbers make 48 pixels by an invertible map: there is one code, and it is found."""
    weight = torch.randn(12, 48, generator=torch.Generator().manual_seed(0)) / 12
    generator = ModuleGenerator(
        lambda codes: torch.tanh(codes.flatten(1) @ weight).reshape(-1, 3, 4, 4),
        latent_dim=6, layer_widths=(6, 6), resolution=4, shared_code=False, name="one to one",
    )  # fmt: skip
    code = population.sample(generator, [5])[0]
    pictures = population.render(generator, code[None])
    (found,) = invert(generator, pictures, layer_steps=400, candidates=0, regularise=0.0)
    torch.testing.assert_close(found.code, code, atol=0.06, rtol=0)
    assert found.error < 1
    assert found.layer_spread == 0


def test_a_random_network_s_picture_is_explained_and_regularised():
    generator = rooms()
    space = code_space(generator)
    pictures = population.render(generator, population.sample(generator, [2**31 + 3]))
    loose, strict = (
        invert(generator, pictures, space=space, shared_steps=60, layer_steps=60, candidates=16, regularise=weight)[0]
        for weight in (0.0, 3.0)
    )
    assert loose.error < 0.4 * loose.start_error
    assert strict.error > loose.error
    assert strict.distance < loose.distance
    assert strict.layer_spread < loose.layer_spread
    assert 0 <= strict.percentile <= 100
    assert len(loose.losses) == 120
    redrawn = population.render(generator, loose.code[None])[0]
    assert torch.equal(redrawn, loose.image)
    error = (loose.image.double() - pictures[0].double()).square().mean().sqrt()
    assert loose.error == pytest.approx(float(error), abs=0.5)


def test_an_inversion_is_kept_whole(toy, tmp_path):
    generator, space = toy
    pictures = population.render(generator, population.sample(generator, [3]))
    (found,) = invert(generator, pictures, space=space, layer_steps=3, candidates=2)
    save_inversion(tmp_path / "kept.safetensors", found)
    again = load_inversion(tmp_path / "kept.safetensors")
    assert torch.equal(again.code, found.code)
    assert torch.equal(again.image, found.image)
    for name in ("error", "start_error", "distance", "percentile", "layer_spread", "losses"):
        assert getattr(again, name) == getattr(found, name)
    tensors, header = read_weights(tmp_path / "kept.safetensors")
    del header["told"]["error"]
    write_weights(tmp_path / "kept.safetensors", tensors, header)
    with pytest.raises(CorruptFileError, match=r"error.*invert the picture again"):
        load_inversion(tmp_path / "kept.safetensors")
    write_weights(tmp_path / "kept.safetensors", tensors, {"format": "something"})
    with pytest.raises(UnknownFormatError, match="expected 'higan-inversion-1', got 'something'"):
        load_inversion(tmp_path / "kept.safetensors")


def test_features_take_part(toy):
    generator, space = toy
    pictures = population.render(generator, population.sample(generator, [1]))
    seen = []

    def features(images):
        seen.append(len(images))
        return images.mean((2, 3)) * 3

    invert(generator, pictures, space=space, features=features, layer_steps=3, candidates=0)
    assert len(seen) == 5  # the picture, the start, three steps


@pytest.mark.parametrize("features", [None, lambda images: 1 + images.flatten(1)[:, :7] ** 2])
def test_the_loss_by_its_definition(features):
    """At the code it starts from: pixels, their means over squares of 2 and 4, features relative to the picture's."""
    generator = rooms()
    space = code_space(generator, num=500)
    pictures = population.render(generator, population.sample(generator, [3]))
    how = {"space": space, "features": features, "shared_steps": 0, "candidates": 8}
    (start,) = invert(generator, pictures, layer_steps=0, **how)
    (free,) = invert(generator, pictures, layer_steps=1, regularise=0.0, **how)
    (bound,) = invert(generator, pictures, layer_steps=1, regularise=0.5, **how)
    drawn = generator.synthesize(start.code[None]).detach()
    target = pictures.float() / 127.5 - 1
    levels = [
        float((drawn - target).unflatten(2, (-1, side)).unflatten(4, (-1, side)).mean((3, 5)).square().mean())
        for side in (1, 2, 4)
    ]
    expected = levels[0] + sum(levels) / 3
    if features is not None:
        wanted = features(target)
        expected += float((features(drawn) - wanted).square().mean() / wanted.square().mean())
    assert free.losses == pytest.approx((expected,), rel=1e-4)
    # Distances are of unit size for fresh samples, the penalty for those that mean and spread come from.
    penalty = 0.5 * start.distance**2 * float(space.size[0] / space.rank[0])
    assert bound.losses[0] - free.losses[0] == pytest.approx(penalty, rel=1e-3)


def test_of_all_codes_on_the_way_the_best_is_kept():
    """At a rate so high that the first step leads astray."""
    generator = rooms()
    space = code_space(generator, num=500)
    pictures = population.render(generator, population.sample(generator, [3, 4]))
    how = {"space": space, "shared_steps": 0, "candidates": 8, "regularise": 0.0}
    starts = invert(generator, pictures, layer_steps=0, **how)
    for start, found in zip(starts, invert(generator, pictures, layer_steps=2, rate=1000.0, **how), strict=True):
        assert found.losses[1] > found.losses[0]
        assert found.error == pytest.approx(start.error)


def test_layers_spread_by_their_distance_from_the_mean_of_all():
    generator = rooms()
    space = code_space(generator, num=500)
    pictures = population.render(generator, population.sample(generator, [3]))
    (found,) = invert(generator, pictures, space=space, shared_steps=1, layer_steps=3, candidates=0)
    v = (found.code - space.mean[0]) @ space.whiten[0]
    expected = ((v - v.mean(0)).square().sum() / len(v) / space.rank[0]).sqrt()
    assert found.layer_spread == pytest.approx(float(expected), rel=1e-3)
    assert not 0.9 < found.layer_spread < 1.1


def test_percentiles_by_hand(toy):
    _, space = toy
    middle = space.sampled[len(space.sampled) // 2]
    found = space.percentile(torch.stack([torch.zeros(()), middle, torch.tensor(100.0)]))
    assert found.tolist() == [0, 50, 100]


def test_padding_of_narrow_layers_stays_zero():
    def draw(codes):
        return torch.tanh(codes.sum((1, 2)))[:, None, None, None].expand(-1, 3, 4, 4)

    generator = ModuleGenerator(
        draw, latent_dim=5, layer_widths=(5, 2), resolution=4, name="narrow",
        map=lambda z: torch.stack([z, z * torch.tensor([1.0, 1, 0, 0, 0])], 1), shared_code=False,
    )  # fmt: skip
    pictures = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)
    (found,) = invert(generator, pictures, layer_steps=40, candidates=4, regularise=1e-3)
    assert not bool(found.code[1, 2:].any())
    assert found.error < 5


def test_several_pictures_are_found_as_each_alone():
    """From different starts, with different best steps: a picture's code has nothing to do with the others."""
    generator = rooms()
    space = code_space(generator)
    pictures = population.render(generator, population.sample(generator, [2**31 + k for k in range(3)]))
    how = {"space": space, "features": lambda images: images.mean((2, 3)) * 3, "candidates": 8}
    steps = {"shared_steps": 6, "layer_steps": 6}
    found = invert(generator, pictures, **how, **steps)
    assert len(found) == 3
    for picture, together in zip(pictures, found, strict=True):
        (alone,) = invert(generator, picture[None], **how, **steps)
        assert len(together.losses) == 12
        for name in ("error", "start_error", "distance", "layer_spread", "losses"):
            assert getattr(together, name) == pytest.approx(getattr(alone, name), rel=0.01), name
        torch.testing.assert_close(together.code, alone.code, atol=0.01, rtol=0)


def test_bad_requests(toy):
    generator, space = toy
    pictures = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"8 x 8 pixels, so that .* got \(1, 3, 4, 4\): open files"):
        invert(generator, pictures[:, :, :4, :4], space=space)
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\): picture\[None\] makes a batch of one"):
        inspect.unwrap(invert)(generator, pictures[0], space=space)
    with pytest.raises(ValueError, match=r"got \(0, 3, 8, 8\)"):
        invert(generator, pictures[:0], space=space)
    with pytest.raises(ValueError, match="0 or more"):
        invert(generator, pictures, space=space, layer_steps=-1)
    # Told by name, not as codes that are not finite some steps later.
    for name in ("regularise", "perceptual", "rate"):
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=rf"{name} must be .* finite; got {value}"):
                invert(generator, pictures, space=space, **{name: value})
    with pytest.raises(ValueError, match="at least 2 samples"):
        code_space(generator, num=1)
    opaque = ModuleGenerator(
        lambda codes: torch.zeros(len(codes), 3, 4, 4), latent_dim=5, layer_widths=(5, 5), resolution=4, name="opaque"
    )
    with pytest.raises(GeneratorError, match="no gradient reaches the codes of 'opaque'"):
        invert(opaque, pictures[..., :4, :4], regularise=0.0, candidates=0)


@pytest.mark.parametrize("convert", [torch.Tensor.float, torch.Tensor.numpy, torch.Tensor.tolist])
def test_pictures_of_another_kind_are_refused(toy, convert):
    generator, space = toy
    picture = convert(torch.zeros(3, generator.resolution, generator.resolution, dtype=torch.uint8))
    # As users meet it; under pytest the annotation of the picture refuses it before.
    with pytest.raises(ValueError, match=r"must be a tensor of uint8, .*higan\.population\.to_uint8"):
        inspect.unwrap(invert)(generator, picture, space=space, shared_steps=0, layer_steps=0)


def test_errors_are_those_of_pictures_that_can_be_seen():
    """A network without bounds may overshoot; bytes do not."""
    image, target = torch.full((1, 3, 4, 4), 3.0), torch.ones(1, 3, 4, 4)
    assert _grey_levels(image, target).tolist() == [0.0]
    assert _grey_levels(image / 6, target).tolist() == [63.75]
