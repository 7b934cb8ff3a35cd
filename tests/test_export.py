"""Files that come back as they went out, and nothing else."""

import json
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from higan import export, population
from higan.checkpoints import official
from higan.errors import CorruptFileError, MissingExtraError, MissingWeightsError, UnknownFormatError
from higan.export import (
    contact_sheet,
    load_codes,
    load_directions,
    read_recipe,
    save_animation,
    save_codes,
    save_directions,
    save_picture,
    save_sheet,
    save_slider,
    save_video,
)
from higan.generators.toy import ToyGenerator
from higan.recipes import Move, Recipe
from higan.types import Boundary, Concept

IMAGES = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe("toy", "ab" * 32, (1.0, 0.7), 7, moves=(Move("planted 0 · σ", 1 / 3, (0, 2), "cd"),), asked=("a=+1",))


def pixels(path):
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def test_pictures_carry_their_recipe(tmp_path):
    path = tmp_path / "p.png"
    save_picture(path, IMAGES[0], RECIPE)
    assert torch.equal(pixels(path), IMAGES[0])
    assert read_recipe(path) == RECIPE
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_picture(tmp_path / "p.jpg", IMAGES[0])


def test_pictures_without_a_recipe(tmp_path):
    save_picture(tmp_path / "p.png", IMAGES[0])
    Image.new("RGB", (4, 4)).save(tmp_path / "j.jpg")
    with pytest.raises(UnknownFormatError, match="carries no recipe"):
        read_recipe(tmp_path / "p.png")
    with pytest.raises(UnknownFormatError, match="is not a PNG"):
        read_recipe(tmp_path / "j.jpg")
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "none.png")


def test_a_picture_too_large_to_open_is_not_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    with pytest.raises(CorruptFileError, match="100,000,000 pixels; pictures of up to 60,000,000 are opened"):
        read_recipe(path)


def test_a_damaged_picture_never_gives_another_recipe(tmp_path):
    path = tmp_path / "p.png"
    save_picture(path, IMAGES[0], RECIPE)
    data = path.read_bytes()
    for k in range(8, len(data), 5):
        flipped = bytearray(data)
        flipped[k] ^= 0x55
        path.write_bytes(bytes(flipped))
        try:
            found = read_recipe(path)
        except (CorruptFileError, UnknownFormatError):
            continue
        assert found == RECIPE


def test_a_sheet_holds_every_picture_where_it_belongs():
    sheet = contact_sheet(
        IMAGES, 2, captions=[f"picture {k}\n+{k} σ" for k in range(5)], rows=["a", "bb", "ccc"], scale=3
    )
    array = np.array(sheet)
    white = (array == 255).all((0, 2))
    left = int(np.flatnonzero(~white)[0])
    for k in range(5):
        enlarged = IMAGES[k].permute(1, 2, 0).repeat_interleave(3, 0).repeat_interleave(3, 1).numpy()
        row, column = divmod(k, 2)
        x = sheet.width - (2 - column) * 30
        y = 6 + row * (24 + 34 + 6)
        assert np.array_equal(array[y : y + 24, x : x + 24], enlarged)
        below = array[y + 24 : y + 58, x : x + 24]
        assert (below < 128).any()
    assert left < 12
    assert contact_sheet(IMAGES, 5).size == (6 + 5 * 134, 6 + 134)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": 0}, "one column; got 5 and 0"),
        ({"columns": 2, "captions": ["a"]}, "each of 5 pictures .* got 1 and 0"),
        ({"columns": 2, "rows": ["a"]}, "each of 3 rows"),
        ({"columns": 2, "scale": 0}, "scale must be at least 1"),
    ],
)
def test_bad_sheets(options, words):
    with pytest.raises(ValueError, match=words):
        contact_sheet(IMAGES, **options)


