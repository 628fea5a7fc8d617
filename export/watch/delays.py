"""What is used some steps later: delays, as near to spikes as they can be, since a chip delays nothing else."""

from typing import TYPE_CHECKING

import nir
import numpy as np
import torch

from export.freeze.assembly import Signal
from export.freeze.layers import Piece
from export.freeze.neurons import DT
from export.watch.dense import evaluate
from export.watch.fold import Apply, Expr, Fixed, Late
from export.watch.values import label, transform
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder


def delayed(builder: "Builder", expr: Late) -> Signal:
    """What a signal was some steps ago, and zero before."""
    of = expr.of
    assert of is not None, "a loop that was not closed"
    if id(of) in builder.under_way:  # a loop without a neuron: it is closed when `of` is there
        shape = of.shape()[1:]
        name = builder.assembly.free("delay")
        piece = Piece({name: nir.Delay(np.full(shape, expr.steps * DT))}, shape)
        builder.assembly.place(name, piece)
        builder.late.setdefault(id(of), []).append((name, shape))
        return Signal((name,), shape, shape)
    sooner = _sooner(builder, expr.steps, of)
    if sooner is not None:
        return builder.signal(sooner)
    signal = builder.signal(of)
    name = builder.assembly.free(f"{signal.sources[0]}_late")
    piece = Piece({name: nir.Delay(np.full(signal.shape, expr.steps * DT))}, signal.shape)
    return Signal(builder.assembly.add(name, piece, signal.sources), signal.shape, signal.logical, signal.values)


def _sooner(builder: "Builder", steps: int, of: Expr) -> Apply | None:
    """What is delayed behind an operation that makes nothing of nothing, delayed before it."""
    children = [child for child in of.children() if not isinstance(child, Fixed)] if isinstance(of, Apply) else []
    if not isinstance(of, Apply) or len(children) != 1 or builder.known(of) or id(children[0]) in builder.under_way:
        return None
    child = children[0]
    try:
        if evaluate(of, {id(child): torch.zeros(child.shape(), dtype=child.values[0].dtype)}).any():
            return None
    except HardspikeError:
        return None
    late = Late(child.values, steps, child)
    args, kwargs = transform((of.args, of.kwargs), Expr, lambda e: late if e is child else e)
    builder.made.append(Apply(of.values, of.function, args, kwargs, of.index))
    return builder.made[-1]


def close_loops(builder: "Builder", expr: Apply, signal: Signal) -> None:
    """Feed the delays that wait for an operation's signal.

    Raises:
        HardspikeError: it had to be flattened.
    """
    for name, shape in builder.late.pop(id(expr), []):
        if signal.shape != shape:
            raise HardspikeError(f"forward, operation '{label(expr.function)}': a loop over it had to be "
                                 "flattened; use flat signals (B, features) in it")
        builder.assembly.feed(name, signal.sources)
