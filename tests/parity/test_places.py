"""Scene scores agree with the official tool's predictor, and the plain layouts with an independent implementation."""

import copy

import numpy as np
import pytest
import torch
from places import FIXTURE, IMAGES, MATRIX, TENSORS, by_rule, shapes_of

from higan.scorers import eight_bit
from higan.scorers.places import PlacesNetwork, PlacesScorer

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURE) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    weights, matrix = folder / "wideresnet18_places365.pth.tar", folder / "W_sceneattribute_wideresnet18.npy"
    torch.save({"epoch": 1, "arch": "x", "state_dict": {f"module.{k}": v for k, v in TENSORS.items()}}, weights)
    np.save(matrix, MATRIX.numpy())
    return weights, matrix


@pytest.mark.parametrize(("compat", "key"), [(False, "category"), (True, "category_clamped")])
def test_agrees_with_the_official_predictor(reference, files, compat, key):
    scorer = PlacesScorer.load(*files, official_compat=compat)
    scores = scorer.score(IMAGES)
    assert scores.shape == (2, 467)
    # Probabilities are small; compare what they come from as well.
    expected = torch.from_numpy(reference[key])
    torch.testing.assert_close(scores[:, :365], expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(scores[:, :365].log(), expected.log(), atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(
        scores[:, 365:], torch.from_numpy(reference["attribute"]), atol=TOLERANCE, rtol=TOLERANCE
    )
    names = [c.name for c in scorer.concepts]
    changed = {k: n for k, n in enumerate(names) if n != reference["names"][k]}
    assert changed == {365 + reference["names"][365:].tolist().index("ocean"): "ocean_attribute"}
    assert [c.level for c in scorer.concepts] == ["object"] * 365 + ["attribute"] * 102


def test_fixture_can_tell_layouts_and_quirk_apart(reference):
    assert np.abs(np.log(reference["category"]) - np.log(reference["category_clamped"])).max() > 100 * TOLERANCE
    plain = PlacesNetwork("resnet18")
    plain.load_state_dict({**plain.state_dict(), **TENSORS})
    scores = PlacesScorer(plain, MATRIX).score(IMAGES)
    assert np.abs(scores[:, 365:].numpy() - reference["attribute"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_lower_precision_stays_close(reference, files, precision):
    if precision == "int8" and not eight_bit.available():
        pytest.skip("whole numbers need a CPU with VNNI")
    scorer = PlacesScorer.load(*files, precision=precision)
    scores = scorer.score(IMAGES)
    expected = torch.from_numpy(reference["attribute"])
    assert (scores[:, 365:] - expected).abs().max() < 0.1 * expected.std()
    if precision == "int8":
        assert torch.equal(scorer.features(IMAGES[1:]), scorer.features(IMAGES)[1:])


@pytest.mark.parametrize("layout", ["resnet18", "resnet50"])
def test_plain_layouts_agree_with_transformers(layout):
    transformers = pytest.importorskip("transformers", reason="the independent ResNet is that of transformers")
    network = PlacesNetwork(layout, 7)
    tensors = by_rule(shapes_of(network), 3)
    network.load_state_dict({**network.state_dict(), **tensors})
    deep = layout == "resnet50"
    config = transformers.ResNetConfig(
        layer_type="bottleneck" if deep else "basic",
        depths=[3, 4, 6, 3] if deep else [2, 2, 2, 2],
        hidden_sizes=[256, 512, 1024, 2048] if deep else [64, 128, 256, 512],
    )
    other = transformers.ResNetModel(config).eval()
    other.load_state_dict(renamed(tensors, other.state_dict()))
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = network.eval().features(x), other(x).pooler_output.flatten(1)
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def renamed(tensors, wanted):
    """The same tensors under transformers' names."""
    kinds = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var"}
    result = {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")}
    for name, value in tensors.items():
        parts = name.split(".")
        if parts[0] in ("conv1", "bn1"):
            result[f"embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{parts[1]}"] = value
        elif parts[0].startswith("layer"):
            stage, block, what = int(parts[0][5]) - 1, parts[1], parts[2]
            front = f"encoder.stages.{stage}.layers.{block}"
            if what == "downsample":
                kind = "convolution" if parts[3] == "0" else "normalization"
                result[f"{front}.shortcut.{kind}.{kinds[parts[4]]}"] = value
            else:
                kind = "convolution" if what.startswith("conv") else "normalization"
                result[f"{front}.layer.{int(what[-1]) - 1}.{kind}.{kinds[parts[3]]}"] = value
    assert set(result) == set(wanted)
    return result


@pytest.mark.skipif(not eight_bit.available(), reason="whole numbers need a CPU with VNNI")
@pytest.mark.parametrize("layout", ["resnet18", "resnet50"])
def test_networks_in_whole_numbers(layout):
    """Blocks of two and of three convolutions, with and without a convolution on the shortcut."""
    network = PlacesNetwork(layout, 5)
    network.load_state_dict({**network.state_dict(), **by_rule(shapes_of(network), 3)})
    images = torch.randint(0, 256, (1, 3, 90, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple("abcde")
    expected = PlacesScorer(copy.deepcopy(network), categories=names).features(images)
    found = PlacesScorer(network, categories=names, precision="int8").features(images)
    assert (found - expected).abs().max() < 0.15 * expected.std()
