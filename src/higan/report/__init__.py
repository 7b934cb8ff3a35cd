"""Run folder → one self-contained HTML file."""

from higan.report.page import write_report

__all__ = ["write_report"]
