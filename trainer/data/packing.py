"""Frames in as few bits as their largest count needs: 1, 2, 4 or 8 a pixel and time step.

60,000 recordings of N-MNIST take 174 MB at T=10 in binary frames (one byte each would be 1.4 GB).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["Packed", "bits_for", "pack", "packed_size", "unpack"]


@dataclass
class Packed:
    """Frames of many recordings.

    Args:
        content: (N, `packed_size`) uint8, best mapped from a file: only the recordings that are asked for are read
        bits: 1, 2, 4 or 8
        shape: (T, C, H, W) of a recording
    """

    content: np.ndarray
    bits: int
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.content)


def bits_for(limit: int) -> int:
    """Bits that hold every count up to `limit`, at most 255."""
    return next(bits for bits in (1, 2, 4, 8) if limit < 2**bits)


def packed_size(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of a recording."""
    return -(-int(np.prod(shape)) * bits // 8)


def pack(frames: np.ndarray, bits: int) -> np.ndarray:
    """Counts below 2**bits, of any shape, as bytes; the first count in the lowest bits."""
    each = 8 // bits
    flat = np.zeros(packed_size(frames.shape, bits) * each, np.uint8)
    flat[:frames.size] = frames.ravel()
    return np.bitwise_or.reduce(flat.reshape(-1, each) << _shifts(bits), axis=1)


def unpack(packed: Packed, index: Tensor | np.ndarray | slice) -> Tensor:
    """Frames (n, T, C, H, W) uint8 of some recordings."""
    content = packed.content[index if isinstance(index, slice) else np.asarray(index)]
    values = np.take(_table(packed.bits), content, axis=0).reshape(len(content), content.shape[1] * 8 // packed.bits)
    return torch.from_numpy(values[:, :int(np.prod(packed.shape))].reshape(len(content), *packed.shape))


def _shifts(bits: int) -> np.ndarray:
    return np.arange(0, 8, bits, dtype=np.uint8)


@cache
def _table(bits: int) -> np.ndarray:
    """The counts in every byte, (256, 8/bits)."""
    return (np.arange(256, dtype=np.uint8)[:, None] >> _shifts(bits)) & np.uint8(2**bits - 1)
