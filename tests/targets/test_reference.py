"""The float64 reference against the recordings of the NIR paper and against stock snnTorch."""

from itertools import pairwise

import nir
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from hardspike import HardspikeError
from targets import reference
from targets.graph import read

DT = 1e-4


def lif(beta: float, threshold: float, shape: tuple, reset: float = 0.0) -> nir.LIF:
    tau = DT / (1 - beta)
    return nir.LIF(np.full(shape, tau), np.full(shape, tau / DT), np.zeros(shape), np.full(shape, threshold),
                   np.full(shape, reset))


def subtracting(prefix: str, beta: float, threshold: float, shape: tuple) -> tuple[dict, list]:
    """snnTorch's reset "subtract" in pure NIR: nodes and the edges of the loop."""
    tau = DT / (1 - beta)
    nodes = {f"{prefix}.li": nir.LI(np.full(shape, tau), np.full(shape, tau / DT), np.zeros(shape)),
             f"{prefix}.spike": nir.Threshold(np.full(shape, threshold)),
             f"{prefix}.reset": nir.Scale(np.full(shape, -threshold))}
    names = list(nodes)
    return nodes, [*pairwise(names), (names[2], names[0])]


def conv_node(conv: nn.Conv2d) -> nir.Conv2d:
    return nir.Conv2d(None, conv.weight.detach().numpy(), conv.stride, conv.padding, conv.dilation, conv.groups,
                      conv.bias.detach().numpy())


def graph_of(nodes: dict, edges: list, shape: tuple, last: str, size: int, **metadata) -> nir.NIRGraph:
    nodes = {"input": nir.Input(np.array(shape)), **nodes, "output": nir.Output(np.array([size]))}
    return nir.NIRGraph(nodes, [*edges, (last, "output")], metadata=metadata, type_check=False)


def test_spikes_of_the_nir_paper_where_every_exact_simulator_has_them(shared_data):
    current = torch.from_numpy(np.loadtxt(shared_data / "nir_lif" / "lif_exact.csv", delimiter=",")[:, 0])
    recording = reference.run(read(shared_data / "nir_lif" / "lif_norse.nir"), current.reshape(-1, 1, 1))
    assert recording.spikes["1"].flatten().nonzero().flatten().tolist() == [460, 510, 710, 760]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("case", [dict(kernel_size=3, stride=2, padding=1),
                                  dict(kernel_size=(5, 3), stride=(1, 2), padding=(2, 0), dilation=(1, 2), groups=2),
                                  dict(kernel_size=(2, 4), padding="same"), dict(kernel_size=3, padding="valid")])
def test_equals_stock_snntorch_in_every_spike(reset, case):
    torch.set_default_dtype(torch.float64)
    try:
        conv = nn.Conv2d(2, 6, **case)
        spikes = (torch.rand(25, 3, 2, 9, 8) < 0.3).double()
        shape = tuple(conv(spikes[0]).shape[1:])
        dense = nn.Linear(int(np.prod(shape)), 7)
        neurons = [snntorch.Leaky(beta=b, threshold=t, reset_mechanism=reset) for b, t in ((0.9, 0.4), (0.77, 0.3))]
        states = [neuron.init_leaky() for neuron in neurons]
        expected = [[], []]
        for frame in spikes:
            first, states[0] = neurons[0](conv(frame), states[0])
            second, states[1] = neurons[1](dense(first.double().flatten(1)), states[1])
            expected[0].append(first.detach())
            expected[1].append(second.detach())
    finally:
        torch.set_default_dtype(torch.float32)
    layers = {"conv": conv_node(conv), "flatten": nir.Flatten(None, 0, -1),
              "dense": nir.Affine(dense.weight.detach().numpy(), dense.bias.detach().numpy())}
    if reset == "zero":
        nodes = {**layers, "a": lif(0.9, 0.4, shape), "b": lif(0.77, 0.3, (7,))}
        edges = [("input", "conv"), ("conv", "a"), ("a", "flatten"), ("flatten", "dense"), ("dense", "b")]
        names = ["a", "b"]
    else:
        (a, a_edges), (b, b_edges) = subtracting("a", 0.9, 0.4, shape), subtracting("b", 0.77, 0.3, (7,))
        nodes = {**layers, **a, **b}
        names = ["a.spike", "b.spike"]
        edges = [("input", "conv"), ("conv", "a.li"), *a_edges, ("a.spike", "flatten"), ("flatten", "dense"),
                 ("dense", "b.li"), *b_edges]
    recording = reference.run(graph_of(nodes, edges, (2, 9, 8), names[1], 7), spikes)
    assert list(recording.spikes) == names
    for name, want in zip(names, expected, strict=True):
        want = torch.stack(want)
        assert 0.02 < want.mean() < 0.9
        assert torch.equal(recording.spikes[name], want.to(torch.uint8))


