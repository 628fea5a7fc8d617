"""`hardspike targets run`: from files to a table."""

import json

import nir
import numpy as np
import pytest
import torch

import hardspike
from hardspike import UsageError
from targets import commands, recording
from targets.__main__ import COMMANDS
from targets.graph import read, write
from targets.lava.target import LAVA


@pytest.fixture
def files(tmp_path):
    nodes = {"input": nir.Input(np.array([4])), "w": nir.Linear(np.eye(4)),
             "n": nir.Threshold(np.full(4, 0.5)), "output": nir.Output(np.array([4]))}
    write(nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]), tmp_path / "g.nir")
    spikes = np.zeros((5, 3, 4), np.uint8)
    spikes[:, [0, 1, 2], [3, 1, 0]] = 1
    np.savez(tmp_path / "x.npz", spikes=spikes, labels=np.array([3, 1, 2]))
    return tmp_path


def call(*words) -> int:
    return hardspike.run("targets", {"run": commands.run}, [str(word) for word in words])


def test_table_recording_and_accuracy(files, capsys):
    assert call("run", files / "g.nir", "--input", files / "x.npz", "--out", files / "r.npz", "--json",
                files / "t.json") == 0
    table = json.loads((files / "t.json").read_text())
    assert table["accuracy"] == pytest.approx(2 / 3)
    assert table["rows"][0]["spikes a sample"] == 5
    assert "accuracy 66.7%" in capsys.readouterr().out
    again = recording.load(files / "r.npz")
    assert again.spikes["n"].dtype == torch.uint8 and again.spikes["n"].shape == (5, 3, 4)
    assert torch.equal(again.output.to(torch.uint8), again.spikes["n"])


@pytest.mark.parametrize(("change", "status", "message"), [
    (dict(spikes=np.zeros((5, 3, 2, 2))), 1,
     "spikes of shape (5, 3, 2, 2) do not fit Input 'input', which takes (T, B, 4)"),
    (dict(spikes=np.full((5, 3, 4), np.nan)), 1, "NaN"),
    (dict(spikes=np.zeros((0, 3, 4))), 1, "no time step"),
    (dict(frames=np.zeros(3)), 1, "has no array 'spikes' (T, B, ...), only frames"),
    (dict(spikes=np.zeros((5, 3, 4)), labels=np.zeros(2, int)), 1, "'labels' is int64 (2,)"),
    (dict(spikes=np.zeros((5, 3, 4)), labels=np.full(3, 9)), 1, "label 9"),
    (dict(spikes=np.array(["a"])), 1, "numbers are needed"),
    (None, 2, "--input FILE.npz is missing"),
])
def test_unusable_input_is_one_line(files, capsys, change, status, message):
    if change:
        np.savez(files / "y.npz", **change)
    assert call("run", files / "g.nir", *(["--input", files / "y.npz"] if change else [])) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_corrupt_input_and_unknown_target_are_one_line(files, capsys):
    (files / "y.npz").write_bytes((files / "x.npz").read_bytes()[:200])
    assert call("run", files / "g.nir", "--input", files / "y.npz") == 1
    assert call("run", files / "g.nir", "--input", files / "x.npz", "--target", "referenz") == 2
    error = capsys.readouterr().err
    assert "not a readable .npz" in error and "did you mean 'reference'" in error and error.count("\n") == 2


@pytest.mark.parametrize(("words", "message"), [
    (["run", "g.nir", "--input", "x.npz", "--out", "r.txt"], "r.txt: is written as .npz; name it r.npz"),
    (["map", "g.nir", "--picture", "m.png"], "m.png: is written as .svg; name it m.svg"),
    (["check", "folder"], "folder: is a folder; give a graph (.nir)"),
    (["check", "run"], "`hardspike export nir run/best.pt` makes one"),
    (["run", "run/best.pt", "--input", "x.npz"], "`hardspike export nir run/best.pt` makes one"),
    (["run", "m.onnx", "--input", "x.npz"], "m.onnx: is no graph; `hardspike targets run --target onnxruntime` takes"),
    (["map", "m.net"], "m.net: is no graph; `hardspike targets run --target lava` takes"),
    (["run", "g.nir", "--input", "x.npz", "--out", "x.npz"], "--out x.npz: is what is read, too"),
])
def test_files_of_another_kind_name_the_way_out(words, message, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    for folder in ("folder", "run"):
        (files / folder).mkdir()
    for name in ("run/best.pt", "m.onnx", "m.net"):
        (files / name).write_bytes(b"x")
    try:
        status = hardspike.run("targets", COMMANDS, words)
    except SystemExit as leaving:
        status = leaving.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1


def test_membranes_of_a_target_that_shows_none_are_refused(files):
    with pytest.raises(UsageError, match="'lava' records no membranes; the targets loihi2 and reference do"):
        LAVA.run(read(files / "g.nir"), torch.zeros(5, 3, 4), membrane=True)
