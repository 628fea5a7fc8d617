"""BatchNorm in training: over the minibatch of all processes, and in C++ on the CPU (norm_native.cpp)."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from hardspike import HardspikeError
from trainer import distributed, native

MOMENTUM = 0.1
"""Share of the running statistics that a minibatch becomes: torch's."""


class _Rows(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "channels", "threads"))


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """`layer(x)` for x (N, C, ...); in training its statistics are those of the minibatches of all processes, each of
    the same size.

    torch.nn.SyncBatchNorm does this on GPUs only.

    Raises:
        HardspikeError: in training a channel has one value only, or several processes run a layer that is not as
            `trainer.networks` makes it.
    """
    if not layer.training:
        return layer(x)
    count = x.numel() // x.shape[1] * distributed.size()
    if count < 2:
        raise HardspikeError(f"{layer}: one value a channel in a minibatch has no variance; take more recordings or "
                             "time steps")
    usual = (type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d) and x.dim() in (2, 4) and layer.affine
             and layer.track_running_stats and layer.momentum is not None)
    several = distributed.size() > 1
    if not several and (not usual or native.hooked(layer) or _obstacle(x, layer.weight)):
        return layer(x)
    if not usual:
        raise HardspikeError(f"{layer}: several processes train BatchNorm1d and BatchNorm2d with weights and running "
                             "statistics only; train it in one")
    y, mean, variance = _Norm.apply(x, layer.weight, layer.bias, layer.eps)
    with torch.no_grad():
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * (count / (count - 1)), layer.momentum)
    return y


def has_statistics(network: nn.Module) -> bool:
    """Whether any layer keeps BatchNorm's running statistics."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def warm_statistics(network: nn.Module) -> bool:
    """BatchNorm's running statistics as the plain mean of the minibatches so far, until those are as many as `momentum`
    looks back on: else what they begin with, mean 0 and variance 1, is most of them for dozens of steps.

    Returns:
        Whether any still is such a mean: if not, nothing is left to do before later steps.
    """
    warming = False
    for norm in (module for module in network.modules() if isinstance(module, _BatchNorm)):
        if norm.num_batches_tracked is not None:
            norm.momentum = max(MOMENTUM, 1 / (1 + int(norm.num_batches_tracked)))
            warming |= norm.momentum > MOMENTUM
    return warming


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics stay as they are: what is run belongs to other weights, or to no training."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def _obstacle(x: Tensor, weight: Tensor) -> str | None:
    """Why the library cannot take these, or None."""
    return native.obstacle("layers/norm_native", x, weight)


class _Norm(torch.autograd.Function):
    """(x - mean)/sqrt(variance + eps)*weight + bias, with mean and variance over all processes.

    Backward, of the sum of the losses of all processes, with g = dL/dy, n the joint number of values of a channel and
    sums over all processes:

        dL/dx = weight/sqrt(variance + eps) * (g - sum(g)/n - x_hat*sum(g*x_hat)/n)

    The gradients of weight and bias are those of this process; `distributed.average` joins them.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        ctx.kind = x.dtype
        x = _rows_inside(x.to(weight.dtype))  # bf16 in mixed precision
        ctx.native = not _obstacle(x, weight)
        mean, variance = _moments(x, ctx.native)
        if distributed.size() > 1:
            found = distributed.gather(torch.stack([mean, variance])[None])
            # of equally large shards: mean of the variances and variance of the means
            mean, variance = found[:, 0].mean(0), found[:, 1].mean(0) + found[:, 0].var(0, correction=0)
        scale = weight * (variance + eps).rsqrt()
        shift = bias - mean * scale
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        y = torch.empty_like(x)
        if ctx.native:
            _call("normalise", x, x, scale.double(), shift.double(), y)
        else:
            torch.addcmul(_beside(shift, x), x, _beside(scale, x), out=y)
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _mean, _variance):
        x, weight, mean, variance = ctx.saved_tensors
        grad = _rows_inside(grad)
        inverse = (variance + ctx.eps).rsqrt()
        if ctx.native:
            sums = x.new_empty(2, len(mean), dtype=torch.float64)
            _call("gradient_sums", x, x, grad, mean.double(), sums)
        else:
            axes = [0, *range(2, x.dim())]
            sums = torch.stack([grad.sum(axes), (grad * (x - _beside(mean, x))).sum(axes)])
        joint = sums.clone()
        distributed.average([joint])
        # the mean over processes, of as many values each
        along, across = joint / (x.numel() // x.shape[1])
        scale = weight * inverse
        slope, offset = -scale * inverse.square() * across, -scale * along
        grad_x = torch.empty_like(x)
        if ctx.native:
            _call("gradient", x, x, grad, *(v.double() for v in (mean, scale, slope, offset)), grad_x)
        else:
            torch.addcmul(_beside(offset, x), grad, _beside(scale, x), out=grad_x)
            grad_x.addcmul_(x - _beside(mean, x), _beside(slope, x))
        grad_bias, grad_weight = sums[0], sums[1] * inverse
        return grad_x.to(ctx.kind), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _rows_inside(x: Tensor) -> Tensor:
    """x with its channels innermost in memory, pictures and vectors alike."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel, to broadcast against x (N, C, ...)."""
    return values.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))


def _moments(x: Tensor, compiled: bool) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, float64 from the library."""
    if compiled:
        found = x.new_empty(2, x.shape[1], dtype=torch.float64)
        _call("moments", x, x, *found)
        return found[0], found[1]
    variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    return mean, variance


def _call(name: str, x: Tensor, *tensors: Tensor) -> None:
    rows = _Rows(x.numel() // x.shape[1], x.shape[1], torch.get_num_threads())
    native.call("layers/norm_native", f"norm_{name}_{native.C_TYPES[x.dtype]}", rows, *tensors)
