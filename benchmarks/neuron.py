"""A training step: the snnTorch idiom, its peers, this project's neurons, and no neurons at all.

    python -m benchmarks.neuron measure              # one size, all modes; --help for time steps, batch, network
    python -m benchmarks.neuron sizes                # several sizes, minutes
    python -m benchmarks.neuron sizes --device cuda  # on a GPU: our Triton kernels
    python -m benchmarks.neuron scan                 # the neurons alone, on a GPU, against copying as many bytes

A step is forward, cross-entropy and backward, without optimizer, on random frames of N-MNIST's size and density. All
variants have the same weights, take turns in one process, and compute in float32 but for the row that says bf16. A row
gives the median over rounds of its time and of its speed against the snnTorch loop of the same round. "no neurons" is
the same network with identities in their place.

The weights are scaled until every layer fires as in a trained network, as this project's layers are faster on few
spikes; the others' time does not depend on it.

The snnTorch idiom is a loop over time around `snntorch.Leaky`, reset detached as it always is there. In smooth mode its
`spike_grad` is phi itself. spikingjelly (multi-step) and norse (its lifted cell) take part in hard mode where they are
installed. The neurons of this project carry the gradient through the reset, which is more work.
"""

import importlib
import os
import statistics
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import snntorch as snn
import torch
from torch import Tensor, nn

from benchmarks import Device, now, where
from hardspike import print_table, progress, run
from trainer.hardware import choose_device
from trainer.networks import Network, NetworkConfig, build
from trainer.neurons.leaky import Leaky
from trainer.neurons.scan import implementation
from trainer.neurons.spikes import Surrogate

SHAPE, CLASSES = (2, 34, 34), 10
DENSITY, RATE = 0.08, 0.09
"""Of binary N-MNIST frames at T=10; of the convolutional layers of networks trained on them (0.07 to 0.11)."""
SLOPE = Surrogate().slope
SIZES = (("conv", 16, 64, 20), ("conv", 16, 16, 20), ("conv", 64, 16, 20), ("conv", 256, 4, 20), ("vgg", 16, 2, 4))
"""Network, time steps, batch, rounds."""
AT_ONCE = 10
"""Scans that a GPU is asked for in a row."""
SCANS = ((4, 1 << 22), (16, 1 << 20), (100, 1 << 18))
"""Time steps, neurons: 16 to 26 million values."""
NONE = "no neurons"
SNNTORCH = "snnTorch loop"


def reference(layers: str, frames: Tensor) -> Network:
    """The network whose weights all variants have, scaled to RATE on these frames."""
    torch.manual_seed(0)
    network = build(NetworkConfig(layers, batch_norm=False, surrogate=Surrogate("arctan")), SHAPE, CLASSES)
    network.to(frames.device)
    network.set_mode(hard=True)
    x, scaled = frames, None
    with torch.no_grad():
        for layer in network.layers.values():
            if isinstance(layer, Leaky):
                low, high = 0.0, 1e3  # bisection: spikes grow with the scale
                for _ in range(40):
                    scale = (low + high) / 2
                    low, high = (low, scale) if layer(x * scale)[0].mean() > RATE else (scale, high)
                for parameter in scaled.parameters():
                    parameter *= scale
                x, _ = layer(x * scale)
            elif layer is not network.layers["readout"]:
                scaled = layer if isinstance(layer, nn.Conv2d | nn.Linear) else scaled
                x = layer(x.flatten(0, 1)).unflatten(0, (len(frames), -1))
    return network


class Loop(nn.Module):
    """snnTorch's idiom: every time step goes through the whole network."""

    def __init__(self, network: Network, spike_grad: Callable[[Tensor], Tensor]):
        super().__init__()
        self.layers = _with(network, lambda: snn.Leaky(beta=0.9, spike_grad=spike_grad))

    def forward(self, frames: Tensor) -> Tensor:
        states = {layer: layer.init_leaky().to(frames.device) for layer in self.layers if isinstance(layer, snn.Leaky)}
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

    def __init__(self, network: Network, neuron: Callable[[], nn.Module],
                 before: Callable[[nn.Module], None] = lambda network: None):
        super().__init__()
        self.layers = _with(network, neuron)
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


def _with(network: Network, neuron: Callable[[], nn.Module]) -> nn.ModuleList:
    """Copies of the network's layers, its neurons replaced."""
    return nn.ModuleList(neuron() if isinstance(layer, Leaky) else deepcopy(layer)
                         for layer in network.layers.values())


