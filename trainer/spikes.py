"""Spike functions: the hard threshold H and its smooth stand-ins phi.

Every phi rises from 0 to 1 with phi(0) = 1/2, and is scaled by `slope` = phi'(0), which is also its Lipschitz constant
L_phi, so that functions of one slope compare. In the field's own parameters:

    arctan        phi(z) = 1/2 + atan(pi*alpha*z/2)/pi       alpha = 2*slope   (SAST eq. 16, `snntorch.surrogate.atan`)
    fast_sigmoid  phi(z) = 1/2 + k*z/(2*(1 + k*|z|))         k = 2*slope
    sigmoid       phi(z) = 1/(1 + exp(-k*z))                 k = 4*slope
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hardspike import UsageError, nearest


def _arctan(z: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    x = z * (math.pi * slope)
    return torch.atan(x).div_(math.pi).add_(0.5), slope / (x.square_().add_(1))


def _fast_sigmoid(z: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    x = z * (2 * slope)
    scale = 1 / (1 + x.abs())
    return (x * scale).mul_(0.5).add_(0.5), scale.square_().mul_(slope)


def _sigmoid(z: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    phi = torch.sigmoid(z * (4 * slope))
    return phi, phi * (1 - phi) * (4 * slope)


SURROGATES: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "arctan": _arctan,
    "fast_sigmoid": _fast_sigmoid,
    "sigmoid": _sigmoid,
}


@dataclass(frozen=True)
class Surrogate:
    """A smooth spike function: the forward in smooth mode, the backward in hard mode.

    Args:
        name: arctan, fast_sigmoid or sigmoid
        slope: phi'(0), the slope at the threshold
        rest_at_zero: shift and rescale so that a neuron at rest (u = 0) gives exactly 0:
            (phi(z) - phi(-theta)) / (1 - phi(-theta))

    Raises:
        UsageError: unknown name, slope not positive and finite.
    """

    name: str = "arctan"
    slope: float = 5 / math.pi
    rest_at_zero: bool = False

    def __post_init__(self):
        if self.name not in SURROGATES:
            known = ", ".join(SURROGATES)
            raise UsageError(f"surrogate '{self.name}' is unknown{nearest(self.name, SURROGATES)}; known: {known}")
        if not (self.slope > 0 and math.isfinite(self.slope)):
            raise UsageError(f"slope {self.slope}: must be positive and finite")

    def __call__(self, z: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """phi(z) and phi'(z), both shaped like z = u - threshold; `threshold` matters to the shifted form only."""
        phi, slope = SURROGATES[self.name](z, self.slope)
        if self.rest_at_zero:
            rest = self.rest(threshold)
            phi, slope = (phi - rest) / (1 - rest), slope / (1 - rest)
        return phi, slope

    def rest(self, threshold: Tensor) -> Tensor:
        """phi(-threshold) of the unshifted function: what a neuron at rest gives out at every step."""
        return SURROGATES[self.name](-threshold, self.slope)[0]

    def threshold_gradient(self, z: Tensor, threshold: Tensor) -> Tensor:
        """d phi / d threshold at fixed z: zero but for the shifted form, whose offset depends on the threshold."""
        if not self.rest_at_zero:
            return torch.zeros_like(z)
        rest, at_rest = SURROGATES[self.name](-threshold, self.slope)
        phi = SURROGATES[self.name](z, self.slope)[0]
        return (1 - phi) / (1 - rest) ** 2 * at_rest  # d phi/d rest = (phi - 1)/(1 - rest)^2, d rest/d theta = -phi'

    def with_slope(self, slope: float) -> "Surrogate":
        return replace(self, slope=slope)
