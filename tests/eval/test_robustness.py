"""`python -m eval robustness`: clean accuracy at severity 0, the same inputs and faults for every model and mode."""

import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from eval.__main__ import COMMANDS
from eval.accuracy import measure as accuracy
from eval.commands.robustness import robustness as command
from eval.mode import HARD, SURROGATE, Mode
from eval.options import Sample, Stress, Tables
from eval.robustness import curves as module
from eval.robustness.faults import FAULTS, inject, weight_noise
from eval.rows import robustness as rows_of
from eval.subject import answers, runs
from export.commands import nir as export_nir
from export.commands import quantise
from export.model import Model, frozen
from export.options import Output, Quantisation
from hardspike import HardspikeError, UsageError, run
from targets.graph import read
from targets.graph.shapes import array
from targets.loihi import fixed_point
from tests.eval.opened import subjects
from tests.networks import SHAPE, THEORY, busy_network, frames
from trainer.checkpoint import Checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.fit import fit
from trainer.networks import NetworkConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    fit(FitConfig(out=folder, epochs=2, method="hard", average=0.0, threads=1, data=DataConfig(steps=5),
                  network=NetworkConfig(layers="8c5s4-32", batch_norm=True, reset="zero")))
    export_nir(folder, samples=16)
    quantise(folder / "best.nir", Output(folder / "int4.nir"), Quantisation(bits=4, scale="max_abs", train_samples=16),
             16)
    return folder


ON_REFERENCE = Mode("reference")


