"""Any graph in Intel's simulator: branches, loops and delays as processes, against `loihi2`."""

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi2
from targets.graph import plan
from targets.lava import runner
from targets.lava.setup import setup
from targets.loihi.latency import latencies
from targets.loihi.layers import split
from targets.table import TARGETS
from tests import lava_naive, random_graphs
from tests.targets.test_fixed_point import DT, neuron


def two_layers(*more, **delays):
    """a -> b, and what `more` edges add; `delays`: name -> (steps, neurons)."""
    (a, a_edges, a_in), (b, b_edges, b_in) = neuron("a", (2,), 410, 3, False), neuron("b", (2,), 410, 3, True)
    nodes = {"input": nir.Input(np.array([2])), **a, **b, "output": nir.Output(None),
             **{name: nir.Linear(np.array([[5.0, 3.0], [-1.0, 4.0]])) for name in ("up", "on", "back", "skip")},
             **{name: nir.Delay(np.full(2, steps * DT)) for name, steps in delays.items()}}
    edges = [("input", "up"), ("up", a_in), ("a", "on"), ("on", b_in), *a_edges, *b_edges, ("b", "output"), *more]
    used = {end for edge in edges for end in edge}
    return nir.NIRGraph({name: node for name, node in nodes.items() if name in used}, edges, metadata={"dt": DT},
                        type_check=False)


SKIP, BACK = [("input", "skip"), ("skip", "b.v")], [("b", "late"), ("late", "back"), ("back", "a")]


def test_ways_of_different_length_are_evened_out(tmp_path):
    network = split(plan(two_layers(*SKIP)))
    assert latencies(network) == {"input": 0, "a": 1, "b": 2}
    network = split(plan(two_layers(*BACK, late=2)))
    assert latencies(network) == {"input": 0, "a": 1, "b": 2}
    with pytest.raises(HardspikeError, match=r"layer '\w': lies in a loop with fewer steps of delay than connections"):
        latencies(split(plan(two_layers(*BACK, late=1))))


def test_loihi2_says_how_long_ways_wait():
    """By the connection that waits longest, and by the loop in which nothing can."""
    def latency(graph):
        return [v for v in loihi2.check(graph) if v.rule == "latency"]

    found, = latency(two_layers(*SKIP))
    assert (found.layer, found.severity) == ("skip", "note") and "waits 1 steps" in found.value
    assert "answers 2 steps late" in found.value and not latency(two_layers()) + latency(two_layers(*BACK, late=2))
    found, = latency(two_layers(*BACK, late=1))
    assert found.severity == "warning" and "fewer steps of delay than connections" in found.value


@pytest.mark.parametrize("seed", [0, 1])
def test_lava_says_what_it_cannot_hold(seed):
    lava = TARGETS["lava"]
    found = lava.check(two_layers(*SKIP))
    assert [violation.severity for violation in found] == ["note"] and "connections" in found[0].value
    assert [violation.severity for violation in lava.check(two_layers(*BACK, late=1))] == ["error"]
    layers = lava_naive.random_layers(np.random.default_rng(seed), (12,))
    assert not lava.check(lava_naive.to_nir(layers, (12,)))


def assert_equal_in_lava(graph, x):
    ours = loihi2.run(graph, x)
    theirs = runner.run_processes(split(plan(graph)), x)
    for name, spikes in ours.spikes.items():
        assert torch.equal(spikes, theirs.spikes[name]), name
    assert torch.equal(ours.output, theirs.output)
    return sum(int(spikes.sum()) for spikes in ours.spikes.values())


@pytest.mark.lava
@pytest.mark.parametrize("graph", [two_layers(*SKIP), two_layers(*BACK, *SKIP, late=2)], ids=["skip", "loop"])
def test_a_skip_and_a_loop_spike_alike(graph):
    setup()
    x = torch.from_numpy((np.random.default_rng(0).random((12, 4, 2)) < 0.5).astype(np.uint8))
    assert assert_equal_in_lava(graph, x)
    found = TARGETS["lava"].run(graph, x)
    assert torch.equal(found.spikes["b"], loihi2.run(graph, x).spikes["b"])


@pytest.mark.lava
@pytest.mark.parametrize("seed", [2, 5])
def test_random_graphs_spike_alike(seed):
    setup()
    graph, shape = random_graphs.graph(seed, "lava")
    assert assert_equal_in_lava(graph, torch.from_numpy(random_graphs.frames(seed, 10, 3, shape)))


@pytest.mark.slow
@pytest.mark.lava
def test_fifty_random_graphs_spike_alike():
    setup()
    spikes, kinds = 0, set()
    for seed in range(100, 150):
        graph, shape = random_graphs.graph(seed, "lava")
        spikes += assert_equal_in_lava(graph, torch.from_numpy(random_graphs.frames(seed, 12, 4, shape)))
        kinds |= {kind for name in graph.nodes for kind in ("late", "rec", "skip") if name.startswith(kind)}
    assert spikes > 10_000 and kinds == {"late", "rec", "skip"}
