"""Pooling as NIR nodes: averages, and the largest of spikes, which is an OR of each window.

Windows that stick out on one side (`ceil_mode`) are those of a kernel with zeros in front, padded alike on both sides.
"""

from collections.abc import Callable

import nir
import numpy as np
from torch import nn

from export.freeze.layers import Layer, Piece, both_sides, conv, depthwise, refusal, single, spread
from targets.graph.shapes import output_shape

MAXIMUM = nn.MaxPool1d | nn.MaxPool2d | nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d
"""What gives spikes for spikes."""


def average_pool(layer: Layer) -> Piece:
    """AvgPool2d; NIR has no one-dimensional pooling, which becomes a convolution of each channel with 1/k.

    Raises:
        HardspikeError: windows that are divided by different numbers.
    """
    module, channels = layer.module, layer.shape[0]
    kernel, stride, padding, _ = geometry(module)
    if uneven(module, layer.shape):
        raise refusal(layer, "windows at the border are divided by other numbers (ceil_mode, count_include_pad=False), "
                             "which no convolution does; use sizes that divide evenly, or the plain settings")
    divisor = getattr(module, "divisor_override", None)
    if len(kernel) == 2 and not divisor:
        return single(layer, nir.AvgPool2d(kernel_size=np.array(kernel), stride=np.array(stride),
                                           padding=np.array(padding)))
    weight = np.full((channels, 1, *kernel), 1 / (divisor or kernel[0]))
    return single(layer, depthwise(layer, weight, np.zeros(channels), stride, padding))


def adaptive_average_pool(layer: Layer) -> Piece:
    """AdaptiveAvgPool1d or 2d where the picture's size is a multiple of what is asked: an average pooling."""
    kernel = _divided(layer)
    plain = nn.AvgPool1d(kernel) if isinstance(layer.module, nn.AdaptiveAvgPool1d) else nn.AvgPool2d(kernel)
    return average_pool(Layer(layer.name, plain, layer.shape))


def maximum_pool(layer: Layer) -> Piece:
    """MaxPool1d or 2d of zeros and ones: an OR, a sum over each window that is compared with one half.

    Raises:
        HardspikeError: the layer gets currents; a setting that has no form.
    """
    module = layer.module
    if not layer.binary:
        raise refusal(layer, "takes the largest of currents, which no sum of them gives; NIR has no such operation; "
                             "use average pooling (ap2) or a strided convolution and train again, or pool the spikes "
                             "after the neuron")
    kernel, stride, padding, dilation = geometry(module)
    if len(layer.shape) != len(kernel) + 1:
        raise refusal(layer, f"takes {'(C, L)' if len(kernel) == 1 else '(C, H, W)'}; its input is {layer.shape}")
    channels, summed = layer.shape[0], f"{layer.name}_sum"
    weight = spread(np.ones((channels, 1, *kernel)), dilation)
    extra = overhang(module, layer.shape)
    if any(extra):
        weight, padding = both_sides(weight, [(p, p + e) for p, e in zip(padding, extra, strict=True)])
        dilation = (1,) * len(kernel)
    else:
        weight = np.ones((channels, 1, *kernel))
    node = conv(layer, weight, np.zeros(channels), stride, padding, dilation, channels)
    shape = output_shape(summed, node, layer.shape)
    return Piece({summed: node, layer.name: nir.Threshold(np.full(shape, 0.5))}, shape, summed,
                 edges=[(summed, layer.name)])


def adaptive_maximum_pool(layer: Layer) -> Piece:
    """AdaptiveMaxPool1d or 2d where the picture's size is a multiple of what is asked: a max-pooling."""
    kernel = _divided(layer)
    plain = nn.MaxPool1d(kernel) if isinstance(layer.module, nn.AdaptiveMaxPool1d) else nn.MaxPool2d(kernel)
    return maximum_pool(Layer(layer.name, plain, layer.shape, binary=layer.binary))


def geometry(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Kernel size, stride, padding and dilation along each axis."""
    dimensions = 1 if isinstance(module, nn.AvgPool1d | nn.MaxPool1d) else 2
    values = (module.kernel_size, module.stride or module.kernel_size, module.padding, getattr(module, "dilation", 1))
    return tuple(tuple(np.broadcast_to(value, dimensions).tolist()) for value in values)


def overhang(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """By how much the last window sticks out beyond what is padded, along each axis of a picture (C, ...).

    With `ceil_mode` a window that begins inside is one; torch leaves out one that begins in the padding behind.
    """
    kernel, stride, padding, dilation = geometry(module)
    if not module.ceil_mode:
        return (0,) * len(kernel)
    found = []
    for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        windows = -(-room // s) + 1
        if (windows - 1) * s >= n + p:
            windows -= 1
        found.append(max(0, (windows - 1) * s - room))
    return tuple(found)


def uneven(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether an average's windows are not all divided by one number."""
    if isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d):
        return any(n % k for n, k in zip(shape[1:], _wanted(module, shape), strict=True))
    if not isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        return False
    padded = any(geometry(module)[2]) and not module.count_include_pad
    return any(overhang(module, shape)) or (padded and not getattr(module, "divisor_override", None))


def _wanted(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    asked = np.broadcast_to(np.array(module.output_size, object), len(shape) - 1).tolist()
    return tuple(shape[1 + axis] if n is None else n for axis, n in enumerate(asked))


def _divided(layer: Layer) -> tuple[int, ...]:
    """The windows of an adaptive pooling.

    Raises:
        HardspikeError: they are not all of one size.
    """
    size, wanted = layer.shape[1:], _wanted(layer.module, layer.shape)
    if uneven(layer.module, layer.shape):
        raise refusal(layer, f"makes {wanted} of {size}: windows of different sizes; choose sizes that divide evenly")
    return tuple(n // k for n, k in zip(size, wanted, strict=True))


CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {
    nn.AvgPool1d: average_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool1d: adaptive_average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
    nn.MaxPool1d: maximum_pool,
    nn.MaxPool2d: maximum_pool,
    nn.AdaptiveMaxPool1d: adaptive_maximum_pool,
    nn.AdaptiveMaxPool2d: adaptive_maximum_pool,
}
