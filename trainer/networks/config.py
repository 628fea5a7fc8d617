"""A network in words: the options of a network, the presets, and how a list of layers is read. No torch."""

import re
from dataclasses import dataclass, field

from hardspike import UsageError, choice, nearest, shown
from trainer.networks.layouts import LAYOUTS
from trainer.neurons.spikes import Surrogate

PRESETS = {
    "conv": "12c5s2-32c3s2-128",
    "conv_pool": "16c3-ap2-48c3-ap2-128",
    "mlp": "256-128",
    # ResNet-18 of He et al. 2016 with the stem that CIFAR takes; ResNet-19 of Zheng et al. 2021
    "resnet18": "64c3-64r-64r-128rs2-128r-256rs2-256r-512rs2-512r-ap",
    "resnet19": "128c3-128r-128r-128r-256rs2-256r-256r-512rs2-512r-ap-256",
    "vgg": "64c3-128c3-ap2-256c3-256c3-ap2-512c3-512c3-ap2-512c3-512c3-ap2-512",
    # VGG-16 (configuration D of Simonyan & Zisserman 2015), with the dense layers of 512 that it has on CIFAR
    "vgg16": "64c3-64c3-ap2-128c3-128c3-ap2-256c3-256c3-256c3-ap2-512c3-512c3-512c3-ap2-512c3-512c3-512c3-ap2-512-512",
    # VGGSNN of Deng et al. 2022, for CIFAR10-DVS
    "vggsnn": "64c3-128c3-ap2-256c3-256c3-ap2-512c3-512c3-ap2-512c3-512c3-ap2",
}
LARGEST_NUMBER = 1 << 20
"""Channels, kernel, stride, padding, neurons of a layer."""
MOST_LAYERS = 1000
RESETS = ("subtract", "zero", "subtract_leaky")
READOUTS = ("linear", "spikes")
MOST_LEVELS = 64
"""Thresholds of an I-LIF neuron."""


