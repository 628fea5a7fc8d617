"""`loihi2` compiled, against its torch code, against what the machine can do, and against the stock Lava simulator.

    python -m benchmarks.simulator kernels     # compiled code against torch code
    python -m benchmarks.simulator scaling     # over samples, steps, activity, layer size and threads, beside the bound
    python -m benchmarks.simulator memory      # the most that a run takes, compiled and in torch
    python -m benchmarks.simulator nmnist      # 10,000 recordings; --path FOLDER, else random events
    python -m benchmarks.simulator lava        # needs `hardspike targets setup lava`

The network is 2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10 with T = 32, random integer weights, input at N-MNIST's density.
Sides run in turn, several times; what is printed are medians, and of ratios the median of those of one round: once of
seconds, and once of what all threads took of the processors (user and system), which other processes disturb less.
Lava runs all its samples in one go, with the state reset between them, which is its fastest way; its start-up is
measured by a run of one sample and taken off, and ours is warm.

The bound is what a core that only updated neurons and added weights would do, at the rates of the simulator's own loops
on data in the nearest cache: neurons without input, and a matrix of 128 columns a quarter of whose inputs fire.
"""

import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, print_table, progress, run
from targets import loihi2
from targets.lava import runner
from targets.lava.netx import write_net
from targets.loihi import blocks
from targets.recording import Recording
from targets.target import Target

STEPS, DENSITY = 32, 0.03
DENSITIES = (0.01, 0.03, 0.05, 0.2)
CHUNK = loihi2.chunk or 128


def network(seed: int = 0, width: int = 1) -> nir.NIRGraph:
    """The integer network, thresholds set so that every layer spikes at a few per cent; `width` times the channels."""
    random, dt = np.random.default_rng(seed), 1e-4

    def neurons(*shape: int, threshold: int) -> nir.LIF:
        tau = np.full(shape, dt * 4096 / 410)  # leak 3686/4096, 0.9
        return nir.LIF(tau=tau, r=tau / dt, v_leak=np.zeros(shape), v_reset=np.zeros(shape),
                       v_threshold=np.full(shape, float(threshold)))

    def weights(*shape: int) -> np.ndarray:
        return random.integers(-100, 128, shape).astype(float)

    same, first, second = {"stride": (2, 2), "dilation": (1, 1), "groups": 1}, 16 * width, 32 * width
    nodes = {
        "input": nir.Input({"input": np.array([2, 34, 34])}),
        "conv1": nir.Conv2d((34, 34), weights(first, 2, 5, 5), padding=(2, 2), bias=np.zeros(first), **same),
        "lif1": neurons(first, 17, 17, threshold=260),
        "conv2": nir.Conv2d((17, 17), weights(second, first, 3, 3), padding=(1, 1), bias=np.zeros(second), **same),
        "lif2": neurons(second, 9, 9, threshold=900 * width),
        "flatten": nir.Flatten({"input": np.array([second, 9, 9])}, 0, -1),
        "dense": nir.Linear(weights(10, second * 81)),
        "lif3": neurons(10, threshold=4000 * width),
        "output": nir.Output({"output": np.array([10])}),
    }
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": dt}, type_check=False)


def events(steps: int, samples: int, density: float = DENSITY) -> Tensor:
    """Random input (T, B, 2, 34, 34) uint8."""
    return torch.empty(steps, samples, 2, 34, 34, dtype=torch.uint8).bernoulli_(density)


@contextmanager
def kernel(name: str, threads: int | None = None) -> Iterator[None]:
    """`loihi2` on compiled code (native) or torch code (torch), on so many threads."""
    number = torch.get_num_threads()
    torch.set_num_threads(threads or number)
    try:
        with patch.dict(os.environ, HARDSPIKE_KERNEL=name):
            yield
    finally:
        torch.set_num_threads(number)


# -------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Taken:
    """What something took, round by round.

    Args:
        wall: seconds.
        cpu: seconds of all threads, user and system.
    """

    wall: list[float]
    cpu: list[float]

    def times(self, other: "Taken") -> tuple[float, float]:
        """How many times longer this took than `other`: by seconds, and by processors' seconds."""
        wall, cpu = (statistics.median(a / b for a, b in zip(one, two, strict=True))
                     for one, two in ((self.wall, other.wall), (self.cpu, other.cpu)))
        return wall, cpu

    def rate(self, count: float) -> float:
        """`count` a second."""
        return count / statistics.median(self.wall)


