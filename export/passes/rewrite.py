"""Small edits of a NIR graph that the passes share."""

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import plan
from targets.graph.shapes import array, conv_arguments


def flatten(graph: nir.NIRGraph, dt: float | None = None) -> nir.NIRGraph:
    """The same graph without nesting (inner nodes get dotted names) and with its `dt` written down.

    Raises:
        HardspikeError: what `targets.graph.plan` refuses.
    """
    layout = plan(graph, dt)
    edges = [(edge.source, edge.target) for edge in layout.edges]
    return nir.NIRGraph(dict(layout.nodes), edges, metadata={**graph.metadata, "dt": layout.dt}, type_check=False)


class Edit:
    """A graph under change: `nodes` and `edges` to edit freely, `graph()` to take the result.

    Args:
        graph: left as it is; nodes are shared, so replace them rather than change them.
    """

    def __init__(self, graph: nir.NIRGraph):
        self.nodes = dict(graph.nodes)
        self.edges = [tuple(edge) for edge in graph.edges]
        self.metadata = dict(graph.metadata)

    def sources(self, name: str) -> list[str]:
        """Names of the nodes that feed `name`."""
        return [a for a, b in self.edges if b == name]

    def targets(self, name: str) -> list[str]:
        """Names of the nodes that `name` feeds."""
        return [b for a, b in self.edges if a == name]

    def only_source(self, name: str) -> str | None:
        """The one node that feeds `name` and feeds nothing else; None where it is not so."""
        sources = self.sources(name)
        return sources[0] if len(sources) == 1 and self.targets(sources[0]) == [name] else None

    def reached(self, without: str) -> set[str]:
        """Names of the nodes to which a way leads from an Input that does not pass `without`."""
        found: set[str] = set()
        waiting = [name for name, node in self.nodes.items() if isinstance(node, nir.Input)]
        while waiting:
            name = waiting.pop()
            if name != without and name not in found:
                found.add(name)
                waiting += self.targets(name)
        return found

    def fresh(self, name: str) -> str:
        """`name` for a node that is about to be added, or something near it that no node is called yet."""
        name = name[:100]
        return next(free for free in (name, *(f"{name}_{i}" for i in range(2, len(self.nodes) + 3)))
                    if free not in self.nodes)

    def bypass(self, name: str) -> None:
        """Take `name` out and join what fed it to what it feeds."""
        before, after = self.sources(name), self.targets(name)
        self.edges = [edge for edge in self.edges if name not in edge] + [(a, b) for a in before for b in after]
        del self.nodes[name]

    def split(self, name: str) -> None:
        """Give each node that `name` feeds, but for the first one, a copy of `name` of its own."""
        sources = self.sources(name)
        for target in self.targets(name)[1:]:
            copied = self.fresh(f"{name}_for_{target}")
            self.nodes[copied] = self.nodes[name]
            self.edges.remove((name, target))
            self.edges += [*((source, copied) for source in sources), (copied, target)]

    def graph(self) -> nir.NIRGraph:
        """The edited graph."""
        return nir.NIRGraph(self.nodes, self.edges, metadata=self.metadata, type_check=False)


def conv_numbers(name: str, node: nir.Conv1d | nir.Conv2d) -> dict:
    """stride, padding and dilation of a convolution as whole numbers of every axis, and groups.

    Raises:
        HardspikeError: padding 'same' that is one more behind than in front.
    """
    arguments, dims = conv_arguments(f"node '{name}'", node), array(node.weight).ndim - 2
    if arguments["padding"] == "same":
        border = [d * (k - 1) for d, k in zip(np.broadcast_to(arguments["dilation"], dims).tolist(),
                                              array(node.weight).shape[2:], strict=True)]
        if any(pixels % 2 for pixels in border):
            raise HardspikeError(f"layer '{name}': padding 'same' with an even kernel pads one side more; write it as "
                                 "a number")
        arguments["padding"] = tuple(pixels // 2 for pixels in border)
    return {key: value if key == "groups" else tuple(np.broadcast_to(value, dims).tolist()) for key, value in
            arguments.items()}
