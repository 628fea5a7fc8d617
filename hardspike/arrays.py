"""`.npz` and `.npy` files, whoever wrote them: numbers and text, and no more of them than the file can hold."""

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hardspike.errors import HardspikeError, printable
from hardspike.files import file_size
from hardspike.memory import require_memory

if TYPE_CHECKING:
    import numpy as np

__all__ = ["load_npy", "read_npz"]

LARGEST = 1 << 35
"""Bytes of an .npz file."""
DENSEST, FEW = 1040, 1 << 20
"""Deflate packs 1032 equal bytes into one; bytes that any file may declare."""


def read_npz(path: str | Path) -> "dict[str, np.ndarray]":
    """All arrays of an `.npz` file: numbers and text, nothing pickled. What it declares is looked at before it is read.

    Raises:
        HardspikeError: it is missing, or no such file, holds pickled objects, or declares more than it or memory holds.
    """
    import numpy as np  # late: no command's --help reads a file

    size = file_size(path, LARGEST, ".npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(_declared(path, archive, member) for member in archive.infolist())
        if declared > DENSEST * size + FEW:
            raise HardspikeError(f"{path}: its arrays declare {declared / 1e6:.4g} MB, more than its "
                                 f"{size / 1e6:.3g} MB can hold; it is damaged or made to fill memory")
        require_memory(declared, f"{path}: what it holds", "take fewer samples")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except HardspikeError:
        raise
    except zipfile.BadZipFile as error:
        raise HardspikeError(f"{path}: not a readable .npz file (it is no zip archive, or a damaged one)") from error
    except Exception as error:  # zlib, numpy and OS errors alike: the file is not what it should be
        raise HardspikeError(f"{path}: not a readable .npz file ({type(error).__name__})") from error


def load_npy(path: str | Path, mmap_mode: "Literal['r'] | None" = None) -> "np.ndarray":
    """The one array of a `.npy` file; whoever calls says what to do about a file that is none.

    Raises:
        Exception: numpy's own, of many classes, as it parses headers with Python's parser; ValueError for a zip.
    """
    import numpy as np

    found = np.load(path, mmap_mode, allow_pickle=False)
    if not isinstance(found, np.ndarray):  # numpy goes by the content
        found.close()
        raise ValueError("is a zip of arrays (.npz) by the name of one array (.npy)")
    return found


def _declared(path: str | Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes that a member says it has once it is read."""
    import numpy as np

    name = printable(member.filename)[:80]
    with archive.open(member) as file:
        if file.read(6) != b"\x93NUMPY":
            raise HardspikeError(f"{path}: '{name}' is no array; write the file with numpy.savez")
        version = file.read(1)[0], file.read(1)[0]
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise HardspikeError(f"{path}: '{name}' has a header of numpy's version {version}; write it anew")
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise HardspikeError(f"{path}: '{name}' holds pickled Python objects, which would execute code when loaded; "
                             "store numbers")
    if min(shape, default=0) < 0:
        raise HardspikeError(f"{path}: '{name}' has shape {shape}; the file is damaged")
    return math.prod(shape) * dtype.itemsize