def test_words_on_sheets_are_spelt_in_letters_that_the_font_has():
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)

    def sheet(words):
        return np.array(contact_sheet(image, 1, captions=[words], rows=[words]))

    for words, plain in (("Möbel", "Mobel"), ("−1\n–2", "-1\n-2"), ("木 x", "? x"), ("Mo\u0308bel", "Mobel")):
        assert np.array_equal(sheet(words), sheet(plain)), words
    font = ImageFont.load_default(12)
    missing = font.getmask("\uffff")
    for letter in sorted(export._LETTERS - {" "}):
        assert bytes(font.getmask(letter)) != bytes(missing), letter


def test_sheets_are_pictures_too(tmp_path):
    save_sheet(tmp_path / "s.png", contact_sheet(IMAGES, 5, scale=1), RECIPE)
    assert read_recipe(tmp_path / "s.png") == RECIPE


def test_animations_go_there_and_back(tmp_path):
    few = (IMAGES // 64) * 64  # so few colours that a GIF keeps them all
    for ending in ("gif", "webp"):
        path = tmp_path / f"a.{ending}"
        save_animation(path, few, milliseconds=100, scale=2)
        with Image.open(path) as movie:
            assert movie.n_frames == 8
            assert movie.info["loop"] == 0
            for frame, k in enumerate([0, 1, 2, 3, 4, 3, 2, 1]):
                movie.seek(frame)
                found = torch.from_numpy(np.array(movie.convert("RGB"))).permute(2, 0, 1)
                assert torch.equal(found[:, ::2, ::2], few[k])
    with pytest.raises(ValueError, match=r"\.gif or \.webp"):
        save_animation(tmp_path / "a.mp4", few)
    with pytest.raises(ValueError, match="at least one picture"):
        save_animation(tmp_path / "a.gif", few[:0])


def test_video_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'higan\[video\]'; or write \.gif"):
        save_video(tmp_path / "a.mp4", IMAGES)
    assert not list(tmp_path.iterdir())


def test_video_is_written_where_the_extra_is_there(tmp_path):
    av = pytest.importorskip("av")
    large = IMAGES.repeat_interleave(8, 2).repeat_interleave(8, 3)
    save_video(tmp_path / "a.mp4", large, frames_per_second=10)
    with av.open(str(tmp_path / "a.mp4")) as movie:
        frames = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
    assert len(frames) == 8
    assert frames[0].shape == (64, 64, 3)


def test_the_slider_holds_every_picture_and_nothing_from_elsewhere(tmp_path):
    path = tmp_path / "s.html"
    save_slider(path, IMAGES, ["−1", "0", "</script><b>", "2", "3"], title="wood & <more>", start=1)
    text = path.read_text()
    assert "wood &amp; &lt;more&gt;" in text
    assert text.count("</script>") == 1
    assert not re.search(r"https?://", text)
    strip = json.loads(re.search(r"const strip=(\{.*?\}),at=", text, re.DOTALL)[1])
    assert strip["labels"][2] == "</script><b>"
    assert len(set(strip["images"])) == 5
    assert 'max="4" value="1"' in text
    with pytest.raises(ValueError, match="as many labels"):
        save_slider(path, IMAGES, ["a"])


def test_codes_come_back(tmp_path):
    codes = population.sample(ToyGenerator(), range(3))
    for ending in ("safetensors", "npy"):
        path = tmp_path / f"c.{ending}"
        save_codes(path, codes, {"from": "photo.png"})
        assert torch.equal(load_codes(path), codes)
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "c.npy")), codes)
    np.save(tmp_path / "one.npy", codes[0].numpy())
    assert torch.equal(load_codes(tmp_path / "one.npy"), codes[:1])
    with pytest.raises(MissingWeightsError):
        load_codes(tmp_path / "none.npy")
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan, np.float32))
    with pytest.raises(CorruptFileError, match="finite codes"):
        load_codes(tmp_path / "nan.npy")
    np.save(tmp_path / "nothing.npy", np.zeros((0, 8), np.float32))
    with pytest.raises(CorruptFileError, match=r"finite codes of shape \(n, L, D\); got \(1, 0, 8\)"):
        load_codes(tmp_path / "nothing.npy")
    np.savez(tmp_path / "projected_w.npz", w=codes.numpy())
    with pytest.raises(UnknownFormatError, match=r"expected .safetensors or .npy, .* of another tool's .npz"):
        load_codes(tmp_path / "projected_w.npz")
    (tmp_path / "notes.txt").write_text("seed 7 is the one with the sofa")
    with pytest.raises(UnknownFormatError, match=r"notes.txt does not hold codes: expected .safetensors or .npy"):
        load_codes(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"\.safetensors or \.npy"):
        save_codes(tmp_path / "c.pt", codes)


