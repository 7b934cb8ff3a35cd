"""Segmenters of transformers: masks follow from the models' own outputs, things and stuff from the documented list."""

import pytest
import torch

import higan
import hub_folders
from higan.errors import CorruptFileError, MissingWeightsError
from higan.segmenters.ade20k import STUFF, TransformersSegmenter, described
from higan.types import Segmenter

IMAGES = torch.randint(0, 256, (3, 3, 40, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
MODELS = {
    "segformer": hub_folders.segformer,
    "upernet": hub_folders.upernet,
    "mask2former": hub_folders.mask2former,
}


@pytest.fixture(params=MODELS, scope="module")
def folder(request, tmp_path_factory):
    return MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


def test_masks_are_the_largest_of_the_model_s_maps(folder):
    segmenter = higan.load_segmenter("ade20k", weights=folder)
    assert isinstance(segmenter, Segmenter)
    masks = segmenter.segment(IMAGES)
    assert masks.shape == (3, 40, 48)
    assert masks.dtype == torch.uint8
    output = segmenter._model(pixel_values=segmenter.preprocessing(IMAGES))
    if "logits" in output:
        maps = output.logits
    else:  # spelt out, query by query
        maps = torch.zeros(3, 6, *output.masks_queries_logits.shape[2:])
        for query in range(output.masks_queries_logits.shape[1]):
            share = output.class_queries_logits[:, query].softmax(-1)[:, :6]
            maps += share[:, :, None, None] * output.masks_queries_logits[:, query : query + 1].sigmoid()
    torch.testing.assert_close(segmenter.maps(IMAGES), maps, atol=1e-5, rtol=1e-5)
    full = torch.nn.functional.interpolate(maps, (40, 48), mode="bilinear", align_corners=False)
    top = full.topk(2, 1).values
    sure = top[:, 0] - top[:, 1] > 1e-4
    assert sure.float().mean() > 0.5
    assert torch.equal(masks[sure], full.argmax(1).to(torch.uint8)[sure])


def test_masks_do_not_depend_on_the_batch(folder):
    segmenter = TransformersSegmenter(folder)
    alone = torch.cat([segmenter.segment(image[None]) for image in IMAGES])
    assert (alone == segmenter.segment(IMAGES)).float().mean() > 0.999


def test_shares_of_classes_become_concepts(folder):
    segmenter = higan.load_segmenter(folder)
    scorer = higan.load_scorer("segments", segmenter=segmenter)
    scores = scorer.score(IMAGES)
    assert [c.name for c in scorer.concepts][:3] == ["share of wall", "share of bed", "share of windowpane"]
    torch.testing.assert_close(scores[:, 4], (segmenter.segment(IMAGES) == 4).float().mean((1, 2)))


def test_classes_are_named_and_sorted_into_things_and_stuff():
    classes = described(hub_folders.LABELS.values())
    assert [c.name for c in classes] == ["wall", "bed", "windowpane", "sea", "lamp", "chest of drawers"]
    assert [c.kind for c in classes] == ["stuff", "thing", "thing", "stuff", "thing", "thing"]
    assert len({c.colour for c in described(str(k) for k in range(256))}) == 256


def test_names_stay_different_where_first_synonyms_agree():
    assert [c.name for c in described(["screen", "screen, silver screen"])] == ["screen", "screen, silver screen"]


def test_the_list_of_stuff_has_fifty_classes_and_two_second_spellings():
    assert len(STUFF - {"swimming pool", "waterfall"}) == 50


def test_what_is_missing_is_told(tmp_path):
    hub_folders.library()
    with pytest.raises(MissingWeightsError, match="hf download nobody/nothing"):
        higan.load_segmenter("nobody/nothing")
    with pytest.raises(MissingWeightsError, match="hf download nvidia/segformer"):
        higan.load_segmenter("ade20k")
    with pytest.raises(MissingWeightsError, match="no such file"):
        higan.load_segmenter(str(tmp_path / "weights.safetensors"))
    (tmp_path / "config.json").write_text("not JSON")
    with pytest.raises(MissingWeightsError, match=r"lacks a file|not.*JSON"):
        higan.load_segmenter(tmp_path)
    with pytest.raises(ValueError, match="goes with the name ade20k"):
        higan.load_segmenter("rooms", weights=tmp_path)


def test_damaged_steps_are_told(tmp_path):
    folder = hub_folders.segformer(tmp_path / "model")
    (folder / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(CorruptFileError, match="not a JSON object"):
        TransformersSegmenter(folder)
