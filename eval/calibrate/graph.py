"""Thresholds of a NIR graph, multiplied layer by layer, in the reset as well."""

import copy

import nir
import numpy as np

from export.passes.quantise import LOWEST_THRESHOLD
from export.passes.rewrite import Edit, flatten
from hardspike import HardspikeError
from targets.graph import Graph, plan
from targets.graph.shapes import array
from targets.limits import Limits
from targets.loihi.layers import LINEAR, Layer, Network, split, taken_off


def spiking_layers(graph: Graph) -> dict[str, Layer]:
    """The layers of a graph by name, in order, if the threshold of each is one that can be multiplied.

    These are LIF, IF and CubaLIF, a Threshold straight behind a linear node, and a Threshold whose only reset is one
    Scale(-threshold), or Scale(-leak * threshold), back to its integrator.

    Raises:
        HardspikeError: another form of neuron, by its name.
    """
    network = split(plan(flatten(graph)))
    for layer in network.layers.values():
        if isinstance(network.plan.nodes[layer.name], nir.Threshold) and not _known(network, layer):
            raise HardspikeError(f"layer '{layer.name}': its Threshold stands in a form of neuron whose reset is not "
                                 "one Scale(-threshold) back to the membrane, so that a multiplier would change more "
                                 "than the threshold; calibrate the network that it was exported from")
    return network.layers


def _known(network: Network, layer: Layer) -> bool:
    if layer.reset != "zero":  # the integrator, the Scale, the Threshold
        inner = set(layer.members) - {layer.name}
        return len(layer.members) == 3 and not any(problem.layer in inner for problem in network.problems)
    return all(isinstance(network.plan.nodes[edge.source], LINEAR) for edge in network.plan.sources(layer.name))


def scaled_graph(graph: Graph, layers: dict[str, Layer], multipliers: dict[str, float],
                 limits: Limits | None = None) -> Graph:
    """A flat copy of `graph` with the thresholds of `layers` (see `spiking_layers`) multiplied.

    Args:
        limits: of the chip that a quantised graph was made for: thresholds stay integers within its range.
    """
    edit = Edit(flatten(graph))
    for name, factor in multipliers.items():
        node = copy.copy(edit.nodes[name])
        key = "threshold" if isinstance(node, nir.Threshold) else "v_threshold"
        threshold = array(getattr(node, key)) * factor
        if limits:
            threshold = np.clip(np.round(threshold), LOWEST_THRESHOLD, limits.threshold.value)
        setattr(node, key, threshold)
        edit.nodes[name] = node
        for member in layers[name].members:
            if isinstance(edit.nodes[member], nir.Scale):
                full = np.broadcast_to(threshold, layers[name].shape)
                edit.nodes[member] = nir.Scale(-taken_off(full, layers[name].v_decay, layers[name].reset))
    return edit.graph()
