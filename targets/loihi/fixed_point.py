"""Lava's integer arithmetic, bit for bit, for a whole batch at a time.

One step of a neuron (lava-nc 0.10, `AbstractPyLifModelFixed`; all in integers, D rounds towards zero):

    D(x, d) = sgn(x) (|x| (4096 - d) >> 12)
    u = D(u, iDecay) + (a << 6), wrapped once into 24 bits
    v = clip(D(v, vDecay) + u + (bias << 6) [- (threshold << 6) s(t-1)], +-(2^23 - 1))
    s = v > threshold << 6;  v = 0 where s [only without the term in brackets]

A neuron whose reset leaks with its membrane, which Lava's has not and Loihi 2's microcode can, has v -= threshold << 6
in the place of v = 0.

The integers are held in floats: float32 holds every integer up to 2^24 and float64 up to 2^53, and a sum of integers
is exact in any order while no partial sum leaves that range. Which one is enough is proven from the weights and the
input for every layer (`targets.loihi.bounds`), as is whether anything can wrap or saturate at all; a layer for which
nothing can be proven is refused. Layers run one after the other over all time, so a convolution sees T * B images at
once; only the layers of a recurrent loop go step by step together.

Where it pays, compiled code computes the same (`targets.loihi.compiled`).
"""

import math
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError
from targets.inputs import check_spikes
from targets.limits import Limits
from targets.loihi import compiled
from targets.loihi.bounds import SHIFT, STATE, largest_sum, prove
from targets.loihi.compiled import Wanted
from targets.loihi.held import Held, held
from targets.loihi.layers import DECAY_UNIT, Connection, Layer, Network
from targets.loihi.readout import read_out
from targets.metadata import whole_frames
from targets.nodes import stateless as linear
from targets.recording import Recording, Transmit, spikes_of_samples

__all__ = ["SHIFT", "STATE", "largest_sum", "run"]
CHUNK_NEURONS = 1 << 16
"""Neurons of a layer that run at a time: their state stays in the core's own cache, and calls into torch stay few."""
MALLOC_MAX = (1 << 25) - (1 << 16)
"""Just below the largest block that glibc's malloc may keep (mallopt(3), M_MMAP_THRESHOLD)."""

Weights = dict[str, Callable[[Tensor], Tensor]]
"""The nodes of the connections by name, each a function of spikes (N, ...)."""


@dataclass
class Cells:
    """A layer ready to run: constants that broadcast against its neurons, and the state (B, *shape) of each.

    `small`: proven that nothing wraps or saturates and that float32 holds every value but the product in D; `leaky`:
    what a spike takes off leaks with v; `fired`: the last spikes, where it does not.
    """

    small: bool
    leaky: bool
    threshold: Tensor
    bias: Tensor | None
    v_keep: Tensor
    u_keep: Tensor
    v: Tensor
    u: Tensor | None
    wide: Tensor
    whole: Tensor
    fired: Tensor | None


def run(graph: nir.NIRGraph, spikes: Tensor, limits: Limits, dt: float | None = None,
        membrane: bool = False, transmit: Transmit | None = None, layers: Collection[str] | None = None) -> Recording:
    """Run an integer `graph` on integer `spikes` (T, B, *Input).

    Membranes are recorded in the chip's unit, threshold << 6, int32. The host's readout behind the last neurons is
    computed in float64: exact for integer weights. `transmit` says what reaches the next layers of a layer's spikes,
    and is recorded. `layers`: whose spikes are recorded, where not all are wanted; recording them takes its time. The
    spikes of all layers are counted then.

    Raises:
        HardspikeError: the graph breaks a rule of the chip's arithmetic, or the input is not made of integers.
    """
    ready = held(graph, limits, dt)
    read = {edge.source for name in ready.network.readout for edge in ready.network.plan.sources(name)}
    wanted = Wanted(membrane, transmit, None if layers is None else frozenset({*layers, *read}))
    result = _as_it_lies(ready, spikes, wanted)
    if result is None:
        spikes = check_spikes(ready.network.plan, spikes)
        result = _looked_through(ready, spikes, wanted, graph)
    result.output = read_out(ready.network, spikes, result)
    if layers is not None:
        result.spikes = {name: fired for name, fired in result.spikes.items() if name in layers}
    return result


def _as_it_lies(ready: Held, spikes: Tensor, wanted: Wanted) -> Recording | None:
    """Compiled code on an input that it looks through on its way; None: somebody else has to."""
    shape = ready.network.plan.output_shape[ready.network.plan.input]
    if ready.largest is None or wanted.transmit or not compiled.takes(spikes, shape):
        return None
    simulator = compiled.choose(ready, len(spikes), spikes.shape[1], ready.largest, False).simulator
    if simulator is None:
        return None
    result, largest = simulator.run(spikes, torch.get_num_threads(), 1, wanted)
    if largest <= ready.largest:
        return result
    ready.largest = None
    return None


