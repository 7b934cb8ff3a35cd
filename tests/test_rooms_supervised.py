"""Targets, training and validation of the embedded scorers; the shipped weights against held-out renders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, roc_auc_score

from higan.rooms.classes import class_index
from higan.rooms.dataset import sample_rooms, write_data
from higan.rooms.factors import factor_index
from higan.rooms.supervised import (
    MIN_AUC,
    MIN_CORRELATION,
    area_under_curve,
    outputs,
    targets,
    train_scorer,
    train_segmenter,
    validate_segmenter,
)
from higan.scorers.rooms import RoomsScorer
from higan.segmenters.rooms import RoomsSegmenter


def test_area_under_curve_against_scikit_learn():
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.integers(0, 12, 60).astype(np.float32)  # with ties
        positive = generator.random(60) < 0.4
        ours = area_under_curve(torch.from_numpy(scores), torch.from_numpy(positive))
        assert ours == pytest.approx(roc_auc_score(positive, scores))
    with pytest.raises(ValueError, match="only one kind"):
        area_under_curve(torch.zeros(3), torch.ones(3, dtype=torch.bool))


def test_targets_follow_the_ground_truth():
    rooms = sample_rooms(range(24), 32)
    wanted = targets(rooms.factors, rooms.masks)
    names = [o.name for o in outputs()]
    assert wanted.shape == (24, len(names))
    assert torch.equal(wanted[:, names.index("view_yaw")], rooms.factors[:, factor_index("yaw")])
    window = torch.stack([wanted[:, names.index(f"window_{side}")] for side in ("left", "right")], 1)
    x, half = rooms.factors[:, factor_index("window_x")], rooms.factors[:, factor_index("room_width")] / 2
    assert torch.equal(window[:, 0] == 1, x < -half + 0.1)
    assert torch.equal(window[:, 1] == 1, x > half - 0.1)
    share = (rooms.masks == class_index("plant")).float().mean((1, 2))
    assert torch.equal(wanted[:, names.index("plant")] == 1, share >= 0.004)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("rooms"), 160, 64)


def test_scorer_learns_and_is_saved(data, tmp_path):
    losses = []
    scorer = train_scorer(data, epochs=6, batch_size=16, progress=lambda k, n, loss: losses.append((k, n, loss)))
    assert losses[-1][0] == losses[-1][1] == 54
    assert losses[-1][2] < losses[0][2]
    quality = scorer.metadata["quality"]
    assert set(quality) == {o.name for o in scorer.outputs}
    for output in scorer.outputs:
        enough = quality[output.name] >= (MIN_CORRELATION if output.kind == "scale" else MIN_AUC)
        assert output.shown <= enough
    scorer.save(tmp_path / "s.safetensors")
    again = RoomsScorer.load(tmp_path / "s.safetensors")
    images = torch.from_numpy(data.images[:4].copy())
    assert torch.allclose(again.predict(images), scorer.predict(images), atol=0.05)
    assert again.outputs == scorer.outputs


def test_segmenter_learns_and_is_saved(data, tmp_path):
    segmenter = train_segmenter(data, epochs=3, batch_size=16)
    quality = segmenter.metadata["quality"]
    assert quality["pixel_accuracy"] > 0.4
    images, masks = (torch.from_numpy(a[144:].copy()) for a in (data.images, data.masks))
    found = segmenter.segment(images)
    wall = jaccard_score(masks.flatten() == 0, found.flatten() == 0)
    assert quality["wall"] == pytest.approx(wall, abs=1e-4)
    segmenter.save(tmp_path / "s.safetensors")
    again = RoomsSegmenter.load(tmp_path / "s.safetensors")
    assert (again.segment(images) == found).float().mean() > 0.98


@pytest.mark.parametrize(("times", "size"), [(1, 64), (2, 128)])
def test_what_is_read_follows_the_rooms(data, times, size):
    enlarged = [np.repeat(np.repeat(a, times, -1), times, -2) for a in (data.images, data.masks)]
    rooms = replace(data, images=enlarged[0], masks=enlarged[1])
    assert train_scorer(rooms, epochs=1, batch_size=64).network.size == size
    assert train_segmenter(rooms, epochs=1, batch_size=64).network.size == size


def test_a_segmenter_may_learn_from_rooms_of_another_size(data):
    rooms = replace(data, images=data.images[..., ::2, ::2], masks=data.masks[..., ::2, ::2])
    found = train_segmenter(rooms, epochs=1, batch_size=64).segment(torch.from_numpy(rooms.images[:2].copy()))
    assert found.shape == (2, 32, 32)


def test_a_class_that_is_neither_there_nor_found_does_not_count(data):
    rooms = replace(data, masks=np.where(data.masks == class_index("bed"), 0, data.masks))
    segmenter = train_segmenter(rooms, epochs=1, batch_size=16)
    segmenter.network.head.bias.unflatten(0, (-1, 4))[class_index("bed")] = -1e9  # Never found.
    quality = validate_segmenter(segmenter, rooms)
    wanted, found = (
        rooms.masks[144:].flatten(),
        segmenter.segment(torch.from_numpy(rooms.images[144:].copy())).flatten(),
    )
    assert quality["mean_iou"] == pytest.approx(jaccard_score(wanted, found, average="macro"), abs=1e-4)
    assert "bed" not in quality


def test_too_few_rooms(data):
    with pytest.raises(ValueError, match="do not fill a batch"):
        train_scorer(data, batch_size=1000)


def test_rooms_that_would_not_validate_are_refused_before_training(data):
    told = []
    few = replace(data, images=data.images[:20], masks=data.masks[:20], factors=data.factors[:20])
    with pytest.raises(ValueError, match=r"all of the 2 held-out rooms, a tenth of the data, have or lack .*; render"):
        train_scorer(few, epochs=1, batch_size=4, progress=lambda *step: told.append(step))
    assert not told
