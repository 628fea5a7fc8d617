"""Integer graphs as `.net` files: what is written, what Lava makes of it, what is refused."""

import h5py
import nir
import numpy as np
import pytest
import torch

from export.commands import lava
from export.freeze.freeze import freeze
from export.passes.lower import lower
from export.recordings import Recordings
from hardspike import HardspikeError
from targets import graph as graphs
from targets import loihi2
from targets.lava import runner
from targets.lava.net_file import read_net
from targets.lava.netx import write_net
from targets.lava.setup import setup
from targets.loihi import chips
from tests import lava_naive
from tests.networks import SHAPE, busy_network, frames


def datasets(path):
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, value: found.update({name: value[()]} if isinstance(value, h5py.Dataset) else {}))
    return {name: value for name, value in found.items() if not name.endswith("/name")}


@pytest.mark.parametrize("seed", range(8))
def test_every_dataset_is_as_netx_wants_it(seed, tmp_path):
    rng = np.random.default_rng(seed)
    shape = [(2, 9, 11), (1, 8, 8), (12,)][seed % 3]
    layers = lava_naive.random_layers(rng, shape)
    lava_naive.write(tmp_path / "expected.net", layers, shape)
    written = write_net(lava_naive.to_nir(layers, shape), tmp_path / "model.net")
    assert [layer.name for layer in written] == [f"lif{i}" for i in range(len(layers))]
    assert list(read_net(tmp_path / "model.net").layers) == [layer.name for layer in written]
    found, expected = datasets(tmp_path / "model.net"), datasets(tmp_path / "expected.net")
    for name, value in expected.items():
        np.testing.assert_array_equal(found.pop(name, 0), value, err_msg=name)  # a bias of zero is left out
    assert not found


def conv_graph(**changes):
    layer = {"weight": np.ones((2, 2, 3, 3), int), "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1],
             "groups": 1, "bias": np.zeros(2, int), "reset": "zero", "vThMant": 9, "iDecay": 4096, "vDecay": 410}
    return lava_naive.to_nir([layer | changes], (2, 6, 6))


def dense_graph(*more, inputs=4, **changes):
    layer = {"weight": np.arange(1, 9).reshape(2, 4), "bias": np.zeros(2, int), "reset": "zero", "vThMant": 9,
             "iDecay": 4096, "vDecay": 410}
    return lava_naive.to_nir([layer | changes, *more], (inputs,))


def changed(graph, edges=(), metadata=None, **nodes):
    return nir.NIRGraph({**graph.nodes, **nodes}, [*graph.edges, *edges], metadata=graph.metadata, type_check=False)


def several(size, value):
    return np.array([value, *[value + 1] * (size - 1)], float)


def two_layers():
    return dense_graph({"weight": np.eye(2, dtype=int), "bias": np.zeros(2, int), "reset": "zero", "vThMant": 1,
                        "iDecay": 4096, "vDecay": 0})


