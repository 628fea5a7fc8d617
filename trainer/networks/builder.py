"""A network from its configuration."""

import math

import torch
from torch import nn

from hardspike import UsageError, require_memory, shown
from trainer.networks.config import (
    LAYOUTS,
    Convolution,
    Dense,
    NetworkConfig,
    Pool,
    Recurrent,
    Residual,
    Word,
    read_layers,
)
from trainer.networks.espikeformer import espikeformer
from trainer.networks.network import Network
from trainer.networks.pyramid import Feature, add_pyramid, finest_first
from trainer.neurons.leaky import Leaky
from trainer.neurons.recurrent import Recurrent as RecurrentLeaky

_MEETING = 1 / math.sqrt(2)
"""tdBN's alpha: two branches of this standard deviation sum to one of the threshold's."""


LARGEST_PICTURE = 1 << 28
"""Values that a layer gives in one step."""
FEW = 1 << 20
"""Parameters that any machine holds."""


def build(config: NetworkConfig, shape: tuple[int, int, int], classes: int, most: int | None = None) -> Network:
    """The network of `config` for frames of `shape` (C, H, W).

    Args:
        most: parameters that it may have; without it what memory holds, gradients and the optimizer's state beside.

    Raises:
        UsageError: a layer that cannot be read, or that shrinks the picture to nothing; more parameters than `most`.
        HardspikeError: memory does not hold it.
    """
    if config.layers in LAYOUTS:
        return _scaled(espikeformer(config, shape, classes, most), config.gain)
    builder = _Builder(config, tuple(shape), most)
    layers, features = read_layers(config.layers), []
    for index, (word, layer) in enumerate(layers, 1):
        builder.add(str(index), layer)
        if min(builder.shape) < 1:
            raise UsageError(f"layers {shown(config.layers)}: {word} leaves a picture of {builder.shape}; shrink "
                             "kernels, strides")
        if math.prod(builder.shape) > LARGEST_PICTURE:
            raise UsageError(f"layers {shown(config.layers)}: {word} gives {builder.shape}, more than "
                             f"{LARGEST_PICTURE} values a step; take fewer channels, less padding")
        if isinstance(layer, Convolution | Residual):
            features.append(Feature(next(reversed(builder.layers)), builder.shape, spikes=True))
    if config.pyramid:
        add_pyramid(builder, finest_first(features), config.pyramid, classes, tuple(shape[1:]))
        return _scaled(Network(builder.layers, config.readout, builder.sums), config.gain)
    builder.dense("readout", classes)
    if config.readout == "spikes":
        builder.spiking(str(len(layers) + 1))
    return _scaled(Network(builder.layers, config.readout, builder.sums), config.gain)


def _scaled(network: Network, gain: float) -> Network:
    """The network, its initial weights times `gain`."""
    if gain != 1:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.mul_(gain)
    return network


