"""Fold BatchNorm (a factor and an offset a channel) into the linear layer before it; exact but for float64 rounding.

NIR has no BatchNorm; `freeze` writes it as a depthwise 1x1 Conv2d or an Affine with a diagonal weight, and so may
other tools. With conv(x) = W*x + b and norm(y) = f*y + o, both are one layer (f*W)*x + (f*b + o).
"""

import nir
import numpy as np

from export.passes.fold_gain import scaled
from export.passes.rewrite import Edit
from targets.graph import LINEAR


def fold_batchnorm(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph without channel-wise layers right after a linear one; the linear layer keeps its name.

    Left alone where the linear layer's output goes elsewhere too, or a sum of several edges comes in between.
    """
    edit = Edit(graph)
    for name in list(edit.nodes):
        norm, linear = _channelwise(edit.nodes[name]), edit.only_source(name)
        if norm is not None and linear and isinstance(edit.nodes[linear], LINEAR):
            edit.nodes[linear] = scaled(name, edit.nodes[linear], *norm)
            edit.bypass(name)
    return edit.graph()


def _channelwise(node: nir.NIRNode) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, offset) a channel where that is all the node does, else None."""
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        weight = np.asarray(node.weight, float)
        plain = all(np.all(np.asarray(v) == neutral) for v, neutral in
                    ((node.stride, 1), (node.padding, 0)) if not isinstance(v, str))
        if set(weight.shape[1:]) == {1} and node.groups == len(weight) and plain:
            return weight.ravel(), np.asarray(node.bias, float)
    if isinstance(node, nir.Affine):
        weight = np.asarray(node.weight, float)
        if weight.shape[0] == weight.shape[1] and not np.any(weight - np.diag(np.diag(weight))):
            return np.diag(weight), np.asarray(node.bias, float)
    return None
