"""Where a command's recordings come from: what a model says, and what is said instead."""

import json
import re

import numpy as np
import pytest

from eval.__main__ import COMMANDS as EVAL
from export.__main__ import COMMANDS as EXPORT
from export.commands import nir, quantise
from export.options import Output, Quantisation
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError, run
from targets import metadata
from targets.__main__ import COMMANDS as TARGETS
from targets.graph import read, write
from tests.networks import busy_checkpoint
from trainer.data import DataConfig
from trainer.data.sources import DOWNLOADED

QUICK = ["--samples", "4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint, its graph, one that says no step, one that says no data; integers; a file of spikes."""
    folder = tmp_path_factory.mktemp("models")
    busy_checkpoint(folder / "best.pt", DataConfig(steps=3), layers="4c5s4-12", reset="zero")
    nir(folder / "best.pt", samples=4)
    graph = read(folder / "best.nir")
    for key in ("dt", "data"):
        other = read(folder / "best.nir")
        del other.metadata[key]
        write(other, folder / f"no_{key}.nir")
    quantise(folder / "best.nir", Output(folder / "int.nir"), Quantisation(scale="max_abs", train_samples=4), 4)
    assert metadata.data(graph)["steps"] == 3
    np.savez(folder / "x.npz", spikes=np.ones((3, 2, 2, 34, 34), np.uint8), labels=[0, 1])
    return folder


def call(package, commands, *words, capfd):
    """Status, and what standard error says."""
    capfd.readouterr()
    try:
        status = run(package, commands, [str(word) for word in words])
    except SystemExit as leaving:
        status = leaving.code
    return status, capfd.readouterr().err


COMMANDS = [("eval", EVAL, "accuracy", "best.pt"), ("eval", EVAL, "operations", "best.nir"),
            ("export", EXPORT, "nir", "best.pt"), ("export", EXPORT, "onnx", "best.nir"),
            ("export", EXPORT, "c", "int.nir")]


@pytest.mark.parametrize(("package", "commands", "command", "model"), COMMANDS)
def test_an_option_over_what_the_model_says_is_one_line(package, commands, command, model, files, capfd, tmp_path):
    out = ["-o", tmp_path / f"x.{command}"] if package == "export" else []
    said = call(package, commands, command, files / model, *out, *QUICK, "--steps", 5, capfd=capfd)
    assert said == (0, f"{files / model}: run on other data than it says (in brackets): steps 5 (3)\n")
    assert call(package, commands, command, files / model, *out, *QUICK, "--steps", 3, capfd=capfd) == (0, "")


@pytest.mark.parametrize("option", ["name", "path", "size", "steps", "encoding"])
def test_options_of_a_source_are_not_dropped_beside_a_file(option, files, capfd):
    with pytest.raises(UsageError, match=f"--{option}: is of a data source; leave it out beside --input"):
        Recordings(input=files / "x.npz", **{option: "digits" if option != "steps" else 3})
    words = ["accuracy", files / "best.nir", "--input", files / "x.npz"]
    assert call("eval", EVAL, *words, capfd=capfd)[0] == 0
    value = "5" if option in ("size", "steps") else "digits"
    assert call("eval", EVAL, *words, f"--{option}", value, capfd=capfd)[0] == 2


def test_an_assumed_step_is_said_and_one_that_nothing_takes_is_refused(files, capfd):
    for package, commands, command in (("eval", EVAL, "accuracy"), ("export", EXPORT, "onnx")):
        status, said = call(package, commands, command, files / "no_dt.nir", *QUICK, capfd=capfd)
        assert status == 0 and said.startswith(f"{files / 'no_dt.nir'}: does not say its time step: 0.0001 s is taken")
        assert call(package, commands, command, files / "no_dt.nir", *QUICK, "--dt", "1e-4", capfd=capfd) == (0, "")
    for package, commands, command in (("eval", EVAL, "accuracy"), ("export", EXPORT, "nir"), ("export", EXPORT, "c")):
        status, said = call(package, commands, command, files / "best.pt", *QUICK, "--dt", "1", capfd=capfd)
        assert status == 2 and "a checkpoint counts steps, so leave it out" in said


@pytest.mark.parametrize(("key", "value", "reason"), [
    ("name", "digitz", "did you mean 'digits'"), ("size", 99, "at most the sensor's"), ("steps", 0, "steps 0"),
    ("window_ms", 5, "whole recordings"), ("path", "/nowhere", "no such folder|not read"), ("nam", 1, "data.name"),
])
@pytest.mark.parametrize("command", ["onnx", "quantise"])
def test_data_that_cannot_be_had_name_the_file_that_says_them(command, key, value, reason, files, capfd, tmp_path):
    graph = read(files / "best.nir")
    graph.metadata["data"] = json.dumps({**metadata.data(graph), key: value})
    write(graph, tmp_path / "a.nir")
    out = tmp_path / {"onnx": "x.onnx", "quantise": "x.nir"}[command]
    status, said = call("export", EXPORT, command, tmp_path / "a.nir", "-o", out, *QUICK, capfd=capfd)
    assert status in (1, 2) and str(tmp_path / "a.nir") in said and re.search(reason, said) and said.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(("key", "value", "reason"), [
    ("dt", "soon", "could not convert"), ("dt", -1.0, "positive"), ("dt", np.array([1.0, 2.0]), "one number"),
    ("dt", 1.0, "tau is .* below the step dt = 1 s.*write the graph anew"), ("data", "[" * 3000, "deeper than"),
    ("quantised", "x", "JSON"), ("quantised", '{"target": "Loihi 9"}', "known are"),
    ("quantised", '{"target": "Loihi 2", "bits": "x"}', "bits 'x'"), ("data", 5.0, "no keys and values"),
])
@pytest.mark.parametrize("package", ["eval", "export", "targets"])
def test_metadata_that_make_no_sense_name_their_file(package, key, value, reason, files, capfd, tmp_path):
    graph = read(files / "best.nir")
    graph.metadata[key] = value
    write(graph, tmp_path / "a.nir")
    commands, *words = {"eval": (EVAL, "accuracy", *QUICK), "export": (EXPORT, "onnx", *QUICK),
                        "targets": (TARGETS, "run", "--input", files / "x.npz")}[package]
    status, said = call(package, commands, *words, tmp_path / "a.nir", capfd=capfd)
    if package == "targets" and (key == "data" or "Loihi 9" in str(value)):
        assert status == 0  # it needs no data, and is told by name where it runs
        return
    assert status == 1 and f"{tmp_path / 'a.nir'}: " in said and re.search(reason, said) and said.count("\n") == 1


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NaN"), (np.inf, "NaN or infinity"), (1e300, "beyond float32")])
def test_spikes_that_are_no_numbers_name_their_file(value, reason, files, capfd, tmp_path):
    spikes = np.ones((3, 2, 2, 34, 34))
    spikes[1, 1, 0, 3, 4] = value
    np.savez(tmp_path / "y.npz", spikes=spikes, labels=[0, 1])
    for package, commands, *words in (("eval", EVAL, "accuracy", files / "best.pt"),
                                      ("export", EXPORT, "onnx", files / "best.nir"),
                                      ("targets", TARGETS, "run", files / "best.nir"),
                                      ("targets", TARGETS, "bench", files / "int.nir", "--runs", 1)):
        status, said = call(package, commands, *words, "--input", tmp_path / "y.npz", capfd=capfd)
        assert status == 1 and f"{tmp_path / 'y.npz'}: 'spikes' hold" in said and reason in said


def test_frames_of_another_shape_name_the_model_and_the_way_out(files, capfd, tmp_path):
    np.savez(tmp_path / "y.npz", spikes=np.ones((3, 2, 5), np.uint8), labels=[0, 1])
    for package, commands, command, model in (*COMMANDS, ("eval", EVAL, "gradients", "best.pt")):
        for words, way in ((["--size", 17], "digits gives (2, 17, 17); give --size 34"),
                           (["--input", tmp_path / "y.npz"], f"{tmp_path / 'y.npz'} gives (5,); give --input FILE")):
            status, said = call(package, commands, command, files / model, *QUICK, *words, capfd=capfd)
            assert status == 1 and f"{files / model}: takes frames (2, 34, 34), " in said and way in said


@pytest.mark.parametrize(("name", "path"), [("nmnist", None), ("dvs_gesture", None), ("cifar10_dvs", None),
                                            ("tonic:DVSLip", None), ("tonic:DVSLip", "folder")])
def test_nothing_is_downloaded_because_a_file_names_it(name, path, files, capfd, tmp_path, monkeypatch):
    called = []

    def fetch(*words, **_):
        called.append(words)
        raise HardspikeError("fetched")

    for source in ("nmnist.download", "dvs_gesture.download", "cifar10_dvs.download", "tonic_sets.dataset"):
        monkeypatch.setattr(f"trainer.data.sources.{source}", fetch)
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "folder").mkdir()
    graph = read(files / "best.nir")
    graph.metadata["data"] = json.dumps({"name": name, "path": path and str(tmp_path / path)})
    write(graph, tmp_path / "a.nir")
    onnx = ("export", EXPORT, "onnx", "-o", tmp_path / "x.onnx")
    for package, commands, *words in (("eval", EVAL, "accuracy"), onnx):
        status, said = call(package, commands, *words, tmp_path / "a.nir", *QUICK, capfd=capfd)
        assert (status, called) == (2, []) and f"{tmp_path / 'a.nir'}: its recordings, {name}, may have" in said
        status, said = call(package, commands, *words, tmp_path / "a.nir", *QUICK, "--name", name, capfd=capfd)
        assert status == 1 and called and "fetched" in said
        called.clear()
    (tmp_path / "cache" / "downloads" / DOWNLOADED.get(name, "DVSLip")).mkdir(parents=True)
    status, said = call("eval", EVAL, "accuracy", tmp_path / "a.nir", *QUICK, capfd=capfd)
    assert status == (2 if path else 1) and bool(called) == (path is None)  # what is there already is no download


