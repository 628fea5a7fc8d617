"""Valid NIR graphs with input, of every kind of node and option that the project runs: a seed and a number each.

What is drawn comes from anything that answers as a numpy Generator does (`integers`, `random`, `choice`): numpy's own
in campaigns, hypothesis's in `strategies`.

Kinds of graphs:

- `integers`, `extreme` (wraps and saturates), `wide` (sums and membranes about the ends of 16 and of 32 bits, where
  generated code changes its types), `ties` (sums that meet their threshold), `lava`: integer graphs, as
  `tests.random_graphs` makes them, in small;
- `dyadic`: floats of a few binary digits, so that no operation rounds, whatever its order: any difference is a fault;
- `floats`: any numbers, tiny and huge; what rounding may change is known.
"""

from dataclasses import dataclass

import nir
import numpy as np

from tests import random_graphs

SHAPES = [(2, 5, 4), (1, 9, 7), (1, 3, 7), (3, 4, 3), (2, 4, 4), (2, 6), (1, 11), (3, 5), (3,), (1,), (7,), (13,)]
INTEGERS = ("integers", "extreme", "wide", "ties", "lava")
SUMS = nir.Linear | nir.Affine | nir.Conv1d | nir.Conv2d | nir.SumPool2d | nir.AvgPool2d
KINDS = (*INTEGERS, "dyadic", "floats")


@dataclass(frozen=True)
class Case:
    """A graph, which says its dt, and input (T, B, *Input); `kind` as in the module's text."""

    kind: str
    graph: nir.NIRGraph
    frames: np.ndarray

    @property
    def dt(self) -> float:
        return float(self.graph.metadata["dt"])

    @property
    def integers(self) -> bool:
        return self.kind in INTEGERS


