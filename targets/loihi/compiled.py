"""The integer layers in C, compiled when that pays: `targets.loihi.c.batch` around a batch, a part of it a thread.

Spikes are recorded as the code makes them, sample by sample and channels last, and handed out as views in the order
(T, B, C, H, W): a copy would cost as much as the run.
"""

import ctypes
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
from targets.loihi.c.program import Population
from targets.loihi.held import Held, Written
from targets.recording import Recording, Transmit

KERNELS = ("", "torch", "native")
"""What HARDSPIKE_KERNEL may say: nothing (whatever is faster), torch, native (compiled where a compiler works)."""
COMPILING = 1.5
"""Seconds that a compiler takes, about."""
TORCH_RATE = 2e8
"""Neuron updates a second of the torch code, about."""
PARTS = 8
"""Parts of the samples for each thread: who is done takes another."""
STARTED = 1_000_000
"""Neuron updates that take longer than to start a thread."""
_spent: dict[str, float] = {}
"""Source -> seconds that the torch code has taken in its place in this process."""


@dataclass(frozen=True)
class Wanted:
    """What a run gives, and what happens on its way.

    Args:
        membrane: record what is compared with the threshold.
        transmit: what reaches the next layers.
        layers: whose spikes are recorded; None: all. Where it is not None, all spikes are counted.
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


def choose(held: Held, steps: int, samples: int, largest: int, signed: bool) -> Choice:
    """Compiled code for a network on inputs of at most `largest`, where there is any and it pays; see `KERNELS`.

    Raises:
        HardspikeError: HARDSPIKE_KERNEL is none of `KERNELS`, or asks for compiled code that is not to be had.
    """
    asked = choice("HARDSPIKE_KERNEL", os.environ.get("HARDSPIKE_KERNEL", ""), KERNELS)
    if asked == "torch" or _without.get() or not held.network.layers:
        return Choice()
    try:
        written = held.written(steps, largest, signed)
    except HardspikeError:
        if asked == "native":
            raise
        return Choice()
    spent = _spent.get(written.source, 0.0) + steps * samples * held.updates() / TORCH_RATE
    if not asked and spent < COMPILING and not native.is_compiled(written.source):
        return Choice(source=written.source)
    found, reason = native.library(written.source)
    if found is None:
        if asked == "native":
            raise HardspikeError(f"HARDSPIKE_KERNEL=native: {reason}")
        return Choice()
    return Choice(Simulator(written, {name: layer.shape for name, layer in held.network.layers.items()}, found))


def takes(spikes: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether `spikes` are (T, B, *shape) that can be read as they lie: steps and samples anywhere, each in one piece.
    """
    return spikes.dtype in (torch.uint8, torch.bool, torch.float32) and tuple(spikes.shape[2:]) == shape \
        and spikes.ndim > 1 and 0 not in spikes.shape[:2] and spikes[0, 0].is_contiguous()


