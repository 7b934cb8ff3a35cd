"""The official files of every family, by the name people type: a table, no code that fetches anything.

Where a name exists in the official HiGAN tool, it is the same here. Addresses are those that the authors published.
None of the authors published a SHA-256, so digests are recorded on first use (see :mod:`higan.checkpoints.download`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["MODELS", "Model", "Status", "find"]

Status = Literal["open", "browser", "gone"]
"""``open``: a plain download. ``browser``: only through a web page. ``gone``: the host has shut the account."""


@dataclass(frozen=True, slots=True)
class Model:
    """One official weight file."""

    name: str
    family: str
    dataset: str
    resolution: int
    licence: str
    origin: str
    """Address of the file; of a page that leads to it where there is none."""
    filename: str
    status: Status = "open"
    sha256: str = ""
    """Empty where the authors published none."""
    companions: tuple[tuple[str, str], ...] = ()
    """Small files that belong beside it: name and address."""


def find(name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: there is none; the message names similar ones.
    """
    for model in MODELS:
        if model.name == name:
            return model
    close = difflib.get_close_matches(name, [model.name for model in MODELS], n=4, cutoff=0.4)
    hint = f"similar names: {', '.join(close)}" if close else "`higan models` lists all"
    raise ValueError(f"no model is called {name!r}; {hint}")


# ---- PGGAN: Karras et al. 2018 --------------------------------------------------------------------------------------

_PGGAN_LSUN = (
    "bedroom livingroom diningroom kitchen churchoutdoor tower bridge restaurant classroom conferenceroom person cat "
    "dog bird horse sheep cow car bicycle motorbike bus train boat airplane bottle chair pottedplant tvmonitor "
    "diningtable sofa"
)


def _pggan() -> Iterator[Model]:
    licence = "CC BY-NC 4.0"
    folder = "https://drive.google.com/drive/folders/15hvzxt_XxuokSmj0uO4xxMTMWVc0cIMU"
    file = "karras2018iclr-celebahq-1024x1024.pkl"
    origin = "https://drive.google.com/uc?id=188K19ucknC6wg1R6jbuPEhTq9zoufOx4"
    yield Model("pggan_celebahq", "pggan", "CelebA-HQ", 1024, licence, origin, file)
    for scene in _PGGAN_LSUN.split():
        spelling = "dining_room" if scene == "diningroom" else scene
        file = f"karras2018iclr-lsun-{spelling}-256x256.pkl"
        yield Model(f"pggan_{scene}", "pggan", f"LSUN {spelling}", 256, licence, folder, file, "browser")


# ---- StyleGAN: Karras et al. 2019, and the scenes that HiGAN's authors trained --------------------------------------


def _stylegan() -> Iterator[Model]:
    licence = "CC BY-NC 4.0"
    for name, dataset, resolution, file, drive in (
        ("ffhq", "FFHQ", 1024, "ffhq-1024x1024", "1MEGjdvVpUsu1jB4zrXZN7Y4kBBOzizDQ"),
        ("celebahq", "CelebA-HQ", 1024, "celebahq-1024x1024", "1MGqJl28pN4t7SAtSrPdSRJSQJqahkzUf"),
        ("bedroom", "LSUN bedroom", 256, "bedrooms-256x256", "1MOSKeGF0FJcivpBI7s63V9YHloUTORiF"),
        ("car", "LSUN car", 512, "cars-512x384", "1MJ6iCfNtMIRicihwRorsM3b7mmtmK9c3"),
        ("cat", "LSUN cat", 256, "cats-256x256", "1MQywl0FNt6lHu8E_EUqnRbviagS7fbiJ"),
    ):
        origin = f"https://drive.google.com/uc?id={drive}"
        filename = f"karras2019stylegan-{file}.pkl"
        yield Model(f"stylegan_{name}", "stylegan", dataset, resolution, licence, origin, filename)
    page = "https://github.com/genforce/higan/blob/master/models/README.md"
    for name, dataset, resolution, file in (
        ("ffhq256", "FFHQ", 256, "ffhq-256x256-025000"),
        ("ffhq512", "FFHQ", 512, "ffhq-512x512-025000"),
        ("livingroom", "LSUN livingroom", 256, "livingroom-256x256-030000"),
        ("diningroom", "LSUN dining_room", 256, "diningroom-256x256-025000"),
        ("kitchen", "LSUN kitchen", 256, "kitchen-256x256-030000"),
        ("apartment", "LSUN, four kinds of room", 256, "apartment-256x256-060000"),
        ("churchoutdoor", "LSUN churchoutdoor", 256, "churchoutdoor-256x256-030000"),
        ("tower", "LSUN tower", 256, "tower-256x256-030000"),
        ("bridge", "LSUN bridge", 256, "bridge-256x256-025000"),
        ("restaurant", "LSUN restaurant", 256, "restaurant-256x256-050000"),
        ("classroom", "LSUN classroom", 256, "classroom-256x256-050000"),
        ("conferenceroom", "LSUN conferenceroom", 256, "conferenceroom-256x256-050000"),
    ):
        filename = f"stylegan-{file}.pkl"
        yield Model(f"stylegan_{name}", "stylegan", dataset, resolution, licence, page, filename, "gone")


