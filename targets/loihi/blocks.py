"""Memory for recordings, taken again once nobody holds what was recorded: new pages cost as much as a run, or more.

A block belongs to the array that was made of it, and comes back when that array goes, which is when the last tensor
that shares its memory does.
"""

import math
import weakref

import numpy as np

SMALL = 1 << 20
"""Bytes; what is smaller the allocator keeps itself."""
KEPT = 1 << 27
"""Bytes that are kept while nobody uses them."""
_free: list[np.ndarray] = []


def recorded(shape: tuple[int, ...], kind: type) -> np.ndarray:
    """An array whose values are whatever was there; hand out the array itself, no view of it."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size < SMALL:
        return np.empty(shape, kind)
    block = _taken(size)
    array: np.ndarray = block[:size].view(kind).reshape(shape)
    weakref.finalize(array, _given_back, block).atexit = False
    return array


def forget() -> None:
    """Give what is kept back to the system."""
    _free.clear()


def _taken(size: int) -> np.ndarray:
    """A block of `size` bytes or more. Each step on the list is one of Python's own, so that threads may share it."""
    for _ in range(len(_free)):
        try:
            block = _free.pop(0)
        except IndexError:
            break
        if size <= block.nbytes <= 2 * size:
            return block
        _free.append(block)
    return np.empty(size, np.uint8)


def _given_back(block: np.ndarray) -> None:
    _free.append(block)
    while sum(one.nbytes for one in _free) > KEPT:
        try:
            _free.pop(0)
        except IndexError:
            break
