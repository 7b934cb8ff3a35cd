from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from higan.errors import RunMismatchError
from higan.generators.rooms import RoomsConfig, build_network
from higan.rooms.discriminator import Discriminator
from higan.rooms.trainer import Settings, Stage, Trainer, Vote, read_checkpoint
from higan.rooms.widening import widen_checkpoint, widened, widened_discriminator

NARROW = RoomsConfig(resolution=16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(4, 3, 5))
WIDE = replace(NARROW, channels=(4, 6, 7))
PLAN = Settings(stages=(Stage(16, images=1000, batch=4, gamma=0.1),), network=NARROW, r1_every=2, ema_half_life=16.0)
WIDE_PLAN = replace(PLAN, network=WIDE, discriminator_channels=NARROW.channels)


def noise(count, resolution, generator):
    return torch.randint(256, (count, 3, resolution, resolution), generator=generator, dtype=torch.uint8)


def pictures(network, fade=1.0):
    codes = torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return network(codes, fade=fade)


def trained(plan, steps=3):
    trainer = Trainer(plan, noise, dtype=torch.float32)
    for _ in range(steps):
        trainer.step(Vote())
    return trainer


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "narrow.safetensors"
    trained(PLAN).save(path)
    return path


class TestWidened:
    @settings(max_examples=25, deadline=None)
    @given(st.tuples(*[st.integers(0, 5)] * 3), st.sampled_from([1, 3]), st.integers(0, 100))
    def test_makes_the_same_pictures(self, more, kernel, seed):
        channels = tuple(a + b for a, b in zip(NARROW.channels, more, strict=True))
        wide = replace(NARROW, channels=channels, rgb_kernel=kernel)
        before = build_network(NARROW, seed=seed)
        after = build_network(wide)
        after.load_state_dict(widened(before.state_dict(), NARROW, wide, seed=seed + 1))
        for fade in (0.3, 1.0):
            torch.testing.assert_close(pictures(after, fade), pictures(before, fade), atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("layers", [1, 2, 4])
    def test_a_wider_mapping_makes_the_same_codes(self, layers):
        narrow = replace(NARROW, mapping_layers=layers)
        wide = replace(narrow, mapping_dim=24)
        before, after = build_network(narrow), build_network(wide)
        after.load_state_dict(widened(before.state_dict(), narrow, wide, seed=1))
        z = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(after.map(z), before.map(z))
        after.map(z).square().sum().backward()
        assert all((layer.weight.grad != 0).any(0).all() for layer in after.mapping)

    def test_new_channels_are_heard_once_they_are_trained(self):
        before = build_network(NARROW)
        after = build_network(WIDE)
        after.load_state_dict(widened(before.state_dict(), NARROW, WIDE))
        after(torch.randn(2, 6, 10)).square().mean().backward()
        assert after.layers[4].conv.weight.grad[:, 6:].abs().sum() == 0  # There are no more than six inputs.
        assert (after.layers[4].conv.weight.grad[:5, 3:].abs().sum((0, 2, 3)) > 0).all()

    @pytest.mark.parametrize(
        ("narrow", "wide", "message"),
        [
            (NARROW, replace(NARROW, channels=(4, 2, 5)), r"at least \(4, 3, 5\); got \(4, 2, 5\)"),
            (NARROW, replace(NARROW, mapping_dim=9), "mapping_dim must be at least 10; got 9"),
            (replace(NARROW, rgb_kernel=3), NARROW, "rgb_kernel must be at least 3; got 1"),
            (replace(NARROW, architecture="skip"), replace(WIDE, architecture="skip"), "adain architecture"),
        ],
    )
    def test_what_cannot_be_widened(self, narrow, wide, message):
        with pytest.raises(RunMismatchError, match=message):
            widened(build_network(narrow).state_dict(), narrow, wide)


def judged(network, fade=1.0):
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        return network(images, fade)


class TestWidenedDiscriminator:
    @settings(max_examples=25, deadline=None)
    @given(st.tuples(st.just(0), st.integers(0, 5), st.integers(0, 5)), st.integers(0, 100))
    def test_judges_the_same(self, more, seed):
        wide = replace(NARROW, channels=tuple(a + b for a, b in zip(NARROW.channels, more, strict=True)))
        before, after = Discriminator(NARROW, seed=seed), Discriminator(wide)
        after.load_state_dict(widened_discriminator(before.state_dict(), NARROW, wide, seed=seed + 1))
        for fade in (0.3, 1.0):
            torch.testing.assert_close(judged(after, fade), judged(before, fade), atol=1e-4, rtol=1e-4)

    def test_new_channels_are_heard_once_they_are_trained(self):
        before, after = Discriminator(NARROW), Discriminator(WIDE)
        after.load_state_dict(widened_discriminator(before.state_dict(), NARROW, WIDE))
        after(torch.randn(4, 3, 16, 16)).sum().backward()
        assert (after.blocks["8"].second.weight.grad[:, 3:].abs().sum((0, 2, 3)) > 0).all()

    @pytest.mark.parametrize(
        ("channels", "message"),
        [((4, 2, 5), r"at least \(4, 3, 5\); got \(4, 2, 5\)"), ((5, 3, 5), "at 4 pixels must stay at 4; got 5")],
    )
    def test_what_cannot_be_widened(self, channels, message):
        with pytest.raises(RunMismatchError, match=message):
            widened_discriminator(Discriminator(NARROW).state_dict(), NARROW, replace(NARROW, channels=channels))


class TestWidenCheckpoint:
    def test_training_goes_on_from_it(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "wide", WIDE.channels, NARROW.channels)
        before = trained(PLAN, 0)
        before.load(checkpoint)
        after = trained(WIDE_PLAN, 0)
        after.load(tmp_path / "wide")
        assert after.progress == before.progress
        torch.testing.assert_close(pictures(after.average), pictures(before.average), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pictures(after.generator), pictures(before.generator), atol=1e-5, rtol=1e-5)
        old, new = before.optimiser_d.state_dict()["state"], after.optimiser_d.state_dict()["state"]
        assert all(torch.equal(old[k]["exp_avg_sq"], new[k]["exp_avg_sq"]) for k in old)
        after.step(Vote())
        after.save(tmp_path / "later")
        again = trained(WIDE_PLAN, 0)
        again.load(tmp_path / "later")
        assert again.progress.images == before.progress.images + 4

    def test_the_mapping_alone(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "wide", NARROW.channels, NARROW.channels, mapping_dim=16)
        before = trained(PLAN, 0)
        before.load(checkpoint)
        after = trained(replace(PLAN, network=replace(NARROW, mapping_dim=16)), 0)
        after.load(tmp_path / "wide")
        torch.testing.assert_close(pictures(after.average), pictures(before.average), atol=1e-5, rtol=1e-5)
        old, new = before.optimiser_d.state_dict()["state"], after.optimiser_d.state_dict()["state"]
        assert all(torch.equal(old[k]["exp_avg_sq"], new[k]["exp_avg_sq"]) for k in old)
        after.step(Vote())
        # Widths that are not named stay.
        widen_checkpoint(tmp_path / "wide", tmp_path / "wider", WIDE.channels, NARROW.channels)
        trained(replace(WIDE_PLAN, network=replace(WIDE, mapping_dim=16)), 0).load(tmp_path / "wider")

    def test_of_the_same_widths_it_is_a_copy_that_any_training_may_go_on_from(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "same", NARROW.channels, NARROW.channels)
        (before, told), (after, kept) = read_checkpoint(checkpoint), read_checkpoint(tmp_path / "same")
        assert {name: told[name] for name in kept} == kept
        assert set(told) - set(kept) == {"settings"}
        assert all(torch.equal(before[name], after[name]) for name in {**before, **after})
        trained(replace(PLAN, mixing=0.1, seed=5), 0).load(tmp_path / "same")

    def test_twice_leaves_the_discriminator_alone(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "once", WIDE.channels, NARROW.channels)
        widen_checkpoint(tmp_path / "once", tmp_path / "twice", (8, 8, 8), NARROW.channels)
        trained(replace(WIDE_PLAN, network=replace(NARROW, channels=(8, 8, 8))), 0).load(tmp_path / "twice")
        first, last = load_file(checkpoint), load_file(tmp_path / "twice")
        assert all(torch.equal(last[name], first[name]) for name in first if name.startswith("discriminator."))

    def test_the_discriminator_alone(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "wide", NARROW.channels, WIDE.channels)
        before, after = trained(PLAN, 0), trained(replace(PLAN, discriminator_channels=WIDE.channels), 0)
        before.load(checkpoint)
        after.load(tmp_path / "wide")
        torch.testing.assert_close(judged(after.discriminator), judged(before.discriminator), atol=1e-5, rtol=1e-5)
        old, new = before.optimiser_g.state_dict()["state"], after.optimiser_g.state_dict()["state"]
        assert all(torch.equal(old[k]["exp_avg_sq"], new[k]["exp_avg_sq"]) for k in old)
        after.step(Vote())

    def test_the_discriminator_keeps_its_widths(self, tmp_path, checkpoint):
        widen_checkpoint(checkpoint, tmp_path / "wide", WIDE.channels, NARROW.channels)
        trainer = trained(replace(WIDE_PLAN, discriminator_channels=None), 0)
        with pytest.raises(RunMismatchError, match=r"discriminator of another width: train on with widths \(4, 3, 5\)"):
            trainer.load(tmp_path / "wide")
