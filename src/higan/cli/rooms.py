"""The embedded world: rooms sample, write, pack-study, train-generator, train-scorers, quality."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import typer
from rich.table import Table
from torch import Tensor

from higan.cli.app import ANEW, EMBEDDED, Device, console, progress_bars, rooms
from higan.cli.outputs import prepare, room_for
from higan.export import save_picture

if TYPE_CHECKING:
    from higan.rooms.quality import Quality
    from higan.rooms.shares import Share


@rooms.command("sample")
def rooms_sample(
    num: Annotated[int, typer.Option(help="How many.")] = 64,
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("rooms.png"),
    resolution: Annotated[int, typer.Option(help="Pixels, 32 … 256.")] = 64,
    masks: Annotated[bool, typer.Option("--masks", help="Object classes beside every room.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the first room.")] = 0,
    columns: Annotated[int, typer.Option(help="Pictures per row.")] = 8,
) -> None:
    """Draws a contact sheet of rendered rooms."""
    from higan.rooms.dataset import colour_masks, contact_sheet, sample_rooms

    prepare(out, ".png")
    if num < 1:
        raise ValueError(f"--num must be at least 1; got {num}")
    batch = sample_rooms(range(seed, seed + num), resolution)
    images = batch.images
    if masks:
        images = torch.stack([images, colour_masks(batch.masks)], 1).flatten(0, 1)
    save_picture(room_for(out), contact_sheet(images, columns))
    console.print(f"{num} rooms in {out}")


@rooms.command("write")
def rooms_write(
    out: Annotated[Path, typer.Option(help="Folder of the data set; the same line again resumes.")],
    num: Annotated[int, typer.Option(help="How many rooms.")] = 40_000,
    resolution: Annotated[int, typer.Option(help="Pixels, 32 … 256.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first room.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Writes rendered rooms with masks and ground truth to a folder."""
    from higan.rooms.dataset import write_data

    with progress_bars() as bars:
        write_data(out, num, resolution, seed, workers, lambda done: bars("Rendering", done, num))
    console.print(f"{num:,} rooms in {out}")


@rooms.command("pack-study")
def rooms_pack_study(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run of the embedded generator and scorer.")],
    out: Annotated[Path | None, typer.Option(help="Folder; by default the package itself.")] = None,
) -> None:
    """Packs what the studio needs of a run, for the package to carry: boundaries and re-scoring, no population."""
    from higan.store import load_run
    from higan.studio.shipped import SHIPPED, pack_study

    target = out or SHIPPED
    size = pack_study(load_run(folder), target)
    console.print(f"{size / 1000:,.0f} kB in {target}", highlight=False, soft_wrap=True)


