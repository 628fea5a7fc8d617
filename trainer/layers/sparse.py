"""Convolutions and dense layers in training on the CPU, faster where most of their input is zero.

Spikes are: a layer whose input is nonzero in one place of twenty needs a twentieth of the multiplications of its output
and of its weights' gradient (its input's gradient stays dense). `linear` lists what is not zero, the events, and adds
up the weights that they choose, in C++ (sparse_native.cpp, compiled by `trainer.native`). These are the sums of torch's
layer in another order, so they differ by rounding (and a weight that is not finite is not multiplied by zeros: the
trainer checks the weights themselves). Where no gradient is asked for, in evaluation and export, the layers themselves
are called: what is compared spike for spike with an exported graph is torch's own.

For the backward the events are saved, not the input.
"""

import ctypes
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer import native

VECTOR = 16
"""Output channels are filled up to a multiple of this, as in sparse_native.cpp."""
PARTS, PART_BYTES = 16, 1 << 25
"""A convolution's weights' gradient is summed in PARTS parts, in fewer where those would take more memory; not by
threads, so that the sum does not depend on their number."""

OVERHEAD = 64
"""Of one event, in multiplications."""
CACHED = 1 << 18
"""Weights that a core keeps at hand: 1 MiB of float32."""

Listed = tuple[Tensor, Tensor, Tensor, Tensor]
"""Events: where those of each sample begin and end; their places within the sample in memory; their values."""


@dataclass(frozen=True)
class _Shape:
    """Of a convolution's weights, input and options, as in nn.Conv2d; `out` is the number of output channels."""

    out: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    channels_last: bool

    @property
    def lanes(self) -> int:
        """Output channels with their filling."""
        return _lanes(self.out)

    @property
    def taps(self) -> tuple[int, int]:
        """Most taps, per axis, by which one input pixel is seen."""
        return tuple(-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))

    @property
    def fits(self) -> bool:
        """Whether there is an output, and all places have 32 bits."""
        grid = math.prod(n + 2 * (p + k) for n, p, k in zip(self.size, self.padding, self.kernel, strict=True))
        return min(self.out_size) > 0 and max(grid * self.lanes, math.prod(_packed_size(self))) < 1 << 31

    @property
    def limit(self) -> float:
        """Share of nonzeros up to which events are faster."""
        needed = self.out * math.prod(self.kernel) / math.prod(self.stride)
        return _limit(needed, self.lanes * math.prod(self.taps), math.prod(_packed_size(self)) > CACHED)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in
                     zip(self.size, self.kernel, self.stride, self.padding, strict=True))


class _Events(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("samples", "inputs", "threads")),
                *((name, ctypes.c_void_p) for name in ("first", "last", "index", "value")))


