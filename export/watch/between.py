"""What a user changes of a network between two calls of it: states that are reset, a mode, a counter.

Hidden states and whatever else modules keep are looked at when a call ends and when the next one begins; what is not
the same is set again at the same place when the calls are run once more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.watch.snapshot import find_modules
from export.watch.values import transform

_OWN = ("_parameters", "_modules", "_buffers", "training", "_compiled_call_impl")


@dataclass(frozen=True)
class Change:
    """An attribute that is set."""

    module: nn.Module
    name: str
    buffer: bool
    value: Any

    def apply(self, dtype: torch.dtype) -> None:
        """Set it, floats in `dtype`."""
        def wide(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

        place = self.module._buffers if self.buffer else self.module.__dict__
        place[self.name] = transform(self.value, Tensor, wide)


class Between:
    """Looks at a network between its calls."""

    def __init__(self, network: nn.Module):
        self.modules = list(find_modules(network).values())
        self._first = [(module, name, buffer, transform(value, Tensor, lambda t: t.detach().clone()), _mark(value))
                       for module, name, buffer, value in self._kept()]
        self._left: dict[tuple[int, str], tuple[Any, Any]] | None = None

    def back(self) -> list[Change]:
        """What the calls changed, as it was before the first of them."""
        now = {(id(module), name): _mark(value) for module, name, _, value in self._kept()}
        return [Change(module, name, buffer, value) for module, name, buffer, value, mark in self._first
                if now.get((id(module), name), ()) != mark]

    def ends(self) -> None:
        """A call ends."""
        self._left = {(id(module), name): (value, _mark(value)) for module, name, _, value in self._kept()}

    def begins(self) -> list[Change]:
        """The next call begins: what was changed in between."""
        if self._left is None:
            return []
        changes = []
        for module, name, buffer, value in self._kept():
            before = self._left.get((id(module), name), (None, None))
            if before[0] is not value or before[1] != _mark(value):
                changes.append(Change(module, name, buffer, transform(value, Tensor, lambda t: t.detach().clone())))
        return changes

    def _kept(self) -> Iterator[tuple[nn.Module, str, bool, Any]]:
        for module in self.modules:
            for name, value in module._buffers.items():
                yield module, name, True, value
            for name, value in vars(module).items():
                if name not in _OWN and not name.startswith(("_forward", "_backward", "_state_dict", "_load_state")):
                    yield module, name, False, value


def _mark(value: Any) -> Any:
    """Something that is equal as long as a value is the same."""
    if isinstance(value, Tensor):
        return id(value), -1 if value.is_inference() else value._version
    if isinstance(value, list | tuple):
        return tuple(map(_mark, value))
    if isinstance(value, dict):
        return tuple((key, _mark(child)) for key, child in value.items())
    return value if isinstance(value, int | float | str | bool | None) else id(value)
