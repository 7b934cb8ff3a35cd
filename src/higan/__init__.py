"""What each layer of an image generator has learned, measured and edited.

Every step is a function of a module, and returns data::

    from higan import boundaries, hierarchy, load_generator, load_scorer, population, refits, rescoring, statistics

    generator, scorer = load_generator("rooms"), load_scorer("rooms")
    probe = population.measure(generator, scorer, population.sample_seeds(2000))  # codes (n, l, D), scores (n, C)
    found = boundaries.fit(probe)  # a unit normal per concept
    null = refits.permuted(probe, 20)  # what a fit finds where there is nothing
    result = rescoring.rescore(generator, scorer, found, num=100, permuted=null)  # Eq. (1), at all sets of layers
    ranking = statistics.rank(result)  # strongest first: Δs, interval, q, verified
    profile = hierarchy.profile(result)  # which layers hold which level
    print(hierarchy.finding(profile))

`higan.study` does the same in a run folder, goes on where it was interrupted, and is what the command line runs;
`higan.report` draws its page. `higan.workbench` edits, `higan.adaptive` re-scores until the ranking is settled,
`higan.comparison` sets studies side by side, `higan.directions` finds directions without labels, `higan.inversion` the
codes of photographs, `higan.transitions` what becomes of objects, `higan.effects` what else an edit changes.
`higan.types` holds the letters, the protocols of generators and scorers of your own, and what all of these return.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "HiganError": "errors",
    "load_boundary": "store",
    "load_generator": "generators",
    "load_scorer": "scorers",
    "load_segmenter": "segmenters",
}
"""Where the names above come from; all others from ``types``."""

if not TYPE_CHECKING:  # which would take any name for known

    def __getattr__(name: str) -> object:
        """Names, and modules, when they are first asked for: torch and all the rest take a second or two to load."""
        if name in __all__:
            found = getattr(import_module(f"higan.{_HOMES.get(name, 'types')}"), name)
        elif name.startswith("_"):
            raise AttributeError(f"module 'higan' has no attribute {name!r}")
        else:
            try:
                found = import_module(f"higan.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"higan.{name}":
                    raise
                raise AttributeError(f"module 'higan' has no attribute {name!r}") from None
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
