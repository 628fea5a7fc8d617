"""Energy and time of a mapped integer graph in SANA-FE (GPL-3, the extra `energy`), on its description of Loihi 1.

SANA-FE (Boyle et al., UT Austin) simulates cores, mesh and the synchronisation of steps with prices that it fitted to
Loihi 1; it also computes the neurons, so its spikes say whether it ran the network that was meant. The input comes
from neurons without cost on cores of their own behind the network's, where the chip would have its host.
"""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, progress
from targets.chips import limits_of
from targets.graph import Graph, plan
from targets.graph.shapes import array
from targets.loihi import rules
from targets.loihi.chips import LOIHI1
from targets.loihi.layers import DECAY_UNIT, Connection, Layer, Network, split
from targets.loihi.mapping import map_graph
from targets.nodes import stateless as linear

CORE_NEURONS = 1024
SOURCES = 256
"""Neurons whose synapses are listed at once."""


@dataclass(frozen=True)
class Simulation:
    """Sums over all samples: energy in J by part of the chip (`total` too), time in s, hops between tiles, those of the
    input among them, the target loihi1's spikes, and how many differ here.

    A sample takes `steps`, T + L for L layers, each of which answers a step after the one before.
    """

    samples: int
    steps: int
    joules: dict[str, float]
    seconds: float
    hops: int
    spikes: int
    differing: int


