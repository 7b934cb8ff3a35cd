"""Files of the official tool: the published ones load, ours are read back by NumPy, hostile ones are refused."""

import io
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from checkpoint_files import call, proto, text, write
from higan import store
from higan.checkpoints import npy, official
from higan.errors import CheckpointError, CorruptFileError, MissingWeightsError, UnknownFormatError, UnsafePickleError
from higan.scorers.callable import CallableScorer
from higan.types import Boundary, Concept, Population

SMALL = Path(__file__).parent / "data" / "directions"
ALL = Path(os.environ.get("HIGAN_BOUNDARIES", Path(__file__).parents[2] / "shared" / "data" / "higan_boundaries"))
PUBLISHED = sorted(ALL.glob("*/*.npy")) or sorted(SMALL.glob("*.npy"))


# ---- directions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_directions(path):
    direction = official.read_boundary(path)
    boundary = direction.boundary
    content = path.read_bytes()
    bare = b"'descr': '<f4'" in content[:128]
    assert direction.layers == (None if bare else "6-11")
    assert boundary.concept.level == "attribute"
    assert path.stem.endswith(f"{boundary.concept.name}_boundary")
    assert boundary.normal.shape == (512,)
    assert boundary.bias == 0
    assert math.isnan(boundary.holdout_accuracy)
    # Independent of any parser: the numbers lie in the file as one run of bytes.
    raw = content[-2048:] if bare else content[(at := content.index(b"B\0\x10\0\0") + 5) : at + 4096]
    expected = np.frombuffer(raw, "<f4" if bare else "<f8").astype(np.float64)
    assert np.allclose(boundary.normal.numpy(), expected / np.linalg.norm(expected), atol=1e-7)


def test_small_copies_hold_both_forms():
    found = [official.read_boundary(path).layers for path in sorted(SMALL.glob("*.npy"))]
    assert found.count(None) == 3
    assert found.count("6-11") == 3


def test_all_fifty_where_they_are():
    if not ALL.is_dir():
        pytest.skip(f"{ALL} is not there; set HIGAN_BOUNDARIES to the folder of published directions")
    assert len(PUBLISHED) == 50


def boundary(*shape: int, level: str = "attribute") -> Boundary:
    normal = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    normal = normal / normal.norm(dim=-1, keepdim=True)
    return Boundary(Concept("indoor lighting", level), normal, torch.full(shape[:-1], 0.5), 0.9)


@pytest.mark.parametrize("shape", [(8,), (14, 8)])
@pytest.mark.parametrize("layers", [None, "0,3-5"])
def test_directions_round_trip(tmp_path, shape, layers):
    path = tmp_path / "indoor_lighting_boundary.npy"
    written = boundary(*shape, level="layout")
    official.write_boundary(path, written, layers)
    found = official.read_boundary(path)
    assert torch.allclose(found.boundary.normal, written.normal, atol=1e-6)
    assert (found.layers, found.boundary.concept.name) == (layers, "indoor_lighting")
    assert found.boundary.concept.level == ("attribute" if layers is None else "layout")
    loaded = np.load(path, allow_pickle=layers is not None)  # how the official tool reads it
    if layers is not None:
        loaded = loaded.item()
        assert loaded["meta_data"] == {"type": "layout", "manipulate_layers": layers}
        loaded = loaded["boundary"]
    assert loaded.shape == (1, *shape)
    assert loaded.dtype == (np.float32 if layers is None else np.float64)


def test_written_dicts_suit_old_numpy(tmp_path):
    path = tmp_path / "x.npy"
    official.write_boundary(path, boundary(8), "6-11")
    content = path.read_bytes()
    assert b"numpy._core" not in content  # unknown before NumPy 1.26
    assert content[128:130] == b"\x80\x03"  # Python 3.7 knows protocol 4, the tool's own files use 3


