"""Generators: one network per family behind one adapter, opened by ``load_generator``."""

from higan.generators.loading import Inspection, inspect_file, load_generator, save_generator

__all__ = ["Inspection", "inspect_file", "load_generator", "save_generator"]
