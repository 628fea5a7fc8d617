"""Functions of signals that have few values: exact, though no sum of weights does what they do.

What takes the values v_0 < v_1 < ... to f(v_0), f(v_1), ... is f(v_0) + sum over k of (f(v_k) - f(v_k-1)) [x > m_k],
with m_k between v_k-1 and v_k: each bracket is a `Threshold`, and of spikes all of it is a factor and an offset. So
casts, comparisons, clamps, ReLUs and powers of spikes are carried, and any function of two layers' spikes, with an AND
for what their sum does not give. The largest of such values is an OR of each bracket.
"""

import math
from typing import TYPE_CHECKING

import nir
import numpy as np
import torch
from torch import Tensor, nn

from export.freeze.assembly import BINARY, Signal, few_values
from export.freeze.convert import convert
from export.freeze.layers import Layer, Piece
from export.watch.dense import LARGEST, evaluate
from export.watch.fold import Apply, Expr, Fixed
from export.watch.leaf import is_fake_quantizer
from export.watch.signals import alike, row, weighted
from export.watch.values import label
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder

POINTWISE = {"int", "long", "short", "bool", "byte", "char", "gt", "ge", "lt", "le", "eq", "ne", "clamp", "clamp_",
             "clip", "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "softplus",
             "sigmoid", "tanh", "hardtanh", "hardsigmoid", "hardswish", "threshold", "abs", "pow", "square", "sqrt",
             "exp", "sign", "sgn", "heaviside", "where", "round", "floor", "ceil", "trunc", "logical_and", "logical_or",
             "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "and", "or",
             "xor", "invert", "iand", "ior", "maximum", "minimum", "fmax", "fmin", "rsub", "masked_fill",
             "masked_fill_", "rpow", "remainder", "fake_quantize_per_tensor_affine",
             "fake_quantize_per_channel_affine", "nan_to_num"}
"""Functions that make each value of one value of each thing that they get, and are no sums."""
_SUMS = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg"}
_COPIES = {"detach", "detach_", "clone", "contiguous", "to", "float", "double", "type", "type_as", "alias", "cpu"}
LAYERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
          nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.Softsign, nn.Threshold)
"""Layers that do so."""
LARGEST_OF = {"max", "amax", "any", "max_pool1d", "max_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices",
              "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool1d_with_indices",
              "adaptive_max_pool2d_with_indices"}
"""Functions that give the largest of some of the values that they get."""
WHICH = ("says which spike of a window comes first (return_indices), which no sum of weights does; use the pooled "
         "spikes alone, and nn.Upsample to undo the pooling")


def elementwise(expr: Expr, shape: tuple[int, ...]) -> bool:
    """Whether an expression makes each value of its `shape` of one value of each thing that it gets."""
    if not isinstance(expr, Apply) or expr.shape() != shape:
        return False
    kind = isinstance(expr.function, LAYERS) or is_fake_quantizer(expr.function) if isinstance(
        expr.function, nn.Module) else label(expr.function) in POINTWISE | _SUMS | _COPIES
    return kind and all(isinstance(child, Fixed) or child.shape() == shape for child in expr.children())


def pointwise(builder: "Builder", expr: Apply) -> Signal | None:
    """A function of each value of one signal, or of two layers' spikes; None where it is none, or of currents."""
    if not elementwise(expr, expr.shape()):
        return None
    near = list({id(child): child for child in expr.children() if not isinstance(child, Fixed)}.values())
    products = label(expr.function) in ("mul", "mul_") and len(near) > 1
    plain = not isinstance(expr.function, nn.Module) and label(expr.function) in _SUMS and not products
    for leaves in (_leaves(builder, expr), near):
        if 0 < len(leaves) <= 4 and not (plain and any(builder.soft(leaf) for leaf in leaves)):
            found = _function_of(builder, expr, leaves)
            if found is not None:
                return found
    return None


def _function_of(builder: "Builder", expr: Apply, leaves: list[Expr]) -> Signal | None:
    """An elementwise expression as a function of what it is made of."""
    groups: dict[tuple[str, ...], list[Expr]] = {}
    signals: dict[tuple[str, ...], Signal] = {}
    for leaf in leaves:
        signal = builder.signal(leaf)
        if not signal.values:
            return None
        groups.setdefault(signal.sources, []).append(leaf)
        signals[signal.sources] = signal
    several = list(signals.values())
    if len(several) == 1:
        table = _table(expr, list(groups.values()), [several[0].values])
        return None if table is None else stepped(builder, several[0], table, builder.called(expr))
    if len(several) > 2 or not all(signal.binary for signal in several):
        return None
    table = _table(expr, list(groups.values()), [BINARY, BINARY])
    return None if table is None else _of_two(builder, *alike(builder, several), table, builder.called(expr))


def _leaves(builder: "Builder", expr: Apply) -> list[Expr]:
    """What an expression is made of, one value of each for each of its own; each once."""
    found: dict[int, Expr] = {}
    waiting, seen = [expr], set()
    while waiting:
        for child in waiting.pop(0).children():
            if id(child) in seen or isinstance(child, Fixed):
                continue
            seen.add(id(child))
            if elementwise(child, expr.shape()) and not builder.apart(child):
                waiting.append(child)
            else:
                found[id(child)] = child
    return list(found.values())