def in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Taken]:
    """What each takes, in turn after two runs of each that warm up."""
    for one in (*runs.values(), *runs.values()):
        one()
    taken = {name: Taken([], []) for name in runs}
    for _ in progress(range(rounds), "rounds"):
        for name, one in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            one()
            taken[name].wall.append(time.perf_counter() - wall)
            taken[name].cpu.append(time.process_time() - cpu)
    return taken


def kernels(samples: int = 512, rounds: int = 5, threads: int = 2, json: Path | None = None) -> None:
    """Compiled code against torch code: all layers recorded, and the output and counts that eval asks for alone.

    Args:
        samples: in a run
        rounds: runs of each side
        threads: of each side
        json: file for the table
    """
    torch.manual_seed(0)
    graph, rows = network(), []
    for density in DENSITIES:
        spikes = events(STEPS, samples, density)
        frames = spikes.float()  # what eval gives

        def side(name: str, given: Tensor, layers: tuple[str, ...] | None = None,
                 new: bool = False) -> Callable[[], Recording]:
            def one() -> Recording:
                if new:
                    blocks.forget()
                with kernel(name, threads):
                    return loihi2.run(graph, given, layers=layers)
            return one

        sides = {"torch": side("torch", spikes), "recorded": side("native", spikes),
                 "new pages": side("native", spikes, new=True), "alone": side("native", spikes, ()),
                 "torch, floats": side("torch", frames), "floats": side("native", frames, ())}
        exact, found, alone = (sides[name]() for name in ("torch", "recorded", "floats"))
        differ = sum(int((exact.spikes[name] != found.spikes[name]).sum()) for name in exact.spikes)
        differ += sum(abs(int(fired.sum(dtype=torch.int64)) - int(alone.counts[name].sum()))
                      for name, fired in exact.spikes.items()) + int((exact.output != alone.output).sum())
        del exact, found, alone
        taken = in_turn(sides, rounds)
        row = {"input": f"{density:.0%}", "torch, samples/s": taken["torch"].rate(samples)}
        for name, against in (("recorded", "torch"), ("new pages", "torch"), ("alone", "torch"),
                              ("floats", "torch, floats")):
            wall, cpu = taken[against].times(taken[name])
            row |= {name: taken[name].rate(samples), f"{name}, times": wall, f"{name}, times CPU": cpu}
        rows.append({**row, "differ": differ})
    print_table(rows, f"samples/s of {samples} at once, T={STEPS}, {threads} threads: recorded: every layer's spikes; "
                "new pages: the same into memory that nobody had before; alone: output and counts; floats: the same of "
                "float32 frames, against torch on those", json_file=json)


# -------------------------------------------------------------------------------------------------- the bound


def rates(rounds: int) -> tuple[float, float]:
    """Neurons a core updates a second, and weights that it adds, of the simulator's own loops in the nearest cache."""
    samples, steps = 64, 256
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
        quarter = torch.zeros(steps, samples, 256, dtype=torch.uint8)
        quarter[..., ::4] = 1
        taken = in_turn({"updates": lambda: loihi2.run(made[0], once, layers=()),
                         "additions": lambda: loihi2.run(made[1], quarter, layers=())}, 4 * rounds)
    return samples * steps * 4608 / min(taken["updates"].cpu), samples * steps * 8192 / min(taken["additions"].cpu)


def bound(found: Recording, given: Tensor, width: int, reached: tuple[float, float]) -> float:
    """Samples a second and core that would be possible, were there nothing but updates and additions.

    Args:
        found: a run on `given`, with its counts.
        reached: see `rates`.
    """
    fired = {name: float(count.sum()) / given.shape[1] for name, count in found.counts.items()}
    arrived = float(given.sum()) / given.shape[1]
    updates = len(given) * (289 * 16 * width + 81 * 32 * width + 10)
    additions = arrived * 6.25 * 16 * width + fired["lif1"] * 2.25 * 32 * width + fired["lif2"] * 10
    return 1 / (updates / reached[0] + additions / reached[1])


