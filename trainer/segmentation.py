"""Classes of pixels: how they are counted, and intersection over union."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.samples import IGNORED
from trainer.losses import classification


def pixel_counts(predicted: Tensor, masks: Tensor, classes: int) -> Tensor:
    """(B, 3, classes) int64 of predictions and masks (B, H, W): of each recording and class the pixels that are both
    predicted and true, that are true, and that are predicted. Ignored pixels count nowhere.
    """
    masks, predicted = masks.long(), predicted.long()
    counted = masks != IGNORED
    recording = torch.arange(len(masks), device=masks.device).view(-1, 1, 1).expand_as(masks)

    def histogram(values: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((recording * classes + values)[where], minlength=len(masks) * classes).view(-1, classes)

    return torch.stack([histogram(masks, counted & (predicted == masks)), histogram(masks, counted),
                        histogram(predicted, counted)], 1)


def pixel_accuracy(counts: Tensor) -> Tensor:
    """Share of right pixels of counts (..., 3, classes), (...)."""
    right, true, _ = counts.double().unbind(-2)
    return right.sum(-1) / true.sum(-1)


def class_ious(counts: Tensor) -> Tensor:
    """Intersection over union of each class, (..., classes), of counts (..., 3, classes) summed over recordings; NaN of
    a class that is neither there nor predicted."""
    both, true, predicted = counts.double().unbind(-2)
    return both / (true + predicted - both)


def mean_iou(counts: Tensor) -> Tensor:
    """The mean of `class_ious` over classes that have one, (...)."""
    return class_ious(counts).nanmean(-1)


@dataclass
class PixelEvaluation:
    """What a network makes of the pixels of a split.

    Args:
        counts: (N, 3, classes), see `pixel_counts`.
        spikes: layer -> spikes per sample.
        loss: cross-entropy in nats, mean over pixels.
    """

    counts: Tensor
    spikes: dict[str, float]
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of right pixels, in [0, 1]."""
        return pixel_accuracy(self.counts.sum(0)).item()

    @property
    def hits(self) -> Tensor:
        """(N,) right pixels of each recording."""
        return self.counts[:, 0].sum(1)

    @property
    def miou(self) -> float:
        """Mean intersection over union, in [0, 1]."""
        return mean_iou(self.counts.sum(0)).item()

    def row(self, mode: str) -> dict[str, float]:
        """Columns of the history for a network with `mode` spikes; classes that are nowhere have none."""
        each = {f"{mode}_iou_{name}": iou for name, iou in enumerate(self.ious) if not math.isnan(iou)}
        return {f"{mode}_miou": self.miou, **each}

    @property
    def ious(self) -> list[float]:
        """Intersection over union of each class, in [0, 1]; NaN where there is none."""
        return class_ious(self.counts.sum(0)).tolist()


def evaluated(parts: Iterable[tuple[Tensor, Tensor]]) -> PixelEvaluation:
    """The evaluation, spikes aside, of logits (B, classes, H, W) and masks (B, H, W) that come some at a time."""
    counts, loss, pixels = [], 0.0, 0
    for logits, masks in parts:
        masks = masks.to(logits.device)
        counts.append(pixel_counts(logits.argmax(1), masks, logits.shape[1]).cpu())
        here = int((masks != IGNORED).sum())
        loss += classification(logits.double(), masks).item() * here
        pixels += here
    return PixelEvaluation(torch.cat(counts), {}, loss / max(1, pixels))