@dataclass(frozen=True)
class Convolution:
    """`12c5s2p0`: 12 channels, kernel 5, stride 2, padding 0 (kernel//2 where it is not given); spikes behind it."""

    channels: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Residual:
    """`64rs2`: a residual block of 64 channels and stride 2; spikes within and behind it."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Pool:
    """`ap2`, `mp2`, `ap`: pooling over squares of `size` pixels, of the whole picture where it is None."""

    average: bool
    size: int | None


@dataclass(frozen=True)
class Dense:
    """`128`: a dense layer of so many neurons."""

    size: int


@dataclass(frozen=True)
class Recurrent:
    """`128rec`: a dense layer of so many neurons, all of which hear all of its spikes of the step before."""

    size: int


Word = Convolution | Residual | Pool | Dense | Recurrent
_CONV = re.compile(r"(\d{1,9})c(\d{1,9})(?:s(\d{1,9}))?(?:p(\d{1,9}))?", re.ASCII)
_RESIDUAL = re.compile(r"(\d{1,9})r(?:s(\d{1,9}))?", re.ASCII)
_POOL = re.compile(r"([am])p(\d{0,9})", re.ASCII)
_RECURRENT = re.compile(r"(\d{1,9})rec", re.ASCII)
_DENSE = re.compile(r"\d{1,9}", re.ASCII)


def read_layers(layers: str) -> list[tuple[str, Word]]:
    """The layers of a preset or of words joined by '-', each with its word.

    Raises:
        UsageError: a word that cannot be read, or that cannot stand where it does.
    """
    words = PRESETS.get(layers, layers).split("-")
    if len(words) > MOST_LAYERS:
        raise UsageError(f"layers {shown(layers)}: {len(words)} of them; at most {MOST_LAYERS}")
    read = [(word, _read(layers, word)) for word in words]
    dense = False
    for place, (word, layer) in enumerate(read):
        if dense and not isinstance(layer, Dense | Recurrent):
            raise UsageError(f"layers {shown(layers)}: {word} comes after a dense layer; put convolutions first")
        if place == 0 and isinstance(layer, Residual):
            raise UsageError(f"layers {shown(layers)}: {word} comes first, and its shortcut would add the frames to a "
                             "current; put a convolution before it")
        dense = isinstance(layer, Dense | Recurrent)
    return read


def _read(layers: str, word: str) -> Word:
    if match := _CONV.fullmatch(word):
        channels, kernel, stride = (int(match[i] or 1) for i in (1, 2, 3))
        layer = Convolution(channels, kernel, stride, int(match[4]) if match[4] else kernel // 2)
        sizes = channels, kernel, stride
    elif match := _RESIDUAL.fullmatch(word):
        layer = Residual(int(match[1]), int(match[2] or 1))
        sizes = layer.channels, layer.stride
    elif match := _POOL.fullmatch(word):
        layer = Pool(match[1] == "a", int(match[2]) if match[2] else None)
        sizes = (1 if layer.size is None else layer.size,)
    elif match := _RECURRENT.fullmatch(word):
        layer = Recurrent(int(match[1]))
        sizes = (layer.size,)
    elif _DENSE.fullmatch(word):
        layer = Dense(int(word))
        sizes = (layer.size,)
    else:
        raise UsageError(f"layers {shown(layers)}: cannot read {shown(word)}{nearest(word, [*PRESETS, *LAYOUTS])}; "
                         f"presets: {', '.join([*PRESETS, *LAYOUTS])}; or layers such as 12c5s2-ap2-128")
    if max(sizes) > LARGEST_NUMBER or (isinstance(layer, Convolution) and layer.padding > LARGEST_NUMBER):
        raise UsageError(f"layer '{word}': numbers go up to {LARGEST_NUMBER}")
    if 0 in sizes:
        raise UsageError(f"layer '{word}': channels, kernel, stride, pooling and neurons are 1 or more")
    return layer


@dataclass
class NetworkConfig:
    """The network and its neurons.

    Args:
        layers: conv, conv_pool, mlp, resnet18, resnet19, vgg, vgg16, vggsnn, or layers joined by '-': 12c5s2 is a
            convolution (12 channels, kernel 5, stride 2, padding kernel//2 unless p0 is added), 64rs2 a residual
            block (64 channels, stride 2), ap2 average pooling, ap the average of the whole picture, mp2 max pooling
            (in a graph a grouped convolution and a neuron, of spikes only; not on Loihi 1), 128 a dense layer, 128rec
            one whose neurons hear all of its spikes one step later. Or a whole E-SpikeFormer of I-LIF neurons:
            espikeformer_5m, espikeformer_10m, espikeformer_19m (as published), espikeformer_tiny (34 pixels),
            espikeformer_small (8 pixels); see `levels`
        beta: leak per time step; the first one where it is learned
        learn_beta: one learned leak a layer, clamped to [0, 1] as in snnTorch; beyond either end it gets no gradient.
        plif: the learned leak of Fang et al. 2021 instead: 1 - sigmoid(a), which reaches neither end, with an input
            scaled by sigmoid(a); that factor is a Scale node in NIR, and in the weights on a chip
        threshold: firing threshold
        reset: subtract (SAST eq. 4), zero (Loihi 1 and stock Lava hold only this) or subtract_leaky (what is taken off
            leaks as well, A2SG eqs. A1-A3; NIR, ONNX and loihi2 hold it)
        detach_reset: no gradient through the reset, as in snnTorch; wrong for a smooth forward
        batch_norm: batch normalisation after each convolution and hidden dense layer; folded at export. As in tdBN
            (Zheng et al. 2021), its statistics are taken over batch and time together, and its gain begins
            at the threshold, at threshold/sqrt(2) where a residual branch and a shortcut meet
        bias: biases in layers without batch normalisation
        gain: factor on the initial weights
        readout: linear (on time-averaged spikes, SAST eq. 6) or spikes (count of a spiking output layer)
        surrogate: smooth spike function (forward or backward, as the method says)
        levels: D of E-SpikeFormer's neurons, which give whole numbers up to it and on a chip are D neurons each. Their
            reset is by subtraction, leaks with the membrane and is detached (published: 4 levels; beta 0 for one time
            step, 0.25 for several)
        pyramid: channels of a feature pyramid that labels every pixel, over what convolutions, residual blocks or
            E-SpikeFormer's stages give last at each size; 0 for one label a recording

    Raises:
        UsageError: a value that is unknown or out of its range, or layers that cannot be read or hold no neurons.
    """

    layers: str = "conv"
    beta: float = 0.9
    learn_beta: bool = False
    plif: bool = False
    threshold: float = 1.0
    reset: str = "subtract"
    detach_reset: bool = False
    batch_norm: bool = True
    bias: bool = True
    gain: float = 1.0
    readout: str = "linear"
    surrogate: Surrogate = field(default_factory=Surrogate)
    levels: int = 4
    pyramid: int = 0

    def __post_init__(self):
        choice("reset", self.reset, RESETS)
        choice("readout", self.readout, READOUTS)
        if not 0 <= self.beta <= 1:
            raise UsageError(f"beta {self.beta}: a leak lies in [0, 1]")
        if self.plif and (self.learn_beta or not 0 < self.beta < 1):
            raise UsageError("plif: learns the leak by itself; leave learn_beta out" if self.learn_beta else
                             f"beta {self.beta}: plif's first leak lies between 0 and 1, neither of them")
        for key, value in (("threshold", self.threshold), ("gain", self.gain)):
            if not 0 < value < float("inf"):
                raise UsageError(f"{key} {value}: must be positive and finite")
        if not 1 <= self.levels <= MOST_LEVELS:
            raise UsageError(f"levels {self.levels}: 1 to {MOST_LEVELS} thresholds a neuron")
        if not 0 <= self.pyramid <= LARGEST_NUMBER:
            raise UsageError(f"pyramid {self.pyramid}: channels go up to {LARGEST_NUMBER}; 0 leaves it out")
        if self.pyramid and self.readout != "linear":
            raise UsageError(f"pyramid {self.pyramid}: its readout is linear; leave readout {self.readout} out")
        if self.counts:
            self._check_layout()
            return
        layers = read_layers(self.layers)
        alone = "plif" if self.plif else "reset subtract_leaky" if self.reset == "subtract_leaky" else ""
        for word, layer in layers:
            if alone and isinstance(layer, Recurrent):
                raise UsageError(f"{alone}: '{word}' is made of snnTorch's RLeaky, which has neither plif nor "
                                 f"subtract_leaky; give another reset and no plif, or {layer.size} for {word}")
        flat = next((word for word, layer in layers if isinstance(layer, Dense | Recurrent)), None)
        if self.pyramid and (flat or not any(isinstance(layer, Convolution | Residual) for _, layer in layers)):
            what = f"'{flat}' leaves no picture" if flat else "there is no convolution"
            raise UsageError(f"pyramid {self.pyramid}: {what}; give convolutions and residual blocks alone, such as "
                             "--network.layers 16c3-32c3s2-64c3s2")
        if self.readout == "linear" and all(isinstance(layer, Pool) for _, layer in layers):
            raise UsageError(f"layers '{self.layers}': no neurons; add a convolution or a dense layer, such as "
                             f"{self.layers}-128")

    @property
    def counts(self) -> bool:
        """Whether its neurons give whole numbers, not zero or one."""
        return self.layers in LAYOUTS

    def _check_layout(self) -> None:
        """Refuse options that E-SpikeFormer does not have."""
        label = f"layers '{self.layers}'"
        if self.reset == "zero":
            raise UsageError(f"{label}: its neurons subtract; reset zero is for other layers")
        if self.beta and not self.detach_reset:
            raise UsageError(f"{label}: its neurons detach their reset; give detach_reset true, or beta 0 for neurons "
                             "without memory")
        for key, fixed in (("learn_beta", False), ("plif", False), ("batch_norm", True), ("readout", "linear")):
            if getattr(self, key) != fixed:
                raise UsageError(f"{label}: has {key} {str(fixed).lower()} only; leave it so")
