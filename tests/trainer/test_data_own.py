"""Recordings of users' own: folders of events in many formats, frames, tonic's data sets; sensors of any shape."""

import io
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hardspike import HardspikeError, UsageError
from trainer.config import FitConfig
from trainer.data import DataConfig, load
from trainer.data.events import EVENT, Sensor, to_counts
from trainer.data.readers.five_bytes import read_five_bytes
from trainer.data.readers.hdf5_files import read_h5
from trainer.data.readers.numpy_files import read_npy, read_npz_events
from trainer.data.readers.prophesee import read_dat, read_raw
from trainer.fit import fit
from trainer.networks import NetworkConfig

SENSOR = Sensor(20, 30)


def recording(seed: int, sensor: Sensor = SENSOR, count: int = 60, span: int = 50_000) -> np.ndarray:
    """Random events by time, the first at 0."""
    random = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    for field, most in (("x", sensor.width), ("y", sensor.height), ("p", sensor.polarities), ("t", span)):
        events[field] = random.integers(0, most, count)
    events["t"].sort()
    events["t"] -= events["t"][0]
    return events


def dat(file: Path, events: np.ndarray) -> None:
    data = events["x"] | events["y"] << 14 | events["p"] << 28
    words = np.stack([events["t"], data], axis=1).astype("<u4")
    file.write_bytes(b"% Data file containing CD events.\n% Version 2\n" + bytes([12, 8]) + words.tobytes())


def raw(file: Path, events: np.ndarray) -> None:
    """EVT 2.0: a TIME_HIGH before every event, and a trigger among them, which is no pixel's."""
    words = []
    for event in events:
        words += [8 << 28 | int(event["t"]) >> 6, 10 << 28 | 5,
                  int(event["p"]) << 28 | (int(event["t"]) & 63) << 22 | int(event["x"]) << 11 | int(event["y"])]
    file.write_bytes(b"% evt 2.0\n% format EVT2;height=20;width=30\n% end\n" + np.array(words, "<u4").tobytes())


def five_bytes(file: Path, events: np.ndarray) -> None:
    t = events["t"]
    rows = np.stack([events["x"], events["y"], events["p"] << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1)
    file.write_bytes(rows.astype(np.uint8).tobytes())


def evt3(file: Path, events: np.ndarray) -> None:
    """EVT 3.0: events of one time, row and polarity as vectors of 12 and 8 columns, others alone, triggers between."""
    words, time, high = [], None, None
    for index, event in enumerate(events):
        t = int(event["t"])
        if t >> 12 != high:
            high = t >> 12
            words.append(8 << 12 | high & 0xFFF)
        if t != time:
            time = t
            words += [6 << 12 | t & 0xFFF, 10 << 12 | 1]
        x, polarity = int(event["x"]), int(event["p"])
        words.append(int(event["y"]))
        if index % 3 == 0 or 12 <= x < 20:
            words.append(2 << 12 | polarity << 11 | x)
        elif x < 12:
            words += [3 << 12 | polarity << 11, 4 << 12 | 1 << x]
        else:
            words += [3 << 12 | polarity << 11 | x - 12 - x % 8, 4 << 12, 5 << 12 | 1 << x % 8]
    file.write_bytes(b"% evt 3.0\n% format EVT3;height=20;width=30\n% end\n" + np.array(words, "<u2").tobytes())


def h5(file: Path, events: np.ndarray, group: str = "") -> None:
    with h5py.File(file, "w") as content:
        for name in "xytp":
            content[f"{group}{name}"] = events[name]


WRITERS = {
    "npz": (lambda file, e: np.savez(file, **{name: e[name] for name in "xytp"}), read_npz_events),
    "structured.npz": (lambda file, e: np.savez(file, events=e), read_npz_events),
    "others.npz": (lambda file, e: np.savez(file, xs=e["x"], ys=e["y"], ts=e["t"], ps=e["p"]), read_npz_events),
    "npy": (lambda file, e: np.save(file, e), read_npy),
    "dat": (dat, read_dat), "raw": (raw, read_raw), "evt3.raw": (evt3, read_raw), "h5": (h5, read_h5),
    "group.h5": (lambda file, e: h5(file, e, "events/"), read_h5), "bin": (five_bytes, read_five_bytes)}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_reader_gives_the_events_that_were_written(kind, tmp_path):
    write, read = WRITERS[kind]
    events = recording(3)
    write(tmp_path / f"a.{kind}", events)
    assert np.array_equal(read(tmp_path / f"a.{kind}", SENSOR), events)


def folder(place: Path, kind: str = "npz", classes: int = 3, each: int = 6, sensor: Sensor = SENSOR) -> Path:
    for label in range(classes):
        (place / f"class {label}").mkdir(parents=True, exist_ok=True)
        for i in range(each):
            WRITERS[kind][0](place / f"class {label}" / f"{i}.{kind}", recording(100 * label + i, sensor))
    return place


@pytest.mark.parametrize("kind", ["npz", "npy", "dat", "raw", "bin"])
def test_every_format_trains_an_epoch(kind, tmp_path):
    data = DataConfig("events", folder(tmp_path / "all", kind), steps=4, sensor=(20, 30), window_ms=50)
    run = fit(FitConfig(out=tmp_path / "run", method="hard", epochs=1, data=data, network=NetworkConfig("4c5s4-16")))
    assert len(run.history) == 1
    data = load(data)
    assert data.shape == (2, 20, 30) and data.classes == 3
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 3, 3)


