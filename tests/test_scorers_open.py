"""Predictors of other people: callables, exported networks, classifiers, CLIP, segmenters, and all of them together."""

import json
import re
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import higan
import hub_folders
from higan import population, store
from higan.conformance import check_scorer
from higan.errors import (
    CheckpointError,
    CorruptFileError,
    MissingExtraError,
    MissingWeightsError,
    ScorerError,
    UnknownFormatError,
)
from higan.generators.rooms import RoomsConfig, RoomsGenerator, RoomsNetwork, estimate_mean_code
from higan.preprocessing import Preprocessing
from higan.scorers.callable import CallableScorer
from higan.scorers.classifier import ClassifierScorer
from higan.scorers.clip import ClipScorer, guess_level
from higan.scorers.colour import ColourScorer
from higan.scorers.combined import CombinedScorer
from higan.scorers.exported import FILE_OPERATIONS, OnnxScorer, TorchScriptScorer
from higan.scorers.labels import named, read_names
from higan.scorers.rooms import check_images
from higan.scorers.segments import SegmentsScorer
from higan.types import Concept, Scorer, SegmentClass


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


IMAGES = noise(4, 3, 40, 48)


def channels(images):
    return images.float().mean((2, 3))


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_keep_the_order_of_their_numbers(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("/b/bar/indoor 1\n\n/a/art studio 0\n")
    assert read_names(path) == ("art_studio", "bar__indoor")
    path.write_text("still water\nman-made\n")
    assert read_names(path) == ("still water", "man-made")


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("layout: seen from the left\nbed\n", encoding="utf-8-sig")
    assert named(path, "object") == (Concept("seen from the left", "layout"), Concept("bed", "object"))
    path.write_text("/a/airfield 0\n", encoding="utf-8-sig")
    assert read_names(path) == ("airfield",)


@pytest.mark.parametrize("text", ["", "a 0\nb 2\n", "a 0\nb 0\n"])
def test_damaged_lists_of_names_are_told(tmp_path, text):
    path = tmp_path / "names.txt"
    path.write_text(text)
    with pytest.raises(CorruptFileError, match=r"names\.txt"):
        read_names(path)


def test_lines_stay_as_they_are_unless_they_are_names_of_places(tmp_path):
    phrases = ["a room with wooden furniture", "layout: a wide room", "warm/cold light", "/a/airport terminal/inside"]
    (tmp_path / "names.txt").write_text("\n".join(phrases))
    assert read_names(tmp_path / "names.txt") == (*phrases[:3], "airport_terminal__inside")
    assert named(tmp_path / "names.txt", "object")[1] == Concept("a wide room", "layout")


@pytest.mark.parametrize("name", ["line\nbreak", "a tab\tinside", "\x1b[31mred", "bell\x07", "\x9b2J"])
def test_names_cannot_break_lines_nor_steer_a_terminal(name):
    with pytest.raises(ValueError, match="one line without control characters") as raised:
        named([f"colour: {name}"], "object")
    assert name not in str(raised.value)
    assert named(["colour: 🛋️ سرير 沙发"], "object") == (Concept("🛋️ سرير 沙发", "colour"),)


def test_levels_in_front_of_names():
    found = named(["colour: warm", "ratio: 3", Concept("bed", "object")], "attribute")
    assert found == (Concept("warm", "colour"), Concept("ratio: 3", "attribute"), Concept("bed", "object"))
    with pytest.raises(ValueError, match="given twice: warm"):
        named(["colour: warm", "warm"], "attribute")


@pytest.mark.parametrize(
    ("text", "level"),
    [("color: warm", "colour"), ("Colors: warm", "colour"), ("Objects: warm", "object"), ("LAYOUTS : warm", "layout")],
)
def test_levels_as_people_spell_them(text, level):
    assert named([text], "attribute") == (Concept("warm", level),)


def test_levels_that_are_misspelt_are_told_apart_from_phrases():
    with pytest.raises(ValueError, match=r"got 'obejct'. Write 'object: bed', or, .* 'attribute: obejct: bed'"):
        named(["obejct: bed"], "attribute")
    assert named(["attribute: obejct: bed"], "object") == (Concept("obejct: bed", "attribute"),)
    for phrase in ("project: x", "subject: x", "style: modern", "a room: red", ": x", "objet"):
        assert named([phrase], "layout") == (Concept(phrase, "layout"),)


# ---- callables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", [channels, lambda x: channels(x).numpy(), lambda x: channels(x).tolist()])
def test_a_function_becomes_a_scorer(give):
    scorer = CallableScorer(give, ["red", "colour: green", "blue"], name="mine")
    assert isinstance(scorer, Scorer)
    assert [c.level for c in scorer.concepts] == ["attribute", "colour", "attribute"]
    torch.testing.assert_close(scorer.score(IMAGES), channels(IMAGES))


def test_one_column_may_be_a_vector():
    scorer = CallableScorer(lambda x: channels(x)[:, 0], ["red"])
    assert scorer.score(IMAGES).shape == (4, 1)


@pytest.mark.parametrize(
    ("give", "reason"),
    [
        (lambda x: channels(x)[:2], r"shape \(4, 3\); got \(2, 3\)"),
        (lambda x: channels(x)[:, :2], r"shape \(4, 3\); got \(4, 2\)"),
        (lambda x: "many", "got str"),
    ],
)
def test_wrong_answers_are_told(give, reason):
    with pytest.raises(ScorerError, match=reason):
        CallableScorer(give, ["a", "b", "c"]).score(IMAGES)


def indexed(images):
    return channels(images)[:, {}["seven"]]


def test_what_a_function_raises_names_the_scorer_and_the_line():
    with pytest.raises(ScorerError, match=r"'indexed' raised KeyError: 'seven' \(test_scorers_open\.py:\d+\)") as told:
        CallableScorer(indexed, ["a"]).score(IMAGES)
    assert isinstance(told.value.__cause__, KeyError)
    assert f":{indexed.__code__.co_firstlineno + 1})" in str(told.value)
    with pytest.raises(ScorerError, match=r"raised RuntimeError: .*\(test_scorers_open\.py:\d+\)"):
        CallableScorer(nn.Sequential(Net()), ["a", "b"]).score(IMAGES)
    with pytest.raises(ScorerError, match=r"^other words$"):
        CallableScorer(lambda _: (_ for _ in ()).throw(ScorerError("other words")), ["a"]).score(IMAGES)


def test_numbers_that_are_not_finite_are_left_to_those_who_know_the_concepts():
    scorer = CallableScorer(lambda x: channels(x).log(), ["a", "b", "c"], name="logs")
    black = IMAGES.clone()
    black[1, 2] = 0
    with pytest.raises(ScorerError, match=r"'logs' returned NaN or infinity for 'c' in 1 of 4 pictures; guard"):
        population.score(scorer, black)
    assert [f.check for f in check_scorer(scorer, black) if not f.ok] == ["finite"]


@pytest.mark.parametrize("images", [IMAGES.float(), IMAGES[:, :1], IMAGES[0]])
def test_images_of_another_kind_are_refused(images):
    # The check that users meet; under pytest the shape annotations of `score` refuse them before.
    with pytest.raises(ValueError, match="images must be uint8"):
        check_images(images)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (IMAGES.permute(0, 2, 3, 1)[:, :, :5], r"images.permute\(0, 3, 1, 2\)"),
        (IMAGES[0], r"images\[None\] makes a batch"),
        (IMAGES[:, :1], "makes a batch of grey images RGB"),
        (IMAGES.float() / 255, r"\(images \* 255\).round\(\).to\(torch.uint8\) converts images in \[0, 1\]"),
        (IMAGES.float() / 127.5 - 1, r"to_uint8 converts images in \[-1, 1\]"),
        (IMAGES.float(), r"converts images in \[0, 255\]"),
        (IMAGES.long(), "whole numbers"),
        (IMAGES.numpy(), "got ndarray. torch.from_numpy"),
        ([IMAGES[0]], "got list. .*torch.stack one of a list"),
        (None, "got NoneType"),
    ],
)
def test_images_of_another_kind_are_told_how_to_be_converted(images, told):
    with pytest.raises(ValueError, match=told):
        check_images(images)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mymodels.py").write_text(
        "def red(images):\n    return images[:, 0].float().mean((1, 2))\n\n"
        "def named(images):\n    return images[:, 0].float().mean((1, 2))\n\nnamed.concepts = ['colour: redness']\n\n"
        "class Ready:\n    name = 'ready'\n    concepts = ()\n    def score(self, images):\n        return images\n\n"
        "ready = Ready()\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mymodels", None)


