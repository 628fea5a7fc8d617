"""Networks from a short description, run layer-major: each linear layer sees all time steps at once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hardspike import UsageError, nearest
from trainer.neurons import Leaky
from trainer.spikes import Surrogate

PRESETS = {
    "conv": "12c5s2-32c3s2-128",
    "conv_pool": "16c3-ap2-48c3-ap2-128",
    "mlp": "256-128",
    "vgg": "64c3-128c3-ap2-256c3-256c3-ap2-512c3-512c3-ap2-512c3-512c3-ap2-512",
}
RESETS = ("subtract", "zero")
READOUTS = ("linear", "spikes")


@dataclass
class NetworkConfig:
    """The network and its neurons.

    Args:
        layers: conv, conv_pool, mlp, vgg, or layers joined by '-': 12c5s2 is a convolution (12 channels, kernel 5,
            stride 2, padding kernel//2 unless p0 is added), ap2 average pooling, mp2 max pooling (NIR and the chips
            cannot hold it), 128 a dense layer
        beta: leak per time step
        threshold: firing threshold
        reset: subtract (SAST eq. 4) or zero (Loihi 1 and stock Lava hold only this)
        detach_reset: no gradient through the reset, as in snnTorch; wrong for a smooth forward
        batch_norm: batch normalisation after each convolution and hidden dense layer; folded at export
        bias: biases in layers without batch normalisation
        gain: factor on the initial weights
        readout: linear (on time-averaged spikes, SAST eq. 6) or spikes (count of a spiking output layer)
        surrogate: smooth spike function (forward or backward, as the method says)
    """

    layers: str = "conv"
    beta: float = 0.9
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
    """A chain of named layers over (T, B, ...) frames.

    Linear layers and pooling are run once on T*B samples; `Leaky` layers scan over T.

    Args:
        layers: name -> module, in order.
        readout: "linear": the last layer is a linear readout of time-averaged spikes; "spikes": the last layer is a
            spiking one, whose spikes are counted.
    """

    def __init__(self, layers: dict[str, nn.Module], readout: str):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.readout = readout

    def forward(self, frames: Tensor, record: dict[str, Tensor] | None = None,
                membranes: dict[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes) of frames (T, B, C, H, W).

        Spikes (T, B, ...) of each Leaky layer go into `record`, its membrane before the reset into `membranes`.
        """
        x = frames
        steps = len(frames)
        for name, layer in self.layers.items():
            if isinstance(layer, Leaky):
                x, membrane = layer(x)
                if record is not None:
                    record[name] = x
                if membranes is not None:
                    membranes[name] = membrane
            elif self.readout == "linear" and name == "readout":
                return layer(x.mean(0))
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (steps, -1))
        return x.sum(0)

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
_POOL = re.compile(r"([am])p(\d+)")


def _positive(word: str, *sizes: int) -> None:
    if min(sizes) < 1:
        raise UsageError(f"layer '{word}': channels, kernel, stride and pooling are 1 or more")


def build(config: NetworkConfig, shape: tuple[int, int, int], classes: int) -> Network:
    """The network of `config` for frames of `shape` (C, H, W).

    Raises:
        UsageError: a layer that cannot be read, or that shrinks the picture to nothing.
    """
    description = PRESETS.get(config.layers, config.layers)
    layers: dict[str, nn.Module] = {}
    shape = tuple(shape)
    words = description.split("-")

    def spiking(index: int) -> None:
        layers[f"lif{index}"] = Leaky(config.beta, config.threshold, config.surrogate, reset_mechanism=config.reset,
                                      detach_reset=config.detach_reset)

    def dense(index: int | str, size: int) -> tuple[int]:
        if len(shape) == 3:
            layers["flatten"] = nn.Flatten()
        inputs = int(torch.Size(shape).numel())
        normalised = config.batch_norm and index != "readout"
        name = index if index == "readout" else f"dense{index}"
        layers[name] = nn.Linear(inputs, size, bias=config.bias and not normalised)
        if normalised:
            layers[f"norm{index}"] = nn.BatchNorm1d(size)
        return (size,)

    for index, word in enumerate(words, 1):
        if match := _CONV.fullmatch(word):
            if len(shape) != 3:
                raise UsageError(f"layers '{description}': {word} comes after a dense layer; put convolutions first")
            channels, kernel, stride = (int(match[i] or 1) for i in (1, 2, 3))
            _positive(word, channels, kernel, stride)
            padding = int(match[4]) if match[4] else kernel // 2
            layers[f"conv{index}"] = nn.Conv2d(shape[0], channels, kernel, stride, padding,
                                               bias=config.bias and not config.batch_norm)
            if config.batch_norm:
                layers[f"norm{index}"] = nn.BatchNorm2d(channels)
            side = [(n + 2 * padding - kernel) // stride + 1 for n in shape[1:]]
            shape = (channels, *side)
            spiking(index)
        elif match := _POOL.fullmatch(word):
            size = int(match[2])
            _positive(word, size)
            layers[f"pool{index}"] = (nn.AvgPool2d if match[1] == "a" else nn.MaxPool2d)(size)
            shape = (shape[0], *(n // size for n in shape[1:]))
        elif word.isdigit() and int(word):
            shape = dense(index, int(word))
            spiking(index)
        else:
            raise UsageError(f"layers '{config.layers}': cannot read '{word}'{nearest(word, PRESETS)}; "
                             f"presets: {', '.join(PRESETS)}; or layers such as 12c5s2-ap2-128")
        if min(shape) < 1:
            raise UsageError(f"layers '{description}': {word} leaves a picture of {shape}; shrink kernels, strides")
    dense("readout", classes)
    if config.readout == "spikes":
        spiking(len(words) + 1)
    network = Network(layers, config.readout)
    if config.gain != 1:
        with torch.no_grad():
            for layer in network.layers.values():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.mul_(config.gain)
    return network
