"""Give spikes that reach a neuron as they are a weight of one: integer targets know spikes over weights only.

A shortcut of a residual block is such a way, from the spikes of one layer straight into the current of another. The
weight is a depthwise convolution of size 1, or an identity matrix; both hand on exactly what comes in.
"""

import nir
import numpy as np

from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS, SPIKING, plan

LARGEST = 16384
"""An identity matrix of so many rows takes 2 GB."""


def weigh(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph in which a linear node lies on every way from spikes or the Input to a neuron; the same spikes.

    Loops are left alone, since a reset may be written as one, but for spikes that come back late.

    Raises:
        HardspikeError: so many values in a row that their identity matrix, which NIR holds dense, is too large.
    """
    edit, layout = Edit(graph), plan(graph)
    group_of = {name: index for index, group in enumerate(layout.groups) for name in group}
    for source, target in list(edit.edges):
        inside = group_of[source] == group_of[target]
        alone = inside and not isinstance(edit.nodes[source], nir.Delay)
        if isinstance(edit.nodes[target], NEURONS) and not alone and weightless(edit, source):
            name = edit.fresh(f"{source}_to_{target}")
            shape = layout.output_shape[source]
            if len(shape) == 1 and shape[0] > LARGEST:
                raise HardspikeError(f"layer '{target}': {shape[0]} values of '{source}' reach it without weights; the "
                                     f"identity matrix that hands them on is dense and made for at most {LARGEST}; "
                                     "keep them a picture (C, H, W), or give them weights")
            edit.nodes[name] = _identity(shape)
            edit.edges.remove((source, target))
            edit.edges += [(source, name), (name, target)]
    return edit.graph()


def weightless(edit: Edit, name: str) -> bool:
    """Whether `name` gives spikes, or what Flatten, Delay, Scale and pooling make of them."""
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        node = edit.nodes[name]
        if name in seen or isinstance(node, (*SPIKING, nir.Input)):
            continue
        if isinstance(node, (*LINEAR, *NEURONS)):
            return False
        seen.add(name)  # a loop may hold none of them
        waiting += edit.sources(name)
    return True


def _identity(shape: tuple[int, ...]) -> nir.NIRNode:
    if len(shape) == 1:
        return nir.Linear(np.eye(shape[0]))
    channels, *size = shape
    kind, sides = (nir.Conv1d, size[0]) if len(size) == 1 else (nir.Conv2d, tuple(size))
    return kind(sides, np.ones((channels, 1, *[1] * len(size))), 1, 0, 1, channels, np.zeros(channels))
