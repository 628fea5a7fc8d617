"""The order of execution of a graph with loops: which edges carry the value of the step before.

NIR's edges are instantaneous, so a loop in discrete time needs one edge that is a step late, and NIR does not say
which. The rule here: **a loop is cut where it is entered.** The edges that lead from inside a strongly connected
component into the one node through which the component is entered from outside are the delayed ones. That is what
the writers mean: snnTorch's RLeaky and RSynaptic, norse's recurrent cells and the NIR paper's Braille networks
write `fc -> LIF -> w_rec -> LIF` (the neuron gets w_rec of its last spikes), and a subtracting reset reads
`fc -> LI -> Threshold -> Scale(-theta) -> LI` (the threshold is subtracted in the step after the spike).
"""

from dataclasses import dataclass

import networkx as nx
import nir

from hardspike import HardspikeError, few
from targets.graph.shapes import array

DEEPEST = 50
"""Loops within loops."""


@dataclass(frozen=True)
class Edge:
    """`delayed`: the target gets what the source gave in the step before (before the first step nothing has fired)."""

    source: str
    target: str
    delayed: bool = False


def schedule(nodes: dict[str, nir.NIRNode],
             edges: list[tuple[str, str]]) -> tuple[list[str], list[Edge], list[list[str]]]:
    """Order `nodes` and mark the edges that close a loop.

    Returns:
        the names in order, the edges, and the strongly connected components in order (each in order inside).

    Raises:
        HardspikeError: a node cannot be reached from the Input, or a loop is entered at several nodes.
    """
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(nodes)
    source = next(name for name, node in nodes.items() if isinstance(node, nir.Input))
    unreachable = set(nodes) - nx.descendants(graph, source) - {source}
    if unreachable:
        raise HardspikeError(f"node '{min(unreachable)}': no way leads to it from Input '{source}'; "
                             "connect it or remove it")
    # A Delay of a step or more reads the past by itself: a loop through it is already cut there.
    waiting = {name for name, node in nodes.items() if isinstance(node, nir.Delay) and (array(node.delay) > 0).all()}
    components = [set(component) for component in nx.strongly_connected_components(graph)]
    delayed: set[tuple[str, str]] = set()
    inside: list[list[str]] = []
    for component in components:
        if len(component) == 1 and not graph.has_edge(*component, *component):  # in no loop, as most are
            inside.append([*component])
            continue
        loop = graph.subgraph(component).copy()
        loop.remove_edges_from([edge for edge in loop.edges if edge[1] in waiting])
        cut = _cut(loop, graph)
        delayed |= cut
        loop.remove_edges_from(cut)
        inside.append(list(nx.lexicographical_topological_sort(loop)))
    condensed = nx.condensation(graph, components)
    groups = [inside[index] for index in nx.lexicographical_topological_sort(condensed, key=lambda i: min(inside[i]))]
    names = [name for group in groups for name in group]
    return names, [Edge(a, b, (a, b) in delayed) for a, b in edges], groups


def _cut(loop: nx.DiGraph, graph: nx.DiGraph, depth: int = 0) -> frozenset[tuple[str, str]]:
    """The edges to delay so that `loop`, a part of `graph`, has no cycle left."""
    cut: frozenset[tuple[str, str]] = frozenset()
    for component in nx.strongly_connected_components(loop):
        inner = loop.subgraph(component)
        if nx.is_directed_acyclic_graph(inner):
            continue
        if depth > DEEPEST:
            raise HardspikeError(f"loop {few(sorted(component))}: lies in {depth} other loops, at most {DEEPEST}; put "
                                 "a nir.Delay of one step into the edges that are late")
        entries = sorted({b for a, b in graph.in_edges(component) if a not in component})
        choices = {}
        for entry in entries:  # one after the other: two that differ end the search
            choices[entry] = _cut_at(inner, entry, graph, depth)
            if choices[entry] != choices[entries[0]]:
                raise HardspikeError(
                    f"loop {' -> '.join(sorted(component)[:6])}{' -> ...' * (len(component) > 6)}: it is entered at "
                    f"{few(entries)}, and NIR does not say which edge is a step late; let it be entered at one node, "
                    "or put a nir.Delay of one step into the edge that is late")
        cut |= choices[entries[0]]
    return cut


def _cut_at(loop: nx.DiGraph, entry: str, graph: nx.DiGraph, depth: int) -> frozenset[tuple[str, str]]:
    rest = loop.copy()
    cut = frozenset(loop.in_edges(entry))
    rest.remove_edges_from(cut)
    return cut | _cut(rest, graph, depth + 1)
