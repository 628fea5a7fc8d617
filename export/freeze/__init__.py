"""From trained modules to a NIR graph with hard thresholds."""

from export.freeze.convert import convert
from export.freeze.freeze import freeze

__all__ = ["convert", "freeze"]