def robustness(*models, samples=0, plot=None, json=None, csv=None, **stress):
    """The rows that the command shows."""
    return rows_of(command(*models, stress=Stress(**stress), sample=Sample(samples=samples), tables=Tables(json, csv),
                           plot=plot))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Results of their own, frames from the common cache."""
    from eval import cache
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(cache, "cache_folder", lambda: folder)


def test_severity_zero_is_the_clean_accuracy(trained):
    models = trained, trained / "best.nir", trained / "int4.nir"
    clean = [100 * row.right / row.count for row in accuracy(subjects(*models))]
    rows = robustness(*models, severities="0", corruptions="hot_pixels,spike_deletion,stuck_neurons,weight_noise")
    assert [row["mode"] for row in rows] == ["surrogate", "hard", "reference", "loihi2"] * 4
    assert [row["0"] for row in rows] == clean * 4 == [row["mean"] for row in rows]  # to the last bit
    assert {row["area"] for row in rows} == {None} and clean[1] > 30


def test_table_hashes_curves_and_their_summaries(trained, tmp_path, capsys):
    json_file, plot = tmp_path / "r.json", tmp_path / "curves.svg"
    options = {"corruptions": "event_drop,weight_noise", "severities": "0.5,0,0.1", "samples": 40}
    rows = robustness(trained / "best.pt", trained / "best.nir", json=json_file, csv=tmp_path / "r.csv", plot=plot,
                      **options)
    surrogate, hard, exported = rows[:3]
    stored = json.loads(json_file.read_text())
    assert stored["rows"] == rows and len((tmp_path / "r.csv").read_text().splitlines()) == 7
    assert list(hard) == ["corruption", "model", "mode", "0", "0.1", "0.5", "mean", "area", "epoch"]
    assert hard["mean"] == pytest.approx((hard["0"] + hard["0.1"] + hard["0.5"]) / 3)
    assert hard["area"] == pytest.approx((0.1 * (hard["0"] + hard["0.1"]) + 0.4 * (hard["0.1"] + hard["0.5"])) / 100)
    for one, other in ((hard, exported), (rows[4], rows[5])):  # one network: the same inputs, the same noisy weights
        assert all(one[key] == other[key] for key in ("0", "0.1", "0.5"))
    assert hard["0.5"] < hard["0"] and surrogate["mode"] == "surrogate"
    hashes = stored["inputs"]["event_drop"]
    assert len(set(hashes.values())) == 3 and set(stored["inputs"]["weight_noise"].values()) == {hashes["0"]}
    assert hashes["0.1"][:8] in capsys.readouterr().out
    text = plot.read_text()
    assert all(word in text for word in ("accuracy (%)", "severity (probability of a voxel)", "best.nir, reference"))
    robustness(trained / "int4.nir", json=json_file, **options)
    assert json.loads(json_file.read_text())["inputs"]["event_drop"] == hashes
    robustness(trained / "int4.nir", json=json_file, seed=1, **options)
    assert json.loads(json_file.read_text())["inputs"]["event_drop"]["0.1"] != hashes["0.1"]


def test_spikes_are_counted_where_they_are_lost(trained, tmp_path):
    models = trained / "best.pt", trained / "best.nir", trained / "int4.nir"
    robustness(*models, json=tmp_path / "r.json", corruptions="spike_deletion,weight_noise", severities="0,0.5",
               samples=40)
    found = json.loads((tmp_path / "r.json").read_text())["spikes"]
    assert [(row["mode"], row["spikes"]) for row in found] == [
        (mode, what) for mode in ("surrogate", "hard", "reference", "loihi2") for what in ("fired", "arrived")]
    clean = [sum(row.spikes.values()) for row in accuracy(subjects(*models, samples=40))]
    for number, fired, arrived in zip(clean, found[::2], found[1::2], strict=True):
        assert fired["0"] == pytest.approx(number, rel=1e-6) and arrived["0"] == fired["0"] > 0
        assert arrived["0.5"] == pytest.approx(fired["0.5"] / 2, rel=0.1)
    for one, other in zip(found[2:4], found[4:6], strict=True):  # one network, whether exported or not
        assert one["0.5"] == other["0.5"]


def test_a_second_run_computes_nothing(trained, monkeypatch):
    options = {"corruptions": "event_drop,stuck_neurons", "severities": "0,0.5", "samples": 20}
    rows = robustness(trained / "best.pt", **options)
    for name in ("corrupt", "count"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("computed again"))
    assert robustness(trained / "best.pt", **options) == rows


def stored(**options) -> Model:
    return Model(Path("a.pt"), Checkpoint(FitConfig(), busy_network(**options), SHAPE, 10, 0, [], THEORY))


@pytest.mark.parametrize("kernel", ["", "native"])
def test_a_chip_records_what_is_read_and_no_more(trained, kernel, monkeypatch):
    """Accuracy reads counts, robustness the output; both say what a run that records all layers says."""
    monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
    subject = subjects(trained / "best.nir", samples=60)[0].quantised(Quantisation())
    (mode,), asked = subject.modes(), []
    logits, spikes = runs(subject.model, mode)(subject.frames)
    simulate = fixed_point.run

    def record(*given, layers=None, **options):
        asked.append(layers)
        return simulate(*given, layers=layers, **options)

    monkeypatch.setattr(fixed_point, "run", record)
    found = subject.evaluate(mode)
    assert torch.equal(found.logits, logits)
    assert found.spikes == {layer: pytest.approx(values.sum(dtype=torch.float64).item() / 60)
                            for layer, values in spikes.items()}
    assert torch.equal(answers(subject.model, mode)(subject.frames), logits)
    assert asked == [(), ()]
    bytes_, floats = (subject.given(subject.part.frames, one) for one in (mode, Mode("reference")))
    assert bytes_.dtype == torch.uint8 and torch.equal(bytes_.float(), floats) and floats.dtype == torch.float32


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("options", [{"reset": "subtract"}, {"reset": "zero", "readout": "spikes", "batch_norm": True},
                                     {"layers": "6c5s2-6r-8rs2-16", "batch_norm": True}])
def test_network_and_exported_graph_have_the_same_faults(name, options):
    model, x, ids = stored(**options), frames(), list("abcdef")
    network = model.checkpoint.network.double()
    graph = Model(Path("a.nir"), given=frozen(model.checkpoint))

    def logits(model, mode, severity, part=slice(None)):
        return inject(model, mode, name, severity)(x[:, part], ids[part])

    linear = network.readout == "linear"
    for severity in (0.0, 0.3):
        hard, exported = logits(model, HARD, severity), logits(graph, ON_REFERENCE, severity)
        torch.testing.assert_close(hard * len(x) if linear else hard, exported)
    assert not torch.equal(hard, logits(model, HARD, 0.0))
    pieces = [logits(graph, ON_REFERENCE, 0.3, part) for part in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(torch.cat(pieces), exported)
    assert not torch.equal(logits(model, SURROGATE, 0.3), logits(model, SURROGATE, 0.0))


def test_deletion_takes_its_share_of_every_hidden_layer_and_stuck_neurons_stay_silent():
    graph = Model(Path("a.nir"), given=frozen(stored(readout="spikes").checkpoint))
    x, seen = frames(), {}
    clean = inject(graph, ON_REFERENCE, "spike_deletion", 0.0)(x, list("abcdef"))
    for name, severity in (("spike_deletion", 0.3), ("stuck_neurons", 0.25)):
        fault = FAULTS[name].apply

        def watch(spikes, layer, *rest, fault=fault, name=name):
            seen[name, layer] = spikes, fault(spikes, layer, *rest)
            return seen[name, layer][1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FAULTS, name, type(FAULTS[name])(watch, ""))
            inject(graph, ON_REFERENCE, name, severity)(x, list("abcdef"))
    assert [layer for name, layer in seen if name == "spike_deletion"] == ["lif1", "lif3", "lif4"]  # not the output
    for (name, layer), (spikes, left) in seen.items():
        if name == "spike_deletion":
            count = spikes.sum().item()
            assert abs(left.sum().item() - 0.7 * count) <= 4 * (count * 0.21) ** 0.5, layer
        else:
            neurons = spikes[0, 0].numel()
            silent = ((left == 0) | (spikes != left)).flatten(0, 1).all(0)
            assert (left != spikes).flatten(0, 1).any(0).sum() <= round(0.25 * neurons) <= silent.sum(), layer
    assert torch.isfinite(clean).all()


def test_noisy_integer_weights_stay_in_their_bits(trained):
    from eval.robustness.faults import _reweighted
    graph = read(trained / "int4.nir")
    noisy = _reweighted(Model.open(trained / "int4.nir"),
                        lambda weight, layer: weight_noise(weight, layer, 0.3, 0)).graph
    kinds = nir.Conv2d, nir.Affine
    weights = {name: array(node.weight) for name, node in noisy.nodes.items() if isinstance(node, kinds)}
    assert len(weights) == 3
    for name, weight in weights.items():
        before = array(graph.nodes[name].weight)
        assert set(np.unique(weight)) <= set(range(-128, 113, 16)) and (weight != before).mean() > 0.5
        assert abs((weight - before).std() / (0.3 * np.abs(before).max()) - 1) < 0.2


def test_what_cannot_have_a_fault_is_named(trained, capsys):
    graph = trained / "best.nir"
    rows = robustness(graph, targets="onnxruntime,reference", corruptions="spike_deletion", severities="0", samples=5)
    assert [row["mode"] for row in rows] == ["reference"]
    assert "(onnxruntime) is left out: target 'onnxruntime' cannot lose spikes" in capsys.readouterr().out
    with pytest.raises(HardspikeError, match="cannot lose spikes"):
        robustness(graph, targets="onnxruntime", corruptions="spike_deletion", samples=5)
    lif = {key: np.full(4, value) for key, value in (("tau", 1.0), ("r", 1.0), ("v_leak", 0.0), ("v_threshold", 0.5))}
    nodes = {"input": nir.Input({"input": np.array([4])}), "fc": nir.Linear(np.eye(4)), "lif": nir.LIF(**lif),
             "back": nir.Linear(np.eye(4)), "out": nir.Linear(np.eye(4)),
             "output": nir.Output({"output": np.array([4])})}
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "out"), ("out", "output")]
    recurrent = nir.NIRGraph(nodes, edges, metadata={"dt": 0.5}, type_check=False)
    with pytest.raises(HardspikeError, match="layer 'lif' is recurrent"):
        inject(Model(Path("r.nir"), given=recurrent), ON_REFERENCE, "spike_deletion", 0.1)


@pytest.mark.parametrize(("words", "message"), [
    (["--severities", "0,nan"], "must lie in [0, 1]"), (["--severities", "0,1.5"], "must lie in [0, 1]"),
    (["--severities", "much"], "numbers joined by commas"), (["--severities", ","], "severities are missing"),
    (["--corruptions", "evnt_drop"], "did you mean 'event_drop'"), (["--corruptions", ","], "corruptions are missing"),
    (["--targets", "referense"], "did you mean 'reference'"), (["--targets", ","], "name at least one"),
    (["--split", "tset"], "did you mean 'test'"), (["--samples", "-1"], "must be 0 (all) or more"),
    (["--plot", "a.png"], "name it a.svg"), ([], "no such file or folder")])
def test_errors_are_one_line(words, message, capfd):
    assert run("eval", COMMANDS, ["robustness", "missing.pt", *words]) in (1, 2)
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


def test_impossible_severity_of_a_fault():
    with pytest.raises(UsageError, match="must lie"):
        inject(stored(), HARD, "weight_noise", float("nan"))


@pytest.mark.parametrize(("weight", "lowest", "highest"), [([-128, 127, 3], -128, 127), ([-112, 112, 16], -128, 112),
                                                           ([-7, 5], -8, 7), ([0, 0], -1, 0)])
def test_integers_are_rounded_to_the_bits_that_hold_them(weight, lowest, highest):
    from eval.robustness.faults import _grid
    weight = np.array(weight, float)
    rounded = _grid([weight])
    assert np.array_equal(rounded(weight), weight)
    assert rounded(np.array([-1e4])) == lowest and rounded(np.array([1e4])) == highest


def test_a_new_corruption_is_one_entry_that_the_command_runs(trained, monkeypatch):
    from eval.robustness.corruptions import CORRUPTIONS, Corruption
    monkeypatch.setitem(CORRUPTIONS, "flood", Corruption(lambda frames, severity, draws: frames + 1, "events"))
    rows = robustness(trained, corruptions="flood", severities="0.5", samples=4)
    assert [row["corruption"] for row in rows] == ["flood", "flood"]


def test_recordings_that_are_no_pictures_lose_events_but_no_pixels(tmp_path, capsys):
    lif = {key: np.full(4, value) for key, value in (("tau", 1e-3), ("r", 10.0), ("v_leak", 0.0), ("v_threshold", 0.5))}
    nodes = {"input": nir.Input({"input": np.array([4])}), "fc": nir.Linear(np.eye(4)), "lif": nir.LIF(**lif),
             "output": nir.Output({"output": np.array([4])})}
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
    nir.write(tmp_path / "flat.nir", nir.NIRGraph(nodes, edges))
    labels = np.arange(8) % 4
    spikes = np.eye(4, dtype=np.uint8)[labels][None].repeat(6, 0) * 3
    np.savez(tmp_path / "x.npz", spikes=spikes, labels=labels)
    words = ["robustness", str(tmp_path / "flat.nir"), "--input", str(tmp_path / "x.npz"), "--severities", "0,1"]
    assert run("eval", COMMANDS, [*words, "--json", str(tmp_path / "r.json")]) == 0
    rows = {row["corruption"]: row for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert {row["0"] for row in rows.values()} == {100.0} and rows["event_drop"]["1"] == 25.0 == rows["bin_drop"]["1"]
    assert set(rows) == {"event_drop", "time_jitter", "bin_drop", "background_noise", "spike_deletion",
                         "stuck_neurons", "weight_noise"}
    assert "dead_pixels of" in capsys.readouterr().out
