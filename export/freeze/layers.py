"""Layers without a state as NIR nodes: convolution, dense, BatchNorm, average pooling, flatten.

Each converter gives the nodes that do exactly what its module does in evaluation mode.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import nir
import numpy as np
import snntorch as snn
from torch import Tensor, nn

from hardspike import HardspikeError
from targets.graph.shapes import output_shape


@dataclass(frozen=True)
class Layer:
    """What a converter gets.

    Args:
        name: of the layer, which its output node takes.
        module: to convert.
        shape: of its input, without batch and time.
        lossy_reset: a reset that NIR's LIF does not hold may be written as one to zero.
        binary: its input is all zeros and ones.
        forgets: the states of a neuron that are made anew in every step: mem, syn, spk, ...
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    lossy_reset: bool = False
    binary: bool = False
    forgets: frozenset[str] = frozenset()


@dataclass
class Piece:
    """The nodes that stand for one module; none for a module that does nothing at inference.

    Args:
        nodes: name -> node.
        shape: of the output, without batch and time.
        entry: the node that takes the input; default: the one named like the layer.
        exit: the node that gives the output; same default.
        edges: between the nodes.
        membrane: the nodes whose outputs sum to the membrane potential before a reset in the same step, where there are
            any.
        past: the node that gives the spikes of the step before, where there is one.
        entries: the nodes that take the input, where there are several.
        compared: the node that compares the membrane with the threshold; default: the one named like the layer.
    """

    nodes: dict[str, nir.NIRNode]
    shape: tuple[int, ...]
    entry: str = ""
    exit: str = ""
    edges: list[tuple[str, str]] = field(default_factory=list)
    membrane: tuple[str, ...] = ()
    past: str | None = None
    entries: tuple[str, ...] = ()
    compared: str = ""


def refusal(layer: Layer, text: str) -> HardspikeError:
    """The error that names the layer; `text`: value, limit; what to do."""
    return HardspikeError(f"layer '{layer.name}' ({type(layer.module).__name__}): {text}")


def to_array(value: Tensor) -> np.ndarray:
    """A parameter in float64."""
    return value.detach().cpu().double().numpy()


def linear(layer: Layer) -> Piece:
    """Linear, or Affine where it has a bias."""
    module = layer.module
    return _single(layer, nir.Linear(to_array(module.weight)) if module.bias is None
                   else nir.Affine(to_array(module.weight), to_array(module.bias)))


