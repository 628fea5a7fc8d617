"""`python -m eval parity`: who equals whom, and that the matrix would show who does not."""

import json

import numpy as np
import pytest
import torch

from eval.commands.parity import parity as command
from eval.parity import mismatches
from eval.rows import parity as rows_of
from export.freeze.freeze import freeze
from export.recordings import Recordings
from hardspike import UsageError
from targets.graph import read, write
from targets.lava.setup import setup
from targets.recording import Recording
from targets.target import Target
from tests.networks import SHAPE, busy_network, frames


@pytest.fixture
def model(tmp_path):
    network = busy_network(layers="6c5s2-8c3s2-32", reset="zero", readout="spikes")
    write(freeze(dict(network.layers), SHAPE), tmp_path / "model.nir")
    x = frames(8, 6)
    np.savez(tmp_path / "x.npz", spikes=x.numpy().astype(np.uint8), labels=np.arange(6))
    return tmp_path / "model.nir", tmp_path / "x.npz"


def parity(graph, *, input, **options):
    """The rows that the command shows."""
    return rows_of(command(graph, recordings=Recordings(input=input), **options))


def matrix(rows):
    return {row["run"]: {other["run"]: row[f"differs from {other['run']}"] for other in rows} for row in rows}


def test_one_arithmetic_is_equal_and_float_and_integer_are_counted(model, tmp_path):
    graph, x = model
    rows = parity(graph, targets="reference,loihi2,onnxruntime", input=x, json=tmp_path / "p.json")
    found = matrix(rows)
    assert list(found) == ["reference", "reference (int)", "loihi2", "onnxruntime", "onnxruntime (int)"]
    assert all(found[name][name] == 0 for name in found)
    assert found["loihi2"]["onnxruntime (int)"] == 0 == found["reference"]["onnxruntime"]
    assert 0 < found["reference"]["loihi2"] == found["loihi2"]["reference"] < rows[0]["spikes"]
    assert json.loads((tmp_path / "p.json").read_text())["rows"] == rows
    assert all(row["accuracy %"] is not None for row in rows)


def test_a_spike_that_differs_is_in_the_matrix(model, monkeypatch):
    graph, x = model
    run = Target.run

    def wrong(self, graph, frames, *rest):
        recording = run(self, graph, frames, *rest)
        if self.name == "onnxruntime":
            recording.spikes["lif1"][0, 0, 0, 0, 0] ^= 1
        return recording

    monkeypatch.setattr(Target, "run", wrong)
    assert matrix(parity(graph, targets="reference,onnxruntime", input=x))["reference"]["onnxruntime"] == 1


def scaled(graph, layers, factor, path):
    """The graph with other thresholds."""
    found = read(graph)
    for name in layers:
        found.nodes[name].v_threshold = found.nodes[name].v_threshold * factor
    write(found, path)
    return path


def test_a_silent_layer_is_named_and_a_silent_run_is_not_called_equal(model, tmp_path, capsys):
    graph, x = model
    words = {"targets": "reference,onnxruntime", "recordings": Recordings(input=x)}
    silent = scaled(graph, ["lif3"], 1e6, tmp_path / "silent.nir")
    command(silent, **words, json=tmp_path / "p.json")
    assert "reference and onnxruntime: equal, spike for spike; silent, so that nothing is known of them: lif3\n" in \
        capsys.readouterr().out
    assert json.loads((tmp_path / "p.json").read_text())["silent"] == {"reference": ["lif3"], "onnxruntime": ["lif3"]}
    command(scaled(graph, ["lif1", "lif2", "lif3", "lif4"], 1e6, silent), **words)
    said = capsys.readouterr().out
    assert "reference and onnxruntime: no spike in either, so that nothing is known of them" in said
    assert "equal" not in said
    command(graph, **words)
    assert "; silent" not in capsys.readouterr().out


def test_runs_with_other_layers_are_refused():
    one, other = (Recording({name: torch.zeros(1, 1, 1)}, torch.zeros(1, 1, 1)) for name in "ab")
    with pytest.raises(UsageError, match="other layers: a and b"):
        mismatches(one, other)


def test_an_unknown_target_is_refused(model):
    with pytest.raises(UsageError, match="did you mean 'loihi2'"):
        parity(model[0], targets="reference,loihi3", input=model[1])


@pytest.mark.lava
def test_lava_equals_loihi2(model):
    setup()
    found = matrix(parity(model[0], targets="loihi2,lava", input=model[1]))
    assert found["loihi2"]["lava"] == 0
