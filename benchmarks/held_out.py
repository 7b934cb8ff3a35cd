"""How well layout and colour scheme are read off rendered rooms that nothing was trained on.

    python benchmarks/held_out.py [--num 200]

Prints two tables. The first sets the layout network and the estimator from lines and vanishing points against the
renderer's ground truth, on the renders as they are and after what photographs go through: compression, noise, blur,
exposure and white balance, a lens that bends straight lines, a camera held askew, and a tighter crop, which is another
field of view. The second sets the colour scheme of walls and floors against the paint the renderer was given, with the
renderer's own masks and with those of the embedded segmenter.
"""

import argparse
import io
import math
import time

import numpy as np
import torch
from PIL import Image, ImageFilter

from higan import load_segmenter
from higan.rooms.dataset import sample_rooms
from higan.rooms.factors import FACTORS, factor_index
from higan.rooms.palette import hsl_to_linear
from higan.scorers.colour import srgb_to_lab
from higan.scorers.layout import LayoutScorer
from higan.scorers.lines import LinesScorer
from higan.scorers.loading import WEIGHTS
from higan.scorers.outline import CORNERS
from higan.scorers.rooms import RoomsScorer
from higan.scorers.scheme import MEASURES, dominant_hue, scheme

HELD_OUT = 30_000_000
SIDE = 128
CROP = 0.7
LENS = -0.12
"""Radial distortion: a point at the picture's edge moves inwards by this share."""


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


# --- what photographs go through --------------------------------------------------------------------------------------


def by_pillow(step):
    def run(images, rng):
        pictures = [step(Image.fromarray(i.permute(1, 2, 0).numpy().copy()), rng) for i in images]
        return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])

    return run


def compressed(picture, _):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def noisy(images, rng):
    return (images + torch.from_numpy(rng.normal(0, 12, images.shape))).round().clamp(0, 255).to(torch.uint8)


def exposed(images, rng):
    """A gamma between 0.7 and 1.4, and channels up to 15 % brighter or darker."""
    gamma = torch.from_numpy(rng.uniform(0.7, 1.4, (len(images), 1, 1, 1)))
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(images), 3, 1, 1)))
    return ((images / 255.0) ** gamma * gain * 255).round().clamp(0, 255).to(torch.uint8)


def bent(images, _):
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    # Where in the straight picture each pixel of the bent one comes from, zoomed so that no border is seen.
    factor = (1 - LENS * (x**2 + y**2)) / (1 - 2 * LENS)
    grid = torch.stack([x * factor, y * factor], -1).expand(len(images), -1, -1, -1)
    found = torch.nn.functional.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")
    return found.round().to(torch.uint8)


def askew(picture, rng):
    turned = picture.rotate(float(rng.choice([-3, 3])), Image.Resampling.BICUBIC)
    inside = SIDE * 0.05
    return turned.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (inside, inside, SIDE - inside, SIDE - inside))


def cropped(picture, _):
    a, b = SIDE * (1 - CROP) / 2, SIDE * (1 + CROP) / 2
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (a, a, b, b))


STEPS = {
    "as rendered": lambda images, _: images,
    "JPEG, quality 40": by_pillow(compressed),
    "noise of 12 levels": noisy,
    "blur of 1.5 pixels": by_pillow(lambda p, _: p.filter(ImageFilter.GaussianBlur(1.5))),
    "exposure, white balance": exposed,
    "bent by a lens": bent,
    "held askew by 3°": by_pillow(askew),
    "tighter crop": by_pillow(cropped),
}
MOVED = ("bent by a lens", "held askew by 3°")
"""Where corners lie elsewhere afterwards."""
TOGETHER = "all but askew and crop"


def everything(images, rng):
    for name in ("bent by a lens", "blur of 1.5 pixels", "exposure, white balance", "noise of 12 levels",
                 "JPEG, quality 40"):  # fmt: skip
        images = STEPS[name](images, rng)
    return images


# --- layout -----------------------------------------------------------------------------------------------------------


