"""E-SpikeFormer as a network of named layers (Yao et al. 2025, `Scaling Spike-driven Transformer with Efficient Spike
Firing Approximation Training`; the layouts that A2SG's tables 3 and 5 train).

Everything is neurons, then a linear layer, then BatchNorm; shortcuts add currents. Stage by stage:

    downsampling         [N -] conv - BN, without neurons in front of the first
    convolutional block  x += SepConv7(x);  x += N - 3x3 (c -> kc) - BN - N - 3x3 (kc -> c) - BN
    transformer block    x += SepConv3(x);  x += attention(x);  x += N - 1x1 (c -> kc) - BN - N - 1x1 (kc -> c) - BN
    SepConv              N - 1x1 (c -> 2c) - BN - N - depthwise - BN - N - 1x1 (2c -> c) - BN
    attention            y = N(x); q, k = N(BN(1x1 y)) (c), v = N(BN(1x1 y)) (4c); N(o) - 1x1 (4c -> c) - BN
    head                 mean over the picture - N, whole numbers as they are - linear; or a pyramid over what each size
                         gives last (`trainer.networks.pyramid`)

Layers are called after what they are, stage, block and place: `lif4_2q` are the neurons that give q in block 2 of stage
4, `add4_2a` the sum of currents behind its first part.
"""

import math

from torch import nn

from hardspike import UsageError, require_memory
from trainer.layers.attention import Attention
from trainer.networks.config import NetworkConfig
from trainer.networks.layouts import LAYOUTS, Stage
from trainer.networks.network import Network
from trainer.networks.pyramid import LATERAL, Feature, add_pyramid, finest_first
from trainer.neurons.levels import LevelLeaky

FEW = 1 << 20
"""Parameters that any machine holds."""
VALUES = 4
"""Channels of v for one of q and k."""


def espikeformer(config: NetworkConfig, shape: tuple[int, int, int], classes: int, most: int | None = None) -> Network:
    """The network of the layout `config.layers` for frames of `shape` (C, H, W).

    Args:
        most: parameters that it may have; without it what memory holds.

    Raises:
        UsageError: the frames are too small, or there are more parameters than `most`.
        HardspikeError: memory does not hold it.
    """
    layout = LAYOUTS[config.layers]
    made = _Layers(config, tuple(shape), most)
    features = []
    for number, stage in enumerate(layout.stages, 1):
        if number > 1:
            made.neurons(f"{number}")
        made.linear(f"{number}", stage.channels, layout.stem if number == 1 else 3, stage.stride)
        for block in range(1, stage.blocks + 1):
            _block(made, f"{number}_{block}", stage, layout.heads, layout.widening)
        features.append(Feature(made.last, made.shape, spikes=False))
    if config.pyramid:
        add_pyramid(made, finest_first(features), config.pyramid, classes, tuple(shape[1:]))
        return Network(made.layers, "linear", made.sums)
    size = made.shape[1:]
    made.layers["pool"], made.layers["flatten"] = nn.AvgPool2d(size), nn.Flatten()
    made.shape = made.shape[:1]
    made.neurons("head", norm=1)
    made.room("readout", classes * made.shape[0])
    made.layers["readout"] = nn.Linear(made.shape[0], classes, bias=config.bias)
    return Network(made.layers, "linear", made.sums)


def conv_stages(network: Network) -> Network:
    """The convolutional stages alone, the same layers: what they give are the neurons in front of the next stage; of
    layers under a pyramid, without attention, the last ones.

    Raises:
        UsageError: the network has neither attention nor a pyramid, so there is nothing to cut off.
    """
    names = before_attention(network)
    if len(names) == len(network.layers):
        if not network.labels_pixels:
            raise UsageError("conv_stages: the network has neither attention nor a pyramid; leave it out")
        names = names[:names.index(f"conv{LATERAL}")]
    return network.first(names)


def behind_stages(network: Network) -> Network | None:
    """What takes the output of `conv_stages` and gives the network's, the same layers; None under a pyramid, which
    hears several stages."""
    names = list(network.layers)[len(before_attention(network)):]
    if network.labels_pixels:
        return None
    return Network({name: network.layers[name] for name in names}, network.readout, network.sums_of(names))


