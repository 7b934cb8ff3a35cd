"""Where pictures and pages go: looked at before the work, made after it."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from higan.export import save_animation, save_video
from higan.extras import optional


def prepare(out: Path, *endings: str) -> None:
    """Before the work: a name that means something, and somewhere to write to."""
    if out.suffix not in endings:
        raise ValueError(f"--out must end in {' or '.join(endings)}, in lower case; got {out}")
    _check_parents(out)
    if out.suffix == ".mp4":
        optional("av", "video")


def room_for(out: Path) -> Path:
    """The same, its folder made: after the work, so that a line that fails leaves nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def check_folder(out: Path) -> None:
    """Before the work: no folder can be made where there is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is a folder; {out} is a file")
    _check_parents(out)


def is_folder(out: Path) -> bool:
    """Whether single pictures are asked for: of a name without an ending, or of a folder that is there."""
    return not out.suffix or out.is_dir()


def picture_name(start: str, number: int) -> str:
    """What a picture in a folder is called: ``seed-0007.png``, ``code-0007.png``."""
    return f"{start}-{number:04d}.png"


def _check_parents(out: Path) -> None:
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{out} cannot be written: {there} is a file, no folder")


def save_movement(out: Path, images: UInt8[Tensor, "n 3 H W"], *, there_and_back: bool = True) -> None:
    """Pictures one after the other, as the ending of the name says, enlarged to some 256 pixels."""
    scale = max(1, 256 // images.shape[-1])
    if out.suffix == ".mp4":
        save_video(room_for(out), images, there_and_back=there_and_back, scale=scale)
    else:
        save_animation(room_for(out), images, there_and_back=there_and_back, scale=scale)
