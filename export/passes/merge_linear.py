"""Linear layers that follow one another without a neuron between become one: chips hold weights between spikes.

W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2). Behind a convolution, a dense layer takes the adjoint of what lies
before it on each of its rows. A sum of branches in between is taken apart first: each branch gets the second layer.
"""

import copy
import math

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from export.passes.rewrite import Edit, conv_numbers
from hardspike import HardspikeError
from targets.graph import LINEAR, Plan, plan
from targets.graph.shapes import array
from targets.nodes import stateless

LARGEST = 2**24
"""Weights of a product."""


def merge_linear(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph in which no linear layer feeds another; the later one keeps its name, a branch's gets a number.

    Raises:
        HardspikeError: a product that is no convolution and too large for a matrix.
    """
    while (pair := _pair(graph)) is not None:
        graph = _merge(graph, *pair)
    return graph


def _pair(graph: nir.NIRGraph) -> tuple[str, str] | None:
    """A linear layer and the one that it feeds, straight or flattened."""
    edit = Edit(graph)
    for name, node in edit.nodes.items():
        if isinstance(node, LINEAR):
            for source in edit.sources(name):
                at = source
                while isinstance(edit.nodes[at], nir.Flatten) and len(edit.sources(at)) == 1:
                    at = edit.sources(at)[0]
                if isinstance(edit.nodes[at], (*LINEAR, nir.Flatten)):
                    return source, name
    return None


def _merge(graph: nir.NIRGraph, before: str, name: str) -> nir.NIRGraph:
    edit = Edit(graph)
    if len(edit.sources(name)) > 1:
        _take_apart(edit, name)
        return edit.graph()
    middle = before if isinstance(edit.nodes[before], nir.Flatten) else None
    if middle and len(edit.sources(middle)) > 1:
        _take_apart(edit, middle)
        return edit.graph()
    if middle and edit.targets(middle) != [name]:
        edit.split(middle)
        return edit.graph()
    first = edit.sources(middle)[0] if middle else before
    if edit.targets(first) != [middle or name]:
        edit.split(first)
        return edit.graph()
    layout = plan(graph)
    edit.nodes[name], flatten = _product(layout, first, middle, name)
    sources = edit.sources(first)
    edit.edges = [edge for edge in edit.edges if first not in edge and middle not in edge]
    del edit.nodes[first]
    if middle:
        del edit.nodes[middle]
    entry = name
    if flatten:
        entry = middle or f"{name}_flatten"
        shape = np.array(layout.input_shape[first])
        edit.nodes[entry] = nir.Flatten({"input": shape}, 0, -1)
        edit.edges.append((entry, name))
    edit.edges += [(source, entry) for source in sources]
    return edit.graph()


def _take_apart(edit: Edit, name: str) -> None:
    """A copy of a node for each of its sources but the first; only the first has a bias."""
    for number, source in enumerate(edit.sources(name)[1:], 1):
        copied = f"{name}_{number}"
        while copied in edit.nodes:
            copied += "_"
        node = copy.copy(edit.nodes[name])
        if isinstance(node, nir.Affine):
            node = nir.Linear(node.weight)
        elif isinstance(node, nir.Conv1d | nir.Conv2d):
            node.bias = np.zeros(len(array(node.weight)))
        edit.nodes[copied] = node
        edit.edges.remove((source, name))
        edit.edges += [(source, copied), *((copied, target) for target in edit.targets(name))]


def _product(layout: Plan, first: str, middle: str | None, name: str) -> tuple[nir.NIRNode, bool]:
    """The one layer, and whether its input has to be flattened."""
    one, two, shape = layout.nodes[first], layout.nodes[name], layout.input_shape[first]
    if isinstance(two, nir.Conv1d | nir.Conv2d):
        return _convolutions(layout, first, name), False
    rows = len(array(two.weight))
    size = math.prod(shape)
    if rows * size > LARGEST:
        raise HardspikeError(f"layers '{first}' and '{name}' follow one another without a neuron; one matrix of both "
                             f"has {rows} x {size} weights, more than {LARGEST}: put a neuron between them")
    weight = torch.as_tensor(array(two.weight).astype(np.float64))
    x = torch.zeros(rows, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        through = stateless.apply(first, one, x, shape, bias=False)
        joined, = torch.autograd.grad(through.flatten(1), x, weight)
    constant = stateless.apply(first, one, torch.zeros(1, *shape, dtype=torch.float64), shape).flatten(1)
    bias = (constant @ weight.T)[0].detach().numpy() + (array(two.bias) if isinstance(two, nir.Affine) else 0.0)
    matrix = joined.flatten(1).numpy()
    return (nir.Affine(matrix, bias) if np.any(bias) or isinstance(two, nir.Affine) else nir.Linear(matrix)), \
        len(shape) > 1


def _convolutions(layout: Plan, first: str, name: str) -> nir.NIRNode:
    """Two convolutions as one, where the second pads nothing or what it pads is what the first would give there."""
    one, two = layout.nodes[first], layout.nodes[name]
    a, b = (conv_numbers(label, node) for label, node in ((first, one), (name, two)))
    bias = np.zeros(len(array(one.weight))) + array(one.bias)  # one value may be for all
    pointwise = set(array(one.weight).shape[2:]) == {1} and not any(a["padding"]) and set(a["stride"]) == {1}
    if any(b["padding"]) and not (pointwise and not bias.any()):
        raise HardspikeError(f"layers '{first}' and '{name}' follow one another without a neuron, and '{name}' pads "
                             "with zeros what the first gives: no one convolution does both; put a neuron between "
                             "them, or use padding 0")
    w1, w2 = (_ungrouped(node, arguments["groups"]) for node, arguments in ((one, a), (two, b)))
    w1, w2 = _stretched(w1, a["dilation"]), _stretched(w2, tuple(d * s for d, s in zip(b["dilation"], a["stride"],
                                                                                          strict=True)))
    dims = w1.ndim - 2
    spread = (functional.conv_transpose1d if dims == 1 else functional.conv_transpose2d)(w2, w1)
    both = array(two.bias) + (w2.flatten(2).sum(2) @ torch.as_tensor(bias)).numpy()
    stride = tuple(s * t for s, t in zip(a["stride"], b["stride"], strict=True))
    padding = b["padding"] if pointwise else a["padding"]
    if dims == 1:
        return nir.Conv1d(one.input_shape, spread.numpy(), stride[0], padding[0], 1, 1, both)
    return nir.Conv2d(one.input_shape, spread.numpy(), stride, padding, 1, 1, both)


def _ungrouped(node: nir.NIRNode, groups: int) -> Tensor:
    weight = torch.as_tensor(array(node.weight).astype(np.float64))
    out, inner = weight.shape[0] // groups, weight.shape[1]
    whole = torch.zeros(weight.shape[0], inner * groups, *weight.shape[2:], dtype=torch.float64)
    for group in range(groups):
        whole[group * out:(group + 1) * out, group * inner:(group + 1) * inner] = weight[group * out:(group + 1) * out]
    return whole


def _stretched(weight: Tensor, steps: tuple[int, ...]) -> Tensor:
    """A kernel with zeros between its taps."""
    whole = torch.zeros(*weight.shape[:2], *(s * (k - 1) + 1 for s, k in zip(steps, weight.shape[2:], strict=True)),
                        dtype=torch.float64)
    whole[(..., *(slice(None, None, step) for step in steps))] = weight
    return whole
