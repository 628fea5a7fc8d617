"""Why two membranes part: what differs in the first step in which they do, and by which difference of the graphs.

Up to that step both membranes are equal, so the term that differs there says it, and the graphs say why that term does.
"""

from dataclasses import dataclass

import networkx as nx
import nir
import numpy as np

from eval.explain.terms import BIAS, KEPT, REMAINDER, RESET, REST, WEIGHTS, Side
from targets.graph import LINEAR, SPIKING
from targets.graph.shapes import array
from targets.nodes.neurons import delay_steps

CAUSES = ("input", "weight", "bias", "threshold", "leak", "reset", "delay", "order", "rounding")
SAME = 1e-6
"""Of a value, as far as writers in float32 round it."""


@dataclass(frozen=True)
class Pair:
    """A term of both runs in one step, in thresholds where the runs count in different units; None: it has none."""

    kind: str
    node: str
    one: float | None
    other: float | None

    @property
    def difference(self) -> float:
        """How far apart they are."""
        return abs((self.one or 0.0) - (self.other or 0.0))


@dataclass(frozen=True)
class Place:
    """A neuron of both runs: what its layer is called in each, and what a membrane is divided by."""

    sides: tuple[Side, Side]
    layers: tuple[str, str]
    neuron: int
    units: tuple[float, float]

    def pairs(self, step: int) -> list[Pair]:
        """The terms side by side, by the node they come from, else in order."""
        found = [side.terms(layer, self.neuron) for side, layer in zip(self.sides, self.layers, strict=True)]
        given = [[(term.kind, self._called(i, term.node), float(term.values[step]) / self.units[i]) for term in terms]
                 for i, terms in enumerate(found)]
        left = list(given[1])
        pairs = []
        for kind, node, value in given[0]:
            alike = [term for term in left if term[0] == kind]
            match = next((term for term in alike if term[1] == node), alike[0] if alike and not any(
                term[1] == alike[0][1] and term[0] == kind for term in given[0]) else None)
            if match:
                left.remove(match)
            pairs.append(Pair(kind, node, value, match[2] if match else None))
        return pairs + [Pair(kind, node, None, value) for kind, node, value in left]

    def _called(self, index: int, node: str) -> str:
        """A neuron's own terms go by its layer's first name."""
        own = {self.layers[index], self.sides[index].cell(self.layers[index]),
               *self.sides[index].resets(self.layers[index])}
        return self.layers[0] if node in own else node

    def constants(self, key: str) -> tuple[float | None, float | None]:
        """A coefficient of the neuron in both runs."""
        one, other = (side.constant(side.cell(layer), key, self.neuron)
                      for side, layer in zip(self.sides, self.layers, strict=True))
        return one, other

    def nodes(self, name: str) -> tuple[str, str] | None:
        """The node that a term comes from in both runs: the same name, or the only one."""
        if all(name in side.layout.nodes for side in self.sides):
            return name, name
        found = []
        for side, layer in zip(self.sides, self.layers, strict=True):
            heard = [edge.source for edge in side.layout.sources(side.cell(layer))
                     if edge.source not in side.resets(layer)]
            found.append(name if name in heard else heard[0] if len(heard) == 1 else "")
        return (found[0], found[1]) if all(found) else None


def cause(place: Place, step: int) -> tuple[str, str]:
    """One of `CAUSES` and what is behind it in words, for the first step in which the membranes differ."""
    pairs = place.pairs(step)
    main = max(pairs, key=lambda pair: pair.difference)
    if main.kind == KEPT:
        return "leak", _leak(place)
    if main.kind == RESET:
        return "reset", f"{_reset(place, 0)} in A, {_reset(place, 1)} in B"
    if main.kind == REST:
        return "leak", f"drawn to {_say(main.one)} a step in A, {_say(main.other)} in B (v_leak)"
    if main.kind == REMAINDER:
        return "rounding", _rounding(place, main)
    return _incoming(place, main, step)


