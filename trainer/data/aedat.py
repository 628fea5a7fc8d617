"""Reader of AEDAT 3.1, the format of the original DVS128 Gesture release.

tonic 1.7's own reader of these files fails (its issue 302), and takes packets of every kind for pixels.
"""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError

from .events import EVENT, check_events

__all__ = ["read_aedat"]

# libcaer's caer_event_packet_header and caer_polarity_event, little-endian.
HEADER = np.dtype([("kind", "<i2"), ("source", "<i2"), ("size", "<i4"), ("time_offset", "<i4"), ("overflow", "<i4"),
                   ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")])
PIXEL = np.dtype([("data", "<u4"), ("time", "<u4")])
POLARITY = 1


def read_aedat(file: Path, sensor: int) -> np.ndarray:
    """Events of one recording, by time; packets of other kinds and events marked invalid are left out.

    Args:
        file: `.aedat`
        sensor: side of the square sensor in pixels

    Raises:
        HardspikeError: the file is missing, cut, or holds something else.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    if not content.startswith(b"#!AER-DAT3.1"):
        raise HardspikeError(f"{file}: not an AEDAT 3.1 recording; copy it again")
    place = 0
    while content[place : place + 1] == b"#":
        place = content.find(b"\n", place) + 1 or len(content)
    parts = [np.empty(0, EVENT)]
    while place < len(content):
        packet, place = _packet(file, content, place)
        parts.append(packet)
    events = np.concatenate(parts)
    # Packets overlap in time where the camera wrote several at once.
    return check_events(file, events[np.argsort(events["t"], kind="stable")], sensor)


def _packet(file: Path, content: bytes, place: int) -> tuple[np.ndarray, int]:
    """Events of the packet at byte `place`, and where the next one begins."""
    begin = place + HEADER.itemsize
    header = np.frombuffer(content[place:begin].ljust(HEADER.itemsize, b"\0"), HEADER)[0]
    size, number, capacity = (int(header[field]) for field in ("size", "number", "capacity"))
    end = begin + size * capacity
    if size < 1 or not 0 <= number <= capacity or end > len(content):
        raise HardspikeError(f"{file}: damaged or cut short at byte {place} of {len(content)}; copy it again")
    if header["kind"] != POLARITY:
        return np.empty(0, EVENT), end
    if size != PIXEL.itemsize:
        raise HardspikeError(f"{file}: damaged at byte {place}: events of {size} bytes instead of {PIXEL.itemsize}")
    raw = np.frombuffer(content, PIXEL, number, begin)
    raw = raw[raw["data"] & 1 == 1]
    events = np.empty(len(raw), EVENT)
    events["x"], events["y"], events["p"] = raw["data"] >> 17, raw["data"] >> 2 & 0x7FFF, raw["data"] >> 1 & 1
    events["t"] = (int(header["overflow"]) << 31) + raw["time"].astype(np.int64)
    return events, end
