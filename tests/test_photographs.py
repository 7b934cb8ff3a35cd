"""Pictures of every kind that people have, against the pixels they were made from."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from higan.errors import CorruptFileError, UnknownFormatError
from higan.photographs import open_photograph

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def opened(path, resolution=8):
    return open_photograph(path, resolution).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff"])
def test_a_picture_of_the_right_size_is_untouched(tmp_path, ending):
    assert np.array_equal(opened(saved(tmp_path / f"p.{ending}", PIXELS)), PIXELS)


def test_the_centre_is_cut_out(tmp_path):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = PIXELS
    assert np.array_equal(opened(saved(tmp_path / "w.png", wide)), PIXELS)
    assert np.array_equal(opened(saved(tmp_path / "t.png", wide.transpose(1, 0, 2))), PIXELS.transpose(1, 0, 2))


@pytest.mark.parametrize("resolution", [4, 16, 64])
def test_other_sizes_keep_their_colours(tmp_path, resolution):
    left_right = np.zeros((40, 30, 3), np.uint8)
    left_right[:, :15], left_right[:, 15:] = (200, 10, 30), (20, 100, 220)
    found = opened(saved(tmp_path / "p.png", left_right), resolution)
    assert found.shape == (resolution, resolution, 3)
    # Lanczos rings a little at the edge between the colours.
    assert np.abs(found[0, 0].astype(int) - (200, 10, 30)).max() <= 6
    assert np.abs(found[-1, -1].astype(int) - (20, 100, 220)).max() <= 6


def test_transparency_is_composited_over_white(tmp_path):
    alpha = RNG.integers(0, 256, (8, 8, 1), dtype=np.uint8)
    path = saved(tmp_path / "p.png", np.concatenate([PIXELS, alpha], -1))
    share = alpha / 255
    assert np.abs(opened(path) - (PIXELS * share + 255 * (1 - share))).max() <= 1
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 9, 90, 200])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "i.png", transparency=0)
    found = opened(tmp_path / "i.png")
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [9, 90, 200]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # What a camera stores for each orientation, so that the picture stands upright when the tag is obeyed.
    stored = {
        1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1], 5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, 1), 7: np.rot90(PIXELS, 2).transpose(1, 0, 2), 8: np.rot90(PIXELS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "p.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(opened(path), PIXELS)


def test_grey_and_cmyk_become_rgb(tmp_path):
    grey = PIXELS[..., 0]
    assert np.array_equal(opened(saved(tmp_path / "g.png", grey)), np.repeat(grey[..., None], 3, -1))
    wide = grey.astype(np.uint16) * 257
    assert np.array_equal(opened(saved(tmp_path / "w.png", wide)), np.repeat(grey[..., None], 3, -1))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    red = opened(tmp_path / "c.jpg")
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 60


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG whose header promises that many pixels and whose data is short."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_pictures_are_fractions_of_one_or_grey_levels(tmp_path, top):
    grey = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "float.tif")
    picture = open_photograph(tmp_path / "float.tif", 8)
    assert np.array_equal(picture[0].numpy(), np.round(grey / top * 255).astype(np.uint8))
    # What resampling and sharpening leave beyond the top is the top, and does not make the rest black.
    grey[0, 0] = 1.1 * top
    Image.fromarray(grey).save(tmp_path / "beyond.tif")
    beyond = open_photograph(tmp_path / "beyond.tif", 8)[0]
    assert int(beyond[0, 0]) == 255
    assert torch.equal(beyond.flatten()[1:], picture[0].flatten()[1:])
    grey[0, 0] = np.nan
    Image.fromarray(grey).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match=r"nan.tif holds pixels that are no finite numbers"):
        open_photograph(tmp_path / "nan.tif", 8)


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2)])
def test_bombs_are_not_decoded(tmp_path, width, height):
    (tmp_path / "b.png").write_bytes(bomb(width, height))
    with pytest.raises((ValueError, CorruptFileError), match=r"pixels|too large|damaged"):
        open_photograph(tmp_path / "b.png", 8)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", UnknownFormatError), (b"not a picture at all", UnknownFormatError), (b"%!PS-Adobe-3.0\n", UnknownFormatError),
     (bomb(50, 50), CorruptFileError)],
)  # fmt: skip
def test_what_is_no_picture(tmp_path, content, error):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(error, match=r"x\.png"):
        open_photograph(tmp_path / "x.png", 8)


def test_damaged_pictures_are_refused_or_read_never_anything_else(tmp_path):
    whole = saved(tmp_path / "p.png", PIXELS).read_bytes()
    jpeg = saved(tmp_path / "p.jpg", PIXELS).read_bytes()
    for data in (whole, jpeg):
        for k in range(0, len(data), 7):
            flipped = bytearray(data)
            flipped[k] ^= 0xFF
            for content in (data[:k], bytes(flipped)):
                (tmp_path / "d").write_bytes(content)
                with contextlib.suppress(CorruptFileError, UnknownFormatError, ValueError):
                    assert open_photograph(tmp_path / "d", 8).shape == (3, 8, 8)


def test_a_missing_file_and_a_bad_size(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_photograph(tmp_path / "nope.png", 8)
    with pytest.raises(ValueError, match="resolution must be at least 1"):
        open_photograph(saved(tmp_path / "p.png", PIXELS), 0)
    assert open_photograph(tmp_path / "p.png", 8).dtype == torch.uint8
