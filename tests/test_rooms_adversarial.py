import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from higan.errors import CorruptFileError, RunError, RunMismatchError, UnknownFormatError
from higan.generators.rooms import RoomsConfig, RoomsGenerator, adain
from higan.rooms.adversarial import CHECKPOINT, train_generator
from higan.rooms.discriminator import Discriminator, minibatch_std
from higan.rooms.fused_adain import fused_adain
from higan.rooms.sources import PoolSource, RenderedSource
from higan.rooms.trainer import Settings, Stage, Trainer, Vote, average_gradients, read_checkpoint, slim_checkpoint
from higan.rooms.widening import widen_checkpoint
from higan.weights import write_weights

NETWORK = RoomsConfig(resolution=16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(8, 6, 5, 4))
STAGES = (
    Stage(8, images=16, batch=4, gamma=0.1),
    Stage(16, images=24, fade_images=8, batch=4, gamma=0.1),
)
TINY = Settings(stages=STAGES, network=NETWORK, r1_every=2, ema_half_life=16.0)
SKIP = replace(TINY, network=replace(NETWORK, architecture="skip"))
BOTH = pytest.mark.parametrize("plan", [TINY, SKIP], ids=["adain", "skip"])
LOSSES = pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])


def pictures(count=32, size=16, seed=0):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, size) * 255).to(torch.uint8)


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.npy"
    np.save(path, pictures().numpy())
    return path


def memory(count, resolution, generator):
    """A source that keeps its pictures in memory."""
    images = pictures(size=resolution)
    return images[torch.randint(len(images), (count,), generator=generator)]


def one_colour(colour, count, resolution, generator):
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(count, 3, resolution, resolution)


class TestFusedAdain:
    @settings(max_examples=15, deadline=None)
    @given(
        n=st.integers(1, 3), c=st.integers(1, 4), h=st.integers(2, 5), w=st.integers(2, 5),
        last=st.booleans(), seed=st.integers(0, 999),
    )  # fmt: skip
    def test_same_values_and_derivatives_as_the_plain_formula(self, n, c, h, w, last, seed):
        random = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        layout = torch.channels_last if last else torch.contiguous_format
        x = random(n, c, h, w).contiguous(memory_format=layout).requires_grad_()
        scale, shift = random(n, c).requires_grad_(), random(n, c).requires_grad_()
        weights = random(n, c, h, w)
        plain, fused = adain(x, scale, shift), fused_adain(x, scale, shift)
        torch.testing.assert_close(fused, plain)
        expected = torch.autograd.grad((plain * weights).sum(), (x, scale, shift))
        torch.testing.assert_close(torch.autograd.grad((fused * weights).sum(), (x, scale, shift)), expected)

    def test_derivatives_agree_with_finite_differences(self):
        random = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        inputs = [random(2, 3, 4, 5).requires_grad_(), random(2, 3).requires_grad_(), random(2, 3).requires_grad_()]
        assert torch.autograd.gradcheck(fused_adain, inputs)

    def test_bfloat16_keeps_statistics_in_float32(self):
        # A mean of three deviations: with sums rounded to bfloat16 the variance would be off by several per cent.
        x = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)) + 3
        scale = shift = torch.zeros(2, 4)
        exact = adain(x.bfloat16().float(), scale, shift)
        rough = fused_adain(x.bfloat16(), scale.bfloat16(), shift.bfloat16()).float()
        torch.testing.assert_close(rough, exact, atol=0.06, rtol=0)

    @pytest.mark.parametrize("contrast", [0.05, 0.1, 0.3])
    def test_bfloat16_keeps_the_contrast_of_pictures_that_have_little(self, contrast):
        ramp = contrast * torch.linspace(-1, 1, 32)
        x = (1.5 + torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32)]))[None].bfloat16()
        scale = shift = torch.zeros(1, 2)
        exact = adain(x.float(), scale, shift)
        rough = fused_adain(x.to(memory_format=torch.channels_last), scale.bfloat16(), shift.bfloat16()).float()
        torch.testing.assert_close(rough.std((2, 3)), exact.std((2, 3)), atol=0.1, rtol=0)


