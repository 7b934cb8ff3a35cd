"""Any module or callable of your own as a generator.

Where the network has layer-wise codes, declare them (`ModuleGenerator`). Where it only turns a latent into a picture,
its blocks' activations make a layer-wise space (`from_module`): layer 0 is the latent, layer k the channel means of
block k, each in units of its own spread over samples, so that a step means the same at every layer. Moving the code of
a block shifts its channels by as much, everywhere in the picture; the blocks after it react.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.errors import GeneratorError
from higan.generators.checks import check_codes, check_latents

__all__ = ["ModuleGenerator", "from_module"]

_SPREAD_SEEDS = range(2**31 - 256, 2**31)
"""Of the latents that spreads are estimated from: the last ones that a study would come to."""

_ROUNDING = 1e-5
"""Spread of a channel's mean, relative to the size of the feature maps, that is taken for rounding."""

_RUNNING = threading.RLock()
"""Hooks are a module's own, whichever thread runs it: one at a time."""


class ModuleGenerator:
    """Adapter of the `higan.types.Generator` protocol around functions of your own.

    Args:
        synthesize: truncated codes (n, L, D) to images (n, 3, H, W) in [-1, 1]; what lies beyond is cut off where
            images become bytes.
        latent_dim: Dz.
        layer_widths: code width of every layer; D is the widest, narrower ones are padded with zeros.
        resolution: H = W, in pixels.
        map: latents (n, Dz) to untruncated codes (n, L, D); by default the latent itself is every layer's code.
        latents: seeds to latents (n, Dz), a tensor or an array; by default one standard normal draw per seed.
        shared_code: whether ``map`` gives every layer the same row; true by default where ``map`` is left out.
        mean_code: towards which truncation draws, (D,) or (L, D), a tensor or an array; needed where anything is
            truncated.
        truncation: factor of every layer, ones by default.
        style_weights: layer to the matrix (o, D) by which it reads its code, such as the weight of its affine layer;
            SeFa needs it (`higan.types.StyledGenerator`).
        name: what people type.
        device: where codes and images live.

    Raises:
        ValueError: widths, resolution, truncation and mean code are of another kind, or do not fit each other.
    """

    def __init__(
        self,
        synthesize: Callable[[Tensor], Tensor],
        *,
        latent_dim: int,
        layer_widths: Sequence[int],
        resolution: int,
        map: Callable[[Tensor], Tensor] | None = None,  # noqa: A002 - the protocol's word
        latents: Callable[[Sequence[int]], Tensor] | None = None,
        shared_code: bool | None = None,
        mean_code: Any = None,
        truncation: Any = None,
        style_weights: Callable[[int], Tensor] | None = None,
        name: str = "module",
        device: str | torch.device = "cpu",
    ) -> None:
        if not layer_widths or min(layer_widths) < 1:
            raise ValueError(f"layer_widths must name at least one layer of width 1 or more; got {list(layer_widths)}")
        if map is None and set(layer_widths) != {latent_dim}:
            raise ValueError(
                f"without map every layer's width must be latent_dim, {latent_dim}; got {list(layer_widths)}"
            )
        if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
            raise ValueError(
                f"resolution must be a whole number of pixels, the same for height and width; got {resolution!r}"
            )
        if truncation is not None and mean_code is None:
            raise ValueError("truncation needs a mean_code, towards which codes are drawn; give mean_code=… as well")
        self.name = name
        self.device = torch.device(device)
        self.latent_dim = latent_dim
        self.layer_widths = tuple(layer_widths)
        self.num_layers = len(self.layer_widths)
        self.code_dim = max(self.layer_widths)
        self.resolution = resolution
        self.num_classes = 0
        self.shared_code = map is None if shared_code is None else shared_code
        one_each, code = (self.num_layers,), (self.code_dim,)
        self.truncation = self._given(
            "truncation", torch.ones(one_each) if truncation is None else truncation, one_each
        )
        self.mean_code = self._given(
            "mean_code", torch.zeros(code) if mean_code is None else mean_code, code, one_each + code
        )
        self._latents = latents
        self._map = map
        self._synthesize = synthesize
        if style_weights is not None:
            # Not a method: who has it is taken for a generator that SeFa works on.
            self.style_weights = partial(self._styles, style_weights)

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """One independent draw per seed.

        Raises:
            GeneratorError: the function given for it returns another shape.
        """
        if self._latents is None:
            return _normal(seeds, self.latent_dim).to(self.device)
        z = self._latents(seeds)
        with suppress(TypeError, ValueError, RuntimeError):  # what is no array is told below
            z = torch.as_tensor(z)
        return self._owed(z, (len(seeds), self.latent_dim), "latents").to(self.device)

    def map(self, z: Float[Tensor, "n Dz"]) -> Float[Tensor, "n L D"]:
        """Layer-wise codes, untruncated.

        Raises:
            ValueError: the shape of ``z`` does not fit, or a value is not finite.
            GeneratorError: the function given for it returns another shape.
        """
        check_latents(z, self.latent_dim)
        if self._map is None:
            return z[:, None].expand(-1, self.num_layers, -1)
        return self._owed(self._map(z), (z.shape[0], self.num_layers, self.code_dim), "map")

    def _styles(self, function: Callable[[int], Tensor], layer: int) -> Float[Tensor, "o D"]:
        """What a layer reads its code by.

        Raises:
            ValueError: there is no such layer.
            GeneratorError: the function given for it returns something else than a matrix of that width.
        """
        if not 0 <= layer < self.num_layers:
            raise ValueError(f"layer must lie in 0 … {self.num_layers - 1}; got {layer}")
        found = function(layer)
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != self.code_dim:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise GeneratorError(f"style_weights must return a matrix (o, {self.code_dim}); got {got}")
        return found

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images as your function gives them, truncation applied; differentiable as far as it is.

        They are not cut off at -1 and 1 before they become bytes, so that another range can be told.

        Raises:
            ValueError: the shape does not fit, a value is not finite, or the padding of a narrow layer was touched.
            GeneratorError: the function given for it returns another shape.
        """
        check_codes(codes, self.layer_widths)
        truncated = self.mean_code + self.truncation[:, None] * (codes - self.mean_code)
        with torch.set_grad_enabled(torch.is_grad_enabled() and codes.requires_grad):
            images = self._synthesize(truncated)
        return self._owed(images, (codes.shape[0], 3, self.resolution, self.resolution), "synthesize")

    def _given(self, what: str, value: Any, *shapes: tuple[int, ...]) -> Tensor:
        wanted = " or ".join(map(str, shapes))
        try:
            found = torch.as_tensor(value, dtype=torch.float32, device=self.device).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{what} must be numbers of shape {wanted}; got {type(value).__name__} ({error})"
            ) from error
        if tuple(found.shape) not in shapes:
            one_each = "; give one factor per layer" if what == "truncation" else ""
            raise ValueError(f"{what} must have shape {wanted}; got {tuple(found.shape)}{one_each}")
        return found

    def _owed(self, value: object, shape: tuple[int, ...], what: str) -> Tensor:
        if not isinstance(value, Tensor):
            got = type(value).__name__
        elif tuple(value.shape) != shape or not value.is_floating_point():
            got = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
        else:
            return value.float()
        raise GeneratorError(
            f"{what} of {self.name} must return a tensor of floating-point values of shape {shape}; got {got}. "
            "Convert it in the function that was given"
        )


def _normal(seeds: Sequence[int], latent_dim: int) -> Float[Tensor, "n Dz"]:
    draws = [torch.randn(latent_dim, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(draws) if draws else torch.empty(0, latent_dim)


def from_module(
    module: nn.Module,
    latent_dim: int,
    blocks: Sequence[str] | None = None,
    *,
    name: str = "module",
    device: str | torch.device = "cpu",
    latents: Callable[[Sequence[int]], Tensor] | None = None,
) -> ModuleGenerator:
    """A generator from a module that turns latents (n, Dz) into images (n, 3, H, W) in [-1, 1].

    Codes of blocks have mean 0 and standard deviation 1 per channel, over 256 latents of fixed seeds that are drawn
    here. A block whose channel means do not depend on the latent has no code, nor has a channel.

    Args:
        module: is put into evaluation mode on ``device``; may compute in any floating-point type, codes and images are
            float32.
        latent_dim: Dz.
        blocks: names of sub-modules (as in ``named_modules``) whose output is (n, c, h, w), in the order in which they
            run; by default every convolution that depends on the latent but the one that makes the image.
        name: what people type.
        device: where codes and images live.
        latents: seeds to latents; by default one standard normal draw per seed.

    Raises:
        ValueError: a block does not exist, does not run exactly once or after the next one, does not depend on the
            latent, or gives something else than feature maps; or there is none.
        GeneratorError: the module does not take latents alone, or does not return square RGB images; or ``latents``
            returns another shape.
    """
    _check_module(module)
    module = module.to(device).eval()
    taps = _Taps(module, blocks, latent_dim, torch.device(device))
    taps.measure(latents or (lambda seeds: _normal(seeds, latent_dim)), named=bool(blocks))
    return ModuleGenerator(
        taps.synthesize,
        latent_dim=latent_dim,
        layer_widths=taps.widths,
        resolution=taps.resolution,
        map=taps.map,
        latents=latents,
        shared_code=False,
        name=name,
        device=device,
    )


def _check_module(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise ValueError(  # noqa: TRY004 - an argument, as all others
            f"from_module takes a torch.nn.Module; got {type(module).__name__}: a function becomes a generator with "
            "ModuleGenerator"
        )
    needed: list[str] = []
    with suppress(TypeError, ValueError):  # compiled modules may not tell
        parameters = inspect.signature(module.forward).parameters.values()
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p.name for p in parameters if p.default is p.empty and p.kind in positional]
    if len(needed) > 1:
        raise GeneratorError(
            f"the module must take latents alone; its forward takes {', '.join(needed)}: wrap it in a module that "
            f"passes one {needed[1]} for all"
        )


def _convolutions(module: nn.Module) -> list[str]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [name for name, part in module.named_modules() if isinstance(part, kinds) and part.out_channels > 3]


class _BlockError(ValueError):
    """A block is none; told apart from what the module itself raises."""


@dataclass(frozen=True, slots=True, eq=False)
class _Unit:
    """Mean and standard deviation of a block's channel means; a spread of 0 where they do not vary."""

    mean: Float[Tensor, " c"]
    spread: Float[Tensor, " c"]

    def code(self, means: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        varies = self.spread > 0
        return torch.where(varies, (means - self.mean) / torch.where(varies, self.spread, 1.0), 0.0)


class _Taps:
    """Reads and shifts the channels of some blocks while their module runs."""

    def __init__(self, module: nn.Module, blocks: Sequence[str] | None, latent_dim: int, device: torch.device) -> None:
        parts = dict(module.named_modules())
        names = list(blocks or _convolutions(module))
        missing = [name for name in names if name not in parts]
        if missing:
            raise ValueError(f"blocks must name sub-modules, such as {list(parts)[1:6]}; got {missing}")
        if not names:
            raise ValueError(
                "the module has no convolution whose channels could be a layer; name blocks=[…] that return feature "
                "maps (n, c, h, w), or declare layers of another kind with ModuleGenerator"
            )
        self.module = module
        self.device = device
        self.latent_dim = latent_dim
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        self.names = names
        self.parts = [parts[name] for name in names]
        found, image = self._try()
        # A module may list its parts in another order than they run in.
        order = list(found)
        self.names = [names[k] for k in order]
        self.parts = [parts[name] for name in self.names]
        if blocks and self.names != names:
            raise ValueError(f"blocks must be named in the order in which they run: {self.names}; got {names}")
        self.resolution = int(image.shape[-1])
        self.units: list[_Unit] = []

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the latent and every block."""
        return (self.latent_dim, *(len(unit.mean) for unit in self.units))

    def measure(self, latents: Callable[[Sequence[int]], Any], *, named: bool) -> None:
        """Finds the unit of every block, and leaves out blocks that do not depend on the latent.

        Raises:
            ValueError: such a block was named, or there is no other.
        """
        means, sizes = self._sampled(latents)
        units = [_unit(mean, size) for mean, size in zip(means, sizes, strict=True)]
        alive = [k for k, unit in enumerate(units) if bool((unit.spread > 0).any())]
        constant = [name for k, name in enumerate(self.names) if k not in alive]
        if constant and (named or not alive):
            raise ValueError(
                f"the channel means of {', '.join(constant)} do not depend on the latent, so that there is nothing to "
                "edit; name blocks=[…] that do, or declare the network's own codes with ModuleGenerator"
            )
        self.names = [self.names[k] for k in alive]
        self.parts = [self.parts[k] for k in alive]
        self.units = [units[k] for k in alive]

    def map(self, z: Tensor) -> Tensor:
        """The latent and the code of every block, padded."""
        means = self._run(z)[0]
        rows = [z, *(unit.code(mean) for unit, mean in zip(self.units, means, strict=True))]
        return torch.stack([F.pad(row, (0, max(self.widths) - row.shape[1])) for row in rows], dim=1)

    def synthesize(self, codes: Tensor) -> Tensor:
        """Images whose blocks are shifted by how far their codes lie from what the latent alone gives."""
        z = codes[:, 0, : self.latent_dim]
        moved = (codes - self.map(z))[:, 1:]
        shifts = [moved[:, k, : len(unit.mean)] * unit.spread for k, unit in enumerate(self.units)]
        return self._run(z, shifts)[1]

    def _sampled(self, latents: Callable[[Sequence[int]], Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Channel means of every block, (n, c), and the mean square of its feature maps, for latents of fixed seeds."""
        z = torch.as_tensor(latents(list(_SPREAD_SEEDS))).float().to(self.device)
        if z.shape != (len(_SPREAD_SEEDS), self.latent_dim):
            raise GeneratorError(
                f"latents must return a row of latent_dim = {self.latent_dim} numbers per seed; got {tuple(z.shape)} "
                f"for {len(_SPREAD_SEEDS)} seeds"
            )
        found: list[list[Tensor]] = []
        with torch.no_grad():
            for batch in z.split(16):
                found.append(self._run(batch, read=_means_and_size)[0])
        blocks = [torch.cat(parts) for parts in zip(*found, strict=True)]
        return [block[:, :-1] for block in blocks], [block[:, -1].mean() for block in blocks]

    def _try(self) -> tuple[dict[int, Tensor], Tensor]:
        """A first run, after which the module is known to turn latents into images.

        Raises:
            GeneratorError: it does not.
            ValueError: a block is none.
        """
        shape = (2, self.latent_dim)
        with torch.no_grad():
            try:
                found, image = self._watch(torch.zeros(shape, device=self.device))
            except _BlockError:
                raise
            except Exception as error:
                raise GeneratorError(
                    f"the module must take latents of shape {shape}, n and latent_dim; it failed with "
                    f"{type(error).__name__}: {' '.join(str(error).split())}. {self._remedy()}"
                ) from error
        if not isinstance(image, Tensor):
            raise GeneratorError(
                f"the module must return images (n, 3, H, H); got {type(image).__name__}: wrap it in a module whose "
                "forward returns the images alone"
            )
        if image.ndim != 4 or image.shape[:2] != (2, 3) or image.shape[2] != image.shape[3]:
            raise GeneratorError(
                f"the module must return square RGB images (n, 3, H, H); got {tuple(image.shape)} for n = 2: wrap it "
                "in a module that crops or scales them, or repeats a grey channel"
            )
        if not image.is_floating_point():
            raise GeneratorError(f"the module must return floating-point images in [-1, 1]; got {image.dtype}")
        return found, image

    def _remedy(self) -> str:
        with suppress(Exception):
            self._watch(torch.zeros(2, self.latent_dim, 1, 1, device=self.device))
            return (
                f"It takes (n, {self.latent_dim}, 1, 1): put nn.Unflatten(1, ({self.latent_dim}, 1, 1)) before it, by "
                "nn.Sequential"
            )
        return "Is latent_dim right? Where it takes latents of another shape, wrap it in a module that takes these"

    def _run(
        self, z: Tensor, shifts: Sequence[Tensor] | None = None, read: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """What is read off the blocks, by default their channel means, and the image."""
        found, image = self._watch(z, shifts, read or _means)
        return [found[k] for k in range(len(self.parts))], image

    def _watch(
        self, z: Tensor, shifts: Sequence[Tensor] | None = None, read: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[dict[int, Tensor], Any]:
        """What is read off the blocks by number, in the order in which they run, and what the module returns.

        Raises:
            GeneratorError: the module was put back into training, where pictures depend on their batch.
        """
        if self.module.training:
            raise GeneratorError(
                f"{type(self.module).__name__} was put back into training mode, where its pictures depend on their "
                "batch and change it; call eval() on it again, or give a copy to from_module"
            )
        found: dict[int, Tensor] = {}
        with (
            _RUNNING,
            self._hooks(found, shifts, read or _means),
            torch.set_grad_enabled(torch.is_grad_enabled() and z.requires_grad),
        ):
            image = self.module(z.to(self.dtype))
        if len(found) < len(self.parts):
            idle = [name for k, name in enumerate(self.names) if k not in found]
            raise _BlockError(f"blocks must run when the module runs; {', '.join(idle)} did not")
        return found, image

    @contextmanager
    def _hooks(
        self, found: dict[int, Tensor], shifts: Sequence[Tensor] | None, read: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        def tap(k: int, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise _BlockError(f"block {self.names[k]} must return feature maps (n, c, h, w)")
            if k in found:
                raise _BlockError(f"block {self.names[k]} runs more than once; name blocks that run once")
            found[k] = read(output)
            return None if shifts is None else output + shifts[k][:, :, None, None].to(output.dtype)

        handles = [
            part.register_forward_hook(lambda _, __, output, k=k: tap(k, output)) for k, part in enumerate(self.parts)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _means(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
    return maps.float().mean((2, 3))


def _means_and_size(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c1"]:
    """Channel means, and in one more column the mean square."""
    return torch.cat([_means(maps), maps.float().square().mean((1, 2, 3))[:, None]], 1)


def _unit(means: Float[Tensor, "n c"], mean_square: Float[Tensor, ""]) -> _Unit:
    spread, mean = torch.std_mean(means.cpu().double(), 0)  # which not every device has
    # What is left of constant channels by rounding, which differs with the place in a batch, is no spread.
    least = _ROUNDING * mean_square.cpu().double().sqrt()
    return _Unit(mean.to(means), torch.where(spread > least, spread, 0.0).to(means))
