"""Scorers: one adapter per predictor, opened by ``load_scorer``."""

from higan.scorers.loading import load_scorer

__all__ = ["load_scorer"]
