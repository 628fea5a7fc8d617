"""What the nodes without a state compute, on a batch of any dtype."""

from collections.abc import Callable

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from targets.graph.shapes import Shape, array, conv_arguments, expand, flatten_axes, pool_arguments

CHUNK_BYTES = 1 << 26
"""A convolution without oneDNN, as in float64, unfolds its input in memory: so much of it at a time."""


def tensor(value, dtype: torch.dtype) -> Tensor:
    """A parameter of a node as a tensor."""
    return torch.from_numpy(array(value).astype(np.float64)).to(dtype)


def apply(name: str, node: nir.NIRNode, x: Tensor, shape: Shape, bias: bool = True) -> Tensor:
    """The node's value for `x` (N, *shape), in the dtype of `x`; see `prepare`."""
    return prepare(name, node, x.dtype, shape, bias)(x)


def prepare(name: str, node: nir.NIRNode, dtype: torch.dtype, shape: Shape,
            bias: bool = True) -> Callable[[Tensor], Tensor]:
    """The node as a function of x (N, *shape) in `dtype`; NIR's equations, torch's cross-correlation.

    Linear, Affine, Conv1d, Conv2d, Scale, SumPool2d, AvgPool2d (zeros of the padding count, as in torch's default)
    and Flatten. Without `bias`, only what is proportional to x.
    """
    label = f"node '{name}' ({type(node).__name__})"
    if isinstance(node, nir.Linear | nir.Affine):
        weight = tensor(node.weight, dtype)
        offset = tensor(node.bias, dtype) if bias and isinstance(node, nir.Affine) else None
        return lambda x: functional.linear(x, weight, offset)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _conv(label, node, dtype, bias)
    if isinstance(node, nir.Scale):
        scale = tensor(expand(f"{label}: scale", node.scale, shape), dtype)
        return lambda x: x * scale
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel, stride, padding = pool_arguments(label, node)
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return lambda x: functional.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
    start, end = flatten_axes(label, node, shape)
    return lambda x: x.flatten(start + 1, end + 1)


def _conv(label: str, node: nir.Conv1d | nir.Conv2d, dtype: torch.dtype, bias: bool) -> Callable[[Tensor], Tensor]:
    convolve = functional.conv1d if isinstance(node, nir.Conv1d) else functional.conv2d
    weight, arguments = tensor(node.weight, dtype), conv_arguments(label, node)
    offset = tensor(node.bias, dtype).expand(len(weight)).contiguous() if bias else None
    margins = []
    if arguments["padding"] == "same":  # torch's own "same" warns of the copy that it makes
        total = [d * (k - 1) for d, k in zip(arguments["dilation"], weight.shape[2:], strict=True)]
        margins = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        arguments["padding"] = 0
    unfolds = dtype != torch.float32 or not torch.backends.mkldnn.is_available()

    def convolution(x: Tensor) -> Tensor:
        x = functional.pad(x, margins) if margins else x
        columns = x[0].numel() * weight[0, 0].numel() * x.element_size() if len(x) else 1
        parts = x.split(max(1, CHUNK_BYTES // columns)) if unfolds else (x,)
        results = [convolve(part, weight, offset, **arguments) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)
    return convolution