def scaling(rounds: int = 5, json: Path | None = None) -> None:
    """Samples/s of compiled `loihi2`, all layers recorded, over what may change, in turn; beside the bound.

    Args:
        rounds: runs of each case
        json: file for the table
    """
    torch.manual_seed(0)
    usual = {"samples": 128, "T": STEPS, "input": DENSITY, "width": 1, "threads": 2}
    other = {"samples": (1, 8, 32, 512), "T": (8, 128), "input": (0.01, 0.05, 0.2), "width": (2, 4), "threads": (1,)}
    cases = [usual, *({**usual, key: value} for key, values in other.items() for value in values)]
    graphs = {width: network(width=width) for width in (1, *other["width"])}
    reached, runs, rows = rates(rounds), {}, []
    for number, case in enumerate(cases):
        given = events(case["T"], case["samples"], case["input"])

        def one(case: dict = case, given: Tensor = given, layers: tuple[str, ...] | None = None) -> Recording:
            with kernel("native", case["threads"]):
                return loihi2.run(graphs[case["width"]], given, layers=layers)

        most = bound(one(layers=()), given, case["width"], reached) * case["threads"]
        runs[str(number)] = one
        rows.append({"samples at once": case["samples"], "T": case["T"], "input": f"{case['input']:.0%}",
                     "channels": f"{16 * case['width']}, {32 * case['width']}", "threads": case["threads"],
                     "bound": most})
    for row, case, taken in zip(rows, cases, in_turn(runs, rounds).values(), strict=True):
        cores = statistics.median(taken.cpu) / case["samples"]
        row |= {"samples/s": taken.rate(case["samples"]), "CPU us a sample": 1e6 * cores,
                "CPU us a sample and step": 1e6 * cores / case["T"],
                "of the bound, CPU": case["threads"] / cores / row["bound"]}
    print_table(rows, f"compiled, all layers recorded; a core updates {reached[0] / 1e9:.1f} G "
                f"neurons and adds {reached[1] / 1e9:.1f} G weights a second", json_file=json)


# ------------------------------------------------------------------------------------------ memory, recordings