def boundaries():
    normals = ToyGenerator().directions
    return [Boundary(Concept(n, "layout"), normals[k], torch.tensor(0.5), 0.9) for k, n in enumerate(("a b", "c/d"))]


def test_directions_come_back(tmp_path):
    (path,) = save_directions(tmp_path / "d.safetensors", boundaries(), {"a b": [0, 1, 4]})
    found, layers = load_directions(path)
    assert [b.concept for b in found] == [b.concept for b in boundaries()]
    for ours, theirs in zip(found, boundaries(), strict=True):
        assert torch.equal(ours.normal, theirs.normal)
        assert torch.equal(ours.bias, theirs.bias)
    assert layers == {"a b": (0, 1, 4)}
    save_codes(tmp_path / "c.safetensors", torch.zeros(1, 2, 3))
    with pytest.raises(UnknownFormatError, match="does not hold directions"):
        load_directions(tmp_path / "c.safetensors")
    with pytest.raises(UnknownFormatError, match="does not hold codes"):
        load_codes(path)


def test_directions_for_the_official_tool(tmp_path):
    files = save_directions(tmp_path / "out", boundaries(), {"a b": [0, 1, 4]})
    assert [f.name for f in files] == ["a_b_boundary.npy", "c__d_boundary.npy"]
    advised, bare = (official.read_boundary(f) for f in files)
    assert advised.layers == "0-1,4"
    assert bare.layers is None
    torch.testing.assert_close(advised.boundary.normal, boundaries()[0].normal)
    plain = subprocess.run(
        [sys.executable, "-c", f"import numpy; print(numpy.load({str(files[1])!r}).shape)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert plain.stdout.strip() == "(1, 16)"
    with pytest.raises(ValueError, match=r"a \.safetensors file or a folder"):
        save_directions(tmp_path / "d.npy", boundaries())
    with pytest.raises(ValueError, match="several are called a b"):
        save_directions(tmp_path / "out", boundaries()[:1] * 2)
    for two in (("a b", "a_b"), ("Wood", "wood")):
        alike = [Boundary(Concept(name, "object"), torch.ones(16), torch.zeros(()), 1.0) for name in two]
        with pytest.raises(
            ValueError, match=f"names that differ as names of files do; alike are '{two[0]}' and '{two[1]}'"
        ):
            save_directions(tmp_path / "alike", alike)
        assert not (tmp_path / "alike").exists()
    with pytest.raises(ValueError, match="one space"):
        save_directions(tmp_path / "d.safetensors", [])


def noise(side):
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def direction(size):
    return Boundary(Concept("wood", "attribute"), torch.ones(size, size) / size**0.5, torch.zeros(size), 0.9)


WRITERS = {
    "codes.npy": lambda path, size: save_codes(path, torch.full((size, 2, size), 0.5)),
    "codes.safetensors": lambda path, size: save_codes(path, torch.full((size, 2, size), 0.5)),
    "p.png": lambda path, size: save_picture(path, noise(size)),
    "p.gif": lambda path, size: save_animation(path, noise(size)[None]),
    "wood_boundary.npy": lambda path, size: official.write_boundary(path, direction(size)),
    "wood_boundary of layers.npy": lambda path, size: official.write_boundary(path, direction(size), "0-3"),
    "d.safetensors": lambda path, size: save_directions(path, [direction(size)]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(tmp_path, no_file_above, name):
    path = tmp_path / name
    WRITERS[name](path, 8)
    before = path.read_bytes()
    assert len(before) < 4000
    with no_file_above(4000), pytest.raises(OSError, match=r"File too large|requested and"):
        WRITERS[name](path, 128)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
