"""Operations counted from recorded spikes and the true fan-out of every source neuron: whole numbers, no rates.

What is counted, per layer:

- events: source values that are not 0, each at each step (a spike, a pixel with events, a pooled value);
- SynOps: events times the fan-out of their source, border of a convolution and synapses of weight 0 included; an edge
  without weights (a shortcut) has none;
- MACs and ACs: the effective ones of NeuroBench 2.3 (`SynapticOperations`): source value and weight are both not 0,
  biases do not count. A layer whose sources give only -1, 0 and 1 accumulates (AC), any other multiplies (MAC).
  NeuroBench decides that anew for each call of a layer, here it is decided once for a run: on counted events, of which
  some batches are binary by chance, the sum of MACs and ACs is the same and its parts may differ;
- dense: what the layer would compute if no value and no weight were 0 (NeuroBench's Dense);
- updates: neurons times steps times samples.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx
import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError
from targets import reference
from targets.graph import NEURONS, SPIKING, STATELESS, Plan
from targets.graph.shapes import array
from targets.loihi.layers import LINEAR
from targets.nodes import stateless as linear


@dataclass(frozen=True)
class NeuronCounts:
    """A population of neurons over a run; `silent` never spiked. Neurons without a threshold (LI) have neither."""

    layer: str
    neurons: int
    spikes: int
    silent: int
    updates: int


@dataclass(frozen=True)
class SynapseCounts:
    """A linear layer over a run; `passes` is how often it was computed (steps times samples, or samples).

    `synapses` is the number of true edges and `outputs` that of its results, both of one pass; `encodes`: no spike lies
    between the Input and the layer, and what comes in is not only -1, 0 and 1 (direct encoding).
    """

    layer: str
    synapses: int
    outputs: int
    passes: int
    events: int
    synops: int
    macs: int
    acs: int
    encodes: bool = False

    @property
    def dense(self) -> int:
        """Operations with nothing left out."""
        return self.synapses * self.passes


@dataclass(frozen=True)
class Counts:
    """All layers of a run in the order of the network."""

    samples: int
    steps: int
    layers: tuple[NeuronCounts | SynapseCounts, ...]

    @property
    def synapses(self) -> tuple[SynapseCounts, ...]:
        """The linear layers."""
        return tuple(layer for layer in self.layers if isinstance(layer, SynapseCounts))

    def total(self, key: str) -> int:
        """Sum of a count, by its name, over all layers that have it."""
        return sum(getattr(layer, key) for layer in self.layers if hasattr(layer, key))


@dataclass
class Tally:
    """Sums over a run, neuron by neuron, to which samples are added chunk by chunk.

    `fired`: spikes of each neuron of a spiking layer, and how often each value of the Input was not 0; `events`,
    `passes`, `binary`: of each linear layer, how often each of its inputs was not 0, how many inputs came in all, and
    whether all of them were -1, 0 or 1.
    """

    samples: int = 0
    steps: int = 0
    fired: dict[str, Tensor] = field(default_factory=dict)
    events: dict[str, Tensor] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    binary: dict[str, bool] = field(default_factory=dict)

    def add_spikes(self, layer: str, spikes: Tensor) -> None:
        """Spikes (T, B, *shape) of a layer."""
        self.fired[layer] = self.fired.get(layer, 0) + (spikes != 0).sum((0, 1))

    def add_levels(self, layer: str, spikes: Tensor) -> None:
        """The same of neurons that count: an s of 3 is three spikes."""
        self.fired[layer] = self.fired.get(layer, 0) + spikes.round().to(torch.int64).sum((0, 1))

    def add_inputs(self, layer: str, x: Tensor, unit: float | None = None) -> None:
        """Inputs (N, *shape) of a linear layer; where `unit` is given, they are so many events of this size."""
        events = (x != 0) if unit is None else (x / unit).round().to(torch.int64)
        self.events[layer] = self.events.get(layer, 0) + events.sum(0)
        self.passes[layer] = self.passes.get(layer, 0) + len(x)
        binary = unit is not None or bool(((x == 0) | (x.abs() == 1)).all())
        self.binary[layer] = self.binary.get(layer, True) and binary

    def add_run(self, layout: Plan, frames: Tensor, spikes: dict[str, Tensor],
                units: dict[str, float] | None = None) -> None:
        """A run of a graph on frames (T, B, *Input), with the spikes (T, B, ...) that it gave.

        `units`: of linear nodes whose inputs are counts of events, what one event is.
        """
        self.steps = len(frames)
        self.samples += frames.shape[1]
        self.add_spikes(layout.input, frames)
        for name in layout.spiking():
            spikes[name] = spikes[name].reshape(*frames.shape[:2], *layout.output_shape[name])
            self.add_spikes(name, spikes[name])
        for name, x in layer_inputs(layout, frames, spikes):
            self.add_inputs(name, x.flatten(0, 1), (units or {}).get(name))


def fan_out(name: str, node: nir.NIRNode, shape: tuple[int, ...], effective: bool = False) -> Tensor:
    """How many synapses each input of a linear node has, int64 of `shape`; `effective`: only those of weight not 0.

    The adjoint of the layer with all weights 1, applied to ones: padding, stride, dilation and groups as they are.
    """
    weight = array(node.weight)
    ones = copy.copy(node)
    ones.weight = (weight != 0 if effective else np.ones_like(weight)).astype(np.float64)
    with torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
        found, = torch.autograd.grad(linear.apply(name, ones, x, shape, bias=False).sum(), x)
    return found[0].round().to(torch.int64)


def count_synapses(name: str, node: nir.NIRNode, shape: tuple[int, ...], outputs: int, tally: Tally,
                   first: bool = False) -> SynapseCounts:
    """Counts of the linear node `name`, which takes `shape`; `first`: no spike lies between it and the Input."""
    edges, events = fan_out(name, node, shape), tally.events[name]
    effective = int((fan_out(name, node, shape, effective=True) * events).sum())
    binary = tally.binary[name]
    return SynapseCounts(name, int(edges.sum()), outputs, tally.passes[name], int(events.sum()),
                         int((edges * events).sum()), 0 if binary else effective, effective if binary else 0,
                         first and not binary)


def count_neurons(name: str, fired: Tensor, tally: Tally) -> NeuronCounts:
    """Counts of the spiking layer `name`."""
    return NeuronCounts(name, fired.numel(), int(fired.sum()), int((fired == 0).sum()),
                        fired.numel() * tally.steps * tally.samples)


def count_graph(layout: Plan, tally: Tally) -> Counts:
    """Counts of a graph's run. Its readout is computed at every step, as NIR says."""
    layers: list[NeuronCounts | SynapseCounts] = []
    ways = nx.DiGraph((edge.source, edge.target) for edge in layout.edges)
    fed = {name for source in layout.spiking() if source in ways for name in nx.descendants(ways, source)}
    for name, node in layout.nodes.items():
        size = int(np.prod(layout.output_shape[name]))
        if isinstance(node, SPIKING):
            layers.append(count_neurons(name, tally.fired[name], tally))
        elif isinstance(node, LINEAR):
            layers.append(count_synapses(name, node, layout.input_shape[name], size, tally, name not in fed))
        elif isinstance(node, NEURONS) and not all(isinstance(layout.nodes[edge.target], nir.Threshold)
                                                   for edge in layout.targets(name)):
            layers.append(NeuronCounts(name, size, 0, 0, size * tally.steps * tally.samples))
    return Counts(tally.samples, tally.steps, tuple(layers))


