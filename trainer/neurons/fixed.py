"""The forward of the scan in a chip's integers, held exactly in floats.

As lava-nc 0.10 computes (`AbstractPyLifModelFixed`; D rounds towards zero, a current that leaves 24 bits wraps):

    D(v) = sgn(v) floor(|v| keep / 4096)
    v[t] = clip(D(v[t-1]) + wrap(64 a[t]) + 64 b - 64 theta*s[t-1], +-(2^23 - 1))
    s[t] = v[t] > 64 theta;  where the reset is to zero v = 0 after a spike, and nothing is subtracted; where what is
    taken off leaks with the membrane (subtract_leaky), v = v - 64 theta after it instead

with integer weighted spikes a, bias b and threshold theta. The backward is the float scan's, of u = v/(64 scale) and
theta/scale: straight through the truncation and the clip. float32 holds all of it exactly: D of v = 4096 hi + lo is
hi*keep + trunc(lo*keep/4096), both parts within 24 bits; what is added to it is a multiple of 64; and a sum that is
beyond 2^24, and rounded, is clipped below 2^23 in any case.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT = 64
"""Lava's `<< 6` of input, bias and threshold."""
STATE = 1 << 23
"""Where the current wraps; the membrane saturates one below."""
DECAY_UNIT = 4096
"""Leaks are counted in 4096ths."""


@dataclass(frozen=True)
class Fixed:
    """One layer in integers.

    Args:
        scale: integer units for 1 of the float membrane.
        threshold: in integer units.
        bias: what `current` holds of biases, integers, broadcast to one step's shape; None for none. It is added behind
            the wrap, so it has to be told apart.
    """

    scale: float
    threshold: int
    bias: Tensor | None = None

    @property
    def unit(self) -> float:
        """What one unit of the integer membrane v is of the float one."""
        return 1 / (SHIFT * self.scale)

    def float_threshold(self, like: Tensor) -> Tensor:
        """The threshold as the membrane is converted: u > theta wherever v > 64 theta."""
        return torch.tensor(SHIFT * self.threshold, dtype=like.dtype) * torch.tensor(self.unit, dtype=like.dtype)


def arriving(current: Tensor, fixed: Fixed) -> Tensor:
    """What integer current, biases included, adds to v: 64 times it, wrapped but for the bias."""
    u = current if fixed.bias is None else current - fixed.bias
    u = u * SHIFT
    u = u - 2 * STATE * (u > STATE).to(u) + 2 * STATE * (u <= -STATE).to(u)
    return u if fixed.bias is None else u + SHIFT * fixed.bias


def fixed_forward(current: Tensor, beta: Tensor, reset: str, fixed: Fixed) -> tuple[Tensor, Tensor]:
    """Spikes and float membrane (T, B, ...) of integer current (T, B, ...), biases included.

    Args:
        beta: leak per step in whole 4096ths, scalar or broadcast to one step's shape.
        reset: subtract, zero, subtract_leaky or none.
    """
    spikes, membrane = torch.empty_like(current), torch.empty_like(current)
    v = torch.zeros_like(current[0])
    keep, threshold = beta.to(v) * DECAY_UNIT, SHIFT * fixed.threshold
    unit = torch.tensor(fixed.unit, dtype=v.dtype)
    for t in range(len(current)):
        u = arriving(current[t], fixed)
        if t and reset == "subtract":
            u = u - threshold * spikes[t - 1]
        high = (v / DECAY_UNIT).trunc()
        decayed = high * keep + ((v - high * DECAY_UNIT) * (keep / DECAY_UNIT)).trunc()
        v = (decayed + u).clamp(1 - STATE, STATE - 1)
        spikes[t] = v > threshold
        torch.mul(v, unit, out=membrane[t])
        if reset == "zero":
            v = v * (1 - spikes[t])
        elif reset == "subtract_leaky":
            v = v - threshold * spikes[t]
    return spikes, membrane
