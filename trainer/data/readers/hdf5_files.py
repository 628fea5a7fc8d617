"""HDF5 files of recordings: looked at before anything is read.

A file may hold links into other files, datasets whose bytes lie elsewhere and filters that are loaded as plug-ins: what
is read here is a dataset of the file itself, plain or packed by HDF5's own filters.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hardspike import HardspikeError, one_line, printable, require_memory
from trainer.data.events import EVENT, Sensor, check_events
from trainer.data.readers.numpy_files import events_of

__all__ = ["opened", "read_h5", "sequences", "values"]

_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
_GROUPS = ("", "events/", "CD/events/")
"""Where columns x, y, t and p lie: at the top, in a group `events` (DSEC), in Prophesee's."""


@contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """The file, for reading.

    Raises:
        HardspikeError: it is missing or no HDF5; what goes wrong inside names it.
    """
    try:
        with h5py.File(file, "r") as content:
            yield content
    except HardspikeError:
        raise
    except Exception as error:  # h5py lets a damaged file surface as almost any exception
        raise HardspikeError(f"{file}: cannot be read as HDF5 ({printable(one_line(error))[:160]})") from error


def dataset(file: Path, content: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset that lies in the file itself; None where there is none of the name.

    Raises:
        HardspikeError: it is a link, or its values lie in another file or behind a filter that is not HDF5's own.
    """
    place: h5py.Group | h5py.Dataset = content
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part not in place:
            return None
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise HardspikeError(f"{file}: '{name}' is a link; store the data itself")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        return None
    stored = place.id.get_create_plist()
    filters = [stored.get_filter(i)[0] for i in range(stored.get_nfilters())]
    if place.is_virtual or stored.get_external_count():
        raise HardspikeError(f"{file}: '{name}' has its values in another file; store them here")
    if not set(filters) <= set(_FILTERS):
        raise HardspikeError(f"{file}: '{name}' is packed with a filter that is not HDF5's own; store it plain, or "
                             "with gzip")
    return place


def values(file: Path, content: h5py.File, name: str) -> np.ndarray | None:
    """Numbers of a dataset; None where there is none of the name.

    Raises:
        HardspikeError: as `dataset`; it holds no numbers, or more than memory does.
    """
    found = dataset(file, content, name)
    if found is None:
        return None
    if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8 or found.shape is None:
        raise HardspikeError(f"{file}: '{name}' holds {printable(str(found.dtype))[:60]}, where numbers are expected")
    require_memory(math.prod(found.shape) * found.dtype.itemsize, f"{file}: '{name}' of shape {found.shape}",
                   "cut the file")
    return found[()]


def sequences(file: Path, content: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset with a row of numbers of its own length for each recording; None where there is none of the name.

    Raises:
        HardspikeError: as `dataset`; it holds something else.
    """
    found = dataset(file, content, name)
    kind = None if found is None else h5py.check_vlen_dtype(found.dtype)
    if found is not None and (kind is None or np.dtype(kind).kind not in "iuf" or found.ndim != 1):
        raise HardspikeError(f"{file}: '{name}' holds {printable(str(found.dtype))[:60]}, where a row of numbers for "
                             "each recording is expected")
    return found


def read_h5(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of one recording: datasets x, y, t (us) and p, or one structured `events`, at the top or in `events`.

    Raises:
        HardspikeError: as `opened`, `dataset` and `check_events`; a column is missing.
    """
    with opened(file) as content:
        whole = dataset(file, content, "events")
        if whole is not None and whole.dtype.names:
            return events_of(file, {name: whole[name] for name in whole.dtype.names}, sensor)
        for group in _GROUPS:
            place = content.get(group.rstrip("/")) if group else content
            if isinstance(place, h5py.Group) and any(name in place for name in ("x", "xs")):
                columns = {name: values(file, content, f"{group}{name}") for name in place
                           if isinstance(place.get(name, getlink=True), h5py.HardLink)
                           and isinstance(place[name], h5py.Dataset)}
                return events_of(file, {name: found for name, found in columns.items() if found is not None}, sensor)
        raise HardspikeError(f"{file}: no columns x, y, t and p, at the top or in 'events'; it holds "
                             f"{printable(', '.join(content))[:120] or 'nothing'}; write each as a dataset of its own, "
                             "file['x'] = e[:, 0] and so on")


def spike_trains(file: Path, times: np.ndarray, units: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Events of one recording of channels in a row: when each fired (seconds as fractions, or whole us) and which."""
    if len(times) != len(units):
        raise HardspikeError(f"{file}: {len(times)} times and {len(units)} units; each spike has one of each")
    events = np.zeros(len(times), EVENT)
    exact = np.asarray(times, np.float64) * 1e6 if times.dtype.kind == "f" else times
    if not np.isfinite(exact).all():
        raise HardspikeError(f"{file}: a time that is no number; convert it again")
    order = np.argsort(exact, kind="stable")
    events["t"], events["x"] = exact[order], units[order]
    return check_events(file, events, sensor)
