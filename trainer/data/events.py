"""Events -> frames.

Events are a structured array with fields `t` (microseconds), `x`, `y` (pixels) and `p` (1 ON, 0 OFF).
"""

import numpy as np

__all__ = ["EVENT", "encode", "to_counts"]

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
        size: side of the frames; a divisor of `sensor`, whose blocks of pixels are summed

    Returns:
        (T, 2, size, size) int64; channel 0 OFF, channel 1 ON.
    """
    size = size or sensor
    factor = sensor // size
    time = events["t"].astype(np.int64) - start
    inside = (time >= 0) & (time < duration)
    step = time[inside] * steps // duration
    polarity, row, column = (events[field][inside].astype(np.int64) for field in "pyx")
    cell = ((step * 2 + polarity) * size + row // factor) * size + column // factor
    return np.bincount(cell, minlength=steps * 2 * size * size).reshape(steps, 2, size, size)


def encode(counts: np.ndarray, encoding: str, count_max: int) -> np.ndarray:
    """Counts as bytes: {0,1} where `encoding` is binary (several events are one spike), else clipped at `count_max`."""
    return np.minimum(counts, 1 if encoding == "binary" else count_max).astype(np.uint8)
