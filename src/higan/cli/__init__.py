"""The command line: the only place that prints, parses and exits."""

from higan.cli import benchmark, draw, edit, files, rooms, studio, study, userstudy
from higan.cli.app import app, main

__all__ = ["app", "benchmark", "draw", "edit", "files", "main", "rooms", "studio", "study", "userstudy"]
