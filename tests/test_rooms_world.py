"""The rendered world: geometry and light against answers known by hand, ground truth against what is seen."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from higan.engines import InProcess
from higan.errors import CorruptRunError, RunMismatchError, RunWriteError
from higan.rooms import render as rays
from higan.rooms import tiles
from higan.rooms.classes import CATEGORIES, CLASSES, class_index
from higan.rooms.dataset import batches, colour_masks, contact_sheet, open_data, sample_rooms, write_data
from higan.rooms.factors import FACTORS, factor_index, factors
from higan.rooms.palette import hsl_to_linear
from higan.rooms.render import render
from higan.rooms.scene import sample_scenes


@pytest.fixture(scope="module")
def rooms():
    return sample_rooms(range(48), 64)


def column(batch, name):
    return batch.factors[:, factor_index(name)]


def test_room_depends_on_its_seed_alone(rooms):
    alone = sample_rooms([17], 64)
    assert torch.equal(alone.images[0], rooms.images[17])
    assert torch.equal(alone.masks[0], rooms.masks[17])
    assert torch.equal(alone.factors[0], rooms.factors[17])


def test_chunks_do_not_change_pictures():
    scenes = sample_scenes(range(5))
    one, all_ = render(scenes, 32, chunk=1), render(scenes, 32, chunk=5)
    assert (one.images.int() - all_.images.int()).abs().max() <= 1
    assert torch.equal(one.masks, all_.masks)


@pytest.mark.parametrize("resolution", [32, 44, 96])
def test_what_tiles_cannot_meet_would_change_nothing(monkeypatch, resolution):
    scenes = sample_scenes(range(300, 312))
    made, looks = render(scenes, resolution), []
    closer = rays._closer_box
    monkeypatch.setattr(rays, "_closer_box", lambda t, *rest: looks.append(t.numel()) or closer(t, *rest))
    render(scenes, resolution)
    few, _ = sum(looks), looks.clear()
    everywhere = (torch.tensor(-torch.inf), torch.tensor(torch.inf))
    monkeypatch.setattr(rays, "spans", lambda low, *_: tuple(e.expand(low.shape[:2]) for e in everywhere))
    monkeypatch.setattr(rays, "distances", lambda low, *_: torch.zeros(low.shape[:2]))
    every = render(scenes, resolution)
    assert torch.equal(made.images, every.images)
    assert torch.equal(made.masks, every.masks)
    assert few < sum(looks) / 3


@pytest.mark.parametrize("side", [64, 74, 100, 254])
def test_tiles_hold_neighbours_and_are_undone(side):
    tile = tiles.tile_side(side)
    assert side % tile == 0
    picture = torch.arange(2 * side * side).view(2, side, side)
    rows = tiles.to_tiles(picture)
    assert torch.equal(tiles.from_tiles(rows, side), picture)
    assert torch.equal(rows[1, : tile * tile].view(tile, tile), picture[1, :tile, :tile])
    assert tiles.num_tiles(side * side) * tile * tile == side * side


@given(st.integers(0, 10_000), st.booleans())
def test_bounds_of_tiles_hold_to_the_last_bit(seed, apart):
    """Of rays from one point or from points of their own, against every ray and every point by itself."""
    dice = torch.Generator().manual_seed(seed)
    start = tuple(torch.randn(3, 20 if apart else 1, generator=dice) for _ in range(3))
    through = tuple(torch.randn(3, 1, generator=dice) + 0.3 * torch.randn(3, 20, generator=dice) for _ in range(3))
    inverse = rays._inverse(through)
    low = torch.randn(3, 5, 3, generator=dice)
    high = low + torch.rand(3, 5, 3, generator=dice)
    entry, exit_ = tiles.spans(low, high, start, inverse)
    near = tiles.distances(low, high, through)
    for box in range(5):
        lo, hi = (tuple(c[:, box, a, None] for a in range(3)) for c in (low, high))
        relative = [tuple(e - s for e, s in zip(ends, start, strict=True)) for ends in (lo, hi)]
        first, last = rays._box_span(*relative, inverse)
        assert (entry[:, box, None] <= first).all()
        assert (exit_[:, box, None] >= last).all()
        assert (near[:, box, None] <= rays._box_distance(lo, hi, through)).all()


@pytest.mark.parametrize("resolution", [32, 50, 128])
def test_resolutions_show_the_same_room(resolution, rooms):
    other = sample_rooms([3], resolution)
    assert other.images.shape == (1, 3, resolution, resolution)
    small = torch.nn.functional.interpolate(other.images.float(), (16, 16), mode="area")
    same = torch.nn.functional.interpolate(rooms.images[3:4].float(), (16, 16), mode="area")
    assert (small - same).abs().mean() < 6


def test_back_wall_corners_project_to_where_the_masks_change():
    """Straight ahead, the ceiling ends and the floor begins at the projected height of the back wall's edges."""
    scenes = sample_scenes(range(24))
    values = factors(scenes)
    masks = render(scenes, 128).masks
    checked = 0
    for k in range(24):
        left_x, left_y = (values[k, factor_index(f"corner_left_top_{a}")] for a in "xy")
        right_x, right_y = (values[k, factor_index(f"corner_right_top_{a}")] for a in "xy")
        if not (left_x < 0 < right_x):
            continue
        height = left_y + (right_y - left_y) * (0 - left_x) / (right_x - left_x)
        row = (1 - float(height)) / 2 * 128
        middle = masks[k, :, 64]
        if not (4 < row < 124) or int(middle[int(row) - 4]) != class_index("ceiling"):
            continue  # a lamp hangs in the way
        boundary = int((middle != class_index("ceiling")).nonzero()[0])
        if int(middle[boundary]) != class_index("wall"):
            continue  # furniture hides the edge
        assert abs(boundary - row) <= 1.5
        checked += 1
    assert checked >= 6


