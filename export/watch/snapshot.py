"""A user's network in evaluation mode and float64 for a while, and afterwards exactly as it was."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from export.watch.leaf import is_fake_quantizer

_CONTAINERS = (list, dict, set)
_BOOKKEEPING = ("_modules", "_parameters", "_buffers")


def find_modules(network: nn.Module) -> dict[str, nn.Module]:
    """All modules by name, also those that are kept in plain lists and dicts, where torch does not look."""
    found: dict[str, nn.Module] = {}
    known: set[int] = set()

    def visit(name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            if id(value) in known:
                return
            known.add(id(value))
            if hasattr(value, "_orig_mod"):  # torch.compile
                visit(name, value._orig_mod)
                return
            found[name] = value
            for key, child in value._modules.items():
                visit(f"{name}.{key}" if name else key, child)
            for key, child in vars(value).items():
                if key not in ("_modules", "_parameters", "_buffers") and not key.startswith("_forward"):
                    visit(f"{name}.{key}" if name else key, child)
        elif isinstance(value, list | tuple | dict) and len(value) < 10_000:
            for key, child in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(child, nn.Module | list | tuple | dict):
                    visit(f"{name}.{key}", child)

    visit("", network)
    order = {id(module): number for number, (_, module) in enumerate(network.named_modules())}
    return dict(sorted(found.items(), key=lambda item: order.get(id(item[1]), len(order))))


@contextmanager
def prepared(network: nn.Module, dtype: torch.dtype = torch.float64) -> Iterator[dict[str, nn.Module]]:
    """All modules of `network`, in evaluation mode, floats in `dtype`, neurons at rest; put back on leaving.

    What a run may change is put back too: buffers, tensors, numbers, lists and dicts among the modules' attributes.
    """
    modules = find_modules(network)
    saved = _Saved()
    with ExitStack() as stack:
        stack.callback(saved.restore)
        stack.enter_context(_globals(dtype, devices_of(network)))
        for module in modules.values():
            saved.keep(module)
        rounding = {id(part) for module in modules.values() if is_fake_quantizer(module) for part in module.modules()}
        wide, same = _Change(dtype), _Change(None)
        for module in modules.values():
            change = same if id(module) in rounding else wide  # torch rounds in float32 alone
            for parameter in module._parameters.values():
                if parameter is not None:
                    saved.data.append((parameter, parameter.data))
                    parameter.data = change.tensor(parameter.data)
            for key, value in list(vars(module).items()):
                if key not in ("_parameters", "_modules"):
                    module.__dict__[key] = change.tree(value)
            module.__dict__["training"] = False
            if module.__dict__.get("_compiled_call_impl") is not None:
                module.__dict__["_compiled_call_impl"] = None
        for module in modules.values():
            if isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem"):
                module.reset_mem()
        yield modules


@contextmanager
def _globals(dtype: torch.dtype, devices: list[int]) -> Iterator[None]:
    """The default dtype, torch's random numbers, which begin at 0 in every run, and the compiler's stance."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else None
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            start_random(devices)
            if eager is None:
                yield
            else:
                with eager:
                    yield
    finally:
        torch.set_default_dtype(before)


def start_random(devices: list[int]) -> None:
    """Begin torch's random numbers anew: of this computer, and of GPUs; torch.manual_seed would reach those of GPUs
    that are not in use yet, whose state nobody can put back."""
    torch.default_generator.manual_seed(0)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(0)


def devices_of(network: nn.Module) -> list[int]:
    """The GPUs that a network lies on."""
    return sorted({value.device.index for value in (*network.parameters(), *network.buffers())
                   if value.device.type == "cuda"})


class _Saved:
    """Attributes of modules and contents of containers as they were."""

    def __init__(self):
        self.attributes: list[tuple[nn.Module, dict]] = []
        self.contents: dict[int, tuple[Any, Any]] = {}
        self.data: list[tuple[nn.Parameter, Tensor]] = []

    def keep(self, module: nn.Module) -> None:
        self.attributes.append((module, dict(vars(module))))
        for value in vars(module).values():
            self._contents(value)

    def _contents(self, value: Any) -> None:
        if isinstance(value, _CONTAINERS) and id(value) not in self.contents:
            self.contents[id(value)] = value, value.copy()
        if isinstance(value, list | tuple | dict):
            for child in value.values() if isinstance(value, dict) else value:
                if isinstance(child, list | tuple | dict | set):
                    self._contents(child)

    def restore(self) -> None:
        for module, attributes in self.attributes:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for value, content in self.contents.values():
            if isinstance(value, list):
                value[:] = content
            else:
                value.clear()
                value.update(content)
        for parameter, data in reversed(self.data):  # one that two modules share was kept twice: first as it was
            parameter.data = data


class _Change:
    """Copies of tensors in another dtype (None: in their own), one copy a tensor, so that what was shared still is."""

    def __init__(self, dtype: torch.dtype | None):
        self.dtype, self.copies = dtype, {}

    def tensor(self, value: Tensor) -> Tensor:
        if id(value) not in self.copies:
            detached = value.detach()
            dtype = self.dtype if self.dtype and value.is_floating_point() else value.dtype
            self.copies[id(value)] = value, detached.to(dtype, copy=True)
        return self.copies[id(value)][1]

    def tree(self, value: Any) -> Any:
        """Tensors in containers; a container is a new one only where it holds a tensor."""
        if isinstance(value, nn.Parameter):
            return value
        if type(value) is Tensor:
            return self.tensor(value)
        if isinstance(value, list | dict) and id(value) in self.copies:
            return self.copies[id(value)][1]
        if type(value) is list or (isinstance(value, dict) and type(value).__name__ in ("dict", "OrderedDict")):
            copied = value.copy()
            self.copies[id(value)] = value, copied
            for key, child in value.items() if isinstance(value, dict) else enumerate(value):
                copied[key] = self.tree(child)
            return copied
        if type(value) is tuple:
            return tuple(self.tree(child) for child in value)
        return value