def simulate(graph: Graph, frames: Tensor) -> Simulation:
    """Run a graph quantised for Loihi 1 on frames (T, B, *Input) of 0 and 1, sample by sample from state zero.

    Raises:
        HardspikeError: SANA-FE is not installed, the graph breaks a rule of Loihi 1 or fills more than one chip, has
            loops, delays or synaptic currents, or the frames hold more than 0 and 1.
    """
    try:
        import sanafe
    except ImportError as error:
        raise HardspikeError(f"SANA-FE is not installed ({error}); pip install 'hardspike[energy]'") from error
    layout, limits = plan(graph), limits_of(LOIHI1)
    network, mapping = split(layout), map_graph(graph, limits)
    rules.require(network, limits)
    _check(network, frames)
    size = int(np.prod(layout.output_shape[layout.input]))
    cores = sum(len(found) for found in mapping.cores.values())
    inputs = -(-size // CORE_NEURONS)
    available = limits.cores.value or 0
    if mapping.violations or cores + inputs > available:
        raise HardspikeError(f"the graph takes {cores} cores and {inputs} for its input; Loihi 1 has "
                             f"{available}: make it smaller"
                             + "".join(f"; {violation}" for violation in mapping.violations[:1]))
    architecture, net = sanafe.load_loihi(), sanafe.Network()
    places = [core for tile in architecture.tiles for core in tile.cores]
    groups = {}
    for name, layer in network.layers.items():
        groups[name] = net.create_neuron_group(name, int(np.prod(layer.shape)), soma_hw_name="loihi_lif",
                                               log_spikes=True)
        _place(groups[name], layer, [core.members for core in mapping.cores[name]], places)
        places = places[len(mapping.cores[name]):]
    groups[layout.input] = net.create_neuron_group(layout.input, size)
    for index, neuron in enumerate(groups[layout.input].neurons):
        neuron.set_attributes(soma_hw_name=f"loihi_inputs[{index % CORE_NEURONS}]")
        neuron.map_to_core(places[index // CORE_NEURONS])
    for name, layer in network.layers.items():
        for connection in layer.connections:
            _connect(groups[connection.source], groups[name], network, connection)
    chip = sanafe.SpikingChip(architecture)
    chip.load(net)
    return _run(chip, network, frames, LOIHI1.run(graph, frames).spikes)


def _check(network: Network, frames: Tensor) -> None:
    for name, layer in network.layers.items():
        if network.recurrent(layer) or any(connection.delay for connection in layer.connections):
            raise HardspikeError(f"layer '{name}': has loops or delays, which are not handed to SANA-FE")
        if (layer.i_decay != DECAY_UNIT).any():
            raise HardspikeError(f"layer '{name}': has a synaptic current, which SANA-FE rounds otherwise than Loihi")
    if ((frames != 0) & (frames != 1)).any():
        raise HardspikeError(f"frames go up to {frames.max().item():g}; SANA-FE takes spikes: clip them to 0 and 1")


def _place(group, layer: Layer, members: list[np.ndarray], cores: list) -> None:
    """Neurons of one layer with their parameters, in weight units, onto their cores."""
    threshold, decay = (np.round(np.broadcast_to(value, layer.shape)).ravel()
                        for value in (layer.threshold, layer.v_decay))
    neurons = list(group.neurons)
    for core, chosen in zip(cores, members, strict=False):
        for index in chosen.nonzero()[0].tolist():
            neurons[index].set_attributes(model_attributes={
                "threshold": float(threshold[index]), "leak_decay": float(1 - decay[index] / DECAY_UNIT),
                "reset_mode": "hard"})
            neurons[index].map_to_core(core)


def _connect(source, target, network: Network, connection: Connection) -> None:
    """All synapses of a connection, weights of 0 too."""
    layout, node = network.plan, network.plan.nodes[connection.linear]
    shape = layout.input_shape[connection.linear]
    kind = "loihi_dense_synapse" if isinstance(node, nir.Linear | nir.Affine) else "loihi_conv_synapse"
    ones = copy.copy(node)
    ones.weight = np.ones_like(array(node.weight), float)
    eye = torch.eye(int(np.prod(shape)), dtype=torch.float64)
    for start in range(0, len(eye), SOURCES):
        x = eye[start:start + SOURCES].unflatten(1, shape)
        weight, edges = (linear.apply(connection.linear, n, x, shape, bias=False).flatten(1) for n in (node, ones))
        pairs = edges.nonzero()
        weights = weight[pairs[:, 0], pairs[:, 1]].tolist()
        pairs[:, 0] += start
        source.connect_neurons_sparse(target, {"weight": weights, "synapse_hw_name": [kind] * len(weights)},
                                      [tuple(pair) for pair in pairs.tolist()])


def _run(chip, network: Network, frames: Tensor, expected: dict[str, Tensor]) -> Simulation:
    """All samples; the biases of a layer wait for its first input, since they would move its membrane before."""
    steps, layers = len(frames), list(network.layers.values())
    biases = [np.broadcast_to(layer.bias, layer.shape).ravel() for layer in layers]
    joules: dict[str, float] = {}
    seconds, hops, differing = 0.0, 0, 0
    for sample in progress(range(frames.shape[1]), "SANA-FE"):
        chip.reset()
        for neuron, spikes in zip(chip.mapped_neuron_groups[network.plan.input],
                                  frames[:, sample].flatten(1).T.bool().tolist(), strict=True):
            neuron.set_attributes(model_attributes={"spikes": spikes})
        for layer, bias in zip(layers, biases, strict=True):
            _set_bias(chip, layer.name, 0 * bias)
        trace = []
        for number in range(len(biases) + 1):
            if number:
                _set_bias(chip, layers[number - 1].name, biases[number - 1])
            with _silent():
                result = chip.sim(steps if number == len(layers) else 1, spike_trace=True, perf_trace=True)
            trace += result["spike_trace"]
            seconds += result["sim_time"]
            hops += int(sum(result["perf_trace"]["hops"]))
            for part, value in result["energy"].items():
                joules[part] = joules.get(part, 0.0) + value
        for late, layer in enumerate(layers, start=1):
            fired = torch.zeros(steps, int(np.prod(layer.shape)), dtype=torch.uint8)
            for step, addresses in enumerate(trace[late:late + steps]):
                fired[step, [address.neuron_offset for address in addresses if address.group_name == layer.name]] = 1
            differing += int((fired != expected[layer.name][:, sample].flatten(1)).sum())
    spikes = sum(int(fired.sum(dtype=torch.int64)) for fired in expected.values())
    return Simulation(frames.shape[1], steps + len(layers), joules, seconds, hops, spikes, differing)


def _set_bias(chip, name: str, values: np.ndarray) -> None:
    for neuron, value in zip(chip.mapped_neuron_groups[name], values.tolist(), strict=True):
        neuron.set_attributes(model_attributes={"bias": value})


@contextmanager
def _silent() -> Iterator[None]:
    """SANA-FE's C++ writes its progress to standard output, where the table belongs."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