def test_category_decides_the_furniture(rooms):
    owns = {"bedroom": "bed", "living_room": "sofa", "dining_room": "dining_table"}
    for category in CATEGORIES:
        members = column(rooms, category) == 1
        assert members.any()
        for other, thing in owns.items():
            present = column(rooms, f"{thing}_present")[members]
            assert bool((present == (1 if other == category else 0)).all())


def test_seen_means_present(rooms):
    """No mask shows a class that the ground truth calls absent."""
    for name in ("bed", "sofa", "chair", "plant", "television", "rug", "wardrobe", "curtain", "picture", "clutter"):
        seen = (rooms.masks == class_index(name)).any(2).any(1)
        assert bool((column(rooms, f"{name}_present")[seen] == 1).all()), name


def test_lamp_and_daylight_brighten_the_picture():
    scenes = sample_scenes(range(12))
    brightness = {}
    for light in ("indoor", "natural"):
        for value in (0.1, 0.9):
            values = {name: getattr(scenes, name) for name in type(scenes).__slots__}
            values[light] = torch.full_like(scenes.indoor, value)
            brightness[light, value] = render(type(scenes)(**values), 32).images.float().mean((1, 2, 3))
        assert bool((brightness[light, 0.9] > brightness[light, 0.1]).all()), light


def test_yaw_moves_the_back_wall_sideways():
    scenes = sample_scenes([1, 2, 3])
    values = {name: getattr(scenes, name) for name in type(scenes).__slots__}
    left = factors(type(scenes)(**(values | {"yaw": torch.full((3,), -0.2)})))
    right = factors(type(scenes)(**(values | {"yaw": torch.full((3,), 0.2)})))
    corner = factor_index("corner_left_top_x")
    assert bool((left[:, corner] > right[:, corner]).all())


def test_hsl_against_the_standard_library():
    import colorsys

    generator = torch.Generator().manual_seed(0)
    for hue, saturation, lightness in torch.rand(50, 3, generator=generator).tolist():
        wanted = colorsys.hls_to_rgb(hue, lightness, saturation)
        got = hsl_to_linear(torch.tensor([hue, saturation, lightness])) ** (1 / 2.2)
        assert got.tolist() == pytest.approx(wanted, abs=2e-3)


def test_factors_are_named_once_and_cover_four_levels():
    names = [f.name for f in FACTORS]
    assert len(set(names)) == len(names)
    assert {f.level for f in FACTORS} == {"layout", "object", "attribute", "colour"}
    assert factors(sample_scenes([0])).shape == (1, len(FACTORS))
    with pytest.raises(ValueError, match="unknown factor 'nope'"):
        factor_index("nope")


def test_palette_is_in_the_picture(rooms):
    """Walls painted lighter are lighter in the picture, at a given light."""
    wall = rooms.masks == class_index("wall")
    grey = rooms.images.float().mean(1)
    seen = (grey * wall).sum((1, 2)) / wall.sum((1, 2)).clamp(min=1)
    light = column(rooms, "indoor_lighting") + column(rooms, "natural_light")
    design = torch.stack([torch.ones(48), light, column(rooms, "walls_lightness")], 1)
    weights = torch.linalg.lstsq(design, seen[:, None]).solution[:, 0]
    assert weights[1] > 20
    assert weights[2] > 50


def test_bad_input():
    with pytest.raises(ValueError, match="at least one seed"):
        sample_scenes([])
    with pytest.raises(ValueError, match="32 … 256 pixels; got 16"):
        sample_rooms([0], 16)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        next(batches(0))
    with pytest.raises(ValueError, match="columns"):
        contact_sheet(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 0)


