"""The one place that imports tonic (GPL-3, optional): downloads of recordings."""

from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from hardspike import HardspikeError, choice, one_line
from trainer.data.options import option

__all__ = ["dataset", "download"]


def _tonic() -> ModuleType:
    try:
        import tonic
    except ImportError as error:
        raise HardspikeError("recordings are downloaded by tonic, which is not installed: pip install "
                             "'hardspike[events]', or give the folder of recordings that you have as "
                             f"{option('path')}") from error
    return tonic


def download(name: str, folder: Path, split: bool = True) -> Path:
    """Let tonic download a data set (`NMNIST`, `DVSGesture` or `CIFAR10DVS`) into `folder`, where it is not there yet.

    Args:
        name: tonic's class
        folder: parent of the data set's own folder
        split: whether tonic's class knows a training and a test part

    Returns:
        The folder that holds its parts.

    Raises:
        HardspikeError: tonic is not installed, or the download failed.
    """
    dataset = getattr(_tonic().datasets, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in ({"train": True}, {"train": False}) if split else ({},):
            dataset(save_to=str(folder), **part)
    except Exception as error:  # the network, the archive or the disk: tonic passes on whatever they raise
        raise HardspikeError(f"{name}: download into {folder} failed ({error}); get it yourself and give its folder as "
                             f"{option('path')}, or take {option('name')} digits, which needs none") from error
    return folder / name


def dataset(name: str, folder: Path, train: bool) -> Any:
    """A part of one of tonic's data sets: item i is (events, label). What lies in `folder` is not downloaded again.

    Raises:
        UsageError: tonic has none of that name, or one without classes or parts.
        HardspikeError: tonic is not installed, or it cannot be had.
    """
    datasets = _tonic().datasets
    known = {each: kind for each in dir(datasets) if each[0].isupper()
             and isinstance(kind := getattr(datasets, each), type) and "train" in signature(kind).parameters
             and hasattr(kind, "sensor_size")}
    kind = known[choice("data set of tonic's", name, known)]
    try:
        return kind(save_to=str(folder), train=train)
    except Exception as error:  # the network, the archive or the disk: tonic passes on whatever they raise
        raise HardspikeError(f"tonic:{name}: cannot be had in {folder} ({one_line(error)}); put its files there, as "
                             f"tonic lays them out, and give the folder as {option('path')}") from error
