"""Readers of AEDAT 3.1 (the original DVS128 Gesture release) and AEDAT 2.0 (the original CIFAR10-DVS release).

tonic 1.7's own readers of these files fail (its issue 302); its parser takes packets of every kind for pixels.
"""

from pathlib import Path

import numpy as np

from hardspike import HardspikeError
from trainer.data.events import EVENT, check_events

__all__ = ["read_aedat", "read_aedat2"]

# libcaer's caer_event_packet_header and caer_polarity_event, little-endian.
HEADER = np.dtype([("kind", "<i2"), ("source", "<i2"), ("size", "<i4"), ("time_offset", "<i4"), ("overflow", "<i4"),
                   ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")])
PIXEL = np.dtype([("data", "<u4"), ("time", "<u4")])
POLARITY = 1
# AEDAT 2.0, big-endian. Of a DVS128 address bit 0 is the polarity (0 ON), bits 1 to 7 are x, 8 to 14 y; bits 15 and 31
# mark events that are no pixel's (jAER's DVS128.java).
RECORD = np.dtype([("address", ">u4"), ("time", ">i4")])
SPECIAL = 0x8000_8000
UNUSED = 0x7FFF_0000


def read_aedat(file: Path, sensor: int) -> np.ndarray:
    """Events of one AEDAT 3.1 recording, by time; packets of other kinds and events marked invalid are left out.

    Args:
        file: `.aedat`
        sensor: side of the square sensor in pixels

    Raises:
        HardspikeError: the file is missing, cut, or holds something else.
    """
    content, place = _content(file, "3.1")
    parts = [np.empty(0, EVENT)]
    while place < len(content):
        packet, place = _packet(file, content, place)
        parts.append(packet)
    events = np.concatenate(parts)
    # Packets overlap in time where the camera wrote several at once.
    return check_events(file, events[np.argsort(events["t"], kind="stable")], sensor)


def read_aedat2(file: Path) -> np.ndarray:
    """Events of one AEDAT 2.0 recording of a DVS128 camera (128 x 128 pixels).

    x and y are the address's own, not yet turned into a picture: jAER mirrors x and lets y grow upwards. Events that
    are no pixel's (the camera's synchronisation input) are left out.

    Args:
        file: `.aedat`

    Raises:
        HardspikeError: the file is missing, cut, or holds something else.
    """
    content, place = _content(file, "2.0")
    if (len(content) - place) % RECORD.itemsize:
        raise HardspikeError(f"{file}: damaged or cut short: {len(content) - place} bytes of events, not a multiple of "
                             f"{RECORD.itemsize}; copy it again")
    raw = np.frombuffer(content, RECORD, offset=place)
    address = raw["address"]
    foreign = np.flatnonzero(address & UNUSED)
    if len(foreign):
        raise HardspikeError(f"{file}: event {foreign[0]} has the address {address[foreign[0]]:#010x}, which a DVS128 "
                             "does not have; damaged, or a recording of another camera")
    raw = raw[address & SPECIAL == 0]
    events = np.empty(len(raw), EVENT)
    address = raw["address"].astype(np.int64)
    events["x"], events["y"], events["p"] = address >> 1 & 0x7F, address >> 8 & 0x7F, 1 - (address & 1)
    events["t"] = raw["time"]
    return check_events(file, events, 128)


def _content(file: Path, version: str) -> tuple[bytes, int]:
    """The whole file, and where its header lines end."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HardspikeError(f"{file}: cannot be read ({error.strerror})") from error
    if not content.startswith(f"#!AER-DAT{version}".encode()):
        raise HardspikeError(f"{file}: not an AEDAT {version} recording; copy it again")
    place = 0
    while content[place : place + 1] == b"#":
        place = content.find(b"\n", place) + 1 or len(content)
    return content, place


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