def test_a_scorer_by_module_and_name(module):
    found = higan.load_scorer("mymodels:red", concepts=["red"], level="colour")
    torch.testing.assert_close(found.score(IMAGES)[:, 0], IMAGES[:, 0].float().mean((1, 2)))
    assert found.concepts == (Concept("red", "colour"),)
    assert higan.load_scorer("mymodels:named").concepts == (Concept("redness", "colour"),)
    assert higan.load_scorer("mymodels:ready").name == "ready"


def test_references_that_lead_nowhere(module):
    with pytest.raises(ValueError, match="does not name its concepts"):
        higan.load_scorer("mymodels:red")
    with pytest.raises(ValueError, match="is int"):
        higan.load_scorer("mymodels:number")
    with pytest.raises(MissingWeightsError, match="no attribute 'blue'"):
        higan.load_scorer("mymodels:blue")
    with pytest.raises(MissingWeightsError, match="importable"):
        higan.load_scorer("no_such_module_here:blue")


# ---- exported networks ----------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, *, raw=False):
        super().__init__()
        self.raw = raw
        self.conv = nn.Conv2d(3, 2, 3)
        with torch.no_grad():
            for k, parameter in enumerate(self.parameters()):
                parameter.normal_(generator=torch.Generator().manual_seed(k))

    def forward(self, x):
        x = x.float() / 255 if self.raw else x
        return self.conv(x).mean((2, 3))


