"""A network of layers, and how it is built from a configuration."""

from importlib import import_module
from typing import TYPE_CHECKING

from trainer.networks.config import PRESETS, NetworkConfig

if TYPE_CHECKING:
    from trainer.networks.builder import build
    from trainer.networks.network import Network

__all__ = ["PRESETS", "Network", "NetworkConfig", "build"]

_LATE = {"Network": "trainer.networks.network", "build": "trainer.networks.builder"}
"""What needs torch, and where it is: imported when it is asked for (PEP 562)."""


def __getattr__(name: str):
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
