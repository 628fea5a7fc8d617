"""Layers onto the cores of a chip: an estimate, since no public tool places networks on Loihi any more.

The model of cost, and where it comes from:

- a neuron is a compartment of one core, and a core holds neurons of one layer, pixel by pixel in row order with all
  channels of a pixel together; the host injects the input and computes the readout, which take no core;
- an input axon is a source neuron of one connection that reaches the core; an output axon is a pair of a neuron and a
  core that it reaches (nengo-loihi 1.1, `block.py`);
- synapse memory is nengo-loihi's `SynapseConfig.bits_per_axon`: blocks of up to 64 weights behind a 10-bit header, each
  rounded up to 64 bits. A weight takes the bits that its integers need beside their common factor, which is an exponent
  (nengo-loihi's WEIGHT_BITS_MAP: 1 to 6 or 8); weights that are no integers yet count 8. A convolution stores the index
  of the target with each weight, and none for a weight of 0; a dense layer stores all of them without indices, or as a
  convolution does where that takes less. No weight is shared between positions of a kernel, so for convolutions it is
  an upper bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import nir
import numpy as np

from hardspike import HardspikeError
from targets.graph import plan
from targets.graph.shapes import array, conv_arguments, groups_of
from targets.limits import Limit, Limits
from targets.loihi.layers import Connection, Layer, Network, split
from targets.violation import Violation

WEIGHT_BITS = 8
HEADER_BITS = 10
BLOCK = 64
"""weights"""
WORD = 64
"""bits"""
WHOLE = "graph"
"""What a limit on all layers together is named after."""


@dataclass
class Core:
    """Neurons of one layer, and what reaches them.

    `members`: which neurons of the layer (flat) it holds; `synapses[i]`: for connection i of the layer, how many
    synapses every source neuron (flat) has here.
    """

    members: np.ndarray
    synapses: list[np.ndarray]
    synapse_bits: int = 0
    output_axons: int = 0

    @property
    def neurons(self) -> int:
        return int(self.members.sum())

    @property
    def input_axons(self) -> int:
        return sum(int(np.count_nonzero(counts)) for counts in self.synapses)

    @property
    def synapse_count(self) -> int:
        return sum(int(counts.sum()) for counts in self.synapses)


@dataclass(frozen=True)
class Excess:
    """A limit that a graph breaks.

    Args:
        layer: that breaks it, by name; `WHOLE` where all of them together do.
        rule: what is counted.
        value: how many of it; an estimate.
        limit: what the chip holds.
        advice: a way out.
    """

    layer: str
    rule: str
    value: int
    limit: Limit
    advice: str

    @property
    def violation(self) -> Violation:
        """The same in words."""
        return Violation(self.layer, self.rule, f"{self.value:,} (estimate)",
                         f"at most {self.limit.known:,} ({self.limit.source})", self.advice)


@dataclass
class Mapping:
    """Cores of every layer, and what does not fit."""

    limits: Limits
    cores: dict[str, list[Core]] = field(default_factory=dict)
    excesses: list[Excess] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        """What does not fit, in words."""
        return [excess.violation for excess in self.excesses]


def map_graph(graph: nir.NIRGraph, limits: Limits, dt: float | None = None) -> Mapping:
    """Where the layers of `graph`, quantised or not, would lie.

    Raises:
        HardspikeError: a part of it is no layer of spiking neurons.
    """
    network = split(plan(graph, dt))
    if network.problems:
        problem = str(network.problems[0]).removeprefix("error: ")
        raise HardspikeError(f"{limits.chip} cannot hold this graph: {problem}")
    return place(network, limits)


def place(network: Network, limits: Limits) -> Mapping:
    """Fill cores layer by layer, each as far as its limits allow.

    `excesses` names a neuron whose own fan-in is more than a core takes, more output axons than a core has, more
    cores or synapses than a chip has: every one of them, since to mend one alone may not be enough. A neuron that is
    too large for any core takes one by itself. A limit that is not public is not applied.
    """
    mapping = Mapping(limits)
    for name, layer in network.layers.items():
        mapping.cores[name] = _fill(network, layer, mapping)
    _count_output_axons(network, mapping)
    for name, cores in mapping.cores.items():
        _compare(mapping, name, "output axons of a core", max(core.output_axons for core in cores), limits.output_axons,
                 "feed fewer or smaller layers from it")
    sizes = {name: len(cores) for name, cores in mapping.cores.items()}
    if sizes:
        largest = max(sizes, key=sizes.__getitem__)
        _compare(mapping, largest, f"cores of the network, {sizes[largest]} of them here", sum(sizes.values()),
                 limits.cores, "make this layer smaller (stride, fewer channels)")
        synapses = sum(core.synapse_count for cores in mapping.cores.values() for core in cores)
        _compare(mapping, WHOLE, "synapses", synapses, limits.synapses, "use fewer or smaller layers")
    return mapping


def _compare(mapping: Mapping, name: str, rule: str, value: int, limit: Limit, advice: str) -> None:
    if limit.value is not None and value > limit.value:
        mapping.excesses.append(Excess(name, rule, value, limit, advice))


def _fill(network: Network, layer: Layer, mapping: Mapping) -> list[Core]:
    """Cores for one layer: neurons of the same fan-in, unit by unit, into the last core or a new one."""
    limits, plan = mapping.limits, network.plan
    linears = [plan.nodes[connection.linear] for connection in layer.connections]
    stored = [_stored(node, limits) for node in linears]
    shape = next((plan.output_shape[c.linear] for c, node in zip(layer.connections, linears, strict=True)
                  if isinstance(node, nir.Conv1d | nir.Conv2d)), (1, math.prod(layer.shape)))
    groups = math.lcm(*(groups_of(node) for node in linears))
    neurons = np.arange(math.prod(shape)).reshape(groups, shape[0] // groups, -1)
    sizes = [math.prod(plan.output_shape[connection.source]) for connection in layer.connections]
    fan_in = [_fan_in(network, connection) for connection in layer.connections]
    bits = [one.bits for one in stored]

    def empty() -> Core:
        return Core(np.zeros(neurons.size, bool), [np.zeros(size, np.int64) for size in sizes])

    cores, complained = [empty()], False
    for pixel in range(neurons.shape[2]):
        for group in range(groups):
            waiting = neurons[group, :, pixel]
            reach = [find(int(waiting[0])) for find in fan_in]
            while len(waiting):
                core, count = cores[-1], len(waiting)
                while count and (excess := _excess(core, _with(core, stored, reach, waiting[:count]), count, bits,
                                                   limits)):
                    count //= 2
                if not count and core.members.any():
                    cores.append(empty())
                    continue
                if not count:  # even alone it does not fit: name it, and place it to go on
                    assert excess is not None  # it halved the count to nothing
                    if not complained:
                        rule, value, limit = excess
                        _compare(mapping, layer.name, f"{rule} for one neuron", value, limit,
                                 "reduce its fan-in (smaller kernel, fewer channels or inputs)")
                    complained, count = True, 1
                core.synapses = _with(core, stored, reach, waiting[:count])
                core.members[waiting[:count]] = True
                core.synapse_bits = _bits(core.synapses, bits)
                waiting = waiting[count:]
    return cores


@dataclass(frozen=True)
class _Stored:
    """How the weights of a connection lie in memory.

    Args:
        bits: of a weight, with the index of its target where that is stored.
        there: which weights take a place, (neurons, inputs) or, for a convolution, (channels, inputs * taps).
        dense: a row a neuron.
    """

    bits: int
    there: np.ndarray
    dense: bool


Reach = tuple[np.ndarray, np.ndarray | slice]
"""Source neurons (flat) that a neuron hears, and which columns of `_Stored.there` they come through."""


def weight_bits(weight: np.ndarray) -> int:
    """Bits of one weight as a synapse holds it: the common factor of all is an exponent, or a scale."""
    if not np.array_equal(weight, np.round(weight)):
        return WEIGHT_BITS
    whole = np.abs(weight).astype(np.int64)
    bits = 1 + int(whole.max(initial=1) // max(int(np.gcd.reduce(whole, axis=None)), 1)).bit_length()
    return bits if bits < 7 else WEIGHT_BITS


def _stored(node: nir.NIRNode, limits: Limits) -> _Stored:
    weight = array(node.weight)
    bits, index, there = weight_bits(weight), _index_bits(limits), (weight != 0).reshape(len(weight), -1)
    dense = isinstance(node, nir.Linear | nir.Affine)
    if dense and bits * there.size <= (bits + index) * np.count_nonzero(there):
        return _Stored(bits, np.ones_like(there), True)
    return _Stored(bits + index, there, dense)


def _with(core: Core, stored: list[_Stored], reach: list[Reach], more: np.ndarray) -> list[np.ndarray]:
    """The synapses of `core` with those of `more` neurons (flat) of one pixel and group."""
    found = []
    for counts, one, (sources, taps) in zip(core.synapses, stored, reach, strict=True):
        rows = more if one.dense else more * len(one.there) // len(core.members)
        counts = counts.copy()
        counts[sources] += one.there[rows][:, taps].sum(0)
        found.append(counts)
    return found


def _excess(core: Core, synapses: list[np.ndarray], count: int, bits: list[int],
            limits: Limits) -> tuple[str, int, Limit] | None:
    """The first limit that `count` more neurons, `synapses` then being there, would break in `core`: its name, the
    value, the limit."""
    for rule, value, limit in (("neurons of a core", core.neurons + count, limits.neurons),
                               ("input axons of a core", sum(map(np.count_nonzero, synapses)), limits.input_axons),
                               ("synapse bits of a core", _bits(synapses, bits), limits.synapse_bits)):
        if limit.value is not None and value > limit.value:
            return rule, int(value), limit
    return None


def _bits(synapses: list[np.ndarray], bits_each: list[int]) -> int:
    """nengo-loihi's `bits_per_axon` over all axons of a core; `bits_each`: of a weight of each connection."""
    total = 0
    for counts, bits in zip(synapses, bits_each, strict=True):
        blocks, rest = np.divmod(counts, BLOCK)
        for number, size in ((blocks.sum(), np.array(BLOCK)), (1, rest[rest > 0])):
            total += int(number * (-(-(size * bits + HEADER_BITS) // WORD) * WORD).sum())
    return total


def _index_bits(limits: Limits) -> int:
    return max(6, math.ceil(math.log2(limits.neurons.known)))


def _fan_in(network: Network, connection: Connection) -> Callable[[int], Reach]:
    """A function from a neuron (flat) to what it hears over `connection`."""
    plan, node = network.plan, network.plan.nodes[connection.linear]
    if isinstance(node, nir.Linear | nir.Affine):
        everything = np.arange(array(node.weight).shape[1])
        return lambda neuron: (everything, slice(None))
    arguments = conv_arguments(connection.linear, node)
    source, target, kernel = plan.input_shape[connection.linear], plan.output_shape[connection.linear], array(
        node.weight).shape[2:]
    stride, dilation = arguments["stride"], arguments["dilation"]
    padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)] if arguments["padding"] == "same" \
        else arguments["padding"]
    places = np.arange(math.prod(source)).reshape(source)
    taps = np.arange(array(node.weight)[0].size).reshape(array(node.weight).shape[1:])

    @lru_cache(maxsize=1)
    def window(group: int, at: tuple[int, ...]) -> Reach:
        axes = [np.arange(k) * d + i * s - p for k, d, i, s, p in
                zip(kernel, dilation, at, stride, padding, strict=True)]
        held = [(axis >= 0) & (axis < size) for axis, size in zip(axes, source[1:], strict=True)]
        channels = array(node.weight).shape[1]
        inside = [axis[there] for axis, there in zip(axes, held, strict=True)]
        used = taps[np.ix_(np.arange(channels), *(np.flatnonzero(there) for there in held))]
        return places[np.ix_(np.arange(channels) + group * channels, *inside)].ravel(), used.ravel()

    def find(neuron: int) -> Reach:
        channel, *at = np.unravel_index(neuron, target)
        return window(int(channel) * arguments["groups"] // target[0], tuple(map(int, at)))

    return find


def _count_output_axons(network: Network, mapping: Mapping) -> None:
    """For every core, the pairs of one of its neurons and a core that this neuron reaches."""
    for name, layer in network.layers.items():
        for index, connection in enumerate(layer.connections):
            if connection.source not in mapping.cores:
                continue
            reached = sum(((core.synapses[index] > 0).astype(np.int64) for core in mapping.cores[name]),
                          np.zeros((), np.int64))
            for core in mapping.cores[connection.source]:
                core.output_axons += int(reached[core.members].sum())
