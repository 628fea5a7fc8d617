"""What the nodes without a state compute, on a batch of any dtype."""

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from targets.shapes import Shape, array, conv_arguments, expand, flatten_axes, pool_arguments

CHUNK_BYTES = 1 << 26
"""A convolution in float64 unfolds its input in memory: so much of it at a time."""


def tensor(value, dtype: torch.dtype) -> Tensor:
    """A parameter of a node as a tensor."""
    return torch.from_numpy(array(value).astype(np.float64)).to(dtype)


def apply(name: str, node: nir.NIRNode, x: Tensor, shape: Shape, bias: bool = True) -> Tensor:
    """The node's value for `x` (N, *shape), in the dtype of `x`; NIR's equations, torch's cross-correlation.

    Linear, Affine, Conv1d, Conv2d, Scale, SumPool2d, AvgPool2d (zeros of the padding count, as in torch's default)
    and Flatten. Without `bias`, only what is proportional to `x`.
    """
    label = f"node '{name}' ({type(node).__name__})"
    if isinstance(node, nir.Linear | nir.Affine):
        offset = tensor(node.bias, x.dtype) if bias and isinstance(node, nir.Affine) else None
        return functional.linear(x, tensor(node.weight, x.dtype), offset)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _conv(label, node, x, bias)
    if isinstance(node, nir.Scale):
        return x * tensor(expand(f"{label}: scale", node.scale, shape), x.dtype)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel, stride, padding = pool_arguments(label, node)
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return functional.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
    start, end = flatten_axes(label, node, shape)
    return x.flatten(start + 1, end + 1)


def _conv(label: str, node: nir.Conv1d | nir.Conv2d, x: Tensor, bias: bool) -> Tensor:
    convolve = functional.conv1d if isinstance(node, nir.Conv1d) else functional.conv2d
    weight, arguments = tensor(node.weight, x.dtype), conv_arguments(label, node)
    if arguments["padding"] == "same":  # torch's own "same" warns of the copy that it makes
        total = [d * (k - 1) for d, k in zip(arguments["dilation"], weight.shape[2:], strict=True)]
        x = functional.pad(x, [side for t in reversed(total) for side in (t // 2, t - t // 2)])
        arguments["padding"] = 0
    offset = tensor(node.bias, x.dtype).expand(len(weight)).contiguous() if bias else None
    columns = x[0].numel() * weight[0, 0].numel() * x.element_size() if len(x) else 1
    parts = x.split(max(1, CHUNK_BYTES // columns))
    results = [convolve(part, weight, offset, **arguments) for part in parts]
    return results[0] if len(results) == 1 else torch.cat(results)
