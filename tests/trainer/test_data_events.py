"""Events -> frames: bins, polarity, encodings, down-sampling; event files that are damaged."""

import numpy as np
import pytest

from hardspike import HardspikeError
from trainer.data.events import EVENT, check_events, encode, to_counts
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


def test_five_bytes_carry_the_wraps_of_the_clock(tmp_path):
    """Row 240 is no pixel: its event adds 2^13 us to all that follow."""
    file = tmp_path / "a.bin"
    file.write_bytes(five_bytes([(8000, 1, 2, 1), (0, 0, 240, 0), (5, 3, 4, 0), (0, 0, 240, 0), (7, 5, 6, 1)]))
    expected = structured([(8000, 1, 2, 1), (8197, 3, 4, 0), (16391, 5, 6, 1)])
    assert np.array_equal(read_five_bytes(file, 34), expected)


@pytest.mark.parametrize(("change", "message"), [
    ({"p": [1, 2]}, "polarity 1 to 2, where 0 .OFF. and 1 .ON. are expected"),
    ({"p": [-1, 1]}, "polarity -1 to 1"),
    ({"p": [0.0, np.nan]}, "event 1 has p nan, no whole number"),
    ({"x": [0.0, 0.5]}, "event 1 has x 0.5"),
    ({"y": [np.inf, 1]}, "event 0 has y inf"),
    ({"t": [0.0, np.nan]}, "event 1 has t nan"),
    ({"t": np.array([0, 2**63], np.uint64)}, "event 1 has t 9223372036854775808"),
    ({"t": np.array([0, 1e300])}, r"event 1 has t 1e\+300"),
    ({"x": [0, -1]}, "event 1 at x -1"),
    ({"x": [0, 1, 2]}, r"x is int64 \(3,\), where 2 numbers are expected"),
    ({"p": ["on", "off"]}, "p is <U3"),
    ({"t": [5, 4]}, "time runs back at event 1, from 5 to 4 us"),
    ({"x": [], "y": [], "t": [], "p": []}, "no events"),
])
def test_events_are_checked_in_one_place(tmp_path, change, message):
    columns = {"x": [0, 1], "y": [0, 1], "t": [0, 1], "p": [0, 1]}
    columns = {key: np.asarray(column) for key, column in {**columns, **change}.items()}
    with pytest.raises(HardspikeError, match=message) as error:
        check_events(tmp_path / "a.npy", columns, 34)
    assert str(tmp_path / "a.npy") in str(error.value) and "\n" not in str(error.value)


def test_events_of_any_number_type_are_the_same():
    right = structured(RECORDING)
    for kind in (np.uint8, np.uint32, np.int16, np.float32, np.float64):
        columns = {key: right[key] if key == "t" else right[key].astype(kind) for key in "xytp"}
        assert np.array_equal(check_events("a", columns, 34), right)
    columns = {"x": right["x"], "y": right["y"], "t": right["t"] + 0.75, "p": right["p"].astype(bool)}
    assert np.array_equal(check_events("a", columns, 34), right)


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
