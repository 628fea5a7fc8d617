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


def _arctan(z: Tensor, slope: float) -> Tensor:
    return torch.atan(z * (math.pi * slope)).div_(math.pi).add_(0.5)


def _arctan_slope(z: Tensor, slope: float) -> Tensor:
    return (z * (math.pi * slope)).square_().add_(1).reciprocal_().mul_(slope)


def _fast_sigmoid(z: Tensor, slope: float) -> Tensor:
    x = z * (2 * slope)
    return x.div_(x.abs().add_(1)).mul_(0.5).add_(0.5)


def _fast_sigmoid_slope(z: Tensor, slope: float) -> Tensor:
    return (z * (2 * slope)).abs_().add_(1).square_().reciprocal_().mul_(slope)


def _sigmoid(z: Tensor, slope: float) -> Tensor:
    return torch.sigmoid_(z * (4 * slope))


def _sigmoid_slope(z: Tensor, slope: float) -> Tensor:
    phi = _sigmoid(z, slope)
    return (phi * (1 - phi)).mul_(4 * slope)


SURROGATES: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor, float], Tensor]]] = {
    "arctan": (_arctan, _arctan_slope),
    "fast_sigmoid": (_fast_sigmoid, _fast_sigmoid_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
}
"""Name -> (phi, phi'), each of (z, slope)."""


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

    def __call__(self, z: Tensor, threshold: Tensor) -> Tensor:
        """phi(z), shaped like z = u - threshold; `threshold` matters to the shifted form only."""
        phi = SURROGATES[self.name][0](z, self.slope)
        if self.rest_at_zero:
            rest = self.rest(threshold)
            phi = (phi - rest) / (1 - rest)
        return phi

    def derivative(self, z: Tensor, threshold: Tensor) -> Tensor:
        """phi'(z), shaped like z."""
        slope = SURROGATES[self.name][1](z, self.slope)
        return slope / (1 - self.rest(threshold)) if self.rest_at_zero else slope

    def rest(self, threshold: Tensor) -> Tensor:
        """phi(-threshold) of the unshifted function: what a neuron at rest gives out at every step."""
        return SURROGATES[self.name][0](-threshold, self.slope)

    def threshold_gradient(self, z: Tensor, threshold: Tensor) -> Tensor:
        """d phi / d threshold at fixed z: zero but for the shifted form, whose offset depends on the threshold."""
        if not self.rest_at_zero:
            return torch.zeros_like(z)
        phi = SURROGATES[self.name][0](z, self.slope)
        at_rest = SURROGATES[self.name][1](-threshold, self.slope)
        # d phi/d rest = (phi - 1)/(1 - rest)^2, d rest/d theta = -phi'(-theta)
        return (1 - phi) / (1 - self.rest(threshold)) ** 2 * at_rest

    def with_slope(self, slope: float) -> "Surrogate":
        return replace(self, slope=slope)
