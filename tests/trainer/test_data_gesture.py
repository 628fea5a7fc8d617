"""DVS128 Gesture in its three layouts."""

import struct

import numpy as np
import pytest
import tonic

from hardspike import HardspikeError, UsageError
from tests.trainer.test_data_events import five_bytes
from trainer.data import DataConfig, load
from trainer.data.readers.aedat import read_aedat


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


def write_aedat(file, events):
    """AEDAT 3.1: header lines, then packets of a 28-byte header and polarity events (x, y, p, valid | t)."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for part in (events[:3], events[3:]):
        content += struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, len(part), len(part), len(part))
        content += b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in part)
    file.write_bytes(content)


@pytest.fixture
def release(tmp_path):
    """Two persons; each makes gestures 1 and 2 twice for 3 ms; one event a ms, x = gesture, y = ms."""
    folder = tmp_path / "DvsGesture"
    folder.mkdir()
    for person in ("user01_led", "user02_lab"):
        events, rows = [], ["class,startTime_usec,endTime_usec"]
        for number, gesture in enumerate((1, 2, 1, 2)):
            begin = 100_000 + 10_000 * number
            rows.append(f"{gesture},{begin},{begin + 3000}")
            events += [(begin + 1000 * i, gesture, i, i % 2) for i in range(4)]
        write_aedat(folder / f"{person}.aedat", events)
        (folder / f"{person}_labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user02_lab.aedat\n\n")
    return tmp_path


def test_original_release_is_cut_by_its_labels(release):
    data = load(DataConfig("dvs_gesture", release, steps=3, window_ms=3))
    assert [len(data.train), len(data.validation), len(data.test)] == [2, 2, 4]
    assert data.test.labels.tolist() == [0, 1, 0, 1] and data.shape == (2, 128, 128)
    assert data.test.frames[1].nonzero().tolist() == [[0, 0, 0, 2], [1, 1, 1, 2], [2, 0, 2, 2]]


def test_windows_of_one_gesture_stay_on_one_side(release):
    data = load(DataConfig("dvs_gesture", release, steps=1, window_ms=1))
    gestures = [{name.split("@")[0] for name in part.ids} for part in (data.train, data.validation)]
    assert len(data.train) == 6 and not gestures[0] & gestures[1]


@pytest.mark.parametrize(("file", "content", "message"), [
    ("user01_led.aedat", b"\x89PNG\r\n", "not an AEDAT 3.1 recording"),
    ("user01_led.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n", "no events"),
    ("user01_led.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER", "no events"),
    ("user01_led_labels.csv", b"kind,begin\n1,2\n", "class, startTime_usec, endTime_usec"),
    ("user01_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,2,x\n", "'x' is not a whole number"),
    ("user01_led_labels.csv", b"class,startTime_usec,endTime_usec\n12,100000,104000\n", "gesture 11"),
    ("user01_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,1,9000\n2,100000,103000\n2,110000,113000\n"
     b"1,900000,903000\n", "cut short"),
    ("trials_to_test.txt", b"user01_led.aedat\n", "listed twice"),
    ("trials_to_test.txt", b"user09_led.aedat\n", "user09_led_labels.csv: cannot be read"),
    ("trials_to_train.txt", b"\xff\xfe", "cannot be read"),
])
def test_a_damaged_release_is_one_line_with_the_file(release, file, content, message):
    (release / "DvsGesture" / file).write_bytes(content)
    with pytest.raises(HardspikeError, match=message) as error:
        load(DataConfig("dvs_gesture", release, steps=3, window_ms=3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c[:-8], lambda c: c + b"\1\0", lambda c: c + bytes(28)])
def test_a_cut_aedat_is_damage(release, change):
    file = release / "DvsGesture/user01_led.aedat"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(HardspikeError, match=r"user01_led.aedat: damaged or cut short at byte \d+"):
        load(DataConfig("dvs_gesture", release, steps=3, window_ms=3))


def test_aedat_agrees_with_tonics_parser(release):
    file = release / "DvsGesture/user01_led.aedat"
    version, begin, _ = tonic.io.read_aedat_header_from_file(str(file))
    raw = tonic.io.get_aer_events_from_file(str(file), version, begin)
    events = read_aedat(file, 128)
    np.testing.assert_array_equal(events["t"], raw["timeStamp"])
    np.testing.assert_array_equal(events["x"] << 17 | events["y"] << 2 | events["p"] << 1 | 1, raw["address"])


def test_aedat_leaves_out_other_packets_and_invalid_events_and_carries_the_overflow(tmp_path):
    def packet(kind, overflow, data, time):
        return struct.pack("<HHIIIIIIII", kind, 0, 8, 4, overflow, 1, 1, 1, data, time)

    pixel = 3 << 17 | 4 << 2 | 1 << 1
    file = tmp_path / "a.aedat"
    file.write_bytes(b"#!AER-DAT3.1\r\n" + packet(1, 1, pixel | 1, 5) + packet(0, 0, 1, 0) + packet(1, 0, pixel, 0)
                     + packet(1, 0, pixel | 1, 7))
    assert read_aedat(file, 128)[["x", "y", "t", "p"]].tolist() == [(3, 4, 7, 1), (3, 4, 2**31 + 5, 1)]


def test_a_window_longer_than_every_gesture(release):
    with pytest.raises(UsageError, match="longer than every"):
        load(DataConfig("dvs_gesture", release))


def test_tonics_own_cut(tmp_path):
    for part in ("Train", "Test"):
        for person in ("user01_led", "user02_lab"):
            folder = tmp_path / f"DVSGesture/ibmGesture{part}/{person}"
            folder.mkdir(parents=True)
            for gesture in (0, 1):
                rows = [(gesture, i, i % 2, 500 + i) for i in range(4)]  # x, y, p, ms
                np.save(folder / f"{gesture}.npy", np.array(rows, float))
    data = load(DataConfig("dvs_gesture", tmp_path, steps=2, window_ms=4))
    assert [len(data.train), len(data.validation), len(data.test)] == [2, 2, 4]
    assert data.test.frames[1].nonzero().tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [1, 0, 2, 1], [1, 1, 3, 1]]
    file = tmp_path / "DVSGesture/ibmGestureTrain/user01_led/0.npy"
    np.save(file, np.zeros(3))
    with pytest.raises(HardspikeError, match="rows of x, y, p, t are expected"):
        load(DataConfig("dvs_gesture", tmp_path, window_ms=4))
    with file.open("wb") as zipped:
        np.savez(zipped, x=np.zeros(3))
    with pytest.raises(HardspikeError, match=r"0\.npy: cannot be read \(.*a zip of arrays"):
        load(DataConfig("dvs_gesture", tmp_path, window_ms=4))


@pytest.fixture
def cut(tmp_path):
    """tonic's layout: eleven gestures of 1450 ms each by a person a part; a writer of one of them."""
    def write(person="user01_led", part="Train", gesture=0, off=0, on=1, scale=1, kind=np.int64):
        folder = tmp_path / f"ibmGesture{part}" / person
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(gesture)
        t = np.r_[0, np.sort(random.integers(200, 1200, 300)), 1449] * scale
        p = np.where(random.integers(0, 2, len(t)), on, off)
        p[:2] = on, off
        x, y = random.integers(0, 128, (2, len(t)))
        np.save(folder / f"{gesture}.npy", np.stack([x, y, p, t], 1).astype(kind))

    for part in ("Train", "Test"):
        for person in ("user01_led", "user02_lab"):
            for gesture in range(11):
                write(person, part, gesture)
    return write


