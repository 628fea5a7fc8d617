"""What a pass adds to a graph gets a name that no node has."""

import nir
import numpy as np
import torch

from export.passes.lower import fold
from export.passes.rewrite import Edit
from export.passes.weigh import weigh
from targets import reference
from targets.graph import plan
from targets.table import TARGETS


def shortcut(**names: str) -> nir.NIRGraph:
    """Spikes of `a` reach `b` beside a linear node, which is called `names["w"]`."""
    w = names["w"]
    nodes = {"input": nir.Input(np.array([2])), "a": nir.Threshold(np.full(2, 0.5)),
             w: nir.Linear(np.array([[0.0, 3.0], [2.0, 0.0]])), "b": nir.Threshold(np.full(2, 1.5)),
             "output": nir.Output(np.array([2]))}
    edges = [("input", "v"), ("v", "a"), ("a", w), (w, "b"), ("a", "b"), ("b", "output")]
    nodes["v"] = nir.Linear(np.eye(2))
    return nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}, type_check=False)


def test_a_weight_of_one_does_not_take_the_place_of_a_node_of_its_name():
    spikes = (torch.rand(20, 3, 2) < 0.5).float()
    for name in ("w", "a_to_b"):
        graph = shortcut(w=name)
        folded = weigh(graph)
        assert len(folded.nodes) == len(graph.nodes) + 1
        assert torch.equal(reference.run(folded, spikes).spikes["b"], reference.run(graph, spikes).spikes["b"])
    assert "a_to_b_2" in folded.nodes


def test_a_copy_does_not_take_the_place_of_a_node_of_its_name():
    edit = Edit(shortcut(w="a_for_b"))
    edit.split("a")
    assert set(edit.nodes) == {"input", "v", "a", "a_for_b", "b", "output", "a_for_b_2"}


def test_long_names_stay_names_that_can_be_written():
    one, two = "x" * 110, "y" * 110
    edit = Edit(shortcut(w=one))
    assert len(edit.fresh(f"{one}_to_{two}")) <= 110
    edit.nodes[edit.fresh(one)] = edit.nodes[one]
    plan(fold(shortcut(w=one)))


def test_a_loop_without_neurons_before_a_layer_has_an_end():
    nodes = {"input": nir.Input(np.array([1])), "s": nir.Scale(np.ones(1)), "t": nir.Scale(np.ones(1)),
             "n": nir.Threshold(np.ones(1)), "output": nir.Output(np.array([1]))}
    edges = [("input", "s"), ("s", "t"), ("t", "s"), ("t", "n"), ("n", "output")]
    assert len(weigh(nir.NIRGraph(nodes, edges, type_check=False)).nodes) == 6


def test_a_delay_and_a_node_called_after_its_input_keep_their_states_apart():
    """Both remember one step in ONNX."""
    one = np.ones(1)
    nodes = {"input": nir.Input(np.array([1])), "w": nir.Linear(np.ones((1, 1))), "d": nir.Delay(one * 1e-4),
             "d.input": nir.Threshold(one * 0.5), "back": nir.Linear(np.full((1, 1), -1.0)), "sum": nir.Scale(one),
             "output": nir.Output(np.array([1]))}
    edges = [("input", "w"), ("w", "d.input"), ("d.input", "back"), ("back", "d.input"), ("w", "d"), ("d.input", "sum"),
             ("d", "sum"), ("sum", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": 1e-4}, type_check=False)
    spikes = torch.ones(6, 1, 1)
    assert torch.equal(TARGETS["onnxruntime"].run(graph, spikes).output, reference.run(graph, spikes).output)
