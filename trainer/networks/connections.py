"""Currents that several layers of neurons hear, as connections of their own.

E-SpikeFormer's shortcuts add currents: what a convolution gives goes on to every layer of neurons behind the shortcut.
A chip has synapses for each of them, with weights in the units of its neurons, and so has a network in integers. Of one
convolution they begin alike, and are trained apart.
"""

import copy
from collections import Counter

from torch import nn

from trainer.networks.espikeformer import before_attention
from trainer.networks.network import Network
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky

FRAMES = "frames"
"""The layer that hands the frames on, where more than one convolution hears them."""


def counts(network: Network) -> bool:
    """Whether its neurons give whole numbers."""
    return any(isinstance(neuron, LevelLeaky) for neuron in network.neurons().values())


def own_connections(network: Network) -> Network:
    """`network`, its convolutional stages folded, with a convolution for every pair of one and neurons that hear it.

    What attends, and all behind it, is as it was.

    Args:
        network: one that counts; the modules of layers that one layer of neurons hears are taken over.
    """
    names = before_attention(network)
    heard: dict[str, tuple[str, ...]] = {}  # a current -> the convolutions that it is the sum of
    source: dict[str, str] = {}  # a convolution -> what it hears
    given, before = {}, FRAMES  # neurons -> the convolutions that they hear
    for name in names:
        layer, sources = network.layers[name], network.sums.get(name, (before,))
        if isinstance(layer, Leaky):
            given[name] = heard[sources[0]]
        elif isinstance(layer, nn.Conv2d):
            source[name], heard[name] = sources[0], (name,)
        else:
            heard[name] = tuple(linear for each in sources for linear in heard[each])
        before = name
    uses = Counter(linear for found in given.values() for linear in found)
    layers: dict[str, nn.Module] = {FRAMES: nn.Identity()}
    sums: dict[str, tuple[str, ...]] = {}
    for neurons, found in given.items():
        sums[neurons] = tuple(linear if uses[linear] == 1 else f"{linear}_{neurons}" for linear in found)
        for linear, name in zip(found, sums[neurons], strict=True):
            layers[name], sums[name] = copy.deepcopy(network.layers[linear]), (source[linear],)
        layers[neurons] = network.layers[neurons]
    behind = [name for name in network.layers if name not in names]
    layers |= {name: network.layers[name] for name in behind}
    return Network(layers, network.readout, sums | network.sums_of(behind))
