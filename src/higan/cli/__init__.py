"""The command line: the only place that prints, parses and exits."""

from higan.cli import edit, files, rooms, studio, study
from higan.cli.app import app, main

__all__ = ["app", "edit", "files", "main", "rooms", "studio", "study"]
