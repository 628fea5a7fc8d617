"""CIFAR10-DVS in its three kinds of file, written here byte by byte after the formats' documentation."""

import shutil
import struct
import sys
from pathlib import Path
from urllib.error import URLError

import flatbuffers
import numpy as np
import pytest
import tonic

from hardspike import HardspikeError, run
from trainer.__main__ import COMMANDS
from trainer.data import DataConfig, load
from trainer.data.cache import cache_folder
from trainer.data.readers.aedat import read_aedat2
from trainer.data.sources.cifar10_dvs import CLASSES, DURATION

NUMBERS = (0, 2, 10, 899, 900, 999)
HEADER = (b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Data format is int32 address, int32 "
          b"timestamp (8 bytes total), repeated for each event\r\n# Timestamps tick is 1 us\r\n")


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


def recording(label, number):
    """Pictures' (t us, column, row, ON): the class and the number can be read off the first event."""
    return [(0, label, number % 128, 1), (DURATION // 2, 127, 0, 0), (DURATION - 1, 3, 70, 0), (DURATION, 5, 5, 1)]


def write_aedat2(file, events, start=7_000_000):
    """AEDAT 2.0 of a DVS128 that lay on its side: y from bit 8, x from bit 1, OFF in bit 0; the camera's own clock."""
    file.write_bytes(HEADER + b"".join(
        event((127 - column) << 8 | (127 - row) << 1 | (1 - on), start + t) for t, column, row, on in events))


def event(address, time):
    return struct.pack(">Ii", address, time)


def write_npz(file, events):
    t, x, y, p = np.array(events).T
    np.savez(file, t=(t + 7_000_000).astype(np.uint32), x=x.astype(np.uint32), y=y.astype(np.uint32), p=p)


def write_aedat4(file, events, start=1_640_000_000_000_000, packet=2):
    """AEDAT 4.0, uncompressed: a FlatBuffer header that names stream 0, then packets of events as FlatBuffers."""
    stream = ('<node name="0" path="/r/outInfo/0/"><attr key="typeIdentifier" type="string">EVTS</attr>'
              '<node name="info" path="/r/outInfo/0/info/"><attr key="sizeX" type="int">128</attr>'
              '<attr key="sizeY" type="int">128</attr></node></node>')
    builder = flatbuffers.Builder(0)
    node = builder.CreateString(f'<dv version="2.0"><node name="outInfo" path="/r/outInfo/">{stream}</node></dv>')
    builder.StartObject(3)  # IOHeader: compression, dataTablePosition, infoNode
    builder.PrependInt64Slot(1, -1, 0)
    builder.PrependUOffsetTRelativeSlot(2, node, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"IOHE")
    content = b"#!AER-DAT4.0\r\n" + bytes(builder.Output())
    for begin in range(0, len(events), packet):
        part = events[begin : begin + packet]
        builder = flatbuffers.Builder(0)
        builder.StartVector(16, len(part), 8)
        for t, x, y, on in reversed(part):  # struct Event: int64, int16, int16, bool, padding
            builder.Prep(8, 16)
            builder.Pad(3)
            builder.PrependBool(bool(on))
            builder.PrependInt16(y)
            builder.PrependInt16(x)
            builder.PrependInt64(start + t)
        elements = builder.EndVector()
        builder.StartObject(1)
        builder.PrependUOffsetTRelativeSlot(0, elements, 0)
        builder.FinishSizePrefixed(builder.EndObject(), b"EVTS")
        body = bytes(builder.Output())
        content += struct.pack("<ii", 0, len(body)) + body
    file.write_bytes(content)


WRITERS = {".aedat": write_aedat2, ".npz": write_npz, ".aedat4": write_aedat4}


def write_set(folder, suffix=".aedat"):
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in NUMBERS:
            WRITERS[suffix](folder / name / f"cifar10_{name}_{number}{suffix}", recording(label, number))
    return folder


@pytest.fixture
def release(tmp_path):
    return write_set(tmp_path / "release")


@pytest.mark.parametrize(("suffix", "place"), [
    (".aedat", "."), (".aedat", "extract"), (".npz", "events_np"), (".aedat4", "CIFAR10DVS"),
])
def test_every_layout_gives_the_same_frames(tmp_path, suffix, place):
    if suffix == ".aedat4":
        pytest.importorskip("aedat", reason="AEDAT 4.0 needs aedat: pip install aedat")
    write_set(tmp_path / "data" / place, suffix)
    data = load(DataConfig("cifar10_dvs", tmp_path / "data", steps=2))
    assert [len(data.train), len(data.validation), len(data.test)] == [30, 10, 20]
    assert data.classes == 10 and data.shape == (2, 128, 128)
    for name, label, frame in zip(data.test.ids, data.test.labels.tolist(), data.test.frames, strict=True):
        number = int(name.rpartition("_")[2])
        assert name.startswith(CLASSES[label])
        # Time, channel (0 OFF, 1 ON), row, column; the last event is beyond the window.
        assert frame.nonzero().tolist() == [[0, 1, number % 128, label], [1, 0, 0, 127], [1, 0, 70, 3]]


def test_the_split_goes_by_number_not_by_spelling(release):
    data = load(DataConfig("cifar10_dvs", release, steps=1))
    assert data.test.ids[:2] == ["airplane/cifar10_airplane_900", "airplane/cifar10_airplane_999"]
    names = [name for name in [*data.train.ids, *data.validation.ids] if name.startswith("cat")]
    assert sorted(names) == [f"cat/cifar10_cat_{number}" for number in (0, 10, 2, 899)]
    numbers = [int(name.rpartition("_")[2]) for name in data.train.ids if name.startswith("cat")]
    assert numbers == sorted(numbers)


def test_size_48(release):
    data = load(DataConfig("cifar10_dvs", release, steps=4, size=48))
    assert data.shape == (2, 48, 48)
    assert data.test.frames[0].nonzero().tolist() == [[0, 1, 900 % 128 * 48 // 128, 0], [2, 0, 0, 47], [3, 0, 26, 1]]


def test_aedat2_leaves_out_what_is_no_pixel(tmp_path):
    file = tmp_path / "a.aedat"
    content = [(3 << 8 | 4 << 1, -5), (1 << 15, -4), (1 << 31 | 6 << 1, -3), (127 << 8 | 0 << 1 | 1, 9)]
    file.write_bytes(HEADER + b"".join(event(*pair) for pair in content))
    assert read_aedat2(file)[["x", "y", "t", "p"]].tolist() == [(4, 3, -5, 1), (0, 127, 9, 0)]


def test_aedat2_agrees_with_tonics_parser(release):
    file = release / "cat/cifar10_cat_10.aedat"
    version, begin, _ = tonic.io.read_aedat_header_from_file(str(file))
    raw = tonic.io.get_aer_events_from_file(str(file), version, begin)
    events = read_aedat2(file)
    np.testing.assert_array_equal(events["t"], raw["timeStamp"])
    np.testing.assert_array_equal(events["y"] << 8 | events["x"] << 1 | (1 - events["p"]), raw["address"])


def test_zips_extracted_into_folders_of_their_own_name(release):
    for name in CLASSES:
        (release / name).rename(release / "inner")
        (release / name).mkdir()
        (release / "inner").rename(release / name / name)
    (release / "dog/dog/._cifar10_dog_0.aedat").write_bytes(b"macOS")
    assert len(load(DataConfig("cifar10_dvs", release, steps=1)).test) == 20


def test_what_was_extracted_twice_is_taken_once_and_said(release, capsys):
    plain = load(DataConfig("cifar10_dvs", release, steps=1))
    assert not capsys.readouterr().err
    shutil.copytree(release / "dog", release / "dog/dog")
    (release / "cat/copy_of_cifar10_cat_2.aedat").write_bytes((release / "cat/cifar10_cat_2.aedat").read_bytes())
    write_npz(release / "bird/cifar10_bird_0.npz", recording(2, 0))
    again = load(DataConfig("cifar10_dvs", release, steps=1))
    assert sorted([*again.train.ids, *again.validation.ids]) == sorted([*plain.train.ids, *plain.validation.ids])
    assert again.test.ids == plain.test.ids
    kinds, twins = capsys.readouterr().err.splitlines()
    assert f"{release}: holds recordings *.aedat, *.npz; those *.aedat are taken" == kinds
    assert f"{release}: {len(NUMBERS) + 1} recordings lie there twice" in twins
    (release / "dog/dog/cifar10_dog_899.aedat").write_bytes(b"another")
    with pytest.raises(HardspikeError, match=r"dog/dog/cifar10_dog_899\.aedat: has the number of .*another content"):
        load(DataConfig("cifar10_dvs", release, steps=1))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "not an AEDAT 2.0 recording"),
    (b"#!AER-DAT3.1\r\n", "not an AEDAT 2.0 recording"),
    (HEADER, "no events"),
    (HEADER[:-2], "no events"),
    (HEADER + event(0, 1)[:-1], "cut short: 7 bytes of events, not a multiple of 8"),
    (HEADER + event(0, 5) + event(0, 4), "time runs back at event 1, from 5 to 4 us"),
    (HEADER + event(0, 5) + event(1 << 22, 6), "event 1 has the address 0x00400000"),
])
def test_a_damaged_recording_is_one_line_with_the_file(release, content, message):
    file = release / "frog/cifar10_frog_10.aedat"
    file.write_bytes(content)
    with pytest.raises(HardspikeError, match=message) as error:
        load(DataConfig("cifar10_dvs", release))
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert not list(cache_folder().glob("*"))


@pytest.mark.parametrize(("arrays", "message"), [
    ({"frames": np.zeros(3)}, "has no array"),
    ({"t": [0, 1], "x": [0], "y": [0], "p": [0]}, "whole numbers of one length"),
    ({"t": [[0]], "x": [[0]], "y": [[0]], "p": [[0]]}, "whole numbers of one length"),
    ({"t": [float("nan")], "x": [0], "y": [0], "p": [0]}, r"t float64 \(1,\)"),
    ({"t": [0], "x": [0], "y": [0], "p": [-1]}, "polarity -1 to -1"),
    ({"t": [0], "x": [128], "y": [0], "p": [1]}, "beyond the sensor"),
    (None, "not a readable .npz file"),
])
def test_a_damaged_npz(tmp_path, arrays, message):
    file = write_set(tmp_path / "data", ".npz") / "ship/cifar10_ship_899.npz"
    if arrays is None:
        file.write_bytes(file.read_bytes()[:-30])
    else:
        np.savez(file, **arrays)
    with pytest.raises(HardspikeError, match=message) as error:
        load(DataConfig("cifar10_dvs", tmp_path / "data"))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [
    lambda c: b"", lambda c: c[:-20], lambda c: c[:60], lambda c: c[:200] + b"\xff" * 90,
    lambda c: c.replace(b"sizeX", b"size\xc3"),  # the decoder panics
])
def test_a_damaged_aedat4(tmp_path, change):
    pytest.importorskip("aedat", reason="AEDAT 4.0 needs aedat: pip install aedat")
    file = write_set(tmp_path / "data", ".aedat4") / "ship/cifar10_ship_899.aedat4"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(HardspikeError, match=r"899\.aedat4: cannot be read as AEDAT 4\.0") as error:
        load(DataConfig("cifar10_dvs", tmp_path / "data"))
    assert "\n" not in str(error.value)


