"""The verbs that make pictures, as a person uses them, on a small run of the embedded world."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import FAMILIES
from PIL import Image

import higan as higan_package
from higan import cli, load_generator, load_scorer, population, store
from higan import effects as effects_module
from higan.cli import discover as discover_verb
from higan.cli import edit as edit_verb
from higan.cli import effects as effects_verb
from higan.cli import folder as folder_file
from higan.cli import invert as invert_verb
from higan.cli.models import digests_of, weights_digest
from higan.export import about_codes, load_codes, load_directions, read_recipe, save_codes
from higan.generators.loading import save_generator
from higan.generators.pretrained import wrap
from higan.generators.rooms import RoomsGenerator
from higan.inversion import invert
from higan.recipes import format_layers
from higan.rooms.dataset import sample_rooms

ROOMS = ("--generator", "rooms")
CONCEPTS = ("view_yaw", "indoor_lighting", "bedroom", "living_room", "warm_colours")


def call(*words):
    """Runs a line in this process; the exit status."""
    before, sys.argv = sys.argv, ["higan", *map(str, words)]
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def higan(capsys):
    def run(*words):
        code = call(*words)
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit") / "run"
    assert call("sample", *ROOMS, "--scorer", "rooms", "--num", 300, "--out", folder) == 0
    assert call("fit", folder, "--permuted", 0, *(word for name in CONCEPTS for word in ("--concept", name))) == 0
    assert call("rescore", folder, "--verify", 6, "--random", 3) == 0
    return folder


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def drawn(*seeds):
    """Samples as the generator draws them, one by one."""
    generator = load_generator("rooms")
    images = [population.render(generator, population.sample(generator, [seed])) for seed in seeds]
    return torch.cat(images).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Rendered rooms as people would bring them: lying on their side with EXIF, and see-through of another size."""
    folder = tmp_path_factory.mktemp("photographs")
    first, second = (
        Image.fromarray(i.permute(1, 2, 0).numpy().copy()) for i in sample_rooms([20_000_000, 20_000_001], 96).images
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    first.rotate(90).save(folder / "sideways.jpg", exif=exif, quality=95)
    second.putalpha(200)
    second.resize((150, 100)).save(folder / "glass.png")
    codes = folder / "codes.safetensors"
    line = ["invert", folder / "sideways.jpg", folder / "glass.png", *ROOMS, "--steps", 40, "--scorer", "rooms"]
    assert call(*line, "--out", codes) == 0
    return folder


# ---- edit -----------------------------------------------------------------------------------------------------------


def test_an_edited_picture_is_repeated_bit_for_bit(higan, finished, tmp_path):
    line = ["edit", "--run", finished, "--seed", 7, "--set", "indoor_lighting=+1.5", "--set", "view_yaw=-2@0-1"]
    code, printed = higan(*line, "--set", "category:bedroom=+1@2-5", "--condition", "warm_colours", "--out",
                          tmp_path / "a.png")  # fmt: skip
    assert code == 0, printed
    assert "view_yaw: -2 steps at layers 0-1" in printed
    code, printed = higan("edit", "--run", finished, "--from", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert code == 0, printed
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (pixels(tmp_path / "a.png") != drawn(7)[0]).any()
    # The order of edits does not matter.
    back = ["--set", "view_yaw=-2@0-1", "--set", "indoor_lighting=+1.5"]
    back = ["edit", "--run", finished, "--seed", 7, "--set", "object:bedroom=+1@2-5", *back]
    assert higan(*back, "--condition", "warm_colours", "--out", tmp_path / "c.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "c.png"))


def test_scores_are_reached_or_refused(higan, finished, tmp_path):
    line = ["edit", "--run", finished, "--seed", 7, "--out", tmp_path / "x.png", "--set"]
    code, printed = higan(*line, "indoor_lighting=>0.7")
    assert code == 0, printed
    code, printed = higan(*line, "indoor_lighting=>70")
    assert code == 2
    assert "cannot reach 70" in printed
    assert "ask for less, choose other layers, or start from another sample" in printed


@pytest.mark.parametrize(
    ("words", "columns", "rows"),
    [
        (["--set", "indoor_lighting=+1s", "--sweep", "-3:3:7"], 7, 1),
        (["--set", "indoor_lighting=+1", "--set", "view_yaw=+2@0-1", "--joint", "--seed", "8"], 4, 2),
        (["--set", "indoor_lighting=+1", "--grid"], 8, 2),
    ],
)
def test_strips_become_sheets(higan, finished, tmp_path, words, columns, rows):
    code, printed = higan("edit", "--run", finished, "--seed", 7, *words, "--out", tmp_path / "strip.png")
    assert code == 0, printed
    sheet = pixels(tmp_path / "strip.png")
    assert columns * 128 < sheet.shape[1] < columns * 134 + 80
    assert rows * 128 < sheet.shape[0] < rows * 200
    # The original is among them, enlarged twice.
    original = drawn(7)[0].repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (128, 1, 3))[6, :, 0]
    assert (windows[:, :, 0] == original[:, 0]).all((1, 2)).any()


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4", "html"])
def test_movement(higan, finished, tmp_path, ending):
    path = tmp_path / f"light.{ending}"
    line = ["edit", "--run", finished, "--seed", 7, "--set", "indoor_lighting=+1", "--sweep", "-2:2:5", "--out", path]
    if ending == "mp4":
        av = pytest.importorskip("av")
    code, printed = higan(*line)
    assert code == 0, printed
    if ending == "html":
        text = path.read_text()
        assert "<h1>indoor lighting +1 steps</h1>" in text
        labels = json.loads(re.search(r"const strip=(\{.*?\}),at=", text, re.DOTALL)[1])["labels"]
        assert labels[2] == "0"
        assert re.fullmatch(r"−2 · indoor lighting [+−]\d\.\d σ", labels[0])
    elif ending == "mp4":
        with av.open(str(path)) as movie:
            frames = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
        assert len(frames) == 8  # there and back
        assert frames[0].shape == (256, 256, 3)
        middle = drawn(7)[0].repeat(4, 0).repeat(4, 1).astype(int)
        assert np.abs(frames[2].astype(int) - middle).mean() < 8
    else:
        with Image.open(path) as movie:
            assert movie.n_frames == 8
            assert movie.size == (256, 256)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "indor=+1"], "unknown concept 'indor'"),
        (["--set", "indoor_lighting=+1", "--set", "indoor_lighting=-1"], "edited 2 times"),
        (["--set", "indoor_lighting=+1@8-12"], "layers go from 0 to 9"),
        (["--set", "layout:indoor_lighting=+1"], "is of level attribute, not layout"),
        (["--set", "indoor_lighting=+1", "--condition", "indoor_lighting"], "cannot be edited and left alone"),
        (["--set", "indoor_lighting=+1", "--sweep", "1:2"], "first:last:number"),
        (["--set", "indoor_lighting=+1", "--sweep", "0:1:3", "--grid"], "choose one of"),
        (["--set", "indoor_lighting=+1", "--set", "bedroom=+1", "--grid"], "--grid shows one edit"),
        (["--set", "indoor_lighting=+1", "--joint"], "two or more; got 1"),
        (["--donor-codes", "x.npy"], "--donor-codes goes with --from"),
        (["--from", "OUT"], "OUT"),
        (["--set", "indoor_lighting=+1", "--out", "x.jpg"], "must end in .png or .gif or .webp or .mp4 or .html"),
        (["--set", "indoor_lighting=+1", "--out", "x.PNG"], "in lower case; got x.PNG"),
        (["--from", "OUT", "--out", "x"], "must end in .png, in lower case; got x"),
        (["--seed", "1", "--seeds", "2-3"], "name samples by --seed or by --seeds, not by both"),
        (["--seeds", "3-1"], "seeds run upwards"),
        (["--seeds", "1", "--codes", "x.npy"], "start from --seed or --seeds, or from --codes"),
        (["--seeds", "1", "--from", "OUT"], "--from repeats a picture as it is"),
        (["--from", "OUT", "--out", "x.gif"], "must end in .png, in lower case; got x.gif"),
        (["--set", "indoor_lighting=+1", "--seed", "-1"], "0 to 4294967295; got -1"),
        (["--set", "indoor_lighting=+1", "--seed", "4294967296"], "0 to 4294967295; got 4294967296"),
    ],
)
def test_bad_edits_are_one_clear_line(higan, finished, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, printed = higan("edit", "--run", finished, "--out", "x.png", *words)
    assert status in (1, 2)
    assert message in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


# ---- a folder of pictures -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "run"
    line = ("sample", "--generator", "rooms-32-s0", "--scorer", "rooms", "--num", 200, "--out", folder)
    assert call(*line) == 0
    assert call("fit", folder, "--permuted", 0, "--concept", "indoor_lighting", "--concept", "wood") == 0
    assert call("rescore", folder, "--verify", 6, "--random", 3) == 0
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def score_of(path):
    """Of a picture, scored again."""
    scorer = load_scorer("rooms")
    scores = population.score(scorer, torch.from_numpy(pixels(path)).permute(2, 0, 1)[None])[0].tolist()
    return dict(zip((concept.name for concept in scorer.concepts), scores, strict=True))


@pytest.fixture(scope="module")
def many(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("many") / "many"
    words = ("--set", "indoor_lighting=+1s", "--set", "wood=-1@2-3")
    assert call("edit", "--run", small, "--seeds", "7,2-3", *words, "--out", out) == 0
    return out, words


def test_a_folder_holds_what_single_lines_give(higan, small, many, tmp_path):
    out, words = many
    names = [f"{version}/seed-000{k}.png" for version in ("edited", "original") for k in (2, 3, 7)]
    assert sorted(contents(out)) == [*names, "scores.csv"]
    assert higan("edit", "--run", small, "--seed", 3, *words, "--out", tmp_path / "one.png")[0] == 0
    assert (tmp_path / "one.png").read_bytes() == (out / "edited" / "seed-0003.png").read_bytes()
    assert higan("draw", "--generator", "rooms-32-s0", "--seeds", 3, "--out", tmp_path / "drawn.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "drawn.png"), pixels(out / "original" / "seed-0003.png"))
    for version in ("edited", "original"):
        picture = out / version / "seed-0007.png"
        code, printed = higan("edit", "--run", small, "--from", picture, "--out", tmp_path / "again.png")
        assert code == 0, printed
        assert (tmp_path / "again.png").read_bytes() == picture.read_bytes()


def test_the_table_of_a_folder_is_what_its_pictures_score(many):
    out, _ = many
    rows = table(out)
    assert [(row["name"], row["seed"]) for row in rows] == [(f"seed-000{k}.png", str(k)) for k in (7, 2, 3)]
    names = [concept.name for concept in load_scorer("rooms").concepts]
    assert [*rows[0]] == ["name", "seed", *(f"{name} {when}" for name in names for when in ("before", "after"))]
    for row in rows:
        for when, version in (("before", "original"), ("after", "edited")):
            again = score_of(out / version / row["name"])
            assert {name: float(row[f"{name} {when}"]) for name in names} == pytest.approx(again, rel=1e-8)
    assert sum(float(row["indoor_lighting after"]) > float(row["indoor_lighting before"]) for row in rows) >= 2


def test_an_interrupted_folder_goes_on_with_what_is_missing(higan, small, many, tmp_path, monkeypatch):
    out, words = many
    line, saved = ("edit", "--run", small, "--seeds", "7,2-3", *words, "--out", tmp_path / "again"), []

    def interrupted(path, *what):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, *what)

    save = folder_file.save_picture
    monkeypatch.setattr(folder_file, "save_picture", interrupted)
    code, printed = higan(*line)
    assert code == 130
    assert "The same command goes on where it stopped." in printed
    names = ["edited/seed-0002.png", "edited/seed-0007.png", "original/seed-0007.png"]
    assert sorted(contents(tmp_path / "again")) == names
    monkeypatch.setattr(folder_file, "save_picture", lambda path, *what: saved.append(path) or save(path, *what))
    code, printed = higan(*line)
    assert code == 0, printed
    assert len(saved) == 6
    assert contents(tmp_path / "again") == contents(out)
    # More samples join those that are there.
    code, printed = higan(*line[:4], "2-4,7", *line[5:])
    assert code == 0, printed
    assert [str(path.relative_to(tmp_path / "again")) for path in saved[6:]] == [
        "edited/seed-0004.png", "original/seed-0004.png"
    ]  # fmt: skip
    joined = contents(tmp_path / "again")
    assert {name: joined[name] for name in contents(out) if name != "scores.csv"}.items() <= contents(out).items()
    assert len(table(tmp_path / "again")) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--seeds", "2-3", "--set", "indoor_lighting=+1s", "--set", "wood=-1@2-3"],
            "is none of the pictures asked for",
        ),
        (["--seeds", "2-3,7"], "is none of the pictures asked for"),
        (["--seeds", "2-3,7", "--set", "indoor_lighting=+1s"], "by other edits or with other models"),
        (["--seeds", "2-3,7", "--set", "indoor_lighting=+1s", "--set", "wood=-1@2"], "by other edits or with"),
        (["--seeds", "2-3,7", "--set", "wood=+1", "--sweep", "-1:1:3"], "leave it out, or write a file, as"),
        (["--seeds", "2-3,7", "--set", "wood=+1", "--grid"], "--grid shows pictures side by side or in turn"),
        (["--seeds", "2-3,7", "--set", "wood=+1", "--set", "indoor_lighting=+1", "--joint"], "--joint shows pictures"),
        (["--seeds", "2-3,7", "--set", "nope=+1"], "unknown concept 'nope'"),
        (["--seeds", "2-3,7", "--condition", "wood"], "give at least one edit with --set"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(higan, small, many, words, message):
    out, _ = many
    before = contents(out)
    code, printed = higan("edit", "--run", small, *words, "--out", out)
    assert code == 2
    assert message in printed
    assert contents(out) == before


def test_a_folder_is_refused_where_there_is_a_file_or_a_picture_of_others(higan, small, tmp_path):
    line = ("edit", "--run", small, "--seeds", "2-3", "--set", "wood=+1@2", "--out")
    (tmp_path / "file").write_text("")
    for out, said in ((tmp_path / "file", "--out is a folder"), (tmp_path / "file" / "x", "is a file, no folder")):
        code, printed = higan(*line, out)
        assert (code, said in printed) == (2, True), printed
        code, printed = higan("draw", *ROOMS, "--out", out)
        assert (code, said in printed) == (2, True), printed
    picture = tmp_path / "many" / "edited" / "seed-0003.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(picture)
    code, printed = higan(*line, tmp_path / "many")
    assert (code, "carries no recipe" in printed) == (1, True), printed
    assert [*contents(tmp_path / "many")] == ["edited/seed-0003.png"]


def test_a_folder_with_other_things_in_it_is_left_alone(higan, small, tmp_path):
    """A run's folder, a table of somebody's own; what the system hides in folders does not count."""
    line = ("edit", "--run", small, "--seeds", "2", "--set", "wood=+1@2", "--out")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "scores.csv").write_text("mine")
    for folder, other in ((small, "boundaries.safetensors"), (tmp_path / "own", "scores.csv")):
        before = contents(folder)
        code, printed = higan(*line, folder)
        assert (code, f"holds {other}, which is no part of a folder of edits" in printed) == (2, True), printed
        assert contents(folder) == before
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    code, printed = higan(*line, tmp_path / "hidden")
    assert code == 0, printed


def test_a_folder_of_codes_numbers_them(higan, small, tmp_path):
    codes = population.sample(load_generator("rooms-32-s0"), [5, 9])
    save_codes(tmp_path / "codes.safetensors", codes)
    out = tmp_path / "with.ending"
    out.mkdir()
    line = ("edit", "--run", small, "--codes", tmp_path / "codes.safetensors", "--out")
    code, printed = higan(*line, out, "--set", "wood=+2@4")
    assert code == 0, printed
    assert [(row["name"], row["seed"]) for row in table(out)] == [("code-0000.png", ""), ("code-0001.png", "")]
    code, printed = higan("edit", "--run", small, "--seed", 9, "--set", "wood=+2@4", "--out", tmp_path / "one.png")
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(out / "edited" / "code-0001.png"))
    code, printed = higan(*line, tmp_path / "b.png", "--from", out / "edited" / "code-0001.png")
    assert code == 0, printed
    assert (tmp_path / "b.png").read_bytes() == (out / "edited" / "code-0001.png").read_bytes()


