"""E-SpikeFormer trained in a chip's integers: its stages spike as on the chip, and what attends is the host's."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from eval.commands.accuracy import accuracy
from eval.commands.parity import parity as parity_of
from eval.commands.pruning import pruning
from eval.operations.measure import count_network, count_target
from export.check.attention import network_differences
from export.check.parity import check_integers, network_spikes
from export.commands import nir as export_nir
from export.commands import quantise
from export.formats.network_onnx import network_parts, network_to_onnx
from export.freeze.integers import as_floats, integer_graph
from export.model import Model
from export.recordings import Recordings
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.chips import CHIPS, chip_of
from targets.commands import run as run_graph
from targets.graph import read
from targets.graph.shapes import array
from targets.loihi.layers import LINEAR
from targets.onnx import runtime
from targets.reference import REFERENCE
from tests.networks import THEORY, settled
from trainer.checkpoint import Checkpoint, save
from trainer.config import FitConfig
from trainer.layers.attention import Attention
from trainer.networks import Network, NetworkConfig, build
from trainer.networks.espikeformer import conv_stages
from trainer.networks.integers import IntegerNetwork, folded
from trainer.networks.layouts import LAYOUTS, Layout, Stage
from trainer.neurons.fixed import Fixed
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows
from trainer.search import to_integers

SHAPE = (2, 6, 6)
STATE = 1 << 23


@pytest.fixture(autouse=True)
def _few_layers(monkeypatch):
    """A layout of two stages of convolutions, whose currents go on to several layers, and one of attention."""
    monkeypatch.setitem(LAYOUTS, "few", Layout((Stage(4, 1, 1), Stage(6, 2, 1), Stage(8, 1, 1, True)), 3, 2, 2))


def config(levels: int = 3) -> NetworkConfig:
    return NetworkConfig(layers="few", beta=0, levels=levels)


def network(levels: int = 3) -> Network:
    """An E-SpikeFormer whose BatchNorm has seen frames, so that all its layers fire."""
    torch.manual_seed(7)
    return settled(build(config(levels), SHAPE, 10), frames, gain=3, times=10)


def frames(steps: int = 2, count: int = 8) -> torch.Tensor:
    return (torch.rand(steps, count, *SHAPE) < 0.3).float()


def trained(bits: int = 8, levels: int = 3, target: str = "loihi2") -> IntegerNetwork:
    """In integers, with weights that moved since their scales were chosen, as training moves them."""
    made = to_integers(network(levels), frames(), target, bits).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += torch.randn_like(weight) * weight.abs().mean() * 0.3
    return made


def test_connections_of_their_own_compute_what_the_folded_network_does():
    floats, x = network().double().eval(), frames().double()
    apart = folded(floats)
    assert torch.allclose(apart(x), floats(x), rtol=1e-9, atol=1e-9)
    record, wanted = {}, {}
    apart(x, record)
    floats(x, wanted)
    assert record.keys() == wanted.keys() and all(torch.equal(record[name], wanted[name]) for name in wanted)
    stages = conv_stages(apart)
    heard = [source for name, sources in stages.sums.items() if isinstance(stages.layers[name], LevelLeaky)
             for source in sources]
    assert len(heard) == len(set(heard)) > 8  # every convolution feeds one layer of neurons
    host = list(apart.layers)[len(stages.layers):]
    assert not any(isinstance(layer, _BatchNorm) for layer in stages.layers.values())
    assert sum(isinstance(apart.layers[name], _BatchNorm) for name in host) > 5  # the host keeps its own



@pytest.mark.parametrize(("bits", "levels"), [(8, 3), (8, 1), (4, 4), (2, 2)])
def test_the_stages_spike_as_their_graph_on_the_chip(bits, levels, tmp_path):
    whole, x = trained(bits, levels), frames(3)
    stages = conv_stages(whole)
    assert isinstance(stages, IntegerNetwork) and not any(isinstance(m, Attention) for m in stages.modules())
    graph = integer_graph(stages, SHAPE, {"readout": "spikes"})
    parity = check_integers(stages, graph, CHIPS["loihi2"], x)
    assert parity.mismatches == 0 and sum(layer.spikes > 0 for layer in parity.layers) > len(parity.layers) / 2
    for node in graph.nodes.values():
        if isinstance(node, LINEAR):
            weight = array(node.weight)
            assert np.array_equal(weight, np.round(weight)) and np.abs(weight).max() <= 127
    spikes, _ = network_spikes(whole, x, torch.float32)  # the whole network's stages are these
    for name, values in network_spikes(stages, x, torch.float32)[0].items():
        assert torch.equal(values, spikes[name])


def test_thresholds_are_a_chips_where_sums_wrap():
    neuron = LevelLeaky(0.0, 1.0, Surrogate(), 4, 4)
    a, b = torch.randint(-200_000, 200_000, (2, 3, 500)).float(), torch.randint(-4095, 4096, (500,)).float()
    a[0, 0, :5] = torch.tensor([63.0, 64.0, 21.0, 22.0, 147.0])
    b[:5] = 0
    spikes, membrane = neuron.in_integers(a + b, Fixed(21.0, 42, b))
    v = 64 * a.long()
    v = torch.where(v > STATE, v - 2 * STATE, v)
    v = torch.where(v <= -STATE, v + 2 * STATE, v) + 64 * b.long()
    assert torch.equal(spikes, sum((v > 64 * 21 * i).float() for i in (1, 3, 5, 7)))
    assert spikes[0, 0, :5].tolist() == [1, 2, 0, 1, 3] and set(spikes.unique().tolist()) == {0, 1, 2, 3, 4}
    torch.testing.assert_close(membrane.double(), v.double() / (64 * 21.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("windows", [None, Windows("box", torch.full((4,), 0.5)), Windows("tri", torch.rand(4) + 0.3)])
def test_the_gradient_in_integers_is_the_floats_over_the_scale(windows):
    """Units that are a power of two: the membrane in floats is the same number."""
    neuron = LevelLeaky(0.0, 1.0, Surrogate(), 4, 4)
    neuron.hard, neuron.windows = True, windows
    a = torch.randint(-100, 400, (2, 3, 50)).float()
    g, found = torch.randn_like(a), []
    for unit, run in ((1.0, lambda x: neuron.in_integers(x, Fixed(64.0, 64, None))), (64.0, neuron)):
        x = (a / unit).requires_grad_()
        spikes, _ = run(x)
        found.append((spikes, torch.autograd.grad(spikes, x, g)[0] * (64 / unit)))
    assert torch.equal(found[0][0], found[1][0]) and found[0][0].any()
    torch.testing.assert_close(found[0][1], found[1][1])


def test_for_no_chip_the_stages_are_floats_of_the_same_weights():
    stages = conv_stages(trained(target="none"))
    graph = integer_graph(stages, SHAPE, {})
    spikes, _ = network_spikes(stages, x := frames(), torch.float64)
    found = REFERENCE.run(graph, x).spikes
    assert all(torch.equal(values, found[name]) for name, values in spikes.items())


def test_a_checkpoint_holds_it_and_its_whole_is_onnx(tmp_path, monkeypatch):
    made, x = trained(), frames(1)
    stored = Checkpoint(FitConfig(method="hard", network=config()), made, SHAPE, 10, 1, [], THEORY)
    save(stored, tmp_path / "x.pt")
    model = Model.open(tmp_path / "x.pt")
    assert model.trained.network.integers == made.integers and model.chip is CHIPS["loihi2"]
    assert torch.equal(model.trained.network(x), made(x))
    assert "attention3_1" in model.refused and model.deployed() is model
    parts = network_parts(model.trained, None)
    path = tmp_path / "x.onnx"
    path.write_bytes(parts.build().SerializeToString())
    parity = parts.check(path, x)
    assert not parity.float32.beyond and not parity.float32.outputs_beyond
    found = runtime.run_file(path, x)
    record: dict[str, torch.Tensor] = {}
    made(x, record)
    for name in made.integers.layers:  # in the stages float32 rounds nothing
        assert torch.equal(found.spikes[name].float(), record[name])
    assert network_differences(as_floats(made), x, found.spikes, found.output)


@pytest.mark.parametrize(("make", "quantised"), [(network, False), (network, True), (trained, False),
                                                 (partial(trained, target="none"), False)])
def test_the_graph_and_the_file_behind_it_are_the_network(make, quantised, tmp_path):
    """Also where the graph was quantised afterwards: its Output goes into the same file."""
    made, x = make(), frames(2, 6)
    save(Checkpoint(FitConfig(method="hard", network=config()), made, SHAPE, 10, 1, [], THEORY), tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", spikes=x.numpy().astype(np.uint8))
    parity = export_nir(tmp_path / "x.pt", recordings=Recordings(input=tmp_path / "x.npz"), conv_stages=True)
    part, = parity.host
    assert parity.mismatches == 0 and part.values == 60 and part.difference < 1e-5
    graph = tmp_path / ("x.conv.loihi2-int8.nir" if make is trained else "x.conv.nir")
    session = onnxruntime.InferenceSession(graph.with_suffix(".behind.onnx"))
    if quantised:
        exact = reference.run(read(graph), x).output
        quantise(graph, recordings=Recordings(input=tmp_path / "x.npz"))
        graph = graph.with_suffix(".loihi2-int8.nir")
    output = (chip_of(read(graph)) or REFERENCE).run(read(graph), x).output
    assert set(output.unique().tolist()) == {0, 1, 2, 3}
    if quantised:
        assert np.corrcoef(output.flatten(), exact.flatten())[0, 1] > 0.6
        return
    logits = np.mean([session.run(["output"], {"input": step.float().numpy()})[0] for step in output], 0)
    with made.mode(hard=True), torch.no_grad():
        wanted = made.eval()(x)
    assert wanted.std() > 0.1
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_a_file_behind_the_stages_that_computes_otherwise_is_not_written(tmp_path, monkeypatch):
    made = trained()
    save(Checkpoint(FitConfig(method="hard", network=config()), made, SHAPE, 10, 1, [], THEORY), tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", spikes=frames(2, 6).numpy().astype(np.uint8))

    def other(network, *rest):
        network = copy.deepcopy(network)
        network.layers["readout"].weight.data[0, 0] += 1
        return network_to_onnx(network, *rest)

    monkeypatch.setattr("export.formats.behind.network_to_onnx", other)
    with pytest.raises(HardspikeError, match=r"behind\.onnx, what the host computes behind the stages"):
        export_nir(tmp_path / "x.pt", recordings=Recordings(input=tmp_path / "x.npz"), conv_stages=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.npz", "x.pt"]


def test_a_picture_is_no_row_of_classes_and_spikes_are_compared_all_the_same(tmp_path, capsys):
    made = trained()
    save(Checkpoint(FitConfig(method="hard", network=config()), made, SHAPE, 10, 1, [], THEORY), tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", spikes=frames(2, 6).numpy().astype(np.uint8), labels=np.arange(6))
    given = Recordings(input=tmp_path / "x.npz")
    export_nir(tmp_path / "x.pt", recordings=given, conv_stages=True)
    graph = tmp_path / "x.conv.loihi2-int8.nir"
    with pytest.raises(HardspikeError, match=r"its Output is a picture \(6, 3, 3\)"):
        accuracy(graph, recordings=given)
    assert run_graph(graph, "loihi2", input=tmp_path / "x.npz").output.any()
    assert "accuracy" not in capsys.readouterr().out
    found = parity_of(graph, targets="loihi2", recordings=given).runs[0]
    assert found.right is None and sum(found.layers.values()) > 100
    with pytest.raises(UsageError, match=r"attention3_1.*measured on the chip, as a whole"):
        pruning(tmp_path / "x.pt", out=tmp_path / "pruned", recordings=given)
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("change", [dict(threshold=3), dict(threshold=0), dict(threshold=2**16), dict(scale=-1.0),
                                    dict(scale=1e300), dict(scale=1e-300)])
def test_units_that_no_chip_holds_are_refused(change, tmp_path):
    made = trained(levels=4)
    layers = dict(made.integers.layers)
    layers["lif2"] = replace(layers["lif2"], **change)
    made.integers = replace(made.integers, layers=layers)
    save(Checkpoint(FitConfig(method="hard", network=config(4)), made, SHAPE, 10, 1, [], THEORY), tmp_path / "x.pt")
    with pytest.raises(HardspikeError, match=r"layer 'lif2' has scale .* which no chip holds"):
        Model.open(tmp_path / "x.pt")


@pytest.mark.parametrize("change", [
    lambda content: content["integers"].update(target="loihi1"),
    lambda content: content["network"]["layers.lif2_1a.beta"].fill_(0.5)])
def test_a_membrane_that_several_thresholds_keep_is_refused(change, tmp_path):
    path = tmp_path / "x.pt"
    save(Checkpoint(FitConfig(method="hard", network=config()), trained(), SHAPE, 10, 1, [], THEORY), path)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(HardspikeError, match=r"neurons with several thresholds, which no chip gives a lasting"):
        Model.open(path)


def test_operations_are_those_of_the_graph():
    whole, x = trained(), frames(2)
    stages = conv_stages(whole)
    graph = integer_graph(copy.deepcopy(stages), SHAPE, {"readout": "spikes"})
    mine = {layer.layer: layer for layer in count_network(whole, x).layers}
    theirs, _ = count_target(graph, CHIPS["loihi2"], x)
    events = {layer.layer: layer for layer in theirs.layers}
    for name in stages.layers:
        if name in mine and name in events:
            assert mine[name].events == events[name].events
    assert sum(hasattr(mine[name], "synops") and name in events for name in mine) > 8