def test_parts_and_frames_are_those_of_the_files(tmp_path):
    """Given parts stay; numbers of classes are their names' order; counts are those of a plain loop."""
    folder(tmp_path / "all" / "train"), folder(tmp_path / "all" / "test", each=2)
    data = load(DataConfig("events", tmp_path / "all", steps=5, sensor=(20, 30), window_ms=50, encoding="count",
                           count_max=255))
    assert len(data.test) == 6 and data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.zeros((5, 2, 20, 30), int)
    for event in recording(101):
        expected[event["t"] * 5 // 50_000, event["p"], event["y"], event["x"]] += 1
    assert np.array_equal(data.test.frames[3].numpy(), expected)


def test_a_sensor_of_any_shape_is_scaled_by_its_longer_side():
    events = recording(1)
    counts = to_counts(events, 3, SENSOR, 0, 50_000, size=15)
    assert counts.shape == (3, 2, 10, 15) and counts.sum() == len(events)
    whole = to_counts(events, 3, SENSOR, 0, 50_000)
    assert np.array_equal(counts, whole.reshape(3, 2, 10, 2, 15, 2).sum(axis=(3, 5)))
    row = Sensor(1, 700, 1)
    assert to_counts(recording(2, row), 4, row, 0, 50_000, size=140).shape == (4, 1, 1, 140)
    with pytest.raises(UsageError, match="at most the sensor's 30"):
        SENSOR.frame(31)


def test_what_is_not_given_is_asked_for_with_a_proposal_that_works(tmp_path):
    path = folder(tmp_path / "all")
    with pytest.raises(UsageError, match=r"sensor, window_ms not given; .* reach 20 rows, 30 columns") as said:
        load(DataConfig("events", path))
    window = int(str(said.value).split("--window_ms ")[1].split("`")[0])
    assert 40 <= window <= 50 and load(DataConfig("events", path, sensor=(20, 30), window_ms=window)).classes == 3


@pytest.mark.parametrize("config, said", [
    (dict(name="events"), "give --path"), (dict(name="frames"), "give --path"),
    (dict(name="event"), "did you mean 'events'"), (dict(name="nmnist:x"), "tonic:NAME takes"),
    (dict(name="tonic"), "tonic:NAME takes"), (dict(sensor=(3, 4)), "is known; leave it out")])
def test_a_source_that_cannot_be_is_one_line(config, said):
    with pytest.raises(UsageError, match=said):
        load(DataConfig(**config))


@pytest.mark.parametrize("sensor", [(3,), (3, 0), (3, 4, 3), (3, 4, 1, 1), (3, 1 << 20)])
def test_a_sensor_that_cannot_be_is_refused(sensor):
    with pytest.raises(UsageError, match=r"sensor .* must be"):
        DataConfig("events", sensor=sensor)


def zipped() -> bytes:
    """An .npz file."""
    file = io.BytesIO()
    np.savez(file, x=[1], y=[1])
    return file.getvalue()


@pytest.mark.parametrize("name, content, said", [
    ("a.npz", dict(x=[1], t=[1], p=[1]), "no column y"),
    ("a.npz", dict(x=[1], y=[1, 2], t=[1], p=[1]), "different lengths"),
    ("a.npz", dict(x=[30], y=[1], t=[1], p=[1]), "beyond the sensor's 30 x 20"),
    ("a.npy", np.zeros((4, 4)), "without names of columns"), ("a.npy", zipped(), "a zip of arrays"),
    ("a.raw", b"% evt 4.0\n% end\n1234", "neither in EVT"), ("a.raw", b"% evt 2.0\n% end\n12345", "no multiple of 4"),
    ("a.raw", b"% evt 2.0", "without an end"), ("a.raw", b"% evt 2.0\n% end\n", "no events"),
    ("a.dat", b"% x\n\x0c\x0812345", "no CD events"), ("a.dat", b"", "no CD events")])
def test_a_damaged_file_is_one_line(name, content, said, tmp_path):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.savez(file, **content) if isinstance(content, dict) else np.save(file, content)
    reader = {".npz": read_npz_events, ".npy": read_npy, ".raw": read_raw, ".dat": read_dat}[file.suffix]
    with pytest.raises(HardspikeError, match=said):
        reader(file, SENSOR)


def binned(path: Path, shape: tuple[int, ...], each: int = 20, classes: int = 2) -> Path:
    random = np.random.default_rng(0)
    path.mkdir()
    for part in ("train", "test"):
        labels = np.arange(each) % classes
        spikes = (random.random((8, each, *shape)) < 0.2).astype(np.uint8)
        np.savez(path / f"{part}.npz", spikes=spikes, labels=labels)
    return path


@pytest.mark.parametrize("shape, layers, expected", [
    ((3, 9, 14), "4c3s2-8", (3, 9, 14)), ((9, 14), "4c3s2-8", (1, 9, 14)), ((70,), "16", (1, 1, 70))])
def test_frames_of_any_shape_train_an_epoch(shape, layers, expected, tmp_path):
    data = DataConfig("frames", binned(tmp_path / "f", shape), steps=4, encoding="count")
    fit(FitConfig(out=tmp_path / "run", method="hard", epochs=1, data=data, network=NetworkConfig(layers)))
    found = load(data)
    spikes = np.load(tmp_path / "f" / "test.npz")["spikes"]
    assert found.shape == expected and found.steps == 4
    assert np.array_equal(found.test.frames[7].numpy().reshape(4, -1),
                          spikes[:, 7].astype(int).reshape(4, 2, -1).sum(axis=1))


@pytest.mark.parametrize("change, said", [
    (dict(spikes=np.zeros((3, 2))), "are expected; it holds"), (dict(labels=np.array([-1] * 20)), "labels from -1"),
    (dict(spikes=np.zeros((8, 20, 4))), "are expected; it holds spikes float64"),
    (dict(spikes=np.full((8, 20, 4), 300)), "300"), (dict(spikes=np.zeros((8, 20, 5), int)), "bin them alike")])
def test_frames_that_cannot_be_are_one_line(change, said, tmp_path):
    path = binned(tmp_path / "f", (4,))
    np.savez(path / "test.npz", **dict(np.load(path / "test.npz")) | change)
    with pytest.raises(HardspikeError, match=said):
        load(DataConfig("frames", path, steps=8))
    with pytest.raises(UsageError, match=r"give --steps 8"):
        load(DataConfig("frames", binned(tmp_path / "g", (4,)), steps=3))


def test_heidelberg_digits_through_tonic_reach_a_dense_network(tmp_path):
    """SHD's own layout, written here: 700 channels, times in seconds, no polarity."""
    pytest.importorskip("tonic")
    place, random = tmp_path / "SHD", np.random.default_rng(0)
    place.mkdir()
    for part, each in (("train", 24), ("test", 8)):
        (place / f"shd_{part}.h5.zip").touch()  # tonic looks for the archive, and takes what came out of it
        with h5py.File(place / f"shd_{part}.h5", "w") as file:
            times = file.create_dataset("spikes/times", (each,), h5py.vlen_dtype(np.float16))
            units = file.create_dataset("spikes/units", (each,), h5py.vlen_dtype(np.uint16))
            for i in range(each):
                times[i] = np.sort(random.random(50)).astype(np.float16)
                units[i] = random.integers(0, 700, 50)
            file["labels"] = (np.arange(each) % 4).astype(np.uint16)
            file["extra/keys"] = np.array([b"a", b"b", b"c", b"d"])
            file["extra/speaker"] = np.zeros(each, np.uint16)
    data = DataConfig("tonic:SHD", tmp_path, steps=5, size=70, window_ms=1100)
    fit(FitConfig(out=tmp_path / "run", method="hard", epochs=1, data=data, network=NetworkConfig("16")))
    found = load(data)
    assert found.shape == (1, 1, 70) and found.classes == 4 and len(found.test) == 8
    with pytest.raises(UsageError, match=r"perhaps `.* tonic:SHD .* --window_ms 1\d\d\d`"):
        load(DataConfig("tonic:SHD", tmp_path))
    with pytest.raises(UsageError, match="did you mean 'SHD'"):
        load(DataConfig("tonic:SHDD", tmp_path))


def test_without_tonic_its_data_sets_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(HardspikeError, match="tonic, which is not installed"):
        load(DataConfig("tonic:SHD", tmp_path))


def test_events_of_evt3_lie_close_together_and_its_clock_begins_anew(tmp_path):
    """Several events in one vector, in one row; past 2^24 us the time goes on."""
    words = [8 << 12 | 0xFFF, 6 << 12 | 0xFFF, 7, 3 << 12 | 1 << 11 | 2, 4 << 12 | 0b100000000011, 5 << 12 | 0b10000001,
             8 << 12, 6 << 12 | 5, 2 << 12 | 9, 8 << 12, 2 << 12 | 10]
    file = tmp_path / "a.raw"
    file.write_bytes(b"% evt 3.0\n% end\n" + np.array(words, "<u2").tobytes())
    events = read_raw(file, SENSOR)
    assert events.tolist() == [(x, 7, 2**24 - 1, 1) for x in (2, 3, 13, 14, 21)] + [
        (9, 7, 2**24 + 5, 0), (10, 7, 2**24 + 5, 0)]
    file.write_bytes(b"% evt 3.0\n% end\n" + np.array(words, "<u2").tobytes()[:-1])
    with pytest.raises(HardspikeError, match="no multiple of 2; cut short"):
        read_raw(file, SENSOR)
    file.write_bytes(b"% evt 2.1\n% end\n" + bytes(8))
    with pytest.raises(HardspikeError, match=r"neither in EVT 2\.0 nor in EVT 3\.0"):
        read_raw(file, SENSOR)


def shd(folder: Path, classes: int = 3, channels: int = 700, count: int = 24) -> Path:
    """Files in SHD's layout: each class fires in a third of its own of the channels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        labels = np.arange(count) % classes
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float32))
            units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
            for i, label in enumerate(labels):
                spikes = 300
                times[i] = np.sort(random.random(spikes)).astype(np.float32)
                units[i] = (label * channels // classes + random.integers(0, channels // classes, spikes))
            file["labels"] = labels
    return folder


def test_files_in_shds_layout_are_read(tmp_path):
    folder = shd(tmp_path / "shd")
    config = DataConfig(name="hdf5", path=folder, sensor=(1, 700), window_ms=1000, steps=5)
    data = load(config)
    assert data.classes == 3 and data.test.frames.shape == (24, 5, 1, 1, 700)
    with h5py.File(folder / "shd_test.h5") as file:
        for i in (0, 5):
            counted = np.zeros((5, 700), bool)
            counted[(file["spikes/times"][i].astype(np.float64) * 5).astype(int), file["spikes/units"][i]] = True
            assert np.array_equal(data.test.frames[i, :, 0, 0].numpy().astype(bool), counted)
    with pytest.raises(UsageError, match=r"--sensor 1,699 --window_ms 1000"):
        load(DataConfig(name="hdf5", path=folder))


@pytest.mark.parametrize(("change", "message"), [
    (lambda file: file.__delitem__("labels"), "as many of each"),
    (lambda file: file.__setitem__("labels2", h5py.ExternalLink("x.h5", "/a")) or file.move("labels2", "labels3") or (
        file.__delitem__("labels") or file.move("labels3", "labels")), "is a link"),
    (lambda file: file.__delitem__("spikes/units") or file.__setitem__("spikes/units", np.zeros(24)),
     "a row of numbers for each recording")])
def test_hdf5_that_is_something_else_is_refused(change, message, tmp_path):
    folder = shd(tmp_path / "shd")
    with h5py.File(folder / "shd_train.h5", "a") as file:
        change(file)
    with pytest.raises(HardspikeError, match=message):
        load(DataConfig(name="hdf5", path=folder, sensor=(1, 700), window_ms=1000, steps=5))


def test_frames_in_hdf5_are_those_of_npz(tmp_path):
    random = np.random.default_rng(0)
    arrays = {part: {"spikes": (random.random((4, 12, 2, 5, 6)) < 0.3).astype(np.uint8), "labels": np.arange(12) % 3}
              for part in ("train", "test")}
    for kind in ("npz", "h5"):
        (tmp_path / kind).mkdir()
        for part, content in arrays.items():
            if kind == "npz":
                np.savez(tmp_path / kind / f"{part}.npz", **content)
            else:
                with h5py.File(tmp_path / kind / f"{part}.h5", "w") as file:
                    for name, values in content.items():
                        file[name] = values
    one, other = (load(DataConfig(name="frames", path=tmp_path / kind, steps=4)) for kind in ("npz", "h5"))
    assert np.array_equal(one.test.frames, other.test.frames) and np.array_equal(one.test.labels, other.test.labels)


def test_shds_layout_with_a_recurrent_network_reaches_the_chips_integers(tmp_path):
    """Trained, exported and checked spike for spike, quantised, and run in Loihi 2's integers."""
    from export.formats.integers import write_integers
    from export.formats.nir import write_model
    from export.model import Model
    from export.options import Output, Quantisation
    from export.recordings import Recordings
    out = tmp_path / "run"
    fit(FitConfig(out=out, epochs=3, batch_size=8, method="hard", lr=1e-2, network=NetworkConfig(layers="24rec"),
                  data=DataConfig(name="hdf5", path=shd(tmp_path / "shd"), sensor=(1, 700), window_ms=1000, steps=8)))
    model = Model.open(out)
    checked = write_model(model, Output(), 0, Recordings())
    assert checked.mismatches == 0 and checked.compared > 0
    checked = write_integers(model, Output(), Quantisation("loihi2", 8), 0, Recordings())
    assert checked is not None and (out / "best.loihi2-int8.nir").is_file()
