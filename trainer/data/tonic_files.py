"""The one place that imports tonic (GPL-3, optional): readers and downloads of recordings."""

import struct
from pathlib import Path
from types import ModuleType

import numpy as np

from hardspike import HardspikeError

__all__ = ["check_events", "download", "read_aedat", "read_five_bytes"]


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
        events = tonic.io.read_mnist_file(str(file), dtype=tonic.datasets.NMNIST.dtype)
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    return check_events(file, events, sensor)


def read_aedat(file: Path, sensor: int) -> np.ndarray:
    """Events of one original DVS128 Gesture recording (AEDAT 3.1), by time.

    Args:
        file: `.aedat`
        sensor: side of the square sensor in pixels

    Raises:
        HardspikeError: the file is missing, cut, or holds something else.
    """
    tonic = _tonic()
    try:
        with open(file, "rb") as stream:
            if stream.read(14) != b"#!AER-DAT3.1\r\n":
                raise HardspikeError(f"{file}: not an AEDAT 3.1 recording; copy it again")
        _, events = tonic.io.read_dvs_ibm(str(file))
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, IndexError, struct.error) as error:
        raise HardspikeError(f"{file}: damaged ({error}); copy it again") from error
    # The packets of one container overlap in time.
    return check_events(file, events[np.argsort(events["t"], kind="stable")], sensor)


def check_events(file: Path, events: np.ndarray, sensor: int) -> np.ndarray:
    """`events`, where they can come from a sensor of `sensor` x `sensor` pixels and their time never runs back.

    Raises:
        HardspikeError: otherwise, naming the first event that is off.
    """
    if len(events) == 0:
        raise HardspikeError(f"{file}: no events; remove it")
    beyond = np.flatnonzero((events["x"] >= sensor) | (events["y"] >= sensor) | (events["x"] < 0) | (events["y"] < 0))
    if len(beyond):
        first = events[beyond[0]]
        raise HardspikeError(f"{file}: event {beyond[0]} at x {first['x']}, y {first['y']}, beyond the sensor's "
                             f"{sensor} x {sensor} pixels; damaged, or a recording of another sensor")
    back = np.flatnonzero(np.diff(events["t"]) < 0)
    if len(back):
        raise HardspikeError(f"{file}: time runs back at event {back[0] + 1}, from {events['t'][back[0]]} to "
                             f"{events['t'][back[0] + 1]} us; damaged, or its clock wrapped (23 bits, 8.4 s): cut it")
    return events


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
    except (OSError, RuntimeError) as error:
        raise HardspikeError(f"{name}: download into {folder} failed ({error}); get it yourself and give its folder as "
                             "--path, or take --name digits, which needs none") from error
    return folder / name
