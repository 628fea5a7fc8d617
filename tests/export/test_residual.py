"""Residual blocks, tdBN and learned leaks: as stock snnTorch computes them, and kept by every export."""

import itertools
import math

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from export.check import parity
from export.freeze.freeze import freeze
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.lower import fold, lower
from hardspike import HardspikeError, UsageError
from targets import loihi2, reference
from targets.graph import plan, read, write
from targets.lava.netx import write_net
from targets.loihi import chips, rules
from targets.loihi.layers import split
from targets.onnx import runtime as onnx_runtime
from tests.export.stepwise import run_stepwise
from tests.networks import SHAPE, busy_network, frames
from trainer.analysis import theory
from trainer.networks import PRESETS, Network, NetworkConfig, build

LAYERS = "6c5s2-6r-10rs2-ap2-16"
"""A stem, a block whose shortcut carries spikes as they are, and one whose shortcut is a convolution."""


class Stock(nn.Module):
    """What LAYERS means, written by hand with the modules of a network and stock neurons; forward does one step."""

    def __init__(self, network: Network):
        super().__init__()
        self.layers = nn.ModuleDict({name: layer if not isinstance(layer, snn.Leaky) else snn.Leaky(
            layer.beta, threshold=layer.threshold, reset_mechanism=layer.reset_mechanism, init_hidden=True)
            for name, layer in network.layers.items()})

    def forward(self, x):
        def run(x, *names):
            for name in names:
                x = self.layers[name](x)
            return x

        stem = run(x, "conv1", "norm1", "lif1")
        first = run(run(stem, "conv2a", "norm2a", "lif2a", "conv2b", "norm2b") + stem, "lif2")
        branch = run(first, "conv3a", "norm3a", "lif3a", "conv3b", "norm3b")
        second = run(branch + run(first, "conv3s", "norm3s"), "lif3")
        return run(second, "pool4", "flatten", "dense5", "norm5", "lif5", "readout")


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_block_is_what_stock_snntorch_computes(reset):
    network, x = busy_network(layers=LAYERS, batch_norm=True, reset=reset), frames()
    ours, logits = parity.network_spikes(network, x, torch.float64)
    theirs, outputs = run_stepwise(Stock(network), x)
    assert list(ours) == ["lif1", "lif2a", "lif2", "lif3a", "lif3", "lif5"] == list(network.neurons())
    for name, spikes in ours.items():
        assert spikes.sum() > 100 and torch.equal(spikes, theirs[f"layers.{name}"]), name
    torch.testing.assert_close(outputs.mean(0), logits)


def test_membranes_of_every_layer_of_a_block_have_a_gradient():
    network, membranes = busy_network(layers="4c3s4-4r-8"), {}
    network(frames(3, 2), membranes=membranes)
    assert list(membranes) == list(network.neurons())
    membranes["lif2"].sum().backward()
    assert network.layers["conv1"].weight.grad.abs().sum() > 0 and network.layers["readout"].weight.grad is None


@pytest.mark.parametrize(("reset", "batch_norm", "layers"), itertools.product(
    ["zero", "subtract"], [False, True], [LAYERS, "6c5s2-ap2-6r-10rs2-ap"]))
def test_every_spike_of_a_residual_network_is_kept(reset, batch_norm, layers, tmp_path):
    network = busy_network(layers=layers, reset=reset, batch_norm=batch_norm)
    unfolded = freeze(network, SHAPE)
    write(fold_batchnorm(unfolded), tmp_path / "a.nir")
    graph = read(tmp_path / "a.nir")
    assert not any("norm" in name for name in graph.nodes)
    checked = parity.check_network(network, graph, unfolded, frames())
    assert len(checked.layers) == len(network.neurons()) and all(layer.spikes > 20 for layer in checked.layers)
    assert checked.mismatches == 0 and checked.float32.beyond == 0


@pytest.mark.parametrize(("reset", "layers"), [("subtract", LAYERS), ("zero", "6c4s2p0-ap2-6r-10rs2-ap")])
def test_a_residual_network_runs_on_loihi2_and_in_onnx_as_its_graph_says(reset, layers, tmp_path):
    """After pooling, a shortcut and two convolutions take in the pooling of one layer."""
    network, x = busy_network(layers=layers, reset=reset, batch_norm=True), frames(8, 4)
    graph = freeze(network, SHAPE)
    folded, wanted = fold(graph), reference.run(graph, x).spikes
    assert all(torch.equal(spikes, wanted[name]) for name, spikes in reference.run(folded, x).spikes.items())
    integer, rows = lower(graph, x, chips.LOIHI2, scale="max_abs")
    assert not [violation for violation in rules.check(integer, chips.LOIHI2.integers) if violation.severity == "error"]
    exact, onnx = loihi2.run(integer, x).spikes, onnx_runtime.run(integer, x).spikes
    assert len(rows) == len(wanted)
    for row in rows:
        assert row.spikes == wanted[row.layer].sum() > 20 and row.mismatches < 0.35 * row.spikes
        assert torch.equal(onnx[row.layer], exact[row.layer])
    with pytest.raises(HardspikeError, match=r"layer 'lif.': is fed over 2 connections .*run it on loihi2"):
        write_net(integer, tmp_path / "a.net")


