"""Spikes that go into a graph: from a file, and checked against the graph's Input."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, few, read_npz, require_memory
from targets.graph import Plan

LARGEST = float(np.finfo(np.float32).max)
"""Networks run in float32, too."""


def load_spikes(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """`spikes` (T, B, *shape) and, where the file has them, `labels` (B,) of an `.npz` file.

    Raises:
        HardspikeError: the file is missing or corrupt, lacks `spikes`, which hold what cannot be computed with, or its
            labels do not fit.
    """
    arrays = read_npz(path)
    if "spikes" not in arrays:
        raise HardspikeError(f"{path}: has no array 'spikes' (T, B, ...), only {few(arrays) or 'nothing'}")
    spikes, labels = arrays["spikes"], arrays.get("labels")
    if spikes.dtype.kind not in "biuf":
        raise HardspikeError(f"{path}: 'spikes' is of type {spikes.dtype}; numbers are needed")
    if labels is not None and spikes.ndim > 1 and labels.shape == spikes.shape[:1] != spikes.shape[1:2]:
        raise HardspikeError(f"{path}: 'labels' {labels.shape} are as many as the first axis of 'spikes' "
                             f"{spikes.shape}, which is time, (T, B, ...): the first two axes look swapped, save "
                             "np.swapaxes(spikes, 0, 1); of still pictures (B, ...) that a network repeats by itself, "
                             "leave 'labels' out")
    if labels is not None and (labels.dtype.kind not in "iu" or spikes.ndim < 2 or labels.shape != spikes.shape[1:2]):
        raise HardspikeError(f"{path}: 'labels' is {labels.dtype} {labels.shape}; one whole number for each of the "
                             f"samples of 'spikes' {spikes.shape} (T, B, ...) is needed")
    if spikes.ndim < 2:
        raise HardspikeError(f"{path}: 'spikes' has shape {spikes.shape}; (T, B, ...) is needed")
    if 0 in spikes.shape[:2]:
        raise HardspikeError(f"{path}: 'spikes' {spikes.shape}: there is no time step or no sample in them")
    if labels is not None and labels.size and labels.min() < 0:
        raise HardspikeError(f"{path}: label {labels.min()}; classes count from 0")
    if labels is not None and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise HardspikeError(f"{path}: label {labels.max()}; no network has so many outputs")
    ends = [float(spikes.min()), float(spikes.max())] if spikes.dtype.kind == "f" and spikes.size else []
    if not all(abs(end) <= LARGEST for end in ends):
        what = "NaN or infinity" if not np.isfinite(ends).all() else f"{max(map(abs, ends)):g}, beyond float32"
        raise HardspikeError(f"{path}: 'spikes' hold {what}; clean the data first")
    # torch knows neither foreign byte orders nor extended precision
    spikes = spikes.astype(np.float64 if spikes.dtype.itemsize > 8 else spikes.dtype.newbyteorder("="))
    return computable(torch.from_numpy(spikes)), None if labels is None else torch.from_numpy(labels.astype(np.int64))


def spread(spikes: Tensor, count: int) -> Tensor:
    """`count` samples of `spikes` (T, B, ...), evenly spread; all for 0, or where there are not so many."""
    if not count or count >= spikes.shape[1]:
        return spikes
    return spikes[:, torch.linspace(0, spikes.shape[1] - 1, count).round().long()]


def check_labels(labels: Tensor, outputs: int, source: object) -> None:
    """Refuse classes that a model has no output for: they would count as answered wrongly.

    Args:
        labels: (B,), from 0.
        outputs: values at the model's Output, one a class.
        source: of the labels, named in the error.

    Raises:
        HardspikeError: a label is `outputs` or more, or there is one for every pixel.
    """
    if labels.dim() != 1:
        raise HardspikeError(f"{source}: has a class for every pixel, and this takes one for every recording; `eval "
                             "accuracy`, `study`, `report` and `operations` take such data")
    if labels.numel() and int(labels.max()) >= outputs:
        raise HardspikeError(f"{source}: label {int(labels.max())}, but the model gives {outputs} outputs; are these "
                             "the labels of the data that it was trained on?")


def check_spikes(plan: Plan, spikes: Tensor) -> Tensor:
    """`spikes` in a type that torch computes with, if the Input of `plan` takes them.

    Raises:
        HardspikeError: the shape is not (T, B, *Input), T or B is 0, or a value is complex or not finite.
    """
    spikes = computable(spikes)
    shape = plan.output_shape[plan.input]
    if spikes.ndim < 2 or tuple(spikes.shape[2:]) != shape:
        raise HardspikeError(f"spikes of shape {tuple(spikes.shape)} do not fit Input '{plan.input}', "
                             f"which takes (T, B, {', '.join(map(str, shape))}){still(tuple(spikes.shape), shape)}")
    if 0 in spikes.shape[:2]:
        raise HardspikeError(f"spikes of shape {tuple(spikes.shape)}: there is no time step or no sample in them")
    if spikes.is_floating_point() and not spikes.isfinite().all():
        raise HardspikeError("spikes hold NaN or infinity; clean the data first")
    return spikes


def still(given: tuple[int, ...], taken: tuple[int, ...]) -> str:
    """What to do, for an error message, where spikes of the shape `given` are still pictures (B, ...) for a graph that
    takes frames `taken`; nothing where they are not."""
    if given[1:] != taken:
        return ""
    return ("; these are still pictures (B, ...): repeat each T times, "
            "np.savez('steps.npz', spikes=np.repeat(pictures[None], T, axis=0))")


def computable(spikes: Tensor) -> Tensor:
    """The same numbers in a type that torch computes with: uint16 to uint64 and floats of 8 bits it only converts.

    uint64 beyond int64 becomes float64, the widest there is.

    Raises:
        HardspikeError: the numbers are complex.
    """
    if spikes.is_complex():
        raise HardspikeError(f"spikes are complex ({spikes.dtype}); give real numbers")
    if spikes.dtype == torch.uint64:
        fits = spikes.numel() == 0 or int(spikes.view(torch.int64).min()) >= 0
        return spikes.to(torch.int64 if fits else torch.float64)
    if spikes.is_floating_point() and spikes.itemsize == 1:
        return spikes.float()
    return spikes.to({torch.uint16: torch.int32, torch.uint32: torch.int64}.get(spikes.dtype, spikes.dtype))


def check_memory(plan: Plan, spikes: Tensor, width: int, membrane: bool = False) -> None:
    """Refuse a run that the memory of this machine does not hold, before it begins.

    Args:
        width: bytes of a value.
        membrane: membranes are recorded as well.

    Raises:
        HardspikeError: as estimated, it needs more than `hardspike.SHARE` of the free memory.
    """
    size = {name: math.prod(plan.output_shape[name]) for name in plan.nodes}
    spiking = sum(size[name] for name in plan.spiking())
    widest = max(size[name] + sum(size[edge.source] for edge in plan.sources(name)) for name in plan.nodes)
    steps, batch = spikes.shape[:2]
    require_memory(steps * batch * (width * widest + spiking * (1 + 8 * membrane)),
                   f"a run of {steps} steps of {batch} samples", "take fewer samples or steps")