def test_samples_out_of_reach_are_left_out_of_a_folder_and_named(higan, small, tmp_path):
    line = ("edit", "--run", small, "--seeds", "0-3", "--out")
    assert higan(*line, tmp_path / "plain")[0] == 0
    rows = table(tmp_path / "plain")
    # Without edits there is one version of every sample.
    assert sorted(contents(tmp_path / "plain")) == [*(f"original/seed-000{k}.png" for k in range(4)), "scores.csv"]
    assert not [column for column in rows[0] if column.endswith(" after")]
    best = max(rows, key=lambda row: float(row["indoor_lighting before"]))
    # The first layer hardly lights a room: where the best one is already, the others do not get.
    target = f"indoor_lighting=>{float(best['indoor_lighting before']) - 0.001}@0"
    code, printed = higan(*line, tmp_path / "far", "--set", target)
    assert code == 0, printed
    missing = [row["name"] for row in rows if row is not best]
    assert f"Left out: {', '.join(name.removesuffix('.png') for name in missing)}. The first:" in printed
    assert "cannot reach" in printed
    assert "1 samples in" in printed
    assert [row["name"] for row in table(tmp_path / "far")] == [best["name"]]
    assert sorted(contents(tmp_path / "far")) == [f"edited/{best['name']}", f"original/{best['name']}", "scores.csv"]
    # What is there is kept, also where a score was sought; of nothing at all no folder is made.
    assert higan(*line, tmp_path / "far", "--set", target)[0] == 0
    code, printed = higan(*line, tmp_path / "further", "--set", "indoor_lighting=>70")
    assert (code, "cannot reach 70" in printed) == (2, True)
    assert not (tmp_path / "further").exists()


