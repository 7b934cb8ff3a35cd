"""Shapes and types are checked in the first calls that a test makes of a function: loops pass the same ones thousands of
times, and a check takes longer than most of what is checked.

What pytest's option ``--jaxtyping-packages`` names as the type checker.
"""

import sys

from beartype import beartype

FIRST = 50
_made = {}
_resting = []


def checked(function):
    """As `beartype.beartype`; from some call on, what jaxtyping wraps is told to do without until `again`."""
    check = beartype(function)

    def call(*args, **kwargs):
        _made[function] = _made.get(function, 0) + 1
        if _made[function] > FIRST:
            wrapped = sys._getframe(1).f_locals["fn"]  # jaxtyping's; it asks the function itself whether to check
            if not hasattr(wrapped, "__no_type_check__"):
                wrapped.__no_type_check__ = True
                _resting.append(wrapped)
        return check(*args, **kwargs)

    return call


def again():
    """From the start, for another test."""
    _made.clear()
    while _resting:
        del _resting.pop().__no_type_check__
