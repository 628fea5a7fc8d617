"""Recordings whose times are of another unit, and advice that can be followed as it stands: no window and no sensor is
proposed that is refused, and options are those of the command that was called."""

import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from hardspike import HardspikeError, UsageError, run
from hardspike.arguments import arguments
from trainer.__main__ import COMMANDS
from trainer.commands import data as data_command
from trainer.config import FitConfig
from trainer.data import SOURCES, DataConfig, load
from trainer.data.options import option_names
from trainer.data.reach import spread


def events_folder(place: Path, factor: float = 1.0, each: int = 10, **columns) -> Path:
    """20 recordings of 30 x 20 pixels over 50 ms; times are microseconds times `factor`."""
    random = np.random.default_rng(0)
    for label in ("left", "right"):
        (place / label).mkdir(parents=True)
        for i in range(each):
            times = np.sort(np.r_[0, random.integers(0, 49_000, 98), 49_499]) * factor
            own = {"x": random.integers(0, 30, 100), "y": random.integers(0, 20, 100), "p": random.integers(0, 2, 100)}
            own["x"][0], own["y"][0] = 29, 19
            np.savez(place / label / f"{i}.npz", t=times, **own | columns)
    return place


def shd(place: Path, factor: float = 1.0, late: int = 115) -> Path:
    """60 recordings a part in SHD's layout, times in seconds times `factor`; one alone reaches channel `late`."""
    random = np.random.default_rng(0)
    place.mkdir()
    for part in ("train", "test"):
        with h5py.File(place / f"{part}.h5", "w") as file:
            rows = [file.create_dataset(f"spikes/{name}", (60,), h5py.vlen_dtype(kind))
                    for name, kind in (("times", np.float32), ("units", np.uint16))]
            for i in range(60):
                rows[0][i] = np.r_[np.sort(random.random(49)) * 0.79, 0.79].astype(np.float32) * factor
                rows[1][i] = np.r_[random.integers(0, 112, 49), late if i == 31 and part == "train" else 112]
            file["labels"] = np.arange(60) % 2
    return place


def words(said: str, option: str) -> str:
    """The value that a message gives an option."""
    return re.search(rf"--{option} ([\d,]*\d)", said)[1]


def refused(config: DataConfig, prefix: str = "data.") -> str:
    with option_names(prefix), pytest.raises(HardspikeError) as said:
        load(config)
    assert len(str(said.value)) < 480 and " ... " not in str(said.value) and "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("make, name, unit", [
    (lambda place: events_folder(place, 1e-6), "events", "t in microseconds is expected: seconds times 1e6"),
    (lambda place: events_folder(place, 1e-3), "events", "milliseconds times 1000"),
    (lambda place: shd(place, 1000), "hdf5", "divide milliseconds by 1000")])
def test_times_of_another_unit_are_said_to_be_so_where_options_are_asked_for(make, name, unit, tmp_path):
    """And whatever is proposed is taken: no window of 0 ms."""
    said = refused(DataConfig(name, make(tmp_path / "data")))
    assert unit in said and "--data.window_ms 0" not in said


def test_the_shortest_window_is_proposed_only_where_it_is_taken(tmp_path):
    path = events_folder(tmp_path / "short", 0.01)  # 0.5 ms
    said = refused(DataConfig("events", path))
    assert words(said, "data.window_ms") == "1" and "microseconds is expected" in said
    assert load(DataConfig("events", path, sensor=(20, 30), window_ms=1)).classes == 2
    assert "window_ms 1" not in refused(DataConfig("events", path, steps=1))


def test_times_as_they_should_be_are_not_doubted(tmp_path):
    assert refused(DataConfig("events", events_folder(tmp_path / "data"))).endswith(
        "all 20 recordings reach 20 rows, 30 columns and 49.499 ms, so perhaps --data.sensor 20,30 --data.window_ms 50")


@pytest.mark.parametrize("factor, window", [(1e-6, 50), (1e-3, 50), (1, 50_000)])
def test_a_window_whose_first_step_has_all_events_is_refused(factor, window, tmp_path):
    config = DataConfig("events", events_folder(tmp_path / "data", factor), sensor=(20, 30), window_ms=window)
    said = refused(config)
    assert "all in the first of 10 steps; are the times microseconds?" in said
    assert said.endswith("; or --data.window_ms is too long" + ": 50 uses all steps" * (factor == 1))


def test_one_short_recording_and_one_step_are_as_they_should_be(tmp_path, caplog):
    path = events_folder(tmp_path / "data")
    np.savez(path / "left" / "0.npz", x=[1, 2], y=[1, 2], p=[0, 1], t=[0, 3])
    assert load(DataConfig("events", path, sensor=(20, 30), window_ms=50)).steps == 10
    assert load(DataConfig("events", path, sensor=(20, 30), window_ms=500, steps=1)).steps == 1


def test_a_window_of_which_nobody_fills_half_is_remarked(tmp_path, capsys):
    path = events_folder(tmp_path / "data")
    with option_names("data."):
        load(DataConfig("events", path, sensor=(20, 30), window_ms=200))
    assert "steps from 4 to 10 are empty in all of them; --data.window_ms 50 uses all" in capsys.readouterr().err
    load(DataConfig("events", path, sensor=(20, 30), window_ms=50))
    load(DataConfig("events", path, sensor=(20, 30), window_ms=80))
    assert "empty" not in capsys.readouterr().err


