"""Your own predictor: any callable from images to an (n, C) array of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from higan.blame import blamed
from higan.errors import ScorerError
from higan.named import import_named, instance_of, lacks
from higan.scorers.labels import Names, named
from higan.scorers.rooms import check_images
from higan.types import Level, Scorer

__all__ = ["CallableScorer", "checked", "import_scorer"]


class CallableScorer:
    """A function as a scorer.

    Args:
        function: takes uint8 images (n, 3, H, W), returns a tensor or array (n, C), or (n,) for one concept.
        concepts: their names, in the order of the columns; ``attribute: wooden`` says the level as well.
        level: of concepts that do not say theirs.
        name: what people type; by default the function's own.

    Raises:
        ValueError: no concepts, or two of one name.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        concepts: Names,
        *,
        level: Level = "attribute",
        name: str | None = None,
    ) -> None:
        self.name = name or getattr(function, "__name__", None) or type(function).__name__
        self.concepts = named(concepts, level)
        if not self.concepts:
            raise ValueError(f"{self.name}: name at least one concept; the columns of the scores need names")
        self._function = function

    def score(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        """What the function gives, as floats; whether they are finite is for `higan.population.score` to see.

        Raises:
            ScorerError: it gives something else than one number per image and concept, or raises anything.
        """
        check_images(images)
        with blamed(f"scorer {self.name!r}", ScorerError):
            value = self._function(images)
        return checked(value, len(images), len(self.concepts), self.name).to(images.device)


def checked(value: Any, num: int, columns: int, name: str) -> Float[Tensor, "n C"]:
    """Foreign scores as a float tensor of the expected shape.

    Raises:
        ScorerError: they are not.
    """
    try:
        scores = torch.as_tensor(value).float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScorerError(
            f"scorer {name!r} must return a tensor or array of numbers; got {type(value).__name__} ({error})"
        ) from error
    if columns == 1 and tuple(scores.shape) == (num,):
        scores = scores[:, None]
    if tuple(scores.shape) != (num, columns):
        raise ScorerError(
            f"scorer {name!r} must return one column per concept, shape ({num}, {columns}); got {tuple(scores.shape)}. "
            "Name as many concepts as it has outputs"
        )
    return scores


def import_scorer(reference: str, concepts: Names | None = None, level: Level | None = None) -> Scorer:
    """The scorer behind ``module:name``: a `Scorer`, a class that makes one, or a function with its concepts.

    A function names its concepts in an attribute, ``predict.concepts = ["wood", "colour: warm"]``, unless they are
    given here; ``level`` is that of concepts that do not say theirs, by default ``attribute``. Importing a module runs
    it: name only modules that you trust.

    Raises:
        MissingWeightsError: there is no such module or name in it.
        BrokenModuleError: the module cannot be imported, or the class fails to make an instance.
        ValueError: the reference has another form, a class needs arguments, the concepts are nowhere named, or given
            to a scorer that names its own.
    """
    found = instance_of(reference, import_named(reference))
    if not lacks(found, Scorer):
        if concepts is not None or level is not None:
            raise ValueError(f"{reference} is a scorer with concepts of its own; leave concepts and level out")
        return found
    if not callable(found):
        raise ValueError(  # noqa: TRY004 - the argument is the text, and it names the wrong thing
            f"{reference} is {type(found).__name__}; expected a callable from images to scores, or a scorer, which "
            f"has {', '.join(lacks(found, Scorer))} as well"
        )
    names = concepts if concepts is not None else getattr(found, "concepts", None)
    if names is None:
        raise ValueError(
            f"{reference} does not name its concepts; pass concepts=[…], or set "
            f"`{reference.partition(':')[2]}.concepts = […]` in the module"
        )
    return CallableScorer(found, names, level=level or "attribute", name=reference.partition(":")[2])
