"""What each layer of an image generator has learned, measured and edited."""

from higan.errors import HiganError
from higan.generators import load_generator
from higan.scorers import load_scorer
from higan.segmenters import load_segmenter
from higan.store import load_boundary
from higan.types import (
    LEVELS,
    Boundary,
    Concept,
    Edit,
    Generator,
    Placement,
    Population,
    Rescoring,
    Scorer,
    Segmenter,
)

__version__ = "0.1.0"

__all__ = [
    "LEVELS",
    "Boundary",
    "Concept",
    "Edit",
    "Generator",
    "HiganError",
    "Placement",
    "Population",
    "Rescoring",
    "Scorer",
    "Segmenter",
    "__version__",
    "load_boundary",
    "load_generator",
    "load_scorer",
    "load_segmenter",
]
