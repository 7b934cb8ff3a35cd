"""Does a generator or scorer of your own keep its contract? Every finding says what is wrong and how to mend it.

Plain functions: they print nothing and raise nothing for what they find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.blame import blame, is_foreign
from higan.errors import HiganError
from higan.types import Concept, Generator, RepeatedGenerator, Scorer, StagedGenerator

__all__ = ["RESCALE", "Finding", "check_generator", "check_scorer", "strange_range", "trial_images"]

TOLERANCE = 1e-3
"""Of the spread of scores, or of pixel values: by how much results may differ between batches."""


RESCALE = "return images in [-1, 1]: for bytes x / 127.5 − 1, for [0, 1] 2x − 1"
"""What to do about a strange range."""

_RAISED = "mend the line that is named, or hand the model what it expects in a function of your own"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    problem: str = ""
    """What is wrong; empty where nothing is."""
    remedy: str = ""
    """How to mend it."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    remedy: str
    find: Callable[[], str | None]
    needed: bool = False
    """Whether the checks after it make no sense if it fails."""


def _run(checks: Iterator[_Check]) -> list[Finding]:
    findings = []
    for check in checks:
        remedy = check.remedy
        try:
            problem = check.find() or ""
        except HiganError as error:
            problem = str(error)
            if error.__cause__ is not None and is_foreign(error.__cause__):
                remedy = _RAISED
        except Exception as error:  # whatever foreign code raises is what there is to report
            problem, remedy = f"raises {blame(error)}", _RAISED
        findings.append(Finding(check.name, problem, remedy if problem else ""))
        if problem and check.needed:
            break
    return findings


def _at_random_state(seed: int, compute: Callable[[], Tensor]) -> Tensor:
    """A result under another global random state, which is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return compute().clone()


def _shape(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape ({', '.join(map(str, value.shape))})"
    return type(value).__name__


# ---- scorers --------------------------------------------------------------------------------------------------------


def trial_images(num: int = 8, resolution: int = 128, device: torch.device | str = "cpu") -> UInt8[Tensor, "n 3 H W"]:
    """Varied pictures without meaning: coloured blots from coarse to fine, the last two black and white."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for k in range(num):
        side = min(2 << k % 6, resolution)
        blots = torch.rand(1, 3, side, side, generator=generator)
        pictures.append(torch.nn.functional.interpolate(blots, (resolution, resolution), mode="bilinear"))
    images = (torch.cat(pictures) * 255).round().to(torch.uint8)
    images[-2:] = torch.tensor([0, 255], dtype=torch.uint8)[-min(num, 2) :, None, None, None]
    return images.to(device)


def check_scorer(scorer: Scorer, images: UInt8[Tensor, "n 3 H W"] | None = None) -> list[Finding]:
    """Try a scorer on a few pictures.

    Args:
        scorer: yours.
        images: at least 3 different pictures of the kind it was made for, on its device; by default `trial_images`,
            which are enough for all but the last check.

    Returns:
        One finding per check: concepts, shape, finite numbers, repeatability, independence of the batch, device, input
        left alone, sensitivity. After a wrong shape, or NaN, the others are not tried.

    Raises:
        ValueError: fewer than 3 images.
    """
    pictures = trial_images() if images is None else images
    if len(pictures) < 3:
        raise ValueError(f"checking a scorer takes at least 3 images; got {len(pictures)}")
    with torch.inference_mode():
        return _run(_scorer_checks(scorer, pictures))


@dataclass(frozen=True, slots=True)
class _ScorerTrial:
    """What is tried on a scorer; every method but ``scores`` gives the problem it found."""

    scorer: Scorer
    images: Tensor

    def scores(self) -> Tensor:
        return self.scorer.score(self.images.clone())

    def concepts(self) -> str | None:
        listed = tuple(self.scorer.concepts)
        names = [concept.name for concept in listed if isinstance(concept, Concept)]
        if not listed or len(names) != len(listed):
            return f"concepts must be a non-empty tuple of higan.Concept; got {self.scorer.concepts!r}"
        twice = sorted({name for name in names if names.count(name) > 1})
        return f"names appear twice: {', '.join(twice)}" if twice else None

    def shape(self) -> str | None:
        scores = self.scores()
        wanted = (len(self.images), len(self.scorer.concepts))
        if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted or not scores.is_floating_point():
            return f"score must return floats of shape {wanted}, a row per image and a column per concept; " + (
                f"got {_shape(scores)}"
            )
        return None

    def finite(self) -> str | None:
        bad = ~torch.isfinite(self.scores())
        names = [self.scorer.concepts[k].name for k in bad.any(0).nonzero().flatten().tolist()]
        count = int(bad.any(1).sum())
        return f"NaN or infinity for {', '.join(names)} in {count} of {len(bad)} pictures" if names else None

    def repeatable(self) -> str | None:
        first, second = (_at_random_state(seed, self.scores) for seed in (1, 2))
        off = (first - second).abs().max().item()
        return f"the same images scored twice differ by up to {off:.3g}" if off else None

    def batches(self) -> str | None:
        together = self.scores().cpu().double()
        alone = torch.cat([self.scorer.score(image[None].clone()) for image in self.images]).cpu().double()
        spread = together.std(0).clamp(min=1e-6) + 1e-3 * together.abs().amax(0)
        off = ((together - alone).abs() / spread).amax(0)
        worst = int(off.argmax())
        if off[worst] <= TOLERANCE:
            return None
        name = self.scorer.concepts[worst].name
        if not bool(torch.isfinite(off[worst])):
            return f"{name} is NaN or infinite when images come one by one"
        return f"{name} differs by {off[worst]:.2g} of its spread when images come one by one"

    def device(self) -> str | None:
        given, found = self.images.device, self.scores().device
        return None if found == given else f"images on {given}, scores on {found}"

    def untouched(self) -> str | None:
        given = self.images.clone()
        self.scorer.score(given)
        return None if torch.equal(given, self.images) else "the images are changed by scoring them"

    def sensitive(self) -> str | None:
        spread = self.scores().cpu().double().std(0)
        flat = [self.scorer.concepts[k].name for k in (spread == 0).nonzero().flatten().tolist()]
        return f"the same score for every image: {', '.join(flat)}" if flat else None