def test_aedat4_without_its_decoder_says_what_to_install(tmp_path, monkeypatch):
    write_set(tmp_path / "data", ".aedat4")
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(HardspikeError, match="pip install aedat"):
        load(DataConfig("cifar10_dvs", tmp_path / "data"))


def test_what_is_missing_is_named(release):
    (release / "horse/cifar10_horse_3.aedat").symlink_to("nowhere")
    with pytest.raises(HardspikeError, match=r"horse_3\.aedat: cannot be read"):
        load(DataConfig("cifar10_dvs", release))
    with pytest.raises(HardspikeError, match=r"no CIFAR10-DVS here: .* zips extracted; check --path"):
        load(DataConfig("cifar10_dvs", release / "cat"))
    for number in (900, 999):
        (release / f"deer/cifar10_deer_{number}.aedat").unlink()
    with pytest.raises(HardspikeError, match=r"deer: no test recordings \*\.aedat, which are numbered 900 to 999"):
        load(DataConfig("cifar10_dvs", release))
    shutil.rmtree(release / "bird")
    with pytest.raises(HardspikeError, match="bird: no training recordings"):
        load(DataConfig("cifar10_dvs", release))
    (release / "automobile/copy.aedat").write_bytes(b"")
    with pytest.raises(HardspikeError, match=r"automobile/copy\.aedat: its name does not end in the recording"):
        load(DataConfig("cifar10_dvs", release))


