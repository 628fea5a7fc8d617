"""`python -m eval calibrate`: what it chooses and from what, what it writes, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch

from eval import rows as tables
from eval.__main__ import COMMANDS
from eval.accuracy import measure as accuracy
from eval.calibrate import measure as module
from eval.calibrate import network as calibration
from eval.calibrate.graph import scaled_graph, spiking_layers
from eval.calibrate.measure import Calibration, best_of, choose
from eval.calibrate.network import biased, mean_drive, scaled, search_global, search_layers, with_biases
from eval.commands.calibrate import calibrate
from eval.mode import words as in_words
from export.commands import nir, quantise
from export.freeze.freeze import freeze
from export.options import Output, Quantisation
from hardspike import HardspikeError, run
from targets import loihi2, reference
from targets.graph import read
from tests.eval.opened import subjects
from tests.networks import BUSY, SHAPE, THEORY, busy_network, frames
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import Data, DataConfig, Split, load
from trainer.fit import fit
from trainer.networks import NetworkConfig, build
from trainer.neurons.spikes import Surrogate


@pytest.fixture(scope="module", autouse=True)
def _short_search():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "GRID", (0.5, 0.8, 1.0, 1.25, 2.0))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A smooth arctan network whose transfer gap is large."""
    folder = tmp_path_factory.mktemp("run") / "run"
    network = NetworkConfig(layers="8c5s3-16c3s2-64", batch_norm=True, surrogate=Surrogate("arctan", 0.6))
    fit(FitConfig(out=folder, epochs=5, lr=1e-2, method="surrogate", average=0.0, data=DataConfig(steps=6),
                  network=network))
    return folder / "last.pt"


