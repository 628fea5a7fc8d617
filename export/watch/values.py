"""What a recorded run consists of: values, the calls that made them, and the calls of neurons."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardspike import HardspikeError


@dataclass(eq=False)
class Value:
    """One tensor of a run, by where it comes from.

    Args:
        function: what made it: a function or method of torch, a leaf module, a `NeuronCall`; None for a tensor from
            outside of the run.
        args, kwargs: what that got, with Values in the place of tensors.
        index: which of several results it is; the role (`spk`, `mem`, ...) of what a neuron gives.
        shape: with the batch.
        dtype: of the tensor.
        neuron: depends on what a neuron gave.
        outside: depends on what the user handed over.
        random: drawn anew in every run.
        tensor: kept where no neuron is involved.
    """

    function: Callable | None
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    index: tuple | str = ()
    shape: tuple[int, ...] = ()
    neuron: bool = False
    outside: bool = False
    random: bool = False
    tensor: Tensor | None = None
    dtype: torch.dtype = torch.float64

    def constant(self) -> bool:
        """Whether it is the same whatever goes in."""
        return not (self.neuron or self.outside or self.random)

    def parents(self) -> Iterator["Value"]:
        """The values that it was made from."""
        if not isinstance(self.function, NeuronCall):
            yield from leaves((self.args, self.kwargs))


@dataclass(eq=False)
class NeuronCall:
    """One call of a neuron.

    Args:
        name, module: of the neuron.
        number: how many calls of it came before.
        input: what it got.
        states: role -> the value that it started from (None: nothing yet), and whether that was zero.
        spikes: of this call (B, ...), uint8.
        membrane: what it compared with its threshold.
        inherited: it started from what was there before the run.
    """

    name: str
    module: nn.Module
    number: int
    input: Value
    states: dict[str, tuple[Value | None, bool]]
    spikes: Tensor | None = None
    membrane: Tensor | None = None
    outputs: dict[str, Value] = field(default_factory=dict)
    inherited: bool = False


def leaves(tree: Any, kind: type = Value) -> Iterator[Any]:
    """The Values, or what else is of class `kind`, in a tree of tuples, lists, dicts and slices."""
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, tuple | list):
        for child in tree:
            yield from leaves(child, kind)
    elif isinstance(tree, dict):
        for child in tree.values():
            yield from leaves(child, kind)
    elif isinstance(tree, slice):
        yield from leaves((tree.start, tree.stop, tree.step), kind)


def transform(tree: Any, kind: type, change: Callable) -> Any:
    """`tree` with `change` of every leaf of class `kind`; dataclasses and sets are taken as they are."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, tuple):
        children = [transform(child, kind, change) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if isinstance(tree, list):
        return [transform(child, kind, change) for child in tree]
    if isinstance(tree, dict):
        return {key: transform(child, kind, change) for key, child in tree.items()}
    if isinstance(tree, slice):
        return slice(*(transform(child, kind, change) for child in (tree.start, tree.stop, tree.step)))
    return tree


def tensors(tree: Any, path: tuple = ()) -> Iterator[tuple[tuple, Tensor]]:
    """(path, tensor) of every tensor in what a function returned."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, tuple | list):
        for number, child in enumerate(tree):
            yield from tensors(child, (*path, number))
    elif isinstance(tree, dict):
        for key, child in tree.items():
            yield from tensors(child, (*path, key))
    elif hasattr(tree, "__dataclass_fields__"):
        for key in tree.__dataclass_fields__:
            yield from tensors(getattr(tree, key), (*path, key))


def require_plain(tree: Any) -> None:
    """Refuse tensors whose numbers do not lie one beside the other.

    Raises:
        HardspikeError: there is one.
    """
    for _, tensor in tensors(tree):
        for odd, words, way in (
                (tensor.is_nested, "that is nested", "it padded: torch.nested.to_padded_tensor(x, 0)"),
                (tensor.layout != torch.strided, f"of layout {tensor.layout}", "it dense: x.to_dense()"),
                (tensor.is_quantized, "of whole numbers with a scale", "it as what it stands for: x.dequantize()"),
                (tensor.is_meta, "without numbers (on the device meta)", "real samples")):
            if odd:
                raise HardspikeError(f"what goes in is a tensor {words}; give {way}")


def key_of(tree: Any) -> Any:
    """Something hashable that is equal for equal trees; a Value is equal to itself alone."""
    if isinstance(tree, tuple | list):
        return (type(tree).__name__ if not isinstance(tree, torch.Size) else "tuple", *map(key_of, tree))
    if isinstance(tree, dict):
        return ("dict", *((key, key_of(child)) for key, child in tree.items()))
    if isinstance(tree, slice):
        return ("slice", *map(key_of, (tree.start, tree.stop, tree.step)))
    if isinstance(tree, np.ndarray):
        return ("array", tree.shape, tree.tobytes())
    if isinstance(tree, np.generic):
        tree = tree.item()
    if isinstance(tree, int | float | str | bool | complex | torch.dtype | torch.device | None | type(...)):
        return (type(tree).__name__, tree)
    if getattr(getattr(tree, "__dataclass_params__", None), "frozen", False):
        return ("data", tree)
    return ("object", id(tree))


def label(function: Any) -> str:
    """The name of a function or method of torch as users write it."""
    name = getattr(function, "__name__", None) or type(function).__name__
    if name in ("__get__", "__set__"):
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    name = _SPELLINGS.get(name, name)
    return name.strip("_") if name.startswith("__") else name


_SPELLINGS = {"__getitem__": "getitem", "__setitem__": "setitem", "__radd__": "add", "__iadd__": "add_",
              "__add__": "add", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_", "__sub__": "sub",
              "__rsub__": "rsub", "__truediv__": "div", "__matmul__": "matmul", "__rmatmul__": "rmatmul",
              "__neg__": "neg", "_max_pool2d": "max_pool2d", "_max_pool1d": "max_pool1d", "true_divide": "div",
              "multiply": "mul", "subtract": "sub", "divide": "div", "swapaxes": "transpose", "negative": "neg",
              "overwritten": "a change in place"}
