"""CIFAR-10 and CIFAR-100 in their original files (www.cs.toronto.edu/~kriz/cifar.html), binary and Python's.

Python's are pickles, which can run code. Only lists, numbers, text and arrays are taken out of them; whatever else one
names is refused before it is imported.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from hardspike import HardspikeError, one_line, read_bytes

__all__ = ["CIFAR", "read_cifar"]

PIXELS = 3 * 32 * 32
_TEN = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_HUNDRED = {"train": ["train"], "test": ["test"]}
CIFAR = {"cifar-10-batches-bin": (_TEN, ".bin", 1), "cifar-10-batches-py": (_TEN, "", 0),
         "cifar-100-binary": (_HUNDRED, ".bin", 2), "cifar-100-python": (_HUNDRED, "", 0)}
"""Folder -> its files, their ending, and the label bytes before each picture; 0 for pickles."""


def read_cifar(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Pictures (N, 32, 32, 3) uint8 and labels (N,) of `part` (train or test); None where the folder holds none.

    `folder` is one of `CIFAR` or holds one. Of five training files any number is enough.

    Raises:
        HardspikeError: a file is damaged, or a pickle names something that is no array.
    """
    for name, (parts, ending, label_bytes) in CIFAR.items():
        for place in (folder / name, folder):
            if place == folder and folder.name != name:
                continue
            files = [file for file in (place / f"{each}{ending}" for each in parts[part]) if file.is_file()]
            if files:
                found = [_binary(file, label_bytes) if label_bytes else _pickled(file) for file in files]
                rows, labels = (np.concatenate(each) for each in zip(*found, strict=True))
                return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return None


def _binary(file: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    content = np.frombuffer(read_bytes(file, LARGEST, "CIFAR file"), np.uint8)
    if not len(content) or len(content) % (label_bytes + PIXELS):
        raise HardspikeError(f"{file}: {len(content)} bytes, no multiple of {label_bytes + PIXELS}; cut short or no "
                             "CIFAR file")
    rows = content.reshape(-1, label_bytes + PIXELS)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)  # of two labels the second is the fine one


LARGEST = 1 << 28
"""Bytes of a file; the longest has 155 MB."""


class _Plain(pickle.Unpickler):
    """Lists, numbers, text and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """What an array is made of, and nothing else."""
        allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _encoded,
                   ("numpy.core.multiarray", "_reconstruct"): _empty,
                   ("numpy._core.multiarray", "_reconstruct"): _empty}
        if (module, name) not in allowed:
            raise HardspikeError(f"names {module}.{name}, which is neither a number nor an array")
        return allowed[module, name]


def _empty(*_: object) -> np.ndarray:
    """The array that its state then fills; what size the file asks for at first does not matter."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise HardspikeError(f"names the encoding {encoding}")
    return text.encode("latin-1")


def _pickled(file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = _Plain(io.BytesIO(read_bytes(file, LARGEST, "CIFAR file")), encoding="bytes").load()
        content = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        rows, labels = content["data"], np.asarray(content.get("fine_labels", content.get("labels")))
        good = (isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == PIXELS
                and labels.dtype.kind in "iu" and labels.shape == rows.shape[:1] and len(labels) and labels.min() >= 0)
    except HardspikeError as error:
        raise HardspikeError(f"{file}: {error}; no CIFAR file") from error
    except Exception as error:  # a damaged pickle raises whatever it meets
        raise HardspikeError(f"{file}: cannot be read as CIFAR's ({one_line(error)}); download it again") from error
    if not good:
        raise HardspikeError(f"{file}: data (N, {PIXELS}) uint8 and as many labels are expected; no CIFAR file")
    return rows, labels.astype(np.int64)
