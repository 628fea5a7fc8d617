"""Random integer graphs of every kind that the chips run: what generated code and Lava are held to."""

import nir
import numpy as np

DT = 1e-4
SHAPES = [(2, 9, 8), (3, 6, 7), (4, 5), (1, 11), (13,), (40,)]


class Grower:
    """Grows a graph node by node. Edges that would close a loop carry a Delay."""

    def __init__(self, rng: np.random.Generator, kind: str = "any"):
        self.rng, self.kind = rng, kind
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, values):
        return values[int(self.rng.integers(len(values)))]

    def add(self, name: str, node: nir.NIRNode, *sources: str) -> str:
        name = f"{name}{len(self.nodes)}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    # ---------------------------------------------------------------------------------------------- linear

    def weights(self, *shape: int) -> np.ndarray:
        weight = self.rng.integers(*self.pick([(-128, 128), (-20, 60), (1, 128)]), shape)
        weight.flat[0] = 5  # no matrix of zeros
        return weight.astype(float)

    def bias(self, size: int) -> np.ndarray:
        if self.kind == "lava" and self.chance(0.5):
            return np.zeros(size)
        return self.pick([np.zeros(size), self.rng.integers(-30, 40, size).astype(float)])

    def linear(self, source: str, shape: tuple[int, ...], size: int | None = None) -> tuple[str, tuple[int, ...]]:
        """A convolution where the shape is one of channels, else a dense layer, of `size` outputs where asked."""
        if len(shape) > 1 and size is None and self.chance(0.8):
            found = self.conv(source, shape)
            if found:
                return found
        if len(shape) > 1:
            source = self.add("flat", nir.Flatten(None, 0, -1), source)
        size, inputs = size or int(self.rng.integers(2, 20)), int(np.prod(shape))
        weight = self.weights(size, inputs)
        node = nir.Linear(weight) if self.chance(0.5) else nir.Affine(weight, self.bias(size))
        return self.add("fc", node, source), (size,)

    def conv(self, source: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
        dimensions = len(shape) - 1
        groups = self.pick([g for g in (1, 2, 3) if shape[0] % g == 0])
        out = groups * int(self.rng.integers(1, 5))
        kernel = self.rng.integers(1, 5, dimensions)
        stride, dilation = self.rng.integers(1, 4, dimensions), self.rng.integers(1, 4, dimensions)
        padding = np.array([int(self.rng.integers(0, k + 1)) for k in kernel])
        if self.chance(0.2):  # a lowered pooling, or one of two
            kernel, stride, dilation, padding = (np.full(dimensions, v) for v in (2, 2, 1, 0))
        sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1
                 for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)]
        if min(sizes) < 1:
            return None
        weight, bias = self.weights(out, shape[0] // groups, *kernel), self.bias(out)
        if self.kind != "lava" and self.chance(0.15):
            stride, padding, sizes = np.ones(dimensions, int), "same", shape[1:]
        if dimensions == 1:
            padding = padding if isinstance(padding, str) else int(padding[0])
            node = nir.Conv1d(None, weight, int(stride[0]), padding, int(dilation[0]), groups, bias)
        else:
            padding = padding if isinstance(padding, str) else tuple(map(int, padding))
            node = nir.Conv2d(None, weight, tuple(map(int, stride)), padding, tuple(map(int, dilation)), groups, bias)
        return self.add("conv", node, source), (out, *map(int, sizes))

    # --------------------------------------------------------------------------------------------- neurons

    def constant(self, shape: tuple[int, ...], values) -> np.ndarray:
        """One value a layer, one a row of the picture, or one a neuron."""
        if self.kind == "lava" or self.chance(0.7):
            return np.full(shape, float(self.pick(values)))
        per = shape if self.chance(0.6) else (shape[0], *(1,) * (len(shape) - 1))
        return np.broadcast_to(self.rng.choice(values, per).astype(float), shape).copy()

    def neurons(self, sources: list[str], shape: tuple[int, ...], fan_in: int) -> str:
        zero = np.zeros(shape)
        top = max(2, min(131071, 12 * fan_in))
        thetas = [1, *self.rng.integers(1, top, 4).tolist()] + ([131071] if self.chance(0.1) else [])
        theta = self.constant(shape, thetas)
        slow = self.kind == "extreme"
        decay = self.constant(shape, [1, 3, 5] if slow else [1, 128, 410, 1000, 4095])
        tau = DT * 4096 / decay
        if self.chance(0.4):
            cell = self.add("li", self.pick([nir.LI(tau, tau / DT, zero), nir.I(np.full(shape, 1 / DT))]), *sources)
            leaks = isinstance(self.nodes[cell], nir.LI) and self.kind != "lava" and self.chance(0.4)
            name = self.add("th", nir.Threshold(theta), cell)
            back = self.add("reset", nir.Scale(-theta * (1 - decay / 4096) if leaks else -theta), name)
            self.edges.append((back, cell))
            return name
        syn = self.constant(shape, [2, 5] if slow else [300, 700, 3000])
        kinds = [nir.LIF(tau, tau / DT, zero, theta, zero), nir.IF(np.full(shape, 1 / DT), theta, zero),
                 nir.CubaLIF(DT * 4096 / syn, tau, tau / DT, zero, theta, zero, 4096 / syn)]
        if self.kind != "lava":
            kinds.append(nir.Threshold(theta))
        return self.add("lif", kinds[2] if slow else self.pick(kinds), *sources)

    # ------------------------------------------------------------------------------------------------ graph

    def grow(self, shape: tuple[int, ...]) -> nir.NIRGraph:
        self.nodes["input"] = nir.Input({"input": np.array(shape)})
        spiking: list[tuple[str, tuple[int, ...]]] = [("input", shape)]
        for _ in range(int(self.rng.integers(1, 5))):
            source, given = spiking[-1]
            if self.chance(0.15):
                source = self.add("late", nir.Delay(np.full(given, DT * int(self.rng.integers(1, 5)))), source)
            first, made = self.linear(source, given)
            sources, fan_in = [first], 8 * int(np.prod(given))
            if len(made) > 1 and self.chance(0.15):  # neurons behind a flattened picture
                sources, made = [self.add("flat", nir.Flatten(None, 0, -1), first)], (int(np.prod(made)),)
            if len(spiking) > 1 and self.chance(0.4) and len(made) == 1:  # a skip
                other, other_shape = self.pick(spiking[:-1])
                if self.chance(0.5):
                    other = self.add("late", nir.Delay(np.full(other_shape, DT * int(self.rng.integers(0, 4)))), other)
                if len(other_shape) > 1:
                    other = self.add("flat", nir.Flatten(None, 0, -1), other)
                weight = self.weights(made[0], int(np.prod(other_shape)))
                sources.append(self.add("skip", nir.Linear(weight), other))
            name = self.neurons(sources, made, min(fan_in, 400))
            if self.chance(0.35):
                self.feed_back(name, made, sources[0])
            spiking.append((name, made))
        self.finish(*spiking[-1])
        return nir.NIRGraph(self.nodes, self.edges, metadata={"dt": DT}, type_check=False)

    def feed_back(self, name: str, shape: tuple[int, ...], into: str) -> None:
        """The spikes of a layer back to it, a step late, or later through a Delay."""
        cell = next(b for a, b in self.edges if a == into)
        if len(shape) == 3 and self.chance(0.7):
            weight = self.weights(shape[0], shape[0], 3, 3)
            back = self.add("rec", nir.Conv2d(None, weight, 1, 1, 1, 1, np.zeros(shape[0])), name)
        elif len(shape) == 1:
            source = name
            if self.chance(0.4):
                source = self.add("late", nir.Delay(np.full(shape, DT * int(self.rng.integers(1, 4)))), name)
            back = self.add("rec", nir.Linear(self.weights(shape[0], shape[0])), source)
        else:
            return
        self.edges.append((back, cell))

    def finish(self, name: str, shape: tuple[int, ...]) -> None:
        if self.chance(0.5):
            if len(shape) > 1:
                name = self.add("flat", nir.Flatten(None, 0, -1), name)
            name = self.add("readout", nir.Affine(self.weights(3, int(np.prod(shape))), self.bias(3)), name)
        self.nodes["output"] = nir.Output(None)
        self.edges.append((name, "output"))


def graph(seed: int, kind: str = "any") -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """A random graph and the shape of its input.

    Args:
        kind: any; extreme (slow and one-sided: wraps and saturates); lava (what Lava's own processes hold).
    """
    rng = np.random.default_rng(seed)
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    if kind == "lava" and len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    return Grower(rng, kind).grow(shape), shape


def frames(seed: int, steps: int, samples: int, shape: tuple[int, ...], largest: int = 1) -> np.ndarray:
    """Input (T, B, *shape) uint8, busy and quiet by turns."""
    rng = np.random.default_rng(seed + 10**6)
    density = rng.choice([0.05, 0.3, 0.9], (steps, samples))
    fired = rng.random((steps, samples, *shape)) < density.reshape(steps, samples, *(1,) * len(shape))
    return (fired * rng.integers(1, largest + 1, fired.shape)).astype(np.uint8)
