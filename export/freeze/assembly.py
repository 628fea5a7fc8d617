"""A NIR graph as it grows, layer by layer: nodes, edges and the signals between them."""

from collections.abc import Collection
from dataclasses import dataclass, field

import networkx as nx
import nir
import numpy as np

from export.freeze.layers import Piece
from export.freeze.neurons import DT
from hardspike import HardspikeError
from targets.graph import plan

BINARY = (0.0, 1.0)
MOST_VALUES = 16
"""Values of a signal that are kept count of."""


@dataclass(frozen=True)
class Signal:
    """What flows into a layer.

    Args:
        sources: the nodes whose outputs sum to it.
        shape: as NIR has it, without batch and time.
        logical: as the user's network has it; NIR cannot unflatten, so what was flat once stays flat.
        values: the few that any of it may have, ascending, where that is known: zero and one for spikes.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    logical: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def binary(self) -> bool:
        """All zeros and ones."""
        return self.values == BINARY

    def flat(self) -> bool:
        """Whether NIR's shape is not the user's."""
        return self.shape != self.logical


def few_values(found: np.ndarray) -> tuple[float, ...]:
    """The different values in an array, ascending; () where there are many, or two too close to be told apart."""
    values = np.unique(found)
    if not 1 < len(values) <= MOST_VALUES:
        return ()
    apart = np.diff(values).min() > 1e-6 * max(1.0, float(np.abs(values).max()))
    return tuple(map(float, values)) if apart else ()


@dataclass
class Assembly:
    """Nodes and edges so far; `begin` and `end` are called like no module in `taken`."""

    taken: set[str]
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    made: dict[str, Piece] = field(default_factory=dict)

    def __post_init__(self):
        self.begin, self.end = (next(name for name in (kind, f"{kind}_", f"{kind}__") if name not in self.taken)
                                for kind in ("input", "output"))

    def place(self, name: str, piece: Piece) -> None:
        """Put the nodes of a layer in.

        Raises:
            HardspikeError: a node is called like one of another layer.
        """
        for node in piece.nodes:
            if node in self.nodes or node in (self.begin, self.end):
                raise HardspikeError(f"layer '{name}': its node '{node}' and one of another layer have the same name; "
                                     "rename the layer")
        self.made[name] = piece
        self.nodes.update(piece.nodes)

    def feed(self, name: str, sources: tuple[str, ...]) -> None:
        """Lead the sum of `sources` into a layer that was placed, and join its nodes."""
        piece = self.made[name]
        self.edges.extend((source, entry) for source in sources for entry in piece.entries or (piece.entry or name,))
        self.edges.extend(piece.edges)

    def add(self, name: str, piece: Piece, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Place a layer and feed it; gives the nodes whose outputs sum to its own."""
        if not piece.nodes:
            return sources
        self.place(name, piece)
        self.feed(name, sources)
        return (piece.exit or name,)

    def free(self, name: str) -> str:
        """A name for a node that is nobody's yet: `name`, or with a number behind it."""
        name = name.replace("/", "_") or "layer"
        used = {*self.nodes, *self.taken, *self.made, self.begin, self.end}
        return name if name not in used else next(n for k in range(1, 10**6) if (n := f"{name}_{k}") not in used)

    def graph(self, input: tuple[int, ...], output: Signal, metadata: dict | None,
              kept: Collection[str] | None = None) -> nir.NIRGraph:
        """The whole graph.

        Args:
            kept: nodes that stay where the output does not depend on them, and others go; None: that is an error.

        Raises:
            HardspikeError: there is such a layer, or the targets would refuse the graph.
        """
        edges = [*self.edges, *((source, self.end) for source in output.sources)]
        ways = nx.DiGraph(edges)
        useful = nx.ancestors(ways, self.end) if edges else set()
        if kept is not None:
            wanted = useful.union(kept, *(nx.ancestors(ways, name) for name in kept if name in ways))
            edges = [edge for edge in edges if wanted.issuperset(edge) or edge[1] == self.end]
            self.nodes = {name: node for name, node in self.nodes.items() if name in wanted}
        for name, piece in self.made.items():
            if kept is None and useful.isdisjoint(piece.nodes):
                raise HardspikeError(f"layer '{name}': the output does not depend on it; NIR has one output here: let "
                                     "forward return it first, before any state, or take the layer out")
        nodes = {self.begin: nir.Input({"input": np.array(input)}), **self.nodes,
                 self.end: nir.Output({"output": np.array(output.shape)})}
        graph = nir.NIRGraph(nodes, edges, metadata={"dt": DT, **(metadata or {})}, type_check=False)
        plan(graph)
        return graph
