"""A NIR graph a sample, a step and a neuron at a time, in Python's own numbers: what every target is held to.

Floats follow NIR's equations (Pedersen et al. 2024), forward Euler with the input constant during a step, `>` and then
the reset; integers follow lava-nc's fixed-point LIF. Nothing of `targets` is used. An edge is a step late where its
target dominates its source (the back edges of a flow graph); a Delay of at least a step reads the past by itself.
"""

from dataclasses import dataclass, field

import nir
import numpy as np

TOP = 1 << 23
SPIKING = nir.IF | nir.LIF | nir.CubaLIF | nir.Threshold
STATEFUL = SPIKING | nir.I | nir.LI | nir.CubaLI
Values = list


@dataclass
class Run:
    """Spikes and membranes of every spiking node and the output, (T, B, neurons) each; `largest`: of all integers, what
    a current or a membrane was before it was wrapped or clipped.
    """

    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    membrane: dict[str, np.ndarray] = field(default_factory=dict)
    output: np.ndarray = field(default_factory=lambda: np.zeros(0))
    largest: int = 0


# ------------------------------------------------------------------------------------------------- the graph


def flat(graph: nir.NIRGraph, prefix: str = "") -> tuple[dict, list]:
    """Nodes by dotted names and edges; the ends of subgraphs stay, as wires."""
    nodes, edges, ends = {}, [], {}
    for key, node in graph.nodes.items():
        name = ends[key, 0] = ends[key, 1] = prefix + key
        if isinstance(node, nir.NIRGraph):
            inner, within = flat(node, name + ".")
            nodes, edges = nodes | inner, edges + within
            for at, kind in enumerate((nir.Output, nir.Input)):
                ends[key, at] = next(f"{name}.{child}" for child, n in node.nodes.items() if isinstance(n, kind))
        else:
            nodes[name] = node
    return nodes, edges + [(ends[a, 0], ends[b, 1]) for a, b in graph.edges]


def waits(node) -> bool:
    return isinstance(node, nir.Delay) and bool((np.asarray(node.delay) > 0).all())


def schedule(nodes: dict, edges: list) -> tuple[list[str], set]:
    """Names in the order of a step, and the edges that are a step late."""
    roots = {name for name, node in nodes.items() if waits(node) or not any(b == name for _, b in edges)}
    before = {name: {a for a, b in edges if b == name} for name in nodes}
    above = {name: {name} if name in roots else set(nodes) for name in nodes}  # what dominates a node
    for _ in range(len(nodes) + 1):
        for name in nodes:
            if name not in roots:
                above[name] = {name} | set.intersection(*(above[a] for a in before[name]))
    late = {(a, b) for a, b in edges if b in above[a] and not waits(nodes[b])}
    order: list[str] = []
    while len(order) < len(nodes):
        ready = [n for n in nodes if n not in order and (
            n in roots or all(a in order or (a, n) in late for a in before[n]))]
        if not ready:
            raise ValueError("a loop that is entered at several nodes")
        order += ready
    return order, late


def taps(node, shape: tuple) -> tuple[tuple, list]:
    """(shape, [(bias, [(input, weight)]) of every output]) of a node without a state."""
    if isinstance(node, nir.Linear | nir.Affine):
        bias = np.broadcast_to(getattr(node, "bias", 0.0), len(node.weight))
        return (len(node.weight),), [(bias[o], list(enumerate(row))) for o, row in enumerate(node.weight.tolist())]
    if isinstance(node, nir.Conv1d | nir.Conv2d | nir.SumPool2d | nir.AvgPool2d):
        return _windows(node, shape)
    size = int(np.prod(shape))
    scale = np.broadcast_to(_fit(node.scale, shape), shape).ravel() if isinstance(node, nir.Scale) else np.ones(size)
    if isinstance(node, nir.Flatten):
        axes = range(len(shape))[node.start_dim:][:1][0], range(len(shape))[node.end_dim]
        shape = (*shape[:axes[0]], int(np.prod(shape[axes[0]:axes[1] + 1])), *shape[axes[1] + 1:])
    return shape, [(0.0, [(i, scale[i])]) for i in range(size)]


