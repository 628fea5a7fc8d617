"""The loss on a network's output, and those on what happens inside of it, to be added."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.data.samples import IGNORED


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, mean over recordings, or over the pixels of masks that are not ignored; 0 where all are.

    Args:
        logits: (B, classes), or (B, classes, H, W) of pixels.
        labels: (B,) int64, shares (B, classes), or masks (B, H, W) whole numbers.
    """
    if labels.dim() != 3:
        return cross_entropy(logits, labels, label_smoothing=smoothing)
    masks = labels.long()
    total = cross_entropy(logits, masks, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def rmp(membranes: Mapping[str, Tensor], thresholds: Mapping[str, Tensor]) -> Tensor:
    """RMP-Loss (Guo et al. 2023, `RMP-Loss: Regularizing Membrane Potential Distribution for Spiking Neural Networks`).

    A spike o = H(u - theta) is a membrane potential quantised to 0 or 1; the loss is the squared quantisation error,
    here averaged over steps, samples and neurons of each layer, and then over the L layers, so that its factor beside
    the cross-entropy, which is the caller's, does not depend on the network's size:

        L_RMP = 1/L sum_l mean (u_l - o_l)^2,        dL_RMP/du = 2 (u - o) / (L N_l)

    with o held constant, since H is flat wherever it has a derivative. It asks neurons that fire to come to 1, whatever
    the threshold; at theta = 1/2 the spike is the level nearest to u.

    Args:
        membranes: layer -> membrane before the reset, u, (T, B, ...).
        thresholds: layer -> theta, broadcast to u; for every layer in `membranes`.

    Returns:
        a scalar, differentiable in the membranes and not in the thresholds.
    """
    errors = [(u - (u > thresholds[name]).to(u.dtype)).square().mean() for name, u in membranes.items()]
    return torch.stack(errors).mean()
