"""Linear operations on pictures that are a convolution with a single tap, found out by trying.

Concatenated channels, slices and shuffles of channels, crops, paddings, strided slices and shifts all take each value
of the picture that they make from one place of the one that they get, the same place for all channels. So does
`F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))`, a residual network's shortcut. As a matrix they would be large, and
what comes of a matrix is no picture for NIR any more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from export.watch.dense import LARGEST, close
from export.watch.fold import Apply, Expr

Run = Callable[[list[Tensor]], Tensor]
"""One operation on values for each thing that it is made of, float64 with the batch."""


@dataclass(frozen=True)
class Tap:
    """One tap: weight (D, C), or (C,) where each channel keeps to itself; kernel size, where in it the tap is, stride
    and padding along each axis."""

    weight: np.ndarray
    kernel: tuple[int, ...]
    at: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def node(self, size: tuple[int, ...], bias: np.ndarray) -> nir.NIRNode:
        """The convolution of a picture of `size`."""
        apart = self.weight.ndim == 1
        weight = np.zeros((len(self.weight), 1 if apart else self.weight.shape[1], *self.kernel))
        weight[(..., *self.at)] = self.weight[:, None] if apart else self.weight
        groups = len(weight) if apart else 1
        if len(size) == 1:
            return nir.Conv1d(size[0], weight, self.stride[0], self.padding[0], 1, groups, bias)
        return nir.Conv2d(size, weight, self.stride, self.padding, 1, groups, bias)

    def keeps(self) -> bool:
        """Whether it hands on what it gets."""
        return self.weight.ndim == 1 and bool((self.weight == 1).all()) and set(
            self.kernel + self.stride) == {1} and not any(self.padding)


def taps(expr: Apply, sources: list[Expr], run: Run) -> tuple[list[Tap], np.ndarray] | None:
    """A tap for each source and the offset of each channel; None where the operation is something else.

    Args:
        run: the operation on values for each of `sources`.
    """
    batch, *shape = expr.shape()
    shapes = [source.shape() for source in sources]
    if len(shape) not in (2, 3) or any(len(s) != len(shape) + 1 or s[0] != batch for s in shapes):
        return None
    zeros = [torch.zeros(s, dtype=torch.float64) for s in shapes]
    offset = run(zeros)
    by_channel = offset[0].flatten(1)
    if not torch.equal(offset, offset[:1].expand_as(offset)) or not torch.equal(by_channel, by_channel[:, :1].expand_as(
            by_channel)) or not offset.isfinite().all():
        return None
    found = []
    for number in range(len(sources)):
        def alone(values: Tensor, number: int = number) -> Tensor:
            return run([*zeros[:number], values, *zeros[number + 1:]]) - offset

        tap = _tap(shapes[number], tuple(shape), alone)
        if tap is None:
            return None
        found.append(tap)
    bias = by_channel[:, 0].numpy().copy()
    generator = torch.Generator().manual_seed(2)
    probes = [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    for scale in (1.0, -1e-3, 1e4):  # a clamp is the identity as long as nothing reaches it
        wanted = sum(_convolved(tap, scale * probe) for tap, probe in zip(found, probes, strict=True))
        if not close(run([scale * probe for probe in probes]) - offset, wanted):
            return None
    return found, bias


def _tap(given: tuple[int, ...], shape: tuple[int, ...], run: Callable[[Tensor], Tensor]) -> Tap | None:
    """The tap of one source (B, C, ...) in an operation that makes (D, ...)."""
    batch, channels, *size = given
    generator = torch.Generator().manual_seed(3)
    mix = torch.rand(channels, dtype=torch.float64, generator=generator) + 0.5
    even = mix.view(1, -1, *[1] * len(size)).expand(given)
    one = run(even)[0]
    valid = one.abs() > 1e-9
    if not valid.any():
        return None
    axes = []
    for axis, length in enumerate(size):
        code = torch.arange(1, length + 1, dtype=torch.float64)
        coded = even * code.view(-1, *[1] * (len(size) - axis - 1))
        where = (run(coded)[0] / one).where(valid, torch.nan) - 1
        line = _line(where, axis, length, shape[1 + axis])
        if line is None:
            return None
        axes.append(_geometry(length, shape[1 + axis], *line))
    spot = tuple(int(n) for n in valid.flatten(1).any(0).view(shape[1:]).nonzero()[0])
    weight = np.zeros((shape[0], channels))
    for start in range(0, channels, batch):
        units = torch.zeros(given, dtype=torch.float64)
        count = min(batch, channels - start)
        units[torch.arange(count), start + torch.arange(count)] = 1
        weight[:, start:start + count] = run(units)[(slice(0, count), slice(None), *spot)].T.numpy()
    kernel, at, stride, padding = zip(*axes, strict=True)
    if weight.shape[0] == channels and not (weight - np.diag(np.diag(weight))).any():
        weight = np.diag(weight).copy()
    if weight.size * int(np.prod(kernel)) > LARGEST:
        return None
    return Tap(weight, kernel, at, stride, padding)


def _line(where: Tensor, axis: int, before: int, after: int) -> tuple[int, int] | None:
    """(stride, first place) along an axis, seen from the places that values came from; None where there is no such."""
    rows = where.movedim(1 + axis, 0).reshape(after, -1)
    place = rows.nan_to_num(nan=-1e9).amax(1)
    known = place > -1e8
    same = (rows - place[:, None]).abs().nan_to_num(nan=0.0).amax(1) < 1e-6
    numbers = known.nonzero()[:, 0]
    if not same[known].all() or not (place[known] - place[known].round()).abs().max() < 1e-6:
        return None
    first = int(numbers[0])
    stride = round(float(place[numbers[1]] - place[numbers[0]])) if len(numbers) > 1 else 1
    start = round(float(place[first])) - stride * first
    reached = start + stride * torch.arange(after)
    if stride < 1 or not torch.equal(known, (reached >= 0) & (reached < before)):
        return None
    return (stride, start) if (place[known] - reached[known]).abs().max() < 1e-6 else None


def _geometry(before: int, after: int, stride: int, start: int) -> tuple[int, int, int, int]:
    """(kernel size, place of the tap in it, stride, padding) that begin at `start` and end after `after` places."""
    padding = max(0, -start)
    while (kernel := before + 2 * padding - stride * (after - 1)) < start + padding + 1:
        padding += 1
    return max(start + padding + 1, kernel - stride + 1), start + padding, stride, padding


def _convolved(tap: Tap, values: Tensor) -> Tensor:
    node = tap.node(tuple(values.shape[2:]), np.zeros(len(tap.weight)))
    function = functional.conv1d if values.ndim == 3 else functional.conv2d
    return function(values, torch.from_numpy(node.weight), None, tap.stride, tap.padding, 1, int(node.groups))
