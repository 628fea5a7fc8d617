"""`python -m eval operations`: counts against NeuroBench's formula, brute force, and one another."""

import copy
from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from torch import nn

from eval.__main__ import COMMANDS
from eval.commands.operations import operations
from eval.operations.counts import Tally, fan_out
from eval.operations.measure import count_network, count_target
from eval.operations.traffic import count_traffic
from eval.options import Sample, Tables
from eval.rows import operations as rows_of
from export.commands import nir as export_nir
from export.commands import quantise
from export.freeze.freeze import freeze
from export.options import Output, Quantisation
from export.passes.lower import lower
from hardspike import run
from targets import reference
from targets.graph import plan
from targets.lava.setup import setup
from targets.limits import Limit
from targets.loihi.chips import LOIHI1, LOIHI2
from targets.loihi.layers import split
from targets.loihi.mapping import map_graph
from targets.table import TARGETS
from tests.networks import SHAPE, busy_checkpoint, busy_network, frames
from trainer.data import DataConfig


def sparse_network(**options):
    """Busy, with a third of its weights zero."""
    network = busy_network(**options)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data[torch.rand_like(module.weight) < 0.3] = 0
    return network


def layers(counts, *keys):
    return {layer.layer: tuple(getattr(layer, key) for key in keys)
            for layer in counts.layers if hasattr(layer, keys[0])}


def neurobench(network, x):
    """MACs, ACs, dense of NeuroBench's definition: products of indicators, layer by layer."""
    found = {"macs": 0, "acs": 0, "dense": 0}

    def count(module, given, _):
        ones = copy.deepcopy(module)
        ones.bias = None
        ones._forward_hooks.clear()
        used, weight = given[0], module.weight
        for key, values, weights in (("dense", torch.ones_like(used), torch.ones_like(weight)),
                                     ("acs" if set(used.unique().tolist()) <= {-1, 0, 1} else "macs",
                                      (used != 0).double(), (weight != 0).double())):
            ones.weight.data = weights
            found[key] += int(ones(values).sum())

    network = copy.deepcopy(network).double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad(), network.mode(hard=True):
        network(x.double())
    return found


@pytest.mark.parametrize("options", [{}, {"readout": "spikes"}, {"layers": "6c5s2-8r-ap2-32", "batch_norm": True}])
def test_macs_and_acs_are_neurobenchs(options):
    network, x = sparse_network(**options), frames()
    counts, expected = count_network(network, x), neurobench(network, x)
    assert {key: counts.total(key) for key in expected} == expected
    assert min(expected.values()) > 0  # averages of spikes make MACs
    assert counts.total("synops") > counts.total("macs") + counts.total("acs")  # synapses of weight 0 count


def test_counts_are_those_of_the_neurobench_package():
    metrics = pytest.importorskip("neurobench.metrics.workload.synaptic_operations", exc_type=ImportError)
    models = pytest.importorskip("neurobench.models", exc_type=ImportError)
    network, x = sparse_network(), frames()

    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(network).double()
            self.network.set_mode(hard=True)

        def forward(self, x):
            return self.network(x.transpose(0, 1).double())

    model, data = models.TorchModel(BatchFirst()), x.transpose(0, 1)
    model.register_hooks()
    found = metrics.SynapticOperations()(model, model(data), (data, None))
    counts = count_network(network, x)
    assert {name: round(value * len(data)) for name, value in found.items()} == {
        "Effective_MACs": counts.total("macs"), "Effective_ACs": counts.total("acs"), "Dense": counts.total("dense")}


@pytest.mark.parametrize(("node", "shape"), [
    (nir.Conv2d(None, np.ones((4, 2, 3, 3)), (2, 1), (1, 2), (1, 2), 1, np.zeros(4)), (2, 7, 6)),
    (nir.Conv2d(None, np.ones((4, 1, 2, 3)), 1, 0, 1, 2, np.zeros(4)), (2, 5, 5)),
    (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 1, "same", 1, 1, np.zeros(3)), (2, 4, 5)),
    (nir.Conv1d(None, np.ones((3, 2, 4)), 3, 1, 1, 1, np.zeros(3)), (2, 9)),
    (nir.Linear(np.ones((5, 6))), (6,))])
def test_fan_out_is_what_one_spike_reaches(node, shape):
    node.weight = np.where(np.random.default_rng(0).random(node.weight.shape) < 0.3, 0.0, node.weight)
    for effective in (True, False):
        probe = copy.copy(node)
        probe.weight = node.weight if effective else np.ones_like(node.weight)
        graph = nir.NIRGraph({"input": nir.Input({"input": np.array(shape)}), "linear": probe,
                              "output": nir.Output({"output": None})},
                             [("input", "linear"), ("linear", "output")], type_check=False)
        one_hot = torch.eye(int(np.prod(shape))).reshape(1, -1, *shape)
        reached = (reference.run(graph, one_hot).output[0] != 0).flatten(1).sum(1)
        assert torch.equal(fan_out("linear", node, shape, effective).flatten(), reached)


@pytest.mark.parametrize("options", [{"readout": "spikes"}, {"layers": "6c5s2-8r-32", "readout": "spikes"}])
def test_network_reference_and_onnxruntime_count_alike(options):
    network, x = sparse_network(**options), frames()
    graph = freeze(network, SHAPE)
    counts = count_network(network, x)
    assert counts.total("spikes") > 0 < counts.total("silent")
    for target in ("reference", "onnxruntime"):
        found, _ = count_target(graph, TARGETS[target], x)
        for keys in (("neurons", "spikes", "silent", "updates"), ("events", "synops", "macs", "acs", "dense")):
            assert layers(found, *keys) == layers(counts, *keys)