def _table(expr: Apply, groups: list[list[Expr]], values: list[tuple[float, ...]]) -> np.ndarray | None:
    """What comes out, without the batch, for each value of each group of equal things; None where that does not tell.

    Of one group (V, *shape), of two (2, 2, *shape).
    """
    def run(parts: list[Tensor]) -> Tensor:
        given = {id(child): part.to(child.values[0].dtype or torch.float64) for group, part in
                 zip(groups, parts, strict=True) for child in group}
        return evaluate(expr, given).double()

    shape = expr.shape()
    generator = torch.Generator().manual_seed(4)
    try:
        rows = [run([torch.full(shape, v[i], dtype=torch.float64) for v, i in zip(values, index, strict=True)])
                for index in np.ndindex(*map(len, values))]
        table = torch.stack(rows).unflatten(0, [len(v) for v in values])
        drawn = [torch.randint(len(v), shape, generator=generator) for v in values]
        found = run([torch.tensor(v, dtype=torch.float64)[d] for v, d in zip(values, drawn, strict=True)])
    except HardspikeError:
        return None
    if found.shape != shape or not table.isfinite().all():
        return None
    wanted = table
    for number in drawn:
        wanted = wanted.gather(0, number.expand(1, *wanted.shape[1:-len(shape)], *shape))[0]
    same = torch.equal(table, table.select(len(values), 0).unsqueeze(len(values)).expand_as(table))
    return table.select(len(values), 0).numpy() if same and torch.equal(found, wanted) else None


def stepped(builder: "Builder", signal: Signal, table: np.ndarray, name: str) -> Signal:
    """The signal that has `table[k]`, (V, *shape), where `signal` has its k-th value."""
    table = table.reshape(len(table), *signal.shape)
    values, rises = np.array(signal.values), np.diff(table, axis=0)
    after = few_values(table)
    if np.array_equal(table, np.broadcast_to(values.reshape(-1, *[1] * len(signal.shape)), table.shape)):
        return signal
    slopes = rises / np.diff(values).reshape(-1, *[1] * len(signal.shape))
    if np.allclose(slopes, slopes[:1], rtol=1e-13, atol=0):
        return weighted(builder, [(signal, slopes[0])], table[0] - slopes[0] * values[0], name, after)
    parts = [(above(builder, signal, k + 1, name), rise) for k, rise in enumerate(rises) if rise.any()]
    return weighted(builder, parts, table[0], name, after)


def above(builder: "Builder", signal: Signal, k: int, name: str) -> Signal:
    """Spikes where a signal has its k-th value or a larger one."""
    if signal.binary:
        return signal
    between = (signal.values[k - 1] + signal.values[k]) / 2
    return fired(builder, signal.sources, signal, between, name)


def fired(builder: "Builder", sources: tuple[str, ...], like: Signal, threshold: float, name: str) -> Signal:
    """Spikes where the sum of `sources`, in the shape of `like`, is above a threshold; made once."""
    key = (*sorted(sources), threshold)
    if key not in builder.gates:
        name = builder.assembly.free(name)
        piece = Piece({name: nir.Threshold(np.full(like.shape, threshold))}, like.shape)
        builder.gates[key] = builder.assembly.add(name, piece, sources)
    return Signal(builder.gates[key], like.shape, like.logical, BINARY)


_GATES = {(0, 1, 1, 1): (1.0, 1.0, 0.5), (0, 0, 0, 1): (1.0, 1.0, 1.5), (0, 0, 1, 0): (1.0, -1.0, 0.5),
          (0, 1, 0, 0): (-1.0, 1.0, 0.5)}
"""f(0, 0), f(0, 1), f(1, 0), f(1, 1) -> factors of both and the threshold of a neuron that does it."""


def _of_two(builder: "Builder", a: Signal, b: Signal, table: np.ndarray, name: str) -> Signal | None:
    """f(a, b) = f00 + (f10 - f00) a + (f01 - f00) b + (f11 - f10 - f01 + f00) (a AND b)."""
    if set(a.sources) & set(b.sources):
        return None
    table = table.reshape(2, 2, *a.shape)
    corners = table.reshape(4, -1)
    gate = _GATES.get(tuple(corners[:, 0].tolist())) if not np.ptp(corners, axis=1).any() else None
    if gate:
        sources = [weighted(builder, [(s, np.array(factor))], np.zeros(1), f"{name}_not").sources
                   for s, factor in zip((a, b), gate, strict=False)]
        return fired(builder, (*sources[0], *sources[1]), a, gate[2], name)
    both = table[1, 1] - table[1, 0] - table[0, 1] + table[0, 0]
    parts = [(a, table[1, 0] - table[0, 0]), (b, table[0, 1] - table[0, 0])]
    if both.any():
        parts.append((fired(builder, (*a.sources, *b.sources), a, 1.5, f"{name}_both"), both))
    parts = [(signal, factor) for signal, factor in parts if factor.any()] or parts[:1]
    return weighted(builder, parts, table[0, 0], name, few_values(table))


