"""The report layer by layer, in NeuroBench's terms, on this machine's clock, and its three answers."""

import re
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from eval.energy.measure import total
from eval.energy.price_tables import load_table
from eval.mode import HARD, Mode
from eval.neurobench import measure as neurobench
from eval.operations.measure import measure as operations
from eval.report import figures, timing
from eval.report.answers import BREAKS, COST, PROMISE, answers
from eval.report.costs import operations as operations_of
from eval.report.costs import timings
from eval.report.finding import Cores, LayerCores
from eval.report.layers import LayerCost, Layers, Loss, coarse, measure
from eval.report.membranes import membranes
from eval.robustness.measure import Robustness, RobustnessRow
from hardspike import commit
from targets import reference
from tests.eval.opened import subjects
from tests.eval.test_report_verdict import CHIP, finding

SIZE, HIDDEN, CLASSES = 12, 16, 4


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDSPIKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shortcut(tmp_path):
    """A graph in which the input reaches the readout past the hidden layer, which only adds noise."""
    draw = np.random.default_rng(3)
    weights = {"in": draw.normal(0, 0.6, (HIDDEN, SIZE)), "past": np.kron(np.eye(CLASSES), np.ones((1, 3))),
               "out": draw.normal(0, 0.02, (CLASSES, HIDDEN))}
    nodes = {name: nir.Linear(value.astype(np.float32)) for name, value in weights.items()}
    nodes |= {"input": nir.Input(np.array([SIZE])), "output": nir.Output(np.array([CLASSES]))}
    nodes |= {name: nir.LIF(*(np.full(size, value, np.float32) for value in (1e-3, 10, 0, 1)))
              for name, size in (("hidden", HIDDEN), ("last", CLASSES))}
    edges = [("input", "in"), ("in", "hidden"), ("hidden", "out"), ("out", "last"), ("input", "past"),
             ("past", "last"), ("last", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}))
    labels = np.arange(24) % CLASSES
    rates = np.full((24, SIZE), 0.05)
    rates.reshape(24, CLASSES, 3)[np.arange(24), labels] = 0.8
    np.savez(tmp_path / "spikes.npz", spikes=(draw.random((8, 24, SIZE)) < rates).astype(np.uint8), labels=labels)
    subject, = subjects(tmp_path / "net.nir", input=tmp_path / "spikes.npz")
    return subject


def found_layers(subject):
    run, = operations([subject])
    return run, measure(subject, run, [load_table("synops_45nm"), load_table("horowitz45nm")])


def test_costs_of_layers_sum_to_those_of_the_network(shortcut):
    run, layers = found_layers(shortcut)
    assert [(one.layer, set(one.weights)) for one in layers.layers] == [("hidden", {"in"}), ("last", {"out", "past"})]
    assert sum(one.synops for one in layers.layers) == pytest.approx(run.counts.total("synops") / 24)
    assert sum(one.spikes or 0 for one in layers.layers) == pytest.approx(run.counts.total("spikes") / 24)
    for name in ("synops_45nm", "horowitz45nm"):
        assert sum(one.energy[name] or 0 for one in layers.layers) == pytest.approx(total(run, load_table(name)))


