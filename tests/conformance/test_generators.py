"""Every adapter keeps the contract of `higan.types.Generator`."""

import pytest
import torch
from adapters import ADAPTERS, FAMILIES

from higan.generators.pretrained import StagedGenerator, wrap
from higan.generators.states import repeated
from higan.types import Generator, RepeatedGenerator


@pytest.fixture(params=ADAPTERS, scope="module")
def generator(request):
    return ADAPTERS[request.param]()


@pytest.fixture
def codes(generator):
    return generator.map(generator.latents(range(3))).clone()


def widths(generator):
    return getattr(generator, "layer_widths", (generator.code_dim,) * generator.num_layers)


def direction(generator, layer, seed=5):
    """A unit step that stays within the layer's width."""
    step = torch.zeros(generator.code_dim)
    width = widths(generator)[layer]
    step[:width] = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return step / step.norm()


def test_has_the_protocol_s_attributes(generator):
    assert isinstance(generator, Generator)
    assert isinstance(generator.name, str)
    assert generator.truncation.shape == (generator.num_layers,)


def test_shapes_and_range(generator, codes):
    assert codes.shape == (3, generator.num_layers, generator.code_dim)
    images = generator.synthesize(codes)
    assert images.shape == (3, 3, generator.resolution, generator.resolution)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.01


def test_latents_depend_on_their_own_seed_alone(generator):
    torch.manual_seed(1)
    some = generator.latents([4, 0, 4])
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(generator.latents([0]), some[1:2])
    assert torch.equal(some[0], some[2])
    assert not torch.equal(some[0], some[1])
    torch.set_rng_state(state)


def test_nothing_touches_the_global_random_state(generator):
    state = torch.get_rng_state()
    generator.synthesize(generator.map(generator.latents([1])))
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_the_same_every_time(generator, codes):
    assert torch.equal(generator.synthesize(codes), generator.synthesize(codes))


def test_rows_do_not_depend_on_their_batch(generator, codes):
    together = generator.synthesize(codes)
    alone = torch.cat([generator.synthesize(row[None]) for row in codes])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    if isinstance(generator, StagedGenerator):
        assert torch.equal(together, alone)


def test_shared_code_means_equal_rows(generator, codes):
    equal = bool((codes == codes[:, :1]).all())
    assert equal == (generator.shared_code or generator.num_layers == 1)


def test_every_layer_matters_and_only_within_its_width(generator, codes):
    before = generator.synthesize(codes)
    unused = {6, 7} if generator.name == "stylegan unfinished" else set()
    for layer in range(generator.num_layers):
        edited = codes.clone()
        edited[:, layer] += 3 * direction(generator, layer)
        moved = (generator.synthesize(edited) - before).abs().max()
        assert (moved == 0) if layer in unused else (moved > 1e-4), layer