def test_the_question_names_the_unit_of_the_layout(tmp_path):
    config = DataConfig("hdf5", shd(tmp_path / "data", 1000), sensor=(1, 116), window_ms=1000)
    said = refused(config)
    assert "are the times seconds? (" in said and "are the times micro" not in said


def test_a_proposed_sensor_holds_every_recording_and_is_taken(tmp_path):
    """A single recording of 120 has the last channel."""
    path = shd(tmp_path / "data")
    said = refused(DataConfig("hdf5", path))
    assert "all 120 recordings" in said and words(said, "data.sensor") == "1,116"
    assert load(DataConfig("hdf5", path, sensor=(1, 116), window_ms=int(words(said, "data.window_ms")))).classes == 2


def test_what_was_not_looked_at_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.sources.hdf5.SECONDS", -1)
    said = refused(DataConfig("hdf5", shd(tmp_path / "data")))
    assert "40 of 120 recordings reach at least 1 rows" in said and said.endswith("or more")
    assert sorted(spread(50)) == list(range(50)) and list(spread(50, -1)) == list(range(0, 50, 2))


def test_a_sensor_that_is_too_small_is_a_possible_cause_and_the_one_named_is_taken(tmp_path):
    path = shd(tmp_path / "data")
    said = refused(DataConfig("hdf5", path, sensor=(1, 113), window_ms=800))
    assert "beyond the sensor's 113 x 1 pixels" in said
    assert said.endswith("or --data.sensor (rows, columns) is too small: 1,116 or larger")
    said = refused(DataConfig("events", events_folder(tmp_path / "events"), sensor=(30, 20), window_ms=50))
    assert "--data.sensor (rows, columns) is too small: 30,30 or larger" in said
    file = events_folder(tmp_path / "columns", x=np.r_[50_000, np.arange(99) % 30]) / "left" / "0.npz"
    config = DataConfig("events", file.parents[1], window_ms=50)
    assert "are x, y and t in their own columns?" in refused(config)


def test_no_spike_at_all_is_said(tmp_path):
    path = shd(tmp_path / "data")
    for part in ("train", "test"):
        with h5py.File(path / f"{part}.h5", "a") as file:
            for i in range(60):
                file["spikes/times"][i], file["spikes/units"][i] = np.zeros(0, np.float32), np.zeros(0, np.uint16)
    assert "no spike in 120 of 120 recordings" in refused(DataConfig("hdf5", path))


def status(argv: list[str]) -> int:
    try:
        return run("trainer", COMMANDS, argv)
    except SystemExit as error:
        return error.code


def test_each_command_proposes_options_that_it_has(tmp_path, capsys):
    """What `data` and `fit` propose is given to them as it stands."""
    path = events_folder(tmp_path / "data")
    out = ["--out", str(tmp_path / "spikes.npz")]
    assert status(["data", "events", "--path", str(path), *out]) == 2
    said = capsys.readouterr().err
    proposed = shlex.split(said.split("so perhaps ")[1])
    assert proposed == ["--sensor", "20,30", "--window_ms", "50"]
    assert status(["data", "events", "--path", str(path), *out, *proposed]) == 0
    fit = ["fit", "--data.name", "events", "--data.path", str(path), "--out", str(tmp_path / "run")]
    assert status(fit) == 2
    proposed = shlex.split(capsys.readouterr().err.split("so perhaps ")[1])
    assert proposed == ["--data.sensor", "20,30", "--data.window_ms", "50"]
    assert not isinstance(arguments(fit_options, "x", [*fit[1:], *proposed]), str)


def fit_options(config: FitConfig) -> None:
    """The options of `fit`."""


def test_what_runs_models_proposes_the_command_that_has_the_options(tmp_path):
    path = events_folder(tmp_path / "data")
    with pytest.raises(UsageError) as said:
        load(DataConfig("events", path, steps=7))
    command = str(said.value).split("`")[1]
    assert str(said.value).endswith("whose file --input takes")
    assert shlex.split(command)[:2] == ["hardspike", "data"]
    assert status([*shlex.split(command)[1:], "--out", str(tmp_path / "spikes.npz")]) == 0
    assert len(np.load(tmp_path / "spikes.npz")["spikes"]) == 7


@pytest.mark.parametrize("argv, option", [
    (["fit", "--data.name", "nmnist", "--data.path", "nowhere", "--out", "x"], "--data.path"),
    (["data", "nmnist", "--path", "nowhere"], "--path")])
def test_a_missing_folder_is_answered_with_the_command_s_own_option(argv, option, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(argv) == 1
    said = capsys.readouterr().err.rstrip()
    assert said.endswith(f"no such folder of recordings; say with {option} where they are now")


def test_help_of_data_names_every_source():
    said = arguments(data_command, "data", ["--help"])
    listed = said.partition("arguments:")[2].partition("options:")[0]
    assert all(re.search(rf"\b{name}\b", listed) for name in SOURCES)
