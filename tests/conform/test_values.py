"""What `make mutants` showed that nothing looked at: how parameters are read and folded."""

import itertools

import nir
import numpy as np
import pytest
import torch

from export.passes.bias_cells import bias_cells
from export.passes.fold_gain import fold_gain
from export.passes.fold_pooling import fold_pooling
from export.passes.merge_linear import merge_linear
from targets import reference
from targets.graph import plan
from tests.conform import naive


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode, dt: float = 1e-4) -> nir.NIRGraph:
    named = {"input": nir.Input(np.array(shape)), **{f"n{i}": node for i, node in enumerate(nodes)},
             "output": nir.Output(None)}
    return nir.NIRGraph(named, [*itertools.pairwise(named)], metadata={"dt": dt}, type_check=False)


def frames(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (9, 2, *shape)).astype(float)


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_delay_in_float32_is_of_as_many_steps(steps):
    """2e-4 in float32 is 1.9999999 steps of 1e-4."""
    graph = chain((3,), nir.Delay(np.full(3, steps * 1e-4, np.float32)), nir.Threshold(np.full(3, 0.5)))
    x = frames(3)
    found = reference.run(graph, torch.from_numpy(x)).spikes["n1"].numpy()
    assert np.array_equal(found[steps:], x[:-steps]) and not found[:steps].any()


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 5)])
def test_one_number_a_channel(shape):
    """An array of as many numbers as there are channels, and what it is laid out."""
    scale = np.arange(1.0, shape[0] + 1)
    found = [reference.run(chain(shape, nir.Scale(values)), torch.from_numpy(frames(*shape))).output for values in
             (scale, scale.reshape(-1, *(1,) * (len(shape) - 1)))]
    assert torch.equal(*found)
    wanted = naive.run(chain(shape, nir.Scale(scale)), frames(*shape), 1e-4).output
    np.testing.assert_array_equal(found[0].flatten(2).numpy(), wanted)


def test_a_factor_a_channel_before_a_grouped_convolution():
    """Each group sees the channels of its own."""
    weight = np.arange(1.0, 1 + 6 * 2 * 2).reshape(6, 2, 2, 1)
    conv = nir.Conv2d(None, weight, 1, 0, 1, 3, np.zeros(6))
    scale = np.broadcast_to(np.array([1.0, 2, 4, 8, 16, 32])[:, None, None], (6, 4, 3)).copy()
    graph = chain((6, 4, 3), nir.Scale(scale), conv, nir.Threshold(np.full((6, 3, 3), 100.0)))
    folded = fold_gain(graph)
    assert "n0" not in folded.nodes
    x = torch.from_numpy(frames(6, 4, 3))
    one, other = reference.run(graph, x, membrane=True), reference.run(folded, x, membrane=True)
    assert one.spikes["n2"].any() and torch.equal(one.membrane["n2"], other.membrane["n2"])


def test_two_dense_layers_in_a_row_and_their_biases():
    """W2 (W1 x + b1) + b2."""
    graph = chain((3,), nir.Affine(np.arange(12.0).reshape(4, 3) - 5, np.array([1.0, -2, 3, 4])),
                  nir.Affine(np.arange(8.0).reshape(2, 4) - 3, np.array([7.0, -9])), nir.Threshold(np.zeros(2)))
    assert_merged(graph, frames(3))


@pytest.mark.parametrize("stride, dilation", [((2, 1), (1, 2)), ((1, 2), (2, 1)), ((3, 2), (1, 1))])
def test_two_convolutions_in_a_row(stride, dilation):
    """The second one's taps lie apart by its dilation times the first one's stride."""
    weight = np.arange(1.0, 25).reshape(2, 3, 2, 2) - 9
    graph = chain((3, 12, 11), nir.Conv2d(None, weight, stride, 0, 1, 1, np.array([2.0, -3])),
                  nir.Conv2d(None, weight[:, :2], 1, 0, dilation, 1, np.array([5.0, 1])))
    layout = reference.run(graph, torch.zeros(1, 1, 3, 12, 11)).output.shape[2:]
    graph.nodes["fire"] = nir.Threshold(np.zeros(layout))
    graph.edges = [("input", "n0"), ("n0", "n1"), ("n1", "fire"), ("fire", "output")]
    assert_merged(graph, frames(3, 12, 11))


