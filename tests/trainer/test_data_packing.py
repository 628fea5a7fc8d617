"""Frames packed into bits: the same counts, few bytes, only what is asked for unpacked."""

import numpy as np
import pytest
import torch

from trainer.data import DataConfig, load
from trainer.data.packing import Packed, bits_for, pack, packed_size, unpack


@pytest.mark.parametrize(("limit", "bits"), [(1, 1), (2, 2), (3, 2), (8, 4), (15, 4), (16, 8), (255, 8)])
def test_counts_survive_packing(limit, bits):
    assert bits_for(limit) == bits
    shape = (3, 2, 5, 7)  # 210 counts: no whole number of bytes
    counts = np.random.default_rng(0).integers(0, limit + 1, (9, *shape)).astype(np.uint8)
    packed = Packed(np.stack([pack(one, bits) for one in counts]), bits, shape)
    assert packed.content.shape == (len(packed), packed_size(shape, bits)) == (9, -(-210 * bits // 8))
    for index in (slice(2, 5), torch.tensor([8, 0, 3, 3]), np.array([1])):
        assert torch.equal(unpack(packed, index), torch.from_numpy(counts)[index])
    assert len(unpack(packed, slice(4, 4))) == 0


def test_a_split_gives_some_frames_as_it_gives_all():
    data = load(DataConfig(steps=3, encoding="count", count_max=5))
    frames, index = data.validation.frames, torch.tensor([7, 2, 140])
    assert torch.equal(data.validation.at(index), frames[index]) and frames.dtype == torch.uint8
    assert torch.equal(data.validation.at(slice(10, 20)), frames[10:20]) and 1 < frames.max() <= 5
    assert torch.equal(data.validation.spread(4).frames, frames[[0, 47, 95, 142]])


def test_nmnist_fits_a_laptop():
    shape = (10, 2, 34, 34)
    assert 60_000 * packed_size(shape, bits_for(1)) < 0.18e9 and 60_000 * packed_size(shape, bits_for(8)) < 0.7e9