def test_what_is_lost_is_that_of_a_graph_changed_by_hand(shortcut):
    """Coarse weights of one layer, and a layer whose every spike is lost, by another graph on `reference`."""
    layers = found_layers(shortcut)[1]
    frames, labels = shortcut.frames, shortcut.labels

    def right(**changed):
        graph = nir.read(shortcut.model.path)
        for name, weight in changed.items():
            graph.nodes[name].weight = weight
        return (reference.run(graph, frames, dt=1e-4).predictions() == labels).double().mean().item()

    nodes = nir.read(shortcut.model.path).nodes
    assert layers.accuracy == right() > 0.9
    assert {one.layer: [loss.disturbance for loss in one.losses] for one in layers.layers}["hidden"] == [
        "weights of 4 bits", "noise of 10 %", "10 % of spikes lost", "silent"]
    lost = {(one.layer, loss.disturbance): loss.points for one in layers.layers for loss in one.losses}
    silent = np.zeros_like(nodes["out"].weight)
    assert lost["hidden", "silent"] == pytest.approx(100 * (right() - right(out=silent))) and abs(
        lost["hidden", "silent"]) < 10
    rounded = {name: coarse(torch.from_numpy(nodes[name].weight).double(), 4).numpy() for name in ("out", "past")}
    assert lost["last", "weights of 4 bits"] == pytest.approx(100 * (right() - right(**rounded)))
    assert lost["last", "silent"] is None  # its spikes are the output: nothing behind it could miss them


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_coarse_weights_lie_on_a_grid_of_so_many_bits(bits):
    weight = torch.randn(7, 9, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    made = coarse(weight, bits)
    assert len(made.unique()) <= 2**bits - 1 and torch.equal(coarse(0 * weight, bits), 0 * weight)
    assert (made - weight).abs().mean() < weight.abs().mean()


def test_the_margin_is_the_nearest_hundredth_of_the_membranes(shortcut):
    ours = {layer.layer: layer.margin for layer in membranes(shortcut, 0)}
    seen = reference.run(shortcut.model.graph, shortcut.frames, membrane=True).membrane
    for layer, values in seen.items():
        expected = (values.double() - 1).abs().flatten().quantile(0.01).item()
        assert ours[layer] == pytest.approx(min(expected, 1), abs=0.02)


def test_neurobench_by_its_own_definitions(shortcut):
    run, = operations([shortcut])
    found = neurobench(shortcut, run, 0.5)
    nodes = nir.read(shortcut.model.path).nodes
    weights = [nodes[name].weight for name in ("in", "past", "out")]
    spikes = reference.run(shortcut.model.graph, shortcut.frames).spikes.values()
    assert found.connection_sparsity == pytest.approx(1 - sum(np.count_nonzero(w) for w in weights)
                                                      / sum(w.size for w in weights))
    assert found.activation_sparsity == pytest.approx(1 - sum(int(s.sum()) for s in spikes)
                                                      / sum(s.numel() for s in spikes))
    parameters = 5 * (HIDDEN + CLASSES)  # tau, r, v_leak, v_threshold, v_reset
    assert found.footprint == 4 * (sum(w.size for w in weights) + parameters)
    assert found.dense == 8 * sum(w.size for w in weights) and found.mode == run.mode


def test_timings_are_measured_once_and_kept(shortcut, monkeypatch):
    modes = [Mode("reference")]
    first = timing.measure(shortcut, modes)
    monkeypatch.setattr(timing, "bench", lambda *_, **__: pytest.fail("again"))
    assert timing.measure(shortcut, modes) == first and first[0].times.median > 0


def test_modes_are_timed_in_one_go(shortcut, monkeypatch):
    """What was timed before, alone, says nothing beside what is timed now."""
    one, other = Mode("reference"), Mode("onnxruntime")
    timing.measure(shortcut, [one])
    asked = []
    kept = timing.bench

    def bench(target, *rest, **options):
        asked.append(target.name)
        return kept(target, *rest, **options)

    monkeypatch.setattr(timing, "bench", bench)
    assert len({time.made for time in timing.measure(shortcut, [one, other])}) == 1
    assert asked == ["reference", "onnxruntime"]


def test_times_of_two_models_taken_apart_do_not_compare():
    def model(made):
        row = {"mode": "x", "mean": 1.0, "median": 1.0, "p99": 1.0, "throughput": 9.0, "runs": 1, "samples": 1,
               "steps": 1, "threads": 1, "machine": "m", "made": made}
        return {"label": made, "timing": [row]}

    def noted(*made):
        return any("do not compare" in block.get("note", "") for block in timings(list(map(model, made))))

    assert noted("10:00", "11:00") and not noted("10:00", "10:00") and not noted("10:00")


def test_bars_side_by_side_have_one_axis_and_their_models_colour():
    def model(synops):
        rows = [{"mode": "hard", "layer": "fc", "synops": synops, "neurons": 1}]
        return {"label": f"{synops}", "operations": {"rows": rows, "samples": 3}}

    first, second = (column["parts"][0]["figures"][0] for column in operations_of([model(1000.0), model(9000.0)])[0][
        "split"])
    ticks = [re.findall(r"<text[^>]*>([\d.]+)</text>", picture) for picture in (first, second)]
    assert ticks[0] == ticks[1] and "8" in ticks[0]
    assert "var(--c1)" in first and "var(--c2)" not in first and "var(--c2)" in second


def test_one_epoch_has_whole_numbers_and_both_dots():
    picture = figures.training([{"label": "x", "training": [{
        "epoch": 1, "surrogate_accuracy": 0.5, "hard_accuracy": 0.5, "train_loss": 1.0, "hard_loss": 1.0,
        "spikes_per_sample": 3.0, "slope": 1.0}]}])[0]
    across = picture[:picture.index("matplotlib.axis_2")]
    assert re.findall(r"<text[^>]*>([\d.]+)</text>", across) == ["0", "1", "2"]
    dots = set(re.findall(r'<path id="(?:training0-)m\w+" d="([^"]+C[^"]+)"', picture))
    assert len(dots) == 2  # of two sizes



def answer(found, question):
    return dict(answers(found))[question]


def test_the_answers_follow_from_the_numbers():
    curves = Robustness([RobustnessRow("event_drop", Path(), CHIP, [90.0, 88.0, 40.0], 70.0, 0.1),
                         RobustnessRow("time_jitter", Path(), CHIP, [90.0, 79.0, 70.0], 70.0, 0.1)], [], {},
                        [0.0, 0.1, 0.2], 100)
    cores = Cores("Loihi 2", [LayerCores("a", 3, 9, 2, 1500.0, 800.0, {})], 128, "", [])
    found = replace(finding(corruptions=curves), cores=cores)
    assert answer(found, PROMISE).startswith("Yes. Surrogate, as it was trained, gives 99.0 %, loihi2, 8 bits 98.2 %: "
                                             "0.8 points less")
    assert answer(found, COST).startswith("About 2 of 128 cores of Loihi 2, an estimate; 1.5 kB of synapses, an "
                                          "estimate; 5 spikes in 4 steps a recording (mean of 1000)")
    assert "Time jitter, at severity 0.1" in answer(found, BREAKS)
    assert "costs 11.0 points (100 recordings, drawn once)" in answer(found, BREAKS)


def cost(layer, *losses):
    return LayerCost(layer, ("fc",), 3, 1.0, 2.0, {}, losses)


@pytest.mark.parametrize(("layers", "says"), [
    ([cost("a", Loss("noise", 1.0, 1, 0), Loss("silent", 80.0, 80, 0)), cost("b", Loss("noise", 2.5, 3, 0))],
     "of the layers disturbed alone, none stands out (100 recordings)"),
    ([cost("a", Loss("noise", 1.0, 1, 0)), cost("b", Loss("noise", 12.0, 13, 1))],
     "of the layers disturbed alone, b (noise) bears least: 12.0 points lost (100 recordings)"),
    ([cost("a", Loss("noise", 12.0, 12, 0)), cost("b", Loss("4 bits", 12.0, 13, 1), Loss("noise", -20.0, 0, 20))],
     "of the layers disturbed alone, a (noise) and b (4 bits) bear least: 12.0 points lost (100 recordings)"),
    ([cost(f"l{index}", Loss("noise", 6.0 * (index < 1), 6 * (index < 1), 0)) for index in range(9)],
     "of the layers disturbed alone, none stands out (100 recordings)")])  # p = 0.03 of one in nine is chance
def test_a_layer_bears_least_only_where_chance_does_not_explain_it(layers, says):
    assert says in answer(finding(layers=Layers(layers, 100, 0.9, 64)), BREAKS).replace("Of the", "of the", 1)


def test_without_a_chip_nothing_is_promised():
    found = finding()
    found.runs, found.accuracy = found.runs[:2], found.accuracy[:2]
    assert answer(found, PROMISE) == "Not judged: no chip is among the targets."
    assert answer(found, BREAKS) == "Not known; see the end of the page."
    assert found.accuracy[1].mode == HARD


def test_the_commit_is_that_of_the_checkout():
    found = commit()
    assert found is None or len(found.split(" ")[0]) == 40
