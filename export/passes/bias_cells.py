"""A bias in front of a synaptic current, as spikes: a chip adds a layer's bias to the membrane, behind the synapse.

A cell that fires in every step, with the biases as its weights, is exact: its input is 2 or more and its threshold 1,
since spikes are never negative. Input that is negative may keep the cell from firing: `lower` refuses it.
"""

import copy

import nir
import numpy as np
from torch import Tensor

from export.passes.rewrite import Edit
from hardspike import HardspikeError
from targets.graph import LINEAR, NEURONS, SPIKING, plan
from targets.graph.shapes import Shape, array, groups_of

ALWAYS = "_always"
"""Ends the name of what a cell hears."""


def bias_cells(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph in which no bias reaches a neuron with a synaptic current; the same spikes.

    Raises:
        HardspikeError: what would keep a cell firing is no spikes but a membrane; or the biased layer is where a loop
            is entered, which would then be entered at its neuron as well.
    """
    edit, shapes = Edit(graph), plan(graph).output_shape
    for name, node in list(edit.nodes.items()):
        biased = isinstance(node, LINEAR) and not isinstance(node, nir.Linear) and np.any(array(node.bias))
        if biased and any(_has_current(edit, target) for target in edit.targets(name)):
            membrane = next((heard for heard in _heard(edit, name) if isinstance(edit.nodes[heard], NEURONS)
                             and not isinstance(edit.nodes[heard], SPIKING)), None)
            if membrane:
                raise HardspikeError(f"layer '{name}': its bias comes before a synaptic current, where a chip makes it "
                                     f"of spikes; it hears the membrane of '{membrane}', which is none: leave the bias "
                                     "out, or put a neuron that spikes between")
            _through_a_cell(edit, name, shapes[name])
            try:
                plan(edit.graph())
            except HardspikeError as error:
                raise HardspikeError(f"layer '{name}': its bias comes before a synaptic current, where a chip makes it "
                                     "of spikes, and it hears its own neuron: that loop would be entered at two nodes; "
                                     "leave the bias out, or let the spikes come back through a linear layer of their "
                                     "own") from error
    return edit.graph()


def require_no_negative(graph: nir.NIRGraph, spikes: Tensor) -> None:
    """Refuse negative input where a cell that always fires hears it.

    Args:
        graph: what `bias_cells` gave.
        spikes: (T, B, *Input).

    Raises:
        HardspikeError: there is both.
    """
    edit = Edit(graph)
    cells = [name for name in graph.nodes if name.endswith(ALWAYS)]
    found = (cell for cell in cells for name in _heard(edit, cell) if isinstance(graph.nodes[name], nir.Input))
    heard = next(found, "")
    if heard and bool((spikes < 0).any()):
        raise HardspikeError(f"layer '{heard.removesuffix(ALWAYS)}': its bias comes before a synaptic current, where a "
                             f"chip makes it of spikes, which input of {spikes.min().item():g} may hold back; leave "
                             "the bias out, or count events without a sign")


def _heard(edit: Edit, name: str) -> list[str]:
    """The neurons and Inputs that reach a node over nodes without a state."""
    found, waiting, seen = [], edit.sources(name), set()
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        if isinstance(edit.nodes[at], (*NEURONS, nir.Input)):
            found.append(at)
        else:
            waiting += edit.sources(at)
    return found


def _has_current(edit: Edit, name: str) -> bool:
    node = edit.nodes[name]
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        return True
    return isinstance(node, nir.LI) and bool(edit.targets(name)) and all(
        isinstance(edit.nodes[target], nir.LI | nir.I) for target in edit.targets(name))


def _through_a_cell(edit: Edit, name: str, given: Shape) -> None:
    node, dims = edit.nodes[name], array(edit.nodes[name].weight).ndim - 2
    bias = array(node.bias).astype(np.float64).ravel()
    bias = np.broadcast_to(bias, (len(array(node.weight)),))
    inlet, cell, weights = f"{name}{ALWAYS}", f"{name}_cell", f"{name}_bias"
    one = np.zeros((1, *array(node.weight).shape[1:]))
    one.flat[0] = 1.0
    if dims < 0 or dims == 0:
        edit.nodes[name] = nir.Linear(node.weight)
        edit.nodes[inlet], shape = nir.Affine(one, np.array([2.0])), (1,)
        edit.nodes[weights] = nir.Linear(bias[:, None].copy())
    else:
        bare, start = copy.copy(node), copy.copy(node)
        bare.bias = np.zeros(len(bias))
        groups = groups_of(node)
        start.weight = np.zeros((1, one.shape[1] * groups, *one.shape[2:]))
        start.weight.flat[0] = 1.0
        start.bias, start.groups = np.array([2.0]), 1
        edit.nodes[name], edit.nodes[inlet] = bare, start
        shape = (1, *given[1:])
        kind, sides = (nir.Conv1d, given[1]) if dims == 1 else (nir.Conv2d, given[1:])
        edit.nodes[weights] = kind(sides, bias.reshape(-1, 1, *[1] * dims).copy(), 1, 0, 1, 1, np.zeros(len(bias)))
    edit.nodes[cell] = nir.Threshold(np.ones(shape))
    edit.edges += [*((source, inlet) for source in edit.sources(name)), (inlet, cell), (cell, weights),
                   *((weights, target) for target in edit.targets(name))]
