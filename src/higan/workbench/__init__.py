"""A generator with everything that editing needs at hand; from edits as people write them to edited codes.

One line edits a picture::

    picture = edit(open_workbench(run, generator, scorer), ["indoor_lighting=+2", "view_yaw=-1.5@0-1"], seed=7)
"""

from higan.workbench.amounts import Reached, approach, calibrate, reach, response
from higan.workbench.bench import Workbench, open_workbench, with_directions
from higan.workbench.pictures import Edited, digest_of_codes, draw, edit, repeat
from higan.workbench.plans import OutOfReachError, layers_of, plan
from higan.workbench.series import Series, in_series
from higan.workbench.where import promising, recommend, recommendations

__all__ = [
    "Edited",
    "OutOfReachError",
    "Reached",
    "Series",
    "Workbench",
    "approach",
    "calibrate",
    "digest_of_codes",
    "draw",
    "edit",
    "in_series",
    "layers_of",
    "open_workbench",
    "plan",
    "promising",
    "reach",
    "recommend",
    "recommendations",
    "repeat",
    "response",
    "with_directions",
]