def before_attention(network: Network) -> list[str]:
    """The layers before the first stage that attends, up to the neurons in front of it; all where none attends."""
    names = list(network.layers)
    first = next((name for name, layer in network.layers.items() if isinstance(layer, Attention)), None)
    return names if first is None else names[:names.index(f"lif{first.removeprefix('attention').split('_')[0]}") + 1]


class _Layers:
    """Layers added one after the other; `shape` is that of the last one's output."""

    def __init__(self, config: NetworkConfig, shape: tuple[int, ...], most: int | None):
        self.config, self.shape, self.most = config, shape, most
        self.parameters = 0
        self.layers: dict[str, nn.Module] = {}
        self.sums: dict[str, tuple[str, ...]] = {}

    @property
    def last(self) -> str:
        """Name of the layer that was added last."""
        return next(reversed(self.layers))

    def neurons(self, index: str, norm: int | None = None) -> None:
        """I-LIF, which passes s/D on, or s/norm."""
        config = self.config
        self.layers[f"lif{index}"] = LevelLeaky(config.beta, config.threshold, config.surrogate, config.levels,
                                                norm or config.levels)

    def linear(self, index: str, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        """Convolution without bias, and BatchNorm."""
        self.room(f"conv{index}", channels * self.shape[0] // groups * kernel**2)
        conv = nn.Conv2d(self.shape[0], channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.layers[f"conv{index}"], self.layers[f"norm{index}"] = conv, nn.BatchNorm2d(channels)
        self.shape = (channels, *((n + 2 * (kernel // 2) - kernel) // stride + 1 for n in self.shape[1:]))
        if min(self.shape) < 1 or math.prod(self.shape) < 1:
            raise UsageError(f"layers '{self.config.layers}': frames are too small for conv{index}; take larger ones")

    def add(self, index: str, shortcut: str) -> None:
        """The sum of the last layer's currents and those of `shortcut`."""
        self.sums[f"add{index}"] = (shortcut, self.last)
        self.layers[f"add{index}"] = nn.Identity()

    def room(self, word: str, parameters: int) -> None:
        """Refuse a layer of so many parameters before it is made, where there is no room for it."""
        self.parameters += parameters
        label = f"layers '{self.config.layers}': up to {word} they have {self.parameters} parameters"
        if self.most is not None and self.parameters > self.most:
            raise UsageError(f"{label}, where {self.most} are there; the description is of another network")
        if self.most is None and self.parameters > FEW:
            require_memory(16 * self.parameters, f"{label}, which with gradients and the optimizer's state",
                           "take a smaller layout")


def _block(made: _Layers, index: str, stage: Stage, heads: int, widening: int) -> None:
    channels, attention = stage.channels, stage.attention
    x = made.last
    for place, (width, kernel, groups) in zip("abc", ((2 * channels, 1, 1), (2 * channels, 3 if attention else 7,
                                                                            2 * channels), (channels, 1, 1)),
                                              strict=True):
        made.neurons(index + place)
        made.linear(index + place, width, kernel, groups=groups)
    made.add(f"{index}a", x)
    if attention:
        x = made.last
        _attention(made, index, channels, heads)
        made.add(f"{index}b", x)
    x = made.last
    for place, width in (("d", widening * channels), ("e", channels)):
        made.neurons(index + place)
        made.linear(index + place, width, 1 if attention else 3)
    made.add(f"{index}c", x)


def _attention(made: _Layers, index: str, channels: int, heads: int) -> None:
    if channels % heads:
        raise UsageError(f"layers '{made.config.layers}': {channels} channels do not divide into {heads} heads")
    made.neurons(f"{index}y")
    given, size = made.last, made.shape
    for place, width in (("q", channels), ("k", channels), ("v", VALUES * channels)):
        made.sums[f"conv{index}{place}"], made.shape = (given,), size
        made.linear(index + place, width)
        made.neurons(index + place)
    made.sums[f"attention{index}"] = tuple(f"lif{index}{place}" for place in "qkv")
    made.layers[f"attention{index}"] = Attention(channels, heads)
    made.neurons(f"{index}o")
    made.linear(f"{index}o", channels)
