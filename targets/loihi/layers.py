"""A graph as layers of neurons: what each integrates, over which weights, with which reset.

The integer targets run and map *layers*, not nodes: a layer is one population of spiking neurons with the linear
nodes that feed it. Two forms of neuron are layers, as `export` writes them:

- reset to zero: LIF, IF, CubaLIF, or a Threshold straight after a linear node (a neuron that forgets at once);
- reset by subtraction: LI or I -> Threshold -> Scale(-threshold) -> back, the threshold taken off one step later; with
  Scale(-leak * threshold), what is taken off leaks with the membrane; an LI before the LI is its synaptic current.

What follows the last spikes without a neuron that spikes is the host's readout, a membrane without reset included.
Everything else is a problem with a name.
"""

from dataclasses import dataclass, field

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS, SPIKING, Plan
from targets.graph.shapes import Shape, array, expand
from targets.nodes.neurons import delay_steps
from targets.violation import Violation

LONGEST_PATH = 64
"""Nodes in a row between two layers."""
MOST_PATHS = 100
"""Times that a node is looked at, on average: ways that branch and meet again double with every branch."""
DECAY_UNIT = 4096
"""Lava counts a decay in 4096ths: leak = (4096 - decay) / 4096."""
GAIN_TOLERANCE = 1e-5  # r and tau in float32 divide to 1 within 1e-7
RESET_TOLERANCE = 1e-5  # of the threshold; leaks of neighbouring 4096ths are 2.4e-4 of it apart
RESETS = ("zero", "subtract", "subtract_leaky")
"""What a spike does: v = 0; v - threshold after the next leak; v - threshold before it. Called as in training."""


@dataclass(frozen=True)
class Connection:
    """Spikes of `source` (a layer or the Input), `delay` steps late, through `nodes` (Flatten and one linear node)."""

    source: str
    linear: str
    nodes: tuple[str, ...]
    delay: int


@dataclass(frozen=True)
class Layer:
    """A population of neurons; arrays broadcast against `shape`, values still as the graph has them (unrounded).

    `v_decay`, `i_decay`: 4096 dt/tau of membrane and synaptic current (4096: no memory); `reset`: one of `RESETS`;
    `group`: layers of the same number form a loop; `members`: all its nodes but the linear ones; `synapse`: of these
    the LI that is the current.
    """

    name: str
    shape: Shape
    connections: tuple[Connection, ...]
    threshold: np.ndarray
    bias: np.ndarray
    v_decay: np.ndarray
    i_decay: np.ndarray
    reset: str
    group: int
    members: tuple[str, ...]
    synapse: str = ""


@dataclass
class Network:
    """`layers` in order of execution, the host's nodes in order (Output last), and what is neither; `traced`: nodes
    looked at on the ways between layers."""

    plan: Plan
    layers: dict[str, Layer] = field(default_factory=dict)
    readout: list[str] = field(default_factory=list)
    problems: list[Violation] = field(default_factory=list)
    traced: int = 0

    def recurrent(self, layer: Layer) -> bool:
        """Whether `layer` hears itself, directly or through others."""
        return any(c.source in self.layers and self.layers[c.source].group == layer.group for c in layer.connections)


def split(plan: Plan) -> Network:
    """Find the layers and the readout of a planned graph; `problems` says what does not fit.

    Raises:
        HardspikeError: a delay is not a whole number of steps, or the ways between layers are too many to follow.
    """
    network = Network(plan)
    group_of = {name: index for index, group in enumerate(plan.groups) for name in group}
    for name in plan.spiking():
        network.layers[name] = _layer(network, name, group_of[name])
    _find_readout(network)
    for name in plan.nodes:
        if not plan.targets(name) and name not in network.layers and name != plan.output:
            _problem(network, name, "leads nowhere", "remove it, or put a neuron behind it")
    return network


def _problem(network: Network, name: str, value: str, advice: str, floats: bool = False) -> None:
    violation = Violation(name, "structure", f"{type(network.plan.nodes[name]).__name__} {value}",
                          "integer targets hold layers of spiking neurons", advice, floats=floats)
    if violation not in network.problems:
        network.problems.append(violation)