class _Builder:
    """Layers added one after the other; `shape` is that of the last one's output."""

    def __init__(self, config: NetworkConfig, shape: tuple[int, ...], most: int | None):
        self.config, self.shape, self.most = config, shape, most
        self.parameters = 0
        self.layers: dict[str, nn.Module] = {}
        self.sums: dict[str, tuple[str, ...]] = {}

    def add(self, index: str, layer: Word) -> None:
        """One layer of the description."""
        match layer:
            case Convolution():
                self.convolution(index, layer)
                self.spiking(index)
            case Residual():
                self.residual(index, layer)
            case Pool():
                size = (layer.size,) * 2 if layer.size else self.shape[1:]
                self.layers[f"pool{index}"] = (nn.AvgPool2d if layer.average else nn.MaxPool2d)(size)
                self.shape = (self.shape[0], *(n // k for n, k in zip(self.shape[1:], size, strict=True)))
            case Dense():
                self.dense(index, layer.size)
                self.spiking(index)
            case Recurrent():
                self.dense(index, layer.size)
                self.room(f"{layer.size}rec", layer.size**2)
                self.spiking(index, layer.size)

    def convolution(self, index: str, layer: Convolution, alpha: float = 1.0) -> None:
        """Convolution and its normalisation."""
        kernel, stride, padding = layer.kernel, layer.stride, layer.padding
        self.room(f"{layer.channels}c{kernel}", layer.channels * self.shape[0] * kernel**2)
        self.layers[f"conv{index}"] = nn.Conv2d(self.shape[0], layer.channels, kernel, stride, padding,
                                                bias=self.config.bias and not self.config.batch_norm)
        if self.config.batch_norm:
            self.normalisation(index, nn.BatchNorm2d(layer.channels), alpha)
        self.shape = (layer.channels, *((n + 2 * padding - kernel) // stride + 1 for n in self.shape[1:]))

    def dense(self, index: str, size: int) -> None:
        """Dense layer, and its normalisation where it is no readout."""
        if len(self.shape) == 3:
            self.layers["flatten"] = nn.Flatten()
        self.room(str(size), size * math.prod(self.shape))
        normalised = self.config.batch_norm and index != "readout"
        name = index if index == "readout" else f"dense{index}"
        self.layers[name] = nn.Linear(math.prod(self.shape), size, bias=self.config.bias and not normalised)
        if normalised:
            self.normalisation(index, nn.BatchNorm1d(size))
        self.shape = (size,)

    def room(self, word: str, parameters: int) -> None:
        """Refuse a layer of so many parameters before it is made, where there is no room for it."""
        self.parameters += parameters
        label = f"layers {shown(self.config.layers)}: up to {word} they have {self.parameters} parameters"
        if self.most is not None and self.parameters > self.most:
            raise UsageError(f"{label}, where {self.most} are there; the description is of another network")
        if self.most is None and self.parameters > FEW:
            require_memory(16 * self.parameters, f"{label}, which with gradients and the optimizer's state",
                           "take smaller layers")

    def residual(self, index: str, layer: Residual) -> None:
        """The basic block of Zheng et al. 2021, fig. 5: currents of two branches add in front of its last neurons.

        One branch is conv3 - LIF - conv3; the other one conv1 where it changes channels or size, else the spikes (or
        averages of them) that come in, as they are.
        """
        before, given, channels, stride = next(reversed(self.layers)), self.shape, layer.channels, layer.stride
        self.convolution(f"{index}a", Convolution(channels, 3, stride, 1))
        self.spiking(f"{index}a")
        self.convolution(f"{index}b", Convolution(channels, 3, 1, 1), _MEETING)
        branches = [next(reversed(self.layers)), before]
        if stride != 1 or given[0] != channels:
            self.sums[f"conv{index}s"], self.shape = (before,), given
            self.convolution(f"{index}s", Convolution(channels, 1, stride, 0), _MEETING)
            branches[1] = next(reversed(self.layers))
        self.sums[f"lif{index}"] = tuple(branches)
        self.spiking(index)

    def neurons(self, index: str) -> None:
        """Neurons, as a pyramid asks for them."""
        self.spiking(index)

    def linear(self, index: str, channels: int, kernel: int = 1) -> None:
        """A convolution that keeps the picture's size, as a pyramid asks for it."""
        self.convolution(index, Convolution(channels, kernel, 1, kernel // 2))

    def spiking(self, index: str, heard: int | None = None) -> None:
        """Neurons, `heard` of which hear each other."""
        config = self.config
        options = {"beta": config.beta, "threshold": config.threshold, "surrogate": config.surrogate,
                   "learn_beta": config.learn_beta, "reset_mechanism": config.reset,
                   "detach_reset": config.detach_reset, "plif": config.plif}
        self.layers[f"lif{index}"] = RecurrentLeaky(heard, **options) if heard else Leaky(**options)

    def normalisation(self, index: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, alpha: float = 1.0) -> None:
        """Batch normalisation to the standard deviation alpha*threshold (tdBN)."""
        nn.init.constant_(norm.weight, alpha * self.config.threshold)
        self.layers[f"norm{index}"] = norm