class TestDiscriminator:
    def test_minibatch_std_by_hand(self):
        # Two groups of two: pixels differ by 2 in the first (deviation 1), by 6 in the second (deviation 3).
        x = torch.tensor([0.0, 2.0, 1.0, 7.0])[:, None, None, None].expand(4, 2, 3, 3)
        expected = torch.tensor([1.0, 1.0, 3.0, 3.0])[:, None, None, None].expand(4, 1, 3, 3)
        torch.testing.assert_close(minibatch_std(x, 2), expected)

    def test_minibatch_std_refuses_a_rest(self):
        with pytest.raises(ValueError, match="a batch of 5 does not divide into groups of 2"):
            minibatch_std(torch.zeros(5, 1, 1, 1), 2)

    @pytest.mark.parametrize("resolution", [32, 64, 128])
    def test_fading_starts_at_the_coarse_judgement(self, resolution):
        config = RoomsConfig(resolution=resolution // 2, channels=(6, 6, 5, 4, 4, 4))
        coarse = Discriminator(config, group=2)
        fine = Discriminator(replace(config, resolution=resolution), group=2, seed=9)
        missing, unexpected = fine.load_state_dict(coarse.state_dict(), strict=False)
        assert missing
        assert not unexpected
        images = torch.rand(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
        expected = coarse(F.avg_pool2d(images, 2))
        torch.testing.assert_close(fine(images, fade=0.0), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(fine(images), expected, atol=1e-3)

    def test_a_group_is_judged_without_regard_to_the_others(self):
        judge = Discriminator(NETWORK, group=2)
        images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(judge(images)[:2], judge(images[:2]), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(judge(images)[:1], judge(images[[0, 2, 1, 3]])[:1], atol=1e-6)


class TestSources:
    def test_pool_draws_are_its_own_pictures(self, pool):
        drawn = PoolSource(pool)(6, 16, torch.Generator().manual_seed(3))
        own = pictures()
        assert all((own == image).flatten(1).all(1).any() for image in drawn)
        assert torch.equal(drawn, PoolSource(pool)(6, 16, torch.Generator().manual_seed(3)))
        assert not torch.equal(drawn, PoolSource(pool)(6, 16, torch.Generator().manual_seed(4)))

    def test_coarser_pictures_are_area_averages(self, tmp_path):
        image = np.zeros((1, 3, 4, 4), np.uint8)
        image[0, 0, :2, :2] = [[10, 20], [30, 41]]
        image[0, 1, 2:, 2:] = 200
        np.save(tmp_path / "one.npy", image)
        small = PoolSource(tmp_path / "one.npy")(1, 2, torch.Generator())
        assert small.tolist() == [[[[25, 0], [0, 0]], [[0, 0], [0, 200]], [[0, 0], [0, 0]]]]

    def test_a_folder_is_one_pool(self, tmp_path):
        for k, count in enumerate((3, 1, 4)):
            np.save(tmp_path / f"{k}.npy", np.full((count, 3, 2, 2), k, np.uint8))
        source = PoolSource(tmp_path)
        assert len(source) == 8
        drawn = source(800, 2, torch.Generator().manual_seed(0))[:, 0, 0, 0]
        shares = [(drawn == k).float().mean().item() for k in range(3)]
        assert shares == pytest.approx([3 / 8, 1 / 8, 4 / 8], abs=0.06)

    def test_travels_as_a_path(self, pool):
        source = PoolSource(pool)
        content = pickle.dumps(source)
        assert len(content) < 500
        again = pickle.loads(content)
        assert torch.equal(
            again(2, 8, torch.Generator().manual_seed(0)), source(2, 8, torch.Generator().manual_seed(0))
        )

    def test_rendered_rooms_never_repeat(self):
        asked = []

        def render(seeds, resolution):
            asked.extend(seeds)
            return pictures(len(seeds), size=resolution)

        generator = torch.Generator().manual_seed(0)
        source = RenderedSource(render, 16)
        expected = F.avg_pool2d(pictures(5).float(), 2).round()
        assert torch.equal(source(5, 8, generator).float(), expected)
        source(5, 16, generator)
        assert len(set(asked)) == 10

    def test_no_such_pool(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected a \.npy file"):
            PoolSource(tmp_path / "nothing.npy")
        with pytest.raises(ValueError, match=r"expected a \.npy file"):
            PoolSource(tmp_path)

    def test_no_pictures_in_it(self, tmp_path):
        np.save(tmp_path / "masks.npy", np.zeros((4, 8, 8), np.uint8))
        with pytest.raises(ValueError, match=r"must hold uint8 pictures \(N, 3, H, W\); got uint8 \(4, 8, 8\)"):
            PoolSource(tmp_path / "masks.npy")

    def test_truncated_pool(self, pool):
        pool.write_bytes(pool.read_bytes()[:-10])
        with pytest.raises(CorruptFileError, match=r"pool\.npy is not a whole"):
            PoolSource(pool)

    def test_finer_than_the_pool(self, pool):
        with pytest.raises(ValueError, match="16×16 pixels down to 32×32"):
            PoolSource(pool)(1, 32, torch.Generator())


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"stages": ()}, "double the resolution"),
            ({"stages": (Stage(8, 10), Stage(32, 10))}, r"double the resolution of the one before; got \[8, 32\]"),
            ({"stages": (Stage(8, 10, batch=6),)}, "multiple of group = 4; got 6"),
            ({"mixing": 1.5}, "probability; got 1.5"),
            ({"r1_every": 0}, "at least 1"),
        ],
    )
    def test_impossible_plans_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            Settings(**values)

    def test_a_loss_that_there_is_not_is_refused(self):
        plan = Settings()
        object.__setattr__(plan, "loss", "hinge")  # Under pytest types are checked before the constructor gets to it.
        with pytest.raises(ValueError, match="non-saturating, relativistic; got 'hinge'"):
            plan.__post_init__()

    @pytest.mark.parametrize(
        "values", [{"images": 0}, {"batch": 0}, {"gamma": -1.0}, {"learning_rate": 0.0}, {"minutes": 0.0}]
    )
    def test_impossible_stages_are_refused(self, values):
        with pytest.raises(ValueError, match=next(iter(values))):
            Stage(**{"resolution": 16, "images": 8, **values})


class Linear(nn.Module):
    """A judge whose slope is the same everywhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)))

    def forward(self, images, fade):
        return (images * self.weight).sum((1, 2, 3))


def trained(trainer, steps):
    for _ in range(steps):
        trainer.step(Vote())
    return trainer


def tensors_of(trainer, path):
    trainer.save(path)
    return load_file(path)


class TestTrainer:
    @BOTH
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_an_interruption_changes_no_bit(self, tmp_path, dtype, plan):
        def run(trainer, start, stop):
            for step in range(start, stop):
                if step == 4:
                    assert trainer.advance_stage()
                trained(trainer, 1)
            return trainer

        whole = run(Trainer(plan, memory, dtype=dtype), 0, 9)
        first = run(Trainer(plan, memory, dtype=dtype), 0, 6)
        first.save(tmp_path / "half")
        second = Trainer(plan, memory, dtype=dtype)
        second.load(tmp_path / "half")
        assert second.progress == first.progress
        one, other = tensors_of(whole, tmp_path / "a"), tensors_of(run(second, 6, 9), tmp_path / "b")
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)

    @BOTH
    def test_growing_keeps_what_was_learned(self, plan):
        trainer = trained(Trainer(plan, memory), 3)
        before = {name: t.clone() for name, t in trainer.average.state_dict().items()}
        assert trainer.advance_stage()
        after = trainer.average.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert trainer.stage.resolution == trainer.generator.config.resolution == 16
        assert trainer.fade == 0
        trained(trainer, 1)
        assert trainer.fade == 0.5
        trained(trainer, 1)
        assert trainer.fade == 1
        assert not trainer.advance_stage()

    def test_the_average_follows_with_its_half_life(self):
        # Four images a step and a half-life of four: the average moves half the way at every step.
        trainer = Trainer(replace(TINY, ema_half_life=4.0), memory)
        name = "layers.1.conv.weight"
        start = trainer.average.state_dict()[name].clone()
        trained(trainer, 1)
        end = trainer.generator.state_dict()[name]
        torch.testing.assert_close(trainer.average.state_dict()[name], (start + end) / 2)

    def test_r1_of_a_linear_judge_is_its_squared_weight(self):
        trainer = Trainer(TINY, memory, dtype=torch.float32)
        trainer.discriminator = Linear()
        images = torch.zeros(4, 3, 8, 8)
        _, _, _, r1 = trainer._discriminate(images, images, 1.0)
        weight = trainer.discriminator.weight
        assert float(r1) == pytest.approx(float(weight.detach().square().sum()), rel=1e-5)
        # The two halves of the loss cancel on equal pictures; gamma / 2 · every · |w|² is left.
        torch.testing.assert_close(weight.grad, 0.1 * 2 * weight.detach())

    def test_the_relativistic_loss_compares_pairs_and_penalises_both_sides(self):
        trainer = Trainer(replace(TINY, loss="relativistic"), memory, dtype=torch.float32)
        trainer.discriminator = Linear()
        weight = trainer.discriminator.weight
        reals, fakes = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) / 10
        loss, _, _, _ = trainer._discriminate(reals.clone(), fakes.clone(), 1.0)
        lead = ((reals - fakes) * weight.detach()).sum((1, 2, 3))
        assert float(loss.detach()) == pytest.approx(float(torch.log1p(torch.exp(-lead)).mean()), rel=1e-5)
        # A step of the pairs' logistic loss, and twice gamma / 2 · every · |w|²; |w|² has the slope 2 w.
        pairs = -(torch.sigmoid(-lead)[:, None, None, None] * (reals - fakes)).mean(0)
        torch.testing.assert_close(weight.grad, pairs + 2 * 0.1 * 2 * weight.detach())

    def test_the_relativistic_generator_is_measured_by_the_rendered_pictures(self):
        trainer = Trainer(replace(TINY, loss="relativistic"), memory, dtype=torch.float32)
        report = trainer.step(Vote())
        again = Trainer(replace(TINY, loss="relativistic"), memory, dtype=torch.float32)
        random = again._step_generator()
        reals, fakes = again._reals(random, 1.0), again.generator(again._codes(random), torch.float32, 1.0).detach()
        again._discriminate(reals, fakes, 1.0)
        real = Trainer(TINY, memory, dtype=torch.float32).discriminator(torch.cat([reals, fakes])).chunk(2)[0]
        again._update(again.discriminator, again.optimiser_d, Vote())
        lead = real - again.discriminator(fakes)
        assert float(report.loss_g) == pytest.approx(float(torch.log1p(torch.exp(lead)).mean().detach()), rel=1e-4)

    def test_every_sample_mixes_two_codes_at_one_layer(self):
        trainer = Trainer(replace(TINY, mixing=1.0, stages=(Stage(16, 8, batch=64),)), memory)
        codes = trainer._codes(torch.Generator().manual_seed(0))
        changes = (codes[:, 1:] != codes[:, :-1]).any(2)
        assert (changes.sum(1) == 1).all()
        assert changes.any(0).all()

    def test_without_mixing_all_layers_share_the_code(self):
        trainer = Trainer(replace(TINY, mixing=0.0), memory)
        codes = trainer._codes(torch.Generator().manual_seed(0))
        assert (codes == codes[:, :1]).all()

    def test_processes_draw_different_pictures(self):
        draws = [Trainer(TINY, memory, rank=rank, world=2)._step_generator().initial_seed() for rank in (0, 1)]
        assert draws[0] != draws[1]

    @BOTH
    @LOSSES
    def test_learns_a_colour(self, plan, loss):
        colour = (200, 60, 30)
        stage = Stage(8, images=10_000, batch=8, gamma=0.05)
        plan = Settings(stages=(stage,), network=plan.network, ema_half_life=200.0, loss=loss)
        trainer = Trainer(plan, partial(one_colour, colour), dtype=torch.float32)
        target = torch.tensor(colour) / 127.5 - 1

        def distance():
            network = trainer.average
            z = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
            images = network(network.map(z)[:, None].expand(-1, 4, -1))
            return float((images - target[:, None, None]).abs().mean())

        start = distance()
        trained(trainer, 200)
        assert distance() < 0.7 * start

    def test_a_slim_checkpoint_goes_on(self, tmp_path):
        trained(Trainer(TINY, memory), 3).save(tmp_path / "full")
        slim_checkpoint(tmp_path / "full", tmp_path / "slim")
        assert (tmp_path / "slim").stat().st_size < 0.3 * (tmp_path / "full").stat().st_size
        trainer = Trainer(TINY, memory)
        trainer.load(tmp_path / "slim")
        full = load_file(tmp_path / "full")
        for name, tensor in trainer.generator.state_dict().items():
            assert torch.equal(tensor, full[f"average.{name}"].half().float())
            assert torch.equal(tensor, trainer.average.state_dict()[name])
        widen_checkpoint(tmp_path / "slim", tmp_path / "same", TINY.network.channels, TINY.network.channels)
        other = Trainer(TINY, memory)
        other.load(tmp_path / "same")
        assert other.progress == trainer.progress
        assert trainer.progress.step == 3
        trained(trainer, 1)

    def test_a_checkpoint_of_the_other_architecture_is_refused(self, tmp_path):
        trained(Trainer(TINY, memory), 1).save(tmp_path / "adain")
        with pytest.raises(RunMismatchError, match="another network"):
            Trainer(SKIP, memory).load(tmp_path / "adain")

    def test_checkpoints_of_something_else_are_refused(self, tmp_path):
        path = tmp_path / "checkpoint"
        trained(Trainer(TINY, memory), 1).save(path)
        wider = replace(TINY, network=replace(NETWORK, code_dim=12))
        with pytest.raises(RunMismatchError, match="another network"):
            Trainer(wider, memory).load(path)
        with pytest.raises(RunMismatchError, match=r"8 pixels, which is not among the stages \[16\]"):
            Trainer(replace(TINY, stages=STAGES[1:]), memory).load(path)
        content = path.read_bytes()
        tensors, header = read_checkpoint(path)
        write_weights(path, tensors, header | {"settings": "none"})
        with pytest.raises(CorruptFileError, match="contradicts itself"):
            Trainer(TINY, memory).load(path)
        # Checkpoints of before losses could be chosen, or before any setting was written, go on.
        for told in ({k: v for k, v in header["settings"].items() if k != "loss"}, {}):
            write_weights(path, tensors, header | {"settings": told})
            Trainer(TINY, memory).load(path)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CorruptFileError, match="truncated"):
            Trainer(TINY, memory).load(path)
        write_weights(path, {"w": torch.zeros(1)}, {"format": "other"})
        with pytest.raises(UnknownFormatError, match="no training checkpoint"):
            Trainer(TINY, memory).load(path)


def exchange(rank, meeting, out):
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    module = nn.Linear(2, 1)
    module.weight.grad = torch.tensor([[1.0, 10.0]]) * (rank + 1)
    module.bias.grad = torch.tensor([float(rank)])
    idle = nn.Linear(2, 2)
    vote = Vote(stop=rank == 1)
    average_gradients(nn.ModuleList([module, idle]), vote, 2)
    result = {"weight": module.weight.grad.tolist(), "bias": module.bias.grad.tolist(), "idle": idle.weight.grad}
    (out / f"{rank}.json").write_text(json.dumps({**result, "vote": [vote.next_stage, vote.stop]}))
    dist.destroy_process_group()


class TestTraining:
    def test_from_nothing_to_a_generator(self, pool, tmp_path):
        records = []
        path = train_generator(pool, tmp_path / "out", TINY, processes=1, log_every=2, report=records.append)
        generator = RoomsGenerator.load(path)
        assert generator.resolution == 16
        assert generator.metadata["images"] == 40
        assert [record["images"] for record in records] == [8, 16, 24, 32, 40]
        assert [record["resolution"] for record in records] == [8, 8, 16, 16, 16]
        assert [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()] == records
        assert len(list((tmp_path / "out/sheets").glob("*.png"))) == 2

    def test_stopping_and_resuming_equals_going_through(self, tmp_path):
        run = partial(train_generator, memory, settings=TINY, processes=1, log_every=1)
        run(out_dir=tmp_path / "whole")

        def stop_at_24_images(record):
            if record["images"] == 24:
                os.kill(os.getpid(), signal.SIGTERM)

        run(out_dir=tmp_path / "parts", report=stop_at_24_images)
        assert len((tmp_path / "parts/log.jsonl").read_text().splitlines()) < 10
        run(out_dir=tmp_path / "parts")
        one, other = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
        assert all(torch.equal(one[name], other[name]) for name in one)
        steps = [json.loads(line)["step"] for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 11))

    def test_the_skip_architecture_from_nothing_to_a_generator(self, pool, tmp_path):
        path = train_generator(pool, tmp_path / "out", SKIP, processes=1)
        generator = RoomsGenerator.load(path)
        assert generator.config == SKIP.network
        trainer = Trainer(SKIP, memory)
        trainer.load(tmp_path / "out" / CHECKPOINT)
        codes = generator.map(generator.latents(range(4)))
        images = trainer.average(generator._truncate(codes)).clamp(-1, 1)
        torch.testing.assert_close(generator.synthesize(codes), images, atol=0.02, rtol=0)

    def test_a_finished_training_stays_as_it_is(self, tmp_path):
        run = partial(train_generator, memory, tmp_path, TINY, processes=1)
        run()
        before = load_file(tmp_path / CHECKPOINT)
        run()
        after = load_file(tmp_path / CHECKPOINT)
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_a_stage_may_end_by_the_clock(self, tmp_path):
        stages = (replace(STAGES[0], images=10**9, minutes=1e-4), replace(STAGES[1], images=8))
        train_generator(memory, tmp_path, replace(TINY, stages=stages), processes=1)
        assert RoomsGenerator.load(tmp_path / "generator.safetensors").resolution == 16

    def test_a_call_may_end_by_the_clock(self, tmp_path):
        endless = replace(TINY, stages=(replace(STAGES[0], images=10**9),))
        train_generator(memory, tmp_path, endless, processes=1, minutes=0.01)
        assert RoomsGenerator.load(tmp_path / "generator.safetensors").metadata["images"] > 0

    def test_steps_after_the_checkpoint_leave_no_lines(self, tmp_path):
        run = partial(train_generator, memory, tmp_path, TINY, processes=1, log_every=1)
        run()
        log = tmp_path / "log.jsonl"
        whole = log.read_text()
        log.write_text(whole + json.dumps({"step": 99}) + '\n{"step": 1')
        run()
        assert log.read_text() == whole

    def test_divergence_is_an_error_and_is_not_saved(self, tmp_path):
        hot = replace(TINY, stages=(replace(STAGES[0], images=10**6, learning_rate=1e30),))
        with pytest.raises(RunError, match="no longer finite"):
            train_generator(memory, tmp_path, hot, processes=1, log_every=1)
        assert not (tmp_path / CHECKPOINT).exists()

    def test_divergence_between_two_looks_at_the_losses_leaves_the_checkpoint(self, tmp_path):
        one = replace(STAGES[0], images=4)
        train_generator(memory, tmp_path, replace(TINY, stages=(one,)), processes=1)
        before = (tmp_path / CHECKPOINT).read_bytes()
        hot = replace(TINY, stages=(replace(one, images=20, learning_rate=1e30),))
        with pytest.raises(RunError, match="no longer finite"):
            train_generator(memory, tmp_path, hot, processes=1)
        assert (tmp_path / CHECKPOINT).read_bytes() == before

    @pytest.mark.parametrize("other", [{"seed": 7}, {"mixing": 0.0}, {"loss": "relativistic"}])
    def test_another_training_does_not_go_on_in_a_used_folder(self, tmp_path, other):
        train_generator(memory, tmp_path, TINY, processes=1)
        before = (tmp_path / CHECKPOINT).read_bytes()
        with pytest.raises(RunMismatchError, match=f"of a training with {next(iter(other))} .* in another folder"):
            train_generator(memory, tmp_path, replace(TINY, **other), processes=1)
        assert (tmp_path / CHECKPOINT).read_bytes() == before
        train_generator(memory, tmp_path, replace(TINY, ema_half_life=1000.0), processes=1)

    def test_a_used_folder_is_refused_unless_resuming(self, tmp_path):
        train_generator(memory, tmp_path, TINY, processes=1)
        with pytest.raises(RunMismatchError, match="already holds a training"):
            train_generator(memory, tmp_path, TINY, processes=1, resume=False)

    @pytest.mark.parametrize("values", [{"processes": 0}, {"log_every": 0}, {"minutes": 0.0}, {"save_minutes": -1.0}])
    def test_arguments_are_checked_before_anything_is_written(self, tmp_path, values):
        with pytest.raises(ValueError, match="must be above 0"):
            train_generator(memory, tmp_path / "out", TINY, **values)
        assert not (tmp_path / "out").exists()

    def test_gradients_are_averaged_and_votes_counted(self, tmp_path):
        spawn(exchange, (f"file://{tmp_path}/store", tmp_path), 2)
        expected = {"weight": [[1.5, 15.0]], "bias": [0.5], "idle": None, "vote": [False, True]}
        assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [expected] * 2

    def test_two_processes_train_together(self, pool, tmp_path):
        records = []
        path = train_generator(pool, tmp_path / "out", TINY, processes=2, log_every=1, report=records.append)
        # Each step counts the pictures of both.
        assert [record["images"] for record in records] == [8, 16, 24, 32, 40]
        assert RoomsGenerator.load(path).metadata["images"] == 40

    def test_ctrl_c_reaches_every_process_and_leaves_a_checkpoint(self, tmp_path):
        endless = replace(TINY, stages=(replace(STAGES[0], images=10**9),))
        stopped = threading.Event()

        def press_ctrl_c(record):
            # As a terminal does, to all at once; the calling process then passes it on, whenever that is.
            os.kill(os.getpid(), signal.SIGINT)
            for process in multiprocessing.active_children():
                threading.Thread(target=insist, args=(process,)).start()

        def insist(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
                while not stopped.wait(0.005) and process.exitcode is None:
                    os.kill(process.pid, signal.SIGTERM)

        try:
            train_generator(memory, tmp_path, endless, processes=2, log_every=4, report=press_ctrl_c)
        finally:
            stopped.set()
        assert read_checkpoint(tmp_path / CHECKPOINT)[1]["progress"]["images"] >= 32
        assert not list(tmp_path.glob(".*"))

    @pytest.mark.slow
    def test_a_failing_process_is_reported(self, tmp_path):
        with pytest.raises(RunError, match="a training process failed"):
            train_generator(partial(one_colour, (1, 2)), tmp_path, TINY, processes=2)