# ---- StyleGAN2 and StyleGAN2-ADA: Karras et al. 2020 ----------------------------------------------------------------


def _stylegan2() -> Iterator[Model]:
    licence = "Nvidia Source Code License-NC"
    cdn = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks"
    for name, dataset, resolution in (
        ("ffhq", "FFHQ", 1024),
        ("church", "LSUN church", 256),
        ("cat", "LSUN cat", 256),
        ("horse", "LSUN horse", 256),
        ("car", "LSUN car", 512),
    ):
        filename = f"stylegan2-{name}-config-f.pkl"
        yield Model(f"stylegan2_{name}", "stylegan2", dataset, resolution, licence, f"{cdn}/{filename}", filename)
    licence = "Nvidia Source Code License"
    cdn = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
    for name, dataset, resolution in (
        ("ffhq", "FFHQ", 1024),
        ("metfaces", "MetFaces", 1024),
        ("afhqcat", "AFHQ cat", 512),
        ("afhqdog", "AFHQ dog", 512),
        ("afhqwild", "AFHQ wild", 512),
        ("brecahad", "BreCaHAD", 512),
        ("cifar10", "CIFAR-10, class-conditional", 32),
    ):
        filename = f"stylegan2-ada-{name}.pkl"
        yield Model(f"stylegan2ada_{name}", "stylegan2", dataset, resolution, licence, f"{cdn}/{name}.pkl", filename)
    cdn = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files"
    for name, dataset, resolution in (
        ("ffhq-512x512", "FFHQ", 512),
        ("ffhq-256x256", "FFHQ", 256),
        ("ffhqu-1024x1024", "FFHQ-U", 1024),
        ("ffhqu-256x256", "FFHQ-U", 256),
        ("metfacesu-1024x1024", "MetFaces-U", 1024),
        ("afhqv2-512x512", "AFHQv2", 512),
        ("celebahq-256x256", "CelebA-HQ", 256),
        ("lsundog-256x256", "LSUN dog", 256),
    ):
        filename = f"stylegan2-{name}.pkl"
        short = f"stylegan2ada_{name.partition('-')[0]}{resolution}"
        yield Model(short, "stylegan2", dataset, resolution, licence, f"{cdn}/{filename}", filename)


# ---- StyleGAN3: Karras et al. 2021 ----------------------------------------------------------------------------------


def _stylegan3() -> Iterator[Model]:
    cdn = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files"
    for kind in ("t", "r"):
        for name, dataset, resolution in (
            ("ffhq", "FFHQ", 1024),
            ("ffhqu", "FFHQ-U", 1024),
            ("ffhqu", "FFHQ-U", 256),
            ("metfaces", "MetFaces", 1024),
            ("metfacesu", "MetFaces-U", 1024),
            ("afhqv2", "AFHQv2", 512),
        ):
            filename = f"stylegan3-{kind}-{name}-{resolution}x{resolution}.pkl"
            short, licence = f"stylegan3{kind}_{name}{resolution}", "Nvidia Source Code License"
            yield Model(short, "stylegan3", dataset, resolution, licence, f"{cdn}/{filename}", filename)


# ---- BigGAN: Brock et al. 2019 --------------------------------------------------------------------------------------


def _biggan() -> Iterator[Model]:
    licence = "MIT (code); weights by DeepMind, Apache 2.0"
    store = "https://s3.amazonaws.com/models.huggingface.co/biggan"
    for resolution in (128, 256, 512):
        stem = f"biggan-deep-{resolution}"
        yield Model(
            f"biggan_deep{resolution}",
            "biggan",
            "ImageNet, class-conditional",
            resolution,
            licence,
            f"{store}/{stem}-pytorch_model.bin",
            f"{stem}-pytorch_model.bin",
            companions=((f"{stem}-config.json", f"{store}/{stem}-config.json"),),
        )
    page = "https://drive.google.com/open?id=1nAle7FCVFZdix2--ks0r5JBkFnKw8ctW"
    yield Model("biggan_128", "biggan", "ImageNet, class-conditional", 128, "MIT", page, "G_ema.pth", "browser")


MODELS: tuple[Model, ...] = (*_pggan(), *_stylegan(), *_stylegan2(), *_stylegan3(), *_biggan())
"""Every official file, family by family."""
