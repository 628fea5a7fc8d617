"""CutMix and Mixup: minibatches whose pictures are made of two, and whose labels are shares of two classes."""

import math

import numpy as np
import torch
from torch import Tensor

from trainer.data.config import AugmentConfig

__all__ = ["mix"]


def mix(frames: Tensor, labels: Tensor, classes: int, generator: torch.Generator,
        config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """A whole minibatch, each of whose recordings is mixed with another one of it; one share for all.

    Mixup (Zhang et al. 2018) adds shares of frames. CutMix (Yun et al. 2019) puts a rectangle of the other one, at all
    time steps, in; its label's share is the rectangle's. Where both are asked for, a coin decides.

    Args:
        frames: (B, T, C, H, W) floating point.
        labels: (B,) int64.

    Returns:
        frames, and (B, classes) float32, the share of each class.
    """
    # numpy knows the Beta distribution; torch's takes no generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    order = torch.randperm(len(frames), generator=generator, device=generator.device)
    draws = np.random.default_rng(seed)
    cut = bool(config.cutmix) and (not config.mixup or draws.random() < 0.5)
    share = draws.beta(*2 * [config.cutmix if cut else config.mixup])
    other = frames[order.to(frames.device)]
    if cut:
        rows, columns = _rectangle(frames.shape[-2:], 1 - share, draws)
        frames = frames.clone()
        frames[..., rows, columns] = other[..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / math.prod(frames.shape[-2:])
    else:
        frames = share * frames + (1 - share) * other
    shares = torch.nn.functional.one_hot(labels, classes).float()
    return frames, share * shares + (1 - share) * shares[order.to(labels.device)]


def _rectangle(sides: tuple[int, ...], area: float, draws: np.random.Generator) -> tuple[slice, slice]:
    """A rectangle of the picture's form and this share of its area around a pixel of it; what sticks out is cut off."""
    found = []
    for side in sides:
        reach, centre = int(side * math.sqrt(area)), int(draws.integers(side))
        found.append(slice(max(0, centre - reach // 2), min(side, centre + reach // 2)))
    return found[0], found[1]
