"""Export to NIR: the graph spikes as the hard network does, stock readers read it, what it cannot hold is refused."""

import itertools
import json
from dataclasses import replace

import nir
import numpy as np
import pytest
import snntorch as snn
import torch

from export import commands
from export import model as model_module
from export.check import parity
from export.check.rounding import first_differences
from export.freeze.freeze import freeze
from export.options import Output
from export.passes import lower
from export.passes.fold_batchnorm import fold_batchnorm
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.graph import read
from tests.networks import SHAPE, THEORY, busy_network, frames
from trainer import checkpoint
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import Network, NetworkConfig, build


def saved(network_config: NetworkConfig, path, network: Network | None = None):
    config = FitConfig(data=DataConfig(steps=5), network=network_config)
    network = network or busy_network(**vars(network_config))
    checkpoint.save(checkpoint.Checkpoint(config, network, SHAPE, 10, 1, [], THEORY), path)
    return path


@pytest.mark.parametrize(("reset", "batch_norm", "readout", "beta"), [
    *itertools.product(["zero", "subtract"], [False, True], ["linear", "spikes"], [0.9]),
    ("zero", False, "linear", 1.0), ("subtract", True, "spikes", 1.0), ("subtract_leaky", True, "linear", 0.5),
    ("subtract_leaky", False, "spikes", 1.0), ("subtract_leaky", False, "linear", 0.0)])
def test_every_spike_of_the_hard_network_is_kept(reset, batch_norm, readout, beta, tmp_path):
    network = busy_network(reset=reset, batch_norm=batch_norm, readout=readout, beta=beta)
    unfolded = freeze(dict(network.layers), SHAPE)
    graph = fold_batchnorm(unfolded)
    if batch_norm:
        assert len(unfolded.nodes) - len(graph.nodes) == 3
    nir.write(tmp_path / "model.nir", graph)
    checked = parity.check_network(network, read(tmp_path / "model.nir"), unfolded, frames())
    assert all(layer.spikes > 100 for layer in checked.layers) and len(checked.layers) == 3 + (readout == "spikes")
    assert checked.mismatches == 0 and checked.float32.beyond == 0
    assert np.allclose(reference.run(graph, frames(2, 1)).output.shape[2:], 10)


def test_plif_is_kept_and_its_factor_goes_into_the_weights(tmp_path):
    network = busy_network(plif=True, batch_norm=True, layers="6c4s2p0-8c3-32", gain=3.0)
    for i, neuron in enumerate(network.neurons().values()):
        neuron.learned_leak.data.fill_(0.3 * i)
    saved(NetworkConfig(plif=True, batch_norm=True, layers="6c4s2p0-8c3-32"), tmp_path / "a.pt", network)
    stored = checkpoint.load(tmp_path / "a.pt").network
    unfolded = freeze(dict(stored.layers), SHAPE)
    assert isinstance(unfolded.nodes["lif3_current"], nir.Scale)
    for graph in (unfolded, lower.fold(unfolded)):
        checked = parity.check_network(stored, graph, unfolded, frames())
        assert checked.mismatches == 0 and all(layer.spikes > 100 for layer in checked.layers)
    assert not any("current" in name for name in lower.fold(unfolded).nodes)


def test_a_changed_spike_is_seen():
    network = busy_network(reset="zero")
    graph = freeze(dict(network.layers), SHAPE)
    x = frames()
    graph.nodes["lif1"].v_threshold = graph.nodes["lif1"].v_threshold * 1.001
    assert parity.check_network(network, graph, graph, x).mismatches > 0


def test_first_differences_are_judged_by_their_distance_to_the_threshold():
    """float32 spikes that part from float64 pass; a spike flipped far from the threshold does not."""
    network = busy_network(reset="zero", batch_norm=True, layers="6c5s2-8c3-32")
    graph, x = freeze(dict(network.layers), SHAPE), frames()
    exact = reference.run(graph, x, membrane=True)
    spikes = {name: s.clone() for name, s in exact.spikes.items()}
    assert first_differences(graph, x, exact, spikes).differing == 0
    distance = (exact.membrane["lif2"] - 1).abs()
    t, b, *rest = np.unravel_index(int(distance.argmax()), distance.shape)
    spikes["lif2"][t, b, *rest] ^= 1
    found = first_differences(graph, x, exact, spikes)
    assert (found.differing, found.spikes, found.beyond) == (1, 1, 1) and found.worst > 1000
    # the bound is one of rounding: float32 must respect it, bfloat16-like noise must not
    rounded = parity.network_spikes(network, x, torch.float32)[0]
    assert first_differences(graph, x, exact, rounded).beyond == 0
    for layer in network.layers.values():
        if hasattr(layer, "weight"):
            layer.weight.data = layer.weight.data.bfloat16().float()
    assert first_differences(graph, x, exact, parity.network_spikes(network, x, torch.float32)[0]).beyond > 0


