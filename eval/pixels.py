"""Accuracy where labels are those of pixels: intersection over union beside the share of right pixels."""

import math
from dataclasses import dataclass

import torch

from eval.statistics import bootstrap
from trainer.segmentation import PixelEvaluation, mean_iou, pixel_accuracy


@dataclass(frozen=True)
class Pixels:
    """One model in one mode.

    Args:
        right, count: pixels answered rightly, of how many that are not ignored.
        low, high: where the true share lies, over recordings (bootstrap, 95 %), in [0, 1].
        miou: mean intersection over union over the classes that are there or are predicted, in [0, 1],
        miou_low, miou_high: and where the true one lies, likewise.
        ious: of each class; None where it is neither.
    """

    right: int
    count: int
    low: float
    high: float
    miou: float
    miou_low: float
    miou_high: float
    ious: list[float | None]


def pixels(found: PixelEvaluation) -> Pixels:
    """What there is to say of an evaluation."""
    counts = found.counts.numpy()
    right, true, _ = counts.sum((0, 2)).tolist()
    share = bootstrap(counts, lambda sums: pixel_accuracy(torch.from_numpy(sums)).numpy())
    mean = bootstrap(counts, lambda sums: mean_iou(torch.from_numpy(sums)).numpy())
    return Pixels(right, true, *share, found.miou, *mean, [None if math.isnan(iou) else iou for iou in found.ious])
