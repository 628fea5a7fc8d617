"""Lowering: gains fold exactly; a quantised graph is integer, valid, within limits, and near the float one."""

import itertools
import json

import nir
import numpy as np
import pytest
import torch

from export.freeze.freeze import freeze
from export.passes.fold_gain import fold_gain
from export.passes.lower import fold, lower
from hardspike import HardspikeError, UsageError
from targets import reference
from targets.graph import plan, read, write
from targets.loihi import chips, fixed_point, rules
from targets.loihi.layers import split
from tests.networks import SHAPE, busy_network, frames


def graph_of(nodes: dict) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False, metadata={"dt": 1e-3})


def random(*shape) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape)


def foreign(kind: str) -> nir.NIRGraph:
    """A graph as other tools write it: gains other than 1, resting potentials, Scale nodes."""
    one, shape = np.ones(6), np.ones((4, 5, 5))
    nodes = {"input": nir.Input({"input": np.array([2, 5, 5])})}
    conv = nir.Conv2d(input_shape=(5, 5), weight=3 * random(4, 2, 3, 3), bias=random(4), stride=1, padding=1,
                      dilation=1, groups=1)
    flat = {"flatten": nir.Flatten(input_type={"input": np.array([4, 5, 5])}, start_dim=0, end_dim=-1)}
    if kind == "lif":  # norse: r = 1, so the input's gain is dt/tau
        nodes |= {"conv": conv, "a": nir.LIF(tau=5e-3 * shape, r=3 * shape, v_leak=0.2 * shape, v_threshold=shape,
                                             v_reset=0 * shape)}
    else:  # sinabs: a Scale, and neurons that do not leak
        nodes |= {"before": nir.Scale(np.broadcast_to([[[2.0]], [[0.5]]], (2, 5, 5)).copy()), "conv": conv,
                  "after": nir.Scale(np.full((4, 5, 5), 0.7)),
                  "a": nir.IF(r=500 * shape, v_threshold=shape, v_reset=0 * shape)}
    nodes |= flat | {"dense": nir.Linear(random(6, 100))}
    if kind == "lif":
        nodes["b"] = nir.CubaLIF(tau_mem=4e-3 * one, tau_syn=2e-3 * one, r=one, v_leak=0 * one, v_threshold=0.3 * one,
                                 v_reset=0 * one, w_in=one)
    else:
        nodes["b"] = nir.LIF(tau=9e-3 * one, r=2 * one, v_leak=0 * one, v_threshold=0.2 * one, v_reset=0 * one)
    return graph_of(nodes | {"output": nir.Output({"output": np.array([6])})})


@pytest.mark.parametrize("kind", ["lif", "if"])
def test_gains_fold_exactly_and_the_graph_lowers(kind):
    graph = foreign(kind)
    x = (torch.rand(30, 8, 2, 5, 5) < 0.4).float()
    folded = fold_gain(graph)
    assert not any(isinstance(node, nir.Scale) for node in folded.nodes.values())
    before, after = reference.run(graph, x).spikes, reference.run(folded, x).spikes
    assert all(torch.equal(before[name], after[name]) and before[name].sum() > 50 for name in before)
    integer, rows = lower(graph, x, chips.LOIHI2)
    assert not [v for v in rules.check(integer, chips.LOIHI2.integers) if v.severity == "error"]
    got = fixed_point.run(integer, x, chips.LOIHI2.integers).spikes
    assert all(int((got[row.layer] != before[row.layer]).sum()) == row.mismatches < 0.2 * row.spikes for row in rows)


@pytest.mark.parametrize(("bits", "reset"), [(8, "zero"), (4, "zero"), (8, "subtract"), (3, "subtract")])
def test_a_quantised_graph_is_integer_and_searching_beats_max_abs(bits, reset, tmp_path):
    network = busy_network(layers="6c4s2p0-ap2-8c3-32", reset=reset, batch_norm=True)
    x = frames(8, 8)
    graph = freeze(dict(network.layers), SHAPE)
    mismatches = {}
    for scale in ("max_abs", "searched"):
        integer, rows = lower(graph, x, chips.LOIHI2, bits, scale)
        mismatches[scale] = sum(row.mismatches for row in rows)
    write(integer, tmp_path / "q.nir")
    integer = read(tmp_path / "q.nir")
    info = json.loads(integer.metadata["quantised"])
    assert (info["bits"], info["target"]) == (bits, "Loihi 2")
    for name, node in integer.nodes.items():
        for key in ("weight", "bias", "v_threshold", "threshold", "scale"):
            values = getattr(node, key, None)
            if values is not None:
                assert np.array_equal(values, np.round(values)), (name, key)
        if hasattr(node, "weight"):
            assert len(np.unique(np.abs(node.weight))) <= 2 ** (bits - 1) and np.abs(node.weight).max() <= 127
    assert 0 < mismatches["searched"] < mismatches["max_abs"]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_leaky_reset_says_so_in_the_integer_graph(beta, tmp_path):
    """The loop's Scale is the leak times the threshold, to the last bit, which no reader takes for the threshold."""
    network = busy_network(layers="6c4s2p0-ap2-16", reset="subtract_leaky", beta=beta)
    integer, rows = lower(freeze(dict(network.layers), SHAPE), frames(6, 4), chips.LOIHI2, scale="max_abs")
    write(integer, tmp_path / "q.nir")
    integer = read(tmp_path / "q.nir")
    for name, node in integer.nodes.items():
        if isinstance(node, nir.Scale):
            theta = integer.nodes[name.removesuffix("_reset")].threshold
            assert np.array_equal(-node.scale, theta * round(beta * 4096) / 4096)
    resets = {layer.reset for layer in split(plan(integer)).layers.values()}
    assert resets == {{0.0: "zero", 1.0: "subtract"}.get(beta, "subtract_leaky")}
    assert all(row.mismatches < 0.5 * row.spikes for row in rows)


