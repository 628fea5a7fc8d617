"""A NIR graph as the targets use it: read from a file whoever wrote it, checked, flattened, ordered.

nir's own type check is bypassed: it takes a kernel for square, counts a group's input channels as all channels
and adds nodes to a graph with an unconnected end. Shapes are inferred in `targets.graph.shapes` instead.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import nir
import numpy as np

from hardspike import HardspikeError, few, nearest, printable
from targets import metadata
from targets.graph.order import Edge, schedule
from targets.graph.shapes import array, infer_shapes, input_shape

LINEAR = (nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d)
STATELESS = (*LINEAR, nir.Scale, nir.SumPool2d, nir.AvgPool2d, nir.Flatten)
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold)
NEURONS = (*SPIKING, nir.LI, nir.CubaLI, nir.I)
SUPPORTED = (nir.Input, nir.Output, nir.NIRGraph, nir.Delay, *STATELESS, *NEURONS)
DEFAULT_DT = 1e-4
"""Seconds a step where nobody says: what the NIR paper (Pedersen et al. 2024) and snnTorch's export use."""

LONGEST_NAME = 120
"""Characters of a node's name, its subgraphs' names before it."""
MOST_NODES = 10_000
MOST_EDGES = 50_000
DEEPEST = 24
"""Subgraphs within subgraphs."""
_NAMES = {kind.__name__ for kind in SUPPORTED}
_POSITIVE = {"tau", "tau_mem", "tau_syn"}
_WAY_OUT = {"MaxPool2d": "NIR has no maximum over spikes: train with average or sum pooling, or with stride"}


@dataclass(frozen=True)
class Plan:
    """A checked graph without nesting, in the order of execution.

    `nodes` holds Input first and Output among the last; `groups` are the strongly connected components in order: one
    node, or the nodes of a loop that have to run step by step. Shapes are without time and batch. `dt` is in seconds.
    """

    nodes: dict[str, nir.NIRNode]
    edges: list[Edge]
    groups: list[list[str]]
    input_shape: dict[str, tuple[int, ...]]
    output_shape: dict[str, tuple[int, ...]]
    input: str
    output: str
    dt: float

    def sources(self, name: str) -> list[Edge]:
        """The edges into `name`; their values sum."""
        return self._ends[1].get(name, [])

    def targets(self, name: str) -> list[Edge]:
        """The edges out of `name`."""
        return self._ends[0].get(name, [])

    @cached_property
    def _ends(self) -> tuple[dict[str, list[Edge]], dict[str, list[Edge]]]:
        """Edges by their source and by their target."""
        by_source: dict[str, list[Edge]] = {}
        by_target: dict[str, list[Edge]] = {}
        for edge in self.edges:
            by_source.setdefault(edge.source, []).append(edge)
            by_target.setdefault(edge.target, []).append(edge)
        return by_source, by_target

    def spiking(self) -> list[str]:
        """Names of the nodes that emit spikes, in order."""
        return [name for name, node in self.nodes.items() if isinstance(node, SPIKING)]


def plan(graph: nir.NIRGraph, dt: float | None = None) -> Plan:
    """Check `graph`, resolve its subgraphs, infer every shape and put the nodes in order.

    A node inside a subgraph is called `subgraph.node`; the subgraph's Input and Output are resolved away. The edges
    that close a loop carry the value of the step before (`targets.graph.order`). `dt`, in seconds, is `metadata["dt"]`
    where the graph has one, else the argument, else 1 for a graph that counts time in steps (see `_resolve_dt`),
    else `DEFAULT_DT`.

    Raises:
        HardspikeError: what the targets cannot run, by the node's name.
    """
    structure = _structure(graph)
    return Plan(**structure, dt=_resolve_dt(metadata.dt(graph), dt, structure["nodes"]))


