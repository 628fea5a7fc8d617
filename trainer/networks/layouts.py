"""E-SpikeFormer's layouts: how wide and deep its stages are. No torch.

A network is five stages; each begins with a strided convolution. Stages of convolutional blocks come first, then those
of transformer blocks; `trainer.networks.espikeformer` has the blocks.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        channels: behind its convolution, and of its blocks.
        stride: of its convolution.
        blocks: how many.
        attention: transformer blocks; else convolutional ones.
    """

    channels: int
    stride: int
    blocks: int
    attention: bool = False


@dataclass(frozen=True)
class Layout:
    """All stages.

    Args:
        stages: in order.
        stem: kernel of the first convolution.
        heads: of every attention.
        widening: of the channels within a block's second half (convolutional block, MLP).
    """

    stages: tuple[Stage, ...]
    stem: int = 7
    heads: int = 8
    widening: int = 4


def _published(e1: int, e2: int, e3: int, e4: int) -> Layout:
    return Layout((Stage(e1 // 2, 2, 1), Stage(e1, 2, 1), Stage(e2, 2, 2), Stage(e3, 2, 6, True),
                   Stage(e4, 1, 2, True)))


def _tiny(strides: tuple[int, int, int, int], *channels: int) -> Layout:
    e1, e2, e3, e4 = channels
    return Layout((Stage(e1 // 2, strides[0], 1), Stage(e1, strides[1], 1), Stage(e2, strides[2], 1),
                   Stage(e3, strides[3], 1, True), Stage(e4, 1, 1, True)), 3, 4, 2)


LAYOUTS = {
    # with 1000 classes: 5.1, 10.0 and 19.0 M parameters, as published; 224 pixels become 14
    "espikeformer_5m": _published(32, 64, 128, 192),
    "espikeformer_10m": _published(48, 96, 192, 240),
    "espikeformer_19m": _published(64, 128, 256, 360),
    # 34 pixels become 9
    "espikeformer_tiny": _tiny((2, 2, 1, 1), 16, 24, 32, 48),
    # 8 pixels become 4
    "espikeformer_small": _tiny((1, 2, 1, 1), 16, 24, 32, 32),
}
"""Name -> layout, for `network.layers`."""
