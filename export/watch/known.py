"""Which value each tensor of a run stands for, also where one is changed in place through another one."""

import weakref

import numpy as np
import torch
from torch import Tensor

from export.watch.values import Value, tensors

_LARGEST = 2**22
"""Elements of a tensor whose parts may be changed through views of it."""
Lost = str
"""Stands for a value that cannot be known any more: the operation that did it."""


def overwritten(old: Tensor, new: Tensor, into: np.ndarray, taken: np.ndarray) -> Tensor:
    """`old` with `new` at the places where the two share memory: element into[i] is element taken[i] of `new`."""
    flat = old.flatten().clone()
    flat[torch.from_numpy(into)] = new.flatten()[torch.from_numpy(taken)].to(flat.dtype)
    return flat.reshape(old.shape)


class Known:
    """Tensors by identity; a change in place is seen by their version."""

    def __init__(self):
        self.kept: list[Tensor] = []
        self._values: dict[int, tuple[weakref.ref, Value | Lost, int]] = {}
        self._sharing: dict[int, list[int]] = {}

    def know(self, tensor: Tensor, value: Value | Lost) -> None:
        """From now on `tensor` stands for `value`."""
        if isinstance(value, Value) and value.tensor is not None:
            self.kept.append(tensor)
        self._values[id(tensor)] = weakref.ref(tensor), value, version_of(tensor)
        storage = _storage(tensor)
        if storage:
            self._sharing.setdefault(storage, []).append(id(tensor))

    def lookup(self, tensor: Tensor) -> Value | Lost | None:
        """What it stands for; None where it was never seen."""
        entry = self._values.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return None
        return entry[1] if isinstance(entry[1], Lost) or entry[2] == version_of(tensor) else "an operation out of sight"

    def keep_contents(self, tree: object) -> None:
        """Before a change in place: what the values that are known by these very tensors are worth."""
        for _, tensor in tensors(tree):
            for shared in (tensor, *self._others(tensor)):
                value = self.lookup(shared)
                if isinstance(value, Value) and value.tensor is shared:
                    value.tensor = shared.clone()

    def changed(self, tensor: Tensor, value: Value, name: str) -> None:
        """`tensor` was changed in place to `value` by the operation `name`, and with it what shares its memory."""
        for other in self._others(tensor):
            before = self._values[id(other)][1]
            self.know(other, name if isinstance(before, Lost) else _through(other, before, tensor, value) or name)
        self.know(tensor, value)

    def _others(self, tensor: Tensor) -> list[Tensor]:
        """The other living tensors in the same memory."""
        storage, found = _storage(tensor), {}
        for key in self._sharing.get(storage, []):
            entry = self._values.get(key)
            shared = entry[0]() if entry else None
            if shared is not None and shared is not tensor and _storage(shared) == storage:
                found[key] = shared
        return list(found.values())


def _through(other: Tensor, before: Value, tensor: Tensor, value: Value) -> Value | None:
    """What `other`, which was `before`, is worth since `tensor` in the same memory became `value`."""
    if max(other.numel(), tensor.numel()) > _LARGEST or other.element_size() != tensor.element_size():
        return None
    mine, theirs = _places(other), _places(tensor)
    order = np.argsort(theirs, kind="stable")
    at = np.searchsorted(theirs[order], mine).clip(max=max(0, len(theirs) - 1))
    into = np.flatnonzero(theirs[order][at] == mine) if len(theirs) else np.zeros(0, np.int64)
    if not len(into):
        return before
    neuron = before.neuron or value.neuron
    return Value(overwritten, (before, value, into, order[at[into]]), {}, (), tuple(other.shape), neuron,
                 before.outside or value.outside, before.random or value.random,
                 other.clone() if not neuron else None, other.dtype)


def _places(tensor: Tensor) -> np.ndarray:
    """Where in memory each element of a tensor lies, in order."""
    where = np.array(tensor.storage_offset())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        where = np.add.outer(where, np.arange(size) * stride)
    return where.ravel()


def version_of(tensor: Tensor) -> int:
    """A number that grows with every change in place."""
    return -1 if tensor.is_inference() else tensor._version


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