@rooms.command("train-generator")
def rooms_train_generator(
    out: Annotated[Path, typer.Option(help="Folder of the training; the same line again goes on.")],
    data: Annotated[Path | None, typer.Option(help="Rooms from `higan rooms write`; rendered first if absent.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that render, and on a CPU train.")] = 2,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; otherwise train to the end.")] = None,
    stage_minutes: Annotated[
        list[float] | None, typer.Option(help="Minutes at 16, 32, … pixels; give it once per stage.")
    ] = None,
    stage_images: Annotated[
        list[int] | None, typer.Option(help="Images at 16, 32, … pixels; give it once per stage.")
    ] = None,
    resolution: Annotated[int, typer.Option(help="Of the finished generator: 32, 64 or 128.")] = 64,
    channels: Annotated[
        list[int] | None,
        typer.Option(help="Width at 4, 8, 16, … pixels, once per resolution; by default a checkpoint's."),
    ] = None,
    discriminator_channels: Annotated[
        list[int] | None, typer.Option(help="Of the discriminator; by default a checkpoint's, or the generator's.")
    ] = None,
    mapping_width: Annotated[
        int | None, typer.Option(help="Of the mapping network's hidden layers; by default a checkpoint's, or 128.")
    ] = None,
    rgb_kernel: Annotated[
        int | None, typer.Option(help="Side of the RGB's convolution, 1 or 3; by default a checkpoint's, or 1.")
    ] = None,
    architecture: Annotated[
        Literal["adain", "skip"], typer.Option(help="adain: StyleGAN type, one RGB; skip: StyleGAN2 type, summed RGB.")
    ] = "adain",
    mixing: Annotated[float, typer.Option(help="Probability of style mixing.")] = 0.7,
    loss: Annotated[
        Literal["non-saturating", "relativistic"],
        typer.Option(help="relativistic: rendered and generated pictures are compared in pairs."),
    ] = "non-saturating",
    seed: Annotated[int, typer.Option(help="Of the first weights and of every draw.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Lower it for the last part of a training.")] = 2e-3,
    ema_half_life: Annotated[float, typer.Option(help="Of the averaged generator, in images.")] = 4000.0,
    gamma: Annotated[
        float | None, typer.Option(help="Weight of R1 at the finished resolution; by default 0.3 at 64 pixels.")
    ] = None,
    fade_images: Annotated[
        int, typer.Option(help="Over so many the finished resolution is faded in; from 128 pixels on 0 will do.")
    ] = 8000,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Checkpoint for a new folder to go on from; may be narrower."),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Trains a generator on rendered rooms from pictures alone, coarse to fine."""
    from higan.rooms.adversarial import CHECKPOINT, train_generator
    from higan.rooms.dataset import open_data, write_data
    from higan.rooms.trainer import default_settings, networks_of, read_checkpoint
    from higan.rooms.widening import widen_checkpoint

    settings = default_settings(resolution, stage_minutes or (), stage_images or (), learning_rate=learning_rate)
    last = replace(settings.stages[-1], fade_images=fade_images)
    last = last if gamma is None else replace(last, gamma=gamma)
    settings = replace(settings, stages=(*settings.stages[:-1], last))
    checkpoint = out / CHECKPOINT if (out / CHECKPOINT).exists() else start_from
    known = None if checkpoint is None else networks_of(read_checkpoint(checkpoint)[1])
    widths = tuple(channels or (known[0].channels if known else settings.network.channels))
    judge = tuple(discriminator_channels or (known[1].channels if known else ())) or None
    mapping = mapping_width if mapping_width is not None or known is None else known[0].mapping_dim
    kernel = rgb_kernel if rgb_kernel is not None else (known[0] if known else settings.network).rgb_kernel
    network = replace(
        settings.network,
        resolution=resolution,
        channels=widths,
        mapping_dim=mapping,
        architecture=architecture,
        rgb_kernel=kernel,
    )
    settings = replace(
        settings,
        network=network,
        discriminator_channels=judge,
        ema_half_life=ema_half_life,
        mixing=mixing,
        loss=loss,
        seed=seed,
    )
    folder = data or out / "data"
    if data is None:
        with progress_bars() as bars:
            write_data(folder, 40_000, resolution, processes=workers, progress=lambda d: bars("Rendering", d, 40_000))
    pixels = open_data(folder).images.shape[-1]
    if pixels < resolution or pixels % resolution:
        raise ValueError(
            f"{folder} holds rooms of {pixels} pixels; --resolution {resolution} needs as many, or a multiple"
        )
    if start_from is not None and not (out / CHECKPOINT).exists():
        out.mkdir(parents=True, exist_ok=True)
        widen_checkpoint(start_from, out / CHECKPOINT, widths, judge or widths, mapping_dim=mapping, rgb_kernel=kernel)

    def say(record: Mapping[str, object]) -> None:
        console.print(" ".join(f"{k}={v}" for k, v in record.items()), highlight=False, soft_wrap=True)

    path = train_generator(
        folder / "images.npy",
        out,
        settings,
        processes=workers if device == "cpu" else 1,
        minutes=minutes,
        device=device,
        report=say,
    )
    console.print(f"Generator: {path}", highlight=False, soft_wrap=True)


@rooms.command("train-scorers")
def rooms_train_scorers(
    data: Annotated[Path, typer.Option(help="Rooms from `higan rooms write`.")],
    out: Annotated[Path, typer.Option(help="Folder for scorer.safetensors and segmenter.safetensors.")],
    epochs: Annotated[int, typer.Option(help="Of the scorer.")] = 8,
    segmenter_epochs: Annotated[int, typer.Option(help="Of the segmenter.")] = 5,
    device: Device = "cpu",
) -> None:
    """Trains scorer and segmenter on rendered rooms and says how good they are on held-out ones."""
    from higan.rooms.dataset import open_data
    from higan.rooms.supervised import train_scorer, train_segmenter

    rendered = open_data(data)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bars(after=ANEW) as bars:
        scorer = train_scorer(rendered, epochs=epochs, device=device, progress=lambda k, n, _: bars("Scorer", k, n))
        scorer.save(out / "scorer.safetensors")
        segmenter = train_segmenter(
            rendered, epochs=segmenter_epochs, device=device, progress=lambda k, n, _: bars("Segmenter", k, n)
        )
        segmenter.save(out / "segmenter.safetensors")
    table = Table("output", "held-out quality")
    for name, value in (scorer.metadata["quality"] | segmenter.metadata["quality"]).items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)