def _incoming(place: Place, main: Pair, step: int) -> tuple[str, str]:
    """Of what a node gives: the input, a delay, the order of layers or of steps, the weights, the biases."""
    nodes = place.nodes(main.node)
    if nodes is None:
        where = "A" if main.other is None else "B"
        if shifted := _shifted(place, main):
            return "order", shifted
        return "order", f"'{main.node}' reaches the layer in {where} alone in this step"
    regions = [_behind(side, node) for side, node in zip(place.sides, nodes, strict=True)]
    if main.kind == WEIGHTS and (said := _input(place, regions, step)):
        return "input", said
    if shifted := _shifted(place, main) if main.kind == BIAS else "":
        return "order", shifted
    if said := _delay(place, regions):
        return "delay", said
    gains = place.constants("gain")
    taken = [_parameters(side, region, "bias" if main.kind == BIAS else "weight")
             for side, region in zip(place.sides, regions, strict=True)]
    if said := _swapped(place, taken, "bias" if main.kind == BIAS else "weight"):
        return "order", said
    if said := _changed(taken, place.units):
        return ("bias" if main.kind == BIAS else "weight"), said
    if shifted := _shifted(place, main):
        return "order", shifted
    if gains[0] is not None and gains[1] is not None and not np.isclose(gains[0], gains[1], rtol=SAME):
        leaks = place.constants("leak")
        if leaks[0] is not None and leaks[1] is not None and not np.isclose(leaks[0], leaks[1], rtol=SAME):
            return "leak", _leak(place)
        return "weight", f"what arrives is multiplied by {_say(gains[0])} in A, {_say(gains[1])} in B (r)"
    return "rounding", "weights and what they are multiplied with are equal; their sums are not"


def _behind(side: Side, node: str) -> list[str]:
    """`node` and what lies between it and the spikes that feed it, nearest first."""
    ways = nx.DiGraph((edge.target, edge.source) for edge in side.layout.edges
                      if not isinstance(side.layout.nodes[edge.target], SPIKING) or edge.target == node)
    reached = [node, *(b for _, b in nx.bfs_edges(ways, node))] if node in ways else [node]
    return [name for name in reached if not isinstance(side.layout.nodes[name], SPIKING)]


def _input(place: Place, regions: list[list[str]], step: int) -> str:
    a, b = (side.frames[:step + 1] for side in place.sides)
    fed = all(side.layout.input in region for side, region in zip(place.sides, regions, strict=True))
    if not fed or a.shape != b.shape or bool((a == b).all()):
        return ""
    t, _, *where = (a != b).nonzero()[0].tolist()
    return f"the input differs first at step {t}, {tuple(where)}: {a[t, 0][tuple(where)].item():g} in A, " \
        f"{b[t, 0][tuple(where)].item():g} in B"


def _delay(place: Place, regions: list[list[str]]) -> str:
    said = []
    for side, region in zip(place.sides, regions, strict=True):
        layout = side.layout
        delays = [delay_steps(name, layout.nodes[name], layout.input_shape[name], layout.dt)
                  for name in region if isinstance(layout.nodes[name], nir.Delay)]
        said.append("none" if not delays else ", ".join(
            f"{int(d.min())}" if np.ptp(d) == 0 else f"{int(d.min())} to {int(d.max())}" for d in delays) + " steps")
    return f"delays on the way: {said[0]} in A, {said[1]} in B" if said[0] != said[1] else ""


def _parameters(side: Side, region: list[str], key: str) -> dict[str, np.ndarray]:
    nodes = side.layout.nodes
    return {name: array(getattr(nodes[name], key)).astype(np.float64) for name in region
            if isinstance(nodes[name], LINEAR) and hasattr(nodes[name], key)}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=SAME, atol=SAME * np.abs(one).max(initial=0))


def _swapped(place: Place, taken: list[dict[str, np.ndarray]], key: str) -> str:
    """Another layer of B has what this one has in A, and had it the other way round."""
    one, other = taken
    for mine, theirs in zip(one.items(), other.items(), strict=False):
        if _same(mine[1], theirs[1]) or mine[1].size < 2:
            continue
        everywhere = _parameters(place.sides[1], list(place.sides[1].layout.nodes), key)
        found = next((name for name, values in everywhere.items() if name != theirs[0] and _same(mine[1], values)), "")
        if found:
            return f"the layers lie in another order: A's '{mine[0]}' is B's '{found}'"
    return ""


