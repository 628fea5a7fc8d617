"""Fold average and sum pooling into the linear layer after it: chips and netx have no pooling of spikes.

Pooling is linear, so pooling and then a linear layer is one linear layer: a dense layer takes the adjoint of the
pooling on each of its rows; a convolution with kernel w and stride S after pooling of size k and stride s is a
convolution with the kernel w stretched by s and smeared by k, stride s*S. Exact but for float64 rounding.
"""

import nir
import numpy as np
import torch
from torch.nn import functional

from export.passes.rewrite import Edit, conv_numbers
from hardspike import HardspikeError
from targets.graph import plan
from targets.graph.shapes import pool_arguments

POOLS = (nir.AvgPool2d, nir.SumPool2d)


def fold_pooling(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph without pooling; the linear layers keep their names.

    Raises:
        HardspikeError: a pooling that does not lead into one linear layer, or whose border has no exact form.
    """
    while pools := [name for name, node in graph.nodes.items() if isinstance(node, POOLS)]:
        graph = _fold(graph, pools[-1])
    return graph


def _fold(graph: nir.NIRGraph, name: str) -> nir.NIRGraph:
    edit, layout = Edit(graph), plan(graph)
    edit.split(name)  # the copies have their turn
    label = f"layer '{name}' ({type(graph.nodes[name]).__name__})"
    flatten, targets = None, edit.targets(name)
    if len(targets) == 1 and isinstance(edit.nodes[targets[0]], nir.Flatten):
        flatten, targets = targets[0], edit.targets(targets[0])
    linear = targets[0] if len(targets) == 1 and edit.only_source(targets[0]) else None
    node = edit.nodes.get(linear)
    before, after = layout.input_shape[name], layout.output_shape[name]
    if isinstance(node, nir.Linear | nir.Affine) and flatten:
        edit.nodes[linear] = _into_dense(label, edit.nodes[name], node, before, after)
        edit.nodes[flatten] = nir.Flatten(input_type={"input": np.array(before)}, start_dim=0, end_dim=-1)
    elif isinstance(node, nir.Conv2d) and not flatten:
        edit.nodes[linear] = _into_conv(label, edit.nodes[name], linear, node, (before, after))
    else:
        raise HardspikeError(f"{label}: does not lead into one linear layer, so there is nothing to fold it into; "
                             "put a convolution or a dense layer after it")
    edit.bypass(name)
    return edit.graph()


def _into_dense(label: str, pool: nir.NIRNode, dense: nir.NIRNode, before: tuple, after: tuple) -> nir.NIRNode:
    weight = torch.as_tensor(np.asarray(dense.weight, float))
    kernel, stride, padding = pool_arguments(label, pool)
    divisor = 1 if isinstance(pool, nir.SumPool2d) else None
    # The adjoint of a linear map is its backward pass
    x = torch.zeros(len(weight), *before, dtype=torch.float64, requires_grad=True)
    pooled = functional.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
    gradient, = torch.autograd.grad(pooled, x, weight.view(-1, *after))
    rows = gradient.flatten(1).numpy()
    return nir.Linear(rows) if isinstance(dense, nir.Linear) else nir.Affine(rows, dense.bias)


def _into_conv(label: str, pool: nir.NIRNode, linear: str, conv: nir.Conv2d, shapes: tuple) -> nir.Conv2d:
    before, after = shapes
    kernel, stride, padding = (np.array(v) for v in pool_arguments(label, pool))
    arguments = {key: np.array(value) for key, value in conv_numbers(linear, conv).items()}
    outer = arguments["padding"]
    covered = (np.array(after[1:]) - 1) * stride + kernel - padding  # pixels that the pooling reads
    inside = (np.array(before[1:]) <= covered) & (kernel <= stride) & (padding == 0)
    if (~inside & (outer > 0)).any():
        raise HardspikeError(
            f"{label}: the next convolution pads by {tuple(int(p) for p in outer)} what the pooling of {before[1:]} to "
            f"{after[1:]} left over; no padding of one convolution does that: choose sizes that divide evenly, or "
            "padding 0 in the convolution")
    weight = torch.as_tensor(np.asarray(conv.weight, float))
    factor = 1.0 if isinstance(pool, nir.SumPool2d) else 1.0 / float(np.prod(kernel))
    # Tap (i, j) of the kernel reads the pooled pixel dilation*(i, j): k x k pixels from stride*dilation*(i, j) on
    flat = weight.flatten(0, 1)[:, None]
    spread = functional.conv_transpose2d(flat, torch.full((1, 1, *kernel.tolist()), factor, dtype=torch.float64),
                                         stride=tuple((stride * arguments["dilation"]).tolist()))
    return nir.Conv2d(input_shape=before[1:], weight=spread.view(*weight.shape[:2], *spread.shape[2:]).numpy(),
                      stride=tuple((stride * arguments["stride"]).tolist()),
                      padding=tuple((padding + stride * outer).tolist()), dilation=(1, 1), groups=conv.groups,
                      bias=conv.bias)