@rooms.command("quality")
def rooms_quality(
    generator: Annotated[str, typer.Option(help="Of rooms: a name (rooms, rooms-128 …) or a weight file.")] = EMBEDDED,
    num: Annotated[int, typer.Option(help="Samples a side.")] = 5000,
    psi: Annotated[float, typer.Option(help="Truncation while sampling; 1 is none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the first held-out room.")] = 10_000_000,
    scorer: Annotated[
        str | None,
        typer.Option(help="Whose features: rooms, rooms-128 or a file; by default by size."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    device: Device = "cpu",
) -> None:
    """Compares generated rooms with rendered ones: distance, precision, recall, shares, light, detail, objects."""
    from higan.errors import MissingWeightsError
    from higan.generators.loading import ROOMS
    from higan.generators.loading import WEIGHTS as GENERATORS
    from higan.generators.rooms import RoomsGenerator
    from higan.population import render
    from higan.population import sample as sample_codes
    from higan.rooms.dataset import sample_rooms
    from higan.rooms.quality import measure_quality
    from higan.scorers.loading import WEIGHTS as SCORERS
    from higan.scorers.rooms import RoomsScorer
    from higan.segmenters.loading import WEIGHTS as SEGMENTERS
    from higan.segmenters.rooms import RoomsSegmenter

    embedded = GENERATORS / f"{generator}.safetensors"
    path = embedded if embedded.is_file() else Path(generator)
    if not path.is_file():
        raise MissingWeightsError(
            f"{generator}: no such file; expected a generator of rooms, one of {', '.join(ROOMS)}, or what "
            "`higan rooms train-generator` wrote"
        )
    model = RoomsGenerator.load(path, device=device, truncation=psi)
    fitting = "rooms" if model.resolution < 128 else "rooms-128"
    name = scorer or fitting
    trained = SCORERS / f"{name}.safetensors"
    judge = RoomsScorer.load(trained if trained.is_file() else Path(name), device)
    segmenter = RoomsSegmenter.load(SEGMENTERS / f"{fitting}.safetensors", device)
    with progress_bars(resumes=False) as bars:

        def tell(done: int) -> None:
            if not as_json:
                bars("Comparing", done, 3 * num)

        def generated(start: int, stop: int) -> Tensor:
            tell(start)
            return render(model, sample_codes(model, range(start, stop)))

        def rendered(start: int, stop: int) -> Tensor:
            tell(num + start)
            return sample_rooms(range(seed + start, seed + stop), model.resolution, device).images

        quality = measure_quality(judge, generated, rendered, num, segmenter)
        tell(3 * num)
    if as_json:
        console.print_json(json.dumps(asdict(quality)))
        return
    for table in _quality_tables(quality):
        console.print(table)


def _quality_tables(quality: Quality) -> tuple[Table, Table, Table, Table]:
    def within(value: float, error: float, digits: int) -> str:
        return f"{value:.{digits}f} ± {1.96 * error:.{digits}f}"

    found = Table("figure", "generated", "renders", title=f"Generated rooms, {quality.samples:,} a side")
    drawn, floor = quality.frechet, quality.frechet_renders
    found.add_row("Fréchet distance", within(drawn.value, drawn.error, 1), within(floor.value, floor.error, 1))
    found.add_row(
        "… with samples without limit", within(drawn.unlimited, drawn.error, 1), within(floor.unlimited, floor.error, 1)
    )
    found.add_row("precision", within(quality.precision.value, quality.precision.error, 2), "")
    found.add_row("recall", within(quality.recall.value, quality.recall.error, 2), "")
    found.add_row("sure of its category", f"{quality.sure:.3f}", f"{quality.sure_renders:.3f}")
    found.add_row("fine detail", f"{quality.detail:.2f}", f"{quality.detail_renders:.2f}")
    found.caption = "±: 95 %, from leaving out a twentieth of both sides at a time"

    def counted(share: Share) -> tuple[str, str, str]:
        excess = f"{100 * share.excess:+.0f} ± {196 * share.error:.0f} %"
        return f"{share.generated:.2f}", f"{share.rendered:.2f}", excess

    there = Table("there", "generated", "renders", "too often by")
    for name, share in quality.shares.items():
        there.add_row(name, *counted(share))

    objects = Table("object", "generated", "renders", "too often by", "how surely", "in renders", "less by")
    objects.title = "Objects, as a segmenter sees them"
    for name, clarity in quality.objects.items():
        less = within(clarity.rendered - clarity.generated, clarity.error, 3)
        objects.add_row(name, *counted(clarity.share), f"{clarity.generated:.3f}", f"{clarity.rendered:.3f}", less)
    objects.caption = "there: on a 256th of a picture; how surely: its probability, over all pixels taken for it"

    spread = Table("number", "least", "", "", "most", title="Shares in the quarters of the renders")
    for name, shares in quality.quarters.items():
        spread.add_row(name, *(f"{share:.2f}" for share in shares))
    spread.add_row("brightness, of the pixels", *(f"{share:.2f}" for share in quality.brightness))
    return found, there, objects, spread
