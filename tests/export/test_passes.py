"""Passes from NIR graph to NIR graph change nothing that the graph computes."""

import itertools

import nir
import numpy as np
import pytest
import torch

from export.freeze.freeze import freeze
from export.passes.fold_pooling import fold_pooling
from export.passes.lower import fold
from export.passes.merge_linear import merge_linear
from export.passes.rewrite import flatten
from export.passes.weigh import weigh
from hardspike import HardspikeError
from targets import reference
from tests.networks import SHAPE, busy_network, frames


def pooled(*, kernel=2, stride=2, padding=0, sums=False, conv=None, shape=(3, 12, 14)) -> nir.NIRGraph:
    """Input -> pooling -> (convolution | flatten, dense) -> output."""
    random = np.random.default_rng(0).standard_normal
    kind = nir.SumPool2d if sums else nir.AvgPool2d
    pool = kind(kernel_size=np.array([kernel] * 2), stride=np.array([stride] * 2), padding=np.array([padding] * 2))
    side = [(n + 2 * padding - kernel) // stride + 1 for n in shape[1:]]
    nodes = {"input": nir.Input({"input": np.array(shape)}), "pool": pool}
    if conv is not None:
        conv = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **conv}
        weight = random((6, 3 // conv["groups"], 3, 2))
        nodes["conv"] = nir.Conv2d(input_shape=tuple(side), weight=weight, bias=random(6), **conv)
        out = [6, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
                    zip(side, conv["padding"], conv["dilation"], weight.shape[2:], conv["stride"], strict=True))]
    else:
        nodes["flatten"] = nir.Flatten(input_type={"input": np.array([3, *side])}, start_dim=0, end_dim=-1)
        nodes["dense"] = nir.Affine(random((5, 3 * side[0] * side[1])), random(5))
        out = [5]
    nodes["output"] = nir.Output({"output": np.array(out)})
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)


@pytest.mark.parametrize("options", [
    dict(), dict(sums=True), dict(kernel=3, stride=2), dict(kernel=3, stride=3, padding=1), dict(kernel=4, stride=3),
    dict(conv={}), dict(conv={"padding": (1, 1)}), dict(conv={"stride": (2, 1), "padding": (0, 1)}),
    dict(conv={"dilation": (2, 1), "padding": (2, 0)}), dict(conv={"groups": 3}, sums=True),
    dict(kernel=3, stride=2, conv={}), dict(kernel=2, stride=2, padding=1, conv={"stride": (2, 2)}),
    dict(kernel=4, stride=4, conv={}),
])
def test_pooling_folds_exactly(options):
    graph = pooled(**options)
    folded = fold_pooling(graph)
    x = torch.rand(4, 3, 3, 12, 14)
    assert not any("Pool" in type(node).__name__ for node in folded.nodes.values())
    torch.testing.assert_close(reference.run(folded, x).output, reference.run(graph, x).output, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [dict(kernel=3, stride=2, conv={"padding": (1, 1)}),
                                     dict(kernel=4, stride=4, conv={"padding": (0, 1)})])
def test_pooling_whose_border_has_no_exact_form_is_refused(options):
    with pytest.raises(HardspikeError, match=r"layer 'pool' \(AvgPool2d\): the next convolution pads"):
        fold_pooling(pooled(**options))


def test_pooling_in_front_of_a_neuron_is_refused():
    nodes = {name: pooled().nodes[name] for name in ("input", "pool")}
    nodes |= {"fire": nir.Threshold(np.ones((3, 6, 7))), "output": nir.Output({"output": np.array([3, 6, 7])})}
    with pytest.raises(HardspikeError, match="nothing to fold it into"):
        fold_pooling(nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False))


def test_a_network_with_pooling_keeps_its_spikes():
    network = busy_network(layers="6c5s2-ap2-8c3p0-ap2-32", reset="zero")
    graph, x = freeze(dict(network.layers), SHAPE), frames()
    folded = fold_pooling(graph)
    assert len(folded.nodes) == len(graph.nodes) - 2
    before, after = reference.run(graph, x).spikes, reference.run(folded, x).spikes
    assert all(torch.equal(before[name], after[name]) and before[name].sum() > 100 for name in before)


def test_an_identity_matrix_beyond_memory_is_refused_by_name():
    """A picture of as many values takes a weight a channel instead."""
    def straight(*shape: int) -> nir.NIRGraph:
        nodes = {"input": nir.Input(np.array(shape)), "fire": nir.Threshold(np.ones(shape)),
                 "output": nir.Output(np.array(shape))}
        return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)

    with pytest.raises(HardspikeError, match="layer 'fire': 300000 values of 'input' reach it without weights"):
        weigh(straight(300_000))
    assert weigh(straight(3, 100, 1000)).nodes["input_to_fire"].weight.size == 3


@pytest.mark.parametrize("biases", list(itertools.product((np.array(0.5), np.array([0.5]), np.full(3, 0.5)), repeat=2)))
def test_one_bias_for_all_channels_is_merged_as_one_for_each(biases):
    """Two convolutions without a neuron between them; NIR's parameters may be broadcast."""
    draw = np.random.default_rng(0)
    weights = draw.normal(0, 0.5, (3, 2, 3, 3)), draw.normal(0, 0.5, (3, 3, 2, 2))

    def graph(first, second):
        nodes = {"input": nir.Input(np.array([2, 6, 6])), "a": nir.Conv2d((6, 6), weights[0], 1, 0, 1, 1, first),
                 "b": nir.Conv2d((4, 4), weights[1], 1, 0, 1, 1, second),
                 "fire": nir.Threshold(np.full((3, 3, 3), 0.7)),
                 "output": nir.Output(np.array([3, 3, 3]))}
        return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False)

    made = merge_linear(flatten(graph(*biases)))
    spikes = (torch.rand(5, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    exact = reference.run(graph(np.full(3, 0.5), np.full(3, 0.5)), spikes)
    assert sum(isinstance(node, nir.Conv2d) for node in made.nodes.values()) == 1
    assert torch.equal(reference.run(made, spikes).spikes["fire"], exact.spikes["fire"])
    assert 0 < exact.spikes["fire"].float().mean() < 1


@pytest.mark.parametrize("loop", [nir.Scale(np.array([-0.5])), nir.Linear(np.array([[0.5]])),
                                  nir.Delay(np.array([1e-3]))])
def test_a_sum_that_hears_itself_is_refused_by_name(loop):
    nodes = {"input": nir.Input(np.array([1])), "fc": nir.Linear(np.ones((1, 1))), "trace": loop,
             "fires": nir.Threshold(np.ones(1)), "output": nir.Output(None)}
    graph = nir.NIRGraph(nodes, [*itertools.pairwise(nodes), ("trace", "trace")], metadata={"dt": 1e-3},
                         type_check=False)
    with pytest.raises(HardspikeError, match="'trace': a loop without a neuron"):
        fold(graph)