@pytest.fixture
def exported(tmp_path):
    def export(net, example):
        path = tmp_path / "net.pt"
        with pytest.warns(DeprecationWarning, match="jit"):
            torch.jit.save(torch.jit.trace(net, example, check_trace=False), str(path))
        return path

    return export


def test_torchscript_with_and_without_steps(exported):
    steps = Preprocessing(size=(20, 20))
    path = exported(Net(), torch.zeros(1, 3, 20, 20))
    scorer = higan.load_scorer(path, concepts=["a", "b"], preprocessing=steps)
    torch.testing.assert_close(scorer.score(IMAGES), Net()(steps(IMAGES)).detach())
    path = exported(Net(raw=True), IMAGES[:1])
    torch.testing.assert_close(TorchScriptScorer(path, ["a", "b"]).score(IMAGES), Net(raw=True)(IMAGES).detach())


def test_torchscript_that_is_none(tmp_path):
    with pytest.raises(MissingWeightsError, match="no such file"):
        TorchScriptScorer(tmp_path / "x.pt", ["a"])
    (tmp_path / "x.pt").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(CorruptFileError, match="TorchScript"):
        higan.load_scorer(tmp_path / "x.pt", concepts=["a"])
    with pytest.raises(ValueError, match=r"does not name its outputs; pass concepts=\[…\] \(--concept"):
        higan.load_scorer(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_weights_without_a_program_are_told_from_torchscript(tmp_path, whole, legacy):
    net = Net()
    torch.save(net if whole else net.state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnknownFormatError, match=r"weights without the program .* torch\.jit\.script\(net\)\.save"):
        higan.load_scorer(tmp_path / "x.pt", concepts=["a", "b"])


def test_that_pth_is_read_as_places_is_told(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"option concepts; .* read as weights of Places365; a network of your own is"):
        higan.load_scorer(tmp_path / "x.pth", concepts=["a", "b"])
    with pytest.raises(ValueError, match=r"option concepts; it takes: none$"):
        higan.load_scorer("toy", concepts=["a", "b"])


def test_torchscript_is_no_generator(exported):
    with pytest.raises(UnknownFormatError, match="is TorchScript, a program, which is not run to open a generator"):
        higan.load_generator(exported(Net(), torch.zeros(1, 3, 20, 20)))


ASKS = {
    "plainly": "torch.from_file",
    "by its full name": "ops.aten.from_file",
    "by getattr": 'getattr(torch, "from_file")',
    "in octal": r'getattr(torch, "from\137file")',
    "in two pieces": 'getattr(torch, "from_" "file")',
    "in two pieces, of a getattr": 'getattr(getattr(ops, "aten"), "from_" "file")',
    "beside text like torch's own": '(getattr, "getattr(a, ", getattr, ")")[0](torch, "from_" "file")',
}
"""Ways to ask for an operation that makes a file of any name."""


@pytest.mark.parametrize("how", ASKS)
def test_torchscript_that_could_write_files_is_refused(exported, tmp_path, how):
    plain, evil, made = exported(Net(), torch.zeros(1, 3, 20, 20)), tmp_path / "evil.pt", tmp_path / "made"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.namelist():
            code = source.read(entry)
            if entry.endswith(".py") and b"class Net(" in code:
                ask = f'{ASKS[how]}("{made}", True, 8, dtype=0)'
                code, count = re.subn(rb"(?m)^( +)return .*", rb"\1return " + ask.replace("\\", r"\\").encode(), code)
                assert count == 1
            target.writestr(entry, code)
    with pytest.raises(CheckpointError, match=r"asks for .*(from_file|getattr)"):
        higan.load_scorer(evil, concepts=["a", "b"])
    if not how.startswith("beside"):  # torch does as it is asked, and does not understand the last one today
        with pytest.warns(DeprecationWarning, match="jit"):
            torch.jit.load(evil)(torch.zeros(1, 3, 20, 20))
        assert made.exists()


def test_operations_of_torch_that_take_the_name_of_a_file_are_known():
    named_so = {
        schema.name.partition("::")[2]
        for schema in torch._C._jit_get_all_schemas()
        for argument in schema.arguments
        if str(argument.type) == "str" and re.search("file|path", argument.name)
    }
    assert named_so <= FILE_OPERATIONS


def test_torchscript_reaches_layers_by_number(exported):
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    steps = Preprocessing(size=(20, 20))
    scorer = TorchScriptScorer(exported(net, torch.zeros(1, 3, 20, 20)), ["a", "b"], preprocessing=steps)
    torch.testing.assert_close(scorer.score(IMAGES), net(steps(IMAGES)).detach())


def onnx_file(path, net, *, batch="n", uint8=False, concepts=None, side=20, colours=3, beside=None):
    """The network, written node by node; its weights into another file where one is named."""
    onnx = pytest.importorskip("onnx", reason="writes the file to be read")
    pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'higan[onnx]'")
    make, numbers = onnx.helper, onnx.numpy_helper
    kind = onnx.TensorProto.UINT8 if uint8 else onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("Cast", ["images"], ["float"], to=onnx.TensorProto.FLOAT),
        make.make_node("Mul", ["float", "scale"], ["scaled"]),
        make.make_node("Conv", ["scaled", "weight", "bias"], ["maps"]),
        make.make_node("ReduceMean", ["maps", "axes"], ["scores"], keepdims=0),
    ]
    constants = {
        "scale": torch.tensor(1 / 255 if uint8 else 1.0),
        "weight": net.conv.weight.detach(),
        "bias": net.conv.bias.detach(),
        "axes": torch.tensor([2, 3]),
    }
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("images", kind, [batch, colours, side, side])],
        [make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, 2])],
        [numbers.from_array(value.numpy(), name) for name, value in constants.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    if concepts:
        make.set_model_props(model, {"concepts": json.dumps(concepts)})
    onnx.save(model, str(path), save_as_external_data=beside is not None, location=beside, size_threshold=99)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_onnx_in_batches_or_one_by_one(tmp_path, batch):
    path = onnx_file(tmp_path / "net.onnx", Net(), batch=batch)
    scorer = higan.load_scorer(path, concepts=["a", "b"])
    expected = Net()(Preprocessing(size=(20, 20))(IMAGES)).detach()
    torch.testing.assert_close(scorer.score(IMAGES), expected, atol=1e-5, rtol=1e-5)
    assert not [f for f in check_scorer(scorer) if not f.ok]


def test_onnx_takes_bytes_and_names_from_the_file(tmp_path):
    path = onnx_file(tmp_path / "net.onnx", Net(raw=True), uint8=True, concepts=["x", "colour: y"], side=40)
    scorer = OnnxScorer(path)
    assert scorer.concepts == (Concept("x", "attribute"), Concept("y", "colour"))
    square = noise(3, 3, 40, 40)
    torch.testing.assert_close(scorer.score(square), Net(raw=True)(square).detach(), atol=1e-5, rtol=1e-5)


def test_onnx_that_is_none(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'higan[onnx]'")
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(CorruptFileError, match="ONNX"):
        higan.load_scorer(tmp_path / "x.onnx", concepts=["a"])
    with pytest.raises(ValueError, match="does not name its outputs"):
        OnnxScorer(onnx_file(tmp_path / "y.onnx", Net()))
    with pytest.raises(ScorerError, match=r"\(4, 3\); got \(4, 2\)"):
        OnnxScorer(tmp_path / "y.onnx", ["a", "b", "c"]).score(IMAGES)


def test_onnx_that_cannot_do_with_the_images(tmp_path):
    for wrong in ({"colours": 20, "side": 3}, {"colours": 1}):
        path = onnx_file(tmp_path / "wrong.onnx", Net(), **wrong)
        with pytest.raises(ValueError, match=r"must be uint8 or float images \(n, 3, H, W\); got tensor\(float\)"):
            OnnxScorer(path, ["a", "b"])
    fixed = OnnxScorer(onnx_file(tmp_path / "fixed.onnx", Net(raw=True), uint8=True), ["a", "b"])
    with pytest.raises(ScorerError, match=r"'fixed' cannot score torch.uint8 images of shape .* Expected: 20"):
        fixed.score(IMAGES)


def test_weights_beside_an_onnx_file_belong_to_the_run(higan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx_file("a+b.onnx", Net(), beside="a+b.bin")
    data = tmp_path / "a+b.bin"
    line = ["sample", "--generator", "toy", "--scorer", "a+b.onnx", "--concept", "a", "--concept", "b", "--out", "run"]
    line += ["--num", 20, "--shard-size", 10]
    assert higan(*line)[0] == 0
    assert set(store.load_run("run").settings["digests"]) == {"scorer a+b.onnx", "scorer-data a+b.onnx"}
    (tmp_path / "run/population/shard-00001.parquet").unlink()
    before = data.read_bytes()
    data.write_bytes(bytes(len(before)))
    code, printed = higan(*line)
    assert code == 1
    assert "the file of weights beside a+b.onnx has changed since this run was begun" in printed
    data.write_bytes(before)
    assert higan(*line)[0] == 0
    # From another folder they are looked for where the line was typed.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert higan("fit", "../run", "--permuted", 0)[0] == 0
    rescore = ["rescore", "../run", "--verify", 4, "--random", 2]
    code, printed = higan(*rescore)
    assert code == 0, printed
    data.write_bytes(bytes(len(before)))
    code, printed = higan(*rescore)
    assert code == 1
    assert "a+b.onnx has changed since this run was begun" in printed


def test_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.onnx").write_bytes(b"no network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'higan\[onnx\]'"):
        higan.load_scorer(tmp_path / "x.onnx", concepts=["a"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'higan\[transformers\]'"):
        higan.load_scorer("clip", concepts=["a"])


# ---- classifiers ----------------------------------------------------------------------------------------------------


def test_classifier_gives_log_odds(tmp_path):
    folder = hub_folders.classifier(tmp_path / "model")
    scorer = higan.load_scorer(folder)
    assert scorer.concepts == tuple(Concept(n, "object") for n in ("bedroom", "church", "kitchen"))
    logits = scorer._model(pixel_values=scorer.preprocessing(IMAGES)).logits.double()
    probability = logits.softmax(1)
    expected = (probability / (1 - probability)).log()
    assert expected.std() > 0.1
    torch.testing.assert_close(scorer.score(IMAGES), expected.float(), atol=1e-4, rtol=1e-4)
    assert not [f for f in check_scorer(scorer) if not f.ok]


def test_certain_classes_stay_finite(tmp_path):
    scorer = ClassifierScorer(hub_folders.classifier(tmp_path / "model"))
    with torch.no_grad():
        scorer._model.classifier[-1].weight.mul_(1e4)
    assert torch.isfinite(scorer.score(IMAGES)).all()


def test_multi_label_classifier_gives_its_logits(tmp_path):
    scorer = ClassifierScorer(
        hub_folders.classifier(tmp_path / "model", "multi_label_classification"), ["x", "y", "z"], level="attribute"
    )
    logits = scorer._model(pixel_values=scorer.preprocessing(IMAGES)).logits
    torch.testing.assert_close(scorer.score(IMAGES), logits)
    assert [c.name for c in scorer.concepts] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("problem", "labels"),
    [("regression", ("beauty", "sharpness")), ("regression", ("beauty",)), (None, ("beauty",))],
)
def test_outputs_that_are_no_classes_are_given_as_they_are(tmp_path, problem, labels):
    scorer = ClassifierScorer(hub_folders.classifier(tmp_path / "model", problem, labels=labels))
    logits = scorer._model(pixel_values=scorer.preprocessing(IMAGES)).logits
    assert logits.std(0).min() > 0
    torch.testing.assert_close(scorer.score(IMAGES), logits)


def test_classes_of_one_name_are_told_apart(tmp_path):
    """ImageNet has a bird and a machine called crane."""
    labels = ("bittern", "crane", "bustard", "crane", "crane ")
    scorer = ClassifierScorer(hub_folders.classifier(tmp_path / "model", labels=labels))
    assert [c.name for c in scorer.concepts] == ["bittern", "crane", "bustard", "crane (3)", "crane (4)"]


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision_are_computed_in_full(tmp_path, safe, dtype):
    folder = hub_folders.classifier(tmp_path / "model", safe=safe, dtype=dtype)
    found = ClassifierScorer(folder).score(IMAGES)
    model = hub_folders.library().ResNetForImageClassification.from_pretrained(
        hub_folders.classifier(tmp_path / "same", dtype=dtype), dtype=torch.float32
    )
    probability = model.eval()(pixel_values=ClassifierScorer(folder).preprocessing(IMAGES)).logits.double().softmax(1)
    torch.testing.assert_close(found, torch.logit(probability).float(), atol=1e-4, rtol=1e-4)


def test_weights_pickled_by_torch_are_read_without_unpickling(tmp_path, monkeypatch):
    safe = ClassifierScorer(hub_folders.classifier(tmp_path / "safe"))
    hub_folders.classifier(tmp_path / "old", safe=False)

    def refuse(*_, **__):
        raise AssertionError("the file was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    old = ClassifierScorer(tmp_path / "old")
    torch.testing.assert_close(old.score(IMAGES), safe.score(IMAGES))


def test_folders_that_do_not_fit(tmp_path):
    folder = hub_folders.classifier(tmp_path / "model")
    with pytest.raises(ValueError, match="3 classes; got 2 names"):
        ClassifierScorer(folder, ["x", "y"])
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingWeightsError, match=r"preprocessor_config\.json"):
        ClassifierScorer(folder)
    with pytest.raises(CorruptFileError, match=r"missing or of another shape, first classifier\.bias"):
        ClassifierScorer(hub_folders.clip(tmp_path / "clip"), ["LABEL_0", "LABEL_1"])
    with pytest.raises(UnknownFormatError, match="AutoModelForImageClassification"):
        ClassifierScorer(hub_folders.upernet(tmp_path / "upernet"))
    with pytest.raises(UnknownFormatError, match="no model of pictures and text"):
        ClipScorer(hub_folders.classifier(tmp_path / "other"), ["a bed"])
    (folder / "config.json").write_text("{}")
    with pytest.raises(UnknownFormatError, match="no model that transformers knows"):
        ClassifierScorer(folder)


def test_weights_that_lack_a_tensor_are_told(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = hub_folders.classifier(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("classifier.1.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorruptFileError, match=r"classifier\.1\.weight"):
        ClassifierScorer(folder)


def test_a_name_that_the_hub_does_not_give_offline():
    hub_folders.library()
    with pytest.raises(MissingWeightsError, match="hf download nobody/nothing --local-dir"):
        higan.load_scorer("clip", weights="nobody/nothing", concepts=["a bed"])


# ---- CLIP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return hub_folders.clip(tmp_path_factory.mktemp("clip"))


def test_clip_gives_the_model_s_own_log_odds(clip):
    transformers = hub_folders.library()
    words = ["a wooden room", "a bed"]
    scorer = ClipScorer(clip, words, "a room")
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(clip)([*words, "a room"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens, pixel_values=scorer.preprocessing(IMAGES)).logits_per_image
    expected = logits[:, :2] - logits[:, 2:]
    assert expected.std() > 0.05
    torch.testing.assert_close(scorer.score(IMAGES), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ClipScorer(clip, words).score(IMAGES), logits[:, :2], atol=1e-4, rtol=1e-4)
    each = ClipScorer(clip, words, ["a room", "a bed"]).score(IMAGES)
    torch.testing.assert_close(each[:, 0], expected[:, 0], atol=1e-4, rtol=1e-4)
    assert each[:, 1].abs().max() < 1e-4


def test_clip_takes_phrases_from_a_file_as_they_are(clip, tmp_path):
    phrases = ["a wooden room", "layout: a wide room", "warm/cold light"]
    (tmp_path / "phrases.txt").write_text("\n".join(phrases))
    found = ClipScorer(clip, tmp_path / "phrases.txt")
    assert found.concepts == ClipScorer(clip, phrases).concepts
    assert torch.equal(found.score(IMAGES), ClipScorer(clip, phrases).score(IMAGES))


def test_clip_as_transformers_saves_it(clip, tmp_path):
    """Version 5 writes one file for pictures and text; so does it for those who train a model of their own."""
    transformers = hub_folders.library()
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip", reason="new in transformers 5")
    steps = json.loads((clip / "preprocessor_config.json").read_text())
    pictures = module.CLIPImageProcessorPil(**steps)
    transformers.CLIPProcessor(pictures, transformers.AutoTokenizer.from_pretrained(clip)).save_pretrained(tmp_path)
    transformers.CLIPModel.from_pretrained(clip).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    found = ClipScorer(tmp_path, ["a bed"])
    torch.testing.assert_close(found.score(IMAGES), ClipScorer(clip, ["a bed"]).score(IMAGES))
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"processor_config\.json does not say"):
        ClipScorer(tmp_path, ["a bed"])


def test_clip_keeps_the_contract(clip):
    scorer = higan.load_scorer("clip", weights=clip, concepts=["a wooden room", "layout: a bed"], against="a room")
    assert not [f for f in check_scorer(scorer) if not f.ok]
    assert scorer.concepts == (Concept("a wooden room", "attribute"), Concept("a bed", "layout"))
    assert scorer.guessed == ("a wooden room",)


def test_clip_wants_phrases(clip):
    with pytest.raises(ValueError, match="needs concepts="):
        higan.load_scorer("clip", weights=clip)
    with pytest.raises(ValueError, match="at least one phrase"):
        ClipScorer(clip, [])
    with pytest.raises(ValueError, match=r"one per concept \(1\); got 2"):
        ClipScorer(clip, ["a"], ["b", "c"])
    (clip / "tokenizer_config.json").rename(clip / "aside")
    for name in ("vocab.json", "merges.txt"):
        (clip / name).rename(clip / f"{name}.aside")
    try:
        with pytest.raises(MissingWeightsError, match="tokenizer's files"):
            ClipScorer(clip, ["a"])
    finally:
        (clip / "aside").rename(clip / "tokenizer_config.json")
        for name in ("vocab.json", "merges.txt"):
            (clip / f"{name}.aside").rename(clip / name)


@pytest.mark.parametrize(
    ("phrase", "level"),
    [
        ("a room with wooden furniture", "attribute"),
        ("a bedroom", "object"),
        ("a room with blue walls", "colour"),
        ("a room seen from the left", "layout"),
        ("leftover food", "object"),
    ],
)
def test_guessed_levels(phrase, level):
    assert guess_level(phrase) == level


# ---- segments -------------------------------------------------------------------------------------------------------


class Thirds:
    """Calls dark, middle and bright pixels of the red channel by name."""

    name = "thirds"
    classes = tuple(SegmentClass(n, "stuff", (0, 0, k)) for k, n in enumerate(("dark", "middle", "bright")))

    def segment(self, images):
        return (images[:, 0] // 86).to(torch.uint8)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_shares_are_counted_per_image(num, side, seed):
    images = noise(num, 3, side, side + 1, seed=seed)
    found = SegmentsScorer(Thirds()).score(images)
    expected = torch.stack([(images[:, 0] // 86 == k).float().mean((1, 2)) for k in range(3)], 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(num))


@pytest.mark.parametrize("name", ["segments", "scheme"])
def test_masks_that_hold_something_else_than_the_classes_are_refused(name):
    """Counted in one histogram, a stray class of one picture would be a share of the next."""
    scorer = higan.load_scorer(name, segmenter=Thirds())
    for stray, told in ((255, r"'thirds' names 3 classes, 0 … 2; got 255"), (-1, "got -1 in a mask")):
        scorer.segmenter.segment = lambda images, stray=stray: torch.full(images[:, 0].shape, stray, dtype=torch.int16)
        with pytest.raises(ScorerError, match=told):
            scorer.score(IMAGES)
    scorer.segmenter.segment = lambda images: torch.zeros(len(images), 2, 2, dtype=torch.uint8)
    with pytest.raises(ScorerError, match=r"must return masks of shape .* got \(\d+, 2, 2\)"):
        scorer.score(IMAGES)


def test_some_classes_by_name():
    scorer = higan.load_scorer("segments", segmenter=Thirds(), classes=["bright", "dark"])
    assert scorer.concepts == (Concept("share of bright", "object"), Concept("share of dark", "object"))
    whole = SegmentsScorer(Thirds()).score(IMAGES)
    assert torch.equal(scorer.score(IMAGES), whole[:, [2, 0]])
    with pytest.raises(ValueError, match="does not tell 'bed' apart; known: dark, middle, bright"):
        SegmentsScorer(Thirds(), ["bed"])
    with pytest.raises(ValueError, match="needs segmenter="):
        higan.load_scorer("segments")


# ---- all together ---------------------------------------------------------------------------------------------------


def test_options_reach_those_who_take_them(clip, module):
    scorer = higan.load_scorer("colour+mymodels:named+segments", segmenter=Thirds())
    assert isinstance(scorer, CombinedScorer)
    assert len(scorer.concepts) == 4 + 1 + 3
    with pytest.raises(ValueError, match="does not take the option weight; it takes: against, concepts, weights"):
        higan.load_scorer("clip", weight=clip)
    with pytest.raises(ValueError, match="does not take the option weights; it takes: none"):
        higan.load_scorer("rooms+colour", weights=clip)


def test_files_nobody_knows(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(UnknownFormatError, match=r"ends in \.safetensors"):
        higan.load_scorer(tmp_path / "x.h5")
    with pytest.raises(MissingWeightsError, match="expected one of the names rooms, rooms-128, colour"):
        higan.load_scorer("nothing")


def test_every_image_is_drawn_once_for_all_scorers(clip):
    """Embedded generator × CLIP × a callable × pixels, in one pass; columns equal each scorer's own."""
    config = RoomsConfig(resolution=16, latent_dim=6, code_dim=10, mapping_layers=2, channels=(8, 6, 5, 4))
    network = RoomsNetwork(config, seed=3)
    generator = RoomsGenerator(network, estimate_mean_code(network, 64), name="little")
    drawn = []
    synthesize = generator.synthesize
    generator.synthesize = lambda codes: drawn.append(len(codes)) or synthesize(codes)
    scorers = [
        ClipScorer(clip, ["a wooden room", "a bed"], "a room"),
        CallableScorer(channels, ["red", "green", "blue"]),
        ColourScorer(),
    ]
    measured = population.measure(generator, CombinedScorer(scorers), range(10), batch_size=4)
    assert sum(drawn) == 10
    assert measured.scores.shape == (10, 2 + 3 + 4)
    images = population.render(generator, population.sample(generator, range(10)))
    apart = torch.cat([population.score(scorer, images) for scorer in scorers], 1)
    torch.testing.assert_close(measured.scores, apart, atol=1e-4, rtol=1e-4)
    assert (measured.scores.std(0) > 0).all()
