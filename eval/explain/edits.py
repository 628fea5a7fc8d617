"""Edits that make a graph smaller: each gives another graph, or None where there is nothing of the kind to edit.

Graphs are without nesting (`export.passes.rewrite.flatten`). What comes out need not be a graph that anything runs.
"""

import copy
from collections.abc import Callable

import networkx as nx
import nir
import numpy as np
import torch

from export.passes.rewrite import Edit
from targets.graph import LINEAR, STATELESS, Graph, parameters, plan
from targets.graph.shapes import array, expand
from targets.nodes import stateless

Change = Callable[[np.ndarray], np.ndarray]
MOST_TAPS = 1 << 20
"""Weights of a layer that is written as a matrix."""
VALUES = ("weight", "bias", "v_leak", "v_reset", "delay", "scale", "v_threshold", "threshold")
"""Parameters that are made simpler."""


def up_to_node(graph: Graph, name: str) -> Graph | None:
    """What `name` hangs on, its value at the Output."""
    if name not in graph.nodes:
        return None
    edit, outlet = Edit(graph), _end(graph, nir.Output)
    needed = nx.ancestors(nx.DiGraph(edit.edges), name) | {name}
    edit.nodes = {key: node for key, node in edit.nodes.items() if key in needed} | {outlet: nir.Output(None)}
    edit.edges = [edge for edge in edit.edges if set(edge) <= needed and outlet not in edge] + [(name, outlet)]
    return edit.graph()


def from_node(graph: Graph, name: str, shape: tuple[int, ...]) -> Graph | None:
    """What hangs on `name` alone, which becomes the Input, and leads to the Output; `name`'s own reset does not."""
    if name not in graph.nodes:
        return None
    edit, inlet = Edit(graph), _end(graph, nir.Input)
    del edit.nodes[name], edit.nodes[inlet]
    edit.nodes = {inlet: nir.Input(np.array(shape)), **edit.nodes}
    edit.edges = [(inlet if a == name else a, b) for a, b in edit.edges if name != b and inlet != a]
    outlet = _end(graph, nir.Output)
    if all(b != outlet for _, b in edit.edges):
        return None
    leading = nx.ancestors(nx.DiGraph(edit.edges), outlet) | {inlet, outlet}
    edit.nodes = {key: node for key, node in edit.nodes.items() if key in leading}
    edit.edges = [edge for edge in edit.edges if set(edge) <= leading]
    return _reachable(edit)


def without_node(graph: Graph, name: str, joined: bool) -> Graph | None:
    """Without a node and what it alone feeds; or, `joined`, what fed it feeds what it fed."""
    if name not in graph.nodes:
        return None
    edit = Edit(graph)
    if joined:
        edit.bypass(name)
        edit.edges = list(dict.fromkeys(edit.edges))
    else:
        del edit.nodes[name]
        edit.edges = [edge for edge in edit.edges if name not in edge]
    return _reachable(edit)


def without_edge(graph: Graph, edge: tuple[str, str]) -> Graph | None:
    """Without an edge and what only it reached."""
    edit = Edit(graph)
    if edge not in edit.edges:
        return None
    edit.edges.remove(edge)
    return _reachable(edit)


def flat_axes(graph: Graph) -> Graph | None:
    """The same graph with one axis everywhere, convolutions and poolings as matrices; None where it has one already."""
    layout = plan(graph)
    if all(len(shape) == 1 for shape in layout.input_shape.values()):
        return None
    edit = Edit(graph)
    for name, node in layout.nodes.items():
        shape = layout.input_shape[name]
        inputs = int(np.prod(shape))
        if isinstance(node, nir.Flatten):
            edit.bypass(name)
        elif isinstance(node, nir.Input):
            edit.nodes[name] = nir.Input(np.array([inputs]))
        elif isinstance(node, nir.Output):
            edit.nodes[name] = nir.Output(None)
        elif isinstance(node, STATELESS) and not isinstance(node, nir.Scale | nir.Linear | nir.Affine):
            if inputs * int(np.prod(layout.output_shape[name])) > MOST_TAPS:
                return None
            edit.nodes[name] = _matrix(name, node, shape)
        elif not isinstance(node, nir.Linear | nir.Affine):
            edit.nodes[name] = _changed(node, {
                key: np.broadcast_to(expand(name, value, shape), shape).ravel() for key, value in parameters(node)})
    return edit.graph()


def populations(graph: Graph) -> dict[str, tuple[list[str], int]]:
    """The nodes, neuron for neuron alike, that each node but the linear ones belongs to, and how many neurons it is.

    Raises:
        HardspikeError: `plan` refuses the graph.
    """
    layout = plan(graph)
    sides = _sides(graph)
    return {name: ([member for member, side in sides[name, "out"] if side == "out" and not _is_linear(graph, member)],
                   int(np.prod(layout.output_shape[name])))
            for name in graph.nodes if not _is_linear(graph, name)}


