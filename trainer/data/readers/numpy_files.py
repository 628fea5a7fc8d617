"""Events in numpy's files: columns x, y, t and p by name, or structured arrays of these fields."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, load_npy, one_line, read_npz
from trainer.data.events import Sensor, check_events

__all__ = ["events_of", "read_npy", "read_npz_events"]

_SPELLINGS = {"x": ("x", "xs"), "y": ("y", "ys"), "t": ("t", "ts", "timestamp", "time"),
              "p": ("p", "ps", "pol", "polarity", "on")}
"""How others call the columns."""


def read_npz_events(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of an `.npz` with the arrays x, y, t (us) and p, or with one structured array of these fields.

    A sensor of one row needs no y, one without polarities no p.

    Raises:
        HardspikeError: as `read_npz` and `check_events`; a column is missing.
    """
    arrays = read_npz(file)
    structured = [array for array in arrays.values() if array.dtype.names]
    if len(structured) == 1:
        array = structured[0]
        arrays = {name: array[name] for name in array.dtype.names or ()}
    return events_of(file, arrays, sensor)


def read_npy(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of a `.npy` with a structured array of x, y, t (us) and p; rows of bare numbers do not say which is which.

    Raises:
        HardspikeError: as `check_events`; the file is no such array.
    """
    try:
        array = load_npy(file, "r")
    except Exception as error:
        raise HardspikeError(f"{file}: cannot be read ({one_line(error)}); write it with numpy.save") from error
    if not array.dtype.names:
        raise HardspikeError(f"{file}: {array.dtype} {array.shape} without names of columns; save a structured array, "
                             "or an .npz of arrays x, y, t and p")
    return events_of(file, {name: array[name] for name in array.dtype.names}, sensor)


def events_of(file: Path, arrays: dict[str, np.ndarray], sensor: Sensor) -> np.ndarray:
    """Columns under any of their usual names as events, checked; raises as `read_npz_events`."""
    columns: dict[str, np.ndarray] = {}
    spared = [field for field, number in (("y", sensor.height), ("p", sensor.polarities)) if number == 1]
    for field, spellings in _SPELLINGS.items():
        found = next((arrays[name] for name in spellings if name in arrays), None)
        if found is None and field in spared:
            found = np.zeros(len(columns["x"]), np.int64)
        if found is None or found.ndim != 1:
            raise HardspikeError(f"{file}: no column {field} ({', '.join(spellings)}) with one number an event; it "
                                 f"holds {', '.join(arrays) or 'nothing'}")
        columns[field] = found
    if len({len(column) for column in columns.values()}) > 1:
        raise HardspikeError(f"{file}: columns of different lengths; convert it again")
    return check_events(file, columns, sensor)
