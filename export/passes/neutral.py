"""The same graph in the terms that readers agree on where NIR leaves things open.

- A bias on a recurrent connection: some readers apply it one step later. It moves to the layer that feeds the neuron.
- r of a LIF: some readers ignore it. It becomes 1, and the factor, u' = lambda u + (r dt/tau) W s, goes into W.
- A recurrent factor for every neuron is a diagonal matrix, which readers of recurrent layers look for.
"""

import copy

import nir
import numpy as np

from export.passes.fold_gain import scaled
from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.graph import LINEAR, SPIKING, plan
from targets.graph.shapes import array, expand

_TRICK = 2.0**60
"""A factor beyond which a Scale makes a neuron fire, and is no weight."""


def neutral(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph with the same spikes but for float64 rounding; what has no such form stays as it is."""
    edit, layout = Edit(graph), plan(graph)
    loops = {name for group in layout.groups if len(group) > 1 for name in group}
    for name, node in list(edit.nodes.items()):
        spiking = name in loops and any(isinstance(edit.nodes[s], SPIKING) for s in edit.sources(name))
        if spiking and isinstance(node, nir.Affine | nir.Conv1d | nir.Conv2d) and np.any(array(node.bias)):
            _bias_forward(edit, name, loops)
        elif spiking and isinstance(node, nir.Scale) and len(layout.input_shape[name]) == 1 \
                and np.abs(array(node.scale)).max() < _TRICK and all(
                isinstance(edit.nodes[t], nir.LIF | nir.IF | nir.CubaLIF) for t in edit.targets(name)):
            shape = layout.input_shape[name]
            edit.nodes[name] = nir.Linear(np.diag(np.broadcast_to(expand(name, node.scale, shape), shape)))
    for name, node in list(edit.nodes.items()):
        if isinstance(node, nir.LIF) and name not in loops:
            _factor_into_weights(edit, name, layout.input_shape[name], layout.dt)
    return edit.graph()


def _bias_forward(edit: Edit, name: str, loops: set[str]) -> None:
    targets = edit.targets(name)
    feeding = [s for s in edit.sources(targets[0]) if s not in loops and isinstance(edit.nodes[s], LINEAR)
               and edit.targets(s) == targets and type(edit.nodes[s]) is not nir.Linear]
    if len(targets) != 1 or not feeding:
        return
    into, recurrent = copy.copy(edit.nodes[feeding[0]]), copy.copy(edit.nodes[name])
    if array(into.bias).shape != array(recurrent.bias).shape:
        return
    into.bias = array(into.bias) + array(recurrent.bias)
    edit.nodes[feeding[0]] = into
    if isinstance(recurrent, nir.Affine):
        edit.nodes[name] = nir.Linear(recurrent.weight)
    else:
        recurrent.bias = np.zeros_like(array(recurrent.bias))
        edit.nodes[name] = recurrent


def _factor_into_weights(edit: Edit, name: str, shape: tuple[int, ...], dt: float) -> None:
    node, sources = edit.nodes[name], edit.sources(name)
    factor = np.broadcast_to(expand(name, node.r, shape), shape)
    if (factor == 1).all() or not all(isinstance(edit.nodes[s], LINEAR) and edit.targets(s) == [name] for s in sources):
        return
    try:
        changed = {source: scaled(name, edit.nodes[source], factor) for source in sources}
    except HardspikeError:  # it differs inside a convolution's channel
        return
    edit.nodes.update(changed)
    plain = copy.copy(node)
    plain.r = np.ones(shape)
    edit.nodes[name] = plain