def test_named_concept_and_unnormalised_direction(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[3.0, 4.0]], np.float32))
    direction = official.read_boundary(tmp_path / "x.npy", Concept("wood", "object"))
    assert direction.boundary.concept == Concept("wood", "object")
    assert torch.allclose(direction.boundary.normal, torch.tensor([0.6, 0.8]))
    # Of a direction per layer, layers keep their share: such files move some layers further than others.
    np.save(tmp_path / "x.npy", np.array([[[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]]], np.float32))
    found = official.read_boundary(tmp_path / "x.npy").boundary.normal
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [0, 0.1], [0, 0]]))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.zeros((1, 4), np.float32), CorruptFileError),
        (np.full((1, 4), np.nan, np.float32), CorruptFileError),
        (np.ones((2, 3, 4), np.float32), UnknownFormatError),
        (np.ones((1, 0), np.float32), UnknownFormatError),
        (np.ones((1, 4), np.int64), UnknownFormatError),
        (np.array("text"), UnknownFormatError),
        (np.zeros(3, dtype=[("a", "f4")]), CheckpointError),
        ({"boundary": "text"}, UnknownFormatError),
        ({"no": 1}, UnknownFormatError),
        ({"boundary": np.ones((1, 4)), "meta_data": 3}, UnknownFormatError),
    ],
)
def test_other_arrays_are_refused(tmp_path, value, error):
    np.save(tmp_path / "x.npy", value, allow_pickle=True)
    with pytest.raises(error, match=r"x\.npy"):
        official.read_boundary(tmp_path / "x.npy")


# ---- npy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1", "<i8", "|b1", "<c8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays_as_numpy_writes_them(tmp_path, dtype, order):
    for shape in ((), (3,), (2, 3), (0, 4)):
        value = np.asarray(np.arange(math.prod(shape)).reshape(shape).astype(dtype), order=order)
        np.save(tmp_path / "x.npy", value)
        found = npy.read(tmp_path / "x.npy")
        assert found.dtype == value.dtype
        assert np.array_equal(found, value)


def npy_with(stream: bytes, header: bytes = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }") -> bytes:
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + stream


