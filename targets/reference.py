"""The target `reference`: any NIR graph in float64, forward Euler, layer by layer.

Outside loops a node runs over all time at once (a convolution sees T * B samples); only loops go step by step.
"""

from collections.abc import Iterable

import nir
import torch
from torch import Tensor

from targets.graph import SPIKING, Plan, plan
from targets.inputs import check_memory, check_spikes
from targets.nodes import stateless as linear
from targets.nodes.neurons import STEPS, Coefficients, State, Step, coefficients, delay_steps
from targets.recording import Recording, Transmit
from targets.target import Target
from targets.violation import Violation


def check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    """Nothing: what `plan` accepts runs. Raises what `plan` raises."""
    plan(graph, dt)
    return []


@torch.inference_mode()
def run(graph: nir.NIRGraph, spikes: Tensor, dt: float | None = None, membrane: bool = False,
        transmit: Transmit | None = None) -> Recording:
    """Run `graph` on `spikes` (T, B, *Input).

    Args:
        dt: seconds a step; see `targets.graph.plan`.
        membrane: also keep what every spiking node compares with its threshold.
        transmit: what reaches the next layers of every spiking node's spikes, and is recorded.

    Raises:
        HardspikeError: the graph or the spikes are refused.
    """
    layout = plan(graph, dt)
    spikes = check_spikes(layout, spikes)
    check_memory(layout, spikes, 8, membrane)
    result = Recording({}, torch.empty(0))
    values = {layout.input: spikes.to(torch.float64)}
    last = {edge.source: position for position, group in enumerate(layout.groups) for name in group
            for edge in layout.sources(name)}  # the group that reads a node's values last
    for position, group in enumerate(layout.groups):
        loop = len(group) > 1 or any(edge.source == edge.target for edge in layout.sources(group[0]))
        if group != [layout.input]:
            record = result if membrane else None
            if loop:
                _run_loop(layout, group, values, record)
            else:
                run_node(layout, group[0], values, record)
        for name in group:
            if isinstance(layout.nodes[name], SPIKING):
                if transmit:
                    values[name] = transmit(name, values[name], slice(None))
                result.spikes[name] = values[name].to(torch.uint8)
        for name in [name for name in values if last.get(name, 0) <= position and name != layout.output]:
            del values[name]
    result.output = values[layout.output].clone()
    return result


def run_node(layout: Plan, name: str, values: dict[str, Tensor], record: Recording | None = None) -> None:
    """One node outside any loop, over all time: from the `values` of its sources to its own; membranes to `record`."""
    node, shape = layout.nodes[name], layout.input_shape[name]
    x = _total(values[edge.source] for edge in layout.sources(name))
    if isinstance(node, nir.Output):
        values[name] = x
    elif isinstance(node, nir.Delay):
        values[name], delays = torch.zeros_like(x), _delays(layout, name)
        for t in range(len(x)):
            values[name][t] = _delayed(x, t, delays)
    elif type(node) in STEPS:
        values[name] = torch.empty_like(x)
        membrane = None
        if record is not None and isinstance(node, SPIKING):
            membrane = record.membrane[name] = torch.empty_like(x)
        step, c, state = _neuron(layout, name, x[0])
        for t in range(len(x)):
            values[name][t], v, state = step(x[t], state, c)
            if membrane is not None:
                membrane[t] = v
    else:
        values[name] = linear.apply(name, node, x.flatten(0, 1), shape).unflatten(0, x.shape[:2])


def _run_loop(layout: Plan, group: list[str], values: dict[str, Tensor], record: Recording | None) -> None:
    """The nodes of a loop, step by step; a delayed edge reads what its source gave in the step before."""
    steps, batch = next(iter(values.values())).shape[:2]
    neurons: dict[str, tuple[Step, Coefficients, State]] = {}
    delays: dict[str, Tensor] = {}
    membranes: dict[str, Tensor] = {}
    for name in group:
        values[name] = torch.zeros(steps, batch, *layout.output_shape[name], dtype=torch.float64)
        node = layout.nodes[name]
        if isinstance(node, nir.Delay):
            delays[name] = _delays(layout, name)
        elif type(node) in STEPS:
            neurons[name] = _neuron(layout, name, torch.zeros(batch, *layout.input_shape[name], dtype=torch.float64))
            if record is not None and isinstance(node, SPIKING):
                membranes[name] = record.membrane[name] = torch.empty_like(values[name])
    before = before_start(layout)
    for t in range(steps):
        for name in group:
            node = layout.nodes[name]
            edges = layout.sources(name)
            if name in delays:
                values[name][t] = _total(_delayed(values[edge.source], t, delays[name]) for edge in edges)
                continue
            x = _total(values[edge.source][t] if not edge.delayed else values[edge.source][t - 1] if t
                       else before[edge.source] for edge in edges)
            if name in neurons:
                step, c, state = neurons[name]
                values[name][t], v, state = step(x, state, c)
                neurons[name] = step, c, state
                if name in membranes:
                    membranes[name][t] = v
            else:
                values[name][t] = linear.apply(name, node, x, layout.input_shape[name])


def before_start(layout: Plan) -> dict[str, Tensor]:
    """What the nodes of loops give before the first step, (1, *shape): no neuron has fired, an Affine gives its bias.

    snnTorch's RLeaky and RSynaptic do so; only the node where the loop is entered can have sources outside.
    """
    before = {}
    for group in layout.groups:
        inside = [edge for name in group for edge in layout.sources(name) if edge.source in group]
        for name in group if inside else ():
            before[name] = torch.zeros(1, *layout.output_shape[name], dtype=torch.float64)
            if not isinstance(layout.nodes[name], (nir.Delay, *STEPS)):
                x = sum((before[edge.source] for edge in inside if edge.target == name and edge.source in before),
                        torch.zeros(1, *layout.input_shape[name], dtype=torch.float64))
                before[name] = linear.apply(name, layout.nodes[name], x, layout.input_shape[name])
    return before


def _total(values: Iterable[Tensor]) -> Tensor:
    """What arrives over several edges; a tensor of its own also where it is one."""
    total = sum(values)
    assert isinstance(total, Tensor)  # `plan` refuses a node that nothing feeds
    return total


def _neuron(layout: Plan, name: str, like: Tensor) -> tuple[Step, Coefficients, State]:
    """Step function, coefficients and initial state of a neuron."""
    node = layout.nodes[name]
    step, states = STEPS[type(node)]
    return step, coefficients(name, node, layout.input_shape[name], layout.dt), (torch.zeros_like(like),) * states


def _delays(layout: Plan, name: str) -> Tensor:
    """Delay of every element in steps, one after the other."""
    return torch.from_numpy(delay_steps(name, layout.nodes[name], layout.input_shape[name], layout.dt)).flatten()


def _delayed(x: Tensor, t: int, delays: Tensor) -> Tensor:
    """What a Delay gives at step `t` for its input `x` (T, B, *shape); zero before the first step."""
    value = x.new_zeros(x.shape[1:])  # not as `x` lies in memory: a chip's code gives channels last
    there = (delays <= t).nonzero().squeeze(1)
    value.view(len(value), -1)[:, there] = x.flatten(2)[t - delays[there], :, there].T
    return value


REFERENCE = Target("reference", "float64, forward Euler: what the graph says", run, check, loses_spikes=True)