def spikingjelly(network: Network) -> nn.Module:
    """Multi-step LIF with the same recurrence (beta = 1 - 1/tau, soft reset, reset detached)."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    return Sequence(network, lambda: neuron.LIFNode(tau=10.0, decay_input=False, v_reset=None, detach_reset=True,
                                                    step_mode="m", surrogate_function=surrogate.ATan(2 * SLOPE)),
                    functional.reset_net)


def norse(network: Network) -> nn.Module:
    """`LIFBox` (no synaptic current) lifted over time, with a leak of 0.9 a step; its reset is to zero."""
    library = importlib.import_module("norse.torch")
    parameters = library.LIFBoxParameters(tau_mem_inv=torch.tensor(100.0), v_th=torch.tensor(1.0))
    return Sequence(network, lambda: library.Lift(library.LIFBoxCell(parameters)))


def ours(network: Network, mode: str) -> Network:
    """This project's network with the default neurons."""
    network = deepcopy(network)
    network.set_mode(mode == "hard", Surrogate("arctan" if mode == "hard" else mode))
    return network


PHI = {"hard": snn.surrogate.atan(alpha=2 * SLOPE),
       "arctan": lambda z: torch.atan(torch.pi * SLOPE * z) / torch.pi + 0.5,
       "sigmoid": lambda z: torch.sigmoid(4 * SLOPE * z)}


def variants(network: Network, modes: tuple[str, ...]) -> tuple[dict[tuple[str, str], tuple[nn.Module, str, bool]],
                                                                list[str]]:
    """(mode, name) -> network, HARDSPIKE_KERNEL, whether in bf16; and what was left out and why."""
    found = {("-", NONE): (Sequence(network, nn.Identity), "", False)}
    for mode in modes:
        mine = ours(network, mode)
        found |= {(mode, SNNTORCH): (Loop(network, PHI[mode]), "", False), (mode, "ours"): (mine, "", False),
                  (mode, "ours, torch"): (mine, "torch", False), (mode, "ours, bf16"): (mine, "", True)}
    absent = []
    for peer in (spikingjelly, norse):
        try:
            found["hard", peer.__name__] = peer(network), "", False
        except ImportError as error:
            absent.append(f"{peer.__name__} left out: {error}")
    return found, absent