class _Convolution(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("height", "width", "channels", "lanes", "rows", "length",
                                                      "weights", "grid", "row_step", "origin")),
                *((name, ctypes.c_void_p) for name in ("place", "block")))


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` for x (N, ...), by events where that is faster.

    nn.Linear also takes a picture (N, C, H, W), which it reads as if nn.Flatten had been there.
    """
    if type(layer) is nn.Linear and x.dim() in (2, 4):
        return _dense(layer, x, layer.weight, layer.bias) if _trains_here(layer, x) else layer(x.flatten(1))
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or not _trains_here(layer, x):
        return layer(x)
    return _conv(layer, x, layer.weight, layer.bias)


def weighted(layer: nn.Conv2d | nn.Linear, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `linear`, with other weights and biases than the layer's own."""
    dense = isinstance(layer, nn.Linear)
    if _trains_here(layer, x):
        return (_dense if dense else _conv)(layer, x, weight, bias)
    if dense:
        return nn.functional.linear(x.flatten(1), weight, bias)
    return nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _conv(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last)
    x = x if last else x.contiguous()
    events = None
    if layer.groups == 1 and layer.dilation == (1, 1) and not isinstance(layer.padding, str) and (
            x.dim() == 4 and x.shape[1] == layer.in_channels):
        shape = _Shape(*weight.shape[:2], tuple(x.shape[2:]), layer.kernel_size, layer.stride, layer.padding, last)
        events = _events(x, weight, shape.limit) if shape.fits else None
    if events:
        return _Conv2d.apply(x, weight, bias, shape, *events)
    # on CPUs torch's convolutions are faster in this layout, backward by a factor of two
    weight = weight.contiguous(memory_format=torch.channels_last)
    return nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _dense(layer: nn.Linear, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    order = None
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        order, x = x.shape[1:], x.permute(0, 2, 3, 1)
    x = x.flatten(1).contiguous()
    events = None
    if x.shape[1] == weight.shape[1]:
        events = _events(x, weight, _limit(len(weight), _lanes(len(weight))))
    if events:
        return _Linear.apply(x, weight, bias, order, *events)
    if order is not None:
        # to turn the weights costs less than to turn the pictures
        weight = weight.unflatten(1, order).permute(0, 2, 3, 1).flatten(1)
    return nn.functional.linear(x, weight, bias)


def _trains_here(layer: nn.Module, x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.device.type == "cpu" and not native.hooked(layer)


def _precision(x: Tensor) -> torch.dtype:
    """Of the input's gradient, the one product that stays dense. Sums over events are in float32 with autocast, too."""
    low = torch.is_autocast_enabled("cpu") and x.dtype == torch.float32
    return torch.get_autocast_dtype("cpu") if low else x.dtype


def _limit(needed: float, done: int, large: bool = False) -> float:
    """Share of nonzeros up to which events are faster, as measured: 0.3, less where less of their work is needed.

    Args:
        needed: multiplications for an event, on average over its places.
        done: those that are done, with the filling of lanes and taps; what else an event costs is worth OVERHEAD more.
        large: the weights that an event may choose from do not fit a core's own cache.
    """
    return (0.18 if large else 0.3) * needed / (done + OVERHEAD)


def _events(x: Tensor, weight: Tensor, limit: float) -> Listed | None:
    """The events of x (N, ...), dense in memory; None where more than `limit` of it is not zero, or where the library
    cannot take it."""
    if native.obstacle("layers/sparse_native", x, weight):
        return None
    most = int(limit * x.numel())
    first, last = x.new_empty(2, len(x), dtype=torch.int64)
    index, value = x.new_empty(most, dtype=torch.int32), x.new_empty(most)
    total = x.new_empty(1, dtype=torch.int64)
    _call("list", x, _described((first, last, index, value), x[0].numel()), x, most, total)
    count = int(total)
    if count > most:
        return None
    if count < most // 2:  # they are kept until the backward pass
        index, value = index[:count].clone(), value[:count].clone()
    return first, last, index, value


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, shape, *events):
        described, _kept = _convolution(shape)
        offset = weight.new_zeros(shape.lanes)
        if bias is not None:
            offset[:shape.out] = bias.detach()
        out = torch.empty((len(x), shape.out, *shape.out_size), dtype=x.dtype, device=x.device,
                          memory_format=torch.channels_last)
        _call("forward", x, _described(events, x[0].numel()), described, _packed(weight, shape), offset, out)
        ctx.save_for_backward(weight, *events)
        ctx.shape, ctx.size, ctx.precision = shape, x.shape, _precision(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, *events = ctx.saved_tensors
        shape = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = None
        if ctx.needs_input_grad[0]:
            # of the input only its size is read, but an expanded scalar would be copied
            like = torch.empty(ctx.size, dtype=ctx.precision, device=grad.device, memory_format=torch.channels_last)
            grad_x = torch.ops.aten.convolution_backward(
                grad.to(ctx.precision), like, weight.to(ctx.precision, memory_format=torch.channels_last), None,
                shape.stride, shape.padding, (1, 1), False, (0, 0), 1, (True, False, False))[0].to(grad.dtype)
        if not any(ctx.needs_input_grad[1:3]):
            return grad_x, *(None,) * (3 + len(events))
        described, _kept = _convolution(shape)
        parts = max(1, min(PARTS, len(grad), PART_BYTES // (described.weights * grad.element_size())))
        sums = grad.new_empty(parts, described.weights + shape.lanes)
        _call("gradient", grad, _described(events, ctx.size[1:].numel()), described, grad, parts, sums)
        weights, bias = sums[0].split((described.weights, shape.lanes))
        grad_bias = bias[:shape.out].clone() if ctx.needs_input_grad[2] else None
        return grad_x, _unpacked(weights, shape), grad_bias, None, *(None,) * len(events)


class _Linear(torch.autograd.Function):
    """`order`: x are pictures (N, H, W, C), flattened, of this (C, H, W), by which the weights go; None for vectors."""

    @staticmethod
    def forward(ctx, x, weight, bias, order, *events):
        count = len(weight)
        out = x.new_zeros(len(x), _lanes(count))
        if bias is not None:
            out[:, :count] = bias.detach()
        rows = weight.detach().t()
        if order is not None:
            rows = rows.unflatten(0, order).permute(1, 2, 0, 3).flatten(0, 2)
        rows = nn.functional.pad(rows, (0, out.shape[1] - count)).contiguous()
        _call("dense_forward", x, _described(events, x.shape[1]), out.shape[1], rows, out)
        ctx.save_for_backward(weight, rows, *events)
        ctx.order, ctx.precision = order, _precision(x)
        return out if out.shape[1] == count else out[:, :count].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, rows, *events = ctx.saved_tensors
        count, lanes = len(weight), rows.shape[1]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad.to(ctx.precision) @ rows[:, :count].t().to(ctx.precision)).to(grad.dtype)
        if ctx.needs_input_grad[1]:
            padded = nn.functional.pad(grad, (0, lanes - count)).contiguous()
            sums = torch.empty_like(rows)
            _call("dense_gradient", grad, _described(events, len(rows)), lanes, padded, sums)
            grad_weight = sums[:, :count].t()
            if ctx.order is not None:
                channels, *size = ctx.order
                grad_weight = grad_weight.unflatten(1, (*size, channels)).permute(0, 3, 1, 2).flatten(1)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias, None, *(None,) * len(events)


# ------------------------------------------------------------------------------------------- what the library is told


def _lanes(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR


def _described(events: Listed, inputs: int) -> _Events:
    return _Events(len(events[0]), inputs, torch.get_num_threads(), *(e.data_ptr() for e in events))


def _convolution(shape: _Shape) -> tuple[_Convolution, tuple[Tensor, Tensor]]:
    """The description, and the tables that it points to."""
    (height, width), (rows, columns), lanes = shape.out_size, shape.taps, shape.lanes
    tables = place, block, grid = _tables(shape)
    return _Convolution(height, width, shape.out, lanes, rows, columns * lanes, math.prod(_packed_size(shape)),
                        math.prod(grid) * lanes, grid[1] * lanes, ((rows - 1) * grid[1] + columns - 1) * lanes,
                        place.data_ptr(), block.data_ptr()), tables[:2]


@lru_cache(maxsize=256)
def _tables(shape: _Shape) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """place and block of `Convolution` in sparse_native.cpp, and height and width of the grid.

    An input at x is seen by outputs (x + padding)//stride and the taps-1 before it, by kernel columns
    (x + padding) % stride and every stride-th one after it. The margin holds the outputs that there are not.
    """
    grid, firsts, phases = [], [], []
    for n, out, k, s, p in zip(shape.size, shape.out_size, shape.taps, shape.stride, shape.padding, strict=True):
        seen = torch.arange(n, device="cpu") + p
        last = seen // s  # with a margin of taps - 1 in front, this is where the first one is
        grid.append(max(out + k - 1, int(last[-1]) + k))
        firsts.append(last)
        phases.append(seen % s)
    place = firsts[0][:, None] * grid[1] + firsts[1]
    block = phases[0][:, None] * shape.stride[1] + phases[1]
    place = place.expand(shape.channels, *shape.size)
    block = block * shape.channels + torch.arange(shape.channels, device="cpu")[:, None, None]
    if shape.channels_last:
        place, block = place.permute(1, 2, 0), block.permute(1, 2, 0)
    place, block = (place.flatten() * shape.lanes).int(), (block.flatten() * math.prod(shape.taps) * shape.lanes).int()
    return place, block, tuple(grid)


def _packed_size(shape: _Shape) -> tuple[int, ...]:
    """Phases and input channels, a block of kernel rows, columns and lanes each."""
    return (*shape.stride, shape.channels, *shape.taps, shape.lanes)


def _packed(weight: Tensor, shape: _Shape) -> Tensor:
    """Weights (out, channels, *kernel) in blocks; a block's rows and columns run backwards through the kernel."""
    (ky, kx), (sy, sx), (ty, tx) = shape.kernel, shape.stride, shape.taps
    weight = nn.functional.pad(weight.detach(), (0, sx * tx - kx, 0, sy * ty - ky, 0, 0, 0, shape.lanes - shape.out))
    return weight.view(shape.lanes, shape.channels, ty, sy, tx, sx).flip(2, 4).permute(3, 5, 1, 2, 4, 0).contiguous()


def _unpacked(packed: Tensor, shape: _Shape) -> Tensor:
    (ky, kx), (sy, sx), (ty, tx) = shape.kernel, shape.stride, shape.taps
    weight = packed.view(_packed_size(shape)).permute(5, 2, 3, 0, 4, 1).flip(2, 4)
    return weight.reshape(shape.lanes, shape.channels, ty * sy, tx * sx)[:shape.out, :, :ky, :kx].contiguous()


def _call(name: str, like: Tensor, *arguments: Tensor | ctypes.Structure | int) -> None:
    native.call("layers/sparse_native", f"sparse_{name}_{native.C_TYPES[like.dtype]}", *arguments)