def ends(graph: nir.NIRGraph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes at Input and Output, without time and batch; no step is needed for them.

    Raises:
        HardspikeError: as `plan`.
    """
    structure = _structure(graph)
    shapes = structure["output_shape"]
    return shapes[structure["input"]], shapes[structure["output"]]


def is_row(shape: tuple[int, ...]) -> bool:
    """Whether an Output of this shape can be one value a class; a picture cannot."""
    return sum(side > 1 for side in shape) <= 1


def _structure(graph: nir.NIRGraph) -> dict:
    """All of `plan` that does not depend on dt."""
    nodes, pairs = _flatten(graph, "")
    _check_ends(nodes, pairs)
    for name, node in nodes.items():
        _check_parameters(name, node)
    source = next(name for name, node in nodes.items() if isinstance(node, nir.Input))
    sink = next(name for name, node in nodes.items() if isinstance(node, nir.Output))
    ordered, edges, groups = schedule(nodes, pairs)
    nodes = {name: nodes[name] for name in ordered}
    taken, given = infer_shapes(nodes, edges, {source: input_shape(source, nodes, edges)})
    return {"nodes": nodes, "edges": edges, "groups": groups, "input_shape": taken, "output_shape": given,
            "input": source, "output": sink}


def _flatten(graph: nir.NIRGraph, prefix: str, taken: dict[str, str] | None = None,
             depth: int = 0) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """All nodes under dotted names and all edges; an edge that comes out twice (beside and through a subgraph) sums.

    `taken`: the names so far, with the place that each comes from.
    """
    taken = {} if taken is None else taken
    if depth > DEEPEST:
        raise HardspikeError(f"subgraph '{prefix[:40]}...': lies deeper than {DEEPEST} subgraphs; flatten the graph")
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    inlet: dict[str, str] = {}  # a subgraph's name -> the name of its Input
    outlet: dict[str, str] = {}
    for key in graph.nodes:
        _check_name(key, prefix, taken)
    _check_edges(graph, prefix)
    for key, node in graph.nodes.items():
        name = prefix + key
        if not isinstance(node, SUPPORTED):
            kind = type(node).__name__
            advice = _WAY_OUT.get(kind, f"rewrite it with {', '.join(sorted(_NAMES))}")
            raise HardspikeError(f"node '{name}': type {kind} is not supported; {advice}")
        if not isinstance(node, nir.NIRGraph):
            nodes[name] = node
            continue
        inner_nodes, inner_edges = _flatten(node, f"{name}.", taken, depth + 1)
        for ends, kind in ((inlet, nir.Input), (outlet, nir.Output)):
            found = [f"{name}.{child}" for child, value in node.nodes.items() if isinstance(value, kind)]
            if len(found) != 1:
                raise HardspikeError(f"subgraph '{name}': has {len(found)} {kind.__name__} nodes; an edge to a "
                                     "subgraph does not say which one it means, so it needs exactly one")
            ends[name] = found[0]
        nodes |= inner_nodes
        edges += inner_edges
    edges += [(outlet.get(prefix + a, prefix + a), inlet.get(prefix + b, prefix + b)) for a, b in graph.edges]
    return _bypass(nodes, edges)


def _check_name(key: str, prefix: str, taken: dict[str, str]) -> None:
    """Refuse a name that no file can hold, or that another node has once subgraphs are resolved; put it in `taken`."""
    shown = printable(str(key))[:80]
    where = f" of subgraph '{prefix[:-1]}'" if prefix else ""
    if not isinstance(key, str) or not 0 < len(prefix + key) <= LONGEST_NAME or not key.isprintable() or "/" in key \
            or not key.strip("."):
        raise HardspikeError(f"node '{shown}'{where}: a name is 1 to {LONGEST_NAME} printable characters without '/', "
                             f"which is HDF5's mark of a group; call it '{_renamed(key)}'")
    if len(taken) >= MOST_NODES:
        raise HardspikeError(f"graph has more than {MOST_NODES} nodes; no target runs so many")
    other = taken.setdefault(prefix + key, f"'{shown}'{where}")
    if other != f"'{shown}'{where}":
        raise HardspikeError(f"node '{prefix}{key}': {other} and '{shown}'{where} are one name once subgraphs are "
                             "resolved (SUBGRAPH.NODE); rename one of them")


def _renamed(key: str) -> str:
    """A name that can be written, as near as may be."""
    return "".join(c if c.isprintable() and c != "/" else "_" for c in str(key)).strip(".")[:40] or "layer"


def _bypass(nodes: dict, edges: list[tuple[str, str]]) -> tuple[dict, list[tuple[str, str]]]:
    """Take out every Input that is fed and every Output that feeds: they are the ends of subgraphs, plain wires."""
    for name, node in list(nodes.items()):
        if not isinstance(node, nir.Input | nir.Output):
            continue
        before = [a for a, b in edges if b == name]
        after = [b for a, b in edges if a == name]
        if name in before:
            raise HardspikeError(f"node '{name}' ({type(node).__name__}): leads into itself, and computes nothing; "
                                 "remove that edge")
        if before and after:
            edges = [edge for edge in edges if name not in edge] + [(a, b) for a in before for b in after]
            del nodes[name]
        if len(edges) > MOST_EDGES:
            raise HardspikeError(f"graph has more than {MOST_EDGES} edges once subgraphs are resolved; no target runs "
                                 "so many")
    return nodes, edges


def _check_edges(graph: nir.NIRGraph, prefix: str) -> None:
    where = f" of subgraph '{prefix[:-1]}'" if prefix else ""
    if len(graph.edges) > MOST_EDGES:
        raise HardspikeError(f"graph{where} has {len(graph.edges)} edges; at most {MOST_EDGES}")
    for edge, count in Counter(map(tuple, graph.edges)).items():
        shown = " -> ".join(printable(str(end))[:80] for end in edge)
        for end in edge:
            if end not in graph.nodes:
                name = printable(str(end))[:80]
                raise HardspikeError(f"edge {shown}{where}: there is no node '{name}'{nearest(name, graph.nodes)}; "
                                     f"nodes are {few(graph.nodes)}")
        if count > 1:
            raise HardspikeError(f"edge {shown}: listed {count} times; NIR allows an edge once")


def _check_ends(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> None:
    for kind in (nir.Input, nir.Output):
        found = [name for name, node in nodes.items() if isinstance(node, kind)]
        if not found:
            raise HardspikeError(f"graph has no {kind.__name__} node; add one and connect it")
        if len(found) > 1:
            raise HardspikeError(f"graph has {len(found)} {kind.__name__} nodes ({few(found)}); a recording has "
                                 f"one {kind.__name__.lower()}, so keep one (concatenate the others or drop them)")
    fed = {target for _, target in edges}
    for name, node in nodes.items():
        if name not in fed and not isinstance(node, nir.Input):
            raise HardspikeError(f"node '{name}' ({type(node).__name__}): nothing feeds it; connect it or remove it")


def parameters(node: nir.NIRNode) -> Iterator[tuple[str, np.ndarray]]:
    """The numeric fields of a node by name (neither its shapes nor its metadata)."""
    for key, value in vars(node).items():
        if key not in ("input_type", "output_type", "metadata", "input_shape", "padding") and value is not None:
            yield key, array(value)


def _check_parameters(name: str, node: nir.NIRNode) -> None:
    if isinstance(node, nir.Input | nir.Output):
        return
    for key, values in parameters(node):
        label = f"node '{name}' ({type(node).__name__}): {key}"
        if values.dtype.kind not in "biuf":
            raise HardspikeError(f"{label} holds no numbers but {values.dtype}; write it as floats")
        if not np.isfinite(values).all():
            advice = "; an infinite time constant is no leak: write an IF" if key in (*_POSITIVE, "r") else ""
            raise HardspikeError(f"{label} is not finite (NaN or infinity){advice}")
        if key in _POSITIVE and (values <= 0).any():
            raise HardspikeError(f"{label} is {values.min():g}; a time constant has to be above 0")
        if key == "delay" and (values < 0).any():
            raise HardspikeError(f"{label} is {values.min():g}; a delay has to be 0 or more")


def assumed_step(graph: nir.NIRGraph, dt: float | None) -> str:
    """What to know where neither the graph nor `dt` says the step and time constants hang on it; else nothing.

    Raises:
        HardspikeError: as `plan`.
    """
    if dt is not None or metadata.dt(graph) is not None:
        return ""
    layout = plan(graph)
    timed = any(key in _POSITIVE for node in layout.nodes.values() for key, _ in parameters(node))
    return f"does not say its time step: {layout.dt:g} s is taken, --dt says another" if timed else ""


def _resolve_dt(stored: float | None, asked: float | None, nodes: dict[str, nir.NIRNode]) -> float:
    """The step in seconds. NIR stores none, so a guess is only made where there is one reading, and else refused.

    A graph of IF alone with r = 1 counts time in steps (sinabs, norse and the NIR paper's CNN: v' = v + I), so dt = 1.
    Otherwise `DEFAULT_DT`, unless a layer then integrates next to nothing: such a graph counts time in steps as well
    (sinabs: tau = 20 steps), or was written for another step, and its user has to say so.
    """
    if stored is not None and asked is not None and not np.isclose(stored, asked, rtol=1e-6, atol=0):
        raise HardspikeError(f"dt: the graph was written for {stored:g} s, asked is {asked:g} s; leave the argument "
                             "out, or write the graph anew for that step")
    if asked is not None and not (np.isfinite(asked) and asked > 0):
        raise HardspikeError(f"dt: {asked:g} s; a step has to be a positive number of seconds")
    dt = stored if stored is not None else asked
    if dt is None:
        dt = 1.0 if _counts_steps(nodes) else DEFAULT_DT
    for name, node in nodes.items():
        for key, values in parameters(node):
            if key not in _POSITIVE and not (key == "r" and isinstance(node, nir.IF | nir.I)):
                continue
            label = f"node '{name}' ({type(node).__name__})"
            if key in _POSITIVE and (dt > values * (1 + 1e-6)).any():
                way = "give a smaller dt (--dt)" if stored is None else "write the graph anew for a smaller step"
                raise HardspikeError(f"{label}: {key} is {values.min():g} s, below the step dt = {dt:g} s, where "
                                     f"forward Euler does not hold; {way}")
            steps = (values / dt).max() if key in _POSITIVE else (1 / np.maximum(abs(values) * dt, 1e-300)).max()
            if stored is None and asked is None and steps > 5000:
                raise HardspikeError(f"{label}: {key} = {values.max():g} and the default dt = {dt:g} s make it "
                                     f"{steps:.0f} steps slow; the graph seems to count time otherwise: give its dt "
                                     "(--dt 1 where it counts steps, as sinabs does)")
    return float(dt)


def _counts_steps(nodes: dict[str, nir.NIRNode]) -> bool:
    timed = [node for node in nodes.values() if isinstance(node, (*NEURONS, nir.Delay))
             and not isinstance(node, nir.Threshold)]
    return bool(timed) and all(isinstance(node, nir.IF) and (array(node.r) == 1).all() for node in timed)
