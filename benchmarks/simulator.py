"""`loihi2` compiled, against its torch code, against what the machine can do, and against the stock Lava simulator.

    python -m benchmarks.simulator            # a few minutes; the last part needs `python -m targets setup lava`

The network is 2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10 with T = 32, random integer weights, input at N-MNIST's density.
Sides run in turn, several times; what is printed are medians, and of ratios the median of those of one round. Lava runs
all its samples in one go, with the state reset between them, which is its fastest way; its start-up is measured by a
run of one sample and taken off.

The bound is what a core that only updated neurons and added weights would do, at the rates that `bound` measures here.
"""

import functools
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def events(steps: int, samples: int, density: float) -> torch.Tensor:
    """Random input (T, B, 2, 34, 34) uint8 of another density."""
    return (torch.rand(steps, samples, 2, 34, 34) < density).to(torch.uint8)


@contextmanager
def kernel(name: str, threads: int | None = None) -> Iterator[None]:
    """`loihi2` on compiled code (native) or torch code (torch), on so many threads."""
    before, number = os.environ.get("HARDSPIKE_KERNEL"), torch.get_num_threads()
    os.environ["HARDSPIKE_KERNEL"] = name
    torch.set_num_threads(threads or number)
    try:
        yield
    finally:
        torch.set_num_threads(number)
        if before is None:
            del os.environ["HARDSPIKE_KERNEL"]
        else:
            os.environ["HARDSPIKE_KERNEL"] = before


def in_turn(runs: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of each, taken in turn after one run of each that warms up."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def kernels(rounds: int = 5, samples: int = 512) -> list[dict]:
    """Compiled code against torch code: all layers recorded into new tensors, and the output alone; bits compared."""
    torch.manual_seed(0)
    graph, rows = network(), []
    for density in (0.01, 0.03, 0.05, 0.2):
        spikes = events(STEPS, samples, density)

        def run(name: str, layers: tuple[str, ...] | None = None, spikes: torch.Tensor = spikes) -> object:
            with kernel(name):
                return loihi2.run(graph, spikes, layers=layers)

        one, other = run("torch"), run("native")
        differ = sum(int((one.spikes[name] != other.spikes[name]).sum()) for name in one.spikes)
        taken = in_turn({"torch": lambda: run("torch"), "native": lambda: run("native"),
                         "output": lambda: run("native", ())}, rounds)
        ratio = {name: statistics.median(a / b for a, b in zip(taken["torch"], taken[name], strict=True))
                 for name in ("native", "output")}
        rows.append({"input": f"{density:.0%}", "torch, samples/s": samples / statistics.median(taken["torch"]),
                     "compiled": samples / statistics.median(taken["native"]), "times": ratio["native"],
                     "output alone": samples / statistics.median(taken["output"]), "times ": ratio["output"],
                     "spikes that differ": differ})
    return rows


def bound(density: float = DENSITY) -> dict:
    """Samples a second and core that the processor allows: updates and additions alone, at rates measured here.

    The loops are the simulator's own, on data that stays in the nearest cache: a layer of 4608 neurons without input,
    and a matrix of 128 columns whose inputs all fire.
    """
    torch.manual_seed(0)
    graph, samples, steps = network(), 64, 256
    neurons = {"input": nir.Input(np.array([1])), "w": nir.Linear(np.ones((4608, 1))),
               "n": nir.LIF(*(np.full(4608, value) for value in (1e-4 * 4096 / 410, 4096 / 410, 0.0, 900.0, 0.0))),
               "small": nir.Linear(np.ones((1, 4608))), "one": nir.IF(np.full(1, 1e4), np.ones(1), np.zeros(1)),
               "output": nir.Output(None)}  # the host reads one neuron, which hears nothing
    matrix = {"input": nir.Input(np.array([256])), "w": nir.Linear(np.ones((128, 256))),
              "n": nir.IF(np.full(128, 1e4), np.full(128, 131071.0), np.zeros(128)), "output": nir.Output(None)}
    made = [nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": 1e-4}, type_check=False)
            for nodes in (neurons, matrix)]
    with kernel("native", 1):
        once = torch.zeros(steps, samples, 1, dtype=torch.uint8)
        once[0] = 1  # who never heard anything rests
        ones = torch.ones(steps, samples, 256, dtype=torch.uint8)
        taken = in_turn({"updates": lambda: loihi2.run(made[0], once, layers=()),
                         "additions": lambda: loihi2.run(made[1], ones, layers=())})
        found = loihi2.run(graph, events(STEPS, samples, density))
    updates = samples * steps * 4608 / min(taken["updates"])
    additions = samples * steps * 128 * 256 / min(taken["additions"])
    fired = {name: float(spikes.sum()) / samples for name, spikes in found.spikes.items()}
    work = STEPS * (4624 + 2592 + 10) / updates + (STEPS * 2312 * density * 6.25 * 16 + fired["lif1"] * 2.25 * 32
                                                   + fired["lif2"] * 10) / additions
    return {"updates/s": updates, "additions/s": additions, "samples/s a core": 1 / work}


def scaling(rounds: int = 5) -> list[dict]:
    """Samples per second of compiled `loihi2` for several numbers of samples in a run, steps and threads, in turn."""
    torch.manual_seed(0)
    graph, sizes = network(), [(STEPS, 1), (STEPS, 8), (STEPS, 64), (STEPS, 512), (8, 64), (128, 64)]
    inputs, cases = {size: frames(*size) for size in sizes}, [(size, 2) for size in sizes] + [((STEPS, 512), 1)]

    def run(size: tuple[int, int], threads: int) -> None:
        with kernel("native", threads):
            loihi2.run(graph, inputs[size])

    taken = in_turn({f"{case}": functools.partial(run, *case) for case in cases}, rounds)
    return [{"T": steps, "samples in a run": samples, "threads": threads, "samples/s": samples / statistics.median(t),
             "us a sample and step": 1e6 * statistics.median(t) / samples / steps}
            for (((steps, samples), threads), t) in zip(cases, taken.values(), strict=True)]


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
    print_table(kernels(), f"compiled against torch, {torch.get_num_threads()} threads; spikes into new tensors")
    print_table([bound()], "the bound of one core at 3 % input")
    print_table(scaling(), "compiled, over samples, steps and threads")
    found = measure()
    print_table([{"samples/s of loihi2": found["loihi2"], "samples/s of Lava": found["Lava"], "ratio": found["ratio"],
                  "lowest": found["lowest"], "highest": found["highest"], "spikes that differ": found["mismatches"],
                  "of": found["spikes"]}],
                f"2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10, T={STEPS}, {torch.get_num_threads()} threads")
    sys.exit(found["mismatches"] > 0)
