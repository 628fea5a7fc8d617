"""Prophesee's recordings: `.dat` of CD events, and `.raw` in EVT 2.0 and 3.0 (docs.prophesee.ai, "Data encoding
formats")."""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError
from trainer.data.events import EVENT, Sensor, check_events

__all__ = ["read_dat", "read_raw"]

CD_OFF, CD_ON, TIME_HIGH = 0, 1, 8
"""Kinds of a word of EVT 2.0, in its highest four bits. Others (triggers, vendors' own) are no pixel's."""
ADDR_Y, ADDR_X, BASE_X, VECT_12, VECT_8, LOW, HIGH = 0, 2, 3, 4, 5, 6, 8
"""Kinds of a word of EVT 3.0, in its highest four bits; others are no pixel's."""
WRAP = 1 << 24
"""us after which the time of EVT 3.0 begins again."""
CD_SIZE = 8
"""Bytes of an event in a .dat file."""


def read_dat(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of a `.dat` file: 32 bits of time in us, then 14 bits x, 14 bits y and 4 bits polarity (1 ON).

    Raises:
        HardspikeError: the file is missing, cut, or holds something else.
    """
    _, content = _parts(file)
    if len(content) < 2 or content[1] != CD_SIZE or (len(content) - 2) % CD_SIZE:
        raise HardspikeError(f"{file}: no CD events of {CD_SIZE} bytes; cut short, or another kind of .dat file")
    words = np.frombuffer(content[2:], "<u4").reshape(-1, 2)
    events = np.empty(len(words), EVENT)
    events["t"], data = words[:, 0], words[:, 1]
    events["x"], events["y"], events["p"] = data & 0x3FFF, data >> 14 & 0x3FFF, data >> 28
    return check_events(file, events, sensor)


def read_raw(file: Path, sensor: Sensor) -> np.ndarray:
    """Events of a `.raw` file. EVT 2.0: words of 32 bits, whose time is six bits of their own below the last
    TIME_HIGH's 28. EVT 3.0: see `_evt3`.

    Raises:
        HardspikeError: the file is missing, cut, of another encoding, or holds something else.
    """
    header, content = _parts(file)
    if any(mark in header for mark in ("evt 3.0", "format EVT3")):
        return check_events(file, _evt3(file, content), sensor)
    if not any(mark in header for mark in ("evt 2.0", "format EVT2")) or "EVT21" in header or "evt 2.1" in header:
        raise HardspikeError(f"{file}: neither in EVT 2.0 nor in EVT 3.0, which is what is read here; write it as .dat "
                             "(metavision_file_to_dat) or as .npz with x, y, t and p")
    if len(content) % 4:
        raise HardspikeError(f"{file}: {len(content)} bytes behind its header, no multiple of 4; cut short")
    words = np.frombuffer(content, "<u4")
    kind = words >> 28
    high = np.where(kind == TIME_HIGH, np.arange(len(words)), -1)
    np.maximum.accumulate(high, out=high)  # the place of the last TIME_HIGH at or before each word
    pixel = ((kind == CD_OFF) | (kind == CD_ON)) & (high >= 0)  # before the first one nobody knows the time
    data = words[pixel].astype(np.int64)
    events = np.empty(len(data), EVENT)
    events["t"] = (words[high[pixel]].astype(np.int64) & 0xFFFFFFF) << 6 | data >> 22 & 0x3F
    events["x"], events["y"], events["p"] = data >> 11 & 0x7FF, data & 0x7FF, data >> 28
    return check_events(file, events, sensor)


def _evt3(file: Path, content: bytes) -> np.ndarray:
    """Words of 16 bits that change a state: row, time (two halves of 12 bits), column; or a base column and the events
    of the 12 or 8 columns from there, one bit each. A new upper half of the time sets the lower one to zero."""
    if len(content) % 2:
        raise HardspikeError(f"{file}: {len(content)} bytes behind its header, no multiple of 2; cut short")
    words = np.frombuffer(content, "<u2").astype(np.int64)
    kind, low, places = words >> 12, words & 0xFFF, np.arange(len(words))

    def last(which: np.ndarray) -> np.ndarray:
        """The place of the last such word at or before each word; -1 where there is none yet."""
        return np.maximum.accumulate(np.where(which, places, -1))

    high, row, base = last(kind == HIGH), last(kind == ADDR_Y), last(kind == BASE_X)
    highs = np.flatnonzero(kind == HIGH)
    changes = np.diff(low[highs], prepend=-1)
    turns = np.zeros(len(words), np.int64)
    turns[highs] = (changes < -(1 << 11)) & (highs > highs[:1])  # the clock has begun again
    changed = np.zeros(len(words), bool)
    changed[highs] = changes != 0
    fine = last((kind == LOW) | changed)
    time = (low[high] << 12) + np.where(kind[fine] == LOW, low[fine], 0) + WRAP * turns.cumsum()
    steps = np.where(kind == VECT_12, 12, np.where(kind == VECT_8, 8, 0))
    before = steps.cumsum() - steps
    first = (words[base] & 0x7FF) + before - before[base]  # the base moves on with every vector
    known = (high >= 0) & (row >= 0)
    vectors = np.flatnonzero((steps > 0) & known & (base >= 0))
    bits = (words[vectors, None] >> np.arange(12) & 1).astype(bool) & (np.arange(12) < steps[vectors, None])
    word, bit = np.nonzero(bits)
    singles, several = np.flatnonzero((kind == ADDR_X) & known), vectors[word]
    source = np.concatenate([singles, several])
    order = np.argsort(source, kind="stable")
    events = np.empty(len(source), EVENT)
    events["x"] = np.concatenate([words[singles] & 0x7FF, first[several] + bit])
    events["p"] = np.concatenate([words[singles] >> 11 & 1, words[base[several]] >> 11 & 1])
    events["y"], events["t"] = words[row[source]] & 0x7FF, time[source]
    return events[order]


def _parts(file: Path) -> tuple[str, bytes]:
    """The lines at the top that begin with %, and what follows."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    place = 0
    while content[place:place + 1] == b"%":
        end = content.find(b"\n", place)
        if end < 0:
            raise HardspikeError(f"{file}: a header without an end; cut short")
        place = end + 1
        if content[place - len("% end\n"):place] == b"% end\n":
            break
    return content[:place].decode("latin-1"), content[place:]
