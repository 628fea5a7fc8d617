"""What neurons that count to D send: an s of 3 is three events, as on a chip, where D neurons stand for one.

Attention multiplies spike trains. Each event of k adds the events of v at its place to a row of k^T v, each event of q
one of its rows to the output, head by head; all are additions, and nothing is stored, so that they count as ACs.
"""

import nir
import numpy as np
import torch
from torch import Tensor

from eval.operations.counts import SynapseCounts
from targets.graph import Plan
from targets.graph.shapes import array
from trainer.layers.attention import Attention
from trainer.networks import Network
from trainer.neurons.levels import LevelLeaky


def network_units(network: Network) -> dict[str, float]:
    """Layer -> what one event is in its input, of those that neurons that count give theirs."""
    found = {}
    for name in network.layers:
        before = list(network.layers)[list(network.layers).index(name) - 1]
        source = network.layers[network.sums.get(name, (before,))[0]]
        if name != next(iter(network.layers)) and isinstance(source, LevelLeaky):
            found[name] = 1 / source.norm
    return found


def graph_unit(layout: Plan, name: str) -> float | None:
    """The same of a linear node: binary neurons meet in front of it, or in front of a factor for all of them."""
    sources, unit = [edge.source for edge in layout.sources(name)], 1.0
    if len(sources) == 1 and isinstance(node := layout.nodes[sources[0]], nir.Scale):
        factors = np.unique(array(node.scale))
        if len(factors) != 1 or not factors[0]:
            return None
        unit, sources = float(factors[0]), [edge.source for edge in layout.sources(sources[0])]
    elif len(sources) == 1:
        return None
    return unit if all(isinstance(layout.nodes[source], nir.Threshold) for source in sources) else None


class AttentionTally:
    """Sums over the calls of one attention, all of whose inputs are s/norm."""

    def __init__(self, layer: Attention, norm: int):
        self.layer, self.norm = layer, norm
        self.passes = self.events = self.operations = self.outputs = self.products = 0

    def add(self, given: tuple[Tensor, ...]) -> None:
        """One call on q, k, v (N, C, H, W)."""
        q, k, v = ((x * self.norm).round().to(torch.int64).flatten(2).unflatten(1, (self.layer.heads, -1))
                   for x in given)
        self.passes += len(q)
        self.events += int(q.sum() + k.sum() + v.sum())
        self.operations += int((k.sum(2) * v.sum(2)).sum()) + int(q.sum()) * v.shape[2]
        self.outputs = given[2][0].numel()
        self.products = 2 * q[0].numel() * v.shape[2]

    def counts(self, name: str) -> SynapseCounts:
        """As a layer's; `synapses` are the multiplications of a call that leaves nothing out."""
        return SynapseCounts(name, self.products, self.outputs, self.passes, self.events, self.operations, 0,
                             self.operations)


def attention_tallies(network: Network) -> dict[str, AttentionTally]:
    """An empty tally for every attention; what it multiplies are spikes of the neurons before it."""
    tallies = {}
    for name, layer in network.layers.items():
        if isinstance(layer, Attention):
            before = network.layers[network.sums[name][0]]
            assert isinstance(before, LevelLeaky), "an attention lies behind neurons with levels"
            tallies[name] = AttentionTally(layer, before.norm)
    return tallies
