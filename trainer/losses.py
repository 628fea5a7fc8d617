"""Losses on what happens inside the network, to be added to the one on its output."""

from collections.abc import Mapping

import torch
from torch import Tensor


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
