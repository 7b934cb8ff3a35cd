"""Segmenters: one adapter per predictor, opened by ``load_segmenter``."""

from higan.segmenters.loading import load_segmenter

__all__ = ["load_segmenter"]
