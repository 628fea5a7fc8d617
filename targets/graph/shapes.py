"""Shapes of the values between nodes, without time and batch, from the Input on."""

import math

import nir
import numpy as np

from hardspike import HardspikeError, shown

Shape = tuple[int, ...]
MOST_AXES = 8
"""Of a value between nodes; any more are no shape but a damaged one, whose product would fill memory."""
LARGEST = 2**28
"""Values of one node in one step: beyond any network of today, and still countable."""


def array(value) -> np.ndarray:
    """A parameter as numpy, whether the writer left a number, a list, an array or a torch tensor."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def input_shape(name: str, nodes: dict[str, nir.NIRNode], edges: list) -> Shape:
    """What Input `name` declares; leading axes of size 1 beyond what its target takes are batch or time.

    Raises:
        HardspikeError: it declares no shape.
    """
    declared = next(iter((nodes[name].input_type or {None: None}).values()))
    shape = _declared(declared)
    if shape is None:
        raise HardspikeError(f"node '{name}' (Input): declares no shape of 1 to {MOST_AXES} whole numbers above 0; "
                             "give it one")
    ranks = {rank for edge in edges if edge.source == name and (rank := _rank(nodes[edge.target])) is not None}
    if len(ranks) == 1:
        extra = len(shape) - min(ranks)
        if extra > 0 and all(size == 1 for size in shape[:extra]):
            return shape[extra:]
    return shape


def infer_shapes(nodes: dict[str, nir.NIRNode], edges: list,
                 known: dict[str, Shape]) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Input and output shape of every node, from `known`, the Input's.

    Raises:
        HardspikeError: edges of different shapes meet in a node, or a node does not take its input.
    """
    taken, given = dict(known), dict(known)
    sources: dict[str, list[str]] = {}
    for edge in edges:
        sources.setdefault(edge.target, []).append(edge.source)
    waiting = [name for name in nodes if name not in known]
    while waiting:  # in a loop a node's shape is known from the edge that enters it, so every round finds one
        left = []
        for name in waiting:
            source = next((source for source in sources[name] if source in given), None)
            if source is None:
                left.append(name)
                continue
            taken[name] = given[source]
            given[name] = output_shape(name, nodes[name], taken[name])
            if math.prod(given[name]) > LARGEST:
                raise HardspikeError(f"node '{name}': gives {given[name]}, more than {LARGEST} values; "
                                     "its padding or the Input's shape is off")
        waiting = left
    for edge in edges:
        if given[edge.source] != taken[edge.target]:
            raise HardspikeError(f"edge {edge.source} -> {edge.target}: gives shape {given[edge.source]}, but "
                                 f"{edge.target} takes {taken[edge.target]}")
    return taken, given


def output_shape(name: str, node: nir.NIRNode, shape: Shape) -> Shape:
    """What `node` gives for an input of `shape`.

    Raises:
        HardspikeError: it does not take that shape.
    """
    label = f"node '{name}' ({type(node).__name__})"
    if isinstance(node, nir.Linear | nir.Affine):
        return _linear(label, node, shape)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _conv(label, node, shape)
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        if len(shape) != 3:
            raise HardspikeError(f"{label}: takes (C, H, W), gets {shape}")
        kernel, stride, padding = pool_arguments(label, node)
        return (shape[0], *_windows(label, shape[1:], kernel, stride, padding, (1, 1)))
    if isinstance(node, nir.Flatten):
        return _flatten(label, node, shape)
    if isinstance(node, nir.Output):
        return _output(label, node, shape)
    for key, value in vars(node).items():
        if key not in ("input_type", "output_type", "metadata") and value is not None:
            expand(f"{label}: {key}", value, shape)
    return shape