def layer_inputs(layout: Plan, frames: Tensor, spikes: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The input (T, B, ...) of every linear node of a graph, from what its Input and its spiking nodes gave.

    A layer in a loop whose result arrives one step later is not charged for the last step, whose result nobody reads.

    Raises:
        HardspikeError: a value inside a loop that does not follow from spikes alone.
    """
    values = {layout.input: frames, **spikes}
    wanted = _before_linear(layout)
    for name, node in layout.nodes.items():
        if name in values or not (isinstance(node, LINEAR) or name in wanted):
            continue
        try:
            given = [_late(values[edge.source]) if edge.delayed else values[edge.source]
                     for edge in layout.sources(name)]
        except KeyError as error:
            raise HardspikeError(f"node '{name}': gets values of a loop without spikes (from {error}), which no "
                                 "recording holds; put a spiking neuron into the loop") from error
        x = given[0] if len(given) == 1 else torch.stack([value.to(torch.float64) for value in given]).sum(0)
        if isinstance(node, LINEAR):
            targets = layout.targets(name)
            yield name, _late(x) if targets and all(edge.delayed for edge in targets) else x
        if name not in wanted:
            continue
        if isinstance(node, STATELESS):
            exact = x if isinstance(node, nir.Flatten) else x.to(torch.float64)
            values[name] = linear.apply(name, node, exact.flatten(0, 1), layout.input_shape[name]).unflatten(
                0, x.shape[:2])
        elif any(edge.delayed for edge in layout.sources(name)):
            raise HardspikeError(f"node '{name}' ({type(node).__name__}): its value feeds a layer and is part of a "
                                 "loop, where only spikes are recorded; give the layer spikes")
        else:
            sources = {edge.source: values[edge.source].to(torch.float64) for edge in layout.sources(name)}
            reference.run_node(layout, name, sources)
            values[name] = sources[name]


def _late(x: Tensor) -> Tensor:
    """One step later; nothing has fired before the first."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


def _before_linear(layout: Plan) -> set[str]:
    """Nodes that neither spike nor are the Input and whose value reaches a linear node without a spike between."""
    found, waiting = set(), [name for name, node in layout.nodes.items() if isinstance(node, LINEAR)]
    while waiting:
        for edge in layout.sources(waiting.pop()):
            source = edge.source
            if source not in found and source != layout.input and not isinstance(layout.nodes[source], SPIKING):
                found.add(source)
                waiting.append(source)
    return found
