"""Operations that have a NIR form of their own: reshaping, sums, factors, pooling, and layers called as functions.

Each takes the builder and the folded operation and gives its signal, or None where it has to be tried as a matrix.
"""

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from export.freeze.assembly import Signal, few_values
from export.freeze.convert import convert
from export.freeze.layers import Layer, to_array
from export.watch import levels
from export.watch.cuts import Cut
from export.watch.fold import Apply, Expr, Fixed
from export.watch.signals import alike, flattened, scaled
from export.watch.values import label
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder


def same(builder: "Builder", expr: Apply) -> Signal | None:
    """What hands on what it gets; a cast to whole numbers does so with spikes."""
    source = next(expr.children())
    if source.shape() != expr.shape():
        return None
    kinds = [e.values[0].dtype for e in (source, expr)]
    return levels.pointwise(builder, expr) if kinds[0].is_floating_point > kinds[1].is_floating_point else \
        builder.signal(source)


def reshape(builder: "Builder", expr: Apply) -> Signal | None:
    """Another shape for every sample; NIR can only flatten, so what goes in comes in the shape that it is given."""
    source = next(expr.children())
    before, after = source.shape(), expr.shape()
    if expr.free() and len(after) > len(before):
        raise Cut(expr, "gives what goes in another shape, and NIR can only flatten; hand it in like that")
    if before[:1] != after[:1] or math.prod(before) != math.prod(after):
        return None
    signal = builder.signal(source)
    return flattened(builder, signal, after[1:], label(expr.function))


def add(builder: "Builder", expr: Apply) -> Signal | None:
    """A sum of two signals of one shape: their edges meet."""
    a, b = expr.args[:2] if len(expr.args) > 1 else (expr.args[0], expr.kwargs.get("other"))
    factor = expr.kwargs.get("alpha", 1)
    if isinstance(a, Expr) and _neutral(b, 0):
        return builder.signal(a)
    if isinstance(b, Expr) and _neutral(a, 0) and factor == 1:
        return builder.signal(b)
    return _sum(builder, expr, a, b, factor) or levels.pointwise(builder, expr)


def subtract(builder: "Builder", expr: Apply) -> Signal | None:
    """A difference: the second with factor -1."""
    a, b = expr.args[:2] if len(expr.args) > 1 else (expr.args[0], expr.kwargs.get("other"))
    if isinstance(a, Expr) and _neutral(b, 0):
        return builder.signal(a)
    return _sum(builder, expr, a, b, -expr.kwargs.get("alpha", 1)) or levels.pointwise(builder, expr)


def _sum(builder: "Builder", expr: Apply, a: Any, b: Any, factor: float) -> Signal | None:
    if not (_signal(a) and _signal(b)) or not a.shape() == b.shape() == expr.shape():
        return None
    one, other = builder.signal(a), builder.signal(b)
    if factor != 1:
        other = scaled(builder, other, np.full(other.shape, float(factor)), label(expr.function))
    one, other = alike(builder, [one, other])
    if one.shape != other.shape:
        return None
    if len(set(one.sources + other.sources)) < len(one.sources + other.sources):
        if one.sources == other.sources:
            return scaled(builder, one, np.full(one.shape, 2.0), label(expr.function))
        other = scaled(builder, other, np.ones(other.shape), label(expr.function))
    return Signal(one.sources + other.sources, one.shape, expr.shape()[1:],
                  few_values(np.add.outer(one.values, other.values)))


def negate(builder: "Builder", expr: Apply) -> Signal | None:
    """Factor -1."""
    signal = builder.signal(next(expr.children()))
    return scaled(builder, signal, np.full(signal.shape, -1.0), "neg")


def multiply(builder: "Builder", expr: Apply) -> Signal | None:
    """A factor that is a constant, or spikes times spikes."""
    a, b = expr.args[:2] if len(expr.args) > 1 else (expr.args[0], expr.kwargs.get("other"))
    if _signal(a) and _signal(b):
        if (found := levels.pointwise(builder, expr)) is not None:
            return found
        raise HardspikeError("multiplies two signals, which no sum of weights does; NIR has no such operation: add "
                             "them, or give each a layer of its own, and train again")
    signal, factor = (a, b) if _signal(a) else (b, a)
    if not _signal(signal) or signal.shape() != expr.shape() or expr.kwargs.keys() - {"other"}:
        return None
    if label(expr.function) in ("div", "div_"):
        if signal is not a:
            return None
        factor = 1 / (factor.tensor if isinstance(factor, Fixed) else factor)
    elif isinstance(factor, Fixed):
        factor = factor.tensor
    full = _for_sample(factor, expr.shape())
    if full is None:
        return None
    if (full == 1).all():
        return builder.signal(signal)
    taken = builder.signal(signal)
    return scaled(builder, taken, full.reshape(taken.shape), label(expr.function))


