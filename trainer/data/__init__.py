"""Event data: recordings, frames, splits; one file a source."""

from importlib import import_module
from typing import TYPE_CHECKING

from trainer.data.config import AugmentConfig, DataConfig
from trainer.data.sources import SOURCES

if TYPE_CHECKING:
    from trainer.data.loading import load
    from trainer.data.samples import Data, Sample, Source, Split

__all__ = ["SOURCES", "AugmentConfig", "Data", "DataConfig", "Sample", "Source", "Split", "load"]

_LATE = {"load": "trainer.data.loading",
         **dict.fromkeys(("Data", "Sample", "Source", "Split"), "trainer.data.samples")}
"""What needs torch, and where it is: imported when it is asked for (PEP 562)."""


def __getattr__(name: str):
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
