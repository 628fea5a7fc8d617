"""What a program gives out: the spikes of its last layers, or the integer sums of a readout behind them."""

from collections.abc import Iterable
from dataclasses import dataclass

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import NEURONS, SPIKING
from targets.graph.shapes import array
from targets.loihi.c.program import Margin, Names, Population, Program, geometry_of, synapses_of
from targets.loihi.layers import LINEAR, Connection, Network
from targets.nodes.neurons import delay_steps


@dataclass(frozen=True)
class Outlet:
    """What comes out of a step, in (C, H, W) order.

    Args:
        shape: of the Output.
        spikes: keys of the populations whose spikes it is (their sum, where there are several); empty: `sums`.
        sums: the readout, a population without a threshold.
    """

    shape: tuple[int, ...]
    spikes: tuple[str, ...]
    sums: Population | None = None


def outlet(network: Network, program: Program, taken: Iterable[str] = ()) -> Outlet:
    """The Output of `network`.

    Raises:
        HardspikeError: the readout is more than one integer linear node behind spikes, by name.
    """
    plan = network.plan
    shape = plan.output_shape[plan.output]
    found: list[Connection] = []
    bias = _walk(network, plan.output, (), 0, found)
    keys = {p.label: key for key, p in program.populations.items()} | {plan.input: ""}
    plain = [c for c in found if not c.linear]
    if len(plain) == len(found):
        if any(c.delay for c in plain) or any(c.source == plan.input for c in plain):
            raise HardspikeError("the Output reads spikes late, or the Input itself; C gives out the spikes of layers "
                                 "in their own step: put a neuron before the Output")
        return Outlet(shape, tuple(keys[c.source] for c in plain))
    if plain:
        raise HardspikeError(f"the Output sums the spikes of '{plain[0].source}' and a readout; C gives out the one or "
                             "the other: put a Linear (identity) between")
    names = Names(taken)
    for p in program.populations.values():
        for name in (p.name, *(s.name for s in p.synapses)):
            names.take(name)
    target = geometry_of(shape, "Output")
    order = target.order()
    synapses = tuple(synapses_of(network, c, names.take(c.linear), keys[c.source],
                                 program.geometry(keys[c.source]), target) for c in found)
    reach = sum(int(np.abs(s.weight).reshape(len(s.weight), -1).sum(1).max()) * (1 if s.source else program.largest)
                for s in synapses) + int(np.abs(bias).max())
    if reach >= 1 << 31:
        raise HardspikeError(f"the readout may sum to {reach}, where 32 bits hold {(1 << 31) - 1}; use smaller weights")
    margin = Margin()
    for s in synapses:
        margin = margin.around(s.margin(program.geometry(s.source), target))
    flat = np.broadcast_to(bias, shape).reshape(-1)[order].astype(np.int64)
    zero = np.zeros(target.size, np.int64)
    return Outlet(shape, (), Population(names.take("scores"), "the readout", target, margin, synapses, None, flat, zero,
                                        zero, "zero", -1, True, False, False, float(reach)))


def _walk(network: Network, at: str, path: tuple[str, ...], delay: int, found: list[Connection]) -> np.ndarray | float:
    """Back from the Output to spikes; gives the bias that lies on the way."""
    plan, node = network.plan, network.plan.nodes[at]
    linear = next((name for name in path if isinstance(plan.nodes[name], LINEAR)), "")
    bias: np.ndarray | float = 0.0
    if isinstance(node, SPIKING) or at == plan.input:
        found.append(Connection(at, linear, path, delay))
        return bias
    if isinstance(node, LINEAR) and not linear:
        _require_integers(at, node)
        if isinstance(node, nir.Affine | nir.Conv1d | nir.Conv2d):
            values = array(node.bias).astype(np.float64)
            bias = np.broadcast_to(values.reshape(-1, *(1,) * (len(plan.output_shape[at]) - 1)), plan.output_shape[at])
            for step in path:
                bias = bias.reshape(plan.output_shape[step])
    elif isinstance(node, nir.Delay):
        steps = delay_steps(at, node, plan.input_shape[at], plan.dt)
        if np.ptp(steps) > 0:
            raise HardspikeError(f"node '{at}': delays by {steps.min()} to {steps.max()} steps; C is written for one "
                                 "delay of all neurons")
        delay += int(steps.flat[0])
    elif not isinstance(node, nir.Flatten | nir.Output):
        raise HardspikeError(f"node '{at}' ({type(node).__name__}): lies behind the last spikes, where C is written "
                             f"for one linear node; {_instead(network, at)}")
    for edge in plan.sources(at):
        later = _walk(network, edge.source, (at, *path), delay + int(edge.delayed), found)
        if isinstance(node, nir.Delay) and np.any(later):
            raise HardspikeError(f"node '{at}' (Delay): delays a bias as well; put it before the linear node")
        bias = bias + later
    return bias


def _instead(network: Network, at: str) -> str:
    """What to do about a node behind the last spikes."""
    plan = network.plan
    if not isinstance(plan.nodes[at], NEURONS):
        return "fold it into that, or put a neuron behind it"
    before = [edge.source for edge in plan.sources(at) if isinstance(plan.nodes[edge.source], LINEAR)]
    given = f"what '{before[0]}' gives, and integrate that on the host" if before else "the spikes before it"
    return f"it integrates, which C leaves to the host: let the network return {given}; or let it fire and return " \
        "its spikes"


def _require_integers(name: str, node: nir.NIRNode) -> None:
    for key in ("weight", "bias"):
        values = array(getattr(node, key, 0.0)).astype(np.float64)
        if (values != np.round(values)).any() or np.abs(values).max(initial=0) >= 1 << 31:
            worst = values.flat[np.abs(values - np.round(values)).argmax()]
            raise HardspikeError(f"node '{name}': {key} {worst:g}; a readout in C has integers of 32 bits: quantise "
                                 "the graph first (`hardspike export quantise`)")
