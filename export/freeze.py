"""From trained modules to a NIR graph with hard thresholds.

Each module class has one converter in CONVERTERS, which gives the NIR nodes that do exactly what the module does in
evaluation mode, step by step. Time is counted in steps of `dt`; a leak lambda per step becomes tau = dt/(1 - lambda)
with R = tau/dt, for which forward Euler gives u' = lambda*u + I back.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import nir
import numpy as np
import snntorch as snn
from torch import Tensor, nn

from hardspike import HardspikeError

DT = 1e-4
"""Seconds a step: what the NIR paper used and what snnTorch's importer assumes."""


@dataclass
class Piece:
    """The nodes that stand for one module.

    Args:
        nodes: name -> node; the node named like the module gives its output.
        shape: of that output, without batch and time.
        entry: the node that takes the input, where it is not the one named like the module.
        edges: between the nodes.
    """

    nodes: dict[str, nir.NIRNode]
    shape: tuple[int, ...]
    entry: str | None = None
    edges: list[tuple[str, str]] = field(default_factory=list)


def freeze(layers: dict[str, nn.Module], shape: tuple[int, ...], metadata: dict | None = None,
           lossy_reset: bool = False) -> nir.NIRGraph:
    """The NIR graph of a chain of modules, float64 parameters, thresholds hard.

    Args:
        layers: name -> module, in order; the names become the nodes' names.
        shape: of the input, without batch and time.
        metadata: kept in the graph beside `dt`.
        lossy_reset: write a subtracting reset as NIR's LIF, which resets to zero: other spikes, but more readers.

    Raises:
        HardspikeError: a layer that NIR cannot hold exactly; names it and says what to do.
    """
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
    edges, last = [], "input"
    for name, module in layers.items():
        if lossy_reset and isinstance(module, snn.Leaky) and module.reset_mechanism == "subtract":
            module = copy.deepcopy(module)
            module.reset_mechanism = "zero"
        piece = convert(name, module, shape)
        nodes |= piece.nodes
        edges += [(last, piece.entry or name), *piece.edges]
        last, shape = name, piece.shape
    nodes["output"] = nir.Output({"output": np.array(shape)})
    edges.append((last, "output"))
    return nir.NIRGraph(nodes, edges, metadata={"dt": DT, **(metadata or {})}, type_check=False)


def convert(name: str, module: nn.Module, shape: tuple[int, ...]) -> Piece:
    """The nodes of one module for an input of `shape`.

    Raises:
        HardspikeError: no converter, or a setting that has no exact form in NIR.
    """
    for kind in type(module).__mro__:
        if kind in CONVERTERS:
            return CONVERTERS[kind](name, module, shape)
    advice = _ADVICE.get(type(module), "replace it by layers that NIR holds, or add a converter in export/freeze.py")
    raise HardspikeError(f"layer '{name}' ({type(module).__name__}): NIR has no such operation; {advice}")


_ADVICE = {
    nn.MaxPool2d: "use average pooling (ap2) or a strided convolution and train again",
}


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _conv2d(name: str, module: nn.Conv2d, shape: tuple[int, ...]) -> Piece:
    if module.padding_mode != "zeros":
        raise HardspikeError(f"layer '{name}' (Conv2d): padding_mode '{module.padding_mode}'; NIR pads with zeros only")
    if module.padding == "same":
        if any(d * (k - 1) % 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)):
            raise HardspikeError(f"layer '{name}' (Conv2d): padding 'same' with an even kernel {module.kernel_size} "
                                 "pads one side more; NIR pads both alike: use an odd kernel")
        padding = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    else:
        padding = (0, 0) if module.padding == "valid" else module.padding
    bias = np.zeros(module.out_channels) if module.bias is None else _array(module.bias)
    node = nir.Conv2d(input_shape=shape[1:], weight=_array(module.weight), stride=module.stride, padding=padding,
                      dilation=module.dilation, groups=module.groups, bias=bias)
    side = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in
            zip(shape[1:], padding, module.dilation, module.kernel_size, module.stride, strict=True)]
    return Piece({name: node}, (module.out_channels, *side))