def object_npy(content: bytes) -> bytes:
    """The pickled 0-d array that ``numpy.save`` makes, around opcodes of our own."""
    dtype = (
        call("numpy", "dtype", text("O8"), b"K\x00K\x01")
        + b"(K\x03"
        + text("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    )
    head = call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"(K\x00t", b"C\x01b")
    return npy_with(proto(head + b"(K\x01)" + dtype + b"\x89](" + content + b"etb", 3))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (object_npy(call("posix", "system", text("true"))), UnsafePickleError),
        (object_npy(b"}" + text("boundary") + call("builtins", "eval", text("1")) + b"s"), UnsafePickleError),
        (object_npy(b""), CorruptFileError),
        (object_npy(b"}}"), CorruptFileError),
        (object_npy(b"N"), UnknownFormatError),
        (npy_with(pickle.dumps({"boundary": 1})), UnknownFormatError),
        (npy_with(b""), CorruptFileError),
        (npy_with(b"", b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9), }"), CorruptFileError),
        (npy_with(b"", b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), CorruptFileError),
        (npy_with(b"", b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (), }"), CorruptFileError),
        (npy_with(b"", b"(" * 110), CorruptFileError),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", CorruptFileError),
        (b"\x93NUMPY\x07\x00", UnknownFormatError),
        (b"\x93NUMPY", CheckpointError),
        (b"x", UnknownFormatError),
        (b"", CorruptFileError),
    ],
)  # fmt: skip
def test_hostile_npy(tmp_path, content, error):
    with pytest.raises(error, match="file"):
        npy.read(write(tmp_path, content))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fuzz_npy(tmp_path, data):
    content = bytearray((SMALL / "stylegan_bedroom-wood_boundary.npy").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        direction = official.read_boundary(write(tmp_path, bytes(content)))
    except CheckpointError:
        return
    assert torch.allclose(direction.boundary.normal.norm(dim=-1), torch.ones(()), atol=1e-5)


def test_plain_dicts_only(tmp_path):
    for value in (3.5, [1], np.array(["a"]), 2**40):
        with pytest.raises(ValueError, match="expected text"):
            npy.write_dict(tmp_path / "x.npy", {"a": value})
    assert not list(tmp_path.iterdir())


# ---- boundary lists -----------------------------------------------------------------------------------------------


def test_boundary_list(tmp_path):
    write(tmp_path, b"", "here_boundary.npy")
    lines = [
        "\ufeff(indoor_lighting, w): boundaries/stylegan_bedroom/indoor_lighting_boundary.npy",
        "",
        "   # a comment: with a colon",
        "DISABLE(wood, w): x.npy",
        r"(view , WP) : C:\Users\me\view_boundary.npy  ",
        "(far-away horizon,z):here_boundary.npy",
    ]
    path = write(tmp_path, "\r\n".join(lines).encode(), "list.txt")
    assert official.read_boundary_list(path) == (
        official.ListedBoundary(
            "indoor_lighting", "w", Path("boundaries/stylegan_bedroom/indoor_lighting_boundary.npy")
        ),
        official.ListedBoundary("view", "wp", Path(r"C:\Users\me\view_boundary.npy")),
        official.ListedBoundary("far-away horizon", "z", tmp_path / "here_boundary.npy"),
    )


@pytest.mark.parametrize(
    "line", ["wood, w: x.npy", "(wood, v): x.npy", "(wood): x.npy", "(wood, w) x.npy", "(wood, w):", "(, w): x"]
)
def test_bad_line_is_named(tmp_path, line):
    path = write(tmp_path, f"\n{line}\n".encode(), "list.txt")
    with pytest.raises(CorruptFileError, match=r"list\.txt, line 2: expected '\(name, space\): path'"):
        official.read_boundary_list(path)


def test_boundary_list_of_odd_paths(tmp_path):
    for odd in ("a" * 5000, "a\0b"):
        path = write(tmp_path, f"(wood, w): {odd}".encode(), "list.txt")
        assert official.read_boundary_list(path)[0].path == Path(odd)
    with pytest.raises(MissingWeightsError):
        official.read_boundary_list(tmp_path / "none.txt")


def official_parse(path: Path) -> dict:
    """What the official parser does with a line, in its own words."""
    found = {}
    for line in path.read_text().splitlines():
        info, target = line.strip().split(":")
        name, space = info.strip()[1:-1].split(",")
        found[(name.strip(), space.strip().lower())] = target.strip()
    return found


def test_written_lists_suit_the_official_parser(tmp_path):
    entries = [
        official.ListedBoundary("wood", "w", Path("b/wood.npy")),
        official.ListedBoundary("a b", "wp", Path("x y.npy")),
    ]
    path = tmp_path / "list.txt"
    official.write_boundary_list(path, entries)
    assert official_parse(path) == {("wood", "w"): "b/wood.npy", ("a b", "wp"): "x y.npy"}
    assert list(official.read_boundary_list(path)) == entries
    for name, target in (("a,b", "x"), ("a", "C:/x"), ("(a)", "x"), ("a\nb", "x")):
        with pytest.raises(ValueError, match="cannot read the line"):
            official.write_boundary_list(path, [official.ListedBoundary(name, "w", Path(target))])


# ---- codes and scores ---------------------------------------------------------------------------------------------


def official_scores(names: list[str], n: int = 5) -> dict:
    """The dict that the official ``synthesize.py`` saves."""
    return {
        "score": np.random.default_rng(0).normal(size=(n, len(names))).astype(np.float32),
        "name_to_idx": {name: index for index, name in enumerate(names)},
        "idx_to_name": dict(enumerate(names)),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_scores_as_numpy_saves_them(tmp_path, protocol):
    value = official_scores(["natural_light", "wood"])
    buffer = io.BytesIO()
    np.save(buffer, np.array(None), allow_pickle=True)
    header = buffer.getvalue()[:128]
    array = np.empty((), object)
    array[()] = value
    found = official.read_scores(write(tmp_path, header + pickle.dumps(array, protocol=protocol)))
    assert found.names == ("natural_light", "wood")
    assert np.array_equal(found.values.numpy(), value["score"])


def test_scores_round_trip(tmp_path):
    scores = official.Scores(torch.randn(7, 3), ("a", "b__c", "é"))
    official.write_scores(tmp_path / "x.npy", scores)
    loaded = np.load(tmp_path / "x.npy", allow_pickle=True)[()]  # how the official tool reads it
    assert loaded["name_to_idx"] == {"a": 0, "b__c": 1, "é": 2}
    assert loaded["idx_to_name"] == {0: "a", 1: "b__c", 2: "é"}
    assert np.array_equal(loaded["score"], scores.values.numpy())
    found = official.read_scores(tmp_path / "x.npy")
    assert found.names == scores.names
    assert torch.equal(found.values, scores.values)


@pytest.mark.parametrize(
    "change",
    [{"score": "x"}, {"score": np.ones(3, np.float32)}, {"idx_to_name": {0: "a"}}, {"idx_to_name": {1: "a", 2: "b"}}, {"idx_to_name": {0: "a", 1: 3}}],
)  # fmt: skip
def test_bad_scores(tmp_path, change):
    np.save(tmp_path / "x.npy", official_scores(["a", "b"]) | change)
    with pytest.raises(CheckpointError, match=r"x\.npy"):
        official.read_scores(tmp_path / "x.npy")


def test_codes(tmp_path):
    for shape in ((4, 8), (4, 14, 8)):
        value = np.random.default_rng(0).normal(size=shape)
        np.save(tmp_path / "w.npy", value)
        assert torch.equal(official.read_codes(tmp_path / "w.npy"), torch.from_numpy(value).float())
    np.save(tmp_path / "w.npy", np.ones(3))
    with pytest.raises(UnknownFormatError, match="codes"):
        official.read_codes(tmp_path / "w.npy")


# ---- folders ------------------------------------------------------------------------------------------------------


def population(n: int = 6) -> Population:
    concepts = (
        Concept("natural light", "attribute"),
        Concept("bedroom", "object"),
        Concept("apartment/outdoor", "object"),
        Concept("view", "layout"),
    )
    return Population(torch.arange(n), torch.randn(n, 1, 8), torch.randn(n, 4), concepts, num_layers=14)


def test_export_then_import(tmp_path):
    source = population()
    bounds = [boundary(8), boundary(14, 8)]
    bounds[1] = Boundary(Concept("view", "layout"), bounds[1].normal, bounds[1].bias, 0.8)
    written = official.export_official(tmp_path / "out", source, bounds, {"indoor lighting": "6-11"})
    names = [
        "w.npy",
        "attribute.npy",
        "category.npy",
        "indoor_lighting_boundary.npy",
        "view_boundary.npy",
        "boundary_list.txt",
    ]
    assert [path.name for path in written] == names
    run = official.import_official(tmp_path / "out", num_layers=14)
    assert run.population.num_layers == 14
    assert torch.equal(run.population.codes, source.codes)
    assert run.population.concepts == (
        Concept("natural_light", "attribute"),
        Concept("view", "attribute"),
        Concept("bedroom", "object"),
        Concept("apartment__outdoor", "object"),
    )
    assert torch.equal(run.population.scores, source.scores[:, [0, 3, 1, 2]])
    assert [direction.layers for direction in run.directions] == ["6-11", None]
    assert [direction.boundary.normal.shape for direction in run.directions] == [(8,), (14, 8)]
    assert run.directions[1].boundary.concept == Concept("view", "attribute")
    listed = official.read_boundary_list(tmp_path / "out" / "boundary_list.txt")
    assert [(entry.name, entry.space, entry.path.exists()) for entry in listed] == [
        ("indoor_lighting", "w", True),
        ("view", "wp", True),
    ]


def test_names_that_no_file_can_have_come_back(tmp_path):
    """Windows refuses ``a:b.npy``, and the tool's list a colon anywhere; its scores and its list use one name."""
    names = ("is it dark?", "colour: warm", 'a "room" <3', "con.fused", "50% grey", "warm, (nearly)")
    concepts = tuple(Concept(name, "object") for name in names)
    source = Population(torch.arange(6), torch.randn(6, 1, 8), torch.randn(6, 6), concepts, num_layers=4)
    bounds = [replace(boundary(8), concept=concept) for concept in concepts]
    written = official.export_official(tmp_path / "out", source, bounds)
    kept = ["is_it_dark%3F", "colour%3A_warm", "a_%22room%22_%3C3", "%63on.fused", "50%_grey", "warm%2C_%28nearly%29"]
    assert [path.name for path in written] == [
        "w.npy", "category.npy", *(f"{name}_boundary.npy" for name in kept), "boundary_list.txt",
    ]  # fmt: skip
    assert official_parse(written[-1]) == {(name, "w"): f"{name}_boundary.npy" for name in kept}
    assert list(official.read_scores(written[1]).names) == kept
    run = official.import_official(tmp_path / "out", num_layers=4)
    back = [name.replace(" ", "_") for name in names]
    assert [concept.name for concept in run.population.concepts] == back
    assert sorted(direction.boundary.concept.name for direction in run.directions) == sorted(back)
    ours = official.named_by(CallableScorer(len, concepts), run)
    assert ours.population.concepts == concepts
    assert {direction.boundary.concept for direction in ours.directions} == {*concepts}


def test_import_tells_layers_from_wp(tmp_path):
    np.save(tmp_path / "z.npy", np.ones((5, 8), np.float32))
    np.save(tmp_path / "category.npy", official_scores(["bedroom"]))
    with pytest.raises(ValueError, match="num_layers"):
        official.import_official(tmp_path)
    np.save(tmp_path / "wp.npy", np.ones((5, 10, 8), np.float32))
    assert official.import_official(tmp_path).population.num_layers == 10
    with pytest.raises(ValueError, match="10"):
        official.import_official(tmp_path, num_layers=14)
    np.save(tmp_path / "w.npy", np.zeros((5, 8), np.float32))
    assert official.import_official(tmp_path).population.codes.sum() == 0  # w goes before z


def test_an_attribute_with_a_category_s_name_keeps_its_scores(tmp_path, higan):
    """``ocean`` is one of the 365 categories and one of the 102 attributes."""
    folder, n = tmp_path / "official", 20
    folder.mkdir()
    np.save(folder / "w.npy", np.ones((n, 8), np.float32))
    scores = np.random.default_rng(1).normal(size=(n, 4)).astype(np.float32)
    np.save(folder / "attribute.npy", official_scores(["ocean", "man-made"]) | {"score": scores[:, :2]})
    np.save(folder / "category.npy", official_scores(["attic", "ocean"]) | {"score": scores[:, 2:]})
    np.save(folder / "ocean_boundary.npy", np.ones((1, 8), np.float32))
    np.save(folder / "attic_boundary.npy", np.ones((1, 8), np.float32))
    expected = (
        Concept("ocean_attribute", "attribute"),
        Concept("man-made", "attribute"),
        Concept("attic", "object"),
        Concept("ocean", "object"),
    )
    found = official.import_official(folder, 14)
    assert found.population.concepts == expected
    assert [d.boundary.concept for d in found.directions] == [expected[2], expected[0]]
    meta = {"type": "object", "manipulate_layers": "6-11"}
    np.save(folder / "ocean_boundary.npy", {"boundary": np.ones((1, 8)), "meta_data": meta})
    assert official.import_official(folder, 14).directions[1].boundary.concept == expected[3]
    assert higan("import-official", folder, "--out", tmp_path / "run", "--num-layers", 14)[0] == 0
    kept = store.read_population(store.load_run(tmp_path / "run"))
    assert kept.concepts == expected
    assert torch.equal(kept.scores, torch.from_numpy(scores))


def test_import_of_incomplete_folders(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"w\.npy or z\.npy"):
        official.import_official(tmp_path)
    np.save(tmp_path / "w.npy", np.ones((4, 8), np.float32))
    np.save(tmp_path / "attribute.npy", official_scores(["wood"], n=5))
    with pytest.raises(CorruptFileError, match="5 samples"):
        official.import_official(tmp_path, 14)


def test_export_refuses_what_the_tool_cannot_hold(tmp_path):
    source = population()
    layerwise = Population(source.seeds, source.codes.expand(-1, 14, -1), source.scores, source.concepts, 14)
    with pytest.raises(ValueError, match="14 rows"):
        official.export_official(tmp_path, layerwise)
    twice = (Concept("a b", "object"), Concept("a_b", "object"), *source.concepts[2:])
    with pytest.raises(ValueError, match="same name"):
        official.export_official(tmp_path, Population(source.seeds, source.codes, source.scores, twice, 14))


def test_a_folder_that_holds_such_files_is_left_alone(tmp_path):
    """What is not written over would be of another run."""
    population = Population(torch.arange(4), torch.randn(4, 1, 8), torch.randn(4, 1), (Concept("red", "colour"),), 14)
    official.export_official(tmp_path, population)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"holds attribute\.npy, w\.npy already; choose another folder"):
        official.export_official(tmp_path, population)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="number of layers must be at least 1; got 0"):
        official.import_official(tmp_path, num_layers=0)


