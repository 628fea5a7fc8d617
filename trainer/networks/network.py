"""Networks from a short description, run layer-major: each linear layer sees all time steps at once."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hardspike import UsageError, nearest, require_memory, shown
from trainer.layers.norm import batch_norm
from trainer.layers.sparse import linear
from trainer.native import hooked
from trainer.neurons.leaky import Leaky
from trainer.neurons.spikes import Surrogate

PRESETS = {
    "conv": "12c5s2-32c3s2-128",
    "conv_pool": "16c3-ap2-48c3-ap2-128",
    "mlp": "256-128",
    # ResNet-18 of He et al. 2016 with the stem that CIFAR takes; ResNet-19 of Zheng et al. 2021
    "resnet18": "64c3-64r-64r-128rs2-128r-256rs2-256r-512rs2-512r-ap",
    "resnet19": "128c3-128r-128r-128r-256rs2-256r-256r-512rs2-512r-ap-256",
    "vgg": "64c3-128c3-ap2-256c3-256c3-ap2-512c3-512c3-ap2-512c3-512c3-ap2-512",
    # VGGSNN of Deng et al. 2022, for CIFAR10-DVS
    "vggsnn": "64c3-128c3-ap2-256c3-256c3-ap2-512c3-512c3-ap2-512c3-512c3-ap2",
}
RESETS = ("subtract", "zero")
READOUTS = ("linear", "spikes")


@dataclass
class NetworkConfig:
    """The network and its neurons.

    Args:
        layers: conv, conv_pool, mlp, resnet18, resnet19, vgg, vggsnn, or layers joined by '-': 12c5s2 is a
            convolution (12 channels, kernel 5, stride 2, padding kernel//2 unless p0 is added), 64rs2 a residual block
            (64 channels, stride 2), ap2 average pooling, ap the average of the whole picture, mp2 max pooling (NIR and
            the chips cannot hold it), 128 a dense layer
        beta: leak per time step; the first one where it is learned
        learn_beta: one learned leak a layer, clamped to [0, 1] as in snnTorch; beyond either end it gets no gradient.
            The PLIF of Fang et al. 2021 writes the leak as 1 - sigmoid(a), which reaches neither end, and scales the
            input by sigmoid(a), which here the weights have to learn
        threshold: firing threshold
        reset: subtract (SAST eq. 4) or zero (Loihi 1 and stock Lava hold only this)
        detach_reset: no gradient through the reset, as in snnTorch; wrong for a smooth forward
        batch_norm: batch normalisation after each convolution and hidden dense layer; folded at export. As in tdBN
            (Zheng et al. 2021), its statistics are taken over batch and time together, and its gain begins
            at the threshold, at threshold/sqrt(2) where a residual branch and a shortcut meet
        bias: biases in layers without batch normalisation
        gain: factor on the initial weights
        readout: linear (on time-averaged spikes, SAST eq. 6) or spikes (count of a spiking output layer)
        surrogate: smooth spike function (forward or backward, as the method says)
    """

    layers: str = "conv"
    beta: float = 0.9
    learn_beta: bool = False
    threshold: float = 1.0
    reset: str = "subtract"
    detach_reset: bool = False
    batch_norm: bool = False
    bias: bool = True
    gain: float = 1.0
    readout: str = "linear"
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self):
        for key, value, known in (("reset", self.reset, RESETS), ("readout", self.readout, READOUTS)):
            if value not in known:
                raise UsageError(f"{key} '{value}' is unknown{nearest(value, known)}; known: {', '.join(known)}")
        if not 0 <= self.beta <= 1:
            raise UsageError(f"beta {self.beta}: a leak lies in [0, 1]")
        for key, value in (("threshold", self.threshold), ("gain", self.gain)):
            if not 0 < value < float("inf"):
                raise UsageError(f"{key} {value}: must be positive and finite")


class Network(nn.Module):
    """Named layers over (T, B, ...) frames.

    Linear layers and pooling are run once on T*B samples; `Leaky` layers scan over T.

    Args:
        layers: name -> module, in order.
        readout: "linear": the last layer is a linear readout of time-averaged spikes; "spikes": the last layer is a
            spiking one, whose spikes are counted.
        sums: name -> the earlier layers whose outputs sum to the layer's input; all others take the output of the layer
            before them.
    """

    def __init__(self, layers: dict[str, nn.Module], readout: str, sums: dict[str, tuple[str, ...]] | None = None):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.readout = readout
        self.sums = sums or {}
        self.after = dict(pairwise(layers))

    def forward(self, frames: Tensor, record: dict[str, Tensor] | None = None,
                membranes: dict[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes) of frames (T, B, C, H, W).

        Spikes (T, B, ...) of each Leaky layer go into `record`, its membrane before the reset into `membranes`.
        """
        x = frames
        steps = len(frames)
        summands = {source for sources in self.sums.values() for source in sources}
        outputs: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            if name in self.sums:
                x = reduce(torch.add, (outputs[source] for source in self.sums[name]))
            if isinstance(layer, Leaky):
                x, membrane = layer(x)
                if record is not None:
                    record[name] = x
                if membranes is not None:
                    membranes[name] = membrane
            elif self.readout == "linear" and name == "readout":
                return linear(layer, x.mean(0))
            elif self._read_as_it_lies(name) and name not in summands:
                continue
            elif isinstance(layer, _BatchNorm):
                x = batch_norm(layer, x.flatten(0, 1)).unflatten(0, (steps, -1))
            else:
                x = linear(layer, x.flatten(0, 1)).unflatten(0, (steps, -1))
            if name in summands:
                outputs[name] = x
        return x.sum(0)

    def _read_as_it_lies(self, name: str) -> bool:
        """Whether the layer flattens pictures for a dense layer, as `linear` does by itself at less cost."""
        layer = self.layers[name]
        return (type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1) and not hooked(layer)
                and name in self.after and type(self.layers[self.after[name]]) is nn.Linear)

    def neurons(self) -> dict[str, Leaky]:
        """The spiking layers by name, in order."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, Leaky)}

    def set_mode(self, hard: bool | None = None, surrogate: Surrogate | None = None) -> None:
        """Swap the spike function of every layer: H or phi (Definition II.6 of SAST), and which phi."""
        for neuron in self.neurons().values():
            neuron.hard = neuron.hard if hard is None else hard
            neuron.surrogate = surrogate or neuron.surrogate

    @contextmanager
    def mode(self, hard: bool) -> Iterator[None]:
        """Hard or smooth spikes within the block."""
        before = {neuron: neuron.hard for neuron in self.neurons().values()}
        self.set_mode(hard)
        try:
            yield
        finally:
            for neuron, value in before.items():
                neuron.hard = value


_CONV = re.compile(r"(\d+)c(\d+)(?:s(\d+))?(?:p(\d+))?")
_RESIDUAL = re.compile(r"(\d+)r(?:s(\d+))?")
_POOL = re.compile(r"([am])p(\d*)")
_MEETING = 1 / math.sqrt(2)
"""tdBN's alpha: two branches of this standard deviation sum to one of the threshold's."""


LARGEST_NUMBER = 1 << 20
"""Channels, kernel, stride, padding, neurons of a layer."""
LARGEST_PICTURE = 1 << 28
"""Values that a layer gives in one step."""
MOST_LAYERS = 1000


def build(config: NetworkConfig, shape: tuple[int, int, int], classes: int, most: int | None = None) -> Network:
    """The network of `config` for frames of `shape` (C, H, W).

    Args:
        most: parameters that it may have; without it what memory holds, gradients and the optimizer's state beside.

    Raises:
        UsageError: a layer that cannot be read, or that shrinks the picture to nothing; more parameters than `most`.
        HardspikeError: memory does not hold it.
    """
    builder = _Builder(config, tuple(shape), most)
    words = PRESETS.get(config.layers, config.layers).split("-")
    if len(words) > MOST_LAYERS:
        raise UsageError(f"layers: {len(words)} of them; at most {MOST_LAYERS}")
    for index, word in enumerate(words, 1):
        builder.add(str(index), word)
        if min(builder.shape) < 1:
            raise UsageError(f"layers {shown(config.layers)}: {word} leaves a picture of {builder.shape}; shrink "
                             "kernels, strides")
        if math.prod(builder.shape) > LARGEST_PICTURE:
            raise UsageError(f"layers {shown(config.layers)}: {word} gives {builder.shape}, more than "
                             f"{LARGEST_PICTURE} values a step; take fewer channels, less padding")
    builder.dense("readout", classes)
    if config.readout == "spikes":
        builder.spiking(str(len(words) + 1))
    network = Network(builder.layers, config.readout, builder.sums)
    if config.gain != 1:
        with torch.no_grad():
            for layer in network.layers.values():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.mul_(config.gain)
    return network


class _Builder:
    """Layers added one after the other; `shape` is that of the last one's output."""

    def __init__(self, config: NetworkConfig, shape: tuple[int, ...], most: int | None):
        self.config, self.shape, self.most = config, shape, most
        self.parameters = 0
        self.layers: dict[str, nn.Module] = {}
        self.sums: dict[str, tuple[str, ...]] = {}

    def add(self, index: str, word: str) -> None:
        """One word of the description."""
        numbers = re.findall("[0-9]+", word)
        if not word.isascii() or any(len(number) > 9 or int(number) > LARGEST_NUMBER for number in numbers):
            raise UsageError(f"layers {shown(self.config.layers)}: cannot take {shown(word)}; numbers go up to "
                             f"{LARGEST_NUMBER}")
        picture = _CONV.fullmatch(word) or _RESIDUAL.fullmatch(word) or _POOL.fullmatch(word)
        if picture and len(self.shape) != 3:
            raise UsageError(f"layers {shown(self.config.layers)}: {word} comes after a dense layer; put convolutions "
                             "first")
        if picture and 0 in (int(size) for size in picture.groups()[:3] if size and size.isdigit()):
            raise UsageError(f"layer '{word}': channels, kernel, stride and pooling are 1 or more")
        if match := _CONV.fullmatch(word):
            channels, kernel, stride = (int(match[i] or 1) for i in (1, 2, 3))
            self.convolution(index, channels, kernel, stride, int(match[4]) if match[4] else kernel // 2)
            self.spiking(index)
        elif match := _RESIDUAL.fullmatch(word):
            if not self.layers:
                raise UsageError(f"layers {shown(self.config.layers)}: {word} comes first, and its shortcut would add "
                                 "the frames to a current; put a convolution before it")
            self.residual(index, int(match[1]), int(match[2] or 1))
        elif match := _POOL.fullmatch(word):
            size = (int(match[2]),) * 2 if match[2] else self.shape[1:]
            self.layers[f"pool{index}"] = (nn.AvgPool2d if match[1] == "a" else nn.MaxPool2d)(size)
            self.shape = (self.shape[0], *(n // k for n, k in zip(self.shape[1:], size, strict=True)))
        elif word.isdigit() and int(word):
            self.dense(index, int(word))
            self.spiking(index)
        else:
            raise UsageError(f"layers {shown(self.config.layers)}: cannot read {shown(word)}{nearest(word, PRESETS)}; "
                             f"presets: {', '.join(PRESETS)}; or layers such as 12c5s2-ap2-128")

    def convolution(self, index: str, channels: int, kernel: int, stride: int, padding: int,
                    alpha: float = 1.0) -> None:
        """Convolution and its normalisation."""
        self.room(f"{channels}c{kernel}", channels * self.shape[0] * kernel**2)
        self.layers[f"conv{index}"] = nn.Conv2d(self.shape[0], channels, kernel, stride, padding,
                                                bias=self.config.bias and not self.config.batch_norm)
        if self.config.batch_norm:
            self.normalisation(index, nn.BatchNorm2d(channels), alpha)
        self.shape = (channels, *((n + 2 * padding - kernel) // stride + 1 for n in self.shape[1:]))

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
        if self.most is None and self.parameters > LARGEST_NUMBER:
            require_memory(16 * self.parameters, f"{label}, which with gradients and the optimizer's state",
                           "take smaller layers")

    def residual(self, index: str, channels: int, stride: int) -> None:
        """The basic block of Zheng et al. 2021, fig. 5: currents of two branches add in front of its last neurons.

        One branch is conv3 - LIF - conv3; the other one conv1 where it changes channels or size, else the spikes (or
        averages of them) that come in, as they are.
        """
        before, given = next(reversed(self.layers)), self.shape
        self.convolution(f"{index}a", channels, 3, stride, 1)
        self.spiking(f"{index}a")
        self.convolution(f"{index}b", channels, 3, 1, 1, _MEETING)
        branches = [next(reversed(self.layers)), before]
        if stride != 1 or given[0] != channels:
            self.sums[f"conv{index}s"], self.shape = (before,), given
            self.convolution(f"{index}s", channels, 1, stride, 0, _MEETING)
            branches[1] = next(reversed(self.layers))
        self.sums[f"lif{index}"] = tuple(branches)
        self.spiking(index)

    def spiking(self, index: str) -> None:
        """Neurons."""
        config = self.config
        self.layers[f"lif{index}"] = Leaky(config.beta, config.threshold, config.surrogate,
                                           learn_beta=config.learn_beta, reset_mechanism=config.reset,
                                           detach_reset=config.detach_reset)

    def normalisation(self, index: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, alpha: float = 1.0) -> None:
        """Batch normalisation to the standard deviation alpha*threshold (tdBN)."""
        nn.init.constant_(norm.weight, alpha * self.config.threshold)
        self.layers[f"norm{index}"] = norm
