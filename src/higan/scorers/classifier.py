"""Image classifiers of transformers: a local folder or a name on the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.extras import open_config, open_pretrained, read_json
from higan.preprocessing import Preprocessing
from higan.scorers.labels import Names, named
from higan.scorers.rooms import check_images
from higan.types import Level

__all__ = ["ClassifierScorer"]


class ClassifierScorer:
    """One concept per class, with the names in the model's ``config.json``.

    Scores are log-odds: of a class against all others where they exclude each other, of its presence where the model
    is a multi-label one.

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
        inside = [config.id2label[k] for k in range(config.num_labels)]
        self.name = Path(name_or_path).name
        self.concepts = named(inside if concepts is None else concepts, level)
        if len(self.concepts) != config.num_labels:
            raise ValueError(f"{name_or_path} has {config.num_labels} classes; got {len(self.concepts)} names")
        self.device = torch.device(device)
        self.preprocessing = Preprocessing.from_config(read_json(name_or_path, "preprocessor_config.json"))
        self._multi = config.problem_type == "multi_label_classification"
        self._model = open_pretrained("AutoModelForImageClassification", name_or_path).to(self.device)

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """Log-odds of every class."""
        check_images(images)
        logits = self._model(pixel_values=self.preprocessing(images.to(self.device))).logits.float()
        if self._multi:
            return logits
        probability = torch.log_softmax(logits.double(), 1)
        # log(1 − p) by way of expm1 keeps its digits where a class is almost certain.
        rest = torch.log((-torch.expm1(probability)).clamp(min=1e-300))
        return (probability - rest).float()
