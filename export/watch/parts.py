"""A user's samples a few at a time, and others that are like them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.watch.choice import observe
from export.watch.usage import Run, Usage
from export.watch.values import tensors, transform
from hardspike import HardspikeError

FEW = 8
"""Samples of the recordings that a graph is made of."""
LARGEST, ROOM = 64, 10**9
"""Samples that are recorded at once, and bytes that their record may take."""


@dataclass
class Part:
    """Some of the samples."""

    usage: Usage
    samples: int


def chunk_of(run: Run) -> int:
    """How many samples a recording has room for, seen from one of a few."""
    kept = {id(t): t.numel() * t.element_size() for t in run.recorder.kept()}
    for calls in run.recorder.calls.values():
        kept |= {id(call): 9 * call.spikes.numel() for call in calls}
    batch = max(1, next(iter(run.recorder.calls.values()))[0].input.shape[0])
    return int(min(LARGEST, max(1, ROOM * batch // max(1, sum(kept.values())))))


def parts(usage: Usage, chunk: int) -> Iterator[Part]:
    """All samples, at most `chunk` at a time where forward takes them in parts."""
    axes, batch = batch_axes(usage)
    if not axes:
        yield Part(usage, batch)
        return
    for start in range(0, batch, chunk):
        yield Part(cut(usage, axes, start, start + chunk), min(chunk, batch - start))


def few(usage: Usage) -> Usage:
    """The first samples."""
    axes, _ = batch_axes(usage)
    return cut(usage, axes, 0, FEW) if axes else usage


def cut(usage: Usage, axes: dict[int, int], start: int, stop: int) -> Usage:
    """Samples `start` to `stop`; `axes`: number of a tensor among the arguments -> its batch axis."""
    numbers = iter(range(10**9))

    def part(tensor: Tensor) -> Tensor:
        axis = axes.get(next(numbers))
        return tensor if axis is None else tensor.narrow(axis, start, min(stop, tensor.shape[axis]) - start)

    args, kwargs = transform((usage.args, usage.kwargs), Tensor, part)
    return replace(usage, args=args, kwargs=kwargs)


def others(usage: Usage, seed: int = 1) -> Usage:
    """The same network on other samples: bits drawn anew, other values mixed up and changed a little."""
    generator = torch.Generator().manual_seed(seed)

    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            order = torch.randperm(tensor.numel(), generator=generator)
            return tensor.flatten()[order].reshape(tensor.shape) if tensor.numel() else tensor
        if not tensor.any() or not tensor.isfinite().all():
            return tensor
        if ((tensor == 0) | (tensor == 1)).all():
            rate = min(0.9, 0.05 + 1.1 * float(tensor.mean()))
            return (torch.rand(tensor.shape, generator=generator) < rate).to(tensor.dtype)
        order = torch.randperm(tensor.numel(), generator=generator)
        factor = 0.7 + 0.6 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        mixed = tensor.flatten()[order].reshape(tensor.shape) * factor
        return mixed.clamp(float(tensor.min()), float(tensor.max())).to(tensor.dtype)

    args, kwargs, calls = transform((usage.args, usage.kwargs, usage.calls), Tensor, change)
    return replace(usage, args=args, kwargs=kwargs, calls=calls)


def extremes(usage: Usage) -> Iterator[Usage]:
    """The same network on samples far from the given ones: silent, everywhere 1, a thousand times as large, silent at
    one place of each axis, so in one step."""
    for change in (torch.zeros_like, torch.ones_like, lambda tensor: tensor * 1000, *map(_gap, range(3))):
        def changed(tensor: Tensor, change: Callable[[Tensor], Tensor] = change) -> Tensor:
            return change(tensor.detach()) if tensor.is_floating_point() else tensor

        args, kwargs, calls = transform((usage.args, usage.kwargs, usage.calls), Tensor, changed)
        yield replace(usage, args=args, kwargs=kwargs, calls=calls)


def _gap(axis: int) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        if tensor.ndim > axis:
            changed.narrow(axis, tensor.shape[axis] // 2, 1).zero_()
        return changed

    return change


def batch_axes(usage: Usage) -> tuple[dict[int, int], int]:
    """Which axis of each tensor among the arguments counts samples, and how many there are; {} where it cannot be seen.

    Tried by running the network on all samples but one.
    """
    given = [tensor for _, tensor in tensors((usage.args, usage.kwargs))]
    if usage.outside and not usage.calls:
        batch = usage.args[0].shape[1]
        axes = {0: 1} | {n: 0 for n, t in enumerate(given) if n and t.ndim and t.shape[0] == batch}
        return (axes, batch) if batch > 1 and _runs(usage, axes, batch) else ({}, batch)
    try:
        batch = observe(usage).first[0]
    except (HardspikeError, IndexError):
        return {}, 1
    if batch < 2 or usage.calls:
        return {}, batch
    choices = [[axis for axis, size in enumerate(t.shape) if size == batch] for t in given]
    for first in (choices[0] if choices else []):
        axes = {0: first} | {n: found[0] for n, found in enumerate(choices) if n and found}
        if _runs(usage, axes, batch):
            return axes, batch
    return {}, batch


def _runs(usage: Usage, axes: dict[int, int], batch: int) -> bool:
    """Whether forward takes one sample less for what it is: as many steps, one sample less."""
    try:
        whole, less = observe(usage), observe(cut(usage, axes, 0, batch - 1))
    except (HardspikeError, RuntimeError):
        return False
    return less.calls == whole.calls and less.first[:1] == (batch - 1,) and less.first[1:] == whole.first[1:]