def expand(label: str, value, shape: Shape) -> np.ndarray:
    """A parameter in float64 with axes that broadcast against `shape`: scalar, per channel or full.

    Raises:
        HardspikeError: it fits in none of these ways, or in two.
    """
    values = array(value).astype(np.float64)
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    if values.shape == shape:
        return values
    if len(shape) > 1 and values.shape == shape[:1]:
        if shape[-1] == shape[0]:
            raise HardspikeError(f"{label} of shape {values.shape} for {shape}: per channel or per column? "
                                 f"write it as {(shape[0], *(1,) * (len(shape) - 1))} or in full")
        return values.reshape(shape[0], *(1,) * (len(shape) - 1))
    if values.ndim == len(shape) and all(size in (1, full) for size, full in zip(values.shape, shape, strict=True)):
        return values
    raise HardspikeError(f"{label} has shape {values.shape}, which does not fit the input {shape}; "
                         "write it as a scalar, per channel or in full")


def spatial(label: str, value, dimensions: int, lowest: int = 0) -> Shape:
    """A kernel size, stride, padding or dilation as `dimensions` whole numbers, none below `lowest`.

    Raises:
        HardspikeError: it is not a whole number, or not one or `dimensions` of them.
    """
    values = array(value)
    if values.dtype.kind not in "iuf" or values.size not in (1, dimensions) or (values != np.round(values)).any() \
            or (values < lowest).any() or (values > 2**31).any():
        raise HardspikeError(f"{label} is {shown(values.tolist())}; it has to be one or {dimensions} whole numbers")
    return tuple(int(v) for v in np.broadcast_to(values.ravel(), dimensions))


def groups_of(node: nir.NIRNode) -> int:
    """Of a convolution whose arguments stood `conv_arguments`; a file may hold them as an array of one. 1 elsewhere."""
    return int(array(getattr(node, "groups", 1)).item())


def conv_arguments(label: str, node: nir.Conv1d | nir.Conv2d) -> dict:
    """stride, padding (a tuple, or 'same'), dilation and groups as torch's convolutions take them."""
    dimensions = 1 if isinstance(node, nir.Conv1d) else 2
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if isinstance(padding, str) and padding == "valid":
        padding = 0
    if isinstance(padding, str) and padding != "same":
        raise HardspikeError(f"{label}: padding '{padding}' is neither 'same', 'valid' nor a number")
    if not isinstance(padding, str):
        padding = spatial(f"{label}: padding", padding, dimensions)
    arguments = {key: spatial(f"{label}: {key}", getattr(node, key), dimensions) for key in ("stride", "dilation")}
    if 0 in arguments["stride"] + arguments["dilation"]:
        raise HardspikeError(f"{label}: stride {arguments['stride']}, dilation {arguments['dilation']}; "
                             "both have to be 1 or more")
    if padding == "same" and set(arguments["stride"]) != {1}:
        raise HardspikeError(f"{label}: padding 'same' with stride {arguments['stride']} is not defined; "
                             "write the padding in numbers")
    return {**arguments, "padding": padding, "groups": spatial(f"{label}: groups", node.groups, 1)[0]}


def pool_arguments(label: str, node: nir.SumPool2d | nir.AvgPool2d) -> tuple[Shape, Shape, Shape]:
    """Kernel size, stride and padding (H, W) as torch's pooling takes them."""
    kernel, stride, padding = (spatial(f"{label}: {key}", getattr(node, key), 2)
                               for key in ("kernel_size", "stride", "padding"))
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise HardspikeError(f"{label}: padding {padding} is more than half the kernel {kernel}; pool less")
    return kernel, stride, padding


def flatten_axes(label: str, node: nir.Flatten, shape: Shape) -> tuple[int, int]:
    """First and last axis that `node` makes one of, counted from 0."""
    start, end = (spatial(f"{label}: {key}", getattr(node, key), 1, lowest=-len(shape))[0]
                  for key in ("start_dim", "end_dim"))
    start, end = start % max(len(shape), 1) if start < 0 else start, end % max(len(shape), 1) if end < 0 else end
    if not start <= end < max(len(shape), 1):
        raise HardspikeError(f"{label}: axes {node.start_dim}..{node.end_dim} do not exist in {shape} "
                             "(NIR counts no batch axis)")
    return start, end


