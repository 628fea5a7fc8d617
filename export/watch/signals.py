"""Signals made of signals: flat ones, factors, weighted sums with an offset."""

import math
from typing import TYPE_CHECKING

import nir
import numpy as np

from export.freeze.assembly import Signal, few_values
from export.freeze.layers import Piece
from export.watch.dense import LARGEST
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder


def flattened(builder: "Builder", signal: Signal, logical: tuple[int, ...], name: str) -> Signal:
    """A signal whose shape, for its user, is `logical`; flat for NIR where the two are not the same."""
    if logical == signal.shape:
        return Signal(signal.sources, signal.shape, logical, signal.values)
    if len(signal.shape) > 1:
        name = builder.assembly.free(name)
        piece = Piece({name: nir.Flatten({"input": np.array(signal.shape)}, 0, -1)}, (math.prod(signal.shape),))
        signal = Signal(builder.assembly.add(name, piece, signal.sources), piece.shape, signal.logical, signal.values)
    return Signal(signal.sources, signal.shape, logical, signal.values)


def row(builder: "Builder", signal: Signal) -> Signal:
    """The same, flat for NIR."""
    flat = flattened(builder, signal, (math.prod(signal.shape),), "flatten")
    return Signal(flat.sources, flat.shape, signal.logical, signal.values)


def alike(builder: "Builder", signals: list[Signal]) -> list[Signal]:
    """Signals in one shape for NIR: flat, where they differ."""
    return signals if len({signal.shape for signal in signals}) == 1 else [row(builder, signal) for signal in signals]


def scaled(builder: "Builder", signal: Signal, factor: np.ndarray, name: str) -> Signal:
    """A signal times a factor for every value of it."""
    name = builder.assembly.free(name)
    sources = builder.assembly.add(name, Piece({name: nir.Scale(factor)}, signal.shape), signal.sources)
    values = few_values(np.multiply.outer(signal.values, np.unique(factor)))
    return Signal(sources, signal.shape, signal.logical, values)


def weighted(builder: "Builder", parts: list[tuple[Signal, np.ndarray]], offset: np.ndarray, name: str,
             values: tuple[float, ...] = ()) -> Signal:
    """The sum of factor x signal, plus an offset; factors and offset are scalars or as large as a sample.

    Args:
        values: what is known of the result.

    Raises:
        HardspikeError: an offset that differs inside a channel of a large picture.
    """
    signals = alike(builder, [signal for signal, _ in parts])
    logical = signals[0].logical
    if offset.any() and not _by_channel(np.broadcast_to(_reshaped(offset, signals[0].shape), signals[0].shape)):
        signals = [row(builder, signal) for signal in signals]
    shape, sources = signals[0].shape, ()
    for number, (signal, (_, factor)) in enumerate(zip(signals, parts, strict=True)):
        full = np.broadcast_to(_reshaped(factor, shape), shape).astype(float)
        if not number and offset.any():
            shift = np.broadcast_to(_reshaped(offset, shape), shape).astype(float)
            sources += _shifted(builder, signal, full, shift, name)
        else:
            sources += signal.sources if (full == 1).all() else scaled(builder, signal, full, name).sources
    return Signal(sources, shape, logical, values)


def _reshaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values.reshape(shape) if values.size > 1 else values.reshape(())


def _by_channel(values: np.ndarray) -> bool:
    return not np.ptp(values.reshape(len(values), -1), axis=1).any()


def _shifted(builder: "Builder", signal: Signal, factor: np.ndarray, offset: np.ndarray, name: str) -> tuple[str, ...]:
    """factor x signal + offset: an Affine, or of pictures a convolution of size 1."""
    shape = signal.shape
    if len(shape) > 1 and not _by_channel(factor):
        signal, factor = scaled(builder, signal, factor, name), np.ones(shape)
    name, size = builder.assembly.free(name), math.prod(shape)
    if len(shape) > 1:
        weight, bias = (v.reshape(len(v), -1)[:, 0].copy() for v in (factor, offset))
        weight = weight.reshape(-1, 1, *[1] * (len(shape) - 1))
        node = nir.Conv1d(shape[1], weight, 1, 0, 1, len(weight), bias) if len(shape) == 2 else \
            nir.Conv2d(shape[1:], weight, 1, 0, 1, len(weight), bias)
    elif size * size > LARGEST:
        raise HardspikeError(f"layer '{name}': an offset for each of {size} values in a row takes a matrix of their "
                             f"square, more than {LARGEST}; keep them a picture (C, H, W), or put the offset into the "
                             "bias of a layer")
    else:
        node = nir.Affine(np.diag(factor), offset.copy())
    return builder.assembly.add(name, Piece({name: node}, shape), signal.sources)