def test_stock_snntorch_reads_the_zero_reset_graph(tmp_path):
    """Its importer flattens the batch away (NIR counts dimensions without it), so samples go in one by one."""
    from snntorch.import_nir import import_from_nir

    network = busy_network(reset="zero", batch_norm=True)
    graph = fold_batchnorm(freeze(dict(network.layers), SHAPE))
    nir.write(tmp_path / "model.nir", graph)
    x = frames(20, 4)
    ours = reference.run(graph, x).spikes
    stock = import_from_nir(nir.read(tmp_path / "model.nir"))
    fired = {name: [] for name in ours}
    for name, module in stock.named_modules():
        if name in ours:
            module.register_forward_hook(lambda _, __, out, name=name:
                                         fired[name].append(out[0] if isinstance(out, tuple) else out))
    for sample in range(x.shape[1]):
        state = None
        for module in stock.modules():
            if isinstance(module, snn.Leaky):
                module.reset_mem()  # passing no state leaves the last sample's
        for step in x[:, sample:sample + 1]:
            _, state = stock(step, state)
    for name, spikes in ours.items():
        theirs = torch.stack([s.reshape(spikes.shape[2:]) for s in fired[name]])
        assert spikes.sum() > 100
        assert torch.equal(theirs.unflatten(0, (4, 20)).transpose(0, 1).to(torch.uint8), spikes), name


def test_lossy_reset_counts_what_it_changes(tmp_path, capsys):
    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    assert commands.nir(model, samples=20, lossy_reset=True).mismatches > 0
    assert "spikes differ" in capsys.readouterr().err
    kinds = {type(node) for node in read(tmp_path / "a.nir").nodes.values()}
    assert nir.LIF in kinds and nir.Threshold not in kinds


def test_export_writes_a_checked_file_and_its_report(tmp_path):
    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    checked = commands.nir(model, samples=20)
    report = json.loads((tmp_path / "a.nir.parity.json").read_text())
    assert checked.mismatches == report["mismatches"] == 0 and report["checked"] and report["samples"] == 20
    commands.nir(model, Output(no_check=True))
    assert not json.loads((tmp_path / "a.nir.parity.json").read_text())["checked"]
    assert float(read(tmp_path / "a.nir").metadata["dt"]) == 1e-4


def test_a_mismatch_leaves_no_file(tmp_path, monkeypatch):
    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    monkeypatch.setattr(model_module, "fold_batchnorm", lambda graph: (
        graph.nodes.__setitem__("lif1", nir.Threshold(np.full((6, 17, 17), 1.1))), graph)[1])
    with pytest.raises(HardspikeError, match="not written"):
        commands.nir(model, samples=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"]


def test_max_pooling_of_spikes_is_an_or(tmp_path):
    config = NetworkConfig(layers="6c5s2-mp2-16", gain=4.0)
    checked = commands.nir(saved(config, tmp_path / "a.pt", build(config, SHAPE, 10)), samples=20)
    assert checked.mismatches == 0 and isinstance(read(tmp_path / "a.nir").nodes["pool2"], nir.Threshold)


def test_a_silent_network_is_not_called_checked(tmp_path):
    config = NetworkConfig(layers="6c5s2-16", gain=1e-6)
    model = saved(config, tmp_path / "a.pt", build(replace(config, bias=False), SHAPE, 10))
    config = replace(config, bias=False)
    model = saved(config, tmp_path / "a.pt", build(config, SHAPE, 10))
    with pytest.raises(HardspikeError, match="no spike at all"):
        commands.nir(model, samples=4)


def test_a_changed_readout_is_seen():
    """No spike depends on a linear readout, so the output is compared as well."""
    network = busy_network(reset="zero")
    graph = freeze(dict(network.layers), SHAPE)
    parity.check_network(network, graph, graph, frames())
    graph.nodes["readout"].weight = -graph.nodes["readout"].weight
    with pytest.raises(HardspikeError, match="the output differs by"):
        parity.check_network(network, graph, graph, frames())


def test_the_model_is_not_overwritten(tmp_path):
    model = saved(NetworkConfig(layers="6c5s2-16", gain=3.0), tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"is written as \.nir"):
        commands.nir(model, Output(model), samples=4)
    checkpoint.load(model)
