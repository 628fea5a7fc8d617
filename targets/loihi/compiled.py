"""The integer layers in C, compiled when that pays: `targets.loihi.c.batch` around a batch, a part of it a thread.

Spikes are recorded as the code makes them, sample by sample and channels last, and handed out as views in the order
(T, B, C, H, W): a copy would cost as much as the run.
"""

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, choice
from targets import native
from targets.loihi.c import batch
from targets.loihi.c.program import Population, Program, build
from targets.loihi.layers import Network
from targets.recording import Recording, Transmit

KERNELS = ("", "torch", "native")
"""What HARDSPIKE_KERNEL may say: nothing (whatever is faster), torch, native (compiled where a compiler works)."""
COMPILING = 1.5
"""Seconds that a compiler takes, about."""
TORCH_RATE = 2e8
"""Neuron updates a second of the torch code, about."""
_spent: dict[str, float] = {}
"""Source -> seconds that the torch code has taken in its place in this process."""


@dataclass(frozen=True)
class Wanted:
    """What a run gives, and what happens on its way.

    Args:
        membrane: record what is compared with the threshold.
        transmit: what reaches the next layers.
        layers: whose spikes are recorded; None: all.
    """

    membrane: bool = False
    transmit: Transmit | None = None
    layers: frozenset[str] | None = None

    def keeps(self, layer: str) -> bool:
        """Whether the spikes of `layer` are recorded."""
        return self.layers is None or layer in self.layers


_without: ContextVar[bool] = ContextVar("without compiled code", default=False)


@contextmanager
def without() -> Iterator[None]:
    """Torch code within the block: what generated code is compared with must not be generated code."""
    token = _without.set(True)
    try:
        yield
    finally:
        _without.reset(token)


class NotSpikesError(Exception):
    """What was transmitted is not 0 and 1."""


@dataclass
class Choice:
    """What runs a network: `simulator`, or torch code where that is None; `source` is what was not compiled."""

    simulator: "Simulator | None" = None
    source: str = ""

    def waited(self, seconds: float) -> None:
        """The torch code took so long; when that adds up to what a compiler takes, the next run gets compiled code."""
        if self.source:
            _spent[self.source] = _spent.get(self.source, 0.0) + seconds


def choose(network: Network, spikes: Tensor, largest: int, signed: bool) -> Choice:
    """Compiled code for `network` on `spikes`, where there is any and it pays; see `KERNELS`.

    Raises:
        HardspikeError: HARDSPIKE_KERNEL is none of `KERNELS`, or asks for compiled code that is not to be had.
    """
    asked = choice("HARDSPIKE_KERNEL", os.environ.get("HARDSPIKE_KERNEL", ""), KERNELS)
    if asked == "torch" or _without.get() or not network.layers:
        return Choice()
    try:
        program = build(network, len(spikes), largest, signed, even=True)
    except HardspikeError:
        if asked == "native":
            raise
        return Choice()
    source, constants = batch.source(program)
    if not asked and not native.is_compiled(source):
        updates = spikes.shape[0] * spikes.shape[1] * sum(math.prod(layer.shape) for layer in network.layers.values())
        if _spent.get(source, 0.0) + updates / TORCH_RATE < COMPILING:
            return Choice(source=source)
    found, reason = native.library(source)
    if found is None:
        if asked == "native":
            raise HardspikeError(f"HARDSPIKE_KERNEL=native: {reason}")
        return Choice()
    shapes = {name: layer.shape for name, layer in network.layers.items()}
    arrays = [np.ascontiguousarray(values) for values in constants.arrays.values()]
    return Choice(Simulator(program, shapes, found, arrays))