def test_a_score_is_reached_in_a_folder_as_alone(higan, small, tmp_path):
    line = ("edit", "--run", small, "--set", "indoor_lighting=>0.6", "--condition", "wood")
    assert higan(*line, "--seeds", "2-3", "--out", tmp_path / "many")[0] == 0
    assert all(float(row["indoor_lighting after"]) >= 0.6 for row in table(tmp_path / "many"))
    assert higan(*line, "--seed", 3, "--out", tmp_path / "one.png")[0] == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "many" / "edited" / "seed-0003.png").read_bytes()


# ---- photographs ----------------------------------------------------------------------------------------------------


def test_photographs_are_turned_upright_and_inverted(photographs):
    codes = load_codes(photographs / "codes.safetensors")
    assert codes.shape == (2, 10, 128)
    sheet = pixels(photographs / "codes-inverted.png").astype(float)
    upright = sample_rooms([20_000_000], 64).images[0].permute(1, 2, 0).numpy().astype(float)
    # The photograph stands at the left of the sheet's first row, upright.
    places = [sheet[6 : 6 + 128 : 2, x : x + 128 : 2] for x in range(60, 130)]
    best = min(np.abs(place - upright).mean() for place in places if place.shape == upright.shape)
    assert best < 12


def test_an_interrupted_inversion_goes_on_with_what_is_finished(higan, photographs, tmp_path, monkeypatch):
    pictures = [photographs / "sideways.jpg", photographs / "glass.png"]
    line = ["invert", *pictures, *ROOMS, "--steps", 8, "--out"]
    monkeypatch.setattr(invert_verb, "pictures_at_once", lambda generator: 1)  # two calls, to be stopped between
    assert higan(*line, tmp_path / "at once.safetensors")[0] == 0
    inverted = []

    def interrupted(generator, pictures, **how):
        if len(inverted) == 1:
            raise KeyboardInterrupt
        inverted.append(invert(generator, pictures, **how))
        return inverted[-1]

    monkeypatch.setattr(invert_verb, "invert", interrupted)
    out, kept = tmp_path / "codes.safetensors", tmp_path / "codes.safetensors-unfinished"
    code, printed = higan(*line, out)
    assert (code, out.exists(), len([*kept.iterdir()])) == (130, False, 1)
    assert "The same command goes on where it stopped." in printed

    def counted(generator, pictures, **how):
        inverted.append(invert(generator, pictures, **how))
        return inverted[-1]

    monkeypatch.setattr(invert_verb, "invert", counted)
    # What is sought with other settings is something else, and leaves alone what is kept.
    assert higan("invert", pictures[0], *ROOMS, "--steps", 9, "--out", out)[0] == 0
    assert (len(inverted), len([*kept.iterdir()])) == (2, 1)
    assert higan(*line, out)[0] == 0
    assert len(inverted) == 3
    assert torch.equal(load_codes(out), load_codes(tmp_path / "at once.safetensors"))
    assert not kept.exists()


