"""A network that was trained in a chip's integers, as the integer graph that it is."""

import copy

import nir
import numpy as np
import torch
from torch import nn

from export.freeze.freeze import freeze
from export.freeze.levels import level_names
from export.passes.lower import fold
from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets import metadata
from targets.chips import chip, limits_of
from targets.graph import plan
from targets.graph.shapes import array
from targets.loihi.layers import split
from targets.metadata import Quantised
from trainer.networks import Network
from trainer.networks.integers import IntegerNetwork, leak_on_grid
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky

TRAINED = "trained"
"""How scales were chosen, where a network learned under them."""


def integer_graph(network: IntegerNetwork, shape: tuple[int, ...], said: dict) -> nir.NIRGraph:
    """The graph of a network in integers: the same numbers; pooling is in the layer behind it, spread over its window.

    Of a network for no chip it is one of floats: integers over their scale.

    Args:
        shape: of the input, without batch and time.
        said: further metadata.

    Raises:
        HardspikeError: a layer that NIR cannot hold, or whose form here is not of integers.
    """
    integers = network.integers
    graph = freeze(as_floats(network), shape, said)
    if not network.exact:
        return graph
    edit = Edit(graph)
    for name, node in list(edit.nodes.items()):
        if isinstance(node, nir.AvgPool2d):
            edit.nodes[name] = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
    graph = fold(edit.graph())
    edit = Edit(graph)
    for name, layer in split(plan(graph)).layers.items():
        for connection in layer.connections:
            node = edit.nodes[connection.linear]
            units = integers.layers.get(name)  # none for a level, to which no spikes come as they are
            if units and connection.linear not in network.layers:  # spikes as they are: a weight of one
                edit.nodes[connection.linear] = node = _times(node, units.shortcut)
            if not np.array_equal(array(node.weight), np.round(array(node.weight))):
                raise HardspikeError(f"layer '{connection.linear}': its weights are no integers in the graph; please "
                                     "report this network")
    scales = {node: units.scale for name, units in integers.layers.items()
              for node in _nodes(name, network.layers[name])}
    mark = Quantised(limits_of(chip(integers.target)).chip, integers.bits, TRAINED, scales)
    return metadata.mark_quantised(edit.graph(), mark)


def _nodes(name: str, neuron: Leaky) -> list[str]:
    """What a layer of neurons is called in the graph."""
    return level_names(name, neuron) if isinstance(neuron, LevelLeaky) else [name]


@torch.no_grad()
def as_floats(network: IntegerNetwork) -> Network:
    """The network with its integers (for no chip: over their scale) as weights, biases and thresholds, in float64.

    It spikes hard as the one in integers does where no sum wraps. What is the host's is as it was.
    """
    layers = copy.deepcopy(network.layers).double()
    for name in network.chip:
        layer = layers[name]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight, bias = (None if value is None else value.double() for value in network.weights(name))
            if not network.exact:
                weight = weight * network.wiring.areas[name] / network.scale(name)
                bias = None if bias is None else bias / network.scale(name)
            layer.weight, layer.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
        elif isinstance(layer, Leaky) and network.exact:
            layer.threshold.fill_(network.integers.layers[name].threshold)
            layer.beta.copy_(leak_on_grid(layer.beta, network.integers.target))
        if isinstance(layer, LevelLeaky) and network.exact and name != network.chip[-1]:
            layer.norm = 1  # it is in the integers, but for the host, which hears the last ones
    return Network(dict(layers), network.readout, network.sums)


def _times(node: nir.NIRNode, factor: int) -> nir.NIRNode:
    """`node` with its weights multiplied."""
    node = copy.copy(node)
    node.weight = array(node.weight) * factor
    return node
