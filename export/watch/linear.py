"""Operations that are linear and have no node of their own: a convolution of one tap, else a matrix."""

from typing import TYPE_CHECKING

import nir
import numpy as np
import torch

from export.freeze.assembly import MOST_VALUES, Signal, few_values
from export.freeze.layers import Piece
from export.watch.dense import Affine, affine, runner, source_of
from export.watch.fold import Apply, Expr
from export.watch.signals import flattened
from export.watch.taps import Tap, taps
from export.watch.words import why
from hardspike import HardspikeError
from targets.graph.shapes import output_shape

if TYPE_CHECKING:
    from export.watch.graph import Builder

Found = Affine | tuple[list[Tap], np.ndarray]


def linear(builder: "Builder", name: str, expr: Apply) -> Signal:
    """An operation as weights for each thing that it is made of; the first has the offset.

    Raises:
        HardspikeError: it is not linear, or too large.
    """
    sources = source_of(expr, builder.soft)
    if not sources:
        raise HardspikeError(f"forward, operation '{name}': is made of constants alone")
    signals = [builder.signal(source) for source in sources]
    found = as_taps(builder, expr, sources, signals)
    if found is not None:
        return _convolutions(builder, name, *found, signals)
    key = (id(expr), *map(id, sources))
    if key not in builder.found:
        try:
            builder.found[key] = affine(expr, sources)
        except HardspikeError as error:
            odd = expr if str(error) else _culprit(builder, expr)
            raise HardspikeError(why(builder, odd, str(error))) from error
    return _matrices(builder, name, builder.found[key], signals, expr)


def as_taps(builder: "Builder", expr: Apply, sources: list[Expr],
            signals: list[Signal]) -> tuple[list[Tap], np.ndarray] | None:
    """An operation on pictures as convolutions of one tap each; None where it is something else."""
    if any(signal.flat() for signal in signals):
        return None
    key = (id(expr), *map(id, sources))
    if key not in builder.taps:
        with torch.no_grad():
            try:
                builder.taps[key] = taps(expr, sources, runner(expr, sources))
            except HardspikeError:  # it does not run on other values: as a matrix it says so
                builder.taps[key] = None
    return builder.taps[key]


def _convolutions(builder: "Builder", name: str, found: list[Tap], offset: np.ndarray,
                  signals: list[Signal]) -> Signal:
    sources: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    for number, (signal, tap) in enumerate(zip(signals, found, strict=True)):
        bias = offset if not number else np.zeros(len(offset))
        if tap.keeps() and not bias.any():
            sources, shape = sources + signal.sources, signal.shape
            continue
        part = builder.assembly.free(name) if number or name in builder.assembly.nodes else name
        node = tap.node(signal.shape[1:], bias)
        shape = output_shape(part, node, signal.shape)
        sources += builder.assembly.add(part, Piece({part: node}, shape), signal.sources)
    return Signal(sources, shape, shape, _values(found, offset, {signal.values for signal in signals}))


def _values(found: list[Tap], offset: np.ndarray, given: set[tuple[float, ...]]) -> tuple[float, ...]:
    """What each value of a picture may be, where it hangs on one that came in, or on none."""
    weights = np.concatenate([np.diag(tap.weight) if tap.weight.ndim == 1 else tap.weight for tap in found], 1)
    pairs = np.unique(np.stack([weights.sum(1), offset], 1), axis=0)
    if len(given) != 1 or ((weights != 0).sum(1) > 1).any() or len(pairs) > MOST_VALUES:
        return ()
    return few_values(pairs[:, :1] * np.append(given.pop(), 0.0) + pairs[:, 1:])  # zero where it is padded


def _matrices(builder: "Builder", name: str, found: Affine, signals: list[Signal], expr: Apply) -> Signal:
    sources: tuple[str, ...] = ()
    known = {signal.values for signal in signals}
    for number, (signal, weight) in enumerate(zip(signals, found.weights, strict=True)):
        signal = flattened(builder, signal, (weight.shape[1],), "flatten")
        node = nir.Linear(weight) if number or not found.offset.any() else nir.Affine(weight, found.offset)
        part = builder.assembly.free(name) if number or name in builder.assembly.nodes else name
        sources += builder.assembly.add(part, Piece({part: node}, (len(weight),)), signal.sources)
    return Signal(sources, (len(found.offset),), expr.shape()[1:], found.values(known.pop()) if len(known) == 1 else ())


def _culprit(builder: "Builder", expr: Apply) -> Apply:
    """The innermost operation of an expression that is not linear."""
    for child in expr.children():
        if builder.soft(child):
            try:
                affine(child, source_of(child, builder.soft))
            except HardspikeError:
                return _culprit(builder, child)
    return expr
