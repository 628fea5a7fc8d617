"""A training step of the conv net: the snnTorch idiom, this project's neuron, and no neurons at all.

    python -m benchmarks.neuron measure              # minutes; --help for time steps, batch, threads, rounds

A step is forward, cross-entropy and backward, without optimizer, in float32, on random frames of N-MNIST's size and
density. All variants take turns in one process; a row gives the median over rounds of its time and of its speed against
the snnTorch loop of the same round. "no neurons" is the same network with identities in their place: what no neuron
can beat.

The snnTorch idiom is a loop over time around `snntorch.Leaky`, reset detached as it always is there. In smooth mode its
`spike_grad` is phi itself. spikingjelly (multi-step) and norse (its lifted cell) take part in hard mode where they are
installed. The neurons of this project carry the gradient through the reset, which is more work.
"""

import importlib
import os
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import snntorch as snn
import torch
from torch import Tensor, nn

from hardspike import print_table, progress, run
from trainer.networks import NetworkConfig, build
from trainer.neurons import Leaky
from trainer.scan import implementation
from trainer.spikes import Surrogate

SHAPE, CLASSES, DENSITY = (2, 34, 34), 10, 0.03
SLOPE = Surrogate().slope


def layers(neuron: Callable[[], nn.Module]) -> nn.ModuleList:
    """The layers of the preset `conv`, one neuron after each but the last."""
    network = build(NetworkConfig(), SHAPE, CLASSES)
    return nn.ModuleList(neuron() if isinstance(layer, Leaky) else layer for layer in network.layers.values())


class Loop(nn.Module):
    """snnTorch's idiom: every time step goes through the whole network."""

    def __init__(self, spike_grad: Callable[[Tensor], Tensor]):
        super().__init__()
        self.layers = layers(lambda: snn.Leaky(beta=0.9, spike_grad=spike_grad))

    def forward(self, frames: Tensor) -> Tensor:
        states = {layer: layer.init_leaky() for layer in self.layers if isinstance(layer, snn.Leaky)}
        total = 0
        for x in frames:
            for layer in self.layers[:-1]:
                if layer in states:
                    x, states[layer] = layer(x, states[layer])
                else:
                    x = layer(x)
            total = total + x
        return self.layers[-1](total / len(frames))


class Sequence(nn.Module):
    """All time steps through one layer after the other; neurons take (T, B, ...)."""

    def __init__(self, neuron: Callable[[], nn.Module], before: Callable[[nn.Module], None] = lambda network: None):
        super().__init__()
        self.layers = layers(neuron)
        self.kind = type(neuron())
        self.before = before

    def forward(self, frames: Tensor) -> Tensor:
        self.before(self)
        x = frames
        for layer in self.layers[:-1]:
            if isinstance(layer, self.kind):
                x = layer(x)
                x = x[0] if isinstance(x, tuple) else x
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (len(frames), -1))
        return self.layers[-1](x.mean(0))


def spikingjelly() -> nn.Module:
    """Multi-step LIF with the same recurrence (beta = 1 - 1/tau, soft reset, reset detached)."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    return Sequence(lambda: neuron.LIFNode(tau=10.0, decay_input=False, v_reset=None, detach_reset=True, step_mode="m",
                                           surrogate_function=surrogate.ATan(2 * SLOPE)), functional.reset_net)


def norse() -> nn.Module:
    """`LIFBox` (no synaptic current) lifted over time, with a leak of 0.9 a step; its reset is to zero."""
    library = importlib.import_module("norse.torch")
    parameters = library.LIFBoxParameters(tau_mem_inv=torch.tensor(100.0), v_th=torch.tensor(1.0))
    return Sequence(lambda: library.Lift(library.LIFBoxCell(parameters)))


@contextmanager
def kernel(name: str):
    """HARDSPIKE_KERNEL within the block."""
    before = os.environ.pop("HARDSPIKE_KERNEL", None)
    os.environ["HARDSPIKE_KERNEL"] = name
    try:
        yield
    finally:
        os.environ.pop("HARDSPIKE_KERNEL")
        if before is not None:
            os.environ["HARDSPIKE_KERNEL"] = before


def measure(steps: int, batch: int, rounds: int) -> tuple[list[dict], list[str]]:
    """One row a variant, and what was left out and why."""
    phi = {"hard": snn.surrogate.atan(alpha=2 * SLOPE), "arctan": lambda z: torch.atan(torch.pi * SLOPE * z) / torch.pi
           + 0.5, "sigmoid": lambda z: torch.sigmoid(4 * SLOPE * z)}
    variants: dict[tuple[str, str], tuple[nn.Module, str]] = {("-", "no neurons"): (Sequence(nn.Identity), "")}
    for mode in phi:
        surrogate = Surrogate("arctan" if mode == "hard" else mode)
        ours = build(NetworkConfig(surrogate=surrogate), SHAPE, CLASSES)
        ours.set_mode(hard=mode == "hard")
        variants |= {(mode, "snnTorch loop"): (Loop(phi[mode]), ""), (mode, "ours, torch"): (ours, "torch"),
                     (mode, "ours"): (ours, "")}
    absent = []
    for peer in (spikingjelly, norse):
        try:
            variants["hard", peer.__name__] = peer(), ""
        except ImportError as error:
            absent.append(f"{peer.__name__} left out: {error}")
    frames = (torch.rand(steps, batch, *SHAPE) < DENSITY).float()
    labels = torch.randint(CLASSES, (batch,))

    def step(network: nn.Module, name: str) -> float:
        network.zero_grad(set_to_none=True)
        with kernel(name):
            began = time.perf_counter()
            nn.functional.cross_entropy(network(frames), labels).backward()
            return time.perf_counter() - began

    times = {key: [] for key in variants}
    for _ in progress(range(rounds + 2), "rounds"):
        for key, variant in variants.items():
            times[key].append(step(*variant))
    times = {key: found[2:] for key, found in times.items()}  # the first rounds warm up

    def ratio(slow: tuple[str, str], fast: tuple[str, str]) -> list[float]:
        return sorted(a / b for a, b in zip(times[slow], times[fast], strict=True))

    rows = []
    for key, found in times.items():
        mode, name = key
        against = ratio((mode if mode != "-" else "hard", "snnTorch loop"), key)
        rows.append({"mode": mode, "variant": name, "ms": 1e3 * statistics.median(found),
                     "fastest ms": 1e3 * min(found),
                     "speed / snnTorch": statistics.median(against), "10 %": against[len(against) // 10],
                     "90 %": against[len(against) * 9 // 10],
                     "time / no neurons": statistics.median(ratio(key, ("-", "no neurons")))})
    return rows, absent


def neuron(steps: int = 16, batch: int = 64, threads: int = 2, rounds: int = 30, json: Path | None = None) -> None:
    """Time a training step of each variant.

    Args:
        steps: time steps T
        batch: recordings B
        threads: threads of torch
        rounds: rounds that are timed
        json: file for the table's values
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows, absent = measure(steps, batch, rounds)
    example = torch.zeros(1, 1), torch.tensor(0.9), torch.tensor(1.0)
    print_table(rows, f"training step, 12c5s2-32c3s2-128, T={steps}, B={batch}, {threads} threads, {rounds} rounds; "
                f"ours: {implementation(*example)}", json_file=json)
    print(*absent, sep="\n", end="\n" * bool(absent))


if __name__ == "__main__":
    run("benchmarks.neuron", {"measure": neuron})
