"""Small models of transformers with random weights, saved as the hub would serve them."""

import json
import os
import string

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"


def library():
    """transformers, or the test is skipped."""
    return pytest.importorskip("transformers", reason="needs the extra: pip install 'higan[transformers]'")


SIZE = 32
STEPS = {
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
}


def save(model, folder, steps=STEPS, *, safe=True):
    """A folder with configuration, weights and the steps before them."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("weight", "embedding", "bias")) and parameter.ndim:
                parameter.normal_(0, 0.3, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    if safe:
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    return folder


def clip(folder):
    """CLIP of a few thousand weights, with a tokenizer of single letters."""
    transformers = library()
    text = {"vocab_size": 200, "max_position_embeddings": 40, "bos_token_id": 188, "eos_token_id": 189}
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=text | narrow | {"projection_dim": 8, "pad_token_id": 189},
        vision_config=narrow | {"image_size": SIZE, "patch_size": 8, "projection_dim": 8},
        projection_dim=8,
    )
    steps = STEPS | {"size": {"shortest_edge": SIZE}, "do_center_crop": True, "resample": 3}
    steps["crop_size"] = {"height": SIZE, "width": SIZE}
    save(transformers.CLIPModel(config), folder, steps)
    letters = [c for c in string.printable if not c.isspace()]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def classifier(
    folder,
    problem="single_label_classification",
    *,
    safe=True,
    labels=("bedroom", "church", "kitchen"),
    dtype=torch.float32,
):
    """A ResNet with a few classes."""
    transformers = library()
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", problem_type=problem
    )
    config.id2label = dict(enumerate(labels))
    return save(transformers.ResNetForImageClassification(config).to(dtype), folder, safe=safe)


LABELS = {0: "wall", 1: "bed ", 2: "windowpane", 3: "sea, ocean", 4: "lamp", 5: "chest of drawers; dresser"}


def segformer(folder):
    transformers = library()
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16
    )
    config.id2label = LABELS
    return save(transformers.SegformerForSemanticSegmentation(config), folder)


def upernet(folder):
    transformers = library()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, use_auxiliary_head=False, pool_scales=[1, 2]
    )
    config.id2label = LABELS
    return save(transformers.UperNetForSemanticSegmentation(config), folder)


def mask2former(folder):
    transformers = library()
    pytest.importorskip("scipy", reason="Mask2Former needs scipy, which the extra 'transformers' brings")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, image_size=2 * SIZE, out_features=stages
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=5,
    )
    config.id2label = LABELS
    # Its smallest maps have 1/32 of the size, and must have more than one pixel.
    steps = STEPS | {"size": {"height": 2 * SIZE, "width": 2 * SIZE}}
    return save(transformers.Mask2FormerForUniversalSegmentation(config), folder, steps)
