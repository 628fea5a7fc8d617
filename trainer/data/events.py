"""Events -> frames.

Events are a structured array with fields `t` (microseconds), `x`, `y` (pixels) and `p` (1 ON, 0 OFF).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hardspike import HardspikeError

__all__ = ["EVENT", "check_events", "encode", "inside", "to_counts"]

EVENT = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
LATEST = 2**62
"""Times and places lie below, so that their differences have 64 bits."""


def to_counts(events: np.ndarray, steps: int, sensor: int, start: int, duration: int, size: int | None = None
              ) -> np.ndarray:
    """Number of events of every pixel and polarity in `steps` equal time bins.

    Bin k holds `start + k * duration / steps <= t < start + (k + 1) * duration / steps`. The window is fixed, not the
    span from the first to the last event: a chip that listens live cannot know when the last event will come, and one
    late noise event would shift every bin. Events outside the window are left out.

    Args:
        events: structured array, at least the fields of `EVENT`; t in us
        steps: T
        sensor: side of the square sensor in pixels
        start: beginning of the window in us
        duration: length of the window in us
        size: side of the frames, at most `sensor`; the pixels above one of the frame's are summed (tonic's Downsample).
            Where it does not divide `sensor`, these blocks differ by a row and a column

    Returns:
        (T, 2, size, size) int64; channel 0 OFF, channel 1 ON.
    """
    size = size or sensor
    kept = inside(events, start, duration)
    step = (events["t"][kept].astype(np.int64) - start) * steps // duration
    polarity, row, column = (events[field][kept].astype(np.int64) for field in "pyx")
    cell = ((step * 2 + polarity) * size + row * size // sensor) * size + column * size // sensor
    return np.bincount(cell, minlength=steps * 2 * size * size).reshape(steps, 2, size, size)


def encode(counts: np.ndarray, encoding: str, count_max: int) -> np.ndarray:
    """Counts as bytes: {0,1} where `encoding` is binary (several events are one spike), else clipped at `count_max`."""
    return np.minimum(counts, 1 if encoding == "binary" else count_max).astype(np.uint8)


def inside(events: np.ndarray, start: int, duration: int) -> np.ndarray:
    """(N,) bool: which events lie in the window of `duration` us from `start` us."""
    time = events["t"].astype(np.int64) - start
    return (time >= 0) & (time < duration)


def check_events(file: Path, events: np.ndarray | Mapping[str, np.ndarray], sensor: int) -> np.ndarray:
    """Events of a file as they are asked for here; every reader ends in it.

    Args:
        file: named in errors.
        events: columns x, y, t (us) and p of one length, of any number type. Fractions of a microsecond are cut off.
        sensor: side of the square sensor in pixels.

    Returns:
        (N,) of `EVENT`; `events` itself where it is that already.

    Raises:
        HardspikeError: no events, values that are no numbers or no whole ones, pixels beyond the sensor, polarities
            other than 0 and 1, or a time that runs back; names the first event that is off.
    """
    if len(events["t"]) == 0:
        raise HardspikeError(f"{file}: no events; remove it")
    if not isinstance(events, np.ndarray) or events.dtype != EVENT:
        events = _whole(file, events)
    beyond = np.flatnonzero((events["x"] >= sensor) | (events["y"] >= sensor) | (events["x"] < 0) | (events["y"] < 0))
    if len(beyond):
        first = events[beyond[0]]
        raise HardspikeError(f"{file}: event {beyond[0]} at x {first['x']}, y {first['y']}, beyond the sensor's "
                             f"{sensor} x {sensor} pixels; damaged, or a recording of another sensor")
    if not ((events["p"] == 0) | (events["p"] == 1)).all():
        raise HardspikeError(f"{file}: polarity {events['p'].min()} to {events['p'].max()}, where 0 (OFF) and 1 (ON) "
                             "are expected; write the file anew with these two")
    back = np.flatnonzero(np.diff(events["t"]) < 0)
    if len(back):
        raise HardspikeError(f"{file}: time runs back at event {back[0] + 1}, from {events['t'][back[0]]} to "
                             f"{events['t'][back[0] + 1]} us; damaged, or its clock wrapped or was set back: cut it")
    return events


def _whole(file: Path, columns: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns as `EVENT`, each value as it is."""
    events = np.empty(len(columns["t"]), EVENT)
    for field in EVENT.names:
        column = np.asarray(columns[field])
        if column.dtype.kind not in "iufb" or column.shape != events.shape:
            raise HardspikeError(f"{file}: {field} is {column.dtype} {column.shape}, where {len(events)} numbers are "
                                 "expected; convert it again")
        if column.dtype.kind in "fu":
            good = np.abs(column) < LATEST  # neither NaN nor infinity is
            if field != "t" and column.dtype.kind == "f":
                good &= column == np.floor(column)
            if not good.all():
                first = np.flatnonzero(~good)[0]
                raise HardspikeError(f"{file}: event {first} has {field} {column[first]}, no whole number below 2^62; "
                                     "damaged, or converted wrongly: convert it again")
            column = np.floor(column) if column.dtype.kind == "f" else column
        events[field] = column
    return events
