"""The same graph written in another way, so that its spikes have to be the same."""

import copy

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import plan
from tests.conform.grow import Case
from tests.conform.naive import TOP

LINEAR = nir.Linear | nir.Affine | nir.Conv1d | nir.Conv2d
SPIKING = nir.IF | nir.LIF | nir.CubaLIF | nir.Threshold


class ElsewhereError(HardspikeError):
    """What is asked is about graphs of another kind."""


def _graph(nodes: dict, edges: list, like: nir.NIRGraph) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, edges, metadata=dict(like.metadata), type_check=False)


def renamed(graph: nir.NIRGraph, rng) -> tuple[nir.NIRGraph, dict[str, str]]:
    """Other names, and nodes and edges in another order; the new names by the old."""
    names = list(graph.nodes)
    new = {name: f"n{i}" for name, i in zip(names, rng.permutation(len(names)), strict=True)}
    nodes = {new[name]: graph.nodes[name] for name in (names[i] for i in rng.permutation(len(names)))}
    edges = [graph.edges[i] for i in rng.permutation(len(graph.edges))]
    return _graph(nodes, [(new[a], new[b]) for a, b in edges], graph), new


def nested(graph: nir.NIRGraph, rng) -> tuple[nir.NIRGraph, dict[str, str]]:
    """Some nodes in subgraphs of their own, some of them in two; the new names by the old."""
    nodes, new = dict(graph.nodes), {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.Input | nir.Output) or rng.random() < 0.6:
            continue
        new[name] = name
        for _ in range(1 + (rng.random() < 0.3)):
            inner = {"in": nir.Input(None), name: nodes[name], "out": nir.Output(None)}
            nodes[name] = nir.NIRGraph(inner, [("in", name), (name, "out")], type_check=False)
            new[name] = f"{name}.{new[name]}"
    return _graph(nodes, list(graph.edges), graph), new


def neutral(graph: nir.NIRGraph, rng, case: Case) -> nir.NIRGraph:
    """Nodes that change nothing on some edges into linear nodes: a chip takes Flatten there, floats anything."""
    layout = plan(graph)
    nodes, edges = dict(graph.nodes), list(graph.edges)
    for a, b in list(edges):
        source, target = graph.nodes[a], graph.nodes[b]
        loops = any(a in group and b in group for group in layout.groups)
        if not isinstance(target, LINEAR) or not isinstance(source, SPIKING | nir.Input) or loops \
                or rng.random() < 0.5:
            continue
        shape = layout.output_shape[a]
        kinds = ["delay"] + ["flatten"] * (len(shape) == 1)
        if not case.integers:
            kinds += ["scale"] + ["matrix"] * (len(shape) == 1) + ["pool"] * (len(shape) == 3)
        kind = kinds[int(rng.integers(len(kinds)))]
        made = {"delay": nir.Delay(np.zeros(shape)), "flatten": nir.Flatten(None, 0, -1),
                "scale": nir.Scale(np.ones(shape)), "matrix": nir.Linear(np.eye(shape[0])),
                "pool": nir.AvgPool2d(np.ones(2, int), np.ones(2, int), np.zeros(2, int))}[kind]
        name = f"neutral{len(nodes)}"
        nodes[name] = made
        edges.remove((a, b))
        edges += [(a, name), (name, b)]
    return _graph(nodes, edges, graph)


def scaled(graph: nir.NIRGraph, rng, case: Case, largest: int = 0) -> nir.NIRGraph:
    """Membranes 2^k times as large: of integers weights, biases and thresholds, of floats gains and thresholds.

    Args:
        largest: of integers, what a sum came to before it was wrapped or clipped (`naive.Run`).

    Raises:
        ElsewhereError: integers with a leak, whose rounding hangs on the unit, or beyond the chip's ranges,
            where sums wrap or saturate among them.
    """
    nodes = dict(graph.nodes)
    if case.integers:
        if any(isinstance(node, nir.LIF | nir.LI | nir.CubaLIF) for node in nodes.values()):
            raise ElsewhereError("of integers without a leak alone")
        if 2 * largest >= TOP:
            raise ElsewhereError("of sums that stay within 24 bits: in another unit others wrap")
        chip = _leading_to_spikes(graph)
        for name in chip:
            node = nodes[name]
            keys = [key for key in ("weight", "bias", "threshold", "v_threshold", "scale") if hasattr(node, key)]
            nodes[name] = _times(node, keys, 2.0)
            threshold = np.max(getattr(node, "v_threshold", getattr(node, "threshold", 0)))
            if threshold > 65_000 or (isinstance(node, LINEAR) and np.abs(node.weight).max() > 63):
                raise ElsewhereError("beyond the chip's ranges")
        return _graph(nodes, list(graph.edges), graph)
    exponent = int(rng.integers(-20, 21))
    for name, node in graph.nodes.items():
        targets = [graph.nodes[b] for a, b in graph.edges if a == name]
        if isinstance(node, nir.LI | nir.I | nir.CubaLI):
            only = all(isinstance(target, nir.Threshold) and sum(
                graph.nodes[b] is target for _, b in graph.edges) == 1 for target in targets)
            if not only or not targets:
                continue
            nodes[name] = _times(node, [key for key in ("r", "v_leak") if hasattr(node, key)], 2.0**exponent)
            for target in (b for a, b in graph.edges if a == name):
                nodes[target] = _times(graph.nodes[target], ["threshold"], 2.0**exponent)
        elif isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
            nodes[name] = _times(node, [key for key in ("r", "v_leak", "v_threshold", "v_reset")
                                        if hasattr(node, key)], 2.0**exponent)
    return _graph(nodes, list(graph.edges), graph)


def _leading_to_spikes(graph: nir.NIRGraph) -> set[str]:
    found = {name for name, node in graph.nodes.items() if isinstance(node, SPIKING)}
    while more := {a for a, b in graph.edges if b in found} - found:
        found |= more
    return found - {name for name, node in graph.nodes.items() if isinstance(node, nir.Input)}


def _times(node: nir.NIRNode, keys: list[str], factor: float) -> nir.NIRNode:
    made = copy.copy(node)
    for key in keys:
        setattr(made, key, np.asarray(getattr(node, key)) * factor)
    return made