def _layer(network: Network, name: str, group: int) -> Layer:
    plan, node = network.plan, network.plan.nodes[name]
    shape = plan.output_shape[name]
    cell, subtracts = name, False
    if isinstance(node, nir.Threshold):
        before = [edge.source for edge in plan.sources(name)]
        if len(before) == 1 and isinstance(plan.nodes[before[0]], nir.LI | nir.I | nir.CubaLI):
            cell, subtracts = before[0], True
    decays, synapse, members, reset = _decays(network, cell, shape), "", [name], "zero"
    if subtracts:
        scales, reset = _reset_loop(network, name, cell, decays[0])
        members = [cell, *scales, name]
    inner = [edge for edge in plan.sources(cell) if edge.source not in members]
    feeds = plan.nodes[inner[0].source] if len(inner) == 1 and not inner[0].delayed else None
    if subtracts and isinstance(feeds, nir.LI | nir.I):
        synapse = inner[0].source
        members.insert(0, synapse)
        decays = decays[0], _decays(network, synapse, shape)[0]
        if len(plan.targets(synapse)) > 1:
            _problem(network, synapse, "gives its current to more than its neuron", "use the spikes instead")
    threshold = node.threshold if isinstance(node, nir.Threshold) else node.v_threshold
    connections: list[Connection] = []
    bias = np.zeros(shape)
    for edge in plan.sources(synapse or cell):
        if edge.source not in members:
            bias = bias + _trace(network, name, edge.source, (), int(edge.delayed), connections)
    if synapse and np.any(bias):
        _problem(network, name, "has a bias before its synaptic current", "quantise the graph: `hardspike export "
                 "quantise` makes a cell of it that fires in every step")
    return Layer(name, shape, tuple(connections), expand(name, threshold, shape), bias, *decays, reset, group,
                 tuple(members), synapse)


def taken_off(threshold: np.ndarray, v_decay: np.ndarray, reset: str) -> np.ndarray:
    """What a spike takes off the next membrane: the loop's Scale holds it with a minus."""
    return threshold * (1 - v_decay / DECAY_UNIT) if reset == "subtract_leaky" else threshold


def reset_of(taken: np.ndarray, threshold: np.ndarray, v_decay: np.ndarray) -> str | None:
    """Which of `RESETS` takes so much off; None: no reset does. All of one shape, or broadcast to it."""
    if (taken == threshold).all():
        return "subtract"
    off = np.abs(taken - taken_off(threshold, v_decay, "subtract_leaky"))
    return "subtract_leaky" if (off <= RESET_TOLERANCE * np.abs(threshold)).all() else None


def _reset_loop(network: Network, name: str, cell: str, v_decay: np.ndarray) -> tuple[list[str], str]:
    """The Scale nodes that take the threshold of Threshold `name` off the membrane of `cell` one step later, and what
    they do of `RESETS`: with the leak in it, the Scale is the subtraction before the leak.
    """
    plan, reset = network.plan, None
    if {edge.target for edge in plan.targets(cell)} != {name}:
        _problem(network, cell, "gives its membrane to more than its Threshold", "let forward return its spikes "
                 "instead; or, where no layer hears them, make it with reset_mechanism='none': the host integrates it "
                 "then, which C does not write")
    scales = []
    for edge in plan.sources(cell):
        scale = plan.nodes[edge.source]
        if isinstance(scale, nir.Scale) and [e.source for e in plan.sources(edge.source)] == [name]:
            scales.append(edge.source)
            shape = plan.output_shape[name]
            taken = -np.broadcast_to(expand(edge.source, scale.scale, shape), shape)
            theta = np.broadcast_to(expand(name, plan.nodes[name].threshold, shape), shape)
            steps = int(edge.delayed) + sum(e.delayed for e in plan.sources(edge.source))
            reset = reset_of(taken, theta, v_decay)
            if reset is None or steps != 1 or len(plan.targets(edge.source)) != 1:
                worst = int(np.abs(taken - theta).argmax())
                _problem(network, edge.source, f"takes {taken.flat[worst]:g} off after {steps} steps, threshold is "
                         f"{theta.flat[worst]:g}", "scale by minus the threshold, or by minus leak times threshold, "
                         "straight back to the membrane (in training, reset 'subtract' or 'subtract_leaky')")
    if not scales:
        _problem(network, name, "is never reset", "a neuron of the chip is: train with reset 'zero' or 'subtract'")
    elif len(scales) != 1:
        _problem(network, name, f"has {len(scales)} reset loops Scale(-threshold) back to '{cell}'",
                 "write a LIF for a reset to zero, or one such loop for a subtracting reset")
    return scales, reset or "subtract"


