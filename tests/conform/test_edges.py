"""What `make mutants` showed that nothing looked at: edges of 24 bits, odd convolutions, in every form of the code."""

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi2, native
from targets.graph import plan
from targets.loihi.c import file, selftest
from targets.loihi.layers import split
from tests.conform import naive
from tests.targets.test_fixed_point import DT, neuron

pytestmark = pytest.mark.skipif(not native.compilers(), reason="no C compiler")


def branches(shape: tuple[int, ...], *parts: tuple[nir.NIRNode, tuple]) -> nir.NIRGraph:
    """Input, then side by side: a linear node, what `neuron` gives, and a matrix of ones to the Output."""
    nodes, edges = {"input": nir.Input(np.array(shape))}, []
    for i, (linear, (inner, inner_edges, entry)) in enumerate(parts):
        exit_ = next(name for name in inner if "." not in name)
        size = int(np.prod(np.shape(inner[exit_].v_threshold if hasattr(inner[exit_], "v_threshold")
                                    else inner[exit_].threshold)))
        nodes |= {f"w{i}": linear, **inner, f"flat{i}": nir.Flatten(None, 0, -1), f"out{i}": nir.Linear(
            np.ones((1, size)))}
        edges += [("input", f"w{i}"), (f"w{i}", entry), *inner_edges, (exit_, f"flat{i}"), (f"flat{i}", f"out{i}"),
                  (f"out{i}", "output")]
    nodes["output"] = nir.Output(None)
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT}, type_check=False)


def all_forms(graph: nir.NIRGraph, x: np.ndarray, monkeypatch, c: bool = True) -> dict:
    """The naive interpreter's membranes, which torch, the simulator's C and (counts to 255) the exported C share."""
    wanted = naive.run(graph, x, DT, integers=True)
    for kernel in ("torch", "native"):
        monkeypatch.setenv("HARDSPIKE_KERNEL", kernel)
        found = loihi2.run(graph, torch.from_numpy(x), membrane=True)
        for name in wanted.spikes:
            np.testing.assert_array_equal(found.spikes[name].flatten(2).numpy(), wanted.spikes[name], name)
            np.testing.assert_array_equal(found.membrane[name].flatten(2).numpy(), wanted.membrane[name], name)
    if c:
        written = file.write(split(plan(graph)), "net", max(1, int(x.max())))
        seen = selftest.run(written, torch.from_numpy(x), native.compilers()[0])
        for name in wanted.spikes:
            np.testing.assert_array_equal(seen.spikes[name].numpy(), wanted.spikes[name], name)
            if name in seen.states:  # after the reset
                quiet = wanted.spikes[name] == 0
                np.testing.assert_array_equal(seen.states[name].numpy()[quiet], wanted.membrane[name][quiet], name)
    return wanted.membrane


def test_a_current_at_the_edge_of_24_bits(monkeypatch):
    """64 * 131072 = 2^23 stands above zero and is wrapped below: in one step, and through a synaptic current."""
    weight = np.array([[128.0], [-128.0], [127.0]])
    graph = branches((1,), (nir.Linear(weight - 1 * (weight == 128)), neuron("a", (3,), 5, 131071, False)),
                     (nir.Linear(np.array([[64.0], [-64.0], [-128.0]])), neuron("b", (3,), 7, 131071, False, 4000)))
    x = np.array([2048, 0, 1024, 2047, 2048, 2048, 1])[:, None, None]
    membranes = all_forms(graph, x, monkeypatch, c=False)
    assert {2**23 - 1} <= {*membranes["b"].ravel().astype(int)}
    ones = np.full((3, 2048), 64.0) * np.array([[1], [-1], [1]])
    graph = branches((2048,), (nir.Linear(ones), neuron("a", (3,), 5, 131071, False)))
    x = np.ones((3, 1, 2048), int)
    x[1, 0, 5] = 0
    membranes = all_forms(graph, x, monkeypatch)
    assert (membranes["a"][0, 0] == 2**23 - 1).all()  # also the negative one, which comes round


def test_a_membrane_whose_product_leaves_32_bits(monkeypatch):
    """Nothing wraps, so membranes are kept in 32 bits; a membrane of 2 million times 3686 is not."""
    weight = np.full((2, 40), 127.0) * np.array([[1], [-1]])
    graph = branches((40,), (nir.Linear(weight), neuron("a", (2,), 410, 131071, False)))
    membranes = all_forms(graph, np.ones((14, 1, 40), int), monkeypatch)
    assert 2e6 < np.abs(membranes["a"]).max() < 2**23