def test_eight_bits_change_few_spikes_and_the_report_says_how_many():
    network = busy_network(layers="6c4s2p0-ap2-8c3-32", reset="zero")
    x = frames(8, 8)
    graph = freeze(dict(network.layers), SHAPE)
    integer, rows = lower(graph, x, chips.LOIHI1)
    wanted, got = reference.run(fold(graph), x).spikes, fixed_point.run(integer, x, chips.LOIHI1.integers).spikes
    for row in rows:
        assert row.spikes == wanted[row.layer].sum() and row.mismatches == (wanted[row.layer] != got[row.layer]).sum()
        assert row.leak_error < 1 / 4096 and row.mismatches < 0.3 * row.spikes


def test_refusals():
    network = busy_network(layers="6c4s2p0-8c3-32", reset="subtract")
    graph, x = freeze(dict(network.layers), SHAPE), frames(3, 2)
    with pytest.raises(UsageError, match="2 to 8 bits"):
        lower(graph, x, chips.LOIHI2, bits=9)
    with pytest.raises(UsageError, match="did you mean 'max_abs'"):
        lower(graph, x, chips.LOIHI2, scale="maxabs")
    with pytest.raises(HardspikeError, match="train with reset zero"):
        lower(graph, x, chips.LOIHI1)
    leaky = freeze(dict(busy_network(layers="6c4s2p0-8c3-32", reset="subtract_leaky").layers), SHAPE)
    with pytest.raises(HardspikeError, match=r"lif1: reset: .* leaks with .*; Loihi 1 .*; train with reset zero"):
        lower(leaky, x, chips.LOIHI1)
    zero = freeze(dict(busy_network(layers="6c4s2p0-8c3-32", reset="zero").layers), SHAPE)
    zero.nodes["conv1"].bias = zero.nodes["conv1"].bias + 1e6
    with pytest.raises(HardspikeError, match=r"layer 'lif1': no scale brings"):
        lower(zero, x, chips.LOIHI2)


def test_layers_of_one_loop_are_quantised_together():
    def lif(size):
        one = np.ones(size)
        return nir.LIF(tau=5e-3 * one, r=5 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)

    nodes = {"input": nir.Input({"input": np.array([9])}), "in": nir.Linear(2 * random(12, 9)), "a": lif(12),
             "ab": nir.Linear(random(7, 12)), "b": lif(7), "output": nir.Output({"output": np.array([7])})}
    edges = [*itertools.pairwise(nodes), ("b", "ba"), ("ba", "a")]
    graph = nir.NIRGraph(nodes | {"ba": nir.Affine(random(12, 7), 0.1 * random(12))}, edges, metadata={"dt": 1e-3},
                         type_check=False)
    x = (torch.rand(40, 8, 9) < 0.3).float()
    integer, rows = lower(graph, x, chips.LOIHI2)
    wanted, got = reference.run(graph, x).spikes, fixed_point.run(integer, x, chips.LOIHI2.integers).spikes
    assert {row.layer for row in rows} == {"a", "b"} and all(row.spikes > 50 for row in rows)
    assert all(int((wanted[name] != got[name]).sum()) < 0.2 * wanted[name].sum() for name in wanted)


