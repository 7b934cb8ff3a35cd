"""Training and held-out validation of the embedded scorer and segmenter, on rendered rooms with known ground truth.

They play the part of the paper's off-the-shelf predictors and take no part in the generator's training. Half of the
training pictures are blurred, because what a generator paints is softer than what a renderer draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from higan.devices import activation_dtype
from higan.rooms.classes import CATEGORIES, CLASSES, class_index
from higan.rooms.dataset import RoomsData
from higan.rooms.factors import factor_index
from higan.scorers.rooms import Output, RoomsScorer, RoomsScorerNetwork, fit_size
from higan.segmenters.rooms import RoomsSegmenter, RoomsSegmenterNetwork

__all__ = ["area_under_curve", "targets", "train_scorer", "train_segmenter", "validate_scorer", "validate_segmenter"]

MIN_CORRELATION = 0.85
MIN_AUC = 0.9
VISIBLE_SHARE = 0.004  # of the pixels: below it nobody could say whether the thing is there

_SCALES = {
    "view_yaw": ("layout", "yaw"),
    "camera_side": ("layout", "camera_x"),
    "room_width": ("layout", "room_width"),
    "room_depth": ("layout", "room_depth"),
    **{
        f"corner_{corner}_{axis}": ("layout", f"corner_{corner}_{axis}")
        for corner in ("left_top", "left_bottom", "right_top", "right_bottom")
        for axis in "xy"
    },
    "indoor_lighting": ("attribute", "indoor_lighting"),
    "natural_light": ("attribute", "natural_light"),
    "wood": ("attribute", "wood"),
}
_SEEN = ("patterned_fabric", "cluttered_space")
"""Attributes whose truth counts only as far as it can be seen: nobody knows the pattern of a rug that is not there."""
_FABRICS = ("bed", "sofa", "rug")
_VISIBLE = ("coffee_table", "wardrobe", "sideboard", "television", "picture", "plant", "rug", "curtain")
_SCORER, _LARGE_SCORER = (32, 64, 96, 128), (16, 32, 64, 96, 128)
_SEGMENTER, _LARGE_SEGMENTER = (24, 48, 96, 128), (16, 32, 64, 96, 128)
_CORNER_LIMIT = 1.3  # corners far outside the picture cannot be seen


def outputs() -> tuple[Output, ...]:
    """What the network is trained for, before scales are known."""
    scales = [Output(n, level, "scale", shown="corner" not in n) for n, (level, _) in _SCALES.items()]  # type: ignore[arg-type]
    scales += [Output(name, "attribute", "scale") for name in _SEEN]
    categories = [Output(name, "object", "category") for name in CATEGORIES]
    sides = [Output(f"window_{side}", "object", "binary") for side in ("left", "right")]
    visible = [Output(name, "object", "binary") for name in _VISIBLE]
    return (*scales, *categories, *sides, *visible)


def targets(factors: Float[Tensor, "n F"], masks: UInt8[Tensor, "n H W"]) -> Float[Tensor, "n o"]:
    """Ground truth of every output: numbers as they are, 0 or 1 for presence, one-hot categories.

    ``patterned_fabric`` is the pattern's contrast as far as fabric is in view, ``cluttered_space`` the square root of
    the share of the picture that shows clutter.
    """
    columns = [factors[:, factor_index(f)].clamp(-9, 9) for _, f in _SCALES.values()]
    columns = [
        c.clamp(-_CORNER_LIMIT, _CORNER_LIMIT) if "corner" in n else c for n, c in zip(_SCALES, columns, strict=True)
    ]
    columns += [_visible_pattern(factors, masks), _share(masks, "clutter").sqrt()]
    columns += [factors[:, factor_index(name)] for name in CATEGORIES]
    half_wall = factors[:, factor_index("room_width")] / 2 - 0.1
    window_x = factors[:, factor_index("window_x")]
    columns += [(window_x < -half_wall).float(), (window_x > half_wall).float()]
    columns += [(_share(masks, name) >= VISIBLE_SHARE).float() for name in _VISIBLE]
    return torch.stack(columns, 1)


def _share(masks: UInt8[Tensor, "n H W"], name: str) -> Float[Tensor, " n"]:
    """Share of the picture that shows an object class."""
    return (masks == class_index(name)).float().mean((1, 2))


def _visible_pattern(factors: Float[Tensor, "n F"], masks: UInt8[Tensor, "n H W"]) -> Float[Tensor, " n"]:
    """Contrast of the fabric pattern, fading out where less than a fiftieth of the picture shows such fabric."""
    fabric = torch.stack([_share(masks, name) for name in _FABRICS]).sum(0)
    return factors[:, factor_index("pattern")] * (fabric / 0.02).clamp(max=1)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows for training and the rows, drawn from later seeds, for validation."""

    train: range
    validate: range


def split(data: RoomsData, share: float = 0.1) -> Split:
    """The last tenth validates."""
    cut = len(data) - max(1, round(len(data) * share))
    if cut < 1:
        raise ValueError(f"training needs at least 2 rooms; got {len(data)}")
    return Split(range(cut), range(cut, len(data)))