def test_what_macos_leaves_beside_tonics_cut_is_no_recording(cut, tmp_path):
    (tmp_path / "ibmGestureTrain/user01_led/._3.npy").write_bytes(b"Mac OS X")
    (tmp_path / "ibmGestureTrain/._user01_led").mkdir()
    assert len(load(DataConfig("dvs_gesture", tmp_path, size=16, steps=2)).test) == 22


@pytest.mark.parametrize(("options", "message"), [
    ({"off": 1, "on": 2}, r"user01_led/0\.npy: polarity 1 to 2"), ({"off": -1}, r"user01_led/0\.npy: polarity -1 to 1"),
    ({"scale": 1000}, r"user01_led/0\.npy: 1\.449e\+06 ms .* are the times milliseconds\?"),
    ({"scale": np.nan, "kind": float}, r"user01_led/0\.npy: nan ms"),
])
def test_polarity_and_times_of_another_convention_are_refused(cut, tmp_path, options, message):
    """MATLAB writes 1 OFF, 2 ON: these events fell into the next step's frames."""
    cut(**options)
    with pytest.raises(HardspikeError, match=message):
        load(DataConfig("dvs_gesture", tmp_path, size=16, steps=2))


def test_a_recording_of_mostly_empty_windows_is_refused(tmp_path):
    """As times of another unit than the windows' leave it."""
    (tmp_path / "labels.csv").write_text("file,tonic_target_0based\na.bs2,0\n")
    events = [(100 * i, i, i, i % 2) for i in range(100)]
    (tmp_path / "a.bs2").write_bytes(five_bytes([*events, (99_000, 1, 1, 1)]))
    with pytest.raises(HardspikeError, match=r"a\.bs2: 8 of 10 windows of 10 ms hold no event; .* microseconds\?"):
        load(DataConfig("dvs_gesture", tmp_path, steps=1, window_ms=10))
    (tmp_path / "a.bs2").write_bytes(five_bytes([(1000 * i, i, i, i % 2) for i in range(100) if not 20 < i < 50]))
    assert len(load(DataConfig("dvs_gesture", tmp_path, steps=1, window_ms=10)).train) == 7