def _scorer_checks(scorer: Scorer, images: Tensor) -> Iterator[_Check]:
    trial = _ScorerTrial(scorer, images)
    yield _Check(
        "concepts", "name every column once: concepts = (Concept('wood', 'attribute'), …)", trial.concepts, True
    )
    yield _Check("shape", "return a float tensor (n, C); C is the number of concepts", trial.shape, True)
    yield _Check("finite", "guard logarithms and divisions, or drop the concept", trial.finite, True)
    yield _Check("repeatable", "call .eval() on the network and draw no random numbers", trial.repeatable)
    yield _Check(
        "batches", "call .eval(); normalise every image by itself, never by figures of the batch", trial.batches
    )
    yield _Check("device", "return scores.to(images.device)", trial.device)
    yield _Check(
        "untouched", "work on a copy: images.float() makes one, in-place operations on uint8 do not", trial.untouched
    )
    yield _Check(
        "sensitive",
        "check that images reach the network as it expects them (range, channel order, size), or pass pictures that "
        "differ in the concept",
        trial.sensitive,
    )


# ---- generators -----------------------------------------------------------------------------------------------------


def check_generator(generator: Generator) -> list[Finding]:
    """Try a generator on a few seeds.

    Returns:
        One finding per check: sizes, latents by seed, codes, images, range, repeatability, codes left alone,
        independence of the batch, shared codes, reach of every layer, gradients, and for a staged generator that
        stages add up. After a wrong shape the others are not tried.
    """
    return _run(_generator_checks(generator))


_SEEDS = (3, 1, 4)


def strange_range(images: Float[Tensor, "n 3 H W"]) -> str | None:
    """What shows that pictures are not in [-1, 1]: they were bytes, or none of them is darker than mid-grey."""
    low, high, beyond = images.min().item(), images.max().item(), (images.abs() > 1.5).float().mean().item()
    if beyond > 0.2:
        return f"{beyond:.0%} of pixel values lie far outside [-1, 1]; found {low:.3g} … {high:.3g}"
    return f"values lie in {low:.3g} … {high:.3g}; nothing is below 0" if low >= 0 and high > 0.1 else None


