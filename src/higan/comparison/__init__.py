"""Re-scorings side by side: of two generators, two checkpoints of one, or one generator at two steps.

::

    compare                effects, mean depths and agreement of two or more, every difference with its interval
    locate, agreement      where concepts lie in one, and how far two agree about it
    share_samples          whether two moved the same samples, and their differences are paired

Pure functions of `higan.types.Rescoring`. Depth is relative, 0 the first layer and 1 the last, so that generators with
other numbers of layers can be compared. There is no bootstrap of its own here: samples are drawn again by
`higan.statistics.resample_weights`, and intervals are those of `higan.statistics` and `higan.hierarchy`.
"""

from higan.comparison.agreement import Agreement, agreement, are_comparable, halves
from higan.comparison.compared import Compared, ConceptRow, LevelRow, Pair, compare
from higan.comparison.located import BINS, Located, binning, locate
from higan.comparison.reach import Reach, reach
from higan.comparison.samples import share_samples

__all__ = [
    "BINS",
    "Agreement",
    "Compared",
    "ConceptRow",
    "LevelRow",
    "Located",
    "Pair",
    "Reach",
    "agreement",
    "are_comparable",
    "binning",
    "compare",
    "halves",
    "locate",
    "reach",
    "share_samples",
]
