"""One adversarial training step, and all the state that goes on from one step to the next.

Non-saturating loss with lazy R1 (Mescheder et al. 2018; Karras et al. 2020, section 3.1), style mixing and an
exponential moving average (Karras et al. 2019), growing from coarse to fine (Karras et al. 2018).

Every random choice of a step comes from one generator seeded by (seed, rank, step), so there is no random state to
keep and an interrupted training goes on bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.devices import activation_dtype
from higan.errors import CorruptFileError, RunMismatchError, UnknownFormatError
from higan.generators.rooms import RoomsConfig, RoomsNetwork, build_network
from higan.generators.rooms_parts import config_from_json, upsample
from higan.rooms.discriminator import Discriminator
from higan.rooms.fused_adain import fused_adain
from higan.rooms.growing import graft, graft_discriminator
from higan.rooms.sources import Source
from higan.weights import read_weights, write_weights

__all__ = [
    "Progress",
    "Settings",
    "Stage",
    "StepReport",
    "Trainer",
    "Vote",
    "average_gradients",
    "networks_of",
    "read_checkpoint",
    "slim_checkpoint",
]

_FORMAT = "higan-rooms-training-1"

Loss = Literal["non-saturating", "relativistic"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Training at one resolution.

    Ends when ``images`` have been seen, over all processes, or after ``minutes`` of training, whichever comes first.
    The first ``fade_images`` blend the new resolution in. ``gamma`` weighs R1; ``batch`` counts per process.
    """

    resolution: int
    images: int
    fade_images: int = 8000
    gamma: float = 0.3
    batch: int = 16
    learning_rate: float = 2e-3
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("images", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a stage must be at least 1; got {getattr(self, name)}")
        if self.fade_images < 0 or self.gamma < 0 or not self.learning_rate > 0:
            raise ValueError(f"fade_images and gamma must not be negative and learning_rate above 0; got {self}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes of a stage must be above 0; got {self.minutes}")


DEFAULT_STAGES = (
    Stage(16, images=240_000, gamma=0.05),
    Stage(32, images=320_000, gamma=0.15),
    Stage(64, images=10_000_000, gamma=0.3),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that training depends on besides the pictures and the number of processes.

    ``ema_half_life`` counts images; ``mixing`` is the probability that a sample's layers from a random one on take a
    second code; R1 is computed at every ``r1_every``-th step, with its weight multiplied by that number.
    ``network.resolution`` is ignored: the stages say it. ``discriminator_channels`` are the discriminator's widths
    where they are not the generator's. ``loss`` compares logits with zero (``non-saturating``), or each rendered
    picture's with a generated one's (``relativistic``: Jolicoeur-Martineau 2019, paired as by Huang et al. 2024, with
    the same penalty on the generated pictures as on the rendered).
    """

    stages: tuple[Stage, ...] = DEFAULT_STAGES
    network: RoomsConfig = field(default_factory=RoomsConfig)
    discriminator_channels: tuple[int, ...] | None = None
    seed: int = 0
    mixing: float = 0.7
    ema_half_life: float = 4000.0
    r1_every: int = 16
    beta2: float = 0.99
    group: int = 4
    loss: Loss = "non-saturating"

    def __post_init__(self) -> None:
        resolutions = [stage.resolution for stage in self.stages]
        if not resolutions or any(b != 2 * a for a, b in pairwise(resolutions)):
            raise ValueError(f"each stage must double the resolution of the one before; got {resolutions}")
        for resolution in resolutions:
            self.discriminator(resolution)
        for stage in self.stages:
            if stage.batch % min(self.group, stage.batch):
                raise ValueError(f"batch must be a multiple of group = {self.group}; got {stage.batch}")
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}; got {self.loss!r}")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing is a probability; got {self.mixing}")
        if self.r1_every < 1 or self.group < 1 or not self.ema_half_life > 0:
            raise ValueError(f"r1_every and group must be at least 1 and ema_half_life above 0; got {self}")

    def generator(self, resolution: int) -> RoomsConfig:
        """What the generator is at that resolution."""
        return replace(self.network, resolution=resolution)

    def discriminator(self, resolution: int) -> RoomsConfig:
        """What the discriminator is at that resolution."""
        return replace(self.generator(resolution), channels=self.discriminator_channels or self.network.channels)


def default_settings(
    resolution: int = 64,
    minutes: Sequence[float] = (),
    images: Sequence[int] = (),
    *,
    learning_rate: float = 2e-3,
) -> Settings:
    """The stages from 16 pixels up to ``resolution``; the k-th one ends after ``images[k]`` or ``minutes[k]``.

    Raises:
        ValueError: a resolution that the stages do not reach, or more lengths than stages.
    """
    stages = [stage for stage in DEFAULT_STAGES if stage.resolution <= resolution]
    while stages[-1].resolution < resolution <= 128:
        stages[-1] = replace(stages[-1], images=600_000)
        stages.append(Stage(2 * stages[-1].resolution, images=10_000_000, gamma=2 * stages[-1].gamma))
    if stages[-1].resolution != resolution:
        raise ValueError(f"resolution must be 16, 32, 64 or 128; got {resolution}")
    longest = max(len(minutes), len(images))
    if longest > len(stages):
        raise ValueError(f"there are {len(stages)} stages up to {resolution} pixels; got {longest} lengths")
    for k, length in enumerate(minutes):
        stages[k] = replace(stages[k], minutes=length)
    for k, number in enumerate(images):
        stages[k] = replace(stages[k], images=number)
    return Settings(stages=tuple(replace(stage, learning_rate=learning_rate) for stage in stages))


@dataclass(slots=True)
class Progress:
    """How far training has come. ``images`` counts over all stages and processes, seconds are of training alone."""

    stage: int = 0
    step: int = 0
    images: int = 0
    stage_images: int = 0
    seconds: float = 0.0
    stage_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """Means over the batch of one process; ``r1`` is the squared gradient norm, None where it was not computed."""

    loss_d: Tensor
    loss_g: Tensor
    real_logit: Tensor
    fake_logit: Tensor
    r1: Tensor | None


@dataclass(slots=True)
class Vote:
    """What a process wishes, and after a step what all have agreed on: it travels with the gradient."""

    next_stage: bool = False
    stop: bool = False


class Trainer:
    """Both networks, the average, both optimisers and the progress; one per process.

    Args:
        settings: what to train.
        source: where pictures come from.
        rank: this process among ``world``; gradients are averaged over all of them if there are several.
        device: where to train.
        dtype: of the activations, by default bfloat16 where that is fast; parameters, averages and optimisers stay in
            float32.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.rank = rank
        self.world = world
        self.device = torch.device(device)
        self.dtype = dtype or activation_dtype(device)
        self.progress = Progress()
        self._build(0)

    @property
    def stage(self) -> Stage:
        """The stage that the next step belongs to."""
        return self.settings.stages[self.progress.stage]

    @property
    def fade(self) -> float:
        """Share of the present resolution in the pictures; 1 once it is faded in."""
        if self.progress.stage == 0 or self.progress.stage_images >= self.stage.fade_images:
            return 1.0
        return self.progress.stage_images / self.stage.fade_images

    @property
    def is_finite(self) -> bool:
        """Whether every weight of the networks still is a number."""
        return all(bool(torch.isfinite(p).all()) for m in self._modules().values() for p in m.parameters())

    def advance_stage(self) -> bool:
        """Grow to the next stage's resolution, as smoothly as `higan.rooms.growing` can; False at the last one."""
        if self.progress.stage + 1 >= len(self.settings.stages):
            return False
        old = self.generator, self.discriminator, self.average
        self._build(self.progress.stage + 1)
        for new, trained in zip((self.generator, self.discriminator, self.average), old, strict=True):
            new.load_state_dict(trained.state_dict(), strict=False)
            if isinstance(new, RoomsNetwork) and isinstance(trained, RoomsNetwork):
                graft(new, trained)
            if isinstance(new, Discriminator) and isinstance(trained, Discriminator):
                graft_discriminator(new, trained)
        self.progress.stage += 1
        self.progress.stage_images = 0
        self.progress.stage_seconds = 0.0
        return True

    def step(self, vote: Vote) -> StepReport:
        """One step of the discriminator and one of the generator, on the same generated pictures."""
        random = self._step_generator()
        fade = self.fade
        reals = self._reals(random, fade)
        fakes = self.generator(self._codes(random), self.dtype, fade)
        loss_d, real, fake, r1 = self._discriminate(reals, fakes.detach(), fade)
        self._update(self.discriminator, self.optimiser_d, Vote())
        self.discriminator.requires_grad_(False)
        # The rendered pictures' logits are those of before the update, which moves them little.
        rival = real if self._relativistic else torch.zeros_like(real)
        loss_g = F.softplus(rival - self.discriminator(fakes, fade)).mean()
        loss_g.backward()
        self.discriminator.requires_grad_(True)
        self._update(self.generator, self.optimiser_g, vote)
        images = self.stage.batch * self.world
        self._average(0.5 ** (images / self.settings.ema_half_life))
        self.progress.step += 1
        self.progress.images += images
        self.progress.stage_images += images
        return StepReport(loss_d.detach(), loss_g.detach(), real.mean(), fake.mean(), r1)

    def save(self, path: Path) -> None:
        """Write all that is needed to go on."""
        header = {
            "format": _FORMAT,
            "config": asdict(self.generator.config),
            "discriminator_channels": self.discriminator.config.channels,
            "settings": asdict(self.settings),
            "progress": asdict(self.progress),
            "world": self.world,
        }
        write_weights(path, dict(self._tensors()), header)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. From a slim one the optimisers start anew and the generator is its average.

        Stages may have been added, their lengths, rates and γ changed since it was written; the network, seed, style
        mixing and loss may not, where the checkpoint tells them.

        Raises:
            MissingWeightsError: there is no such file.
            UnknownFormatError: the file is no training checkpoint.
            CorruptFileError: the file is truncated or contradicts itself.
            RunMismatchError: it is of another network or training, or the settings have no such stage.
        """
        tensors, header = read_checkpoint(path)
        try:
            config, judge = networks_of(header)
            progress = Progress(**header["progress"])
            told = dict(header.get("settings", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error
        self._check_same_training(path, told)
        stages = self.settings.stages
        expected = self.settings.generator(config.resolution)
        if config != expected:
            raise RunMismatchError(f"{path} holds another network: expected {expected}, got {config}")
        if judge != self.settings.discriminator(config.resolution):
            raise RunMismatchError(
                f"{path} holds a discriminator of another width: train on with widths {judge.channels}"
            )
        if progress.stage >= len(stages) or stages[progress.stage].resolution != config.resolution:
            raise RunMismatchError(
                f"{path} was trained up to stage {progress.stage} at {config.resolution} pixels, "
                f"which is not among the stages {[stage.resolution for stage in stages]}"
            )
        self._build(progress.stage)
        try:
            for name, module in self._modules().items():
                module.load_state_dict(_strip(tensors, name))
            for name, (module, optimiser) in self._optimisers().items():
                _load_optimiser(optimiser, module, _strip(tensors, name))
        except (KeyError, RuntimeError) as error:
            raise CorruptFileError(f"{path} contradicts itself: {error}") from error
        self.progress = progress

    def _check_same_training(self, path: Path, told: Mapping[str, Any]) -> None:
        for name in ("seed", "mixing", "loss"):
            wanted = getattr(self.settings, name)
            if told.get(name, wanted) != wanted:
                raise RunMismatchError(
                    f"{path} is of a training with {name} {told[name]}; got {wanted}. Go on with {told[name]}, or "
                    "start from this checkpoint in another folder"
                )

    def _build(self, stage: int) -> None:
        resolution = self.settings.stages[stage].resolution
        seed = self.settings.seed
        self.generator = build_network(self.settings.generator(resolution), seed=seed).to(self.device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        if isinstance(self.generator, RoomsNetwork):
            self.generator.adain = fused_adain
        judge = Discriminator(self.settings.discriminator(resolution), group=self.settings.group, seed=seed + 1)
        self.discriminator = judge.to(self.device)
        rate = self.settings.stages[stage].learning_rate
        self.optimiser_g = _adam(self.generator, rate, self.settings.beta2)
        self.optimiser_d = _adam(self.discriminator, rate, self.settings.beta2)

    def _step_generator(self) -> torch.Generator:
        key = f"{self.settings.seed}/{self.rank}/{self.progress.step}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()))

    def _reals(self, random: torch.Generator, fade: float) -> Float[Tensor, "n 3 H W"]:
        batch = self.stage.batch
        images = self.source(batch, self.stage.resolution, random).to(self.device)
        reals = images.float() / 127.5 - 1
        flipped = (torch.rand(batch, generator=random) < 0.5).to(self.device)
        reals = torch.where(flipped[:, None, None, None], reals.flip(3), reals)
        if fade < 1:
            reals = torch.lerp(upsample(F.avg_pool2d(reals, 2)), reals, fade)
        return reals.to(self.dtype)

    def _codes(self, random: torch.Generator) -> Float[Tensor, "n L D"]:
        """Codes of fresh latents; some samples take a second code from a random layer on (style mixing)."""
        batch, config = self.stage.batch, self.generator.config
        z = torch.randn(2, batch, config.latent_dim, generator=random)
        layers = config.num_layers
        crossover = torch.randint(1, layers, (batch,), generator=random)
        crossover[torch.rand(batch, generator=random) >= self.settings.mixing] = layers
        second = (torch.arange(layers) >= crossover[:, None]).to(self.device)
        codes = self.generator.map(z.flatten(0, 1).to(self.device)).unflatten(0, (2, batch))
        return torch.where(second[:, :, None], codes[1][:, None], codes[0][:, None])

    @property
    def _relativistic(self) -> bool:
        return self.settings.loss == "relativistic"

    def _discriminate(self, reals: Tensor, fakes: Tensor, fade: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Loss, logits of both sides, and R1 where it was computed; the gradients are left in the discriminator."""
        # Whole groups of the minibatch standard deviation are all real or all fake.
        real, fake = self.discriminator(torch.cat([reals, fakes]), fade).chunk(2)
        if self._relativistic:
            loss = F.softplus(fake - real).mean()
        else:
            loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        loss.backward()
        r1 = None
        if self.progress.step % self.settings.r1_every == 0:
            r1 = self._penalise(reals, fade)
            if self._relativistic:
                self._penalise(fakes, fade)
        return loss, real.detach(), fake.detach(), r1

    def _penalise(self, images: Tensor, fade: float) -> Tensor:
        """Mean squared slope of the logits at these pictures, its gradient left with its weight."""
        images = images.requires_grad_()
        (slope,) = torch.autograd.grad(self.discriminator(images, fade).sum(), images, create_graph=True)
        squared = slope.float().square().sum((1, 2, 3)).mean()
        (squared * (self.stage.gamma / 2 * self.settings.r1_every)).backward()
        return squared.detach()

    def _update(self, module: nn.Module, optimiser: torch.optim.Adam, vote: Vote) -> None:
        if self.world > 1:
            average_gradients(module, vote, self.world)
        optimiser.step()
        optimiser.zero_grad()

    def _average(self, keep: float) -> None:
        if self.rank == 0:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - keep)

    def _modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def _optimisers(self) -> dict[str, tuple[nn.Module, torch.optim.Adam]]:
        return {
            "optimiser_g": (self.generator, self.optimiser_g),
            "optimiser_d": (self.discriminator, self.optimiser_d),
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self._modules().items():
            for name, tensor in module.state_dict().items():
                yield f"{prefix}.{name}", tensor.detach().cpu().contiguous()
        for prefix, (module, optimiser) in self._optimisers().items():
            for name, parameter in module.named_parameters():
                for key, value in optimiser.state.get(parameter, {}).items():
                    yield f"{prefix}.{name}.{key}", value.detach().cpu().contiguous()


def slim_checkpoint(path: Path, target: Path) -> None:
    """Copy a checkpoint in float16, without the optimisers and the generator of the moment, an eighth of the size.

    Training can go on from it: with new optimisers, and from the average.

    Raises:
        as `Trainer.load`.
    """
    tensors, header = read_checkpoint(path)
    parted = ("optimiser_", "generator.")
    kept = {name: tensor.half() for name, tensor in tensors.items() if not name.startswith(parted)}
    write_weights(target, kept, header)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint; where the generator was left out, it is its average.

    Raises:
        MissingWeightsError: there is no such file.
        UnknownFormatError: the file is no training checkpoint.
        CorruptFileError: the file is truncated.
    """
    tensors, header = read_weights(path)
    if header.get("format") != _FORMAT:
        raise UnknownFormatError(
            f"{path} is no training checkpoint: expected {_FORMAT!r}, got {header.get('format')!r}"
        )
    if not any(name.startswith("generator.") for name in tensors):
        averaged = {name: tensor for name, tensor in tensors.items() if name.startswith("average.")}
        tensors |= {f"generator.{name.removeprefix('average.')}": tensor.clone() for name, tensor in averaged.items()}
    return tensors, header


def networks_of(header: Mapping[str, Any]) -> tuple[RoomsConfig, RoomsConfig]:
    """What generator and discriminator are, by the header of a checkpoint."""
    generator = config_from_json(header["config"])
    return generator, replace(generator, channels=tuple(header.get("discriminator_channels") or generator.channels))


def _adam(module: nn.Module, rate: float, beta2: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), rate, betas=(0.0, beta2), fused=True)


def average_gradients(module: nn.Module, vote: Vote, world: int) -> None:
    """Average over processes in one exchange, the votes with them."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    votes = torch.tensor([float(vote.next_stage), float(vote.stop)], device=gradients[0].device)
    flat = torch.cat([*(g.flatten() for g in gradients), votes])
    dist.all_reduce(flat)
    vote.next_stage, vote.stop = (flat[-2:] > 0).tolist()
    flat /= world
    parts = flat[:-2].split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _load_optimiser(optimiser: torch.optim.Adam, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        state: dict[str, Any] = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if f"{name}.{key}" in tensors:
                state[key] = tensors[f"{name}.{key}"].to(parameter.device, torch.float32)
        if state:
            optimiser.state[parameter] = state
