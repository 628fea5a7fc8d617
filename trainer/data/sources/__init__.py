"""Data sources, one file each; one line in SOURCES. Their files are imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from hardspike import UsageError, cache_folder, choice
from trainer.data.config import DataConfig

if TYPE_CHECKING:
    from trainer.data.samples import Source

__all__ = ["SOURCES", "check_source", "downloads"]


def _late(module: str) -> Callable[[DataConfig], "Source"]:
    """`source` of a file in this folder."""
    def source(config: DataConfig) -> "Source":
        return import_module(f"{__name__}.{module}").source(config)
    return source


SOURCES: dict[str, Callable[[DataConfig], "Source"]] = {
    "digits": _late("digits"),
    "nmnist": _late("nmnist"),
    "dvs_gesture": _late("dvs_gesture"),
    "cifar10_dvs": _late("cifar10_dvs"),
    "events": _late("events"),
    "hdf5": _late("hdf5"),
    "frames": _late("frames"),
    "images": _late("images"),
    "canvas": _late("canvas"),
    "ade20k": _late("ade20k"),
    "tonic": _late("tonic_sets"),
}
"""Name -> the function that lists a source's recordings."""


DOWNLOADED = {"nmnist": "NMNIST", "dvs_gesture": "DVSGesture", "cifar10_dvs": "CIFAR10DVS"}
"""Name -> what tonic calls it."""


def downloads(config: DataConfig) -> bool:
    """Whether reading these recordings may fetch them, which only their user decides, and no file."""
    kind, _, rest = config.name.partition(":")
    name = rest if kind == "tonic" else DOWNLOADED.get(kind)
    if name is None:
        return False
    if config.path is not None:
        return kind == "tonic"  # it fills a folder up that lacks a part
    return not (cache_folder() / "downloads" / name).is_dir()


def check_source(config: DataConfig) -> None:
    """Refuse what no source can do, before any is imported.

    Raises:
        UsageError: there is no source of the configuration's name, or it does not take one of the options.
    """
    kind, colon, rest = config.name.partition(":")
    choice("data source", kind, SOURCES)
    if bool(colon and rest) != (kind == "tonic"):
        raise UsageError(f"data source '{config.name}': tonic:NAME takes the name of a data set of tonic's, no other "
                         "source takes one")
    if config.window_ms is not None and kind not in ("dvs_gesture", "events", "hdf5", "tonic"):
        raise UsageError(f"window_ms {config.window_ms}: {config.name} has whole recordings; leave it out")
    if config.sensor is not None and kind not in ("events", "hdf5"):
        raise UsageError(f"sensor {list(config.sensor)}: the one of {config.name} is known; leave it out")
    if config.bins > 1 and kind in ("frames", "images", "canvas", "ade20k"):
        raise UsageError(f"bins {config.bins}: {config.name} has frames already, and no events to bin; leave it out")
    if config.path is not None and config.name in ("digits", "canvas"):
        raise UsageError(f"path {config.path}: digits are made here, not read; give a name, or no path")