REFUSED = {
    "fraction": (dense_graph(weight=np.full((2, 4), 1.5)), r"fc0: weight: 1\.5; integers only"),
    "conv weight beyond 8 bits": (conv_graph(weight=np.full((2, 2, 3, 3), 128)), r"conv0: weight: 128; -128 to 127"),
    "dense weight beyond 8 bits": (dense_graph(weight=np.full((2, 4), -130)), r"fc0: weight: -130; -128 to 127"),
    "bias beyond its mantissa": (dense_graph(bias=np.array([0, 40_000])), r"lif0: bias: 40000"),
    "threshold beyond 17 bits": (dense_graph(vThMant=1 << 17), r"lif0: threshold: 131072; 1 to 131071"),
    "all zero": (dense_graph(weight=np.zeros((2, 4), int)), r"fc0: weight: all zero"),
    "-2^n and none positive": (dense_graph(weight=np.full((2, 4), -64)), r"'fc0'.*lowest is -64.*raise it to -63"),
    "groups beyond int8": (lava_naive.to_nir([{
        "weight": np.ones((128, 1, 1, 1), int), "bias": np.zeros(128, int), "stride": [1, 1], "padding": [0, 0],
        "dilation": [1, 1], "groups": 128, "reset": "zero", "vThMant": 9, "iDecay": 4096, "vDecay": 0}], (128, 2, 2)),
        r"'conv0'.*groups 128; .*up to 127"),
    "padding same, even kernel": (changed(conv_graph(), conv0=nir.Conv2d(
        (6, 6), np.ones((2, 2, 4, 4)), 1, "same", 1, 1, np.zeros(2))), r"'conv0'.*padding 'same'.*uneven"),
    "sum beyond 24 bits": (dense_graph(weight=np.full((2, 70_000), 127), inputs=70_000), r"'fc0'.*24 bits"),
    "thresholds per neuron": (changed(dense_graph(), lif0=nir.LIF(
        np.full(2, 8e-4), np.full(2, 8.0), np.zeros(2), several(2, 5), np.zeros(2))), r"'lif0'.*holds one a layer"),
    "leak off the grid": (changed(dense_graph(), lif0=nir.LIF(
        np.full(2, 1.01e-3), np.full(2, 10.1), np.zeros(2), np.full(2, 5.0), np.zeros(2))), r"lif0: leak.*4096ths"),
    "branch": (changed(two_layers(), [("input", "fc1b"), ("fc1b", "lif1")], fc1b=nir.Linear(np.ones((2, 4)))),
               r"'lif1'.*2 connections"),
    "skip": (nir.NIRGraph({**two_layers().nodes, "fc1": nir.Linear(np.ones((2, 4)))}, [
        ("input", "fc0"), ("fc0", "lif0"), ("input", "fc1"), ("fc1", "lif1"), ("lif1", "output")],
        metadata={"dt": 1e-4}, type_check=False), r"fed by 'input', not by"),
    "recurrence": (changed(dense_graph(), [("lif0", "back"), ("back", "lif0")], back=nir.Linear(np.eye(2))),
                   r"'lif0': is recurrent"),
    "pooling": (nir.NIRGraph({"input": nir.Input({"input": np.array([2, 12, 12])}),
                              "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
                              **{key: node for key, node in conv_graph().nodes.items() if key != "input"}},
                             [("input", "pool"), ("pool", "conv0"), ("conv0", "lif0"), ("lif0", "output")],
                             metadata={"dt": 1e-4}, type_check=False), r"pool: .*AvgPool2d.*fold it"),
    "readout of two nodes": (nir.NIRGraph(
        {**dense_graph().nodes, "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2))},
        [("input", "fc0"), ("fc0", "lif0"), ("lif0", "a"), ("a", "b"), ("b", "output")],
        metadata={"dt": 1e-4}, type_check=False), r"'b' \(Linear\): lies behind the last spikes"),
    "no layer": (nir.NIRGraph({"input": nir.Input({"input": np.array([4])}), "fc": nir.Linear(np.ones((2, 4))),
                               "output": nir.Output({"output": np.array([2])})},
                              [("input", "fc"), ("fc", "output")], type_check=False), r"no layer of spiking neurons"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lava_would_get_wrong_is_refused_by_name(case, tmp_path):
    graph, message = REFUSED[case]
    with pytest.raises(HardspikeError, match=message) as error:
        write_net(graph, tmp_path / "model.net")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.lava
def test_export_is_checked_in_lava_and_the_host_reads_out(tmp_path, capsys):
    setup()
    rng = np.random.default_rng(3)
    layers = lava_naive.random_layers(rng, (2, 9, 11))
    layers[-1]["reset"] = "subtract"
    chain = lava_naive.to_nir(layers, (2, 9, 11))
    size = int(np.prod(chain.nodes[f"lif{len(layers) - 1}"].output_type["output"]))
    readout = nir.Affine(rng.normal(size=(3, size)), rng.normal(size=3))
    edges = [edge for edge in chain.edges if edge[1] != "output"]
    last = f"lif{len(layers) - 1}"
    graph = nir.NIRGraph({**chain.nodes, "flat": nir.Flatten({"input": np.array([1])}, 0, -1), "readout": readout,
                          "output": nir.Output({"output": np.array([3])})},
                         [*edges, (last, "flat"), ("flat", "readout"), ("readout", "output")],
                         metadata=chain.metadata, type_check=False)
    graphs.write(graph, tmp_path / "model.nir")
    spikes = torch.from_numpy((rng.random((20, 5, 2, 9, 11)) < 0.4).astype(np.uint8))
    np.savez(tmp_path / "spikes.npz", spikes=spikes.numpy())
    checked = lava(tmp_path / "model.nir", samples=5, recordings=Recordings(input=tmp_path / "spikes.npz"))
    assert checked.mismatches == 0 and checked.samples == 5
    assert all(layer.spikes for layer in checked.layers)
    assert f"{last}: reset by subtraction" in capsys.readouterr().out
    ours, theirs = loihi2.run(graph, spikes), runner.run(tmp_path / "model.net", spikes)
    torch.testing.assert_close(theirs.output, ours.output, rtol=0, atol=1e-12)
    assert (theirs.predictions() == ours.predictions()).all()


@pytest.mark.lava
@pytest.mark.parametrize("options", [{}, {"reset": "zero", "readout": "spikes"}])
def test_a_network_of_the_trainer_quantised_spikes_alike_in_lava(options, tmp_path):
    setup()
    network = busy_network(layers="6c5s2-8c3s2-32", **options)
    graph, _ = lower(freeze(dict(network.layers), SHAPE), frames(), chips.LOIHI2, scale="max_abs")
    graphs.write(graph, tmp_path / "model.nir")
    np.savez(tmp_path / "spikes.npz", spikes=frames().numpy().astype(np.uint8))
    checked = lava(tmp_path / "model.nir", samples=4, recordings=Recordings(input=tmp_path / "spikes.npz"))
    assert checked.mismatches == 0 and all(layer.spikes for layer in checked.layers)
    assert "lava-nc 0.10.0" in (tmp_path / "model.net.parity.json").read_text()