def test_currents_that_one_wrap_does_not_bring_back(monkeypatch):
    weight = np.full((2, 16), 127.0) * np.array([[1], [-1]])
    graph = branches((16,), (nir.Linear(weight), neuron("a", (2,), 300, 131071, False, 2)))
    x = np.random.default_rng(0).integers(150, 256, (12, 1, 16))
    assert x.sum(2).min() * 127 > 1 << 18  # in 64ths more than 2^24, which float32 does not hold
    all_forms(graph, x, monkeypatch, c=False)  # for any number of steps it is refused
    long = np.full((400, 1, 16), 255)
    with pytest.raises(HardspikeError, match=r"its current may reach .* within 400 steps, where 32 bits hold 33554431"):
        loihi2.run(graph, torch.from_numpy(long))


def test_a_current_that_one_wrap_brings_back_runs_for_any_time(monkeypatch):
    weight = np.full((2, 8), 127.0) * np.array([[1], [-1]])
    graph = branches((8,), (nir.Linear(weight), neuron("a", (2,), 300, 131071, False, 2)))
    x = np.full((600, 1, 8), 255)  # 255 * 8 * 127 * 64 * 600 without a wrap: 4.6 times 2^31
    membranes = all_forms(graph, x, monkeypatch)
    assert membranes["a"].max() == 2**23 - 1 and membranes["a"].min() == 1 - 2**23


def test_odd_convolutions_side_by_side(monkeypatch):
    """Every pair of stride and dilation, kernels of even and odd sides, 'same' with even kernels."""
    rng, parts = np.random.default_rng(0), []
    shape = (2, 9, 10)
    for i, (stride, dilation, kernel, padding) in enumerate([
            ((1, 1), (2, 1), (3, 2), (0, 1)), ((2, 1), (3, 2), (2, 3), (1, 0)), ((1, 2), (2, 3), (3, 2), (2, 1)),
            ((3, 2), (2, 2), (2, 2), (1, 1)), ((2, 3), (1, 2), (4, 3), (0, 2)), ((1, 1), (1, 1), (2, 4), "same"),
            ((1, 1), (2, 3), (2, 2), "same"), ((2, 2), (3, 3), (2, 2), (2, 2))]):
        weight = rng.integers(-90, 128, (3, 2, *kernel)).astype(float)
        conv = nir.Conv2d(None, weight, stride, padding, dilation, 1, np.zeros(3))
        sides = shape[1:] if padding == "same" else [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(shape[1:], padding, dilation, kernel, stride, strict=True)]
        parts.append((conv, neuron(f"n{i}", (3, *sides), 410, 150, i % 2 == 0)))
    x = (rng.random((6, 2, *shape)) < 0.3).astype(int)
    membranes = all_forms(branches(shape, *parts), x, monkeypatch)
    assert all((m > 150 * 64).any() for m in membranes.values())


def test_a_readout_that_hears_spikes_late(monkeypatch):
    nodes, edges, entry = neuron("n", (4,), 410, 60, False)
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(np.full((4, 3), 50.0)), **nodes,
             "late": nir.Delay(np.full(4, 2 * DT)),
             "out": nir.Affine(np.arange(8.0).reshape(2, 4), np.array([3.0, -1])),
             "output": nir.Output(None)}
    edges += [("input", "w"), ("w", entry), ("n", "late"), ("late", "out"), ("out", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": DT}, type_check=False)
    x = (np.random.default_rng(0).random((9, 2, 3)) < 0.5).astype(int)
    wanted = naive.run(graph, x, DT, integers=True)
    seen = selftest.run(file.write(split(plan(graph)), "net", 1), torch.from_numpy(x), native.compilers()[0])
    np.testing.assert_array_equal(seen.output.numpy(), wanted.output)
    monkeypatch.setenv("HARDSPIKE_KERNEL", "torch")
    np.testing.assert_array_equal(loihi2.run(graph, torch.from_numpy(x)).output.numpy(), wanted.output)
    assert not np.array_equal(wanted.output[2], wanted.output[0])
