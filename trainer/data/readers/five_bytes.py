"""Reader of N-MNIST's binary format, in which recordings of other cameras are handed round, too."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError
from trainer.data.events import EVENT, check_events

__all__ = ["last_time", "read_five_bytes"]

BYTES = 5
WRAP_ROW, WRAP = 240, 1 << 13
"""An "event" in this row, below every sensor, says that the camera's clock of 13 bits (us) wrapped."""


def read_five_bytes(file: Path, sensor: int) -> np.ndarray:
    """Events of one recording in N-MNIST's format (Orchard et al. 2015, www.garrickorchard.com/datasets/n-mnist).

    Each event takes 40 bits, the first byte first: 8 bits x, 8 bits y, 1 bit polarity (1 ON), 23 bits time in us. An
    event in row 240 is none: it moves itself and all that follow by 2^13 us, as in the reader that comes with the data
    set.

    Args:
        file: `.bin` or `.bs2`
        sensor: side of the square sensor in pixels

    Returns:
        (N,) of `trainer.data.events.EVENT`.

    Raises:
        HardspikeError: the file is missing, empty, cut, or holds something else.
    """
    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) == 0:
        raise HardspikeError(f"{file}: empty; copy the recording again or remove it")
    if len(content) % BYTES:
        raise HardspikeError(f"{file}: {len(content)} bytes, not a multiple of {BYTES}; cut short or not an event "
                             "recording")
    x, y, high, middle, low = content.reshape(-1, BYTES).T.astype(np.int64)
    wraps = y == WRAP_ROW
    events = np.empty(len(x), EVENT)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = ((high & 127) << 16 | middle << 8 | low) + WRAP * np.cumsum(wraps)
    return check_events(file, events[~wraps], sensor)


def last_time(file: Path) -> int:
    """Time of the last event in us, without reading the others.

    Raises:
        HardspikeError: the file is missing or empty.
    """
    try:
        with open(file, "rb") as stream:
            stream.seek(-3, 2)
            high, middle, low = stream.read(3)
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read, or empty ({error.strerror})") from error
    return (high & 127) << 16 | middle << 8 | low