class Simulator:
    """A compiled network, ready to run."""

    def __init__(self, written: Written, shapes: dict[str, tuple[int, ...]], library: ctypes.CDLL):
        self.written, self.program, self.shapes, self.library = written, written.program, shapes, library
        self.data = (ctypes.c_void_p * len(written.arrays))(*[values.ctypes.data for values in written.arrays])
        self.updates = sum(p.geometry.size for p in self.program.populations.values())
        library.state_size.restype = ctypes.c_int64

    def run(self, spikes: Tensor, threads: int, part: int, wanted: Wanted) -> tuple[Recording, int]:
        """Run all samples of `spikes` (T, B, *Input); with `transmit`, `part` samples at a time.

        A layer that is not recorded leaves its spikes where the next sample of the same thread will: in memory that
        stays in the core's cache.

        Returns:
            the recording without an output, and the largest input, 256 where that is no whole number from 0 to 255:
            the recording then means nothing, nor where it is more than the program was written for.

        Raises:
            NotSpikesError: `transmit` gives something else.
        """
        steps, samples = spikes.shape[:2]
        layers = list(self.program.populations.values())
        kept = {p.label: wanted.transmit is not None or wanted.keeps(p.label) for p in layers}
        fired = {p.label: np.empty((samples, steps, p.geometry.size), np.uint8) for p in layers if kept[p.label]}
        seen = {p.label: np.empty((samples, steps, p.geometry.size), np.int32) for p in layers if wanted.membrane}
        counts = {p.label: np.zeros(samples, np.int64) for p in layers if wanted.layers is not None}
        given = self._input(spikes)
        strides = [(p.geometry.size, steps * p.geometry.size * kept[p.label]) for p in layers]
        between = np.array([*strides, (given.stride(0), given.stride(1))], np.int64)
        membranes, counters = (_pointers([values.get(p.label) for p in layers]) for values in (seen, counts))
        largest = [0]

        def work(parts: Iterator[tuple[int, int]], group: int = -1) -> None:
            own = {p.label: np.empty((steps, p.geometry.size), np.uint8) for p in layers if not kept[p.label]}
            memory = np.zeros(self.library.state_size() + 64, np.uint8)
            aligned = (memory.ctypes.data + 63) // 64 * 64
            spikes_at = _pointers([fired.get(p.label, own.get(p.label)) for p in layers])
            for first, last in parts:
                of = np.array([steps, first, last, group, given.dtype == torch.float32], np.int64)
                largest.append(self.library.simulate(
                    self.data, ctypes.c_void_p(aligned), ctypes.c_void_p(given.data_ptr()), spikes_at, membranes,
                    counters, ctypes.c_void_p(between.ctypes.data), ctypes.c_void_p(of.ctypes.data)))

        threads = max(1, min(threads, steps * samples * self.updates // STARTED))
        if wanted.transmit:
            transmit = wanted.transmit
            _in_parts(samples, threads, part, lambda parts: self._transmitted(fired, parts, work, transmit))
        else:
            _in_parts(samples, threads, max(1, -(-samples // (PARTS * threads))), work)
        found = Recording({p.label: self._view(fired[p.label], p) for p in layers if wanted.keeps(p.label)},
                          torch.empty(0), {p.label: self._view(seen[p.label], p) for p in layers if wanted.membrane},
                          {label: torch.from_numpy(values) for label, values in counts.items()})
        return found, max(largest)

    def _input(self, spikes: Tensor) -> Tensor:
        """As the code takes it: bytes or floats where they lie, int32 where counts are larger."""
        if self.program.signed or self.program.largest > 255:
            return spikes.to(torch.int32).contiguous()
        if takes(spikes, tuple(spikes.shape[2:])):
            return spikes
        if self.program.largest <= 127:  # torch converts floats to uint8 ten times slower
            return spikes.to(torch.int8).contiguous().view(torch.uint8)
        return spikes.to(torch.int32).to(torch.uint8).contiguous()

    def _transmitted(self, fired: dict[str, np.ndarray], parts: Iterator[tuple[int, int]], work: Callable,
                     transmit: Transmit) -> None:
        """Some samples through one group of layers after the other, what they send passed through `transmit`."""
        groups: dict[int, list] = {}
        for p in self.program.populations.values():
            groups.setdefault(p.group, []).append(p)
        for first, last in parts:
            samples = slice(first, last)
            for index, members in enumerate(groups.values()):
                work(iter([(first, last)]), index)
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


def _in_parts(samples: int, threads: int, part: int, work: Callable[[Iterator[tuple[int, int]]], None]) -> None:
    """Threads that take parts of the samples until none are left; this one is one of them."""
    parts = [(start, min(start + part, samples)) for start in range(0, samples, part)]
    waiting, others = iter(parts), min(threads, len(parts)) - 1
    if not others:
        work(waiting)
        return
    with ThreadPoolExecutor(others) as pool:
        running = [pool.submit(work, waiting) for _ in range(others)]
        work(waiting)
        for one in running:
            one.result()
