"""Events -> frames.

Events are a structured array with fields `t` (microseconds), `x`, `y` (pixels) and `p` (1 ON, 0 OFF).
"""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError

__all__ = ["EVENT", "check_events", "encode", "to_counts"]

EVENT = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])


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
    time = events["t"].astype(np.int64) - start
    inside = (time >= 0) & (time < duration)
    step = time[inside] * steps // duration
    polarity, row, column = (events[field][inside].astype(np.int64) for field in "pyx")
    cell = ((step * 2 + polarity) * size + row * size // sensor) * size + column * size // sensor
    return np.bincount(cell, minlength=steps * 2 * size * size).reshape(steps, 2, size, size)


def encode(counts: np.ndarray, encoding: str, count_max: int) -> np.ndarray:
    """Counts as bytes: {0,1} where `encoding` is binary (several events are one spike), else clipped at `count_max`."""
    return np.minimum(counts, 1 if encoding == "binary" else count_max).astype(np.uint8)


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
                             f"{events['t'][back[0] + 1]} us; damaged, or its clock wrapped or was set back: cut it")
    return events
