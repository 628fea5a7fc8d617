"""Events -> frames: bins, polarity, encodings, down-sampling; event files that are damaged."""

import numpy as np
import pytest

from hardspike import HardspikeError
from trainer.data.events import EVENT, encode, to_counts
from trainer.data.readers.five_bytes import read_five_bytes

# t us, x, y, p: two events of one pixel in bin 0, one on each side of a bin's edge, one beyond the window.
RECORDING = [(0, 0, 0, 1), (99_999, 0, 0, 1), (100_000, 1, 0, 0), (150_000, 3, 2, 1), (300_000, 2, 2, 1)]


def five_bytes(recording) -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in recording)


def structured(recording) -> np.ndarray:
    return np.array([(x, y, t, p) for t, x, y, p in recording], EVENT)


def test_events_fall_into_equal_bins_of_a_fixed_window():
    counts = to_counts(structured(RECORDING), steps=3, sensor=4, start=0, duration=300_000)
    expected = np.zeros((3, 2, 4, 4), int)
    expected[0, 1, 0, 0] = 2
    expected[1, 0, 0, 1] = 1
    expected[1, 1, 2, 3] = 1
    np.testing.assert_array_equal(counts, expected)


def test_a_window_that_begins_later():
    counts = to_counts(structured(RECORDING), steps=2, sensor=4, start=100_000, duration=200_000)
    assert counts.sum() == 2 and counts[0].sum() == 2


def test_binary_merges_and_count_clips():
    counts = np.array([0, 1, 2, 9])
    assert encode(counts, "binary", 8).tolist() == [0, 1, 1, 1]
    assert encode(counts, "count", 8).tolist() == [0, 1, 2, 8]


def test_down_sampling_sums_blocks():
    counts = to_counts(structured(RECORDING), steps=3, sensor=4, start=0, duration=300_000, size=2)
    full = to_counts(structured(RECORDING), steps=3, sensor=4, start=0, duration=300_000)
    np.testing.assert_array_equal(counts, full.reshape(3, 2, 2, 2, 2, 2).sum(axis=(3, 5)))


def test_down_sampling_to_a_size_that_is_no_divisor_loses_no_event():
    events = structured([(0, x, 0, 1) for x in range(128)])
    counts = to_counts(events, steps=1, sensor=128, start=0, duration=1, size=48)
    expected = np.bincount((np.arange(128) * 48 / 128).astype(int))  # tonic.transforms.Downsample
    np.testing.assert_array_equal(counts[0, 1, 0], expected)
    assert counts.sum() == 128 and set(expected.tolist()) == {2, 3}


def test_five_byte_file_reads_back(tmp_path):
    file = tmp_path / "a.bin"
    recording = [*RECORDING, (2**23 - 1, 33, 33, 0)]
    file.write_bytes(five_bytes(recording))
    events = read_five_bytes(file, 34)
    assert [(int(e["t"]), int(e["x"]), int(e["y"]), int(e["p"])) for e in events] == recording


@pytest.mark.parametrize(("content", "message"), [
    (None, "cannot be read"),
    (b"", "empty"),
    (five_bytes(RECORDING)[:-1], "not a multiple of 5"),
    (five_bytes([(0, 34, 0, 1)]), "event 0 at x 34, y 0, beyond the sensor's 34 x 34"),
    (five_bytes([(0, 0, 0, 1), (5, 0, 99, 1)]), "event 1 at x 0, y 99"),
    (five_bytes([(7, 0, 0, 1), (6, 0, 0, 1)]), "time runs back at event 1, from 7 to 6 us"),
    (five_bytes([(0, 0, 240, 1)]), "no events"),
    (b"<html><body>404</body></html>\n", "beyond the sensor"),
])
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, content, message):
    file = tmp_path / "bad.bin"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(HardspikeError, match=message) as error:
        read_five_bytes(file, 34)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