class Simulator:
    """A compiled network, ready to run."""

    def __init__(self, program: Program, shapes: dict[str, tuple[int, ...]], library: ctypes.CDLL,
                 arrays: list[np.ndarray]):
        self.program, self.shapes, self.library, self.arrays = program, shapes, library, arrays
        self.data = (ctypes.c_void_p * len(arrays))(*[values.ctypes.data for values in arrays])
        library.state_size.restype = ctypes.c_int64

    def run(self, spikes: Tensor, threads: int, part: int, wanted: Wanted) -> Recording:
        """Run all samples of `spikes` (T, B, *Input); with `transmit`, `part` samples at a time.

        A layer that is not recorded leaves its spikes where the next sample of the same thread will: in memory that
        stays in the core's cache.

        Raises:
            NotSpikesError: `transmit` gives something else.
        """
        steps, samples = spikes.shape[:2]
        layers = list(self.program.populations.values())
        kept = {p.label: wanted.transmit is not None or wanted.keeps(p.label) for p in layers}
        fired = {p.label: np.empty((samples, steps, p.geometry.size), np.uint8) for p in layers if kept[p.label]}
        seen = {p.label: np.empty((samples, steps, p.geometry.size), np.int32) for p in layers if wanted.membrane}
        given = self._input(spikes)
        strides = [(p.geometry.size, steps * p.geometry.size * kept[p.label]) for p in layers]
        strides.append((samples * self.program.input.size, self.program.input.size))
        between = np.array(strides, np.int64)
        membranes = _pointers([seen.get(p.label) for p in layers])

        def work(first: int, last: int, group: int = -1) -> None:
            own = {p.label: np.empty((steps, p.geometry.size), np.uint8) for p in layers if not kept[p.label]}
            memory = np.zeros(self.library.state_size() + 64, np.uint8)
            aligned = (memory.ctypes.data + 63) // 64 * 64
            of = np.array([steps, first, last, group], np.int64)
            self.library.simulate(self.data, ctypes.c_void_p(aligned), ctypes.c_void_p(given.data_ptr()),
                                  _pointers([fired.get(p.label, own.get(p.label)) for p in layers]), membranes,
                                  ctypes.c_void_p(between.ctypes.data), ctypes.c_void_p(of.ctypes.data))

        if wanted.transmit:
            transmit = wanted.transmit
            _in_parts(samples, threads, part, lambda first, last: self._transmitted(fired, first, last, work, transmit))
        else:
            _in_parts(samples, threads, max(1, -(-samples // (4 * threads))), work)
        return Recording({p.label: self._view(fired[p.label], p) for p in layers if wanted.keeps(p.label)},
                         torch.empty(0), {p.label: self._view(seen[p.label], p) for p in layers if wanted.membrane})

    def _input(self, spikes: Tensor) -> Tensor:
        """As the code takes it: uint8, or int32 where counts are larger."""
        if self.program.signed or self.program.largest > 255:
            return spikes.to(torch.int32).contiguous()
        if spikes.dtype in (torch.bool, torch.uint8):
            return spikes.contiguous().view(torch.uint8)
        if self.program.largest <= 127:  # torch converts floats to uint8 ten times slower
            return spikes.to(torch.int8).contiguous().view(torch.uint8)
        return spikes.to(torch.int32).to(torch.uint8).contiguous()

    def _transmitted(self, fired: dict[str, np.ndarray], first: int, last: int, work: Callable,
                     transmit: Transmit) -> None:
        """Some samples through one group of layers after the other, what they send passed through `transmit`."""
        groups: dict[int, list] = {}
        for p in self.program.populations.values():
            groups.setdefault(p.group, []).append(p)
        samples = slice(first, last)
        for index, members in enumerate(groups.values()):
            work(first, last, index)
            for p in members:
                values = self._view(fired[p.label][samples], p).contiguous().float()
                values = transmit(p.label, values, samples)
                if ((values != 0) & (values != 1)).any():
                    raise NotSpikesError
                flat = values.to(torch.int8).reshape(*values.shape[:2], p.geometry.size).view(torch.uint8)
                fired[p.label][samples] = flat.numpy()[:, :, p.geometry.order()].swapaxes(0, 1)


    def _view(self, values: np.ndarray, p: Population) -> Tensor:
        """(B, T, size) as stored -> (T, B, *shape), without a copy where strides can say it."""
        g = p.geometry
        stored = torch.from_numpy(values).unflatten(2, (g.height, g.width, g.channels)).permute(1, 0, 4, 2, 3)
        return stored.reshape(*stored.shape[:2], *self.shapes[p.label])


def _pointers(arrays: list[np.ndarray | None]) -> ctypes.Array:
    return (ctypes.c_void_p * len(arrays))(*[None if values is None else values.ctypes.data for values in arrays])


def _in_parts(samples: int, threads: int, part: int, work: Callable[[int, int], None]) -> None:
    parts = [(start, min(start + part, samples)) for start in range(0, samples, part)]
    if threads == 1 or len(parts) == 1:
        for first, last in parts:
            work(first, last)
        return
    with ThreadPoolExecutor(min(threads, len(parts))) as pool:
        list(pool.map(lambda ends: work(*ends), parts))
