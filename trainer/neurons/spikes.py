"""Spike functions: the hard threshold H and its smooth stand-ins phi.

Every phi rises from 0 to 1 with phi(0) = 1/2, and is a function of slope*z alone, slope = phi'(0), so that functions of
one slope compare. In the field's own parameters:

    arctan        phi(z) = 1/2 + atan(pi*alpha*z/2)/pi       alpha = 2*slope   (SAST eq. 16, `snntorch.surrogate.atan`)
    fast_sigmoid  phi(z) = 1/2 + k*z/(2*(1 + k*|z|))         k = 2*slope
    sigmoid       phi(z) = 1/(1 + exp(-k*z))                 k = 4*slope

A further one is a function in this file and its line in SURROGATES. Compiled code (`trainer.neurons.scan_native`,
`trainer.neurons.scan_triton`) knows the three by name; a function that it lacks is left to torch code.

Torch is imported late: the configuration of a run needs the names and no tensors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hardspike import UsageError, choice

if TYPE_CHECKING:
    from torch import Tensor


def _arctan(z: "Tensor", slope: float) -> "Tensor":
    return (z * (math.pi * slope)).atan_().div_(math.pi).add_(0.5)


def _arctan_slope(z: "Tensor", slope: float) -> "Tensor":
    return (z * (math.pi * slope)).square_().add_(1).reciprocal_().mul_(slope)


def _fast_sigmoid(z: "Tensor", slope: float) -> "Tensor":
    x = z * (2 * slope)
    return x.div_(x.abs().add_(1)).mul_(0.5).add_(0.5)


def _fast_sigmoid_slope(z: "Tensor", slope: float) -> "Tensor":
    return (z * (2 * slope)).abs_().add_(1).square_().reciprocal_().mul_(slope)


def _sigmoid(z: "Tensor", slope: float) -> "Tensor":
    return (z * (4 * slope)).sigmoid_()


def _sigmoid_slope(z: "Tensor", slope: float) -> "Tensor":
    phi = _sigmoid(z, slope)
    return (phi * (1 - phi)).mul_(4 * slope)


@dataclass(frozen=True)
class SpikeFunction:
    """One phi, a family in its slope s = phi'(0): phi(z) = Phi(s*z).

    Args:
        phi: (z, s) -> phi(z), a new tensor shaped like z.
        derivative: (z, s) -> phi'(z), likewise.
        source: the paper's equation or the library whose function it is.
        lipschitz: L_phi = sup|phi'| in units of s; 1 where phi is steepest at the threshold.
        curvature: sup|phi''| in units of s^2; None where it is not known.
    """

    phi: Callable[["Tensor", float], "Tensor"]
    derivative: Callable[["Tensor", float], "Tensor"]
    source: str
    lipschitz: float = 1.0
    curvature: float | None = None


SURROGATES: dict[str, SpikeFunction] = {
    # sup|phi''|: of x/(1 + x^2)^2 at x = 1/sqrt(3); of the one-sided derivative at 0; of p(1 - p)(1 - 2p)
    "arctan": SpikeFunction(_arctan, _arctan_slope, "SAST eq. 16", curvature=3 * math.sqrt(3) * math.pi / 8),
    "fast_sigmoid": SpikeFunction(_fast_sigmoid, _fast_sigmoid_slope, "SuperSpike (Zenke & Ganguli 2018)",
                                  curvature=4.0),
    "sigmoid": SpikeFunction(_sigmoid, _sigmoid_slope, "the logistic function", curvature=8 / (3 * math.sqrt(3))),
}
"""Every phi by its name."""


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

    name: str = "sigmoid"
    slope: float = 5 / math.pi
    rest_at_zero: bool = False

    def __post_init__(self):
        choice("surrogate", self.name, SURROGATES)
        if not (self.slope > 0 and math.isfinite(self.slope)):
            raise UsageError(f"slope {self.slope}: must be positive and finite")

    @property
    def function(self) -> SpikeFunction:
        """The unshifted phi."""
        return SURROGATES[self.name]

    def __call__(self, z: "Tensor", threshold: "Tensor") -> "Tensor":
        """phi(z), shaped like z = u - threshold; `threshold` matters to the shifted form only."""
        phi = self.function.phi(z, self.slope)
        if self.rest_at_zero:
            rest = self.rest(threshold)
            phi = (phi - rest) / (1 - rest)
        return phi

    def derivative(self, z: "Tensor", threshold: "Tensor") -> "Tensor":
        """phi'(z), shaped like z."""
        slope = self.function.derivative(z, self.slope)
        return slope / (1 - self.rest(threshold)) if self.rest_at_zero else slope

    def lipschitz(self, threshold: "Tensor") -> "Tensor":
        """L_phi = sup|phi'|, shaped like `threshold`."""
        most = threshold.new_full(threshold.shape, self.function.lipschitz * self.slope)
        return most / (1 - self.rest(threshold)) if self.rest_at_zero else most

    def curvature(self, threshold: "Tensor") -> "Tensor | None":
        """sup|phi''|, shaped like `threshold`; None where it is not known of this function."""
        if self.function.curvature is None:
            return None
        most = threshold.new_full(threshold.shape, self.function.curvature * self.slope**2)
        return most / (1 - self.rest(threshold)) if self.rest_at_zero else most

    def rest(self, threshold: "Tensor") -> "Tensor":
        """phi(-threshold) of the unshifted function: what a neuron at rest gives out at every step."""
        return self.function.phi(-threshold, self.slope)

    def threshold_gradient(self, z: "Tensor", threshold: "Tensor") -> "Tensor":
        """d phi / d threshold at fixed z: zero but for the shifted form, whose offset depends on the threshold."""
        from torch import zeros_like

        if not self.rest_at_zero:
            return zeros_like(z)
        phi = self.function.phi(z, self.slope)
        at_rest = self.function.derivative(-threshold, self.slope)
        # d phi/d rest = (phi - 1)/(1 - rest)^2, d rest/d theta = -phi'(-theta)
        return (1 - phi) / (1 - self.rest(threshold)) ** 2 * at_rest

    def with_slope(self, slope: float) -> "Surrogate":
        """The same function with another slope."""
        return replace(self, slope=slope)