def keep_neurons(graph: Graph, name: str, kept: list[int]) -> Graph | None:
    """Only the neurons `kept` of the population of `name`, in a graph of one axis."""
    if name not in graph.nodes:
        return None
    edit, members = Edit(graph), _sides(graph)[name, "out"]
    for key, node in graph.nodes.items():
        if isinstance(node, nir.Linear | nir.Affine):
            changed = {}
            weight = array(node.weight)
            if (key, "in") in members:
                weight = weight[:, kept]
            if (key, "out") in members:
                weight = weight[kept]
                if isinstance(node, nir.Affine):
                    changed["bias"] = np.broadcast_to(array(node.bias), len(array(node.weight)))[kept]
            edit.nodes[key] = _changed(node, {**changed, "weight": weight})
        elif (key, "out") in members:
            if isinstance(node, nir.Input):
                edit.nodes[key] = nir.Input(np.array([len(kept)]))
            elif isinstance(node, nir.Output):
                edit.nodes[key] = nir.Output(None)
            else:
                edit.nodes[key] = _changed(node, {name: value if value.size == 1 else value[kept]
                                                  for name, value in parameters(node)})
    return edit.graph()


def changes(count: int) -> list[Change]:
    """From all of a parameter's values zero to one of them, then rounder ones."""
    def zero(part: slice | int) -> Change:
        def change(values: np.ndarray) -> np.ndarray:
            values = values.copy()
            values.ravel()[part] = 0
            return values
        return change

    found = [zero(slice(None)), zero(slice(count // 2)), zero(slice(count // 2, None))]
    found += [zero(i) for i in range(count if count <= 32 else 0)]
    return [*found, np.sign, np.round, lambda values: np.full_like(values, values.flat[0])]


def with_values(graph: Graph, name: str, key: str, change: Change) -> Graph | None:
    """One parameter changed; None where that changes nothing."""
    if name not in graph.nodes or key not in vars(graph.nodes[name]):
        return None
    node = graph.nodes[name]
    values = array(getattr(node, key)).astype(np.float64)
    made = change(values)
    if np.array_equal(made, values):
        return None
    edit = Edit(graph)
    edit.nodes[name] = _changed(node, {key: made})
    return edit.graph()


# ------------------------------------------------------------------------------------------------------ helpers


def _end(graph: Graph, kind: type) -> str:
    return next(name for name, node in graph.nodes.items() if isinstance(node, kind))


def _is_linear(graph: Graph, name: str) -> bool:
    return isinstance(graph.nodes[name], LINEAR)


def _reachable(edit: Edit) -> Graph | None:
    """The graph without what no way leads to; None where that is the Output."""
    inlet = next((name for name, node in edit.nodes.items() if isinstance(node, nir.Input)), None)
    ways = nx.DiGraph(edit.edges)
    if inlet is None or inlet not in ways:
        return None
    reached = nx.descendants(ways, inlet) | {inlet}
    edit.nodes = {name: nir.Output(None) if isinstance(node, nir.Output) else node
                  for name, node in edit.nodes.items() if name in reached}
    edit.edges = [edge for edge in edit.edges if set(edge) <= reached]
    return edit.graph() if any(isinstance(node, nir.Output) for node in edit.nodes.values()) else None


def _matrix(name: str, node: nir.NIRNode, shape: tuple[int, ...]) -> nir.Affine:
    """A node without a state as a matrix over flat values."""
    inputs = int(np.prod(shape))
    unit = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *shape)
    weight = stateless.apply(name, node, unit, shape, bias=False).flatten(1).T.numpy().copy()
    bias = stateless.apply(name, node, torch.zeros_like(unit[:1]), shape).flatten().numpy().copy()
    return nir.Affine(weight, bias) if bias.any() else nir.Linear(weight)


def _changed(node: nir.NIRNode, values: dict[str, np.ndarray]) -> nir.NIRNode:
    """A copy with other parameters; its shapes are found anew."""
    made = copy.copy(node)
    for key, value in values.items():
        setattr(made, key, value)
    if isinstance(made, nir.Linear | nir.Affine):
        return type(made)(*(array(getattr(made, key)) for key in ("weight", "bias") if hasattr(made, key)))
    return made


def _sides(graph: Graph) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """(node, in or out) -> all sides that hold the same neurons."""
    joined = nx.Graph()
    for name in graph.nodes:
        joined.add_nodes_from([(name, "in"), (name, "out")])
        if not _is_linear(graph, name):
            joined.add_edge((name, "in"), (name, "out"))
    joined.add_edges_from(((a, "out"), (b, "in")) for a, b in graph.edges)
    return {side: component for component in nx.connected_components(joined) for side in component}