def _linear(label: str, node: nir.Linear | nir.Affine, shape: Shape) -> Shape:
    weight = array(node.weight)
    if weight.ndim != 2:
        raise HardspikeError(f"{label}: weight has shape {weight.shape}; only (out, in) is supported")
    if len(shape) != 1 or shape[0] != weight.shape[1]:
        advice = ""
        if len(shape) > 1:
            advice = ("; put a Flatten(start_dim=0) before it (NIR counts no batch axis)"
                      if math.prod(shape) == weight.shape[1] else "; its input has to be flat")
        raise HardspikeError(f"{label}: weight {weight.shape} takes ({weight.shape[1]},), gets {shape}{advice}")
    if isinstance(node, nir.Affine):
        _check_bias(label, node.bias, weight.shape[0])
    return (weight.shape[0],)


def _conv(label: str, node: nir.Conv1d | nir.Conv2d, shape: Shape) -> Shape:
    dimensions = 1 if isinstance(node, nir.Conv1d) else 2
    weight, arguments = array(node.weight), conv_arguments(label, node)
    if weight.ndim != dimensions + 2:
        raise HardspikeError(f"{label}: weight has shape {weight.shape}, which is no {dimensions}-d convolution")
    groups, channels = arguments["groups"], weight.shape[1] * arguments["groups"]
    if len(shape) != dimensions + 1 or shape[0] != channels or groups < 1 or weight.shape[0] % groups:
        raise HardspikeError(f"{label}: weight {weight.shape} with groups={groups} takes ({channels}, "
                             f"{'L' if dimensions == 1 else 'H, W'}), gets {shape}")
    _check_bias(label, node.bias, weight.shape[0])
    if arguments["padding"] == "same":
        return (weight.shape[0], *shape[1:])
    return (weight.shape[0], *_windows(label, shape[1:], weight.shape[2:], arguments["stride"],
                                       arguments["padding"], arguments["dilation"]))


def _check_bias(label: str, bias, channels: int) -> None:
    if array(bias).shape not in ((channels,), (), (1,)):
        raise HardspikeError(f"{label}: bias has shape {array(bias).shape}, weight gives {channels} channels")


def _windows(label: str, shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    if 0 in stride or 0 in kernel:
        raise HardspikeError(f"{label}: kernel {kernel}, stride {stride}; both have to be 1 or more")
    sizes = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1
                  for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation, strict=True))
    if min(sizes) < 1:
        raise HardspikeError(f"{label}: a kernel of {kernel} does not fit into {shape} with padding {padding}")
    return sizes


def _flatten(label: str, node: nir.Flatten, shape: Shape) -> Shape:
    start, end = flatten_axes(label, node, shape)
    return (*shape[:start], math.prod(shape[start:end + 1]), *shape[end + 1:])


def _output(label: str, node: nir.Output, shape: Shape) -> Shape:
    """The declared shape is a hint: rockpool leaves batch and time in it."""
    declared = _declared(next(iter((node.output_type or {None: None}).values())))
    if declared is not None and declared[max(len(declared) - len(shape), 0):] != shape \
            and math.prod(declared) != math.prod(shape):
        raise HardspikeError(f"{label}: declares shape {declared}, but the graph gives {shape}")
    return shape


def _declared(value) -> Shape | None:
    if value is None:
        return None
    values = array(value)
    if values.dtype.kind not in "iuf" or values.ndim > 1 or values.size > MOST_AXES or not np.isfinite(values).all() \
            or (values < 1).any() or (values > LARGEST).any():
        return None
    return tuple(int(size) for size in values.ravel())


def _rank(node: nir.NIRNode) -> int | None:
    """Number of axes that `node` takes, where its fields tell."""
    if isinstance(node, nir.Linear | nir.Affine):
        return 1
    if isinstance(node, nir.Conv1d):
        return 2
    if isinstance(node, nir.Conv2d | nir.SumPool2d | nir.AvgPool2d):
        return 3
    return None
