"""What a value is a plain copy or a plain part of: through copies, and what was stacked or written before.

What comes back is the very value, however it was kept: in a list, stacked, in one large tensor that steps write into,
in a buffer that is copied into.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from export.watch.values import NeuronCall, Value, label

_COPIES = {"detach", "detach_", "clone", "contiguous", "to", "float", "double", "data", "requires_grad_", "type",
           "alias", "cpu", "cuda", "view", "reshape", "squeeze", "flatten"}
_CONCATENATIONS = {"cat", "concat", "concatenate"}


@dataclass(frozen=True)
class Place:
    """Where a part is in a whole.

    Args:
        axis, number: which axis it is taken from, and where.
        rest: what is then picked from the part, an index; None for all of it.
        keeps: the axis stays, with size 1.
    """

    axis: int
    number: int
    rest: Any = None
    keeps: bool = False


def see_through(value: Value) -> Value:
    """The value of which this one is a plain copy or part."""
    while True:
        copied = copy_of(value)
        if copied is None:
            found = place(value)
            copied = part(*found) if found else None
        if copied is None:
            return value
        value = copied


def copy_of(value: Value) -> Value | None:
    """The value that this one holds all of, unchanged."""
    if value.function is None or isinstance(value.function, NeuronCall):
        return None
    name, parents = label(value.function), list(value.parents())
    if not parents:
        return None
    if value.index == ("changed", 0) and name in ("copy_", "setitem", "data"):
        source = value.args[-1]
        whole = name != "setitem" or _all_of(value.args[1])
        return source if whole and isinstance(source, Value) and source.shape == value.shape else None
    return parents[0] if name in _COPIES and parents[0].shape == value.shape else None


def place(value: Value) -> tuple[Value, Place] | None:
    """The whole that a value is one place of, and which."""
    if value.function is None or isinstance(value.function, NeuronCall):
        return None
    name, args, kwargs = label(value.function), value.args, value.kwargs
    if not args or not isinstance(args[0], Value):
        return None
    whole = args[0]
    if name == "getitem" and len(args) == 2:
        return (whole, found) if (found := _index(args[1], whole.shape)) else None
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    if name == "select" and len(args) == 3:
        return whole, Place(dim % len(whole.shape), args[2] % whole.shape[dim])
    if name == "unbind" and isinstance(value.index, tuple) and len(value.index) == 1:
        return whole, Place(dim % len(whole.shape), value.index[0])
    return None


def part(whole: Value, where: Place) -> Value | None:
    """The very value that lies at a place of what was stacked, joined or written; None where it cannot be seen."""
    found = _lying(whole, where)
    if found is None:
        return None
    if where.keeps:
        found = _call(torch.unsqueeze, (found, where.axis), lambda t: t.unsqueeze(where.axis))
    return found if where.rest is None else _call(torch.Tensor.__getitem__, (found, where.rest),
                                                  lambda t: t[where.rest])


def _lying(whole: Value, where: Place) -> Value | None:
    while whole.function is not None and not isinstance(whole.function, NeuronCall):
        name = label(whole.function)
        copied = copy_of(whole)
        if copied is not None:
            whole = copied
        elif whole.index == ("changed", 0) and name == "setitem":
            into = _index(whole.args[1], whole.shape)
            if into is None or into.axis != where.axis or into.rest is not None or into.keeps:
                return None
            if into.number == where.number:
                written = whole.args[2]
                wanted = whole.shape[:where.axis] + whole.shape[where.axis + 1:]
                return written if isinstance(written, Value) and written.shape == wanted else None
            whole = whole.args[0]
        elif name == "getitem" and (start := _shifted(whole, where)) is not None:
            whole, where = whole.args[0], replace(where, number=start)
        elif name in ("stack", *_CONCATENATIONS) and whole.args and isinstance(whole.args[0], list | tuple):
            return _gathered(name, whole, where)
        else:
            break
    if whole.constant() and whole.tensor is not None:
        tensor = whole.tensor.select(where.axis, where.number)
        return Value(None, shape=tuple(tensor.shape), tensor=tensor)
    return None


def _gathered(name: str, whole: Value, where: Place) -> Value | None:
    parts, dims = whole.args[0], len(whole.shape)
    dim = whole.kwargs.get("dim", whole.args[1] if len(whole.args) > 1 else 0) % dims
    if dim != where.axis or not all(isinstance(p, Value) for p in parts):
        return None
    if name == "stack":
        return parts[where.number]
    start = 0
    for one in parts:
        if where.number < start + one.shape[dim]:
            break
        start += one.shape[dim]
    if one.shape[dim] != 1:
        return _lying(one, replace(where, number=where.number - start))
    if label(one.function) == "unsqueeze" and len(one.shape) == len(one.args[0].shape) + 1 and (
            one.kwargs.get("dim", one.args[-1]) % len(one.shape) == dim):
        return one.args[0]
    return _call(torch.squeeze, (one, dim), lambda t: t.squeeze(dim))


def _shifted(whole: Value, where: Place) -> int | None:
    """Where in what it was cut from a place of a stretch of steps is, h[:-1] or h[:, 2:]."""
    index = whole.args[1] if isinstance(whole.args[1], tuple) else (whole.args[1],)
    source = whole.args[0]
    if len(index) <= where.axis or not all(isinstance(p, slice) and (n == where.axis or _all_of(p))
                                           for n, p in enumerate(index)):
        return None
    if any(isinstance(end, Value) for p in index for end in (p.start, p.stop, p.step)):
        return None
    return range(*index[where.axis].indices(source.shape[where.axis]))[where.number]


def _call(function: Any, args: tuple, run: Any) -> Value:
    """What an operation would have given of a value."""
    source = args[0]
    tensor = run(source.tensor if source.tensor is not None else torch.empty(source.shape, device="meta"))
    return Value(function, args, {}, (), tuple(tensor.shape), source.neuron, source.outside, source.random,
                 tensor if source.tensor is not None else None)


def _index(index: Any, shape: tuple[int, ...]) -> Place | None:
    """The one place that an index picks, where it does; the rest of the index is of the part."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(p is None or isinstance(p, bool | Value | torch.Tensor | list) for p in parts):
        return None
    if any(p is ... for p in parts):
        at = next(n for n, p in enumerate(parts) if p is ...)
        parts[at:at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    axis = next((n for n, p in enumerate(parts) if isinstance(p, int)), None)
    if axis is None:
        axis = next((n for n, p in enumerate(parts) if len(range(*p.indices(shape[n]))) == 1 < shape[n]), None)
        if axis is None or not all(_all_of(p) for n, p in enumerate(parts) if n != axis):
            return None
        return Place(axis, range(*parts[axis].indices(shape[axis]))[0], keeps=True)
    rest = [*parts[:axis], *parts[axis + 1:]]
    return Place(axis, parts[axis] % shape[axis], None if all(map(_all_of, rest)) else tuple(rest))


def _all_of(index: Any) -> bool:
    """Whether an index picks everything."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is ... or (isinstance(p, slice) and p in (slice(None), slice(None, None, 1), slice(0, None)))
               for p in parts)
