"""The naive interpreter against every target's own programs, on graphs from the generator; and the generator itself."""

import nir
import numpy as np
import pytest
import torch

from hardspike import HardspikeError
from targets import loihi2, reference
from tests.conform import grow, naive

COUNT = 60


@pytest.mark.parametrize("kind", grow.KINDS)
def test_every_kind_of_graph_runs_and_is_what_the_naive_interpreter_says(kind):
    spiking = refused = 0
    for number in range(COUNT // 6):
        case, target = grow.case(0, number, kind), loihi2 if kind in grow.INTEGERS else reference
        try:
            found = target.run(case.graph, torch.from_numpy(case.frames), membrane=True)
        except HardspikeError:  # sums beyond 24 bits, loops that are entered at two nodes
            refused += 1
            continue
        wanted = naive.run(case.graph, case.frames, case.dt, case.integers)
        assert set(found.spikes) == set(wanted.spikes)
        for name, spikes in wanted.spikes.items():
            np.testing.assert_array_equal(found.spikes[name].flatten(2).numpy(), spikes)
            if kind != "floats":
                np.testing.assert_array_equal(found.membrane[name].flatten(2).numpy(), wanted.membrane[name])
        np.testing.assert_allclose(found.output.flatten(2).numpy(), wanted.output)
        spiking += any(spikes.any() for spikes in wanted.spikes.values())
    assert spiking >= COUNT // 12 and refused <= COUNT // 30


def test_the_generator_makes_every_node_and_option():
    cases = [grow.case(0, number) for number in range(400)]
    nodes = [node for case in cases for node in case.graph.nodes.values()]
    kinds = {type(node) for node in nodes}
    assert kinds == {nir.Input, nir.Output, nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.SumPool2d,
                     nir.AvgPool2d, nir.Flatten, nir.Scale, nir.Delay, nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold,
                     nir.LI, nir.I, nir.CubaLI}
    assert any(len({*map(float, np.ravel(node.delay))}) > 1 for node in nodes if isinstance(node, nir.Delay))
    assert any(np.any(node.v_reset) for node in nodes if isinstance(node, nir.LIF))
    assert any(np.any(node.v_leak) for node in nodes if isinstance(node, nir.LIF))
    assert any(node.groups > 1 for node in nodes if isinstance(node, nir.Conv2d))
    assert any(node.padding == "same" for node in nodes if isinstance(node, nir.Conv2d))
    assert {case.kind for case in cases} == set(grow.KINDS)
    assert any(case.frames.max(initial=0) > 255 for case in cases if case.kind == "wide")
    rows = [case.graph.nodes[b] for case in cases for a, b in case.graph.edges
            if isinstance(case.graph.nodes[a], grow.SUMS) and isinstance(case.graph.nodes[b], nir.Conv1d | nir.Conv2d)]
    assert any(np.max(node.dilation) > 1 and not np.any(node.padding) for node in rows if node.padding != "same")
    assert any(name.startswith("back") for case in cases for name in case.graph.nodes)


def test_a_seed_and_a_number_are_one_graph():
    one, other = grow.case(3, 17), grow.case(3, 17)
    assert np.array_equal(one.frames, other.frames) and list(one.graph.nodes) == list(other.graph.nodes)
    assert grow.case(4, 17).frames.shape != one.frames.shape or grow.case(4, 17).kind != one.kind


def test_naive_reset_leak_and_tie():
    """By hand: v' = v/2 + 2 meets 4 from below and never passes it; 3 is passed in the third step."""
    def spikes(theta, reset=0.0):
        node = nir.LIF(np.array([2.0]), np.array([2.0]), np.array([0.0]), np.array([theta]), np.array([reset]))
        graph = nir.NIRGraph({"input": nir.Input(np.array([1])), "n": node, "output": nir.Output(None)},
                             [("input", "n"), ("n", "output")], type_check=False)
        return naive.run(graph, np.full((5, 1, 1), 2.0), 1.0).spikes["n"].ravel().tolist()

    assert spikes(4.0) == [0, 0, 0, 0, 0]
    assert spikes(3.0) == [0, 0, 1, 0, 0]
    assert spikes(3.0, reset=3.0) == [0, 0, 1, 1, 1]
    assert spikes(2.0) == [0, 1, 0, 1, 0]
