"""Leaky sums that users keep by hand, a = 0.9 * a + x: an integrator outside of any neuron, NIR's `LI`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from export.freeze.assembly import Signal
from export.freeze.layers import Piece
from export.freeze.neurons import integrator
from export.watch.dense import close, evaluate
from export.watch.fold import Apply, Expr, Fixed, Late
from export.watch.levels import elementwise
from export.watch.values import transform
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder


def trace(builder: "Builder", expr: Apply) -> Signal | None:
    """What an expression is that keeps a part of itself from step to step; None where it is something else."""
    loops = [late for late in _lates(expr) if _hangs_on(late.of, expr)]
    if len(loops) != 1 or loops[0].steps != 1:
        return None
    late = loops[0]
    with torch.no_grad():
        kept = _kept(expr, late)
        if kept is None:
            return None
        fresh = _without(expr, late)
    if not isinstance(fresh, Apply | Expr) or isinstance(fresh, Fixed):
        return None
    signal = builder.signal(fresh)
    name = builder.called(expr)
    node = integrator(np.broadcast_to(kept, expr.shape()[1:]).reshape(signal.shape).copy())
    sources = builder.assembly.add(name, Piece({name: node}, signal.shape), signal.sources)
    return Signal(sources, signal.shape, expr.shape()[1:])


def _lates(expr: Expr) -> Iterator[Late]:
    """The delayed expressions in an elementwise one, each once."""
    waiting, seen = [expr], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Late):
            yield node
        elif node is expr or elementwise(node, expr.shape()):
            waiting.extend(node.children())


def _hangs_on(expr: Expr | None, other: Expr) -> bool:
    """Whether an elementwise expression is made of another one and constants alone."""
    if expr is other:
        return True
    if expr is None or not elementwise(expr, other.shape()):
        return False
    children = [child for child in expr.children() if not isinstance(child, Fixed)]
    return bool(children) and all(_hangs_on(child, other) for child in children)


def _kept(expr: Apply, late: Late) -> np.ndarray | None:
    """The factor in [0, 1] with which each value comes back a step later; None where it is none."""
    leaves = {id(leaf): leaf for leaf in _leaves(expr) if leaf is not late and not isinstance(leaf, Fixed)}
    generator = torch.Generator().manual_seed(6)

    def run(before: Tensor, others: dict[int, Tensor]) -> Tensor:
        return evaluate(expr, {id(late): evaluate(late.of, {id(expr): before}), **others}).double()

    def drawn() -> Tensor:
        return torch.randn(expr.shape(), dtype=torch.float64, generator=generator)

    zeros = torch.zeros(expr.shape(), dtype=torch.float64)
    silent = dict.fromkeys(leaves, zeros)
    try:
        factor = run(zeros + 1, silent) - run(zeros, silent)
        for scale in (1.0, -1e3):
            before, others = scale * drawn(), {key: scale * drawn() for key in leaves}
            if not close(run(before, others), factor * before + run(zeros, others)):
                return None
        start = evaluate(late.of, {id(expr): zeros})
    except HardspikeError:
        return None
    alike = torch.equal(factor, factor[:1].expand_as(factor))
    return factor[0].numpy() if alike and factor.min() >= 0 and factor.max() <= 1 and not start.any() else None


def _leaves(expr: Apply) -> Iterator[Expr]:
    for child in expr.children():
        if elementwise(child, expr.shape()):
            yield from _leaves(child)
        else:
            yield child


def _without(expr: Expr, late: Late) -> Expr:
    """The same where `late` is zero."""
    if expr is late:
        return Fixed(late.values, torch.zeros(late.shape(), dtype=torch.float64))
    if not isinstance(expr, Apply) or not any(node is late for node in _lates(expr)):
        return expr
    args, kwargs = transform((expr.args, expr.kwargs), Expr, lambda child: _without(child, late))
    made = Apply(expr.values, expr.function, args, kwargs, expr.index)
    if all(isinstance(child, Fixed) for child in made.children()):
        return Fixed(expr.values, evaluate(made, {}))
    return made
