"""Layers without a state as NIR nodes: convolution, dense, BatchNorm, flatten; pooling in `export.freeze.pooling`.

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
    return single(layer, nir.Linear(to_array(module.weight)) if module.bias is None
                  else nir.Affine(to_array(module.weight), to_array(module.bias)))


def convolution(layer: Layer) -> Piece:
    """Conv1d or Conv2d; torch's padding 'same' becomes a number, and zeros in the kernel where it is one-sided."""
    module = layer.module
    if module.padding_mode != "zeros":
        raise refusal(layer, f"padding_mode '{module.padding_mode}'; NIR pads with zeros only: train with zeros")
    weight, padding, dilation = to_array(module.weight), module.padding, module.dilation
    if padding == "same":
        border = [d * (k - 1) for d, k in zip(dilation, module.kernel_size, strict=True)]
        if any(pixels % 2 for pixels in border):
            weight, dilation = spread(weight, dilation), (1,) * len(border)
        weight, padding = both_sides(weight, [(pixels // 2, pixels - pixels // 2) for pixels in border])
    elif padding == "valid":
        padding = (0,) * len(module.kernel_size)
    bias = np.zeros(module.out_channels) if module.bias is None else to_array(module.bias)
    return single(layer, conv(layer, weight, bias, module.stride, padding, dilation, module.groups))


def spread(weight: np.ndarray, dilation: tuple[int, ...]) -> np.ndarray:
    """A kernel with the zeros that a dilation puts into it."""
    size = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    wide = np.zeros((*weight.shape[:2], *size))
    wide[(..., *(slice(None, None, d) for d in dilation))] = weight
    return wide


def both_sides(weight: np.ndarray, padding: list[tuple[int, int]]) -> tuple[np.ndarray, tuple[int, ...]]:
    """A kernel and its padding, alike on both sides as NIR has it, for one of (before, after) along each axis.

    Where the sides differ the kernel gets as many zeros more, on the side that is padded too much.
    """
    zeros = [(max(0, after - before), max(0, before - after)) for before, after in padding]
    return np.pad(weight, [(0, 0), (0, 0), *zeros]), tuple(max(sides) for sides in padding)


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
        return single(layer, nir.Affine(np.diag(factor), offset))
    return single(layer, depthwise(layer, factor.reshape(-1, 1, *[1] * (len(shape) - 1)), offset))


def graded(layer: Layer) -> Piece:
    """snn.GradedSpikes: a factor for every spike."""
    factor = to_array(layer.module.weights)
    factor = factor[:1] if not np.ptp(factor) else factor
    try:
        full = np.broadcast_to(factor, (1, *layer.shape))[0]
    except ValueError:
        raise refusal(layer, f"its weights {factor.shape} do not fit its input {layer.shape}: torch makes a picture of "
                             "them; give it one feature an axis, (B, size, 1)") from None
    return single(layer, nir.Scale(full.copy()))


def flatten(layer: Layer) -> Piece:
    """Flatten of axes of the sample; NIR counts them without the batch."""
    module, last = layer.module, len(layer.shape)
    start, end = (axis if axis >= 0 else axis + last + 1 for axis in (module.start_dim, module.end_dim))
    if not 1 <= start <= end <= last:
        raise refusal(layer, f"start_dim={module.start_dim}, end_dim={module.end_dim} of a sample {layer.shape} and "
                             "its batch; only axes of the sample are carried: use start_dim=1")
    return single(layer, nir.Flatten(input_type={"input": np.array(layer.shape)}, start_dim=start - 1,
                                     end_dim=-1 if end == last else end - 1))


def nothing(layer: Layer) -> Piece:
    """What only matters in training."""
    return Piece({}, layer.shape)


def conv(layer: Layer, weight: np.ndarray, bias: np.ndarray, stride: tuple, padding: tuple, dilation: tuple,
         groups: int) -> nir.NIRNode:
    """Conv1d or Conv2d by the kernel's axes.

    Raises:
        HardspikeError: the layer's input has others.
    """
    dimensions, size = weight.ndim - 2, layer.shape[1:]
    if len(size) != dimensions:
        raise refusal(layer, f"takes {'(C, L)' if dimensions == 1 else '(C, H, W)'}; its input is {layer.shape}: "
                             "give the shape of one sample without batch and time")
    if dimensions == 1:
        return nir.Conv1d(size[0], weight, stride[0], padding[0], dilation[0], groups, bias)
    return nir.Conv2d(size, weight, stride, padding, dilation, groups, bias)


def depthwise(layer: Layer, weight: np.ndarray, bias: np.ndarray, stride: tuple[int, ...] = (1, 1),
              padding: tuple[int, ...] = (0, 0)) -> nir.NIRNode:
    """A convolution of every channel with a kernel of its own, (C, 1, ...)."""
    return conv(layer, weight, bias, stride, padding, (1, 1), len(weight))


def single(layer: Layer, node: nir.NIRNode) -> Piece:
    """A layer that is one node."""
    return Piece({layer.name: node}, output_shape(layer.name, node, layer.shape))


CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    snn.GradedSpikes: graded,
    nn.Flatten: flatten,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
                     nn.FeatureAlphaDropout), nothing),
}