def test_a_linear_node_of_two_layers_is_scaled_for_each():
    def lif(threshold, tau):
        one = np.ones(8)
        return nir.LIF(tau=tau * one, r=1e3 * tau * one, v_leak=0 * one, v_threshold=threshold * one, v_reset=0 * one)

    nodes = {"input": nir.Input({"input": np.array([9])}), "fc": nir.Affine(random(8, 9), 0.1 * random(8)),
             "a": lif(1.0, 5e-3), "b": lif(0.3, 2e-3), "out": nir.Linear(random(3, 8)),
             "output": nir.Output({"output": np.array([3])})}
    edges = [("input", "fc"), ("fc", "a"), ("fc", "b"), ("a", "out"), ("b", "out"), ("out", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": 1e-3}, type_check=False)
    x = (torch.rand(40, 8, 9) < 0.3).float()
    integer, rows = lower(graph, x, chips.LOIHI2, bits=4)
    wanted, got = reference.run(graph, x).spikes, fixed_point.run(integer, x, chips.LOIHI2.integers).spikes
    for row in rows:
        assert row.mismatches == (wanted[row.layer] != got[row.layer]).sum() < 0.2 * row.spikes


def test_a_factor_before_two_linear_layers_goes_into_each():
    one = np.ones(6)
    lif = nir.LIF(tau=5e-3 * one, r=5 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    nodes = {"input": nir.Input({"input": np.array([9])}), "factor": nir.Scale(np.linspace(0.25, 4, 9)),
             "one": nir.Linear(random(6, 9)), "other": nir.Affine(random(6, 9)[::-1].copy(), random(6)), "a": lif,
             "b": lif, "output": nir.Output({"output": np.array([6])})}
    edges = [("input", "factor"), ("factor", "one"), ("factor", "other"), ("one", "a"), ("other", "b"), ("a", "output"),
             ("b", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": 1e-3}, type_check=False)
    x = (torch.rand(30, 8, 9) < 0.3).float()
    folded = fold(graph)
    assert not any(isinstance(node, nir.Scale) for node in folded.nodes.values())
    wanted, got = reference.run(graph, x).spikes, reference.run(folded, x).spikes
    assert all(torch.equal(wanted[name], got[name]) and wanted[name].any() for name in ("a", "b"))
    lower(graph, x, chips.LOIHI2)


def test_summed_readouts_keep_one_unit():
    nodes = {"input": nir.Input({"input": np.array([9])}), "fc": nir.Linear(2 * random(8, 9)),
             "a": nir.Threshold(np.ones(8)), "big": nir.Linear(20 * random(3, 8)), "small": nir.Linear(random(3, 9)),
             "output": nir.Output({"output": np.array([3])})}
    edges = [("input", "fc"), ("fc", "a"), ("a", "big"), ("input", "small"), ("big", "output"), ("small", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": 1e-3}, type_check=False)
    integer, _ = lower(graph, (torch.rand(20, 8, 9) < 0.3).float(), chips.LOIHI2)
    assert np.array_equal(integer.nodes["big"].weight, graph.nodes["big"].weight)


def test_thresholds_are_never_lifted():
    graph = freeze(dict(busy_network(layers="6c4s2p0-8c3-32", reset="zero").layers), SHAPE)
    graph.nodes["lif2"].v_threshold = -graph.nodes["lif2"].v_threshold
    with pytest.raises(HardspikeError, match=r"layer 'lif2': threshold -1"):
        lower(graph, frames(3, 2), chips.LOIHI2)


def test_a_bias_before_a_synaptic_current_and_input_below_zero():
    """What always fires hears the input, which could keep it from it."""
    one = np.ones(2)
    nodes = {"input": nir.Input(np.array([3])), "fc": nir.Affine(random(2, 3), one),
             "n": nir.CubaLIF(4e-3 * one, 4e-3 * one, 4 * one, 0 * one, one, 0 * one, 4 * one),
             "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [*itertools.pairwise(nodes)], metadata={"dt": 1e-3}, type_check=False)
    x = (torch.rand(20, 4, 3) < 0.5).float()
    assert "fc_always" in lower(graph, x, chips.LOIHI2)[0].nodes
    x[4, 1, 0] = -3
    with pytest.raises(HardspikeError, match=r"layer 'fc': its bias comes before a synaptic current.* input of -3"):
        lower(graph, x, chips.LOIHI2)


def test_a_bias_behind_a_membrane_and_before_a_synaptic_current():
    """The membrane may be below zero, and what hears it then does not always fire."""
    one = np.ones(2)
    nodes = {"input": nir.Input(np.array([2])), "leaky": nir.LI(4e-3 * one, 4 * one, 0 * one),
             "fc": nir.Affine(random(2, 2), one),
             "n": nir.CubaLIF(4e-3 * one, 4e-3 * one, 4 * one, 0 * one, one, 0 * one, 4 * one),
             "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [*itertools.pairwise(nodes)], metadata={"dt": 1e-3}, type_check=False)
    with pytest.raises(HardspikeError, match=r"layer 'fc': its bias .* it hears the membrane of 'leaky'"):
        fold(graph)


def test_the_lowest_threshold_is_one_unit():
    """0.009 of the largest weight: 1.1 of its 127 units."""
    one = np.ones(2)
    nodes = {"input": nir.Input(np.array([2])), "fc": nir.Linear(np.eye(2)),
             "n": nir.LIF(4e-3 * one, 4 * one, 0 * one, 0.009 * one, 0 * one), "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [*itertools.pairwise(nodes)], metadata={"dt": 1e-3}, type_check=False)
    integer, _ = lower(graph, torch.ones(4, 2, 2), chips.LOIHI2, scale="max_abs")
    assert (integer.nodes["n"].v_threshold == 1).all()
