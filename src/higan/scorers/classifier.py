"""Image classifiers of transformers: a local folder or a name on the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.extras import open_config, open_pretrained, read_steps
from higan.preprocessing import Preprocessing
from higan.scorers.labels import Names, named, told_apart
from higan.scorers.rooms import check_images
from higan.types import Level

__all__ = ["ClassifierScorer"]


class ClassifierScorer:
    """One concept per class, with the names in the model's ``config.json``.

    Scores are log-odds: of a class against all others where they exclude each other, of its presence where the model
    is a multi-label one. A regression model and one with a single output give that output.

    Args:
        name_or_path: folder with ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``, or a name on
            the hub.
        concepts: other names, one per class.
        level: of concepts that do not say theirs.
        device: where it runs.

    Raises:
        MissingExtraError, MissingWeightsError, CheckpointError: see `higan.extras.open_pretrained`.
        ValueError: the names do not fit the model.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        concepts: Names | None = None,
        *,
        level: Level = "object",
        device: torch.device | str = "cpu",
    ) -> None:
        config = open_config(name_or_path)
        inside = told_apart([config.id2label[k].strip() for k in range(config.num_labels)])
        self.name = Path(name_or_path).name
        self.concepts = named(inside if concepts is None else concepts, level)
        if len(self.concepts) != config.num_labels:
            raise ValueError(f"{name_or_path} has {config.num_labels} classes; got {len(self.concepts)} names")
        self.device = torch.device(device)
        self.preprocessing = Preprocessing.from_config(read_steps(name_or_path))
        alone = config.problem_type in ("multi_label_classification", "regression") or config.num_labels == 1
        self._exclusive = not alone
        self._model = open_pretrained("AutoModelForImageClassification", name_or_path).to(self.device)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Log-odds of every class, or the model's own outputs."""
        check_images(images)
        logits = self._model(pixel_values=self.preprocessing(images.to(self.device))).logits.float()
        return _log_odds(logits) if self._exclusive else logits


def _log_odds(logits: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Of every class against all others together.

    All but the likeliest have at most half of the probability, so that what is left for the others keeps its digits in
    float32, which is all that some devices have. The likeliest is left out of the sum instead.
    """
    whole = logits.logsumexp(1, keepdim=True)
    rest = whole + torch.log1p(-torch.exp(logits - whole))
    top = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return logits - rest.scatter(1, top, others)
