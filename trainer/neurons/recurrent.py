"""Leaky neurons that hear themselves: every spike reaches all neurons of its layer one step later.

    u[t] = beta*u[t-1] + I[t] + W s[t-1] - theta*s[t-1]          (reset by subtraction; snnTorch's RLeaky)
    u[t] = beta*(1 - s[t-1])*u[t-1] + I[t] + W s[t-1]            (to zero)

Step by step through autograd: what is heard depends on what was fired. The reset path is detached or not as in
`trainer.neurons.scan`; what goes through W never is.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.neurons.leaky import Leaky
from trainer.neurons.spikes import Surrogate


class Recurrent(Leaky):
    """A layer of `size` neurons with weights from all to all, without a bias; else as `Leaky`.

    Its current is (T, B, size).
    """

    def __init__(self, size: int, beta: float | Tensor = 0.9, threshold: float | Tensor = 1.0,
                 surrogate: Surrogate | None = None, **options):
        super().__init__(beta, threshold, surrogate, **options)
        self.recurrent = nn.Linear(size, size, bias=False)

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membrane before the reset, (T, B, size) each; see `Leaky.forward`."""
        assert self.windows is None, "A2SG is refused with recurrent layers, in FitConfig"
        current = current.to(torch.promote_types(current.dtype, self.threshold.dtype))
        beta, theta = self.beta.clamp(0, 1), self.threshold
        spikes, membranes = [], []
        for drive in current:
            u = drive
            if spikes:
                fired = spikes[-1]
                reset = fired.detach() if self.detach_reset else fired
                before = membranes[-1]
                u = (1 - reset) * before * beta if self.reset_mechanism == "zero" else before * beta
                u = u + drive + nn.functional.linear(fired, self.recurrent.weight)
                if self.reset_mechanism == "subtract":
                    u = u - reset * theta
            membranes.append(u)
            spikes.append(_Spike.apply(u, theta, self.surrogate, self.hard))
        return torch.stack(spikes), torch.stack(membranes)


class _Spike(torch.autograd.Function):
    """H(u - theta), or phi of it where spikes are smooth; backward phi' in both."""

    @staticmethod
    def forward(ctx, u, theta, surrogate, hard):
        z = u - theta
        ctx.save_for_backward(z, theta)
        ctx.surrogate = surrogate
        return (z > 0).to(u.dtype) if hard else surrogate(z, theta)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        z, theta = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(z, theta), None, None, None
