"""`loihi2` against the stock Lava simulator: the same spikes, and how many times the samples per second.

    python -m benchmarks.simulator            # about two minutes; needs `python -m targets setup lava`

The network is 2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10 with T = 32, random integer weights, input at N-MNIST's density.
Both sides run in turn, several times; what is printed are medians and their ratio. Lava runs all its samples in one
go, with the state reset between them, which is its fastest way; its start-up is measured by a run of one sample and
taken off. Before that: how `loihi2` alone scales with the samples of a run and with T (no Lava needed).
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nir
import numpy as np
import torch

from hardspike import print_table
from targets import loihi2
from targets.lava import runner
from targets.lava.netx import write_net

STEPS, DENSITY = 32, 0.03


def network(seed: int = 0) -> nir.NIRGraph:
    """The integer network, thresholds set so that every layer spikes at a few per cent."""
    random, dt = np.random.default_rng(seed), 1e-4

    def neurons(*shape: int, threshold: int) -> nir.LIF:
        tau = np.full(shape, dt * 4096 / 410)  # leak 3686/4096, 0.9
        return nir.LIF(tau=tau, r=tau / dt, v_leak=np.zeros(shape), v_reset=np.zeros(shape),
                       v_threshold=np.full(shape, float(threshold)))

    def weights(*shape: int) -> np.ndarray:
        return random.integers(-100, 128, shape).astype(float)

    same = {"stride": (2, 2), "dilation": (1, 1), "groups": 1}
    nodes = {
        "input": nir.Input({"input": np.array([2, 34, 34])}),
        "conv1": nir.Conv2d((34, 34), weights(16, 2, 5, 5), padding=(2, 2), bias=np.zeros(16), **same),
        "lif1": neurons(16, 17, 17, threshold=260),
        "conv2": nir.Conv2d((17, 17), weights(32, 16, 3, 3), padding=(1, 1), bias=np.zeros(32), **same),
        "lif2": neurons(32, 9, 9, threshold=900),
        "flatten": nir.Flatten({"input": np.array([32, 9, 9])}, 0, -1),
        "dense": nir.Linear(weights(10, 32 * 81)),
        "lif3": neurons(10, threshold=4000),
        "output": nir.Output({"output": np.array([10])}),
    }
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": dt}, type_check=False)


def frames(steps: int, samples: int) -> torch.Tensor:
    """Random input (T, B, 2, 34, 34) uint8."""
    return (torch.rand(steps, samples, 2, 34, 34) < DENSITY).to(torch.uint8)


def scaling(rounds: int = 5) -> list[dict]:
    """Samples per second of `loihi2` for several numbers of samples in a run and of steps: medians, taken in turn."""
    torch.manual_seed(0)
    graph, sizes = network(), [(STEPS, 1), (STEPS, 8), (STEPS, 64), (STEPS, 512), (8, 64), (128, 64)]
    inputs, seconds = {size: frames(*size) for size in sizes}, {size: [] for size in sizes}
    for _ in range(rounds):
        for size, spikes in inputs.items():
            began = time.perf_counter()
            loihi2.run(graph, spikes)
            seconds[size].append(time.perf_counter() - began)
    return [{"T": steps, "samples in a run": samples, "samples/s": samples / statistics.median(taken),
             "us a sample and step": 1e6 * statistics.median(taken) / samples / steps}
            for (steps, samples), taken in seconds.items()]


def measure(rounds: int = 5, lava_samples: int = 8, samples: int = 512) -> dict:
    """Samples per second of both, and the spikes that differ.

    Returns:
        medians `loihi2` and `Lava` in samples/s, their `ratio`, `mismatches`, `spikes`.
    """
    torch.manual_seed(0)
    graph = network()
    spikes = frames(STEPS, samples)
    ours, lava, mismatches, total = [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "speed.net"
        write_net(graph, net)
        for _ in range(rounds):
            began = time.perf_counter()
            runner.run(net, spikes[:, :1])
            start_up = time.perf_counter() - began
            began = time.perf_counter()
            theirs = runner.run(net, spikes[:, :lava_samples + 1])
            lava.append(lava_samples / (time.perf_counter() - began - start_up))
            began = time.perf_counter()
            recording = loihi2.run(graph, spikes)
            ours.append(samples / (time.perf_counter() - began))
            for name, found in recording.spikes.items():
                mismatches += int((found[:, :lava_samples + 1] != theirs.spikes[name]).sum())
                total += int(theirs.spikes[name].sum(dtype=torch.int64))
    ratios = [a / b for a, b in zip(ours, lava, strict=True)]
    return {"loihi2": statistics.median(ours), "Lava": statistics.median(lava), "ratio": statistics.median(ratios),
            "lowest": min(ratios), "highest": max(ratios), "mismatches": mismatches, "spikes": total}


if __name__ == "__main__":
    print_table(scaling(), f"loihi2 alone, {torch.get_num_threads()} threads")
    found = measure()
    print_table([{"samples/s of loihi2": found["loihi2"], "samples/s of Lava": found["Lava"], "ratio": found["ratio"],
                  "lowest": found["lowest"], "highest": found["highest"], "spikes that differ": found["mismatches"],
                  "of": found["spikes"]}],
                f"2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10, T={STEPS}, {torch.get_num_threads()} threads")
    sys.exit(found["mismatches"] > 0)