def memory(samples: int = 512, json: Path | None = None) -> None:
    """MiB that a process takes at most for a run, beyond what it took before, each in a process of its own.

    Args:
        samples: in a run
        json: file for the table
    """
    rows = []
    for side, layers in itertools.product(("torch", "native"), ("all", "none")):
        done = subprocess.run([sys.executable, "-m", "benchmarks.simulator", "peak", side, "--samples", str(samples),
                               "--layers", layers], capture_output=True, text=True)
        if done.returncode:
            raise HardspikeError(f"{side}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        rows.append({"code": side, "layers recorded": layers, "MiB more": float(done.stdout)})
    print_table(rows, f"{samples} samples at once, T={STEPS}, {DENSITY:.0%} input", json_file=json)


def peak(side: str, layers: str = "all", samples: int = 512) -> None:
    """What `memory` starts: MiB at most, less what the process took before the run.

    Args:
        side: native or torch
        layers: that are recorded, all or none
        samples: in the run
    """
    torch.manual_seed(0)
    graph, spikes = network(), events(STEPS, samples)
    with kernel(side, 2):
        loihi2.run(graph, spikes[:, :1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loihi2.run(graph, spikes, layers=None if layers == "all" else ())
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def nmnist(path: Path | None = None, recordings: int = 10_000, threads: int = 2, rounds: int = 3,
           json: Path | None = None) -> None:
    """Seconds for as many recordings as N-MNIST's test part has, some at a time as eval runs them.

    Args:
        path: folder of N-MNIST, whose recordings are taken again and again; default: random events
        recordings: how many
        threads: of the simulator
        rounds: runs of each way
        json: file for the table
    """
    torch.manual_seed(0)
    frames = _recorded(path)  # (N, T, 2, 34, 34)
    graph, starts = network(), range(0, recordings, CHUNK)

    def all_of_them(target: Target, as_floats: bool) -> Tensor:
        found = []
        with kernel("native", threads):
            for start in starts:
                some = frames[torch.arange(start, min(start + CHUNK, recordings)) % len(frames)].transpose(0, 1)
                found.append(target.run(graph, some.float() if as_floats else some, layers=()).output.sum(0))
        return torch.cat(found)

    with kernel("torch", threads):
        exact = loihi2.run(graph, frames[:CHUNK].transpose(0, 1)).output.sum(0)
    differ = int((all_of_them(loihi2, False)[:len(exact)] != exact).sum())
    taken = in_turn({"bytes": lambda: all_of_them(loihi2, False), "floats": lambda: all_of_them(loihi2, True)}, rounds)
    print_table([{"frames": name, "seconds": statistics.median(one.wall), "CPU seconds": statistics.median(one.cpu),
                  "recordings/s": one.rate(recordings), "outputs that differ from torch": differ}
                 for name, one in taken.items()],
                f"{recordings} recordings, T={STEPS}, {len(frames)} different ones"
                f"{f' of {path}' if path else ', random'}, {float(frames.float().mean()):.1%} of places, {threads} "
                "threads", json_file=json)


def _recorded(path: Path | None) -> Tensor:
    """Frames (N, T, 2, 34, 34) uint8 of N-MNIST, or random ones."""
    if path is None:
        return events(STEPS, 1000).transpose(0, 1).contiguous()
    from trainer.data.config import DataConfig
    from trainer.data.loading import load
    data = load(DataConfig(name="nmnist", path=path, steps=STEPS))
    return torch.cat([part.frames for part in (data.train, data.validation, data.test)])


# ------------------------------------------------------------------------------------------------------- Lava


def lava(rounds: int = 5, recorded: int = 8, samples: int = 512, threads: int = 2, json: Path | None = None) -> None:
    """Stock Lava and `loihi2` in turn, all layers recorded; the spikes that differ.

    Args:
        rounds: runs of each side
        recorded: samples of a run of Lava
        samples: of a run of loihi2
        threads: of loihi2
        json: file for the table
    """
    torch.manual_seed(0)
    graph, spikes, mismatches, total = network(), events(STEPS, samples), 0, 0
    ours, theirs = Taken([], []), Taken([], [])
    with tempfile.TemporaryDirectory() as folder, kernel("native", threads):
        net = Path(folder) / "speed.net"
        write_net(graph, net)
        for _ in progress(range(rounds), "rounds"):
            start_up, _ = _lava_run(net, spikes[:, :1])
            more, wanted = _lava_run(net, spikes[:, :recorded + 1])
            theirs.wall.append((more[0] - start_up[0]) / recorded)
            theirs.cpu.append((more[1] - start_up[1]) / recorded)
            taken = in_turn({"ours": lambda: loihi2.run(graph, spikes)}, 1)["ours"]
            ours.wall.append(taken.wall[0] / samples)
            ours.cpu.append(taken.cpu[0] / samples)
            for name, found in loihi2.run(graph, spikes[:, :recorded + 1]).spikes.items():
                mismatches += int((found != wanted.spikes[name]).sum())
                total += int(wanted.spikes[name].sum(dtype=torch.int64))
    ratios, (wall, cpu) = [a / b for a, b in zip(theirs.wall, ours.wall, strict=True)], theirs.times(ours)
    print_table([{"samples/s of loihi2": ours.rate(1), "samples/s of Lava": theirs.rate(1), "times": wall,
                  "lowest": min(ratios), "highest": max(ratios), "times CPU": cpu, "spikes that differ": mismatches,
                  "of": total}],
                f"2x34x34 -> 16 5x5/2 -> 32 3x3/2 -> 10, T={STEPS}, {threads} threads", json_file=json)
    if mismatches:
        raise HardspikeError(f"{mismatches} spikes differ from Lava's")


def _lava_run(net: Path, spikes: Tensor) -> tuple[tuple[float, float], Recording]:
    """Seconds, and seconds of the processors, that Lava took for a run; and the run."""
    def spent() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime

    wall, cpu = time.perf_counter(), spent()
    found = runner.run(net, spikes)
    return (time.perf_counter() - wall, spent() - cpu), found


if __name__ == "__main__":
    sys.exit(run("benchmarks.simulator", {"kernels": kernels, "scaling": scaling, "memory": memory, "nmnist": nmnist,
                                          "lava": lava, "peak": peak}))