@dataclass(frozen=True, slots=True)
class _GeneratorTrial:
    """What is tried on a generator; every method but ``codes`` and ``draw`` gives the problem it found."""

    generator: Generator

    def codes(self) -> Tensor:
        with torch.no_grad():
            return self.generator.map(self.generator.latents(_SEEDS))

    def draw(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            return self.generator.synthesize(values.clone())

    def sizes(self) -> str | None:
        for name in ("num_layers", "code_dim", "latent_dim", "resolution"):
            value = getattr(self.generator, name)
            if not isinstance(value, int) or value < 1:
                return f"{name} must be a whole number of 1 or more; got {value!r}"
        wanted = (self.generator.num_layers,)
        if tuple(self.generator.truncation.shape) != wanted:
            return f"truncation must have shape {wanted}; got {_shape(self.generator.truncation)}"
        return None

    def latents(self) -> str | None:
        found = _at_random_state(1, lambda: self.generator.latents(_SEEDS))
        if tuple(found.shape) != (3, self.generator.latent_dim) or not found.is_floating_point():
            return (
                f"latents must return floats of shape (3, {self.generator.latent_dim}) for 3 seeds; got {_shape(found)}"
            )
        if not torch.equal(found, _at_random_state(2, lambda: self.generator.latents(_SEEDS))):
            return "the same seeds give other latents the second time"
        if not torch.equal(found[1:2], self.generator.latents(_SEEDS[1:2])):
            return "the latents of a seed depend on the seeds beside it"
        return "different seeds give the same latents" if torch.equal(found[0], found[1]) else None

    def mapped(self) -> str | None:
        found = self.codes()
        wanted = (3, self.generator.num_layers, self.generator.code_dim)
        if tuple(found.shape) != wanted or not found.is_floating_point():
            return f"map must return floats of shape {wanted}; got {_shape(found)}"
        return None if bool(torch.isfinite(found).all()) else "map returns NaN or infinity"

    def images(self) -> str | None:
        found = self.draw(self.codes())
        wanted = (3, 3, self.generator.resolution, self.generator.resolution)
        if tuple(found.shape) != wanted or not found.is_floating_point():
            return f"synthesize must return floats of shape {wanted}; got {_shape(found)}"
        if found.device != self.codes().device:
            return f"codes on {self.codes().device}, images on {found.device}"
        return None if bool(torch.isfinite(found).all()) else "synthesize returns NaN or infinity"

    def values(self) -> str | None:
        return strange_range(self.draw(self.codes()))

    def repeatable(self) -> str | None:
        given = self.codes()
        first, second = (_at_random_state(seed, lambda: self.draw(given)) for seed in (1, 2))
        off = (first - second).abs().max().item()
        return f"the same codes drawn twice differ by up to {off:.3g}" if off else None

    def batches(self) -> str | None:
        given = self.codes()
        together = self.draw(given)
        alone = torch.cat([self.draw(row[None]) for row in given])
        off = (together - alone).abs().max().item()
        return f"images drawn one by one differ by up to {off:.3g}" if off > TOLERANCE else None

    def shared(self) -> str | None:
        given = self.codes()
        same = torch.equal(given, given[:, :1].expand_as(given))
        if same == self.generator.shared_code or self.generator.num_layers == 1:
            return None
        found = "the same row" if same else "different rows"
        return f"shared_code is {self.generator.shared_code}, but map gives all layers {found}"

    def untouched(self) -> str | None:
        given = self.codes()
        before = given.clone()
        with torch.no_grad():
            self.generator.synthesize(given)
        return None if torch.equal(given, before) else "synthesize changes the codes it is given"

    def reach(self) -> str | None:
        given = self.codes()[:2]
        plain, dead = self.draw(given), []
        for layer in range(self.generator.num_layers):
            moved = given.clone()
            moved[:, layer] = given.flip(0)[:, layer]
            if self.generator.truncation[layer] != 0 and torch.equal(self.draw(moved), plain):
                dead.append(str(layer))
        return f"layers {', '.join(dead)} do not change the image" if dead else None

    def gradients(self) -> str | None:
        given = self.codes()[:1].clone().requires_grad_(True)
        image = self.generator.synthesize(given)
        if not image.requires_grad:
            return "images do not depend on codes as far as autograd can tell"
        # Not backward(), which would leave gradients in the weights of a network that is somebody's.
        (grown,) = torch.autograd.grad(image.square().sum(), given, allow_unused=True)
        return None if grown is not None and bool(grown.abs().sum() > 0) else "the gradient of the codes is zero"

    def stages(self) -> str | None:
        if not isinstance(self.generator, StagedGenerator):
            return None
        given = self.codes()[:2]
        for layer in {0, self.generator.num_layers // 2, self.generator.num_layers - 1}:
            edited = given.clone()
            edited[:, layer:] = given.flip(0)[:, layer:]
            expected = self.draw(edited)
            with torch.no_grad():
                state = self.generator.prepare(given.clone(), layer)
                resumed = self.generator.resume(state, edited.clone(), layer)
                off = (resumed - expected).abs().max().item()
                if off > TOLERANCE:
                    return f"going on from layer {layer} differs from drawing afresh by up to {off:.3g}"
                if isinstance(self.generator, RepeatedGenerator):
                    twice = self.generator.resume(self.generator.repeat(state, 2), torch.cat([edited] * 2), layer)
                    off = (twice - torch.cat([expected] * 2)).abs().max().item()
                    if off > TOLERANCE:
                        return f"a state before layer {layer}, repeated, draws other images, by up to {off:.3g}"
        return None


def _generator_checks(generator: Generator) -> Iterator[_Check]:
    trial = _GeneratorTrial(generator)
    seeded = "draw every row from its own torch.Generator().manual_seed(seed)"
    yield _Check(
        "sizes",
        "set num_layers, code_dim, latent_dim, resolution and truncation as types.Generator says",
        trial.sizes,
        True,
    )
    yield _Check("latents", seeded, trial.latents, True)
    yield _Check("codes", "return one untruncated code per layer, (n, L, D), padded with zeros", trial.mapped, True)
    yield _Check("images", "return images (n, 3, H, H) on the codes' device", trial.images, True)
    yield _Check("range", RESCALE, trial.values)
    yield _Check("repeatable", "call .eval() and keep noise inputs fixed", trial.repeatable)
    yield _Check("batches", "call .eval(); let no operation look across the batch", trial.batches)
    yield _Check("shared_code", "set shared_code to whether map gives all layers the same row", trial.shared)
    yield _Check("untouched", "change a clone of the codes", trial.untouched)
    yield _Check("reach", "feed codes[:, l] to layer l; set num_layers to the layers that exist", trial.reach)
    yield _Check("gradients", "draw without torch.no_grad, .detach() and .data inside synthesize", trial.gradients)
    yield _Check("stages", "make prepare keep everything that layers before l contribute", trial.stages)
