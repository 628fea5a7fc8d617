"""The leaky integrate-and-fire recurrence over time, with a backward derived by hand.

One autograd node for the whole scan: it saves the membrane u and nothing else, where autograd through a Python loop
would save several tensors a step.

    subtract:  u[t] = beta*u[t-1] + I[t] - theta*s[t-1]                 (SAST eqs. 3-5; snnTorch's `subtract`)
    zero:      u[t] = beta*(1 - s[t-1])*u[t-1] + I[t]                   (snnTorch's `zero`; Lava's LIF)
    subtract_leaky:  u[t] = beta*(u[t-1] - theta*s[t-1]) + I[t]         (A2SG eqs. A1-A3, their 1/tau in the weights)
    s[t] = H(u[t] - theta), or phi(u[t] - theta) in smooth mode; u and s are 0 before t = 0.

Backward, with g = dL/ds (direct), d = phi'(u - theta), a = dL/du:

    a[t] = g[t]*d[t] + c[t]*a[t+1],   dL/dI[t] = a[t]
    subtract:  c = beta - theta*d            zero:  c = beta*(1 - s - u*d)
    subtract_leaky:  c = beta - beta*theta*d

The terms with d in c are the reset path. A detached reset (what `snntorch.Leaky` does) leaves them out. d is phi' of
the surrogate or, in A2SG, a window whose width may change from step to step and be chosen on the way (A2SG alg. A1).

A layer in a chip's integers has another forward (`trainer.neurons.fixed`) and this backward, of its membrane in floats.

Three implementations of the same values: torch code that runs everywhere (below), C++ for the CPU (`scan_native`) and
Triton for CUDA GPUs (`scan_triton`). `implementation` tells which one runs. Choosing windows on the way is torch only.
"""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer import native
from trainer.neurons import scan_native, scan_triton
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.fixed import fixed_forward
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows


def lif_forward(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and membrane of the recurrence; no gradient.

    Args:
        current: I, (T, B, ...).
        beta: leak per step, scalar or broadcast to one step's shape.
        threshold: theta, likewise.
        dynamics: phi or H, and the reset.

    Returns:
        s and u, (T, B, ...) each. The order of operations is snnTorch's, so that float32 spikes are equal bit for bit.
    """
    if dynamics.fixed:
        return fixed_forward(current, beta, dynamics.reset, dynamics.fixed)
    spikes, membrane = torch.empty_like(current), torch.empty_like(current)
    u_before = s_before = None
    for t in range(len(current)):
        if t == 0:
            u = membrane[t].copy_(current[t])
        else:
            if dynamics.reset == "zero":
                u = torch.mul(1 - s_before, u_before, out=membrane[t]).mul_(beta).add_(current[t])
            else:
                if dynamics.reset == "subtract_leaky":
                    u_before = u_before - s_before * threshold
                u = torch.mul(u_before, beta, out=membrane[t]).add_(current[t])
                if dynamics.reset == "subtract":
                    u -= s_before * threshold
        z = u - threshold
        spikes[t] = (z > 0) if dynamics.hard else dynamics.surrogate(z, threshold)
        u_before, s_before = u, spikes[t]
    return spikes, membrane


def lif_backward(grad: Tensor, grad_membrane: Tensor | None, membrane: Tensor, beta: Tensor, threshold: Tensor,
                 dynamics: Dynamics, learned: tuple[bool, bool]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of current, beta and threshold from those of spikes and, where it has one, membrane, (T, B, ...) each.

    Other arguments as in `lif_forward`; `learned`: whether gradients of beta and of threshold are wanted (None if not).
    """
    u, surrogate, reset, windows = membrane, dynamics.surrogate, dynamics.reset, dynamics.windows
    choose = windows.choose if windows else None
    leaky = reset == "subtract_leaky"
    taken = beta * threshold if leaky else threshold  # off the next membrane, for a spike
    a, later, d_later = torch.empty_like(u), None, None
    grad_beta, grad_threshold = torch.zeros_like(beta), torch.zeros_like(threshold)
    # step by step, so that a step's tensors stay in cache
    for t in range(len(u) - 1, -1, -1):
        z = u[t] - threshold
        if choose or learned[1]:
            total = grad[t]  # dL/ds: the direct part and what flows back through the reset of the next step
            if later is not None and dynamics.through_reset:
                total = total - (beta * u[t] if reset == "zero" else taken) * later
        s = None
        if choose or reset == "zero" or any(learned):
            s = (z > 0).to(u.dtype) if dynamics.hard else surrogate(z, threshold)
        if choose:
            rest = None
            if windows.whole and later is not None:
                rest = (beta * (1 - s) if reset == "zero" else beta) * later
            if windows.whole and grad_membrane is not None:
                rest = grad_membrane[t] if rest is None else rest + grad_membrane[t]
            windows.widths[t] = choose(t, z, total, later if windows.whole else d_later, rest)
        d = windows.derivative(t, z) if windows else surrogate.derivative(z, threshold)
        if choose:
            d_later = total * d
        torch.mul(grad[t], d, out=a[t])
        if grad_membrane is not None:
            a[t] += grad_membrane[t]
        if later is not None:
            if reset == "zero":
                carry = (1 - s if dynamics.detach_reset else (1 - s).addcmul_(u[t], d, value=-1)).mul_(beta)
            elif dynamics.through_reset:
                carry = beta - taken * d
            else:
                carry = beta
            a[t].addcmul_(carry, later)
            if learned[0]:
                kept = u[t] * (1 - s) if reset == "zero" else u[t] - threshold * s if leaky else u[t]
                grad_beta += (later * kept).sum_to_size(beta.shape)
        if learned[1]:
            through = -d if windows else surrogate.threshold_gradient(z, threshold) - d
            grad_threshold += (total * through).sum_to_size(threshold.shape)
            if later is not None and (leaky or reset == "subtract"):
                grad_threshold -= (later * s * (beta if leaky else 1)).sum_to_size(threshold.shape)
        later = a[t]
    if choose:
        windows.choose = None
    if dynamics.fixed:
        a.div_(dynamics.fixed.scale)  # the current is in integers
    return a, grad_beta if learned[0] else None, grad_threshold if learned[1] else None


def _kernels(current: Tensor) -> ModuleType:
    """The compiled code for the device of the current."""
    return scan_triton if current.device.type == "cuda" else scan_native


class _LIFScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, beta, threshold, dynamics):
        kernels = _kernels(current)
        if kernels.obstacle(current, beta, threshold, dynamics):
            kernels = None
        spikes, membrane = (kernels.forward if kernels else lif_forward)(current, beta, threshold, dynamics)
        if dynamics.fixed:
            threshold = dynamics.fixed.float_threshold(membrane)
        ctx.save_for_backward(membrane, beta, threshold)
        ctx.dynamics, ctx.kernels = dynamics, kernels
        ctx.set_materialize_grads(False)  # the membrane is rarely part of the loss
        return spikes, membrane

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_membrane):
        membrane, beta, threshold = ctx.saved_tensors
        windows = ctx.dynamics.windows
        if grad is None:
            grad = torch.zeros_like(membrane)
        kernels = None if windows and windows.choose else ctx.kernels
        gradients = (kernels.backward if kernels else lif_backward)(
            grad, grad_membrane, membrane, beta, threshold, ctx.dynamics, ctx.needs_input_grad[1:3])
        return *gradients, None


def lif_scan(current: Tensor, beta: Tensor, threshold: Tensor, surrogate: Surrogate, *, hard: bool, reset: str,
             detach_reset: bool, windows: Windows | None = None) -> tuple[Tensor, Tensor]:
    """Spikes and membrane before the reset, (T, B, ...) each, of input current (T, B, ...).

    Both are differentiable in current, beta and threshold. In smooth mode with `detach_reset=False` the gradient is
    the exact derivative; in hard mode `surrogate` or, where given, `windows` gives the backward. `beta` and `threshold`
    as in `lif_forward`, the others as in `Dynamics`.
    """
    return scan(current, beta, threshold, Dynamics(surrogate, hard, reset, detach_reset, windows))


def scan(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """As `lif_scan`; with `dynamics.fixed`, current and spikes are a chip's integers, and the membrane is in floats all
    the same."""
    return _LIFScan.apply(current, beta, threshold, dynamics)


def implementation(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics | None = None) -> str:
    """Which code `lif_scan` runs on these tensors and why: "native: library", "triton: version" or "torch: what stands
    against the other two". Without `dynamics`, for the functions that all of them know.

    HARDSPIKE_KERNEL=torch in the environment forces torch.
    """
    kernels = _kernels(current)
    if reason := kernels.obstacle(current, beta, threshold, dynamics):
        return f"torch: {reason}"
    return f"triton: {scan_triton.version()}" if kernels is scan_triton else (
        f"native: {native.library('neurons/scan_native')[1]}")
