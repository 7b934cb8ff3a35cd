"""The whole study on any generator and scorer: sample, fit, re-score (sections 2 and 3.1), into one run folder.

Every step can be called alone, is skipped when the folder already holds its result for the same settings, and goes on
where it was interrupted.
"""

from higan.study.comparing import Comparison, compare_cost, compare_step, comparison
from higan.study.cost import Cost, estimate, unsampled
from higan.study.doubts import far_or_short, few_probed, few_verified, mostly_ties
from higan.study.fitting import fit_step, is_fitted, was_fitted
from higan.study.making import Making, cautions, making_of
from higan.study.opening import check, open_study
from higan.study.record import steps_of
from higan.study.reports import Report
from higan.study.rescoring import Goal, rescore_step, scanty, unscored
from higan.study.sampling import sample_step

__all__ = [
    "Comparison",
    "Cost",
    "Goal",
    "Making",
    "Report",
    "cautions",
    "check",
    "compare_cost",
    "compare_step",
    "comparison",
    "estimate",
    "far_or_short",
    "few_probed",
    "few_verified",
    "fit_step",
    "is_fitted",
    "making_of",
    "mostly_ties",
    "open_study",
    "rescore_step",
    "sample_step",
    "scanty",
    "steps_of",
    "unsampled",
    "unscored",
    "was_fitted",
]
