"""Places365: what people get wrong about files, names and W is told; parity with the official tool is in parity/."""

import numpy as np
import pytest
import torch

import higan
from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.scorers import eight_bit
from higan.scorers.places import PlacesNetwork, PlacesScorer
from higan.types import Scorer


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(0)
    network = PlacesNetwork("resnet18", 5)
    return {
        k: v if v.dtype == torch.long else (v + 0.01 * torch.randn(v.shape, generator=generator)).abs()
        for k, v in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory):
    """Published names, five categories, three attributes."""
    folder = tmp_path_factory.mktemp("places")
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, folder / "resnet18_places365.pth.tar")
    torch.save({"state_dict": tensors}, folder / "mine.pth")
    np.save(folder / "W.npy", np.random.default_rng(0).normal(size=(3, 512)))
    (folder / "categories.txt").write_text("/a/attic 0\n/b/bar/indoor 1\n/c/church 2\n/d/dam 3\n/o/ocean 4\n")
    (folder / "attributes.txt").write_text("still water\nocean\nman-made\n")
    return folder


def names(folder):
    return {"categories": folder / "categories.txt", "attributes": folder / "attributes.txt"}


def test_own_names_and_matrix(folder):
    scorer = higan.load_scorer(
        "places365", weights=folder / "resnet18_places365.pth.tar", attribute_matrix=folder / "W.npy", **names(folder)
    )
    assert isinstance(scorer, Scorer)
    assert [(c.name, c.level) for c in scorer.concepts] == [
        ("attic", "object"),
        ("bar__indoor", "object"),
        ("church", "object"),
        ("dam", "object"),
        ("ocean", "object"),
        ("still_water", "attribute"),
        ("ocean_attribute", "attribute"),
        ("man-made", "attribute"),
    ]
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scores = scorer.score(images)
    torch.testing.assert_close(scores[:, :5].sum(1), torch.ones(3))
    features = scorer.features(images)
    matrix = torch.from_numpy(np.load(folder / "W.npy")).float()
    torch.testing.assert_close(scores[:, 5:], features @ matrix.T)
    torch.testing.assert_close(scorer.score(images[1:2])[0], scores[1], atol=1e-4, rtol=1e-4)


def test_a_published_file_by_its_path_gives_categories_alone(folder):
    scorer = higan.load_scorer(folder / "resnet18_places365.pth.tar", categories=folder / "categories.txt")
    assert len(scorer.concepts) == 5


def test_the_name_alone_says_what_is_needed_and_where_it_is_published():
    with pytest.raises(
        MissingWeightsError, match=r"http\S*/wideresnet18_places365\.pth\.tar.*http\S*/W_sceneattribute"
    ):
        higan.load_scorer("places365")


def test_missing_files_say_where_they_are_published(folder, tmp_path):
    with pytest.raises(MissingWeightsError, match=r"published at http\S*/wideresnet18_places365\.pth\.tar"):
        PlacesScorer.load(tmp_path / "x.pth.tar")
    with pytest.raises(MissingWeightsError, match=r"published at http\S*/W_sceneattribute_wideresnet18\.npy"):
        PlacesScorer.load(folder / "resnet18_places365.pth.tar", tmp_path / "W.npy", **names(folder))


def test_layout_is_asked_for_where_it_cannot_be_told(folder):
    with pytest.raises(ValueError, match="pass layout='wideresnet18'"):
        PlacesScorer.load(folder / "mine.pth", categories=folder / "categories.txt")
    found = PlacesScorer.load(folder / "mine.pth", categories=folder / "categories.txt", layout="wideresnet18")
    assert not found.network.max_pool


def test_other_networks_are_refused(folder, tmp_path):
    torch.save({"state_dict": {"features.0.weight": torch.zeros(3)}}, tmp_path / "alexnet_places365.pth.tar")
    with pytest.raises(UnknownFormatError, match=r"not a ResNet of Places365.*resnet50_places365"):
        PlacesScorer.load(tmp_path / "alexnet_places365.pth.tar")
    with pytest.raises(CorruptFileError, match="does not fit its layout"):
        PlacesScorer.load(folder / "mine.pth", layout="resnet50")


def test_weights_that_are_not_finite_are_refused(tensors, tmp_path):
    torch.save({"state_dict": tensors | {"fc.bias": torch.full((5,), torch.nan)}}, tmp_path / "resnet18.pth")
    with pytest.raises(CorruptFileError, match="not finite"):
        PlacesScorer.load(tmp_path / "resnet18.pth")


def test_names_of_wrong_number_are_told(folder):
    with pytest.raises(ValueError, match="has 5 categories, the list of names 365"):
        PlacesScorer.load(folder / "resnet18_places365.pth.tar")
    with pytest.raises(ValueError, match=r"must have shape \(102, 512\).*got \(3, 512\)"):
        PlacesScorer.load(folder / "resnet18_places365.pth.tar", folder / "W.npy", categories=folder / "categories.txt")


@pytest.mark.parametrize(
    ("matrix", "error", "reason"),
    [
        (np.zeros((3, 511)), ValueError, r"must have shape \(3, 512\).*got \(3, 511\)"),
        (np.zeros((3, 512), np.int64), UnknownFormatError, "not an attribute matrix"),
        (np.zeros(512), UnknownFormatError, "not an attribute matrix"),
        (np.full((3, 512), np.nan), CorruptFileError, "NaN"),
        (np.array({"W": 1}, dtype=object), UnknownFormatError, "not an attribute matrix"),
    ],
)
def test_wrong_matrices_are_told(folder, tmp_path, matrix, error, reason):
    np.save(tmp_path / "W.npy", matrix, allow_pickle=True)
    with pytest.raises(error, match=reason):
        PlacesScorer.load(folder / "resnet18_places365.pth.tar", tmp_path / "W.npy", **names(folder))


def test_precision_is_one_of_three():
    # Under pytest the type annotations refuse it even before the check that users meet.
    with pytest.raises((ValueError, TypeError), match="int4"):
        PlacesScorer(PlacesNetwork("resnet18"), precision="int4")


def test_whole_numbers_need_the_processor(monkeypatch):
    monkeypatch.setattr(eight_bit, "available", lambda: False)
    with pytest.raises(ValueError, match="needs a CPU with VNNI"):
        PlacesScorer(PlacesNetwork("resnet18"), precision="int8")


@pytest.mark.skipif(not eight_bit.available(), reason="whole numbers need a CPU with VNNI")
@pytest.mark.parametrize(("stride", "size"), [(1, 3), (2, 3), (2, 1)])
def test_convolution_in_whole_numbers(stride, size):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(16, 24, size, stride, size // 2)
    x = torch.rand(1, 16, 20, 20) ** 3 * 7
    with torch.no_grad():
        found, expected = eight_bit.EightBitConv(conv)(eight_bit.rounded(x)), conv(x)
        assert (found - expected).abs().max() < 0.03 * expected.std()
        positive = eight_bit.EightBitConv(conv, relu=True)(eight_bit.rounded(x))
        assert torch.equal(positive, found.clamp(min=0))
        zero = eight_bit.EightBitConv(conv)(eight_bit.rounded(torch.zeros_like(x)))
    torch.testing.assert_close(zero, conv.bias.detach()[None, :, None, None].expand_as(zero))
