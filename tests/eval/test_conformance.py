"""Golden graphs, NIRData, and what readers of NIR make of graphs."""

import dataclasses
import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from eval.commands.conformance import conformance, golden
from eval.conformance import golden as made
from eval.conformance.measure import Task, measure
from hardspike import HardspikeError, UsageError
from targets import commands, nir_data, reference
from targets.graph import read, write
from targets.readers import runner, setup
from targets.readers.table import READERS, Reader, reader
from tests.conform import naive


@pytest.mark.parametrize("name", made.GRAPHS)
def test_a_golden_graph_is_the_one_that_it_was(name):
    one = made.made(name)
    assert one.digest() == made.known()[name]
    wanted = naive.run(one.graph, one.frames.numpy(), made.DT, name == "integers")
    for layer, spikes in one.recording.spikes.items():
        assert 0.05 < spikes.float().mean() < 0.96, layer
        np.testing.assert_array_equal(spikes.flatten(2).numpy(), wanted.spikes[layer])
    assert name == "integers" or one.margin() > made.MARGIN


def test_golden_files(tmp_path, capsys):
    golden(tmp_path / "new")
    assert capsys.readouterr().out.count("spikes") and len(list((tmp_path / "new").iterdir())) == 31
    for name in made.GRAPHS:
        one = made.made(name)
        graph = read(tmp_path / "new" / f"{name}.nir")
        with np.load(tmp_path / "new" / f"{name}.npz") as arrays:
            frames = torch.from_numpy(arrays["spikes"])
            layers = {key.removeprefix("spikes/"): arrays[key] for key in arrays.files if key.startswith("spikes/")}
        found = nir_data.read(tmp_path / "new" / f"{name}.spikes.h5", made.DT)
        assert torch.equal(found.pop("input"), frames.flatten(2)) and set(found) == set(layers)
        for layer, spikes in layers.items():
            assert np.array_equal(found[layer].numpy(), spikes.reshape(found[layer].shape))
        if name != "integers":
            assert all(np.array_equal(spikes.numpy(), layers[layer])
                       for layer, spikes in reference.run(graph, frames).spikes.items())
        assert json.loads((tmp_path / "new" / "golden.json").read_text())[name] == one.digest()


def test_a_machine_that_makes_other_graphs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "known", lambda: {"lif": "0" * 64})
    with pytest.raises(HardspikeError, match="golden graph 'lif': comes out otherwise here"):
        made.write_all(tmp_path)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------- NIRData


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("dt", [1e-4, 1e-3, 0.1, 1.0])
def test_spikes_as_nir_data_and_back(tmp_path, events, dt):
    """Also where k dt / dt rounds below k."""
    spikes = {"a": (torch.rand(50, 3, 2, 4) < 0.3).byte(), "sub.b": (torch.rand(50, 3, 5) < 0.1).byte(),
              "silent": torch.zeros(50, 3, 2, dtype=torch.uint8)}
    nir_data.write(spikes, dt, tmp_path / "x.h5", events)
    found = nir_data.read(tmp_path / "x.h5", dt)
    assert set(found) == set(spikes)
    assert all(torch.equal(found[name], values.flatten(2)) for name, values in spikes.items())
    theirs = nir.read_data(tmp_path / "x.h5")
    held = theirs.nodes["sub.b"].observables["spikes"]
    assert isinstance(held, nir.EventData if events else nir.TimeGriddedData)
    grid = held.to_time_gridded(dt) if events else held
    if dt != 0.1:  # 50 * 0.1 / 0.1 is 50; theirs drops a step where it is not
        assert np.array_equal(grid.data, spikes["sub.b"].transpose(0, 1).bool().numpy())


def test_events_of_others_at_the_beginning_of_a_step():
    times = np.array([[0.0, 0.3, 0.7, np.inf]])  # 0.3 / 0.1 is 2.9999...
    data = nir.NIRGraphData({"n": nir.NIRNodeData({"spikes": nir.EventData(np.array([[0, 1, 0, -1]]), times, 2, 1.0)})})
    found = nir_data.from_data(data, 0.1)["n"]
    assert found.shape == (10, 1, 2) and found.nonzero().tolist() == [[0, 0, 0], [3, 0, 1], [7, 0, 0]]


def test_levels_of_others():
    """hxtorch and jaxsnn may write subgraphs as levels."""
    held = nir.NIRNodeData({"spikes": nir.TimeGriddedData(np.ones((1, 3, 2), bool), 0.5), "v": None})
    silent = nir.NIRNodeData({"v": nir.TimeGriddedData(np.ones((1, 3, 2)), 0.5)})
    data = nir.NIRGraphData({"sub": nir.NIRGraphData({"n": held}), "m": silent})
    found = nir_data.from_data(data, 0.5)
    assert set(found) == {"sub.n"} and found["sub.n"].shape == (3, 1, 2) and found["sub.n"].all()


