"""Backward windows of A2SG: what stands in for dH/dz, with one width per layer and time step.

With z = u - theta and the width b (the paper's beta, in units of the membrane):

    box   1/(2b)                    for |z| < b        (A2SG eq. A6)
    tri   max(0, b - |z|)/b^2                          (A2SG eq. A7)
    asy   z/(2b) + h                for |z| <= b       (A2SG eq. 10)
    ramp  (z + b)/(2b^2)            for |z| <= b       (A2SG fig. A1: ASY of area 1)
    arc   1/(2b) / (1 + (pi*z/(2b))^2)                 (arctan with alpha = 1/b: ARC of A2SG table 1)

box, tri, ramp and arc have area 1 whatever the width. asy does not: its area is 2bh; it is non-negative for h >= 0.5
only. The paper's eq. 10 and its figures differ in this; ramp is asy with h = 1/2, divided by its area.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor  # late: the configuration of a run needs the names and no tensors


def box(z: "Tensor", width: float, height: float) -> "Tensor":
    """A2SG eq. A6; `height` is not used."""
    return (z.abs() < width).to(z.dtype).mul_(1 / (2 * width))


def tri(z: "Tensor", width: float, height: float) -> "Tensor":
    """A2SG eq. A7; `height` is not used."""
    return (width - z.abs()).clamp_(min=0).mul_(1 / width**2)


def asy(z: "Tensor", width: float, height: float) -> "Tensor":
    """A2SG eq. 10, `height` is h."""
    # z + 2bh first: exactly 0 at z = -b for h = 1/2, and never below
    return (z + 2 * width * height).mul_(1 / (2 * width)).mul_(z.abs() <= width)


def ramp(z: "Tensor", width: float, height: float) -> "Tensor":
    """ASY of area 1; `height` is not used."""
    return (z + width).mul_(1 / (2 * width**2)).mul_(z.abs() <= width)


def arc(z: "Tensor", width: float, height: float) -> "Tensor":
    """Derivative of an arctan of slope 1/(2*width); `height` is not used."""
    return (z * (math.pi / (2 * width))).square_().add_(1).reciprocal_().mul_(1 / (2 * width))


WINDOWS: dict[str, Callable[["Tensor", float, float], "Tensor"]] = {
    "box": box, "tri": tri, "asy": asy, "arc": arc, "ramp": ramp}
"""Name -> f(z, width, height), shaped like z."""


@dataclass
class Windows:
    """The windows of one layer.

    Args:
        name: box, tri, asy, arc or ramp.
        widths: (T,) float64, one width a time step, in units of the membrane; of `trainer.neurons.levels` one a
            threshold, which then is the t of what follows.
        height: h of asy.
        choose: called once a time step, last step first, in the next backward pass, and then forgotten: (t, z, q,
            later, rest) -> the width of step t. q = dL/ds[t], everything that flows back into the spikes of the step,
            and later the local gradient d[t+1] = q*f of the next step at its chosen width (None at the last step).
        whole: what `choose` is told: later is the whole a[t+1] = dL/du[t+1], and a[t] = q*f + rest (A2SG eq. A4), where
            rest, which no width changes, is what flows back along the membrane. Else rest is None.
    """

    name: str
    widths: "Tensor"
    height: float = 0.5
    choose: Callable[[int, "Tensor", "Tensor", "Tensor | None", "Tensor | None"], float] | None = None
    whole: bool = False

    def derivative(self, t: int, z: "Tensor") -> "Tensor":
        """f(z) at the width of step t, shaped like z."""
        return WINDOWS[self.name](z, self.widths[t].item(), self.height)