def _decays(network: Network, name: str, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """(v_decay, i_decay) of a neuron, after checks that the rest of its parameters is neutral."""
    node, dt = network.plan.nodes[name], network.plan.dt
    p = {key: expand(name, value, shape) for key, value in vars(node).items()
         if key not in ("input_type", "output_type", "metadata")}
    full = np.full((1,) * len(shape), float(DECAY_UNIT))
    for key in ("v_leak", "v_reset"):
        if key in p and p[key].any():
            _problem(network, name, f"has {key} = {p[key].flat[np.abs(p[key]).argmax()]:g}",
                     f"train with {key} = 0 (a resting potential is a bias)")
    if isinstance(node, nir.Threshold):
        return full, full
    steps = p.get("tau", p.get("tau_mem"))
    gain = p["r"] * dt if steps is None else p["r"] / (steps / dt)
    gains = {"r": gain} | ({"w_in": p["w_in"] / (p["tau_syn"] / dt)} if "tau_syn" in p else {})
    for key, value in gains.items():
        if abs(value - 1).max() > GAIN_TOLERANCE:
            worst = value.flat[abs(value - 1).argmax()]
            _problem(network, name, f"multiplies its input by {worst:g} ({key})",
                     f"put the factor into the weights, {key} = tau/dt", floats=True)
    v_decay = np.zeros_like(full) if steps is None else DECAY_UNIT * dt / steps
    return v_decay, (DECAY_UNIT * dt / p["tau_syn"] if "tau_syn" in p else full)


def _trace(network: Network, name: str, at: str, path: tuple[str, ...], delay: int,
           found: list[Connection]) -> np.ndarray | float:
    """Follow the edges back from layer `name` to the spikes that feed it; gives the bias that lies on the way."""
    plan, node = network.plan, network.plan.nodes[at]
    network.traced += 1
    if len(path) > LONGEST_PATH or network.traced > MOST_PATHS * len(plan.nodes):
        raise HardspikeError(f"layer '{name}': the nodes before it branch and meet too often, or are more than "
                             f"{LONGEST_PATH} in a row without a neuron; multiply them into one Linear")
    linear = [step for step in path if isinstance(plan.nodes[step], LINEAR)]
    bias: np.ndarray | float = 0.0
    if at in path:
        _problem(network, at, "is in a loop without a neuron", "put a neuron into the loop")
        return bias
    if isinstance(node, SPIKING) or at == plan.input:
        if linear:
            nodes = tuple(step for step in path if not isinstance(plan.nodes[step], nir.Delay))
            found.append(Connection(at, linear[0], nodes, delay))
        else:
            _problem(network, name, f"gets the spikes of '{at}' without weights", "put a Linear (identity) between, as "
                     "`hardspike export quantise` does")
        return bias
    if isinstance(node, LINEAR):
        if linear:
            _problem(network, at, f"and '{linear[0]}' follow each other without a neuron", "multiply them into one")
            return bias
        if isinstance(node, nir.Affine | nir.Conv1d | nir.Conv2d):
            values = array(node.bias).astype(np.float64)
            extra = len(plan.output_shape[at]) - 1
            whole = np.broadcast_to(values.reshape(-1, *(1,) * extra), plan.output_shape[at])
            for step in path:  # Flatten or Delay
                whole = whole.reshape(plan.output_shape[step])
            bias = whole
    elif isinstance(node, nir.Delay):
        steps = delay_steps(at, node, plan.input_shape[at], plan.dt)
        if np.ptp(steps) > 0:
            _problem(network, at, f"delays by {steps.min()} to {steps.max()} steps", "give all neurons the same delay")
        delay += int(steps.flat[0])
    elif not isinstance(node, nir.Flatten):
        advice = ("fold it into the next linear layer: `hardspike export` does"
                  if isinstance(node, nir.Scale | nir.SumPool2d | nir.AvgPool2d) else
                  "neurons of a chip hand on spikes, not their membranes: let it fire, and read its spikes")
        _problem(network, at, f"lies before layer '{name}'", advice)
        return bias
    for edge in plan.sources(at):
        later = _trace(network, name, edge.source, (at, *path), delay + int(edge.delayed), found)
        if isinstance(node, nir.Delay) and np.any(later):
            _problem(network, at, "lies behind a bias, which it would delay as well", "put it before the linear node")
        bias = bias + later
    return bias


def _group(plan: Plan, name: str) -> list[str]:
    return next(group for group in plan.groups if name in group)


def _find_readout(network: Network) -> None:
    """What lies between the last spikes and the Output."""
    plan, waiting, seen = network.plan, [network.plan.output], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in network.layers or name == plan.input:
            continue
        seen.add(name)
        if isinstance(plan.nodes[name], NEURONS) and len(_group(plan, name)) > 1:
            _problem(network, name, "has its membrane read at the Output", "let forward return its spikes "
                     "instead, or make the layer with reset_mechanism='none', which the host integrates, and C does "
                     "not write")
            continue
        waiting += [edge.source for edge in plan.sources(name)]
    network.readout = [name for name in plan.nodes if name in seen]