class Grower(random_graphs.Grower):
    """Small graphs; of floats, also nodes that no chip has. A `plain` one has gain 1, rests at 0, and parameters that
    are one a layer: all of it can be folded.
    """

    def __init__(self, rng, kind: str):
        super().__init__(rng, {"integers": "any", "wide": "any", "ties": "any"}.get(kind, kind))
        self.wanted, self.floats = kind, kind in ("dyadic", "floats")
        self.dt = self.pick([1e-4, 2.0**-10, 1.0]) if self.floats else random_graphs.DT
        self.cells: list[tuple[str, tuple[int, ...]]] = []
        self.plain = self.floats and self.chance(0.4)
        self.grain = float(2.0 ** -self.pick([0, 1, 3])) if self.floats else 1.0

    def add(self, name: str, node: nir.NIRNode, *sources: str) -> str:
        """Delays also two in a row, and in float32, which is a little off whole steps."""
        if isinstance(node, nir.Delay) and self.chance(0.3):
            node = nir.Delay(np.asarray(node.delay, np.float32))
        made = super().add(name, node, *sources)
        if isinstance(node, nir.Delay) and self.chance(0.3):
            made = super().add(name, nir.Delay(np.array(node.delay)), made)
        return made

    # ------------------------------------------------------------------------------------------ linear nodes

    def weights(self, *shape: int) -> np.ndarray:
        if not self.floats:
            if self.wanted == "extreme" and self.chance(0.3):  # sums on the very edges of 24 bits
                return np.asarray(self.rng.choice([-128.0, -64.0, 64.0, 32.0, 127.0], shape), float)
            if self.wanted == "wide" and self.chance(0.7):  # rows of one sign, so that sums get as far as they may
                sign = np.asarray(self.rng.choice([-1.0, 1.0, 1.0], (shape[0], *(1,) * (len(shape) - 1))), float)
                size = self.rng.choice(self.pick([[64.0], [127.0], [64.0, 127.0, 1.0]]), shape)
                return sign * np.asarray(size, float)
            if self.wanted != "ties":
                return super().weights(*shape)
            weight = np.asarray(self.rng.integers(-2, 4, shape), float)
            weight.flat[0] = 1  # no matrix of zeros
            return weight
        weight = np.asarray(self.rng.integers(-9, 17, shape), float) * self.grain
        if self.wanted == "floats":
            weight = weight * np.asarray(self.rng.choice([1.0, 0.1, 1 / 3, 1.7], shape), float)
            weight = weight * self.pick([1.0, 1.0, 1e-5, 1e4])
        return weight

    def bias(self, size: int) -> np.ndarray:
        if not self.floats:
            return super().bias(size) if self.wanted != "ties" else np.asarray(self.rng.integers(-1, 2, size), float)
        return self.pick([np.zeros(size), np.asarray(self.rng.integers(-4, 6, size), float) * self.grain])

    def linear(self, source: str, shape: tuple[int, ...], size: int | None = None):
        if self.floats and self.chance(0.3):
            source, shape = self.extra(source, shape)
        if size is None and len(shape) == 1 and self.chance(0.3):
            size = shape[0]  # as a loop into a linear node needs it
        return super().linear(source, shape, size)

    def conv(self, source: str, shape: tuple[int, ...]):
        """Behind another sum mostly one that pads nothing: those two can be merged."""
        if not isinstance(self.nodes[source], SUMS) or self.chance(0.2):
            return super().conv(source, shape)
        return self.unpadded(source, shape)

    def unpadded(self, source: str, shape: tuple[int, ...]):
        """A convolution that fits, also into small shapes."""
        fits = [[(1, 1, 1)] + [(k, d, s) for k in (2, 3) for d in (1, 2, 3) for s in (1, 1, 2) if d * (k - 1) < n]
                for n in shape[1:]]
        kernel, dilation, stride = zip(*(self.pick(one) for one in fits), strict=True)
        groups = self.pick([g for g in (1, 2, 3) if shape[0] % g == 0])
        out = groups * int(self.rng.integers(1, 4))
        weight, bias = self.weights(out, shape[0] // groups, *kernel), self.bias(out)
        sizes = [(n - d * (k - 1) - 1) // s + 1
                 for n, k, s, d in zip(shape[1:], kernel, stride, dilation, strict=True)]
        node = nir.Conv1d(None, weight, stride[0], 0, dilation[0], groups, bias) if len(shape) == 2 else \
            nir.Conv2d(None, weight, stride, 0, dilation, groups, bias)
        return self.add("conv", node, source), (out, *sizes)

    def extra(self, source: str, shape: tuple[int, ...]):
        """A node that only floats have: pooling, a factor, a leaky membrane without spikes; and sums in a row."""
        if len(shape) > 1 and self.chance(0.4):
            return self.unpadded(source, shape)
        if len(shape) == 3 and self.chance(0.1):  # some axes alone
            start = int(self.rng.integers(2))
            made = (shape[0] * shape[1], shape[2]) if not start else (shape[0], shape[1] * shape[2])
            return self.add("flat", nir.Flatten(None, start, start + 1), source), made
        if len(shape) == 3 and min(shape[1:]) >= 2 and self.chance(0.6):
            kernel = self.pick([(2, 2), (2, 1), (1, 2)] + [(3, 2)] * (self.wanted == "floats" and min(shape[1:]) > 2))
            stride = self.pick([kernel, (1, 1), (2, 2)])
            padding = self.pick([(0, 0), (kernel[0] // 2, kernel[1] // 2)])
            made = [(n + 2 * p - k) // s + 1
                    for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True)]
            kind = self.pick([nir.SumPool2d, nir.AvgPool2d])
            node = kind(np.array(kernel), np.array(stride), np.array(padding))
            return self.add("pool", node, source), (shape[0], *made)
        if self.chance(0.3):  # two linear nodes in a row
            return super().linear(source, shape)
        if self.chance(0.5):
            return self.add("scale", nir.Scale(self.per_neuron(shape, [0.5, 1.0, -1.0, 2.0])), source), shape
        if self.chance(0.4):
            return self.add("wait", nir.Delay(self.dt * self.per_neuron(shape, [0, 1, 2, 3], whole=True)), source), \
                shape
        return self.add("leaky", self.membrane(shape), source), shape

    # --------------------------------------------------------------------------------------------- neurons

    def per_neuron(self, shape: tuple[int, ...], values, whole: bool = False) -> np.ndarray:
        """One value for all, one a channel, or one a neuron; in full or as few numbers as say it."""
        how = "one" if self.plain else self.pick(["one", "one", "channel", "neuron"])
        if how == "one":
            value = float(self.pick(values))
            return np.full(shape, value) if whole or self.chance(0.8) else np.array([value])
        if how == "channel" and not whole and len(shape) > 1 and shape[0] != shape[-1] and self.chance(0.5):
            return np.asarray(self.rng.choice(np.array(values, float), shape[:1]), float)
        form = shape if how == "neuron" else (shape[0], *(1,) * (len(shape) - 1))
        found = np.asarray(self.rng.choice(np.array(values, float), form), float)
        return np.ascontiguousarray(np.broadcast_to(found, shape))

    def time(self, shape: tuple[int, ...]) -> np.ndarray:
        """A time constant."""
        steps = [1, 2, 2, 4] if self.wanted == "dyadic" else [1, 1.7, 2, 4, 10, 33.3, 500]
        return self.dt * self.per_neuron(shape, steps, whole=True)

    def rest(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape) if self.plain or self.chance(0.6) else self.grain * self.per_neuron(
            shape, [-1, 0, 1, 2], whole=True)

    def gain(self, shape: tuple[int, ...], tau: np.ndarray | None) -> np.ndarray:
        factor = self.per_neuron(shape, [1.0] if self.plain or self.chance(0.7) else [0.5, 1.0, 2.0], whole=True)
        return factor * (1 / self.dt if tau is None else tau / self.dt)

    def membrane(self, shape: tuple[int, ...]) -> nir.NIRNode:
        kind = self.pick(["LI", "LI", "I", "CubaLI"])
        if kind == "I":
            return nir.I(self.gain(shape, None))
        tau = self.time(shape)
        if kind == "LI":
            return nir.LI(tau, self.gain(shape, tau), self.rest(shape))
        syn = self.time(shape)
        return nir.CubaLI(syn, tau, self.gain(shape, tau), self.rest(shape), self.gain(shape, syn))

    def neurons(self, sources: list[str], shape: tuple[int, ...], fan_in: int) -> str:
        first = len(self.nodes)
        name = self._neurons(sources, shape, fan_in)
        self.cells.append((list(self.nodes)[first], shape))
        return name

    def _neurons(self, sources: list[str], shape: tuple[int, ...], fan_in: int) -> str:
        if not self.floats:
            most = {"ties": 1, "wide": self.pick([20, 1000, 10000])}.get(self.wanted, 20)
            return super().neurons(sources, shape, most if self.wanted == "wide" else min(fan_in, most))
        theta = self.grain * self.per_neuron(shape, [1, 2, 3, 5, 8], whole=True)
        if self.wanted == "floats":
            theta = theta * self.pick([1.0, 0.37, 1e-5, 1e4])
        if self.chance(0.08):
            theta = theta + 1e6  # silent
        if self.chance(0.35):
            return self.subtracting(sources, shape, theta)
        kind = self.pick(["LIF", "LIF", "IF", "CubaLIF", "Threshold"])
        if kind == "Threshold":
            return self.add("th", nir.Threshold(theta), *sources)
        reset = np.zeros(shape) if self.chance(0.6) else self.grain * self.per_neuron(shape, [-2, -1, 0, 9], whole=True)
        if kind == "IF":
            return self.add("if", nir.IF(self.gain(shape, None), theta, reset), *sources)
        tau = self.time(shape)
        if kind == "LIF":
            return self.add("lif", nir.LIF(tau, self.gain(shape, tau), self.rest(shape), theta, reset), *sources)
        syn = self.time(shape)
        return self.add("cuba", nir.CubaLIF(syn, tau, self.gain(shape, tau), self.rest(shape), theta, reset,
                                            self.gain(shape, syn)), *sources)

    def subtracting(self, sources: list[str], shape: tuple[int, ...], theta: np.ndarray) -> str:
        """A membrane, a Threshold, and what a spike takes off: the threshold, more, less, or nothing."""
        cell = self.add("li", self.membrane(shape), *sources)
        name = self.add("th", nir.Threshold(theta), cell)
        if self.chance(0.9):
            factors, node = [1.0, 1.0, 1.0, 0.5, 2.0], self.nodes[cell]
            if isinstance(node, nir.LI):
                factors.append(1 - self.dt / np.asarray(node.tau))  # what is taken off leaks with the membrane
            back = self.add("reset", nir.Scale(-theta * self.pick(factors)), name)
            self.edges.append((back, cell))
        return name

    # ----------------------------------------------------------------------------------------------- graph

    def feed_back(self, name: str, shape: tuple[int, ...], into: str) -> None:
        """Also into the linear node before the layer, which then weighs the layer's own spikes as well."""
        node = self.nodes[into]
        square = isinstance(node, nir.Linear | nir.Affine) and node.weight.shape == (*shape, *shape)
        cell = next(b for a, b in self.edges if a == into)
        entries = [a for a, b in self.edges if b == cell and not isinstance(self.nodes[a], nir.Scale)]
        if square and entries == [into] and self.wanted != "lava" and self.chance(0.7):
            self.edges.append((name, into))
        else:
            super().feed_back(name, shape, into)

    def finish(self, name: str, shape: tuple[int, ...]) -> None:
        """Also with a loop through several layers, and with spikes that reach the readout late."""
        entries = [cell for cell in self.cells[:-1] if len(cell[1]) == 1]
        skips = any(name.startswith("skip") for name in self.nodes)  # a loop entered at two nodes is refused
        if entries and not skips and len(shape) == 1 and self.wanted != "lava" and self.chance(0.25):
            entry, (size,) = self.pick(entries)
            source = name
            if self.chance(0.3):
                steps = int(self.rng.integers(1, 4))
                source = self.add("late", nir.Delay(np.full(shape, random_graphs.DT * steps)), name)
            self.edges.append((self.add("back", nir.Linear(self.weights(size, *shape)), source), entry))
        if self.chance(0.2):
            name = self.add("late", nir.Delay(np.full(shape, random_graphs.DT * int(self.rng.integers(1, 4)))), name)
        super().finish(name, shape)

    def grow(self, shape: tuple[int, ...]) -> nir.NIRGraph:
        made = super().grow(shape)
        nodes = dict(made.nodes)
        if self.floats and self.dt != random_graphs.DT:  # delays of the common part
            for node in nodes.values():
                if isinstance(node, nir.Delay) and (np.asarray(node.delay) < self.dt / 2).all():
                    node.delay = np.round(np.asarray(node.delay) / random_graphs.DT) * self.dt
        return nir.NIRGraph(nodes, made.edges, metadata={"dt": self.dt}, type_check=False)


def frames(rng, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Input (T, B, *shape): silent, sparse and saturated steps; on chips that take them, and in floats, also counts."""
    steps, samples = int(rng.integers(1, 13)), int(rng.integers(1, 4))
    density = np.asarray(rng.choice([0.0, 0.1, 0.4, 0.9, 1.0], (steps, samples)), float)
    chances = np.asarray(rng.integers(0, 1000, (steps, samples, *shape))) / 1000
    fired = (chances < density.reshape(steps, samples, *(1,) * len(shape))).astype(float)
    if kind == "wide" and rng.random() < 0.8:
        return fired * float([16, 64, 127, 128, 255, 256, 512][int(rng.integers(7))])
    if kind == "extreme" and rng.random() < 0.4:
        return fired * np.asarray(rng.choice([1.0, 1024.0, 1023.0, 2047.0, 2048.0], fired.shape), float)
    if kind == "lava" or rng.random() < 0.7:
        return fired
    low, high = (-3, 4) if kind in ("dyadic", "floats") else (0, 10)
    return fired * np.asarray(rng.integers(low, high, fired.shape))


def grow(rng, kind: str | None = None) -> Case:
    """A graph and its input from what `rng` gives."""
    kind = kind or KINDS[int(rng.integers(len(KINDS)))]
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    if kind == "lava" and len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    graph = Grower(rng, kind).grow(shape)
    return Case(kind, graph, frames(rng, kind, shape))


def case(seed: int, number: int, kind: str | None = None) -> Case:
    """The graph of that number in the campaign of that seed."""
    return grow(np.random.default_rng([seed, number]), kind)
