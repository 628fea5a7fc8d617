"""Fold BatchNorm (a factor and an offset a channel) into the linear layer before it; exact but for float64 rounding.

NIR has no BatchNorm; `freeze` writes it as a depthwise 1x1 Conv2d or an Affine with a diagonal weight, and so may
other tools. With conv(x) = W*x + b and norm(y) = f*y + o, both are one layer (f*W)*x + (f*b + o).
"""

import nir
import numpy as np

LINEAR = (nir.Conv1d, nir.Conv2d, nir.Linear, nir.Affine)


def fold_batchnorm(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph without channel-wise layers right after a linear one; the linear layer keeps its name.

    Left alone where the linear layer's output goes elsewhere too, or a sum of several edges comes in between.
    """
    nodes, edges = dict(graph.nodes), [tuple(edge) for edge in graph.edges]
    for name in list(nodes):
        norm = _channelwise(nodes[name])
        before = [a for a, b in edges if b == name]
        if norm is None or len(before) != 1 or not isinstance(nodes[before[0]], LINEAR):
            continue
        linear = before[0]
        if [edge for edge in edges if edge[0] == linear] != [(linear, name)]:
            continue
        nodes[linear] = _scaled(nodes[linear], *norm)
        del nodes[name]
        edges = [(linear if a == name else a, b) for a, b in edges if (a, b) != (linear, name)]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _channelwise(node: nir.NIRNode) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, offset) a channel where that is all the node does, else None."""
    if isinstance(node, nir.Conv2d):
        weight = np.asarray(node.weight, float)
        plain = all(np.all(np.asarray(v) == neutral) for v, neutral in
                    ((node.stride, 1), (node.padding, 0)) if not isinstance(v, str))
        if weight.shape[1:] == (1, 1, 1) and node.groups == len(weight) and plain:
            return weight[:, 0, 0, 0], np.asarray(node.bias, float)
    if isinstance(node, nir.Affine):
        weight = np.asarray(node.weight, float)
        if weight.shape[0] == weight.shape[1] and not np.any(weight - np.diag(np.diag(weight))):
            return np.diag(weight), np.asarray(node.bias, float)
    return None


def _scaled(node: nir.NIRNode, factor: np.ndarray, offset: np.ndarray) -> nir.NIRNode:
    weight = np.asarray(node.weight, float)
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    bias = offset + factor * (0 if isinstance(node, nir.Linear) else np.asarray(node.bias, float))
    if isinstance(node, nir.Linear | nir.Affine):
        return nir.Affine(scaled, bias)
    return type(node)(input_shape=node.input_shape, weight=scaled, stride=node.stride, padding=node.padding,
                      dilation=node.dilation, groups=node.groups, bias=bias)
