"""The report of a run, with photographs if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import UInt8
from torch import Tensor

from higan import store, study
from higan.photographs import open_photograph
from higan.rooms.dataset import sample_rooms
from higan.study import Report
from higan.types import Generator, Scorer, Segmenter

RENDERED = "rooms"
"""Instead of the name of a photograph: three rendered rooms that nothing was trained on."""
_HELD_OUT = 20_000_000
PhotographFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--photograph", help="Picture to invert and edit beside samples, or rooms for rendered ones; may be repeated."
    ),
]


def open_pictures(photographs: Sequence[str], generator: Generator) -> UInt8[Tensor, "P 3 H W"] | None:
    """Pictures for the report, by file; `RENDERED` stands for rooms that nothing was trained on."""
    pictures = []
    for name in photographs:
        if name == RENDERED:
            pictures += [*sample_rooms(range(_HELD_OUT, _HELD_OUT + 3), generator.resolution).images]
        else:
            pictures.append(open_photograph(name, generator.resolution))
    return torch.stack(pictures) if pictures else None


def draw_report(
    folder: store.Run,
    generator: Generator,
    scorer: Scorer,
    segmenter: Segmenter | None,
    bars: Report,
    photographs: UInt8[Tensor, "P 3 H W"] | None = None,
) -> Path:
    """Draws it into the run folder, and says where."""
    from higan.report import write_report

    return write_report(
        folder,
        generator,
        scorer,
        segmenter=segmenter,
        photographs=photographs,
        minutes=sum(step["seconds"] for step in study.steps_of(folder).values()) / 60,
        progress=lambda done, total: bars("report", done, total),
    )