@pytest.mark.parametrize("layers_", ["6c5s2-8r-32", "6c5s2-8r-ap"])
def test_a_linear_readout_has_the_synops_of_its_spikes_and_the_macs_of_its_averages(layers_):
    network, x = sparse_network(layers=layers_), frames()
    counts, (found, _) = count_network(network, x), count_target(freeze(network, SHAPE), TARGETS["reference"], x)
    assert layers(found, "events", "synops") == layers(counts, "events", "synops")
    one, other = layers(counts, "macs", "dense")["readout"], layers(found, "acs", "dense")["readout"]
    assert one[1] * len(x) == other[1] and 0 < one[0] < sum(layers(found, "macs", "acs")["readout"])


@pytest.mark.lava
def test_lava_counts_as_loihi2():
    setup()
    x = frames(6, 4)
    graph, _ = lower(freeze(sparse_network(layers="6c5s2-8c3s2-32", readout="spikes"), SHAPE), x, LOIHI2)
    one, other = (count_target(graph, TARGETS[target], x, LOIHI2) for target in ("loihi2", "lava"))
    assert one[0].total("spikes") > 0 and one == other


def test_a_recurrent_layer_hears_all_spikes_but_the_last():
    size = np.array([3])
    nodes = {"input": nir.Input({"input": size}), "fc": nir.Linear(np.eye(3)),
             "lif": nir.LIF(tau=np.full(3, 1e-3), r=np.full(3, 10.0), v_leak=np.zeros(3), v_threshold=np.full(3, 0.5)),
             "rec": nir.Linear(np.ones((3, 3))), "output": nir.Output({"output": size})}
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "output")]
    graph, x = nir.NIRGraph(nodes, edges, type_check=False), torch.ones(4, 2, 3)
    spikes = reference.run(graph, x, dt=1e-4).spikes["lif"]
    assert spikes[-1].any()
    counts, _ = count_target(graph, TARGETS["reference"], x)
    assert layers(counts, "synops")["rec"] == (3 * int(spikes[:-1].sum()),)


def test_messages_and_hops_spike_by_spike():
    network, x = busy_network(layers="4c5s4-4c3s2-12", reset="zero", readout="spikes"), frames(5, 2)
    graph, _ = lower(freeze(network, SHAPE), x, LOIHI1)
    spikes, layout, tally = LOIHI1.run(graph, x).spikes, plan(graph), Tally()
    tally.add_run(layout, x, dict(spikes))
    mapping, elsewhere = (map_graph(graph, replace(chip.integers, neurons=Limit(30, "test")))
                          for chip in (LOIHI1, LOIHI2))
    traffic = count_traffic(split(layout), mapping, LOIHI1, tally)
    tiles = [(index // 4 // 4, index // 4 % 4) for index in range(sum(map(len, mapping.cores.values())))]
    first = {name: sum(len(mapping.cores[other]) for other in list(mapping.cores)[:i])
             for i, name in enumerate(mapping.cores)}
    assert len(tiles) > 16  # several columns
    for entry, (source, target) in zip(traffic[1:], zip(spikes, list(spikes)[1:], strict=False), strict=True):
        messages, east, north = 0, 0, 0
        for neuron in spikes[source].flatten(2).nonzero()[:, 2].tolist():
            home = next(i for i, core in enumerate(mapping.cores[source]) if core.members[neuron])
            for i, core in enumerate(mapping.cores[target]):
                if core.synapses[0][neuron]:
                    one, other = tiles[first[source] + home], tiles[first[target] + i]
                    messages += 1
                    east, north = east + abs(one[0] - other[0]), north + abs(one[1] - other[1])
        assert (entry.messages, entry.hops, entry.from_host) == (messages, (east, north), False)
    assert traffic[0].from_host and traffic[0].hops is None
    other = count_traffic(split(layout), elsewhere, LOIHI2, tally)
    assert {entry.hops for entry in other} == {None}  # no public floor plan


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    busy_checkpoint(folder / "best.pt", DataConfig(steps=4), layers="6c5s3-32", readout="spikes")
    export_nir(folder, samples=16)
    quantise(folder / "best.nir", Output(folder / "int.nir"), Quantisation(train_samples=16), samples=16)
    return folder


def test_side_by_side(models, tmp_path, capfd):
    found = operations(models, models / "best.nir", models / "int.nir", targets="reference,onnxruntime",
                       sample=Sample(samples=20), tables=Tables(csv=tmp_path / "o.csv"))
    rows = [row for run in found for row in rows_of(run)]
    totals = {row["mode"]: row for row in rows if row["layer"] == "total"}
    assert list(totals) == ["hard", "reference", "onnxruntime", "loihi2"]
    assert totals["hard"]["spikes"] == totals["reference"]["spikes"] > 0
    each = {row["mode"]: row for row in rows if row["layer"] == "per sample"}
    assert each["loihi2"]["synops"] * 20 == totals["loihi2"]["synops"] and totals["loihi2"]["messages"] > 0
    assert "(onnxruntime): spikes equal in every layer; SynOps equal in every layer" in capfd.readouterr().out
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + len(rows)


@pytest.mark.parametrize(("words", "message"), [
    (["--samples", "-1"], "must be 0 (all) or more"), (["--targets", "lavva"], "did you mean 'lava'"),
    (["--targets", "lava"], "a float graph runs on none of the targets"), (["--split", "x"], "known: train")])
def test_errors_are_one_line(models, words, message, capfd):
    assert run("eval", COMMANDS, ["operations", str(models / "best.nir"), *words]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1