def pooled(builder: "Builder", name: str, module: nn.Module, signal: Signal) -> Signal:
    """Max-pooling: of spikes an OR of each window, of other few values one for each step between them.

    Raises:
        HardspikeError: the signal is a current.
    """
    if not signal.values or signal.binary:
        piece = convert(Layer(name, module, signal.shape, binary=signal.binary))
        return Signal(builder.assembly.add(name, piece, signal.sources), piece.shape, piece.shape, BINARY)
    values, parts = signal.values, []
    for k in range(1, len(values)):
        node = name if k == 1 else builder.assembly.free(name)
        piece = convert(Layer(node, module, signal.shape, binary=True))
        sources = builder.assembly.add(node, piece, above(builder, signal, k, f"{name}_above").sources)
        parts.append((Signal(sources, piece.shape, piece.shape, BINARY), np.array(values[k] - values[k - 1])))
    return weighted(builder, parts, np.array(values[0]), f"{name}_values", values)


def compared(builder: "Builder", expr: Apply) -> Signal | None:
    """A comparison with a constant: of few values their table, of currents a `Threshold`."""
    found = pointwise(builder, expr)
    if found is not None or len(expr.args) != 2 or expr.kwargs:
        return found
    name, (one, other) = label(expr.function), expr.args
    if not isinstance(one, Expr) or isinstance(one, Fixed):
        name, one, other = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}[name], other, one
    bound = other.tensor.detach().cpu().double().numpy() if isinstance(other, Fixed) else other
    if isinstance(bound, Expr) or isinstance(one, Fixed) or one.shape() != expr.shape():
        return None
    full = np.broadcast_to(np.asarray(bound, float), expr.shape())
    if (full != full[:1]).any():
        return None
    signal = builder.signal(one)
    theta = full[0].reshape(signal.shape).copy()
    if name in ("ge", "lt"):  # x >= c as x > the number before c
        theta = np.nextafter(theta, -np.inf)
    node = builder.assembly.free(name)
    sources = builder.assembly.add(node, Piece({node: nir.Threshold(theta)}, signal.shape), signal.sources)
    spikes = Signal(sources, signal.shape, signal.logical, BINARY)
    return spikes if name in ("gt", "ge") else stepped(
        builder, spikes, np.stack([np.ones(signal.shape), np.zeros(signal.shape)]), f"{name}_not")


def largest(builder: "Builder", expr: Apply) -> Signal | None:
    """The largest of some values of one signal, whichever these are; None where it is something else, or of currents.

    Raises:
        HardspikeError: the matrix that says which values belong together is too large.
    """
    children = [child for child in expr.children() if not isinstance(child, Fixed)]
    if len(children) != 1 or expr.index not in ((), (0,)) or expr.shape()[:1] != children[0].shape()[:1]:
        return None
    signal = builder.signal(children[0])
    if not signal.values:
        return None
    inside, outside = (math.prod(e.shape()[1:]) for e in (children[0], expr))
    if inside * outside > LARGEST:
        raise HardspikeError(f"is an OR over {inside} spikes for each of {outside} results, a matrix of more than "
                             f"{LARGEST} weights; use max_pool2d of pictures, or smaller ones")
    members = _members(expr, children[0], signal.values)
    if members is None:
        return None
    name, signal, parts = builder.called(expr), row(builder, signal), []
    for k in range(1, len(signal.values)):
        summed = builder.assembly.free(f"{name}_sum")
        sources = builder.assembly.add(summed, Piece({summed: nir.Linear(members)}, (outside,)),
                                       above(builder, signal, k, f"{name}_above").sources)
        counts = Signal(sources, (outside,), expr.shape()[1:])
        parts.append((fired(builder, sources, counts, 0.5, name), np.array(signal.values[k] - signal.values[k - 1])))
    return weighted(builder, parts, np.array(signal.values[0]), f"{name}_values", signal.values)


def _members(expr: Apply, child: Expr, values: tuple[float, ...]) -> np.ndarray | None:
    """Which of the values that go in each result is the largest of, zeros and ones (out, in)."""
    batch, inside = child.shape()[0], math.prod(child.shape()[1:])

    def run(flat: Tensor) -> Tensor:
        given = flat.reshape(child.shape()).to(child.values[0].dtype or torch.float64)
        return evaluate(expr, {id(child): given}).double().reshape(batch, -1)

    generator, rows = torch.Generator().manual_seed(5), []
    drawn = torch.tensor(values, dtype=torch.float64)[torch.randint(len(values), (batch, inside), generator=generator)]
    try:
        for start in range(0, inside, batch):
            units = torch.full((batch, inside), values[0], dtype=torch.float64)
            count = min(batch, inside - start)
            units[torch.arange(count), start + torch.arange(count)] = values[-1]
            rows.append(run(units)[:count] == values[-1])
        found = run(drawn)
    except HardspikeError:
        return None
    members = torch.cat(rows).T
    wanted = torch.stack([torch.where(members, sample, -torch.inf).amax(1) for sample in drawn])
    return members.double().numpy() if torch.equal(found, wanted) else None
