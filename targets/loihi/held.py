"""Graphs that ran lately, looked at and made ready: that takes as long as to run tens of samples.

A graph is known by what it holds, not by where it lies: one that was changed is looked at anew. What is held is a copy,
which nobody else can change.
"""

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import nir
import numpy as np

from targets.graph import plan
from targets.graph.shapes import array
from targets.limits import Limits
from targets.loihi import rules
from targets.loihi.c import batch
from targets.loihi.c.program import Program, build
from targets.loihi.layers import Network, split

MOST = 8
"""Graphs that are held, and texts of one graph."""
LARGEST = 1 << 26
"""Bytes of the arrays of all of them; a larger graph is not copied: to look at it is little beside running it."""

LINE = 64
"""Bytes of a cache line."""
SMALL = 1 << 14
"""Bytes of an array that is copied sooner than looked at where it lies."""


@dataclass(frozen=True)
class Written:
    """A network in C: its text, and the numbers that the text reads.

    Args:
        program: what was written.
        source: the text.
        arrays: the numbers, in order.
    """

    program: Program
    source: str
    arrays: list[np.ndarray]


@dataclass
class Held:
    """A graph ready to run.

    Args:
        network: its layers; they have passed the rules of `limits`.
        size: bytes of its arrays.
        largest: of the inputs that it, or the graph before, ran on last, where they were bytes; None: not known.
    """

    graph: nir.NIRGraph
    limits: Limits
    dt: float | None
    network: Network
    size: int = 0
    largest: int | None = None
    _written: OrderedDict[tuple[int, int, bool], Written] = field(default_factory=OrderedDict)

    def updates(self) -> int:
        """Neurons, each updated once a step."""
        return sum(math.prod(layer.shape) for layer in self.network.layers.values())

    def written(self, steps: int, largest: int, signed: bool) -> Written:
        """The simulator's C for runs of so many steps on inputs of at most `largest`.

        Raises:
            HardspikeError: what the generator, or 24 bits, cannot hold, by name.
        """
        key = steps, largest, signed
        if key not in self._written:
            program = build(self.network, steps, largest, signed, even=True)
            source, constants = batch.source(program)
            arrays = [_aligned(values) for values in constants.arrays.values()]
            self._written[key] = Written(program, source, arrays)
            while len(self._written) > MOST:
                self._written.popitem(last=False)
        return self._written[key]


def _aligned(values: np.ndarray) -> np.ndarray:
    """The same numbers from a whole cache line on: vectors that lie across two cost twice."""
    memory = np.empty(values.nbytes + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    found = memory[begin:begin + values.nbytes].view(values.dtype)
    found[:] = values.reshape(-1)
    return found


_held: list[Held] = []
_lock = Lock()


def held(graph: nir.NIRGraph, limits: Limits, dt: float | None) -> Held:
    """`graph` ready to run on a chip; the one that is held already where nothing has changed.

    Raises:
        HardspikeError: it is refused by `plan`, or breaks a rule of the chip's arithmetic.
    """
    with _lock:
        for index, one in enumerate(_held):
            if one.limits == limits and one.dt == dt and _same(one.graph, graph):
                _held.insert(0, _held.pop(index))
                return one
    size = _bytes(graph)
    if size <= LARGEST:
        graph = copy.deepcopy(graph)
    network = split(plan(graph, dt))
    rules.require(network, limits)
    found = Held(graph, limits, dt, network, size)
    if size <= LARGEST:
        with _lock:
            found.largest = _held[0].largest if _held else None  # a guess, which a run finds out
            _held.insert(0, found)
            while len(_held) > MOST or sum(one.size for one in _held) > LARGEST:
                _held.pop()
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two graphs, nodes or parameters hold the same; where that cannot be said, they do not."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is np.ndarray:
        return one.dtype == other.dtype and one.shape == other.shape and _same_bytes(one, other)
    if kind in (str, bytes, bool, int, float, type(None)):
        return bool(one == other)
    if kind is dict:
        return list(one) == list(other) and all(_same(value, other[key]) for key, value in one.items())
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, nir.NIRNode):
        return _same(vars(one), vars(other))
    if isinstance(one, np.generic) or hasattr(one, "detach"):
        return _same(array(one), array(other))
    return False


def _same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype == object:
        return False
    if one.nbytes < SMALL:
        return one.tobytes() == other.tobytes()
    flat, theirs = (np.ascontiguousarray(values).reshape(-1).view(np.uint8) for values in (one, other))
    return np.array_equal(flat, theirs)


def _bytes(value: Any) -> int:
    """Of the arrays in a graph, a node or a parameter."""
    if isinstance(value, nir.NIRNode):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return array(value).nbytes if isinstance(value, np.ndarray) or hasattr(value, "detach") else 0
