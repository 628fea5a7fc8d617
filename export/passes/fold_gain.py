"""Fold constant factors into the weights: a neuron's input gain, its resting potential, and Scale nodes.

After it every LIF, IF, LI, I and CubaLIF takes its input with gain 1 and rests at 0, as the chips do. With
u' = lambda*u + g*(W*s + b) + (1 - lambda)*v_leak, the layer becomes g*W and g*b + (1 - lambda)*v_leak.
"""

import copy

import nir
import numpy as np

from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS, Plan, plan
from targets.graph.shapes import array, expand, groups_of
from targets.nodes.neurons import coefficients


def fold_gain(graph: nir.NIRGraph, dt: float | None = None) -> nir.NIRGraph:
    """A graph whose neurons have gain 1 and no resting potential, and that has no Scale beside a linear layer.

    The Scale of a subtracting reset stays: it is part of the neuron.

    Raises:
        HardspikeError: a factor that no linear layer before or after it can take.
    """
    edit, layout = Edit(graph), plan(graph, dt)
    for name, node in list(edit.nodes.items()):
        if isinstance(node, nir.Scale) and not _is_reset(edit, name):
            _fold_scale(edit, layout, name)
    for name, node in list(edit.nodes.items()):
        if isinstance(node, NEURONS) and not isinstance(node, nir.Threshold):  # which has no gain
            _fold_neuron(edit, layout, name)
    edit.metadata["dt"] = layout.dt
    return edit.graph()


def _is_reset(edit: Edit, name: str) -> bool:
    return (all(isinstance(edit.nodes[n], nir.Threshold) for n in edit.sources(name))
            and all(isinstance(edit.nodes[n], nir.LI | nir.I) for n in edit.targets(name)))


def _fold_scale(edit: Edit, layout: Plan, name: str) -> None:
    node, shape = edit.nodes[name], layout.input_shape[name]
    factor = np.broadcast_to(expand(name, node.scale, shape), shape)
    before, targets = edit.only_source(name), edit.targets(name)
    if before and isinstance(edit.nodes[before], LINEAR):
        edit.nodes[before] = scaled(name, edit.nodes[before], factor)
    elif targets and all(edit.sources(target) == [name] and isinstance(edit.nodes[target], LINEAR)
                         for target in targets):
        for target in targets:
            edit.nodes[target] = _scaled_inputs(name, edit.nodes[target], factor)
    else:
        raise HardspikeError(f"layer '{name}' (Scale): no linear layer next to it takes its factor; put it beside one")
    edit.bypass(name)


def _fold_neuron(edit: Edit, layout: Plan, name: str) -> None:
    node, shape = edit.nodes[name], layout.input_shape[name]
    label = f"layer '{name}' ({type(node).__name__})"
    c = coefficients(name, node, shape, layout.dt)
    gain, offset = (np.broadcast_to(np.asarray(value), shape) for value in
                    (c["gain"] * c.get("gain_syn", 1.0), c.get("rest", 0.0)))
    if np.allclose(c["gain"], 1, rtol=1e-12) and np.allclose(c.get("gain_syn", 1), 1, rtol=1e-12) and not offset.any():
        return
    what = f"input gain {gain.flat[0]:g} and resting potential {offset.flat[0]:g} per step"
    sources = [s for s in edit.sources(name) if not (isinstance(edit.nodes[s], nir.Scale) and _is_reset(edit, s))]
    if len(sources) != len(edit.sources(name)) and not np.allclose(gain, 1):
        raise HardspikeError(f"{label}: {what} with a subtracting reset, whose loop would have to be scaled too; write "
                             "it with gain 1")
    if offset.any() and "gain_syn" in c:
        raise HardspikeError(f"{label}: {what} behind a synaptic current; train with v_leak 0")
    for source in sources:
        if not isinstance(edit.nodes[source], LINEAR) or edit.targets(source) != [name]:
            raise HardspikeError(f"{label}: {what} have no linear layer of their own to go into ('{source}' is "
                                 f"{type(edit.nodes[source]).__name__}); put one before the neuron")
        edit.nodes[source] = scaled(name, edit.nodes[source], gain)
    if offset.any():
        edit.nodes[sources[0]] = scaled(name, edit.nodes[sources[0]], np.ones(shape), offset)
    neutral = copy.copy(node)
    for key, time in (("r", "tau"), ("r", "tau_mem"), ("w_in", "tau_syn")):
        if hasattr(node, time):
            setattr(neutral, key, np.broadcast_to(array(getattr(node, time)) / layout.dt, shape).copy())
    if isinstance(node, nir.IF | nir.I):
        neutral.r = np.full(shape, 1 / layout.dt)
    if hasattr(node, "v_leak"):
        neutral.v_leak = np.zeros(shape)
    edit.nodes[name] = neutral


def scaled(name: str, node: nir.NIRNode, factor: np.ndarray, offset: np.ndarray | None = None) -> nir.NIRNode:
    """`node` with its output multiplied by `factor` and shifted by `offset`, both of the output's shape.

    Raises:
        HardspikeError: a convolution's factor or offset that differs inside a channel (named after `name`).
    """
    weight = array(node.weight).astype(np.float64)
    factor, shift = (_by_channel(name, v, weight.ndim) for v in (factor, 0 * factor if offset is None else offset))
    bias = shift + factor * (0 if isinstance(node, nir.Linear) else array(node.bias).astype(np.float64))
    weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if isinstance(node, nir.Linear) and not bias.any():
        return nir.Linear(weight)
    if isinstance(node, nir.Linear | nir.Affine):
        return nir.Affine(weight, bias)
    return _conv(node, weight, bias)


def _by_channel(name: str, values: np.ndarray, dimensions: int) -> np.ndarray:
    if dimensions == 2:
        return values.reshape(-1)
    flat = values.reshape(len(values), -1)
    if np.ptp(flat, axis=1).any():
        raise HardspikeError(f"layer '{name}': a factor that differs inside a channel cannot go into a convolution; "
                             "use one value a channel")
    return flat[:, 0]


def _scaled_inputs(name: str, node: nir.NIRNode, factor: np.ndarray) -> nir.NIRNode:
    weight = array(node.weight).astype(np.float64)
    if weight.ndim == 2:
        weight = weight * factor.reshape(1, -1)
        return nir.Linear(weight) if isinstance(node, nir.Linear) else nir.Affine(weight, node.bias)
    channel = _by_channel(name, factor, weight.ndim)
    group = len(weight) // groups_of(node)
    rows = channel.reshape(groups_of(node), -1).repeat(group, axis=0)  # the input channels of each output's group
    return _conv(node, weight * rows.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2)), node.bias)


def _conv(node: nir.Conv1d | nir.Conv2d, weight: np.ndarray, bias: np.ndarray) -> nir.NIRNode:
    return type(node)(input_shape=node.input_shape, weight=weight, stride=node.stride, padding=node.padding,
                      dilation=node.dilation, groups=node.groups, bias=bias)