def test_without_a_path_tonic_downloads(monkeypatch):
    pytest.importorskip("aedat", reason="AEDAT 4.0 needs aedat: pip install aedat")
    monkeypatch.setattr("tonic.datasets.CIFAR10DVS", lambda save_to: write_set(Path(save_to) / "CIFAR10DVS", ".aedat4"))
    assert len(load(DataConfig("cifar10_dvs", steps=1)).test) == 20


def test_a_failed_download_says_what_else_to_do(monkeypatch):
    def dataset(save_to):
        raise URLError("no route")

    monkeypatch.setattr("tonic.datasets.CIFAR10DVS", dataset)
    with pytest.raises(HardspikeError, match=r"CIFAR10DVS: download into .* failed .*no route.*--path"):
        load(DataConfig("cifar10_dvs"))


def test_the_commands_take_it(release, tmp_path):
    options = ["--path", str(release), "--steps", "4", "--size", "48", "--out", str(tmp_path / "s.npz")]
    assert run("trainer", COMMANDS, ["data", "cifar10_dvs", *options]) == 0
    content = np.load(tmp_path / "s.npz")
    assert content["spikes"].shape == (4, 20, 2, 48, 48) and content["labels"].tolist() == sorted([*range(10)] * 2)
    options = ["--data.name", "cifar10_dvs", "--data.path", str(release), "--data.steps", "4", "--data.size", "48",
               "--epochs", "1", "--threads", "1", "--network.layers", "4c5s4-16", "--out", str(tmp_path / "run")]
    assert run("trainer", COMMANDS, ["fit", *options]) == 0
    assert (tmp_path / "run/best.pt").exists()
