"""Where the work runs: in this process, in several on this machine, on a cluster. Like workers give the same result."""

from higan.engines.choice import EngineName, cores, open_engine
from higan.engines.inprocess import InProcess
from higan.engines.processes import Processes
from higan.engines.ray import RayCluster
from higan.engines.types import Crew, Engine, Job, OpenJob, Tick, Ticks, Units

__all__ = [
    "Crew",
    "Engine",
    "EngineName",
    "InProcess",
    "Job",
    "OpenJob",
    "Processes",
    "RayCluster",
    "Tick",
    "Ticks",
    "Units",
    "cores",
    "open_engine",
]