def convolution(layer: Layer) -> Piece:
    """Conv1d or Conv2d; torch's padding 'same' becomes a number."""
    module = layer.module
    if module.padding_mode != "zeros":
        raise refusal(layer, f"padding_mode '{module.padding_mode}'; NIR pads with zeros only: train with zeros")
    padding = module.padding
    if padding == "same":
        border = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if any(pixels % 2 for pixels in border):
            raise refusal(layer, f"padding 'same' with an even kernel {module.kernel_size} pads one side more; NIR "
                                 "pads both alike: use an odd kernel")
        padding = tuple(pixels // 2 for pixels in border)
    elif padding == "valid":
        padding = (0,) * len(module.kernel_size)
    bias = np.zeros(module.out_channels) if module.bias is None else to_array(module.bias)
    return _single(layer, _conv(layer, to_array(module.weight), bias, module.stride, padding, module.dilation,
                                module.groups))


def batch_norm(layer: Layer) -> Piece:
    """Evaluation-mode BatchNorm: a factor and an offset a channel, as NIR holds them; `fold_batchnorm` takes it in."""
    module, shape = layer.module, layer.shape
    if module.running_mean is None:
        raise refusal(layer, "track_running_stats=False normalises by the batch at hand; a chip has no batch: train "
                             "with running statistics")
    if len(shape) not in ((3,) if isinstance(module, nn.BatchNorm2d) else (1, 2)) or shape[0] != module.num_features:
        raise refusal(layer, f"{module.num_features} features; its input is {shape}: give as many channels")
    one = np.ones(module.num_features)
    gain = one if module.weight is None else to_array(module.weight)
    shift = 0 * one if module.bias is None else to_array(module.bias)
    factor = gain / np.sqrt(to_array(module.running_var) + module.eps)
    offset = shift - to_array(module.running_mean) * factor
    if len(shape) == 1:
        return _single(layer, nir.Affine(np.diag(factor), offset))
    return _single(layer, _depthwise(layer, factor.reshape(-1, 1, *[1] * (len(shape) - 1)), offset))


def average_pool(layer: Layer) -> Piece:
    """AvgPool2d; NIR has no one-dimensional pooling, which becomes a convolution of each channel with 1/k."""
    module = layer.module
    dimensions = 1 if isinstance(module, nn.AvgPool1d) else 2
    kernel, stride, padding = (tuple(np.broadcast_to(value, dimensions).tolist()) for value in
                               (module.kernel_size, module.stride, module.padding))
    if module.ceil_mode or getattr(module, "divisor_override", None) or (any(padding) and not module.count_include_pad):
        raise refusal(layer, "ceil_mode, divisor_override and count_include_pad=False have no form in NIR; use the "
                             "plain settings")
    if dimensions == 2:
        return _single(layer, nir.AvgPool2d(kernel_size=np.array(kernel), stride=np.array(stride),
                                            padding=np.array(padding)))
    channels = layer.shape[0]
    return _single(layer, _depthwise(layer, np.full((channels, 1, *kernel), 1 / kernel[0]), np.zeros(channels), stride,
                                     padding))


def adaptive_average_pool(layer: Layer) -> Piece:
    """AdaptiveAvgPool1d or 2d where the picture's size is a multiple of what is asked: an average pooling."""
    module, size = layer.module, layer.shape[1:]
    wanted = tuple(size[axis] if n is None else n for axis, n in
                   enumerate(np.broadcast_to(np.array(module.output_size, object), len(size)).tolist()))
    if any(n % k for n, k in zip(size, wanted, strict=True)):
        raise refusal(layer, f"makes {wanted} of {size}: windows of different sizes; choose sizes that divide evenly")
    kernel = tuple(n // k for n, k in zip(size, wanted, strict=True))
    plain = nn.AvgPool1d(kernel) if isinstance(module, nn.AdaptiveAvgPool1d) else nn.AvgPool2d(kernel)
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
    dimensions = 1 if isinstance(module, nn.MaxPool1d) else 2
    kernel, stride, padding, dilation = (tuple(np.broadcast_to(value, dimensions).tolist()) for value in
                                         (module.kernel_size, module.stride or module.kernel_size, module.padding,
                                          module.dilation))
    if len(layer.shape) != dimensions + 1:
        raise refusal(layer, f"takes {'(C, L)' if dimensions == 1 else '(C, H, W)'}; its input is {layer.shape}")
    if module.return_indices:
        raise refusal(layer, "return_indices=True: which spike came first is nothing that a chip knows; use "
                             "nn.Upsample to undo the pooling")
    if module.ceil_mode and any((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in zip(
            layer.shape[1:], kernel, stride, padding, dilation, strict=True)):
        raise refusal(layer, f"ceil_mode=True with {layer.shape[1:]} pads one side alone, which NIR does not; use "
                             "ceil_mode=False, or sizes that divide evenly")
    channels, summed = layer.shape[0], f"{layer.name}_sum"
    node = _conv(layer, np.ones((channels, 1, *kernel)), np.zeros(channels), stride, padding, dilation, channels)
    shape = output_shape(summed, node, layer.shape)
    return Piece({summed: node, layer.name: nir.Threshold(np.full(shape, 0.5))}, shape, summed,
                 edges=[(summed, layer.name)])


def graded(layer: Layer) -> Piece:
    """snn.GradedSpikes: a factor for every spike."""
    factor = to_array(layer.module.weights)
    factor = factor[:1] if not np.ptp(factor) else factor
    try:
        full = np.broadcast_to(factor, (1, *layer.shape))[0]
    except ValueError:
        raise refusal(layer, f"its weights {factor.shape} do not fit its input {layer.shape}: torch makes a picture of "
                             "them; give it one feature an axis, (B, size, 1)") from None
    return _single(layer, nir.Scale(full.copy()))


def flatten(layer: Layer) -> Piece:
    """Flatten of axes of the sample; NIR counts them without the batch."""
    module, last = layer.module, len(layer.shape)
    start, end = (axis if axis >= 0 else axis + last + 1 for axis in (module.start_dim, module.end_dim))
    if not 1 <= start <= end <= last:
        raise refusal(layer, f"start_dim={module.start_dim}, end_dim={module.end_dim} of a sample {layer.shape} and "
                             "its batch; only axes of the sample are carried: use start_dim=1")
    return _single(layer, nir.Flatten(input_type={"input": np.array(layer.shape)}, start_dim=start - 1,
                                      end_dim=-1 if end == last else end - 1))


def nothing(layer: Layer) -> Piece:
    """What only matters in training."""
    return Piece({}, layer.shape)


def _conv(layer: Layer, weight: np.ndarray, bias: np.ndarray, stride: tuple, padding: tuple, dilation: tuple,
          groups: int) -> nir.NIRNode:
    dimensions, size = weight.ndim - 2, layer.shape[1:]
    if len(size) != dimensions:
        raise refusal(layer, f"takes {'(C, L)' if dimensions == 1 else '(C, H, W)'}; its input is {layer.shape}: "
                             "give the shape of one sample without batch and time")
    if dimensions == 1:
        return nir.Conv1d(size[0], weight, stride[0], padding[0], dilation[0], groups, bias)
    return nir.Conv2d(size, weight, stride, padding, dilation, groups, bias)


def _depthwise(layer: Layer, weight: np.ndarray, bias: np.ndarray, stride: tuple = (1, 1),
               padding: tuple = (0, 0)) -> nir.NIRNode:
    return _conv(layer, weight, bias, stride, padding, (1, 1), len(weight))


def _single(layer: Layer, node: nir.NIRNode) -> Piece:
    return Piece({layer.name: node}, output_shape(layer.name, node, layer.shape))


CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.AvgPool1d: average_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool1d: adaptive_average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
    nn.MaxPool1d: maximum_pool,
    nn.MaxPool2d: maximum_pool,
    snn.GradedSpikes: graded,
    nn.Flatten: flatten,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
                     nn.FeatureAlphaDropout), nothing),
}
