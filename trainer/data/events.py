"""Events -> frames.

Events are a structured array with fields `t` (microseconds), `x`, `y` (pixels) and `p` (1 ON, 0 OFF).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, UsageError
from trainer.data.config import LARGEST_SENSOR
from trainer.data.options import option

__all__ = ["EVENT", "Sensor", "check_events", "encode", "inside", "to_counts"]

EVENT = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
LATEST = 2**62
"""Times and places lie below, so that their differences have 64 bits."""


@dataclass(frozen=True)
class Sensor:
    """What gives the events: `height` x `width` pixels of `polarities` kinds of events.

    A row of channels (a cochlea's 700) is a sensor of height 1; what knows no ON and OFF has one polarity. `given` is
    the option that says so, where it is one.
    """

    height: int
    width: int
    polarities: int = 2
    given: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    def frame(self, size: int | None) -> tuple[int, int, int]:
        """(C, H, W) of frames whose longer side has `size` pixels; of the sensor's own where it is None.

        Raises:
            UsageError: larger than the sensor.
        """
        longer = max(self.height, self.width)
        if size is None:
            return self.polarities, self.height, self.width
        if size > longer:
            raise UsageError(f"size {size}: must be at most the sensor's {longer} pixels")
        return self.polarities, *(max(1, round(side * size / longer)) for side in (self.height, self.width))


def square(side: int) -> Sensor:
    """The usual event camera: so many pixels each way, ON and OFF."""
    return Sensor(side, side)


def to_counts(events: np.ndarray, steps: int, sensor: Sensor | int, start: int, duration: int,
              size: int | None = None) -> np.ndarray:
    """Number of events of every pixel and polarity in `steps` equal time bins.

    Bin k holds `start + k * duration / steps <= t < start + (k + 1) * duration / steps`. The window is fixed, not the
    span from the first to the last event: a chip that listens live cannot know when the last event will come, and one
    late noise event would shift every bin. Events outside the window are left out.

    Args:
        events: structured array, at least the fields of `EVENT`; t in us
        steps: T
        sensor: what gave them, or the side of a square one
        start: beginning of the window in us
        duration: length of the window in us
        size: longer side of the frames, at most the sensor's; the pixels above one of the frame's are summed (tonic's
            Downsample). Where a side does not divide the sensor's, these blocks differ by a row and a column

    Returns:
        (T, C, H, W) int64; channel 0 OFF, channel 1 ON, where the sensor has both.

    Raises:
        UsageError: `size` is larger than the sensor.
    """
    sensor = square(sensor) if isinstance(sensor, int) else sensor
    channels, height, width = sensor.frame(size)
    kept = inside(events, start, duration)
    step = (events["t"][kept].astype(np.int64) - start) * steps // duration
    polarity, row, column = (events[field][kept].astype(np.int64) for field in "pyx")
    place = row * height // sensor.height * width + column * width // sensor.width
    cell = (step * channels + polarity) * height * width + place
    return np.bincount(cell, minlength=steps * channels * height * width).reshape(steps, channels, height, width)


def encode(counts: np.ndarray, encoding: str, count_max: int) -> np.ndarray:
    """Counts as bytes: {0,1} where `encoding` is binary (several events are one spike), else clipped at `count_max`."""
    return np.minimum(counts, 1 if encoding == "binary" else count_max).astype(np.uint8)


def inside(events: np.ndarray, start: int, duration: int) -> np.ndarray:
    """(N,) bool: which events lie in the window of `duration` us from `start` us."""
    time = events["t"].astype(np.int64) - start
    return (time >= 0) & (time < duration)


def check_events(file: Path, events: np.ndarray | Mapping[str, np.ndarray], sensor: Sensor | int) -> np.ndarray:
    """Events of a file as they are asked for here; every reader ends in it.

    Args:
        file: named in errors.
        events: columns x, y, t (us) and p of one length, of any number type. Fractions of a microsecond are cut off.
        sensor: what gave them, or the side of a square one.

    Returns:
        (N,) of `EVENT`; `events` itself where it is that already.

    Raises:
        HardspikeError: no events, values that are no numbers or no whole ones, pixels beyond the sensor, polarities
            that the sensor has not, or a time that runs back; names the first event that is off.
    """
    if len(events["t"]) == 0:
        raise HardspikeError(f"{file}: no events; remove it")
    if not isinstance(events, np.ndarray) or events.dtype != EVENT:
        events = _whole(file, events)
    sensor = square(sensor) if isinstance(sensor, int) else sensor
    beyond = np.flatnonzero((events["x"] >= sensor.width) | (events["y"] >= sensor.height)
                            | (events["x"] < 0) | (events["y"] < 0))
    if len(beyond):
        first = events[beyond[0]]
        raise HardspikeError(f"{file}: event {beyond[0]} at x {first['x']}, y {first['y']}, beyond the sensor's "
                             f"{sensor} pixels; {_way_out(sensor, events)}")
    if not ((events["p"] >= 0) & (events["p"] < sensor.polarities)).all():
        wanted = "0 (OFF) and 1 (ON) are" if sensor.polarities == 2 else "0 is"
        raise HardspikeError(f"{file}: polarity {events['p'].min()} to {events['p'].max()}, where {wanted} expected; "
                             "write the file anew so")
    back = np.flatnonzero(np.diff(events["t"]) < 0)
    if len(back):
        raise HardspikeError(f"{file}: time runs back at event {back[0] + 1}, from {events['t'][back[0]]} to "
                             f"{events['t'][back[0] + 1]} us; damaged, or its clock wrapped or was set back: cut it")
    return events


def _way_out(sensor: Sensor, events: np.ndarray) -> str:
    """What may be the cause of events beyond the sensor; where its size is an option, the one that holds them."""
    rows, columns = (max(side, 1 + int(events[axis].max())) for axis, side in (("y", sensor.height),
                                                                               ("x", sensor.width)))
    if not sensor.given or max(rows, columns) > LARGEST_SENSOR or min(events["x"].min(), events["y"].min()) < 0:
        return "damaged, or a recording of another sensor"
    size = ",".join(map(str, (rows, columns, *sensor.given[2:])))
    return f"damaged, or {option('sensor')} (rows, columns) is too small: {size} or larger"


def _whole(file: Path, columns: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns as `EVENT`, each value as it is."""
    events = np.empty(len(columns["t"]), EVENT)
    for name in EVENT.names:
        column = np.asarray(columns[name])
        if column.dtype.kind not in "iufb" or column.shape != events.shape:
            raise HardspikeError(f"{file}: {name} is {column.dtype} {column.shape}, where {len(events)} numbers are "
                                 "expected; convert it again")
        if column.dtype.kind in "fu":
            good = np.abs(column) < LATEST  # neither NaN nor infinity is
            if name != "t" and column.dtype.kind == "f":
                good &= column == np.floor(column)
            if not good.all():
                first = np.flatnonzero(~good)[0]
                raise HardspikeError(f"{file}: event {first} has {name} {column[first]}, no whole number below 2^62; "
                                     "damaged, or converted wrongly: convert it again")
            column = np.floor(column) if column.dtype.kind == "f" else column
        events[name] = column
    return events
