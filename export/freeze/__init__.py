"""From trained modules to a NIR graph with hard thresholds."""

from export.freeze.freeze import convert, freeze

__all__ = ["convert", "freeze"]