def test_gradients_reach_every_layer_s_code(generator, codes):
    codes.requires_grad_()
    target = torch.randn(3, generator.resolution, generator.resolution, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((generator.synthesize(codes) * target).sum(), codes)
    assert torch.isfinite(gradient).all()
    used = gradient.abs().amax((0, 2)) > 0
    assert used.sum() == generator.num_layers - (2 if generator.name == "stylegan unfinished" else 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_central_differences(name):
    network = FAMILIES[name]().double()
    z = torch.randn(1, network.config.latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = network.map(z, torch.tensor([1]) if network.config.num_classes else None).clone()
    target = torch.randn(1, 1, *(network.config.resolution,) * 2, generator=torch.Generator().manual_seed(1))
    step = torch.randn(codes.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss(values):
        return (network.synthesize(values, noise=True) * target).sum()

    with torch.no_grad():
        difference = (loss(codes + 1e-7 * step) - loss(codes - 1e-7 * step)) / 2e-7
    codes.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(codes), codes)
    assert (gradient * step).sum().item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-5)


def test_no_graph_is_recorded_unasked(generator, codes):
    assert not generator.synthesize(codes).requires_grad


def test_wrong_shapes_are_refused(generator, codes):
    with pytest.raises(ValueError, match="codes"):
        generator.synthesize(torch.cat([codes, codes[:, :1]], dim=1))
    with pytest.raises(ValueError, match="codes"):
        generator.synthesize(torch.nn.functional.pad(codes, (0, 1)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(generator, codes, bad):
    codes[0, 0, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        generator.synthesize(codes)


def test_padding_may_not_be_touched(generator, codes):
    for layer, width in enumerate(widths(generator)):
        if width < generator.code_dim:
            codes[1, layer, width] = 1e-3
            with pytest.raises(ValueError, match=f"layer {layer}"):
                generator.synthesize(codes)
            return


def test_no_samples_give_no_images(generator):
    codes = generator.map(generator.latents([]))
    assert codes.shape == (0, generator.num_layers, generator.code_dim)
    assert generator.synthesize(codes).shape == (0, 3, generator.resolution, generator.resolution)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", [name for name in FAMILIES if "conditional" in name or "biggan" in name])
def test_labels_of_any_whole_type_are_numbers_of_classes(name, dtype):
    generator = wrap(FAMILIES[name](), name)
    z = generator.latents([0, 1, 2])
    labels = torch.tensor([2, 1, 1])
    assert torch.equal(generator.map(z, labels.to(dtype)), generator.map(z, labels))


def test_a_pggan_is_not_truncated():
    with pytest.raises(ValueError, match=r"PGGAN sets the length .* truncation_psi 0\.3"):
        wrap(FAMILIES["pggan"](), "pggan", truncation_psi=0.3)
    assert wrap(FAMILIES["pggan"](), "pggan", truncation_psi=1.0).truncation.eq(1).all()


def test_labels_are_checked():
    conditional = wrap(FAMILIES["stylegan conditional"](), "x")
    z = conditional.latents([0, 1])
    with pytest.raises(ValueError, match="with_label"):
        conditional.map(z)
    for labels in ([0, 3], [-1, 0], [0], 3):
        with pytest.raises(ValueError, match="labels"):
            conditional.map(z, labels)
    assert torch.equal(conditional.map(z, [2, 1])[1], conditional.map(z, 1)[1])
    assert torch.equal(conditional.map(z, 2), conditional.with_label(2).map(z))
    assert not torch.equal(conditional.map(z, 2), conditional.map(z, 1))
    with pytest.raises(ValueError, match="not class-conditional"):
        wrap(FAMILIES["stylegan"](), "x").map(z, [0, 1])


# ---- truncation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("stylegan")])
@pytest.mark.parametrize(("psi", "layers"), [(0.7, 3), (0.0, None)])
def test_editing_before_truncation_is_editing_after_it_by_a_scaled_step(name, psi, layers):
    network = FAMILIES[name]()
    truncated = wrap(network, name, "cpu", psi, layers)
    plain = wrap(network, name, "cpu", 1.0)
    labels = [1, 0] if truncated.num_classes else None
    codes = truncated.map(truncated.latents([0, 1]), labels)
    count = truncated.num_layers if layers is None else layers
    factors = [psi if layer < count else 1.0 for layer in range(truncated.num_layers)]
    assert truncated.truncation.tolist() == pytest.approx(factors)
    for layer in range(truncated.num_layers):
        step = 2 * direction(truncated, layer)
        edited = codes.clone()
        edited[:, layer] += step
        # The official order: truncate layer by layer, then add a step scaled by the layer's factor.
        official = torch.stack(
            [truncated.mean_code + f * (codes[:, k] - truncated.mean_code) for k, f in enumerate(factors)], dim=1
        )
        official[:, layer] += factors[layer] * step
        torch.testing.assert_close(truncated.synthesize(edited), plain.synthesize(official), atol=2e-5, rtol=0)


def test_families_have_their_own_default_truncation():
    found = {name: wrap(FAMILIES[name](), name).truncation.tolist() for name in FAMILIES}
    assert found["stylegan"] == pytest.approx([0.7] * 8)
    assert wrap(FAMILIES["stylegan"](), "x", truncation_layers=3).truncation.tolist() == pytest.approx(
        [0.7] * 3 + [1] * 5
    )
    assert found["stylegan2 skip"] == pytest.approx([0.5] * 6)
    assert found["stylegan3 t"] == pytest.approx([1.0] * 6)
    assert found["biggan deep"] == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("options", [{"truncation_psi": 1.1}, {"truncation_psi": -0.1}, {"truncation_layers": 9}])  # fmt: skip
def test_truncation_and_noise_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        wrap(FAMILIES["stylegan"](), "x", **options)


def test_noise_can_be_switched_off():
    for name in ("stylegan", "stylegan2 skip"):
        network = FAMILIES[name]()
        loud, quiet = wrap(network, name), wrap(network, name, noise="none")
        codes = loud.map(loud.latents([0]))
        assert not torch.allclose(loud.synthesize(codes), quiet.synthesize(codes), atol=1e-3)
        silent = {k: torch.zeros_like(t) if "noise" in k else t for k, t in network.state_dict().items()}
        network.load_state_dict(silent)
        assert torch.equal(loud.synthesize(codes), quiet.synthesize(codes))


def test_truncation_of_a_biggan_belongs_to_its_prior():
    network = FAMILIES["biggan deep"]()
    generator = wrap(network, "x")
    z = generator.latents(range(2000))
    assert z.abs().max() <= 2 * 0.6
    assert z.std().item() == pytest.approx(0.6 * 0.8796, rel=0.02)  # of a normal distribution cut off at two
    codes = generator.map(z[:1], 0)
    before = generator.synthesize(codes)
    network.truncate(0.35)
    assert not torch.equal(generator.synthesize(codes), before)
    with pytest.raises(ValueError, match="truncation_psi"):
        network.truncate(0.0)


# ---- stopping before a layer and going on ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name.startswith(("stylegan", "rooms", "biggan"))])
def test_staged_synthesis_equals_synthesis(name):
    generator = ADAPTERS[name]()
    codes = generator.map(generator.latents([0, 1])).clone()
    for layer in range(generator.num_layers):
        state = generator.prepare(codes, layer)
        for last in {layer, generator.num_layers - 1}:
            edited = codes.clone()
            edited[:, layer : last + 1] += 2 * direction(generator, layer)
            torch.testing.assert_close(
                generator.resume(state, edited, layer), generator.synthesize(edited), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name.startswith(("stylegan", "rooms", "biggan"))])
@pytest.mark.parametrize("together", [False, True])
def test_several_edits_resume_from_one_state(name, together, monkeypatch):
    """Also where samples are computed together, as on a GPU."""
    generator = ADAPTERS[name]()
    assert isinstance(generator, RepeatedGenerator)
    if together:
        monkeypatch.setattr(type(generator), "_one_by_one", False, raising=False)
    codes = generator.map(generator.latents([0, 1])).clone()
    for layer in range(generator.num_layers):
        edits = [codes.clone() for _ in range(3)]
        for k, edited in enumerate(edits):
            edited[:, layer:] += k * direction(generator, layer)
            # Padding of narrower layers stays zero.
            for j, width in enumerate(widths(generator)):
                edited[:, j, width:] = 0
        state = generator.repeat(generator.prepare(codes, layer), 3)
        images = generator.resume(state, torch.cat(edits), layer).split(2)
        for edited, found in zip(edits, images, strict=True):
            torch.testing.assert_close(found, generator.synthesize(edited), atol=2e-5, rtol=0)
        with pytest.raises(ValueError, match="6"):
            generator.resume(state, codes, layer)


def test_a_state_of_something_else_is_not_repeated():
    with pytest.raises(TypeError, match="got list"):
        repeated([torch.zeros(2)], 2)


def test_a_state_fits_only_its_own_layer_and_samples():
    generator = ADAPTERS["stylegan"]()
    codes = generator.map(generator.latents([0, 1]))
    state = generator.prepare(codes, 3)
    with pytest.raises(ValueError, match="before layer 3"):
        generator.resume(state, codes, 4)
    with pytest.raises(ValueError, match="2 samples"):
        generator.resume(state, codes[:1], 3)
    for layer in (-1, 8):
        with pytest.raises(ValueError, match="layer must lie"):
            generator.prepare(codes, layer)