@pytest.mark.parametrize("kept", ["train", "test"])
def test_one_part_of_a_release_alone_is_enough(release, kept):
    whole = load(DataConfig("dvs_gesture", release, steps=1, window_ms=1))
    other = "test" if kept == "train" else "train"
    (release / f"DvsGesture/trials_to_{other}.txt").unlink()
    data = load(DataConfig("dvs_gesture", release, steps=1, window_ms=1))
    assert getattr(data, kept).ids == getattr(whole, kept).ids and data.classes == 2
    with pytest.raises(HardspikeError, match=f"trials_to_{other}.txt: missing"):
        getattr(data, other).at(slice(None))


@pytest.mark.parametrize("name", ["../user01_led.aedat", "/etc/passwd", "a/b.aedat", "..", ".hidden"])
def test_what_a_table_says_is_no_path(release, name):
    (release / "DvsGesture/trials_to_test.txt").write_text(f"{name}\n")
    with pytest.raises(HardspikeError, match=r"trials_to_test\.txt: .* is no file's name"):
        load(DataConfig("dvs_gesture", release, steps=3, window_ms=3))


def test_short_recordings_are_split_by_time(shared_data):
    data = load(DataConfig("dvs_gesture", shared_data / "dvs_gesture", size=32))
    assert [len(data.train), len(data.validation), len(data.test)] == [70, 10, 20]
    for gesture in "12345":
        ends = [[int(name.split("@")[1][:-2]) for name in part.ids if name.startswith(f"{gesture}@")]
                for part in (data.train, data.validation, data.test)]
        assert max(ends[0]) < min(ends[1]) and max(ends[1]) < min(ends[2])
    assert data.train.frames.shape[2:] == (2, 32, 32) and data.classes == 10
    with pytest.raises(UsageError, match="gives 2 windows"):
        load(DataConfig("dvs_gesture", shared_data / "dvs_gesture", window_ms=700))


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(HardspikeError, match="no DVS128 Gesture here"):
        load(DataConfig("dvs_gesture", tmp_path))
