"""Generators: one network per family behind one adapter, opened by ``load_generator``."""

from higan.generators.loading import load_generator

__all__ = ["load_generator"]
