"""The scan on the CPU in C++ (scan_native.cpp, compiled by `trainer.native`)."""

import ctypes

import torch
from torch import Tensor

from trainer import native
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.fixed import SHIFT

LIBRARY = "neurons/scan_native"
RESETS = ("subtract", "zero", "none", "subtract_leaky")
FUNCTIONS = ("arctan", "fast_sigmoid", "sigmoid")
WINDOWS = ("", "box", "tri", "asy", "arc", "ramp")
"""What scan_native.cpp knows, in its order; whatever else there is, torch code runs."""
GRAIN = 32768
"""Elements below which a second thread does not pay; torch's own figure."""


class _Parameter(ctypes.Structure):
    _fields_ = (("values", ctypes.c_void_p), ("each", ctypes.c_int64))


class _Scan(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("steps", "neurons", "threads")),
                *((name, ctypes.c_int32) for name in ("hard", "reset", "detach_reset", "function", "rest_at_zero",
                                                      "window")),
                ("slope", ctypes.c_double), ("height", ctypes.c_double), ("widths", ctypes.c_void_p),
                *((name, _Parameter) for name in ("beta", "threshold", "rest", "rest_slope")),
                *((name, ctypes.c_double) for name in ("scale", "unit", "fire")), ("bias", _Parameter))


def obstacle(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics | None = None) -> str | None:
    """Why the library cannot take these, or None."""
    return unknown(dynamics) or native.obstacle(LIBRARY, current, beta, threshold)


def unknown(dynamics: Dynamics | None) -> str | None:
    """Which function of the neurons compiled code does not hold, C++ or Triton; None where it holds all."""
    if dynamics is None:
        return None
    windows = dynamics.windows.name if dynamics.windows else ""
    for kind, name, known in (("surrogate", dynamics.surrogate.name, FUNCTIONS), ("window", windows, WINDOWS),
                              ("reset", dynamics.reset, RESETS)):
        if name not in known:
            return f"{kind} {name}: not among the compiled ones ({', '.join(filter(None, known))})"
    return None


def forward(current: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """As `trainer.neurons.scan.lif_forward`."""
    current = dense(current.detach())
    spikes, membrane = torch.empty_like(current), torch.empty_like(current)
    scan, _kept = _describe(current, beta, threshold, dynamics)
    _call("fixed" if dynamics.fixed else "forward", current, scan, current, spikes, membrane)
    return spikes, membrane


def backward(grad: Tensor, grad_membrane: Tensor | None, membrane: Tensor, beta: Tensor, threshold: Tensor,
             dynamics: Dynamics, learned: tuple[bool, bool]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As `trainer.neurons.scan.lif_backward`. Gradients of beta and threshold are summed in float64, in the same order
    whatever the number of threads."""
    scan, kept = _describe(membrane, beta, threshold, dynamics)
    if windows := dynamics.windows:
        scan.window, scan.height = WINDOWS.index(windows.name), windows.height
        kept.append(widths := windows.widths.to("cpu", torch.float64).contiguous())
        scan.widths = widths.data_ptr()
    grad_current = torch.empty_like(membrane)
    sums = [None if not needed else torch.empty_like(membrane[0], dtype=torch.float64) if value.numel() > 1 else
            torch.empty(native.library(LIBRARY)[0].lif_blocks(ctypes.c_int64(scan.neurons)), dtype=torch.float64)
            for value, needed in zip((beta, threshold), learned, strict=True)]
    _call("backward", membrane, scan, membrane, laid_out_as(membrane, grad), laid_out_as(membrane, grad_membrane),
          grad_current, *sums)
    return grad_current, *(summed(value, found) for value, found in zip((beta, threshold), sums, strict=True))


def summed(parameter: Tensor, sums: Tensor | None) -> Tensor | None:
    """The gradient of a parameter from sums of it, one a neuron or, where all neurons share it, one a block."""
    if sums is None:
        return None
    shape = parameter.shape
    return (sums.sum_to_size(shape) if parameter.numel() > 1 else sums.sum().reshape(shape)).to(parameter.dtype)


def _describe(like: Tensor, beta: Tensor, threshold: Tensor, dynamics: Dynamics) -> tuple[_Scan, list[Tensor]]:
    """What the library is told, and the tensors that it points to."""
    kept, surrogate = [], dynamics.surrogate

    def parameter(value: Tensor) -> _Parameter:
        if value.numel() > 1:
            value = torch.empty_like(like[0]).copy_(value)
        kept.append(value)
        return _Parameter(value.data_ptr(), value.numel() > 1)

    scan = _Scan(steps=len(like), neurons=like[0].numel(), hard=dynamics.hard,
                 reset=RESETS.index(dynamics.reset), detach_reset=dynamics.detach_reset,
                 threads=torch.get_num_threads() if like.numel() > GRAIN else 1,
                 function=FUNCTIONS.index(surrogate.name), slope=surrogate.slope,
                 rest_at_zero=surrogate.rest_at_zero, beta=parameter(beta), threshold=parameter(threshold))
    if surrogate.rest_at_zero:
        scan.rest = parameter(surrogate.rest(threshold))
        scan.rest_slope = parameter(surrogate.derivative(-threshold, threshold))
    scan.scale = 1
    if fixed := dynamics.fixed:
        scan.scale, scan.unit, scan.fire = fixed.scale, fixed.unit, SHIFT * fixed.threshold
        bias = fixed.bias if fixed.bias is not None else like.new_zeros(())
        scan.bias = parameter(bias.detach())
    return scan, kept


def _call(name: str, like: Tensor, scan: _Scan, *tensors: Tensor | None) -> None:
    native.call(LIBRARY, f"lif_{name}_{native.C_TYPES[like.dtype]}", scan, *tensors)


def dense(x: Tensor) -> Tensor:
    """x, copied unless its time steps follow each other in memory without gaps, in whatever order of other axes:
    `channels_last` stays what it is."""
    order = sorted(range(1, x.dim()), key=lambda axis: -x.stride(axis))
    return x if x.permute(0, *order).is_contiguous() else x.contiguous()


def laid_out_as(like: Tensor, x: Tensor | None) -> Tensor | None:
    return x if x is None or x.stride() == like.stride() else torch.empty_like(like).copy_(x)
