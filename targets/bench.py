"""How fast a target runs a graph to its output, no layer recorded: `hardspike targets bench`."""

import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import UsageError, about, require_memory
from targets.graph import plan
from targets.inputs import check_spikes, load_spikes, spread
from targets.options import RandomEvents
from targets.target import Target

RANDOM_SAMPLES = 64
"""Where nobody says how many."""


@dataclass(frozen=True)
class Bench:
    """What was measured. Latencies are of one sample alone, in milliseconds.

    Args:
        samples, steps: of the input.
        runs: of one sample, after one that warms up.
        mean, median, p99, fastest, slowest: latency, ms.
        throughput: samples a second, all in one run; median of `rounds`.
        rounds: runs of all samples.
        memory: MiB that the process took at most.
        threads: of torch.
    """

    samples: int
    steps: int
    runs: int
    mean: float
    median: float
    p99: float
    fastest: float
    slowest: float
    throughput: float
    rounds: int
    memory: float
    threads: int


def random_input(graph: nir.NIRGraph, dt: float | None, events: RandomEvents) -> Tensor:
    """Events (T, B, *Input) uint8 of 0 and 1; the same every time.

    Raises:
        UsageError: a number out of range.
    """
    steps, density = events.steps, events.density
    if steps < 1 or not 0 <= density <= 1:
        raise UsageError(f"steps {steps}, density {density:g}: must be 1 or more, and from 0 to 1")
    layout = plan(graph, dt)
    shape = (steps, _samples(events) or RANDOM_SAMPLES, *layout.output_shape[layout.input])
    require_memory(6 * math.prod(shape), f"{shape[1]} samples of {steps} steps", "take fewer samples or steps")
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density).byte()


def given_input(graph: nir.NIRGraph, path: Path, dt: float | None, events: RandomEvents) -> Tensor:
    """Spikes (T, B, *Input) of a file, `events.samples` of them, evenly spread.

    Raises:
        UsageError: steps or density are asked for, which a file has by itself; fewer than 0 samples.
        HardspikeError: the file is unusable, or does not fit the graph.
    """
    if replace(events, samples=0) != RandomEvents():
        raise UsageError("--steps and --density are of random events; leave them out beside --input")
    spikes, count = load_spikes(path)[0], _samples(events)
    with about(path):
        spikes = check_spikes(plan(graph, dt), spikes)
    return spread(spikes, count)


def _samples(events: RandomEvents) -> int:
    if events.samples < 0:
        raise UsageError(f"samples {events.samples}: must be 0 (all of --input, {RANDOM_SAMPLES} random ones) or more")
    return events.samples


def bench(target: Target, graph: nir.NIRGraph, spikes: Tensor, runs: int, dt: float | None = None,
          rounds: int = 5) -> Bench:
    """Time `graph` on `spikes` (T, B, *Input): samples one by one, then all in one run.

    Raises:
        UsageError: `runs` below 1.
        HardspikeError: the target cannot run the graph on them.
    """
    if runs < 1:
        raise UsageError(f"runs {runs}: must be 1 or more")
    steps, samples = spikes.shape[:2]
    target.run(graph, spikes[:, :1], dt, layers=())
    single = [1000 * _seconds(target, graph, spikes[:, n % samples:n % samples + 1], dt) for n in range(runs)]
    target.run(graph, spikes, dt, layers=())
    whole = [_seconds(target, graph, spikes, dt) for _ in range(rounds)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return Bench(samples, steps, runs, statistics.fmean(single), statistics.median(single),
                 float(np.percentile(single, 99)), min(single), max(single), samples / statistics.median(whole), rounds,
                 peak, torch.get_num_threads())


def _seconds(target: Target, graph: nir.NIRGraph, spikes: Tensor, dt: float | None) -> float:
    began = time.perf_counter()
    target.run(graph, spikes, dt, layers=())
    return time.perf_counter() - began