def _all_targets(data: RoomsData) -> Tensor:
    parts = []
    for start in range(0, len(data), 4096):
        rows = slice(start, start + 4096)
        parts.append(targets(torch.from_numpy(data.factors[rows].copy()), torch.from_numpy(data.masks[rows].copy())))
    return torch.cat(parts)


def _epochs(rows: range, epochs: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(np.asarray(rows))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield np.sort(order[start : start + batch_size])


def _steps(rows: range, epochs: int, batch_size: int) -> int:
    return epochs * (len(rows) // batch_size)


def _soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blurs the first half of a batch by one random radius and adds a little noise to all of it.

    The radius is a share of the picture: 0.3 to 1.3 of 64 pixels.
    """
    sigma = (0.3 + 1.0 * torch.rand((), generator=generator).item()) * images.shape[-1] / 64
    reach = 3 * images.shape[-1] // 64
    taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2)).to(images.device)
    kernel = (taps[:, None] * taps[None, :] / taps.sum() ** 2).expand(3, 1, -1, -1)
    half = len(images) // 2
    padded = nn.functional.pad(images[:half], (reach, reach, reach, reach), mode="reflect")
    soft = nn.functional.conv2d(padded, kernel, groups=3)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return torch.cat([soft, images[half:]]) + 0.02 * noise


def _optimise(
    network: RoomsScorerNetwork | RoomsSegmenterNetwork,
    loss_of: Callable[[Tensor, np.ndarray], Tensor],
    data: RoomsData,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """AdamW under a one-cycle schedule; ``progress`` gets step, number of steps and the smoothed loss."""
    rows = split(data).train
    steps = _steps(rows, epochs, batch_size)
    if steps < 1:
        raise ValueError(f"{len(rows)} training rooms do not fill a batch of {batch_size}; render more")
    network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    narrow = activation_dtype(device) == torch.bfloat16
    smooth = math.nan
    for step, index in enumerate(_epochs(rows, epochs, batch_size, seed)):
        shuffled = index[torch.randperm(len(index), generator=generator).numpy()]
        images = fit_size(torch.from_numpy(data.images[shuffled]).to(device), network.size)
        x = _soften(images, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            loss = loss_of(network(x).float(), shuffled)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        value = float(loss.detach())
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        if progress is not None:
            progress(step + 1, steps, smooth)
    network.eval()


def train_scorer(
    data: RoomsData,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    widths: tuple[int, ...] | None = None,
    features: int = 192,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> RoomsScorer:
    """Trains the scorer on the first nine tenths of a data set and validates it on the rest.

    It reads pictures of 128 pixels if the data set's are as large, else of 64.

    Outputs below AUC 0.9 or correlation 0.85 on held-out rooms are kept out of the concepts; the figures of all are in
    ``metadata["quality"]``. ``widths`` and ``features`` are those of `RoomsScorerNetwork`; other widths, another size.

    Raises:
        ValueError: there are too few rooms to train on, or to validate every output on.
    """
    device = torch.device(device)
    truth = _all_targets(data)
    _check_told_apart(truth[split(data).validate.start :])
    described = _described(truth[: len(split(data).train)])
    torch.manual_seed(seed)
    widths = widths or (_LARGE_SCORER if _is_large(data) else _SCORER)
    network = RoomsScorerNetwork(len(described), widths, features)
    loss_of = _scorer_loss(described, truth.to(device))
    _optimise(network, loss_of, data, epochs=epochs, batch_size=batch_size, seed=seed, device=device, progress=progress)
    scorer = RoomsScorer(network, described, device=device)
    quality = validate_scorer(scorer, data)
    shown = tuple(replace(o, shown=o.shown and _reliable(o, quality[o.name])) for o in described)
    made = {"rooms": len(data), "epochs": epochs, "seed": seed, "quality": quality}
    return RoomsScorer(network, shown, device=device, metadata=made)


def _check_told_apart(held_out: Float[Tensor, "n o"]) -> None:
    """Refuses, before training, what validation would stumble over after it."""
    lacking = [
        output.name
        for output, column in zip(outputs(), held_out.unbind(1), strict=True)
        if output.kind != "scale" and not 0 < int((column > 0.5).sum()) < len(column)
    ]
    if lacking:
        raise ValueError(
            f"all of the {len(held_out)} held-out rooms, a tenth of the data, have or lack {', '.join(lacking)}; "
            "render more rooms"
        )


def _is_large(data: RoomsData) -> bool:
    return data.images.shape[-1] >= 128


def _described(truth: Tensor) -> tuple[Output, ...]:
    described = []
    for output, column in zip(outputs(), truth.unbind(1), strict=True):
        if output.kind == "scale":
            described.append(replace(output, offset=float(column.mean()), spread=float(column.std().clamp(min=1e-6))))
        else:
            described.append(output)
    return tuple(described)


def _reliable(output: Output, quality: float) -> bool:
    return quality >= (MIN_CORRELATION if output.kind == "scale" else MIN_AUC)


def _scorer_loss(described: tuple[Output, ...], truth: Tensor) -> Callable[[Tensor, np.ndarray], Tensor]:
    kinds = [o.kind for o in described]
    scale, binary, category = (
        [i for i, k in enumerate(kinds) if k == wanted] for wanted in ("scale", "binary", "category")
    )
    offset = torch.tensor([described[i].offset for i in scale], device=truth.device)
    spread = torch.tensor([described[i].spread for i in scale], device=truth.device)

    def loss_of(raw: Tensor, index: np.ndarray) -> Tensor:
        wanted = truth[torch.from_numpy(index)]
        numbers = nn.functional.mse_loss(raw[:, scale], (wanted[:, scale] - offset) / spread)
        presence = nn.functional.binary_cross_entropy_with_logits(raw[:, binary], wanted[:, binary])
        classes = nn.functional.cross_entropy(raw[:, category], wanted[:, category].argmax(1))
        return numbers + presence + classes

    return loss_of


def validate_scorer(scorer: RoomsScorer, data: RoomsData, batch_size: int = 256) -> dict[str, float]:
    """Quality on the held-out tenth: correlation of numbers, area under the ROC curve of presence and category."""
    rows = split(data).validate
    predicted, truth = [], []
    with torch.inference_mode():
        for start in range(rows.start, rows.stop, batch_size):
            part = slice(start, min(start + batch_size, rows.stop))
            predicted.append(scorer.predict(torch.from_numpy(data.images[part].copy()).to(scorer.device)).cpu())
            factors, masks = (torch.from_numpy(a[part].copy()) for a in (data.factors, data.masks))
            truth.append(targets(factors, masks))
    scores, wanted = torch.cat(predicted), torch.cat(truth)
    quality = {}
    for column, output in enumerate(scorer.outputs):
        s, w = scores[:, column], wanted[:, column]
        value = torch.corrcoef(torch.stack([s, w]))[0, 1] if output.kind == "scale" else area_under_curve(s, w > 0.5)
        quality[output.name] = round(float(value), 4)
    return quality


def area_under_curve(scores: Float[Tensor, " n"], positive: Tensor) -> float:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half.

    Raises:
        ValueError: all samples are of one kind.
    """
    num_positive = int(positive.sum())
    num_negative = len(scores) - num_positive
    if min(num_positive, num_negative) == 0:
        raise ValueError("the area under the ROC curve needs positives and negatives; got only one kind")
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    rank = (last - (counts - 1) / 2)[inverse].double()
    above = rank[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def train_segmenter(
    data: RoomsData,
    *,
    epochs: int = 6,
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> RoomsSegmenter:
    """Trains the segmenter on the first nine tenths of a data set and validates it on the rest.

    It reads pictures of 128 pixels if the data set's are as large, else of 64.
    """
    device = torch.device(device)
    torch.manual_seed(seed)
    network = RoomsSegmenterNetwork(len(CLASSES), _LARGE_SEGMENTER if _is_large(data) else _SEGMENTER)
    nearest = np.arange(network.size) * data.masks.shape[1] // network.size

    def loss_of(logits: Tensor, index: np.ndarray) -> Tensor:
        masks = torch.from_numpy(data.masks[index][:, nearest][:, :, nearest].astype(np.int64)).to(device)
        return nn.functional.cross_entropy(logits, masks)

    _optimise(network, loss_of, data, epochs=epochs, batch_size=batch_size, seed=seed, device=device, progress=progress)
    segmenter = RoomsSegmenter(network, CLASSES, device=device)
    quality = validate_segmenter(segmenter, data)
    made = {"rooms": len(data), "epochs": epochs, "seed": seed, "quality": quality}
    return RoomsSegmenter(network, CLASSES, device=device, metadata=made)


def validate_segmenter(segmenter: RoomsSegmenter, data: RoomsData, batch_size: int = 256) -> dict[str, float]:
    """Intersection over union of every class on the held-out tenth, their mean, and the share of right pixels.

    A class that is neither there nor found has none, and counts for nothing in the mean.
    """
    count = len(segmenter.classes)
    table = torch.zeros(count, count, dtype=torch.long)
    rows = split(data).validate
    with torch.inference_mode():
        for start in range(rows.start, rows.stop, batch_size):
            part = slice(start, min(start + batch_size, rows.stop))
            found = segmenter.segment(torch.from_numpy(data.images[part].copy()).to(segmenter.device)).cpu().long()
            wanted = torch.from_numpy(data.masks[part].copy()).long()
            table += torch.bincount((wanted * count + found).flatten(), minlength=count * count).view(count, count)
    overlap = table.diagonal()
    union = table.sum(0) + table.sum(1) - overlap
    iou = {c.name: float(overlap[k] / union[k]) for k, c in enumerate(segmenter.classes) if union[k]}
    told = {"pixel_accuracy": float(overlap.sum() / table.sum()), "mean_iou": fmean(iou.values()), **iou}
    return {name: round(value, 4) for name, value in told.items()}
