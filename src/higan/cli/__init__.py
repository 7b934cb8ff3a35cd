"""The command line: the only place that prints, parses and exits. A file holds a verb, or verbs of one kind."""

from higan.cli import (
    benchmark,
    compare,
    discover,
    draw,
    edit,
    effects,
    files,
    invert,
    mix,
    rooms,
    steps,
    studio,
    study,
    transition,
    userstudy,
)
from higan.cli.app import app, main

__all__ = [
    "app",
    "benchmark",
    "compare",
    "discover",
    "draw",
    "edit",
    "effects",
    "files",
    "invert",
    "main",
    "mix",
    "rooms",
    "steps",
    "studio",
    "study",
    "transition",
    "userstudy",
]
