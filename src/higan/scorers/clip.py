"""Open vocabulary: any words become concepts, scored by a CLIP-family model of transformers (Radford et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from higan.errors import MissingWeightsError, UnknownFormatError
from higan.extras import open_pretrained, optional, read_steps
from higan.preprocessing import Preprocessing
from higan.scorers.labels import Names, named, read_names
from higan.scorers.rooms import check_images
from higan.types import Concept, Level

__all__ = ["DEFAULT_MODEL", "ClipScorer", "guess_level"]

DEFAULT_MODEL = "openai/clip-vit-base-patch32"

_WORDS: tuple[tuple[Level, str], ...] = (
    (
        "layout",
        "view viewed viewpoint angle camera perspective left right centre center close far distant wide narrow tilted "
        "horizon symmetric symmetrical layout frontal above below corner spacious high low",
    ),
    (
        "colour",
        "colour color coloured colored colourful colorful red orange yellow green blue purple violet pink brown black "
        "white grey gray beige pastel warm cool hue tone toned monochrome saturated",
    ),
    (
        "attribute",
        "wooden wood metal metallic glass brick marble tiled carpeted leather stone concrete plastic glossy shiny "
        "matte old aged modern rustic vintage new dirty clean tidy messy cluttered empty bright dark dim lit sunny "
        "cloudy snowy rainy foggy night day natural artificial lighting light cosy cozy scary soothing elegant "
        "luxurious patterned striped rough smooth wet dry open enclosed style",
    ),
)
_LEVEL_OF = {word: level for level, words in _WORDS for word in words.split()}


def guess_level(text: str) -> Level:
    """Level of a phrase by its words: colours, then layout, then attributes; anything else is an object.

    A rule of thumb over a fixed list of words; say the level yourself where it is wrong (``layout: …``).
    """
    found = {_LEVEL_OF.get(word) for word in re.findall(r"[a-z]+", text.lower())}
    for level in ("colour", "layout", "attribute"):
        if level in found:
            return level
    return "object"


class ClipScorer:
    """How much an image looks like a phrase.

    With ``against`` the score is the model's log-odds of the phrase against that other one, t·(cos(i, phrase) −
    cos(i, against)) with the model's own scale t; without, it is t·cos(i, phrase). The difference is what to use: it
    cancels what both phrases share, such as how photographic the image is.

    Args:
        name_or_path: local folder or name on the hub; CLIP, SigLIP and their like.
        phrases: concepts; the name is the phrase. Strings may carry their level (``attribute: a room with wooden
            furniture``); for others it is guessed by `guess_level`, and ``guessed`` names them.
        against: one phrase for all, one per concept, or None.
        device: where it runs.
        name: what people type.

    Raises:
        MissingExtraError, MissingWeightsError, CheckpointError: see `higan.extras.open_pretrained`.
        ValueError: no phrases, or another number of phrases to set against them.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        phrases: Names,
        against: str | Sequence[str] | None = None,
        *,
        device: torch.device | str = "cpu",
        name: str = "clip",
    ) -> None:
        self.concepts, self.guessed = _with_levels(phrases)
        others = [against] * len(self.concepts) if isinstance(against, str) else list(against or ())
        if others and len(others) != len(self.concepts):
            raise ValueError(f"against must be one phrase or one per concept ({len(self.concepts)}); got {len(others)}")
        self.name = name
        self.device = torch.device(device)
        model = open_pretrained("AutoModel", name_or_path)
        if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
            raise UnknownFormatError(f"{name_or_path} is no model of pictures and text; expected CLIP, SigLIP or such")
        self.preprocessing = Preprocessing.from_config(read_steps(name_or_path))
        tokenizer = _tokenizer(name_or_path)
        scale = model.logit_scale.detach().float().exp()
        with torch.inference_mode():
            text = _embedded(model, tokenizer, [concept.name for concept in self.concepts])
            if others:
                text = text - _embedded(model, tokenizer, others)
        self._text = (scale * text).clone().to(self.device)
        self._model = model.to(self.device)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Log-odds of every phrase against its counterpart, or scaled cosines."""
        check_images(images)
        pictures = _vectors(self._model.get_image_features(pixel_values=self.preprocessing(images.to(self.device))))
        return normalize(pictures.float(), dim=-1) @ self._text.T


def _with_levels(phrases: Names) -> tuple[tuple[Concept, ...], tuple[str, ...]]:
    """Concepts, and the names of those whose level was guessed."""
    listed = read_names(phrases) if isinstance(phrases, str | Path) else phrases
    if not listed:
        raise ValueError("name at least one phrase, as in concepts=['a room with wooden furniture']")
    sure: list[str | Concept] = []
    guessed = []
    for phrase in listed:
        if isinstance(phrase, Concept):
            sure.append(phrase)
            continue
        (as_layout,), (as_object,) = named([phrase], "layout"), named([phrase], "object")
        if as_layout.level != as_object.level:  # it did not say its level
            guessed.append(as_object.name)
            sure.append(Concept(as_object.name, guess_level(as_object.name)))
        else:
            sure.append(as_object)
    return named(sure, "object"), tuple(guessed)


_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def _tokenizer(name_or_path: str | Path) -> Any:
    transformers = optional("transformers", "transformers")
    folder = Path(name_or_path)
    # transformers makes do with an empty vocabulary where the files are missing: every phrase would be the same.
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise MissingWeightsError(
            f"{folder}: the tokenizer's files are missing, expected one of {', '.join(_TOKENIZERS)}; copy them from "
            "where the model was published"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(str(name_or_path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingWeightsError(
            f"{name_or_path}: the tokenizer's files are missing or cannot be read ({str(error)[:150]}); copy them from "
            "where the model was published"
        ) from error


def _embedded(model: Any, tokenizer: Any, texts: list[str]) -> Float[Tensor, "C d"]:
    """Unit vectors of texts, padded as the model was trained: SigLIP to its full length, CLIP to the longest text."""
    length = model.config.text_config.max_position_embeddings
    padding = "max_length" if "siglip" in model.config.model_type else True
    tokens = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    wanted = {k: v for k, v in tokens.items() if k in ("input_ids", "attention_mask")}
    if "siglip" in model.config.model_type:
        wanted.pop("attention_mask", None)
    return normalize(_vectors(model.get_text_features(**wanted)).float(), dim=-1)


def _vectors(output: Any) -> Tensor:
    """Embeddings, whether transformers wraps them or not."""
    return output if isinstance(output, Tensor) else output.pooler_output
