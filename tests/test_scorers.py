"""Colour against values known from the standard; the contracts of the embedded scorers; opening by name."""

import pytest
import torch

import higan
from higan.errors import CorruptFileError, MissingWeightsError, UnknownFormatError
from higan.scorers.colour import ColourScorer, srgb_to_lab
from higan.scorers.combined import ChosenScorer, CombinedScorer
from higan.scorers.rooms import Output, RoomsScorer, RoomsScorerNetwork, decode, fit_size
from higan.scorers.toy import ToyScorer
from higan.segmenters.rooms import RoomsSegmenter, RoomsSegmenterNetwork
from higan.types import Scorer, SegmentClass, Segmenter


def plain(red, green, blue, n=1, size=4):
    return torch.tensor([red, green, blue], dtype=torch.uint8)[None, :, None, None].expand(n, 3, size, size)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    assert srgb_to_lab(plain(*rgb))[0, :, 0, 0].tolist() == pytest.approx(lab, abs=0.05)


def test_colour_scores_rank_as_people_would():
    images = torch.cat([plain(230, 120, 60), plain(60, 120, 230), plain(128, 128, 128), plain(250, 250, 250)])
    warm, red, colourful, light = ColourScorer().score(images).T
    assert warm[0] > warm[2] > warm[1]
    assert red[0] > red[2]
    assert colourful[2] < 0.1 < colourful[1]
    assert light[3] == light.max()


def rooms_scorer():
    torch.manual_seed(0)
    outputs = (
        Output("yaw", "layout", "scale", offset=2.0, spread=3.0),
        Output("corner", "layout", "scale", shown=False),
        Output("bedroom", "object", "category"),
        Output("kitchen", "object", "category"),
        Output("plant", "object", "binary"),
    )
    return RoomsScorer(RoomsScorerNetwork(5, (8, 12), 16), outputs)


def test_decoding_by_hand():
    raw = torch.tensor([[0.5, 0.1, 2.0, 1.0, -0.3]])
    scores = decode(raw, rooms_scorer().outputs)
    assert scores[0].tolist() == pytest.approx([3.5, 0.1, 1.0, -1.0, -0.3])


def test_rooms_scorer_keeps_the_contract(tmp_path):
    scorer = rooms_scorer()
    assert isinstance(scorer, Scorer)
    assert [c.name for c in scorer.concepts] == ["yaw", "bedroom", "kitchen", "plant"]
    images = torch.randint(256, (5, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    scores = scorer.score(images)
    assert scores.shape == (5, 4)
    assert torch.allclose(scorer.score(images[2:3]), scores[2:3], atol=1e-5)
    scorer.save(tmp_path / "mine.safetensors")
    again = higan.load_scorer(tmp_path / "mine.safetensors")
    assert again.name == "mine"
    assert torch.allclose(again.score(images), scores, atol=0.05)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "mine.safetensors").read_bytes()[:-50])
    with pytest.raises(CorruptFileError, match="truncated"):
        higan.load_scorer(tmp_path / "cut.safetensors")
    (tmp_path / "foreign.safetensors").write_bytes(b"not a weight file at all")
    with pytest.raises((UnknownFormatError, CorruptFileError)):
        higan.load_scorer(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("scorer", [rooms_scorer(), ColourScorer()], ids=["rooms", "colour"])
@pytest.mark.parametrize("images", [torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.uint8)])
def test_wrong_images_are_refused(scorer, images):
    with pytest.raises(Exception, match=r"uint8|UInt8"):
        scorer.score(images)


def test_sizes_are_averaged_down():
    images = torch.randint(256, (2, 3, 128, 128), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    small = fit_size(images, 64)
    assert small.shape == (2, 3, 64, 64)
    assert small[0, 0, 0, 0] == pytest.approx(float(images[0, 0, :2, :2].float().mean() / 127.5 - 1), abs=1e-5)
    assert fit_size(images[:, :, :40, :48], 64).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("widths", "size"), [((4, 6, 8, 8), 64), ((4, 4, 6, 8, 8), 128)])
def test_the_number_of_widths_says_what_size_is_read(widths, size, tmp_path):
    torch.manual_seed(0)
    scorer = RoomsScorer(RoomsScorerNetwork(2, widths, 16), (Output("a", "object", "binary"),) * 2)
    segmenter = RoomsSegmenter(RoomsSegmenterNetwork(1, widths), (SegmentClass("wall", "stuff", (1, 2, 3)),))
    assert scorer.network.size == segmenter.network.size == size
    sharp = torch.randint(256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    inputs = sharp.float() / 127.5 - 1
    assert torch.allclose(scorer.features(sharp), scorer.network.features(inputs), atol=1e-5)
    # Twice as large, it is averaged down to the very same.
    assert torch.equal(scorer.features(sharp.repeat_interleave(2, 2).repeat_interleave(2, 3)), scorer.features(sharp))
    assert segmenter.segment(sharp).shape == (2, size, size)
    for model, loaded in ((scorer, RoomsScorer), (segmenter, RoomsSegmenter)):
        model.save(tmp_path / "m.safetensors")
        assert loaded.load(tmp_path / "m.safetensors").network.size == size


def test_scorers_combine():
    both = CombinedScorer([ToyScorer(2, 8), ColourScorer()])
    images = torch.randint(256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert both.name == "toy+colour"
    assert torch.equal(both.score(images)[:, 4:], ColourScorer().score(images))
    with pytest.raises(ValueError, match=r"different names.*constant.*: give toy only once$"):
        CombinedScorer([ToyScorer(), ToyScorer()])
    with pytest.raises(ValueError, match=r"constant, .*: take one of toy, other$"):
        CombinedScorer([ToyScorer(), ColourScorer(), CombinedScorer([ToyScorer()], "other")])
    with pytest.raises(ValueError, match="constant: toy has them more than once"):
        CombinedScorer([ChosenScorer(ToyScorer(), ["constant"] * 2), ColourScorer()])
    with pytest.raises(ValueError, match="at least one"):
        CombinedScorer([])
    assert higan.load_scorer("toy+colour").concepts == CombinedScorer([ToyScorer(), ColourScorer()]).concepts


def test_missing_weights_are_named():
    with pytest.raises(MissingWeightsError, match=r"nowhere\.pt: no such file.*rooms"):
        higan.load_scorer("nowhere.pt")
    with pytest.raises(MissingWeightsError, match=r"nowhere\.pt"):
        higan.load_segmenter("nowhere.pt")


def test_segmenter_keeps_the_contract(tmp_path):
    torch.manual_seed(0)
    classes = (SegmentClass("wall", "stuff", (1, 2, 3)), SegmentClass("bed", "thing", (4, 5, 6)))
    segmenter = RoomsSegmenter(RoomsSegmenterNetwork(2, (8, 12, 16, 16)), classes)
    assert isinstance(segmenter, Segmenter)
    images = torch.randint(256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks = segmenter.segment(images)
    assert masks.shape == (3, 64, 64)
    assert masks.dtype == torch.uint8
    assert int(masks.max()) <= 1
    assert segmenter.segment(images[:, :, :50, :60]).shape == (3, 50, 60)
    segmenter.save(tmp_path / "s.safetensors")
    again = higan.load_segmenter(tmp_path / "s.safetensors")
    assert again.classes == classes
    assert (again.segment(images) == masks).float().mean() > 0.95
    with pytest.raises(ValueError, match="got 1 descriptions"):
        RoomsSegmenter(RoomsSegmenterNetwork(2), classes[:1])
