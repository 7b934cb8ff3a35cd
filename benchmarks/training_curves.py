"""How a training of the rooms generator went: losses, judgements and speed against images seen, as one SVG.

    python benchmarks/training_curves.py LOG … [--out docs/images/rooms-curves.svg] [--smooth 5]

LOG is the ``log.jsonl`` that `higan rooms train-generator` leaves; several are drawn over each other, told apart by the
names of their folders. Vertical lines mark where the resolution doubles. Curves are running medians.
"""

import argparse
import json
import math
from html import escape
from pathlib import Path
from statistics import median

WIDE, HIGH, LEFT, TOP, GAP = 560, 130, 64, 26, 48
INKS = ("#2f6db3", "#b3661f", "#3a8f4d", "#a3357a", "#555", "#8a6d00", "#0a7d7d", "#7d0a2b")
PANELS = (
    ("losses", (("discriminator", "loss_d"), ("generator", "loss_g"))),
    ("discriminator's logits", (("renders", "real_logit"), ("generated", "fake_logit"))),
    ("squared gradient norm at renders (R1)", (("", "r1"),)),
    ("images per second", (("", "images_per_second"),)),
)


def read(path):
    """Records of a learning log.

    Raises:
        ValueError: it holds none.
    """
    records = [json.loads(line) for line in path.read_text().splitlines()]
    if not records:
        raise ValueError(f"{path} holds no records; expected the log.jsonl of a training")
    return records


def smoothed(values, width):
    reach = width // 2
    return [median(values[max(0, k - reach) : k + reach + 1]) for k in range(len(values))]


def nice(span):
    """A step that cuts a span into about four."""
    raw = span / 4
    power = 10 ** math.floor(math.log10(raw))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if raw <= power * m)


def text(x, y, words, anchor="start", fill="#333", size=11):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">{escape(words)}</text>'
    )


class Axes:
    """One panel: from numbers to pixels."""

    def __init__(self, top, right, values):
        self.top, self.right = top, right
        self.low, self.high = min([0.0, *values]), max(values, default=0.0)
        if self.high == self.low:  # nothing but zeros, or nothing at all
            self.high = self.low + 1

    def x(self, images):
        return LEFT + WIDE * images / self.right

    def y(self, value):
        return self.top + HIGH * (self.high - value) / (self.high - self.low)

    def frame(self, title):
        parts = [text(LEFT, self.top - 8, title, size=12)]
        step = nice(self.high - self.low)
        tick = math.ceil(self.low / step) * step
        while tick <= self.high:
            y = self.y(tick)
            parts.append(f'<line x1="{LEFT}" x2="{LEFT + WIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(text(LEFT - 6, y + 4, f"{tick:g}", "end", "#666"))
            tick = round(tick + step, 9)
        return parts


def panel(logs, title, curves, top, right, smooth):
    drawn = []
    for name, records in logs:
        for label, key in curves:
            rows = [r for r in records if r.get(key) is not None]
            words = " ".join(w for w in (name if len(logs) > 1 else "", label) if w)
            drawn.append((words, [r["images"] for r in rows], smoothed([r[key] for r in rows], smooth)))
    axes = Axes(top, right, [v for _, _, values in drawn for v in values])
    parts = axes.frame(title)
    for record, before in zip(logs[0][1][1:], logs[0][1], strict=False):
        if record["resolution"] != before["resolution"]:
            x = axes.x(before["images"])
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + HIGH}" stroke="#999" stroke-dasharray="3"/>'
            )
            parts.append(text(x + 4, top + 11, f"{record['resolution']} pixels", fill="#666", size=10))
    for k, (words, images, values) in enumerate(drawn):
        points = " ".join(f"{axes.x(i):.1f},{axes.y(v):.1f}" for i, v in zip(images, values, strict=True))
        ink = INKS[k % len(INKS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="1.6"/>')
        parts.append(text(LEFT + WIDE + 10, top + 12 + 14 * k, words, fill=ink))
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("curves.svg"))
    parser.add_argument("--smooth", type=int, default=5, help="records in a running median")
    args = parser.parse_args()
    logs = [(path.resolve().parent.name, read(path)) for path in args.logs]
    right = max(records[-1]["images"] for _, records in logs)
    parts = []
    for k, (title, curves) in enumerate(PANELS):
        parts += panel(logs, title, curves, TOP + k * (HIGH + GAP), right, args.smooth)
    foot = TOP + len(PANELS) * (HIGH + GAP) - GAP
    step = nice(right)
    for k in range(int(right / step) + 1):
        parts.append(text(LEFT + WIDE * k * step / right, foot + 16, f"{k * step / 1000:g}k", "middle", "#666"))
    parts.append(text(LEFT + WIDE / 2, foot + 32, "images seen", "middle", "#666"))
    width, height = LEFT + WIDE + (210 if len(logs) > 1 else 100), foot + 44
    args.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip
    for name, records in logs:
        print(f"{name}: {records[-1]['images']:,} images in {records[-1]['seconds'] / 3600:.2f} hours")
    print(f"Drawn in {args.out}")


if __name__ == "__main__":
    main()