def _linear(name: str, module: nn.Linear, shape: tuple[int, ...]) -> Piece:
    node = (nir.Linear(_array(module.weight)) if module.bias is None
            else nir.Affine(_array(module.weight), _array(module.bias)))
    return Piece({name: node}, (module.out_features,))


def _batch_norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d, shape: tuple[int, ...]) -> Piece:
    """Evaluation-mode BatchNorm: a factor and an offset a channel, as NIR holds them; `fold_batchnorm` takes it in."""
    if module.running_mean is None:
        raise HardspikeError(f"layer '{name}' ({type(module).__name__}): track_running_stats=False normalises by the "
                             "batch at hand; a chip has no batch: train with running statistics")
    one = np.ones(module.num_features)
    gain, shift = (one, 0 * one) if module.weight is None else (_array(module.weight), _array(module.bias))
    factor = gain / np.sqrt(_array(module.running_var) + module.eps)
    offset = shift - _array(module.running_mean) * factor
    if len(shape) == 1:
        return Piece({name: nir.Affine(np.diag(factor), offset)}, shape)
    node = nir.Conv2d(input_shape=shape[1:], weight=factor[:, None, None, None], stride=(1, 1), padding=(0, 0),
                      dilation=(1, 1), groups=len(factor), bias=offset)
    return Piece({name: node}, shape)


def _avg_pool2d(name: str, module: nn.AvgPool2d, shape: tuple[int, ...]) -> Piece:
    kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    if module.ceil_mode or module.divisor_override or (any(padding) and not module.count_include_pad):
        raise HardspikeError(f"layer '{name}' (AvgPool2d): ceil_mode, divisor_override and count_include_pad=False "
                             "have no form in NIR; use the plain settings")
    side = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True)]
    node = nir.AvgPool2d(kernel_size=np.array(kernel), stride=np.array(stride), padding=np.array(padding))
    return Piece({name: node}, (shape[0], *side))


def _flatten(name: str, module: nn.Flatten, shape: tuple[int, ...]) -> Piece:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise HardspikeError(f"layer '{name}' (Flatten): start_dim={module.start_dim}, end_dim={module.end_dim}; only "
                             "the whole sample (1, -1) is carried")
    # NIR counts dimensions without the batch
    node = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
    return Piece({name: node}, (int(np.prod(shape)),))


def _leaky(name: str, module: snn.Leaky, shape: tuple[int, ...]) -> Piece:
    """Reset to zero is NIR's LIF (IF where nothing leaks). NIR has no subtracting reset: it becomes a leaky integrator
    and a threshold, with a loop that takes theta off in the step after the spike, which is where snnTorch does it."""
    leak, threshold = (np.broadcast_to(_array(v), shape).copy() for v in (module.beta.clamp(0, 1), module.threshold))
    zero = np.zeros(shape)
    if (leak == 1).any() and not (leak == 1).all():
        raise HardspikeError(f"layer '{name}' (Leaky): beta is 1 (no leak, no finite tau) for some neurons only; a NIR "
                             "node has one type: keep beta below 1")
    tau = DT / (1 - leak) if (leak < 1).all() else None
    if module.reset_mechanism == "zero":
        node = (nir.IF(r=zero + 1 / DT, v_threshold=threshold, v_reset=zero) if tau is None else
                nir.LIF(tau=tau, r=tau / DT, v_leak=zero, v_threshold=threshold, v_reset=zero))
        return Piece({name: node}, shape)
    membrane = f"{name}_membrane"
    nodes = {membrane: nir.I(r=zero + 1 / DT) if tau is None else nir.LI(tau=tau, r=tau / DT, v_leak=zero),
             name: nir.Threshold(threshold)}
    edges = [(membrane, name)]
    if module.reset_mechanism == "subtract":
        nodes[f"{name}_reset"] = nir.Scale(-threshold)
        edges += [(name, f"{name}_reset"), (f"{name}_reset", membrane)]
    return Piece(nodes, shape, membrane, edges)


CONVERTERS: dict[type[nn.Module], Callable[[str, nn.Module, tuple[int, ...]], Piece]] = {
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.AvgPool2d: _avg_pool2d,
    nn.Flatten: _flatten,
    snn.Leaky: _leaky,
}