def test_an_inversion_begun_with_other_weights_of_a_joined_scorer_is_not_gone_on_with(
    higan, photographs, tmp_path, monkeypatch
):
    pictures = [photographs / "sideways.jpg", photographs / "glass.png"]
    out, inverted, stops = tmp_path / "codes.safetensors", [], [1]

    def noted(generator, pictures, **how):
        if len(inverted) in stops:
            raise KeyboardInterrupt
        inverted.append(invert(generator, pictures, **how))
        return inverted[-1]

    line = ["invert", *pictures, *ROOMS, "--scorer", "rooms+nulls", "--steps", 2, "--out", out]
    monkeypatch.setattr(invert_verb, "pictures_at_once", lambda generator: 1)  # two calls, to be stopped between
    monkeypatch.setattr(invert_verb, "invert", noted)
    code, printed = higan(*line)
    assert code == 130, printed
    stops.clear()
    assert "scorer rooms" in digests_of("rooms", "rooms+nulls")
    monkeypatch.setattr(invert_verb, "digests_of", lambda *names: digests_of(*names) | {"scorer rooms": "of others"})
    assert higan(*line)[0] == 0
    assert len(inverted) == 3  # the first one twice


def test_a_photograph_is_never_written_over(higan, photographs, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes((photographs / "glass.png").read_bytes())
    before = photo.read_bytes()
    code, printed = higan("invert", photo, "--steps", 2, "--out", tmp_path / "photo.safetensors")
    assert code == 0, printed
    assert photo.read_bytes() == before
    assert "photo-inverted.png" in printed
    # Nor under the names that are written, whatever way they are spelt.
    sheet = photo.rename(tmp_path / "photo-inverted.png")
    sheet.write_bytes(before)
    (tmp_path / "link.jpg").symlink_to(sheet)
    (tmp_path / "strange.npy").write_bytes(before)
    for name, out in (("photo-inverted.png", "photo.npy"), ("link.jpg", "photo.npy"), ("strange.npy", "strange.npy")):
        code, printed = higan("invert", tmp_path / name, "--steps", 2, "--out", tmp_path / "." / out)
        assert code == 2
        assert "is one of the photographs and would be overwritten; give --out another name" in printed
    assert sheet.read_bytes() == (tmp_path / "strange.npy").read_bytes() == before
    assert not (tmp_path / "photo.npy").exists()


def test_codes_are_those_of_the_generator_that_they_were_found_with(higan, finished, photographs, tmp_path):
    """A sibling has codes of the same width; another truncation draws other pictures of the same codes."""
    strange = tmp_path / "not yet there" / "strange.safetensors"
    weights = Path(higan_package.__file__).parent / "generators" / "weights" / "rooms.safetensors"
    other = tmp_path / "other.safetensors"
    RoomsGenerator.load(weights, truncation=0.5).save(other)
    code, printed = higan("invert", photographs / "glass.png", "--generator", other, "--steps", 2, "--out", strange)
    assert code == 0, printed
    lines = [
        ("edit", "--run", finished, "--codes", strange, "--out", tmp_path / "x.png"),
        ("mix", *ROOMS, "--codes", strange, "--donor", 5, "--out", tmp_path / "x.png"),
        ("transition", "bedroom", "living_room", "--run", finished, "--codes", strange, "--out", tmp_path / "t"),
    ]
    for line in lines:
        code, printed = higan(*line)
        assert code == 1, printed
        assert "a generator of other weights than 'rooms' here" in printed
    # The same weights, opened in another way.
    codes, about = load_codes(strange), about_codes(strange)
    save_codes(strange, codes, about | {"weights": weights_digest("rooms")})
    for line in lines:
        code, printed = higan(*line)
        assert code == 1, printed
        assert "was found under truncation [0.5" in printed


def test_transitions_see_through_the_eyes_of_the_run(higan, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["provenance"]["segmenter"] = "rooms"
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))

    def never(*_):
        raise AssertionError("the run has a segmenter of its own")

    monkeypatch.setattr("higan.cli.transition.load_segmenter", never)
    line = ["transition", "bedroom", "living_room", "--run", tmp_path / "run", "--num", 2, "--strength", 3]
    code, printed = higan(*line, "--layers", "2-7", "--out", tmp_path / "t")
    assert code == 0, printed
    with pytest.raises(AssertionError, match="of its own"):
        higan(*line, "--segmenter", "rooms-128", "--out", tmp_path / "u")


