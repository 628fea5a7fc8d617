"""Events in numpy's files: columns x, y, t and p by name, or structured arrays of these fields."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError, few, load_npy, one_line, read_npz
from trainer.data.events import Sensor, check_events

__all__ = ["events_of", "read_npy", "read_npz_events"]

_SPELLINGS = {"x": ("x", "xs"), "y": ("y", "ys"), "t": ("t", "ts", "timestamp", "time"),
              "p": ("p", "ps", "pol", "polarity", "on")}
"""How others call the columns."""
_ADVICE = "write it with numpy.savez('FILE.npz', x=e[:, 0], y=e[:, 1], t=e[:, 2], p=e[:, 3]), each from its own column"


def read_npz_events(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of an `.npz` with the arrays x, y, t (us) and p, or with one structured array of these fields.

    OFF and ON are 0 and 1 in p, or -1 and 1 where a file holds nothing else, and come out as 0 and 1. A sensor of one
    row needs no y, one without polarities no p.

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
        raise HardspikeError(f"{file}: {array.dtype} {array.shape} without names of columns; {_ADVICE}")
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
            held = few(f"{name} {array.shape}" if array.ndim > 1 else name for name, array in arrays.items())
            spare = "; sensor ROWS,COLUMNS,1 says that there are none" if field == "p" else ""
            raise HardspikeError(f"{file}: no column {field} ({', '.join(spellings)}) with one number an event; it "
                                 f"holds {held or 'nothing'}; {_ADVICE}{spare}")
        columns[field] = _off_and_on(found) if field == "p" else found
    if len({len(column) for column in columns.values()}) > 1:
        raise HardspikeError(f"{file}: columns of different lengths; convert it again")
    return check_events(file, columns, sensor)


def _off_and_on(polarities: np.ndarray) -> np.ndarray:
    """Polarities -1 (OFF) and 1 (ON) as 0 and 1; all others as they are."""
    if polarities.dtype.kind not in "if" or not (np.abs(polarities) == 1).all():
        return polarities
    return (polarities > 0).astype(np.int64)
