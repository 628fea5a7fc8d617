"""I-LIF: a neuron that gives whole numbers 0..D in training, and is D neurons with a threshold each on a chip.

    u[t] = beta*(u[t-1] - theta*s[t-1]) + I[t]             (E-SpikeFormer; beta = 0: no memory, its T = 1)
    s[t] = sum_i H(u[t] - theta_i),   theta_i = (i - 1/2)*theta,   i = 1..D

which is clip(round(u/theta), 0, D) but for ties. s is held constant in the reset. What is passed on is s/norm. In
smooth mode phi stands for H.

Backward, with g = dL/ds and a = dL/du:

    a[t] = g[t]*sum_i f_i(u[t] - theta_i) + beta*a[t+1]

where f_i is phi' of the surrogate or a window with a width of its own for each threshold; BOX of width theta/2 all
over is the published straight-through gradient, 1/theta within the range. A2SG's search goes over thresholds as it
goes over steps elsewhere: the highest first (least SGV), then each one below (greatest TGC with the one above).

In a chip's integers (`in_integers`; no memory, which chips do not share among neurons) the D thresholds are h, 3h, 5h
and so on of one whole number h, what comes in wraps as `trainer.neurons.fixed` says, and the backward is the one above.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hardspike import HardspikeError
from trainer.neurons.fixed import SHIFT, Fixed, arriving
from trainer.neurons.leaky import Leaky
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows


class LevelLeaky(Leaky):
    """`Leaky` with D = `levels` thresholds.

    Its `forward` gives s (T, B, ...), whole numbers in hard mode, and the membrane; the network passes s/norm on.

    Args:
        levels: D.
        norm: what s is divided by before the next layer.
        options: as of `Leaky`; the reset is by subtraction, leaks with the membrane and is detached.
    """

    def __init__(self, beta: float, threshold: float, surrogate: Surrogate, levels: int, norm: int):
        super().__init__(beta, threshold, surrogate, detach_reset=True)
        self.levels, self.norm = levels, norm

    def thresholds(self) -> Tensor:
        """theta_i, (D,), ascending."""
        return (torch.arange(self.levels, dtype=self.threshold.dtype, device=self.threshold.device) + 0.5) \
            * self.threshold

    def windows_of(self, steps: int) -> int:
        """One window a threshold."""
        return self.levels

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """s and membrane before the reset, (T, B, ...) each, of input current (T, B, ...)."""
        current = current.to(torch.promote_types(current.dtype, self.threshold.dtype))
        return _Levels.apply(current, self, self.windows if self.hard else None, None)

    def in_integers(self, current: Tensor, fixed: Fixed) -> tuple[Tensor, Tensor]:
        """`forward` of integer current without memory, hard, as D neurons of a chip; the membrane is in floats.

        Args:
            fixed: its threshold is even: the D thresholds are its odd halves.
        """
        return _Levels.apply(current, self, self.windows, fixed)


def count(u: Tensor, neuron: LevelLeaky) -> Tensor:
    """s of membranes of any shape: how many thresholds lie below, or in smooth mode the sum of their phi."""
    spikes = torch.zeros_like(u)
    for threshold in neuron.thresholds():
        z = u - threshold
        spikes += (z > 0).to(u.dtype) if neuron.hard else neuron.surrogate(z, threshold)
    return spikes


def highest(neuron: Leaky, threshold: int) -> int:
    """The largest integer threshold of a layer on a chip, where `threshold` stands for theta: of D, (2D - 1)*h."""
    return threshold // 2 * (2 * neuron.levels - 1) if isinstance(neuron, LevelLeaky) else threshold


def require_one_threshold(neurons: Mapping[str, Leaky], what: str) -> None:
    """Refuse what is of zeros and ones alone.

    Raises:
        HardspikeError: a layer counts; names it.
    """
    for name, neuron in neurons.items():
        if isinstance(neuron, LevelLeaky):
            raise HardspikeError(f"layer '{name}': its neurons have {neuron.levels} thresholds, and {what} is of "
                                 "neurons with one; leave it out")


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, neuron, windows, fixed):
        beta = neuron.beta.clamp(0, 1)
        if fixed:
            v = arriving(current, fixed)
            spikes, membrane = torch.zeros_like(v), v * fixed.unit
            for i in range(neuron.levels):
                spikes += v > SHIFT * (2 * i + 1) * (fixed.threshold // 2)
        else:
            spikes, membrane = torch.empty_like(current), torch.empty_like(current)
            for t in range(len(current)):
                membrane[t] = current[t] if t == 0 else \
                    beta * (membrane[t - 1] - neuron.threshold * spikes[t - 1]) + current[t]
                spikes[t] = count(membrane[t], neuron)
        ctx.save_for_backward(membrane, beta, neuron.thresholds())
        ctx.surrogate, ctx.windows, ctx.unit = neuron.surrogate, windows, fixed.scale if fixed else 1
        ctx.set_materialize_grads(False)
        return spikes, membrane

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_membrane):
        membrane, beta, thresholds = ctx.saved_tensors
        a = torch.zeros_like(membrane)
        if grad is not None:
            a = grad * _slope(membrane, grad, thresholds, ctx.surrogate, ctx.windows)
        if grad_membrane is not None:
            a = a + grad_membrane
        for t in range(len(a) - 2, -1, -1):
            a[t] += beta * a[t + 1]
        return a / ctx.unit, None, None, None


def _slope(u: Tensor, grad: Tensor, thresholds: Tensor, surrogate: Surrogate, windows: Windows | None) -> Tensor:
    """ds/du, the sum over thresholds; the highest is looked at first, which is where a search begins."""
    total, later = torch.zeros_like(u), None
    choose = windows.choose if windows else None
    for i in range(len(thresholds) - 1, -1, -1):
        z = u - thresholds[i]
        if choose:  # recordings first, as a search takes a part of them
            windows.widths[i] = choose(i, z.transpose(0, 1), grad.transpose(0, 1), later, None)
        f = windows.derivative(i, z) if windows else surrogate.derivative(z, thresholds[i])
        if choose:
            later = (grad * f).transpose(0, 1)
        total += f
    if choose:
        windows.choose = None
    return total
