"""The verb mix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from higan.cli.app import EMBEDDED, Device, GeneratorName, app, console
from higan.cli.codes import DonorCodes, check_seeds, sources
from higan.cli.models import GeneratorOptions, Label, generator_options, open_generator, weights_digest
from higan.cli.outputs import prepare, room_for
from higan.export import contact_sheet, save_picture, save_sheet
from higan.layers import groups, parse_layers
from higan.mixing import mixing_grid
from higan.recipes import Loan, format_layers
from higan.workbench import Workbench, digest_of_codes, draw, edit


@app.command()
def mix(
    out: Annotated[Path, typer.Option("--out", help="PNG file.")],
    seed: Annotated[
        list[int] | None,
        typer.Option("--seed", help="Sample that receives layers; may be repeated.", callback=check_seeds),
    ] = None,
    donor: Annotated[
        list[int] | None,
        typer.Option("--donor", help="Sample that lends them; may be repeated.", callback=check_seeds),
    ] = None,
    codes: Annotated[
        Path | None, typer.Option("--codes", help="Codes that receive, such as inverted pictures.")
    ] = None,
    donor_codes: DonorCodes = None,
    layers: Annotated[
        str | None,
        typer.Option(help="As 0,3-5, or bottom, lower, upper, top; by default the last stage: the palette."),
    ] = None,
    generator: GeneratorName = EMBEDDED,
    label: Label = None,
    generator_option: GeneratorOptions = None,
    device: Device = "cpu",
) -> None:
    """Style mixing: layers of one sample or picture in another; the last ones carry the palette."""
    prepare(out, ".png")
    opened = open_generator(generator, device, label, generator_options(generator_option))
    bench = Workbench(opened, {}, weights=weights_digest(generator))
    stages = groups(bench.generator.num_layers)
    lent = [*stages][-1] if layers is None else layers
    where = parse_layers(lent, num_layers=bench.generator.num_layers, names=stages)
    takers, names = sources(bench, seed, codes, "--seed", "--codes")
    donors, lenders = sources(bench, donor, donor_codes, "--donor", "--donor-codes")
    if len(takers) == len(donors) == 1:
        loan = Loan(donor[0], where) if donor else Loan(None, where, digest_of_codes(donors[0]))
        given = {"seed": seed[0]} if seed else {"code": takers[0]}
        made = edit(bench, [], loans=[loan], donors=list(donors), **given)
        save_picture(room_for(out), made.image, made.recipe)
    else:
        mixed = mixing_grid(takers, donors, where)
        rows = [torch.cat([takers[k : k + 1], mixed[k]]) for k in range(len(takers))]
        images = draw(bench.generator, torch.cat([donors[:1], donors, *rows]))
        images[0] = 255
        captions = ["", *lenders]
        for name in names:
            captions += [name, *(f"layers {format_layers(where)} of {lender}" for lender in lenders)]
        save_sheet(room_for(out), contact_sheet(images, len(donors) + 1, captions=captions))
    console.print(f"{out}", highlight=False, soft_wrap=True)