@pytest.fixture(scope="module")
def table(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    rows = calibrate(trained, out=folder / "calibrated.pt", train_samples=128, json=folder / "table.json")
    return rows, json.loads((folder / "table.json").read_text()), folder / "calibrated.pt"


def tiny_data(bits: torch.Tensor) -> Data:
    """Frames (N, T, C, H, W) as all three parts."""
    part = Split(bits.to(torch.uint8), torch.zeros(len(bits), dtype=torch.int64), [str(i) for i in range(len(bits))])
    return Data(part, part, part, 10, tuple(bits.shape[2:]), bits.shape[1], 1.0)


# --------------------------------------------------------------------------------------------- the command


def test_calibration_recovers_the_gap_and_leaves_the_plain_rows_alone(trained, table):
    rows = {row["mode"]: row for row in tables.calibration(table[0])}
    smooth, hard = accuracy(subjects(trained))
    assert rows["surrogate"]["test %"] == 100 * smooth.accuracy and rows["hard"]["test %"] == 100 * hard.accuracy
    assert rows["hard"]["gap"] == pytest.approx(100 * hard.gap)
    # exact shares depend on the machine's arithmetic, which training amplifies
    assert hard.gap > 0.05 and rows["calibrated (bias)"]["recovered %"] > 50
    assert [rows[f"calibrated ({kind})"]["values"] for kind in module.KINDS] == [1, 3, 98, 101]
    assert rows["calibrated (layers)"]["validation %"] >= rows["hard"]["validation %"]


def test_other_test_labels_change_no_choice(trained, table, tmp_path, monkeypatch):
    def swapped(config):
        data = load(config)
        return replace(data, test=Split(data.test.frames.flip(0), (data.test.labels + 1) % 10, data.test.ids))

    monkeypatch.setattr("trainer.data.load", swapped)
    rows = calibrate(trained, out=tmp_path / "c.pt", train_samples=128, json=tmp_path / "table.json")
    assert json.loads((tmp_path / "table.json").read_text())["chosen"] == table[1]["chosen"]
    assert rows[0].test < table[0][0].test - 0.5
    assert checkpoint.load(tmp_path / "c.pt").calibration == checkpoint.load(table[2]).calibration


def test_written_checkpoint_is_marked_and_its_graph_gives_the_same_spikes(table, tmp_path):
    rows, _, out = table
    stored = checkpoint.load(out)
    row = next(row for row in rows if row.mode.calibration == stored.calibration["kind"])
    assert nir(out, Output(tmp_path / "c.nir"), samples=60).mismatches == 0
    hard, exported = accuracy(subjects(out, tmp_path / "c.nir"))
    assert in_words(hard.mode) == f"hard, calibrated ({stored.calibration['kind']})" and hard.gap is None
    assert in_words(exported.mode, exported=True) == f"exported, calibrated ({stored.calibration['kind']})"
    assert hard.accuracy == exported.accuracy == row.test


def test_a_calibration_that_changes_nothing_is_not_written(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "GRID", (1.0,))
    nir(trained, Output(tmp_path / "f.nir"), samples=8)
    for model, out in ((trained, tmp_path / "c.pt"), (tmp_path / "f.nir", tmp_path / "c.nir")):
        rows = calibrate(model, kind="layers", out=out)
        assert rows[-1].test == rows[-2].test and not out.exists()
        assert f"{out}: not written: the best of kind layers is {model} as it is" in capsys.readouterr().out


def test_graphs_float_and_quantised(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "GRID", (0.9,))  # what leaves the graph as it is is not written
    nir(trained, Output(tmp_path / "f.nir"), samples=30)
    rows = calibrate(tmp_path / "f.nir", kind="global", out=tmp_path / "c.nir")
    subject, = subjects(trained)
    network = module.replace_model(subject, choose(subject, "global").model).on(subject.data.validation)
    assert rows[1].validation == pytest.approx(network.accuracy(network.modes()[-1]))
    quantise(tmp_path / "f.nir", Output(tmp_path / "q.nir"), Quantisation(train_samples=16), samples=16)
    rows = calibrate(tmp_path / "q.nir", kind="global", out=tmp_path / "cq.nir")
    assert [row["mode"] for row in tables.calibration(rows)] == ["loihi2", "calibrated (global)"]
    assert json.loads((tmp_path / "cq.nir.parity.json").read_text())["mismatches"] == 0
    loihi2.run(read(tmp_path / "cq.nir"), (torch.rand(6, 2, *SHAPE) < 0.1).float())


@pytest.mark.parametrize(("words", "message"), [
    (["{pt}", "--kind", "layer"], "did you mean 'layers'?"), (["{nir}", "--kind", "bias"], "no smooth spikes"),
    (["{pt}", "--train-samples", "-1"], "must be 0 (all) or more"), (["{pt}", "--out", "x.nir"], "is written as .pt"),
    (["{c}"], "is calibrated"), (["nothing.pt"], "no such file or folder")])
def test_wrong_calls_end_in_one_line(trained, table, tmp_path, words, message, capfd):
    nir(trained, Output(tmp_path / "f.nir"), samples=8)
    capfd.readouterr()
    files = {"pt": trained, "nir": tmp_path / "f.nir", "c": table[2]}
    assert run("eval", COMMANDS, ["calibrate", *(word.format(**files) for word in words)]) in (1, 2)
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


# ------------------------------------------------------------------------------------------------ biases


def test_closed_form_is_exact_for_a_layer_at_rest():
    """A hidden layer without input: the readout's bias gets phi(-theta) times the sum of its weights."""
    surrogate = Surrogate("arctan")
    config = NetworkConfig(layers="5", beta=0.0, reset="zero", bias=False, surrogate=surrogate)
    stored = with_biases(checkpoint.Checkpoint(FitConfig(network=config), build(config, (2, 2, 2), 3), (2, 2, 2), 3, 1,
                                               [], THEORY))
    data = tiny_data(torch.zeros(4, 6, 2, 2, 2))
    network, shifts = biased(stored.network, data, data.train.frames)
    weight = stored.network.layers["readout"].weight.double()
    assert torch.allclose(shifts["readout"].double(), surrogate.rest(torch.tensor(1.0)) * weight.sum(1), atol=1e-6)
    assert not shifts["lif1"].any()
    inputs = data.to_input(data.train.frames)
    with network.mode(hard=True):
        hard = network(inputs)
    with stored.network.mode(hard=False):
        assert torch.allclose(stored.network(inputs), hard, atol=1e-6)


@pytest.mark.parametrize("options", [
    {"layers": "6c5s3-8r-16rs2-ap2-12", "batch_norm": True, "gain": 2.0}, {"reset": "zero", "bias": False},
    {"readout": "spikes"}])
def test_means_of_the_hard_network_become_those_of_the_smooth_one(options):
    network = busy_network(**options)
    config = FitConfig(network=NetworkConfig(**{**BUSY, **options}))
    stored = with_biases(checkpoint.Checkpoint(config, network, SHAPE, 10, 1, [], THEORY))
    inputs = frames(8, 4)
    assert torch.equal(stored.network(inputs), network(inputs))
    data = tiny_data(inputs.transpose(0, 1))
    calibrated, shifts = biased(stored.network, data, data.train.frames)
    wanted = mean_drive(network, data, data.train.frames, hard=False)
    before, after = (mean_drive(n, data, data.train.frames, hard=True) for n in (network, calibrated))
    assert list(shifts) == list(wanted)
    for name in wanted:
        assert (wanted[name] - after[name]).abs().mean() < 0.25 * (wanted[name] - before[name]).abs().mean(), name


# -------------------------------------------------------------------------------------------- thresholds


def test_kept_is_the_simplest_that_validation_cannot_tell_from_the_best():
    chosen = [Calibration(kind, None, values, searched, {}, {}) for kind, values, searched in
              (("global", 1, 1), ("layers", 3, 3), ("bias", 98, 0), ("bias+layers", 101, 3))]
    assert best_of(chosen, [0.90, 0.97, 0.965, 0.975], 143).kind == "bias"
    assert best_of(chosen, [0.90, 0.97, 0.94, 0.975], 143).kind == "layers"
    assert best_of(chosen, [0.97, 0.97, 0.94, 0.97], 143).kind == "global"


def test_ties_go_to_one_and_layers_are_searched_apart():
    assert search_global(["a", "b"], lambda m: 5) == {"a": 1.0, "b": 1.0}
    assert search_global(["a"], lambda m: int(m["a"] > 1)) == {"a": 1.25}
    best = search_layers(["a", "b"], lambda m: int(m["a"] < 1) + 2 * int(m["b"] > 1.6))
    assert best == {"a": 0.8, "b": 2.0}


@pytest.mark.parametrize("reset", ["zero", "subtract", "subtract_leaky"])
def test_a_graph_is_scaled_as_its_network_is(reset):
    network, inputs = busy_network(reset=reset).double(), frames().double()
    graph = freeze(network, SHAPE)
    factors = {"lif1": 0.8, "lif3": 1.3, "lif4": 1.1}
    changed = scaled_graph(graph, spiking_layers(graph), factors)
    record: dict = {}
    other = scaled(network, factors)
    with other.mode(hard=True):
        other(inputs, record)
    spikes = reference.run(changed, inputs).spikes
    assert list(factors) == list(record)
    assert all(torch.equal(spikes[name], made.to(torch.uint8)) for name, made in record.items())
    assert not torch.equal(spikes["lif1"], reference.run(graph, inputs).spikes["lif1"])


def test_another_form_of_reset_is_refused_by_name():
    import snntorch as snn
    from torch import nn
    graph = freeze(nn.Sequential(nn.Linear(4, 3), snn.Leaky(beta=0.5, reset_delay=False, init_hidden=True)), (4,))
    with pytest.raises(HardspikeError, match=r"layer '1.*': its Threshold"):
        spiking_layers(graph)