def layout_row(kind, name, scorer, images, rooms):
    start = time.process_time()
    scores = dict(zip((c.name for c in scorer.concepts), scorer.score(images).unbind(1), strict=True))
    spent = (time.process_time() - start) / len(images)
    truth = {f.name: rooms.factors[:, k] for k, f in enumerate(FACTORS)}
    corners = torch.stack([truth[f"corner_{c}_{axis}"] for c in CORNERS for axis in "xy"], 1).unflatten(1, (4, 2))
    corners = corners / CROP if name == "tighter crop" else corners
    yaw = math.degrees(1) * (scores["view_yaw"] - truth["yaw"]).abs()
    cells = [f"{correlation(scores['view_yaw'], truth['yaw']):.3f}"]
    cells += [f"{float(yaw.median()):.1f}°", f"{float(yaw.quantile(0.9)):.1f}°"]
    cells += [f"{correlation(scores['camera_side'], truth['camera_x']):.2f}"]
    for concept in ("room_width", "room_depth"):
        cells.append(f"{correlation(scores[concept], truth[concept]):.2f}" if concept in scores else "–")
    seen = (corners.abs() < 1).all(-1)
    away = (scorer.outline(images) - corners).norm(dim=-1)[seen]
    moved = name in MOVED or name == TOGETHER
    cells.append("–" if moved else f"{50 * float(away.median()):.1f} %")
    return [kind, name, *cells, f"{1000 * spent:.0f}"]


def layout_table(num):
    rooms = sample_rooms(range(HELD_OUT, HELD_OUT + num), SIDE)
    scorers = {
        "network": LayoutScorer(RoomsScorer.load(WEIGHTS / "rooms.safetensors")),
        "lines": LinesScorer(),
    }
    rows = []
    for kind, scorer in scorers.items():
        for name, step in {**STEPS, TOGETHER: everything}.items():
            images = step(rooms.images, np.random.default_rng(0))
            with torch.inference_mode():
                rows.append(layout_row(kind, name, scorer, images, rooms))
    print(f"Layout of {num} held-out rooms at {SIDE} × {SIDE} pixels")
    table(
        ["by", "picture", "yaw: correlation", "median error", "9 of 10 within", "camera side: correlation",
         "room width", "room depth", "corners: median error / picture width", "ms per picture"], rows,
    )  # fmt: skip


# --- colour -----------------------------------------------------------------------------------------------------------


def paint(rooms, surface):
    """L*, chroma and hue angle of the colour that a surface was given, before any light falls on it."""
    hsl = torch.stack([rooms.factors[:, factor_index(f"{surface}_{c}")] for c in ("hue", "saturation", "lightness")], 1)
    rgb = (hsl_to_linear(hsl) ** (1 / 2.2) * 255).round().to(torch.uint8)
    lightness, a, b = srgb_to_lab(rgb[:, :, None, None])[..., 0, 0].unbind(1)
    return lightness, torch.hypot(a, b), torch.rad2deg(torch.atan2(b, a)) % 360


def colour_table(num):
    rooms = sample_rooms(range(HELD_OUT, HELD_OUT + num), 64)
    segmenter = load_segmenter("rooms")
    names = [c.name for c in segmenter.classes]
    with torch.inference_mode():
        masks = {"the renderer's masks": rooms.masks, "the segmenter's masks": segmenter.segment(rooms.images)}
    rows = []
    for region, surface in (("wall", "walls"), ("floor", "floor")):
        lightness, chroma, hue = paint(rooms, surface)
        warmth = chroma * torch.cos(torch.deg2rad(hue - 60))
        large = (rooms.masks == names.index(region)).float().mean((1, 2)) > 0.02
        for source, mask in {**masks, "the whole picture": torch.full_like(rooms.masks, names.index(region))}.items():
            weights = (mask == names.index(region)).float()[:, None] + 1e-4
            values = dict(zip(MEASURES, scheme(rooms.images, weights)[:, 0].unbind(1), strict=True))
            found = dominant_hue(rooms.images, weights)[:, 0]
            away = (found - hue + 180) % 360 - 180
            rows.append([region, source, *(
                f"{correlation(values[m][large], t[large]):.2f}"
                for m, t in (("lightness", lightness), ("saturation", chroma), ("warmth", warmth))
            ), f"{float(away[large & (chroma > 10)].abs().median()):.0f}°",
                f"{100 * float((away[large & (chroma > 10)].abs() < 30).float().mean()):.0f} %"])  # fmt: skip
    print(f"Colour scheme of {num} held-out rooms, against the paint before any light falls on it")
    table(["region", "pixels by", "lightness: correlation", "saturation", "warmth", "hue: median error",
           "within 30°"], rows)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=200)
    options = parser.parse_args()
    layout_table(options.num)
    colour_table(5 * options.num)


if __name__ == "__main__":
    main()