def _looked_through(ready: Held, spikes: Tensor, wanted: Wanted, graph: nir.NIRGraph) -> Recording:
    """Compiled or torch code on a checked input."""
    network, steps = ready.network, len(spikes)
    largest, signed = _largest(spikes, ready.limits, graph)
    largest = max(1, largest)
    ready.largest = None if signed or largest > 255 else largest
    chosen = compiled.choose(ready, steps, spikes.shape[1], largest, signed)
    if chosen.simulator:
        with suppress(compiled.NotSpikesError):
            return chosen.simulator.run(spikes, torch.get_num_threads(), _part(network), wanted)[0]
    began = time.perf_counter()
    small = {name: proof.small for name, proof in prove(network, steps, largest).items()}
    result = _run_in_torch(network, spikes, small, wanted.membrane, wanted.transmit)
    chosen.waited(time.perf_counter() - began)
    if wanted.layers is not None:
        result.counts = spikes_of_samples(result.spikes)
    return result


def _part(network: Network) -> int:
    """Samples that the torch code runs at a time."""
    return max(1, CHUNK_NEURONS // max((math.prod(layer.shape) for layer in network.layers.values()), default=1))


def _run_in_torch(network: Network, spikes: Tensor, small: dict[str, bool], membrane: bool,
                  transmit: Transmit | None) -> Recording:
    layout = network.plan
    steps, batch = spikes.shape[:2]
    with _exact_float32() as threads, ThreadPoolExecutor(threads) as pool:
        result = Recording({}, torch.empty(0))
        for name, layer in network.layers.items():
            result.spikes[name] = torch.empty(steps, batch, *layer.shape, dtype=torch.uint8)
            if membrane:
                result.membrane[name] = torch.empty(steps, batch, *layer.shape, dtype=torch.int32)
        weights = {name: linear.prepare(name, layout.nodes[name], torch.float32, layout.input_shape[name], bias=False)
                   for layer in network.layers.values() for c in layer.connections for name in c.nodes}
        # malloc gives back what a part frees until a larger block was freed; new pages cost as much as convolutions
        torch.empty(MALLOC_MAX, dtype=torch.uint8)
        size = _part(network)
        parts = [slice(start, start + size) for start in range(0, batch, size)]
        list(pool.map(lambda part: _run_part(network, weights, spikes, part, small, result, transmit), parts))
    return result


def _largest(spikes: Tensor, limits: Limits, graph: nir.NIRGraph) -> tuple[int, bool]:
    """The largest absolute value of the input, and whether it goes below zero.

    Raises:
        HardspikeError: the input is not made of integers, or is more than the chip takes.
    """
    if spikes.is_floating_point() and not torch.equal(spikes, spikes.round()):
        raise HardspikeError(f"{limits.chip} takes whole spikes, the input holds fractions; {whole_frames(graph)}, or "
                             "run on 'reference'")
    low, high = int(spikes.min()), int(spikes.max())
    if not limits.graded and (low < 0 or high > 1):
        raise HardspikeError(f"{limits.chip} takes spikes of 0 and 1, the input goes from {low} to {high}; "
                             "clip the counts when binning")
    return max(-low, high), low < 0


@torch.inference_mode()
def _run_part(network: Network, weights: Weights, spikes: Tensor, part: slice, small: dict[str, bool],
              result: Recording, transmit: Transmit | None) -> None:
    """The samples `part` through all layers, into `result`."""
    values = {network.plan.input: spikes[:, part].float()}
    for group in _groups(network):
        inner = {layer.name for layer in group}
        currents = {layer.name: _current(weights, layer, values, inner) for layer in group}
        cells = {layer.name: _cells(layer, currents[layer.name][0], small[layer.name]) for layer in group}
        values |= currents  # each step's spikes take the place of its input
        for t in range(len(spikes)):
            for layer in group:
                current = currents[layer.name][t]
                for c in layer.connections:
                    if c.source in inner and t >= c.delay:
                        current = current + _weigh(weights, c, values[c.source][t - c.delay])
                membrane = result.membrane[layer.name][t, part] if result.membrane else None
                _step(cells[layer.name], current, values[layer.name][t], membrane)
        for name in inner:
            if transmit:
                values[name] = transmit(name, values[name], part)
            # as int8: torch converts float32 to uint8 ten times slower
            result.spikes[name][:, part].view(torch.int8).copy_(values[name])


@contextmanager
def _exact_float32() -> Iterator[int]:
    """Float32 that rounds no integer, whatever the caller set; gives the number of threads to run parts on.

    NNPACK convolves by Winograd and FFT, a lower precision of oneDNN multiplies in bfloat16: both round. (It is set by
    operation: `torch.set_float32_matmul_precision` knows nothing of convolutions, and cannot be undone, since it fixes
    what was left open before.) A part is a thread's work: inside one operation there is too little to share, and
    torch's own threads wait for the next one in a busy loop, on the core of a part.
    """
    threads, onednn = torch.get_num_threads(), torch.backends.mkldnn
    operations = onednn.matmul, onednn.conv  # type: ignore[attr-defined]  # of a class that stands in for the module
    precisions = [operation.fp32_precision for operation in operations]
    try:
        torch.set_num_threads(1)
        for operation in operations:
            operation.fp32_precision = "ieee"
        with torch.backends.nnpack.flags(enabled=False):
            yield threads
    finally:
        torch.set_num_threads(threads)
        for operation, precision in zip(operations, precisions, strict=True):
            operation.fp32_precision = "none"  # as the backend's, which may be what it was
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


def _step(cells: Cells, current: Tensor, spikes: Tensor, membrane: Tensor | None) -> None:
    """One step of a layer in place: `current` (B, *shape) in, `spikes` out."""
    v, u = cells.v, cells.u
    if u is not None:
        _decay(u, cells.u_keep, cells).add_(current, alpha=SHIFT)
        if not cells.small:
            u.add_(u > STATE, alpha=-2 * STATE).add_(u <= -STATE, alpha=2 * STATE)
        _decay(v, cells.v_keep, cells).add_(u)
    else:
        _decay(v, cells.v_keep, cells).add_(current, alpha=SHIFT)
    if cells.bias is not None:
        v.add_(cells.bias)
    if cells.fired is not None:
        v.addcmul_(cells.fired, cells.threshold, value=-1)
    if not cells.small:
        v.clamp_(1 - STATE, STATE - 1)
    if membrane is not None:
        membrane.copy_(v)
    torch.gt(v, cells.threshold, out=spikes)
    if cells.fired is not None:
        cells.fired = spikes
    else:
        v.addcmul_(spikes, cells.threshold if cells.leaky else v, value=-1)


def _decay(x: Tensor, keep: Tensor, cells: Cells) -> Tensor:
    """D in place. A product of 24 and 13 bits needs float64; the conversion to int32 rounds towards zero."""
    cells.whole.copy_(cells.wide.copy_(x).mul_(keep))
    return x.copy_(cells.whole)


def _cells(layer: Layer, like: Tensor, small: bool) -> Cells:
    """Constants as true scalars or laid out like the state: torch is ten times slower when it has to broadcast."""
    dtype = torch.float32 if small else torch.float64

    def constant(values: np.ndarray, kind: torch.dtype = dtype) -> Tensor:
        if np.ptp(values) == 0:
            return torch.tensor(values.flat[0], dtype=kind)
        return torch.empty_like(like, dtype=kind).copy_(torch.from_numpy(np.ascontiguousarray(values)))

    v_keep, u_keep = (constant(1 - np.round(decay) / DECAY_UNIT, torch.float64)
                      for decay in (layer.v_decay, layer.i_decay))
    memory = bool(u_keep.any()) or not small  # without one, u is the input itself
    v = torch.zeros_like(like, dtype=dtype)
    return Cells(small, layer.reset == "subtract_leaky", constant(layer.threshold * SHIFT),
                 constant(layer.bias * SHIFT) if layer.bias.any() else None,
                 v_keep, u_keep, v, torch.zeros_like(v) if memory else None,
                 torch.empty_like(v, dtype=torch.float64), torch.empty_like(v, dtype=torch.int32),
                 torch.zeros_like(like) if layer.reset == "subtract" else None)


def _groups(network: Network) -> Iterator[list[Layer]]:
    """Layers that run together: one, or those of a loop."""
    for _, group in groupby(network.layers.values(), key=lambda layer: layer.group):
        yield list(group)


def _current(weights: Weights, layer: Layer, values: dict[str, Tensor], inner: set[str]) -> Tensor:
    """Weighted spikes (T, B, *shape) that reach `layer` from outside its loop, over all time."""
    steps, batch = next(iter(values.values())).shape[:2]
    total = None
    for connection in layer.connections:
        if connection.source not in inner:
            x = values[connection.source]
            if connection.delay:
                late = torch.zeros_like(x)
                late[connection.delay:] = x[:-connection.delay]
                x = late
            current = _weigh(weights, connection, x.flatten(0, 1)).unflatten(0, (steps, batch))
            total = current if total is None else total + current
    return torch.zeros(steps, batch, *layer.shape) if total is None else total


def _weigh(weights: Weights, connection: Connection, x: Tensor) -> Tensor:
    """Spikes (N, ...) through the nodes of a connection; the bias belongs to the neuron."""
    for name in connection.nodes:
        x = weights[name](x)
    return x
