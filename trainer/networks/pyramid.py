"""A feature pyramid behind a network's pictures, which labels every pixel (FPN: Lin et al. 2017; as a head for
segmentation: Kirillov et al. 2019, Panoptic Feature Pyramid Networks, sec. 3).

Features are what the network gives last at each size of its pictures, the finest first. All is neurons, then a linear
layer, then BatchNorm, as in E-SpikeFormer (Yao et al. 2025); where sizes differ, the nearest neighbour is taken.

    lateral i    [N -] 1x1 - BN of feature i; without neurons where the feature is spikes already
    merge i      lateral i + upsampled merge i+1; of the coarsest the lateral alone
    pyramid i    N - 3x3 - BN of merge i
    head         sum of all pyramids at the finest size - N - 3x3 - BN - N - 1x1 to classes, on the mean over time,
                 upsampled to the frame

The 1x1 convolution is called `readout`. Sums of currents, so that nothing is multiplied but spikes and weights.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from hardspike import UsageError

PICTURE = "picture"
"""The last layer: from the finest feature's size to the frame's."""
LATERAL = "lateral1"
"""Index of the first layers that are the pyramid's."""


@dataclass(frozen=True)
class Feature:
    """What a network gives last at one size of its pictures.

    Args:
        layer: its name.
        shape: (C, H, W).
        spikes: it is a layer of neurons.
    """

    layer: str
    shape: tuple[int, ...]
    spikes: bool


class Stack(Protocol):
    """Layers that grow one after the other; `shape` is that of the last one's output."""

    layers: dict[str, nn.Module]
    sums: dict[str, tuple[str, ...]]
    shape: tuple[int, ...]

    def neurons(self, index: str) -> None:
        """`lif<index>`."""

    def linear(self, index: str, channels: int, kernel: int = 1) -> None:
        """`conv<index>`, which keeps the picture's size, and `norm<index>` where there is one."""

    def room(self, word: str, parameters: int) -> None:
        """Refuse so many parameters where there is no room for them."""


def finest_first(features: list[Feature]) -> list[Feature]:
    """The last feature of each size, of features in order."""
    return list({feature.shape[1:]: feature for feature in features}.values())


def add_pyramid(made: Stack, features: list[Feature], channels: int, classes: int, frame: tuple[int, ...]) -> None:
    """The pyramid over `features`, and the readout.

    Args:
        channels: of every layer of it.
        frame: (H, W) of the labels.

    Raises:
        UsageError: there are no features.
    """
    if not features:
        raise UsageError("pyramid: needs pictures; put a convolution among the layers")
    laterals = [_lateral(made, f"lateral{i}", feature, channels) for i, feature in enumerate(features, 1)]
    merged = laterals[-1]
    merges = [merged]
    for i in range(len(features) - 1, 0, -1):
        wide = _upsampled(made, f"up{i}", merged, features[i - 1].shape[1:])
        merged = _sum(made, f"merge{i}", (laterals[i - 1], wide))
        merges.insert(0, merged)
    finest, outputs = features[0].shape[1:], []
    for i, (merge, feature) in enumerate(zip(merges, features, strict=True), 1):
        made.sums[f"lifpyramid{i}"], made.shape = (merge,), (channels, *feature.shape[1:])
        made.neurons(f"pyramid{i}")
        made.linear(f"pyramid{i}", channels, 3)
        outputs.append(_last(made) if i == 1 else _upsampled(made, f"wide{i}", _last(made), finest))
    made.shape = (channels, *finest)
    made.sums["lifhead1"] = tuple(outputs)
    made.neurons("head1")
    made.linear("head1", channels, 3)
    made.neurons("head2")
    made.room("readout", classes * channels)
    made.layers["readout"] = nn.Conv2d(channels, classes, 1)
    made.layers[PICTURE] = nn.Upsample(size=frame, mode="nearest")


def _last(made: Stack) -> str:
    return next(reversed(made.layers))


def _lateral(made: Stack, index: str, feature: Feature, channels: int) -> str:
    made.shape = feature.shape
    made.sums[f"conv{index}" if feature.spikes else f"lif{index}"] = (feature.layer,)
    if not feature.spikes:
        made.neurons(index)
    made.linear(index, channels)
    return _last(made)


def _upsampled(made: Stack, name: str, source: str, size: tuple[int, ...]) -> str:
    made.sums[name] = (source,)
    made.layers[name] = nn.Upsample(size=size, mode="nearest")
    return name


def _sum(made: Stack, name: str, sources: tuple[str, ...]) -> str:
    made.sums[name] = sources
    made.layers[name] = nn.Identity()
    return name
