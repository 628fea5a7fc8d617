"""Give every neuron linear nodes of its own: a scale belongs to one layer."""

import nir

from export.passes.rewrite import Edit
from targets.graph import LINEAR


def separate(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The same graph with a copy of its own for each node that a linear node feeds."""
    edit = Edit(graph)
    for name, node in graph.nodes.items():
        if isinstance(node, LINEAR):
            edit.split(name)
    return edit.graph()
