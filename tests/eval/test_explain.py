"""Ten pairs of runs that part for a known reason, and what is said of them."""

import copy
import itertools
import re

import nir
import numpy as np
import pytest
import torch

from eval.commands.explain import explain
from eval.explain import edits
from eval.explain.measure import Ran, measure
from eval.explain.reduce import reduce, size
from eval.explain.smallest import smallest
from export.recordings import Recordings
from hardspike import UsageError
from targets import metadata, reference
from targets.graph import read, write
from targets.table import TARGETS
from tests import random_graphs

DT = 1e-3
STEPS = 20


def lif(*shape: int, tau: float = 8.0, theta: float = 1.0, dt: float = DT) -> nir.LIF:
    full = np.full(shape, tau * dt)
    return nir.LIF(full, full / dt, np.zeros(shape), np.full(shape, theta), np.zeros(shape))


def chain(*nodes: nir.NIRNode, shape=(6,), dt: float = DT, extra=()) -> nir.NIRGraph:
    """Nodes in a row, called by their kind and place; `extra`: edges between these names."""
    named = {"input": nir.Input(np.array(shape))}
    named |= {f"{type(node).__name__.lower()}{i}": node for i, node in enumerate(nodes, 1)}
    named["output"] = nir.Output(None)
    return nir.NIRGraph(named, [*itertools.pairwise(named), *extra], metadata={"dt": dt}, type_check=False)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.15, 0.5, shape)


def frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return (torch.rand(STEPS, 3, *shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def why(one, other, x, targets=("reference", "reference"), y=None):
    runs = [Ran(name, graph, TARGETS[target], given) for name, graph, target, given in
            zip("AB", (one, other), targets, (x, x if y is None else y), strict=True)]
    return measure(*runs)


def changed(graph: nir.NIRGraph, name: str, **values) -> nir.NIRGraph:
    node = copy.copy(graph.nodes[name])
    for key, value in values.items():
        setattr(node, key, value)
    return nir.NIRGraph({**graph.nodes, name: node}, graph.edges, metadata=graph.metadata, type_check=False)


def dense() -> nir.NIRGraph:
    return chain(nir.Affine(weights(6, 6), weights(6, seed=3) / 5), lif(6), nir.Affine(weights(6, 6, seed=2),
                 np.zeros(6)), lif(6))


def subtracting(theta: float = 1.0) -> nir.NIRGraph:
    tau = np.full(6, 8 * DT)
    made = chain(nir.Affine(weights(6, 6), weights(6, seed=3) / 5), nir.LI(tau, tau / DT, np.zeros(6)),
                 nir.Threshold(np.full(6, theta)))
    made.nodes["reset"] = nir.Scale(np.full(6, -theta))
    made.edges += [("threshold3", "reset"), ("reset", "li2")]
    return made


def lost_reset():
    zero = chain(nir.Affine(weights(6, 6), weights(6, seed=3) / 5), lif(6))
    zero.nodes["threshold3"] = zero.nodes.pop("lif2")
    zero.edges = [tuple("threshold3" if end == "lif2" else end for end in edge) for edge in zero.edges]
    return subtracting(), zero, frames(6)


def tau_times_dt():
    one = dense()
    return one, nir.NIRGraph(one.nodes, one.edges, metadata={"dt": DT * 0.1}, type_check=False), frames(6)


def transposed_kernel():
    conv = nir.Conv2d(None, weights(4, 2, 3, 3), 1, 1, 1, 1, np.zeros(4))
    one = chain(conv, lif(4, 5, 5), shape=(2, 5, 5))
    return one, changed(one, "conv2d1", weight=conv.weight.swapaxes(2, 3).copy()), frames(2, 5, 5)


def recurrent(late: bool) -> nir.NIRGraph:
    made = chain(nir.Linear(weights(6, 6)), lif(6))
    made.nodes["rec"] = nir.Affine(weights(6, 6, seed=4) / 3, np.full(6, 0.4))
    made.edges += [("lif2", "rec")]
    if late:
        made.nodes["late"] = nir.Delay(np.full(6, DT))
        made.edges += [("rec", "late"), ("late", "lif2")]
    else:
        made.edges += [("rec", "lif2")]
    return made


def swapped_layers():
    one = dense()
    a, b = one.nodes["affine1"], one.nodes["affine3"]
    return one, nir.NIRGraph({**one.nodes, "affine1": b, "affine3": a}, one.edges, metadata=one.metadata,
                             type_check=False), frames(6)


def missing_delay():
    one = chain(nir.Linear(weights(6, 6)), lif(6), nir.Delay(np.full(6, 2 * DT)), nir.Linear(weights(6, 6, seed=2)),
                lif(6))
    two = nir.NIRGraph({name: node for name, node in one.nodes.items() if name != "delay3"},
                       [("input", "linear1"), ("linear1", "lif2"), ("lif2", "linear4"), ("linear4", "lif5"),
                        ("lif5", "output")], metadata=one.metadata, type_check=False)
    return one, two, frames(6)


def clipped_weight():
    one = dense()
    weight = one.nodes["affine3"].weight
    return one, changed(one, "affine3", weight=np.clip(weight, -0.4, 0.4)), frames(6)


def wrong_leak():
    one = dense()
    return one, changed(one, "lif4", tau=np.full(6, 5 * DT), r=np.full(6, 5.0)), frames(6)


PAIRS = {"reset": (lost_reset, r"takes 1 off, a step later in A, a spike sets the membrane to 0 in B"),
         "leak: tau dt": (tau_times_dt, r"tau is 8 steps of dt = 0.001 s\) in A, .*tau is 80 steps of dt = 0.0001 s\)"),
         "weight: kernel": (transposed_kernel, "B has every kernel with height and width swapped"),
         "order: recurrent bias": (lambda: (recurrent(False), recurrent(True), frames(6)), "begins 1 step later in B"),
         "leak": (wrong_leak, "0.875 of the membrane is kept a step .* in A, 0.8 "),
         "order: layers": (swapped_layers, "A's 'affine1' is B's 'affine3'"),
         "weight: clipped": (clipped_weight, r"of 36 clipped to -0.4 .. 0.4; A's go to -1.0\d+ .. 1"),
         "delay": (missing_delay, "2 steps in A, none in B")}


@pytest.mark.parametrize("name", PAIRS)
def test_the_cause_is_named(name):
    make, words = PAIRS[name]
    one, other, x = make()
    found = why(one, other, x)
    assert found.first and found.first.cause == name.split(":")[0], found.first
    assert re.search(words, found.first.words), found.first.words


def test_another_input():
    one, x = dense(), frames(6)
    y = x.clone()
    y[3, 1, 4] = 1 - y[3, 1, 4]
    found = why(one, one, x, y=y).first
    assert found.cause == "input" and found.sample == 1 and "first at step 3, (4,)" in found.words


def test_a_tie_in_float32():
    """0.1 ten times is 1 in neither precision, and on either side of it."""
    dt = 1.0
    one = chain(nir.Linear(np.full((1, 1), 0.1)), nir.IF(np.ones(1), np.ones(1), np.zeros(1)), shape=(1,), dt=dt)
    found = why(one, one, torch.ones(12, 1, 1), ("reference", "onnxruntime")).first
    assert found.cause == "rounding" and found.step in (9, 10)
    assert abs(found.membranes[0] - 1) < 1e-6 and abs(found.membranes[1] - 1) < 1e-6


def test_the_spike_and_its_terms_by_hand():
    """w = 3 and 5 of one input, threshold 4: B fires at once, A in the second step."""
    graphs = [chain(nir.Affine(np.array([[w]]), np.array([0.5])), lif(1, tau=2.0, theta=4.0), shape=(1,))
              for w in (3.0, 5.0)]
    found = why(*graphs, torch.ones(4, 1, 1))
    first = found.first
    assert (first.sample, first.step, first.layers, first.neuron) == (0, 0, ("lif2", "lif2"), (0,))
    assert first.fired == (False, True) and first.membranes == (3.5, 5.5) and first.thresholds == (4.0, 4.0)
    assert [(pair.kind, pair.node, pair.one, pair.other) for pair in first.terms] == [
        ("kept", "lif2", 0.0, 0.0), ("reset", "lif2", 0.0, 0.0), ("weights", "affine1", 3.0, 5.0),
        ("bias", "affine1", 0.5, 0.5), ("remainder", "lif2", 0.0, 0.0)]
    assert first.cause == "weight" and "1 of 1 differ, most at (0, 0): 3 in A, 5 in B" in first.words
    assert found.spikes == (2, 4) and found.samples == 1


def test_a_threshold_and_a_bias():
    one = dense()
    found = why(one, changed(one, "lif2", v_threshold=np.full(6, 1.2)), frames(6)).first
    assert found.cause == "threshold" and found.words.startswith("1 in A, 1.2 in B")
    moved = changed(one, "affine1", bias=one.nodes["affine1"].bias + 0.1)
    assert why(one, moved, frames(6)).first.cause == "bias"


def test_equal_runs():
    found = why(dense(), dense(), frames(6))
    assert found.first is None and found.differ == 0 and found.spikes[0] == found.spikes[1] > 0


def test_integers_against_floats_is_rounding():
    """A chip rounds the leak of its membranes towards zero."""
    for seed in range(20):
        graph, shape = random_graphs.graph(seed)
        x = torch.from_numpy(random_graphs.frames(seed, 16, 4, shape)).float()
        found = why(graph, graph, x, ("reference", "loihi2")).first
        if found:
            assert found.cause == "rounding", (seed, found)
            return
    raise AssertionError("no graph parts")


@pytest.mark.parametrize("name", ["reset", "weight: kernel", "delay"])
def test_the_smallest_pair_still_parts(name, tmp_path):
    one, other, x = PAIRS[name][0]()
    runs = [Ran("A", one, TARGETS["reference"], x), Ran("B", other, TARGETS["reference"], x)]
    said = smallest(*runs, measure(*runs), tmp_path / "small", seconds=15)
    graphs = [read(tmp_path / f"small.{letter}.nir") for letter in "ab"]
    x = torch.from_numpy(np.load(tmp_path / "small.npz")["spikes"])
    assert why(*graphs, x).first.cause == name.split(":")[0]
    assert size(graphs[0]) <= 5 and x.shape[1] == 1 and "small.a.nir" in said
    assert x.shape[0] <= STEPS // 2


def test_reduce_keeps_what_happens_and_drops_the_rest():
    """Two neurons fire together only through one weight of a branch among many."""
    def happens(graphs, frames):
        return bool(reference.run(graphs[0], torch.from_numpy(frames)).output.any())

    def record(graph, frames):
        return {k: v.numpy() for k, v in reference.run(graph, torch.from_numpy(frames)).spikes.items()}

    graphs, x = reduce((dense(),), frames(6).double().numpy(), happens, record, 10)
    assert size(graphs[0]) <= 2 and x.shape[:2] == (1, 1) and x.sum() <= 1


def test_a_layer_that_becomes_the_input_leaves_its_reset_behind():
    one = np.ones(1)
    nodes = {"input": nir.Input(np.array([1])), "w": nir.Linear(np.ones((1, 1))), "li": nir.LI(one, one, one),
             "th": nir.Threshold(one), "reset": nir.Scale(-one), "v": nir.Linear(np.ones((1, 1))),
             "last": nir.Threshold(one), "output": nir.Output(np.array([1]))}
    edges = [("input", "w"), ("w", "li"), ("li", "th"), ("th", "reset"), ("reset", "li"), ("th", "v"), ("v", "last"),
             ("last", "output")]
    cut = edits.from_node(nir.NIRGraph(nodes, edges, type_check=False), "th", (1,))
    assert list(cut.nodes) == ["input", "v", "last", "output"]
    assert sorted(cut.edges) == [("input", "v"), ("last", "output"), ("v", "last")]


def test_the_command(tmp_path, capsys):
    one, other, x = wrong_leak()
    for name, graph in (("a", one), ("b", other)):
        write(graph, tmp_path / f"{name}.nir")
    np.savez(tmp_path / "x.npz", spikes=x.numpy())
    given = Recordings(input=tmp_path / "x.npz")
    found = explain(tmp_path / "a.nir", tmp_path / "b.nir", recordings=given, reduce=tmp_path / "small",
                    json=tmp_path / "x.json")
    out = capsys.readouterr().out
    assert found.first.cause == "leak" and "cause: leak: 0.875 of the membrane" in out
    assert f"layer '{found.first.layers[0]}'" in out and "kept of the membrane" in out and "smallest: " in out
    assert (tmp_path / "x.json").is_file() and (tmp_path / "small.b.nir").is_file()
    explain(tmp_path / "a.nir", tmp_path / "a.nir", "reference,onnxruntime", recordings=given)
    assert "equal, " in capsys.readouterr().out
    with pytest.raises(UsageError, match="one model on one target is one run"):
        explain(tmp_path / "a.nir", tmp_path / "a.nir", recordings=given)
    with pytest.raises(UsageError, match="one for both, or two"):
        explain(tmp_path / "a.nir", tmp_path / "b.nir", "reference,loihi1,loihi2", recordings=given)
    assert metadata.dt(read(tmp_path / "small.a.nir")) == DT
