"""Frames on disk: a `.npy` array followed by its CRC-32, named after a hash of all that it was made from."""

import math
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hardspike import HardspikeError, atomic_path, cache_folder, logger

__all__ = ["cache_folder", "cached"]

_log = logger(__name__)


def cached(name: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> np.ndarray:
    """A uint8 array of `shape`, mapped from the cache file `name`, or made of `rows` and then written there.

    Args:
        name: file name without suffix; must change with the content
        shape: (N, ...)
        rows: N arrays uint8 of shape[1:]; consumed only where the file is absent or damaged

    Raises:
        HardspikeError: the file cannot be written.
    """
    path = cache_folder() / f"{name}.npy"
    if path.exists():
        array = _open(path, shape)
        if array is not None:
            return array
        _log.warning(f"{path}: damaged; made anew")
    try:
        with atomic_path(path) as temporary:
            _check_room(path, shape)
            _write(temporary, shape, rows)
    except OSError as error:
        raise HardspikeError(f"{path}: cannot be written ({error.strerror or error}); make room or set HARDSPIKE_CACHE "
                             "to another folder") from error
    return _open(path, shape)


def _check_room(path: Path, shape: tuple[int, ...]) -> None:
    needed, free = int(np.prod(shape, dtype=np.float64)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise HardspikeError(f"{path}: {shape} frames need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; take "
                             "fewer steps or a smaller size, or set HARDSPIKE_CACHE to another folder")


def _write(path: Path, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> None:
    checksum = 0
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row in rows:
            content = np.ascontiguousarray(row, dtype=np.uint8).data
            checksum = zlib.crc32(content, checksum)
            file.write(content)
        file.write(checksum.to_bytes(4, "big"))


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array, or None where the file is not what `_write` writes."""
    try:
        with open(path, "rb") as file:  # not through the map: that would count as this process's memory
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            found = np.lib.format.read_array_header_1_0(file)
            offset, left = file.tell(), math.prod(shape)
            if found != (shape, False, np.dtype(np.uint8)) or os.fstat(file.fileno()).st_size != offset + left + 4:
                return None
            checksum = 0
            while chunk := file.read(min(left, 1 << 20)):
                checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
            if file.read() != checksum.to_bytes(4, "big"):
                return None
        # Mapped copy-on-write: pages are read when needed, and a caller who writes to them changes no file.
        return np.memmap(path, np.uint8, "c", offset, shape)
    except Exception:  # numpy parses headers with Python's own parser, whose errors are many
        return None

