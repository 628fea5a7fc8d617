"""Neurons and sums that live on NIR's equations alone, by the name of the layer, and what to train instead."""

import networkx as nx
import nir
import numpy as np

from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS
from targets.graph.shapes import array

_DEAF = 2.0**60
"""A factor beyond which a Scale is no weight but a trick that empties a membrane."""
_MEMBRANES = (nir.LI, nir.I)


def refuse_loops(edit: Edit) -> None:
    """A sum that is kept outside of any neuron: an adaptation, a trace.

    Raises:
        HardspikeError: there is one.
    """
    plain = nx.DiGraph(edit.edges).subgraph([n for n, node in edit.nodes.items() if not isinstance(node, NEURONS)])
    for loop in nx.strongly_connected_components(plain):
        if len(loop) > 1 or any(plain.has_edge(name, name) for name in loop):
            raise HardspikeError(f"nodes {', '.join(repr(name) for name in edit.nodes if name in loop)}: a loop "
                                 "without a neuron keeps a sum of its own (a trace, an adaptation); a chip keeps sums "
                                 "in neurons alone: use neurons and their spikes (snn.Synaptic has a second decay), "
                                 "and train again")


def refuse(edit: Edit, name: str) -> None:
    """Name the neuron that a node is part of, where no chip has it.

    Raises:
        HardspikeError: it is part of one.
    """
    node, targets, sources = edit.nodes[name], edit.targets(name), edit.sources(name)
    if isinstance(node, nir.Delay) and any(isinstance(edit.nodes[s], _MEMBRANES) for s in sources) and all(
            isinstance(edit.nodes[t], nir.Threshold) for t in targets):
        raise HardspikeError(
            f"layer '{_layer(edit, sources[0])}': takes its threshold off in the step of the spike (reset_delay=False "
            "with reset 'subtract'); a chip's neuron does so one step later: make it with reset_delay=True and train "
            "again")
    if isinstance(node, LINEAR) and sources and all(isinstance(edit.nodes[s], _MEMBRANES) for s in sources) \
            and (layer := _compares(edit, targets)):
        raise HardspikeError(f"layer '{layer}': its neurons compare their membranes (inhibition=True), and a chip's "
                             "hear spikes alone: make it without inhibition and train again")
    if isinstance(node, _MEMBRANES) and _layer(edit, name) != name and (heard := _hears(edit, name)):
        raise HardspikeError(f"layer '{_layer(edit, name)}': '{heard}' hears its membrane, and a chip's neurons hear "
                             "spikes alone: hand on its spikes, and train again")
    if isinstance(node, nir.Scale):
        _refuse_factor(edit, name)


def _refuse_factor(edit: Edit, name: str) -> None:
    targets, sources = edit.targets(name), edit.sources(name)
    if np.abs(array(edit.nodes[name].scale)).max(initial=0) > _DEAF and sources:
        raise HardspikeError(
            f"layer '{sources[0]}': its reset to zero also loses what comes in in the step after a spike, as "
            "snnTorch's delayed reset 'zero' does in Synaptic, RLeaky, RSynaptic and Lapicque; no chip's neuron does "
            "that: make it with reset_delay=False (Synaptic, RLeaky), or reset_mechanism='subtract'")
    # a layer with inhibition fires where its membrane is above threshold and above those of all others
    compared = [_compares(edit, edit.targets(target)) for target in targets if isinstance(edit.nodes[target], LINEAR)]
    layers = [*compared, *(target for target in targets if isinstance(edit.nodes[target], nir.Threshold))]
    if any(isinstance(edit.nodes[s], _MEMBRANES) for s in sources) and targets \
            and len(layers) == len(targets) and all(layers):
        raise HardspikeError(
            f"layer '{layers[0]}': its membrane is a sum of several currents that decay (snn.Alpha); a chip's neuron "
            "has one: use snn.Synaptic and train again")


def _layer(edit: Edit, membrane: str) -> str:
    """The layer that a membrane belongs to."""
    return next((t for t in edit.targets(membrane) if isinstance(edit.nodes[t], nir.Threshold)), membrane)


def _compares(edit: Edit, targets: list[str]) -> str | None:
    """The layer behind a comparison of membranes, pair by pair: Threshold, a sum, and the layer's own Threshold."""
    for kind in (nir.Threshold, LINEAR, nir.Threshold):
        if len(targets) != 1 or not isinstance(edit.nodes[targets[0]], kind):
            return None
        found, targets = targets[0], edit.targets(targets[0])
    return found


def _hears(edit: Edit, membrane: str) -> str | None:
    """The layer that weights lead a membrane into; a current of the neuron's own comes without any."""
    waiting, seen = [(target, False) for target in edit.targets(membrane)], set()
    while waiting:
        at, weighed = waiting.pop()
        node = edit.nodes[at]
        if isinstance(node, (*_MEMBRANES, nir.LIF, nir.IF, nir.CubaLIF, nir.CubaLI)):
            if weighed:
                return _layer(edit, at)
        elif at not in seen and not isinstance(node, NEURONS):
            seen.add(at)
            waiting += [(target, weighed or isinstance(node, (*LINEAR, nir.Scale))) for target in edit.targets(at)]
    return None