def _for_sample(factor: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant as one array for every sample; None where it differs between samples."""
    values = to_array(factor) if isinstance(factor, Tensor) else np.asarray(factor, float)
    try:
        full = np.broadcast_to(values, shape)
    except ValueError:
        return None
    return full[0].copy() if (full == full[:1]).all() else None


def layer(builder: "Builder", expr: Apply) -> Signal | None:
    """A layer that is called as a function: the module that does the same."""
    if expr.index not in ((), (0,)):
        raise HardspikeError(f"forward, operation '{label(expr.function)}': {levels.WHICH}")
    source, module = as_module(expr)
    found = builder.layer(builder.called(expr), module, source) if module is not None else None
    return levels.largest(builder, expr) if found is None and label(expr.function) in levels.LARGEST_OF else found


def maximum(builder: "Builder", expr: Apply) -> Signal | None:
    """The larger of two signals, or the largest along an axis."""
    return levels.pointwise(builder, expr) or levels.largest(builder, expr)


def as_module(expr: Apply) -> tuple[Expr | None, nn.Module | None]:
    """What an operation acts on, and the module that does what it does; None where there is none."""
    if isinstance(expr.function, nn.Module):
        children = list(expr.children())
        return (children[0], expr.function) if len(children) == 1 else (None, None)
    name, named = label(expr.function), dict(expr.kwargs)
    args = [*expr.args]
    source = args.pop(0) if args else named.pop("input", None)
    if not isinstance(source, Expr) or isinstance(source, Fixed) or name not in MODULES:
        return None, None
    values = dict(zip(MODULES[name][1], args, strict=False)) | named
    values = {key: value.tensor if isinstance(value, Fixed) else value for key, value in values.items()}
    if any(isinstance(value, Expr) for value in values.values()):
        return None, None
    return source, MODULES[name][0](values)


def apart(builder: "Builder", name: str, module: nn.Module, source: Expr) -> Signal | None:
    """A linear layer behind a concatenation: W cat(a, b) = W_a a + W_b b, a layer of its own for each part.

    None where what lies between is something else.
    """
    parts = _concatenated(source)
    if parts is None or (isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups != 1):
        return None
    signals = [builder.signal(part) for part in parts]
    if any(signal.flat() and len(signal.logical) > 1 for signal in signals):
        return None
    flat = isinstance(module, nn.Linear)
    weight, start, sources, shape = module.weight, 0, [], None
    sizes = [math.prod(s.shape) if flat else s.shape[0] for s in signals]
    if sum(sizes) != weight.shape[1] * 1:
        return None
    for number, (signal, size) in enumerate(zip(signals, sizes, strict=True)):
        part = _like(module, weight[:, start:start + size], number == 0)
        start += size
        signal = flattened(builder, signal, (size,), "flatten") if flat else signal
        node = name if not number else builder.assembly.free(f"{name}_{number}")
        piece = convert(Layer(node, part, signal.shape))
        sources += builder.assembly.add(node, piece, signal.sources)
        shape = piece.shape
    return Signal(tuple(sources), shape, shape)


def _concatenated(source: Expr) -> list[Expr] | None:
    """The signals that stand side by side along the first axis of a sample, also where all is then flattened."""
    if not isinstance(source, Apply) or (isinstance(source.function, nn.Module) and not isinstance(
            source.function, nn.Flatten)):
        return None
    name = label(source.function)
    if name in ("flatten", "view", "reshape", "Flatten"):
        inner = next(source.children())
        return _concatenated(inner) if len(source.shape()) == 2 else None
    if name not in ("cat", "concat", "concatenate", "hstack"):
        return None
    parts = source.args[0] if source.args else source.kwargs.get("tensors")
    axis = source.kwargs.get("dim", source.args[1] if len(source.args) > 1 else (1 if name == "hstack" else 0))
    if axis not in (1, 1 - len(source.shape())) or not all(_signal(part) for part in parts):
        return None
    return list(parts) if len(set(map(id, parts))) == len(parts) else None


def _like(module: nn.Module, weight: Tensor, bias: bool) -> nn.Module:
    part = copy.copy(module)
    part._parameters = {"weight": nn.Parameter(weight.detach(), False),
                        "bias": module.bias if bias else None}
    part.__dict__.pop("forward", None)
    return part


def _pool(kind: type[nn.Module]) -> Any:
    return lambda values: kind(**{key: value for key, value in values.items() if value not in ([], ())})


def _linear(values: dict) -> nn.Module | None:
    weight, bias = values["weight"], values.get("bias")
    if weight.ndim != 2:
        return None
    module = nn.Linear(1, 1, bias=bias is not None)
    module.weight = nn.Parameter(weight.detach(), False)
    module.bias = None if bias is None else nn.Parameter(bias.detach(), False)
    return module


def _convolution(kind: type[nn.Module]) -> Any:
    def make(values: dict) -> nn.Module:
        weight, bias, groups = values["weight"], values.get("bias"), values.get("groups", 1)
        module = kind(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), values.get("stride", 1),
                      values.get("padding", 0), values.get("dilation", 1), groups, bias is not None)
        module.weight = nn.Parameter(weight.detach(), False)
        module.bias = None if bias is None else nn.Parameter(bias.detach(), False)
        return module

    return make


_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_ADAPTIVE = ("output_size", "return_indices")
_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
MODULES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "max_pool1d": (_pool(nn.MaxPool1d), _MAX),
    "max_pool2d": (_pool(nn.MaxPool2d), _MAX),
    "max_pool1d_with_indices": (_pool(nn.MaxPool1d), _MAX),
    "max_pool2d_with_indices": (_pool(nn.MaxPool2d), _MAX),
    "adaptive_max_pool1d": (_pool(nn.AdaptiveMaxPool1d), _ADAPTIVE),
    "adaptive_max_pool2d": (_pool(nn.AdaptiveMaxPool2d), _ADAPTIVE),
    "adaptive_max_pool1d_with_indices": (_pool(nn.AdaptiveMaxPool1d), _ADAPTIVE),
    "adaptive_max_pool2d_with_indices": (_pool(nn.AdaptiveMaxPool2d), _ADAPTIVE),
    "avg_pool1d": (_pool(nn.AvgPool1d), _AVERAGE[:5]),
    "avg_pool2d": (_pool(nn.AvgPool2d), _AVERAGE),
    "adaptive_avg_pool1d": (_pool(nn.AdaptiveAvgPool1d), ("output_size",)),
    "adaptive_avg_pool2d": (_pool(nn.AdaptiveAvgPool2d), ("output_size",)),
    "linear": (_linear, ("weight", "bias")),
    "conv1d": (_convolution(nn.Conv1d), _CONV),
    "conv2d": (_convolution(nn.Conv2d), _CONV),
}


def _signal(value: Any) -> bool:
    return isinstance(value, Expr) and not isinstance(value, Fixed)


def _neutral(value: Any, number: float) -> bool:
    if isinstance(value, Fixed):
        return bool((value.tensor == number).all())
    return isinstance(value, int | float) and value == number


FORMS = {
    **dict.fromkeys(("detach", "detach_", "clone", "contiguous", "to", "float", "double", "type", "data", "alias",
                     "cpu", "cuda", "requires_grad_", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
                     "feature_alpha_dropout", "expand", "expand_as"), same),
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as",
                     "ravel", "squeeze_", "unsqueeze_"), reshape),
    **dict.fromkeys(("add", "add_"), add),
    **dict.fromkeys(("sub", "sub_"), subtract),
    "neg": negate,
    **dict.fromkeys(("mul", "mul_", "div", "div_"), multiply),
    **dict.fromkeys(levels.POINTWISE, levels.pointwise),
    **dict.fromkeys(("gt", "ge", "lt", "le"), levels.compared),
    **dict.fromkeys(("max", "amax", "any"), maximum),
    **dict.fromkeys(MODULES, layer),
}