def _changed(taken: list[dict[str, np.ndarray]], units: tuple[float, float]) -> str:
    """The first parameter that differs, in the units of the membranes."""
    one, other = taken
    for (name, mine), (there, theirs) in zip(one.items(), other.items(), strict=False):
        a, b = mine / units[0], theirs / units[1]
        if _same(a, b):
            continue
        called = f"'{name}'" if name == there else f"'{name}' (B: '{there}')"
        if known := _known(a, b):
            return f"{called}: {known}"
        if a.shape != b.shape:
            return f"{called}: of shape {a.shape} in A, {b.shape} in B"
        place = tuple(map(int, np.unravel_index(np.abs(a - b).argmax(), a.shape)))
        count = int((~np.isclose(a, b, rtol=SAME, atol=SAME * np.abs(a).max())).sum())
        return f"{called}: {count} of {a.size} differ, most at {place}: {a[place]:.6g} in A, {b[place]:.6g} in B"
    if len(one) != len(other):
        return f"{len(one)} linear layers on the way in A, {len(other)} in B"
    return ""


def _known(a: np.ndarray, b: np.ndarray) -> str:
    """What is done to weights by mistake."""
    if a.ndim > 2 and _same(a.swapaxes(-1, -2), b):
        return "B has every kernel with height and width swapped"
    if a.ndim > 2 and _same(np.flip(a, tuple(range(2, a.ndim))), b):
        return "B has every kernel turned by half a turn (a convolution, where A correlates)"
    if a.ndim >= 2 and _same(a.swapaxes(0, 1), b):
        return "B has the weights transposed"
    if a.shape == b.shape and a.size > 1 and _same(np.clip(a, b.min(), b.max()), b):
        clipped = int((~np.isclose(a, b)).sum())
        return f"B has {clipped} of {a.size} clipped to {b.min():.6g} .. {b.max():.6g}; A's go to " \
            f"{a.min():.6g} .. {a.max():.6g}"
    return ""


def _shifted(place: Place, main: Pair) -> str:
    """The same value comes to B, or to A, some steps later."""
    values = []
    for i, (side, layer) in enumerate(zip(place.sides, place.layers, strict=True)):
        found = [term.values / place.units[i] for term in side.terms(layer, place.neuron)
                 if term.kind == main.kind and term.node not in side.resets(layer)]
        values.append(np.sum(found, 0) if found else np.zeros(len(side.frames)))
    steps = min(map(len, values))
    apart = np.flatnonzero(~np.isclose(values[0][:steps], values[1][:steps], rtol=SAME))
    if main.kind == BIAS and len(apart) and apart[-1] + 1 == len(apart) < steps:  # a constant that begins later
        name = "AB"[int(abs(values[0][0]) > abs(values[1][0]))]
        return f"the bias of '{main.node}' is the same, but begins {_steps(len(apart))} later in {name}"
    for k in range(1, min(len(values[0]), len(values[1]))):
        for first, late, name in ((0, 1, "B"), (1, 0, "A")):
            early, later = values[first][:-k], values[late][k:]
            if np.any(early) and np.allclose(early, later, rtol=SAME) and not np.any(values[late][:k]):
                return f"'{main.node}' gives the same, but {_steps(k)} later in {name}"
    return ""


def _leak(place: Place) -> str:
    said = []
    for side, layer in zip(place.sides, place.layers, strict=True):
        cell = side.cell(layer)
        leak, syn = (side.constant(cell, key, place.neuron) for key in ("leak", "leak_syn"))
        node = side.layout.nodes[cell]
        tau = getattr(node, "tau", getattr(node, "tau_mem", None))
        steps = "" if tau is None or leak is None or leak >= 1 else f" (tau is {1 / (1 - leak):.6g} steps of dt = " \
            f"{side.layout.dt:g} s)"
        said.append(("nothing" if leak is None else f"{leak:.9g}") + " of the membrane is kept a step" + steps
                    + ("" if syn is None else f", {syn:.9g} of the current"))
    return f"{said[0]} in A, {said[1]} in B"


def _reset(place: Place, index: int) -> str:
    side, layer = place.sides[index], place.layers[index]
    to = side.constant(layer, "reset", place.neuron)
    if to is not None:
        return f"a spike sets the membrane to {to:g}"
    taken = [side.constant_of_scale(name, place.neuron) for name in side.resets(layer)]
    return f"a spike takes {-sum(taken):.6g} off, a step later" if taken else "a spike takes nothing off"


def _rounding(place: Place, main: Pair) -> str:
    kinds = [f"{side.target.name}, integers" if side.chip else side.target.name for side in place.sides]
    return f"all terms are equal; what rounding leaves is {_say(main.one)} in A ({kinds[0]}), {_say(main.other)} in " \
        f"B ({kinds[1]})"


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count > 1)}"


def _say(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