def test_endless_batches_count_seeds():
    stream = batches(2, 32, first_seed=5)
    first, second = next(stream), next(stream)
    whole = sample_rooms(range(5, 9), 32)
    assert torch.equal(torch.cat([first.images, second.images]), whole.images)


def test_contact_sheet_places_images():
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (3, 5, 5)
    assert sheet[0].tolist() == [
        [0, 0, 255, 1, 1], [0, 0, 255, 1, 1], [255] * 5, [2, 2, 255, 255, 255], [2, 2, 255, 255, 255],
    ]  # fmt: skip


def test_mask_colours():
    masks = torch.tensor([[[0, 6]]], dtype=torch.uint8)
    assert colour_masks(masks)[0, :, 0].T.tolist() == [list(CLASSES[0].colour), list(CLASSES[6].colour)]


def test_data_set_resumes_and_refuses_others(tmp_path):
    data = write_data(tmp_path / "a", 6, 32, first_seed=10)
    whole = sample_rooms(range(10, 16), 32)
    assert torch.equal(torch.from_numpy(data.images.copy()), whole.images)
    assert torch.equal(torch.from_numpy(data.factors.copy()), whole.factors)
    (tmp_path / "a" / "blocks.txt").unlink()  # killed before the block was written down
    with pytest.raises(CorruptRunError, match="not finished"):
        open_data(tmp_path / "a")
    seen = []
    again = write_data(tmp_path / "a", 6, 32, first_seed=10, progress=seen.append)
    assert seen == [6]
    assert torch.equal(torch.from_numpy(again.masks.copy()), whole.masks)
    with pytest.raises(RunMismatchError, match="differing: num"):
        write_data(tmp_path / "a", 7, 32, first_seed=10)
    with pytest.raises(CorruptRunError, match="no rooms"):
        open_data(tmp_path / "b")


def test_a_full_disk_is_told_and_rooms_go_on(tmp_path, monkeypatch):
    """A limit stands for it: with files in mapped memory either would kill the process."""
    resource = pytest.importorskip("resource")  # Not on Windows.
    monkeypatch.setattr("higan.rooms.dataset.Processes", lambda workers: InProcess())
    whole = write_data(tmp_path / "a", 3, 32)
    before = [array.tobytes() for array in (whole.images, whole.masks, whole.factors)]
    (tmp_path / "a" / "blocks.txt").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(RunWriteError, match=r"images.npy cannot be written \(File too large\)"):
            write_data(tmp_path / "a", 3, 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = write_data(tmp_path / "a", 3, 32)
    assert [array.tobytes() for array in (again.images, again.masks, again.factors)] == before


def test_camera_angles_are_radians():
    scenes = sample_scenes(range(64))
    assert bool((scenes.yaw.abs() <= 0.4).all())
    assert bool((scenes.fov < math.radians(76)).all())


def test_a_size_that_is_not_rendered_leaves_the_folder_free(tmp_path):
    with pytest.raises(ValueError, match="resolution must lie in 32 … 256 pixels; got 16"):
        write_data(tmp_path, 3, 16)
    assert len(write_data(tmp_path, 3, 32).images) == 3


def test_an_interrupted_rendering_does_not_go_on_to_the_end(tmp_path, monkeypatch):
    def stop(done):
        raise KeyboardInterrupt

    monkeypatch.setattr("higan.rooms.dataset._BLOCK", 100)
    with pytest.raises(KeyboardInterrupt):
        write_data(tmp_path, 1001, 32, progress=stop)
    # Eleven blocks of 100 rooms at most: one is written down, two or so were under way already.
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert sum(bool(images[start].any()) for start in range(0, 1001, 100)) < 6


def test_a_folder_of_something_else_holds_no_rooms(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "higan-run-1"}')
    with pytest.raises(CorruptRunError, match="holds something else than rooms"):
        open_data(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_data(folder, 2, 32)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("images.npy", b"\x93NUMPY\x01", "is damaged"),
        ("masks.npy", b"", "is damaged"),
        ("factors.npy", None, "is damaged .*No such file"),
        ("manifest.json", b"{", "manifest.json is damaged"),
        ("manifest.json", b"[]", "something else than rooms"),
    ],
)
def test_damaged_data_are_told(written, tmp_path, name, content, told):
    folder = shutil.copytree(written, tmp_path / "rooms")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(CorruptRunError, match=told):
        open_data(folder)


def test_data_of_another_version_are_refused(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "rooms")
    settings = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(settings | {"factors": settings["factors"][:-1]}))
    with pytest.raises(RunMismatchError, match="other factors"):
        open_data(folder)