def test_current_based_neuron_is_snntorchs_synaptic():
    alpha, beta = 0.8, 0.9
    neuron = snntorch.Synaptic(alpha=alpha, beta=beta, threshold=50.0, reset_mechanism="none")
    spikes = (torch.rand(40, 2, 5) < 0.3).double()
    syn = mem = torch.zeros(2, 5, dtype=torch.float64)
    want = []
    for frame in spikes:
        _, syn, mem = neuron(frame, syn, mem)
        want.append(mem)
    tau_syn, tau = DT / (1 - alpha), DT / (1 - beta)
    node = nir.CubaLI(*(np.array([value]) for value in (tau_syn, tau, tau / DT, 0.0)), w_in=np.array([tau_syn / DT]))
    recording = reference.run(graph_of({"li": node}, [("input", "li")], (5,), "li", 5), spikes)
    torch.testing.assert_close(recording.output, torch.stack(want).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nested", [True, False])
def test_recurrent_layer_is_snntorchs_rleaky(nested):
    """As snnTorch's exporter writes it: a subgraph, or nirtorch's dotted names. The bias acts from step 0 on."""
    torch.manual_seed(1)
    layer = snntorch.RLeaky(beta=0.8, linear_features=6, reset_mechanism="none", threshold=3.0).double()
    current = torch.rand(30, 2, 6, dtype=torch.float64)
    spk, mem = layer.init_rleaky()
    want = []
    for frame in current:
        spk, mem = layer(frame, spk.double(), mem.double())
        want.append(spk.detach())
    weights = nir.Affine(layer.recurrent.weight.detach().numpy(), layer.recurrent.bias.detach().numpy())
    tau = DT / (1 - 0.8)
    inner = {"lif": nir.LI(np.full(6, tau), np.full(6, tau / DT), np.zeros(6)), "spike": nir.Threshold(np.full(6, 3.0)),
             "w_rec": weights}
    inner_edges = [("lif", "spike"), ("spike", "w_rec"), ("w_rec", "lif")]
    if nested:
        sub = nir.NIRGraph({"input": nir.Input(np.array([6])), **inner, "output": nir.Output(np.array([6]))},
                           [("input", "lif"), *inner_edges, ("spike", "output")], type_check=False)
        graph = graph_of({"r": sub}, [("input", "r")], (6,), "r", 6)
    else:
        nodes = {f"r.{name}": node for name, node in inner.items()}
        graph = graph_of(nodes, [("input", "r.lif"), *((f"r.{a}", f"r.{b}") for a, b in inner_edges)], (6,),
                         "r.spike", 6)
    recording = reference.run(graph, current)
    assert 0.05 < torch.stack(want).mean() < 0.95
    assert torch.equal(recording.spikes["r.spike"], torch.stack(want).to(torch.uint8))


def test_branches_sum_and_a_delay_shifts():
    nodes = {"a": nir.Linear(np.eye(3)), "b": nir.Scale(np.array([2.0])), "late": nir.Delay(np.array([0, DT, 3 * DT]))}
    edges = [("input", "a"), ("input", "b"), ("a", "late"), ("b", "late")]
    x = torch.rand(6, 2, 3, dtype=torch.float64)
    output = reference.run(graph_of(nodes, edges, (3,), "late", 3), x).output
    assert torch.equal(output[:, :, 0], 3 * x[:, :, 0])
    assert torch.equal(output[1:, :, 1], 3 * x[:-1, :, 1])
    assert torch.equal(output[3:, :, 2], 3 * x[:-3, :, 2]) and not output[:3, :, 2].any()


def test_a_delay_in_a_loop_is_the_only_delay_of_that_loop():
    """x(t) + y(t-2): the loop is cut at the Delay, not at its entry a second time."""
    nodes = {"sum": nir.Scale(np.array([1.0])), "late": nir.Delay(np.array([2 * DT]))}
    x = torch.zeros(7, 1, 1)
    x[0] = 1
    graph = graph_of(nodes, [("input", "sum"), ("sum", "late"), ("late", "sum")], (1,), "sum", 1)
    assert reference.run(graph, x).output.flatten().tolist() == [1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("steps", [1.5, 1e-4])
def test_a_delay_between_two_steps_is_refused(steps):
    graph = graph_of({"late": nir.Delay(np.array([steps * DT]))}, [("input", "late")], (1,), "late", 1)
    with pytest.raises(HardspikeError, match=r"node 'late' \(Delay\): .* is not a whole number of steps"):
        reference.run(graph, torch.zeros(3, 1, 1))


def test_pools_and_flatten_are_torchs():
    x = torch.rand(4, 2, 3, 7, 6, dtype=torch.float64)
    for pool, factor in ((nir.AvgPool2d, 1), (nir.SumPool2d, 6)):
        nodes = {"pool": pool(np.array([3, 2]), np.array([2, 2]), np.array([1, 0])), "flat": nir.Flatten(None, 0, -1)}
        graph = graph_of(nodes, [("input", "pool"), ("pool", "flat")], (3, 7, 6), "flat", 36)
        want = nn.functional.avg_pool2d(x.flatten(0, 1), (3, 2), 2, (1, 0)).flatten(1).unflatten(0, (4, 2)) * factor
        torch.testing.assert_close(reference.run(graph, x).output, want)


def test_membrane_is_what_is_compared_with_the_threshold():
    recording = reference.run(graph_of({"n": lif(0.9, 1.0, (4,), reset=-0.5)}, [("input", "n")], (4,), "n", 4),
                              torch.rand(30, 2, 4), membrane=True)
    assert recording.spikes["n"].any()
    assert torch.equal(recording.spikes["n"], (recording.membrane["n"] > 1.0).to(torch.uint8))


def test_step_length_comes_from_the_file_the_caller_or_the_graph():
    one = torch.ones(1, 1, 1)
    integrate = {"n": nir.IF(np.array([1.0]), np.array([0.5]))}
    edges = [("input", "n")]
    assert reference.run(graph_of(integrate, edges, (1,), "n", 1), one).spikes["n"].all()  # counts in steps: dt = 1
    per_second = {"n": nir.IF(np.array([1e4]), np.array([0.5]))}  # spikingjelly: r = 1/dt
    assert reference.run(graph_of(per_second, edges, (1,), "n", 1), one).spikes["n"].all()
    assert not reference.run(graph_of(per_second, edges, (1,), "n", 1, dt=1e-5), one).spikes["n"].any()
    with pytest.raises(HardspikeError, match=r"written for 1e-05 s, asked is 0.001 s"):
        reference.run(graph_of(per_second, edges, (1,), "n", 1, dt=1e-5), one, dt=1e-3)
    in_steps = nir.LIF(*(np.array([value]) for value in (20.0, 1.0, 0.0, 1.0)))
    with pytest.raises(HardspikeError, match=r"node 'n' .*200000 steps slow.*--dt 1"):
        reference.run(graph_of({"n": in_steps}, edges, (1,), "n", 1), one)
    reference.run(graph_of({"n": in_steps}, edges, (1,), "n", 1), one, dt=1.0)
