"""The smallest graphs and input on which something still happens: one part after the other is left out.

As delta debugging does (Zeller and Hildebrandt 2002): an edit is kept where what is looked for still happens. Edits go
from large to small: samples and steps, everything behind a layer, everything before one, nodes, edges, neurons, values.
"""

import time
from collections.abc import Callable, Iterator

import nir
import numpy as np

from eval.explain import edits
from hardspike import HardspikeError
from targets.graph import Graph

Happens = Callable[[tuple[Graph, ...], np.ndarray], bool]
"""(graphs, input (T, B, ...)) -> whether it still happens; a HardspikeError means no."""
Record = Callable[[Graph, np.ndarray], dict[str, np.ndarray]]
"""(graph, input) -> the spikes (T, B, ...) of its layers."""
Candidate = tuple[tuple[Graph, ...], np.ndarray]


def reduce(graphs: tuple[Graph, ...], frames: np.ndarray, happens: Happens, record: Record,
           seconds: float = 60) -> Candidate:
    """Ever smaller graphs and input, as long as it still happens; after `seconds` the smallest so far.

    Args:
        graphs: one, or several that are edited alike.
        frames: (T, B, *Input) of all of them.
        record: gives what stands in for the layers before one.
    """
    end, best = time.monotonic() + seconds, (graphs, frames)
    again = True
    while again and time.monotonic() < end:
        again = False
        for kind in (_shorter, _behind, _before, _nodes, _edges, _flattened, _neurons, _quieter, _values):
            found = _first(kind, best, happens, record, end)
            while found is not None:
                best, again = found, True
                found = _first(kind, best, happens, record, end)
    return best


def size(graph: Graph) -> int:
    """Nodes without the Input and the Output."""
    return sum(not isinstance(node, nir.Input | nir.Output) for node in graph.nodes.values())


def _first(kind, best: Candidate, happens: Happens, record: Record, end: float) -> Candidate | None:
    """The first edit after which it still happens."""
    for graphs, frames in kind(*best, record):
        if time.monotonic() > end:
            return None
        try:
            if happens(graphs, frames):
                return graphs, frames
        except HardspikeError:
            continue
    return None


def _shorter(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    steps, samples = frames.shape[:2]
    if samples > 1:
        for sample in range(samples):
            yield graphs, frames[:, sample:sample + 1]
    for fewer in dict.fromkeys((steps // 2, steps - 1)):
        if 0 < fewer < steps:
            yield graphs, frames[:fewer]
            yield graphs, frames[steps - fewer:]


def _each(graphs: tuple[Graph, ...], edit: Callable[..., Graph | None], *of) -> tuple[Graph, ...] | None:
    """The edit of every graph that has what it edits; None where none has."""
    made = [edit(graph, *of) for graph in graphs]
    if all(one is None for one in made):
        return None
    return tuple(graph if one is None else one for graph, one in zip(graphs, made, strict=True))


def _names(graphs: tuple[Graph, ...]) -> list[str]:
    return list(dict.fromkeys(name for graph in graphs for name, node in graph.nodes.items()
                              if not isinstance(node, nir.Input | nir.Output)))


def _behind(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    for name in _names(graphs):
        made = _each(graphs, edits.up_to_node, name)
        if made and any(len(a.nodes) < len(b.nodes) for a, b in zip(made, graphs, strict=True)):
            yield made, frames


def _before(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    try:
        spikes = record(graphs[0], frames)
    except HardspikeError:
        return
    for name in reversed([name for name in spikes if all(name in graph.nodes for graph in graphs)]):
        made = _each(graphs, edits.from_node, name, spikes[name].shape[2:])
        if made:
            yield made, np.asarray(spikes[name], frames.dtype)


def _nodes(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    for name in _names(graphs):
        for joined in (False, True):
            made = _each(graphs, edits.without_node, name, joined)
            if made:
                yield made, frames


def _edges(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    for edge in dict.fromkeys(tuple(edge) for graph in graphs for edge in graph.edges):
        made = _each(graphs, edits.without_edge, edge)
        if made:
            yield made, frames


def _flattened(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    if frames.ndim > 3:
        made = [edits.flat_axes(graph) for graph in graphs]
        if all(made):
            yield tuple(one for one in made if one is not None), frames.reshape(*frames.shape[:2], -1)


def _neurons(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    if frames.ndim != 3:
        return
    found = [edits.populations(graph) for graph in graphs]
    shared = [name for name in found[0] if all(name in one for one in found)]
    done: set[frozenset[str]] = set()
    for name in shared:
        members, count = found[0][name]
        if frozenset(members) in done or count < 2:
            continue
        done.add(frozenset(members))
        for kept in _subsets(count):
            made = _each(graphs, edits.keep_neurons, name, kept)
            if made:
                first = any(isinstance(graphs[0].nodes[member], nir.Input) for member in members)
                yield made, frames[:, :, kept] if first else frames


def _subsets(count: int) -> Iterator[list[int]]:
    """Halves, then all but one."""
    if count > 2:
        yield list(range(count // 2))
        yield list(range(count // 2, count))
    for left in range(count if count <= 16 else 0):
        yield [i for i in range(count) if i != left]


def _quieter(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    """Fewer events, and those of 1."""
    if frames.any() and not np.isin(frames, (0, 1)).all():
        yield graphs, (frames != 0).astype(frames.dtype)
    places = np.flatnonzero(frames)
    size = len(places)
    while size >= 1:
        for start in range(0, len(places), size):
            fewer = frames.copy()
            fewer.ravel()[places[start:start + size]] = 0
            yield graphs, fewer
        size //= 2
        if len(places) > 64 and size < len(places) // 32:
            return


def _values(graphs: tuple[Graph, ...], frames: np.ndarray, record: Record) -> Iterator[Candidate]:
    for name in _names(graphs):
        for key in edits.VALUES:
            held = [getattr(graph.nodes[name], key) for graph in graphs if hasattr(graph.nodes.get(name), key)]
            for change in edits.changes(int(np.size(held[0]))) if held else ():
                made = _each(graphs, edits.with_values, name, key, change)
                if made:
                    yield made, frames