def test_verbs_take_inverted_codes(higan, finished, photographs, tmp_path):
    codes = photographs / "codes.safetensors"
    code, printed = higan("edit", "--run", finished, "--codes", codes, "--set", "indoor_lighting=+1", "--out",
                          tmp_path / "both.png")  # fmt: skip
    assert code == 0, printed
    assert "4 pictures" in printed
    code, printed = higan("mix", *ROOMS, "--codes", codes, "--donor", 5, "--out", tmp_path / "mixed.png")
    assert code == 0, printed
    code, printed = higan("transition", "bedroom", "living_room", "--run", finished, "--codes", codes, "--strength", 4,
                          "--out", tmp_path / "t")  # fmt: skip
    assert code == 0, printed
    assert printed.startswith("Transition …")
    assert json.loads((tmp_path / "t" / "transition.json").read_text())["seeds"] == [0, 1]


def test_a_palette_from_a_photograph_is_repeated(higan, finished, photographs, tmp_path):
    one = tmp_path / "one.npy"
    np.save(one, load_codes(photographs / "codes.safetensors")[:1].numpy())
    code, printed = higan(
        "mix", *ROOMS, "--seed", 3, "--donor-codes", one, "--layers", "top", "--out", tmp_path / "p.png"
    )
    assert code == 0, printed
    assert read_recipe(tmp_path / "p.png").loans[0].layers == (8, 9)
    again = ["edit", "--run", finished, "--from", tmp_path / "p.png", "--out", tmp_path / "q.png"]
    code, printed = higan(*again)
    assert code == 2
    assert "lent by a code that is not among the donors" in printed
    assert higan(*again, "--donor-codes", one)[0] == 0
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["invert", "nowhere.png", "--out", "x.npy"], "nowhere.png"),
        (["invert", "notes.txt", "--out", "x.npy"], "notes.txt is not a picture"),
        (["invert", ".", "--out", "x.npy"], "is a folder; name the pictures in it"),
        (["invert", "notes.txt", "--out", "x.npy", "--steps", "-3"], "must be 0 or more, and finite; got -3 and 0.005"),
        (["invert", "notes.txt", "--out", "x.png"], "must end in .safetensors or .npy"),
        (["mix", "--seed", "1", "--out", "x.png"], "give --donor or --donor-codes"),
        (["mix", "--seed", "1", "--donor", "2", "--layers", "12", "--out", "x.png"], "layers go from 0 to 11"),
        (["mix", "--seed", "-1", "--donor", "2", "--out", "x.png"], "0 to 4294967295; got -1"),
        (["mix", "--seed", "1", "--donor", "5000000000", "--out", "x.png"], "0 to 4294967295; got 5000000000"),
    ],
)
def test_bad_pictures_are_one_clear_line(higan, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    status, printed = higan(*words)
    assert status in (1, 2)
    assert message in printed
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ---- the other verbs ------------------------------------------------------------------------------------------------


def test_mixing_no_layers_is_not_mixing_the_last_ones(higan, tmp_path):
    code, printed = higan("mix", *ROOMS, "--seed", 1, "--donor", 5, "--layers", "", "--out", tmp_path / "x.png")
    assert (code, "layers are written as 0,3-5" in printed, [*tmp_path.iterdir()]) == (2, True, [])


def test_mixing_one_and_many(higan, finished, tmp_path):
    assert higan("mix", *ROOMS, "--seed", 1, "--donor", 5, "--layers", "0-9", "--out", tmp_path / "all.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "all.png"), drawn(5)[0])
    line = ["mix", *ROOMS, "--seed", 1, "--seed", 2, "--donor", 5, "--donor", 6, "--donor", 7]
    assert higan(*line, "--out", tmp_path / "grid.png")[0] == 0
    assert pixels(tmp_path / "grid.png").shape[1] == 6 + 4 * 134
    assert higan("edit", "--run", finished, "--from", tmp_path / "all.png", "--out", tmp_path / "same.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "all.png"), pixels(tmp_path / "same.png"))


def wide_tables(page):
    """Tables that would push a phone's page aside, because nothing around them scrolls, by fingers and by keys."""
    return len(re.findall(r"<table", page)) - len(re.findall(r'<div class="scroll" tabindex="0"[^>]*><table', page))


def test_transition_draws_and_counts(higan, finished, tmp_path):
    line = ["transition", "bedroom", "living_room", "--run", finished, "--num", 4, "--strength", 3, "--layers", "2-7"]
    code, printed = higan(*line, "--out", tmp_path / "t")
    assert code == 0, printed
    assert re.search(r"bedroom → living_room: \d+% of stuff", printed)
    page = (tmp_path / "t" / "transition.html").read_text()
    assert page.count("<svg") == 1
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "What stayed in its class" in page
    assert wide_tables(page) == 0
    leg = json.loads((tmp_path / "t" / "transition.json").read_text())["legs"][0]
    assert leg["layers"] == [2, 3, 4, 5, 6, 7]
    assert sum(flow["pixels"] for flow in leg["flows"]) == pytest.approx(64 * 64)
    assert all(row["low"] <= row["share"] <= row["high"] for row in leg["kept"])
    code, printed = higan(*line[:1], "bedroom", "bedroom", *line[3:], "--out", tmp_path / "u")
    assert code == 2
    assert "two or more different categories" in printed
    assert not (tmp_path / "u").exists()


def test_transitions_are_refused_before_the_work(higan, finished, tmp_path):
    """Of a folder that is a file, of a number beside codes, and without a segmenter of the generator's own world."""
    (tmp_path / "t").write_text("a file")
    line = ["transition", "bedroom", "living_room", "--run", finished]
    code, printed = higan(*line, "--out", tmp_path / "t")
    assert (code, "--out is a folder" in printed) == (2, True)
    code, printed = higan(*line, "--codes", tmp_path / "x.npy", "--num", 3, "--out", tmp_path / "u")
    assert (code, "--codes brings its own" in printed) == (2, True)
    code, printed = higan(*line, "--num", 0, "--out", tmp_path / "u")
    assert (code, "num and candidates must be at least 1; got 0" in printed) == (2, True)
    toy = tmp_path / "toy"
    assert higan("run", "--generator", "toy", "--scorer", "toy", "--num", 60, "--verify", 4, "--out", toy)[0] == 0
    code, printed = higan("transition", "planted 0", "planted 1", "--run", toy, "--out", tmp_path / "v")
    assert (code, "this run has no segmenter to count objects with" in printed) == (2, True)
    line = ["transition", "planted 0", "planted 1", "--run", toy, "--num", 2, "--layers", 0, "--strength", 2]
    code, printed = higan(*line, "--segmenter", "rooms", "--out", tmp_path / "v")
    assert code == 0, printed
    assert json.loads((tmp_path / "v" / "transition.json").read_text())["segmenter"] == "rooms"
    assert "in the eyes of the segmenter rooms" in (tmp_path / "v" / "transition.html").read_text()


def test_a_replication_measures_side_effects_and_transitions_on_samples_of_its_own(higan, tmp_path, monkeypatch):
    run, seeds = tmp_path / "run", []
    line = ["--generator", "toy", "--scorer", "toy", "--num", 300, "--verify", 6, "--random", 3, "--permuted", 0]
    assert higan("run", *line, "--seed", 3, "--out", run)[0] == 0
    line = ["planted 0", "planted 1", "--run", run, "--num", 2, "--layers", 0, "--strength", 2, "--segmenter", "rooms"]
    assert higan("transition", *line, "--out", tmp_path / "t")[0] == 0
    seeds += json.loads((tmp_path / "t" / "transition.json").read_text())["seeds"]
    real = effects_module.sample_seeds
    monkeypatch.setattr(
        effects_module, "sample_seeds", lambda *a, **k: seeds.extend((found := real(*a, **k)).tolist()) or found
    )
    line = ["--run", run, "--num", 4, "--concept", "planted 1", "--out", tmp_path / "s.html"]
    assert higan("side-effects", *line)[0] == 0
    assert len(seeds) > 2 + 4
    assert {seed >> 24 for seed in seeds} == {(2**31 >> 24) + 3}  # see `sample_seeds`


def test_side_effects_before_and_after(higan, finished, tmp_path):
    line = ["side-effects", "--run", finished, "--num", 6, "--concept", "indoor_lighting", "--concept", "warm_colours"]
    code, printed = higan(*line, "--out", tmp_path / "s.html")
    assert code == 0, printed
    page = (tmp_path / "s.html").read_text()
    assert page.count("<svg") == 2
    assert "Others projected out" in page
    assert wide_tables(page) == 0
    code, printed = higan(*line, "--concept", "nope", "--out", tmp_path / "n.html")
    assert code == 2
    assert "unknown concept 'nope'" in printed


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run of the toy, whose last concept nothing raises."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    assert call("sample", "--generator", "toy", "--scorer", "toy", "--num", 300, "--out", folder) == 0
    assert call("fit", folder, "--permuted", 0) == 0
    assert call("rescore", folder, "--verify", 6, "--random", 3) == 0
    return folder


def test_sigma_is_that_of_the_samples_of_the_run(higan, planted, tmp_path, monkeypatch):
    """Not of the few that side effects and directions are measured on, re-scored or not."""
    told = []
    used = ((effects_verb, "matched"), (effects_verb, "measure_effects"), (discover_verb, "discover"))
    for verb, name in used:
        real = getattr(verb, name)
        monkeypatch.setattr(verb, name, lambda *a, real=real, **k: told.append(k["std"]) or real(*a, **k))
    line = ("side-effects", "--run", planted, "--num", 4, "--concept", "planted 1", "--out", tmp_path / "s.html")
    assert higan(*line)[0] == 0
    sampled = tmp_path / "sampled"
    assert higan("sample", "--generator", "toy", "--scorer", "toy", "--num", 300, "--out", sampled)[0] == 0
    for run in (planted, sampled):
        assert higan("discover", "--run", run, "--method", "pca", "--per-stage", 1, "--num", 4)[0] == 0
    expected = store.read_population(store.load_run(planted)).scores.double().std(0).float()
    assert len(told) == 6
    for std in told:
        torch.testing.assert_close(std, expected)


@pytest.mark.parametrize("kept", ["found.safetensors", "found"])
def test_directions_are_edited_along_once_they_are_found(higan, planted, tmp_path, kept):
    out, line = tmp_path / kept, ("edit", "--run", planted, "--seed", 3, "--directions", tmp_path / kept)
    assert higan("discover", "--run", planted, "--method", "pca", "--per-stage", 1, "--num", 8, "--out", out)[0] == 0
    directions, advice = load_directions(out)
    direction = directions[0]
    name = direction.concept.name
    code, printed = higan(*line, "--set", f"{name}=+1.5", "--set", "planted 1=-1@1", "--out", tmp_path / "a.png")
    assert code == 0, printed
    assert f"{name}: +1.5 steps at layers {format_layers(advice[name])}" in printed
    generator = load_generator("toy")
    codes = population.sample(generator, [3])
    codes[:, list(advice[name])] += 1.5 * direction.normal.expand(codes.shape[1:])[list(advice[name])]
    (planted_1,) = [b for b in store.load_boundaries(store.load_run(planted)) if b.concept.name == "planted 1"]
    codes[:, 1] -= planted_1.normal.expand(codes.shape[1:])[1]
    expected = population.render(generator, codes)[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels(tmp_path / "a.png").astype(int) - expected).max() <= 1
    # A recipe is repeated with the directions that it was made with, and a strip tells what scores there are.
    assert higan(*line, "--from", tmp_path / "a.png", "--out", tmp_path / "b.png")[0] == 2
    line = ("edit", "--run", planted, "--directions", tmp_path / kept)
    code, printed = higan(*line, "--from", tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert code == 0, printed
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    code, printed = higan(*line, "--set", f"{name}=+1", "--sweep", "-1:1:3", "--out", tmp_path / "s.png")
    assert code == 0, printed
    code, printed = higan(*line, "--set", f"{name}=+1s", "--out", tmp_path / "s.png")
    assert (code, f"has no concept {name!r}; give steps, as in '{name}=+2'" in printed) == (2, True)
    code, printed = higan(*line, *line[3:], "--set", f"{name}=+1", "--out", tmp_path / "s.png")
    assert (code, "directions need names that are not taken; give other names to pca" in printed) == (2, True)


def test_a_published_direction_needs_layers_where_nothing_advises_them(higan, planted, tmp_path):
    np.save(tmp_path / "smile_boundary.npy", np.ones((1, 16)) / 4)
    line = ("edit", "--run", planted, "--directions", tmp_path / "smile_boundary.npy", "--out", tmp_path / "x.png")
    code, printed = higan(*line, "--set", "smile=+1")
    assert (code, "nothing says at which layers 'smile' belongs; give them, as in @0-3" in printed) == (2, True)
    code, printed = higan(*line, "--set", "smile=+1@0-1")
    assert code == 0, printed
    np.save(tmp_path / "wide_boundary.npy", np.ones((1, 17)))
    code, printed = higan("edit", "--run", planted, "--directions", tmp_path, "--set", "wide=+1", "--out", "x.png")
    assert (code, "'wide' has shape (17,); directions of 'toy' have (16,) or (6, 16)" in printed) == (2, True)


def test_samples_without_edits_become_a_sheet(higan, finished, tmp_path):
    seeds = [word for seed in range(9) for word in ("--seed", seed)]
    code, printed = higan("edit", "--run", finished, *seeds, "--out", tmp_path / "sheet.png")
    assert code == 0, printed
    assert "9 pictures in" in printed
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape[1] == 6 + 8 * 134
    assert 2 * 128 < sheet.shape[0] < 2 * 160
    assert np.array_equal(sheet[6:134:2, 6:134:2], drawn(0)[0])


def test_samples_are_drawn_without_a_run(higan, tmp_path):
    line = ["draw", *ROOMS, "--seeds"]
    code, printed = higan(*line, "7,3-10", "--out", tmp_path / "new" / "sheet.png")
    assert code == 0, printed
    sheet = pixels(tmp_path / "new" / "sheet.png")
    assert sheet.shape[1] == 6 + 8 * 134
    assert np.array_equal(sheet[6:134:2, 6:134:2], drawn(7)[0])
    assert higan(*line, "3,12", "--out", tmp_path / "each")[0] == 0
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == ["seed-0003.png", "seed-0012.png"]
    assert np.array_equal(pixels(tmp_path / "each" / "seed-0012.png"), drawn(12)[0])
    assert read_recipe(tmp_path / "each" / "seed-0012.png").seed == 12
    assert higan(*line, "12", "--out", tmp_path / "one.png")[0] == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "each" / "seed-0012.png").read_bytes()
    assert higan(*line, "1,2", "--frames", 3, "--out", tmp_path / "walk.webp")[0] == 0
    with Image.open(tmp_path / "walk.webp") as film:
        assert film.n_frames == 6
        for frame, seed in ((0, 1), (3, 2)):
            film.seek(frame)
            assert np.array_equal(np.asarray(film.convert("RGB"))[::4, ::4], drawn(seed)[0])
    for words, said in (
        (["5-3", "--out", "x.png"], "seeds run upwards, at most 10,000 of them at a time; got 5-3"),
        (["1;2", "--out", "x.png"], "seeds are written as 0-15 or 3,7,20-29; cannot read '1;2'"),
        (["4294967296", "--out", "x.png"], "a sample's seed is a whole number of 0 to 4294967295"),
        (["1", "--out", "x.gif"], "name two seeds or more"),
        (["1", "--out", "x.tiff"], "--out must end in .png or .gif or .webp or .mp4"),
    ):
        code, printed = higan(*line, *words)
        assert (code, said in printed) == (2, True), printed


def test_samples_of_another_generator_are_not_drawn_over(higan, tmp_path):
    out = tmp_path / "each"
    assert higan("draw", *ROOMS, "--seeds", "3-4", "--out", out)[0] == 0
    before = contents(out)
    assert higan("draw", *ROOMS, "--seeds", "4", "--out", out)[0] == 0
    assert contents(out) == before
    code, printed = higan("draw", "--generator", "rooms-32-s0", "--seeds", "2-3", "--out", out)
    assert (code, "seed-0003.png was drawn by another generator" in printed) == (2, True), printed
    Image.new("RGB", (32, 32)).save(out / "seed-0005.png")
    code, printed = higan("draw", *ROOMS, "--seeds", "5", "--out", out)
    assert (code, "carries no recipe" in printed) == (1, True), printed
    assert {name: contents(out)[name] for name in before} == before


def test_codes_that_all_layers_share_are_those_of_many_pictures(higan, finished, tmp_path):
    codes = population.sample(load_generator("rooms"), [1, 2, 3])
    np.save(tmp_path / "w.npy", codes[:, 0].numpy())
    line = ("edit", "--run", finished, "--out", tmp_path / "sheet.png")
    code, printed = higan(*line, "--codes", tmp_path / "w.npy")
    assert code == 0, printed
    assert "3 pictures in" in printed
    assert np.array_equal(pixels(tmp_path / "sheet.png")[6:134:2, 6:134:2], drawn(1)[0])
    np.save(tmp_path / "apart.npy", codes[:, :1].numpy())
    before = pixels(tmp_path / "sheet.png")
    code, printed = higan(*line, "--codes", tmp_path / "apart.npy")
    assert code == 0, printed
    assert np.array_equal(pixels(tmp_path / "sheet.png"), before)
    np.save(tmp_path / "narrow.npy", codes[:, 0, :5].numpy())
    code, printed = higan(*line, "--codes", tmp_path / "narrow.npy")
    assert (code, "codes of 'rooms' have shape (10, 128)" in printed) == (2, True)


def test_pictures_of_codes_that_all_layers_share_are_repeated(higan, finished, tmp_path):
    """Of files (n, D): a picture that starts from one of their codes, and one that has layers of it."""
    np.save(tmp_path / "w.npy", population.sample(load_generator("rooms"), [1, 2, 3])[:, 0].numpy())
    codes, again = ("--codes", tmp_path / "w.npy"), tmp_path / "again.png"
    assert higan("edit", "--run", finished, *codes, "--set", "bedroom=+2@1", "--out", tmp_path / "many")[0] == 0
    np.save(tmp_path / "one.npy", np.load(tmp_path / "w.npy")[1:2])
    donor = ("--donor-codes", tmp_path / "one.npy")
    assert higan("mix", *ROOMS, "--seed", 4, *donor, "--out", tmp_path / "mixed.png")[0] == 0
    for picture, files in (
        (tmp_path / "many" / "edited" / "code-0002.png", codes),
        (tmp_path / "mixed.png", ("--donor-codes", tmp_path / "w.npy")),
    ):
        code, printed = higan("edit", "--run", finished, "--from", picture, *files, "--out", again)
        assert code == 0, printed
        assert again.read_bytes() == picture.read_bytes()


def test_a_line_that_fails_leaves_no_folder(higan, finished, tmp_path):
    (tmp_path / "file").write_text("")
    for words, said in (
        (["edit", "--run", tmp_path / "nope", "--out", tmp_path / "a" / "b" / "x.png"], "nope"),
        (["invert", tmp_path / "nope.png", "--out", tmp_path / "c" / "x.npy"], "nope.png"),
        (["edit", "--run", finished, "--set", "nope=+1", "--out", tmp_path / "d" / "x.png"], "nope"),
        (["edit", "--run", finished, "--out", tmp_path / "file" / "x.png"], "is a file, no folder"),
    ):
        code, printed = higan(*words)
        assert code in (1, 2)
        assert said in printed
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_of_directions_holds_one_search(higan, planted, tmp_path):
    line = ("discover", "--run", planted, "--method", "pca", "--num", 4, "--out", tmp_path / "found")
    assert higan(*line, "--per-stage", 1)[0] == 0
    before = sorted(path.name for path in (tmp_path / "found").iterdir())
    code, printed = higan(*line, "--per-stage", 2)
    assert (code, "holds directions of an earlier search" in printed) == (2, True)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == before


def test_an_amount_with_a_condition_is_looked_for_as_far_as_one_without(higan, planted, tmp_path):
    """What is projected out of a boundary hardly changes it: nor do the steps that it takes."""
    line = ("edit", "--run", planted, "--set", "planted 1=+8s", "--out", tmp_path / "x.png")
    steps = []
    for condition in ((), ("--condition", "planted 3")):
        code, printed = higan(*line, *condition)
        assert code == 0, printed
        steps.append(float(re.search(r"planted 1: ([+-][\d.]+) steps", printed)[1]))
    assert steps[1] == pytest.approx(steps[0], rel=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--condition", "planted 3", "--out", "x.png"], "give at least one edit with --set"),
        (["--out", "x.gif"], "a strip or an animation shows edits"),
        (["--seed", 1, "--seed", 2, "--set", "planted 1=+1s", "--out", "x.gif"], ".gif shows one sample; got 2"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_the_work(higan, planted, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(edit_verb, "progress_bars", lambda **_: pytest.fail("the work has begun"))
    code, printed = higan("edit", "--run", planted, *words)
    assert code == 2
    assert message in printed


def test_only_signs_become_minus_signs():
    assert edit_verb._typeset("far-away 2\nlayers 0-5 -1.2 sd") == "far-away 2 · layers 0-5 \N{MINUS SIGN}1.2 σ"


def test_side_effects_leave_out_what_nothing_raises(higan, planted, tmp_path):
    line = ["side-effects", "--run", planted, "--num", 6, "--out", tmp_path / "s.html"]
    code, printed = higan(*line)
    assert code == 0, printed
    assert re.search(r"no layers raise them: (noise, )?constant", printed)
    assert re.search(r"Out of reach: [^<]*constant", (tmp_path / "s.html").read_text())
    (tmp_path / "s.html").unlink()
    for words, message in (
        (["--concept", "planted 0", "--concept", "constant"], "leave --concept 'constant' out"),
        (["--concept", "constant"], "no layers raise 'constant', so that there is no edit to measure"),
    ):
        code, printed = higan(*line, *words)
        assert code == 2
        assert message in printed
        assert "@" not in printed
    assert not (tmp_path / "s.html").exists()


@pytest.mark.parametrize("words", [["--num", 1], ["--target", 0], ["--target", "nan"], ["--target", "inf"]])
def test_side_effects_are_asked_for_properly(higan, tmp_path, words):
    code, printed = higan("side-effects", "--run", tmp_path / "not-looked-at", *words, "--out", tmp_path / "s.html")
    assert code == 2
    assert "--num takes 2 samples or more, --target a finite number of standard deviations above 0" in printed


@pytest.mark.parametrize("method", ["sefa", "pca"])
def test_discovery_names_and_saves(higan, finished, tmp_path, method):
    path = tmp_path / "found.safetensors"
    line = ["discover", "--run", finished, "--method", method, "--per-stage", 1, "--num", 6, "--out", path]
    code, printed = higan(*line)
    assert code == 0, printed
    assert "4 directions" in printed
    assert "[dim]" not in printed
    directions, layers = load_directions(path)
    assert [d.concept.name.split()[0] for d in directions] == [method] * 4
    assert list(layers.values()) == [(0, 1), (2, 3), (4, 5, 6, 7), (8, 9)]


def test_a_conditional_generator_is_told_its_class(higan, tmp_path):
    path, photo = tmp_path / "conditional.safetensors", tmp_path / "photo.png"
    save_generator(wrap(FAMILIES["stylegan conditional"](), "conditional"), path)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(photo)
    lines = [
        ("check-generator", path),
        ("mix", "--generator", path, "--seed", 1, "--donor", 2, "--layers", "0", "--out", tmp_path / "mixed.png"),
        ("invert", photo, "--generator", path, "--steps", 4, "--out", tmp_path / "codes.safetensors"),
    ]
    for line in lines:
        code, printed = higan(*line)
        assert code != 0
        assert "--label k on the command line" in printed
        code, printed = higan(*line, "--label", 1, "--generator-option", "noise=none")
        assert code == 0, printed
    first = pixels(tmp_path / "mixed.png")
    assert higan(*lines[1], "--label", 2)[0] == 0
    assert not np.array_equal(pixels(tmp_path / "mixed.png"), first)
    code, printed = higan("check-generator", "toy", "--label", 1)
    assert code == 2
    assert "toy has no classes" in printed
