"""HDF5 files, whoever wrote them: looked at before anything is read, and all in memory.

A file may hold links into other files, datasets whose bytes lie elsewhere, filters that are loaded as plug-ins, groups
that are linked twice at every level, and a kilobyte that unpacks to a terabyte. Here it holds groups, numbers and text
within the limits below, or it is refused by the name of what does not fit.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hardspike import HardspikeError, one_line, printable, read_bytes, require_memory, write_bytes

LARGEST = 1 << 32
"""Bytes of a file, and of all that it unpacks to."""
MOST_OBJECTS = 50_000
"""Groups and datasets, one that is linked twice counted twice."""
DEEPEST = 64
"""Groups within groups."""
LONGEST_NAME = 200
MOST_CHUNKS = 1 << 16
"""Parts of a dataset that are packed each for itself."""
LONGEST_TEXT = 1 << 24
"""Bytes of all text of variable length."""
MOST_TEXTS = 1 << 18
"""Texts of variable length in one dataset."""
DENSEST = 1040
"""Deflate packs 1032 equal bytes into one: a file that says more of itself does not hold what it says."""
FEW = 1 << 20
"""Bytes that any file may declare."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link into another file"}
_DEFLATE = h5py.h5z.FILTER_DEFLATE
_FILTERS = (_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


def read(path: str | Path, kind: str) -> dict[str, Any]:
    """Groups as dicts, datasets as numpy arrays and numbers, texts as str (arrays of text: bytes).

    Args:
        kind: what the file should be, for messages.

    Raises:
        HardspikeError: it is missing, unreadable, no HDF5, or holds what is not read; names file and place.
    """
    content = read_bytes(path, LARGEST, kind)
    if not content.startswith(_SIGNATURE):
        raise HardspikeError(f"{path}: not a readable {kind} (HDF5): its first bytes are not HDF5's")
    if _widths(content) != b"\x08\x08":
        raise HardspikeError(f"{path}: not a readable {kind} (HDF5): its offsets are not of 8 bytes; write it anew")
    try:
        with h5py.File(h5py.h5f.open_file_image(content)) as file:
            return _Reader(content).group(file["/"].id, "", 0)
    except HardspikeError as error:
        raise HardspikeError(f"{path}: {error}") from error
    except MemoryError as error:
        raise HardspikeError(f"{path}: what it holds does not fit into memory; free some") from error
    except Exception as error:  # h5py lets a damaged file surface as almost any exception
        raise HardspikeError(f"{path}: not a readable {kind} (HDF5): {printable(one_line(error))[:200]}") from error


def write(path: str | Path, fill: Callable[[io.BytesIO], None]) -> None:
    """Write the file that `fill` makes in memory, whole or not at all: HDF5 itself crashes on a full disk.

    Raises:
        HardspikeError: the file cannot be written.
    """
    made = io.BytesIO()
    fill(made)
    write_bytes(path, made.getbuffer())


def _widths(content: bytes) -> bytes:
    """Bytes of an offset and of a length, from the superblock."""
    return content[13:15] if content[8:9] in (b"\0", b"\1") else content[9:11]


class _Reader:
    """Reads one open file; counts what it has read against the limits."""

    def __init__(self, content: bytes):
        self.content = content
        self.objects = self.bytes = self.text = 0
        self.seen: set[int] = set()
        self.heaps: dict[int, dict[int, bytes]] = {}

    def group(self, group: h5py.h5g.GroupID, path: str, depth: int) -> dict[str, Any]:
        """Everything in `group`, which lies at `path`."""
        if depth > DEEPEST:
            raise HardspikeError(f"group '{_short(path)}': lies deeper than {DEEPEST} groups; write the file flat")
        place = h5py.h5o.get_info(group).addr
        if place in self.seen:  # a tree of groups that are linked twice doubles with every level, a loop has no end
            raise HardspikeError(f"group '{_short(path)}': is linked from two places; store it twice")
        self.seen.add(place)
        found = {}
        for link in group:  # h5py's own objects, which do all this as well, take three times as long
            name = link.decode("utf8", "surrogateescape")
            place = f"{path}/{name}" if path else name
            self.objects += 1
            if self.objects > MOST_OBJECTS:
                raise HardspikeError(f"group '{_short(path)}': more than {MOST_OBJECTS} groups and datasets, one that "
                                     "is linked twice counted twice; such a file is not read")
            found[name] = self.item(group, link, place, depth)
        return found

    def item(self, group: h5py.h5g.GroupID, name: bytes, place: str, depth: int) -> Any:
        """What is called `name` in `group`; links are not followed."""
        if not place.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            raise HardspikeError(f"name '{_short(place)}': is not 1 to {LONGEST_NAME} printable characters; rename it")
        link = group.links.get_info(name).type
        if link != h5py.h5l.TYPE_HARD:
            raise HardspikeError(f"'{_short(place)}' is {_LINKS.get(link, 'a link of an unknown kind')}; links are not "
                                 "followed: store the data itself")
        item = h5py.h5o.open(group, name)
        if isinstance(item, h5py.h5g.GroupID):
            return self.group(item, place, depth + 1)
        if isinstance(item, h5py.h5d.DatasetID):
            return self.dataset(item, f"dataset '{_short(place)}'")
        raise HardspikeError(f"'{_short(place)}' is neither a group nor a dataset; remove it")

    def dataset(self, found: h5py.h5d.DatasetID, label: str) -> Any:
        """The values of a dataset that has been looked at."""
        stored = found.get_create_plist()
        # before its shape is asked for: that of a virtual dataset may lie in another file
        if stored.get_layout() == h5py.h5d.VIRTUAL:
            raise HardspikeError(f"{label} is virtual: its values lie in other files, which are not opened; store them")
        if stored.get_external_count():
            raise HardspikeError(f"{label} keeps its values in another file, which is not opened; store them here")
        data = h5py.Dataset(found)
        if data.shape is None:
            raise HardspikeError(f"{label} is empty (no dataspace); write its value, or leave it out")
        dtype = data.dtype
        kind, text = dtype.kind, h5py.check_string_dtype(dtype)
        if text is None and (kind not in "biuf" or dtype.itemsize > 8 or h5py.check_enum_dtype(dtype)):
            raise HardspikeError(f"{label} holds neither numbers nor text but {printable(str(dtype))[:60]}; write "
                                 "numbers of at most 8 bytes")
        self.bound(data, data.shape, dtype.itemsize, stored, label)
        if text is not None and text.length is None:
            return self.texts(data, label)
        values = data[()]
        if isinstance(values, bytes):
            return self.decoded(values, label)
        return values.astype(values.dtype.newbyteorder("=")) if kind in "iuf" else values

    def bound(self, data: h5py.Dataset, shape: tuple[int, ...], width: int, stored: h5py.h5p.PropDCID,
              label: str) -> None:
        """Refuse what declares or unpacks to more than the file can hold; `width`: bytes of an element."""
        size, parts = math.prod(shape) * width, data.chunks
        if parts:
            chunks = math.prod(-(-n // k) for n, k in zip(shape, parts, strict=True))
            chunk = math.prod(parts) * width
            if chunks > MOST_CHUNKS:
                raise HardspikeError(f"{label} of shape {shape} lies in {chunks} chunks; at most {MOST_CHUNKS}: "
                                     "store it in larger ones")
            size = max(size, chunks * chunk)
        self.bytes += size
        if self.bytes > DENSEST * len(self.content) + FEW or self.bytes > LARGEST:
            raise HardspikeError(f"{label} of shape {shape}: with it the file declares {self.bytes / 1e6:.4g} MB, "
                                 f"more than its {len(self.content) / 1e6:.3g} MB can hold")
        if self.bytes > FEW:
            require_memory(self.bytes, f"{label}: what the file holds up to here", "free some")
        if parts and size:
            self.unpack(data, stored, chunk, label)

    def unpack(self, data: h5py.Dataset, stored: h5py.h5p.PropDCID, chunk: int, label: str) -> None:
        """Refuse filters that would be loaded as plug-ins, and chunks that unpack to more than `chunk` bytes."""
        filters = [stored.get_filter(i)[0] for i in range(stored.get_nfilters())]
        unknown = [code for code in filters if code not in _FILTERS]
        if unknown or filters.count(_DEFLATE) > 1:
            raise HardspikeError(f"{label} is packed with filter {unknown[0] if unknown else 'deflate twice'}; store "
                                 "it with gzip, shuffle and fletcher32, each once, or plain")
        if _DEFLATE not in filters:
            return
        skipped = 1 << filters.index(_DEFLATE)

        def check(info: h5py.h5d.StoreInfo) -> None:
            if info.filter_mask & skipped:
                return
            packed = memoryview(self.content)[info.byte_offset:info.byte_offset + info.size]
            if len(zlib.decompressobj().decompress(packed, chunk + 5)) > chunk + 4:  # 4: a checksum
                raise HardspikeError(f"{label}: a chunk unpacks to more than the {chunk} bytes that it declares; the "
                                     "file is damaged or made to fill memory")

        try:
            data.id.chunk_iter(check)
        except zlib.error as error:
            raise HardspikeError(f"{label}: a chunk cannot be unpacked ({error}); the file is damaged") from error

    def texts(self, data: h5py.Dataset, label: str) -> Any:
        """Text of variable length, read here: on a damaged heap HDF5 itself goes round for ever.

        Each element is (length: 4 bytes, address of a heap: 8, number of an object in it: 4).
        """
        count, offset = math.prod(data.shape), data.id.get_offset()
        if count > MOST_TEXTS:
            raise HardspikeError(f"{label} holds {count} texts; at most {MOST_TEXTS} are read")
        if data.chunks or offset is None or data.id.get_storage_size() != 16 * count:
            if count:
                raise HardspikeError(f"{label} holds text that does not lie in one piece; write it without chunks")
            return np.empty(data.shape, object)
        values = np.empty(count, object)
        pointers = struct.iter_unpack("<IQI", self.piece(offset, 16 * count, label))
        for i, (length, address, number) in enumerate(pointers):
            values[i] = self.heap(address, label).get(number, b"")[:length] if length else b""
            self.count(len(values[i]), label)
        return self.decoded(values[0], label) if data.shape == () else values.reshape(data.shape)

    def heap(self, address: int, label: str) -> dict[int, bytes]:
        """Objects by number of a global heap (HDF5's file format, III.E)."""
        if address in self.heaps:
            return self.heaps[address]
        signature, version, size = struct.unpack("<4sB3xQ", self.piece(address, 16, label))
        if signature != b"GCOL" or version != 1:
            raise HardspikeError(f"{label}: its text is not where it says; the file is damaged")
        found, at, end = self.heaps.setdefault(address, {}), address + 16, address + size
        while at + 16 <= end:
            number, length = struct.unpack("<H6xQ", self.piece(at, 16, label))
            if number == 0:  # what is left is free
                break
            found[number] = self.piece(at + 16, length, label)
            self.count(length, label)
            at += 16 + (length + 7) // 8 * 8
        return found

    def piece(self, offset: int, size: int, label: str) -> bytes:
        """`size` bytes of the file."""
        if offset + size > len(self.content):
            raise HardspikeError(f"{label}: lies beyond the end of the file, which is damaged or cut short")
        return self.content[offset:offset + size]

    def count(self, size: int, label: str) -> None:
        self.text += size
        if self.text > LONGEST_TEXT:
            raise HardspikeError(f"{label}: with it the file holds more than {LONGEST_TEXT // 1_000_000} MB of text; "
                                 "such a file is not read")

    def decoded(self, value: bytes, label: str) -> str:
        try:
            return value.decode("utf8")
        except UnicodeDecodeError as error:
            raise HardspikeError(f"{label}: its text is no UTF-8 (byte {error.start}); write the file anew") from error


def _short(text: str) -> str:
    """A name for a message."""
    text = printable(text)
    return text if len(text) <= 120 else f"{text[:60]}...{text[-50:]}"
