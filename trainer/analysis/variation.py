"""What A2SG's theorems compare, computed without their approximations: the variation of a window under a density."""

import math
from collections.abc import Callable

import torch
from scipy.integrate import quad

from trainer.neurons.windows import WINDOWS


def variation(window: Callable[[float], float], density: Callable[[float], float], low: float, high: float) -> float:
    """Coefficient of variation of f(u) (A2SG theorem A1): sqrt(E[f^2] - E[f]^2) / E[f].

    Args:
        window: f, zero outside [low, high]; a kink, if any, lies in the middle.
        density: p of the membrane u. What it has outside [low, high] counts, as f = 0.

    Returns:
        the CV, by adaptive quadrature; NaN where p vanishes on [low, high].
    """
    def moment(power: int) -> float:
        middle = (low + high) / 2
        return sum(quad(lambda u: window(u)**power * density(u), *half, epsabs=0, epsrel=1e-10, limit=200)[0]
                   for half in ((low, middle), (middle, high)))

    mean = moment(1)
    return math.sqrt(max(moment(2) / mean / mean - 1, 0)) if mean else math.nan


def window_variation(name: str, width: float, mean: float, deviation: float, threshold: float = 1.0,
                     height: float = 0.5) -> float:
    """Coefficient of variation of a window under u ~ N(mean, deviation^2).

    This is what A2SG's theorems 1 and 2 compare on [a, b] = theta -+ width, of length L, with kappa = a - mean > 0, so
    that the density p decreases there. Both fail, for every such p and not only at some values:

    - Theorem 1 (of all symmetric f the triangle has the least CV): CV^2 + 1 = E[f^2]/E[f]^2 >= 1/P(a < u < b) by
      Cauchy-Schwarz, and a constant f reaches it, so box has the least CV of all. Where f(a) = f(b) = 0 is asked
      for there is no least: trapezoids come as near to box as one likes. The proof takes p(a + b - u) for p(u), and
      the quotient that it then has is least for a constant too.
    - Theorem 2 (asy, the ramp, has a lower CV than tri if L*kappa > sigma^2): it has a higher one. Let X = u - a given
      the window, with distribution F on [0, L]; asy is proportional to X and tri to M = min(X, L - X). Define y by
      F(y) = P(M <= x) = F(x) + 1 - F(L - x). As p decreases, (y - x) p(y) <= F(y) - F(x) = 1 - F(L - x) <= x p(L - x)
      and p(y) <= p(x), so x dy/dx = x (p(x) + p(L - x)) / p(y) >= y: y/x increases, X is above M in the star order,
      hence in Lorenz's, hence varies more. In the paper's linear density A - B(u - a) the condition L*kappa > sigma^2
      says that it is negative at b; and its second moment of tri is not 2c^2/L (A/3 - BL/8) but 4c^2/(3L) (A - BL/2).

    SGV (eq. 8) is not scale-free as a CV is: it is proportional to f, and asy at h = 0.5 has area `width` where tri and
    box have 1. That alone can give asy the lower SGV of the paper's fig. 5a.

    Args:
        name: box, tri or asy.
        width: b, in units of the membrane, as are `mean`, `deviation` and `threshold`.
        height: h of asy; the theorems' ramp is h = 0.5.

    Returns:
        the CV; NaN where the Gaussian vanishes on the window.
    """
    def window(u: float) -> float:
        return WINDOWS[name](torch.tensor(u - threshold, dtype=torch.float64), width, height).item()

    def density(u: float) -> float:
        return math.exp(-((u - mean) / deviation)**2 / 2) / (deviation * math.sqrt(2 * math.pi))

    return variation(window, density, threshold - width, threshold + width)