def measure(layers: str, steps: int, batch: int, rounds: int, modes: tuple[str, ...] = tuple(PHI),
            device: str = "cpu") -> tuple[list[dict], list[str]]:
    """One row a variant, and what was left out and why."""
    torch.manual_seed(0)
    frames = (torch.rand(steps, batch, *SHAPE) < DENSITY).float().to(device)
    labels = torch.randint(CLASSES, (batch,)).to(device)
    candidates, absent = variants(reference(layers, frames), modes)
    for network, *_ in candidates.values():
        network.to(device)

    def step(network: nn.Module, name: str, low: bool) -> float:
        network.zero_grad(set_to_none=True)
        with patch.dict(os.environ, HARDSPIKE_KERNEL=name):
            began = now(device)
            with torch.autocast(device, torch.bfloat16, enabled=low):
                logits = network(frames)
            nn.functional.cross_entropy(logits.float(), labels).backward()
            return now(device) - began

    times = {key: [] for key in candidates}
    warm = min(2, rounds)
    for _ in progress(range(rounds + warm), f"{layers}, T={steps}, B={batch}"):
        for key, variant in candidates.items():
            times[key].append(step(*variant))
    times = {key: found[warm:] for key, found in times.items()}

    def ratio(slow: tuple[str, str], fast: tuple[str, str]) -> list[float]:
        return sorted(a / b for a, b in zip(times[slow], times[fast], strict=True))

    rows = []
    for key, found in times.items():
        mode, name = key
        against = ratio((mode if mode != "-" else "hard", SNNTORCH), key)
        rows.append({"network": layers, "T": steps, "B": batch, "mode": mode, "variant": name,
                     "ms": 1e3 * statistics.median(found), "speed / snnTorch": statistics.median(against),
                     "10 %": against[len(against) // 10], "90 %": against[len(against) * 9 // 10],
                     "time / no neurons": statistics.median(ratio(key, ("-", NONE)))})
    return rows, absent


def memory_bound(steps: int, neurons: int, rounds: int, mode: str) -> list[dict]:
    """The scan of one layer on a GPU, forward and backward: our kernels, torch code, and a copy of as many bytes.

    Forward reads currents and writes spikes and membranes; backward reads membranes and a gradient and writes one:
    three passes over (T, neurons) each, which nothing that keeps membranes for the backward can do without. Each is
    asked for AT_ONCE times in a row, as a training step asks for the next layer before the GPU is done with one.
    """
    torch.manual_seed(0)
    current = torch.randn(steps, neurons, device="cuda", requires_grad=True)
    grad = torch.randn(steps, neurons, device="cuda")
    layer = Leaky(0.9, 1.0, surrogate=Surrogate("arctan" if mode == "hard" else mode), hard=mode == "hard").to("cuda")
    source, target = (torch.empty(3 * current.numel() // 2, device="cuda") for _ in range(2))

    def scan(kernel: str) -> tuple[float, float]:
        with patch.dict(os.environ, HARDSPIKE_KERNEL=kernel):
            began = now("cuda")
            for _ in range(AT_ONCE):
                spikes, _ = layer(current)
            between = now("cuda")
            for _ in range(AT_ONCE):
                torch.autograd.grad(spikes, current, grad, retain_graph=True)
            return (between - began) / AT_ONCE, (now("cuda") - between) / AT_ONCE

    def copy() -> tuple[float, float]:
        began = now("cuda")
        for _ in range(AT_ONCE):
            target.copy_(source)
        return ((now("cuda") - began) / AT_ONCE,) * 2

    candidates = {"copy": copy, "ours": lambda: scan(""), "ours, torch": lambda: scan("torch")}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds + 3):  # the first compile and allocate
        for name, once in candidates.items():
            times[name].append(once())
    medians = {name: [statistics.median(column) for column in zip(*found[3:], strict=True)]
               for name, found in times.items()}
    size = 3 * current.numel() * current.element_size()
    return [{"T": steps, "neurons": neurons, "mode": mode, "variant": name, "forward ms": 1e3 * forward,
             "backward ms": 1e3 * backward, "forward GB/s": size / forward / 1e9,
             "backward GB/s": size / backward / 1e9,
             "forward / copy": medians["copy"][0] / forward, "backward / copy": medians["copy"][1] / backward}
            for name, (forward, backward) in medians.items()]


def neuron(layers: str = "conv", steps: int = 16, batch: int = 64, threads: int = 2, rounds: int = 30,
           device: Device = "cpu", json: Path | None = None) -> None:
    """Time a training step of each variant in hard and smooth modes.

    Args:
        layers: the network, as in `trainer fit --network.layers`
        steps: time steps T
        batch: recordings B
        threads: threads of torch
        rounds: rounds that are timed
        device: cpu or cuda
        json: file for the table's values
    """
    _table([(layers, steps, batch, rounds)], threads, tuple(PHI), device, json)


def sizes(threads: int = 2, device: Device = "cpu", json: Path | None = None) -> None:
    """Time a training step in hard mode at several sizes, up to a VGG.

    Args:
        threads: threads of torch
        device: cpu or cuda
        json: file for the table's values
    """
    _table(list(SIZES), threads, ("hard",), device, json)


def _table(configurations: list[tuple[str, int, int, int]], threads: int, modes: tuple[str, ...], device: str,
           json: Path | None) -> None:
    choose_device(device)
    torch.set_num_threads(threads)
    rows, left_out = [], []
    for configuration in configurations:
        found, left_out = measure(*configuration, modes, device)
        rows += found
    print_table(rows, f"training step, {where(device, threads)}; {DENSITY:.0%} of the input and {RATE:.0%} of each "
                f"layer's neurons active in hard mode; ours: {_ours(device)}", json_file=json)
    print(*left_out, sep="\n", end="\n" * bool(left_out))


def scan(rounds: int = 30, json: Path | None = None) -> None:
    """Time the neurons of one layer on a GPU, forward and backward, against copying as many bytes.

    Args:
        rounds: rounds that are timed
        json: file for the table's values
    """
    choose_device("cuda")
    rows = [row for steps, neurons in SCANS for mode in ("hard", "sigmoid")
            for row in memory_bound(steps, neurons, rounds, mode)]
    print_table(rows, f"one layer's neurons, {where('cuda', 0)}; ours: {_ours('cuda')}", json_file=json)


def _ours(device: str) -> str:
    """What runs this project's neurons there."""
    return implementation(torch.zeros(1, 1, device=device),
                          *(torch.tensor(x, device=device) for x in (0.9, 1.0)))


if __name__ == "__main__":
    sys.exit(run("benchmarks.neuron", {"measure": neuron, "sizes": sizes, "scan": scan}))