# ------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(("command", "model", "taken"), [
    ("nir", "best.pt", "x.nir"), ("nir", "best.pt", "x.nir.parity.json"), ("onnx", "best.nir", "x.onnx.parity.json"),
    ("c", "int.nir", "x.c"), ("c", "int.nir", "x.h"), ("c", "int.nir", "x_test.c"),
    ("quantise", "best.nir", "x.nir.parity.json")])
def test_every_place_is_tried_before_the_work_and_no_table_lies_over_one(command, model, taken, files, capfd, tmp_path,
                                                                         monkeypatch):
    """Work that began would read recordings."""
    monkeypatch.setattr(Recordings, "data", lambda *_: pytest.fail("the work began"))
    out = tmp_path / f"x.{ {'quantise': 'nir'}.get(command, command)}"
    words = [command, files / model, "-o", out, *QUICK]
    if not taken.endswith(".nir"):  # which a table is not called anyway
        status, said = call("export", EXPORT, *words, "--json", tmp_path / taken, capfd=capfd)
        assert status == 2 and "give another name" in said
    (tmp_path / taken).mkdir()
    status, said = call("export", EXPORT, *words, capfd=capfd)
    assert status == 1 and f"{tmp_path / taken}: is a folder" in said
    assert [file.name for file in tmp_path.iterdir()] == [taken]


def test_still_pictures_are_to_be_repeated(files, capfd, tmp_path):
    pictures, steps = np.ones((5, 2, 34, 34), np.uint8), 3
    np.savez(tmp_path / "pictures.npz", spikes=pictures)
    np.savez(tmp_path / "steps.npz", spikes=np.repeat(pictures[None], steps, axis=0))
    words = ["quantise", files / "best.nir", "--scale", "max_abs", "-o", tmp_path / "q.nir", "--input"]
    status, said = call("export", EXPORT, *words, tmp_path / "pictures.npz", capfd=capfd)
    assert status == 1 and "still pictures (B, ...): repeat each T times" in said
    assert "spikes=np.repeat(pictures[None], T, axis=0)" in said
    assert call("export", EXPORT, *words, tmp_path / "steps.npz", capfd=capfd)[0] == 0
