"""The benchmark for the field: five tasks with known answers, for every way of finding and using directions."""

from higan.benchmark.methods import METHODS, Answer, Lab, Method
from higan.benchmark.run import Budget, Results, Setting, World, run_benchmark
from higan.benchmark.tasks import TASKS, grade
from higan.benchmark.truth import Truth, estimate_truth, exact_truth

__all__ = [
    "METHODS",
    "TASKS",
    "Answer",
    "Budget",
    "Lab",
    "Method",
    "Results",
    "Setting",
    "Truth",
    "World",
    "estimate_truth",
    "exact_truth",
    "grade",
    "run_benchmark",
]