def test_directions_whose_files_would_be_one_are_not_exported(tmp_path):
    concepts = (Concept("living room", "object"), Concept("living_room", "attribute"))
    population = Population(torch.arange(4), torch.randn(4, 1, 8), torch.randn(4, 2), concepts, 14)
    alike = [Boundary(concept, torch.ones(8), torch.zeros(()), 1.0) for concept in concepts]
    with pytest.raises(ValueError, match="alike are 'living room' and 'living_room'"):
        official.export_official(tmp_path / "out", population, alike)
    assert not (tmp_path / "out").exists()


def test_a_refused_export_writes_nothing_that_would_block_the_mended_one(tmp_path):
    names = [Concept("red wall", "colour"), Concept("red_wall", "colour")]
    population = Population(torch.arange(4), torch.randn(4, 1, 8), torch.randn(4, 2), tuple(names), 14)
    with pytest.raises(ValueError, match=r"two concepts get the same name in attribute\.npy"):
        official.export_official(tmp_path / "out", population)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_fails_is_not_in_the_way_of_the_next(tmp_path, no_file_above, there):
    folder, source = tmp_path / "out", population(100)
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    # There is room for the codes, and none for the direction that comes last.
    with no_file_above(6000), pytest.raises(OSError, match=r"requested and|File too large"):
        official.export_official(folder, source, [boundary(14, 512)])
    assert sorted(tmp_path.rglob("*")) == before
    written = official.export_official(folder, source, [boundary(14, 512)])
    assert sorted(tmp_path.rglob("*")) == sorted({*before, folder, *written})
    assert len(official.import_official(folder, 14).population) == 100
