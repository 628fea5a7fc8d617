"""The one place that imports tonic (GPL-3, optional): readers and downloads of recordings."""

from pathlib import Path
from types import ModuleType

import numpy as np

from hardspike import HardspikeError

from .events import EVENT, check_events

__all__ = ["download", "read_five_bytes"]


def _tonic() -> ModuleType:
    try:
        import tonic
    except ImportError as error:
        raise HardspikeError("real recordings are read by tonic, which is not installed: pip install "
                             "'hardspike[events]'") from error
    return tonic


def read_five_bytes(file: Path, sensor: int) -> np.ndarray:
    """Events of one recording in N-MNIST's format: 5 bytes an event, x, y, polarity and 23 bits of microseconds.

    Args:
        file: `.bin` or `.bs2`
        sensor: side of the square sensor in pixels

    Raises:
        HardspikeError: the file is missing, empty, cut, or holds something else.
    """
    try:
        length = file.stat().st_size
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    if length == 0:
        raise HardspikeError(f"{file}: empty; copy the recording again or remove it")
    if length % 5:
        raise HardspikeError(f"{file}: {length} bytes, not a multiple of 5; cut short or not an event recording")
    tonic = _tonic()
    try:
        events = tonic.io.read_mnist_file(str(file), dtype=EVENT)
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    return check_events(file, events, sensor)


def download(name: str, folder: Path) -> Path:
    """Let tonic download a data set (`NMNIST` or `DVSGesture`) into `folder`, where it is not there yet.

    Returns:
        The folder that holds its parts.

    Raises:
        HardspikeError: tonic is not installed, or the download failed.
    """
    dataset = getattr(_tonic().datasets, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for train in (True, False):
            dataset(save_to=str(folder), train=train)
    except Exception as error:  # the network, the archive or the disk: tonic passes on whatever they raise
        raise HardspikeError(f"{name}: download into {folder} failed ({error}); get it yourself and give its folder as "
                             "--path, or take --name digits, which needs none") from error
    return folder / name
