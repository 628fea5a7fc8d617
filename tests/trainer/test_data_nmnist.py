"""N-MNIST in its original folders: real recordings, and what may be missing."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from tests.trainer.test_data_events import five_bytes
from trainer.config import FitConfig
from trainer.data import SOURCES, DataConfig, load
from trainer.data.cache import cache_folder
from trainer.data.events import EVENT
from trainer.data.readers.five_bytes import read_five_bytes
from trainer.data.spikes_file import write_spikes
from trainer.fit import fit


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recordings(tmp_path):
    """Three training recordings and one test recording a digit, of one event each."""
    for part, count in (("Train", 3), ("Test", 1)):
        for digit in range(10):
            folder = tmp_path / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:05d}.bin").write_bytes(five_bytes([(1000 * number, digit, 0, 1)]))
    return tmp_path


def test_real_recordings(shared_data):
    config = DataConfig("nmnist", shared_data / "nmnist")
    data = load(config)
    assert [len(data.train), len(data.validation), len(data.test)] == [721, 79, 100]
    assert not set(data.train.ids) & set(data.validation.ids)
    assert all(f"/{label}/" in name for name, label in zip(data.test.ids, data.test.labels.tolist(), strict=True))
    row = data.test.ids.index("Test/0/00004")
    raw = np.fromfile(shared_data / "nmnist/Test/0/00004.bin", np.uint8).reshape(-1, 5).astype(int)
    expected = torch.zeros(10, 2, 34, 34, dtype=torch.uint8)
    for x, y, high, middle, low in raw.tolist():
        step = ((high & 127) << 16 | middle << 8 | low) // 30_000
        if step < 10:
            expected[step, high >> 7, y, x] = 1
    assert torch.equal(data.test.frames[row], expected)
    begin = time.perf_counter()
    again = load(config)
    assert time.perf_counter() - begin < 1
    assert torch.equal(again.train.frames, data.train.frames)


def test_the_folder_above_and_every_digit(recordings):
    data = load(DataConfig("nmnist", recordings, steps=2))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 10, 10]
    assert torch.bincount(data.validation.labels).tolist() == [1] * 10
    for frame, label in zip(data.test.frames, data.test.labels.tolist(), strict=True):
        assert frame.nonzero().tolist() == [[0, 1, 0, label]]


def test_count_encoding_is_scaled(recordings):
    file = recordings / "NMNIST/Test/0/00000.bin"
    file.write_bytes(five_bytes([(t, 5, 6, 0) for t in range(3)]))
    data = load(DataConfig("nmnist", recordings, steps=2, encoding="count", count_max=4))
    assert data.test.frames[0, 0, 0, 6, 5] == 3
    assert data.to_input(data.test.frames)[0, 0, 0, 6, 5] == 0.75


def test_a_changed_recording_makes_new_frames(recordings):
    load(DataConfig("nmnist", recordings, steps=2))
    (recordings / "NMNIST/Test/3/00000.bin").write_bytes(five_bytes([(0, 9, 9, 0), (1, 9, 9, 0)]))
    data = load(DataConfig("nmnist", recordings, steps=2))
    assert data.test.frames[3].nonzero().tolist() == [[0, 0, 9, 9]]
    assert len(list(cache_folder().glob("*.npy"))) == 2


def test_what_is_missing_is_named(recordings):
    (recordings / "NMNIST/Test/7/00000.bin").unlink()
    with pytest.raises(HardspikeError, match=r"Test/7: no \*\.bin recordings"):
        load(DataConfig("nmnist", recordings))
    with pytest.raises(HardspikeError, match=r"elsewhere: no such folder .* with --path where"):
        load(DataConfig("nmnist", recordings / "elsewhere"))


def test_one_part_alone_is_enough_for_what_needs_no_other(recordings, tmp_path):
    """A folder with Test/ alone is tested on; what is asked of the training part is refused with what was expected."""
    whole = load(DataConfig("nmnist", recordings, steps=2))
    (recordings / "NMNIST/Train").rename(tmp_path / "away")
    data = load(DataConfig("nmnist", recordings, steps=2))
    assert torch.equal(data.test.frames, whole.test.frames) and torch.equal(data.test.labels, whole.test.labels)
    for ask in (lambda: len(data.train), lambda: data.validation.frames, lambda: data.train.labels,
                lambda: fit(FitConfig(out=tmp_path / "run", data=DataConfig("nmnist", recordings)))):
        with pytest.raises(HardspikeError, match=r"NMNIST/Train: no such folder; .*Train/<digit>/\*\.bin"):
            ask()
    file = write_spikes(DataConfig("nmnist", recordings, steps=2), out=tmp_path / "s.npz")
    np.testing.assert_array_equal(np.load(file)["spikes"], whole.test.frames.transpose(0, 1))
    (recordings / "NMNIST/Test").rename(tmp_path / "gone")
    with pytest.raises(HardspikeError, match=r"Train: no such folder; .*Test: no such folder"):
        load(DataConfig("nmnist", recordings))


def test_what_macos_leaves_beside_a_recording_is_none(recordings):
    (recordings / "NMNIST/Train/3/._00001.bin").write_bytes(b"Mac OS X")
    assert len(load(DataConfig("nmnist", recordings, steps=2)).train) == 20


def test_a_class_of_the_test_part_alone_is_refused_with_its_file(recordings, monkeypatch):
    def eleven(config):
        source = SOURCES["nmnist"](config)
        source.test.append(replace(source.test[-1], id="a", label=10))
        return source

    monkeypatch.setitem(SOURCES, "eleven", eleven)
    with pytest.raises(HardspikeError, match=r"Test/9/00000\.bin: class 10, of which there is no training recording"):
        load(DataConfig("eleven", recordings))


def test_times_of_another_unit_are_refused_with_the_share_that_is_looked_at(recordings):
    """A second of events in ns would be 1000 s: nearly all would be left out without a word."""
    file = recordings / "NMNIST/Train/2/00001.bin"
    file.write_bytes(five_bytes([(t * 400_000, 5, 6, 0) for t in range(10)]))
    with pytest.raises(HardspikeError, match=r"00001\.bin: 1 of 10 events \(10 %\) .* are the times microseconds\?"):
        load(DataConfig("nmnist", recordings))
    file.write_bytes(five_bytes([(t // 5, 5, 6, 0) for t in range(1500)]))  # ms
    with pytest.raises(HardspikeError, match=r"all 1500 events lie within 300 us, where a recording takes 300 ms"):
        load(DataConfig("nmnist", recordings))


def test_a_single_training_recording_of_a_class_cannot_be_split(recordings):
    for number in (1, 2):
        (recordings / f"NMNIST/Train/4/0000{number}.bin").unlink()
    with pytest.raises(HardspikeError, match="class 4: one training recording"):
        load(DataConfig("nmnist", recordings))


def test_a_damaged_recording_stops_the_load_and_leaves_no_cache(recordings):
    file = recordings / "NMNIST/Train/2/00001.bin"
    file.write_bytes(b"12345678")
    with pytest.raises(HardspikeError, match=r"00001\.bin: 8 bytes"):
        load(DataConfig("nmnist", recordings))
    assert not list(cache_folder().glob("*"))


def test_tonic_is_needed_for_a_download_alone_and_the_message_says_what_to_install(recordings, monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    assert len(load(DataConfig("nmnist", recordings)).test) == 10
    with pytest.raises(HardspikeError, match=r"pip install 'hardspike\[events\]', or give the folder"):
        load(DataConfig("nmnist"))


def test_our_reader_agrees_with_tonics(shared_data):
    tonic = pytest.importorskip("tonic")
    for file, sensor in (("nmnist/Train/3/00008.bin", 34), ("dvs_gesture/bs2_1450ms/4.bs2", 128)):
        ours = read_five_bytes(shared_data / file, sensor)
        theirs = tonic.io.read_mnist_file(str(shared_data / file), dtype=EVENT)
        assert len(ours) > 1000 and np.array_equal(ours, theirs)


def test_without_a_path_tonic_downloads(recordings, monkeypatch):
    def dataset(save_to, train):
        target = Path(save_to) / "NMNIST"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (recordings / "NMNIST").rename(target)

    monkeypatch.setattr("tonic.datasets.NMNIST", dataset)
    assert len(load(DataConfig("nmnist")).test) == 10


def test_a_failed_download_says_what_else_to_do(monkeypatch):
    def dataset(save_to, train):
        raise URLError("no route")

    monkeypatch.setattr("tonic.datasets.NMNIST", dataset)
    with pytest.raises(HardspikeError, match=r"NMNIST: download into .* failed .*no route.*--path"):
        load(DataConfig("nmnist"))