def _windows(node, shape: tuple) -> tuple[tuple, list]:
    line = len(shape) == 2
    channels, height, width = (shape[0], 1, shape[1]) if line else shape
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel, groups, dilation = _two(node.kernel_size), channels, (1, 1)
        share = 1.0 if isinstance(node, nir.SumPool2d) else 1 / (kernel[0] * kernel[1])
        weight, bias = np.full((channels, 1, *kernel), share), np.zeros(channels)
    else:
        weight, groups = np.asarray(node.weight), int(node.groups)
        weight = weight[:, :, None] if line else weight
        bias, dilation = np.broadcast_to(node.bias, len(weight)), _two(node.dilation)
    out, inside, ky, kx = weight.shape
    if isinstance(node.padding, str):
        total = [d * (k - 1) * (node.padding == "same") for d, k in zip(dilation, (ky, kx), strict=True)]
        first, last = [t // 2 for t in total], [t - t // 2 for t in total]
    else:
        first = last = [0, _two(node.padding)[1]] if line else _two(node.padding)
    (sy, sx), (dy, dx) = _two(node.stride), dilation
    rows = range(-first[0], height + last[0] - dy * (ky - 1), 1 if line else sy)
    columns = range(-first[1], width + last[1] - dx * (kx - 1), sx)
    made = []
    for o in range(out):
        base = o // (out // groups) * inside
        for y in rows:
            for x in columns:
                made.append((bias[o], [
                    ((base + c) * height * width + (y + j * dy) * width + x + i * dx, float(weight[o, c, j, i]))
                    for c in range(inside) for j in range(ky) for i in range(kx)
                    if 0 <= y + j * dy < height and 0 <= x + i * dx < width]))
    return ((out, len(columns)) if line else (out, len(rows), len(columns))), made


def _two(value) -> list[int]:
    found = [int(v) for v in np.ravel(value)]
    return found * 2 if len(found) == 1 else found


def _fit(value, shape: tuple) -> np.ndarray:
    values = np.asarray(value, float)
    return values.reshape(-1, *(1,) * (len(shape) - 1)) if values.ndim == 1 and len(shape) > 1 else values


def weighed(columns: dict, x: Values, size: int) -> Values:
    """The sum of weight times value of every output, in the order of the inputs; what is zero adds nothing."""
    found = [0] * size
    for i, value in enumerate(x):
        if value:
            for o, w in columns.get(i, ()):
                found[o] += w * value
    return found


# ----------------------------------------------------------------------------------------------- the neurons


def euler(node, k: int, x: float, s: dict, dt: float, p: dict) -> tuple[float, float]:
    """(output, membrane) of neuron `k` for its input `x`; `s`: its state v and i."""
    kind, v = type(node), s.get(("v", k), 0.0)
    if kind is nir.Threshold:
        return float(x > p["threshold"][k]), x
    if kind in (nir.CubaLIF, nir.CubaLI):
        i = s.get(("i", k), 0.0)
        x = s["i", k] = i + dt / p["tau_syn"][k] * (p["w_in"][k] * x - i)
    if kind in (nir.IF, nir.I):
        v = v + dt * p["r"][k] * x
    else:
        tau = p["tau" if "tau" in p else "tau_mem"][k]
        v = v + dt / tau * (p["v_leak"][k] - v + p["r"][k] * x)
    s["v", k] = v
    if "v_threshold" not in p:
        return v, v
    fired = v > p["v_threshold"][k]
    if fired:
        s["v", k] = p["v_reset"][k]
    return float(fired), v


def decayed(x: int, decay: int) -> int:
    return (1 if x > 0 else -1) * ((abs(x) * (4096 - decay)) >> 12)


def wrapped(u: int) -> int:
    return u - 2 * TOP if u > TOP else u + 2 * TOP if u <= -TOP else u


def clipped(v: int) -> int:
    return max(1 - TOP, min(TOP - 1, v))


def loihi(node, k: int, current: int, offset: int, s: dict, dt: float, p: dict, taken: int = 0) -> tuple[int, int]:
    """(output, membrane) of neuron `k` in Lava's integers; `current`, `offset` (what by-passes u) and what is `taken`
    off the membrane before it leaks in 64ths."""
    def decay(key):
        return p[key, dt][k]

    def seen(value: int) -> int:
        s["largest"] = max(s.get("largest", 0), abs(value))
        return value

    kind = type(node)
    if kind is nir.Threshold:
        v = clipped(seen(wrapped(seen(current)) + offset))
        return int(v > int(p["threshold"][k]) << 6), v
    keep = decay("tau_syn") if "tau_syn" in p else 4096
    u = s["i", k] = wrapped(seen(decayed(s.get(("i", k), 0), keep) + current))
    leak = 0 if kind in (nir.I, nir.IF) else decay("tau" if "tau" in p else "tau_mem")
    v = s["v", k] = clipped(seen(decayed(s.get(("v", k), 0) - taken, leak) + u + offset))
    if "v_threshold" not in p:
        return v, v
    fired = v > int(p["v_threshold"][k]) << 6
    if fired:
        s["v", k] = 0
    return int(fired), v


# --------------------------------------------------------------------------------------------------- the run


class Machine:
    """A graph ready to run; `integers`: all nodes that lead to a neuron that spikes compute as the chip."""

    def __init__(self, graph: nir.NIRGraph, dt: float, integers: bool):
        self.nodes, self.edges = flat(graph)
        self.order, self.late = schedule(self.nodes, self.edges)
        self.dt = dt
        self.sources = {name: [a for a, b in self.edges if b == name] for name in self.nodes}
        self.shape: dict[str, tuple] = {}
        self.biases: dict[str, list] = {}
        self.columns: dict[str, dict[int, list]] = {}
        self.parameters: dict[str, dict] = {}
        while len(self.shape) < len(self.nodes):
            for name in [n for n in self.nodes if n not in self.shape]:
                self._lay_out(name)
        chip = {name for name, node in self.nodes.items() if isinstance(node, SPIKING)}
        while more := {a for a, b in self.edges if b in chip} - chip:
            chip |= more
        self.chip = chip if integers else set()
        self.leaky = {cell: (name, back) for name in chip for a, back in self.edges for b, cell in self.edges
                      if a == name and b == back and self._leaks(name, back, cell)} if integers else {}

    def _lay_out(self, name: str) -> None:
        node = self.nodes[name]
        if isinstance(node, nir.Input) and not self.sources[name]:
            shape = tuple(int(n) for n in next(iter(node.input_type.values())))
        else:
            shape = next((self.shape[a] for a in self.sources[name] if a in self.shape), None)
            if shape is None:
                return
        self.shape[name] = shape
        if isinstance(node, STATEFUL | nir.Delay):
            self.parameters[name] = {
                key: np.broadcast_to(_fit(value, shape), shape).ravel().tolist() for key, value in vars(node).items()
                if key not in ("input_type", "output_type", "metadata")}
            for key in {"tau", "tau_mem", "tau_syn"} & {*vars(node)}:  # decays of the chip
                taus = self.parameters[name][key]
                self.parameters[name][key, self.dt] = [round(4096 * self.dt / tau) for tau in taus]
        else:
            self.shape[name], rows = taps(node, shape)
            self.biases[name], columns = [bias for bias, _ in rows], self.columns.setdefault(name, {})
            for o, (_, row) in enumerate(rows):
                for i, w in row:
                    columns.setdefault(i, []).append((o, w))

    def _leaks(self, name: str, back: str, cell: str) -> bool:
        """Whether what Scale `back` takes off the membrane of `cell` is not the whole threshold of Threshold `name`."""
        nodes = self.nodes
        if not (isinstance(nodes[name], nir.Threshold) and isinstance(nodes[back], nir.Scale)
                and isinstance(nodes[cell], nir.LI)):
            return False
        taken = {o: w for row in self.columns[back].values() for o, w in row}
        return any(-taken.get(k, 0) != theta for k, theta in enumerate(self.parameters[name]["threshold"]))

    def stateless(self, name: str, x: Values, offset: Values) -> tuple[Values, Values]:
        """Weighted sums; on a chip a bias goes past the current, and so does what a Scale takes off."""
        biases = self.biases[name]
        sums = weighed(self.columns[name], x, len(biases))
        if name not in self.chip:
            return [bias + total for bias, total in zip(biases, sums, strict=True)], [0] * len(biases)
        if any(name == back for _, back in self.leaky.values()):  # the neuron looks at its last spikes itself
            return [0] * len(biases), [0] * len(biases)
        if isinstance(self.nodes[name], nir.Scale):
            return [0] * len(biases), [int(total) for total in sums]
        past = weighed(self.columns[name], offset, len(biases))
        return [int(total) for total in sums], [int(bias + off) for bias, off in zip(biases, past, strict=True)]

    def silence(self) -> dict:
        """What every node gives before the first step: no neuron has fired, an Affine of a loop gives its bias."""
        reached = {name: {name} for name in self.nodes}
        for _ in self.nodes:
            for a, b in self.edges:
                reached[a] |= reached[b]
        found = {name: ([0] * int(np.prod(self.shape[name])),) * 2 for name in self.nodes}
        for name in self.order:
            loop = [a for a in self.sources[name] if a in reached[name]]
            if name in self.columns and loop:
                found[name] = self.stateless(name, *(
                    [sum(column) for column in zip(*(found[a][at] for a in loop), strict=True)] for at in (0, 1)))
        return found

    def step(self, t: int, frame: Values, past: list[dict], state: dict, result: dict) -> dict:
        """The values of all nodes in step `t`: (activity, offset) each."""
        now: dict = {}
        for name in self.order:
            node = self.nodes[name]
            if not self.sources[name]:
                now[name] = frame, [0] * len(frame)
            elif isinstance(node, nir.Delay):
                now[name] = self._delayed(name, t, now, past)
            elif name in self.columns:
                now[name] = self.stateless(name, *self._arriving(name, now, past))
            else:
                x, offset = self._arriving(name, now, past)
                s, p = state.setdefault(name, {}), self.parameters[name]
                if name in self.chip:
                    # a membrane or a synaptic current arrives in 64ths already
                    raw = any(isinstance(self.nodes[a], nir.LI | nir.I | nir.CubaLI) for a in self.sources[name])
                    taken = [0] * len(x)
                    if name in self.leaky:
                        fires = self.leaky[name][0]
                        taken = [int(theta) * z << 6 for theta, z in
                                 zip(self.parameters[fires]["threshold"], past[-1][fires][0], strict=True)]
                    made = [loihi(node, k, int(a) if raw else int(a) << 6, int(b) << 6, s, self.dt, p, taken[k])
                            for k, (a, b) in enumerate(zip(x, offset, strict=True))]
                else:
                    made = [euler(node, k, a, s, self.dt, p) for k, a in enumerate(x)]
                now[name] = [z for z, _ in made], [0] * len(made)
                if isinstance(node, SPIKING):
                    result[name] = now[name][0], [v for _, v in made]
        return now

    def _delayed(self, name: str, t: int, now: dict, past: list[dict]) -> tuple[Values, Values]:
        steps = [round(d / self.dt) for d in self.parameters[name]["delay"]]
        values = []
        for at in (0, 1):
            values.append([0 if d > t else sum((now if d == 0 else past[t - d])[a][at][k] for a in self.sources[name])
                           for k, d in enumerate(steps)])
        return values[0], values[1]

    def _arriving(self, name: str, now: dict, past: list[dict]) -> tuple[Values, Values]:
        given = [(past[-1] if (a, name) in self.late else now)[a] for a in self.sources[name]]
        if len(given) == 1:
            return given[0]
        return tuple([sum(column) for column in zip(*(g[at] for g in given), strict=True)] for at in (0, 1))


def run(graph: nir.NIRGraph, frames: np.ndarray, dt: float, integers: bool = False) -> Run:
    """Run `graph` on `frames` (T, B, *Input)."""
    machine, steps, samples = Machine(graph, dt, integers), len(frames), frames.shape[1]
    numbers = (lambda x: [int(v) for v in x]) if integers else (lambda x: [float(v) for v in x])
    ends = {name for name, node in machine.nodes.items() if isinstance(node, nir.Output)} - {a for a, _ in
                                                                                             machine.edges}
    seen: list[list[dict]] = []
    outputs, largest = [], 0
    for sample in range(samples):
        # past[t] are the values of step t, past[-1] those of the step before: at first, of silence
        history, state, past, out = [], {}, _Past(machine.silence()), []
        for t in range(steps):
            result: dict = {}
            past.append(machine.step(t, numbers(frames[t, sample].ravel()), past, state, result))
            history.append(result)
            out.append(past[-1][min(ends)][0])
        largest = max([largest, *(s.get("largest", 0) for s in state.values())])
        seen.append(history)
        outputs.append(out)
    found = Run(output=np.array(outputs, float).swapaxes(0, 1), largest=largest)
    for name in (seen[0][0] if steps else ()):
        both = np.array([[history[t][name] for history in seen] for t in range(steps)], float)
        found.spikes[name], found.membrane[name] = both[:, :, 0], both[:, :, 1]
    return found


class _Past(list):
    """Steps so far; before the first there was silence."""

    def __init__(self, silence: dict):
        super().__init__()
        self.silence = silence

    def __getitem__(self, t):
        return self.silence if t == -1 and not len(self) else super().__getitem__(t)

