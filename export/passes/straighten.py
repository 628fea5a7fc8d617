"""Factors, recurrent factors and pooling that lie beside no linear layer, as linear layers; what no chip does, refused.

A factor that goes straight from spikes into a sum, a neuron's own spikes coming back with a factor, a pooling between a
convolution and its neuron: each is one linear layer. With conv(x) of kernel k and stride S before an average of size p
and stride s, the mean is a convolution of kernel (p - 1) S + k and stride S s.
"""

import copy
import math

import nir
import numpy as np
import torch
from torch.nn import functional

from export.passes.rewrite import Edit
from export.passes.tricks import refuse, refuse_loops
from export.passes.weigh import weightless
from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS, SPIKING, Plan, plan
from targets.graph.shapes import array, conv_arguments, expand, pool_arguments
from targets.loihi.layers import DECAY_UNIT, reset_of

_POOLS = (nir.AvgPool2d, nir.SumPool2d)


def straighten(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph whose factors and poolings lie beside a linear layer, or are one; the same spikes.

    Raises:
        HardspikeError: a neuron that no chip has; a factor that differs inside a picture's channel.
    """
    edit, layout = Edit(graph), plan(graph)
    refuse_loops(edit)
    for name, node in list(edit.nodes.items()):
        if isinstance(node, NEURONS):
            edit.nodes[name] = _in_full(name, node, layout.input_shape[name])
    for name in edit.nodes:
        refuse(edit, name)
    _drop_zeros(edit)
    for name, node in list(edit.nodes.items()):
        if isinstance(node, nir.Scale) and not _is_reset(edit, layout, name) and not _foldable(edit, layout, name):
            edit.nodes[name] = _as_linear(name, node, layout.input_shape[name])
        elif isinstance(node, nir.Threshold | nir.LI) and not edit.targets(name):
            edit.edges = [edge for edge in edit.edges if name not in edge]
            del edit.nodes[name]
    _drop_unread(edit)
    for name in [name for name, node in edit.nodes.items() if isinstance(node, _POOLS)]:
        _pool(edit, layout, name)
    return edit.graph()


def _in_full(name: str, node: nir.NIRNode, shape: tuple[int, ...]) -> nir.NIRNode:
    """A neuron whose parameters have a value for every neuron, as those that passes put in do."""
    full = copy.copy(node)
    for key, value in vars(node).items():
        if key not in ("input_type", "output_type", "metadata") and value is not None:
            setattr(full, key, np.broadcast_to(expand(name, value, shape), shape).copy())
    return full


def _drop_zeros(edit: Edit) -> None:
    """Connections whose weights and biases are all zero, where their layer has others from the input."""
    for name, node in list(edit.nodes.items()):
        if not isinstance(node, LINEAR) or np.any(array(node.weight)) or np.any(array(getattr(node, "bias", 0.0))):
            continue
        targets = edit.targets(name)
        if targets and set(targets) <= edit.reached(name):  # a loop of its own leads nowhere
            drop(edit, name)


def drop(edit: Edit, name: str) -> None:
    """Take out a node that nobody needs, and what leads to it alone."""
    sources = edit.sources(name)
    edit.edges = [edge for edge in edit.edges if name not in edge]
    del edit.nodes[name]
    for source in sources:
        if source in edit.nodes and not edit.targets(source) and not isinstance(
                edit.nodes[source], (*SPIKING, nir.Input)):
            drop(edit, source)


def _is_reset(edit: Edit, layout: Plan, name: str) -> bool:
    """Whether a Scale takes exactly the threshold off the membrane that it came from, or the leak times the threshold
    where nothing else does."""
    sources, targets = edit.sources(name), edit.targets(name)
    if len(sources) != 1 or not targets or not isinstance(edit.nodes[sources[0]], nir.Threshold):
        return False
    if not all(isinstance(edit.nodes[target], nir.LI | nir.I) for target in targets):
        return False
    if not any(name in group and targets[0] in group for group in layout.groups):
        return False

    def reset(scale: str) -> str | None:
        return reset_of(-expand(scale, edit.nodes[scale].scale, shape), theta, decay)

    shape, membrane = layout.output_shape[sources[0]], edit.nodes[targets[0]]
    theta = expand(name, edit.nodes[sources[0]].threshold, shape)
    decay = DECAY_UNIT * layout.dt / array(membrane.tau) if isinstance(membrane, nir.LI) else np.zeros(shape)
    beside = [other for other in edit.targets(sources[0]) if other != name and isinstance(edit.nodes[other], nir.Scale)]
    found = reset(name)
    return found == "subtract" or (found == "subtract_leaky" and "subtract" not in map(reset, beside))


def _foldable(edit: Edit, layout: Plan, name: str) -> bool:
    """Whether `fold_gain` takes a factor into a linear layer beside it, or into one that `weigh` puts there."""
    inside = any(name in group and len(group) > 1 for group in layout.groups)
    if not inside and weightless(edit, name) and all(isinstance(edit.nodes[t], NEURONS) for t in edit.targets(name)):
        return True
    before, targets = edit.only_source(name), edit.targets(name)
    return bool(before and isinstance(edit.nodes[before], LINEAR)) or (bool(targets) and all(
        isinstance(edit.nodes[target], LINEAR) and edit.sources(target) == [name] for target in targets))


def _as_linear(name: str, node: nir.Scale, shape: tuple[int, ...]) -> nir.NIRNode:
    factor = np.broadcast_to(expand(name, node.scale, shape), shape)
    if len(shape) == 1:
        return nir.Linear(np.diag(factor))
    flat = factor.reshape(len(factor), -1)
    if np.ptp(flat, axis=1).any():
        raise HardspikeError(f"layer '{name}' (Scale): a factor that differs inside a channel, with no linear layer "
                             "beside it to take it; use one value a channel, or flatten before it")
    kind, sides = (nir.Conv1d, shape[1]) if len(shape) == 2 else (nir.Conv2d, tuple(shape[1:]))
    weight = flat[:, 0].reshape(-1, 1, *[1] * (len(shape) - 1))
    return kind(sides, weight, 1, 0, 1, shape[0], np.zeros(shape[0]))


def _drop_unread(edit: Edit) -> None:
    """A membrane that is read, of a neuron without reset whose spikes nobody hears: the host integrates it."""
    for name in list(edit.nodes):
        if name in edit.nodes and isinstance(edit.nodes[name], nir.Threshold) and not edit.targets(name):
            edit.edges = [edge for edge in edit.edges if name not in edge]
            del edit.nodes[name]


def _pool(edit: Edit, layout: Plan, name: str) -> None:
    """A pooling that leads into no linear layer: part of the convolution before it, else a convolution of its own."""
    after = edit.targets(name)
    while len(after) == 1 and isinstance(edit.nodes[after[0]], nir.Flatten):
        after = edit.targets(after[0])
    if weightless(edit, name) or all(isinstance(edit.nodes[target], (*LINEAR, *_POOLS)) for target in after):
        return
    node, shape = edit.nodes[name], layout.input_shape[name]
    label = f"layer '{name}' ({type(node).__name__})"
    before = edit.only_source(name)
    conv = edit.nodes.get(before)
    kernel, stride, padding = pool_arguments(label, node)
    if isinstance(conv, nir.Conv2d) and not any(padding) and conv_arguments(label, conv)["padding"] != "same":
        edit.nodes[before] = _mean_of(label, conv, kernel, stride, isinstance(node, nir.SumPool2d))
        edit.bypass(name)
        return
    value = 1.0 if isinstance(node, nir.SumPool2d) else 1.0 / math.prod(kernel)
    edit.nodes[name] = nir.Conv2d(shape[1:], np.full((shape[0], 1, *kernel), value), stride, padding, 1, shape[0],
                                  np.zeros(shape[0]))


def _mean_of(label: str, conv: nir.Conv2d, kernel: tuple[int, ...], stride: tuple[int, ...], sums: bool) -> nir.Conv2d:
    a = {key: value if key == "groups" else tuple(np.broadcast_to(value, 2).tolist()) for key, value in
         conv_arguments(label, conv).items()}
    weight = torch.as_tensor(array(conv.weight).astype(np.float64))
    spread = torch.zeros(1, 1, *(d * (k - 1) + 1 for d, k in zip(a["dilation"], weight.shape[2:], strict=True)),
                         dtype=torch.float64).expand(*weight.shape[:2], -1, -1).clone()
    spread[..., ::a["dilation"][0], ::a["dilation"][1]] = weight
    taps = torch.zeros(1, 1, *(s * (k - 1) + 1 for s, k in zip(a["stride"], kernel, strict=True)), dtype=torch.float64)
    taps[..., ::a["stride"][0], ::a["stride"][1]] = 1.0 if sums else 1.0 / math.prod(kernel)
    flat = spread.flatten(0, 1)[:, None]
    whole = functional.conv_transpose2d(flat, taps)
    bias = array(conv.bias).astype(np.float64) * (math.prod(kernel) if sums else 1.0)
    return nir.Conv2d(conv.input_shape, whole.view(*weight.shape[:2], *whole.shape[2:]).numpy(),
                      tuple(x * y for x, y in zip(a["stride"], stride, strict=True)), a["padding"], 1, a["groups"],
                      bias)


