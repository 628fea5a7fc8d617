"""snnTorch networks as their users write them, drawn at random: exported, read back, and run by the naive interpreter.

A network has two or three layers of any neuron, states where a user keeps them (hidden in the neurons, handed from step
to step, in attributes), its loop over time in forward, and pooling, sums and concatenations on the way. It is run in
float64 by itself; the file that `write_checked` writes has to give the same at its Output, step for step.
"""

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np
import snntorch as snn
import torch
from torch import nn

from export.nir_file import write_checked
from hardspike import HardspikeError
from targets.graph import plan, read
from tests.conform import naive

KINDS = ("Leaky", "Leaky", "Synaptic", "RLeaky", "RSynaptic")
WAYS = ("plain", "plain", "sum", "cat")


@dataclass(frozen=True)
class Layer:
    """A neuron, and how what it hears is made: from the layer before, and by `way` from the one before that."""

    kind: str
    size: int
    reset: str
    bias: bool
    way: str


class Drawn(nn.Module):
    """`held`: where states are kept: hidden (init_hidden), handed (local variables), stored (attributes)."""

    def __init__(self, layers: list[Layer], shape: tuple[int, ...], held: str, pool: bool, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.held, self.picture = held, len(shape) == 3
        self.front: nn.Module = nn.Identity()
        sizes = [shape[0]]
        if self.picture:
            conv = nn.Conv2d(shape[0], 3, 3, stride=1 + seed % 2, padding=seed % 3)
            self.front = nn.Sequential(conv, snn.Leaky(beta=0.8, reset_mechanism="zero", init_hidden=True),
                                       *([nn.AvgPool2d(2)] if pool else []), nn.Flatten())
            with torch.no_grad():
                conv.weight.mul_(3)
                probe = nn.Sequential(conv, *([nn.AvgPool2d(2)] if pool else []), nn.Flatten())
                sizes = [probe(torch.zeros(1, *shape)).shape[1]]
        self.layers, self.linear, self.neurons = layers, nn.ModuleList(), nn.ModuleList()
        for i, layer in enumerate(layers):
            fan_in = sizes[-1] + (sizes[-2] if layer.way == "cat" and i else 0)
            size = sizes[-2] if layer.way == "sum" and i else layer.size
            self.linear.append(nn.Linear(fan_in, size, bias=layer.bias))
            self.neurons.append(self.neuron(layer, size, i == len(layers) - 1))
            sizes.append(size)
        for linear in self.linear:
            linear.weight.data.mul_(4)

    def neuron(self, layer: Layer, size: int, last: bool) -> nn.Module:
        options: dict = {"beta": 0.5 + 0.4 * float(torch.rand(())), "reset_mechanism": layer.reset,
                         "threshold": 0.5 + float(torch.rand(())), "init_hidden": self.held == "hidden"}
        if "Synaptic" in layer.kind:
            options["alpha"] = 0.3 + 0.5 * float(torch.rand(()))
        if layer.kind.startswith("R"):
            options["linear_features"] = size
        return getattr(snn, layer.kind)(**options)

    def start(self) -> list:
        return [list(as_tuple(neuron.init_rleaky() if kind == "RLeaky" else neuron.init_rsynaptic()
                              if kind == "RSynaptic" else neuron.init_synaptic() if kind == "Synaptic"
                              else neuron.init_leaky()))
                for kind, neuron in ((layer.kind, n) for layer, n in zip(self.layers, self.neurons, strict=True))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [] if self.held == "hidden" else self.start()
        if self.held == "stored":
            self.states = states
        recorded = []
        for t in range(x.size(0)):
            before, now = None, self.front(x[t])
            for i, (layer, linear, neuron) in enumerate(zip(self.layers, self.linear, self.neurons, strict=True)):
                given = torch.cat([now, before], 1) if layer.way == "cat" and i else now
                current = linear(given)
                if layer.way == "sum" and i:
                    current = current + before
                before = now
                now = self.fire(neuron, current, i, states)
            recorded.append(now)
        return torch.stack(recorded)

    def fire(self, neuron: nn.Module, current: torch.Tensor, i: int, states: list) -> torch.Tensor:
        if self.held == "hidden":
            return neuron(current)
        held = self.states if self.held == "stored" else states
        if isinstance(neuron, snn.RLeaky | snn.RSynaptic):
            held[i] = list(neuron(current, *held[i]))  # the spikes are one of its states
            return held[i][0]
        spikes, *held[i] = neuron(current, *held[i])
        return spikes


def as_tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def drawn(seed: int, number: int) -> tuple[Drawn, torch.Tensor]:
    """The network of that number and what it gets: (T, B, ...), on a grid that float32 holds."""
    rng = np.random.default_rng([seed, number, 1])

    def pick(values):
        return values[int(rng.integers(len(values)))]

    layers = [Layer(pick(KINDS), int(rng.integers(2, 9)), pick(("zero", "subtract")), bool(rng.random() < 0.7),
                    pick(WAYS)) for _ in range(int(rng.integers(2, 4)))]
    shape = pick([(5,), (9,), (2, 7, 8), (1, 8, 8)])
    network = Drawn(layers, shape, pick(("hidden", "handed", "stored")), bool(rng.random() < 0.5), number)
    x = torch.from_numpy((rng.random((int(rng.integers(3, 11)), int(rng.integers(1, 4)), *shape)) < 0.5).astype(float))
    return network.eval(), x


@torch.no_grad()
def differs(seed: int, number: int) -> str:
    """How the file of a network differs from the network; empty where it does not.

    Raises:
        HardspikeError: it is refused.
    """
    network, x = drawn(seed, number)
    wanted = copy.deepcopy(network).double()
    for module in wanted.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):  # snnTorch's spikes are float32, whatever the membranes are
            module.register_forward_pre_hook(lambda module, given: (given[0].double(),))
    expected = wanted(x)
    with tempfile.TemporaryDirectory() as folder:
        write_checked(network, x.float(), Path(folder) / "net.nir")
        graph = read(Path(folder) / "net.nir")
    layout = plan(graph)
    graph = nir.NIRGraph(dict(layout.nodes), [(edge.source, edge.target) for edge in layout.edges],
                         metadata=graph.metadata, type_check=False)
    found = naive.run(graph, x.numpy(), layout.dt).output
    wrong = found.reshape(expected.shape) != expected.numpy()
    return f"{int(wrong.sum())} of {wrong.size} values at the Output" if wrong.any() else ""


def round_of(seed: int, start: int, count: int) -> tuple[dict[int, str], dict[int, str]]:
    """Differences and refusals by number."""
    finds: dict[int, str] = {}
    refused: dict[int, str] = {}
    for number in range(start, start + count):
        try:
            if said := differs(seed, number):
                finds[number] = said
        except HardspikeError as error:
            refused[number] = str(error)
    return finds, refused