def test_what_is_no_nir_data_is_refused_in_a_line(tmp_path):
    with pytest.raises(HardspikeError, match="node 'a': values from 0 to 3; NIRData holds spikes"):
        nir_data.to_data({"a": torch.tensor([[[0, 3]]])}, 1.0)
    nir_data.write({"a": torch.ones(4, 1, 2)}, 0.5, tmp_path / "x.h5")
    with pytest.raises(HardspikeError, match=r"x.h5: node 'a': on a grid of 0.5 s, asked is 1 s"):
        nir_data.read(tmp_path / "x.h5", 1.0)
    golden_graph = made.made("lif").graph
    write(golden_graph, tmp_path / "graph.nir")
    with pytest.raises(HardspikeError, match="holds no NIRData"):
        nir_data.read(tmp_path / "graph.nir", 1.0)
    event = nir.EventData(np.array([[0]]), np.array([[7.0]]), 1, 5.0)
    late = nir.NIRGraphData({"n": nir.NIRNodeData({"spikes": event})})
    with pytest.raises(HardspikeError, match="an event lies outside of 5 steps of 1 neurons"):
        nir_data.from_data(late, 1.0)


# -------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("name, verdict", [
    ("lif", "equal"), pytest.param("subtract", "refuses: ValueError: Unknown node type", marks=pytest.mark.slow)])
def test_snntorch_reads_what_it_can(name, verdict):
    """The reader of our own environment, a process for each graph."""
    one = made.made(name)
    found, = measure([Task(Path(f"{name}.nir"), one.graph, one.frames)], [READERS["snntorch"]])
    assert found.verdict.startswith(verdict) and found.of > 50 and found.version


def test_a_reader_that_differs_is_counted(monkeypatch):
    one = made.made("lif")

    def answer(*arguments):
        output = one.recording.output.clone()
        output[5, 1, 2] = 1 - output[5, 1, 2]
        return runner.Answer("1.0", output)

    monkeypatch.setattr("eval.conformance.measure.read_by", answer)
    found, = measure([Task(Path("x"), one.graph, one.frames)], [READERS["norse"]])
    assert found.differ == 1 and found.first == 5
    assert found.verdict == f"1 of {found.of} differ, first at step 5"


def test_the_command(tmp_path, monkeypatch, capsys):
    golden(tmp_path)
    seen = []

    def answer(reader, graph, frames, dt):
        seen.append((reader.name, tuple(frames.shape)))
        return runner.Answer("1.0", reference.run(graph, frames).output * (reader.name == "norse"))

    monkeypatch.setattr("eval.conformance.measure.read_by", answer)
    conformance(tmp_path / "lif.nir", readers="norse,sinabs", json=tmp_path / "x.json")
    out = capsys.readouterr().out
    assert seen == [("norse", (24, 4, 16)), ("sinabs", (24, 4, 16))]  # the input that lies beside it
    assert "equal" in out and "sinabs: no dt: tau counts steps" in out and "norse: told dt" not in out
    with pytest.raises(UsageError, match="reader 'nors' is not known; did you mean 'norse'"):
        conformance(tmp_path / "lif.nir", readers="nors")


def test_an_environment_is_made_once_and_anew_for_other_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path))
    called = []

    def call(command, what):
        called.append(what)
        folder = tmp_path / "readers" / "trial"
        (folder / "lib" / "python3" / "site-packages").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(setup, "_call", call)
    one = Reader("trial", ("trial==1.0",), "trial", "")
    with pytest.raises(HardspikeError, match="make it with `hardspike targets setup reader trial`"):
        setup.python_of(one)
    assert setup.setup(one) == setup.setup(one) == setup.python_of(one)
    assert called == ["python -m venv", "pip install trial==1.0"]
    setup.setup(dataclasses.replace(one, packages=("trial==2.0",)))
    assert called[2:] == ["python -m venv", "pip install trial==2.0"]
    assert "site-packages" in (tmp_path / "readers/trial/lib/python3/site-packages/hardspike.pth").read_text()


def test_setup_of_what_is_not_there():
    with pytest.raises(UsageError, match="targets setup reader: name at least one"):
        commands.setup_target("reader")
    with pytest.raises(UsageError, match="reader 'x' is not known"):
        commands.setup_target("reader", "x")
    with pytest.raises(UsageError, match="one target at a time"):
        commands.setup_target("lava", "norse")
    with pytest.raises(UsageError, match="is for lava"):
        commands.setup_target("reader", "norse", python=Path("x"))
    assert reader("norse").packages == ("norse==1.1.0",)
