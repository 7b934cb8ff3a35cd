"""Any module or callable of your own as a generator.

Where the network has layer-wise codes, declare them (`ModuleGenerator`). Where it only turns a latent into a picture,
its blocks' activations make a layer-wise space (`from_module`): layer 0 is the latent, layer k the channel means of
block k. Moving the code of a block shifts its channels by as much, everywhere in the picture; the blocks after it
react.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from higan.errors import GeneratorError
from higan.generators.checks import check_codes, check_latents

__all__ = ["ModuleGenerator", "from_module"]


class ModuleGenerator:
    """Adapter of the `higan.types.Generator` protocol around functions of your own.

    Args:
        synthesize: truncated codes (n, L, D) to images (n, 3, H, W); values beyond [-1, 1] are clipped.
        latent_dim: Dz.
        layer_widths: code width of every layer; D is the widest, narrower ones are padded with zeros.
        resolution: H = W, in pixels.
        map: latents (n, Dz) to untruncated codes (n, L, D); by default the latent itself is every layer's code.
        latents: seeds to latents (n, Dz); by default one standard normal draw per seed.
        shared_code: whether ``map`` gives every layer the same row; true by default where ``map`` is left out.
        mean_code: towards which truncation draws, (D,) or (L, D); needed where anything is truncated.
        truncation: factor of every layer, ones by default.
        name: what people type.
        device: where codes and images live.

    Raises:
        ValueError: widths, truncation and mean code do not fit each other.
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
        mean_code: Tensor | None = None,
        truncation: Sequence[float] | None = None,
        name: str = "module",
        device: str | torch.device = "cpu",
    ) -> None:
        if not layer_widths or min(layer_widths) < 1:
            raise ValueError(f"layer_widths must name at least one layer of width 1 or more; got {list(layer_widths)}")
        if map is None and set(layer_widths) != {latent_dim}:
            raise ValueError(
                f"without map every layer's width must be latent_dim, {latent_dim}; got {list(layer_widths)}"
            )
        if truncation is not None and (len(truncation) != len(layer_widths) or mean_code is None):
            raise ValueError(f"truncation needs a mean_code, and one factor for each of {len(layer_widths)} layers")
        self.name = name
        self.device = torch.device(device)
        self.latent_dim = latent_dim
        self.layer_widths = tuple(layer_widths)
        self.num_layers = len(self.layer_widths)
        self.code_dim = max(self.layer_widths)
        self.resolution = resolution
        self.num_classes = 0
        self.shared_code = map is None if shared_code is None else shared_code
        self.truncation = torch.ones(self.num_layers) if truncation is None else torch.tensor(list(truncation))
        self.truncation = self.truncation.to(self.device)
        self.mean_code = (torch.zeros(self.code_dim) if mean_code is None else mean_code).to(self.device)
        self._latents = latents
        self._map = map
        self._synthesize = synthesize

    def latents(self, seeds: Sequence[int]) -> Float[Tensor, "n Dz"]:
        """One independent draw per seed.

        Raises:
            GeneratorError: the function given for it returns another shape.
        """
        if self._latents is not None:
            z = self._latents(seeds).to(self.device)
        else:
            draws = [torch.randn(self.latent_dim, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
            z = (torch.stack(draws) if draws else torch.empty(0, self.latent_dim)).to(self.device)
        return self._owed(z, (len(seeds), self.latent_dim), "latents")

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

    def synthesize(self, codes: Float[Tensor, "n L D"]) -> Float[Tensor, "n 3 H W"]:
        """Images in [-1, 1], truncation applied; differentiable as far as your function is.

        Raises:
            ValueError: the shape does not fit, a value is not finite, or the padding of a narrow layer was touched.
            GeneratorError: the function given for it returns another shape.
        """
        check_codes(codes, self.layer_widths)
        truncated = self.mean_code + self.truncation[:, None] * (codes - self.mean_code)
        with torch.set_grad_enabled(torch.is_grad_enabled() and codes.requires_grad):
            images = self._synthesize(truncated)
        return self._owed(images, (codes.shape[0], 3, self.resolution, self.resolution), "synthesize").clamp(-1, 1)

    def _owed(self, value: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
        if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GeneratorError(f"{what} of {self.name} must return floating-point values of shape {shape}; got {got}")
        return value


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

    Args:
        module: is put into evaluation mode on ``device``.
        latent_dim: Dz.
        blocks: names of sub-modules (as in ``named_modules``) whose output is (n, c, h, w), in the order in which they
            run; by default every convolution but the one that makes the image.
        name: what people type.
        device: where codes and images live.
        latents: seeds to latents; by default one standard normal draw per seed.

    Raises:
        ValueError: a block does not exist, does not run exactly once or after the next one, or gives something else
            than feature maps.
        GeneratorError: the module does not return images.
    """
    module = module.to(device).eval()
    taps = _Taps(module, blocks, latent_dim, torch.device(device))
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


def _convolutions(module: nn.Module) -> list[str]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [name for name, part in module.named_modules() if isinstance(part, kinds) and part.out_channels > 3]


class _Taps:
    """Reads and shifts the channels of some blocks while their module runs."""

    def __init__(self, module: nn.Module, blocks: Sequence[str] | None, latent_dim: int, device: torch.device) -> None:
        parts = dict(module.named_modules())
        names = list(blocks or _convolutions(module))
        missing = [name for name in names if name not in parts]
        if missing or not names:
            raise ValueError(f"blocks must name sub-modules, such as {list(parts)[1:6]}; got {missing or 'none'}")
        self.module = module
        self.names = names
        self.parts = [parts[name] for name in names]
        found, image = self._watch(torch.zeros(1, latent_dim, device=device))
        # A module may list its parts in another order than they run in.
        order = list(found)
        self.names = [names[k] for k in order]
        self.parts = [parts[name] for name in self.names]
        if blocks and self.names != names:
            raise ValueError(f"blocks must be named in the order in which they run: {self.names}; got {names}")
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise GeneratorError(f"the module must return square images (n, 3, H, H); got {tuple(image.shape)}")
        self.resolution = int(image.shape[-1])
        self.widths = (latent_dim, *(mean.shape[1] for mean in found.values()))

    def map(self, z: Tensor) -> Tensor:
        """The latent and the channel means of every block, padded."""
        rows = [z, *self._run(z)[0]]
        return torch.stack([F.pad(row, (0, max(self.widths) - row.shape[1])) for row in rows], dim=1)

    def synthesize(self, codes: Tensor) -> Tensor:
        """Images whose blocks are shifted by how far their codes lie from what the latent alone gives."""
        z = codes[:, 0, : self.widths[0]]
        own = self.map(z)
        shifts = [(codes - own)[:, k, :width] for k, width in enumerate(self.widths) if k > 0]
        return self._run(z, shifts)[1]

    def _run(self, z: Tensor, shifts: Sequence[Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
        """Channel means of the blocks, and the image."""
        found, image = self._watch(z, shifts)
        return [found[k] for k in range(len(self.parts))], image

    def _watch(self, z: Tensor, shifts: Sequence[Tensor] | None = None) -> tuple[dict[int, Tensor], Tensor]:
        """Channel means of the blocks by number, in the order in which they run, and the image."""
        found: dict[int, Tensor] = {}
        with self._hooks(found, shifts), torch.set_grad_enabled(torch.is_grad_enabled() and z.requires_grad):
            image = self.module(z)
        if len(found) < len(self.parts):
            idle = [name for k, name in enumerate(self.names) if k not in found]
            raise ValueError(f"blocks must run when the module runs; {', '.join(idle)} did not")
        return found, image

    @contextmanager
    def _hooks(self, found: dict[int, Tensor], shifts: Sequence[Tensor] | None) -> Iterator[None]:
        def tap(k: int, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise ValueError(f"block {self.names[k]} must return feature maps (n, c, h, w)")
            if k in found:
                raise ValueError(f"block {self.names[k]} runs more than once; name blocks that run once")
            found[k] = output.mean((2, 3))
            return None if shifts is None else output + shifts[k][:, :, None, None]

        handles = [
            part.register_forward_hook(lambda _, __, output, k=k: tap(k, output)) for k, part in enumerate(self.parts)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