def assert_merged(graph: nir.NIRGraph, x: np.ndarray) -> None:
    merged = merge_linear(graph)
    assert len(merged.nodes) == len(graph.nodes) - 1
    one, other = (reference.run(part, torch.from_numpy(x), membrane=True).membrane for part in (graph, merged))
    name, = one
    assert one[name].abs().max() > 10 and torch.equal(one[name], other[name])


def test_a_delay_of_what_lies_channels_last():
    """As spikes come from a chip's compiled code, to the host that reads them out."""
    graph = chain((2, 3, 4), nir.Delay(np.full((2, 3, 4), 2e-4)))
    x = torch.from_numpy(frames(2, 3, 4))
    values = {name: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) for name in ("input",)}
    reference.run_node(plan(graph), "n0", values)
    assert torch.equal(values["n0"][2:], x[:-2]) and not values["n0"][:2].any()


@pytest.mark.parametrize("conv", [False, True])
def test_a_resting_potential_and_a_gain_go_into_weights_and_bias(conv):
    """gain*(W x + b) + rest."""
    shape, size = ((2, 3, 3), (4, 3, 3)) if conv else ((3,), (4,))
    weight = np.arange(8.0).reshape(4, 2, 1, 1) - 3 if conv else np.arange(12.0).reshape(4, 3) - 5
    bias = np.arange(4.0) - 2
    linear = nir.Conv2d(None, weight, 1, 0, 1, 1, bias) if conv else nir.Affine(weight, bias)
    tau = np.full(size, 4e-4)
    graph = chain(shape, linear, nir.LIF(tau, tau / 1e-4 * 2, np.full(size, 8.0), np.full(size, 7.0), np.zeros(size)))
    assert_same(graph, fold_gain(graph), frames(*shape), "n1")


def test_an_average_over_a_kernel_that_is_no_square():
    weight = np.arange(1.0, 13).reshape(3, 2, 2, 1) * 6 - 30
    pool = nir.AvgPool2d(np.array([3, 2]), np.array([3, 2]), np.array([0, 0]))
    graph = chain((2, 9, 6), pool, nir.Conv2d(None, weight, 1, 0, 1, 1, np.zeros(3)),
                  nir.Threshold(np.zeros((3, 2, 3))))
    folded = fold_pooling(graph)
    assert "n0" not in folded.nodes
    assert_same(graph, folded, frames(2, 9, 6), "n2", 1e-12)


def test_a_convolution_that_pads_behind_one_of_single_pixels():
    """What it pads is what the first one, without a bias, gives there."""
    first = nir.Conv2d(None, np.arange(6.0).reshape(3, 2, 1, 1) - 2, 1, 0, 1, 1, np.zeros(3))
    second = nir.Conv2d(None, np.arange(54.0).reshape(2, 3, 3, 3) - 20, 1, (1, 1), 1, 1, np.array([1.0, -2]))
    graph = chain((2, 5, 4), first, second, nir.Threshold(np.zeros((2, 5, 4))))
    assert_merged(graph, frames(2, 5, 4))


@pytest.mark.parametrize("conv", [False, True])
def test_a_bias_before_a_synaptic_current_comes_of_a_cell_that_always_fires(conv):
    shape, size = ((2, 3, 3), (2, 3, 3)) if conv else ((3,), (2,))
    weight = np.ones((2, 2, 1, 1)) if conv else np.ones((2, 3))
    bias, tau, zero = np.array([3.0, -4]), np.full(size, 2e-4), np.zeros(size)
    linear = nir.Conv2d(None, weight, 1, 0, 1, 1, bias) if conv else nir.Affine(weight, bias)
    graph = chain(shape, linear, nir.CubaLIF(tau, tau, zero + 2, zero, zero + 4, zero, zero + 2))
    made = bias_cells(graph)
    assert len(made.nodes) > len(graph.nodes)
    assert_same(graph, made, frames(*shape), "n1")


def assert_same(one: nir.NIRGraph, other: nir.NIRGraph, x: np.ndarray, name: str, tolerance: float = 0.0) -> None:
    """Membranes of a layer that fires, and not always."""
    first, second = (reference.run(graph, torch.from_numpy(x), membrane=True) for graph in (one, other))
    assert 0 < first.spikes[name].double().mean() < 1
    torch.testing.assert_close(second.membrane[name], first.membrane[name], rtol=0, atol=tolerance)