def test_spikes_straight_into_neurons_get_a_weight_of_one():
    """Of any number of axes, flattened, scaled or delayed on the way; a reset's loop is left as it is."""
    one, shape = np.ones((2, 3, 3)), np.ones(18)
    nodes = {"input": nir.Input({"input": np.array([2, 3, 3])}), "a": nir.Threshold(0.5 * one),
             "delay": nir.Delay(1e-3 * one), "flatten": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1),
             "scale": nir.Scale(0.4 * shape), "b_membrane": nir.LI(4e-3 * shape, 4 * shape, 0 * shape),
             "b": nir.Threshold(shape), "b_reset": nir.Scale(-shape), "output": nir.Output({"output": np.array([18])})}
    edges = [*itertools.pairwise(name for name in nodes if name not in ("b_reset", "output")), ("b", "b_reset"),
             ("b_reset", "b_membrane"), ("b", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": 1e-3}, type_check=False)
    x = (torch.rand(30, 4, 2, 3, 3) < 0.5).float()
    folded = fold(graph)
    added = {name for name in folded.nodes if name not in nodes}
    assert added == {"input_to_a", "scale_to_b_membrane"} and isinstance(folded.nodes["b_reset"], nir.Scale)
    assert not split(plan(folded)).problems
    wanted, got = reference.run(graph, x).spikes, reference.run(folded, x).spikes
    assert all(wanted[name].sum() > 100 and torch.equal(got[name], wanted[name]) for name in "ab")


def test_tdbn_gives_currents_of_the_threshold_s_standard_deviation():
    """Over batch and time; where a branch and a convolved shortcut meet, each has its share of the variance."""
    network = build(NetworkConfig(layers=LAYERS, batch_norm=True, threshold=0.6), SHAPE, 10).train()
    deviations = {}
    for name, layer in network.layers.items():
        if name.startswith("norm"):
            layer.register_forward_hook(lambda *call, name=name: deviations.__setitem__(
                name, call[2].transpose(0, 1).flatten(1).std(1)))
    network(frames())
    meeting = {"norm2b", "norm3b", "norm3s"}
    assert meeting < set(deviations)
    for name in ("norm1", "norm2a", *meeting):
        expected = 0.6 / math.sqrt(2) if name in meeting else 0.6
        torch.testing.assert_close(deviations[name], torch.full_like(deviations[name], expected), rtol=0.01, atol=0)


def learned_leaks(**options) -> Network:
    """Each layer has a leak of its own; two are outside [0, 1], as a step of the optimiser may leave them."""
    network = busy_network(learn_beta=True, **options)
    for neuron, beta in zip(network.neurons().values(), (0.83, 1.02, -0.01), strict=True):
        neuron.beta.data.fill_(beta)
    return network


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_learned_leaks_train_and_are_kept(reset, tmp_path):
    network = learned_leaks(reset=reset)
    network(frames()).sum().backward()
    assert all(neuron.beta.grad is not None for neuron in network.neurons().values())
    assert network.layers["lif1"].beta.grad != 0
    graph = freeze(network, SHAPE)
    write(graph, tmp_path / "a.nir")
    checked = parity.check_network(network, read(tmp_path / "a.nir"), graph, frames())
    assert checked.mismatches == 0 and checked.float32.beyond == 0 and min(la.spikes for la in checked.layers) > 100


def test_theory_takes_the_worst_layer_and_names_what_it_does_not_cover():
    network = learned_leaks()
    report = theory.report(network, hard=False)
    assert report["q_loose"] == max(theory.contraction(neuron)[0] for neuron in network.neurons().values())
    assert "leak is learned" in report["why_not"]
    assert "branches meet in sums" in theory.report(busy_network(layers="4c3s4-4r-8"), hard=False)["why_not"]


def test_presets():
    """Parameters on CIFAR-10 and CIFAR10-DVS: ResNet-18's 11.17 million and VGGSNN's 9.27 of the literature; VGG-16's
    and ResNet-19's counted from their tables: kernels, two values a normalised channel, the readout's biases."""
    sizes = {preset: sum(p.numel() for p in build(NetworkConfig(layers=preset, batch_norm=True), (
        (2, 48, 48) if preset == "vggsnn" else (3, 32, 32)), 10).parameters()) for preset in PRESETS}
    assert sizes["resnet18"] == 11_173_962 and round(sizes["vggsnn"], -4) == 9_270_000

    def convolutions(*channels, shortcut=()):
        pairs = [(9, *pair) for pair in itertools.pairwise(channels)] + [(1, *pair) for pair in shortcut]
        return sum(area * one * other + 2 * other for area, one, other in pairs)

    dense = 512 * 512 + 2 * 512
    assert sizes["vgg16"] == convolutions(3, *[64] * 2, *[128] * 2, *[256] * 3, *[512] * 6) + 2 * dense + 5130
    assert sizes["resnet19"] == convolutions(3, *[128] * 7, *[256] * 6, *[512] * 4,
                                             shortcut=[(128, 256), (256, 512)]) + 512 * 256 + 512 + 2570


@pytest.mark.parametrize(("layers", "message"), [
    ("64r-128", "64r comes first"), ("64-64r", "64r comes after a dense layer"), ("8c3-0r", "are 1 or more"),
    ("8c3-8rs0", "are 1 or more"), ("8c3-8rx", "cannot read '8rx'"), ("8c3-ap0", "are 1 or more"),
    ("reset19", "did you mean 'resnet19'")])
def test_refused_descriptions(layers, message):
    with pytest.raises(UsageError, match=message):
        build(NetworkConfig(layers=layers), SHAPE, 10)
